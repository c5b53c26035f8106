//! `$SYS` topics.

use std::collections::BTreeMap;

use crate::support::*;

/// SYS-1 to SYS-12, SEED-5, BUG-19: HBMQTT's topics are all there, retained, in HBMQTT's formats.
#[test]
fn hbmqtts_topics_are_retained_in_its_formats() {
    let broker = Broker::with("sys_interval: 1\n");
    let mut persistent = Client::connect_with(&broker, &Connect::new(V311, "away").persistent());
    persistent.subscribe("away/#", 1);
    persistent.disconnect();
    let mut publisher = broker.publisher(V311);
    publisher.publish_packet(Publish::new("kept", 1, "x").retain());
    publisher.publish("away/a", 1, "queued");
    let values = second_round(&broker);
    let text = |topic: &str| {
        values
            .get(&format!("$SYS/broker/{topic}"))
            .unwrap_or_else(|| panic!("{topic}: {values:#?}"))
            .clone()
    };
    let number = |topic: &str| {
        text(topic)
            .parse::<u64>()
            .unwrap_or_else(|_| panic!("{topic}: {}", text(topic)))
    };
    assert_eq!(
        text("version"),
        concat!("HBMQTT version ", env!("CARGO_PKG_VERSION"))
    );
    for topic in [
        "load/bytes/received",
        "load/bytes/sent",
        "messages/received",
        "messages/sent",
        "messages/publish/received",
        "messages/publish/sent",
    ] {
        assert!(number(topic) > 0, "{topic}");
    }
    assert!(number("messages/received") > number("messages/publish/received"));
    assert!(
        matches_pattern(&text("time"), "dddd-dd-dd dd:dd:dd.dddddd"),
        "{}",
        text("time")
    );
    number("uptime");
    assert!(
        matches_pattern(&text("uptime/formated"), "d:dd:dd.dddddd"),
        "{}",
        text("uptime/formated")
    );
    assert!(
        matches_pattern(&text("uptime/formatted"), "d:dd:dd.dddddd"),
        "{}",
        text("uptime/formatted")
    );
    assert_eq!(
        (
            number("clients/connected"),
            number("clients/disconnected"),
            number("clients/total")
        ),
        (2, 1, 3)
    );
    assert!(number("clients/maximum") >= 2);
    number("messages/inflight");
    number("messages/inflight/in");
    number("messages/inflight/out");
    assert!(
        number("messages/inflight/stored") >= 2,
        "the queued one and the retained one"
    );
    assert!(number("messages/retained/count") >= 1);
    assert_eq!(number("messages/subscriptions/count"), 2);
}

/// SYS-13: mosquitto's names for the values that both have.
#[test]
fn mosquittos_names_are_there_too() {
    let broker = Broker::with("sys_interval: 1\n");
    let values = second_round(&broker);
    for topic in [
        "load/messages/received/1min",
        "load/messages/sent/5min",
        "load/bytes/received/15min",
        "load/publish/sent/1min",
        "load/connections/1min",
        "load/sockets/1min",
        "publish/messages/dropped",
        "publish/messages/received",
        "store/messages/count",
        "store/messages/bytes",
        "subscriptions/count",
        "retained messages/count",
        "clients/active",
        "clients/inactive",
        "bytes/received",
        "bytes/sent",
        "heap/current",
    ] {
        let value = values.get(&format!("$SYS/broker/{topic}"));
        assert!(
            value.is_some_and(|value| value.parse::<f64>().is_ok()),
            "{topic}: {value:?}"
        );
    }
}

/// BC-10, DEC-2: 0 switches it off; absent means every 20 s, and once at the start.
#[test]
fn the_interval_is_obeyed() {
    let broker = Broker::with("sys_interval: 0\n");
    broker
        .subscriber(V311, "$SYS/#", 0)
        .expect_nothing(&mut broker.publisher(V311));
    let broker = Broker::start();
    let mut reader = broker.subscriber(V311, "$SYS/broker/uptime", 0);
    assert!(
        reader.receive_publish().retain,
        "there at once, from the start"
    );
    reader.expect_nothing(&mut broker.publisher(V311));
}

/// SYS-2: the counters grow with what is sent.
#[test]
fn the_counters_count() {
    let broker = Broker::with("sys_interval: 1\n");
    let mut reader = broker.subscriber(V311, "$SYS/broker/messages/publish/received", 0);
    let before: u64 = reader.receive_publish().text().parse().unwrap();
    let mut publisher = broker.publisher(V311);
    for _ in 0..10 {
        publisher.publish("count", 1, "x");
    }
    loop {
        let now: u64 = reader.receive_publish().text().parse().unwrap();
        if now >= before + 10 {
            assert_eq!(now, before + 10);
            break;
        }
    }
}

/// All values of one whole round that is published while the reader is there.
fn second_round(broker: &Broker) -> BTreeMap<String, String> {
    let mut reader = broker.subscriber(V311, "$SYS/#", 0);
    let mut values = BTreeMap::new();
    // Retained values first; then `version` or `time` comes again when a round begins, and again when it is over.
    let mut rounds = 0;
    while rounds < 3 {
        let message = reader.receive_publish();
        rounds += u32::from(message.topic == "$SYS/broker/time");
        let text = message.text();
        values.insert(message.topic, text);
    }
    values
}

/// `d` stands for a digit, everything else for itself.
fn matches_pattern(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text
            .chars()
            .zip(pattern.chars())
            .all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p })
}
