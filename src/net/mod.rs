//! Bytes, addresses, sockets, TLS and WebSocket. No MQTT packet, no session, no topic.

mod certificate;
pub mod dial;
pub mod error;
mod handshake;
pub mod listener;
mod mem;
pub mod proxy_header;
pub mod socket;
pub mod socks;
pub mod tls;
pub mod transport;
mod upgrade;
pub mod url;
pub mod websocket;

pub use error::NetError;
pub use socket::{Closer, PeerAddress, Socket};
