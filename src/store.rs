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

mod change;
mod record;

use std::fmt;

pub use change::{Change, ChangeSet};
pub use record::{
    EntryRecord, EntryState, MessageRecord, PublisherRecord, RetainedRecord, SessionRecord,
    SubscriptionRecord, WallTime, WillRecord,
};

use crate::proto::PacketId;
use bytestring::ByteString;

/// Names a stored session. Given in sequence and never used again in the life of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// Names a stored message, however many sessions queue it. Given in sequence and never used again in the life of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub std::num::NonZeroU64);

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
    /// The first key that no session ever had.
    pub next_session: SessionKey,
    /// The first identifier that no message ever had.
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
}
