//! One socket with its layer (none, TLS, WebSocket): bytes in bulk, whole frames out.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::fault::Fault;
use crate::frames::{self, Frame, next_frame};
use crate::websocket;

/// Bytes that one read takes at most.
const READ_BYTES: usize = 256 * 1024;

/// What lies between the socket and the MQTT packets.
pub(crate) enum Layer {
    Plain,
    Tls(Box<rustls::Connection>),
    WebSocket(websocket::Framing),
}

/// How to reach a broker: the address and the layer.
#[derive(Clone)]
pub(crate) enum Target {
    Plain(SocketAddr),
    Tls(SocketAddr, Arc<rustls::ClientConfig>),
    WebSocket(SocketAddr),
}

/// The buffers for reading, shared by all connections of a thread.
pub(crate) struct Scratch {
    raw: Vec<u8>,
    plain: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            raw: vec![0; READ_BYTES],
            plain: Vec::with_capacity(2 * READ_BYTES),
        }
    }
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Something,
    Nothing,
    End,
}

pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    layer: Layer,
    /// Bytes that have come and not been used: the part of a packet.
    carry: Vec<u8>,
    /// `carry` may hold whole packets that came early; nothing is read before they are dealt with.
    pub(crate) has_early: bool,
    /// Bytes for the socket, of which `written` are gone.
    output: Vec<u8>,
    written: usize,
    /// Whether the poller was told to wait for room.
    pub(crate) waits_for_room: bool,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream, layer: Layer) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.set_write_timeout(Some(Duration::from_secs(20)))?;
        let mut connection = Self {
            socket,
            layer,
            carry: Vec::new(),
            has_early: false,
            output: Vec::new(),
            written: 0,
            waits_for_room: false,
        };
        if let Layer::Tls(tls) = &mut connection.layer {
            // The last flight of the handshake may bring the first packet along.
            decrypt(tls, &[], &mut connection.carry)?;
            connection.has_early = !connection.carry.is_empty();
        }
        Ok(connection)
    }

    /// Connects without MQTT, the layer's handshake included. The socket is blocking.
    pub(crate) fn dial(target: &Target) -> Result<Self, Fault> {
        match target {
            Target::Plain(address) => Ok(Self::new(TcpStream::connect(address)?, Layer::Plain)?),
            Target::Tls(address, config) => {
                let mut socket = TcpStream::connect(address)?;
                let name = address.ip().into();
                let mut tls = rustls::ClientConnection::new(config.clone(), name)
                    .map_err(io::Error::other)?;
                tls.set_buffer_limit(None);
                while tls.is_handshaking() {
                    tls.complete_io(&mut socket)?;
                }
                Ok(Self::new(socket, Layer::Tls(Box::new(tls.into())))?)
            }
            Target::WebSocket(address) => {
                let mut socket = TcpStream::connect(address)?;
                websocket::upgrade(&mut socket, *address)?;
                Ok(Self::new(
                    socket,
                    Layer::WebSocket(websocket::Framing::client()),
                )?)
            }
        }
    }

    /// Connects, and returns after CONNACK.
    pub(crate) fn connect(target: &Target, client_id: &str, clean: bool) -> Result<Self, Fault> {
        let mut connection = Self::dial(target)?;
        connection.exchange(
            &frames::connect(client_id, clean),
            frames::CONNACK,
            |frame| match frame.body {
                [_, 0] => Ok(()),
                _ => Err(Fault::Wrong("the connection is refused")),
            },
        )?;
        Ok(connection)
    }

    /// Subscribes to all filters, some hundred in one packet, and returns after the last SUBACK.
    pub(crate) fn subscribe(&mut self, filters: &[String], qos: u8) -> Result<(), Fault> {
        for (id, filters) in (1..).zip(filters.chunks(250)) {
            let packet = frames::subscribe(id, filters, qos);
            self.exchange(&packet, frames::SUBACK, |frame| match frame.body.get(2..) {
                Some(codes) if codes.iter().all(|code| *code == qos) => Ok(()),
                _ => Err(Fault::Wrong("a subscription is refused")),
            })?;
        }
        Ok(())
    }

    /// Sends a packet and reads the answer, on a blocking socket. What comes behind the answer waits.
    pub(crate) fn exchange(
        &mut self,
        packet: &[u8],
        answer: u8,
        check: impl Fn(Frame<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.send(packet)?;
        self.flush()?;
        let mut scratch = Scratch::new();
        let mut is_answered = false;
        while !is_answered {
            let received = self.receive_bytes(&mut scratch, |bytes| {
                let Some((frame, size)) = next_frame(bytes)? else {
                    return Ok(0);
                };
                if frame.first != answer {
                    return Err(Fault::Wrong("another packet than the answer that is due"));
                }
                is_answered = true;
                check(frame).map(|()| size)
            })?;
            match received {
                Received::Something => {}
                Received::Nothing => return Err(Fault::Stalled { missing: 1 }),
                Received::End => return Err(Fault::Wrong("the broker closed the connection")),
            }
        }
        self.has_early = !self.carry.is_empty();
        Ok(())
    }

    /// Puts bytes into the output through the layer. They leave with [`Self::flush`].
    pub(crate) fn send(&mut self, plain: &[u8]) -> io::Result<()> {
        if plain.is_empty() {
            return Ok(());
        }
        match &mut self.layer {
            Layer::Plain => self.output.extend_from_slice(plain),
            Layer::WebSocket(framing) => framing.send(plain, &mut self.output),
            Layer::Tls(tls) => {
                tls.writer().write_all(plain)?;
                while tls.wants_write() {
                    tls.write_tls(&mut self.output)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what waits. Whether all is gone.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.socket.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads once and hands over every whole frame.
    pub(crate) fn receive(
        &mut self,
        scratch: &mut Scratch,
        mut on_frame: impl FnMut(Frame<'_>) -> Result<(), Fault>,
    ) -> Result<Received, Fault> {
        self.receive_bytes(scratch, |bytes| {
            let mut used = 0;
            while let Some((frame, size)) = next_frame(&bytes[used..])? {
                on_frame(frame)?;
                used += size;
            }
            Ok(used)
        })
    }

    /// Reads once and hands over all bytes that wait; `take` says how many of them it took.
    pub(crate) fn receive_bytes(
        &mut self,
        scratch: &mut Scratch,
        take: impl FnOnce(&[u8]) -> Result<usize, Fault>,
    ) -> Result<Received, Fault> {
        if mem::take(&mut self.has_early) {
            let bytes = mem::take(&mut self.carry);
            let used = take(&bytes)?;
            self.carry.extend_from_slice(&bytes[used..]);
            return Ok(Received::Something);
        }
        let Scratch { raw, plain } = scratch;
        // Without a layer the bytes are read behind those that wait, and used where they are.
        let carried = if matches!(self.layer, Layer::Plain) {
            self.carry.len()
        } else {
            0
        };
        if raw.len() < carried + READ_BYTES / 2 {
            raw.resize(carried + READ_BYTES, 0);
        }
        let count = match self.socket.read(&mut raw[carried..]) {
            Ok(0) => return Ok(Received::End),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Received::Nothing),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(Received::Nothing);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Received::End),
            Err(error) => return Err(error.into()),
        };
        let bytes: &[u8] = match &mut self.layer {
            Layer::Plain => {
                raw[..carried].copy_from_slice(&self.carry);
                &raw[..carried + count]
            }
            Layer::WebSocket(framing) => {
                plain.clear();
                plain.append(&mut self.carry);
                framing.receive(&mut raw[..count], plain)?;
                plain
            }
            Layer::Tls(tls) => {
                plain.clear();
                plain.append(&mut self.carry);
                decrypt(tls, &raw[..count], plain)?;
                plain
            }
        };
        let used = take(bytes)?;
        self.carry.clear();
        self.carry.extend_from_slice(&bytes[used..]);
        Ok(Received::Something)
    }
}

/// Takes in `raw` and appends all plain bytes that there are.
fn decrypt(tls: &mut rustls::Connection, mut raw: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[start..])?;
        if raw.is_empty() {
            return Ok(());
        }
        tls.read_tls(&mut raw)?;
    }
}
