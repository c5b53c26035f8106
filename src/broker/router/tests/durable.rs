//! What a restart finds again, and what waits for the store.

use super::*;
use crate::store::{Durability, Failure, MemoryState, MemoryStore};

const FOR_EVER: [u8; 5] = [0x11, 0xFF, 0xFF, 0xFF, 0xFF];

fn start_on(store: &MemoryStore, queue_memory: usize) -> (Broker, SocketAddr) {
    start_with(store, queue_memory, Durability::Group, "")
}

fn start_with(
    store: &MemoryStore,
    queue_memory: usize,
    durability: Durability,
    limits: &str,
) -> (Broker, SocketAddr) {
    let store = store.clone();
    let open = move || Ok(Box::new(store.clone()) as Box<_>);
    let settings = format!("limits:\n  max-queued-messages: 0\n{limits}");
    let mut broker = Broker::new(config(&settings)).store(durability, queue_memory, open);
    broker.start().unwrap();
    let address = broker.local_addr("default").unwrap();
    (broker, address)
}

/// What a machine that stopped now would find at its next start.
fn crashed(store: &MemoryStore) -> MemoryStore {
    MemoryStore::with_state(store.state())
}

fn puback(id: u8) -> Vec<u8> {
    vec![0x40, 2, 0, id]
}

/// No session in the store is that of a client that is connected.
fn all_are_away(store: &MemoryStore) -> bool {
    let state = store.state();
    let mut sessions = state.sessions.values();
    sessions.all(|session| session.disconnected_at.is_some())
}

fn session_present(connack: &[u8]) -> bool {
    connack[2] == 1
}

#[test]
fn an_acknowledged_message_for_an_offline_session_survives() {
    let store = MemoryStore::new();
    let (_broker, address) = start_on(&store, usize::MAX);
    let away = connect("away", PERSISTENT, &FOR_EVER);
    let mut peer = Peer::connected(address, &away);
    assert_eq!(peer.ask(&subscribe("t/#", 1)), [0x90, 4, 0, 1, 0, 1]);
    peer.send(&DISCONNECT);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    for id in 1..=5 {
        assert_eq!(
            sender.ask(&publish(0x32, "t/1", id, &[id]))[..4],
            puback(id)
        );
    }
    let after = crashed(&store);
    let (_broker, address) = start_on(&after, usize::MAX);
    let mut peer = Peer::open(address, &away);
    assert!(session_present(&peer.read()));
    for id in 1..=5 {
        assert_eq!(peer.read(), publish(0x32, "t/1", id, &[id]));
        peer.send(&puback(id));
    }
    let is_empty = |state: MemoryState| state.entries.is_empty() && state.messages.is_empty();
    until(|| is_empty(after.state()));
}

#[test]
fn messages_beyond_the_memory_budget_come_from_the_store_in_order() {
    let store = MemoryStore::new();
    let (_broker, address) = start_on(&store, 2000);
    let away = connect("away", PERSISTENT, &FOR_EVER);
    let mut peer = Peer::connected(address, &away);
    assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
    peer.send(&DISCONNECT);
    until(|| all_are_away(&store));
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    let count = 2000u16;
    for number in 0..count {
        let answer = sender.ask(&publish(0x32, "t", 1, &number.to_be_bytes()));
        assert_eq!(answer[..4], puback(1));
    }
    let mut peer = Peer::open(address, &away);
    assert!(session_present(&peer.read()));
    for number in 0..count {
        let packet = peer.read();
        assert_eq!(packet[packet.len() - 2..], number.to_be_bytes());
        let id_at = 2 + 2 + 1;
        peer.send(&[0x40, 2, packet[id_at], packet[id_at + 1]]);
    }
    assert_eq!(peer.ask(&PINGREQ), PINGRESP);
}

#[test]
fn retained_messages_and_their_removal_survive() {
    let store = MemoryStore::new();
    let (_broker, address) = start_on(&store, usize::MAX);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    for (id, topic, payload) in [(1, "a", &b"1"[..]), (2, "b", b"2"), (3, "a", b"")] {
        // PUBACK, No matching subscribers
        let answer = sender.ask(&publish(0x33, topic, id, payload));
        assert_eq!(answer, [0x40, 3, 0, id, 0x10]);
    }
    let (_broker, address) = start_on(&crashed(&store), usize::MAX);
    let mut peer = Peer::connected(address, &connect("reader", CLEAN_START, &[]));
    assert_eq!(peer.ask(&subscribe("+", 0))[0], 0x90);
    assert_eq!(peer.read(), publish(0x31, "b", 0, b"2"));
    assert_eq!(peer.ask(&PINGREQ), PINGRESP);
}

#[test]
fn a_qos_2_message_is_taken_once_whatever_happens_between() {
    let store = MemoryStore::new();
    let (_broker, address) = start_on(&store, usize::MAX);
    let mut peer = Peer::connected(address, &connect("away", PERSISTENT, &FOR_EVER));
    assert_eq!(peer.ask(&subscribe("t", 2))[0], 0x90);
    peer.send(&DISCONNECT);
    until(|| all_are_away(&store));
    let sender = connect("sender", PERSISTENT, &FOR_EVER);
    let mut peer = Peer::connected(address, &sender);
    assert_eq!(peer.ask(&publish(0x34, "t", 9, b"x"))[..4], [0x50, 2, 0, 9]);
    let (_broker, address) = start_on(&crashed(&store), usize::MAX);
    let mut peer = Peer::open(address, &sender);
    assert!(session_present(&peer.read()));
    let answer = peer.ask(&publish(0x3C, "t", 9, b"x"));
    assert_eq!(answer[..4], [0x50, 2, 0, 9]);
    assert_eq!(peer.ask(&[0x62, 2, 0, 9]), [0x70, 2, 0, 9]);
    let mut peer = Peer::open(address, &connect("away", PERSISTENT, &FOR_EVER));
    assert!(session_present(&peer.read()));
    assert_eq!(peer.read(), publish(0x34, "t", 1, b"x"));
    assert_eq!(peer.ask(&PINGREQ), PINGRESP);
}

#[test]
fn a_qos_2_flow_goes_on_where_it_stopped() {
    let store = MemoryStore::new();
    let (_broker, address) = start_on(&store, usize::MAX);
    let receiver = connect("receiver", PERSISTENT, &FOR_EVER);
    let mut peer = Peer::connected(address, &receiver);
    assert_eq!(peer.ask(&subscribe("t", 2))[0], 0x90);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    assert_eq!(sender.ask(&publish(0x34, "t", 1, b"one"))[0], 0x50);
    assert_eq!(sender.ask(&publish(0x34, "t", 2, b"two"))[0], 0x50);
    assert_eq!(peer.read(), publish(0x34, "t", 1, b"one"));
    assert_eq!(peer.read(), publish(0x34, "t", 2, b"two"));
    assert_eq!(peer.ask(&[0x50, 2, 0, 1]), [0x62, 2, 0, 1]);
    let (_broker, address) = start_on(&crashed(&store), usize::MAX);
    let mut peer = Peer::open(address, &receiver);
    assert!(session_present(&peer.read()));
    let mut resent = [peer.read(), peer.read()];
    resent.sort();
    assert_eq!(resent[0], publish(0x3C, "t", 2, b"two"));
    assert_eq!(resent[1], [0x62, 2, 0, 1]);
    assert_eq!(peer.ask(&[0x50, 2, 0, 2]), [0x62, 2, 0, 2]);
    peer.send(&[0x70, 2, 0, 1, 0x70, 2, 0, 2]);
    assert_eq!(peer.ask(&PINGREQ), PINGRESP);
}

#[test]
fn nothing_is_acknowledged_while_the_disk_is_full_and_all_is_when_it_heals() {
    let store = MemoryStore::new();
    let (_broker, address) = start_on(&store, usize::MAX);
    let mut peer = Peer::connected(address, &connect("away", PERSISTENT, &FOR_EVER));
    assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
    peer.send(&DISCONNECT);
    until(|| all_are_away(&store));
    store.fail_at(store.writes() + 1, Failure::Full);
    let mut sender = Peer::connected(address, &connect("sender", CLEAN_START, &[]));
    let mut other = Peer::connected(address, &connect("other", CLEAN_START, &[]));
    assert_eq!(other.ask(&subscribe("free", 0))[0], 0x90);
    sender.send(&publish(0x32, "t", 1, b"x"));
    // QoS 0 goes on meanwhile.
    sender.send(&publish(0x30, "free", 0, b"y"));
    assert_eq!(other.read(), publish(0x30, "free", 0, b"y"));
    assert!(store.state().entries.is_empty());
    let new = connect("new", PERSISTENT, &FOR_EVER);
    until(|| store.writes() > 0);
    let refused = Peer::open(address, &new).read();
    assert!(refused[3] == 0 || refused[3] == 0x88, "{refused:?}");
    assert_eq!(sender.read()[..4], puback(1));
    assert_eq!(store.state().entries.len(), 1);
}

#[test]
fn a_session_that_was_ended_is_not_back() {
    let store = MemoryStore::new();
    let (_broker, address) = start_on(&store, usize::MAX);
    let persistent = connect("c", PERSISTENT, &FOR_EVER);
    let mut peer = Peer::connected(address, &persistent);
    assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
    let mut peer = Peer::open(address, &connect("c", CLEAN_START, &[]));
    assert!(!session_present(&peer.read()));
    assert_eq!(store.state(), MemoryState::default());
    let (_broker, address) = start_on(&crashed(&store), usize::MAX);
    assert!(!session_present(&Peer::open(address, &persistent).read()));
}

/// However it ended, and also if the disk was full when it did: CONNACK of a session that is not stored says that there
/// is none, and what it says must be durable. While it cannot be, the client is refused.
#[test]
fn a_session_that_ended_before_is_gone_for_good_when_a_clean_one_begins() {
    let goodbyes: [&[u8]; 2] = [
        // DISCONNECT with Session Expiry Interval 0
        &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0],
        // Without one: its second passes.
        &DISCONNECT,
    ];
    for goodbye in goodbyes {
        let store = MemoryStore::new();
        let (_broker, address) = start_on(&store, usize::MAX);
        let one_second = [0x11, 0, 0, 0, 1];
        let mut peer = Peer::connected(address, &connect("c", PERSISTENT, &one_second));
        assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
        // The record of when it went is written; the end fails.
        let fails_at = store.writes() + if goodbye.len() > 2 { 1 } else { 2 };
        store.fail_at(fails_at, Failure::Full);
        peer.send(goodbye);
        until(|| store.writes() >= fails_at);
        assert_eq!(store.state().sessions.len(), 1);
        let clean = connect("c", PERSISTENT, &[]);
        store.set_failing(Some(Failure::Full));
        // The broker knows it by the second try.
        until(|| store.writes() > fails_at);
        // CONNACK, Server unavailable
        assert_eq!(Peer::open(address, &clean).read()[3], 0x88);
        assert_eq!(Peer::open(address, &connect_v311("c")).read()[3], 3);
        store.set_failing(None);
        until(|| Peer::open(address, &clean).read()[3] == 0);
        assert_eq!(store.state().sessions.len(), 0);
    }
}

/// [MQTT-4.6.0-2], also when one of them waits for nothing and a SUBACK after it for the store.
#[test]
fn acknowledgements_come_in_the_order_of_their_packets() {
    let store = MemoryStore::new();
    let (_broker, address) = start_on(&store, usize::MAX);
    let mut peer = Peer::connected(address, &connect("c", PERSISTENT, &FOR_EVER));
    // There is nothing to clear.
    let clears = publish(0x33, "t", 2, b"");
    let retains = publish(0x33, "t", 3, b"x");
    peer.send(&[clears, subscribe("other", 1), retains].concat());
    let kinds = [0; 3].map(|_| {
        let packet = peer.read();
        (packet[0], packet[3])
    });
    assert_eq!(kinds, [(0x40, 2), (0x90, 1), (0x40, 3)]);
}

/// CONNECT of 3.1.1 with Clean Session: no Receive Maximum holds such a client back.
fn connect_v311(client_id: &str) -> Vec<u8> {
    let body = [&b"\0\x04MQTT\x04\x02\0\0"[..], &text(client_id)].concat();
    packet(0x10, &body)
}

/// PUBLISH of 3.1.1 with a number as its payload, and with its identifier.
fn numbered(first: u8, topic: &str, number: u16) -> Vec<u8> {
    let id = (number + 1).to_be_bytes();
    let id: &[u8] = if first & 6 == 0 { &[] } else { &id };
    let payload = [&number.to_be_bytes()[..], &[b'.'; 98]].concat();
    packet(first, &[&text(topic), id, &payload].concat())
}

/// Whoever publishes what must be stored is not read while too much waits for the disk. All others go on, and so does it
/// when there is room.
#[test]
fn a_flood_stops_at_a_full_disk_and_goes_on_after() {
    let store = MemoryStore::new();
    let limits = "  max-unwritten-bytes: 100k\n";
    let (broker, address) = start_with(&store, 0, Durability::Group, limits);
    let services = Arc::clone(&broker.running.as_ref().unwrap().services);
    let mut peer = Peer::connected(address, &connect("away", PERSISTENT, &FOR_EVER));
    assert_eq!(peer.ask(&subscribe("t", 1))[0], 0x90);
    peer.send(&DISCONNECT);
    until(|| all_are_away(&store));
    let mut other = Peer::connected(address, &connect("other", CLEAN_START, &[]));
    assert_eq!(other.ask(&subscribe("free", 1))[0], 0x90);
    store.set_failing(Some(Failure::Full));

    let count = 60_000;
    let mut sender = Peer::connected(address, &connect_v311("sender"));
    let mut flood = Peer(sender.0.try_clone().unwrap());
    let flooding = crate::thread::spawn("flood", 0, move || {
        (0..count).for_each(|number| flood.send(&numbered(0x32, "t", number)));
    });
    until(|| services.backlog.is_full());
    // What it brings beside publications goes on.
    let mut second = Peer::connected(address, &connect("second", CLEAN_START, &[]));
    second.send(&publish(0x32, "t", 9, b"x"));
    assert_eq!(second.ask(&PINGREQ), PINGRESP);
    until(|| services.backlog.stops("second"));
    assert_eq!(second.ask(&PINGREQ), PINGRESP);
    second.send(&publish(0x32, "t", 10, b"x"));
    // What is not stored goes on.
    let mut third = Peer::connected(address, &connect("third", CLEAN_START, &[]));
    for id in 1..100 {
        assert_eq!(third.ask(&publish(0x32, "free", id, b"y"))[..4], puback(id));
        let came = other.read();
        other.send(&puback(came[9]));
    }
    until(|| services.backlog.stops("sender"));
    let (tries, received) = (store.writes(), services.metrics.publish_received.value());
    until(|| store.writes() > tries + 1);
    assert_eq!(services.metrics.publish_received.value(), received);
    let bytes = services.backlog.bytes();
    assert!(bytes < 20_000_000, "{bytes}");

    store.set_failing(None);
    for number in 0..count {
        let [high, low] = (number + 1).to_be_bytes();
        assert_eq!(sender.read(), [0x40, 2, high, low]);
    }
    flooding.unwrap().join().unwrap();
    assert_eq!(second.read()[..4], puback(9));
    assert_eq!(second.read()[..4], puback(10));
    assert_eq!(store.state().entries.len(), usize::from(count) + 2);
    until(|| services.backlog.bytes() == 0);
}

/// A client that goes is not waited for, and neither is one whose place another takes.
#[test]
fn who_is_stopped_at_a_full_disk_may_end() {
    let store = MemoryStore::new();
    let limits = "  max-unwritten-bytes: 1\n";
    let (broker, address) = start_with(&store, 0, Durability::Group, limits);
    let services = Arc::clone(&broker.running.as_ref().unwrap().services);
    store.set_failing(Some(Failure::Full));
    let retained = publish(0x31, "t", 0, b"x");
    let stopped = |client_id| {
        let mut peer = Peer::connected(address, &connect(client_id, CLEAN_START, &[]));
        peer.send(&retained);
        until(|| services.backlog.is_full());
        peer.send(&retained);
        until(|| services.backlog.stops(client_id));
        peer.send(&retained);
        peer
    };
    let one = stopped("one");
    let mut two = stopped("two");
    drop(one);
    until(|| {
        services
            .connections
            .load(std::sync::atomic::Ordering::Relaxed)
            == 1
    });
    let _three = Peer::connected(address, &connect("two", CLEAN_START, &[]));
    // DISCONNECT, Session taken over
    assert_eq!((two.read()[0], two.0.read(&mut [0]).unwrap()), (0xE0, 0));
    drop(broker);
}

/// Otherwise every new connection would bring another read's worth.
#[test]
fn who_is_stopped_at_a_full_disk_and_comes_back_is_still() {
    let store = MemoryStore::new();
    let limits = "  max-unwritten-bytes: 1\n";
    let (broker, address) = start_with(&store, 0, Durability::Group, limits);
    let services = Arc::clone(&broker.running.as_ref().unwrap().services);
    store.set_failing(Some(Failure::Full));
    let mut sender = Peer::connected(address, &connect_v311("sender"));
    sender.send(&numbered(0x33, "t", 0));
    until(|| services.backlog.stops("sender"));
    let received = services.metrics.publish_received.value();
    drop(sender);
    let mut sender = Peer::connected(address, &connect_v311("sender"));
    // PINGREQ goes on and PUBLISH does not.
    let ping_and_publish = [PINGREQ.to_vec(), numbered(0x33, "t", 0)].concat();
    assert_eq!(sender.ask(&ping_and_publish), PINGRESP);
    assert_eq!(services.metrics.publish_received.value(), received);
    store.set_failing(None);
    assert_eq!(sender.read(), puback(1));
    assert_eq!(services.metrics.publish_received.value(), received + 1);
}

/// Its DISCONNECT stands behind a PUBLISH that waits. [MQTT-3.14.4-3]
#[test]
fn who_is_stopped_at_a_full_disk_may_say_goodbye() {
    let store = MemoryStore::new();
    let limits = "  max-unwritten-bytes: 1\n";
    let (broker, address) = start_with(&store, 0, Durability::Group, limits);
    let services = Arc::clone(&broker.running.as_ref().unwrap().services);
    store.set_failing(Some(Failure::Full));
    let mut watcher = Peer::connected(address, &connect("watcher", CLEAN_START, &[]));
    assert_eq!(watcher.ask(&subscribe("will", 0))[0], 0x90);
    let connections = || {
        services
            .connections
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let body = [
        b"\0\x04MQTT\x04\x06\0\0",
        &text("sender")[..],
        &text("will"),
        &text("x"),
    ]
    .concat();
    // Once in the reader's buffer, and once in the kernel's; and without it.
    for (count, goodbye) in [(1, &DISCONNECT[..]), (1000, &DISCONNECT), (1, &[])] {
        let mut sender = Peer::connected(address, &packet(0x10, &body));
        sender.send(&numbered(0x31, "t", 0));
        until(|| services.backlog.stops("sender"));
        sender.send(&[numbered(0x31, "t", 0).repeat(count), goodbye.to_vec()].concat());
        drop(sender);
        until(|| connections() == 1);
        let answer = watcher.ask(&subscribe("other", 0));
        assert_eq!(answer[0], if goodbye.is_empty() { 0x30 } else { 0x90 });
    }
}

/// With acknowledgements that wait for nothing, too.
#[test]
fn a_flood_is_written_before_its_interval_is_over() {
    let store = MemoryStore::new();
    let limits = "  max-unwritten-bytes: 100k\n";
    let never = Durability::Interval(Duration::from_secs(100_000));
    let (broker, address) = start_with(&store, 0, never, limits);
    let services = Arc::clone(&broker.running.as_ref().unwrap().services);
    let mut sender = Peer::connected(address, &connect_v311("sender"));
    for number in 0..2_000 {
        let topic = format!("t/{number}");
        sender.send(&numbered(0x31, &topic, number));
    }
    assert_eq!(sender.ask(&PINGREQ), PINGRESP);
    assert!(services.backlog.bytes() < 1_000_000);
    until(|| store.state().retained.len() > 1_000);
}

/// [MQTT-4.6.0-2], also when what came behind them ends the connection.
#[test]
fn acknowledgements_come_in_the_order_of_their_packets_before_a_goodbye() {
    let store = MemoryStore::new();
    let limits = "  receive-maximum: 1\n";
    let (_broker, address) = start_with(&store, 0, Durability::Group, limits);
    let mut peer = Peer::connected(address, &connect("c", PERSISTENT, &FOR_EVER));
    // There is nothing to clear: this one waits for nothing.
    let clears = publish(0x33, "t", 2, b"");
    let retains = publish(0x33, "t", 3, b"x");
    let [first, too_many] = [4, 5].map(|id| publish(0x34, "u", id, b"y"));
    peer.send(&[clears, retains, first, too_many].concat());
    let kinds = [0; 4].map(|_| {
        let packet = peer.read();
        (packet[0], packet[3])
    });
    assert_eq!(kinds[..3], [(0x40, 2), (0x40, 3), (0x50, 4)]);
    assert_eq!(kinds[3].0, 0xE0);
}
