//! CONNECT.

use bytes::Bytes;
use bytestring::ByteString;

use super::{QoS, UserProperty};
use crate::proto::ProtocolVersion;
use crate::proto::packet::publish::PublishProperties;

/// CONNECT: the first packet of a client on a connection.
///
/// Source: MQTT 5.0 §3.1; MQTT 3.1.1 §3.1.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
