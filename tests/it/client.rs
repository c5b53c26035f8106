//! The client library against our broker, and against a real mosquitto, over every transport.

mod authentication;
pub(crate) mod requests;
pub(crate) mod rounds;
mod servers;
mod store;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use hbmqtt::client::{
    ClientError, ClientState, ConnectOptions, PublishOptions, StateEvent, TlsOptions,
};
use hbmqtt::{Client, ProtocolVersion, QoS};

use crate::support::certificates::Certificates;
use crate::support::{Broker, PATIENCE, TempDir, eventually};

/// CAPI-2, CAPI-15, SEED-6: tcp, tls with a client certificate, ws, wss and a Unix socket.
#[test]
fn every_transport_carries_every_qos() {
    let certificates = Certificates::new();
    let (cert, key) = &certificates.server;
    let directory = TempDir::new();
    let socket = directory.path().join("client.sock");
    let tls = format!(
        "ssl: on, certfile: '{cert}', keyfile: '{key}', cafile: '{}', client-cert: required",
        certificates.ca
    );
    let broker = Broker::configured(&format!(
        "listeners:\n  default: {{bind: '127.0.0.1:0'}}\n  tls: {{bind: '127.0.0.1:0', {tls}}}\n  \
         ws: {{bind: '127.0.0.1:0', type: ws}}\n  wss: {{bind: '127.0.0.1:0', type: ws, {tls}}}\n  \
         local: {{type: unix, bind: '{}'}}\n",
        socket.display()
    ));
    let (cert_file, key_file) = certificates.client("library", 5);
    let trusting = ConnectOptions::new().tls(TlsOptions {
        ca_file: Some(certificates.ca.clone().into()),
        cert_file: Some(cert_file.into()),
        key_file: Some(key_file.into()),
        ..TlsOptions::default()
    });
    let port = |name: &str| broker.address_of(name).port();
    for url in [
        format!("mqtt://127.0.0.1:{}", port("default")),
        format!("mqtts://localhost:{}", port("tls")),
        format!("ws://127.0.0.1:{}/mqtt", port("ws")),
        format!("wss://localhost:{}/mqtt", port("wss")),
        format!("unix://{}", socket.display()),
    ] {
        for version in [
            ProtocolVersion::V31,
            ProtocolVersion::V311,
            ProtocolVersion::V5,
        ] {
            let client = trusting
                .clone()
                .version(version)
                .connect(&url)
                .unwrap_or_else(|error| panic!("{url}: {error}"));
            exchange(&client);
        }
    }
}

/// CAPI-15, CC-13: a server whose certificate nobody vouches for, or that is another's, is not spoken with.
#[test]
fn certificates_are_verified() {
    let certificates = Certificates::new();
    let (cert, key) = &certificates.server;
    let broker = Broker::configured(&format!(
        "listeners:\n  default: {{bind: '127.0.0.1:0', ssl: on, certfile: '{cert}', keyfile: '{key}'}}\n"
    ));
    let other = Certificates::new();
    let trust = |ca: &str| {
        ConnectOptions::new().auto_reconnect(false).tls(TlsOptions {
            ca_file: Some(ca.into()),
            ..TlsOptions::default()
        })
    };
    let url = format!("mqtts://localhost:{}", broker.port());
    trust(&certificates.ca).connect(&url).unwrap();
    assert!(matches!(
        trust(&other.ca).connect(&url),
        Err(ClientError::Network(_))
    ));
    assert!(matches!(
        ConnectOptions::new().auto_reconnect(false).connect(&url),
        Err(ClientError::Network(_))
    ));
}

/// SEED-3, CAPI-11, BUG-7: the broker goes and comes back; the client reconnects, subscribes again and goes on.
#[test]
fn a_client_survives_the_restart_of_its_broker() {
    let port = crate::support::broker::free_port();
    let yaml = format!("listeners:\n  default: {{bind: '127.0.0.1:{port}'}}\n");
    let first = Broker::configured(&yaml);
    let client = ConnectOptions::new()
        .client_id("survivor")
        .reconnect_retries(Some(100))
        .reconnect_max_interval(Duration::from_secs(1))
        .connect(&format!("mqtt://127.0.0.1:{port}"))
        .unwrap();
    client.subscribe([("survive/+", QoS::ExactlyOnce)]).unwrap();
    drop(first);
    let second = Broker::configured(&yaml);
    // Waits for the connection, goes out, and comes back over the subscription that was made again.
    client
        .publish("survive/a", "still here", QoS::ExactlyOnce)
        .unwrap();
    assert_eq!(
        client.recv_timeout(PATIENCE).unwrap().payload().as_ref(),
        b"still here"
    );
    assert_eq!(client.state(), ClientState::Connected);
    drop(second);
}

/// CAPI-11, PRO-8: what is under way when the network goes arrives, QoS 2 exactly once, through a link that is cut again
/// and again.
#[test]
fn nothing_is_lost_or_doubled_when_the_network_is_cut() {
    let broker = Broker::start();
    let link = Link::to(broker.address());
    let mut watcher = crate::support::Client::connect(&broker, crate::support::V311);
    watcher.subscribe("cut/#", 2);
    let client = ConnectOptions::new()
        .client_id("cut")
        .clean_start(false)
        .reconnect_retries(Some(100))
        .reconnect_max_interval(Duration::from_millis(100))
        .connect(&format!("mqtt://{}", link.address))
        .unwrap();
    let events = client.events();
    let mut tokens = Vec::new();
    for number in 0..300 {
        if number % 50 == 25 {
            link.cut();
            // On, once it has been noticed.
            while !matches!(
                events.recv_timeout(PATIENCE).unwrap(),
                StateEvent::Connected { .. }
            ) {}
        }
        tokens.push(
            client
                .publish_nowait("cut/a", number.to_string(), QoS::ExactlyOnce)
                .unwrap(),
        );
    }
    for token in tokens {
        token.wait_timeout(PATIENCE).unwrap();
    }
    for number in 0..300 {
        let message = watcher.receive_publish();
        assert_eq!(message.text(), number.to_string());
        watcher.acknowledge(&message);
    }
}

/// CAPI-2, CC-5, BUG-25: refused credentials fail at once, with the return code.
#[test]
fn refused_credentials_are_an_error_with_a_code() {
    let broker = Broker::start();
    let refused = ConnectOptions::new()
        .version(ProtocolVersion::V311)
        .credentials("nobody".to_owned(), "knows".to_owned())
        .connect(&format!("mqtt://{}", broker.address()));
    let error = refused.map(drop).expect_err("a refusal");
    assert!(matches!(error, ClientError::Refused(_)));
    assert!([4, 5].contains(&error.return_code().unwrap()), "{error}");
}

/// CAPI-5, CAPI-8, CAPI-9, MSG-5: the calls of the seed, against a real broker.
#[test]
fn calls_return_what_the_broker_answers() {
    let broker = Broker::with("max-qos: 1\n");
    let client = ConnectOptions::new()
        .version(ProtocolVersion::V311)
        .connect(&format!("mqtt://{}", broker.address()))
        .unwrap();
    let granted = client
        .subscribe([("a/+", QoS::ExactlyOnce), ("b", QoS::AtMostOnce)])
        .unwrap();
    assert_eq!(
        granted.iter().map(|code| code.as_u8()).collect::<Vec<_>>(),
        [1, 0]
    );
    client.publish("a/x", "1", QoS::AtLeastOnce).unwrap();
    let message = client.deliver_message(Some(PATIENCE)).unwrap();
    assert_eq!(
        (
            message.topic(),
            message.payload().as_ref(),
            message.retain()
        ),
        ("a/x", &b"1"[..], false)
    );
    client.unsubscribe(["a/+", "b"]).unwrap();
    client.publish("a/x", "2", QoS::AtLeastOnce).unwrap();
    assert!(client.ping(PATIENCE).unwrap() < PATIENCE);
    assert!(client.try_recv().unwrap().is_none());
    client.disconnect().unwrap();
    assert!(client.recv().is_err());
}

/// Issue 2, must show 2: with a real mosquitto, over tcp, TLS with and without a client certificate, and WebSocket.
#[test]
fn our_client_speaks_with_mosquitto() {
    if !crate::interop::is_on("our_client_speaks_with_mosquitto") {
        return;
    }
    let certificates = Certificates::new();
    let (cert, key) = &certificates.server;
    let (plain, tls, strict, web) = (free(), free(), free(), free());
    let secured = format!("cafile {}\ncertfile {cert}\nkeyfile {key}", certificates.ca);
    let _mosquitto = Broker::mosquitto(
        &format!(
            "allow_anonymous true\nlistener {plain} 127.0.0.1\nlistener {tls} 127.0.0.1\n{secured}\nlistener {strict} 127.0.0.1\n{secured}\n\
             require_certificate true\nlistener {web} 127.0.0.1\nprotocol websockets"
        ),
        "",
    );
    let trusting = TlsOptions {
        ca_file: Some(certificates.ca.clone().into()),
        ..TlsOptions::default()
    };
    let (cert_file, key_file) = certificates.client("library", 5);
    let certified = TlsOptions {
        cert_file: Some(cert_file.into()),
        key_file: Some(key_file.into()),
        ..trusting.clone()
    };
    for (url, tls) in [
        (format!("mqtt://127.0.0.1:{plain}"), TlsOptions::default()),
        (format!("mqtts://localhost:{tls}"), trusting),
        (format!("mqtts://localhost:{strict}"), certified),
        (format!("ws://127.0.0.1:{web}/"), TlsOptions::default()),
    ] {
        for version in [
            ProtocolVersion::V31,
            ProtocolVersion::V311,
            ProtocolVersion::V5,
        ] {
            let options = ConnectOptions::new().version(version).tls(tls.clone());
            // A WebSocket listener of mosquitto opens a moment after its start.
            let client = eventually("a connection", || {
                options
                    .clone()
                    .connect(&url)
                    .map_err(|error| error.to_string())
            });
            exchange(&client);
        }
    }
}

/// A message of each QoS, one of a megabyte, and a retained one.
fn exchange(client: &Client) {
    client
        .subscribe([("exchange/#", QoS::ExactlyOnce)])
        .unwrap();
    let large: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for qos in QoS::ALL {
        for payload in [&b"small \xff"[..], &large] {
            client.publish("exchange/a", payload, qos).unwrap();
            let message = client.recv_timeout(PATIENCE).unwrap();
            assert!(
                message.qos() == qos && message.payload() == payload,
                "{qos} {}",
                message.payload().len()
            );
        }
    }
    client
        .publish(
            "exchange/kept",
            "kept",
            PublishOptions::new().qos(QoS::AtLeastOnce).retain(true),
        )
        .unwrap();
    assert!(!client.recv_timeout(PATIENCE).unwrap().retain());
    client.unsubscribe(["exchange/#"]).unwrap();
    client
        .subscribe([("exchange/kept", QoS::AtLeastOnce)])
        .unwrap();
    assert!(client.recv_timeout(PATIENCE).unwrap().retain());
    client
        .publish(
            "exchange/kept",
            "",
            PublishOptions::new().qos(QoS::AtLeastOnce).retain(true),
        )
        .unwrap();
    assert!(client.recv_timeout(PATIENCE).unwrap().payload().is_empty());
    client.disconnect().unwrap();
}

/// A way to the broker that can be cut: it forwards bytes between sockets.
struct Link {
    address: SocketAddr,
    cut: mpsc::Sender<()>,
}

impl Link {
    fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = mpsc::channel();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (Ok(here), Ok(there)) = (socket, TcpStream::connect(broker)) else {
                    return;
                };
                for (mut from, mut to) in [(&here, &there), (&there, &here)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    std::thread::spawn(move || {
                        _ = std::io::copy(&mut from, &mut to);
                        _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
                if cuts.recv().is_err() {
                    return;
                }
                _ = here.shutdown(std::net::Shutdown::Both);
                _ = there.shutdown(std::net::Shutdown::Both);
            }
        });
        Self { address, cut }
    }

    fn cut(&self) {
        self.cut.send(()).unwrap();
    }
}

fn free() -> u16 {
    crate::support::broker::free_port()
}
