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

mod linger;

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};

use crate::net::transport::{Layers, Received};
use crate::net::{NetError, Socket};
use crate::thread::Pool;

/// Encoded packets on their way to an [`Outbox`]: small parts copied together, large ones shared.
///
/// It is meant to be kept and filled again: [`Outbox::send`] leaves it empty with its capacity.
#[derive(Debug, Default)]
pub struct OutBuf {
    bytes: Vec<u8>,
    /// Each at its position in `bytes`, in ascending order.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
}

impl OutBuf {
    /// An empty buffer without memory on the heap.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            shared: Vec::new(),
            shared_bytes: 0,
        }
    }

    /// Where to encode to. Only append: what stands in it already has its place among the shared parts.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends `part`: shared without a copy from [`SHARE_FROM_BYTES`] on, copied when it is smaller.
    pub fn push_shared(&mut self, part: Bytes) {
        if part.len() < SHARE_FROM_BYTES {
            self.bytes.extend_from_slice(&part);
        } else {
            self.shared_bytes += part.len();
            self.shared.push((self.bytes.len(), part));
        }
    }

    /// The number of bytes to send.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_empty()
    }

    /// The bytes that fit without another allocation.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// A copy of all bytes in their order, for logs and tests.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(self.len());
        let mut cursor = Cursor::default();
        while let Some(part) = self.part(cursor) {
            copy.extend_from_slice(part);
            let length = part.len();
            self.advance_in_part(&mut cursor, length);
        }
        copy
    }

    /// All bytes in order, as one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut all = Vec::with_capacity(self.len());
        let mut cursor = Cursor::default();
        while let Some(part) = self.part(cursor) {
            all.extend_from_slice(part);
            self.advance_in_part(&mut cursor, part.len());
        }
        Bytes::from(all)
    }

    /// Forgets everything but the capacity.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.shared.clear();
        self.shared_bytes = 0;
    }

    /// Appends all of `other`, and empties it.
    pub fn append(&mut self, other: &mut Self) {
        self.append_rest(other, Cursor::default());
    }

    /// Appends what `cursor` has not passed of `other`, and empties `other`.
    fn append_rest(&mut self, other: &mut Self, cursor: Cursor) {
        let base = self.bytes.len();
        let offset = base.wrapping_sub(cursor.bytes_at);
        for (index, (position, mut part)) in
            other.shared.drain(..).enumerate().skip(cursor.shared_index)
        {
            if index == cursor.shared_index {
                part = part.slice(cursor.shared_at..);
            }
            self.shared_bytes += part.len();
            self.shared.push((position.wrapping_add(offset), part));
        }
        self.bytes
            .extend_from_slice(other.bytes.get(cursor.bytes_at..).unwrap_or_default());
        other.clear();
    }

    /// The number of bytes in front of `cursor`.
    fn passed(&self, cursor: Cursor) -> usize {
        let whole = self.shared.iter().take(cursor.shared_index);
        cursor.bytes_at + whole.map(|(_, part)| part.len()).sum::<usize>() + cursor.shared_at
    }

    /// The next contiguous part behind `cursor`; `None` at the end.
    fn part(&self, cursor: Cursor) -> Option<&[u8]> {
        let Some((position, part)) = self.shared.get(cursor.shared_index) else {
            return self
                .bytes
                .get(cursor.bytes_at..)
                .filter(|rest| !rest.is_empty());
        };
        if cursor.bytes_at < *position {
            self.bytes.get(cursor.bytes_at..*position)
        } else {
            part.get(cursor.shared_at..)
        }
    }

    /// Moves `cursor` on by at most `count` bytes, not beyond the part that it is in. Returns by how many.
    fn advance_in_part(&self, cursor: &mut Cursor, count: usize) -> usize {
        let Some((position, part)) = self.shared.get(cursor.shared_index) else {
            let step = count.min(self.bytes.len() - cursor.bytes_at);
            cursor.bytes_at += step;
            return step;
        };
        if cursor.bytes_at < *position {
            let step = count.min(position - cursor.bytes_at);
            cursor.bytes_at += step;
            return step;
        }
        let step = count.min(part.len() - cursor.shared_at);
        cursor.shared_at += step;
        if cursor.shared_at == part.len() {
            cursor.shared_index += 1;
            cursor.shared_at = 0;
        }
        step
    }

    fn advance(&self, cursor: &mut Cursor, mut count: usize) {
        while count > 0 {
            let step = self.advance_in_part(cursor, count);
            if step == 0 {
                break;
            }
            count -= step;
        }
    }

    /// Calls `write` once with what is behind `cursor`, `limit` bytes at most, and moves the cursor by what it took.
    fn write_some<F>(&self, cursor: &mut Cursor, limit: usize, write: F) -> io::Result<usize>
    where
        F: FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        let mut left = limit;
        let mut ahead = *cursor;
        for slice in &mut slices {
            let Some(part) = self.part(ahead) else { break };
            let part = part.get(..left).unwrap_or(part);
            if part.is_empty() {
                break;
            }
            *slice = IoSlice::new(part);
            used += 1;
            left -= part.len();
            self.advance_in_part(&mut ahead, part.len());
        }
        let written = write(slices.get(..used).unwrap_or_default())?;
        self.advance(cursor, written);
        Ok(written)
    }
}

/// A place in an [`OutBuf`].
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    bytes_at: usize,
    shared_index: usize,
    shared_at: usize,
}

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

struct Layered {
    layers: Layers,
    /// Appended, and through the layers up to `plain_at`.
    plain: OutBuf,
    plain_at: Cursor,
}

impl State {
    /// Whether everything that was appended is through the layers.
    fn is_encoded(&self) -> bool {
        self.layered
            .as_ref()
            .is_none_or(|layered| layered.plain.is_empty())
    }
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
            // Frames are made with the copy that is made here anyway.
            Some(layered) if !self.encrypts && layered.plain.is_empty() => {
                self.frame(layered, buf, state.out.bytes_mut());
            }
            Some(layered) => layered.plain.append(buf),
            None => state.out.append(buf),
        }
    }

    /// Brings all of `buf` through the layers, as far as they take it.
    fn frame(&self, layered: &mut Layered, buf: &mut OutBuf, wire: &mut Vec<u8>) {
        let Layered {
            layers,
            plain,
            plain_at,
        } = layered;
        let (length, before) = (buf.len(), wire.len());
        layers.take_control(wire);
        let mut at = Cursor::default();
        while let Some(part) = buf.part(at) {
            let part = part.get(..CHUNK_BYTES).unwrap_or(part);
            if layers.send(part, wire).is_err() {
                // The next write says so.
                break;
            }
            buf.advance_in_part(&mut at, part.len());
        }
        plain.append_rest(buf, at);
        *plain_at = Cursor::default();
        let framed = length - plain.len();
        self.backlog
            .fetch_add(wire.len() - before, Ordering::Relaxed);
        self.count_off(framed);
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

    /// Brings the next of what was appended through the layers, and what they want to say themselves: at the end, if it is time for it, the
    /// goodbye. A little at a time, so that the lock is not held for long.
    fn encode(&self, state: &mut State) -> io::Result<()> {
        let State {
            layered: Some(layered),
            out,
            closing,
            ..
        } = state
        else {
            return Ok(());
        };
        let Layered {
            layers,
            plain,
            plain_at,
        } = &mut **layered;
        let (out_before, mut left) = (out.len(), CHUNK_BYTES);
        let wire = out.bytes_mut();
        layers.take_control(wire);
        while let Some(part) = plain.part(*plain_at).filter(|_| left > 0) {
            let part = part.get(..left).unwrap_or(part);
            layers.send(part, wire).map_err(io::Error::other)?;
            left -= part.len();
            plain.advance_in_part(plain_at, part.len());
        }
        if plain.part(*plain_at).is_none() {
            *plain = OutBuf::new();
            *plain_at = Cursor::default();
            if *closing {
                layers.close(wire);
            }
        }
        self.backlog
            .fetch_add(out.len() - out_before, Ordering::Relaxed);
        self.count_off(CHUNK_BYTES - left);
        Ok(())
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

    /// Gives the write turn to a drain thread.
    fn start_drain(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        state.draining = true;
        drop(state);
        let outbox = Arc::clone(self);
        let started =
            Pool::shared().run(format!("drain-{}", self.options.id), move || outbox.drain());
        if let Err(error) = started {
            log::warn!("no thread for a slow peer, closing its connection: {error}");
            self.abort();
        }
    }

    /// Writes until nothing waits. Runs on a drain thread.
    fn drain(&self) {
        let written = self
            .socket
            .set_write_timeout(Some(self.options.write_timeout))
            .and_then(|()| self.drain_all());
        if let Err(error) = written
            && self.break_off()
        {
            (self.on_event)(OutboxEvent::Failed(error.into()));
        }
    }

    /// Events come from drain threads only: the one that would call here may be the one that has to handle it.
    fn tell_elsewhere(self: &Arc<Self>, error: io::Error) {
        let outbox = Arc::clone(self);
        let started = Pool::shared().run(format!("drain-{}", self.options.id), move || {
            (outbox.on_event)(OutboxEvent::Failed(error.into()));
        });
        if let Err(error) = started {
            log::warn!("no thread to tell that a connection broke: {error}");
        }
    }

    fn drain_all(&self) -> io::Result<()> {
        while let Some((out, mut out_at)) = self.take_out()? {
            while out.part(out_at).is_some() {
                // BLOCKS: on the socket until the peer takes something, at most for the write timeout.
                let written = out.write_some(&mut out_at, CHUNK_BYTES, |slices| {
                    self.socket.write_vectored(slices)
                })?;
                self.count_sent(written);
                self.count_off(written);
                self.tell_if_drained();
            }
        }
        Ok(())
    }

    /// All that waits now, or `None` after it has given back the write turn because nothing does.
    fn take_out(&self) -> io::Result<Option<(OutBuf, Cursor)>> {
        let mut state = self.state.lock();
        self.encode(&mut state)?;
        if !state.out.is_empty() {
            return Ok(Some((
                std::mem::take(&mut state.out),
                std::mem::take(&mut state.out_at),
            )));
        }
        state.draining = false;
        let closing = state.closing;
        let owes_event = std::mem::take(&mut state.owes_event);
        drop(state);
        if closing {
            linger::half_close(&self.socket);
        } else if owes_event && !self.is_closed() {
            (self.on_event)(OutboxEvent::Drained);
        }
        Ok(None)
    }

    fn tell_if_drained(&self) {
        let is_drained = || self.backlog() < self.options.soft_limit_bytes / 2;
        if !is_drained() {
            return;
        }
        let mut state = self.state.lock();
        let tell = state.owes_event && is_drained() && !self.is_closed();
        if tell {
            state.owes_event = false;
        }
        drop(state);
        if tell {
            (self.on_event)(OutboxEvent::Drained);
        }
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

/// From this size on a shared part is not copied.
pub const SHARE_FROM_BYTES: usize = 2048;

/// The most that a drain thread hands to the kernel at once, so that it notices in time how far the backlog has fallen; and the most that goes
/// through the layers at once, so that nobody waits long for the lock.
const CHUNK_BYTES: usize = 128 * 1024;

const MAX_SLICES: usize = 32;

#[cfg(test)]
mod tests;
