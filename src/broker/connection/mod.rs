//! The life of one connection, top to bottom, on its own thread: handshake, read loop, end.

mod connack;
mod exchange;
mod half_open;
mod handshake;
mod identity;
mod read_buffer;
mod reader;
mod spares;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytestring::ByteString;
use parking_lot::{Mutex, RwLock};

pub(crate) use half_open::HalfOpen;
pub(crate) use spares::Spares;

use self::read_buffer::ReadError;
use self::reader::Reader;
use super::auth::AuthChains;
use super::config::{Config, ListenerConfig};
use super::metrics::Metrics;
use super::plugin::PluginHost;
use super::router::command::{Command, ConnectionId, DetachCause, Origin};
use super::router::inbox::Post;
use crate::net::error::NetError;

use crate::net::socket::{PeerAddress, Socket, TcpKeepAlive};
use crate::net::transport::{Acceptor, accept};
use crate::outbox::{OutBuf, Outbox, OutboxEvent, OutboxOptions};
use crate::proto::packet::Packet;
use crate::proto::packet::disconnect::{Disconnect, DisconnectProperties};
use crate::proto::{DecodeError, ProtocolError, ReasonCode, codec};
use crate::store::Backlog;
use crate::thread::Pool;

/// How many connections are served on the thread of their handshake at most.
const MOST_BEGINNING: usize = 32;

/// What every connection of a broker uses.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) settings: RwLock<Settings>,
    /// Counts reloads, so that a connection notices one without taking the lock.
    pub(crate) generation: AtomicU64,
    pub(crate) router: Post,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) plugins: Arc<PluginHost>,
    pub(crate) half_open: HalfOpen,
    /// The listeners that are open.
    pub(crate) listeners: RwLock<Vec<Arc<ListenerState>>>,
    pub(crate) last_connection: AtomicU64,
    /// Connections of all listeners.
    pub(crate) connections: AtomicUsize,
    /// Threads for handshakes.
    pub(crate) handshakes: Pool,
    /// Threads for connections that are through theirs.
    pub(crate) readers: Pool,
    /// Connections that are served on the thread of their handshake.
    pub(crate) beginning: AtomicUsize,
    /// Memory for connections through which data flows.
    pub(crate) spares: Arc<Spares>,
    pub(crate) max_connections: usize,
    pub(crate) memory: Arc<super::memory::MemoryWatch>,
    /// What waits for the disk.
    pub(crate) backlog: Arc<Backlog>,
}

/// What a reload replaces as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config: Arc<Config>,
    pub(crate) auth: Arc<AuthChains>,
}

/// A listener, as its connections see it.
#[derive(Debug)]
pub(crate) struct ListenerState {
    pub(crate) name: Arc<str>,
    pub(crate) config: ListenerConfig,
    pub(crate) acceptor: RwLock<Arc<Acceptor>>,
    /// When the certificate files in use were changed.
    pub(crate) certificate_times: Mutex<Vec<Option<SystemTime>>>,
    pub(crate) connections: AtomicUsize,
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// DISCONNECT, with the Session Expiry Interval it may carry.
    Disconnect {
        session_expiry: Option<u32>,
    },
    /// DISCONNECT 0x04.
    DisconnectWithWill {
        session_expiry: Option<u32>,
    },
    /// The peer closed its side, or the broker closed the connection.
    Closed,
    /// Reading failed.
    Net(NetError),
    Io(std::io::Error),
    /// Silence for longer than the Keep Alive allows.
    KeepAlive,
    /// A packet was begun and not finished in time.
    PacketTimeout,
    Malformed(DecodeError),
    Protocol(ProtocolError),
    /// Refused, for this reason.
    Refused {
        reason: ReasonCode,
        text: &'static str,
    },
    /// The router is gone: the broker stops.
    Stopping,
}

impl Services {
    pub(crate) fn next_connection(&self) -> ConnectionId {
        let last = self.last_connection.fetch_add(1, Ordering::Relaxed);
        ConnectionId(NonZeroU64::MIN.saturating_add(last))
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings.read().clone()
    }
}

/// Takes one accepted socket through its handshake, and serves it on the same thread while it is new; from its first silence on
/// it has a thread of its own, for as long as it lives.
///
/// The handshake goes deep: TLS, CONNECT, passwords. What it touched of its stack would stay with the process, so it
/// runs on threads that the next connection's handshake uses again, and the connection's own thread starts fresh and
/// stays shallow: a quiet connection costs little more than the two pages that every thread has. A client that says
/// what it has to say and leaves is gone before that.
///
/// # Blocking
/// On the socket, on authentication, on the router, until the connection ends or is silent.
pub(crate) fn serve(
    services: &Arc<Services>,
    listener: &Arc<ListenerState>,
    socket: Socket,
    id: ConnectionId,
    opened_at: Instant,
) {
    log::info!(
        "Connection from {} on listener '{}'",
        socket.peer(),
        listener.name
    );
    let slot = ConnectionSlot::take(services, listener);
    services.metrics.sockets_opened.increment();
    let Some(conversation) = open(services, listener, socket, id, slot, opened_at) else {
        return;
    };
    let Some(conversation) = conversation.begin(services) else {
        return;
    };
    let started = services
        .readers
        .run(format!("conn-{id}"), move || conversation.go_on());
    if let Err(error) = started {
        log::error!(
            "Listener '{}': no thread for a connection: {error}",
            listener.name
        );
    }
}

/// From the accepted socket to the attached session.
fn open(
    services: &Arc<Services>,
    listener: &Arc<ListenerState>,
    socket: Socket,
    id: ConnectionId,
    slot: ConnectionSlot,
    opened_at: Instant,
) -> Option<Conversation> {
    let settings = services.settings();
    let limits = &settings.config.limits;
    let deadline = opened_at + limits.connect_timeout;
    let keep_alive = limits.tcp_keep_alive();
    if keep_alive != TcpKeepAlive::default()
        && let Err(error) = socket.set_tcp_keep_alive(keep_alive)
    {
        log::debug!("{} cannot be probed: {error}", socket.peer());
    }
    let half_open = services
        .half_open
        .enter(id, &socket, limits.max_half_open_connections);
    let peer_text = socket.peer().to_string();
    let acceptor = Arc::clone(&listener.acceptor.read());
    let accepted = match accept(socket, &acceptor, deadline) {
        Ok(accepted) => accepted,
        Err(error) => {
            if matches!(error, NetError::Timeout(_)) {
                services.metrics.handshakes_expired.increment();
            }
            log::info!(
                "{peer_text} handshake on listener '{}' failed: {error}",
                listener.name
            );
            return None;
        }
    };
    let origin = Arc::new(OnceLock::new());
    let options = OutboxOptions {
        id: id.0.get(),
        write_timeout: limits.write_timeout,
        soft_limit_bytes: limits.max_outbox_bytes,
    };
    let socket = Arc::new(accepted.socket);
    let outbox = Outbox::new(
        Arc::clone(&socket),
        accepted.layers,
        options,
        on_outbox_event(
            services.router.clone(),
            Arc::clone(&services.metrics),
            Arc::clone(&origin),
        ),
    );
    let reader = handshake::connect(handshake::Newcomer {
        services,
        listener,
        settings: &settings,
        id,
        socket,
        outbox,
        origin: &origin,
        early: accepted.early,
        peer: accepted.peer,
        certificate: accepted.certificate,
        deadline,
        over_limit: slot.over_limit,
    });
    drop(half_open);
    reader.map(|reader| Conversation::new(reader, slot))
}

fn on_outbox_event(
    router: Post,
    metrics: Arc<Metrics>,
    origin: Arc<OnceLock<Origin>>,
) -> Box<dyn Fn(OutboxEvent) + Send + Sync> {
    Box::new(move |event| match (event, origin.get()) {
        // BLOCKS: on the router's inbox; the router never waits for the thread that writes.
        (OutboxEvent::Drained, Some(origin)) => drop(router.send(Command::Drained(*origin))),
        (OutboxEvent::Failed(_), _) => metrics.write_timeouts.increment(),
        (OutboxEvent::Drained, None) => {}
    })
}

/// A client that is attached to its session. Dropped, it is detached.
struct Conversation {
    /// INVARIANT: stands first, and so is told first: a message that came between would go to a connection that is closed.
    farewell: Farewell,
    reader: Box<Reader>,
    silent_for: Duration,
    _slot: ConnectionSlot,
}

impl Conversation {
    fn new(reader: Box<Reader>, slot: ConnectionSlot) -> Self {
        Self {
            farewell: Farewell {
                services: Arc::clone(&slot.services),
                origin: reader.origin,
                cause: DetachCause::Abnormal {
                    session_expiry: None,
                },
            },
            reader,
            silent_for: Duration::ZERO,
            _slot: slot,
        }
    }

    /// The beginning, on the thread of the handshake. `Some`: it goes on, on another thread.
    ///
    /// With many at once there is none: each keeps its thread, and that thread's deep stack, from the next handshake.
    fn begin(mut self, services: &Services) -> Option<Self> {
        let beginning = Beginning::new(services);
        if !beginning.is_one_of_few {
            return Some(self);
        }
        let Some(end) = self.reader.run_while_busy() else {
            self.silent_for = read_buffer::QUIET_AFTER;
            return Some(self);
        };
        drop(beginning);
        self.end(&end);
        None
    }

    /// The rest, on a thread of its own.
    #[inline(never)]
    fn go_on(mut self) {
        let end = self.reader.run(self.silent_for);
        self.end(&end);
    }

    #[inline(never)]
    fn end(self, end: &End) {
        let Self {
            mut farewell,
            reader,
            _slot,
            ..
        } = self;
        farewell.cause = match end {
            End::Disconnect { session_expiry } => DetachCause::Disconnect {
                session_expiry: *session_expiry,
            },
            End::DisconnectWithWill { session_expiry } => DetachCause::Abnormal {
                session_expiry: *session_expiry,
            },
            _ => DetachCause::Abnormal {
                session_expiry: None,
            },
        };
        let services = Arc::clone(&farewell.services);
        // The router first: a message that came between would go to a connection that is closed already.
        drop(farewell);
        reader.count_received();
        let is_over = end.reason().is_none() && reader.is_over();
        if !is_over {
            say_goodbye(&services, &reader, end);
        }
        report(&services, &reader, end);
        if !is_over {
            read_buffer::linger(&reader.socket);
        }
    }
}

/// A connection that is served on the thread of its handshake.
struct Beginning<'a> {
    services: &'a Services,
    is_one_of_few: bool,
}

impl<'a> Beginning<'a> {
    fn new(services: &'a Services) -> Self {
        let before = services.beginning.fetch_add(1, Ordering::Relaxed);
        Self {
            services,
            is_one_of_few: before < MOST_BEGINNING,
        }
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.services.beginning.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells the router that a connection has ended, also when its thread panics or there is none for it.
struct Farewell {
    services: Arc<Services>,
    origin: Origin,
    cause: DetachCause,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let (origin, cause) = (self.origin, self.cause);
        // BLOCKS: on the router's inbox; the router never waits for a connection.
        drop(self.services.router.send(Command::Detach { origin, cause }));
    }
}

/// Tells the client why, where its version can say so, and closes.
#[inline(never)]
fn say_goodbye(services: &Services, reader: &Reader, end: &End) {
    let mut last = OutBuf::default();
    if let Some(reason) = end.reason()
        && reader.version().has_server_disconnect()
    {
        let text = end.reason_string().filter(|_| reader.problem_information);
        put_disconnect(reason, text.map(ByteString::from), reader, last.bytes_mut());
    }
    services.metrics.bytes_sent.add(last.len() as u64);
    reader.outbox.close_with(&mut last);
}

/// Appends DISCONNECT, without its text if the client does not take a packet so large. [MQTT-3.14.2-3]
fn put_disconnect(
    reason: ReasonCode,
    reason_string: Option<ByteString>,
    reader: &Reader,
    out: &mut Vec<u8>,
) {
    let has_text = reason_string.is_some();
    let properties = DisconnectProperties {
        reason_string,
        ..DisconnectProperties::default()
    };
    let packet = Packet::Disconnect(Box::new(Disconnect { reason, properties }));
    if let Err(error) = codec::encode(&packet, reader.version(), out) {
        log::debug!("cannot encode DISCONNECT: {error}");
    }
    if out.len() > reader.maximum_packet_size {
        out.clear();
        if has_text {
            put_disconnect(reason, None, reader, out);
        }
    }
}

/// One line per connection that ended: who, from where, why.
#[inline(never)]
fn report(services: &Services, reader: &Reader, end: &End) {
    let id = reader.client_id.escape_debug();
    let peer = &reader.peer;
    if reader.denials > 1 {
        log::warn!(
            "{id} ({peer}) was denied access {} more times",
            reader.denials - 1
        );
    }
    match end {
        End::Disconnect { .. } => log::info!("{id} ({peer}) disconnected"),
        End::DisconnectWithWill { .. } => {
            log::info!("{id} ({peer}) disconnected, asking for its will")
        }
        End::Closed => log::info!("{id} ({peer}) connection closed"),
        End::Stopping => log::debug!("{id} ({peer}) connection closed: the broker stops"),
        End::Net(error) => log::warn!("{id} ({peer}) connection lost: {error}"),
        End::Io(error) => log::info!("{id} ({peer}) connection lost: {error}"),
        End::KeepAlive => {
            services.metrics.keep_alive_timeouts.increment();
            log::warn!("{id} ({peer}) keep alive timeout, closing connection");
        }
        End::PacketTimeout => {
            services.metrics.keep_alive_timeouts.increment();
            log::warn!("{id} ({peer}) packet not finished in time, closing connection");
        }
        End::Malformed(error) => {
            if matches!(error, DecodeError::PacketTooLarge { .. }) {
                services.metrics.packets_too_large.increment();
            } else {
                services.metrics.protocol_errors.increment();
            }
            log::warn!("{}", violation(end, &format!("{id} ({peer})"), error));
        }
        End::Protocol(error) => {
            services.metrics.protocol_errors.increment();
            log::warn!("{}", violation(end, &format!("{id} ({peer})"), error));
        }
        End::Refused { reason, text } => {
            if *reason == ReasonCode::ProtocolError {
                services.metrics.protocol_errors.increment();
            }
            log::warn!("{id} ({peer}) {text}, closing connection");
        }
    }
}

/// What the log says of a peer that broke a rule: the rule's number first, as HBMQTT has it, and in HBMQTT's words.
fn violation(end: &End, who: &str, error: &dyn std::fmt::Display) -> String {
    let (rule, words) = match end {
        End::Malformed(DecodeError::InvalidTopicName) => (
            "MQTT-3.3.2-2",
            Some("invalid TOPIC sent in PUBLISH message"),
        ),
        End::Malformed(DecodeError::MissingTopicName) => (
            "MQTT-4.7.3-1",
            Some("invalid TOPIC sent in PUBLISH message"),
        ),
        End::Malformed(DecodeError::DupWithQos0) => (
            "MQTT-3.3.1-2",
            Some("DUP flag must be 0 in a QoS 0 PUBLISH message"),
        ),
        End::Malformed(DecodeError::InvalidQos) => ("MQTT-3.3.1-4", None),
        End::Malformed(DecodeError::InvalidFlags) => ("MQTT-2.2.2-2", None),
        End::Malformed(DecodeError::InvalidUtf8) => ("MQTT-1.5.3-1", None),
        End::Malformed(DecodeError::NulInString) => ("MQTT-1.5.3-2", None),
        End::Malformed(DecodeError::ZeroPacketId) => ("MQTT-2.3.1-1", None),
        End::Protocol(ProtocolError::SecondConnect) => (
            "MQTT-3.1.0-2",
            Some("CONNECT message received during messages handling"),
        ),
        End::Protocol(ProtocolError::ConnectExpected) => {
            ("MQTT-3.1.0-1", Some("the first packet is not CONNECT"))
        }
        _ => return format!("{who} {error}, closing connection"),
    };
    match words {
        Some(words) => format!("[{rule}] - {who} {words}, closing connection"),
        None => format!("[{rule}] - {who} {error}, closing connection"),
    }
}

impl End {
    /// What DISCONNECT says to a client that did not ask for the end itself.
    fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Disconnect { .. }
            | Self::DisconnectWithWill { .. }
            | Self::Closed
            | Self::Io(_)
            | Self::Net(_) => None,
            Self::KeepAlive | Self::PacketTimeout => Some(ReasonCode::KeepAliveTimeout),
            Self::Malformed(error) => Some(error.reason()),
            Self::Protocol(error) => Some(error.reason()),
            Self::Refused { reason, .. } => Some(*reason),
            Self::Stopping => Some(ReasonCode::ServerShuttingDown),
        }
    }

    fn reason_string(&self) -> Option<String> {
        match self {
            Self::Malformed(error) => Some(error.to_string()),
            Self::Protocol(error) => Some(error.to_string()),
            Self::Refused { text, .. } => Some((*text).to_owned()),
            Self::KeepAlive => {
                Some("nothing came for longer than the keep alive allows".to_owned())
            }
            Self::PacketTimeout => Some("a packet was not finished in time".to_owned()),
            Self::Stopping => Some("the broker stops".to_owned()),
            _ => None,
        }
    }
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TimedOut => Self::KeepAlive,
            ReadError::Closed => Self::Closed,
            ReadError::Io(error) => Self::Io(error),
            ReadError::Net(error) => Self::Net(error),
            ReadError::Malformed(error) => Self::Malformed(error),
            ReadError::Protocol(error) => Self::Protocol(error),
        }
    }
}

impl From<ProtocolError> for End {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// One connection in the counts of its listener and its broker, from accept to the end of its thread.
struct ConnectionSlot {
    services: Arc<Services>,
    listener: Arc<ListenerState>,
    /// There are more connections than allowed: CONNECT will be refused.
    over_limit: bool,
}

impl ConnectionSlot {
    fn take(services: &Arc<Services>, listener: &Arc<ListenerState>) -> Self {
        let all = services.connections.fetch_add(1, Ordering::AcqRel);
        let here = listener.connections.fetch_add(1, Ordering::AcqRel);
        let over_limit = all >= services.max_connections
            || listener
                .config
                .max_connections
                .is_some_and(|limit| here >= limit);
        let slot = Self {
            services: Arc::clone(services),
            listener: Arc::clone(listener),
            over_limit,
        };
        slot.log();
        slot
    }

    fn log(&self) {
        let (name, count) = (
            &self.listener.name,
            self.listener.connections.load(Ordering::Acquire),
        );
        match self.listener.config.max_connections {
            None => log::info!("Listener '{name}': {count} connections acquired"),
            Some(limit) => log::info!("Listener '{name}': {count}/{limit} connections acquired"),
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.services.connections.fetch_sub(1, Ordering::AcqRel);
        self.listener.connections.fetch_sub(1, Ordering::AcqRel);
        self.log();
    }
}

/// An address as the audit lines and the plugins see it.
fn socket_address(peer: &PeerAddress) -> Option<std::net::SocketAddr> {
    match peer {
        PeerAddress::Ip(address) => Some(*address),
        _ => None,
    }
}
