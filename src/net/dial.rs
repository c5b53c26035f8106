//! Outgoing connections: resolve the name, try each address, speak the layers, all under one deadline.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::error::{AddressError, ConnectError, NetError, Phase};
use super::handshake::Handshake;
use super::mem;
use super::socket::{PeerAddress, Socket};
use super::socks::Proxy;
use super::tls::{ClientTls, ClientTlsOptions};
use super::transport::{self, Layers};
use super::upgrade;
use super::url::{Address, Endpoint};
use super::websocket::MAX_MESSAGE_BYTES;
use crate::thread::Pool;

/// How to connect.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// For everything together, from the name's look-up to the last handshake. Default 10 s.
    pub connect_timeout: Duration,
    /// The local address that the connection comes from. Default: the system chooses. TCP only.
    pub bind: Option<IpAddr>,
    /// The SOCKS proxy to go through, which also looks up the host's name. Default: none. TCP only.
    pub proxy: Option<Proxy>,
    /// For `mqtts` and `wss`. Default: the system's roots, everything verified.
    pub tls: Option<ClientTls>,
    /// HTTP headers to add to the WebSocket upgrade. Those that the upgrade itself needs are refused. Default: none.
    pub extra_headers: Vec<(String, String)>,
    /// The largest WebSocket message to accept, in bytes. Default 4 MiB; set it no lower than the largest MQTT packet.
    pub max_message_bytes: usize,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            bind: None,
            proxy: None,
            tls: None,
            extra_headers: Vec::new(),
            max_message_bytes: MAX_MESSAGE_BYTES,
        }
    }
}

/// A connection on which MQTT can begin.
#[derive(Debug)]
pub struct Dialled {
    /// The socket, without timeouts.
    pub socket: Socket,
    /// What is spoken on it below MQTT.
    pub layers: Layers,
    /// Plain bytes that arrived together with the end of a handshake. They come before what is read next.
    pub early: Vec<u8>,
}

/// Connects to `endpoint`.
///
/// Each address of a host gets an equal share of the time that is left, so that a dead one does not use it up.
///
/// # Errors
/// [`NetError::Resolve`]: the name has no address. [`NetError::Connect`]: no address accepts; it names what was tried.
/// [`NetError::Proxy`]: the proxy does not connect. [`NetError::Timeout`] and [`NetError::Closed`] with the phase. [`NetError::Tls`] and [`NetError::WebSocket`]: what either side of the
/// handshake does not like.
///
/// # Blocking
/// Until connected, at most `connect_timeout`; beyond that only while the system's root certificates are read.
pub fn dial(endpoint: &Endpoint, options: &DialOptions) -> Result<Dialled, NetError> {
    let deadline = transport::deadline_in(options.connect_timeout);
    let tls = match (endpoint.tls, &options.tls) {
        (false, _) => None,
        (true, Some(tls)) => Some(tls.connect(endpoint.host())?),
        (true, None) => {
            Some(ClientTls::new(&ClientTlsOptions::default())?.connect(endpoint.host())?)
        }
    };
    let question = match endpoint.websocket {
        true => Some(upgrade::ask(
            &http_host(endpoint),
            &endpoint.path,
            &options.extra_headers,
        )?),
        false => None,
    };
    let socket = connect(&endpoint.address, options, deadline)?;
    if tls.is_none() && question.is_none() {
        return Ok(Dialled {
            socket,
            layers: Layers::plain(),
            early: Vec::new(),
        });
    }
    let mut handshake = Handshake::new(&socket, deadline);
    if let Some(tls) = tls {
        handshake.tls(tls)?;
    }
    if let Some(question) = question {
        handshake.ask_for_websocket(&question, options.max_message_bytes)?;
    }
    let (layers, early) = handshake.finish()?;
    Ok(Dialled {
        socket,
        layers,
        early,
    })
}

/// The host as HTTP wants it: without the port that the scheme has anyway.
fn http_host(endpoint: &Endpoint) -> String {
    match &endpoint.address {
        Address::Tcp { host, port } if *port != if endpoint.tls { 443 } else { 80 } => {
            Address::Tcp {
                host: host.clone(),
                port: *port,
            }
            .to_string()
        }
        Address::Tcp { host, .. } if host.contains(':') => format!("[{host}]"),
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix(_) | Address::Mem(_) => "localhost".to_owned(),
    }
}

fn connect(
    address: &Address,
    options: &DialOptions,
    deadline: Instant,
) -> Result<Socket, NetError> {
    match (address, &options.proxy) {
        (Address::Tcp { host, port }, Some(proxy)) => {
            let socket = connect_tcp(proxy.host(), proxy.port(), options.bind, deadline)?;
            proxy.ask(&socket, host, *port, deadline)?;
            Ok(socket)
        }
        (Address::Tcp { host, port }, None) => connect_tcp(host, *port, options.bind, deadline),
        (Address::Unix(path), _) => UnixStream::connect(path)
            .map(|stream| Socket::unix(stream, PeerAddress::Unix))
            .map_err(|error| refused(path.display().to_string(), error)),
        (Address::Mem(name), _) => {
            mem::connect(name, deadline).map_err(|error| refused(format!("mem://{name}"), error))
        }
    }
}

fn refused(target: String, error: io::Error) -> NetError {
    let tried = vec![AddressError {
        address: target.clone(),
        error,
    }];
    NetError::Connect(Box::new(ConnectError { target, tried }))
}

fn connect_tcp(
    host: &str,
    port: u16,
    bind: Option<IpAddr>,
    deadline: Instant,
) -> Result<Socket, NetError> {
    let addresses = resolve(host, port, deadline)?;
    let mut tried = Vec::new();
    for (index, &address) in addresses.iter().enumerate() {
        if bind.is_some_and(|bind| bind.is_ipv4() != address.is_ipv4()) {
            continue;
        }
        let Some(left) = transport::time_left(deadline) else {
            break;
        };
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match connect_address(address, bind, share).and_then(|stream| Socket::tcp(stream, address))
        {
            Ok(socket) => return Ok(socket),
            Err(error) => tried.push(AddressError {
                address: address.to_string(),
                error,
            }),
        }
    }
    let target = Address::Tcp {
        host: host.to_owned(),
        port,
    }
    .to_string();
    Err(NetError::Connect(Box::new(ConnectError { target, tried })))
}

/// The system's resolver knows no deadline, so it is asked on another thread, which is left to itself when it takes too long.
fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, NetError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (answer, answered) = crossbeam_channel::bounded(1);
    let target = (host.to_owned(), port);
    Pool::shared().run("resolve", move || {
        let addresses = target.to_socket_addrs().map(Vec::from_iter);
        let _ = answer.send(addresses);
    })?;
    match answered.recv_deadline(deadline) {
        Ok(Ok(addresses)) if addresses.is_empty() => {
            Err(NetError::resolve(host, io::ErrorKind::NotFound.into()))
        }
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(NetError::resolve(host, error)),
        Err(_) => Err(NetError::Timeout(Phase::Resolve)),
    }
}

// BLOCKS: until the peer answers, at most `patience`.
fn connect_address(
    address: SocketAddr,
    bind: Option<IpAddr>,
    patience: Duration,
) -> io::Result<TcpStream> {
    let Some(bind) = bind else {
        return TcpStream::connect_timeout(&address, patience);
    };
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(bind, 0))?;
    // Linux applies the send timeout to connect(2) as well.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    match rustix::net::connect(&socket, &address) {
        Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::AGAIN) => {
            return Err(io::ErrorKind::TimedOut.into());
        }
        result => result?,
    }
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)?;
    Ok(socket.into())
}
