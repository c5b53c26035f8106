//! Deliveries: acknowledgements, exactly once, backpressure.

use super::server::{DEADLINE, id, message, ok, serve};
use super::*;
use crate::proto::packet::Ack;

#[test]
fn messages_come_in_order_and_are_acknowledged_when_taken() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.subscribe();
        peer.send(&message(QOS0, 0, "zero"));
        peer.send(&message(QOS1, 7, "one"));
        peer.send(&message(QOS2, 8, "two"));
        assert_eq!(peer.receive(), Packet::Puback(ok(id(7))));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(8))));
        peer.send(&Packet::Pubrel(ok(id(8))));
        assert_eq!(peer.receive(), Packet::Pubcomp(ok(id(8))));
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    client.subscribe([("t", QOS2)]).unwrap();
    let zero = client.recv_timeout(DEADLINE).unwrap();
    assert_eq!((zero.topic(), text(&zero), zero.qos()), ("t", "zero", QOS0));
    let one = client.deliver_message(Some(DEADLINE)).unwrap();
    assert_eq!(one.packet_id(), Some(id(7)));
    assert!(one.flow().puback.is_some() && one.flow().pubrec.is_none());
    let two = client.recv().unwrap();
    assert_eq!(text(&two), "two");
    assert!(client.try_recv().unwrap().is_none());
    let error = client.recv_timeout(Duration::from_millis(5)).unwrap_err();
    assert!(matches!(error, ClientError::Timeout(Phase::Delivery)));
    drop(client);
    server.join().unwrap();
}

#[test]
fn what_was_not_taken_is_not_acknowledged() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.subscribe();
        peer.send(&message(QOS1, 1, "taken"));
        peer.send(&message(QOS1, 2, "left"));
        assert_eq!(peer.receive(), Packet::Puback(ok(id(1))));
        assert!(matches!(peer.receive(), Packet::Disconnect(_)));
    });
    let client = options().clean_start(false).connect(&url).unwrap();
    client.subscribe([("t", QOS1)]).unwrap();
    assert_eq!(text(&client.recv().unwrap()), "taken");
    client.disconnect().unwrap();
    server.join().unwrap();
}

/// [MQTT-4.3.3-10]
#[test]
fn a_qos2_message_sent_twice_is_delivered_once() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.send(&message(QOS2, 3, "once"));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(3))));
        peer.send(&message(QOS2, 3, "once"));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(3))));
        peer.send(&Packet::Pubrel(ok(id(3))));
        assert_eq!(peer.receive(), Packet::Pubcomp(ok(id(3))));
        peer.send(&Packet::Pubrel(ok(id(3))));
        let unknown = Ack::new(id(3), ReasonCode::PacketIdentifierNotFound);
        assert_eq!(peer.receive(), Packet::Pubcomp(unknown));
        peer.send(&message(QOS0, 0, "last"));
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    assert_eq!(text(&client.recv().unwrap()), "once");
    assert_eq!(text(&client.recv().unwrap()), "last");
    drop(client);
    server.join().unwrap();
}

#[test]
fn disconnect_ends_calls_that_wait() {
    let (url, server) = serve(|server| server.welcome(false).0.until_end());
    let client = options().connect(&url).unwrap();
    let other = client.clone();
    let receiver = thread::spawn("receiver", 0, move || other.recv()).unwrap();
    let other = client.clone();
    let publisher = thread::spawn("publisher", 0, move || other.publish("a", "b", QOS1)).unwrap();
    while client.in_flight() == 0 {
        std::thread::yield_now();
    }
    client.disconnect().unwrap();
    assert!(matches!(
        receiver.join().unwrap(),
        Err(ClientError::NotConnected)
    ));
    assert!(matches!(
        publisher.join().unwrap(),
        Err(ClientError::NotConnected)
    ));
    server.join().unwrap();
}

#[test]
fn iter_ends_when_the_client_is_disconnected() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        for number in 0..5 {
            peer.send(&message(QOS0, 0, &number.to_string()));
        }
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    let mut seen = Vec::new();
    for message in client.iter() {
        seen.push(text(&message).to_owned());
        if seen.len() == 5 {
            client.disconnect().unwrap();
        }
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4"]);
    server.join().unwrap();
}

/// A program that does not take messages stops the reading: the server's socket fills up. Pings still go out.
#[test]
fn a_full_inbox_stops_the_reading_but_not_the_pings() {
    const ENOUGH: usize = 20_000;
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.socket
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut bytes = Vec::new();
        let payload = "x".repeat(1000);
        let packet = message(QOS0, 0, &payload);
        crate::proto::codec::encode(&packet, ProtocolVersion::V5, &mut bytes).unwrap();
        let sent = (0..ENOUGH)
            .take_while(|_| peer.socket.write_all(&bytes).is_ok())
            .count();
        assert!(sent < ENOUGH, "the client went on reading");
        // Nothing is read any more, and three pings come all the same.
        for _ in 0..3 {
            assert_eq!(peer.receive(), Packet::Pingreq);
        }
    });
    let client = options()
        .auto_reconnect(false)
        .inbox_limits(10, 1_000_000)
        .keep_alive(Duration::from_secs(2))
        .ping_delay(Duration::from_secs(1))
        .ping_timeout(Duration::from_millis(100))
        .connect(&url)
        .unwrap();
    server.join().unwrap();
    drop(client);
}

/// The acknowledgement stands behind more messages than the inbox takes.
#[test]
fn publishing_from_a_receive_loop_cannot_lock_up() {
    const MESSAGES: usize = 400;
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        for number in 0..MESSAGES {
            let number = u16::try_from(number).unwrap();
            peer.send(&message(QOS1, number + 1, &number.to_string()));
        }
        let mut acknowledged = 0;
        let mut published = 0;
        while acknowledged < MESSAGES || published < MESSAGES {
            match peer.receive() {
                Packet::Puback(_) => acknowledged += 1,
                Packet::Publish(publish) => {
                    published += 1;
                    peer.send(&Packet::Puback(ok(publish.packet_id.unwrap())));
                }
                other => panic!("{other:?}"),
            }
        }
        peer.until_end();
    });
    // Without a Receive Maximum nothing but the inbox limits what comes.
    let client = options()
        .version(ProtocolVersion::V311)
        .inbox_limits(2, 1000)
        .connect(&url)
        .unwrap();
    for number in 0..MESSAGES {
        let message = client.recv_timeout(DEADLINE).unwrap();
        assert_eq!(text(&message), number.to_string());
        client.publish("echo", message.payload(), QOS1).unwrap();
    }
    assert_eq!(client.dropped_messages(), 0);
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_handler_may_publish_and_disconnect() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        for number in 1..=3 {
            peer.send(&message(QOS1, number, "in"));
        }
        let mut echoed = 0;
        let end = loop {
            match peer.receive() {
                Packet::Publish(publish) => {
                    echoed += 1;
                    peer.send(&Packet::Puback(ok(publish.packet_id.unwrap())));
                }
                Packet::Puback(_) => {}
                other => break other,
            }
        };
        assert_eq!(echoed, 3);
        assert!(matches!(end, Packet::Disconnect(_)), "{end:?}");
    });
    let client = options().connect(&url).unwrap();
    let mut left = 3;
    let handler = client
        .on_message(move |client, message| {
            client.publish("out", message.payload(), QOS1).unwrap();
            left -= 1;
            if left == 0 {
                client.disconnect().unwrap();
            }
        })
        .unwrap();
    handler.join().unwrap();
    server.join().unwrap();
}

#[test]
fn packets_that_are_no_mqtt_end_the_connection() {
    for bytes in [
        &[0xF0, 0][..],
        &[0x30, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x20, 2, 0, 0],
    ] {
        let (url, server) = serve(move |server| {
            let (mut peer, _) = server.welcome(false);
            peer.send(&message(QOS0, 0, "before"));
            peer.send_bytes(bytes);
            let Some(Packet::Disconnect(disconnect)) = peer.until_end() else {
                panic!("expected DISCONNECT");
            };
            assert!(disconnect.reason.is_error());
        });
        let client = options().auto_reconnect(false).connect(&url).unwrap();
        assert_eq!(text(&client.recv().unwrap()), "before");
        let error = client.recv().unwrap_err();
        assert!(
            matches!(error, ClientError::Malformed(_) | ClientError::Protocol(_)),
            "{error:?}"
        );
        server.join().unwrap();
    }
}
