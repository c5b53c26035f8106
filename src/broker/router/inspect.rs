//! Questions about the router's state, and what the embedding program may change in it.

use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;
use crossbeam_channel::Sender;

use super::Router;
use super::command::{Goodbye, RequestedFilter};
use super::session::Session;
use crate::broker::plugin::{SessionInfo, SubscriptionInfo};
use crate::proto::{Message, TopicFilter};

/// A question, with the channel for its answer.
#[derive(Debug)]
pub(crate) enum Query {
    Stats(Sender<RouterStats>),
    Sessions(Sender<Vec<SessionInfo>>),
    Session(ByteString, Sender<Option<SessionInfo>>),
    /// Retained messages that match a filter.
    Retained(TopicFilter, Sender<Vec<Arc<Message>>>),
    Subscriptions(Sender<Vec<SubscriptionInfo>>),
    /// Subscribes a session; the answer says whether it exists and had room.
    Subscribe(ByteString, Box<RequestedFilter>, Sender<bool>),
    /// Closes a client's connection with a reason; the answer says whether it was online.
    Disconnect(ByteString, Goodbye, Sender<bool>),
}

/// Current values of the router's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouterStats {
    /// Clients connected now.
    pub clients_connected: usize,
    /// Most clients that were connected at once.
    pub clients_maximum: usize,
    /// Sessions, online and offline.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Members of shared subscriptions among them.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Topic and payload bytes of the retained messages.
    pub retained_bytes: usize,
    /// Messages that wait in sessions.
    pub queued_messages: usize,
    /// Topic and payload bytes of the waiting messages, counted once per session.
    pub queued_bytes: usize,
    /// QoS 2 messages received and not yet released.
    pub inflight_in: usize,
    /// QoS 1 and 2 messages sent and not yet completed.
    pub inflight_out: usize,
}

impl Router {
    pub(super) fn handle_query(&mut self, query: Query, now: Instant) {
        // The asker may have given up: an answer that nobody takes is no error.
        match query {
            Query::Stats(reply) => drop(reply.try_send(self.stats())),
            Query::Sessions(reply) => {
                let sessions = self
                    .sessions
                    .iter()
                    .map(|(_, session)| session.info())
                    .collect();
                drop(reply.try_send(sessions));
            }
            Query::Session(client_id, reply) => {
                let found = self
                    .sessions
                    .find(&client_id)
                    .and_then(|slot| self.sessions.session(slot))
                    .map(Session::info);
                drop(reply.try_send(found));
            }
            Query::Retained(filter, reply) => {
                let mut found = Vec::new();
                let mut after = None;
                while let Some(message) = self.retained.next(&filter, after.as_ref()) {
                    after = Some(message.topic.clone());
                    found.push(message);
                }
                drop(reply.try_send(found));
            }
            Query::Subscriptions(reply) => drop(reply.try_send(self.all_subscriptions())),
            Query::Subscribe(client_id, filter, reply) => {
                let made = self.sessions.find(&client_id).is_some_and(|slot| {
                    let reason = self.subscribe(slot, &filter, None);
                    self.sessions.pump(slot, &self.retained, now);
                    !reason.is_error()
                });
                let _ = reply.try_send(made);
            }
            Query::Disconnect(client_id, goodbye, reply) => {
                let online = self.sessions.find(&client_id).filter(|slot| {
                    self.sessions
                        .session(*slot)
                        .is_some_and(|session| session.link.is_some())
                });
                if let Some(slot) = online {
                    self.expel(slot, &goodbye, now);
                }
                let _ = reply.try_send(online.is_some());
            }
        }
    }

    /// Current values. Walks over the sessions: meant for once per interval, not per message.
    pub(super) fn stats(&self) -> RouterStats {
        let (inflight_in, inflight_out) =
            self.sessions
                .iter()
                .fold((0, 0), |(inward, outward), (_, session)| {
                    (
                        inward + session.incoming.len(),
                        outward + session.outgoing.len(),
                    )
                });
        RouterStats {
            clients_connected: self.sessions.online,
            clients_maximum: self.peak_online,
            sessions: self.sessions.len(),
            subscriptions: self.subscriptions.len(),
            shared_subscriptions: self
                .subscriptions
                .iter()
                .filter(|listed| listed.share.is_some())
                .count(),
            retained_messages: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            queued_messages: self.sessions.waiting.messages,
            queued_bytes: self.sessions.waiting.bytes,
            inflight_in,
            inflight_out,
        }
    }

    fn all_subscriptions(&self) -> Vec<SubscriptionInfo> {
        self.sessions
            .iter()
            .flat_map(|(_, session)| {
                session
                    .subscriptions
                    .values()
                    .map(|subscribed| SubscriptionInfo {
                        client_id: session.client_id.clone(),
                        filter: subscribed.requested.filter.as_str().into(),
                        share: subscribed
                            .requested
                            .share
                            .as_ref()
                            .map(|share| share.as_str().into()),
                        options: subscribed.requested.options,
                    })
            })
            .collect()
    }
}
