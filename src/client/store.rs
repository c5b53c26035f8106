//! The store of a client: what is on its way survives a restart of the program.
//!
//! ```text
//!   session ──changes──► stage ──Commit{changes, bytes}──► store's thread ──one sync──► bytes to the link
//!                          └── bytes that wait for nothing ──────────────────────────► the link
//! ```
//!
//! While a commit is being written, the next one is collected: one message is not worth a wake-up of the store's thread.
//!
//! Bytes keep their order: while some wait for the store, all that come later wait behind them, except for PINGREQ.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use parking_lot::MutexGuard;

use super::session::{Changes, Journal, Publication};
use super::shared::{Core, Link, Shared, Urgency, in_callback};
use super::token::Slot;
use super::{ClientError, ClientState, StateEvent};
use crate::outbox::OutBuf;
use crate::proto::flow::outgoing::Inflight;
use crate::proto::{PacketId, ProtocolVersion, QoS};
use crate::store::{
    Change, Commit, DiskStore, Durability, EntryRecord, EntryState, Loaded, MessageRecord,
    Position, SessionKey, SessionRecord, Store, StoreError, StoreEvent, StoreHandle, channel,
};
use crate::thread;

/// Where a client keeps what is on its way.
#[derive(Debug, Clone)]
pub(crate) enum StorePlace {
    File(PathBuf),
    #[cfg(test)]
    Memory(crate::store::MemoryStore),
}

/// The way to the store's thread, and what waits for it.
pub(crate) struct ClientStore {
    handle: StoreHandle<Release>,
    thread: JoinHandle<()>,
    /// Of the last commit.
    sequence: u64,
    /// What leaves waits for this commit.
    hold_until: u64,
    durable: u64,
    /// Nothing is written at present, and it is tried again.
    in_trouble: bool,
    /// Nothing can be written any more.
    failed: Option<ClientError>,
}

/// Bytes that wait for the store, to leave on this connection and no other.
struct Release {
    connection: u64,
    bytes: OutBuf,
}

/// A session that was read back.
struct Restored {
    journal: Journal,
    flows: Vec<Inflight<Arc<Publication>>>,
    /// The session's record, if the store has none yet.
    record: Option<(SessionKey, Box<SessionRecord>)>,
}

impl StorePlace {
    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        match self {
            Self::File(path) => Ok(Box::new(DiskStore::open(path)?)),
            #[cfg(test)]
            Self::Memory(store) => Ok(Box::new(store.clone())),
        }
    }
}

impl Shared {
    /// Opens the store that the options name, takes over what an earlier program left in it, and starts its thread. Before
    /// the first connection.
    // BLOCKS: until it is read.
    pub(crate) fn open_store(self: &Arc<Self>) -> Result<(), ClientError> {
        let Some(place) = &self.options.store else {
            return Ok(());
        };
        let failed = |error: StoreError| ClientError::Store(Arc::new(error));
        let store = place.open().map_err(failed)?;
        let client_id = self.lock().result.client_id.clone();
        let version = self.options.first_version();
        let restored = load(&*store, &client_id, version).map_err(failed)?;
        if !restored.flows.is_empty() {
            log::info!(
                "{} messages of '{client_id}' are still on their way from before",
                restored.flows.len()
            );
        }
        let (handle, inbox) = channel();
        let shared = Arc::downgrade(self);
        let thread = thread::spawn("client-store", 0, move || {
            let _guard = Guard(Weak::clone(&shared));
            let handler = Arc::new(move |event| handle_event(&shared, event));
            inbox.run(store, Durability::Group, handler);
        })
        .map_err(|error| ClientError::Thread(Arc::new(error)))?;
        let mut core = self.lock();
        let mut store = ClientStore {
            handle,
            thread,
            sequence: 0,
            hold_until: 0,
            durable: 0,
            in_trouble: false,
            failed: None,
        };
        if let Some((key, record)) = restored.record {
            store.commit(vec![Change::PutSession(key, record)], Vec::new());
        }
        core.store = Some(store);
        core.session.restore(restored.journal, restored.flows);
        Ok(())
    }

    /// Why nothing can be stored any more.
    pub(crate) fn check_store(&self) -> Result<(), ClientError> {
        let core = self.lock();
        let failed = core.store.as_ref().and_then(|store| store.failed.clone());
        failed.map_or(Ok(()), Err)
    }

    /// Waits for all that is to be stored: who disconnects may be about to end the program.
    // BLOCKS: until it is written, or `deadline`.
    pub(super) fn wait_for_store(&self, core: &mut MutexGuard<'_, Core>, deadline: Instant) {
        while core.is_storing() && !self.wait_for_change(core, Some(deadline)) {}
    }

    /// Has all written, and ends the store's thread.
    // BLOCKS: until it is written.
    pub(crate) fn close_store(&self) {
        let mut core = self.lock();
        core.commit();
        let store = core.store.take();
        drop(core);
        let Some(store) = store else { return };
        store.handle.stop();
        // In a callback this may be the store's thread itself.
        if !in_callback() {
            let _ = store.thread.join();
        }
    }

    fn on_durable(self: &Arc<Self>, sequence: u64, releases: Vec<Release>) {
        let mut core = self.lock();
        let connection = core.connection;
        let Core { store, link, .. } = &mut *core;
        if let Some(store) = store {
            store.durable = sequence;
        }
        if let Some(link) = link {
            for mut release in releases {
                if release.connection == connection {
                    link.release(&mut release.bytes);
                }
            }
        }
        if !core.is_holding()
            && let Some(link) = &mut core.link
        {
            link.release_held();
        }
        self.send(core, Urgency::Now);
        self.notify();
    }

    fn set_trouble(&self, in_trouble: bool) {
        if let Some(store) = &mut self.lock().store {
            store.in_trouble = in_trouble;
        }
    }

    /// Nothing can be written any more, and what was written last may be lost: only a new start knows what is there.
    fn on_store_failed(&self, error: StoreError) {
        let error = ClientError::Store(Arc::new(error));
        let mut core = self.lock();
        let Some(store) = &mut core.store else { return };
        if store.failed.replace(error.clone()).is_some() {
            return;
        }
        core.driver += 1;
        let was_in_use = core.state != ClientState::Disconnected;
        drop(core);
        log::error!("the client cannot go on: {error}");
        self.end(&error);
        if was_in_use {
            self.tell(&StateEvent::Disconnected { error: Some(error) });
        }
    }
}

impl Core {
    /// With a store: has the changes of the session written, and sorts what was encoded into what may leave and what
    /// waits for them.
    pub(super) fn stage(&mut self) {
        let Some(store) = &self.store else { return };
        let (waits, is_writing) = (self.is_holding(), store.is_writing());
        if let Some(link) = &mut self.link {
            link.stage(waits);
        }
        if !is_writing {
            self.commit();
        }
    }

    /// Has written what changed since the last commit, and what is held back released then.
    fn commit(&mut self) {
        let Some(store) = &mut self.store else { return };
        let Changes { changes, holds } = self.session.take_changes();
        let held = self.link.as_mut().and_then(Link::take_held);
        if changes.is_empty() && held.is_none() {
            return;
        }
        let connection = self.connection;
        let release = held.map(|bytes| Release { connection, bytes });
        let waits = holds || release.is_some();
        store.commit(changes, release.into_iter().collect());
        if waits {
            store.hold_until = store.sequence;
        }
    }

    /// Something is being written, and with it or behind it all that changed.
    fn is_storing(&self) -> bool {
        let store = self.store.as_ref();
        store.is_some_and(|store| store.failed.is_none() && store.sequence > store.durable)
    }

    /// What leaves must wait for what is being written or collected.
    fn is_holding(&self) -> bool {
        let Some(store) = &self.store else {
            return false;
        };
        self.session.has_holding_changes() || store.hold_until > store.durable
    }
}

impl ClientStore {
    /// The store's thread has a commit. When nothing can be written it gets the others too: there they are merged, and
    /// take no more than what they come to.
    fn is_writing(&self) -> bool {
        self.sequence > self.durable && !self.in_trouble
    }

    fn commit(&mut self, changes: Vec<Change>, releases: Vec<Release>) {
        self.sequence += 1;
        self.handle.commit(Commit {
            sequence: self.sequence,
            changes,
            releases,
            release_bytes: 0,
        });
    }
}

/// A store's thread that ends by a panic must not leave anybody waiting.
struct Guard(Weak<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(shared) = self.0.upgrade()
        {
            shared.on_store_failed(StoreError::Closed);
        }
    }
}

fn handle_event(shared: &Weak<Shared>, event: StoreEvent<Release>) {
    let Some(shared) = shared.upgrade() else {
        return;
    };
    match event {
        StoreEvent::Durable { sequence, releases } => shared.on_durable(sequence, releases),
        StoreEvent::Read { .. } => {} // nobody asks
        StoreEvent::Trouble(_, text) => {
            shared.set_trouble(true);
            log::error!("the client's store cannot be written, sending waits until it can: {text}");
        }
        StoreEvent::Healed => {
            shared.set_trouble(false);
            log::warn!("the client's store can be written again");
        }
        StoreEvent::SyncFailed(error) => shared.on_store_failed(error),
    }
}

/// Reads the session of `client_id` back.
fn load(
    store: &dyn Store,
    client_id: &ByteString,
    version: ProtocolVersion,
) -> Result<Restored, StoreError> {
    let mut found = None;
    let mut entries: Vec<(SessionKey, Position, EntryRecord)> = Vec::new();
    let mut incoming: Vec<(SessionKey, PacketId)> = Vec::new();
    let next = store.load(&mut |loaded| {
        match loaded {
            Loaded::Session(_, record) if record.listener != LISTENER => {
                return Err(StoreError::Refused(
                    "the store is a broker's, and no client's".into(),
                ));
            }
            Loaded::Session(key, record) if record.client_id == *client_id => found = Some(key),
            Loaded::Entry(key, position, record) if found == Some(key) => {
                entries.push((key, position, record));
            }
            Loaded::Incoming(key, id) if found == Some(key) => incoming.push((key, id)),
            _ => {}
        }
        Ok(())
    })?;
    let key = found.unwrap_or(next.next_session);
    let mut journal = Journal::new(key, next.next_message.0);
    for (_, id) in incoming {
        journal.restore_incoming(id);
    }
    let reader = store.reader();
    let mut flows = Vec::with_capacity(entries.len());
    for (_, position, entry) in entries {
        let (id, released) = match entry.state {
            EntryState::Sent(id) => (id, false),
            EntryState::Released(id) => (id, true),
            EntryState::Waiting => continue, // a client has none
        };
        let message = match entry.message {
            Some(id) => reader.messages(&[id])?.pop().flatten(),
            None => None,
        };
        let Some(number) = NonZeroU64::new(position.0).filter(|_| released || message.is_some())
        else {
            log::warn!("a stored message is not there any more");
            continue;
        };
        journal.restore(number, id, released);
        flows.push(Inflight {
            id,
            message: Arc::new(publication(message, entry.qos)),
            qos: entry.qos,
            released,
        });
    }
    let record = found.is_none().then(|| {
        let record = SessionRecord {
            client_id: client_id.clone(),
            user: None,
            listener: LISTENER.into(),
            version,
            expiry_seconds: u32::MAX,
            disconnected_at: None,
            will: None,
        };
        (key, Box::new(record))
    });
    Ok(Restored {
        journal,
        flows,
        record,
    })
}

/// A message that was read back; `None`: the server has it, and only the rest of its flow is left.
fn publication(record: Option<MessageRecord>, qos: QoS) -> Publication {
    let expires_at = record.as_ref().and_then(|record| record.expires_at);
    let message = record.map(|record| record.message);
    let message = message.as_deref();
    Publication {
        topic: message.map_or_else(ByteString::new, |message| message.topic.as_str().into()),
        payload: message.map_or_else(Bytes::new, |message| message.payload.clone()),
        qos,
        retain: message.is_some_and(|message| message.retain),
        properties: message.and_then(|message| message.properties.clone()),
        expires_at,
        restored: true,
        slot: Slot::new(),
    }
}

/// Stands for the listener in the records of a client, and is none of a broker.
const LISTENER: &str = "\u{1}client";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ConnectOptions;
    use crate::client::handshake;
    use crate::net::url::Endpoint;
    use crate::store::{Request, StoreInbox};

    fn with_inbox() -> (Arc<Shared>, StoreInbox<Release>) {
        let options = ConnectOptions::new();
        let endpoint = Endpoint::parse("mem://nobody").unwrap();
        let dial = handshake::dial_options(&options, &endpoint).unwrap();
        let shared = Shared::new(options, endpoint, dial, "id".into());
        let (handle, inbox) = channel();
        let mut core = shared.lock();
        core.store = Some(ClientStore {
            handle,
            thread: thread::spawn("nothing", 0, || ()).unwrap(),
            sequence: 0,
            hold_until: 0,
            durable: 0,
            in_trouble: false,
            failed: None,
        });
        let key = SessionKey(1);
        core.session
            .restore(Journal::new(key, NonZeroU64::MIN), Vec::new());
        drop(core);
        (shared, inbox)
    }

    fn publish(shared: &Shared, qos: QoS) {
        let mut core = shared.lock();
        let message = Arc::new(Publication {
            topic: "t".into(),
            ..publication(None, qos)
        });
        core.session.publish(&message, &mut OutBuf::new()).unwrap();
        core.stage();
    }

    /// The number of the next commit, and how many changes it has.
    fn next(inbox: &StoreInbox<Release>) -> Option<(u64, usize)> {
        match inbox.try_next()? {
            Request::Commit(commit) => Some((commit.sequence, commit.changes.len())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_while_a_commit_is_written_is_the_next_one() {
        let (shared, inbox) = with_inbox();
        for _ in 0..11 {
            publish(&shared, QoS::AtLeastOnce);
        }
        assert_eq!((next(&inbox), next(&inbox)), (Some((1, 2)), None));
        assert!(!shared.lock().is_holding());
        publish(&shared, QoS::ExactlyOnce);
        assert!(
            shared.lock().is_holding(),
            "before it is sent to be written"
        );
        shared.on_durable(1, Vec::new());
        assert_eq!((next(&inbox), next(&inbox)), (Some((2, 22)), None));
        assert!(shared.lock().is_holding(), "until it is written");
        shared.on_durable(2, Vec::new());
        assert!(!shared.lock().is_holding());
        assert_eq!(next(&inbox), None);
    }

    /// There they are merged: a message that came and went takes no room.
    #[test]
    fn while_the_disk_is_full_the_stores_thread_gets_all() {
        let (shared, inbox) = with_inbox();
        publish(&shared, QoS::AtLeastOnce);
        let trouble = StoreEvent::Trouble(crate::store::Trouble::Full, "full".into());
        handle_event(&Arc::downgrade(&shared), trouble);
        publish(&shared, QoS::AtLeastOnce);
        assert_eq!((next(&inbox), next(&inbox)), (Some((1, 2)), Some((2, 2))));
        handle_event(&Arc::downgrade(&shared), StoreEvent::Healed);
        publish(&shared, QoS::AtLeastOnce);
        assert_eq!(next(&inbox), None);
    }

    #[test]
    fn what_is_collected_is_written_at_the_end() {
        let (shared, inbox) = with_inbox();
        publish(&shared, QoS::AtLeastOnce);
        publish(&shared, QoS::AtLeastOnce);
        shared.close_store();
        assert_eq!((next(&inbox), next(&inbox)), (Some((1, 2)), Some((2, 2))));
        assert!(matches!(inbox.try_next(), Some(Request::Stop)));
    }
}
