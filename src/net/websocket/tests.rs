use super::*;

use tungstenite::protocol::Role as TungsteniteRole;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::{Message, WebSocket};

use crate::net::Socket;

const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0xf4];

/// A frame as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            frame.push(0xfe);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

fn server() -> WebSocketLayer {
    WebSocketLayer::new(Role::Server, 100_000)
}

fn receive(layer: &mut WebSocketLayer, raw: &[u8]) -> Result<(Received, Vec<u8>), WebSocketError> {
    let mut plain = BytesMut::new();
    match layer.receive(raw, &mut plain) {
        Ok(received) => Ok((received, plain.into())),
        Err(NetError::WebSocket(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

fn control(layer: &mut WebSocketLayer) -> Vec<u8> {
    let mut wire = Vec::new();
    layer.take_control(&mut wire);
    wire
}

#[test]
fn frames_and_packets_are_independent() {
    let payload: Vec<u8> = (0..70_000_u32)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();
    let mut raw = Vec::new();
    raw.extend(masked(0x82, &payload[..3]));
    raw.extend(masked(0x82, &[]));
    raw.extend(masked(0x02, &payload[3..200]));
    raw.extend(masked(0x89, b"ping in between"));
    raw.extend(masked(0x00, &payload[200..200]));
    raw.extend(masked(0x8a, b"a pong that nobody asked for"));
    raw.extend(masked(0x80, &payload[200..1000]));
    raw.extend(masked(0x82, &payload[1000..]));
    for size in [1, 2, 3, 7, 13, 14, 15, 1000, raw.len()] {
        let mut layer = server();
        let mut plain = BytesMut::new();
        let mut said = Vec::new();
        for piece in raw.chunks(size) {
            assert_eq!(layer.receive(piece, &mut plain).unwrap(), Received::Open);
            layer.take_control(&mut said);
        }
        assert!(plain == payload, "in pieces of {size}");
        assert_eq!(said, [&[0x8a, 15][..], b"ping in between"].concat());
    }
}

#[test]
fn an_idle_connection_has_no_buffer() {
    assert!(
        size_of::<WebSocketLayer>() <= 160,
        "{}",
        size_of::<WebSocketLayer>()
    );
    let mut layer = server();
    let _ = receive(&mut layer, &masked(0x89, &[1; 125])).unwrap();
    let _ = control(&mut layer);
    assert_eq!(layer.control.capacity(), 0);
}

#[test]
fn frames_of_a_server_are_not_masked() {
    let mut wire = Vec::new();
    let mut layer = server();
    layer.send(b"abc", &mut wire).unwrap();
    layer.send(b"", &mut wire).unwrap();
    assert_eq!(wire, b"\x82\x03abc");
}

#[test]
fn frames_of_a_client_are_masked_each_with_its_own_mask() {
    let mut client = WebSocketLayer::new(Role::Client, 100);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    client.send(b"secret", &mut one).unwrap();
    client.send(b"secret", &mut other).unwrap();
    assert_ne!(one, other);
    assert_eq!(one[..2], [0x82, 0x86]);
    one.extend(other);
    assert_eq!(receive(&mut server(), &one).unwrap().1, b"secretsecret");
}

#[test]
fn only_the_last_of_several_pings_is_answered() {
    let mut layer = server();
    let _ = receive(
        &mut layer,
        &[masked(0x89, b"1"), masked(0x89, b"2"), masked(0x89, b"")].concat(),
    )
    .unwrap();
    assert_eq!(control(&mut layer), [0x8a, 0]);
    assert_eq!(control(&mut layer), []);
}

#[test]
fn a_close_is_answered_once_and_nothing_follows_it() {
    for (payload, answer) in [
        (&b""[..], &b"\x88\0"[..]),
        (b"\x03\xe8bye", b"\x88\x02\x03\xe8"),
        (b"\x0f\xa0", b"\x88\x02\x0f\xa0"),
    ] {
        let mut layer = server();
        let raw = [
            masked(0x82, b"last"),
            masked(0x88, payload),
            masked(0x82, b"too late"),
        ]
        .concat();
        assert_eq!(
            receive(&mut layer, &raw).unwrap(),
            (Received::Closed, b"last".to_vec())
        );
        assert_eq!(
            receive(&mut layer, b"anything").unwrap(),
            (Received::Closed, Vec::new())
        );
        assert_eq!(control(&mut layer), answer);
        let mut wire = Vec::new();
        layer.close(&mut wire);
        assert!(wire.is_empty());
        assert!(layer.send(b"x", &mut wire).is_err());
    }
}

#[test]
fn a_close_of_our_own_comes_first_and_is_said_once() {
    let mut layer = server();
    let mut wire = Vec::new();
    layer.close(&mut wire);
    layer.close(&mut wire);
    assert_eq!(wire, b"\x88\x02\x03\xe8");
    assert_eq!(
        receive(&mut layer, &masked(0x88, b"\x03\xe8")).unwrap().0,
        Received::Closed
    );
    assert_eq!(control(&mut layer), []);
}

#[test]
fn what_rfc_6455_forbids_is_refused_with_its_code() {
    let frame = WebSocketError::Frame;
    let unmasked = b"\x82\x01x".to_vec();
    let claims =
        |first: u8, length: u64| [&[first, 0xff][..], &length.to_be_bytes(), &MASK].concat();
    for (raw, error, code) in [
        (masked(0x81, b"text"), WebSocketError::Text, 1003),
        (claims(0x82, 100_001), WebSocketError::TooBig, 1009),
        (claims(0x82, u64::MAX), WebSocketError::TooBig, 1009),
        (
            [masked(0x02, &[0; 60_000]), claims(0x80, 40_001)].concat(),
            WebSocketError::TooBig,
            1009,
        ),
        (
            [masked(0x02, &[0; 1]), claims(0x00, u64::MAX)].concat(),
            WebSocketError::TooBig,
            1009,
        ),
        (unmasked, frame("frame without a mask"), 1002),
        (masked(0xc2, b""), frame("reserved bit"), 1002),
        (masked(0x83, b""), frame("unknown opcode"), 1002),
        (masked(0x8b, b""), frame("unknown opcode"), 1002),
        (masked(0x80, b""), frame("continuation of nothing"), 1002),
        (
            [masked(0x02, b"a"), masked(0x82, b"b")].concat(),
            frame("message within a message"),
            1002,
        ),
        (masked(0x09, b""), frame("control frame in pieces"), 1002),
        (
            masked(0x89, &[0; 126]),
            frame("control frame over 125 bytes"),
            1002,
        ),
        (
            masked(0x88, b"\x03"),
            frame("close frame of one byte"),
            1002,
        ),
        (
            masked(0x88, b"\x03\xed"),
            frame("close code that may not be sent"),
            1002,
        ),
        (
            masked(0x88, b"\x03\xe8\xff"),
            frame("close reason that is not UTF-8"),
            1002,
        ),
    ] {
        let mut layer = server();
        assert_eq!(receive(&mut layer, &raw), Err(error.clone()));
        assert_eq!(
            control(&mut layer),
            [&[0x88, 2][..], &u16::to_be_bytes(code)].concat(),
            "{error}"
        );
        assert_eq!(
            receive(&mut layer, b"more").unwrap().0,
            Received::Closed,
            "nothing is read after an error"
        );
    }
    let mut client = WebSocketLayer::new(Role::Client, 100);
    assert_eq!(
        receive(&mut client, &masked(0x82, b"")),
        Err(frame("frame with a mask"))
    );
}

/// Both roles against tungstenite's own WebSocket, over a real socket.
fn talk_with_tungstenite(role: Role) {
    let theirs = match role {
        Role::Server => TungsteniteRole::Client,
        Role::Client => TungsteniteRole::Server,
    };
    let (ours, their_end) = std::os::unix::net::UnixStream::pair().unwrap();
    let ours = Socket::unix(ours, crate::net::PeerAddress::Unix);
    let echo = move || {
        let mut websocket = WebSocket::from_raw_socket(their_end, theirs, None);
        websocket
            .send(Message::Ping(b"are you there"[..].into()))
            .unwrap();
        loop {
            match websocket.read() {
                Ok(Message::Binary(payload)) => websocket.send(Message::Binary(payload)).unwrap(),
                Ok(Message::Pong(payload)) => websocket.send(Message::Binary(payload)).unwrap(),
                Ok(Message::Close(frame)) => return frame,
                other => panic!("{other:?}"),
            }
        }
    };
    let echo = crate::thread::spawn("echo", 0, echo).unwrap();
    let mut layer = WebSocketLayer::new(role, 1_000_000);
    let mut sent = b"are you there".to_vec();
    let mut plain = BytesMut::new();
    let mut raw = [0; 777];
    let mut read_until = |layer: &mut WebSocketLayer, plain: &mut BytesMut, length: usize| {
        while plain.len() < length {
            let count = ours.read(&mut raw).unwrap();
            let _ = layer.receive(&raw[..count], plain).unwrap();
            ours.write_all(&control(layer)).unwrap();
        }
    };
    for size in [1_u32, 124, 125, 126, 127, 65_535, 65_536, 200_000] {
        let payload: Vec<u8> = (0..size)
            .map(|at| u8::try_from(at % 253).unwrap())
            .collect();
        let mut wire = Vec::new();
        layer.send(&payload, &mut wire).unwrap();
        read_until(&mut layer, &mut plain, sent.len());
        ours.write_all(&wire).unwrap();
        sent.extend(payload);
    }
    read_until(&mut layer, &mut plain, sent.len());
    assert!(plain == sent);
    let mut wire = Vec::new();
    layer.close(&mut wire);
    ours.write_all(&wire).unwrap();
    let code = echo
        .join()
        .unwrap()
        .map(|CloseFrame { code, .. }| u16::from(code));
    assert_eq!(code, Some(1000));
}

#[test]
fn tungstenite_understands_us_as_a_server() {
    talk_with_tungstenite(Role::Server);
}

#[test]
fn tungstenite_understands_us_as_a_client() {
    talk_with_tungstenite(Role::Client);
}
