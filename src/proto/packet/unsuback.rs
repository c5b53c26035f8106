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
