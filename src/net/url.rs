//! `mqtt|mqtts|ws|wss://user:password@host:port/path`, `unix:///path` and `mem://name` as an [`Endpoint`].

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a client connects to, over which layers, and who it says it is.
///
/// `Display` and `Debug` show a password as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address of the socket.
    pub address: Address,
    /// Whether TLS is spoken on it (`mqtts`, `wss`).
    pub tls: bool,
    /// Whether WebSocket is spoken on it (`ws`, `wss`).
    pub websocket: bool,
    /// Path and query as written, with the leading `/`; empty when the URL has none. WebSocket asks for `/` then.
    pub path: String,
    /// The user name, percent-decoded.
    pub user: Option<String>,
    /// The password, percent-decoded. It may stand without a user name.
    pub password: Option<Vec<u8>>,
}

/// The address of a server's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP over IPv4 or IPv6.
    Tcp {
        /// A host name or an IP address, IPv6 without brackets.
        host: String,
        /// 1..=65,535.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
    /// A listener in this process.
    Mem(String),
}

impl Endpoint {
    /// Plain MQTT over TCP to `host` and `port`, without credentials.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::at(Address::Tcp {
            host: host.into(),
            port,
        })
    }

    /// Plain MQTT to `address`, without credentials.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self {
            address,
            tls: false,
            websocket: false,
            path: String::new(),
            user: None,
            password: None,
        }
    }

    /// Reads a URL. The port defaults to 1883 (`mqtt`), 8883 (`mqtts`), 80 (`ws`) and 443 (`wss`); the scheme may be in capitals.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong. Nothing is looked up.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::NoScheme)?;
        let rest = rest
            .split_once('#')
            .map_or(rest, |(before, _fragment)| before);
        match &scheme.to_ascii_lowercase()[..] {
            "mqtt" | "tcp" => Self::parse_network(rest, 1883, false, false),
            "mqtts" | "ssl" => Self::parse_network(rest, 8883, true, false),
            "ws" => Self::parse_network(rest, 80, false, true),
            "wss" => Self::parse_network(rest, 443, true, true),
            "unix" => Self::parse_unix(rest),
            "mem" => Self::parse_mem(rest),
            _ => Err(UrlError::UnknownScheme),
        }
    }

    /// The host that is asked for, or the path or name.
    #[must_use]
    pub fn host(&self) -> &str {
        match &self.address {
            Address::Tcp { host, .. } => host,
            Address::Unix(path) => path.to_str().unwrap_or_default(),
            Address::Mem(name) => name,
        }
    }

    pub(super) fn parse_network(
        rest: &str,
        default_port: u16,
        tls: bool,
        websocket: bool,
    ) -> Result<Self, UrlError> {
        let (authority, path) = split_path(rest);
        let (user, password, host_port) = split_user_info(authority)?;
        let (host, port) = split_host_port(host_port)?;
        let port = port.map_or(Ok(default_port), parse_port)?;
        let address = Address::Tcp { host, port };
        Ok(Self {
            address,
            tls,
            websocket,
            path: path.to_owned(),
            user,
            password,
        })
    }

    fn parse_unix(rest: &str) -> Result<Self, UrlError> {
        let path = decode_text(rest)?;
        if path.is_empty() {
            return Err(UrlError::NoHost);
        }
        Ok(Self::at(Address::Unix(path.into())))
    }

    fn parse_mem(rest: &str) -> Result<Self, UrlError> {
        let (authority, path) = split_path(rest);
        let (user, password, name) = split_user_info(authority)?;
        let name = decode_text(name)?;
        if name.is_empty() {
            return Err(UrlError::NoHost);
        }
        Ok(Self {
            path: path.to_owned(),
            user,
            password,
            ..Self::at(Address::Mem(name))
        })
    }

    fn scheme(&self) -> &'static str {
        match (&self.address, self.tls, self.websocket) {
            (Address::Unix(_), ..) => "unix",
            (Address::Mem(_), ..) => "mem",
            (_, false, false) => "mqtt",
            (_, true, false) => "mqtts",
            (_, false, true) => "ws",
            (_, true, true) => "wss",
        }
    }
}

impl FromStr for Endpoint {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        if let Some(user) = &self.user {
            f.write_str(user)?;
        }
        if self.password.is_some() {
            f.write_str(":***")?;
        }
        if self.user.is_some() || self.password.is_some() {
            f.write_str("@")?;
        }
        write!(f, "{}{}", self.address, self.path)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
            Self::Mem(name) => f.write_str(name),
        }
    }
}

/// Why a text is no URL of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// There is no `://`.
    NoScheme,
    /// The scheme is none of `mqtt`, `mqtts`, `ws`, `wss`, `unix`, `mem`.
    UnknownScheme,
    /// The host, path or name is empty.
    NoHost,
    /// An IPv6 address is not in brackets, or the brackets do not match or hold something else.
    InvalidIpv6,
    /// A host name holds a character that no host name has.
    InvalidHost,
    /// The port is no number from 1 to 65,535.
    InvalidPort,
    /// A `%` is not followed by two hexadecimal digits, or what they make is not UTF-8.
    InvalidEscape,
    /// The URL of a proxy does not begin with `socks5h://`.
    NotSocks5h,
    /// User name or password for a proxy is longer than 255 bytes.
    LongCredentials,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => "not a URL: expected mqtt://host, mqtts://, ws://, wss://, unix:// or mem://",
            Self::UnknownScheme => "unknown URL scheme: expected mqtt, mqtts, ws, wss, unix or mem",
            Self::NoHost => "the URL has no host",
            Self::InvalidIpv6 => "the URL's IPv6 address must stand in brackets, as in mqtt://[::1]:1883",
            Self::InvalidHost => "the URL's host holds a character that no host name has",
            Self::InvalidPort => "the URL's port is no number from 1 to 65535",
            Self::InvalidEscape => "the URL has a '%' without two hexadecimal digits of UTF-8 text after it (write '%' itself as %25)",
            Self::NotSocks5h => "not the URL of a proxy: expected socks5h://host",
            Self::LongCredentials => "the URL's user name or password is longer than the 255 bytes that a proxy takes",
        })
    }
}

impl Error for UrlError {}

fn split_path(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}

type UserInfo<'a> = (Option<String>, Option<Vec<u8>>, &'a str);

/// The last `@` ends the user information, so that a password may hold one.
fn split_user_info(authority: &str) -> Result<UserInfo<'_>, UrlError> {
    let Some((info, host_port)) = authority.rsplit_once('@') else {
        return Ok((None, None, authority));
    };
    let (user, password) = match info.split_once(':') {
        Some((user, password)) => (user, Some(percent_decode(password)?)),
        None => (info, None),
    };
    let user = decode_text(user)?;
    Ok(((!user.is_empty()).then_some(user), password, host_port))
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`. The port is not looked at.
fn split_host_port(text: &str) -> Result<(String, Option<&str>), UrlError> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, after) = bracketed.split_once(']').ok_or(UrlError::InvalidIpv6)?;
        // A zone such as %eth0 is the system's matter.
        let plain = address
            .split_once('%')
            .map_or(address, |(plain, _zone)| plain);
        plain
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| UrlError::InvalidIpv6)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((address.to_owned(), Some(port))),
            None if after.is_empty() => Ok((address.to_owned(), None)),
            None => Err(UrlError::InvalidIpv6),
        };
    }
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    if port.is_some_and(|port| port.contains(':')) {
        return Err(UrlError::InvalidIpv6);
    }
    let host = decode_text(host)?;
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    if host
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || "/?#@[]<>\"\\^`{|}".contains(c))
    {
        return Err(UrlError::InvalidHost);
    }
    Ok((host, port))
}

fn parse_port(port: &str) -> Result<u16, UrlError> {
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::InvalidPort);
    }
    port.parse()
        .ok()
        .filter(|&port| port > 0)
        .ok_or(UrlError::InvalidPort)
}

fn decode_text(text: &str) -> Result<String, UrlError> {
    String::from_utf8(percent_decode(text)?).map_err(|_| UrlError::InvalidEscape)
}

fn percent_decode(text: &str) -> Result<Vec<u8>, UrlError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = bytes
            .next()
            .and_then(hex_digit)
            .ok_or(UrlError::InvalidEscape)?;
        let low = bytes
            .next()
            .and_then(hex_digit)
            .ok_or(UrlError::InvalidEscape)?;
        decoded.push(high << 4 | low);
    }
    Ok(decoded)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn ports_have_the_defaults_of_their_scheme() {
        for (url, port, tls, websocket) in [
            ("mqtt://h", 1883, false, false),
            ("mqtts://h", 8883, true, false),
            ("ws://h", 80, false, true),
            ("WSS://h/", 443, true, true),
            ("ws://h:8080/mqtt", 8080, false, true),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!(
                (endpoint.address, endpoint.tls, endpoint.websocket),
                (tcp("h", port), tls, websocket),
                "{url}"
            );
        }
    }

    #[test]
    fn user_information_is_decoded() {
        let endpoint =
            Endpoint::parse("mqtt://some%20one:p%40ss:w%3Ard@broker.example:1884").unwrap();
        assert_eq!(endpoint.user.as_deref(), Some("some one"));
        assert_eq!(endpoint.password.as_deref(), Some(&b"p@ss:w:rd"[..]));
        assert_eq!(endpoint.address, tcp("broker.example", 1884));
        let endpoint = Endpoint::parse("mqtt://u:p@ss@h").unwrap();
        assert_eq!(endpoint.password.as_deref(), Some(&b"p@ss"[..]));
        let endpoint = Endpoint::parse("mqtt://:%ff@h").unwrap();
        assert_eq!(
            (endpoint.user, endpoint.password.as_deref()),
            (None, Some(&b"\xff"[..]))
        );
        let endpoint = Endpoint::parse("mqtt://u@h").unwrap();
        assert_eq!(
            (endpoint.user.as_deref(), endpoint.password),
            (Some("u"), None)
        );
    }

    #[test]
    fn ipv6_stands_in_brackets() {
        assert_eq!(
            Endpoint::parse("mqtt://[::1]").unwrap().address,
            tcp("::1", 1883)
        );
        let endpoint = Endpoint::parse("mqtts://u:p@[2001:db8::7]:99/x").unwrap();
        assert_eq!(endpoint.address, tcp("2001:db8::7", 99));
        assert_eq!(endpoint.to_string(), "mqtts://u:***@[2001:db8::7]:99/x");
        for url in [
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[::1]x",
            "mqtt://[name]",
            "mqtt://a:1:2",
        ] {
            assert_eq!(Endpoint::parse(url), Err(UrlError::InvalidIpv6), "{url}");
        }
    }

    #[test]
    fn path_and_query_are_kept_and_a_fragment_is_not() {
        assert_eq!(
            Endpoint::parse("ws://h/a/b?c=d#e").unwrap().path,
            "/a/b?c=d"
        );
        assert_eq!(Endpoint::parse("ws://h?c=d").unwrap().path, "?c=d");
        assert_eq!(Endpoint::parse("ws://h").unwrap().path, "");
    }

    #[test]
    fn unix_and_mem_name_a_place_on_this_machine() {
        assert_eq!(
            Endpoint::parse("unix:///run/a%20b.sock").unwrap().address,
            Address::Unix("/run/a b.sock".into())
        );
        assert_eq!(
            Endpoint::parse("unix://a.sock").unwrap().to_string(),
            "unix://a.sock"
        );
        let endpoint = Endpoint::parse("mem://u:p@broker").unwrap();
        assert_eq!(
            (endpoint.address, endpoint.user.as_deref()),
            (Address::Mem("broker".to_owned()), Some("u"))
        );
    }

    #[test]
    fn what_is_no_url_is_refused_with_the_reason() {
        for (url, error) in [
            ("localhost", UrlError::NoScheme),
            ("", UrlError::NoScheme),
            ("http://h", UrlError::UnknownScheme),
            ("mqtt://", UrlError::NoHost),
            ("mqtt://:1883", UrlError::NoHost),
            ("mqtt://u@", UrlError::NoHost),
            ("unix://", UrlError::NoHost),
            ("mem://", UrlError::NoHost),
            ("mqtt://h:", UrlError::InvalidPort),
            ("mqtt://h:0", UrlError::InvalidPort),
            ("mqtt://h:65536", UrlError::InvalidPort),
            ("mqtt://h:+1", UrlError::InvalidPort),
            ("mqtt://h:x", UrlError::InvalidPort),
            ("mqtt://a b", UrlError::InvalidHost),
            ("mqtt://a\r\nb", UrlError::InvalidHost),
            ("mqtt://%zz", UrlError::InvalidEscape),
            ("mqtt://%ff@h", UrlError::InvalidEscape),
            ("mqtt://u:%4@h", UrlError::InvalidEscape),
        ] {
            assert_eq!(Endpoint::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let endpoint = Endpoint::parse("mqtt://me:secret@h").unwrap();
        assert_eq!(
            format!("{endpoint} {endpoint:?}"),
            "mqtt://me:***@h:1883 Endpoint(mqtt://me:***@h:1883)"
        );
    }
}
