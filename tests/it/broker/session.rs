//! Sessions: what outlives a connection, and what does not.

use crate::support::*;

/// [MQTT311-3.2.2-1], [MQTT311-3.2.2-2], [MQTT311-3.2.2-3], PRO-7: byte for byte.
#[test]
fn session_present_says_whether_there_was_a_session() {
    let broker = Broker::start();
    let clean = "10 0d 0004 4d515454 04 02 003c 0001 73";
    let kept = "10 0d 0004 4d515454 04 00 003c 0001 73";
    for (connect, answer) in [
        (kept, "20 02 00 00"),
        (kept, "20 02 01 00"),
        (clean, "20 02 00 00"),
        (kept, "20 02 00 00"),
        (kept, "20 02 01 00"),
    ] {
        let mut client = Client::open(&broker);
        client.send_hex(connect);
        client.expect_hex(answer);
        client.disconnect();
    }
}

/// [MQTT311-3.1.2-4], [MQTT311-3.1.2-5], [MQTT311-4.1.0-1]: subscriptions and messages of QoS 1 and 2 are kept.
#[test]
fn messages_for_an_offline_session_are_kept() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, &format!("offline{version:?}")).persistent();
        let mut subscriber = Client::connect_with(&broker, &connect);
        subscriber.subscribe("off/+", 2);
        subscriber.disconnect();
        let mut publisher = broker.publisher(version);
        publisher.publish("off/1", 1, "one");
        publisher.publish("off/2", 2, "two");
        publisher.publish("off/1", 1, "three");
        let (mut subscriber, present) = Client::connect_resuming(&broker, &connect);
        assert!(present);
        let mut found = Vec::new();
        for _ in 0..3 {
            let message = subscriber.receive_publish();
            assert!(!message.dup && !message.retain, "{message:?}");
            subscriber.acknowledge(&message);
            found.push((message.qos, message.text()));
        }
        assert_eq!(
            found,
            [
                (1, "one".to_owned()),
                (2, "two".into()),
                (1, "three".into())
            ]
        );
        subscriber.expect_nothing(&mut publisher);
    });
}

/// QoS 0 is not kept for the absent, unless `queue-qos0-messages` says so.
#[test]
fn qos_0_is_kept_offline_only_when_configured() {
    for (settings, expected) in [("", &[][..]), ("queue-qos0-messages: on\n", &["zero"])] {
        let broker = Broker::with(settings);
        let connect = Connect::new(V311, "zero").persistent();
        let mut subscriber = Client::connect_with(&broker, &connect);
        subscriber.subscribe("zero", 2);
        subscriber.disconnect();
        let mut publisher = broker.publisher(V311);
        publisher.publish("zero", 0, "zero");
        Client::connect_with(&broker, &connect).expect_only(&mut publisher, expected);
    }
}

/// [MQTT311-3.1.2-6], [MQTT311-3.1.4-3], BUG-12: a clean session ends with its connection and starts from nothing.
#[test]
fn a_clean_session_leaves_nothing_behind() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    let clean = Connect::new(V311, "clean");
    let mut subscriber = Client::connect_with(&broker, &clean);
    subscriber.subscribe("clean", 1);
    subscriber.disconnect();
    publisher.publish("clean", 1, "missed");
    let (mut again, present) = Client::connect_resuming(&broker, &clean.clone().persistent());
    assert!(!present);
    publisher.publish("clean", 1, "not subscribed");
    again.expect_nothing(&mut publisher);
    // And a clean one discards what a kept one left.
    again.subscribe("clean", 1);
    again.disconnect();
    publisher.publish("clean", 1, "queued");
    Client::connect_with(&broker, &clean).expect_nothing(&mut publisher);
}

/// [MQTT311-4.4.0-1], [MQTT311-3.3.1-1], [MQTT311-2.3.1-3], [MQTT311-4.6.0-1], PRO-8: what was not acknowledged comes
/// again, with its identifier, DUP set, in its order.
#[test]
fn unacknowledged_messages_come_again_in_order() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, &format!("resend{version:?}")).persistent();
        let mut subscriber = Client::connect_with(&broker, &connect);
        subscriber.subscribe("resend", 2);
        let mut publisher = broker.publisher(version);
        for (number, qos) in [1, 2, 1, 2, 1, 2].into_iter().enumerate() {
            publisher.publish("resend", qos, number.to_string());
        }
        let sent: Vec<_> = (0..6).map(|_| subscriber.receive_publish()).collect();
        assert!(sent.iter().all(|message| !message.dup));
        // The third and the fourth are completed.
        subscriber.acknowledge(&sent[2]);
        subscriber.acknowledge(&sent[3]);
        subscriber.expect_alive();
        subscriber.cut();
        let (mut subscriber, present) = Client::connect_resuming(&broker, &connect);
        assert!(present);
        for message in [&sent[0], &sent[1], &sent[4], &sent[5]] {
            let again = subscriber.receive_publish();
            assert_eq!(again, message.clone().dup());
            subscriber.acknowledge(&again);
        }
        subscriber.expect_nothing(&mut publisher);
    });
}

/// [MQTT311-4.3.3-1], [MQTT311-4.4.0-1]: after PUBREC it is PUBREL that comes again, never the message.
#[test]
fn pubrel_comes_again_after_pubrec() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, &format!("pubrel{version:?}")).persistent();
        let mut subscriber = Client::connect_with(&broker, &connect);
        subscriber.subscribe("pubrel", 2);
        let mut publisher = broker.publisher(version);
        publisher.publish("pubrel", 2, "x");
        let id = subscriber.receive_publish().id.unwrap();
        subscriber.send(ack(Kind::Pubrec, id));
        subscriber.expect_ack(Kind::Pubrel, id);
        for _ in 0..2 {
            subscriber.cut();
            subscriber = Client::connect_with(&broker, &connect);
            subscriber.expect_ack(Kind::Pubrel, id);
        }
        subscriber.send(ack(Kind::Pubcomp, id));
        subscriber.expect_nothing(&mut publisher);
        subscriber.cut();
        Client::connect_with(&broker, &connect).expect_nothing(&mut publisher);
    });
}

/// [MQTT311-4.3.3-2], PRO-8: a QoS 2 message is one message across a reconnect of its publisher.
#[test]
fn a_qos_2_publish_repeated_after_a_reconnect_is_delivered_once() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "exactly", 2);
        let connect = Connect::new(version, &format!("exactly{version:?}")).persistent();
        let mut publisher = Client::connect_with(&broker, &connect);
        let message = Publish::new("exactly", 2, "once").id(3);
        publisher.send(message.encode(version));
        publisher.expect_ack(Kind::Pubrec, 3);
        publisher.cut();
        let (mut publisher, present) = Client::connect_resuming(&broker, &connect);
        assert!(present);
        publisher.send(message.dup().encode(version));
        publisher.expect_ack(Kind::Pubrec, 3);
        publisher.send(ack(Kind::Pubrel, 3));
        publisher.expect_ack(Kind::Pubcomp, 3);
        publisher.cut();
        // The PUBCOMP may have been lost: PUBREL again.
        let mut publisher = Client::connect_with(&broker, &connect);
        publisher.send(ack(Kind::Pubrel, 3));
        assert!(matches!(
            publisher.receive(),
            Packet::Ack {
                kind: Kind::Pubcomp,
                id: 3,
                ..
            }
        ));
        let mut other = broker.publisher(version);
        subscriber.expect_only(&mut other, &["once"]);
    });
}

/// [MQTT311-3.1.2-6]: a new clean session forgets which QoS 2 identifiers were known.
#[test]
fn a_clean_session_forgets_qos_2_identifiers() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "forget", 2);
    for payload in ["1", "2"] {
        let mut publisher = Client::connect_with(&broker, &Connect::new(V311, "forgetful"));
        publisher.send(Publish::new("forget", 2, payload).id(1).encode(V311));
        publisher.expect_ack(Kind::Pubrec, 1);
        publisher.cut();
    }
    subscriber.expect_only(&mut broker.publisher(V311), &["1", "2"]);
}

/// [MQTT311-3.2.0-1]: CONNACK comes before the messages of a resumed session.
#[test]
fn connack_is_the_first_packet_of_a_resumed_session() {
    let broker = Broker::start();
    let connect = Connect::new(V311, "first").persistent();
    let mut subscriber = Client::connect_with(&broker, &connect);
    subscriber.subscribe("first", 1);
    subscriber.disconnect();
    let mut publisher = broker.publisher(V311);
    for number in 0..200 {
        publisher.publish("first", 1, number.to_string());
    }
    let mut subscriber = Client::open(&broker);
    subscriber.send(connect.encode());
    subscriber.expect_hex("20 02 01 00");
    for number in 0..200 {
        let message = subscriber.receive_publish();
        assert_eq!(message.text(), number.to_string());
        subscriber.acknowledge(&message);
    }
}

/// [MQTT311-4.1.0-2]: a take-over keeps the session when neither side is clean.
#[test]
fn a_take_over_continues_the_session() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, &format!("moving{version:?}")).persistent();
        let mut old = Client::connect_with(&broker, &connect);
        old.subscribe("moving", 1);
        let mut publisher = broker.publisher(version);
        publisher.publish("moving", 1, "unacknowledged");
        let message = old.receive_publish();
        let (mut new, present) = Client::connect_resuming(&broker, &connect);
        assert!(present);
        old.expect_close();
        assert_eq!(new.receive_publish(), message.dup());
        publisher.publish("moving", 1, "next");
        assert_eq!(new.receive_publish().text(), "next");
    });
}

/// A session made in one version continues in another.
#[test]
fn a_session_continues_in_another_version() {
    let broker = Broker::start();
    let mut first = Client::connect_with(&broker, &Connect::new(V311, "mixed").persistent());
    first.subscribe("mixed", 1);
    first.disconnect();
    let mut publisher = broker.publisher(V31);
    publisher.publish("mixed", 1, "hello");
    let (mut second, present) =
        Client::connect_resuming(&broker, &Connect::new(V5, "mixed").persistent());
    assert!(present);
    assert_eq!(second.receive_publish().text(), "hello");
}

/// An unsubscription survives too.
#[test]
fn an_unsubscribed_filter_stays_unsubscribed() {
    let broker = Broker::start();
    let connect = Connect::new(V311, "unsub").persistent();
    let mut subscriber = Client::connect_with(&broker, &connect);
    subscriber.subscribe_all(&[("u/a", 1), ("u/b", 1)]);
    subscriber.unsubscribe(&["u/a"]);
    subscriber.disconnect();
    let mut publisher = broker.publisher(V311);
    publisher.publish("u/a", 1, "a");
    publisher.publish("u/b", 1, "b");
    Client::connect_with(&broker, &connect).expect_only(&mut publisher, &["b"]);
}
