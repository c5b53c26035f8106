//! AUTH, MQTT 5.0 only.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

use super::connect::Hidden;
use super::{PacketType, UserProperty, ack};
use crate::proto::property::{self, Carrier, Properties, PropertyId};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion, ReasonCode};

/// AUTH: a step of an enhanced authentication.
///
/// Source: MQTT 5.0 §3.15.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: AuthProperties,
}

/// The properties of AUTH.
///
/// `Debug` hides the authentication data.
///
/// Source: MQTT 5.0 §3.15.2.2.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AuthProperties {
    /// Authentication Method.
    pub authentication_method: Option<ByteString>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
}

impl Auth {
    /// Reads the body.
    pub(crate) fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // §3.15.2.1 allows the packet without anything, although §3.15.2.2.2 wants a method: Success, nothing else.
        if reader.is_empty() {
            return Ok(Self {
                reason: ReasonCode::Success,
                properties: AuthProperties::default(),
            });
        }
        let reason = ack::read_reason(PacketType::Auth, reader)?;
        let properties = AuthProperties::decode(decoder, reader)?;
        if properties.authentication_method.is_none() {
            return Err(DecodeError::MissingProperty {
                id: u32::from(PropertyId::AuthenticationMethod.as_u8()),
            });
        }
        Ok(Self { reason, properties })
    }

    /// Appends the packet to `out`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`EncodeError::NotInThisVersion`]: before 5.0 there is no AUTH.
    /// [`EncodeError::Invalid`]: a Reason Code that AUTH must not carry, or no Authentication Method although there is
    /// something to say.
    /// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.has_auth() {
            return Err(EncodeError::NotInThisVersion);
        }
        let bare =
            self.reason == ReasonCode::Success && self.properties == AuthProperties::default();
        if !self.reason.is_allowed_in(PacketType::Auth)
            || (!bare && self.properties.authentication_method.is_none())
        {
            return Err(EncodeError::Invalid);
        }
        wire::put_packet(out, PacketType::Auth.first_byte(), |out| {
            if bare {
                return Ok(());
            }
            out.push(self.reason.as_u8());
            self.properties.encode(out)
        })
    }
}

impl AuthProperties {
    fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut section = Properties::read(reader, decoder, Carrier::Auth)?;
        while let Some(id) = section.next()? {
            match id {
                PropertyId::AuthenticationMethod => {
                    properties.authentication_method = Some(section.string()?);
                }
                PropertyId::AuthenticationData => {
                    properties.authentication_data = Some(section.bytes()?);
                }
                PropertyId::ReasonString => properties.reason_string = Some(section.string()?),
                PropertyId::UserProperty => properties.user_properties.push(section.pair()?),
                _ => return Err(section.unexpected()),
            }
        }
        Ok(properties)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        property::put_section(out, |section| {
            section.string(
                PropertyId::AuthenticationMethod,
                self.authentication_method.as_ref(),
            )?;
            section.binary(
                PropertyId::AuthenticationData,
                self.authentication_data.as_ref(),
            )?;
            section.string(PropertyId::ReasonString, self.reason_string.as_ref())?;
            section.user_properties(&self.user_properties)
        })
    }
}

impl fmt::Debug for AuthProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthProperties")
            .field("authentication_method", &self.authentication_method)
            .field(
                "authentication_data",
                &self.authentication_data.as_ref().map(|_| Hidden),
            )
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(reason: ReasonCode, method: Option<&'static str>) -> Auth {
        Auth {
            reason,
            properties: AuthProperties {
                authentication_method: method.map(Into::into),
                authentication_data: Some(Bytes::from_static(b"secret")),
                ..AuthProperties::default()
            },
        }
    }

    #[test]
    fn there_is_no_auth_before_version_5() {
        let auth = auth(ReasonCode::ContinueAuthentication, Some("M"));
        for version in ProtocolVersion::ALL {
            let expected = if version.has_auth() {
                Ok(())
            } else {
                Err(EncodeError::NotInThisVersion)
            };
            assert_eq!(auth.encode(version, &mut Vec::new()), expected);
        }
    }

    #[test]
    fn method_is_needed_and_reasons_are_checked() {
        for wrong in [
            auth(ReasonCode::ContinueAuthentication, None),
            auth(ReasonCode::Success, None),
            auth(ReasonCode::NotAuthorized, Some("M")),
        ] {
            let result = wrong.encode(ProtocolVersion::V5, &mut Vec::new());
            assert_eq!(result, Err(EncodeError::Invalid));
        }
    }

    #[test]
    fn debug_hides_the_data() {
        let text = format!("{:?}", auth(ReasonCode::Success, Some("M")));
        assert!(
            text.contains("(hidden)") && !text.contains("secret"),
            "{text}"
        );
    }
}
