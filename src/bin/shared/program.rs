//! What every program's `main` does: read the arguments, answer what needs no more than them, run, give a status.

use std::ffi::OsString;
use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use super::args::{self, Request, Table};
use super::exit::{self, Failure};
use super::manual;

/// What a program is called and how it reads its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// Its name.
    pub(crate) name: &'static str,
    /// The spellings of its options.
    pub(crate) table: &'static Table,
    /// What its manual page says beside the options.
    pub(crate) page: &'static manual::Page,
}

impl Program {
    /// Reads `arguments`, without the program's name, and runs `run` on them. `defaults` are lines of an options file.
    pub(crate) fn main<T: FromArgs + ArgsInfo>(
        &self,
        arguments: impl IntoIterator<Item = OsString>,
        defaults: Option<&str>,
        run: impl FnOnce(T) -> Result<u8, Failure>,
    ) -> ExitCode {
        let request = args::parse::<T>(self.name, self.table, arguments, defaults);
        let status = request.and_then(|request| match request {
            Request::Print(text) => exit::print(&text),
            Request::Run(args) => run(args),
        });
        match status {
            Ok(status) => ExitCode::from(status),
            Err(failure) => exit::report(self.name, &failure),
        }
    }

    /// Answers `--version`, `--completions` and `--man`; `None` if none of them was given.
    ///
    /// # Errors
    /// A usage error for an unknown shell.
    pub(crate) fn answer<T: ArgsInfo>(
        &self,
        version: bool,
        completions: Option<&str>,
        man: bool,
    ) -> Option<Result<u8, Failure>> {
        let text = if version {
            Ok(concat!(env!("CARGO_PKG_VERSION"), "\n").to_owned())
        } else if let Some(shell) = completions {
            manual::completions(self.name, shell, &T::get_args_info())
        } else if man {
            Ok(manual::page(self.name, &T::get_args_info(), self.page))
        } else {
            return None;
        };
        Some(text.and_then(|text| exit::print(&text)))
    }
}
