//! MQTT 5.0: limits obeyed, reasons told.

use bytestring::ByteString;

use super::server::{ok, serve};
use super::*;
use crate::proto::ProtocolVersion;
use crate::proto::packet::Ack;
use crate::proto::packet::ack::AckProperties;
use crate::proto::packet::disconnect::Disconnect;

fn options5() -> ConnectOptions {
    options().version(ProtocolVersion::V5)
}

fn connack(change: impl FnOnce(&mut ConnackProperties)) -> Connack {
    let mut connack = Connack::new(false, ReasonCode::Success);
    change(&mut connack.properties);
    connack
}

/// [MQTT-3.2.2-11], [MQTT-3.2.2-14], [MQTT-3.2.2-15]
#[test]
fn what_the_server_does_not_offer_is_not_sent() {
    let (url, server) = serve(|server| {
        let limited = connack(|properties| {
            properties.maximum_qos = Some(QOS1);
            properties.retain_available = Some(false);
            properties.maximum_packet_size = Some(50);
            properties.wildcard_subscription_available = Some(false);
            properties.shared_subscription_available = Some(false);
            properties.subscription_identifiers_available = Some(false);
            properties.assigned_client_identifier = Some(ByteString::from_static("assigned"));
        });
        server.welcome_with(limited).0.until_end()
    });
    let client = options5().client_id("").connect(&url).unwrap();
    assert_eq!(client.client_id(), "assigned");
    let refused = |result: Result<_, ClientError>| match result {
        Err(ClientError::NotAvailable(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let published = |options: PublishOptions, payload: &str| {
        refused(client.publish("a", payload, options).map(|_| ()))
    };
    let subscribed = |filter: &str| refused(client.subscribe([(filter, QOS0)]).map(|_| ()));
    let options = PublishOptions::new;
    assert_eq!(
        published(options().qos(QOS2), "x"),
        ReasonCode::QosNotSupported
    );
    assert_eq!(
        published(options().retain(true), "x"),
        ReasonCode::RetainNotSupported
    );
    let long = "x".repeat(50);
    assert_eq!(
        published(options().qos(QOS0), &long),
        ReasonCode::PacketTooLarge
    );
    assert_eq!(
        published(options().qos(QOS1), &long),
        ReasonCode::PacketTooLarge
    );
    assert_eq!(
        subscribed("a/#"),
        ReasonCode::WildcardSubscriptionsNotSupported
    );
    assert_eq!(
        subscribed("$share/a/b"),
        ReasonCode::SharedSubscriptionsNotSupported
    );
    assert_eq!(subscribed(&long), ReasonCode::PacketTooLarge);
    let with_id = SubscribeOptions::new().identifier(1);
    assert_eq!(
        refused(client.subscribe_with([("a", QOS0)], with_id).map(|_| ())),
        ReasonCode::SubscriptionIdentifiersNotSupported
    );
    assert_eq!(client.in_flight(), 0);
    drop(client);
    let last = server.join().unwrap();
    assert!(matches!(last, Some(Packet::Disconnect(_))), "{last:?}");
}

#[test]
fn an_error_of_an_acknowledgement_is_the_error_of_the_call() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let refused = |id, reason| {
            let mut ack = Ack::new(id, reason);
            ack.properties = Some(Box::new(AckProperties {
                reason_string: Some(ByteString::from_static("no more")),
                ..AckProperties::default()
            }));
            ack
        };
        let id = peer.publish().packet_id.unwrap();
        peer.send(&Packet::Puback(refused(id, ReasonCode::QuotaExceeded)));
        let id = peer.publish().packet_id.unwrap();
        peer.send(&Packet::Pubrec(refused(id, ReasonCode::NotAuthorized)));
        let id = peer.publish().packet_id.unwrap();
        peer.send(&Packet::Puback(Ack::new(
            id,
            ReasonCode::NoMatchingSubscribers,
        )));
        peer.until_end();
    });
    let client = options5().connect(&url).unwrap();
    let error = client.publish("a", "b", QOS1).unwrap_err();
    assert_eq!(error.reason(), Some(ReasonCode::QuotaExceeded));
    assert!(error.to_string().ends_with(": no more"), "{error}");
    let error = client.publish("a", "b", QOS2).unwrap_err();
    assert_eq!(error.reason(), Some(ReasonCode::NotAuthorized));
    let published = client.publish("a", "b", QOS1).unwrap();
    assert_eq!(published.reason, ReasonCode::NoMatchingSubscribers);
    drop(client);
    server.join().unwrap();
}

/// [MQTT-3.3.4-9]
#[test]
fn the_servers_receive_maximum_is_the_window() {
    let (url, server) = serve(|server| {
        let narrow = connack(|properties| properties.receive_maximum = Some(1));
        let (mut peer, connect) = server.welcome_with(narrow);
        assert_eq!(connect.properties.receive_maximum, Some(256));
        for _ in 0..5 {
            let id = peer.publish().packet_id.unwrap();
            peer.socket
                .set_read_timeout(Some(Duration::from_millis(10)))
                .unwrap();
            assert!(peer.try_receive().is_err(), "more than one in flight");
            peer.socket.set_read_timeout(Some(DEADLINE)).unwrap();
            peer.send(&Packet::Puback(ok(id)));
        }
        peer.until_end();
    });
    let client = options5().connect(&url).unwrap();
    for _ in 0..5 {
        let _ = client.publish_nowait("a", "b", QOS1).unwrap();
    }
    while client.in_flight() > 0 {
        std::thread::yield_now();
    }
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_server_that_takes_the_session_elsewhere_is_not_connected_to_again() {
    let (url, server) = serve(|server| {
        let (peer, _) = server.welcome(false);
        let taken_over = Disconnect::new(ReasonCode::SessionTakenOver);
        peer.send(&Packet::Disconnect(Box::new(taken_over)));
        peer
    });
    let client = options5().connect(&url).unwrap();
    let error = client.recv().unwrap_err();
    assert_eq!(error.reason(), Some(ReasonCode::SessionTakenOver));
    server.join().unwrap();
}

#[test]
fn properties_travel_both_ways() {
    let (url, server) = serve(|server| {
        let (mut peer, connect) = server.welcome(false);
        let publish = peer.publish();
        peer.send(&Packet::Publish(Box::new(publish.clone())));
        peer.until_end();
        (connect, publish)
    });
    let client = options5()
        .session_expiry(Duration::from_secs(60))
        .user_property("who", "me")
        .connect(&url)
        .unwrap();
    let sent = PublishOptions::new()
        .message_expiry(Duration::from_secs(5))
        .content_type("text/plain")
        .response_topic("answers")
        .correlation_data("42")
        .user_property("a", "1")
        .user_property("a", "2")
        .utf8();
    client.publish("x", "y", sent).unwrap();
    let message = client.recv_timeout(DEADLINE).unwrap();
    let properties = message.properties().unwrap();
    assert_eq!(properties.message_expiry_interval, Some(5));
    assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(properties.response_topic.as_deref(), Some("answers"));
    assert_eq!(properties.correlation_data.as_deref(), Some(&b"42"[..]));
    assert_eq!(message.user_properties().len(), 2);
    drop(client);
    let (connect, _) = server.join().unwrap();
    assert_eq!(connect.properties.session_expiry_interval, Some(60));
    assert_eq!(connect.properties.user_properties.len(), 1);
}

/// Where a session outlives its connection, an automatic reconnect goes on with it.
#[test]
fn clean_start_holds_for_the_first_connection_of_a_kept_session() {
    let (url, server) = serve(|server| {
        let (peer, first) = server.welcome(false);
        drop(peer);
        let (mut peer, second) = server.welcome(true);
        peer.until_end();
        (first.clean_start, second.clean_start)
    });
    let client = options5()
        .session_expiry(Duration::from_secs(60))
        .connect(&url)
        .unwrap();
    let events = client.events();
    while !matches!(
        events.recv_timeout(DEADLINE).unwrap(),
        StateEvent::Connected { .. }
    ) {}
    drop(client);
    assert_eq!(server.join().unwrap(), (true, false));
}

#[test]
fn a_chosen_alias_is_sent_and_then_stands_for_the_topic() {
    let (url, server) = serve(|server| {
        let with_aliases = connack(|properties| properties.topic_alias_maximum = Some(10));
        let (mut peer, _) = server.welcome_with(with_aliases);
        let seen = [(); 2].map(|()| {
            let publish = peer.publish();
            let properties = publish.properties.unwrap();
            (publish.topic.to_string(), properties.topic_alias)
        });
        peer.until_end();
        seen
    });
    let client = options5().connect(&url).unwrap();
    let aliased = |alias| PublishOptions::from(QOS0).topic_alias(alias);
    client.publish("t", "1", aliased(9)).unwrap();
    client.publish("t", "2", aliased(9)).unwrap();
    let refused = client.publish("t", "3", aliased(11)).unwrap_err();
    assert_eq!(refused.reason(), Some(ReasonCode::TopicAliasInvalid));
    drop(client);
    let seen = server.join().unwrap();
    assert_eq!(seen, [("t".to_owned(), Some(9)), (String::new(), Some(9))]);
}

#[test]
fn the_goodbye_says_what_the_program_wants() {
    let (url, server) = serve(|server| server.welcome(false).0.until_end());
    let client = options5()
        .session_expiry(Duration::from_secs(60))
        .connect(&url)
        .unwrap();
    let options = DisconnectOptions::new()
        .publish_will()
        .session_expiry(Duration::from_secs(5))
        .reason_string("lunch")
        .user_property("a", "b");
    client.disconnect_with(options).unwrap();
    let Some(Packet::Disconnect(last)) = server.join().unwrap() else {
        panic!("no DISCONNECT");
    };
    assert_eq!(last.reason, ReasonCode::DisconnectWithWill);
    assert_eq!(last.properties.session_expiry_interval, Some(5));
    assert_eq!(last.properties.reason_string.as_deref(), Some("lunch"));
    assert_eq!(last.properties.user_properties.len(), 1);
}

#[test]
fn a_goodbye_that_cannot_be_said_is_refused() {
    let (url, server) = serve(|server| {
        let small = connack(|properties| properties.maximum_packet_size = Some(20));
        server.welcome_with(small).0.until_end()
    });
    let client = options5().connect(&url).unwrap();
    let longer = DisconnectOptions::new().session_expiry(Duration::from_secs(5));
    assert!(matches!(
        client.disconnect_with(longer),
        Err(ClientError::InvalidOption(_))
    ));
    let wordy = DisconnectOptions::new().reason_string("more than twenty bytes");
    let refused = client.disconnect_with(wordy).unwrap_err();
    assert_eq!(refused.reason(), Some(ReasonCode::PacketTooLarge));
    client.disconnect().unwrap();
    let last = server.join().unwrap();
    assert!(matches!(last, Some(Packet::Disconnect(_))), "{last:?}");
}

/// [MQTT-3.2.2-4]: the session is somebody else's.
#[test]
fn a_session_after_a_clean_start_ends_the_connection() {
    let (url, server) = serve(|server| {
        let (mut peer, connect) = server.welcome(true);
        (connect.clean_start, peer.until_end())
    });
    let options = options5().auto_reconnect(false);
    let error = options.connect(&url).map(drop).unwrap_err();
    let expected = crate::proto::ProtocolError::UnexpectedSession;
    assert!(matches!(error, ClientError::Protocol(found) if found == expected));
    let (clean_start, last) = server.join().unwrap();
    assert!(clean_start);
    let Some(Packet::Disconnect(disconnect)) = last else {
        panic!("expected DISCONNECT, got {last:?}");
    };
    assert_eq!(disconnect.reason, ReasonCode::ProtocolError);
}

/// [MQTT-3.2.2-16], [MQTT-3.2.2-21]: the assigned identifier is used again, and the server's keep alive holds.
#[test]
fn an_assigned_identifier_and_the_servers_keep_alive_are_used() {
    let (url, server) = serve(|server| {
        let first = connack(|properties| {
            properties.assigned_client_identifier = Some(ByteString::from_static("assigned"));
            properties.server_keep_alive = Some(1);
        });
        let (mut peer, connect) = server.welcome_with(first);
        assert_eq!((&*connect.client_id, connect.keep_alive), ("", 60));
        assert_eq!(peer.receive(), Packet::Pingreq);
        drop(peer);
        let (mut peer, connect) = server.welcome(false);
        assert_eq!(connect.client_id, "assigned");
        peer.until_end();
    });
    let client = options5()
        .client_id("")
        .keep_alive(Duration::from_secs(60))
        .connect(&url)
        .unwrap();
    assert_eq!(client.client_id(), "assigned");
    server.join().unwrap();
}

/// What is restored on a server with smaller limits is cut to them; what cannot be sent is told to who waits.
#[test]
fn limits_hold_for_what_is_asked_again() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.subscribe();
        let Packet::Subscribe(_) = peer.receive() else {
            panic!("expected SUBSCRIBE");
        };
        drop(peer);
        let narrow = connack(|properties| {
            properties.maximum_packet_size = Some(40);
            properties.wildcard_subscription_available = Some(false);
        });
        let (mut peer, _) = server.welcome_with(narrow);
        let mut filters = Vec::new();
        for _ in 0..3 {
            let subscribe = peer.subscribe();
            filters.extend(subscribe.filters.into_iter().map(|(filter, _)| filter));
        }
        peer.until_end();
        filters
    });
    let client = options5().connect(&url).unwrap();
    let long = "a/topic/of/24/characters";
    let lost = [long, "b/#", "c/topic/of/24/characters", "d"];
    client.subscribe(lost.map(|filter| (filter, QOS1))).unwrap();
    let error = client.subscribe([("later/#", QOS1)]).unwrap_err();
    let expected = ReasonCode::WildcardSubscriptionsNotSupported;
    assert!(matches!(error, ClientError::NotAvailable(reason) if reason == expected));
    client.subscribe([("e", QOS0)]).unwrap();
    drop(client);
    let filters = server.join().unwrap();
    assert_eq!(
        filters,
        [long, "c/topic/of/24/characters", "d", "e"][..filters.len()]
    );
}

#[test]
fn the_words_of_a_suback_are_told() {
    use crate::proto::packet::{Suback, Unsuback};
    let words = || {
        Some(Box::new(AckProperties {
            reason_string: Some(ByteString::from_static("why not")),
            ..AckProperties::default()
        }))
    };
    let (url, server) = serve(move |server| {
        let (mut peer, _) = server.welcome(false);
        let Packet::Subscribe(subscribe) = peer.receive() else {
            panic!("expected SUBSCRIBE");
        };
        peer.send(&Packet::Suback(Box::new(Suback {
            packet_id: subscribe.packet_id,
            reasons: vec![ReasonCode::QuotaExceeded],
            properties: words(),
        })));
        let Packet::Unsubscribe(unsubscribe) = peer.receive() else {
            panic!("expected UNSUBSCRIBE");
        };
        peer.send(&Packet::Unsuback(Box::new(Unsuback {
            packet_id: unsubscribe.packet_id,
            reasons: vec![ReasonCode::NoSubscriptionExisted],
            properties: words(),
        })));
        peer.until_end();
    });
    let client = options5().connect(&url).unwrap();
    let subscribed = client.subscribe_detailed([("a", QOS0)], SubscribeOptions::new());
    let unsubscribed = client.unsubscribe_detailed(["a"], SubscribeOptions::new());
    for (result, reason) in [
        (subscribed.unwrap(), ReasonCode::QuotaExceeded),
        (unsubscribed.unwrap(), ReasonCode::NoSubscriptionExisted),
    ] {
        assert_eq!(result.reasons, [reason]);
        let properties = result.properties.unwrap();
        assert_eq!(properties.reason_string.as_deref(), Some("why not"));
    }
    drop(client);
    server.join().unwrap();
}

/// [MQTT-3.3.4-9]: what the program has set is held against the server, the default is not.
#[test]
fn a_receive_maximum_that_was_set_is_enforced() {
    use super::server::message;
    let strict = options5().receive_maximum(2);
    for (options, sent, reason) in [
        (strict, 3, ReasonCode::ReceiveMaximumExceeded),
        (options5(), 300, ReasonCode::Success),
    ] {
        let (url, server) = serve(move |server| {
            let (mut peer, _) = server.welcome(false);
            for number in 1..=sent {
                peer.send(&message(QOS1, number, "x"));
            }
            peer.until_end()
        });
        let client = options.auto_reconnect(false).connect(&url).unwrap();
        if reason == ReasonCode::Success {
            for _ in 0..sent {
                client.recv_timeout(DEADLINE).unwrap();
            }
            client.disconnect().unwrap();
        }
        let last = server.join().unwrap();
        let Some(Packet::Disconnect(disconnect)) = last else {
            panic!("expected DISCONNECT, got {last:?}");
        };
        assert_eq!(disconnect.reason, reason);
    }
}
