//! PUBLISH.

use bytes::Bytes;
use bytestring::ByteString;

use super::{PacketId, QoS, UserProperty};

/// PUBLISH: carries one Application Message.
///
/// Source: MQTT 5.0 §3.3; MQTT 3.1.1 §3.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// DUP: this may be a re-delivery.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; empty when a Topic Alias stands for it.
    pub topic: ByteString,
    /// Packet Identifier: present exactly when QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<PublishProperties>>,
    /// Payload; may be empty.
    pub payload: Bytes,
}

/// The properties of PUBLISH, and those of a Will that travel with it.
///
/// Source: MQTT 5.0 §3.3.2.3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishProperties {
    /// Payload Format Indicator: `true` = UTF-8 text; `None` = unspecified bytes.
    pub payload_format_utf8: Option<bool>,
    /// Message Expiry Interval in seconds; `None` = never.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias, at least 1.
    pub topic_alias: Option<u16>,
    /// Response Topic.
    pub response_topic: Option<ByteString>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
    /// Subscription Identifiers, 1 to 268,435,455 each; server to client only.
    pub subscription_identifiers: Vec<u32>,
    /// Content Type.
    pub content_type: Option<ByteString>,
}

/// A decoded PUBLISH whose parts are borrowed from the read buffer: what the broker's data path uses, so that a
/// message costs no allocation before somebody has to keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishView<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name, valid UTF-8 without NUL; empty when a Topic Alias stands for it.
    pub topic: &'a str,
    /// Packet Identifier: present exactly when QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<PublishProperties>>,
    /// Payload.
    pub payload: &'a [u8],
}
