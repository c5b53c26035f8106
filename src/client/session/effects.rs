//! What must happen after packets were handled, without a lock held.

use std::sync::Arc;

use bytestring::ByteString;

use super::{Publication, ResponseSlot};
use crate::client::token::Slot;
use crate::client::{ClientError, Published, ReceivedMessage, Rejection, SubscribeResult};
use crate::proto::ReasonCode;
use crate::proto::packet::ack::{Ack, AckProperties};
use crate::proto::packet::auth::Auth;
use crate::proto::packet::disconnect::Disconnect;

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
    /// AUTH packets, for the exchange that is under way.
    pub(crate) authentications: Vec<Auth>,
    /// Responses to requests of this client.
    pub(crate) responses: Vec<(ResponseSlot, Result<ReceivedMessage, ClientError>)>,
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
pub(crate) type Answered = (Answer, Result<SubscribeResult, ClientError>);

/// Where the answer to a SUBSCRIBE or UNSUBSCRIBE goes.
pub(crate) type Answer = Arc<Slot<SubscribeResult>>;

impl Effects {
    /// Tells everyone who waits. Takes locks: not to be called with one held.
    pub(crate) fn tell(&mut self) {
        for (publication, result) in self.completed.drain(..) {
            if publication.restored
                && let Err(error) = &result
            {
                log::warn!(
                    "a stored message to '{}' is given up: {error}",
                    publication.topic.escape_debug()
                );
            }
            publication.slot.fill(result);
        }
        for (answer, result) in self.answered.drain(..) {
            answer.fill(result);
        }
        for (slot, result) in self.responses.drain(..) {
            slot.fill(result);
        }
        for (answer, result) in self.pongs.drain(..) {
            answer.fill(result);
        }
    }
}

pub(super) fn complete(publication: Arc<Publication>, ack: Ack, effects: &mut Effects) {
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

pub(super) fn rejected_by(disconnect: Disconnect) -> ClientError {
    let properties = disconnect.properties;
    ClientError::Rejected(Arc::new(Rejection {
        reason: disconnect.reason,
        reason_string: properties.reason_string,
        server_reference: properties.server_reference,
        user_properties: properties.user_properties,
    }))
}
