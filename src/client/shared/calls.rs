//! What the program calls: each brings its packet into the session and the link, and waits for the answer without the lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use parking_lot::MutexGuard;

use super::{Core, Shared, Urgency, in_callback, now, wall_now};
use crate::client::inbox::Wait;
use crate::client::options::{Payload, PublishOptions, SubscribeOptions, Subscription};
use crate::client::session::{Answer, Publication, Session};
use crate::client::token::{Slot, Token};
use crate::client::{ClientError, Phase, Published, ReceivedMessage, SubscribeResult};
use crate::outbox::OutBuf;
use crate::proto::packet::publish::PublishHead;
use crate::proto::{QoS, ReasonCode, topic};
use crate::store::WallTime;

impl Shared {
    /// See [`Client::publish_nowait`](crate::client::Client::publish_nowait).
    pub(crate) fn publish(
        self: &Arc<Self>,
        topic: &str,
        payload: Payload<'_>,
        options: PublishOptions,
        deadline: Option<Instant>,
        urgency: Urgency,
    ) -> Result<Token, ClientError> {
        topic::validate_name(topic)?;
        let (qos, retain) = self.options.resolve(topic, &options);
        if qos == QoS::AtMostOnce {
            self.publish_once(topic, payload, retain, &options, deadline, urgency)?;
            return Ok(Token::done(Published {
                qos,
                packet_id: None,
                reason: ReasonCode::Success,
                properties: None,
            }));
        }
        let expiry = options
            .properties
            .as_ref()
            .and_then(|properties| properties.message_expiry_interval);
        let publication = Arc::new(Publication {
            topic: topic.into(),
            payload: payload.into_bytes(),
            qos,
            retain,
            properties: options.properties,
            expires_at: expiry.map(|seconds| after(wall_now(), seconds)),
            restored: false,
            slot: Slot::new(),
        });
        let mut core = self.wait_for_room(qos, deadline)?;
        let (session, link) = core.live().ok_or(ClientError::NotConnected)?;
        session.publish(&publication, &mut link.pending)?;
        self.send(core, urgency);
        Ok(Token::waits(publication, Arc::clone(self)))
    }

    fn publish_once(
        self: &Arc<Self>,
        topic: &str,
        payload: Payload<'_>,
        retain: bool,
        options: &PublishOptions,
        deadline: Option<Instant>,
        urgency: Urgency,
    ) -> Result<(), ClientError> {
        let properties = options.properties.as_deref();
        let head = PublishHead {
            dup: false,
            qos: QoS::AtMostOnce,
            retain,
            topic,
            packet_id: None,
            properties,
            message_expiry_interval: properties.and_then(|p| p.message_expiry_interval),
            topic_alias: None,
            subscription_identifiers: &[],
        };
        let mut core = self.wait_for_room(QoS::AtMostOnce, deadline)?;
        let (session, link) = core.live().ok_or(ClientError::NotConnected)?;
        session.publish_once(&head, payload, &mut link.pending)?;
        self.send(core, urgency);
        Ok(())
    }

    /// See [`Client::subscribe_with`](crate::client::Client::subscribe_with).
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        filters: Vec<Subscription>,
        options: SubscribeOptions,
    ) -> Result<SubscribeResult, ClientError> {
        if filters.is_empty() {
            return Err(ClientError::invalid("filters", "there is none"));
        }
        let SubscribeOptions {
            timeout,
            identifier,
            user_properties,
        } = options;
        self.request(timeout, Phase::Suback, |session, answer, out| {
            session.subscribe(filters, identifier, user_properties, answer, out)
        })
    }

    /// See [`Client::unsubscribe_with`](crate::client::Client::unsubscribe_with).
    pub(crate) fn unsubscribe(
        self: &Arc<Self>,
        filters: Vec<ByteString>,
        options: SubscribeOptions,
    ) -> Result<SubscribeResult, ClientError> {
        if filters.is_empty() {
            return Err(ClientError::invalid("filters", "there is none"));
        }
        for filter in &filters {
            topic::parse_subscription(filter)?;
        }
        let user_properties = options.user_properties;
        self.request(options.timeout, Phase::Unsuback, |session, answer, out| {
            session.unsubscribe(filters, user_properties, answer, out)
        })
    }

    fn request(
        self: &Arc<Self>,
        timeout: Option<Duration>,
        phase: Phase,
        send: impl FnOnce(&mut Session, &Answer, Option<&mut OutBuf>) -> Result<(), ClientError>,
    ) -> Result<SubscribeResult, ClientError> {
        let deadline = self.deadline(timeout);
        let answer: Answer = Arc::new(Slot::new());
        let mut core = self.lock();
        core.check_not_ended()?;
        let Core { session, link, .. } = &mut *core;
        let pending = link.as_mut().map(|link| &mut link.pending);
        send(session, &answer, pending)?;
        self.send(core, Urgency::Now);
        let result = self.wait_for(&answer, deadline, phase);
        if matches!(
            result,
            Err(ClientError::Timeout(_) | ClientError::WouldDeadlock)
        ) {
            self.lock().session.forget_answer(&answer);
        }
        result
    }

    /// See [`Client::ping`](crate::client::Client::ping).
    pub(crate) fn ping(self: &Arc<Self>, timeout: Duration) -> Result<Duration, ClientError> {
        let started_at = now();
        let answer = Arc::new(Slot::new());
        let mut core = self.lock();
        core.check_not_ended()?;
        let (session, link) = core.live().ok_or(ClientError::ConnectionLost)?;
        session.ping(started_at, Some(Arc::clone(&answer)), link.first());
        self.send(core, Urgency::Now);
        self.wait_for(&answer, started_at.checked_add(timeout), Phase::Pingresp)?;
        Ok(now().duration_since(started_at))
    }

    /// Waits for an answer of the server. Meanwhile a full inbox does not stop the reading for ever.
    // BLOCKS: until the answer or `deadline`.
    pub(crate) fn wait_for<T: Clone>(
        &self,
        slot: &Slot<T>,
        deadline: Option<Instant>,
        phase: Phase,
    ) -> Result<T, ClientError> {
        if slot.is_filled() {
            return slot.wait(None).unwrap_or(Err(ClientError::NotConnected));
        }
        if in_callback() {
            return Err(ClientError::WouldDeadlock);
        }
        let _waiting = self.inbox.waiting();
        self.awaited.fetch_add(1, Ordering::Relaxed);
        let answer = slot.wait(deadline);
        self.awaited.fetch_sub(1, Ordering::Relaxed);
        answer.unwrap_or(Err(ClientError::Timeout(phase)))
    }

    /// Whether a call waits for an answer of the server.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }

    /// Takes a message and acknowledges it.
    pub(crate) fn take(
        self: &Arc<Self>,
        wait: Wait,
    ) -> Result<Option<ReceivedMessage>, ClientError> {
        let wait = if in_callback() { Wait::No } else { wait };
        let message = self.inbox.take(wait)?;
        if let Some(message) = &message
            && message.qos() != QoS::AtMostOnce
        {
            let mut core = self.lock();
            if let Some((session, link)) = core.live()
                && session.on_taken(message, &mut link.pending)
            {
                self.send(core, Urgency::Soon);
            }
        }
        Ok(message)
    }

    /// Connected, with room for one more message of this QoS.
    // BLOCKS: until then, or `deadline`.
    fn wait_for_room(
        &self,
        qos: QoS,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'_, Core>, ClientError> {
        loop {
            let core = self.lock();
            let Some(phase) = core.waits_for(qos, self.options.send_buffer_bytes)? else {
                return Ok(core);
            };
            drop(core);
            self.park_for_room(qos, phase, deadline)?;
        }
    }

    fn park_for_room(
        &self,
        qos: QoS,
        mut phase: Phase,
        deadline: Option<Instant>,
    ) -> Result<(), ClientError> {
        if in_callback() {
            return Err(ClientError::WouldDeadlock);
        }
        if phase == Phase::Reconnect {
            log::warn!("Client not connected, waiting for it");
        }
        let _waiting = self.inbox.waiting();
        let mut core = self.lock();
        let mut timed_out = false;
        while let Some(next) = core.waits_for(qos, self.options.send_buffer_bytes)? {
            phase = next;
            if timed_out {
                return Err(ClientError::Timeout(phase));
            }
            timed_out = self.wait_for_change(&mut core, deadline);
        }
        Ok(())
    }

    /// The end of a call that has its own time, or else the general one, or none.
    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        let timeout = timeout.or(self.options.ack_timeout)?;
        now().checked_add(timeout)
    }
}

fn after(at: WallTime, seconds: u32) -> WallTime {
    WallTime(at.0.saturating_add(u64::from(seconds) * 1000))
}
