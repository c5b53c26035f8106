//! SUBACK.

use super::PacketId;
use super::ack::AckProperties;
use crate::proto::ReasonCode;

/// SUBACK: one Reason Code per Topic Filter of the SUBSCRIBE, in its order.
///
/// In 3.1.1 a failure is 0x80; the encoder writes 0x80 for every error.
///
/// Source: MQTT 5.0 §3.9; MQTT 3.1.1 §3.9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suback {
    /// Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Granted QoS 0 (`Success`), 1 or 2, or an error.
    pub reasons: Vec<ReasonCode>,
    /// The properties; `None` when the packet has none.
    pub properties: Option<Box<AckProperties>>,
}
