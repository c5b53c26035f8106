//! What the server allows.

use crate::proto::packet::connack::Connack;
use crate::proto::{QoS, ReasonCode};

/// What the server allows on this connection.
///
/// Source: MQTT 5.0 §3.2.2.3.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) receive_maximum: u16,
    maximum_qos: QoS,
    pub(super) maximum_packet_bytes: usize,
    pub(super) topic_alias_maximum: u16,
    retain_available: bool,
    pub(super) wildcard_available: bool,
    pub(super) identifiers_available: bool,
    pub(super) shared_available: bool,
}

impl Limits {
    pub(super) fn none() -> Self {
        Self::of(&Connack::new(false, ReasonCode::Success))
    }

    pub(super) fn of(connack: &Connack) -> Self {
        let properties = &connack.properties;
        Self {
            receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
            maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            maximum_packet_bytes: properties
                .maximum_packet_size
                .map_or(usize::MAX, |bytes| bytes as usize),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            retain_available: properties.retain_available.unwrap_or(true),
            wildcard_available: properties.wildcard_subscription_available.unwrap_or(true),
            identifiers_available: properties
                .subscription_identifiers_available
                .unwrap_or(true),
            shared_available: properties.shared_subscription_available.unwrap_or(true),
        }
    }

    /// Why a message like this must not be sent. [MQTT-3.2.2-11], [MQTT-3.2.2-14]
    pub(super) fn refuses(&self, qos: QoS, retain: bool) -> Option<ReasonCode> {
        if qos > self.maximum_qos {
            return Some(ReasonCode::QosNotSupported);
        }
        (retain && !self.retain_available).then_some(ReasonCode::RetainNotSupported)
    }
}
