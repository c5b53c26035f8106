//! Everything before MQTT, for both sides: a socket, a deadline, and the layers as they come up.
//!
//! The deadline is absolute: a peer that sends a byte now and then gains nothing.

use std::io;
use std::time::Instant;

use bytes::BytesMut;

use super::error::{NetError, Phase};
use super::socket::Socket;
use super::tls::TlsLayer;
use super::transport::{Layers, Received, time_left};
use super::upgrade::{self, Question};
use super::websocket::{Role, WebSocketLayer, WebSocketOptions};

/// A connection before MQTT begins.
pub(super) struct Handshake<'a> {
    socket: &'a Socket,
    deadline: Instant,
    tls: Option<TlsLayer>,
    websocket: Option<WebSocketLayer>,
    /// What has arrived and been through the layers that are up.
    received: BytesMut,
}

impl<'a> Handshake<'a> {
    pub(super) fn new(socket: &'a Socket, deadline: Instant) -> Self {
        Self {
            socket,
            deadline,
            tls: None,
            websocket: None,
            received: BytesMut::new(),
        }
    }

    /// What has arrived and nobody took.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Drops the first bytes of what has arrived.
    pub(super) fn consume(&mut self, count: usize) {
        let _ = self.received.split_to(count);
    }

    /// Brings TLS up.
    pub(super) fn tls(&mut self, tls: TlsLayer) -> Result<&TlsLayer, NetError> {
        let raw = std::mem::take(&mut self.received);
        let tls = self.tls.insert(tls);
        let mut result = tls.receive(&raw, &mut self.received);
        loop {
            // An alert is sent before the error is returned.
            let told = self.write_control(Phase::TlsHandshake);
            let _ = result?;
            told?;
            if !self.tls.as_ref().is_some_and(TlsLayer::is_handshaking) {
                break;
            }
            result = self.read_some(Phase::TlsHandshake);
        }
        self.tls
            .as_ref()
            .ok_or(NetError::Closed(Phase::TlsHandshake))
    }

    /// Answers a client's upgrade.
    pub(super) fn accept_websocket(&mut self, options: &WebSocketOptions) -> Result<(), NetError> {
        let length = match self.read_head() {
            Err(NetError::WebSocket(error)) => {
                self.write(&upgrade::refuse_long_header(), Phase::WebSocketHandshake)?;
                return Err(error.into());
            }
            result => result?,
        };
        let head = self.received.split_to(length);
        let answer = upgrade::answer(&head, options);
        self.write(&answer.response, Phase::WebSocketHandshake)?;
        answer.result?;
        self.websocket_is_up(WebSocketLayer::new(Role::Server, options.max_message_bytes))
    }

    /// Asks a server for the upgrade.
    pub(super) fn ask_for_websocket(
        &mut self,
        question: &Question,
        max_message_bytes: usize,
    ) -> Result<(), NetError> {
        self.write(&question.request, Phase::WebSocketHandshake)?;
        let length = self.read_head()?;
        let head = self.received.split_to(length);
        question.check(&head)?;
        self.websocket_is_up(WebSocketLayer::new(Role::Client, max_message_bytes))
    }

    /// The layers, and the plain bytes that came early. The socket has no timeouts any more.
    pub(super) fn finish(self) -> Result<(Layers, Vec<u8>), NetError> {
        self.socket.set_read_timeout(None)?;
        self.socket.set_write_timeout(None)?;
        Ok((Layers::new(self.tls, self.websocket), self.received.into()))
    }

    /// Reads more. The peer must not close here.
    pub(super) fn read_some(&mut self, phase: Phase) -> Result<Received, NetError> {
        let mut raw = [0; READ_BYTES];
        self.socket.set_read_timeout(Some(self.time_left(phase)?))?;
        // BLOCKS: on the socket until bytes arrive, at most until the deadline.
        let count = self
            .socket
            .read(&mut raw)
            .map_err(|error| during(error, phase))?;
        let raw = raw.get(..count).unwrap_or_default();
        if raw.is_empty() {
            return Err(NetError::Closed(phase));
        }
        match &mut self.tls {
            None => {
                self.received.extend_from_slice(raw);
                Ok(Received::Open)
            }
            Some(tls) => tls.receive(raw, &mut self.received),
        }
    }

    fn read_head(&mut self) -> Result<usize, NetError> {
        let mut known = 0;
        loop {
            if let Some(length) = upgrade::head_length(&self.received, known)? {
                return Ok(length);
            }
            known = self.received.len();
            let received = self.read_some(Phase::WebSocketHandshake);
            self.write_control(Phase::WebSocketHandshake)?;
            if received? == Received::Closed {
                return Err(NetError::Closed(Phase::WebSocketHandshake));
            }
        }
    }

    fn websocket_is_up(&mut self, mut websocket: WebSocketLayer) -> Result<(), NetError> {
        let raw = std::mem::take(&mut self.received);
        if let Err(error) = websocket.receive(&raw, &mut self.received) {
            let mut goodbye = Vec::new();
            websocket.take_control(&mut goodbye);
            self.write(&goodbye, Phase::WebSocketHandshake)?;
            return Err(error);
        }
        self.websocket = Some(websocket);
        Ok(())
    }

    fn write_control(&mut self, phase: Phase) -> Result<(), NetError> {
        let mut wire = Vec::new();
        if let Some(tls) = &mut self.tls {
            tls.take_control(&mut wire);
        }
        self.write_wire(&wire, phase)
    }

    fn write(&mut self, plain: &[u8], phase: Phase) -> Result<(), NetError> {
        match &mut self.tls {
            None => self.write_wire(plain, phase),
            Some(tls) => {
                let mut wire = Vec::new();
                tls.send(plain, &mut wire)?;
                self.write_wire(&wire, phase)
            }
        }
    }

    fn write_wire(&self, wire: &[u8], phase: Phase) -> Result<(), NetError> {
        let mut rest = wire;
        while !rest.is_empty() {
            self.socket
                .set_write_timeout(Some(self.time_left(phase)?))?;
            // BLOCKS: on the socket until the peer makes room, at most until the deadline.
            let written = self
                .socket
                .write_vectored(&[io::IoSlice::new(rest)])
                .map_err(|error| during(error, phase))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn time_left(&self, phase: Phase) -> Result<std::time::Duration, NetError> {
        time_left(self.deadline).ok_or(NetError::Timeout(phase))
    }
}

fn during(error: io::Error, phase: Phase) -> NetError {
    match error.kind() {
        io::ErrorKind::TimedOut => NetError::Timeout(phase),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => NetError::Closed(phase),
        _ => error.into(),
    }
}

/// On the stack, while a handshake lasts.
const READ_BYTES: usize = 4096;
