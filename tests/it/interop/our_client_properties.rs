//! Our client through a real mosquitto with each property of MQTT 5.0 (issue 3, must show 2).

use std::time::Duration;

use hbmqtt::client::{
    ConnectOptions, DisconnectOptions, PublishOptions, ReceivedMessage, SubscribeOptions,
    Subscription, WillOptions,
};
use hbmqtt::proto::packet::RetainHandling;
use hbmqtt::proto::packet::publish::PublishProperties;
use hbmqtt::{Client, ProtocolVersion, QoS};

use super::is_on;
use crate::client::requests::{ask, responder};
use crate::support::{Broker, PATIENCE, eventually};

const QOS1: QoS = QoS::AtLeastOnce;
const QOS2: QoS = QoS::ExactlyOnce;

const OPEN: &str = "allow_anonymous true";

struct Mosquitto {
    _broker: Broker,
    url: String,
}

impl Mosquitto {
    /// `None`: these tests are off, and that was said.
    fn start(test: &str, settings: &str) -> Option<Self> {
        is_on(test).then(|| {
            let broker = Broker::mosquitto(&format!("{OPEN}\n{settings}"), "");
            let url = format!("mqtt://{}", broker.address());
            Self {
                _broker: broker,
                url,
            }
        })
    }

    fn connect(&self, options: ConnectOptions) -> Client {
        let client = options
            .ack_timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .connect(&self.url)
            .unwrap();
        assert_eq!(client.version(), ProtocolVersion::V5);
        client
    }

    fn client(&self) -> Client {
        self.connect(ConnectOptions::new())
    }
}

fn receive(client: &Client) -> ReceivedMessage {
    client.recv_timeout(PATIENCE).unwrap()
}

fn retained(qos: QoS) -> PublishOptions {
    PublishOptions::from(qos).retain(true)
}

/// Nothing but what was sent after `client` asked for it: the marker comes first.
fn expect_nothing(client: &Client, marker: &str) {
    client.publish(marker, "marker", QOS1).unwrap();
    assert_eq!(receive(client).topic(), marker);
}

/// User Properties in order, Content Type, Payload Format, Response Topic, Correlation Data.
#[test]
fn properties_of_messages_go_through_mosquitto() {
    let Some(mosquitto) = Mosquitto::start("properties_of_messages_go_through_mosquitto", "")
    else {
        return;
    };
    let client = mosquitto.client();
    client.subscribe([("p/#", QOS2)]).unwrap();
    for qos in QoS::ALL {
        let options = PublishOptions::from(qos)
            .user_property("b", "1")
            .user_property("a", "2")
            .user_property("b", "3")
            .content_type("text/plain")
            .utf8()
            .response_topic("p/answers")
            .correlation_data(&b"\x00\xff"[..]);
        client.publish("p/x", "text", options).unwrap();
        let message = receive(&client);
        let found: Vec<_> = message
            .user_properties()
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(found, [("b", "1"), ("a", "2"), ("b", "3")]);
        let properties = message.properties().unwrap();
        assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
        assert_eq!(properties.payload_format_utf8, Some(true));
        assert_eq!(properties.response_topic.as_deref(), Some("p/answers"));
        let correlation = properties.correlation_data.as_deref();
        assert_eq!(correlation, Some(&b"\x00\xff"[..]));
    }
}

/// Message Expiry: mosquitto counts it down, and sends what has expired to nobody.
#[test]
fn messages_expire_in_mosquitto() {
    let Some(mosquitto) = Mosquitto::start("messages_expire_in_mosquitto", "") else {
        return;
    };
    let client = mosquitto.client();
    let expiring = |seconds| retained(QOS1).message_expiry(Duration::from_secs(seconds));
    client.publish("e/short", "x", expiring(1)).unwrap();
    client.publish("e/long", "x", expiring(1000)).unwrap();
    client.publish("e/plain", "x", retained(QOS1)).unwrap();
    eventually("the message expires", || {
        client.subscribe([("e/+", QOS1)]).unwrap();
        let messages = [receive(&client), receive(&client)];
        client.publish("e/marker", "", QOS1).unwrap();
        let third = receive(&client);
        if third.topic() != "e/marker" {
            assert_eq!(receive(&client).topic(), "e/marker");
            return Err("not yet".to_owned());
        }
        let topics: Vec<_> = messages.iter().map(ReceivedMessage::topic).collect();
        assert_eq!(topics, ["e/long", "e/plain"]);
        let left = messages[0].properties().unwrap().message_expiry_interval;
        assert!(left.is_some_and(|seconds| seconds < 1000), "{left:?}");
        Ok(())
    });
}

/// Subscription Identifiers, several on overlapping subscriptions; No Local; Retain As Published.
#[test]
fn subscriptions_carry_identifiers_and_options_through_mosquitto() {
    let Some(mosquitto) = Mosquitto::start(
        "subscriptions_carry_identifiers_and_options_through_mosquitto",
        "",
    ) else {
        return;
    };
    let (client, other) = (mosquitto.client(), mosquitto.client());
    for (filter, identifier) in [("s/#", 7), ("s/+", 300_000)] {
        let options = SubscribeOptions::new().identifier(identifier);
        client.subscribe_with([(filter, QOS1)], options).unwrap();
    }
    other.publish("s/x", "x", QOS1).unwrap();
    let mut found: Vec<u32> = Vec::new();
    while found.len() < 2 {
        let message = receive(&client);
        found.extend(
            message
                .properties()
                .unwrap()
                .subscription_identifiers
                .iter(),
        );
    }
    found.sort_unstable();
    assert_eq!(found, [7, 300_000]);

    let no_local = Subscription::new("n/#", QOS1).no_local();
    let marker = Subscription::new("marker/1", QOS1);
    client.subscribe([no_local, marker]).unwrap();
    client.publish("n/mine", "x", QOS1).unwrap();
    expect_nothing(&client, "marker/1");
    other.publish("n/theirs", "x", QOS1).unwrap();
    assert_eq!(receive(&client).topic(), "n/theirs");

    let as_published = Subscription::new("r/kept", QOS1).retain_as_published();
    let plain = Subscription::new("r/cleared", QOS1);
    client.subscribe([as_published, plain]).unwrap();
    for (topic, expected) in [("r/kept", true), ("r/cleared", false)] {
        other.publish(topic, "x", retained(QOS1)).unwrap();
        let message = receive(&client);
        assert_eq!((message.topic(), message.retain()), (topic, expected));
    }
}

#[test]
fn retain_handling_is_obeyed_by_mosquitto() {
    let Some(mosquitto) = Mosquitto::start("retain_handling_is_obeyed_by_mosquitto", "") else {
        return;
    };
    let client = mosquitto.client();
    client.publish("k/x", "kept", retained(QOS1)).unwrap();
    client.subscribe([("marker/#", QOS1)]).unwrap();
    let subscribe = |handling| {
        let subscription = Subscription::new("k/x", QOS1).retain_handling(handling);
        client.subscribe([subscription]).unwrap();
    };
    subscribe(RetainHandling::Never);
    expect_nothing(&client, "marker/1");
    client.unsubscribe(["k/x"]).unwrap();
    subscribe(RetainHandling::IfNew);
    assert_eq!(receive(&client).topic(), "k/x");
    subscribe(RetainHandling::IfNew);
    expect_nothing(&client, "marker/2");
    subscribe(RetainHandling::Always);
    assert_eq!(receive(&client).topic(), "k/x");
}

/// Topic Aliases both ways: the client makes them by itself, or uses the one it is told.
#[test]
fn topic_aliases_are_used_with_mosquitto() {
    let Some(mosquitto) =
        Mosquitto::start("topic_aliases_are_used_with_mosquitto", "max_topic_alias 3")
    else {
        return;
    };
    let client = mosquitto.connect(ConnectOptions::new().topic_alias_maximum(4));
    let result = client.connect_result();
    assert_eq!(result.properties.topic_alias_maximum, Some(3));
    client.subscribe([("aliased/#", QOS1)]).unwrap();
    for round in 0..3 {
        for topic in 0..6 {
            let topic = format!("aliased/topic/{topic}");
            let payload = round.to_string();
            client.publish(&topic, &payload, QOS1).unwrap();
            let message = receive(&client);
            assert_eq!(message.topic(), topic);
            assert_eq!(message.payload().as_ref(), payload.as_bytes());
        }
    }
    let chosen = PublishOptions::from(QOS1).topic_alias(2);
    for payload in ["first", "second"] {
        client
            .publish("aliased/chosen", payload, chosen.clone())
            .unwrap();
        assert_eq!(receive(&client).topic(), "aliased/chosen");
    }
    let beyond = PublishOptions::from(QOS1).topic_alias(4);
    assert!(client.publish("aliased/beyond", "", beyond).is_err());
}

/// The server's Receive Maximum, Maximum Packet Size both ways, and Maximum QoS.
#[test]
fn limits_are_kept_on_both_sides_with_mosquitto() {
    let Some(mosquitto) = Mosquitto::start(
        "limits_are_kept_on_both_sides_with_mosquitto",
        "max_inflight_messages 3\nmax_packet_size 2000\nmax_qos 1",
    ) else {
        return;
    };
    let client = mosquitto.connect(ConnectOptions::new().max_packet_bytes(1000));
    let properties = client.connect_result().properties;
    assert_eq!(properties.receive_maximum, Some(3));
    assert_eq!(properties.maximum_qos, Some(QOS1));
    client.subscribe([("l/#", QOS1)]).unwrap();
    let tokens: Vec<_> = (0..50)
        .map(|number| client.publish_nowait("l/x", number.to_string(), QOS1))
        .collect();
    assert!(client.in_flight() <= 3);
    for token in tokens {
        token.unwrap().wait_timeout(PATIENCE).unwrap();
    }
    for number in 0..50 {
        let payload = receive(&client).payload().clone();
        assert_eq!(payload.as_ref(), number.to_string().as_bytes());
    }
    let refused = |result: Result<_, hbmqtt::client::ClientError>| {
        let error = result.map(|_: hbmqtt::client::Published| ()).unwrap_err();
        matches!(error, hbmqtt::client::ClientError::NotAvailable(_))
    };
    assert!(refused(client.publish("l/x", vec![0; 3000], QOS1)));
    assert!(refused(client.publish("l/x", "", QOS2)));
    // Larger than this client takes: it is not sent to it, and nothing else is lost.
    client.publish("l/large", vec![0; 1500], QOS1).unwrap();
    client.publish("l/small", "", QOS1).unwrap();
    assert_eq!(receive(&client).topic(), "l/small");
}

/// Mosquitto 2.0.11 sends two messages for each that is acknowledged while more wait, and so more than it may.
#[test]
fn a_slow_program_gets_all_that_waits_in_mosquitto() {
    let Some(mosquitto) = Mosquitto::start(
        "a_slow_program_gets_all_that_waits_in_mosquitto",
        "max_queued_messages 0",
    ) else {
        return;
    };
    const MESSAGES: usize = 1000;
    let (client, other) = (mosquitto.client(), mosquitto.client());
    client.subscribe([("slow", QOS1)]).unwrap();
    let tokens: Vec<_> = (0..MESSAGES)
        .map(|number| other.publish_nowait("slow", number.to_string(), QOS1))
        .collect();
    for token in tokens {
        token.unwrap().wait_timeout(PATIENCE).unwrap();
    }
    for number in 0..MESSAGES {
        let message = receive(&client);
        assert_eq!(message.payload().as_ref(), number.to_string().as_bytes());
    }
}

/// Session Expiry, at CONNECT and as DISCONNECT changes it.
#[test]
fn sessions_are_kept_by_mosquitto_as_long_as_told() {
    let Some(mosquitto) = Mosquitto::start("sessions_are_kept_by_mosquitto_as_long_as_told", "")
    else {
        return;
    };
    let kept = || {
        ConnectOptions::new()
            .client_id("kept")
            .clean_start(false)
            .session_expiry(Duration::from_secs(1000))
    };
    let client = mosquitto.connect(kept());
    assert!(!client.connect_result().session_present);
    client.subscribe([("w/#", QOS1)]).unwrap();
    client.disconnect().unwrap();
    mosquitto.client().publish("w/x", "waits", QOS1).unwrap();
    let client = mosquitto.connect(kept());
    assert!(client.connect_result().session_present);
    assert_eq!(receive(&client).topic(), "w/x");
    // The end of the session at once.
    let now = DisconnectOptions::new().session_expiry(Duration::ZERO);
    client.disconnect_with(now).unwrap();
    let client = mosquitto.connect(kept());
    assert!(!client.connect_result().session_present);
}

/// Will Delay: the Will comes later, with its properties, and not at all when the client is back before.
#[test]
fn wills_wait_in_mosquitto() {
    let Some(mosquitto) = Mosquitto::start("wills_wait_in_mosquitto", "") else {
        return;
    };
    let watcher = mosquitto.client();
    watcher.subscribe([("will/#", QOS1)]).unwrap();
    let with_will = |topic: &str, delay: u64| {
        let properties = PublishProperties {
            content_type: Some("text/will".into()),
            user_properties: vec![("why".into(), "gone".into())],
            message_expiry_interval: Some(100),
            ..PublishProperties::default()
        };
        let will = WillOptions::new(topic)
            .qos(QOS1)
            .delay(Duration::from_secs(delay))
            .properties(properties);
        ConnectOptions::new()
            .client_id("mortal")
            .session_expiry(Duration::from_secs(1000))
            .will(will)
    };
    let as_it_dies = || DisconnectOptions::new().publish_will();
    // Back in time: this Will is never published.
    let client = mosquitto.connect(with_will("will/late", 1000));
    client.disconnect_with(as_it_dies()).unwrap();
    let client = mosquitto.connect(with_will("will/soon", 1).clean_start(false));
    client.disconnect_with(as_it_dies()).unwrap();
    let will = receive(&watcher);
    assert_eq!(will.topic(), "will/soon");
    let properties = will.properties().unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("text/will"));
    assert_eq!(will.user_properties(), [("why".into(), "gone".into())]);
}

/// Shared subscriptions: each message to one member.
#[test]
fn shared_subscriptions_share_in_mosquitto() {
    let Some(mosquitto) = Mosquitto::start("shared_subscriptions_share_in_mosquitto", "") else {
        return;
    };
    let members = [mosquitto.client(), mosquitto.client()];
    for member in &members {
        member.subscribe([("$share/group/j/#", QOS1)]).unwrap();
    }
    let publisher = mosquitto.client();
    for number in 0..20 {
        publisher.publish("j/x", number.to_string(), QOS1).unwrap();
    }
    let mut shares = [0, 0];
    eventually("all are delivered", || {
        for (member, share) in members.iter().zip(&mut shares) {
            while member.try_recv().unwrap().is_some() {
                *share += 1;
            }
        }
        let [one, other] = shares;
        if one + other == 20 {
            Ok(())
        } else {
            Err("some are missing".to_owned())
        }
    });
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[test]
fn requests_are_answered_through_mosquitto() {
    let Some(mosquitto) = Mosquitto::start("requests_are_answered_through_mosquitto", "") else {
        return;
    };
    let _responder = responder(&mosquitto.url);
    ask(&mosquitto.url);
}

/// Assigned Client Identifier, User Properties and Request Problem Information in CONNECT.
#[test]
fn mosquitto_assigns_client_identifiers() {
    let Some(mosquitto) = Mosquitto::start("mosquitto_assigns_client_identifiers", "") else {
        return;
    };
    let options = ConnectOptions::new()
        .client_id("")
        .user_property("who", "me")
        .request_problem_information(false);
    let client = mosquitto.connect(options);
    let assigned = client.client_id();
    assert!(!assigned.is_empty());
    client.disconnect().unwrap();
    client.reconnect(None).unwrap();
    assert_eq!(client.client_id(), assigned);
}
