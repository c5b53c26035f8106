//! What only MQTT 5.0 has: properties, subscription options, shared subscriptions.

use std::time::{Duration, Instant};

use crate::support::packet::subscribe_with;
use crate::support::*;

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
#[test]
fn retain_handling_decides_when_retained_messages_come() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V5);
    publisher.publish_packet(Publish::new("handling", 0, "kept").retain());
    for (handling, first, again) in [(0, 1, 1), (1, 1, 0), (2, 0, 0)] {
        let mut subscriber = Client::connect(&broker, V5);
        for expected in [first, again] {
            subscriber.subscribe_all(&[("handling", handling << 4)]);
            subscriber.expect_only(&mut publisher, &["kept"][..expected]);
        }
    }
}

/// [MQTT-3.3.1-12], [MQTT-3.3.1-13]
#[test]
fn retain_as_published_keeps_the_flag() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V5);
    for (options, kept) in [(0, false), (0x08, true)] {
        let mut subscriber = Client::connect(&broker, V5);
        subscriber.subscribe_all(&[("rap", options | 0x20)]);
        publisher.publish_packet(Publish::new("rap", 1, "x").retain());
        assert_eq!(subscriber.receive_publish().retain, kept);
        publisher.publish("rap", 1, "x");
        assert!(!subscriber.receive_publish().retain);
    }
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_own_messages_away() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V5);
    client.subscribe_all(&[("local", 0x04)]);
    client.publish("local", 1, "mine");
    let mut other = broker.publisher(V5);
    other.publish("local", 1, "yours");
    client.expect_only(&mut other, &["yours"]);
}

/// [MQTT-3.1.3-7], [MQTT-3.2.2-16]
#[test]
fn an_assigned_client_identifier_is_told() {
    let broker = Broker::start();
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let (_client, properties) = connack(&broker, &Connect::new(V5, ""));
        let id = properties
            .into_iter()
            .find(|property| property.id() == 0x12);
        let Some(Property::Text(_, id)) = id else {
            panic!("no Assigned Client Identifier")
        };
        assert!(told.insert(id));
    }
}

/// [MQTT-3.2.2-9], [MQTT-3.2.2-12]: a lower Maximum QoS is told, and a will above it refused.
#[test]
fn maximum_qos_is_told_and_holds_for_wills() {
    let broker = Broker::with("max-qos: 1\n");
    let (_client, properties) = connack(&broker, &Connect::new(V5, "told"));
    assert!(
        properties.contains(&Property::Byte(0x24, 1)),
        "{properties:?}"
    );
    let will = Connect::new(V5, "will").will(Publish::new("w", 2, "x"));
    assert_eq!(Client::refused(&broker, &will), 0x9b);
}

/// [MQTT-3.2.2-13]
#[test]
fn a_retained_will_is_refused_where_nothing_is_retained() {
    let broker = Broker::with("retain-available: off\n");
    let (_client, properties) = connack(&broker, &Connect::new(V5, "told"));
    assert!(
        properties.contains(&Property::Byte(0x25, 0)),
        "{properties:?}"
    );
    let will = Connect::new(V5, "will").will(Publish::new("w", 0, "x").retain());
    assert_eq!(Client::refused(&broker, &will), 0x9a);
}

/// [MQTT-3.3.4-6]
#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V5);
    client.send(
        Publish::new("id", 0, "")
            .property(Property::Var(0x0b, 1))
            .encode(V5),
    );
    assert!(
        client
            .expect_close()
            .is_none_or(|reason| [0x81, 0x82].contains(&reason))
    );
}

/// [MQTT-3.3.4-3], [MQTT-3.3.4-4]
#[test]
fn all_subscription_identifiers_that_match_are_sent() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V5);
    for (number, filter) in [(7, "ids/a"), (300, "ids/+"), (9, "other")] {
        let id = client.next_id();
        client.send(subscribe_with(
            V5,
            id,
            &[Property::Var(0x0b, number)],
            &[(filter, 1)],
        ));
        client.await_packet("SUBACK", |packet| {
            matches!(packet, Packet::Suback { .. }).then_some(())
        });
    }
    broker.publisher(V5).publish("ids/a", 1, "x");
    let mut found: Vec<_> = client.receive_publish().properties;
    found.sort_by_key(|property| format!("{property:?}"));
    assert_eq!(found, [Property::Var(0x0b, 300), Property::Var(0x0b, 7)]);
}

/// [MQTT-3.1.2-8], [MQTT-3.1.3-9]: the Will Delay is waited for, and a resume cancels the will.
#[test]
fn a_will_waits_for_its_delay_and_a_resume_cancels_it() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V5, "delayed", 1);
    let mut connect = Connect::new(V5, "delay")
        .persistent()
        .will(Publish::new("delayed", 1, "late"));
    connect.will_properties = vec![Property::Four(0x18, 1)];
    Client::connect_with(&broker, &connect).cut();
    let back = Client::connect_with(&broker, &connect);
    back.cut();
    let start = Instant::now();
    assert_eq!(subscriber.receive_publish().text(), "late");
    assert!(
        start.elapsed() > Duration::from_millis(800),
        "{:?}",
        start.elapsed()
    );
    subscriber.expect_alive();
}

/// [MQTT-4.1.0-2], [MQTT-3.1.2-23]: to the second.
#[test]
fn a_session_ends_after_its_expiry_interval() {
    let broker = Broker::start();
    let connect = |expiry: u32| {
        let mut connect = Connect::new(V5, "expires").property(Property::Four(0x11, expiry));
        connect.clean = false;
        connect
    };
    Client::connect_with(&broker, &connect(1)).cut();
    assert!(Client::connect_resuming(&broker, &connect(1)).1);
    let mut waiting = Client::connect(&broker, V5);
    assert_eq!(waiting.receive_within(Duration::from_millis(2_200)), None);
    assert!(!Client::connect_resuming(&broker, &connect(0)).1);
}

/// [MQTT-3.3.2-5], [MQTT-3.3.2-6]: a message expires in the queue, and one that does not has its time counted down.
#[test]
fn messages_expire_in_the_queue() {
    let broker = Broker::start();
    let kept = Connect::new(V5, "slow").persistent();
    let mut subscriber = Client::connect_with(&broker, &kept);
    subscriber.subscribe("expire", 1);
    subscriber.disconnect();
    let mut publisher = broker.publisher(V5);
    publisher.publish_packet(Publish::new("expire", 1, "short").property(Property::Four(0x02, 1)));
    publisher.publish_packet(Publish::new("expire", 1, "long").property(Property::Four(0x02, 100)));
    assert_eq!(publisher.receive_within(Duration::from_millis(2_100)), None);
    let message = Client::connect_with(&broker, &kept).receive_publish();
    assert_eq!(message.text(), "long");
    let [Property::Four(0x02, left)] = message.properties[..] else {
        panic!("{message:?}")
    };
    assert!((95..=99).contains(&left), "{left}");
}

/// [MQTT-3.11.3-1]
#[test]
fn unsuback_has_a_code_for_each_filter_in_order() {
    let broker = Broker::start();
    let mut client = broker.subscriber(V5, "there", 0);
    client.send(unsubscribe(V5, 9, &["absent", "there"]));
    assert!(
        matches!(client.receive(), Packet::Unsuback { id: 9, codes, .. } if codes == [0x11, 0x00])
    );
}

/// [MQTT-3.1.2-29]: no Reason String where the client does not want one.
#[test]
fn request_problem_information_0_is_obeyed() {
    let broker = Broker::start();
    for wanted in [1, 0] {
        let connect = Connect::new(V5, "problem").property(Property::Byte(0x17, wanted));
        let mut client = Client::connect_with(&broker, &connect);
        client.send(subscribe(V5, 1, &[("a#", 0)]));
        if let Packet::Suback { properties, .. } = client.receive() {
            assert!(wanted == 1 || properties.is_empty(), "{properties:?}");
        }
    }
}

/// [MQTT-4.8.2-3], [MQTT-4.8.2-1]: each message goes to one member, at the QoS granted to it.
#[test]
fn a_shared_subscription_gives_each_message_to_one_member() {
    let broker = Broker::start();
    let mut members: Vec<_> = (0..3)
        .map(|qos| broker.subscriber(V5, "$share/group/s/+", qos))
        .collect();
    let mut everything = broker.subscriber(V5, "s/#", 0);
    let mut publisher = broker.publisher(V5);
    for number in 0..30 {
        publisher.publish("s/a", 2, number.to_string());
    }
    let mut found = Vec::new();
    for (qos, member) in members.iter_mut().enumerate() {
        member.settle();
        while let Some(Packet::Publish(message)) = member.receive_within(Duration::from_millis(300))
        {
            assert_eq!(usize::from(message.qos), qos);
            member.acknowledge(&message);
            found.push(message.text().parse::<u32>().unwrap());
        }
    }
    found.sort_unstable();
    assert_eq!(found, (0..30).collect::<Vec<_>>());
    let all: Vec<_> = (0..30).map(|number: u32| number.to_string()).collect();
    everything.expect_only(
        &mut publisher,
        &all.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

/// CONNECT, and the properties of the accepting CONNACK.
fn connack(broker: &Broker, connect: &Connect) -> (Client, Vec<Property>) {
    let mut client = Client::open(broker);
    client.version = V5;
    client.send(connect.encode());
    match client.receive() {
        Packet::Connack {
            code: 0,
            properties,
            ..
        } => (client, properties),
        other => panic!("{other:?}"),
    }
}

/// [MQTT-3.1.3-10], [MQTT-3.3.2-17], [MQTT-3.3.2-18]: what a will carries comes unchanged, User Properties in their
/// order, the names that stand twice included.
#[test]
fn a_will_carries_its_properties_in_order() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V5, "last", 1);
    let pair = |name: &str, value: &str| Property::Pair(0x26, name.to_owned(), value.to_owned());
    let properties = vec![
        Property::Byte(0x01, 1),
        Property::Text(0x08, "answer/here".to_owned()),
        Property::Binary(0x09, vec![0, 1, 255]),
        pair("b", "1"),
        pair("a", "2"),
        pair("b", "1"),
        pair("", "\u{1F600}"),
        Property::Text(0x03, "text/plain".to_owned()),
    ];
    let mut connect = Connect::new(V5, "dying").will(Publish::new("last", 1, "words"));
    connect.will_properties = properties.clone();
    Client::connect_with(&broker, &connect).cut();
    assert_eq!(subscriber.receive_publish().properties, properties);
}

/// [MQTT-4.3.3-7], [MQTT-4.3.3-13]: a QoS 2 message that was sent does not expire any more, and its flow is completed;
/// one that waits behind it expires.
#[test]
fn a_message_that_was_sent_does_not_expire() {
    let broker = Broker::start();
    let kept = Connect::new(V5, "sent")
        .persistent()
        .property(Property::Two(0x21, 1));
    let mut subscriber = Client::connect_with(&broker, &kept);
    subscriber.subscribe("brief", 2);
    let mut publisher = broker.publisher(V5);
    for text in ["sent", "waits"] {
        let message = Publish::new("brief", 2, text).property(Property::Four(0x02, 1));
        publisher.publish_packet(message);
    }
    let first = subscriber.receive_publish();
    subscriber.cut();
    assert_eq!(publisher.receive_within(Duration::from_millis(2_100)), None);
    let (mut subscriber, present) = Client::connect_resuming(&broker, &kept);
    assert!(present);
    let again = subscriber.receive_publish();
    assert_eq!(
        (again.text(), again.id, again.dup),
        ("sent".to_owned(), first.id, true)
    );
    subscriber.acknowledge(&again);
    subscriber.expect_nothing(&mut publisher);
}
