//! SUBSCRIBE.

use bytestring::ByteString;

use super::{PacketId, QoS, UserProperty};

/// SUBSCRIBE: asks for one or more subscriptions.
///
/// Source: MQTT 5.0 §3.8; MQTT 3.1.1 §3.8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Topic Filters as they came (UTF-8, not yet checked as filters) with their options; at least one.
    pub filters: Vec<(ByteString, SubscriptionOptions)>,
    /// Subscription Identifier, 1 to 268,435,455.
    pub subscription_identifier: Option<u32>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
}

/// The Subscription Options of one Topic Filter.
///
/// Source: MQTT 5.0 §3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local: own messages are not sent back.
    pub no_local: bool,
    /// Retain As Published: the RETAIN flag of forwarded messages is kept.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription.
///
/// Source: MQTT 5.0 §3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    Always = 0,
    /// 1: only if the subscription did not exist.
    IfNew = 1,
    /// 2: never.
    Never = 2,
}
