//! The way from a session to its connection: packets become bytes for its outbox.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::command::{ConnectionId, Origin};
use super::journal::{Held, Release, Then};
use super::subscriptions::SessionSlot;
use crate::outbox::{OutBuf, Outbox, SHARE_FROM_BYTES};
use crate::proto::flow::alias::{AliasUse, AliasesOut};
use crate::proto::packet::Packet;
use crate::proto::packet::ack::{Ack, AckProperties, encode_bare};
use crate::proto::packet::publish::{PublishHead, PublishProperties, encode_head, publish_size};
use crate::proto::{EncodeError, PacketId, PacketType, ProtocolVersion, QoS, ReasonCode, codec};

/// What a Topic Alias adds to a PUBLISH.
const TOPIC_ALIAS_BYTES: usize = 3;

/// The way from a session to its connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    pub(super) outbox: Arc<Outbox>,
    /// Bytes of this batch, not yet handed to the outbox.
    pub(super) pending: OutBuf,
    /// Bytes that wait for the store; made when something first does.
    pub(super) held: Option<Box<Held>>,
    /// The outbox's backlog when this batch first touched it.
    pub(super) backlog: usize,
    pub(super) touched: bool,
    pub(super) version: ProtocolVersion,
    pub(super) maximum_packet_size: usize,
    pub(super) aliases: Option<Box<AliasesOut>>,
    pub(super) mount_point: Option<ByteString>,
    pub(super) problem_information: bool,
    /// Most QoS that a subscription gets here.
    pub(super) max_qos: QoS,
}

/// What a PUBLISH to one receiver carries, apart from its packet identifier.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outbound<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: Payload<'a>,
    pub(super) properties: Option<&'a PublishProperties>,
    pub(super) expires_at: Option<Instant>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) ids: &'a [u32],
}

/// A payload that can be copied, or shared when it is large.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes that contain `bytes`.
    pub(super) shared: &'a Bytes,
}

impl<'a> Outbound<'a> {
    /// The packet without its payload, as a client behind `mount_point` knows it.
    fn head(
        &self,
        mount_point: Option<&str>,
        packet_id: Option<PacketId>,
        dup: bool,
        seconds: u32,
    ) -> PublishHead<'a> {
        PublishHead {
            dup,
            qos: self.qos,
            retain: self.retain,
            topic: mount_point
                .and_then(|prefix| self.topic.strip_prefix(prefix))
                .unwrap_or(self.topic),
            packet_id,
            properties: self.properties,
            message_expiry_interval: self.expires_at.map(|_| seconds),
            topic_alias: None,
            subscription_identifiers: self.ids,
        }
    }
}

impl Link {
    /// Bytes that wait for this client's socket.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.backlog + self.pending.len() + self.held_bytes()
    }

    /// The same when this batch may not have touched it.
    pub(super) fn waiting_now(&self) -> usize {
        if self.touched {
            return self.waiting_bytes();
        }
        self.outbox.backlog() + self.pending.len() + self.held_bytes()
    }

    /// Nothing may leave before something that is held.
    pub(super) fn is_blocked(&self) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.blocked.is_some())
    }

    /// What this commit held has left. `true`: so may the rest now, or the queue goes on.
    pub(super) fn unblock(&mut self, sequence: u64) -> bool {
        self.held.as_mut().is_some_and(|held| {
            let waited = [held.blocked, held.paced].contains(&Some(sequence));
            held.blocked = held.blocked.filter(|last| *last != sequence);
            held.paced = held.paced.filter(|last| *last != sequence);
            waited
        })
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes.len())
    }

    /// All bytes that are let go with this batch, at once or by the store.
    pub(super) fn to_bytes(&self) -> Bytes {
        match &self.held {
            None => self.pending.to_bytes(),
            Some(held) if held.blocked.is_some() => held.bytes.to_bytes(),
            Some(held) => [held.bytes.to_bytes(), self.pending.to_bytes()]
                .concat()
                .into(),
        }
    }

    /// Takes the bytes that wait for the store, to be let go with the commit of this batch.
    pub(super) fn take_held(&mut self, slot: SessionSlot) -> Option<Release> {
        let held = self.held.as_mut()?;
        if held.bytes.is_empty() {
            return None;
        }
        let connection = self.connection;
        let unblocks = held.blocked.filter(|sequence| *sequence == held.sequence);
        Some(Release {
            outbox: Arc::clone(&self.outbox),
            unblocks: unblocks.map(|sequence| (Origin { slot, connection }, sequence)),
            bytes: std::mem::take(&mut held.bytes),
            then: held
                .reply
                .take()
                .map_or(Then::Nothing, |reply| Then::Attached(slot, reply)),
        })
    }

    /// Has the pending bytes leave with those that are held, and before them, as they would without it. A blocked link does
    /// that already.
    pub(super) fn hold_pending(&mut self) {
        if let Some(held) = &mut self.held
            && !held.bytes.is_empty()
            && held.blocked.is_none()
        {
            self.pending.append(&mut held.bytes);
            std::mem::swap(&mut self.pending, &mut held.bytes);
        }
    }

    /// Lets `push` append to the bytes that wait for the commit `sequence`.
    pub(super) fn hold<T>(&mut self, sequence: u64, push: impl FnOnce(&mut Self) -> T) -> T {
        let mut held = self.held.take().unwrap_or_default();
        std::mem::swap(&mut self.pending, &mut held.bytes);
        let result = push(self);
        std::mem::swap(&mut self.pending, &mut held.bytes);
        held.sequence = sequence;
        self.held = Some(held);
        result
    }

    /// The same bytes are right for this client as for others: nothing in them is its own, and no size is too large.
    pub(super) fn takes_frames_as_they_are(&self) -> bool {
        self.aliases.is_none()
            && self.mount_point.is_none()
            && self.maximum_packet_size == usize::MAX
    }

    /// Whether the client takes a PUBLISH of this size.
    pub(super) fn fits(&self, outbound: &Outbound<'_>) -> bool {
        if self.maximum_packet_size == usize::MAX {
            return true;
        }
        let packet_id = PacketId::new(1).filter(|_| outbound.qos != QoS::AtMostOnce);
        let head = outbound.head(self.mount_point.as_deref(), packet_id, false, 0);
        let alias = if self.aliases.is_some() {
            TOPIC_ALIAS_BYTES
        } else {
            0
        };
        publish_size(&head, self.version, outbound.payload.bytes.len()) + alias
            <= self.maximum_packet_size
    }

    /// Appends a PUBLISH.
    pub(super) fn push_publish(
        &mut self,
        outbound: &Outbound<'_>,
        packet_id: Option<PacketId>,
        dup: bool,
        now: Instant,
    ) {
        let seconds = outbound.expires_at.map_or(0, |at| seconds_until(at, now));
        let mut head = outbound.head(self.mount_point.as_deref(), packet_id, dup, seconds);
        if let Some(aliases) = &mut self.aliases {
            match aliases.assign(head.topic) {
                AliasUse::None => {}
                AliasUse::New(alias) => head.topic_alias = Some(alias),
                AliasUse::Known(alias) => {
                    head.topic_alias = Some(alias);
                    head.topic = "";
                }
            }
        }
        let payload = outbound.payload;
        match encode_head(
            &head,
            self.version,
            payload.bytes.len(),
            self.pending.bytes_mut(),
        ) {
            Ok(()) => self.push_payload(&payload),
            Err(error) => log::debug!(
                "cannot encode a message on '{}': {error}",
                outbound.topic.escape_debug()
            ),
        }
    }

    /// Appends a payload after its head.
    pub(super) fn push_payload(&mut self, payload: &Payload<'_>) {
        if payload.bytes.len() < SHARE_FROM_BYTES {
            self.pending.bytes_mut().extend_from_slice(payload.bytes);
        } else {
            self.pending
                .push_shared(payload.shared.slice_ref(payload.bytes));
        }
    }

    /// Appends a packet that is not a PUBLISH, as it is: CONNACK was fitted by who made it.
    pub(super) fn push_packet(&mut self, packet: &Packet) {
        if let Err(error) = codec::encode(packet, self.version, self.pending.bytes_mut()) {
            log::debug!(
                "connection {}: cannot send {packet:?}: {error}",
                self.connection
            );
        }
    }

    /// Appends a packet that may carry a Reason String: without it where the client wants none [MQTT-3.1.2-29] or
    /// takes no packet so large. `false`: the client does not even take it so, and nothing is appended.
    ///
    /// Source: MQTT 5.0 §3.1.2.11.4 [MQTT-3.1.2-24], [MQTT-3.4.2-2], [MQTT-3.5.2-2], [MQTT-3.6.2-2], [MQTT-3.7.2-2],
    /// [MQTT-3.9.2-1], [MQTT-3.11.2-1], [MQTT-3.14.2-3].
    pub(super) fn push_explained(
        &mut self,
        text: Option<ByteString>,
        encode: impl Fn(Option<ByteString>, ProtocolVersion, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> bool {
        let text = text.filter(|_| self.problem_information && self.version.has_reason_codes());
        text.is_some_and(|text| self.push_fitting(|version, out| encode(Some(text), version, out)))
            || self.push_fitting(|version, out| encode(None, version, out))
    }

    /// Appends what `encode` writes, unless the client takes no packet so large.
    fn push_fitting(
        &mut self,
        encode: impl FnOnce(ProtocolVersion, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> bool {
        let out = self.pending.bytes_mut();
        let start = out.len();
        let encoded = encode(self.version, out);
        let fits = out.len() - start <= self.maximum_packet_size;
        if let Err(error) = &encoded {
            log::debug!("connection {}: cannot send: {error}", self.connection);
        }
        if !fits {
            out.truncate(start);
        }
        fits && encoded.is_ok()
    }

    /// Whether the client takes a SUBACK or UNSUBACK with so many Reason Codes.
    pub(super) fn takes_reasons(&self, count: usize) -> bool {
        // Fixed header, packet identifier, no properties.
        self.maximum_packet_size == usize::MAX || count + 8 <= self.maximum_packet_size
    }

    /// Appends an acknowledgement. A reason other than success, and its text, go out where the version can carry them.
    pub(super) fn push_ack(
        &mut self,
        kind: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
        text: Option<&'static str>,
    ) {
        if reason == ReasonCode::Success || !self.version.has_reason_codes() {
            encode_bare(kind, packet_id, self.pending.bytes_mut());
            return;
        }
        self.push_explained(text.map(ByteString::from_static), |text, version, out| {
            let mut ack = Ack::new(packet_id, reason);
            ack.properties = explained(text);
            ack.encode(kind, version, out)
        });
    }
}

/// Properties that are a Reason String alone.
pub(super) fn explained(text: Option<ByteString>) -> Option<Box<AckProperties>> {
    text.map(|text| {
        Box::new(AckProperties {
            reason_string: Some(text),
            user_properties: Vec::new(),
        })
    })
}

/// Whole seconds until `at`, a part of one counted as one. 0: it had to leave at once, or what is sent again is late.
/// [MQTT-3.3.2-6]
pub(super) fn seconds_until(at: Instant, now: Instant) -> u32 {
    let left = at.saturating_duration_since(now);
    let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}
