//! What waits for one socket, and how it gets there.
//!
//! ```text
//!     router ──send──► idle?  ──send(2), MSG_DONTWAIT──► socket
//!                       │ no, or not all was taken
//!                       ▼
//!                    waiting ──drain-<id>, blocking──► socket ──► Drained | Failed
//! ```
//!
//! Bytes, budget, flush, stall, close. No decision about any packet: who sends too much learns it from [`SendOutcome`] and decides itself.
//!
//! At any time at most one thread has the *write turn*: the one that holds the lock, while nothing blocks; a drain thread from the moment on
//! that the socket takes no more, until it has caught up. Nobody else writes meanwhile; appending goes on. The lock is never held over a
//! call that blocks.

mod buffer;
mod drain;
mod layered;
mod linger;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};

use crate::net::transport::{Layers, Received};
use crate::net::{NetError, Socket};

use buffer::Cursor;
pub use buffer::{OutBuf, SHARE_FROM_BYTES};
use layered::Layered;

/// Settings of an [`Outbox`].
#[derive(Debug, Clone, Copy)]
pub struct OutboxOptions {
    /// The number in the name of the thread `drain-<id>`. Default 0.
    pub id: u64,
    /// How long the peer may take nothing while something waits for it. Default 20 s.
    pub write_timeout: Duration,
    /// Above this backlog a send is answered with [`SendOutcome::Full`]. Default 1 MiB.
    pub soft_limit_bytes: usize,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            id: 0,
            write_timeout: Duration::from_secs(20),
            soft_limit_bytes: 1024 * 1024,
        }
    }
}

/// What became of the bytes. They are taken in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum SendOutcome {
    /// All are with the kernel.
    Sent,
    /// Some wait, fewer than the soft limit. Sending may go on.
    Queued,
    /// More than the soft limit waits. [`OutboxEvent::Drained`] or [`OutboxEvent::Failed`] follows.
    Full,
    /// The outbox is closed, or the connection is broken; nothing will be sent. No event follows; the reader sees the end.
    Closed,
}

/// What a sender that was told [`SendOutcome::Full`] waits for.
#[derive(Debug)]
#[non_exhaustive]
pub enum OutboxEvent {
    /// Less than half of the soft limit waits.
    Drained,
    /// The connection broke, or the peer took nothing for the write timeout ([`io::ErrorKind::TimedOut`]). It is shut down.
    Failed(NetError),
}

/// The writing side of one connection. No call blocks: all may be made from the router.
pub struct Outbox {
    socket: Arc<Socket>,
    options: OutboxOptions,
    closed: AtomicBool,
    is_plain: bool,
    encrypts: bool,
    /// Changes under the lock when it grows.
    backlog: AtomicUsize,
    bytes_sent: AtomicU64,
    state: Mutex<State>,
    on_event: Box<dyn Fn(OutboxEvent) + Send + Sync>,
}

struct State {
    /// Ready for the wire, written up to `out_at`. While a drain thread has the turn: what comes after what it holds.
    out: OutBuf,
    out_at: Cursor,
    layered: Option<Box<Layered>>,
    /// A drain thread has the write turn. Otherwise whoever holds the lock has it.
    draining: bool,
    /// Somebody was told `Full` and waits for an event.
    owes_event: bool,
    /// To be shut down when nothing waits any more.
    closing: bool,
}

impl Outbox {
    /// The writing side of `socket`, on which `layers` are spoken.
    ///
    /// `on_event` is only called from drain threads, without any lock held; it may block or send.
    #[must_use]
    pub fn new(
        socket: Arc<Socket>,
        layers: Layers,
        options: OutboxOptions,
        on_event: Box<dyn Fn(OutboxEvent) + Send + Sync>,
    ) -> Arc<Self> {
        let (is_plain, encrypts) = (layers.is_plain(), layers.encrypts());
        let layered = (!is_plain).then(|| {
            Box::new(Layered {
                layers,
                plain: OutBuf::new(),
                plain_at: Cursor::default(),
            })
        });
        let state = State {
            out: OutBuf::new(),
            out_at: Cursor::default(),
            layered,
            draining: false,
            owes_event: false,
            closing: false,
        };
        Arc::new(Self {
            socket,
            options,
            closed: AtomicBool::new(false),
            is_plain,
            encrypts,
            backlog: AtomicUsize::new(0),
            bytes_sent: AtomicU64::new(0),
            state: Mutex::new(state),
            on_event,
        })
    }

    /// Takes all of `buf` and writes it at once as far as the socket takes it. What is left is written by a drain thread.
    ///
    /// Plain, idle and with room in the socket: one lock and one `send(2)`, no copy, no allocation.
    pub fn send(self: &Arc<Self>, buf: &mut OutBuf) -> SendOutcome {
        let mut state = self.state.lock();
        if self.is_closed() {
            buf.clear();
            return SendOutcome::Closed;
        }
        if state.draining {
            return self.append_locked(&mut state, buf);
        }
        if state.layered.is_some() || !state.out.is_empty() {
            self.enqueue(&mut state, buf);
            let written = self.write_locked(&mut state);
            return self.settle(state, written);
        }
        let mut cursor = Cursor::default();
        let written = self.write_now(buf, &mut cursor);
        if let Ok(true) = written {
            buf.clear();
            return SendOutcome::Sent;
        }
        state.out.append_rest(buf, cursor);
        self.backlog.store(state.out.len(), Ordering::Relaxed);
        self.settle(state, written)
    }

    /// Takes all of `buf` and lets it wait for the next [`flush`](Self::flush) or [`send`](Self::send). Writes nothing.
    ///
    /// Never [`SendOutcome::Sent`]. After [`SendOutcome::Full`] the event follows once somebody has flushed.
    pub fn append(&self, buf: &mut OutBuf) -> SendOutcome {
        let mut state = self.state.lock();
        if self.is_closed() {
            buf.clear();
            return SendOutcome::Closed;
        }
        self.append_locked(&mut state, buf)
    }

    /// Writes what waits as far as the socket takes it. What is left is written by a drain thread.
    pub fn flush(self: &Arc<Self>) -> SendOutcome {
        let mut state = self.state.lock();
        if self.is_closed() {
            return SendOutcome::Closed;
        }
        if state.draining {
            return self.outcome(&mut state);
        }
        let written = self.write_locked(&mut state);
        self.settle(state, written)
    }

    /// Takes bytes from the socket through the layers and appends the plain ones to `plain`. What the layers want to answer is sent.
    ///
    /// Call it from one thread only, in the order in which the bytes came. Plain connections take no lock.
    ///
    /// # Errors
    /// The bytes break the layer's protocol. The peer has been told as far as the socket took it; close.
    pub fn receive(
        self: &Arc<Self>,
        raw: &[u8],
        plain: &mut BytesMut,
    ) -> Result<Received, NetError> {
        if self.is_plain {
            plain.extend_from_slice(raw);
            return Ok(Received::Open);
        }
        let mut state = self.state.lock();
        let Some(layered) = &mut state.layered else {
            return Ok(Received::Open);
        };
        plain.reserve(raw.len());
        let received = layered.layers.receive(raw, plain);
        // A drain thread takes along what the layers want to say; a peer that does not read is not answered ping by ping.
        if !state.draining && !self.is_closed() {
            let written = self.write_locked(&mut state);
            let _ = self.settle(state, written);
        }
        received
    }

    /// Sets the largest WebSocket message that is accepted, from the next frame on: small until the peer is known, the packet limit then.
    /// Nothing without WebSocket.
    pub fn set_max_message_bytes(&self, max_message_bytes: usize) {
        if let Some(layered) = &mut self.state.lock().layered {
            layered.layers.set_max_message_bytes(max_message_bytes);
        }
    }

    /// The number of bytes that wait.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// The number of bytes that the kernel has taken so far, those of the layers included.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Whether the outbox takes nothing more: closed, aborted or broken. What it had taken may still be on its way.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Sends what waits and the layers' goodbye, then ends the connection. The peer gets the write timeout for it; no event follows.
    ///
    /// After the last byte the sending direction is shut down, and the rest when the peer closes too, at the latest after 2 s: were the socket
    /// closed at once, bytes that the peer is just sending would make the kernel send a reset, and the peer could lose what we said last.
    /// So whoever reads goes on until the end and ignores what comes; [`Socket::discard_until_end`] does that.
    pub fn close(self: &Arc<Self>) {
        self.close_with(&mut OutBuf::new());
    }

    /// Whether the bytes on the wire are those that are appended: no TLS, no WebSocket.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether a [`send`](Self::send) costs much more than its system call: with TLS.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        self.encrypts
    }

    /// As [`close`](Self::close), with `last` behind what waits and nothing behind it. `last` is left empty.
    pub fn close_with(self: &Arc<Self>, last: &mut OutBuf) {
        let mut state = self.state.lock();
        if self.closed.swap(true, Ordering::AcqRel) {
            last.clear();
            return;
        }
        let _ = self.append_locked(&mut state, last);
        state.closing = true;
        if state.draining {
            return;
        }
        match self.write_locked(&mut state) {
            Ok(false) => self.start_drain(state),
            Ok(true) => {
                drop(state);
                linger::half_close(&self.socket);
            }
            Err(_) => {
                drop(state);
                self.abort();
            }
        }
    }

    /// Shuts the socket down now. What waits is dropped; no event follows.
    pub fn abort(&self) {
        self.closed.store(true, Ordering::Release);
        self.socket.shutdown();
        self.forget();
    }

    fn append_locked(&self, state: &mut State, buf: &mut OutBuf) -> SendOutcome {
        self.enqueue(state, buf);
        self.outcome(state)
    }

    fn enqueue(&self, state: &mut State, buf: &mut OutBuf) {
        self.backlog.fetch_add(buf.len(), Ordering::Relaxed);
        match &mut state.layered {
            // Frames are made with the copy that is made here anyway; what is shared is copied when its turn comes.
            Some(layered) if !self.encrypts && !buf.is_shared() && layered.plain.is_empty() => {
                self.frame(layered, buf, state.out.bytes_mut());
            }
            Some(layered) => layered.plain.append(buf),
            None => state.out.append(buf),
        }
    }

    /// What to tell a sender whose bytes wait.
    fn outcome(&self, state: &mut State) -> SendOutcome {
        if self.backlog() > self.options.soft_limit_bytes {
            state.owes_event = true;
            SendOutcome::Full
        } else {
            SendOutcome::Queued
        }
    }

    /// Takes the consequences of a write by the lock's holder.
    fn settle(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        written: io::Result<bool>,
    ) -> SendOutcome {
        match written {
            Ok(true) if !state.owes_event => SendOutcome::Sent,
            // The event comes from a drain thread, which finds nothing to write.
            Ok(true) => {
                self.start_drain(state);
                SendOutcome::Sent
            }
            Ok(false) => {
                let outcome = self.outcome(&mut state);
                self.start_drain(state);
                outcome
            }
            Err(error) => {
                let owes_event = state.owes_event;
                drop(state);
                if self.break_off() && owes_event {
                    self.tell_elsewhere(error);
                }
                SendOutcome::Closed
            }
        }
    }

    /// Writes all that waits without blocking, for the lock's holder. False: the socket is full.
    fn write_locked(&self, state: &mut State) -> io::Result<bool> {
        loop {
            self.encode(state)?;
            let State { out, out_at, .. } = state;
            let before = out.passed(*out_at);
            let written = self.write_now(out, out_at);
            self.count_off(out.passed(*out_at) - before);
            if !written? {
                return Ok(false);
            }
            state.out = OutBuf::new();
            state.out_at = Cursor::default();
            if state.is_encoded() {
                return Ok(true);
            }
        }
    }

    /// Writes what is behind `cursor` without blocking. False: the socket is full.
    fn write_now(&self, buf: &OutBuf, cursor: &mut Cursor) -> io::Result<bool> {
        while let Some(part) = buf.part(*cursor) {
            let result = if buf.shared.is_empty() {
                let result = self.socket.try_write(part);
                buf.advance(cursor, *result.as_ref().unwrap_or(&0));
                result
            } else {
                buf.write_some(cursor, usize::MAX, |slices| {
                    self.socket.try_write_vectored(slices)
                })
            };
            match result {
                Ok(written) => self.count_sent(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes bytes off the backlog. That of a connection that was broken off meanwhile is 0 already.
    fn count_off(&self, count: usize) {
        self.backlog
            .update(Ordering::Relaxed, Ordering::Relaxed, |backlog| {
                backlog.saturating_sub(count)
            });
    }

    fn count_sent(&self, written: usize) {
        self.bytes_sent.fetch_add(written as u64, Ordering::Relaxed);
    }

    /// The connection is broken. True when nobody knew that yet.
    fn break_off(&self) -> bool {
        let news = !self.closed.swap(true, Ordering::AcqRel);
        self.socket.shutdown();
        self.forget();
        news
    }

    fn forget(&self) {
        let mut state = self.state.lock();
        state.out = OutBuf::new();
        state.out_at = Cursor::default();
        if let Some(layered) = &mut state.layered {
            layered.plain = OutBuf::new();
            layered.plain_at = Cursor::default();
        }
        state.owes_event = false;
        self.backlog.store(0, Ordering::Relaxed);
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("peer", self.socket.peer())
            .field("backlog", &self.backlog())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// The most that a drain thread hands to the kernel at once, so that it notices in time how far the backlog has fallen; and the most that goes
/// through the layers at once, so that nobody waits long for the lock.
const CHUNK_BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests;
