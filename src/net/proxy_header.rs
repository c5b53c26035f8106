//! The PROXY protocol, versions 1 and 2: a proxy says first who is behind it.
//!
//! Source: <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which addresses are proxies: a header is accepted from them, and then required.
pub type TrustedProxies = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Why the first bytes of a connection are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// Neither version's signature. The proxy does not send the header, or a client connected from its address.
    Missing,
    /// The signature is right, what follows is not.
    Malformed,
    /// The header says that it is longer than 4 KiB.
    TooLong,
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no PROXY protocol header from an address that is listed as a proxy",
            Self::Malformed => "malformed PROXY protocol header",
            Self::TooLong => "PROXY protocol header is too long",
        })
    }
}

impl Error for ProxyHeaderError {}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProxyHeader {
    /// Who is behind the proxy; `None` if the proxy speaks for itself or does not say.
    pub(super) source: Option<SocketAddr>,
    /// The header's length in bytes.
    pub(super) length: usize,
}

/// Reads the header at the start of `bytes`. `None`: more bytes are needed.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if begins(bytes, V2_SIGNATURE) {
        return parse_v2(bytes);
    }
    if begins(bytes, V1_SIGNATURE) {
        return parse_v1(bytes);
    }
    Err(ProxyHeaderError::Missing)
}

/// Whether `bytes` begin with `signature`, as far as they reach.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let common = bytes.len().min(signature.len());
    bytes[..common] == signature[..common]
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < V1_LONGEST {
            Ok(None)
        } else {
            Err(ProxyHeaderError::Malformed)
        };
    };
    let line = bytes[..end]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.ok_or(ProxyHeaderError::Malformed)?.split(' ').skip(1);
    let source = match words.next() {
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let words: Vec<_> = words.collect();
            let [source, destination, source_port, destination_port] = words[..] else {
                return Err(ProxyHeaderError::Malformed);
            };
            v1_address(family, destination, destination_port)?;
            Some(v1_address(family, source, source_port)?)
        }
        _ => return Err(ProxyHeaderError::Malformed),
    };
    Ok(Some(ProxyHeader {
        source,
        length: end + 1,
    }))
}

fn v1_address(family: &str, address: &str, port: &str) -> Result<SocketAddr, ProxyHeaderError> {
    let ip = match family {
        "TCP4" => address.parse::<Ipv4Addr>().map(IpAddr::from),
        _ => address.parse::<Ipv6Addr>().map(IpAddr::from),
    };
    let ip = ip.map_err(|_| ProxyHeaderError::Malformed)?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits
        .then(|| port.parse().ok())
        .flatten()
        .ok_or(ProxyHeaderError::Malformed)?;
    Ok(SocketAddr::new(ip, port))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some((&[version_command, family, high, low], _)) = bytes
        .get(V2_SIGNATURE.len()..)
        .and_then(<[u8]>::split_first_chunk)
    else {
        return Ok(None);
    };
    let body_length = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 {
        return Err(ProxyHeaderError::Malformed);
    }
    if body_length > V2_LONGEST {
        return Err(ProxyHeaderError::TooLong);
    }
    let length = V2_SIGNATURE.len() + 4 + body_length;
    let Some(body) = bytes.get(V2_SIGNATURE.len() + 4..length) else {
        return Ok(None);
    };
    let source = match (version_command & 0xf, family >> 4) {
        // LOCAL: the proxy itself, checking whether we are alive.
        (0, _) => None,
        (1, 1) => Some(v2_address::<4>(body).ok_or(ProxyHeaderError::Malformed)?),
        (1, 2) => Some(v2_address::<16>(body).ok_or(ProxyHeaderError::Malformed)?),
        (1, 0 | 3) => None,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    Ok(Some(ProxyHeader { source, length }))
}

/// Source address, destination address, source port, destination port; what the proxy wants to add comes after them.
fn v2_address<const N: usize>(body: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (_destination, rest) = rest.split_first_chunk::<N>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let (_destination_port, _) = rest.split_first_chunk::<2>()?;
    Some(SocketAddr::new(
        IpAddr::from(*source),
        u16::from_be_bytes(*port),
    ))
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V1_LONGEST: usize = 107;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[version_command, family], &length, body].concat()
    }

    fn assert_parsed(header: &[u8], source: Option<&str>) {
        let expected = ProxyHeader {
            source: source.map(|source| source.parse().unwrap()),
            length: header.len(),
        };
        let mut with_more = header.to_vec();
        with_more.extend_from_slice(b"\x10\n\r\n");
        assert_eq!(parse(&with_more), Ok(Some(expected)));
        for length in 0..header.len() {
            assert_eq!(parse(&header[..length]), Ok(None), "cut at {length}");
        }
    }

    #[test]
    fn version_1_names_the_source() {
        assert_parsed(
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\r\n",
            Some("192.0.2.7:56324"),
        );
        assert_parsed(
            b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n",
            Some("[2001:db8::7]:1"),
        );
        assert_parsed(b"PROXY UNKNOWN\r\n", None);
        assert_parsed(b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n", None);
    }

    #[test]
    fn version_2_names_the_source() {
        let ipv4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 7, 91];
        assert_parsed(&v2(0x21, 0x11, &ipv4), Some("192.0.2.7:56324"));
        assert_parsed(
            &v2(0x21, 0x11, &[&ipv4[..], &[3, 0, 1, 9]].concat()),
            Some("192.0.2.7:56324"),
        );
        let ipv6 = [
            &[0x20, 1, 0xd, 0xb8][..],
            &[0; 11],
            &[7],
            &[0; 16],
            &[0, 9, 0, 1],
        ]
        .concat();
        assert_parsed(&v2(0x21, 0x21, &ipv6), Some("[2001:db8::7]:9"));
        assert_parsed(&v2(0x20, 0, &[]), None);
        assert_parsed(&v2(0x21, 0x31, &[0; 216]), None);
    }

    #[test]
    fn what_is_not_a_header_is_refused() {
        for missing in [
            &b"\x10\x0c\0\x04MQTT"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXX",
            b"\r\n\r\n\0\r\nQUIX",
        ] {
            assert_eq!(parse(missing), Err(ProxyHeaderError::Missing));
        }
        for malformed in [
            &b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n"[..],
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 1883\r\n",
            b"PROXY TCP5 192.0.2.7 198.51.100.1 1 1883\r\n",
            b"PROXY \xff\r\n",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat(),
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
        ] {
            assert_eq!(
                parse(malformed),
                Err(ProxyHeaderError::Malformed),
                "{}",
                String::from_utf8_lossy(malformed)
            );
        }
        assert_eq!(
            parse(&v2(0x20, 0, &[0; 4097])),
            Err(ProxyHeaderError::TooLong)
        );
    }
}
