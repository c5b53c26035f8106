//! The client programs over TLS, WebSocket and Unix sockets.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

use super::server::Server;
use super::*;
use crate::support::certificates::Certificates;

/// A broker with a listener for each transport, and with an authority for client certificates where `client` asks.
fn broker(certificates: &Certificates, client: &str) -> Broker {
    let (certificate, key) = &certificates.server;
    let socket = certificates.directory.path().join("socket");
    Broker::configured(&format!(
        "listeners:\n  \
         tls: {{bind: '127.0.0.1:0', ssl: on, certfile: {certificate}, keyfile: {key}, {client}}}\n  \
         other: {{bind: '127.0.0.2:0', ssl: on, certfile: {certificate}, keyfile: {key}}}\n  \
         wss: {{bind: '127.0.0.1:0', type: ws, ssl: on, certfile: {certificate}, keyfile: {key}}}\n  \
         ws: {{bind: '127.0.0.1:0', type: ws}}\n  \
         unix: {{bind: {}, type: unix}}\n",
        socket.display()
    ))
}

fn at(broker: &Broker, scheme: &str, listener: &str, path: &str) -> String {
    format!(
        "{scheme}://localhost:{}{path}",
        broker.address_of(listener).port()
    )
}

/// A retained message goes there and comes back.
#[track_caller]
fn round_trip(options: &[&str]) {
    let payload = format!("over {}", unique());
    let there = ["-t", "round/trip", "-r", "-q", "1", "-m", &payload];
    run(PUB, &[options, &there].concat()).expect(0);
    let back = run(SUB, &[options, &["-t", "round/trip", "-n", "1"]].concat()).expect(0);
    assert_eq!(back.text().trim_end(), payload);
}

/// PUB-17: a file, a directory or the PEM text; over TCP and over WebSocket.
#[test]
fn an_authority_is_trusted_in_each_form() {
    let certificates = Certificates::new();
    let broker = broker(&certificates, "");
    let folder = certificates.directory.path().join("authorities");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&certificates.ca, folder.join("ca.pem")).unwrap();
    let (folder, pem) = (
        folder.to_str().unwrap(),
        std::fs::read_to_string(&certificates.ca).unwrap(),
    );
    let (mqtts, wss) = (
        at(&broker, "mqtts", "tls", ""),
        at(&broker, "wss", "wss", "/mqtt"),
    );
    for url in [&mqtts, &wss] {
        round_trip(&["--url", url, "--ca-file", &certificates.ca]);
        round_trip(&[
            "--url",
            url,
            "--cafile",
            &certificates.ca,
            "--connect-timeout",
            "20",
        ]);
        round_trip(&["--url", url, "--ca-path", folder]);
        round_trip(&["--url", url, "--ca-data", &pem]);
    }
    let port = broker.address_of("tls").port().to_string();
    round_trip(&[
        "--host",
        "localhost",
        "-p",
        &port,
        "--ca-file",
        &certificates.ca,
    ]);
}

/// What nobody vouches for is refused, unless the user says that it does not matter.
#[test]
fn verification_is_on_until_it_is_switched_off() {
    let certificates = Certificates::new();
    let other = Certificates::new();
    let broker = broker(&certificates, "");
    let url = at(&broker, "mqtts", "tls", "");
    let base = ["--url", &url, "-t", "t", "-m", "x"];
    for options in [
        &[][..],
        &["--ca-file", &other.ca],
        &["--ca-file", &other.ca, "--insecure"],
    ] {
        let done = run(PUB, &[&base, options].concat()).expect(1);
        assert!(done.errors.contains("CRITICAL"), "{}", done.errors);
    }
    run(PUB, &[&base[..], &["--insecure-any-certificate"]].concat()).expect(0);
    // The certificate is for 127.0.0.1 and localhost.
    let url = format!("mqtts://{}", broker.address_of("other"));
    let options = [
        "--url",
        &url,
        "--ca-file",
        &certificates.ca,
        "-t",
        "t",
        "-m",
        "x",
    ];
    run(PUB, &options).expect(1);
    run(PUB, &[&options[..], &["--insecure"]].concat()).expect(0);
}

#[test]
fn a_client_certificate_is_shown_when_it_is_given() {
    let certificates = Certificates::new();
    let client = format!("cafile: {}, client-cert: required", certificates.ca);
    let broker = broker(&certificates, &client);
    let url = at(&broker, "mqtts", "tls", "");
    let (cert, key) = certificates.client("tool", 7);
    let base = ["--url", &url, "--ca-file", &certificates.ca];
    round_trip(&[&base[..], &["--cert", &cert, "--key", &key]].concat());
    run(
        PUB,
        &[&base[..], &["-t", "t", "-m", "x", "-q", "1"]].concat(),
    )
    .expect(1);
    let missing = [
        "-t",
        "t",
        "-m",
        "x",
        "--cert",
        "/nonexistent",
        "--key",
        &key,
    ];
    let done = run(PUB, &[&base[..], &missing].concat()).expect(1);
    assert!(done.errors.contains("/nonexistent"), "{}", done.errors);
}

/// PUB-19: the last example of the documentation, `wss` and a header.
#[test]
fn websockets_work_with_and_without_headers() {
    let certificates = Certificates::new();
    let broker = broker(&certificates, "");
    round_trip(&["--url", &at(&broker, "ws", "ws", "")]);
    round_trip(&["--url", &at(&broker, "ws", "ws", "/mqtt")]);
    let header = "{\"Authorization\": \"Bearer <token>\"}";
    let url = at(&broker, "wss", "wss", "");
    round_trip(&[
        "--url",
        &url,
        "--ca-file",
        &certificates.ca,
        "--extra-headers",
        header,
    ]);
    let port = broker.address_of("ws").port().to_string();
    round_trip(&[
        "--host",
        "localhost",
        "--port",
        &port,
        "--ws",
        "--ws-path",
        "mqtt",
    ]);
}

/// URL-7.
#[test]
fn unix_sockets_work() {
    let certificates = Certificates::new();
    let _broker = broker(&certificates, "");
    let path = certificates.directory.path().join("socket");
    let path = path.to_str().unwrap();
    round_trip(&["--url", &format!("unix://{path}")]);
    round_trip(&["--unix", path]);
}

/// Most brokers want /mqtt as the path of WebSockets.
#[test]
fn a_wrong_websocket_path_comes_with_a_hint() {
    let server = Server::new();
    let url = server.url().replace("mqtt:", "ws:");
    let tool = Tool::start(PUB, &["--url", &url, "-t", "t", "-m", "x"]);
    let mut peer = server.accept();
    peer.request();
    peer.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let done = tool.wait().expect(1);
    assert!(done.errors.contains("/mqtt"), "{}", done.errors);
}

/// A SOCKS proxy for one connection at a time, which takes `localhost` by name only; what each client sent before the
/// connection was made.
struct SocksProxy {
    address: SocketAddr,
    asked: mpsc::Receiver<Vec<u8>>,
}

impl SocksProxy {
    fn start(reply: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut said = read(&mut client, 2);
                said.extend(read(&mut client, said[1].into()));
                client.write_all(&[5, *said.last().unwrap()]).unwrap();
                if said.last() == Some(&2) {
                    let user = read(&mut client, 2);
                    said.extend(read(&mut client, user[1].into()));
                    let length = read(&mut client, 1)[0];
                    said.extend(read(&mut client, length.into()));
                    client.write_all(&[1, 0]).unwrap();
                }
                let request = read(&mut client, 5);
                let name = read(&mut client, request[4].into());
                let port = read(&mut client, 2);
                said.extend(&name);
                client
                    .write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0])
                    .unwrap();
                if sender.send(said).is_err() || reply != 0 {
                    continue;
                }
                let port = u16::from_be_bytes([port[0], port[1]]);
                let server = TcpStream::connect((str::from_utf8(&name).unwrap(), port)).unwrap();
                relay(client, server);
            }
        });
        Self { address, asked }
    }
}

fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn relay(client: TcpStream, server: TcpStream) {
    for (mut from, mut to) in [
        (client.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, client),
    ] {
        std::thread::spawn(move || {
            _ = std::io::copy(&mut from, &mut to);
            _ = to.shutdown(Shutdown::Write);
        });
    }
}

#[test]
fn a_proxy_makes_the_connection() {
    let certificates = Certificates::new();
    let broker = broker(&certificates, "");
    let proxy = SocksProxy::start(0);
    let plain = format!("socks5h://{}", proxy.address);
    let named = format!("socks5h://me:p%40w@{}", proxy.address);
    let tls = at(&broker, "mqtts", "tls", "");
    round_trip(&[
        "--url",
        &tls,
        "--ca-file",
        &certificates.ca,
        "--proxy",
        &plain,
    ]);
    round_trip(&[
        "--url",
        &at(&broker, "ws", "ws", "/mqtt"),
        "--proxy",
        &named,
    ]);
    let asked: Vec<Vec<u8>> = proxy.asked.try_iter().collect();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[0], b"\x05\x01\x00localhost");
    assert_eq!(asked[2], b"\x05\x02\x00\x02mep@wlocalhost");

    let refusing = format!("socks5h://{}", SocksProxy::start(4).address);
    let done = run(
        PUB,
        &["--url", &tls, "--proxy", &refusing, "-t", "a", "-m", "x"],
    )
    .expect(1);
    assert!(
        done.errors
            .contains("the proxy: the host cannot be reached"),
        "{}",
        done.errors
    );
    let wrong = [
        "--url",
        &tls,
        "--proxy",
        "http://proxy",
        "-t",
        "a",
        "-m",
        "x",
    ];
    let done = run(PUB, &wrong).expect(2);
    assert!(
        done.errors.contains("expected socks5h://host"),
        "{}",
        done.errors
    );
}

#[test]
fn tls_is_spoken_as_it_was_asked_for() {
    let certificates = Certificates::new();
    let broker = broker(&certificates, "");
    let url = at(&broker, "mqtts", "tls", "");
    let trusting = ["--url", &url, "--ca-file", &certificates.ca];
    let keys = certificates.directory.path().join("keys");
    let keys = keys.to_str().unwrap();
    for (version, secret) in [
        ("1.2", "CLIENT_RANDOM "),
        ("tlsv1.3", "CLIENT_TRAFFIC_SECRET_0 "),
    ] {
        let options = [
            "--tls-version",
            version,
            "--tls-keylog",
            keys,
            "--tls-alpn",
            "mqtt",
        ];
        round_trip(&[&trusting[..], &options].concat());
        let logged = std::fs::read_to_string(keys).unwrap();
        assert!(
            logged.lines().any(|line| line.starts_with(secret)),
            "{logged}"
        );
        std::fs::remove_file(keys).unwrap();
    }
    let old = [
        &trusting[..],
        &["--tls-version", "tlsv1.1", "-t", "a", "-m", "x"],
    ]
    .concat();
    let done = run(PUB, &old).expect(2);
    assert!(done.errors.contains("1.2 and 1.3 only"), "{}", done.errors);
}
