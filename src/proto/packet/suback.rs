//! SUBACK.

use super::ack::{self, AckProperties};
use super::{PacketId, PacketType};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion, ReasonCode};

/// SUBACK: one Reason Code per Topic Filter of the SUBSCRIBE, in its order.
///
/// In 3.1.1 a failure is 0x80; the encoder writes 0x80 for every error.
///
/// Source: MQTT 5.0 §3.9; MQTT 3.1.1 §3.9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suback {
    /// Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Granted QoS 0 (`Success`), 1 or 2, or an error.
    pub reasons: Vec<ReasonCode>,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<AckProperties>>,
}

impl Suback {
    /// Reads the body.
    pub(crate) fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = if decoder.version.has_properties() {
            AckProperties::decode(decoder, PacketType::Suback, reader)?
        } else {
            None
        };
        let mut reasons = Vec::new();
        while !reader.is_empty() {
            reasons.push(read_reason(decoder.version, reader)?);
        }
        Ok(Self {
            packet_id,
            reasons,
            properties,
        })
    }

    /// Appends the packet to `out`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`]: a Reason Code that SUBACK must not carry.
    /// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        wire::put_packet(out, PacketType::Suback.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.value());
            if version.has_properties() {
                ack::put_properties(out, self.properties.as_deref())?;
            }
            for &reason in &self.reasons {
                if !reason.is_allowed_in(PacketType::Suback) {
                    return Err(EncodeError::Invalid);
                }
                out.push(if reason.is_error() && !version.has_reason_codes() {
                    ReasonCode::UnspecifiedError.as_u8()
                } else {
                    reason.as_u8()
                });
            }
            Ok(())
        })
    }
}

/// Reads one Reason Code; before 5.0 there are only the granted QoS and 0x80. [MQTT311-3.9.3-2]
fn read_reason(
    version: ProtocolVersion,
    reader: &mut Reader<'_>,
) -> Result<ReasonCode, DecodeError> {
    let reason = ack::read_reason(PacketType::Suback, reader)?;
    if reason.is_error() && reason != ReasonCode::UnspecifiedError && !version.has_reason_codes() {
        return Err(DecodeError::InvalidReasonCode {
            value: reason.as_u8(),
        });
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(reasons: &[ReasonCode], version: ProtocolVersion) -> Result<Vec<u8>, EncodeError> {
        let suback = Suback {
            packet_id: PacketId::new(1).unwrap(),
            reasons: reasons.to_vec(),
            properties: None,
        };
        let mut out = Vec::new();
        suback.encode(version, &mut out).map(|()| out)
    }

    #[test]
    fn older_versions_have_one_code_for_every_error() {
        let reasons = [ReasonCode::GrantedQos2, ReasonCode::NotAuthorized];
        let v311 = encode(&reasons, ProtocolVersion::V311);
        assert_eq!(v311, Ok(vec![0x90, 4, 0, 1, 2, 0x80]));
        let v5 = encode(&reasons, ProtocolVersion::V5);
        assert_eq!(v5, Ok(vec![0x90, 5, 0, 1, 0, 2, 0x87]));
    }

    #[test]
    fn foreign_reasons_are_refused() {
        let reasons = [ReasonCode::Success, ReasonCode::SessionTakenOver];
        assert_eq!(
            encode(&reasons, ProtocolVersion::V5),
            Err(EncodeError::Invalid)
        );
    }
}
