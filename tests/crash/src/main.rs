//! Kills the broker and looks what is left. The README beside says what is checked and how to run it.

mod arena;
mod broker;
mod bulk;
mod cast;
mod check;
mod clock;
mod cost;
mod fault;
mod frames;
mod model;
mod peers;
mod publisher;
mod random;
mod rounds;
mod subscriber;
mod trouble;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fmt};

use crate::fault::Fault;
use crate::peers::Sizes;
use crate::random::Random;

const USAGE: &str = "\
usage: hbmqtt-crash [options] rounds [N]     N rounds (200) of load, kill -9, restart, check
       hbmqtt-crash [options] peers [N]      five checks that other brokers fail; N messages (1000000) in the last
       hbmqtt-crash [options] trouble [N]    a full disk, a second broker, N damaged stores (100)
       hbmqtt-crash [options] cost [N]       what durability costs, as Markdown: medians of N rounds (3)
       hbmqtt-crash [options] smoke          a little of the first three, in seconds
options:
  --hbmqtt PATH      our program (default target/release/hbmqtt)
  --seed N           of the random numbers (default: from the clock; it is printed)
  --per-store N      rounds on one store (20)
  --messages N       messages of each publisher in a round, at most (2000)
  --longest MS       the longest time from the start of a round's load to the kill (1500)
  --durability TEXT  with `rounds`: another durability than 'group', to see violations
  --mosquitto PATH   with `cost` (default: where PATH or /usr/sbin has it; left out if nowhere)
  --seconds S        with `cost`: duration of one measurement (3)
  --many N           with `cost`: messages in the large store (1000000; 0: no such store)
  --shape N          with `cost`: only this one of the three loads
  --against PATH     with `cost`: another build of hbmqtt, measured beside with `durability: group`
HBMQTT_CRASH_DIR names the directory for stores (default: that for temporary files); `cost` measures its disk.
exit status: 0; 1 if anything was violated; 2 for a wrong usage";

struct Options {
    words: Vec<String>,
    hbmqtt: PathBuf,
    seed: u64,
    per_store: usize,
    messages: usize,
    longest: u64,
    durability: String,
    mosquitto: Option<PathBuf>,
    seconds: f64,
    many: u64,
    shape: Option<usize>,
    against: Option<PathBuf>,
}

fn main() -> ExitCode {
    if env::args().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("hbmqtt-crash: {text}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if !options.hbmqtt.is_file() {
        let path = options.hbmqtt.display();
        eprintln!("hbmqtt-crash: {path} is not there; `cargo build --release` makes it");
        return ExitCode::from(2);
    }
    match options.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            println!("{fault}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let from_clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut options = Self {
            words: Vec::new(),
            hbmqtt: PathBuf::from("target/release/hbmqtt"),
            seed: from_clock.map_or(1, |time| time.as_millis() as u64 % 1_000_000),
            per_store: 20,
            messages: 2_000,
            longest: 1_500,
            durability: "group".to_owned(),
            mosquitto: find_mosquitto(),
            seconds: 3.0,
            many: 1_000_000,
            shape: None,
            against: None,
        };
        while let Some(argument) = arguments.next() {
            if !argument.starts_with('-') {
                options.words.push(argument);
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("'{argument}' is unknown, or has no value"))?;
            match argument.as_str() {
                "--hbmqtt" => options.hbmqtt = value.into(),
                "--mosquitto" => options.mosquitto = Some(value.into()),
                "--durability" => options.durability = value,
                "--seed" => options.seed = number(&value)?,
                "--per-store" => options.per_store = number::<usize>(&value)?.max(1),
                "--messages" => options.messages = number(&value)?,
                "--longest" => options.longest = number::<u64>(&value)?.max(20),
                "--seconds" => options.seconds = number(&value)?,
                "--many" => options.many = number(&value)?,
                "--shape" => options.shape = Some(number(&value)?),
                "--against" => options.against = Some(value.into()),
                _ => return Err(format!("'{argument}' is unknown")),
            }
        }
        match options.words.len() {
            1 => Ok(options),
            2 => number::<u64>(&options.words[1]).map(|_| options),
            _ => Err("one command is needed".to_owned()),
        }
    }

    fn run(&self) -> Result<bool, Fault> {
        let program = self.hbmqtt.canonicalize()?;
        let program = &*program;
        let count = self.words.get(1).and_then(|word| word.parse::<u64>().ok());
        let count = |default: u64| count.unwrap_or(default);
        let mut random = Random::new(self.seed);
        match self.words[0].as_str() {
            "rounds" => rounds::run(&self.rounds(count(200) as usize), program),
            "peers" => {
                let sizes = Sizes {
                    some: 5_000,
                    many: count(1_000_000),
                };
                peers::run(sizes, program, &mut random)
            }
            "trouble" => {
                println!("seed {}", self.seed);
                trouble::run(count(100) as usize, program, &mut random)
            }
            "cost" => {
                let plan = cost::Plan {
                    rounds: count(3) as usize,
                    time: Duration::from_secs_f64(self.seconds),
                    mosquitto: self.mosquitto.clone(),
                    many: self.many,
                    shape: self.shape,
                    against: self.against.clone(),
                };
                cost::run(&plan, program).map(|()| true)
            }
            "smoke" => self.smoke(program, &mut random),
            other => Err(Fault::Wrong(format!("'{other}' is no command\n{USAGE}"))),
        }
    }

    fn rounds(&self, rounds: usize) -> rounds::Plan {
        rounds::Plan {
            rounds,
            seed: self.seed,
            rounds_per_store: self.per_store,
            budget: self.messages,
            longest: Duration::from_millis(self.longest),
            durability: self.durability.clone(),
            only_kills: false,
        }
    }

    fn smoke(&self, program: &Path, random: &mut Random) -> Result<bool, Fault> {
        let plan = rounds::Plan {
            budget: 200,
            longest: Duration::from_millis(500),
            ..self.rounds(3)
        };
        let sizes = Sizes {
            some: 500,
            many: 5_000,
        };
        let passes = rounds::finds_losses(&plan, program)?;
        let passes = rounds::run(&plan, program)? && passes;
        let passes = peers::run(sizes, program, random)? && passes;
        Ok(trouble::run(8, program, random)? && passes)
    }
}

fn number<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error| format!("'{text}' is no number: {error}"))
}

fn find_mosquitto() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).collect::<Vec<_>>();
    places.push("/usr/sbin".into());
    let mut programs = places.into_iter().map(|place| place.join("mosquitto"));
    programs.find(|program| program.is_file())
}
