//! Reading what can be read of a damaged store, into a new one.
//!
//! Nothing is written to the damaged file: what the database writes while it is opened stays in memory. Each table is read
//! from its start until something cannot be read, then from its end; what lies between is looked for in all pages of the
//! file, whether the database still refers to them or not. Every row must match its checksum, and what belongs to nothing
//! any more is left out.

mod overlay;

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use redb::{Builder, ConcurrencyMode, ReadTransaction, ReadableDatabase};

use self::overlay::Overlay;
use super::check::References;
use super::copy::{Batch, build};
use super::encoding;
use super::medium::open_file;
use super::progress::{NoteFile, Progress};
use super::table::{Problem, Reading, Table};
use super::{CACHE_BYTES, PROGRESS_KEY, StoreError};
use crate::thread::panic_text;

/// What came of a salvage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// Rows in the new store.
    pub kept: u64,
    /// Places where something was lost or may be out of date; each was told of.
    pub losses: u64,
}

/// Reads what can be read of the store in `file` into a new one at `to`, which must not exist. `note` is told of every loss.
/// The database may panic on the way, which is caught: a program should silence its panic hook.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Locked`]: a broker has it open. Errors of writing the new store.
///
/// # Blocking
/// Until all is read and written.
pub fn salvage(file: &Path, to: &Path, note: &mut dyn FnMut(&str)) -> Result<Salvaged, StoreError> {
    if !file.exists() {
        return Err(StoreError::Missing(file.into()));
    }
    let opening = |error| StoreError::Open(Box::new((file.to_owned(), error)));
    let mut options = File::options();
    let lock = open_file(file, options.read(true).write(true)).map_err(opening)?;
    match lock.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
        Ok(true) => {}
        Ok(false) => return Err(StoreError::Locked(file.into())),
        Err(error) => return Err(opening(error.into())),
    }
    let raw = File::open(file).map_err(opening)?;
    let mut salvaged = Salvaged::default();
    let salvaging = build(to, &mut |target| {
        let source = Source::best(&raw).map_err(opening)?;
        let mut salvage = Salvage {
            raw: &raw,
            batch: Batch::new(target),
            references: References::default(),
            salvaged: Salvaged::default(),
            note,
        };
        salvage.run(source.as_ref(), NoteFile::of(file).read())?;
        // A database that is damaged may panic when it is closed.
        std::mem::forget(source);
        salvaged = salvage.finish()?;
        Ok(())
    });
    let _ = lock.close();
    salvaging.map(|()| salvaged)
}

struct Salvage<'s> {
    raw: &'s File,
    batch: Batch<'s>,
    references: References,
    salvaged: Salvaged,
    note: &'s mut dyn FnMut(&str),
}

/// The keys between which nothing could be read.
#[derive(Debug, Default)]
struct Gap {
    after: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
}

impl Salvage<'_> {
    /// `known`: how far the store is known to have come.
    fn run(&mut self, source: Option<&Source>, known: Option<Progress>) -> Result<(), StoreError> {
        match source.map(Source::progress) {
            None => self.lose("the structure of the database cannot be read at all"),
            Some(Some(progress)) => {
                if let Some(known) = known.filter(|known| progress.is_behind(*known)) {
                    self.lose(&format!(
                        "write {} was durable, but the structure of the database is that after write {}: what the last one changed is \
                         as it was before",
                        known.writes, progress.writes
                    ));
                }
            }
            Some(None) => {}
        }
        for table in Table::ALL {
            if table == Table::Meta {
                continue;
            }
            let gap = match source.map(|source| table.read(&source.transaction)) {
                Some(Ok(rows)) => self.read(table, &rows)?,
                Some(Err(problem)) => {
                    let text = problem_text(&problem);
                    self.lose(&format!("table {}: {text}", table.name()));
                    Some(Gap::default())
                }
                None => Some(Gap::default()),
            };
            if let Some(gap) = gap {
                self.search(table, &gap)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Salvaged, StoreError> {
        for id in self.references.unreferenced() {
            let key = encoding::message_key(id);
            self.batch.remove(Table::Messages, &key)?;
            self.salvaged.kept -= 1;
        }
        self.batch.finish()?;
        Ok(self.salvaged)
    }

    /// Reads a table from both ends; what cannot be read between them.
    fn read(&mut self, table: Table, rows: &Reading) -> Result<Option<Gap>, StoreError> {
        let mut gap = Gap::default();
        let forwards = self.read_rows(table, rows, None, &mut gap.after)?;
        let Err(text) = forwards else {
            return Ok(None);
        };
        self.lose(&format!("table {}: {text}", table.name()));
        let stop = gap.after.clone().unwrap_or_default();
        // Whether it comes to the other side or not, the gap is what was not read.
        let _ = self.read_rows(table, rows, Some(&stop), &mut gap.before)?;
        Ok(Some(gap))
    }

    /// Reads rows from the start, or from the end back to a key, until something cannot be read, which is the inner error.
    fn read_rows(
        &mut self,
        table: Table,
        rows: &Reading,
        back_to: Option<&[u8]>,
        last: &mut Option<Vec<u8>>,
    ) -> Result<Result<(), String>, StoreError> {
        let backwards = back_to.is_some();
        let mut iterator = match caught(|| rows.iterator()) {
            Ok(iterator) => iterator,
            Err(text) => return Ok(Err(text)),
        };
        loop {
            let next = caught(|| {
                let row = if backwards {
                    iterator.next_back()
                } else {
                    iterator.next()
                };
                let row = row.transpose()?;
                Ok(row.map(|(key, value)| (key.value().to_owned(), value.value().to_owned())))
            });
            let (key, value) = match next {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(Ok(())),
                Err(text) => return Ok(Err(text)),
            };
            let is_beyond = |last: &Vec<u8>| if backwards { key < *last } else { key > *last };
            if !last.as_ref().is_none_or(is_beyond) {
                return Ok(Err("the keys are not in order".to_owned()));
            }
            if back_to.is_some_and(|stop| key.as_slice() <= stop) {
                return Ok(Ok(()));
            }
            self.keep(table, &key, &value)?;
            *last = Some(key);
        }
    }

    /// Looks for rows of a gap in all pages of the file.
    fn search(&mut self, table: Table, gap: &Gap) -> Result<(), StoreError> {
        let mut found = BTreeMap::new();
        let length = self.raw.metadata().map_err(StoreError::Read)?.len();
        for at in (0..length).step_by(PAGE_BYTES) {
            for (key, value) in leaf_rows(self.raw, at, length).unwrap_or_default() {
                let is_inside = gap.after.as_ref().is_none_or(|after| key > *after)
                    && gap.before.as_ref().is_none_or(|before| key < *before);
                let checked = super::fields::Opened::check(table.name(), &key, &value);
                if is_inside && checked.is_ok() {
                    found.insert(key, value);
                }
            }
        }
        let name = table.name();
        let from = gap
            .after
            .as_ref()
            .map_or_else(|| "the start".to_owned(), |key| table.place(key));
        let to = gap
            .before
            .as_ref()
            .map_or_else(|| "the end".to_owned(), |key| table.place(key));
        self.lose(&format!(
            "table {name}: unreadable from {from} to {to}; {} rows were found in loose pages and may be out of date",
            found.len()
        ));
        for (key, value) in found {
            self.keep(table, &key, &value)?;
        }
        Ok(())
    }

    fn keep(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        match self.references.take(table, key, value) {
            Ok(None) => {
                self.salvaged.kept += 1;
                self.batch.put(table, key, value)?;
            }
            Ok(Some(what)) | Err(what) => self.lose(&format!("{}: {what}", table.place(key))),
        }
        Ok(())
    }

    fn lose(&mut self, what: &str) {
        self.salvaged.losses += 1;
        (self.note)(what);
    }
}

/// A damaged database that could be opened one way or another.
struct Source {
    transaction: ReadTransaction,
    _database: Box<dyn Any>,
}

impl Source {
    /// The way of opening that shows most: repaired by the database; or its last state, or the one before, as they are.
    fn best(raw: &File) -> io::Result<Option<Self>> {
        let mut best: Option<(u64, Self)> = None;
        for way in [Way::Repaired, Way::AsItIs, Way::StateBefore] {
            let overlay = Overlay::new(raw.try_clone()?);
            let Ok(source) = caught(|| way.open(overlay)) else {
                continue;
            };
            let rows = source.count();
            if best.as_ref().is_none_or(|(most, _)| rows > *most) {
                std::mem::forget(best.replace((rows, source)));
            } else {
                std::mem::forget(source);
            }
            // What the database has checked and found good needs no comparison.
            if matches!(way, Way::Repaired) && rows > 0 {
                break;
            }
        }
        Ok(best.map(|(_, source)| source))
    }

    /// How far the state has come that can be read.
    fn progress(&self) -> Option<Progress> {
        caught(|| Table::Meta.read(&self.transaction)?.get(PROGRESS_KEY)).ok()?
    }

    /// How many rows can be read from the starts of the tables.
    fn count(&self) -> u64 {
        let mut count = 0;
        for table in Table::ALL {
            let _ = caught(|| {
                table.read(&self.transaction)?.each_raw(|_, _| {
                    count += 1;
                    Ok(())
                })
            });
        }
        count
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Repaired,
    AsItIs,
    StateBefore,
}

impl Way {
    fn open(self, overlay: Overlay) -> Result<Source, Problem> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        if matches!(self, Self::Repaired) {
            builder.set_check_integrity_on_open(true);
            let database = builder.create_with_backend(overlay)?;
            return Ok(Source {
                transaction: database.begin_read()?,
                _database: Box::new(database),
            });
        }
        if matches!(self, Self::StateBefore) {
            overlay.flip(PRIMARY_FLAG_AT, PRIMARY_FLAG);
        }
        // A reader beside a writer takes the file as it is.
        builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
        let database = builder.open_read_only_with_backend(overlay)?;
        Ok(Source {
            transaction: database.begin_read()?,
            _database: Box::new(database),
        })
    }
}

/// What `run` gives, or what it says of its error or panic.
fn caught<T>(run: impl FnOnce() -> Result<T, Problem>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done.map_err(|problem| problem_text(&problem)),
        Err(panic) => Err(panic_text(&*panic).to_owned()),
    }
}

fn problem_text(problem: &Problem) -> String {
    match problem {
        Problem::Database(error) => error.to_string(),
        Problem::Damaged { table, key, what } => format!("{}: {what}", table.place(key)),
        Problem::Passed(error) => error.to_string(),
    }
}

type RawRow = (Vec<u8>, Vec<u8>);

/// The rows of the page at `at`, if it looks like a leaf of one of our tables.
///
/// ```text
///   1 │ 0 │ n (2) │ ends of keys (4 each) │ ends of values (4 each) │ keys │ values
/// ```
fn leaf_rows(file: &File, at: u64, length: u64) -> Option<Vec<RawRow>> {
    let mut page = vec![0; PAGE_BYTES];
    file.read_exact_at(&mut page, at).ok()?;
    if page[0] != LEAF {
        return None;
    }
    let count = usize::from(u16::from_le_bytes([page[2], page[3]]));
    let keys_at = LEAF_HEADER_BYTES + 2 * END_BYTES * count;
    if count == 0 || keys_at > PAGE_BYTES {
        return None;
    }
    let ends: Vec<usize> = page[LEAF_HEADER_BYTES..keys_at]
        .chunks_exact(END_BYTES)
        .filter_map(|end| Some(u32::from_le_bytes(end.try_into().ok()?) as usize))
        .collect();
    let ordered = ends.first().is_some_and(|first| *first >= keys_at) && ends.is_sorted();
    let end = *ends.last()?;
    if !ordered || at + end as u64 > length {
        return None;
    }
    if end > PAGE_BYTES {
        page = vec![0; end];
        file.read_exact_at(&mut page, at).ok()?;
    }
    let (key_ends, value_ends) = ends.split_at(count);
    let mut rows = Vec::with_capacity(count);
    let (mut key_at, mut value_at) = (keys_at, *key_ends.last()?);
    for (key_end, value_end) in key_ends.iter().zip(value_ends) {
        let key = page.get(key_at..*key_end)?.to_owned();
        let value = page.get(value_at..*value_end)?.to_owned();
        rows.push((key, value));
        (key_at, value_at) = (*key_end, *value_end);
    }
    Some(rows)
}

/// The pages of the database.
const PAGE_BYTES: usize = 4096;
const LEAF: u8 = 1;
const LEAF_HEADER_BYTES: usize = 4;
const END_BYTES: usize = 4;
/// Where the database's header says which of two states is the last, and the bit.
const PRIMARY_FLAG_AT: u64 = 9;
const PRIMARY_FLAG: u8 = 1;

#[cfg(test)]
mod tests;
