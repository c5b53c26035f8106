//! Lines through the command-line tools: what goes into the publishing one must come out of the receiving one.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::Measured;
use super::peer::TOPIC;
use crate::clock::{cpu_us, now, pause};
use crate::fault::Fault;
use crate::{Options, find};

/// Whose tools.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tools {
    Hbmqtt,
    Mosquitto,
}

impl Tools {
    pub(super) fn are_there(self, options: &Options) -> bool {
        self.program(options, "pub").is_some() && self.program(options, "sub").is_some()
    }

    /// Ours stand beside the broker.
    fn program(self, options: &Options, what: &str) -> Option<PathBuf> {
        match self {
            Self::Hbmqtt => Some(options.hbmqtt.with_file_name(format!("hbmqtt_{what}"))),
            Self::Mosquitto => find(&format!("mosquitto_{what}"), &["/usr/bin"]),
        }
    }

    /// The command, with the options that both kinds know.
    fn command(
        self,
        options: &Options,
        what: &str,
        qos: u8,
        broker: SocketAddr,
    ) -> Result<Command, Fault> {
        let program = self.program(options, what);
        let mut command = Command::new(program.ok_or(Fault::Wrong("a tool is missing"))?);
        let port = broker.port().to_string();
        command
            .args(["--host", &broker.ip().to_string(), "-p", &port])
            .args(["-t", TOPIC, "-q", &qos.to_string()])
            .stderr(Stdio::null());
        Ok(command)
    }
}

/// A child that is ended when it is dropped.
struct Tool(Child);

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn run(
    options: &Options,
    tools: Tools,
    qos: u8,
    broker: SocketAddr,
) -> Result<Measured, Fault> {
    let lines: u64 = if options.is_smoke { 2_000 } else { 1_000_000 };
    let mut subscriber = tools.command(options, "sub", qos, broker)?;
    let count = lines.to_string();
    let subscriber = subscriber.args(["-C", &count]).stdout(Stdio::piped());
    let mut subscriber = Tool(subscriber.spawn()?);
    // Nothing tells when it has subscribed.
    pause(if options.is_smoke { 1000 } else { 500 });
    let mut publisher = tools.command(options, "pub", qos, broker)?;
    let publisher = publisher.arg("-l").stdin(Stdio::piped());
    let mut publisher = Tool(publisher.spawn()?);
    let start = now();
    let input = publisher.0.stdin.take();
    #[expect(clippy::disallowed_methods, reason = "a benchmark has a few threads")]
    let writer = thread::spawn(move || write_lines(input, lines));
    read_lines(&mut subscriber.0, lines)?;
    let seconds = (now() - start).as_secs_f64();
    let failed = |_| Fault::Wrong("the writing thread failed");
    writer.join().map_err(failed)??;
    Ok(Measured {
        messages: lines,
        seconds,
        cpu_us: [
            Some(cpu_at_end(&publisher.0)?),
            Some(cpu_at_end(&subscriber.0)?),
        ],
    })
}

/// Writes the numbers, 16 digits each.
fn write_lines(input: Option<ChildStdin>, lines: u64) -> Result<(), Fault> {
    let Some(mut input) = input else {
        return Err(Fault::Wrong("no way to write lines to the tool"));
    };
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    for number in 0..lines {
        writeln!(chunk, "{number:016}")?;
        if chunk.len() + LINE_BYTES > CHUNK_BYTES || number + 1 == lines {
            input.write_all(&chunk)?;
            chunk.clear();
        }
    }
    Ok(())
}

/// Reads them, and insists on each in its turn.
fn read_lines(subscriber: &mut Child, lines: u64) -> Result<(), Fault> {
    let Some(output) = &mut subscriber.stdout else {
        return Err(Fault::Wrong("no way to read lines from the tool"));
    };
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut due, mut filled) = (0_u64, 0);
    loop {
        if !is_readable(output)? {
            return Err(Fault::Stalled {
                missing: lines - due,
            });
        }
        let read = output.read(&mut buffer[filled..])?;
        if read == 0 {
            break;
        }
        filled += read;
        let whole = filled - filled % LINE_BYTES;
        for line in buffer[..whole].chunks_exact(LINE_BYTES) {
            let came = number(line).ok_or(Fault::Wrong("a line that nobody wrote"))?;
            if came != due {
                return Err(Fault::OutOfTurn { due, came });
            }
            due += 1;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
    if due < lines {
        return Err(Fault::Stalled {
            missing: lines - due,
        });
    }
    Ok(())
}

/// False: for a long time nothing has come.
fn is_readable(output: &impl AsFd) -> Result<bool, Fault> {
    let mut wanted = [PollFd::new(output, PollFlags::IN)];
    Ok(poll(&mut wanted, Some(&PATIENCE))? > 0)
}

fn number(line: &[u8]) -> Option<u64> {
    let digits = line.strip_suffix(b"\n")?;
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// The CPU time of a tool from its start to its end, in µs. It must end well.
fn cpu_at_end(tool: &Child) -> Result<f64, Fault> {
    let pid = i32::try_from(tool.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(Fault::Wrong("a process without id"))?;
    // What /proc knows of it is there until somebody waits for it.
    let ended = waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )?;
    if ended.and_then(|status| status.exit_status()) != Some(0) {
        return Err(Fault::Wrong("a tool failed"));
    }
    Ok(cpu_us(tool.id())?)
}

/// What a receiving tool cannot keep up with waits in the broker, as it does in mosquitto without limits.
pub(super) const SETTINGS: &str =
    "limits: {max-outbox-bytes: 1 GiB, max-queued-messages: 2000000, max-queued-bytes: 1 GiB}\n";

const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

const LINE_BYTES: usize = 17;

const CHUNK_BYTES: usize = 64 * 1024;
