//! What ends by itself in MQTT 5.0: sessions, messages, and the delay of a will.

use std::time::{Duration, Instant};

use crate::support::packet::disconnect;
use crate::support::*;

/// CONNECT that resumes, with this Session Expiry Interval.
fn resuming(client_id: &str, expiry: u32) -> Connect {
    let mut connect = Connect::new(V5, client_id).property(Property::Four(0x11, expiry));
    connect.clean = false;
    connect
}

fn leave(mut client: Client, expiry: u32) {
    client.send(disconnect(0, &[Property::Four(0x11, expiry)]));
    client.expect_end();
}

/// MQTT 5.0 §3.14.2.2.2: DISCONNECT sets another Session Expiry Interval, 0 included.
#[test]
fn disconnect_changes_the_session_expiry() {
    let broker = Broker::start();
    leave(Client::connect_with(&broker, &resuming("longer", 1)), 100);
    leave(Client::connect_with(&broker, &resuming("never", 100)), 0);
    leave(Client::connect_with(&broker, &resuming("shorter", 100)), 1);
    assert!(!Client::connect_resuming(&broker, &resuming("never", 0)).1);
    let mut waiting = Client::connect(&broker, V5);
    assert_eq!(waiting.receive_within(Duration::from_millis(2_200)), None);
    assert!(Client::connect_resuming(&broker, &resuming("longer", 0)).1);
    assert!(!Client::connect_resuming(&broker, &resuming("shorter", 0)).1);
}

/// [MQTT-3.14.2-2] is the client's; §3.14.2.2.2: from 0 to another one is a Protocol Error, and the will is sent.
#[test]
fn a_session_that_ends_with_its_connection_cannot_be_prolonged() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V5, "prolonged", 0);
    let connect = resuming("zero", 0).will(Publish::new("prolonged", 0, "will"));
    let mut client = Client::connect_with(&broker, &connect);
    client.send(disconnect(0, &[Property::Four(0x11, 5)]));
    assert_eq!(client.expect_close(), Some(0x82));
    assert_eq!(subscriber.receive_publish().text(), "will");
    assert!(!Client::connect_resuming(&broker, &resuming("zero", 0)).1);
    // 0 again is no change.
    leave(Client::connect_with(&broker, &resuming("zero", 0)), 0);
}

/// [MQTT-3.3.2-5], [MQTT-3.3.2-6]: a retained message counts down, and is gone when its time is over.
#[test]
fn a_retained_message_expires() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V5);
    let retained = |topic, seconds| {
        let property = Property::Four(0x02, seconds);
        Publish::new(topic, 1, "x").retain().property(property)
    };
    publisher.publish_packet(retained("kept/short", 1));
    publisher.publish_packet(retained("kept/long", 100));
    assert_eq!(publisher.receive_within(Duration::from_millis(2_100)), None);
    let mut subscriber = broker.subscriber(V5, "kept/+", 0);
    let message = subscriber.receive_publish();
    assert_eq!(message.topic, "kept/long");
    let [Property::Four(0x02, left)] = message.properties[..] else {
        panic!("{message:?}")
    };
    assert!((95..=99).contains(&left), "{left}");
    subscriber.expect_nothing(&mut publisher);
}

/// MQTT 5.0 §3.1.3.2.4: the lifetime of a will begins when it is sent, not when CONNECT comes.
#[test]
fn a_will_expires_after_it_was_sent() {
    let broker = Broker::start();
    let away = Connect::new(V5, "away").persistent();
    let mut subscriber = Client::connect_with(&broker, &away);
    subscriber.subscribe("wills/+", 1);
    subscriber.disconnect();
    for (topic, seconds) in [("wills/short", 1), ("wills/long", 100)] {
        let mut connect = Connect::new(V5, topic).will(Publish::new(topic, 1, "will"));
        connect.will_properties = vec![Property::Four(0x02, seconds)];
        let mut willing = Client::connect_with(&broker, &connect);
        assert_eq!(willing.receive_within(Duration::from_millis(1_200)), None);
        willing.cut();
    }
    let mut waiting = Client::connect(&broker, V5);
    assert_eq!(waiting.receive_within(Duration::from_millis(1_500)), None);
    let message = Client::connect_with(&broker, &away).receive_publish();
    assert_eq!(message.topic, "wills/long");
    let [Property::Four(0x02, left)] = message.properties[..] else {
        panic!("{message:?}")
    };
    assert!((97..=99).contains(&left), "{left}");
}

/// [MQTT-3.1.2-8], [MQTT-3.1.2-10], §3.1.3.2.2: a will is not delayed beyond the end of its session, and not at all without
/// a session that waits, or when its client begins a new one.
#[test]
fn a_will_is_sent_at_the_latest_when_its_session_ends() {
    let broker = Broker::start();
    let mut subscriber = broker.subscriber(V5, "delays/+", 1);
    let willing = |client_id: &str, expiry| {
        let topic = format!("delays/{client_id}");
        let mut connect = resuming(client_id, expiry).will(Publish::new(&topic, 1, "will"));
        connect.will_properties = vec![Property::Four(0x18, 100)];
        connect
    };
    Client::connect_with(&broker, &willing("none", 0)).cut();
    assert_eq!(subscriber.receive_publish().topic, "delays/none");
    Client::connect_with(&broker, &willing("new", 100)).cut();
    Client::connect_with(&broker, &Connect::new(V5, "new")).disconnect();
    assert_eq!(subscriber.receive_publish().topic, "delays/new");
    let start = Instant::now();
    Client::connect_with(&broker, &willing("ends", 1)).cut();
    assert_eq!(subscriber.receive_publish().topic, "delays/ends");
    assert!(start.elapsed() > Duration::from_millis(800));
    // DISCONNECT deletes it; DISCONNECT 0x04 does not.
    leave(Client::connect_with(&broker, &willing("deleted", 100)), 0);
    let mut client = Client::connect_with(&broker, &willing("kept", 100));
    client.send(disconnect(4, &[Property::Four(0x11, 0)]));
    assert_eq!(subscriber.receive_publish().topic, "delays/kept");
}
