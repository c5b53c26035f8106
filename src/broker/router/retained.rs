//! Retained messages: one per topic, found by topic and by filter.

mod matching;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use slab::Slab;

use super::session::Publisher;
use crate::proto::{Message, TopicFilter, TopicName};
use matching::Matching;

/// The retained messages, bounded in number and bytes.
///
/// Replacing, finding and removing a message by its topic cost one hash lookup (a topic that comes or goes O(log n) more).
/// Messages that match a filter are found in a fixed order of the topics, level by level, in which all topics below one
/// stand together: whatever a filter excludes is jumped over.
///
/// Source: MQTT 5.0 §3.3.1.3; MQTT 3.1.1 §3.3.1.3.
#[derive(Debug)]
pub(crate) struct Retained {
    messages: Slab<Kept>,
    by_topic: HashMap<Box<str>, usize, RandomState>,
    /// The same entries, ordered by [`order_key`].
    ordered: BTreeMap<Box<[u8]>, usize>,
    bytes: usize,
    /// How many of the messages, and of their bytes, are the server's own, under `$`: they are outside the limits.
    exempt: (usize, usize),
    max_messages: usize,
    max_bytes: usize,
    /// Where [`sweep_expired`](Self::sweep_expired) goes on.
    swept: usize,
}

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// Who published it; `None` = the broker itself.
    publisher: Option<Arc<Publisher>>,
}

/// The message is not retained: there would be more messages or more bytes than allowed. What was retained under its
/// topic still is. Answer with Quota exceeded (0x97) where the version has Reason Codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainedFull {
    /// So many messages are retained already.
    Messages(usize),
    /// So many bytes may be retained.
    Bytes(usize),
}

impl Retained {
    /// Nothing retained, and never more than `max_messages` with `max_bytes` together.
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            messages: Slab::new(),
            by_topic: HashMap::default(),
            ordered: BTreeMap::new(),
            bytes: 0,
            exempt: (0, 0),
            max_messages,
            max_bytes,
            swept: 0,
        }
    }

    /// Puts a stored message back, whatever the limits are now.
    pub(crate) fn restore(&mut self, message: Arc<Message>, publisher: Option<Arc<Publisher>>) {
        let limits = (self.max_messages, self.max_bytes);
        self.set_limits(usize::MAX, usize::MAX);
        let _ = self.set(message, publisher);
        self.set_limits(limits.0, limits.1);
    }

    /// Sets the limits. Messages beyond them stay, new ones are refused.
    pub(crate) fn set_limits(&mut self, max_messages: usize, max_bytes: usize) {
        self.max_messages = max_messages;
        self.max_bytes = max_bytes;
    }

    /// Retains `message` under its topic; an empty payload is retained like any other, see [`clear`](Self::clear).
    /// `true`: another one was there, and is replaced. [MQTT-3.3.1-5]
    ///
    /// # Errors
    /// [`RetainedFull`]: nothing has changed.
    pub(crate) fn set(
        &mut self,
        message: Arc<Message>,
        publisher: Option<Arc<Publisher>>,
    ) -> Result<bool, RetainedFull> {
        let size = message.size_bytes();
        let topic = message.topic.as_str();
        let place = self.by_topic.get(topic).copied();
        let before = place.map_or(0, |place| self.messages[place].message.size_bytes());
        let bytes = self.bytes - before + size;
        let is_exempt = is_exempt(topic);
        if !is_exempt && bytes - self.exempt.1 > self.max_bytes && size > before {
            return Err(RetainedFull::Bytes(self.max_bytes));
        }
        if let Some(place) = place {
            self.messages[place] = Kept { message, publisher };
        } else {
            let limited = self.messages.len() - self.exempt.0;
            if !is_exempt && limited >= self.max_messages {
                return Err(RetainedFull::Messages(limited));
            }
            self.exempt.0 += usize::from(is_exempt);
            let vacant = self.messages.vacant_entry();
            self.by_topic.insert(topic.into(), vacant.key());
            self.ordered.insert(order_key(topic), vacant.key());
            vacant.insert(Kept { message, publisher });
        }
        self.bytes = bytes;
        if is_exempt {
            self.exempt.1 = self.exempt.1 - before + size;
        }
        Ok(place.is_some())
    }

    /// Removes the message retained under `topic`: a retained PUBLISH without payload came. `false`: there was none.
    /// [MQTT-3.3.1-6]
    pub(crate) fn clear(&mut self, topic: &str) -> bool {
        let Some(place) = self.by_topic.remove(topic) else {
            return false;
        };
        self.ordered.remove(&order_key(topic));
        let Kept { message, .. } = self.messages.remove(place);
        self.bytes -= message.size_bytes();
        if is_exempt(topic) {
            self.exempt = (self.exempt.0 - 1, self.exempt.1 - message.size_bytes());
        }
        true
    }

    /// The message retained under `topic`.
    pub(crate) fn get(&self, topic: &str) -> Option<&Arc<Message>> {
        Some(&self.kept(topic)?.message)
    }

    /// Who published the message retained under `topic`; `None` = the broker itself, or there is none.
    pub(crate) fn publisher(&self, topic: &str) -> Option<&Arc<Publisher>> {
        self.kept(topic)?.publisher.as_ref()
    }

    fn kept(&self, topic: &str) -> Option<&Kept> {
        self.messages.get(*self.by_topic.get(topic)?)
    }

    /// The first message that matches `filter` and stands after the topic `after`, which need not be retained any more:
    /// a cursor that loses nothing and repeats nothing that stays, whatever is retained or cleared between two calls.
    pub(crate) fn next(
        &self,
        filter: &TopicFilter,
        after: Option<&TopicName>,
    ) -> Option<Arc<Message>> {
        self.matching(filter, after).next().map(Arc::clone)
    }

    /// All messages that [`next`](Self::next) would give one after the other: cheaper for several at a time.
    pub(crate) fn matching<'a>(
        &'a self,
        filter: &'a TopicFilter,
        after: Option<&TopicName>,
    ) -> impl Iterator<Item = &'a Arc<Message>> {
        // An exact filter matches one topic, which stands in front of itself only.
        let exact = (!filter.has_wildcard() && after.is_none()).then(|| self.get(filter.as_str()));
        let after = after.map(|topic| order_key(topic.as_str()));
        let found = filter
            .has_wildcard()
            .then(|| Matching::new(&self.ordered, filter, after.as_deref()));
        let found = found.into_iter().flatten();
        exact
            .flatten()
            .into_iter()
            .chain(found.filter_map(|place| Some(&self.messages.get(place)?.message)))
    }

    /// How many messages are retained.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The bytes that they take, as [`Message::size_bytes`] counts.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All messages, in the order of [`next`](Self::next).
    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.ordered
            .values()
            .filter_map(|place| Some(&self.messages.get(*place)?.message))
    }

    /// Looks at up to `visits` messages, going on where the last call ended, and removes those that have expired at
    /// `now`. Their topics.
    ///
    /// Source: MQTT 5.0 §3.3.2.3.3.
    pub(crate) fn sweep_expired(&mut self, now: Instant, visits: usize) -> Vec<TopicName> {
        let mut removed = Vec::new();
        let places = self.messages.capacity();
        for _ in 0..visits.min(places) {
            self.swept = (self.swept + 1) % places;
            let expired = self
                .messages
                .get(self.swept)
                .map(|kept| &kept.message)
                .filter(|message| message.expired(now))
                .cloned();
            if let Some(message) = expired
                && self.clear(message.topic.as_str())
            {
                removed.push(message.topic.clone());
            }
        }
        removed
    }
}

/// Puts topics into the order of their levels: a topic, then all below it, then the next. U+0000, which no topic holds,
/// separates the levels in place of `/`, so that it stands before every other byte.
fn order_key(topic: &str) -> Box<[u8]> {
    topic
        .bytes()
        .map(|byte| if byte == b'/' { 0 } else { byte })
        .collect()
}

/// Clients do not publish under `$`; what stands there is the server's.
fn is_exempt(topic: &str) -> bool {
    topic.starts_with('$')
}

impl fmt::Display for RetainedFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages(limit) => write!(f, "{limit} messages are retained, the limit"),
            Self::Bytes(limit) => write!(f, "retained messages would exceed {limit} bytes"),
        }
    }
}

impl std::error::Error for RetainedFull {}

#[cfg(test)]
mod tests;
