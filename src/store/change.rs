//! Changes of the state, and what many of them come to.

use bytestring::ByteString;

use super::{
    EntryRecord, MessageId, MessageRecord, Position, RetainedRecord, SessionKey, SessionRecord,
    SubscriptionRecord,
};
use crate::proto::{PacketId, TopicName};

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A session comes, or its record is replaced.
    PutSession(SessionKey, Box<SessionRecord>),
    /// A session goes with its subscriptions, entries and incoming identifiers. Messages go by [`Change::DeleteMessage`].
    DeleteSession(SessionKey),
    /// A subscription comes or is replaced, under the filter as the client wrote it.
    PutSubscription(SessionKey, ByteString, SubscriptionRecord),
    /// A subscription goes.
    DeleteSubscription(SessionKey, ByteString),
    /// A QoS 2 message was received under this identifier and waits for its PUBREL.
    PutIncoming(SessionKey, PacketId),
    /// Its PUBREL came.
    DeleteIncoming(SessionKey, PacketId),
    /// A message that entries refer to, once for all of them.
    PutMessage(MessageId, MessageRecord),
    /// The last entry that referred to it is gone.
    DeleteMessage(MessageId),
    /// An entry of a session's queue comes, or its state changes.
    PutEntry(SessionKey, Position, EntryRecord),
    /// An entry is completed, dropped or expired.
    DeleteEntry(SessionKey, Position),
    /// The retained message of its topic comes or is replaced.
    PutRetained(Box<RetainedRecord>),
    /// The retained message of a topic goes.
    DeleteRetained(TopicName),
}
