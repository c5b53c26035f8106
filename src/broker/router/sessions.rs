//! All sessions, and how a message gets into one of them: sent now, queued, or dropped with a reason.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use slab::Slab;

use super::RouterSettings;
use super::command::{Origin, SessionExpiry};
use super::publication::Publication;
use super::retained::Retained;
use super::session::{Delivery, Link, Replay, Session};
use super::shared::Readiness;
use super::subscriptions::{GroupId, Receiver, SessionSlot};
use crate::broker::auth::AuthChains;
use crate::broker::config::QueueFull;
use crate::broker::metrics::Metrics;
use crate::outbox::OutBuf;
use crate::proto::flow::outgoing::Resend;
use crate::proto::{Message, PacketId, PacketType, QoS, ReasonCode};

/// Empty buffers kept for the next batch.
const SPARE_BUFFERS: usize = 64;
/// A buffer that grew beyond this is given back to the allocator.
const SPARE_BUFFER_BYTES: usize = 256 * 1024;
/// How long a session's dropped messages are summed before they are logged again.
const DROP_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Every session, and the bookkeeping of the current batch.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: Slab<Session>,
    by_client_id: HashMap<ByteString, SessionSlot, foldhash::fast::RandomState>,
    /// Sessions whose link has bytes to hand over at the end of the batch.
    pub(super) touched: Vec<SessionSlot>,
    /// Sessions that have more to send once the socket took what it has.
    pub(super) unfinished: Vec<SessionSlot>,
    /// Sessions with a link.
    pub(super) online: usize,
    /// Messages queued in all sessions.
    pub(super) queued: usize,
    pub(super) queued_bytes: usize,
    /// Sessions that outlive their connection.
    persistent: usize,
    /// Empty buffers for links that have something to send, so that an idle link holds none.
    spares: Vec<OutBuf>,
    pub(super) settings: Box<RouterSettings>,
    /// The rules in force, for publishers of retained messages.
    pub(super) chains: Arc<AuthChains>,
    pub(super) metrics: Arc<Metrics>,
    publish_sent: u64,
    publish_bytes_sent: u64,
    packets_sent: u64,
    bytes_sent: u64,
}

/// What became of a message for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
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
    pub(super) fn new(
        settings: Box<RouterSettings>,
        chains: Arc<AuthChains>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            slots: Slab::new(),
            by_client_id: HashMap::default(),
            touched: Vec::new(),
            unfinished: Vec::new(),
            online: 0,
            queued: 0,
            queued_bytes: 0,
            persistent: 0,
            spares: Vec::new(),
            settings,
            chains,
            metrics,
            publish_sent: 0,
            publish_bytes_sent: 0,
            packets_sent: 0,
            bytes_sent: 0,
        }
    }

    pub(super) fn find(&self, client_id: &str) -> Option<SessionSlot> {
        self.by_client_id.get(client_id).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionSlot, &Session)> {
        self.slots
            .iter()
            .filter_map(|(slot, session)| Some((SessionSlot::try_from(slot).ok()?, session)))
    }

    pub(super) fn for_each(&mut self, change: impl FnMut(&mut Session)) {
        self.slots
            .iter_mut()
            .map(|(_, session)| session)
            .for_each(change);
    }

    pub(super) fn session(&self, slot: SessionSlot) -> Option<&Session> {
        self.slots.get(slot as usize)
    }

    pub(super) fn session_mut(&mut self, slot: SessionSlot) -> Option<&mut Session> {
        self.slots.get_mut(slot as usize)
    }

    /// The session, if this connection still speaks for it.
    pub(super) fn attached(&mut self, origin: Origin) -> Option<&mut Session> {
        self.slots.get_mut(origin.slot as usize).filter(|session| {
            session
                .link
                .as_ref()
                .is_some_and(|link| link.connection == origin.connection)
        })
    }

    pub(super) fn insert(&mut self, session: Session) -> SessionSlot {
        let client_id = session.client_id.clone();
        let slot = SessionSlot::try_from(self.slots.insert(session)).unwrap_or(SessionSlot::MAX);
        self.by_client_id.insert(client_id, slot);
        slot
    }

    /// Takes a session out. Its subscriptions are the caller's to remove.
    pub(super) fn remove(&mut self, slot: SessionSlot) -> Option<Session> {
        let session = self.slots.try_remove(slot as usize)?;
        self.by_client_id.remove(&session.client_id);
        self.queued = self.queued.saturating_sub(session.queue.len());
        self.queued_bytes = self.queued_bytes.saturating_sub(session.queue_bytes);
        self.online -= usize::from(session.link.is_some());
        self.persistent -= usize::from(session.is_persistent());
        Some(session)
    }

    /// Sessions that outlive their connection.
    pub(super) fn persistent(&self) -> usize {
        self.persistent
    }

    /// Sets how long a session outlives its connection.
    pub(super) fn set_expiry(&mut self, slot: SessionSlot, expiry: SessionExpiry) {
        let Some(session) = self.slots.get_mut(slot as usize) else {
            return;
        };
        self.persistent -= usize::from(session.is_persistent());
        session.expiry = expiry;
        self.persistent += usize::from(session.is_persistent());
    }

    /// How soon a message of this QoS would leave for a session.
    pub(super) fn readiness(&self, slot: SessionSlot, qos: QoS) -> Readiness {
        let Some(session) = self.slots.get(slot as usize) else {
            return Readiness::Never;
        };
        match &session.link {
            None if qos == QoS::AtMostOnce && !self.settings.queue_qos0_messages => {
                Readiness::Never
            }
            None if queue_is_full(session, 0, &self.settings) => Readiness::Never,
            None => Readiness::Offline,
            Some(link) => {
                let backlog = if link.touched {
                    link.waiting_bytes()
                } else {
                    link.outbox.backlog()
                };
                let free = backlog <= self.settings.outbox_soft_limit && session.queue.is_empty();
                if free
                    && (qos == QoS::AtMostOnce
                        || session.has_room(self.settings.max_inflight_bytes))
                {
                    Readiness::Now
                } else {
                    Readiness::Busy
                }
            }
        }
    }

    /// Takes a link's bytes back after they were handed over.
    pub(super) fn give_back(&mut self, buffer: OutBuf) {
        let worth_keeping = (1..=SPARE_BUFFER_BYTES).contains(&buffer.capacity());
        if worth_keeping && self.spares.len() < SPARE_BUFFERS {
            self.spares.push(buffer);
        }
    }

    /// The link of a session, noted for the flush at the end of the batch.
    pub(super) fn touch(&mut self, slot: SessionSlot) -> Option<&mut Link> {
        let link = self.slots.get_mut(slot as usize)?.link.as_mut()?;
        touch(&mut self.touched, &mut self.spares, link, slot);
        Some(link)
    }

    /// Appends an acknowledgement for the session's client.
    pub(super) fn acknowledge(
        &mut self,
        slot: SessionSlot,
        kind: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
        text: Option<&'static str>,
    ) {
        self.packets_sent += 1;
        if let Some(link) = self.touch(slot) {
            link.push_ack(kind, packet_id, reason, text);
        }
    }

    /// Counts bytes that go to an outbox.
    pub(super) fn count_bytes_sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
    }

    /// Counts packets that were appended without [`acknowledge`](Self::acknowledge) or a delivery.
    pub(super) fn count_packets_sent(&mut self, packets: u64) {
        self.packets_sent += packets;
    }

    /// Hands one message to one receiver: into its link when it is online and nothing waits before it, else its queue.
    pub(super) fn deliver(
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
    pub(super) fn take_queued(&mut self, slot: SessionSlot, group: GroupId) -> Vec<Delivery> {
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
    pub(super) fn pump(&mut self, slot: SessionSlot, retained: &Retained, now: Instant) {
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
                match next_retained(replay, retained) {
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

    /// Writes the counts of this batch where others can read them.
    pub(super) fn publish_counts(&mut self) {
        if self.publish_sent > 0 || self.packets_sent > 0 {
            self.metrics.publish_sent.add(self.publish_sent);
            self.metrics.publish_bytes_sent.add(self.publish_bytes_sent);
            self.metrics
                .messages_sent
                .add(self.publish_sent + self.packets_sent);
            self.publish_sent = 0;
            self.publish_bytes_sent = 0;
            self.packets_sent = 0;
        }
        if self.bytes_sent > 0 {
            self.metrics
                .bytes_sent
                .add(std::mem::take(&mut self.bytes_sent));
        }
    }
}

fn touch(
    touched: &mut Vec<SessionSlot>,
    spares: &mut Vec<OutBuf>,
    link: &mut Link,
    slot: SessionSlot,
) {
    if !link.touched {
        link.touched = true;
        if link.pending.is_empty() {
            link.pending = spares.pop().unwrap_or_default();
        }
        link.backlog = link.outbox.backlog();
        touched.push(slot);
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

fn queue_is_full(session: &Session, size: usize, settings: &RouterSettings) -> bool {
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
