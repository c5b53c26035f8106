//! How the programs end: the statuses, and an error as one clear line.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Everything was done.
pub(crate) const OK: u8 = 0;
/// A network, file, TLS or configuration error.
pub(crate) const FAILURE: u8 = 1;
/// The command line cannot be understood.
pub(crate) const USAGE: u8 = 2;
/// The time given with `--timeout` is over.
#[allow(dead_code, reason = "not every program has one")]
pub(crate) const TIMED_OUT: u8 = 27;

/// Why a program ends without success: one line for the user and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The status to exit with.
    pub(crate) status: u8,
    /// What happened, without the program's name and without a full stop. Empty: nothing is said.
    pub(crate) message: String,
}

impl Failure {
    /// The command line cannot be understood: status 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            status: USAGE,
            message: message.into(),
        }
    }

    /// A network, file, TLS or configuration error: status 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            status: FAILURE,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Writes `program: message` to standard error and gives the status to exit with.
///
/// A usage error is followed by a pointer to `--help`.
pub(crate) fn report(program: &str, failure: &Failure) -> ExitCode {
    for line in failure.message.lines() {
        say(program, line);
    }
    if failure.status == USAGE {
        say(program, &format!("run '{program} --help' for the usage"));
    }
    ExitCode::from(failure.status)
}

/// Writes a line to standard error.
pub(crate) fn say(program: &str, text: &str) {
    // Standard error may be closed; there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{program}: {text}");
}

/// Writes `text` to standard output: all that a program had to do.
///
/// # Errors
/// Standard output cannot be written to. That nobody reads it any longer is no error.
pub(crate) fn print(text: &str) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output: {error}")))
        }
        _ => Ok(OK),
    }
}
