//! Publications: acknowledgements, windows, order, threads.

use super::super::shared::now;
use super::server::{DEADLINE, Server, message, ok, serve};
use super::*;
use crate::net::listener::{BindAddress, Listener};
use crate::proto::packet::publish::Publish;

#[test]
fn publish_returns_when_the_message_is_acknowledged() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let messages = [peer.publish(), peer.take_qos1(), peer.take_qos2()];
        peer.until_end();
        messages
    });
    let client = options().connect(&url).unwrap();
    let zero = client.publish("a/b", "zero", QOS0).unwrap();
    let one = client.publish("a/b", b"one", QOS1).unwrap();
    let retained = PublishOptions::new().qos(QOS2).retain(true);
    let two = client.publish("a/b", "two".to_owned(), retained).unwrap();
    assert_eq!(zero.packet_id, None);
    assert_eq!(one.reason, ReasonCode::Success);
    assert_eq!(two.qos, QOS2);
    assert_eq!(client.in_flight(), 0);
    drop(client);
    let payloads = server.join().unwrap().map(|publish: Publish| {
        (
            String::from_utf8(publish.payload.to_vec()).unwrap(),
            publish.retain,
        )
    });
    assert_eq!(
        payloads,
        [
            ("zero".to_owned(), false),
            ("one".to_owned(), false),
            ("two".to_owned(), true)
        ]
    );
}

#[test]
fn a_missing_acknowledgement_times_out_and_may_still_come() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let first = peer.publish();
        let second = peer.publish();
        peer.send(&Packet::Puback(ok(first.packet_id.unwrap())));
        peer.send(&Packet::Puback(ok(second.packet_id.unwrap())));
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    let hasty = PublishOptions::new()
        .qos(QOS1)
        .timeout(Duration::from_millis(20));
    let error = client.publish("a", "1", hasty).unwrap_err();
    assert!(matches!(
        error,
        ClientError::Timeout(Phase::Acknowledgement)
    ));
    assert_eq!(client.in_flight(), 1);
    let token = client.publish_nowait("a", "2", QOS1).unwrap();
    token.wait_timeout(DEADLINE).unwrap();
    assert!(token.is_done());
    assert_eq!(client.in_flight(), 0);
    drop(client);
    server.join().unwrap();
}

#[test]
fn invalid_topics_and_too_large_packets_are_refused_before_sending() {
    let (url, server) = serve(|server| server.welcome(false).0.until_end());
    let client = options().connect(&url).unwrap();
    for topic in ["", "a/+", "#", "a\0b"] {
        let error = client.publish(topic, "x", QOS1).unwrap_err();
        assert!(matches!(error, ClientError::InvalidTopic(_)), "{topic:?}");
    }
    let huge = vec![0; 268_435_456];
    for qos in [QOS0, QOS1, QOS2] {
        let error = client.publish("a", &huge, qos).unwrap_err();
        assert!(matches!(error, ClientError::Unsendable(_)), "{error:?}");
    }
    assert_eq!(client.in_flight(), 0);
    drop(client);
    assert!(matches!(
        server.join().unwrap(),
        Some(Packet::Disconnect(_))
    ));
}

/// CAPI-6, DEC-13
#[test]
fn settings_of_the_topic_apply_unless_the_call_says_otherwise() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let seen = [peer.take_qos1(), peer.publish()];
        peer.until_end();
        seen.map(|publish| (publish.qos, publish.retain))
    });
    let of_topic = TopicDefaults {
        qos: Some(QOS1),
        retain: Some(true),
    };
    let client = options()
        .topic_defaults("/test", of_topic)
        .connect(&url)
        .unwrap();
    client
        .publish("/test", "x", PublishOptions::default())
        .unwrap();
    let explicit = PublishOptions::new().qos(QOS0).retain(false);
    client.publish("/test", "x", explicit).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap(), [(QOS1, true), (QOS0, false)]);
}

/// CAPI-7
#[test]
fn several_publications_are_in_flight_up_to_the_window() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let first: Vec<_> = (0..3).map(|_| peer.publish().packet_id.unwrap()).collect();
        // The window is full: nothing more may come before an acknowledgement.
        peer.socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        assert!(peer.try_receive().is_err());
        peer.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        for id in first {
            peer.send(&Packet::Puback(ok(id)));
        }
        for _ in 0..7 {
            peer.take_qos1();
        }
        peer.until_end();
    });
    let client = options().max_in_flight(3).connect(&url).unwrap();
    let tokens: Vec<_> = (0..10)
        .map(|number| {
            client
                .publish_nowait("a", number.to_string(), QOS1)
                .unwrap()
        })
        .collect();
    for token in tokens {
        token.wait().unwrap();
    }
    drop(client);
    server.join().unwrap();
}

/// Far more than a socket buffer, in bursts: nothing is lost and the order is that of the calls.
#[test]
fn a_flood_of_publications_arrives_complete_and_in_order() {
    const COUNT: u32 = 100_000;
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        for number in 0..COUNT {
            let publish = peer.publish();
            assert_eq!(publish.payload, number.to_be_bytes()[..], "{number}");
        }
        peer.until_end()
    });
    let client = options()
        .send_buffer_bytes(64 * 1024)
        .connect(&url)
        .unwrap();
    for number in 0..COUNT {
        let token = client.publish_nowait("flood", &number.to_be_bytes(), QOS0);
        assert!(token.unwrap().is_done());
    }
    client.disconnect().unwrap();
    assert!(matches!(
        server.join().unwrap(),
        Some(Packet::Disconnect(_))
    ));
}

#[test]
fn large_payloads_go_out_between_small_ones() {
    let payloads = [10, 100_000, 10, 3_000_000, 10];
    let (url, server) = serve(move |server| {
        let (mut peer, _) = server.welcome(false);
        for (index, length) in payloads.into_iter().enumerate() {
            let publish = if index % 2 == 0 {
                peer.publish()
            } else {
                peer.take_qos1()
            };
            assert_eq!(publish.payload.len(), length);
            assert!(
                publish
                    .payload
                    .iter()
                    .all(|byte| usize::from(*byte) == index)
            );
        }
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    for (index, length) in payloads.into_iter().enumerate() {
        let payload = vec![u8::try_from(index).unwrap(); length];
        let qos = if index % 2 == 0 { QOS0 } else { QOS1 };
        let _ = client.publish_nowait("a", payload, qos).unwrap();
    }
    client
        .publish_nowait("b", "end", QOS0)
        .unwrap()
        .wait()
        .unwrap();
    client.disconnect().unwrap();
    server.join().unwrap();
}

#[test]
fn many_threads_share_a_client() {
    const THREADS: usize = 8;
    const EACH: usize = 50;
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let mut next = [0; THREADS];
        for _ in 0..THREADS * EACH {
            let publish = peer.take_qos1();
            let thread: usize = publish.topic.parse().unwrap();
            let number: usize = std::str::from_utf8(&publish.payload)
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(number, next[thread], "order within a thread");
            next[thread] += 1;
        }
        peer.until_end();
    });
    let client = options().max_in_flight(4).connect(&url).unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let client = client.clone();
            let publish = move || {
                for count in 0..EACH {
                    let topic = number.to_string();
                    client.publish(&topic, count.to_string(), QOS1).unwrap();
                }
            };
            thread::spawn("publisher", 0, publish).unwrap()
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_server_that_stops_reading_blocks_the_publisher_until_its_deadline() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let Packet::Publish(first) = peer.receive() else {
            panic!("expected PUBLISH");
        };
        (peer, first.payload.len())
    });
    let client = options().send_buffer_bytes(10_000).connect(&url).unwrap();
    let hasty = PublishOptions::new()
        .qos(QOS0)
        .timeout(Duration::from_millis(50));
    let error = loop {
        match client.publish_nowait("a", vec![0; 5000], hasty.clone()) {
            Ok(token) => assert!(token.is_done()),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, ClientError::Timeout(Phase::Room)),
        "{error:?}"
    );
    let (peer, length) = server.join().unwrap();
    assert_eq!(length, 5000);
    drop(peer);
}

/// Also when what waits fills the buffer to the last byte, as messages of five or six bytes do here.
#[test]
fn a_full_buffer_has_room_again_when_the_server_reads_on() {
    const ROUNDS: usize = 10;
    let (go, gone) = crossbeam_channel::bounded(0);
    let (silent, silence) = crossbeam_channel::bounded(1);
    let (url, server) = serve(move |server| {
        let (peer, _) = server.welcome(false);
        let mut bytes = [0; 16_384];
        for patience in gone {
            peer.socket.set_read_timeout(Some(patience)).unwrap();
            while let Ok(1..) = peer.socket.read(&mut bytes) {}
            silent.send(()).unwrap();
        }
    });
    let client = options()
        .keep_alive(Duration::ZERO)
        .send_buffer_bytes(4080)
        .connect(&url)
        .unwrap();
    let publish = |timeout| {
        let options = PublishOptions::from(QOS0).timeout(timeout);
        client.publish_nowait("t", b"", options).map(drop)
    };
    for _ in 0..ROUNDS {
        while publish(Duration::from_millis(10)).is_ok() {}
        go.send(Duration::from_millis(10)).unwrap();
        let before = now();
        publish(DEADLINE).unwrap();
        assert!(now() - before < DEADLINE / 2, "nobody was woken");
        silence.recv().unwrap();
    }
    go.send(DEADLINE).unwrap();
    drop(client);
    drop(go);
    server.join().unwrap();
}

/// A receive loop that publishes, with a server that leaves Nagle's algorithm on, as mosquitto does: what it writes second, here the
/// acknowledgement that the loop waits for, leaves when TCP has acknowledged what it wrote first, by itself after 40 ms.
#[test]
fn an_answer_that_the_server_writes_behind_a_message_is_not_held_back() {
    const ROUNDS: u16 = 100;
    let listener = Listener::bind(&BindAddress::tcp("127.0.0.1:0", 0).unwrap()).unwrap();
    let port = listener.socket_address().unwrap().port();
    let script = move || {
        let (mut peer, _) = Server::on(listener).welcome(false);
        rustix::net::sockopt::set_tcp_nodelay(&peer.socket, false).unwrap();
        peer.send(&message(QOS1, 1, "first"));
        for round in 0..ROUNDS {
            assert!(matches!(peer.receive(), Packet::Puback(_)));
            let publish = peer.publish();
            peer.send(&message(QOS1, round + 2, "next"));
            peer.send(&Packet::Puback(ok(publish.packet_id.unwrap())));
        }
        peer.until_end();
    };
    let server = thread::spawn("server", 0, script).unwrap();
    let url = format!("mqtt://127.0.0.1:{port}");
    let client = options().connect(&url).unwrap();
    let began_at = now();
    for _ in 0..ROUNDS {
        client.recv_timeout(DEADLINE).unwrap();
        client.publish("a", "answer", QOS1).unwrap();
    }
    let took = now().duration_since(began_at);
    drop(client);
    server.join().unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
}
