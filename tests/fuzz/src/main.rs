//! Seeded mutation fuzzers: no nightly compiler, no instrumentation, the same inputs for the same seed.
//!
//! ```text
//! cargo run --release --manifest-path tests/fuzz/Cargo.toml -- decoder --seconds 60 [--seed 1]
//! cargo run --release --manifest-path tests/fuzz/Cargo.toml -- connection --seconds 60 [--seed 1] [--first 0]
//! ```
//!
//! `decoder` throws packets at the codec. They start from the lines of `tests/vectors`; a finding is printed in hex and
//! belongs there as a new line, before it is mended.
//!
//! `connection` throws connections at a whole broker. A finding is printed with the command that leads to it again:
//! `--first` is the execution at which the broker that failed was started.
//!
//! A finding ends the run with exit status 1. For a long run choose another seed than the last one had, and a free core:
//!
//! ```text
//! nice cargo run --release --manifest-path tests/fuzz/Cargo.toml -- connection --seconds 3600 --seed $RANDOM
//! ```

mod connection;
mod decoder;
mod mutate;
mod packets;
mod place;
mod play;
mod random;
mod replies;
mod seeds;

use std::process::ExitCode;
use std::time::Duration;

use peak_alloc::PeakAlloc;

/// Counts the bytes in use.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What the command line asks for.
#[derive(Debug, Clone, Copy)]
struct Settings {
    /// How long to run.
    time: Duration,
    /// Where the random numbers begin.
    seed: u64,
    /// The number of the first execution.
    first: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, settings) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(message) => {
            eprintln!("{message}\nusage: decoder|connection [--seconds N] [--seed N] [--first N]");
            return ExitCode::from(2);
        }
    };
    let found = match target {
        Target::Decoder => decoder::run(settings),
        Target::Connection => connection::run(settings),
    };
    if found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What to fuzz.
#[derive(Debug, Clone, Copy)]
enum Target {
    Decoder,
    Connection,
}

fn parse(arguments: &[String]) -> Result<(Target, Settings), String> {
    let Some((target, options)) = arguments.split_first() else {
        return Err("no target".to_owned());
    };
    let target = match target.as_str() {
        "decoder" => Target::Decoder,
        "connection" => Target::Connection,
        other => return Err(format!("unknown target {other}")),
    };
    let mut settings = Settings {
        time: Duration::from_secs(10),
        seed: 1,
        first: 0,
    };
    for option in options.chunks(2) {
        let [name, value] = option else {
            return Err(format!("{} without a value", option[0]));
        };
        let value: u64 = value
            .parse()
            .map_err(|_| format!("{name} {value}: not a number"))?;
        match name.as_str() {
            "--seconds" => settings.time = Duration::from_secs(value),
            "--seed" => settings.seed = value,
            "--first" => settings.first = value,
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok((target, settings))
}
