//! The process that uses the library as a program does: one thread that publishes or takes messages.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use hbmqtt::client::{Client, ClientError, ConnectOptions, Token};
use hbmqtt::proto::QoS;
use rustix::time::{ClockId, clock_gettime};

use super::feeder::Feeder;
use super::peer::TOPIC;
use crate::clock::now;
use crate::fault::Fault;
use crate::frames::read_stamp;
use crate::stamp::Stamp;

/// Runs, and prints messages, seconds, and µs of CPU.
pub(super) fn run(arguments: &[String]) -> Result<(), Fault> {
    let [address, role, qos, seconds, manner] = arguments else {
        return Err(Fault::Wrong("client-part wants five words"));
    };
    let wrong = |_| Fault::Wrong("client-part: a word that is no number");
    let address: SocketAddr = address.parse().map_err(|_| Fault::Wrong("no address"))?;
    let seconds: f64 = seconds.parse().map_err(|_| Fault::Wrong("no seconds"))?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|_| Fault::Wrong("no time"))?;
    let qos = qos.parse::<u8>().map_err(wrong)?;
    let mut options = ConnectOptions::new();
    let store = (manner == "stored").then(Store::new);
    if let Some(Store(path)) = &store {
        options = options.client_id("bench").store(path);
    }
    let client = options
        .connect(&format!("mqtt://{address}"))
        .map_err(failed)?;
    match role.as_str() {
        "publish" => publish(&client, qos, time),
        _ => receive(&client, qos, time, (manner == "fed").then_some(address)),
    }
}

/// A file that is removed when this is dropped.
struct Store(PathBuf);

impl Store {
    fn new() -> Self {
        let name = format!("hbmqtt-bench-{}.store", std::process::id());
        Self(env::temp_dir().join(name))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn publish(client: &Client, qos: u8, time: Duration) -> Result<(), Fault> {
    let level = level(qos);
    let mut waiting: VecDeque<Token> = VecDeque::new();
    let mut number = 0;
    let cpu = cpu_us(ClockId::ProcessCPUTime);
    let start = now();
    while now() - start < time {
        for _ in 0..BETWEEN_LOOKS {
            let stamp = Stamp { number, stream: 0 }.to_bytes();
            let token = client
                .publish_nowait(TOPIC, &stamp, level)
                .map_err(failed)?;
            number += 1;
            if qos > 0 {
                waiting.push_back(token);
                while waiting.front().is_some_and(Token::is_done) {
                    wait_for_first(&mut waiting)?;
                }
            }
        }
    }
    while !waiting.is_empty() {
        wait_for_first(&mut waiting)?;
    }
    // The answer stands behind all that was sent before.
    client.ping(PATIENCE).map_err(failed)?;
    report(number, start, cpu_us(ClockId::ProcessCPUTime) - cpu);
    client.disconnect().map_err(failed)
}

fn wait_for_first(waiting: &mut VecDeque<Token>) -> Result<(), Fault> {
    match waiting.pop_front().map(|token| token.wait()) {
        Some(Err(error)) => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Takes messages; of a broker, those that a thread of this process has it send.
fn receive(
    client: &Client,
    qos: u8,
    time: Duration,
    broker: Option<SocketAddr>,
) -> Result<(), Fault> {
    let (cpu, start) = (cpu_us(ClockId::ProcessCPUTime), now());
    client.subscribe([(TOPIC, level(qos))]).map_err(failed)?;
    let feeder = broker
        .map(|address| Feeder::start(address, qos, time))
        .transpose()?;
    let mut due = 0;
    loop {
        for _ in 0..BETWEEN_LOOKS {
            if feeder.as_ref().is_some_and(|feeder| feeder.is_done(due)) {
                break;
            }
            take(client, &mut due)?;
            if let Some(feeder) = &feeder {
                feeder.taken(due);
            }
        }
        let is_over = match &feeder {
            Some(feeder) => feeder.is_done(due),
            None => now() - start >= time,
        };
        if is_over {
            break;
        }
    }
    let cpu = cpu_us(ClockId::ProcessCPUTime) - cpu;
    let fed_us = feeder.map(Feeder::end).transpose()?.unwrap_or_default();
    report(due, start, cpu - fed_us);
    client.disconnect().map_err(failed)
}

fn take(client: &Client, due: &mut u64) -> Result<(), Fault> {
    let message = client.recv_timeout(PATIENCE).map_err(failed)?;
    let came = read_stamp(message.payload(), &[])?.number;
    if came != *due {
        return Err(Fault::OutOfTurn { due: *due, came });
    }
    *due += 1;
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "the result, for the process that started this one"
)]
fn report(messages: u64, start: Instant, cpu_us: f64) {
    println!("{messages} {} {cpu_us}", (now() - start).as_secs_f64());
}

/// The CPU time of this process or thread, in µs.
pub(super) fn cpu_us(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn level(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn failed(error: ClientError) -> Fault {
    io::Error::other(error).into()
}

/// Messages between two looks at the clock.
const BETWEEN_LOOKS: usize = 64;

const PATIENCE: Duration = Duration::from_secs(10);
