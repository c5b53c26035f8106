//! The client's session without IO: flows in both directions, subscriptions to restore, and who waits for which answer.
//!
//! It outlives connections. Packets of the server go in; bytes to send are appended to the [`OutBuf`] that the caller
//! hands in, and what else must happen is collected in [`Effects`], so that the caller can do it without a lock held.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::options::{Payload, Subscription};
use super::token::Slot;
use super::{ClientError, Published, ReceivedMessage, Rejection};
use crate::outbox::{OutBuf, SHARE_FROM_BYTES};
use crate::proto::flow::alias::{AliasUse, AliasesIn, AliasesOut};
use crate::proto::flow::incoming::{Incoming, Verdict};
use crate::proto::flow::outgoing::{AckError, Next, Outgoing, Resend};
use crate::proto::packet::ack::{self, Ack, AckProperties};
use crate::proto::packet::connack::Connack;
use crate::proto::packet::disconnect::Disconnect;
use crate::proto::packet::publish::{self, Publish, PublishHead, PublishProperties};
use crate::proto::packet::suback::Suback;
use crate::proto::packet::subscribe::{Subscribe, SubscriptionOptions};
use crate::proto::packet::unsuback::Unsuback;
use crate::proto::packet::unsubscribe::Unsubscribe;
use crate::proto::packet::{Packet, PacketType, UserProperty};
use crate::proto::{PacketId, ProtocolError, ProtocolVersion, QoS, ReasonCode, codec, topic};

/// A QoS 1 or 2 message from `publish` until its flow is over.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Box<PublishProperties>>,
    pub(crate) slot: Slot<Published>,
}

/// What the server allows on this connection.
///
/// Source: MQTT 5.0 §3.2.2.3.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    receive_maximum: u16,
    maximum_qos: QoS,
    maximum_packet_bytes: usize,
    topic_alias_maximum: u16,
    retain_available: bool,
    wildcard_available: bool,
    identifiers_available: bool,
    shared_available: bool,
}

/// What this side said in CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) receive_maximum: u16,
    pub(crate) topic_alias_maximum: u16,
}

/// What must happen after packets were handled.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Messages for the program, in the order of arrival.
    pub(crate) delivered: Vec<ReceivedMessage>,
    /// Publications whose flow is over.
    pub(crate) completed: Vec<Completed>,
    /// SUBSCRIBE and UNSUBSCRIBE that were answered.
    pub(crate) answered: Vec<Answered>,
    /// PINGREQ that were answered, or never will be.
    pub(crate) pongs: Vec<(Pong, Result<(), ClientError>)>,
    /// Subscriptions that the server did not take back after a reconnect.
    pub(crate) lost_subscriptions: Vec<(ByteString, ReasonCode)>,
    /// There may be room in the window again.
    pub(crate) room: bool,
}

/// A publication and what became of it.
pub(crate) type Completed = (Arc<Publication>, Result<Published, ClientError>);

/// Where PINGRESP goes.
pub(crate) type Pong = Arc<Slot<()>>;

/// A SUBSCRIBE or UNSUBSCRIBE and what the server said.
pub(crate) type Answered = (Answer, Result<Vec<ReasonCode>, ClientError>);

/// Where the answer to a SUBSCRIBE or UNSUBSCRIBE goes.
pub(crate) type Answer = Arc<Slot<Vec<ReasonCode>>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    version: ProtocolVersion,
    limits: Limits,
    max_in_flight: u16,
    outgoing: Outgoing<Arc<Publication>>,
    /// QoS 2 messages among them.
    exact: u16,
    incoming: Incoming,
    aliases_in: AliasesIn,
    aliases_out: AliasesOut,
    /// QoS 2 messages of this connection that the program has not taken: PUBREC is still owed.
    owed: HashSet<PacketId>,
    requests: VecDeque<Request>,
    /// What the server granted, to ask for it again.
    subscriptions: BTreeMap<ByteString, Granted>,
    /// PINGREQ sent and not answered, oldest first.
    pings: VecDeque<Ping>,
    /// The server has the session in which they were sent first.
    resends_are_duplicates: bool,
    /// Which connection this is; 0: none.
    connection: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Granted {
    options: SubscriptionOptions,
    identifier: Option<u32>,
}

#[derive(Debug)]
struct Request {
    /// `None` between two connections.
    id: Option<PacketId>,
    kind: RequestKind,
    user_properties: Vec<UserProperty>,
    /// `None`: nobody waits, a subscription is being restored.
    answer: Option<Answer>,
}

#[derive(Debug)]
enum RequestKind {
    Subscribe {
        filters: Vec<(ByteString, SubscriptionOptions)>,
        identifier: Option<u32>,
    },
    Unsubscribe {
        filters: Vec<ByteString>,
    },
}

#[derive(Debug)]
struct Ping {
    sent_at: Instant,
    answer: Option<Pong>,
}

impl Session {
    pub(crate) fn new(version: ProtocolVersion, max_in_flight: u16) -> Self {
        Self {
            version,
            limits: Limits::none(),
            max_in_flight,
            outgoing: Outgoing::new(max_in_flight),
            exact: 0,
            incoming: Incoming::new(u16::MAX),
            aliases_in: AliasesIn::default(),
            aliases_out: AliasesOut::default(),
            owed: HashSet::new(),
            requests: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            pings: VecDeque::new(),
            resends_are_duplicates: false,
            connection: 0,
        }
    }

    /// A connection is made: what was in flight is sent again, what waits for an answer is asked again and, if the
    /// server has no session, every subscription too.
    ///
    /// `announced` is what CONNECT said; `connection` is above 0 and never used twice.
    ///
    /// Source: MQTT 5.0 §4.4, §3.1.2.4; MQTT 3.1.1 §4.4, §3.1.2.4.
    pub(crate) fn on_connected(
        &mut self,
        connection: u64,
        version: ProtocolVersion,
        connack: &Connack,
        announced: Announced,
        out: &mut OutBuf,
        effects: &mut Effects,
    ) {
        self.connection = connection;
        self.version = version;
        self.limits = Limits::of(connack);
        self.outgoing
            .set_window(self.max_in_flight.min(self.limits.receive_maximum));
        if !connack.session_present {
            self.incoming = Incoming::new(u16::MAX);
        }
        // Before 5.0 the server knows no Receive Maximum, so there is none to break.
        let receive_maximum = if version.has_receive_maximum() {
            announced.receive_maximum
        } else {
            u16::MAX
        };
        // [MQTT-3.3.2-7]: aliases end with the connection.
        self.aliases_in = AliasesIn::new(announced.topic_alias_maximum);
        self.aliases_out = AliasesOut::new(self.limits.topic_alias_maximum.min(MOST_ALIASES));
        self.incoming.on_connected(receive_maximum);
        if !connack.session_present {
            self.restore_subscriptions();
        }
        for index in 0..self.requests.len() {
            self.send_request(index, out);
        }
        // [MQTT-3.3.1-1]: to a server without the session it is the first time.
        self.resends_are_duplicates = connack.session_present;
        self.resend(out, effects);
        effects.room = true;
    }

    /// The connection is gone. Flows and requests stay for the next one.
    pub(crate) fn on_disconnected(&mut self, effects: &mut Effects) {
        self.connection = 0;
        self.outgoing.on_disconnected();
        self.owed.clear();
        for request in &mut self.requests {
            request.id = None;
        }
        self.requests.retain(|request| request.answer.is_some());
        for ping in self.pings.drain(..) {
            if let Some(answer) = ping.answer {
                effects
                    .pongs
                    .push((answer, Err(ClientError::ConnectionLost)));
            }
        }
    }

    /// No further connection will be made: everything that waits fails with `error`.
    pub(crate) fn give_up(&mut self, error: &ClientError, effects: &mut Effects) {
        self.on_disconnected(effects);
        for flow in self.outgoing.drain() {
            effects.completed.push((flow.message, Err(error.clone())));
        }
        self.exact = 0;
        for request in self.requests.drain(..) {
            if let Some(answer) = request.answer {
                effects.answered.push((answer, Err(error.clone())));
            }
        }
        effects.room = true;
    }

    /// The messages that were retracted from the inbox are the server's again; see
    /// [`Inbox::retract`](super::inbox::Inbox::retract).
    pub(crate) fn on_retracted(&mut self, retracted: &[(PacketId, QoS)]) {
        for (id, qos) in retracted {
            if *qos == QoS::ExactlyOnce {
                self.incoming.on_acknowledged(*id);
            }
        }
    }

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

    /// How many publications are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.outgoing.len()
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
            return Err(ClientError::Timeout(super::Phase::Room));
        };
        self.exact += u16::from(publication.qos == QoS::ExactlyOnce);
        let sent = self.put_publication(publication, id, false, out);
        if sent.is_err() {
            self.abandon(id, publication.qos);
        }
        sent
    }

    /// Sends a SUBSCRIBE, or keeps it for the next connection when there is none.
    pub(crate) fn subscribe(
        &mut self,
        filters: Vec<Subscription>,
        identifier: Option<u32>,
        user_properties: Vec<UserProperty>,
        answer: &Answer,
        out: Option<&mut OutBuf>,
    ) -> Result<(), ClientError> {
        for filter in &filters {
            self.check_filter(filter)?;
        }
        if identifier.is_some() && !self.limits.identifiers_available {
            return Err(ClientError::NotAvailable(
                ReasonCode::SubscriptionIdentifiersNotSupported,
            ));
        }
        let filters = filters
            .into_iter()
            .map(|subscription| (subscription.filter, subscription.options))
            .collect();
        let kind = RequestKind::Subscribe {
            filters,
            identifier,
        };
        self.request(kind, user_properties, answer, out)
    }

    /// Sends an UNSUBSCRIBE, or keeps it for the next connection when there is none.
    pub(crate) fn unsubscribe(
        &mut self,
        filters: Vec<ByteString>,
        user_properties: Vec<UserProperty>,
        answer: &Answer,
        out: Option<&mut OutBuf>,
    ) -> Result<(), ClientError> {
        let kind = RequestKind::Unsubscribe { filters };
        self.request(kind, user_properties, answer, out)
    }

    /// Nobody waits for `answer` any more. What the server does with the request still counts.
    pub(crate) fn forget_answer(&mut self, answer: &Answer) {
        for request in &mut self.requests {
            let is_it = |waiting: &Answer| Arc::ptr_eq(waiting, answer);
            if request.answer.as_ref().is_some_and(is_it) {
                request.answer = None;
            }
        }
    }

    /// Sends PINGREQ.
    pub(crate) fn ping(&mut self, now: Instant, answer: Option<Pong>, out: &mut OutBuf) {
        self.pings.push_back(Ping {
            sent_at: now,
            answer,
        });
        out.bytes_mut().extend_from_slice(&PINGREQ);
    }

    /// When the oldest PINGREQ without an answer was sent.
    pub(crate) fn pinged_at(&self) -> Option<Instant> {
        self.pings.front().map(|ping| ping.sent_at)
    }

    /// The program took a message of QoS 1 or 2: acknowledges it, on the connection on which it came and no other.
    ///
    /// On another connection the server sends the message again, and the identifier may stand for another one already.
    pub(crate) fn on_taken(&mut self, message: &ReceivedMessage, out: &mut OutBuf) -> bool {
        let Some(id) = message.packet_id() else {
            return false;
        };
        if message.connection != self.connection {
            return false;
        }
        if message.qos() == QoS::AtLeastOnce {
            self.incoming.on_acknowledged(id);
            ack::encode_bare(PacketType::Puback, id, out.bytes_mut());
        } else {
            self.owed.remove(&id);
            ack::encode_bare(PacketType::Pubrec, id, out.bytes_mut());
        }
        true
    }

    /// Handles a PUBLISH.
    ///
    /// Source: MQTT 5.0 §3.3, §4.3; MQTT 3.1.1 §3.3, §4.3.
    pub(crate) fn on_publish(
        &mut self,
        mut publish: Publish,
        out: &mut OutBuf,
        effects: &mut Effects,
    ) -> Result<(), ClientError> {
        self.resolve_alias(&mut publish)?;
        if let Some(id) = publish.packet_id {
            match self.incoming.on_publish(id, publish.qos)? {
                Verdict::Deliver if publish.qos == QoS::ExactlyOnce => {
                    self.owed.insert(id);
                }
                Verdict::Deliver => {}
                Verdict::Duplicate => {
                    if !self.owed.contains(&id) {
                        ack::encode_bare(PacketType::Pubrec, id, out.bytes_mut());
                    }
                    return Ok(());
                }
                Verdict::IdInUse if self.version.has_reason_codes() => {
                    let puback = Ack::new(id, ReasonCode::PacketIdentifierInUse);
                    self.put(&Packet::Puback(puback), out);
                    return Ok(());
                }
                Verdict::IdInUse => return Err(ProtocolError::UnexpectedAck.into()),
            }
        }
        effects
            .delivered
            .push(ReceivedMessage::new(publish, self.connection));
        Ok(())
    }

    /// Handles every packet but PUBLISH.
    ///
    /// # Errors
    /// The connection must end.
    pub(crate) fn on_packet(
        &mut self,
        packet: Packet,
        out: &mut OutBuf,
        effects: &mut Effects,
    ) -> Result<(), ClientError> {
        match packet {
            Packet::Publish(publish) => return self.on_publish(*publish, out, effects),
            Packet::Puback(ack) => self.on_puback(ack, out, effects),
            Packet::Pubrec(ack) => self.on_pubrec(ack, out, effects),
            Packet::Pubrel(ack) => self.on_pubrel(&ack, out),
            Packet::Pubcomp(ack) => self.on_pubcomp(ack, out, effects),
            Packet::Suback(suback) => return self.on_suback(*suback, effects),
            Packet::Unsuback(unsuback) => return self.on_unsuback(*unsuback, effects),
            Packet::Pingresp => self.on_pingresp(effects),
            Packet::Disconnect(disconnect) => return Err(rejected_by(*disconnect)),
            Packet::Auth(_) => return Err(ProtocolError::UnexpectedAuth.into()),
            Packet::Connack(_)
            | Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq => return Err(ProtocolError::WrongDirection.into()),
        }
        Ok(())
    }

    /// Puts the topic in for which an alias stands. [MQTT-3.3.2-8], [MQTT-3.3.2-12]
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), ClientError> {
        let Some(properties) = &publish.properties else {
            return Ok(());
        };
        if let Some(topic) = self
            .aliases_in
            .resolve(properties.topic_alias, &publish.topic)?
        {
            publish.topic = topic.clone().into_byte_string();
        }
        Ok(())
    }

    fn on_puback(&mut self, ack: Ack, out: &mut OutBuf, effects: &mut Effects) {
        // An unknown one is no error: the flow may have ended on an earlier connection.
        if let Ok(publication) = self.outgoing.on_puback(ack.packet_id, ack.reason) {
            complete(publication, ack, effects);
            self.go_on(out, effects);
        }
    }

    fn on_pubrec(&mut self, ack: Ack, out: &mut OutBuf, effects: &mut Effects) {
        let id = ack.packet_id;
        match self.outgoing.on_pubrec(id, ack.reason) {
            Ok(Next::Release) => ack::encode_bare(PacketType::Pubrel, id, out.bytes_mut()),
            Ok(Next::Completed(publication)) => {
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

    fn on_pubrel(&mut self, ack: &Ack, out: &mut OutBuf) {
        let reason = if self.incoming.on_pubrel(ack.packet_id) {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.owed.remove(&ack.packet_id);
        self.put(&Packet::Pubcomp(Ack::new(ack.packet_id, reason)), out);
    }

    fn on_pubcomp(&mut self, mut ack: Ack, out: &mut OutBuf, effects: &mut Effects) {
        if let Ok(publication) = self.outgoing.on_pubcomp(ack.packet_id) {
            // The server had the message when it sent PUBREC: that it has forgotten the identifier since is no failure.
            if ack.reason == ReasonCode::PacketIdentifierNotFound {
                ack.reason = ReasonCode::Success;
            }
            self.exact = self.exact.saturating_sub(1);
            complete(publication, ack, effects);
            self.go_on(out, effects);
        }
    }

    fn on_suback(&mut self, suback: Suback, effects: &mut Effects) -> Result<(), ClientError> {
        let request = self.answered(suback.packet_id)?;
        let RequestKind::Subscribe {
            filters,
            identifier,
        } = request.kind
        else {
            return Err(ProtocolError::UnexpectedAck.into());
        };
        if filters.len() != suback.reasons.len() {
            return Err(ProtocolError::UnexpectedAck.into());
        }
        for ((filter, options), reason) in filters.into_iter().zip(&suback.reasons) {
            if !reason.is_error() {
                let granted = Granted {
                    options,
                    identifier,
                };
                self.subscriptions.insert(filter, granted);
            } else if request.answer.is_none() {
                self.subscriptions.remove(&filter);
                effects.lost_subscriptions.push((filter, *reason));
            }
        }
        if let Some(answer) = request.answer {
            effects.answered.push((answer, Ok(suback.reasons)));
        }
        Ok(())
    }

    fn on_unsuback(
        &mut self,
        unsuback: Unsuback,
        effects: &mut Effects,
    ) -> Result<(), ClientError> {
        let request = self.answered(unsuback.packet_id)?;
        let RequestKind::Unsubscribe { filters } = request.kind else {
            return Err(ProtocolError::UnexpectedAck.into());
        };
        let mut reasons = unsuback.reasons;
        if !self.version.has_reason_codes() {
            reasons = vec![ReasonCode::Success; filters.len()];
        }
        if filters.len() != reasons.len() {
            return Err(ProtocolError::UnexpectedAck.into());
        }
        for (filter, reason) in filters.iter().zip(&reasons) {
            if !reason.is_error() {
                self.subscriptions.remove(filter);
            }
        }
        if let Some(answer) = request.answer {
            effects.answered.push((answer, Ok(reasons)));
        }
        Ok(())
    }

    fn on_pingresp(&mut self, effects: &mut Effects) {
        if let Some(Ping {
            answer: Some(answer),
            ..
        }) = self.pings.pop_front()
        {
            effects.pongs.push((answer, Ok(())));
        }
    }

    /// The request that was sent under `id`.
    fn answered(&mut self, id: PacketId) -> Result<Request, ClientError> {
        let at = self.requests.iter().position(|r| r.id == Some(id));
        let request = at.and_then(|at| self.requests.remove(at));
        let request = request.ok_or(ProtocolError::UnexpectedAck)?;
        self.outgoing.release_id(id);
        Ok(request)
    }

    fn request(
        &mut self,
        kind: RequestKind,
        user_properties: Vec<UserProperty>,
        answer: &Answer,
        out: Option<&mut OutBuf>,
    ) -> Result<(), ClientError> {
        self.requests.push_back(Request {
            id: None,
            kind,
            user_properties,
            answer: Some(Arc::clone(answer)),
        });
        let Some(out) = out else { return Ok(()) };
        let sent = self.try_send_request(self.requests.len() - 1, out);
        if sent.is_err() {
            self.requests.pop_back();
        }
        sent
    }

    fn send_request(&mut self, index: usize, out: &mut OutBuf) {
        // It was sent before, so it can be encoded; without a free identifier it waits for the next connection.
        let _ = self.try_send_request(index, out);
    }

    fn try_send_request(&mut self, index: usize, out: &mut OutBuf) -> Result<(), ClientError> {
        let Some(request) = self.requests.get_mut(index) else {
            return Ok(());
        };
        let Some(id) = self.outgoing.reserve_id() else {
            return Err(ClientError::Timeout(super::Phase::Room));
        };
        let before = out.bytes_mut().len();
        let packet = request.to_packet(id);
        let encoded = codec::encode(&packet, self.version, out.bytes_mut());
        let size = out.bytes_mut().len() - before;
        let too_large = size > self.limits.maximum_packet_bytes;
        if encoded.is_err() || too_large {
            out.bytes_mut().truncate(before);
            self.outgoing.release_id(id);
            encoded?;
            return Err(ClientError::NotAvailable(ReasonCode::PacketTooLarge));
        }
        request.id = Some(id);
        Ok(())
    }

    /// Asks again for what the server granted, before anything else that waits.
    fn restore_subscriptions(&mut self) {
        let mut restored: Vec<Request> = Vec::new();
        for (filter, granted) in &self.subscriptions {
            let filter = (filter.clone(), granted.options);
            if let Some(Request {
                kind:
                    RequestKind::Subscribe {
                        filters,
                        identifier,
                    },
                ..
            }) = restored.last_mut()
                && *identifier == granted.identifier
                && filters.len() < RESTORED_AT_ONCE
            {
                filters.push(filter);
                continue;
            }
            restored.push(Request {
                id: None,
                kind: RequestKind::Subscribe {
                    filters: vec![filter],
                    identifier: granted.identifier,
                },
                user_properties: Vec::new(),
                answer: None,
            });
        }
        for request in restored.into_iter().rev() {
            self.requests.push_front(request);
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
    fn resend(&mut self, out: &mut OutBuf, effects: &mut Effects) {
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
            let sent = self.put_publication(&publication, id, dup, out);
            if let Err(error) = sent {
                self.abandon(id, publication.qos);
                effects.completed.push((publication, Err(error)));
            }
        }
    }

    /// Ends a flow that cannot be sent.
    fn abandon(&mut self, id: PacketId, qos: QoS) {
        let reason = ReasonCode::UnspecifiedError;
        if qos == QoS::ExactlyOnce {
            let _ = self.outgoing.on_pubrec(id, reason);
            self.exact = self.exact.saturating_sub(1);
        } else {
            let _ = self.outgoing.on_puback(id, reason);
        }
    }

    fn check_filter(&self, subscription: &Subscription) -> Result<(), ClientError> {
        let (share, filter) = topic::parse_subscription(&subscription.filter)?;
        if share.is_some() && subscription.options.no_local {
            // [MQTT-3.8.3-4]
            let problem = "cannot be set for a shared subscription";
            return Err(ClientError::invalid("no_local", problem));
        }
        if share.is_some() && !self.limits.shared_available {
            return Err(ClientError::NotAvailable(
                ReasonCode::SharedSubscriptionsNotSupported,
            ));
        }
        if filter.has_wildcard() && !self.limits.wildcard_available {
            return Err(ClientError::NotAvailable(
                ReasonCode::WildcardSubscriptionsNotSupported,
            ));
        }
        Ok(())
    }

    fn put_publication(
        &mut self,
        publication: &Publication,
        id: PacketId,
        dup: bool,
        out: &mut OutBuf,
    ) -> Result<(), ClientError> {
        let head = PublishHead {
            dup,
            packet_id: Some(id),
            ..publication.head()
        };
        self.put_head(&head, publication.payload.len(), out)?;
        out.push_shared(publication.payload.clone());
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

    /// An acknowledgement always fits: it has no strings.
    fn put(&self, packet: &Packet, out: &mut OutBuf) {
        let encoded = codec::encode(packet, self.version, out.bytes_mut());
        debug_assert!(encoded.is_ok(), "{packet:?}: {encoded:?}");
    }
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
}

impl Request {
    fn to_packet(&self, packet_id: PacketId) -> Packet {
        let user_properties = self.user_properties.clone();
        match &self.kind {
            RequestKind::Subscribe {
                filters,
                identifier,
            } => Packet::Subscribe(Box::new(Subscribe {
                packet_id,
                filters: filters.clone(),
                subscription_identifier: *identifier,
                user_properties,
            })),
            RequestKind::Unsubscribe { filters } => Packet::Unsubscribe(Box::new(Unsubscribe {
                packet_id,
                filters: filters.clone(),
                user_properties,
            })),
        }
    }
}

impl Limits {
    fn none() -> Self {
        Self::of(&Connack::new(false, ReasonCode::Success))
    }

    fn of(connack: &Connack) -> Self {
        let properties = &connack.properties;
        Self {
            receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
            maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            maximum_packet_bytes: properties
                .maximum_packet_size
                .map_or(usize::MAX, |bytes| bytes as usize),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            retain_available: properties.retain_available.unwrap_or(true),
            wildcard_available: properties.wildcard_subscription_available.unwrap_or(true),
            identifiers_available: properties
                .subscription_identifiers_available
                .unwrap_or(true),
            shared_available: properties.shared_subscription_available.unwrap_or(true),
        }
    }

    /// Why a message like this must not be sent. [MQTT-3.2.2-11], [MQTT-3.2.2-14]
    fn refuses(&self, qos: QoS, retain: bool) -> Option<ReasonCode> {
        if qos > self.maximum_qos {
            return Some(ReasonCode::QosNotSupported);
        }
        (retain && !self.retain_available).then_some(ReasonCode::RetainNotSupported)
    }
}

impl Effects {
    /// Tells everyone who waits. Takes locks: not to be called with one held.
    pub(crate) fn tell(&mut self) {
        for (publication, result) in self.completed.drain(..) {
            publication.slot.fill(result);
        }
        for (answer, result) in self.answered.drain(..) {
            answer.fill(result);
        }
        for (answer, result) in self.pongs.drain(..) {
            answer.fill(result);
        }
    }
}

fn complete(publication: Arc<Publication>, ack: Ack, effects: &mut Effects) {
    let result = if ack.reason.is_error() {
        Err(rejected(ack.reason, ack.properties))
    } else {
        Ok(Published {
            qos: publication.qos,
            packet_id: Some(ack.packet_id),
            reason: ack.reason,
            properties: ack.properties,
        })
    };
    effects.completed.push((publication, result));
}

fn rejected(reason: ReasonCode, properties: Option<Box<AckProperties>>) -> ClientError {
    let properties = properties.map_or_else(AckProperties::default, |boxed| *boxed);
    ClientError::Rejected(Arc::new(Rejection {
        reason,
        reason_string: properties.reason_string,
        server_reference: None,
        user_properties: properties.user_properties,
    }))
}

fn rejected_by(disconnect: Disconnect) -> ClientError {
    let properties = disconnect.properties;
    ClientError::Rejected(Arc::new(Rejection {
        reason: disconnect.reason,
        reason_string: properties.reason_string,
        server_reference: properties.server_reference,
        user_properties: properties.user_properties,
    }))
}

/// Topics that have an alias at most, however many the server would take.
const MOST_ALIASES: u16 = 1000;

/// See [`Session::exact_window`].
const EXACT_WINDOW: u16 = 19;

const PINGREQ: [u8; 2] = [0xC0, 0];

/// Filters in one SUBSCRIBE when subscriptions are restored: servers limit them.
const RESTORED_AT_ONCE: usize = 50;

#[cfg(test)]
mod tests;
