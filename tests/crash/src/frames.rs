//! MQTT packets as bytes, made and read by hand: what was acknowledged is then known for certain.

use std::fmt;

/// A protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;

/// A packet that a broker sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connack {
        present: bool,
        code: u8,
    },
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP: the first byte says which.
    Ack {
        kind: u8,
        id: u16,
        reason: u8,
    },
    Suback {
        id: u16,
        codes: Vec<u8>,
    },
    Unsuback {
        id: u16,
    },
    Pingresp,
    Disconnect {
        reason: u8,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// 0 for QoS 0.
    pub(crate) id: u16,
}

/// Bytes that are no packet.
#[derive(Debug)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker sent {}", self.0)
    }
}

/// Takes the first whole packet off `bytes`: it, and its length.
pub(crate) fn next(bytes: &[u8], version: Version) -> Result<Option<(Packet, usize)>, Malformed> {
    let (Some(&first), mut at, mut length) = (bytes.first(), 1, 0usize) else {
        return Ok(None);
    };
    for shift in [0, 7, 14, 21] {
        let Some(&byte) = bytes.get(at) else {
            return Ok(None);
        };
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let Some(body) = bytes.get(at..at + length) else {
        return Ok(None);
    };
    Ok(Some((packet(first, body, version)?, at + length)))
}

fn packet(first: u8, body: &[u8], version: Version) -> Result<Packet, Malformed> {
    let id = || match *body {
        [high, low, ..] => Ok(u16::from_be_bytes([high, low])),
        _ => Err(Malformed("an acknowledgement without packet identifier")),
    };
    Ok(match first & 0xf0 {
        0x20 => match *body {
            [flags, code, ..] => Packet::Connack {
                present: flags & 1 != 0,
                code,
            },
            _ => return Err(Malformed("a CONNACK that is too short")),
        },
        0x30 => Packet::Publish(publish(first, body, version)?),
        0x40..=0x70 => Packet::Ack {
            kind: first,
            id: id()?,
            reason: body.get(2).copied().unwrap_or_default(),
        },
        0x90 => Packet::Suback {
            id: id()?,
            codes: after_properties(&body[2..], version)?.to_vec(),
        },
        0xb0 => Packet::Unsuback { id: id()? },
        0xd0 => Packet::Pingresp,
        0xe0 => Packet::Disconnect {
            reason: body.first().copied().unwrap_or_default(),
        },
        _ => return Err(Malformed("a packet of a kind that no broker sends")),
    })
}

fn publish(first: u8, body: &[u8], version: Version) -> Result<Publish, Malformed> {
    const SHORT: Malformed = Malformed("a PUBLISH that ends too early");
    let [high, low, rest @ ..] = body else {
        return Err(SHORT);
    };
    let topic_bytes = usize::from(u16::from_be_bytes([*high, *low]));
    let (topic, mut rest) = rest.split_at_checked(topic_bytes).ok_or(SHORT)?;
    let qos = (first >> 1) & 3;
    let mut id = 0;
    if qos > 0 {
        let [high, low, after @ ..] = rest else {
            return Err(SHORT);
        };
        id = u16::from_be_bytes([*high, *low]);
        rest = after;
    }
    Ok(Publish {
        topic: String::from_utf8_lossy(topic).into_owned(),
        payload: after_properties(rest, version)?.to_vec(),
        qos,
        dup: first & 8 != 0,
        retain: first & 1 != 0,
        id,
    })
}

fn after_properties(bytes: &[u8], version: Version) -> Result<&[u8], Malformed> {
    if version == Version::V311 {
        return Ok(bytes);
    }
    let (mut at, mut length) = (0, 0usize);
    loop {
        let byte = *bytes
            .get(at)
            .ok_or(Malformed("a packet without properties"))?;
        length |= usize::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte & 0x80 == 0 || at == 4 {
            break;
        }
    }
    bytes
        .get(at + length..)
        .ok_or(Malformed("properties that end too early"))
}

/// How a client connects.
#[derive(Debug, Clone)]
pub(crate) struct Connect<'a> {
    pub(crate) version: Version,
    pub(crate) client_id: &'a str,
    /// Clean Start; before 5.0 a session that is not kept begins clean too.
    pub(crate) clean: bool,
    /// The session outlives the connection.
    pub(crate) keeps: bool,
    /// Receive Maximum, 5.0 only; 0: not given.
    pub(crate) receive_maximum: u16,
    /// Topic, payload, delay in seconds (5.0 only); sent with QoS 2.
    pub(crate) will: Option<(&'a str, &'a [u8], u32)>,
}

impl Connect<'_> {
    /// CONNECT without keep-alive.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut body = Vec::new();
        push_bytes(&mut body, b"MQTT");
        body.push(if self.version == Version::V5 { 5 } else { 4 });
        let will = if self.will.is_some() {
            0x04 | 2 << 3
        } else {
            0
        };
        body.push(if self.clean { 2 } else { 0 } | will);
        body.extend_from_slice(&[0, 0]);
        if self.version == Version::V5 {
            let mut properties = Vec::new();
            if self.keeps {
                properties.push(0x11);
                properties.extend_from_slice(&EXPIRY_SECONDS.to_be_bytes());
            }
            if self.receive_maximum > 0 {
                properties.push(0x21);
                properties.extend_from_slice(&self.receive_maximum.to_be_bytes());
            }
            push_length(&mut body, properties.len());
            body.extend_from_slice(&properties);
        }
        push_bytes(&mut body, self.client_id.as_bytes());
        if let Some((topic, payload, delay)) = self.will {
            if self.version == Version::V5 {
                body.extend_from_slice(&[5, 0x18]);
                body.extend_from_slice(&delay.to_be_bytes());
            }
            push_bytes(&mut body, topic.as_bytes());
            push_bytes(&mut body, payload);
        }
        whole(0x10, &body)
    }
}

/// How long sessions are kept that outlive their connection.
const EXPIRY_SECONDS: u32 = 86_400;

pub(crate) fn subscribe(version: Version, id: u16, filters: &[&str], qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        push_bytes(&mut body, filter.as_bytes());
        body.push(qos);
    }
    whole(0x82, &body)
}

pub(crate) fn unsubscribe(version: Version, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    push_bytes(&mut body, filter.as_bytes());
    whole(0xa2, &body)
}

/// A PUBLISH to be appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) id: u16,
}

pub(crate) fn push_publish(out: &mut Vec<u8>, version: Version, publish: &Outgoing<'_>) {
    let Outgoing {
        topic,
        payload,
        qos,
        retain,
        dup,
        id,
    } = *publish;
    out.push(0x30 | u8::from(dup) << 3 | qos << 1 | u8::from(retain));
    let properties = usize::from(version == Version::V5);
    let id_bytes = if qos > 0 { 2 } else { 0 };
    push_length(out, 2 + topic.len() + id_bytes + properties + payload.len());
    push_bytes(out, topic.as_bytes());
    if qos > 0 {
        out.extend_from_slice(&id.to_be_bytes());
    }
    out.extend(std::iter::repeat_n(0, properties));
    out.extend_from_slice(payload);
}

pub(crate) fn push_ack(out: &mut Vec<u8>, kind: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[kind, 2, high, low]);
}

/// DISCONNECT; `ends`: 5.0 with Session Expiry Interval 0.
pub(crate) fn disconnect(ends: bool) -> Vec<u8> {
    if ends {
        return vec![0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0];
    }
    vec![0xe0, 0]
}

fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    push_length(&mut frame, body.len());
    frame.extend_from_slice(body);
    frame
}

fn push_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}
