//! The command-line programs from outside: arguments, standard streams, log lines, exit statuses.

mod arguments;
mod bench;
mod broker;
mod passwd;
mod properties;
mod publish;
mod request;
mod server;
mod settings;
mod store;
mod subscribe;
mod transports;

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::support::broker::Log;
use crate::support::*;

const BROKER: &str = env!("CARGO_BIN_EXE_hbmqtt");
const PUB: &str = env!("CARGO_BIN_EXE_hbmqtt_pub");
const SUB: &str = env!("CARGO_BIN_EXE_hbmqtt_sub");
const RR: &str = env!("CARGO_BIN_EXE_hbmqtt_rr");
const BENCH: &str = env!("CARGO_BIN_EXE_hbmqtt_bench");
const PASSWD: &str = env!("CARGO_BIN_EXE_hbmqtt_passwd");

/// One of our programs while it runs; its standard output is kept byte for byte.
struct Tool {
    name: String,
    process: Child,
    input: Option<ChildStdin>,
    output: Option<JoinHandle<Vec<u8>>>,
    errors: Arc<Log>,
}

/// What a program left.
#[derive(Debug)]
struct Finished {
    status: i32,
    output: Vec<u8>,
    errors: String,
}

impl Tool {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Nothing of the environment of whoever runs the tests reaches the program, unless the command says so.
    fn spawn(mut command: Command) -> Self {
        for name in [
            "HBMQTT_URL",
            "HBMQTT_USERNAME",
            "HBMQTT_PASSWORD",
            "HBMQTT_CONFIG",
        ] {
            if !command.get_envs().any(|(key, _)| key == name) {
                command.env_remove(name);
            }
        }
        if !command.get_envs().any(|(key, _)| key == "XDG_CONFIG_HOME") {
            command.env("XDG_CONFIG_HOME", "/nonexistent");
        }
        let name = format!("{command:?}");
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut stdout = process.stdout.take().unwrap();
        let output = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).unwrap();
            bytes
        });
        Self {
            name,
            input: process.stdin.take(),
            errors: Log::follow(process.stderr.take().unwrap()),
            output: Some(output),
            process,
        }
    }

    fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let input = self.input.as_mut().expect("standard input is open");
        input.write_all(bytes.as_ref()).unwrap();
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let kill = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Waits until the broker has answered SUBSCRIBE: with `-d` the program logs it.
    fn wait_until_subscribed(&self) {
        self.errors
            .wait_for("SUBACK", |line| line.contains("<-in-- SubackPacket"));
    }

    /// Ends the program's input and waits until it has ended by itself.
    fn wait(mut self) -> Finished {
        self.input = None;
        self.wait_for_end()
    }

    /// Waits until it has ended by itself, with its input still open.
    fn wait_for_end(mut self) -> Finished {
        let status = eventually(&self.name, || {
            let ended = self.process.try_wait().unwrap();
            ended.ok_or_else(|| format!("still running\n{}", self.errors.text()))
        });
        self.errors.wait_for_end();
        Finished {
            status: status.code().unwrap_or(-1),
            output: self.output.take().unwrap().join().unwrap(),
            errors: self.errors.text(),
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Finished {
    #[track_caller]
    fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.output).unwrap()
    }

    /// Level and text of each log line; the layout is checked.
    #[track_caller]
    fn log(&self) -> Vec<(String, String)> {
        self.errors.lines().map(log_line).collect()
    }
}

/// Takes `[YYYY-MM-DD HH:MM:SS,mmm] :: LEVEL - message` apart.
#[track_caller]
fn log_line(line: &str) -> (String, String) {
    let (time, rest) = line.split_once("] :: ").unwrap_or_else(|| panic!("{line}"));
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "[0000-00-00 00:00:00,000", "{line}");
    let (level, message) = rest.split_once(" - ").unwrap_or_else(|| panic!("{line}"));
    (level.to_owned(), message.to_owned())
}

fn run(program: &str, arguments: &[&str]) -> Finished {
    Tool::start(program, arguments).wait()
}

/// Runs a program with this as its whole standard input.
fn run_with_input(program: &str, arguments: &[&str], input: &[u8]) -> Finished {
    let mut tool = Tool::start(program, arguments);
    // A program that does not read its input to the end closes the pipe.
    _ = tool.input.as_mut().unwrap().write_all(input);
    tool.wait()
}

fn url(broker: &Broker) -> String {
    format!("mqtt://{}", broker.address())
}

/// Publishes with these arguments beside the URL, and expects success.
#[track_caller]
fn publish(broker: &Broker, arguments: &[&str]) -> Finished {
    let url = url(broker);
    run(PUB, &[&["--url", &url][..], arguments].concat()).expect(0)
}

/// An `hbmqtt_sub -d` that has its subscriptions.
fn subscriber(broker: &Broker, arguments: &[&str]) -> Tool {
    let url = url(broker);
    let tool = Tool::start(SUB, &[&["--url", &url, "-d"][..], arguments].concat());
    tool.wait_until_subscribed();
    tool
}

/// A client that has subscribed to everything, to see what the programs publish.
fn observer(broker: &Broker, filter: &str) -> Client {
    let mut client = Client::connect(broker, V311);
    client.subscribe(filter, 2);
    client
}

/// The next message that an observer gets.
fn receive(client: &mut Client) -> Publish {
    let publish = client.receive_publish();
    client.acknowledge(&publish);
    publish
}
