//! A disk in memory that remembers every operation, so that a crash at any of them can be looked at: what was not synced is
//! there or not, sector by sector. Notes are never synced: any one of them may be what is left.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::store::disk::medium::Medium;
use crate::store::disk::progress::Progress;

/// A disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct CrashDisk(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    /// All operations since the disk was made, or since it was told to forget.
    log: Vec<Operation>,
    /// Where the log begins.
    before: Vec<u8>,
    noted: Option<Progress>,
    noted_before: Option<Progress>,
    failures: BTreeMap<usize, io::ErrorKind>,
    has_no_room: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Operation {
    Write(usize, Vec<u8>),
    SetLength(usize),
    Sync,
    Note(Progress),
}

/// Random numbers for a seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Splitmix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

impl CrashDisk {
    pub(super) fn with_bytes(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.0.lock().before = bytes.clone();
        disk.0.lock().bytes = bytes;
        disk
    }

    /// As it is now, but with other bytes.
    pub(super) fn with_other_bytes(&self, bytes: Vec<u8>) -> Self {
        let other = Self::with_bytes(bytes);
        let noted = self.0.lock().noted;
        other.0.lock().noted = noted;
        other.0.lock().noted_before = noted;
        other
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }

    /// Begins the log anew.
    pub(super) fn forget(&self) {
        let mut disk = self.0.lock();
        disk.before = disk.bytes.clone();
        disk.noted_before = disk.noted;
        disk.log.clear();
    }

    /// The number of operations in the log.
    pub(super) fn operations(&self) -> usize {
        self.0.lock().log.len()
    }

    /// Has the operation after this many more fail.
    pub(super) fn fail_after(&self, operations: usize, kind: io::ErrorKind) {
        let mut disk = self.0.lock();
        let at = disk.log.len() + operations;
        disk.failures.insert(at, kind);
    }

    /// Whether anything more fits; what is there can be overwritten in any case.
    pub(super) fn set_room(&self, has_room: bool) {
        self.0.lock().has_no_room = !has_room;
    }

    /// What a machine finds that stopped after so many operations: all that was synced, and of the rest what `random` says.
    pub(super) fn crash(&self, operations: usize, random: &mut Random) -> Self {
        let disk = self.0.lock();
        let done = &disk.log[..operations];
        let is_sync = |operation: &Operation| matches!(operation, Operation::Sync);
        let synced = done.iter().rposition(is_sync).map_or(0, |at| at + 1);
        let mut bytes = disk.before.clone();
        for operation in &done[..synced] {
            operation.apply(&mut bytes);
        }
        for operation in &done[synced..] {
            match random.below(4) {
                0 => {}
                1 => operation.apply_torn(&mut bytes, random),
                _ => operation.apply(&mut bytes),
            }
        }
        let mut noted = disk.noted_before;
        for operation in done {
            if let Operation::Note(progress) = operation
                && random.below(2) == 0
            {
                noted = Some(*progress);
            }
        }
        let after = Self::with_bytes(bytes);
        after.0.lock().noted = noted;
        after.0.lock().noted_before = noted;
        after
    }
}

impl Operation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::SetLength(length) => bytes.resize(*length, 0),
            Self::Sync | Self::Note(_) => {}
        }
    }

    /// Applies some sectors of a write.
    fn apply_torn(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let Self::Write(offset, data) = self else {
            return;
        };
        for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
            if random.below(2) == 0 {
                let at = offset + number * SECTOR_BYTES;
                Self::Write(at, sector.to_owned()).apply(bytes);
            }
        }
    }
}

impl Disk {
    fn run(&mut self, operation: Operation) -> io::Result<()> {
        if let Some(kind) = self.failures.remove(&self.log.len()) {
            return Err(kind.into());
        }
        let end = match &operation {
            Operation::Write(offset, data) => offset + data.len(),
            Operation::SetLength(length) => *length,
            Operation::Sync | Operation::Note(_) => 0,
        };
        if self.has_no_room && end > self.bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        operation.apply(&mut self.bytes);
        self.log.push(operation);
        Ok(())
    }
}

impl Medium for CrashDisk {
    fn file(&self) -> &Path {
        Path::new("crash.redb")
    }

    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.clone()))
    }

    fn try_room(&self) -> io::Result<()> {
        match self.0.lock().has_no_room {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn note(&self, progress: Progress) {
        let mut disk = self.0.lock();
        disk.noted = Some(progress);
        // A failure is meant for the database.
        let at = disk.log.len();
        if let Some(kind) = disk.failures.remove(&at) {
            disk.failures.insert(at + 1, kind);
        }
        disk.log.push(Operation::Note(progress));
    }

    fn noted(&self) -> Option<Progress> {
        self.0.lock().noted
    }

    /// Nothing depends on it.
    fn sync_note(&self) {}
}

impl StorageBackend for CrashDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock();
        let offset = usize::try_from(offset).unwrap();
        let found = disk.bytes.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).unwrap();
        self.0.lock().run(Operation::SetLength(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().run(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.0.lock().run(Operation::Write(offset, data.to_owned()))
    }
}

const SECTOR_BYTES: usize = 512;
