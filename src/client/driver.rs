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

mod connection;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::attempt;
use super::handshake::Established;
use super::reconnect::{self, BackOff};
use super::redirect::{RedirectProblem, Redirection};
use super::session::{Announced, Effects, Made};
use super::shared::{Link, Shared, Urgency, now, wall_now};
use super::{ClientError, ClientState, ConnectResult, StateEvent};
use crate::proto::flow::keep_alive::PingSchedule;
use crate::thread;

use connection::{Connection, SMALLEST_READ};

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
