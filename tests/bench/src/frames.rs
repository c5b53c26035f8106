//! MQTT 3.1.1 frames, made and read by hand: as little work per message as possible, and no code shared with the broker.

use crate::fault::Fault;
use crate::stamp::Stamp;
pub(crate) use crate::stamp::{STAMP_BYTES, tail};

pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const CONNECT: u8 = 0x10;
pub(crate) const SUBSCRIBE: u8 = 0x82;
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// One packet: its first byte and what follows the length.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) first: u8,
    pub(crate) body: &'a [u8],
}

/// The parts of a PUBLISH.
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) id: u16,
    pub(crate) payload: &'a [u8],
}

/// The first whole frame of `bytes` and its size, `None` if there is none yet.
#[inline]
pub(crate) fn next_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Fault> {
    let (mut length, mut shift, mut at) = (0_usize, 0, 1);
    loop {
        let Some(byte) = bytes.get(at) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << shift;
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 21 {
            return Err(Fault::Wrong("a frame with a length of five bytes"));
        }
    }
    let frame = bytes.get(at..at + length).map(|body| {
        let first = bytes[0];
        (Frame { first, body }, at + length)
    });
    Ok(frame)
}

impl<'a> Frame<'a> {
    pub(crate) fn kind(self) -> u8 {
        match self.first & 0xf0 {
            PUBLISH => PUBLISH,
            _ => self.first,
        }
    }

    pub(crate) fn is_retained(self) -> bool {
        self.first & 1 != 0
    }

    /// The same, as if it were sent for the first time.
    pub(crate) fn without_dup(self) -> Self {
        let first = self.first & !0x08;
        Self { first, ..self }
    }

    /// The packet identifier that an acknowledgement begins with.
    pub(crate) fn id(self) -> Result<u16, Fault> {
        match *self.body {
            [high, low, ..] => Ok(u16::from_be_bytes([high, low])),
            _ => Err(Fault::Wrong("an acknowledgement without packet identifier")),
        }
    }

    /// Takes a PUBLISH apart and insists on its QoS and on DUP being clear.
    #[inline]
    pub(crate) fn publish(self, qos: u8) -> Result<Publish<'a>, Fault> {
        const SHORT: Fault = Fault::Wrong("a PUBLISH that ends too early");
        if self.first & 0x08 != 0 {
            return Err(Fault::Wrong(
                "a PUBLISH with DUP, though no connection was lost",
            ));
        }
        if (self.first >> 1) & 3 != qos {
            return Err(Fault::Wrong("a PUBLISH of another QoS"));
        }
        let [high, low, rest @ ..] = self.body else {
            return Err(SHORT);
        };
        let topic_bytes = usize::from(u16::from_be_bytes([*high, *low]));
        let (topic, rest) = rest.split_at_checked(topic_bytes).ok_or(SHORT)?;
        if qos == 0 {
            return Ok(Publish {
                topic,
                id: 0,
                payload: rest,
            });
        }
        let [high, low, payload @ ..] = rest else {
            return Err(SHORT);
        };
        let id = u16::from_be_bytes([*high, *low]);
        Ok(Publish { topic, id, payload })
    }
}

/// Reads and checks the stamp of a payload, and that the rest is `tail`.
#[inline]
pub(crate) fn read_stamp(payload: &[u8], tail: &[u8]) -> Result<Stamp, Fault> {
    Stamp::read(payload, tail).ok_or(Fault::Wrong("a payload that nobody sent"))
}

/// The beginning of every PUBLISH of one stream: all that stands before the packet identifier.
pub(crate) fn publish_prefix(topic: &str, qos: u8, retain: bool, payload_bytes: usize) -> Vec<u8> {
    let id_bytes = if qos == 0 { 0 } else { 2 };
    let mut frame = vec![PUBLISH | qos << 1 | u8::from(retain)];
    push_length(&mut frame, 2 + topic.len() + id_bytes + payload_bytes);
    push_text(&mut frame, topic);
    frame
}

/// Appends one PUBLISH. `id` is left out for QoS 0.
#[inline]
pub(crate) fn push_publish(
    out: &mut Vec<u8>,
    prefix: &[u8],
    id: Option<u16>,
    number: u64,
    stream: u32,
    tail: &[u8],
) {
    out.extend_from_slice(prefix);
    if let Some(id) = id {
        out.extend_from_slice(&id.to_be_bytes());
    }
    out.extend_from_slice(&Stamp { number, stream }.to_bytes());
    out.extend_from_slice(tail);
}

#[inline]
pub(crate) fn push_ack(out: &mut Vec<u8>, first: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

/// A CONNECT with a keep-alive that is longer than any run: rumqttd takes none without.
pub(crate) fn connect(client_id: &str, clean: bool) -> Vec<u8> {
    let mut frame = vec![CONNECT];
    push_length(&mut frame, 12 + client_id.len());
    push_text(&mut frame, "MQTT");
    frame.extend_from_slice(&[4, if clean { 2 } else { 0 }]);
    frame.extend_from_slice(&600_u16.to_be_bytes());
    push_text(&mut frame, client_id);
    frame
}

/// A SUBSCRIBE to all of `filters` with one QoS.
pub(crate) fn subscribe(id: u16, filters: &[String], qos: u8) -> Vec<u8> {
    let mut frame = vec![SUBSCRIBE];
    push_length(
        &mut frame,
        2 + filters.iter().map(|filter| filter.len() + 3).sum::<usize>(),
    );
    frame.extend_from_slice(&id.to_be_bytes());
    for filter in filters {
        push_text(&mut frame, filter);
        frame.push(qos);
    }
    frame
}

fn push_length(frame: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            return frame.push(low);
        }
        frame.push(low | 0x80);
    }
}

fn push_text(frame: &mut Vec<u8>, text: &str) {
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
}
