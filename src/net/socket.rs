//! One connected socket, TCP or Unix, and who is at its other end.
//!
//! Sockets are blocking. What must not block says so in its name: [`Socket::try_write`] sends with `MSG_DONTWAIT`, so that one thread can
//! write at once while another one is parked in [`Socket::read`].

use std::fmt;
use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, sockopt};

/// A connected stream socket. Every call takes `&self`: one thread may read while others write.
#[derive(Debug)]
pub struct Socket {
    stream: Arc<Stream>,
    peer: PeerAddress,
}

/// Shuts a [`Socket`] down from elsewhere. It costs no file descriptor and does not keep the socket open.
#[derive(Debug, Clone)]
pub struct Closer(Weak<Stream>);

impl Closer {
    /// As [`Socket::shutdown`]; nothing when the socket is closed already.
    pub fn shutdown(&self) {
        if let Some(stream) = self.0.upgrade() {
            stream.shut(Shutdown::Both);
        }
    }

    /// Whether the socket is still open on this side.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Who is at the other end: `ip:port`, `unix`, or `mem:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An IP address and port. An IPv4 address seen through an IPv6 socket is written as IPv4.
    Ip(SocketAddr),
    /// A process on this machine that connected to a Unix socket.
    Unix,
    /// This process, by the name of the listener.
    Mem(Arc<str>),
}

/// The system's own probes of a silent TCP connection: a peer that vanished is noticed without any traffic of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepAlive {
    /// Silence before the first probe: whole seconds, 1 to 32,767; zero = no probes. Default 60 s.
    pub idle: Duration,
    /// Time between probes: whole seconds, 1 to 32,767. Default 10 s.
    pub interval: Duration,
    /// Probes without an answer until the connection is given up, 1 to 127. Default 6.
    pub probes: u32,
}

impl Default for TcpKeepAlive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            probes: 6,
        }
    }
}

impl TcpKeepAlive {
    fn set(self, stream: impl AsFd) -> io::Result<()> {
        let stream = stream.as_fd();
        let on = !self.idle.is_zero();
        sockopt::set_socket_keepalive(stream, on)?;
        if on {
            sockopt::set_tcp_keepidle(stream, self.idle)?;
            sockopt::set_tcp_keepintvl(stream, self.interval)?;
            sockopt::set_tcp_keepcnt(stream, self.probes)?;
        }
        Ok(())
    }
}

impl Socket {
    /// Takes over a TCP connection: no Nagle delay, keep-alive probes after 60 s, then 6 of them every 10 s.
    ///
    /// # Errors
    /// The system refuses an option; the connection is usually gone already.
    pub fn tcp(stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        TcpKeepAlive::default().set(&stream)?;
        Ok(Self {
            stream: Arc::new(Stream::Tcp(stream)),
            peer: peer.into(),
        })
    }

    /// Takes over a connection accepted by a listener that was prepared (`prepare_listener`): it has these options already.
    #[must_use]
    pub fn accepted(stream: TcpStream, peer: SocketAddr) -> Self {
        Self {
            stream: Arc::new(Stream::Tcp(stream)),
            peer: peer.into(),
        }
    }

    /// Sets when the system asks a silent TCP peer whether it is still there. Does nothing for other sockets.
    ///
    /// # Errors
    /// The system refuses an option; the connection is usually gone already.
    pub fn set_tcp_keep_alive(&self, keep_alive: TcpKeepAlive) -> io::Result<()> {
        match &*self.stream {
            Stream::Tcp(stream) => keep_alive.set(stream),
            Stream::Unix(_) => Ok(()),
        }
    }

    /// Takes over a connection on a Unix socket, or one end of a pair inside the process.
    #[must_use]
    pub fn unix(stream: UnixStream, peer: PeerAddress) -> Self {
        Self {
            stream: Arc::new(Stream::Unix(stream)),
            peer,
        }
    }

    /// Two sockets connected to each other, named `mem:name`.
    ///
    /// # Errors
    /// The system has no file descriptors left.
    pub fn pair(name: &str) -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        let peer = PeerAddress::Mem(name.into());
        Ok((Self::unix(one, peer.clone()), Self::unix(other, peer)))
    }

    /// Who is at the other end of this socket. Behind a proxy that is the proxy.
    #[must_use]
    pub fn peer(&self) -> &PeerAddress {
        &self.peer
    }

    /// Reads what is there, at least one byte. 0: the peer will send nothing more, or the socket was shut down.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when nothing came within the read timeout; else what the system says.
    ///
    /// # Blocking
    /// Until a byte arrives or the read timeout is over.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match &*self.stream {
                Stream::Tcp(stream) => (&*stream).read(buffer),
                Stream::Unix(stream) => (&*stream).read(buffer),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                result => return result,
            }
        }
    }

    /// As [`read`](Self::read), into the spare capacity of `buffer`, which is not grown.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Blocking
    /// As [`read`](Self::read).
    pub fn read_into(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let result = rustix::io::retry_on_intr(|| rustix::io::read(self, spare_capacity(buffer)));
        match result {
            Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
            result => Ok(result?),
        }
    }

    /// As [`read_into`](Self::read_into), without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there; else what the system says.
    pub fn try_read_into(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let (count, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(self, spare_capacity(buffer), RecvFlags::DONTWAIT)
        })?;
        Ok(count)
    }

    /// Whether the peer will send nothing more than it has sent, or the connection is broken. Nothing is read.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        let mut sockets = [PollFd::new(self, PollFlags::RDHUP)];
        let count = rustix::event::poll(&mut sockets, Some(&Timespec::default()));
        count.is_ok_and(|count| count > 0)
    }

    /// As [`read`](Self::read), without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there; else what the system says.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT)
        })?;
        Ok(count)
    }

    /// Reads until the peer closes or the socket is shut down, and forgets what it read.
    ///
    /// # Blocking
    /// Until that end, or until nothing came within the read timeout.
    pub fn discard_until_end(&self) {
        let mut buffer = [0; 4096];
        while self.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }

    /// Hands to the kernel what it takes of `bytes` without waiting; that may be less than all.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing now; else what the system says.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes, SendFlags::DONTWAIT)
    }

    /// As [`try_write`](Self::try_write), from several slices in one call. The kernel takes 1,024 of them at most.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_vectored(slices, SendFlags::DONTWAIT)
    }

    /// Writes some of `slices`, at least one byte.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the peer took nothing within the write timeout; else what the system says.
    ///
    /// # Blocking
    /// Until the peer makes room or the write timeout is over.
    pub fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.send_vectored(slices, SendFlags::empty()) {
            // The kernel wakes a sender only when a third of the buffer is free. A slow peer has made less room in that time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match self.try_write_vectored(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        Err(io::ErrorKind::TimedOut.into())
                    }
                    result => result,
                }
            }
            result => result,
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`write_vectored`](Self::write_vectored); some of the bytes may have left.
    ///
    /// # Blocking
    /// Until the last byte is with the kernel; the write timeout applies to each piece that it takes.
    pub fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.write_vectored(&[IoSlice::new(bytes)])?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Has TCP acknowledge now what was read, instead of with the next bytes sent or after 40 ms. Nothing on a Unix socket.
    ///
    /// A peer with Nagle's algorithm holds a small write back until the one before it is acknowledged.
    pub fn acknowledge(&self) {
        if let Stream::Tcp(stream) = &*self.stream {
            // One that is gone has nothing to acknowledge.
            let _ = sockopt::set_tcp_quickack(stream, true);
        }
    }

    /// How long [`read`](Self::read) waits; `None` (the default) is for ever. Zero counts as one millisecond.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| timeout.max(SHORTEST_TIMEOUT));
        match &*self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// How long a write waits for the peer to take something; `None` (the default) is for ever. Zero counts as one millisecond.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| timeout.max(SHORTEST_TIMEOUT));
        match &*self.stream {
            Stream::Tcp(stream) => stream.set_write_timeout(timeout),
            Stream::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Ends both directions now. Who is parked in [`read`](Self::read) gets what had arrived, then 0; who writes gets an error.
    ///
    /// A socket that is not connected any more is left as it is.
    pub fn shutdown(&self) {
        self.stream.shut(Shutdown::Both);
    }

    /// Tells the peer that nothing more will come; reading goes on.
    pub fn shutdown_write(&self) {
        self.stream.shut(Shutdown::Write);
    }

    /// A handle that can shut this socket down while it is in use elsewhere.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.stream))
    }

    fn send(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::net::send(self, bytes, flags | SendFlags::NOSIGNAL)
        })?)
    }

    fn send_vectored(&self, slices: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
        let flags = flags | SendFlags::NOSIGNAL;
        let mut control = SendAncillaryBuffer::default();
        Ok(rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(self, slices, &mut control, flags)
        })?)
    }
}

/// Gives a listening socket the options of [`Socket::tcp`]. Linux and the BSDs hand them on to what is accepted: five system
/// calls less for each connection.
///
/// # Errors
/// The system refuses an option.
pub(super) fn prepare_listener(listener: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&listener, true)?;
    TcpKeepAlive::default().set(&listener)
}

impl Stream {
    fn shut(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl PeerAddress {
    /// The IP address, if there is one.
    #[must_use]
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix | Self::Mem(_) => None,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Mem(name) => write!(f, "mem:{name}"),
        }
    }
}

/// The system takes a timeout of zero for none at all.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_writes_the_other_reads() {
        let (one, other) = Socket::pair("test").unwrap();
        assert_eq!(
            one.try_write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"c")])
                .unwrap(),
            3
        );
        one.write_all(b"de").unwrap();
        one.shutdown_write();
        let mut read = Vec::new();
        let mut buffer = [0; 2];
        loop {
            match other.read(&mut buffer).unwrap() {
                0 => break,
                length => read.extend_from_slice(&buffer[..length]),
            }
        }
        assert_eq!(read, b"abcde");
        other.write_all(b"f").unwrap();
        assert_eq!(one.read(&mut buffer).unwrap(), 1);
    }

    #[test]
    fn a_tcp_socket_is_probed_as_it_was_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let socket = Socket::tcp(stream.try_clone().unwrap(), address).unwrap();
        let options = || TcpKeepAlive {
            idle: match sockopt::socket_keepalive(&stream).unwrap() {
                true => sockopt::tcp_keepidle(&stream).unwrap(),
                false => Duration::ZERO,
            },
            interval: sockopt::tcp_keepintvl(&stream).unwrap(),
            probes: sockopt::tcp_keepcnt(&stream).unwrap(),
        };
        assert_eq!(options(), TcpKeepAlive::default());
        let wanted = TcpKeepAlive {
            idle: Duration::from_secs(7),
            interval: Duration::from_secs(3),
            probes: 2,
        };
        socket.set_tcp_keep_alive(wanted).unwrap();
        assert_eq!(options(), wanted);
        let off = TcpKeepAlive {
            idle: Duration::ZERO,
            ..wanted
        };
        socket.set_tcp_keep_alive(off).unwrap();
        assert_eq!(options(), off);
        let (mem, _other) = Socket::pair("test").unwrap();
        mem.set_tcp_keep_alive(wanted).unwrap();
    }

    #[test]
    fn a_full_socket_does_not_block_a_try() {
        let (one, _other) = Socket::pair("test").unwrap();
        let bytes = [0; 65_536];
        let error = loop {
            if let Err(error) = one.try_write(&bytes) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        one.set_write_timeout(Some(Duration::ZERO)).unwrap();
        assert_eq!(
            one.write_all(&bytes).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[test]
    fn a_read_timeout_is_told_as_such() {
        let (one, _other) = Socket::pair("test").unwrap();
        one.set_read_timeout(Some(Duration::ZERO)).unwrap();
        assert_eq!(
            one.read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[test]
    fn writing_to_a_socket_that_was_shut_down_is_an_error_not_a_signal() {
        let (one, other) = Socket::pair("test").unwrap();
        drop(other);
        assert_eq!(
            one.try_write(b"x").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        one.shutdown();
        assert_eq!(one.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn addresses_are_written_as_people_know_them() {
        assert_eq!(PeerAddress::Unix.to_string(), "unix");
        assert_eq!(PeerAddress::Mem("a".into()).to_string(), "mem:a");
        assert_eq!(
            PeerAddress::Ip("[::1]:1883".parse().unwrap()).to_string(),
            "[::1]:1883"
        );
    }
}
