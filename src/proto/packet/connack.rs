//! CONNACK.

use bytes::Bytes;
use bytestring::ByteString;

use super::{QoS, UserProperty};
use crate::proto::ReasonCode;

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
    /// Maximum QoS; `None` = QoS 2.
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
