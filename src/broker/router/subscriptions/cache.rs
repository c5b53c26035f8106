//! The receivers of the topics that were published to lately.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Receivers, index, key};

/// Where a topic stands in the cache.
pub(super) type Place = u32;

/// Topic → receivers, bounded in topics and receivers. When it is full, a hand goes round and takes the place of a topic
/// that was not asked for since it came by last.
#[derive(Debug)]
pub(super) struct Cache {
    by_topic: HashMap<Arc<str>, Place, RandomState>,
    entries: Vec<Entry>,
    hand: usize,
    /// Entries of another generation are stale.
    generation: u64,
    /// Receivers in all entries.
    receivers: usize,
    max_topics: usize,
    max_receivers: usize,
}

#[derive(Debug)]
struct Entry {
    topic: Arc<str>,
    receivers: Receivers,
    /// The generation in which it was filled; 0 if it is stale.
    generation: u64,
    /// Asked for since the hand came by.
    used: bool,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self::with_limits(MAX_TOPICS, MAX_RECEIVERS)
    }

    fn with_limits(max_topics: usize, max_receivers: usize) -> Self {
        Self {
            by_topic: HashMap::default(),
            entries: Vec::new(),
            hand: 0,
            generation: 1,
            receivers: 0,
            max_topics,
            max_receivers,
        }
    }

    pub(super) fn find(&self, topic: &str) -> Option<Place> {
        self.by_topic.get(topic).copied()
    }

    /// Whether what stands at `place` is still right.
    pub(super) fn is_fresh(&self, place: Place) -> bool {
        self.entries[key(place)].generation == self.generation
    }

    pub(super) fn receivers(&mut self, place: Place) -> &Receivers {
        let entry = &mut self.entries[key(place)];
        if !entry.used {
            entry.used = true; // written only when needed: the line stays clean in the processor's cache
        }
        &entry.receivers
    }

    /// A place for a topic that has none.
    pub(super) fn make_place(&mut self, topic: &str) -> Place {
        let topic: Arc<str> = topic.into();
        let place = if self.entries.len() < self.max_topics {
            self.entries.push(Entry {
                topic: Arc::clone(&topic),
                receivers: Receivers::default(),
                generation: 0,
                used: false,
            });
            index(self.entries.len() - 1)
        } else {
            let place = self.next_victim();
            let entry = &mut self.entries[key(place)];
            self.by_topic.remove(&entry.topic);
            entry.topic = Arc::clone(&topic);
            entry.generation = 0;
            place
        };
        self.by_topic.insert(topic, place);
        place
    }

    /// What stands at `place`, to be filled anew.
    pub(super) fn take(&mut self, place: Place) -> Receivers {
        let receivers = std::mem::take(&mut self.entries[key(place)].receivers);
        self.receivers -= receivers.count();
        receivers
    }

    /// Puts the receivers of this generation to `place`.
    pub(super) fn fill(&mut self, place: Place, receivers: Receivers) -> &Receivers {
        self.receivers += receivers.count();
        self.make_room(place);
        let entry = &mut self.entries[key(place)];
        entry.receivers = receivers;
        entry.generation = self.generation;
        &entry.receivers
    }

    /// The receivers of `topic` have changed.
    pub(super) fn expire(&mut self, topic: &str) {
        if let Some(place) = self.find(topic) {
            self.entries[key(place)].generation = 0;
        }
    }

    /// The receivers of any topic may have changed.
    pub(super) fn expire_all(&mut self) {
        self.generation += 1;
    }

    /// Empties other entries than `kept` until the receivers are within their limit.
    fn make_room(&mut self, kept: Place) {
        for _ in 0..self.entries.len() * 2 {
            if self.receivers <= self.max_receivers {
                return;
            }
            let victim = self.next_victim();
            if victim != kept {
                let entry = &mut self.entries[key(victim)];
                entry.generation = 0;
                self.receivers -= std::mem::take(&mut entry.receivers).count();
            }
        }
    }

    /// The next entry that was not used since the hand came by. Ends after one round: that clears every mark.
    fn next_victim(&mut self) -> Place {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.entries.len();
            if !std::mem::take(&mut self.entries[place].used) {
                return index(place);
            }
        }
    }
}

/// With a topic of ordinary length and one receiver each, about 12 MB.
const MAX_TOPICS: usize = 65_536;

/// About 32 MB.
const MAX_RECEIVERS: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::super::{GroupId, Receivers};
    use super::*;

    fn receivers(count: u32) -> Receivers {
        let groups = (0..count).map(|index| GroupId {
            index,
            number: std::num::NonZeroU32::MIN,
        });
        Receivers {
            direct: Vec::new(),
            groups: groups.collect(),
        }
    }

    fn ask(cache: &mut Cache, topic: &str, count: u32) -> bool {
        if let Some(place) = cache.find(topic)
            && cache.is_fresh(place)
        {
            assert_eq!(cache.receivers(place), &receivers(count));
            return true;
        }
        let place = cache.find(topic).unwrap_or_else(|| cache.make_place(topic));
        cache.take(place);
        assert_eq!(cache.fill(place, receivers(count)), &receivers(count));
        false
    }

    #[test]
    fn a_topic_in_use_outlives_many_that_are_asked_for_once() {
        let mut cache = Cache::with_limits(4, 100);
        assert!(!ask(&mut cache, "used", 1));
        for round in 0..100 {
            assert!(!ask(&mut cache, &format!("once/{round}"), 1));
            assert!(ask(&mut cache, "used", 1), "{round}");
        }
        assert_eq!(cache.entries.len(), 4);
        assert_eq!(cache.by_topic.len(), 4);
    }

    #[test]
    fn receivers_are_bounded_and_one_topic_may_exceed_the_bound() {
        let mut cache = Cache::with_limits(100, 10);
        for round in 0..50 {
            ask(&mut cache, &format!("{round}"), 3);
            assert!(cache.receivers <= 10);
        }
        assert!(!ask(&mut cache, "large", 20));
        assert!(ask(&mut cache, "large", 20));
        assert_eq!(cache.receivers, 20);
        assert!(!ask(&mut cache, "small", 1));
        assert!(cache.receivers <= 10);
    }

    #[test]
    fn stale_entries_are_filled_anew() {
        let mut cache = Cache::with_limits(4, 100);
        ask(&mut cache, "a", 1);
        ask(&mut cache, "b", 1);
        cache.expire("a");
        cache.expire("unknown");
        assert!(!ask(&mut cache, "a", 2));
        assert!(ask(&mut cache, "b", 1));
        cache.expire_all();
        assert!(!ask(&mut cache, "a", 3));
        assert!(!ask(&mut cache, "b", 3));
        assert_eq!(cache.receivers, 6);
    }
}
