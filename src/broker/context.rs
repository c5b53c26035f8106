//! The handle that plugins and the embedding program hold: questions and messages for a running broker.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::config::Config;
use super::connection::Services;
use super::metrics::MetricsSnapshot;
use super::plugin::{ContextError, PluginContext, SessionInfo, SubscriptionInfo};
use super::router::command::{Command, Goodbye, Injection, RequestedFilter};
use super::router::inbox::Post;
use super::router::inspect::{Query, RouterStats};
use crate::proto::packet::SubscriptionOptions;
use crate::proto::{Message, QoS, ReasonCode, TopicFilter, TopicName, topic};

/// A handle to a running broker. Cheap to clone; it does not keep the broker alive.
///
/// # Blocking
/// The calls that return something wait for the router's answer, which does other work of at most some milliseconds
/// before. Do not call them from an [`Authorize`](super::auth::Authorize) that judges deliveries: it runs on the router.
#[derive(Clone)]
pub struct BrokerContext {
    services: Arc<Services>,
    router: Post,
}

impl fmt::Debug for BrokerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerContext").finish_non_exhaustive()
    }
}

impl BrokerContext {
    pub(super) fn new(services: Arc<Services>) -> Self {
        let router = services.router.clone();
        Self { services, router }
    }

    /// Publishes a message as the broker itself.
    ///
    /// # Errors
    /// [`ContextError::InvalidTopic`], [`ContextError::Stopped`].
    pub fn publish(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
        qos: QoS,
        retain: bool,
    ) -> Result<(), ContextError> {
        self.inject(topic, payload.into(), qos, retain, false)
    }

    fn inject(
        &self,
        topic: &str,
        payload: Bytes,
        qos: QoS,
        retain: bool,
        silent: bool,
    ) -> Result<(), ContextError> {
        let topic = TopicName::parse(topic).map_err(|_| ContextError::InvalidTopic)?;
        let injection = Injection {
            topic,
            payload,
            qos,
            retain,
            silent,
        };
        self.router
            .send(Command::Inject(Box::new(injection)))
            .map_err(|_| ContextError::Stopped)
    }

    /// Current values of the router's state.
    ///
    /// # Errors
    /// [`ContextError::Stopped`].
    pub fn stats(&self) -> Result<RouterStats, ContextError> {
        self.ask(Query::Stats)
    }

    /// The counters since the start.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.services.metrics.snapshot()
    }

    /// Closes the connection of a client; its session stays. `false`: it is not connected.
    ///
    /// # Errors
    /// [`ContextError::Stopped`].
    pub fn disconnect_client(&self, client_id: &str) -> Result<bool, ContextError> {
        self.ask(|reply| {
            let goodbye = Goodbye::new(
                ReasonCode::AdministrativeAction,
                "closed by who runs the broker: connecting again is allowed",
            );
            Query::Disconnect(ByteString::from(client_id), goodbye, reply)
        })
    }

    /// Retained messages whose topics match `filter`.
    ///
    /// # Errors
    /// [`ContextError::InvalidTopic`], [`ContextError::Stopped`].
    pub fn retained(&self, filter: &str) -> Result<Vec<Arc<Message>>, ContextError> {
        let filter = TopicFilter::parse(filter).map_err(|_| ContextError::InvalidTopic)?;
        self.ask(|reply| Query::Retained(filter, reply))
    }

    /// BLOCKS: on the router's inbox, then on its answer.
    fn ask<T>(&self, query: impl FnOnce(Sender<T>) -> Query) -> Result<T, ContextError> {
        let (reply, answer): (Sender<T>, Receiver<T>) = bounded(1);
        self.router
            .send(Command::Query(query(reply)))
            .map_err(|_| ContextError::Stopped)?;
        answer.recv().map_err(|_| ContextError::Stopped)
    }
}

impl PluginContext for BrokerContext {
    fn config(&self) -> Arc<Config> {
        self.services.settings().config
    }

    fn broadcast_message(&self, topic: &str, payload: Bytes, qos: QoS) -> Result<(), ContextError> {
        self.inject(topic, payload, qos, false, false)
    }

    fn retain_message(&self, topic: &str, payload: Bytes, qos: QoS) -> Result<(), ContextError> {
        self.inject(topic, payload, qos, true, true)
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        self.ask(Query::Sessions).unwrap_or_default()
    }

    fn get_session(&self, client_id: &str) -> Option<SessionInfo> {
        self.ask(|reply| Query::Session(ByteString::from(client_id), reply))
            .ok()
            .flatten()
    }

    fn retained_messages(&self) -> Vec<Arc<Message>> {
        let mut all = self.retained("#").unwrap_or_default();
        all.extend(self.retained("$SYS/#").unwrap_or_default());
        all
    }

    fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        self.ask(Query::Subscriptions).unwrap_or_default()
    }

    fn add_subscription(
        &self,
        client_id: &str,
        filter: &str,
        qos: QoS,
    ) -> Result<(), ContextError> {
        let text = ByteString::from(filter);
        let (share, filter) =
            topic::parse_subscription(&text).map_err(|_| ContextError::InvalidTopic)?;
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        if self.get_session(client_id).is_none() {
            return Err(ContextError::UnknownClient);
        }
        let requested = Box::new(RequestedFilter {
            text,
            share,
            filter,
            options,
        });
        match self.ask(|reply| Query::Subscribe(ByteString::from(client_id), requested, reply))? {
            true => Ok(()),
            false => Err(ContextError::Refused),
        }
    }
}
