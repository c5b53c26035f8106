//! The WebSocket upgrade: the HTTP request and its answer, as text in and text out.
//!
//! Source: RFC 6455 §4; MQTT 5.0 §6; MQTT 3.1.1 §6.

use tungstenite::handshake::client::{Response, generate_key};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::websocket::{WebSocketError, WebSocketOptions};

/// The longest header of a request or an answer, in bytes.
pub(super) const LONGEST_HEAD: usize = 16 * 1024;

/// A server's answer, and whether the connection is a WebSocket now.
pub(super) struct Answer {
    pub(super) response: Vec<u8>,
    pub(super) result: Result<(), WebSocketError>,
}

/// The length of the HTTP header at the start of `bytes`, with the empty line that ends it. `None`: more bytes are needed.
///
/// `known` is how many bytes were there at the last call, so that a header that arrives byte by byte is looked at once.
pub(super) fn head_length(bytes: &[u8], known: usize) -> Result<Option<usize>, WebSocketError> {
    let start = known.saturating_sub(3);
    let end = bytes
        .get(start..)
        .unwrap_or_default()
        .windows(4)
        .position(|window| window == b"\r\n\r\n");
    match end {
        Some(end) if start + end + 4 <= LONGEST_HEAD => Ok(Some(start + end + 4)),
        None if bytes.len() < LONGEST_HEAD => Ok(None),
        _ => Err(WebSocketError::HeaderTooLong),
    }
}

/// Answers a client's request.
pub(super) fn answer(head: &[u8], options: &WebSocketOptions) -> Answer {
    let (status, result) = match check_request(head, options) {
        Ok(response) => {
            return Answer {
                response,
                result: Ok(()),
            };
        }
        Err(error) => (refusal_status(&error), Err(error)),
    };
    Answer {
        response: refusal(status, &result),
        result,
    }
}

/// What a server says to a header that it did not read to the end.
pub(super) fn refuse_long_header() -> Vec<u8> {
    refusal(
        "431 Request Header Fields Too Large",
        &Err(WebSocketError::HeaderTooLong),
    )
}

fn check_request(head: &[u8], options: &WebSocketOptions) -> Result<Vec<u8>, WebSocketError> {
    let request = match Request::try_parse(head) {
        Ok(Some((_, request))) => request,
        Err(tungstenite::Error::Protocol(tungstenite::error::ProtocolError::WrongHttpMethod)) => {
            return Err(WebSocketError::NotAnUpgrade(WRONG_METHOD));
        }
        Ok(None) | Err(_) => return Err(WebSocketError::NotAnUpgrade("malformed HTTP")),
    };
    let mut response =
        create_response(&request).map_err(|error| WebSocketError::NotAnUpgrade(missing(&error)))?;
    check_origin(request.headers(), options)?;
    let sub_protocol =
        choose_sub_protocol(request.headers()).ok_or(WebSocketError::NoSubProtocol)?;
    response
        .headers_mut()
        .insert(SUB_PROTOCOL, HeaderValue::from_static(sub_protocol));
    let mut text = Vec::with_capacity(256);
    write_response(&mut text, &response)
        .map_err(|_| WebSocketError::NotAnUpgrade("malformed HTTP"))?;
    Ok(text)
}

fn missing(error: &tungstenite::Error) -> &'static str {
    use tungstenite::error::ProtocolError as P;
    match error {
        tungstenite::Error::Protocol(
            P::MissingConnectionUpgradeHeader | P::MissingUpgradeWebSocketHeader,
        ) => NO_UPGRADE,
        tungstenite::Error::Protocol(P::MissingSecWebSocketVersionHeader) => NO_VERSION,
        _ => "no valid Sec-WebSocket-Key",
    }
}

fn refusal_status(error: &WebSocketError) -> &'static str {
    match error {
        WebSocketError::NotAnUpgrade(WRONG_METHOD) => "405 Method Not Allowed",
        WebSocketError::NotAnUpgrade(NO_UPGRADE | NO_VERSION) => "426 Upgrade Required",
        WebSocketError::Origin(_) => "403 Forbidden",
        _ => "400 Bad Request",
    }
}

fn refusal(status: &str, result: &Result<(), WebSocketError>) -> Vec<u8> {
    let body = match result {
        Ok(()) => String::new(),
        Err(error) => format!("{error}\n"),
    };
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A browser says which site's page it acts for. Without this check any page that somebody opens could use what their machine can reach.
fn check_origin(headers: &HeaderMap, options: &WebSocketOptions) -> Result<(), WebSocketError> {
    let Some(origin) = headers.get("Origin") else {
        return Ok(());
    };
    let origin = String::from_utf8_lossy(origin.as_bytes());
    let host = headers
        .get("Host")
        .and_then(|host| host.to_str().ok())
        .map(without_port);
    let same_host = || {
        let (_, authority) = origin.split_once("://")?;
        Some(host?.eq_ignore_ascii_case(without_port(authority)))
    };
    let listed = || {
        options.allowed_origins.iter().any(|allowed| {
            allowed == "*" || allowed.trim_end_matches('/').eq_ignore_ascii_case(&origin)
        })
    };
    if listed() || same_host().unwrap_or(false) {
        Ok(())
    } else {
        Err(WebSocketError::Origin(origin.into()))
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// [MQTT-6.0.0-3], [MQTT-6.0.0-4]
fn choose_sub_protocol(headers: &HeaderMap) -> Option<&'static str> {
    let offered = headers
        .get_all(SUB_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let offered: Vec<_> = offered
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    SUB_PROTOCOLS
        .into_iter()
        .find(|known| offered.contains(known))
}

/// A client's request and the answer to expect.
pub(super) struct Question {
    pub(super) request: Vec<u8>,
    accept_key: String,
}

/// Asks `host` (as it stands in the URL, with its port) for `path`, with `extra_headers` in their order.
pub(super) fn ask(
    host: &str,
    path: &str,
    extra_headers: &[(String, String)],
) -> Result<Question, WebSocketError> {
    let key = generate_key();
    let mut request = format!("GET {} HTTP/1.1\r\n", request_target(path));
    let mut host = Some(host);
    let mut extra = String::new();
    for (name, value) in extra_headers {
        let invalid = || WebSocketError::InvalidHeader(name.as_str().into());
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        HeaderValue::from_str(value).map_err(|_| invalid())?;
        if RESERVED.contains(&parsed.as_str()) {
            return Err(invalid());
        }
        if parsed == "host" {
            host = None;
        }
        extra.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(host) = host {
        request.push_str(&format!("Host: {host}\r\n"));
    }
    request.push_str(&format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: mqtt\r\n\
         {extra}\r\n"
    ));
    Ok(Question {
        request: request.into_bytes(),
        accept_key: derive_accept_key(key.as_bytes()),
    })
}

/// Path and query, with what cannot stand in an HTTP request percent-encoded.
fn request_target(path: &str) -> String {
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_graphic() {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    target
}

impl Question {
    /// Checks the server's answer.
    pub(super) fn check(&self, head: &[u8]) -> Result<(), WebSocketError> {
        let Ok(Some((_, response))) = Response::try_parse(head) else {
            return Err(WebSocketError::InvalidResponse("malformed HTTP"));
        };
        if response.status().as_u16() != 101 {
            return Err(WebSocketError::Refused(response.status().as_u16()));
        }
        let headers = response.headers();
        let has = |name: &str, word: &str| {
            let values = headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok());
            values
                .flat_map(|value| value.split(','))
                .any(|value| value.trim().eq_ignore_ascii_case(word))
        };
        if !has("Upgrade", "websocket") || !has("Connection", "Upgrade") {
            return Err(WebSocketError::InvalidResponse("no 'Upgrade: websocket'"));
        }
        if headers
            .get("Sec-WebSocket-Accept")
            .is_none_or(|key| key.as_bytes() != self.accept_key.as_bytes())
        {
            return Err(WebSocketError::InvalidResponse(
                "wrong Sec-WebSocket-Accept",
            ));
        }
        if headers.contains_key("Sec-WebSocket-Extensions") {
            return Err(WebSocketError::InvalidResponse(
                "an extension that was not asked for",
            ));
        }
        // [MQTT-6.0.0-4]
        if headers
            .get(SUB_PROTOCOL)
            .is_none_or(|chosen| chosen != "mqtt")
        {
            return Err(WebSocketError::InvalidResponse("sub-protocol is not mqtt"));
        }
        Ok(())
    }
}

const SUB_PROTOCOL: &str = "Sec-WebSocket-Protocol";
/// In the order of preference. Clients of MQTT 3.1 ask for the second.
const SUB_PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

const WRONG_METHOD: &str = "the method is not GET";
const NO_UPGRADE: &str = "no 'Upgrade: websocket'";
const NO_VERSION: &str = "no 'Sec-WebSocket-Version: 13'";

/// What the upgrade itself needs.
const RESERVED: [&str; 8] = [
    "connection",
    "upgrade",
    "sec-websocket-version",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "content-length",
    "transfer-encoding",
];

#[cfg(test)]
mod tests;
