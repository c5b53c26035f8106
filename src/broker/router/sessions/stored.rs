//! Messages that are in the store alone: read when their turn comes.

use std::collections::HashMap;
use std::time::Instant;

use super::Sessions;
use crate::broker::plugin::DropReason;
use crate::broker::router::session::Delivery;
use crate::broker::router::subscriptions::SessionSlot;
use crate::store::{MessageId, MessageRecord, SessionKey};

/// Messages at the front of a queue that are to be here before they are needed.
const READ_AHEAD: usize = 64;
/// Messages of a queue that are read at once, and their bytes.
const READ_MESSAGES: usize = 512;
const READ_BYTES: usize = 1024 * 1024;

/// Who asked the store for messages.
#[derive(Debug)]
pub(in crate::broker::router) enum Waiter {
    /// A session, for its client.
    Session(SessionSlot),
    /// What a session left to the other members of shared subscriptions. It stays in the store under the session's key
    /// until somebody has it.
    Heirs(SessionKey, Vec<Delivery>),
}

impl Sessions {
    /// Asks for what a session will soon send, or waits for.
    pub(super) fn read_ahead(&mut self, slot: SessionSlot) {
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return;
        };
        if session.key.is_none() || session.link.is_none() || session.loading.is_some() {
            return;
        }
        let ids: Vec<MessageId> = if session.flows_away {
            let flows = session.outgoing.inflight();
            flows.filter_map(|flow| flow.message.away()).collect()
        } else {
            let soon = READ_AHEAD.min(session.queue.len().saturating_sub(1));
            let is_away = |delivery: &Delivery| delivery.away().is_some();
            if !session.queue.front().is_some_and(is_away)
                && !session.queue.get(soon).is_some_and(is_away)
            {
                return;
            }
            let mut bytes = 0;
            let queue = session.queue.first(READ_MESSAGES);
            queue
                .take_while(|delivery| {
                    let before = bytes;
                    bytes += delivery.size();
                    before < READ_BYTES
                })
                .filter_map(|delivery| delivery.away())
                .collect()
        };
        session.flows_away &= !ids.is_empty();
        if !ids.is_empty() {
            session.loading = self.journal.read(Waiter::Session(slot), ids);
        }
    }

    /// Puts messages that the store had into the session that asked for them. `false`: it is not waiting any more.
    pub(in crate::broker::router) fn put_loaded(
        &mut self,
        slot: SessionSlot,
        token: u64,
        read: Vec<(MessageId, Option<MessageRecord>)>,
        now: Instant,
    ) -> bool {
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return false;
        };
        if session.loading != Some(token) {
            return false;
        }
        session.loading = None;
        let clock = *self.journal.clock();
        let read: HashMap<_, _> = read
            .into_iter()
            .map(|(id, record)| (id, record.map(|record| clock.message(record))))
            .collect();
        let message = |delivery: &Delivery| read.get(&delivery.away()?).cloned().flatten();
        if std::mem::take(&mut session.flows_away) {
            let ids: Vec<_> = session.outgoing.inflight().map(|flow| flow.id).collect();
            let mut bytes = 0;
            for id in ids {
                if let Some(delivery) = session.outgoing.message_mut(id)
                    && let Some(message) = message(delivery)
                {
                    bytes += message.payload.len();
                    delivery.message = Some(message);
                }
            }
            session.flow_began(bytes);
            return true;
        }
        for delivery in session.queue.first(2 * READ_MESSAGES) {
            if let Some(message) = message(delivery) {
                self.waiting.came(delivery);
                delivery.message = Some(message);
            }
        }
        // What was asked for and is not here is in the store no more: it can never be sent.
        let is_lost = |front: &Delivery| front.away().is_some_and(|id| read.contains_key(&id));
        while session.queue.front().is_some_and(is_lost)
            && let Some(lost) = session.queue.pop_front()
        {
            self.waiting.remove(&lost);
            self.journal.delete_entry(session.key, &lost);
            self.drops
                .note_delivery(session, &lost, DropReason::Lost, now);
        }
        true
    }

    /// Notes how far the retained messages for a new subscription have been sent, so that a restart goes on from there.
    pub(super) fn note_replay(&mut self, slot: SessionSlot) {
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let (Some(_), Some(replay)) = (session.key, session.replays.front_mut()) else {
            return;
        };
        if std::mem::take(&mut replay.moved)
            && let Some(subscribed) = session.subscriptions.get(&replay.text)
        {
            let text = &replay.text;
            self.journal
                .put_subscription(session.key, text, subscribed, Some(replay));
        }
    }
}
