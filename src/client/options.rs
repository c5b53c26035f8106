//! How to connect, what to publish, what to subscribe to: the settings of the client, checked where they are used.

mod check;
mod disconnect;
mod payload;
mod publish;
mod subscribe;
mod will;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use super::store::StorePlace;
use super::{Client, ClientError, EnhancedAuthentication, ScramSha256, StateEvent};
use crate::net::socks::Proxy;
use crate::net::tls::TlsVersions;
use crate::proto::packet::UserProperty;
use crate::proto::{ProtocolVersion, QoS};

pub use disconnect::DisconnectOptions;
pub use payload::Payload;
pub use publish::PublishOptions;
pub use subscribe::{SubscribeOptions, Subscription};
pub use will::WillOptions;

/// What is called on every change of state; see [`ConnectOptions::on_state`].
pub(crate) type StateCallback = Arc<dyn Fn(&StateEvent) + Send + Sync>;

/// How to connect, and how the client behaves while it is connected.
///
/// Every setting has a default; [`connect`](Self::connect) is all that is needed. An argument of a call always wins
/// over a setting here.
///
/// ```no_run
/// # fn main() -> Result<(), hbmqtt::client::ClientError> {
/// use std::time::Duration;
/// use hbmqtt::client::ConnectOptions;
///
/// let client = ConnectOptions::new()
///     .client_id("kitchen")
///     .keep_alive(Duration::from_secs(30))
///     .connect("mqtt://localhost")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ConnectOptions {
    pub(crate) uri: Option<String>,
    /// `None`: the newest that the server speaks.
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) client_id: Option<ByteString>,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry: Option<u32>,
    pub(crate) keep_alive: u16,
    pub(crate) ping_delay: u16,
    pub(crate) ping_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) ack_timeout: Option<Duration>,
    pub(crate) write_timeout: Duration,
    pub(crate) user_name: Option<ByteString>,
    pub(crate) password: Option<Bytes>,
    pub(crate) authentication: Option<Arc<dyn EnhancedAuthentication>>,
    pub(crate) redirects: u8,
    pub(crate) will: Option<WillOptions>,
    pub(crate) default_qos: QoS,
    pub(crate) default_retain: bool,
    pub(crate) topics: HashMap<String, TopicDefaults>,
    pub(crate) auto_reconnect: bool,
    pub(crate) reconnect_retries: Option<u32>,
    pub(crate) reconnect_max_interval: Duration,
    pub(crate) max_in_flight: u16,
    /// `None`: the default is announced, and more is taken.
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) max_packet_bytes: u32,
    pub(crate) send_buffer_bytes: usize,
    pub(crate) inbox_messages: usize,
    pub(crate) inbox_bytes: usize,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) request_response_information: bool,
    pub(crate) request_problem_information: bool,
    pub(crate) user_properties: Vec<UserProperty>,
    pub(crate) tls: TlsOptions,
    pub(crate) extra_headers: Vec<(String, String)>,
    pub(crate) bind_address: Option<IpAddr>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) on_state: Option<StateCallback>,
    pub(crate) store: Option<StorePlace>,
}

/// Whom to trust, and who this client is, on `mqtts` and `wss`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// A PEM file with certificates of authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// A directory of such files.
    pub ca_path: Option<PathBuf>,
    /// Such certificates as PEM text. Without any of the three, the authorities that the system trusts.
    pub ca_data: Option<String>,
    /// A PEM file with the client's certificate chain; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// A PEM file with the key of that certificate.
    pub key_file: Option<PathBuf>,
    /// The certificate may be for another host name. Default: no.
    pub insecure_skip_host_name: bool,
    /// Any certificate will do: anybody between client and server can read and change everything. Default: no.
    pub insecure_skip_verification: bool,
    /// Trust the authorities of the system as well, beside `ca_file`, `ca_path` and `ca_data`. Default: no.
    pub system_roots: bool,
    /// The versions of TLS to offer. Default: 1.2 and 1.3.
    pub versions: TlsVersions,
    /// The protocols to offer (ALPN), for a server that speaks several on one port. Default: none.
    pub alpn: Vec<String>,
    /// Append the secrets of each connection to this file, with which whoever reads it can read the connection: for
    /// Wireshark. Default: none.
    pub key_log_file: Option<PathBuf>,
}

/// QoS and RETAIN of publications to one topic that name none themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicDefaults {
    /// The QoS, or the general default.
    pub qos: Option<QoS>,
    /// The RETAIN flag, or the general default.
    pub retain: Option<bool>,
}

impl ConnectOptions {
    /// The defaults: MQTT 5.0 or else 3.1.1, a generated client identifier, a clean session, keep alive 10 s, reconnecting on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            uri: None,
            version: None,
            client_id: None,
            clean_start: true,
            session_expiry: None,
            keep_alive: 10,
            ping_delay: 1,
            ping_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(30),
            ack_timeout: None,
            write_timeout: Duration::from_secs(20),
            user_name: None,
            password: None,
            authentication: None,
            redirects: 0,
            will: None,
            default_qos: QoS::AtMostOnce,
            default_retain: false,
            topics: HashMap::new(),
            auto_reconnect: true,
            reconnect_retries: Some(2),
            reconnect_max_interval: Duration::from_secs(10),
            max_in_flight: 256,
            receive_maximum: None,
            max_packet_bytes: 268_435_460,
            send_buffer_bytes: 1024 * 1024,
            inbox_messages: 10_000,
            inbox_bytes: 16 * 1024 * 1024,
            topic_alias_maximum: 16,
            request_response_information: true,
            request_problem_information: true,
            user_properties: Vec::new(),
            tls: TlsOptions::default(),
            extra_headers: Vec::new(),
            bind_address: None,
            proxy: None,
            on_state: None,
            store: None,
        }
    }

    /// Connects to `url` with these settings; the same as [`Client::connect`].
    ///
    /// # Errors
    /// See [`Client::connect`].
    ///
    /// # Blocking
    /// Until CONNACK, at most [`connect_timeout`](Self::connect_timeout) for each attempt.
    pub fn connect(self, url: &str) -> Result<Client, ClientError> {
        Client::connect(url, self)
    }

    /// The broker to connect to when [`Client::open`] is called without a URL. Default: none.
    #[must_use]
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// The protocol version: this one and no other. `None`, the default: 5.0, and 3.1.1 with a server that does not speak
    /// it; what 3.1.1 has no words for is left out then.
    ///
    /// A server that refuses the version, answers with something that 5.0 does not have, closes the connection without
    /// an answer, or does not answer within 3 s (or half of the [`connect_timeout`](Self::connect_timeout)), is asked once more in 3.1.1 on another connection. What was agreed holds for reconnects;
    /// [`ConnectResult::version`](super::ConnectResult::version) says what it is.
    #[must_use]
    pub fn version(mut self, version: impl Into<Option<ProtocolVersion>>) -> Self {
        self.version = version.into();
        self
    }

    /// The Client Identifier. Default: `hbmqtt/` and 16 random letters and digits, made once per client.
    ///
    /// An empty one asks the server to assign one (3.1.1: with a clean session only; not in 3.1).
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<ByteString>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Start with an empty session (Clean Session in 3.1.1). Default: true.
    ///
    /// `false` in 3.1.1 also means that the session outlives the connection, without end; in 5.0 that is
    /// [`session_expiry`](Self::session_expiry).
    #[must_use]
    pub fn clean_start(mut self, clean_start: bool) -> Self {
        self.clean_start = clean_start;
        self
    }

    /// MQTT 5.0: how long the server keeps the session after the connection, in whole seconds; `Duration::MAX` = for
    /// ever. Default: not at all with a clean start, for ever without.
    #[must_use]
    pub fn session_expiry(mut self, expiry: Duration) -> Self {
        self.session_expiry = Some(whole_seconds(expiry));
        self
    }

    /// Keep Alive, in whole seconds up to 65,535; 0 turns it off. Default: 10 s.
    ///
    /// The server may close a connection on which it receives nothing for 1.5 times this.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = short_seconds(keep_alive);
        self
    }

    /// How long before the keep alive would run out a PINGREQ is sent, in whole seconds. Default: 1 s.
    ///
    /// 0 turns the automatic pings off: the server will close a connection on which the program is silent.
    /// It must be less than the keep alive.
    #[must_use]
    pub fn ping_delay(mut self, ping_delay: Duration) -> Self {
        self.ping_delay = short_seconds(ping_delay);
        self
    }

    /// How long after a PINGREQ without PINGRESP, or anything else, the connection is taken for dead. Default: 10 s.
    #[must_use]
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.ping_timeout = timeout;
        self
    }

    /// How long one attempt to connect may take, from resolving the name to CONNACK. Default: 30 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long `publish`, `subscribe` and `unsubscribe` wait for the server's answer, reconnects included.
    /// Default: as long as the client does not give up the connection.
    #[must_use]
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = Some(timeout);
        self
    }

    /// How long the server may take nothing from the socket before the connection is taken for dead. Default: 20 s.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// User Name and Password. They win over those in the URL.
    #[must_use]
    pub fn credentials(
        mut self,
        user_name: impl Into<ByteString>,
        password: impl Into<Bytes>,
    ) -> Self {
        self.user_name = Some(user_name.into());
        self.password = Some(password.into());
        self
    }

    /// User Name alone.
    #[must_use]
    pub fn user_name(mut self, user_name: impl Into<ByteString>) -> Self {
        self.user_name = Some(user_name.into());
        self
    }

    /// Password alone: binary data. Without a user name it is sent in 5.0 only, and left out with a server that does not
    /// speak it.
    #[must_use]
    pub fn password(mut self, password: impl Into<Bytes>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// MQTT 5.0: enhanced authentication, at CONNECT and with [`Client::reauthenticate`]. Default: none.
    ///
    /// The client speaks 5.0 only then. User Name and Password are sent beside it if they are set.
    #[must_use]
    pub fn authentication(mut self, method: impl EnhancedAuthentication + 'static) -> Self {
        self.authentication = Some(Arc::new(method));
        self
    }

    /// MQTT 5.0: authenticate with SCRAM-SHA-256, [`ScramSha256`](super::ScramSha256).
    #[must_use]
    pub fn scram(self, user: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        self.authentication(ScramSha256::new(user, password))
    }

    /// MQTT 5.0: follow a server that names another one (Reason Codes `UseAnotherServer` and `ServerMoved` with a Server
    /// Reference, in CONNACK or DISCONNECT), through as many servers in a row. Default: 0, not at all.
    ///
    /// `UseAnotherServer` holds for one connection, and the next attempt begins with the first server again; `ServerMoved`
    /// holds for the life of the client. After a DISCONNECT this needs [`auto_reconnect`](Self::auto_reconnect). User name,
    /// password and everything else of CONNECT go to the other server. A reference never leads from TLS to a plain connection.
    #[must_use]
    pub fn follow_redirects(mut self, servers: u8) -> Self {
        self.redirects = servers;
        self
    }

    /// The Will. Default: none.
    #[must_use]
    pub fn will(mut self, will: WillOptions) -> Self {
        self.will = Some(will);
        self
    }

    /// The QoS of publications that name none. Default: QoS 0.
    #[must_use]
    pub fn default_qos(mut self, qos: QoS) -> Self {
        self.default_qos = qos;
        self
    }

    /// The RETAIN flag of publications that name none. Default: false.
    #[must_use]
    pub fn default_retain(mut self, retain: bool) -> Self {
        self.default_retain = retain;
        self
    }

    /// QoS and RETAIN of publications to exactly this topic that name none. Wins over the general defaults.
    #[must_use]
    pub fn topic_defaults(mut self, topic: impl Into<String>, defaults: TopicDefaults) -> Self {
        self.topics.insert(topic.into(), defaults);
        self
    }

    /// Connect again by itself when the connection is lost or, the first time, cannot be made. Default: true.
    ///
    /// Refused credentials and identifiers end the attempts at once.
    #[must_use]
    pub fn auto_reconnect(mut self, auto_reconnect: bool) -> Self {
        self.auto_reconnect = auto_reconnect;
        self
    }

    /// Attempts after the first failed one before giving up; `None` = no end. Default: 2.
    #[must_use]
    pub fn reconnect_retries(mut self, retries: Option<u32>) -> Self {
        self.reconnect_retries = retries;
        self
    }

    /// The longest pause between two attempts; it begins at one second or less and doubles. Default: 10 s.
    #[must_use]
    pub fn reconnect_max_interval(mut self, interval: Duration) -> Self {
        self.reconnect_max_interval = interval;
        self
    }

    /// QoS 1 and 2 publications in flight at most, 1 to 65,535; the server's Receive Maximum also holds. Default: 256.
    /// Before 5.0, when the server cannot say what it takes, no more than 19 of QoS 2.
    #[must_use]
    pub fn max_in_flight(mut self, messages: u16) -> Self {
        self.max_in_flight = messages.max(1);
        self
    }

    /// MQTT 5.0: QoS 1 and 2 messages that the server may have in flight to this client, 1 to 65,535. Default: 256.
    ///
    /// A connection on which there are more is closed if this was set. The default is told to the server but not held
    /// against it: mosquitto up to 2.0.11 sends two messages for each that a slow program acknowledges. The
    /// [`inbox_limits`](Self::inbox_limits) bound the memory either way.
    #[must_use]
    pub fn receive_maximum(mut self, messages: u16) -> Self {
        self.receive_maximum = Some(messages.max(1));
        self
    }

    /// The largest packet accepted from the server, in bytes; told to the server in 5.0. Default: MQTT's own limit of
    /// 256 MiB.
    #[must_use]
    pub fn max_packet_bytes(mut self, bytes: u32) -> Self {
        self.max_packet_bytes = bytes.max(2);
        self
    }

    /// Bytes that may wait for the socket before `publish_nowait` blocks. Default: 1 MiB.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.send_buffer_bytes = bytes.max(1);
        self
    }

    /// Messages, and bytes of topics and payloads, that wait to be taken before the client stops reading from the
    /// socket. Default: 10,000 messages or 16 MiB, whichever is reached first.
    #[must_use]
    pub fn inbox_limits(mut self, messages: usize, bytes: usize) -> Self {
        self.inbox_messages = messages.max(1);
        self.inbox_bytes = bytes.max(1);
        self
    }

    /// MQTT 5.0: topic aliases that the server may use, 0 to 65,535. Default: 16.
    #[must_use]
    pub fn topic_alias_maximum(mut self, aliases: u16) -> Self {
        self.topic_alias_maximum = aliases;
        self
    }

    /// MQTT 5.0: ask the server for Response Information, which [`Client::request`] uses. Default: true.
    #[must_use]
    pub fn request_response_information(mut self, request: bool) -> Self {
        self.request_response_information = request;
        self
    }

    /// MQTT 5.0: let the server send Reason Strings and User Properties with any packet. Default: true.
    #[must_use]
    pub fn request_problem_information(mut self, request: bool) -> Self {
        self.request_problem_information = request;
        self
    }

    /// MQTT 5.0: adds a User Property to CONNECT.
    #[must_use]
    pub fn user_property(
        mut self,
        name: impl Into<ByteString>,
        value: impl Into<ByteString>,
    ) -> Self {
        self.user_properties.push((name.into(), value.into()));
        self
    }

    /// Certificates and trust for `mqtts` and `wss`. Default: the system's trusted authorities, no client certificate.
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = tls;
        self
    }

    /// Adds an HTTP header to the WebSocket handshake; without effect on other transports.
    #[must_use]
    pub fn extra_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra_headers.push((name.into(), value.into()));
        self
    }

    /// The local address to connect from. Default: the system's choice.
    #[must_use]
    pub fn bind_address(mut self, address: IpAddr) -> Self {
        self.bind_address = Some(address);
        self
    }

    /// The SOCKS 5 proxy to connect through; it also looks up the broker's name. Default: none. TCP only, with TLS and
    /// WebSocket above it.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Calls `callback` on every change of state, on the thread that noticed it and without a lock held.
    ///
    /// It should return soon: nothing is read from the server meanwhile. It may publish with `publish_nowait`; calls
    /// that wait for the server fail with [`ClientError::WouldDeadlock`].
    #[must_use]
    pub fn on_state(mut self, callback: impl Fn(&StateEvent) + Send + Sync + 'static) -> Self {
        self.on_state = Some(Arc::new(callback));
        self
    }

    /// Keeps what is on its way in this file, so that it survives a restart of the program. Default: no store.
    ///
    /// Stored are publications of QoS 1 and 2 that are not acknowledged, and the state of QoS 2 in both directions. The next
    /// client with the same file and [`client_id`](Self::client_id) sends the publications again when it is connected: under
    /// their old Packet Identifiers with DUP if the server has the session, and else as new messages in their order. QoS 2 is
    /// exactly once only with the session, which [`clean_start(false)`](Self::clean_start) keeps.
    ///
    /// It needs a fixed client identifier. The file is made if it is not there; one client at a time may have it open.
    /// Sending at QoS 2 waits for the disk, with one sync for all that waits meanwhile; QoS 0 and 1 do not wait, unless they
    /// were published after a QoS 2 message that does.
    #[must_use]
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Some(StorePlace::File(path.into()));
        self
    }

    /// QoS and RETAIN of a publication: the call's own, else the topic's, else the general default, else QoS 0 and
    /// not retained.
    pub(crate) fn resolve(&self, topic: &str, options: &PublishOptions) -> (QoS, bool) {
        let of_topic = if self.topics.is_empty() {
            None
        } else {
            self.topics.get(topic)
        };
        let qos = options.qos.or_else(|| of_topic.and_then(|t| t.qos));
        let retain = options.retain.or_else(|| of_topic.and_then(|t| t.retain));
        (
            qos.unwrap_or(self.default_qos),
            retain.unwrap_or(self.default_retain),
        )
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows what helps to understand a connection; never the password.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("ping_delay", &self.ping_delay)
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("auto_reconnect", &self.auto_reconnect)
            .field("reconnect_retries", &self.reconnect_retries)
            .finish_non_exhaustive()
    }
}

/// The Receive Maximum that CONNECT has when the program sets none.
pub(crate) const RECEIVE_MAXIMUM: u16 = 256;

/// Whole seconds as MQTT 5.0 counts them; what does not fit is "for ever".
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Whole seconds of a two-byte field; what does not fit is its largest value, and a part of a second is not "off".
fn short_seconds(duration: Duration) -> u16 {
    let seconds = duration.as_secs().max(u64::from(!duration.is_zero()));
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
