//! Waiting for connections on a TCP port, a Unix socket or a name inside the process.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::{Condvar, Mutex};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::error::NetError;
use super::mem;
use super::socket::{PeerAddress, Socket, prepare_listener};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    /// A TCP port.
    Tcp {
        /// An address, or a name, of which the first IPv4 address is taken, else the first one. `None`: every address, IPv6 as well as IPv4.
        host: Option<String>,
        /// 0: one that the system chooses; [`Listener::local_address`] says which.
        port: u16,
    },
    /// A path. A socket file that nobody listens on any more is replaced.
    Unix(PathBuf),
    /// A name for `mem://name`.
    Mem(String),
}

impl BindAddress {
    /// Reads `host:port`, `[v6]:port`, `:port`, `port`, `host` or `[v6]`.
    ///
    /// # Errors
    /// [`NetError::Bind`] names the text and what is wrong with it.
    pub fn tcp(text: &str, default_port: u16) -> Result<Self, NetError> {
        let invalid = |why: &'static str| {
            NetError::bind(text, io::Error::new(io::ErrorKind::InvalidInput, why))
        };
        let port = |port: &str| {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            digits
                .then(|| port.parse().ok())
                .flatten()
                .ok_or_else(|| invalid("the port is no number from 0 to 65535"))
        };
        let some = |host: &str| Some(host.to_owned());
        if let Some(bracketed) = text.strip_prefix('[') {
            let (host, after) = bracketed
                .split_once(']')
                .ok_or_else(|| invalid("the bracket is not closed"))?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| invalid("no IPv6 address in the brackets"))?;
            return match after.strip_prefix(':') {
                Some(after) => Ok(Self::Tcp {
                    host: some(host),
                    port: port(after)?,
                }),
                None if after.is_empty() => Ok(Self::Tcp {
                    host: some(host),
                    port: default_port,
                }),
                None => Err(invalid("expected ':' and a port after the bracket")),
            };
        }
        if text.is_empty() {
            return Err(invalid("expected host:port"));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Tcp {
                host: None,
                port: port(text)?,
            });
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self::Tcp {
                host: some(text),
                port: default_port,
            });
        }
        match text.split_once(':') {
            None => Ok(Self::Tcp {
                host: some(text),
                port: default_port,
            }),
            Some((_, after)) if after.contains(':') => Err(invalid(
                "an IPv6 address with a port stands in brackets: [::1]:1883",
            )),
            Some(("" | "*", after)) => Ok(Self::Tcp {
                host: None,
                port: port(after)?,
            }),
            Some((host, after)) => Ok(Self::Tcp {
                host: some(host),
                port: port(after)?,
            }),
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                host: Some(host),
                port,
            } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{}:{port}", host.as_deref().unwrap_or_default()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Mem(name) => write!(f, "mem:{name}"),
        }
    }
}

/// Where a listener listens: `ip:port`, `unix:path` or `mem:name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAddress {
    /// The address and the port that was chosen.
    Ip(SocketAddr),
    /// The socket's path.
    Unix(PathBuf),
    /// The name of `mem://name`.
    Mem(String),
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Mem(name) => write!(f, "mem:{name}"),
        }
    }
}

/// A place where connections arrive. Dropping it stops it; a Unix socket's file is removed.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: LocalAddress,
    stopped: Mutex<bool>,
    stopping: Condvar,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix { listener: UnixListener, inode: u64 },
    Mem(Receiver<Socket>),
}

impl Listener {
    /// Starts to listen on `address`.
    ///
    /// # Errors
    /// [`NetError::Bind`]: the name has no address, the address is taken or not ours, or the process may not use it.
    ///
    /// # Blocking
    /// While a host name is looked up; not with an IP address.
    pub fn bind(address: &BindAddress) -> Result<Self, NetError> {
        let bound = match address {
            BindAddress::Tcp { host, port } => bind_tcp(host.as_deref(), *port),
            BindAddress::Unix(path) => bind_unix(path),
            BindAddress::Mem(name) => {
                mem::register(name).map(|queue| (Kind::Mem(queue), LocalAddress::Mem(name.clone())))
            }
        };
        let (kind, address) = bound.map_err(|error| NetError::bind(address.to_string(), error))?;
        Ok(Self {
            kind,
            address,
            stopped: Mutex::new(false),
            stopping: Condvar::new(),
        })
    }

    /// Where this listens, with the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    /// Its IP address and port, for a TCP listener.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self.address {
            LocalAddress::Ip(address) => Some(address),
            LocalAddress::Unix(_) | LocalAddress::Mem(_) => None,
        }
    }

    /// Waits for the next connection.
    ///
    /// When the process has no file descriptors or memory left it waits and tries again: 50 ms at first, up to a second. One log line says
    /// so. Connections that died in the queue are skipped.
    ///
    /// # Errors
    /// [`NetError::Stopped`] after [`stop`](Self::stop); [`NetError::Io`] when the listening socket itself is broken.
    ///
    /// # Blocking
    /// Until a connection arrives or the listener is stopped.
    pub fn accept(&self) -> Result<Socket, NetError> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let accepted = self.accept_once();
            if *self.stopped.lock() {
                return Err(NetError::Stopped);
            }
            let error = match accepted {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            };
            match Trouble::of(&error) {
                Trouble::OneConnection => log::debug!(
                    "{}: a connection died before it was accepted: {error}",
                    self.address
                ),
                Trouble::Exhausted => {
                    if pause == SHORTEST_PAUSE {
                        log::warn!(
                            "{}: cannot accept connections for now: {error}",
                            self.address
                        );
                    }
                    self.wait(pause)?;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Trouble::Broken => return Err(error.into()),
            }
        }
    }

    /// Stops listening and wakes whoever waits in [`accept`](Self::accept). Connections in the queue are reset. Never blocks.
    pub fn stop(&self) {
        if std::mem::replace(&mut *self.stopped.lock(), true) {
            return;
        }
        self.stopping.notify_all();
        match (&self.kind, &self.address) {
            (Kind::Tcp(listener), _) => wake(listener),
            (Kind::Unix { listener, inode }, LocalAddress::Unix(path)) => {
                wake(listener);
                remove_socket_file(path, *inode);
            }
            (Kind::Mem(_), LocalAddress::Mem(name)) => mem::remove(name),
            _ => {}
        }
    }

    // BLOCKS: until a connection arrives or the listening socket is shut down.
    fn accept_once(&self) -> io::Result<Socket> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok(Socket::accepted(stream, peer))
            }
            Kind::Unix { listener, .. } => {
                Ok(Socket::unix(listener.accept()?.0, PeerAddress::Unix))
            }
            Kind::Mem(queue) => queue.recv().map_err(|_| io::ErrorKind::NotConnected.into()),
        }
    }

    // BLOCKS: until the listener is stopped, at most for `pause`.
    fn wait(&self, pause: Duration) -> Result<(), NetError> {
        let mut stopped = self.stopped.lock();
        self.stopping
            .wait_while_for(&mut stopped, |stopped| !*stopped, pause);
        if *stopped {
            Err(NetError::Stopped)
        } else {
            Ok(())
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an error of accept(2) is about.
enum Trouble {
    OneConnection,
    Exhausted,
    Broken,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Self::Exhausted,
            // accept(2): Linux passes pending network errors of the new connection; they are to be treated like EAGAIN.
            Some(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::AGAIN
                | Errno::PERM
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::TIMEDOUT,
            ) => Self::OneConnection,
            None if error.kind() == io::ErrorKind::ConnectionAborted => Self::OneConnection,
            _ => Self::Broken,
        }
    }
}

fn bind_tcp(host: Option<&str>, port: u16) -> io::Result<(Kind, LocalAddress)> {
    let listener = match host {
        Some(host) => listen_tcp(resolve(host, port)?)?,
        // Without IPv6 on the machine, IPv4 it is.
        None => listen_tcp((Ipv6Addr::UNSPECIFIED, port).into())
            .or_else(|_| listen_tcp((Ipv4Addr::UNSPECIFIED, port).into()))?,
    };
    let address = listener.local_addr()?;
    Ok((Kind::Tcp(listener), LocalAddress::Ip(address)))
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    let first_ipv4 = addresses.iter().find(|address| address.is_ipv4());
    first_ipv4
        .or_else(|| addresses.first())
        .copied()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&socket, &address)?;
    prepare_listener(&socket)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<(Kind, LocalAddress)> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        result => result?,
    };
    let inode = fs::symlink_metadata(path)?.ino();
    Ok((
        Kind::Unix { listener, inode },
        LocalAddress::Unix(path.to_owned()),
    ))
}

/// A socket file outlives a process that was killed.
fn is_abandoned(path: &Path) -> bool {
    let is_socket =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Another process may have put its own socket in our place.
fn remove_socket_file(path: &Path, inode: u64) {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == inode) {
        let _ = fs::remove_file(path);
    }
}

/// Linux ends a blocked accept(2) with EINVAL when the listening socket is shut down; it needs no descriptor for that.
fn wake(listener: impl std::os::fd::AsFd) {
    let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
}

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
