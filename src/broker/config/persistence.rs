//! Section `persistence`: what outlives the process, and where it is kept.

use std::path::PathBuf;
use std::time::Duration;

use super::file::{SECOND, set};
use crate::store::{self, Durability};
use crate::yaml::{Field, Section, Value};

/// Section `persistence`.
#[derive(Debug, Clone, PartialEq)]
pub struct PersistenceConfig {
    /// Key `path` or `file`: the file that sessions, queues and retained messages are kept in. `None`: they end with the
    /// process.
    pub file: Option<PathBuf>,
    /// Key `durability`: when what is acknowledged is on disk, [`Durability::Group`].
    pub durability: Durability,
    /// Key `queue-memory`: what queued messages may take of the memory, in bytes, 64 MiB. What is beyond stays on disk
    /// until its turn comes.
    pub queue_memory_bytes: usize,
    /// Key `session-expiry`: sessions whose client stays away for longer are removed, 14 days. What a client asks for is
    /// capped to it.
    pub session_expiry: Duration,
}

impl Default for PersistenceConfig {
    fn default() -> Self {
        Self {
            file: None,
            durability: Durability::Group,
            queue_memory_bytes: 64 * 1024 * 1024,
            session_expiry: Duration::from_secs(14 * 24 * 60 * 60),
        }
    }
}

/// Reads the section.
pub(super) fn persistence(section: Section<'_>) -> PersistenceConfig {
    let mut persistence = PersistenceConfig::default();
    let (path, file) = (section.field("path"), section.field("file"));
    let has_place = path.is_some() || file.is_some();
    if let (Some(_), Some(file)) = (&path, &file) {
        file.problem("'path' says already where the store is; leave one of them out");
    }
    set!(persistence.file, path, |path: &Field<'_>| path
        .path()
        .map(|path| Some(path.join(store::FILE_NAME))));
    set!(persistence.file, file, |file: &Field<'_>| file
        .path()
        .map(Some));
    if let Some(field) = section.field("enabled") {
        match field.bool() {
            Some(true) if !has_place => {
                field.problem("where? Name a directory for the store: 'path: DIRECTORY'");
            }
            Some(false) => persistence.file = None,
            _ => {}
        }
    }
    set!(
        persistence.durability,
        section.field("durability"),
        durability
    );
    set!(
        persistence.queue_memory_bytes,
        section.field("queue-memory"),
        Field::bytes
    );
    let expiry = |field: &Field<'_>| field.duration(SECOND..=Duration::MAX);
    set!(
        persistence.session_expiry,
        section.field("session-expiry"),
        expiry
    );
    section.finish();
    persistence
}

fn durability(field: &Field<'_>) -> Option<Durability> {
    if !matches!(field.node().value, Value::Map(_)) {
        return field.choice(&[("group", Durability::Group), ("none", Durability::NONE)]);
    }
    let section = field.section()?;
    let interval = section.field("interval");
    if interval.is_none() {
        section.problem("expected 'group', 'none' or {interval: MILLISECONDS}");
    }
    let milliseconds = interval.and_then(|field| field.integer(1..=MAX_INTERVAL_MS));
    section.finish();
    Some(Durability::Interval(Duration::from_millis(milliseconds?)))
}

/// An hour.
const MAX_INTERVAL_MS: i128 = 3_600_000;
