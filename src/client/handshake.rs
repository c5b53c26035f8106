//! From an address to CONNACK: dial, CONNECT, and what the server says to it.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::authentication::{Running, Step};
use super::options::{ConnectOptions, RECEIVE_MAXIMUM, TlsOptions, WillOptions};
use super::shared::{Shared, now};
use super::{ClientError, Phase, Refusal};
use crate::net::Socket;
use crate::net::dial::{self, DialOptions, Dialled};
use crate::net::tls::{CaSources, ClientTls, ClientTlsOptions, Verification};
use crate::net::transport::Received;
use crate::net::url::Endpoint;
use crate::outbox::{OutBuf, Outbox, OutboxEvent, OutboxOptions};
use crate::packet_log;
use crate::proto::packet::connack::Connack;
use crate::proto::packet::connect::{Connect, ConnectProperties, Will};
use crate::proto::packet::{Disconnect, Packet, PacketType};
use crate::proto::{Decoder, ProtocolError, ProtocolVersion, ReasonCode, codec};

/// A connection on which the server has accepted the client.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) socket: Arc<Socket>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) decoder: Decoder,
    /// Plain bytes that came after CONNACK.
    pub(crate) early: BytesMut,
    pub(crate) connack: Connack,
    /// The Client Identifier in use from now on.
    pub(crate) client_id: ByteString,
    /// The version that the server took.
    pub(crate) version: ProtocolVersion,
}

/// Why a connection was not accepted.
pub(crate) enum GreetingError {
    /// The server gave no CONNACK of the version that was spoken, or refused the version: it may speak an older one.
    NoConnack(ClientError),
    Other(ClientError),
}

impl GreetingError {
    pub(crate) fn into_inner(self) -> ClientError {
        match self {
            Self::NoConnack(error) | Self::Other(error) => error,
        }
    }

    /// Sorts what went wrong between CONNECT and CONNACK.
    fn after_connect(error: ClientError) -> Self {
        let may_be_older = match &error {
            ClientError::Malformed(_)
            | ClientError::ConnectionLost
            | ClientError::Timeout(Phase::Connack) => true,
            ClientError::Refused(refusal) => {
                refusal.reason == ReasonCode::UnsupportedProtocolVersion
            }
            _ => false,
        };
        if may_be_older {
            Self::NoConnack(error)
        } else {
            Self::Other(error)
        }
    }
}

/// One connection to one server, and CONNECT in this version, which is to be answered by `answer_by`.
// BLOCKS: until CONNACK, `deadline` or `answer_by`.
pub(crate) fn greet(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    version: ProtocolVersion,
    clean_start: bool,
    deadline: Instant,
    answer_by: Instant,
) -> Result<Established, GreetingError> {
    let options = &shared.options;
    let (client_id, session_expiry) = {
        let core = shared.lock();
        let for_ever = (!core.clean_start).then_some(u32::MAX);
        let expiry = options.session_expiry.or(for_ever);
        (core.result.client_id.clone(), expiry)
    };
    let running = match &options.authentication {
        Some(method) => Some(Running::begin(&**method).map_err(GreetingError::Other)?),
        None => None,
    };
    let dialled = dial(shared, endpoint, deadline).map_err(GreetingError::Other)?;
    let socket = Arc::new(dialled.socket);
    let outbox = Outbox::new(
        Arc::clone(&socket),
        dialled.layers,
        OutboxOptions {
            write_timeout: options.write_timeout,
            soft_limit_bytes: options.send_buffer_bytes,
            ..OutboxOptions::default()
        },
        on_outbox_event(Arc::downgrade(shared)),
    );
    let mut greeting = Greeting {
        socket,
        outbox,
        decoder: decoder(options, version),
        received: BytesMut::from(&dialled.early[..]),
        deadline: answer_by.min(deadline),
        running: None,
    };
    let mut connect = connect_packet(options, version, endpoint, client_id.clone());
    connect.clean_start = clean_start;
    if version.has_properties() {
        connect.properties.session_expiry_interval = session_expiry;
        if let Some((running, data)) = running {
            connect.properties.authentication_method = Some(running.method().clone());
            connect.properties.authentication_data = data;
            greeting.running = Some(running);
        }
    }
    let connack = match greeting.exchange(connect) {
        Ok(connack) => connack,
        Err(error) => {
            greeting.outbox.abort();
            return Err(GreetingError::after_connect(error));
        }
    };
    // [MQTT-3.2.2-4]
    if connack.session_present && clean_start {
        let error = ClientError::from(ProtocolError::UnexpectedSession);
        greeting.outbox.close_with(&mut last_words(&error, version));
        return Err(GreetingError::Other(error));
    }
    let assigned = connack.properties.assigned_client_identifier.clone();
    Ok(Established {
        socket: greeting.socket,
        outbox: greeting.outbox,
        decoder: greeting.decoder,
        early: greeting.received,
        connack,
        client_id: assigned.unwrap_or(client_id),
        version,
    })
}

/// A connection before CONNACK.
struct Greeting {
    socket: Arc<Socket>,
    outbox: Arc<Outbox>,
    decoder: Decoder,
    received: BytesMut,
    deadline: Instant,
    /// The exchange of enhanced authentication.
    running: Option<Running>,
}

impl Greeting {
    fn exchange(&mut self, connect: Connect) -> Result<Connack, ClientError> {
        let version = connect.version;
        let client_id = connect.client_id.clone();
        self.send(&client_id, version, &Packet::Connect(Box::new(connect)))?;
        loop {
            match self.next_packet(&client_id)? {
                Packet::Connack(connack) if connack.reason.is_error() => {
                    return Err(refusal(*connack, version));
                }
                Packet::Connack(connack) => {
                    if let Some(running) = &mut self.running {
                        let properties = &connack.properties;
                        let method = properties.authentication_method.as_ref();
                        running.finish(method, properties.authentication_data.as_deref())?;
                    }
                    return Ok(*connack);
                }
                Packet::Auth(auth) => {
                    let running = self.running.as_mut();
                    let running = running.ok_or(ProtocolError::UnexpectedAuth)?;
                    let Step::Send(packet) = running.on_auth(&auth)? else {
                        return Err(ProtocolError::UnexpectedAuth.into());
                    };
                    self.send(&client_id, version, &packet)?;
                }
                _ => return Err(ProtocolError::WrongDirection.into()),
            }
        }
    }

    fn send(
        &self,
        client_id: &str,
        version: ProtocolVersion,
        packet: &Packet,
    ) -> Result<(), ClientError> {
        let mut out = OutBuf::new();
        codec::encode(packet, version, out.bytes_mut())?;
        if packet_log::is_on() {
            packet_log::sent(client_id, version, &out);
        }
        let _ = self.outbox.send(&mut out);
        Ok(())
    }

    fn next_packet(&mut self, client_id: &str) -> Result<Packet, ClientError> {
        let mut raw = [0; 1024];
        loop {
            if let Some(frame) = self.decoder.frame(&self.received)? {
                let bytes = self.received.split_to(frame.total_bytes as usize).freeze();
                let packet = self.decoder.decode(frame, &bytes)?;
                packet_log::received(client_id, frame, &packet);
                return Ok(packet);
            }
            let left = left(self.deadline);
            if left.is_zero() {
                return Err(ClientError::Timeout(Phase::Connack));
            }
            self.socket.set_read_timeout(Some(left)).map_err(network)?;
            let read = match self.socket.read(&mut raw) {
                Ok(0) => return Err(ClientError::ConnectionLost),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
                Err(error) if is_a_close(&error) => return Err(ClientError::ConnectionLost),
                Err(error) => return Err(network(error)),
            };
            let raw = raw.get(..read).unwrap_or_default();
            match self.outbox.receive(raw, &mut self.received)? {
                Received::Closed if self.received.is_empty() => {
                    return Err(ClientError::ConnectionLost);
                }
                _ => {}
            }
        }
    }
}

/// The DISCONNECT that tells the server what it did wrong; nothing if there is nothing to tell, or no word for it.
///
/// Source: MQTT 5.0 §4.13.
pub(crate) fn last_words(error: &ClientError, version: ProtocolVersion) -> OutBuf {
    let mut out = OutBuf::new();
    let reason = match error {
        ClientError::Malformed(error) => error.reason(),
        ClientError::Protocol(error) => error.reason(),
        ClientError::Authentication(_) => ReasonCode::UnspecifiedError,
        _ => return out,
    };
    if version.has_reason_codes() && reason.is_allowed_in(PacketType::Disconnect) {
        let packet = Packet::Disconnect(Box::new(Disconnect::new(reason)));
        let encoded = codec::encode(&packet, version, out.bytes_mut());
        debug_assert!(encoded.is_ok(), "{packet:?}: {encoded:?}");
    }
    out
}

// BLOCKS: until the network connection and its layers stand, or `deadline`.
fn dial(shared: &Shared, endpoint: &Endpoint, deadline: Instant) -> Result<Dialled, ClientError> {
    let mut dial = if endpoint.tls && shared.dial.tls.is_none() {
        // A server has led from a plain connection to TLS.
        dial_options(&shared.options, endpoint)?
    } else {
        shared.dial.clone()
    };
    dial.connect_timeout = left(deadline);
    Ok(dial::dial(endpoint, &dial)?)
}

/// What dialling needs; reads the files that the options name.
// BLOCKS: while files are read.
pub(crate) fn dial_options(
    options: &ConnectOptions,
    endpoint: &Endpoint,
) -> Result<DialOptions, ClientError> {
    let tls = endpoint
        .tls
        .then(|| ClientTls::new(&tls_options(&options.tls)))
        .transpose()?;
    if !endpoint.websocket && !options.extra_headers.is_empty() {
        log::warn!("extra headers have no effect without WebSocket");
    }
    Ok(DialOptions {
        connect_timeout: options.connect_timeout,
        bind: options.bind_address,
        proxy: options.proxy.clone(),
        tls,
        extra_headers: options.extra_headers.clone(),
        max_message_bytes: options.max_packet_bytes as usize,
    })
}

fn tls_options(options: &TlsOptions) -> ClientTlsOptions {
    let verification = if options.insecure_skip_verification {
        log::warn!("TLS certificates are not verified: anybody can pose as the server");
        Verification::InsecureNothing
    } else if options.insecure_skip_host_name {
        log::warn!("the host name in TLS certificates is not verified");
        Verification::InsecureAnyName
    } else {
        Verification::Full
    };
    ClientTlsOptions {
        ca: CaSources {
            file: options.ca_file.clone(),
            path: options.ca_path.clone(),
            data: options.ca_data.clone(),
        },
        certificate: options.cert_file.clone().zip(options.key_file.clone()),
        verification,
        system_roots: options.system_roots,
        versions: options.versions,
        alpn: options.alpn.clone(),
        key_log: options.key_log_file.clone(),
        server_name: None,
    }
}

fn decoder(options: &ConnectOptions, version: ProtocolVersion) -> Decoder {
    Decoder {
        max_packet_bytes: options.max_packet_bytes,
        ..Decoder::new(version)
    }
}

/// Events come from a thread of the outbox, without a lock held.
fn on_outbox_event(shared: Weak<Shared>) -> Box<dyn Fn(OutboxEvent) + Send + Sync> {
    Box::new(move |event| {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match event {
            OutboxEvent::Drained => {
                // Who waits for room looks under the lock: without it the wake-up could come between look and wait.
                drop(shared.lock());
                shared.notify();
            }
            OutboxEvent::Failed(error) => {
                log::debug!("sending failed: {error}");
                shared.inbox.poke();
            }
        }
    })
}

fn connect_packet(
    options: &ConnectOptions,
    version: ProtocolVersion,
    endpoint: &Endpoint,
    client_id: ByteString,
) -> Connect {
    let user_name = options
        .user_name
        .clone()
        .or_else(|| endpoint.user.clone().map(ByteString::from));
    let mut password = options
        .password
        .clone()
        .or_else(|| endpoint.password.clone().map(Bytes::from));
    if user_name.is_none() && !version.allows_password_without_user_name() && password.is_some() {
        log::warn!("the password is not sent: {version} has none without a user name");
        password = None;
    }
    Connect {
        version,
        clean_start: options.clean_start,
        keep_alive: options.keep_alive,
        client_id,
        will: options.will.as_ref().map(will_packet),
        user_name,
        password,
        properties: if version.has_properties() {
            connect_properties(options)
        } else {
            ConnectProperties::default()
        },
    }
}

fn connect_properties(options: &ConnectOptions) -> ConnectProperties {
    ConnectProperties {
        session_expiry_interval: options.session_expiry,
        receive_maximum: options.receive_maximum.or(Some(RECEIVE_MAXIMUM)),
        maximum_packet_size: Some(options.max_packet_bytes)
            .filter(|bytes| *bytes < codec::MAX_PACKET_BYTES),
        topic_alias_maximum: Some(options.topic_alias_maximum).filter(|aliases| *aliases > 0),
        request_response_information: options.request_response_information.then_some(true),
        request_problem_information: (!options.request_problem_information).then_some(false),
        user_properties: options.user_properties.clone(),
        authentication_method: None,
        authentication_data: None,
    }
}

fn will_packet(will: &WillOptions) -> Will {
    Will {
        qos: will.qos,
        retain: will.retain,
        topic: will.topic.clone(),
        payload: will.payload.clone(),
        delay_interval: will.delay,
        properties: will.properties.clone(),
    }
}

fn refusal(connack: Connack, version: ProtocolVersion) -> ClientError {
    let on_the_wire = if version.has_reason_codes() {
        Some(connack.reason.as_u8())
    } else {
        connack.reason.connect_return_code()
    };
    ClientError::Refused(Arc::new(Refusal {
        reason: connack.reason,
        return_code: on_the_wire.unwrap_or(ReasonCode::UnspecifiedError.as_u8()),
        reason_string: connack.properties.reason_string,
        server_reference: connack.properties.server_reference,
        user_properties: connack.properties.user_properties,
    }))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(now())
}

/// The server closed the connection without reading all that was sent.
fn is_a_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

fn network(error: io::Error) -> ClientError {
    ClientError::Network(Arc::new(error.into()))
}
