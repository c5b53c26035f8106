//! How a message gets into a session: sent now, queued, or dropped with a reason; and how what waits is sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Sessions, touch};
use crate::broker::config::QueueFull;
use crate::broker::router::RouterSettings;
use crate::broker::router::publication::Publication;
use crate::broker::router::retained::Retained;
use crate::broker::router::session::{Delivery, Replay, Session};
use crate::broker::router::subscriptions::{GroupId, Receiver, SessionSlot};
use crate::proto::flow::outgoing::Resend;
use crate::proto::{Message, PacketType, QoS, ReasonCode};

/// What became of a message for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker::router) enum Delivered {
    /// Sent or queued.
    Yes,
    /// Not for this session: offline at QoS 0, slow, denied, or too large.
    Dropped,
    /// Its queue is full.
    QueueFull,
}

/// How one receiver gets a message.
struct Terms<'a> {
    qos: QoS,
    retain: bool,
    ids: Option<&'a Arc<[u32]>>,
    group: Option<GroupId>,
}

impl Terms<'_> {
    fn delivery(&self, message: Arc<Message>) -> Delivery {
        Delivery {
            message,
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.cloned(),
            group: self.group,
        }
    }
}

impl Sessions {
    /// Hands one message to one receiver: into its link when it is online and nothing waits before it, else its queue.
    pub(in crate::broker::router) fn deliver(
        &mut self,
        receiver: &Receiver,
        group: Option<GroupId>,
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
            self.metrics.dropped_denied.increment();
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
        if qos == QoS::AtMostOnce {
            if congested {
                self.metrics.dropped_slow_receiver.increment();
                return Delivered::Dropped;
            }
            if !session.queue.is_empty() {
                return self.enqueue(slot, &terms, publication, now);
            }
            if receiver.ids.is_none() && link.takes_frames_as_they_are() {
                publication.push_plain(link, terms.retain, now);
            } else {
                let outbound =
                    publication.outbound(qos, terms.retain, receiver.ids.as_deref().unwrap_or(&[]));
                if !link.fits(&outbound) {
                    self.metrics.dropped_too_large.increment();
                    return Delivered::Dropped;
                }
                link.push_publish(&outbound, None, false, now);
            }
        } else {
            if congested
                || !session.queue.is_empty()
                || !session.has_room(settings.max_inflight_bytes)
            {
                return self.enqueue(slot, &terms, publication, now);
            }
            let Some(message) = publication.message() else {
                return Delivered::Dropped;
            };
            if !send(session, terms.delivery(message), now) {
                self.metrics.dropped_too_large.increment();
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
        let size = message.size_bytes();
        let mut dropped = 0;
        while queue_is_full(session, size, settings) {
            let oldest = match settings.queue_full {
                QueueFull::DropOldest => session.pop_queue(),
                QueueFull::DropNew | QueueFull::Reject => None,
            };
            dropped += 1;
            let Some(oldest) = oldest else { break };
            self.queued -= 1;
            self.queued_bytes = self
                .queued_bytes
                .saturating_sub(oldest.message.size_bytes());
        }
        if dropped > 0 {
            self.metrics.dropped_queue_full.add(dropped);
            log_dropped(session, dropped, now);
        }
        if queue_is_full(session, size, settings) {
            return Delivered::QueueFull;
        }
        self.queued += 1;
        self.queued_bytes += size;
        session.push_queue(terms.delivery(message));
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
        let (taken, rest) = std::mem::take(&mut session.queue)
            .into_iter()
            .partition::<VecDeque<_>, _>(|delivery| delivery.group == Some(group));
        session.queue = rest;
        let bytes = taken.iter().map(|one| one.message.size_bytes()).sum();
        session.queue_bytes = session.queue_bytes.saturating_sub(bytes);
        self.queued -= taken.len();
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        taken.into()
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
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return;
        };
        if session.queue.is_empty() && session.replays.is_empty() && !session.outgoing.has_resends()
        {
            return;
        }
        let Some(link) = session.link.as_mut() else {
            return;
        };
        touch(&mut self.touched, &mut self.spares, link, slot);
        loop {
            let Some(link) = session.link.as_ref() else {
                return;
            };
            if link.waiting_bytes() > self.settings.outbox_soft_limit {
                // A socket that is behind reports when it has caught up; one that is not is tried after the flush.
                if link.backlog <= self.settings.outbox_soft_limit {
                    self.unfinished.push(slot);
                }
                return;
            }
            if session.outgoing.has_resends() {
                match resend_one(session, now) {
                    None => return,
                    Some(Resent::Pubrel) => self.packets_sent += 1,
                    Some(Resent::Discarded) => self.metrics.dropped_too_large.increment(),
                    Some(Resent::Publish(bytes)) => {
                        self.publish_sent += 1;
                        self.publish_bytes_sent += bytes;
                    }
                }
                continue;
            }
            let room = session.has_room(self.settings.max_inflight_bytes);
            let delivery = if let Some(next) = session.queue.front() {
                if next.qos != QoS::AtMostOnce && !room && !next.message.expired(now) {
                    return;
                }
                let Some(delivery) = session.pop_queue() else {
                    return;
                };
                self.queued -= 1;
                self.queued_bytes = self
                    .queued_bytes
                    .saturating_sub(delivery.message.size_bytes());
                delivery
            } else if let Some(replay) = session.replays.front_mut() {
                if replay.qos != QoS::AtMostOnce && !room {
                    return;
                }
                let areas = &self.settings.response_areas;
                match next_retained(replay, retained) {
                    // Nobody but its owner sees into a response area.
                    Some(delivery)
                        if areas
                            .owner(delivery.message.topic.as_str())
                            .is_some_and(|owner| !owner.is(&session.client_id)) =>
                    {
                        continue;
                    }
                    Some(delivery) if !self.settings.check_retain_source => delivery,
                    Some(delivery) => {
                        let topic = delivery.message.topic.as_str();
                        let publisher = retained.publisher(topic);
                        if publisher.is_some_and(|one| !one.may_publish(&self.chains, topic)) {
                            self.metrics.dropped_denied.increment();
                            continue;
                        }
                        delivery
                    }
                    None => {
                        session.replays.pop_front();
                        if session.replays.is_empty() {
                            session.replays = VecDeque::new();
                        }
                        continue;
                    }
                }
            } else {
                return;
            };
            if delivery.message.expired(now) {
                self.metrics.dropped_expired.increment();
                continue;
            }
            if delivery.retain && !session.may_receive(delivery.message.topic.as_str()) {
                self.metrics.dropped_denied.increment();
                continue;
            }
            let bytes = delivery.message.payload.len() as u64;
            if send(session, delivery, now) {
                self.publish_sent += 1;
                self.publish_bytes_sent += bytes;
            } else {
                self.metrics.dropped_too_large.increment();
            }
        }
    }
}

/// Starts the flow of one message and appends its PUBLISH. `false`: the client takes no packet this large; the message
/// is discarded as if it had been sent. [MQTT-3.1.2-25]
fn send(session: &mut Session, delivery: Delivery, now: Instant) -> bool {
    let payload_bytes = delivery.message.payload.len();
    let Session { outgoing, link, .. } = session;
    let Some(link) = link.as_mut() else {
        return false;
    };
    let outbound = delivery.outbound();
    if !link.fits(&outbound) {
        return false;
    }
    if delivery.qos == QoS::AtMostOnce {
        link.push_publish(&outbound, None, false, now);
        return true;
    }
    let qos = delivery.qos;
    let Ok(id) = outgoing.start(delivery, qos) else {
        return false;
    };
    if let Some(delivery) = outgoing.message(id) {
        link.push_publish(&delivery.outbound(), Some(id), false, now);
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
fn resend_one(session: &mut Session, now: Instant) -> Option<Resent> {
    let Session { outgoing, link, .. } = session;
    let link = link.as_mut()?;
    match outgoing.next_resend()? {
        Resend::Publish { id, message, .. } if !link.fits(&message.outbound()) => {
            if let Some(delivery) = outgoing.discard(id) {
                session.flow_ended(&delivery);
            }
            Some(Resent::Discarded)
        }
        Resend::Pubrel { id } => {
            link.push_ack(PacketType::Pubrel, id, ReasonCode::Success, None);
            Some(Resent::Pubrel)
        }
        // A flow that has begun goes on even if its message has expired since.
        Resend::Publish { id, message, .. } => {
            link.push_publish(&message.outbound(), Some(id), true, now);
            Some(Resent::Publish(message.message.payload.len() as u64))
        }
    }
}

fn next_retained(replay: &mut Replay, retained: &Retained) -> Option<Delivery> {
    let message = retained.next(&replay.filter, replay.after.as_ref())?;
    replay.after = Some(message.topic.clone());
    let qos = replay.qos.min(message.qos);
    let ids = replay.id.map(|id| Arc::from([id]));
    Some(Delivery {
        message,
        qos,
        retain: true,
        ids,
        group: None,
    })
}

pub(super) fn queue_is_full(session: &Session, size: usize, settings: &RouterSettings) -> bool {
    session.queue.len() >= settings.max_queued_messages
        || (session.queue_bytes + size > settings.max_queued_bytes && !session.queue.is_empty())
}

fn log_dropped(session: &mut Session, dropped: u64, now: Instant) {
    session.dropped += dropped;
    if session
        .drop_logged_at
        .is_some_and(|at| now.saturating_duration_since(at) < DROP_LOG_INTERVAL)
    {
        return;
    }
    log::warn!(
        "{} queue full: {} messages dropped ({} waiting)",
        session.client_id.escape_debug(),
        session.dropped,
        session.queue.len()
    );
    session.dropped = 0;
    session.drop_logged_at = Some(now);
}

/// How long a session's dropped messages are summed before they are logged again.
const DROP_LOG_INTERVAL: Duration = Duration::from_secs(60);
