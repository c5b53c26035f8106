//! What is stored of each thing.

use std::sync::Arc;

use bytestring::ByteString;

use super::MessageId;
use crate::proto::packet::{SubscriptionOptions, Will};
use crate::proto::{Message, PacketId, ProtocolVersion, QoS, TopicName};

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

/// A session that outlives its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The Client Identifier.
    pub client_id: ByteString,
    /// The user whom it belongs to; `None`: whoever connects anonymously to its listener.
    pub user: Option<ByteString>,
    /// The listener of the current or last connection.
    pub listener: ByteString,
    /// The protocol version of the current or last connection.
    pub version: ProtocolVersion,
    /// Session Expiry Interval in seconds, 1 to `u32::MAX` (never).
    pub expiry_seconds: u32,
    /// When the connection ended; `None`: the session was online when this was written.
    pub disconnected_at: Option<WallTime>,
    /// The will that is still to be sent if the client does not come back or say goodbye.
    pub will: Option<Box<WillRecord>>,
}

/// A will that is still to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillRecord {
    /// The will of the CONNECT packet.
    pub will: Will,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// The Topic Filter as it matches: without `$share/name/`, with a mount point.
    pub filter: ByteString,
    /// The Share Name of a shared subscription.
    pub share: Option<ByteString>,
    /// As granted.
    pub options: SubscriptionOptions,
    /// Subscription Identifier.
    pub id: Option<u32>,
    /// The retained messages for it have not all been sent yet.
    pub replay: Option<ReplayRecord>,
}

/// How far the retained messages for a new subscription have been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRecord {
    /// The topic of the last one; `None`: none yet.
    pub after: Option<TopicName>,
}

/// An Application Message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRecord {
    /// The message. Its `expires_at` is not stored and `None` when read back: `expires_at` below stands for it.
    pub message: Arc<Message>,
    /// When the message expires.
    pub expires_at: Option<WallTime>,
}

/// A message in one session's queue, or in flight to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRecord {
    /// The message; `None` once the client has it ([`EntryState::Released`]).
    pub message: Option<MessageId>,
    /// What it takes of the queue's budget, in bytes.
    pub size_bytes: u32,
    /// The QoS at which it is delivered.
    pub qos: QoS,
    /// RETAIN as it is delivered.
    pub retain: bool,
    /// Subscription Identifiers, in the order in which they are delivered.
    pub ids: Option<Arc<[u32]>>,
    /// The shared subscription `$share/name/filter` that it came from.
    pub group: Option<ByteString>,
    /// How far its delivery is.
    pub state: EntryState,
}

impl EntryRecord {
    /// Goes on to `state`.
    pub fn update(&mut self, state: EntryState) {
        self.state = state;
        if let EntryState::Released(_) = state {
            self.message = None;
        }
    }
}

/// How far the delivery of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// Never sent.
    Waiting,
    /// Sent as PUBLISH under this identifier.
    Sent(PacketId),
    /// QoS 2: PUBREC came, PUBREL is sent under this identifier.
    Released(PacketId),
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedRecord {
    /// The message, its topic among it.
    pub message: MessageRecord,
    /// Who published it; `None`: the broker or its embedding program.
    pub publisher: Option<PublisherRecord>,
}

/// Who published a retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherRecord {
    /// Client Identifier.
    pub client_id: ByteString,
    /// User name, unless anonymous.
    pub user: Option<ByteString>,
    /// The listener.
    pub listener: ByteString,
}
