//! `hbmqtt_sub`: subscribes to topic filters and writes the messages that come to standard output.

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
use std::hash::BuildHasher;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hbmqtt::client::{
    Client, ClientError, Phase, PublishOptions, ReceivedMessage, Subscription, Token,
};
use hbmqtt::proto::packet::RetainHandling;
use hbmqtt::proto::property::Carrier;
use hbmqtt::proto::{QoS, ReasonCode, TopicFilter, topic};
use log::error;

use shared::args::{Table, Words};
use shared::client::connect::{self, Plan};
use shared::client::{self, ConnectionArgs, Manner, Program, outcome, shorthands, values};
use shared::exit::{self, Failure};
use shared::format::{Format, View};
use shared::output::{self, Encoding, Layout, Output, unwritable};
use shared::{manual, signals};

client_program! {
    /// Subscribes to topic filters and prints the messages that come.
    #[argh(
        help_triggers("-h", "--help"),
        usage = "--url BROKER_URL -t TOPIC... [-n COUNT] [-c CONFIG_FILE] [-i CLIENT_ID] [-q | --qos QOS] [-d]
           [-k KEEP_ALIVE] [--clean-session] [--ca-file CAFILE] [--ca-path CAPATH] [--ca-data CADATA]
           [--will-topic WILL_TOPIC [--will-message WILL_MESSAGE] [--will-qos WILL_QOS] [--will-retain]]
           [--extra-headers HEADER] [more options]"
    )]
    struct Args {
        /// a topic filter to subscribe to; repeatable
        #[argh(option, short = 't', arg_name = "filter")]
        topic: Vec<String>,
        /// quality of service to ask for: 0, 1 or 2 (0); one for all filters, or one for each in order
        #[argh(option, short = 'q', arg_name = "qos", from_str_fn(values::qos))]
        qos: Vec<QoS>,
        /// end after this many messages; 0 = never (never). Also -C
        #[argh(option, short = 'n', arg_name = "count")]
        count: Option<u64>,
        /// end after this many seconds, with status 27
        #[argh(option, short = 'W', arg_name = "seconds", from_str_fn(values::seconds))]
        timeout: Option<Duration>,
        /// end as soon as the broker has acknowledged the subscriptions
        #[argh(switch, short = 'E')]
        exit_on_subscribe: bool,
        /// a topic filter to unsubscribe from, to end it in a session that the broker kept; repeatable
        #[argh(option, short = 'U', arg_name = "filter")]
        unsubscribe: Vec<String>,
        /// do not print messages whose topic fits this filter; repeatable
        #[argh(option, short = 'T', arg_name = "filter")]
        filter_out: Vec<String>,
        /// do not print retained messages
        #[argh(switch, short = 'R')]
        no_retained: bool,
        /// print retained messages only, and end at the first other one
        #[argh(switch)]
        retained_only: bool,
        /// clear each retained message that comes, at the broker
        #[argh(switch)]
        remove_retained: bool,
        /// MQTT 5: do not get what this client publishes itself
        #[argh(switch)]
        no_local: bool,
        /// MQTT 5: get the retain flag with which a message was published
        #[argh(switch)]
        retain_as_published: bool,
        /// MQTT 5: get retained messages always, with a new subscription only, or never (always)
        #[argh(option, arg_name = "when", from_str_fn(retain_handling))]
        retain_handling: Option<RetainHandling>,
        /// print this percentage of the messages, at random
        #[argh(option, arg_name = "percent", from_str_fn(percent))]
        random_filter: Option<f64>,
        /// print the topic before the payload
        #[argh(switch, short = 'v')]
        verbose: bool,
        /// no newline after a message
        #[argh(switch, short = 'N')]
        no_newline: bool,
        /// print messages in this format, with mosquitto's % letters
        #[argh(option, short = 'F', arg_name = "format", from_str_fn(Format::parse))]
        output_format: Option<Format>,
        /// print each message as a JSON object
        #[argh(switch, short = 'J')]
        json: bool,
        /// JSON over several lines
        #[argh(switch)]
        pretty: bool,
        /// print payloads as text, hex, base64 or json (text)
        #[argh(option, arg_name = "format", from_str_fn(output::encoding))]
        format: Option<Encoding>,
        /// keep one line of the screen for each topic
        #[argh(switch, short = 'w')]
        watch: bool,
        /// print how many messages came, each second, instead of the messages
        #[argh(switch)]
        message_rate: bool,
        /// write to the end of this file instead of standard output
        #[argh(option, arg_name = "file")]
        output_file: Option<String>,
        /// write each message to a file of its own in this directory
        #[argh(option, arg_name = "directory")]
        output_dir: Option<String>,
    }
}

const TABLE: Table = Table {
    aliases: &[
        client::COMMON_ALIASES,
        &[
            ("file-write", "output-file"),
            ("file-save", "output-dir"),
            ("output-to-file", "output-file"),
            ("json-output", "json"),
            ("show-topics", "verbose"),
        ],
    ],
    letters: &[('C', "count")],
    preferred: client::SEED_NAMES,
    words: Words::Of("topic"),
    property: Some("property"),
    shorthands: &[shorthands::COMMON, shorthands::SUBSCRIBE],
    groups: &[
        client::TARGET_GROUP,
        client::SESSION_GROUP,
        client::PASSWORD_GROUP,
    ],
    options_file: Some("options-file"),
    environment: client::ENVIRONMENT,
};

const PROGRAM: Program = Program {
    name: "hbmqtt_sub",
    settings: "sub",
    mosquitto: "mosquitto_sub",
    table: &TABLE,
    mosquitto_table: &Table {
        letters: &[('C', "count"), ('h', "host"), ('c', "no-clean-session")],
        words: Words::Refused,
        ..TABLE
    },
    commands: &[
        Carrier::Connect,
        Carrier::Subscribe,
        Carrier::Unsubscribe,
        Carrier::Disconnect,
        Carrier::Will,
    ],
    page: &manual::Page {
        summary: "subscribe to MQTT topics and print the messages",
        synopsis: &["--url URL -t TOPIC... [-n COUNT] [options]"],
        statuses: client::STATUSES,
        examples: &[
            (
                "hbmqtt_sub --url mqtt://localhost -t '$SYS/#' -q 0",
                "What the broker says about itself.",
            ),
            (
                "hbmqtt_sub --url mqtt://localhost -t '/#' -q 2 -n 10",
                "Ten messages.",
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
    // The time counts from the start, also while the broker does not answer.
    let patience = args
        .timeout
        .map(|timeout| timeout.max(Duration::from_millis(1)));
    let plan = connect::plan(&PROGRAM, manner, &connection, patience, option5(&args))?;
    let filters = filters(&args, &plan)?;
    let hidden = topic_filters(&args.filter_out)?;
    topic_filters(&args.unsubscribe)?;
    let mut output = open(&args, manner)?;
    let is_over = || deadline.is_some_and(|deadline| deadline <= now());
    let client = match plan.connect() {
        Err(_) if is_over() => return Ok(exit::TIMED_OUT),
        connected => connected?,
    };
    plan.stop_at_signal(&client, Duration::from_secs(1))?;
    let result = subscribe(&client, &args, &filters, &plan).and_then(|()| {
        let mut subscriber = Subscriber {
            client: &client,
            args: &args,
            hidden,
            output: &mut output,
            deadline,
            left: args.count.filter(|count| *count > 0),
            clearing: Vec::new(),
            seen: 0,
            random: RandomState::new(),
        };
        unsubscribe(&client, &args, &plan)?;
        if args.exit_on_subscribe || filters.is_empty() {
            return Ok(exit::OK);
        }
        let status = subscriber.receive()?;
        subscriber.wait_until_cleared()?;
        Ok(status)
    });
    let flushed = output.flush().map_err(|error| unwritable(&error));
    signals::give_way();
    plan.disconnect(&client);
    let status = match result {
        Err(_) if is_over() => exit::TIMED_OUT,
        result => result?,
    };
    flushed.map(|()| status).or_else(reader_left)
}

/// An option that was given and that only MQTT 5.0 can carry out.
fn option5(args: &Args) -> Option<&'static str> {
    [
        (args.no_local, "--no-local"),
        (args.retain_as_published, "--retain-as-published"),
        (args.retain_handling.is_some(), "--retain-handling"),
    ]
    .into_iter()
    .find_map(|(given, option)| given.then_some(option))
}

/// The filters to subscribe to, each with the QoS to ask for.
fn filters(args: &Args, plan: &Plan) -> Result<Vec<(String, QoS)>, Failure> {
    let mut topics = args.topic.clone();
    if topics.is_empty() {
        topics.extend(plan.target.topic());
    }
    if topics.is_empty() && args.unsubscribe.is_empty() {
        return Err(Failure::usage("option '-t' is missing"));
    }
    topic_filters(&topics)?;
    let qos = |index: usize| match args.qos[..] {
        [] => QoS::AtMostOnce,
        [one] => one,
        ref each => each[index],
    };
    if args.qos.len() > 1 && args.qos.len() != topics.len() {
        return Err(Failure::usage("give one --qos, or one for each --topic"));
    }
    Ok(topics
        .into_iter()
        .enumerate()
        .map(|(index, topic)| (topic, qos(index)))
        .collect())
}

fn topic_filters(texts: &[String]) -> Result<Vec<TopicFilter>, Failure> {
    texts
        .iter()
        .map(|text| {
            topic::parse_subscription(&text.as_str().into())
                .map(|(_share, filter)| filter)
                .map_err(|error| {
                    Failure::usage(format!("topic filter '{}': {error}", text.escape_debug()))
                })
        })
        .collect()
}

fn open(args: &Args, manner: Manner) -> Result<Output, Failure> {
    if args.no_retained && args.retained_only {
        return Err(Failure::usage(
            "use one of --no-retained and --retained-only",
        ));
    }
    let style = output::style(
        args.output_format.as_ref(),
        args.json,
        args.format,
        args.verbose || args.watch,
    )?;
    let layout = Layout {
        style,
        newline: !args.no_newline,
        pretty: args.pretty,
        skip_empty: manner == Manner::Mosquitto,
        watch: args.watch,
    };
    let opened = match (&args.output_file, &args.output_dir) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage("use one of --output-file and --output-dir"));
        }
        (Some(path), None) => (Output::file(path, layout), path),
        (None, Some(path)) => (Output::directory(path, layout), path),
        (None, None) => return Ok(Output::stdout(layout)),
    };
    let (output, path) = opened;
    output.map_err(|error| Failure::failed(format!("cannot write to {path}: {error}")))
}

/// Subscribes to all filters at once; a refused one is reported, and only if all are refused the program ends.
fn subscribe(
    client: &Client,
    args: &Args,
    filters: &[(String, QoS)],
    plan: &Plan,
) -> Result<(), Failure> {
    if filters.is_empty() {
        return Ok(());
    }
    let wanted = filters.iter().map(|filter| subscription(args, filter));
    let granted = client
        .subscribe_with(wanted, plan.properties.subscribe())
        .map_err(|error| outcome::failed(&error))?;
    let refused: Vec<ReasonCode> = granted
        .iter()
        .zip(filters)
        .filter(|(reason, _)| **reason as u8 >= 0x80)
        .map(|(reason, (filter, _))| {
            error!("Subscription to '{filter}' refused: {reason}");
            *reason
        })
        .collect();
    match refused.first() {
        Some(reason) if refused.len() == filters.len() => {
            Err(outcome::silent(outcome::reason_status(*reason)))
        }
        _ => Ok(()),
    }
}

fn subscription(args: &Args, filter: &(String, QoS)) -> Subscription {
    let mut subscription = Subscription::from(filter);
    if args.no_local {
        subscription = subscription.no_local();
    }
    if args.retain_as_published {
        subscription = subscription.retain_as_published();
    }
    match args.retain_handling {
        Some(handling) => subscription.retain_handling(handling),
        None => subscription,
    }
}

fn unsubscribe(client: &Client, args: &Args, plan: &Plan) -> Result<(), Failure> {
    if args.unsubscribe.is_empty() {
        return Ok(());
    }
    client
        .unsubscribe_with(&args.unsubscribe, plan.properties.unsubscribe())
        .map(drop)
        .map_err(|error| outcome::failed(&error))
}

/// The receiving of messages until there is a reason to end.
struct Subscriber<'a> {
    client: &'a Client,
    args: &'a Args,
    hidden: Vec<TopicFilter>,
    output: &'a mut Output,
    deadline: Option<Instant>,
    /// Messages still to print; `None` = no end.
    left: Option<u64>,
    /// Retained messages that are being cleared.
    clearing: Vec<Token>,
    seen: u64,
    random: RandomState,
}

impl Subscriber<'_> {
    /// Prints messages until the count is reached, the time is over or the connection is lost for good.
    fn receive(&mut self) -> Result<u8, Failure> {
        if self.args.message_rate {
            return self.count_per_second();
        }
        while let Some(message) = self.next()? {
            if self
                .hidden
                .iter()
                .any(|filter| filter.matches(message.topic()))
            {
                continue;
            }
            if message.retain() && self.args.remove_retained {
                self.clear(message.topic())?;
            }
            if !message.retain() && self.args.retained_only {
                return Ok(exit::OK);
            }
            if (message.retain() && self.args.no_retained) || !self.is_chosen() {
                continue;
            }
            if let Err(error) = self.print(&message) {
                return reader_left(unwritable(&error));
            }
            if self.counted() {
                return Ok(exit::OK);
            }
        }
        Ok(exit::TIMED_OUT)
    }

    /// The next message; `None` when the time is over. What was printed is handed over before waiting.
    fn next(&mut self) -> Result<Option<ReceivedMessage>, Failure> {
        // A deadline holds even if messages never stop coming.
        if self.deadline.is_some_and(|deadline| deadline <= now()) {
            return Ok(None);
        }
        if let Some(message) = self.client.try_recv().map_err(|error| self.lost(&error))? {
            return Ok(Some(message));
        }
        self.output.flush().map_err(|error| unwritable(&error))?;
        self.wait(self.deadline)
    }

    fn wait(&mut self, until: Option<Instant>) -> Result<Option<ReceivedMessage>, Failure> {
        let received = match until {
            Some(until) => self
                .client
                .recv_timeout(until.saturating_duration_since(now())),
            None => self.client.recv(),
        };
        match received {
            Ok(message) => Ok(Some(message)),
            Err(ClientError::Timeout(Phase::Delivery)) => Ok(None),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// The connection is gone for good; what was received before has been printed.
    fn lost(&mut self, error: &ClientError) -> Failure {
        let _ = self.output.flush();
        outcome::failed(error)
    }

    fn print(&mut self, message: &ReceivedMessage) -> io::Result<()> {
        self.output.write(&View::now(message))
    }

    /// Whether that was the last message.
    fn counted(&mut self) -> bool {
        match &mut self.left {
            Some(left) => {
                *left -= 1;
                *left == 0
            }
            None => false,
        }
    }

    /// Throws the dice for `--random-filter`.
    fn is_chosen(&mut self) -> bool {
        let Some(percent) = self.args.random_filter else {
            return true;
        };
        self.seen += 1;
        let dice = self.random.hash_one(self.seen) % 10_000;
        #[expect(clippy::cast_precision_loss, reason = "below 10,000")]
        let dice = dice as f64;
        dice < percent * 100.0
    }

    fn clear(&mut self, topic: &str) -> Result<(), Failure> {
        let options = PublishOptions::from(QoS::AtLeastOnce).retain(true);
        let token = self
            .client
            .publish_nowait(topic, b"", options)
            .map_err(|error| outcome::failed(&error))?;
        self.clearing.push(token);
        self.clearing.retain(|token| !token.is_done());
        Ok(())
    }

    fn wait_until_cleared(&mut self) -> Result<(), Failure> {
        for token in self.clearing.drain(..) {
            token.wait().map_err(|error| outcome::failed(&error))?;
        }
        Ok(())
    }

    /// `--message-rate`.
    fn count_per_second(&mut self) -> Result<u8, Failure> {
        loop {
            let second = now() + Duration::from_secs(1);
            let until = self
                .deadline
                .map_or(second, |deadline| second.min(deadline));
            let mut count = 0u64;
            while self.wait(Some(until))?.is_some() {
                count += 1;
                if self.counted() {
                    return Ok(exit::OK);
                }
            }
            if let Err(error) = self.output.line(&count.to_string()) {
                return reader_left(unwritable(&error));
            }
            if self.deadline == Some(until) {
                return Ok(exit::TIMED_OUT);
            }
        }
    }
}

/// An empty message marks that the reader of our output is gone: that is no failure.
fn reader_left(failure: Failure) -> Result<u8, Failure> {
    if failure.status == exit::OK {
        Ok(exit::OK)
    } else {
        Err(failure)
    }
}

fn retain_handling(text: &str) -> Result<RetainHandling, String> {
    match text {
        "always" | "0" => Ok(RetainHandling::Always),
        "new" | "1" => Ok(RetainHandling::IfNew),
        "never" | "2" => Ok(RetainHandling::Never),
        _ => Err("use always, new or never".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("use 0 to 100".to_owned()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the program's own deadline"
)]
fn now() -> Instant {
    Instant::now()
}
