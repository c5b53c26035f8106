//! Retained messages.

use crate::support::*;

/// [MQTT311-3.3.1-5], [MQTT311-3.3.1-6], [MQTT311-3.3.1-8], PRO-5
#[test]
fn the_last_retained_message_goes_to_new_subscribers() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut publisher = broker.publisher(version);
        for qos in 0..3 {
            let topic = format!("keep/{version:?}/{qos}");
            publisher.publish_packet(Publish::new(&topic, qos, "old").retain());
            publisher.publish_packet(Publish::new(&topic, qos, "new").retain());
            let mut subscriber = broker.subscriber(version, &topic, 2);
            let message = subscriber.receive_publish();
            assert_eq!(
                (
                    message.text().as_str(),
                    message.retain,
                    message.qos,
                    message.dup
                ),
                ("new", true, qos, false)
            );
            subscriber.acknowledge(&message);
            subscriber.expect_nothing(&mut publisher);
        }
    });
}

/// [MQTT311-3.8.4-6], BUG-6: at the lower QoS of publisher and subscription.
#[test]
fn retained_messages_come_at_the_minimum_qos() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    for published in 0..3 {
        publisher
            .publish_packet(Publish::new(&format!("min/{published}"), published, "x").retain());
    }
    for granted in 0..3 {
        let mut subscriber = broker.subscriber(V311, "min/+", granted);
        let mut found = Vec::new();
        for _ in 0..3 {
            let message = subscriber.receive_publish();
            subscriber.acknowledge(&message);
            found.push((message.topic.clone(), message.qos));
        }
        found.sort();
        let expected: Vec<_> = (0..3)
            .map(|published: u8| (format!("min/{published}"), published.min(granted)))
            .collect();
        assert_eq!(found, expected);
    }
}

/// [MQTT311-3.3.1-9]: an established subscription sees an ordinary message.
#[test]
fn live_messages_have_no_retain_flag() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "live", 1);
        let mut publisher = broker.publisher(version);
        publisher.publish_packet(Publish::new("live", 1, "x").retain());
        assert!(!subscriber.receive_publish().retain);
        publisher.publish_packet(Publish::new("live", 0, "").retain());
    });
}

/// [MQTT311-3.3.1-7]: a QoS 0 message replaces what was retained.
#[test]
fn a_retained_qos_0_message_replaces_the_one_before() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    publisher.publish_packet(Publish::new("zero", 2, "two").retain());
    publisher.publish_packet(Publish::new("zero", 0, "nought").retain());
    let mut subscriber = broker.subscriber(V311, "zero", 2);
    let message = subscriber.receive_publish();
    assert_eq!((message.text().as_str(), message.qos), ("nought", 0));
    subscriber.expect_nothing(&mut publisher);
}

/// [MQTT311-3.3.1-10], [MQTT311-3.3.1-11]: an empty one clears, is forwarded, and is not kept.
#[test]
fn an_empty_retained_message_clears() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut publisher = broker.publisher(version);
        publisher.publish_packet(Publish::new("clear", 1, "kept").retain());
        let mut live = broker.subscriber(version, "clear", 1);
        let kept = live.receive_publish();
        live.acknowledge(&kept);
        publisher.publish_packet(Publish::new("clear", 1, "").retain());
        let empty = live.receive_publish();
        assert_eq!((empty.payload.len(), empty.retain), (0, false));
        broker
            .subscriber(version, "clear", 1)
            .expect_nothing(&mut publisher);
    });
}

/// [MQTT311-3.3.1-12]
#[test]
fn an_ordinary_message_leaves_the_retained_one_alone() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    publisher.publish_packet(Publish::new("alone", 1, "kept").retain());
    publisher.publish("alone", 1, "ordinary");
    publisher.publish("alone", 1, "");
    let mut subscriber = broker.subscriber(V311, "alone", 1);
    subscriber.expect_only(&mut publisher, &["kept"]);
}

/// [MQTT311-3.1.2-7]: retained messages outlive the session of who published them.
#[test]
fn retained_messages_survive_their_publisher() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    publisher.publish_packet(Publish::new("survive", 1, "here").retain());
    publisher.disconnect();
    let mut subscriber = broker.subscriber(V311, "survive", 0);
    assert_eq!(subscriber.receive_publish().text(), "here");
}

/// [MQTT311-3.3.1-6]: wildcards, every matching topic once.
#[test]
fn a_wildcard_subscription_gets_every_matching_retained_message() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    for topic in [
        "house/1/temp",
        "house/2/temp",
        "house/2/light",
        "house",
        "garden/temp",
    ] {
        publisher.publish_packet(Publish::new(topic, 1, topic).retain());
    }
    for (filter, count) in [
        ("house/+/temp", 2),
        ("house/#", 4),
        ("#", 5),
        ("+", 1),
        ("+/temp", 1),
        ("none/#", 0),
    ] {
        let mut subscriber = broker.subscriber(V311, filter, 0);
        let mut found: Vec<_> = (0..count)
            .map(|_| subscriber.receive_publish().topic)
            .collect();
        found.sort();
        found.dedup();
        assert_eq!(found.len(), count, "{filter}");
        subscriber.unsubscribe(&[filter]);
        subscriber.expect_nothing(&mut publisher);
    }
}

/// [MQTT311-3.8.4-3]: subscribing again sends them again.
#[test]
fn subscribing_again_sends_retained_messages_again() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    publisher.publish_packet(Publish::new("anew", 1, "kept").retain());
    let mut subscriber = broker.subscriber(V311, "anew", 0);
    assert_eq!(subscriber.receive_publish().text(), "kept");
    subscriber.subscribe("anew", 0);
    assert_eq!(subscriber.receive_publish().text(), "kept");
}

/// Two filters in one SUBSCRIBE act as two ([MQTT311-3.8.4-4]); no topic is forgotten.
#[test]
fn overlapping_filters_of_one_subscribe_lose_no_retained_message() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V311);
    publisher.publish_packet(Publish::new("lap/a", 1, "a").retain());
    publisher.publish_packet(Publish::new("lap/b", 1, "b").retain());
    let mut subscriber = Client::connect(&broker, V311);
    subscriber.subscribe_all(&[("lap/a", 0), ("lap/+", 0)]);
    let mut found = std::collections::BTreeSet::new();
    while found.len() < 2 {
        found.insert(subscriber.receive_publish().text());
    }
}

/// A resumed session's subscriptions are not new ones.
#[test]
fn a_resumed_session_does_not_get_retained_messages_again() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut publisher = broker.publisher(version);
        publisher.publish_packet(Publish::new("resume", 1, "kept").retain());
        let connect = Connect::new(version, &format!("resume{version:?}")).persistent();
        let mut subscriber = Client::connect_with(&broker, &connect);
        subscriber.subscribe("resume", 1);
        let message = subscriber.receive_publish();
        subscriber.acknowledge(&message);
        subscriber.disconnect();
        let (mut subscriber, present) = Client::connect_resuming(&broker, &connect);
        assert!(present);
        subscriber.expect_nothing(&mut publisher);
    });
}

/// CONFIG.md: `retain-available: off`.
#[test]
fn retained_messages_can_be_switched_off() {
    let broker = Broker::with("retain-available: off\n");
    let mut publisher = broker.publisher(V311);
    let mut live = broker.subscriber(V311, "off", 1);
    publisher.send(Publish::new("off", 1, "x").id(1).retain().encode(V311));
    // Delivered as an ordinary message or refused by a close; kept it is not.
    drop(publisher.receive_or_end());
    drop(live.receive_within(std::time::Duration::from_millis(200)));
    let mut other = broker.publisher(V311);
    broker.subscriber(V311, "off", 1).expect_nothing(&mut other);
}
