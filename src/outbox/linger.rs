//! Connections that have said everything and wait for the peer to close.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::net::{Closer, Socket};
use crate::thread::Pool;

/// Shuts down the sending direction now, and the socket when the peer had time to close it.
pub(super) fn half_close(socket: &Socket) {
    socket.shutdown_write();
    let mut waiting = WAITING.lock();
    waiting.queue.push_back((now() + PATIENCE, socket.closer()));
    if std::mem::replace(&mut waiting.has_thread, true) {
        return;
    }
    drop(waiting);
    if Pool::shared().run("closer", close_in_time).is_err() {
        close_all();
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
    let mut waiting = WAITING.lock();
    while let Some((deadline, closer)) = waiting.queue.pop_front() {
        // BLOCKS: until the deadline; nobody notifies.
        if closer.is_open() {
            while !Condvar::new()
                .wait_until(&mut waiting, deadline)
                .timed_out()
            {}
            closer.shutdown();
        }
    }
    waiting.has_thread = false;
}

/// Without a thread there is no patience.
fn close_all() {
    let mut waiting = WAITING.lock();
    for (_, closer) in waiting.queue.drain(..) {
        closer.shutdown();
    }
    waiting.has_thread = false;
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
