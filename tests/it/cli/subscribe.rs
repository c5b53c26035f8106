//! `hbmqtt_sub`.

use std::process::Command;

use super::server::{Server, read_connect};
use super::*;

/// The command lines of HBMQTT's documentation, with another host and port in the URL. [SEED-8]
#[test]
fn command_lines_of_the_documentation_run_unchanged() {
    let broker = Broker::with("sys_interval: 1\n");
    let url = url(&broker);
    let mut publisher = broker.publisher(V311);
    for n in 0..10 {
        publisher.publish_packet(Publish::new(&format!("/kept/{n}"), 1, n.to_string()).retain());
    }
    // The first and third run for ever in the documentation: a count ends them.
    for (line, count) in [
        ("hbmqtt_sub --url URL -t '$SYS/#' -q 0", 1),
        ("hbmqtt_sub --url URL -t /# -q 2 -n 10", 10),
        ("hbmqtt_sub --url URL -t /kept/#", 10),
    ] {
        let line = line.replace("URL", &url).replace("hbmqtt_sub", SUB);
        let line = if line.contains("-n 10") {
            line
        } else {
            format!("{line} -n {count}")
        };
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        let done = Tool::spawn(command).wait().expect(0);
        assert_eq!(done.text().lines().count(), count, "{line}");
    }
}

/// SUB-19: byte for byte, a newline after each, in order, at each QoS.
#[test]
fn payloads_are_written_byte_for_byte() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    for qos in ["0", "1", "2"] {
        let tool = subscriber(&broker, &["-t", "t", "-q", qos, "-n", "4"]);
        for payload in [&b"text"[..], b"\0\xff\xfe", b"", b"two\nlines\n"] {
            publisher.publish("t", 2, payload);
        }
        let done = tool.wait().expect(0);
        assert_eq!(done.output, b"text\n\0\xff\xfe\n\ntwo\nlines\n\n");
    }
}

/// SUB-18, LOG-1.
#[test]
fn log_lines_are_hbmqtts() {
    let broker = Broker::start();
    let url = url(&broker);
    let done = run(SUB, &["--url", &url, "-t", "t", "-E"]).expect(0);
    let log = done.log();
    let id = log[0].1.strip_suffix(" Connecting to broker").unwrap();
    assert!(id.starts_with("hbmqtt_sub/"), "{id}");
    assert_eq!(
        log[1],
        ("INFO".to_owned(), format!("{id} Disconnected from broker"))
    );
    assert_eq!(log.len(), 2);
}

/// SUB-16, DEC-8.
#[test]
fn a_count_ends_the_program_and_zero_does_not() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    let two = subscriber(&broker, &["-t", "t", "-C", "2"]);
    let mut all = subscriber(&broker, &["-t", "t", "-n", "0", "-W", "60"]);
    for payload in ["one", "two", "three"] {
        publisher.publish("t", 1, payload);
    }
    assert_eq!(two.wait().expect(0).text(), "one\ntwo\n");
    all.input = None;
    assert!(all.process.try_wait().unwrap().is_none());
    let url = url(&broker);
    for count in ["-1", "x", ""] {
        run(SUB, &["--url", &url, "-t", "t", "-n", count]).expect(2);
    }
}

/// SUB-15: several filters, with -t before each or not; SUB-17.
#[test]
fn several_filters_and_qos_may_be_given() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    let format = "%t %q";
    for (arguments, expected) in [
        (&["-t", "a", "-t", "b/+", "-q", "1"][..], "a 1\nb/c 1\n"),
        (&["-t", "a", "b/+", "-q", "2"], "a 2\nb/c 2\n"),
        (
            &["-t", "a", "-q", "0", "-t", "b/#", "-q", "2"],
            "a 0\nb/c 2\n",
        ),
    ] {
        let tool = subscriber(&broker, &[arguments, &["-n", "2", "-F", format]].concat());
        publisher.publish("a", 2, "x");
        publisher.publish("b/c", 2, "x");
        assert_eq!(tool.wait().expect(0).text(), expected);
    }
}

#[test]
fn a_wrong_command_line_sends_nothing() {
    let server = Server::new();
    let url = server.url();
    for arguments in [
        &[][..],
        &["-t", "a/#/b"],
        &["-t", "a+"],
        &["-t", ""],
        &["-t", "a", "-q", "3"],
        &["-t", "a", "-q", "1", "-q", "1", "-q", "1"],
        &["-t", "a", "-F", "%"],
        &["-t", "a", "-F", "%t", "--json"],
        &["-t", "a", "-R", "--retained-only"],
        &["-t", "a", "-T", "#/x"],
        &["-t", "a", "-W", "soon"],
        &["-t", "a", "--random-filter", "101"],
        &["-t", "a", "--output-file", "f", "--output-dir", "d"],
    ] {
        let arguments = [&["--url", &url][..], arguments].concat();
        let done = run(SUB, &arguments).expect(2);
        assert!(done.errors.starts_with("hbmqtt_sub: "), "{}", done.errors);
    }
    server.expect_nobody();
}

#[test]
fn output_takes_the_form_that_is_asked_for() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    for (arguments, expected) in [
        (&["-v"][..], "a/b hi \u{1}\n"),
        (&["-N"], "hi \u{1}"),
        (&["-vN"], "a/b hi \u{1}"),
        (&["--format", "hex"], "68692001\n"),
        (&["--format", "base64"], "aGkgAQ==\n"),
        (&["-F", r"%t\t%x %l%%"], "a/b\t68692001 4%\n"),
    ] {
        let tool = subscriber(
            &broker,
            &[&["-t", "a/#", "-n", "1"][..], arguments].concat(),
        );
        publisher.publish("a/b", 0, "hi \u{1}");
        assert_eq!(tool.wait().expect(0).text(), expected, "{arguments:?}");
    }
}

#[test]
fn a_message_may_be_a_json_object() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    for (arguments, payload, shown) in [
        (
            &["--json"][..],
            &b"a \"b\""[..],
            "\"payload\":\"a \\\"b\\\"\"}\n",
        ),
        (
            &["--json"],
            b"\xff\x00",
            "\"payload\":\"/wA=\",\"encoding\":\"base64\"}\n",
        ),
        (&["-F", "%j"], b"x", "\"payload\":\"x\"}\n"),
        (&["-F", "%J"], b"{\"k\": [1]}", "\"payload\":{\"k\":[1]}}\n"),
    ] {
        let tool = subscriber(
            &broker,
            &[&["-t", "j", "-q", "1", "-n", "1"][..], arguments].concat(),
        );
        publisher.publish("j", 1, payload);
        let done = tool.wait().expect(0);
        let line = done.text();
        assert!(line.starts_with("{\"tst\":\"2"), "{line}");
        assert!(
            line.contains("\"topic\":\"j\",\"qos\":1,\"retain\":0,\"payloadlen\":"),
            "{line}"
        );
        assert!(line.ends_with(shown), "{line}");
    }
}

#[test]
fn retained_messages_can_be_left_out_chosen_and_removed() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    for topic in ["r/1", "r/2", "r/hidden"] {
        publisher.publish_packet(Publish::new(topic, 1, topic).retain());
    }
    let none = subscriber(&broker, &["-t", "r/#", "-R", "-n", "1"]);
    let only = subscriber(&broker, &["-t", "r/#", "--retained-only", "-T", "r/hidden"]);
    publisher.publish("r/new", 1, "new");
    assert_eq!(none.wait().expect(0).text(), "new\n");
    assert_eq!(only.wait().expect(0).text(), "r/1\nr/2\n");

    let removing = subscriber(
        &broker,
        &[
            "-t",
            "r/#",
            "--remove-retained",
            "-T",
            "r/hidden",
            "-n",
            "2",
        ],
    );
    assert_eq!(removing.wait().expect(0).text(), "r/1\nr/2\n");
    let left = subscriber(&broker, &["-t", "r/#", "-n", "1"]);
    assert_eq!(left.wait().expect(0).text(), "r/hidden\n");
}

#[test]
fn the_time_ends_the_program_with_status_27() {
    let broker = Broker::start();
    let url = url(&broker);
    let done = run(SUB, &["--url", &url, "-t", "t", "-W", "0.3"]).expect(27);
    assert!(
        done.errors.ends_with("Disconnected from broker"),
        "{}",
        done.errors
    );
}

/// The time counts from the start: also while nobody answers.
#[test]
fn the_time_is_over_also_while_the_broker_is_silent() {
    let server = Server::new();
    let url = server.url();
    let arguments = ["--url", &url, "-t", "t", "-W", "0.3"];
    // No CONNACK.
    let tool = Tool::start(SUB, &arguments);
    let _silent = server.accept();
    tool.wait().expect(27);
    // No SUBACK.
    let tool = Tool::start(SUB, &arguments);
    let _connected = server.accept_mqtt();
    tool.wait().expect(27);
}

/// -E, and -U in a session that the broker keeps.
#[test]
fn subscriptions_of_a_kept_session_can_be_made_and_ended() {
    let broker = Broker::start();
    let url = url(&broker);
    let mut publisher = broker.publisher(V311);
    let session = |arguments: &[&str]| {
        let base = ["--url", &url, "-i", "keeper", "-q", "1"];
        run(SUB, &[&base[..], arguments].concat())
    };
    session(&["-t", "a", "-t", "b", "-E"]).expect(0);
    publisher.publish("a", 1, "one");
    publisher.publish("b", 1, "two");
    let done = session(&["-t", "a", "-n", "2"]).expect(0);
    assert_eq!(done.text(), "one\ntwo\n");
    session(&["-U", "a", "-U", "b"]).expect(0);
    publisher.publish("a", 1, "lost");
    session(&["-t", "c", "-W", "0.3"]).expect(27);
}

/// SUB-20.
#[test]
fn a_refused_subscription_is_told_and_ends_the_program_if_all_are() {
    let broker =
        Broker::with("topic-check:\n  enabled: on\n  subscribe-acl:\n    anonymous: [open/#]\n");
    let url = url(&broker);
    let both = ["--url", &url, "-t", "closed/a", "-t", "closed/b"];
    run(SUB, &[&both[..], &["-V", "3.1.1"]].concat()).expect(128);
    let done = run(SUB, &both).expect(135);
    for topic in ["closed/a", "closed/b"] {
        let expected = format!("Subscription to '{topic}' refused: ");
        assert!(
            done.log()
                .iter()
                .any(|(level, text)| level == "ERROR" && text.starts_with(&expected))
        );
    }
    let tool = subscriber(&broker, &["-t", "closed/a", "-t", "open/a", "-n", "1"]);
    broker.publisher(V311).publish("open/a", 0, "x");
    assert_eq!(tool.wait().expect(0).text(), "x\n");
}

/// SUB-21 without auto_reconnect.
#[test]
fn a_lost_connection_is_a_failure() {
    let server = Server::new();
    let url = server.url();
    let tool = Tool::start(SUB, &["--url", &url, "-t", "t"]);
    let (mut peer, _) = server.accept_mqtt();
    peer.grant();
    peer.send("30 05 00 01 74 68 69");
    drop(peer);
    let done = tool.wait().expect(1);
    assert_eq!(done.text(), "hi\n");
    assert!(
        done.log().iter().any(|(level, _)| level == "ERROR"),
        "{}",
        done.errors
    );
}

/// SUB-21 with auto_reconnect: subscribed again, and the count goes on.
#[test]
fn after_a_reconnect_the_subscriptions_are_there_and_the_count_goes_on() {
    let server = Server::new();
    let (url, directory) = (server.url(), TempDir::new());
    let config = directory.file("sub.yaml", "auto_reconnect: true\n");
    let tool = Tool::start(SUB, &["--url", &url, "-t", "t", "-n", "2", "-c", &config]);
    let mut ids = Vec::new();
    for payload in ["31", "32"] {
        let (mut peer, connect) = server.accept_mqtt();
        ids.push(read_connect(&connect).2);
        peer.grant();
        peer.send(&format!("30 04 00 01 74 {payload}"));
        if payload == "32" {
            assert_eq!(peer.packet(), [0xe0, 0]);
        }
    }
    assert_eq!(tool.wait().expect(0).text(), "1\n2\n");
    assert_eq!(ids[0], ids[1]);
}

/// SUB-22: everything comes, however long the program takes for it.
#[test]
fn a_burst_of_retained_messages_comes_completely() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    let payload = "x".repeat(1_000);
    for n in 0..3_000 {
        publisher.publish_packet(Publish::new(&format!("burst/{n}"), 0, &payload).retain());
    }
    publisher.settle();
    let url = url(&broker);
    let done = run(
        SUB,
        &[
            "--url", &url, "-t", "burst/#", "-q", "1", "-n", "3000", "--quiet",
        ],
    )
    .expect(0);
    assert_eq!(done.output.len(), 3_000 * 1_001);
}

/// SUB-19: `hbmqtt_sub | head` ends without a word.
#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let broker = Broker::start();
    let line = format!("{SUB} --url {} -t t -d 2>&3 | head -n 1; cat", url(&broker));
    let mut command = Command::new("bash");
    command.args([
        "-c",
        &format!("exec 3>&2; set -o pipefail; {line}; echo done >&2"),
    ]);
    let tool = Tool::spawn(command);
    tool.wait_until_subscribed();
    let mut publisher = broker.publisher(V311);
    // The first goes to head, which leaves; a later one finds nobody.
    let left = || {
        tool.errors
            .lines()
            .iter()
            .any(|line| line.contains("Disconnected from broker"))
    };
    eventually("the program notices that its reader left", || {
        publisher.publish("t", 1, "x");
        if left() {
            Ok(())
        } else {
            Err("still connected".to_owned())
        }
    });
    let done = tool.wait().expect(0);
    assert_eq!(done.text(), "x\n");
    assert!(
        !done.errors.contains("ERROR") && !done.errors.contains("panicked"),
        "{}",
        done.errors
    );
}

/// What has come is written before the program ends.
#[test]
fn a_signal_disconnects_and_sets_the_status() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let server = Server::new();
        let url = server.url();
        let tool = Tool::start(SUB, &["--url", &url, "-t", "t", "-d"]);
        let (mut peer, _) = server.accept_mqtt();
        peer.grant();
        peer.send("30 05 00 01 74 68 69");
        tool.errors
            .wait_for("the message", |line| line.contains("PublishPacket"));
        tool.signal(signal);
        assert_eq!(peer.packet(), [0xe0, 0]);
        let done = tool.wait_for_end().expect(status);
        assert_eq!(done.text(), "hi\n");
        assert!(!done.errors.contains("ERROR"), "{}", done.errors);
        assert!(
            done.errors.ends_with("Disconnected from broker"),
            "{}",
            done.errors
        );
    }
}

/// Nothing is kept back in a buffer while the program waits.
#[test]
fn messages_are_written_as_they_come() {
    use std::io::BufRead as _;

    let broker = Broker::start();
    let mut process = Command::new(SUB)
        .args(["--url", &url(&broker), "-t", "t", "-d"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let errors = Log::follow(process.stderr.take().unwrap());
    errors.wait_for("SUBACK", |line| line.contains("<-in-- SubackPacket"));
    let mut publisher = broker.publisher(V311);
    let mut output = std::io::BufReader::new(process.stdout.take().unwrap());
    for payload in ["one", "two", "three"] {
        publisher.publish("t", 0, payload);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), payload);
    }
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn messages_may_go_to_files() {
    let broker = Broker::start();
    let directory = TempDir::new();
    let (file, folder) = (
        directory.file("log", "before\n"),
        directory.path().join("each"),
    );
    let folder = folder.to_str().unwrap();
    let appended = subscriber(&broker, &["-t", "a/b", "-n", "2", "--output-file", &file]);
    let each = subscriber(&broker, &["-t", "a/b", "-n", "2", "--output-dir", folder]);
    let mut publisher = broker.publisher(V311);
    publisher.publish("a/b", 1, "one");
    publisher.publish("a/b", 1, b"\0\xff");
    assert!(appended.wait().expect(0).output.is_empty());
    each.wait().expect(0);
    assert_eq!(std::fs::read(&file).unwrap(), b"before\none\n\0\xff\n");
    assert_eq!(
        std::fs::read(format!("{folder}/000001-a_b")).unwrap(),
        b"one"
    );
    assert_eq!(
        std::fs::read(format!("{folder}/000002-a_b")).unwrap(),
        b"\0\xff"
    );
}

#[test]
fn a_random_part_may_be_printed() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    let none = subscriber(&broker, &["-t", "t", "--random-filter", "0", "-W", "2"]);
    let all = subscriber(&broker, &["-t", "t", "--random-filter", "100", "-n", "50"]);
    for n in 0..50 {
        publisher.publish("t", 1, n.to_string());
    }
    assert_eq!(all.wait().expect(0).text().lines().count(), 50);
    assert!(none.wait().expect(27).output.is_empty());
}
