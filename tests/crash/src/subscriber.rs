//! A subscriber that remembers what it was promised and what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::arena::Arena;
use crate::clock::{now, tick};
use crate::fault::Fault;
use crate::frames::{
    Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish, Version, disconnect, push_ack,
    subscribe, unsubscribe,
};
use crate::model::{Delivery, Epoch, Interval, NEVER, read_payload};
use crate::random::Random;
use crate::wire::{PATIENCE, Wire};

/// What a subscriber does besides receiving: each once in so many turns, 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Habits {
    /// It stays away until the broker was restarted.
    pub(crate) is_away: bool,
    /// It keeps acknowledgements back for a while.
    pub(crate) is_lazy: bool,
    pub(crate) drops: usize,
    pub(crate) takes_over: usize,
    pub(crate) toggles: usize,
    /// It unsubscribes from all, and subscribes again.
    pub(crate) renews: usize,
    /// Clean Start.
    pub(crate) starts_clean: usize,
    /// DISCONNECT with Session Expiry Interval 0; before 5.0 the same as `starts_clean`.
    pub(crate) ends: usize,
}

/// A client with a session that outlives its connections.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) name: String,
    version: Version,
    qos: u8,
    receive_maximum: u16,
    habits: Habits,
    /// `Some`: its filters, but for the markers', are those of this group of shared subscriptions.
    pub(crate) group: Option<&'static str>,
    /// Filters that it subscribes to at times.
    toggled: Vec<String>,
    wanted: BTreeSet<String>,
    wire: Option<Wire>,
    connections: u32,
    session: Existence,
    pub(crate) epoch: Epoch,
    /// Sessions of this round that ended.
    pub(crate) past: Vec<Epoch>,
    /// What sessions were given that ended.
    pub(crate) given: BTreeMap<usize, Vec<u8>>,
    /// QoS 2 messages that wait for PUBREL.
    open: BTreeMap<u16, Option<(usize, usize)>>,
    acks: Vec<u8>,
    random: Random,
    pub(crate) complaints: Vec<String>,
    /// The topics of all streams.
    topics: Vec<String>,
}

/// Whether the broker has a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existence {
    No,
    Yes,
    /// It was told to end it, and closed the connection. It did not promise that this is durable.
    Ending,
    /// Clean Start comes next: nobody can know.
    Unknown,
}

impl Subscriber {
    pub(crate) fn new(
        (name, version, qos): (&str, Version, u8),
        habits: Habits,
        filters: &[&str],
        toggled: &[&str],
        topics: Vec<String>,
        random: Random,
    ) -> Self {
        let mut random = random;
        let receive_maximum = match random.below(3) {
            // What a subscription brings takes its time then, and is often not over at the kill.
            _ if habits.renews > 0 => 8,
            0 => 0,
            _ => random.between(5, 200) as u16,
        };
        let shared = filters
            .iter()
            .find_map(|filter| filter.strip_prefix("$share/"));
        let wanted = filters.iter().map(|filter| (*filter).to_owned());
        Self {
            name: name.to_owned(),
            version,
            qos,
            receive_maximum,
            habits,
            group: shared.map(|rest| {
                if rest.starts_with("one/") {
                    "one"
                } else {
                    "two"
                }
            }),
            toggled: toggled.iter().map(|filter| (*filter).to_owned()).collect(),
            wanted: wanted.chain(["e/#".to_owned()]).collect(),
            wire: None,
            connections: 0,
            session: Existence::No,
            epoch: Epoch::default(),
            past: Vec::new(),
            given: BTreeMap::new(),
            open: BTreeMap::new(),
            acks: Vec::new(),
            random,
            complaints: Vec::new(),
            topics,
        }
    }

    /// The broker ended.
    pub(crate) fn on_end(&mut self) {
        self.hang_up();
        if self.session == Existence::Ending {
            self.session = Existence::Unknown;
        }
    }

    fn hang_up(&mut self) {
        self.wire = None;
        self.acks.clear();
    }

    /// Hangs up, as often as not.
    pub(crate) fn maybe_hang_up(&mut self) {
        if self.random.once_in(2) {
            self.hang_up();
        }
    }

    /// Receives, and follows its habits, until the broker ends.
    pub(crate) fn run(&mut self, arena: &Arena) {
        if self.habits.is_away {
            self.hang_up();
            arena.wait(PATIENCE);
            return;
        }
        loop {
            if let Err(fault) = self.go_on(arena) {
                self.take_rest();
                if !arena.explains(&fault) {
                    self.complain(format!("while receiving: {fault}"));
                }
                if arena.wait(PAUSE) {
                    return;
                }
            }
        }
    }

    /// Hangs up, and takes what had come before.
    fn take_rest(&mut self) {
        if let Some(mut wire) = self.wire.take() {
            while let Ok(Some(packet)) = wire.next(PAUSE) {
                if !matches!(packet, Packet::Suback { .. } | Packet::Unsuback { .. }) {
                    let _ = self.take(packet);
                }
            }
        }
        self.hang_up();
    }

    fn go_on(&mut self, arena: &Arena) -> Result<(), Fault> {
        if self.wire.is_none() {
            self.join(arena.address)?;
        }
        let wait = self.random.between(1, 6);
        self.take_waiting(Duration::from_millis(wait as u64))?;
        if !self.habits.is_lazy || self.random.once_in(3) {
            self.send_acks()?;
        }
        let habits = self.habits;
        if self.happens(habits.drops) {
            if self.random.once_in(2) {
                self.send(&disconnect(false))?;
            }
            self.hang_up();
            let away = self.random.below(150);
            arena.wait(Duration::from_millis(away as u64));
        } else if self.happens(habits.takes_over) {
            self.attach(arena.address)?;
        } else if self.happens(habits.toggles) {
            let filter = self.toggled[self.random.below(self.toggled.len())].clone();
            if !self.wanted.remove(&filter) {
                self.wanted.insert(filter);
            }
            self.bring_about()?;
        } else if self.happens(habits.renews) {
            self.renew()?;
        } else if self.happens(habits.starts_clean) {
            if self.random.once_in(2) {
                self.hang_up();
            }
            self.session = Existence::Unknown;
            self.join(arena.address)?;
        } else if self.happens(habits.ends) {
            self.end_session()?;
        }
        Ok(())
    }

    fn happens(&mut self, once_in: usize) -> bool {
        once_in > 0 && self.random.once_in(once_in)
    }

    /// Connects if there is no connection, and sees to its subscriptions.
    pub(crate) fn join(&mut self, address: SocketAddr) -> Result<(), Fault> {
        if self.wire.is_none() || self.session == Existence::Unknown {
            self.attach(address)?;
        }
        self.bring_about()
    }

    /// Connects to the session that there is, or to a new one; takes an open connection over.
    fn attach(&mut self, address: SocketAddr) -> Result<(), Fault> {
        if self.session == Existence::Unknown {
            self.begin_epoch(false);
            // Before 5.0 a session either begins clean or is kept.
            let transient = self.version == Version::V311 || self.random.once_in(2);
            self.open_wire(address, true, !transient)?;
            if !transient {
                self.session = Existence::Yes;
                return Ok(());
            }
            // CONNACK said that the one before is gone, and this one ends with its connection.
            self.session = Existence::No;
            let time = self.random.below(40);
            self.linger(Duration::from_millis(time as u64))?;
        }
        let expected = self.session == Existence::Yes;
        if !expected {
            // There is one from now on, whether its CONNACK comes or not.
            self.session = Existence::Unknown;
        }
        let present = self.open_wire(address, false, true)?;
        if present != expected {
            self.complain(format!(
                "session present is {present} where it should be {expected}"
            ));
        }
        self.session = Existence::Yes;
        if !present {
            self.begin_epoch(expected);
        }
        Ok(())
    }

    fn open_wire(&mut self, address: SocketAddr, clean: bool, keeps: bool) -> Result<bool, Fault> {
        let old = self.wire.take();
        self.acks.clear();
        let connect = Connect {
            version: self.version,
            client_id: &self.name,
            clean,
            keeps,
            receive_maximum: self.receive_maximum,
            will: None,
        };
        let (wire, present) = Wire::accepted(address, &connect)?;
        if present && clean {
            self.complain("session present after Clean Start".to_owned());
        }
        if let Some(old) = old
            && !clean
        {
            self.read_out(old)?;
        }
        self.wire = Some(wire);
        self.connections += 1;
        Ok(present)
    }

    /// Takes what came by a connection before another one took its place: it came first.
    fn read_out(&mut self, mut old: Wire) -> Result<(), Fault> {
        let deadline = now() + PATIENCE;
        loop {
            match old.next(Duration::from_secs(1)) {
                Ok(Some(Packet::Disconnect { .. })) | Err(Fault::Lost(_)) => break,
                Ok(Some(packet)) => self.take(packet)?,
                Ok(None) if now() < deadline => {}
                Ok(None) => {
                    return Err(Fault::Wrong(
                        "a connection that was taken over stays open".to_owned(),
                    ));
                }
                Err(fault) => return Err(fault),
            }
        }
        self.acks.clear();
        Ok(())
    }

    /// The next session. `is_gone`: nobody ended the one before.
    fn begin_epoch(&mut self, is_gone: bool) {
        let mut epoch = std::mem::take(&mut self.epoch);
        epoch.is_gone = is_gone;
        if !is_gone {
            epoch.end(tick());
        }
        if self.group.is_some() {
            for (stream, counts) in &epoch.counts {
                let given = self.given.entry(*stream).or_default();
                given.resize(given.len().max(counts.len()), 0);
                for (given, count) in given.iter_mut().zip(counts) {
                    *given = given.saturating_add(*count);
                }
            }
        }
        self.past.push(epoch);
        self.open.clear();
        self.acks.clear();
    }

    /// DISCONNECT with an end of the session, and waits until the broker has closed the connection.
    fn end_session(&mut self) -> Result<(), Fault> {
        if self.version == Version::V311 {
            self.session = Existence::Unknown;
            return Ok(());
        }
        self.send_acks()?;
        self.epoch.end(tick());
        self.session = Existence::Unknown;
        self.send(&disconnect(true))?;
        let Some(mut wire) = self.wire.take() else {
            return Ok(());
        };
        loop {
            match wire.next(PATIENCE) {
                Ok(Some(packet)) => self.take(packet)?,
                Ok(None) => {
                    return Err(Fault::Wrong(
                        "the connection stays open after DISCONNECT".to_owned(),
                    ));
                }
                Err(_) => break,
            }
        }
        self.acks.clear();
        self.session = Existence::Ending;
        Ok(())
    }

    /// Subscribes and unsubscribes until it has what it wants.
    fn bring_about(&mut self) -> Result<(), Fault> {
        let known = self.epoch.filters.iter().filter_map(|(filter, intervals)| {
            let last = intervals.last()?;
            let is_open = last.unsubscribe_sent == NEVER;
            let answer = if is_open { last.suback } else { last.unsuback };
            Some((filter.clone(), is_open, answer != NEVER))
        });
        let known: Vec<(String, bool, bool)> = known.collect();
        // One that was being left is left first, even if it is wanted again.
        let is_to_go = |(filter, is_open, is_settled): &(String, bool, bool)| {
            if *is_open {
                !self.wanted.contains(filter)
            } else {
                !is_settled
            }
        };
        let leave: Vec<_> = known.iter().filter(|one| is_to_go(one)).cloned().collect();
        for (filter, ..) in leave {
            self.unsubscribe(&filter)?;
        }
        let has = |filter: &String| {
            known
                .iter()
                .any(|(known, is_open, is_settled)| known == filter && *is_open && *is_settled)
        };
        let missing = self.wanted.iter().filter(|filter| !has(filter));
        let missing: Vec<_> = missing.cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.subscribe(&missing)
    }

    /// Unsubscribes from what brings retained messages and subscribes to it again, so that they come once more.
    fn renew(&mut self) -> Result<(), Fault> {
        let filters: Vec<_> = self.wanted.iter().cloned().collect();
        for filter in filters.iter().filter(|filter| filter.starts_with("r/")) {
            self.unsubscribe(filter)?;
        }
        self.bring_about()
    }

    fn subscribe(&mut self, filters: &[String]) -> Result<(), Fault> {
        let at = tick();
        for filter in filters {
            let intervals = self.epoch.filters.entry(filter.clone()).or_default();
            if intervals
                .last()
                .is_none_or(|last| last.unsubscribe_sent != NEVER)
            {
                intervals.push(Interval::begun(at));
            }
        }
        let id = self.random.between(1, 60_000) as u16;
        let texts: Vec<_> = filters.iter().map(String::as_str).collect();
        self.send(&subscribe(self.version, id, &texts, self.qos))?;
        self.take_until(|packet| match packet {
            Packet::Suback { id: of, codes } if *of == id => Some(codes.clone()),
            _ => None,
        })
        .map(|codes| {
            if codes.len() != filters.len() || codes.iter().any(|code| *code != self.qos) {
                self.complain(format!("SUBACK for {filters:?}: {codes:?}"));
            }
        })?;
        let at = tick();
        for filter in filters {
            let intervals = self.epoch.filters.get_mut(filter);
            if let Some(last) = intervals.and_then(|intervals| intervals.last_mut()) {
                last.suback = last.suback.min(at);
            }
        }
        Ok(())
    }

    fn unsubscribe(&mut self, filter: &str) -> Result<(), Fault> {
        let last = |subscriber: &mut Self, change: fn(&mut Interval, u64)| {
            let intervals = subscriber.epoch.filters.get_mut(filter);
            if let Some(last) = intervals.and_then(|intervals| intervals.last_mut()) {
                change(last, tick());
            }
        };
        last(self, |last, at| {
            last.unsubscribe_sent = last.unsubscribe_sent.min(at)
        });
        let id = self.random.between(1, 60_000) as u16;
        self.send(&unsubscribe(self.version, id, filter))?;
        self.take_until(|packet| match packet {
            Packet::Unsuback { id: of } if *of == id => Some(()),
            _ => None,
        })?;
        last(self, |last, at| last.unsuback = at);
        Ok(())
    }

    /// Receives until all `markers` are here, and every flow is completed.
    pub(crate) fn drain(&mut self, markers: &[(usize, usize)]) -> Result<(), Fault> {
        let deadline = now() + PATIENCE;
        while !self.open.is_empty() || !markers.iter().all(|marker| self.has(*marker)) {
            self.send_acks()?;
            self.take_waiting(Duration::from_millis(100))?;
            self.send_acks()?;
            if now() > deadline {
                let missing = markers.iter().filter(|marker| !self.has(**marker));
                return Err(Fault::Wrong(format!(
                    "after {PATIENCE:?} {} markers of {} are missing, {} flows are open",
                    missing.count(),
                    markers.len(),
                    self.open.len()
                )));
            }
        }
        Ok(())
    }

    /// Receives for so long.
    pub(crate) fn linger(&mut self, time: Duration) -> Result<(), Fault> {
        let deadline = now() + time;
        while now() < deadline {
            self.take_waiting(Duration::from_millis(20))?;
            self.send_acks()?;
        }
        Ok(())
    }

    fn has(&self, (stream, number): (usize, usize)) -> bool {
        let counts = self.epoch.counts.get(&stream);
        counts
            .and_then(|counts| counts.get(number))
            .is_some_and(|count| *count > 0)
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

    fn take_until<T>(&mut self, is_it: impl Fn(&Packet) -> Option<T>) -> Result<T, Fault> {
        let deadline = now() + PATIENCE;
        loop {
            let Some(wire) = &mut self.wire else {
                return Err(Fault::Lost("there is no connection".to_owned()));
            };
            let Some(packet) = wire.next(Duration::from_secs(1))? else {
                if now() > deadline {
                    return Err(Fault::Wrong("SUBACK or UNSUBACK does not come".to_owned()));
                }
                continue;
            };
            if let Some(found) = is_it(&packet) {
                return Ok(found);
            }
            self.take(packet)?;
            self.send_acks()?;
        }
    }

    fn take(&mut self, packet: Packet) -> Result<(), Fault> {
        match packet {
            Packet::Publish(publish) => self.deliver(&publish),
            Packet::Ack {
                kind: PUBREL, id, ..
            } => {
                self.open.remove(&id);
                push_ack(&mut self.acks, PUBCOMP, id);
            }
            Packet::Disconnect { reason } => {
                return Err(Fault::Lost(format!("DISCONNECT {reason:#04x}")));
            }
            other => self.complain(format!("was sent {other:?}")),
        }
        Ok(())
    }

    fn deliver(&mut self, publish: &Publish) {
        let read = read_payload(&publish.payload);
        let is_known = |(stream, _): &(usize, usize)| {
            self.topics
                .get(*stream)
                .is_some_and(|topic| *topic == publish.topic)
        };
        let message = read.filter(is_known);
        if message.is_none() && !publish.payload.is_empty() {
            self.complain(format!("a message that nobody sent to {}", publish.topic));
        }
        match publish.qos {
            1 => push_ack(&mut self.acks, PUBACK, publish.id),
            2 => {
                push_ack(&mut self.acks, PUBREC, publish.id);
                if let Some(known) = self.open.insert(publish.id, message) {
                    if known != message || !publish.dup {
                        self.complain(format!(
                            "identifier {} was used again before its flow was completed: {known:?}, {message:?}",
                            publish.id
                        ));
                    }
                    return;
                }
            }
            _ => self.complain(format!("QoS 0 from {}", publish.topic)),
        }
        if let Some((stream, number)) = message {
            self.log(publish, stream, number);
        }
    }

    fn log(&mut self, publish: &Publish, stream: usize, number: usize) {
        let highest = self.epoch.highest.entry(stream).or_insert(0);
        let behind = ((number as u32) < *highest).then_some(*highest);
        *highest = (*highest).max(number as u32);
        if behind.is_none() {
            self.epoch.came.insert(stream, tick());
        }
        let mut is_repeated = false;
        if !publish.retain {
            let counts = self.epoch.counts.entry(stream).or_default();
            counts.resize(counts.len().max(number + 1), 0);
            is_repeated = counts[number] > 0;
            counts[number] = counts[number].saturating_add(1);
        }
        self.epoch.log.push(Delivery {
            stream: stream as u32,
            number: number as u32,
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            behind,
            connection: self.connections,
            is_repeated,
        });
    }

    fn send_acks(&mut self) -> Result<(), Fault> {
        let acks = std::mem::take(&mut self.acks);
        if acks.is_empty() {
            Ok(())
        } else {
            self.send(&acks)
        }
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
