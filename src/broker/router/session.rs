//! One client's session and, while it is online, its link to the connection.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use super::command::{ConnectionId, Owner, RequestedFilter, SessionExpiry};
use super::subscriptions::GroupId;
use crate::broker::auth::{Access, Action, AuthChain, AuthChains};
use crate::broker::plugin::SessionInfo;
use crate::outbox::{OutBuf, Outbox, SHARE_FROM_BYTES};
use crate::proto::flow::alias::{AliasUse, AliasesOut};
use crate::proto::flow::incoming::Incoming;
use crate::proto::flow::outgoing::Outgoing;
use crate::proto::packet::publish::{PublishHead, PublishProperties, encode_head, publish_size};
use crate::proto::packet::{Packet, Will};
use crate::proto::{
    Message, PacketId, PacketType, ProtocolVersion, QoS, ReasonCode, TopicFilter, TopicName, codec,
};

/// What a Topic Alias adds to a PUBLISH.
const TOPIC_ALIAS_BYTES: usize = 3;

/// Session State: what the broker keeps for a Client Identifier.
///
/// Source: MQTT 5.0 §3.1.2.11.2, §4.1.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) client_id: ByteString,
    pub(super) owner: Owner,
    /// By the text of the filter, `$share/…` included. Boxed: a node of the map has room for eleven of them.
    pub(super) subscriptions: BTreeMap<ByteString, Box<Subscribed>>,
    pub(super) outgoing: Outgoing<Delivery>,
    /// Payload bytes of the messages in `outgoing`.
    inflight_bytes: usize,
    pub(super) incoming: Incoming,
    /// What waits for the window, the socket or the client, oldest first.
    pub(super) queue: VecDeque<Delivery>,
    pub(super) queue_bytes: usize,
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
    /// Messages dropped since the last log line about it, and when that was.
    pub(super) dropped: u64,
    pub(super) drop_logged_at: Option<Instant>,
}

/// Who published a retained message: its right to do so may end before the message does.
#[derive(Debug)]
pub(crate) struct Publisher {
    client_id: ByteString,
    user: Option<ByteString>,
    listener: Arc<str>,
}

impl Publisher {
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
}

/// A message on its way to one session.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) ids: Option<Arc<[u32]>>,
    /// The shared subscription that it comes from.
    pub(super) group: Option<GroupId>,
}

/// A cursor over the retained messages of one filter.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) filter: TopicFilter,
    pub(super) qos: QoS,
    pub(super) id: Option<u32>,
    pub(super) after: Option<TopicName>,
}

/// The way from a session to its connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    pub(super) outbox: Arc<Outbox>,
    /// Bytes of this batch, not yet handed to the outbox.
    pub(super) pending: OutBuf,
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
    pub(super) shared: &'a bytes::Bytes,
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
            subscriptions: BTreeMap::new(),
            outgoing: Outgoing::new(u16::MAX),
            inflight_bytes: 0,
            incoming: Incoming::new(u16::MAX),
            queue: VecDeque::new(),
            queue_bytes: 0,
            replays: VecDeque::new(),
            will: None,
            expiry: SessionExpiry::AtDisconnect,
            link: None,
            last,
            publisher: None,
            checks_receiving: chain.restricts(Action::Receive),
            chain,
            dropped: 0,
            drop_logged_at: None,
        }
    }

    /// Lets go of the connection: what was in flight waits to be sent again.
    pub(super) fn unlink(&mut self) -> Option<Box<Link>> {
        self.outgoing.on_disconnected();
        self.link.take()
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
        let bytes = delivery.message.payload.len();
        self.inflight_bytes = self.inflight_bytes.saturating_sub(bytes);
    }

    pub(super) fn push_queue(&mut self, delivery: Delivery) {
        self.queue_bytes += delivery.message.size_bytes();
        self.queue.push_back(delivery);
    }

    pub(super) fn pop_queue(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queue_bytes = self
            .queue_bytes
            .saturating_sub(delivery.message.size_bytes());
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(delivery)
    }
}

impl Delivery {
    pub(super) fn outbound(&self) -> Outbound<'_> {
        Outbound {
            topic: self.message.topic.as_str(),
            payload: Payload {
                bytes: &self.message.payload,
                shared: &self.message.payload,
            },
            properties: self.message.properties.as_deref(),
            expires_at: self.message.expires_at,
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.as_deref().unwrap_or(&[]),
        }
    }
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
        self.backlog + self.pending.len()
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

    /// Appends a packet that is not a PUBLISH.
    pub(super) fn push_packet(&mut self, packet: &Packet) {
        if let Err(error) = codec::encode(packet, self.version, self.pending.bytes_mut()) {
            log::debug!(
                "connection {}: cannot send {packet:?}: {error}",
                self.connection
            );
        }
    }

    /// Appends an acknowledgement. A reason other than success, and its text, go out where the version can carry them.
    pub(super) fn push_ack(
        &mut self,
        kind: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
        text: Option<&'static str>,
    ) {
        use crate::proto::packet::ack::{Ack, AckProperties, encode_bare};
        if reason == ReasonCode::Success || !self.version.has_reason_codes() {
            encode_bare(kind, packet_id, self.pending.bytes_mut());
            return;
        }
        let mut ack = Ack::new(packet_id, reason);
        if let Some(text) = text.filter(|_| self.problem_information) {
            ack.properties = Some(Box::new(AckProperties {
                reason_string: Some(ByteString::from_static(text)),
                user_properties: Vec::new(),
            }));
        }
        if let Err(error) = ack.encode(kind, self.version, self.pending.bytes_mut()) {
            log::debug!(
                "connection {}: cannot send {ack:?}: {error}",
                self.connection
            );
        }
    }
}

/// Whole seconds until `at`, at least 1: an expired message is not sent at all.
pub(super) fn seconds_until(at: Instant, now: Instant) -> u32 {
    let left = at.saturating_duration_since(now);
    let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}
