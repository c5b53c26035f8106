//! The client library and the command-line tools: what they publish and receive a second, and what a message costs them.
//!
//! ```text
//!   part (a process of its own: the library) ◄──► bare peer | hbmqtt | mosquitto
//!   lines ──► hbmqtt_pub -l | mosquitto_pub -l ──► hbmqtt ──► hbmqtt_sub | mosquitto_sub ──► lines
//! ```
//!
//! The bare peer is a thread of this program that only checks and acknowledges, or only sends: what the client can do when
//! nobody else works.

#[cfg(feature = "client")]
mod feeder;
#[cfg(feature = "client")]
mod part;
mod peer;
mod pipe;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::{env, io};

use crate::brokers::{Certificate, Kind, Running};
use crate::connection::Target;
use crate::fault::Fault;
use crate::report::{figure, thousands};
use crate::{Options, preamble};
use pipe::Tools;

/// What stands on the other side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// See [`peer`].
    Bare,
    Broker(Kind),
}

/// What the client does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Publish,
    Receive,
}

/// One row of the table.
#[derive(Clone, Copy)]
enum Work {
    /// The library in one process, with one thread of the program.
    Library(Role, Peer),
    /// The same, publishing to our broker, with a store on disk.
    Stored,
    /// Lines through our broker.
    Pipe(Tools),
}

struct Row {
    name: &'static str,
    work: Work,
    qos: u8,
    /// Messages a second that issue and documentation ask for.
    target: Option<f64>,
}

/// One measurement.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    pub(super) messages: u64,
    pub(super) seconds: f64,
    /// Of the library's process, or of the publishing and the receiving tool.
    pub(super) cpu_us: [Option<f64>; 2],
}

const BARE: Peer = Peer::Bare;
const OURS: Peer = Peer::Broker(Kind::Hbmqtt);
const THEIRS: Peer = Peer::Broker(Kind::Mosquitto);

const fn library(name: &'static str, role: Role, qos: u8, peer: Peer, target: Option<f64>) -> Row {
    Row {
        name,
        work: Work::Library(role, peer),
        qos,
        target,
    }
}

const fn stored(name: &'static str, qos: u8) -> Row {
    Row {
        name,
        work: Work::Stored,
        qos,
        target: None,
    }
}

const fn pipe(name: &'static str, qos: u8, tools: Tools, target: Option<f64>) -> Row {
    Row {
        name,
        work: Work::Pipe(tools),
        qos,
        target,
    }
}

const MILLION: Option<f64> = Some(1_000_000.0);
const FIFTH: Option<f64> = Some(200_000.0);
const HALF: Option<f64> = Some(500_000.0);

/// mosquitto's tools at QoS 1 are missing: `mosquitto_pub -l` 2.0 ends before all that it has read is sent.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    library("publish, QoS 0, to a bare sink", Role::Publish, 0, BARE, None),
    library("publish, QoS 0, to hbmqtt", Role::Publish, 0, OURS, MILLION),
    library("publish, QoS 0, to mosquitto", Role::Publish, 0, THEIRS, None),
    library("publish, QoS 1, to a bare sink", Role::Publish, 1, BARE, None),
    library("publish, QoS 1, to hbmqtt", Role::Publish, 1, OURS, FIFTH),
    library("publish, QoS 1, to mosquitto", Role::Publish, 1, THEIRS, None),
    library("publish, QoS 2, to hbmqtt", Role::Publish, 2, OURS, None),
    stored("publish, QoS 1, to hbmqtt, with a store", 1),
    stored("publish, QoS 2, to hbmqtt, with a store", 2),
    library("receive, QoS 0, from a bare source", Role::Receive, 0, BARE, None),
    library("receive, QoS 0, from hbmqtt", Role::Receive, 0, OURS, MILLION),
    library("receive, QoS 0, from mosquitto", Role::Receive, 0, THEIRS, None),
    library("receive, QoS 1, from a bare source", Role::Receive, 1, BARE, None),
    library("receive, QoS 1, from hbmqtt", Role::Receive, 1, OURS, FIFTH),
    library("receive, QoS 1, from mosquitto", Role::Receive, 1, THEIRS, None),
    pipe("pipe, QoS 0, hbmqtt's tools", 0, Tools::Hbmqtt, HALF),
    pipe("pipe, QoS 0, mosquitto's tools", 0, Tools::Mosquitto, None),
    pipe("pipe, QoS 1, hbmqtt's tools", 1, Tools::Hbmqtt, None),
];

/// The process that uses the library: ADDRESS ROLE QOS SECONDS, and `bare`, `fed` or `stored`.
#[cfg(feature = "client")]
pub(crate) fn run_part(arguments: &[String]) -> Result<bool, Fault> {
    part::run(arguments).map(|()| true)
}

#[cfg(not(feature = "client"))]
pub(crate) fn run_part(_: &[String]) -> Result<bool, Fault> {
    Err(Fault::Wrong("built without the feature 'client'"))
}

/// Measures the rows whose name contains one of `words`, all if there is none, and prints the table.
pub(crate) fn compare(options: &Options, words: &[String]) -> Result<bool, Fault> {
    if cfg!(not(feature = "client")) {
        return Err(Fault::Wrong(
            "the client is measured by a build with the feature 'client': cargo run --release \
             --manifest-path tests/bench/Cargo.toml --features client -- client",
        ));
    }
    let is_wanted =
        |row: &&Row| words.is_empty() || words.iter().any(|word| row.name.contains(word));
    let rows: Vec<&Row> = ROWS.iter().filter(is_wanted).collect();
    let certificate = Certificate::new()?;
    let mut results: Vec<Vec<Measured>> = rows.iter().map(|_| Vec::new()).collect();
    let mut is_well = true;
    for round in 1..=options.rounds {
        for (row, results) in rows.iter().zip(&mut results) {
            if !row.can_run(options) {
                continue;
            }
            eprintln!("round {round}: {}", row.name);
            match row.measure(options, &certificate) {
                Ok(measured) => {
                    eprintln!("  {}", measured.sentence());
                    results.push(measured);
                }
                Err(fault) => {
                    eprintln!("  {fault}");
                    is_well = false;
                }
            }
        }
    }
    if options.is_smoke {
        let verdict = if is_well {
            "nothing lost, doubled or reordered"
        } else {
            "failed"
        };
        println!("{verdict}");
        return Ok(is_well);
    }
    println!(
        "{}\n{}",
        preamble(options, &options.brokers()?),
        table(&rows, &results)
    );
    Ok(is_well)
}

impl Row {
    /// Whether the programs are there.
    fn can_run(&self, options: &Options) -> bool {
        let is_left_out = |kind: Kind| options.without.iter().any(|name| name == kind.name());
        let has_mosquitto = options.mosquitto.is_some() && !is_left_out(Kind::Mosquitto);
        match self.work {
            Work::Library(_, Peer::Broker(Kind::Mosquitto)) => has_mosquitto,
            Work::Pipe(Tools::Mosquitto) => has_mosquitto && Tools::Mosquitto.are_there(options),
            Work::Library(..) | Work::Stored | Work::Pipe(Tools::Hbmqtt) => true,
        }
    }

    fn measure(&self, options: &Options, certificate: &Certificate) -> Result<Measured, Fault> {
        match self.work {
            Work::Library(role, Peer::Bare) => {
                let bare = peer::start(role, self.qos)?;
                let measured = self.run_part(options, role, bare.address, "bare")?;
                bare.end(measured.messages)?;
                Ok(measured)
            }
            Work::Library(role, Peer::Broker(kind)) => {
                let running = start(options, kind, certificate, "")?;
                self.run_part(options, role, address(&running)?, "fed")
            }
            Work::Stored => {
                let running = start(options, Kind::Hbmqtt, certificate, "")?;
                self.run_part(options, Role::Publish, address(&running)?, "stored")
            }
            Work::Pipe(tools) => {
                let running = start(options, Kind::Hbmqtt, certificate, pipe::SETTINGS)?;
                pipe::run(options, tools, self.qos, address(&running)?)
            }
        }
    }

    fn run_part(
        &self,
        options: &Options,
        role: Role,
        address: SocketAddr,
        manner: &str,
    ) -> Result<Measured, Fault> {
        let output = Command::new(env::current_exe()?)
            .arg("client-part")
            .args([address.to_string(), role.name().to_owned()])
            .args([self.qos.to_string(), options.time.as_secs_f64().to_string()])
            .arg(manner)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<f64> = text
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [messages, seconds, cpu_us] if output.status.success() => Ok(Measured {
                messages: messages as u64,
                seconds,
                cpu_us: [Some(cpu_us), None],
            }),
            _ => Err(Fault::Wrong("the client failed")),
        }
    }
}

fn start(
    options: &Options,
    kind: Kind,
    certificate: &Certificate,
    more: &str,
) -> Result<Running, Fault> {
    let brokers = options.brokers()?;
    let broker = brokers.iter().find(|broker| broker.kind == kind);
    broker
        .ok_or(Fault::Wrong("the broker is left out"))?
        .start_with(certificate, more)
}

fn address(running: &Running) -> Result<SocketAddr, Fault> {
    match running.plain {
        Target::Plain(address) => Ok(address),
        _ => Err(io::Error::other("not a plain listener").into()),
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Receive => "receive",
        }
    }
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    fn cpu_each(&self, at: usize) -> Option<f64> {
        Some(self.cpu_us[at]? / self.messages.max(1) as f64)
    }

    fn sentence(&self) -> String {
        let mut text = format!(
            "{} in {:.2} s, {} a second",
            thousands(self.messages as f64),
            self.seconds,
            thousands(self.per_second())
        );
        for at in 0..self.cpu_us.len() {
            if let Some(cpu) = self.cpu_each(at) {
                let _ = write!(text, ", CPU {} µs each", figure(cpu));
            }
        }
        text
    }
}

/// The table in Markdown: medians, with the least and the most.
fn table(rows: &[&Row], results: &[Vec<Measured>]) -> String {
    let mut table = String::from(
        "| work, 16 B | messages a second | CPU µs each | target |\n|---|---|---|---|\n",
    );
    for (row, measured) in rows.iter().zip(results) {
        let Some(rate) = spread(measured, |one| Some(one.per_second())) else {
            continue;
        };
        let cpu: Vec<String> = (0..2)
            .filter_map(|at| spread(measured, |one| one.cpu_each(at)))
            .map(|[least, median, most]| {
                format!("{} ({}–{})", figure(median), figure(least), figure(most))
            })
            .collect();
        let [least, median, most] = rate;
        let target = row.target.map_or_else(String::new, |target| {
            let verdict = if median >= target { "met" } else { "missed" };
            format!("{} {verdict}", thousands(target))
        });
        let _ = writeln!(
            table,
            "| {} | {} ({}–{}) | {} | {target} |",
            row.name,
            thousands(median),
            thousands(least),
            thousands(most),
            cpu.join(" + "),
        );
    }
    table
}

/// Least, median and most.
fn spread(measured: &[Measured], value: impl Fn(&Measured) -> Option<f64>) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = measured.iter().filter_map(value).collect();
    values.sort_by(f64::total_cmp);
    let median = *values.get(values.len() / 2)?;
    Some([*values.first()?, median, *values.last()?])
}
