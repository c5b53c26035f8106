//! What the client programs share: their common options, where and how to connect, and how to say what went wrong.

#[macro_use]
pub(crate) mod options;
pub(crate) mod authentication;
pub(crate) mod connect;
pub(crate) mod outcome;
pub(crate) mod properties;
pub(crate) mod settings;
pub(crate) mod shorthands;
pub(crate) mod target;
pub(crate) mod values;

pub(crate) use options::ConnectionArgs;
pub(crate) use properties::Commands;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use super::args::Table;
use super::exit::Failure;
use super::manual;
use super::program;

/// The struct of a client program, made by `client_program!`.
pub(crate) trait ClientArgs: FromArgs + ArgsInfo {
    /// Moves the common options out.
    fn take_connection(&mut self) -> ConnectionArgs;
}

/// What a client program is called and how it reads its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// Its name, `hbmqtt_pub`.
    pub(crate) name: &'static str,
    /// The name of its settings file without `.yaml`.
    pub(crate) settings: &'static str,
    /// mosquitto's program that it can stand in for.
    pub(crate) mosquitto: &'static str,
    /// The spellings under its own name.
    pub(crate) table: &'static Table,
    /// The spellings under mosquitto's name.
    pub(crate) mosquitto_table: &'static Table,
    /// The packets that it sends and that may be given properties.
    pub(crate) commands: Commands,
    /// What its manual page says beside the options.
    pub(crate) page: &'static manual::Page,
}

/// Under which name the program was called: whose letters it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Its own.
    Hbmqtt,
    /// mosquitto's: `-h` is the host, `-c` keeps the session, `-f` is a whole file, the broker defaults to localhost,
    /// and only warnings are logged.
    Mosquitto,
}

/// Other names for the common options.
pub(crate) const COMMON_ALIASES: &[(&str, &str)] = &[
    ("hostname", "host"),
    ("path", "ws-path"),
    ("user", "username"),
    ("pw", "password"),
    ("id", "client-id"),
    ("identifier", "client-id"),
    ("keep-alive", "keepalive"),
    ("mqtt-version", "protocol-version"),
    ("clean-start", "clean-session"),
    ("clean", "clean-session"),
    ("no-clean", "no-clean-session"),
    ("no-clean-start", "no-clean-session"),
    ("disable-clean-session", "no-clean-session"),
    ("session-expiry-interval", "session-expiry"),
    ("maximum-reconnect-times", "reconnect-retries"),
    ("cafile", "ca-file"),
    ("ca", "ca-file"),
    ("ca-cert", "ca-file"),
    ("capath", "ca-path"),
    ("cadata", "ca-data"),
    ("alpn", "tls-alpn"),
    ("will-payload", "will-message"),
    ("ws-headers", "extra-headers"),
    ("config-file", "config"),
];

/// The long names of the seed: an abbreviation that fits several options means the one among these.
pub(crate) const SEED_NAMES: &[&str] = &[
    "help",
    "version",
    "url",
    "qos",
    "clean-session",
    "ca-file",
    "ca-path",
    "ca-data",
    "will-topic",
    "will-message",
    "will-qos",
    "will-retain",
    "extra-headers",
];

/// Common options that replace each other.
pub(crate) const TARGET_GROUP: &[&str] = &["url", "host", "unix"];
/// Common options that replace each other.
pub(crate) const PASSWORD_GROUP: &[&str] = &["password", "password-file"];
/// Common options that replace each other.
pub(crate) const SESSION_GROUP: &[&str] = &["clean-session", "no-clean-session"];

/// The variables of the environment and the options that they stand for.
pub(crate) const ENVIRONMENT: &[(&str, &str)] = &[
    ("HBMQTT_URL", "url"),
    ("HBMQTT_USERNAME", "username"),
    ("HBMQTT_PASSWORD", "password"),
    ("HBMQTT_CONFIG", "config"),
];

/// The `main` of a client program: reads the arguments and runs `run` on them.
pub(crate) fn main<T: ClientArgs>(
    program: &Program,
    run: impl FnOnce(T, Manner) -> Result<u8, Failure>,
) -> ExitCode {
    let mut arguments = std::env::args_os();
    let manner = manner(program, arguments.next());
    let defaults = match manner {
        Manner::Hbmqtt => None,
        Manner::Mosquitto => settings::mosquitto_defaults(program.mosquitto),
    };
    let run = |args| run(args, manner);
    program
        .as_called(manner)
        .main(arguments, defaults.as_deref(), run)
}

impl Program {
    fn as_called(&self, manner: Manner) -> program::Program {
        program::Program {
            name: self.name,
            table: match manner {
                Manner::Hbmqtt => self.table,
                Manner::Mosquitto => self.mosquitto_table,
            },
            page: self.page,
        }
    }
}

/// mosquitto's manner if the program was called by mosquitto's name.
fn manner(program: &Program, called: Option<OsString>) -> Manner {
    let called = called.unwrap_or_default();
    match Path::new(&called).file_name() {
        Some(name) if name == program.mosquitto => Manner::Mosquitto,
        _ => Manner::Hbmqtt,
    }
}

/// Answers `--version`, `--completions` and `--man`; `None` if none of them was given.
///
/// # Errors
/// A usage error for an unknown shell.
pub(crate) fn answer<T: ClientArgs>(
    program: &Program,
    args: &ConnectionArgs,
) -> Option<Result<u8, Failure>> {
    let program = program.as_called(Manner::Hbmqtt);
    program.answer::<T>(args.version, args.completions.as_deref(), args.man)
}

/// What the exit statuses of the client programs mean.
pub(crate) const STATUSES: &[(&str, &str)] = &[
    (
        "0",
        "Everything was done; every message was acknowledged at its QoS.",
    ),
    ("1", "A network, file, TLS or configuration error."),
    ("2", "The command line cannot be understood."),
    (
        "27",
        "The time given with --timeout is over (hbmqtt_sub, hbmqtt_rr).",
    ),
    (
        "128 to 162",
        "The broker refused the connection, a subscription or a message; the MQTT 5 reason code. The return codes 1 to 5 of MQTT 3.1.1 give 132, 133, 136, 134 and 135.",
    ),
    ("130, 143", "Stopped by SIGINT or SIGTERM."),
];

/// What the client programs read beside their arguments.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("HBMQTT_URL", "The broker, when no option names one."),
    (
        "HBMQTT_USERNAME, HBMQTT_PASSWORD",
        "Who connects, when neither options nor URL say it.",
    ),
    ("HBMQTT_CONFIG", "The settings file, when -c is not given."),
    (
        "$XDG_CONFIG_HOME/hbmqtt/pub.yaml, sub.yaml, rr.yaml",
        "The settings file when neither of these names one; in ~/.config without XDG_CONFIG_HOME.",
    ),
];
