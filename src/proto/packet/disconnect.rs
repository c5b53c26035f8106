//! DISCONNECT.

use bytestring::ByteString;

use super::{PacketType, UserProperty, ack};
use crate::proto::property::{self, Carrier, Properties, PropertyId};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion, ReasonCode};

/// DISCONNECT: the last packet on a connection; from the server in 5.0 only.
///
/// Source: MQTT 5.0 §3.14; MQTT 3.1.1 §3.14.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Disconnect Reason Code; `Success` is Normal disconnection.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: DisconnectProperties,
}

/// The properties of DISCONNECT.
///
/// Source: MQTT 5.0 §3.14.2.2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DisconnectProperties {
    /// Session Expiry Interval in seconds, client to server; `None` = as in CONNECT.
    pub session_expiry_interval: Option<u32>,
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
    /// Server Reference, server to client.
    pub server_reference: Option<ByteString>,
}

impl Disconnect {
    /// A DISCONNECT without properties.
    #[must_use]
    pub fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            properties: DisconnectProperties::default(),
        }
    }

    /// Reads the body.
    pub(crate) fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::Success);
        if !decoder.version.has_reason_codes() || reader.is_empty() {
            return Ok(disconnect);
        }
        disconnect.reason = ack::read_reason(PacketType::Disconnect, reader)?;
        if !reader.is_empty() {
            disconnect.properties = DisconnectProperties::decode(decoder, reader)?;
        }
        Ok(disconnect)
    }

    /// Appends the packet to `out`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`EncodeError::NotInThisVersion`]: before 5.0 only a client's normal disconnection exists.
    /// [`EncodeError::Invalid`]: a Reason Code that DISCONNECT must not carry.
    /// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.has_reason_codes() && self.reason != ReasonCode::Success {
            return Err(EncodeError::NotInThisVersion);
        }
        if !self.reason.is_allowed_in(PacketType::Disconnect) {
            return Err(EncodeError::Invalid);
        }
        wire::put_packet(out, PacketType::Disconnect.first_byte(), |out| {
            let has_properties = self.properties != DisconnectProperties::default();
            if !version.has_reason_codes()
                || (self.reason == ReasonCode::Success && !has_properties)
            {
                return Ok(());
            }
            out.push(self.reason.as_u8());
            if has_properties {
                self.properties.encode(out)?;
            }
            Ok(())
        })
    }
}

impl DisconnectProperties {
    fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut section = Properties::read(reader, decoder, Carrier::Disconnect)?;
        while let Some(id) = section.next()? {
            match id {
                PropertyId::SessionExpiryInterval => {
                    properties.session_expiry_interval = Some(section.u32()?);
                }
                PropertyId::ReasonString => properties.reason_string = Some(section.string()?),
                PropertyId::UserProperty => properties.user_properties.push(section.pair()?),
                PropertyId::ServerReference => {
                    properties.server_reference = Some(section.string()?)
                }
                _ => return Err(section.unexpected()),
            }
        }
        Ok(properties)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        property::put_section(out, |section| {
            section.u32(
                PropertyId::SessionExpiryInterval,
                self.session_expiry_interval,
            );
            section.string(PropertyId::ReasonString, self.reason_string.as_ref())?;
            section.user_properties(&self.user_properties)?;
            section.string(PropertyId::ServerReference, self.server_reference.as_ref())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_versions_know_the_normal_disconnection_alone() {
        let mut out = Vec::new();
        let normal = Disconnect::new(ReasonCode::Success);
        normal.encode(ProtocolVersion::V311, &mut out).unwrap();
        assert_eq!(out, [0xe0, 0]);
        // Sent as a plain DISCONNECT, it would discard the will that it asks for.
        for reason in [
            ReasonCode::DisconnectWithWill,
            ReasonCode::ServerShuttingDown,
        ] {
            let result = Disconnect::new(reason).encode(ProtocolVersion::V311, &mut out);
            assert_eq!(result, Err(EncodeError::NotInThisVersion));
        }
        assert_eq!(out, [0xe0, 0]);
    }

    #[test]
    fn foreign_reasons_are_refused() {
        let result =
            Disconnect::new(ReasonCode::GrantedQos1).encode(ProtocolVersion::V5, &mut Vec::new());
        assert_eq!(result, Err(EncodeError::Invalid));
    }
}
