//! The blocking client.
//!
//! Calls block the thread that makes them; one background thread per client reads, pings and reconnects. A [`Client`]
//! is a handle: clone it, share it between threads, drop it.
//!
//! ```no_run
//! # fn main() -> Result<(), hbmqtt::client::ClientError> {
//! use hbmqtt::client::ConnectOptions;
//! use hbmqtt::proto::QoS;
//!
//! let client = ConnectOptions::new().connect("mqtt://localhost")?;
//! client.subscribe(&[("greetings/#", QoS::AtLeastOnce)])?;
//! client.publish("greetings/world", "hello", QoS::AtLeastOnce)?;
//! let message = client.recv()?;
//! println!("{}: {:?}", message.topic(), message.payload());
//! client.disconnect()?;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "yaml")]
mod config;
mod error;
mod message;
mod options;

#[cfg(feature = "yaml")]
pub use config::{ClientConfig, TopicConfig, WillConfig};
pub use error::{ClientError, InvalidOption, Phase, Refusal, Rejection};
pub use message::{Flow, Published, ReceivedMessage};
use std::time::Duration;

use crate::proto::ReasonCode;
use crate::proto::packet::connack::ConnackProperties;

pub use options::{
    ConnectOptions, Payload, PublishOptions, SubscribeOptions, Subscription, TlsOptions,
    TopicDefaults, WillOptions,
};

/// A connection to a broker: a handle that is cheap to clone and may be used by many threads at once.
///
/// The last handle dropped disconnects and ends the background thread.
#[derive(Debug, Clone)]
pub struct Client {
    options: std::sync::Arc<ConnectOptions>,
}

/// What the server answered to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResult {
    /// The server had a session of this client and goes on with it.
    pub session_present: bool,
    /// The Client Identifier in use: the option's, the generated one, or the one that the server assigned.
    pub client_id: bytestring::ByteString,
    /// The properties of CONNACK; all `None` before 5.0.
    pub properties: ConnackProperties,
}

/// Whether the client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientState {
    /// Connected: CONNACK came, and nothing shows that the connection is gone.
    Connected,
    /// The connection is lost, and the background thread is about to make another one.
    Reconnecting,
    /// Disconnected by the program, by a refusal, or because reconnecting was given up.
    Disconnected,
}

/// A change of state.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StateEvent {
    /// Connected, for the first time or again.
    Connected {
        /// The server had a session of this client and goes on with it.
        session_present: bool,
    },
    /// The connection ended without the program asking for it.
    ConnectionLost {
        /// Why.
        error: ClientError,
    },
    /// An attempt to connect failed or the connection was lost; the next attempt follows.
    Reconnecting {
        /// Which attempt is next, counted from 1.
        attempt: u32,
        /// The pause before it.
        delay: Duration,
    },
    /// No further attempt will be made.
    Disconnected {
        /// Why; `None` when the program disconnected.
        error: Option<ClientError>,
    },
}

/// A publication on its way.
#[derive(Debug)]
#[must_use = "nothing else says whether the publication arrived"]
pub struct Token {
    done: Option<Result<Published, ClientError>>,
}

impl Token {
    /// Waits for the acknowledgement; a QoS 0 publication is done from the start.
    ///
    /// # Errors
    /// [`ClientError::Rejected`]: the server refused the message. [`ClientError::WillNotReconnect`],
    /// [`ClientError::NotConnected`]: it will not be known whether it arrived.
    ///
    /// # Blocking
    /// Until the acknowledgement comes or the client gives up the connection.
    pub fn wait(self) -> Result<Published, ClientError> {
        todo!("{:?}", self.done)
    }

    /// As [`wait`](Self::wait), no longer than `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`ClientError::Timeout`]: the publication is still on its way, and may be waited
    /// for again.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Published, ClientError> {
        todo!("{timeout:?}")
    }

    /// Whether [`wait`](Self::wait) would return at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        todo!()
    }
}

impl Client {
    /// Settings to connect with; the same as [`ConnectOptions::new`].
    #[must_use]
    pub fn builder() -> ConnectOptions {
        ConnectOptions::new()
    }

    /// Connects to the broker at `url`: `mqtt`, `mqtts`, `ws` or `wss` `://user:password@host:port/path`, `unix://path`
    /// or `mem://name`.
    ///
    /// With [`auto_reconnect`](ConnectOptions::auto_reconnect) an attempt that fails is repeated, unless the server
    /// refused what the client asked for.
    ///
    /// # Errors
    /// [`ClientError::Network`], [`ClientError::Timeout`], [`ClientError::Refused`], [`ClientError::InvalidOption`];
    /// after repeated attempts the last of them.
    ///
    /// # Blocking
    /// Until CONNACK: [`connect_timeout`](ConnectOptions::connect_timeout) for each attempt, and the pauses between.
    pub fn connect(url: &str, options: ConnectOptions) -> Result<Self, ClientError> {
        todo!("{url} {options:?}")
    }

    /// Connects to the broker that [`ConnectOptions::uri`] names.
    ///
    /// # Errors
    /// [`ClientError::MissingUrl`], and those of [`connect`](Self::connect).
    pub fn open(options: ConnectOptions) -> Result<Self, ClientError> {
        todo!("{options:?}")
    }

    /// Connects again with the same settings, after the connection was lost for good or ended by
    /// [`disconnect`](Self::disconnect). `clean_start` replaces the option for this and the following connections.
    ///
    /// A client that is connected stays as it is; that is logged as a warning.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn reconnect(&self, clean_start: Option<bool>) -> Result<ConnectResult, ClientError> {
        todo!("{clean_start:?}")
    }

    /// Publishes a message and waits for its acknowledgement: none at QoS 0, PUBACK at QoS 1, PUBCOMP at QoS 2.
    ///
    /// While the client reconnects, this waits for the connection; a message sent before is sent again.
    ///
    /// # Errors
    /// [`ClientError::InvalidTopic`], [`ClientError::NotAvailable`], [`ClientError::Unsendable`]: nothing was sent.
    /// [`ClientError::Rejected`]: the server refused it. [`ClientError::Timeout`]: it may still arrive.
    /// [`ClientError::NotConnected`], [`ClientError::WillNotReconnect`].
    ///
    /// # Blocking
    /// Until the acknowledgement, at QoS 0 until the bytes are with the socket; at most the time in the options.
    pub fn publish<'a>(
        &self,
        topic: &str,
        payload: impl Into<Payload<'a>>,
        options: impl Into<PublishOptions>,
    ) -> Result<Published, ClientError> {
        todo!("{topic} {:?} {:?}", payload.into(), options.into())
    }

    /// Publishes a message without waiting for its acknowledgement.
    ///
    /// Publications of one thread leave in the order of the calls. What was published keeps its place even if the
    /// token is dropped.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), except for what the server answers.
    ///
    /// # Blocking
    /// While the window of messages in flight or the send buffer is full, and at QoS 0 while the client reconnects.
    pub fn publish_nowait<'a>(
        &self,
        topic: &str,
        payload: impl Into<Payload<'a>>,
        options: impl Into<PublishOptions>,
    ) -> Result<Token, ClientError> {
        todo!("{topic} {:?} {:?}", payload.into(), options.into())
    }

    /// Subscribes to Topic Filters with one SUBSCRIBE, and waits for the server's answer: for each filter, in order,
    /// the granted QoS or a Reason Code of 0x80 or above.
    ///
    /// The client remembers what was granted and subscribes again when it reconnects to a server that kept no session.
    ///
    /// # Errors
    /// [`ClientError::InvalidTopic`], [`ClientError::NotAvailable`]: nothing was sent. [`ClientError::Timeout`],
    /// [`ClientError::NotConnected`], [`ClientError::WillNotReconnect`]. A refused filter is not an error.
    ///
    /// # Blocking
    /// Until SUBACK; see [`ConnectOptions::ack_timeout`].
    pub fn subscribe<S: Into<Subscription>>(
        &self,
        filters: impl IntoIterator<Item = S>,
    ) -> Result<Vec<ReasonCode>, ClientError> {
        self.subscribe_with(filters, SubscribeOptions::new())
    }

    /// As [`subscribe`](Self::subscribe), with options.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_with<S: Into<Subscription>>(
        &self,
        filters: impl IntoIterator<Item = S>,
        options: SubscribeOptions,
    ) -> Result<Vec<ReasonCode>, ClientError> {
        let filters: Vec<Subscription> = filters.into_iter().map(Into::into).collect();
        todo!("{filters:?} {options:?}")
    }

    /// Ends subscriptions with one UNSUBSCRIBE, and waits for the server's answer: one Reason Code for each filter, in
    /// order. Before 5.0 the server gives none, and they are all `Success`.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Blocking
    /// Until UNSUBACK; see [`ConnectOptions::ack_timeout`].
    pub fn unsubscribe<F: AsRef<str>>(
        &self,
        filters: impl IntoIterator<Item = F>,
    ) -> Result<Vec<ReasonCode>, ClientError> {
        let filters: Vec<String> = filters.into_iter().map(|f| f.as_ref().to_owned()).collect();
        todo!("{filters:?}")
    }

    /// Takes the next message, in the order of arrival.
    ///
    /// # Errors
    /// [`ClientError::NotConnected`], [`ClientError::WillNotReconnect`], [`ClientError::Refused`]: every message is
    /// taken, and no other will come.
    ///
    /// # Blocking
    /// Until there is one, reconnects included.
    pub fn recv(&self) -> Result<ReceivedMessage, ClientError> {
        self.deliver_message(None)
    }

    /// As [`recv`](Self::recv), no longer than `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`ClientError::Timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<ReceivedMessage, ClientError> {
        self.deliver_message(Some(timeout))
    }

    /// Takes the next message if there is one; never blocks.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<ReceivedMessage>, ClientError> {
        todo!()
    }

    /// Takes the next message: HBMQTT's name for [`recv`](Self::recv) and, with a time, for
    /// [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Errors
    /// As there.
    pub fn deliver_message(
        &self,
        timeout: Option<Duration>,
    ) -> Result<ReceivedMessage, ClientError> {
        todo!("{timeout:?}")
    }

    /// The messages as they come, until the client is disconnected for good.
    pub fn iter(&self) -> impl Iterator<Item = ReceivedMessage> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Sends PINGREQ and waits for PINGRESP: how long the round trip took.
    ///
    /// # Errors
    /// [`ClientError::Timeout`]: no answer in time; the background thread decides whether the connection is dead.
    /// [`ClientError::NotConnected`], [`ClientError::ConnectionLost`].
    ///
    /// # Blocking
    /// At most `timeout`.
    pub fn ping(&self, timeout: Duration) -> Result<Duration, ClientError> {
        todo!("{timeout:?}")
    }

    /// Whether the client is connected.
    #[must_use]
    pub fn state(&self) -> ClientState {
        todo!()
    }

    /// Changes of state from now on. Each call makes a channel of its own; one that holds 64 events loses further ones.
    #[must_use]
    pub fn events(&self) -> crossbeam_channel::Receiver<StateEvent> {
        todo!()
    }

    /// The server's answer to the last CONNECT.
    #[must_use]
    pub fn connect_result(&self) -> ConnectResult {
        todo!()
    }

    /// The Client Identifier in use.
    #[must_use]
    pub fn client_id(&self) -> bytestring::ByteString {
        self.connect_result().client_id
    }

    /// Sends what waits, then DISCONNECT, and closes the connection. The Will is not published.
    ///
    /// Calls that wait, on this or another thread, return with [`ClientError::NotConnected`]. Without a connection
    /// nothing happens but a warning in the log.
    ///
    /// # Errors
    /// None at present.
    ///
    /// # Blocking
    /// Until the bytes are with the socket, at most [`write_timeout`](ConnectOptions::write_timeout).
    pub fn disconnect(&self) -> Result<(), ClientError> {
        todo!("{:?}", self.options)
    }
}
