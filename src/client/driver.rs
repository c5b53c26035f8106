//! The background thread of a client: it reads, pings, finds out that a connection is dead, and makes another one.
//!
//! ```text
//!   connect ──► attach ──► serve: buffered packets → keep alive → room in the inbox? → read ──┐
//!                 ▲          ▲───────────────────────────────────────────────────────────────┘
//!                 │          │ the connection ends
//!                 └── attempt, pause, attempt … ──► given up
//! ```
//!
//! The first connection, and one that the program asks for, is made on the program's thread by the same code.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::attempt;
use super::handshake::Established;
use super::reconnect::{self, BackOff};
use super::redirect::{RedirectProblem, Redirection};
use super::session::{Announced, Effects, Made};
use super::shared::{Link, Shared, Urgency, now, wall_now};
use super::{ClientError, ClientState, ConnectResult, Phase, StateEvent};
use crate::net::Socket;
use crate::net::transport::Received;
use crate::outbox::Outbox;
use crate::packet_log;
use crate::proto::flow::keep_alive::{PingAction, PingSchedule};
use crate::proto::packet::{Packet, PacketType, Publish, PublishView};
use crate::proto::{Decoder, Frame};
use crate::thread;

/// Connects on the thread of the program, with as many attempts as the options allow, and starts the background thread.
/// The caller has begun connecting; see [`Shared::begin_connecting`].
// BLOCKS: until CONNACK or the last attempt has failed.
pub(crate) fn connect(shared: &Arc<Shared>) -> Result<ConnectResult, ClientError> {
    let (driver, clean_start) = {
        let core = shared.lock();
        (core.driver, core.clean_start)
    };
    let established = attempts(shared, driver, clean_start)?;
    let connection = attach(shared, driver, established).ok_or(ClientError::NotConnected)?;
    let result = shared.lock().result.clone();
    let shared = Arc::clone(shared);
    let started = thread::spawn("client", DEFAULT_STACK, move || {
        Driver { shared, driver }.run(connection);
    });
    match started {
        Ok(_) => Ok(result),
        Err(error) => Err(ClientError::Thread(Arc::new(error))),
    }
}

/// Tries until a connection is made, an error says that trying is of no use, or no attempt is left.
// BLOCKS: for the attempts and the pauses between.
fn attempts(
    shared: &Arc<Shared>,
    driver: u64,
    clean_start: bool,
) -> Result<Established, ClientError> {
    let mut failed = 0;
    loop {
        let error = match attempt::establish(shared, clean_start) {
            Ok(established) => return Ok(established),
            Err(error) => error,
        };
        failed += 1;
        log::warn!("Connection failed: {error}");
        if !shared.options.auto_reconnect || !error.is_worth_a_retry() {
            return Err(error);
        }
        let Some(pause) = back_off(shared).pause(failed, random()) else {
            log::error!("Maximum number of connection attempts reached. Reconnection aborted");
            return Err(error);
        };
        shared.tell(&StateEvent::Reconnecting {
            attempt: failed,
            delay: pause,
        });
        if !wait(shared, driver, pause) {
            return Err(ClientError::NotConnected);
        }
    }
}

/// Makes an established connection the client's own: the session goes on over it. `None`: nobody wants it any more.
fn attach(shared: &Arc<Shared>, driver: u64, established: Established) -> Option<Connection> {
    let Established {
        socket,
        outbox,
        decoder,
        early,
        connack,
        client_id,
        version,
    } = established;
    let retracted = if connack.session_present {
        shared.inbox.retract()
    } else {
        Vec::new()
    };
    let mut effects = Effects::default();
    let mut core = shared.lock();
    if core.driver != driver {
        drop(core);
        outbox.close();
        return None;
    }
    core.connection += 1;
    let number = core.connection;
    core.state = ClientState::Connected;
    core.retry_now = false;
    let mut link = Link::new(Arc::clone(&outbox), now());
    core.session.on_retracted(&retracted);
    core.session.on_connected(
        Made {
            number,
            at: wall_now(),
        },
        version,
        &connack,
        Announced {
            receive_maximum: shared.options.receive_maximum.unwrap_or(u16::MAX),
            topic_alias_maximum: shared.options.topic_alias_maximum,
        },
        &mut link.pending,
        &mut effects,
    );
    core.link = Some(link);
    let keep_alive = connack
        .properties
        .server_keep_alive
        .unwrap_or(shared.options.keep_alive);
    let session_present = connack.session_present;
    core.result = ConnectResult {
        session_present,
        version,
        client_id,
        properties: connack.properties,
    };
    shared.send(core, Urgency::Now);
    effects.tell();
    shared.notify();
    shared.tell(&StateEvent::Connected { session_present });
    Some(Connection {
        number,
        socket,
        outbox,
        decoder,
        received: early,
        raw: vec![0; SMALLEST_READ],
        batch: Vec::new(),
        schedule: schedule(shared, keep_alive),
        made_at: now(),
        last_received_at: now(),
        read_timeout: None,
        is_paused: false,
    })
}

/// Pauses before the next attempt. False: the client was disconnected meanwhile.
// BLOCKS: for the pause, or until the program wants to try now.
fn wait(shared: &Shared, driver: u64, pause: Duration) -> bool {
    let until = now() + pause;
    let mut core = shared.lock();
    loop {
        if core.driver != driver {
            return false;
        }
        if std::mem::take(&mut core.retry_now) || now() >= until {
            return true;
        }
        shared.wait_for_change(&mut core, Some(until));
    }
}

/// See the module.
struct Driver {
    shared: Arc<Shared>,
    /// Its number: a newer one takes over.
    driver: u64,
}

impl Driver {
    fn run(&self, mut connection: Connection) {
        loop {
            let error = connection.serve(&self.shared);
            if !self.shared.on_connection_lost(connection.number, &error) {
                connection.socket.discard_until_end();
                self.shared.on_gone(connection.number);
                return;
            }
            log::warn!("Disconnected from broker: {error}");
            self.shared.tell(&StateEvent::ConnectionLost {
                error: error.clone(),
            });
            match self.connect_again(error, now().duration_since(connection.made_at)) {
                Some(next) => connection = next,
                None => return,
            }
        }
    }

    /// `None`: given up, or the program has disconnected.
    fn connect_again(&self, lost: ClientError, lasted: Duration) -> Option<Connection> {
        let shared = &self.shared;
        let end = |error: ClientError| {
            if shared.lock().driver == self.driver {
                shared.end(&error);
                shared.tell(&StateEvent::Disconnected { error: Some(error) });
            }
            None
        };
        if !shared.options.auto_reconnect || !lost.is_worth_a_retry() {
            return end(lost);
        }
        if let Err(error) = self.note_redirection(&lost, lasted) {
            return end(error);
        }
        let pause = back_off(shared).pause_after_loss(lasted, random());
        shared.tell(&StateEvent::Reconnecting {
            attempt: 1,
            delay: pause,
        });
        if !wait(shared, self.driver, pause) {
            return None;
        }
        match attempts(shared, self.driver, self.clean_start()) {
            Ok(established) => attach(shared, self.driver, established),
            Err(error) if error.is_worth_a_retry() => {
                end(ClientError::WillNotReconnect(Arc::new(error)))
            }
            Err(error) => end(error),
        }
    }

    /// Where the server has sent the client, if the program wants to follow.
    ///
    /// # Errors
    /// Servers send the client round: too many connections in a row have ended so as soon as they were made.
    fn note_redirection(&self, lost: &ClientError, lasted: Duration) -> Result<(), ClientError> {
        let most = self.shared.options.redirects;
        let Some(redirection) = Redirection::of(lost).filter(|_| most > 0) else {
            return Ok(());
        };
        let mut core = self.shared.lock();
        let route = &mut core.route;
        route.ended_at_once = if lasted < reconnect::STABLE {
            route.ended_at_once.saturating_add(1)
        } else {
            1
        };
        if route.ended_at_once > most {
            return Err(redirection.fails(RedirectProblem::TooMany));
        }
        route.next = Some(redirection);
        Ok(())
    }

    /// Whether the next connection begins with an empty session. Where a session can both begin empty and outlive its
    /// connection, it goes on.
    fn clean_start(&self) -> bool {
        let clean_start = self.shared.lock().clean_start;
        clean_start && !self.shared.session_is_kept()
    }
}

/// A panic of the thread, in the program's callback for example, must not leave anybody waiting.
impl Drop for Driver {
    fn drop(&mut self) {
        if std::thread::panicking() && self.shared.lock().driver == self.driver {
            self.shared.end(&ClientError::ConnectionLost);
        }
    }
}

/// The reading side of one connection.
struct Connection {
    number: u64,
    socket: Arc<Socket>,
    outbox: Arc<Outbox>,
    decoder: Decoder,
    /// Plain bytes that are no whole packet yet.
    received: BytesMut,
    raw: Vec<u8>,
    /// Decoded and not yet handled.
    batch: Vec<Decoded>,
    schedule: PingSchedule,
    made_at: Instant,
    last_received_at: Instant,
    read_timeout: Option<Duration>,
    /// Nothing is read because the inbox is full.
    is_paused: bool,
}

/// A packet, PUBLISH without the box that [`Packet`] has around it.
enum Decoded {
    Publish(Publish),
    Other(Packet),
}

impl Connection {
    /// Reads, pings and handles until the connection ends: why it did.
    fn serve(&mut self, shared: &Arc<Shared>) -> ClientError {
        loop {
            match self.step(shared) {
                Ok(()) => {}
                Err(error) => return error,
            }
        }
    }

    fn step(&mut self, shared: &Arc<Shared>) -> Result<(), ClientError> {
        self.handle_received(shared)?;
        let ping_at = self.keep_alive(shared)?;
        if !shared.inbox.may_read(ping_at, now) {
            self.is_paused = true;
            return Ok(());
        }
        if std::mem::take(&mut self.is_paused) {
            self.last_received_at = now();
        }
        self.read(ping_at)
    }

    /// Pings if it is time to: when to look again.
    fn keep_alive(&mut self, shared: &Arc<Shared>) -> Result<Option<Instant>, ClientError> {
        loop {
            let now = now();
            let mut core = shared.lock();
            let (session, link) = core.live().ok_or(ClientError::ConnectionLost)?;
            // Who does not read cannot miss an answer.
            let pinged_at = if self.is_paused {
                None
            } else {
                session.pinged_at().map(|at| at.max(self.last_received_at))
            };
            match self.schedule.next(link.last_sent_at, pinged_at, now) {
                PingAction::Wait(until) => return Ok(until),
                PingAction::GiveUp => return Err(ClientError::Timeout(Phase::Pingresp)),
                PingAction::SendPingreq => {
                    session.ping(now, None, link.first());
                    link.last_sent_at = now;
                    shared.send(core, Urgency::Now);
                }
            }
        }
    }

    // BLOCKS: until bytes come or `deadline`.
    fn read(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        self.set_read_timeout(deadline)?;
        let read = match self.socket.read(&mut self.raw) {
            Ok(0) => return Err(ClientError::ConnectionLost),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
            Err(error) => return Err(ClientError::Network(Arc::new(error.into()))),
        };
        self.last_received_at = now();
        let raw = self.raw.get(..read).unwrap_or_default();
        let received = self.outbox.receive(raw, &mut self.received)?;
        if read == self.raw.len() && read < LARGEST_READ {
            self.raw.resize(read * 4, 0);
        }
        match received {
            Received::Open => Ok(()),
            Received::Closed if self.received.is_empty() => Err(ClientError::ConnectionLost),
            Received::Closed => Ok(()), // the socket says the same after these packets
        }
    }

    /// Sets the socket's timeout, unless the one it has will do: a system call for each read would be too many.
    fn set_read_timeout(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let wanted = deadline.map(|deadline| deadline.saturating_duration_since(now()));
        let will_do = match (self.read_timeout, wanted) {
            (None, None) => true,
            (Some(set), Some(wanted)) => {
                set <= wanted + TIMEOUT_SLACK.min(wanted / 8) && set >= wanted / 2
            }
            _ => false,
        };
        if !will_do {
            let set = self.socket.set_read_timeout(wanted);
            set.map_err(|error| ClientError::Network(Arc::new(error.into())))?;
            self.read_timeout = wanted;
        }
        Ok(())
    }

    /// Handles the whole packets among the bytes received, as one batch.
    fn handle_received(&mut self, shared: &Arc<Shared>) -> Result<(), ClientError> {
        let decoded = self.decode(shared);
        if self.batch.is_empty() {
            return decoded;
        }
        let mut effects = Effects::default();
        let mut core = shared.lock();
        let (session, link) = core.live().ok_or(ClientError::ConnectionLost)?;
        let mut handled = Ok(());
        for packet in self.batch.drain(..) {
            handled = match packet {
                Decoded::Publish(publish) => {
                    session.on_publish(publish, &mut link.pending, &mut effects)
                }
                Decoded::Other(packet) => {
                    session.on_packet(packet, &mut link.pending, &mut effects)
                }
            };
            if handled.is_err() {
                break;
            }
        }
        shared.send(core, Urgency::Now);
        let carried_out = self.carry_out(shared, effects);
        handled.and(decoded).and(carried_out)
    }

    fn carry_out(&mut self, shared: &Arc<Shared>, mut effects: Effects) -> Result<(), ClientError> {
        if !effects.delivered.is_empty() {
            let dropped = shared.inbox.deliver(&mut effects.delivered);
            if dropped > 0 {
                log::warn!(
                    "the inbox is full while the program waits for the server: {dropped} messages of QoS 0 dropped"
                );
            }
        }
        for (filter, reason) in effects.lost_subscriptions.drain(..) {
            log::warn!("the server did not take back the subscription to '{filter}': {reason}");
        }
        effects.tell();
        if effects.room {
            shared.notify();
        }
        effects
            .authentications
            .iter()
            .try_for_each(|auth| shared.on_auth(auth))
    }

    /// Decodes the whole packets among the bytes received. What stands before an error is decoded.
    fn decode(&mut self, shared: &Shared) -> Result<(), ClientError> {
        let (whole, broken) = self.whole_packets();
        if whole > 0 {
            let packets = self.received.split_to(whole).freeze();
            self.decode_all(shared, &packets)?;
        }
        broken
    }

    /// How many bytes whole packets take, and whether what follows them cannot be one.
    fn whole_packets(&self) -> (usize, Result<(), ClientError>) {
        let mut whole = 0;
        loop {
            let rest = self.received.get(whole..).unwrap_or_default();
            match self.decoder.frame(rest) {
                Ok(Some(frame)) => whole += frame.total_bytes as usize,
                Ok(None) => return (whole, Ok(())),
                Err(error) => return (whole, Err(error.into())),
            }
        }
    }

    fn decode_all(&mut self, shared: &Shared, packets: &Bytes) -> Result<(), ClientError> {
        let mut at = 0;
        while let Some(frame) = self.decoder.frame(packets.get(at..).unwrap_or_default())? {
            let decoded = self.decode_one(frame, packets, at)?;
            if packet_log::is_on() {
                let client_id = shared.lock().result.client_id.clone();
                match &decoded {
                    Decoded::Publish(publish) => {
                        packet_log::received_publish(&client_id, frame, publish);
                    }
                    Decoded::Other(packet) => packet_log::received(&client_id, frame, packet),
                }
            }
            self.batch.push(decoded);
            at += frame.total_bytes as usize;
        }
        Ok(())
    }

    fn decode_one(&self, frame: Frame, packets: &Bytes, at: usize) -> Result<Decoded, ClientError> {
        let end = at + frame.total_bytes as usize;
        if frame.packet_type == PacketType::Publish {
            let bytes = packets.get(at..end).unwrap_or_default();
            let view = PublishView::decode(&self.decoder, frame, bytes)?;
            return Ok(Decoded::Publish(view.into_publish(packets)));
        }
        let packet = self.decoder.decode(frame, &packets.slice(at..end))?;
        Ok(Decoded::Other(packet))
    }
}

fn back_off(shared: &Shared) -> BackOff {
    BackOff {
        retries: shared.options.reconnect_retries,
        max_interval: shared.options.reconnect_max_interval,
    }
}

fn schedule(shared: &Shared, keep_alive: u16) -> PingSchedule {
    let ping_delay = Duration::from_secs(u64::from(shared.options.ping_delay));
    PingSchedule::new(keep_alive, ping_delay, shared.options.ping_timeout)
}

/// Good enough to spread clients: each process has other keys.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The program's callback runs on this thread.
const DEFAULT_STACK: usize = 0;

const SMALLEST_READ: usize = 4 * 1024;
const LARGEST_READ: usize = 64 * 1024;

/// By how much a ping may be late.
const TIMEOUT_SLACK: Duration = Duration::from_millis(250);
