//! What durability costs: acknowledged messages a second, CPU and messages per sync, beside no durability and mosquitto.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::broker::{Broker, Directory, Setup};
use crate::bulk::{Loader, Receiver};
use crate::clock::{now, pause};
use crate::fault::Fault;
use crate::frames::Version;
use crate::peers;

/// What is to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) time: Duration,
    pub(crate) mosquitto: Option<PathBuf>,
    /// For the large store; 0: none.
    pub(crate) many: u64,
    /// Only this load, counted from 1.
    pub(crate) shape: Option<usize>,
    /// Another build of our program.
    pub(crate) against: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Group,
    /// Another build.
    Against,
    None,
    Memory,
    MosquittoSaves,
    MosquittoMemory,
}

const KINDS: [Kind; 6] = [
    Kind::Group,
    Kind::Against,
    Kind::None,
    Kind::Memory,
    Kind::MosquittoSaves,
    Kind::MosquittoMemory,
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Group => "hbmqtt, `durability: group`",
            Self::Against => "another build, `durability: group`",
            Self::None => "hbmqtt, `durability: none`",
            Self::Memory => "hbmqtt without `persistence`",
            Self::MosquittoSaves => "mosquitto, `autosave_on_changes true`, `autosave_interval 1`",
            Self::MosquittoMemory => "mosquitto without persistence",
        }
    }

    fn has_store(self) -> bool {
        matches!(self, Self::Group | Self::Against | Self::None)
    }
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    publishers: usize,
    window: usize,
    /// Their sessions are kept; each gets every message.
    online: usize,
    offline: usize,
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "20 publishers, window 100, one durable receiver online and one away",
        publishers: 20,
        window: 100,
        online: 1,
        offline: 1,
    },
    Shape {
        name: "20 publishers, window 100, one durable receiver away",
        publishers: 20,
        window: 100,
        online: 0,
        offline: 1,
    },
    Shape {
        name: "1 publisher, one message at a time, one durable receiver away",
        publishers: 1,
        window: 1,
        online: 0,
        offline: 1,
    },
];

/// One measurement.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    per_second: f64,
    cpu_us: f64,
    per_sync: f64,
}

/// Runs all and prints Markdown.
pub(crate) fn run(plan: &Plan, program: &Path) -> Result<(), Fault> {
    let seconds = plan.time.as_secs_f64();
    println!(
        "QoS 1, 64 bytes, {seconds} s each, medians of {} rounds.\n",
        plan.rounds
    );
    let is_wanted = |number: usize| plan.shape.is_none_or(|wanted| wanted == number);
    for (_, shape) in (1..).zip(SHAPES).filter(|(number, _)| is_wanted(*number)) {
        let mut samples: BTreeMap<Kind, Vec<Sample>> = BTreeMap::new();
        for _ in 0..plan.rounds {
            for kind in KINDS {
                if let Some(sample) = measure(kind, shape, plan, program)? {
                    samples.entry(kind).or_default().push(sample);
                }
            }
        }
        print_shape(shape, &samples);
    }
    if plan.many > 0 {
        print_store(&peers::million(program, plan.many)?);
    }
    Ok(())
}

fn print_shape(shape: Shape, samples: &BTreeMap<Kind, Vec<Sample>>) {
    println!("**{}**\n", shape.name);
    println!(
        "| | acknowledged a second | ÷ `none` | ÷ mosquitto, saving | ÷ mosquitto, memory | CPU µs each | messages per sync |"
    );
    println!("|---|---|---|---|---|---|---|");
    let rate = |kind: Kind| {
        samples
            .get(&kind)
            .map(|all| median(all, |one| one.per_second))
    };
    for (kind, all) in samples {
        let per_second = median(all, |one| one.per_second);
        let by = |other: Kind| match rate(other) {
            Some(other) if other > 0.0 => format!("{:.2}", per_second / other),
            _ => "–".to_owned(),
        };
        let per_sync = median(all, |one| one.per_sync);
        let per_sync = match kind.has_store() {
            true => format!("{per_sync:.1}"),
            false => "–".to_owned(),
        };
        let (least, most) = range(all, |one| one.per_second);
        println!(
            "| {} | {per_second:.0} ({least:.0}–{most:.0}) | {} | {} | {} | {:.1} | {per_sync} |",
            kind.name(),
            by(Kind::None),
            by(Kind::MosquittoSaves),
            by(Kind::MosquittoMemory),
            median(all, |one| one.cpu_us),
        );
    }
    println!();
}

fn print_store(million: &peers::Million) {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1048576.0);
    let [full, empty, later] = million.store_bytes.map(mib);
    let [came, went] = million.peak_kib.map(|kib| mib(kib * 1024));
    println!(
        "**A store of {} messages of 16 bytes for one session**\n",
        million.count
    );
    println!("| | |\n|---|---|");
    println!("| published in | {:.1} s |", million.publish.as_secs_f64());
    println!("| resident memory meanwhile, at most | {came} |");
    println!("| size on disk | {full} |");
    println!(
        "| start after `kill -9` | {:.2} s |",
        million.start.as_secs_f64()
    );
    println!(
        "| delivered, in order | {} in {:.1} s |",
        million.delivered,
        million.deliver.as_secs_f64()
    );
    println!("| resident memory from the start to the end of that, at most | {went} |");
    println!("| size on disk after delivery | {empty} |");
    println!("| size on disk after the next start | {later} |");
}

fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn range(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> (f64, f64) {
    let values = samples.iter().map(value);
    values.fold((f64::MAX, 0.0), |(least, most), value| {
        (value.min(least), value.max(most))
    })
}

fn measure(kind: Kind, shape: Shape, plan: &Plan, program: &Path) -> Result<Option<Sample>, Fault> {
    let directory = Directory::new()?;
    let Some(broker) = start(kind, plan, program, directory.path())? else {
        return Ok(None);
    };
    let address = broker.address();
    for number in 0..shape.offline {
        let name = format!("away-{number}");
        drop(Receiver::open(address, &name, Version::V311, FILTER)?);
    }
    let mut online = Vec::new();
    for number in 0..shape.online {
        let name = format!("online-{number}");
        online.push(Receiver::open(address, &name, Version::V311, FILTER)?);
    }
    let mut loaders: Vec<_> = (0..shape.publishers)
        .map(|number| {
            let (name, topic) = (format!("loader-{number}"), format!("load/{number}"));
            Loader::new(&name, (Version::V311, 1), &topic, shape.window, 64)
        })
        .collect();
    // Everybody has a session before the measurement.
    for loader in &mut loaders {
        loader.run(address, 1)?;
    }
    let warmed_up = loaders
        .iter()
        .map(|loader| loader.acknowledged)
        .sum::<u64>();
    let before = sync_counts(kind, address)?;
    let cpu = broker.cpu_us()?;
    let began = now();
    load(&mut loaders, &mut online, address, plan.time)?;
    let elapsed = began.elapsed().as_secs_f64();
    let cpu = broker.cpu_us()? - cpu;
    let acknowledged = loaders
        .iter()
        .map(|loader| loader.acknowledged)
        .sum::<u64>()
        - warmed_up;
    let after = sync_counts(kind, address)?;
    let [messages, syncs] = [after[0] - before[0], after[1] - before[1]];
    Ok(Some(Sample {
        per_second: acknowledged as f64 / elapsed,
        cpu_us: cpu / acknowledged as f64,
        per_sync: messages as f64 / syncs.max(1) as f64,
    }))
}

/// Publishes for so long, and until everything is acknowledged, and has arrived where somebody waits for it.
fn load(
    loaders: &mut [Loader],
    online: &mut [Receiver],
    address: SocketAddr,
    time: Duration,
) -> Result<(), Fault> {
    let (stop, done) = (&AtomicBool::new(false), &AtomicBool::new(false));
    thread::scope(|scope| {
        let receivers: Vec<_> = online
            .iter_mut()
            .map(|receiver| {
                scope.spawn(move || {
                    while !receiver.take(Duration::from_millis(50))?.is_empty()
                        || !done.load(Ordering::Relaxed)
                    {}
                    Ok(())
                })
            })
            .collect();
        let loads: Vec<_> = loaders
            .iter_mut()
            .map(|loader| {
                let end = move || match stop.load(Ordering::Relaxed) {
                    true => 0,
                    false => u64::MAX,
                };
                scope.spawn(move || loader.run_while(address, end))
            })
            .collect();
        pause(time);
        stop.store(true, Ordering::Relaxed);
        let loads: Vec<_> = loads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        let receivers = receivers.into_iter().map(thread::ScopedJoinHandle::join);
        let results = loads.into_iter().chain(receivers);
        let panicked = |_| Err(Fault::Wrong("panic".to_owned()));
        let mut results = results.map(|joined| joined.unwrap_or_else(panicked));
        results.try_for_each(|result| result)
    })
}

/// Messages and syncs so far, from values that are newer than the question.
fn sync_counts(kind: Kind, address: SocketAddr) -> Result<[u64; 2], Fault> {
    if !kind.has_store() {
        return Ok([0, 0]);
    }
    let filter = Some(("$SYS/broker/persistence/+", 0));
    let mut receiver = Receiver::transient(address, "watcher", filter)?;
    let (mut messages, mut syncs) = (None, None);
    let deadline = now() + Duration::from_secs(20);
    while now() < deadline {
        for publish in receiver.take(Duration::from_millis(200))? {
            if publish.retain {
                continue;
            }
            let value = String::from_utf8_lossy(&publish.payload).parse().ok();
            match publish.topic.rsplit('/').next() {
                Some("messages") => messages = value,
                Some("syncs") => syncs = value,
                _ => {}
            }
        }
        if let (Some(messages), Some(syncs)) = (messages, syncs) {
            return Ok([messages, syncs]);
        }
    }
    Err(Fault::Wrong("$SYS says nothing of syncs".to_owned()))
}

fn start(
    kind: Kind,
    plan: &Plan,
    program: &Path,
    directory: &Path,
) -> Result<Option<Broker>, Fault> {
    let mut setup = Setup::new(program, directory);
    setup.durability = match kind {
        Kind::Group => Some("group".to_owned()),
        Kind::Against => {
            let Some(other) = &plan.against else {
                return Ok(None);
            };
            setup.program = other.canonicalize()?;
            Some("group".to_owned())
        }
        Kind::None => Some("none".to_owned()),
        Kind::Memory => None,
        Kind::MosquittoSaves | Kind::MosquittoMemory => {
            let Some(mosquitto) = &plan.mosquitto else {
                return Ok(None);
            };
            let saves = kind == Kind::MosquittoSaves;
            return start_mosquitto(mosquitto, saves, directory).map(Some);
        }
    };
    Broker::start(&setup, directory).map(Some)
}

fn start_mosquitto(program: &Path, saves: bool, directory: &Path) -> Result<Broker, Fault> {
    // It was free a moment ago: mosquitto cannot say which port the system gave it.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let persistence = match saves {
        true => format!(
            "persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n",
            directory.display()
        ),
        false => "persistence false\n".to_owned(),
    };
    let text = format!(
        "user root\nallow_anonymous true\nset_tcp_nodelay true\nlog_dest stderr\nlog_type error\nmax_queued_messages 0\n\
         max_queued_bytes 0\nmax_inflight_messages 0\n{persistence}listener {} {}\n",
        address.port(),
        address.ip()
    );
    let config = directory.join("mosquitto.conf");
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    Broker::start_other(command, address, directory)
}

const FILTER: Option<(&str, u8)> = Some(("load/#", 1));
