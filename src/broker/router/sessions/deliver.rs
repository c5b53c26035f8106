//! How a message gets into a session: sent now, queued, or dropped with a reason; and how what waits is sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use super::{Sessions, touch};
use crate::broker::config::QueueFull;
use crate::broker::plugin::DropReason;
use crate::broker::router::RouterSettings;
use crate::broker::router::journal::Journal;
use crate::broker::router::link::Link;
use crate::broker::router::publication::Publication;
use crate::broker::router::retained::Retained;
use crate::broker::router::session::{Delivery, Replay, Session, queue_size};
use crate::broker::router::subscriptions::{GroupId, Receiver, SessionSlot};
use crate::proto::flow::outgoing::{Resend, WindowFull};

use crate::proto::{Message, PacketType, QoS, ReasonCode};
use crate::store::{EntryState, MessageId};

/// What became of a message for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker::router) enum Delivered {
    /// Sent or queued.
    Yes,
    /// Not for this session: offline at QoS 0, slow, denied, or too large.
    Dropped,
    /// Its queue is full, and the message is of QoS 1 or 2.
    QueueFull,
}

/// How one receiver gets a message.
struct Terms<'a> {
    qos: QoS,
    retain: bool,
    ids: Option<&'a Arc<[u32]>>,
    group: Option<Member<'a>>,
}

/// The shared subscription that a message comes from.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker::router) struct Member<'a> {
    pub(in crate::broker::router) id: GroupId,
    /// `$share/name/filter`.
    pub(in crate::broker::router) text: &'a ByteString,
}

impl Terms<'_> {
    fn delivery(&self, message: Arc<Message>) -> Delivery {
        Delivery {
            size_bytes: queue_size(&message),
            message: Some(message),
            stored: None,
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.cloned(),
            group: self.group.map(|group| group.id),
        }
    }
}

impl Sessions {
    /// Hands one message to one receiver: into its link when it is online and nothing waits before it, else its queue.
    pub(in crate::broker::router) fn deliver(
        &mut self,
        receiver: &Receiver,
        group: Option<Member<'_>>,
        publication: &mut Publication<'_>,
        now: Instant,
    ) -> Delivered {
        let slot = receiver.slot;
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return Delivered::Dropped;
        };
        let qos = if self.settings.upgrade_outgoing_qos {
            receiver.qos
        } else {
            receiver.qos.min(publication.qos)
        };
        let terms = Terms {
            qos,
            retain: publication.retain && receiver.retain_as_published,
            ids: receiver.ids.as_ref(),
            group,
        };
        let settings = &self.settings;
        if !session.may_receive(publication.topic) {
            let topic = Some(publication.topic);
            self.drops.note(session, topic, DropReason::Denied, now);
            return Delivered::Dropped;
        }
        let Some(link) = session.link.as_mut() else {
            if qos == QoS::AtMostOnce && !settings.queue_qos0_messages {
                return Delivered::Dropped;
            }
            return self.enqueue(slot, &terms, publication, now);
        };
        touch(&mut self.touched, &mut self.spares, link, slot);
        let congested = link.waiting_bytes() > settings.outbox_soft_limit;
        // If not, what is in the way is of this batch and gone after the flush, and nothing else tells.
        let is_behind = link.backlog > settings.outbox_soft_limit || link.is_blocked();
        if qos == QoS::AtMostOnce {
            if congested {
                let topic = Some(publication.topic);
                self.drops
                    .note(session, topic, DropReason::SlowReceiver, now);
                return Delivered::Dropped;
            }
            if !session.queue.is_empty() {
                return self.enqueue(slot, &terms, publication, now);
            }
            if receiver.ids.is_none() && link.takes_frames_as_they_are() {
                let push = |link: &mut Link| publication.push_plain(link, terms.retain, now);
                self.journal.send(link, false, push);
            } else {
                let outbound =
                    publication.outbound(qos, terms.retain, receiver.ids.as_deref().unwrap_or(&[]));
                if !link.fits(&outbound) {
                    let topic = Some(publication.topic);
                    self.drops.note(session, topic, DropReason::TooLarge, now);
                    return Delivered::Dropped;
                }
                let push = |link: &mut Link| link.push_publish(&outbound, None, false, now);
                self.journal.send(link, false, push);
            }
        } else {
            if congested
                || !session.queue.is_empty()
                || !session.has_room(settings.max_inflight_bytes)
            {
                if congested && !is_behind && session.queue.is_empty() {
                    self.unfinished.push(slot);
                }
                self.set_awaits_ack(slot, true);
                return self.enqueue(slot, &terms, publication, now);
            }
            let Some(message) = publication.message() else {
                return Delivered::Dropped;
            };
            let delivery = terms.delivery(message);
            let source = Source {
                message: &mut publication.stored,
                group: group.map(|group| group.text),
            };
            if !send(&mut self.journal, session, delivery, source, now) {
                let topic = Some(publication.topic);
                self.drops.note(session, topic, DropReason::TooLarge, now);
                return Delivered::Dropped;
            }
        }
        self.publish_sent += 1;
        self.publish_bytes_sent += publication.payload.bytes.len() as u64;
        Delivered::Yes
    }

    fn enqueue(
        &mut self,
        slot: SessionSlot,
        terms: &Terms<'_>,
        publication: &mut Publication<'_>,
        now: Instant,
    ) -> Delivered {
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return Delivered::Dropped;
        };
        let Some(message) = publication.message() else {
            return Delivered::Dropped;
        };
        let settings = &self.settings;
        let mut delivery = terms.delivery(message);
        let size = delivery.size();
        while queue_is_full(session, size, settings) {
            let oldest = match settings.queue_full(publication.topic) {
                QueueFull::DropOldest => session.queue.pop_front(),
                QueueFull::DropNew | QueueFull::Reject => None,
            };
            let Some(oldest) = oldest else {
                let topic = Some(publication.topic);
                self.drops.note(session, topic, DropReason::QueueFull, now);
                return match terms.qos {
                    QoS::AtMostOnce => Delivered::Dropped,
                    QoS::AtLeastOnce | QoS::ExactlyOnce => Delivered::QueueFull,
                };
            };
            self.waiting.remove(&oldest);
            self.journal.delete_entry(session.key, &oldest);
            self.drops
                .note_delivery(session, &oldest, DropReason::QueueFull, now);
        }
        // QoS 0 is promised to nobody, and never read back.
        if session.key.is_some() && terms.qos != QoS::AtMostOnce {
            let text = terms.group.map(|group| group.text);
            let id = &mut publication.stored;
            let position = session.take_position();
            let state = EntryState::Waiting;
            let key = session.key;
            self.journal
                .put_entry(key, position, &mut delivery, id, text, state);
            if self.waiting.resident_bytes() + size > self.journal.max_resident_bytes() {
                delivery.message = None;
            }
        }
        self.waiting.add(&delivery);
        session.queue.push_back(delivery);
        Delivered::Yes
    }

    /// Takes out what a session has queued as a member of `group`.
    pub(in crate::broker::router) fn take_queued(
        &mut self,
        slot: SessionSlot,
        group: GroupId,
    ) -> Vec<Delivery> {
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        for delivery in std::mem::take(&mut session.queue).into_deliveries() {
            if delivery.group == Some(group) && delivery.message.is_some() {
                self.waiting.remove(&delivery);
                taken.push(delivery);
            } else {
                session.queue.push_back(delivery);
            }
        }
        taken
    }

    /// Sends what a session has waiting, as far as its window and its socket allow: first what was in flight when its
    /// last connection ended, then the queue, then retained messages. In this order a retained value is never overtaken
    /// by an older one from the queue.
    ///
    /// Source: MQTT 5.0 §4.4 [MQTT-4.4.0-1], §4.6.
    pub(in crate::broker::router) fn pump(
        &mut self,
        slot: SessionSlot,
        retained: &Retained,
        now: Instant,
    ) {
        if !self.journal.is_on() {
            self.send_waiting(slot, retained, now);
            return;
        }
        let session = self.slots.get_mut(slot as usize);
        if session.is_some_and(|session| self.journal.may_go_on(slot, session)) {
            self.send_waiting(slot, retained, now);
            self.note_replay(slot);
        }
        self.read_ahead(slot);
    }

    fn send_waiting(&mut self, slot: SessionSlot, retained: &Retained, now: Instant) {
        let pumped = self.send_what_may_go(slot, retained, now);
        self.set_awaits_ack(slot, pumped == Pumped::AwaitsAck);
    }

    fn send_what_may_go(&mut self, slot: SessionSlot, retained: &Retained, now: Instant) -> Pumped {
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return Pumped::Settled;
        };
        if session.queue.is_empty() && session.replays.is_empty() && !session.outgoing.has_resends()
        {
            return Pumped::Settled;
        }
        let Some(link) = session.link.as_mut() else {
            return Pumped::Settled;
        };
        touch(&mut self.touched, &mut self.spares, link, slot);
        let mut ahead = Ahead::default();
        loop {
            let Some(link) = session.link.as_ref() else {
                return Pumped::Settled;
            };
            if link.waiting_bytes() > self.settings.outbox_soft_limit {
                // A socket that is behind reports when it has caught up; one that is not is tried after the flush.
                if link.backlog <= self.settings.outbox_soft_limit && !link.is_blocked() {
                    self.unfinished.push(slot);
                }
                return Pumped::Settled;
            }
            if session.outgoing.has_resends() {
                if session.flows_away {
                    return Pumped::Settled;
                }
                match resend_one(&mut self.journal, session, now) {
                    None => return Pumped::AwaitsAck,
                    Some(Resent::Pubrel) => self.packets_sent += 1,
                    Some(Resent::Discarded) => {
                        self.drops.note(session, None, DropReason::TooLarge, now);
                    }
                    Some(Resent::Publish(bytes)) => {
                        self.publish_sent += 1;
                        self.publish_bytes_sent += bytes;
                    }
                }
                continue;
            }
            let room = session.has_room(self.settings.max_inflight_bytes);
            let delivery = if let Some(next) = session.queue.front() {
                if next.message.is_none() {
                    return Pumped::Settled;
                }
                if next.qos != QoS::AtMostOnce && !room && !next.expired(now) {
                    return Pumped::AwaitsAck;
                }
                let Some(delivery) = session.queue.pop_front() else {
                    return Pumped::Settled;
                };
                self.waiting.remove(&delivery);
                delivery
            } else if let Some(replay) = session.replays.front_mut() {
                if replay.qos != QoS::AtMostOnce && !room {
                    return Pumped::AwaitsAck;
                }
                let Some(message) = next_retained(replay, retained, &mut ahead) else {
                    if let Some(replay) = session.replays.pop_front() {
                        self.journal.end_replay(session, &replay);
                    }
                    if session.replays.is_empty() {
                        session.replays = VecDeque::new();
                    }
                    continue;
                };
                let topic = message.topic.as_str();
                // Nobody but its owner sees into a response area.
                let owner = self.settings.response_areas.owner(topic);
                if owner.is_some_and(|owner| !owner.is(&session.client_id)) {
                    continue;
                }
                if self.settings.check_retain_source
                    && let Some(publisher) = retained.publisher(topic)
                    && !publisher.may_publish(&self.chains, topic)
                {
                    self.drops
                        .note(session, Some(topic), DropReason::Denied, now);
                    continue;
                }
                replay.delivery(message)
            } else {
                return Pumped::Settled;
            };
            if delivery.expired(now) {
                self.journal.delete_entry(session.key, &delivery);
                self.drops
                    .note_delivery(session, &delivery, DropReason::Expired, now);
                continue;
            }
            let topic = delivery.message.as_ref().map(|one| one.topic.as_str());
            if delivery.retain && !topic.is_some_and(|topic| session.may_receive(topic)) {
                self.journal.delete_entry(session.key, &delivery);
                self.drops
                    .note_delivery(session, &delivery, DropReason::Denied, now);
                continue;
            }
            let bytes = delivery.payload_bytes() as u64;
            let sent = delivery.message.clone();
            let source = Source {
                message: &mut None,
                group: None,
            };
            if send(&mut self.journal, session, delivery, source, now) {
                self.publish_sent += 1;
                self.publish_bytes_sent += bytes;
            } else {
                let topic = sent.as_ref().map(|message| message.topic.as_str());
                self.drops.note(session, topic, DropReason::TooLarge, now);
            }
        }
    }
}

/// What a session's waiting messages wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pumped {
    /// An acknowledgement of its client.
    AwaitsAck,
    /// Nothing waits, or something else than an acknowledgement is told when it can go on.
    Settled,
}

/// Where a message that is sent for the first time comes from, as far as the store must know.
struct Source<'a> {
    /// Its place in the store, once it has one.
    message: &'a mut Option<MessageId>,
    /// The shared subscription.
    group: Option<&'a ByteString>,
}

/// Starts the flow of one message and appends its PUBLISH. `false`: the client takes no packet this large; the message
/// is discarded as if it had been sent. [MQTT-3.1.2-25]
fn send(
    journal: &mut Journal,
    session: &mut Session,
    delivery: Delivery,
    source: Source<'_>,
    now: Instant,
) -> bool {
    let (key, qos, payload_bytes) = (session.key, delivery.qos, delivery.payload_bytes());
    let new_position =
        (key.is_some() && delivery.stored.is_none()).then(|| session.take_position());
    let Session { outgoing, link, .. } = &mut *session;
    let (Some(link), Some(outbound)) = (link.as_mut(), delivery.outbound()) else {
        return false;
    };
    if !link.fits(&outbound) {
        journal.delete_entry(key, &delivery);
        return false;
    }
    if qos == QoS::AtMostOnce {
        let push = |link: &mut Link| link.push_publish(&outbound, None, false, now);
        journal.send(link, false, push);
        journal.delete_entry(key, &delivery);
        return true;
    }
    let id = match outgoing.start(delivery, qos) {
        Ok(id) => id,
        Err(WindowFull(delivery)) => {
            journal.delete_entry(key, &delivery);
            return false;
        }
    };
    let Some(delivery) = outgoing.message_mut(id) else {
        return false;
    };
    let state = EntryState::Sent(id);
    if let Some(position) = new_position {
        let Source { message, group } = source;
        journal.put_entry(key, position, delivery, message, group, state);
    } else {
        journal.update_entry(key, delivery, state);
    }
    if let Some(outbound) = delivery.outbound() {
        let waits = key.is_some() && qos == QoS::ExactlyOnce;
        let push = |link: &mut Link| link.push_publish(&outbound, Some(id), false, now);
        journal.send(link, waits, push);
    }
    session.flow_began(payload_bytes);
    true
}

/// What [`resend_one`] sent: PUBREL, PUBLISH with so many payload bytes, or nothing.
enum Resent {
    Pubrel,
    Publish(u64),
    Discarded,
}

/// Sends the next packet of a flow that was interrupted. `None`: the window has no room for it. A message that is larger
/// than the client takes on its new connection is discarded as if it had been sent. [MQTT-3.1.2-25]
fn resend_one(journal: &mut Journal, session: &mut Session, now: Instant) -> Option<Resent> {
    let key = session.key;
    let Session { outgoing, link, .. } = session;
    let link = link.as_mut()?;
    match outgoing.next_resend()? {
        Resend::Pubrel { id } => {
            // What it says is durable, or waits before it: CONNACK was held after it.
            let push = |link: &mut Link| {
                link.push_ack(PacketType::Pubrel, id, ReasonCode::Success, None);
            };
            journal.answer(link, false, push);
            Some(Resent::Pubrel)
        }
        // A flow that has begun goes on even if its message has expired since.
        Resend::Publish { id, message, .. } => {
            let outbound = message.outbound().filter(|outbound| link.fits(outbound));
            let Some(outbound) = outbound else {
                if let Some(delivery) = outgoing.discard(id) {
                    journal.delete_entry(key, &delivery);
                    session.flow_ended(&delivery);
                }
                return Some(Resent::Discarded);
            };
            let push = |link: &mut Link| link.push_publish(&outbound, Some(id), true, now);
            match outbound.qos {
                QoS::ExactlyOnce if key.is_some() => journal.send_again(link, push),
                _ => journal.send(link, false, push),
            }
            Some(Resent::Publish(message.payload_bytes() as u64))
        }
    }
}

/// Retained messages of the first replay that were looked up together: the search for one costs as much as the next thirty.
/// Only for the length of a pump, so that nothing can be replaced meanwhile.
#[derive(Default)]
struct Ahead {
    messages: VecDeque<Arc<Message>>,
    /// How many were looked up last: few at first, because an acknowledgement makes room for one.
    count: usize,
}

/// The most retained messages that are looked up together.
const MOST_AHEAD: usize = 64;

fn next_retained(
    replay: &mut Replay,
    retained: &Retained,
    ahead: &mut Ahead,
) -> Option<Arc<Message>> {
    if ahead.messages.is_empty() {
        ahead.count = (ahead.count * 2).clamp(1, MOST_AHEAD);
        let found = retained.matching(&replay.filter, replay.after.as_ref());
        ahead.messages.extend(found.take(ahead.count).cloned());
    }
    let message = ahead.messages.pop_front()?;
    replay.after = Some(message.topic.clone());
    replay.moved = true;
    Some(message)
}

pub(super) fn queue_is_full(session: &Session, size: usize, settings: &RouterSettings) -> bool {
    session.queue.len() >= settings.max_queued_messages
        || (session.queue.bytes() + size > settings.max_queued_bytes && !session.queue.is_empty())
}
