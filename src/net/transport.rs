//! A socket and the layers on it: what stands between MQTT's bytes and the wire.
//!
//! ```text
//!     socket ──raw──► Layers::receive ──plain──► packets ──plain──► Layers::send ──wire──► socket
//! ```
//!
//! [`Layers`] are byte filters without IO, so that the thread that reads and the one that writes can share them under a short lock.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::error::NetError;
use super::socket::{PeerAddress, Socket};

/// What is spoken between the socket and MQTT.
#[derive(Debug)]
pub enum Layers {
    /// Nothing: MQTT on the socket itself.
    Plain,
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
    /// Whether the bytes on the wire are MQTT's own.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Takes bytes from the socket and appends the plain ones that they complete to `plain`.
    ///
    /// # Errors
    /// The bytes break the layer's protocol. What [`take_control`](Self::take_control) then gives tells the peer.
    pub fn receive(&mut self, raw: &[u8], plain: &mut BytesMut) -> Result<Received, NetError> {
        match self {
            Self::Plain => {
                plain.extend_from_slice(raw);
                Ok(Received::Open)
            }
        }
    }

    /// Appends to `wire` what carries the plain bytes `plain`.
    ///
    /// # Errors
    /// The layer is closed.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), NetError> {
        match self {
            Self::Plain => {
                wire.extend_from_slice(plain);
                Ok(())
            }
        }
    }

    /// Appends to `wire` what the layers themselves want to say: a pong, the answer to a close, a key update, an alert.
    pub fn take_control(&mut self, wire: &mut Vec<u8>) {
        match self {
            Self::Plain => {}
        }
        let _ = wire;
    }

    /// Appends to `wire` the layers' goodbye. Nothing can be sent after it.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        match self {
            Self::Plain => {}
        }
        let _ = wire;
    }
}

/// What a listener expects of its connections before MQTT begins.
#[derive(Debug, Default)]
pub struct Acceptor {}

/// A connection on which MQTT can begin.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
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

/// Who a verified client certificate was issued to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's Common Name, the last one if there are several.
    pub common_name: Option<String>,
    /// The whole subject as in RFC 4514, such as `CN=meter 7,O=Example`.
    pub subject: String,
}

/// Does what `acceptor` asks for: PROXY header, TLS handshake, WebSocket upgrade. A plain socket is not touched.
///
/// # Errors
/// [`NetError::Timeout`] and [`NetError::Closed`] with the phase; otherwise what the peer did wrong. The socket is closed then.
///
/// # Blocking
/// Until the last handshake is complete, at most until `deadline`.
pub fn accept(
    socket: Socket,
    acceptor: &Acceptor,
    deadline: Instant,
) -> Result<Accepted, NetError> {
    let _ = (acceptor, deadline);
    let peer = socket.peer().clone();
    Ok(Accepted {
        socket,
        layers: Layers::Plain,
        early: Vec::new(),
        peer,
        certificate: None,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of handshakes are taken from the clock here and nowhere else in net"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The time until `deadline`; `None` when it is over.
pub(super) fn time_left(deadline: Instant) -> Option<Duration> {
    deadline
        .checked_duration_since(now())
        .filter(|left| !left.is_zero())
}
