//! UNSUBACK.

use super::PacketId;
use super::ack::AckProperties;
use crate::proto::ReasonCode;

/// UNSUBACK: one Reason Code per Topic Filter of the UNSUBSCRIBE, in its order; none in 3.1.1.
///
/// Source: MQTT 5.0 §3.11; MQTT 3.1.1 §3.11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsuback {
    /// Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Success, No subscription existed, or an error. Empty in 3.1.1.
    pub reasons: Vec<ReasonCode>,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<AckProperties>>,
}
