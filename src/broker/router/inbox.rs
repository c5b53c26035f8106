//! The way to the router: a bounded queue whose one receiver sleeps when it is empty.
//!
//! The channel's own waiting spins for some ten microseconds before every sleep. Here it is the bell that learns whether
//! staying awake is worth it: it is where one message is answered by the next, and not where messages are rare.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, SendError, Sender, TryRecvError, bounded};

use super::command::Command;
use crate::thread::Bell;

/// A queue for the router with this many places.
pub(crate) fn inbox(places: usize) -> (Post, Inbox) {
    let (sender, receiver) = bounded(places);
    let bell = Arc::new(Bell::of_light_sleep());
    let post = Post {
        queue: sender,
        bell: Ringer(Arc::clone(&bell)),
    };
    let queue = receiver;
    (post, Inbox { queue, bell })
}

/// Where commands for the router are given in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    /// INVARIANT: stands before the bell, so that it is gone when the last one rings for the last time.
    queue: Sender<Command>,
    bell: Ringer,
}

/// Rings when it goes, too: the router is to notice that nobody is left.
#[derive(Debug, Clone)]
struct Ringer(Arc<Bell>);

impl Drop for Ringer {
    fn drop(&mut self) {
        self.0.ring();
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
        self.queue.send(command)?;
        self.bell.0.ring();
        Ok(())
    }
}

/// The router's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Receiver<Command>,
    bell: Arc<Bell>,
}

/// Nobody can send any more, and nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deserted;

impl Inbox {
    /// A command that is there already.
    pub(crate) fn try_next(&self) -> Option<Command> {
        self.queue.try_recv().ok()
    }

    /// The next command, `None` at `deadline` (no deadline: never).
    ///
    /// # Errors
    /// [`Deserted`].
    ///
    /// # Blocking
    /// Until then.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> Result<Option<Command>, Deserted> {
        loop {
            match self.queue.try_recv() {
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
            self.bell.wait(deadline, || !self.queue.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::router::command::{ConnectionId, Origin};
    use std::num::NonZeroU64;

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
            while let Ok(command) = inbox.next(None) {
                count += u32::from(command.is_some());
            }
            count
        })
        .unwrap();
        for _ in 0..10_000 {
            post.send(command()).unwrap();
        }
        let other = post.clone();
        drop(post);
        other.send(command()).unwrap();
        drop(other);
        assert_eq!(router.join().unwrap(), 10_001);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "deadlines of tests are taken from the clock"
    )]
    fn a_deadline_is_kept_and_a_lost_router_is_an_error() {
        let (post, inbox) = inbox(1);
        assert!(inbox.next(Some(Instant::now())).unwrap().is_none());
        assert!(inbox.try_next().is_none());
        drop(inbox);
        assert!(post.send(command()).is_err());
    }
}
