//! One client's session.

mod queue;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use self::queue::Queue;
use super::command::{Owner, RequestedFilter, SessionExpiry};
use super::journal::Stored;
use super::link::{Link, Outbound, Payload};
use super::sessions::DropLog;
use super::subscriptions::GroupId;
use crate::broker::auth::{Access, Action, AuthChain, AuthChains};
use crate::broker::plugin::SessionInfo;
use crate::proto::flow::incoming::Incoming;
use crate::proto::flow::outgoing::Outgoing;
use crate::proto::packet::Will;
use crate::proto::{Message, ProtocolVersion, QoS, TopicFilter, TopicName};
use crate::store::{MessageId, Position, PublisherRecord, SessionKey};

/// Session State: what the broker keeps for a Client Identifier.
///
/// Source: MQTT 5.0 §3.1.2.11.2, §4.1.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) client_id: ByteString,
    pub(super) owner: Owner,
    /// Its name in the store, if it is kept there.
    pub(super) key: Option<SessionKey>,
    /// The place in the store of the next message.
    next_position: Position,
    /// Messages were asked of the store, by this number; nothing is sent before they are here.
    pub(super) loading: Option<u64>,
    /// Of messages that were in flight before a restart, some are in the store alone.
    pub(super) flows_away: bool,
    /// By the text of the filter, `$share/…` included. Boxed: a node of the map has room for eleven of them.
    pub(super) subscriptions: BTreeMap<ByteString, Box<Subscribed>>,
    pub(super) outgoing: Outgoing<Delivery>,
    /// Payload bytes of the messages in `outgoing`.
    inflight_bytes: usize,
    pub(super) incoming: Incoming,
    /// What waits for the window, the socket or the client, oldest first.
    pub(super) queue: Queue,
    /// Retained messages still to be sent, one cursor per new subscription.
    pub(super) replays: VecDeque<Replay>,
    pub(super) will: Option<Box<Will>>,
    pub(super) expiry: SessionExpiry,
    pub(super) link: Option<Box<Link>>,
    /// Facts of the current or last connection.
    pub(super) last: LastConnection,
    /// Who may do what, on the listener of the current or last connection.
    pub(super) chain: Arc<AuthChain>,
    /// The client as the publisher of retained messages, once it has published one.
    publisher: Option<Arc<Publisher>>,
    /// `chain` restricts what may be received.
    pub(super) checks_receiving: bool,
    /// It has something to send that only an acknowledgement of its client lets go.
    pub(super) awaits_ack: bool,
    /// What it did not get, once there was something.
    pub(super) drops: Option<Box<DropLog>>,
}

/// Who published a retained message: its right to do so may end before the message does.
#[derive(Debug)]
pub(crate) struct Publisher {
    client_id: ByteString,
    user: Option<ByteString>,
    listener: Arc<str>,
}

impl Publisher {
    pub(super) fn from_record(record: PublisherRecord) -> Self {
        Self {
            client_id: record.client_id,
            user: record.user,
            listener: Arc::from(&*record.listener),
        }
    }

    pub(super) fn record(&self) -> PublisherRecord {
        PublisherRecord {
            client_id: self.client_id.clone(),
            user: self.user.clone(),
            listener: ByteString::from(&*self.listener),
        }
    }

    pub(super) fn may_publish(&self, chains: &AuthChains, topic: &str) -> bool {
        chains.listener(&self.listener).authorize(&Access {
            client_id: &self.client_id,
            user: self.user.as_deref(),
            action: Action::Publish,
            topic,
        })
    }
}

/// What is remembered of a session's current or last connection.
#[derive(Debug, Clone)]
pub(super) struct LastConnection {
    pub(super) version: ProtocolVersion,
    pub(super) clean_start: bool,
    pub(super) session_present: bool,
    pub(super) keep_alive: u16,
    pub(super) address: Option<SocketAddr>,
    pub(super) listener: Arc<str>,
}

/// A subscription of a session.
#[derive(Debug, Clone)]
pub(super) struct Subscribed {
    pub(super) requested: RequestedFilter,
    /// Subscription Identifier.
    pub(super) id: Option<u32>,
}

/// A message on its way to one session.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// `None`: it is in the store alone, and is read when its turn comes; or the client has it (PUBREC came before a restart).
    pub(super) message: Option<Arc<Message>>,
    /// Where it is in the store, if it is there.
    pub(super) stored: Option<Stored>,
    /// What it takes of the queue's budget.
    pub(super) size_bytes: u32,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) ids: Option<Arc<[u32]>>,
    /// The shared subscription that it comes from.
    pub(super) group: Option<GroupId>,
}

/// A cursor over the retained messages of one filter.
#[derive(Debug)]
pub(super) struct Replay {
    /// The subscription, as the client wrote it.
    pub(super) text: ByteString,
    pub(super) filter: TopicFilter,
    pub(super) qos: QoS,
    pub(super) id: Option<u32>,
    pub(super) after: Option<TopicName>,
    /// It went on since the store heard of it.
    pub(super) moved: bool,
}

impl Session {
    pub(super) fn new(
        client_id: ByteString,
        owner: Owner,
        last: LastConnection,
        chain: Arc<AuthChain>,
    ) -> Self {
        Self {
            client_id,
            owner,
            key: None,
            next_position: Position(1),
            loading: None,
            flows_away: false,
            subscriptions: BTreeMap::new(),
            outgoing: Outgoing::new(u16::MAX),
            inflight_bytes: 0,
            incoming: Incoming::new(u16::MAX),
            queue: Queue::default(),
            replays: VecDeque::new(),
            will: None,
            expiry: SessionExpiry::AtDisconnect,
            link: None,
            last,
            publisher: None,
            checks_receiving: chain.restricts(Action::Receive),
            awaits_ack: false,
            chain,
            drops: None,
        }
    }

    /// Lets go of the connection: what was in flight waits to be sent again.
    pub(super) fn unlink(&mut self) -> Option<Box<Link>> {
        self.outgoing.on_disconnected();
        self.link.take()
    }

    /// The place in the store of a message that comes now.
    pub(super) fn take_position(&mut self) -> Position {
        let position = self.next_position;
        self.next_position = Position(position.0 + 1);
        position
    }

    /// What is stored stands before everything that comes.
    pub(super) fn note_position(&mut self, position: Position) {
        self.next_position = self.next_position.max(Position(position.0 + 1));
    }

    /// The session as others may see it.
    pub(super) fn info(&self) -> SessionInfo {
        let will = self.will.as_deref();
        SessionInfo {
            client_id: self.client_id.clone(),
            user_name: self.owner.user().map(ByteString::from),
            version: self.last.version,
            connected: self.link.is_some(),
            clean_start: self.last.clean_start,
            session_present: self.last.session_present,
            keep_alive: self.last.keep_alive,
            address: self.last.address,
            listener: Arc::clone(&self.last.listener),
            will_topic: will.map(|will| will.topic.clone()),
            will_payload: will.map(|will| will.payload.clone()).unwrap_or_default(),
            will_qos: will.map_or(QoS::AtMostOnce, |will| will.qos),
            will_retain: will.is_some_and(|will| will.retain),
            inflight_in: self.incoming.len(),
            inflight_out: self.outgoing.len(),
            queued: self.queue.len(),
        }
    }

    /// A session that outlives its connection.
    pub(super) fn is_persistent(&self) -> bool {
        self.expiry != SessionExpiry::AtDisconnect
    }

    /// Puts other rules in force.
    pub(super) fn set_chain(&mut self, chain: &Arc<AuthChain>) {
        self.checks_receiving = chain.restricts(Action::Receive);
        self.chain = Arc::clone(chain);
    }

    /// May the client be sent messages of this topic?
    pub(super) fn may_receive(&self, topic: &str) -> bool {
        !self.checks_receiving || self.may(Action::Receive, topic)
    }

    /// May the client do this?
    pub(super) fn may(&self, action: Action, topic: &str) -> bool {
        self.chain.authorize(&Access {
            client_id: &self.client_id,
            user: self.owner.user(),
            action,
            topic,
        })
    }

    /// The next connection may come by another listener.
    pub(super) fn forget_publisher(&mut self) {
        self.publisher = None;
    }

    /// The client as the publisher of a retained message.
    pub(super) fn publisher(&mut self) -> Arc<Publisher> {
        let publisher = self.publisher.get_or_insert_with(|| {
            Arc::new(Publisher {
                client_id: self.client_id.clone(),
                user: self.owner.user().map(ByteString::from),
                listener: Arc::clone(&self.last.listener),
            })
        });
        Arc::clone(publisher)
    }

    /// Another message of QoS 1 or 2 may be sent.
    pub(super) fn has_room(&self, max_inflight_bytes: usize) -> bool {
        self.outgoing.has_room() && self.inflight_bytes < max_inflight_bytes
    }

    /// A message is in flight now.
    pub(super) fn flow_began(&mut self, payload_bytes: usize) {
        self.inflight_bytes = self.inflight_bytes.saturating_add(payload_bytes);
    }

    /// A message is no longer in flight.
    pub(super) fn flow_ended(&mut self, delivery: &Delivery) {
        let bytes = delivery.payload_bytes();
        self.inflight_bytes = self.inflight_bytes.saturating_sub(bytes);
    }
}

impl Replay {
    /// A retained message that it came to.
    pub(super) fn delivery(&self, message: Arc<Message>) -> Delivery {
        Delivery {
            size_bytes: queue_size(&message),
            qos: self.qos.min(message.qos),
            message: Some(message),
            stored: None,
            retain: true,
            ids: self.id.map(|id| Arc::from([id])),
            group: None,
        }
    }
}

impl Delivery {
    /// The PUBLISH that brings it; `None` without its message.
    pub(super) fn outbound(&self) -> Option<Outbound<'_>> {
        let message = self.message.as_deref()?;
        Some(Outbound {
            topic: message.topic.as_str(),
            payload: Payload {
                bytes: &message.payload,
                shared: &message.payload,
            },
            properties: message.properties.as_deref(),
            expires_at: message.expires_at,
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.as_deref().unwrap_or(&[]),
        })
    }

    /// What it takes of the queue's budget, in bytes.
    pub(super) fn size(&self) -> usize {
        self.size_bytes as usize
    }

    /// Its place in the store, if it is nowhere else.
    pub(super) fn away(&self) -> Option<MessageId> {
        match self.message {
            None => self.stored?.message,
            Some(_) => None,
        }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |one| one.payload.len())
    }

    /// Whether it is known to have expired. One that is in the store alone is looked at when it is here.
    pub(super) fn expired(&self, now: Instant) -> bool {
        self.message.as_ref().is_some_and(|one| one.expired(now))
    }
}

/// What a message takes of a queue's budget.
pub(super) fn queue_size(message: &Message) -> u32 {
    u32::try_from(message.size_bytes()).unwrap_or(u32::MAX)
}
