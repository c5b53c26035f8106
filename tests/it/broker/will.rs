//! The Will Message: published when a connection ends badly, and only then.

use std::time::{Duration, Instant};

use crate::support::*;

/// [MQTT311-3.1.2-8], PRO-10: the network is lost.
#[test]
fn a_lost_connection_publishes_the_will() {
    let broker = Broker::start();
    both_versions(|version| {
        for qos in 0..3 {
            let mut subscriber = broker.subscriber(version, "will/lost", 2);
            let client = Client::connect_with(
                &broker,
                &willing(version, Publish::new("will/lost", qos, "gone")),
            );
            client.cut();
            let will = subscriber.receive_publish();
            assert_eq!(
                (will.text().as_str(), will.qos, will.retain),
                ("gone", qos, false)
            );
        }
    });
}

/// [MQTT311-3.14.4-3], [MQTT311-3.1.2-10]: DISCONNECT takes it back.
#[test]
fn disconnect_discards_the_will() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "will/kept", 2);
        Client::connect_with(
            &broker,
            &willing(version, Publish::new("will/kept", 1, "no")),
        )
        .disconnect();
        subscriber.expect_nothing(&mut broker.publisher(version));
    });
}

/// [MQTT311-3.1.2-12]
#[test]
fn without_a_will_nothing_is_published() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "#", 0);
    Client::connect(&broker, V311).cut();
    subscriber.expect_nothing(&mut broker.publisher(V311));
}

/// [MQTT311-3.1.2-8], §3.1.2.5: the server closes because of a protocol error.
#[test]
fn a_protocol_error_publishes_the_will() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "will/error", 1);
        let mut client = Client::connect_with(
            &broker,
            &willing(version, Publish::new("will/error", 1, "error")),
        );
        client.send_hex("30 00");
        client.expect_close();
        assert_eq!(subscriber.receive_publish().text(), "error");
    });
}

/// [MQTT311-3.14.1-1]: a malformed DISCONNECT is no DISCONNECT.
#[test]
fn a_malformed_disconnect_publishes_the_will() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "will/flags", 1);
    for bytes in ["e1 00", "e0 01 00"] {
        let mut client = Client::connect_with(
            &broker,
            &willing(V311, Publish::new("will/flags", 1, "bad")),
        );
        client.send_hex(bytes);
        client.expect_end();
        let will = subscriber.receive_publish();
        assert_eq!(will.text(), "bad");
        subscriber.acknowledge(&will);
    }
}

/// [MQTT311-3.1.2-8], §3.1.2.5: the Keep Alive runs out.
#[test]
fn a_keep_alive_that_runs_out_publishes_the_will() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "will/silent", 1);
    let start = Instant::now();
    let connect = willing(V311, Publish::new("will/silent", 1, "silence")).keep_alive(1);
    let _silent = Client::connect_with(&broker, &connect);
    assert_eq!(subscriber.receive_publish().text(), "silence");
    assert!(
        start.elapsed() < Duration::from_millis(2_600),
        "{:?}",
        start.elapsed()
    );
}

/// PRO-10: a take-over ends the old connection without DISCONNECT, also when the session goes on.
#[test]
fn a_take_over_publishes_the_will() {
    let broker = Broker::start();
    both_versions(|version| {
        for persistent in [false, true] {
            let mut subscriber = broker.subscriber(version, "will/taken", 1);
            let name = format!("taken{version:?}{persistent}");
            let mut connect =
                Connect::new(version, &name).will(Publish::new("will/taken", 1, "taken"));
            if persistent {
                connect = connect.persistent();
            }
            let mut old = Client::connect_with(&broker, &connect);
            connect.will = None;
            let _new = Client::connect_with(&broker, &connect);
            old.expect_close();
            assert_eq!(subscriber.receive_publish().text(), "taken");
        }
    });
}

/// [MQTT311-3.1.2-17], [MQTT311-3.1.2-16]
#[test]
fn a_retained_will_is_retained() {
    let broker = Broker::start();
    both_versions(|version| {
        for (retain, topic) in [(true, "will/retained"), (false, "will/not")] {
            let mut watcher = broker.subscriber(version, topic, 1);
            let mut will = Publish::new(topic, 1, "state");
            will.retain = retain;
            Client::connect_with(&broker, &willing(version, will)).cut();
            assert!(!watcher.receive_publish().retain);
            let mut late = broker.subscriber(version, topic, 1);
            let mut publisher = broker.publisher(version);
            if retain {
                let message = late.receive_publish();
                assert!(message.retain && message.text() == "state");
                late.acknowledge(&message);
                publisher.publish_packet(Publish::new(topic, 0, "").retain());
                assert_eq!(late.receive_publish().payload, b"");
            }
            late.expect_nothing(&mut publisher);
        }
    });
}

/// BUG-23: HBMQTT refused an empty will.
#[test]
fn a_will_may_be_empty() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "will/empty", 1);
        Client::connect_with(
            &broker,
            &willing(version, Publish::new("will/empty", 1, "")),
        )
        .cut();
        assert_eq!(subscriber.receive_publish().payload, b"");
    });
}

/// [MQTT311-3.1.2-10]: published once, not again at the next end of a connection of the session.
#[test]
fn a_will_is_published_once() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V311, "will/once", 1);
    let connect = Connect::new(V311, "once").persistent();
    Client::connect_with(
        &broker,
        &connect.clone().will(Publish::new("will/once", 1, "once")),
    )
    .cut();
    let will = subscriber.receive_publish();
    subscriber.acknowledge(&will);
    Client::connect_with(&broker, &connect).cut();
    Client::connect_with(&broker, &connect).disconnect();
    subscriber.expect_nothing(&mut broker.publisher(V311));
}

/// A will for an offline session waits there.
#[test]
fn a_will_is_queued_for_an_offline_session() {
    let broker = Broker::start();
    let kept = Connect::new(V311, "absent").persistent();
    let mut subscriber = Client::connect_with(&broker, &kept);
    subscriber.subscribe("will/queued", 1);
    subscriber.disconnect();
    let mut watcher = broker.subscriber(V311, "will/queued", 0);
    Client::connect_with(
        &broker,
        &willing(V311, Publish::new("will/queued", 1, "later")),
    )
    .cut();
    watcher.receive_publish();
    assert_eq!(
        Client::connect_with(&broker, &kept)
            .receive_publish()
            .text(),
        "later"
    );
}

/// [MQTT311-3.3.2-2]: a will is published like any message, so its topic is a topic.
#[test]
fn a_will_topic_with_wildcards_is_refused() {
    let broker = Broker::start();
    for topic in ["a/#", "+", ""] {
        let mut client = Client::open(&broker);
        client.send(willing(V311, Publish::new(topic, 0, "x")).encode());
        // A CONNACK with an error or none at all.
        while let Some(packet) = client.receive_or_end() {
            assert!(
                matches!(packet, Packet::Connack { code: 1.., .. }),
                "{packet:?}"
            );
        }
    }
}

fn willing(version: Version, will: Publish) -> Connect {
    Connect::new(version, &format!("will{}", unique())).will(will)
}
