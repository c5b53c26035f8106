//! What can go wrong between an address and a stream of bytes.

use std::error::Error;
use std::fmt;
use std::io;

use super::proxy_header::ProxyHeaderError;
use super::socks::ProxyError;
use super::tls::TlsError;
use super::url::UrlError;
use super::websocket::WebSocketError;

/// A connection or a listener could not be made, or a layer met bytes that its protocol does not allow.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetError {
    /// The system refuses a call on an established socket.
    Io(io::Error),
    /// The peer did not get through this phase before the deadline.
    Timeout(Phase),
    /// The peer closed the connection in this phase.
    Closed(Phase),
    /// The listener was stopped.
    Stopped,
    /// The text is no address that a client can connect to.
    Url(UrlError),
    /// An address to listen on cannot be understood or taken.
    Bind(Box<AddressError>),
    /// A host name has no address.
    Resolve(Box<AddressError>),
    /// No address of the server accepts a connection.
    Connect(Box<ConnectError>),
    /// A certificate or key cannot be used, or the peer's cannot, or its bytes are not TLS.
    Tls(TlsError),
    /// The upgrade was refused, or the bytes are not WebSocket.
    WebSocket(WebSocketError),
    /// The PROXY protocol header is missing or wrong. The proxy, or who poses as one, is at fault.
    ProxyHeader(ProxyHeaderError),
    /// The SOCKS proxy makes no connection.
    Proxy(ProxyError),
}

/// What a connection is doing before MQTT begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Looking up a host name.
    Resolve,
    /// Setting up the connection.
    Connect,
    /// Asking a SOCKS proxy for the connection.
    Proxy,
    /// Reading the PROXY protocol header.
    ProxyHeader,
    /// The TLS handshake.
    TlsHandshake,
    /// The WebSocket upgrade.
    WebSocketHandshake,
}

/// Something is wrong with one address.
#[derive(Debug)]
pub struct AddressError {
    /// The address as given.
    pub address: String,
    /// What is wrong.
    pub error: io::Error,
}

/// Every address of a server refused.
#[derive(Debug)]
pub struct ConnectError {
    /// The host and port, path or name asked for.
    pub target: String,
    /// What was tried, in this order, and what came of it. Empty when the time was over before the first.
    pub tried: Vec<AddressError>,
}

impl NetError {
    pub(crate) fn bind(address: impl Into<String>, error: io::Error) -> Self {
        Self::Bind(Box::new(AddressError {
            address: address.into(),
            error,
        }))
    }

    pub(crate) fn resolve(address: impl Into<String>, error: io::Error) -> Self {
        Self::Resolve(Box::new(AddressError {
            address: address.into(),
            error,
        }))
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Timeout(phase) => write!(f, "timed out while {phase}"),
            Self::Closed(phase) => write!(f, "the peer closed the connection while {phase}"),
            Self::Stopped => f.write_str("the listener is stopped"),
            Self::Url(error) => error.fmt(f),
            Self::Bind(error) => write!(f, "cannot listen on {}: {}", error.address, error.error),
            Self::Resolve(error) => write!(
                f,
                "cannot find the address of {}: {}",
                error.address, error.error
            ),
            Self::Connect(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::WebSocket(error) => error.fmt(f),
            Self::ProxyHeader(error) => error.fmt(f),
            Self::Proxy(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "looking up the host name",
            Self::Connect => "connecting",
            Self::Proxy => "talking to the proxy",
            Self::ProxyHeader => "reading the PROXY protocol header",
            Self::TlsHandshake => "doing the TLS handshake",
            Self::WebSocketHandshake => "doing the WebSocket handshake",
        })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", self.target)?;
        match &self.tried[..] {
            [] => Ok(()),
            [one] if one.address == self.target => write!(f, ": {}", one.error),
            tried => {
                for (index, one) in tried.iter().enumerate() {
                    let separator = if index == 0 { ":" } else { ";" };
                    write!(f, "{separator} {}: {}", one.address, one.error)?;
                }
                Ok(())
            }
        }
    }
}

impl Error for NetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Url(error) => Some(error),
            Self::Bind(error) | Self::Resolve(error) => Some(&error.error),
            Self::Connect(error) => error
                .tried
                .last()
                .map(|tried| &tried.error as &(dyn Error + 'static)),
            Self::Tls(error) => Some(error),
            Self::WebSocket(error) => Some(error),
            Self::ProxyHeader(error) => Some(error),
            Self::Proxy(error) => Some(error),
            Self::Timeout(_) | Self::Closed(_) | Self::Stopped => None,
        }
    }
}

impl From<io::Error> for NetError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TlsError> for NetError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<WebSocketError> for NetError {
    fn from(error: WebSocketError) -> Self {
        Self::WebSocket(error)
    }
}

impl From<ProxyHeaderError> for NetError {
    fn from(error: ProxyHeaderError) -> Self {
        Self::ProxyHeader(error)
    }
}

impl From<ProxyError> for NetError {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

impl From<UrlError> for NetError {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<NetError>() <= 32);
    }

    #[test]
    fn a_connect_error_names_what_was_tried() {
        let refused = |address: &str| AddressError {
            address: address.to_owned(),
            error: io::Error::other("connection refused"),
        };
        let several = ConnectError {
            target: "localhost:1883".to_owned(),
            tried: vec![refused("[::1]:1883"), refused("127.0.0.1:1883")],
        };
        assert_eq!(
            several.to_string(),
            "cannot connect to localhost:1883: [::1]:1883: connection refused; 127.0.0.1:1883: connection refused"
        );
        let one = ConnectError {
            target: "127.0.0.1:1".to_owned(),
            tried: vec![refused("127.0.0.1:1")],
        };
        assert_eq!(
            one.to_string(),
            "cannot connect to 127.0.0.1:1: connection refused"
        );
    }
}
