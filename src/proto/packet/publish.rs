//! PUBLISH.

use bytes::Bytes;
use bytestring::ByteString;

use super::{PacketId, PacketType, QoS, UserProperty};
use crate::proto::codec::Frame;
use crate::proto::property::{self, Carrier, Properties, PropertyId};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion};

/// PUBLISH: carries one Application Message.
///
/// Source: MQTT 5.0 §3.3; MQTT 3.1.1 §3.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// DUP: this may be a re-delivery.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; empty when a Topic Alias stands for it.
    pub topic: ByteString,
    /// Packet Identifier: present exactly when QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<PublishProperties>>,
    /// Payload; may be empty.
    pub payload: Bytes,
}

/// The properties of PUBLISH, and those of a Will that travel with it.
///
/// Source: MQTT 5.0 §3.3.2.3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishProperties {
    /// Payload Format Indicator: `true` = UTF-8 text; `None` = unspecified bytes.
    pub payload_format_utf8: Option<bool>,
    /// Message Expiry Interval in seconds; `None` = never.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias, at least 1.
    pub topic_alias: Option<u16>,
    /// Response Topic.
    pub response_topic: Option<ByteString>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
    /// Subscription Identifiers, 1 to 268,435,455 each; server to client only.
    pub subscription_identifiers: Vec<u32>,
    /// Content Type.
    pub content_type: Option<ByteString>,
}

/// A decoded PUBLISH whose parts are borrowed from the read buffer: what the broker's data path uses, so that a
/// message costs no allocation before somebody has to keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishView<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name, valid UTF-8 without NUL; empty when a Topic Alias stands for it.
    pub topic: &'a str,
    /// Packet Identifier: present exactly when QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<PublishProperties>>,
    /// Payload.
    pub payload: &'a [u8],
}

/// What a PUBLISH has in front of its payload, borrowed, for [`encode_head`].
///
/// The last three fields are what differs from receiver to receiver and over time. They alone are written: what
/// `properties` says of them is ignored. MQTT 3.1 and 3.1.1 ignore all properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishHead<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name, a valid one; empty when a Topic Alias stands for it.
    pub topic: &'a str,
    /// Packet Identifier: present exactly when QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// The properties that are forwarded unchanged.
    pub properties: Option<&'a PublishProperties>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias, at least 1.
    pub topic_alias: Option<u16>,
    /// Subscription Identifiers, 1 to 268,435,455 each.
    pub subscription_identifiers: &'a [u32],
}

/// Appends a PUBLISH up to its payload of `payload_len` bytes, which the caller appends or sends after it. `out` is left
/// as it was on an error.
///
/// The Topic Name is trusted to be one: it comes from the decoder or from a [`TopicName`](crate::proto::TopicName).
///
/// # Errors
/// [`EncodeError::Invalid`]: QoS and Packet Identifier, or QoS 0 and DUP, contradict each other; no Topic Name although
/// there is no alias; or a property out of range.
/// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
pub fn encode_head(
    head: &PublishHead<'_>,
    version: ProtocolVersion,
    payload_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let has_properties = version.has_properties();
    let named = !head.topic.is_empty() || (has_properties && head.topic_alias.is_some());
    if head.packet_id.is_some() != (head.qos != QoS::AtMostOnce)
        || (head.dup && head.qos == QoS::AtMostOnce)
        || !named
    {
        return Err(EncodeError::Invalid);
    }
    let topic_len = u16::try_from(head.topic.len()).map_err(|_| EncodeError::FieldTooLong)?;
    let section_len = has_properties.then(|| head.properties_size());
    let remaining = head.remaining_length(section_len, payload_len);
    let remaining = wire::length(remaining)?;

    let start = out.len();
    out.reserve(head.size_without_payload(section_len).saturating_add(4));
    // Fixed header and the topic's length go in one piece.
    let (length, count) = wire::varint_bytes(remaining);
    let [a, b, c, d] = length;
    let [high, low] = topic_len.to_be_bytes();
    let first = head.first_byte();
    match count {
        1 => out.extend_from_slice(&[first, a, high, low]),
        2 => out.extend_from_slice(&[first, a, b, high, low]),
        3 => out.extend_from_slice(&[first, a, b, c, high, low]),
        _ => out.extend_from_slice(&[first, a, b, c, d, high, low]),
    }
    out.extend_from_slice(head.topic.as_bytes());
    if let Some(packet_id) = head.packet_id {
        wire::put_u16(out, packet_id.value());
    }
    if let Some(section_len) = section_len {
        let result = head.put_properties(section_len, out);
        if result.is_err() {
            out.truncate(start);
        }
        return result;
    }
    Ok(())
}

/// The size in bytes of the whole packet, fixed header and payload of `payload_len` bytes included.
///
/// Compare it with the receiver's Maximum Packet Size before encoding. A size that MQTT cannot express is still told.
#[must_use]
pub fn publish_size(head: &PublishHead<'_>, version: ProtocolVersion, payload_len: usize) -> usize {
    let section_len = version.has_properties().then(|| head.properties_size());
    let remaining = head.remaining_length(section_len, payload_len);
    remaining
        .saturating_add(wire::size_of_varint(remaining))
        .saturating_add(1)
}

impl PublishHead<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Publish.first_byte()
            | (u8::from(self.dup) << 3)
            | (self.qos.as_u8() << 1)
            | u8::from(self.retain)
    }

    /// Topic, Packet Identifier and the property section with its length.
    fn size_without_payload(&self, section_len: Option<usize>) -> usize {
        // The topic's length and the Packet Identifier.
        let fixed = if self.packet_id.is_some() { 4 } else { 2 };
        let section = match section_len {
            Some(length) => length.saturating_add(wire::size_of_varint(length)),
            None => 0,
        };
        self.topic
            .len()
            .saturating_add(section)
            .saturating_add(fixed)
    }

    fn remaining_length(&self, section_len: Option<usize>, payload_len: usize) -> usize {
        self.size_without_payload(section_len)
            .saturating_add(payload_len)
    }

    /// The bytes of the properties, without the length before them.
    fn properties_size(&self) -> usize {
        let expiry = if self.message_expiry_interval.is_some() {
            5
        } else {
            0
        };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let identifiers: usize = self
            .subscription_identifiers
            .iter()
            .map(|&id| wire::varint_size(id).saturating_add(1))
            .sum();
        self.properties
            .map_or(0, PublishProperties::forwarded_size)
            .saturating_add(identifiers)
            .saturating_add(expiry)
            .saturating_add(alias)
    }

    fn put_properties(&self, section_len: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        wire::put_varint(out, wire::length(section_len)?);
        let start = out.len();
        let mut section = property::Writer::new(out);
        section.u32(
            PropertyId::MessageExpiryInterval,
            self.message_expiry_interval,
        );
        section.positive_u16(PropertyId::TopicAlias, self.topic_alias)?;
        if let Some(properties) = self.properties {
            properties.encode_forwarded(&mut section)?;
        }
        for &id in self.subscription_identifiers {
            section.positive_varint(PropertyId::SubscriptionIdentifier, Some(id))?;
        }
        debug_assert_eq!(out.len().checked_sub(start), Some(section_len));
        Ok(())
    }
}

impl Publish {
    /// Reads the body; `packet` is the buffer that `reader` reads.
    pub(crate) fn decode(
        decoder: &Decoder,
        frame: Frame,
        reader: &mut Reader<'_>,
        packet: &Bytes,
    ) -> Result<Self, DecodeError> {
        Ok(PublishView::read(decoder, frame, reader)?.into_publish(packet))
    }

    /// What the packet has in front of its payload.
    #[must_use]
    pub fn head(&self) -> PublishHead<'_> {
        let properties = self.properties.as_deref();
        PublishHead {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: self.packet_id,
            properties,
            message_expiry_interval: properties.and_then(|p| p.message_expiry_interval),
            topic_alias: properties.and_then(|p| p.topic_alias),
            subscription_identifiers: properties
                .map_or(&[], |p| p.subscription_identifiers.as_slice()),
        }
    }

    /// Appends the packet to `out`, which is left as it was on an error. Before 5.0 the properties are left out.
    ///
    /// # Errors
    /// As [`encode_head`], and [`EncodeError::Invalid`] for a topic that is no Topic Name.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if wire::has_wildcard(&self.topic) || self.topic.as_bytes().contains(&0) {
            return Err(EncodeError::Invalid);
        }
        encode_head(&self.head(), version, self.payload.len(), out)?;
        out.extend_from_slice(&self.payload);
        Ok(())
    }
}

impl<'a> PublishView<'a> {
    /// Decodes a PUBLISH. `packet` begins with the bytes of `frame`.
    ///
    /// Without properties nothing is allocated. With properties they are one allocation, and their strings and binary
    /// data share one copy of the section, so that they do not keep the read buffer alive.
    ///
    /// # Errors
    /// [`DecodeError`]: the packet is malformed.
    ///
    /// Source: MQTT 5.0 §3.3.
    #[inline]
    pub fn decode(decoder: &Decoder, frame: Frame, packet: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::copying(frame.body(packet)?);
        Self::read(decoder, frame, &mut reader)
    }

    #[inline(always)] // A call would carry the view through memory twice.
    fn read(decoder: &Decoder, frame: Frame, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        // [MQTT-3.3.1-4]
        let qos = QoS::from_u8((frame.flags >> 1) & 0b11).ok_or(DecodeError::InvalidQos)?;
        let dup = frame.flags & 0b1000 != 0;
        // [MQTT-3.3.1-2]
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::DupWithQos0);
        }
        let topic = reader.str()?;
        // [MQTT-3.3.2-2]
        if wire::has_wildcard(topic) {
            return Err(DecodeError::InvalidTopicName);
        }
        let packet_id = if qos == QoS::AtMostOnce {
            None
        } else {
            Some(reader.packet_id()?)
        };
        let properties = if decoder.version.has_properties() {
            PublishProperties::decode(decoder, reader)?
        } else {
            None
        };
        if topic.is_empty() {
            check_alias(decoder.version, properties.as_deref())?;
        }
        Ok(Self {
            dup,
            qos,
            retain: frame.flags & 0b0001 != 0,
            topic,
            packet_id,
            properties,
            payload: reader.take_rest(),
        })
    }

    /// The packet as one that owns its parts: slices of `packet`, the buffer that the view borrows from. Parts that lie
    /// elsewhere are copied.
    #[must_use]
    pub fn to_publish(&self, packet: &Bytes) -> Publish {
        self.clone().into_publish(packet)
    }

    /// As [`to_publish`](Self::to_publish), without a copy of the properties.
    #[must_use]
    pub fn into_publish(self, packet: &Bytes) -> Publish {
        let topic = wire::share(packet, self.topic.as_bytes());
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: ByteString::try_from(topic).unwrap_or_else(|_| ByteString::from(self.topic)),
            packet_id: self.packet_id,
            properties: self.properties,
            payload: wire::share(packet, self.payload),
        }
    }
}

/// Checks a PUBLISH whose Topic Name is empty: an alias must stand for it.
///
/// Source: MQTT 5.0 §3.3.2.1; MQTT 3.1.1 §4.7.3.
fn check_alias(
    version: ProtocolVersion,
    properties: Option<&PublishProperties>,
) -> Result<(), DecodeError> {
    if !version.has_properties() {
        return Err(DecodeError::MissingTopicName);
    }
    match properties.and_then(|properties| properties.topic_alias) {
        Some(_) => Ok(()),
        None => Err(DecodeError::MissingTopicName),
    }
}

impl PublishProperties {
    /// Whether the payload is what the Payload Format Indicator says: without one, or with 0, any bytes; with 1, UTF-8.
    ///
    /// Source: MQTT 5.0 §3.3.2.3.2.
    #[must_use]
    pub fn describes(&self, payload: &[u8]) -> bool {
        self.payload_format_utf8 != Some(true) || std::str::from_utf8(payload).is_ok()
    }

    /// Reads the section; `None` when it is empty.
    fn decode(
        decoder: &Decoder,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Box<Self>>, DecodeError> {
        let mut section = Properties::read(reader, decoder, Carrier::Publish)?;
        if section.is_empty() {
            return Ok(None);
        }
        let mut properties = Box::<Self>::default();
        while let Some(id) = section.next()? {
            properties.read(id, &mut section)?;
        }
        Ok(Some(properties))
    }

    /// Reads the value of one property.
    pub(super) fn read(
        &mut self,
        id: PropertyId,
        section: &mut Properties<'_>,
    ) -> Result<(), DecodeError> {
        match id {
            PropertyId::PayloadFormatIndicator => self.payload_format_utf8 = Some(section.flag()?),
            PropertyId::MessageExpiryInterval => {
                self.message_expiry_interval = Some(section.u32()?)
            }
            // [MQTT-3.3.2-8]
            PropertyId::TopicAlias => self.topic_alias = Some(section.positive_u16()?),
            // [MQTT-3.3.2-14]
            PropertyId::ResponseTopic => self.response_topic = Some(section.topic_name()?),
            PropertyId::CorrelationData => self.correlation_data = Some(section.bytes()?),
            PropertyId::UserProperty => self.user_properties.push(section.pair()?),
            PropertyId::SubscriptionIdentifier => {
                self.subscription_identifiers
                    .push(section.positive_varint()?);
            }
            PropertyId::ContentType => self.content_type = Some(section.string()?),
            _ => return Err(section.unexpected()),
        }
        Ok(())
    }

    /// The bytes that [`encode_forwarded`](Self::encode_forwarded) writes.
    fn forwarded_size(&self) -> usize {
        let text =
            |value: &Option<ByteString>| value.as_ref().map_or(0, |v| v.len().saturating_add(3));
        let data = self
            .correlation_data
            .as_ref()
            .map_or(0, |v| v.len().saturating_add(3));
        let format = if self.payload_format_utf8.is_some() {
            2
        } else {
            0
        };
        let pairs = self
            .user_properties
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(5));
        [
            format,
            text(&self.response_topic),
            data,
            text(&self.content_type),
        ]
        .into_iter()
        .chain(pairs)
        .sum()
    }

    /// Writes what travels unchanged with the message: not the expiry interval, the alias, the subscription identifiers.
    pub(super) fn encode_forwarded(
        &self,
        section: &mut property::Writer<'_>,
    ) -> Result<(), EncodeError> {
        section.flag(PropertyId::PayloadFormatIndicator, self.payload_format_utf8);
        section.topic_name(PropertyId::ResponseTopic, self.response_topic.as_ref())?;
        section.binary(PropertyId::CorrelationData, self.correlation_data.as_ref())?;
        section.user_properties(&self.user_properties)?;
        section.string(PropertyId::ContentType, self.content_type.as_ref())
    }
}

#[cfg(test)]
mod tests;
