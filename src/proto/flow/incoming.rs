//! The receiving side of QoS 1 and QoS 2: which messages were delivered already.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::proto::{PacketId, ProtocolError, QoS};

/// QoS 1 and QoS 2 messages received from one peer and not completed.
///
/// QoS 2 uses method A of the specification: a message is delivered when its PUBLISH comes, and its Packet Identifier
/// is kept until PUBREL. The identifiers outlive the connection, the count for the Receive Maximum does not. Every
/// operation takes constant time; an unused one has no heap memory.
///
/// Source: MQTT 5.0 §4.3, §4.9; MQTT 3.1.1 §4.3.
#[derive(Debug, Clone)]
pub struct Incoming {
    receive_maximum: u16,
    /// QoS 1 messages whose PUBACK has not left.
    unacknowledged: u16,
    /// QoS 2 messages of this connection among `ids`.
    counted: u16,
    /// QoS 2 identifiers that wait for PUBREL. At most 65,535 keys, so a seed of its own would protect nothing.
    ids: HashMap<PacketId, Counted, FixedState>,
}

/// Whether a QoS 2 identifier came on this connection, and so counts for its Receive Maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Yes,
    No,
}

/// What to do with a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Deliver the message, then acknowledge it.
    Deliver,
    /// QoS 2: it was delivered before. Acknowledge it again with PUBREC, deliver nothing. [MQTT-4.3.3-10]
    Duplicate,
    /// QoS 1: a QoS 2 message holds the identifier. Answer PUBACK with
    /// [`PacketIdentifierInUse`](crate::proto::ReasonCode::PacketIdentifierInUse) (0x91), or close the connection where
    /// the version has no Reason Codes; deliver nothing, and do not call
    /// [`on_acknowledged`](Incoming::on_acknowledged). [MQTT-2.2.1-3]
    IdInUse,
}

impl Incoming {
    /// Nothing received, with the Receive Maximum that this side announced (1..=65,535).
    #[must_use]
    pub fn new(receive_maximum: u16) -> Self {
        Self {
            receive_maximum,
            unacknowledged: 0,
            counted: 0,
            ids: HashMap::with_hasher(FixedState::default()),
        }
    }

    /// A PUBLISH with QoS 1 or 2 came. QoS 0 has no flow; it is always delivered.
    ///
    /// # Errors
    /// [`ProtocolError::ReceiveMaximumExceeded`]: more messages than announced are not completed.
    /// [MQTT-3.3.4-7], [MQTT-3.3.4-9]
    ///
    /// Source: MQTT 5.0 §4.3, §3.3.4.
    pub fn on_publish(&mut self, id: PacketId, qos: QoS) -> Result<Verdict, ProtocolError> {
        if qos == QoS::AtMostOnce {
            return Ok(Verdict::Deliver);
        }
        if self.ids.contains_key(&id) {
            return Ok(match qos {
                QoS::ExactlyOnce => Verdict::Duplicate,
                QoS::AtMostOnce | QoS::AtLeastOnce => Verdict::IdInUse,
            });
        }
        if self.unfinished() >= self.receive_maximum {
            return Err(ProtocolError::ReceiveMaximumExceeded);
        }
        if qos == QoS::ExactlyOnce {
            self.ids.insert(id, Counted::Yes);
            self.counted = self.counted.saturating_add(1);
        } else {
            self.unacknowledged = self.unacknowledged.saturating_add(1);
        }
        Ok(Verdict::Deliver)
    }

    /// PUBACK left for the QoS 1 message `id`, or PUBREC with a Reason Code ≥ 0x80 for the QoS 2 message `id`: it is
    /// completed.
    pub fn on_acknowledged(&mut self, id: PacketId) {
        if !self.forget(id) {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
        }
    }

    /// PUBREL came: the QoS 2 message `id` is completed, answer with PUBCOMP.
    ///
    /// `false`: the identifier is unknown; PUBCOMP follows all the same, with
    /// [`PacketIdentifierNotFound`](crate::proto::ReasonCode::PacketIdentifierNotFound) (0x92) where the version has
    /// Reason Codes.
    ///
    /// Source: MQTT 5.0 §4.3.3 [MQTT-4.3.3-11], §3.7.2.1.
    pub fn on_pubrel(&mut self, id: PacketId) -> bool {
        self.forget(id)
    }

    /// A new connection, to which this side announced `receive_maximum`. QoS 1 messages not acknowledged are forgotten:
    /// they come again. QoS 2 identifiers stay, and no longer count.
    pub fn on_connected(&mut self, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
        self.unacknowledged = 0;
        self.counted = 0;
        for counted in self.ids.values_mut() {
            *counted = Counted::No;
        }
    }

    /// Puts a QoS 2 identifier back that was stored.
    pub fn restore(&mut self, id: PacketId) {
        self.ids.entry(id).or_insert(Counted::No);
    }

    /// The QoS 2 identifiers that wait for PUBREL, in no order.
    pub fn ids(&self) -> impl Iterator<Item = PacketId> {
        self.ids.keys().copied()
    }

    /// How many messages are not completed: QoS 1 without PUBACK, QoS 2 without PUBREL.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids
            .len()
            .saturating_add(usize::from(self.unacknowledged))
    }

    /// Every message is completed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether another QoS 1 or QoS 2 message is within the Receive Maximum. Where the peer cannot know it (before 5.0),
    /// stop reading until there is room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.unfinished() < self.receive_maximum
    }

    /// Gives heap memory back if no identifier is kept.
    pub fn shrink(&mut self) {
        if self.ids.is_empty() {
            self.ids.shrink_to_fit();
        }
    }

    fn forget(&mut self, id: PacketId) -> bool {
        let known = self.ids.remove(&id);
        if known == Some(Counted::Yes) {
            self.counted = self.counted.saturating_sub(1);
        }
        known.is_some()
    }

    /// What counts for the Receive Maximum of this connection.
    fn unfinished(&self) -> u16 {
        self.unacknowledged.saturating_add(self.counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    const QOS1: QoS = QoS::AtLeastOnce;
    const QOS2: QoS = QoS::ExactlyOnce;

    #[test]
    fn qos0_is_always_delivered() {
        let mut incoming = Incoming::new(0);
        assert_eq!(
            incoming.on_publish(id(1), QoS::AtMostOnce),
            Ok(Verdict::Deliver)
        );
        assert!(incoming.is_empty());
    }

    /// [MQTT-4.3.3-10], [MQTT-4.3.3-12]
    #[test]
    fn resent_qos2_publish_is_delivered_once() {
        let mut incoming = Incoming::new(1);
        assert_eq!(incoming.on_publish(id(7), QOS2), Ok(Verdict::Deliver));
        assert_eq!(incoming.on_publish(id(7), QOS2), Ok(Verdict::Duplicate));
        assert!(incoming.on_pubrel(id(7)));
        assert!(!incoming.on_pubrel(id(7)));
        assert_eq!(incoming.on_publish(id(7), QOS2), Ok(Verdict::Deliver));
    }

    /// [MQTT-3.3.4-7], [MQTT-3.3.4-9]
    #[test]
    fn more_than_the_receive_maximum_is_refused() {
        let exceeded = Err(ProtocolError::ReceiveMaximumExceeded);
        let mut incoming = Incoming::new(2);
        assert_eq!(incoming.on_publish(id(1), QOS1), Ok(Verdict::Deliver));
        assert_eq!(incoming.on_publish(id(2), QOS2), Ok(Verdict::Deliver));
        assert!(!incoming.has_room());
        assert_eq!(incoming.on_publish(id(3), QOS1), exceeded);
        assert_eq!(incoming.on_publish(id(3), QOS2), exceeded);
        assert_eq!(incoming.on_publish(id(2), QOS2), Ok(Verdict::Duplicate));
        incoming.on_acknowledged(id(1));
        assert_eq!(incoming.on_publish(id(3), QOS2), Ok(Verdict::Deliver));
        assert_eq!(incoming.on_publish(id(4), QOS2), exceeded);
        incoming.on_acknowledged(id(3)); // PUBREC with an error
        assert!(incoming.on_pubrel(id(2)));
        assert!(incoming.is_empty());
        assert_eq!(incoming.on_publish(id(3), QOS2), Ok(Verdict::Deliver));
    }

    #[test]
    fn qos1_publish_under_an_identifier_of_qos2_is_answered_with_in_use() {
        let mut incoming = Incoming::new(10);
        assert_eq!(incoming.on_publish(id(1), QOS2), Ok(Verdict::Deliver));
        assert_eq!(incoming.on_publish(id(1), QOS1), Ok(Verdict::IdInUse));
        assert_eq!(incoming.len(), 1);
    }

    #[test]
    fn a_new_connection_keeps_the_identifiers_and_counts_anew() {
        let mut incoming = Incoming::new(2);
        assert_eq!(incoming.on_publish(id(1), QOS2), Ok(Verdict::Deliver));
        assert_eq!(incoming.on_publish(id(2), QOS1), Ok(Verdict::Deliver));
        incoming.on_connected(1);
        assert_eq!(incoming.ids().collect::<Vec<_>>(), [id(1)]);
        assert_eq!(incoming.on_publish(id(1), QOS2), Ok(Verdict::Duplicate));
        assert_eq!(incoming.on_publish(id(2), QOS1), Ok(Verdict::Deliver));
        assert!(incoming.on_pubrel(id(1)));
        assert!(!incoming.has_room());
        incoming.on_acknowledged(id(2));
        assert!(incoming.has_room());
    }

    #[test]
    fn an_unused_one_is_small_and_gives_its_memory_back() {
        assert!(size_of::<Incoming>() <= 64);
        let mut incoming = Incoming::new(100);
        assert_eq!(incoming.ids.capacity(), 0);
        for value in 1..100 {
            assert_eq!(incoming.on_publish(id(value), QOS2), Ok(Verdict::Deliver));
        }
        for value in 1..100 {
            assert!(incoming.on_pubrel(id(value)));
        }
        incoming.shrink();
        assert_eq!(incoming.ids.capacity(), 0);
    }
}
