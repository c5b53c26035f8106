//! PUBLISH: the flow with its publisher, the retained message, the receivers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Router;
use super::command::{Goodbye, Injection, Origin, PublishSpan, Refusal};
use super::link::Payload;
use super::publication::{Frame, Publication};
use super::session::Session;
use super::sessions::Delivered;
use super::subscriptions::{Member, SessionSlot};
use crate::broker::config::QueueFull;
use crate::broker::plugin::Event;
use crate::proto::flow::incoming::Verdict;
use crate::proto::packet::Publish;
use crate::proto::packet::publish::PublishProperties;
use crate::proto::{PacketId, PacketType, QoS, ReasonCode, TopicName, topic};

/// What routing one message came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Routed {
    /// Sessions and groups whose filters match.
    matched: usize,
    /// Sessions whose queue is full.
    queues_full: usize,
    /// It could not be kept as the retained message.
    not_retained: bool,
}

impl Router {
    pub(super) fn handle_span(
        &mut self,
        origin: Origin,
        buffer: &Bytes,
        span: &PublishSpan,
        now: Instant,
    ) {
        let (start, topic_start, payload_start, end) = (
            span.frame_start as usize,
            span.topic_start as usize,
            span.payload_start as usize,
            span.end as usize,
        );
        let topic = buffer.get(topic_start..topic_start + usize::from(span.topic_bytes));
        let (Some(Ok(topic)), Some(payload), Some(frame)) = (
            topic.map(std::str::from_utf8),
            buffer.get(payload_start..end),
            buffer.get(start..end),
        ) else {
            return;
        };
        let mut publication = Publication::new(
            topic,
            Payload {
                bytes: payload,
                shared: buffer,
            },
            span.qos,
            span.retain,
        );
        if span.qos == QoS::AtMostOnce && !span.retain && span.properties.is_none() {
            let has_properties = self
                .sessions
                .session(origin.slot)
                .and_then(|session| session.link.as_ref())
                .is_some_and(|link| link.version.has_properties());
            publication.frame = Some(Frame {
                bytes: frame,
                has_properties,
            });
        }
        set_properties(&mut publication, span.properties.as_deref(), now);
        self.receive(origin, &mut publication, span.packet_id, now);
    }

    pub(super) fn handle_publish_packet(
        &mut self,
        origin: Origin,
        publish: &Publish,
        now: Instant,
    ) {
        let payload = Payload {
            bytes: &publish.payload,
            shared: &publish.payload,
        };
        let mut publication =
            Publication::new(&publish.topic, payload, publish.qos, publish.retain);
        set_properties(&mut publication, publish.properties.as_deref(), now);
        self.receive(origin, &mut publication, publish.packet_id, now);
    }

    /// Takes a PUBLISH through the receiver's side of its flow and, if it is new, to its receivers.
    ///
    /// Source: MQTT 5.0 §4.3, [MQTT-3.3.4-9].
    fn receive(
        &mut self,
        origin: Origin,
        publication: &mut Publication<'_>,
        packet_id: Option<PacketId>,
        now: Instant,
    ) {
        let Some(packet_id) = packet_id else {
            self.route(publication, Some(origin.slot), now);
            return;
        };
        let Some(session) = self.sessions.session_mut(origin.slot) else {
            return;
        };
        let has_reasons = session
            .link
            .as_ref()
            .is_some_and(|link| link.version.has_reason_codes());
        let exactly_once = publication.qos == QoS::ExactlyOnce;
        let mark = self.sessions.journal.mark();
        let Some(session) = self.sessions.session_mut(origin.slot) else {
            return;
        };
        match session.incoming.on_publish(packet_id, publication.qos) {
            Err(error) => {
                log::warn!(
                    "{} closing connection: {error}",
                    session.client_id.escape_debug()
                );
                self.metrics.protocol_errors.increment();
                self.expel(origin.slot, &error.into(), now);
                return;
            }
            // [MQTT-4.3.3-10]
            Ok(Verdict::Duplicate) => {
                self.sessions.acknowledge(
                    origin.slot,
                    PacketType::Pubrec,
                    packet_id,
                    ReasonCode::Success,
                    None,
                    mark,
                );
                return;
            }
            // [MQTT-2.2.1-3]
            Ok(Verdict::IdInUse) => {
                if has_reasons {
                    let reason = ReasonCode::PacketIdentifierInUse;
                    let text = Some(ID_IN_USE);
                    self.sessions.acknowledge(
                        origin.slot,
                        PacketType::Puback,
                        packet_id,
                        reason,
                        text,
                        mark,
                    );
                } else {
                    let goodbye = Goodbye::new(ReasonCode::PacketIdentifierInUse, ID_IN_USE);
                    self.expel(origin.slot, &goodbye, now);
                }
                return;
            }
            Ok(Verdict::Deliver) => {}
        }
        let routed = self.route(publication, Some(origin.slot), now);
        let (reason, text) = if !has_reasons {
            (ReasonCode::Success, None)
        } else if routed.not_retained {
            (
                ReasonCode::QuotaExceeded,
                Some(
                    "not retained, because the broker keeps no more: clear some, or publish without RETAIN",
                ),
            )
        } else if routed.queues_full > 0
            && self.sessions.settings.queue_full(publication.topic) == QueueFull::Reject
        {
            (
                ReasonCode::QuotaExceeded,
                Some("the queue of a subscriber is full: publish again later"),
            )
        } else if routed.matched == 0 {
            (ReasonCode::NoMatchingSubscribers, None)
        } else {
            (ReasonCode::Success, None)
        };
        let kind = if exactly_once {
            PacketType::Pubrec
        } else {
            PacketType::Puback
        };
        if let Some((session, journal)) = self.sessions.with_journal(origin.slot) {
            if exactly_once && !reason.is_error() {
                journal.put_incoming(session.key, packet_id);
            } else {
                session.incoming.on_acknowledged(packet_id);
            }
        }
        self.sessions
            .acknowledge(origin.slot, kind, packet_id, reason, text, mark);
    }

    /// Answers a PUBLISH that is not routed. Before 5.0 there is no way to say so: it is acknowledged like any other.
    ///
    /// Source: MQTT 5.0 §3.4.2.1; [MQTT311-3.3.5-2].
    pub(super) fn handle_refused(&mut self, origin: Origin, refusal: &Refusal, now: Instant) {
        let Some(packet_id) = refusal.packet_id else {
            return;
        };
        let mark = self.sessions.journal.mark();
        let Some((session, journal)) = self.sessions.with_journal(origin.slot) else {
            return;
        };
        let has_reasons = session
            .link
            .as_ref()
            .is_some_and(|link| link.version.has_reason_codes());
        let exactly_once = refusal.qos == QoS::ExactlyOnce;
        let mut reason = refusal.reason;
        match session.incoming.on_publish(packet_id, refusal.qos) {
            Err(error) => {
                self.metrics.protocol_errors.increment();
                self.expel(origin.slot, &error.into(), now);
                return;
            }
            Ok(Verdict::Deliver) => {
                if !exactly_once || has_reasons {
                    session.incoming.on_acknowledged(packet_id);
                } else {
                    journal.put_incoming(session.key, packet_id);
                }
            }
            // It was taken when it came first, whatever the rules say now. [MQTT-4.3.3-10]
            Ok(Verdict::Duplicate) => reason = ReasonCode::Success,
            Ok(Verdict::IdInUse) => reason = ReasonCode::PacketIdentifierInUse,
        }
        let kind = if exactly_once {
            PacketType::Pubrec
        } else {
            PacketType::Puback
        };
        let text = match reason {
            ReasonCode::PacketIdentifierInUse => ID_IN_USE,
            _ => refusal.text,
        };
        self.sessions
            .acknowledge(origin.slot, kind, packet_id, reason, Some(text), mark);
    }

    pub(super) fn handle_inject(&mut self, injection: &Injection, now: Instant) {
        let payload = Payload {
            bytes: &injection.payload,
            shared: &injection.payload,
        };
        let mut publication = Publication::new(
            injection.topic.as_str(),
            payload,
            injection.qos,
            injection.retain,
        );
        if injection.silent {
            self.keep(&mut publication, None);
        } else {
            self.route(&mut publication, None, now);
        }
    }

    /// Publishes a retained text of the broker itself.
    pub(super) fn inject_text(&mut self, topic: &str, text: String, now: Instant) {
        let bytes = Bytes::from(text);
        let payload = Payload {
            bytes: &bytes,
            shared: &bytes,
        };
        let mut publication = Publication::new(topic, payload, QoS::AtMostOnce, true);
        self.route(&mut publication, None, now);
    }

    /// Sends a message to everyone whose subscription matches, and keeps it if it is to be retained.
    ///
    /// Source: MQTT 5.0 §3.3.1.3, §3.3.4.
    pub(super) fn route(
        &mut self,
        publication: &mut Publication<'_>,
        from: Option<SessionSlot>,
        now: Instant,
    ) -> Routed {
        let mut routed = Routed::default();
        if publication.qos != QoS::AtMostOnce
            && self.sessions.settings.queue_full(publication.topic) == QueueFull::Reject
            && self.publisher_hears_reasons(from)
        {
            let full = self.full_queues(publication, from, now);
            if full > 0 {
                routed.matched = full;
                routed.queues_full = full;
                return routed;
            }
        }
        if publication.retain && !self.keep(publication, from) {
            routed.not_retained = true;
            if publication.qos != QoS::AtMostOnce && self.publisher_hears_reasons(from) {
                return routed;
            }
        }
        if self.plugins.wants_messages() {
            self.show_message(publication, from);
        }
        let Self {
            subscriptions,
            sessions,
            chooser,
            ..
        } = self;
        let receivers = subscriptions.receivers(publication.topic);
        let owner = sessions.settings.response_areas.owner(publication.topic);
        for receiver in &receivers.direct {
            if owner.is_some_and(|owner| !sessions.is_owner(receiver.slot, owner)) {
                continue;
            }
            // [MQTT-3.8.3-3]
            let Some(receiver) = receiver.for_publisher(from == Some(receiver.slot)) else {
                continue;
            };
            routed.matched += 1;
            if sessions.deliver(receiver, None, publication, now) == Delivered::QueueFull {
                routed.queues_full += 1;
            }
        }
        if !receivers.groups.is_empty() && owner.is_none() {
            let groups = receivers.groups.clone();
            let (matched, full) =
                chooser.deliver(&groups, subscriptions, sessions, publication, from, now);
            routed.matched += matched;
            routed.queues_full += full;
        }
        routed
    }

    /// How many queues have no room for a message. If there are any it is refused before anybody gets it: to publish it
    /// again, or with DUP, brings it to each receiver once. [MQTT-4.3.3-10]
    fn full_queues(
        &mut self,
        publication: &mut Publication<'_>,
        from: Option<SessionSlot>,
        now: Instant,
    ) -> usize {
        let Some(message) = publication.message() else {
            return 0;
        };
        let Self {
            subscriptions,
            sessions,
            ..
        } = self;
        let receivers = subscriptions.receivers(publication.topic);
        let owner = sessions.settings.response_areas.owner(publication.topic);
        let mut full: Vec<SessionSlot> = receivers
            .direct
            .iter()
            .filter(|receiver| owner.is_none_or(|owner| sessions.is_owner(receiver.slot, owner)))
            .filter_map(|receiver| receiver.for_publisher(from == Some(receiver.slot)))
            .filter(|receiver| sessions.has_no_room_for(receiver.slot, receiver.qos, &message))
            .map(|receiver| receiver.slot)
            .collect();
        let groups = if owner.is_none() {
            receivers.groups.clone()
        } else {
            Vec::new()
        };
        for group in groups.into_iter().filter_map(|id| subscriptions.group(id)) {
            let is_full = |member: &Member| {
                sessions.has_no_room_for(member.slot, member.options.qos, &message)
            };
            if group.members.iter().all(is_full) {
                full.extend(group.members.first().map(|member| member.slot));
            }
        }
        for slot in &full {
            sessions.note_refused(*slot, publication.topic, now);
        }
        full.len()
    }

    /// Tells the plugins about a message that is being routed.
    fn show_message(&self, publication: &mut Publication<'_>, from: Option<SessionSlot>) {
        let Some(message) = publication.message() else {
            return;
        };
        let client_id = from
            .and_then(|slot| self.sessions.session(slot))
            .map(|session| session.client_id.clone());
        if publication.retain {
            self.plugins.fire(Event::RetainedMessage {
                client_id: client_id.clone(),
                message: Arc::clone(&message),
            });
        }
        self.plugins
            .fire(Event::MessageBroadcast { client_id, message });
    }

    fn publisher_hears_reasons(&self, from: Option<SessionSlot>) -> bool {
        from.and_then(|slot| self.sessions.session(slot))
            .and_then(|session| session.link.as_ref())
            .is_some_and(|link| link.version.has_reason_codes())
    }

    /// Replaces or removes the retained message of a topic. `false`: there is no room.
    ///
    /// Source: MQTT 5.0 §3.3.1.3 [MQTT-3.3.1-5], [MQTT-3.3.1-6], [MQTT-3.3.1-7].
    fn keep(&mut self, publication: &mut Publication<'_>, from: Option<SessionSlot>) -> bool {
        let is_stored = self.sessions.journal.is_on() && !topic::is_reserved(publication.topic);
        if publication.payload.bytes.is_empty() {
            if self.retained.clear(publication.topic)
                && is_stored
                && let Ok(topic) = TopicName::parse(publication.topic)
            {
                self.sessions.journal.delete_retained(topic);
            }
            return true;
        }
        // What the broker says of itself is little, and replaces itself.
        if self.memory.is_tight() && !topic::is_reserved(publication.topic) {
            self.metrics.retained_refused.increment();
            return false;
        }
        let Some(message) = publication.message() else {
            return false;
        };
        let publisher = from
            .and_then(|slot| self.sessions.session_mut(slot))
            .map(Session::publisher);
        let by = publisher.clone().filter(|_| is_stored);
        match self.retained.set(Arc::clone(&message), publisher) {
            Ok(_) => {
                if is_stored {
                    self.sessions.journal.put_retained(&message, by.as_deref());
                }
                true
            }
            Err(full) => {
                if self.metrics.retained_refused.value() == 0 {
                    log::warn!(
                        "'{}' is not retained: {full}",
                        message.topic.as_str().escape_debug()
                    );
                }
                self.metrics.retained_refused.increment();
                false
            }
        }
    }
}

/// What a client is told that uses a packet identifier again too early.
const ID_IN_USE: &str =
    "a QoS 2 message holds this packet identifier until its PUBCOMP: use another one";

pub(super) fn set_properties<'a>(
    publication: &mut Publication<'a>,
    properties: Option<&'a PublishProperties>,
    now: Instant,
) {
    publication.properties = properties;
    publication.expires_at = properties
        .and_then(|properties| properties.message_expiry_interval)
        .and_then(|seconds| now.checked_add(Duration::from_secs(seconds.into())));
}
