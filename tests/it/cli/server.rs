//! A server of MQTT 3.1.1 that does as a test says: to see what a program sends, and how it takes what a broker seldom does.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::support::*;

/// CONNACK of MQTT 3.1.1 without a session: return code 0.
const CONNACK: &str = "20 02 00 00";

pub(super) struct Server(TcpListener);

impl Server {
    pub(super) fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(super) fn url(&self) -> String {
        format!("mqtt://{}", self.address())
    }

    pub(super) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// The next connection; nothing has been read from it.
    pub(super) fn accept(&self) -> Peer {
        self.0.set_nonblocking(true).unwrap();
        let stream = eventually("a connection comes", || {
            self.0
                .accept()
                .map(|(stream, _)| stream)
                .map_err(|error| error.to_string())
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer(stream)
    }

    /// Nobody has connected.
    pub(super) fn expect_nobody(&self) {
        self.0.set_nonblocking(true).unwrap();
        assert!(self.0.accept().is_err(), "somebody connected");
    }

    /// The next connection with its CONNECT of MQTT 3.1.1, which is accepted. One of 5.0 before that is closed, as old
    /// servers do.
    pub(super) fn accept_mqtt(&self) -> (Peer, Vec<u8>) {
        let (mut peer, connect) = self.accept_connect();
        peer.send(CONNACK);
        (peer, connect)
    }

    /// As [`accept_mqtt`](Self::accept_mqtt), and the answer is the test's.
    pub(super) fn accept_connect(&self) -> (Peer, Vec<u8>) {
        loop {
            let mut peer = self.accept();
            let connect = peer.packet();
            assert_eq!(connect[0], 0x10);
            if connect[8] < 5 {
                return (peer, connect);
            }
        }
    }
}

pub(super) struct Peer(TcpStream);

impl Peer {
    /// The next packet, which must be shorter than 128 bytes behind its length.
    pub(super) fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet).unwrap();
        assert!(packet[1] < 128, "a longer packet than the test expects");
        packet.resize(2 + usize::from(packet[1]), 0);
        self.0.read_exact(&mut packet[2..]).unwrap();
        packet
    }

    pub(super) fn send(&mut self, hex: &str) {
        self.0.write_all(&unhex(hex)).unwrap();
    }

    /// The next packet is SUBSCRIBE; it is granted QoS 0 for one filter.
    pub(super) fn grant(&mut self) {
        let subscribe = self.packet();
        assert_eq!(subscribe[0], 0x82);
        self.0
            .write_all(&[0x90, 3, subscribe[2], subscribe[3], 0])
            .unwrap();
    }

    /// The header of an HTTP request.
    pub(super) fn request(&mut self) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    pub(super) fn answer(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }
}

/// What CONNECT of MQTT 3.1.1 says: flags, keep alive, Client Identifier.
pub(super) fn read_connect(connect: &[u8]) -> (u8, u16, String) {
    let keep_alive = u16::from_be_bytes([connect[10], connect[11]]);
    let length = usize::from(connect[13]);
    let id = String::from_utf8(connect[14..14 + length].to_vec()).unwrap();
    (connect[9], keep_alive, id)
}
