//! The way to the router: a bounded queue whose one receiver sleeps when it is empty.
//!
//! The channel's own waiting spins for some ten microseconds before every sleep. Here it is the bell that learns whether
//! staying awake is worth it: it is where one message is answered by the next, and not where messages are rare.
//!
//! What nobody waits for does not wake the router at all ([`Post::leave`]): waking it costs more than its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Instant;

use crossbeam_channel::{Receiver, SendError, Sender, TryRecvError, bounded};

use super::command::Command;
use crate::thread::Bell;

/// A queue for the router with this many places.
pub(crate) fn inbox(places: usize) -> (Post, Inbox) {
    let (sender, receiver) = bounded(places);
    let bell = Arc::new(Doorbell {
        bell: Bell::of_light_sleep(),
        hears_all: AtomicBool::new(true),
    });
    let slot = Arc::new(Slot {
        queue: receiver,
        closed: AtomicBool::new(false),
    });
    let post = Post {
        queue: sender,
        bell: Ringer(Arc::clone(&bell)),
        slot: Arc::clone(&slot),
    };
    (post, Inbox { slot, bell })
}

/// Where commands for the router are given in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    /// INVARIANT: stands before the bell, so that it is gone when the last one rings for the last time.
    queue: Sender<Command>,
    bell: Ringer,
    slot: Arc<Slot>,
}

/// Where the commands lie. A channel of this kind keeps what nobody took until its last sender goes, and whoever waits for
/// an answer to one of them would wait as long: what the router leaves behind is dropped.
#[derive(Debug)]
struct Slot {
    queue: Receiver<Command>,
    /// The router is gone.
    closed: AtomicBool,
}

impl Slot {
    /// INVARIANT: one of both sees what the other did first: the router, which closes and then looks for commands, or a
    /// sender, which puts its command in and then looks whether it is closed.
    fn clear(&self) {
        while self.queue.try_recv().is_ok() {}
    }
}

#[derive(Debug)]
struct Doorbell {
    bell: Bell,
    /// Whether it rings for what is left, too. Set before the router goes to sleep.
    hears_all: AtomicBool,
}

/// Rings when it goes, too: the router is to notice that nobody is left.
#[derive(Debug, Clone)]
struct Ringer(Arc<Doorbell>);

impl Drop for Ringer {
    fn drop(&mut self) {
        self.0.bell.ring();
    }
}

impl Post {
    /// Gives a command to the router.
    ///
    /// # Errors
    /// The router is gone; the command comes back.
    ///
    /// # Blocking
    /// While the inbox is full. The router never waits for one who waits here.
    pub(crate) fn send(&self, command: Command) -> Result<(), SendError<Command>> {
        self.put(command, |doorbell| doorbell.bell.ring())
    }

    /// Gives a command to the router that nobody waits for: the router takes it with the next one, in its turn, and at the
    /// latest when its next deadline comes. It is woken if it said that it wants to hear of everything, or when much is left.
    ///
    /// # Errors
    /// The router is gone; the command comes back.
    ///
    /// # Blocking
    /// While the inbox is full, as in [`send`](Self::send).
    pub(crate) fn leave(&self, command: Command) -> Result<(), SendError<Command>> {
        self.put(command, |doorbell| {
            // INVARIANT: either this sees what the router said before it went to sleep, or its last look sees the command.
            fence(Ordering::SeqCst);
            let is_much = self.queue.len() >= MOST_LEFT || self.queue.is_full();
            if is_much || doorbell.hears_all.load(Ordering::Relaxed) {
                doorbell.bell.ring();
            }
        })
    }

    fn put(&self, command: Command, ring: impl Fn(&Doorbell)) -> Result<(), SendError<Command>> {
        if self.slot.closed.load(Ordering::SeqCst) {
            return Err(SendError(command));
        }
        self.queue.send(command)?;
        let Ringer(doorbell) = &self.bell;
        // With a fence, which `Slot::clear` needs too.
        ring(doorbell);
        if self.slot.closed.load(Ordering::SeqCst) {
            self.slot.clear();
        }
        Ok(())
    }
}

/// The router's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    slot: Arc<Slot>,
    bell: Arc<Doorbell>,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.slot.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.slot.clear();
    }
}

/// Nobody can send any more, and nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deserted;

impl Inbox {
    /// A command that is there already.
    pub(crate) fn try_next(&self) -> Option<Command> {
        self.slot.queue.try_recv().ok()
    }

    /// The next command, `None` at `deadline` (no deadline: never). `hears_all`: what is only [left](Post::leave) counts, too.
    ///
    /// # Errors
    /// [`Deserted`].
    ///
    /// # Blocking
    /// Until then.
    pub(crate) fn next(
        &self,
        deadline: Option<Instant>,
        hears_all: bool,
    ) -> Result<Option<Command>, Deserted> {
        if self.bell.hears_all.load(Ordering::Relaxed) != hears_all {
            self.bell.hears_all.store(hears_all, Ordering::Relaxed);
        }
        loop {
            match self.slot.queue.try_recv() {
                Ok(command) => return Ok(Some(command)),
                Err(TryRecvError::Disconnected) => return Err(Deserted),
                Err(TryRecvError::Empty) => {}
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the deadline of a wait is compared with the clock"
            )]
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(None);
            }
            // BLOCKS: until a command comes or the deadline.
            self.bell
                .bell
                .wait(deadline, || !self.slot.queue.is_empty());
        }
    }
}

/// So many commands wait before the router is woken for what nobody waits for.
const MOST_LEFT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::router::command::{ConnectionId, Origin};
    use crate::broker::router::inspect::Query;
    use std::num::NonZeroU64;
    use std::time::Duration;

    fn command() -> Command {
        Command::Drained(Origin {
            slot: 0,
            connection: ConnectionId(NonZeroU64::MIN),
        })
    }

    #[test]
    fn a_router_that_sleeps_hears_a_command_and_the_last_sender_go() {
        let (post, inbox) = inbox(2);
        let router = crate::thread::spawn("router", 0, move || {
            let mut count = 0;
            while let Ok(command) = inbox.next(None, false) {
                count += u32::from(command.is_some());
            }
            count
        })
        .unwrap();
        for _ in 0..10_000 {
            post.send(command()).unwrap();
        }
        for _ in 0..10_000 {
            post.leave(command()).unwrap();
        }
        let other = post.clone();
        drop(post);
        other.send(command()).unwrap();
        drop(other);
        assert_eq!(router.join().unwrap(), 20_001);
    }

    /// Who asks the router when it ends waits for no answer.
    #[test]
    fn what_the_router_leaves_behind_is_dropped() {
        let ask = |post: &Post| {
            let (to_answer, answer) = bounded(1);
            let _ = post.send(Command::Query(Query::Stats(to_answer)));
            answer.recv_timeout(Duration::from_secs(20))
        };
        let (post, inbox) = inbox(1);
        let (to_answer, answer) = bounded(1);
        post.send(Command::Query(Query::Stats(to_answer))).unwrap();
        // One more waits for a place.
        let asking = crate::thread::spawn("asking", 0, move || ask(&post)).unwrap();
        drop(inbox);
        let gone = Err(crossbeam_channel::RecvTimeoutError::Disconnected);
        assert_eq!(asking.join().unwrap().map(drop), gone);
        assert!(answer.recv_timeout(Duration::from_secs(20)).is_err());
        assert!(answer.try_recv().unwrap_err().is_disconnected());
        for _ in 0..500 {
            let (post, inbox) = super::inbox(2);
            let asking = crate::thread::spawn("asking", 0, move || ask(&post)).unwrap();
            drop(inbox);
            assert_eq!(asking.join().unwrap().map(drop), gone);
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "deadlines of tests are taken from the clock"
    )]
    fn a_deadline_is_kept_and_a_lost_router_is_an_error() {
        let (post, inbox) = inbox(1);
        assert!(inbox.next(Some(Instant::now()), true).unwrap().is_none());
        assert!(inbox.try_next().is_none());
        drop(inbox);
        assert!(post.send(command()).is_err());
    }
    #[test]
    fn what_is_left_wakes_the_router_only_if_it_wants_to_hear_of_it_or_when_it_is_much() {
        for (hears_all, wakes) in [(true, 1), (false, MOST_LEFT)] {
            let (post, inbox) = inbox(2 * MOST_LEFT);
            let doorbell = Arc::clone(&inbox.bell);
            let router = crate::thread::spawn("router", 0, move || {
                let first = inbox.next(None, hears_all);
                let rest = std::iter::from_fn(|| inbox.try_next());
                usize::from(first.is_ok()) + rest.count()
            })
            .unwrap();
            while !doorbell.bell.sleeps() {
                std::thread::yield_now();
            }
            // About to sleep is not asleep: the router may still find the first of them, and then takes those alone.
            for _ in 1..wakes {
                post.leave(command()).unwrap();
            }
            let is_awake = !doorbell.bell.sleeps();
            post.leave(command()).unwrap();
            let taken = router.join().unwrap();
            assert!(taken == wakes || is_awake, "{taken}");
        }
    }
}
