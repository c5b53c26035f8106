//! SUBSCRIBE and UNSUBSCRIBE.

use std::time::Instant;

use bytestring::ByteString;

use super::Router;
use super::command::{Goodbye, RequestedFilter, SubscribeRequest, UnsubscribeRequest};
use super::link::explained;
use super::session::{Replay, Subscribed};
use super::subscriptions::{SessionSlot, Subscription};
use crate::broker::plugin::Event;
use crate::proto::packet::{RetainHandling, Suback, Unsuback};
use crate::proto::{QoS, ReasonCode};

impl Router {
    /// Makes or replaces subscriptions, answers, and starts sending retained messages.
    ///
    /// Source: MQTT 5.0 §3.8.4 [MQTT-3.8.4-1] to [MQTT-3.8.4-8]; [MQTT311-3.8.4-3].
    pub(super) fn handle_subscribe(
        &mut self,
        slot: SessionSlot,
        request: &SubscribeRequest,
        now: Instant,
    ) {
        if !self.takes_answer(slot, request.filters.len(), now) {
            return;
        }
        let mark = self.sessions.journal.mark();
        let mut reasons = Vec::with_capacity(request.filters.len());
        let mut text = request.reason_string;
        for filter in &request.filters {
            let reason = match filter {
                Err(reason) => *reason,
                Ok(requested) => {
                    let reason = self.subscribe(slot, requested, request.id);
                    if reason == ReasonCode::QuotaExceeded {
                        text = Some(
                            "the limit of subscriptions is reached: unsubscribe from others first",
                        );
                    }
                    reason
                }
            };
            reasons.push(reason);
        }
        self.sessions.answer_first(slot, mark, |link| {
            link.push_explained(text.map(ByteString::from_static), |text, version, out| {
                let suback = Suback {
                    packet_id: request.packet_id,
                    reasons: reasons.clone(),
                    properties: explained(text),
                };
                suback.encode(version, out)
            });
        });
        self.sessions.pump(slot, &self.retained, now);
    }

    /// Whether a client takes the answer with so many Reason Codes. If not, nothing may be done that it would not hear
    /// of: its connection ends. [MQTT-3.1.2-24]
    fn takes_answer(&mut self, slot: SessionSlot, reasons: usize, now: Instant) -> bool {
        let session = self.sessions.session(slot);
        let link = session.and_then(|session| session.link.as_ref());
        let takes = link.is_none_or(|link| link.takes_reasons(reasons));
        if !takes {
            let goodbye = Goodbye::new(
                ReasonCode::PacketTooLarge,
                "the answer is larger than the client's Maximum Packet Size: send fewer filters at a time",
            );
            self.expel(slot, &goodbye, now);
        }
        takes
    }

    pub(super) fn subscribe(
        &mut self,
        slot: SessionSlot,
        requested: &RequestedFilter,
        id: Option<u32>,
    ) -> ReasonCode {
        let Some(session) = self.sessions.session(slot) else {
            return ReasonCode::UnspecifiedError;
        };
        let is_new = !session.subscriptions.contains_key(&requested.text);
        let settings = &self.sessions.settings;
        if is_new
            && (session.subscriptions.len() >= settings.max_subscriptions_per_session
                || self.subscriptions.len() >= settings.max_subscriptions)
        {
            self.metrics.subscriptions_refused.increment();
            return ReasonCode::QuotaExceeded;
        }
        let cap = session
            .link
            .as_ref()
            .map_or(QoS::ExactlyOnce, |link| link.max_qos);
        let mut options = requested.options;
        options.qos = options.qos.min(cap);
        self.subscriptions.subscribe(
            slot,
            &requested.filter,
            requested.share.as_ref(),
            Subscription { options, id },
        );
        let Some((session, journal)) = self.sessions.with_journal(slot) else {
            return ReasonCode::UnspecifiedError;
        };
        let mut requested = requested.clone();
        requested.options = options;
        let wants_retained = match options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        };
        // A shared subscription gets no retained messages when it is made.
        if wants_retained && requested.share.is_none() {
            session
                .replays
                .retain(|replay| replay.filter != requested.filter);
            session.replays.push_back(Replay {
                text: requested.text.clone(),
                filter: requested.filter.clone(),
                qos: options.qos,
                id,
                after: None,
                moved: false,
            });
        }
        let client_id = session.client_id.clone();
        let text = requested.text.clone();
        let replay = session
            .replays
            .iter()
            .find(|replay| replay.filter == requested.filter && requested.share.is_none());
        let subscribed = Box::new(Subscribed { requested, id });
        journal.put_subscription(session.key, &text, &subscribed, replay);
        session.subscriptions.insert(text.clone(), subscribed);
        if self.plugins.is_active() {
            self.plugins.fire(Event::ClientSubscribed {
                client_id,
                filter: text,
                qos: options.qos,
            });
        }
        match options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQos1,
            QoS::ExactlyOnce => ReasonCode::GrantedQos2,
        }
    }

    /// Ends subscriptions and answers. What is already queued or in flight for them is still delivered; what is queued for
    /// a shared one goes to the other members.
    ///
    /// Source: MQTT 5.0 §3.10.4.
    pub(super) fn handle_unsubscribe(
        &mut self,
        slot: SessionSlot,
        request: &UnsubscribeRequest,
        now: Instant,
    ) {
        if !self.takes_answer(slot, request.filters.len(), now) {
            return;
        }
        let mark = self.sessions.journal.mark();
        let mut reasons = Vec::with_capacity(request.filters.len());
        for filter in &request.filters {
            reasons.push(match filter {
                Err(reason) => *reason,
                Ok(requested) => self.unsubscribe(slot, requested, now),
            });
        }
        let text = if reasons.contains(&ReasonCode::TopicFilterInvalid) {
            Some(
                "a topic filter has too many levels or is too long, so nobody can be subscribed to it",
            )
        } else if reasons.contains(&ReasonCode::NoSubscriptionExisted) {
            Some("unsubscribing takes the same text as subscribing, $share and share name included")
        } else {
            None
        };
        self.sessions.answer_first(slot, mark, |link| {
            link.push_explained(text.map(ByteString::from_static), |text, version, out| {
                let unsuback = Unsuback {
                    packet_id: request.packet_id,
                    reasons: reasons.clone(),
                    properties: explained(text),
                };
                unsuback.encode(version, out)
            });
        });
    }

    fn unsubscribe(
        &mut self,
        slot: SessionSlot,
        requested: &RequestedFilter,
        now: Instant,
    ) -> ReasonCode {
        let Some((session, journal)) = self.sessions.with_journal(slot) else {
            return ReasonCode::UnspecifiedError;
        };
        if session.subscriptions.remove(&requested.text).is_none() {
            return ReasonCode::NoSubscriptionExisted;
        }
        if requested.share.is_none() {
            session
                .replays
                .retain(|replay| replay.filter != requested.filter);
        }
        let client_id = session.client_id.clone();
        journal.delete_subscription(session.key, &requested.text);
        let share = requested.share.as_ref();
        let group = share.and_then(|name| self.subscriptions.group_id(&requested.filter, name));
        self.subscriptions
            .unsubscribe(slot, &requested.filter, share);
        if let Some(group) = group {
            self.pass_on_queued(slot, group, now);
        }
        if self.plugins.is_active() {
            self.plugins.fire(Event::ClientUnsubscribed {
                client_id,
                filter: requested.text.clone(),
            });
        }
        ReasonCode::Success
    }
}
