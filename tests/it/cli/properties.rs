//! `-D`: the properties of MQTT 5.0, as they leave the programs.

use super::server::Server;
use super::*;
use crate::support::packet::unhex;

/// CONNACK of MQTT 5.0 without a session; the server takes 10 aliases.
const CONNACK5: &str = "20 06 00 00 03 22 00 0a";

#[track_caller]
fn holds(packet: &[u8], text: &str) {
    let wanted = unhex(text);
    assert!(
        packet.windows(wanted.len()).any(|part| part == wanted),
        "no {text} in {packet:02x?}"
    );
}

#[test]
fn a_publisher_sends_every_property_that_it_may() {
    let server = Server::new();
    let url = server.url();
    let arguments = [
        "--url",
        &url,
        "-t",
        "t",
        "-m",
        "x",
        "-i",
        "me",
        "-x",
        "300",
        "-D",
        "connect",
        "receive-maximum",
        "20",
        "-D",
        "CONNECT",
        "topic-alias-maximum",
        "3",
        "--request-response-info",
        "--connect-user-property",
        "a=b",
        "--will-topic",
        "w",
        "-D",
        "will",
        "will-delay-interval",
        "5",
        "-D",
        "will",
        "payload-format-indicator",
        "1",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
        "-D",
        "publish",
        "message-expiry-interval",
        "60",
        "-D",
        "publish",
        "content-type",
        "ct",
        "-D",
        "publish",
        "response-topic",
        "rt",
        "-D",
        "publish",
        "correlation-data",
        "cd",
        "-D",
        "publish",
        "topic-alias",
        "9",
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
        "-D",
        "disconnect",
        "session-expiry-interval",
        "7",
        "-D",
        "disconnect",
        "reason-string",
        "bye",
        "--property=disconnect",
        "user-property",
        "m",
        "n",
    ];
    let tool = Tool::start(PUB, &arguments);
    let mut peer = server.accept();
    let connect = peer.packet();
    holds(&connect, "00 04 4d 51 54 54 05");
    for property in [
        "11 00 00 01 2c",
        "21 00 14",
        "22 00 03",
        "19 01",
        "26 00 01 61 00 01 62",
        "18 00 00 00 05",
        "01 01",
    ] {
        holds(&connect, property);
    }
    peer.send(CONNACK5);
    let publish = peer.packet();
    assert_eq!(publish[0], 0x30);
    for property in [
        "01 01",
        "02 00 00 00 3c",
        "03 00 02 63 74",
        "08 00 02 72 74",
        "09 00 02 63 64",
        "23 00 09",
        "26 00 01 6b 00 01 76",
    ] {
        holds(&publish, property);
    }
    let disconnect = peer.packet();
    assert_eq!(disconnect[0], 0xe0);
    for property in [
        "11 00 00 00 07",
        "1f 00 03 62 79 65",
        "26 00 01 6d 00 01 6e",
    ] {
        holds(&disconnect, property);
    }
    drop(peer);
    tool.wait().expect(0);
}

#[test]
fn a_subscriber_sends_every_property_that_it_may() {
    let server = Server::new();
    let url = server.url();
    let arguments = [
        "--url",
        &url,
        "-t",
        "t",
        "-U",
        "u",
        "-E",
        "--no-local",
        "--retain-as-published",
        "--retain-handling",
        "new",
        "--no-request-problem-info",
        "-D",
        "connect",
        "maximum-packet-size",
        "1000",
        "-D",
        "subscribe",
        "user-property",
        "k",
        "v",
        "--subscription-id",
        "12",
        "-D",
        "unsubscribe",
        "user-property",
        "m",
        "n",
    ];
    let tool = Tool::start(SUB, &arguments);
    let mut peer = server.accept();
    let connect = peer.packet();
    holds(&connect, "27 00 00 03 e8");
    holds(&connect, "17 00");
    peer.send("20 03 00 00 00");
    let subscribe = peer.packet();
    holds(&subscribe, "0b 0c");
    holds(&subscribe, "26 00 01 6b 00 01 76");
    assert_eq!(*subscribe.last().unwrap(), 0x1c);
    peer.send("90 04 00 01 00 00");
    let unsubscribe = peer.packet();
    holds(&unsubscribe, "26 00 01 6d 00 01 6e");
    let id = unsubscribe[3];
    peer.send(&format!("b0 04 00 {id:02x} 00 00"));
    assert_eq!(peer.packet()[0], 0xe0);
    drop(peer);
    tool.wait().expect(0);
}

#[test]
fn a_property_is_refused_with_its_command_and_the_reason() {
    let target = ["--url", "mqtt://127.0.0.1:1", "-t", "t"];
    let refused = |program: &str, arguments: &[&str]| {
        let done = run(program, &[&target[..], arguments].concat()).expect(2);
        let first = done.errors.lines().next().unwrap().to_owned();
        first.split_once(": ").unwrap().1.to_owned()
    };
    for (program, arguments, message) in [
        (
            PUB,
            &["-m", "x", "-D", "publish", "will-delay-interval", "1"][..],
            "option '-D publish will-delay-interval': this property belongs to will",
        ),
        (
            PUB,
            &["-m", "x", "--message-expiry", "soon"],
            "option '-D publish message-expiry-interval': 'soon': use a number from 0 to 4294967295",
        ),
        (
            PUB,
            &[
                "-m",
                "x",
                "-x",
                "1",
                "-D",
                "connect",
                "session-expiry-interval",
                "2",
            ],
            "option '-D connect session-expiry-interval': it is given twice",
        ),
        (
            PUB,
            &[
                "-m",
                "x",
                "-V",
                "3.1.1",
                "-D",
                "publish",
                "content-type",
                "a",
            ],
            "option '-D' needs MQTT 5.0, and -V says MQTT 3.1.1",
        ),
        (
            PUB,
            &["-m", "x", "-D", "subscribe", "user-property", "a", "b"],
            "option '-D subscribe user-property': this program sends none; use connect, publish, disconnect or will",
        ),
        (
            PUB,
            &["-m", "x", "-D", "will", "content-type", "a"],
            "the will options need --will-topic",
        ),
        (
            PUB,
            &[
                "-m",
                "x",
                "-D",
                "disconnect",
                "session-expiry-interval",
                "9",
            ],
            "option '-D disconnect session-expiry-interval': the session ends with the connection unless -x keeps it",
        ),
        (
            SUB,
            &["-x", "never"],
            "a session that is kept for ever needs --client-id, or nobody finds it again",
        ),
        (
            SUB,
            &["--no-local", "-V", "mqttv311"],
            "option '--no-local' needs MQTT 5.0, and -V says MQTT 3.1.1",
        ),
    ] {
        assert_eq!(refused(program, arguments), message, "{arguments:?}");
    }
}

/// The other programs are there under the broker's name too.
#[test]
fn a_subcommand_is_another_program() {
    for (name, program) in [("pub", PUB), ("sub", SUB), ("rr", RR), ("passwd", PASSWD)] {
        let done = run(BROKER, &[name, "--help"]).expect(0);
        assert_eq!(done.output, run(program, &["--help"]).expect(0).output);
    }
    let done = run(BROKER, &["fly"]).expect(2);
    assert!(
        done.errors.contains("pub, sub, rr, passwd"),
        "{}",
        done.errors
    );
}

#[test]
fn user_name_and_password_may_be_for_scram() {
    let directory = TempDir::new();
    let file = directory.file("scram", "");
    run(PASSWD, &["--scram", "-b", &file, "alice", "secret"]).expect(0);
    let broker = Broker::with(&format!(
        "auth: {{allow-anonymous: off, scram-file: {file}}}\n"
    ));
    let url = url(&broker);
    let publish = [
        "-t",
        "a",
        "-q",
        "1",
        "-m",
        "x",
        "--auth-method",
        "SCRAM-SHA-256",
    ];
    let named = ["--url", &url, "-u", "alice", "-P", "secret"];
    run(PUB, &[&named[..], &publish].concat()).expect(0);
    let in_url = format!("mqtt://alice:secret@{}", broker.address());
    run(PUB, &[&["--url", &in_url][..], &publish].concat()).expect(0);
    let wrong = ["--url", &url, "-u", "alice", "-P", "wrong"];
    run(PUB, &[&wrong[..], &publish].concat()).expect(135);
    let done = run(PUB, &[&["--url", &url][..], &publish].concat()).expect(2);
    assert!(done.errors.contains("needs a user name and a password"));
    let data = ["--auth-data", "x"];
    run(PUB, &[&named[..], &publish, &data].concat()).expect(2);

    // Another method: what was given is sent, and the broker does not know it.
    let other = [
        "-t",
        "a",
        "-m",
        "x",
        "--auth-method",
        "OTHER",
        "--auth-data",
        "abc",
    ];
    run(PUB, &[&["--url", &url][..], &other].concat()).expect(140);
    let server = Server::new();
    let tool = Tool::start(PUB, &[&["--url", &server.url()][..], &other].concat());
    let connect = server.accept().packet();
    holds(&connect, "15 00 05 4f 54 48 45 52");
    holds(&connect, "16 00 03 61 62 63");
    tool.wait().expect(1);
}

/// The exchange shows the password to nobody.
#[test]
fn a_password_for_scram_does_not_leave_the_program() {
    let server = Server::new();
    let url = format!("mqtt://alice:secret@{}", server.address());
    let arguments = [
        "--url",
        &url,
        "-t",
        "a",
        "-m",
        "x",
        "--auth-method",
        "SCRAM-SHA-256",
    ];
    let tool = Tool::start(PUB, &arguments);
    let connect = server.accept().packet();
    assert!(
        !connect.windows(6).any(|part| part == b"secret"),
        "{connect:02x?}"
    );
    tool.wait().expect(1);
}
