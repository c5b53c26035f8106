//! CONNECT to CONNACK: decode, limits, authenticate, attach, one function each.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytestring::ByteString;
use crossbeam_channel::bounded;

use super::read_buffer::{ReadBuffer, ReadError, linger};
use super::reader::Reader;
use super::{ListenerState, Services, Settings, socket_address, violation};
use crate::broker::auth::{Access, Action, AuthChain, ConnectInfo};
use crate::broker::plugin::{Event, SessionInfo};
use crate::broker::router::command::{Attach, Command, ConnectionId, Origin, Owner, SessionExpiry};
use crate::net::socket::{PeerAddress, Socket};
use crate::net::transport::PeerCertificate;
use crate::outbox::{OutBuf, Outbox};
use crate::proto::packet::connack::{Connack, ConnackProperties};
use crate::proto::packet::connect::{Connect, Will};
use crate::proto::packet::{Packet, QoS};
use crate::proto::{
    DecodeError, Decoder, ProtocolError, ProtocolVersion, ReasonCode, codec, topic,
};

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
struct Refused {
    reason: ReasonCode,
    text: &'static str,
    /// Who or what refused: for the log, not for the client.
    by: String,
}

fn refused(reason: ReasonCode, text: &'static str) -> Refused {
    Refused {
        reason,
        text,
        by: String::new(),
    }
}

/// Who the client is, after all substitutions.
struct Identity {
    client_id: ByteString,
    assigned: bool,
    user_name: Option<ByteString>,
    owner: Owner,
}

/// Reads CONNECT, decides, and attaches the client to its session.
///
/// `None`: the connection is refused, answered and closed.
///
/// # Blocking
/// On the socket until the deadline; on authentication; on the router.
///
/// Source: MQTT 5.0 §3.1.4; MQTT 3.1.1 §3.1.4.
pub(super) fn connect(mut newcomer: Newcomer<'_>) -> Option<(Box<Reader>, Vec<u8>)> {
    let mut buffer = ReadBuffer::new(std::mem::take(&mut newcomer.early));
    let connect = match read_connect(&newcomer, &mut buffer) {
        Ok(connect) => connect,
        Err(error) => {
            newcomer.give_up(error);
            return None;
        }
    };
    newcomer.show_connect(&connect);
    match newcomer.admit(&connect) {
        Ok(reader) => Some((reader, buffer.into_rest())),
        Err(refused) => {
            newcomer.refuse(&connect, &refused);
            None
        }
    }
}

/// Reads until the first packet is whole. It must be CONNECT. [MQTT-3.1.0-1]
fn read_connect(
    newcomer: &Newcomer<'_>,
    buffer: &mut ReadBuffer,
) -> Result<Box<Connect>, ReadError> {
    let limits = &newcomer.settings.config.limits;
    let mut decoder = Decoder::new(BEFORE_CONNECT);
    decoder.max_packet_bytes = clamp(limits.max_connect_packet_size.min(limits.max_packet_size));
    decoder.max_property_bytes = clamp(limits.max_properties_size);
    decoder.max_properties = clamp(limits.max_properties);
    loop {
        // The type is known from the first byte: what is not CONNECT is not waited for.
        if buffer.bytes().first().is_some_and(|first| first >> 4 != 1) {
            return Err(ReadError::Protocol(ProtocolError::ConnectExpected));
        }
        if let Some(frame) = decoder.frame(buffer.bytes())? {
            let packet = buffer.take(frame.total_bytes as usize);
            return match decoder.decode(frame, &packet) {
                Ok(Packet::Connect(connect)) => Ok(connect),
                Ok(_) => Err(ReadError::Protocol(ProtocolError::ConnectExpected)),
                Err(error) => Err(error.into()),
            };
        }
        buffer.read_until(&newcomer.socket, &newcomer.outbox, newcomer.deadline)?;
    }
}

impl Newcomer<'_> {
    /// The whole decision about a CONNECT.
    fn admit(&self, connect: &Connect) -> Result<Box<Reader>, Refused> {
        if self.over_limit {
            return Err(refused(ReasonCode::QuotaExceeded, "too many connections"));
        }
        if self.services.memory.is_tight() {
            return Err(refused(
                ReasonCode::QuotaExceeded,
                "the broker is short of memory",
            ));
        }
        let identity = self.identify(connect)?;
        let chain = Arc::clone(self.settings.auth.listener(&self.listener.name));
        self.authenticate(connect, &identity, &chain)?;
        let will = self.check_will(connect, &identity, &chain)?;
        self.check_keep_alive(connect)?;
        self.attach(connect, identity, will, chain)
    }

    /// The Client Identifier and the user name that count.
    ///
    /// Source: MQTT 5.0 §3.1.3.1 [MQTT-3.1.3-6] to [MQTT-3.1.3-8]; [MQTT311-3.1.3-7], [MQTT311-3.1.3-8].
    fn identify(&self, connect: &Connect) -> Result<Identity, Refused> {
        let config = &self.listener.config;
        let auth = config.auth.as_ref().unwrap_or(&self.settings.config.auth);
        let certified = self.certificate.as_ref().and_then(|certificate| {
            if config.use_identity_as_username {
                certificate.common_name.clone()
            } else if config.use_subject_as_username {
                Some(certificate.subject.clone())
            } else {
                None
            }
        });
        if certified.is_none()
            && (config.use_identity_as_username || config.use_subject_as_username)
        {
            return Err(refused(
                ReasonCode::NotAuthorized,
                "the client's certificate names nobody",
            ));
        }
        let user_name = certified
            .map(ByteString::from)
            .or_else(|| connect.user_name.as_deref().map(ByteString::from));
        // Copies: a session must not keep the packet alive, and with it the password.
        let mut client_id = ByteString::from(&*connect.client_id);
        if config.use_username_as_clientid {
            match &user_name {
                Some(name) => client_id = name.clone(),
                None => {
                    return Err(refused(
                        ReasonCode::NotAuthorized,
                        "the client identifier is to be a user name",
                    ));
                }
            }
        }
        let assigned = client_id.is_empty();
        if assigned {
            if !connect.version.allows_empty_client_id() {
                return Err(refused(
                    ReasonCode::ClientIdentifierNotValid,
                    "empty client identifier",
                ));
            }
            let keeps_session = connect
                .properties
                .session_expiry_interval
                .is_some_and(|seconds| seconds > 0);
            if !connect.version.has_properties() && keeps_session {
                return Err(refused(
                    ReasonCode::ClientIdentifierNotValid,
                    "empty client identifier without a clean session",
                ));
            }
            if !auth.allow_zero_length_clientid {
                return Err(refused(
                    ReasonCode::ClientIdentifierNotValid,
                    "empty client identifier",
                ));
            }
            client_id = assign_client_id(&auth.auto_id_prefix)?;
        }
        if client_id.len() > self.settings.config.limits.max_client_id_length {
            return Err(refused(
                ReasonCode::ClientIdentifierNotValid,
                "client identifier too long",
            ));
        }
        let owner = match &user_name {
            Some(name) => Owner::User(name.clone()),
            None => Owner::Listener(Arc::clone(&self.listener.name)),
        };
        Ok(Identity {
            client_id,
            assigned,
            user_name,
            owner,
        })
    }

    fn authenticate(
        &self,
        connect: &Connect,
        identity: &Identity,
        chain: &AuthChain,
    ) -> Result<(), Refused> {
        if connect.properties.authentication_method.is_some() {
            return Err(refused(
                ReasonCode::BadAuthenticationMethod,
                "unknown authentication method",
            ));
        }
        let mut info = ConnectInfo::new(&identity.client_id, &self.listener.name, connect.version);
        info.user_name = identity.user_name.as_deref();
        info.password = connect.password.as_deref();
        info.user_is_proven = connect.user_name != identity.user_name;
        info.address = socket_address(&self.peer).map(|address| address.ip());
        #[expect(
            clippy::disallowed_methods,
            reason = "the thread of the connection reads its own clock"
        )]
        let judgement = chain.authenticate(&info, Instant::now());
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
                reason,
                text,
                by: judgement.refused_by,
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

    fn max_qos(&self) -> QoS {
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
        will: Option<Will>,
        chain: Arc<AuthChain>,
    ) -> Result<Box<Reader>, Refused> {
        let config = &self.settings.config;
        let limits = &config.limits;
        let properties = &connect.properties;
        let connack = self.connack(connect, &identity);
        let keep_alive = connack.server_keep_alive.unwrap_or(connect.keep_alive);
        let cap = u32::try_from(config.persistence.session_expiry.as_secs()).unwrap_or(u32::MAX);
        let expiry = properties.session_expiry_interval.unwrap_or(0).min(cap);
        let receive_maximum = if connect.version.has_receive_maximum() {
            limits.receive_maximum
        } else {
            u16::MAX
        };
        let topic_alias_maximum = self.topic_alias_maximum(connect.version);
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
            topic_alias_maximum,
            max_qos: self.max_qos(),
            connect_expiry: properties.session_expiry_interval.unwrap_or(0),
            client: self.services.plugins.wants_packets().then(|| {
                let user_name = identity.user_name.as_ref();
                Arc::new(self.session_info(connect, &identity.client_id, user_name, keep_alive))
            }),
        });
        let (reply, answer) = bounded(1);
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
            maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
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
        let stopping = || refused(ReasonCode::ServerShuttingDown, "the broker stops");
        // BLOCKS: on the router's inbox, then on its answer. The router never waits for a connection.
        self.services
            .router
            .send(Command::Attach(Box::new(attach)))
            .map_err(|_| stopping())?;
        match answer.recv() {
            Ok(Ok(slot)) => {
                let origin = Origin {
                    slot,
                    connection: self.id,
                };
                Ok(reader.attached(origin))
            }
            Ok(Err(ReasonCode::NotAuthorized)) => Err(refused(
                ReasonCode::NotAuthorized,
                "the session belongs to another user",
            )),
            Ok(Err(reason)) => Err(refused(reason, "too many sessions")),
            Err(_) => Err(stopping()),
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
    fn early_info(&self, connect: &Connect) -> SessionInfo {
        let user_name = connect.user_name.as_ref();
        self.session_info(connect, &connect.client_id, user_name, connect.keep_alive)
    }

    fn topic_alias_maximum(&self, version: ProtocolVersion) -> u16 {
        if version.has_properties() {
            self.listener.config.max_topic_alias
        } else {
            0
        }
    }

    /// What CONNACK tells beside success. A property that has its default value is left out, so that the packet stays
    /// small: a client may accept no more than 20 bytes.
    ///
    /// Source: MQTT 5.0 §3.2.2.3.
    fn connack(&self, connect: &Connect, identity: &Identity) -> ConnackProperties {
        if !connect.version.has_properties() {
            return ConnackProperties::default();
        }
        let config = &self.settings.config;
        let limits = &config.limits;
        let cap = u32::try_from(config.persistence.session_expiry.as_secs()).unwrap_or(u32::MAX);
        let wanted = connect.properties.session_expiry_interval.unwrap_or(0);
        let max_qos = self.max_qos();
        let aliases = self.topic_alias_maximum(connect.version);
        let keep_alive = limits
            .max_keepalive
            .filter(|limit| connect.keep_alive == 0 || connect.keep_alive > *limit);
        let packet = clamp(limits.max_packet_size);
        ConnackProperties {
            session_expiry_interval: (wanted > cap).then_some(cap),
            receive_maximum: (limits.receive_maximum < u16::MAX).then_some(limits.receive_maximum),
            maximum_qos: (max_qos < QoS::ExactlyOnce).then_some(max_qos),
            retain_available: (!config.retain_available).then_some(false),
            maximum_packet_size: (packet < codec::MAX_PACKET_BYTES).then_some(packet),
            assigned_client_identifier: identity.assigned.then(|| identity.client_id.clone()),
            topic_alias_maximum: (aliases > 0).then_some(aliases),
            server_keep_alive: keep_alive,
            ..ConnackProperties::default()
        }
    }

    /// Answers a CONNECT that is not accepted, and closes.
    ///
    /// Source: MQTT 5.0 §3.2.2.2 [MQTT-3.2.2-7]; [MQTT311-3.2.2-4], [MQTT311-3.2.2-5].
    fn refuse(&self, connect: &Connect, refused: &Refused) {
        let version = connect.version;
        self.services.metrics.connections_refused.increment();
        log::warn!(
            "{} ({}) refused on listener '{}': {}: {}{}",
            connect.client_id.escape_debug(),
            self.peer,
            self.listener.name,
            refused.reason,
            refused.text,
            match refused.by.as_str() {
                "" => String::new(),
                by => format!(" ({by})"),
            }
        );
        let mut out = OutBuf::default();
        let answer = if version.has_reason_codes() {
            Some(refused.reason)
        } else {
            refused
                .reason
                .connect_return_code()
                .and(Some(refused.reason))
        };
        if let Some(reason) = answer {
            let properties = ConnackProperties {
                reason_string: version
                    .has_properties()
                    .then(|| ByteString::from_static(refused.text)),
                ..ConnackProperties::default()
            };
            let connack = Packet::Connack(Box::new(Connack {
                session_present: false,
                reason,
                properties,
            }));
            if let Err(error) = codec::encode(&connack, version, out.bytes_mut()) {
                log::debug!("cannot encode CONNACK: {error}");
            }
            let plugins = &self.services.plugins;
            if plugins.wants_packets() {
                let client = Arc::new(self.early_info(connect));
                let packet = Box::new(connack);
                plugins.fire(Event::PacketSent { packet, client });
            }
        }
        self.services.metrics.bytes_sent.add(out.len() as u64);
        self.outbox.close_with(&mut out);
        linger(&self.socket);
    }

    /// The first packet is not a CONNECT that can be understood.
    fn give_up(&self, error: ReadError) {
        let metrics = &self.services.metrics;
        let peer = &self.peer;
        let mut out = OutBuf::default();
        match error {
            ReadError::TimedOut => {
                metrics.handshakes_expired.increment();
                log::info!("{peer} sent no CONNECT in time, closing connection");
            }
            ReadError::Closed => log::info!("{peer} closed before CONNECT"),
            ReadError::Io(error) => log::info!("{peer} lost before CONNECT: {error}"),
            ReadError::Net(error) => log::info!("{peer} lost before CONNECT: {error}"),
            ReadError::Malformed(DecodeError::UnsupportedProtocol) => {
                metrics.connections_refused.increment();
                log::warn!("{peer} unsupported protocol name in CONNECT, closing connection");
            }
            ReadError::Malformed(DecodeError::UnsupportedVersion { level }) => {
                metrics.connections_refused.increment();
                log::warn!(
                    "{peer} unsupported protocol level {level} in CONNECT, closing connection"
                );
                answer_unknown_version(level, &mut out);
            }
            ReadError::Malformed(error) => {
                metrics.protocol_errors.increment();
                let end = super::End::Malformed(error.clone());
                log::warn!(
                    "{}",
                    violation(&end, &format!("{peer} CONNECT refused:"), &error)
                );
            }
            ReadError::Protocol(error) => {
                metrics.protocol_errors.increment();
                let end = super::End::Protocol(error);
                log::warn!("{}", violation(&end, &peer.to_string(), &error));
            }
        }
        self.services.metrics.bytes_sent.add(out.len() as u64);
        self.outbox.close_with(&mut out);
        linger(&self.socket);
    }
}

/// Answers a CONNECT of an unknown level: 3.1.1's return code 1 to older ones, 5.0's 0x84 to newer ones. Another protocol
/// name is not answered at all.
///
/// Bridges set the uppermost bit of the level that they speak, and try again without it.
///
/// Source: MQTT 5.0 §3.1.2.2 [MQTT-3.1.2-2]; [MQTT311-3.1.2-2].
fn answer_unknown_version(level: u8, out: &mut OutBuf) {
    let version = if level & 0x7f >= ProtocolVersion::V5.level() {
        ProtocolVersion::V5
    } else {
        ProtocolVersion::V311
    };
    let connack = Connack {
        session_present: false,
        reason: ReasonCode::UnsupportedProtocolVersion,
        properties: ConnackProperties::default(),
    };
    if let Err(error) = codec::encode(
        &Packet::Connack(Box::new(connack)),
        version,
        out.bytes_mut(),
    ) {
        log::debug!("cannot encode CONNACK: {error}");
    }
}

fn assign_client_id(prefix: &str) -> Result<ByteString, Refused> {
    use std::fmt::Write as _;
    let mut random = [0_u8; 12];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).map_err(
        |_| {
            refused(
                ReasonCode::ServerUnavailable,
                "the system has no random numbers",
            )
        },
    )?;
    let mut id = String::with_capacity(prefix.len() + 24);
    id.push_str(prefix);
    for byte in random {
        let _ = write!(id, "{byte:02x}");
    }
    Ok(ByteString::from(id))
}

/// Topics that no client may publish to.
pub(super) fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
}

fn clamp(size: usize) -> u32 {
    u32::try_from(size)
        .unwrap_or(u32::MAX)
        .min(codec::MAX_PACKET_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT-3.1.2-2], [MQTT311-3.1.2-2]
    #[test]
    fn unknown_level_is_answered_in_the_nearest_version() {
        for (level, expected) in [
            (3, &[0x20, 2, 0, 1][..]),
            (0x84, &[0x20, 2, 0, 1]),
            (6, &[0x20, 3, 0, 0x84, 0]),
            (0x85, &[0x20, 3, 0, 0x84, 0]),
        ] {
            let mut out = OutBuf::default();
            answer_unknown_version(level, &mut out);
            assert_eq!(out.bytes_mut(), expected, "level {level}");
        }
    }
}
