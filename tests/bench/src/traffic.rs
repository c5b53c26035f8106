//! Publishers and receivers in one event loop: sends within a window or by the clock, and checks every message's place,
//! topic, QoS and content.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::now;
use crate::connection::{Connection, Received, Scratch, Target};
use crate::fault::Fault;
use crate::frames::{self, Frame};
use crate::poller::{Poller, Ready};

/// Silence that counts as the broker's end.
const STALL: Duration = Duration::from_secs(10);

/// When the next message may leave.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Closed loop: at most `window` messages of a publisher on their way (neither delivered to all nor acknowledged);
    /// new ones leave when there is room for `refill` of them.
    Window { window: u64, refill: u64 },
    /// Open loop: so many a second, whatever comes back.
    PerSecond(u64),
}

/// Who sends what to whom. A stream is one topic with its own numbering.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) publishers: usize,
    pub(crate) receivers: usize,
    /// Topics in all, a multiple of `publishers`, each of which has its own.
    pub(crate) streams: usize,
    /// Every receiver gets every stream; else stream `n` goes to receiver `n` modulo their number.
    pub(crate) to_all: bool,
    pub(crate) qos: u8,
    pub(crate) payload_bytes: usize,
    pub(crate) pace: Pace,
    pub(crate) topic: fn(usize) -> String,
    /// The filters of a receiver, of so many streams and receivers.
    pub(crate) filters: fn(receiver: usize, receivers: usize, streams: usize) -> Vec<String>,
    pub(crate) keeps_latency: bool,
}

/// Where a run ends: at the first of both.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: u64,
    pub(crate) time: Duration,
}

/// One run's result.
pub(crate) struct Leg {
    pub(crate) deliveries: u64,
    pub(crate) seconds: f64,
    /// Nanoseconds from sending (or from when it was due) to arrival.
    pub(crate) latencies: Vec<u64>,
}

pub(crate) struct Traffic {
    poller: Poller,
    /// Receivers first, then publishers.
    connections: Vec<Connection>,
    scratch: Scratch,
    ready: Vec<Ready>,
    ledger: Ledger,
    batch: Vec<u8>,
}

impl Traffic {
    /// Connects everyone and subscribes.
    pub(crate) fn new(target: &Target, shape: Shape) -> Result<Self, Fault> {
        let poller = Poller::new()?;
        let mut connections = Vec::new();
        for receiver in 0..shape.receivers {
            let mut connection = Connection::connect(target, &format!("r{receiver}"), true)?;
            let filters = (shape.filters)(receiver, shape.receivers, shape.streams);
            connection.subscribe(&filters, shape.qos)?;
            connections.push(connection);
        }
        for publisher in 0..shape.publishers {
            connections.push(Connection::connect(target, &format!("p{publisher}"), true)?);
        }
        for (token, connection) in connections.iter().enumerate() {
            connection.socket.set_nonblocking(true)?;
            poller.add(&connection.socket, token)?;
        }
        let (scratch, ready, batch) = (Scratch::new(), Vec::new(), Vec::new());
        let ledger = Ledger::new(shape);
        Ok(Self {
            poller,
            connections,
            scratch,
            ready,
            ledger,
            batch,
        })
    }

    /// Sends until a bound is reached, and returns when all of it has arrived and is acknowledged.
    pub(crate) fn run(&mut self, bounds: Bounds) -> Result<Leg, Fault> {
        let start = now();
        let end = start + bounds.time;
        let already = self.ledger.delivered;
        self.ledger.start(bounds.messages, start);
        loop {
            self.refill()?;
            if self.ledger.is_complete() {
                break;
            }
            self.wait_and_receive()?;
            if now() >= end {
                self.ledger.stop();
            }
        }
        Ok(Leg {
            deliveries: self.ledger.delivered - already,
            seconds: start.elapsed().as_secs_f64(),
            latencies: std::mem::take(&mut self.ledger.latencies),
        })
    }

    /// Insists on silence after the last message: a doubled last one would come now.
    pub(crate) fn settle(&mut self) -> Result<(), Fault> {
        self.poller
            .wait(&mut self.ready, Duration::from_millis(10))?;
        self.receive()
    }

    fn refill(&mut self) -> Result<(), Fault> {
        while let Some(publisher) = self.ledger.with_room.pop_front() {
            self.batch.clear();
            self.ledger.fill(publisher, &mut self.batch);
            let token = self.ledger.shape.receivers + publisher;
            self.connections[token].send(&self.batch)?;
            self.flush(token)?;
        }
        Ok(())
    }

    fn wait_and_receive(&mut self) -> Result<(), Fault> {
        let due = self.ledger.next_due();
        let timeout = due.map_or(STALL, |due| due.saturating_duration_since(now()));
        self.poller.wait(&mut self.ready, timeout)?;
        if self.ready.is_empty() && due.is_none() {
            return Err(Fault::Stalled {
                missing: self.ledger.missing(),
            });
        }
        self.receive()
    }

    fn receive(&mut self) -> Result<(), Fault> {
        for at in 0..self.ready.len() {
            let Ready {
                token,
                readable,
                writable,
            } = self.ready[at];
            if readable {
                self.receive_from(token)?;
            }
            if readable || writable {
                self.flush(token)?;
            }
        }
        Ok(())
    }

    fn receive_from(&mut self, token: usize) -> Result<(), Fault> {
        let Self {
            connections,
            scratch,
            ledger,
            batch,
            ..
        } = self;
        batch.clear();
        ledger.arrived = ledger.shape.keeps_latency.then(now);
        let receivers = ledger.shape.receivers;
        let received =
            connections[token].receive(scratch, |frame| match token.checked_sub(receivers) {
                None => ledger.on_receiver(token, frame, batch),
                Some(publisher) => ledger.on_publisher(publisher, frame, batch),
            })?;
        if received == Received::End {
            return Err(Fault::Wrong("the broker closed a connection"));
        }
        connections[token].send(batch)?;
        Ok(())
    }

    fn flush(&mut self, token: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[token];
        let waits = !connection.flush()?;
        if waits != connection.waits_for_room {
            connection.waits_for_room = waits;
            self.poller.want_write(&connection.socket, token, waits)?;
        }
        Ok(())
    }
}

/// What was sent and what came. No socket here.
struct Ledger {
    shape: Shape,
    topics: Vec<String>,
    prefixes: Vec<Vec<u8>>,
    tail: Vec<u8>,
    /// Per stream, the next number to send.
    next: Vec<u64>,
    /// Per stream (with `to_all`: and receiver), the number that is due.
    due: Vec<u64>,
    publishers: Vec<Publisher>,
    /// Publishers that may send now.
    with_room: VecDeque<usize>,
    /// Messages that this run may still send.
    left: u64,
    sent: u64,
    completed: u64,
    delivered: u64,
    /// Open loop: when the run began, and how many messages it has sent since.
    started: Instant,
    sent_by_clock: u64,
    /// When the messages on their way were sent, oldest first.
    sent_at: VecDeque<Instant>,
    arrived: Option<Instant>,
    latencies: Vec<u64>,
}

struct Publisher {
    sent: u64,
    completed: u64,
    deliveries: u64,
    is_listed: bool,
    next_id: u16,
    /// Per packet identifier: 0 free, 1 PUBLISH sent, 2 PUBREL sent.
    ids: Vec<u8>,
    random: u64,
}

impl Ledger {
    fn new(shape: Shape) -> Self {
        let topics: Vec<String> = (0..shape.streams).map(shape.topic).collect();
        let prefix =
            |topic: &String| frames::publish_prefix(topic, shape.qos, false, shape.payload_bytes);
        let prefixes = topics.iter().map(prefix).collect();
        let ids = if shape.qos == 0 { 0 } else { 1 << 16 };
        let publisher = |number: usize| Publisher {
            sent: 0,
            completed: 0,
            deliveries: 0,
            is_listed: false,
            next_id: 1,
            ids: vec![0; ids],
            random: number as u64 + 1,
        };
        Self {
            topics,
            prefixes,
            tail: frames::tail(shape.payload_bytes),
            next: vec![0; shape.streams],
            due: vec![0; shape.streams * if shape.to_all { shape.receivers } else { 1 }],
            publishers: (0..shape.publishers).map(publisher).collect(),
            with_room: VecDeque::new(),
            left: 0,
            sent: 0,
            completed: 0,
            delivered: 0,
            started: now(),
            sent_by_clock: 0,
            sent_at: VecDeque::new(),
            arrived: None,
            latencies: Vec::new(),
            shape,
        }
    }

    fn start(&mut self, messages: u64, at: Instant) {
        self.left = messages;
        self.started = at;
        self.sent_by_clock = 0;
        for publisher in 0..self.publishers.len() {
            self.publishers[publisher].is_listed = true;
            self.with_room.push_back(publisher);
        }
    }

    fn stop(&mut self) {
        self.left = 0;
    }

    fn copies(&self) -> u64 {
        if self.shape.to_all {
            self.shape.receivers as u64
        } else {
            1
        }
    }

    fn missing(&self) -> u64 {
        self.sent * self.copies() - self.delivered
    }

    fn is_complete(&self) -> bool {
        let is_acknowledged = self.shape.qos == 0 || self.completed == self.sent;
        self.left == 0 && self.missing() == 0 && is_acknowledged
    }

    /// Open loop: when the next message is due. Lists the publisher when that is now.
    fn next_due(&mut self) -> Option<Instant> {
        let Pace::PerSecond(rate) = self.shape.pace else {
            return None;
        };
        if self.left == 0 {
            return None;
        }
        if !self.publishers[0].is_listed {
            self.publishers[0].is_listed = true;
            self.with_room.push_back(0);
        }
        Some(self.started + Duration::from_nanos((self.sent_by_clock + 1) * 1_000_000_000 / rate))
    }

    /// Messages of a publisher that may leave now.
    fn room(&self, publisher: usize) -> u64 {
        let known = &self.publishers[publisher];
        match self.shape.pace {
            Pace::Window { window, refill } => {
                let delivered = known.deliveries / self.copies();
                let done = if self.shape.qos == 0 {
                    delivered
                } else {
                    delivered.min(known.completed)
                };
                let room = window - (known.sent - done);
                if room >= refill { room } else { 0 }
            }
            Pace::PerSecond(rate) => {
                let passed = self.started.elapsed().as_nanos() as u64;
                (passed * rate / 1_000_000_000).saturating_sub(self.sent_by_clock)
            }
        }
    }

    fn fill(&mut self, publisher: usize, out: &mut Vec<u8>) {
        self.publishers[publisher].is_listed = false;
        let count = self.room(publisher).min(self.left);
        let per_publisher = self.shape.streams / self.shape.publishers;
        let sent_at = self.shape.keeps_latency.then(now);
        for _ in 0..count {
            let known = &mut self.publishers[publisher];
            let stream = publisher * per_publisher + known.pick(per_publisher);
            let id = (self.shape.qos > 0).then(|| known.take_id());
            let number = self.next[stream];
            self.next[stream] += 1;
            frames::push_publish(
                out,
                &self.prefixes[stream],
                id,
                number,
                stream as u32,
                &self.tail,
            );
            if let Some(at) = sent_at {
                self.sent_by_clock += 1;
                self.sent_at.push_back(match self.shape.pace {
                    Pace::Window { .. } => at,
                    Pace::PerSecond(rate) => {
                        self.started
                            + Duration::from_nanos(self.sent_by_clock * 1_000_000_000 / rate)
                    }
                });
            }
        }
        self.publishers[publisher].sent += count;
        self.sent += count;
        self.left -= count;
    }

    fn list(&mut self, publisher: usize) {
        let known = &mut self.publishers[publisher];
        if !known.is_listed {
            known.is_listed = true;
            self.with_room.push_back(publisher);
        }
    }

    fn on_receiver(
        &mut self,
        receiver: usize,
        frame: Frame<'_>,
        replies: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match frame.kind() {
            frames::PUBLISH => {}
            frames::PUBREL if self.shape.qos == 2 => {
                frames::push_ack(replies, frames::PUBCOMP, frame.id()?);
                return Ok(());
            }
            _ => return Err(Fault::Wrong("a packet that a receiver does not expect")),
        }
        let publish = frame.publish(self.shape.qos)?;
        let stamp = frames::read_stamp(publish.payload, &self.tail)?;
        let stream = stamp.stream as usize;
        if self.topics.get(stream).map(String::as_bytes) != Some(publish.topic)
            || frame.is_retained()
        {
            return Err(Fault::Wrong(
                "a message under another topic, or marked retained",
            ));
        }
        let due = match self.shape.to_all {
            true => receiver * self.shape.streams + stream,
            false if stream % self.shape.receivers != receiver => {
                return Err(Fault::Wrong("a message for another receiver"));
            }
            false => stream,
        };
        let due = &mut self.due[due];
        if *due != stamp.number {
            return Err(Fault::OutOfTurn {
                due: *due,
                came: stamp.number,
            });
        }
        *due += 1;
        self.delivered += 1;
        let publisher = stream / (self.shape.streams / self.shape.publishers);
        self.publishers[publisher].deliveries += 1;
        self.list(publisher);
        match self.shape.qos {
            1 => frames::push_ack(replies, frames::PUBACK, publish.id),
            2 => frames::push_ack(replies, frames::PUBREC, publish.id),
            _ => {}
        }
        if let Some(arrived) = self.arrived
            && let Some(sent_at) = self.sent_at.pop_front()
        {
            self.latencies
                .push(arrived.saturating_duration_since(sent_at).as_nanos() as u64);
        }
        Ok(())
    }

    fn on_publisher(
        &mut self,
        publisher: usize,
        frame: Frame<'_>,
        replies: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let id = frame.id()?;
        let known = &mut self.publishers[publisher];
        let state = known
            .ids
            .get_mut(usize::from(id))
            .ok_or(Fault::Wrong("an acknowledgement of QoS 0"))?;
        match (frame.kind(), *state, self.shape.qos) {
            (frames::PUBACK, 1, 1) | (frames::PUBCOMP, 2, 2) => *state = 0,
            (frames::PUBREC, 1, 2) => {
                *state = 2;
                frames::push_ack(replies, frames::PUBREL, id);
                return Ok(());
            }
            _ => return Err(Fault::Wrong("an acknowledgement that is not due")),
        }
        known.completed += 1;
        self.completed += 1;
        self.list(publisher);
        Ok(())
    }
}

impl Publisher {
    /// One of its streams: its only one, or any.
    fn pick(&mut self, streams: usize) -> usize {
        if streams == 1 {
            return 0;
        }
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % streams
    }

    fn take_id(&mut self) -> u16 {
        let id = self.next_id;
        self.ids[usize::from(id)] = 1;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(receivers: usize, to_all: bool) -> Shape {
        Shape {
            publishers: 1,
            receivers,
            streams: 1,
            to_all,
            qos: 0,
            payload_bytes: 64,
            pace: Pace::Window {
                window: 4,
                refill: 2,
            },
            topic: |stream| format!("b/{stream}"),
            filters: |_, _, _| Vec::new(),
            keeps_latency: false,
        }
    }

    /// A ledger that has sent as much as its window allows, and the packets.
    fn sent(shape: Shape) -> (Ledger, Vec<u8>) {
        let mut ledger = Ledger::new(shape);
        ledger.start(100, now());
        let mut bytes = Vec::new();
        ledger.fill(0, &mut bytes);
        (ledger, bytes)
    }

    fn packets(mut bytes: &[u8]) -> Vec<Frame<'_>> {
        let mut packets = Vec::new();
        while let Some((frame, size)) = frames::next_frame(bytes).unwrap() {
            packets.push(frame);
            bytes = &bytes[size..];
        }
        packets
    }

    fn receive(ledger: &mut Ledger, receiver: usize, frame: Frame<'_>) -> Result<(), Fault> {
        ledger.on_receiver(receiver, frame, &mut Vec::new())
    }

    #[test]
    fn messages_in_turn_open_the_window_again() {
        let (mut ledger, bytes) = sent(shape(1, false));
        let packets = packets(&bytes);
        assert_eq!(packets.len(), 4);
        receive(&mut ledger, 0, packets[0]).unwrap();
        assert_eq!(ledger.room(0), 0);
        receive(&mut ledger, 0, packets[1]).unwrap();
        assert_eq!(ledger.room(0), 2);
        assert_eq!(ledger.missing(), 2);
    }

    #[test]
    fn a_run_is_complete_when_every_receiver_has_everything() {
        let (mut ledger, bytes) = sent(shape(2, true));
        ledger.stop();
        for receiver in 0..2 {
            assert!(!ledger.is_complete());
            for frame in packets(&bytes) {
                receive(&mut ledger, receiver, frame).unwrap();
            }
        }
        assert!(ledger.is_complete());
    }

    #[test]
    fn a_lost_a_doubled_and_a_late_message_are_found() {
        let (mut ledger, bytes) = sent(shape(1, false));
        let packets = packets(&bytes);
        receive(&mut ledger, 0, packets[0]).unwrap();
        for wrong in [0, 2, 3] {
            let fault = receive(&mut ledger, 0, packets[wrong]).unwrap_err();
            assert!(
                matches!(fault, Fault::OutOfTurn { due: 1, .. }),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn a_changed_byte_anywhere_is_found() {
        let (mut ledger, bytes) = sent(shape(1, false));
        let size = bytes.len() / 4;
        // The first two bytes are the packet's type and length.
        for at in 2..size {
            let mut changed = bytes[..size].to_vec();
            changed[at] ^= 0x10;
            assert!(
                receive(&mut ledger, 0, packets(&changed)[0]).is_err(),
                "byte {at}"
            );
        }
        assert!(receive(&mut ledger, 0, packets(&bytes)[0]).is_ok());
    }

    #[test]
    fn a_message_for_another_receiver_is_found() {
        let (mut ledger, bytes) = sent(shape(2, false));
        assert!(receive(&mut ledger, 1, packets(&bytes)[0]).is_err());
    }

    #[test]
    fn an_acknowledgement_counts_once() {
        let (mut ledger, _) = sent(Shape {
            qos: 1,
            ..shape(1, false)
        });
        let bytes = [0x40, 2, 0, 1];
        let ack = packets(&bytes)[0];
        ledger.on_publisher(0, ack, &mut Vec::new()).unwrap();
        assert!(ledger.on_publisher(0, ack, &mut Vec::new()).is_err());
    }
}
