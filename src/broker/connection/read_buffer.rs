//! Reading from a connection's socket: small while it is quiet, large while data flows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::net::error::NetError;
use crate::net::socket::Socket;
use crate::net::transport::Received;
use crate::outbox::Outbox;
use crate::proto::{DecodeError, ProtocolError};

/// What is read at once while a connection is quiet: on the stack, so that an idle connection holds no buffer.
const QUIET_READ_BYTES: usize = 1024;
/// What is read at once while data flows.
const BUSY_READ_BYTES: usize = 64 * 1024;
/// How long a client that was told goodbye may go on before it is cut off.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes read and not yet decoded.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    pub(super) bytes: Vec<u8>,
    /// The last read filled what it was given: there is more.
    busy: bool,
    /// TLS or WebSocket said goodbye behind the last bytes.
    ended: bool,
    pub(super) received: u64,
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

    pub(super) fn into_rest(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads once, waiting until `deadline` at most.
    ///
    /// # Blocking
    /// On the socket.
    pub(super) fn read_until(
        &mut self,
        socket: &Socket,
        outbox: &Arc<Outbox>,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the thread of the connection reads its own clock"
        )]
        let left = time_left(deadline, Instant::now()).ok_or(ReadError::TimedOut)?;
        socket.set_read_timeout(Some(left)).map_err(ReadError::Io)?;
        self.read(socket, outbox)
    }

    /// Reads once, under the socket's read timeout.
    ///
    /// # Blocking
    /// On the socket.
    pub(super) fn read(&mut self, socket: &Socket, outbox: &Arc<Outbox>) -> Result<(), ReadError> {
        if self.ended {
            Err(ReadError::Closed)
        } else if outbox.is_plain() {
            self.read_plain(socket)
        } else {
            self.read_layered(socket, outbox)
        }
    }

    #[inline(never)]
    fn read_plain(&mut self, socket: &Socket) -> Result<(), ReadError> {
        if self.busy {
            self.bytes.reserve(BUSY_READ_BYTES);
            let room = self.bytes.capacity() - self.bytes.len();
            // BLOCKS: on the socket until data, its read timeout or its end.
            let count = checked(socket.read_into(&mut self.bytes))?;
            self.busy = count * 4 >= room.min(BUSY_READ_BYTES);
            self.received += count as u64;
            return Ok(());
        }
        let mut quiet = [0; QUIET_READ_BYTES];
        // BLOCKS: on the socket until data, its read timeout or its end.
        let count = checked(socket.read(&mut quiet))?;
        self.busy = count == QUIET_READ_BYTES;
        self.received += count as u64;
        if self.bytes.is_empty() {
            self.bytes = Vec::with_capacity(count);
        }
        self.bytes
            .extend_from_slice(quiet.get(..count).unwrap_or_default());
        Ok(())
    }

    /// Reads through TLS and WebSocket. One read of the socket may bring nothing for us.
    #[inline(never)]
    fn read_layered(&mut self, socket: &Socket, outbox: &Arc<Outbox>) -> Result<(), ReadError> {
        let mut quiet = [0; QUIET_READ_BYTES];
        let mut large = if self.busy {
            vec![0; BUSY_READ_BYTES / 4]
        } else {
            Vec::new()
        };
        let raw = if self.busy {
            large.as_mut_slice()
        } else {
            quiet.as_mut_slice()
        };
        // BLOCKS: on the socket until data, its read timeout or its end.
        let count = checked(socket.read(raw))?;
        self.busy = count * 4 >= raw.len();
        let mut plain = BytesMut::new();
        let received = outbox
            .receive(raw.get(..count).unwrap_or_default(), &mut plain)
            .map_err(ReadError::Net)?;
        self.received += plain.len() as u64;
        self.bytes.extend_from_slice(&plain);
        self.ended = received == Received::Closed;
        if self.ended && plain.is_empty() {
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
