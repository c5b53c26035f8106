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
    passes &= check("a full disk", |place| full_disk(place, program))?;
    let what = "a second broker on the same store";
    passes &= check(what, |place| second_broker(place, program))?;
    let what = "damaged stores";
    passes &= check(what, |place| damaged(place, program, damages, random))?;
    Ok(passes)
}

/// Runs a check in a directory of its own, which is kept if it fails.
fn check(what: &str, run: impl FnOnce(&Path) -> Result<String, Fault>) -> Result<bool, Fault> {
    let mut directory = Directory::new()?;
    directory.keeps = true;
    let result = run(directory.path());
    match &result {
        Ok(text) => println!("passed: {what}: {text}"),
        Err(fault) => println!("FAILED: {what}: {fault}"),
    }
    directory.keeps = result.is_err();
    Ok(result.is_ok())
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

fn full_disk(place: &Path, program: &Path) -> Result<String, Fault> {
    let mut setup = Setup::new(program, place);
    let room = Room::new(&mut setup, place)?;
    let mut broker = Broker::start(&setup, place)?;
    let address = broker.address();
    drop(Receiver::open(
        address,
        "keeper",
        Version::V5,
        Some((KEPT, 1)),
    )?);
    let mut loader = Loader::new("loader", (Version::V311, 1), KEPT, 50, 2_000);
    let state = fill(&mut loader, address)?;
    let before = loader.acknowledged;
    if !broker.log().contains("the store cannot be written") {
        return wrong(format!("the log does not say so: {}", broker.log_tail()));
    }
    refuses_new_sessions(address)?;
    others_go_on(address)?;
    match loader.take(Duration::from_millis(200)) {
        Ok(()) => return wrong("a message was acknowledged without room for it"),
        Err(Fault::Wrong(_)) => {}
        Err(fault) => return Err(fault),
    }
    room.grow(&broker)?;
    let began = now();
    wait_for_state(address, &["ok"])?;
    let healed = began.elapsed();
    loader.run(address, before + 500)?;
    let count = before + 500;
    broker.kill()?;
    setup.file_size_kib = None;
    let broker = Broker::start(&setup, place)?;
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

/// Publishes until nothing is acknowledged any more, and the broker says why.
fn fill(loader: &mut Loader, address: SocketAddr) -> Result<String, Fault> {
    let deadline = now() + Duration::from_secs(60);
    loop {
        match loader.run_patiently(address, u64::MAX, Duration::from_secs(2)) {
            Ok(()) | Err(Fault::Wrong(_)) => {}
            Err(fault) => return Err(fault),
        }
        // On a slow machine it may just take long.
        let state = wait_for_state(address, &["ok", "full", "failing"])?;
        if state != "ok" {
            return Ok(state);
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

fn second_broker(place: &Path, program: &Path) -> Result<String, Fault> {
    let setup = Setup::new(program, place);
    let broker = Broker::start(&setup, place)?;
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

fn damaged(
    place: &Path,
    program: &Path,
    damages: usize,
    random: &mut Random,
) -> Result<String, Fault> {
    let setup = Setup::new(program, place);
    let mut broker = Broker::start(&setup, place)?;
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
    let mut whole = Vec::new();
    for entry in fs::read_dir(&setup.store)? {
        let path = entry?.path();
        // What is no socket.
        if path.is_file() {
            whole.push((fs::read(&path)?, path));
        }
    }
    let size = fs::metadata(&file)?.len() as usize;
    let (mut refused, mut behind, mut intact, mut noticed) = (0, 0, 0, 0);
    for number in 0..damages {
        let damage = Damage::new(random, size);
        for (bytes, path) in &whole {
            fs::write(path, bytes)?;
        }
        damage.apply(&file)?;
        match judge(&setup, place, &file, count) {
            Ok(Outcome::Refused) => refused += 1,
            Ok(Outcome::Behind) => behind += 1,
            Ok(Outcome::Intact) => intact += 1,
            Ok(Outcome::Noticed) => noticed += 1,
            Err(fault) => return wrong(format!("damage {number}, {damage:?}: {fault}")),
        }
        // A damaged file that was opened may have been written.
        for entry in fs::read_dir(&setup.store)? {
            fs::remove_file(entry?.path())?;
        }
    }
    Ok(format!(
        "{damages}: {refused} refused at the start with file and place named, {behind} because the last commit was missing, {intact} \
         delivered everything, {noticed} started and reported what is missing"
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
    /// The same, because the last commits were missing.
    Behind,
    Intact,
    Noticed,
}

/// What the broker makes of a damaged store: everything, or words.
fn judge(setup: &Setup, place: &Path, file: &Path, count: u64) -> Result<Outcome, Fault> {
    let broker = match Broker::start(setup, place) {
        Err(Fault::Wrong(text)) => {
            let names = text.contains(&*file.to_string_lossy()) && text.contains("damaged at");
            if !names || text.contains("panicked") {
                return wrong(text);
            }
            return Ok(match text.contains("damaged at the last commit") {
                true => Outcome::Behind,
                false => Outcome::Refused,
            });
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
