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
mod goodbye;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytestring::ByteString;
use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::attempt::Route;
use super::authentication::Reauthentication;
use super::handshake::last_words;
use super::inbox::{Inbox, Wait};
use super::options::{ConnectOptions, Payload, PublishOptions, SubscribeOptions, Subscription};
use super::session::{Answer, Effects, Publication, Session};
use super::store::ClientStore;
use super::token::{Slot, Token};
use super::{
    ClientError, ClientState, ConnectResult, Phase, Published, ReceivedMessage, StateEvent,
    SubscribeResult,
};
use crate::net::dial::DialOptions;
use crate::net::url::{Address, Endpoint};
use crate::outbox::OutBuf;
use crate::proto::packet::connack::ConnackProperties;
use crate::proto::packet::publish::PublishHead;
use crate::proto::{ProtocolVersion, QoS, ReasonCode, topic};
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

    /// See [`Client::publish_nowait`](super::Client::publish_nowait).
    pub(crate) fn publish(
        self: &Arc<Self>,
        topic: &str,
        payload: Payload<'_>,
        options: PublishOptions,
        deadline: Option<Instant>,
        urgency: Urgency,
    ) -> Result<Token, ClientError> {
        topic::validate_name(topic)?;
        let (qos, retain) = self.options.resolve(topic, &options);
        if qos == QoS::AtMostOnce {
            self.publish_once(topic, payload, retain, &options, deadline, urgency)?;
            return Ok(Token::done(Published {
                qos,
                packet_id: None,
                reason: ReasonCode::Success,
                properties: None,
            }));
        }
        let expiry = options
            .properties
            .as_ref()
            .and_then(|properties| properties.message_expiry_interval);
        let publication = Arc::new(Publication {
            topic: topic.into(),
            payload: payload.into_bytes(),
            qos,
            retain,
            properties: options.properties,
            expires_at: expiry.map(|seconds| after(wall_now(), seconds)),
            restored: false,
            slot: Slot::new(),
        });
        let mut core = self.wait_for_room(qos, deadline)?;
        let (session, link) = core.live().ok_or(ClientError::NotConnected)?;
        session.publish(&publication, &mut link.pending)?;
        self.send(core, urgency);
        Ok(Token::waits(publication, Arc::clone(self)))
    }

    fn publish_once(
        self: &Arc<Self>,
        topic: &str,
        payload: Payload<'_>,
        retain: bool,
        options: &PublishOptions,
        deadline: Option<Instant>,
        urgency: Urgency,
    ) -> Result<(), ClientError> {
        let properties = options.properties.as_deref();
        let head = PublishHead {
            dup: false,
            qos: QoS::AtMostOnce,
            retain,
            topic,
            packet_id: None,
            properties,
            message_expiry_interval: properties.and_then(|p| p.message_expiry_interval),
            topic_alias: None,
            subscription_identifiers: &[],
        };
        let mut core = self.wait_for_room(QoS::AtMostOnce, deadline)?;
        let (session, link) = core.live().ok_or(ClientError::NotConnected)?;
        session.publish_once(&head, payload, &mut link.pending)?;
        self.send(core, urgency);
        Ok(())
    }

    /// See [`Client::subscribe_with`](super::Client::subscribe_with).
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        filters: Vec<Subscription>,
        options: SubscribeOptions,
    ) -> Result<SubscribeResult, ClientError> {
        if filters.is_empty() {
            return Err(ClientError::invalid("filters", "there is none"));
        }
        let SubscribeOptions {
            timeout,
            identifier,
            user_properties,
        } = options;
        self.request(timeout, Phase::Suback, |session, answer, out| {
            session.subscribe(filters, identifier, user_properties, answer, out)
        })
    }

    /// See [`Client::unsubscribe_with`](super::Client::unsubscribe_with).
    pub(crate) fn unsubscribe(
        self: &Arc<Self>,
        filters: Vec<ByteString>,
        options: SubscribeOptions,
    ) -> Result<SubscribeResult, ClientError> {
        if filters.is_empty() {
            return Err(ClientError::invalid("filters", "there is none"));
        }
        for filter in &filters {
            topic::parse_subscription(filter)?;
        }
        let user_properties = options.user_properties;
        self.request(options.timeout, Phase::Unsuback, |session, answer, out| {
            session.unsubscribe(filters, user_properties, answer, out)
        })
    }

    fn request(
        self: &Arc<Self>,
        timeout: Option<Duration>,
        phase: Phase,
        send: impl FnOnce(&mut Session, &Answer, Option<&mut OutBuf>) -> Result<(), ClientError>,
    ) -> Result<SubscribeResult, ClientError> {
        let deadline = self.deadline(timeout);
        let answer: Answer = Arc::new(Slot::new());
        let mut core = self.lock();
        core.check_not_ended()?;
        let Core { session, link, .. } = &mut *core;
        let pending = link.as_mut().map(|link| &mut link.pending);
        send(session, &answer, pending)?;
        self.send(core, Urgency::Now);
        let result = self.wait_for(&answer, deadline, phase);
        if matches!(
            result,
            Err(ClientError::Timeout(_) | ClientError::WouldDeadlock)
        ) {
            self.lock().session.forget_answer(&answer);
        }
        result
    }

    /// See [`Client::ping`](super::Client::ping).
    pub(crate) fn ping(self: &Arc<Self>, timeout: Duration) -> Result<Duration, ClientError> {
        let started_at = now();
        let answer = Arc::new(Slot::new());
        let mut core = self.lock();
        core.check_not_ended()?;
        let (session, link) = core.live().ok_or(ClientError::ConnectionLost)?;
        session.ping(started_at, Some(Arc::clone(&answer)), link.first());
        self.send(core, Urgency::Now);
        self.wait_for(&answer, started_at.checked_add(timeout), Phase::Pingresp)?;
        Ok(now().duration_since(started_at))
    }

    /// Waits for an answer of the server. Meanwhile a full inbox does not stop the reading for ever.
    // BLOCKS: until the answer or `deadline`.
    pub(crate) fn wait_for<T: Clone>(
        &self,
        slot: &Slot<T>,
        deadline: Option<Instant>,
        phase: Phase,
    ) -> Result<T, ClientError> {
        if slot.is_filled() {
            return slot.wait(None).unwrap_or(Err(ClientError::NotConnected));
        }
        if in_callback() {
            return Err(ClientError::WouldDeadlock);
        }
        let _waiting = self.inbox.waiting();
        slot.wait(deadline)
            .unwrap_or(Err(ClientError::Timeout(phase)))
    }

    /// Takes a message and acknowledges it.
    pub(crate) fn take(
        self: &Arc<Self>,
        wait: Wait,
    ) -> Result<Option<ReceivedMessage>, ClientError> {
        let wait = if in_callback() { Wait::No } else { wait };
        let message = self.inbox.take(wait)?;
        if let Some(message) = &message
            && message.qos() != QoS::AtMostOnce
        {
            let mut core = self.lock();
            if let Some((session, link)) = core.live()
                && session.on_taken(message, &mut link.pending)
            {
                self.send(core, Urgency::Soon);
            }
        }
        Ok(message)
    }

    /// Connected, with room for one more message of this QoS.
    // BLOCKS: until then, or `deadline`.
    fn wait_for_room(
        &self,
        qos: QoS,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'_, Core>, ClientError> {
        loop {
            let core = self.lock();
            let Some(phase) = core.waits_for(qos, self.options.send_buffer_bytes)? else {
                return Ok(core);
            };
            drop(core);
            self.park_for_room(qos, phase, deadline)?;
        }
    }

    fn park_for_room(
        &self,
        qos: QoS,
        mut phase: Phase,
        deadline: Option<Instant>,
    ) -> Result<(), ClientError> {
        if in_callback() {
            return Err(ClientError::WouldDeadlock);
        }
        if phase == Phase::Reconnect {
            log::warn!("Client not connected, waiting for it");
        }
        let _waiting = self.inbox.waiting();
        let mut core = self.lock();
        let mut timed_out = false;
        while let Some(next) = core.waits_for(qos, self.options.send_buffer_bytes)? {
            phase = next;
            if timed_out {
                return Err(ClientError::Timeout(phase));
            }
            timed_out = self.wait_for_change(&mut core, deadline);
        }
        Ok(())
    }

    /// The end of a call that has its own time, or else the general one, or none.
    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        let timeout = timeout.or(self.options.ack_timeout)?;
        now().checked_add(timeout)
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

fn after(at: WallTime, seconds: u32) -> WallTime {
    WallTime(at.0.saturating_add(u64::from(seconds) * 1000))
}

/// Events that a watcher may leave untaken.
const EVENTS: usize = 64;
