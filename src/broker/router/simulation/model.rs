//! The reference model: what was published, what was promised, and what the specification says of it.
//!
//! It sees only what clients see, apart from two facts: when the broker heard of the end of a connection, and what is
//! durable. A *step* is a moment; everything observed has one of its own.

use std::fmt::Write;

use super::scenario::TOPICS;
use crate::proto::QoS;

/// A moment.
pub(super) type Step = u64;

/// All that was published, and the first thing that went wrong.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) step: Step,
    /// Virtual time, in milliseconds since the beginning.
    pub(super) now: u64,
    /// In the order in which they were first sent: those of one client are in its order.
    pub(super) messages: Vec<Published>,
    pub(super) crashes: u32,
    /// Messages that the broker counted as dropped because of full queues, in its lives before this one.
    pub(super) dropped: u64,
    pub(super) violation: Option<String>,
    /// What happened, if somebody wants to read it.
    trace: Option<String>,
}

/// A message that a client sent, or that is its will.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) publisher: usize,
    pub(super) topic: &'static str,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Without payload: it clears the retained message.
    pub(super) is_empty: bool,
    /// Message Expiry Interval in milliseconds.
    pub(super) expiry: Option<u64>,
    pub(super) first_sent: Step,
    /// Virtual time.
    pub(super) first_sent_at: u64,
    /// When the broker last took it.
    pub(super) last_taken_at: u64,
    pub(super) sends: u32,
    /// The session that it was sent in may have been over, and so its packet identifier forgotten.
    pub(super) may_double: bool,
    /// When its publisher read PUBACK or PUBREC with success.
    pub(super) acked: Option<Step>,
    pub(super) will: WillState,
}

/// Whether a will may be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WillState {
    /// It is no will.
    None,
    /// Its connection has not ended.
    Pending,
    /// Its connection has ended.
    Possible,
    /// Its connection ended with DISCONNECT, and that is durable.
    Forbidden,
}

impl Model {
    pub(super) fn new(traced: bool) -> Self {
        Self {
            step: 0,
            now: 0,
            messages: Vec::new(),
            crashes: 0,
            dropped: 0,
            violation: None,
            trace: traced.then(String::new),
        }
    }

    /// The next moment.
    pub(super) fn tick(&mut self) -> Step {
        self.step += 1;
        self.step
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>5} {:>6} ms  {}", self.step, self.now, what());
        }
    }

    pub(super) fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = what();
            self.note(|| format!("VIOLATION {what}"));
            self.violation = Some(what);
        }
    }

    pub(super) fn trace(&self) -> &str {
        self.trace.as_deref().unwrap_or_default()
    }

    /// What clients with this index may retain: the others leave the topic alone, so that its values have one order.
    pub(super) fn may_retain(client: usize, topic: &str) -> bool {
        let at = TOPICS.iter().position(|one| *one == topic);
        at == Some(client)
    }

    /// The messages retained on `topic` one after the other, and those that cleared it.
    pub(super) fn retained(&self, topic: &str) -> impl DoubleEndedIterator<Item = usize> {
        let messages = self.messages.iter().enumerate();
        let retained = messages.filter(move |(_, one)| one.retain && one.topic == topic);
        retained.map(|(index, _)| index)
    }

    /// The last message on `topic` that was acknowledged before `step` as retained: none before it may be seen.
    pub(super) fn retained_for_sure(&self, topic: &str, step: Step) -> Option<usize> {
        let mut retained = self.retained(topic).rev();
        retained.find(|index| self.messages[*index].acked.is_some_and(|at| at < step))
    }

    /// Whether nobody need get a message any more.
    pub(super) fn may_have_expired(&self, index: usize) -> bool {
        let message = &self.messages[index];
        let at = message.expiry.map(|expiry| message.first_sent_at + expiry);
        at.is_some_and(|at| at <= self.now)
    }

    /// Whether nobody may get a message any more who has not been sent it.
    pub(super) fn has_expired(&self, index: usize) -> bool {
        let message = &self.messages[index];
        let at = message.expiry.map(|expiry| message.last_taken_at + expiry);
        at.is_some_and(|at| at <= self.now)
    }
}

/// The payload of a message: its index, and something that makes it larger.
pub(super) fn payload(index: usize, padding: usize) -> String {
    format!("{index}:{}", "x".repeat(padding))
}

/// The index in a payload.
pub(super) fn index_of(payload: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(payload).ok()?;
    text.split_once(':')?.0.parse().ok()
}
