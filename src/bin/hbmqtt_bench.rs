//! `hbmqtt_bench`: loads a broker, any broker, and says how fast it was and what it lost.

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
#[path = "hbmqtt_bench/histogram.rs"]
mod histogram;
#[path = "hbmqtt_bench/load.rs"]
mod load;
#[path = "hbmqtt_bench/stamp.rs"]
mod stamp;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use hbmqtt::client::{Client, Subscription};
use hbmqtt::proto::property::Carrier;
use hbmqtt::proto::{QoS, topic};

use load::{Load, Outcome};
use shared::args::{Table, Words};
use shared::client::connect::{self, Plan};
use shared::client::{self, ConnectionArgs, Manner, Program, outcome, shorthands, values};
use shared::exit::{self, Failure};
use shared::manual;

client_program! {
    /// Loads a broker with publishers and subscribers, all of which get everything, and prints throughput, latency and losses.
    #[argh(
        help_triggers("-h", "--help"),
        usage = "--url BROKER_URL [--publishers COUNT] [--subscribers COUNT] [-q QOS] [--size BYTES]
           [-n COUNT | --seconds SECONDS] [--rate COUNT] [--window COUNT] [more options]"
    )]
    struct Args {
        /// how many clients publish, 1 to 1000 (1)
        #[argh(option, arg_name = "count")]
        publishers: Option<usize>,
        /// how many clients subscribe to the messages of all publishers, 0 to 1000 (1)
        #[argh(option, arg_name = "count")]
        subscribers: Option<usize>,
        /// quality of service of messages and subscriptions: 0, 1 or 2 (0)
        #[argh(option, short = 'q', arg_name = "qos", from_str_fn(values::qos))]
        qos: Option<QoS>,
        /// bytes of a payload, 16 to 16777216 (64)
        #[argh(option, short = 's', arg_name = "bytes")]
        size: Option<usize>,
        /// messages of each publisher (as many as --seconds allows)
        #[argh(option, short = 'n', arg_name = "count")]
        count: Option<u64>,
        /// for how long to publish, at most 3600 (10; with -n 60)
        #[argh(option, arg_name = "seconds", from_str_fn(values::seconds))]
        seconds: Option<Duration>,
        /// messages a second of each publisher (as fast as the window allows)
        #[argh(option, arg_name = "count")]
        rate: Option<u64>,
        /// messages of a publisher that may be on their way to a subscriber, 1 to 100000 (100)
        #[argh(option, arg_name = "count")]
        window: Option<u64>,
        /// what the topics begin with; publisher N sends to TOPIC/N (bench/PROCESS)
        #[argh(option, short = 't', arg_name = "topic")]
        topic: Option<String>,
    }
}

const TABLE: Table = Table {
    aliases: &[
        client::COMMON_ALIASES,
        &[("payload-size", "size"), ("in-flight", "window")],
    ],
    letters: &[],
    preferred: client::SEED_NAMES,
    words: Words::Refused,
    property: Some("property"),
    shorthands: &[shorthands::COMMON],
    groups: &[
        client::TARGET_GROUP,
        client::SESSION_GROUP,
        client::PASSWORD_GROUP,
    ],
    options_file: Some("options-file"),
    environment: client::ENVIRONMENT,
};

const PROGRAM: Program = Program {
    name: "hbmqtt_bench",
    settings: "bench",
    mosquitto: "mosquitto_bench",
    table: &TABLE,
    mosquitto_table: &TABLE,
    commands: &[Carrier::Connect, Carrier::Will],
    page: &manual::Page {
        summary: "load an MQTT broker",
        synopsis: &[
            "--url URL [--publishers COUNT] [--subscribers COUNT] [-q QOS] [--size BYTES] [-n COUNT | --seconds SECONDS] [options]",
        ],
        statuses: client::STATUSES,
        examples: &[
            (
                "hbmqtt_bench --url mqtt://localhost --seconds 5",
                "One publisher, one subscriber, QoS 0, as fast as it goes.",
            ),
            (
                "hbmqtt_bench --url mqtts://broker.example --publishers 20 --subscribers 5 -q 1 --rate 100",
                "A given rate, over TLS, for the latency.",
            ),
        ],
        files: client::FILES,
    },
};

const MOST_CLIENTS: usize = 1_000;
const MOST_BYTES: usize = 16 * 1024 * 1024;
const MOST_WINDOW: u64 = 100_000;
const MOST_TIME: Duration = Duration::from_secs(3_600);

fn main() -> ExitCode {
    client::main(&PROGRAM, run)
}

fn run(mut args: Args, manner: Manner) -> Result<u8, Failure> {
    let mut connection: ConnectionArgs = client::ClientArgs::take_connection(&mut args);
    if let Some(answer) = client::answer::<Args>(&PROGRAM, &connection) {
        return answer;
    }
    // A client that comes back would hide what the broker did to it.
    connection.no_reconnect = true;
    connection.quiet |= connection.debug == 0;
    connect::start_log(manner, &connection);
    let mut plan = connect::plan(&PROGRAM, manner, &connection, None, None)?;
    let load = load(&args, &plan)?;
    let publishers = within(
        "--publishers",
        args.publishers.unwrap_or(1),
        1,
        MOST_CLIENTS,
    )?;
    let subscribers = within(
        "--subscribers",
        args.subscribers.unwrap_or(1),
        0,
        MOST_CLIENTS,
    )?;
    let receivers = connect_all(&mut plan, 's', subscribers)?;
    for client in &receivers {
        subscribe(client, &load)?;
    }
    let senders = connect_all(&mut plan, 'p', publishers)?;
    let clients: Vec<Client> = receivers.iter().chain(&senders).cloned().collect();
    if let Some(client) = clients.first() {
        plan.stop_at_signal(client, Duration::from_secs(1))?;
    }
    let qos = load.qos;
    let head = format!(
        "{publishers} {}, {subscribers} {}, QoS {}, {} bytes, {}",
        plural(publishers, "publisher"),
        plural(subscribers, "subscriber"),
        qos.as_u8(),
        load.payload_bytes,
        plan.target.endpoint,
    );
    let unrunnable = |error: std::io::Error| Failure::failed(format!("cannot start: {error}"));
    let outcome = load.run(senders, receivers).map_err(unrunnable)?;
    for client in &clients {
        plan.disconnect(client);
    }
    exit::print(&report(&head, &outcome))?;
    for fault in &outcome.faults {
        exit::say(PROGRAM.name, &fault.to_string());
    }
    let is_well = outcome.faults.is_empty()
        && outcome.lost == 0
        && (outcome.repeated == 0 || qos == QoS::AtLeastOnce);
    Ok(if is_well { exit::OK } else { exit::FAILURE })
}

/// The load that the options describe.
fn load(args: &Args, plan: &Plan) -> Result<Load, Failure> {
    let topic = match args.topic.clone().or_else(|| plan.target.topic()) {
        Some(topic) => topic,
        None => format!("bench/{}", std::process::id()),
    };
    topic::validate_name(&format!("{topic}/0"))
        .map_err(|error| Failure::usage(format!("topic '{}': {error}", topic.escape_debug())))?;
    let usual = if args.count.is_some() { 60 } else { 10 };
    let time = args.seconds.unwrap_or_else(|| Duration::from_secs(usual));
    if time > MOST_TIME || time.is_zero() {
        return Err(Failure::usage("--seconds takes a number up to 3600"));
    }
    Ok(Load {
        topic,
        qos: args.qos.unwrap_or_default(),
        payload_bytes: within(
            "--size",
            args.size.unwrap_or(64),
            stamp::STAMP_BYTES,
            MOST_BYTES,
        )?,
        count: within("--count", args.count.unwrap_or(u64::MAX), 1, u64::MAX)?,
        time,
        window: within("--window", args.window.unwrap_or(100), 1, MOST_WINDOW)?,
        rate: args
            .rate
            .map(|rate| within("--rate", rate, 1, 10_000_000))
            .transpose()?,
    })
}

fn within<T: Copy + PartialOrd + std::fmt::Display>(
    option: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, Failure> {
    if (&least..=&most).contains(&&value) {
        Ok(value)
    } else {
        let message = format!("{option} takes a number from {least} to {most}");
        Err(Failure::usage(message))
    }
}

/// Clients with identifiers of their own.
fn connect_all(plan: &mut Plan, kind: char, count: usize) -> Result<Vec<Client>, Failure> {
    let (id, options) = (plan.client_id.clone(), plan.options.clone());
    let clients = (0..count).map(|number| {
        plan.client_id = format!("{id}-{kind}{number}");
        plan.options = options.clone().client_id(plan.client_id.as_str());
        plan.connect()
    });
    let clients = clients.collect();
    plan.client_id = id;
    clients
}

fn subscribe(client: &Client, load: &Load) -> Result<(), Failure> {
    let wanted = Subscription::new(format!("{}/+", load.topic), load.qos);
    let granted = client
        .subscribe([wanted])
        .map_err(|error| outcome::failed(&error))?;
    match granted.first() {
        Some(reason) if reason.is_error() => {
            let message = format!(
                "the subscription to '{}/+' is refused: {reason}",
                load.topic
            );
            Err(Failure::failed(message))
        }
        _ => Ok(()),
    }
}

fn plural(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{noun}{ending}")
}

/// The result in words and figures.
fn report(head: &str, outcome: &Outcome) -> String {
    let seconds = outcome.time.as_secs_f64().max(1e-9);
    let rate = |count: u64| count as f64 / seconds;
    let mut text = format!(
        "{head}\npublished  {} in {seconds:.2} s, {:.0} a second\ndelivered  {}, {:.0} a second\n",
        outcome.sent,
        rate(outcome.sent),
        outcome.received,
        rate(outcome.received),
    );
    let quantile = |per_mille| outcome.latency.quantile(per_mille);
    if let (Some(half), Some(high), Some(highest)) = (quantile(500), quantile(990), quantile(999)) {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        text.push_str(&format!(
            "latency    p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, longest {:.0} µs\n",
            micros(half),
            micros(high),
            micros(highest),
            micros(outcome.latency.most()),
        ));
    }
    text.push_str(&format!(
        "lost       {}, repeated {}\n",
        outcome.lost, outcome.repeated
    ));
    if outcome.foreign > 0 {
        text.push_str(&format!(
            "foreign    {}: somebody else uses these topics\n",
            outcome.foreign
        ));
    }
    text
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures time; this is its clock"
)]
fn now() -> Instant {
    Instant::now()
}
