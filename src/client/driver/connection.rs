//! The reading side of one connection: bytes become packets, packets go to the session, and pings show whether anybody is there.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::client::session::Effects;
use crate::client::shared::{Shared, Urgency, now};
use crate::client::{ClientError, Phase};
use crate::net::Socket;
use crate::net::transport::Received;
use crate::outbox::Outbox;
use crate::packet_log;
use crate::proto::flow::keep_alive::{PingAction, PingSchedule};
use crate::proto::packet::{Packet, PacketType, Publish, PublishView};
use crate::proto::{Decoder, Frame};

/// The reading side of one connection.
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) socket: Arc<Socket>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) decoder: Decoder,
    /// Plain bytes that are no whole packet yet.
    pub(super) received: BytesMut,
    pub(super) raw: Vec<u8>,
    /// Decoded and not yet handled.
    pub(super) batch: Vec<Decoded>,
    pub(super) schedule: PingSchedule,
    pub(super) made_at: Instant,
    pub(super) last_received_at: Instant,
    pub(super) read_timeout: Option<Duration>,
    /// Nothing is read because the inbox is full.
    pub(super) is_paused: bool,
}

/// A packet, PUBLISH without the box that [`Packet`] has around it.
pub(super) enum Decoded {
    Publish(Publish),
    Other(Packet),
}

impl Connection {
    /// Reads, pings and handles until the connection ends: why it did.
    pub(super) fn serve(&mut self, shared: &Arc<Shared>) -> ClientError {
        loop {
            match self.step(shared) {
                Ok(()) => {}
                Err(error) => return error,
            }
        }
    }

    fn step(&mut self, shared: &Arc<Shared>) -> Result<(), ClientError> {
        self.handle_received(shared)?;
        let ping_at = self.keep_alive(shared)?;
        if !shared.inbox.may_read(ping_at, now) {
            self.is_paused = true;
            return Ok(());
        }
        if std::mem::take(&mut self.is_paused) {
            self.last_received_at = now();
        }
        self.read(shared, ping_at)
    }

    /// Pings if it is time to: when to look again.
    fn keep_alive(&mut self, shared: &Arc<Shared>) -> Result<Option<Instant>, ClientError> {
        loop {
            let now = now();
            let mut core = shared.lock();
            let (session, link) = core.live().ok_or(ClientError::ConnectionLost)?;
            // Who does not read cannot miss an answer.
            let pinged_at = if self.is_paused {
                None
            } else {
                session.pinged_at().map(|at| at.max(self.last_received_at))
            };
            match self.schedule.next(link.last_sent_at, pinged_at, now) {
                PingAction::Wait(until) => return Ok(until),
                PingAction::GiveUp => return Err(ClientError::Timeout(Phase::Pingresp)),
                PingAction::SendPingreq => {
                    session.ping(now, None, link.first());
                    link.last_sent_at = now;
                    shared.send(core, Urgency::Now);
                }
            }
        }
    }

    // BLOCKS: until bytes come or `deadline`.
    fn read(&mut self, shared: &Shared, deadline: Option<Instant>) -> Result<(), ClientError> {
        self.set_read_timeout(deadline)?;
        // The answer may stand behind what was read, and the server's TCP may wait for ours before it sends it.
        if shared.is_awaiting() {
            self.socket.acknowledge();
        }
        let read = match self.socket.read(&mut self.raw) {
            Ok(0) => return Err(ClientError::ConnectionLost),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
            Err(error) => return Err(ClientError::Network(Arc::new(error.into()))),
        };
        self.last_received_at = now();
        let raw = self.raw.get(..read).unwrap_or_default();
        let received = self.outbox.receive(raw, &mut self.received)?;
        if read == self.raw.len() && read < LARGEST_READ {
            self.raw.resize(read * 4, 0);
        }
        match received {
            Received::Open => Ok(()),
            Received::Closed if self.received.is_empty() => Err(ClientError::ConnectionLost),
            Received::Closed => Ok(()), // the socket says the same after these packets
        }
    }

    /// Sets the socket's timeout, unless the one it has will do: a system call for each read would be too many.
    fn set_read_timeout(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let wanted = deadline.map(|deadline| deadline.saturating_duration_since(now()));
        let will_do = match (self.read_timeout, wanted) {
            (None, None) => true,
            (Some(set), Some(wanted)) => {
                set <= wanted + TIMEOUT_SLACK.min(wanted / 8) && set >= wanted / 2
            }
            _ => false,
        };
        if !will_do {
            let set = self.socket.set_read_timeout(wanted);
            set.map_err(|error| ClientError::Network(Arc::new(error.into())))?;
            self.read_timeout = wanted;
        }
        Ok(())
    }

    /// Handles the whole packets among the bytes received, as one batch.
    fn handle_received(&mut self, shared: &Arc<Shared>) -> Result<(), ClientError> {
        let decoded = self.decode(shared);
        if self.batch.is_empty() {
            return decoded;
        }
        let mut effects = Effects::default();
        let mut core = shared.lock();
        let (session, link) = core.live().ok_or(ClientError::ConnectionLost)?;
        let mut handled = Ok(());
        for packet in self.batch.drain(..) {
            handled = match packet {
                Decoded::Publish(publish) => {
                    session.on_publish(publish, &mut link.pending, &mut effects)
                }
                Decoded::Other(packet) => {
                    session.on_packet(packet, &mut link.pending, &mut effects)
                }
            };
            if handled.is_err() {
                break;
            }
        }
        shared.send(core, Urgency::Now);
        let carried_out = self.carry_out(shared, effects);
        handled.and(decoded).and(carried_out)
    }

    fn carry_out(&mut self, shared: &Arc<Shared>, mut effects: Effects) -> Result<(), ClientError> {
        if !effects.delivered.is_empty() {
            let dropped = shared.inbox.deliver(&mut effects.delivered);
            if dropped > 0 {
                log::warn!(
                    "the inbox is full while the program waits for the server: {dropped} messages of QoS 0 dropped"
                );
            }
        }
        for (filter, reason) in effects.lost_subscriptions.drain(..) {
            log::warn!("the server did not take back the subscription to '{filter}': {reason}");
        }
        effects.tell();
        if effects.room {
            shared.notify();
        }
        effects
            .authentications
            .iter()
            .try_for_each(|auth| shared.on_auth(auth))
    }

    /// Decodes the whole packets among the bytes received. What stands before an error is decoded.
    fn decode(&mut self, shared: &Shared) -> Result<(), ClientError> {
        let (whole, broken) = self.whole_packets();
        if whole > 0 {
            let packets = self.received.split_to(whole).freeze();
            self.decode_all(shared, &packets)?;
        }
        broken
    }

    /// How many bytes whole packets take, and whether what follows them cannot be one.
    fn whole_packets(&self) -> (usize, Result<(), ClientError>) {
        let mut whole = 0;
        loop {
            let rest = self.received.get(whole..).unwrap_or_default();
            match self.decoder.frame(rest) {
                Ok(Some(frame)) => whole += frame.total_bytes as usize,
                Ok(None) => return (whole, Ok(())),
                Err(error) => return (whole, Err(error.into())),
            }
        }
    }

    fn decode_all(&mut self, shared: &Shared, packets: &Bytes) -> Result<(), ClientError> {
        let mut at = 0;
        while let Some(frame) = self.decoder.frame(packets.get(at..).unwrap_or_default())? {
            let decoded = self.decode_one(frame, packets, at)?;
            if packet_log::is_on() {
                let client_id = shared.lock().result.client_id.clone();
                match &decoded {
                    Decoded::Publish(publish) => {
                        packet_log::received_publish(&client_id, frame, publish);
                    }
                    Decoded::Other(packet) => packet_log::received(&client_id, frame, packet),
                }
            }
            self.batch.push(decoded);
            at += frame.total_bytes as usize;
        }
        Ok(())
    }

    fn decode_one(&self, frame: Frame, packets: &Bytes, at: usize) -> Result<Decoded, ClientError> {
        let end = at + frame.total_bytes as usize;
        if frame.packet_type == PacketType::Publish {
            let bytes = packets.get(at..end).unwrap_or_default();
            let view = PublishView::decode(&self.decoder, frame, bytes)?;
            return Ok(Decoded::Publish(view.into_publish(packets)));
        }
        let packet = self.decoder.decode(frame, &packets.slice(at..end))?;
        Ok(Decoded::Other(packet))
    }
}

pub(super) const SMALLEST_READ: usize = 4 * 1024;

const LARGEST_READ: usize = 64 * 1024;

/// By how much a ping may be late.
const TIMEOUT_SLACK: Duration = Duration::from_millis(250);
