//! What goes wrong with a store.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What goes wrong with a store.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system is full, or the user's share of it. Make room; nothing was lost.
    Full(io::Error),
    /// A write failed. Nothing of it was applied, and trying again may help.
    Write(io::Error),
    /// A sync failed. What was written since the last one may be gone from the cache of the system without having
    /// reached the disk: go on only from what a new start reads.
    Sync(io::Error),
    /// Something cannot be read.
    Read(io::Error),
    /// What is on disk is not what was written. `hbmqtt store salvage` reads what can be read into a new store.
    Damaged(Box<Damage>),
    /// Another process has the store open.
    Locked(Box<Path>),
    /// A newer version of this program wrote the store.
    Newer {
        /// The version of the store's format.
        found: u32,
        /// The newest that is understood.
        known: u32,
    },
    /// The file or its directory cannot be opened or made.
    Open(Box<(PathBuf, io::Error)>),
    /// There is no store at this path.
    Missing(Box<Path>),
    /// There is something at the path where a store was to be made.
    Exists(Box<Path>),
    /// Whoever was to be given what is read refused it.
    Refused(Box<str>),
    /// The store is closed.
    Closed,
}

/// A place in a store that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Which part of it: a table and a key, as far as known.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl StoreError {
    /// What a failed write means.
    #[must_use]
    pub fn of_write(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Write(error),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(error) => write!(f, "no room for the store: {error}"),
            Self::Write(error) => write!(f, "the store cannot be written: {error}"),
            Self::Sync(error) => write!(f, "the store cannot be synced: {error}"),
            Self::Read(error) => write!(f, "the store cannot be read: {error}"),
            Self::Damaged(damage) => damage.fmt(f),
            Self::Locked(path) => {
                write!(f, "{}: another process has the store open", path.display())
            }
            Self::Newer { found, known } => write!(
                f,
                "the store has format {found}, written by a newer version; this one knows formats up to {known}"
            ),
            Self::Open(opened) => write!(f, "{}: {}", opened.0.display(), opened.1),
            Self::Missing(path) => write!(f, "{}: there is no store", path.display()),
            Self::Exists(path) => write!(f, "{}: exists already", path.display()),
            Self::Refused(why) => f.write_str(why),
            Self::Closed => f.write_str("the store is closed"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Full(error) | Self::Write(error) | Self::Sync(error) | Self::Read(error) => {
                Some(error)
            }
            Self::Open(opened) => Some(&opened.1),
            _ => None,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: damaged at {}: {}; `hbmqtt store salvage` reads what can be read into a new store",
            self.file.display(),
            self.place,
            self.what
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_small() {
        assert!(size_of::<StoreError>() <= 32);
    }

    #[test]
    fn a_full_disk_is_told_from_a_failing_one() {
        for (kind, full) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::QuotaExceeded, true),
            (io::ErrorKind::Other, false),
        ] {
            let error = StoreError::of_write(kind.into());
            assert_eq!(matches!(error, StoreError::Full(_)), full, "{kind}");
        }
    }
}
