//! Whole connections against a whole broker in this process.
//!
//! What must hold: no panic, on any thread; every connection is answered and closed in time; the answers are MQTT, and
//! within what the client takes; the broker's state stays within its limits and its memory within a bound; a client that
//! behaves is served all the while.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hbmqtt::broker::BrokerContext;
use hbmqtt::broker::auth::{AuthExchange, AuthStep, ConnectInfo, EnhancedAuthenticate};
use hbmqtt::{Broker, Config, ReasonCode};

use crate::packets::METHOD;
use crate::place::{
    IN_FLIGHT, MOST_QUEUED, MOST_RETAINED, MOST_SESSIONS, MOST_SUBSCRIPTIONS, Place, SYS_TOPICS,
};
use crate::play::{Act, MOST_CLIENTS, Play};
use crate::random::Random;
use crate::replies::Kinds;
use crate::{MEMORY, Settings, replies, seeds};

/// A broker serves so many executions, then the next one starts, with other settings.
const PER_BROKER: u64 = 2_000;
/// How often the state, the memory and a client that behaves are looked at.
const CHECK_EVERY: u64 = 50;
/// The broker answers and closes within this time, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for an answer that may not come.
const ANSWER: Duration = Duration::from_millis(2);
/// Bytes in use at any time; the limits of the settings below add up to a fraction.
const MOST_BYTES: usize = 64 << 20;
/// Bytes that may be in use after a broker has ended beyond what was after the first one.
const MOST_LEFT: usize = 2 << 20;

/// The execution that runs and the one at which its broker was started: for what a panic says.
static EXECUTION: AtomicU64 = AtomicU64::new(0);
static BROKER_FIRST: AtomicU64 = AtomicU64::new(0);
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs until the time is over or something is found, which it tells.
#[expect(clippy::disallowed_methods, reason = "the loop ends by the clock")]
pub(crate) fn run(settings: Settings) -> bool {
    let corpus = seeds::load();
    let place = Place::new();
    let seed = settings.seed;
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::SeqCst);
        println!("FOUND a panic; again with {}", again(seed));
        before(info);
    }));
    log::set_logger(&Formatting).expect("no other logger");
    println!("connection: seed {seed}");
    let start = Instant::now();
    let mut execution = settings.first - settings.first % PER_BROKER;
    let first = execution;
    let mut kinds = Kinds::default();
    let mut left = None;
    let mut peak = 0;
    while start.elapsed() < settings.time {
        BROKER_FIRST.store(execution, Ordering::SeqCst);
        let outcome = one_broker(seed, &mut execution, &corpus, &place, &mut kinds, &|| {
            start.elapsed() < settings.time
        });
        peak = peak.max(MEMORY.peak_usage());
        let outcome = outcome.and_then(|()| {
            let now = MEMORY.current_usage();
            let allowed = *left.get_or_insert(now) + MOST_LEFT;
            if now > allowed {
                return Err(format!("{now} bytes are left after the broker's end"));
            }
            Ok(())
        });
        if let Err(found) = outcome {
            println!("FOUND {found}; again with {}", again(seed));
            return true;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let executions = execution - first;
    println!(
        "connection: {executions} executions in {seconds:.0} s ({:.0}/s), {} KiB in use at most, nothing found",
        executions as f64 / seconds,
        peak >> 10,
    );
    println!("connection: answers and their reason codes:{kinds}");
    false
}

/// How to come to the execution that runs.
fn again(seed: u64) -> String {
    format!(
        "--seed {seed} --first {} (execution {})",
        BROKER_FIRST.load(Ordering::SeqCst),
        EXECUTION.load(Ordering::SeqCst)
    )
}

/// Starts a broker, runs its executions, and ends it.
fn one_broker(
    seed: u64,
    execution: &mut u64,
    corpus: &[Vec<u8>],
    place: &Place,
    kinds: &mut Kinds,
    goes_on: &dyn Fn() -> bool,
) -> Result<(), String> {
    let mut random = numbers(seed, u64::MAX - *execution);
    let level = random.once_in(2);
    log::set_max_level(if level {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Off
    });
    let text = place.settings(&mut random);
    let config = Config::parse(&text).map_err(|error| format!("{error} in\n{text}"))?;
    let mut broker = Broker::new(config).authentication_method(Arc::new(Method));
    broker.start().map_err(|error| error.to_string())?;
    let result = executions(seed, execution, corpus, place, &broker, kinds, goes_on);
    let result = result.map_err(|found| format!("{found}\nunder the settings\n{text}"));
    broker
        .shutdown(PATIENCE)
        .map_err(|error| format!("no end of the broker: {error}"))?;
    result?;
    if PANICKED.load(Ordering::SeqCst) {
        return Err("the panic above".to_owned());
    }
    Ok(())
}

fn executions(
    seed: u64,
    execution: &mut u64,
    corpus: &[Vec<u8>],
    place: &Place,
    broker: &Broker,
    kinds: &mut Kinds,
    goes_on: &dyn Fn() -> bool,
) -> Result<(), String> {
    let broker = broker.context().map_err(|error| error.to_string())?;
    let broker = &broker;
    for _ in 0..PER_BROKER {
        EXECUTION.store(*execution, Ordering::SeqCst);
        let mut random = numbers(seed, *execution);
        *execution += 1;
        let play = Play::compose(&mut random, corpus);
        perform(&play, &place.socket, broker, kinds)
            .map_err(|found| format!("{found}\nin {play:02x?}"))?;
        if execution.is_multiple_of(CHECK_EVERY) {
            serve_a_fresh_client(&place.socket)
                .map_err(|found| format!("a fresh client is not served: {found}"))?;
            check_state(broker)?;
            if !goes_on() {
                break;
            }
        }
        if PANICKED.load(Ordering::SeqCst) {
            return Err(format!("a panic in {play:02x?}"));
        }
    }
    Ok(())
}

/// The random numbers of one execution: they do not depend on the one before.
fn numbers(seed: u64, execution: u64) -> Random {
    let mut mixed = Random::new(seed ^ execution.rotate_left(32));
    mixed.next();
    Random::new(mixed.next() ^ execution)
}

/// One client's end of a connection.
struct Peer {
    stream: UnixStream,
    received: Vec<u8>,
}

/// Plays the play and checks what comes back.
fn perform(
    play: &Play,
    socket: &Path,
    broker: &BrokerContext,
    kinds: &mut Kinds,
) -> Result<(), String> {
    let mut peers: [Option<Peer>; MOST_CLIENTS] = [const { None }; MOST_CLIENTS];
    for step in &play.steps {
        let peer = match &mut peers[step.client] {
            Some(peer) => peer,
            none => none.insert(Peer::connect(socket)?),
        };
        match &step.act {
            Act::Send(bytes) => peer.send(bytes)?,
            Act::Settle => peer.settle(broker)?,
            Act::Close => {
                peer.close()?;
                let terms = play.clients[step.client].as_ref();
                replies::check(&peer.received, terms, true, kinds)?;
            }
            Act::Vanish => {
                let terms = play.clients[step.client].as_ref();
                peer.drain()?;
                replies::check(&peer.received, terms, false, kinds)?;
                peers[step.client] = None;
            }
        }
    }
    Ok(())
}

impl Peer {
    fn connect(socket: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).map_err(|error| format!("connect: {error}"))?;
        stream.set_nonblocking(true).map_err(in_words)?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Sends, reading what comes meanwhile. A broker that has closed already is no fault.
    fn send(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.drain()?;
                    std::thread::yield_now();
                }
                Err(_) => break,
            }
        }
        self.drain()
    }

    /// Takes what is there.
    fn drain(&mut self) -> Result<(), String> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if is_gone(&error) || error.kind() == ErrorKind::WouldBlock => {
                    return Ok(());
                }
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    }

    /// Waits for the answer to a PINGREQ, which comes when all before is on its way to the router, and then for the
    /// router. A broker that waits for the rest of a packet gives none, and one that has closed neither.
    fn settle(&mut self, broker: &BrokerContext) -> Result<(), String> {
        self.send(&[0xC0, 0])?;
        self.stream.set_nonblocking(false).map_err(in_words)?;
        self.stream
            .set_read_timeout(Some(ANSWER))
            .map_err(in_words)?;
        let mut buffer = [0; 4096];
        while !self.received.ends_with(&[0xD0, 0]) {
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            }
        }
        broker.stats().map_err(|error| error.to_string())?;
        self.stream.set_nonblocking(true).map_err(in_words)?;
        self.drain()
    }

    /// Ends our direction and waits for the end of the other.
    fn close(&mut self) -> Result<(), String> {
        // BLOCKS: until the broker has closed too.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.stream.set_nonblocking(false).map_err(in_words)?;
        self.stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(in_words)?;
        match self.stream.read_to_end(&mut self.received) {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(format!("the connection stays open: {error}")),
        }
    }
}

/// The broker has closed with bytes of ours unread.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn in_words(error: std::io::Error) -> String {
    error.to_string()
}

/// CONNECT, SUBSCRIBE, a message to itself, DISCONNECT, and every answer as it must be.
fn serve_a_fresh_client(socket: &Path) -> Result<(), String> {
    let mut stream = UnixStream::connect(socket).map_err(in_words)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(in_words)?;
    let mut exchange = |send: &[u8], expected: &[u8]| {
        stream.write_all(send).map_err(in_words)?;
        let mut found = vec![0; expected.len()];
        stream.read_exact(&mut found).map_err(in_words)?;
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:02x?} instead of {expected:02x?}"))
        }
    };
    exchange(
        b"\x10\x11\0\x04MQTT\x04\x02\0\x0a\0\x05fresh",
        b"\x20\x02\0\0",
    )?;
    exchange(b"\x82\x0a\0\x07\0\x05fresh\x01", b"\x90\x03\0\x07\x01")?;
    // The acknowledgement and the message come in either order.
    stream
        .write_all(b"\x32\x0b\0\x05fresh\0\x09hi")
        .map_err(in_words)?;
    let mut found = [0; 17];
    stream.read_exact(&mut found).map_err(in_words)?;
    let (puback, publish) = (b"\x40\x02\0\x09", b"\x32\x0b\0\x05fresh\0\x01hi");
    if found != *[&puback[..], publish].concat() && found != *[&publish[..], puback].concat() {
        return Err(format!("{found:02x?} for PUBLISH"));
    }
    stream.write_all(b"\xe0\0").map_err(in_words)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).map_err(in_words)?;
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{rest:02x?} behind DISCONNECT"))
    }
}

/// The broker's own numbers, and the allocator's.
fn check_state(broker: &BrokerContext) -> Result<(), String> {
    let stats = broker.stats().map_err(|error| error.to_string())?;
    let sessions = stats.sessions;
    // Beside the sessions that are kept, those of connections that are just ending.
    let bounded = sessions <= MOST_SESSIONS + 100
        && stats.subscriptions <= sessions * MOST_SUBSCRIPTIONS
        && stats.retained_messages <= MOST_RETAINED + SYS_TOPICS
        && stats.queued_messages <= sessions * MOST_QUEUED
        && stats.inflight_in <= sessions * usize::from(u16::MAX)
        && stats.inflight_out <= sessions * IN_FLIGHT;
    if !bounded {
        return Err(format!("beyond the limits: {stats:?}"));
    }
    let used = MEMORY.current_usage();
    if used > MOST_BYTES {
        return Err(format!("{used} bytes are in use: {stats:?}"));
    }
    Ok(())
}

/// Writes every log line to nowhere: what formats it is the broker's too.
struct Formatting;

impl log::Log for Formatting {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        std::hint::black_box(record.args().to_string());
    }

    fn flush(&self) {}
}

/// An authentication method that does what the client's data says.
struct Method;

impl EnhancedAuthenticate for Method {
    fn method(&self) -> &str {
        METHOD
    }

    fn start(&self, _: &ConnectInfo<'_>) -> Box<dyn AuthExchange> {
        Box::new(Obedient)
    }
}

struct Obedient;

impl AuthExchange for Obedient {
    fn step(&mut self, data: Option<&[u8]>) -> AuthStep {
        let data = data.unwrap_or_default();
        match data.first() {
            Some(0 | 1) => AuthStep::Success {
                user: None,
                data: Some(Bytes::copy_from_slice(data)),
            },
            Some(2) => AuthStep::Success {
                user: Some("u".to_owned()),
                data: None,
            },
            Some(3) => AuthStep::Failed(
                data.get(1)
                    .and_then(|byte| ReasonCode::from_u8(*byte))
                    .unwrap_or(ReasonCode::NotAuthorized),
            ),
            _ => AuthStep::Continue(Bytes::copy_from_slice(data)),
        }
    }
}
