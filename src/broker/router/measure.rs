//! The router and the filter tree without threads and sockets, for the micro-benchmarks in `tests/bench/benches`.
//!
//! No part of the interface: it changes with what it measures.

#![expect(missing_docs, reason = "read by the micro-benchmarks alone")]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a benchmark that cannot be set up ends"
)]

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::bounded;

use super::command::{
    Attach, Batch, Command, ConnectionId, Inbound, Origin, Owner, PublishSpan, SessionExpiry,
};
use super::reply::reply;
use super::subscriptions::{Subscription, Subscriptions};
use super::{Router, RouterSettings};
use crate::broker::auth::{AuthChains, Extensions};
use crate::broker::config::Config;
use crate::broker::memory::MemoryWatch;
use crate::broker::metrics::Metrics;
use crate::broker::plugin::PluginHost;
use crate::net::Socket;
use crate::net::transport::Layers;
use crate::outbox::{Outbox, OutboxOptions};
use crate::proto::packet::connack::{Connack, ConnackProperties};
use crate::proto::packet::publish::{PublishHead, encode_head};
use crate::proto::packet::{Ack, Packet, PublishView, SubscriptionOptions};
use crate::proto::{Decoder, PacketId, ProtocolVersion, QoS, ReasonCode, TopicFilter};

/// A filter tree whose subscribers are numbers.
#[derive(Debug)]
pub struct Filters(Subscriptions);

impl Filters {
    #[must_use]
    pub fn new(filters: impl Iterator<Item = String>) -> Self {
        let mut subscriptions = Subscriptions::new();
        for (slot, filter) in (0..).zip(filters) {
            let filter = TopicFilter::parse(filter).expect("a filter");
            subscriptions.subscribe(slot, &filter, None, subscription(QoS::AtMostOnce));
        }
        Self(subscriptions)
    }

    /// The number of sessions that receive what is published to `topic`.
    pub fn matching(&mut self, topic: &str) -> usize {
        self.0.receivers(topic).direct.len()
    }
}

/// A router with one publisher, and receivers that all subscribe to its topic. Bytes end at the links.
#[derive(Debug)]
pub struct Routing {
    router: Router,
    publisher: Origin,
    receivers: Vec<Origin>,
    qos: QoS,
    /// PUBLISH packets, and where their parts stand.
    buffer: Bytes,
    at: Vec<(usize, usize)>,
    /// The last packet identifier that every receiver got: they are given out in sequence.
    last_id: u16,
    now: Instant,
    _far_ends: Vec<Socket>,
}

impl Routing {
    /// `batch` messages of `payload_bytes` in each round.
    #[must_use]
    pub fn new(receivers: usize, qos: QoS, payload_bytes: usize, batch: u16) -> Self {
        #[expect(clippy::disallowed_methods, reason = "one instant stands for all")]
        let now = Instant::now();
        let (mut router, chains) = router(now);
        let mut far_ends = Vec::new();
        let mut attach = |router: &mut Router, number| {
            let (near, far) = Socket::pair("bench").expect("a pair of sockets");
            far_ends.push(far);
            attach(router, &chains, near, number, now)
        };
        let publisher = attach(&mut router, 1);
        let receivers: Vec<Origin> = (2..)
            .take(receivers)
            .map(|number| attach(&mut router, number))
            .collect();
        let filter = TopicFilter::parse("bench/topic").expect("a filter");
        for receiver in &receivers {
            let subscriptions = &mut router.subscriptions;
            subscriptions.subscribe(receiver.slot, &filter, None, subscription(qos));
        }
        let (buffer, at) = packets(qos, payload_bytes, batch);
        let last_id = 0;
        Self {
            router,
            publisher,
            receivers,
            qos,
            buffer,
            at,
            last_id,
            now,
            _far_ends: far_ends,
        }
    }

    /// Routes the batch, and for QoS 1 the receivers' acknowledgements. Returns the bytes that would have been sent.
    pub fn round(&mut self) -> usize {
        let inbound = self.at.iter().map(|at| self.span(*at)).collect();
        self.handle(self.publisher, self.buffer.clone(), inbound);
        let bytes = self.drop_pending();
        if self.qos == QoS::AtLeastOnce {
            let first = self.last_id;
            for index in 0..self.receivers.len() {
                self.last_id = first;
                let count = self.at.len();
                let inbound = (0..count).map(|_| self.next_ack()).collect();
                self.handle(self.receivers[index], Bytes::new(), inbound);
            }
        }
        bytes
    }

    fn handle(&mut self, origin: Origin, buffer: Bytes, inbound: Vec<Inbound>) {
        let batch = Batch {
            origin,
            buffer,
            inbound,
            spares: None,
        };
        self.router.handle(Command::Batch(batch), self.now);
    }

    fn span(&self, (start, end): (usize, usize)) -> Inbound {
        let packet = self.buffer.get(start..end).unwrap_or_default();
        let decoder = Decoder::new(ProtocolVersion::newest(false));
        let frame = decoder.frame(packet).ok().flatten().expect("a packet");
        let view = PublishView::decode(&decoder, frame, packet).expect("a PUBLISH");
        let offset = |part: &[u8]| part.as_ptr().addr() - self.buffer.as_ptr().addr();
        let narrow = |offset: usize| u32::try_from(offset).expect("a small buffer");
        Inbound::Span(PublishSpan {
            frame_start: narrow(start),
            topic_start: narrow(offset(view.topic.as_bytes())),
            payload_start: narrow(end - view.payload.len()),
            end: narrow(end),
            topic_bytes: u16::try_from(view.topic.len()).expect("a short topic"),
            packet_id: view.packet_id,
            qos: view.qos,
            retain: view.retain,
            properties: None,
        })
    }

    fn next_ack(&mut self) -> Inbound {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let id = PacketId::new(self.last_id).expect("not 0");
        Inbound::Ack(Packet::Puback(Ack::new(id, ReasonCode::Success)))
    }

    /// What the flush at the end of a batch does, without sending.
    fn drop_pending(&mut self) -> usize {
        let mut bytes = 0;
        for slot in std::mem::take(&mut self.router.sessions.touched) {
            let session = self.router.sessions.session_mut(slot);
            let Some(link) = session.and_then(|session| session.link.as_mut()) else {
                continue;
            };
            link.touched = false;
            bytes += link.pending.len();
            link.pending.clear();
            let buffer = std::mem::take(&mut link.pending);
            self.router.sessions.give_back(buffer);
        }
        bytes
    }
}

fn subscription(qos: QoS) -> Subscription {
    let options = SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    };
    Subscription { options, id: None }
}

fn router(now: Instant) -> (Router, Arc<AuthChains>) {
    let config = Config::default();
    let chains = AuthChains::load(&config, Extensions::default()).expect("the default rules");
    let chains = Arc::new(chains);
    let metrics = Arc::new(Metrics::default());
    let plugins = PluginHost::new(
        &config,
        &mut Vec::new(),
        &Extensions::default(),
        Arc::clone(&metrics),
    );
    let plugins = Arc::new(plugins.expect("the default plugins"));
    let (flushers, _) = bounded(1);
    let memory = Arc::new(MemoryWatch::new(config.limits.max_memory));
    let settings = RouterSettings::from_config(&config);
    let router = Router::new(
        settings,
        Arc::clone(&chains),
        metrics,
        plugins,
        memory,
        flushers,
        now,
    );
    (router, chains)
}

fn attach(
    router: &mut Router,
    chains: &AuthChains,
    socket: Socket,
    number: u64,
    now: Instant,
) -> Origin {
    let connection = ConnectionId(NonZeroU64::new(number).expect("not 0"));
    let options = OutboxOptions::default();
    let outbox = Outbox::new(Arc::new(socket), Layers::plain(), options, Box::new(|_| {}));
    let (reply, answer) = reply();
    let attach = Attach {
        connection,
        client_id: format!("client{number}").into(),
        owner: Owner::Listener("default".into()),
        listener: "default".into(),
        address: None,
        version: ProtocolVersion::newest(false),
        clean_start: true,
        session_expiry: SessionExpiry::AtDisconnect,
        keep_alive: 0,
        will: None,
        send_window: u16::MAX,
        receive_maximum: u16::MAX,
        maximum_packet_size: u32::MAX,
        topic_alias_maximum: 0,
        problem_information: false,
        mount_point: None,
        max_qos: QoS::ExactlyOnce,
        chain: Arc::clone(chains.listener("default")),
        origin: Arc::default(),
        outbox,
        connack: Box::new(Connack {
            session_present: false,
            reason: ReasonCode::Success,
            properties: ConnackProperties::default(),
        }),
        reply,
    };
    router.handle(Command::Attach(Box::new(attach)), now);
    let slot = answer.wait().and_then(Result::ok);
    let slot = slot.expect("a session");
    Origin { slot, connection }
}

fn packets(qos: QoS, payload_bytes: usize, count: u16) -> (Bytes, Vec<(usize, usize)>) {
    let mut buffer = Vec::new();
    let mut at = Vec::new();
    for number in 1..=count {
        let head = PublishHead {
            dup: false,
            qos,
            retain: false,
            topic: "bench/topic",
            packet_id: PacketId::new(number).filter(|_| qos != QoS::AtMostOnce),
            properties: None,
            message_expiry_interval: None,
            topic_alias: None,
            subscription_identifiers: &[],
        };
        let start = buffer.len();
        encode_head(
            &head,
            ProtocolVersion::newest(false),
            payload_bytes,
            &mut buffer,
        )
        .expect("a PUBLISH");
        buffer.resize(buffer.len() + payload_bytes, 0x2a);
        at.push((start, buffer.len()));
    }
    (buffer.into(), at)
}
