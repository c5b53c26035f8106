//! Looking into a store that no broker has open: is it whole, and what is in it.

use std::collections::{BTreeMap, HashMap, HashSet};

use redb::ReadableDatabase;

use super::encoding::{self, Value};
use super::fields::Opened;
use super::table::{Problem, Table};
use super::{BAD_KEY, DiskStore};
use crate::store::{
    EntryRecord, MessageId, MessageRecord, RetainedRecord, SessionKey, SessionRecord, Store,
    StoreError, SubscriptionRecord,
};

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Sessions.
    pub sessions: Rows,
    /// Subscriptions.
    pub subscriptions: Rows,
    /// Identifiers of incoming QoS 2 messages.
    pub incoming: Rows,
    /// Entries of queues, those in flight among them.
    pub entries: Rows,
    /// Messages that entries refer to.
    pub messages: Rows,
    /// Retained messages.
    pub retained: Rows,
    /// The file, in bytes.
    pub file_bytes: u64,
}

/// The rows of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    /// How many.
    pub count: u64,
    /// Keys and values, in bytes.
    pub bytes: u64,
}

impl DiskStore {
    /// Reads everything, checksums of the database's own pages among it, and sees whether it fits together; `note` is
    /// told of what does not: an entry without its session or message, a message that no entry refers to. A broker can
    /// start on such a store all the same.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]: a broker would refuse to start.
    ///
    /// # Blocking
    /// Until all is read.
    pub fn check(&mut self, note: &mut dyn FnMut(&str)) -> Result<Contents, StoreError> {
        self.check_pages()?;
        self.survey(note)
    }

    /// Counts what is in the store.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    ///
    /// # Blocking
    /// Until all is read.
    pub fn contents(&self) -> Result<Contents, StoreError> {
        self.survey(&mut |_| {})
    }

    /// Gives `visit` the messages that entries refer to, in ascending order, and how many entries do.
    ///
    /// # Errors
    /// [`StoreError`]; what the visitor returns is passed on.
    pub fn each_message(
        &self,
        visit: &mut dyn FnMut(MessageId, MessageRecord) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.shared.with_database(|database| {
            let table = Table::Messages;
            table
                .read(&database.begin_read()?)?
                .each(|key, record: MessageRecord| {
                    let id = encoding::read_message_key(key)
                        .ok_or_else(|| table.damaged(key, BAD_KEY))?;
                    visit(id, record).map_err(Problem::Passed)
                })?;
            Ok(())
        })
    }

    /// Has the database check its own structure.
    fn check_pages(&mut self) -> Result<(), StoreError> {
        let mut guard = self.shared.database.write();
        let database = guard.as_mut().ok_or(StoreError::Closed)?;
        let checked = database.check_integrity();
        drop(guard);
        match checked {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.shared.broken("the pages do not match their checksums")),
            Err(error) => Err(self.shared.explain(error.into())),
        }
    }

    fn survey(&self, note: &mut dyn FnMut(&str)) -> Result<Contents, StoreError> {
        self.shared.with_database(|database| {
            let transaction = database.begin_read()?;
            let mut survey = Survey {
                note,
                references: References::default(),
            };
            let mut rows = BTreeMap::new();
            for table in Table::ALL {
                let mut count = 0;
                let bytes = table.read(&transaction)?.each_raw(|key, value| {
                    count += 1;
                    survey.row(table, key, value)
                })?;
                let bytes = u64::try_from(bytes).unwrap_or(0);
                rows.insert(table.name(), Rows { count, bytes });
            }
            survey.unreferenced();
            let of = |table: Table| rows.get(table.name()).copied().unwrap_or_default();
            Ok(Contents {
                sessions: of(Table::Sessions),
                subscriptions: of(Table::Subscriptions),
                incoming: of(Table::Incoming),
                entries: of(Table::Entries),
                messages: of(Table::Messages),
                retained: of(Table::Retained),
                file_bytes: self.size_bytes(),
            })
        })
    }
}

struct Survey<'n> {
    note: &'n mut dyn FnMut(&str),
    references: References,
}

impl Survey<'_> {
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let lacks = self
            .references
            .take(table, key, value)
            .map_err(|what| table.damaged(key, what))?;
        if let Some(lacks) = lacks {
            (self.note)(&format!("{}: {lacks}", table.place(key)));
        }
        Ok(())
    }

    fn unreferenced(&mut self) {
        for id in self.references.unreferenced() {
            let key = encoding::message_key(id);
            let place = Table::Messages.place(&key);
            (self.note)(&format!("{place}: no entry refers to it"));
        }
    }
}

/// Which rows other rows speak of. To be given all rows in the order of [`Table::ALL`].
#[derive(Debug, Default)]
pub(super) struct References {
    sessions: HashSet<SessionKey>,
    /// Whether an entry refers to the message.
    messages: HashMap<MessageId, bool>,
}

impl References {
    /// What the row lacks of what it speaks of.
    ///
    /// # Errors
    /// What is wrong with the row.
    pub(super) fn take(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<&'static str>, &'static str> {
        let name = table.name();
        let session = match table {
            Table::Meta => return Opened::check(name, key, value).map(|_| None),
            Table::Retained => {
                let record: RetainedRecord = decode(name, key, value)?;
                let topic = record.message.message.topic.as_str();
                return if topic.as_bytes() == key {
                    Ok(None)
                } else {
                    Err(BAD_KEY)
                };
            }
            Table::Messages => {
                decode::<MessageRecord>(name, key, value)?;
                let id = encoding::read_message_key(key).ok_or(BAD_KEY)?;
                self.messages.insert(id, false);
                return Ok(None);
            }
            Table::Sessions => {
                decode::<SessionRecord>(name, key, value)?;
                let session = encoding::read_session_key(key).ok_or(BAD_KEY)?;
                self.sessions.insert(session);
                return Ok(None);
            }
            Table::Subscriptions => {
                decode::<SubscriptionRecord>(name, key, value)?;
                encoding::read_subscription_key(key).ok_or(BAD_KEY)?.0
            }
            Table::Incoming => {
                decode::<()>(name, key, value)?;
                encoding::read_incoming_key(key).ok_or(BAD_KEY)?.0
            }
            Table::Entries => {
                let record: EntryRecord = decode(name, key, value)?;
                let session = encoding::read_entry_key(key).ok_or(BAD_KEY)?.0;
                if self.sessions.contains(&session)
                    && let Some(id) = record.message
                {
                    let Some(is_referred_to) = self.messages.get_mut(&id) else {
                        return Ok(Some("its message is not there"));
                    };
                    *is_referred_to = true;
                }
                session
            }
        };
        let lacks = !self.sessions.contains(&session);
        Ok(lacks.then_some("its session is not there"))
    }

    /// The messages that no entry refers to, in ascending order.
    pub(super) fn unreferenced(&self) -> Vec<MessageId> {
        let unreferenced = self.messages.iter().filter(|(_, referred)| !**referred);
        let mut ids: Vec<_> = unreferenced.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}

fn decode<V: Value>(table: &str, key: &[u8], value: &[u8]) -> Result<V, &'static str> {
    encoding::decode(table, key, value)
}
