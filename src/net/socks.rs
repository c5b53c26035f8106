//! SOCKS 5: a connection through a proxy, which also looks the host name up.
//!
//! Source: RFC 1928, RFC 1929.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Instant;

use super::error::{NetError, Phase};
use super::socket::Socket;
use super::transport::time_left;
use super::url::{Address, Endpoint, UrlError};

/// A SOCKS 5 proxy, and who this client is to it. `Debug` and `Display` show no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    credentials: Option<(String, Vec<u8>)>,
}

/// Why a proxy makes no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// What answers is no SOCKS 5 proxy.
    NotSocks,
    /// It wants a way to log in that this client has not, or a user name when none is given.
    NoMethod,
    /// It does not take this user name and password.
    WrongCredentials,
    /// It cannot make the connection, with its reply code of RFC 1928 §6.
    Refused(u8),
    /// The host name is longer than 255 bytes.
    LongName,
}

impl Proxy {
    /// Reads `socks5h://[user[:password]@]host[:port]`; the port defaults to 1080, and parts are percent-encoded.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong. Nothing is looked up.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::NotSocks5h)?;
        if !scheme.eq_ignore_ascii_case("socks5h") {
            return Err(UrlError::NotSocks5h);
        }
        let endpoint = Endpoint::parse_network(rest, DEFAULT_PORT, false, false)?;
        let Address::Tcp { host, port } = endpoint.address else {
            return Err(UrlError::NoHost);
        };
        let password = endpoint.password.unwrap_or_default();
        let credentials = endpoint.user.map(|user| (user, password));
        if credentials.as_ref().is_some_and(|(user, password)| {
            user.len() > LONGEST_FIELD || password.len() > LONGEST_FIELD
        }) {
            return Err(UrlError::LongCredentials);
        }
        Ok(Self {
            host,
            port,
            credentials,
        })
    }

    /// Its host name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks the proxy at the other end of `socket` for a connection to `host` and `port`. What is read and written
    /// after that is the server's.
    // BLOCKS: until the proxy has connected or refused, or `deadline`.
    pub(super) fn ask(
        &self,
        socket: &Socket,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<(), NetError> {
        let request = request(host, port)?;
        let mut exchange = Exchange { socket, deadline };
        let methods: &[u8] = match self.credentials {
            None => &[VERSION, 1, NO_LOGIN],
            Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
        };
        exchange.write(methods)?;
        match (exchange.read::<2>()?, &self.credentials) {
            ([VERSION, NO_LOGIN], _) => {}
            ([VERSION, LOGIN], Some((user, password))) => exchange.log_in(user, password)?,
            ([VERSION, _], _) => return Err(ProxyError::NoMethod.into()),
            _ => return Err(ProxyError::NotSocks.into()),
        }
        exchange.write(&request)?;
        exchange.reply()?;
        socket.set_read_timeout(None)?;
        Ok(())
    }
}

/// CONNECT to a host: an IP address as such, else the name.
fn request(host: &str, port: u16) -> Result<Vec<u8>, ProxyError> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len()).map_err(|_| ProxyError::LongName)?;
            request.extend([NAME, length]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

struct Exchange<'a> {
    socket: &'a Socket,
    deadline: Instant,
}

impl Exchange<'_> {
    /// RFC 1929.
    fn log_in(&mut self, user: &str, password: &[u8]) -> Result<(), NetError> {
        let mut message = vec![LOGIN_VERSION];
        for field in [user.as_bytes(), password] {
            // Their length was checked when the URL was read.
            message.push(u8::try_from(field.len()).unwrap_or(u8::MAX));
            message.extend(field);
        }
        self.write(&message)?;
        match self.read()? {
            [_, 0] => Ok(()),
            _ => Err(ProxyError::WrongCredentials.into()),
        }
    }

    /// The answer to the request, with the address that the proxy uses, which is of no interest.
    fn reply(&mut self) -> Result<(), NetError> {
        let [version, code, _, kind] = self.read()?;
        if version != VERSION {
            return Err(ProxyError::NotSocks.into());
        }
        if code != 0 {
            return Err(ProxyError::Refused(code).into());
        }
        match kind {
            IPV4 => self.read::<{ 4 + 2 }>().map(drop),
            IPV6 => self.read::<{ 16 + 2 }>().map(drop),
            NAME => {
                let [length] = self.read()?;
                for _ in 0..u16::from(length) + 2 {
                    self.read::<1>()?;
                }
                Ok(())
            }
            _ => Err(ProxyError::NotSocks.into()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        self.socket.write_all(bytes).map_err(in_phase)
    }

    /// Exactly so many bytes: what follows belongs to the server.
    fn read<const N: usize>(&mut self) -> Result<[u8; N], NetError> {
        let mut bytes = [0; N];
        let mut missing = &mut bytes[..];
        while !missing.is_empty() {
            let left = time_left(self.deadline).ok_or(NetError::Timeout(Phase::Proxy))?;
            self.socket.set_read_timeout(Some(left))?;
            let count = self.socket.read(missing).map_err(in_phase)?;
            if count == 0 {
                return Err(NetError::Closed(Phase::Proxy));
            }
            missing = missing.get_mut(count..).unwrap_or_default();
        }
        Ok(bytes)
    }
}

fn in_phase(error: io::Error) -> NetError {
    match error.kind() {
        io::ErrorKind::TimedOut => NetError::Timeout(Phase::Proxy),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            NetError::Closed(Phase::Proxy)
        }
        _ => NetError::Io(error),
    }
}

impl FromStr for Proxy {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Address::Tcp {
            host: self.host.clone(),
            port: self.port,
        };
        write!(f, "socks5h://{address}")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            Self::NotSocks => "what answers is no SOCKS 5 proxy",
            Self::NoMethod => "it wants another way to log in",
            Self::WrongCredentials => "it does not take this user name and password",
            Self::LongName => "the host name is longer than 255 bytes",
            Self::Refused(2) => "its rules do not allow the connection",
            Self::Refused(3) => "the network cannot be reached",
            Self::Refused(4) => "the host cannot be reached",
            Self::Refused(5) => "the server refuses the connection",
            Self::Refused(6) => "the time to live is over",
            Self::Refused(7) => "it has no command to connect",
            Self::Refused(8) => "it does not know this kind of address",
            Self::Refused(code) => return write!(f, "the proxy: failure {code}"),
        };
        write!(f, "the proxy: {reason}")
    }
}

impl Error for ProxyError {}

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

const DEFAULT_PORT: u16 = 1080;

/// User name and password have a byte for their length.
const LONGEST_FIELD: usize = 255;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::transport::deadline_in;
    use super::*;

    #[test]
    fn a_url_names_the_proxy() {
        let proxy = Proxy::parse("socks5h://me:p%40w@[::1]:99").unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("::1", 99));
        assert_eq!(proxy.credentials, Some(("me".to_owned(), b"p@w".to_vec())));
        assert_eq!(format!("{proxy:?}"), "Proxy(socks5h://[::1]:99)");
        let plain: Proxy = "SOCKS5H://proxy".parse().unwrap();
        assert_eq!((plain.port(), &plain.credentials), (1080, &None));
        for wrong in ["proxy:1080", "http://proxy", "socks5h://", "socks5h://a:b"] {
            assert!(Proxy::parse(wrong).is_err(), "{wrong}");
        }
        let long = format!("socks5h://{}@proxy", "x".repeat(256));
        assert_eq!(Proxy::parse(&long), Err(UrlError::LongCredentials));
    }

    /// What a client says to a proxy that answers with `answers`, which are all there from the beginning.
    fn asked(proxy: &str, host: &str, answers: &[u8]) -> (Result<(), NetError>, Vec<u8>) {
        let (client, server) = Socket::pair("proxy").unwrap();
        server.write_all(answers).unwrap();
        server.shutdown_write();
        let deadline = deadline_in(Duration::from_secs(5));
        let proxy = Proxy::parse(proxy).unwrap();
        let result = proxy.ask(&client, host, 1883, deadline);
        client.shutdown_write();
        let mut said = Vec::new();
        let mut part = [0; 256];
        while let Ok(count @ 1..) = server.read(&mut part) {
            said.extend_from_slice(&part[..count]);
        }
        (result, said)
    }

    fn problem(proxy: &str, answers: &[u8]) -> String {
        let (result, _) = asked(proxy, "broker", answers);
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_connection_is_asked_for_by_name_or_address() {
        let answers = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let (result, said) = asked("socks5h://p", "broker", &answers);
        result.unwrap();
        assert_eq!(said, b"\x05\x01\x00\x05\x01\x00\x03\x06broker\x07\x5b");
        let answers = [5, 0, 5, 0, 0, 3, 1, b'x', 0, 0];
        let (result, said) = asked("socks5h://p", "127.0.0.1", &answers);
        result.unwrap();
        assert_eq!(
            said,
            b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x07\x5b"
        );
        let (result, _) = asked("socks5h://p", &"x".repeat(256), &answers);
        assert!(result.is_err());
    }

    #[test]
    fn a_user_logs_in_where_the_proxy_wants_it() {
        let answers = [5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let (result, said) = asked("socks5h://me:pw@p", "b", &answers);
        result.unwrap();
        assert_eq!(
            said,
            b"\x05\x02\x00\x02\x01\x02me\x02pw\x05\x01\x00\x03\x01b\x07\x5b"
        );
        assert_eq!(
            problem("socks5h://me:pw@p", &[5, 2, 1, 1]),
            "the proxy: it does not take this user name and password"
        );
        assert_eq!(
            problem("socks5h://p", &[5, 0xff]),
            "the proxy: it wants another way to log in"
        );
    }

    #[test]
    fn a_refusal_is_told() {
        assert_eq!(
            problem("socks5h://p", &[5, 0, 5, 5, 0, 1]),
            "the proxy: the server refuses the connection"
        );
        assert_eq!(
            problem("socks5h://p", b"HTTP/1.1 400"),
            "the proxy: what answers is no SOCKS 5 proxy"
        );
        assert_eq!(
            problem("socks5h://p", &[5, 0, 5]),
            "the peer closed the connection while talking to the proxy"
        );
    }
}
