//! PUBACK, PUBREC, PUBREL and PUBCOMP: one struct, four packet types.

use bytestring::ByteString;

use super::{PacketId, PacketType, UserProperty};
use crate::proto::property::{self, Carrier, Properties, PropertyId};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion, ReasonCode};

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
///
/// Source: MQTT 5.0 §3.4 to §3.7; MQTT 3.1.1 §3.4 to §3.7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The Packet Identifier of the flow.
    pub packet_id: PacketId,
    /// Reason Code; `Success` in 3.1.1.
    pub reason: ReasonCode,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<AckProperties>>,
}

/// The properties that acknowledgements share (also SUBACK's and UNSUBACK's).
///
/// Source: MQTT 5.0 §3.4.2.2, §3.9.2.1, §3.11.2.1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckProperties {
    /// Reason String: for people and logs.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
}

impl Ack {
    /// An acknowledgement without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: None,
        }
    }

    /// Reads the body of an acknowledgement of this type.
    pub(crate) fn decode(
        decoder: &Decoder,
        packet_type: PacketType,
        reader: &mut Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let mut ack = Self::new(reader.packet_id()?, ReasonCode::Success);
        if !decoder.version.has_reason_codes() || reader.is_empty() {
            return Ok(ack);
        }
        ack.reason = read_reason(packet_type, reader)?;
        if !reader.is_empty() {
            ack.properties = AckProperties::decode(decoder, packet_type, reader)?;
        }
        Ok(ack)
    }

    /// Appends the acknowledgement as a packet of `packet_type` to `out`, which is left as it was on an error.
    ///
    /// Before 5.0 it is the Packet Identifier alone: those versions cannot say no.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`]: the type is no PUBACK, PUBREC, PUBREL or PUBCOMP, or must not carry the Reason Code.
    /// [`EncodeError::FieldTooLong`]: a property is longer than 65,535 bytes.
    pub fn encode(
        &self,
        packet_type: PacketType,
        version: ProtocolVersion,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if !is_ack(packet_type) || !self.reason.is_allowed_in(packet_type) {
            return Err(EncodeError::Invalid);
        }
        if !version.has_reason_codes()
            || (self.reason == ReasonCode::Success && self.properties.is_none())
        {
            encode_bare(packet_type, self.packet_id, out);
            return Ok(());
        }
        wire::put_packet(out, packet_type.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.value());
            out.push(self.reason.as_u8());
            match &self.properties {
                Some(properties) => properties.encode(out),
                None => Ok(()),
            }
        })
    }
}

/// Appends an acknowledgement with `Success` and no properties: four bytes, the same in every version.
///
/// `packet_type` is PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn encode_bare(packet_type: PacketType, packet_id: PacketId, out: &mut Vec<u8>) {
    debug_assert!(is_ack(packet_type), "{packet_type} is no acknowledgement");
    let [high, low] = packet_id.value().to_be_bytes();
    out.extend_from_slice(&[packet_type.first_byte(), 2, high, low]);
}

/// Reads a Reason Code that a packet of this type may carry.
pub(super) fn read_reason(
    packet_type: PacketType,
    reader: &mut Reader<'_>,
) -> Result<ReasonCode, DecodeError> {
    let value = reader.u8()?;
    ReasonCode::from_u8(value)
        .filter(|reason| reason.is_allowed_in(packet_type))
        .ok_or(DecodeError::InvalidReasonCode { value })
}

impl AckProperties {
    /// Reads the section; `None` when it is empty.
    pub(super) fn decode(
        decoder: &Decoder,
        packet_type: PacketType,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Box<Self>>, DecodeError> {
        let mut section = Properties::read(reader, decoder, Carrier::of_ack(packet_type))?;
        if section.is_empty() {
            return Ok(None);
        }
        let mut properties = Box::<Self>::default();
        while let Some(id) = section.next()? {
            match id {
                PropertyId::ReasonString => properties.reason_string = Some(section.string()?),
                PropertyId::UserProperty => properties.user_properties.push(section.pair()?),
                _ => return Err(section.unexpected()),
            }
        }
        Ok(Some(properties))
    }

    /// Appends the section.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        property::put_section(out, |section| {
            section.string(PropertyId::ReasonString, self.reason_string.as_ref())?;
            section.user_properties(&self.user_properties)
        })
    }
}

/// Appends the section, an empty one for `None`.
pub(super) fn put_properties(
    out: &mut Vec<u8>,
    properties: Option<&AckProperties>,
) -> Result<(), EncodeError> {
    match properties {
        Some(properties) => properties.encode(out),
        None => {
            out.push(0);
            Ok(())
        }
    }
}

fn is_ack(packet_type: PacketType) -> bool {
    matches!(
        packet_type,
        PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u16 = 0x1234;

    fn ack(reason: ReasonCode) -> Ack {
        Ack::new(PacketId::new(ID).unwrap(), reason)
    }

    #[test]
    fn success_without_properties_is_four_bytes_in_every_version() {
        for version in ProtocolVersion::ALL {
            for (packet_type, first) in [
                (PacketType::Puback, 0x40),
                (PacketType::Pubrec, 0x50),
                (PacketType::Pubrel, 0x62),
                (PacketType::Pubcomp, 0x70),
            ] {
                let (mut out, mut bare) = (Vec::new(), Vec::new());
                ack(ReasonCode::Success)
                    .encode(packet_type, version, &mut out)
                    .unwrap();
                encode_bare(packet_type, PacketId::new(ID).unwrap(), &mut bare);
                assert_eq!(out, [first, 2, 0x12, 0x34]);
                assert_eq!(out, bare);
            }
        }
    }

    #[test]
    fn older_versions_cannot_say_why() {
        let mut out = Vec::new();
        let ack = Ack {
            properties: Some(Box::new(AckProperties {
                reason_string: Some("because".into()),
                user_properties: Vec::new(),
            })),
            ..ack(ReasonCode::QuotaExceeded)
        };
        ack.encode(PacketType::Puback, ProtocolVersion::V311, &mut out)
            .unwrap();
        assert_eq!(out, [0x40, 2, 0x12, 0x34]);
    }

    #[test]
    fn foreign_reasons_and_types_are_refused() {
        let mut out = Vec::new();
        let v5 = ProtocolVersion::V5;
        let quota = ack(ReasonCode::QuotaExceeded);
        assert_eq!(
            quota.encode(PacketType::Pubrel, v5, &mut out),
            Err(EncodeError::Invalid)
        );
        let success = ack(ReasonCode::Success);
        assert_eq!(
            success.encode(PacketType::Suback, v5, &mut out),
            Err(EncodeError::Invalid)
        );
        assert!(out.is_empty());
    }
}
