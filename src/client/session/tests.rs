use std::collections::VecDeque;

use bytes::Bytes;

use super::*;
use crate::client::options::Subscription;
use crate::client::token::Slot;
use crate::proto::flow::outgoing::{Next, Resend};
use crate::proto::packet::Suback;
use crate::proto::packet::publish::PublishProperties;
use crate::proto::{Decoder, Frame};

const QOS0: QoS = QoS::AtMostOnce;
const QOS1: QoS = QoS::AtLeastOnce;
const QOS2: QoS = QoS::ExactlyOnce;
const V311: ProtocolVersion = ProtocolVersion::V311;
const V5: ProtocolVersion = ProtocolVersion::V5;

/// A session on a connection, with what it sends.
struct Side {
    session: Session,
    version: ProtocolVersion,
    out: OutBuf,
    effects: Effects,
    connections: u64,
}

impl Side {
    fn new(version: ProtocolVersion) -> Self {
        Self {
            session: Session::new(version, 10),
            version,
            out: OutBuf::new(),
            effects: Effects::default(),
            connections: 0,
        }
    }

    fn connected(version: ProtocolVersion) -> Self {
        let mut side = Self::new(version);
        side.connect(&Connack::new(false, ReasonCode::Success));
        side
    }

    fn connect(&mut self, connack: &Connack) {
        self.connect_at(0, connack);
    }

    fn connect_at(&mut self, milliseconds: u64, connack: &Connack) {
        self.connections += 1;
        let announced = Announced {
            receive_maximum: 10,
            topic_alias_maximum: 5,
        };
        self.session.on_connected(
            Made {
                number: self.connections,
                at: WallTime(milliseconds),
            },
            self.version,
            connack,
            announced,
            &mut self.out,
            &mut self.effects,
        );
    }

    fn disconnect(&mut self) {
        self.out.clear();
        self.session.on_disconnected(&mut self.effects);
    }

    fn publish(&mut self, payload: &str, qos: QoS) -> Arc<Publication> {
        let publication = publication(payload, qos);
        self.session.publish(&publication, &mut self.out).unwrap();
        publication
    }

    fn subscribe(&mut self, filters: &[&str], identifier: Option<u32>) -> Answer {
        let answer: Answer = Arc::new(Slot::new());
        let filters = filters
            .iter()
            .map(|filter| Subscription::new(*filter, QOS1))
            .collect();
        self.session
            .subscribe(
                filters,
                identifier,
                Vec::new(),
                &answer,
                Some(&mut self.out),
            )
            .unwrap();
        answer
    }

    fn receive(&mut self, packet: Packet) -> Result<(), ClientError> {
        self.session
            .on_packet(packet, &mut self.out, &mut self.effects)
    }

    /// What was sent since the last call.
    fn sent(&mut self) -> Vec<Packet> {
        let bytes = Bytes::from(self.out.to_vec());
        self.out.clear();
        packets(self.version, bytes)
    }

    /// Grants what the SUBSCRIBE packets ask for, and returns how many filters each had.
    fn grant(&mut self, sent: Vec<Packet>) -> Vec<usize> {
        let mut counts = Vec::new();
        for packet in sent {
            let Packet::Subscribe(subscribe) = packet else {
                panic!("{packet:?}");
            };
            counts.push(subscribe.filters.len());
            self.receive(Packet::Suback(Box::new(Suback {
                packet_id: subscribe.packet_id,
                reasons: vec![ReasonCode::GrantedQos1; subscribe.filters.len()],
                properties: None,
            })))
            .unwrap();
        }
        counts
    }
}

fn packets(version: ProtocolVersion, mut bytes: Bytes) -> Vec<Packet> {
    let decoder = Decoder::new(version);
    let mut packets = Vec::new();
    while let Some(frame) = decoder.frame(&bytes).unwrap() {
        let Frame { total_bytes, .. } = frame;
        let packet = bytes.split_to(total_bytes as usize);
        packets.push(decoder.decode(frame, &packet).unwrap());
    }
    assert!(bytes.is_empty());
    packets
}

fn publication(payload: &str, qos: QoS) -> Arc<Publication> {
    Arc::new(Publication {
        topic: "some/topic".into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        properties: None,
        expires_at: None,
        restored: false,
        slot: Slot::new(),
    })
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn ok(value: u16) -> Ack {
    Ack::new(id(value), ReasonCode::Success)
}

fn delivery(qos: QoS, packet_id: u16, payload: &str) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "t".into(),
        packet_id: PacketId::new(packet_id).filter(|_| qos != QOS0),
        properties: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }))
}

/// MQTT 5.0 §3.3.2.3.3: the time that a message waits here is taken off.
#[test]
fn a_message_that_is_sent_again_carries_what_is_left_of_its_expiry() {
    let mut side = Side::connected(V5);
    let publication = Arc::new(Publication {
        properties: Some(Box::new(PublishProperties {
            message_expiry_interval: Some(60),
            ..PublishProperties::default()
        })),
        expires_at: Some(WallTime(60_000)),
        ..Arc::into_inner(publication("x", QOS1)).unwrap()
    });
    side.session.publish(&publication, &mut side.out).unwrap();
    let expiry = |packets: Vec<Packet>| match &packets[..] {
        [Packet::Publish(publish)] => {
            let properties = publish.properties.as_ref();
            properties.and_then(|properties| properties.message_expiry_interval)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(expiry(side.sent()), Some(60), "sent first");
    for (at, session_present, left) in [(24_999, true, 36), (25_000, false, 35), (60_000, true, 1)]
    {
        side.disconnect();
        side.connect_at(at, &Connack::new(session_present, ReasonCode::Success));
        assert_eq!(expiry(side.sent()), Some(left), "after {at} ms");
    }
}

#[test]
fn restored_subscriptions_go_out_in_packets_of_bounded_size_by_identifier() {
    let mut side = Side::connected(V5);
    let many: Vec<String> = (0..120).map(|number| format!("f/{number:03}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    side.subscribe(&many, None);
    side.subscribe(&["with/id"], Some(7));
    let sent = side.sent();
    side.grant(sent);
    side.disconnect();
    side.connect(&Connack::new(false, ReasonCode::Success));
    let sent = side.sent();
    let identifiers: Vec<Option<u32>> = sent
        .iter()
        .map(|packet| match packet {
            Packet::Subscribe(subscribe) => subscribe.subscription_identifier,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(identifiers, [None, None, None, Some(7)]);
    assert_eq!(side.grant(sent), [50, 50, 20, 1]);
}

#[test]
fn a_subscription_that_is_not_taken_back_is_told_and_not_asked_for_again() {
    let mut side = Side::connected(V5);
    side.subscribe(&["a"], None);
    let sent = side.sent();
    side.grant(sent);
    side.disconnect();
    side.connect(&Connack::new(false, ReasonCode::Success));
    let Some(Packet::Subscribe(again)) = side.sent().pop() else {
        panic!("expected SUBSCRIBE");
    };
    side.receive(Packet::Suback(Box::new(Suback {
        packet_id: again.packet_id,
        reasons: vec![ReasonCode::NotAuthorized],
        properties: None,
    })))
    .unwrap();
    let lost: Vec<_> = side.effects.lost_subscriptions.drain(..).collect();
    assert_eq!(lost, [("a".into(), ReasonCode::NotAuthorized)]);
    side.disconnect();
    side.connect(&Connack::new(false, ReasonCode::Success));
    assert_eq!(side.sent(), []);
}

#[test]
fn a_refused_filter_is_not_remembered() {
    let mut side = Side::connected(V311);
    let answer = side.subscribe(&["a", "b"], None);
    let Some(Packet::Subscribe(subscribe)) = side.sent().pop() else {
        panic!("expected SUBSCRIBE");
    };
    let reasons = vec![ReasonCode::UnspecifiedError, ReasonCode::Success];
    side.receive(Packet::Suback(Box::new(Suback {
        packet_id: subscribe.packet_id,
        reasons: reasons.clone(),
        properties: None,
    })))
    .unwrap();
    side.effects.tell();
    assert_eq!(answer.wait(None).unwrap().unwrap().reasons, reasons);
    side.disconnect();
    side.connect(&Connack::new(false, ReasonCode::Success));
    let sent = side.sent();
    assert_eq!(side.grant(sent), [1]);
}

/// On another connection the identifier may stand for another message already.
#[test]
fn a_message_is_acknowledged_on_its_own_connection_only() {
    let mut side = Side::connected(V311);
    side.receive(delivery(QOS1, 3, "x")).unwrap();
    let message = side.effects.delivered.pop().unwrap();
    side.disconnect();
    assert!(!side.session.on_taken(&message, &mut side.out));
    side.connect(&Connack::new(true, ReasonCode::Success));
    assert!(!side.session.on_taken(&message, &mut side.out));
    assert_eq!(side.sent(), []);
}

#[test]
fn a_qos2_message_that_waits_to_be_taken_is_not_acknowledged_for_being_sent_twice() {
    let mut side = Side::connected(V311);
    side.receive(delivery(QOS2, 3, "x")).unwrap();
    side.receive(delivery(QOS2, 3, "x")).unwrap();
    assert_eq!(side.sent(), []);
    let message = side.effects.delivered.pop().unwrap();
    assert!(side.effects.delivered.is_empty());
    assert!(side.session.on_taken(&message, &mut side.out));
    assert_eq!(side.sent(), [Packet::Pubrec(ok(3))]);
}

/// [MQTT-4.3.3-4]: unknown identifiers are answered, so that the server forgets them too.
#[test]
fn releases_of_unknown_flows_are_answered() {
    for version in [V311, V5] {
        let not_found = if version == V5 {
            ReasonCode::PacketIdentifierNotFound
        } else {
            ReasonCode::Success
        };
        let mut side = Side::connected(version);
        side.receive(Packet::Pubrec(ok(9))).unwrap();
        side.receive(Packet::Pubrel(ok(9))).unwrap();
        let ack = Ack::new(id(9), not_found);
        assert_eq!(
            side.sent(),
            [Packet::Pubrel(ack.clone()), Packet::Pubcomp(ack)]
        );
        side.receive(Packet::Puback(ok(9))).unwrap();
        side.receive(Packet::Pubcomp(ok(9))).unwrap();
        assert_eq!(side.sent(), []);
    }
}

#[test]
fn a_server_that_forgot_a_released_identifier_has_the_message_all_the_same() {
    let mut side = Side::connected(V5);
    let publication = side.publish("x", QOS2);
    side.receive(Packet::Pubrec(ok(1))).unwrap();
    let unknown = Ack::new(id(1), ReasonCode::PacketIdentifierNotFound);
    side.receive(Packet::Pubcomp(unknown)).unwrap();
    side.effects.tell();
    assert!(publication.slot.wait(None).unwrap().is_ok());
}

#[test]
fn answers_to_nothing_end_the_connection() {
    for version in [V311, V5] {
        let mut side = Side::connected(version);
        let suback = Suback {
            packet_id: id(1),
            reasons: vec![ReasonCode::Success],
            properties: None,
        };
        assert!(side.receive(Packet::Suback(Box::new(suback))).is_err());
        side.subscribe(&["a", "b"], None);
        let too_few = Suback {
            packet_id: id(1),
            reasons: vec![ReasonCode::Success],
            properties: None,
        };
        assert!(side.receive(Packet::Suback(Box::new(too_few))).is_err());
        assert!(side.receive(Packet::Pingreq).is_err());
    }
}

/// [MQTT-3.3.4-9]
#[test]
fn more_messages_than_announced_end_the_connection() {
    let mut side = Side::connected(V5);
    for number in 1..=10 {
        side.receive(delivery(QOS1, number, "x")).unwrap();
    }
    let error = side.receive(delivery(QOS1, 11, "x")).unwrap_err();
    assert!(matches!(
        error,
        ClientError::Protocol(ProtocolError::ReceiveMaximumExceeded)
    ));
    let mut older = Side::connected(V311);
    for number in 1..=300 {
        older.receive(delivery(QOS1, number, "x")).unwrap();
    }
}

/// [MQTT-3.3.2-7], [MQTT-3.3.2-12]
#[test]
fn topics_get_aliases_where_the_server_takes_them() {
    let mut side = Side::new(V5);
    let mut connack = Connack::new(false, ReasonCode::Success);
    connack.properties.topic_alias_maximum = Some(1);
    side.connect(&connack);
    for _ in 0..2 {
        side.publish("x", QOS1);
    }
    let topics = |sent: Vec<Packet>| -> Vec<(String, Option<u16>)> {
        sent.into_iter()
            .map(|packet| match packet {
                Packet::Publish(publish) => (
                    publish.topic.to_string(),
                    publish.properties.and_then(|p| p.topic_alias),
                ),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let named = "some/topic".to_owned();
    assert_eq!(
        topics(side.sent()),
        [(named.clone(), Some(1)), (String::new(), Some(1))]
    );
    side.disconnect();
    connack.session_present = true;
    side.connect(&connack);
    assert_eq!(
        topics(side.sent()),
        [(named.clone(), Some(1)), (String::new(), Some(1))]
    );
    side.disconnect();
    side.connect(&Connack::new(true, ReasonCode::Success));
    assert_eq!(topics(side.sent()), [(named.clone(), None), (named, None)]);
}

#[test]
fn aliases_of_the_server_stand_for_their_topics() {
    let mut side = Side::connected(V5);
    let aliased = |topic: &str, alias| {
        Packet::Publish(Box::new(Publish {
            dup: false,
            qos: QOS0,
            retain: false,
            topic: topic.into(),
            packet_id: None,
            properties: Some(Box::new(PublishProperties {
                topic_alias: Some(alias),
                ..PublishProperties::default()
            })),
            payload: Bytes::new(),
        }))
    };
    side.receive(aliased("a/b", 5)).unwrap();
    side.receive(aliased("", 5)).unwrap();
    let topics: Vec<_> = side.effects.delivered.drain(..).collect();
    assert_eq!(topics[0].topic(), "a/b");
    assert_eq!(topics[1].topic(), "a/b");
    assert!(side.receive(aliased("", 4)).is_err(), "never set");
    assert!(side.receive(aliased("a", 6)).is_err(), "above the maximum");
}

/// [MQTT-3.2.2-11], [MQTT-3.2.2-15]
#[test]
fn what_the_next_connection_does_not_allow_is_not_sent_again() {
    let mut side = Side::connected(V5);
    let exact = side.publish("x", QOS2);
    let large = side.publish(&"x".repeat(200), QOS1);
    let fits = side.publish("y", QOS1);
    side.disconnect();
    let mut connack = Connack::new(true, ReasonCode::Success);
    connack.properties.maximum_qos = Some(QOS1);
    connack.properties.maximum_packet_size = Some(100);
    side.connect(&connack);
    let sent = side.sent();
    assert!(
        matches!(&sent[..], [Packet::Publish(publish)] if publish.payload == "y" && publish.dup),
        "{sent:?}"
    );
    side.effects.tell();
    for (publication, expected) in [
        (exact, ReasonCode::QosNotSupported),
        (large, ReasonCode::PacketTooLarge),
    ] {
        let error = publication.slot.wait(None).unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(expected));
    }
    assert!(!fits.slot.is_filled());
    assert_eq!(side.session.in_flight(), 1);
}

#[test]
fn resends_wait_for_a_narrower_window() {
    let mut side = Side::connected(V5);
    let publications: Vec<_> = (0..3).map(|_| side.publish("x", QOS1)).collect();
    side.disconnect();
    let mut connack = Connack::new(true, ReasonCode::Success);
    connack.properties.receive_maximum = Some(1);
    side.connect(&connack);
    for number in 1..=3 {
        assert_eq!(side.sent().len(), 1);
        assert!(!side.session.has_room(QOS1));
        side.receive(Packet::Puback(ok(number))).unwrap();
    }
    assert!(side.session.has_room(QOS1));
    side.effects.tell();
    assert!(publications.iter().all(|one| one.slot.is_filled()));
}

/// Mosquitto closes the connection of an older client with more than 20 messages in flight.
#[test]
fn qos2_has_a_narrower_window_before_5() {
    for (version, expected) in [(V311, 19), (V5, 100)] {
        let mut side = Side::new(version);
        side.session = Session::new(version, 100);
        side.connect(&Connack::new(false, ReasonCode::Success));
        let mut count = 0;
        while side.session.has_room(QOS2) {
            side.publish("x", QOS2);
            count += 1;
        }
        assert_eq!(count, expected);
        assert_eq!(side.session.has_room(QOS1), version == V311);
        side.receive(Packet::Pubrec(ok(1))).unwrap();
        assert!(!side.session.has_room(QOS2));
        side.receive(Packet::Pubcomp(ok(1))).unwrap();
        assert!(side.session.has_room(QOS2));
    }
}

/// A session and a server that keeps it, over a link that is cut again and again: QoS 2 arrives exactly once and QoS 1 at
/// least once, both in order and in both directions.
#[test]
fn a_link_that_is_cut_at_random_loses_nothing() {
    for seed in 1..=200 {
        Link::new(seed).run();
    }
}

struct Link {
    random: u64,
    side: Side,
    /// The server's half of the session.
    incoming: Incoming,
    outgoing: Outgoing<String>,
    to_server: VecDeque<Packet>,
    to_client: VecDeque<Packet>,
    /// Taken by the program or not, as in the inbox.
    inbox: VecDeque<ReceivedMessage>,
    at_server: Vec<String>,
    at_client: Vec<String>,
    publications: Vec<Arc<Publication>>,
    published: [usize; 2],
}

const MESSAGES: usize = 30;

impl Link {
    fn new(seed: u64) -> Self {
        Self {
            random: seed,
            side: Side::connected(V311),
            incoming: Incoming::new(u16::MAX),
            outgoing: Outgoing::new(5),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            inbox: VecDeque::new(),
            at_server: Vec::new(),
            at_client: Vec::new(),
            publications: Vec::new(),
            published: [0; 2],
        }
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % sides
    }

    fn run(mut self) {
        for step in 0.. {
            assert!(step < 200_000, "no end");
            match self.dice(8) {
                0 => self.client_publishes(),
                1 => self.server_publishes(),
                2 | 3 => self.server_receives(),
                4 | 5 => self.client_receives(),
                6 => self.program_takes(),
                _ if self.dice(10) == 0 => self.cut(),
                _ => {}
            }
            let sent = self.side.sent();
            self.to_server.extend(sent);
            if self.is_over() {
                break;
            }
        }
        for qos in ["1", "2"] {
            for arrived in [&self.at_server, &self.at_client] {
                let mut numbers: Vec<usize> = arrived
                    .iter()
                    .filter_map(|payload| payload.strip_prefix(qos)?.strip_prefix(':'))
                    .map(|number| number.parse().unwrap())
                    .collect();
                let with_repeats = numbers.clone();
                if qos == "1" {
                    let mut seen = std::collections::BTreeSet::new();
                    numbers.retain(|number| seen.insert(*number));
                }
                let expected: Vec<usize> = (0..MESSAGES)
                    .filter(|number| (number % 2 == 0) == (qos == "2"))
                    .collect();
                assert_eq!(numbers, expected, "QoS {qos}: {with_repeats:?}");
            }
        }
    }

    fn is_over(&self) -> bool {
        self.published == [MESSAGES; 2]
            && self.side.session.in_flight() == 0
            && self.outgoing.is_empty()
            && self.to_server.is_empty()
            && self.to_client.is_empty()
            && self.inbox.is_empty()
    }

    fn next(&mut self, side: usize) -> (String, QoS) {
        let number = self.published[side];
        self.published[side] += 1;
        let qos = if number.is_multiple_of(2) { QOS2 } else { QOS1 };
        (format!("{}:{number}", qos.as_u8()), qos)
    }

    fn client_publishes(&mut self) {
        if self.published[0] < MESSAGES && self.side.session.has_room(QOS2) {
            let (payload, qos) = self.next(0);
            let publication = self.side.publish(&payload, qos);
            self.publications.push(publication);
        }
    }

    fn server_publishes(&mut self) {
        if self.published[1] < MESSAGES && self.outgoing.has_room() {
            let (payload, qos) = self.next(1);
            let id = self.outgoing.start(payload.clone(), qos).unwrap();
            self.to_client
                .push_back(delivery(qos, id.value(), &payload));
        }
    }

    fn server_receives(&mut self) {
        let Some(packet) = self.to_server.pop_front() else {
            return;
        };
        match packet {
            Packet::Publish(publish) => {
                let id = publish.packet_id.unwrap();
                let verdict = self.incoming.on_publish(id, publish.qos).unwrap();
                if verdict == Verdict::Deliver {
                    let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                    self.at_server.push(payload);
                }
                let ack = Ack::new(id, ReasonCode::Success);
                if publish.qos == QOS1 {
                    self.incoming.on_acknowledged(id);
                    self.to_client.push_back(Packet::Puback(ack));
                } else {
                    self.to_client.push_back(Packet::Pubrec(ack));
                }
            }
            Packet::Pubrel(ack) => {
                self.incoming.on_pubrel(ack.packet_id);
                self.to_client.push_back(Packet::Pubcomp(ack));
            }
            Packet::Puback(ack) => {
                self.outgoing.on_puback(ack.packet_id, ack.reason).unwrap();
            }
            Packet::Pubrec(ack) => {
                let next = self.outgoing.on_pubrec(ack.packet_id, ack.reason).unwrap();
                assert_eq!(next, Next::Release);
                self.to_client.push_back(Packet::Pubrel(ack));
            }
            Packet::Pubcomp(ack) => {
                self.outgoing.on_pubcomp(ack.packet_id).unwrap();
            }
            other => panic!("{other:?}"),
        }
        self.resend();
    }

    fn client_receives(&mut self) {
        if let Some(packet) = self.to_client.pop_front() {
            self.side.receive(packet).unwrap();
            self.inbox.extend(self.side.effects.delivered.drain(..));
        }
    }

    fn program_takes(&mut self) {
        if let Some(message) = self.inbox.pop_front() {
            self.at_client
                .push(String::from_utf8(message.payload().to_vec()).unwrap());
            self.side.session.on_taken(&message, &mut self.side.out);
        }
    }

    fn cut(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.side.disconnect();
        self.outgoing.on_disconnected();
        self.incoming.on_connected(u16::MAX);
        // Between two connections the program takes messages too.
        if self.dice(2) == 0 {
            self.program_takes();
        }
        let retracted: Vec<_> = self
            .inbox
            .drain(..)
            .filter_map(|message| Some((message.packet_id()?, message.qos())))
            .collect();
        self.side.session.on_retracted(&retracted);
        self.side.connect(&Connack::new(true, ReasonCode::Success));
        self.resend();
    }

    fn resend(&mut self) {
        while let Some(packet) = self.outgoing.next_resend().map(|resend| match resend {
            Resend::Publish { id, message, qos } => delivery(qos, id.value(), message),
            Resend::Pubrel { id } => Packet::Pubrel(Ack::new(id, ReasonCode::Success)),
        }) {
            self.to_client.push_back(packet);
        }
    }
}
