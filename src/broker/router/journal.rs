//! What the router has the store write: the changes of each batch, and the packets that must not leave before them.
//!
//! A *held* packet waits for the commit of its batch and all before it; every other one leaves at the end of the batch,
//! unless its link is *blocked*. Without a store nothing is held, and nothing here costs more than a look at a flag.
//!
//! | packet | held when |
//! |---|---|
//! | CONNACK | its session is stored, or one of the client's that has ended may still be |
//! | SUBACK, UNSUBACK, PUBACK, PUBREC, PUBCOMP, PUBREL | answering changed something that is stored |
//! | PUBLISH QoS 2 | its session is stored |
//! | any acknowledgement | one before it on its connection is held [MQTT-4.6.0-2] |
//!
//! CONNACK, SUBACK and UNSUBACK block their link while they are held: what follows from them stays in the link, and leaves
//! when the store says that they have left ([`Command::Released`](super::command::Command)).

mod endings;
mod unwritten;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytestring::ByteString;

use self::endings::Endings;
use self::unwritten::Unwritten;
use super::command::{Command, Origin, SessionExpiry};
use super::link::Link;
use super::reply::Reply;
use super::session::{Delivery, Publisher, Replay, Session, Subscribed};
use super::sessions::Waiter;
use super::subscriptions::SessionSlot;
use crate::outbox::{OutBuf, Outbox};
use crate::proto::{Message, PacketId, ReasonCode, TopicName};
use crate::store::{
    Change, Commit, EntryRecord, EntryState, Identifiers, MessageId, MessageRecord, Position,
    ReplayRecord, RetainedRecord, SessionKey, SessionRecord, StoreHandle, StoreState, StoreStatus,
    SubscriptionRecord, WallTime, WillRecord,
};

/// Where a delivery is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    /// `None`: the client has the message, only the end of its flow is missing.
    pub(super) message: Option<MessageId>,
    pub(super) position: Position,
}

/// What leaves the broker once a commit is durable.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) bytes: OutBuf,
    pub(crate) then: Then,
    /// The link is blocked, or its queue stopped, until these bytes have left: whom to tell the router then, and of
    /// which commit.
    pub(crate) unblocks: Option<(Origin, u64)>,
}

/// What follows the bytes of a [`Release`].
#[derive(Debug)]
pub(crate) enum Then {
    Nothing,
    /// The bytes begin with CONNACK: the connection's thread may go on.
    Attached(SessionSlot, Reply<Result<SessionSlot, ReasonCode>>),
    /// The bytes end with the goodbye.
    Close,
}

impl Release {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }

    /// Lets the bytes go. `flush`: called with an outbox whose bytes another thread should write. Returns what to tell the
    /// router.
    pub(crate) fn run(mut self, flush: &mut dyn FnMut(Arc<Outbox>)) -> Option<Command> {
        let (origin, sequence) = match self.unblocks {
            Some((origin, sequence)) => (Some(origin), sequence),
            None => (None, 0),
        };
        match self.then {
            Then::Nothing if self.bytes.is_empty() => {}
            Then::Close => self.outbox.close_with(&mut self.bytes),
            Then::Attached(slot, reply) => {
                let _ = self.outbox.send(&mut self.bytes);
                // The connection may have ended meanwhile.
                reply.give(Ok(slot));
            }
            Then::Nothing if !self.outbox.encrypts() => {
                let _ = self.outbox.send(&mut self.bytes);
            }
            Then::Nothing => {
                let _ = self.outbox.append(&mut self.bytes);
                flush(self.outbox);
            }
        }
        Some(Command::Released {
            origin: origin?,
            sequence,
        })
    }
}

/// The bytes of one link that are held.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) bytes: OutBuf,
    /// The last commit that something on this link waits or waited for.
    pub(super) sequence: u64,
    /// Nothing leaves the link before this commit.
    pub(super) blocked: Option<u64>,
    /// The store will tell when this commit is durable, so that its session's queue goes on.
    pub(super) paced: Option<u64>,
    /// CONNACK is among the bytes: whom to tell when it has left.
    pub(super) reply: Option<Reply<Result<SessionSlot, ReasonCode>>>,
}

/// A moment in the record of changes: see [`Journal::changed_since`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(usize);

/// The changes of the current batch, and what is known of the store.
#[derive(Debug)]
pub(super) struct Journal {
    store: Option<StoreHandle<Release>>,
    /// Packets wait for the disk.
    holds: bool,
    changes: Vec<Change>,
    /// So many of them are in the store's backlog already, with so many bytes.
    announced: (usize, usize),
    releases: Vec<Release>,
    /// What only tells the router that queues go on. It stands behind `releases` in the commit: by then all that was held has
    /// left, CONNACK before the rest of its link.
    pacers: Vec<Release>,
    /// Of the commit that the current batch becomes.
    sequence: u64,
    next: Identifiers,
    /// Messages that more than one entry refers to, and how many do.
    references: HashMap<MessageId, u32, rustc_hash::FxBuildHasher>,
    clock: WallClock,
    /// Who waits for which messages of the store.
    reads: HashMap<u64, (Waiter, Vec<MessageId>), rustc_hash::FxBuildHasher>,
    reads_asked: u64,
    /// What to ask once this batch is on its way: it may hold what is asked for.
    reads_wanted: Vec<u64>,
    endings: Endings,
    unwritten: Unwritten,
    most_unwritten: usize,
    /// How many bytes of stored messages are kept in memory too.
    max_resident_bytes: usize,
}

impl Journal {
    /// Nothing is stored.
    pub(super) fn off(now: Instant) -> Self {
        Self {
            store: None,
            holds: false,
            changes: Vec::new(),
            announced: (0, 0),
            releases: Vec::new(),
            pacers: Vec::new(),
            sequence: 1,
            next: Identifiers {
                next_session: SessionKey(1),
                next_message: MessageId(NonZeroU64::MIN),
            },
            references: HashMap::default(),
            clock: WallClock::new(now),
            reads: HashMap::default(),
            reads_asked: 0,
            reads_wanted: Vec::new(),
            endings: Endings::default(),
            unwritten: Unwritten::default(),
            most_unwritten: MOST_UNWRITTEN,
            max_resident_bytes: usize::MAX,
        }
    }

    /// Everything goes to `store`; `holds`: and what depends on it waits for it.
    pub(super) fn open(
        &mut self,
        store: StoreHandle<Release>,
        holds: bool,
        max_resident_bytes: usize,
        next: Identifiers,
    ) {
        self.store = Some(store);
        self.holds = holds;
        self.max_resident_bytes = max_resident_bytes;
        self.next = next;
    }

    pub(super) fn is_on(&self) -> bool {
        self.store.is_some()
    }

    /// The disk is full or fails: what is held stays held.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.status()
            .is_some_and(|status| status.state != StoreState::Ok)
    }

    /// How the store is doing.
    pub(super) fn status(&self) -> Option<StoreStatus> {
        self.store.as_ref().map(StoreHandle::status)
    }

    pub(super) fn clock(&self) -> &WallClock {
        &self.clock
    }

    /// What waited for this commit has left.
    pub(super) fn is_durable(&self, sequence: u64) -> bool {
        self.store
            .as_ref()
            .is_none_or(|store| store.durable() >= sequence)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.changes.len())
    }

    /// Something has to be durable before the answer to what was handled since `mark` may leave.
    pub(super) fn changed_since(&self, mark: Mark) -> bool {
        self.holds && self.changes.len() > mark.0
    }

    /// Something is to be stored since `mark`.
    pub(super) fn has_more_than(&self, mark: Mark) -> bool {
        self.changes.len() > mark.0
    }

    /// A client brought what is to be stored: it brings no more while too much waits for the disk, over no connection.
    pub(super) fn charge(&mut self, client_id: &str) {
        let Some(store) = &self.store else { return };
        let (count, bytes) = self.announced;
        let new = self.changes.get(count..).unwrap_or_default();
        self.announced = (self.changes.len(), bytes + store.announce(new));
        store.backlog().charge(client_id);
    }

    /// Appends a PUBLISH to a link; `waits`: it must not leave before what this batch changes.
    pub(super) fn send(&self, link: &mut Link, waits: bool, push: impl FnOnce(&mut Link)) {
        if !(self.holds && waits) {
            push(link);
            return;
        }
        // It may be overtaken, so it neither gives nor uses a name that another packet changes.
        let aliases = link.aliases.take();
        link.hold(self.sequence, push);
        link.aliases = aliases;
    }

    /// Appends a QoS 2 PUBLISH that is sent again: it is durable, but comes after those that are held, and before those
    /// that will be. [MQTT-4.4.0-1], [MQTT-4.6.0-1]
    pub(super) fn send_again(&self, link: &mut Link, push: impl FnOnce(&mut Link)) {
        let held = link.held.as_deref();
        let waits =
            held.is_some_and(|held| held.blocked.is_some() || !self.is_durable(held.sequence));
        self.send(link, waits, push);
    }

    /// Appends an acknowledgement to a link, after those before it. [MQTT-4.6.0-2]
    pub(super) fn answer(&self, link: &mut Link, waits: bool, push: impl FnOnce(&mut Link)) {
        // What is not held on a blocked link leaves later than it might: another acknowledgement could overtake it.
        let held = |held: &Held| waits || held.blocked.is_some() || !self.is_durable(held.sequence);
        if self.holds && link.held.as_deref().map_or(waits, held) {
            link.hold(self.sequence, push);
        } else {
            push(link);
        }
    }

    /// Appends an acknowledgement that everything on the link comes after: while it is held, the link is blocked. What
    /// was appended before it and waits for nothing leaves with it, and not after what is held behind it. [MQTT-4.6.0-2]
    pub(super) fn answer_first(&self, link: &mut Link, waits: bool, push: impl FnOnce(&mut Link)) {
        self.answer(link, waits, push);
        link.hold_pending();
        if let Some(held) = &mut link.held
            && !held.bytes.is_empty()
        {
            held.blocked = Some(held.sequence);
        }
    }

    /// Ends a link: its pending bytes leave after those that are held.
    pub(super) fn close(&mut self, link: Link) {
        let Link {
            outbox,
            mut pending,
            held,
            ..
        } = link;
        let held = held.filter(|held| self.holds && !self.is_durable(held.sequence));
        let Some(held) = held else {
            outbox.close_with(&mut pending);
            return;
        };
        let mut bytes = held.bytes;
        bytes.append(&mut pending);
        self.release(Release {
            outbox,
            bytes,
            then: Then::Close,
            unblocks: None,
        });
    }

    pub(super) fn release(&mut self, release: Release) {
        self.releases.push(release);
    }

    /// Whether the queue of a session may go on to its client. It sends and deletes faster than a disk writes: when so
    /// much waits there that memory counts, the store tells when half of it is written.
    pub(super) fn may_go_on(&mut self, slot: SessionSlot, session: &mut Session) -> bool {
        let Some(store) = self.store.as_ref().filter(|_| self.holds) else {
            return true;
        };
        let unwritten = self.unwritten.changes(store);
        if unwritten < self.most_unwritten / 2 || session.key.is_none() || session.queue.is_empty()
        {
            return true;
        }
        let Some(link) = &mut session.link else {
            return true;
        };
        let held = link.held.get_or_insert_default();
        if held.paced.is_none() {
            held.paced = Some(self.sequence);
            let connection = link.connection;
            self.pacers.push(Release {
                outbox: Arc::clone(&link.outbox),
                bytes: OutBuf::default(),
                then: Then::Nothing,
                unblocks: Some((Origin { slot, connection }, self.sequence)),
            });
        }
        unwritten < self.most_unwritten
    }

    /// Hands the batch to the store.
    pub(super) fn commit(&mut self) {
        let Some(store) = &self.store else { return };
        if !self.endings.is_empty() {
            self.endings.forget(store.durable());
        }
        self.releases.append(&mut self.pacers);
        if !self.changes.is_empty() || !self.releases.is_empty() {
            if self.holds {
                self.unwritten.changes(store);
                self.unwritten.note(self.sequence, self.changes.len());
            }
            let release_bytes = self.releases.iter().map(Release::size_bytes).sum();
            let commit = Commit {
                sequence: self.sequence,
                changes: std::mem::take(&mut self.changes),
                releases: std::mem::take(&mut self.releases),
                release_bytes,
            };
            self.sequence += 1;
            let (_, announced) = std::mem::take(&mut self.announced);
            store.commit_announced(commit, announced);
        }
        for token in self.reads_wanted.drain(..) {
            if let Some((_, ids)) = self.reads.get(&token) {
                store.read(token, ids.clone());
            }
        }
    }

    fn change(&mut self, change: Change) {
        if self.store.is_some() {
            self.changes.push(change);
        }
    }

    /// Sets what time it is: the simulation has a time of its own.
    #[cfg(test)]
    pub(super) fn set_clock(&mut self, base: Instant, base_wall: WallTime) {
        self.clock = WallClock { base, base_wall };
    }

    /// Sets how many changes may wait before queues stop.
    #[cfg(test)]
    pub(super) fn set_most_unwritten(&mut self, changes: usize) {
        self.most_unwritten = changes;
    }

    /// Nothing of the current batch is to be stored.
    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        self.changes.is_empty() && self.releases.is_empty() && self.pacers.is_empty()
    }

    /// Records a session as it is now, under a key of its own from the first time on.
    pub(super) fn put_session(&mut self, session: &mut Session, disconnected_at: Option<Instant>) {
        if self.store.is_none() {
            return;
        }
        let next = &mut self.next.next_session;
        let key = *session.key.get_or_insert_with(|| {
            let key = *next;
            next.0 += 1;
            key
        });
        let record = SessionRecord {
            client_id: session.client_id.clone(),
            user: session.owner.user().map(ByteString::from),
            listener: ByteString::from(&*session.last.listener),
            version: session.last.version,
            expiry_seconds: match session.expiry {
                SessionExpiry::AtDisconnect => 0,
                SessionExpiry::After(seconds) => seconds,
                SessionExpiry::Never => u32::MAX,
            },
            disconnected_at: disconnected_at.map(|at| self.clock.wall(at)),
            will: session
                .will
                .as_deref()
                .map(|will| Box::new(WillRecord { will: will.clone() })),
        };
        self.changes.push(Change::PutSession(key, Box::new(record)));
    }

    /// A session is over, and this batch says so to the store: whoever comes under its name next must be told of none
    /// before that is durable, or a crash would bring it back.
    pub(super) fn note_ending(&mut self, session: &Session) {
        if self.holds && session.key.is_some() {
            self.endings.note(&session.client_id, self.sequence);
        }
    }

    /// A session of this client has ended, and the store may still have it.
    pub(super) fn may_bring_back(&mut self, client_id: &str) -> bool {
        if self.endings.is_empty() {
            return false;
        }
        self.endings
            .forget(self.store.as_ref().map_or(0, StoreHandle::durable));
        self.endings.contain(client_id)
    }

    /// Removes a session with its subscriptions and entries. Their messages go with [`forget`](Self::forget).
    pub(super) fn delete_session(&mut self, key: SessionKey) {
        self.change(Change::DeleteSession(key));
    }

    pub(super) fn put_subscription(
        &mut self,
        key: Option<SessionKey>,
        text: &ByteString,
        subscribed: &Subscribed,
        replay: Option<&Replay>,
    ) {
        let Some(key) = key else { return };
        let record = SubscriptionRecord {
            options: subscribed.requested.options,
            id: subscribed.id,
            filter: ByteString::from(subscribed.requested.filter.as_str()),
            share: subscribed
                .requested
                .share
                .as_ref()
                .map(|share| ByteString::from(share.as_str())),
            replay: replay.map(|replay| ReplayRecord {
                after: replay.after.clone(),
            }),
        };
        self.change(Change::PutSubscription(key, text.clone(), record));
    }

    /// Every retained message for a new subscription has been sent.
    pub(super) fn end_replay(&mut self, session: &Session, replay: &Replay) {
        if let Some(subscribed) = session.subscriptions.get(&replay.text) {
            self.put_subscription(session.key, &replay.text, subscribed, None);
        }
    }

    pub(super) fn delete_subscription(&mut self, key: Option<SessionKey>, text: &ByteString) {
        if let Some(key) = key {
            self.change(Change::DeleteSubscription(key, text.clone()));
        }
    }

    pub(super) fn put_incoming(&mut self, key: Option<SessionKey>, id: PacketId) {
        if let Some(key) = key {
            self.change(Change::PutIncoming(key, id));
        }
    }

    pub(super) fn delete_incoming(&mut self, key: Option<SessionKey>, id: PacketId) {
        if let Some(key) = key {
            self.change(Change::DeleteIncoming(key, id));
        }
    }

    pub(super) fn put_retained(&mut self, message: &Arc<Message>, publisher: Option<&Publisher>) {
        if self.store.is_none() {
            return;
        }
        let record = RetainedRecord {
            message: self.record(message),
            publisher: publisher.map(Publisher::record),
        };
        self.change(Change::PutRetained(Box::new(record)));
    }

    pub(super) fn delete_retained(&mut self, topic: TopicName) {
        self.change(Change::DeleteRetained(topic));
    }

    /// Stores a delivery of `session`, which has no place in the store yet. Its message is stored with the first of its
    /// deliveries, and `id` says from then on where.
    pub(super) fn put_entry(
        &mut self,
        key: Option<SessionKey>,
        position: Position,
        delivery: &mut Delivery,
        id: &mut Option<MessageId>,
        group: Option<&ByteString>,
        state: EntryState,
    ) {
        let (Some(key), Some(message)) = (key, &delivery.message) else {
            return;
        };
        let message = match *id {
            Some(id) => {
                *self.references.entry(id).or_insert(1) += 1;
                id
            }
            None => {
                let new = self.next.next_message;
                self.next.next_message = MessageId(new.0.saturating_add(1));
                let record = self.record(message);
                self.change(Change::PutMessage(new, record));
                *id = Some(new);
                new
            }
        };
        let record = EntryRecord {
            message: Some(message),
            size_bytes: delivery.size_bytes,
            qos: delivery.qos,
            retain: delivery.retain,
            ids: delivery.ids.clone(),
            group: group.cloned(),
            state,
        };
        self.change(Change::PutEntry(key, position, record));
        delivery.stored = Some(Stored {
            message: Some(message),
            position,
        });
    }

    /// A stored delivery goes on.
    pub(super) fn update_entry(
        &mut self,
        key: Option<SessionKey>,
        delivery: &Delivery,
        state: EntryState,
    ) {
        if let (Some(key), Some(stored)) = (key, delivery.stored) {
            self.change(Change::UpdateEntry(key, stored.position, state));
        }
    }

    /// PUBREC came: the client has the message of a stored delivery, the flow goes on without it.
    pub(super) fn release_entry(
        &mut self,
        key: Option<SessionKey>,
        delivery: &mut Delivery,
        id: PacketId,
    ) {
        if let Some(stored) = &mut delivery.stored
            && let message @ Some(_) = stored.message.take()
        {
            let position = stored.position;
            self.update_entry(key, delivery, EntryState::Released(id));
            self.forget(Stored { message, position });
        }
    }

    /// A stored delivery is over: completed, dropped or expired.
    pub(super) fn delete_entry(&mut self, key: Option<SessionKey>, delivery: &Delivery) {
        if let (Some(key), Some(stored)) = (key, delivery.stored) {
            self.change(Change::DeleteEntry(key, stored.position));
            self.forget(stored);
        }
    }

    /// The same, when the message has gone to another session first and [`forget`](Self::forget) follows.
    pub(super) fn delete_entry_alone(&mut self, key: Option<SessionKey>, delivery: &Delivery) {
        if let (Some(key), Some(stored)) = (key, delivery.stored) {
            self.change(Change::DeleteEntry(key, stored.position));
        }
    }

    /// One entry fewer refers to its message.
    pub(super) fn forget(&mut self, stored: Stored) {
        let Some(id) = stored.message else { return };
        if let Some(count) = self.references.get_mut(&id) {
            *count -= 1;
            if *count <= 1 {
                self.references.remove(&id);
            }
            return;
        }
        self.change(Change::DeleteMessage(id));
    }

    /// At the start: an entry that refers to a message.
    pub(super) fn set_references(&mut self, counts: impl Iterator<Item = (MessageId, u32)>) {
        self.references = counts.filter(|(_, count)| *count > 1).collect();
    }

    /// Asks the store for messages: they come as [`Command::Loaded`](super::command::Command) with the number returned.
    pub(super) fn read(&mut self, waiter: Waiter, ids: Vec<MessageId>) -> Option<u64> {
        self.store.as_ref()?;
        let token = self.reads_asked;
        self.reads_asked += 1;
        self.reads.insert(token, (waiter, ids));
        self.reads_wanted.push(token);
        Some(token)
    }

    /// Who asked, and for what.
    pub(super) fn take_read(&mut self, token: u64) -> Option<(Waiter, Vec<MessageId>)> {
        self.reads.remove(&token)
    }

    /// How many bytes of stored messages are kept in memory too.
    pub(super) fn max_resident_bytes(&self) -> usize {
        self.max_resident_bytes
    }

    fn record(&self, message: &Arc<Message>) -> MessageRecord {
        MessageRecord {
            message: Arc::clone(message),
            expires_at: message.expires_at.map(|at| self.clock.wall(at)),
        }
    }
}

/// Translates between the clock of deadlines and the one that goes on between two processes.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallClock {
    base: Instant,
    base_wall: WallTime,
}

impl WallClock {
    fn new(now: Instant) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = wall.map_or(0, milliseconds);
        Self {
            base: now,
            base_wall: WallTime(wall),
        }
    }

    pub(super) fn wall(&self, at: Instant) -> WallTime {
        let ahead = milliseconds(at.saturating_duration_since(self.base));
        let behind = milliseconds(self.base.saturating_duration_since(at));
        WallTime(
            self.base_wall
                .0
                .saturating_add(ahead)
                .saturating_sub(behind),
        )
    }

    /// A message that was read back.
    pub(super) fn message(&self, record: MessageRecord) -> Arc<Message> {
        let mut message = record.message;
        if let Some(wall) = record.expires_at {
            let expires_at = Some(self.instant(wall).unwrap_or(self.base));
            Arc::make_mut(&mut message).expires_at = expires_at;
        }
        message
    }

    /// `None`: longer ago than the clock of deadlines reaches.
    pub(super) fn instant(&self, wall: WallTime) -> Option<Instant> {
        let ahead = wall.0.saturating_sub(self.base_wall.0);
        let behind = self.base_wall.0.saturating_sub(wall.0);
        self.base
            .checked_add(Duration::from_millis(ahead))?
            .checked_sub(Duration::from_millis(behind))
    }
}

/// Changes that may wait to be written before queues stop: some 200 bytes each, twice while they are merged.
const MOST_UNWRITTEN: usize = 50_000;

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
