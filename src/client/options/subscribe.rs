//! What to subscribe to, and how.

use std::time::Duration;

use bytestring::ByteString;

use crate::proto::QoS;
use crate::proto::packet::{RetainHandling, SubscriptionOptions, UserProperty};

/// One Topic Filter to subscribe to, and how.
///
/// A pair of filter and [`QoS`] converts into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub(crate) filter: ByteString,
    pub(crate) options: SubscriptionOptions,
}

impl Subscription {
    /// `filter` at most at `qos`. A Shared Subscription is written `$share/name/filter`.
    #[must_use]
    pub fn new(filter: impl Into<ByteString>, qos: QoS) -> Self {
        Self {
            filter: filter.into(),
            options: SubscriptionOptions {
                qos,
                ..SubscriptionOptions::default()
            },
        }
    }

    /// MQTT 5.0: messages of this client itself are not sent back to it.
    #[must_use]
    pub fn no_local(mut self) -> Self {
        self.options.no_local = true;
        self
    }

    /// MQTT 5.0: forwarded messages keep the RETAIN flag with which they were published.
    #[must_use]
    pub fn retain_as_published(mut self) -> Self {
        self.options.retain_as_published = true;
        self
    }

    /// MQTT 5.0: when retained messages are sent.
    #[must_use]
    pub fn retain_handling(mut self, handling: RetainHandling) -> Self {
        self.options.retain_handling = handling;
        self
    }
}

impl<F: AsRef<str>> From<(F, QoS)> for Subscription {
    fn from((filter, qos): (F, QoS)) -> Self {
        Self::new(filter.as_ref(), qos)
    }
}

impl<F: AsRef<str>> From<&(F, QoS)> for Subscription {
    fn from((filter, qos): &(F, QoS)) -> Self {
        Self::new(filter.as_ref(), *qos)
    }
}

impl From<&Self> for Subscription {
    fn from(subscription: &Self) -> Self {
        subscription.clone()
    }
}

/// What holds for all filters of one SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscribeOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) identifier: Option<u32>,
    pub(crate) user_properties: Vec<UserProperty>,
}

impl SubscribeOptions {
    /// Nothing set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait for the server's answer. Default: [`ConnectOptions::ack_timeout`](crate::client::ConnectOptions::ack_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// MQTT 5.0: the Subscription Identifier that messages of these subscriptions carry, 1 to 268,435,455.
    #[must_use]
    pub fn identifier(mut self, identifier: u32) -> Self {
        self.identifier = Some(identifier);
        self
    }

    /// MQTT 5.0: adds a User Property.
    #[must_use]
    pub fn user_property(
        mut self,
        name: impl Into<ByteString>,
        value: impl Into<ByteString>,
    ) -> Self {
        self.user_properties.push((name.into(), value.into()));
        self
    }
}
