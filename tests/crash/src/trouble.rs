//! A disk that is full, a store that is damaged, a store that somebody else uses.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::broker::{Broker, Directory, Setup};
use crate::bulk::{Counted, Loader, Receiver};
use crate::clock::now;
use crate::fault::Fault;
use crate::frames::{Connect, Outgoing, Version, push_publish};
use crate::random::Random;
use crate::wire::Wire;

/// Runs all; prints a line for each. `true`: all passed.
pub(crate) fn run(damages: usize, program: &Path, random: &mut Random) -> Result<bool, Fault> {
    let mut passes = true;
    passes &= say("a full disk", full_disk(program));
    passes &= say("a second broker on the same store", second_broker(program));
    passes &= say("damaged stores", damaged(program, damages, random));
    Ok(passes)
}

fn say(what: &str, result: Result<String, Fault>) -> bool {
    match &result {
        Ok(text) => println!("passed: {what}: {text}"),
        Err(fault) => println!("FAILED: {what}: {fault}"),
    }
    result.is_ok()
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Wrong(text.into()))
}

/// A file system of a few MiB, or a limit for the size of a file where none can be mounted.
enum Room {
    Mounted(PathBuf),
    Limited,
}

impl Room {
    fn new(setup: &mut Setup, directory: &Path) -> Result<Self, Fault> {
        let path = directory.join("small");
        fs::create_dir(&path)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(&path)
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            setup.file_size_kib = Some(4096);
            return Ok(Self::Limited);
        }
        setup.store = path.join("store");
        let mut filler = File::create(path.join("filler"))?;
        filler.write_all(&vec![1; 4 << 20])?;
        Ok(Self::Mounted(path))
    }

    /// There is more room now.
    fn grow(&self, broker: &Broker) -> Result<(), Fault> {
        match self {
            Self::Mounted(path) => fs::remove_file(path.join("filler"))?,
            Self::Limited => {
                let limit = Rlimit {
                    current: None,
                    maximum: None,
                };
                prlimit(Pid::from_raw(broker.pid() as i32), Resource::Fsize, limit)?;
            }
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Self::Mounted(path) = self {
            let _ = Command::new("umount").arg(path).status();
        }
    }
}

fn full_disk(program: &Path) -> Result<String, Fault> {
    let directory = Directory::new()?;
    let mut setup = Setup::new(program, directory.path());
    let room = Room::new(&mut setup, directory.path())?;
    let mut broker = Broker::start(&setup, directory.path())?;
    let address = broker.address();
    drop(Receiver::open(
        address,
        "keeper",
        Version::V5,
        Some((KEPT, 1)),
    )?);
    let mut loader = Loader::new("loader", (Version::V311, 1), KEPT, 50, 2_000);
    fill(&mut loader, address)?;
    let before = loader.acknowledged;
    let state = wait_for_state(address, &["full", "failing"])?;
    if !broker.log().contains("the store cannot be written") {
        return wrong(format!("the log does not say so: {}", broker.log_tail()));
    }
    refuses_new_sessions(address)?;
    others_go_on(address)?;
    if loader.take(Duration::from_millis(200)).is_ok() {
        return wrong("a message was acknowledged without room for it");
    }
    room.grow(&broker)?;
    let began = now();
    wait_for_state(address, &["ok"])?;
    let healed = began.elapsed();
    loader.run(address, before + 500)?;
    let count = before + 500;
    broker.kill()?;
    setup.file_size_kib = None;
    let broker = Broker::start(&setup, directory.path())?;
    let counted = keep(&broker, count)?;
    drop(broker);
    if !counted.is_complete(count) {
        return wrong(format!("{counted} of {count} messages were there"));
    }
    let how = match room {
        Room::Mounted(_) => "tmpfs of 8 MiB",
        Room::Limited => "RLIMIT_FSIZE",
    };
    Ok(format!(
        "{before} acknowledged until it was {state} ({how}); healed {:.1} s after there was room; {} of {count} delivered after kill \
         -9",
        healed.as_secs_f64(),
        counted.different
    ))
}

/// Publishes until nothing is acknowledged any more.
fn fill(loader: &mut Loader, address: SocketAddr) -> Result<(), Fault> {
    let deadline = now() + Duration::from_secs(60);
    loop {
        match loader.run_patiently(address, u64::MAX, Duration::from_secs(2)) {
            Ok(()) => {}
            Err(Fault::Wrong(_)) => return Ok(()),
            Err(fault) => return Err(fault),
        }
        if now() > deadline {
            return wrong("the disk does not become full");
        }
    }
}

/// CONNACK 0x97, 0x88 or, before 5.0, 3.
fn refuses_new_sessions(address: SocketAddr) -> Result<(), Fault> {
    for (version, codes) in [(Version::V5, [0x97, 0x88]), (Version::V311, [3, 3])] {
        let connect = Connect {
            version,
            client_id: "new",
            clean: false,
            keeps: true,
            receive_maximum: 0,
            will: None,
        };
        let (_, connack) = Wire::connect(address, &connect)?;
        if !codes.contains(&connack.code) {
            return wrong(format!("CONNACK for a new session: {:#04x}", connack.code));
        }
    }
    Ok(())
}

/// What needs no disk works.
fn others_go_on(address: SocketAddr) -> Result<(), Fault> {
    let mut receiver = Receiver::transient(address, "passing", Some(("passing/#", 1)))?;
    let mut sender = Receiver::transient(address, "passing-too", None)?;
    for qos in [0, 1] {
        let mut out = Vec::new();
        let publish = Outgoing {
            topic: "passing/by",
            payload: &[qos],
            qos,
            retain: false,
            dup: false,
            id: 1,
        };
        push_publish(&mut out, Version::V5, &publish);
        sender.send(&out)?;
        let taken = receiver.take(Duration::from_secs(5))?;
        if taken.len() != 1 || taken[0].payload != [qos] {
            return wrong(format!("QoS {qos} between clean sessions: {taken:?}"));
        }
    }
    sender.expect_puback()
}

fn wait_for_state(address: SocketAddr, states: &[&str]) -> Result<String, Fault> {
    let mut receiver = Receiver::transient(address, "watcher", Some((STATE, 0)))?;
    let deadline = now() + Duration::from_secs(20);
    let mut last = String::new();
    while now() < deadline {
        for publish in receiver.take(Duration::from_millis(500))? {
            last = String::from_utf8_lossy(&publish.payload).into_owned();
            if states.contains(&last.as_str()) {
                return Ok(last);
            }
        }
    }
    wrong(format!("{STATE} is '{last}', not {states:?}"))
}

fn second_broker(program: &Path) -> Result<String, Fault> {
    let directory = Directory::new()?;
    let setup = Setup::new(program, directory.path());
    let broker = Broker::start(&setup, directory.path())?;
    let other = Directory::new()?;
    let refused = Broker::start(&setup, other.path());
    let Err(Fault::Wrong(text)) = refused else {
        return wrong("it started");
    };
    if !text.contains("another process has the store open") {
        return wrong(text);
    }
    drop(Receiver::open(
        broker.address(),
        "keeper",
        Version::V5,
        Some((KEPT, 1)),
    )?);
    Ok("refused; the first one goes on".to_owned())
}

fn damaged(program: &Path, damages: usize, random: &mut Random) -> Result<String, Fault> {
    let directory = Directory::new()?;
    let setup = Setup::new(program, directory.path());
    let mut broker = Broker::start(&setup, directory.path())?;
    drop(Receiver::open(
        broker.address(),
        "keeper",
        Version::V5,
        Some((KEPT, 1)),
    )?);
    let count = 400;
    Loader::new("loader", (Version::V311, 1), KEPT, 50, 300).run(broker.address(), count)?;
    broker.kill()?;
    let file = store_file(&setup)?;
    let whole = fs::read(&file)?;
    let (mut refused, mut intact, mut earlier, mut noticed) = (0, 0, 0, 0);
    for number in 0..damages {
        let damage = Damage::new(random, whole.len());
        fs::write(&file, &whole)?;
        damage.apply(&file)?;
        match judge(&setup, &directory, &file, count) {
            Ok(Outcome::Refused) => refused += 1,
            Ok(Outcome::Intact) => intact += 1,
            Ok(Outcome::Earlier) => earlier += 1,
            Ok(Outcome::Noticed) => noticed += 1,
            Err(fault) => return wrong(format!("damage {number}, {damage:?}: {fault}")),
        }
        // A damaged file that was opened may have been written.
        for entry in fs::read_dir(&setup.store)? {
            fs::remove_file(entry?.path())?;
        }
    }
    Ok(format!(
        "{damages}: {refused} refused at the start with file and place named, {intact} delivered everything, {earlier} the state \
         of an earlier commit, {noticed} started and reported what is missing"
    ))
}

fn store_file(setup: &Setup) -> Result<PathBuf, Fault> {
    let entries = fs::read_dir(&setup.store)?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let largest = files.max_by_key(|path| path.metadata().map_or(0, |metadata| metadata.len()));
    largest.ok_or_else(|| Fault::Wrong("there is no store".to_owned()))
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip { at: u64, bytes: usize, with: u8 },
    Zero { at: u64, bytes: usize },
    Truncate { to: u64 },
}

impl Damage {
    fn new(random: &mut Random, size: usize) -> Self {
        let at = random.below(size) as u64;
        match random.below(3) {
            0 => Self::Truncate { to: at },
            1 => Self::Zero {
                at: at / 4096 * 4096,
                bytes: 4096,
            },
            _ => Self::Flip {
                at,
                bytes: random.between(1, 16),
                with: random.between(1, 255) as u8,
            },
        }
    }

    fn apply(self, path: &Path) -> Result<(), Fault> {
        let mut file = File::options().read(true).write(true).open(path)?;
        match self {
            Self::Flip { at, bytes, with } => {
                let mut old = Vec::new();
                file.seek(SeekFrom::Start(at))?;
                (&file).take(bytes as u64).read_to_end(&mut old)?;
                old.iter_mut().for_each(|byte| *byte ^= with);
                file.write_all_at(&old, at)?;
            }
            Self::Zero { at, bytes } => file.write_all_at(&vec![0; bytes], at)?,
            Self::Truncate { to } => file.set_len(to)?,
        }
        Ok(())
    }
}

enum Outcome {
    Refused,
    Intact,
    /// The last commits were cut off, as after a torn write.
    Earlier,
    Noticed,
}

/// What the broker makes of a damaged store: everything, or words.
fn judge(setup: &Setup, directory: &Directory, file: &Path, count: u64) -> Result<Outcome, Fault> {
    let broker = match Broker::start(setup, directory.path()) {
        Err(Fault::Wrong(text)) => {
            let names = text.contains(&*file.to_string_lossy()) && text.contains("damaged at");
            if !names || text.contains("panicked") {
                return wrong(text);
            }
            return Ok(Outcome::Refused);
        }
        Err(fault) => return Err(fault),
        Ok(broker) => broker,
    };
    let counted = keep(&broker, count);
    let log = broker.log();
    let is_said = ["damaged", "not in the store", "cannot be read"]
        .iter()
        .any(|text| log.contains(text));
    match counted {
        Ok(counted) if counted.is_complete(count) => Ok(Outcome::Intact),
        _ if is_said && !log.contains("panicked") => Ok(Outcome::Noticed),
        Ok(counted) if counted.is_prefix() => Ok(Outcome::Earlier),
        Ok(counted) => wrong(format!("{counted} came: {}", broker.log_tail())),
        Err(fault) => wrong(format!("{fault}: {}", broker.log_tail())),
    }
}

/// What the session that must be there is given.
fn keep(broker: &Broker, count: u64) -> Result<Counted, Fault> {
    let mut receiver = Receiver::open(broker.address(), "keeper", Version::V5, None)?;
    if !receiver.present {
        return wrong("the session is gone");
    }
    receiver.count(count, Duration::from_secs(2))
}

const KEPT: &str = "kept";
const STATE: &str = "$SYS/broker/persistence/state";
