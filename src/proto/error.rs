//! What can be wrong with a packet, and the one mapping from errors to Reason Codes.

use std::fmt;

use super::ReasonCode;
use super::property::PropertyId;

/// The bytes are not a valid Control Packet. The sender is at fault; the connection ends.
///
/// Source: MQTT 5.0 §4.13; MQTT 3.1.1 §4.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The packet type is reserved (0, or 15 before 5.0).
    ReservedPacketType,
    /// The flags in the fixed header are not those that the packet type prescribes. [MQTT-2.1.3-1]
    InvalidFlags,
    /// The Remaining Length takes more than four bytes, or more bytes than its value needs. [MQTT-1.5.5-1]
    InvalidLength,
    /// The packet is larger than the receiver allows. [MQTT-3.1.2-24]
    PacketTooLarge {
        /// Its whole size in bytes.
        size: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// A field runs over the end of the packet.
    Truncated,
    /// Bytes are left after the last field.
    TrailingBytes,
    /// A string is not valid UTF-8. [MQTT-1.5.4-1]
    InvalidUtf8,
    /// A string holds U+0000. [MQTT-1.5.4-2]
    NulInString,
    /// The Packet Identifier is 0. [MQTT-2.2.1-3]
    ZeroPacketId,
    /// QoS has the value 3. [MQTT-3.3.1-4]
    InvalidQos,
    /// DUP is set in a QoS 0 PUBLISH. [MQTT-3.3.1-2]
    DupWithQos0,
    /// The Topic Name of a PUBLISH, a Will or a Response Topic is empty or holds a wildcard. [MQTT-3.3.2-2]
    InvalidTopicName,
    /// A PUBLISH has neither a Topic Name nor a Topic Alias. Source: MQTT 5.0 §3.3.2.1.
    MissingTopicName,
    /// The protocol name is unknown: the peer speaks something else. [MQTT-3.1.2-1]
    UnsupportedProtocol,
    /// The protocol name is MQTT's, the level is unknown. [MQTT-3.1.2-2]
    UnsupportedVersion {
        /// The Protocol Level in CONNECT.
        level: u8,
    },
    /// A reserved bit is set. [MQTT-3.1.2-3], [MQTT-3.8.3-5]
    ReservedBit,
    /// Subscription Options with QoS 3, Retain Handling 3, or No Local on a shared subscription. [MQTT-3.8.3-4]
    InvalidSubscriptionOptions,
    /// A flag contradicts another field, such as Will QoS without Will Flag. [MQTT-3.1.2-11]
    ContradictingFlags,
    /// The payload has no Topic Filter. [MQTT-3.8.3-2], [MQTT-3.10.3-2]
    NoTopicFilter,
    /// The property does not exist, or not in this packet. Source: MQTT 5.0 §2.2.2.2.
    InvalidProperty {
        /// Its identifier.
        id: u32,
    },
    /// The property stands more than once. Source: MQTT 5.0 §2.2.2.2.
    DuplicateProperty {
        /// Its identifier.
        id: u32,
    },
    /// The property's value is not allowed.
    InvalidPropertyValue {
        /// Its identifier.
        id: u32,
    },
    /// A property is missing that the packet or another property needs. Source: MQTT 5.0 §3.1.2.11.10, §3.15.2.2.2.
    MissingProperty {
        /// Its identifier.
        id: u32,
    },
    /// The properties are more, or larger, than the receiver takes.
    TooManyProperties,
    /// SUBSCRIBE or UNSUBSCRIBE has more Topic Filters than the receiver takes.
    TooManyFilters,
    /// The Reason Code does not exist, or not in this packet.
    InvalidReasonCode {
        /// Its value.
        value: u8,
    },
}

impl DecodeError {
    /// The Reason Code that tells the sender.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UnsupportedProtocol | Self::UnsupportedVersion { .. } => {
                ReasonCode::UnsupportedProtocolVersion
            }
            Self::InvalidTopicName => ReasonCode::TopicNameInvalid,
            // Source: MQTT 5.0 §3.3.2.3.4 [MQTT-3.3.2-8].
            Self::InvalidPropertyValue { id }
                if *id == u32::from(PropertyId::TopicAlias.as_u8()) =>
            {
                ReasonCode::TopicAliasInvalid
            }
            Self::DuplicateProperty { .. }
            | Self::InvalidPropertyValue { .. }
            | Self::MissingProperty { .. }
            | Self::MissingTopicName
            | Self::InvalidSubscriptionOptions
            | Self::NoTopicFilter => ReasonCode::ProtocolError,
            Self::TooManyProperties | Self::TooManyFilters => ReasonCode::QuotaExceeded,
            _ => ReasonCode::MalformedPacket,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedPacketType => f.write_str("reserved packet type"),
            Self::InvalidFlags => f.write_str("invalid flags in the fixed header"),
            Self::InvalidLength => f.write_str("invalid variable byte integer"),
            Self::PacketTooLarge { size, limit } => {
                write!(f, "packet of {size} bytes, the limit is {limit}")
            }
            Self::Truncated => f.write_str("a field runs over the end of the packet"),
            Self::TrailingBytes => f.write_str("bytes after the last field"),
            Self::InvalidUtf8 => f.write_str("string is not valid UTF-8"),
            Self::NulInString => f.write_str("string holds U+0000"),
            Self::ZeroPacketId => f.write_str("packet identifier 0"),
            Self::InvalidQos => f.write_str("QoS 3"),
            Self::DupWithQos0 => f.write_str("DUP flag in a QoS 0 PUBLISH"),
            Self::InvalidTopicName => f.write_str("invalid topic name"),
            Self::MissingTopicName => f.write_str("no topic name"),
            Self::UnsupportedProtocol => f.write_str("unsupported protocol name"),
            Self::UnsupportedVersion { level } => write!(f, "unsupported protocol level {level}"),
            Self::ReservedBit => f.write_str("reserved bit set"),
            Self::InvalidSubscriptionOptions => f.write_str("invalid subscription options"),
            Self::ContradictingFlags => f.write_str("flags contradict each other"),
            Self::NoTopicFilter => f.write_str("no topic filter"),
            Self::InvalidProperty { id } => write!(f, "property 0x{id:02x} is not allowed here"),
            Self::DuplicateProperty { id } => write!(f, "property 0x{id:02x} stands twice"),
            Self::InvalidPropertyValue { id } => write!(f, "invalid value of property 0x{id:02x}"),
            Self::MissingProperty { id } => write!(f, "property 0x{id:02x} is missing"),
            Self::TooManyProperties => f.write_str("too many properties"),
            Self::TooManyFilters => {
                f.write_str("too many topic filters: send them in several packets")
            }
            Self::InvalidReasonCode { value } => {
                write!(f, "reason code 0x{value:02x} is not allowed here")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// The packet is well formed, but not allowed in this state. The connection ends.
///
/// Source: MQTT 5.0 §4.13.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The first packet is not CONNECT. [MQTT-3.1.0-1]
    ConnectExpected,
    /// A second CONNECT. [MQTT-3.1.0-2]
    SecondConnect,
    /// A packet that only the other side may send.
    WrongDirection,
    /// An acknowledgement that does not belong to the flow's state.
    UnexpectedAck,
    /// More QoS 1 and 2 messages in flight than this side's Receive Maximum. [MQTT-3.3.4-9]
    ReceiveMaximumExceeded,
    /// A Topic Alias of 0 or above the maximum. [MQTT-3.3.2-8]
    TopicAliasInvalid,
    /// A PUBLISH whose topic is a Topic Alias that was never set, or that has neither. Source: MQTT 5.0 §3.3.4.
    TopicAliasUnknown,
    /// A Subscription Identifier in a client's PUBLISH. [MQTT-3.3.4-6]
    SubscriptionIdentifierFromClient,
    /// DISCONNECT sets a Session Expiry Interval although CONNECT had 0. [MQTT-3.14.2-2]
    SessionExpiryFromZero,
    /// CONNACK says that there is a session, although CONNECT asked for a new one. [MQTT-3.2.2-2], [MQTT-3.2.2-4]
    UnexpectedSession,
    /// AUTH without an authentication method in CONNECT, or out of turn. [MQTT-4.12.0-6]
    UnexpectedAuth,
    /// A request for a feature that the server said it has not.
    NotAvailable(ReasonCode),
}

impl ProtocolError {
    /// The Reason Code that tells the sender.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            Self::NotAvailable(reason) => *reason,
            _ => ReasonCode::ProtocolError,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectExpected => "the first packet is not CONNECT",
            Self::SecondConnect => "second CONNECT",
            Self::WrongDirection => "packet from the wrong side",
            Self::UnexpectedAck => "acknowledgement out of turn",
            Self::ReceiveMaximumExceeded => "receive maximum exceeded",
            Self::TopicAliasInvalid => "invalid topic alias",
            Self::TopicAliasUnknown => "a topic alias without a topic",
            Self::SubscriptionIdentifierFromClient => {
                "subscription identifier in a client's PUBLISH"
            }
            Self::SessionExpiryFromZero => {
                "session expiry set at DISCONNECT although CONNECT had none"
            }
            Self::UnexpectedSession => "a session where a new one was asked for",
            Self::UnexpectedAuth => "AUTH out of turn",
            Self::NotAvailable(reason) => return fmt::Display::fmt(reason, f),
        })
    }
}

impl std::error::Error for ProtocolError {}

/// A packet cannot be sent: it would break the format or a limit of the peer. This side is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    FieldTooLong,
    /// The packet is longer than 268,435,455 bytes, or than the peer's Maximum Packet Size.
    PacketTooLarge,
    /// The version has no such packet (AUTH, or a DISCONNECT from the server, before 5.0).
    NotInThisVersion,
    /// A field contradicts another one: QoS above 0 without Packet Identifier, for example.
    Invalid,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FieldTooLong => "field longer than 65,535 bytes",
            Self::PacketTooLarge => "packet too large",
            Self::NotInThisVersion => "packet does not exist in this protocol version",
            Self::Invalid => "fields contradict each other",
        })
    }
}

impl std::error::Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::PacketType;

    fn decode_errors() -> Vec<DecodeError> {
        use DecodeError::*;
        let errors = vec![
            ReservedPacketType,
            InvalidFlags,
            InvalidLength,
            PacketTooLarge { size: 2, limit: 1 },
            Truncated,
            TrailingBytes,
            InvalidUtf8,
            NulInString,
            ZeroPacketId,
            InvalidQos,
            DupWithQos0,
            InvalidTopicName,
            MissingTopicName,
            UnsupportedProtocol,
            UnsupportedVersion { level: 6 },
            ReservedBit,
            InvalidSubscriptionOptions,
            ContradictingFlags,
            NoTopicFilter,
            InvalidProperty { id: 1 },
            DuplicateProperty { id: 1 },
            InvalidPropertyValue { id: 1 },
            MissingProperty { id: 0x15 },
            TooManyProperties,
            TooManyFilters,
            InvalidReasonCode { value: 3 },
        ];
        // A new variant must be added to the list above.
        for error in &errors {
            match error {
                ReservedPacketType
                | InvalidFlags
                | InvalidLength
                | PacketTooLarge { .. }
                | Truncated
                | TrailingBytes
                | InvalidUtf8
                | NulInString
                | ZeroPacketId
                | InvalidQos
                | DupWithQos0
                | InvalidTopicName
                | MissingTopicName
                | UnsupportedProtocol
                | UnsupportedVersion { .. }
                | ReservedBit
                | InvalidSubscriptionOptions
                | ContradictingFlags
                | NoTopicFilter
                | InvalidProperty { .. }
                | DuplicateProperty { .. }
                | InvalidPropertyValue { .. }
                | MissingProperty { .. }
                | TooManyProperties
                | TooManyFilters
                | InvalidReasonCode { .. } => {}
            }
        }
        errors
    }

    fn protocol_errors() -> Vec<ProtocolError> {
        use ProtocolError::*;
        vec![
            ConnectExpected,
            SecondConnect,
            WrongDirection,
            UnexpectedAck,
            ReceiveMaximumExceeded,
            TopicAliasInvalid,
            TopicAliasUnknown,
            SubscriptionIdentifierFromClient,
            SessionExpiryFromZero,
            UnexpectedSession,
            UnexpectedAuth,
            NotAvailable(ReasonCode::RetainNotSupported),
        ]
    }

    #[test]
    fn errors_are_small() {
        assert!(size_of::<DecodeError>() <= 32);
        assert!(size_of::<ProtocolError>() <= 32);
        assert!(size_of::<EncodeError>() <= 32);
    }

    #[test]
    fn every_decode_error_has_a_reason_that_ends_a_connection() {
        for error in decode_errors() {
            let reason = error.reason();
            assert!(reason.is_error(), "{error}");
            assert!(
                reason.is_allowed_in(PacketType::Disconnect)
                    || reason == ReasonCode::UnsupportedProtocolVersion,
                "{error}: {reason}"
            );
        }
    }

    #[test]
    fn every_protocol_error_has_a_reason_that_ends_a_connection() {
        for error in protocol_errors() {
            assert!(
                error.reason().is_allowed_in(PacketType::Disconnect),
                "{error}"
            );
        }
    }

    #[test]
    fn messages_are_distinct_and_end_without_a_full_stop() {
        let texts: Vec<String> = decode_errors()
            .iter()
            .map(ToString::to_string)
            .chain(protocol_errors().iter().map(ToString::to_string))
            .collect();
        for (at, text) in texts.iter().enumerate() {
            assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
            assert!(!texts[..at].contains(text), "{text} stands twice");
        }
        assert_eq!(
            DecodeError::InvalidProperty { id: 0x23 }.to_string(),
            "property 0x23 is not allowed here"
        );
        assert_eq!(
            DecodeError::PacketTooLarge {
                size: 20,
                limit: 10
            }
            .to_string(),
            "packet of 20 bytes, the limit is 10"
        );
    }

    #[test]
    fn reasons_follow_the_specification() {
        let of = |error: DecodeError| error.reason();
        assert_eq!(of(DecodeError::Truncated), ReasonCode::MalformedPacket);
        // §3.1.2.11.3: the value 0 is a Protocol Error.
        assert_eq!(
            of(DecodeError::InvalidPropertyValue { id: 0x21 }),
            ReasonCode::ProtocolError
        );
        assert_eq!(
            of(DecodeError::InvalidPropertyValue { id: 0x23 }),
            ReasonCode::TopicAliasInvalid
        );
        assert_eq!(
            of(DecodeError::DuplicateProperty { id: 0x21 }),
            ReasonCode::ProtocolError
        );
        // §2.2.2.2: an identifier that the packet cannot have makes it malformed.
        assert_eq!(
            of(DecodeError::InvalidProperty { id: 0x21 }),
            ReasonCode::MalformedPacket
        );
        assert_eq!(
            of(DecodeError::InvalidTopicName),
            ReasonCode::TopicNameInvalid
        );
        assert_eq!(
            of(DecodeError::TooManyProperties),
            ReasonCode::QuotaExceeded
        );
    }
}
