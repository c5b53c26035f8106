//! The values of options: texts into types, with messages that say what would be right.

use std::net::IpAddr;
use std::time::Duration;

use hbmqtt::net::socks::Proxy;
use hbmqtt::net::tls::TlsVersions;
use hbmqtt::net::url::UrlError;
use hbmqtt::proto::{ProtocolVersion, QoS};

use crate::shared::log::Format;

/// Headers of the WebSocket handshake, in order.
pub(crate) type Headers = Vec<(String, String)>;

/// 0, 1 or 2.
pub(crate) fn qos(text: &str) -> Result<QoS, String> {
    text.parse::<u8>()
        .ok()
        .and_then(QoS::from_u8)
        .ok_or_else(|| "QoS is 0, 1 or 2".to_owned())
}

/// 1 to 65,535.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a port is 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

/// An IP address.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "use an IP address".to_owned())
}

/// Seconds, 0 to 65,535.
pub(crate) fn keep_alive(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "keep alive is 0 to 65535 seconds".to_owned())
}

/// A protocol version in any of the spellings in use.
pub(crate) fn version(text: &str) -> Result<ProtocolVersion, String> {
    let plain = text.to_ascii_lowercase();
    match plain.strip_prefix("mqttv").unwrap_or(&plain) {
        "3" | "31" | "3.1" => Ok(ProtocolVersion::V31),
        "4" | "311" | "3.1.1" => Ok(ProtocolVersion::V311),
        "5" | "5.0" => Ok(ProtocolVersion::V5),
        _ => Err("use 3.1, 3.1.1 or 5".to_owned()),
    }
}

/// A SOCKS proxy.
pub(crate) fn proxy(text: &str) -> Result<Proxy, String> {
    text.parse().map_err(|error: UrlError| error.to_string())
}

/// A version of TLS in any of the spellings in use.
pub(crate) fn tls_version(text: &str) -> Result<TlsVersions, String> {
    let plain = text.to_ascii_lowercase();
    match plain.strip_prefix("tlsv").unwrap_or(&plain) {
        "1.2" => Ok(TlsVersions::Only12),
        "1.3" => Ok(TlsVersions::Only13),
        "1" | "1.0" | "1.1" => Err("rustls has 1.2 and 1.3 only".to_owned()),
        _ => Err("use 1.2 or 1.3".to_owned()),
    }
}

/// Seconds that a session is kept; `u32::MAX` = for ever, also written `-1`, `never` and `∞`.
pub(crate) fn session_expiry(text: &str) -> Result<u32, String> {
    match text {
        "-1" | "never" | "∞" => Ok(u32::MAX),
        _ => text
            .parse()
            .map_err(|_| "use seconds from 0 to 4294967294, or never".to_owned()),
    }
}

/// Seconds, which may have a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "use a number of seconds".to_owned())
}

/// How log lines look.
pub(crate) fn log_format(text: &str) -> Result<Format, String> {
    text.parse()
}

/// A JSON object whose values are texts, numbers or booleans.
pub(crate) fn headers(text: &str) -> Result<Headers, String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| format!("not a JSON object of headers: {error}"))?;
    object
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(number) => number.to_string(),
                serde_json::Value::Bool(flag) => flag.to_string(),
                _ => return Err(format!("the value of the header '{name}' is no text")),
            };
            checked_header(name, value)
        })
        .collect()
}

/// `Name: value`.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| "use 'Name: value'".to_owned())?;
    checked_header(name.trim().to_owned(), value.trim().to_owned())
}

/// A header must not end its line: what follows would be read as another header.
fn checked_header(name: String, value: String) -> Result<(String, String), String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Err(format!("'{}' is no name of a header", name.escape_debug()));
    }
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!(
            "the value of the header '{name}' has a control character"
        ));
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_many_spellings() {
        for text in ["3", "31", "3.1", "mqttv31"] {
            assert_eq!(version(text), Ok(ProtocolVersion::V31), "{text}");
        }
        for text in ["4", "311", "3.1.1", "mqttv311"] {
            assert_eq!(version(text), Ok(ProtocolVersion::V311), "{text}");
        }
        for text in ["5", "5.0", "mqttv5", "MQTTv5"] {
            assert_eq!(version(text), Ok(ProtocolVersion::V5), "{text}");
        }
        assert!(version("6").is_err());
    }

    #[test]
    fn numbers_are_checked_against_their_range() {
        assert_eq!(qos("2"), Ok(QoS::ExactlyOnce));
        assert!(qos("3").is_err() && qos("1x").is_err() && qos("-1").is_err());
        assert!(port("0").is_err() && port("65536").is_err());
        assert_eq!(keep_alive("65535"), Ok(65535));
        assert!(keep_alive("65536").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err() && seconds("inf").is_err());
    }

    #[test]
    fn a_session_may_be_kept_for_ever() {
        for text in ["-1", "never", "∞", "4294967295"] {
            assert_eq!(session_expiry(text), Ok(u32::MAX), "{text}");
        }
        assert_eq!(session_expiry("0"), Ok(0));
        assert!(session_expiry("-2").is_err() && session_expiry("4294967296").is_err());
    }

    #[test]
    fn headers_come_from_a_json_object() {
        assert_eq!(
            headers(r#"{"Authorization": "Bearer <token>", "X-N": 1}"#),
            Ok(vec![
                ("Authorization".to_owned(), "Bearer <token>".to_owned()),
                ("X-N".to_owned(), "1".to_owned())
            ])
        );
        assert!(headers("{").is_err());
        assert!(headers("[]").is_err());
        assert!(headers(r#"{"a": {}}"#).is_err());
        assert!(headers(r#"{"a": "b\r\nc: d"}"#).is_err());
        assert!(headers(r#"{"a b": "c"}"#).is_err());
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(header("A: b: c"), Ok(("A".to_owned(), "b: c".to_owned())));
        assert!(header("A").is_err());
    }
}
