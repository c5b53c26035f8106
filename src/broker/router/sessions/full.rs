//! Whether a message would find a session's queue full.

use std::time::Instant;

use super::{Sessions, queue_is_full};
use crate::broker::plugin::DropReason;
use crate::broker::router::session::Session;
use crate::broker::router::subscriptions::SessionSlot;
use crate::proto::{Message, QoS};

impl Sessions {
    /// A message of this QoS could not be sent at once.
    pub(super) fn would_wait(&self, session: &Session, qos: QoS) -> bool {
        let Some(link) = &session.link else {
            return true;
        };
        link.waiting_now() > self.settings.outbox_soft_limit
            || !session.queue.is_empty()
            || (qos != QoS::AtMostOnce && !session.has_room(self.settings.max_inflight_bytes))
    }

    /// The session is to have `message` at QoS 1 or 2, and its queue has no room. `granted`: the QoS of its subscription.
    pub(in crate::broker::router) fn has_no_room_for(
        &self,
        slot: SessionSlot,
        granted: QoS,
        message: &Message,
    ) -> bool {
        let Some(session) = self.session(slot) else {
            return false;
        };
        let qos = if self.settings.upgrade_outgoing_qos {
            granted
        } else {
            granted.min(message.qos)
        };
        qos != QoS::AtMostOnce
            && self.would_wait(session, qos)
            && queue_is_full(session, message.size_bytes(), &self.settings)
            && session.may_receive(message.topic.as_str())
    }

    /// A message is refused because this session's queue is full.
    pub(in crate::broker::router) fn note_refused(
        &mut self,
        slot: SessionSlot,
        topic: &str,
        now: Instant,
    ) {
        if let Some(session) = self.slots.get_mut(slot as usize) {
            self.drops
                .note(session, Some(topic), DropReason::QueueFull, now);
        }
    }
}
