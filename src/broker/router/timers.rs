//! Deadlines: at most one per key, the earliest first.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

use foldhash::fast::RandomState;

/// Deadlines of things named by `K`. Setting, cancelling and taking cost O(log n).
#[derive(Debug)]
pub(crate) struct Timers<K> {
    /// INVARIANT: both hold the same pairs.
    deadlines: HashMap<K, Instant, RandomState>,
    order: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Eq + Hash + Ord> Timers<K> {
    /// No deadline.
    pub(crate) fn new() -> Self {
        Self {
            deadlines: HashMap::default(),
            order: BTreeSet::new(),
        }
    }

    /// Sets the deadline of `key`, in place of the one it had.
    pub(crate) fn set(&mut self, key: K, deadline: Instant) {
        if let Some(before) = self.deadlines.insert(key, deadline) {
            if before == deadline {
                return;
            }
            self.order.remove(&(before, key));
        }
        self.order.insert((deadline, key));
    }

    /// Removes the deadline of `key`. `false`: it had none.
    pub(crate) fn cancel(&mut self, key: K) -> bool {
        let Some(deadline) = self.deadlines.remove(&key) else {
            return false;
        };
        self.order.remove(&(deadline, key))
    }

    /// The deadline of `key`.
    #[cfg(test)]
    fn deadline(&self, key: K) -> Option<Instant> {
        self.deadlines.get(&key).copied()
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the key with the earliest deadline, if that is not after `now`; keys with the same deadline come in their
    /// order.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(deadline, key) = self.order.first()?;
        if deadline > now {
            return None;
        }
        self.order.pop_first();
        self.deadlines.remove(&key);
        Some(key)
    }

    /// How many deadlines are set.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "only a point of reference")]
    fn deadlines_come_due_in_order_and_once() {
        let start = Instant::now();
        let mut timers = Timers::new();
        timers.set('b', at(start, 2));
        timers.set('a', at(start, 2));
        timers.set('c', at(start, 1));
        timers.set('d', at(start, 3));
        timers.set('d', at(start, 9));
        assert_eq!(timers.next_deadline(), Some(at(start, 1)));
        assert_eq!(timers.pop_due(start), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(at(start, 3))).collect();
        assert_eq!(due, ['c', 'a', 'b']);
        assert_eq!(timers.next_deadline(), Some(at(start, 9)));
        assert_eq!(timers.deadline('d'), Some(at(start, 9)));
        assert!(timers.cancel('d'));
        assert!(!timers.cancel('d'));
        assert_eq!((timers.next_deadline(), timers.len()), (None, 0));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "only a point of reference")]
    fn setting_the_same_deadline_again_changes_nothing() {
        let start = Instant::now();
        let mut timers = Timers::new();
        timers.set(1, start);
        timers.set(1, start);
        assert_eq!(timers.len(), 1);
        assert_eq!(timers.pop_due(start), Some(1));
        assert_eq!(timers.pop_due(start), None);
    }
}
