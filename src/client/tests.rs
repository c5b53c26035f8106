//! A client against a server that does what the test says.

mod authentication;
mod publish;
mod receive;
mod reconnect;
mod redirect;
mod request;
mod server;
mod store;
mod terms;
mod version;
mod version5;

use std::time::Duration;

use super::*;
use crate::proto::QoS;
use crate::proto::packet::Packet;
use crate::proto::packet::connack::Connack;
use server::{DEADLINE, serve};

const QOS0: QoS = QoS::AtMostOnce;
const QOS1: QoS = QoS::AtLeastOnce;
const QOS2: QoS = QoS::ExactlyOnce;

/// Quick to reconnect, and slow enough not to fail on a busy machine.
fn options() -> ConnectOptions {
    ConnectOptions::new()
        .client_id("test")
        .connect_timeout(DEADLINE)
        .ack_timeout(DEADLINE)
        .reconnect_max_interval(Duration::from_millis(5))
}

fn text(message: &ReceivedMessage) -> &str {
    std::str::from_utf8(message.payload()).unwrap()
}

#[test]
fn the_client_can_be_shared_between_threads() {
    fn assert_shared<T: Send + Sync + Clone>() {}
    assert_shared::<Client>();
    assert_shared::<Token>();
}

/// CAPI-1
#[test]
fn a_generated_client_id_is_23_letters_and_digits() {
    let one = random_client_id().unwrap();
    let other = random_client_id().unwrap();
    assert_ne!(one, other);
    assert_eq!(one.len(), 23);
    let random = one.strip_prefix("hbmqtt/").unwrap();
    assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()));
}

#[test]
fn connect_says_what_the_options_say() {
    let (url, server) = serve(|server| {
        let (mut peer, connect) = server.welcome(false);
        (connect, peer.until_end())
    });
    let client = options()
        .keep_alive(Duration::from_secs(77))
        .credentials("user", "secret")
        .will(WillOptions::new("gone").qos(QOS1).retain(true))
        .connect(&url)
        .unwrap();
    assert_eq!(client.state(), ClientState::Connected);
    client.disconnect().unwrap();
    assert_eq!(client.state(), ClientState::Disconnected);
    let (connect, last) = server.join().unwrap();
    assert_eq!(connect.keep_alive, 77); // DEC-11: not lessened by the ping delay
    assert_eq!(connect.client_id, "test");
    assert!(connect.clean_start);
    assert_eq!(connect.user_name.as_deref(), Some("user"));
    assert_eq!(connect.password.as_deref(), Some(&b"secret"[..]));
    let will = connect.will.unwrap();
    assert_eq!((&*will.topic, will.qos, will.retain), ("gone", QOS1, true));
    assert!(will.payload.is_empty());
    assert!(matches!(last, Some(Packet::Disconnect(_))), "{last:?}");
}

/// URL-6
#[test]
fn credentials_come_from_the_url_and_a_lone_password_is_not_sent() {
    for (user_info, user, password) in [
        ("me:p%40ss@", Some("me"), Some("p@ss")),
        (":pass@", None, None),
        ("me@", Some("me"), None),
    ] {
        let port_server = crate::net::listener::Listener::bind(
            &crate::net::listener::BindAddress::tcp("127.0.0.1:0", 0).unwrap(),
        )
        .unwrap();
        let address = port_server.socket_address().unwrap();
        let server = thread::spawn("server", 0, move || {
            server::Server::on(port_server).welcome(false).1
        })
        .unwrap();
        let url = format!("mqtt://{user_info}{address}");
        let older = options().version(ProtocolVersion::V311);
        older.auto_reconnect(false).connect(&url).unwrap();
        let connect = server.join().unwrap();
        assert_eq!(connect.user_name.as_deref(), user, "{user_info}");
        let sent = connect.password.as_deref().map(<[u8]>::to_vec);
        assert_eq!(sent, password.map(|text| text.as_bytes().to_vec()));
    }
}

/// BUG-25, CC-5: one attempt, and the return code in the error.
#[test]
fn refused_credentials_fail_at_once() {
    for (reason, code) in [
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::NotAuthorized, 5),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::UnsupportedProtocolVersion, 1),
    ] {
        let (url, server) = serve(move |server| {
            let (mut peer, _) = server.welcome_with(Connack::new(false, reason));
            peer.until_end();
        });
        let error = options()
            .version(ProtocolVersion::V311)
            .reconnect_retries(None)
            .connect(&url)
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.return_code(), Some(code));
        assert_eq!(error.reason(), Some(reason));
        server.join().unwrap();
    }
}

#[test]
fn a_busy_server_is_asked_again() {
    let (url, server) = serve(|server| {
        let busy = Connack::new(false, ReasonCode::ServerUnavailable);
        server.welcome_with(busy);
        server.welcome(false).0.until_end();
    });
    let client = options().connect(&url).unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn no_server_is_an_error_after_the_retries() {
    let error = options().connect("mem://nobody").map(|_| ()).unwrap_err();
    assert!(matches!(error, ClientError::Network(_)), "{error:?}");
    let error = options().connect("gopher://x").map(|_| ()).unwrap_err();
    assert!(matches!(error, ClientError::Network(_)), "{error:?}");
    let error = Client::open(options()).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Missing connection parameter 'uri'" // DEC-12
    );
}

#[test]
fn a_silent_server_times_out() {
    let (url, server) = serve(|server| {
        let _in_five = server.accept();
        server.accept().until_end()
    });
    let error = options()
        .auto_reconnect(false)
        .connect_timeout(Duration::from_millis(50))
        .connect(&url)
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Timeout(Phase::Connack)),
        "{error:?}"
    );
    server.join().unwrap();
}

#[test]
fn the_last_handle_dropped_disconnects() {
    let (url, server) = serve(|server| server.welcome(false).0.until_end());
    let client = options().connect(&url).unwrap();
    let other = client.clone();
    drop(client);
    assert_eq!(other.state(), ClientState::Connected);
    drop(other);
    assert!(matches!(
        server.join().unwrap(),
        Some(Packet::Disconnect(_))
    ));
}

#[test]
fn subscribe_and_unsubscribe_return_what_the_server_says() {
    use crate::proto::packet::{Suback, Unsuback};
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        let Packet::Subscribe(subscribe) = peer.receive() else {
            panic!("expected SUBSCRIBE");
        };
        peer.send(&Packet::Suback(Box::new(Suback {
            packet_id: subscribe.packet_id,
            reasons: vec![ReasonCode::GrantedQos1, ReasonCode::UnspecifiedError],
            properties: None,
        })));
        let Packet::Unsubscribe(unsubscribe) = peer.receive() else {
            panic!("expected UNSUBSCRIBE");
        };
        peer.send(&Packet::Unsuback(Box::new(Unsuback {
            packet_id: unsubscribe.packet_id,
            reasons: vec![ReasonCode::Success],
            properties: None,
        })));
        peer.until_end();
        (subscribe.filters, unsubscribe.filters)
    });
    let client = options().connect(&url).unwrap();
    let granted = client.subscribe([("a/b", QOS1), ("c/#", QOS2)]).unwrap();
    assert_eq!(
        granted,
        [ReasonCode::GrantedQos1, ReasonCode::UnspecifiedError]
    );
    assert_eq!(client.unsubscribe(["a/b"]).unwrap(), [ReasonCode::Success]);
    assert!(matches!(
        client.subscribe([("a/#/b", QOS0)]),
        Err(ClientError::InvalidTopic(_))
    ));
    drop(client);
    let (subscribed, unsubscribed) = server.join().unwrap();
    assert_eq!(subscribed.len(), 2);
    assert_eq!(unsubscribed, ["a/b"]);
}

/// CAPI-5
#[test]
fn ping_measures_the_round_trip_and_can_time_out() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        assert_eq!(peer.receive(), Packet::Pingreq);
        peer.send(&Packet::Pingresp);
        assert_eq!(peer.receive(), Packet::Pingreq);
        peer.until_end();
    });
    let client = options().connect(&url).unwrap();
    assert!(client.ping(DEADLINE).unwrap() < DEADLINE);
    let error = client.ping(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, ClientError::Timeout(Phase::Pingresp)));
    drop(client);
    server.join().unwrap();
}

#[test]
fn without_a_connection_calls_say_so() {
    let (url, server) = serve(|server| server.welcome(false).0.until_end());
    let client = options().connect(&url).unwrap();
    client.disconnect().unwrap();
    client.disconnect().unwrap(); // CAPI-3: a warning, no error
    assert!(matches!(
        client.publish("a", "b", QOS0),
        Err(ClientError::NotConnected)
    ));
    assert!(matches!(
        client.publish("a", "b", QOS1),
        Err(ClientError::NotConnected)
    ));
    assert!(matches!(client.recv(), Err(ClientError::NotConnected)));
    assert!(matches!(
        client.ping(DEADLINE),
        Err(ClientError::NotConnected)
    ));
    assert!(matches!(
        client.subscribe([("a", QOS0)]),
        Err(ClientError::NotConnected)
    ));
    server.join().unwrap();
}

#[test]
fn state_callbacks_may_publish_but_not_wait() {
    use std::sync::Mutex;
    let (url, server) = serve(|server| {
        drop(server.welcome(false));
        let (mut peer, _) = server.welcome(false);
        let publish = peer.publish();
        peer.until_end();
        publish
    });
    let slot: Arc<Mutex<Option<Client>>> = Arc::default();
    let results = Arc::new(Mutex::new(Vec::new()));
    let (inside, seen) = (Arc::clone(&slot), Arc::clone(&results));
    let on_state = move |event: &StateEvent| {
        let client = inside.lock().unwrap().clone();
        if let (Some(client), StateEvent::Connected { .. }) = (client, event) {
            let nowait = client.publish_nowait("from/callback", "x", QOS1);
            let waiting = client.publish("from/callback", "y", QOS1);
            let mut seen = seen.lock().unwrap();
            seen.push(nowait.is_ok());
            seen.push(matches!(waiting, Err(ClientError::WouldDeadlock)));
        }
    };
    // The first connection ends at once; the program has the client before the second one is made.
    let client = options()
        .reconnect_max_interval(Duration::from_millis(500))
        .on_state(on_state)
        .connect(&url)
        .unwrap();
    let events = client.events();
    *slot.lock().unwrap() = Some(client);
    while !matches!(
        events.recv_timeout(DEADLINE).unwrap(),
        StateEvent::Connected { .. }
    ) {}
    assert_eq!(server_wait(&results), [true, true]);
    slot.lock().unwrap().take();
    assert_eq!(server.join().unwrap().topic, "from/callback");
}

/// The events are told before the callback runs: waits until it has.
fn server_wait(results: &std::sync::Mutex<Vec<bool>>) -> Vec<bool> {
    let deadline = now() + DEADLINE;
    loop {
        let seen = results.lock().unwrap().clone();
        if seen.len() == 2 || now() > deadline {
            return seen;
        }
        std::thread::yield_now();
    }
}
