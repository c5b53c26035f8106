//! The broker, its store and its clients' connections, moved by hand: no thread, no clock.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _};
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::bounded;

use super::client::{Belief, Client, Connecting, Life};
use super::model::{Model, WillState, index_of};
use super::random::Random;
use super::scenario::Scenario;
use crate::broker::auth::{AuthChains, Extensions};
use crate::broker::config::{Config, MemoryLimit};
use crate::broker::memory::MemoryWatch;
use crate::broker::metrics::Metrics;
use crate::broker::plugin::PluginHost;
use crate::broker::router::command::{
    Attach, Batch, Command, ConnectionId, DetachCause, Inbound, Origin, Owner, PublishSpan,
    RequestedFilter, SessionExpiry, SubscribeRequest, UnsubscribeRequest,
};
use crate::broker::router::journal::Release;
use crate::broker::router::reply::{Answer, reply};
use crate::broker::router::subscriptions::SessionSlot;
use crate::broker::router::{Router, RouterSettings};
use crate::net::transport::Layers;
use crate::net::{PeerAddress, Socket};
use crate::outbox::{Outbox, OutboxOptions};
use crate::proto::packet::connack::{Connack, ConnackProperties};
use crate::proto::packet::{Packet, PublishView, Will};
use crate::proto::topic::parse_subscription;
use crate::proto::{Decoder, ProtocolVersion, QoS, ReasonCode, codec};
use crate::store::{
    Durability, GroupCommit, MemoryState, MemoryStore, Read, Request, SessionKey, Store,
    StoreError, StoreEvent, StoreInbox, WallTime, channel,
};

/// Where virtual time begins.
const EPOCH: u64 = 1_000_000_000_000;

/// What all worlds share.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) scenario: Scenario,
    services: Services,
}

/// What no scenario changes.
#[derive(Debug, Clone)]
pub(super) struct Services {
    chains: Arc<AuthChains>,
    plugins: Arc<PluginHost>,
    memory: Arc<MemoryWatch>,
    start: Instant,
}

impl Services {
    pub(super) fn new(start: Instant) -> Self {
        let config = Config::default();
        let chains = AuthChains::load(&config, Extensions::default()).unwrap();
        let metrics = Arc::new(Metrics::default());
        let plugins =
            PluginHost::new(&config, &mut Vec::new(), &Extensions::default(), metrics).unwrap();
        Self {
            chains: Arc::new(chains),
            plugins: Arc::new(plugins),
            memory: Arc::new(MemoryWatch::new(MemoryLimit::Unlimited)),
            start,
        }
    }
}

impl Setting {
    pub(super) fn new(scenario: Scenario, services: &Services) -> Self {
        Self {
            scenario,
            services: services.clone(),
        }
    }

    /// An instant of virtual time.
    fn at(&self, now: u64) -> Instant {
        self.services.start + Duration::from_millis(now)
    }
}

/// The moments of a write at which the machine may stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    Applied,
    Releasing,
    /// It failed.
    Failed,
}

/// What a machine leaves that stopped, and what its clients know.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) state: MemoryState,
    pub(super) clients: Vec<Client>,
    /// Bytes that each had, and had not looked at.
    pub(super) unread: Vec<Vec<u8>>,
    pub(super) model: Model,
    pub(super) random: Random,
    pub(super) position: u64,
    pub(super) moment: Moment,
}

/// Who is told of each write.
pub(super) type OnWrite<'a> = dyn FnMut(Stopped) -> Option<String> + 'a;

pub(super) struct World<'a> {
    pub(super) setting: &'a Setting,
    pub(super) random: Random,
    pub(super) router: Router,
    inbox: StoreInbox<Release>,
    group: GroupCommit<Release>,
    pub(super) store: MemoryStore,
    highest_positions: BTreeMap<SessionKey, u64>,
    reads: VecDeque<Read>,
    /// What the store's threads have for the router.
    commands: VecDeque<Command>,
    conns: Vec<Conn>,
    pub(super) clients: Vec<Client>,
    links: Vec<Option<Link>>,
    pub(super) model: Model,
    pub(super) metrics: Arc<Metrics>,
    next_connection: u64,
    /// The last connection of each client.
    last_of: BTreeMap<usize, ConnectionId>,
    /// The store's thread will soon say so.
    late_durable: Option<u64>,
    /// The router heard of these ends, and they are not durable yet.
    ended: Vec<Ended>,
    /// Writes so far.
    pub(super) position: u64,
    pub(super) on_write: Option<&'a mut OnWrite<'a>>,
    /// The machine stopped for good: a sync failed.
    pub(super) is_dead: bool,
}

/// A connection as the broker sees it.
struct Conn {
    id: ConnectionId,
    client: usize,
    version: ProtocolVersion,
    will: Option<usize>,
    uplink: VecDeque<Up>,
    origin: Arc<OnceLock<Origin>>,
    answer: Answer<Result<SessionSlot, ReasonCode>>,
    /// Its handshake is through.
    is_ready: bool,
}

enum Up {
    Attach(Box<Attach>),
    Packet(Packet),
    Detach(DetachCause),
}

/// A connection as its client sees it.
struct Link {
    id: ConnectionId,
    far: UnixStream,
    unread: Vec<u8>,
    is_at_end: bool,
}

impl Link {
    /// Takes what the socket has.
    fn pull(&mut self) {
        let mut buffer = [0; 4096];
        while !self.is_at_end {
            match self.far.read(&mut buffer) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => {
                    self.unread.extend_from_slice(&buffer[..count]);
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a pair of sockets: {error}"),
            }
        }
    }
}

/// The end of a connection that the router heard of.
struct Ended {
    client: usize,
    connection: ConnectionId,
    at: u64,
    will: Option<usize>,
    cause: DetachCause,
}

impl<'a> World<'a> {
    /// A broker that starts on `state`.
    pub(super) fn start(
        setting: &'a Setting,
        state: MemoryState,
        clients: Vec<Client>,
        model: Model,
        random: Random,
    ) -> Self {
        let scenario = &setting.scenario;
        let now = setting.at(model.now);
        let mut config = Config {
            queue_full: scenario.queue_full,
            queue_qos0_messages: scenario.queue_qos0_messages,
            shared_subscription_strategy: scenario.shared_strategy,
            sys_interval: Duration::ZERO,
            ..Config::default()
        };
        config.limits.max_queued_messages = scenario.max_queued_messages;
        config.limits.max_outbox_bytes = scenario.outbox_soft_limit;
        config.limits.max_inflight_bytes = scenario.max_inflight_bytes;
        let metrics = Arc::new(Metrics::default());
        let (flushers, _) = bounded(1);
        let mut router = Router::new(
            RouterSettings::from_config(&config),
            Arc::clone(&setting.services.chains),
            Arc::clone(&metrics),
            Arc::clone(&setting.services.plugins),
            Arc::clone(&setting.services.memory),
            flushers,
            now,
        );
        let wall = WallTime(EPOCH + model.now);
        router.sessions.journal.set_clock(now, wall);
        let journal = &mut router.sessions.journal;
        journal.set_most_unwritten(scenario.most_unwritten);
        let store = MemoryStore::with_state(state);
        let (handle, inbox) = channel();
        router
            .restore(&store, handle, true, scenario.queue_memory, now)
            .unwrap();
        router.end_batch(now);
        let links = clients.iter().map(|_| None).collect();
        Self {
            setting,
            random,
            router,
            inbox,
            group: GroupCommit::new(Durability::Group),
            store,
            highest_positions: BTreeMap::new(),
            reads: VecDeque::new(),
            commands: VecDeque::new(),
            conns: Vec::new(),
            clients,
            links,
            model,
            metrics,
            next_connection: 1,
            last_of: BTreeMap::new(),
            late_durable: None,
            ended: Vec::new(),
            position: 0,
            on_write: None,
            is_dead: false,
        }
    }

    fn now(&self) -> Instant {
        self.setting.at(self.model.now)
    }

    /// Time passes, and the router does what is due.
    pub(super) fn advance(&mut self, by: Duration) {
        self.model.now += u64::try_from(by.as_millis()).unwrap();
        self.router.end_batch(self.now());
    }

    pub(super) fn add_client(&mut self, client: Client) {
        self.clients.push(client);
        self.links.push(None);
    }

    // Clients.

    /// A client opens a connection and sends CONNECT.
    pub(super) fn connect(&mut self, index: usize, connecting: Connecting) {
        let client = &mut self.clients[index];
        let profile = &client.profile;
        let version = ProtocolVersion::newest(profile.has_properties);
        let id = ConnectionId(NonZeroU64::new(self.next_connection).unwrap());
        self.next_connection += 1;
        self.last_of.insert(index, id);
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let socket = Socket::unix(near, PeerAddress::Mem("simulation".into()));
        let options = OutboxOptions {
            soft_limit_bytes: self.setting.scenario.outbox_soft_limit,
            ..OutboxOptions::default()
        };
        let outbox = Outbox::new(Arc::new(socket), Layers::plain(), options, Box::new(|_| {}));
        let (reply, answer) = reply();
        let origin = Arc::new(OnceLock::new());
        let will = connecting.will.map(|will| {
            let message = &self.model.messages[will];
            Will {
                qos: message.qos,
                retain: false,
                topic: message.topic.into(),
                payload: super::model::payload(will, 3).into(),
                delay_interval: u32::try_from(connecting.will_delay / 1000).unwrap(),
                properties: None,
            }
        });
        let attach = Attach {
            connection: id,
            client_id: client.name().into(),
            owner: Owner::Listener("default".into()),
            listener: "default".into(),
            address: None,
            version,
            clean_start: connecting.clean_start,
            session_expiry: connecting.expiry,
            keep_alive: 0,
            will,
            send_window: profile.window,
            receive_maximum: self.setting.scenario.receive_maximum,
            maximum_packet_size: u32::MAX,
            topic_alias_maximum: profile.alias_maximum,
            problem_information: true,
            mount_point: None,
            max_qos: QoS::ExactlyOnce,
            chain: Arc::clone(self.setting.services.chains.listener("default")),
            origin: Arc::clone(&origin),
            outbox,
            connack: Box::new(Connack {
                session_present: false,
                reason: ReasonCode::Success,
                properties: ConnackProperties::default(),
            }),
            reply,
        };
        self.conns.push(Conn {
            id,
            client: index,
            version,
            will: connecting.will,
            uplink: VecDeque::from([Up::Attach(Box::new(attach))]),
            origin,
            answer,
            is_ready: false,
        });
        self.links[index] = Some(Link {
            id,
            far,
            unread: Vec::new(),
            is_at_end: false,
        });
        client.connect(connecting, &mut self.model);
    }

    /// The client's packets go on their way.
    pub(super) fn send(&mut self, index: usize) {
        let Some(link) = &self.links[index] else {
            return;
        };
        let id = link.id;
        let conn = self.conns.iter_mut().find(|conn| conn.id == id);
        let count = 1 + self.random.below(4);
        let out = &mut self.clients[index].out;
        let packets = out.drain(..count.min(out.len())).map(Up::Packet);
        match conn {
            Some(conn) => conn.uplink.extend(packets),
            None => packets.for_each(drop),
        }
    }

    /// The connection breaks: what was on its way to the broker may be lost, what the client had not read is.
    pub(super) fn cut(&mut self, index: usize) {
        let Some(link) = self.links[index].take() else {
            return;
        };
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == link.id) {
            let kept = self.random.below(conn.uplink.len() + 1).max(1);
            conn.uplink.truncate(kept);
            let cause = DetachCause::Abnormal {
                session_expiry: None,
            };
            conn.uplink.push_back(Up::Detach(cause));
        }
        self.clients[index].lose(false, &mut self.model);
    }

    /// The client says goodbye, and closes.
    pub(super) fn disconnect(&mut self, index: usize, ends: bool) {
        let Some(link) = self.links[index].take() else {
            return;
        };
        let client = &mut self.clients[index];
        client.say_goodbye(ends, &mut self.model);
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == link.id) {
            let packets = client.out.drain(..).map(Up::Packet);
            conn.uplink.extend(packets);
            let session_expiry = ends.then_some(0);
            let cause = DetachCause::Disconnect { session_expiry };
            conn.uplink.push_back(Up::Detach(cause));
        }
        client.lose(true, &mut self.model);
    }

    /// Takes what the sockets have.
    fn pull(&mut self) {
        self.links.iter_mut().flatten().for_each(Link::pull);
    }

    /// A client reads some of its packets. `false`: there were none.
    pub(super) fn read(&mut self, index: usize) -> bool {
        let Some(link) = &mut self.links[index] else {
            return false;
        };
        link.pull();
        let count = 1 + self.random.below(4);
        let client = &mut self.clients[index];
        let scenario = &self.setting.scenario;
        let packets = read_packets(client, &mut link.unread, count, scenario, &mut self.model);
        if packets == 0 && link.is_at_end && !self.is_dead {
            let is_refused = matches!(client.life, Life::Connecting(_));
            if !is_refused {
                self.model
                    .fail(|| format!("client{index}: the broker closed its connection"));
            }
            self.links[index] = None;
            client.lose(false, &mut self.model);
            return true;
        }
        packets > 0
    }

    // The router.

    /// The router takes a few commands, and hands over what came of them. `false`: there were none.
    pub(super) fn route(&mut self) -> bool {
        let mut did = false;
        for _ in 0..=self.random.below(6) {
            let command = if self.random.once_in(4) || self.conns.is_empty() {
                self.commands.pop_front()
            } else {
                self.next_command()
            };
            if let Some(command) = command {
                did = true;
                let now = self.now();
                self.router.handle(command, now);
            }
            // The store's thread works at the same time.
            if self.random.once_in(8) {
                self.work_on_store();
            }
        }
        let now = self.now();
        self.router.end_batch(now);
        did
    }

    /// What a connection's thread has for the router.
    fn next_command(&mut self) -> Option<Command> {
        let at = self.random.below(self.conns.len());
        // The CONNECTs of a client come in their order, or an old one would take over from a newer one.
        let client = self.conns[at].client;
        let same = self.conns.iter().filter(|conn| conn.client == client);
        let first = same.filter(|conn| matches!(conn.uplink.front(), Some(Up::Attach(_))));
        let first = first.map(|conn| conn.id).min();
        let conn = &mut self.conns[at];
        if first.is_some_and(|first| first < conn.id) {
            return None;
        }
        if let Some(Up::Attach(_)) = conn.uplink.front() {
            let Some(Up::Attach(attach)) = conn.uplink.pop_front() else {
                return None;
            };
            return Some(Command::Attach(attach));
        }
        if !conn.is_ready {
            match conn.answer.look() {
                Some(Some(Ok(_))) => conn.is_ready = true,
                None => return None,
                Some(Some(Err(_)) | None) => {
                    let conn = self.conns.swap_remove(at);
                    self.refuse(&conn);
                    return None;
                }
            }
        }
        let origin = *conn.origin.get()?;
        let mut inbound = Vec::new();
        let mut buffer = Vec::new();
        let mut spans = Vec::new();
        for _ in 0..=self.random.below(4) {
            match conn.uplink.pop_front() {
                Some(Up::Packet(packet)) => {
                    if let Packet::Publish(publish) = &packet
                        && let Some(message) = index_of(&publish.payload)
                    {
                        self.model.messages[message].last_taken_at = self.model.now;
                    }
                    if let (Packet::Publish(_), true) = (&packet, self.random.once_in(2)) {
                        let start = buffer.len();
                        codec::encode(&packet, conn.version, &mut buffer).unwrap();
                        spans.push((inbound.len(), start));
                    }
                    inbound.push(as_inbound(packet));
                }
                Some(Up::Detach(cause)) if inbound.is_empty() => {
                    let conn = self.conns.swap_remove(at);
                    self.ended.push(Ended {
                        client: conn.client,
                        connection: conn.id,
                        at: self.model.now,
                        will: conn.will,
                        cause,
                    });
                    return Some(Command::Detach { origin, cause });
                }
                Some(other) => {
                    conn.uplink.push_front(other);
                    break;
                }
                None => break,
            }
        }
        if inbound.is_empty() {
            return None;
        }
        let buffer = Bytes::from(buffer);
        for (place, start) in spans {
            inbound[place] = span(&buffer, start, conn.version);
        }
        Some(Command::Batch(Batch {
            origin,
            buffer,
            inbound,
            spares: None,
        }))
    }

    /// Its CONNECT was refused, or another connection took over before CONNACK left.
    fn refuse(&mut self, conn: &Conn) {
        let link = &mut self.links[conn.client];
        if link.as_ref().is_some_and(|link| link.id == conn.id) {
            *link = None;
            self.clients[conn.client].lose(false, &mut self.model);
        }
    }

    // The store.

    /// The store's thread takes, releases or writes something. `false`: there was nothing to do.
    pub(super) fn work_on_store(&mut self) -> bool {
        if let Some(sequence) = self.late_durable.take() {
            self.inbox.set_durable(sequence);
        }
        let mut did = false;
        for _ in 0..=self.random.below(4) {
            did |= self.take_request();
        }
        if let Some(event) = self.group.release() {
            self.tell(event, false);
            did = true;
        }
        let is_waiting = !self.group.waiting().is_empty() || self.group.trouble().is_some();
        if is_waiting && self.random.once_in(2) {
            self.write();
        }
        self.note_durable();
        did || is_waiting
    }

    fn take_request(&mut self) -> bool {
        match self.inbox.try_next() {
            Some(Request::Commit(commit)) => self.group.take(commit),
            Some(Request::Read(read)) => self.reads.push_back(read),
            _ => return false,
        }
        true
    }

    fn write(&mut self) {
        if self.is_dead {
            return;
        }
        let changes = !self.group.waiting().is_empty();
        if changes {
            self.position += 1;
            self.stop_here(Moment::Before);
        }
        let set = self.group.waiting().clone();
        let mut events = Vec::new();
        let mut store = self.store.clone();
        let result = self
            .group
            .write(&mut store, &mut |event| events.push(event));
        self.inbox.set_trouble(self.group.trouble());
        let position = self.position;
        if let Err(error) = result {
            self.model
                .note(|| format!("write {position} failed: {error}"));
            self.stop_here(Moment::Failed);
            self.is_dead = matches!(error, StoreError::Sync(_));
            return;
        }
        if changes {
            self.model
                .note(|| format!("write {position}: {}", super::check::describe(&set)));
            super::check::store_invariants(
                &self.store.state(),
                &set,
                &mut self.highest_positions,
                &mut self.model,
            );
            self.stop_here(Moment::Applied);
        }
        for event in events {
            self.tell(event, changes);
        }
    }

    fn tell(&mut self, event: StoreEvent<Release>, wrote: bool) {
        let StoreEvent::Durable { sequence, releases } = event else {
            return;
        };
        let stop = self.random.below(releases.len() + 1);
        let count = releases.len();
        for (index, release) in releases.into_iter().enumerate() {
            if wrote && index == stop {
                self.stop_here(Moment::Releasing);
            }
            let unblocked = release.run(&mut |outbox| {
                let _ = outbox.flush();
            });
            self.commands.extend(unblocked);
            // The router may hear of it before the next ones have left.
            if self.random.once_in(4) {
                self.hear_of_commands();
            }
        }
        if wrote && stop == count {
            self.stop_here(Moment::Releasing);
        }
        if self.random.once_in(4) {
            self.late_durable = Some(sequence);
        } else {
            self.inbox.set_durable(sequence);
        }
    }

    fn hear_of_commands(&mut self) {
        let now = self.now();
        while let Some(command) = self.commands.pop_front() {
            self.router.handle(command, now);
        }
        self.router.end_batch(now);
    }

    /// The store's threads answer a read. `false`: there is none.
    pub(super) fn answer_read(&mut self) -> bool {
        let Some(read) = self.reads.pop_front() else {
            return false;
        };
        let reader = self.store.reader();
        let mut messages = reader.messages(&read.ids).unwrap();
        if messages.iter().any(Option::is_none) {
            while self.take_request() {}
            messages = reader.messages(&read.ids).unwrap();
            for (id, message) in read.ids.iter().zip(&mut messages) {
                if message.is_none() {
                    *message = self.group.waiting().message(*id).flatten().cloned();
                }
            }
        }
        self.commands.push_back(Command::Loaded {
            token: read.token,
            result: Ok(messages),
        });
        true
    }

    /// Nothing waits for the disk.
    fn is_all_durable(&self) -> bool {
        self.group.waiting().is_empty() && self.inbox.is_empty() && self.group.trouble().is_none()
    }

    /// What the router heard of is durable: the model may hold it to that.
    fn note_durable(&mut self) {
        // A batch that is not at its end has not been sent.
        if self.ended.is_empty()
            || !self.is_all_durable()
            || !self.router.sessions.journal.is_clean()
        {
            return;
        }
        for ended in std::mem::take(&mut self.ended) {
            // A newer connection may have taken over before.
            if self.last_of.get(&ended.client) != Some(&ended.connection) {
                continue;
            }
            let client = &mut self.clients[ended.client];
            if let (Some(will), DetachCause::Disconnect { .. }) = (ended.will, ended.cause) {
                self.model.messages[will].will = WillState::Forbidden;
            }
            match ended.cause {
                DetachCause::Disconnect {
                    session_expiry: Some(0),
                } if client.must_clean => {
                    client.session = Belief::No;
                    client.must_clean = false;
                }
                _ => {
                    if let (Belief::Yes { ends_at, .. }, SessionExpiry::After(seconds)) =
                        (&mut client.session, client.profile.expiry)
                    {
                        *ends_at = Some(ended.at + u64::from(seconds) * 1000);
                    }
                }
            }
        }
    }

    /// Nothing moves any more by itself.
    pub(super) fn is_quiet(&mut self) -> bool {
        let is_quiet = self.is_all_durable()
            && self.reads.is_empty()
            && self.commands.is_empty()
            && self.late_durable.is_none()
            && self.router.sessions.unfinished.is_empty()
            && self.conns.iter().all(|conn| conn.uplink.is_empty())
            && self.clients.iter().all(|client| client.out.is_empty());
        if !is_quiet {
            return false;
        }
        self.pull();
        self.links
            .iter()
            .flatten()
            .all(|link| link.unread.is_empty() && !link.is_at_end)
    }

    // Stops of the machine.

    fn stop_here(&mut self, moment: Moment) {
        if self.on_write.is_none() || self.model.violation.is_some() {
            return;
        }
        let stopped = self.stopped(moment);
        if let Some(on_write) = &mut self.on_write
            && let Some(violation) = on_write(stopped)
        {
            self.model.violation = Some(violation);
        }
    }

    /// What would be left if the machine stopped now.
    pub(super) fn stopped(&mut self, moment: Moment) -> Stopped {
        self.pull();
        let links = self.links.iter();
        let unread = links.map(|link| link.as_ref().map_or(Vec::new(), |link| link.unread.clone()));
        let mut model = self.model.clone();
        model.dropped += self.metrics.dropped_queue_full.value();
        Stopped {
            state: self.store.state(),
            unread: unread.collect(),
            clients: self.clients.clone(),
            model,
            random: self.random.fork(self.position * 4 + moment as u64),
            position: self.position,
            moment,
        }
    }

    /// The machine is told to stop, and does so when all is durable.
    pub(super) fn shut_down(&mut self) {
        let goodbye = crate::broker::router::command::Goodbye::new(
            ReasonCode::ServerShuttingDown,
            "the simulation ends",
        );
        self.is_dead = false;
        let now = self.now();
        self.router.handle(Command::Shutdown(goodbye), now);
        self.router.end_batch(now);
        while self.take_request() {}
        for _ in 0..100 {
            if self.is_all_durable() {
                break;
            }
            self.write();
        }
    }
}

impl Stopped {
    /// The machine starts again: the clients have read some of what had left it, and lost their connections.
    pub(super) fn restart(self, setting: &Setting) -> World<'_> {
        let Self {
            state,
            mut clients,
            mut unread,
            mut model,
            mut random,
            position,
            moment,
        } = self;
        model.note(|| format!("=== the machine stops: write {position}, {moment:?} ==="));
        for (client, unread) in clients.iter_mut().zip(&mut unread) {
            let count = if random.once_in(3) {
                random.below(6)
            } else {
                usize::MAX
            };
            read_packets(client, unread, count, &setting.scenario, &mut model);
        }
        let long = random.once_in(6);
        let downtime = random.seconds(if long { 40 } else { 3 });
        model.crashes += 1;
        let before = model.now;
        model.now += u64::try_from(downtime.as_millis()).unwrap();
        let step = model.tick();
        for client in &mut clients {
            // A will without delay is sent by the new broker, before anybody can come back.
            let due = match &client.life {
                Life::Connected(with) if client.keeps_session() => {
                    with.will.filter(|_| with.will_delay == 0)
                }
                _ => None,
            };
            let now = std::mem::replace(&mut model.now, before);
            client.lose(false, &mut model);
            model.now = now;
            if let Some(will) = due {
                let will = &mut model.messages[will];
                will.first_sent = step;
                will.acked = Some(model.step + 1);
            }
            if let (Belief::Yes { ends_at, .. }, SessionExpiry::After(seconds)) =
                (&mut client.session, client.profile.expiry)
            {
                ends_at.get_or_insert(model.now + u64::from(seconds) * 1000);
            }
        }
        model.tick();
        model.tick();
        World::start(setting, state, clients, model, random)
    }
}

/// A client reads up to `count` packets. How many there were.
fn read_packets(
    client: &mut Client,
    unread: &mut Vec<u8>,
    count: usize,
    scenario: &Scenario,
    model: &mut Model,
) -> usize {
    if unread.is_empty() || matches!(client.life, Life::Away) {
        return 0;
    }
    let version = ProtocolVersion::newest(client.profile.has_properties);
    let decoder = Decoder::new(version);
    let bytes = Bytes::from(std::mem::take(unread));
    let (mut at, mut packets) = (0, 0);
    while packets < count
        && let Some(frame) = decoder.frame(&bytes[at..]).unwrap()
    {
        let end = at + frame.total_bytes as usize;
        match decoder.decode(frame, &bytes.slice(at..end)) {
            Ok(packet) => client.on_packet(&packet, scenario, model),
            Err(error) => model.fail(|| format!("client{}: {error}", client.index)),
        }
        packets += 1;
        at = end;
    }
    unread.extend_from_slice(&bytes[at..]);
    packets
}

fn as_inbound(packet: Packet) -> Inbound {
    let filter = |text: &bytestring::ByteString, options| {
        let (share, filter) = parse_subscription(text).unwrap();
        Ok(RequestedFilter {
            text: text.clone(),
            share,
            filter,
            options,
        })
    };
    match packet {
        Packet::Publish(publish) => Inbound::Publish(publish),
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.iter();
            Inbound::Subscribe(Box::new(SubscribeRequest {
                packet_id: subscribe.packet_id,
                id: None,
                filters: filters
                    .map(|(text, options)| filter(text, *options))
                    .collect(),
                reason_string: None,
            }))
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters = unsubscribe.filters.iter();
            Inbound::Unsubscribe(Box::new(UnsubscribeRequest {
                packet_id: unsubscribe.packet_id,
                filters: filters
                    .map(|text| filter(text, Default::default()))
                    .collect(),
            }))
        }
        ack => Inbound::Ack(ack),
    }
}

/// The PUBLISH at `start`, as the connection's thread hands it on.
fn span(buffer: &Bytes, start: usize, version: ProtocolVersion) -> Inbound {
    let packet = &buffer[start..];
    let decoder = Decoder::new(version);
    let frame = decoder.frame(packet).unwrap().unwrap();
    let end = start + frame.total_bytes as usize;
    let view = PublishView::decode(&decoder, frame, &buffer[start..end]).unwrap();
    let offset = |part: &[u8]| part.as_ptr().addr() - buffer.as_ptr().addr();
    let narrow = |offset: usize| u32::try_from(offset).unwrap();
    Inbound::Span(PublishSpan {
        frame_start: narrow(start),
        topic_start: narrow(offset(view.topic.as_bytes())),
        payload_start: narrow(end - view.payload.len()),
        end: narrow(end),
        topic_bytes: u16::try_from(view.topic.len()).unwrap(),
        packet_id: view.packet_id,
        qos: view.qos,
        retain: view.retain,
        properties: view.properties,
    })
}
