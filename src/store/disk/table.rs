//! The tables, and rows in and out of them.

use std::iter::Peekable;
use std::mem;
use std::ops::Bound;

use redb::{
    CursorError, ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction,
};

use super::encoding::{self, Value};
use crate::store::SessionKey;

/// The tables of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// About the store itself.
    Meta,
    Sessions,
    Subscriptions,
    Incoming,
    Messages,
    Entries,
    Retained,
}

/// Rows one by one, from either end.
pub(super) type RowIterator = redb::Range<'static, &'static [u8], &'static [u8]>;

/// Rows are bytes; what they mean is in `encoding`.
pub(super) type Rows<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// Why a database gave up.
#[derive(Debug)]
pub(super) enum Problem {
    Database(redb::Error),
    Damaged {
        table: Table,
        key: Vec<u8>,
        what: &'static str,
    },
    /// Somebody else's error, passed through.
    Passed(crate::store::StoreError),
}

impl Table {
    /// So that what a row speaks of comes before it.
    pub(super) const ALL: [Self; 7] = [
        Self::Meta,
        Self::Sessions,
        Self::Subscriptions,
        Self::Incoming,
        Self::Messages,
        Self::Entries,
        Self::Retained,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::Incoming => "incoming",
            Self::Messages => "messages",
            Self::Entries => "entries",
            Self::Retained => "retained",
        }
    }

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name())
    }

    pub(super) fn write(self, to: &WriteTransaction) -> Result<Writing<'_>, Problem> {
        Ok(Writing {
            table: self,
            rows: to.open_table(self.definition())?,
            growth: 0,
            value: Vec::new(),
        })
    }

    pub(super) fn read(self, from: &ReadTransaction) -> Result<Reading, Problem> {
        Ok(Reading {
            table: self,
            rows: from.open_table(self.definition())?,
        })
    }

    pub(super) fn damaged(self, key: &[u8], what: &'static str) -> Problem {
        Problem::Damaged {
            table: self,
            key: key.to_owned(),
            what,
        }
    }

    /// The place of a row, for people.
    pub(super) fn place(self, key: &[u8]) -> String {
        let (number, text) = match self {
            Self::Meta | Self::Retained => (None, Some(key)),
            Self::Subscriptions => (
                encoding::read_session_key(&key[..key.len().min(8)]),
                key.get(8..),
            ),
            _ => (encoding::read_session_key(&key[..key.len().min(8)]), None),
        };
        let name = self.name();
        let rest = match (self, text) {
            (_, Some(text)) => format!(" '{}'", String::from_utf8_lossy(text).escape_debug()),
            (Self::Incoming, None) => match encoding::read_incoming_key(key) {
                Some((_, id)) => format!(" {id}"),
                None => String::new(),
            },
            (Self::Entries, None) => match encoding::read_entry_key(key) {
                Some((_, position)) => format!(" {}", position.0),
                None => String::new(),
            },
            _ => String::new(),
        };
        match number {
            Some(SessionKey(number)) => format!("table {name}, key {number}{rest}"),
            None => format!("table {name}, key{rest}"),
        }
    }
}

/// A table to be read.
pub(super) struct Reading {
    table: Table,
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Reading {
    /// Hands all rows over, in ascending order of keys. What they take, in bytes.
    pub(super) fn each<V: Value>(
        &self,
        mut to: impl FnMut(&[u8], V) -> Result<(), Problem>,
    ) -> Result<i64, Problem> {
        self.each_raw(|key, value| {
            let decoded = encoding::decode(self.table.name(), key, value);
            to(key, decoded.map_err(|what| self.table.damaged(key, what))?)
        })
    }

    pub(super) fn each_raw(
        &self,
        mut to: impl FnMut(&[u8], &[u8]) -> Result<(), Problem>,
    ) -> Result<i64, Problem> {
        let mut bytes = 0;
        for row in self.rows.iter()? {
            let (key, value) = row?;
            to(key.value(), value.value())?;
            bytes += row_bytes(key.value(), value.value());
        }
        Ok(bytes)
    }

    pub(super) fn iterator(&self) -> Result<RowIterator, Problem> {
        Ok(self.rows.range::<&[u8]>(..)?)
    }

    pub(super) fn get<V: Value>(&self, key: &[u8]) -> Result<Option<V>, Problem> {
        let Some(value) = self.rows.get(key)? else {
            return Ok(None);
        };
        let decoded = encoding::decode(self.table.name(), key, value.value());
        decoded
            .map(Some)
            .map_err(|what| self.table.damaged(key, what))
    }
}

/// A table to be written.
pub(super) struct Writing<'t> {
    table: Table,
    rows: Rows<'t>,
    /// What came, less what went, in bytes.
    pub(super) growth: i64,
    /// The memory of the last value.
    value: Vec<u8>,
}

/// What is to be done to a row.
pub(super) enum RowChange<'c, V, U = fn(&mut V)> {
    Put(&'c V),
    /// If it is there.
    Change(U),
    Delete,
}

impl<'c, V> RowChange<'c, V> {
    /// `None`: it is deleted.
    pub(super) fn of(value: Option<&'c V>) -> Self {
        value.map_or(Self::Delete, Self::Put)
    }
}

impl Writing<'_> {
    /// Puts the value under the key, or deletes what is there.
    pub(super) fn set(&mut self, key: &[u8], value: Option<&impl Value>) -> Result<(), Problem> {
        let Some(value) = value else {
            return self.remove(key);
        };
        let encoded = self.encode(key, value);
        let set = self.set_raw(key, &encoded);
        self.value = encoded;
        set
    }

    /// Makes all changes, which come in ascending order of keys. Rows that follow each other are put in or deleted together:
    /// each page is written once then, and a new one is full.
    pub(super) fn apply<'c, K: AsRef<[u8]>, V: Value + 'c, U: FnOnce(&mut V)>(
        &mut self,
        changes: impl Iterator<Item = (K, RowChange<'c, V, U>)>,
    ) -> Result<(), Problem> {
        let mut changes = changes.peekable();
        while let Some((key, change)) = changes.next() {
            let key = key.as_ref();
            match change {
                RowChange::Delete => {
                    if matches!(changes.peek(), Some((next, RowChange::Delete)) if is_near(key, next.as_ref()))
                    {
                        self.delete_run(key, &mut changes)?;
                    } else {
                        self.remove(key)?;
                    }
                }
                RowChange::Change(change) => self.change(key, change)?,
                RowChange::Put(value) => {
                    if matches!(changes.peek(), Some((_, RowChange::Put(_)))) {
                        self.put_run(key, value, &mut changes)?;
                    } else {
                        self.set(key, Some(value))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts a value in, and those that come after it as long as they belong between the same rows that are there.
    fn put_run<'c, K: AsRef<[u8]>, V: Value + 'c, U>(
        &mut self,
        key: &[u8],
        value: &V,
        changes: &mut Peekable<impl Iterator<Item = (K, RowChange<'c, V, U>)>>,
    ) -> Result<(), Problem> {
        let table = self.table.name();
        let mut encoded = mem::take(&mut self.value);
        let mut growth = 0;
        let mut cursor = self.rows.upper_bound_mut(Bound::Excluded(key))?;
        let mut put = |key: &[u8], value: &V| {
            encoded = encoding::encode(table, key, value, mem::take(&mut encoded));
            match cursor.insert_before(key, &encoded[..]) {
                Ok(()) => {
                    growth += row_bytes(key, &encoded);
                    Ok(true)
                }
                Err(CursorError::UnorderedKey) => Ok(false),
                Err(error) => Err(Problem::Database(error.into())),
            }
        };
        let is_new = put(key, value)?;
        while is_new
            && let Some((key, RowChange::Put(value))) = changes.peek()
            && put(key.as_ref(), value)?
        {
            changes.next();
        }
        cursor.close()?;
        self.growth += growth;
        self.value = encoded;
        if is_new {
            Ok(())
        } else {
            self.set(key, Some(value))
        }
    }

    /// Deletes a row, and those that are to be deleted after it and cannot be far from it.
    fn delete_run<'c, K: AsRef<[u8]>, V: 'c, U>(
        &mut self,
        first: &[u8],
        changes: &mut Peekable<impl Iterator<Item = (K, RowChange<'c, V, U>)>>,
    ) -> Result<(), Problem> {
        let mut run: Vec<K> = Vec::new();
        while let Some((key, RowChange::Delete)) = changes.peek()
            && is_near(run.last().map_or(first, AsRef::as_ref), key.as_ref())
        {
            run.extend(changes.next().map(|(key, _)| key));
        }
        let last = run.last().map_or(first, AsRef::as_ref);
        let growth = &mut self.growth;
        let mut keys = std::iter::once(first)
            .chain(run.iter().map(AsRef::as_ref))
            .peekable();
        self.rows
            .retain_in(first..=last, |key: &[u8], value: &[u8]| {
                while keys.next_if(|deleted| *deleted < key).is_some() {}
                let is_deleted = keys.peek() == Some(&key);
                if is_deleted {
                    *growth -= row_bytes(key, value);
                }
                !is_deleted
            })?;
        Ok(())
    }

    fn encode(&mut self, key: &[u8], value: &impl Value) -> Vec<u8> {
        encoding::encode(self.table.name(), key, value, mem::take(&mut self.value))
    }

    pub(super) fn set_raw(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let old = self.rows.insert(key, value)?;
        self.growth += row_bytes(key, value);
        self.growth -= old.map_or(0, |old| row_bytes(key, old.value()));
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<(), Problem> {
        let old = self.rows.remove(key)?;
        self.growth -= old.map_or(0, |old| row_bytes(key, old.value()));
        Ok(())
    }

    /// Changes the value under the key, if there is one.
    pub(super) fn change<V: Value>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut V),
    ) -> Result<(), Problem> {
        let known = match self.rows.get(key)? {
            None => return Ok(()),
            Some(value) => encoding::decode(self.table.name(), key, value.value()),
        };
        let mut value: V = known.map_err(|what| self.table.damaged(key, what))?;
        change(&mut value);
        self.set(key, Some(&value))
    }

    /// Deletes all that belongs to a session.
    pub(super) fn clear(&mut self, session: SessionKey) -> Result<(), Problem> {
        let first = encoding::session_key(session);
        let end = encoding::session_key(SessionKey(session.0.saturating_add(1)));
        let growth = &mut self.growth;
        self.rows
            .retain_in(&first[..]..&end[..], |key: &[u8], value: &[u8]| {
                *growth -= row_bytes(key, value);
                false
            })?;
        Ok(())
    }
}

/// Keys that end in numbers, with few between them.
fn is_near(key: &[u8], next: &[u8]) -> bool {
    const MOST_BETWEEN: u64 = 8;
    let (Some((head, number)), Some((next_head, next_number))) =
        (key.split_last_chunk(), next.split_last_chunk())
    else {
        return false;
    };
    let distance = u64::from_be_bytes(*next_number).checked_sub(u64::from_be_bytes(*number));
    head == next_head && distance.is_some_and(|distance| distance <= MOST_BETWEEN)
}

/// What a row takes, about, in bytes.
fn row_bytes(key: &[u8], value: &[u8]) -> i64 {
    const OFFSETS_BYTES: usize = 8;
    i64::try_from(key.len() + value.len() + OFFSETS_BYTES).unwrap_or(i64::MAX)
}

macro_rules! problems {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for Problem {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        })+
    };
}

problems!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    DatabaseError,
    CompactionError
);
