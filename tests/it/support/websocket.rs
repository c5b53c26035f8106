//! The client's side of WebSocket in as many lines as the tests need: the upgrade by hand, frames by hand.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;
use super::client::Stream;

/// Frame types.
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A WebSocket connection. As a [`Stream`] it sends each write as one binary frame and reads the bytes of binary frames.
pub(crate) struct WebSocket<S> {
    pub(crate) stream: S,
    received: Vec<u8>,
    payload: Vec<u8>,
}

impl WebSocket<TcpStream> {
    /// Opens a connection with the upgrade that MQTT clients send.
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::upgrade(tcp(address), &[("Sec-WebSocket-Protocol", "mqtt")])
            .expect("the upgrade is accepted")
    }
}

impl<S: Stream> WebSocket<S> {
    /// Sends the upgrade with these further headers; the response's head on a refusal.
    pub(crate) fn upgrade(stream: S, headers: &[(&str, &str)]) -> Result<Self, String> {
        let (socket, response) = Self::upgrade_response(stream, headers);
        if response.starts_with("HTTP/1.1 101") {
            let head = response.to_ascii_lowercase();
            // The key's answer, RFC 6455 §4.2.2 (the key is the example of §1.3).
            assert!(
                head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
                "{response}"
            );
            Ok(socket)
        } else {
            Err(response)
        }
    }

    pub(crate) fn upgrade_response(mut stream: S, headers: &[(&str, &str)]) -> (Self, String) {
        let mut request = String::from(
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        _ = stream.write_all(request.as_bytes());
        stream.read_timeout(PATIENCE);
        let mut received = Vec::new();
        let end = loop {
            if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut buffer = [0; 1024];
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break received.len(),
                Ok(count) => received.extend(&buffer[..count]),
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        (
            Self {
                stream,
                received: received.split_off(end),
                payload: Vec::new(),
            },
            head,
        )
    }

    /// Sends one frame.
    pub(crate) fn send_frame(
        &mut self,
        fin: bool,
        kind: u8,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let mut frame = vec![u8::from(fin) << 7 | kind];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            middle @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        frame.extend(mask);
        frame.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.stream.write_all(&frame)?;
        self.stream.flush()
    }

    /// The next frame: type and payload. The server's frames must be whole and unmasked.
    pub(crate) fn receive_frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some((kind, start, end)) = whole_frame(&self.received)? {
                let payload = self.received[start..end].to_vec();
                self.received.drain(..end);
                return Ok((kind, payload));
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.received.extend(&buffer[..count]),
            }
        }
    }
}

fn whole_frame(bytes: &[u8]) -> std::io::Result<Option<(u8, usize, usize)>> {
    let [first, second, ..] = *bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(Error::other(format!(
            "frame of the server begins {first:02x} {second:02x}"
        )));
    }
    let (start, length) = match second & 0x7f {
        126 if bytes.len() >= 4 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        127 if bytes.len() >= 10 => (
            10,
            u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize,
        ),
        126 | 127 => return Ok(None),
        short => (2, usize::from(short)),
    };
    Ok((bytes.len() >= start + length).then_some((first & 0x0f, start, start + length)))
}

impl<S: Stream> Read for WebSocket<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.payload.is_empty() {
            match self.receive_frame() {
                Ok((CONTINUATION | BINARY, payload)) => self.payload = payload,
                Ok((PING | PONG, _)) => {}
                Ok((CLOSE, _)) => return Ok(0),
                Ok((kind, _)) => return Err(Error::other(format!("frame type {kind}"))),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
        }
        let count = buffer.len().min(self.payload.len());
        buffer[..count].copy_from_slice(&self.payload[..count]);
        self.payload.drain(..count);
        Ok(count)
    }
}

impl<S: Stream> Write for WebSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.send_frame(true, BINARY, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Stream> Stream for WebSocket<S> {
    fn read_timeout(&mut self, timeout: Duration) {
        self.stream.read_timeout(timeout);
    }
}

pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the broker accepts");
    stream.set_nodelay(true).unwrap();
    stream
}
