//! Many numbered messages one way: a publisher that goes on where it was, and a receiver that acknowledges all.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::fault::Fault;
use crate::frames::{
    Connect, Outgoing, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish, Version, push_ack,
    push_publish, subscribe,
};
use crate::wire::{PATIENCE, Wire};

/// Publishes the numbers from 0 on.
#[derive(Debug)]
pub(crate) struct Loader {
    client_id: String,
    version: Version,
    topic: String,
    /// Every message has a topic of its own below `topic`.
    pub(crate) spreads: bool,
    pub(crate) retain: bool,
    qos: u8,
    window: usize,
    payload_bytes: usize,
    wire: Option<Wire>,
    /// `None`: it asked for one, and the answer was lost.
    has_session: Option<bool>,
    /// The first message that is not completed.
    first: u64,
    flights: VecDeque<Flight>,
    /// How many are acknowledged.
    pub(crate) acknowledged: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Sent,
    /// QoS 2: PUBREC came.
    Received,
    Completed,
}

impl Loader {
    pub(crate) fn new(
        client_id: &str,
        (version, qos): (Version, u8),
        topic: &str,
        window: usize,
        payload_bytes: usize,
    ) -> Self {
        Self {
            client_id: client_id.to_owned(),
            version,
            topic: topic.to_owned(),
            spreads: false,
            retain: false,
            qos,
            window,
            payload_bytes,
            wire: None,
            has_session: Some(false),
            first: 0,
            flights: VecDeque::new(),
            acknowledged: 0,
        }
    }

    /// Publishes all numbers below `end`, until all are completed. After an error it goes on where it was.
    pub(crate) fn run(&mut self, address: SocketAddr, end: u64) -> Result<(), Fault> {
        self.run_while(address, || end)
    }

    /// As [`run`](Self::run), up to the number that `end` gives; it is asked again and again.
    pub(crate) fn run_while(
        &mut self,
        address: SocketAddr,
        end: impl Fn() -> u64,
    ) -> Result<(), Fault> {
        let result = self.go_on(address, &end, PATIENCE);
        if result.is_err() {
            self.wire = None;
        }
        result
    }

    /// As [`run`](Self::run), but gives up when no acknowledgement comes for so long, and keeps the connection.
    pub(crate) fn run_patiently(
        &mut self,
        address: SocketAddr,
        end: u64,
        patience: Duration,
    ) -> Result<(), Fault> {
        self.go_on(address, &|| end, patience)
    }

    fn go_on(
        &mut self,
        address: SocketAddr,
        end: &impl Fn() -> u64,
        patience: Duration,
    ) -> Result<(), Fault> {
        self.connect(address)?;
        loop {
            let next = self.first + self.flights.len() as u64;
            let room = self.window - self.flights.len();
            let wanted = end().saturating_sub(next).min(room as u64);
            // Half a window at a time: fewer system calls, and never nothing on its way.
            if wanted > 0 && room * 2 >= self.window {
                let mut out = Vec::new();
                for number in next..next + wanted {
                    self.push(&mut out, number, false);
                    self.flights.push_back(Flight::Sent);
                }
                self.send(&out)?;
            }
            if self.flights.is_empty() {
                return Ok(());
            }
            self.take(patience)?;
        }
    }

    fn connect(&mut self, address: SocketAddr) -> Result<(), Fault> {
        if self.wire.is_some() {
            return Ok(());
        }
        let connect = Connect {
            version: self.version,
            client_id: &self.client_id,
            clean: false,
            keeps: true,
            receive_maximum: 0,
            will: None,
        };
        let expected = self.has_session;
        self.has_session = expected.filter(|has_session| *has_session);
        let (wire, present) = Wire::accepted(address, &connect)?;
        self.wire = Some(wire);
        if expected.is_some_and(|expected| present != expected) {
            return Err(Fault::Wrong(format!("session present is {present}")));
        }
        self.has_session = Some(true);
        let mut out = Vec::new();
        for (number, flight) in (self.first..).zip(&self.flights) {
            match flight {
                Flight::Sent => self.push(&mut out, number, true),
                Flight::Received => push_ack(&mut out, PUBREL, self.id(number)),
                Flight::Completed => {}
            }
        }
        self.send(&out)
    }

    fn id(&self, number: u64) -> u16 {
        (number % self.window as u64) as u16 + 1
    }

    fn push(&self, out: &mut Vec<u8>, number: u64, dup: bool) {
        let of_its_own = self.spreads.then(|| format!("{}/{number}", self.topic));
        let publish = Outgoing {
            topic: of_its_own.as_deref().unwrap_or(&self.topic),
            payload: &numbered(number, self.payload_bytes),
            qos: self.qos,
            retain: self.retain,
            dup,
            id: self.id(number),
        };
        push_publish(out, self.version, &publish);
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.wire {
            Some(wire) => wire.send(bytes),
            None => Err(Fault::Lost("there is no connection".to_owned())),
        }
    }

    /// Waits for one packet, and takes what else is there.
    pub(crate) fn take(&mut self, wait: Duration) -> Result<(), Fault> {
        let (mut wait, mut out, mut is_first) = (wait, Vec::new(), true);
        loop {
            let Some(wire) = &mut self.wire else {
                return Err(Fault::Lost("there is no connection".to_owned()));
            };
            let packet = match wire.next(wait)? {
                Some(packet) => packet,
                None if is_first => {
                    return Err(Fault::Wrong(format!(
                        "no acknowledgement for {} messages",
                        self.flights.len()
                    )));
                }
                None => {
                    return if out.is_empty() {
                        Ok(())
                    } else {
                        wire.send(&out)
                    };
                }
            };
            (wait, is_first) = (Duration::ZERO, false);
            let Packet::Ack { kind, id, reason } = packet else {
                return Err(Fault::Lost(format!("{packet:?}")));
            };
            // PUBREL that is sent again may be for a flow that was completed.
            if reason >= 0x80 && kind != PUBCOMP {
                return Err(Fault::Wrong(format!("refused with {reason:#04x}")));
            }
            self.take_ack(kind, id, &mut out)?;
        }
    }

    fn take_ack(&mut self, kind: u8, id: u16, out: &mut Vec<u8>) -> Result<(), Fault> {
        let window = self.window as u64;
        let at = (u64::from(id) - 1 + window - self.first % window) % window;
        let Some(flight) = self.flights.get_mut(at as usize) else {
            return Err(Fault::Wrong(format!("{kind:#04x} for {id}, which is free")));
        };
        if kind != PUBCOMP && *flight == Flight::Sent {
            self.acknowledged += 1;
        }
        *flight = Flight::Completed;
        if kind == PUBREC {
            *flight = Flight::Received;
            push_ack(out, PUBREL, id);
        }
        while self
            .flights
            .pop_front_if(|flight| *flight == Flight::Completed)
            .is_some()
        {
            self.first += 1;
        }
        Ok(())
    }
}

/// The number, then bytes up to the length; 8 at least.
pub(crate) fn numbered(number: u64, payload_bytes: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(payload_bytes.max(8), b'.');
    payload
}

/// The number of a message.
pub(crate) fn number(payload: &[u8]) -> Option<u64> {
    let (number, rest) = payload.split_first_chunk()?;
    let is_whole = rest.iter().all(|byte| *byte == b'.');
    is_whole.then(|| u64::from_be_bytes(*number))
}

/// Receives, and acknowledges all.
#[derive(Debug)]
pub(crate) struct Receiver {
    wire: Wire,
    open: BTreeSet<u16>,
    /// Packets that came so far.
    packets: u64,
    pub(crate) present: bool,
}

impl Receiver {
    /// Connects with a session that is kept; `filter`: and subscribes.
    pub(crate) fn open(
        address: SocketAddr,
        client_id: &str,
        version: Version,
        filter: Option<(&str, u8)>,
    ) -> Result<Self, Fault> {
        Self::connect(address, client_id, version, filter, true)
    }

    /// The same with a session that ends with its connection.
    pub(crate) fn transient(
        address: SocketAddr,
        client_id: &str,
        filter: Option<(&str, u8)>,
    ) -> Result<Self, Fault> {
        Self::connect(address, client_id, Version::V5, filter, false)
    }

    fn connect(
        address: SocketAddr,
        client_id: &str,
        version: Version,
        filter: Option<(&str, u8)>,
        keeps: bool,
    ) -> Result<Self, Fault> {
        let connect = Connect {
            version,
            client_id,
            clean: !keeps,
            keeps,
            receive_maximum: 0,
            will: None,
        };
        let (wire, present) = Wire::accepted(address, &connect)?;
        let mut receiver = Self {
            wire,
            open: BTreeSet::new(),
            packets: 0,
            present,
        };
        if let Some((filter, qos)) = filter {
            receiver.wire.send(&subscribe(version, 1, &[filter], qos))?;
            match receiver.wire.expect("SUBACK")? {
                Packet::Suback { codes, .. } if codes == [qos] => {}
                other => return Err(Fault::Wrong(format!("{other:?} instead of SUBACK"))),
            }
        }
        Ok(receiver)
    }

    /// Waits so long for a message, then takes all that is there.
    pub(crate) fn take(&mut self, wait: Duration) -> Result<Vec<Publish>, Fault> {
        let (mut wait, mut taken, mut out) = (wait, Vec::new(), Vec::new());
        while let Some(packet) = self.wire.next(wait)? {
            self.packets += 1;
            match packet {
                Packet::Publish(publish) => {
                    let is_new = match publish.qos {
                        0 => true,
                        1 => {
                            push_ack(&mut out, PUBACK, publish.id);
                            true
                        }
                        _ => {
                            push_ack(&mut out, PUBREC, publish.id);
                            self.open.insert(publish.id)
                        }
                    };
                    taken.extend(is_new.then_some(publish));
                }
                Packet::Ack {
                    kind: PUBREL, id, ..
                } => {
                    self.open.remove(&id);
                    push_ack(&mut out, PUBCOMP, id);
                }
                other => return Err(Fault::Lost(format!("{other:?}"))),
            }
            wait = Duration::ZERO;
        }
        if !out.is_empty() {
            self.wire.send(&out)?;
        }
        Ok(taken)
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.wire.send(bytes)
    }

    /// The next packet is PUBACK.
    pub(crate) fn expect_puback(&mut self) -> Result<(), Fault> {
        match self.wire.expect("PUBACK")? {
            Packet::Ack { kind: PUBACK, .. } => Ok(()),
            other => Err(Fault::Wrong(format!("{other:?} instead of PUBACK"))),
        }
    }

    /// Takes the numbers of messages until `count` different ones came or nothing more comes, then what else comes in a
    /// moment, and how often one came again or late.
    pub(crate) fn count(&mut self, count: u64, patience: Duration) -> Result<Counted, Fault> {
        let mut counted = Counted::default();
        loop {
            let is_complete = counted.different >= count;
            let before = self.packets;
            let taken = self.take(if is_complete { AFTERWARDS } else { patience })?;
            if self.packets == before {
                break;
            }
            for publish in taken {
                let Some(number) = number(&publish.payload) else {
                    return Err(Fault::Wrong("a message that nobody sent".to_owned()));
                };
                counted.take(number);
            }
        }
        Ok(counted)
    }
}

/// How long after the last message one that comes again is waited for.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// Which numbers came.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    seen: Vec<bool>,
    pub(crate) different: u64,
    pub(crate) repeated: u64,
    /// For the first time after a higher one.
    pub(crate) late: u64,
}

impl Counted {
    fn take(&mut self, number: u64) {
        let at = number as usize;
        let is_behind = self.seen.len() > at;
        if !is_behind {
            self.seen.resize(at + 1, false);
        }
        if std::mem::replace(&mut self.seen[at], true) {
            self.repeated += 1;
        } else {
            self.different += 1;
            self.late += u64::from(is_behind);
        }
    }

    /// All numbers below it came, and each before those above it.
    pub(crate) fn is_complete(&self, count: u64) -> bool {
        self.different == count && self.seen.len() as u64 == count && self.late == 0
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            different,
            repeated,
            late,
            ..
        } = self;
        write!(f, "{different} ({repeated} again, {late} late)")
    }
}
