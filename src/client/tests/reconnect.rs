//! Lost connections: what is sent again, what is asked again, and when it is over.

use super::server::{DEADLINE, id, message, ok, serve};
use super::*;

/// [MQTT-4.4.0-1], [MQTT-3.3.1-1]
#[test]
fn in_flight_messages_are_sent_again_with_dup_to_the_same_session() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let first = [peer.publish(), peer.publish(), peer.publish()];
        let released = first[2].packet_id.unwrap();
        peer.send(&Packet::Pubrec(ok(released)));
        assert_eq!(peer.receive(), Packet::Pubrel(ok(released)));
        drop(peer);
        let (mut peer, connect) = server.welcome(true);
        assert!(!connect.clean_start);
        let again = [peer.publish(), peer.publish()];
        for (first, again) in first.iter().zip(&again) {
            assert!(again.dup && !first.dup);
            assert_eq!(again.packet_id, first.packet_id);
            assert_eq!(again.payload, first.payload);
        }
        assert_eq!(peer.receive(), Packet::Pubrel(ok(released)));
        peer.send(&Packet::Puback(ok(again[0].packet_id.unwrap())));
        let id = again[1].packet_id.unwrap();
        peer.send(&Packet::Pubrec(ok(id)));
        assert_eq!(peer.receive(), Packet::Pubrel(ok(id)));
        peer.send(&Packet::Pubcomp(ok(id)));
        peer.send(&Packet::Pubcomp(ok(released)));
        peer.until_end();
    });
    let client = options().clean_start(false).connect(&url).unwrap();
    let tokens = [
        client.publish_nowait("a", "1", QOS1).unwrap(),
        client.publish_nowait("a", "2", QOS2).unwrap(),
        client.publish_nowait("a", "3", QOS2).unwrap(),
    ];
    for token in tokens {
        token.wait_timeout(DEADLINE).unwrap();
    }
    drop(client);
    server.join().unwrap();
}

/// BUG-7, CAPI-11
#[test]
fn without_a_session_filters_are_subscribed_again() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.subscribe();
        peer.subscribe();
        let Packet::Unsubscribe(unsubscribe) = peer.receive() else {
            panic!("expected UNSUBSCRIBE");
        };
        peer.send(&Packet::Unsuback(Box::new(
            crate::proto::packet::Unsuback {
                packet_id: unsubscribe.packet_id,
                reasons: vec![ReasonCode::Success],
                properties: None,
            },
        )));
        peer.publish();
        drop(peer);
        let (mut peer, _) = server.welcome(false);
        let again = peer.subscribe();
        let publish = peer.take_qos1();
        assert!(!publish.dup, "it is new to this server");
        peer.send(&message(QOS0, 0, "after"));
        peer.until_end();
        again.filters
    });
    let client = options().connect(&url).unwrap();
    client.subscribe([("a", QOS0), ("b/#", QOS1)]).unwrap();
    client.subscribe([("c", QOS2)]).unwrap();
    client.unsubscribe(["a"]).unwrap();
    client.publish("x", "y", QOS1).unwrap();
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "after");
    drop(client);
    let again: Vec<_> = server
        .join()
        .unwrap()
        .into_iter()
        .map(|(filter, options)| (filter.to_string(), options.qos))
        .collect();
    assert_eq!(again, [("b/#".to_owned(), QOS1), ("c".to_owned(), QOS2)]);
}

#[test]
fn with_a_session_nothing_is_subscribed_again() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.subscribe();
        drop(peer);
        let (mut peer, _) = server.welcome(true);
        peer.send(&message(QOS0, 0, "after"));
        peer.until_end()
    });
    let client = options().clean_start(false).connect(&url).unwrap();
    client.subscribe([("a", QOS0)]).unwrap();
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "after");
    assert!(client.connect_result().session_present);
    drop(client);
    assert!(matches!(
        server.join().unwrap(),
        Some(Packet::Disconnect(_))
    ));
}

/// A request whose answer was lost with the connection is made again.
#[test]
fn subscribe_survives_the_connection() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        assert!(matches!(peer.receive(), Packet::Subscribe(_)));
        drop(peer);
        let (mut peer, _) = server.welcome(false);
        peer.subscribe();
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    let granted = client.subscribe([("a", QOS1)]).unwrap();
    assert_eq!(granted, [ReasonCode::GrantedQos1]);
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_qos2_message_that_was_taken_is_not_delivered_again_after_a_reconnect() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.send(&message(QOS2, 5, "taken"));
        peer.send(&message(QOS2, 6, "left"));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(5))));
        drop(peer);
        let (mut peer, _) = server.welcome(true);
        // The server did not get PUBREC, and does not know what the program took.
        peer.send(&message(QOS2, 5, "taken"));
        peer.send(&message(QOS2, 6, "left"));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(5))));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(6))));
        peer.send(&message(QOS0, 0, "last"));
        peer.until_end();
    });
    let client = options().clean_start(false).connect(&url).unwrap();
    let events = client.events();
    assert_eq!(text(&client.recv().unwrap()), "taken");
    while !matches!(
        events.recv_timeout(DEADLINE).unwrap(),
        StateEvent::Connected { .. }
    ) {}
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "left");
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "last");
    drop(client);
    server.join().unwrap();
}

/// CAPI-12, BUG-25
#[test]
fn a_missing_pingresp_means_a_dead_connection() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        assert_eq!(peer.receive(), Packet::Pingreq);
        assert_eq!(peer.try_receive().unwrap(), None, "the client gives it up");
        let (mut peer, _) = server.welcome(false);
        peer.until_end();
    });
    let client = options()
        .keep_alive(Duration::from_secs(2))
        .ping_delay(Duration::from_secs(1))
        .ping_timeout(Duration::from_millis(50))
        .connect(&url)
        .unwrap();
    let events = client.events();
    let lost = events.recv_timeout(DEADLINE).unwrap();
    assert!(
        matches!(
            lost,
            StateEvent::ConnectionLost {
                error: ClientError::Timeout(Phase::Pingresp)
            }
        ),
        "{lost:?}"
    );
    assert!(matches!(
        events.recv_timeout(DEADLINE).unwrap(),
        StateEvent::Reconnecting { .. }
    ));
    assert!(matches!(
        events.recv_timeout(DEADLINE).unwrap(),
        StateEvent::Connected {
            session_present: false
        }
    ));
    drop(client);
    server.join().unwrap();
}

/// DEC-22, CAPI-6
#[test]
fn what_waits_fails_when_reconnecting_is_given_up() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.publish();
    });
    let client = options().reconnect_retries(Some(1)).connect(&url).unwrap();
    let events = client.events();
    let error = client.publish("a", "b", QOS1).unwrap_err();
    assert!(
        matches!(error, ClientError::WillNotReconnect(_)),
        "{error:?}"
    );
    for call in [
        client.recv().map(|_| ()).unwrap_err(),
        client.publish("a", "b", QOS0).map(|_| ()).unwrap_err(),
        client.subscribe([("a", QOS0)]).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(call, ClientError::WillNotReconnect(_)), "{call:?}");
    }
    assert_eq!(client.state(), ClientState::Disconnected);
    let last = std::iter::from_fn(|| events.recv_timeout(Duration::from_secs(1)).ok())
        .find(|event| matches!(event, StateEvent::Disconnected { .. }));
    assert!(matches!(
        last,
        Some(StateEvent::Disconnected { error: Some(_) })
    ));
    server.join().unwrap();
}

#[test]
fn without_auto_reconnect_a_lost_connection_is_the_end() {
    let (url, server) = serve(|server| drop(server.welcome(false)));
    let client = options().auto_reconnect(false).connect(&url).unwrap();
    let error = client.recv().unwrap_err();
    assert!(matches!(error, ClientError::ConnectionLost), "{error:?}");
    server.join().unwrap();
}

#[test]
fn credentials_that_are_refused_later_end_the_attempts() {
    let (url, server) = serve(|server| {
        drop(server.welcome(false));
        server
            .welcome_with(Connack::new(false, ReasonCode::NotAuthorized))
            .0
            .until_end();
    });
    let client = options().reconnect_retries(None).connect(&url).unwrap();
    let error = client.recv().unwrap_err();
    assert_eq!(error.return_code(), Some(0x87), "{error:?}");
    server.join().unwrap();
}

/// CAPI-4
#[test]
fn reconnect_connects_again_after_a_disconnect() {
    let (url, server) = serve(|server| {
        let (mut peer, connect) = server.welcome(false);
        assert!(connect.clean_start);
        assert!(matches!(peer.receive(), Packet::Disconnect(_)));
        let (mut peer, connect) = server.welcome(true);
        assert!(!connect.clean_start);
        peer.take_qos1();
        peer.send(&message(QOS0, 0, "again"));
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    client.disconnect().unwrap();
    let result = client.reconnect(Some(false)).unwrap();
    assert!(result.session_present);
    client.reconnect(None).unwrap(); // a warning, no error
    client.publish("a", "b", QOS1).unwrap();
    assert_eq!(text(&client.recv().unwrap()), "again");
    drop(client);
    server.join().unwrap();
}

#[test]
fn reconnect_cuts_the_pause_short() {
    let (url, server) = serve(|server| {
        drop(server.welcome(false));
        let busy = Connack::new(false, ReasonCode::ServerUnavailable);
        drop(server.welcome_with(busy));
        server.welcome(false).0.until_end();
    });
    let client = options()
        .reconnect_max_interval(Duration::from_secs(1))
        .connect(&url)
        .unwrap();
    while client.state() == ClientState::Connected {
        std::thread::yield_now();
    }
    client.reconnect(None).unwrap();
    assert_eq!(client.state(), ClientState::Connected);
    drop(client);
    server.join().unwrap();
}

#[test]
fn publications_wait_for_the_connection_to_come_back() {
    let (url, server) = serve(|server| {
        drop(server.welcome(false));
        let (mut peer, _) = server.welcome(false);
        assert_eq!(peer.publish().payload, "zero");
        assert_eq!(peer.take_qos1().payload, "one");
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    while client.state() == ClientState::Connected {
        std::thread::yield_now();
    }
    client.publish("a", "zero", QOS0).unwrap();
    client.publish("a", "one", QOS1).unwrap();
    drop(client);
    server.join().unwrap();
}
