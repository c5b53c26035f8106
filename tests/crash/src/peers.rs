//! The checks that brokers fail with persistence on at their defaults: here everything has to arrive.

use std::path::Path;
use std::time::Duration;

use crate::broker::{Broker, Directory, Setup, UNLIMITED};
use crate::bulk::{Counted, Loader, Receiver};
use crate::clock::{now, pause};
use crate::fault::Fault;
use crate::frames::Version;
use crate::random::Random;

/// How many messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// In most of them.
    pub(crate) some: u64,
    /// In the last.
    pub(crate) many: u64,
}

/// Runs all; prints a line for each. `true`: all passed.
pub(crate) fn run(sizes: Sizes, program: &Path, random: &mut Random) -> Result<bool, Fault> {
    let some = sizes.some;
    let mut passes = true;
    let what = "retained messages to a QoS 1 subscriber";
    passes &= check(what, some, |place| retained(place, program, some))?;
    let what = "QoS 1 for a session that is away";
    passes &= check(what, some, |place| away(place, program, some))?;
    let what = "QoS 1 acknowledged, then kill -9";
    passes &= check(what, 200, |place| killed_once(place, program, 200))?;
    for qos in [1, 2] {
        let what = format!("QoS {qos} acknowledged, killed at random");
        let killed = |place: &Path| killed_often(place, program, some, qos, random);
        passes &= check(&what, some, killed)?;
    }
    let million = million(program, sizes.many)?;
    println!("{}", million.line());
    Ok(passes && million.passes())
}

/// Runs a check in a directory of its own, which is kept if it fails.
fn check(
    what: &str,
    count: u64,
    run: impl FnOnce(&Path) -> Result<(Counted, Expected), Fault>,
) -> Result<bool, Fault> {
    let mut directory = Directory::new()?;
    directory.keeps = true;
    let (counted, expected) = run(directory.path())?;
    let in_order = counted.late == 0 || expected == Expected::InAnyOrder;
    let once = counted.repeated == 0 || expected == Expected::AtLeastOnce;
    let passes = counted.different == count && in_order && once;
    println!(
        "{}: {count} {what}: {} delivered, {} again, {} late",
        if passes { "passed" } else { "FAILED" },
        counted.different,
        counted.repeated,
        counted.late
    );
    directory.keeps = !passes;
    Ok(passes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    InAnyOrder,
    Once,
    AtLeastOnce,
}

/// The broker with its defaults, but for a store.
fn start(place: &Path, program: &Path) -> Result<(Setup, Broker), Fault> {
    let mut setup = Setup::new(program, place);
    setup.more = String::new();
    let broker = Broker::start(&setup, place)?;
    Ok((setup, broker))
}

fn retained(place: &Path, program: &Path, count: u64) -> Result<(Counted, Expected), Fault> {
    let (_, broker) = start(place, program)?;
    let mut loader = Loader::new("loader", (Version::V5, 1), "retained", 100, 32);
    (loader.spreads, loader.retain) = (true, true);
    loader.run(broker.address(), count)?;
    let filter = Some(("retained/#", 1));
    let mut receiver = Receiver::open(broker.address(), "receiver", Version::V311, filter)?;
    Ok((receiver.count(count, SILENCE)?, Expected::InAnyOrder))
}

fn away(place: &Path, program: &Path, count: u64) -> Result<(Counted, Expected), Fault> {
    let (_, broker) = start(place, program)?;
    subscribe(&broker, 1)?;
    Loader::new("loader", (Version::V311, 1), TOPIC, 100, 64).run(broker.address(), count)?;
    Ok((receive(&broker, count)?, Expected::Once))
}

fn killed_once(place: &Path, program: &Path, count: u64) -> Result<(Counted, Expected), Fault> {
    let (setup, mut broker) = start(place, program)?;
    subscribe(&broker, 1)?;
    Loader::new("loader", (Version::V311, 1), TOPIC, 20, 64).run(broker.address(), count)?;
    broker.kill()?;
    let broker = Broker::start(&setup, place)?;
    Ok((receive(&broker, count)?, Expected::Once))
}

fn killed_often(
    place: &Path,
    program: &Path,
    count: u64,
    qos: u8,
    random: &mut Random,
) -> Result<(Counted, Expected), Fault> {
    let (setup, mut broker) = start(place, program)?;
    subscribe(&broker, qos)?;
    let mut loader = Loader::new("loader", (Version::V5, qos), TOPIC, 50, 64);
    let mut parts = 0;
    while parts < PARTS {
        let until = count * (parts + 1) / PARTS;
        let after = random.below(40) as u64;
        let address = broker.address();
        let finished = std::thread::scope(|scope| {
            let load = scope.spawn(|| loader.run(address, until));
            pause(Duration::from_millis(after));
            let killed = broker.kill();
            let load = load
                .join()
                .unwrap_or_else(|_| Err(Fault::Wrong("panic".to_owned())));
            killed.map(|_| load)
        })?;
        match finished {
            // It was killed after the last acknowledgement of this part.
            Ok(()) => parts += 1,
            Err(fault) if fault.is_lost() => {}
            Err(fault) => return Err(fault),
        }
        broker = Broker::start(&setup, place)?;
    }
    let expected = match qos {
        2 => Expected::Once,
        _ => Expected::AtLeastOnce,
    };
    Ok((receive(&broker, count)?, expected))
}

/// What it cost to keep many small messages for one session.
#[derive(Debug)]
pub(crate) struct Million {
    pub(crate) count: u64,
    pub(crate) passed: bool,
    pub(crate) delivered: u64,
    pub(crate) publish: Duration,
    pub(crate) deliver: Duration,
    pub(crate) start: Duration,
    /// Resident memory at its highest: while they came; after a restart, and while they went.
    pub(crate) peak_kib: [u64; 2],
    /// Of the store, with all messages; after they were delivered; after another start.
    pub(crate) store_bytes: [u64; 3],
}

impl Million {
    /// 200 MiB for a million.
    fn limit_kib(&self) -> u64 {
        BASE_KIB + (200 * 1024 - BASE_KIB) * self.count / 1_000_000
    }

    fn passes(&self) -> bool {
        self.passed && self.peak_kib.iter().all(|kib| *kib < self.limit_kib())
    }

    fn line(&self) -> String {
        let [came, went] = self.peak_kib.map(|kib| kib / 1024);
        let [full, empty, later] = self.store_bytes.map(|bytes| bytes / 1024 / 1024);
        format!(
            "{}: {} small ones for one session: {} delivered in order; at most {came} MiB resident while they came ({:.1} s), {went} \
             MiB after kill -9 and while they went ({:.1} s), {} allowed; start {:.2} s; store {full} MiB, {empty} MiB when they \
             were delivered, {later} MiB after the next start",
            if self.passes() { "passed" } else { "FAILED" },
            self.count,
            self.delivered,
            self.publish.as_secs_f64(),
            self.deliver.as_secs_f64(),
            self.limit_kib() / 1024,
            self.start.as_secs_f64(),
        )
    }
}

/// What the broker may take with nothing queued.
const BASE_KIB: u64 = 60 * 1024;

/// Queues `count` messages for one session, kills the broker, and has them delivered.
pub(crate) fn million(program: &Path, count: u64) -> Result<Million, Fault> {
    let directory = Directory::new()?;
    let mut setup = Setup::new(program, directory.path());
    setup.more = UNLIMITED.to_owned();
    let mut broker = Broker::start(&setup, directory.path())?;
    subscribe(&broker, 1)?;
    let began = now();
    Loader::new("loader", (Version::V311, 1), TOPIC, 200, 16).run(broker.address(), count)?;
    let publish = began.elapsed();
    let came = broker.peak_rss_kib()?;
    let full = setup.store_bytes();
    broker.kill()?;
    broker = Broker::start(&setup, directory.path())?;
    let start = broker.started_in;
    let began = now();
    let counted = receive(&broker, count)?;
    let deliver = began.elapsed();
    let went = broker.peak_rss_kib()?;
    // What the last acknowledgements changed is written when nothing else waits.
    let mut empty = setup.store_bytes();
    for _ in 0..50 {
        pause(Duration::from_millis(100));
        empty = empty.min(setup.store_bytes());
    }
    broker.stop()?;
    drop(Broker::start(&setup, directory.path())?);
    Ok(Million {
        count,
        passed: counted.is_complete(count) && counted.repeated == 0,
        delivered: counted.different,
        publish,
        deliver,
        start,
        peak_kib: [came, went],
        store_bytes: [full, empty, setup.store_bytes()],
    })
}

fn subscribe(broker: &Broker, qos: u8) -> Result<(), Fault> {
    let filter = Some((TOPIC, qos));
    Receiver::open(broker.address(), "receiver", Version::V311, filter).map(drop)
}

fn receive(broker: &Broker, count: u64) -> Result<Counted, Fault> {
    let mut receiver = Receiver::open(broker.address(), "receiver", Version::V311, None)?;
    if !receiver.present {
        return Err(Fault::Wrong("the session is gone".to_owned()));
    }
    receiver.count(count, SILENCE)
}

/// The broker is killed in each of these parts at least once.
const PARTS: u64 = 10;
const TOPIC: &str = "queued";
/// How long nothing may come before the rest counts as lost.
const SILENCE: Duration = Duration::from_secs(10);
