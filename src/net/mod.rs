//! Bytes, addresses, sockets, TLS and WebSocket. No MQTT packet, no session, no topic.

pub mod dial;
pub mod error;
pub mod listener;
mod mem;
pub mod proxy_header;
pub mod socket;
pub mod tls;
pub mod transport;
pub mod url;
pub mod websocket;

pub use error::NetError;
pub use socket::{Closer, PeerAddress, Socket};
