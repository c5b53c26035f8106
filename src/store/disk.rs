//! A store on disk: one file, an embedded transactional database.
//!
//! ```text
//!   meta            "format"                       → number
//!                   "progress"                     → Progress
//!   sessions        session                        → SessionRecord
//!   subscriptions   session, filter                → SubscriptionRecord
//!   incoming        session, packet identifier     → nothing
//!   entries         session, position              → EntryRecord
//!   messages        message                        → MessageRecord
//!   retained        topic                          → RetainedRecord
//! ```
//!
//! Every value carries a checksum over its table, its key and itself. A write is one transaction with one sync at its end;
//! a crash at any moment leaves the state before or after it, which the database itself sees to (what is new goes to free
//! pages, and the header has two places for the root of all). The file is made for its owner alone, and locked while it is
//! open.

mod check;
mod copy;
mod encoding;
mod fields;
mod medium;
mod progress;
mod salvage;
mod table;
mod transactions;

use std::cell::Cell;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadableDatabase};

use self::medium::{Fault, FileMedium, Medium, Watch, Watched};
use self::progress::Progress;
use self::table::{Problem, Table};
use self::transactions::{apply, load};
use super::{
    ChangeSet, Damage, Identifiers, Loaded, MessageId, MessageReader, MessageRecord, Snapshot,
    Store, StoreError,
};
use crate::thread::panic_text;

pub use self::check::{Contents, Rows};
pub use self::salvage::{Salvaged, salvage};

/// The name of the file in a directory that is given as the place of a store.
pub const FILE_NAME: &str = "store.redb";

/// A store on disk.
#[derive(Debug)]
pub struct DiskStore {
    shared: Arc<Shared>,
    /// The last write failed for lack of room.
    was_full: bool,
    compacts_above_bytes: u64,
    /// Writes until the next compaction may be tried.
    compacts_after: u64,
}

/// The database, and what its readers need.
#[derive(Debug)]
struct Shared {
    medium: Box<dyn Medium>,
    watch: Arc<Watch>,
    /// `None` while it cannot be opened after an error. Its readers and its writer share the lock; it is taken alone only to
    /// open the database again and to compact it.
    database: RwLock<Option<Database>>,
    /// What the rows take, about, in bytes; negative until all was read.
    stored_bytes: AtomicI64,
    /// After the last write that succeeded.
    progress: Mutex<Progress>,
}

impl DiskStore {
    /// Opens the store in this file, or makes one, with the directories above it, if there is none. Only the owner may
    /// read it.
    ///
    /// # Errors
    /// [`StoreError::Locked`]: another process has it open. [`StoreError::Newer`]: a newer version made it.
    /// [`StoreError::Damaged`]: it cannot be read. [`StoreError::Open`], and errors of reading and writing.
    ///
    /// # Blocking
    /// After a crash, until the whole file is read.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        if !file.exists() {
            create(file)?;
        }
        Self::open_existing(file)
    }

    /// As [`open`](Self::open), but makes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`StoreError::Missing`].
    pub fn open_existing(file: &Path) -> Result<Self, StoreError> {
        if !file.exists() {
            return Err(StoreError::Missing(file.into()));
        }
        Self::on(Box::new(FileMedium::new(file)))
    }

    /// The store on a medium; an empty one becomes a store.
    fn on(medium: Box<dyn Medium>) -> Result<Self, StoreError> {
        let shared = Shared {
            medium,
            watch: Arc::default(),
            database: RwLock::new(None),
            stored_bytes: AtomicI64::new(-1),
            progress: Mutex::default(),
        };
        shared.open()?;
        Ok(Self {
            shared: Arc::new(shared),
            was_full: false,
            compacts_above_bytes: COMPACTS_ABOVE_BYTES,
            compacts_after: 0,
        })
    }

    /// Opens the database again after an error.
    fn recover(&mut self) -> Result<(), StoreError> {
        if self.was_full {
            self.shared
                .medium
                .try_room()
                .map_err(StoreError::of_write)?;
            self.was_full = false;
        }
        if self.shared.database.read().is_none() {
            self.shared.open()?;
        }
        Ok(())
    }

    /// Gives the file's free pages back to the system when little is left in it.
    fn compact_if_mostly_empty(&mut self) {
        self.compacts_after = self.compacts_after.saturating_sub(1);
        let stored_bytes = self.shared.stored_bytes.load(Ordering::Relaxed);
        let size_bytes = self.size_bytes();
        let Ok(stored_bytes) = u64::try_from(stored_bytes) else {
            return;
        };
        let mostly_empty = stored_bytes.saturating_mul(MOSTLY_EMPTY_PART) < size_bytes;
        if self.compacts_after > 0 || size_bytes <= self.compacts_above_bytes || !mostly_empty {
            return;
        }
        self.compacts_after = WRITES_BETWEEN_COMPACTIONS;
        let mut guard = self.shared.database.write();
        let Some(database) = guard.as_mut() else {
            return;
        };
        let compacted = database.compact();
        if let Some(fault) = self.shared.watch.take() {
            // What was written before stays; the next write finds the database closed and opens it again.
            *guard = None;
            log::warn!("the store cannot be compacted: {}", fault_error(fault));
        } else if let Err(error) = compacted {
            log::debug!("the store is not compacted now: {error}");
        } else {
            let now_bytes = self.shared.watch.size_bytes.load(Ordering::Relaxed);
            log::info!("the store is compacted from {size_bytes} to {now_bytes} bytes");
        }
    }
}

impl Store for DiskStore {
    fn write(&mut self, changes: &ChangeSet) -> Result<(), StoreError> {
        self.recover()?;
        let progress = self.shared.progress.lock().next();
        let written = self.shared.with_database(|database| {
            let growth = apply(database, changes, progress)?;
            if self.shared.stored_bytes.load(Ordering::Relaxed) >= 0 {
                self.shared
                    .stored_bytes
                    .fetch_add(growth, Ordering::Relaxed);
            }
            Ok(())
        });
        match written {
            Ok(()) => {
                *self.shared.progress.lock() = progress;
                self.shared.medium.note(progress);
                self.compact_if_mostly_empty();
            }
            Err(StoreError::Sync(_) | StoreError::Damaged(_)) => {}
            Err(ref error) => {
                self.was_full = matches!(error, StoreError::Full(_));
                *self.shared.database.write() = None;
                // For the readers; if it fails, the next write tries again.
                let _ = self.shared.open();
            }
        }
        written
    }

    fn load(
        &self,
        visit: &mut dyn FnMut(Loaded) -> Result<(), StoreError>,
    ) -> Result<Identifiers, StoreError> {
        // A panic of the visitor is its own business, one of the database is damage.
        let visiting = Cell::new(false);
        let mut give = |loaded| {
            visiting.set(true);
            visit(loaded).map_err(Problem::Passed)?;
            visiting.set(false);
            Ok(())
        };
        let loaded = panic::catch_unwind(AssertUnwindSafe(|| {
            self.shared
                .with_database(|database| load(&database.begin_read()?, &mut give))
        }));
        match loaded {
            Ok(loaded) => {
                let (identifiers, stored_bytes) = loaded?;
                self.shared
                    .stored_bytes
                    .store(stored_bytes, Ordering::Relaxed);
                Ok(identifiers)
            }
            Err(panic) if visiting.get() => panic::resume_unwind(panic),
            Err(panic) => Err(self.shared.broken(panic_text(&*panic))),
        }
    }

    fn reader(&self) -> Box<dyn MessageReader> {
        Box::new(DiskReader {
            shared: Arc::clone(&self.shared),
        })
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let transaction = self
            .shared
            .with_database(|database| Ok(database.begin_read()?))?;
        Ok(Box::new(copy::DiskSnapshot {
            transaction,
            shared: Arc::clone(&self.shared),
        }))
    }

    fn size_bytes(&self) -> u64 {
        self.shared.watch.size_bytes.load(Ordering::Relaxed)
    }

    fn file(&self) -> Option<&Path> {
        Some(self.shared.medium.file())
    }
}

impl Drop for DiskStore {
    /// Closes the database, although readers of it may be left.
    fn drop(&mut self) {
        *self.shared.database.write() = None;
        self.shared.medium.sync_note();
    }
}

#[derive(Debug)]
struct DiskReader {
    shared: Arc<Shared>,
}

impl MessageReader for DiskReader {
    fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<MessageRecord>>, StoreError> {
        self.shared.with_database(|database| {
            let messages = Table::Messages.read(&database.begin_read()?)?;
            let found = ids
                .iter()
                .map(|id| messages.get(&encoding::message_key(*id)));
            found.collect()
        })
    }
}

impl Shared {
    fn with_database<T>(
        &self,
        run: impl FnOnce(&Database) -> Result<T, Problem>,
    ) -> Result<T, StoreError> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or(StoreError::Closed)?;
        run(database).map_err(|problem| self.explain(problem))
    }

    /// Opens the database, which is closed, and checks that it is one of ours.
    fn open(&self) -> Result<(), StoreError> {
        let opened = panic::catch_unwind(AssertUnwindSafe(|| self.open_database()));
        let database = match opened {
            Ok(opened) => opened.map_err(|problem| self.explain(problem))?,
            Err(panic) => return Err(self.broken(panic_text(&*panic))),
        };
        *self.database.write() = Some(database);
        Ok(())
    }

    fn open_database(&self) -> Result<Database, Problem> {
        self.watch.take();
        let inner = self.medium.open().map_err(|error| {
            let file = self.medium.file().to_owned();
            Problem::Passed(StoreError::Open(Box::new((file, error))))
        })?;
        let backend = Watched {
            inner,
            watch: Arc::clone(&self.watch),
        };
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)?;
        if !has_format(&database)? {
            prepare(&database)?;
        }
        let progress = progress_of(&database)?;
        if let Some(known) = self.medium.noted()
            && progress.is_behind(known)
        {
            return Err(Problem::Passed(self.damaged(
                "the last commit".to_owned(),
                &format!(
                    "the store is as it was after write {}, but write {} was durable",
                    progress.writes, known.writes
                ),
            )));
        }
        *self.progress.lock() = progress;
        Ok(database)
    }

    fn explain(&self, problem: Problem) -> StoreError {
        let fault = self.watch.take();
        match (problem, fault) {
            (Problem::Passed(error), _) => error,
            (_, Some(fault)) => fault_error(fault),
            (Problem::Damaged { table, key, what }, _) => self.damaged(table.place(&key), what),
            (Problem::Database(error), _) => match error {
                redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                    StoreError::Locked(self.medium.file().into())
                }
                redb::Error::Corrupted(what) => self.broken(&what),
                redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.damaged("the header".to_owned(), &error.to_string())
                }
                redb::Error::Io(error) => StoreError::Read(error),
                redb::Error::DatabaseClosed | redb::Error::PreviousIo => StoreError::Closed,
                error => self.broken(&error.to_string()),
            },
        }
    }

    fn broken(&self, what: &str) -> StoreError {
        self.damaged("the structure of the database".to_owned(), what)
    }

    fn damaged(&self, place: String, what: &str) -> StoreError {
        StoreError::Damaged(Box::new(Damage {
            file: self.medium.file().to_owned(),
            place,
            what: what.to_owned(),
        }))
    }
}

fn fault_error(fault: Fault) -> StoreError {
    match fault {
        Fault::Read(error) => StoreError::Read(error),
        Fault::Write(error) => StoreError::of_write(error),
        Fault::Sync(error) => StoreError::Sync(error),
    }
}

/// Makes a store with the directories above it. It gets its name when it is complete.
fn create(file: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::Open(Box::new((file.to_owned(), error)));
    if let Some(parent) = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        let mut directories = DirBuilder::new();
        let made = directories.recursive(true).mode(0o700).create(parent);
        made.map_err(failed)?;
    }
    let new = medium::beside(file, ".new-store");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let make = || {
        drop(options.open(&new).map_err(failed)?);
        DiskStore::on(Box::new(FileMedium::new(&new))).map(drop)
    };
    match make() {
        // One that a crash left half made; nobody else has it open, or it would be locked.
        Err(StoreError::Damaged(_)) => {
            fs::remove_file(&new).map_err(failed)?;
            make()?;
        }
        made => made?,
    }
    match fs::rename(&new, file) {
        // Another process was faster, and has it open by now.
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.exists() => Ok(()),
        renamed => renamed.map_err(failed),
    }?;
    medium::sync_directory(file).map_err(failed)
}

/// The database is a store of a format that is understood. `false`: it is empty.
fn has_format(database: &Database) -> Result<bool, Problem> {
    let transaction = database.begin_read()?;
    let meta = match Table::Meta.read(&transaction) {
        Err(Problem::Database(redb::Error::TableDoesNotExist(_))) => return Ok(false),
        meta => meta?,
    };
    match meta.get::<u32>(FORMAT_KEY)? {
        Some(found) if found > FORMAT => Err(Problem::Passed(StoreError::Newer {
            found,
            known: FORMAT,
        })),
        Some(_) => Ok(true),
        None => Err(Table::Meta.damaged(FORMAT_KEY, "not there")),
    }
}

/// Makes all tables.
fn prepare(database: &Database) -> Result<(), Problem> {
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        table.write(&transaction)?;
    }
    let mut meta = Table::Meta.write(&transaction)?;
    meta.set(FORMAT_KEY, Some(&FORMAT))?;
    meta.set(PROGRESS_KEY, Some(&Progress::new()))?;
    drop(meta);
    Ok(transaction.commit()?)
}

/// How far a store has come; one that was made before this was counted begins to count.
fn progress_of(database: &Database) -> Result<Progress, Problem> {
    let meta = Table::Meta.read(&database.begin_read()?)?;
    if let Some(progress) = meta.get(PROGRESS_KEY)? {
        return Ok(progress);
    }
    let progress = Progress::new();
    let transaction = database.begin_write()?;
    Table::Meta
        .write(&transaction)?
        .set(PROGRESS_KEY, Some(&progress))?;
    transaction.commit()?;
    Ok(progress)
}

/// The format that is written, and the newest that is understood.
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
const PROGRESS_KEY: &[u8] = b"progress";
const BAD_KEY: &str = "the key makes no sense";

/// What the database may keep in memory of its pages.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A file that is not larger is not compacted.
const COMPACTS_ABOVE_BYTES: u64 = 16 * 1024 * 1024;
/// Mostly empty: the rows take less than this part of the file.
const MOSTLY_EMPTY_PART: u64 = 8;
const WRITES_BETWEEN_COMPACTIONS: u64 = 1000;

#[cfg(test)]
pub(super) mod tests;
