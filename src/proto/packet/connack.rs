//! CONNACK.

use bytes::Bytes;
use bytestring::ByteString;

use super::{PacketType, QoS, UserProperty, ack};
use crate::proto::property::{self, Carrier, Properties, PropertyId};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion, ReasonCode};

/// CONNACK: the server's answer to CONNECT.
///
/// Source: MQTT 5.0 §3.2; MQTT 3.1.1 §3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connack {
    /// Session Present: the server resumed a session.
    pub session_present: bool,
    /// Connect Reason Code. 3.1.1's return codes are mapped by [`ReasonCode::from_connect_return_code`].
    pub reason: ReasonCode,
    /// The properties; all `None` in 3.1 and 3.1.1.
    pub properties: ConnackProperties,
}

/// The properties of CONNACK.
///
/// Source: MQTT 5.0 §3.2.2.3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnackProperties {
    /// Session Expiry Interval in seconds that the server uses; `None` = the one that the client asked for.
    pub session_expiry_interval: Option<u32>,
    /// Receive Maximum; `None` = 65,535.
    pub receive_maximum: Option<u16>,
    /// Maximum QoS, 0 or 1; `None` = QoS 2. The encoder leaves out QoS 2, which has no value of its own.
    pub maximum_qos: Option<QoS>,
    /// Retain Available; `None` = true.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size; `None` = no limit.
    pub maximum_packet_size: Option<u32>,
    /// Assigned Client Identifier.
    pub assigned_client_identifier: Option<ByteString>,
    /// Topic Alias Maximum; `None` = 0.
    pub topic_alias_maximum: Option<u16>,
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
    /// Wildcard Subscription Available; `None` = true.
    pub wildcard_subscription_available: Option<bool>,
    /// Subscription Identifiers Available; `None` = true.
    pub subscription_identifiers_available: Option<bool>,
    /// Shared Subscription Available; `None` = true.
    pub shared_subscription_available: Option<bool>,
    /// Server Keep Alive in seconds; `None` = the client's.
    pub server_keep_alive: Option<u16>,
    /// Response Information.
    pub response_information: Option<ByteString>,
    /// Server Reference.
    pub server_reference: Option<ByteString>,
    /// Authentication Method.
    pub authentication_method: Option<ByteString>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
}

impl Connack {
    /// A CONNACK without properties.
    #[must_use]
    pub fn new(session_present: bool, reason: ReasonCode) -> Self {
        Self {
            session_present,
            reason,
            properties: ConnackProperties::default(),
        }
    }

    /// Reads the body.
    pub(crate) fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = decoder.version;
        let flags = reader.u8()?;
        if flags & !SESSION_PRESENT != 0 && version.checks_reserved_bits() {
            return Err(DecodeError::ReservedBit);
        }
        let reason = if version.has_reason_codes() {
            ack::read_reason(PacketType::Connack, reader)?
        } else {
            let value = reader.u8()?;
            ReasonCode::from_connect_return_code(value)
                .ok_or(DecodeError::InvalidReasonCode { value })?
        };
        let mut connack = Self::new(
            flags & SESSION_PRESENT != 0 && version.has_session_present(),
            reason,
        );
        // [MQTT-3.2.2-6], [MQTT311-3.2.2-4]
        if connack.session_present && reason != ReasonCode::Success {
            return Err(DecodeError::ContradictingFlags);
        }
        if version.has_properties() {
            connack.properties = ConnackProperties::decode(decoder, reader)?;
        }
        Ok(connack)
    }

    /// Appends the packet to `out`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`EncodeError::NotInThisVersion`]: the older versions have no return code for the reason: close instead.
    /// [`EncodeError::Invalid`]: a Reason Code that CONNACK must not carry, Session Present with an error, or a
    /// property out of range.
    /// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let code = if version.has_reason_codes() {
            self.reason.as_u8()
        } else {
            self.reason
                .connect_return_code()
                .ok_or(EncodeError::NotInThisVersion)?
        };
        if !self.reason.is_allowed_in(PacketType::Connack)
            || (self.session_present && self.reason != ReasonCode::Success)
        {
            return Err(EncodeError::Invalid);
        }
        wire::put_packet(out, PacketType::Connack.first_byte(), |out| {
            let session_present = self.session_present && version.has_session_present();
            out.extend_from_slice(&[u8::from(session_present), code]);
            if version.has_properties() {
                self.properties.encode(out)?;
            }
            Ok(())
        })
    }
}

impl ConnackProperties {
    fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut section = Properties::read(reader, decoder, Carrier::Connack)?;
        while let Some(id) = section.next()? {
            properties.read(id, &mut section)?;
        }
        Ok(properties)
    }

    fn read(&mut self, id: PropertyId, section: &mut Properties<'_>) -> Result<(), DecodeError> {
        match id {
            PropertyId::SessionExpiryInterval => {
                self.session_expiry_interval = Some(section.u32()?)
            }
            PropertyId::ReceiveMaximum => self.receive_maximum = Some(section.positive_u16()?),
            PropertyId::MaximumQos => {
                // Only 0 and 1 are values of the property. Source: MQTT 5.0 §3.2.2.3.4.
                self.maximum_qos = Some(match section.flag()? {
                    false => QoS::AtMostOnce,
                    true => QoS::AtLeastOnce,
                });
            }
            PropertyId::RetainAvailable => self.retain_available = Some(section.flag()?),
            PropertyId::MaximumPacketSize => {
                self.maximum_packet_size = Some(section.positive_u32()?);
            }
            PropertyId::AssignedClientIdentifier => {
                self.assigned_client_identifier = Some(section.string()?);
            }
            PropertyId::TopicAliasMaximum => self.topic_alias_maximum = Some(section.u16()?),
            PropertyId::ReasonString => self.reason_string = Some(section.string()?),
            PropertyId::UserProperty => self.user_properties.push(section.pair()?),
            PropertyId::WildcardSubscriptionAvailable => {
                self.wildcard_subscription_available = Some(section.flag()?);
            }
            PropertyId::SubscriptionIdentifierAvailable => {
                self.subscription_identifiers_available = Some(section.flag()?);
            }
            PropertyId::SharedSubscriptionAvailable => {
                self.shared_subscription_available = Some(section.flag()?);
            }
            PropertyId::ServerKeepAlive => self.server_keep_alive = Some(section.u16()?),
            PropertyId::ResponseInformation => self.response_information = Some(section.string()?),
            PropertyId::ServerReference => self.server_reference = Some(section.string()?),
            PropertyId::AuthenticationMethod => {
                self.authentication_method = Some(section.string()?);
            }
            PropertyId::AuthenticationData => self.authentication_data = Some(section.bytes()?),
            _ => return Err(section.unexpected()),
        }
        Ok(())
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        property::put_section(out, |section| {
            section.u32(
                PropertyId::SessionExpiryInterval,
                self.session_expiry_interval,
            );
            section.positive_u16(PropertyId::ReceiveMaximum, self.receive_maximum)?;
            let maximum_qos = self.maximum_qos.filter(|&qos| qos != QoS::ExactlyOnce);
            section.u8(PropertyId::MaximumQos, maximum_qos.map(QoS::as_u8));
            section.flag(PropertyId::RetainAvailable, self.retain_available);
            section.positive_u32(PropertyId::MaximumPacketSize, self.maximum_packet_size)?;
            section.string(
                PropertyId::AssignedClientIdentifier,
                self.assigned_client_identifier.as_ref(),
            )?;
            section.u16(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
            section.string(PropertyId::ReasonString, self.reason_string.as_ref())?;
            section.user_properties(&self.user_properties)?;
            section.flag(
                PropertyId::WildcardSubscriptionAvailable,
                self.wildcard_subscription_available,
            );
            section.flag(
                PropertyId::SubscriptionIdentifierAvailable,
                self.subscription_identifiers_available,
            );
            section.flag(
                PropertyId::SharedSubscriptionAvailable,
                self.shared_subscription_available,
            );
            section.u16(PropertyId::ServerKeepAlive, self.server_keep_alive);
            section.string(
                PropertyId::ResponseInformation,
                self.response_information.as_ref(),
            )?;
            section.string(PropertyId::ServerReference, self.server_reference.as_ref())?;
            section.string(
                PropertyId::AuthenticationMethod,
                self.authentication_method.as_ref(),
            )?;
            section.binary(
                PropertyId::AuthenticationData,
                self.authentication_data.as_ref(),
            )
        })
    }
}

const SESSION_PRESENT: u8 = 0b0000_0001;

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(connack: &Connack, version: ProtocolVersion) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        connack.encode(version, &mut out).map(|()| out)
    }

    #[test]
    fn older_versions_get_the_nearest_return_code_or_none() {
        let busy = Connack::new(false, ReasonCode::ServerBusy);
        assert_eq!(
            encode(&busy, ProtocolVersion::V311),
            Ok(vec![0x20, 2, 0, 3])
        );
        assert_eq!(
            encode(&busy, ProtocolVersion::V5),
            Ok(vec![0x20, 3, 0, 0x89, 0])
        );
        let malformed = Connack::new(false, ReasonCode::MalformedPacket);
        assert_eq!(
            encode(&malformed, ProtocolVersion::V311),
            Err(EncodeError::NotInThisVersion)
        );
    }

    #[test]
    fn session_present_is_for_success_and_not_for_3_1() {
        let present = Connack::new(true, ReasonCode::Success);
        assert_eq!(
            encode(&present, ProtocolVersion::V31),
            Ok(vec![0x20, 2, 0, 0])
        );
        assert_eq!(
            encode(&present, ProtocolVersion::V311),
            Ok(vec![0x20, 2, 1, 0])
        );
        let refused = Connack::new(true, ReasonCode::NotAuthorized);
        assert_eq!(
            encode(&refused, ProtocolVersion::V5),
            Err(EncodeError::Invalid)
        );
    }

    #[test]
    fn maximum_qos_2_is_left_out() {
        let mut connack = Connack::new(false, ReasonCode::Success);
        connack.properties.maximum_qos = Some(QoS::ExactlyOnce);
        assert_eq!(
            encode(&connack, ProtocolVersion::V5),
            Ok(vec![0x20, 3, 0, 0, 0])
        );
    }

    #[test]
    fn reasons_and_values_out_of_range_are_refused() {
        let foreign = Connack::new(false, ReasonCode::SessionTakenOver);
        assert_eq!(
            encode(&foreign, ProtocolVersion::V5),
            Err(EncodeError::Invalid)
        );
        let mut connack = Connack::new(false, ReasonCode::Success);
        connack.properties.receive_maximum = Some(0);
        assert_eq!(
            encode(&connack, ProtocolVersion::V5),
            Err(EncodeError::Invalid)
        );
        assert!(
            encode(&connack, ProtocolVersion::V311).is_ok(),
            "not written there"
        );
    }
}
