//! `hbmqtt_pub`.

use std::process::Command;

use super::server::{Server, read_connect};
use super::*;

/// The command lines of HBMQTT's documentation, with another host and port in the URL. [SEED-8]
#[test]
fn command_lines_of_the_documentation_run_unchanged() {
    let broker = Broker::start();
    let mut observer = observer(&broker, "#");
    let (url, directory) = (url(&broker), TempDir::new());
    directory.file("data", "one\ntwo\n");
    let lines = [
        (
            "hbmqtt_pub --url URL -t /test -m some_data",
            "/test",
            0,
            "some_data",
        ),
        (
            "echo line | hbmqtt_pub --url URL -t /test -l",
            "/test",
            0,
            "line",
        ),
        (
            "hbmqtt_pub --url URL -t sensors/temperature -m 32 -q 1",
            "sensors/temperature",
            1,
            "32",
        ),
        (
            "hbmqtt_pub --url URL -t sensors/temperature -m \"1266193804 32\"",
            "sensors/temperature",
            0,
            "1266193804 32",
        ),
        (
            "hbmqtt_pub --url URL -r -t switches/kitchen_lights/status -m \"on\"",
            "switches/kitchen_lights/status",
            0,
            "on",
        ),
        (
            "hbmqtt_pub --url URL -t my/topic -s < ./data",
            "my/topic",
            0,
            "one\ntwo\n",
        ),
    ];
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &line.replace("URL", &url).replace("hbmqtt_pub", PUB)]);
        command.current_dir(directory.path());
        Tool::spawn(command).wait().expect(0);
    };
    for (line, topic, qos, payload) in lines {
        shell(line);
        let message = receive(&mut observer);
        assert_eq!((&*message.topic, message.qos), (topic, qos), "{line}");
        assert_eq!(message.text(), payload, "{line}");
    }
    shell("hbmqtt_pub --url URL -t my/topic -f ./data");
    for payload in ["one", "two"] {
        assert_eq!(receive(&mut observer).text(), payload);
    }
}

/// PUB-22, PUB-12, LOG-1.
#[test]
fn log_lines_are_hbmqtts() {
    let broker = Broker::start();
    let log = publish(&broker, &["-t", "/test", "-m", "some_data"]).log();
    let (_, first) = &log[0];
    let id = first.strip_suffix(" Connecting to broker").unwrap();
    let (pid, host) = id
        .strip_prefix("hbmqtt_pub/")
        .unwrap()
        .split_once('-')
        .unwrap();
    assert!(pid.parse::<u32>().is_ok() && !host.is_empty(), "{id}");
    let info = |text: &str| ("INFO".to_owned(), format!("{id} {text}"));
    assert_eq!(
        log,
        [
            info("Connecting to broker"),
            info("Publishing to '/test'"),
            info("Disconnected from broker")
        ]
    );
    let quiet = publish(&broker, &["-t", "/test", "-m", "x", "--quiet"]);
    assert_eq!((quiet.errors.as_str(), quiet.output.len()), ("", 0));
}

/// PUB-14, LOG-8.
#[test]
fn debug_logs_packets_and_no_password() {
    let broker = Broker::start();
    let done = publish(&broker, &["-t", "a", "-m", "x", "-d"]);
    assert!(
        done.errors.contains(" -out-> PublishPacket("),
        "{}",
        done.errors
    );
    let url = format!("mqtt://user:secret@{}", broker.address());
    let done = run(PUB, &["--url", &url, "-t", "a", "-m", "x", "-d"]).expect(134);
    assert!(
        done.errors.contains("username=user, password=***"),
        "{}",
        done.errors
    );
    assert!(!done.errors.contains("secret"), "{}", done.errors);
}

/// PUB-6, PUB-7, PUB-10.
#[test]
fn payloads_arrive_byte_for_byte() {
    let broker = Broker::start();
    let mut observer = observer(&broker, "t");
    let (url, directory) = (url(&broker), TempDir::new());
    let binary = b"\0\xff\xfe line\r\n\nend\n";
    let file = directory.file("payload", binary);
    let base = ["--url", &url, "-t", "t"];
    run(PUB, &[&base[..], &["-m", "--grüße\n"]].concat()).expect(0);
    run(PUB, &[&base[..], &["-n"]].concat()).expect(0);
    run_with_input(PUB, &[&base[..], &["-s"]].concat(), binary).expect(0);
    run(PUB, &[&base[..], &["--payload-file", &file]].concat()).expect(0);
    run_with_input(PUB, &[&base[..], &["-s"]].concat(), b"").expect(0);
    for expected in ["--grüße\n".as_bytes(), b"", binary, binary, b""] {
        assert_eq!(receive(&mut observer).payload, expected);
    }
}

/// PUB-8, PUB-9, DEC-9, DEC-10: a message for each line, without its end, and none for a blank one.
#[test]
fn lines_lose_their_ends_and_blank_ones_are_left_out() {
    let broker = Broker::start();
    let mut observer = observer(&broker, "t");
    let (url, directory) = (url(&broker), TempDir::new());
    let text = b"one\n\n\r\ntwo\r\n \n\xff\0\nlast";
    let file = directory.file("lines", text);
    run(PUB, &["--url", &url, "-t", "t", "-q", "1", "-f", &file]).expect(0);
    run_with_input(PUB, &["--url", &url, "-t", "t", "-l"], text).expect(0);
    for _ in 0..2 {
        for line in [&b"one"[..], b"two", b" ", b"\xff\0", b"last"] {
            assert_eq!(receive(&mut observer).payload, line);
        }
    }
}

/// PUB-9: each line is on its way before the next one is there.
#[test]
fn lines_are_published_as_they_come() {
    let broker = Broker::start();
    let url = url(&broker);
    for qos in ["0", "1", "2"] {
        let mut observer = observer(&broker, "stream");
        let mut tool = Tool::start(PUB, &["--url", &url, "-t", "stream", "-l", "-q", qos]);
        for line in ["one", "two", "three"] {
            tool.write(format!("{line}\n"));
            assert_eq!(receive(&mut observer).text(), line);
        }
        tool.wait().expect(0);
    }
}

/// PUB-23: many lines are on their way at once, arrive in order, and are all acknowledged at the end.
#[test]
fn many_lines_arrive_in_order() {
    let broker = Broker::start();
    let url = url(&broker);
    for qos in ["1", "2"] {
        let mut observer = observer(&broker, "many");
        let lines: String = (0..2_000).map(|n| format!("{n}\n")).collect();
        let arguments = [
            "--url", &url, "-t", "many", "-l", "--quiet", "-q", qos, "-M", "20",
        ];
        run_with_input(PUB, &arguments, lines.as_bytes()).expect(0);
        for n in 0..2_000 {
            assert_eq!(receive(&mut observer).text(), n.to_string());
        }
    }
}

/// PUB-23: without the acknowledgement there is no success.
#[test]
fn a_missing_acknowledgement_is_a_failure() {
    let server = Server::new();
    let url = server.url();
    let tool = Tool::start(PUB, &["--url", &url, "-t", "t", "-m", "x", "-q", "1"]);
    let (mut peer, _) = server.accept_mqtt();
    assert_eq!(peer.packet()[0] & 0xf0, 0x30);
    drop(peer);
    let done = tool.wait().expect(1);
    assert!(
        done.errors.contains(":: ERROR - Publishing failed"),
        "{}",
        done.errors
    );
}

/// PUB-20, DEC-7, DEC-13, DEC-14: the command line goes before the configuration, 0 and "no" included.
#[test]
fn qos_and_retain_come_from_arguments_then_topic_then_default() {
    let broker = Broker::start();
    let mut watcher = observer(&broker, "#");
    let directory = TempDir::new();
    let config = directory.file(
        "client.yaml",
        "default_qos: 2\ndefault_retain: true\ntopics:\n  mine: {qos: 1, retain: false}\n",
    );
    let cases: [(&[&str], &str, u8, bool); 6] = [
        (&[], "other", 2, true),
        (&[], "mine", 1, false),
        (&["-q", "0"], "other", 0, true),
        (&["-q", "0", "-r"], "mine", 0, true),
        (&["--no-retain"], "other", 2, false),
        (&["--qos", "2"], "mine", 2, false),
    ];
    for (arguments, topic, qos, retained) in cases {
        let arguments = [&["-c", &config, "-t", topic, "-m", "x"][..], arguments].concat();
        publish(&broker, &arguments);
        assert_eq!(receive(&mut watcher).qos, qos, "{arguments:?}");
        let mut late = observer(&broker, topic);
        if retained {
            assert!(receive(&mut late).retain, "{arguments:?}");
        } else {
            // The marker of this check comes to the watcher as well.
            late.expect_nothing(&mut broker.publisher(V311));
            receive(&mut watcher);
        }
        publish(&broker, &["-t", topic, "-n", "-r"]);
        receive(&mut watcher);
    }
}

/// PUB-5, PUB-4, PUB-3: a wrong command line ends with status 2 before anybody is connected to.
#[test]
fn a_wrong_command_line_sends_nothing() {
    let server = Server::new();
    let url = server.url();
    let with = |arguments: &[&str]| run(PUB, &[&["--url", &url][..], arguments].concat()).expect(2);
    for arguments in [
        &["-t", "a"][..],
        &["-t", "a", "-m", "x", "-n"],
        &["-t", "a", "-m", "x", "-l"],
        &["-t", "a", "-m", "x", "-f", "/dev/null"],
        &["-m", "x"],
        &["-t", "a", "-t", "b", "-m", "x"],
        &["-t", "a/+", "-m", "x"],
        &["-t", "a/#", "-m", "x"],
        &["-t", "", "-m", "x"],
        &["-t", "a", "-m", "x", "-q", "3"],
        &["-t", "a", "-m", "x", "-k", "65536"],
        &["-t", "a", "-m", "x", "--extra-headers", "{"],
        &["-t", "a", "-m", "x", "--will-message", "w"],
        &["-t", "a", "-m", "x", "--will-topic", "#"],
        &["-t", "a", "-m", "x", "--cert", "c.pem"],
        &["-t", "a", "-m", "x", "--psk", "00"],
        &[
            "-t",
            "a",
            "-m",
            "x",
            "--clean-session",
            "--no-clean-session",
        ],
        &["-t", "a", "-m", "x", "stray"],
        &["-t", "a", "-m"],
    ] {
        let done = with(arguments);
        assert!(
            done.errors.starts_with("hbmqtt_pub: "),
            "{arguments:?}: {}",
            done.errors
        );
        assert!(done.output.is_empty());
    }
    for bad in [
        "localhost",
        "http://h",
        "mqtt://",
        "mqtt://h:0",
        "mqtt://h:65536",
        "mqtt://::1",
    ] {
        run(PUB, &["--url", bad, "-t", "a", "-m", "x"]).expect(2);
    }
    run(PUB, &["-t", "a", "-m", "x"]).expect(2);
    server.expect_nobody();
}

/// PUB-8: what cannot be read is noticed before anything is published.
#[test]
fn an_unreadable_file_sends_nothing() {
    let server = Server::new();
    let url = server.url();
    for option in ["-f", "--payload-file", "--password-file", "-c", "-o"] {
        let mut arguments = vec!["--url", &url, "-t", "a", option, "/nonexistent"];
        if !["-f", "--payload-file"].contains(&option) {
            arguments.extend(["-m", "x"]);
        }
        let done = run(PUB, &arguments).expect(1);
        assert!(done.errors.contains("/nonexistent"), "{}", done.errors);
    }
    run(PUB, &["--url", &url, "-t", "a", "-f", "/"]).expect(1);
    server.expect_nobody();
}

/// PUB-23, BUG-17, LOG-7.
#[test]
fn a_failed_connection_is_told_without_the_password() {
    let address = { Server::new().address() };
    let url = format!("mqtt://user:secret@{address}");
    let done = run(PUB, &["--url", &url, "-t", "a", "-m", "x"]).expect(1);
    let log = done.log();
    let (level, text) = log.last().unwrap();
    assert_eq!(level, "CRITICAL");
    let expected = format!("connection to 'mqtt://user:***@{address}' failed: ");
    assert!(text.starts_with(&expected), "{text}");
    assert!(!done.errors.contains("secret"));
}

/// A refused CONNECT exits with the reason code that its return code stands for.
#[test]
fn a_refusal_becomes_the_exit_status() {
    for (code, status) in [(1, 132), (2, 133), (3, 136), (4, 134), (5, 135)] {
        let server = Server::new();
        let url = server.url();
        let tool = Tool::start(PUB, &["--url", &url, "-t", "a", "-m", "x"]);
        let (mut peer, _) = server.accept_connect();
        peer.send(&format!("20 02 00 0{code}"));
        tool.wait().expect(status);
    }
}

/// PUB-24: the broker gets its DISCONNECT, so that no will is published.
#[test]
fn a_signal_disconnects_and_sets_the_status() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let server = Server::new();
        let url = server.url();
        let mut tool = Tool::start(PUB, &["--url", &url, "-t", "a", "-l"]);
        let (mut peer, _) = server.accept_mqtt();
        // Once the first line is published the handlers are there.
        tool.write("x\n");
        assert_eq!(peer.packet()[0], 0x30);
        tool.signal(signal);
        assert_eq!(peer.packet(), [0xe0, 0]);
        let done = tool.wait_for_end().expect(status);
        let (level, text) = done.log().pop().unwrap();
        assert!(
            level == "INFO" && text.ends_with(" Disconnected from broker"),
            "{text}"
        );
    }
}

/// The writer of the lines learns that nobody takes them any longer.
#[test]
fn a_lost_connection_ends_the_waiting_for_lines() {
    let server = Server::new();
    let url = server.url();
    let mut tool = Tool::start(PUB, &["--url", &url, "-t", "a", "-l", "--no-reconnect"]);
    let (mut peer, _) = server.accept_mqtt();
    tool.write("x\n");
    peer.packet();
    drop(peer);
    tool.wait_for_end().expect(1);
}

/// PUB-18, DEC-16.
#[test]
fn the_will_is_published_when_the_program_is_killed() {
    let broker = Broker::start();
    let url = url(&broker);
    let cases: [(&[&str], u8, &str); 2] = [
        (&["--will-topic", "will"], 0, ""),
        (
            &[
                "--will-topic",
                "will",
                "--will-message",
                "gone",
                "--will-qos",
                "2",
                "--will-retain",
            ],
            2,
            "gone",
        ),
    ];
    for (will, qos, payload) in cases {
        let mut observer = observer(&broker, "#");
        let arguments = [&["--url", &url, "-t", "t", "-l"][..], will].concat();
        let mut tool = Tool::start(PUB, &arguments);
        tool.write("x\n");
        assert_eq!(receive(&mut observer).topic, "t");
        tool.signal("KILL");
        let published = receive(&mut observer);
        assert_eq!(
            (&*published.topic, published.qos, &*published.text()),
            ("will", qos, payload)
        );
    }
    assert!(receive(&mut observer(&broker, "will")).retain);
}

/// PUB-16, DEC-15, PUB-15, PUB-12.
#[test]
fn connect_says_what_the_options_say() {
    let cases: [(&[&str], bool, u16, Option<&str>); 7] = [
        (&[], true, 10, None),
        (&["-i", "me"], false, 10, Some("me")),
        (&["-i", "me", "--clean-session"], true, 10, Some("me")),
        (&["--no-clean-session", "-i", "me"], false, 10, Some("me")),
        (&["-k", "60"], true, 60, None),
        (&["-k0"], true, 0, None),
        (&["-k", "1"], true, 1, None),
    ];
    for (arguments, clean, keep_alive, id) in cases {
        let server = Server::new();
        let url = server.url();
        let _tool = Tool::start(
            PUB,
            &[&["--url", &url, "-t", "t", "-l"][..], arguments].concat(),
        );
        let (_peer, connect) = server.accept_mqtt();
        let (flags, sent, sent_id) = read_connect(&connect);
        assert_eq!((flags & 2 != 0, sent), (clean, keep_alive), "{arguments:?}");
        match id {
            Some(id) => assert_eq!(sent_id, id),
            None => assert!(sent_id.starts_with("hbmqtt_pub/"), "{sent_id}"),
        }
    }
}

/// PUB-19.
#[test]
fn extra_headers_go_with_the_websocket_handshake() {
    let server = Server::new();
    let url = server.url().replace("mqtt:", "ws:") + "/mqtt";
    let headers = r#"{"Authorization": "Bearer <token>", "X-Number": 1}"#;
    let arguments = [
        "--url",
        &url,
        "-t",
        "t",
        "-m",
        "x",
        "--extra-headers",
        headers,
        "--ws-header",
        "X-More: yes",
    ];
    let tool = Tool::start(PUB, &arguments);
    let mut peer = server.accept();
    let request = peer.request();
    assert!(request.starts_with("GET /mqtt HTTP/1.1\r\n"), "{request}");
    for header in [
        "Authorization: Bearer <token>",
        "X-Number: 1",
        "X-More: yes",
        "Sec-WebSocket-Protocol: mqtt",
    ] {
        let found = request
            .lines()
            .any(|line| line.eq_ignore_ascii_case(header));
        assert!(found, "{header} in {request}");
    }
    peer.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    drop(peer);
    tool.wait().expect(1);
}

/// PUB-19: elsewhere they have no effect, and that is said.
#[test]
fn extra_headers_without_websocket_are_a_warning() {
    let broker = Broker::start();
    let done = publish(
        &broker,
        &["-t", "t", "-m", "x", "--extra-headers", "{\"A\": \"b\"}"],
    );
    assert!(
        done.log().iter().any(|(level, _)| level == "WARNING"),
        "{}",
        done.errors
    );
}

#[test]
fn a_message_may_be_repeated() {
    let broker = Broker::start();
    let mut observer = observer(&broker, "t");
    publish(
        &broker,
        &[
            "-t",
            "t",
            "-m",
            "again",
            "--repeat",
            "3",
            "--repeat-delay",
            "0.01",
            "-q1",
        ],
    );
    for _ in 0..3 {
        assert_eq!(receive(&mut observer).text(), "again");
    }
    observer.expect_nothing(&mut broker.publisher(V311));
}

#[test]
fn every_protocol_version_can_be_chosen() {
    let broker = Broker::start();
    let mut observer = observer(&broker, "t");
    for version in ["3.1", "mqttv311", "5"] {
        publish(
            &broker,
            &["-t", "t", "-m", version, "-V", version, "-q", "2"],
        );
        assert_eq!(receive(&mut observer).text(), version);
    }
}

/// The path of an mqtt URL is mosquitto's topic; -t goes before it.
#[test]
fn the_topic_may_stand_in_the_url() {
    let broker = Broker::start();
    let mut observer = observer(&broker, "#");
    let in_url = format!("{}/from/url", url(&broker));
    run(PUB, &["-L", &in_url, "-m", "x"]).expect(0);
    assert_eq!(receive(&mut observer).topic, "from/url");
    run(PUB, &["-L", &in_url, "-m", "x", "-t", "own"]).expect(0);
    assert_eq!(receive(&mut observer).topic, "own");
}

/// The broker closes right after CONNACK: there is nothing to wait for.
#[test]
fn a_connection_that_ends_at_once_is_a_failure() {
    let server = Server::new();
    let url = server.url();
    let tool = Tool::start(PUB, &["--url", &url, "-t", "a", "-m", "x", "-q", "2"]);
    drop(server.accept_mqtt());
    tool.wait().expect(1);
}

/// PUB-22: also where the lines of the log are written many at once.
#[test]
fn each_of_many_messages_is_logged() {
    let broker = Broker::start();
    let url = url(&broker);
    let lines: String = (0..5000).map(|number| format!("{number}\n")).collect();
    let done =
        run_with_input(PUB, &["--url", &url, "-t", "many", "-l"], lines.as_bytes()).expect(0);
    let log = done.log();
    let published = log
        .iter()
        .filter(|(_, text)| text.ends_with(" Publishing to 'many'"));
    assert_eq!(published.count(), 5000);
    assert!(log[0].1.ends_with(" Connecting to broker"), "{:?}", log[0]);
    assert!(log[5001].1.ends_with(" Disconnected from broker"));
}
