//! LIMITS.md, row by row: the key, what happens beyond the limit, and the counter in `$SYS`.

use std::time::{Duration, Instant};

use crate::support::client::by_version;
use crate::support::packet::packet;
use crate::support::*;

/// PRO-15: who does not send CONNECT in time is closed, without a word; handshakes count.
#[test]
fn without_connect_in_time_the_connection_is_closed() {
    let broker = limited("connect-timeout: 1");
    let mut silent = Client::open(&broker);
    let mut partial = Client::open(&broker);
    let connect = Connect::new(V311, "late").encode();
    partial.send(&connect[..connect.len() - 1]);
    let start = Instant::now();
    silent.expect_end();
    partial.expect_end();
    let after = start.elapsed();
    assert!(
        after > Duration::from_millis(800) && after < Duration::from_secs(3),
        "{after:?}"
    );
    counted(&broker, "handshakes-expired", 2);
}

/// The deadline is absolute: a byte now and then does not move it.
#[test]
fn one_byte_at_a_time_does_not_extend_the_deadline() {
    let broker = limited("connect-timeout: 1");
    let mut slow = Client::open(&broker);
    let start = Instant::now();
    for byte in Connect::new(V311, "a-long-client-identifier-sent-slowly").encode() {
        slow.send([byte]);
        if slow.ends_within(Duration::from_millis(100)) {
            break;
        }
    }
    assert!(slow.ends_within(PATIENCE));
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

/// Beyond the number of half-open connections the oldest goes.
#[test]
fn the_oldest_half_open_connection_is_dropped() {
    let broker = limited("max-half-open-connections: 3");
    let mut clients: Vec<_> = (0..5).map(|_| Client::open(&broker)).collect();
    // The fifth is known to the broker once the first two are gone.
    clients[0].expect_end();
    clients[1].expect_end();
    for client in &mut clients[2..] {
        client.handshake(&Connect::new(V311, &format!("half{}", unique())));
        client.expect_alive();
    }
}

/// A packet that is begun must be finished.
#[test]
fn a_packet_must_be_finished_in_time() {
    let broker = limited("packet-timeout: 1");
    let mut client = Client::connect_with(&broker, &Connect::new(V311, "slow").keep_alive(0));
    let start = Instant::now();
    client.send_hex("30 0a 0001 61");
    client.expect_end();
    let after = start.elapsed();
    assert!(
        after > Duration::from_millis(800) && after < Duration::from_secs(4),
        "{after:?}"
    );
}

/// BC-5, DEC-6, BUG-22: beyond `max-connections` a CONNACK with 3 or 0x97, and the place is free again afterwards.
#[test]
fn connections_beyond_the_listeners_limit_are_refused() {
    for key in ["max-connections", "max_connections"] {
        let broker = Broker::configured(&format!(
            "listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:0\n    {key}: 2\n"
        ));
        let first = Client::connect(&broker, V311);
        let _second = Client::connect(&broker, V311);
        both_versions(|version| {
            let code = Client::refused(&broker, &Connect::new(version, "third"));
            assert_eq!(code, by_version(version, 3, 0x97));
        });
        first.disconnect();
        eventually("the place is free", || {
            let mut client = Client::open(&broker);
            client.send(Connect::new(V311, "third").encode());
            match client.receive_or_end() {
                Some(Packet::Connack { code: 0, .. }) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

/// BUG-11: a bad first packet gives its place back, however often.
#[test]
fn bad_first_packets_do_not_use_up_places() {
    let broker = Broker::configured(
        "listeners:\n  default:\n    bind: 127.0.0.1:0\n    max-connections: 2\n",
    );
    for _ in 0..50 {
        let mut client = Client::open(&broker);
        client.send_hex("30 00");
        // Closed for its packet, or refused for want of a place that is about to be free: never accepted.
        while let Some(packet) = client.receive_or_end() {
            assert!(matches!(packet, Packet::Connack { code: 1.., .. }));
        }
    }
    eventually("a place", || {
        let mut client = Client::open(&broker);
        client.send(Connect::new(V311, "good").encode());
        match client.receive_or_end() {
            Some(Packet::Connack { code: 0, .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// DEC-6: 0, negative and absent mean no limit.
#[test]
fn zero_and_negative_max_connections_mean_no_limit() {
    for value in ["0", "-1"] {
        let broker = Broker::configured(&format!(
            "listeners:\n  default:\n    bind: 127.0.0.1:0\n    max-connections: {value}\n"
        ));
        let _clients: Vec<_> = (0..10).map(|_| Client::connect(&broker, V311)).collect();
        assert!(
            broker.log_text().contains("(max_connections=-1)"),
            "{}",
            broker.log_text()
        );
    }
}

/// The broker's own limit over all listeners.
#[test]
fn connections_beyond_the_brokers_limit_are_refused() {
    let broker = limited("max-connections: 2");
    let _first = Client::connect(&broker, V311);
    let _second = Client::connect(&broker, V5);
    assert_eq!(Client::refused(&broker, &Connect::new(V311, "third")), 3);
    assert_eq!(Client::refused(&broker, &Connect::new(V5, "third")), 0x97);
}

/// A CONNECT above 128 KiB is closed from its length alone.
#[test]
fn a_large_packet_before_authentication_is_closed() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    client.send_hex("10 81 80 08");
    client.expect_end();
    let mut client = Client::open(&broker);
    client.send_hex("10 ff ff ff 7f");
    client.expect_end();
}

/// BUG-24, PRO-16: the packet limit is checked on the length, before anything is stored; 5.0 says 0x95.
#[test]
fn a_packet_above_the_limit_closes() {
    let broker = limited("max-packet-size: 1000");
    both_versions(|version| {
        let mut subscriber = broker.subscriber(version, "big", 0);
        let mut client = Client::connect(&broker, version);
        let overhead = Publish::new("big", 0, "").encode(version).len() + 1;
        client.publish("big", 0, "x".repeat(1000 - overhead));
        assert_eq!(subscriber.receive_publish().payload.len(), 1000 - overhead);
        client.send(Publish::new("big", 0, "x".repeat(1001 - overhead)).encode(version));
        assert_eq!(client.expect_close(), (version == V5).then_some(0x95));
        let mut client = Client::connect(&broker, version);
        client.send_hex("30 ff ff ff 7f");
        assert_eq!(client.expect_close(), (version == V5).then_some(0x95));
    });
    counted(&broker, "packets-too-large", 4);
}

/// Filters of one packet are bounded before they are decoded; 5.0 says 0x97.
#[test]
fn too_many_filters_in_one_packet_close() {
    let broker = limited("max-filters: 3");
    both_versions(|version| {
        for count in [3, 4] {
            let filters = ["a", "b", "c", "d"].map(|filter| (filter, 0));
            let names = filters.map(|(filter, _)| filter);
            let packets = [
                subscribe(version, 1, &filters[..count]),
                unsubscribe(version, 1, &names[..count]),
            ];
            for packet in packets {
                let mut client = Client::connect(&broker, version);
                client.send(packet);
                if count == 3 {
                    assert!(matches!(
                        client.receive(),
                        Packet::Suback { .. } | Packet::Unsuback { .. }
                    ));
                } else {
                    assert_eq!(client.expect_close(), (version == V5).then_some(0x97));
                }
            }
        }
    });
    counted(&broker, "protocol-errors", 4);
}

/// The default is 4 MiB, and MQTT 5.0 clients are told.
#[test]
fn the_default_packet_limit_is_4_mib() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    client.version = V5;
    client.send(Connect::new(V5, "told").encode());
    let Packet::Connack { properties, .. } = client.receive() else {
        panic!("CONNACK")
    };
    assert!(
        properties.contains(&Property::Four(0x27, 4 * 1024 * 1024)),
        "{properties:?}"
    );
    let mut client = Client::connect(&broker, V311);
    // The length of a packet of 4 MiB and a byte.
    client.send_hex("30 fd ff ff 01");
    client.expect_end();
}

/// A variable byte integer of five bytes is no length.
#[test]
fn a_remaining_length_of_five_bytes_closes() {
    let broker = Broker::start();
    for start in [
        "30 80 80 80 80 01",
        "10 80 80 80 80 01",
        "30 ff ff ff ff 7f",
    ] {
        let mut client = Client::open(&broker);
        client.send_hex(start);
        client.expect_end();
        let mut client = Client::connect(&broker, V311);
        client.send_hex(start);
        client.expect_end();
    }
}

/// 3.1.1 §3.1.3.1, LIMITS.md: an identifier of more than 1,024 bytes is rejected. [MQTT311-3.1.3-9]
#[test]
fn a_client_id_above_the_limit_is_rejected() {
    let broker = Broker::start();
    let long = "x".repeat(1025);
    assert_eq!(Client::refused(&broker, &Connect::new(V311, &long)), 2);
    assert_eq!(Client::refused(&broker, &Connect::new(V5, &long)), 0x85);
    let broker = limited("max-client-id-length: 23");
    Client::connect_with(&broker, &Connect::new(V311, &long[..23])).disconnect();
    assert_eq!(
        Client::refused(&broker, &Connect::new(V311, &long[..24])),
        2
    );
}

/// Topics have at most 200 levels, filters too.
#[test]
fn topics_of_too_many_levels_are_refused() {
    let broker = limited("max-topic-levels: 4");
    let mut client = Client::connect(&broker, V311);
    client.publish("a/b/c/d", 1, "");
    assert_eq!(
        client.subscribe_all(&[("a/b/c/d", 0), ("a/b/c/d/e", 0), ("a/b/c/d/#", 0)]),
        [0, 0x80, 0x80]
    );
    client.send(Publish::new("a/b/c/d/e", 0, "").encode(V311));
    client.expect_end();
    let mut client = Client::connect(&broker, V5);
    client.send(Publish::new("a/b/c/d/e", 1, "").id(1).encode(V5));
    match client.receive() {
        Packet::Ack {
            kind: Kind::Puback,
            reason,
            ..
        }
        | Packet::Disconnect { reason, .. } => assert_eq!(reason, 0x90),
        other => panic!("{other:?}"),
    }
    let deep = "a/".repeat(200);
    let default = Broker::start();
    assert_eq!(
        Client::connect(&default, V311).subscribe_all(&[(&deep, 0)]),
        [0x80]
    );
    Client::connect(&default, V311).publish(&deep[..398], 1, "");
}

/// The length of a topic can be limited further.
#[test]
fn topics_longer_than_the_limit_are_refused() {
    let broker = limited("max-topic-length: 20");
    let (fits, long) = ("x".repeat(20), "x".repeat(21));
    let mut client = Client::connect(&broker, V311);
    client.publish(&fits, 1, "");
    assert_eq!(client.subscribe_all(&[(&fits, 0), (&long, 0)]), [0, 0x80]);
    client.send(Publish::new(&long, 0, "").encode(V311));
    client.expect_end();
}

/// The properties of a packet: their bytes and their number.
#[test]
fn properties_beyond_the_limit_are_refused() {
    let broker = limited("max-properties: 3\n  max-properties-size: 200");
    for properties in [vec![("k", "v".repeat(10)); 4], vec![("k", "v".repeat(300))]] {
        let mut message = Publish::new("p", 1, "").id(1);
        for (name, value) in properties {
            message = message.property(Property::Pair(0x26, name.to_owned(), value));
        }
        let mut client = Client::connect(&broker, V5);
        client.send(message.encode(V5));
        match client.receive() {
            Packet::Disconnect { reason: 0x97, .. } | Packet::Ack { reason: 0x97, .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Subscriptions of a session, and of all.
#[test]
fn subscriptions_beyond_the_limit_are_refused() {
    both_versions(|version| {
        // One for each version: the sessions of the other one may not be gone yet.
        let broker = limited("max-subscriptions-per-session: 2\n  max-subscriptions: 3");
        let mut first = Client::connect(&broker, version);
        let refused = by_version(version, 0x80, 0x97);
        assert_eq!(
            first.subscribe_all(&[("a", 0), ("b", 1), ("c", 0), ("a", 2)]),
            [0, 1, refused, 2]
        );
        let mut second = Client::connect(&broker, version);
        assert_eq!(second.subscribe_all(&[("a", 0), ("b", 0)]), [0, refused]);
        first.unsubscribe(&["b"]);
        assert_eq!(second.subscribe_all(&[("b", 0)]), [0]);
        first.disconnect();
        second.disconnect();
        // Ended sessions give their subscriptions back.
        eventually("no subscription is left", || {
            let mut third = Client::connect(&broker, version);
            let codes = third.subscribe_all(&[("x", 0), ("y", 0)]);
            if codes == [0, 0] {
                Ok(())
            } else {
                Err(format!("{codes:?}"))
            }
        });
        eventually("nor from that", || {
            let mut third = Client::connect(&broker, version);
            let codes = third.subscribe_all(&[("x", 0), ("y", 0)]);
            if codes == [0, 0] {
                Ok(())
            } else {
                Err(format!("{codes:?}"))
            }
        });
        counted(&broker, "subscriptions-refused", 2);
    });
}

/// Retained messages: delivered, but not kept.
#[test]
fn retained_messages_beyond_the_limit_are_not_kept() {
    let broker = limited("max-retained-messages: 2");
    let mut live = broker.subscriber(V311, "r/+", 0);
    let mut publisher = broker.publisher(V311);
    for topic in ["r/1", "r/2", "r/3"] {
        publisher.publish_packet(Publish::new(topic, 1, topic).retain());
        assert_eq!(live.receive_publish().text(), topic);
    }
    let mut late = broker.subscriber(V311, "r/+", 1);
    late.expect_only(&mut publisher, &["r/1", "r/2"]);
    let mut modern = broker.publisher(V5);
    modern.send(Publish::new("r/4", 1, "x").id(1).retain().encode(V5));
    assert!(matches!(
        modern.receive(),
        Packet::Ack {
            kind: Kind::Puback,
            reason: 0x97,
            ..
        }
    ));
    counted(&broker, "retained-refused", 2);
}

/// Sessions that outlive their connections.
#[test]
fn persistent_sessions_beyond_the_limit_are_refused() {
    let broker = limited("max-sessions: 2");
    for name in ["one", "two"] {
        Client::connect_with(&broker, &Connect::new(V311, name).persistent()).disconnect();
    }
    assert_eq!(
        Client::refused(&broker, &Connect::new(V311, "three").persistent()),
        3
    );
    assert_eq!(
        Client::refused(&broker, &Connect::new(V5, "three").persistent()),
        0x97
    );
    Client::connect(&broker, V311).disconnect();
    assert!(Client::connect_resuming(&broker, &Connect::new(V311, "one").persistent()).1);
}

/// The queue of an offline session: the oldest goes, it is counted and logged.
#[test]
fn a_full_queue_drops_the_oldest_and_says_so() {
    let broker = limited("max-queued-messages: 3");
    let kept = Connect::new(V311, "queue").persistent();
    let mut subscriber = Client::connect_with(&broker, &kept);
    subscriber.subscribe("q", 1);
    subscriber.disconnect();
    let mut publisher = broker.publisher(V311);
    for number in 1..=5 {
        publisher.publish("q", 1, number.to_string());
    }
    Client::connect_with(&broker, &kept).expect_only(&mut publisher, &["3", "4", "5"]);
    broker.wait_for_log("queue");
    let dropped = sys(&broker, "messages/dropped/queue-full", |value| value >= 2);
    assert_eq!(dropped, 2);
}

/// CONFIG.md: `queue-full`.
#[test]
fn a_full_queue_may_drop_the_new_or_reject() {
    for (policy, reason) in [("drop-new", 0x00), ("reject", 0x97)] {
        let broker = Broker::with(&format!(
            "queue-full: {policy}\nlimits:\n  max-queued-messages: 2\n"
        ));
        let kept = Connect::new(V311, "queue").persistent();
        let mut subscriber = Client::connect_with(&broker, &kept);
        subscriber.subscribe("q", 1);
        subscriber.disconnect();
        let mut publisher = broker.publisher(V5);
        publisher.publish("q", 1, "1");
        publisher.publish("q", 1, "2");
        publisher.send(Publish::new("q", 1, "3").id(9).encode(V5));
        match publisher.receive() {
            Packet::Ack {
                kind: Kind::Puback,
                id: 9,
                reason: given,
                ..
            } => assert_eq!(given, reason, "{policy}"),
            other => panic!("{other:?}"),
        }
        Client::connect_with(&broker, &kept).expect_only(&mut publisher, &["1", "2"]);
    }
}

/// The queue is bounded in bytes too.
#[test]
fn a_queue_is_bounded_in_bytes() {
    let broker = limited("max-queued-bytes: 1000");
    let kept = Connect::new(V311, "bytes").persistent();
    let mut subscriber = Client::connect_with(&broker, &kept);
    subscriber.subscribe("q", 1);
    subscriber.disconnect();
    let mut publisher = broker.publisher(V311);
    for letter in ["a", "b", "c"] {
        publisher.publish("q", 1, letter.repeat(400));
    }
    let (b, c) = ("b".repeat(400), "c".repeat(400));
    Client::connect_with(&broker, &kept).expect_only(&mut publisher, &[&b, &c]);
}

/// Messages in flight to a 3.1.1 client stop at the broker's limit and go on with its acknowledgements.
#[test]
fn messages_in_flight_to_a_client_are_limited() {
    let broker = limited("max-inflight-messages: 3");
    both_versions(|version| {
        for qos in [1, 2] {
            let mut subscriber = broker.subscriber(version, "window", qos);
            let mut publisher = broker.publisher(version);
            for number in 0..10 {
                publisher.publish("window", qos, number.to_string());
            }
            let first: Vec<_> = (0..3).map(|_| subscriber.receive_publish()).collect();
            // Other packets are not held back, and no fourth message is before them.
            subscriber.expect_alive();
            subscriber.subscribe("other", 0);
            subscriber.expect_alive();
            for message in &first {
                subscriber.acknowledge(message);
            }
            for number in 3..10 {
                let message = subscriber.receive_publish();
                assert_eq!(message.text(), number.to_string());
                subscriber.acknowledge(&message);
            }
        }
    });
}

/// Receive Maximum inwards: 5.0 clients are told and held to it; with 3.1.1 reading pauses, and nothing is lost.
#[test]
fn messages_in_flight_from_a_client_are_limited() {
    let broker = limited("receive-maximum: 3");
    let mut client = Client::open(&broker);
    client.version = V5;
    client.send(Connect::new(V5, "window").encode());
    let Packet::Connack { properties, .. } = client.receive() else {
        panic!("CONNACK")
    };
    assert!(
        properties.contains(&Property::Two(0x21, 3)),
        "{properties:?}"
    );
    for id in 1..=4 {
        client.send(Publish::new("in", 2, "").id(id).encode(V5));
    }
    let mut pubrecs = 0;
    let reason = loop {
        match client.receive() {
            Packet::Ack {
                kind: Kind::Pubrec, ..
            } => pubrecs += 1,
            Packet::Disconnect { reason, .. } => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason, 0x93);
    assert!(pubrecs <= 3);

    let mut old = Client::connect(&broker, V311);
    for id in 1..=10 {
        old.send(Publish::new("in", 2, "").id(id).encode(V311));
        old.await_ack(Kind::Pubrec, id);
        old.send(ack(Kind::Pubrel, id));
    }
    for id in 1..=10 {
        old.await_ack(Kind::Pubcomp, id);
    }
}

/// CONFIG.md: `max-keepalive`.
#[test]
fn a_keep_alive_above_the_limit_is_refused_or_replaced() {
    let broker = limited("max-keepalive: 60");
    Client::connect_with(&broker, &Connect::new(V311, "ok").keep_alive(60)).disconnect();
    assert_eq!(
        Client::refused(&broker, &Connect::new(V311, "long").keep_alive(61)),
        2
    );
    assert_eq!(
        Client::refused(&broker, &Connect::new(V311, "off").keep_alive(0)),
        2
    );
    let mut client = Client::open(&broker);
    client.version = V5;
    client.send(Connect::new(V5, "told").keep_alive(600).encode());
    let Packet::Connack {
        code: 0,
        properties,
        ..
    } = client.receive()
    else {
        panic!("CONNACK")
    };
    assert!(
        properties.contains(&Property::Two(0x13, 60)),
        "{properties:?}"
    );
}

/// BC-9, DEC-23: `timeout-disconnect-delay` brings the end forward, never beyond 1.5 times the Keep Alive.
#[test]
fn the_disconnect_delay_shortens_the_keep_alive() {
    for (delay, least, most) in [(0, 1_800, 2_700), (10, 2_800, 3_900)] {
        let broker = Broker::with(&format!("timeout-disconnect-delay: {delay}\n"));
        let mut client = Client::connect_with(&broker, &Connect::new(V311, "delay").keep_alive(2));
        let start = Instant::now();
        client.expect_end();
        let after = start.elapsed();
        assert!(
            after >= Duration::from_millis(least) && after <= Duration::from_millis(most),
            "{delay}: {after:?}"
        );
    }
}

/// A retained message in a 5.0 PUBLISH, an empty packet body, flags: the length of SUBSCRIBE alone may be huge.
#[test]
fn a_claimed_length_alone_costs_no_memory() {
    let broker = limited("max-packet-size: 268435455");
    Client::connect(&broker, V311).disconnect();
    let before = broker.resources().resident_bytes;
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&broker, V311)).collect();
    for client in &mut clients {
        let mut start = vec![0x30, 0xff, 0xff, 0xff, 0x7f, 0x00, 0x01];
        start.extend(*b"a");
        client.send(start);
        // The broker has read it: a complete packet cannot follow, but the connection is still there.
    }
    clients.push(Client::connect(&broker, V311));
    clients.last_mut().unwrap().expect_alive();
    let after = broker.resources().resident_bytes;
    assert!(after < before + 30_000_000, "{before} to {after}");
}

/// MQTT 5.0 §3.14.2.1 and its like: an unknown property or one twice is malformed, whatever the packet.
#[test]
fn unknown_and_repeated_properties_are_malformed() {
    let broker = Broker::start();
    // PUBLISH "a" with: identifier 0x7f; Content Type twice; Message Expiry cut short.
    for section in ["027f00", "08 03 0001 78 03 0001 79", "03 02 0000"] {
        let mut body = unhex("0001 61");
        body.extend(unhex(section));
        let mut client = Client::connect(&broker, V5);
        client.send(packet(0x30, &body));
        let reason = client.expect_close();
        assert!(
            reason.is_none_or(|reason| [0x81, 0x82].contains(&reason)),
            "{reason:?}"
        );
    }
}

fn limited(lines: &str) -> Broker {
    Broker::with(&format!("sys_interval: 1\nlimits:\n  {lines}\n"))
}

/// The counter of a limit has reached this.
fn counted(broker: &Broker, counter: &str, least: u64) {
    sys(broker, &format!("limits/{counter}"), |value| value >= least);
}

/// The value of a `$SYS` topic once `accept` takes it.
fn sys(broker: &Broker, topic: &str, accept: impl Fn(u64) -> bool) -> u64 {
    let mut reader = Client::connect(broker, V311);
    reader.subscribe(&format!("$SYS/broker/{topic}"), 0);
    loop {
        let value = reader.receive_publish().text().parse().unwrap();
        if accept(value) {
            return value;
        }
    }
}
