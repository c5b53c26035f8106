//! Requests and responses: who gets which, and what becomes of those that nobody waits for.

use bytestring::ByteString;

use super::server::{Peer, id, message, ok, serve};
use super::*;
use crate::proto::packet::Ack;
use crate::proto::packet::publish::{Publish, PublishProperties};

/// The response that a responder would send.
fn response(request: &Publish, payload: &str) -> Packet {
    let properties = request.properties.as_ref().unwrap();
    Packet::Publish(Box::new(Publish {
        dup: false,
        qos: QOS0,
        retain: false,
        topic: properties.response_topic.clone().unwrap(),
        packet_id: None,
        properties: Some(Box::new(PublishProperties {
            correlation_data: properties.correlation_data.clone(),
            ..PublishProperties::default()
        })),
        payload: payload.to_owned().into(),
    }))
}

/// The one filter that the client subscribes to.
fn listening(peer: &mut Peer) -> ByteString {
    let [(filter, _)] = &peer.subscribe().filters[..] else {
        panic!("one filter");
    };
    filter.clone()
}

#[test]
fn each_of_many_threads_gets_its_own_response() {
    const THREADS: usize = 8;
    let (url, server) = serve(|server| {
        let (mut peer, connect) = server.welcome(false);
        let filter = listening(&mut peer);
        let requests: Vec<_> = (0..THREADS).map(|_| peer.publish()).collect();
        for request in requests.iter().rev() {
            let text = std::str::from_utf8(&request.payload).unwrap();
            peer.send(&response(request, &format!("re: {text}")));
        }
        peer.until_end();
        (connect, filter)
    });
    let client = options().connect(&url).unwrap();
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                let answer = client.request("ask", number.to_string(), DEADLINE).unwrap();
                assert_eq!(text(&answer), format!("re: {number}"));
            });
        }
    });
    assert_eq!(client.waiting_messages(), 0);
    drop(client);
    let (connect, filter) = server.join().unwrap();
    assert!(filter.starts_with("hbmqtt/response/test/"), "{filter}");
    assert_eq!(connect.properties.request_response_information, Some(true));
}

#[test]
fn a_late_response_is_dropped() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        listening(&mut peer);
        let first = peer.publish();
        let second = peer.publish();
        peer.send(&response(&first, "late"));
        peer.send(&response(&second, "in time"));
        // Another one, and one of nobody's.
        peer.send(&response(&second, "again"));
        peer.send(&message(QOS0, 0, "for the inbox"));
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    let error = client
        .request("ask", "1", Duration::from_millis(30))
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Timeout(Phase::Response)),
        "{error:?}"
    );
    let answer = client.request("ask", "2", DEADLINE).unwrap();
    assert_eq!(text(&answer), "in time");
    assert_eq!(
        text(&client.recv_timeout(DEADLINE).unwrap()),
        "for the inbox"
    );
    assert_eq!(client.waiting_messages(), 0);
    drop(client);
    server.join().unwrap();
}

#[test]
fn response_information_is_the_start_of_the_response_topic() {
    let (url, server) = serve(|server| {
        let mut connack = Connack::new(false, ReasonCode::Success);
        connack.properties.response_information = Some(ByteString::from_static("mine/only/"));
        let (mut peer, _) = server.welcome_with(connack);
        let filter = listening(&mut peer);
        let request = peer.publish();
        let properties = request.properties.as_ref().unwrap();
        assert_eq!(properties.response_topic.as_ref(), Some(&filter));
        peer.send(&response(&request, "yes"));
        peer.until_end();
        filter
    });
    let client = options().connect(&url).unwrap();
    client.request("ask", "", DEADLINE).unwrap();
    drop(client);
    let filter = server.join().unwrap();
    let random = filter.strip_prefix("mine/only/").unwrap();
    assert_eq!(random.len(), 16);
}

#[test]
fn a_request_survives_a_reconnect() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let before = listening(&mut peer);
        peer.publish();
        drop(peer);
        let (mut peer, _) = server.welcome(false);
        let after = listening(&mut peer);
        assert_eq!(before, after);
        let again = peer.take_qos1();
        peer.send(&response(&again, "at last"));
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    let answer = client.request_with("ask", "", DEADLINE, QOS1).unwrap();
    assert_eq!(text(&answer), "at last");
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_request_that_nobody_hears_or_that_is_refused_fails_at_once() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        listening(&mut peer);
        for reason in [ReasonCode::NoMatchingSubscribers, ReasonCode::NotAuthorized] {
            let id = peer.publish().packet_id.unwrap();
            peer.send(&Packet::Puback(Ack::new(id, reason)));
        }
        let request = peer.take_qos1();
        peer.send(&response(&request, "heard"));
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    for reason in [ReasonCode::NoMatchingSubscribers, ReasonCode::NotAuthorized] {
        let error = client.request_with("ask", "", DEADLINE, QOS1).unwrap_err();
        assert!(matches!(error, ClientError::Rejected(_)), "{error:?}");
        assert_eq!(error.reason(), Some(reason));
    }
    client.request_with("ask", "", DEADLINE, QOS1).unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_refused_subscription_is_the_error_of_the_request_and_asked_again() {
    use crate::proto::packet::Suback;
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let Packet::Subscribe(subscribe) = peer.receive() else {
            panic!("expected SUBSCRIBE");
        };
        peer.send(&Packet::Suback(Box::new(Suback {
            packet_id: subscribe.packet_id,
            reasons: vec![ReasonCode::NotAuthorized],
            properties: None,
        })));
        listening(&mut peer);
        let request = peer.publish();
        peer.send(&response(&request, "now"));
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    let error = client.request("ask", "", DEADLINE).unwrap_err();
    assert_eq!(error.reason(), Some(ReasonCode::NotAuthorized));
    client.request("ask", "", DEADLINE).unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn disconnecting_ends_a_request() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        listening(&mut peer);
        let publish = peer.publish();
        peer.until_end();
        publish
    });
    let client = options().connect(&url).unwrap();
    let events = client.events();
    let waiting = client.clone();
    let ask = move || waiting.request("ask", "", DEADLINE);
    let asking = thread::spawn("asking", 0, ask).unwrap();
    while client.shared().lock().session.waiting_responses() == 0 {
        std::thread::yield_now();
    }
    client.disconnect().unwrap();
    let error = asking.join().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::NotConnected), "{error:?}");
    drop((events, client));
    let _ = server.join();
}

#[test]
fn a_response_carries_the_correlation_data_of_its_request() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.send(&Packet::Publish(Box::new(Publish {
            dup: false,
            qos: QOS1,
            retain: false,
            topic: "ask".into(),
            packet_id: Some(id(1)),
            properties: Some(Box::new(PublishProperties {
                response_topic: Some("to/me".into()),
                correlation_data: Some("42".into()),
                ..PublishProperties::default()
            })),
            payload: "?".into(),
        })));
        peer.send(&message(QOS0, 0, "no request"));
        assert_eq!(peer.receive(), Packet::Puback(ok(id(1))));
        let response = peer.take_qos1();
        peer.until_end();
        response
    });
    let client = options().connect(&url).unwrap();
    let request = client.recv_timeout(DEADLINE).unwrap();
    client.respond(&request, "!").unwrap();
    let other = client.recv_timeout(DEADLINE).unwrap();
    let refused = client.respond(&other, "!");
    assert!(matches!(refused, Err(ClientError::NotARequest)));
    drop(client);
    let response = server.join().unwrap();
    assert_eq!((&*response.topic, response.qos), ("to/me", QOS1));
    let properties = response.properties.unwrap();
    assert_eq!(properties.correlation_data.as_deref(), Some(&b"42"[..]));
    assert_eq!(response.payload, "!");
}

#[test]
fn there_are_no_requests_before_5() {
    let (url, server) = serve(|server| server.welcome(false).0.until_end());
    let older = options().version(ProtocolVersion::V311);
    let client = older.connect(&url).unwrap();
    let error = client.request("ask", "", DEADLINE).unwrap_err();
    let reason = ReasonCode::UnsupportedProtocolVersion;
    assert!(matches!(error, ClientError::NotAvailable(found) if found == reason));
    drop(client);
    server.join().unwrap();
}
