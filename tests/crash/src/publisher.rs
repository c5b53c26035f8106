//! A publisher that knows what was acknowledged, and sends again what was not.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::arena::Arena;
use crate::clock::{now, tick};
use crate::fault::Fault;
use crate::frames::{
    Connect, Outgoing, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Version, push_ack, push_publish,
};
use crate::model::{NEVER, Sent, Stream, payload};
use crate::random::Random;
use crate::wire::{PATIENCE, Wire};

/// A publisher with a session that outlives its connections.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) name: String,
    version: Version,
    wire: Option<Wire>,
    /// The number of the first of its streams among all.
    pub(crate) first_stream: usize,
    pub(crate) streams: Vec<Stream>,
    window: usize,
    flights: VecDeque<Flight>,
    has_session: bool,
    random: Random,
    /// What the broker did that it must not do.
    pub(crate) complaints: Vec<String>,
    pub(crate) acknowledged: u64,
}

/// A message that is not completed.
#[derive(Debug, Clone, Copy)]
struct Flight {
    id: u16,
    stream: usize,
    number: usize,
    qos: u8,
    /// QoS 2: PUBREC came.
    is_received: bool,
}

impl Publisher {
    pub(crate) fn new(
        name: String,
        version: Version,
        first_stream: usize,
        streams: Vec<Stream>,
        window: usize,
        random: Random,
    ) -> Self {
        Self {
            name,
            version,
            wire: None,
            first_stream,
            streams,
            window,
            flights: VecDeque::new(),
            has_session: false,
            random,
            complaints: Vec::new(),
            acknowledged: 0,
        }
    }

    /// The broker ended.
    pub(crate) fn on_end(&mut self) {
        self.wire = None;
    }

    /// Publishes up to `budget` messages in bursts, reconnecting at times, until the broker ends.
    pub(crate) fn run(&mut self, arena: &Arena, budget: usize) {
        let mut left = budget;
        loop {
            if let Err(fault) = self.go_on(arena, &mut left) {
                self.read_out();
                if !arena.explains(&fault) {
                    self.complain(format!("while publishing: {fault}"));
                }
                if arena.wait(PAUSE) {
                    return;
                }
            }
            if left == 0 && self.flights.is_empty() {
                arena.wait(PATIENCE);
                return;
            }
        }
    }

    fn go_on(&mut self, arena: &Arena, left: &mut usize) -> Result<(), Fault> {
        if self.random.once_in(300) {
            self.wire = None;
        }
        self.connect(arena.address)?;
        let room = self.window.saturating_sub(self.flights.len()).min(*left);
        if room > 0 && !self.random.once_in(4) {
            let burst = self.random.between(1, room);
            let mut out = Vec::new();
            for _ in 0..burst {
                let stream = self.some_stream();
                self.push(&mut out, stream);
            }
            *left -= burst;
            arena.add_published(burst);
            self.send(&out)?;
        }
        let wait = Duration::from_millis(self.random.below(4) as u64);
        self.take_waiting(wait)
    }

    /// Ends the connection, and takes what had come by it: an acknowledgement counts once it has left the broker.
    fn read_out(&mut self) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        while let Ok(Some(packet)) = wire.next(PAUSE) {
            // It cannot be answered any more.
            let _ = self.take(packet);
        }
    }

    /// Connects if there is no connection, and sends again what is not completed.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> Result<(), Fault> {
        if self.wire.is_some() {
            return Ok(());
        }
        // A session that is not known to exist may hold what nobody remembers.
        let begins = !self.has_session;
        if begins && self.version == Version::V311 {
            self.open(address, true, false)?;
        }
        let present = self.open(address, begins && self.version == Version::V5, true)?;
        if present == begins {
            self.complain(format!("session present was {present} at CONNACK"));
        }
        self.has_session = true;
        let mut out = Vec::new();
        let flights = std::mem::take(&mut self.flights);
        for flight in &flights {
            if flight.is_received {
                push_ack(&mut out, PUBREL, flight.id);
            } else {
                self.streams[flight.stream].sent[flight.number].is_resent = true;
                self.push_flight(&mut out, flight, true);
            }
        }
        self.flights = flights;
        self.send(&out)
    }

    fn open(&mut self, address: SocketAddr, clean: bool, keeps: bool) -> Result<bool, Fault> {
        let connect = Connect {
            version: self.version,
            client_id: &self.name,
            clean,
            keeps,
            receive_maximum: 0,
            will: None,
        };
        let (wire, present) = Wire::accepted(address, &connect)?;
        self.wire = Some(wire);
        Ok(present)
    }

    /// How many messages are not completed.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Connects and waits until everything is completed.
    pub(crate) fn settle(&mut self, address: SocketAddr) -> Result<(), Fault> {
        self.connect(address)?;
        let deadline = now() + PATIENCE;
        while !self.flights.is_empty() {
            self.take_waiting(Duration::from_millis(200))?;
            if now() > deadline {
                return Err(Fault::Wrong(format!(
                    "{} messages are not acknowledged within {PATIENCE:?}",
                    self.flights.len()
                )));
            }
        }
        Ok(())
    }

    /// Publishes one message on each stream, and waits until all are completed.
    pub(crate) fn probe(&mut self, address: SocketAddr) -> Result<(), Fault> {
        for stream in 0..self.streams.len() {
            while self.flights.len() >= self.window {
                self.take_waiting(Duration::from_millis(200))?;
            }
            let mut out = Vec::new();
            self.push(&mut out, stream);
            self.send(&out)?;
        }
        self.settle(address)
    }

    /// Any, but quiet ones seldom.
    fn some_stream(&mut self) -> usize {
        loop {
            let stream = self.random.below(self.streams.len());
            if !self.streams[stream].is_quiet || self.random.once_in(40) {
                return stream;
            }
        }
    }

    /// Appends the next message of a stream.
    fn push(&mut self, out: &mut Vec<u8>, stream: usize) {
        let Some(id) = self.free_id() else { return };
        let of = &mut self.streams[stream];
        let number = of.sent.len();
        of.sent.push(Sent {
            at: tick(),
            acknowledged: NEVER,
            clears: of.retain && self.random.once_in(6),
            is_resent: false,
        });
        let flight = Flight {
            id,
            stream,
            number,
            qos: of.qos,
            is_received: false,
        };
        self.push_flight(out, &flight, false);
        self.flights.push_back(flight);
    }

    fn push_flight(&self, out: &mut Vec<u8>, flight: &Flight, dup: bool) {
        let stream = &self.streams[flight.stream];
        let payload = match stream.sent[flight.number].clears {
            true => Vec::new(),
            false => payload(self.first_stream + flight.stream, flight.number),
        };
        let publish = Outgoing {
            topic: &stream.topic,
            payload: &payload,
            qos: flight.qos,
            retain: stream.retain,
            dup,
            id: flight.id,
        };
        push_publish(out, self.version, &publish);
    }

    /// The lowest one, so that identifiers are used again as soon as may be.
    fn free_id(&self) -> Option<u16> {
        let mut ids = 1..=u16::MAX;
        ids.find(|id| self.flights.iter().all(|flight| flight.id != *id))
    }

    fn take_waiting(&mut self, wait: Duration) -> Result<(), Fault> {
        let mut wait = wait;
        loop {
            let Some(wire) = &mut self.wire else {
                return Err(Fault::Lost("there is no connection".to_owned()));
            };
            let Some(packet) = wire.next(wait)? else {
                return Ok(());
            };
            wait = Duration::ZERO;
            self.take(packet)?;
        }
    }

    fn take(&mut self, packet: Packet) -> Result<(), Fault> {
        match packet {
            Packet::Ack { kind, id, reason } => return self.take_ack(kind, id, reason),
            Packet::Disconnect { reason } => {
                return Err(Fault::Lost(format!("DISCONNECT {reason:#04x}")));
            }
            other => self.complain(format!("was sent {other:?}")),
        }
        Ok(())
    }

    fn take_ack(&mut self, kind: u8, id: u16, reason: u8) -> Result<(), Fault> {
        let (qos, is_received) = match kind {
            PUBACK => (1, false),
            PUBREC => (2, false),
            _ => (2, true),
        };
        let is_due = |flight: &Flight| flight.qos == qos && flight.is_received == is_received;
        let at = self.flights.iter().position(|flight| flight.id == id);
        let Some((at, flight)) = at
            .map(|at| (at, self.flights[at]))
            .filter(|(_, flight)| is_due(flight))
        else {
            self.complain(format!(
                "{kind:#04x} for {id}, which waits for no such packet"
            ));
            return Ok(());
        };
        // [MQTT-4.6.0-2], [MQTT-4.6.0-3]
        if kind != PUBCOMP && self.flights.iter().take(at).any(is_due) {
            self.complain(format!(
                "{kind:#04x} for {id} before that of an earlier message"
            ));
        }
        if kind != PUBCOMP {
            let of = &mut self.streams[flight.stream];
            of.sent[flight.number].acknowledged = tick();
            self.acknowledged += 1;
            if reason >= 0x80 {
                self.complain(format!("a message was refused with {reason:#04x}"));
            }
        }
        if kind == PUBREC {
            self.flights[at].is_received = true;
            let mut out = Vec::new();
            push_ack(&mut out, PUBREL, id);
            return self.send(&out);
        }
        self.flights.remove(at);
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.wire {
            Some(wire) => wire.send(bytes),
            None => Err(Fault::Lost("there is no connection".to_owned())),
        }
    }

    pub(crate) fn complain(&mut self, text: String) {
        self.complaints.push(format!("{}: {text}", self.name));
    }
}

/// How long a client waits before it tries again, and for what may still come.
const PAUSE: Duration = Duration::from_millis(100);
