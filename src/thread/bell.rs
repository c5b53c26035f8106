//! Waking one thread that has nothing to do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Instant;

/// Wakes the one thread that sleeps here. It has no queue: who has work to give makes it visible first and rings then; who
/// waits says that it is about to sleep and looks once more. Ringing for a thread that is awake costs a fence and a load.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    sleeps: AtomicBool,
    /// How often the waiting thread offers its turn to others, and looks again, before it sleeps: twice as often after that
    /// was worth it, half as often after it was not. 0: never.
    offers: AtomicU32,
    /// Set by the first wait.
    sleeper: OnceLock<Thread>,
}

impl Bell {
    /// A bell for one that often has not long to wait: work that comes within some microseconds finds it awake.
    pub(crate) fn of_light_sleep() -> Self {
        Self {
            offers: AtomicU32::new(1),
            ..Self::default()
        }
    }

    /// Wakes the sleeper if there is one. Call it after the work is visible.
    pub(crate) fn ring(&self) {
        // INVARIANT: either this load sees that the sleeper is about to sleep, or its last look sees the work.
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed)
            && self.sleeps.swap(false, Ordering::AcqRel)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    /// Whether the sleeper sleeps, or is about to.
    #[cfg(all(feature = "broker", test))]
    pub(crate) fn sleeps(&self) -> bool {
        self.sleeps.load(Ordering::SeqCst)
    }

    /// Sleeps until somebody rings or `deadline` (`None`: never) has come, unless `has_work` says yes before. Always from the
    /// same thread. It may also return for no reason: look, and wait again.
    ///
    /// # Blocking
    /// Until then.
    pub(crate) fn wait(&self, deadline: Option<Instant>, has_work: impl Fn() -> bool) {
        let offers = self.offers.load(Ordering::Relaxed);
        for _ in 0..offers {
            thread::yield_now();
            if has_work() {
                let more = (offers * 2).min(MOST_OFFERS);
                return self.offers.store(more, Ordering::Relaxed);
            }
        }
        self.offers.store(offers.div_ceil(2), Ordering::Relaxed);
        self.sleeper.get_or_init(thread::current);
        self.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !has_work() {
            sleep_until(deadline);
        }
        self.sleeps.store(false, Ordering::Relaxed);
    }
}

/// BLOCKS: until the thread is woken or the deadline.
fn sleep_until(deadline: Option<Instant>) {
    let Some(deadline) = deadline else {
        return thread::park();
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "a sleep until a deadline begins with a look at the clock"
    )]
    let left = deadline.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::park_timeout(left);
    }
}

/// Some 5 µs where nobody else wants the processor.
const MOST_OFFERS: u32 = 16;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of tests are taken from the clock"
)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_ring_is_missed() {
        let work = Arc::new((Bell::default(), AtomicU32::new(0)));
        let done = Arc::new((Bell::of_light_sleep(), AtomicU32::new(0)));
        const ROUNDS: u32 = 20_000;
        let worker = {
            let (work, done) = (Arc::clone(&work), Arc::clone(&done));
            crate::thread::spawn("worker", 0, move || {
                for round in 1..=ROUNDS {
                    while work.1.load(Ordering::Acquire) < round {
                        work.0
                            .wait(None, || work.1.load(Ordering::Acquire) >= round);
                    }
                    done.1.store(round, Ordering::Release);
                    done.0.ring();
                }
            })
            .unwrap()
        };
        for round in 1..=ROUNDS {
            work.1.store(round, Ordering::Release);
            work.0.ring();
            while done.1.load(Ordering::Acquire) < round {
                done.0
                    .wait(None, || done.1.load(Ordering::Acquire) >= round);
            }
        }
        worker.join().unwrap();
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let bell = Bell::default();
        let deadline = Instant::now() + Duration::from_millis(2);
        while Instant::now() < deadline {
            bell.wait(Some(deadline), || false);
        }
        bell.wait(Some(deadline), || false);
        bell.wait(None, || true);
    }
}
