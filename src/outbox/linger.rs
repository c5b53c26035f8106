//! Connections that have said everything and wait for the peer to close.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::net::{Closer, Socket};
use crate::thread;

/// Shuts down the sending direction now, and the socket when the peer had time to close it.
pub(super) fn half_close(socket: &Socket) {
    socket.shutdown_write();
    let mut waiting = WAITING.lock();
    waiting.queue.push_back((now() + PATIENCE, socket.closer()));
    if std::mem::replace(&mut waiting.has_thread, true) {
        return;
    }
    drop(waiting);
    if thread::spawn("closer", STACK_BYTES, close_in_time).is_err() {
        // Without a thread there is no patience.
        WAITING.lock().close_until(None);
    }
}

struct Waiting {
    /// All wait equally long, so the first to come is the first to go.
    queue: VecDeque<(Instant, Closer)>,
    has_thread: bool,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    queue: VecDeque::new(),
    has_thread: false,
});

/// Runs while there is something to wait for.
fn close_in_time() {
    let tick = Condvar::new();
    let mut waiting = WAITING.lock();
    while waiting.has_thread {
        // BLOCKS: for a tick; nobody notifies.
        tick.wait_for(&mut waiting, TICK);
        waiting.close_until(Some(now()));
    }
}

impl Waiting {
    /// Closes what is due (`None`: everything), and forgets what is closed. With nothing left the thread is to end.
    fn close_until(&mut self, now: Option<Instant>) {
        self.queue.retain(|(deadline, closer)| {
            let is_due = now.is_none_or(|now| *deadline <= now);
            if is_due {
                closer.shutdown();
            }
            !is_due && closer.is_open()
        });
        self.has_thread = !self.queue.is_empty();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the deadline of a close is taken from the clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// The peer needs a round trip, and perhaps to finish what it is doing.
const PATIENCE: Duration = Duration::from_secs(2);

const TICK: Duration = Duration::from_millis(100);

const STACK_BYTES: usize = 64 * 1024;
