//! UNSUBACK.

use super::ack::{self, AckProperties};
use super::{PacketId, PacketType};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion, ReasonCode};

/// UNSUBACK: one Reason Code per Topic Filter of the UNSUBSCRIBE, in its order; none in 3.1.1.
///
/// Source: MQTT 5.0 §3.11; MQTT 3.1.1 §3.11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsuback {
    /// Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Success, No subscription existed, or an error. Empty in 3.1.1.
    pub reasons: Vec<ReasonCode>,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<AckProperties>>,
}

impl Unsuback {
    /// Reads the body.
    pub(crate) fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut unsuback = Self {
            packet_id: reader.packet_id()?,
            reasons: Vec::new(),
            properties: None,
        };
        if decoder.version.has_properties() {
            unsuback.properties = AckProperties::decode(decoder, PacketType::Unsuback, reader)?;
            while !reader.is_empty() {
                let reason = ack::read_reason(PacketType::Unsuback, reader)?;
                unsuback.reasons.push(reason);
            }
        }
        Ok(unsuback)
    }

    /// Appends the packet to `out`, which is left as it was on an error. Before 5.0 it is the Packet Identifier alone.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`]: a Reason Code that UNSUBACK must not carry.
    /// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        wire::put_packet(out, PacketType::Unsuback.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.value());
            if !version.has_properties() {
                return Ok(());
            }
            ack::put_properties(out, self.properties.as_deref())?;
            for reason in &self.reasons {
                if !reason.is_allowed_in(PacketType::Unsuback) {
                    return Err(EncodeError::Invalid);
                }
                out.push(reason.as_u8());
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_versions_have_no_reasons() {
        let unsuback = Unsuback {
            packet_id: PacketId::new(1).unwrap(),
            reasons: vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted],
            properties: None,
        };
        let mut out = Vec::new();
        unsuback.encode(ProtocolVersion::V311, &mut out).unwrap();
        assert_eq!(out, [0xb0, 2, 0, 1]);
        out.clear();
        unsuback.encode(ProtocolVersion::V5, &mut out).unwrap();
        assert_eq!(out, [0xb0, 5, 0, 1, 0, 0, 0x11]);
    }

    #[test]
    fn foreign_reasons_are_refused() {
        let unsuback = Unsuback {
            packet_id: PacketId::new(1).unwrap(),
            reasons: vec![ReasonCode::QuotaExceeded],
            properties: None,
        };
        let result = unsuback.encode(ProtocolVersion::V5, &mut Vec::new());
        assert_eq!(result, Err(EncodeError::Invalid));
    }
}
