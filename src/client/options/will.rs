//! The Will.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use super::whole_seconds;
use crate::proto::QoS;
use crate::proto::packet::publish::PublishProperties;

/// The Will: what the server publishes when this client's connection ends without a DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillOptions {
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay: u32,
    pub(crate) properties: Option<Box<PublishProperties>>,
}

impl WillOptions {
    /// A Will with an empty payload, QoS 0, not retained.
    #[must_use]
    pub fn new(topic: impl Into<ByteString>) -> Self {
        Self {
            topic: topic.into(),
            payload: Bytes::new(),
            qos: QoS::AtMostOnce,
            retain: false,
            delay: 0,
            properties: None,
        }
    }

    /// The payload. Default: empty.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The QoS. Default: QoS 0.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// The RETAIN flag. Default: false.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// MQTT 5.0: how long the server waits before it publishes the Will, in whole seconds. Default: 0.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = whole_seconds(delay);
        self
    }

    /// MQTT 5.0: the properties that travel with the message.
    #[must_use]
    pub fn properties(mut self, properties: PublishProperties) -> Self {
        self.properties = Some(Box::new(properties));
        self
    }
}
