//! Changes of the state, and what many of them come to.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use bytestring::ByteString;

use super::{
    EntryRecord, EntryState, MessageId, MessageRecord, Position, RetainedRecord, SessionKey,
    SessionRecord, SubscriptionRecord,
};
use crate::proto::{PacketId, TopicName};

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A session comes, or its record is replaced.
    PutSession(SessionKey, Box<SessionRecord>),
    /// A session goes with its subscriptions, entries and incoming identifiers. Messages go by [`Change::DeleteMessage`].
    /// What is said of its subscriptions, entries and identifiers later is ignored.
    DeleteSession(SessionKey),
    /// A subscription comes or is replaced, under the filter as the client wrote it.
    PutSubscription(SessionKey, ByteString, SubscriptionRecord),
    /// A subscription goes.
    DeleteSubscription(SessionKey, ByteString),
    /// A QoS 2 message was received under this identifier and waits for its PUBREL. Only for an identifier that is not
    /// stored already.
    PutIncoming(SessionKey, PacketId),
    /// Its PUBREL came.
    DeleteIncoming(SessionKey, PacketId),
    /// A message that entries refer to comes, once for all of them, under an identifier that was never used.
    PutMessage(MessageId, MessageRecord),
    /// The last entry that referred to it is gone.
    DeleteMessage(MessageId),
    /// An entry of a session's queue comes, at a position that was never used.
    PutEntry(SessionKey, Position, EntryRecord),
    /// An entry's delivery goes on. All else of its record stays, but for the message, which [`EntryState::Released`] has
    /// none of and never goes back from. Ignored if the entry is not there.
    UpdateEntry(SessionKey, Position, EntryState),
    /// An entry is completed, dropped or expired.
    DeleteEntry(SessionKey, Position),
    /// The retained message of its topic comes or is replaced.
    PutRetained(Box<RetainedRecord>),
    /// The retained message of a topic goes.
    DeleteRetained(TopicName),
}

/// What changes come to: each thing once, as it is after all of them. A thing that came and went meanwhile is not in it.
///
/// All iteration is in ascending order of keys. Applying a set twice is the same as applying it once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeSet {
    sessions: BTreeMap<SessionKey, SessionChange>,
    subscriptions: BTreeMap<(SessionKey, ByteString), Option<SubscriptionRecord>>,
    incoming: BTreeMap<(SessionKey, PacketId), Net<()>>,
    messages: BTreeMap<MessageId, Net<MessageRecord>>,
    entries: BTreeMap<(SessionKey, Position), NetEntry>,
    retained: BTreeMap<TopicName, Option<Box<RetainedRecord>>>,
}

/// What is to be done to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryChange<'a> {
    /// It is written whole.
    Put(&'a EntryRecord),
    /// Its delivery went on, see [`Change::UpdateEntry`].
    Update(EntryState),
    /// It is deleted.
    Delete,
}

/// What is to be done to a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SessionChange {
    /// It ended, and all below it.
    ended: bool,
    /// It came, maybe again after it ended.
    record: Option<Box<SessionRecord>>,
}

/// What is to be done to a thing that is put once and never replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Net<T> {
    /// `fresh`: it is certain that the store has nothing under this key.
    Put {
        value: T,
        fresh: bool,
    },
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NetEntry {
    Put { record: EntryRecord, fresh: bool },
    Update(EntryState),
    Delete,
}

impl Change {
    /// What it takes of the memory until it is written, in bytes, about.
    pub(super) fn size_bytes(&self) -> usize {
        let payload = match self {
            Self::PutSession(_, record) => session_bytes(record),
            Self::PutSubscription(_, filter, _) => 2 * filter.len(),
            Self::PutMessage(_, record) => record.message.size_bytes(),
            Self::PutRetained(record) => record.message.message.size_bytes(),
            Self::DeleteRetained(topic) => topic.as_str().len(),
            _ => 0,
        };
        CHANGE_BYTES.saturating_add(payload)
    }
}

impl ChangeSet {
    /// No change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All that `changes` come to, in this order.
    #[must_use]
    pub fn of(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut set = Self::default();
        set.extend(changes);
        set
    }

    /// There is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of things to be written or deleted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
            + self.subscriptions.len()
            + self.incoming.len()
            + self.messages.len()
            + self.entries.len()
            + self.retained.len()
    }

    /// What it takes of the memory, in bytes, about.
    pub(super) fn size_bytes(&self) -> usize {
        let sessions = self.sessions().map(|(_, record)| session_bytes(record));
        let subscriptions = self.subscriptions().map(|(_, filter, _)| 2 * filter.len());
        let messages = self
            .messages()
            .filter_map(|(_, record)| Some(record?.message.size_bytes()));
        let retained = self.retained().map(|(topic, record)| match record {
            Some(record) => record.message.message.size_bytes(),
            None => topic.as_str().len(),
        });
        let payloads = sessions
            .chain(subscriptions)
            .chain(messages)
            .chain(retained);
        payloads.fold(self.len() * CHANGE_BYTES, usize::saturating_add)
    }

    /// Takes one more change.
    pub fn push(&mut self, change: Change) {
        match change {
            Change::PutSession(key, record) => {
                self.sessions.entry(key).or_default().record = Some(record);
            }
            Change::DeleteSession(key) => self.delete_session(key),
            Change::PutSubscription(key, filter, record) => {
                if !self.has_ended(key) {
                    self.subscriptions.insert((key, filter), Some(record));
                }
            }
            Change::DeleteSubscription(key, filter) => {
                if !self.has_ended(key) {
                    self.subscriptions.insert((key, filter), None);
                }
            }
            Change::PutIncoming(key, id) => {
                if !self.has_ended(key) {
                    put(&mut self.incoming, (key, id), ());
                }
            }
            Change::DeleteIncoming(key, id) => {
                if !self.has_ended(key) {
                    delete(&mut self.incoming, (key, id));
                }
            }
            Change::PutMessage(id, record) => put(&mut self.messages, id, record),
            Change::DeleteMessage(id) => delete(&mut self.messages, id),
            Change::PutEntry(key, position, record) => self.put_entry(key, position, record),
            Change::UpdateEntry(key, position, state) => self.update_entry(key, position, state),
            Change::DeleteEntry(key, position) => self.delete_entry(key, position),
            Change::PutRetained(record) => {
                let topic = record.message.message.topic.clone();
                self.retained.insert(topic, Some(record));
            }
            Change::DeleteRetained(topic) => {
                self.retained.insert(topic, None);
            }
        }
    }

    /// Says that the set may have been written already, although the store reported an error: what it brings and what
    /// later changes take away again must be deleted then.
    pub fn doubt(&mut self) {
        for change in self.incoming.values_mut() {
            change.doubt();
        }
        for change in self.messages.values_mut() {
            change.doubt();
        }
        for change in self.entries.values_mut() {
            if let NetEntry::Put { fresh, .. } = change {
                *fresh = false;
            }
        }
    }

    /// The sessions of which all is to be deleted, before anything else of the set is applied.
    pub fn ended_sessions(&self) -> impl Iterator<Item = SessionKey> {
        let ended = self.sessions.iter().filter(|(_, change)| change.ended);
        ended.map(|(key, _)| *key)
    }

    /// The session records to be written.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionKey, &SessionRecord)> {
        let put = self.sessions.iter();
        put.filter_map(|(key, change)| Some((*key, change.record.as_deref()?)))
    }

    /// Subscriptions; `None`: to be deleted.
    pub fn subscriptions(
        &self,
    ) -> impl Iterator<Item = (SessionKey, &ByteString, Option<&SubscriptionRecord>)> {
        let changes = self.subscriptions.iter();
        changes.map(|((key, filter), record)| (*key, filter, record.as_ref()))
    }

    /// Identifiers of incoming messages; `false`: to be deleted.
    pub fn incoming(&self) -> impl Iterator<Item = (SessionKey, PacketId, bool)> {
        let changes = self.incoming.iter();
        changes.map(|((key, id), change)| (*key, *id, change.value().is_some()))
    }

    /// Messages; `None`: to be deleted.
    pub fn messages(&self) -> impl Iterator<Item = (MessageId, Option<&MessageRecord>)> {
        let changes = self.messages.iter();
        changes.map(|(id, change)| (*id, change.value()))
    }

    /// Entries.
    pub fn entries(&self) -> impl Iterator<Item = (SessionKey, Position, EntryChange<'_>)> {
        self.entries.iter().map(|((key, position), change)| {
            let change = match change {
                NetEntry::Put { record, .. } => EntryChange::Put(record),
                NetEntry::Update(state) => EntryChange::Update(*state),
                NetEntry::Delete => EntryChange::Delete,
            };
            (*key, *position, change)
        })
    }

    /// Retained messages; `None`: to be deleted.
    pub fn retained(&self) -> impl Iterator<Item = (&TopicName, Option<&RetainedRecord>)> {
        let changes = self.retained.iter();
        changes.map(|(topic, record)| (topic, record.as_deref()))
    }

    /// What the set says of a message: `None`: nothing; `Some(None)`: it is deleted.
    #[must_use]
    pub fn message(&self, id: MessageId) -> Option<Option<&MessageRecord>> {
        self.messages.get(&id).map(Net::value)
    }

    fn has_ended(&self, key: SessionKey) -> bool {
        let change = self.sessions.get(&key);
        change.is_some_and(|change| change.ended && change.record.is_none())
    }

    fn delete_session(&mut self, key: SessionKey) {
        let change = SessionChange {
            ended: true,
            record: None,
        };
        self.sessions.insert(key, change);
        let next = SessionKey(key.0.saturating_add(1));
        let (first, end) = ((key, ByteString::new()), (next, ByteString::new()));
        clear(&mut self.subscriptions, first..end);
        let last = PacketId::MAX;
        clear(&mut self.incoming, (key, PacketId::MIN)..=(key, last));
        let last = Position(u64::MAX);
        clear(&mut self.entries, (key, Position(0))..=(key, last));
    }

    fn put_entry(&mut self, key: SessionKey, position: Position, record: EntryRecord) {
        if self.has_ended(key) {
            return;
        }
        let place = (key, position);
        let known = self.entries.get(&place);
        let fresh = matches!(known, None | Some(NetEntry::Put { fresh: true, .. }));
        self.entries.insert(place, NetEntry::Put { record, fresh });
    }

    fn update_entry(&mut self, key: SessionKey, position: Position, state: EntryState) {
        if self.has_ended(key) {
            return;
        }
        let change = self.entries.entry((key, position));
        match change.or_insert(NetEntry::Update(state)) {
            NetEntry::Put { record, .. } => record.update(state),
            NetEntry::Update(known) => *known = state,
            NetEntry::Delete => {}
        }
    }

    fn delete_entry(&mut self, key: SessionKey, position: Position) {
        if self.has_ended(key) {
            return;
        }
        let place = (key, position);
        if let Some(NetEntry::Put { fresh: true, .. }) = self.entries.get(&place) {
            self.entries.remove(&place);
        } else {
            self.entries.insert(place, NetEntry::Delete);
        }
    }
}

impl Extend<Change> for ChangeSet {
    fn extend<T: IntoIterator<Item = Change>>(&mut self, changes: T) {
        for change in changes {
            self.push(change);
        }
    }
}

impl<T> Net<T> {
    fn value(&self) -> Option<&T> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Delete => None,
        }
    }

    fn doubt(&mut self) {
        if let Self::Put { fresh, .. } = self {
            *fresh = false;
        }
    }
}

/// What a change takes beside payloads: itself, or its place in a map.
const CHANGE_BYTES: usize = 200;

fn session_bytes(record: &SessionRecord) -> usize {
    let will = record.will.as_deref();
    size_of::<SessionRecord>() + will.map_or(0, |record| record.will.payload.len())
}

fn put<K: Ord, T>(changes: &mut BTreeMap<K, Net<T>>, key: K, value: T) {
    let known = changes.get(&key);
    let fresh = matches!(known, None | Some(Net::Put { fresh: true, .. }));
    changes.insert(key, Net::Put { value, fresh });
}

fn delete<K: Ord, T>(changes: &mut BTreeMap<K, Net<T>>, key: K) {
    if let Some(Net::Put { fresh: true, .. }) = changes.get(&key) {
        changes.remove(&key);
    } else {
        changes.insert(key, Net::Delete);
    }
}

fn clear<K: Ord, T>(map: &mut BTreeMap<K, T>, range: impl RangeBounds<K>) {
    map.extract_if(range, |_, _| true).for_each(drop);
}

#[cfg(test)]
pub(super) mod tests;
