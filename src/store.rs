//! What must outlive the process: sessions, subscriptions, queues, flows in progress, retained messages.
//!
//! ```text
//!   router ──Commit{changes, releases}──► store thread ──ChangeSet──► Store::write (one sync) ──► releases leave
//! ```
//!
//! The owner of the state (the broker's router, the client's session) keeps it in memory and says what changed; the store
//! thread merges the changes that wait into one transaction, syncs once, and then lets go what waited for it. What a
//! change means is in [`Change`]; where it is kept, in a [`Store`].
//!
//! The state on disk is always that of some moment in the past, never a mixture: commits are applied whole and in order.

mod backlog;
mod change;
mod control;
mod disk;
mod error;
mod inbox;
mod memory;
mod record;
mod worker;

use std::fmt;
use std::path::Path;

pub use backlog::Backlog;
pub use change::{Change, ChangeSet, EntryChange};
pub use control::{Control, control_path, request_backup};
pub use disk::{Contents, DiskStore, FILE_NAME, Rows, Salvaged, salvage};
pub use error::{Damage, StoreError};
pub use inbox::{
    Read, Request, SnapshotReply, StoreHandle, StoreInbox, StoreState, StoreStatus, channel,
    channel_with,
};
pub use memory::{Failure, MemoryState, MemoryStore};
pub use record::{
    EntryRecord, EntryState, MessageRecord, PublisherRecord, ReplayRecord, RetainedRecord,
    SessionRecord, SubscriptionRecord, WallTime, WillRecord,
};
pub use worker::{Durability, GroupCommit, StoreEvent, StoreHandler, StoreOptions, Trouble};

use crate::proto::PacketId;
use bytestring::ByteString;

/// Names a stored session. Given in sequence, and not used again while the store has anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// Names a stored message, however many sessions queue it. Given in sequence, and not used again while the store has
/// anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub std::num::NonZeroU64);

impl MessageId {
    /// The identifier after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The place of an entry in its session's queue: entries are delivered in ascending order. Never used again in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

/// Where changes are kept.
pub trait Store: Send + fmt::Debug {
    /// Applies all changes, or none, and returns when no crash of the process or the machine can take them back.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was applied.
    ///
    /// # Blocking
    /// Until the disk says that all is written.
    fn write(&mut self, changes: &ChangeSet) -> Result<(), StoreError>;

    /// Reads everything back but the payloads of queued messages: first all sessions, then subscriptions, incoming
    /// packet identifiers and entries (those of one session in ascending position), then retained messages.
    ///
    /// # Errors
    /// [`StoreError`]; what the visitor returns is passed on.
    fn load(
        &self,
        visit: &mut dyn FnMut(Loaded) -> Result<(), StoreError>,
    ) -> Result<Identifiers, StoreError>;

    /// A reader of messages for another thread: it sees what was written before each call.
    fn reader(&self) -> Box<dyn MessageReader>;

    /// The state of this moment, to be copied while the store goes on.
    ///
    /// # Errors
    /// [`StoreError`].
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// What the store takes on disk, in bytes; 0: it is in memory.
    fn size_bytes(&self) -> u64;

    /// The file that the store is; `None`: it is in memory.
    fn file(&self) -> Option<&Path> {
        None
    }
}

/// The state of a moment, see [`Store::snapshot`].
pub trait Snapshot: Send {
    /// Writes the state into a new store at `path`, which must not exist. On an error nothing is left there.
    ///
    /// # Errors
    /// [`StoreError`] of this store or of the new one.
    ///
    /// # Blocking
    /// Until all is read and written.
    fn copy_to(self: Box<Self>, path: &Path) -> Result<(), StoreError>;
}

/// Reads messages whose turn has come.
pub trait MessageReader: Send + fmt::Debug {
    /// The messages with these identifiers, in this order; `None` for one that is not there.
    ///
    /// # Errors
    /// [`StoreError`]: a message cannot be read; the error names it.
    fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<MessageRecord>>, StoreError>;
}

/// One thing read back at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// A session.
    Session(SessionKey, Box<SessionRecord>),
    /// A subscription of a session, under the filter as the client wrote it.
    Subscription(SessionKey, ByteString, SubscriptionRecord),
    /// The identifier of a QoS 2 message that was received and not released yet.
    Incoming(SessionKey, PacketId),
    /// A message in a session's queue or in flight to it.
    Entry(SessionKey, Position, EntryRecord),
    /// The retained message of its topic.
    Retained(Box<RetainedRecord>),
}

/// Where the sequences of names go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifiers {
    /// Higher than the key of any session in the store.
    pub next_session: SessionKey,
    /// Higher than the identifier of any message in the store, and than any that an entry refers to.
    pub next_message: MessageId,
}

/// What the owner of the state wants written, and what may leave once it is.
#[derive(Debug)]
pub struct Commit<R> {
    /// Counts the commits of an owner from 1.
    pub sequence: u64,
    /// In the order in which they were made.
    pub changes: Vec<Change>,
    /// What waits for this commit and all before it: packets, replies.
    pub releases: Vec<R>,
    /// What the releases take of the memory, in bytes.
    pub release_bytes: usize,
}

impl<R> Commit<R> {
    /// What it takes of the memory until it is written, in bytes, about.
    pub(crate) fn size_bytes(&self) -> usize {
        let changes = self.changes.iter().map(Change::size_bytes);
        changes.fold(self.release_bytes, usize::saturating_add)
    }
}
