//! What the handles of a client and its background thread share: the session under one short lock, and the sending side
//! of the connection.
//!
//! ```text
//!   publish ──encode──► Link::pending ──write turn──► Outbox ──► socket
//!                            ▲                │
//!                            └── others add ──┘ and leave: who has the turn takes their bytes along
//! ```
//!
//! The lock of [`Core`] is a leaf: bytes are appended to `pending` under it, and sent without it. One thread at a time
//! has the write turn, so that the order of the bytes is the order of the lock. When many messages leave one by one, the
//! turn goes to a thread of its own for as long as that lasts, so that a system call carries many of them.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::inbox::{Inbox, Wait};
use super::options::{
    ConnectOptions, DisconnectOptions, Payload, PublishOptions, SubscribeOptions, Subscription,
};
use super::session::{Answer, Effects, Publication, Session};
use super::token::{Slot, Token};
use super::{
    ClientError, ClientState, ConnectResult, Phase, Published, ReceivedMessage, StateEvent,
};
use crate::net::dial::DialOptions;
use crate::net::url::Endpoint;
use crate::outbox::{OutBuf, Outbox};
use crate::packet_log;
use crate::proto::packet::connack::ConnackProperties;
use crate::proto::packet::publish::PublishHead;
use crate::proto::packet::{Disconnect, Packet};
use crate::proto::{ProtocolVersion, QoS, ReasonCode, codec, topic};
use crate::thread::Pool;

/// See the module.
pub(crate) struct Shared {
    pub(crate) options: ConnectOptions,
    pub(crate) endpoint: Endpoint,
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
    /// The version that a server took, to begin with the next time.
    pub(crate) agreed: Option<ProtocolVersion>,
    pub(crate) result: ConnectResult,
    watchers: Vec<Sender<StateEvent>>,
    flusher: Flusher,
}

/// The sending side of one connection.
pub(crate) struct Link {
    pub(crate) outbox: Arc<Outbox>,
    /// Encoded, in order, and not yet given to the outbox.
    pub(crate) pending: OutBuf,
    /// The buffer that was sent last, to be used again.
    spare: OutBuf,
    /// Somebody has the write turn and will take what is appended.
    turn_taken: bool,
    /// That is the flusher.
    handed_over: bool,
    pub(crate) last_sent_at: Instant,
    burst: Burst,
}

/// How many messages were sent of late.
#[derive(Debug)]
struct Burst {
    began_at: Instant,
    sends: u32,
}

/// The thread that has the write turn while messages leave at a high rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flusher {
    /// There is none.
    Absent,
    /// It waits for work, for a short while.
    Idle,
    /// It has the turn, or is being woken or started for it.
    Busy,
}

/// How soon bytes must leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody waits for the answer: at once, on this thread.
    Now,
    /// At once unless there are many of them.
    Soon,
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
            endpoint,
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
        let publication = Arc::new(Publication {
            topic: topic.into(),
            payload: payload.into_bytes(),
            qos,
            retain,
            properties: options.properties,
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
    ) -> Result<Vec<ReasonCode>, ClientError> {
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
    ) -> Result<Vec<ReasonCode>, ClientError> {
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
    ) -> Result<Vec<ReasonCode>, ClientError> {
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
        session.ping(started_at, Some(Arc::clone(&answer)), &mut link.pending);
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

    /// Sends what is pending, unless somebody is at it.
    pub(crate) fn send(self: &Arc<Self>, mut core: MutexGuard<'_, Core>, urgency: Urgency) {
        let Some(link) = &mut core.link else { return };
        link.burst.count();
        if link.turn_taken || link.pending.is_empty() {
            return;
        }
        link.turn_taken = true;
        let is_burst = urgency == Urgency::Soon && link.burst.is_on(now());
        if is_burst || !self.write(&mut core, ROUNDS) {
            self.hand_over(core);
        }
    }

    /// Gives the write turn to the flusher.
    fn hand_over(self: &Arc<Self>, mut core: MutexGuard<'_, Core>) {
        if let Some(link) = &mut core.link {
            link.handed_over = true;
        }
        match std::mem::replace(&mut core.flusher, Flusher::Busy) {
            Flusher::Busy => {}
            Flusher::Idle => {
                drop(core);
                self.flush_wanted.notify_one();
            }
            Flusher::Absent => {
                drop(core);
                self.start_flusher();
            }
        }
    }

    fn start_flusher(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        if let Err(error) = Pool::shared().run("flush", move || shared.flush()) {
            log::debug!("no thread to send with, sending on this one: {error}");
            let mut core = self.lock();
            core.flusher = Flusher::Absent;
            while !self.write(&mut core, ROUNDS) {}
        }
    }

    /// Has the write turn while messages leave at a high rate. Runs on a thread of its own.
    fn flush(&self) {
        let mut core = self.lock();
        loop {
            while core.link.as_ref().is_some_and(|link| link.handed_over) {
                self.write(&mut core, usize::MAX);
            }
            core.flusher = Flusher::Idle;
            // BLOCKS: until there is work; the thread ends when there is none for a while.
            self.flush_wanted.wait_for(&mut core, FLUSHER_IDLE_FOR);
            if core.flusher == Flusher::Idle {
                core.flusher = Flusher::Absent;
                if let Some(link) = &mut core.link {
                    link.spare = OutBuf::new();
                }
                return;
            }
        }
    }

    /// Gives pending bytes to the outbox, at most `rounds` times. True: nothing is left, and the turn is given back.
    ///
    /// Never blocks: what the socket does not take is the outbox's.
    fn write(&self, core: &mut MutexGuard<'_, Core>, rounds: usize) -> bool {
        let connection = core.connection;
        for _ in 0..rounds {
            let client_id = packet_log::is_on().then(|| core.result.client_id.clone());
            let version = core.result.version;
            let Some(link) = core.link.as_mut() else {
                return true;
            };
            if link.pending.is_empty() {
                link.turn_taken = false;
                link.handed_over = false;
                self.notify();
                return true;
            }
            let spare = std::mem::take(&mut link.spare);
            let mut out = std::mem::replace(&mut link.pending, spare);
            let outbox = Arc::clone(&link.outbox);
            link.last_sent_at = now();
            MutexGuard::unlocked(core, || {
                if let Some(client_id) = client_id {
                    packet_log::sent(&client_id, version, &out);
                }
                // A closed one is noticed by the reader.
                let _ = outbox.send(&mut out);
            });
            if core.connection != connection {
                return true; // the turn of the new connection is not ours
            }
            if let Some(link) = core.link.as_mut() {
                if out.bytes_mut().capacity() <= SPARE_BYTES {
                    link.spare = out;
                }
                if link.waiting_bytes() < self.options.send_buffer_bytes {
                    self.notify();
                }
            }
        }
        false
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

    /// The connection is gone. False: it is not the one that counts any more.
    pub(crate) fn on_connection_lost(&self, connection: u64) -> bool {
        let mut effects = Effects::default();
        let mut core = self.lock();
        if core.connection != connection || core.state != ClientState::Connected {
            return false;
        }
        core.state = ClientState::Reconnecting;
        let link = core.link.take();
        core.session.on_disconnected(&mut effects);
        drop(core);
        if let Some(link) = link {
            link.outbox.abort();
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
        drop(core);
        if let Some(link) = link {
            link.outbox.abort();
        }
        effects.tell();
        self.inbox.close(error.clone());
        self.notify();
    }

    /// See [`Client::disconnect_with`](super::Client::disconnect_with). False: there was nothing to disconnect.
    // BLOCKS: until the server closes the connection, for a short while.
    pub(crate) fn disconnect(&self, options: DisconnectOptions) -> Result<bool, ClientError> {
        let mut effects = Effects::default();
        let mut core = self.lock();
        if core.state == ClientState::Disconnected {
            return Ok(false);
        }
        let ends_now = options.properties.session_expiry_interval == Some(0);
        let goodbye = self.goodbye(options, &core)?;
        core.state = ClientState::Disconnected;
        core.ended = Some(ClientError::NotConnected);
        core.driver += 1;
        // Who has the write turn holds bytes that come before DISCONNECT. Writing does not block, and nothing is added.
        while core.link.as_ref().is_some_and(|link| link.turn_taken) {
            self.wait_for_change(&mut core, None);
        }
        let link = core.link.take();
        let connection = core.connection;
        let result = core.result.clone();
        core.session
            .give_up(&ClientError::NotConnected, &mut effects);
        drop(core);
        effects.tell();
        if self.session_is_kept() && !ends_now {
            // The server has them still, and sends them when the session goes on.
            self.inbox.retract();
        }
        let outbox = link.map(|link| self.say_goodbye(link, &result, &goodbye));
        self.inbox.close(ClientError::NotConnected);
        self.notify();
        if let Some(outbox) = outbox {
            self.linger(connection, &outbox);
        }
        Ok(true)
    }

    /// The DISCONNECT, encoded.
    fn goodbye(&self, options: DisconnectOptions, core: &Core) -> Result<Vec<u8>, ClientError> {
        let version = core.result.version;
        if options.publish_will && !version.has_reason_codes() {
            return Err(ClientError::invalid(
                "publish_will",
                format!("{version} has no way to ask for it"),
            ));
        }
        let longer = options.properties.session_expiry_interval > Some(0);
        if longer && version.has_properties() && !self.was_to_be_kept(core) {
            return Err(ClientError::invalid(
                "session_expiry",
                "the session was to end with the connection",
            ));
        }
        let reason = if options.publish_will {
            ReasonCode::DisconnectWithWill
        } else {
            ReasonCode::Success
        };
        let disconnect = Packet::Disconnect(Box::new(Disconnect {
            reason,
            properties: options.properties,
        }));
        let mut encoded = Vec::new();
        codec::encode(&disconnect, version, &mut encoded)?;
        // [MQTT-3.2.2-15]
        let most = core.result.properties.maximum_packet_size;
        if most.is_some_and(|most| encoded.len() as u64 > u64::from(most)) {
            return Err(ClientError::NotAvailable(ReasonCode::PacketTooLarge));
        }
        Ok(encoded)
    }

    /// CONNECT asked the server to keep the session: only then may DISCONNECT. MQTT 5.0 §3.14.2.2.2
    fn was_to_be_kept(&self, core: &Core) -> bool {
        let expiry = self.options.session_expiry;
        expiry.map_or(!core.clean_start, |seconds| seconds > 0)
    }

    fn say_goodbye(&self, mut link: Link, result: &ConnectResult, goodbye: &[u8]) -> Arc<Outbox> {
        link.pending.bytes_mut().extend_from_slice(goodbye);
        if packet_log::is_on() {
            packet_log::sent(&result.client_id, result.version, &link.pending);
        }
        link.outbox.close_with(&mut link.pending);
        link.outbox
    }

    /// Lets the server close the connection, and the background thread read until it does: when the program ended before
    /// that, the kernel would take back what the server has not read yet.
    fn linger(&self, connection: u64, outbox: &Outbox) {
        if in_callback() {
            return;
        }
        let patience = if outbox.backlog() == 0 {
            LINGER
        } else {
            self.options.write_timeout
        };
        let deadline = now() + patience;
        let mut core = self.lock();
        while core.last_gone < connection {
            if self.wait_for_change(&mut core, Some(deadline)) {
                break;
            }
        }
    }

    /// The background thread has read the last of a connection.
    pub(crate) fn on_gone(&self, connection: u64) {
        let mut core = self.lock();
        core.last_gone = core.last_gone.max(connection);
        drop(core);
        self.notify();
    }

    /// Whether the server keeps the session when the connection ends.
    pub(crate) fn session_is_kept(&self) -> bool {
        let core = self.lock();
        if core.result.version.has_properties() {
            let granted = core.result.properties.session_expiry_interval;
            let expiry = granted.or(self.options.session_expiry);
            expiry.map_or(!core.clean_start, |seconds| seconds > 0)
        } else {
            !core.clean_start
        }
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
        let is_full = link.waiting_bytes() >= buffer_bytes || !self.session.has_room(qos);
        Ok(is_full.then_some(Phase::Room))
    }
}

impl Link {
    pub(crate) fn new(outbox: Arc<Outbox>, now: Instant) -> Self {
        Self {
            outbox,
            pending: OutBuf::new(),
            spare: OutBuf::new(),
            turn_taken: false,
            handed_over: false,
            last_sent_at: now,
            burst: Burst {
                began_at: now,
                sends: 0,
            },
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.pending.len() + self.outbox.backlog()
    }
}

impl Burst {
    fn count(&mut self) {
        self.sends = self.sends.saturating_add(1);
    }

    /// Whether many messages left in the last millisecond.
    fn is_on(&mut self, now: Instant) -> bool {
        let elapsed = now.duration_since(self.began_at);
        if elapsed <= BURST_WITHIN {
            return self.sends > BURST_SENDS;
        }
        let per_span = u128::from(self.sends) * BURST_WITHIN.as_nanos() / elapsed.as_nanos();
        let was_on = per_span > u128::from(BURST_SENDS);
        self.began_at = now;
        self.sends = if was_on { BURST_SENDS + 1 } else { 0 };
        was_on
    }
}

/// The state callback of the program runs on this thread.
struct InCallback(bool);

impl InCallback {
    fn enter() -> Self {
        Self(IN_CALLBACK.replace(true))
    }
}

impl Drop for InCallback {
    fn drop(&mut self) {
        IN_CALLBACK.set(self.0);
    }
}

pub(crate) fn in_callback() -> bool {
    IN_CALLBACK.get()
}

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client's clock; what decides takes the time as an argument"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How often a caller writes for others before the flusher takes over.
const ROUNDS: usize = 4;

/// More than this many sends within this time are a burst: a system call for each would cost more than a thread.
const BURST_SENDS: u32 = 32;
const BURST_WITHIN: Duration = Duration::from_millis(1);

/// How long the flusher waits for work before it ends.
const FLUSHER_IDLE_FOR: Duration = Duration::from_millis(100);

/// A larger buffer is given back after it was sent.
const SPARE_BYTES: usize = 2 * 1024 * 1024;

/// How long a server may take to close the connection after DISCONNECT.
const LINGER: Duration = Duration::from_secs(1);

/// Events that a watcher may leave untaken.
const EVENTS: usize = 64;
