//! AUTH, MQTT 5.0 only.

use bytes::Bytes;
use bytestring::ByteString;

use super::UserProperty;
use crate::proto::ReasonCode;

/// AUTH: a step of an enhanced authentication.
///
/// Source: MQTT 5.0 §3.15.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: AuthProperties,
}

/// The properties of AUTH.
///
/// Source: MQTT 5.0 §3.15.2.2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthProperties {
    /// Authentication Method.
    pub authentication_method: Option<ByteString>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
}
