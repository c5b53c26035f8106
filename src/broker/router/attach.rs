//! Connect, take-over, detach: sessions and their links, wills and expiry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::{Attach, DetachCause, Goodbye, Origin, SessionExpiry};
use super::journal::Mark;
use super::link::{Link, Payload};
use super::publication::Publication;
use super::session::{LastConnection, Session};
use super::subscriptions::SessionSlot;
use super::{Router, Timer};
use crate::broker::auth::Action;
use crate::broker::plugin::{Event, SessionInfo};
use crate::outbox::OutBuf;
use crate::proto::ReasonCode;
use crate::proto::flow::alias::AliasesOut;
use crate::proto::packet::Packet;

impl Router {
    /// Finds or makes the session of an authenticated client, and links it to the client's connection.
    ///
    /// Source: MQTT 5.0 §3.1.4 [MQTT-3.1.4-3], [MQTT-3.1.4-4], §3.2.2.1.1 [MQTT-3.2.2-2], [MQTT-3.2.2-3].
    pub(super) fn handle_attach(&mut self, attach: Attach, now: Instant) {
        // Its handshake began before the settings said so.
        if let Some(goodbye) = &self.sessions.settings.redirection {
            attach.reply.give(Err(goodbye.reason));
            return;
        }
        let existing = self.sessions.find(&attach.client_id);
        if let Some(slot) = existing
            && self
                .sessions
                .session(slot)
                .is_some_and(|session| session.owner != attach.owner)
        {
            attach.reply.give(Err(ReasonCode::NotAuthorized));
            return;
        }
        let persistent = attach.session_expiry != SessionExpiry::AtDisconnect;
        let has_record = existing
            .and_then(|slot| self.sessions.session(slot))
            .is_some_and(|session| session.key.is_some());
        let journal = &mut self.sessions.journal;
        let waits = persistent || has_record || journal.may_bring_back(&attach.client_id);
        if waits && journal.is_in_trouble() {
            // The change could not be stored, and CONNACK would not leave before it is.
            self.metrics.sessions_refused.increment();
            attach.reply.give(Err(ReasonCode::ServerUnavailable));
            return;
        }
        let mark = self.sessions.journal.mark();
        let limit = self.sessions.settings.max_sessions;
        if existing.is_none() && persistent && self.sessions.persistent() >= limit {
            self.metrics.sessions_refused.increment();
            attach.reply.give(Err(ReasonCode::QuotaExceeded));
            return;
        }
        let resumed = existing.and_then(|slot| self.resume(slot, attach.clean_start, now));
        let slot = resumed.unwrap_or_else(|| {
            let last = last_connection(&attach, false);
            self.sessions.insert(Session::new(
                attach.client_id.clone(),
                attach.owner.clone(),
                last,
                Arc::clone(&attach.chain),
            ))
        });
        self.link(slot, attach, resumed.is_some(), mark);
        if resumed.is_some() {
            self.sessions.pump(slot, &self.retained, now);
        }
    }

    /// Takes an existing session over. `None`: it ended, a new one is to be made.
    fn resume(
        &mut self,
        slot: SessionSlot,
        clean_start: bool,
        now: Instant,
    ) -> Option<SessionSlot> {
        let session = self.sessions.session(slot)?;
        let keeps = !clean_start && session.is_persistent();
        if session.link.is_some() {
            self.metrics.take_overs.increment();
            log::info!(
                "{} taken over by a new connection",
                session.client_id.escape_debug()
            );
            // [MQTT-3.1.4-3]
            let goodbye = Goodbye::new(
                ReasonCode::SessionTakenOver,
                "another connection uses this client identifier: each client needs one of its own",
            );
            self.end_link(slot, &goodbye);
            let delayed = self
                .sessions
                .session(slot)?
                .will
                .as_ref()
                .is_some_and(|will| will.delay_interval > 0);
            if !delayed {
                self.publish_will(slot, now);
            }
        }
        if !keeps {
            self.end_session(slot, now);
            return None;
        }
        self.timers.cancel(Timer::SessionExpiry(slot));
        self.timers.cancel(Timer::WillDelay(slot));
        // A resumed session cancels the delayed will. [MQTT-3.1.3-9]
        self.sessions.session_mut(slot)?.will = None;
        Some(slot)
    }

    fn link(&mut self, slot: SessionSlot, attach: Attach, session_present: bool, mark: Mark) {
        self.sessions.set_expiry(slot, attach.session_expiry);
        let Some((session, journal)) = self.sessions.with_journal(slot) else {
            return;
        };
        session.last = last_connection(&attach, session_present);
        session.forget_publisher();
        session.set_chain(&attach.chain);
        session.will = attach.will.map(Box::new);
        session.outgoing.set_window(attach.send_window);
        session.incoming.on_connected(attach.receive_maximum);
        if session.is_persistent() || session.key.is_some() {
            journal.put_session(session, None);
        }
        let waits = journal.changed_since(mark) || journal.may_bring_back(&session.client_id);
        let mut link = Box::new(Link {
            connection: attach.connection,
            outbox: attach.outbox,
            pending: OutBuf::default(),
            held: None,
            backlog: 0,
            touched: false,
            version: attach.version,
            maximum_packet_size: usize::try_from(attach.maximum_packet_size)
                .ok()
                .filter(|_| attach.maximum_packet_size < crate::proto::codec::MAX_PACKET_BYTES)
                .unwrap_or(usize::MAX),
            aliases: (attach.topic_alias_maximum > 0)
                .then(|| Box::new(AliasesOut::new(attach.topic_alias_maximum))),
            mount_point: attach.mount_point,
            max_qos: attach.max_qos,
            problem_information: attach.problem_information,
        });
        // Before anything is sent: the outbox's events name the session by it.
        let origin = Origin {
            slot,
            connection: attach.connection,
        };
        let _ = attach.origin.set(origin);
        let mut connack = attach.connack;
        connack.session_present = session_present;
        let connack = Packet::Connack(connack);
        // The connection's thread may answer PINGREQ or say goodbye as soon as it has its answer, and nothing may come
        // before CONNACK, which has its place by then. [MQTT-3.2.0-1] It leaves last: the client speaks again when it has
        // it, and its thread is to be reading by then.
        let answer = if waits {
            journal.answer_first(&mut link, waits, |link| link.push_packet(&connack));
            if let Some(held) = &mut link.held {
                held.reply = Some(attach.reply);
            }
            None
        } else {
            link.push_packet(&connack);
            Some(attach.reply)
        };
        let bytes = link.pending.len();
        let outbox = Arc::clone(&link.outbox);
        let _ = outbox.append(&mut std::mem::take(&mut link.pending));
        session.link = Some(link);
        self.sessions.online += 1;
        self.peak_online = self.peak_online.max(self.sessions.online);
        self.sessions.touch(slot);
        self.sessions.count_packets_sent(1);
        self.sessions.count_bytes_sent(bytes);
        self.metrics.connections_accepted.increment();
        // The plugins hear of it before anything that the client sends can arrive.
        self.fire_for_client(slot, |client| Event::ClientConnected { client });
        if self.plugins.wants_packets() {
            let packet = Box::new(connack);
            self.fire_for_client(slot, |client| Event::PacketSent { packet, client });
        }
        if let Some(reply) = answer {
            reply.give(Ok(slot));
        }
        let _ = outbox.flush();
    }

    /// The connection of a session ended.
    ///
    /// Source: MQTT 5.0 §3.1.2.5, §3.14.4, §4.1.1.
    pub(super) fn handle_detach(&mut self, origin: Origin, cause: DetachCause, now: Instant) {
        if self.sessions.attached(origin).is_none() {
            return;
        }
        self.sessions.unlink(origin.slot);
        self.close_session(origin.slot, cause, now);
    }

    fn fire_for_client(&self, slot: SessionSlot, event: impl FnOnce(Arc<SessionInfo>) -> Event) {
        if let Some(session) = self
            .sessions
            .session(slot)
            .filter(|_| self.plugins.is_active())
        {
            self.plugins.fire(event(Arc::new(session.info())));
        }
    }

    /// What happens to a session without its link: the will, and the time it still has.
    pub(super) fn close_session(&mut self, slot: SessionSlot, cause: DetachCause, now: Instant) {
        let Some(session) = self.sessions.session_mut(slot) else {
            return;
        };
        // A session that stays gets the rest of the retained messages when its client is back.
        if !session.is_persistent() {
            session.replays.clear();
        }
        let (will_stays, expiry) = match cause {
            DetachCause::Disconnect { session_expiry } => (false, session_expiry),
            DetachCause::Abnormal { session_expiry } => (true, session_expiry),
        };
        if !will_stays {
            session.will = None;
        }
        let delay = session.will.as_ref().map(|will| will.delay_interval);
        let expiry = expiry.map_or(session.expiry, SessionExpiry::from_seconds);
        self.sessions.set_expiry(slot, expiry);
        if let Some((session, journal)) = self.sessions.with_journal(slot)
            && session.key.is_some()
        {
            journal.put_session(session, Some(now));
        }
        self.fire_for_client(slot, |client| Event::ClientDisconnected { client });
        match (delay, expiry) {
            (None, _) => {}
            // A will delay without a session that waits is no delay. [MQTT-3.1.3-9]
            (Some(0), _) | (Some(_), SessionExpiry::AtDisconnect) => self.publish_will(slot, now),
            (Some(delay), _) => {
                self.timers.set(
                    Timer::WillDelay(slot),
                    now + Duration::from_secs(delay.into()),
                );
            }
        }
        match expiry {
            SessionExpiry::AtDisconnect => self.end_session(slot, now),
            SessionExpiry::After(seconds) => {
                self.timers.set(
                    Timer::SessionExpiry(slot),
                    now + Duration::from_secs(seconds.into()),
                );
            }
            SessionExpiry::Never => {}
        }
    }

    /// Deletes a session with all it has. A will that still waits is sent first. [MQTT-3.1.2-10]
    pub(super) fn end_session(&mut self, slot: SessionSlot, now: Instant) {
        self.publish_will(slot, now);
        self.timers.cancel(Timer::SessionExpiry(slot));
        let Some(session) = self.sessions.remove(slot) else {
            return;
        };
        for subscribed in session.subscriptions.values() {
            let requested = &subscribed.requested;
            self.subscriptions
                .unsubscribe(slot, &requested.filter, requested.share.as_ref());
        }
        self.pass_on_session(session, now);
    }

    /// Sends the will of a session, once.
    ///
    /// Source: MQTT 5.0 §3.1.2.5 [MQTT-3.1.2-8], [MQTT-3.1.2-14], [MQTT-3.1.2-15].
    pub(super) fn publish_will(&mut self, slot: SessionSlot, now: Instant) {
        self.timers.cancel(Timer::WillDelay(slot));
        let Some((session, journal)) = self.sessions.with_journal(slot) else {
            return;
        };
        let Some(will) = session.will.take() else {
            return;
        };
        if session.key.is_some() {
            let disconnected_at = session.link.is_none().then_some(now);
            journal.put_session(session, disconnected_at);
        }
        // The rules may have changed since CONNECT.
        let session = self.sessions.session(slot);
        if !session.is_some_and(|session| session.may(Action::Publish, &will.topic)) {
            self.metrics.access_denied.increment();
            return;
        }
        let payload = Payload {
            bytes: &will.payload,
            shared: &will.payload,
        };
        let mut publication = Publication::new(&will.topic, payload, will.qos, will.retain);
        super::publish::set_properties(&mut publication, will.properties.as_deref(), now);
        self.route(&mut publication, Some(slot), now);
    }
}

fn last_connection(attach: &Attach, session_present: bool) -> LastConnection {
    LastConnection {
        version: attach.version,
        clean_start: attach.clean_start,
        session_present,
        keep_alive: attach.keep_alive,
        address: attach.address,
        listener: Arc::clone(&attach.listener),
    }
}
