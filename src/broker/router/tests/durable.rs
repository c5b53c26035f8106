//! What a restart finds again, and what waits for the store.

use super::*;
use crate::store::{Durability, Failure, MemoryState, MemoryStore};

const FOR_EVER: [u8; 5] = [0x11, 0xFF, 0xFF, 0xFF, 0xFF];

fn start_on(store: &MemoryStore, queue_memory: usize) -> (Broker, SocketAddr) {
    let store = store.clone();
    let open = move || Ok(Box::new(store.clone()) as Box<_>);
    let settings = "limits:\n  max-queued-messages: 0\n";
    let mut broker = Broker::new(config(settings)).store(Durability::Group, queue_memory, open);
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
/// is none, and what it says must be durable.
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
        assert!(!session_present(&Peer::open(address, &clean).read()));
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
