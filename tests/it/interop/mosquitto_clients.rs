//! mosquitto_pub and mosquitto_sub against our broker.

use crate::support::certificates::Certificates;
use crate::support::program::Program;
use crate::support::*;

use super::is_on;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

#[test]
fn mosquitto_clients_exchange_messages_of_every_qos() {
    if !is_on("mosquitto_clients_exchange_messages_of_every_qos") {
        return;
    }
    let broker = Broker::start();
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let topic = format!("m/{version}/{qos}");
            let subscriber = sub(
                &broker,
                &[
                    "-V",
                    version,
                    "-t",
                    &topic,
                    "-q",
                    qos,
                    "-C",
                    "2",
                    "-F",
                    "%t %q %r %p",
                ],
            );
            publish(
                &broker,
                &["-V", version, "-t", &topic, "-q", qos, "-m", "hello"],
            );
            publish(&broker, &["-V", version, "-t", &topic, "-q", qos, "-n"]);
            assert_eq!(
                subscriber.succeeds(),
                format!("{topic} {qos} 0 hello\n{topic} {qos} 0 ")
            );
        }
    }
}

#[test]
fn mosquitto_clients_get_retained_messages_and_wills() {
    if !is_on("mosquitto_clients_get_retained_messages_and_wills") {
        return;
    }
    let broker = Broker::start();
    for version in VERSIONS {
        let topic = format!("r/{version}");
        publish(
            &broker,
            &["-V", version, "-t", &topic, "-q", "1", "-r", "-m", "kept"],
        );
        let late = Program::start(
            "mosquitto_sub",
            &with_port(
                &broker,
                &["-V", version, "-t", &topic, "-C", "1", "-F", "%r %p"],
            )
            .each(),
        );
        assert_eq!(late.succeeds(), "1 kept");

        let will = format!("w/{version}");
        let watcher = sub(&broker, &["-V", version, "-t", &will, "-q", "1", "-C", "1"]);
        let dying = sub(
            &broker,
            &[
                "-V",
                version,
                "-t",
                "never",
                "--will-topic",
                &will,
                "--will-payload",
                "gone",
                "--will-qos",
                "1",
            ],
        );
        dying.signal("KILL");
        assert_eq!(watcher.succeeds(), "gone");
    }
}

#[test]
fn mosquitto_clients_resume_a_session() {
    if !is_on("mosquitto_clients_resume_a_session") {
        return;
    }
    let broker = Broker::start();
    for version in ["mqttv311", "mqttv5"] {
        let id = format!("kept-{version}");
        let topic = format!("s/{version}");
        let mut kept = vec!["-V", version, "-i", &id, "-c", "-t", &topic, "-q", "1"];
        if version == "mqttv5" {
            kept.extend(["-x", "600"]);
        }
        let first = sub(&broker, &[&kept[..], &["-E"]].concat());
        first.succeeds();
        for number in 0..20 {
            publish(
                &broker,
                &[
                    "-V",
                    version,
                    "-t",
                    &topic,
                    "-q",
                    "1",
                    "-m",
                    &number.to_string(),
                ],
            );
        }
        let second = Program::start(
            "mosquitto_sub",
            &with_port(&broker, &[&kept[..], &["-C", "20"]].concat()).each(),
        );
        let expected: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(second.succeeds(), expected.join("\n"));
    }
}

#[test]
fn mosquitto_clients_use_tls_and_passwords() {
    if !is_on("mosquitto_clients_use_tls_and_passwords") {
        return;
    }
    let certificates = Certificates::new();
    let (certificate, key) = &certificates.server;
    let hashed =
        Program::start("openssl", &["passwd", "-6", "-salt", "saltsalt", "secret"]).succeeds();
    let passwords = certificates
        .directory
        .file("passwords", format!("alice:{hashed}\n"));
    let broker = Broker::configured(&format!(
        "listeners:\n  default:\n    bind: 127.0.0.1:0\n    ssl: on\n    certfile: {certificate}\n    keyfile: {key}\n    \
         cafile: {ca}\n  strict:\n    bind: 127.0.0.1:0\n    ssl: on\n    certfile: {certificate}\n    keyfile: {key}\n    \
         cafile: {ca}\n    client-cert: required\nauth:\n  allow-anonymous: off\n  password-file: {passwords}\n",
        ca = certificates.ca
    ));
    let alice = [
        "-h",
        "localhost",
        "--cafile",
        &certificates.ca,
        "-u",
        "alice",
        "-P",
        "secret",
    ];
    let subscriber = sub(&broker, &[&alice[..], &["-t", "tls", "-C", "2"]].concat());
    publish(
        &broker,
        &[&alice[..], &["-t", "tls", "-q", "2", "-m", "one"]].concat(),
    );
    let client = certificates.client("phone", 3);
    let strict = broker.address_of("strict").port().to_string();
    let mut arguments = alice.to_vec();
    arguments.extend([
        "-p", &strict, "--cert", &client.0, "--key", &client.1, "-t", "tls", "-m", "two",
    ]);
    Program::start("mosquitto_pub", &arguments).succeeds();
    assert_eq!(subscriber.succeeds(), "one\ntwo");

    // A wrong password: return code 5 or 4 is the exit status. Without a certificate: no connection.
    let wrong = [
        "-h",
        "localhost",
        "--cafile",
        &certificates.ca,
        "-u",
        "alice",
        "-P",
        "wrong",
        "-t",
        "tls",
        "-m",
        "x",
    ];
    let outcome = Program::start("mosquitto_pub", &with_port(&broker, &wrong).each()).wait();
    assert!(
        [4, 5].contains(&outcome.status.code().unwrap()),
        "{outcome:?}"
    );
    let mut without = alice.to_vec();
    without.extend(["-p", &strict, "-t", "tls", "-m", "x"]);
    assert!(
        !Program::start("mosquitto_pub", &without)
            .wait()
            .status
            .success()
    );
}

struct Arguments(Vec<String>);

impl Arguments {
    fn each(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

fn with_port(broker: &Broker, arguments: &[&str]) -> Arguments {
    let mut all: Vec<String> = arguments
        .iter()
        .map(|&argument| argument.to_owned())
        .collect();
    all.extend(["-p".to_owned(), broker.port().to_string()]);
    Arguments(all)
}

/// A mosquitto_sub that has its subscription.
fn sub(broker: &Broker, arguments: &[&str]) -> Program {
    let mut arguments = with_port(broker, arguments);
    arguments.0.push("-d".to_owned());
    // With -d it speaks on standard output too, so what it prints is put apart by the programs' own buffering rules:
    // line by line.
    let mut program = Program::start(
        "stdbuf",
        &[&["-oL", "mosquitto_sub"], &arguments.each()[..]].concat(),
    );
    program
        .output
        .wait_for("Subscribed", |line| line.starts_with("Subscribed (mid"));
    program.strips(&["Client ", "Subscribed "]);
    program
}

fn publish(broker: &Broker, arguments: &[&str]) {
    Program::start("mosquitto_pub", &with_port(broker, arguments).each()).succeeds();
}
