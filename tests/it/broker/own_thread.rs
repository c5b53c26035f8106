//! A new connection is served on the thread of its handshake, and has its own from its first silence on. A client cannot
//! tell.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::support::*;

fn wait_for_own_threads(broker: &Broker, count: usize) {
    eventually("each silent connection has its own thread", || {
        let names = broker.threads();
        let own = names.iter().filter(|name| name.starts_with("conn-"));
        if own.count() == count {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    });
}

/// More than are served on threads of handshakes, so that some have their own at once.
#[test]
fn a_silent_connection_has_a_thread_of_its_own() {
    let broker = Broker::start();
    let mut clients: Vec<_> = (0..40).map(|_| Client::connect(&broker, V311)).collect();
    for client in &mut clients {
        client.expect_alive();
    }
    wait_for_own_threads(&broker, clients.len());
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect_alive();
        let topic = format!("own/{number}");
        client.subscribe(&topic, 1);
        let large = vec![b'x'; number * 997];
        client.publish(&topic, 1, &large);
        assert_eq!(client.receive_publish().payload, large);
    }
    for client in clients {
        client.disconnect();
    }
    wait_for_own_threads(&broker, 0);
}

/// The silence before it had its own thread counts: it is closed after 1.5 × Keep Alive, not after one second more.
///
/// [MQTT-3.1.2-22]
#[test]
fn keep_alive_counts_from_the_last_packet() {
    let broker = Broker::start();
    let connect = Connect::new(V5, "silent").keep_alive(2);
    let mut client = Client::connect_with(&broker, &connect);
    let began_at = Instant::now();
    assert_eq!(client.expect_close(), Some(0x8D));
    let silence = began_at.elapsed();
    assert!(silence >= Duration::from_millis(2_900), "{silence:?}");
    assert!(silence < Duration::from_millis(3_900), "{silence:?}");
}

/// MQTT 3.1.1 §3.1.4, MQTT 5.0 §3.1.4: a client need not wait for CONNACK, and nothing is sent before it.
/// [MQTT-3.2.0-1]
#[test]
fn what_comes_behind_connect_is_answered_behind_connack() {
    let broker = Broker::start();
    both_versions(|version| {
        for round in 0..50 {
            let mut client = Client::open(&broker);
            client.version = version;
            let mut bytes = Connect::new(version, &format!("eager{version:?}{round}")).encode();
            bytes.extend(PINGREQ);
            bytes.extend(subscribe(version, 1, &[("eager", 0)]));
            client.send(bytes);
            assert!(matches!(client.receive(), Packet::Connack { code: 0, .. }));
            let answers = [client.receive(), client.receive()];
            assert!(answers.contains(&Packet::Pingresp), "{answers:?}");
            let is_suback = |answer: &Packet| matches!(answer, Packet::Suback { id: 1, .. });
            assert!(answers.iter().any(is_suback), "{answers:?}");
            client.disconnect();
        }
    });
}

/// Who has closed its side, with DISCONNECT or without, gets what was for it and the end at once.
#[test]
fn the_end_follows_the_client_s_end() {
    let broker = Broker::start();
    for (number, goodbye) in [&[0xE0, 0][..], &[]]
        .into_iter()
        .cycle()
        .take(20)
        .enumerate()
    {
        let mut stream = TcpStream::connect(broker.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Connect::new(V311, &format!("end{number}")).encode();
        bytes.extend(PINGREQ);
        bytes.extend(goodbye);
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        let began_at = Instant::now();
        stream.read_to_end(&mut answers).unwrap();
        assert_eq!(answers, [0x20, 2, 0, 0, 0xD0, 0]);
        assert!(began_at.elapsed() < Duration::from_secs(1));
    }
}
