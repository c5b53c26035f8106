//! The router: one thread owns every session, subscription, retained message and deadline.
//!
//! It takes a command, drains what else waits up to a limit, lets each command append bytes to the links of the
//! sessions it touches, and hands those bytes to the outboxes once, at the end of the batch. It never waits for a
//! socket, a disk, a plugin or a caller.

mod attach;
pub(crate) mod command;
mod goodbye;
pub(crate) mod inbox;
pub(crate) mod inspect;
pub(crate) mod journal;
mod link;
#[cfg(feature = "internals")]
pub mod measure;
mod publication;
mod publish;
pub(crate) mod reply;
mod restore;
mod retained;
mod session;
mod sessions;
mod shared;
mod subscribe;
pub(crate) mod subscriptions;
mod timers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use self::command::{Batch, Command, Goodbye, Inbound, Origin};
use self::inbox::{Deserted, Inbox};
use self::retained::Retained;
use self::sessions::Sessions;
use self::shared::Chooser;
use self::subscriptions::{SessionSlot, Subscriptions};
use self::timers::Timers;
use crate::broker::auth::AuthChains;
use crate::broker::config::{Config, QueueFull, SharedStrategy};
use crate::broker::memory::MemoryWatch;
use crate::broker::metrics::Metrics;
use crate::broker::plugin::{Event, PluginHost};
use crate::broker::redirect::redirection;
use crate::broker::response_area::ResponseAreas;
use crate::broker::sys::{Clock, SysReport};
use crate::outbox::Outbox;
use crate::proto::packet::Packet;
use crate::proto::{Decoder, PacketType, ReasonCode, TopicFilter};

/// Commands taken before the outboxes are flushed.
const BATCH_COMMANDS: usize = 512;
/// Bytes of read buffers taken before the outboxes are flushed.
const BATCH_BYTES: usize = 512 * 1024;
/// Outboxes that the router flushes itself; more are handed to the flush threads.
const FEW_OUTBOXES: usize = 8;
/// Outboxes that one flush thread gets at once.
const FLUSH_SLICE: usize = 32;

/// What the router must know of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct RouterSettings {
    pub(crate) max_queued_messages: usize,
    pub(crate) max_queued_bytes: usize,
    pub(crate) queue_qos0_messages: bool,
    pub(crate) queue_full: QueueFull,
    pub(crate) queue_full_filters: Vec<(TopicFilter, QueueFull)>,
    pub(crate) shared_strategy: SharedStrategy,
    pub(crate) max_subscriptions_per_session: usize,
    pub(crate) max_subscriptions: usize,
    pub(crate) max_retained_messages: usize,
    pub(crate) max_retained_bytes: usize,
    pub(crate) max_sessions: usize,
    pub(crate) upgrade_outgoing_qos: bool,
    pub(crate) outbox_soft_limit: usize,
    pub(crate) max_inflight_bytes: usize,
    pub(crate) check_retain_source: bool,
    pub(crate) sys_interval: Duration,
    pub(crate) response_areas: ResponseAreas,
    /// Where clients are sent instead of being let in.
    pub(crate) redirection: Option<Goodbye>,
}

/// What fires at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    SessionExpiry(SessionSlot),
    WillDelay(SessionSlot),
    Sys,
    Sweep,
}

/// Owner of all state. See the module documentation.
#[derive(Debug)]
pub(crate) struct Router {
    sessions: Sessions,
    subscriptions: Subscriptions,
    retained: Retained,
    timers: Timers<Timer>,
    flushers: Sender<Vec<Arc<Outbox>>>,
    metrics: Arc<Metrics>,
    plugins: Arc<PluginHost>,
    memory: Arc<MemoryWatch>,
    chooser: Chooser,
    clock: Clock,
    peak_online: usize,
    stopping: bool,
}

/// What a client is told whose PUBREC or PUBREL belongs to no message in flight.
const UNKNOWN_ID: &str = "no message is in flight under this packet identifier: it is complete, or its session has ended";

/// How often expired retained messages are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How many retained messages are looked at each time.
const SWEEP_VISITS: usize = 10_000;

impl Router {
    pub(crate) fn new(
        settings: RouterSettings,
        chains: Arc<AuthChains>,
        metrics: Arc<Metrics>,
        plugins: Arc<PluginHost>,
        memory: Arc<MemoryWatch>,
        flushers: Sender<Vec<Arc<Outbox>>>,
        now: Instant,
    ) -> Self {
        let mut timers = Timers::new();
        if !settings.sys_interval.is_zero() {
            timers.set(Timer::Sys, now);
        }
        timers.set(Timer::Sweep, now + SWEEP_INTERVAL);
        Self {
            retained: Retained::new(settings.max_retained_messages, settings.max_retained_bytes),
            sessions: Sessions::new(
                Box::new(settings),
                chains,
                Arc::clone(&metrics),
                Arc::clone(&plugins),
                now,
            ),
            subscriptions: Subscriptions::new(),
            timers,
            flushers,
            metrics,
            plugins,
            memory,
            chooser: Chooser::new(),
            clock: Clock::new(now),
            peak_online: 0,
            stopping: false,
        }
    }

    /// Runs until a shutdown command, or until every sender is gone.
    pub(crate) fn run(mut self, inbox: &Inbox) {
        while !self.stopping {
            let first = if self.sessions.unfinished.is_empty() {
                match inbox.next(self.timers.next_deadline(), self.sessions.awaits_acks()) {
                    Ok(command) => command,
                    Err(Deserted) => return,
                }
            } else {
                inbox.try_next()
            };
            #[expect(
                clippy::disallowed_methods,
                reason = "the router's loop is where its clock is read, once per batch"
            )]
            let now = Instant::now();
            let mut bytes = 0;
            let mut next = first;
            for _ in 0..BATCH_COMMANDS {
                let Some(command) = next.take() else { break };
                if let Command::Batch(batch) = &command {
                    bytes += batch.buffer.len();
                }
                self.handle(command, now);
                if self.stopping || bytes > BATCH_BYTES {
                    break;
                }
                next = inbox.try_next();
            }
            if let Some(command) = next {
                self.handle(command, now);
            }
            self.end_batch(now);
        }
    }

    fn handle(&mut self, command: Command, now: Instant) {
        match command {
            Command::Batch(batch) => self.handle_batch(&batch, now),
            Command::Attach(attach) => self.handle_attach(*attach, now),
            Command::Detach { origin, cause } => self.handle_detach(origin, cause, now),
            Command::Drained(origin) => self.handle_drained(origin, now),
            Command::Inject(injection) => self.handle_inject(&injection, now),
            Command::Released { origin, sequence } => self.handle_released(origin, sequence, now),
            Command::Loaded { token, result } => self.handle_loaded(token, result, now),
            Command::Query(query) => self.handle_query(query, now),
            Command::Reload(settings, chains) => self.handle_reload(settings, chains, now),
            Command::Shutdown(goodbye) => self.handle_shutdown(&goodbye, now),
        }
    }

    fn handle_batch(&mut self, batch: &Batch, now: Instant) {
        let Batch {
            origin,
            buffer,
            inbound,
            ..
        } = batch;
        let origin = *origin;
        let mut is_to_be_stored = false;
        for packet in inbound {
            // A packet before this one may have ended the connection.
            if self.sessions.attached(origin).is_none() {
                return;
            }
            let mark = self.sessions.journal.mark();
            match packet {
                Inbound::Span(span) => self.handle_span(origin, buffer, span, now),
                Inbound::Publish(publish) => self.handle_publish_packet(origin, publish, now),
                Inbound::Refused(refusal) => self.handle_refused(origin, refusal, now),
                Inbound::Subscribe(request) => self.handle_subscribe(origin.slot, request, now),
                Inbound::Unsubscribe(request) => self.handle_unsubscribe(origin.slot, request, now),
                Inbound::Ack(packet) => {
                    // It lets go of more than it brings.
                    self.handle_ack(origin, packet, now);
                    continue;
                }
            }
            is_to_be_stored |= self.sessions.journal.has_more_than(mark);
        }
        if is_to_be_stored && let Some((session, journal)) = self.sessions.with_journal(origin.slot)
        {
            journal.charge(&session.client_id);
        }
    }

    fn handle_ack(&mut self, origin: Origin, packet: &Packet, now: Instant) {
        let slot = origin.slot;
        let mark = self.sessions.journal.mark();
        let Some((session, journal)) = self.sessions.with_journal(slot) else {
            return;
        };
        match packet {
            Packet::Puback(ack) => {
                // An acknowledgement of nothing is a late one, or of a flow that ended: not an error.
                if let Ok(delivery) = session.outgoing.on_puback(ack.packet_id, ack.reason) {
                    session.flow_ended(&delivery);
                    journal.delete_entry(session.key, &delivery);
                }
            }
            Packet::Pubrec(ack) => {
                use crate::proto::flow::outgoing::{AckError, Next};
                match session.outgoing.on_pubrec(ack.packet_id, ack.reason) {
                    // A flow that the client ended has no PUBREL, and one of QoS 1 neither. [MQTT-4.3.3-4]
                    Ok(Next::Completed(delivery)) => {
                        session.flow_ended(&delivery);
                        journal.delete_entry(session.key, &delivery);
                    }
                    Err(AckError::WrongState) => {}
                    Err(AckError::UnknownPacketId) if ack.reason.is_error() => {}
                    // A repeated PUBREC is answered like the first one.
                    Ok(Next::Release) => {
                        let key = session.key;
                        if let Some(delivery) = session.outgoing.message_mut(ack.packet_id) {
                            journal.release_entry(key, delivery, ack.packet_id);
                        }
                        self.sessions.acknowledge(
                            slot,
                            PacketType::Pubrel,
                            ack.packet_id,
                            ReasonCode::Success,
                            None,
                            mark,
                        );
                    }
                    Err(AckError::UnknownPacketId) => {
                        let reason = ReasonCode::PacketIdentifierNotFound;
                        self.sessions.acknowledge(
                            slot,
                            PacketType::Pubrel,
                            ack.packet_id,
                            reason,
                            Some(UNKNOWN_ID),
                            mark,
                        );
                    }
                }
            }
            Packet::Pubrel(ack) => {
                let (reason, text) = if session.incoming.on_pubrel(ack.packet_id) {
                    journal.delete_incoming(session.key, ack.packet_id);
                    (ReasonCode::Success, None)
                } else {
                    (ReasonCode::PacketIdentifierNotFound, Some(UNKNOWN_ID))
                };
                let kind = PacketType::Pubcomp;
                self.sessions
                    .acknowledge(slot, kind, ack.packet_id, reason, text, mark);
                return;
            }
            Packet::Pubcomp(ack) => {
                if let Ok(delivery) = session.outgoing.on_pubcomp(ack.packet_id) {
                    session.flow_ended(&delivery);
                    journal.delete_entry(session.key, &delivery);
                }
            }
            _ => return,
        }
        self.sessions.pump(slot, &self.retained, now);
    }

    fn handle_drained(&mut self, origin: Origin, now: Instant) {
        if self.sessions.attached(origin).is_some() {
            self.sessions.pump(origin.slot, &self.retained, now);
        }
    }

    fn handle_released(&mut self, origin: Origin, sequence: u64, now: Instant) {
        let link = self
            .sessions
            .attached(origin)
            .and_then(|session| session.link.as_mut());
        if link.is_some_and(|link| link.unblock(sequence)) {
            self.sessions.touch(origin.slot);
            self.sessions.pump(origin.slot, &self.retained, now);
        }
    }

    fn handle_reload(
        &mut self,
        settings: Box<RouterSettings>,
        chains: Arc<AuthChains>,
        now: Instant,
    ) {
        self.sessions.for_each(|session| {
            let chain = chains.listener(&session.last.listener);
            session.set_chain(chain);
        });
        self.retained
            .set_limits(settings.max_retained_messages, settings.max_retained_bytes);
        if settings.sys_interval.is_zero() {
            self.timers.cancel(Timer::Sys);
        } else if settings.sys_interval != self.sessions.settings.sys_interval {
            self.timers.set(Timer::Sys, now);
        }
        self.sessions.settings = settings;
        self.sessions.chains = chains;
        self.send_away(now);
    }

    fn end_batch(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.sessions.unfinished) {
            self.sessions.pump(slot, &self.retained, now);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            self.handle_timer(timer, now);
        }
        self.flush();
        self.sessions.journal.commit();
        self.sessions.publish_counts();
    }

    fn handle_timer(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::SessionExpiry(slot) => {
                self.metrics.sessions_expired.increment();
                self.end_session(slot, now);
            }
            Timer::WillDelay(slot) => self.publish_will(slot, now),
            Timer::Sys => self.publish_sys(now),
            Timer::Sweep => {
                let removed = self.retained.sweep_expired(now, SWEEP_VISITS);
                self.metrics.dropped_expired.add(removed.len() as u64);
                for topic in removed {
                    self.sessions.journal.delete_retained(topic);
                }
                self.timers.set(Timer::Sweep, now + SWEEP_INTERVAL);
            }
        }
    }

    fn publish_sys(&mut self, now: Instant) {
        let report = SysReport {
            stats: self.stats(),
            metrics: self.metrics.snapshot(),
            store: self.sessions.journal.status(),
            at: now,
        };
        for (topic, payload) in self.clock.topics(&report) {
            self.inject_text(&topic, payload, now);
        }
        let interval = self.sessions.settings.sys_interval;
        if !interval.is_zero() {
            self.timers.set(Timer::Sys, now + interval);
        }
    }

    /// Hands the bytes of this batch to the outboxes.
    fn flush(&mut self) {
        let touched = std::mem::take(&mut self.sessions.touched);
        let few = touched.len() <= FEW_OUTBOXES;
        if self.plugins.wants_packets() {
            self.show_packets(&touched);
        }
        let mut slice = Vec::new();
        let mut bytes = 0;
        for slot in &touched {
            let Some((session, journal)) = self.sessions.with_journal(*slot) else {
                continue;
            };
            let Some(link) = session.link.as_mut() else {
                continue;
            };
            link.touched = false;
            bytes += link.held_bytes();
            if let Some(release) = link.take_held(*slot) {
                journal.release(release);
            }
            if link.is_blocked() {
                continue;
            }
            bytes += link.pending.len();
            if link.pending.is_empty() {
                // Touched, and nothing came of it.
            } else if few && !link.outbox.encrypts() {
                // What does not go now, goes later; `Drained` tells when a full outbox has room.
                let _ = link.outbox.send(&mut link.pending);
            } else {
                let _ = link.outbox.append(&mut link.pending);
                slice.push(Arc::clone(&link.outbox));
            }
            let buffer = std::mem::take(&mut link.pending);
            self.sessions.give_back(buffer);
            if slice.len() >= FLUSH_SLICE {
                flush_elsewhere(&self.flushers, std::mem::take(&mut slice));
            }
        }
        if !slice.is_empty() {
            flush_elsewhere(&self.flushers, slice);
        }
        self.sessions.count_bytes_sent(bytes);
        let mut touched = touched;
        touched.clear();
        if self.sessions.touched.is_empty() {
            self.sessions.touched = touched;
        }
    }
}

impl Router {
    /// Shows the packets of this batch to the plugins: they are read back from the bytes that are about to leave.
    fn show_packets(&self, touched: &[SessionSlot]) {
        for slot in touched {
            let Some(session) = self.sessions.session(*slot) else {
                continue;
            };
            let Some(link) = session.link.as_ref() else {
                continue;
            };
            let client = Arc::new(session.info());
            let bytes = link.to_bytes();
            let decoder = Decoder::new(link.version);
            let mut at = 0;
            while let Ok(Some(frame)) = decoder.frame(bytes.get(at..).unwrap_or_default()) {
                let end = at + frame.total_bytes as usize;
                if let Ok(packet) = decoder.decode(frame, &bytes.slice(at..end)) {
                    let (packet, client) = (Box::new(packet), Arc::clone(&client));
                    self.plugins.fire(Event::PacketSent { packet, client });
                }
                at = end;
            }
        }
    }
}

/// Gives outboxes to the flush threads; when those are behind, writes here: it does not block either.
pub(super) fn flush_elsewhere(flushers: &Sender<Vec<Arc<Outbox>>>, slice: Vec<Arc<Outbox>>) {
    if let Err(refused) = flushers.try_send(slice) {
        for outbox in refused.into_inner() {
            let _ = outbox.flush();
        }
    }
}

impl RouterSettings {
    /// What happens to a message on this topic that a session's queue cannot take.
    fn queue_full(&self, topic: &str) -> QueueFull {
        let mut rules = self.queue_full_filters.iter();
        let found = rules.find(|(filter, _)| filter.matches(topic));
        found.map_or(self.queue_full, |(_, policy)| *policy)
    }

    pub(crate) fn from_config(config: &Config) -> Self {
        let limits = &config.limits;
        Self {
            max_queued_messages: limits.max_queued_messages,
            max_queued_bytes: limits.max_queued_bytes,
            queue_qos0_messages: config.queue_qos0_messages,
            queue_full: config.queue_full,
            queue_full_filters: config.queue_full_filters.clone(),
            shared_strategy: config.shared_subscription_strategy,
            max_subscriptions_per_session: limits.max_subscriptions_per_session,
            max_subscriptions: limits.max_subscriptions,
            max_retained_messages: limits.max_retained_messages,
            max_retained_bytes: limits.max_retained_bytes,
            max_sessions: limits.max_sessions,
            upgrade_outgoing_qos: config.upgrade_outgoing_qos,
            outbox_soft_limit: limits.max_outbox_bytes,
            max_inflight_bytes: limits.max_inflight_bytes,
            check_retain_source: config.check_retain_source,
            sys_interval: config.sys_interval,
            response_areas: ResponseAreas::of(config),
            redirection: redirection(config),
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
