//! UNSUBSCRIBE.

use bytestring::ByteString;

use super::{PacketId, UserProperty};

/// UNSUBSCRIBE: ends one or more subscriptions.
///
/// Source: MQTT 5.0 §3.10; MQTT 3.1.1 §3.10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Topic Filters as they came; at least one.
    pub filters: Vec<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
}
