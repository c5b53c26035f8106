//! All that anyone may ask the router.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use bytestring::ByteString;

use super::inspect::Query;
use super::reply::Reply;
use super::subscriptions::SessionSlot;
use crate::broker::auth::{AuthChain, AuthChains};
use crate::broker::connection::Spares;
use crate::outbox::Outbox;
use crate::proto::packet::connack::Connack;
use crate::proto::packet::publish::PublishProperties;
use crate::proto::packet::{Packet, Publish, SubscriptionOptions, Will};
use crate::proto::{
    PacketId, ProtocolError, ProtocolVersion, QoS, ReasonCode, ShareName, TopicFilter, TopicName,
};
use crate::store::{MessageRecord, StoreError};

/// Names a connection. Never used twice in the life of a broker, so a late message of a dead connection is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) NonZeroU64);

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A session and the connection that speaks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) slot: SessionSlot,
    pub(crate) connection: ConnectionId,
}

/// A request to the router.
#[derive(Debug)]
pub(crate) enum Command {
    /// An authenticated CONNECT: find or make its session.
    Attach(Box<Attach>),
    /// What one read of a connection brought.
    Batch(Batch),
    /// A connection ended.
    Detach { origin: Origin, cause: DetachCause },
    /// An outbox that was behind has caught up.
    Drained(Origin),
    /// A message of the broker itself or of the embedding program.
    Inject(Box<Injection>),
    /// What blocked a link has left with this commit.
    Released { origin: Origin, sequence: u64 },
    /// Messages that the router asked the store for, by the number of the question.
    Loaded {
        token: u64,
        result: Result<Vec<Option<MessageRecord>>, StoreError>,
    },
    /// A question about the router's state, or an administrative change.
    Query(Query),
    /// The settings or access rules changed.
    Reload(Box<super::RouterSettings>, Arc<AuthChains>),
    /// End every connection and stop.
    Shutdown(Goodbye),
}

/// What DISCONNECT says when the broker ends a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goodbye {
    pub(crate) reason: ReasonCode,
    /// Reason String: what the client, or who runs it, can do.
    pub(crate) text: ByteString,
    /// Where the client is to go.
    pub(crate) server_reference: Option<ByteString>,
}

impl Goodbye {
    pub(crate) fn new(reason: ReasonCode, text: &'static str) -> Self {
        Self {
            reason,
            text: ByteString::from_static(text),
            server_reference: None,
        }
    }
}

impl From<ProtocolError> for Goodbye {
    fn from(error: ProtocolError) -> Self {
        Self {
            reason: error.reason(),
            text: ByteString::from(error.to_string()),
            server_reference: None,
        }
    }
}

/// An authenticated CONNECT.
#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) connection: ConnectionId,
    pub(crate) client_id: ByteString,
    pub(crate) owner: Owner,
    pub(crate) listener: Arc<str>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) version: ProtocolVersion,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry: SessionExpiry,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Will>,
    /// Most QoS 1 and 2 messages in flight to the client.
    pub(crate) send_window: u16,
    /// Most QoS 1 and 2 messages in flight from the client.
    pub(crate) receive_maximum: u16,
    /// The client's Maximum Packet Size.
    pub(crate) maximum_packet_size: u32,
    /// The client's Topic Alias Maximum, capped by ours.
    pub(crate) topic_alias_maximum: u16,
    /// Reason Strings and User Properties are wanted on every packet.
    pub(crate) problem_information: bool,
    /// Put before every topic of this client, taken off again.
    pub(crate) mount_point: Option<ByteString>,
    pub(crate) max_qos: QoS,
    /// Who may do what on this listener.
    pub(crate) chain: Arc<AuthChain>,
    /// Told to the outbox's events before anything is sent.
    pub(crate) origin: Arc<OnceLock<Origin>>,
    pub(crate) outbox: Arc<Outbox>,
    /// The CONNACK to send; the router fills in Session Present.
    pub(crate) connack: Box<Connack>,
    pub(crate) reply: Reply<Result<SessionSlot, ReasonCode>>,
}

/// Whom a session belongs to. Another owner may not take it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The user with this name.
    User(ByteString),
    /// Whoever connects anonymously to the listener with this name.
    Listener(Arc<str>),
}

impl Owner {
    /// The user name, unless the client is anonymous.
    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Self::User(name) => Some(name),
            Self::Listener(_) => None,
        }
    }
}

/// How long a session outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionExpiry {
    /// It ends with the connection.
    AtDisconnect,
    /// After this many seconds.
    After(u32),
    /// Never.
    Never,
}

impl SessionExpiry {
    /// From the property's value.
    pub(crate) fn from_seconds(seconds: u32) -> Self {
        match seconds {
            0 => Self::AtDisconnect,
            u32::MAX => Self::Never,
            seconds => Self::After(seconds),
        }
    }
}

/// Whole packets of one connection, in the order they came.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) origin: Origin,
    /// What the spans refer to.
    pub(crate) buffer: Bytes,
    pub(crate) inbound: Vec<Inbound>,
    /// Where the buffer and the list go when the router is done with them, if they are worth it.
    pub(crate) spares: Option<Arc<Spares>>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(spares) = &self.spares {
            spares.give_buffer(std::mem::take(&mut self.buffer));
            spares.give_list(std::mem::take(&mut self.inbound));
        }
    }
}

/// One packet of a batch.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A PUBLISH that is forwarded as it stands in the batch's buffer.
    Span(PublishSpan),
    /// A PUBLISH whose topic is not in the buffer: from an alias or behind a mount point.
    Publish(Box<Publish>),
    /// A PUBLISH that the connection thread refuses; only its flow goes on.
    Refused(Box<Refusal>),
    /// SUBSCRIBE, checked.
    Subscribe(Box<SubscribeRequest>),
    /// UNSUBSCRIBE, parsed.
    Unsubscribe(Box<UnsubscribeRequest>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Packet),
}

impl Inbound {
    /// The client has a message for good, and nothing is to be answered.
    pub(crate) fn ends_delivery(&self) -> bool {
        matches!(self, Self::Ack(Packet::Puback(_) | Packet::Pubcomp(_)))
    }
}

/// Where the parts of a PUBLISH stand in its batch's buffer.
#[derive(Debug)]
pub(crate) struct PublishSpan {
    pub(crate) frame_start: u32,
    pub(crate) topic_start: u32,
    pub(crate) payload_start: u32,
    pub(crate) end: u32,
    pub(crate) topic_bytes: u16,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Box<PublishProperties>>,
}

/// A PUBLISH that is not routed.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) qos: QoS,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) reason: ReasonCode,
    pub(crate) text: &'static str,
}

/// A SUBSCRIBE whose filters were parsed and authorised on the connection's thread.
#[derive(Debug)]
pub(crate) struct SubscribeRequest {
    pub(crate) packet_id: PacketId,
    pub(crate) id: Option<u32>,
    /// In the order of the packet; an error is the Reason Code to answer.
    pub(crate) filters: Vec<Result<RequestedFilter, ReasonCode>>,
    pub(crate) reason_string: Option<&'static str>,
}

/// One filter of a SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Clone)]
pub(crate) struct RequestedFilter {
    /// As the client wrote it.
    pub(crate) text: ByteString,
    pub(crate) share: Option<ShareName>,
    pub(crate) filter: TopicFilter,
    pub(crate) options: SubscriptionOptions,
}

/// An UNSUBSCRIBE whose filters were parsed.
#[derive(Debug)]
pub(crate) struct UnsubscribeRequest {
    pub(crate) packet_id: PacketId,
    pub(crate) filters: Vec<Result<RequestedFilter, ReasonCode>>,
}

/// A message that no client published.
#[derive(Debug)]
pub(crate) struct Injection {
    pub(crate) topic: TopicName,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Only keep it as the retained message; nobody gets it now.
    pub(crate) silent: bool,
}

/// Why a connection ended, as far as the session is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DetachCause {
    /// DISCONNECT: the will is deleted. A new Session Expiry Interval may come with it.
    Disconnect { session_expiry: Option<u32> },
    /// Anything else, DISCONNECT 0x04 among it: the will is sent.
    Abnormal { session_expiry: Option<u32> },
}
