//! SUBSCRIBE and UNSUBSCRIBE.

use std::time::Instant;

use bytestring::ByteString;

use super::Router;
use super::command::{RequestedFilter, SubscribeRequest, UnsubscribeRequest};
use super::session::{Replay, Subscribed};
use super::subscriptions::{SessionSlot, Subscription};
use crate::broker::plugin::Event;
use crate::proto::packet::ack::AckProperties;
use crate::proto::packet::{Packet, RetainHandling, Suback, Unsuback};
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
        let mut reasons = Vec::with_capacity(request.filters.len());
        let mut text = request.reason_string;
        for filter in &request.filters {
            let reason = match filter {
                Err(reason) => *reason,
                Ok(requested) => {
                    let reason = self.subscribe(slot, requested, request.id);
                    if reason == ReasonCode::QuotaExceeded {
                        text = Some("the limit of subscriptions is reached");
                    }
                    reason
                }
            };
            reasons.push(reason);
        }
        let Some(link) = self.sessions.touch(slot) else {
            return;
        };
        let properties = text.filter(|_| link.problem_information).map(|text| {
            Box::new(AckProperties {
                reason_string: Some(ByteString::from_static(text)),
                user_properties: Vec::new(),
            })
        });
        link.push_packet(&Packet::Suback(Box::new(Suback {
            packet_id: request.packet_id,
            reasons,
            properties,
        })));
        self.sessions.count_packets_sent(1);
        self.sessions.pump(slot, &self.retained, now);
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
        let Some(session) = self.sessions.session_mut(slot) else {
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
                filter: requested.filter.clone(),
                qos: options.qos,
                id,
                after: None,
            });
        }
        let client_id = session.client_id.clone();
        let text = requested.text.clone();
        session
            .subscriptions
            .insert(text.clone(), Box::new(Subscribed { requested }));
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
        let mut reasons = Vec::with_capacity(request.filters.len());
        for filter in &request.filters {
            reasons.push(match filter {
                Err(reason) => *reason,
                Ok(requested) => self.unsubscribe(slot, requested, now),
            });
        }
        let packet_id = request.packet_id;
        if let Some(link) = self.sessions.touch(slot) {
            link.push_packet(&Packet::Unsuback(Box::new(Unsuback {
                packet_id,
                reasons,
                properties: None,
            })));
            self.sessions.count_packets_sent(1);
        }
    }

    fn unsubscribe(
        &mut self,
        slot: SessionSlot,
        requested: &RequestedFilter,
        now: Instant,
    ) -> ReasonCode {
        let Some(session) = self.sessions.session_mut(slot) else {
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
