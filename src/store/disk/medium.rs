//! What a database stands on: a file, watched so that a failed write is told from a failed sync.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

use super::progress::{NoteFile, Progress};

/// Where a database is, to be opened again after an error.
pub(super) trait Medium: fmt::Debug + Send + Sync {
    /// The name for messages.
    fn file(&self) -> &Path;

    /// Opens what is there.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Whether there is room for a few changes, when there was none.
    fn try_room(&self) -> io::Result<()>;

    /// Notes beside the database that this is synced; the note itself is not.
    fn note(&self, progress: Progress);

    /// The last note that can be read.
    fn noted(&self) -> Option<Progress>;

    /// Has the last note reach the disk.
    fn sync_note(&self);
}

/// A file.
#[derive(Debug)]
pub(super) struct FileMedium {
    path: PathBuf,
    note: NoteFile,
}

/// The first operation that failed since it was asked for, and how large the file is.
#[derive(Debug, Default)]
pub(super) struct Watch {
    fault: Mutex<Option<Fault>>,
    pub(super) size_bytes: AtomicU64,
}

/// An operation that failed.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Write(io::Error),
    Sync(io::Error),
}

/// A backend of which [`Watch`] knows what happened.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) inner: Box<dyn StorageBackend>,
    pub(super) watch: Arc<Watch>,
}

impl FileMedium {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            note: NoteFile::of(path),
        }
    }
}

impl Medium for FileMedium {
    fn file(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        open_file(&self.path, OpenOptions::new().read(true).write(true))
    }

    fn try_room(&self) -> io::Result<()> {
        let path = beside(&self.path, ".room");
        let tried = File::create(&path).and_then(|mut file| {
            file.write_all(&vec![0xA5; ROOM_BYTES])?;
            file.sync_all()
        });
        let removed = fs::remove_file(&path);
        tried.and(removed)
    }

    fn note(&self, progress: Progress) {
        self.note.write(progress);
    }

    fn noted(&self) -> Option<Progress> {
        self.note.read()
    }

    fn sync_note(&self) {
        self.note.sync();
    }
}

/// The backend of a file.
pub(super) fn open_file(path: &Path, options: &OpenOptions) -> io::Result<Box<dyn StorageBackend>> {
    let file = options.open(path)?;
    let backend = redb::backends::FileBackend::new(file);
    Ok(Box::new(backend.map_err(io::Error::other)?))
}

/// The path of a file beside `path`, with `ending` after its name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Makes the names in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

impl Watch {
    /// What failed first since the last call.
    pub(super) fn take(&self) -> Option<Fault> {
        self.fault.lock().take()
    }

    fn note<T>(&self, result: io::Result<T>, fault: fn(io::Error) -> Fault) -> io::Result<T> {
        result.inspect_err(|error| {
            self.fault.lock().get_or_insert_with(|| fault(copy(error)));
        })
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        let size_bytes = self.watch.note(self.inner.len(), Fault::Read)?;
        self.watch.size_bytes.store(size_bytes, Ordering::Relaxed);
        Ok(size_bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.watch.note(self.inner.read(offset, out), Fault::Read)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch.note(self.inner.set_len(len), Fault::Write)?;
        self.watch.size_bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watch.note(self.inner.sync_data(), Fault::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.watch
            .note(self.inner.write(offset, data), Fault::Write)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// What must fit before a full disk is taken for one with room again.
const ROOM_BYTES: usize = 1024 * 1024;
