//! `hbmqtt NAME …`: the other programs, under the broker's name.
//!
//! The first argument, when it has no dash, names a subcommand; the broker itself takes no words. A subcommand that is a
//! program of its own is run in the place of this process. One that works on the broker's own files (its store, say)
//! gets an arm in [`run`] and a module beside this one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use crate::shared::exit::{self, Failure};

/// The subcommands that are programs of their own, `hbmqtt_` and the name.
const PROGRAMS: [&str; 5] = ["pub", "sub", "rr", "passwd", "bench"];

/// Runs the subcommand that `arguments` begin with; `None` if they begin with an option, or are none.
pub(crate) fn run(program: &str, arguments: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = arguments.split_first()?;
    let name = name.to_str().filter(|name| !name.starts_with('-'))?;
    let failure = match name {
        "store" => return Some(crate::store::main(rest)),
        _ if PROGRAMS.contains(&name) => become_program(&format!("{program}_{name}"), rest),
        _ => Failure::usage(format!(
            "unknown command '{}'; there are store, {}",
            name.escape_debug(),
            PROGRAMS.join(", ")
        )),
    };
    Some(exit::report(program, &failure))
}

/// Runs `program` in the place of this process. Returns only when that cannot be done.
fn become_program(program: &str, arguments: &[OsString]) -> Failure {
    let error = match beside(program) {
        Some(path) => exec(&path, program, arguments),
        None => exec(OsStr::new(program), program, arguments),
    };
    Failure::failed(format!("cannot run {program}: {error}"))
}

/// The program in the directory of this one.
fn beside(program: &str) -> Option<OsString> {
    let here = std::env::current_exe().ok()?;
    let path = here.with_file_name(program);
    path.exists().then(|| path.into_os_string())
}

fn exec(path: &OsStr, name: &str, arguments: &[OsString]) -> io::Error {
    Command::new(path).arg0(name).args(arguments).exec()
}
