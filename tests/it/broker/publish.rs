//! PUBLISH and its acknowledgements, in both directions.

use crate::support::packet::string;
use crate::support::*;

/// [MQTT311-3.8.4-6], PRO-1, BUG-5: each pair of versions and of QoS.
#[test]
fn delivered_qos_is_the_minimum_for_all_81_pairs() {
    let broker = Broker::start();
    for from in Version::ALL {
        for to in Version::ALL {
            for published in 0..3 {
                for granted in 0..3 {
                    let topic = format!("pair/{from:?}/{to:?}/{published}{granted}");
                    let mut subscriber = broker.subscriber(to, &topic, granted);
                    let mut publisher = broker.publisher(from);
                    publisher.publish(&topic, published, "payload");
                    let message = subscriber.receive_publish();
                    assert_eq!(message.qos, published.min(granted), "{topic}");
                    assert_eq!(
                        (
                            message.topic.as_str(),
                            message.text().as_str(),
                            message.retain,
                            message.dup
                        ),
                        (topic.as_str(), "payload", false, false)
                    );
                    subscriber.acknowledge(&message);
                    subscriber.expect_alive();
                }
            }
        }
    }
}

/// [MQTT311-2.3.1-5], [MQTT311-4.3.1-1], [MQTT311-3.3.1-2]: the bytes of QoS 0.
#[test]
fn qos_0_has_no_packet_identifier() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "a/b", 2);
    broker.publisher(V311).send_hex("30 07 0003 612f62 6869");
    subscriber.expect_hex("30 07 0003 612f62 6869");
}

/// [MQTT311-4.3.2-2], [MQTT311-2.3.1-6], [MQTT311-3.3.4-1]: the bytes of QoS 1.
#[test]
fn qos_1_is_answered_by_puback_with_its_identifier() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V311);
    client.send_hex("32 08 0003 612f62 d105 78");
    client.expect_hex("40 02 d105");
    client.send_hex("32 08 0003 612f62 ffff 78");
    client.expect_hex("40 02 ffff");
}

/// [MQTT311-4.3.3-2], [MQTT311-2.3.1-6], [MQTT311-3.3.4-1]: the bytes of QoS 2.
#[test]
fn qos_2_is_answered_by_pubrec_and_pubcomp() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V311);
    client.send_hex("34 08 0003 612f62 0a0b 78");
    client.expect_hex("50 02 0a0b");
    client.send_hex("62 02 0a0b");
    client.expect_hex("70 02 0a0b");
}

/// [MQTT311-4.3.2-2]: after PUBACK the same identifier is a new message, DUP or not.
#[test]
fn a_qos_1_identifier_is_new_after_puback() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "again", 0);
        let mut publisher = broker.publisher(version);
        for message in [
            Publish::new("again", 1, "1").id(7),
            Publish::new("again", 1, "2").id(7),
            Publish::new("again", 1, "3").id(7).dup(),
        ] {
            publisher.send(message.encode(version));
            publisher.expect_ack(Kind::Puback, 7);
        }
        subscriber.expect_only(&mut publisher, &["1", "2", "3"]);
    });
}

/// [MQTT311-4.3.3-2], PRO-8: however often a QoS 2 PUBLISH is repeated before PUBREL, it is delivered once.
#[test]
fn a_repeated_qos_2_publish_is_delivered_once() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "once", 2);
        let mut publisher = broker.publisher(version);
        let message = Publish::new("once", 2, "once").id(9);
        publisher.send(message.encode(version));
        publisher.expect_ack(Kind::Pubrec, 9);
        for _ in 0..3 {
            publisher.send(message.clone().dup().encode(version));
            publisher.expect_ack(Kind::Pubrec, 9);
        }
        publisher.send(ack(Kind::Pubrel, 9));
        publisher.expect_ack(Kind::Pubcomp, 9);
        subscriber.expect_only(&mut publisher, &["once"]);
    });
}

/// [MQTT311-4.3.3-2]: after PUBCOMP the identifier is free.
#[test]
fn a_qos_2_identifier_is_new_after_pubcomp() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "free", 2);
        let mut publisher = broker.publisher(version);
        for payload in ["1", "2"] {
            publisher.send(Publish::new("free", 2, payload).id(9).encode(version));
            publisher.expect_ack(Kind::Pubrec, 9);
            publisher.send(ack(Kind::Pubrel, 9));
            publisher.expect_ack(Kind::Pubcomp, 9);
        }
        subscriber.expect_only(&mut publisher, &["1", "2"]);
    });
}

/// MQTT 3.1.1 §4.3.3: a PUBREL whose PUBCOMP was lost is answered again; 5.0 says 0x92.
#[test]
fn a_pubrel_for_nothing_is_answered_by_pubcomp() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut client = Client::connect(&broker, version);
        client.send(ack(Kind::Pubrel, 77));
        match client.receive() {
            Packet::Ack {
                kind: Kind::Pubcomp,
                id: 77,
                reason,
                ..
            } => {
                assert_eq!(reason, if version == V5 { 0x92 } else { 0 });
            }
            other => panic!("{other:?}"),
        }
        client.expect_alive();
    });
}

/// [MQTT311-4.3.3-1], [MQTT311-4.3.2-1]: the sender's side, with the identifiers of the messages.
#[test]
fn the_broker_completes_the_flows_it_starts() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "flow/#", 2);
        let mut publisher = broker.publisher(version);
        publisher.publish("flow/1", 1, "one");
        publisher.publish("flow/2", 2, "two");
        let one = subscriber.receive_publish();
        let two = subscriber.receive_publish();
        assert_eq!((one.qos, one.dup, two.qos, two.dup), (1, false, 2, false));
        let (one, two) = (one.id.unwrap(), two.id.unwrap());
        assert!(one != two && one > 0 && two > 0);
        subscriber.send(ack(Kind::Pubrec, two));
        subscriber.expect_ack(Kind::Pubrel, two);
        // PUBREC again: PUBREL again, not the message.
        subscriber.send(ack(Kind::Pubrec, two));
        subscriber.expect_ack(Kind::Pubrel, two);
        subscriber.send(ack(Kind::Puback, one));
        subscriber.send(ack(Kind::Pubcomp, two));
        subscriber.expect_nothing(&mut publisher);
    });
}

/// [MQTT311-2.3.1-4]: no identifier is used twice while it is in flight.
#[test]
fn identifiers_in_flight_are_different() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "many", 2);
    let mut publisher = broker.publisher(V311);
    let mut ids = std::collections::BTreeSet::new();
    for number in 0..20 {
        publisher.publish("many", 1 + number % 2, format!("{number}"));
        assert!(ids.insert(subscriber.receive_publish().id.unwrap()));
    }
}

/// [MQTT311-2.3.1-1]
#[test]
fn packet_identifier_0_closes() {
    let broker = Broker::start();
    both_versions(|version| {
        for bytes in [
            Publish::new("zero", 1, "").id(0).encode(version),
            Publish::new("zero", 2, "").id(0).encode(version),
            subscribe(version, 0, &[("zero", 0)]),
            unsubscribe(version, 0, &["zero"]),
            ack(Kind::Puback, 0),
            ack(Kind::Pubrel, 0),
        ] {
            let mut client = Client::connect(&broker, version);
            client.send(bytes);
            client.expect_close();
        }
    });
}

/// [MQTT311-3.3.1-4]
#[test]
fn qos_3_closes() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut client = Client::connect(&broker, version);
        client.send(Publish::new("three", 3, "").id(1).encode(version));
        client.expect_close();
    });
}

/// [MQTT311-3.3.1-2]: DUP belongs to QoS 1 and 2.
#[test]
fn dup_with_qos_0_closes() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut client = Client::connect(&broker, version);
        client.send(Publish::new("dup", 0, "").dup().encode(version));
        client.expect_close();
    });
}

/// [MQTT311-3.3.1-3], [MQTT311-3.3.1-1]: DUP of what came is not DUP of what goes.
#[test]
fn the_dup_flag_is_not_propagated() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "dup/+", 2);
        let mut publisher = broker.publisher(version);
        publisher.send(Publish::new("dup/1", 1, "").id(1).dup().encode(version));
        publisher.expect_ack(Kind::Puback, 1);
        publisher.send(Publish::new("dup/2", 2, "").id(2).dup().encode(version));
        publisher.expect_ack(Kind::Pubrec, 2);
        publisher.send(ack(Kind::Pubrel, 2));
        assert!(!subscriber.receive_publish().dup);
        assert!(!subscriber.receive_publish().dup);
    });
}

/// [MQTT311-3.3.2-2], [MQTT311-4.7.1-1], [MQTT311-4.7.3-1], PRO-3
#[test]
fn invalid_topic_names_close() {
    let broker = Broker::start();
    for topic in ["", "#", "+", "a/#", "a/+/b", "a+", "#a", "a/b#"] {
        let mut client = Client::connect(&broker, V311);
        client.send(Publish::new(topic, 0, "x").encode(V311));
        client.expect_end();
    }
}

/// [MQTT311-3.3.2-1], [MQTT311-1.5.3-1], [MQTT311-1.5.3-2], [MQTT311-4.7.3-2]
#[test]
fn topic_names_must_be_utf8_without_nul() {
    let broker = Broker::start();
    both_versions(|version| {
        for bad in [
            &b"a\0b"[..],
            b"\xff",
            b"\xed\xa0\x80",
            b"\xc1\x81",
            b"\xf4\x90\x80\x80",
            b"\xe2\x82",
        ] {
            let mut body = Vec::new();
            string(bad, &mut body);
            if version == V5 {
                body.push(0);
            }
            let mut client = Client::connect(&broker, version);
            client.send(packet::packet(0x30, &body));
            client.expect_close();
        }
    });
}

/// [MQTT311-1.5.3-3], [MQTT311-4.7.3-4]: nothing in a topic is normalised or dropped.
#[test]
fn topics_arrive_as_they_were_sent() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "#", 0);
    let mut publisher = broker.publisher(V311);
    for topic in [
        "\u{feff}bom",
        "e\u{301}",
        "\u{e9}",
        "a//b",
        "/",
        "//",
        " ",
        "a b",
        "A",
        "*",
        "a*b",
        "\u{10ffff}",
        "prohibited",
        "a/./b",
        "a%20b",
    ] {
        publisher.publish(topic, 0, "x");
        assert_eq!(subscriber.receive_publish().topic, topic);
    }
}

/// PRO-17: HBMQTT refused it.
#[test]
fn an_asterisk_is_an_ordinary_character() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "a/*", 1);
    let mut publisher = broker.publisher(V311);
    publisher.publish("a/b", 1, "no");
    publisher.publish("a/*", 1, "yes");
    subscriber.expect_only(&mut publisher, &["yes"]);
}

/// [MQTT311-4.7.3-3]: a topic of 65,535 bytes.
#[test]
fn the_longest_topic_is_delivered() {
    let broker = Broker::start();
    both_versions(|version| {
        let topic = format!("{}/", "x".repeat(1000)).repeat(64) + &"y".repeat(65_535 - 64 * 1001);
        assert_eq!(topic.len(), 65_535);
        let mut subscriber = broker.subscriber(version, &topic, 1);
        broker.publisher(version).publish(&topic, 1, "long");
        assert_eq!(subscriber.receive_publish().topic, topic);
    });
}

/// MQTT 3.1.1 §3.3.3: zero bytes are a payload.
#[test]
fn an_empty_payload_is_delivered() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "empty", 2);
        broker.publisher(version).publish("empty", 2, "");
        assert_eq!(subscriber.receive_publish().payload, b"");
    });
}

/// Payloads are bytes, of any size up to the limit.
#[test]
fn payloads_of_many_sizes_arrive_byte_for_byte() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "sizes", 1);
    let mut publisher = broker.publisher(V311);
    let pattern: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    for size in [
        1, 100, 117, 118, 119, 127, 128, 4_095, 16_374, 16_384, 65_535, 70_000, 2_097_140,
        3_000_000,
    ] {
        publisher.publish("sizes", 1, &pattern[..size]);
        let message = subscriber.receive_publish();
        assert!(message.payload == pattern[..size], "{size}: {message:?}");
        subscriber.acknowledge(&message);
    }
}

/// [MQTT311-3.3.2-3]
#[test]
fn messages_come_under_the_topic_they_were_published_to() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "+/topic/#", 0);
        broker.publisher(version).publish("some/topic/name", 0, "x");
        assert_eq!(subscriber.receive_publish().topic, "some/topic/name");
    });
}

/// [MQTT311-3.3.5-1], PRO-4: one copy for overlapping subscriptions, at the highest QoS.
#[test]
fn overlapping_subscriptions_deliver_once_at_the_highest_qos() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = Client::connect(&broker, version);
        subscriber.subscribe_all(&[("over/lap", 0), ("over/+", 2), ("over/#", 1)]);
        let mut publisher = broker.publisher(version);
        publisher.publish("over/lap", 2, "once");
        let message = subscriber.receive_publish();
        assert_eq!(message.qos, 2);
        subscriber.acknowledge(&message);
        subscriber.expect_nothing(&mut publisher);
    });
}

/// [MQTT311-4.5.0-1]: everybody whose subscription matches gets it, the publisher included.
#[test]
fn a_message_reaches_every_matching_client() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut clients: Vec<_> = (0..5)
            .map(|_| broker.subscriber(version, "all/+", 1))
            .collect();
        let publisher = &mut clients[0];
        let id = publisher.next_id();
        publisher.send(Publish::new("all/here", 1, "hello").id(id).encode(version));
        let mut answers = [publisher.receive(), publisher.receive()];
        answers.sort_by_key(|packet| matches!(packet, Packet::Publish(_)));
        assert!(matches!(
            answers[0],
            Packet::Ack {
                kind: Kind::Puback,
                ..
            }
        ));
        assert!(matches!(&answers[1], Packet::Publish(message) if message.text() == "hello"));
        for client in &mut clients[1..] {
            assert_eq!(client.receive_publish().text(), "hello");
        }
    });
}

/// [MQTT311-4.6.0-5], [MQTT311-4.6.0-6], PRO-9
#[test]
fn messages_keep_their_order() {
    let broker = Broker::start();
    both_versions(|version| {
        for qos in 0..3 {
            let mut subscriber = broker.subscriber(version, "order", qos);
            let mut publisher = broker.publisher(version);
            let mut bytes = Vec::new();
            for number in 1..=100_u16 {
                let mut message = Publish::new("order", qos, number.to_string());
                message.id = (qos > 0).then_some(number);
                bytes.extend(message.encode(version));
            }
            publisher.send(bytes);
            for number in 1..=100 {
                match qos {
                    0 => {}
                    1 => publisher.await_ack(Kind::Puback, number),
                    _ => {
                        publisher.await_ack(Kind::Pubrec, number);
                        publisher.send(ack(Kind::Pubrel, number));
                    }
                }
            }
            for number in 1..=100 {
                let message = subscriber.receive_publish();
                assert_eq!(message.text(), number.to_string());
                subscriber.acknowledge(&message);
            }
        }
    });
}

/// [MQTT311-3.6.1-1] has its bytes in `connect::reserved_flags_of_every_header_close`. An acknowledgement nobody waits
/// for is no reason to lose the connection.
#[test]
fn stray_acknowledgements_are_ignored_in_3_1_1() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V311);
    client.send(ack(Kind::Puback, 500));
    client.send(ack(Kind::Pubcomp, 501));
    client.expect_alive();
}

/// SYS-14, MQTT 3.1.1 §4.7.2: no client speaks in the server's name.
#[test]
fn a_publish_to_sys_reaches_nobody() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "$SYS/broker/fake", 0);
    let mut publisher = broker.publisher(V311);
    publisher.send(Publish::new("$SYS/broker/fake", 0, "lie").encode(V311));
    let mut other = broker.publisher(V311);
    subscriber.expect_nothing(&mut other);
    let mut late = broker.subscriber(V311, "$SYS/broker/fake", 0);
    late.expect_nothing(&mut other);
}

/// MQTT 3.1.1 §3.3.1: a PUBLISH too short for its topic or identifier.
#[test]
fn a_publish_that_is_too_short_closes() {
    let broker = Broker::start();
    for bytes in [
        "30 00",
        "30 01 00",
        "30 03 0005 61",
        "32 03 0001 61",
        "32 04 0001 61 00",
    ] {
        let mut client = Client::connect(&broker, V311);
        client.send_hex(bytes);
        client.expect_end();
    }
}
