//! Rounds: load, `kill -9`, restart on the same store, and the question whether anything that was promised is missing.

use std::path::Path;
use std::time::Duration;
use std::{io, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::arena::Arena;
use crate::broker::{Broker, Directory, Setup};
use crate::cast::{WILL_TOPIC, publishers, subscribers};
use crate::check::{Case, Findings};
use crate::clock::{now, pause, tick};
use crate::fault::Fault;
use crate::frames::{Connect, PUBACK, Packet, Version, push_ack, subscribe};
use crate::model::{NEVER, Sent, Stream, payload, read_payload};
use crate::publisher::Publisher;
use crate::random::Random;
use crate::subscriber::Subscriber;
use crate::wire::{PATIENCE, Wire};

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
    /// Rounds on one store before a new one is begun.
    pub(crate) rounds_per_store: usize,
    /// Messages that a publisher sends in one round before the broker ends, at most.
    pub(crate) budget: usize,
    /// The longest time from the start of the load to the kill.
    pub(crate) longest: Duration,
    /// `durability`.
    pub(crate) durability: String,
    /// Never SIGTERM, at which everything is written in any mode.
    pub(crate) only_kills: bool,
}

/// Runs all rounds; prints one line for each and a summary. `true`: nothing was violated.
pub(crate) fn run(plan: &Plan, program: &Path) -> Result<bool, Fault> {
    println!("seed {}", plan.seed);
    let mut random = Random::new(plan.seed);
    let mut total = Findings::default();
    let (mut slowest, mut number, mut bad) = (Duration::ZERO, 0, 0);
    while number < plan.rounds {
        let mut series = Series::begin(plan, program, &mut random)?;
        for _ in 0..plan.rounds_per_store.min(plan.rounds - number) {
            number += 1;
            let findings = match series.round(plan) {
                Ok(findings) => findings,
                Err(fault) => {
                    series.directory.keeps = true;
                    println!("round {number}:");
                    return Err(fault);
                }
            };
            print_round(number, &findings, &series);
            slowest = slowest.max(series.slowest_start);
            total.add(&findings);
            bad += usize::from(findings.violations() > 0);
            if findings.violations() > 0 {
                series.directory.keeps = true;
                break;
            }
        }
    }
    println!(
        "{number} rounds, {bad} with violations: {} acknowledged, {} delivered, {} lost, {} duplicated at QoS 2, {} reordered, \
         {} otherwise wrong; {} repeated at QoS 1; slowest start {} ms",
        total.acknowledged,
        total.delivered,
        total.lost,
        total.duplicated,
        total.reordered,
        total.others,
        total.repeated,
        slowest.as_millis()
    );
    Ok(total.violations() == 0)
}

/// Rounds with a broker that acknowledges before anything is on disk, until it is noticed: three at most, because a kill may
/// come before anybody has subscribed. `true`: it was.
pub(crate) fn finds_losses(plan: &Plan, program: &Path) -> Result<bool, Fault> {
    let plan = Plan {
        durability: "none".to_owned(),
        only_kills: true,
        ..plan.clone()
    };
    let mut random = Random::new(plan.seed);
    for _ in 0..3 {
        let findings = Series::begin(&plan, program, &mut random)?.round(&plan)?;
        let is_noticed = findings.lost > 0;
        println!(
            "{}: with `durability: none`, {}: {} acknowledged, {} found lost",
            if is_noticed {
                "passed"
            } else {
                "nothing found"
            },
            findings.what,
            findings.acknowledged,
            findings.lost
        );
        if is_noticed {
            return Ok(true);
        }
    }
    println!("FAILED: with `durability: none` something must be lost");
    Ok(false)
}

fn print_round(number: usize, findings: &Findings, series: &Series) {
    println!(
        "round {number}: {}: {} acknowledged, {} delivered, {} lost, {} duplicated at QoS 2, {} reordered, {} otherwise wrong; {} \
         repeated at QoS 1; start {} ms, store {} KiB",
        findings.what,
        findings.acknowledged,
        findings.delivered,
        findings.lost,
        findings.duplicated,
        findings.reordered,
        findings.others,
        findings.repeated,
        series.broker.started_in.as_millis(),
        series.setup.store_bytes() / 1024
    );
    if findings.violations() > 0 {
        for text in &findings.texts {
            println!("  {text}");
        }
        println!("  the broker's log:\n{}", series.broker.log_tail());
    }
}

/// Rounds on one store.
struct Series {
    directory: Directory,
    setup: Setup,
    broker: Broker,
    random: Random,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    wills: Stream,
    wills_number: usize,
    will_wire: Option<Wire>,
    has_promised_will: bool,
    slowest_start: Duration,
}

impl Series {
    fn begin(plan: &Plan, program: &Path, random: &mut Random) -> Result<Self, Fault> {
        let directory = Directory::new()?;
        let mut setup = Setup::new(program, directory.path());
        setup.durability = Some(plan.durability.clone());
        let broker = Broker::start(&setup, directory.path())?;
        let publishers = publishers(random);
        let mut topics: Vec<_> = publishers
            .iter()
            .flat_map(|one| one.streams.iter().map(|stream| stream.topic.clone()))
            .collect();
        let wills_number = topics.len();
        topics.push(WILL_TOPIC.to_owned());
        Ok(Self {
            slowest_start: broker.started_in,
            directory,
            setup,
            broker,
            subscribers: subscribers(&topics, random),
            publishers,
            random: random.fork(),
            wills: Stream::new(WILL_TOPIC.to_owned(), 2, false),
            wills_number,
            will_wire: None,
            has_promised_will: false,
        })
    }

    fn round(&mut self, plan: &Plan) -> Result<Findings, Fault> {
        let mut findings = Findings::default();
        let mut text = self.load(plan)?;
        let mut tries = 0;
        loop {
            // Killed while it starts.
            if tries == 0 && self.random.once_in(6) {
                let after = self.random.below(60) as u64;
                let mut broker = Broker::launch(&self.setup, self.directory.path())?;
                pause(Duration::from_millis(after));
                broker.kill()?;
                text += &format!(", {after} ms into its start");
            }
            self.broker = Broker::start(&self.setup, self.directory.path())?;
            self.slowest_start = self.slowest_start.max(self.broker.started_in);
            self.on_end();
            let second = (tries == 0 && self.random.once_in(4))
                .then(|| Duration::from_millis(self.random.between(1, 500) as u64));
            tries += 1;
            if self.recover(second, &mut findings)? {
                break;
            }
            text += &format!(
                ", again {} ms after",
                second.unwrap_or_default().as_millis()
            );
        }
        self.expect_will();
        self.wait_for_missing()?;
        self.case().judge(&mut findings);
        findings.what = text;
        self.forget();
        Ok(findings)
    }

    /// Everybody works until the broker ends, at a random moment: as a rule while the publishers publish.
    fn load(&mut self, plan: &Plan) -> Result<String, Fault> {
        self.leave_will();
        let longest = plan.longest.as_millis() as usize;
        let after = Duration::from_millis(self.random.between(10, longest) as u64);
        let is_asked = self.random.once_in(10) && !plan.only_kills;
        let signal = if is_asked { Signal::TERM } else { Signal::KILL };
        let all = plan.budget * self.publishers.len();
        let enough = match self.random.once_in(8) {
            true => usize::MAX,
            false => all * self.random.below(95) / 100,
        };
        let jitter = Duration::from_micros(self.random.below(4_000) as u64);
        let arena = Arena::new(self.broker.address());
        let pid = self.broker.pid();
        let budget = plan.budget;
        let began = now();
        let (publishers, subscribers) = (&mut self.publishers, &mut self.subscribers);
        thread::scope(|scope| {
            for publisher in publishers {
                scope.spawn(|| publisher.run(&arena, budget));
            }
            for subscriber in subscribers {
                scope.spawn(|| subscriber.run(&arena));
            }
            while began.elapsed() < after && arena.published() < enough {
                pause(Duration::from_millis(1));
            }
            pause(jitter);
            arena.announce_end();
            end(pid, signal)
        })?;
        let after = began.elapsed();
        let status = self.broker.wait(PATIENCE)?;
        if !is_asked {
            self.broker.was_killed(status)?;
        } else if !status.success() {
            return Err(Fault::Wrong(format!(
                "the broker ended with {status}: {}",
                self.broker.log_tail()
            )));
        }
        let in_flight = self.publishers.iter().map(Publisher::in_flight);
        Ok(format!(
            "{} after {} ms with {} in flight",
            if is_asked { "ended" } else { "killed" },
            after.as_millis(),
            in_flight.sum::<usize>()
        ))
    }

    /// A client whose will is due once the broker is back.
    fn leave_will(&mut self) {
        let number = self.wills.sent.len();
        let payload = payload(self.wills_number, number);
        let connect = Connect {
            version: Version::V5,
            client_id: "will",
            clean: true,
            keeps: true,
            receive_maximum: 0,
            will: Some((WILL_TOPIC, &payload, number as u32 % 2)),
        };
        self.wills.sent.push(Sent {
            at: tick(),
            acknowledged: NEVER,
            clears: false,
            is_resent: false,
        });
        let connected = Wire::accepted(self.broker.address(), &connect);
        self.will_wire = connected.ok().map(|(wire, _)| wire);
        self.has_promised_will = self.will_wire.is_some();
    }

    /// It is published at any time until now, and has to come if there was a CONNACK.
    fn expect_will(&mut self) {
        if let Some(sent) = self.wills.sent.last_mut()
            && self.has_promised_will
        {
            sent.acknowledged = tick();
        }
    }

    fn on_end(&mut self) {
        self.will_wire = None;
        self.publishers.iter_mut().for_each(Publisher::on_end);
        self.subscribers.iter_mut().for_each(Subscriber::on_end);
    }

    /// Brings everything to rest. `false`: the broker was killed in between.
    fn recover(
        &mut self,
        second: Option<Duration>,
        findings: &mut Findings,
    ) -> Result<bool, Fault> {
        let arena = Arena::new(self.broker.address());
        let pid = self.broker.pid();
        let done = thread::scope(|scope| {
            if let Some(after) = second {
                let arena = &arena;
                scope.spawn(move || {
                    if !arena.wait(after) {
                        arena.announce_end();
                        let _ = end(pid, Signal::KILL);
                    }
                });
            }
            let done = self.come_to_rest(&arena, findings);
            // The killer, if it has not come to it, is to leave.
            let was_killed = arena.has_ended();
            arena.announce_end();
            if was_killed { Ok(false) } else { done }
        })?;
        // It may have been killed just when all was done.
        if second.is_some() {
            self.broker.kill()?;
            return Ok(false);
        }
        Ok(done)
    }

    fn come_to_rest(&mut self, arena: &Arena, findings: &mut Findings) -> Result<bool, Fault> {
        self.check_retained(arena, findings)?;
        self.each(
            arena,
            |one| one.settle(arena.address),
            |one| one.join(arena.address),
        );
        if arena.has_ended() {
            return Ok(false);
        }
        self.wait_for_replays(arena, findings);
        self.each(arena, |one| one.probe(arena.address), |_| Ok(()));
        let markers = self.markers();
        self.each(arena, |_| Ok(()), |one| one.drain(&markers));
        if arena.has_ended() {
            return Ok(false);
        }
        self.check_retained(arena, findings)?;
        Ok(true)
    }

    /// Everybody does something, at the same time.
    fn each(
        &mut self,
        arena: &Arena,
        publisher_does: impl Fn(&mut Publisher) -> Result<(), Fault> + Sync,
        subscriber_does: impl Fn(&mut Subscriber) -> Result<(), Fault> + Sync,
    ) {
        let (publishers, subscribers) = (&mut self.publishers, &mut self.subscribers);
        thread::scope(|scope| {
            for one in publishers {
                let does = &publisher_does;
                scope.spawn(move || {
                    if let Err(fault) = does(one)
                        && !arena.explains(&fault)
                    {
                        one.complain(format!("after the restart: {fault}"));
                    }
                });
            }
            for one in subscribers {
                let does = &subscriber_does;
                scope.spawn(move || {
                    if let Err(fault) = does(one)
                        && !arena.explains(&fault)
                    {
                        one.complain(format!("after the restart: {fault}"));
                    }
                });
            }
        });
    }

    /// Before anything newer is published, which would hide it: what subscriptions bring has to come.
    fn wait_for_replays(&mut self, arena: &Arena, findings: &mut Findings) {
        // What waits in the queue of a slow receiver comes first: as long as anything comes, it is waited for.
        let (mut came, mut last) = (0, now());
        while !self.case().missing_replays().is_empty() && !arena.has_ended() {
            if self.came() > came {
                (came, last) = (self.came(), now());
            }
            if last.elapsed() > SILENCE {
                for text in self.case().missing_replays() {
                    findings.lost(text);
                }
                return;
            }
            let time = Duration::from_millis(20);
            self.each(arena, |_| Ok(()), |one| one.linger(time));
        }
    }

    /// The last message of each publisher at each QoS: what came before it has been sent before it.
    fn markers(&self) -> Vec<(usize, usize)> {
        let publishers = self.publishers.iter();
        let markers = publishers.flat_map(|one| {
            let streams = one.streams.iter().enumerate();
            let markers = streams.filter(|(_, stream)| stream.topic.starts_with("e/"));
            // The broker may be killed before the first one is sent.
            markers.filter_map(|(at, stream)| {
                Some((one.first_stream + at, stream.sent.len().checked_sub(1)?))
            })
        });
        markers.collect()
    }

    /// What a new client finds retained is what was acknowledged last, or what was sent after it.
    fn check_retained(&mut self, arena: &Arena, findings: &mut Findings) -> Result<(), Fault> {
        let found = match find_retained(arena) {
            Ok(found) => found,
            Err(fault) if arena.explains(&fault) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        for publisher in &self.publishers {
            let streams = publisher.streams.iter().enumerate();
            for (at, stream) in streams.filter(|(_, stream)| stream.retain) {
                let at = publisher.first_stream + at;
                let mut values = found.iter().filter(|(stream, _)| *stream == at);
                let value = values.next().map(|(_, number)| *number as u32);
                let candidates = stream.retained_candidates();
                if !candidates.contains(&value) || values.next().is_some() {
                    findings.other(format!(
                        "retained at {}: {value:?} instead of one of {candidates:?}",
                        stream.topic
                    ));
                }
            }
        }
        Ok(())
    }

    /// What is still missing may be on its way: wills have delays, and what a session leaves behind is read first.
    fn wait_for_missing(&mut self) -> Result<(), Fault> {
        let is_gone = |one: &Subscriber| one.past.iter().any(|epoch| epoch.is_gone);
        let (mut came, mut last) = (self.came(), now());
        while !self.case().missing().is_empty()
            && last.elapsed() < SILENCE
            && !self.subscribers.iter().any(is_gone)
        {
            let arena = Arena::new(self.broker.address());
            self.each(
                &arena,
                |_| Ok(()),
                |one| one.linger(Duration::from_millis(200)),
            );
            if self.came() > came {
                (came, last) = (self.came(), now());
            }
        }
        Ok(())
    }

    /// How much came to all in this round.
    fn came(&self) -> usize {
        self.subscribers.iter().map(|one| one.epoch.log.len()).sum()
    }

    fn case(&self) -> Case<'_> {
        Case {
            publishers: &self.publishers,
            subscribers: &self.subscribers,
            extra: std::slice::from_ref(&self.wills),
        }
    }

    /// The round was checked: the next one begins.
    fn forget(&mut self) {
        for publisher in &mut self.publishers {
            publisher.complaints.clear();
            for stream in &mut publisher.streams {
                stream.checked = stream.sent.len();
            }
        }
        self.wills.checked = self.wills.sent.len();
        for subscriber in &mut self.subscribers {
            subscriber.complaints.clear();
            subscriber.past.clear();
            subscriber.epoch.log.clear();
            subscriber.maybe_hang_up();
        }
    }
}

/// How long nothing may come to anybody before what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(5);

fn end(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = Pid::from_raw(pid as i32).ok_or(io::ErrorKind::NotFound)?;
    Ok(kill_process(pid, signal)?)
}

/// Streams and numbers of all retained messages.
fn find_retained(arena: &Arena) -> Result<Vec<(usize, usize)>, Fault> {
    let connect = Connect {
        version: Version::V311,
        client_id: "finder",
        clean: true,
        keeps: false,
        receive_maximum: 0,
        will: None,
    };
    let (mut wire, present) = Wire::accepted(arena.address, &connect)?;
    if present {
        return Err(Fault::Wrong(
            "a session that never was is present".to_owned(),
        ));
    }
    let mut found = Vec::new();
    wire.send(&subscribe(Version::V311, 1, &["r/#"], 1))?;
    // The second SUBACK comes after what the first one brought: that fits into one write.
    wire.send(&subscribe(Version::V311, 2, &["nothing"], 1))?;
    loop {
        match wire.expect("SUBACK")? {
            Packet::Suback { id: 2, .. } => break,
            Packet::Publish(publish) if publish.retain => {
                let value = read_payload(&publish.payload);
                found.extend(value);
                let mut out = Vec::new();
                push_ack(&mut out, PUBACK, publish.id);
                wire.send(&out)?;
            }
            _ => {}
        }
    }
    Ok(found)
}
