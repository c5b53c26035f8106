//! Reading from a connection's socket: small while it is quiet, large while data flows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::spares::{BUFFER_BYTES, Spares};
use crate::net::error::NetError;
use crate::net::socket::Socket;
use crate::net::transport::Received;
use crate::outbox::Outbox;
use crate::proto::{DecodeError, ProtocolError};

/// What is read at once while a connection is quiet: on the stack, so that an idle connection holds no buffer.
const QUIET_READ_BYTES: usize = 1024;
/// Silence after which a connection counts as quiet.
pub(super) const QUIET_AFTER: Duration = Duration::from_secs(1);
/// What is read at once while data flows, at least.
const BUSY_READ_BYTES: usize = 64 * 1024;
/// How long a client that was told goodbye may go on before it is cut off.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes read and not yet decoded.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    pub(super) bytes: Vec<u8>,
    /// The last read filled what it was given: there may be more.
    more: bool,
    /// TLS or WebSocket said goodbye behind the last bytes.
    ended: bool,
    pub(super) received: u64,
    /// The read timeout that was set on the socket.
    pub(super) timeout: Option<Duration>,
}

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum ReadError {
    TimedOut,
    Closed,
    Io(std::io::Error),
    Net(NetError),
    Malformed(DecodeError),
    Protocol(ProtocolError),
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl ReadBuffer {
    pub(super) fn new(early: Vec<u8>) -> Self {
        Self {
            bytes: early,
            ..Self::default()
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the first `count` bytes out.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        let rest = self.bytes.split_off(count.min(self.bytes.len()));
        Bytes::from(std::mem::replace(&mut self.bytes, rest))
    }

    /// Reads once, waiting until `deadline` at most.
    ///
    /// # Blocking
    /// On the socket.
    pub(super) fn read_until(
        &mut self,
        socket: &Socket,
        outbox: &Arc<Outbox>,
        spares: &Spares,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        loop {
            #[expect(
                clippy::disallowed_methods,
                reason = "the thread of the connection reads its own clock"
            )]
            let left = time_left(deadline, Instant::now()).ok_or(ReadError::TimedOut)?;
            // As the reader will have it, so that it is set once.
            let timeout = Some(left.min(QUIET_AFTER));
            if self.timeout != timeout {
                self.set_timeout(socket, timeout)?;
            }
            match self.read(socket, outbox, spares) {
                Err(ReadError::TimedOut) => {}
                result => return result,
            }
        }
    }

    pub(super) fn set_timeout(
        &mut self,
        socket: &Socket,
        timeout: Option<Duration>,
    ) -> Result<(), ReadError> {
        socket.set_read_timeout(timeout).map_err(ReadError::Io)?;
        self.timeout = timeout;
        Ok(())
    }

    /// Reads once, under the socket's read timeout.
    ///
    /// # Blocking
    /// On the socket.
    pub(super) fn read(
        &mut self,
        socket: &Socket,
        outbox: &Arc<Outbox>,
        spares: &Spares,
    ) -> Result<(), ReadError> {
        if self.ended {
            Err(ReadError::Closed)
        } else if outbox.is_plain() {
            self.read_plain(socket, spares)
        } else {
            self.read_layered(socket, outbox, spares)
        }
    }

    #[inline(never)]
    fn read_plain(&mut self, socket: &Socket, spares: &Spares) -> Result<(), ReadError> {
        if self.more && self.read_on(socket, spares)? {
            return Ok(());
        }
        let mut quiet = [0; QUIET_READ_BYTES];
        // BLOCKS: on the socket until data, its read timeout or its end.
        let count = checked(socket.read(&mut quiet))?;
        self.received += count as u64;
        let quiet = quiet.get(..count).unwrap_or_default();
        if count < QUIET_READ_BYTES {
            if self.bytes.is_empty() {
                self.bytes = Vec::with_capacity(count);
            }
            self.bytes.extend_from_slice(quiet);
            return Ok(());
        }
        self.make_room(spares);
        self.bytes.extend_from_slice(quiet);
        self.read_on(socket, spares)?;
        Ok(())
    }

    /// Reads much, if there is something now, and notes whether there may be more. A connection that waits holds no buffer.
    fn read_on(&mut self, socket: &Socket, spares: &Spares) -> Result<bool, ReadError> {
        self.more = false;
        self.make_room(spares);
        let room = self.bytes.capacity() - self.bytes.len();
        match socket.try_read_into(&mut self.bytes) {
            // The next read comes to the end too, behind what was read before.
            Ok(0) => Ok(false),
            Ok(count) => {
                self.received += count as u64;
                self.more = count == room;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if self.bytes.is_empty() {
                    spares.give_buffer(std::mem::take(&mut self.bytes).into());
                }
                Ok(false)
            }
            Err(error) => Err(ReadError::Io(error)),
        }
    }

    /// Makes room for a large read: in a buffer that was used before while what is left of the last one is little.
    fn make_room(&mut self, spares: &Spares) {
        if self.bytes.capacity() - self.bytes.len() >= BUSY_READ_BYTES {
            return;
        }
        if self.bytes.len() + BUSY_READ_BYTES > BUFFER_BYTES {
            self.bytes.reserve(BUSY_READ_BYTES);
            return;
        }
        let mut large = spares.buffer();
        large.extend_from_slice(&self.bytes);
        self.bytes = large;
    }

    /// Reads through TLS and WebSocket. One read of the socket may bring nothing for us.
    #[inline(never)]
    fn read_layered(
        &mut self,
        socket: &Socket,
        outbox: &Arc<Outbox>,
        spares: &Spares,
    ) -> Result<(), ReadError> {
        let mut plain = BytesMut::new();
        let mut received = Received::Open;
        if self.more {
            self.more = false;
            let mut raw = spares.buffer();
            match socket.try_read_into(&mut raw) {
                Ok(count) if count > 0 => {
                    self.more = raw.len() == raw.capacity();
                    received = outbox.receive(&raw, &mut plain).map_err(ReadError::Net)?;
                }
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    return Err(ReadError::Io(error));
                }
                _ => {}
            }
            spares.give_buffer(raw.into());
        }
        if plain.is_empty() && received == Received::Open {
            let mut quiet = [0; QUIET_READ_BYTES];
            // BLOCKS: on the socket until data, its read timeout or its end.
            let count = checked(socket.read(&mut quiet))?;
            self.more = count == QUIET_READ_BYTES;
            received = outbox
                .receive(quiet.get(..count).unwrap_or_default(), &mut plain)
                .map_err(ReadError::Net)?;
        }
        let is_empty = plain.is_empty();
        self.received += plain.len() as u64;
        if self.bytes.is_empty() && plain.len() >= BUSY_READ_BYTES / 16 {
            self.bytes = plain.into();
        } else {
            self.bytes.extend_from_slice(&plain);
        }
        self.ended = received == Received::Closed;
        if self.ended && is_empty {
            Err(ReadError::Closed)
        } else {
            Ok(())
        }
    }
}

fn checked(result: std::io::Result<usize>) -> Result<usize, ReadError> {
    use std::io::ErrorKind;
    match result {
        Ok(0) => Err(ReadError::Closed),
        Ok(count) => Ok(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(ReadError::TimedOut)
        }
        Err(error) => Err(ReadError::Io(error)),
    }
}

/// After the goodbye: reads on until the client has closed too, so that it does not lose what it was told.
///
/// # Blocking
/// Until then; the outbox ends it after some seconds.
#[inline(never)]
pub(super) fn linger(socket: &Socket) {
    if socket.set_read_timeout(Some(LINGER)).is_ok() {
        socket.discard_until_end();
    }
}

/// The time left until `deadline`, `None` when it has passed.
pub(super) fn time_left(deadline: Instant, now: Instant) -> Option<Duration> {
    deadline
        .checked_duration_since(now)
        .filter(|left| !left.is_zero())
}
