//! A database file that nothing is written to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

use super::PAGE_BYTES;

/// A file under what was written since, which stays in memory. It grants every lock: the real one is held elsewhere.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: File) -> Self {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let pages = BTreeMap::new();
        Self {
            file,
            written: Mutex::new(Written { length, pages }),
        }
    }

    /// Turns bits of a byte round.
    pub(super) fn flip(&self, at: u64, bits: u8) {
        let mut byte = [0];
        if self.read(at, &mut byte).is_ok() {
            let _ = self.write(at, &[byte[0] ^ bits]);
        }
    }

    /// What the page at `at` is now; zeros where the file ends.
    fn page(&self, written: &Written, at: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = written.pages.get(&at) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE_BYTES];
        let mut filled = 0;
        while filled < page.len() {
            match self.file.read_at(&mut page[filled..], at + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(page)
    }

    /// Goes through the pages that `length` bytes from `offset` touch: page, and the parts of page and bytes.
    fn each_part(
        offset: u64,
        length: usize,
        mut part: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let within = usize::try_from(at % PAGE_BYTES as u64).map_err(io::Error::other)?;
            let count = (PAGE_BYTES - within).min(length - done);
            part(
                at - within as u64,
                within..within + count,
                done..done + count,
            )?;
            done += count;
        }
        Ok(())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        if offset + out.len() as u64 > written.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::each_part(offset, out.len(), |at, within, bytes| {
            out[bytes].copy_from_slice(&self.page(&written, at)?[within]);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        Self::each_part(offset, data.len(), |at, within, bytes| {
            let mut page = self.page(&written, at)?;
            page[within].copy_from_slice(&data[bytes]);
            written.pages.insert(at, page);
            Ok(())
        })
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
