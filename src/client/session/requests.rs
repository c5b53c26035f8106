//! SUBSCRIBE and UNSUBSCRIBE: who waits for which answer, and the subscriptions to restore.

use std::sync::Arc;

use bytestring::ByteString;

use super::{Answer, Effects, Limits, Session};
use crate::client::options::Subscription;
use crate::client::{ClientError, SubscribeResult};
use crate::outbox::OutBuf;
use crate::proto::packet::suback::Suback;
use crate::proto::packet::subscribe::{Subscribe, SubscriptionOptions};
use crate::proto::packet::unsuback::Unsuback;
use crate::proto::packet::unsubscribe::Unsubscribe;
use crate::proto::packet::{Packet, UserProperty};
use crate::proto::{PacketId, ProtocolError, ReasonCode, codec, topic};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    options: SubscriptionOptions,
    identifier: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Request {
    /// `None` between two connections.
    pub(super) id: Option<PacketId>,
    kind: RequestKind,
    user_properties: Vec<UserProperty>,
    /// `None`: nobody waits, a subscription is being restored.
    pub(super) answer: Option<Answer>,
}

#[derive(Debug)]
enum RequestKind {
    Subscribe {
        filters: Vec<(ByteString, SubscriptionOptions)>,
        identifier: Option<u32>,
    },
    Unsubscribe {
        filters: Vec<ByteString>,
    },
}

impl Request {
    /// Why this server must not be sent it.
    ///
    /// Source: MQTT 5.0 §3.2.2.3.11, §3.2.2.3.12, §3.2.2.3.13.
    fn refused_by(&self, limits: &Limits) -> Option<ReasonCode> {
        let RequestKind::Subscribe {
            filters,
            identifier,
        } = &self.kind
        else {
            return None;
        };
        if identifier.is_some() && !limits.identifiers_available {
            return Some(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        if limits.shared_available && limits.wildcard_available {
            return None;
        }
        filters.iter().find_map(|(filter, _)| {
            let (share, filter) = topic::parse_subscription(filter).ok()?;
            if share.is_some() && !limits.shared_available {
                return Some(ReasonCode::SharedSubscriptionsNotSupported);
            }
            let refused = filter.has_wildcard() && !limits.wildcard_available;
            refused.then_some(ReasonCode::WildcardSubscriptionsNotSupported)
        })
    }

    fn to_packet(&self, packet_id: PacketId) -> Packet {
        let user_properties = self.user_properties.clone();
        match &self.kind {
            RequestKind::Subscribe {
                filters,
                identifier,
            } => Packet::Subscribe(Box::new(Subscribe {
                packet_id,
                filters: filters.clone(),
                subscription_identifier: *identifier,
                user_properties,
            })),
            RequestKind::Unsubscribe { filters } => Packet::Unsubscribe(Box::new(Unsubscribe {
                packet_id,
                filters: filters.clone(),
                user_properties,
            })),
        }
    }
}

/// Filters in one SUBSCRIBE when subscriptions are restored: servers limit them.
const RESTORED_AT_ONCE: usize = 50;

impl Session {
    /// Sends a SUBSCRIBE, or keeps it for the next connection when there is none.
    pub(crate) fn subscribe(
        &mut self,
        filters: Vec<Subscription>,
        identifier: Option<u32>,
        user_properties: Vec<UserProperty>,
        answer: &Answer,
        out: Option<&mut OutBuf>,
    ) -> Result<(), ClientError> {
        for filter in &filters {
            check_filter(filter)?;
        }
        let filters = filters
            .into_iter()
            .map(|subscription| (subscription.filter, subscription.options))
            .collect();
        let kind = RequestKind::Subscribe {
            filters,
            identifier,
        };
        self.request(kind, user_properties, answer, out)
    }

    /// Sends an UNSUBSCRIBE, or keeps it for the next connection when there is none.
    pub(crate) fn unsubscribe(
        &mut self,
        filters: Vec<ByteString>,
        user_properties: Vec<UserProperty>,
        answer: &Answer,
        out: Option<&mut OutBuf>,
    ) -> Result<(), ClientError> {
        let kind = RequestKind::Unsubscribe { filters };
        self.request(kind, user_properties, answer, out)
    }

    /// Nobody waits for `answer` any more. What the server does with the request still counts.
    pub(crate) fn forget_answer(&mut self, answer: &Answer) {
        for request in &mut self.requests {
            let is_it = |waiting: &Answer| Arc::ptr_eq(waiting, answer);
            if request.answer.as_ref().is_some_and(is_it) {
                request.answer = None;
            }
        }
    }

    pub(super) fn on_suback(
        &mut self,
        suback: Suback,
        effects: &mut Effects,
    ) -> Result<(), ClientError> {
        let request = self.answered(suback.packet_id)?;
        let RequestKind::Subscribe {
            filters,
            identifier,
        } = request.kind
        else {
            return Err(ProtocolError::UnexpectedAck.into());
        };
        if filters.len() != suback.reasons.len() {
            return Err(ProtocolError::UnexpectedAck.into());
        }
        for ((filter, options), reason) in filters.into_iter().zip(&suback.reasons) {
            if !reason.is_error() {
                let granted = Granted {
                    options,
                    identifier,
                };
                self.subscriptions.insert(filter, granted);
            } else if request.answer.is_none() {
                self.subscriptions.remove(&filter);
                self.on_subscription_lost(&filter);
                effects.lost_subscriptions.push((filter, *reason));
            }
        }
        if let Some(answer) = request.answer {
            let result = SubscribeResult {
                reasons: suback.reasons,
                properties: suback.properties,
            };
            effects.answered.push((answer, Ok(result)));
        }
        Ok(())
    }

    pub(super) fn on_unsuback(
        &mut self,
        unsuback: Unsuback,
        effects: &mut Effects,
    ) -> Result<(), ClientError> {
        let request = self.answered(unsuback.packet_id)?;
        let RequestKind::Unsubscribe { filters } = request.kind else {
            return Err(ProtocolError::UnexpectedAck.into());
        };
        let mut reasons = unsuback.reasons;
        if !self.version.has_reason_codes() {
            reasons = vec![ReasonCode::Success; filters.len()];
        }
        if filters.len() != reasons.len() {
            return Err(ProtocolError::UnexpectedAck.into());
        }
        for (filter, reason) in filters.iter().zip(&reasons) {
            if !reason.is_error() {
                self.subscriptions.remove(filter);
            }
        }
        if let Some(answer) = request.answer {
            let result = SubscribeResult {
                reasons,
                properties: unsuback.properties,
            };
            effects.answered.push((answer, Ok(result)));
        }
        Ok(())
    }

    /// The request that was sent under `id`.
    fn answered(&mut self, id: PacketId) -> Result<Request, ClientError> {
        let at = self.requests.iter().position(|r| r.id == Some(id));
        let request = at.and_then(|at| self.requests.remove(at));
        let request = request.ok_or(ProtocolError::UnexpectedAck)?;
        self.outgoing.release_id(id);
        Ok(request)
    }

    fn request(
        &mut self,
        kind: RequestKind,
        user_properties: Vec<UserProperty>,
        answer: &Answer,
        out: Option<&mut OutBuf>,
    ) -> Result<(), ClientError> {
        self.requests.push_back(Request {
            id: None,
            kind,
            user_properties,
            answer: Some(Arc::clone(answer)),
        });
        let Some(out) = out else { return Ok(()) };
        let sent = self.try_send_request(self.requests.len() - 1, out);
        if sent.is_err() {
            self.requests.pop_back();
        }
        sent
    }

    /// Sends all that waits on a new connection. What this server does not take ends there.
    pub(super) fn send_requests(&mut self, out: &mut OutBuf, effects: &mut Effects) {
        let mut index = 0;
        while index < self.requests.len() {
            match self.try_send_request(index, out) {
                Ok(()) => index += 1,
                // Without a free identifier it waits for the next connection.
                Err(ClientError::Timeout(_)) => return,
                Err(error) => {
                    if let Some(request) = self.requests.remove(index) {
                        self.cannot_send(index, request, error, effects);
                    }
                }
            }
        }
    }

    /// Tells who waits for it. Of subscriptions to restore, those that can be sent are kept: each half is tried again.
    fn cannot_send(
        &mut self,
        index: usize,
        mut request: Request,
        error: ClientError,
        effects: &mut Effects,
    ) {
        if let Some(answer) = request.answer {
            effects.answered.push((answer, Err(error)));
            return;
        }
        let RequestKind::Subscribe {
            filters,
            identifier,
        } = &mut request.kind
        else {
            return;
        };
        if filters.len() > 1 {
            let second = Request {
                id: None,
                kind: RequestKind::Subscribe {
                    filters: filters.split_off(filters.len() / 2),
                    identifier: *identifier,
                },
                user_properties: Vec::new(),
                answer: None,
            };
            self.requests.insert(index, second);
            self.requests.insert(index, request);
            return;
        }
        for (filter, _) in filters.drain(..) {
            self.subscriptions.remove(&filter);
            let reason = error.reason().unwrap_or(ReasonCode::UnspecifiedError);
            self.on_subscription_lost(&filter);
            effects.lost_subscriptions.push((filter, reason));
        }
    }

    fn try_send_request(&mut self, index: usize, out: &mut OutBuf) -> Result<(), ClientError> {
        let Some(request) = self.requests.get_mut(index) else {
            return Ok(());
        };
        if let Some(reason) = request.refused_by(&self.limits) {
            return Err(ClientError::NotAvailable(reason));
        }
        let Some(id) = self.outgoing.reserve_id() else {
            return Err(ClientError::Timeout(crate::client::Phase::Room));
        };
        let before = out.bytes_mut().len();
        let packet = request.to_packet(id);
        let encoded = codec::encode(&packet, self.version, out.bytes_mut());
        let size = out.bytes_mut().len() - before;
        let too_large = size > self.limits.maximum_packet_bytes;
        if encoded.is_err() || too_large {
            out.bytes_mut().truncate(before);
            self.outgoing.release_id(id);
            encoded?;
            return Err(ClientError::NotAvailable(ReasonCode::PacketTooLarge));
        }
        request.id = Some(id);
        Ok(())
    }

    /// Asks again for what the server granted, before anything else that waits.
    pub(super) fn restore_subscriptions(&mut self) {
        let mut restored: Vec<Request> = Vec::new();
        for (filter, granted) in &self.subscriptions {
            let filter = (filter.clone(), granted.options);
            if let Some(Request {
                kind:
                    RequestKind::Subscribe {
                        filters,
                        identifier,
                    },
                ..
            }) = restored.last_mut()
                && *identifier == granted.identifier
                && filters.len() < RESTORED_AT_ONCE
            {
                filters.push(filter);
                continue;
            }
            restored.push(Request {
                id: None,
                kind: RequestKind::Subscribe {
                    filters: vec![filter],
                    identifier: granted.identifier,
                },
                user_properties: Vec::new(),
                answer: None,
            });
        }
        for request in restored.into_iter().rev() {
            self.requests.push_front(request);
        }
    }
}

fn check_filter(subscription: &Subscription) -> Result<(), ClientError> {
    let (share, _) = topic::parse_subscription(&subscription.filter)?;
    if share.is_some() && subscription.options.no_local {
        // [MQTT-3.8.3-4]
        let problem = "cannot be set for a shared subscription";
        return Err(ClientError::invalid("no_local", problem));
    }
    Ok(())
}
