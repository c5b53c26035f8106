//! SUBSCRIBE and UNSUBSCRIBE: who waits for which answer, and the subscriptions to restore.

use std::sync::Arc;

use bytestring::ByteString;

use super::{Answer, Effects, Session};
use crate::client::ClientError;
use crate::client::options::Subscription;
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
            self.check_filter(filter)?;
        }
        if identifier.is_some() && !self.limits.identifiers_available {
            return Err(ClientError::NotAvailable(
                ReasonCode::SubscriptionIdentifiersNotSupported,
            ));
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
                effects.lost_subscriptions.push((filter, *reason));
            }
        }
        if let Some(answer) = request.answer {
            effects.answered.push((answer, Ok(suback.reasons)));
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
            effects.answered.push((answer, Ok(reasons)));
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

    pub(super) fn send_request(&mut self, index: usize, out: &mut OutBuf) {
        // It was sent before, so it can be encoded; without a free identifier it waits for the next connection.
        let _ = self.try_send_request(index, out);
    }

    fn try_send_request(&mut self, index: usize, out: &mut OutBuf) -> Result<(), ClientError> {
        let Some(request) = self.requests.get_mut(index) else {
            return Ok(());
        };
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

    fn check_filter(&self, subscription: &Subscription) -> Result<(), ClientError> {
        let (share, filter) = topic::parse_subscription(&subscription.filter)?;
        if share.is_some() && subscription.options.no_local {
            // [MQTT-3.8.3-4]
            let problem = "cannot be set for a shared subscription";
            return Err(ClientError::invalid("no_local", problem));
        }
        if share.is_some() && !self.limits.shared_available {
            return Err(ClientError::NotAvailable(
                ReasonCode::SharedSubscriptionsNotSupported,
            ));
        }
        if filter.has_wildcard() && !self.limits.wildcard_available {
            return Err(ClientError::NotAvailable(
                ReasonCode::WildcardSubscriptionsNotSupported,
            ));
        }
        Ok(())
    }
}
