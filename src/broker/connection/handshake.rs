//! CONNECT to CONNACK: decode, limits, authenticate, attach, one function each.
//!
//! Who the client is stands in [`identity`](super::identity), an authentication of several steps in
//! [`exchange`](super::exchange), what the client is told in [`connack`](super::connack).

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytestring::ByteString;

use super::exchange::Proof;
use super::identity::Identity;
use super::read_buffer::{ReadBuffer, ReadError};
use super::reader::{NOT_UTF8, Reader};
use super::{ListenerState, Services, Settings, socket_address};
use crate::broker::auth::{Access, Action, AuthChain, ConnectInfo};
use crate::broker::config::Config;
use crate::broker::plugin::{Event, SessionInfo};
use crate::broker::redirect::redirection;
use crate::broker::router::command::{
    Attach, Command, ConnectionId, Goodbye, Origin, SessionExpiry,
};
use crate::broker::router::reply::reply;
use crate::net::socket::{PeerAddress, Socket};
use crate::net::transport::PeerCertificate;
use crate::outbox::Outbox;
use crate::proto::packet::connack::Connack;
use crate::proto::packet::connect::{Connect, Will};
use crate::proto::packet::publish::PublishProperties;
use crate::proto::packet::{Packet, QoS};
use crate::proto::{Decoder, ProtocolError, ProtocolVersion, ReasonCode, codec, topic};

/// The version to speak before CONNECT has told it.
const BEFORE_CONNECT: ProtocolVersion = ProtocolVersion::V5;

/// An accepted connection that has not sent CONNECT yet.
pub(super) struct Newcomer<'a> {
    pub(super) services: &'a Arc<Services>,
    pub(super) listener: &'a Arc<ListenerState>,
    pub(super) settings: &'a Settings,
    pub(super) id: ConnectionId,
    pub(super) socket: Arc<Socket>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) origin: &'a Arc<OnceLock<Origin>>,
    pub(super) early: Vec<u8>,
    pub(super) peer: PeerAddress,
    pub(super) certificate: Option<PeerCertificate>,
    pub(super) deadline: Instant,
    pub(super) over_limit: bool,
}

/// A CONNECT that is not accepted: what CONNACK says, and what the log says.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: ReasonCode,
    pub(super) text: ByteString,
    /// Who or what refused: for the log, not for the client.
    pub(super) by: String,
    /// Where the client is to go instead.
    pub(super) server_reference: Option<ByteString>,
}

/// Why a client is not admitted.
#[derive(Debug)]
pub(super) enum Denied {
    /// It is told.
    Refused(Refused),
    /// There is nobody to tell any more.
    Gone(ReadError),
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

pub(super) fn refused(reason: ReasonCode, text: &'static str) -> Refused {
    Refused {
        reason,
        text: ByteString::from_static(text),
        by: String::new(),
        server_reference: None,
    }
}

/// Reads CONNECT, decides, and attaches the client to its session.
///
/// `None`: the connection is refused, answered and closed.
///
/// # Blocking
/// On the socket until the deadline; on authentication; on the router.
///
/// Source: MQTT 5.0 §3.1.4; MQTT 3.1.1 §3.1.4.
pub(super) fn connect(mut newcomer: Newcomer<'_>) -> Option<Box<Reader>> {
    let mut buffer = ReadBuffer::new(std::mem::take(&mut newcomer.early));
    let connect = match read_connect(&newcomer, &mut buffer) {
        Ok(connect) => connect,
        Err(Unread { error, version }) => {
            newcomer.give_up(error, version);
            return None;
        }
    };
    newcomer.show_connect(&connect);
    match newcomer.admit(&connect, &mut buffer) {
        Ok(mut reader) => {
            reader.begin_with(buffer);
            log::info!(
                "{} ({}) connected on listener '{}': {}, {}",
                reader.client_id.escape_debug(),
                reader.peer,
                newcomer.listener.name,
                connect.version,
                reader.user_text()
            );
            Some(reader)
        }
        Err(Denied::Refused(refused)) => {
            newcomer.refuse(&connect, &refused);
            None
        }
        Err(Denied::Gone(error)) => {
            newcomer.let_go(&connect, &error);
            None
        }
    }
}

/// The refusal of a client that is to use another broker, if the settings say so.
fn redirected(config: &Config) -> Option<Refused> {
    let Goodbye {
        reason,
        text,
        server_reference,
    } = redirection(config)?;
    Some(Refused {
        reason,
        text,
        by: server_reference.as_deref().unwrap_or_default().to_owned(),
        server_reference,
    })
}

/// Reads until the first packet is whole. It must be CONNECT. [MQTT-3.1.0-1]
fn read_connect(newcomer: &Newcomer<'_>, buffer: &mut ReadBuffer) -> Result<Box<Connect>, Unread> {
    let decoder = newcomer.decoder(BEFORE_CONNECT);
    loop {
        // The type is known from the first byte: what is not CONNECT is not waited for.
        if buffer.bytes().first().is_some_and(|first| first >> 4 != 1) {
            return Err(ReadError::Protocol(ProtocolError::ConnectExpected).into());
        }
        if let Some(frame) = decoder.frame(buffer.bytes()).map_err(ReadError::from)? {
            let packet = buffer.take(frame.total_bytes as usize);
            return match decoder.decode(frame, &packet) {
                Ok(Packet::Connect(connect)) => Ok(connect),
                Ok(_) => Err(ReadError::Protocol(ProtocolError::ConnectExpected).into()),
                Err(error) => Err(Unread {
                    error: error.into(),
                    version: announced_version(&packet),
                }),
            };
        }
        buffer.read_until(
            &newcomer.socket,
            &newcomer.outbox,
            &newcomer.services.spares,
            newcomer.deadline,
        )?;
    }
}

/// There is no CONNECT that can be understood.
struct Unread {
    error: ReadError,
    /// What it says about itself, if it gets so far.
    version: Option<ProtocolVersion>,
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        Self {
            error,
            version: None,
        }
    }
}

/// The version that a CONNECT names before it becomes malformed.
fn announced_version(packet: &[u8]) -> Option<ProtocolVersion> {
    let long = packet.iter().skip(1).take_while(|byte| **byte & 0x80 != 0);
    let variable_header = packet.get(long.count() + 2..)?;
    let (length, rest) = variable_header.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    ProtocolVersion::from_wire(name, *rest.first()?)
}

impl Newcomer<'_> {
    /// The whole decision about a CONNECT.
    fn admit(&self, connect: &Connect, buffer: &mut ReadBuffer) -> Result<Box<Reader>, Denied> {
        if let Some(elsewhere) = redirected(&self.settings.config) {
            return Err(elsewhere.into());
        }
        if self.over_limit {
            return Err(refused(
                ReasonCode::QuotaExceeded,
                "too many connections: try again later",
            )
            .into());
        }
        if self.services.memory.is_tight() {
            return Err(refused(
                ReasonCode::QuotaExceeded,
                "the broker is short of memory: try again later",
            )
            .into());
        }
        let chain = Arc::clone(self.settings.auth.listener(&self.listener.name));
        let proof = self.prove(connect, &chain, buffer)?;
        let identity = self.identify(connect, proof.as_ref())?;
        self.authenticate(connect, &identity, proof.is_some(), &chain)?;
        let will = self.check_will(connect, &identity, &chain)?;
        self.check_keep_alive(connect)?;
        Ok(self.attach(connect, identity, proof, will, chain)?)
    }

    /// Reads packets of a client that is not authenticated yet.
    pub(super) fn decoder(&self, version: ProtocolVersion) -> Decoder {
        let limits = &self.settings.config.limits;
        let mut decoder = Decoder::new(version);
        decoder.max_packet_bytes =
            clamp(limits.max_connect_packet_size.min(limits.max_packet_size));
        decoder.max_property_bytes = clamp(limits.max_properties_size);
        decoder.max_properties = clamp(limits.max_properties);
        decoder.max_filters = clamp(limits.max_filters);
        decoder
    }

    /// What authenticators are told about the client.
    pub(super) fn connect_info<'b>(
        &'b self,
        version: ProtocolVersion,
        client_id: &'b str,
        user_name: Option<&'b str>,
    ) -> ConnectInfo<'b> {
        let mut info = ConnectInfo::new(client_id, &self.listener.name, version);
        info.user_name = user_name;
        info.address = socket_address(&self.peer).map(|address| address.ip());
        info
    }

    fn authenticate(
        &self,
        connect: &Connect,
        identity: &Identity,
        is_proven: bool,
        chain: &AuthChain,
    ) -> Result<(), Refused> {
        let user_name = identity.user_name.as_deref();
        let mut info = self.connect_info(connect.version, &identity.client_id, user_name);
        info.user_is_proven = is_proven || identity.is_certified;
        let judgement = if is_proven {
            chain.accept_proven(&info)
        } else {
            info.password = connect.password.as_deref();
            #[expect(
                clippy::disallowed_methods,
                reason = "the thread of the connection reads its own clock"
            )]
            let now = Instant::now();
            chain.authenticate(&info, now)
        };
        if !judgement.delay.is_zero() {
            crate::thread::rest(judgement.delay);
        }
        judgement.result.map_err(|reason| {
            let text = if reason == ReasonCode::QuotaExceeded {
                self.services.metrics.password_checks_refused.increment();
                "too many passwords are being verified"
            } else {
                "bad user name or password, or not authorized"
            };
            Refused {
                by: judgement.refused_by,
                ..refused(reason, text)
            }
        })
    }

    /// Would the client be allowed to publish its will?
    fn check_will(
        &self,
        connect: &Connect,
        identity: &Identity,
        chain: &AuthChain,
    ) -> Result<Option<Will>, Refused> {
        let Some(will) = &connect.will else {
            return Ok(None);
        };
        let config = &self.settings.config;
        if will.qos > self.max_qos() {
            return Err(refused(
                ReasonCode::QosNotSupported,
                "the will's QoS is not supported",
            ));
        }
        if will.retain && !config.retain_available {
            return Err(refused(
                ReasonCode::RetainNotSupported,
                "retained messages are not supported",
            ));
        }
        let mut will = will.clone();
        if let Some(prefix) = &self.listener.config.mount_point {
            will.topic = ByteString::from(format!("{prefix}{}", will.topic));
        }
        if will.payload.len() > config.limits.max_payload_size {
            return Err(refused(ReasonCode::PacketTooLarge, "the will is too large"));
        }
        let described = |properties: &PublishProperties| properties.describes(&will.payload);
        if config.check_payload_format && !will.properties.as_deref().is_none_or(described) {
            self.services.metrics.payload_format_invalid.increment();
            return Err(refused(ReasonCode::PayloadFormatInvalid, NOT_UTF8));
        }
        let access = Access {
            client_id: &identity.client_id,
            user: identity.user_name.as_deref(),
            action: Action::Publish,
            topic: &will.topic,
        };
        let own = topic::levels(&will.topic).count() <= config.limits.max_topic_levels
            && will.topic.len() <= config.limits.max_topic_length;
        if !own {
            return Err(refused(
                ReasonCode::TopicNameInvalid,
                "the will's topic has too many levels",
            ));
        }
        if is_reserved(&will.topic) || !chain.authorize(&access) {
            self.services.metrics.access_denied.increment();
            return Err(refused(
                ReasonCode::NotAuthorized,
                "the client may not publish its will",
            ));
        }
        Ok(Some(will))
    }

    /// Before 5.0 there is no way to tell the client another Keep Alive.
    fn check_keep_alive(&self, connect: &Connect) -> Result<(), Refused> {
        match self.settings.config.limits.max_keepalive {
            Some(limit)
                if !connect.version.has_properties()
                    && (connect.keep_alive == 0 || connect.keep_alive > limit) =>
            {
                Err(refused(
                    ReasonCode::ClientIdentifierNotValid,
                    "keep alive too long",
                ))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn max_qos(&self) -> QoS {
        self.listener
            .config
            .max_qos
            .min(self.settings.config.max_qos)
    }

    /// Asks the router for the session and waits for its answer. CONNACK is on its way then.
    fn attach(
        &self,
        connect: &Connect,
        identity: Identity,
        proof: Option<Proof>,
        will: Option<Will>,
        chain: Arc<AuthChain>,
    ) -> Result<Box<Reader>, Refused> {
        let config = &self.settings.config;
        let limits = &config.limits;
        let properties = &connect.properties;
        let authentication_method = properties.authentication_method.as_deref();
        let connack = self.connack(connect, &identity, proof)?;
        let keep_alive = connack.server_keep_alive.unwrap_or(connect.keep_alive);
        let cap = u32::try_from(config.persistence.session_expiry.as_secs()).unwrap_or(u32::MAX);
        let expiry = properties.session_expiry_interval.unwrap_or(0).min(cap);
        let receive_maximum = if connect.version.has_receive_maximum() {
            limits.receive_maximum
        } else {
            u16::MAX
        };
        let maximum_packet_size = properties.maximum_packet_size.unwrap_or(u32::MAX);
        let reader = Reader::new(super::reader::Settled {
            services: Arc::clone(self.services),
            listener: Arc::clone(self.listener),
            config: Arc::clone(config),
            chain: Arc::clone(&chain),
            socket: Arc::clone(&self.socket),
            outbox: Arc::clone(&self.outbox),
            connection: self.id,
            version: connect.version,
            client_id: identity.client_id.clone(),
            user_name: identity.user_name.clone(),
            peer: self.peer.to_string(),
            keep_alive,
            problem_information: properties.request_problem_information.unwrap_or(true),
            maximum_packet_size,
            // What the client was told.
            topic_alias_maximum: connack.topic_alias_maximum.unwrap_or(0),
            authentication_method: authentication_method.map(ByteString::from),
            address: socket_address(&self.peer).map(|address| address.ip()),
            max_qos: self.max_qos(),
            connect_expiry: properties.session_expiry_interval.unwrap_or(0),
            client: self.services.plugins.wants_packets().then(|| {
                let user_name = identity.user_name.as_ref();
                Arc::new(self.session_info(connect, &identity.client_id, user_name, keep_alive))
            }),
        });
        let (reply, answer) = reply();
        let attach = Attach {
            connection: self.id,
            client_id: identity.client_id,
            owner: identity.owner,
            listener: Arc::clone(&self.listener.name),
            address: socket_address(&self.peer),
            version: connect.version,
            clean_start: connect.clean_start,
            session_expiry: SessionExpiry::from_seconds(expiry),
            keep_alive,
            will,
            send_window: properties
                .receive_maximum
                .unwrap_or(u16::MAX)
                .min(limits.max_inflight_messages),
            receive_maximum,
            maximum_packet_size,
            topic_alias_maximum: properties
                .topic_alias_maximum
                .unwrap_or(0)
                .min(limits.max_topic_alias),
            problem_information: properties.request_problem_information.unwrap_or(true),
            mount_point: self
                .listener
                .config
                .mount_point
                .as_deref()
                .map(ByteString::from),
            max_qos: self.max_qos(),
            chain,
            origin: Arc::clone(self.origin),
            outbox: Arc::clone(&self.outbox),
            connack: Box::new(Connack {
                session_present: false,
                reason: ReasonCode::Success,
                properties: connack,
            }),
            reply,
        };
        let stopping = || {
            refused(
                // CONNACK has no Server shutting down.
                ReasonCode::ServerUnavailable,
                "the broker stops: connect again later",
            )
        };
        // Before CONNACK, which the router sends: who has it is told when the broker stops.
        self.services.half_open.leave(self.id);
        // BLOCKS: on the router's inbox, then on its answer. The router never waits for a connection.
        self.services
            .router
            .send(Command::Attach(Box::new(attach)))
            .map_err(|_| stopping())?;
        match answer.wait() {
            Some(Ok(slot)) => {
                let origin = Origin {
                    slot,
                    connection: self.id,
                };
                Ok(reader.attached(origin))
            }
            Some(Err(ReasonCode::NotAuthorized)) => Err(refused(
                ReasonCode::NotAuthorized,
                "the session belongs to another user",
            )),
            Some(Err(ReasonCode::QuotaExceeded)) => Err(refused(
                ReasonCode::QuotaExceeded,
                "too many sessions: end some, or connect with Session Expiry Interval 0",
            )),
            // The settings have changed since the handshake began.
            Some(Err(reason)) => Err(redirected(&self.services.settings().config)
                .unwrap_or_else(|| refused(reason, "the broker takes no clients now"))),
            None => Err(stopping()),
        }
    }

    /// The client as plugins see it while its packets pass.
    fn session_info(
        &self,
        connect: &Connect,
        client_id: &ByteString,
        user_name: Option<&ByteString>,
        keep_alive: u16,
    ) -> SessionInfo {
        let will = connect.will.as_ref();
        SessionInfo {
            client_id: client_id.clone(),
            user_name: user_name.cloned(),
            version: connect.version,
            connected: true,
            clean_start: connect.clean_start,
            session_present: false,
            keep_alive,
            address: socket_address(&self.peer),
            listener: Arc::clone(&self.listener.name),
            will_topic: will.map(|will| will.topic.clone()),
            will_payload: will.map(|will| will.payload.clone()).unwrap_or_default(),
            will_qos: will.map_or(QoS::AtMostOnce, |will| will.qos),
            will_retain: will.is_some_and(|will| will.retain),
            inflight_in: 0,
            inflight_out: 0,
            queued: 0,
        }
    }

    /// Shows CONNECT to the plugins that want to see packets.
    fn show_connect(&self, connect: &Connect) {
        let plugins = &self.services.plugins;
        if plugins.wants_packets() {
            let client = Arc::new(self.early_info(connect));
            let packet = Box::new(Packet::Connect(Box::new(connect.clone())));
            plugins.fire(Event::PacketReceived { packet, client });
        }
    }

    /// The client as CONNECT alone describes it.
    pub(super) fn early_info(&self, connect: &Connect) -> SessionInfo {
        let user_name = connect.user_name.as_ref();
        self.session_info(connect, &connect.client_id, user_name, connect.keep_alive)
    }
}

/// Topics that no client may publish to.
pub(super) fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
}

pub(super) fn clamp(size: usize) -> u32 {
    u32::try_from(size)
        .unwrap_or(u32::MAX)
        .min(codec::MAX_PACKET_BYTES)
}
