//! How to end a connection.

use std::time::Duration;

use bytestring::ByteString;

use super::whole_seconds;
use crate::proto::packet::disconnect::DisconnectProperties;

/// How to end a connection; see [`Client::disconnect_with`](crate::client::Client::disconnect_with).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DisconnectOptions {
    pub(crate) publish_will: bool,
    pub(crate) properties: DisconnectProperties,
}

impl DisconnectOptions {
    /// Nothing set: an ordinary end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// MQTT 5.0: the server is to publish the Will nevertheless. Default: it is not.
    #[must_use]
    pub fn publish_will(mut self) -> Self {
        self.publish_will = true;
        self
    }

    /// MQTT 5.0: how long the server keeps the session from now on, in whole seconds; `Duration::MAX` = for ever.
    /// Default: as CONNECT said. A session that was to end with the connection cannot be prolonged.
    #[must_use]
    pub fn session_expiry(mut self, expiry: Duration) -> Self {
        self.properties.session_expiry_interval = Some(whole_seconds(expiry));
        self
    }

    /// MQTT 5.0: a Reason String, for the server's log.
    #[must_use]
    pub fn reason_string(mut self, reason: impl Into<ByteString>) -> Self {
        self.properties.reason_string = Some(reason.into());
        self
    }

    /// MQTT 5.0: adds a User Property.
    #[must_use]
    pub fn user_property(
        mut self,
        name: impl Into<ByteString>,
        value: impl Into<ByteString>,
    ) -> Self {
        let properties = &mut self.properties.user_properties;
        properties.push((name.into(), value.into()));
        self
    }
}
