//! MQTT over WebSocket.

use std::io::Write as _;

use crate::support::certificates::Certificates;
use crate::support::websocket::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WebSocket, tcp};
use crate::support::*;

/// [MQTT311-6.0.0-4], SEED-6, URL-5: the sub-protocol is chosen, and MQTT flows both ways.
#[test]
fn mqtt_over_websocket() {
    let broker = broker("");
    let (_, response) =
        WebSocket::upgrade_response(tcp(broker.address()), &[("Sec-WebSocket-Protocol", "mqtt")]);
    assert!(response.starts_with("HTTP/1.1 101"), "{response}");
    assert!(
        response
            .to_ascii_lowercase()
            .contains("sec-websocket-protocol: mqtt\r\n"),
        "{response}"
    );
    both_versions(|version| {
        let mut client = Client::over(Box::new(WebSocket::open(broker.address())));
        client.handshake(&Connect::new(version, "ws"));
        client.subscribe("ws/#", 1);
        let pattern: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        client.publish("ws/big", 1, &pattern);
        let message = client.receive_publish();
        assert!(message.payload == pattern);
        client.acknowledge(&message);
        client.expect_alive();
        client.disconnect();
    });
}

/// [MQTT311-6.0.0-4]: of several sub-protocols offered it is `mqtt` that is chosen; MQTT 3.1 clients say `mqttv3.1`.
#[test]
fn the_sub_protocol_is_chosen_from_a_list() {
    let broker = broker("");
    let (_, response) = WebSocket::upgrade_response(
        tcp(broker.address()),
        &[("Sec-WebSocket-Protocol", "chat, mqtt, x")],
    );
    assert!(
        response
            .to_ascii_lowercase()
            .contains("sec-websocket-protocol: mqtt\r\n"),
        "{response}"
    );
}

/// [MQTT311-6.0.0-3]: without `mqtt` there is no connection.
#[test]
fn a_client_without_the_sub_protocol_is_refused() {
    let broker = broker("");
    for headers in [
        &[][..],
        &[("Sec-WebSocket-Protocol", "chat")],
        &[("Sec-WebSocket-Protocol", "MQTTX, amqp")],
    ] {
        let (_, response) = WebSocket::upgrade_response(tcp(broker.address()), headers);
        assert!(response.starts_with("HTTP/1.1 4"), "{response}");
    }
}

/// [MQTT311-6.0.0-2]: packets and frames have nothing to do with each other.
#[test]
fn packets_may_span_frames_and_frames_may_hold_packets() {
    let broker = broker("");
    let mut socket = WebSocket::open(broker.address());
    let mut bytes = Connect::new(V311, "frames").encode();
    bytes.extend(subscribe(V311, 1, &[("frames", 0)]));
    bytes.extend(Publish::new("frames", 0, "hello").encode(V311));
    // One byte a frame, then messages of several fragments with a ping between, then all in one frame.
    for byte in &bytes[..20] {
        socket.send_frame(true, BINARY, &[*byte]).unwrap();
    }
    socket.send_frame(false, BINARY, &bytes[20..25]).unwrap();
    socket.send_frame(true, PING, b"between").unwrap();
    socket
        .send_frame(false, CONTINUATION, &bytes[25..26])
        .unwrap();
    socket.send_frame(true, CONTINUATION, &bytes[26..]).unwrap();
    let pings = PINGREQ.repeat(10);
    socket.send_frame(true, BINARY, &pings).unwrap();
    let mut client = Client::over(Box::new(socket));
    client.expect_hex("20 02 00 00");
    let mut pongs = 0;
    let mut others = 0;
    while pongs < 10 || others < 2 {
        match client.receive() {
            Packet::Pingresp => pongs += 1,
            Packet::Suback { .. } => others += 1,
            Packet::Publish(message) => {
                assert_eq!(message.text(), "hello");
                others += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// RFC 6455 §5.5.2, §5.5.1: pings are answered with their payload, close with close.
#[test]
fn ping_and_close_are_answered() {
    let broker = broker("");
    let mut socket = WebSocket::open(broker.address());
    socket
        .send_frame(true, BINARY, &Connect::new(V311, "pong").encode())
        .unwrap();
    assert_eq!(
        socket.receive_frame().unwrap(),
        (BINARY, unhex("20 02 00 00"))
    );
    socket.send_frame(true, PING, b"are you there").unwrap();
    assert_eq!(
        socket.receive_frame().unwrap(),
        (PONG, b"are you there".to_vec())
    );
    socket
        .send_frame(true, CLOSE, &1000_u16.to_be_bytes())
        .unwrap();
    let (kind, payload) = socket.receive_frame().unwrap();
    assert_eq!((kind, &payload[..2]), (CLOSE, &1000_u16.to_be_bytes()[..]));
    assert!(socket.receive_frame().is_err());
}

/// [MQTT311-6.0.0-1]: text frames close, with code 1003.
#[test]
fn a_text_frame_closes() {
    let broker = broker("");
    let mut socket = WebSocket::open(broker.address());
    socket.send_frame(true, TEXT, b"hello").unwrap();
    let mut code = None;
    while let Ok((kind, payload)) = socket.receive_frame() {
        assert_eq!(kind, CLOSE);
        code = payload.first_chunk().map(|two| u16::from_be_bytes(*two));
    }
    assert!(code.is_none_or(|code| code == 1003), "{code:?}");
}

/// LIMITS.md: a frame above the packet limit is not buffered.
#[test]
fn a_frame_above_the_packet_limit_closes() {
    let broker = broker("limits:\n  max-packet-size: 65536\n");
    let mut socket = WebSocket::open(broker.address());
    socket
        .send_frame(true, BINARY, &Connect::new(V311, "huge").encode())
        .unwrap();
    assert_eq!(socket.receive_frame().unwrap().0, BINARY);
    // The head of a frame of 1 GiB.
    let mut head = vec![0x82, 0x80 | 127];
    head.extend((1_u64 << 30).to_be_bytes());
    head.extend([0; 4]);
    _ = socket.stream.write_all(&head);
    while let Ok((kind, _)) = socket.receive_frame() {
        assert_eq!(kind, CLOSE);
    }
}

/// LIMITS.md: a foreign `Origin` is refused with 403 unless it is listed.
#[test]
fn a_foreign_origin_is_refused_unless_listed() {
    let broker = Broker::configured(
        "listeners:\n  default:\n    type: ws\n    bind: 127.0.0.1:0\n    allowed-origins: ['https://example.org']\n",
    );
    for (origin, accepted) in [
        ("https://example.org", true),
        ("http://localhost:8080", true),
        ("https://evil.example", false),
        ("https://example.org.evil.example", false),
        ("null", false),
    ] {
        let headers = [("Sec-WebSocket-Protocol", "mqtt"), ("Origin", origin)];
        let (_, response) = WebSocket::upgrade_response(tcp(broker.address()), &headers);
        let status = if accepted {
            "HTTP/1.1 101"
        } else {
            "HTTP/1.1 403"
        };
        assert!(response.starts_with(status), "{origin}: {response}");
    }
    broker.wait_for_log("origin 'https://evil.example' is not in allowed-origins");
}

/// What is not an upgrade is answered in HTTP and closed.
#[test]
fn an_ordinary_http_request_is_refused() {
    let broker = broker("");
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /mqtt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let mut client = Client::open(&broker);
        client.send(request);
        assert!(client.ends_within(PATIENCE));
    }
    Client::over(Box::new(WebSocket::open(broker.address())))
        .handshake(&Connect::new(V311, "after"));
}

/// SEED-6: TLS under WebSocket.
#[test]
fn mqtt_over_websocket_over_tls() {
    let certificates = Certificates::new();
    let (certificate, key) = &certificates.server;
    let broker = Broker::configured(&format!(
        "listeners:\n  default:\n    type: ws\n    bind: 127.0.0.1:0\n    ssl: on\n    certfile: '{certificate}'\n    keyfile: '{key}'\n    \
         cafile: '{}'\n    client-cert: required\n",
        certificates.ca
    ));
    let known = certificates.client("browser", 9);
    let stream = certificates
        .connect(broker.address(), Some(&known))
        .unwrap();
    let socket = WebSocket::upgrade(stream, &[("Sec-WebSocket-Protocol", "mqtt")]).unwrap();
    let mut client = Client::over(Box::new(socket));
    client.handshake(&Connect::new(V311, "wss"));
    client.subscribe("wss", 1);
    client.publish("wss", 1, "secret");
    assert_eq!(client.receive_publish().text(), "secret");
    client.expect_alive();
}

/// The will of a WebSocket client whose connection is cut, and of one that closes without DISCONNECT.
#[test]
fn a_websocket_close_without_disconnect_publishes_the_will() {
    let broker = Broker::configured(
        "listeners:\n  default:\n    bind: 127.0.0.1:0\n  web:\n    type: ws\n    bind: 127.0.0.1:0\n",
    );
    let mut subscriber = broker.subscriber(V311, "will/ws", 1);
    for closes in [true, false] {
        let mut socket = WebSocket::open(broker.address_of("web"));
        let connect = Connect::new(V311, "ws").will(Publish::new("will/ws", 1, "gone"));
        socket.send_frame(true, BINARY, &connect.encode()).unwrap();
        assert_eq!(socket.receive_frame().unwrap().1, unhex("20 02 00 00"));
        if closes {
            socket
                .send_frame(true, CLOSE, &1001_u16.to_be_bytes())
                .unwrap();
        }
        drop(socket);
        let will = subscriber.receive_publish();
        assert_eq!(will.text(), "gone");
        subscriber.acknowledge(&will);
    }
}

fn broker(settings: &str) -> Broker {
    Broker::configured(&format!(
        "listeners:\n  default:\n    type: ws\n    bind: 127.0.0.1:0\n{settings}"
    ))
}
