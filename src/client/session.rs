//! The client's session without IO: flows in both directions, subscriptions to restore, and who waits for which answer.
//!
//! It outlives connections. Packets of the server go in; bytes to send are appended to the [`OutBuf`] that the caller
//! hands in, and what else must happen is collected in [`Effects`], so that the caller can do it without a lock held.

mod effects;
mod journal;
mod limits;
mod outgoing;
mod requests;
mod responses;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use super::{ClientError, ReceivedMessage};
use crate::outbox::OutBuf;
use crate::proto::flow::alias::{AliasesIn, AliasesOut};
use crate::proto::flow::incoming::{Incoming, Verdict};
use crate::proto::flow::outgoing::Outgoing;
use crate::proto::packet::ack::{self, Ack};
use crate::proto::packet::connack::Connack;
use crate::proto::packet::publish::Publish;
use crate::proto::packet::{Packet, PacketType};
use crate::proto::{PacketId, ProtocolError, ProtocolVersion, QoS, ReasonCode, codec};
use crate::store::WallTime;

use effects::rejected_by;
pub(crate) use effects::{Answer, Effects, Pong};
pub(crate) use journal::{Changes, Journal};
use limits::Limits;
pub(crate) use outgoing::Publication;
use requests::{Granted, Request};
use responses::Responses;
pub(crate) use responses::{ResponseSlot, Subscribed};

/// What this side said in CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) receive_maximum: u16,
    pub(crate) topic_alias_maximum: u16,
}

/// A connection that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    /// Above 0 and never used twice.
    pub(crate) number: u64,
    pub(crate) at: WallTime,
}

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
    responses: Responses,
    /// PINGREQ sent and not answered, oldest first.
    pings: VecDeque<Ping>,
    /// The server has the session in which they were sent first.
    resends_are_duplicates: bool,
    /// Which connection this is; 0: none.
    connection: u64,
    connected_at: WallTime,
    /// With a store.
    journal: Option<Box<Journal>>,
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
            responses: Responses::default(),
            pings: VecDeque::new(),
            resends_are_duplicates: false,
            connection: 0,
            connected_at: WallTime(0),
            journal: None,
        }
    }

    /// A connection is made: what was in flight is sent again, what waits for an answer is asked again and, if the
    /// server has no session, every subscription too.
    ///
    /// `announced` is what CONNECT said.
    ///
    /// Source: MQTT 5.0 §4.4, §3.1.2.4; MQTT 3.1.1 §4.4, §3.1.2.4.
    pub(crate) fn on_connected(
        &mut self,
        made: Made,
        version: ProtocolVersion,
        connack: &Connack,
        announced: Announced,
        out: &mut OutBuf,
        effects: &mut Effects,
    ) {
        self.connection = made.number;
        self.connected_at = made.at;
        self.version = version;
        self.limits = Limits::of(connack);
        self.outgoing
            .set_window(self.max_in_flight.min(self.limits.receive_maximum));
        if !connack.session_present {
            self.incoming = Incoming::new(u16::MAX);
            if let Some(journal) = &mut self.journal {
                journal.forget_all();
            }
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
        self.renew_response_topic(connack.properties.response_information.as_ref());
        if !connack.session_present {
            self.restore_subscriptions();
        }
        self.send_requests(out, effects);
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

    /// No further connection will be made: everything that waits fails with `error`. What is in a store stays in flight
    /// all the same.
    pub(crate) fn give_up(&mut self, error: &ClientError, effects: &mut Effects) {
        self.on_disconnected(effects);
        if self.journal.is_some() {
            let flows = self.outgoing.inflight().map(|flow| flow.message);
            let waited_for = flows.filter(|publication| !publication.restored);
            effects.completed.extend(
                waited_for.map(|publication| (Arc::clone(publication), Err(error.clone()))),
            );
        } else {
            for flow in self.outgoing.drain() {
                effects.completed.push((flow.message, Err(error.clone())));
            }
            self.exact = 0;
        }
        for request in self.requests.drain(..) {
            if let Some(answer) = request.answer {
                effects.answered.push((answer, Err(error.clone())));
            }
        }
        self.give_up_responses(error, effects);
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

    /// How many publications are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.outgoing.len()
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
            self.note_received(id);
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
                Verdict::Deliver if self.is_response(&publish) => {}
                Verdict::Deliver if publish.qos == QoS::ExactlyOnce => {
                    self.owed.insert(id);
                }
                Verdict::Deliver => {}
                Verdict::Duplicate => {
                    if !self.owed.contains(&id) {
                        self.note_received(id);
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
        if self.is_response(&publish) {
            self.on_response(publish, out, effects);
            return Ok(());
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
            Packet::Auth(auth) => effects.authentications.push(*auth),
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

    fn on_pubrel(&mut self, ack: &Ack, out: &mut OutBuf) {
        let reason = if self.incoming.on_pubrel(ack.packet_id) {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.owed.remove(&ack.packet_id);
        if let Some(journal) = &mut self.journal {
            journal.forget(ack.packet_id);
        }
        self.put(&Packet::Pubcomp(Ack::new(ack.packet_id, reason)), out);
    }

    /// PUBREC is about to leave.
    fn note_received(&mut self, id: PacketId) {
        if let Some(journal) = &mut self.journal {
            journal.receive(id);
        }
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

    /// An acknowledgement always fits: it has no strings.
    fn put(&self, packet: &Packet, out: &mut OutBuf) {
        let encoded = codec::encode(packet, self.version, out.bytes_mut());
        debug_assert!(encoded.is_ok(), "{packet:?}: {encoded:?}");
    }
}

/// Topics that have an alias at most, however many the server would take.
const MOST_ALIASES: u16 = 1000;

const PINGREQ: [u8; 2] = [0xC0, 0];

#[cfg(test)]
mod tests;
