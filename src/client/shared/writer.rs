//! Who writes what is pending; see the drawing in [`shared`](super).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::{Core, Shared, now};
use crate::outbox::{OutBuf, Outbox};
use crate::packet_log;
use crate::thread::Pool;

/// The sending side of one connection.
pub(crate) struct Link {
    pub(crate) outbox: Arc<Outbox>,
    /// Encoded, in order, and not yet given to the outbox.
    pub(crate) pending: OutBuf,
    /// With a store: what of `pending` need not wait for it, or not any longer. `None` without a store.
    ready: Option<OutBuf>,
    /// With a store: what waits for the next commit.
    held: OutBuf,
    /// Bytes that wait for the store, those in commits included.
    held_bytes: usize,
    /// The buffer that was sent last, to be used again.
    spare: OutBuf,
    /// Somebody has the write turn and will take what is appended.
    pub(super) turn_taken: bool,
    /// That is the flusher.
    handed_over: bool,
    pub(crate) last_sent_at: Instant,
    burst: Burst,
}

/// How many messages were sent of late.
#[derive(Debug)]
struct Burst {
    began_at: Instant,
    sends: u32,
}

/// The thread that has the write turn while messages leave at a high rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flusher {
    /// There is none.
    Absent,
    /// It waits for work, for a short while.
    Idle,
    /// It has the turn, or is being woken or started for it.
    Busy,
}

/// How soon bytes must leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody waits for the answer: at once, on this thread.
    Now,
    /// At once unless there are many of them.
    Soon,
}

impl Link {
    pub(crate) fn new(outbox: Arc<Outbox>, now: Instant) -> Self {
        Self {
            outbox,
            pending: OutBuf::new(),
            ready: None,
            held: OutBuf::new(),
            held_bytes: 0,
            spare: OutBuf::new(),
            turn_taken: false,
            handed_over: false,
            last_sent_at: now,
            burst: Burst {
                began_at: now,
                sends: 0,
            },
        }
    }

    /// Ends the connection with `last` as the last bytes, unless somebody is writing: then without them.
    pub(super) fn give_up(mut self, last: &mut OutBuf) {
        if last.is_empty() || self.turn_taken {
            self.outbox.abort();
            return;
        }
        self.pending.bytes_mut().extend_from_slice(&last.to_vec());
        self.outbox.close_with(&mut self.pending);
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        let ready = self.ready.as_ref().map_or(0, OutBuf::len);
        self.pending.len() + ready + self.held_bytes + self.outbox.backlog()
    }

    /// What may leave.
    fn outgoing(&mut self) -> &mut OutBuf {
        self.ready.as_mut().unwrap_or(&mut self.pending)
    }

    /// Where a packet is put that may leave before those that wait for the store.
    pub(crate) fn first(&mut self) -> &mut OutBuf {
        self.outgoing()
    }

    /// With a store: lets all that is pending leave or, if it `waits`, holds it back.
    pub(crate) fn stage(&mut self, waits: bool) {
        let ready = self.ready.get_or_insert_default();
        if waits {
            self.held_bytes += self.pending.len();
            self.held.append(&mut self.pending);
        } else {
            ready.append(&mut self.pending);
        }
    }

    /// What is held back, to be released when a commit is written.
    pub(crate) fn take_held(&mut self) -> Option<OutBuf> {
        (!self.held.is_empty()).then(|| std::mem::take(&mut self.held))
    }

    /// Nothing has to be written any more before what is held back leaves.
    pub(crate) fn release_held(&mut self) {
        if let Some(mut held) = self.take_held() {
            self.release(&mut held);
        }
    }

    /// The store has what these bytes waited for.
    pub(crate) fn release(&mut self, bytes: &mut OutBuf) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes.len());
        self.outgoing().append(bytes);
    }
}

impl Burst {
    fn count(&mut self) {
        self.sends = self.sends.saturating_add(1);
    }

    /// Whether many messages left in the last millisecond.
    fn is_on(&mut self, now: Instant) -> bool {
        let elapsed = now.duration_since(self.began_at);
        if elapsed <= BURST_WITHIN {
            return self.sends > BURST_SENDS;
        }
        let per_span = u128::from(self.sends) * BURST_WITHIN.as_nanos() / elapsed.as_nanos();
        let was_on = per_span > u128::from(BURST_SENDS);
        self.began_at = now;
        self.sends = if was_on { BURST_SENDS + 1 } else { 0 };
        was_on
    }
}

impl Shared {
    /// Sends what is pending, unless somebody is at it.
    pub(crate) fn send(self: &Arc<Self>, mut core: MutexGuard<'_, Core>, urgency: Urgency) {
        core.stage();
        let Some(link) = &mut core.link else { return };
        link.burst.count();
        if link.turn_taken || link.outgoing().is_empty() {
            return;
        }
        link.turn_taken = true;
        let is_burst = urgency == Urgency::Soon && link.burst.is_on(now());
        if is_burst || !self.write(&mut core, ROUNDS) {
            self.hand_over(core);
        }
    }

    /// Gives the write turn to the flusher.
    fn hand_over(self: &Arc<Self>, mut core: MutexGuard<'_, Core>) {
        if let Some(link) = &mut core.link {
            link.handed_over = true;
        }
        match std::mem::replace(&mut core.flusher, Flusher::Busy) {
            Flusher::Busy => {}
            Flusher::Idle => {
                drop(core);
                self.flush_wanted.notify_one();
            }
            Flusher::Absent => {
                drop(core);
                self.start_flusher();
            }
        }
    }

    fn start_flusher(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        if let Err(error) = Pool::shared().run("flush", move || shared.flush()) {
            log::debug!("no thread to send with, sending on this one: {error}");
            let mut core = self.lock();
            core.flusher = Flusher::Absent;
            while !self.write(&mut core, ROUNDS) {}
        }
    }

    /// Has the write turn while messages leave at a high rate. Runs on a thread of its own.
    fn flush(&self) {
        let mut core = self.lock();
        loop {
            while core.link.as_ref().is_some_and(|link| link.handed_over) {
                self.write(&mut core, usize::MAX);
            }
            core.flusher = Flusher::Idle;
            // BLOCKS: until there is work; the thread ends when there is none for a while.
            self.flush_wanted.wait_for(&mut core, FLUSHER_IDLE_FOR);
            if core.flusher == Flusher::Idle {
                core.flusher = Flusher::Absent;
                if let Some(link) = &mut core.link {
                    link.spare = OutBuf::new();
                }
                return;
            }
        }
    }

    /// Gives pending bytes to the outbox, at most `rounds` times. True: nothing is left, and the turn is given back.
    ///
    /// Never blocks: what the socket does not take is the outbox's.
    fn write(&self, core: &mut MutexGuard<'_, Core>, rounds: usize) -> bool {
        let connection = core.connection;
        for _ in 0..rounds {
            let client_id = packet_log::is_on().then(|| core.result.client_id.clone());
            let version = core.result.version;
            let Some(link) = core.link.as_mut() else {
                return true;
            };
            if link.outgoing().is_empty() {
                link.turn_taken = false;
                link.handed_over = false;
                self.notify();
                return true;
            }
            let spare = std::mem::take(&mut link.spare);
            let mut out = std::mem::replace(link.outgoing(), spare);
            let outbox = Arc::clone(&link.outbox);
            link.last_sent_at = now();
            MutexGuard::unlocked(core, || {
                if let Some(client_id) = client_id {
                    packet_log::sent(&client_id, version, &out);
                }
                // A closed one is noticed by the reader.
                let _ = outbox.send(&mut out);
            });
            if core.connection != connection {
                return true; // the turn of the new connection is not ours
            }
            if let Some(link) = core.link.as_mut() {
                if out.bytes_mut().capacity() <= SPARE_BYTES {
                    link.spare = out;
                }
                if link.waiting_bytes() <= self.options.send_buffer_bytes {
                    self.notify();
                }
            }
        }
        false
    }
}

/// How often a caller writes for others before the flusher takes over.
const ROUNDS: usize = 4;

/// More than this many sends within this time are a burst: a system call for each would cost more than a thread.
const BURST_SENDS: u32 = 32;

const BURST_WITHIN: Duration = Duration::from_millis(1);

/// How long the flusher waits for work before it ends.
const FLUSHER_IDLE_FOR: Duration = Duration::from_millis(100);

/// A larger buffer is given back after it was sent.
const SPARE_BYTES: usize = 2 * 1024 * 1024;
