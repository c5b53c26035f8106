//! `hbmqtt_rr`: publishes a request, waits for the response and writes it to standard output.

#[macro_use]
#[path = "shared"]
mod shared {
    pub(crate) mod args;
    #[macro_use]
    pub(crate) mod client;
    pub(crate) mod clock;
    pub(crate) mod exit;
    pub(crate) mod format;
    pub(crate) mod log;
    pub(crate) mod manual;
    pub(crate) mod output;
    pub(crate) mod program;
    pub(crate) mod prompt;
    pub(crate) mod signals;
}

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use hbmqtt::client::{Client, ClientError, Phase, PublishOptions, ReceivedMessage, Subscription};
use hbmqtt::proto::packet::publish::PublishProperties;
use hbmqtt::proto::property::Carrier;
use hbmqtt::proto::{QoS, ReasonCode, topic};
use log::{debug, error, info, warn};

use shared::args::{Table, Words};
use shared::client::connect::{self, Plan};
use shared::client::{self, ConnectionArgs, Manner, Program, outcome, shorthands, values};
use shared::exit::{self, Failure};
use shared::format::{Format, View};
use shared::output::{self, Encoding, Layout, Output, unwritable};
use shared::{manual, signals};

client_program! {
    /// Publishes a request and prints the response.
    #[argh(
        help_triggers("-h", "--help"),
        usage = "--url BROKER_URL -t TOPIC (-f FILE | -m MESSAGE | -n | -s) [-e RESPONSE_TOPIC]
           [-W SECONDS] [-q QOS] [-F FORMAT | --json] [more options]"
    )]
    struct Args {
        /// the topic to publish the request on
        #[argh(option, short = 't', arg_name = "topic")]
        topic: Option<String>,
        /// the topic to wait on for the response (one that nobody else uses)
        #[argh(option, short = 'e', arg_name = "topic")]
        response_topic: Option<String>,
        /// the request
        #[argh(option, short = 'm', arg_name = "message")]
        message: Option<String>,
        /// send all of this file as the request
        #[argh(option, short = 'f', arg_name = "file")]
        file: Option<String>,
        /// send an empty request
        #[argh(switch, short = 'n')]
        null_message: bool,
        /// send all of standard input as the request
        #[argh(switch, short = 's')]
        stdin: bool,
        /// quality of service of request and response: 0, 1 or 2 (0)
        #[argh(option, short = 'q', arg_name = "qos", from_str_fn(values::qos))]
        qos: Option<QoS>,
        /// end after this many seconds without a response, with status 27
        #[argh(option, short = 'W', arg_name = "seconds", from_str_fn(values::seconds))]
        timeout: Option<Duration>,
        /// wait for this many responses (1)
        #[argh(option, short = 'C', arg_name = "count")]
        count: Option<u64>,
        /// take no retained message for a response
        #[argh(switch, short = 'R')]
        no_retained: bool,
        /// print the topic before the payload
        #[argh(switch, short = 'v')]
        verbose: bool,
        /// no newline after a response
        #[argh(switch, short = 'N')]
        no_newline: bool,
        /// print responses in this format, with mosquitto's % letters
        #[argh(option, short = 'F', arg_name = "format", from_str_fn(Format::parse))]
        output_format: Option<Format>,
        /// print each response as a JSON object
        #[argh(switch, short = 'J')]
        json: bool,
        /// JSON over several lines
        #[argh(switch)]
        pretty: bool,
        /// print payloads as text, hex, base64 or json (text)
        #[argh(option, arg_name = "format", from_str_fn(output::encoding))]
        format: Option<Encoding>,
    }
}

const SOURCES: &[&str] = &["file", "message", "null-message", "stdin"];

const TABLE: Table = Table {
    aliases: &[
        client::COMMON_ALIASES,
        &[
            ("stdin-file", "stdin"),
            ("payload-file", "file"),
            ("message-file", "file"),
            ("no-message", "null-message"),
            ("json-output", "json"),
        ],
    ],
    letters: &[],
    preferred: client::SEED_NAMES,
    words: Words::Refused,
    property: Some("property"),
    shorthands: &[
        shorthands::COMMON,
        shorthands::PUBLISH,
        shorthands::SUBSCRIBE,
    ],
    groups: &[
        client::TARGET_GROUP,
        client::SESSION_GROUP,
        client::PASSWORD_GROUP,
        SOURCES,
    ],
    options_file: Some("options-file"),
    environment: client::ENVIRONMENT,
};

const PROGRAM: Program = Program {
    name: "hbmqtt_rr",
    settings: "rr",
    mosquitto: "mosquitto_rr",
    table: &TABLE,
    mosquitto_table: &Table {
        letters: &[('h', "host"), ('c', "no-clean-session")],
        ..TABLE
    },
    commands: &[
        Carrier::Connect,
        Carrier::Publish,
        Carrier::Subscribe,
        Carrier::Disconnect,
        Carrier::Will,
    ],
    page: &manual::Page {
        summary: "publish an MQTT request and print the response",
        synopsis: &[
            "--url URL -t TOPIC (-f FILE | -m MESSAGE | -n | -s) [-e RESPONSE_TOPIC] [options]",
        ],
        statuses: client::STATUSES,
        examples: &[
            (
                "hbmqtt_rr --url mqtt://localhost -t lamp/status/get -m '' -W 5",
                "The response of whoever serves lamp/status/get, within five seconds.",
            ),
            (
                "hbmqtt_rr --url mqtt://localhost -t sum -e sum/answer -m '1 2' -V 3.1.1",
                "With a responder that knows the topic to answer on.",
            ),
        ],
        files: client::FILES,
    },
};

fn main() -> ExitCode {
    client::main(&PROGRAM, run)
}

fn run(mut args: Args, manner: Manner) -> Result<u8, Failure> {
    let connection: ConnectionArgs = client::ClientArgs::take_connection(&mut args);
    if let Some(answer) = client::answer::<Args>(&PROGRAM, &connection) {
        return answer;
    }
    connect::start_log(manner, &connection);
    let deadline = args.timeout.map(|timeout| now() + timeout);
    let patience = args
        .timeout
        .map(|timeout| timeout.max(Duration::from_millis(1)));
    let mut plan = connect::plan(&PROGRAM, manner, &connection, patience, None)?;
    let topic = topic(&args, &plan)?;
    if manner == Manner::Mosquitto && args.response_topic.is_none() {
        return Err(Failure::usage("option '-e' is missing"));
    }
    let properties = plan.properties.publish().unwrap_or_default();
    let chosen = response_topic(&args, &properties)?;
    let payload = request(&args)?;
    let style = output::style(
        args.output_format.as_ref(),
        args.json,
        args.format,
        args.verbose,
    )?;
    let mut output = Output::stdout(Layout {
        style,
        newline: !args.no_newline,
        pretty: args.pretty,
        skip_empty: manner == Manner::Mosquitto,
        watch: false,
    });
    if chosen.is_none() {
        plan.options = plan.options.request_response_information(true);
    }
    let is_over = || deadline.is_some_and(|deadline| deadline <= now());
    let client = match plan.connect() {
        Err(_) if is_over() => return Ok(exit::TIMED_OUT),
        connected => connected?,
    };
    plan.stop_at_signal(&client, Duration::from_secs(1))?;
    let exchange = Exchange {
        client: &client,
        args: &args,
        plan: &plan,
        topic: &topic,
        response_topic: chosen.unwrap_or_else(|| own_topic(&client)),
        correlation: correlation(&properties),
        deadline,
    };
    let result = exchange.run(&payload, properties, &mut output);
    let flushed = output.flush().map_err(|error| unwritable(&error));
    signals::give_way();
    plan.disconnect(&client);
    match result {
        Err(_) if is_over() => Ok(exit::TIMED_OUT),
        Err(failure) => Err(failure),
        Ok(status) => match flushed {
            Err(failure) if failure.status != exit::OK => Err(failure),
            _ => Ok(status),
        },
    }
}

/// `-t`, or the path of the URL.
fn topic(args: &Args, plan: &Plan) -> Result<String, Failure> {
    let topic = args
        .topic
        .clone()
        .or_else(|| plan.target.topic())
        .ok_or_else(|| Failure::usage("option '-t' is missing"))?;
    valid(&topic)?;
    Ok(topic)
}

/// `-e`, or the property; `None`: neither was given.
fn response_topic(
    args: &Args,
    properties: &PublishProperties,
) -> Result<Option<ByteString>, Failure> {
    match (&args.response_topic, &properties.response_topic) {
        (Some(_), Some(_)) => Err(Failure::usage(
            "use one of -e and '-D publish response-topic'",
        )),
        (Some(topic), None) => {
            valid(topic)?;
            Ok(Some(topic.as_str().into()))
        }
        (None, property) => Ok(property.clone()),
    }
}

fn valid(topic: &str) -> Result<(), Failure> {
    topic::validate_name(topic)
        .map_err(|error| Failure::usage(format!("topic '{}': {error}", topic.escape_debug())))
}

/// A topic for the responses to this client alone: below what the broker keeps for it, if it does.
fn own_topic(client: &Client) -> ByteString {
    let answer = client.connect_result();
    let topic = match answer.properties.response_information.as_deref() {
        Some(prefix) if !prefix.is_empty() => format!("{}/rr", prefix.trim_end_matches('/')),
        _ => format!("response/{}", answer.client_id.replace(['+', '#'], "_")),
    };
    topic.into()
}

/// What marks the response as ours: the property that the user chose, or something random.
fn correlation(properties: &PublishProperties) -> Bytes {
    match &properties.correlation_data {
        Some(data) => data.clone(),
        None => format!("{:016x}", RandomState::new().build_hasher().finish()).into(),
    }
}

/// The payload of the request. Nothing is connected before it is there.
fn request(args: &Args) -> Result<Vec<u8>, Failure> {
    let given = [
        args.message.is_some(),
        args.file.is_some(),
        args.null_message,
        args.stdin,
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(Failure::usage("use exactly one of -f, -m, -n and -s"));
    }
    let unreadable =
        |what: &str, error: io::Error| Failure::failed(format!("cannot read {what}: {error}"));
    let mut payload = Vec::new();
    if let Some(message) = &args.message {
        payload.extend_from_slice(message.as_bytes());
    } else if let Some(path) = &args.file {
        payload = std::fs::read(path).map_err(|error| unreadable(path, error))?;
    } else if args.stdin {
        io::stdin()
            .lock()
            .read_to_end(&mut payload)
            .map_err(|error| unreadable("standard input", error))?;
    }
    Ok(payload)
}

/// One request and the waiting for its responses.
struct Exchange<'a> {
    client: &'a Client,
    args: &'a Args,
    plan: &'a Plan,
    topic: &'a str,
    response_topic: ByteString,
    correlation: Bytes,
    deadline: Option<Instant>,
}

impl Exchange<'_> {
    /// Source: MQTT 5.0 §4.10.
    fn run(
        &self,
        payload: &[u8],
        properties: PublishProperties,
        output: &mut Output,
    ) -> Result<u8, Failure> {
        self.subscribe()?;
        self.publish(payload, properties)?;
        let mut left = self.args.count.unwrap_or(1).max(1);
        while let Some(message) = self.next()? {
            if !self.is_response(&message) {
                continue;
            }
            let written = output
                .write(&View::now(&message))
                .and_then(|()| output.flush());
            if let Err(error) = written {
                let failure = unwritable(&error);
                return if failure.status == exit::OK {
                    Ok(exit::OK)
                } else {
                    Err(failure)
                };
            }
            left -= 1;
            if left == 0 {
                return Ok(exit::OK);
            }
        }
        Ok(exit::TIMED_OUT)
    }

    fn subscribe(&self) -> Result<(), Failure> {
        let wanted = Subscription::new(self.response_topic.clone(), self.qos());
        let options = self.plan.properties.subscribe();
        let granted = self
            .client
            .subscribe_with([wanted], options)
            .map_err(|error| outcome::failed(&error))?;
        match granted.first() {
            Some(reason) if reason.is_error() => {
                error!(
                    "Subscription to '{}' refused: {reason}",
                    self.response_topic
                );
                Err(outcome::silent(outcome::reason_status(*reason)))
            }
            _ => Ok(()),
        }
    }

    fn publish(&self, payload: &[u8], mut properties: PublishProperties) -> Result<(), Failure> {
        properties.response_topic = Some(self.response_topic.clone());
        properties.correlation_data = Some(self.correlation.clone());
        let options = PublishOptions::from(self.qos()).properties(properties);
        info!("{} Publishing to '{}'", self.plan.client_id, self.topic);
        let published = self
            .client
            .publish(self.topic, payload, options)
            .map_err(|error| outcome::failed(&error))?;
        if published.reason == ReasonCode::NoMatchingSubscribers {
            warn!("Nobody is subscribed to '{}'", self.topic);
        }
        Ok(())
    }

    fn qos(&self) -> QoS {
        self.args.qos.unwrap_or_default()
    }

    /// The next message; `None` when the time is over.
    fn next(&self) -> Result<Option<ReceivedMessage>, Failure> {
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(now()));
        match self.client.deliver_message(left) {
            Ok(message) => Ok(Some(message)),
            Err(ClientError::Timeout(Phase::Delivery)) => Ok(None),
            Err(error) => Err(outcome::failed(&error)),
        }
    }

    /// A responder that does not return the correlation data is forgiven; one that returns other data answers somebody
    /// else.
    fn is_response(&self, message: &ReceivedMessage) -> bool {
        if message.retain() && self.args.no_retained {
            return false;
        }
        let data = message
            .properties()
            .and_then(|p| p.correlation_data.as_ref());
        let is_ours = data.is_none_or(|data| *data == self.correlation);
        if !is_ours {
            debug!("A response on '{}' is for another request", message.topic());
        }
        is_ours
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the program's own deadline"
)]
fn now() -> Instant {
    Instant::now()
}
