//! How many passwords are verified at a time, and how many clients may wait for that.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A door for a few at a time, with a queue in front of it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    waiting: usize,
}

/// Whoever holds it is inside.
#[derive(Debug)]
#[must_use]
pub(super) struct Permit<'a>(&'a Gate);

impl Gate {
    /// Goes in once fewer than `places` are inside. `None`: the queue is `queue` long already, or the patience is over.
    ///
    /// # Blocking
    /// Up to `patience`.
    pub(super) fn enter(
        &self,
        places: usize,
        queue: usize,
        patience: Duration,
    ) -> Option<Permit<'_>> {
        let mut state = self.state.lock();
        if state.inside >= places {
            if state.waiting >= queue {
                return None;
            }
            state.waiting += 1;
            // BLOCKS: until one inside leaves, or the patience is over.
            let full = |state: &mut State| state.inside >= places;
            let outcome = self.left.wait_while_for(&mut state, full, patience);
            state.waiting -= 1;
            if outcome.timed_out() && state.inside >= places {
                return None;
            }
        }
        state.inside += 1;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().inside -= 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn no_more_go_in_than_there_are_places() {
        let gate = Gate::default();
        let first = gate.enter(2, 0, LONG);
        let second = gate.enter(2, 0, LONG);
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter(2, 0, LONG).is_none());
        drop(first);
        assert!(gate.enter(2, 0, LONG).is_some());
    }

    #[test]
    fn who_waits_too_long_gives_up_and_leaves_the_queue() {
        let gate = Gate::default();
        let _inside = gate.enter(1, 1, LONG);
        for _ in 0..3 {
            assert!(gate.enter(1, 1, Duration::from_millis(1)).is_none());
        }
        assert_eq!(gate.state.lock().waiting, 0);
    }

    #[test]
    fn the_next_in_the_queue_goes_in_when_one_leaves() {
        let gate = Arc::new(Gate::default());
        let inside = gate.enter(1, 1, LONG);
        let (sender, entered) = bounded(1);
        let other = Arc::clone(&gate);
        let waiter = crate::thread::spawn("gate-test", 128 * 1024, move || {
            sender.send(other.enter(1, 1, LONG).is_some()).unwrap();
        })
        .unwrap();
        let one_waits = || gate.state.lock().waiting == 1;
        while !one_waits() {
            assert!(entered.try_recv().is_err());
            std::thread::yield_now();
        }
        // The queue is full now.
        assert!(gate.enter(1, 1, LONG).is_none());
        drop(inside);
        assert_eq!(entered.recv_timeout(LONG), Ok(true));
        waiter.join().unwrap();
        assert_eq!(gate.state.lock().inside, 0);
    }
}
