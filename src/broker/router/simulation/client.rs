//! A simulated client without IO: its session, what it was promised, and what it got. It judges every packet it reads.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;

use super::model::{Model, Step, WillState, index_of};
use super::scenario::{Profile, Scenario};
use crate::broker::router::command::SessionExpiry;
use crate::proto::packet::publish::PublishProperties;
use crate::proto::packet::subscribe::Subscribe;
use crate::proto::packet::unsubscribe::Unsubscribe;
use crate::proto::packet::{
    Ack, Connack, Packet, Publish, RetainHandling, Suback, SubscriptionOptions,
};
use crate::proto::topic::parse_subscription;
use crate::proto::{PacketId, QoS, ReasonCode};

#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) index: usize,
    pub(super) profile: Profile,
    pub(super) life: Life,
    /// Packets that it will send.
    pub(super) out: Vec<Packet>,
    /// In the order first sent.
    pub(super) outgoing: Vec<Flow>,
    /// QoS 2 messages that came and whose PUBREL has not.
    incoming: BTreeMap<PacketId, usize>,
    requests: BTreeMap<PacketId, Request>,
    last_id: u16,
    pub(super) eras: Vec<Era>,
    /// Counts the sessions from the client's side.
    epoch: u32,
    pub(super) session: Belief,
    /// It gave its session up, and the broker may not know.
    pub(super) must_clean: bool,
    pub(super) received: Vec<Reception>,
    /// The newest first reception by publisher, topic and QoS in this epoch.
    newest: BTreeMap<(usize, &'static str, u8), usize>,
    seen: BTreeSet<usize>,
    aliases: BTreeMap<u16, ByteString>,
}

/// Its connection.
#[derive(Debug, Clone)]
pub(super) enum Life {
    Away,
    /// CONNECT is sent.
    Connecting(Connecting),
    /// CONNACK came.
    Connected(Connecting),
}

/// What a CONNECT said.
#[derive(Debug, Clone)]
pub(super) struct Connecting {
    pub(super) clean_start: bool,
    pub(super) expiry: SessionExpiry,
    pub(super) will: Option<usize>,
    pub(super) will_delay: u64,
}

/// What the client may take for certain of its session at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belief {
    /// There is none.
    No,
    /// There is one, unless it has expired. `away_since`: virtual time of the earliest end of its connection;
    /// `ends_at`: virtual time after which it must have expired.
    Yes {
        away_since: Option<u64>,
        ends_at: Option<u64>,
    },
    Maybe,
}

/// A message that the client publishes at QoS 1 or 2.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) id: PacketId,
    pub(super) publish: Publish,
    pub(super) message: usize,
    /// PUBREC came.
    pub(super) released: bool,
}

#[derive(Debug, Clone)]
enum Request {
    /// The place of its era, and when it was sent.
    Subscribe(usize, Step),
    /// A filter, and when it was sent.
    Unsubscribe(&'static str, Step),
}

/// A subscription from its SUBSCRIBE to its end.
#[derive(Debug, Clone)]
pub(super) struct Era {
    pub(super) filter: &'static str,
    pub(super) qos: QoS,
    /// First and last SUBSCRIBE.
    pub(super) asked: Step,
    pub(super) last_asked: Step,
    /// First and last SUBACK.
    pub(super) granted: Option<Step>,
    pub(super) last_granted: Option<Step>,
    pub(super) wants_retained: bool,
    /// UNSUBSCRIBE was sent.
    pub(super) leaving: Option<Step>,
    /// Its session was given up or may have been: nothing of it is due any more.
    pub(super) is_over: bool,
    /// It is certain that it is gone.
    pub(super) left: Option<Step>,
}

#[derive(Debug, Clone)]
pub(super) struct Reception {
    pub(super) step: Step,
    pub(super) message: usize,
    pub(super) retain: bool,
    qos: QoS,
    dup: bool,
    crashes: u32,
    epoch: u32,
}

impl Client {
    pub(super) fn new(index: usize, profile: Profile) -> Self {
        Self {
            index,
            profile,
            life: Life::Away,
            out: Vec::new(),
            outgoing: Vec::new(),
            incoming: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_id: 0,
            eras: Vec::new(),
            epoch: 0,
            session: Belief::No,
            must_clean: false,
            received: Vec::new(),
            newest: BTreeMap::new(),
            seen: BTreeSet::new(),
            aliases: BTreeMap::new(),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("client{}", self.index)
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.life, Life::Connected(_))
    }

    /// A connection of a session that will stay.
    pub(super) fn keeps_session(&self) -> bool {
        matches!(&self.life, Life::Connected(with) if with.expiry != SessionExpiry::AtDisconnect)
    }

    // What it does.

    /// Sends CONNECT.
    pub(super) fn connect(&mut self, connecting: Connecting, model: &mut Model) {
        let step = model.tick();
        model.note(|| {
            let end = connecting.expiry;
            format!(
                "client{} CONNECT clean={} {end:?}",
                self.index, connecting.clean_start
            )
        });
        if connecting.clean_start {
            self.give_up(step);
            self.must_clean = true;
        } else if self.session == Belief::No {
            self.session = Belief::Maybe;
        }
        if let Belief::Yes { ends_at, .. } = &mut self.session {
            *ends_at = None;
        }
        self.life = Life::Connecting(connecting);
    }

    /// The session is over as far as the client is concerned.
    fn give_up(&mut self, step: Step) {
        self.outgoing.clear();
        self.doubt(step);
    }

    /// The session may be over, and another one in its place.
    fn doubt(&mut self, step: Step) {
        self.incoming.clear();
        self.epoch += 1;
        self.newest.clear();
        self.seen.clear();
        for era in &mut self.eras {
            era.is_over = true;
            era.leaving.get_or_insert(step);
        }
    }

    /// The connection is gone, or the client has let go of it. `with_disconnect`: it has said so.
    pub(super) fn lose(&mut self, with_disconnect: bool, model: &mut Model) {
        let (had_connack, with) = match std::mem::replace(&mut self.life, Life::Away) {
            Life::Away => return,
            Life::Connecting(with) => (false, with),
            Life::Connected(with) => (true, with),
        };
        let step = model.tick();
        model.note(|| format!("client{} is away, DISCONNECT={with_disconnect}", self.index));
        self.out.clear();
        self.requests.clear();
        self.aliases.clear();
        if let Some(will) = with.will {
            model.messages[will].will = WillState::Possible;
        }
        if with.expiry == SessionExpiry::AtDisconnect {
            self.give_up(step);
            self.session = if had_connack {
                Belief::No
            } else {
                Belief::Maybe
            };
        } else if let Belief::Yes { away_since, .. } = &mut self.session {
            away_since.get_or_insert(model.now);
        }
    }

    /// DISCONNECT is about to be sent; `ends`: with a Session Expiry Interval of 0.
    pub(super) fn say_goodbye(&mut self, ends: bool, model: &mut Model) {
        let step = model.tick();
        if ends {
            self.give_up(step);
            self.must_clean = true;
        }
    }

    /// A packet identifier that is not in use. Few are used, so that they come again soon.
    fn take_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id % 40 + 1;
            let id = PacketId::new(self.last_id).unwrap();
            let in_use = self.outgoing.iter().any(|flow| flow.id == id);
            if !in_use && !self.requests.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn publish(&mut self, message: usize, payload: String, model: &mut Model) {
        let published = &model.messages[message];
        let id = (published.qos != QoS::AtMostOnce).then(|| self.take_id());
        let properties = published.expiry.map(|expiry| {
            Box::new(PublishProperties {
                message_expiry_interval: Some(u32::try_from(expiry / 1000).unwrap()),
                ..PublishProperties::default()
            })
        });
        let publish = Publish {
            dup: false,
            qos: published.qos,
            retain: published.retain,
            topic: published.topic.into(),
            packet_id: id,
            properties,
            payload: payload.into(),
        };
        model.note(|| {
            let Publish {
                topic,
                qos,
                retain,
                packet_id,
                ..
            } = &publish;
            let id = packet_id.map_or(0, PacketId::value);
            format!(
                "client{} PUBLISH {message} {topic} {qos} retain={retain} id={id}",
                self.index
            )
        });
        if let Some(id) = id {
            let publish = publish.clone();
            self.outgoing.push(Flow {
                id,
                publish,
                message,
                released: false,
            });
        }
        self.out.push(Packet::Publish(Box::new(publish)));
    }

    pub(super) fn subscribe(&mut self, at: usize, wants_retained: bool, model: &mut Model) {
        let (filter, qos) = self.profile.filters[at];
        let step = model.tick();
        let id = self.take_id();
        model.note(|| format!("client{} SUBSCRIBE {filter} {qos} id={id}", self.index));
        let living = |era: &&mut Era| era.filter == filter && era.leaving.is_none() && !era.is_over;
        if let Some(era) = self.eras.iter_mut().find(living) {
            era.last_asked = step;
            era.wants_retained = wants_retained;
        } else {
            self.eras.push(Era {
                filter,
                qos,
                asked: step,
                last_asked: step,
                granted: None,
                last_granted: None,
                wants_retained,
                leaving: None,
                is_over: false,
                left: None,
            });
        }
        let living = |era: &Era| era.filter == filter && era.leaving.is_none() && !era.is_over;
        let at = self.eras.iter().position(living).unwrap();
        self.requests.insert(id, Request::Subscribe(at, step));
        let options = SubscriptionOptions {
            qos,
            retain_handling: if wants_retained {
                RetainHandling::Always
            } else {
                RetainHandling::Never
            },
            ..SubscriptionOptions::default()
        };
        self.out.push(Packet::Subscribe(Box::new(Subscribe {
            packet_id: id,
            filters: vec![(filter.into(), options)],
            subscription_identifier: None,
            user_properties: Vec::new(),
        })));
    }

    pub(super) fn unsubscribe(&mut self, filter: &'static str, model: &mut Model) {
        let step = model.tick();
        let id = self.take_id();
        model.note(|| format!("client{} UNSUBSCRIBE {filter} id={id}", self.index));
        for era in self.eras.iter_mut().filter(|era| era.filter == filter) {
            era.leaving.get_or_insert(step);
        }
        self.requests.insert(id, Request::Unsubscribe(filter, step));
        self.out.push(Packet::Unsubscribe(Box::new(Unsubscribe {
            packet_id: id,
            filters: vec![filter.into()],
            user_properties: Vec::new(),
        })));
    }

    // What it reads.

    pub(super) fn on_packet(&mut self, packet: &Packet, scenario: &Scenario, model: &mut Model) {
        let step = model.tick();
        if let (Life::Connecting(_), false) = (&self.life, matches!(packet, Packet::Connack(_))) {
            model.fail(|| format!("{}: {packet:?} before CONNACK", self.name()));
            return;
        }
        match packet {
            Packet::Connack(connack) => self.on_connack(connack, step, model),
            Packet::Publish(publish) => self.on_publish(publish, scenario, step, model),
            Packet::Puback(ack) => self.on_puback(ack, step, model),
            Packet::Pubrec(ack) => self.on_pubrec(ack, step, model),
            Packet::Pubrel(ack) => {
                model.note(|| format!("client{} got PUBREL id={}", self.index, ack.packet_id));
                self.incoming.remove(&ack.packet_id);
                let ack = Ack::new(ack.packet_id, ReasonCode::Success);
                self.out.push(Packet::Pubcomp(ack));
            }
            Packet::Pubcomp(ack) => {
                model.note(|| format!("client{} got PUBCOMP id={}", self.index, ack.packet_id));
                let flows = &mut self.outgoing;
                match flows.iter().position(|flow| flow.id == ack.packet_id) {
                    Some(at) if flows[at].released => drop(flows.remove(at)),
                    _ => model.fail(|| format!("{}: PUBCOMP of nothing", self.name())),
                }
            }
            Packet::Suback(suback) => self.on_suback(suback, step, model),
            Packet::Unsuback(unsuback) => {
                model.note(|| format!("client{} got UNSUBACK", self.index));
                let request = self.requests.remove(&unsuback.packet_id);
                let Some(Request::Unsubscribe(filter, sent)) = request else {
                    model.fail(|| format!("{}: UNSUBACK of nothing", self.name()));
                    return;
                };
                for era in self.eras.iter_mut().filter(|era| era.filter == filter) {
                    if era.leaving.is_some_and(|leaving| leaving <= sent) {
                        era.left.get_or_insert(step);
                    }
                }
            }
            Packet::Disconnect(goodbye) if goodbye.reason == ReasonCode::ServerShuttingDown => {}
            other => model.fail(|| format!("{} was sent {other:?}", self.name())),
        }
    }

    fn on_connack(&mut self, connack: &Connack, step: Step, model: &mut Model) {
        let Life::Connecting(with) = std::mem::replace(&mut self.life, Life::Away) else {
            model.fail(|| format!("{}: a second CONNACK", self.name()));
            return;
        };
        let present = connack.session_present;
        model.note(|| format!("client{} CONNACK present={present}", self.index));
        let may_be_present = !with.clean_start
            && match self.session {
                Belief::No => false,
                Belief::Yes { ends_at, .. } => ends_at.is_none_or(|at| model.now < at),
                Belief::Maybe => true,
            };
        let must_be_present = !with.clean_start
            && match (self.session, self.profile.expiry) {
                (Belief::Yes { away_since, .. }, SessionExpiry::After(seconds)) => {
                    away_since.is_none_or(|since| model.now < since + u64::from(seconds) * 1000)
                }
                (Belief::Yes { .. }, _) => true,
                _ => false,
            };
        if present && !may_be_present {
            let session = self.session;
            model.fail(|| format!("{}: a session that ended is back: {session:?}", self.name()));
        }
        if !present && must_be_present {
            model.fail(|| format!("{}: its session is lost", self.name()));
        }
        if !present {
            self.give_up(step);
            for era in &mut self.eras {
                era.left.get_or_insert(step);
            }
        } else if !must_be_present {
            // Made by a CONNECT before this one, whose CONNACK was not read, after the older one was over.
            self.doubt(step);
            for flow in &self.outgoing {
                model.messages[flow.message].may_double = true;
            }
        }
        self.must_clean = false;
        self.session = Belief::Yes {
            away_since: None,
            ends_at: None,
        };
        self.life = Life::Connected(with);
        for flow in &self.outgoing {
            if flow.released {
                let ack = Ack::new(flow.id, ReasonCode::Success);
                self.out.push(Packet::Pubrel(ack));
                continue;
            }
            let message = &mut model.messages[flow.message];
            message.sends += 1;
            let dup = Publish {
                dup: true,
                ..flow.publish.clone()
            };
            self.out.push(Packet::Publish(Box::new(dup)));
        }
    }

    fn on_puback(&mut self, ack: &Ack, step: Step, model: &mut Model) {
        let flows = &mut self.outgoing;
        let at = flows.iter().position(|flow| flow.id == ack.packet_id);
        let Some(at) = at.filter(|at| flows[*at].publish.qos == QoS::AtLeastOnce) else {
            model.fail(|| format!("{}: PUBACK of nothing: {ack:?}", self.name()));
            return;
        };
        let flow = flows.remove(at);
        model.note(|| {
            format!(
                "client{} got PUBACK of {} {:?}",
                self.index, flow.message, ack.reason
            )
        });
        if !ack.reason.is_error() {
            model.messages[flow.message].acked = Some(step);
        }
    }

    fn on_pubrec(&mut self, ack: &Ack, step: Step, model: &mut Model) {
        let flows = &mut self.outgoing;
        let at = flows.iter().position(|flow| flow.id == ack.packet_id);
        let Some(at) = at.filter(|at| flows[*at].publish.qos == QoS::ExactlyOnce) else {
            model.fail(|| format!("{}: PUBREC of nothing: {ack:?}", self.name()));
            return;
        };
        let flow = &mut flows[at];
        let message = flow.message;
        model.note(|| {
            format!(
                "client{} got PUBREC of {message} {:?}",
                self.index, ack.reason
            )
        });
        if ack.reason.is_error() {
            flows.remove(at);
            return;
        }
        if !std::mem::replace(&mut flow.released, true) {
            model.messages[message].acked = Some(step);
        }
        let ack = Ack::new(ack.packet_id, ReasonCode::Success);
        self.out.push(Packet::Pubrel(ack));
    }

    fn on_suback(&mut self, suback: &Suback, step: Step, model: &mut Model) {
        model.note(|| format!("client{} got SUBACK id={}", self.index, suback.packet_id));
        let Some(Request::Subscribe(at, sent)) = self.requests.remove(&suback.packet_id) else {
            model.fail(|| format!("{}: SUBACK of nothing", self.name()));
            return;
        };
        let era = &mut self.eras[at];
        if suback.reasons.first().map(|reason| reason.as_u8()) != Some(era.qos.as_u8()) {
            model.fail(|| format!("client{}: {suback:?}", self.index));
        }
        era.granted.get_or_insert(step);
        if era.last_asked == sent {
            era.last_granted = Some(step);
        }
        let filter = era.filter;
        // What it was before is replaced.
        let before = self.eras.iter_mut().take(at);
        for era in before.filter(|era| era.filter == filter) {
            era.left.get_or_insert(step);
        }
    }

    fn on_publish(
        &mut self,
        publish: &Publish,
        scenario: &Scenario,
        step: Step,
        model: &mut Model,
    ) {
        let Some(topic) = self.topic(publish) else {
            model.fail(|| {
                format!(
                    "{}: an alias that it was not told: {publish:?}",
                    self.name()
                )
            });
            return;
        };
        let index = index_of(&publish.payload);
        model.note(|| {
            let Publish {
                qos,
                retain,
                dup,
                packet_id,
                ..
            } = publish;
            let id = packet_id.map_or(0, PacketId::value);
            format!(
                "client{} got {index:?} {topic} {qos} id={id} dup={dup} retain={retain}",
                self.index
            )
        });
        if publish.payload.is_empty() {
            self.answer(publish, usize::MAX, model);
            return;
        }
        let published = index.and_then(|index| Some((index, model.messages.get(index)?)));
        let Some((index, message)) = published.filter(|(_, one)| one.topic == &*topic) else {
            model.fail(|| format!("{}: never published: {publish:?}", self.name()));
            return;
        };
        let who = self.name();
        if publish.qos > message.qos {
            model.fail(|| format!("{who}: {index} came with {}", publish.qos));
            return;
        }
        if !matches!(message.will, WillState::None | WillState::Possible) {
            let will = message.will;
            model.fail(|| format!("{who}: will {index} came, although {will:?}"));
            return;
        }
        let subscribed = self.eras.iter().any(|era| {
            era.left.is_none_or(|left| left > message.first_sent)
                && era.matches(&topic)
                && !(publish.retain && era.is_shared())
        });
        if !subscribed {
            model.fail(|| format!("{who}: {index} on {topic} came without a subscription"));
            return;
        }
        if publish.retain {
            self.judge_retained(index, publish, step, model);
        }
        if !self.answer(publish, index, model) {
            return;
        }
        if !publish.retain {
            self.judge(index, publish, scenario, model);
        }
        self.received.push(Reception {
            step,
            message: index,
            retain: publish.retain,
            qos: publish.qos,
            dup: publish.dup,
            crashes: model.crashes,
            epoch: self.epoch,
        });
    }

    fn topic(&mut self, publish: &Publish) -> Option<ByteString> {
        let alias = publish.properties.as_ref().and_then(|one| one.topic_alias);
        match alias {
            None => Some(publish.topic.clone()),
            Some(alias) if publish.topic.is_empty() => self.aliases.get(&alias).cloned(),
            Some(alias) => {
                self.aliases.insert(alias, publish.topic.clone());
                Some(publish.topic.clone())
            }
        }
    }

    /// The receiver's part of the flow. `false`: a QoS 2 message that came already.
    fn answer(&mut self, publish: &Publish, index: usize, model: &mut Model) -> bool {
        let Some(id) = publish.packet_id else {
            return true;
        };
        if let Some(before) = self.incoming.get(&id).copied() {
            if before != index || publish.qos != QoS::ExactlyOnce {
                model.fail(|| {
                    format!(
                        "{}: id {id} is that of {before}, and {index} came",
                        self.name()
                    )
                });
            }
            self.out
                .push(Packet::Pubrec(Ack::new(id, ReasonCode::Success)));
            return false;
        }
        let ack = Ack::new(id, ReasonCode::Success);
        if publish.qos == QoS::ExactlyOnce {
            self.incoming.insert(id, index);
            self.out.push(Packet::Pubrec(ack));
        } else {
            self.out.push(Packet::Puback(ack));
        }
        true
    }

    /// Once, in order, and not after its time.
    fn judge(&mut self, index: usize, publish: &Publish, scenario: &Scenario, model: &mut Model) {
        let who = self.name();
        let message = &model.messages[index];
        let message = message.clone();
        let (publisher, topic, sends) = (message.publisher, message.topic, message.sends);
        let (first_sent, is_will) = (message.first_sent, message.will != WillState::None);
        let before = self.received.iter();
        let before =
            before.filter(|one| one.message == index && !one.retain && one.epoch == self.epoch);
        let (again, fresh) = before.fold((0, 0), |(again, fresh), one| {
            (again + 1, fresh + u32::from(!one.dup))
        });
        if again > 0 && publish.qos == QoS::ExactlyOnce && !message.may_double {
            model.fail(|| format!("{who}: QoS 2 message {index} came twice"));
        }
        // After a crash nothing says that a QoS 1 message was sent before: neither of one copy nor of another.
        let may_repeat = sends * (model.crashes + 1);
        if !publish.dup && !self.profile.is_worker() && fresh >= may_repeat.max(1) {
            model.fail(|| format!("{who}: {index} came {} times without DUP", fresh + 1));
        }
        if again > 0 || self.profile.is_worker() || is_will || !self.seen.insert(index) {
            return;
        }
        let stream = (publisher, topic, publish.qos.as_u8());
        let newest = self.newest.entry(stream).or_insert(index);
        let newer = *newest;
        *newest = newer.max(index);
        let may_expire = message.expiry.is_some();
        // What was sent again is in its place if it came the first time, and came with this QoS then.
        let with_this_qos =
            |era: &Era| era.matches(topic) && era.qos.min(message.qos) == publish.qos;
        let was_subscribed = publish.qos != QoS::AtMostOnce
            && self.eras.iter().any(|era| {
                with_this_qos(era)
                    && era.is_certain(first_sent)
                    && era.leaving.is_none()
                    && !era.is_over
            })
            && self
                .eras
                .iter()
                .all(|era| !era.matches(topic) || with_this_qos(era));
        if newer > index
            && (sends == 1 || (was_subscribed && !may_expire && !scenario.is_limited()))
        {
            model.fail(|| format!("{who}: {index} came after {newer}"));
        }
    }

    /// Not older than what was retained when it subscribed, nor than what it has.
    fn judge_retained(&self, index: usize, publish: &Publish, step: Step, model: &mut Model) {
        let topic = model.messages[index].topic;
        // What is sent again may be of a subscription that is gone.
        let living = self
            .eras
            .iter()
            .filter(|era| (era.left.is_none() || publish.dup) && era.matches(topic));
        let asked = living.map(|era| era.asked).min().unwrap_or(0);
        let who = self.name();
        if let Some(sure) = model.retained_for_sure(topic, asked)
            && sure > index
        {
            model.fail(|| format!("{who}: retained {index} came, although {sure} replaced it"));
        }
        let is_first = !self.received.iter().any(|one| one.message == index);
        let newer = self.received.iter().find(|one| {
            let message = &model.messages[one.message];
            one.message > index
                && one.epoch == self.epoch
                && one.crashes == model.crashes
                && message.retain
                && message.topic == topic
                && one.qos == publish.qos
                && message.acked.is_some_and(|at| at < step)
        });
        if let Some(newer) = newer.filter(|_| is_first).map(|one| one.message) {
            model.fail(|| format!("{who}: retained {index} came after {newer}"));
        }
    }
}

impl Era {
    pub(super) fn matches(&self, topic: &str) -> bool {
        let (_, filter) = parse_subscription(&self.filter.into()).unwrap();
        filter.matches(topic)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.filter.starts_with('$')
    }

    /// It was there at `step`.
    pub(super) fn is_certain(&self, step: Step) -> bool {
        self.granted.is_some_and(|at| at < step) && self.leaving.is_none_or(|at| at > step)
    }
}
