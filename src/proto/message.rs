//! The Application Message that all its receivers share.

use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;

use super::TopicName;
use super::packet::QoS;
use super::packet::publish::{PublishProperties, PublishView};

/// An Application Message, as published. What differs per receiver (granted QoS, packet identifier, subscription
/// identifiers) is not here.
///
/// Source: MQTT 5.0 §1.2, §3.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic Name.
    pub topic: TopicName,
    /// Payload.
    pub payload: Bytes,
    /// The QoS at which it was published.
    pub qos: QoS,
    /// The RETAIN flag with which it was published.
    pub retain: bool,
    /// Properties to forward; never an alias, a subscription identifier or an expiry interval.
    pub properties: Option<Box<PublishProperties>>,
    /// When the message expires: its Message Expiry Interval added to the time it arrived.
    pub expires_at: Option<Instant>,
}

impl Message {
    /// A message at QoS 0, not retained, without properties, that never expires.
    #[must_use]
    pub fn new(topic: TopicName, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: None,
            expires_at: None,
        }
    }

    /// The message in a PUBLISH that arrived at `now`, under the Topic Name that its topic or alias stands for.
    ///
    /// `buffer` is the whole read buffer that `publish` was decoded from, not only its packet; see [`share_or_copy`].
    #[must_use]
    pub fn from_publish(
        publish: &PublishView<'_>,
        buffer: &Bytes,
        topic: TopicName,
        now: Instant,
    ) -> Self {
        Self {
            qos: publish.qos,
            retain: publish.retain,
            ..Self::new(topic, share_or_copy(publish.payload, buffer))
        }
        .with_properties(publish.properties.as_deref(), now)
    }

    /// The message with those of `properties` that go to its receivers, and with the expiry that they give it if it
    /// begins to wait at `now`.
    #[must_use]
    pub fn with_properties(mut self, properties: Option<&PublishProperties>, now: Instant) -> Self {
        (self.properties, self.expires_at) = forwarded(properties, now);
        self
    }

    /// Whether the message must not be sent any more at `now`. [MQTT-3.3.2-5]
    #[must_use]
    pub fn expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// The Message Expiry Interval to send at `now`: the seconds left, a part of a second counted as one. `None`: it
    /// never expires. 0: it has expired, and must not be sent.
    ///
    /// Source: MQTT 5.0 §3.3.2.3.3 [MQTT-3.3.2-6].
    #[must_use]
    pub fn remaining_expiry(&self, now: Instant) -> Option<u32> {
        let left = self.expires_at?.saturating_duration_since(now);
        let part = u64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(left.as_secs().saturating_add(part)).unwrap_or(u32::MAX))
    }

    /// What the message takes of a budget, in bytes: topic, payload, properties and the struct itself.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            .saturating_add(self.topic.as_str().len())
            .saturating_add(self.payload.len())
            .saturating_add(self.properties.as_deref().map_or(0, properties_bytes))
    }
}

/// The properties that go to the receivers, and when the message expires.
fn forwarded(
    properties: Option<&PublishProperties>,
    now: Instant,
) -> (Option<Box<PublishProperties>>, Option<Instant>) {
    let Some(properties) = properties else {
        return (None, None);
    };
    let expires_at = properties
        .message_expiry_interval
        .and_then(|seconds| now.checked_add(Duration::from_secs(u64::from(seconds))));
    let kept = PublishProperties {
        payload_format_utf8: properties.payload_format_utf8,
        message_expiry_interval: None,
        topic_alias: None,
        response_topic: properties.response_topic.clone(),
        correlation_data: properties.correlation_data.clone(),
        user_properties: properties.user_properties.clone(),
        subscription_identifiers: Vec::new(),
        content_type: properties.content_type.clone(),
    };
    let kept = (kept != PublishProperties::default()).then(|| Box::new(kept));
    (kept, expires_at)
}

/// A part of a read buffer, to be kept for long. A large part that is at least half of the buffer shares it; any other
/// is copied, so that a queued message does not keep a buffer alive that is many times its size. What counts as large
/// is measured against the room of a read buffer, which may be longer than what was read.
#[must_use]
pub fn share_or_copy(part: &[u8], buffer: &Bytes) -> Bytes {
    if part.is_empty() {
        return Bytes::new();
    }
    let rest = buffer.len().saturating_sub(part.len());
    let mostly = part.len() >= rest && part.len() >= SHARED_BYTES;
    let (inside, outside) = (part.as_ptr_range(), buffer.as_ptr_range());
    if mostly && inside.start >= outside.start && inside.end <= outside.end {
        return buffer.slice_ref(part);
    }
    Bytes::copy_from_slice(part)
}

fn properties_bytes(properties: &PublishProperties) -> usize {
    let text = |text: &Option<ByteString>| text.as_ref().map_or(0, |text| text.len());
    let user = properties.user_properties.iter();
    let parts = user
        .flat_map(|pair| [size_of_val(pair), pair.0.len(), pair.1.len()])
        .chain([
            size_of::<PublishProperties>(),
            text(&properties.response_topic),
            text(&properties.content_type),
            properties.correlation_data.as_ref().map_or(0, Bytes::len),
        ]);
    parts.fold(0, usize::saturating_add)
}

/// Half of a read buffer.
const SHARED_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(payload: &'a [u8], properties: Option<PublishProperties>) -> PublishView<'a> {
        PublishView {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "a",
            packet_id: crate::proto::PacketId::new(1),
            properties: properties.map(Box::new),
            payload,
        }
    }

    fn topic() -> TopicName {
        TopicName::parse("a").unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "only a point of reference")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_small_payload_is_copied_and_a_large_one_shared() {
        let buffer = Bytes::from(vec![7; 65_536]);
        let small = Message::from_publish(&view(&buffer[10..26], None), &buffer, topic(), now());
        assert!(buffer.is_unique());
        assert_eq!(small.payload, buffer[10..26]);
        let alone = buffer.slice(..300);
        let small = Message::from_publish(&view(&alone[10..], None), &alone, topic(), now());
        assert_eq!(small.payload, alone[10..]);
        assert_ne!(small.payload.as_ptr(), alone[10..].as_ptr());
        drop(alone);
        assert!(buffer.is_unique());
        let large = Message::from_publish(&view(&buffer[100..], None), &buffer, topic(), now());
        assert!(!buffer.is_unique());
        assert_eq!(large.payload.as_ptr(), buffer[100..].as_ptr());
        let other = vec![1; 40_000];
        let foreign = Message::from_publish(&view(&other, None), &buffer, topic(), now());
        assert_eq!(foreign.payload, other);
    }

    #[test]
    fn properties_of_one_hop_are_not_forwarded() {
        let hop = PublishProperties {
            message_expiry_interval: Some(10),
            topic_alias: Some(3),
            ..PublishProperties::default()
        };
        let buffer = Bytes::new();
        let now = now();
        let message = Message::from_publish(&view(&[], Some(hop.clone())), &buffer, topic(), now);
        assert_eq!(message.properties, None);
        assert_eq!(message.expires_at, Some(now + Duration::from_secs(10)));
        let both = PublishProperties {
            content_type: Some("text/plain".into()),
            user_properties: vec![("k".into(), "v".into())],
            ..hop
        };
        let message = Message::from_publish(&view(&[], Some(both)), &buffer, topic(), now);
        let kept = message.properties.as_deref().unwrap();
        assert_eq!(kept.content_type.as_deref(), Some("text/plain"));
        assert_eq!(kept.user_properties.len(), 1);
        assert_eq!(
            (kept.message_expiry_interval, kept.topic_alias),
            (None, None)
        );
        assert!(message.size_bytes() > Message::new(topic(), "").size_bytes());
    }

    /// [MQTT-3.3.2-5], [MQTT-3.3.2-6]
    #[test]
    fn the_expiry_interval_counts_down_to_one_and_then_the_message_has_expired() {
        let now = now();
        let mut message = Message::new(topic(), "x");
        assert_eq!(
            (message.expired(now), message.remaining_expiry(now)),
            (false, None)
        );
        message.expires_at = Some(now + Duration::from_secs(10));
        for (passed_ms, left, expired) in [
            (0, 10, false),
            (300, 10, false),
            (1000, 9, false),
            (9999, 1, false),
            (10_000, 0, true),
            (99_999, 0, true),
        ] {
            let then = now + Duration::from_millis(passed_ms);
            assert_eq!(message.remaining_expiry(then), Some(left), "{passed_ms}");
            assert_eq!(message.expired(then), expired, "{passed_ms}");
        }
    }
}
