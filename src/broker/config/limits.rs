//! Limits and deadlines. Where a limit can be switched off with 0, the field then holds its type's largest value, so that
//! `used >= limit` is the whole test.

use std::time::Duration;

use crate::net::socket::TcpKeepAlive;

/// Section `limits`: the fields are named like their keys (`max_packet_size` is `max-packet-size`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From TCP accept until CONNECT is read, TLS and WebSocket handshakes included: 10 s.
    pub connect_timeout: Duration,
    /// Connections that have not sent CONNECT yet: 1,000; beyond it the oldest is dropped.
    pub max_half_open_connections: usize,
    /// From the first byte of a packet to its last: 1.5 × Keep Alive, but at least this, 20 s.
    pub packet_timeout: Duration,
    /// The longest Keep Alive in seconds; `None` = any, off included. MQTT 5.0 clients are told (Server Keep Alive), others
    /// are refused with return code 2.
    pub max_keepalive: Option<u16>,
    /// TCP keepalive: silence before the first probe, in whole seconds, 60 s; zero = no probes.
    pub tcp_keepalive_idle: Duration,
    /// TCP keepalive: time between probes, in whole seconds, 10 s.
    pub tcp_keepalive_interval: Duration,
    /// TCP keepalive: probes without an answer until the peer is taken for dead, 6.
    pub tcp_keepalive_probes: u32,
    /// A write without progress: 20 s, then the connection is closed and its session kept.
    pub write_timeout: Duration,
    /// Connections of all listeners together; `None` = the open files the process may have, less 200.
    pub max_connections: Option<usize>,
    /// Bytes of a packet before the client is authenticated, so of CONNECT: 128 KiB.
    pub max_connect_packet_size: usize,
    /// Bytes of a whole packet: 4 MiB.
    pub max_packet_size: usize,
    /// Bytes of a PUBLISH payload: no limit beside `max_packet_size`.
    pub max_payload_size: usize,
    /// Bytes of a Client Identifier: 1,024.
    pub max_client_id_length: usize,
    /// Bytes of a User Name: 1,024.
    pub max_username_length: usize,
    /// Bytes of a Password: 256.
    pub max_password_length: usize,
    /// Bytes of a Topic Name or Topic Filter: 65,535.
    pub max_topic_length: usize,
    /// Levels of a Topic Name or Topic Filter: 200.
    pub max_topic_levels: usize,
    /// Bytes of a packet's properties: 64 KiB.
    pub max_properties_size: usize,
    /// Properties of a packet: 256.
    pub max_properties: usize,
    /// Topic Filters of one SUBSCRIBE or UNSUBSCRIBE: 10,000.
    pub max_filters: usize,
    /// Topic aliases that a client may use towards the broker: 16; 0 = none.
    pub max_topic_alias: u16,
    /// QoS 1 and 2 messages a client may have in flight towards the broker (Receive Maximum): 256.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages in flight towards a client, if it allows as many: 256.
    pub max_inflight_messages: u16,
    /// Payload bytes of QoS 1 and 2 messages in flight towards a client at which further ones wait: no limit.
    pub max_inflight_bytes: usize,
    /// Messages queued for a session: 100,000.
    pub max_queued_messages: usize,
    /// Payload bytes queued for a session: 64 MiB.
    pub max_queued_bytes: usize,
    /// Bytes that wait for a slow connection before QoS 0 messages to it are dropped: 1 MiB.
    pub max_outbox_bytes: usize,
    /// Subscriptions of a session: 10,000.
    pub max_subscriptions_per_session: usize,
    /// Subscriptions of all sessions together: 1,000,000.
    pub max_subscriptions: usize,
    /// Retained messages: 100,000.
    pub max_retained_messages: usize,
    /// Payload bytes of retained messages: 256 MiB.
    pub max_retained_bytes: usize,
    /// Sessions that outlive their connection: 100,000.
    pub max_sessions: usize,
    /// Memory that may wait to be written to the store before those who publish what must be stored are not read: 64 MiB.
    pub max_unwritten_bytes: usize,
    /// Memory of the process.
    pub max_memory: MemoryLimit,
    /// Passwords that are verified at the same time: 2.
    pub max_password_checks: usize,
    /// Clients that wait for their password to be verified: 64; the next one is refused.
    pub max_waiting_password_checks: usize,
    /// How long an authenticator may take, waiting included: 5 s, then the client is refused.
    pub auth_timeout: Duration,
    /// How long a verified password is remembered (as a MAC under a random key): 10 min; zero = never.
    pub password_cache: Duration,
    /// Wrong passwords of a user name from an address before answers are delayed: 5.
    pub max_failed_logins: u32,
    /// The longest such delay: 30 s; it starts with 1 s and doubles. Zero = no delays.
    pub max_login_delay: Duration,
    /// Events that wait for plugins: 10,000; the next ones are dropped and counted.
    pub max_plugin_events: usize,
}

impl Limits {
    /// The three `tcp-keepalive` keys.
    #[must_use]
    pub fn tcp_keep_alive(&self) -> TcpKeepAlive {
        TcpKeepAlive {
            idle: self.tcp_keepalive_idle,
            interval: self.tcp_keepalive_interval,
            probes: self.tcp_keepalive_probes,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            max_half_open_connections: 1_000,
            packet_timeout: Duration::from_secs(20),
            max_keepalive: None,
            tcp_keepalive_idle: Duration::from_secs(60),
            tcp_keepalive_interval: Duration::from_secs(10),
            tcp_keepalive_probes: 6,
            write_timeout: Duration::from_secs(20),
            max_connections: None,
            max_connect_packet_size: 128 * KIB,
            max_packet_size: 4 * MIB,
            max_payload_size: usize::MAX,
            max_client_id_length: 1_024,
            max_username_length: 1_024,
            max_password_length: 256,
            max_topic_length: 65_535,
            max_topic_levels: 200,
            max_properties_size: 64 * KIB,
            max_properties: 256,
            max_filters: 10_000,
            max_topic_alias: 16,
            receive_maximum: 256,
            max_inflight_messages: 256,
            max_inflight_bytes: usize::MAX,
            max_queued_messages: 100_000,
            max_queued_bytes: 64 * MIB,
            max_outbox_bytes: MIB,
            max_subscriptions_per_session: 10_000,
            max_subscriptions: 1_000_000,
            max_retained_messages: 100_000,
            max_retained_bytes: 256 * MIB,
            max_sessions: 100_000,
            max_unwritten_bytes: 64 * MIB,
            max_memory: MemoryLimit::HalfOfAvailable,
            max_password_checks: 2,
            max_waiting_password_checks: 64,
            auth_timeout: Duration::from_secs(5),
            password_cache: Duration::from_secs(600),
            max_failed_logins: 5,
            max_login_delay: Duration::from_secs(30),
            max_plugin_events: 10_000,
        }
    }
}

/// Key `max-memory`: at 80 % of it new sessions and retained messages are refused, at 95 % reading pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Absent: half of what the machine, or the control group of the process, has.
    HalfOfAvailable,
    /// A number of bytes.
    Bytes(usize),
    /// 0: none.
    Unlimited,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
