//! The read loop of an attached connection: bytes to packets to one command per read for the router.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;

mod authentication;
mod checks;

use self::authentication::Authentication;
pub(super) use self::checks::NOT_UTF8;
use super::read_buffer::{QUIET_AFTER, ReadBuffer, ReadError, time_left};
use super::{End, ListenerState, Services};
use crate::broker::auth::{Action, AuthChain};
use crate::broker::config::Config;
use crate::broker::plugin::{Event, SessionInfo};
use crate::broker::router::command::{Batch, Command, ConnectionId, Inbound, Origin, PublishSpan};
use crate::net::socket::Socket;
use crate::outbox::{OutBuf, Outbox};
use crate::proto::flow::alias::AliasesIn;
use crate::proto::flow::keep_alive;
use crate::proto::packet::{Packet, PublishView};
use crate::proto::{
    Decoder, Frame, Message, PacketType, ProtocolError, ProtocolVersion, QoS, ReasonCode,
    TopicName, codec,
};

/// How long a reader waits before it looks again whether there is memory, or what it read may go on.
const MEMORY_PAUSE: Duration = Duration::from_millis(50);

/// From this size on the memory of a batch is used again.
const WORTH_SPARING_BYTES: usize = 2048;

/// What the handshake found out about a connection.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) services: Arc<Services>,
    pub(super) listener: Arc<ListenerState>,
    pub(super) config: Arc<Config>,
    pub(super) chain: Arc<AuthChain>,
    pub(super) socket: Arc<Socket>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) connection: ConnectionId,
    pub(super) version: ProtocolVersion,
    pub(super) client_id: ByteString,
    pub(super) user_name: Option<ByteString>,
    pub(super) peer: String,
    pub(super) keep_alive: u16,
    pub(super) problem_information: bool,
    /// The client's Maximum Packet Size.
    pub(super) maximum_packet_size: u32,
    pub(super) topic_alias_maximum: u16,
    pub(super) authentication_method: Option<ByteString>,
    pub(super) address: Option<IpAddr>,
    pub(super) max_qos: QoS,
    pub(super) connect_expiry: u32,
    pub(super) client: Option<Arc<SessionInfo>>,
}

/// The reading side of one attached connection.
#[derive(Debug)]
pub(super) struct Reader {
    services: Arc<Services>,
    listener: Arc<ListenerState>,
    config: Arc<Config>,
    chain: Arc<AuthChain>,
    generation: u64,
    checks_publish: bool,
    pub(super) socket: Arc<Socket>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) origin: Origin,
    decoder: Decoder,
    pub(super) client_id: ByteString,
    user_name: Option<ByteString>,
    pub(super) peer: String,
    pub(super) problem_information: bool,
    /// The client's Maximum Packet Size.
    pub(super) maximum_packet_size: usize,
    authentication: Option<Box<Authentication>>,
    mount_point: Option<ByteString>,
    max_qos: QoS,
    connect_expiry: u32,
    aliases: AliasesIn,
    /// How long the client may be silent between packets.
    idle_limit: Option<Duration>,
    /// How long one packet may take from its first byte to its last.
    packet_limit: Duration,
    buffer: ReadBuffer,
    packet_began_at: Option<Instant>,
    /// The buffer begins with a PUBLISH that waits for the store.
    is_stopped: bool,
    /// The client went while it was stopped: what it published is not taken any more, but its DISCONNECT is.
    has_gone: bool,
    inbound: Vec<Inbound>,
    counts: Counts,
    /// How often the access rules said no.
    pub(super) denials: u64,
    /// The log has a line about a payload that is not what it says.
    payload_format_reported: bool,
    /// Who is connected, if a plugin wants to see packets.
    client: Option<Arc<SessionInfo>>,
}

/// What one batch adds to the metrics.
#[derive(Debug, Default)]
struct Counts {
    packets: u64,
    publishes: u64,
    publish_bytes: u64,
    pings: u64,
}

impl Reader {
    pub(super) fn new(settled: Settled) -> Box<Self> {
        let limits = &settled.config.limits;
        let mut decoder = Decoder::new(settled.version);
        let clamp = |size: usize| {
            u32::try_from(size)
                .unwrap_or(u32::MAX)
                .min(codec::MAX_PACKET_BYTES)
        };
        decoder.max_packet_bytes = clamp(limits.max_packet_size);
        decoder.max_property_bytes = clamp(limits.max_properties_size);
        decoder.max_properties = clamp(limits.max_properties);
        decoder.max_filters = clamp(limits.max_filters);
        let keep_alive = Duration::from_secs(settled.keep_alive.into());
        Box::new(Self {
            generation: settled.services.generation.load(Ordering::Relaxed),
            checks_publish: settled.chain.restricts(Action::Publish),
            mount_point: settled
                .listener
                .config
                .mount_point
                .as_deref()
                .map(ByteString::from),
            idle_limit: keep_alive::server_deadline(
                settled.keep_alive,
                settled.config.timeout_disconnect_delay,
            ),
            packet_limit: limits.packet_timeout.max(keep_alive.mul_f64(1.5)),
            aliases: AliasesIn::new(settled.topic_alias_maximum),
            origin: Origin {
                slot: u32::MAX,
                connection: settled.connection,
            },
            decoder,
            buffer: ReadBuffer::default(),
            packet_began_at: None,
            is_stopped: false,
            has_gone: false,
            inbound: Vec::new(),
            counts: Counts::default(),
            denials: 0,
            payload_format_reported: false,
            client: settled.client,
            services: settled.services,
            listener: settled.listener,
            config: settled.config,
            chain: settled.chain,
            socket: settled.socket,
            outbox: settled.outbox,
            client_id: settled.client_id,
            user_name: settled.user_name,
            peer: settled.peer,
            problem_information: settled.problem_information,
            maximum_packet_size: settled.maximum_packet_size as usize,
            authentication: settled
                .authentication_method
                .map(|method| Authentication::new(method, settled.address)),
            max_qos: settled.max_qos,
            connect_expiry: settled.connect_expiry,
        })
    }

    pub(super) fn attached(mut self: Box<Self>, origin: Origin) -> Box<Self> {
        self.origin = origin;
        self
    }

    /// Who the client is, for the log.
    pub(super) fn user_text(&self) -> String {
        match &self.user_name {
            Some(name) => format!("user '{}'", name.escape_debug()),
            None => "anonymous".to_owned(),
        }
    }

    pub(super) fn version(&self) -> ProtocolVersion {
        self.decoder.version
    }

    /// What the handshake has read, and nobody counted.
    pub(super) fn begin_with(&mut self, buffer: ReadBuffer) {
        self.buffer = buffer;
        self.buffer.received = 0;
    }

    /// Reads and hands on until the connection ends, or is silent for [`QUIET_AFTER`]: `None`.
    ///
    /// # Blocking
    /// On the socket, and on the router's inbox.
    pub(super) fn run_while_busy(&mut self) -> Option<End> {
        let mut end = self.process();
        while end.is_ok() {
            let is_quiet =
                self.buffer.bytes.is_empty() && is_longer(self.idle_limit, Some(QUIET_AFTER));
            let limit = if is_quiet {
                Some(QUIET_AFTER)
            } else {
                self.idle_limit
            };
            end = match self.wait_for_bytes(limit) {
                Err(End::KeepAlive) if is_quiet => return None,
                Err(end) => Err(end),
                Ok(()) => self.process(),
            };
        }
        end.err()
    }

    /// Reads and hands on until the connection ends, on a thread of its own. It was silent for so long already.
    ///
    /// # Blocking
    /// On the socket, and on the router's inbox.
    pub(super) fn run(&mut self, silent_for: Duration) -> End {
        let mut limit = self
            .idle_limit
            .map(|limit| limit.saturating_sub(silent_for));
        // That of the handshake still stands on the socket.
        let timeout = self.buffer.set_timeout(&self.socket, limit);
        let mut end = timeout.map_err(End::from).and_then(|()| self.process());
        while end.is_ok() {
            end = self.wait_for_bytes(limit).and_then(|()| self.process());
            limit = self.idle_limit;
        }
        end.err().unwrap_or(End::Closed)
    }

    /// Counts what was read and is in no whole packet.
    pub(super) fn count_received(&self) {
        let received = &self.services.metrics.bytes_received;
        received.add(self.buffer.received);
    }

    /// Whether nothing is left to say or to hear: the client has closed, and all that was for it is with the kernel.
    pub(super) fn is_over(&self) -> bool {
        let is_closed = |read: std::io::Result<usize>| read.is_ok_and(|count| count == 0);
        self.outbox.is_plain()
            && self.outbox.backlog() == 0
            && is_closed(self.socket.try_read(&mut [0; 64]))
    }

    fn wait_for_bytes(&mut self, idle_limit: Option<Duration>) -> Result<(), End> {
        while self.services.memory.is_critical() {
            crate::thread::rest(MEMORY_PAUSE);
        }
        if self.is_stopped {
            return self.wait_for_store();
        }
        if self.buffer.bytes.is_empty() {
            self.packet_began_at = None;
            self.read(idle_limit, End::KeepAlive)
        } else {
            self.read_rest()
        }
    }

    /// Leaves a PUBLISH where it is for as long as too much waits for the disk, unless the client goes. What is read of it
    /// then is what the kernel has: it ends.
    #[inline(never)]
    fn wait_for_store(&mut self) -> Result<(), End> {
        while self.stops_publishing() {
            crate::thread::rest(MEMORY_PAUSE);
            if self.socket.is_hung_up() {
                self.has_gone = true;
                break;
            }
        }
        self.is_stopped = false;
        Ok(())
    }

    fn stops_publishing(&self) -> bool {
        self.services.backlog.stops(&self.client_id)
    }

    /// Reads more of a packet that is not whole.
    #[inline(never)]
    fn read_rest(&mut self) -> Result<(), End> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the thread of the connection reads its own clock"
        )]
        let now = Instant::now();
        let began_at = *self.packet_began_at.get_or_insert(now);
        let left = time_left(began_at + self.packet_limit, now).ok_or(End::PacketTimeout)?;
        self.read(Some(left), End::PacketTimeout)
    }

    /// Reads once, for at most `patience`; `late` when that is over. Where the socket's timeout is shorter it is left as it
    /// is, and the rest is waited for only if it comes to that: data that flows costs no system call for timeouts.
    fn read(&mut self, patience: Option<Duration>, late: End) -> Result<(), End> {
        let Self { buffer, socket, .. } = self;
        if is_longer(buffer.timeout, patience) {
            buffer.set_timeout(socket, patience)?;
        }
        let mut left = patience;
        loop {
            match buffer.read(socket, &self.outbox, &self.services.spares) {
                Err(ReadError::TimedOut) => {
                    let waited = buffer.timeout.unwrap_or_default();
                    left = left.map(|left| left.saturating_sub(waited));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(late);
                    }
                    buffer.set_timeout(socket, left)?;
                }
                result => return Ok(result?),
            }
        }
    }

    /// Decodes every whole packet in the buffer and hands them to the router as one command.
    #[inline(never)]
    fn process(&mut self) -> Result<(), End> {
        if self.decoder.frame(&self.buffer.bytes)?.is_none() {
            return Ok(());
        }
        self.refresh();
        let is_large = self.buffer.bytes.len() >= WORTH_SPARING_BYTES;
        if is_large && self.inbound.capacity() == 0 {
            self.inbound = self.services.spares.list();
        }
        let data = Bytes::from(std::mem::take(&mut self.buffer.bytes));
        let stops_publishing = self.stops_publishing();
        let mut at = 0;
        let result = loop {
            let rest = data.get(at..).unwrap_or_default();
            let frame = match self.decoder.frame(rest) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(End::Malformed(error)),
            };
            let is_publish = frame.packet_type == PacketType::Publish;
            if self.has_gone && is_publish {
                // It was not acknowledged.
                at += frame.total_bytes as usize;
                continue;
            }
            if stops_publishing && is_publish {
                // What came before it goes on: PINGREQ, acknowledgements.
                self.is_stopped = true;
                break Ok(());
            }
            let end = at + frame.total_bytes as usize;
            self.counts.packets += 1;
            if let Err(error) = self.on_packet(&data, at, end, frame) {
                break Err(error);
            }
            at = end;
        };
        self.packet_began_at = None;
        if let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            self.buffer.bytes = rest.to_vec();
        }
        // What came before a bad packet counts.
        let pings = self.counts.pings;
        self.hand_on(data)?;
        self.answer_pings(pings);
        result
    }

    /// Sends the batch to the router.
    fn hand_on(&mut self, data: Bytes) -> Result<(), End> {
        let metrics = &self.services.metrics;
        let counts = std::mem::take(&mut self.counts);
        metrics.messages_received.add(counts.packets);
        if counts.publishes > 0 {
            metrics.publish_received.add(counts.publishes);
            metrics.publish_bytes_received.add(counts.publish_bytes);
        }
        metrics
            .bytes_received
            .add(std::mem::take(&mut self.buffer.received));
        if self.inbound.is_empty() {
            return Ok(());
        }
        let is_large = data.len() >= WORTH_SPARING_BYTES;
        // What ends a delivery has no answer, and can wait for what has one.
        let ends_deliveries = !is_large && self.inbound.iter().all(Inbound::ends_delivery);
        let spares = is_large.then(|| Arc::clone(&self.services.spares));
        let batch = Batch {
            origin: self.origin,
            buffer: data,
            inbound: std::mem::take(&mut self.inbound),
            spares,
        };
        let router = &self.services.router;
        // BLOCKS: on the router's inbox: a full one stops the reading, and so the client.
        let given = if ends_deliveries {
            router.leave(Command::Batch(batch))
        } else {
            router.send(Command::Batch(batch))
        };
        given.map_err(|_| End::Stopping)
    }

    fn on_packet(&mut self, data: &Bytes, at: usize, end: usize, frame: Frame) -> Result<(), End> {
        if let Some(client) = &self.client {
            self.show_packet(client, data, at, end, frame);
        }
        match frame.packet_type {
            PacketType::Publish => return self.on_publish(data, at, end, frame),
            PacketType::Pingreq => {
                self.decoder.decode(frame, &data.slice(at..end))?;
                self.counts.pings += 1;
                return Ok(());
            }
            _ => {}
        }
        match self.decoder.decode(frame, &data.slice(at..end))? {
            packet @ (Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubrel(_)
            | Packet::Pubcomp(_)) => {
                self.inbound.push(Inbound::Ack(packet));
                Ok(())
            }
            Packet::Subscribe(subscribe) => {
                let request = self.check_subscribe(&subscribe)?;
                self.inbound.push(Inbound::Subscribe(Box::new(request)));
                Ok(())
            }
            Packet::Unsubscribe(unsubscribe) => {
                let request = self.check_unsubscribe(&unsubscribe)?;
                self.inbound.push(Inbound::Unsubscribe(Box::new(request)));
                Ok(())
            }
            Packet::Disconnect(disconnect) => {
                let session_expiry = disconnect.properties.session_expiry_interval;
                // [MQTT-3.14.2-2]
                if self.connect_expiry == 0 && session_expiry.is_some_and(|seconds| seconds > 0) {
                    return Err(ProtocolError::SessionExpiryFromZero.into());
                }
                let cap = u32::try_from(self.config.persistence.session_expiry.as_secs())
                    .unwrap_or(u32::MAX);
                let session_expiry = session_expiry.map(|seconds| seconds.min(cap));
                Err(if disconnect.reason == ReasonCode::Success {
                    End::Disconnect { session_expiry }
                } else {
                    End::DisconnectWithWill { session_expiry }
                })
            }
            Packet::Connect(_) => Err(ProtocolError::SecondConnect.into()),
            Packet::Auth(auth) => self.on_auth(&auth),
            _ => Err(ProtocolError::WrongDirection.into()),
        }
    }

    /// Answers PINGREQ, without the router. After the batch was handed on: a client that has its PINGRESP may rely on what
    /// it sent before.
    fn answer_pings(&self, pings: u64) {
        if pings == 0 {
            return;
        }
        let mut out = OutBuf::default();
        for _ in 0..pings {
            out.bytes_mut().extend_from_slice(&[0xD0, 0]);
        }
        self.services.metrics.bytes_sent.add(out.len() as u64);
        self.services.metrics.messages_sent.add(pings);
        let _ = self.outbox.send(&mut out);
    }

    /// Checks a PUBLISH and adds it to the batch.
    ///
    /// Source: MQTT 5.0 §3.3.4; MQTT 3.1.1 §3.3.5.
    fn on_publish(&mut self, data: &Bytes, at: usize, end: usize, frame: Frame) -> Result<(), End> {
        let packet = data.get(at..end).unwrap_or_default();
        let view = PublishView::decode(&self.decoder, frame, packet)?;
        self.counts.publishes += 1;
        self.counts.publish_bytes += view.payload.len() as u64;
        // [MQTT-3.2.2-11], [MQTT-3.2.2-14]
        if view.qos > self.max_qos {
            return Err(ProtocolError::NotAvailable(ReasonCode::QosNotSupported).into());
        }
        if view.retain && !self.config.retain_available {
            return Err(ProtocolError::NotAvailable(ReasonCode::RetainNotSupported).into());
        }
        let mut alias = None;
        if let Some(properties) = &view.properties {
            // [MQTT-3.3.4-6]
            if !properties.subscription_identifiers.is_empty() {
                return Err(ProtocolError::SubscriptionIdentifierFromClient.into());
            }
            alias = properties.topic_alias;
        }
        let resolved = self.aliases.resolve(alias, view.topic)?.cloned();
        let topic = resolved.as_ref().map_or(view.topic, |topic| topic.as_str());
        let mounted = self.mount_point.as_ref();
        let mounted = mounted.map(|prefix| ByteString::from(format!("{prefix}{topic}")));
        if let Some(refusal) = self.refusal(&view, topic, mounted.as_deref().unwrap_or(topic))? {
            if view.packet_id.is_some() {
                self.inbound.push(Inbound::Refused(Box::new(refusal)));
            }
            return Ok(());
        }
        if self.services.plugins.wants_messages() {
            self.show_message(&view, topic, data);
        }
        if resolved.is_some() || mounted.is_some() {
            let mut publish = view.to_publish(&data.slice(at..end));
            publish.topic = mounted.unwrap_or_else(|| ByteString::from(topic));
            self.inbound.push(Inbound::Publish(Box::new(publish)));
            return Ok(());
        }
        let offset = |address: usize| span_offset(address - data.as_ptr().addr());
        self.inbound.push(Inbound::Span(PublishSpan {
            frame_start: span_offset(at),
            topic_start: offset(view.topic.as_ptr().addr()),
            payload_start: span_offset(end - view.payload.len()),
            end: span_offset(end),
            topic_bytes: u16::try_from(view.topic.len()).unwrap_or(u16::MAX),
            packet_id: view.packet_id,
            qos: view.qos,
            retain: view.retain,
            properties: view.properties,
        }));
        Ok(())
    }

    /// Takes new settings over after a reload.
    fn refresh(&mut self) {
        let generation = self.services.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let settings = self.services.settings();
        self.chain = Arc::clone(settings.auth.listener(&self.listener.name));
        self.checks_publish = self.chain.restricts(Action::Publish);
        self.config = settings.config;
    }

    fn show_message(&self, view: &PublishView<'_>, topic: &str, data: &Bytes) {
        let Ok(name) = TopicName::parse(topic) else {
            return;
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the thread of the connection reads its own clock"
        )]
        let message = Message::from_publish(view, data, name, Instant::now());
        let client_id = self.client_id.clone();
        self.services.plugins.fire(Event::MessageReceived {
            client_id,
            message: Arc::new(message),
        });
    }

    fn show_packet(
        &self,
        client: &Arc<SessionInfo>,
        data: &Bytes,
        at: usize,
        end: usize,
        frame: Frame,
    ) {
        let Ok(packet) = self.decoder.decode(frame, &data.slice(at..end)) else {
            return;
        };
        let client = Arc::clone(client);
        self.services.plugins.fire(Event::PacketReceived {
            packet: Box::new(packet),
            client,
        });
    }
}

/// Whether the timeout `one` lasts longer than `other`; `None` is for ever.
fn is_longer(one: Option<Duration>, other: Option<Duration>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

/// A position in a read buffer. A packet is at most 256 MiB, and a buffer little more.
fn span_offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
