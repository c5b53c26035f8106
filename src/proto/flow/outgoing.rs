//! The sending side of QoS 1 and QoS 2: what was sent and is not completed.
//!
//! One per session and direction, in the broker and in the client alike. It keeps the messages, gives them Packet
//! Identifiers, and says what to send next; sending is the caller's. It survives the connection: after a reconnect what
//! is in flight is sent again, in the order first sent.
//!
//! ```text
//!   start ─► PUBLISH sent ──PUBACK──────────────────────────────► completed      QoS 1
//!   start ─► PUBLISH sent ──PUBREC──► PUBREL sent ──PUBCOMP─────► completed      QoS 2
//!                           └─PUBREC ≥ 0x80─────────────────────► completed
//! ```

use std::fmt;

use super::packet_ids::PacketIds;
use crate::proto::{PacketId, QoS, ReasonCode};

/// QoS 1 and QoS 2 messages in flight to one peer, each an `M` (typically an `Arc`).
///
/// The window is the peer's Receive Maximum: how many messages may be sent on one connection and not be completed.
/// Every operation takes constant time and, once the window has been used, no allocation; an unused one has no heap
/// memory.
///
/// Source: MQTT 5.0 §4.3, §4.4, §4.9; MQTT 3.1.1 §4.3, §4.4.
#[derive(Debug, Clone)]
pub struct Outgoing<M> {
    flows: PacketIds<Flow<M>>,
    window: u16,
    /// Identifiers given to SUBSCRIBE and UNSUBSCRIBE, which are no part of the window.
    reserved: u16,
    /// Flows that were not sent on this connection yet: they hold nothing of its window.
    unsent: u16,
    /// Where the re-sending goes on. INVARIANT: every unsent flow is this one or newer.
    resend_from: Option<PacketId>,
}

#[derive(Debug, Clone)]
struct Flow<M> {
    /// `None` exactly in `Reserved`.
    message: Option<M>,
    state: State,
    /// Sent on this connection: holds one of the window.
    sent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// QoS 1: PUBLISH sent.
    AwaitsPuback,
    /// QoS 2: PUBLISH sent.
    AwaitsPubrec,
    /// QoS 2: PUBREC received, PUBREL sent.
    AwaitsPubcomp,
    /// No message: the identifier belongs to a SUBSCRIBE or UNSUBSCRIBE.
    Reserved,
}

/// The peer's Receive Maximum is used up (or, rarely, all Packet Identifiers are). The message comes back: keep it
/// queued and offer it again after the next acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowFull<M>(pub M);

/// An acknowledgement that fits nothing in flight. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckError {
    /// No flow has this Packet Identifier: completed before, or never started.
    UnknownPacketId,
    /// The flow with this Packet Identifier waits for another acknowledgement.
    WrongState,
}

/// What follows a PUBREC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Next<M> {
    /// Send PUBREL.
    Release,
    /// The peer refused the message: the flow is over, no PUBREL follows. [MQTT-4.3.3-4]
    Completed(M),
}

/// A packet to send again after a reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Resend<'a, M> {
    /// PUBLISH with DUP set. [MQTT-3.3.1-1]
    Publish {
        /// Its Packet Identifier, the same as before. [MQTT-4.4.0-1]
        id: PacketId,
        /// The message.
        message: &'a M,
        /// The QoS at which it was sent.
        qos: QoS,
    },
    /// PUBREL.
    Pubrel {
        /// Its Packet Identifier.
        id: PacketId,
    },
}

/// A message in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inflight<M> {
    /// Its Packet Identifier.
    pub id: PacketId,
    /// The message.
    pub message: M,
    /// The QoS at which it was sent: 1 or 2.
    pub qos: QoS,
    /// The peer has the message (PUBREC came): only PUBREL and PUBCOMP are left.
    pub released: bool,
}

impl<M> Outgoing<M> {
    /// Nothing in flight, to a peer with the Receive Maximum `window` (0: nothing can be sent).
    #[must_use]
    pub fn new(window: u16) -> Self {
        Self {
            flows: PacketIds::new(),
            window,
            reserved: 0,
            unsent: 0,
            resend_from: None,
        }
    }

    /// The Receive Maximum of the peer.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.window
    }

    /// Sets the Receive Maximum of the peer, as a new connection brings it. Less than what is in flight is allowed:
    /// then nothing new starts before enough is completed.
    pub fn set_window(&mut self, window: u16) {
        self.window = window;
    }

    /// Whether [`start`](Self::start) would succeed: the window is not used up and nothing waits to be sent again.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.unsent == 0 && self.unfinished() < self.window && !self.flows.is_full()
    }

    /// How many messages are in flight: started and not completed.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.flows.len().saturating_sub(self.reserved))
    }

    /// Nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts a flow for `message` and reserves a Packet Identifier for it. Send it as PUBLISH without DUP.
    ///
    /// `qos` is 1 or 2; QoS 0 has no flow, and is taken for QoS 1.
    ///
    /// The window counts PUBLISH packets (1..=65,535); it shrinks by one here and grows on PUBACK, PUBCOMP or
    /// PUBREC ≥ 0x80.
    ///
    /// # Errors
    /// [`WindowFull`]: the peer's Receive Maximum is used up. Keep the message queued, offer it again after the next ack.
    ///
    /// Source: MQTT 5.0 §4.9 [MQTT-3.3.4-7], [MQTT-3.3.4-9], §2.2.1 [MQTT-2.2.1-3], [MQTT-2.2.1-4]; MQTT 3.1.1 §2.3.1.
    pub fn start(&mut self, message: M, qos: QoS) -> Result<PacketId, WindowFull<M>> {
        debug_assert!(qos != QoS::AtMostOnce, "QoS 0 has no flow");
        if !self.has_room() {
            return Err(WindowFull(message));
        }
        let Some(vacant) = self.flows.vacant() else {
            return Err(WindowFull(message));
        };
        Ok(vacant.insert(Flow {
            message: Some(message),
            state: State::of_publish(qos),
            sent: true,
        }))
    }

    /// Puts a flow back that was stored, as the newest: restore a session in the order of
    /// [`inflight`](Self::inflight). It waits to be sent again.
    ///
    /// # Errors
    /// The flow comes back if its Packet Identifier is in use.
    pub fn restore(&mut self, inflight: Inflight<M>) -> Result<(), Inflight<M>> {
        let Some(vacant) = self.flows.vacant_at(inflight.id) else {
            return Err(inflight);
        };
        let state = if inflight.released {
            State::AwaitsPubcomp
        } else {
            State::of_publish(inflight.qos)
        };
        vacant.insert(Flow {
            message: Some(inflight.message),
            state,
            sent: false,
        });
        self.unsent = self.unsent.saturating_add(1);
        self.resend_from = self.resend_from.or(Some(inflight.id));
        Ok(())
    }

    /// PUBACK came: the QoS 1 flow `id` is over, whatever the Reason Code, and its message comes back.
    ///
    /// # Errors
    /// [`AckError`]: nothing has changed. A server or client may ignore it; it is no Protocol Error.
    ///
    /// Source: MQTT 5.0 §4.3.2.
    pub fn on_puback(&mut self, id: PacketId, reason: ReasonCode) -> Result<M, AckError> {
        let _ = reason; // success or refusal: the flow is over either way
        self.complete(id, State::AwaitsPuback)
    }

    /// PUBREC came for the QoS 2 flow `id`. A second one for the same flow asks for PUBREL again.
    ///
    /// # Errors
    /// [`AckError`]: nothing has changed. On `UnknownPacketId` answer with PUBREL and
    /// [`PacketIdentifierNotFound`](ReasonCode::PacketIdentifierNotFound) (0x92), so that the peer forgets it too.
    ///
    /// Source: MQTT 5.0 §4.3.3.
    pub fn on_pubrec(&mut self, id: PacketId, reason: ReasonCode) -> Result<Next<M>, AckError> {
        if reason.is_error() {
            return self.complete(id, State::AwaitsPubrec).map(Next::Completed);
        }
        let flow = self.flows.get_mut(id).ok_or(AckError::UnknownPacketId)?;
        match flow.state {
            State::AwaitsPubrec | State::AwaitsPubcomp => {
                flow.state = State::AwaitsPubcomp;
                if !std::mem::replace(&mut flow.sent, true) {
                    self.unsent = self.unsent.saturating_sub(1);
                }
                Ok(Next::Release) // [MQTT-4.3.3-4]
            }
            State::AwaitsPuback => Err(AckError::WrongState),
            State::Reserved => Err(AckError::UnknownPacketId),
        }
    }

    /// PUBCOMP came: the QoS 2 flow `id` is over, whatever the Reason Code, and its message comes back.
    ///
    /// # Errors
    /// [`AckError`]: nothing has changed.
    ///
    /// Source: MQTT 5.0 §4.3.3.
    pub fn on_pubcomp(&mut self, id: PacketId) -> Result<M, AckError> {
        self.complete(id, State::AwaitsPubcomp)
    }

    /// Ends the flow `id` without the peer and takes its message: the PUBLISH is larger than the peer's new connection
    /// takes, and counts as sent. [MQTT-3.1.2-25]
    pub fn discard(&mut self, id: PacketId) -> Option<M> {
        let state = self.flows.get(id)?.state;
        self.complete(id, state).ok()
    }

    /// The connection is gone: everything in flight waits to be sent again on the next one, and its Receive Maximum
    /// counts from the start. Identifiers of SUBSCRIBE and UNSUBSCRIBE are free.
    pub fn on_disconnected(&mut self) {
        self.release_reserved();
        self.unsent = 0;
        self.resend_from = self.flows.oldest();
        let mut next = self.flows.oldest();
        while let Some(id) = next {
            if let Some(flow) = self.flows.get_mut(id) {
                flow.sent = false;
                self.unsent = self.unsent.saturating_add(1);
            }
            next = self.flows.newer(id);
        }
    }

    /// The next packet to send again after [`on_disconnected`](Self::on_disconnected), oldest first, as far as the
    /// window reaches: PUBLISH waits for room as a new one would. Call again after each acknowledgement until
    /// [`has_resends`](Self::has_resends) is false; before that nothing new can start.
    ///
    /// Source: MQTT 5.0 §4.4 [MQTT-4.4.0-1], §4.6 [MQTT-4.6.0-1].
    pub fn next_resend(&mut self) -> Option<Resend<'_, M>> {
        let has_room = self.unfinished() < self.window;
        loop {
            let id = self.resend_from?;
            let newer = self.flows.newer(id);
            let flow = self.flows.get_mut(id)?;
            let waits = !flow.sent && flow.state != State::Reserved;
            if waits && flow.state != State::AwaitsPubcomp && !has_room {
                return None;
            }
            self.resend_from = newer;
            if waits {
                flow.sent = true;
                self.unsent = self.unsent.saturating_sub(1);
                return self.flows.get(id).and_then(|flow| flow.resend(id));
            }
        }
    }

    /// Something waits to be sent again.
    #[must_use]
    pub fn has_resends(&self) -> bool {
        self.unsent > 0
    }

    /// Everything in flight as the packets to send again after a reconnect, in the order first sent. It does not look
    /// at the window: where the peer has one, use [`next_resend`](Self::next_resend).
    pub fn resume(&self) -> impl Iterator<Item = Resend<'_, M>> {
        self.flows.iter().filter_map(|(id, flow)| flow.resend(id))
    }

    /// Every message in flight, in the order first sent.
    pub fn inflight(&self) -> impl Iterator<Item = Inflight<&M>> {
        self.flows.iter().filter_map(|(id, flow)| {
            Some(Inflight {
                id,
                message: flow.message.as_ref()?,
                qos: flow.state.qos()?,
                released: flow.state == State::AwaitsPubcomp,
            })
        })
    }

    /// The message in flight with the Packet Identifier `id`.
    #[must_use]
    pub fn message(&self, id: PacketId) -> Option<&M> {
        self.flows.get(id)?.message.as_ref()
    }

    /// The message in flight with the Packet Identifier `id`, to be changed.
    pub fn message_mut(&mut self, id: PacketId) -> Option<&mut M> {
        self.flows.get_mut(id)?.message.as_mut()
    }

    /// Ends every flow and takes the messages, in the order first sent: the session is over. The sequence of Packet
    /// Identifiers goes on; identifiers of SUBSCRIBE and UNSUBSCRIBE stay in use.
    pub fn drain(&mut self) -> impl Iterator<Item = Inflight<M>> {
        let mut next = self.flows.oldest();
        std::iter::from_fn(move || {
            loop {
                let id = next?;
                next = self.flows.newer(id);
                let state = self.flows.get(id)?.state;
                if let (Some(qos), Ok(message)) = (state.qos(), self.complete(id, state)) {
                    return Some(Inflight {
                        id,
                        message,
                        qos,
                        released: state == State::AwaitsPubcomp,
                    });
                }
            }
        })
    }

    /// Takes a Packet Identifier for a SUBSCRIBE or UNSUBSCRIBE, which a client numbers together with its PUBLISH
    /// packets. It is no part of the window. `None`: all are in use.
    ///
    /// Source: MQTT 5.0 §2.2.1.
    pub fn reserve_id(&mut self) -> Option<PacketId> {
        let id = self.flows.vacant()?.insert(Flow {
            message: None,
            state: State::Reserved,
            sent: true,
        });
        self.reserved = self.reserved.saturating_add(1);
        Some(id)
    }

    /// Gives an identifier of [`reserve_id`](Self::reserve_id) back: SUBACK or UNSUBACK came. `false`: it was none.
    pub fn release_id(&mut self, id: PacketId) -> bool {
        if self.flows.get(id).map(|flow| flow.state) != Some(State::Reserved) {
            return false;
        }
        self.forget(id);
        self.reserved = self.reserved.saturating_sub(1);
        true
    }

    /// Gives heap memory back if nothing is in flight.
    pub fn shrink(&mut self) {
        self.flows.shrink();
    }

    fn complete(&mut self, id: PacketId, expected: State) -> Result<M, AckError> {
        let state = self.flows.get(id).map(|flow| flow.state);
        match state {
            None | Some(State::Reserved) => Err(AckError::UnknownPacketId),
            Some(state) if state != expected => Err(AckError::WrongState),
            Some(_) => self.forget(id).ok_or(AckError::UnknownPacketId),
        }
    }

    fn forget(&mut self, id: PacketId) -> Option<M> {
        if self.resend_from == Some(id) {
            self.resend_from = self.flows.newer(id);
        }
        let flow = self.flows.remove(id)?;
        if !flow.sent {
            self.unsent = self.unsent.saturating_sub(1);
        }
        flow.message
    }

    fn release_reserved(&mut self) {
        let mut next = self.flows.oldest().filter(|_| self.reserved > 0);
        while let Some(id) = next {
            next = self.flows.newer(id);
            self.release_id(id);
        }
    }

    /// Flows that hold one of this connection's window.
    fn unfinished(&self) -> u16 {
        self.flows
            .len()
            .saturating_sub(self.reserved)
            .saturating_sub(self.unsent)
    }
}

impl<M> Flow<M> {
    fn resend(&self, id: PacketId) -> Option<Resend<'_, M>> {
        match self.state {
            State::AwaitsPuback | State::AwaitsPubrec => Some(Resend::Publish {
                id,
                message: self.message.as_ref()?,
                qos: self.state.qos()?,
            }),
            State::AwaitsPubcomp => Some(Resend::Pubrel { id }),
            State::Reserved => None,
        }
    }
}

impl State {
    fn of_publish(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => Self::AwaitsPuback,
            QoS::ExactlyOnce => Self::AwaitsPubrec,
        }
    }

    fn qos(self) -> Option<QoS> {
        match self {
            Self::AwaitsPuback => Some(QoS::AtLeastOnce),
            Self::AwaitsPubrec | Self::AwaitsPubcomp => Some(QoS::ExactlyOnce),
            Self::Reserved => None,
        }
    }
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownPacketId => "no message in flight has this packet identifier",
            Self::WrongState => "the message in flight waits for another acknowledgement",
        })
    }
}

impl std::error::Error for AckError {}

#[cfg(test)]
mod tests;
