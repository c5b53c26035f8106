//! What is written in one transaction, and how everything is read back.

use std::num::NonZeroU64;

use redb::{Database, ReadTransaction};

use super::progress::Progress;
use super::table::{Problem, RowChange, Table};
use super::{BAD_KEY, PROGRESS_KEY, encoding, fields};
use crate::store::{
    ChangeSet, EntryChange, EntryRecord, Identifiers, Loaded, MessageId, RetainedRecord,
    SessionKey, SessionRecord, SubscriptionRecord,
};

/// Writes all changes in one transaction, and how far the store has come with it. By how many bytes the rows grew.
pub(super) fn apply(
    database: &Database,
    changes: &ChangeSet,
    progress: Progress,
) -> Result<i64, Problem> {
    let transaction = database.begin_write()?;
    let mut growth = 0;
    let mut sessions = Table::Sessions.write(&transaction)?;
    let mut subscriptions = Table::Subscriptions.write(&transaction)?;
    let mut incoming = Table::Incoming.write(&transaction)?;
    let mut entries = Table::Entries.write(&transaction)?;
    for key in changes.ended_sessions() {
        sessions.set(&encoding::session_key(key), None::<&SessionRecord>)?;
        subscriptions.clear(key)?;
        incoming.clear(key)?;
        entries.clear(key)?;
    }
    for (key, record) in changes.sessions() {
        sessions.set(&encoding::session_key(key), Some(record))?;
    }
    for (key, filter, record) in changes.subscriptions() {
        subscriptions.set(&encoding::subscription_key(key, filter), record)?;
    }
    for (key, id, is_there) in changes.incoming() {
        incoming.set(&encoding::incoming_key(key, id), is_there.then_some(&()))?;
    }
    entries.apply(changes.entries().map(|(key, position, change)| {
        let change = match change {
            EntryChange::Put(record) => RowChange::Put(record),
            EntryChange::Update(state) => {
                RowChange::Change(move |entry: &mut EntryRecord| entry.update(state))
            }
            EntryChange::Delete => RowChange::Delete,
        };
        (encoding::entry_key(key, position), change)
    }))?;
    for table in [sessions, subscriptions, incoming, entries] {
        growth += table.growth;
    }
    let mut messages = Table::Messages.write(&transaction)?;
    messages.apply(
        changes
            .messages()
            .map(|(id, record)| (encoding::message_key(id), RowChange::of(record))),
    )?;
    let mut retained = Table::Retained.write(&transaction)?;
    for (topic, record) in changes.retained() {
        retained.set(topic.as_str().as_bytes(), record)?;
    }
    growth += messages.growth + retained.growth;
    drop((messages, retained));
    Table::Meta
        .write(&transaction)?
        .set(PROGRESS_KEY, Some(&progress))?;
    transaction.commit()?;
    Ok(growth)
}

/// Reads everything, messages only to check them. Where the names go on, and what the rows take, in bytes.
pub(super) fn load(
    from: &ReadTransaction,
    give: &mut dyn FnMut(Loaded) -> Result<(), Problem>,
) -> Result<(Identifiers, i64), Problem> {
    let mut stored_bytes = 0;
    let (mut last_session, mut last_message) = (0, None);
    let table = Table::Sessions;
    stored_bytes += table.read(from)?.each(|key, record: SessionRecord| {
        let session = encoding::read_session_key(key).ok_or_else(|| table.damaged(key, BAD_KEY))?;
        last_session = last_session.max(session.0);
        give(Loaded::Session(session, Box::new(record)))
    })?;
    let table = Table::Subscriptions;
    stored_bytes += table.read(from)?.each(|key, record: SubscriptionRecord| {
        let (session, filter) =
            encoding::read_subscription_key(key).ok_or_else(|| table.damaged(key, BAD_KEY))?;
        last_session = last_session.max(session.0);
        give(Loaded::Subscription(session, filter, record))
    })?;
    let table = Table::Incoming;
    stored_bytes += table.read(from)?.each(|key, ()| {
        let (session, id) =
            encoding::read_incoming_key(key).ok_or_else(|| table.damaged(key, BAD_KEY))?;
        last_session = last_session.max(session.0);
        give(Loaded::Incoming(session, id))
    })?;
    let table = Table::Entries;
    stored_bytes += table.read(from)?.each(|key, record: EntryRecord| {
        let (session, position) =
            encoding::read_entry_key(key).ok_or_else(|| table.damaged(key, BAD_KEY))?;
        last_session = last_session.max(session.0);
        last_message = last_message.max(record.message);
        give(Loaded::Entry(session, position, record))
    })?;
    let table = Table::Retained;
    stored_bytes += table.read(from)?.each(|key, record: RetainedRecord| {
        if record.message.message.topic.as_str().as_bytes() != key {
            return Err(table.damaged(key, BAD_KEY));
        }
        give(Loaded::Retained(Box::new(record)))
    })?;
    let table = Table::Messages;
    stored_bytes += table.read(from)?.each_raw(|key, value| {
        let id = encoding::read_message_key(key).ok_or_else(|| table.damaged(key, BAD_KEY))?;
        last_message = last_message.max(Some(id));
        let checked = fields::Opened::check(table.name(), key, value);
        checked.map(drop).map_err(|what| table.damaged(key, what))
    })?;
    let identifiers = Identifiers {
        next_session: SessionKey(last_session + 1),
        next_message: last_message.map_or(MessageId(NonZeroU64::MIN), MessageId::next),
    };
    Ok((identifiers, stored_bytes))
}
