//! DISCONNECT.

use bytestring::ByteString;

use super::UserProperty;
use crate::proto::ReasonCode;

/// DISCONNECT: the last packet on a connection; from the server in 5.0 only.
///
/// Source: MQTT 5.0 §3.14; MQTT 3.1.1 §3.14.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Disconnect Reason Code; `Success` is Normal disconnection.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: DisconnectProperties,
}

/// The properties of DISCONNECT.
///
/// Source: MQTT 5.0 §3.14.2.2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DisconnectProperties {
    /// Session Expiry Interval in seconds, client to server; `None` = as in CONNECT.
    pub session_expiry_interval: Option<u32>,
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
    /// Server Reference, server to client.
    pub server_reference: Option<ByteString>,
}
