//! Plugins: what they may see and do.

mod built_in;
mod host;

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::auth::{Authenticate, Authorize, EnhancedAuthenticate};
use super::config::Config;
use crate::proto::packet::{Packet, QoS, SubscriptionOptions};
use crate::proto::{Message, ProtocolVersion};
use crate::yaml::Node;

pub(crate) use host::PluginHost;

/// Something that watches the broker and acts on it.
///
/// Every method has a default that does nothing. All plugins share one thread, `plugins`: a slow one delays the others
/// and, once `limits.max-plugin-events` events wait, loses events (they are counted), but never the broker. A panic is
/// caught and logged, and the plugin is called again for the next event.
pub trait Plugin: Send {
    /// Its name: in log lines, and where the settings list it.
    fn name(&self) -> &str;

    /// Takes the options that the settings give below its name; [`Node::NULL`] if there are none. Called once each time
    /// the broker starts, before everything else.
    ///
    /// # Errors
    /// What is wrong with them; the broker does not start then, and says so.
    fn configure(&mut self, _options: &Node) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// Which of the frequent events it wants. Asked once, when the broker starts.
    fn interests(&self) -> Interests {
        Interests::ALL
    }

    /// An authenticator that this plugin brings along. Asked once, when the broker starts.
    fn authenticator(&self) -> Option<Arc<dyn Authenticate>> {
        None
    }

    /// A topic check that this plugin brings along. Asked once, when the broker starts.
    fn authorizer(&self) -> Option<Arc<dyn Authorize>> {
        None
    }

    /// An authentication method of MQTT 5.0 that this plugin brings along. Asked once, when the broker starts.
    fn authentication_method(&self) -> Option<Arc<dyn EnhancedAuthenticate>> {
        None
    }

    /// The broker is about to open its listeners; it waits for this to return.
    fn on_broker_pre_start(&mut self, _broker: &dyn PluginContext) {}

    /// The broker listens.
    fn on_broker_post_start(&mut self, _broker: &dyn PluginContext) {}

    /// The broker is about to stop; it waits a moment for this to return.
    fn on_broker_pre_shutdown(&mut self, _broker: &dyn PluginContext) {}

    /// The broker has stopped: every connection is closed.
    fn on_broker_post_shutdown(&mut self, _broker: &dyn PluginContext) {}

    /// A client's CONNECT was accepted.
    fn on_broker_client_connected(&mut self, _broker: &dyn PluginContext, _client: &SessionInfo) {}

    /// A client's connection ended, in whatever way.
    fn on_broker_client_disconnected(
        &mut self,
        _broker: &dyn PluginContext,
        _client: &SessionInfo,
    ) {
    }

    /// A subscription was granted, at this QoS. `filter` is as the client sent it, `$share/name/` included.
    fn on_broker_client_subscribed(
        &mut self,
        _broker: &dyn PluginContext,
        _client_id: &str,
        _filter: &str,
        _qos: QoS,
    ) {
    }

    /// A subscription was removed on the client's request.
    fn on_broker_client_unsubscribed(
        &mut self,
        _broker: &dyn PluginContext,
        _client_id: &str,
        _filter: &str,
    ) {
    }

    /// A client published a message, and may.
    fn on_broker_message_received(
        &mut self,
        _broker: &dyn PluginContext,
        _client_id: &str,
        _message: &Message,
    ) {
    }

    /// A message was retained, or with an empty payload a retained one was removed. `client_id` is `None` if the broker
    /// or a plugin published it.
    fn on_broker_retained_message(
        &mut self,
        _broker: &dyn PluginContext,
        _client_id: Option<&str>,
        _message: &Message,
    ) {
    }

    /// A message was handed to its subscribers. `client_id` is `None` if the broker or a plugin published it.
    fn on_broker_message_broadcast(
        &mut self,
        _broker: &dyn PluginContext,
        _client_id: Option<&str>,
        _message: &Message,
    ) {
    }

    /// A message was not delivered to a session that it was for, and will not be. `topic` is `None` for one that could not
    /// be read back from the store.
    fn on_broker_message_dropped(
        &mut self,
        _broker: &dyn PluginContext,
        _client_id: &str,
        _topic: Option<&str>,
        _reason: DropReason,
    ) {
    }

    /// A packet was sent to a client.
    fn on_mqtt_packet_sent(
        &mut self,
        _broker: &dyn PluginContext,
        _packet: &Packet,
        _client: &SessionInfo,
    ) {
    }

    /// A packet was received from a client.
    fn on_mqtt_packet_received(
        &mut self,
        _broker: &dyn PluginContext,
        _packet: &Packet,
        _client: &SessionInfo,
    ) {
    }

    /// Called once, after the last event, when the broker has stopped.
    fn close(&mut self) {}
}

/// The events that happen for every message or packet: who wants none of them costs nothing on the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interests {
    /// `on_broker_message_received`, `on_broker_retained_message` and `on_broker_message_broadcast`.
    pub messages: bool,
    /// `on_mqtt_packet_sent` and `on_mqtt_packet_received`.
    pub packets: bool,
}

impl Interests {
    /// Every event.
    pub const ALL: Self = Self {
        messages: true,
        packets: true,
    };
    /// Only what happens to the broker, its clients and their subscriptions.
    pub const LIFE_CYCLE: Self = Self {
        messages: false,
        packets: false,
    };
}

/// What happened. The names of HBMQTT and amqtt: [`Event::name`].
#[derive(Debug, Clone)]
#[expect(
    missing_docs,
    reason = "each is described at the method of Plugin that it calls"
)]
pub enum Event {
    BrokerPreStart,
    BrokerPostStart,
    BrokerPreShutdown,
    BrokerPostShutdown,
    ClientConnected {
        client: Arc<SessionInfo>,
    },
    ClientDisconnected {
        client: Arc<SessionInfo>,
    },
    ClientSubscribed {
        client_id: ByteString,
        filter: ByteString,
        qos: QoS,
    },
    ClientUnsubscribed {
        client_id: ByteString,
        filter: ByteString,
    },
    MessageReceived {
        client_id: ByteString,
        message: Arc<Message>,
    },
    RetainedMessage {
        client_id: Option<ByteString>,
        message: Arc<Message>,
    },
    MessageBroadcast {
        client_id: Option<ByteString>,
        message: Arc<Message>,
    },
    MessageDropped {
        client_id: ByteString,
        topic: Option<ByteString>,
        reason: DropReason,
    },
    PacketSent {
        packet: Box<Packet>,
        client: Arc<SessionInfo>,
    },
    PacketReceived {
        packet: Box<Packet>,
        client: Arc<SessionInfo>,
    },
}

impl Event {
    /// The name that HBMQTT gives to the event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::BrokerPreStart => "broker_pre_start",
            Self::BrokerPostStart => "broker_post_start",
            Self::BrokerPreShutdown => "broker_pre_shutdown",
            Self::BrokerPostShutdown => "broker_post_shutdown",
            Self::ClientConnected { .. } => "broker_client_connected",
            Self::ClientDisconnected { .. } => "broker_client_disconnected",
            Self::ClientSubscribed { .. } => "broker_client_subscribed",
            Self::ClientUnsubscribed { .. } => "broker_client_unsubscribed",
            Self::MessageReceived { .. } => "broker_message_received",
            Self::RetainedMessage { .. } => "broker_retained_message",
            Self::MessageBroadcast { .. } => "broker_message_broadcast",
            Self::MessageDropped { .. } => "broker_message_dropped",
            Self::PacketSent { .. } => "mqtt_packet_sent",
            Self::PacketReceived { .. } => "mqtt_packet_received",
        }
    }
}

/// Why a message was not delivered to a session that it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The session's queue is full: `max-queued-messages`, `max-queued-bytes`, `queue-full`.
    QueueFull,
    /// QoS 0, and the client takes its messages too slowly.
    SlowReceiver,
    /// Larger than the client's Maximum Packet Size.
    TooLarge,
    /// Its Message Expiry Interval passed.
    Expired,
    /// The access rules do not let the client have it.
    Denied,
    /// The store has lost it.
    Lost,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::SlowReceiver,
        Self::TooLarge,
        Self::Expired,
        Self::Denied,
        Self::Lost,
    ];
}

/// The last level of its `$SYS` topic.
impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "queue-full",
            Self::SlowReceiver => "slow-receiver",
            Self::TooLarge => "too-large",
            Self::Expired => "expired",
            Self::Denied => "denied",
            Self::Lost => "lost",
        })
    }
}

/// A client and its session, as plugins see them. There is no password in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Client Identifier.
    pub client_id: ByteString,
    /// User Name.
    pub user_name: Option<ByteString>,
    /// Protocol version of the current or last connection.
    pub version: ProtocolVersion,
    /// The client is connected now.
    pub connected: bool,
    /// Clean Start (3.1.1: Clean Session) of the current or last CONNECT.
    pub clean_start: bool,
    /// The session existed before that CONNECT.
    pub session_present: bool,
    /// Keep Alive in seconds, 0 = off.
    pub keep_alive: u16,
    /// Where the client connects from; `None` for Unix domain sockets and `mem://`.
    pub address: Option<SocketAddr>,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Topic of the Will Message, if there is one.
    pub will_topic: Option<ByteString>,
    /// Payload of the Will Message; empty without one.
    pub will_payload: Bytes,
    /// QoS of the Will Message.
    pub will_qos: QoS,
    /// RETAIN flag of the Will Message.
    pub will_retain: bool,
    /// Messages from the client whose QoS 2 flow is not completed.
    pub inflight_in: usize,
    /// Messages to the client that it has not acknowledged.
    pub inflight_out: usize,
    /// Messages queued for the client.
    pub queued: usize,
}

/// A subscription, as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionInfo {
    /// Client Identifier of the session that holds it.
    pub client_id: ByteString,
    /// Topic Filter, without `$share/name/`.
    pub filter: ByteString,
    /// Share Name, if it is a shared subscription.
    pub share: Option<ByteString>,
    /// Granted QoS and the other options.
    pub options: SubscriptionOptions,
}

/// What a plugin may ask of the broker it runs in.
///
/// # Blocking
/// The calls that return something wait for the router's answer. They return nothing when the broker has stopped.
pub trait PluginContext: Send + Sync {
    /// The settings in force.
    fn config(&self) -> Arc<Config>;

    /// Publishes a message to its subscribers without retaining it. No client counts as its publisher.
    ///
    /// # Errors
    /// [`ContextError`].
    fn broadcast_message(&self, topic: &str, payload: Bytes, qos: QoS) -> Result<(), ContextError>;

    /// Retains a message, or removes the retained message of the topic if the payload is empty; delivers nothing to those
    /// who are subscribed already.
    ///
    /// # Errors
    /// [`ContextError`].
    fn retain_message(&self, topic: &str, payload: Bytes, qos: QoS) -> Result<(), ContextError>;

    /// All sessions, connected or not.
    fn sessions(&self) -> Vec<SessionInfo>;

    /// The session of a client.
    fn get_session(&self, client_id: &str) -> Option<SessionInfo>;

    /// All retained messages.
    fn retained_messages(&self) -> Vec<Arc<Message>>;

    /// All subscriptions.
    fn subscriptions(&self) -> Vec<SubscriptionInfo>;

    /// Subscribes a session, as if the client had asked for it.
    ///
    /// # Errors
    /// [`ContextError`].
    fn add_subscription(&self, client_id: &str, filter: &str, qos: QoS)
    -> Result<(), ContextError>;
}

/// Why a [`PluginContext`] did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextError {
    /// The topic or filter is not valid.
    InvalidTopic,
    /// No session has this Client Identifier.
    UnknownClient,
    /// The client may not subscribe there, or a limit forbids it.
    Refused,
    /// The broker has stopped.
    Stopped,
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidTopic => "the topic is not valid",
            Self::UnknownClient => "no session has this client identifier",
            Self::Refused => "the request was refused",
            Self::Stopped => "the broker has stopped",
        })
    }
}

impl Error for ContextError {}
