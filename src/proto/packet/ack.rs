//! PUBACK, PUBREC, PUBREL and PUBCOMP: one struct, four packet types.

use bytestring::ByteString;

use super::{PacketId, UserProperty};
use crate::proto::ReasonCode;

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
///
/// Source: MQTT 5.0 §3.4 to §3.7; MQTT 3.1.1 §3.4 to §3.7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The Packet Identifier of the flow.
    pub packet_id: PacketId,
    /// Reason Code; `Success` in 3.1.1.
    pub reason: ReasonCode,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<AckProperties>>,
}

/// The properties that acknowledgements share (also SUBACK's and UNSUBACK's).
///
/// Source: MQTT 5.0 §3.4.2.2, §3.9.2.1, §3.11.2.1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckProperties {
    /// Reason String: for people and logs.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
}

impl Ack {
    /// An acknowledgement without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: None,
        }
    }
}
