//! What is asked of every broker: of ours here, of mosquitto in `interop`.

use std::time::Duration;

use hbmqtt::client::{Client, ConnectOptions, PublishOptions, StateEvent};
use hbmqtt::proto::{ProtocolVersion, QoS, ReasonCode};

use crate::support::{Broker, PATIENCE, unique};

const QOS0: QoS = QoS::AtMostOnce;
const QOS1: QoS = QoS::AtLeastOnce;
const QOS2: QoS = QoS::ExactlyOnce;

/// Settings under which nothing waits for ever.
pub(crate) fn options(version: ProtocolVersion) -> ConnectOptions {
    ConnectOptions::new()
        .version(version)
        .connect_timeout(PATIENCE)
        .ack_timeout(PATIENCE)
        .reconnect_retries(None)
        .reconnect_max_interval(Duration::from_millis(50))
}

fn url(broker: &Broker) -> String {
    format!("mqtt://{}", broker.address())
}

/// CAPI-2, CAPI-6, CAPI-8, CAPI-9, CAPI-10, CAPI-13
#[test]
fn messages_of_every_qos_arrive_in_every_version() {
    let broker = Broker::start();
    for version in ProtocolVersion::ALL {
        every_qos(&url(&broker), &options(version));
    }
}

/// CAPI-7, PRO-9
#[test]
fn a_flood_arrives_complete_and_in_order() {
    let broker = Broker::start();
    for version in ProtocolVersion::ALL {
        floods(&url(&broker), &options(version), Order::Kept);
    }
}

#[test]
fn a_kept_session_goes_on() {
    let broker = Broker::start();
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        goes_on_with_its_session(&url(&broker), &options(version));
    }
}

/// SEED-3, CAPI-11, BUG-7: the broker is killed and another one starts on its port.
#[test]
fn the_client_comes_back_to_a_new_broker_and_subscribes_again() {
    for version in ProtocolVersion::ALL {
        let broker = Broker::start();
        let port = broker.port();
        comes_back(&options(version), broker, || {
            Broker::configured(&format!(
                "listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
            ))
        });
    }
}

/// CAPI-3, PRO-10: DISCONNECT, and dropping the client, are no failure; a second connection that takes over is.
#[test]
fn the_will_is_published_when_the_connection_is_taken_over_and_not_on_disconnect() {
    use hbmqtt::client::{StateEvent, WillOptions};
    let broker = Broker::start();
    let url = url(&broker);
    let watcher = options(ProtocolVersion::V311).connect(&url).unwrap();
    watcher.subscribe([("will/#", QOS1)]).unwrap();
    let with_will = |topic: &str| {
        options(ProtocolVersion::V311)
            .client_id("willing")
            .auto_reconnect(false)
            .will(WillOptions::new(topic).payload("gone").qos(QOS1))
    };
    with_will("will/disconnected")
        .connect(&url)
        .unwrap()
        .disconnect()
        .unwrap();
    drop(with_will("will/dropped").connect(&url).unwrap());
    let first = with_will("will/taken/over").connect(&url).unwrap();
    let events = first.events();
    let second = with_will("will/second").connect(&url).unwrap();
    let message = watcher.recv_timeout(PATIENCE).unwrap();
    assert_eq!(message.topic(), "will/taken/over");
    assert_eq!(message.payload(), "gone");
    let lost = events.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(lost, StateEvent::ConnectionLost { .. }),
        "{lost:?}"
    );
    assert!(first.recv().is_err());
    second.disconnect().unwrap();
    assert!(watcher.try_recv().unwrap().is_none());
}

/// BUG-25, CC-5, PRO-12
#[test]
fn wrong_credentials_fail_at_once_with_the_return_code() {
    let broker = Broker::with("auth:\n  allow-anonymous: false\n  password-file: '/dev/null'\n");
    for (version, code) in [
        (ProtocolVersion::V31, [4, 5]),
        (ProtocolVersion::V311, [4, 5]),
        (ProtocolVersion::V5, [0x86, 0x87]),
    ] {
        let error = options(version)
            .credentials("nobody", "wrong")
            .connect(&url(&broker))
            .map(|_| ())
            .unwrap_err();
        let found = error.return_code();
        assert!(found.is_some_and(|found| code.contains(&found)), "{error}");
    }
}

/// CAPI-11: keep-alive holds an idle connection, in both directions.
#[test]
fn an_idle_client_stays_connected() {
    let broker = Broker::start();
    let client = options(ProtocolVersion::V311)
        .keep_alive(Duration::from_secs(2))
        .connect(&url(&broker))
        .unwrap();
    let events = client.events();
    // Longer than the 3 s after which the broker gives a silent client up.
    let event = events.recv_timeout(Duration::from_secs(4));
    assert!(event.is_err(), "{event:?}");
    client.ping(PATIENCE).unwrap();
}

/// Publishes and receives at each pair of QoS, with empty and large payloads, retained and not.
pub(crate) fn every_qos(url: &str, options: &ConnectOptions) {
    let client = options.clone().connect(url).unwrap();
    let base = format!("round/{}", unique());
    for granted in QoS::ALL {
        let filter = format!("{base}/{}/+", granted.as_u8());
        let reasons = client.subscribe([(&filter, granted)]).unwrap();
        assert_eq!(reasons, [ReasonCode::from_u8(granted.as_u8()).unwrap()]);
        for published in QoS::ALL {
            let topic = format!("{base}/{}/{}", granted.as_u8(), published.as_u8());
            for payload in [Vec::new(), vec![7; 10], vec![9; 200_000]] {
                client.publish(&topic, &payload, published).unwrap();
                let message = client.recv_timeout(PATIENCE).unwrap();
                assert_eq!(message.topic(), topic);
                assert!(message.payload() == &payload);
                assert_eq!(message.qos(), published.min(granted)); // PRO-1
                assert!(!message.retain());
            }
        }
        assert_eq!(client.unsubscribe([&filter]).unwrap().len(), 1);
        client
            .publish(&filter.replace('+', "x"), "unseen", QOS2)
            .unwrap();
    }
    let kept = format!("{base}/kept");
    let retained = PublishOptions::new().qos(QOS1).retain(true);
    client.publish(&kept, "kept", retained.clone()).unwrap();
    client.subscribe([(&kept, QOS2)]).unwrap();
    let message = client.recv_timeout(PATIENCE).unwrap();
    assert!(message.retain() && message.payload() == "kept");
    client.publish(&kept, "", retained).unwrap();
    client.recv_timeout(PATIENCE).unwrap();
    assert!(client.try_recv().unwrap().is_none());
    assert_eq!(client.in_flight(), 0);
    client.disconnect().unwrap();
}

/// Whether a broker keeps the order of the messages of one publisher and topic. [MQTT311-4.6.0-6]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Kept,
    /// Mosquitto 2.0 lets new messages overtake those that wait for room in the receiver's window.
    NotKept,
}

/// Thousands of messages without waiting, from two threads, received by another client: each once, in order.
pub(crate) fn floods(url: &str, options: &ConnectOptions, order: Order) {
    const MESSAGES: u32 = 3000;
    let base = format!("flood/{}", unique());
    let receiver = options.clone().connect(url).unwrap();
    receiver.subscribe([(format!("{base}/#"), QOS2)]).unwrap();
    let sender = options.clone().connect(url).unwrap();
    std::thread::scope(|threads| {
        for qos in [QOS1, QOS2] {
            let (sender, base) = (&sender, &base);
            threads.spawn(move || {
                let topic = format!("{base}/{}", qos.as_u8());
                let tokens: Vec<_> = (0..MESSAGES)
                    .map(|number| sender.publish_nowait(&topic, &number.to_be_bytes(), qos))
                    .collect();
                for token in tokens {
                    token.unwrap().wait_timeout(PATIENCE).unwrap();
                }
            });
        }
        let mut arrived = [Vec::new(), Vec::new()];
        for _ in 0..2 * MESSAGES {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            let number = u32::from_be_bytes(message.payload()[..].try_into().unwrap());
            arrived[usize::from(message.qos() == QOS2)].push(number);
        }
        for mut of_qos in arrived {
            if order == Order::NotKept {
                of_qos.sort_unstable();
            }
            assert!(of_qos.into_iter().eq(0..MESSAGES));
        }
    });
    assert!(receiver.try_recv().unwrap().is_none());
}

/// Messages that come while a client with a kept session is away arrive when it is back, in order and once.
pub(crate) fn goes_on_with_its_session(url: &str, options: &ConnectOptions) {
    const MESSAGES: usize = 50;
    let topic = format!("session/{}", unique());
    let kept = options
        .clone()
        .client_id(format!("kept-{}", unique()))
        .clean_start(false);
    let client = kept.clone().connect(url).unwrap();
    assert!(!client.connect_result().session_present);
    client.subscribe([(&topic, QOS2)]).unwrap();
    client.disconnect().unwrap();

    let sender = options.clone().connect(url).unwrap();
    for number in 0..MESSAGES {
        sender.publish(&topic, number.to_string(), QOS2).unwrap();
    }
    let client = kept.clone().connect(url).unwrap();
    assert!(client.connect_result().session_present);
    // A program that takes only half of them and ends: the rest is still the server's.
    let first: Vec<String> = take(&client, MESSAGES / 2);
    client.disconnect().unwrap();
    let client = kept.clone().connect(url).unwrap();
    let rest = take(&client, MESSAGES - first.len());
    let all: Vec<usize> = first
        .iter()
        .chain(&rest)
        .map(|payload| payload.parse().unwrap())
        .collect();
    assert_eq!(all, (0..MESSAGES).collect::<Vec<_>>());
    client.unsubscribe([&topic]).unwrap();
    client.disconnect().unwrap();
    kept.clean_start(true)
        .connect(url)
        .unwrap()
        .disconnect()
        .unwrap();
}

fn take(client: &Client, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| {
            let message = client.recv_timeout(PATIENCE).unwrap();
            String::from_utf8(message.payload().to_vec()).unwrap()
        })
        .collect()
}

/// The broker dies with messages in flight; another one starts on its port. Subscriptions are made again and every
/// publication is acknowledged.
pub(crate) fn comes_back(
    options: &ConnectOptions,
    broker: Broker,
    restart: impl FnOnce() -> Broker,
) {
    const MESSAGES: usize = 500;
    let url = format!("mqtt://{}", broker.address());
    let receiver = options.clone().connect(&url).unwrap();
    let events = receiver.events();
    receiver.subscribe([("comes/back/#", QOS1)]).unwrap();
    let sender = options.clone().connect(&url).unwrap();
    let tokens: Vec<_> = (0..MESSAGES)
        .map(|number| {
            if number == MESSAGES / 2 {
                sender.publish("comes/back", "before", QOS0).unwrap();
            }
            sender.publish_nowait("comes/back/early", number.to_string(), QOS1)
        })
        .collect();
    drop(broker);
    let _broker = restart();
    for token in tokens {
        token.unwrap().wait_timeout(PATIENCE).unwrap();
    }
    let back = || {
        std::iter::from_fn(|| events.recv_timeout(PATIENCE).ok())
            .any(|event| matches!(event, StateEvent::Connected { .. }))
    };
    assert!(back(), "the receiver did not come back");
    // It is subscribed again at the latest when its own request is answered.
    receiver.subscribe([("comes/back/again", QOS1)]).unwrap();
    sender.publish("comes/back/late", "late", QOS1).unwrap();
    let is_late = |topic: &str| topic == "comes/back/late";
    while !is_late(receiver.recv_timeout(PATIENCE).unwrap().topic()) {}
}
