//! Other programs run by a test: our tools, and those of others.

use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;

use super::broker::Log;
use super::eventually;

/// A running program with what it writes in view. It is killed with the value.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    process: Child,
    input: Option<ChildStdin>,
    pub(crate) output: Arc<Log>,
    pub(crate) errors: Arc<Log>,
    strips: Vec<&'static str>,
}

/// What a program that has ended left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Program {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            output: Log::follow(process.stdout.take().unwrap()),
            errors: Log::follow(process.stderr.take().unwrap()),
            input: process.stdin.take(),
            name,
            process,
            strips: Vec::new(),
        }
    }

    /// Leaves lines that begin so out of what it has written at its end.
    pub(crate) fn strips(&mut self, starts: &[&'static str]) {
        self.strips.extend(starts);
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.input
            .as_mut()
            .expect("standard input is open")
            .write_all(bytes.as_ref())
            .unwrap();
    }

    /// Ends its standard input.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) -> Outcome {
        self.input = None;
        let status = eventually(&self.name, || {
            self.process.try_wait().unwrap().ok_or_else(|| {
                format!(
                    "still running; {}\n{}",
                    self.output.text(),
                    self.errors.text()
                )
            })
        });
        self.output.wait_for_end();
        self.errors.wait_for_end();
        let mut output = self.output.lines();
        output.retain(|line| !self.strips.iter().any(|start| line.starts_with(start)));
        Outcome {
            status,
            output: output.join("\n"),
            errors: self.errors.text(),
        }
    }

    /// Waits, and expects success.
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        let name = self.name.clone();
        let outcome = self.wait();
        assert!(outcome.status.success(), "{name}: {outcome:?}");
        outcome.output
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
