//! SUBSCRIBE, UNSUBSCRIBE and the matching of topics.

use crate::support::packet::{packet, string};
use crate::support::*;

/// [MQTT311-3.8.4-1], [MQTT311-3.8.4-2], [MQTT311-3.8.4-5], [MQTT311-3.9.3-1], [MQTT311-2.3.1-7]: byte for byte.
#[test]
fn suback_has_the_identifier_and_a_code_for_each_filter_in_order() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V311);
    client.send_hex("82 0e 1234 0001 61 02 0001 62 00 0001 63 01");
    client.expect_hex("90 05 1234 02 00 01");
}

/// [MQTT311-3.8.1-1], [MQTT311-3.10.1-1] have their bytes in `connect`; here the payload: [MQTT311-3.8.3-3], [MQTT311-3.10.3-2]
#[test]
fn subscribe_and_unsubscribe_need_a_filter() {
    let broker = Broker::start();
    both_versions(|version| {
        for bytes in [subscribe(version, 1, &[]), unsubscribe(version, 1, &[])] {
            let mut client = Client::connect(&broker, version);
            client.send(bytes);
            client.expect_close();
        }
    });
}

/// [MQTT311-3.8.3-4]: QoS 3 and reserved bits of the options.
#[test]
fn reserved_subscription_options_close() {
    let broker = Broker::start();
    for options in [0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
        let mut client = Client::connect(&broker, V311);
        client.send(subscribe(V311, 1, &[("fine", 0), ("options", options)]));
        client.expect_end();
    }
    for options in [0x03, 0x30, 0x40, 0x80] {
        let mut client = Client::connect(&broker, V5);
        client.send(subscribe(V5, 1, &[("options", options)]));
        client.expect_close();
    }
}

/// A SUBSCRIBE whose last filter has no options byte, and other cuts.
#[test]
fn a_subscribe_that_is_too_short_closes() {
    let broker = Broker::start();
    for bytes in [
        "82 00",
        "82 01 00",
        "82 05 0001 0001 61",
        "82 04 0001 0003",
        "82 06 0001 0005 61 00",
        "a2 03 0001 00",
        "a2 05 0001 0002 61",
    ] {
        let mut client = Client::connect(&broker, V311);
        client.send_hex(bytes);
        client.expect_end();
    }
}

/// [MQTT311-3.8.3-1], [MQTT311-3.10.3-1], [MQTT311-4.7.3-2]
#[test]
fn filters_must_be_utf8_without_nul() {
    let broker = Broker::start();
    both_versions(|version| {
        for bad in [&b"a\0"[..], b"\xff\xfe", b"\xed\xbf\xbf", b"\xc0\xaf"] {
            for first in [0x82, 0xa2] {
                let mut body = vec![0, 1];
                if version == V5 {
                    body.push(0);
                }
                string(bad, &mut body);
                if first == 0x82 {
                    body.push(0);
                }
                let mut client = Client::connect(&broker, version);
                client.send(packet(first, &body));
                client.expect_close();
            }
        }
    });
}

/// [MQTT311-4.7.1-2], [MQTT311-4.7.1-3], [MQTT311-4.7.3-1], PRO-3
#[test]
fn invalid_filters_close() {
    let broker = Broker::start();
    for filter in [
        "", "a#", "#a", "a/#/b", "#/a", "a+", "+a", "a/b+/c", "a/+b", "++", "##", "/#/",
    ] {
        for bytes in [
            subscribe(V311, 1, &[(filter, 0)]),
            unsubscribe(V311, 1, &[filter]),
        ] {
            let mut client = Client::connect(&broker, V311);
            client.send(bytes);
            client.expect_end();
        }
    }
}

/// PRO-3: 5.0 has a reason code for them.
#[test]
fn invalid_filters_are_refused_in_5_0() {
    let broker = Broker::start();
    for filter in ["a#", "#a", "a/#/b", "a+", "+a", "++"] {
        let mut client = Client::connect(&broker, V5);
        client.send(subscribe(V5, 1, &[(filter, 0)]));
        match client.receive_or_end() {
            Some(Packet::Suback { codes, .. }) => assert_eq!(codes, [0x8f], "{filter}"),
            Some(Packet::Disconnect { reason, .. }) => assert!(reason >= 0x80, "{filter}"),
            other => panic!("{filter}: {other:?}"),
        }
    }
}

/// [MQTT311-4.7.1-2], [MQTT311-4.7.1-3], [MQTT311-4.7.2-1], [MQTT311-4.7.3-4], [MQTT311-3.8.3-2], PRO-2, BUG-4
#[test]
fn wildcards_match_as_the_specification_says() {
    let broker = Broker::start();
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "sport/#",
            &["sport", "sport/", "sport/a", "sport/a/b/c"],
            &["sports", "sport2/a", "Sport/a", "/sport"],
        ),
        ("#", &["a", "/a", "a/", "/", "a/b/c"], &[]),
        ("+", &["a", "*"], &["a/b", "/a", "a/", "/"]),
        ("+/+", &["/a", "a/", "/", "a/b"], &["a", "a/b/c"]),
        ("/+", &["/a", "/"], &["a", "/a/b"]),
        (
            "a/+/c",
            &["a/b/c", "a//c", "a/+ /c"],
            &["a/c", "a/b/b/c", "a/b/c/d", "x/b/c"],
        ),
        (
            "+/b/#",
            &["a/b", "a/b/c", "/b/c/d"],
            &["b", "a/c/b", "a/b2"],
        ),
        ("a/+/#", &["a/b", "a/b/c", "a/"], &["a"]),
        (
            "a/b",
            &["a/b"],
            &["a/B", "a/b/", "/a/b", "a", "a/b/c", "ab"],
        ),
        ("a/$x", &["a/$x"], &["a/x"]),
        ("+/$x", &["a/$x"], &["b/x"]),
        ("\u{e9}", &["\u{e9}"], &["e\u{301}", "e"]),
        ("a.c", &["a.c"], &["abc", "a/c"]),
        ("a/[b]", &["a/[b]"], &["a/b"]),
    ];
    for &(filter, matching, others) in cases {
        let mut subscriber = broker.subscriber(V311, filter, 1);
        let mut publisher = broker.publisher(V311);
        for topic in matching
            .iter()
            .chain(others)
            .filter(|topic| !topic.contains('+'))
        {
            publisher.publish(topic, 1, topic.as_bytes());
        }
        let expected: Vec<_> = matching
            .iter()
            .copied()
            .filter(|topic| !topic.contains('+'))
            .collect();
        let mut found = Vec::new();
        for _ in &expected {
            let message = subscriber.receive_publish();
            subscriber.acknowledge(&message);
            found.push(message.text());
        }
        assert_eq!(found, expected, "{filter}");
        subscriber.unsubscribe(&[filter]);
        subscriber.expect_nothing(&mut publisher);
    }
}

/// [MQTT311-4.7.2-1], SYS-14: filters that begin with a wildcard see nothing under `$`.
#[test]
fn wildcards_do_not_see_topics_that_begin_with_a_dollar() {
    let broker = Broker::with("sys_interval: 1\n");
    let mut everything = Client::connect(&broker, V311);
    everything.subscribe_all(&[("#", 0), ("+/broker/#", 0), ("+/#", 0)]);
    let mut sys = broker.subscriber(V311, "$SYS/#", 0);
    // Two rounds of $SYS have been published when `uptime` came twice.
    let mut uptimes = 0;
    while uptimes < 3 {
        uptimes += u32::from(sys.receive_publish().topic == "$SYS/broker/uptime");
    }
    everything.expect_nothing(&mut broker.publisher(V311));
}

/// [MQTT311-3.8.4-3], PRO-4: the same filter again replaces the subscription.
#[test]
fn subscribing_again_replaces_the_qos() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut publisher = broker.publisher(version);
        let mut subscriber = broker.subscriber(version, "replace/+", 2);
        subscriber.subscribe("replace/+", 0);
        publisher.publish("replace/a", 2, "now at 0");
        assert_eq!(subscriber.receive_publish().qos, 0);
        subscriber.subscribe("replace/+", 1);
        publisher.publish("replace/a", 2, "now at 1");
        let message = subscriber.receive_publish();
        assert_eq!(message.qos, 1);
        subscriber.acknowledge(&message);
        subscriber.expect_nothing(&mut publisher);
    });
}

/// [MQTT311-3.8.4-4]: several filters in one packet act as several packets, also when one occurs twice.
#[test]
fn a_filter_twice_in_one_subscribe_counts_the_second_time() {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, V311);
    assert_eq!(
        subscriber.subscribe_all(&[("twice", 2), ("twice", 0)]),
        [2, 0]
    );
    let mut publisher = broker.publisher(V311);
    publisher.publish("twice", 2, "x");
    assert_eq!(subscriber.receive_publish().qos, 0);
    subscriber.expect_nothing(&mut publisher);
}

/// [MQTT311-3.10.4-1], [MQTT311-3.10.4-4], [MQTT311-3.10.4-5], [MQTT311-3.10.4-6]: byte for byte.
#[test]
fn unsuback_answers_every_unsubscribe() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V311);
    client.send_hex("a2 05 1234 0001 61");
    client.expect_hex("b0 02 1234");
    client.subscribe("a", 0);
    client.send_hex("a2 08 4321 0001 61 0001 62");
    client.expect_hex("b0 02 4321");
}

/// [MQTT311-3.10.4-1]: filters are compared as they are, not by what they match.
#[test]
fn unsubscribe_deletes_exactly_the_filter_named() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut publisher = broker.publisher(version);
        let mut subscriber = broker.subscriber(version, "un/+", 1);
        subscriber.unsubscribe(&["un/a", "un/#", "#", "UN/+", "un/+/"]);
        publisher.publish("un/a", 1, "still");
        subscriber.expect_only(&mut publisher, &["still"]);
        subscriber.unsubscribe(&["un/+"]);
        publisher.publish("un/a", 1, "gone");
        subscriber.expect_nothing(&mut publisher);
    });
}

/// [MQTT311-3.10.4-2], [MQTT311-3.10.4-3]: what has begun is completed, what is new does not come.
#[test]
fn unsubscribe_completes_what_is_in_flight() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut publisher = broker.publisher(version);
        let mut subscriber = broker.subscriber(version, "inflight", 2);
        publisher.publish("inflight", 2, "begun");
        let message = subscriber.receive_publish();
        subscriber.unsubscribe(&["inflight"]);
        publisher.publish("inflight", 2, "too late");
        subscriber.acknowledge(&message);
        subscriber.expect_nothing(&mut publisher);
    });
}

/// [MQTT311-3.9.3-2], BC-19: a capped QoS is said in the SUBACK and kept.
#[test]
fn max_qos_caps_what_is_granted() {
    let broker = Broker::with("max-qos: 1\n");
    let mut subscriber = Client::connect(&broker, V311);
    assert_eq!(
        subscriber.subscribe_all(&[("cap/a", 2), ("cap/b", 1), ("cap/c", 0)]),
        [1, 1, 0]
    );
}

/// BUG-1, DEC-19: the default configuration and the documented one let clients subscribe.
#[test]
fn the_default_configuration_lets_clients_subscribe() {
    for settings in ["", "topic-check:\n  enabled: false\n"] {
        let broker = Broker::with(settings);
        broker.subscriber(V311, "#", 2).expect_alive();
    }
}
