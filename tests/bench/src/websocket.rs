//! WebSocket by hand: upgrade, binary frames, masks.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::fault::Fault;

/// The mask of every client frame. A mask protects proxies from page authors; here it only has to cost what masks cost.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x96];
/// Payload bytes of a frame at most.
const FRAME_BYTES: usize = 32 * 1024;

/// The frames of one connection.
pub(crate) struct Framing {
    is_client: bool,
    /// Raw bytes of a frame's head that has not come whole.
    head: Vec<u8>,
    /// Payload bytes of the current frame still to come, and where the mask stands.
    left: u64,
    mask: Option<[u8; 4]>,
    at: usize,
}

impl Framing {
    pub(crate) fn client() -> Self {
        Self {
            is_client: true,
            head: Vec::new(),
            left: 0,
            mask: None,
            at: 0,
        }
    }

    pub(crate) fn server() -> Self {
        Self {
            is_client: false,
            ..Self::client()
        }
    }

    /// Appends `plain` in binary frames.
    pub(crate) fn send(&self, plain: &[u8], out: &mut Vec<u8>) {
        for part in plain.chunks(FRAME_BYTES) {
            let masked = if self.is_client { 0x80 } else { 0 };
            out.push(0x82);
            if part.len() < 126 {
                out.push(masked | part.len() as u8);
            } else {
                out.push(masked | 126);
                out.extend_from_slice(&(part.len() as u16).to_be_bytes());
            }
            if self.is_client {
                out.extend_from_slice(&MASK);
            }
            let start = out.len();
            out.extend_from_slice(part);
            if self.is_client {
                apply(MASK, 0, &mut out[start..]);
            }
        }
    }

    /// Takes frames apart: payload into `plain`. Pings are not expected.
    pub(crate) fn receive(&mut self, mut raw: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Fault> {
        while !raw.is_empty() {
            if self.left == 0 {
                let took = self.take_head(raw)?;
                raw = &mut raw[took..];
                continue;
            }
            let count = raw
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (part, rest) = raw.split_at_mut(count);
            if let Some(mask) = self.mask {
                apply(mask, self.at, part);
            }
            plain.extend_from_slice(part);
            self.at += count;
            self.left -= count as u64;
            raw = rest;
        }
        Ok(())
    }

    /// Reads into the head of a frame; how many bytes of `raw` belong to it.
    fn take_head(&mut self, raw: &[u8]) -> Result<usize, Fault> {
        for (took, byte) in (1..).zip(raw) {
            self.head.push(*byte);
            let [first, length, rest @ ..] = &self.head[..] else {
                continue;
            };
            let length_bytes = match length & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let mask_bytes = if length & 0x80 == 0 { 0 } else { 4 };
            if rest.len() < length_bytes + mask_bytes {
                continue;
            }
            if !matches!(first & 0x0f, 0 | 2) {
                return Err(Fault::Wrong("a WebSocket frame that is not binary"));
            }
            let (long, mask) = rest.split_at(length_bytes);
            self.left = match length_bytes {
                0 => u64::from(length & 0x7f),
                _ => long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            };
            self.mask = mask.try_into().ok();
            self.at = 0;
            self.head.clear();
            return Ok(took);
        }
        Ok(raw.len())
    }
}

fn apply(mask: [u8; 4], at: usize, bytes: &mut [u8]) {
    let mut mask = mask;
    mask.rotate_left(at % 4);
    let wide = u64::from_ne_bytes([mask, mask].concat().try_into().unwrap_or_default());
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let value = u64::from_ne_bytes(word.try_into().unwrap_or_default());
        word.copy_from_slice(&(value ^ wide).to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The client's upgrade, on a blocking socket.
pub(crate) fn upgrade(socket: &mut TcpStream, address: SocketAddr) -> Result<(), Fault> {
    write!(
        socket,
        "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )?;
    let answer = read_head(socket)?;
    if answer.starts_with(b"HTTP/1.1 101") {
        Ok(())
    } else {
        Err(Fault::Wrong("the WebSocket upgrade is refused"))
    }
}

/// The relay's answer. Its only client does not check the key.
pub(crate) fn accept(socket: &mut TcpStream) -> io::Result<()> {
    read_head(socket)?;
    socket.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Protocol: mqtt\r\n\r\n",
    )
}

/// Reads up to the empty line, byte by byte: what follows belongs to the frames.
fn read_head(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        socket.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(head)
}
