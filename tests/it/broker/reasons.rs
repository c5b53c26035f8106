//! Reason Codes from real causes, the Reason Strings beside them, and that neither makes a packet too large.

use crate::support::*;

/// The reason and the Reason String of the DISCONNECT that comes next.
fn told_to_go(client: &mut Client) -> (u8, Option<String>) {
    match client.receive() {
        Packet::Disconnect { reason, properties } => {
            client.expect_end();
            (reason, reason_string(&properties))
        }
        other => panic!("expected DISCONNECT, got {other:?}"),
    }
}

fn reason_string(properties: &[Property]) -> Option<String> {
    properties.iter().find_map(|property| match property {
        Property::Text(0x1f, text) => Some(text.clone()),
        _ => None,
    })
}

fn limited(client_id: &str, maximum_packet_size: u32) -> Connect {
    Connect::new(V5, client_id).property(Property::Four(0x27, maximum_packet_size))
}

/// [MQTT-3.1.4-3], [MQTT-3.14.2-3]: 0x8E tells the one that goes why; without a text where it would be too large, or is
/// not wanted.
#[test]
fn a_taken_over_client_is_told() {
    let broker = Broker::start();
    let plain = Connect::new(V5, "taken");
    let quiet = Connect::new(V5, "taken").property(Property::Byte(0x17, 0));
    for (connect, is_told) in [(plain, true), (limited("taken", 30), false), (quiet, false)] {
        let mut first = Client::connect_with(&broker, &connect);
        let _second = Client::connect_with(&broker, &Connect::new(V5, "taken"));
        let (reason, text) = told_to_go(&mut first);
        assert_eq!(reason, 0x8e);
        assert_eq!(text.is_some(), is_told, "{text:?}");
        if let Some(text) = text {
            assert!(text.contains("client identifier"), "{text}");
        }
    }
}

/// 0x8B.
#[test]
fn a_shutdown_is_told() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V5);
    let mut small = Client::connect_with(&broker, &limited("small", 20));
    broker.signal("TERM");
    let (reason, text) = told_to_go(&mut client);
    assert_eq!(reason, 0x8b);
    assert!(text.is_some());
    assert_eq!(told_to_go(&mut small), (0x8b, None));
}

/// [MQTT-3.4.2-2], [MQTT-3.5.2-2]: 0x97, whose Reason String is left out where it would make the packet too large.
#[test]
fn a_refused_message_is_explained_if_the_explanation_fits() {
    let broker = Broker::with("limits: {max-retained-messages: 1}\n");
    broker
        .publisher(V5)
        .publish_packet(Publish::new("first", 1, "x").retain());
    for (limit, is_told) in [(1_000, true), (40, false)] {
        let mut client = Client::connect_with(&broker, &limited("full", limit));
        for (qos, kind) in [(1, Kind::Puback), (2, Kind::Pubrec)] {
            client.send(Publish::new("second", qos, "x").retain().id(7).encode(V5));
            let Packet::Ack {
                kind: found,
                id: 7,
                reason: 0x97,
                properties,
            } = client.receive()
            else {
                panic!("expected {kind:?} with 0x97")
            };
            assert_eq!(found, kind);
            assert_eq!(reason_string(&properties).is_some(), is_told);
        }
    }
}

/// [MQTT-3.9.2-1], [MQTT-3.11.2-1]
#[test]
fn answers_to_filters_are_explained_if_the_explanation_fits() {
    let broker = Broker::with("limits: {max-topic-levels: 3}\n");
    for (limit, is_told) in [(1_000, true), (20, false)] {
        let mut client = Client::connect_with(&broker, &limited("filters", limit));
        client.send(subscribe(V5, 1, &[("a", 1), ("a/b/c/d", 0)]));
        let Packet::Suback {
            codes, properties, ..
        } = client.receive()
        else {
            panic!("expected SUBACK")
        };
        assert_eq!(codes, [0x01, 0x8f]);
        assert_eq!(reason_string(&properties).is_some(), is_told);
        client.send(unsubscribe(V5, 2, &["a", "b", "a/b/c/d"]));
        let Packet::Unsuback {
            codes, properties, ..
        } = client.receive()
        else {
            panic!("expected UNSUBACK")
        };
        assert_eq!(codes, [0x00, 0x11, 0x8f]);
        assert_eq!(reason_string(&properties).is_some(), is_told);
    }
}

/// [MQTT-3.1.2-24]: an answer that cannot be sent is not made half: nothing is subscribed, and 0x95 says why.
#[test]
fn a_suback_that_is_too_large_ends_the_connection() {
    let broker = Broker::start();
    let kept = limited("many", 20).persistent();
    let filters: Vec<String> = (0..20).map(|number| format!("m/{number}")).collect();
    let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    let mut client = Client::connect_with(&broker, &kept);
    client.send(subscribe(V5, 1, &filters));
    assert_eq!(told_to_go(&mut client).0, 0x95);
    let (mut client, present) =
        Client::connect_resuming(&broker, &Connect::new(V5, "many").persistent());
    assert!(present);
    let mut publisher = broker.publisher(V5);
    publisher.publish("m/1", 1, "x");
    client.expect_nothing(&mut publisher);
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]: dropped for the one receiver that cannot take it, whose flow goes on.
#[test]
fn a_message_too_large_for_one_receiver_is_dropped_for_it_alone() {
    let broker = Broker::with("sys_interval: 1\n");
    let mut small = Client::connect_with(&broker, &limited("small", 100));
    let mut large = Client::connect(&broker, V5);
    for client in [&mut small, &mut large] {
        client.subscribe("sizes", 2);
    }
    let mut publisher = broker.publisher(V5);
    let long = "x".repeat(200);
    for qos in 0..=2 {
        publisher.publish("sizes", qos, &long);
        publisher.publish("sizes", qos, "short");
    }
    let both = [&long, "short"].repeat(3);
    large.expect_only(&mut publisher, &both);
    small.expect_only(&mut publisher, &["short"; 3]);
    let mut watcher = broker.subscriber(V5, "$SYS/broker/messages/dropped/too-large", 0);
    while watcher.receive_publish().text() != "3" {}
}

/// MQTT 5.0 §3.3.2.3.2: 0x99 for what calls itself UTF-8 and is not, if the broker is to check it.
#[test]
fn a_payload_that_is_not_what_it_says_is_refused_where_it_is_checked() {
    let checking = Broker::with("check-payload-format: on\nsys_interval: 1\n");
    let mut subscriber = checking.subscriber(V5, "format", 2);
    let mut client = Client::connect(&checking, V5);
    let message = |qos, payload: &[u8]| {
        let publish = Publish::new("format", qos, payload).property(Property::Byte(0x01, 1));
        if qos > 0 { publish.id(5) } else { publish }
    };
    for (qos, expected) in [(1, Kind::Puback), (2, Kind::Pubrec)] {
        client.send(message(qos, b"\xff").encode(V5));
        let Packet::Ack {
            kind,
            reason: 0x99,
            properties,
            ..
        } = client.receive()
        else {
            panic!("expected {expected:?} with 0x99")
        };
        assert_eq!(kind, expected);
        assert!(reason_string(&properties).is_some());
    }
    client.send(message(0, b"\xff").encode(V5));
    client.publish_packet(message(1, "größer".as_bytes()));
    client.send(Publish::new("format", 0, b"\xfe").encode(V5));
    client.settle();
    assert_eq!(subscriber.receive_publish().payload, "größer".as_bytes());
    assert_eq!(subscriber.receive_publish().payload, b"\xfe");
    let mut will = Connect::new(V5, "will").will(Publish::new("format", 0, b"\xff"));
    will.will_properties = vec![Property::Byte(0x01, 1)];
    assert_eq!(Client::refused(&checking, &will), 0x99);
    let mut watcher = checking.subscriber(V5, "$SYS/broker/limits/payload-format-invalid", 0);
    while watcher.receive_publish().text() != "4" {}

    let trusting = Broker::start();
    let mut subscriber = trusting.subscriber(V5, "format", 0);
    Client::connect(&trusting, V5).send(message(0, b"\xff").encode(V5));
    assert_eq!(subscriber.receive_publish().payload, b"\xff");
}
