//! The lines of the log: users search for them, so they are an interface.

use crate::support::*;

/// BRK-5, LOG-2 and the layout of every line: `[YYYY-MM-DD HH:MM:SS,mmm] :: LEVEL - message`.
#[test]
fn the_start_line_has_hbmqtts_layout() {
    let broker = Broker::configured(
        "listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:0\n  small:\n    bind: 127.0.0.1:0\n    max-connections: 7\n",
    );
    let line = broker.wait_for_log("Listener 'default' bind to");
    let (head, message) = line.split_once(" - ").unwrap();
    assert_eq!(
        message,
        format!(
            "Listener 'default' bind to {} (max_connections=-1)",
            broker.address()
        )
    );
    let pattern = "[dddd-dd-dd dd:dd:dd,ddd] :: INFO";
    assert_eq!(head.len(), pattern.len(), "{line}");
    for (found, expected) in head.chars().zip(pattern.chars()) {
        assert!(
            if expected == 'd' {
                found.is_ascii_digit()
            } else {
                found == expected
            },
            "{line}"
        );
    }
    broker.wait_for_log(&format!(
        "Listener 'small' bind to {} (max_connections=7)",
        broker.address_of("small")
    ));
    for line in broker.log_lines() {
        assert!(line.starts_with('[') && line.contains("] :: "), "{line}");
    }
}

/// LOG-3, LOG-4
#[test]
fn connections_are_logged_as_they_come_and_go() {
    let broker = Broker::configured(
        "listeners:\n  default:\n    bind: 127.0.0.1:0\n  small:\n    bind: 127.0.0.1:0\n    max-connections: 7\n",
    );
    let client = Client::connect_with(&broker, &Connect::new(V311, "seen"));
    let line = broker.wait_for_log("Connection from 127.0.0.1:");
    assert!(line.ends_with("on listener 'default'"), "{line}");
    broker.wait_for_log("Listener 'default': 1 connections acquired");
    client.disconnect();
    broker.wait_for_log("Listener 'default': 0 connections acquired");
    let mut small = Client::open_at(broker.address_of("small"));
    small.handshake(&Connect::new(V311, "small"));
    broker.wait_for_log("Listener 'small': 1/7 connections acquired");
}

/// LIMITS.md, audit log: one line for each client that is accepted; what it wrote itself cannot forge lines.
#[test]
fn every_accepted_client_is_logged_once() {
    let broker = Broker::start();
    for (version, name) in [(V31, "MQTT 3.1"), (V311, "MQTT 3.1.1"), (V5, "MQTT 5.0")] {
        let id = format!("accepted-{version:?}");
        let _client = Client::connect_with(&broker, &Connect::new(version, &id));
        let line = broker.wait_for_log(&format!("{id} (127.0.0.1:"));
        let end = format!("connected on listener 'default': {name}, anonymous");
        assert!(line.contains("INFO") && line.ends_with(&end), "{line}");
        let lines = broker.log_lines();
        assert_eq!(lines.iter().filter(|line| line.contains(&id)).count(), 1);
    }
    let _client = Client::connect_with(&broker, &Connect::new(V5, "a\u{1b}[2J\u{202e}b"));
    broker.wait_for_log("a\\u{1b}[2J\\u{202e}b (127.0.0.1:");
}

/// LOG-9: every end of a connection is one line with identifier, address and reason.
#[test]
fn every_disconnect_is_logged_once() {
    let broker = Broker::start();
    Client::connect_with(&broker, &Connect::new(V311, "polite-client")).disconnect();
    Client::connect_with(&broker, &Connect::new(V311, "cut-client")).cut();
    let mut bad = Client::connect_with(&broker, &Connect::new(V311, "bad-client"));
    bad.send_hex("30 00");
    bad.expect_end();
    for name in ["polite-client", "cut-client", "bad-client"] {
        eventually("the end is logged", || {
            let ends = ends_of(&broker, name);
            if ends.len() == 1 {
                Ok(())
            } else {
                Err(format!("{ends:?}"))
            }
        });
    }
    broker.wait_for_log("connections acquired");
    for name in ["polite-client", "cut-client", "bad-client"] {
        assert_eq!(ends_of(&broker, name).len(), 1);
    }
    assert!(!broker.log_text().contains("Unhandled"));
}

fn ends_of(broker: &Broker, name: &str) -> Vec<String> {
    let mut lines = broker.log_lines();
    lines.retain(|line| {
        line.contains(name)
            && line.contains("127.0.0.1:")
            && ["disconnected", "closed", "closing", "lost"]
                .iter()
                .any(|word| line.contains(word))
    });
    lines
}

/// LOG-6: violations are logged with the number of the rule.
#[test]
fn violations_name_their_rule() {
    let broker = Broker::start();
    let mut first = Client::open(&broker);
    first.send(PINGREQ);
    first.expect_end();
    broker.wait_for_log("[MQTT-3.1.0-1]");
    for (id, rule, bytes) in [
        (
            "wild",
            "[MQTT-3.3.2-2]",
            Publish::new("a/#", 0, "").encode(V311),
        ),
        (
            "empty",
            "[MQTT-4.7.3-1]",
            Publish::new("", 0, "").encode(V311),
        ),
        (
            "again",
            "[MQTT-3.1.0-2]",
            Connect::new(V311, "again").encode(),
        ),
        (
            "dup",
            "[MQTT-3.3.1-2]",
            Publish::new("a", 0, "").dup().encode(V311),
        ),
    ] {
        let mut client = Client::connect_with(&broker, &Connect::new(V311, id));
        client.send(bytes);
        client.expect_end();
        let line = broker.wait_for_log(rule);
        assert!(line.contains(id), "{line}");
        assert!(
            line.contains(":: WARNING - [MQTT-") || line.contains(":: ERROR - [MQTT-"),
            "{line}"
        );
    }
}

/// LIMITS.md: identifiers are escaped, so that nobody writes the log for us.
#[test]
fn client_identifiers_are_escaped() {
    let broker = Broker::start();
    Client::connect_with(&broker, &Connect::new(V311, "evil\u{1b}[2J\u{202e}\u{7f}")).disconnect();
    broker.wait_for_log("evil");
    broker.wait_for_log("0 connections acquired");
    let log = broker.log_text();
    assert!(
        !log.contains('\u{1b}') && !log.contains('\u{202e}'),
        "{log:?}"
    );
}

/// LOG-8, PLG-9, BUG-21: with `-d` every packet, the password hidden.
#[test]
fn debug_logs_every_packet() {
    let directory = TempDir::new();
    let config = directory.file("broker.yaml", broker::LISTENERS);
    let mut broker = Broker::spawn(&["-d", "-c", &config], directory);
    broker.wait_for_listeners(1);
    let connect = Connect::new(V311, "watched")
        .user("someone")
        .password("top-secret-word");
    let mut client = Client::open(&broker);
    client.send(connect.encode());
    _ = client.receive_or_end();
    let mut client = Client::connect_with(&broker, &Connect::new(V311, "watched"));
    client.subscribe("w/+", 1);
    client.publish("w/a", 0, "pay\u{1}load");
    broker.wait_for_log("watched <-in-- ");
    let line = broker.wait_for_log("watched -out-> Publish");
    assert!(line.contains(":: DEBUG - "), "{line}");
    assert!(
        line.contains("fixed=MQTTFixedHeader(length=") && line.contains("flags=0x"),
        "{line}"
    );
    assert!(!broker.log_text().contains("top-secret-word"));
}

/// LIMITS.md: a broker that lets everybody in says so at its start.
#[test]
fn an_open_broker_warns_at_its_start() {
    let directory = TempDir::new();
    let config = directory.file(
        "broker.yaml",
        "listeners:\n  default:\n    bind: 0.0.0.0:0\n",
    );
    let broker = Broker::spawn(&["-c", &config], directory);
    let line = broker.wait_for_log("WARNING");
    assert!(
        line.contains("allow-anonymous") || line.contains("anonymous"),
        "{line}"
    );
}

/// PLG-10: opt-in; HBMQTT's words for each event.
#[test]
fn the_event_logger_names_every_event() {
    let broker = Broker::with("plugins: [auth_anonymous, event_logger_plugin]\n");
    let mut client = Client::connect(&broker, V311);
    client.subscribe("e", 0);
    client.unsubscribe(&["e"]);
    client.publish("e", 1, "x");
    client.disconnect();
    for event in [
        "broker_post_start",
        "broker_client_connected",
        "broker_client_subscribed",
        "broker_client_unsubscribed",
        "broker_message_received",
        "broker_client_disconnected",
    ] {
        let line = broker.wait_for_log(&format!("### '{event}' EVENT FIRED ###"));
        assert!(line.contains(":: INFO - "), "{line}");
    }
}
