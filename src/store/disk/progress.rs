//! How far a store has come, and how far it is known to have come.
//!
//! After a crash the database takes the last commit that matches its checksums. If the very last one does not, it was being
//! written at the crash, or it was durable and is damaged: the file alone cannot tell. So every write counts in table `meta`,
//! and once it is synced, and before anybody is told that it is, the count goes to a small file beside the store too. That
//! file is written without a sync: after a power cut it may say less than the store has, but never more.
//!
//! ```text
//!   <store>.durable = store (8, big-endian) │ writes (8) │ CRC-32 (4)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};

use super::encoding::Value;
use super::fields::{Fields, Opened, crc32};
use super::medium::{beside, sync_directory};

/// How far a store has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// A random name of the store: another one that took its place in the file system is not meant.
    pub(super) store: u64,
    pub(super) writes: u64,
}

/// The bytes of the file.
pub(super) type Note = [u8; 20];

impl Progress {
    /// That of a new store.
    pub(super) fn new() -> Self {
        let mut name = [0; 8];
        // Without randomness every store has the same name: what took its place must not be older then.
        let _ = SystemRandom::new().fill(&mut name);
        Self {
            store: u64::from_be_bytes(name),
            writes: 0,
        }
    }

    pub(super) fn next(self) -> Self {
        Self {
            writes: self.writes + 1,
            ..self
        }
    }

    /// This is what is left of a store that was further once.
    pub(super) fn is_behind(self, known: Self) -> bool {
        self.store == known.store && self.writes < known.writes
    }

    pub(super) fn note(self) -> Note {
        let mut note = [0; 20];
        note[..8].copy_from_slice(&self.store.to_be_bytes());
        note[8..16].copy_from_slice(&self.writes.to_be_bytes());
        let crc = crc32(&[&note[..16]]);
        note[16..].copy_from_slice(&crc.to_be_bytes());
        note
    }

    /// `None`: nothing that is written like this.
    pub(super) fn of_note(note: &[u8]) -> Option<Self> {
        let note: &Note = note.try_into().ok()?;
        let number = |at: usize| Some(u64::from_be_bytes(*note.get(at..)?.first_chunk()?));
        let read = Self {
            store: number(0)?,
            writes: number(8)?,
        };
        (read.note() == *note).then_some(read)
    }
}

impl Value for Progress {
    fn write(&self, to: &mut Fields) {
        to.number(self.store).number(self.writes);
    }

    fn read(from: &mut Opened) -> Option<Self> {
        Some(Self {
            store: from.number()?,
            writes: from.number()?,
        })
    }
}

/// The file beside a store. It is made with the first write.
#[derive(Debug)]
pub(super) struct NoteFile {
    path: PathBuf,
    opened: Mutex<Opening>,
}

#[derive(Debug)]
enum Opening {
    NotYet,
    Done(File),
    /// It was told in the log, and is not tried again.
    Failed,
}

impl NoteFile {
    pub(super) fn of(store: &Path) -> Self {
        Self {
            path: beside(store, ".durable"),
            opened: Mutex::new(Opening::NotYet),
        }
    }

    /// What was written last. `None`: nothing, or nothing that can be read.
    pub(super) fn read(&self) -> Option<Progress> {
        let bytes = fs::read(&self.path).ok()?;
        let read = Progress::of_note(&bytes);
        if read.is_none() && !bytes.is_empty() {
            let path = self.path.display();
            log::warn!(
                "{path} makes no sense: whether the last write to the store is there cannot be told"
            );
        }
        read
    }

    /// Writes it down, for a power cut only if the system comes to it. What fails is told in the log, once.
    pub(super) fn write(&self, progress: Progress) {
        let mut opened = self.opened.lock();
        if matches!(*opened, Opening::NotYet) {
            *opened = match self.open(progress) {
                Ok(file) => Opening::Done(file),
                Err(error) => self.failed(&error),
            };
            return;
        }
        if let Opening::Done(file) = &*opened
            && let Err(error) = file.write_all_at(&progress.note(), 0)
        {
            *opened = self.failed(&error);
        }
    }

    /// Has what was written reach the disk.
    pub(super) fn sync(&self) {
        if let Opening::Done(file) = &*self.opened.lock() {
            let _ = file.sync_data();
        }
    }

    /// Durable from the start, so that it is never found empty.
    fn open(&self, progress: Progress) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).mode(0o600);
        let file = options.open(&self.path)?;
        file.write_all_at(&progress.note(), 0)?;
        file.set_len(progress.note().len() as u64)?;
        file.sync_all()?;
        sync_directory(&self.path)?;
        Ok(file)
    }

    fn failed(&self, error: &io::Error) -> Opening {
        let path = self.path.display();
        log::warn!(
            "{path} cannot be written: if the last write to the store is damaged later, it will not be noticed: {error}"
        );
        Opening::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_and_a_damaged_one_does_not() {
        let progress = Progress {
            store: 0x0123_4567_89AB_CDEF,
            writes: 77,
        };
        let note = progress.note();
        assert_eq!(Progress::of_note(&note), Some(progress));
        assert_eq!(Progress::of_note(&[]), None);
        assert_eq!(Progress::of_note(&[0; 20]), None);
        for at in 0..note.len() {
            let mut damaged = note;
            damaged[at] ^= 4;
            assert_eq!(Progress::of_note(&damaged), None, "{at}");
            assert_eq!(Progress::of_note(&note[..at]), None, "{at}");
        }
    }

    #[test]
    fn only_the_same_store_can_be_behind() {
        let known = Progress {
            store: 1,
            writes: 5,
        };
        for (store, writes, expected) in [(1, 4, true), (1, 5, false), (1, 6, false), (2, 4, false)]
        {
            assert_eq!(Progress { store, writes }.is_behind(known), expected);
        }
    }
}
