//! A second, deliberately plain reading of the packet formats: what the tests send and what they see is not judged by
//! the codec under test. It builds invalid packets as willingly as valid ones.

#![allow(
    dead_code,
    reason = "the vocabulary of packets stands here whole, whether or not a test says each word"
)]

use std::fmt;

/// The protocol version a test speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V31,
    V311,
    V5,
}

pub(crate) use Version::{V5, V31, V311};

impl Version {
    pub(crate) const ALL: [Self; 3] = [V31, V311, V5];
}

/// A property of MQTT 5.0 with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Property {
    Byte(u8, u8),
    Two(u8, u16),
    Four(u8, u32),
    Var(u8, u32),
    Text(u8, String),
    Binary(u8, Vec<u8>),
    Pair(u8, String, String),
}

impl Property {
    pub(crate) fn id(&self) -> u8 {
        match self {
            Self::Byte(id, _)
            | Self::Two(id, _)
            | Self::Four(id, _)
            | Self::Var(id, _)
            | Self::Text(id, _)
            | Self::Binary(id, _)
            | Self::Pair(id, _, _) => *id,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.id());
        match self {
            Self::Byte(_, value) => out.push(*value),
            Self::Two(_, value) => out.extend(value.to_be_bytes()),
            Self::Four(_, value) => out.extend(value.to_be_bytes()),
            Self::Var(_, value) => variable_integer(*value, out),
            Self::Text(_, value) => string(value.as_bytes(), out),
            Self::Binary(_, value) => string(value, out),
            Self::Pair(_, name, value) => {
                string(name.as_bytes(), out);
                string(value.as_bytes(), out);
            }
        }
    }

    fn decode(input: &mut Input<'_>) -> Self {
        let id = input.u8();
        match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => Self::Byte(id, input.u8()),
            0x13 | 0x21 | 0x22 | 0x23 => Self::Two(id, input.u16()),
            0x02 | 0x11 | 0x18 | 0x27 => Self::Four(id, input.u32()),
            0x0b => Self::Var(id, input.variable_integer()),
            0x09 | 0x16 => Self::Binary(id, input.string().to_vec()),
            0x26 => Self::Pair(id, input.text(), input.text()),
            0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => Self::Text(id, input.text()),
            other => panic!("unknown property 0x{other:02x} from the broker"),
        }
    }
}

/// A packet as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Connack {
        session_present: bool,
        code: u8,
        properties: Vec<Property>,
    },
    Publish(Publish),
    Ack {
        kind: Kind,
        id: u16,
        reason: u8,
        properties: Vec<Property>,
    },
    Suback {
        id: u16,
        codes: Vec<u8>,
        properties: Vec<Property>,
    },
    Unsuback {
        id: u16,
        codes: Vec<u8>,
        properties: Vec<Property>,
    },
    Pingresp,
    Disconnect {
        reason: u8,
        properties: Vec<Property>,
    },
    Auth {
        reason: u8,
        properties: Vec<Property>,
    },
}

/// The four acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
}

/// A PUBLISH, received or to be sent.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Publish {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) id: Option<u16>,
    pub(crate) properties: Vec<Property>,
    pub(crate) payload: Vec<u8>,
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.payload[..self.payload.len().min(40)];
        write!(
            f,
            "Publish {{ {:?} qos {}, id {:?}, dup {}, retain {}, {} bytes {:?}, {:?} }}",
            self.topic,
            self.qos,
            self.id,
            self.dup,
            self.retain,
            self.payload.len(),
            String::from_utf8_lossy(shown),
            self.properties
        )
    }
}

impl Publish {
    pub(crate) fn new(topic: &str, qos: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            qos,
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            ..Self::default()
        }
    }

    pub(crate) fn id(mut self, id: u16) -> Self {
        self.id = Some(id);
        self
    }

    pub(crate) fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub(crate) fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The bytes, whatever they mean: QoS 3, no identifier where one belongs, anything goes.
    pub(crate) fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.payload.len() + self.topic.len() + 8);
        string(self.topic.as_bytes(), &mut body);
        if let Some(id) = self.id {
            body.extend(id.to_be_bytes());
        }
        if version == V5 {
            properties(&self.properties, &mut body);
        }
        body.extend(&self.payload);
        let first = 0x30 | u8::from(self.dup) << 3 | (self.qos & 3) << 1 | u8::from(self.retain);
        packet(first, &body)
    }
}

/// CONNECT, with every part open to be wrong.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Publish>,
    pub(crate) will_properties: Vec<Property>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) properties: Vec<Property>,
}

impl Connect {
    pub(crate) fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            clean: true,
            keep_alive: 60,
            will: None,
            will_properties: Vec::new(),
            user: None,
            password: None,
            properties: Vec::new(),
        }
    }

    /// Keeps the session after the connection: Clean Session 0, and in 5.0 an expiry that never comes.
    pub(crate) fn persistent(mut self) -> Self {
        self.clean = false;
        if self.version == V5 {
            self.properties.push(Property::Four(0x11, u32::MAX));
        }
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn will(mut self, will: Publish) -> Self {
        self.will = Some(will);
        self
    }

    pub(crate) fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    pub(crate) fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.password = Some(password.as_ref().to_vec());
        self
    }

    pub(crate) fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }

    pub(crate) fn flags(&self) -> u8 {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos & 3) << 3 | u8::from(will.retain) << 5;
        }
        flags | u8::from(self.password.is_some()) << 6 | u8::from(self.user.is_some()) << 7
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_with_flags(self.flags())
    }

    /// The same packet with other Connect Flags than its fields say.
    pub(crate) fn encode_with_flags(&self, flags: u8) -> Vec<u8> {
        packet(0x10, &self.body(flags))
    }

    pub(crate) fn body(&self, flags: u8) -> Vec<u8> {
        let mut body = Vec::new();
        let (name, level): (&[u8], u8) = match self.version {
            V31 => (b"MQIsdp", 3),
            V311 => (b"MQTT", 4),
            V5 => (b"MQTT", 5),
        };
        string(name, &mut body);
        body.push(level);
        body.push(flags);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == V5 {
            properties(&self.properties, &mut body);
        }
        string(self.client_id.as_bytes(), &mut body);
        if let Some(will) = &self.will {
            if self.version == V5 {
                properties(&self.will_properties, &mut body);
            }
            string(will.topic.as_bytes(), &mut body);
            string(&will.payload, &mut body);
        }
        if let Some(user) = &self.user {
            string(user.as_bytes(), &mut body);
        }
        if let Some(password) = &self.password {
            string(password, &mut body);
        }
        body
    }
}

/// SUBSCRIBE for `filters`, each with its options byte (in 3.1.1 the QoS).
pub(crate) fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_with(version, id, &[], filters)
}

pub(crate) fn subscribe_with(
    version: Version,
    id: u16,
    with: &[Property],
    filters: &[(&str, u8)],
) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        properties(with, &mut body);
    }
    for (filter, options) in filters {
        string(filter.as_bytes(), &mut body);
        body.push(*options);
    }
    packet(0x82, &body)
}

pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        body.push(0);
    }
    for filter in filters {
        string(filter.as_bytes(), &mut body);
    }
    packet(0xa2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP in the four bytes that every version reads.
pub(crate) fn ack(kind: Kind, id: u16) -> Vec<u8> {
    let first = (kind as u8) << 4 | if kind == Kind::Pubrel { 2 } else { 0 };
    packet(first, &id.to_be_bytes())
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with a Reason Code, 5.0 only.
pub(crate) fn ack_with(kind: Kind, id: u16, reason: u8) -> Vec<u8> {
    let first = (kind as u8) << 4 | if kind == Kind::Pubrel { 2 } else { 0 };
    let mut body = id.to_be_bytes().to_vec();
    body.push(reason);
    packet(first, &body)
}

/// DISCONNECT with a Reason Code and properties, 5.0 only.
pub(crate) fn disconnect(reason: u8, with: &[Property]) -> Vec<u8> {
    let mut body = vec![reason];
    properties(with, &mut body);
    packet(0xe0, &body)
}

/// AUTH, 5.0 only.
pub(crate) fn auth(reason: u8, with: &[Property]) -> Vec<u8> {
    let mut body = vec![reason];
    properties(with, &mut body);
    packet(0xf0, &body)
}

pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0x00];
pub(crate) const PINGRESP: [u8; 2] = [0xd0, 0x00];
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0x00];

/// A packet of these parts; the Remaining Length is right.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    variable_integer(u32::try_from(body.len()).unwrap(), &mut out);
    out.extend(body);
    out
}

/// Two bytes of length and the bytes.
pub(crate) fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

fn properties(properties: &[Property], out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    for property in properties {
        property.encode(&mut bytes);
    }
    variable_integer(u32::try_from(bytes.len()).unwrap(), out);
    out.extend(bytes);
}

pub(crate) fn variable_integer(mut value: u32, out: &mut Vec<u8>) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// The length of the first whole packet in `bytes`, if there is one.
pub(crate) fn whole(bytes: &[u8]) -> Option<usize> {
    let mut length = 0_usize;
    for at in 1..bytes.len().min(5) {
        length |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        if bytes[at] & 0x80 == 0 {
            let total = at + 1 + length;
            return (bytes.len() >= total).then_some(total);
        }
    }
    None
}

/// Reads one whole packet that a broker sent. Panics on anything that the specification does not allow there.
pub(crate) fn decode(version: Version, bytes: &[u8]) -> Packet {
    let mut input = Input { bytes, at: 0 };
    let first = input.u8();
    input.variable_integer();
    let flags = first & 0x0f;
    if first >> 4 != 3 {
        let reserved = if first >> 4 == 6 { 2 } else { 0 };
        assert_eq!(flags, reserved, "reserved flags of {}", hex(bytes));
    }
    let packet = match first >> 4 {
        2 => {
            let acknowledge = input.u8();
            assert_eq!(
                acknowledge & 0xfe,
                0,
                "reserved CONNACK flags: {}",
                hex(bytes)
            );
            Packet::Connack {
                session_present: acknowledge == 1,
                code: input.u8(),
                properties: input.properties(version),
            }
        }
        3 => {
            let qos = flags >> 1 & 3;
            assert_ne!(qos, 3, "QoS 3 from the broker");
            let topic = input.text();
            Packet::Publish(Publish {
                dup: flags & 8 != 0,
                qos,
                retain: flags & 1 != 0,
                topic,
                id: (qos > 0).then(|| input.u16()),
                properties: input.properties(version),
                payload: input.rest().to_vec(),
            })
        }
        kind @ 4..=7 => Packet::Ack {
            kind: [Kind::Puback, Kind::Pubrec, Kind::Pubrel, Kind::Pubcomp][usize::from(kind - 4)],
            id: input.u16(),
            reason: if version == V5 && !input.is_empty() {
                input.u8()
            } else {
                0
            },
            properties: if input.is_empty() {
                Vec::new()
            } else {
                input.properties(version)
            },
        },
        9 => Packet::Suback {
            id: input.u16(),
            properties: input.properties(version),
            codes: input.rest().to_vec(),
        },
        11 => Packet::Unsuback {
            id: input.u16(),
            properties: input.properties(version),
            codes: input.rest().to_vec(),
        },
        13 => Packet::Pingresp,
        14 => {
            assert_eq!(
                version,
                V5,
                "only MQTT 5.0 lets a server send DISCONNECT: {}",
                hex(bytes)
            );
            Packet::Disconnect {
                reason: if input.is_empty() { 0 } else { input.u8() },
                properties: if input.is_empty() {
                    Vec::new()
                } else {
                    input.properties(version)
                },
            }
        }
        15 => Packet::Auth {
            reason: if input.is_empty() { 0 } else { input.u8() },
            properties: if input.is_empty() {
                Vec::new()
            } else {
                input.properties(version)
            },
        },
        other => panic!("packet type {other} from the broker: {}", hex(bytes)),
    };
    assert!(input.is_empty(), "bytes left over in {}", hex(bytes));
    packet
}

/// `bytes` as lower-case hexadecimal, cut after 64.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text: Vec<_> = bytes
        .iter()
        .take(64)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if bytes.len() > 64 {
        text.push(format!("… ({} bytes)", bytes.len()));
    }
    text.join(" ")
}

/// The bytes of a hexadecimal text; spaces are free.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).expect("hexadecimal digits")).unwrap())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let end = self.at + count;
        assert!(
            end <= self.bytes.len(),
            "packet too short: {}",
            hex(self.bytes)
        );
        let taken = &self.bytes[self.at..end];
        self.at = end;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn variable_integer(&mut self) -> u32 {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8();
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("variable byte integer too long: {}", hex(self.bytes))
    }

    fn string(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.take(usize::from(length))
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.string().to_vec()).expect("UTF-8 from the broker")
    }

    fn properties(&mut self, version: Version) -> Vec<Property> {
        if version != V5 {
            return Vec::new();
        }
        let length = self.variable_integer() as usize;
        let mut section = Input {
            bytes: self.take(length),
            at: 0,
        };
        let mut found = Vec::new();
        while !section.is_empty() {
            found.push(Property::decode(&mut section));
        }
        found
    }

    fn rest(&mut self) -> &'a [u8] {
        self.take(self.bytes.len() - self.at)
    }

    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }
}
