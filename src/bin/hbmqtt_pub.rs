//! `hbmqtt_pub`: publishes messages from the command line, a file or standard input.

#[macro_use]
#[path = "shared"]
mod shared {
    pub(crate) mod args;
    #[macro_use]
    pub(crate) mod client;
    pub(crate) mod clock;
    pub(crate) mod exit;
    pub(crate) mod log;
    pub(crate) mod manual;
    pub(crate) mod program;
    pub(crate) mod prompt;
    pub(crate) mod signals;
}

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::log::{error, info};
use hbmqtt::client::{Client, ClientError, PublishOptions, StateEvent, Token};
use hbmqtt::proto::property::Carrier;
use hbmqtt::proto::{QoS, topic};

use shared::args::{Table, Words};
use shared::client::connect::{self, Plan};
use shared::client::{self, ConnectionArgs, Manner, Program, outcome, shorthands, values};
use shared::exit::{self, Failure};
use shared::{log, manual, signals};

client_program! {
    /// Publishes messages on a topic.
    #[argh(
        help_triggers("-h", "--help"),
        usage = "--url BROKER_URL -t TOPIC (-f FILE | -l | -m MESSAGE | -n | -s | --payload-file FILE)
           [-c CONFIG_FILE] [-i CLIENT_ID] [-q | --qos QOS] [-r] [-d] [-k KEEP_ALIVE]
           [--clean-session] [--ca-file CAFILE] [--ca-path CAPATH] [--ca-data CADATA]
           [--will-topic WILL_TOPIC [--will-message WILL_MESSAGE] [--will-qos WILL_QOS] [--will-retain]]
           [--extra-headers HEADER] [more options]"
    )]
    struct Args {
        /// the topic to publish on
        #[argh(option, short = 't', arg_name = "topic")]
        topic: Option<String>,
        /// publish this message
        #[argh(option, short = 'm', arg_name = "message")]
        message: Option<String>,
        /// publish each line of this file that is not blank
        #[argh(option, short = 'f', arg_name = "file")]
        file: Option<String>,
        /// publish each line of standard input that is not blank, as it arrives
        #[argh(switch, short = 'l')]
        stdin_line: bool,
        /// publish a null (zero length) message
        #[argh(switch, short = 'n')]
        null_message: bool,
        /// publish all of standard input as one message
        #[argh(switch, short = 's')]
        stdin: bool,
        /// publish all of this file as one message
        #[argh(option, arg_name = "file")]
        payload_file: Option<String>,
        /// quality of service: 0, 1 or 2 (the configuration's default_qos, else 0)
        #[argh(option, short = 'q', arg_name = "qos", from_str_fn(values::qos))]
        qos: Option<QoS>,
        /// retain the message (otherwise the configuration's default_retain, else not)
        #[argh(switch, short = 'r')]
        retain: bool,
        /// do not retain the message, whatever the configuration says
        #[argh(switch)]
        no_retain: bool,
        /// publish the message this often (1); not with -f and -l
        #[argh(option, arg_name = "count", from_str_fn(repeats))]
        repeat: Option<u64>,
        /// seconds between two repetitions (0)
        #[argh(option, arg_name = "seconds", from_str_fn(values::seconds))]
        repeat_delay: Option<Duration>,
        /// messages of QoS 1 and 2 on their way at most (256)
        #[argh(option, short = 'M', arg_name = "count", from_str_fn(window))]
        max_inflight: Option<u16>,
    }
}

const ALIASES: &[(&str, &str)] = &[
    ("lines", "stdin-line"),
    ("no-message", "null-message"),
    ("stdin-file", "stdin"),
    ("message-file", "payload-file"),
    ("file-read", "payload-file"),
    ("max-in-flight", "max-inflight"),
];

const SOURCES: &[&str] = &[
    "file",
    "stdin-line",
    "message",
    "null-message",
    "stdin",
    "payload-file",
];

const TABLE: Table = Table {
    aliases: &[client::COMMON_ALIASES, ALIASES],
    letters: &[],
    preferred: client::SEED_NAMES,
    words: Words::Refused,
    property: Some("property"),
    shorthands: &[
        shorthands::COMMON,
        shorthands::PUBLISH,
        &[shorthands::value(
            "response-topic",
            "publish response-topic",
        )],
    ],
    groups: &[
        client::TARGET_GROUP,
        client::SESSION_GROUP,
        client::PASSWORD_GROUP,
        SOURCES,
        &["retain", "no-retain"],
    ],
    options_file: Some("options-file"),
    environment: client::ENVIRONMENT,
};

const PROGRAM: Program = Program {
    name: "hbmqtt_pub",
    settings: "pub",
    mosquitto: "mosquitto_pub",
    table: &TABLE,
    mosquitto_table: &Table {
        letters: &[
            ('h', "host"),
            ('c', "no-clean-session"),
            ('f', "payload-file"),
        ],
        ..TABLE
    },
    commands: &[
        Carrier::Connect,
        Carrier::Publish,
        Carrier::Disconnect,
        Carrier::Will,
    ],
    page: &manual::Page {
        summary: "publish MQTT messages",
        synopsis: &[
            "--url URL -t TOPIC (-f FILE | -l | -m MESSAGE | -n | -s | --payload-file FILE) [options]",
        ],
        statuses: client::STATUSES,
        examples: &[
            (
                "hbmqtt_pub --url mqtt://localhost -t sensors/temperature -m 32 -q 1",
                "One message, acknowledged.",
            ),
            (
                "some_command | hbmqtt_pub --url mqtt://localhost -t /test -l",
                "A message for each line, as it comes.",
            ),
        ],
        files: client::FILES,
    },
};

/// The six ways to say what is published, of which exactly one must be given.
enum Source {
    Once(Vec<u8>),
    Lines(Box<dyn BufRead>),
}

fn main() -> ExitCode {
    client::main(&PROGRAM, run)
}

fn run(mut args: Args, manner: Manner) -> Result<u8, Failure> {
    let connection: ConnectionArgs = client::ClientArgs::take_connection(&mut args);
    if let Some(answer) = client::answer::<Args>(&PROGRAM, &connection) {
        return answer;
    }
    connect::start_log(manner, &connection);
    check(&args)?;
    let mut plan = connect::plan(&PROGRAM, manner, &connection, None, None)?;
    let topic = topic(&args, &plan)?;
    let mut source = source(&args, manner)?;
    if let Some(window) = args.max_inflight {
        plan.options = plan.options.max_in_flight(window);
    }
    let watched = Watch::default();
    plan.options = watched.on(plan.options);
    let client = plan.connect()?;
    // What is in flight is left to itself.
    plan.stop_at_signal(&client, Duration::ZERO)?;
    let mut publisher = Publisher {
        client: &client,
        client_id: &plan.client_id,
        topic: &topic,
        options: publish_options(&args, &plan),
        waiting: VecDeque::new(),
        refused: None,
    };
    let published = match &mut source {
        Source::Once(payload) => repeat(&args, &mut publisher, payload),
        Source::Lines(lines) => {
            watched.exit_when_lost.store(true, Ordering::Relaxed);
            let published = publisher.lines(lines, manner == Manner::Mosquitto);
            watched.exit_when_lost.store(false, Ordering::Relaxed);
            published
        }
    };
    let published = published.and_then(|()| publisher.finish());
    let refused = publisher.refused;
    plan.disconnect(&client);
    published.map(|()| refused.unwrap_or(exit::OK))
}

/// What can be wrong with the options before anything is read.
fn check(args: &Args) -> Result<(), Failure> {
    if args.retain && args.no_retain {
        return Err(Failure::usage("use one of --retain and --no-retain"));
    }
    let lines = args.file.is_some() || args.stdin_line;
    if lines && (args.repeat.is_some() || args.repeat_delay.is_some()) {
        return Err(Failure::usage("--repeat cannot repeat lines"));
    }
    Ok(())
}

/// `-t`, or the path of the URL.
fn topic(args: &Args, plan: &Plan) -> Result<String, Failure> {
    let topic = args
        .topic
        .clone()
        .or_else(|| plan.target.topic())
        .ok_or_else(|| Failure::usage("option '-t' is missing"))?;
    topic::validate_name(&topic)
        .map_err(|error| Failure::usage(format!("topic '{}': {error}", topic.escape_debug())))?;
    Ok(topic)
}

/// Opens what is to be published. Nothing is connected before that has worked.
fn source(args: &Args, manner: Manner) -> Result<Source, Failure> {
    let given = [
        args.file.is_some(),
        args.stdin_line,
        args.message.is_some(),
        args.null_message,
        args.stdin,
        args.payload_file.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(Failure::usage(match manner {
            Manner::Hbmqtt => "use exactly one of -f, -l, -m, -n, -s and --payload-file",
            Manner::Mosquitto => "use exactly one of -f, -l, -m, -n and -s",
        }));
    }
    if let Some(message) = &args.message {
        return Ok(Source::Once(message.clone().into_bytes()));
    }
    if let Some(path) = &args.file {
        let file = File::open(path)
            .and_then(readable)
            .map_err(|error| unreadable(path, &error))?;
        return Ok(Source::Lines(lines(file)));
    }
    if let Some(path) = &args.payload_file {
        let payload = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
        return Ok(Source::Once(payload));
    }
    if args.stdin_line {
        return Ok(Source::Lines(lines(io::stdin())));
    }
    let mut payload = Vec::new();
    if args.stdin {
        io::stdin()
            .lock()
            .read_to_end(&mut payload)
            .map_err(|error| unreadable("standard input", &error))?;
    }
    Ok(Source::Once(payload))
}

/// As many lines at once as a pipe holds.
fn lines(input: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(64 * 1024, input))
}

/// A directory can be opened but not read.
fn readable(file: File) -> io::Result<File> {
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read {what}: {error}"))
}

fn publish_options(args: &Args, plan: &Plan) -> PublishOptions {
    let mut options = PublishOptions::new();
    if let Some(properties) = plan.properties.publish() {
        options = options.properties(properties);
    }
    if let Some(qos) = args.qos {
        options = options.qos(qos);
    }
    match (args.retain, args.no_retain) {
        (true, _) => options.retain(true),
        (_, true) => options.retain(false),
        _ => options,
    }
}

/// Publishes one message as often as asked for.
fn repeat(args: &Args, publisher: &mut Publisher<'_>, payload: &[u8]) -> Result<(), Failure> {
    let (_never, pause) = crossbeam_channel::bounded::<()>(0);
    for round in 0..args.repeat.unwrap_or(1) {
        if round > 0
            && let Some(delay) = args.repeat_delay
        {
            let _ = pause.recv_timeout(delay);
        }
        publisher.publish(payload)?;
    }
    Ok(())
}

/// Sends messages one after the other while the acknowledgements of those before are on their way.
struct Publisher<'a> {
    client: &'a Client,
    client_id: &'a str,
    topic: &'a str,
    options: PublishOptions,
    waiting: VecDeque<Token>,
    /// The status for the first message that the broker refused.
    refused: Option<u8>,
}

impl Publisher<'_> {
    /// Publishes each line as soon as it is complete; without its end, and not if it is blank.
    fn lines(&mut self, input: &mut impl BufRead, blank_too: bool) -> Result<(), Failure> {
        let published = self.lines_held(input, blank_too);
        log::release();
        published
    }

    fn lines_held(&mut self, input: &mut impl BufRead, blank_too: bool) -> Result<(), Failure> {
        // The beginning of a line whose end has not been read.
        let mut begun = Vec::new();
        loop {
            let chunk = input
                .fill_buf()
                .map_err(|error| unreadable("the lines to publish", &error))?;
            let read = chunk.len();
            if read == 0 {
                return if begun.is_empty() {
                    Ok(())
                } else {
                    self.line(&begun, blank_too)
                };
            }
            // What the log has to say about these lines is written with them.
            log::hold();
            for line in chunk.split_inclusive(|byte| *byte == b'\n') {
                if !begun.is_empty() || !line.ends_with(b"\n") {
                    begun.extend_from_slice(line);
                    if line.ends_with(b"\n") {
                        self.line(&begun, blank_too)?;
                        begun.clear();
                    }
                } else {
                    self.line(line, blank_too)?;
                }
            }
            input.consume(read);
            log::release();
        }
    }

    fn line(&mut self, line: &[u8], blank_too: bool) -> Result<(), Failure> {
        let text = without_line_end(line);
        if blank_too || !text.is_empty() {
            self.publish(text)?;
        }
        Ok(())
    }

    fn publish(&mut self, payload: &[u8]) -> Result<(), Failure> {
        info!("{} Publishing to '{}'", self.client_id, self.topic);
        let token = self
            .client
            .publish_nowait(self.topic, payload, self.options.clone())
            .map_err(|error| failure(&error))?;
        self.waiting.push_back(token);
        while self.waiting.front().is_some_and(Token::is_done) {
            self.wait_for_first()?;
        }
        Ok(())
    }

    /// Waits until every message is acknowledged.
    fn finish(&mut self) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            self.wait_for_first()?;
        }
        Ok(())
    }

    /// A message that the broker refuses does not keep the others back.
    fn wait_for_first(&mut self) -> Result<(), Failure> {
        match self.waiting.pop_front().map(|token| token.wait()) {
            Some(Err(error @ ClientError::Rejected(_))) => {
                error!("Publishing to '{}' failed: {error}", self.topic);
                self.refused.get_or_insert_with(|| outcome::status(&error));
                Ok(())
            }
            Some(Err(error)) => Err(failure(&error)),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

/// The connection is gone, or the message cannot be sent.
fn failure(error: &ClientError) -> Failure {
    signals::give_way();
    error!("Publishing failed: {error}");
    outcome::silent(outcome::status(error))
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Ends the program when the connection is lost for good while it waits for the next line, so that whoever writes the
/// lines learns of it.
#[derive(Clone, Default)]
struct Watch {
    exit_when_lost: Arc<AtomicBool>,
}

impl Watch {
    fn on(&self, options: hbmqtt::client::ConnectOptions) -> hbmqtt::client::ConnectOptions {
        let exit_when_lost = Arc::clone(&self.exit_when_lost);
        options.on_state(move |event| {
            if let StateEvent::Disconnected { error: Some(error) } = event
                && exit_when_lost.swap(false, Ordering::Relaxed)
            {
                std::process::exit(failure(error).status.into());
            }
        })
    }
}

fn repeats(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("use a number from 1".to_owned()),
        Ok(count) => Ok(count),
    }
}

fn window(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("use 1 to 65535".to_owned()),
        Ok(count) => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_loses_its_end_and_nothing_else() {
        for (line, text) in [
            (&b"a\n"[..], &b"a"[..]),
            (b"a\r\n", b"a"),
            (b"a", b"a"),
            (b" a \n", b" a "),
            (b"\n", b""),
            (b"\r\n", b""),
            (b"\xff\0\n", b"\xff\0"),
            (b"a\r\r\n", b"a\r"),
        ] {
            assert_eq!(without_line_end(line), text);
        }
    }
}
