//! WebSocket: the WebSocket layer, a byte filter without IO, on tungstenite's frames. The upgrade is in `upgrade.rs`.
//!
//! MQTT takes the payloads of binary frames as one stream of bytes: frames and packets have nothing to do with each other. So nothing is
//! put together here, and a connection has no buffer: what arrives of a frame is passed on at once.
//!
//! Source: RFC 6455; MQTT 5.0 §6; MQTT 3.1.1 §6.

use std::error::Error;
use std::fmt;
use std::io::Cursor;

use bytes::BytesMut;
use ring::rand::{SecureRandom, SystemRandom};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::error::NetError;
use super::transport::Received;

/// The settings of a listener that speaks WebSocket.
#[derive(Debug, Clone)]
pub struct WebSocketOptions {
    /// The largest message, be it one frame or several, in bytes. Default 4 MiB. Larger ones end the connection with status 1009.
    pub max_message_bytes: usize,
    /// Values of `Origin` that are accepted beside the server's own host: `https://example.org`, or `*` for all. Default: none.
    ///
    /// A request without `Origin`, as programs other than browsers send it, is always accepted.
    pub allowed_origins: Vec<String>,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            max_message_bytes: MAX_MESSAGE_BYTES,
            allowed_origins: Vec::new(),
        }
    }
}

/// Why there is no WebSocket connection, or no longer. The peer is at fault unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The request is no WebSocket upgrade; the word says what is wrong. Answered with 400, 405 or 426.
    NotAnUpgrade(&'static str),
    /// Neither `mqtt` nor `mqttv3.1` is among the sub-protocols. Answered with 400. [MQTT-6.0.0-3]
    NoSubProtocol,
    /// A page of this origin wants to connect, and `allowed-origins` does not list it. Answered with 403.
    Origin(Box<str>),
    /// The server answered with this HTTP status instead of 101.
    Refused(u16),
    /// The server's answer is no WebSocket answer; the word says what is wrong.
    InvalidResponse(&'static str),
    /// A header to send has a name or value that HTTP does not allow, or is one of those that the upgrade itself needs. The caller is at
    /// fault.
    InvalidHeader(Box<str>),
    /// The header of the request or answer is longer than 16 KiB.
    HeaderTooLong,
    /// A frame that RFC 6455 does not allow here; the word says what is wrong. Closed with 1002.
    Frame(&'static str),
    /// A text frame. [MQTT-6.0.0-1] Closed with 1003.
    Text,
    /// A message over the limit. Closed with 1009.
    TooBig,
    /// Something is to be sent after the goodbye. This side is at fault.
    SentAfterClose,
}

impl WebSocketError {
    fn close_code(&self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            Self::TooBig => CloseCode::Size,
            _ => CloseCode::Protocol,
        }
    }
}

impl fmt::Display for WebSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebSocket: ")?;
        match self {
            Self::NotAnUpgrade(why) => write!(f, "not an upgrade request: {why}"),
            Self::NoSubProtocol => f.write_str("the client does not offer the sub-protocol mqtt"),
            Self::Origin(origin) => write!(
                f,
                "origin '{}' is not in allowed-origins",
                origin.escape_debug()
            ),
            Self::Refused(404) => f.write_str(
                "the server refuses with HTTP status 404 (many brokers want /mqtt as the path of the URL)",
            ),
            Self::Refused(status) => write!(f, "the server refuses with HTTP status {status}"),
            Self::InvalidResponse(why) => write!(f, "the server's answer is invalid: {why}"),
            Self::InvalidHeader(name) => {
                write!(f, "header '{}' cannot be sent", name.escape_debug())
            }
            Self::HeaderTooLong => f.write_str("the HTTP header is too long"),
            Self::Frame(why) => write!(f, "protocol error: {why}"),
            Self::Text => f.write_str("text frame, but MQTT needs binary ones"),
            Self::TooBig => f.write_str("message over the limit"),
            Self::SentAfterClose => f.write_str("already closed"),
        }
    }
}

impl Error for WebSocketError {}

/// Which side of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Gets masked frames, sends unmasked ones.
    Server,
    /// The other way round.
    Client,
}

/// WebSocket frames over memory.
#[derive(Debug)]
pub(super) struct WebSocketLayer {
    role: Role,
    max_message_bytes: u64,
    /// The beginning of a frame's header.
    head: [u8; LONGEST_HEADER],
    head_length: usize,
    frame: Option<Frame>,
    /// The length so far of a message that has not had its last frame.
    message_bytes: Option<u64>,
    /// The payload of a control frame that is not complete.
    control: Vec<u8>,
    /// To be answered. A later ping takes the place of an earlier one (RFC 6455 §5.5.3).
    ping: Option<Box<[u8]>>,
    /// To be sent, once.
    goodbye: Option<CloseCode>,
    said_goodbye: bool,
    closed_by_peer: bool,
}

/// A frame whose payload is arriving.
#[derive(Debug)]
struct Frame {
    opcode: OpCode,
    left: u64,
    mask: Mask,
}

impl WebSocketLayer {
    pub(super) fn new(role: Role, max_message_bytes: usize) -> Self {
        Self {
            role,
            max_message_bytes: max_message_bytes as u64,
            head: [0; LONGEST_HEADER],
            head_length: 0,
            frame: None,
            message_bytes: None,
            control: Vec::new(),
            ping: None,
            goodbye: None,
            said_goodbye: false,
            closed_by_peer: false,
        }
    }

    pub(super) fn set_max_message_bytes(&mut self, max_message_bytes: usize) {
        self.max_message_bytes = max_message_bytes as u64;
    }

    pub(super) fn receive(
        &mut self,
        raw: &[u8],
        plain: &mut BytesMut,
    ) -> Result<Received, NetError> {
        let received = self.filter(raw, plain);
        if let Err(error) = &received {
            self.goodbye.get_or_insert_with(|| error.close_code());
            self.closed_by_peer = true;
        }
        Ok(received?)
    }

    fn filter(&mut self, mut raw: &[u8], plain: &mut BytesMut) -> Result<Received, WebSocketError> {
        while !self.closed_by_peer {
            let Some(mut frame) = self.frame.take() else {
                if raw.is_empty() {
                    return Ok(Received::Open);
                }
                raw = self.read_header(raw)?;
                continue;
            };
            let count = usize::try_from(frame.left)
                .unwrap_or(usize::MAX)
                .min(raw.len());
            let (payload, rest) = raw.split_at(count);
            raw = rest;
            frame.left -= count as u64;
            self.read_payload(&mut frame, payload, plain);
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(Received::Open);
            }
            if let OpCode::Control(control) = frame.opcode {
                self.on_control(control)?;
            }
        }
        Ok(Received::Closed)
    }

    /// Returns what follows the header, or nothing if it is not complete.
    fn read_header<'a>(&mut self, raw: &'a [u8]) -> Result<&'a [u8], WebSocketError> {
        let known = self.head_length;
        let count = raw.len().min(LONGEST_HEADER - known);
        let known_and_new = known + count;
        self.head[known..known_and_new].copy_from_slice(&raw[..count]);
        let mut cursor = Cursor::new(&self.head[..known_and_new]);
        let parsed =
            FrameHeader::parse(&mut cursor).map_err(|_| WebSocketError::Frame("unknown opcode"))?;
        let Some((header, length)) = parsed else {
            self.head_length = known_and_new;
            return Ok(&[]);
        };
        let used = usize::try_from(cursor.position()).unwrap_or(LONGEST_HEADER);
        self.head_length = 0;
        self.begin(&header, length)?;
        Ok(&raw[used - known..])
    }

    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<(), WebSocketError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(WebSocketError::Frame("reserved bit"));
        }
        if header.mask.is_some() != (self.role == Role::Server) {
            return Err(WebSocketError::Frame(match self.role {
                Role::Server => "frame without a mask",
                Role::Client => "frame with a mask",
            }));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => {
                return Err(WebSocketError::Frame("control frame in pieces"));
            }
            OpCode::Control(_) if length > LONGEST_CONTROL => {
                return Err(WebSocketError::Frame("control frame over 125 bytes"));
            }
            OpCode::Control(_) => self.control.clear(),
            OpCode::Data(data) => self.begin_data(data, header.is_final, length)?,
        }
        self.frame = Some(Frame {
            opcode: header.opcode,
            left: length,
            mask: Mask::new(header.mask),
        });
        Ok(())
    }

    fn begin_data(
        &mut self,
        data: Data,
        is_final: bool,
        length: u64,
    ) -> Result<(), WebSocketError> {
        let before = match (data, self.message_bytes) {
            // [MQTT-6.0.0-1]
            (Data::Text, _) => return Err(WebSocketError::Text),
            (Data::Continue, Some(before)) => before,
            (Data::Continue, None) => return Err(WebSocketError::Frame("continuation of nothing")),
            (Data::Binary, None) => 0,
            (_, _) => return Err(WebSocketError::Frame("message within a message")),
        };
        let message_bytes = before.saturating_add(length);
        if message_bytes > self.max_message_bytes {
            return Err(WebSocketError::TooBig);
        }
        self.message_bytes = (!is_final).then_some(message_bytes);
        Ok(())
    }

    fn read_payload(&mut self, frame: &mut Frame, payload: &[u8], plain: &mut BytesMut) {
        match frame.opcode {
            OpCode::Data(_) => {
                let start = plain.len();
                plain.extend_from_slice(payload);
                frame.mask.apply(&mut plain[start..]);
            }
            OpCode::Control(_) => {
                let start = self.control.len();
                self.control.extend_from_slice(payload);
                frame.mask.apply(&mut self.control[start..]);
            }
        }
    }

    fn on_control(&mut self, control: Control) -> Result<(), WebSocketError> {
        let payload = std::mem::take(&mut self.control);
        match control {
            Control::Ping => self.ping = Some(payload.into()),
            Control::Close => {
                let code = parse_close(&payload)?;
                self.goodbye.get_or_insert(code);
                self.closed_by_peer = true;
            }
            Control::Pong | Control::Reserved(_) => {}
        }
        Ok(())
    }

    pub(super) fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), NetError> {
        if self.said_goodbye {
            return Err(WebSocketError::SentAfterClose.into());
        }
        if !plain.is_empty() {
            self.frame(OpCode::Data(Data::Binary), plain, wire);
        }
        Ok(())
    }

    pub(super) fn take_control(&mut self, wire: &mut Vec<u8>) {
        if self.said_goodbye {
            return;
        }
        if let Some(payload) = self.ping.take() {
            self.frame(OpCode::Control(Control::Pong), &payload, wire);
        }
        if let Some(code) = self.goodbye {
            self.said_goodbye = true;
            // 1005 stands for a close frame without a code.
            let code = match code {
                CloseCode::Status => &[][..],
                code => &u16::from(code).to_be_bytes(),
            };
            self.frame(OpCode::Control(Control::Close), code, wire);
        }
    }

    pub(super) fn close(&mut self, wire: &mut Vec<u8>) {
        self.goodbye.get_or_insert(CloseCode::Normal);
        self.take_control(wire);
    }

    fn frame(&self, opcode: OpCode, payload: &[u8], wire: &mut Vec<u8>) {
        let mask = (self.role == Role::Client).then(random_mask);
        let header = FrameHeader {
            opcode,
            mask,
            ..FrameHeader::default()
        };
        wire.reserve(LONGEST_HEADER + payload.len());
        // A vector takes everything.
        let _ = header.format(payload.len() as u64, wire);
        let start = wire.len();
        wire.extend_from_slice(payload);
        Mask::new(mask).apply(&mut wire[start..]);
    }
}

/// A frame's mask and how far it has been turned.
#[derive(Debug)]
struct Mask([u8; 4]);

impl Mask {
    fn new(mask: Option<[u8; 4]>) -> Self {
        Self(mask.unwrap_or_default())
    }

    /// Masks or unmasks the next bytes of the payload.
    fn apply(&mut self, bytes: &mut [u8]) {
        let Self(mask) = self;
        if *mask == [0; 4] {
            return;
        }
        let [a, b, c, d] = *mask;
        let word = u128::from_ne_bytes([a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]);
        let (words, rest) = bytes.as_chunks_mut();
        for bytes in words {
            *bytes = (u128::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        mask.rotate_left(bytes.len() % 4);
    }
}

fn random_mask() -> [u8; 4] {
    let mut mask = [0; 4];
    // The mask keeps proxies from taking payload for HTTP; without randomness there is no TLS either. All zeroes would still be correct.
    let _ = SystemRandom::new().fill(&mut mask);
    mask
}

/// The code of a close frame; 1005 if it has none (RFC 6455 §7.1.5).
fn parse_close(payload: &[u8]) -> Result<CloseCode, WebSocketError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(CloseCode::Status)
        } else {
            Err(WebSocketError::Frame("close frame of one byte"))
        };
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() {
        return Err(WebSocketError::Frame("close code that may not be sent"));
    }
    std::str::from_utf8(reason)
        .map_err(|_| WebSocketError::Frame("close reason that is not UTF-8"))?;
    Ok(code)
}

const LONGEST_HEADER: usize = 14;
const LONGEST_CONTROL: u64 = 125;

/// The packet limit of the broker.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
