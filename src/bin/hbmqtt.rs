//! `hbmqtt`: the MQTT broker.

#[path = "shared"]
mod shared {
    pub(crate) mod args;
    pub(crate) mod clock;
    pub(crate) mod exit;
    pub(crate) mod log;
    pub(crate) mod log_file;
    pub(crate) mod manual;
    pub(crate) mod program;
}
#[path = "hbmqtt/print.rs"]
mod print;
#[path = "hbmqtt/store.rs"]
mod store;
#[path = "hbmqtt/subcommand.rs"]
mod subcommand;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use hbmqtt::broker::config::{BindAddress, ListenerConfig};
use hbmqtt::broker::{Broker, BrokerError, Config};
use hbmqtt::client::ConnectOptions;
use log::{LevelFilter, error, info};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use shared::args::{Table, Words};
use shared::exit::{self, Failure};
use shared::log::Format;
use shared::log_file::{self, LogFile, Reopen};
use shared::manual;
use shared::program::Program;

/// Runs an MQTT broker for MQTT 3.1, 3.1.1 and 5.0. Without a configuration file it listens on 0.0.0.0:1883 and everyone
/// may connect. SIGTERM and SIGINT end it, SIGHUP reads the configuration again and opens the log file anew.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    help_triggers("-h", "--help"),
    usage = "[-c <config_file>] [-d] [more options]
       hbmqtt pub | sub | rr | passwd | store ..."
)]
struct Args {
    /// the YAML configuration file; it replaces the default configuration
    #[argh(option, short = 'c', arg_name = "file")]
    config: Option<String>,
    /// the port of the listener 'default', 0 = one that is free (1883)
    #[argh(option, short = 'p', arg_name = "port", from_str_fn(port))]
    port: Option<u16>,
    /// log packets; twice: everything
    #[argh(switch, short = 'd')]
    debug: u8,
    /// log errors only
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// what is logged: error, warning, info, debug or trace (info)
    #[argh(option, arg_name = "level", from_str_fn(log_file::level))]
    log_level: Option<LevelFilter>,
    /// log to the end of this file instead of standard error
    #[argh(option, arg_name = "file")]
    log_file: Option<String>,
    /// plain or json (plain)
    #[argh(option, arg_name = "format", from_str_fn(log_format))]
    log_format: Option<Format>,
    /// write the process id to this file, and remove it at the end
    #[argh(option, arg_name = "file")]
    pid_file: Option<String>,
    /// check the configuration and the files that it names, and do not start
    #[argh(switch)]
    check_config: bool,
    /// print the configuration with every key as it is in force, and do not start
    #[argh(switch)]
    print_config: bool,
    /// print the default configuration, and do not start
    #[argh(switch)]
    print_default_config: bool,
    /// connect to the broker at this URL and ping it: status 0 if it answers
    #[argh(option, arg_name = "url")]
    healthcheck: Option<String>,
    /// print the version
    #[argh(switch)]
    version: bool,
    /// print a completion script for bash, zsh or fish
    #[argh(option, arg_name = "shell")]
    completions: Option<String>,
    /// print the manual page, roff
    #[argh(switch)]
    man: bool,
}

const NAME: &str = "hbmqtt";

const TABLE: Table = Table {
    aliases: &[&[("config-file", "config"), ("test-config", "check-config")]],
    letters: &[],
    preferred: &["help", "version"],
    words: Words::Refused,
    property: None,
    shorthands: &[],
    groups: &[],
    options_file: None,
    environment: &[],
};

const PROGRAM: Program = Program {
    name: NAME,
    table: &TABLE,
    page: &PAGE,
};

const PAGE: manual::Page = manual::Page {
    summary: "MQTT broker",
    synopsis: &[
        "[-c FILE] [-d] [options]",
        "pub|sub|rr|passwd|bench|store ...",
    ],
    statuses: &[
        ("0", "Ended by SIGTERM or SIGINT, or did what was asked."),
        (
            "1",
            "A wrong configuration, a port in use, a file that cannot be read.",
        ),
        ("2", "The command line cannot be understood."),
        ("70", "A fault in the broker itself."),
    ],
    examples: &[
        (
            "hbmqtt",
            "The default broker, on port 1883 of all interfaces.",
        ),
        (
            "hbmqtt -c broker.yaml --log-file /var/log/hbmqtt.log",
            "A broker of your own.",
        ),
    ],
    files: &[],
};

/// How long the connections have to end after SIGTERM or SIGINT.
const SHUTDOWN_TIME: Duration = Duration::from_secs(10);
/// How long the broker has to answer a health check, for each step.
const HEALTH_TIME: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    subcommand::run(NAME, &arguments).unwrap_or_else(|| PROGRAM.main(arguments, None, run))
}

#[expect(clippy::needless_pass_by_value, reason = "the form of every program")]
fn run(args: Args) -> Result<u8, Failure> {
    let args = &args;
    let answer = PROGRAM.answer::<Args>(args.version, args.completions.as_deref(), args.man);
    if let Some(answer) = answer {
        return answer;
    }
    if let Some(url) = &args.healthcheck {
        return health_check(url);
    }
    if args.print_default_config {
        return exit::print(&print::yaml(&Config::default()));
    }
    let config = config(args)?;
    if args.print_config {
        return exit::print(&print::yaml(&config));
    }
    if args.check_config {
        return check(args, config);
    }
    let reopen = start_log(args)?;
    let served = serve(args, config, &reopen);
    if let (Err(failure), Some(_)) = (&served, &args.log_file) {
        error!("{failure}");
    }
    served
}

/// The file's settings, or the default ones, with what the command line changes.
fn config(args: &Args) -> Result<Config, Failure> {
    let mut config = match &args.config {
        Some(path) => Config::load(path).map_err(|error| Failure::failed(error.to_string()))?,
        None => Config::default(),
    };
    if let Some(port) = args.port {
        set_port(&mut config.listeners, port)?;
    }
    Ok(config)
}

fn set_port(listeners: &mut [ListenerConfig], new: u16) -> Result<(), Failure> {
    let default = listeners
        .iter_mut()
        .find(|listener| listener.name == "default");
    match default.map(|listener| &mut listener.bind) {
        Some(BindAddress::Tcp { port, .. }) => {
            *port = new;
            Ok(())
        }
        _ => Err(Failure::usage(
            "--port changes the listener 'default', and the configuration has none with a port",
        )),
    }
}

/// `--check-config`: everything that a start would read is read.
fn check(args: &Args, config: Config) -> Result<u8, Failure> {
    for warning in &config.warnings {
        exit::say(NAME, &format!("warning: {warning}"));
    }
    Broker::new(config)
        .check()
        .map_err(|error| not_started(args, error))?;
    exit::print("The configuration is valid.\n")
}

fn start_log(args: &Args) -> Result<Reopen, Failure> {
    let level = match args.log_level {
        Some(level) if args.debug == 0 => level,
        _ => shared::log::verbosity(args.debug, args.quiet, LevelFilter::Info),
    };
    let format = args.log_format.unwrap_or_default();
    let reopen = Reopen::default();
    match &args.log_file {
        Some(path) => {
            let file = LogFile::open(Path::new(path), reopen.clone())
                .map_err(|error| Failure::failed(format!("log file {path}: {error}")))?;
            shared::log::start(level, format, file);
        }
        None => shared::log::start(level, format, io::stderr()),
    }
    Ok(reopen)
}

/// Runs the broker until a signal ends it.
fn serve(args: &Args, config: Config, reopen: &Reopen) -> Result<u8, Failure> {
    let no_signals = |error: io::Error| Failure::failed(format!("cannot handle signals: {error}"));
    // Before the start, so that no signal is lost.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(no_signals)?;
    let stopping = Arc::new(AtomicBool::new(false));
    for (signal, status) in [(SIGINT, 130), (SIGTERM, 143)] {
        flag::register_conditional_shutdown(signal, status, Arc::clone(&stopping))
            .map_err(no_signals)?;
    }
    let pid_file = || args.pid_file.as_deref().map(PidFile::write).transpose();
    // Where it stands, another user may not be allowed to write.
    let mut written = match config.user {
        Some(_) => pid_file()?,
        None => None,
    };
    let mut broker = Broker::new(config);
    broker.start().map_err(|error| not_started(args, error))?;
    if written.is_none() {
        written = pid_file()?;
    }
    let _pid_file = written;
    for signal in &mut signals {
        if signal == SIGHUP {
            reopen.request();
            reload(args, &mut broker);
        } else {
            stopping.store(true, Ordering::Relaxed);
            break;
        }
    }
    match broker.shutdown(SHUTDOWN_TIME) {
        Ok(()) => Ok(exit::OK),
        Err(error) => Err(Failure::failed(error.to_string())),
    }
}

/// What is wrong with a setting is said with the file that it stands in.
fn not_started(args: &Args, error: BrokerError) -> Failure {
    let error = match (error, &args.config) {
        (BrokerError::Config(error), Some(path)) => {
            BrokerError::Config(Box::new(error.in_file(Path::new(path))))
        }
        (error, _) => error,
    };
    Failure::failed(error.to_string())
}

/// Everything changes, or nothing.
fn reload(args: &Args, broker: &mut Broker) {
    if args.config.is_none() {
        info!("Nothing to reload: the broker runs without a configuration file");
        return;
    }
    let reloaded = config(args).and_then(|config| {
        broker
            .reload(config)
            .map_err(|error| not_started(args, error))
    });
    if let Err(failure) = reloaded {
        for line in failure.message.lines() {
            error!("{line}");
        }
        error!("The configuration was not reloaded, the one before stays in force");
    }
}

/// The file of `--pid-file`; it goes away with the value.
struct PidFile<'a>(&'a str);

impl<'a> PidFile<'a> {
    fn write(path: &'a str) -> Result<Self, Failure> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| Failure::failed(format!("process id file {path}: {error}")))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = std::fs::remove_file(self.0);
    }
}

/// `--healthcheck`.
fn health_check(url: &str) -> Result<u8, Failure> {
    let unhealthy = |error: hbmqtt::client::ClientError| Failure::failed(error.to_string());
    let client = ConnectOptions::new()
        .auto_reconnect(false)
        .connect_timeout(HEALTH_TIME)
        .connect(url)
        .map_err(unhealthy)?;
    client.ping(HEALTH_TIME).map_err(unhealthy)?;
    client.disconnect().map_err(unhealthy)?;
    Ok(exit::OK)
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "a port is 0 to 65535".to_owned())
}

fn log_format(text: &str) -> Result<Format, String> {
    text.parse()
}
