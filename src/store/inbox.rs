//! The way to the store's thread: what may be asked of it, and how it is doing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use super::{Backlog, Change, Commit, Durability, MessageId, StoreError, Trouble};

/// Whom to tell how a snapshot went.
pub type SnapshotReply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// What is asked of a store's thread.
pub enum Request<R> {
    /// Changes to be written.
    Commit(Commit<R>),
    /// Messages to be read.
    Read(Read),
    /// The state after all commits before, to be written into a new store at this path.
    Snapshot(PathBuf, SnapshotReply),
    /// Write all, and end.
    Stop,
}

/// A request for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Comes back with the answer.
    pub token: u64,
    /// The messages, in the order in which they are wanted.
    pub ids: Vec<MessageId>,
}

/// The way to a store's thread. Clones lead to the same one; when the last is dropped, all is written and it ends.
///
/// No call waits: the channels are unbounded, because the owner of the state must never wait for a disk.
#[derive(Debug)]
pub struct StoreHandle<R> {
    requests: Sender<Request<R>>,
    reads: Sender<Option<Read>>,
    shared: Arc<Shared>,
}

/// Where the requests arrive. Its [`run`](StoreInbox::run) is the store's thread; a simulation takes them one by one.
#[derive(Debug)]
pub struct StoreInbox<R> {
    pub(super) requests: Receiver<Request<R>>,
    /// `None`: end.
    pub(super) reads: Receiver<Option<Read>>,
    pub(super) shared: Arc<Shared>,
}

/// How a store is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStatus {
    /// When commits count as done. `None`: the store's thread has not begun.
    pub durability: Option<Durability>,
    /// Whether it can be written.
    pub state: StoreState,
    /// Commits that were taken.
    pub commits: u64,
    /// Writes, each with its sync, that succeeded.
    pub syncs: u64,
    /// Messages that were written.
    pub messages: u64,
    /// What it takes on disk, in bytes, after the last write.
    pub size_bytes: u64,
    /// What waits to be written, in bytes of memory.
    pub unwritten_bytes: usize,
}

/// Whether a store can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StoreState {
    /// The last write succeeded.
    Ok = 0,
    /// There is no room.
    Full = 1,
    /// Writes fail.
    Failing = 2,
}

/// What the store's thread says of itself.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) durable: AtomicU64,
    pub(super) durability: Mutex<Option<Durability>>,
    state: AtomicU8,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) size_bytes: AtomicU64,
    pub(super) backlog: Arc<Backlog>,
}

/// A way to a store's thread, and where it ends.
#[must_use]
pub fn channel<R>() -> (StoreHandle<R>, StoreInbox<R>) {
    channel_with(Arc::default())
}

/// The same; what waits is counted in `backlog`.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the owner of the state must never wait for the disk; the backlog stops those who bring it more"
)]
pub fn channel_with<R>(backlog: Arc<Backlog>) -> (StoreHandle<R>, StoreInbox<R>) {
    let (to_requests, requests) = crossbeam_channel::unbounded();
    let (to_reads, reads) = crossbeam_channel::unbounded();
    let shared = Arc::new(Shared {
        backlog,
        ..Shared::default()
    });
    let handle = StoreHandle {
        requests: to_requests,
        reads: to_reads,
        shared: Arc::clone(&shared),
    };
    let inbox = StoreInbox {
        requests,
        reads,
        shared,
    };
    (handle, inbox)
}

impl<R> StoreHandle<R> {
    /// Has the changes written, and the releases handed over once they are. Commits are applied in the order in which
    /// they are sent. Ignored once the store has ended.
    pub fn commit(&self, commit: Commit<R>) {
        self.commit_announced(commit, 0);
    }

    /// Has the backlog count changes that will be in the next commit. Returns how many bytes that are.
    pub fn announce(&self, changes: &[Change]) -> usize {
        let bytes = changes.iter().map(Change::size_bytes);
        let bytes = bytes.fold(0, usize::saturating_add);
        self.shared.backlog.add(bytes);
        bytes
    }

    /// As [`commit`](Self::commit), when so many bytes of it were announced.
    pub fn commit_announced(&self, commit: Commit<R>, announced: usize) {
        let rest = commit.size_bytes().saturating_sub(announced);
        self.shared.backlog.add(rest);
        let _ = self.requests.send(Request::Commit(commit));
    }

    /// What waits to be written.
    #[must_use]
    pub fn backlog(&self) -> &Backlog {
        &self.shared.backlog
    }

    /// Has messages read; the answer is a [`StoreEvent::Read`](super::StoreEvent::Read) with `token`. It does not wait
    /// behind a sync. It sees all messages of commits that were sent before, written or not; a message whose deletion is
    /// not written yet may still be found.
    pub fn read(&self, token: u64, ids: Vec<MessageId>) {
        let _ = self.reads.send(Some(Read { token, ids }));
    }

    /// The sequence of the last commit whose releases were handed over, and the handler of it has returned. 0: none.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// How the store is doing.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let shared = &self.shared;
        StoreStatus {
            durability: *shared.durability.lock(),
            state: match shared.state.load(Ordering::Relaxed) {
                0 => StoreState::Ok,
                1 => StoreState::Full,
                _ => StoreState::Failing,
            },
            commits: shared.commits.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
            messages: shared.messages.load(Ordering::Relaxed),
            size_bytes: shared.size_bytes.load(Ordering::Relaxed),
            unwritten_bytes: shared.backlog.bytes(),
        }
    }

    /// Writes the state after all commits that were sent before into a new store at `path`, which must not exist, while
    /// the store goes on. `reply` is called on another thread, or dropped if the store has ended.
    pub fn snapshot(&self, path: PathBuf, reply: SnapshotReply) {
        let _ = self.requests.send(Request::Snapshot(path, reply));
    }

    /// Has all written that was sent before, and the store's thread end. What is sent later is ignored.
    pub fn stop(&self) {
        let _ = self.requests.send(Request::Stop);
        let _ = self.reads.send(None);
    }
}

impl<R> Clone for StoreHandle<R> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            reads: self.reads.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<R> StoreInbox<R> {
    /// The next request that waits, for who plays the store's thread: in the order in which they were sent, but reads
    /// only when nothing else waits.
    #[must_use]
    pub fn try_next(&self) -> Option<Request<R>> {
        if let Ok(request) = self.requests.try_recv() {
            return Some(request);
        }
        let read = self.reads.try_iter().flatten().next();
        read.map(Request::Read)
    }

    /// Sets what [`StoreHandle::durable`] says, for who plays the store's thread.
    pub fn set_durable(&self, sequence: u64) {
        self.shared.durable.store(sequence, Ordering::Release);
    }

    /// Sets what [`StoreHandle::status`] says of writing, for who plays the store's thread.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        self.shared.set_state(trouble);
    }

    /// Nothing waits here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.reads.is_empty()
    }
}

impl Shared {
    pub(super) fn set_state(&self, trouble: Option<Trouble>) {
        let state = match trouble {
            None => StoreState::Ok,
            Some(Trouble::Full) => StoreState::Full,
            Some(Trouble::Failing) => StoreState::Failing,
        };
        self.state.store(state as u8, Ordering::Relaxed);
    }
}

impl StoreStatus {
    /// Messages per sync, on average; 0 before the first.
    #[must_use]
    pub fn messages_per_sync(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        let average = self.messages as f64 / self.syncs.max(1) as f64;
        average
    }
}

impl<R> std::fmt::Debug for Request<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Commit(commit) => write!(f, "Commit({})", commit.sequence),
            Self::Read(read) => read.fmt(f),
            Self::Snapshot(path, _) => write!(f, "Snapshot({})", path.display()),
            Self::Stop => f.write_str("Stop"),
        }
    }
}
