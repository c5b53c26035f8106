//! hbmqtt_pub and hbmqtt_sub against a real mosquitto.

use crate::support::broker::free_port;
use crate::support::certificates::Certificates;
use crate::support::program::Program;
use crate::support::*;

use super::is_on;

#[test]
fn our_tools_speak_with_mosquitto() {
    if !is_on("our_tools_speak_with_mosquitto") {
        return;
    }
    let mosquitto = Broker::mosquitto("allow_anonymous true", "");
    let url = format!("mqtt://{}", mosquitto.address());
    for qos in ["0", "1", "2"] {
        let topic = format!("ours/{qos}");
        let subscriber = subscriber(&["--url", &url, "-t", &topic, "-q", qos, "-n", "3", "-d"]);
        publish(&["--url", &url, "-t", &topic, "-q", qos, "-m", "one"]);
        let mut lines = Program::start(PUB, &["--url", &url, "-t", &topic, "-q", qos, "-l"]);
        lines.write("two\n\nthree\n");
        lines.succeeds();
        assert_eq!(subscriber.succeeds(), "one\ntwo\nthree");
    }
    publish(&[
        "--url", &url, "-t", "kept", "-q", "1", "-r", "-m", "retained",
    ]);
    assert_eq!(
        Program::start(SUB, &["--url", &url, "-t", "kept", "-n", "1"]).succeeds(),
        "retained"
    );
}

#[test]
fn our_tools_speak_with_mosquitto_over_tls() {
    if !is_on("our_tools_speak_with_mosquitto_over_tls") {
        return;
    }
    let certificates = Certificates::new();
    let (certificate, key) = &certificates.server;
    for strict in [false, true] {
        let mosquitto = Broker::mosquitto(
            "allow_anonymous true",
            &format!(
                "cafile {}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate {strict}",
                certificates.ca
            ),
        );
        let url = format!("mqtts://localhost:{}", mosquitto.port());
        let (cert, key) = certificates.client("tool", 4);
        let config = certificates
            .directory
            .file("client.yaml", format!("certfile: {cert}\nkeyfile: {key}\n"));
        let mut arguments = vec![
            "--url",
            &url,
            "--ca-file",
            &certificates.ca,
            "-t",
            "tls",
            "-q",
            "1",
        ];
        if strict {
            arguments.extend(["-c", &config]);
        }
        let subscriber = subscriber(&[&arguments[..], &["-n", "1", "-d"]].concat());
        publish(&[&arguments[..], &["-m", "over tls"]].concat());
        assert_eq!(subscriber.succeeds(), "over tls");
        // Whom nobody vouches for is not spoken with; nor does mosquitto speak with us without a certificate.
        let unknown = Program::start(PUB, &["--url", &url, "-t", "tls", "-m", "x"]).wait();
        assert!(!unknown.status.success());
        if strict {
            let bare = Program::start(
                PUB,
                &[
                    "--url",
                    &url,
                    "--ca-file",
                    &certificates.ca,
                    "-t",
                    "tls",
                    "-q",
                    "1",
                    "-m",
                    "x",
                ],
            )
            .wait();
            assert!(!bare.status.success(), "{bare:?}");
        }
    }
}

#[test]
fn our_tools_speak_with_mosquitto_over_websocket() {
    if !is_on("our_tools_speak_with_mosquitto_over_websocket") {
        return;
    }
    // Mosquitto 2.0 does not start with a WebSocket listener alone.
    let settings = format!("allow_anonymous true\nlistener {} 127.0.0.1", free_port());
    let mosquitto = Broker::mosquitto(&settings, "protocol websockets");
    let url = format!("ws://{}/mqtt", mosquitto.address());
    let subscriber = subscriber(&["--url", &url, "-t", "web", "-q", "2", "-n", "1", "-d"]);
    publish(&[
        "--url",
        &url,
        "-t",
        "web",
        "-q",
        "2",
        "-m",
        "over websocket",
    ]);
    assert_eq!(subscriber.succeeds(), "over websocket");
}

#[test]
fn our_tools_log_in_at_mosquitto() {
    if !is_on("our_tools_log_in_at_mosquitto") {
        return;
    }
    let directory = TempDir::new();
    let passwords = directory.file("passwords", "");
    Program::start("mosquitto_passwd", &["-b", &passwords, "alice", "p:w@rd"]).succeeds();
    let mosquitto = Broker::mosquitto(
        &format!("allow_anonymous false\npassword_file {passwords}"),
        "",
    );
    let url = format!("mqtt://alice:p%3Aw%40rd@{}", mosquitto.address());
    publish(&["--url", &url, "-t", "auth", "-q", "1", "-m", "x"]);
    let wrong = format!("mqtt://alice:wrong@{}", mosquitto.address());
    let outcome = Program::start(PUB, &["--url", &wrong, "-t", "auth", "-m", "x"]).wait();
    assert!(
        [134, 135].contains(&outcome.status.code().unwrap()),
        "{outcome:?}"
    );
    assert!(
        !outcome.errors.contains("wrong@") && !outcome.errors.contains("p%3A"),
        "{}",
        outcome.errors
    );
}

const PUB: &str = env!("CARGO_BIN_EXE_hbmqtt_pub");
const SUB: &str = env!("CARGO_BIN_EXE_hbmqtt_sub");

/// An hbmqtt_sub that has its subscription: it logs the SUBACK at DEBUG.
pub(super) fn subscriber(arguments: &[&str]) -> Program {
    let program = Program::start(SUB, arguments);
    program
        .errors
        .wait_for("the SUBACK", |line| line.contains("<-in-- Suback"));
    program
}

pub(super) fn publish(arguments: &[&str]) {
    Program::start(PUB, arguments).succeeds();
}
