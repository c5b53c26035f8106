//! The programs of `docs/examples`, run as a reader would, and the settings that the README shows.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use hbmqtt::broker::Config;

use crate::support::program::Program;
use crate::support::*;

/// The program of an example. `cargo test` has built them all; `cargo test --test it` has not, so they are built here.
fn example(name: &str) -> String {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_hbmqtt")).parent().unwrap();
        let target = profile.parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--offline",
            "--examples",
            "--target-dir",
        ]);
        cargo.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        // What cargo sets for tests would make it think that build scripts have to run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_") && name != "CARGO_HOME" {
                cargo.env_remove(&*name);
            }
        }
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
        profile.join("examples")
    });
    directory.join(name).to_str().unwrap().to_owned()
}

/// SEED-11, BUG-26: the subscriber of the seed prints what the broker says about itself, and ends.
#[test]
fn subscriber_prints_as_many_messages_as_asked_for() {
    let broker = Broker::with("sys_interval: 1\n");
    let url = format!("mqtt://{}", broker.address());
    let output = Program::start(&example("subscriber"), &[&url, "5"]).succeeds();
    assert_eq!(output.lines().count(), 5, "{output}");
    for (line, number) in output.lines().zip(1..) {
        let start = format!("{number}: $SYS/broker/");
        assert!(line.starts_with(&start) && line.contains(" => "), "{line}");
    }
}

/// SEED-11, BUG-26: the publisher of the seed sends a message at each QoS, twice.
#[test]
fn publisher_sends_its_six_messages() {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, V311);
    subscriber.subscribe("a/b", 2);
    let url = format!("mqtt://{}", broker.address());
    Program::start(&example("publisher"), &[&url]).succeeds();
    let mut received = Vec::new();
    for _ in 0..6 {
        let publish = subscriber.receive_publish();
        subscriber.acknowledge(&publish);
        received.push((publish.qos, String::from_utf8(publish.payload).unwrap()));
    }
    received.sort();
    for (index, (qos, text)) in received.into_iter().enumerate() {
        assert_eq!(usize::from(qos), index / 2);
        assert_eq!(text, format!("TEST MESSAGE WITH QOS_{qos}"));
    }
}

/// The example of request and response gets its answer.
#[test]
fn request_prints_the_answer() {
    let broker = Broker::start();
    let url = format!("mqtt://{}", broker.address());
    let output = Program::start(&example("request"), &[&url, "louder"]).succeeds();
    assert_eq!(output, "LOUDER");
}

/// SEED-9, BAPI-5: the embedded broker serves clients, publishes itself and ends with its input.
#[test]
fn embedded_broker_serves_until_its_input_ends() {
    let mut program = Program::start(&example("broker"), &["127.0.0.1:0"]);
    let line = program
        .output
        .wait_for("its address", |line| line.starts_with("listening on "));
    let address = line["listening on ".len()..].split(',').next().unwrap();
    let url = format!("mqtt://{address}");
    let arguments = ["--url", &url, "-t", "greetings/#", "-n", "1"];
    let message = Program::start(env!("CARGO_BIN_EXE_hbmqtt_sub"), &arguments).succeeds();
    assert_eq!(message, "hello");
    program.close_input();
    assert!(program.succeeds().ends_with("1 clients at most"));
}

/// SEED-7, PLG-13: the plugin sees a subscription and publishes to it.
#[test]
fn plugin_greets_a_subscriber() {
    let output = Program::start(&example("plugin"), &[]).succeeds();
    assert_eq!(output, "hello alice, 1 of you are here");
}

/// Each YAML block of the README is a configuration that the broker takes.
#[test]
fn settings_in_the_readme_are_valid() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let blocks: Vec<_> = text.split("```yaml\n").skip(1).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let yaml = block.split("```").next().unwrap();
        let config = Config::parse(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}
