//! A store in memory: it ends with the process. For tests, simulations, and as the model of what a store does.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::Mutex;

use super::{
    Change, ChangeSet, EntryChange, EntryRecord, Identifiers, Loaded, MessageId, MessageReader,
    MessageRecord, Position, RetainedRecord, SessionKey, SessionRecord, Snapshot, Store,
    StoreError, SubscriptionRecord,
};
use crate::proto::{PacketId, TopicName};

/// A store in memory. Clones are the same store, so a test keeps one to look into and to make trouble with.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    state: MemoryState,
    writes: u64,
    failures: BTreeMap<u64, Failure>,
    failing: Option<Failure>,
}

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There is no room; nothing is applied.
    Full,
    /// The write fails; nothing is applied.
    Write,
    /// The write fails although all was applied: what came before the error had reached the disk.
    WriteAfterwards,
    /// The sync fails; nothing is applied.
    Sync,
}

/// All that a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryState {
    /// Session records.
    pub sessions: BTreeMap<SessionKey, SessionRecord>,
    /// Subscriptions of each session, by the filter as the client wrote it.
    pub subscriptions: BTreeMap<(SessionKey, ByteString), SubscriptionRecord>,
    /// Identifiers of incoming QoS 2 messages.
    pub incoming: BTreeMap<(SessionKey, PacketId), ()>,
    /// Messages that entries refer to.
    pub messages: BTreeMap<MessageId, MessageRecord>,
    /// The entries of all queues.
    pub entries: BTreeMap<(SessionKey, Position), EntryRecord>,
    /// Retained messages.
    pub retained: BTreeMap<TopicName, RetainedRecord>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that holds `state`: what a start after a crash finds.
    #[must_use]
    pub fn with_state(state: MemoryState) -> Self {
        let store = Self::new();
        store.inner.lock().state = state;
        store
    }

    /// All that it holds now.
    #[must_use]
    pub fn state(&self) -> MemoryState {
        self.inner.lock().state.clone()
    }

    /// The number of writes so far, failed ones among them.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.inner.lock().writes
    }

    /// Has all writes fail, until `None`.
    pub fn set_failing(&self, failure: Option<Failure>) {
        self.inner.lock().failing = failure;
    }

    /// Has the `nth` write fail, counted from 1 and from the making of the store.
    pub fn fail_at(&self, nth: u64, failure: Failure) {
        self.inner.lock().failures.insert(nth, failure);
    }
}

impl Store for MemoryStore {
    fn write(&mut self, changes: &ChangeSet) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        inner.writes += 1;
        let nth = inner.writes;
        let failure = inner.failures.remove(&nth).or(inner.failing);
        if matches!(failure, None | Some(Failure::WriteAfterwards)) {
            inner.state.apply(changes);
        }
        match failure {
            None => Ok(()),
            Some(Failure::Full) => Err(StoreError::Full(io::ErrorKind::StorageFull.into())),
            Some(Failure::Sync) => Err(StoreError::Sync(io::ErrorKind::Other.into())),
            Some(_) => Err(StoreError::Write(io::ErrorKind::Other.into())),
        }
    }

    fn load(
        &self,
        visit: &mut dyn FnMut(Loaded) -> Result<(), StoreError>,
    ) -> Result<Identifiers, StoreError> {
        // A copy, because the visitor may use the store.
        self.state().visit(visit)
    }

    fn reader(&self) -> Box<dyn MessageReader> {
        Box::new(self.clone())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(self.state()))
    }

    fn size_bytes(&self) -> u64 {
        0
    }
}

impl MessageReader for MemoryStore {
    fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<MessageRecord>>, StoreError> {
        let inner = self.inner.lock();
        let found = ids.iter().map(|id| inner.state.messages.get(id).cloned());
        Ok(found.collect())
    }
}

impl Snapshot for MemoryState {
    fn copy_to(self: Box<Self>, path: &Path) -> Result<(), StoreError> {
        let error = io::Error::new(io::ErrorKind::Unsupported, "the store is in memory");
        Err(StoreError::Open(Box::new((path.to_owned(), error))))
    }
}

impl MemoryState {
    /// Applies one change as it is written down, without what a [`ChangeSet`] knows of others: the model of all stores.
    pub fn apply_change(&mut self, change: Change) {
        match change {
            Change::PutSession(key, record) => {
                self.sessions.insert(key, *record);
            }
            Change::DeleteSession(key) => self.delete_session(key),
            Change::PutSubscription(key, filter, record) => {
                self.subscriptions.insert((key, filter), record);
            }
            Change::DeleteSubscription(key, filter) => {
                self.subscriptions.remove(&(key, filter));
            }
            Change::PutIncoming(key, id) => {
                self.incoming.insert((key, id), ());
            }
            Change::DeleteIncoming(key, id) => {
                self.incoming.remove(&(key, id));
            }
            Change::PutMessage(id, record) => {
                self.messages.insert(id, record);
            }
            Change::DeleteMessage(id) => {
                self.messages.remove(&id);
            }
            Change::PutEntry(key, position, record) => {
                self.entries.insert((key, position), record);
            }
            Change::UpdateEntry(key, position, state) => {
                if let Some(record) = self.entries.get_mut(&(key, position)) {
                    record.update(state);
                }
            }
            Change::DeleteEntry(key, position) => {
                self.entries.remove(&(key, position));
            }
            Change::PutRetained(record) => {
                let topic = record.message.message.topic.clone();
                self.retained.insert(topic, *record);
            }
            Change::DeleteRetained(topic) => {
                self.retained.remove(&topic);
            }
        }
    }

    /// Applies what changes come to.
    pub fn apply(&mut self, set: &ChangeSet) {
        set.ended_sessions()
            .for_each(|key| self.delete_session(key));
        for (key, record) in set.sessions() {
            self.sessions.insert(key, record.clone());
        }
        for (key, filter, record) in set.subscriptions() {
            replace(&mut self.subscriptions, (key, filter.clone()), record);
        }
        for (key, id, is_there) in set.incoming() {
            replace(&mut self.incoming, (key, id), is_there.then_some(&()));
        }
        for (id, record) in set.messages() {
            replace(&mut self.messages, id, record);
        }
        for (key, position, change) in set.entries() {
            match change {
                EntryChange::Put(record) => {
                    self.entries.insert((key, position), record.clone());
                }
                EntryChange::Update(state) => {
                    if let Some(record) = self.entries.get_mut(&(key, position)) {
                        record.update(state);
                    }
                }
                EntryChange::Delete => {
                    self.entries.remove(&(key, position));
                }
            }
        }
        for (topic, record) in set.retained() {
            replace(&mut self.retained, topic.clone(), record);
        }
    }

    /// As [`Store::load`].
    ///
    /// # Errors
    /// Only what the visitor returns.
    pub fn visit(
        &self,
        visit: &mut dyn FnMut(Loaded) -> Result<(), StoreError>,
    ) -> Result<Identifiers, StoreError> {
        for (key, record) in &self.sessions {
            visit(Loaded::Session(*key, Box::new(record.clone())))?;
        }
        for ((key, filter), record) in &self.subscriptions {
            visit(Loaded::Subscription(*key, filter.clone(), record.clone()))?;
        }
        for (key, id) in self.incoming.keys() {
            visit(Loaded::Incoming(*key, *id))?;
        }
        for ((key, position), record) in &self.entries {
            visit(Loaded::Entry(*key, *position, record.clone()))?;
        }
        for record in self.retained.values() {
            visit(Loaded::Retained(Box::new(record.clone())))?;
        }
        Ok(self.identifiers())
    }

    fn identifiers(&self) -> Identifiers {
        let session = self.sessions.keys().next_back().map_or(0, |key| key.0);
        let referred = self.entries.values().filter_map(|entry| entry.message);
        let message = self.messages.keys().copied().chain(referred).max();
        Identifiers {
            next_session: SessionKey(session + 1),
            next_message: message.map_or(MessageId(NonZeroU64::MIN), MessageId::next),
        }
    }

    fn delete_session(&mut self, key: SessionKey) {
        self.sessions.remove(&key);
        self.subscriptions.retain(|(of, _), _| *of != key);
        self.incoming.retain(|(of, _), ()| *of != key);
        self.entries.retain(|(of, _), _| *of != key);
    }
}

fn replace<K: Ord, T: Clone>(map: &mut BTreeMap<K, T>, key: K, value: Option<&T>) {
    match value {
        Some(value) => map.insert(key, value.clone()),
        None => map.remove(&key),
    };
}
