//! Topic Aliases of one connection: a number that stands for a Topic Name.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::proto::{ProtocolError, ReasonCode, TopicName};

/// The Topic Aliases that the peer has set. They end with the connection. [MQTT-3.3.2-7]
///
/// Source: MQTT 5.0 §3.3.2.3.4.
#[derive(Debug, Clone, Default)]
pub struct AliasesIn {
    max: u16,
    /// By alias less 1; as long as the greatest alias set so far.
    topics: Vec<Option<TopicName>>,
}

impl AliasesIn {
    /// No alias is set; the peer may use 1 to `max` (0: none), the Topic Alias Maximum that this side announced.
    #[must_use]
    pub fn new(max: u16) -> Self {
        Self {
            max,
            topics: Vec::new(),
        }
    }

    /// The Topic Name of a PUBLISH with this alias and topic. `None`: it is `topic` itself. An alias together with a
    /// topic is set, and stands for the topic from now on. [MQTT-3.3.2-10], [MQTT-3.3.2-12]
    ///
    /// # Errors
    /// [`ProtocolError::TopicAliasInvalid`]: the alias is 0 ([MQTT-3.3.2-8]) or above the maximum ([MQTT-3.3.2-9]).
    /// [`ProtocolError::TopicAliasUnknown`]: it is not set, or there is neither alias nor topic. [`ProtocolError::NotAvailable`] with `TopicNameInvalid`: `topic` is no Topic Name.
    pub fn resolve(
        &mut self,
        alias: Option<u16>,
        topic: &str,
    ) -> Result<Option<&TopicName>, ProtocolError> {
        let Some(alias) = alias else {
            return if topic.is_empty() {
                Err(ProtocolError::TopicAliasUnknown)
            } else {
                Ok(None)
            };
        };
        if alias > self.max {
            return Err(ProtocolError::TopicAliasInvalid);
        }
        let index = alias.checked_sub(1).map(usize::from);
        let index = index.ok_or(ProtocolError::TopicAliasInvalid)?;
        if topic.is_empty() {
            let known = self.topics.get(index).and_then(Option::as_ref);
            return known.map(Some).ok_or(ProtocolError::TopicAliasUnknown);
        }
        self.set(index, topic)?;
        Ok(None)
    }

    fn set(&mut self, index: usize, topic: &str) -> Result<(), ProtocolError> {
        if self.topics.len() <= index {
            self.topics.resize(index.saturating_add(1), None);
        }
        if let Some(place) = self.topics.get_mut(index)
            && place.as_ref().is_none_or(|known| known.as_str() != topic)
        {
            let name = TopicName::parse(topic);
            let invalid = ProtocolError::NotAvailable(ReasonCode::TopicNameInvalid);
            *place = Some(name.map_err(|_| invalid)?);
        }
        Ok(())
    }
}

/// The Topic Aliases that this side has set. They end with the connection. [MQTT-3.3.2-7]
///
/// When all are in use, the one used least recently is set anew. Every operation takes constant time; without aliases
/// there is no heap memory.
///
/// Source: MQTT 5.0 §3.3.2.3.4.
#[derive(Debug, Clone, Default)]
pub struct AliasesOut {
    max: u16,
    by_topic: HashMap<Arc<str>, u16, RandomState>,
    /// By alias less 1, linked by their last use.
    entries: Vec<Entry>,
    /// The alias used last; 0 if there is none. So in the links.
    newest: u16,
    /// The alias used least recently.
    oldest: u16,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Empty if the peer may not know it.
    topic: Arc<str>,
    newer: u16,
    older: u16,
}

/// How to send the topic of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum AliasUse {
    /// The Topic Name, no alias.
    None,
    /// The Topic Name and this alias, which stands for it from now on.
    New(u16),
    /// An empty Topic Name and this alias.
    Known(u16),
}

impl AliasesOut {
    /// No alias is set; the peer takes 1 to `max` (0: none), its Topic Alias Maximum.
    #[must_use]
    pub fn new(max: u16) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// How to send the next PUBLISH to `topic`, which must then be sent, or the alias [forgotten](Self::forget).
    /// A topic of up to three bytes gets no alias: that takes as many. [MQTT-3.3.2-9], [MQTT-3.3.2-11]
    pub fn assign(&mut self, topic: &str) -> AliasUse {
        if self.max == 0 || topic.len() <= ALIAS_BYTES {
            return AliasUse::None;
        }
        if let Some(&alias) = self.by_topic.get(topic) {
            self.touch(alias);
            return AliasUse::Known(alias);
        }
        let topic: Arc<str> = topic.into();
        let alias = self.free_or_oldest();
        if let Some(entry) = self.entry(alias) {
            let before = std::mem::replace(&mut entry.topic, Arc::clone(&topic));
            self.by_topic.remove(&before);
        }
        self.by_topic.insert(topic, alias);
        self.touch(alias);
        AliasUse::New(alias)
    }

    /// How to send the next PUBLISH to `topic` with this very alias, 1 to the peer's Topic Alias Maximum. It must then be
    /// sent, or the alias [forgotten](Self::forget). An alias above the maximum given to [`new`](Self::new) is not
    /// remembered, and goes with the topic each time.
    pub fn assign_as(&mut self, alias: u16, topic: &str) -> AliasUse {
        if alias == 0 || alias > self.max {
            return AliasUse::New(alias);
        }
        match self.by_topic.get(topic) {
            Some(&known) if known == alias => {
                self.touch(alias);
                return AliasUse::Known(alias);
            }
            Some(&other) => self.forget(other),
            None => {}
        }
        while self.entries.len() < usize::from(alias) {
            self.free_or_oldest();
        }
        self.forget(alias);
        let topic: Arc<str> = topic.into();
        if let Some(entry) = self.entry(alias) {
            entry.topic = Arc::clone(&topic);
        }
        self.by_topic.insert(topic, alias);
        self.touch(alias);
        AliasUse::New(alias)
    }

    /// The PUBLISH that was to set `alias` was not sent: the peer does not know what it stands for.
    pub fn forget(&mut self, alias: u16) {
        if let Some(entry) = self.entry(alias) {
            let topic = std::mem::take(&mut entry.topic);
            self.by_topic.remove(&topic);
        }
    }

    /// A new alias as long as there is one, then the one used least recently.
    fn free_or_oldest(&mut self) -> u16 {
        let used = u16::try_from(self.entries.len()).unwrap_or(u16::MAX);
        if used >= self.max {
            return self.oldest;
        }
        let alias = used.saturating_add(1);
        self.entries.push(Entry {
            topic: Arc::default(),
            newer: 0,
            older: 0,
        });
        self.link_newest(alias);
        alias
    }

    /// Makes `alias` the one used last.
    fn touch(&mut self, alias: u16) {
        if self.newest == alias {
            return;
        }
        let Some(&mut Entry { newer, older, .. }) = self.entry(alias) else {
            return;
        };
        match self.entry(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entry(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        self.link_newest(alias);
    }

    fn link_newest(&mut self, alias: u16) {
        let older = std::mem::replace(&mut self.newest, alias);
        match self.entry(older) {
            Some(entry) => entry.newer = alias,
            None => self.oldest = alias,
        }
        if let Some(entry) = self.entry(alias) {
            entry.newer = 0;
            entry.older = older;
        }
    }

    /// `None` for 0.
    fn entry(&mut self, alias: u16) -> Option<&mut Entry> {
        let index = usize::from(alias.checked_sub(1)?);
        self.entries.get_mut(index)
    }
}

/// What the Topic Alias property takes in a packet.
const ALIAS_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const INVALID: Result<Option<&TopicName>, ProtocolError> =
        Err(ProtocolError::TopicAliasInvalid);
    const UNKNOWN: Result<Option<&TopicName>, ProtocolError> =
        Err(ProtocolError::TopicAliasUnknown);

    /// [MQTT-3.3.2-8], [MQTT-3.3.2-9], [MQTT-3.3.2-12]
    #[test]
    fn the_peers_aliases_are_set_used_and_set_anew() {
        let mut aliases = AliasesIn::new(2);
        assert_eq!(aliases.resolve(None, "a"), Ok(None));
        assert_eq!(aliases.resolve(Some(2), ""), UNKNOWN);
        assert_eq!(aliases.resolve(Some(2), "a/b"), Ok(None));
        assert_eq!(aliases.resolve(Some(2), "").unwrap().unwrap(), "a/b");
        assert_eq!(aliases.resolve(Some(1), ""), UNKNOWN);
        assert_eq!(aliases.resolve(Some(2), "c"), Ok(None));
        assert_eq!(aliases.resolve(Some(2), "").unwrap().unwrap(), "c");
        for (alias, topic) in [(Some(0), "a"), (Some(3), "a"), (Some(3), "")] {
            assert_eq!(aliases.resolve(alias, topic), INVALID);
        }
        assert_eq!(aliases.resolve(None, ""), UNKNOWN);
        let bad_name = Err(ProtocolError::NotAvailable(ReasonCode::TopicNameInvalid));
        assert_eq!(aliases.resolve(Some(1), "a/+"), bad_name);
        assert_eq!(aliases.resolve(Some(1), ""), UNKNOWN);
        assert_eq!(AliasesIn::new(0).resolve(Some(1), "a"), INVALID);
    }

    #[test]
    fn the_alias_used_least_recently_is_set_anew() {
        let mut aliases = AliasesOut::new(3);
        for (topic, expected) in [
            ("topic/a", AliasUse::New(1)),
            ("topic/b", AliasUse::New(2)),
            ("topic/c", AliasUse::New(3)),
            ("topic/a", AliasUse::Known(1)),
            ("topic/d", AliasUse::New(2)),
            ("topic/b", AliasUse::New(3)),
            ("topic/a", AliasUse::Known(1)),
            ("abc", AliasUse::None),
        ] {
            assert_eq!(aliases.assign(topic), expected, "{topic}");
        }
        assert_eq!(AliasesOut::new(0).assign("topic"), AliasUse::None);
    }

    #[test]
    fn an_alias_that_was_not_sent_is_set_again() {
        let mut aliases = AliasesOut::new(2);
        assert_eq!(aliases.assign("topic/a"), AliasUse::New(1));
        aliases.forget(1);
        assert_eq!(aliases.assign("topic/a"), AliasUse::New(2));
        assert_eq!(aliases.assign("topic/b"), AliasUse::New(1));
        assert_eq!(aliases.assign("topic/a"), AliasUse::Known(2));
    }

    #[test]
    fn an_alias_may_be_chosen() {
        let mut aliases = AliasesOut::new(3);
        assert_eq!(aliases.assign_as(3, "t"), AliasUse::New(3));
        assert_eq!(aliases.assign_as(3, "t"), AliasUse::Known(3));
        assert_eq!(aliases.assign("topic/a"), AliasUse::New(1));
        // Another alias for the same topic, and another topic for the same alias.
        assert_eq!(aliases.assign_as(2, "topic/a"), AliasUse::New(2));
        assert_eq!(aliases.assign("topic/a"), AliasUse::Known(2));
        assert_eq!(aliases.assign_as(2, "topic/b"), AliasUse::New(2));
        assert_eq!(aliases.assign("topic/b"), AliasUse::Known(2));
        assert_eq!(aliases.assign("topic/a"), AliasUse::New(3));
        // What is not remembered is sent whole.
        assert_eq!(aliases.assign_as(4, "t"), AliasUse::New(4));
        assert_eq!(aliases.assign_as(4, "t"), AliasUse::New(4));
    }

    proptest! {
        /// Whatever one side assigns, the other resolves to the same topic.
        #[test]
        fn both_sides_agree(max in 1u16..6, topics in prop::collection::vec(0u8..9, 1..100)) {
            let mut sender = AliasesOut::new(max);
            let mut receiver = AliasesIn::new(max);
            let mut recent: Vec<u8> = Vec::new();
            let mut seen: HashMap<u8, usize> = HashMap::new();
            for (step, number) in topics.into_iter().enumerate() {
                let topic = format!("topic/{number}");
                let resolved = match sender.assign(&topic) {
                    AliasUse::None => None,
                    AliasUse::New(alias) => {
                        prop_assert!(!recent.contains(&number));
                        let resolved = receiver.resolve(Some(alias), &topic).unwrap();
                        prop_assert_eq!(resolved, None);
                        None
                    }
                    AliasUse::Known(alias) => {
                        prop_assert!(recent.contains(&number));
                        receiver.resolve(Some(alias), "").unwrap().cloned()
                    }
                };
                prop_assert!(resolved.is_none_or(|resolved| resolved == topic.as_str()));
                seen.insert(number, step);
                let mut by_use: Vec<_> = seen.iter().map(|(number, step)| (*step, *number)).collect();
                by_use.sort_unstable_by(|one, other| other.cmp(one));
                recent = by_use.into_iter().take(max.into()).map(|(_, number)| number).collect();
            }
        }
    }
}
