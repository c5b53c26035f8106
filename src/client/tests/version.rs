//! Which version is spoken: the chosen one, or the newest that the server speaks.

use super::server::serve;
use super::*;

const V5: ProtocolVersion = ProtocolVersion::V5;
const V311: ProtocolVersion = ProtocolVersion::V311;

fn refusing() -> Connack {
    Connack::new(false, ReasonCode::UnsupportedProtocolVersion)
}

#[test]
fn five_is_spoken_with_a_server_that_speaks_it() {
    let (url, server) = serve(|server| {
        let (mut peer, connect) = server.welcome(false);
        peer.until_end();
        connect.version
    });
    let client = options().connect(&url).unwrap();
    assert_eq!(client.version(), V5);
    assert_eq!(client.connect_result().version, V5);
    drop(client);
    assert_eq!(server.join().unwrap(), V5);
}

/// Each is what a server that does not know 5.0 answers: 0x84 in words of 5.0, return code 1 in those of 3.1.1, another
/// return code, an acceptance without properties, and nothing at all.
#[test]
fn a_server_that_does_not_speak_five_is_spoken_to_in_the_older_version() {
    for answer in [
        &[0x20, 3, 0, 0x84, 0][..],
        &[0x20, 2, 0, 1],
        &[0x20, 2, 0, 5],
        &[0x20, 2, 0, 0],
        &[],
    ] {
        let (url, server) = serve(move |server| {
            let mut peer = server.accept();
            let first = peer.connect();
            peer.send_bytes(answer);
            drop(peer);
            let (mut peer, second) = server.welcome(false);
            let publish = peer.take_qos1();
            peer.until_end();
            (first, second, publish)
        });
        let client = options()
            .auto_reconnect(false)
            .session_expiry(Duration::from_secs(9))
            .user_property("a", "b")
            .connect(&url)
            .unwrap();
        assert_eq!(client.version(), V311);
        let message = PublishOptions::new().qos(QOS1).content_type("x");
        client.publish("a", "b", message).unwrap();
        drop(client);
        let (first, second, publish) = server.join().unwrap();
        assert_eq!((first.version, second.version), (V5, V311), "{answer:?}");
        assert_eq!(first.client_id, second.client_id);
        assert!(publish.properties.is_none());
    }
}

/// The refusal of the older version is the error then.
#[test]
fn a_refusal_in_the_older_version_is_the_error() {
    let (url, server) = serve(|server| {
        server.welcome_with(refusing());
        server.welcome_with(Connack::new(false, ReasonCode::BadUserNameOrPassword));
    });
    let error = options().connect(&url).map(drop).unwrap_err();
    assert_eq!(error.return_code(), Some(4));
    server.join().unwrap();
}

/// amqtt and HBMQTT take the properties for the length of a client identifier, and wait for the rest of it.
#[test]
fn a_server_that_gives_no_answer_is_asked_in_the_older_version() {
    let (url, server) = serve(|server| {
        let mut silent = server.accept();
        let first = silent.connect();
        let (mut peer, second) = server.welcome(false);
        peer.until_end();
        [first.version, second.version]
    });
    let options = options().connect_timeout(Duration::from_secs(2));
    drop(options.connect(&url).unwrap());
    assert_eq!(server.join().unwrap(), [V5, V311]);
}

#[test]
fn a_chosen_version_is_not_changed() {
    for version in ProtocolVersion::ALL {
        let (url, server) = serve(|server| {
            let (mut peer, connect) = server.welcome_with(refusing());
            peer.until_end();
            connect.version
        });
        let options = options().version(version);
        let error = options.connect(&url).map(drop).unwrap_err();
        let reason = Some(ReasonCode::UnsupportedProtocolVersion);
        assert_eq!(error.reason(), reason);
        assert_eq!(server.join().unwrap(), version);
    }
}

/// A connection that ends before CONNACK is a restart then, and no reason for an older version; a refusal is.
#[test]
fn the_version_agreed_on_holds_for_reconnects() {
    let (url, server) = serve(|server| {
        let (peer, first) = server.welcome(false);
        drop(peer);
        let mut peer = server.accept();
        let second = peer.connect();
        drop(peer);
        let (mut peer, third) = server.welcome(false);
        peer.until_end();
        [first.version, second.version, third.version]
    });
    let client = connect(&url, 2);
    drop(client);
    assert_eq!(server.join().unwrap(), [V5; 3]);

    let (url, server) = serve(|server| {
        server.welcome_with(refusing());
        drop(server.welcome(false));
        let (peer, second) = server.welcome(false);
        drop(peer);
        let (mut peer, third) = server.welcome(false);
        peer.until_end();
        [second.version, third.version]
    });
    let client = connect(&url, 3);
    drop(client);
    assert_eq!(server.join().unwrap(), [V311; 2]);
}

#[test]
fn a_server_may_lose_the_newer_version() {
    let (url, server) = serve(|server| {
        drop(server.welcome(false));
        server.welcome_with(refusing());
        server.welcome(false).0.until_end();
    });
    let client = connect(&url, 2);
    assert_eq!(client.version(), V311);
    drop(client);
    server.join().unwrap();
}

/// Settings, and where each connection that is made is told.
fn watched() -> (ConnectOptions, crossbeam_channel::Receiver<()>) {
    let (sender, connections) = crossbeam_channel::bounded(100);
    let on_state = move |event: &StateEvent| {
        if let StateEvent::Connected { .. } = event {
            sender.send(()).unwrap();
        }
    };
    (options().on_state(on_state), connections)
}

/// Connects, and waits until that many connections have been made.
fn connect(url: &str, count: usize) -> Client {
    let (options, connections) = watched();
    let client = options.connect(url).unwrap();
    for _ in 0..count {
        connections.recv_timeout(DEADLINE).unwrap();
    }
    client
}
