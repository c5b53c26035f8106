//! All sessions, and the bookkeeping of a batch.

mod deliver;
mod drops;
mod full;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;
use slab::Slab;

use super::RouterSettings;
use super::command::{Origin, SessionExpiry};
use super::journal::{Journal, Mark};
use super::link::Link;
use super::session::{Delivery, Session};
use super::shared::Readiness;
use super::subscriptions::SessionSlot;
use crate::broker::auth::AuthChains;
use crate::broker::metrics::Metrics;
use crate::broker::plugin::PluginHost;
use crate::broker::response_area::AreaOwner;
use crate::outbox::OutBuf;
use crate::proto::{PacketId, PacketType, QoS, ReasonCode};
use crate::store::Position;
use deliver::queue_is_full;
pub(super) use deliver::{Delivered, Member};
pub(super) use drops::DropLog;
use drops::Drops;
pub(super) use stored::Waiter;

/// Bytes in empty buffers kept for the next batch.
const SPARE_BYTES: usize = 8 * 1024 * 1024;
/// A buffer that grew beyond this is given back to the allocator.
const SPARE_BUFFER_BYTES: usize = 1024 * 1024;

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
    /// How many sessions have something to send that only an acknowledgement lets go.
    awaiting_acks: usize,
    /// What is queued in all sessions.
    pub(super) waiting: Waiting,
    /// What is to be stored.
    pub(super) journal: Journal,
    /// Sessions that outlive their connection.
    persistent: usize,
    /// Empty buffers for links that have something to send, so that an idle link holds none.
    spares: SpareBuffers,
    pub(super) settings: Box<RouterSettings>,
    /// The rules in force, for publishers of retained messages.
    pub(super) chains: Arc<AuthChains>,
    pub(super) metrics: Arc<Metrics>,
    drops: Drops,
    publish_sent: u64,
    publish_bytes_sent: u64,
    packets_sent: u64,
    bytes_sent: u64,
}

impl Sessions {
    pub(super) fn new(
        settings: Box<RouterSettings>,
        chains: Arc<AuthChains>,
        metrics: Arc<Metrics>,
        plugins: Arc<PluginHost>,
        now: Instant,
    ) -> Self {
        Self {
            slots: Slab::new(),
            by_client_id: HashMap::default(),
            touched: Vec::new(),
            unfinished: Vec::new(),
            online: 0,
            awaiting_acks: 0,
            waiting: Waiting::default(),
            journal: Journal::off(now),
            persistent: 0,
            spares: SpareBuffers::default(),
            settings,
            chains,
            drops: Drops::new(Arc::clone(&metrics), plugins),
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

    /// Whether the response area is that of this session's client.
    pub(super) fn is_owner(&self, slot: SessionSlot, owner: AreaOwner<'_>) -> bool {
        self.session(slot)
            .is_some_and(|session| owner.is(&session.client_id))
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

    /// A session, and the journal of what changes in it.
    pub(super) fn with_journal(
        &mut self,
        slot: SessionSlot,
    ) -> Option<(&mut Session, &mut Journal)> {
        let session = self.slots.get_mut(slot as usize)?;
        Some((session, &mut self.journal))
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

    /// Takes a session's link away. What was in flight waits to be sent again.
    pub(super) fn unlink(&mut self, slot: SessionSlot) -> Option<Box<Link>> {
        let link = self.slots.get_mut(slot as usize)?.unlink()?;
        self.online -= 1;
        self.set_awaits_ack(slot, false);
        Some(link)
    }

    /// Notes whether a session has something to send that only an acknowledgement lets go.
    fn set_awaits_ack(&mut self, slot: SessionSlot, awaits_ack: bool) {
        if !awaits_ack && self.awaiting_acks == 0 {
            return;
        }
        if let Some(session) = self.slots.get_mut(slot as usize)
            && session.awaits_ack != awaits_ack
        {
            session.awaits_ack = awaits_ack;
            if awaits_ack {
                self.awaiting_acks += 1;
            } else {
                self.awaiting_acks -= 1;
            }
        }
    }

    /// Puts a message that was stored at the end of its session's queue.
    pub(super) fn restore_queued(
        &mut self,
        slot: SessionSlot,
        delivery: Delivery,
        position: Position,
    ) {
        if let Some(session) = self.slots.get_mut(slot as usize) {
            session.note_position(position);
            self.waiting.add(&delivery);
            session.queue.push_back(delivery);
        }
    }

    /// Takes a session out. Its subscriptions are the caller's to remove.
    pub(super) fn remove(&mut self, slot: SessionSlot) -> Option<Session> {
        let session = self.slots.try_remove(slot as usize)?;
        // At a restart a newer session of the client may have its place already.
        if self.by_client_id.get(&session.client_id) == Some(&slot) {
            self.by_client_id.remove(&session.client_id);
        }
        let waiting = &mut self.waiting;
        session
            .queue
            .look_at_all(|delivery| waiting.remove(delivery));
        self.online -= usize::from(session.link.is_some());
        self.awaiting_acks -= usize::from(session.awaits_ack);
        self.persistent -= usize::from(session.is_persistent());
        Some(session)
    }

    /// Whether an acknowledgement may let something go that waits.
    pub(super) fn awaits_acks(&self) -> bool {
        self.awaiting_acks > 0
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
            _ if self.would_wait(session, qos) && queue_is_full(session, 0, &self.settings) => {
                match qos {
                    QoS::AtMostOnce => Readiness::Never,
                    QoS::AtLeastOnce | QoS::ExactlyOnce => Readiness::Full,
                }
            }
            None => Readiness::Offline,
            Some(_) if self.would_wait(session, qos) => Readiness::Busy,
            Some(_) => Readiness::Now,
        }
    }

    /// Takes a link's bytes back after they were handed over.
    pub(super) fn give_back(&mut self, buffer: OutBuf) {
        self.spares.give(buffer);
    }

    /// The link of a session, noted for the flush at the end of the batch.
    pub(super) fn touch(&mut self, slot: SessionSlot) -> Option<&mut Link> {
        let link = self.slots.get_mut(slot as usize)?.link.as_mut()?;
        touch(&mut self.touched, &mut self.spares, link, slot);
        Some(link)
    }

    /// Appends an acknowledgement for the session's client. It waits for what was changed since `since`.
    pub(super) fn acknowledge(
        &mut self,
        slot: SessionSlot,
        kind: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
        text: Option<&'static str>,
        since: Mark,
    ) {
        self.packets_sent += 1;
        let waits = self.journal.changed_since(since);
        let Some(link) = self
            .slots
            .get_mut(slot as usize)
            .and_then(|session| session.link.as_mut())
        else {
            return;
        };
        touch(&mut self.touched, &mut self.spares, link, slot);
        self.journal.answer(link, waits, |link| {
            link.push_ack(kind, packet_id, reason, text)
        });
    }

    /// Appends an answer that everything on the link comes after: what follows from it, too.
    pub(super) fn answer_first(
        &mut self,
        slot: SessionSlot,
        since: Mark,
        push: impl FnOnce(&mut Link),
    ) {
        self.packets_sent += 1;
        let waits = self.journal.changed_since(since);
        let Some(link) = self
            .slots
            .get_mut(slot as usize)
            .and_then(|session| session.link.as_mut())
        else {
            return;
        };
        touch(&mut self.touched, &mut self.spares, link, slot);
        self.journal.answer_first(link, waits, push);
    }

    /// Counts bytes that go to an outbox.
    pub(super) fn count_bytes_sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
    }

    /// Counts packets that were appended without [`acknowledge`](Self::acknowledge) or a delivery.
    pub(super) fn count_packets_sent(&mut self, packets: u64) {
        self.packets_sent += packets;
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

/// The messages queued in all sessions.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) messages: usize,
    /// Counted once per session.
    pub(super) bytes: usize,
    /// What the messages take that are here, and not in the store alone.
    resident_bytes: usize,
}

impl Waiting {
    pub(super) fn add(&mut self, delivery: &Delivery) {
        self.messages += 1;
        self.bytes += delivery.size();
        if delivery.message.is_some() {
            self.came(delivery);
        }
    }

    pub(super) fn remove(&mut self, delivery: &Delivery) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(delivery.size());
        if delivery.message.is_some() {
            let bytes = resident_size(delivery);
            self.resident_bytes = self.resident_bytes.saturating_sub(bytes);
        }
    }

    /// A message that was in the store alone is here.
    fn came(&mut self, delivery: &Delivery) {
        self.resident_bytes += resident_size(delivery);
    }

    /// The bytes that are in memory.
    fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }
}

/// What a queued message takes of the memory. Shared by several sessions, it is counted for each.
fn resident_size(delivery: &Delivery) -> usize {
    delivery.size() + ALLOCATION_BYTES
}

/// What the allocator and the counts of references add to a message: four allocations, their lengths rounded up.
const ALLOCATION_BYTES: usize = 128;

/// Empty buffers, bounded in bytes: a message to many receivers takes one for each.
#[derive(Debug, Default)]
struct SpareBuffers {
    buffers: Vec<OutBuf>,
    /// Their capacity.
    bytes: usize,
}

impl SpareBuffers {
    fn give(&mut self, buffer: OutBuf) {
        let size = buffer.capacity();
        if (1..=SPARE_BUFFER_BYTES).contains(&size) && self.bytes + size <= SPARE_BYTES {
            self.bytes += size;
            self.buffers.push(buffer);
        }
    }

    fn take(&mut self) -> OutBuf {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }
}

fn touch(
    touched: &mut Vec<SessionSlot>,
    spares: &mut SpareBuffers,
    link: &mut Link,
    slot: SessionSlot,
) {
    if !link.touched {
        link.touched = true;
        if link.pending.is_empty() {
            link.pending = spares.take();
        }
        link.backlog = link.outbox.backlog();
        touched.push(slot);
    }
}
