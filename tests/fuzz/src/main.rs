//! Seeded mutation fuzzers: no nightly compiler, no instrumentation, the same run for the same seed.
//!
//! ```text
//! cargo run --release --manifest-path tests/fuzz/Cargo.toml -- decoder --seconds 60 [--seed 1]
//! ```
//!
//! The starting packets are the lines of `tests/vectors`. A finding is printed in hex with its seed and ends the run with
//! exit status 1; it belongs into `tests/vectors` as a new line, before it is mended.

mod decoder;
mod mutate;
mod random;
mod seeds;

use std::process::ExitCode;
use std::time::Duration;

/// What the command line asks for.
#[derive(Debug, Clone, Copy)]
struct Settings {
    /// How long to run.
    time: Duration,
    /// Where the random numbers begin.
    seed: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, settings) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(message) => {
            eprintln!("{message}\nusage: decoder [--seconds N] [--seed N]");
            return ExitCode::from(2);
        }
    };
    let found = match target {
        Target::Decoder => decoder::run(settings),
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
}

fn parse(arguments: &[String]) -> Result<(Target, Settings), String> {
    let Some((target, options)) = arguments.split_first() else {
        return Err("no target".to_owned());
    };
    let target = match target.as_str() {
        "decoder" => Target::Decoder,
        other => return Err(format!("unknown target {other}")),
    };
    let mut settings = Settings {
        time: Duration::from_secs(10),
        seed: 1,
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
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok((target, settings))
}
