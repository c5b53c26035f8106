//! Peers that are broken, slow or hostile leave nothing behind: shown by counting the broker's threads, open files,
//! sessions and memory before and after.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::broker::Resources;
use crate::support::websocket::tcp;
use crate::support::*;

/// Random bytes, seeded and repeatable.
#[test]
fn random_bytes_leave_nothing_behind() {
    let scene = Scene::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..150 {
        let mut stream = tcp(scene.address(round));
        if round % 3 == 0 {
            _ = stream.write_all(&Connect::new(V311, &format!("random{round}")).encode());
        }
        let bytes: Vec<u8> = (0..1 + random.next() % 2_000)
            .map(|_| random.next() as u8)
            .collect();
        _ = stream.write_all(&bytes);
        if round % 2 == 0 {
            _ = stream.shutdown(std::net::Shutdown::Write);
            drain(stream);
        }
    }
    scene.expect_nothing_left();
}

/// A session of every packet type, cut after each of its bytes.
#[test]
fn a_connection_cut_at_any_byte_leaves_nothing_behind() {
    let scene = Scene::new();
    both_versions(|version| {
        let mut bytes = Connect::new(version, "cut")
            .will(Publish::new("cut/will", 1, "x"))
            .encode();
        bytes.extend(subscribe(version, 1, &[("cut/+", 2)]));
        bytes.extend(Publish::new("cut/a", 2, "hello").id(2).encode(version));
        bytes.extend(ack(Kind::Pubrel, 2));
        bytes.extend(unsubscribe(version, 3, &["cut/+"]));
        bytes.extend(PINGREQ);
        bytes.extend(DISCONNECT);
        for length in 0..=bytes.len() {
            let mut stream = tcp(scene.broker.address());
            _ = stream.write_all(&bytes[..length]);
            // Half of them are reset with answers unread, half are closed in order.
            if length % 2 == 0 {
                _ = stream.shutdown(std::net::Shutdown::Write);
                drain(stream);
            }
        }
    });
    scene.expect_nothing_left();
}

/// Half packets and packets of a claimed 256 MiB from clients that then say nothing more.
#[test]
fn unfinished_packets_leave_nothing_behind() {
    let scene = Scene::new();
    let mut waiting = Vec::new();
    for (round, start) in [
        "30 ff ff ff 7f",
        "10 ff ff ff 7f",
        "10 0d 0004",
        "10",
        "82 80",
        "30 7f 00 05 61",
    ]
    .iter()
    .cycle()
    .take(60)
    .enumerate()
    {
        let mut client = Client::open(&scene.broker);
        if round % 2 == 0 {
            client.handshake(&Connect::new(V311, &format!("half{round}")).keep_alive(1));
        }
        client.send_hex(start);
        waiting.push(client);
    }
    for mut client in waiting {
        assert!(client.ends_within(PATIENCE));
    }
    scene.expect_nothing_left();
}

/// A byte now and then, below every deadline for a single read.
#[test]
fn slow_senders_leave_nothing_behind() {
    let scene = Scene::new();
    let bytes = Connect::new(V311, &"slow".repeat(50)).encode();
    let mut clients: Vec<_> = (0..20).map(|_| Client::open(&scene.broker)).collect();
    let mut open = clients.len();
    for byte in bytes {
        for client in &mut clients {
            client.send([byte]);
        }
        open = clients
            .iter_mut()
            .map(|client| usize::from(!client.has_ended()))
            .sum();
        if open == 0 {
            break;
        }
        _ = clients[0].ends_within(std::time::Duration::from_millis(100));
    }
    assert_eq!(open, 0, "the deadline for CONNECT is absolute");
    drop(clients);
    scene.expect_nothing_left();
}

/// WebSocket handshakes that never end, and TLS ones, and ones full of headers.
#[test]
fn endless_handshakes_leave_nothing_behind() {
    let scene = Scene::new();
    let mut streams = Vec::new();
    for round in 0..30 {
        let mut stream = tcp(scene.broker.address_of("web"));
        let start: &[u8] = match round % 3 {
            0 => b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nX-Endless: ",
            1 => b"GET /mqtt HTTP/1.1\r\n",
            _ => b"",
        };
        _ = stream.write_all(start);
        if round % 3 == 0 {
            // More and more of a header, until the broker has enough of it.
            for _ in 0..64 {
                if stream.write_all(&[b'x'; 4_096]).is_err() {
                    break;
                }
            }
        }
        streams.push(stream);
    }
    for stream in streams {
        drain(stream);
    }
    scene.expect_nothing_left();
}

/// Clients that come and go, kept sessions that end, take-overs: BUG-9, BUG-12.
#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let scene = Scene::new();
    for round in 0..300 {
        let mut client = Client::connect_with(
            &scene.broker,
            &Connect::new(V311, &format!("visitor{}", round % 7)),
        );
        client.subscribe("visit/#", 2);
        client.publish("visit/a", 1, vec![b'x'; 2_000]);
        if round % 3 == 0 {
            client.send(DISCONNECT);
        }
    }
    let scene = scene.expect_nothing_left_but_idle_threads();
    // The threads kept for reuse end too.
    eventually("idle threads end", || {
        let threads = scene.broker.threads();
        if threads.iter().any(|name| name == "idle") {
            Err(format!("{threads:?}"))
        } else {
            Ok(())
        }
    });
}

/// A broker after its first connection on each listener, so that what is made once is made.
struct Scene {
    broker: Broker,
    before: Resources,
}

impl Scene {
    fn new() -> Self {
        let broker = Broker::configured(
            "listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:0\n  web:\n    type: ws\n    bind: 127.0.0.1:0\n\
             sys_interval: 1\nlimits:\n  connect-timeout: 2\n  packet-timeout: 1\n",
        );
        let mut client = Client::connect(&broker, V311);
        client.subscribe("warm/#", 1);
        client.publish("cold/up", 2, "x");
        client.disconnect();
        drain(tcp(broker.address_of("web")));
        let before = eventually("the first connections end", || {
            let now = broker.resources();
            if broker
                .threads()
                .iter()
                .any(|name| name.starts_with("conn-"))
            {
                Err(format!("{:?}", broker.threads()))
            } else {
                Ok(now)
            }
        });
        Self { broker, before }
    }

    fn address(&self, round: u64) -> std::net::SocketAddr {
        self.broker
            .address_of(if round % 4 == 3 { "web" } else { "default" })
    }

    /// Everything is as before, but for memory that the allocator keeps: a few MiB.
    fn expect_nothing_left(self) {
        self.expect_nothing_left_but_idle_threads();
    }

    fn expect_nothing_left_but_idle_threads(mut self) -> Self {
        assert!(self.broker.is_running());
        let mut reader = Client::connect(&self.broker, V311);
        reader.subscribe_all(&[
            ("$SYS/broker/clients/total", 0),
            ("$SYS/broker/clients/connected", 0),
        ]);
        let mut zero = std::collections::BTreeSet::new();
        while zero.len() < 2 {
            // The reader itself is the one client.
            let message = reader.receive_publish();
            if message.text() == "1" {
                zero.insert(message.topic);
            } else {
                zero.remove(&message.topic);
            }
        }
        reader.disconnect();
        let after = eventually("threads and files are given back", || {
            let now = self.broker.resources();
            if now.threads <= self.before.threads && now.files <= self.before.files {
                Ok(now)
            } else {
                Err(format!(
                    "{now:?}, before {:?}: {:?}",
                    self.before,
                    self.broker.threads()
                ))
            }
        });
        let grown = after
            .resident_bytes
            .saturating_sub(self.before.resident_bytes);
        assert!(grown < 16 << 20, "memory grew by {grown} bytes");
        self
    }
}

/// Reads until the peer closes.
fn drain(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sink = [0; 4_096];
    while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
