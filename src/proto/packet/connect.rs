//! CONNECT.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

use super::publish::PublishProperties;
use super::{PacketType, QoS, UserProperty};
use crate::proto::codec::Frame;
use crate::proto::property::{self, Carrier, Properties, PropertyId};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion};

/// CONNECT: the first packet of a client on a connection.
///
/// `Debug` hides the password and the authentication data.
///
/// Source: MQTT 5.0 §3.1; MQTT 3.1.1 §3.1.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// The protocol version that the client speaks.
    pub version: ProtocolVersion,
    /// Clean Start: discard what the server kept. In 3.1 and 3.1.1 this is the Clean Session flag, and the decoder then
    /// also sets [`ConnectProperties::session_expiry_interval`]: `None` (0) for a clean session, `u32::MAX` otherwise.
    pub clean_start: bool,
    /// Keep Alive in seconds, 0 = off.
    pub keep_alive: u16,
    /// Client Identifier; empty asks the server to assign one.
    pub client_id: ByteString,
    /// The Will Message, if the Will Flag is set.
    pub will: Option<Will>,
    /// User Name.
    pub user_name: Option<ByteString>,
    /// Password: binary data.
    pub password: Option<Bytes>,
    /// The properties; all default in 3.1 and 3.1.1 but the Session Expiry Interval (see `clean_start`).
    pub properties: ConnectProperties,
}

/// The properties of CONNECT.
///
/// Source: MQTT 5.0 §3.1.2.11.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConnectProperties {
    /// Session Expiry Interval in seconds; `None` = 0 = ends with the connection, `u32::MAX` = never.
    pub session_expiry_interval: Option<u32>,
    /// Receive Maximum, 1 to 65,535; `None` = 65,535.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size in bytes, at least 1; `None` = no limit.
    pub maximum_packet_size: Option<u32>,
    /// Topic Alias Maximum; `None` = 0.
    pub topic_alias_maximum: Option<u16>,
    /// Request Response Information; `None` = false.
    pub request_response_information: Option<bool>,
    /// Request Problem Information; `None` = true.
    pub request_problem_information: Option<bool>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
    /// Authentication Method.
    pub authentication_method: Option<ByteString>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
}

/// The Will Message that the server publishes when the connection ends without DISCONNECT.
///
/// Source: MQTT 5.0 §3.1.2.5, §3.1.3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic, a Topic Name.
    pub topic: ByteString,
    /// Will Payload; may be empty.
    pub payload: Bytes,
    /// Will Delay Interval in seconds, 0 in 3.1.1.
    pub delay_interval: u32,
    /// The properties that travel with the message (no alias, no subscription identifier).
    pub properties: Option<Box<PublishProperties>>,
}

impl Connect {
    /// Reads the body. `decoder` has the limits; the version is the packet's own.
    pub(crate) fn decode(
        decoder: &Decoder,
        frame: Frame,
        reader: &mut Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let version = read_version(reader)?;
        // [MQTT-1.5.5-1]; the frame could not know the version yet.
        if version.wants_shortest_lengths() && !frame.has_shortest_length() {
            return Err(DecodeError::InvalidLength);
        }
        let flags = ConnectFlags::decode(version, reader.u8()?)?;
        let keep_alive = reader.u16()?;
        let properties = if version.has_properties() {
            ConnectProperties::decode(decoder, reader)?
        } else {
            ConnectProperties {
                session_expiry_interval: (!flags.clean_start).then_some(u32::MAX),
                ..ConnectProperties::default()
            }
        };
        let client_id = reader.string()?;
        let will = match flags.will {
            Some((qos, retain)) => Some(Will::decode(decoder, version, qos, retain, reader)?),
            None => None,
        };
        let user_name = read_credential(version, flags.user_name, reader, Reader::string)?;
        let password = read_credential(version, flags.password, reader, Reader::bytes)?;
        Ok(Self {
            version,
            clean_start: flags.clean_start,
            keep_alive,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    /// Appends the packet, in its own version, to `out`, which is left as it was on an error.
    ///
    /// Before 5.0 the properties are left out, and `clean_start` is the Clean Session flag.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`]: a password without a user name before 5.0, a Will Topic that is no Topic Name, a
    /// property out of range, or Authentication Data without a method.
    /// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let flags = ConnectFlags {
            clean_start: self.clean_start,
            will: self.will.as_ref().map(|will| (will.qos, will.retain)),
            user_name: self.user_name.is_some(),
            password: self.password.is_some(),
        };
        if !flags.are_allowed_in(self.version) {
            return Err(EncodeError::Invalid);
        }
        wire::put_packet(out, PacketType::Connect.first_byte(), |out| {
            wire::put_string(out, self.version.protocol_name())?;
            out.extend_from_slice(&[self.version.level(), flags.encode()]);
            wire::put_u16(out, self.keep_alive);
            if self.version.has_properties() {
                self.properties.encode(out)?;
            }
            wire::put_string(out, &self.client_id)?;
            if let Some(will) = &self.will {
                will.encode(self.version, out)?;
            }
            if let Some(user_name) = &self.user_name {
                wire::put_string(out, user_name)?;
            }
            if let Some(password) = &self.password {
                wire::put_binary(out, password)?;
            }
            Ok(())
        })
    }
}

/// Reads Protocol Name and Protocol Level.
fn read_version(reader: &mut Reader<'_>) -> Result<ProtocolVersion, DecodeError> {
    let name = reader.binary()?;
    if !ProtocolVersion::ALL
        .iter()
        .any(|version| version.protocol_name().as_bytes() == name)
    {
        return Err(DecodeError::UnsupportedProtocol);
    }
    let level = reader.u8()?;
    ProtocolVersion::from_wire(name, level).ok_or(DecodeError::UnsupportedVersion { level })
}

/// Reads User Name or Password if its flag is set.
///
/// MQTT 3.1 §3.1: the Remaining Length wins over the flag, a field may be missing at the end.
fn read_credential<'a, T>(
    version: ProtocolVersion,
    flag: bool,
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if !flag || (reader.is_empty() && version.may_omit_credentials()) {
        return Ok(None);
    }
    read(reader).map(Some)
}

/// The Connect Flags.
///
/// Source: MQTT 5.0 §3.1.2.3; MQTT 3.1.1 §3.1.2.3.
#[derive(Debug, Clone, Copy)]
struct ConnectFlags {
    clean_start: bool,
    /// Will QoS and Will Retain, if the Will Flag is set.
    will: Option<(QoS, bool)>,
    user_name: bool,
    password: bool,
}

impl ConnectFlags {
    fn decode(version: ProtocolVersion, byte: u8) -> Result<Self, DecodeError> {
        let strict = version.checks_reserved_bits();
        // [MQTT-3.1.2-3]
        if strict && byte & RESERVED != 0 {
            return Err(DecodeError::ReservedBit);
        }
        let will = if byte & WILL != 0 {
            // [MQTT-3.1.2-12]
            let qos =
                QoS::from_u8((byte & WILL_QOS) >> WILL_QOS_SHIFT).ok_or(DecodeError::InvalidQos)?;
            Some((qos, byte & WILL_RETAIN != 0))
        } else if strict && byte & (WILL_QOS | WILL_RETAIN) != 0 {
            // [MQTT-3.1.2-11], [MQTT-3.1.2-13]; MQTT 3.1 disregards them.
            return Err(DecodeError::ContradictingFlags);
        } else {
            None
        };
        let flags = Self {
            clean_start: byte & CLEAN_START != 0,
            will,
            user_name: byte & USER_NAME != 0,
            password: byte & PASSWORD != 0,
        };
        if flags.are_allowed_in(version) {
            Ok(flags)
        } else {
            Err(DecodeError::ContradictingFlags)
        }
    }

    /// No password without a user name, unless the version allows it. [MQTT311-3.1.2-22]
    fn are_allowed_in(self, version: ProtocolVersion) -> bool {
        self.user_name || !self.password || version.allows_password_without_user_name()
    }

    fn encode(self) -> u8 {
        let mut byte = 0;
        if self.clean_start {
            byte |= CLEAN_START;
        }
        if let Some((qos, retain)) = self.will {
            byte |= WILL | (qos.as_u8() << WILL_QOS_SHIFT);
            if retain {
                byte |= WILL_RETAIN;
            }
        }
        if self.user_name {
            byte |= USER_NAME;
        }
        if self.password {
            byte |= PASSWORD;
        }
        byte
    }
}

impl ConnectProperties {
    fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut section = Properties::read(reader, decoder, Carrier::Connect)?;
        while let Some(id) = section.next()? {
            properties.read(id, &mut section)?;
        }
        if properties.has_data_without_method() {
            return Err(DecodeError::MissingProperty {
                id: u32::from(PropertyId::AuthenticationMethod.as_u8()),
            });
        }
        Ok(properties)
    }

    fn read(&mut self, id: PropertyId, section: &mut Properties<'_>) -> Result<(), DecodeError> {
        match id {
            PropertyId::SessionExpiryInterval => {
                self.session_expiry_interval = Some(section.u32()?)
            }
            PropertyId::ReceiveMaximum => self.receive_maximum = Some(section.positive_u16()?),
            PropertyId::MaximumPacketSize => {
                self.maximum_packet_size = Some(section.positive_u32()?);
            }
            PropertyId::TopicAliasMaximum => self.topic_alias_maximum = Some(section.u16()?),
            PropertyId::RequestResponseInformation => {
                self.request_response_information = Some(section.flag()?);
            }
            PropertyId::RequestProblemInformation => {
                self.request_problem_information = Some(section.flag()?);
            }
            PropertyId::UserProperty => self.user_properties.push(section.pair()?),
            PropertyId::AuthenticationMethod => {
                self.authentication_method = Some(section.string()?);
            }
            PropertyId::AuthenticationData => self.authentication_data = Some(section.bytes()?),
            _ => return Err(section.unexpected()),
        }
        Ok(())
    }

    /// Source: MQTT 5.0 §3.1.2.11.10.
    fn has_data_without_method(&self) -> bool {
        self.authentication_data.is_some() && self.authentication_method.is_none()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.has_data_without_method() {
            return Err(EncodeError::Invalid);
        }
        property::put_section(out, |section| {
            section.u32(
                PropertyId::SessionExpiryInterval,
                self.session_expiry_interval,
            );
            section.positive_u16(PropertyId::ReceiveMaximum, self.receive_maximum)?;
            section.positive_u32(PropertyId::MaximumPacketSize, self.maximum_packet_size)?;
            section.u16(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
            section.flag(
                PropertyId::RequestResponseInformation,
                self.request_response_information,
            );
            section.flag(
                PropertyId::RequestProblemInformation,
                self.request_problem_information,
            );
            section.user_properties(&self.user_properties)?;
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

impl Will {
    fn decode(
        decoder: &Decoder,
        version: ProtocolVersion,
        qos: QoS,
        retain: bool,
        reader: &mut Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let (delay_interval, properties) = if version.has_properties() {
            read_will_properties(decoder, reader)?
        } else {
            (0, None)
        };
        Ok(Self {
            qos,
            retain,
            topic: reader.topic_name()?,
            payload: reader.bytes()?,
            delay_interval,
            properties,
        })
    }

    fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version.has_properties() {
            property::put_section(out, |section| {
                let delay = (self.delay_interval != 0).then_some(self.delay_interval);
                section.u32(PropertyId::WillDelayInterval, delay);
                match &self.properties {
                    Some(properties) => {
                        section.u32(
                            PropertyId::MessageExpiryInterval,
                            properties.message_expiry_interval,
                        );
                        properties.encode_forwarded(section)
                    }
                    None => Ok(()),
                }
            })?;
        }
        wire::put_topic_name(out, &self.topic)?;
        wire::put_binary(out, &self.payload)
    }
}

/// Reads the Will Properties: the delay, and those that travel with the message.
fn read_will_properties(
    decoder: &Decoder,
    reader: &mut Reader<'_>,
) -> Result<(u32, Option<Box<PublishProperties>>), DecodeError> {
    let mut delay_interval = 0;
    let mut properties: Option<Box<PublishProperties>> = None;
    let mut section = Properties::read(reader, decoder, Carrier::Will)?;
    while let Some(id) = section.next()? {
        if id == PropertyId::WillDelayInterval {
            delay_interval = section.u32()?;
        } else {
            properties.get_or_insert_default().read(id, &mut section)?;
        }
    }
    Ok((delay_interval, properties))
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| Hidden))
            .field("properties", &self.properties)
            .finish()
    }
}

impl fmt::Debug for ConnectProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectProperties")
            .field("session_expiry_interval", &self.session_expiry_interval)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field(
                "request_response_information",
                &self.request_response_information,
            )
            .field(
                "request_problem_information",
                &self.request_problem_information,
            )
            .field("user_properties", &self.user_properties)
            .field("authentication_method", &self.authentication_method)
            .field(
                "authentication_data",
                &self.authentication_data.as_ref().map(|_| Hidden),
            )
            .finish()
    }
}

/// Stands for a secret in `Debug`.
pub(super) struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(version: ProtocolVersion) -> Connect {
        Connect {
            version,
            clean_start: true,
            keep_alive: 60,
            client_id: "c".into(),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    fn refused(connect: &Connect) -> EncodeError {
        let mut out = vec![7];
        let error = connect.encode(&mut out).unwrap_err();
        assert_eq!(out, [7], "left as it was");
        error
    }

    #[test]
    fn debug_hides_password_and_authentication_data() {
        let connect = Connect {
            user_name: Some("alice".into()),
            password: Some(Bytes::from_static(b"hunter2")),
            properties: ConnectProperties {
                authentication_method: Some("TOKEN".into()),
                authentication_data: Some(Bytes::from_static(b"abcdef")),
                ..ConnectProperties::default()
            },
            ..connect(ProtocolVersion::V5)
        };
        let text = format!("{connect:?} {connect:#?}");
        assert!(text.contains("alice") && text.contains("TOKEN"), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("abcdef"),
            "{text}"
        );
    }

    #[test]
    fn password_alone_is_for_version_5() {
        for version in ProtocolVersion::ALL {
            let connect = Connect {
                password: Some(Bytes::from_static(b"p")),
                ..connect(version)
            };
            let result = connect.encode(&mut Vec::new());
            assert_eq!(result.is_ok(), version == ProtocolVersion::V5);
        }
    }

    #[test]
    fn what_a_server_would_refuse_is_not_sent() {
        for topic in ["", "#", "a/+"] {
            let will = Will {
                qos: QoS::AtMostOnce,
                retain: false,
                topic: topic.into(),
                payload: Bytes::new(),
                delay_interval: 0,
                properties: None,
            };
            for version in ProtocolVersion::ALL {
                let connect = Connect {
                    will: Some(will.clone()),
                    ..connect(version)
                };
                assert_eq!(refused(&connect), EncodeError::Invalid);
            }
        }
        let with = |properties: ConnectProperties| Connect {
            properties,
            ..connect(ProtocolVersion::V5)
        };
        let receive_maximum = Some(0);
        let maximum_packet_size = Some(0);
        let authentication_data = Some(Bytes::new());
        for properties in [
            ConnectProperties {
                receive_maximum,
                ..Default::default()
            },
            ConnectProperties {
                maximum_packet_size,
                ..Default::default()
            },
            ConnectProperties {
                authentication_data,
                ..Default::default()
            },
        ] {
            assert_eq!(refused(&with(properties)), EncodeError::Invalid);
        }
        let long = Connect {
            client_id: "x".repeat(65_536).into(),
            ..connect(ProtocolVersion::V311)
        };
        assert_eq!(refused(&long), EncodeError::FieldTooLong);
        let nul = Connect {
            client_id: "a\0".into(),
            ..connect(ProtocolVersion::V311)
        };
        assert_eq!(refused(&nul), EncodeError::Invalid);
    }
}
