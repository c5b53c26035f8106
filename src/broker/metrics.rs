//! The counters: atomics in one struct, written once per batch, read by `$SYS` and the inspection interface.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the broker started, and a few current values.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        /// The values of all counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct MetricsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Metrics {
            /// Reads every counter.
            pub(crate) fn snapshot(&self) -> MetricsSnapshot {
                MetricsSnapshot { $($name: self.$name.value(),)* }
            }
        }

        impl MetricsSnapshot {
            /// Every counter with its name.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// MQTT bytes received, without TLS and WebSocket.
    bytes_received,
    /// MQTT bytes handed to connections, without TLS and WebSocket.
    bytes_sent,
    /// Control packets received.
    messages_received,
    /// Control packets sent.
    messages_sent,
    /// PUBLISH packets received.
    publish_received,
    /// PUBLISH packets sent.
    publish_sent,
    /// Payload bytes of the PUBLISH packets received.
    publish_bytes_received,
    /// Payload bytes of the PUBLISH packets sent.
    publish_bytes_sent,
    /// Sockets accepted.
    sockets_opened,
    /// CONNECTs that were accepted.
    connections_accepted,
    /// CONNECTs that were refused.
    connections_refused,
    /// Connections closed because they were not through the handshake in time, or too many were not.
    handshakes_expired,
    /// Connections closed for a missing Keep Alive.
    keep_alive_timeouts,
    /// Connections closed for a malformed packet or a protocol error.
    protocol_errors,
    /// Packets larger than the limit.
    packets_too_large,
    /// PUBLISH or a will refused because its payload is not the UTF-8 that its Payload Format Indicator says.
    payload_format_invalid,
    /// PUBLISH, SUBSCRIBE or a will refused by the access rules.
    access_denied,
    /// Messages dropped because a session's queue was full.
    dropped_queue_full,
    /// QoS 0 messages dropped because the receiver was too slow.
    dropped_slow_receiver,
    /// Messages larger than the receiver's Maximum Packet Size.
    dropped_too_large,
    /// Messages that expired before they were sent.
    dropped_expired,
    /// Messages that the receiver may not have.
    dropped_denied,
    /// Messages that the store has lost.
    dropped_lost,
    /// Messages that were not retained because a limit was reached.
    retained_refused,
    /// Subscriptions refused because a limit was reached.
    subscriptions_refused,
    /// Connections closed because their peer took no bytes for the write deadline.
    write_timeouts,
    /// Sessions that were taken over by a new connection.
    take_overs,
    /// Sessions that ended because they were away too long.
    sessions_expired,
    /// Sessions refused because a limit was reached.
    sessions_refused,
    /// Password verifications refused because too many waited.
    password_checks_refused,
    /// Events that a slow plugin missed.
    plugin_events_dropped,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
