//! Reason codes of MQTT 5.0, each from its cause. docs/conformance.md lists them all with their tests.

use crate::support::packet::{self, ack_with};
use crate::support::*;

const ALIAS: u8 = 0x23;

/// The reason of the acknowledgement of this kind that comes next.
#[track_caller]
fn reason(client: &mut Client, expected: Kind) -> u8 {
    match client.receive() {
        Packet::Ack { kind, reason, .. } if kind == expected => reason,
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

/// 0x10: nobody subscribes to what is published. [MQTT-3.3.5-2]
#[test]
fn nobody_subscribes_to_it() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V5);
    for (filter, code) in [("elsewhere", 0x10), ("there", 0x00)] {
        client.subscribe(filter, 0);
        client.send(Publish::new("there", 1, "").id(1).encode(V5));
        let found = client.await_packet("PUBACK", |packet| match packet {
            Packet::Ack { reason, .. } => Some(*reason),
            _ => None,
        });
        assert_eq!(found, code);
    }
    let mut alone = Client::connect(&broker, V5);
    alone.send(Publish::new("nowhere", 2, "").id(1).encode(V5));
    assert_eq!(reason(&mut alone, Kind::Pubrec), 0x10);
    // It is no error: the flow goes on.
    alone.send(ack(Kind::Pubrel, 1));
    assert_eq!(reason(&mut alone, Kind::Pubcomp), 0);
}

/// 0x87: the access rules say no, to PUBLISH and to SUBSCRIBE.
#[test]
fn the_client_may_not() {
    let broker = Broker::with("topic-check: {enabled: on, acl: {anonymous: ['mine/#']}}\n");
    let mut client = Client::connect(&broker, V5);
    client.send(Publish::new("yours", 1, "").id(1).encode(V5));
    assert_eq!(reason(&mut client, Kind::Puback), 0x87);
    client.send(Publish::new("yours", 2, "").id(2).encode(V5));
    assert_eq!(reason(&mut client, Kind::Pubrec), 0x87);
    assert_eq!(
        client.subscribe_all(&[("mine/a", 1), ("yours", 1)]),
        [1, 0x87]
    );
    // The flow of QoS 2 is over with the refusal.
    client.send(Publish::new("mine/a", 1, "").id(2).encode(V5));
    client.await_ack(Kind::Puback, 2);
}

/// 0x8D: silence for one and a half Keep Alives.
#[test]
fn nothing_came_within_the_keep_alive() {
    let broker = Broker::start();
    let mut client = Client::connect_with(&broker, &Connect::new(V5, "silent").keep_alive(1));
    assert_eq!(client.expect_close(), Some(0x8d));
}

/// 0x90: a topic beyond the broker's limits. QoS 0 has no acknowledgement, so that the connection ends.
#[test]
fn the_topic_is_beyond_the_limits() {
    let broker = Broker::with("limits: {max-topic-levels: 2}\n");
    let mut client = Client::connect(&broker, V5);
    client.send(Publish::new("a/b/c", 1, "").id(1).encode(V5));
    assert_eq!(reason(&mut client, Kind::Puback), 0x90);
    client.send(Publish::new("a/b/c", 2, "").id(1).encode(V5));
    assert_eq!(reason(&mut client, Kind::Pubrec), 0x90);
    client.send(Publish::new("a/b/c", 0, "").encode(V5));
    assert_eq!(client.expect_close(), Some(0x90));
    let will = Connect::new(V5, "will").will(Publish::new("a/b/c", 0, ""));
    assert_eq!(Client::refused(&broker, &will), 0x90);
}

/// 0x91: a QoS 1 message under the identifier of a QoS 2 message that is not completed; that one goes on.
#[test]
fn the_packet_identifier_is_in_use() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V5, "use", 2);
    let mut client = Client::connect(&broker, V5);
    client.send(Publish::new("use", 2, "first").id(7).encode(V5));
    client.await_ack(Kind::Pubrec, 7);
    client.send(Publish::new("use", 1, "second").id(7).encode(V5));
    assert_eq!(reason(&mut client, Kind::Puback), 0x91);
    client.send(ack(Kind::Pubrel, 7));
    client.await_ack(Kind::Pubcomp, 7);
    client.publish("use", 1, "third");
    assert_eq!(subscriber.receive_publish().text(), "first");
    assert_eq!(subscriber.receive_publish().text(), "third");
}

/// 0x92: PUBREL and PUBREC for messages that are not there.
#[test]
fn the_packet_identifier_is_not_known() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V5);
    client.send(ack(Kind::Pubrel, 9));
    assert_eq!(reason(&mut client, Kind::Pubcomp), 0x92);
    client.send(ack(Kind::Pubrec, 9));
    assert_eq!(reason(&mut client, Kind::Pubrel), 0x92);
    // A flow that the client ends needs no PUBREL, and what is not known no second answer.
    client.send(ack_with(Kind::Pubrec, 9, 0x80));
    client.send(ack(Kind::Puback, 9));
    client.send(ack(Kind::Pubcomp, 9));
    client.expect_alive();
}

/// 0x94: a topic alias above the maximum that CONNACK told, one that stands for nothing yet, and 0.
/// [MQTT-3.3.2-8], [MQTT-3.3.2-9]
#[test]
fn the_topic_alias_is_not_valid() {
    let broker = Broker::with("limits: {max-topic-alias: 2}\n");
    for (topic, alias, expected) in [("a", 3, 0x94), ("", 1, 0x82), ("a", 0, 0x94)] {
        let mut client = Client::connect(&broker, V5);
        let message = Publish::new(topic, 0, "").property(Property::Two(ALIAS, alias));
        client.send(message.encode(V5));
        assert_eq!(client.expect_close(), Some(expected), "{topic:?} {alias}");
    }
}

/// 0x9A: a retained message where CONNACK told that there are none. [MQTT-3.2.2-14]
#[test]
fn nothing_is_retained_here() {
    let broker = Broker::with("retain-available: off\n");
    for qos in 0..3 {
        let mut client = Client::connect(&broker, V5);
        let mut message = Publish::new("kept", qos, "").retain();
        message.id = (qos > 0).then_some(1);
        client.send(message.encode(V5));
        assert_eq!(client.expect_close(), Some(0x9a));
    }
}

/// 0x9B: a QoS above the Maximum QoS that CONNACK told. [MQTT-3.2.2-11]
#[test]
fn the_qos_is_above_the_maximum() {
    let broker = Broker::with("max-qos: 1\n");
    let mut client = Client::connect(&broker, V5);
    client.publish("high", 1, "");
    client.send(Publish::new("high", 2, "").id(1).encode(V5));
    assert_eq!(client.expect_close(), Some(0x9b));
}

/// 0x84: a version after 5.0. [MQTT-3.1.2-2]
#[test]
fn the_version_is_not_spoken() {
    let broker = Broker::start();
    let connect = Connect::new(V5, "newer");
    let mut body = connect.body(connect.flags());
    assert_eq!(std::mem::replace(&mut body[6], 6), 5);
    let mut client = Client::open(&broker);
    client.version = V5;
    client.send(packet::packet(0x10, &body));
    assert!(matches!(
        client.receive(),
        Packet::Connack { code: 0x84, .. }
    ));
    client.expect_end();
}

/// 0x98: the embedding program ends a connection.
#[test]
fn an_administrator_ended_the_connection() {
    let mut config = hbmqtt::Config::default();
    config.listeners[0] = hbmqtt::broker::config::ListenerConfig::tcp("default", "127.0.0.1", 0);
    let mut broker = hbmqtt::Broker::new(config);
    broker.start().unwrap();
    let mut client = Client::open_at(broker.local_addr("default").unwrap());
    client.handshake(&Connect::new(V5, "unwanted"));
    let context = broker.context().unwrap();
    assert!(context.disconnect_client("unwanted").unwrap());
    assert_eq!(client.expect_close(), Some(0x98));
    assert!(!context.disconnect_client("unwanted").unwrap());
    broker.shutdown(PATIENCE).unwrap();
}
