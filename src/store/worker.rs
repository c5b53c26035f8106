//! The store's thread: what waits is merged, written with one sync, and then released.

use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};

use super::{
    ChangeSet, Commit, MessageReader, MessageRecord, Read, Request, SnapshotReply, Store,
    StoreError, StoreInbox,
};
use crate::thread::{spawn, spawn_critical};

/// When a commit counts as done, and its releases may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is synced. What waits meanwhile is written next, all of it with one sync.
    #[default]
    Group,
    /// At once. What came since the last write is written and synced when this time has passed, and at the end: a crash
    /// takes back at most this much.
    Interval(Duration),
}

impl Durability {
    /// `none` of the settings: nothing waits for the disk; what changed is written every 5 seconds and at the end.
    pub const NONE: Self = Self::Interval(Duration::from_secs(5));
}

/// How a store's thread works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// When a commit counts as done.
    pub durability: Durability,
    /// How long after a failed write the next one is tried, 1 second.
    pub retry_after: Duration,
}

/// What a store's thread tells.
#[derive(Debug)]
pub enum StoreEvent<R> {
    /// All commits up to this one count as done, and this waited for them.
    Durable {
        /// Of the last of them.
        sequence: u64,
        /// In the order in which they were sent.
        releases: Vec<R>,
    },
    /// The answer to a read.
    Read {
        /// Of the request.
        token: u64,
        /// In the order of the request; `None`: there is no such message.
        result: Result<Vec<Option<MessageRecord>>, StoreError>,
    },
    /// Nothing can be written, and nothing is released until [`StoreEvent::Healed`]. It is tried again and again; told
    /// once, and again if the kind changes. The text says what the system says.
    Trouble(Trouble, String),
    /// Writing works again, and all that waited is written.
    Healed,
    /// A sync failed: what the system had taken may be gone, and only a new start reads what is there. The thread ends.
    SyncFailed(StoreError),
}

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No room.
    Full,
    /// Anything else.
    Failing,
}

/// Commits that wait for their write: the store's thread without the thread.
#[derive(Debug)]
pub struct GroupCommit<R> {
    durability: Durability,
    set: ChangeSet,
    /// Of the last commit taken.
    sequence: u64,
    released: u64,
    releases: Vec<R>,
    release_bytes: usize,
    trouble: Option<Trouble>,
}

/// Who is told what happens. It is called on the store's threads and must not block.
pub type StoreHandler<R> = Arc<dyn Fn(StoreEvent<R>) + Send + Sync>;

impl StoreOptions {
    /// With the default for all the rest.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self {
            durability,
            retry_after: Duration::from_secs(1),
        }
    }
}

impl From<Durability> for StoreOptions {
    fn from(durability: Durability) -> Self {
        Self::new(durability)
    }
}

impl<R> GroupCommit<R> {
    /// Nothing waits.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self {
            durability,
            set: ChangeSet::new(),
            sequence: 0,
            released: 0,
            releases: Vec::new(),
            release_bytes: 0,
            trouble: None,
        }
    }

    /// Merges a commit with those that wait.
    pub fn take(&mut self, commit: Commit<R>) {
        self.set.extend(commit.changes);
        self.sequence = commit.sequence;
        self.releases.extend(commit.releases);
        self.release_bytes = self.release_bytes.saturating_add(commit.release_bytes);
    }

    /// What waits to be written.
    #[must_use]
    pub fn waiting(&self) -> &ChangeSet {
        &self.set
    }

    /// What waits takes so much of the memory, in bytes, about.
    fn size_bytes(&self) -> usize {
        self.set.size_bytes().saturating_add(self.release_bytes)
    }

    /// Why nothing could be written.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// What may leave before anything is written: all if nothing is to be written, or if commits do not wait for it.
    /// `None` if nothing may, or nothing is there.
    #[must_use]
    pub fn release(&mut self) -> Option<StoreEvent<R>> {
        let at_once = self.set.is_empty() || matches!(self.durability, Durability::Interval(_));
        (at_once && self.trouble.is_none()).then(|| self.done())?
    }

    /// Writes what waits; `emit` is told what came of it.
    ///
    /// # Errors
    /// [`StoreError`]: `emit` knows already. After [`StoreError::Sync`] neither this nor the store may be used again.
    ///
    /// # Blocking
    /// As [`Store::write`].
    pub fn write(
        &mut self,
        store: &mut dyn Store,
        emit: &mut dyn FnMut(StoreEvent<R>),
    ) -> Result<(), StoreError> {
        if !self.set.is_empty() {
            match store.write(&self.set) {
                Ok(()) => self.set = ChangeSet::new(),
                Err(error) => {
                    self.set.doubt();
                    self.report(&error, emit);
                    return Err(error);
                }
            }
        }
        if self.trouble.take().is_some() {
            emit(StoreEvent::Healed);
        }
        if let Some(event) = self.done() {
            emit(event);
        }
        Ok(())
    }

    fn report(&mut self, error: &StoreError, emit: &mut dyn FnMut(StoreEvent<R>)) {
        let trouble = match error {
            StoreError::Sync(_) => return,
            StoreError::Full(_) => Trouble::Full,
            _ => Trouble::Failing,
        };
        if self.trouble.replace(trouble) != Some(trouble) {
            emit(StoreEvent::Trouble(trouble, error.to_string()));
        }
    }

    fn done(&mut self) -> Option<StoreEvent<R>> {
        if self.released == self.sequence {
            return None;
        }
        self.released = self.sequence;
        self.release_bytes = 0;
        Some(StoreEvent::Durable {
            sequence: self.sequence,
            releases: mem::take(&mut self.releases),
        })
    }
}

impl<R: Send + 'static> StoreInbox<R> {
    /// Serves the requests until every handle is dropped, or one said stop; all is written and synced then. To be run on
    /// a critical thread called `store`; reads are served on another one, `store-read`.
    ///
    /// After a failed sync it tells so and returns: the caller's `handler` decides, and a broker ends with
    /// [`EXIT_STORE`](crate::thread::EXIT_STORE).
    ///
    /// # Blocking
    /// As long as it runs.
    pub fn run(
        self,
        store: Box<dyn Store>,
        options: impl Into<StoreOptions>,
        handler: StoreHandler<R>,
    ) {
        let options = options.into();
        *self.shared.durability.lock() = Some(options.durability);
        self.shared
            .size_bytes
            .store(store.size_bytes(), Ordering::Relaxed);
        let left_over = self.serve_reads(&*store, &handler);
        let worker = Worker {
            group: GroupCommit::new(options.durability),
            reader: store.reader(),
            inbox: self,
            store,
            options,
            handler,
            left_over: Some(left_over),
            waiting_bytes: 0,
            write_at: None,
            broken: false,
        };
        worker.run();
    }

    /// Starts the thread for reads; what it does not find comes back through the channel.
    fn serve_reads(&self, store: &dyn Store, handler: &StoreHandler<R>) -> Receiver<Option<Read>> {
        #[expect(
            clippy::disallowed_methods,
            reason = "holds what the channel of reads held"
        )]
        let (to_left_over, left_over) = crossbeam_channel::unbounded();
        let reads = self.reads.clone();
        let reader = store.reader();
        let tell = Arc::clone(handler);
        let started = spawn_critical("store-read", move || {
            for read in reads.iter().map_while(|read| read) {
                match reader.messages(&read.ids) {
                    Ok(messages) if messages.iter().any(Option::is_none) => {
                        let _ = to_left_over.send(Some(read));
                    }
                    result => tell(StoreEvent::Read {
                        token: read.token,
                        result,
                    }),
                }
            }
        });
        match started {
            Ok(_) => left_over,
            // The store's thread answers all of them then.
            Err(_) => self.reads.clone(),
        }
    }
}

/// The store's thread at work.
struct Worker<R> {
    inbox: StoreInbox<R>,
    store: Box<dyn Store>,
    reader: Box<dyn MessageReader>,
    options: StoreOptions,
    handler: StoreHandler<R>,
    group: GroupCommit<R>,
    /// Reads of what is not on disk yet, until the thread for reads ends.
    left_over: Option<Receiver<Option<Read>>>,
    /// Of the store's backlog, what was taken and is not written.
    waiting_bytes: usize,
    /// When to write at the latest, or to try again.
    write_at: Option<Instant>,
    /// A sync failed.
    broken: bool,
}

/// What woke the store's thread.
enum Woken<R> {
    Request(Request<R>),
    Read(Read),
    ReadsEnded,
    Deadline,
    Ended,
}

impl<R> Worker<R> {
    fn run(mut self) {
        loop {
            let goes_on = match self.wait() {
                Woken::Request(request) => self.take(request) && self.take_waiting(),
                Woken::Read(read) => {
                    let goes_on = self.take_waiting();
                    self.answer(&read);
                    goes_on
                }
                Woken::ReadsEnded => {
                    self.left_over = None;
                    true
                }
                Woken::Deadline => true,
                Woken::Ended => false,
            };
            self.settle(!goes_on);
            if self.broken {
                return;
            }
            if !goes_on {
                break;
            }
        }
        // Ends with the thread for reads, which had its own stop or lost its last sender.
        for read in self.left_over.iter().flatten().map_while(|read| read) {
            self.answer(&read);
        }
    }

    fn wait(&self) -> Woken<R> {
        let deadline = self.write_at.map_or_else(never, crossbeam_channel::at);
        let left_over = self.left_over.clone().unwrap_or_else(never);
        select! {
            recv(self.inbox.requests) -> request => request.map_or(Woken::Ended, Woken::Request),
            recv(left_over) -> read => match read {
                Ok(Some(read)) => Woken::Read(read),
                _ => Woken::ReadsEnded,
            },
            recv(deadline) -> _ => Woken::Deadline,
        }
    }

    /// Takes what waits now. `false`: it is time to end.
    fn take_waiting(&mut self) -> bool {
        // Not more, or a busy owner could keep all that it sent from being written.
        for _ in 0..self.inbox.requests.len() {
            let Ok(request) = self.inbox.requests.try_recv() else {
                break;
            };
            if !self.take(request) {
                return false;
            }
        }
        true
    }

    fn take(&mut self, request: Request<R>) -> bool {
        match request {
            Request::Commit(commit) => {
                self.inbox.shared.commits.fetch_add(1, Ordering::Relaxed);
                self.waiting_bytes = self.waiting_bytes.saturating_add(commit.size_bytes());
                self.group.take(commit);
            }
            Request::Read(read) => self.answer(&read),
            Request::Snapshot(path, reply) => self.snapshot(&path, reply),
            Request::Stop => return false,
        }
        true
    }

    /// Writes and releases what is due.
    #[expect(clippy::disallowed_methods, reason = "the thread's own loop")]
    fn settle(&mut self, at_end: bool) {
        if self.broken {
            return;
        }
        if let Some(event) = self.group.release() {
            self.tell(event);
        }
        if self.group.waiting().is_empty() && self.group.trouble().is_none() {
            self.write_at = None;
            self.wait_with(0);
            return;
        }
        let now = Instant::now();
        if self.write_at.is_none()
            && let Durability::Interval(interval) = self.options.durability
        {
            self.write_at = Some(now + interval);
        }
        if self.group.trouble().is_none() && self.inbox.shared.backlog.is_half_full() {
            self.write_at = Some(now);
        }
        if at_end || self.write_at.is_none_or(|write_at| write_at <= now) {
            self.write();
        }
    }

    /// Writes what waits.
    #[expect(clippy::disallowed_methods, reason = "the thread's own loop")]
    fn write(&mut self) {
        let messages = self.group.waiting().messages();
        let messages = messages.filter(|(_, record)| record.is_some()).count() as u64;
        let shared = Arc::clone(&self.inbox.shared);
        let handler = &self.handler;
        let done = self.group.write(&mut *self.store, &mut |event| {
            shared.set_state(None);
            tell(&shared, handler, event);
        });
        shared.set_state(self.group.trouble());
        match done {
            Ok(()) => {
                self.write_at = None;
                shared.syncs.fetch_add(1, Ordering::Relaxed);
                shared.messages.fetch_add(messages, Ordering::Relaxed);
                let size_bytes = self.store.size_bytes();
                shared.size_bytes.store(size_bytes, Ordering::Relaxed);
                self.wait_with(0);
            }
            Err(StoreError::Sync(error)) => {
                self.broken = true;
                self.tell(StoreEvent::SyncFailed(StoreError::Sync(error)));
            }
            Err(_) => {
                self.write_at = Some(Instant::now() + self.options.retry_after);
                // Some of it came to nothing when it was merged.
                self.wait_with(self.group.size_bytes());
            }
        }
    }

    /// Of what was taken, so much waits still.
    fn wait_with(&mut self, bytes: usize) {
        let done = self.waiting_bytes.saturating_sub(bytes);
        if done > 0 {
            self.waiting_bytes -= done;
            self.inbox.shared.backlog.remove(done);
        }
    }

    /// Answers a read of what may not be on disk yet.
    fn answer(&self, read: &Read) {
        let mut result = self.reader.messages(&read.ids);
        if let Ok(messages) = &mut result {
            for (id, message) in read.ids.iter().zip(messages) {
                if message.is_none() {
                    *message = self.group.waiting().message(*id).flatten().cloned();
                }
            }
        }
        let token = read.token;
        self.tell(StoreEvent::Read { token, result });
    }

    fn snapshot(&mut self, path: &Path, reply: SnapshotReply) {
        if !self.group.waiting().is_empty() && !self.broken {
            self.write();
        }
        if !self.group.waiting().is_empty() {
            reply(Err(StoreError::Refused(
                "the store cannot be written now".into(),
            )));
            return;
        }
        let snapshot = match self.store.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => return reply(Err(error)),
        };
        let path = path.to_owned();
        let copied = spawn("store-copy", 0, move || reply(snapshot.copy_to(&path)));
        if let Err(error) = copied {
            log::warn!("the thread for a copy of the store cannot be started: {error}");
        }
    }

    fn tell(&self, event: StoreEvent<R>) {
        tell(&self.inbox.shared, &self.handler, event);
    }
}

fn tell<R>(shared: &super::inbox::Shared, handler: &StoreHandler<R>, event: StoreEvent<R>) {
    let sequence = match event {
        StoreEvent::Durable { sequence, .. } => Some(sequence),
        _ => None,
    };
    handler(event);
    if let Some(sequence) = sequence {
        shared.durable.store(sequence, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
