//! A socket and the layers on it: what stands between MQTT's bytes and the wire.
//!
//! ```text
//!     socket ──raw──► Layers::receive ──plain──► packets ──plain──► Layers::send ──wire──► socket
//! ```
//!
//! [`Layers`] are byte filters without IO, so that the thread that reads and the one that writes can share them under a short lock.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustls::ServerConfig;

pub use super::certificate::PeerCertificate;
use super::error::{NetError, Phase};
use super::handshake::Handshake;
use super::proxy_header::{self, TrustedProxies};
use super::socket::{PeerAddress, Socket};
use super::tls::TlsLayer;
use super::websocket::{WebSocketLayer, WebSocketOptions};

/// What is spoken between the socket and MQTT.
pub struct Layers(Kind);

enum Kind {
    Plain,
    Tls(Box<TlsLayer>),
    WebSocket(Box<WebSocketLayer>),
    Both(Box<(TlsLayer, WebSocketLayer)>),
}

/// Whether more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// The peer may send more.
    Open,
    /// The peer said in TLS or WebSocket that it sends nothing more.
    Closed,
}

impl Layers {
    /// Nothing: MQTT on the socket itself.
    #[must_use]
    pub const fn plain() -> Self {
        Self(Kind::Plain)
    }

    pub(super) fn new(tls: Option<TlsLayer>, websocket: Option<WebSocketLayer>) -> Self {
        Self(match (tls, websocket) {
            (None, None) => Kind::Plain,
            (Some(tls), None) => Kind::Tls(Box::new(tls)),
            (None, Some(websocket)) => Kind::WebSocket(Box::new(websocket)),
            (Some(tls), Some(websocket)) => Kind::Both(Box::new((tls, websocket))),
        })
    }

    /// Whether the bytes on the wire are MQTT's own.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Kind::Plain)
    }

    /// Whether [`send`](Self::send) encrypts, and does not just copy.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        matches!(self.0, Kind::Tls(_) | Kind::Both(_))
    }

    /// Takes bytes from the socket and appends the plain ones that they complete to `plain`: never more than `raw` has.
    ///
    /// # Errors
    /// The bytes break the layer's protocol. What [`take_control`](Self::take_control) then gives tells the peer.
    pub fn receive(&mut self, raw: &[u8], plain: &mut BytesMut) -> Result<Received, NetError> {
        match &mut self.0 {
            Kind::Plain => {
                plain.extend_from_slice(raw);
                Ok(Received::Open)
            }
            Kind::Tls(tls) => tls.receive(raw, plain),
            Kind::WebSocket(websocket) => websocket.receive(raw, plain),
            Kind::Both(both) => {
                let (tls, websocket) = &mut **both;
                let mut frames = BytesMut::new();
                let from_tls = tls.receive(raw, &mut frames);
                let from_websocket = websocket.receive(&frames, plain)?;
                Ok(if from_tls? == Received::Closed {
                    Received::Closed
                } else {
                    from_websocket
                })
            }
        }
    }

    /// Appends to `wire` what carries the plain bytes `plain`.
    ///
    /// # Errors
    /// The layer is closed.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), NetError> {
        match &mut self.0 {
            Kind::Plain => {
                wire.extend_from_slice(plain);
                Ok(())
            }
            Kind::Tls(tls) => tls.send(plain, wire),
            Kind::WebSocket(websocket) => websocket.send(plain, wire),
            Kind::Both(both) => {
                let (tls, websocket) = &mut **both;
                let mut frames = Vec::new();
                websocket.send(plain, &mut frames)?;
                tls.send(&frames, wire)
            }
        }
    }

    /// Appends to `wire` what the layers themselves want to say: a pong, the answer to a close, a key update, an alert.
    pub fn take_control(&mut self, wire: &mut Vec<u8>) {
        match &mut self.0 {
            Kind::Plain => {}
            Kind::Tls(tls) => tls.take_control(wire),
            Kind::WebSocket(websocket) => websocket.take_control(wire),
            Kind::Both(both) => {
                let (tls, websocket) = &mut **both;
                let mut frames = Vec::new();
                websocket.take_control(&mut frames);
                // A closed TLS layer has nobody to tell.
                let _ = tls.send(&frames, wire);
                tls.take_control(wire);
            }
        }
    }

    /// Appends to `wire` the layers' goodbye. Nothing can be sent after it; a second goodbye is empty.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        match &mut self.0 {
            Kind::Plain => {}
            Kind::Tls(tls) => tls.close(wire),
            Kind::WebSocket(websocket) => websocket.close(wire),
            Kind::Both(both) => {
                let (tls, websocket) = &mut **both;
                let mut frames = Vec::new();
                websocket.close(&mut frames);
                let _ = tls.send(&frames, wire);
                tls.close(wire);
            }
        }
    }

    /// Sets the largest WebSocket message, from the next frame on. Nothing without WebSocket.
    pub fn set_max_message_bytes(&mut self, max_message_bytes: usize) {
        match &mut self.0 {
            Kind::Plain | Kind::Tls(_) => {}
            Kind::WebSocket(websocket) => websocket.set_max_message_bytes(max_message_bytes),
            Kind::Both(both) => both.1.set_max_message_bytes(max_message_bytes),
        }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Plain => "Plain",
            Kind::Tls(_) => "Tls",
            Kind::WebSocket(_) => "WebSocket",
            Kind::Both(_) => "WebSocket over Tls",
        })
    }
}

/// What a listener expects of its connections before MQTT begins. Default: nothing.
///
/// To renew certificates, replace the whole: connections that exist keep what they began with.
#[derive(Default)]
pub struct Acceptor {
    /// TLS, with this configuration; see [`server_config`](super::tls::server_config).
    pub tls: Option<Arc<ServerConfig>>,
    /// WebSocket.
    pub websocket: Option<WebSocketOptions>,
    /// A PROXY protocol header, from these addresses only.
    pub proxy: Option<TrustedProxies>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("tls", &self.tls.is_some())
            .field("websocket", &self.websocket)
            .field("proxy", &self.proxy.is_some())
            .finish()
    }
}

/// A connection on which MQTT can begin.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, without timeouts.
    pub socket: Socket,
    /// What is spoken on it below MQTT.
    pub layers: Layers,
    /// Plain bytes that arrived together with the end of a handshake. They come before what is read next.
    pub early: Vec<u8>,
    /// Who connected; behind a trusted proxy the one that the proxy names.
    pub peer: PeerAddress,
    /// What the client's certificate says, if it showed one and it was verified.
    pub certificate: Option<PeerCertificate>,
}

/// Does what `acceptor` asks for: PROXY header, TLS handshake, WebSocket upgrade. A plain socket is not touched.
///
/// # Errors
/// [`NetError::Timeout`] and [`NetError::Closed`] with the phase; otherwise what the peer did wrong, which it was told if the protocol has a
/// way. The socket is closed then.
///
/// # Blocking
/// Until the last handshake is complete, at most until `deadline`.
pub fn accept(
    socket: Socket,
    acceptor: &Acceptor,
    deadline: Instant,
) -> Result<Accepted, NetError> {
    let is_proxy = |ip| acceptor.proxy.as_ref().is_some_and(|trusts| trusts(ip));
    let is_proxied = socket.peer().ip().is_some_and(is_proxy);
    let mut peer = socket.peer().clone();
    if !is_proxied && acceptor.tls.is_none() && acceptor.websocket.is_none() {
        return Ok(Accepted {
            socket,
            layers: Layers::plain(),
            early: Vec::new(),
            peer,
            certificate: None,
        });
    }
    let mut handshake = Handshake::new(&socket, deadline);
    if is_proxied {
        peer = read_proxy_header(&mut handshake)?.unwrap_or(peer);
    }
    let certificate = match &acceptor.tls {
        Some(config) => handshake.tls(TlsLayer::accept(config)?)?.peer_certificate(),
        None => None,
    };
    if let Some(options) = &acceptor.websocket {
        handshake.accept_websocket(options)?;
    }
    let (layers, early) = handshake.finish()?;
    Ok(Accepted {
        socket,
        layers,
        early,
        peer,
        certificate,
    })
}

fn read_proxy_header(handshake: &mut Handshake<'_>) -> Result<Option<PeerAddress>, NetError> {
    loop {
        let received = handshake.received();
        if let Some(header) = proxy_header::parse(received)? {
            handshake.consume(header.length);
            return Ok(header.source.map(PeerAddress::from));
        }
        let _ = handshake.read_some(Phase::ProxyHeader)?;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of handshakes are taken from the clock here and nowhere else in net"
)]
fn now() -> Instant {
    Instant::now()
}

/// The end of `patience` from now on; a patience longer than the clock can count is one of a hundred years.
pub(super) fn deadline_in(patience: Duration) -> Instant {
    let now = now();
    now.checked_add(patience)
        .unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 86_400))
}

/// The time until `deadline`; `None` when it is over.
pub(super) fn time_left(deadline: Instant) -> Option<Duration> {
    deadline
        .checked_duration_since(now())
        .filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests;
