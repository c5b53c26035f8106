//! What the router answers, byte by byte, over a socket.

mod durable;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::config::MemoryLimit;
use crate::broker::plugin::{DropReason, Plugin, PluginContext};
use crate::broker::{Broker, Config};

/// CONNECT of 5.0 with Clean Start as `flags` bit 0x02 and these properties.
fn connect(client_id: &str, flags: u8, properties: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05".to_vec();
    body.extend([flags, 0, 0, u8::try_from(properties.len()).unwrap()]);
    body.extend(properties);
    body.extend(text(client_id));
    packet(0x10, &body)
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, u8::try_from(body.len()).unwrap()];
    assert!(body.len() < 128);
    packet.extend(body);
    packet
}

fn subscribe(filter: &str, options: u8) -> Vec<u8> {
    let body = [&[0, 1, 0][..], &text(filter), &[options]].concat();
    packet(0x82, &body)
}

/// PUBLISH without properties; identifier 0 at QoS 0.
fn publish(first: u8, topic: &str, id: u8, payload: &[u8]) -> Vec<u8> {
    let id: &[u8] = if id == 0 { &[] } else { &[0, id] };
    packet(first, &[&text(topic), id, &[0], payload].concat())
}

const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];
const DISCONNECT: [u8; 2] = [0xE0, 0];
const CLEAN_START: u8 = 0x02;
const PERSISTENT: u8 = 0;
/// Session Expiry Interval 100.
const NO_PROBLEM_INFORMATION: [u8; 2] = [0x17, 0];
const EXPIRY: [u8; 5] = [0x11, 0, 0, 0, 100];

struct Peer(TcpStream);

impl Peer {
    fn open(address: SocketAddr, packets: &[u8]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        let deadline = Some(Duration::from_secs(10));
        stream.set_read_timeout(deadline).unwrap();
        let mut peer = Self(stream);
        peer.send(packets);
        peer
    }

    /// Connects and takes CONNACK.
    fn connected(address: SocketAddr, connect: &[u8]) -> Self {
        let mut peer = Self::open(address, connect);
        assert_eq!(peer.read()[0], 0x20);
        peer
    }

    fn send(&mut self, packets: &[u8]) {
        self.0.write_all(packets).unwrap();
    }

    /// One whole packet of fewer than 128 bytes.
    fn read(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet).unwrap();
        let length = usize::from(packet[1]);
        packet.resize(2 + length, 0);
        self.0.read_exact(&mut packet[2..]).unwrap();
        packet
    }

    /// Sends `packets` and takes the next packet that comes.
    fn ask(&mut self, packets: &[u8]) -> Vec<u8> {
        self.send(packets);
        self.read()
    }
}

/// Asks until it is so. What is asked takes the time that it takes the router to answer.
#[expect(clippy::disallowed_methods, reason = "the test has a deadline")]
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline);
    }
}

fn config(settings: &str) -> Config {
    let text = format!("listeners:\n  default:\n    bind: 127.0.0.1:0\n{settings}");
    Config::parse(&text).unwrap()
}

fn start(settings: &str) -> (Broker, SocketAddr) {
    let mut broker = Broker::new(config(settings));
    broker.start().unwrap();
    let address = broker.local_addr("default").unwrap();
    (broker, address)
}

/// [MQTT-3.2.0-1]
#[test]
fn nothing_comes_before_connack() {
    let (_broker, address) = start("");
    for round in 0..50 {
        let both = [
            connect(&format!("c{round}"), CLEAN_START, &[]),
            PINGREQ.to_vec(),
        ]
        .concat();
        let mut peer = Peer::open(address, &both);
        assert_eq!(peer.read()[0], 0x20);
        assert_eq!(peer.read(), PINGRESP);
    }
}

/// MQTT 5.0 §3.3.2.3.3, [MQTT-3.3.2-5], [MQTT-3.3.2-6]: one that may not wait goes to who takes it at once, with the 0 that
/// it came with, and to nobody later.
#[test]
fn a_message_that_expires_at_once_is_delivered_at_once_or_never() {
    let (_broker, address) = start("");
    let away = connect("away", PERSISTENT, &EXPIRY);
    let mut peer = Peer::connected(address, &away);
    assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
    peer.send(&DISCONNECT);
    let mut here = Peer::connected(address, &connect("here", CLEAN_START, &[]));
    assert_eq!(here.ask(&subscribe("t", 1))[0], 0x90);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    let expires_at_once = [5, 2, 0, 0, 0, 0];
    let message = [&text("t"), &[0, 1][..], &expires_at_once, b"x"].concat();
    let message = packet(0x32, &message);
    assert_eq!(sender.ask(&message)[..4], [0x40, 2, 0, 1]);
    assert_eq!(here.read(), message);
    let mut peer = Peer::connected(address, &away);
    assert_eq!(peer.ask(&PINGREQ), PINGRESP);
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]
#[test]
fn a_message_too_large_for_one_receiver_is_dropped_for_it_alone() {
    let (_broker, address) = start("");
    let small = connect("small", CLEAN_START, &[0x27, 0, 0, 0, 30]);
    let mut small = Peer::connected(address, &small);
    let mut large = Peer::connected(address, &connect("large", CLEAN_START, &[]));
    for peer in [&mut small, &mut large] {
        assert_eq!(peer.ask(&subscribe("t", 0))[0], 0x90);
    }
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    sender.send(&publish(0x30, "t", 0, &[b'x'; 50]));
    sender.send(&publish(0x30, "t", 0, b"fits"));
    assert_eq!(large.read(), publish(0x30, "t", 0, &[b'x'; 50]));
    assert_eq!(large.read(), publish(0x30, "t", 0, b"fits"));
    assert_eq!(small.read(), publish(0x30, "t", 0, b"fits"));
}

/// [MQTT-3.1.2-25]
#[test]
fn a_message_sent_again_keeps_to_the_new_maximum_packet_size() {
    let (_broker, address) = start("");
    let mut peer = Peer::connected(address, &connect("again", CLEAN_START, &EXPIRY));
    assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    assert_eq!(sender.ask(&publish(0x32, "t", 1, &[b'x'; 50]))[0], 0x40);
    assert_eq!(sender.ask(&publish(0x32, "t", 2, b"fits"))[0], 0x40);
    assert_eq!(peer.read(), publish(0x32, "t", 1, &[b'x'; 50]));
    assert_eq!(peer.read(), publish(0x32, "t", 2, b"fits"));
    drop(peer);
    let properties = [&EXPIRY[..], &[0x27, 0, 0, 0, 30]].concat();
    let mut peer = Peer::connected(address, &connect("again", 0, &properties));
    assert_eq!(peer.read(), publish(0x3A, "t", 2, b"fits"));
}

/// [MQTT-4.3.3-4]
#[test]
fn only_a_pubrec_of_success_is_answered_with_pubrel() {
    let (_broker, address) = start("");
    let mut peer = Peer::connected(address, &connect("c", CLEAN_START, &NO_PROBLEM_INFORMATION));
    // Refused, with an identifier that is not in use: nothing follows.
    peer.send(&packet(0x50, &[0, 9, 0x97]));
    // Success, with an identifier that is not in use: Packet Identifier not found.
    assert_eq!(
        peer.ask(&packet(0x50, &[0, 9])),
        packet(0x62, &[0, 9, 0x92])
    );
    // For a QoS 1 message: nothing follows, and the message is still in flight.
    assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
    peer.send(&publish(0x32, "t", 1, b"x"));
    let mut answers = [peer.read(), peer.read()];
    answers.sort();
    assert_eq!(
        answers,
        [publish(0x32, "t", 1, b"x"), packet(0x40, &[0, 1])]
    );
    peer.send(&packet(0x50, &[0, 1]));
    assert_eq!(peer.ask(&subscribe("other", 1))[0], 0x90);
}

#[test]
fn only_a_full_queue_is_told_to_the_publisher() {
    let settings = "queue-full: reject\nlimits:\n  max-queued-messages: 1\n";
    let (broker, address) = start(settings);
    for (client_id, filter, qos) in [("zero", "q0", 0), ("one", "q1", 1)] {
        let mut peer = Peer::connected(address, &connect(client_id, CLEAN_START, &EXPIRY));
        assert_eq!(peer.ask(&subscribe(filter, qos))[0], 0x90);
        peer.send(&DISCONNECT);
    }
    until(|| broker.context().unwrap().stats().unwrap().clients_connected == 0);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    let success = packet(0x40, &[0, 1]);
    for _ in 0..3 {
        assert_eq!(sender.ask(&publish(0x32, "q0", 1, b"x")), success);
    }
    assert_eq!(sender.ask(&publish(0x32, "q1", 1, b"x")), success);
    let refused = sender.ask(&publish(0x32, "q1", 1, b"x"));
    assert_eq!(refused[..5], [0x40, refused[1], 0, 1, 0x97]);
}

/// What each session did not get: (client identifier, topic, reason).
#[derive(Debug, Default)]
struct Drops(Arc<parking_lot::Mutex<Vec<(String, String, DropReason)>>>);

impl Plugin for Drops {
    fn name(&self) -> &str {
        "drops"
    }

    fn on_broker_message_dropped(
        &mut self,
        _broker: &dyn PluginContext,
        client_id: &str,
        topic: Option<&str>,
        reason: DropReason,
    ) {
        let topic = topic.unwrap_or_default().to_owned();
        self.0.lock().push((client_id.to_owned(), topic, reason));
    }
}

#[test]
fn each_filter_has_its_policy_for_full_queues_and_plugins_hear_of_every_drop() {
    let settings = "queue-full: reject
queue-full-filters: {'old/#': drop-oldest, 'new/#': drop-new}
\
                    limits:
  max-queued-messages: 1
";
    let drops = Drops::default();
    let seen = Arc::clone(&drops.0);
    let mut broker = Broker::new(config(settings)).plugin(Box::new(drops));
    broker.start().unwrap();
    let address = broker.local_addr("default").unwrap();
    let away = |id: &str| connect(id, PERSISTENT, &EXPIRY);
    for (id, filter) in [("a", "old/#"), ("b", "new/#"), ("c", "any")] {
        let mut peer = Peer::connected(address, &away(id));
        assert_eq!(peer.ask(&subscribe(filter, 1))[0], 0x90);
        peer.send(&DISCONNECT);
    }
    until(|| broker.context().unwrap().stats().unwrap().clients_connected == 0);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    for topic in ["old/1", "new/1", "any"] {
        assert_eq!(
            sender.ask(&publish(0x32, topic, 1, b"1")),
            packet(0x40, &[0, 1])
        );
    }
    for (topic, accepted) in [("old/2", true), ("new/2", true), ("any", false)] {
        let answer = sender.ask(&publish(0x32, topic, 1, b"2"));
        assert_eq!(answer == packet(0x40, &[0, 1]), accepted, "{topic}");
    }
    for (id, topic, payload) in [
        ("a", "old/2", b"2"),
        ("b", "new/1", b"1"),
        ("c", "any", b"1"),
    ] {
        let mut peer = Peer::connected(address, &away(id));
        assert_eq!(peer.read(), publish(0x32, topic, 1, payload));
    }
    until(|| seen.lock().len() == 3);
    let full = |id: &str, topic: &str| (id.to_owned(), topic.to_owned(), DropReason::QueueFull);
    let expected = [full("a", "old/1"), full("b", "new/2"), full("c", "any")];
    assert_eq!(*seen.lock(), expected);
}

/// A message that is refused came to nobody: published again, it comes to each receiver once.
#[test]
fn reject_refuses_a_message_for_all_if_one_queue_is_full() {
    let settings = "queue-full: reject\nlimits:\n  max-queued-messages: 1\n";
    let (broker, address) = start(settings);
    let filters = [("full", "#"), ("empty", "t"), ("member", "$share/g/only")];
    for (client_id, filter) in filters {
        let mut peer = Peer::connected(address, &connect(client_id, CLEAN_START, &EXPIRY));
        assert_eq!(peer.ask(&subscribe(filter, 2))[0], 0x90);
        peer.send(&DISCONNECT);
    }
    until(|| broker.context().unwrap().stats().unwrap().clients_connected == 0);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    // Fills the queue of `full`.
    assert_eq!(
        sender.ask(&publish(0x32, "x", 1, b"1")),
        packet(0x40, &[0, 1])
    );
    for dup in [0, 0x08] {
        let refused = sender.ask(&publish(0x35 | dup, "t", 2, b"2"));
        assert_eq!(refused[..5], [0x50, refused[1], 0, 2, 0x97]);
    }
    drop(Peer::connected(address, &connect("full", CLEAN_START, &[])));
    let mut peer = Peer::connected(address, &connect("empty", 0, &EXPIRY));
    assert_eq!(peer.ask(&PINGREQ), PINGRESP);
    // Nor was it retained.
    assert_eq!(peer.ask(&subscribe("t", 2))[0], 0x90);
    assert_eq!(peer.ask(&PINGREQ), PINGRESP);
}

#[test]
fn a_shared_subscription_of_full_queues_does_what_queue_full_says() {
    for (policy, answer) in [("reject", 0x97), ("drop-new", 0), ("drop-oldest", 0)] {
        let settings = format!("queue-full: {policy}\nlimits:\n  max-queued-messages: 1\n");
        let (broker, address) = start(&settings);
        for client_id in ["one", "other"] {
            let mut peer = Peer::connected(address, &connect(client_id, CLEAN_START, &EXPIRY));
            assert_eq!(peer.ask(&subscribe("$share/g/t", 1))[0], 0x90);
            peer.send(&DISCONNECT);
        }
        until(|| broker.context().unwrap().stats().unwrap().clients_connected == 0);
        let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
        for id in [1, 2] {
            let success = packet(0x40, &[0, id]);
            assert_eq!(sender.ask(&publish(0x32, "t", id, &[id])), success);
        }
        let third = sender.ask(&publish(0x32, "t", 3, &[3]));
        assert_eq!(third.get(4).copied().unwrap_or(0), answer, "{policy}");
        let dropped = broker.context().unwrap().metrics().dropped_queue_full;
        assert_eq!(dropped, 1, "{policy}");
        let mut peer = Peer::connected(address, &connect("one", 0, &EXPIRY));
        let kept = if policy == "drop-oldest" { 3 } else { 1 };
        assert_eq!(peer.read(), publish(0x32, "t", 1, &[kept]), "{policy}");
    }
}

/// `max-inflight-bytes`: what is beyond it waits in the queue for an acknowledgement.
#[test]
fn messages_in_flight_are_bounded_in_bytes_too() {
    let (_broker, address) = start("limits: {max-inflight-bytes: 10}\n");
    let mut peer = Peer::connected(address, &connect("c", CLEAN_START, &[]));
    assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    for id in 1..=4 {
        assert_eq!(sender.ask(&publish(0x32, "t", id, b"eight by"))[0], 0x40);
    }
    // The first fits, the second begins below the limit.
    assert_eq!(peer.read(), publish(0x32, "t", 1, b"eight by"));
    assert_eq!(peer.read(), publish(0x32, "t", 2, b"eight by"));
    assert_eq!(peer.ask(&subscribe("other", 1))[0], 0x90);
    assert_eq!(
        peer.ask(&packet(0x40, &[0, 1])),
        publish(0x32, "t", 3, b"eight by")
    );
    assert_eq!(
        peer.ask(&packet(0x40, &[0, 2])),
        publish(0x32, "t", 4, b"eight by")
    );
}

/// `check-retain-source`: a retained message loses its readers when its publisher loses the right.
#[test]
fn a_retained_message_is_delivered_while_its_publisher_may_publish_it() {
    let rules = |publish: &str, rest: &str| {
        format!(
            "topic-check:\n  enabled: on\n  plugins: [topic_acl]\n  publish-acl: {{anonymous: [{publish}]}}\n{rest}"
        )
    };
    let (mut broker, address) = start(&rules("t", ""));
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    assert_eq!(sender.ask(&publish(0x33, "t", 1, b"x"))[0], 0x40);
    let subscriptions = |name: &str| {
        let mut peer = Peer::connected(address, &connect(name, CLEAN_START, &[]));
        let answers = [peer.ask(&subscribe("t", 1)), peer.ask(&subscribe("u", 1))];
        answers.map(|answer| answer[0])
    };
    // SUBACK and the retained message; without it, both answers are SUBACK.
    assert_eq!(subscriptions("before"), [0x90, 0x33]);
    broker.reload(config(&rules("", ""))).unwrap();
    assert_eq!(subscriptions("after"), [0x90, 0x90]);
    let off = rules("", "check-retain-source: off\n");
    broker.reload(config(&off)).unwrap();
    assert_eq!(subscriptions("off"), [0x90, 0x33]);
}

/// `max-memory`: at 80 % of it nothing more is retained, and the publisher is told.
#[test]
fn nothing_is_retained_while_memory_is_tight() {
    let (broker, address) = start("");
    let memory = &broker.running.as_ref().unwrap().services.memory;
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    memory.set_limit(MemoryLimit::Bytes(1 << 40));
    // The broker's own look at its memory may come in between, and finds room.
    let refused = (0..100).any(|_| {
        memory.judge((1 << 40) / 100 * 85);
        let answer = sender.ask(&publish(0x33, "kept", 1, b"x"));
        answer.get(4) == Some(&0x97)
    });
    assert!(refused);
    memory.judge(0);
    // No matching subscribers is a success: it is retained again.
    assert_eq!(sender.ask(&publish(0x33, "kept", 1, b"x"))[4], 0x10);
    assert!(broker.context().unwrap().metrics().retained_refused >= 1);
}
