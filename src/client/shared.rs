//! What the handles of a client and its background thread share: the session under one short lock, and the sending side
//! of the connection.
//!
//! ```text
//!   publish ──encode──► Link::pending ──write turn──► Outbox ──► socket
//!                            ▲                │
//!                            └── others add ──┘ and leave: who has the turn takes their bytes along
//! ```
//!
//! With a store, what must be written first goes from `pending` to the store's thread and comes back from it; see
//! [`store`](super::store).
//!
//! The lock of [`Core`] is a leaf: bytes are appended to `pending` under it, and sent without it. One thread at a time
//! has the write turn, so that the order of the bytes is the order of the lock. When many messages leave one by one, the
//! turn goes to a thread of its own for as long as that lasts, so that a system call carries many of them.

mod callback;
mod calls;
mod goodbye;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytestring::ByteString;
use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::attempt::Route;
use super::authentication::Reauthentication;
use super::handshake::last_words;
use super::inbox::Inbox;
use super::options::ConnectOptions;
use super::session::{Effects, Session};
use super::store::ClientStore;
use super::{ClientError, ClientState, ConnectResult, Phase, StateEvent};
use crate::net::dial::DialOptions;
use crate::net::url::{Address, Endpoint};
use crate::proto::packet::connack::ConnackProperties;
use crate::proto::{ProtocolVersion, QoS};
use crate::store::WallTime;

use callback::InCallback;
pub(crate) use callback::in_callback;
use writer::Flusher;
pub(crate) use writer::{Link, Urgency};

/// See the module.
pub(crate) struct Shared {
    pub(crate) options: ConnectOptions,
    pub(crate) dial: DialOptions,
    pub(crate) inbox: Inbox,
    /// Calls that wait for an answer of the server.
    awaited: AtomicUsize,
    core: Mutex<Core>,
    /// The state has changed, there may be room, or the background thread has something to do.
    changed: Condvar,
    /// The flusher has something to do.
    flush_wanted: Condvar,
}

/// What changes, under the lock.
pub(crate) struct Core {
    pub(crate) session: Session,
    pub(super) store: Option<ClientStore>,
    pub(crate) link: Option<Link>,
    pub(crate) state: ClientState,
    /// Why there will be no other connection, in state `Disconnected`.
    ended: Option<ClientError>,
    /// Counts connections.
    pub(crate) connection: u64,
    /// The newest connection from which nothing will be read any more.
    last_gone: u64,
    /// Counts background threads: only the newest one may act.
    pub(crate) driver: u64,
    /// Somebody connects on a thread of the program.
    connecting: bool,
    /// Try now instead of after the pause.
    pub(crate) retry_now: bool,
    pub(crate) clean_start: bool,
    /// The version that this server took, to begin with the next time.
    pub(crate) agreed: Option<(Address, ProtocolVersion)>,
    pub(crate) route: Route,
    pub(crate) reauthentication: Option<Reauthentication>,
    pub(crate) result: ConnectResult,
    watchers: Vec<Sender<StateEvent>>,
    flusher: Flusher,
}

impl Shared {
    pub(crate) fn new(
        options: ConnectOptions,
        endpoint: Endpoint,
        dial: DialOptions,
        client_id: ByteString,
    ) -> Arc<Self> {
        let core = Core {
            session: Session::new(options.first_version(), options.max_in_flight),
            store: None,
            link: None,
            state: ClientState::Disconnected,
            ended: None,
            connection: 0,
            last_gone: 0,
            driver: 0,
            connecting: false,
            retry_now: false,
            clean_start: options.clean_start,
            agreed: None,
            route: Route::new(endpoint),
            reauthentication: None,
            result: ConnectResult {
                session_present: false,
                version: options.first_version(),
                client_id,
                properties: ConnackProperties::default(),
            },
            watchers: Vec::new(),
            flusher: Flusher::Absent,
        };
        Arc::new(Self {
            inbox: Inbox::new(options.inbox_messages, options.inbox_bytes),
            options,
            dial,
            awaited: AtomicUsize::new(0),
            core: Mutex::new(core),
            changed: Condvar::new(),
            flush_wanted: Condvar::new(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// Wakes all that wait for a change of [`Core`].
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    // BLOCKS: until the next change or `deadline`. True: the time is over.
    pub(crate) fn wait_for_change(
        &self,
        core: &mut MutexGuard<'_, Core>,
        deadline: Option<Instant>,
    ) -> bool {
        match deadline {
            Some(deadline) => self.changed.wait_until(core, deadline).timed_out(),
            None => {
                self.changed.wait(core);
                false
            }
        }
    }

    /// Sends `event` to whoever watches, and to the program's callback. No lock may be held.
    pub(crate) fn tell(&self, event: &StateEvent) {
        self.lock().watchers.retain(|watcher| {
            !matches!(
                watcher.try_send(event.clone()),
                Err(crossbeam_channel::TrySendError::Disconnected(_))
            )
        });
        if let Some(callback) = &self.options.on_state {
            let _inside = InCallback::enter();
            callback(event);
        }
    }

    pub(crate) fn watch(&self) -> crossbeam_channel::Receiver<StateEvent> {
        let (sender, receiver) = crossbeam_channel::bounded(EVENTS);
        self.lock().watchers.push(sender);
        receiver
    }

    /// The connection is gone, or must go, because of `error`. False: it is not the one that counts any more.
    pub(crate) fn on_connection_lost(&self, connection: u64, error: &ClientError) -> bool {
        let mut effects = Effects::default();
        let mut core = self.lock();
        if core.connection != connection || core.state != ClientState::Connected {
            return false;
        }
        core.state = ClientState::Reconnecting;
        let link = core.link.take();
        core.session.on_disconnected(&mut effects);
        core.fail_reauthentication(error, &mut effects);
        let version = core.result.version;
        drop(core);
        if let Some(link) = link {
            link.give_up(&mut last_words(error, version));
        }
        effects.tell();
        self.notify();
        true
    }

    /// There will be no other connection before [`Client::reconnect`](super::Client::reconnect).
    pub(crate) fn end(&self, error: &ClientError) {
        let mut effects = Effects::default();
        let mut core = self.lock();
        core.state = ClientState::Disconnected;
        core.ended = Some(error.clone());
        let link = core.link.take();
        core.session.give_up(error, &mut effects);
        core.fail_reauthentication(error, &mut effects);
        drop(core);
        if let Some(link) = link {
            link.outbox.abort();
        }
        effects.tell();
        self.inbox.close(error.clone());
        self.notify();
    }

    /// Takes the right to connect on a thread of the program: one at a time, and not beside a background thread.
    pub(crate) fn begin_connecting(&self) -> bool {
        let mut core = self.lock();
        if core.connecting || core.state != ClientState::Disconnected {
            return false;
        }
        core.connecting = true;
        core.state = ClientState::Reconnecting;
        core.driver += 1;
        drop(core);
        self.inbox.open();
        true
    }

    pub(crate) fn end_connecting(&self) {
        self.lock().connecting = false;
        self.notify();
    }
}

impl Core {
    /// The connection is gone on which the client was authenticating again.
    fn fail_reauthentication(&mut self, error: &ClientError, effects: &mut Effects) {
        if let Some(under_way) = self.reauthentication.take() {
            effects.pongs.push((under_way.answer, Err(error.clone())));
        }
    }

    /// Why there will be no answer.
    pub(crate) fn check_not_ended(&self) -> Result<(), ClientError> {
        if self.state != ClientState::Disconnected {
            return Ok(());
        }
        Err(self.ended.clone().unwrap_or(ClientError::NotConnected))
    }

    /// The session and the connection it goes on over, if there is one that may be used.
    pub(crate) fn live(&mut self) -> Option<(&mut Session, &mut Link)> {
        if self.state != ClientState::Connected {
            return None;
        }
        let link = self.link.as_mut()?;
        Some((&mut self.session, link))
    }

    /// What a publication has to wait for; `None`: nothing.
    fn waits_for(&self, qos: QoS, buffer_bytes: usize) -> Result<Option<Phase>, ClientError> {
        self.check_not_ended()?;
        let Some(link) = &self.link else {
            return Ok(Some(Phase::Reconnect));
        };
        // The outbox tells when it has fallen below a limit that it was above: at the limit there is room.
        let is_full = link.waiting_bytes() > buffer_bytes || !self.session.has_room(qos);
        Ok(is_full.then_some(Phase::Room))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client's clock; what decides takes the time as an argument"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time that goes on between two runs of a program.
pub(crate) fn wall_now() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let milliseconds = since_epoch.map_or(0, |since| since.as_millis());
    WallTime(u64::try_from(milliseconds).unwrap_or(u64::MAX))
}

/// Events that a watcher may leave untaken.
const EVENTS: usize = 64;
