//! A server that does what a test says, over `mem://`: packets in, packets out.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;

use crate::net::Socket;
use crate::net::listener::{BindAddress, Listener};
use crate::proto::packet::connack::Connack;
use crate::proto::packet::connect::Connect;
use crate::proto::packet::publish::Publish;
use crate::proto::packet::suback::Suback;
use crate::proto::packet::subscribe::Subscribe;
use crate::proto::packet::{Ack, Packet, PacketId};
use crate::proto::{Decoder, ProtocolVersion, QoS, ReasonCode, codec};
use crate::thread;

pub(super) const DEADLINE: Duration = Duration::from_secs(10);

pub(super) struct Server {
    listener: Listener,
}

/// One connection of the client, seen from the server.
pub(super) struct Peer {
    pub(super) socket: Socket,
    decoder: Decoder,
    received: BytesMut,
}

/// Starts `script` on a thread of its own: the URL to connect to, and the thread to join.
pub(super) fn serve<T: Send + 'static>(
    script: impl FnOnce(&Server) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("client-test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let listener = Listener::bind(&BindAddress::Mem(name.clone())).unwrap();
    let server = Server { listener };
    let thread = thread::spawn("server", 0, move || script(&server)).unwrap();
    (format!("mem://{name}"), thread)
}

impl Server {
    pub(super) fn on(listener: Listener) -> Self {
        Self { listener }
    }

    pub(super) fn accept(&self) -> Peer {
        let socket = self.listener.accept().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Peer {
            socket,
            decoder: Decoder::new(ProtocolVersion::V311),
            received: BytesMut::new(),
        }
    }

    /// Accepts a connection and its CONNECT.
    pub(super) fn welcome(&self, session_present: bool) -> (Peer, Connect) {
        self.welcome_with(Connack::new(session_present, ReasonCode::Success))
    }

    pub(super) fn welcome_with(&self, connack: Connack) -> (Peer, Connect) {
        let mut peer = self.accept();
        let connect = peer.connect();
        peer.send(&Packet::Connack(Box::new(connack)));
        (peer, connect)
    }
}

impl Peer {
    pub(super) fn connect(&mut self) -> Connect {
        match self.receive() {
            Packet::Connect(connect) => {
                self.decoder.version = connect.version;
                *connect
            }
            other => panic!("expected CONNECT, got {other:?}"),
        }
    }

    pub(super) fn send(&self, packet: &Packet) {
        let mut bytes = Vec::new();
        codec::encode(packet, self.decoder.version, &mut bytes).unwrap();
        self.send_bytes(&bytes);
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next packet; panics when there is none in time.
    pub(super) fn receive(&mut self) -> Packet {
        self.try_receive().unwrap().expect("the client has closed")
    }

    /// The next packet; `None` at the end of the connection.
    pub(super) fn try_receive(&mut self) -> io::Result<Option<Packet>> {
        let mut raw = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.frame(&self.received).unwrap() {
                let bytes = self.received.split_to(frame.total_bytes as usize).freeze();
                return Ok(Some(self.decoder.decode(frame, &bytes).unwrap()));
            }
            match self.socket.read(&mut raw)? {
                0 => return Ok(None),
                read => self.received.extend_from_slice(&raw[..read]),
            }
        }
    }

    pub(super) fn publish(&mut self) -> Publish {
        match self.receive() {
            Packet::Publish(publish) => *publish,
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    /// Receives a SUBSCRIBE and grants what it asks for.
    pub(super) fn subscribe(&mut self) -> Subscribe {
        let Packet::Subscribe(subscribe) = self.receive() else {
            panic!("expected SUBSCRIBE");
        };
        let reasons = subscribe
            .filters
            .iter()
            .map(|(_, options)| ReasonCode::from_u8(options.qos.as_u8()).unwrap())
            .collect();
        self.send(&Packet::Suback(Box::new(Suback {
            packet_id: subscribe.packet_id,
            reasons,
            properties: None,
        })));
        *subscribe
    }

    /// Receives a QoS 1 PUBLISH and acknowledges it.
    pub(super) fn take_qos1(&mut self) -> Publish {
        let publish = self.publish();
        self.send(&Packet::Puback(ok(publish.packet_id.unwrap())));
        publish
    }

    /// Receives a QoS 2 PUBLISH and goes through its flow.
    pub(super) fn take_qos2(&mut self) -> Publish {
        let publish = self.publish();
        let id = publish.packet_id.unwrap();
        self.send(&Packet::Pubrec(ok(id)));
        assert_eq!(self.receive(), Packet::Pubrel(ok(id)));
        self.send(&Packet::Pubcomp(ok(id)));
        publish
    }

    /// Reads what comes until DISCONNECT or the end of the connection: the last packet.
    pub(super) fn until_end(&mut self) -> Option<Packet> {
        let mut last = None;
        while !matches!(last, Some(Packet::Disconnect(_))) {
            match self.try_receive() {
                Ok(Some(packet)) => last = Some(packet),
                _ => break,
            }
        }
        last
    }
}

pub(super) fn ok(id: PacketId) -> Ack {
    Ack::new(id, ReasonCode::Success)
}

pub(super) fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

pub(super) fn message(qos: QoS, packet_id: u16, payload: &str) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "t".into(),
        packet_id: PacketId::new(packet_id).filter(|_| qos != QoS::AtMostOnce),
        properties: None,
        payload: payload.to_owned().into(),
    }))
}
