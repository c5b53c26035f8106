//! What can go wrong.

use std::{error, fmt, io};

/// Why something did not happen.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A connection ended: to be expected if the broker was killed.
    Lost(String),
    /// The broker did what it must not do, or not what it must.
    Wrong(String),
    /// A file or a process.
    Io(io::Error),
}

impl Fault {
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "connection lost: {what}"),
            Self::Wrong(what) => f.write_str(what),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}
