//! How to publish a message.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use super::whole_seconds;
use crate::proto::QoS;
use crate::proto::packet::publish::PublishProperties;

/// How to publish one message. What is not set comes from the topic's and the general defaults.
///
/// A [`QoS`] converts into it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishOptions {
    pub(crate) qos: Option<QoS>,
    pub(crate) retain: Option<bool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) properties: Option<Box<PublishProperties>>,
}

impl PublishOptions {
    /// Nothing set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The QoS.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = Some(qos);
        self
    }

    /// The RETAIN flag.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = Some(retain);
        self
    }

    /// How long `publish` waits for the acknowledgement, and `publish_nowait` for room.
    /// Default: [`ConnectOptions::ack_timeout`](crate::client::ConnectOptions::ack_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// MQTT 5.0: when the message expires, in whole seconds from now. Default: never.
    #[must_use]
    pub fn message_expiry(mut self, expiry: Duration) -> Self {
        self.properties_mut().message_expiry_interval = Some(whole_seconds(expiry));
        self
    }

    /// MQTT 5.0: the payload is UTF-8 text.
    #[must_use]
    pub fn utf8(mut self) -> Self {
        self.properties_mut().payload_format_utf8 = Some(true);
        self
    }

    /// MQTT 5.0: the Content Type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<ByteString>) -> Self {
        self.properties_mut().content_type = Some(content_type.into());
        self
    }

    /// MQTT 5.0: the topic to answer to.
    #[must_use]
    pub fn response_topic(mut self, topic: impl Into<ByteString>) -> Self {
        self.properties_mut().response_topic = Some(topic.into());
        self
    }

    /// MQTT 5.0: what the answer is to carry so that it is recognised.
    #[must_use]
    pub fn correlation_data(mut self, data: impl Into<Bytes>) -> Self {
        self.properties_mut().correlation_data = Some(data.into());
        self
    }

    /// MQTT 5.0: adds a User Property.
    #[must_use]
    pub fn user_property(
        mut self,
        name: impl Into<ByteString>,
        value: impl Into<ByteString>,
    ) -> Self {
        let properties = self.properties_mut();
        properties.user_properties.push((name.into(), value.into()));
        self
    }

    /// MQTT 5.0: the Topic Alias to send it with, 1 to the server's Topic Alias Maximum. Default: the client chooses.
    #[must_use]
    pub fn topic_alias(mut self, alias: u16) -> Self {
        self.properties_mut().topic_alias = Some(alias);
        self
    }

    /// MQTT 5.0: all properties at once, in the place of what was set before. Subscription Identifiers are the server's
    /// and are not sent.
    #[must_use]
    pub fn properties(mut self, properties: PublishProperties) -> Self {
        self.properties = Some(Box::new(properties));
        self
    }

    fn properties_mut(&mut self) -> &mut PublishProperties {
        self.properties.get_or_insert_default()
    }
}

impl From<QoS> for PublishOptions {
    fn from(qos: QoS) -> Self {
        Self::new().qos(qos)
    }
}
