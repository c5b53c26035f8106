//! Enhanced authentication of MQTT 5.0: AUTH at CONNECT and afterwards, with SCRAM-SHA-256.

use hbmqtt::scram::{ClientExchange, Credentials};

use crate::support::packet::{auth, subscribe_with};
use crate::support::*;

const METHOD: u8 = 0x15;
const DATA: u8 = 0x16;
const SCRAM: &str = "SCRAM-SHA-256";
const CONTINUE: u8 = 0x18;
const RE_AUTHENTICATE: u8 = 0x19;

fn method(name: &str) -> Property {
    Property::Text(METHOD, name.to_owned())
}

fn data(bytes: impl AsRef<[u8]>) -> Property {
    Property::Binary(DATA, bytes.as_ref().to_vec())
}

fn scram(reason: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    auth(reason, &[method(SCRAM), data(bytes)])
}

fn line(user: &str, password: &str) -> String {
    let credentials = Credentials::new(password.as_bytes(), 4096).unwrap();
    format!("{user}:{credentials}\n")
}

/// A broker that knows `alice` and `bob`, and nobody else.
fn broker() -> (Broker, TempDir) {
    let directory = TempDir::new();
    let users = line("alice", "secret") + &line("bob", "secret");
    let file = directory.file("scram", users);
    let settings = format!("auth:\n  allow-anonymous: off\n  scram-file: {file}\n");
    (Broker::with(&settings), directory)
}

/// CONNECT with the first message of an exchange for this user.
fn begin(client_id: &str, user: &str, password: &str) -> (ClientExchange, Connect) {
    let (exchange, first) = ClientExchange::new(user, password.as_bytes(), "0123456789");
    let connect = Connect::new(V5, client_id)
        .property(method(SCRAM))
        .property(data(first));
    (exchange, connect)
}

/// The properties of the AUTH that comes, which has this reason and the method.
#[track_caller]
fn expect_auth(client: &mut Client, expected: u8) -> Vec<u8> {
    let found = client.await_packet("AUTH", |packet| match packet {
        Packet::Auth { reason, properties } => Some((*reason, properties.clone())),
        _ => None,
    });
    let (reason, properties) = found;
    assert_eq!(reason, expected);
    assert_eq!(properties[0], method(SCRAM));
    match &properties[1..] {
        [Property::Binary(DATA, bytes)] => bytes.clone(),
        other => panic!("expected authentication data, got {other:?}"),
    }
}

/// Sends CONNECT and answers the challenge; CONNACK is next.
fn prove(broker: &Broker, client_id: &str, user: &str, password: &str) -> (ClientExchange, Client) {
    let (mut exchange, connect) = begin(client_id, user, password);
    let mut client = Client::open(broker);
    client.version = V5;
    client.send(connect.encode());
    let challenge = expect_auth(&mut client, CONTINUE);
    client.send(scram(CONTINUE, exchange.answer(&challenge).unwrap()));
    (exchange, client)
}

/// A client that is connected as this user.
fn connected(broker: &Broker, client_id: &str, user: &str) -> Client {
    let (exchange, mut client) = prove(broker, client_id, user, "secret");
    match client.receive() {
        Packet::Connack {
            code: 0,
            properties,
            ..
        } => {
            assert!(properties.contains(&method(SCRAM)));
            let proof = properties.iter().find_map(|property| match property {
                Property::Binary(DATA, bytes) => Some(bytes.clone()),
                _ => None,
            });
            exchange.verify(&proof.unwrap()).unwrap();
        }
        other => panic!("expected an accepting CONNACK, got {other:?}"),
    }
    client
}

/// CONNACK with this code, and the end.
#[track_caller]
fn expect_refusal(mut client: Client, expected: u8) {
    match client.receive() {
        Packet::Connack {
            code,
            session_present: false,
            ..
        } => assert_eq!(code, expected),
        other => panic!("expected a refusing CONNACK, got {other:?}"),
    }
    client.expect_end();
}

/// [MQTT-4.12.0-2], [MQTT-4.12.0-3], [MQTT-4.12.0-5]: the packets of the exchange, and CONNACK proves the broker.
#[test]
fn scram_lets_a_user_in_and_proves_the_broker() {
    let (broker, _directory) = broker();
    let mut client = connected(&broker, "ann", "alice");
    client.expect_alive();
    // The session belongs to the user that was proved.
    let (_, other) = prove(&broker, "ann", "bob", "secret");
    expect_refusal(other, 0x87);
    client.expect_alive();
}

/// [MQTT-4.12.0-4]: the same answer to a wrong password and to a name that does not exist.
#[test]
fn a_wrong_proof_is_refused() {
    let (broker, _directory) = broker();
    for (user, password) in [("alice", "wrong"), ("nobody", "secret")] {
        let (_, client) = prove(&broker, "x", user, password);
        expect_refusal(client, 0x87);
    }
}

/// [MQTT-4.12.0-1]
#[test]
fn an_unknown_method_is_refused() {
    let (broker, _directory) = broker();
    for name in ["SCRAM-SHA-1", "", "GS2-KRB5"] {
        let connect = Connect::new(V5, "m").property(method(name));
        assert_eq!(Client::refused(&broker, &connect), 0x8c, "{name}");
    }
    let without = Broker::start();
    let (_, connect) = begin("m", "alice", "secret");
    assert_eq!(Client::refused(&without, &connect), 0x8c);
}

/// A client may let the broker begin, as SASL does.
#[test]
fn a_first_message_may_come_in_auth() {
    let (broker, _directory) = broker();
    let (mut exchange, first) = ClientExchange::new("alice", b"secret", "0123456789");
    let mut client = Client::open(&broker);
    client.version = V5;
    client.send(Connect::new(V5, "late").property(method(SCRAM)).encode());
    assert_eq!(expect_auth(&mut client, CONTINUE), b"");
    client.send(scram(CONTINUE, first));
    let challenge = expect_auth(&mut client, CONTINUE);
    client.send(scram(CONTINUE, exchange.answer(&challenge).unwrap()));
    assert!(matches!(client.receive(), Packet::Connack { code: 0, .. }));
}

/// [MQTT-3.1.2-30], [MQTT-4.12.0-5]: what may not come before CONNACK; the answer is a CONNACK, as DISCONNECT may not
/// come before it. [MQTT-3.14.0-1]
#[test]
fn only_auth_of_the_same_method_may_come_before_connack() {
    let (broker, _directory) = broker();
    for (bytes, code) in [
        (PINGREQ.to_vec(), 0x82),
        (Publish::new("a", 0, "x").encode(V5), 0x82),
        (begin("twice", "alice", "secret").1.encode(), 0x82),
        (auth(CONTINUE, &[method("OTHER"), data("x")]), 0x82),
        (auth(CONTINUE, &[data("x")]), 0x82),
        (scram(RE_AUTHENTICATE, "x"), 0x82),
        (scram(0, "x"), 0x82),
        (unhex("f1 00"), 0x81),
        (unhex("f0 03 1801ff"), 0x81),
    ] {
        let mut client = Client::open(&broker);
        client.version = V5;
        client.send(begin("first", "alice", "secret").1.encode());
        expect_auth(&mut client, CONTINUE);
        client.send(&bytes);
        match client.receive() {
            Packet::Connack { code: found, .. } => assert_eq!(found, code, "{}", hex(&bytes)),
            other => panic!("{other:?} for {}", hex(&bytes)),
        }
        client.expect_end();
    }
    // DISCONNECT may come, and is not answered.
    let mut client = Client::open(&broker);
    client.version = V5;
    client.send(begin("leaves", "alice", "secret").1.encode());
    expect_auth(&mut client, CONTINUE);
    client.send(DISCONNECT);
    client.expect_end();
    broker.wait_for_log("leaves (127.0.0.1:");
}

#[test]
fn an_exchange_ends_with_the_deadline_of_the_handshake() {
    let directory = TempDir::new();
    let file = directory.file("scram", line("alice", "secret"));
    let broker = Broker::with(&format!(
        "auth: {{scram-file: {file}}}\nlimits: {{connect-timeout: 1s}}\n"
    ));
    let mut client = Client::open(&broker);
    client.version = V5;
    client.send(begin("slow", "alice", "secret").1.encode());
    expect_auth(&mut client, CONTINUE);
    client.expect_end();
    broker.wait_for_log("slow (127.0.0.1:");
}

#[test]
fn a_user_name_beside_the_method_must_be_the_one_that_is_proved() {
    let (broker, _directory) = broker();
    for (user, code) in [("alice", 0), ("bob", 0x87)] {
        let (mut exchange, connect) = begin("named", "alice", "secret");
        let mut client = Client::open(&broker);
        client.version = V5;
        client.send(connect.user(user).encode());
        let challenge = expect_auth(&mut client, CONTINUE);
        client.send(scram(CONTINUE, exchange.answer(&challenge).unwrap()));
        match client.receive() {
            Packet::Connack { code: found, .. } => assert_eq!(found, code),
            other => panic!("{other:?}"),
        }
    }
}

/// [MQTT-3.1.2-24]
#[test]
fn a_challenge_larger_than_the_client_takes_is_not_sent() {
    let (broker, _directory) = broker();
    let (_, connect) = begin("small", "alice", "secret");
    let connect = connect.property(Property::Four(0x27, 20));
    assert_eq!(Client::refused(&broker, &connect), 0x95);
}

/// [MQTT-4.12.1-1]: messages flow while a client authenticates again.
#[test]
fn a_connected_client_authenticates_again() {
    let (broker, _directory) = broker();
    let mut client = connected(&broker, "again", "alice");
    client.subscribe("again/#", 1);
    for round in 0..2 {
        let (mut exchange, first) = ClientExchange::new("alice", b"secret", "9876543210");
        client.send(scram(RE_AUTHENTICATE, first));
        let challenge = expect_auth(&mut client, CONTINUE);
        client.publish("again/between", 1, format!("{round}"));
        let between = client.receive_publish();
        assert_eq!(between.text(), format!("{round}"));
        client.acknowledge(&between);
        client.send(scram(CONTINUE, exchange.answer(&challenge).unwrap()));
        let proof = expect_auth(&mut client, 0);
        exchange.verify(&proof).unwrap();
    }
    client.expect_alive();
}

/// [MQTT-4.12.1-2]: what fails ends the connection.
#[test]
fn a_failed_re_authentication_disconnects() {
    let (broker, _directory) = broker();
    for (user, password) in [("alice", "wrong"), ("bob", "secret"), ("nobody", "x")] {
        let mut client = connected(&broker, "fails", "alice");
        let (mut exchange, first) = ClientExchange::new(user, password.as_bytes(), "9876543210");
        client.send(scram(RE_AUTHENTICATE, first));
        let challenge = expect_auth(&mut client, CONTINUE);
        client.send(scram(CONTINUE, exchange.answer(&challenge).unwrap()));
        assert_eq!(client.expect_close(), Some(0x87), "{user}");
    }
}

/// [MQTT-4.12.0-5], [MQTT-4.12.1-1], [MQTT-4.12.0-6]
#[test]
fn auth_out_of_turn_is_a_protocol_error() {
    let (broker, _directory) = broker();
    for bytes in [
        auth(RE_AUTHENTICATE, &[method("OTHER"), data("x")]),
        scram(CONTINUE, "x"),
        scram(0, "x"),
        unhex("f0 00"),
    ] {
        let mut client = connected(&broker, "turn", "alice");
        client.send(&bytes);
        assert_eq!(client.expect_close(), Some(0x82), "{}", hex(&bytes));
    }
    // A second beginning before the first has ended.
    let mut client = connected(&broker, "turn", "alice");
    let (_, first) = ClientExchange::new("alice", b"secret", "9876543210");
    client.send(scram(RE_AUTHENTICATE, &first));
    expect_auth(&mut client, CONTINUE);
    client.send(scram(RE_AUTHENTICATE, &first));
    assert_eq!(client.expect_close(), Some(0x82));
    // A client that named no method.
    let open = Broker::start();
    for bytes in [scram(RE_AUTHENTICATE, "x"), unhex("f0 00")] {
        let mut client = Client::connect(&open, V5);
        client.send(&bytes);
        assert_eq!(client.expect_close(), Some(0x82));
    }
}

/// The file is read anew on HUP: who is no longer in it fails at the next authentication.
#[test]
fn hup_reads_the_scram_file_anew() {
    let (broker, directory) = broker();
    let mut client = connected(&broker, "reload", "alice");
    directory.file("scram", line("bob", "secret"));
    broker.signal("HUP");
    broker.wait_for_log("configuration reloaded");
    client.expect_alive();
    let (mut exchange, first) = ClientExchange::new("alice", b"secret", "9876543210");
    client.send(scram(RE_AUTHENTICATE, first));
    let challenge = expect_auth(&mut client, CONTINUE);
    client.send(scram(CONTINUE, exchange.answer(&challenge).unwrap()));
    assert_eq!(client.expect_close(), Some(0x87));
    connected(&broker, "reload", "bob");
}

/// The lines are those of `hbmqtt_passwd --scram`.
#[test]
fn the_password_tool_makes_the_file() {
    let directory = TempDir::new();
    let file = directory.path().join("scram").display().to_string();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hbmqtt_passwd"))
            .args(arguments)
            .output()
            .unwrap();
        output.status.code()
    };
    assert_eq!(
        run(&["--scram", "-c", "-b", &file, "alice", "secret"]),
        Some(0)
    );
    assert_eq!(
        run(&["--scram", "--verify", "-b", &file, "alice", "secret"]),
        Some(0)
    );
    assert_eq!(
        run(&["--scram", "--verify", "-b", &file, "alice", "wrong"]),
        Some(1)
    );
    assert_eq!(
        run(&["--scram", "-H", "sha512-crypt", "-b", &file, "a", "b"]),
        Some(2)
    );
    let broker = Broker::with(&format!("auth: {{scram-file: {file}}}\n"));
    let mut client = connected(&broker, "tool", "alice");
    client.send(subscribe_with(V5, 1, &[], &[("a", 0)]));
    assert!(matches!(client.receive(), Packet::Suback { .. }));
}
