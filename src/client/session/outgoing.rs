//! Publications: from the call to the end of their flow, and again after a reconnect.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::effects::complete;
use super::{Effects, Session};
use crate::client::options::Payload;
use crate::client::token::Slot;
use crate::client::{ClientError, Published};
use crate::outbox::{OutBuf, SHARE_FROM_BYTES};
use crate::proto::flow::alias::AliasUse;
use crate::proto::flow::outgoing::{AckError, Next, Resend};
use crate::proto::packet::ack::{self, Ack};
use crate::proto::packet::publish::{self, PublishHead, PublishProperties};
use crate::proto::packet::{Packet, PacketType};
use crate::proto::{PacketId, QoS, ReasonCode};
use crate::store::WallTime;

/// A QoS 1 or 2 message from `publish` until its flow is over.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Box<PublishProperties>>,
    /// The end of its Message Expiry Interval.
    pub(crate) expires_at: Option<WallTime>,
    /// An earlier program published it, and nobody waits for it.
    pub(crate) restored: bool,
    pub(crate) slot: Slot<Published>,
}

impl Publication {
    /// What stands before its payload, still without Packet Identifier.
    pub(crate) fn head(&self) -> PublishHead<'_> {
        PublishHead {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: None,
            properties: self.properties.as_deref(),
            message_expiry_interval: self
                .properties
                .as_ref()
                .and_then(|properties| properties.message_expiry_interval),
            topic_alias: None,
            subscription_identifiers: &[],
        }
    }

    /// What is left of its Message Expiry Interval, in seconds: one at least, since some servers take 0 for no end.
    ///
    /// Source: MQTT 5.0 §3.3.2.3.3.
    fn seconds_left(&self, now: WallTime) -> Option<u32> {
        let left = self.expires_at?.0.saturating_sub(now.0).div_ceil(1000);
        Some(u32::try_from(left).unwrap_or(u32::MAX).max(1))
    }
}

/// See [`Session::exact_window`].
const EXACT_WINDOW: u16 = 19;

impl Session {
    /// Whether another message of this QoS may start.
    pub(crate) fn has_room(&self, qos: QoS) -> bool {
        match qos {
            QoS::AtMostOnce => true,
            QoS::AtLeastOnce => self.outgoing.has_room(),
            QoS::ExactlyOnce => self.outgoing.has_room() && self.exact < self.exact_window(),
        }
    }

    /// Before 5.0 a server cannot say how many messages it takes. Mosquitto closes a connection with more than 20 in
    /// flight, by its own account: QoS 1 counts for a moment only, QoS 2 until PUBREL. One place stays for QoS 1.
    fn exact_window(&self) -> u16 {
        if self.version.has_receive_maximum() {
            u16::MAX
        } else {
            EXACT_WINDOW
        }
    }

    /// Sends a QoS 0 message: nothing is kept.
    pub(crate) fn publish_once(
        &mut self,
        head: &PublishHead<'_>,
        payload: Payload<'_>,
        out: &mut OutBuf,
    ) -> Result<(), ClientError> {
        self.put_head(head, payload.as_slice().len(), out)?;
        match payload {
            Payload::Borrowed(bytes) if bytes.len() < SHARE_FROM_BYTES => {
                out.bytes_mut().extend_from_slice(bytes);
            }
            payload => out.push_shared(payload.into_bytes()),
        }
        Ok(())
    }

    /// Starts the flow of a QoS 1 or 2 message and sends it. The caller has seen [`has_room`](Self::has_room).
    pub(crate) fn publish(
        &mut self,
        publication: &Arc<Publication>,
        out: &mut OutBuf,
    ) -> Result<(), ClientError> {
        let Ok(id) = self
            .outgoing
            .start(Arc::clone(publication), publication.qos)
        else {
            return Err(ClientError::Timeout(crate::client::Phase::Room));
        };
        self.exact += u16::from(publication.qos == QoS::ExactlyOnce);
        let head = PublishHead {
            packet_id: Some(id),
            ..publication.head()
        };
        let sent = self.put_publication(&head, &publication.payload, out);
        if sent.is_err() {
            self.abandon(id, publication.qos);
        } else if let Some(journal) = &mut self.journal {
            journal.start(id, publication);
        }
        sent
    }

    pub(super) fn on_puback(&mut self, ack: Ack, out: &mut OutBuf, effects: &mut Effects) {
        // An unknown one is no error: the flow may have ended on an earlier connection.
        if let Ok(publication) = self.outgoing.on_puback(ack.packet_id, ack.reason) {
            self.note_end(ack.packet_id);
            complete(publication, ack, effects);
            self.go_on(out, effects);
        }
    }

    pub(super) fn on_pubrec(&mut self, ack: Ack, out: &mut OutBuf, effects: &mut Effects) {
        let id = ack.packet_id;
        match self.outgoing.on_pubrec(id, ack.reason) {
            Ok(Next::Release) => {
                if let Some(journal) = &mut self.journal {
                    journal.release(id);
                }
                ack::encode_bare(PacketType::Pubrel, id, out.bytes_mut());
            }
            Ok(Next::Completed(publication)) => {
                self.note_end(id);
                self.exact = self.exact.saturating_sub(1);
                complete(publication, ack, effects);
                self.go_on(out, effects);
            }
            Err(AckError::UnknownPacketId) if !ack.reason.is_error() => {
                let pubrel = Ack::new(id, ReasonCode::PacketIdentifierNotFound);
                self.put(&Packet::Pubrel(pubrel), out);
            }
            Err(_) => {}
        }
    }

    pub(super) fn on_pubcomp(&mut self, mut ack: Ack, out: &mut OutBuf, effects: &mut Effects) {
        if let Ok(publication) = self.outgoing.on_pubcomp(ack.packet_id) {
            self.note_end(ack.packet_id);
            // The server had the message when it sent PUBREC: that it has forgotten the identifier since is no failure.
            if ack.reason == ReasonCode::PacketIdentifierNotFound {
                ack.reason = ReasonCode::Success;
            }
            self.exact = self.exact.saturating_sub(1);
            complete(publication, ack, effects);
            self.go_on(out, effects);
        }
    }

    /// An acknowledgement made room: what waits to be sent again goes first.
    fn go_on(&mut self, out: &mut OutBuf, effects: &mut Effects) {
        if self.outgoing.has_resends() {
            self.resend(out, effects);
        }
        effects.room = true;
    }

    /// Sends again what the window allows, in the order first sent. [MQTT-4.6.0-1]
    pub(super) fn resend(&mut self, out: &mut OutBuf, effects: &mut Effects) {
        let dup = self.resends_are_duplicates;
        loop {
            let (id, publication) = match self.outgoing.next_resend() {
                None => return,
                Some(Resend::Pubrel { id }) => {
                    ack::encode_bare(PacketType::Pubrel, id, out.bytes_mut());
                    continue;
                }
                Some(Resend::Publish { id, message, .. }) => (id, Arc::clone(message)),
            };
            let head = PublishHead {
                dup,
                packet_id: Some(id),
                message_expiry_interval: publication.seconds_left(self.connected_at),
                ..publication.head()
            };
            let sent = self.put_publication(&head, &publication.payload, out);
            if let Err(error) = sent {
                self.abandon(id, publication.qos);
                effects.completed.push((publication, Err(error)));
            }
        }
    }

    /// A flow is over.
    fn note_end(&mut self, id: PacketId) {
        if let Some(journal) = &mut self.journal {
            journal.end(id);
        }
    }

    /// Ends a flow that cannot be sent.
    fn abandon(&mut self, id: PacketId, qos: QoS) {
        self.note_end(id);
        let reason = ReasonCode::UnspecifiedError;
        if qos == QoS::ExactlyOnce {
            let _ = self.outgoing.on_pubrec(id, reason);
            self.exact = self.exact.saturating_sub(1);
        } else {
            let _ = self.outgoing.on_puback(id, reason);
        }
    }

    fn put_publication(
        &mut self,
        head: &PublishHead<'_>,
        payload: &Bytes,
        out: &mut OutBuf,
    ) -> Result<(), ClientError> {
        self.put_head(head, payload.len(), out)?;
        out.push_shared(payload.clone());
        Ok(())
    }

    /// Appends what stands before the payload, with an alias instead of the topic where the server allows one.
    fn put_head(
        &mut self,
        head: &PublishHead<'_>,
        payload_bytes: usize,
        out: &mut OutBuf,
    ) -> Result<(), ClientError> {
        if let Some(reason) = self.limits.refuses(head.qos, head.retain) {
            return Err(ClientError::NotAvailable(reason));
        }
        let chosen = head.properties.and_then(|p| p.topic_alias);
        let alias = match chosen.filter(|_| self.version.has_properties()) {
            // [MQTT-3.3.2-8], [MQTT-3.3.2-9]
            Some(alias) if alias == 0 || alias > self.limits.topic_alias_maximum => {
                return Err(ClientError::NotAvailable(ReasonCode::TopicAliasInvalid));
            }
            Some(alias) => self.aliases_out.assign_as(alias, head.topic),
            None => self.aliases_out.assign(head.topic),
        };
        let (topic, topic_alias) = match alias {
            AliasUse::None => return self.put_plain_head(head, payload_bytes, out),
            AliasUse::New(alias) => (head.topic, alias),
            AliasUse::Known(alias) => ("", alias),
        };
        let aliased = PublishHead {
            topic,
            topic_alias: Some(topic_alias),
            ..*head
        };
        let put = self.put_plain_head(&aliased, payload_bytes, out);
        if put.is_err() && alias == AliasUse::New(topic_alias) {
            // The server never hears of it; without the alias the packet may be small enough.
            self.aliases_out.forget(topic_alias);
            return self.put_plain_head(head, payload_bytes, out);
        }
        put
    }

    fn put_plain_head(
        &self,
        head: &PublishHead<'_>,
        payload_bytes: usize,
        out: &mut OutBuf,
    ) -> Result<(), ClientError> {
        // [MQTT-3.2.2-15]
        if self.limits.maximum_packet_bytes < usize::MAX
            && publish::publish_size(head, self.version, payload_bytes)
                > self.limits.maximum_packet_bytes
        {
            return Err(ClientError::NotAvailable(ReasonCode::PacketTooLarge));
        }
        publish::encode_head(head, self.version, payload_bytes, out.bytes_mut())?;
        Ok(())
    }
}
