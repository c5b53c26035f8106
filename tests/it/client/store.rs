//! A client with a store whose program is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hbmqtt::client::{Client, ClientError, ConnectOptions, ReceivedMessage};
use hbmqtt::proto::{ProtocolVersion, QoS};

use crate::client::rounds::options;
use crate::support::{Broker, PATIENCE, TempDir, eventually};

/// How much arrives from each program before it is killed.
const ROUNDS: [usize; 4] = [10, 200, 3, 50];

/// Nothing that was stored is lost, nothing of QoS 2 comes twice, and each topic keeps its order.
#[test]
fn a_killed_program_loses_nothing_and_qos2_comes_once() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let broker = Broker::start();
        let url = format!("mqtt://{}", broker.address());
        let directory = TempDir::new();
        let file = directory.path().join("client.store");
        let subscriber = options(version).connect(&url).unwrap();
        subscriber
            .subscribe([("#", QoS::ExactlyOnce)])
            .expect("subscribed");
        let mut received = Vec::new();
        for (round, wanted) in ROUNDS.into_iter().enumerate() {
            let mut program = Program::start(&url, &file, version, round);
            let this = format!("{round} ");
            let mut of_this = 0;
            while of_this < wanted {
                let message = subscriber.recv_timeout(PATIENCE).expect("a message");
                of_this += usize::from(message.payload().starts_with(this.as_bytes()));
                received.push(message);
            }
            program.kill();
        }
        let last = open(&url, &file, version).expect("the store is free again");
        eventually("nothing in flight", || match last.in_flight() {
            0 => Ok(()),
            left => Err(format!("{left} in flight")),
        });
        last.publish("end", "", QoS::AtLeastOnce).unwrap();
        loop {
            let message = subscriber.recv_timeout(PATIENCE).expect("a message");
            if message.topic() == "end" {
                break;
            }
            received.push(message);
        }
        check(&received, version);
    }
}

/// Each program numbers what it publishes to each topic.
fn check(received: &[ReceivedMessage], version: ProtocolVersion) {
    let mut numbers: BTreeMap<(String, usize), Vec<usize>> = BTreeMap::new();
    for message in received {
        let text = std::str::from_utf8(message.payload()).unwrap();
        let (round, number) = text.split_once(' ').unwrap();
        let from = (message.topic().to_owned(), round.parse().unwrap());
        numbers
            .entry(from)
            .or_default()
            .push(number.parse().unwrap());
    }
    for ((topic, round), mut numbers) in numbers {
        if topic == "least" {
            let mut next = 0;
            numbers.retain(|number| {
                let is_first = *number >= next;
                next += usize::from(is_first);
                is_first
            });
        }
        let complete: Vec<_> = (0..numbers.len()).collect();
        assert_eq!(numbers, complete, "{version}: '{topic}' in round {round}");
    }
}

fn open(url: &str, file: &Path, version: ProtocolVersion) -> Result<Client, ClientError> {
    storing(file, version).connect(url)
}

fn storing(file: &Path, version: ProtocolVersion) -> ConnectOptions {
    options(version)
        .client_id("storing")
        .clean_start(false)
        .store(file)
}

/// This test program again, as the one that is killed.
struct Program(Child);

impl Program {
    fn start(url: &str, file: &Path, version: ProtocolVersion, round: usize) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["client::store::publishes_until_it_is_killed", "--exact"])
            .args(["--ignored", "--nocapture"])
            .env("HBMQTT_TEST_URL", url)
            .env("HBMQTT_TEST_STORE", file)
            .env("HBMQTT_TEST_VERSION", version.to_string())
            .env("HBMQTT_TEST_ROUND", round.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "the program that another test kills"]
fn publishes_until_it_is_killed() {
    let Ok(url) = std::env::var("HBMQTT_TEST_URL") else {
        return;
    };
    let variable = |name: &str| std::env::var(format!("HBMQTT_TEST_{name}")).unwrap();
    let version = ProtocolVersion::ALL
        .into_iter()
        .find(|version| version.to_string() == variable("VERSION"))
        .unwrap();
    let round = variable("ROUND");
    let client = open(&url, variable("STORE").as_ref(), version).unwrap();
    for number in 0..100_000 {
        for (topic, qos) in [("exact", QoS::ExactlyOnce), ("least", QoS::AtLeastOnce)] {
            let payload = format!("{round} {number}");
            let _ = client.publish_nowait(topic, payload, qos).unwrap();
        }
    }
}
