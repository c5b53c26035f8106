//! A message as the client received it, and what the server said about one that it sent.

use std::fmt;

use bytes::Bytes;

use crate::proto::packet::UserProperty;
use crate::proto::packet::ack::{Ack, AckProperties};
use crate::proto::packet::publish::{Publish, PublishProperties};
use crate::proto::{PacketId, QoS, ReasonCode};

/// An Application Message that the server delivered.
///
/// Topic and payload share the memory of the packet they came in; both are cheap to clone. A QoS 1 or 2 message is
/// acknowledged when the program takes it, so that what a program did not take is still the server's.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    publish: Publish,
    /// The connection it came on: its acknowledgement belongs there and nowhere else.
    pub(crate) connection: u64,
}

/// The packets of one delivery: those that were sent or received, `None` for those that the QoS has not, or that are
/// still to come.
///
/// Source: MQTT 5.0 §4.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// PUBLISH.
    pub publish: Publish,
    /// PUBACK, QoS 1.
    pub puback: Option<Ack>,
    /// PUBREC, QoS 2.
    pub pubrec: Option<Ack>,
    /// PUBREL, QoS 2.
    pub pubrel: Option<Ack>,
    /// PUBCOMP, QoS 2.
    pub pubcomp: Option<Ack>,
}

/// A publication that was sent and, at QoS 1 and 2, acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The QoS at which it was sent.
    pub qos: QoS,
    /// Its Packet Identifier; `None` at QoS 0.
    pub packet_id: Option<PacketId>,
    /// The Reason Code of the last acknowledgement: `Success`, or in 5.0 `NoMatchingSubscribers`.
    pub reason: ReasonCode,
    /// What else that acknowledgement said, 5.0 only.
    pub properties: Option<Box<AckProperties>>,
}

/// What the server answered to a SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeResult {
    /// For each filter, in order: the granted QoS, `Success`, or an error, 0x80 and above.
    pub reasons: Vec<ReasonCode>,
    /// What else the acknowledgement said, 5.0 only: Reason String and User Properties.
    pub properties: Option<Box<AckProperties>>,
}

impl ReceivedMessage {
    pub(crate) fn new(publish: Publish, connection: u64) -> Self {
        Self {
            publish,
            connection,
        }
    }

    /// The Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.publish.topic
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.publish.payload
    }

    /// The QoS at which it was delivered.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.publish.qos
    }

    /// The RETAIN flag: sent because of a new subscription, not because it was just published.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.publish.retain
    }

    /// The DUP flag: the server may have sent it before.
    #[must_use]
    pub fn dup(&self) -> bool {
        self.publish.dup
    }

    /// Its Packet Identifier; `None` at QoS 0.
    #[must_use]
    pub fn packet_id(&self) -> Option<PacketId> {
        self.publish.packet_id
    }

    /// The properties of the packet; `None` when it had none, as always in 3.1 and 3.1.1.
    #[must_use]
    pub fn properties(&self) -> Option<&PublishProperties> {
        self.publish.properties.as_deref()
    }

    /// The User Properties, in the order of the packet.
    #[must_use]
    pub fn user_properties(&self) -> &[UserProperty] {
        self.properties()
            .map_or(&[], |properties| &properties.user_properties)
    }

    /// The PUBLISH that carried it.
    #[must_use]
    pub fn publish(&self) -> &Publish {
        &self.publish
    }

    /// The PUBLISH that carried it.
    #[must_use]
    pub fn into_publish(self) -> Publish {
        self.publish
    }

    /// The packets of its delivery up to the moment when the program took it: the acknowledgement has left, PUBREL is
    /// still to come.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let ack = self.packet_id().map(|id| Ack::new(id, ReasonCode::Success));
        Flow {
            publish: self.publish.clone(),
            puback: ack.clone().filter(|_| self.qos() == QoS::AtLeastOnce),
            pubrec: ack.filter(|_| self.qos() == QoS::ExactlyOnce),
            pubrel: None,
            pubcomp: None,
        }
    }

    /// Bytes that it keeps in an inbox.
    pub(crate) fn size(&self) -> usize {
        self.publish.topic.len() + self.publish.payload.len()
    }
}

/// Everything but the payload, of which only the length is shown.
impl fmt::Debug for ReceivedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMessage")
            .field("topic", &self.publish.topic)
            .field("payload_bytes", &self.publish.payload.len())
            .field("qos", &self.publish.qos)
            .field("retain", &self.publish.retain)
            .field("dup", &self.publish.dup)
            .field("packet_id", &self.publish.packet_id)
            .finish_non_exhaustive()
    }
}
