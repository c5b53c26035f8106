//! What a session changes of what outlives the program, to be written by the [store](super::super::store).

use std::collections::{HashMap, HashSet};
use std::mem;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::{Publication, Session};
use crate::proto::flow::outgoing::Inflight;
use crate::proto::{Message, PacketId, QoS, TopicName};
use crate::store::{
    Change, EntryRecord, EntryState, MessageId, MessageRecord, Position, SessionKey,
};

/// Where each flow of the session has its place in the store, and what changed since the last commit.
///
/// A message and its entry have the same number. They are looked up by Packet Identifier, of which a flow has its own.
#[derive(Debug)]
pub(crate) struct Journal {
    key: SessionKey,
    next: NonZeroU64,
    flows: HashMap<PacketId, Place>,
    /// QoS 2 identifiers of the server whose PUBREL has not come.
    incoming: HashSet<PacketId>,
    changes: Vec<Change>,
    holds: bool,
}

/// A flow in the store.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: NonZeroU64,
    /// PUBREC came: the message itself is not stored any more.
    released: bool,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) changes: Vec<Change>,
    /// What leaves now or later must wait until this is written.
    pub(crate) holds: bool,
}

impl Journal {
    /// Of a session without flows. `next` is above every number in the store.
    pub(crate) fn new(key: SessionKey, next: NonZeroU64) -> Self {
        Self {
            key,
            next,
            flows: HashMap::new(),
            incoming: HashSet::new(),
            changes: Vec::new(),
            holds: false,
        }
    }

    /// A flow that was read back.
    pub(crate) fn restore(&mut self, number: NonZeroU64, id: PacketId, released: bool) {
        self.next = self.next.max(number.saturating_add(1));
        self.flows.insert(id, Place { number, released });
    }

    /// An identifier that was read back.
    pub(crate) fn restore_incoming(&mut self, id: PacketId) {
        self.incoming.insert(id);
    }

    /// A message is about to be sent under this identifier. At QoS 2 it waits for the store: sent again under another
    /// identifier it would be another message.
    pub(super) fn start(&mut self, id: PacketId, publication: &Publication) {
        let Ok(topic) = TopicName::parse(publication.topic.clone()) else {
            return; // it was checked when it was published
        };
        let number = self.next;
        self.next = number.saturating_add(1);
        let message = MessageId(number);
        let record = MessageRecord {
            message: Arc::new(Message {
                qos: publication.qos,
                retain: publication.retain,
                properties: publication.properties.clone(),
                ..Message::new(topic, publication.payload.clone())
            }),
            expires_at: publication.expires_at,
        };
        let size = publication.topic.len() + publication.payload.len();
        let entry = EntryRecord {
            message: Some(message),
            size_bytes: u32::try_from(size).unwrap_or(u32::MAX),
            qos: publication.qos,
            retain: publication.retain,
            ids: None,
            group: None,
            state: EntryState::Sent(id),
        };
        self.changes.push(Change::PutMessage(message, record));
        let position = Position(number.get());
        self.changes
            .push(Change::PutEntry(self.key, position, entry));
        let released = false;
        self.flows.insert(id, Place { number, released });
        self.holds |= publication.qos == QoS::ExactlyOnce;
    }

    /// PUBREC came. PUBREL waits for the store: a second PUBLISH after it would be another message.
    pub(super) fn release(&mut self, id: PacketId) {
        let Some(place) = self.flows.get_mut(&id) else {
            return;
        };
        if mem::replace(&mut place.released, true) {
            return;
        }
        let number = place.number;
        let position = Position(number.get());
        let released = EntryState::Released(id);
        self.changes
            .push(Change::UpdateEntry(self.key, position, released));
        self.changes.push(Change::DeleteMessage(MessageId(number)));
        self.holds = true;
    }

    /// The flow is over. Nothing waits for that: what uses the identifier again is written later.
    pub(super) fn end(&mut self, id: PacketId) {
        let Some(Place { number, released }) = self.flows.remove(&id) else {
            return;
        };
        let position = Position(number.get());
        self.changes.push(Change::DeleteEntry(self.key, position));
        if !released {
            self.changes.push(Change::DeleteMessage(MessageId(number)));
        }
    }

    /// The program has a QoS 2 message. PUBREC waits for the store: the server may send the message again until then,
    /// and not after it.
    pub(super) fn receive(&mut self, id: PacketId) {
        if self.incoming.insert(id) {
            self.changes.push(Change::PutIncoming(self.key, id));
            self.holds = true;
        }
    }

    /// PUBREL came. PUBCOMP waits for the store: the server uses the identifier for another message after it.
    pub(super) fn forget(&mut self, id: PacketId) {
        if self.incoming.remove(&id) {
            self.changes.push(Change::DeleteIncoming(self.key, id));
            self.holds = true;
        }
    }

    /// The server has no session, and begins to count anew. Nothing leaves before that is written: the server sends
    /// nothing before it is asked to.
    pub(super) fn forget_all(&mut self) {
        for id in mem::take(&mut self.incoming) {
            self.changes.push(Change::DeleteIncoming(self.key, id));
            self.holds = true;
        }
    }

    fn take(&mut self) -> Changes {
        Changes {
            changes: mem::take(&mut self.changes),
            holds: mem::take(&mut self.holds),
        }
    }
}

impl Session {
    /// Goes on with what was read back, in the order in which it was sent first, and has its changes written from now
    /// on. Only before the first connection.
    pub(crate) fn restore(&mut self, journal: Journal, flows: Vec<Inflight<Arc<Publication>>>) {
        for id in &journal.incoming {
            self.incoming.restore(*id);
        }
        for flow in flows {
            let exact = flow.qos == QoS::ExactlyOnce;
            // An identifier is stored for one flow at a time.
            if self.outgoing.restore(flow).is_ok() && exact {
                self.exact = self.exact.saturating_add(1);
            }
        }
        self.journal = Some(Box::new(journal));
    }

    /// What happened since the last call of [`take_changes`](Self::take_changes) must be written before anything leaves.
    pub(crate) fn has_holding_changes(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.holds)
    }

    /// What is to be written of what happened since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        match &mut self.journal {
            Some(journal) => journal.take(),
            None => Changes::default(),
        }
    }
}
