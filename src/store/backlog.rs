//! How much waits to be written, and whose turn it is to wait because of it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// What waits for one store's disk, in bytes of memory, against its limit.
///
/// The owner of the state never waits. Whoever brings it what must be stored is stopped instead, one by one, from when
/// the limit is reached until half of it is written.
#[derive(Debug)]
pub struct Backlog {
    state: Mutex<State>,
    is_full: AtomicBool,
    hasher: RandomState,
}

#[derive(Debug)]
struct State {
    bytes: usize,
    limit: usize,
    /// Hashes of their names, which may be long.
    stopped: HashSet<u64>,
}

impl Backlog {
    /// Nothing waits; full from `limit` bytes on, `usize::MAX`: never.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                bytes: 0,
                limit,
                stopped: HashSet::new(),
            }),
            is_full: AtomicBool::new(false),
            hasher: RandomState::new(),
        }
    }

    /// Sets another limit.
    pub fn set_limit(&self, limit: usize) {
        self.state.lock().limit = limit;
        self.add(0);
        self.remove(0);
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// So much waits that it is time to write.
    pub(super) fn is_half_full(&self) -> bool {
        let state = self.state.lock();
        state.bytes >= state.limit / 2
    }

    /// The limit was reached, and half of it is not written yet.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// `source` brought what must be stored: it is stopped while too much waits, also if it goes and comes back.
    pub fn charge(&self, source: &str) {
        if self.is_full() {
            let source = self.hasher.hash_one(source);
            let mut state = self.state.lock();
            // It may have ended meanwhile.
            if self.is_full() {
                state.stopped.insert(source);
            }
        }
    }

    /// Whether `source` is to bring nothing more for now.
    #[must_use]
    pub fn stops(&self, source: &str) -> bool {
        if !self.is_full() {
            return false;
        }
        let source = self.hasher.hash_one(source);
        self.state.lock().stopped.contains(&source)
    }

    /// So many bytes more wait.
    pub(super) fn add(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_add(bytes);
        if state.bytes >= state.limit && !self.is_full.swap(true, Ordering::Relaxed) {
            log::warn!(
                "{} KiB wait to be written to the store: clients that publish what must be stored are not read until half \
                 of it is written",
                state.bytes >> 10
            );
        }
    }

    /// So many bytes wait no more.
    pub(super) fn remove(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        if state.bytes <= state.limit / 2 && self.is_full.swap(false, Ordering::Relaxed) {
            state.stopped = HashSet::new();
            log::info!("all clients are read again: the store is written");
        }
    }
}

impl Default for Backlog {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_adds_to_a_full_backlog_is_stopped_until_half_of_it_is_written() {
        let backlog = Backlog::new(100);
        backlog.add(99);
        backlog.charge("one");
        assert!(!backlog.stops("one"));
        backlog.add(1);
        backlog.charge("one");
        backlog.charge("two");
        assert!(backlog.stops("one") && backlog.stops("two") && !backlog.stops("three"));
        backlog.remove(49);
        assert!(backlog.stops("one") && backlog.stops("two"));
        backlog.remove(1);
        assert!(!backlog.stops("one") && !backlog.is_full());
        backlog.add(50);
        assert!(backlog.is_full() && !backlog.stops("one"));
    }

    #[test]
    fn another_limit_holds_at_once() {
        let backlog = Backlog::default();
        backlog.add(100);
        assert!(!backlog.is_full());
        backlog.set_limit(100);
        assert!(backlog.is_full());
        backlog.set_limit(200);
        assert!(!backlog.is_full());
    }
}
