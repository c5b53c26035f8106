//! A client of raw bytes: sends whatever a test wants and reports what comes, under a deadline.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::packet::{self, Connect, Kind, Packet, Publish, V5, V311, Version};
use super::{Broker, DISCONNECT, PATIENCE, PINGREQ, hex, unhex, unique};

/// A byte stream with a read deadline.
pub(crate) trait Stream: Read + Write + Send {
    fn read_timeout(&mut self, timeout: Duration);
}

impl Stream for TcpStream {
    fn read_timeout(&mut self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).unwrap();
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn read_timeout(&mut self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).unwrap();
    }
}

pub(crate) struct Client {
    pub(crate) version: Version,
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// Packets that came while another one was awaited, oldest first.
    set_aside: VecDeque<Vec<u8>>,
    next_id: u16,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A TCP connection; nothing is sent.
    pub(crate) fn open(broker: &Broker) -> Self {
        Self::open_at(broker.address())
    }

    pub(crate) fn open_at(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the broker accepts");
        stream.set_nodelay(true).unwrap();
        Self::over(Box::new(stream))
    }

    /// A client on a stream that is already there: TLS, WebSocket, a Unix socket.
    pub(crate) fn over(stream: Box<dyn Stream>) -> Self {
        Self {
            version: V311,
            stream,
            received: Vec::new(),
            set_aside: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Connects with a clean session under a name of its own.
    pub(crate) fn connect(broker: &Broker, version: Version) -> Self {
        Self::connect_with(broker, &Connect::new(version, &format!("it{}", unique())))
    }

    /// Connects with this CONNECT and expects to be accepted.
    pub(crate) fn connect_with(broker: &Broker, connect: &Connect) -> Self {
        Self::connect_resuming(broker, connect).0
    }

    /// As [`connect_with`](Self::connect_with), and says whether a session was present.
    pub(crate) fn connect_resuming(broker: &Broker, connect: &Connect) -> (Self, bool) {
        let mut client = Self::open(broker);
        let present = client.handshake(connect);
        (client, present)
    }

    /// CONNECT and an accepting CONNACK on an open connection; says whether a session was present.
    pub(crate) fn handshake(&mut self, connect: &Connect) -> bool {
        self.version = connect.version;
        self.send(connect.encode());
        match self.receive() {
            Packet::Connack {
                session_present,
                code: 0,
                ..
            } => session_present,
            other => panic!("expected an accepting CONNACK, got {other:?}"),
        }
    }

    /// Sends CONNECT and expects a CONNACK with this code, no session, and the end of the connection.
    pub(crate) fn refused(broker: &Broker, connect: &Connect) -> u8 {
        Self::open(broker).refuses(connect)
    }

    pub(crate) fn refuses(mut self, connect: &Connect) -> u8 {
        self.version = connect.version;
        self.send(connect.encode());
        match self.receive() {
            Packet::Connack {
                session_present: false,
                code,
                ..
            } if code != 0 => {
                self.expect_end();
                code
            }
            other => panic!("expected a refusing CONNACK, got {other:?}"),
        }
    }

    /// Writes bytes. That the broker has closed meanwhile is no failure here: what follows tells.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        _ = self
            .stream
            .write_all(bytes.as_ref())
            .and_then(|()| self.stream.flush());
    }

    pub(crate) fn send_hex(&mut self, text: &str) {
        self.send(unhex(text));
    }

    /// The next packet.
    pub(crate) fn receive(&mut self) -> Packet {
        let deadline = Instant::now() + PATIENCE;
        match self.next_before(deadline) {
            Next::Packet(bytes) => packet::decode(self.version, &bytes),
            Next::Ended => panic!("the broker closed the connection; expected a packet"),
            Next::Nothing => panic!("no packet came; so far: {}", hex(&self.received)),
        }
    }

    /// The next packet if one comes within `span`. For waiting on an event that a test must survive the absence of; to
    /// show that nothing comes use [`expect_only`](Self::expect_only).
    pub(crate) fn receive_within(&mut self, span: Duration) -> Option<Packet> {
        match self.next_before(Instant::now() + span) {
            Next::Packet(bytes) => Some(packet::decode(self.version, &bytes)),
            Next::Ended => panic!("the broker closed the connection"),
            Next::Nothing => None,
        }
    }

    /// The next packet, or `None` at the end of the connection.
    pub(crate) fn receive_or_end(&mut self) -> Option<Packet> {
        match self.next_before(Instant::now() + PATIENCE) {
            Next::Packet(bytes) => Some(packet::decode(self.version, &bytes)),
            Next::Ended => None,
            Next::Nothing => panic!(
                "neither a packet nor the end; so far: {}",
                hex(&self.received)
            ),
        }
    }

    /// The next packet as the bytes it came in.
    pub(crate) fn receive_bytes(&mut self) -> Vec<u8> {
        match self.next_before(Instant::now() + PATIENCE) {
            Next::Packet(bytes) => bytes,
            Next::Ended => panic!("the broker closed the connection; expected a packet"),
            Next::Nothing => panic!("no packet came; so far: {}", hex(&self.received)),
        }
    }

    /// The next packet is exactly these bytes.
    #[track_caller]
    pub(crate) fn expect_hex(&mut self, text: &str) {
        let received = self.receive_bytes();
        assert_eq!(hex(&received), hex(&unhex(text)));
    }

    /// The next packet is a PUBLISH.
    #[track_caller]
    pub(crate) fn receive_publish(&mut self) -> Publish {
        match self.receive() {
            Packet::Publish(publish) => publish,
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    /// The next packet is this acknowledgement with a Success reason.
    #[track_caller]
    pub(crate) fn expect_ack(&mut self, kind: Kind, id: u16) {
        match self.receive() {
            Packet::Ack {
                kind: found,
                id: of,
                reason,
                ..
            } if reason < 0x80 => {
                assert_eq!((found, of), (kind, id));
            }
            other => panic!("expected {kind:?} {id}, got {other:?}"),
        }
    }

    /// The broker ends the connection. In 5.0 a DISCONNECT with an error may come first; its reason is given.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) -> Option<u8> {
        let mut reason = None;
        loop {
            match self.next_before(Instant::now() + PATIENCE) {
                Next::Ended => return reason,
                Next::Packet(bytes) => match packet::decode(self.version, &bytes) {
                    Packet::Disconnect { reason: given, .. } if reason.is_none() => {
                        assert!(given >= 0x80, "DISCONNECT with 0x{given:02x}");
                        reason = Some(given);
                    }
                    other => panic!("expected the end of the connection, got {other:?}"),
                },
                Next::Nothing => panic!("the connection stays open"),
            }
        }
    }

    /// The broker ends the connection and sends nothing before.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        match self.next_before(Instant::now() + PATIENCE) {
            Next::Ended => {}
            Next::Packet(bytes) => {
                panic!("expected the end of the connection, got {}", hex(&bytes))
            }
            Next::Nothing => panic!("the connection stays open; so far: {}", hex(&self.received)),
        }
        assert!(
            self.received.is_empty(),
            "half a packet at the end: {}",
            hex(&self.received)
        );
    }

    /// The broker has ended the connection already.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.ends_within(Duration::from_millis(1))
    }

    /// The broker ends the connection within `span`, or `false`.
    pub(crate) fn ends_within(&mut self, span: Duration) -> bool {
        let deadline = Instant::now() + span;
        loop {
            match self.next_before(deadline) {
                Next::Ended => return true,
                Next::Nothing => return false,
                Next::Packet(_) => {}
            }
        }
    }

    /// An accepting CONNACK comes; `false` when the connection ends instead.
    pub(crate) fn ends_or_connack(&mut self) -> bool {
        match self.receive_or_end() {
            None => false,
            Some(Packet::Connack { code: 0, .. }) => true,
            Some(other) => panic!("expected CONNACK or the end, got {other:?}"),
        }
    }

    /// PINGREQ is answered: the connection is alive and the broker reads it.
    #[track_caller]
    pub(crate) fn expect_alive(&mut self) {
        self.send(PINGREQ);
        assert_eq!(self.receive(), Packet::Pingresp);
    }

    /// Subscribes to one filter and expects the QoS to be granted.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        assert_eq!(self.subscribe_all(&[(filter, qos)]), [qos]);
    }

    /// Subscribes and gives the codes of the SUBACK.
    #[track_caller]
    pub(crate) fn subscribe_all(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.next_id();
        self.send(packet::subscribe(self.version, id, filters));
        self.await_packet("SUBACK", |packet| match packet {
            Packet::Suback { id: of, codes, .. } if *of == id => Some(codes.clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) {
        let id = self.next_id();
        self.send(packet::unsubscribe(self.version, id, filters));
        self.await_packet("UNSUBACK", |packet| {
            matches!(packet, Packet::Unsuback { id: of, .. } if *of == id).then_some(())
        });
    }

    /// The broker has dealt with everything that this client sent before. (An UNSUBSCRIBE of nothing takes the same way
    /// through the broker as messages do; a PINGREQ does not.)
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        self.unsubscribe(&["it/settle"]);
    }

    /// Publishes and completes the flow of its QoS, so that afterwards the broker has dealt with the message.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.publish_packet(Publish::new(topic, qos, payload));
    }

    #[track_caller]
    pub(crate) fn publish_packet(&mut self, mut publish: Publish) {
        let id = self.next_id();
        if publish.qos > 0 {
            publish.id = Some(id);
        }
        self.send(publish.encode(self.version));
        match publish.qos {
            0 => self.settle(),
            1 => self.await_ack(Kind::Puback, id),
            _ => {
                self.await_ack(Kind::Pubrec, id);
                self.send(packet::ack(Kind::Pubrel, id));
                self.await_ack(Kind::Pubcomp, id);
            }
        }
    }

    /// Does the receiver's part of the flow of a message.
    #[track_caller]
    pub(crate) fn acknowledge(&mut self, publish: &Publish) {
        let Some(id) = publish.id else { return };
        if publish.qos == 1 {
            self.send(packet::ack(Kind::Puback, id));
        } else {
            self.send(packet::ack(Kind::Pubrec, id));
            self.await_ack(Kind::Pubrel, id);
            self.send(packet::ack(Kind::Pubcomp, id));
        }
    }

    /// This acknowledgement comes, with a Success reason; what comes before it is set aside.
    #[track_caller]
    pub(crate) fn await_ack(&mut self, kind: Kind, id: u16) {
        self.await_packet(&format!("{kind:?} {id}"), |packet| {
            matches!(packet, Packet::Ack { kind: found, id: of, reason: ..0x80, .. } if (*found, *of) == (kind, id))
                .then_some(())
        });
    }

    /// Nothing but a marker that `by` publishes now comes to this client: what was published before was not for it.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self, by: &mut Self) {
        self.expect_only(by, &[]);
    }

    /// Exactly messages with these payloads come, acknowledged as they come, before a marker that `by` publishes now.
    #[track_caller]
    pub(crate) fn expect_only(&mut self, by: &mut Self, payloads: &[&str]) {
        let marker = format!("it/marker/{}", unique());
        self.subscribe(&marker, 0);
        by.publish(&marker, 0, "marker");
        let mut found = Vec::new();
        loop {
            let message = self.receive_publish();
            if message.topic == marker {
                break;
            }
            self.acknowledge(&message);
            found.push(message.text());
        }
        assert_eq!(found, payloads);
        self.unsubscribe(&[&marker]);
    }

    /// DISCONNECT, and the broker closes.
    #[track_caller]
    pub(crate) fn disconnect(mut self) {
        self.send(DISCONNECT);
        self.expect_end();
    }

    /// Ends the connection without DISCONNECT.
    pub(crate) fn cut(self) {
        drop(self);
    }

    /// A packet identifier that this client did not use before.
    pub(crate) fn next_id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    fn next_before(&mut self, deadline: Instant) -> Next {
        match self.set_aside.pop_front() {
            Some(bytes) => Next::Packet(bytes),
            None => self.read_before(deadline),
        }
    }

    /// The first packet to come that `accept` takes; others are set aside for later.
    #[track_caller]
    pub(crate) fn await_packet<T>(
        &mut self,
        what: &str,
        accept: impl Fn(&Packet) -> Option<T>,
    ) -> T {
        let decoded = |bytes: &Vec<u8>| accept(&packet::decode(self.version, bytes));
        if let Some((place, found)) = self
            .set_aside
            .iter()
            .enumerate()
            .find_map(|(place, bytes)| Some((place, decoded(bytes)?)))
        {
            self.set_aside.remove(place);
            return found;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_before(deadline) {
                Next::Packet(bytes) => match accept(&packet::decode(self.version, &bytes)) {
                    Some(found) => return found,
                    None => self.set_aside.push_back(bytes),
                },
                Next::Ended => panic!("the broker closed the connection; expected {what}"),
                Next::Nothing => panic!("no {what} came; but {}", self.shows_set_aside()),
            }
        }
    }

    fn shows_set_aside(&self) -> String {
        let shown: Vec<_> = self.set_aside.iter().map(|bytes| hex(bytes)).collect();
        shown.join("; ")
    }

    fn read_before(&mut self, deadline: Instant) -> Next {
        loop {
            if let Some(length) = packet::whole(&self.received) {
                return Next::Packet(self.received.drain(..length).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Nothing;
            }
            self.stream.read_timeout(left);
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Next::Ended,
                Ok(count) => self.received.extend(&buffer[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Next::Ended,
                },
            }
        }
    }
}

enum Next {
    Packet(Vec<u8>),
    Ended,
    Nothing,
}

/// A subscriber and a publisher on one broker, for the many tests that need just that.
pub(crate) trait Subscriber {
    fn subscriber(&self, version: Version, filter: &str, qos: u8) -> Client;
    fn publisher(&self, version: Version) -> Client;
}

impl Subscriber for Broker {
    fn subscriber(&self, version: Version, filter: &str, qos: u8) -> Client {
        let mut client = Client::connect(self, version);
        client.subscribe(filter, qos);
        client
    }

    fn publisher(&self, version: Version) -> Client {
        Client::connect(self, version)
    }
}

/// In 5.0 a refusal is told by its reason code, in 3.1.1 by the nearest return code.
pub(crate) fn by_version(version: Version, v3: u8, v5: u8) -> u8 {
    if version == V5 { v5 } else { v3 }
}
