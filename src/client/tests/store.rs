//! What survives a restart of the program, and what must be stored before which packet leaves.

use std::sync::atomic::{AtomicBool, Ordering};

use super::server::{DEADLINE, id, message, ok, serve};
use super::*;
use crate::client::options::ConnectOptions;
use crate::client::store::StorePlace;
use crate::store::{Change, EntryState, Failure, MemoryState, MemoryStore, StoreError};

/// With a store, and a session that the server keeps.
fn storing(store: &MemoryStore) -> ConnectOptions {
    let mut options = options().clean_start(false);
    options.store = Some(StorePlace::Memory(store.clone()));
    options
}

fn states(state: &MemoryState) -> Vec<EntryState> {
    state.entries.values().map(|entry| entry.state).collect()
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = now() + DEADLINE;
    while !is_so() {
        assert!(now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// What a program leaves behind that is killed with one message of QoS 1 and two of QoS 2 on their way, of which the server
/// has said of the last that it came.
fn killed_in_flight() -> MemoryState {
    let store = MemoryStore::new();
    let seen = store.clone();
    let (url, server) = serve(move |server| {
        let (mut peer, _) = server.welcome(false);
        let ids: Vec<_> = (0..3).map(|_| peer.publish().packet_id.unwrap()).collect();
        peer.send(&Packet::Pubrec(ok(ids[2])));
        assert_eq!(peer.receive(), Packet::Pubrel(ok(ids[2])));
        let state = seen.state();
        peer.until_end();
        state
    });
    let client = storing(&store).connect(&url).unwrap();
    for (payload, qos) in [("1", QOS1), ("2", QOS2), ("3", QOS2)] {
        let options = PublishOptions::new().qos(qos).retain(true).utf8();
        let _ = client.publish_nowait("a/b", payload, options).unwrap();
    }
    // The state is of before the goodbye.
    eventually("PUBREL", || {
        states(&store.state()).contains(&EntryState::Released(id(3)))
    });
    drop(client);
    server.join().unwrap()
}

/// [MQTT-4.3.3-4]
#[test]
fn qos2_is_stored_before_publish_and_before_pubrel_leave() {
    let store = MemoryStore::new();
    let seen = store.clone();
    let (url, server) = serve(move |server| {
        let (mut peer, _) = server.welcome(false);
        let id = peer.publish().packet_id.unwrap();
        assert_eq!(states(&seen.state()), [EntryState::Sent(id)]);
        assert_eq!(seen.state().messages.len(), 1);
        peer.send(&Packet::Pubrec(ok(id)));
        assert_eq!(peer.receive(), Packet::Pubrel(ok(id)));
        assert_eq!(states(&seen.state()), [EntryState::Released(id)]);
        assert!(seen.state().messages.is_empty());
        peer.send(&Packet::Pubcomp(ok(id)));
        peer.until_end();
    });
    let client = storing(&store).connect(&url).unwrap();
    client.publish("a", "x", QOS2).unwrap();
    assert_eq!(client.in_flight(), 0);
    drop(client);
    server.join().unwrap();
    assert!(store.state().entries.is_empty());
    assert_eq!(store.state().sessions.len(), 1);
}

/// [MQTT-4.3.3-8], [MQTT-4.3.3-11]
#[test]
fn an_incoming_identifier_is_stored_before_pubrec_and_gone_before_pubcomp() {
    let store = MemoryStore::new();
    let peers_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&peers_done);
    let seen = store.clone();
    let (url, server) = serve(move |server| {
        let (mut peer, _) = server.welcome(false);
        peer.send(&message(QOS2, 7, "x"));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(7))));
        assert_eq!(seen.state().incoming.len(), 1);
        peer.send(&Packet::Pubrel(ok(id(7))));
        assert_eq!(peer.receive(), Packet::Pubcomp(ok(id(7))));
        assert!(seen.state().incoming.is_empty());
        done.store(true, Ordering::Release);
        peer.until_end();
    });
    let client = storing(&store).connect(&url).unwrap();
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "x");
    eventually("PUBCOMP", || peers_done.load(Ordering::Acquire));
    drop(client);
    server.join().unwrap();
}

/// [MQTT-4.4.0-1], [MQTT-3.3.1-1]
#[test]
fn a_new_program_goes_on_with_the_session_of_the_server() {
    let store = MemoryStore::with_state(killed_in_flight());
    let seen = store.clone();
    let (url, server) = serve(move |server| {
        let (mut peer, connect) = server.welcome(true);
        assert!(!connect.clean_start);
        for (number, qos) in [(1, QOS1), (2, QOS2)] {
            let publish = peer.publish();
            assert!(publish.dup && publish.retain);
            assert_eq!((publish.packet_id, publish.qos), (Some(id(number)), qos));
            assert_eq!(publish.payload, number.to_string());
            assert_eq!(&*publish.topic, "a/b");
            assert_eq!(publish.properties.unwrap().payload_format_utf8, Some(true));
        }
        assert_eq!(peer.receive(), Packet::Pubrel(ok(id(3))));
        peer.send(&Packet::Pubcomp(ok(id(3))));
        peer.send(&Packet::Puback(ok(id(1))));
        peer.send(&Packet::Pubrec(ok(id(2))));
        assert_eq!(peer.receive(), Packet::Pubrel(ok(id(2))));
        assert_eq!(states(&seen.state()), [EntryState::Released(id(2))]);
        peer.send(&Packet::Pubcomp(ok(id(2))));
        let next = peer.take_qos1();
        assert_eq!(next.payload, "4");
        peer.until_end();
    });
    let client = storing(&store).connect(&url).unwrap();
    eventually("nothing in flight", || client.in_flight() == 0);
    client.publish("a", "4", QOS1).unwrap();
    drop(client);
    server.join().unwrap();
    assert!(store.state().entries.is_empty());
    assert!(store.state().messages.is_empty());
}

/// Time goes on while no program runs.
#[test]
fn a_stored_message_is_sent_with_what_is_left_of_its_expiry() {
    let store = MemoryStore::new();
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let publish = peer.publish();
        peer.until_end();
        publish.properties.unwrap().message_expiry_interval
    });
    let client = storing(&store).connect(&url).unwrap();
    let options = PublishOptions::new()
        .qos(QOS1)
        .message_expiry(Duration::from_secs(3600));
    let _ = client.publish_nowait("a", "x", options).unwrap();
    eventually("the message", || !store.state().messages.is_empty());
    drop(client);
    assert_eq!(server.join().unwrap(), Some(3600));
    let mut state = store.state();
    for record in state.messages.values_mut() {
        let expires_at = record.expires_at.as_mut().unwrap();
        expires_at.0 -= 3_000_000;
    }
    let store = MemoryStore::with_state(state);
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(true);
        let publish = peer.publish();
        peer.until_end();
        publish.properties.unwrap().message_expiry_interval
    });
    let client = storing(&store).connect(&url).unwrap();
    drop(client);
    let left = server.join().unwrap().unwrap();
    assert!((1..=600).contains(&left), "{left}");
}

#[test]
fn without_a_session_stored_messages_are_new_and_in_order() {
    let store = MemoryStore::with_state(killed_in_flight());
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        for number in 1..3 {
            let publish = peer.publish();
            assert!(!publish.dup);
            assert_eq!(publish.payload, number.to_string());
        }
        assert_eq!(peer.receive(), Packet::Pubrel(ok(id(3))));
        let unknown = ReasonCode::PacketIdentifierNotFound;
        peer.send(&Packet::Pubcomp(crate::proto::packet::Ack::new(
            id(3),
            unknown,
        )));
        peer.send(&Packet::Puback(ok(id(1))));
        peer.send(&Packet::Pubrec(ok(id(2))));
        assert_eq!(peer.receive(), Packet::Pubrel(ok(id(2))));
        peer.send(&Packet::Pubcomp(ok(id(2))));
        peer.until_end();
    });
    let client = storing(&store).connect(&url).unwrap();
    eventually("nothing in flight", || client.in_flight() == 0);
    drop(client);
    server.join().unwrap();
    assert!(store.state().entries.is_empty());
}

/// [MQTT-4.3.3-10]
#[test]
fn a_message_that_an_earlier_program_took_is_not_delivered_again() {
    let before = MemoryStore::new();
    let seen = before.clone();
    let (url, server) = serve(move |server| {
        let (mut peer, _) = server.welcome(false);
        peer.send(&message(QOS2, 7, "once"));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(7))));
        let state = seen.state();
        peer.until_end();
        state
    });
    let client = storing(&before).connect(&url).unwrap();
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "once");
    eventually("the identifier", || !before.state().incoming.is_empty());
    drop(client);
    let store = MemoryStore::with_state(server.join().unwrap());
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(true);
        peer.send(&message(QOS2, 7, "once"));
        peer.send(&message(QOS1, 8, "next"));
        assert_eq!(peer.receive(), Packet::Pubrec(ok(id(7))));
        peer.until_end();
    });
    let client = storing(&store).connect(&url).unwrap();
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "next");
    drop(client);
    server.join().unwrap();
}

/// The identifier stands for another message now.
#[test]
fn a_server_without_the_session_begins_to_count_anew() {
    let state = killed_in_flight();
    let (key, _) = state.sessions.first_key_value().unwrap();
    let mut with_incoming = state.clone();
    with_incoming.apply_change(Change::PutIncoming(*key, id(7)));
    let store = MemoryStore::with_state(with_incoming);
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.send(&message(QOS2, 7, "another"));
        peer.until_end();
    });
    let client = storing(&store).connect(&url).unwrap();
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "another");
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_message_that_is_in_flight_at_the_goodbye_is_sent_by_the_next_connection() {
    let store = MemoryStore::new();
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let first = peer.publish();
        peer.until_end();
        drop(peer);
        let (mut peer, _) = server.welcome(true);
        let again = peer.take_qos1();
        assert!(again.dup);
        assert_eq!(again.packet_id, first.packet_id);
        peer.until_end();
    });
    let client = storing(&store).connect(&url).unwrap();
    let token = client.publish_nowait("a", "x", QOS1).unwrap();
    client.disconnect().unwrap();
    assert!(matches!(token.wait(), Err(ClientError::NotConnected)));
    client.reconnect(None).unwrap();
    eventually("nothing in flight", || client.in_flight() == 0);
    drop(client);
    server.join().unwrap();
    assert!(store.state().entries.is_empty());
}

#[test]
fn a_full_disk_holds_back_all_but_pings_until_there_is_room() {
    let store = MemoryStore::new();
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        assert_eq!(peer.receive(), Packet::Pingreq);
        peer.send(&Packet::Pingresp);
        let (first, second) = (peer.publish(), peer.publish());
        assert_eq!(
            (&first.payload[..], &second.payload[..]),
            (&b"1"[..], &b"2"[..])
        );
        let id = first.packet_id.unwrap();
        peer.send(&Packet::Pubrec(ok(id)));
        assert_eq!(peer.receive(), Packet::Pubrel(ok(id)));
        peer.send(&Packet::Pubcomp(ok(id)));
        peer.until_end();
    });
    let client = storing(&store).connect(&url).unwrap();
    eventually("the session", || store.writes() == 1);
    store.fail_at(2, Failure::Full);
    let token = client.publish_nowait("a", "1", QOS2).unwrap();
    client.publish("a", "2", QOS0).unwrap();
    client.ping(DEADLINE).unwrap();
    token.wait_timeout(DEADLINE).unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_failed_sync_ends_the_client_for_good() {
    let store = MemoryStore::new();
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.until_end()
    });
    let client = storing(&store).connect(&url).unwrap();
    eventually("the session", || store.writes() == 1);
    store.fail_at(2, Failure::Sync);
    let is_sync = |error: &ClientError| matches!(error, ClientError::Store(error) if matches!(**error, StoreError::Sync(_)));
    let error = client.publish("a", "1", QOS2).unwrap_err();
    assert!(is_sync(&error), "{error}");
    let error = client.reconnect(None).unwrap_err();
    assert!(is_sync(&error), "{error}");
    assert_eq!(server.join().unwrap(), None, "nothing has left");
}

#[test]
fn a_store_needs_a_client_identifier_and_a_place() {
    let nameless = ConnectOptions::new().store("/dev/null/store");
    let error = nameless.connect("mem://nobody").unwrap_err();
    assert!(matches!(&error, ClientError::InvalidOption(invalid) if invalid.option == "store"));
    let nowhere = options().store("/dev/null/store");
    let error = nowhere.connect("mem://nobody").unwrap_err();
    assert!(matches!(error, ClientError::Store(_)), "{error}");
}

#[test]
fn the_store_of_a_broker_is_refused() {
    let mut state = killed_in_flight();
    for record in state.sessions.values_mut() {
        record.listener = "default".into();
    }
    let store = MemoryStore::with_state(state);
    let error = storing(&store).connect("mem://nobody").unwrap_err();
    assert!(matches!(error, ClientError::Store(_)), "{error}");
}

#[test]
fn clients_with_other_identifiers_keep_apart_in_one_file() {
    let store = MemoryStore::with_state(killed_in_flight());
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        assert_eq!(peer.take_qos2().payload, "mine");
        peer.until_end();
    });
    let client = storing(&store).client_id("other").connect(&url).unwrap();
    client.publish("a", "mine", QOS2).unwrap();
    drop(client);
    server.join().unwrap();
    assert_eq!(store.state().entries.len(), 3);
    assert_eq!(store.state().sessions.len(), 2);
}
