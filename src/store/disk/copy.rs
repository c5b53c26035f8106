//! Copies of a store: every row, into a new file that gets its name when it is complete.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadTransaction};

use super::medium::{beside, sync_directory};
use super::table::{Problem, Table};
use super::{DiskStore, PROGRESS_KEY, Shared, Snapshot, StoreError, fields};

/// A moment of a store.
pub(super) struct DiskSnapshot {
    pub(super) transaction: ReadTransaction,
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for DiskSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskSnapshot").finish_non_exhaustive()
    }
}

impl Snapshot for DiskSnapshot {
    fn copy_to(self: Box<Self>, path: &Path) -> Result<(), StoreError> {
        build(path, &mut |target| {
            let mut batch = Batch::new(target);
            let copied = Table::ALL.into_iter().try_for_each(|table| {
                table.read(&self.transaction)?.each_raw(|key, value| {
                    // The copy goes its own way.
                    if table == Table::Meta && key == PROGRESS_KEY {
                        return Ok(());
                    }
                    let checked = fields::Opened::check(table.name(), key, value);
                    checked.map_err(|what| table.damaged(key, what))?;
                    batch.put(table, key, value).map_err(Problem::Passed)
                })?;
                Ok(())
            });
            copied.map_err(|problem| match problem {
                Problem::Passed(error) => error,
                problem => self.shared.explain(problem),
            })?;
            batch.finish()
        })
    }
}

/// Makes a new store at `path` and has it filled. On an error nothing is left there.
pub(super) fn build(
    path: &Path,
    fill: &mut dyn FnMut(&Shared) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let part = beside(path, ".part");
    for path in [path, &part] {
        if path.exists() {
            return Err(StoreError::Exists(path.into()));
        }
    }
    let built = DiskStore::open(&part).and_then(|store| fill(&store.shared));
    let failed = |error| StoreError::Open(Box::new((path.to_owned(), error)));
    let named = built.and_then(|()| fs::rename(&part, path).map_err(failed));
    if named.is_err() {
        let _ = fs::remove_file(&part);
    }
    named.and_then(|()| sync_directory(path).map_err(failed))
}

/// Rows on their way into a new store, a few megabytes to a transaction.
pub(super) struct Batch<'s> {
    target: &'s Shared,
    rows: Vec<Row>,
    bytes: usize,
}

/// `None` for a value: it is deleted.
type Row = (Table, Vec<u8>, Option<Vec<u8>>);

impl<'s> Batch<'s> {
    pub(super) fn new(target: &'s Shared) -> Self {
        Self {
            target,
            rows: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.bytes += key.len() + value.len();
        self.add((table, key.to_owned(), Some(value.to_owned())))
    }

    pub(super) fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.bytes += key.len();
        self.add((table, key.to_owned(), None))
    }

    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.flush()
    }

    fn add(&mut self, row: Row) -> Result<(), StoreError> {
        self.rows.push(row);
        if self.bytes < BATCH_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        self.target
            .with_database(|database| write_rows(database, &rows))
    }
}

fn write_rows(database: &Database, rows: &[Row]) -> Result<(), Problem> {
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        let mut writing = table.write(&transaction)?;
        for (_, key, value) in rows.iter().filter(|row| row.0 == table) {
            match value {
                Some(value) => writing.set_raw(key, value)?,
                None => writing.remove(key)?,
            }
        }
    }
    Ok(transaction.commit()?)
}

const BATCH_BYTES: usize = 4 * 1024 * 1024;
