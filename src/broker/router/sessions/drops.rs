//! Messages that a session does not get: counted, told to the plugins, logged once a minute and session.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;

use crate::broker::metrics::{Counter, Metrics};
use crate::broker::plugin::{DropReason, Event, PluginHost};
use crate::broker::router::session::{Delivery, Session};

/// How long a session's drops are summed before they are logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Whom to tell that a message was dropped.
#[derive(Debug)]
pub(super) struct Drops {
    metrics: Arc<Metrics>,
    plugins: Arc<PluginHost>,
}

/// What a session did not get since the last log line about it.
#[derive(Debug, Default)]
pub(in crate::broker::router) struct DropLog {
    counts: [u64; DropReason::ALL.len()],
    logged_at: Option<Instant>,
}

impl Drops {
    pub(super) fn new(metrics: Arc<Metrics>, plugins: Arc<PluginHost>) -> Self {
        Self { metrics, plugins }
    }

    /// `session` does not get a message on `topic`, which is `None` for one that was never read back.
    pub(super) fn note(
        &self,
        session: &mut Session,
        topic: Option<&str>,
        reason: DropReason,
        now: Instant,
    ) {
        self.counter(reason).increment();
        if self.plugins.is_active() {
            self.plugins.fire(Event::MessageDropped {
                client_id: session.client_id.clone(),
                topic: topic.map(ByteString::from),
                reason,
            });
        }
        let log = session.drops.get_or_insert_default();
        if let Some(count) = log.counts.get_mut(reason as usize) {
            *count += 1;
        }
        let is_due = log
            .logged_at
            .is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        if is_due {
            let counts = std::mem::take(&mut log.counts);
            log.logged_at = Some(now);
            log::warn!(
                "{} messages dropped:{} ({} waiting)",
                session.client_id.escape_debug(),
                listed(&counts),
                session.queue.len()
            );
        }
    }

    /// The same for a message that was on its way to the session.
    pub(super) fn note_delivery(
        &self,
        session: &mut Session,
        delivery: &Delivery,
        reason: DropReason,
        now: Instant,
    ) {
        let message = delivery.message.as_ref();
        let topic = message.map(|message| message.topic.as_str());
        self.note(session, topic, reason, now);
    }

    fn counter(&self, reason: DropReason) -> &Counter {
        match reason {
            DropReason::QueueFull => &self.metrics.dropped_queue_full,
            DropReason::SlowReceiver => &self.metrics.dropped_slow_receiver,
            DropReason::TooLarge => &self.metrics.dropped_too_large,
            DropReason::Expired => &self.metrics.dropped_expired,
            DropReason::Denied => &self.metrics.dropped_denied,
            DropReason::Lost => &self.metrics.dropped_lost,
        }
    }
}

/// ` 3 queue-full, 1 expired`
fn listed(counts: &[u64]) -> String {
    let mut text = String::new();
    for (reason, count) in DropReason::ALL.iter().zip(counts) {
        if *count > 0 {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma} {count} {reason}");
        }
    }
    text
}
