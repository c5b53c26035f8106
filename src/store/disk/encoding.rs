//! Keys and values on disk.
//!
//! Keys are numbers in big-endian order, then a text where one belongs to the key, so that they sort as the things do.

use std::num::NonZeroU64;
use std::sync::Arc;

use bytestring::ByteString;

use super::fields::{Fields, Opened};
use crate::proto::packet::publish::PublishProperties;
use crate::proto::packet::{RetainHandling, SubscriptionOptions, Will};
use crate::proto::{Message, PacketId, ProtocolVersion, QoS, TopicName};
use crate::store::{
    EntryRecord, EntryState, MessageId, MessageRecord, Position, PublisherRecord, ReplayRecord,
    RetainedRecord, SessionKey, SessionRecord, SubscriptionRecord, WallTime, WillRecord,
};

/// A record that is the value of a table.
pub(super) trait Value: Sized {
    fn write(&self, to: &mut Fields);
    fn read(from: &mut Opened) -> Option<Self>;
}

/// The value of `key` in `table`, in memory that was used before.
pub(super) fn encode(table: &str, key: &[u8], value: &impl Value, used: Vec<u8>) -> Vec<u8> {
    let mut fields = Fields::in_place_of(used);
    value.write(&mut fields);
    fields.seal(table, key)
}

/// What the value of `key` in `table` says.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode<V: Value>(table: &str, key: &[u8], value: &[u8]) -> Result<V, &'static str> {
    let mut opened = Opened::new(Opened::check(table, key, value)?);
    let value = V::read(&mut opened).filter(|_| opened.is_empty());
    value.ok_or("the fields make no sense")
}

pub(super) fn session_key(key: SessionKey) -> [u8; 8] {
    key.0.to_be_bytes()
}

pub(super) fn message_key(id: MessageId) -> [u8; 8] {
    id.0.get().to_be_bytes()
}

pub(super) fn entry_key(key: SessionKey, position: Position) -> [u8; 16] {
    joined(key, &position.0.to_be_bytes())
}

pub(super) fn incoming_key(key: SessionKey, id: PacketId) -> [u8; 10] {
    joined(key, &id.value().to_be_bytes())
}

pub(super) fn subscription_key(key: SessionKey, filter: &str) -> Vec<u8> {
    [&session_key(key), filter.as_bytes()].concat()
}

pub(super) fn read_session_key(key: &[u8]) -> Option<SessionKey> {
    Some(SessionKey(u64::from_be_bytes(key.try_into().ok()?)))
}

pub(super) fn read_message_key(key: &[u8]) -> Option<MessageId> {
    let id = u64::from_be_bytes(key.try_into().ok()?);
    NonZeroU64::new(id).map(MessageId)
}

pub(super) fn read_entry_key(key: &[u8]) -> Option<(SessionKey, Position)> {
    let (session, position) = key.split_at_checked(8)?;
    let position = u64::from_be_bytes(position.try_into().ok()?);
    Some((read_session_key(session)?, Position(position)))
}

pub(super) fn read_incoming_key(key: &[u8]) -> Option<(SessionKey, PacketId)> {
    let (session, id) = key.split_at_checked(8)?;
    let id = PacketId::new(u16::from_be_bytes(id.try_into().ok()?))?;
    Some((read_session_key(session)?, id))
}

pub(super) fn read_subscription_key(key: &[u8]) -> Option<(SessionKey, ByteString)> {
    let (session, filter) = key.split_at_checked(8)?;
    let filter = std::str::from_utf8(filter).ok()?;
    Some((read_session_key(session)?, filter.into()))
}

fn joined<const N: usize>(key: SessionKey, rest: &[u8]) -> [u8; N] {
    let mut joined = [0; N];
    let (session, tail) = joined.split_at_mut(8);
    session.copy_from_slice(&session_key(key));
    tail.copy_from_slice(rest);
    joined
}

/// Nothing but the key.
impl Value for () {
    fn write(&self, _: &mut Fields) {}

    fn read(_: &mut Opened) -> Option<Self> {
        Some(())
    }
}

/// A number about the store itself.
impl Value for u32 {
    fn write(&self, to: &mut Fields) {
        to.number(*self);
    }

    fn read(from: &mut Opened) -> Option<Self> {
        from.number_as()
    }
}

impl Value for SessionRecord {
    fn write(&self, to: &mut Fields) {
        let flags = [
            self.user.is_some(),
            self.disconnected_at.is_some(),
            self.will.is_some(),
        ];
        to.byte(flag_bits(&flags))
            .byte(self.version.level())
            .bytes(self.client_id.as_bytes())
            .bytes(self.listener.as_bytes())
            .number(self.expiry_seconds);
        if let Some(user) = &self.user {
            to.bytes(user.as_bytes());
        }
        if let Some(at) = self.disconnected_at {
            to.number(at.0);
        }
        if let Some(will) = &self.will {
            will.write(to);
        }
    }

    fn read(from: &mut Opened) -> Option<Self> {
        let flags = from.byte().filter(|flags| *flags < 8)?;
        let level = from.byte()?;
        let mut versions = ProtocolVersion::ALL.into_iter();
        Some(Self {
            version: versions.find(|version| version.level() == level)?,
            client_id: from.text()?,
            listener: from.text()?,
            expiry_seconds: from.number_as()?,
            user: when(flags & 1 != 0, || from.text())?,
            disconnected_at: when(flags & 2 != 0, || from.number().map(WallTime))?,
            will: when(flags & 4 != 0, || WillRecord::read(from).map(Box::new))?,
        })
    }
}

impl Value for WillRecord {
    fn write(&self, to: &mut Fields) {
        let will = &self.will;
        to.byte(delivery_bits(
            will.qos,
            will.retain,
            will.properties.is_some(),
        ))
        .bytes(will.topic.as_bytes())
        .bytes(&will.payload)
        .number(will.delay_interval);
        if let Some(properties) = &will.properties {
            properties.write(to);
        }
    }

    fn read(from: &mut Opened) -> Option<Self> {
        let (qos, retain, has_properties) = read_delivery_bits(from.byte()?)?;
        Some(Self {
            will: Will {
                qos,
                retain,
                topic: from.text()?,
                payload: from.bytes()?,
                delay_interval: from.number_as()?,
                properties: when(has_properties, || {
                    PublishProperties::read(from).map(Box::new)
                })?,
            },
        })
    }
}

impl Value for SubscriptionRecord {
    fn write(&self, to: &mut Fields) {
        let options = &self.options;
        let last_sent = self
            .replay
            .as_ref()
            .and_then(|replay| replay.after.as_ref());
        let flags = [
            options.no_local,
            options.retain_as_published,
            self.share.is_some(),
            self.replay.is_some(),
            last_sent.is_some(),
        ];
        to.byte(options.qos.as_u8())
            .byte(flag_bits(&flags))
            .byte(options.retain_handling as u8)
            .number(self.id.map_or(0, |id| u64::from(id) + 1))
            .bytes(self.filter.as_bytes());
        if let Some(share) = &self.share {
            to.bytes(share.as_bytes());
        }
        if let Some(topic) = last_sent {
            to.bytes(topic.as_str().as_bytes());
        }
    }

    fn read(from: &mut Opened) -> Option<Self> {
        let qos = QoS::from_u8(from.byte()?)?;
        let flags = from.byte().filter(|flags| *flags < 32)?;
        let handling = from.byte()?;
        let all = [
            RetainHandling::Always,
            RetainHandling::IfNew,
            RetainHandling::Never,
        ];
        Some(Self {
            options: SubscriptionOptions {
                qos,
                no_local: flags & 1 != 0,
                retain_as_published: flags & 2 != 0,
                retain_handling: all.into_iter().find(|one| *one as u8 == handling)?,
            },
            id: match from.number()?.checked_sub(1) {
                None => None,
                Some(id) => Some(u32::try_from(id).ok()?),
            },
            filter: from.text()?,
            share: when(flags & 4 != 0, || from.text())?,
            replay: when(flags & 8 != 0, || {
                let after = when(flags & 16 != 0, || read_topic(from))?;
                Some(ReplayRecord { after })
            })?,
        })
    }
}

impl Value for MessageRecord {
    fn write(&self, to: &mut Fields) {
        let message = &*self.message;
        let mut bits = delivery_bits(message.qos, message.retain, message.properties.is_some());
        if self.expires_at.is_some() {
            bits |= EXPIRES;
        }
        to.byte(bits)
            .bytes(message.topic.as_str().as_bytes())
            .bytes(&message.payload);
        if let Some(properties) = &message.properties {
            properties.write(to);
        }
        if let Some(at) = self.expires_at {
            to.number(at.0);
        }
    }

    fn read(from: &mut Opened) -> Option<Self> {
        let bits = from.byte()?;
        let (qos, retain, has_properties) = read_delivery_bits(bits & !EXPIRES)?;
        let message = Message {
            qos,
            retain,
            topic: read_topic(from)?,
            payload: from.bytes()?,
            properties: when(has_properties, || {
                PublishProperties::read(from).map(Box::new)
            })?,
            expires_at: None,
        };
        Some(Self {
            message: Arc::new(message),
            expires_at: when(bits & EXPIRES != 0, || from.number().map(WallTime))?,
        })
    }
}

impl Value for EntryRecord {
    fn write(&self, to: &mut Fields) {
        let (state, packet_id) = match self.state {
            EntryState::Waiting => (0, None),
            EntryState::Sent(id) => (1, Some(id)),
            EntryState::Released(id) => (2, Some(id)),
        };
        to.byte(delivery_bits(self.qos, self.retain, self.group.is_some()))
            .byte(state)
            .number(packet_id.map_or(0, PacketId::value))
            .number(self.message.map_or(0, |id| id.0.get()))
            .number(self.size_bytes);
        let ids = self.ids.as_deref().unwrap_or_default();
        to.number(self.ids.as_ref().map_or(0, |ids| ids.len() as u64 + 1));
        for id in ids {
            to.number(*id);
        }
        if let Some(group) = &self.group {
            to.bytes(group.as_bytes());
        }
    }

    fn read(from: &mut Opened) -> Option<Self> {
        let (qos, retain, has_group) = read_delivery_bits(from.byte()?)?;
        let state = from.byte()?;
        let packet_id = PacketId::new(from.number_as()?);
        let state = match (state, packet_id) {
            (0, None) => EntryState::Waiting,
            (1, Some(id)) => EntryState::Sent(id),
            (2, Some(id)) => EntryState::Released(id),
            _ => return None,
        };
        Some(Self {
            message: NonZeroU64::new(from.number()?).map(MessageId),
            size_bytes: from.number_as()?,
            qos,
            retain,
            ids: match from.number()?.checked_sub(1) {
                None => None,
                Some(count) => Some(read_ids(from, count)?),
            },
            group: when(has_group, || from.text())?,
            state,
        })
    }
}

impl Value for RetainedRecord {
    fn write(&self, to: &mut Fields) {
        self.message.write(to);
        let Some(publisher) = &self.publisher else {
            to.byte(0);
            return;
        };
        to.byte(flag_bits(&[true, publisher.user.is_some()]))
            .bytes(publisher.client_id.as_bytes())
            .bytes(publisher.listener.as_bytes());
        if let Some(user) = &publisher.user {
            to.bytes(user.as_bytes());
        }
    }

    fn read(from: &mut Opened) -> Option<Self> {
        let message = MessageRecord::read(from)?;
        let flags = from.byte().filter(|flags| [0, 1, 3].contains(flags))?;
        let publisher = when(flags != 0, || {
            Some(PublisherRecord {
                client_id: from.text()?,
                listener: from.text()?,
                user: when(flags & 2 != 0, || from.text())?,
            })
        })?;
        Some(Self { message, publisher })
    }
}

/// Neither an alias nor subscription identifiers: they belong to one hop, and are not kept.
impl Value for PublishProperties {
    fn write(&self, to: &mut Fields) {
        let flags = [
            self.payload_format_utf8.is_some(),
            self.payload_format_utf8 == Some(true),
            self.message_expiry_interval.is_some(),
            self.response_topic.is_some(),
            self.correlation_data.is_some(),
            self.content_type.is_some(),
        ];
        to.byte(flag_bits(&flags));
        if let Some(seconds) = self.message_expiry_interval {
            to.number(seconds);
        }
        if let Some(topic) = &self.response_topic {
            to.bytes(topic.as_bytes());
        }
        if let Some(data) = &self.correlation_data {
            to.bytes(data);
        }
        if let Some(kind) = &self.content_type {
            to.bytes(kind.as_bytes());
        }
        to.number(self.user_properties.len() as u64);
        for (name, value) in &self.user_properties {
            to.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
    }

    fn read(from: &mut Opened) -> Option<Self> {
        let flags = from.byte().filter(|flags| *flags < 64)?;
        let mut properties = Self {
            payload_format_utf8: (flags & 1 != 0).then_some(flags & 2 != 0),
            message_expiry_interval: when(flags & 4 != 0, || from.number_as())?,
            response_topic: when(flags & 8 != 0, || from.text())?,
            correlation_data: when(flags & 16 != 0, || from.bytes())?,
            content_type: when(flags & 32 != 0, || from.text())?,
            ..Self::default()
        };
        for _ in 0..from.number()? {
            let pair = (from.text()?, from.text()?);
            properties.user_properties.push(pair);
        }
        Some(properties)
    }
}

fn read_topic(from: &mut Opened) -> Option<TopicName> {
    TopicName::parse(from.text()?).ok()
}

fn read_ids(from: &mut Opened, count: u64) -> Option<Arc<[u32]>> {
    let ids = (0..count).map(|_| from.number_as::<u32>());
    ids.collect()
}

/// A bit for each, the lowest first.
fn flag_bits(flags: &[bool]) -> u8 {
    let bits = flags.iter().rev();
    bits.fold(0, |bits, flag| bits << 1 | u8::from(*flag))
}

fn delivery_bits(qos: QoS, retain: bool, more: bool) -> u8 {
    qos.as_u8() | flag_bits(&[false, false, retain, more])
}

fn read_delivery_bits(bits: u8) -> Option<(QoS, bool, bool)> {
    let qos = QoS::from_u8(bits & 3)?;
    (bits < 16).then_some((qos, bits & 4 != 0, bits & 8 != 0))
}

/// `Some(None)` if it is not there; `None` if it is and cannot be read.
#[expect(clippy::option_option, reason = "a missing field is not a damaged one")]
fn when<T>(is_there: bool, read: impl FnOnce() -> Option<T>) -> Option<Option<T>> {
    if is_there {
        read().map(Some)
    } else {
        Some(None)
    }
}

/// The bit of a message that expires, beside those of its delivery.
const EXPIRES: u8 = 16;

#[cfg(test)]
pub(super) mod tests;
