//! Load generator and comparison of MQTT brokers. The README beside says how to run it and what is measured.

mod brokers;
mod client;
mod clock;
mod connection;
mod fault;
mod frames;
mod poller;
mod relay;
mod report;
mod scenarios;
#[path = "../../../src/bin/hbmqtt_bench/stamp.rs"]
mod stamp;
mod traffic;
mod websocket;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::brokers::{Broker, Certificate, Kind};
use crate::connection::Target;
use crate::fault::Fault;
use crate::report::Results;
use crate::scenarios::{Bench, SCENARIOS, Scenario};

const USAGE: &str = "\
usage: hbmqtt-bench [options] [scenario…]               compare brokers, print a table
       hbmqtt-bench run ADDRESS [options] [scenario…]   load the broker that listens there
       hbmqtt-bench client [options] [word…]            measure the client library and the tools
       hbmqtt-bench list                                name the scenarios
options:
  --hbmqtt PATH      our program (default target/release/hbmqtt)
  --mosquitto PATH   mosquitto (default: where PATH or /usr/sbin has it; left out if nowhere)
  --rumqttd PATH     rumqttd (default: where PATH or ~/.cargo/bin has it; left out if nowhere)
  --without NAME     leave out hbmqtt, mosquitto, rumqttd or relay
  --rounds N         how often everything runs in turn (default 3)
  --seconds S        duration of one measurement (default 2)
  --pid N            with `run`: the broker's process, for its CPU time and memory
  --smoke            everything once with tiny counts and no table; faults of every broker but rumqttd count
exit status: 0; 1 if hbmqtt (with --smoke or `run`: any broker) lost, doubled or reordered a message; 2 for a wrong usage";

struct Options {
    words: Vec<String>,
    hbmqtt: PathBuf,
    mosquitto: Option<PathBuf>,
    rumqttd: Option<PathBuf>,
    without: Vec<String>,
    rounds: usize,
    time: Duration,
    pid: Option<u32>,
    is_smoke: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // A wait of 200 µs is to last 200 µs, and many connections are wanted.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        },
    );
    let result = match arguments.first().map(String::as_str) {
        Some("relay") => relay(&arguments[1..]),
        Some("client-part") => client::run_part(&arguments[1..]),
        _ => match Options::parse(arguments) {
            Some(options) => act(&options),
            None => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("hbmqtt-bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(arguments: Vec<String>) -> Option<Self> {
        let mut options = Self {
            words: Vec::new(),
            hbmqtt: PathBuf::from("target/release/hbmqtt"),
            mosquitto: find("mosquitto", &["/usr/sbin"]),
            rumqttd: find_rumqttd(),
            without: Vec::new(),
            rounds: 3,
            time: Duration::from_secs(2),
            pid: None,
            is_smoke: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--hbmqtt" => options.hbmqtt = arguments.next()?.into(),
                "--mosquitto" => options.mosquitto = Some(arguments.next()?.into()),
                "--rumqttd" => options.rumqttd = Some(arguments.next()?.into()),
                "--without" => options.without.push(arguments.next()?),
                "--rounds" => options.rounds = arguments.next()?.parse().ok()?,
                "--seconds" => {
                    options.time =
                        Duration::try_from_secs_f64(arguments.next()?.parse().ok()?).ok()?;
                }
                "--pid" => options.pid = Some(arguments.next()?.parse().ok()?),
                "--smoke" => {
                    options.is_smoke = true;
                    options.rounds = 1;
                    options.time = Duration::from_millis(150);
                }
                option if option.starts_with('-') => return None,
                _ => options.words.push(argument),
            }
        }
        Some(options)
    }

    /// The scenarios that `names` chooses, all if it is empty.
    fn scenarios(names: &[String]) -> Result<Vec<&'static Scenario>, Fault> {
        if names.is_empty() {
            return Ok(SCENARIOS.iter().collect());
        }
        let find = |name: &String| {
            let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
            found
                .ok_or_else(|| io::Error::other(format!("no scenario '{name}'; see 'list'")).into())
        };
        names.iter().map(find).collect()
    }

    fn brokers(&self) -> Result<Vec<Broker>, Fault> {
        let all = [
            (Kind::Hbmqtt, Some(self.hbmqtt.clone())),
            (Kind::Mosquitto, self.mosquitto.clone()),
            (Kind::Rumqttd, self.rumqttd.clone()),
            (Kind::Relay, Some(env::current_exe()?)),
        ];
        let brokers = all.into_iter().filter_map(|(kind, program)| {
            Some(Broker {
                kind,
                program: program?,
            })
        });
        Ok(brokers
            .filter(|broker| !self.without.iter().any(|name| name == broker.kind.name()))
            .collect())
    }
}

/// Where `cargo install` puts it.
fn find_rumqttd() -> Option<PathBuf> {
    let home = env::var("HOME").unwrap_or_default();
    find("rumqttd", &[&format!("{home}/.cargo/bin")])
}

/// A program in PATH or in one of `more` folders.
fn find(name: &str, more: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(more.iter().map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Whether all went well.
fn act(options: &Options) -> Result<bool, Fault> {
    match options.words.split_first() {
        Some((word, _)) if word == "list" => {
            for scenario in SCENARIOS {
                let works: Vec<&str> = scenario.rows.iter().map(|row| row.work).collect();
                println!("{:10} {}", scenario.name, works.join("; "));
            }
            Ok(true)
        }
        Some((word, rest)) if word == "run" => run(options, rest),
        Some((word, rest)) if word == "client" => client::compare(options, rest),
        _ => compare(options),
    }
}

fn relay(arguments: &[String]) -> Result<bool, Fault> {
    let address = |at: usize| -> Result<SocketAddr, Fault> {
        let address = arguments.get(at).and_then(|text| text.parse().ok());
        address.ok_or(Fault::Wrong("relay wants three addresses and two files"))
    };
    let [plain, tls, websocket] = [address(0)?, address(1)?, address(2)?];
    let file = |at: usize| Path::new(arguments.get(at).map_or("", String::as_str));
    let config = Certificate::read(file(3), file(4))?.server_config()?;
    relay::serve(plain, tls, websocket, &config)?;
    Ok(true)
}

/// Loads a broker that runs already.
fn run(options: &Options, words: &[String]) -> Result<bool, Fault> {
    let Some((address, names)) = words.split_first() else {
        return Err(Fault::Wrong("run wants an address"));
    };
    let address = address
        .parse()
        .map_err(|_| Fault::Wrong("run wants an address such as 127.0.0.1:1883"))?;
    let target = Target::Plain(address);
    let Options {
        pid,
        time,
        is_smoke,
        ..
    } = *options;
    let bench = Bench {
        plain: &target,
        tls: None,
        websocket: Some(&target),
        pid,
        time,
        is_smoke,
    };
    let mut is_well = true;
    for scenario in Options::scenarios(names)? {
        match scenario.run(&bench) {
            Ok(measured) => {
                for (row, measured) in scenario.rows.iter().zip(measured) {
                    println!("{}: {}", row.work, report::sentence(&measured));
                }
            }
            Err(fault) => {
                is_well = false;
                println!("{}: {fault}", scenario.name);
            }
        }
    }
    Ok(is_well)
}

/// Starts every broker for every scenario, round after round, and prints the table.
fn compare(options: &Options) -> Result<bool, Fault> {
    let scenarios = Options::scenarios(&options.words)?;
    let brokers = options.brokers()?;
    let certificate = Certificate::new()?;
    let mut results = Results::default();
    let mut is_well = true;
    for round in 1..=options.rounds {
        for scenario in &scenarios {
            for broker in &brokers {
                if !can(broker.kind, scenario) {
                    continue;
                }
                eprintln!("round {round}: {} on {}", scenario.name, broker.kind.name());
                match measure(options, scenario, broker, &certificate) {
                    Ok(measured) => {
                        for (row, measured) in scenario.rows.iter().zip(measured) {
                            eprintln!("  {}", report::sentence(&measured));
                            results.add(row, broker.kind, measured);
                        }
                    }
                    Err(fault) => {
                        eprintln!("  {fault}");
                        // rumqttd loses retained messages: that is for the table alone.
                        let counts = options.is_smoke && broker.kind != Kind::Rumqttd;
                        is_well &= broker.kind != Kind::Hbmqtt && !counts;
                        results.add_fault(scenario, broker.kind, fault.to_string());
                    }
                }
            }
        }
    }
    if options.is_smoke {
        println!(
            "{}",
            if is_well {
                "nothing lost, doubled or reordered"
            } else {
                "failed"
            }
        );
        return Ok(is_well);
    }
    let kinds: Vec<Kind> = brokers.iter().map(|broker| broker.kind).collect();
    println!(
        "{}\n{}",
        preamble(options, &brokers),
        results.table(&scenarios, &kinds)
    );
    Ok(is_well)
}

fn can(kind: Kind, scenario: &Scenario) -> bool {
    let (is_relay, needs_websocket) = (kind == Kind::Relay, scenario.name == "websocket");
    // What grows with what is a question to ourselves.
    let is_ours = kind == Kind::Hbmqtt || scenario.name != "growth";
    (scenario.on_relay || !is_relay) && (kind.has_websocket() || !needs_websocket) && is_ours
}

fn measure(
    options: &Options,
    scenario: &Scenario,
    broker: &Broker,
    certificate: &Certificate,
) -> Result<Vec<scenarios::Measured>, Fault> {
    let running = broker.start(certificate)?;
    scenario.run(&Bench::of(&running, options.time, options.is_smoke))
}

/// Where and with what the table was made.
fn preamble(options: &Options, brokers: &[Broker]) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let mut text = format!(
        "{} cores, {}; Linux {}; load {}; {} rounds of {} s each.\n",
        std::thread::available_parallelism().map_or(0, usize::from),
        model.trim_start_matches(['\t', ' ', ':']).trim(),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg")
            .split_ascii_whitespace()
            .next()
            .unwrap_or_default(),
        options.rounds,
        options.time.as_secs_f64(),
    );
    for broker in brokers {
        text.push_str(&format!("- {}: {}\n", broker.kind.name(), broker.version()));
    }
    text
}
