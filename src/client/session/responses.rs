//! Requests of this client that wait for their responses: where those go, and who waits for which.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::{Effects, Session};
use crate::client::ReceivedMessage;
use crate::client::token::Slot;
use crate::outbox::OutBuf;
use crate::proto::packet::publish::Publish;
use crate::proto::packet::{PacketType, ack};
use crate::proto::{QoS, topic};

/// Where a response goes.
pub(crate) type ResponseSlot = Arc<Slot<ReceivedMessage>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Responses {
    /// The Response Topic; `None` until the first request.
    topic: Option<ByteString>,
    subscribed: Subscribed,
    /// The Response Information that the topic was made of.
    information: Option<ByteString>,
    /// By Correlation Data.
    waiting: HashMap<Bytes, ResponseSlot>,
    last: u64,
}

/// Whether the server sends what is published to the Response Topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Subscribed {
    #[default]
    No,
    /// Somebody asks.
    Asking,
    Yes,
}

impl Session {
    /// Whether responses come already.
    pub(crate) fn responses(&self) -> Subscribed {
        self.responses.subscribed
    }

    pub(crate) fn set_responses(&mut self, subscribed: Subscribed) {
        self.responses.subscribed = subscribed;
    }

    /// The Response Topic of this client: below the server's Response Information if there is some that can begin a
    /// topic, else below a prefix of our own. `random` tells this client from others, and from earlier ones under its name.
    ///
    /// Source: MQTT 5.0 §4.10.1.
    pub(crate) fn response_topic(&mut self, client_id: &str, random: &str) -> ByteString {
        let responses = &mut self.responses;
        let information = responses.information.as_deref();
        let given = information.map(|text| text.trim_end_matches('/'));
        let given = given.filter(|text| topic::validate_name(text).is_ok());
        let topic = responses.topic.get_or_insert_with(|| match given {
            Some(prefix) => format!("{prefix}/{random}").into(),
            None if client_id.len() > LONGEST_ID => format!("{PREFIX}/{random}").into(),
            None => {
                let level = client_id.replace(['+', '#', '\0'], "_");
                format!("{PREFIX}/{level}/{random}").into()
            }
        });
        topic.clone()
    }

    /// A request is about to leave: its Correlation Data, and where its response will be.
    pub(crate) fn expect_response(&mut self) -> (Bytes, ResponseSlot) {
        let responses = &mut self.responses;
        responses.last = responses.last.wrapping_add(1);
        let correlation = Bytes::copy_from_slice(&responses.last.to_be_bytes());
        let slot: ResponseSlot = Arc::new(Slot::new());
        responses
            .waiting
            .insert(correlation.clone(), Arc::clone(&slot));
        (correlation, slot)
    }

    /// Nobody waits for this response any more: if it comes, it is dropped.
    pub(crate) fn forget_response(&mut self, correlation: &Bytes) {
        self.responses.waiting.remove(correlation);
    }

    /// A connection is made. Where the server gives other Response Information than before, there will be another topic.
    pub(super) fn renew_response_topic(&mut self, information: Option<&ByteString>) {
        let responses = &mut self.responses;
        if responses.information.as_ref() != information {
            responses.information = information.cloned();
            responses.subscribed = Subscribed::No;
            if let Some(topic) = responses.topic.take() {
                self.subscriptions.remove(&topic);
            }
        }
    }

    /// The server did not take a subscription back.
    pub(super) fn on_subscription_lost(&mut self, filter: &ByteString) {
        if self.responses.topic.as_ref() == Some(filter) {
            self.responses.subscribed = Subscribed::No;
        }
    }

    pub(super) fn is_response(&self, publish: &Publish) -> bool {
        self.responses
            .topic
            .as_ref()
            .is_some_and(|topic| *topic == publish.topic)
    }

    /// Takes a response, for whoever waits for it, and acknowledges it.
    pub(super) fn on_response(
        &mut self,
        publish: Publish,
        out: &mut OutBuf,
        effects: &mut Effects,
    ) {
        if let Some(id) = publish.packet_id {
            if publish.qos == QoS::AtLeastOnce {
                self.incoming.on_acknowledged(id);
                ack::encode_bare(PacketType::Puback, id, out.bytes_mut());
            } else {
                self.note_received(id);
                ack::encode_bare(PacketType::Pubrec, id, out.bytes_mut());
            }
        }
        let properties = publish.properties.as_ref();
        let correlation = properties.and_then(|properties| properties.correlation_data.as_ref());
        let waiting = correlation.and_then(|data| self.responses.waiting.remove(data));
        // A late one, or one that another subscription brought too, is dropped.
        if let Some(slot) = waiting {
            let message = ReceivedMessage::new(publish, self.connection);
            effects.responses.push((slot, Ok(message)));
        }
    }

    /// How many responses are waited for.
    #[cfg(test)]
    pub(crate) fn waiting_responses(&self) -> usize {
        self.responses.waiting.len()
    }

    /// No response will come.
    pub(super) fn give_up_responses(
        &mut self,
        error: &crate::client::ClientError,
        effects: &mut Effects,
    ) {
        for (_, slot) in self.responses.waiting.drain() {
            effects.responses.push((slot, Err(error.clone())));
        }
    }
}

/// Where responses go when the server says nothing.
const PREFIX: &str = "hbmqtt/response";

/// A longer Client Identifier is left out of the Response Topic.
const LONGEST_ID: usize = 256;
