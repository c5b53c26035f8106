//! Many messages: complete, in order, and nobody pays for another's slowness.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::support::*;

/// Issue 2, must show 5; PRO-5, BUG-9: a new QoS 1 subscriber gets all 5,000 retained messages.
#[test]
fn five_thousand_retained_messages_reach_a_new_subscriber() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut publisher = broker.publisher(version);
        let topic = |number: u16| format!("retained/{version:?}/{}/{number}", number % 50);
        for batch in 0..25_u16 {
            let numbers = batch * 200 + 1..=batch * 200 + 200;
            let bytes: Vec<u8> = numbers
                .clone()
                .flat_map(|number| {
                    Publish::new(&topic(number), 1, number.to_string())
                        .id(number)
                        .retain()
                        .encode(version)
                })
                .collect();
            publisher.send(bytes);
            for number in numbers {
                publisher.expect_ack(Kind::Puback, number);
            }
        }
        let mut subscriber = broker.subscriber(version, &format!("retained/{version:?}/#"), 1);
        let mut found = BTreeSet::new();
        for _ in 0..5_000 {
            let message = subscriber.receive_publish();
            assert!(message.retain && message.qos == 1);
            let number: u16 = message.text().parse().unwrap();
            assert_eq!(message.topic, topic(number));
            assert!(found.insert(number), "{number} came twice");
            subscriber.acknowledge(&message);
        }
        assert_eq!(found.len(), 5_000);
        subscriber.expect_nothing(&mut publisher);
    });
}

/// Issue 2, must show 5; PRO-7, PRO-9: 5,000 queued messages arrive complete and in order.
#[test]
fn five_thousand_queued_messages_arrive_in_order() {
    let broker = Broker::start();
    both_versions(|version| {
        let kept = Connect::new(version, &format!("away{version:?}")).persistent();
        let mut subscriber = Client::connect_with(&broker, &kept);
        subscriber.subscribe("queued/#", 1);
        subscriber.disconnect();
        let mut publisher = broker.publisher(version);
        for batch in 0..25_u16 {
            let numbers = batch * 200 + 1..=batch * 200 + 200;
            let bytes: Vec<u8> = numbers
                .clone()
                .flat_map(|number| {
                    Publish::new("queued/a", 1, number.to_string())
                        .id(number)
                        .encode(version)
                })
                .collect();
            publisher.send(bytes);
            for number in numbers {
                publisher.expect_ack(Kind::Puback, number);
            }
        }
        let mut subscriber = Client::connect_with(&broker, &kept);
        for number in 1..=2_500 {
            let message = subscriber.receive_publish();
            assert_eq!(message.text(), number.to_string());
            subscriber.acknowledge(&message);
        }
        // And the rest after another absence.
        subscriber.settle();
        subscriber.cut();
        let mut subscriber = Client::connect_with(&broker, &kept);
        for number in 2_501..=5_000 {
            let message = subscriber.receive_publish();
            assert_eq!(message.text(), number.to_string());
            subscriber.acknowledge(&message);
        }
        subscriber.expect_nothing(&mut publisher);
    });
}

/// Issue 2, must show 5; SUB-22: who stops reading costs the others nothing and the broker a bounded amount of memory.
#[test]
fn a_subscriber_that_stops_reading_costs_the_others_nothing() {
    let broker = Broker::start();
    for qos in [0, 1] {
        let filter = format!("fast/{qos}");
        let mut stuck = broker.subscriber(V311, &filter, qos);
        let mut reader = broker.subscriber(V311, &filter, qos);
        let mut publisher = broker.publisher(V311);
        publisher.publish(&filter, qos, vec![b'x'; 10_000]);
        let first = reader.receive_publish();
        reader.acknowledge(&first);
        let before = broker.resources().resident_bytes;
        // 60 MB for somebody who does not read: far beyond what sockets hold.
        let start = Instant::now();
        for number in 0..6_000_u32 {
            let mut payload = number.to_string().into_bytes();
            payload.resize(10_000, b' ');
            publisher.publish_packet(Publish::new(&filter, qos, payload));
            let message = reader.receive_publish();
            assert_eq!(message.text().trim_end(), number.to_string());
            reader.acknowledge(&message);
        }
        assert!(start.elapsed() < PATIENCE * 3, "{:?}", start.elapsed());
        let grown = broker.resources().resident_bytes.saturating_sub(before);
        // QoS 0: what the outbox holds, 1 MiB. QoS 1: what is in flight and the session's queue of 64 MiB at most.
        let most: u64 = if qos == 0 { 16 << 20 } else { 110 << 20 };
        assert!(grown < most, "QoS {qos}: memory grew by {grown} bytes");
        if qos == 0 {
            // What did come came in order; the rest was dropped.
            let mut last = -1;
            stuck.receive_publish();
            for _ in 0..10 {
                let number: i64 = stuck.receive_publish().text().trim_end().parse().unwrap();
                assert!(number > last);
                last = number;
            }
        }
    }
}

/// Many subscribers of one topic, many publishers to one: every message once to everyone.
#[test]
fn fan_out_and_fan_in_lose_nothing() {
    let broker = Broker::start();
    let mut subscribers: Vec<_> = (0..40)
        .map(|_| broker.subscriber(V311, "fan/#", 1))
        .collect();
    let mut publishers: Vec<_> = (0..10).map(|_| broker.publisher(V5)).collect();
    for (sender, publisher) in publishers.iter_mut().enumerate() {
        let bytes: Vec<u8> = (1..=50)
            .flat_map(|number| {
                Publish::new(&format!("fan/{sender}"), 1, number.to_string())
                    .id(number)
                    .encode(V5)
            })
            .collect();
        publisher.send(bytes);
    }
    for publisher in &mut publishers {
        for number in 1..=50 {
            publisher.expect_ack(Kind::Puback, number);
        }
    }
    for subscriber in &mut subscribers {
        let mut next = [1; 10];
        for _ in 0..500 {
            let message = subscriber.receive_publish();
            subscriber.acknowledge(&message);
            let sender: usize = message.topic["fan/".len()..].parse().unwrap();
            assert_eq!(
                message.text(),
                next[sender].to_string(),
                "order of sender {sender}"
            );
            next[sender] += 1;
        }
    }
}

/// A large message to many, some of whom read slowly: payloads are shared, not copied for each.
#[test]
fn a_large_message_to_many_subscribers_is_kept_once() {
    let broker = Broker::start();
    let mut subscribers: Vec<_> = (0..20)
        .map(|_| broker.subscriber(V311, "large", 1))
        .collect();
    let mut publisher = broker.publisher(V311);
    let before = broker.resources().resident_bytes;
    let payload = vec![7; 3_000_000];
    for _ in 0..3 {
        publisher.publish("large", 1, &payload);
    }
    let grown = broker.resources().resident_bytes.saturating_sub(before);
    assert!(
        grown < 60 << 20,
        "3 messages of 3 MB for 20 subscribers: {grown} bytes"
    );
    for subscriber in &mut subscribers {
        for _ in 0..3 {
            let message = subscriber.receive_publish();
            assert!(message.payload == payload);
            subscriber.acknowledge(&message);
        }
    }
}
