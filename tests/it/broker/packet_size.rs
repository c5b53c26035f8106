//! A client's Maximum Packet Size: nothing larger is sent to it, and what can be left out is left out.

use crate::support::packet::{decode, disconnect};
use crate::support::*;

const REASON_STRING: u8 = 0x1f;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;
/// Room for every answer without its text, and for none with it.
const SMALL: u32 = 30;

fn broker() -> Broker {
    Broker::with("sys_interval: 1\nlimits:\n  max-topic-levels: 5\n  max-client-id-length: 10\n")
}

fn connect(id: &str, limit: Option<u32>) -> Connect {
    let connect = Connect::new(V5, id);
    match limit {
        Some(limit) => connect.property(Property::Four(MAXIMUM_PACKET_SIZE, limit)),
        None => connect,
    }
}

/// The reason code of the next packet; it fits, and has a text exactly where there is no limit.
#[track_caller]
fn reason(client: &mut Client, limit: Option<u32>) -> u8 {
    let bytes = client.receive_bytes();
    assert!(limit.is_none_or(|limit| bytes.len() <= limit as usize));
    let (reason, properties) = match decode(V5, &bytes) {
        Packet::Connack {
            code, properties, ..
        } => (code, properties),
        Packet::Ack {
            reason, properties, ..
        }
        | Packet::Disconnect { reason, properties } => (reason, properties),
        Packet::Suback {
            codes, properties, ..
        } => (codes[0], properties),
        other => panic!("{other:?}"),
    };
    let has_text = properties
        .iter()
        .any(|property| property.id() == REASON_STRING);
    assert_eq!(has_text, limit.is_none(), "{}", hex(&bytes));
    reason
}

/// [MQTT-3.4.2-2], [MQTT-3.5.2-2], [MQTT-3.9.2-1], [MQTT-3.14.2-3]
#[test]
fn answers_leave_out_a_reason_string_that_does_not_fit() {
    let broker = broker();
    for limit in [None, Some(SMALL)] {
        let mut client = Client::connect_with(&broker, &connect("id", limit));
        client.send(Publish::new("a/b/c/d/e/f", 1, "").id(1).encode(V5));
        assert_eq!(reason(&mut client, limit), 0x90);
        client.send(Publish::new("a/b/c/d/e/f", 2, "").id(2).encode(V5));
        assert_eq!(reason(&mut client, limit), 0x90);
        client.send(subscribe(V5, 3, &[("a/b/c/d/e/f", 0)]));
        assert_eq!(reason(&mut client, limit), 0x8f);
        // A Session Expiry Interval where CONNECT had none.
        client.send(disconnect(0, &[Property::Four(0x11, 1)]));
        assert_eq!(reason(&mut client, limit), 0x82);
        client.expect_end();
    }
}

/// [MQTT-3.2.2-19], [MQTT-3.1.2-24]
#[test]
fn connack_leaves_out_a_reason_string_that_does_not_fit() {
    let broker = broker();
    for limit in [None, Some(SMALL)] {
        let mut client = Client::open(&broker);
        client.version = V5;
        client.send(connect("longer than ten", limit).encode());
        assert_eq!(reason(&mut client, limit), 0x85);
        client.expect_end();
    }
    // Where not even the code fits, nothing is sent.
    let mut client = Client::open(&broker);
    client.version = V5;
    client.send(connect("longer than ten", Some(4)).encode());
    client.expect_end();
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]: a message that is too large for one receiver is dropped for it alone, counts as
/// sent, and is counted. The limit is the packet's last byte.
#[test]
fn a_message_that_does_not_fit_is_dropped_for_that_client_alone() {
    let broker = broker();
    let limit = 40;
    let mut small = Client::connect_with(&broker, &connect("small", Some(limit)));
    small.subscribe("m", 2);
    let mut large = broker.subscriber(V5, "m", 2);
    let mut publisher = broker.publisher(V5);
    // Fixed header 2, topic 3, identifier 2, no properties 1.
    let fits = "x".repeat(limit as usize - 8);
    for qos in [1, 2] {
        for payload in [&fits, &format!("{fits}x"), &fits] {
            publisher.publish("m", qos, payload);
            let message = large.receive_publish();
            assert_eq!(message.text(), *payload);
            large.acknowledge(&message);
        }
    }
    small.expect_only(&mut publisher, &[&fits; 4].map(|payload| payload.as_str()));
    let mut sys = broker.subscriber(V5, "$SYS/broker/messages/dropped/too-large", 0);
    while sys.receive_publish().text() != "2" {}
}
