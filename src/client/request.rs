//! Request and response over Response Topic and Correlation Data.
//!
//! ```text
//!   request ──PUBLISH, Response Topic, Correlation Data──► responder
//!      ▲                                                      │ respond
//!      └── slot ◄─ Correlation Data ◄─ Response Topic ◄───────┘
//! ```
//!
//! All requests of a client share one Response Topic, which is subscribed to before the first one leaves. What comes on
//! it never reaches the inbox.
//!
//! Source: MQTT 5.0 §4.10.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::options::{Payload, PublishOptions, SubscribeOptions, Subscription};
use super::session::{ResponseSlot, Subscribed};
use super::shared::{Shared, Urgency, in_callback, now};
use super::{Client, ClientError, Phase, Published, ReceivedMessage, random_text};
use crate::proto::{QoS, ReasonCode, topic};

impl Client {
    /// Publishes a request, and waits for the response to it. See [`respond`](Self::respond) for the other side.
    ///
    /// Any number of threads may have requests under way; each gets the response to its own. The QoS is that of other
    /// publications. Before the first request the client subscribes to a topic of its own for responses: below the
    /// Response Information that the server gives, else below `hbmqtt/response/` and its Client Identifier. A response that
    /// comes too late is dropped. While the client reconnects, the request and its response are waited for.
    ///
    /// # Errors
    /// [`ClientError::Timeout`]: with [`Phase::Response`], the request may have arrived all the same.
    /// [`ClientError::NotAvailable`]: the server does not speak 5.0, or not what the request needs.
    /// [`ClientError::Rejected`]: the server refused the request or the subscription; `NoMatchingSubscribers` when nobody
    /// is there to answer, which a server tells at QoS 1 and 2 only. Else as [`publish`](Self::publish).
    ///
    /// # Blocking
    /// Until the response, at most `timeout`.
    pub fn request<'a>(
        &self,
        topic: &str,
        payload: impl Into<Payload<'a>>,
        timeout: Duration,
    ) -> Result<ReceivedMessage, ClientError> {
        self.request_with(topic, payload, timeout, PublishOptions::new())
    }

    /// As [`request`](Self::request), with options. Response Topic, Correlation Data and time of the options have no
    /// effect.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn request_with<'a>(
        &self,
        topic: &str,
        payload: impl Into<Payload<'a>>,
        timeout: Duration,
        options: impl Into<PublishOptions>,
    ) -> Result<ReceivedMessage, ClientError> {
        topic::validate_name(topic)?;
        let shared = self.shared();
        let deadline = now().checked_add(timeout);
        let response_topic = shared.listen_for_responses(deadline)?;
        let (correlation, slot) = shared.lock().session.expect_response();
        let options = options
            .into()
            .response_topic(response_topic)
            .correlation_data(correlation.clone());
        let result = shared.exchange(topic, payload.into(), options, deadline, &slot);
        shared.lock().session.forget_response(&correlation);
        result
    }

    /// Answers a request: publishes to its Response Topic, with its Correlation Data and at its QoS.
    ///
    /// # Errors
    /// [`ClientError::NotARequest`]: the message has no Response Topic. [`ClientError::InvalidTopic`]: it has one that
    /// cannot be published to. Else as [`publish`](Self::publish).
    ///
    /// # Blocking
    /// As [`publish`](Self::publish).
    pub fn respond<'a>(
        &self,
        request: &ReceivedMessage,
        payload: impl Into<Payload<'a>>,
    ) -> Result<Published, ClientError> {
        self.respond_with(request, payload, PublishOptions::new())
    }

    /// As [`respond`](Self::respond), with options; a QoS among them goes before the request's.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn respond_with<'a>(
        &self,
        request: &ReceivedMessage,
        payload: impl Into<Payload<'a>>,
        options: impl Into<PublishOptions>,
    ) -> Result<Published, ClientError> {
        let properties = request.properties().ok_or(ClientError::NotARequest)?;
        let topic = properties.response_topic.as_ref();
        let topic = topic.ok_or(ClientError::NotARequest)?;
        let mut options = options.into();
        options.qos.get_or_insert_with(|| request.qos());
        if let Some(correlation) = &properties.correlation_data {
            options = options.correlation_data(correlation.clone());
        }
        self.publish(topic, payload, options)
    }
}

impl Shared {
    /// The Response Topic, subscribed to. One thread asks the server, others wait for it.
    // BLOCKS: until SUBACK, or `deadline`.
    fn listen_for_responses(
        self: &Arc<Self>,
        deadline: Option<Instant>,
    ) -> Result<ByteString, ClientError> {
        let random = random_text(RANDOM_CHARACTERS)?;
        let topic = {
            let mut core = self.lock();
            loop {
                core.check_not_ended()?;
                if !core.result.version.has_properties() {
                    let reason = ReasonCode::UnsupportedProtocolVersion;
                    return Err(ClientError::NotAvailable(reason));
                }
                let client_id = core.result.client_id.clone();
                match core.session.responses() {
                    Subscribed::Yes => return Ok(core.session.response_topic(&client_id, &random)),
                    Subscribed::No if in_callback() => return Err(ClientError::WouldDeadlock),
                    Subscribed::No => {
                        core.session.set_responses(Subscribed::Asking);
                        break core.session.response_topic(&client_id, &random);
                    }
                    Subscribed::Asking if in_callback() => return Err(ClientError::WouldDeadlock),
                    Subscribed::Asking => {
                        if self.wait_for_change(&mut core, deadline) {
                            return Err(ClientError::Timeout(Phase::Suback));
                        }
                    }
                }
            }
        };
        let subscribed = self.subscribe_to_responses(&topic, deadline);
        let state = if subscribed.is_ok() {
            Subscribed::Yes
        } else {
            Subscribed::No
        };
        self.lock().session.set_responses(state);
        self.notify();
        subscribed.map(|()| topic)
    }

    fn subscribe_to_responses(
        self: &Arc<Self>,
        topic: &ByteString,
        deadline: Option<Instant>,
    ) -> Result<(), ClientError> {
        let mut options = SubscribeOptions::new();
        options.timeout = deadline.map(|deadline| deadline.saturating_duration_since(now()));
        let filters = vec![Subscription::new(topic.clone(), QoS::ExactlyOnce)];
        let granted = self.subscribe(filters, options)?;
        match granted.reasons.first() {
            Some(reason) if reason.is_error() => Err(ClientError::rejected(*reason)),
            _ => Ok(()),
        }
    }

    /// Sends a request and waits for its response.
    // BLOCKS: until the response, or `deadline`.
    fn exchange(
        self: &Arc<Self>,
        topic: &str,
        payload: Payload<'_>,
        options: PublishOptions,
        deadline: Option<Instant>,
        slot: &ResponseSlot,
    ) -> Result<ReceivedMessage, ClientError> {
        let (_, is_retained) = self.options.resolve(topic, &options);
        let token = self.publish(topic, payload, options, deadline, Urgency::Now)?;
        let published = token.wait_until(deadline);
        if !slot.is_filled() {
            let nobody = published?.reason == ReasonCode::NoMatchingSubscribers;
            if nobody && !is_retained {
                return Err(ClientError::rejected(ReasonCode::NoMatchingSubscribers));
            }
        }
        self.wait_for(slot, deadline, Phase::Response)
    }
}

/// What tells Response Topics of two clients apart.
const RANDOM_CHARACTERS: usize = 16;
