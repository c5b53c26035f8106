//! One listener: where it listens, for whom, and what differs from the rest of the broker.

use std::net::IpAddr;
use std::path::PathBuf;
use std::{fmt, str};

use super::{AuthConfig, QoS};

/// One entry of the section `listeners`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// Its name in the file.
    pub name: String,
    /// Key `bind`.
    pub bind: BindAddress,
    /// Key `type`.
    pub kind: ListenerKind,
    /// Key `max-connections`: connections at a time; `None` = no limit of its own.
    pub max_connections: Option<usize>,
    /// Key `ssl` and the certificate keys; `None` = without TLS.
    pub tls: Option<TlsConfig>,
    /// Key `use-identity-as-username`: the user name is the Common Name of the client's certificate; off.
    pub use_identity_as_username: bool,
    /// Key `use-subject-as-username`: the user name is the whole subject of the client's certificate; off.
    pub use_subject_as_username: bool,
    /// Key `use-username-as-clientid`: the user name replaces the Client Identifier; off.
    pub use_username_as_clientid: bool,
    /// Key `mount-point`: put before every topic of this listener's clients and taken off again; `None` = nothing.
    pub mount_point: Option<String>,
    /// Key `max-qos`; where absent the broker's.
    pub max_qos: QoS,
    /// Key `max-topic-alias`: topic aliases that a client may use; where absent `limits.max-topic-alias`.
    pub max_topic_alias: u16,
    /// Key `allowed-origins`: values of the HTTP header `Origin` to accept beside the server's own host.
    pub allowed_origins: Vec<String>,
    /// Key `proxy`: addresses from which a PROXY header is accepted, and then required. Empty = none.
    pub proxy: Vec<AddressRange>,
    /// Section `auth`: instead of the broker's.
    pub auth: Option<AuthConfig>,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            bind: BindAddress::Tcp {
                host: "0.0.0.0".to_owned(),
                port: 1883,
            },
            kind: ListenerKind::Tcp,
            max_connections: None,
            tls: None,
            use_identity_as_username: false,
            use_subject_as_username: false,
            use_username_as_clientid: false,
            mount_point: None,
            max_qos: QoS::ExactlyOnce,
            max_topic_alias: 16,
            allowed_origins: Vec::new(),
            proxy: Vec::new(),
            auth: None,
        }
    }
}

impl ListenerConfig {
    /// A TCP listener on this host and port with every other setting at its default; port 0 lets the system choose.
    #[must_use]
    pub fn tcp(name: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        Self {
            name: name.into(),
            bind: BindAddress::Tcp {
                host: host.into(),
                port,
            },
            ..Self::default()
        }
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// `tcp`: MQTT over TCP, with TLS if `ssl` is on.
    Tcp,
    /// `ws`: MQTT over WebSocket, with TLS if `ssl` is on.
    Ws,
    /// `unix`: MQTT over a Unix domain socket.
    Unix,
    /// `mem`: MQTT between threads of this process.
    Mem,
}

impl fmt::Display for ListenerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Ws => "ws",
            Self::Unix => "unix",
            Self::Mem => "mem",
        })
    }
}

/// Where a listener listens. Shown as it stands in the log line of the start: `0.0.0.0:1883`, `[::1]:1883`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// A host name or address, IPv6 without its brackets, and a port; port 0 lets the system choose.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// The path of a Unix domain socket.
    Unix(PathBuf),
    /// A name within this process.
    Mem(String),
}

impl BindAddress {
    /// Others than this machine can reach it.
    #[must_use]
    pub fn is_public(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                host != "localhost"
                    && !host
                        .parse()
                        .is_ok_and(|address: IpAddr| address.is_loopback())
            }
            Self::Unix(_) | Self::Mem(_) => false,
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Mem(name) => write!(f, "mem://{name}"),
        }
    }
}

/// The certificate keys of a listener with `ssl: on`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Key `certfile`: the server's certificate chain, PEM.
    pub certfile: PathBuf,
    /// Key `keyfile`: its private key, PEM, not encrypted.
    pub keyfile: PathBuf,
    /// Key `cafile`: certificates of those who may sign client certificates, PEM.
    pub cafile: Option<PathBuf>,
    /// Key `capath`: a directory of such files.
    pub capath: Option<PathBuf>,
    /// Key `cadata`: such certificates as PEM text.
    pub cadata: Option<String>,
    /// Key `client-cert`; default [`ClientCert::Optional`] if a CA key is given, else [`ClientCert::None`].
    pub client_cert: ClientCert,
    /// Key `crlfile`: revoked client certificates, PEM.
    pub crlfile: Option<PathBuf>,
}

/// Are clients asked for a certificate?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// `none`: no.
    None,
    /// `optional`: yes, and one that is presented must be valid.
    Optional,
    /// `required`: yes, and without a valid one there is no connection.
    Required,
}

/// An IP address and how many of its leading bits count, as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    address: IpAddr,
    prefix_bits: u32,
}

impl AddressRange {
    /// The address belongs to the range. An IPv4 address that comes as an IPv6 one (`::ffff:10.0.0.1`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (range, address, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => (
                u128::from(range.to_bits()),
                u128::from(address.to_bits()),
                32,
            ),
            (IpAddr::V6(range), IpAddr::V6(address)) => (range.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let free_bits = width - self.prefix_bits;
        (range ^ address).checked_shr(free_bits).unwrap_or(0) == 0
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl str::FromStr for AddressRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an address or a range such as 10.0.0.0/8";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| EXPECTED)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(bits) => bits.trim().parse().map_err(|_| EXPECTED)?,
            None => width,
        };
        if prefix_bits > width {
            return Err("the number after the slash exceeds the bits of the address");
        }
        Ok(Self {
            address,
            prefix_bits,
        })
    }
}
