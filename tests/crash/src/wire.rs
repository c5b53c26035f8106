//! One connection to a broker: packets in and out, and how it ended.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::clock::now;
use crate::fault::Fault;
use crate::frames::{self, Connect, Packet, Version};

/// How long anything may take before it counts as never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection. It is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    version: Version,
    buffer: Vec<u8>,
    start: usize,
    read_timeout: Duration,
}

/// What CONNACK said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connack {
    pub(crate) present: bool,
    pub(crate) code: u8,
}

impl Wire {
    /// Connects without CONNECT.
    pub(crate) fn open(address: SocketAddr, version: Version) -> Result<Self, Fault> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(lost)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            version,
            buffer: Vec::new(),
            start: 0,
            read_timeout: PATIENCE,
        })
    }

    /// Connects, and waits for CONNACK.
    pub(crate) fn connect(
        address: SocketAddr,
        connect: &Connect<'_>,
    ) -> Result<(Self, Connack), Fault> {
        let mut wire = Self::open(address, connect.version)?;
        wire.send(&connect.frame())?;
        match wire.expect("CONNACK")? {
            Packet::Connack { present, code } => Ok((wire, Connack { present, code })),
            other => Err(Fault::Wrong(format!("{other:?} instead of CONNACK"))),
        }
    }

    /// As [`connect`](Self::connect); a refusal is an error.
    pub(crate) fn accepted(
        address: SocketAddr,
        connect: &Connect<'_>,
    ) -> Result<(Self, bool), Fault> {
        let (wire, connack) = Self::connect(address, connect)?;
        match connack {
            Connack { present, code: 0 } => Ok((wire, present)),
            // Server unavailable, server shutting down: it is being ended.
            Connack {
                code: 3 | 0x88 | 0x8b,
                ..
            } => Err(Fault::Lost("the broker refused the connection".to_owned())),
            Connack { code, .. } => Err(Fault::Wrong(format!(
                "{} was refused with {code:#04x}",
                connect.client_id
            ))),
        }
    }

    /// Writes all of `bytes`.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).map_err(lost)
    }

    /// The next packet; `None` if none comes in time. A time of zero takes only what was read already.
    pub(crate) fn next(&mut self, within: Duration) -> Result<Option<Packet>, Fault> {
        let mut deadline = None;
        loop {
            let waiting = self.buffer.get(self.start..).unwrap_or_default();
            match frames::next(waiting, self.version) {
                Err(malformed) => return Err(Fault::Wrong(malformed.to_string())),
                Ok(Some((packet, length))) => {
                    self.start += length;
                    return Ok(Some(packet));
                }
                Ok(None) => {}
            }
            if within.is_zero() {
                return Ok(None);
            }
            let at = *deadline.get_or_insert_with(|| now() + within);
            if !self.read(at)? {
                return Ok(None);
            }
        }
    }

    /// The next packet, which has to come.
    pub(crate) fn expect(&mut self, what: &str) -> Result<Packet, Fault> {
        let packet = self.next(PATIENCE)?;
        packet.ok_or_else(|| Fault::Wrong(format!("{what} does not come")))
    }

    /// Reads once. `false`: nothing came until the deadline.
    fn read(&mut self, deadline: Instant) -> Result<bool, Fault> {
        let left = deadline.saturating_duration_since(now());
        if left.is_zero() {
            return Ok(false);
        }
        // Changed seldom: it is a system call.
        if self.read_timeout > left || self.read_timeout * 2 < left {
            self.stream.set_read_timeout(Some(left))?;
            self.read_timeout = left;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let read = self.stream.read(&mut self.buffer[filled..]);
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Fault::Lost("the broker closed the connection".to_owned())),
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(false),
                io::ErrorKind::Interrupted => Ok(true),
                _ => Err(lost(error)),
            },
        }
    }
}

fn lost(error: io::Error) -> Fault {
    Fault::Lost(error.to_string())
}

const READ_BYTES: usize = 64 * 1024;
