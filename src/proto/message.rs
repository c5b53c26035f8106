//! The Application Message that all its receivers share.

use std::time::Instant;

use bytes::Bytes;

use super::TopicName;
use super::packet::QoS;
use super::packet::publish::PublishProperties;

/// An Application Message, as published. What differs per receiver (granted QoS, packet identifier, subscription
/// identifiers) is not here.
///
/// Source: MQTT 5.0 §1.2, §3.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic Name.
    pub topic: TopicName,
    /// Payload.
    pub payload: Bytes,
    /// The QoS at which it was published.
    pub qos: QoS,
    /// The RETAIN flag with which it was published.
    pub retain: bool,
    /// Properties to forward; never an alias, a subscription identifier or an expiry interval.
    pub properties: Option<Box<PublishProperties>>,
    /// When the message expires: its Message Expiry Interval added to the time it arrived.
    pub expires_at: Option<Instant>,
}
