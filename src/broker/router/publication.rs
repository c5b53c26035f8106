//! A message on its way through the router, encoded at most once per form.

use std::sync::Arc;
use std::time::Instant;

use super::link::{Link, Outbound, Payload, seconds_until};
use crate::proto::message::share_or_copy;
use crate::proto::packet::publish::{PublishHead, PublishProperties, encode_head};
use crate::proto::{Message, ProtocolVersion, QoS, TopicName};
use crate::store::MessageId;

/// A message that is being routed: the parts of a PUBLISH, and what was made of them so far.
#[derive(Debug)]
pub(super) struct Publication<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: Payload<'a>,
    /// The packet as the publisher sent it, when it can be forwarded as it stands at QoS 0.
    pub(super) frame: Option<Frame<'a>>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) properties: Option<&'a PublishProperties>,
    pub(super) expires_at: Option<Instant>,
    shared: Option<Arc<Message>>,
    /// Where the message is in the store, once it is there.
    pub(super) stored: Option<MessageId>,
    encoded: [Option<Vec<u8>>; 4],
}

/// A QoS 0 PUBLISH without RETAIN and DUP, as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) has_properties: bool,
}

impl<'a> Publication<'a> {
    pub(super) fn new(topic: &'a str, payload: Payload<'a>, qos: QoS, retain: bool) -> Self {
        Self {
            topic,
            payload,
            frame: None,
            qos,
            retain,
            properties: None,
            expires_at: None,
            shared: None,
            stored: None,
            encoded: [const { None }; 4],
        }
    }

    /// A message that was kept, to be routed again.
    pub(super) fn of(message: &'a Arc<Message>) -> Self {
        let payload = Payload {
            bytes: &message.payload,
            shared: &message.payload,
        };
        Self {
            properties: message.properties.as_deref(),
            expires_at: message.expires_at,
            shared: Some(Arc::clone(message)),
            ..Self::new(message.topic.as_str(), payload, message.qos, message.retain)
        }
    }

    /// The message as something to keep; made once.
    pub(super) fn message(&mut self) -> Option<Arc<Message>> {
        if self.shared.is_none() {
            let payload = share_or_copy(self.payload.bytes, self.payload.shared);
            self.shared = Some(Arc::new(Message {
                topic: TopicName::parse(self.topic).ok()?,
                payload,
                qos: self.qos,
                retain: self.retain,
                properties: self.properties.map(|properties| {
                    let mut properties = properties.clone();
                    properties.topic_alias = None;
                    properties.message_expiry_interval = None;
                    properties.subscription_identifiers = Vec::new();
                    Box::new(properties)
                }),
                expires_at: self.expires_at,
            }));
        }
        self.shared.clone()
    }

    pub(super) fn outbound<'b>(&'b self, qos: QoS, retain: bool, ids: &'b [u32]) -> Outbound<'b> {
        Outbound {
            topic: self.topic,
            payload: self.payload,
            properties: self.properties,
            expires_at: self.expires_at,
            qos,
            retain,
            ids,
        }
    }

    /// Appends the QoS 0 packet for a receiver without aliases and identifiers, encoding it at most once per form.
    pub(super) fn push_plain(&mut self, link: &mut Link, retain: bool, now: Instant) {
        let has_properties = link.version.has_properties();
        if let Some(frame) = self.frame
            && !retain
            && frame.has_properties == has_properties
        {
            link.pending.bytes_mut().extend_from_slice(frame.bytes);
            return;
        }
        let form = usize::from(has_properties) * 2 + usize::from(retain);
        let Some(encoded) = self.encoded.get_mut(form) else {
            return;
        };
        let bytes = encoded.get_or_insert_with(|| {
            let version = ProtocolVersion::newest(has_properties);
            let head = PublishHead {
                dup: false,
                qos: QoS::AtMostOnce,
                retain,
                topic: self.topic,
                packet_id: None,
                properties: self.properties,
                message_expiry_interval: self.expires_at.map(|at| seconds_until(at, now)),
                topic_alias: None,
                subscription_identifiers: &[],
            };
            let mut bytes = Vec::with_capacity(self.topic.len() + 16);
            if let Err(error) = encode_head(&head, version, self.payload.bytes.len(), &mut bytes) {
                log::debug!("cannot encode a message on '{}': {error}", self.topic);
                bytes.clear();
            }
            bytes
        });
        if bytes.is_empty() {
            return;
        }
        link.pending.bytes_mut().extend_from_slice(bytes);
        link.push_payload(&self.payload);
    }
}
