//! What can go wrong in a run: the broker lost, changed, doubled or reordered something, or stopped.

use std::{error, fmt, io};

/// Why a run does not count.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A message arrived out of turn: a later one (then those between are lost or late) or an earlier one (then it is
    /// doubled or late).
    OutOfTurn {
        /// The number that was due.
        due: u64,
        /// The number that came.
        came: u64,
    },
    /// Something arrived that nobody sent, or nobody may send.
    Wrong(&'static str),
    /// Messages or acknowledgements are due, and nothing arrives for as long as the run waits: lost, or the broker hangs.
    Stalled {
        /// How many are missing.
        missing: u64,
    },
    /// A socket, a process or a file.
    Io(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfTurn { due, came } if came > due => {
                write!(
                    f,
                    "message {came} came when {due} was due: lost or reordered"
                )
            }
            Self::OutOfTurn { due, came } => {
                write!(f, "message {came} came again or late when {due} was due")
            }
            Self::Wrong(what) => f.write_str(what),
            Self::Stalled { missing } => write!(f, "{missing} lost: nothing more comes"),
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
