//! The table of properties: identifier, data type and the packets that may carry it; reading and writing a section.
//!
//! Source: MQTT 5.0 §2.2.2.

use bytes::Bytes;
use bytestring::ByteString;

use super::codec::Decoder;
use super::packet::{PacketType, UserProperty};
use super::wire::{self, Reader};
use super::{DecodeError, EncodeError};

macro_rules! properties {
    ($($name:ident = $id:literal, $text:literal, $data:ident, [$($carrier:ident),+];)*) => {
        /// The identifier of a property.
        ///
        /// Source: MQTT 5.0 §2.2.2.2.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum PropertyId {
            $(#[doc = $text] $name = $id,)*
        }

        impl PropertyId {
            /// Every property, by ascending identifier.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The property with this identifier.
            #[must_use]
            pub fn from_u32(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name in the specification.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The data type of the value.
            #[must_use]
            pub fn data_type(self) -> DataType {
                match self {
                    $(Self::$name => DataType::$data,)*
                }
            }

            /// One bit per carrier.
            const fn carriers(self) -> u16 {
                match self {
                    $(Self::$name => 0 $(| Carrier::$carrier.bit())+,)*
                }
            }
        }
    };
}

properties! {
    PayloadFormatIndicator = 0x01, "Payload Format Indicator", Byte, [Publish, Will];
    MessageExpiryInterval = 0x02, "Message Expiry Interval", FourByteInteger, [Publish, Will];
    ContentType = 0x03, "Content Type", String, [Publish, Will];
    ResponseTopic = 0x08, "Response Topic", String, [Publish, Will];
    CorrelationData = 0x09, "Correlation Data", Binary, [Publish, Will];
    SubscriptionIdentifier = 0x0B, "Subscription Identifier", VariableByteInteger, [Publish, Subscribe];
    SessionExpiryInterval = 0x11, "Session Expiry Interval", FourByteInteger, [Connect, Connack, Disconnect];
    AssignedClientIdentifier = 0x12, "Assigned Client Identifier", String, [Connack];
    ServerKeepAlive = 0x13, "Server Keep Alive", TwoByteInteger, [Connack];
    AuthenticationMethod = 0x15, "Authentication Method", String, [Connect, Connack, Auth];
    AuthenticationData = 0x16, "Authentication Data", Binary, [Connect, Connack, Auth];
    RequestProblemInformation = 0x17, "Request Problem Information", Byte, [Connect];
    WillDelayInterval = 0x18, "Will Delay Interval", FourByteInteger, [Will];
    RequestResponseInformation = 0x19, "Request Response Information", Byte, [Connect];
    ResponseInformation = 0x1A, "Response Information", String, [Connack];
    ServerReference = 0x1C, "Server Reference", String, [Connack, Disconnect];
    ReasonString = 0x1F, "Reason String", String,
        [Connack, Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, Disconnect, Auth];
    ReceiveMaximum = 0x21, "Receive Maximum", TwoByteInteger, [Connect, Connack];
    TopicAliasMaximum = 0x22, "Topic Alias Maximum", TwoByteInteger, [Connect, Connack];
    TopicAlias = 0x23, "Topic Alias", TwoByteInteger, [Publish];
    MaximumQos = 0x24, "Maximum QoS", Byte, [Connack];
    RetainAvailable = 0x25, "Retain Available", Byte, [Connack];
    UserProperty = 0x26, "User Property", StringPair,
        [Will, Connect, Connack, Publish, Puback, Pubrec, Pubrel, Pubcomp, Subscribe, Suback, Unsubscribe, Unsuback,
         Disconnect, Auth];
    MaximumPacketSize = 0x27, "Maximum Packet Size", FourByteInteger, [Connect, Connack];
    WildcardSubscriptionAvailable = 0x28, "Wildcard Subscription Available", Byte, [Connack];
    SubscriptionIdentifierAvailable = 0x29, "Subscription Identifier Available", Byte, [Connack];
    SharedSubscriptionAvailable = 0x2A, "Shared Subscription Available", Byte, [Connack];
}

impl PropertyId {
    /// The identifier on the wire.
    #[must_use]
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// A packet of this kind may carry the property.
    #[must_use]
    pub fn is_allowed_in(self, carrier: Carrier) -> bool {
        self.carriers() & carrier.bit() != 0
    }

    /// A packet of this kind may carry the property more than once.
    #[must_use]
    pub fn may_repeat_in(self, carrier: Carrier) -> bool {
        match self {
            Self::UserProperty => true,
            Self::SubscriptionIdentifier => carrier == Carrier::Publish,
            _ => false,
        }
    }
}

/// The data type of a property's value.
///
/// Source: MQTT 5.0 §1.5, §2.2.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum DataType {
    Byte,
    TwoByteInteger,
    FourByteInteger,
    VariableByteInteger,
    String,
    StringPair,
    Binary,
}

/// What carries properties: a packet, or the Will in a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum Carrier {
    Will = 0,
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Disconnect = 14,
    Auth = 15,
}

impl Carrier {
    const fn bit(self) -> u16 {
        1_u16.wrapping_shl(self as u32)
    }

    /// The kind of an acknowledgement with this type; PUBACK for any other type.
    pub(crate) fn of_ack(packet_type: PacketType) -> Self {
        match packet_type {
            PacketType::Pubrec => Self::Pubrec,
            PacketType::Pubrel => Self::Pubrel,
            PacketType::Pubcomp => Self::Pubcomp,
            PacketType::Suback => Self::Suback,
            PacketType::Unsuback => Self::Unsuback,
            _ => Self::Puback,
        }
    }
}

/// Reads one property section: [`next`](Self::next) gives the identifier, then the method of its type the value.
#[derive(Debug)]
pub(crate) struct Properties<'a> {
    reader: Reader<'a>,
    carrier: Carrier,
    /// One bit per identifier that was there.
    seen: u64,
    /// How many more the receiver takes.
    left: u32,
    current: PropertyId,
}

impl<'a> Properties<'a> {
    /// Takes the section at the front of `reader`, its length included. `decoder` has the limits.
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        decoder: &Decoder,
        carrier: Carrier,
    ) -> Result<Self, DecodeError> {
        let length = reader.varint()?;
        if length > decoder.max_property_bytes {
            return Err(DecodeError::TooManyProperties);
        }
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        Ok(Self {
            reader: reader.section(length)?,
            carrier,
            seen: 0,
            left: decoder.max_properties,
            current: PropertyId::UserProperty,
        })
    }

    /// The section holds nothing more.
    pub(crate) fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// The identifier of the next property, which is allowed here and is no forbidden repetition.
    pub(crate) fn next(&mut self) -> Result<Option<PropertyId>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(DecodeError::TooManyProperties)?;
        let id = self.reader.varint()?;
        let property = PropertyId::from_u32(id)
            .filter(|property| property.is_allowed_in(self.carrier))
            .ok_or(DecodeError::InvalidProperty { id })?;
        let bit = 1_u64.wrapping_shl(id);
        if self.seen & bit != 0 && !property.may_repeat_in(self.carrier) {
            return Err(DecodeError::DuplicateProperty { id });
        }
        self.seen |= bit;
        self.current = property;
        Ok(Some(property))
    }

    /// The error for a value that the current property must not have.
    pub(crate) fn invalid_value(&self) -> DecodeError {
        DecodeError::InvalidPropertyValue {
            id: u32::from(self.current.as_u8()),
        }
    }

    /// The error for a property that no arm of the caller takes. [`next`](Self::next) has refused them already.
    pub(crate) fn unexpected(&self) -> DecodeError {
        DecodeError::InvalidProperty {
            id: u32::from(self.current.as_u8()),
        }
    }

    /// A Byte that is 0 or 1.
    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid_value()),
        }
    }

    /// A Two Byte Integer.
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.reader.u16()
    }

    /// A Two Byte Integer above 0.
    pub(crate) fn positive_u16(&mut self) -> Result<u16, DecodeError> {
        match self.reader.u16()? {
            0 => Err(self.invalid_value()),
            value => Ok(value),
        }
    }

    /// A Four Byte Integer.
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.reader.u32()
    }

    /// A Four Byte Integer above 0.
    pub(crate) fn positive_u32(&mut self) -> Result<u32, DecodeError> {
        match self.reader.u32()? {
            0 => Err(self.invalid_value()),
            value => Ok(value),
        }
    }

    /// A Variable Byte Integer above 0.
    pub(crate) fn positive_varint(&mut self) -> Result<u32, DecodeError> {
        match self.reader.varint()? {
            0 => Err(self.invalid_value()),
            value => Ok(value),
        }
    }

    /// A UTF-8 string.
    pub(crate) fn string(&mut self) -> Result<ByteString, DecodeError> {
        self.reader.string()
    }

    /// A UTF-8 string that is a Topic Name.
    pub(crate) fn topic_name(&mut self) -> Result<ByteString, DecodeError> {
        self.reader.topic_name()
    }

    /// Binary data.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        self.reader.bytes()
    }

    /// A UTF-8 string pair.
    pub(crate) fn pair(&mut self) -> Result<UserProperty, DecodeError> {
        Ok((self.reader.string()?, self.reader.string()?))
    }
}

/// Writes the properties of one section; absent values write nothing.
#[derive(Debug)]
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

/// Appends a property section with its length.
pub(crate) fn put_section(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    wire::put_with_length(out, |out| write(&mut Writer { out }))
}

impl<'o> Writer<'o> {
    /// A writer that appends to `out`, for a caller that writes the section's length itself.
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    fn id(&mut self, id: PropertyId) {
        self.out.push(id.as_u8());
    }

    /// A Byte.
    pub(crate) fn u8(&mut self, id: PropertyId, value: Option<u8>) {
        if let Some(value) = value {
            self.id(id);
            self.out.push(value);
        }
    }

    /// A Byte that is 0 or 1.
    pub(crate) fn flag(&mut self, id: PropertyId, value: Option<bool>) {
        self.u8(id, value.map(u8::from));
    }

    /// A Two Byte Integer.
    pub(crate) fn u16(&mut self, id: PropertyId, value: Option<u16>) {
        if let Some(value) = value {
            self.id(id);
            wire::put_u16(self.out, value);
        }
    }

    /// A Two Byte Integer that must be above 0.
    pub(crate) fn positive_u16(
        &mut self,
        id: PropertyId,
        value: Option<u16>,
    ) -> Result<(), EncodeError> {
        if value == Some(0) {
            return Err(EncodeError::Invalid);
        }
        self.u16(id, value);
        Ok(())
    }

    /// A Four Byte Integer.
    pub(crate) fn u32(&mut self, id: PropertyId, value: Option<u32>) {
        if let Some(value) = value {
            self.id(id);
            wire::put_u32(self.out, value);
        }
    }

    /// A Four Byte Integer that must be above 0.
    pub(crate) fn positive_u32(
        &mut self,
        id: PropertyId,
        value: Option<u32>,
    ) -> Result<(), EncodeError> {
        if value == Some(0) {
            return Err(EncodeError::Invalid);
        }
        self.u32(id, value);
        Ok(())
    }

    /// A Variable Byte Integer that must be above 0.
    pub(crate) fn positive_varint(
        &mut self,
        id: PropertyId,
        value: Option<u32>,
    ) -> Result<(), EncodeError> {
        match value {
            None => Ok(()),
            Some(value @ 1..=wire::MAX_VARINT) => {
                self.id(id);
                wire::put_varint(self.out, value);
                Ok(())
            }
            Some(_) => Err(EncodeError::Invalid),
        }
    }

    /// A UTF-8 string.
    pub(crate) fn string(
        &mut self,
        id: PropertyId,
        value: Option<&ByteString>,
    ) -> Result<(), EncodeError> {
        let Some(value) = value else { return Ok(()) };
        self.id(id);
        wire::put_string(self.out, value)
    }

    /// A UTF-8 string that must be a Topic Name.
    pub(crate) fn topic_name(
        &mut self,
        id: PropertyId,
        value: Option<&ByteString>,
    ) -> Result<(), EncodeError> {
        let Some(value) = value else { return Ok(()) };
        self.id(id);
        wire::put_topic_name(self.out, value)
    }

    /// Binary data.
    pub(crate) fn binary(
        &mut self,
        id: PropertyId,
        value: Option<&Bytes>,
    ) -> Result<(), EncodeError> {
        let Some(value) = value else { return Ok(()) };
        self.id(id);
        wire::put_binary(self.out, value)
    }

    /// The User Properties, in their order.
    pub(crate) fn user_properties(&mut self, pairs: &[UserProperty]) -> Result<(), EncodeError> {
        for (name, value) in pairs {
            self.id(PropertyId::UserProperty);
            wire::put_string(self.out, name)?;
            wire::put_string(self.out, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ProtocolVersion;

    fn read(decoder: &Decoder, section: &[u8]) -> Result<usize, DecodeError> {
        let mut reader = Reader::copying(section);
        let mut properties = Properties::read(&mut reader, decoder, Carrier::Unsubscribe)?;
        let mut count = 0;
        while properties.next()?.is_some() {
            properties.pair()?;
            count += 1;
        }
        reader.finish()?;
        Ok(count)
    }

    #[test]
    fn identifiers_are_those_of_the_table() {
        assert_eq!(PropertyId::ALL.len(), 27);
        for &property in PropertyId::ALL {
            assert_eq!(
                PropertyId::from_u32(u32::from(property.as_u8())),
                Some(property)
            );
        }
        for unknown in [0, 4, 0x0A, 0x0C, 0x14, 0x1B, 0x2B, 256 + 0x26, u32::MAX] {
            assert_eq!(PropertyId::from_u32(unknown), None);
        }
    }

    #[test]
    fn only_two_properties_repeat_and_the_identifier_only_in_publish() {
        for &property in PropertyId::ALL {
            let may = property.may_repeat_in(Carrier::Subscribe);
            assert_eq!(
                may,
                property == PropertyId::UserProperty,
                "{}",
                property.name()
            );
        }
        assert!(PropertyId::SubscriptionIdentifier.may_repeat_in(Carrier::Publish));
    }

    #[test]
    fn properties_up_to_both_limits_are_taken_and_not_one_more() {
        let mut section = Vec::new();
        let pair = (ByteString::from("a"), ByteString::from("b"));
        put_section(&mut section, |w| w.user_properties(&vec![pair; 3])).unwrap();
        let limited = |max_properties, max_property_bytes| Decoder {
            max_properties,
            max_property_bytes,
            ..Decoder::new(ProtocolVersion::V5)
        };
        assert_eq!(section.len(), 1 + 21);
        assert_eq!(read(&limited(3, 21), &section), Ok(3));
        assert_eq!(
            read(&limited(2, 21), &section),
            Err(DecodeError::TooManyProperties)
        );
        assert_eq!(
            read(&limited(3, 20), &section),
            Err(DecodeError::TooManyProperties)
        );
    }

    #[test]
    fn section_longer_than_its_packet_allocates_nothing_and_is_refused() {
        let decoder = Decoder::new(ProtocolVersion::V5);
        assert_eq!(
            read(&decoder, &[0xff, 0xff, 0xff, 0x7f]),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            read(&decoder, &[0x03, 0x26, 0xff, 0xff]),
            Err(DecodeError::Truncated)
        );
    }
}
