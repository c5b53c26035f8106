//! Server Reference: clients that are sent to another broker.

use crate::support::broker::LISTENERS;
use crate::support::*;

const ELSEWHERE: &str = "server-reference: other.example:1883\n";

fn reference(properties: &[Property]) -> Option<&str> {
    properties.iter().find_map(|property| match property {
        Property::Text(0x1c, text) => Some(text.as_str()),
        _ => None,
    })
}

/// MQTT 5.0 §4.11, [MQTT-3.2.2-22]: 0x9C or 0x9D with the reference; return code 3 before.
#[test]
fn a_broker_that_redirects_refuses_everybody() {
    for (redirect, expected) in [("temporary", 0x9c), ("permanent", 0x9d)] {
        let broker = Broker::with(&format!("{ELSEWHERE}redirect: {redirect}\n"));
        broker.wait_for_log("other.example:1883");
        let mut client = Client::open(&broker);
        client.version = V5;
        client.send(Connect::new(V5, "five").encode());
        let Packet::Connack {
            code, properties, ..
        } = client.receive()
        else {
            panic!("expected CONNACK")
        };
        client.expect_end();
        assert_eq!(code, expected);
        assert_eq!(reference(&properties), Some("other.example:1883"));
        for version in [V31, V311] {
            assert_eq!(Client::refused(&broker, &Connect::new(version, "three")), 3);
        }
    }
}

/// A reload that says so sends those away who are connected, and a second one lets them in again.
#[test]
fn a_reload_moves_everybody() {
    let directory = TempDir::new();
    let settings = |redirect: &str| format!("{LISTENERS}{ELSEWHERE}redirect: {redirect}\n");
    let path = directory.file("broker.yaml", settings("off"));
    let mut broker = Broker::spawn(&["-c", &path], directory);
    broker.wait_for_listeners(1);
    let kept = Connect::new(V5, "kept").persistent();
    let mut five = Client::connect_with(&broker, &kept);
    five.subscribe("waits", 1);
    let mut three = Client::connect(&broker, V311);
    std::fs::write(&path, settings("temporary")).unwrap();
    broker.signal("HUP");
    let Packet::Disconnect { reason, properties } = five.receive() else {
        panic!("expected DISCONNECT")
    };
    assert_eq!(reason, 0x9c);
    assert_eq!(reference(&properties), Some("other.example:1883"));
    five.expect_end();
    three.expect_end();
    assert_eq!(Client::refused(&broker, &kept), 0x9c);
    std::fs::write(&path, settings("off")).unwrap();
    broker.signal("HUP");
    let mut again = eventually("the client is let in", || {
        let mut client = Client::open(&broker);
        client.version = V5;
        client.send(kept.encode());
        match client.receive() {
            Packet::Connack {
                session_present: true,
                code: 0,
                ..
            } => Ok(client),
            other => Err(format!("{other:?}")),
        }
    });
    let mut publisher = broker.publisher(V5);
    publisher.publish("waits", 1, "x");
    again.expect_only(&mut publisher, &["x"]);
}

/// A broker that stops names the other one, and has no need to redirect for it. What the packet has no room for goes.
#[test]
fn a_shutdown_names_the_other_broker() {
    for (settings, expected) in [("", 0x9c), ("redirect: off\n", 0x9c)] {
        let broker = Broker::with(&format!("{ELSEWHERE}{settings}"));
        let mut client = Client::connect(&broker, V5);
        let small = Connect::new(V5, "small").property(Property::Four(0x27, 40));
        let mut small = Client::connect_with(&broker, &small);
        let tiny = Connect::new(V5, "tiny").property(Property::Four(0x27, 20));
        let mut tiny = Client::connect_with(&broker, &tiny);
        broker.signal("TERM");
        for (client, named, explained) in [
            (&mut client, true, true),
            (&mut small, true, false),
            (&mut tiny, false, false),
        ] {
            let Packet::Disconnect { reason, properties } = client.receive() else {
                panic!("expected DISCONNECT")
            };
            assert_eq!(reason, expected);
            assert_eq!(reference(&properties).is_some(), named);
            let has_text = properties.iter().any(|property| property.id() == 0x1f);
            assert_eq!(has_text, explained);
            client.expect_end();
        }
    }
}
