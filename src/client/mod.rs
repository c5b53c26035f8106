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

mod attempt;
mod authentication;
#[cfg(feature = "yaml")]
mod config;
mod driver;
mod error;
mod handshake;
mod inbox;
mod message;
mod options;
mod reconnect;
mod redirect;
mod request;
mod session;
mod shared;
mod store;
mod token;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytestring::ByteString;
use ring::rand::{SecureRandom, SystemRandom};

use crate::net::NetError;
use crate::net::url::Endpoint;
use crate::proto::packet::connack::ConnackProperties;
use crate::proto::{ProtocolVersion, ReasonCode};
use crate::thread;

pub use authentication::{
    AuthenticationError, AuthenticationExchange, EnhancedAuthentication, ScramSha256,
};
#[cfg(feature = "yaml")]
pub use config::{ClientConfig, TopicConfig, WillConfig};
pub use error::{ClientError, InvalidOption, Phase, Refusal, Rejection};
pub use message::{Flow, Published, ReceivedMessage, SubscribeResult};
pub use options::{
    ConnectOptions, DisconnectOptions, Payload, PublishOptions, SubscribeOptions, Subscription,
    TlsOptions, TopicDefaults, WillOptions,
};
pub use redirect::{RedirectError, RedirectProblem};
pub use token::Token;

use inbox::Wait;
use shared::{Shared, Urgency, now};

/// A connection to a broker: a handle that is cheap to clone and may be used by many threads at once.
///
/// The last handle dropped disconnects and ends the background thread. With a [store](ConnectOptions::store) it waits for
/// the disk.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What all handles of the program share. The background thread has none, so that the last one dropped is noticed.
struct Handle {
    shared: Arc<Shared>,
}

/// What the server answered to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResult {
    /// The server had a session of this client and goes on with it.
    pub session_present: bool,
    /// The protocol version in use.
    pub version: ProtocolVersion,
    /// The Client Identifier in use: the option's, the generated one, or the one that the server assigned.
    pub client_id: ByteString,
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
    /// after repeated attempts the last of them. [`ClientError::Store`]: there is a store, and it cannot be used.
    ///
    /// # Blocking
    /// Until CONNACK: [`connect_timeout`](ConnectOptions::connect_timeout) for each attempt, and the pauses between.
    pub fn connect(url: &str, options: ConnectOptions) -> Result<Self, ClientError> {
        options.check()?;
        let endpoint = Endpoint::parse(url).map_err(NetError::from)?;
        let client_id = match &options.client_id {
            Some(id) => id.clone(),
            None => random_client_id()?,
        };
        let dial = handshake::dial_options(&options, &endpoint)?;
        let shared = Shared::new(options, endpoint, dial, client_id);
        let client = Self {
            handle: Arc::new(Handle { shared }),
        };
        client.shared().open_store()?;
        client.connect_now()?;
        Ok(client)
    }

    /// Connects to the broker that [`ConnectOptions::uri`] names.
    ///
    /// # Errors
    /// [`ClientError::MissingUrl`], and those of [`connect`](Self::connect).
    pub fn open(options: ConnectOptions) -> Result<Self, ClientError> {
        let uri = options.uri.clone().ok_or(ClientError::MissingUrl)?;
        Self::connect(&uri, options)
    }

    /// Connects again with the same settings, after the connection was lost for good or ended by
    /// [`disconnect`](Self::disconnect). `clean_start` replaces the option for this and the following connections.
    ///
    /// A client that is connected stays as it is; that is logged as a warning.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn reconnect(&self, clean_start: Option<bool>) -> Result<ConnectResult, ClientError> {
        let shared = self.shared();
        let mut core = shared.lock();
        if core.state == ClientState::Connected {
            log::warn!("Client already connected");
            return Ok(core.result.clone());
        }
        if shared::in_callback() {
            return Err(ClientError::WouldDeadlock);
        }
        if let Some(clean_start) = clean_start {
            core.clean_start = clean_start;
        }
        if core.state == ClientState::Disconnected {
            drop(core);
            return self.connect_now();
        }
        // The background thread, or another one of the program, is at it.
        core.retry_now = true;
        shared.notify();
        while core.state == ClientState::Reconnecting {
            shared.wait_for_change(&mut core, None);
        }
        core.check_not_ended()?;
        Ok(core.result.clone())
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
        let options = options.into();
        let deadline = self.shared().deadline(options.timeout);
        let token =
            self.shared()
                .publish(topic, payload.into(), options, deadline, Urgency::Now)?;
        token.wait_until(deadline)
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
        let options = options.into();
        let deadline = self.shared().deadline(options.timeout);
        self.shared()
            .publish(topic, payload.into(), options, deadline, Urgency::Soon)
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
        Ok(self.subscribe_detailed(filters, options)?.reasons)
    }

    /// As [`subscribe_with`](Self::subscribe_with): all that the server answers, Reason String and User Properties
    /// included.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_detailed<S: Into<Subscription>>(
        &self,
        filters: impl IntoIterator<Item = S>,
        options: SubscribeOptions,
    ) -> Result<SubscribeResult, ClientError> {
        let filters = filters.into_iter().map(Into::into).collect();
        self.shared().subscribe(filters, options)
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
        self.unsubscribe_with(filters, SubscribeOptions::new())
    }

    /// As [`unsubscribe`](Self::unsubscribe), with options; an identifier has no meaning here.
    ///
    /// # Errors
    /// As [`unsubscribe`](Self::unsubscribe).
    pub fn unsubscribe_with<F: AsRef<str>>(
        &self,
        filters: impl IntoIterator<Item = F>,
        options: SubscribeOptions,
    ) -> Result<Vec<ReasonCode>, ClientError> {
        Ok(self.unsubscribe_detailed(filters, options)?.reasons)
    }

    /// As [`unsubscribe_with`](Self::unsubscribe_with): all that the server answers.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn unsubscribe_detailed<F: AsRef<str>>(
        &self,
        filters: impl IntoIterator<Item = F>,
        options: SubscribeOptions,
    ) -> Result<SubscribeResult, ClientError> {
        let filters = filters
            .into_iter()
            .map(|filter| ByteString::from(filter.as_ref()))
            .collect();
        self.shared().unsubscribe(filters, options)
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
        self.shared().take(Wait::No)
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
        let wait = match timeout.map(|timeout| now().checked_add(timeout)) {
            Some(Some(deadline)) => Wait::Until(deadline),
            None | Some(None) => Wait::Forever,
        };
        let message = self.shared().take(wait)?;
        message.ok_or(ClientError::Timeout(Phase::Delivery))
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
        self.shared().ping(timeout)
    }

    /// Whether the client is connected.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.shared().lock().state
    }

    /// Changes of state from now on. Each call makes a channel of its own; one that holds 64 events loses further ones.
    #[must_use]
    pub fn events(&self) -> crossbeam_channel::Receiver<StateEvent> {
        self.shared().watch()
    }

    /// The server's answer to the last CONNECT.
    #[must_use]
    pub fn connect_result(&self) -> ConnectResult {
        self.shared().lock().result.clone()
    }

    /// The protocol version in use: the one that was chosen, or the one that was agreed on with the server.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.shared().lock().result.version
    }

    /// The Client Identifier in use.
    #[must_use]
    pub fn client_id(&self) -> ByteString {
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
    /// Until the server closes the connection, which it does when it has read DISCONNECT: for a second at most, or for
    /// the [`write_timeout`](ConnectOptions::write_timeout) when it was slow to take what was sent before.
    pub fn disconnect(&self) -> Result<(), ClientError> {
        self.disconnect_with(DisconnectOptions::new())
    }

    /// As [`disconnect`](Self::disconnect), with what MQTT 5.0 can say at the end. Before 5.0 the options but
    /// [`publish_will`](DisconnectOptions::publish_will) are left out.
    ///
    /// # Errors
    /// [`ClientError::InvalidOption`]: the session was to end with the connection and cannot be kept now, or the Will is
    /// to be published and the version has no words for that. [`ClientError::Unsendable`]: a text is too long. The
    /// connection stays.
    ///
    /// # Blocking
    /// As `disconnect`.
    ///
    /// Source: MQTT 5.0 §3.14.
    pub fn disconnect_with(&self, options: DisconnectOptions) -> Result<(), ClientError> {
        if self.shared().disconnect(options)? {
            self.shared()
                .tell(&StateEvent::Disconnected { error: None });
        } else {
            log::warn!("Client not connected");
        }
        Ok(())
    }

    /// Calls `handler` for each message, on a thread of its own, until the client is disconnected for good or its last
    /// handle is dropped. The handler may publish, subscribe and disconnect.
    ///
    /// The client that the handler is given does not keep the connection; one that it holds by itself does.
    ///
    /// # Errors
    /// [`ClientError::Thread`].
    pub fn on_message(
        &self,
        mut handler: impl FnMut(&Self, ReceivedMessage) + Send + 'static,
    ) -> Result<JoinHandle<()>, ClientError> {
        let shared = Arc::clone(self.shared());
        let handle = Arc::downgrade(&self.handle);
        let run = move || {
            while let Ok(Some(message)) = shared.take(Wait::Forever) {
                let Some(handle) = handle.upgrade() else {
                    return;
                };
                handler(&Self { handle }, message);
            }
        };
        thread::spawn("client-handler", 0, run)
            .map_err(|error| ClientError::Thread(Arc::new(error)))
    }

    /// How many messages wait to be taken.
    #[must_use]
    pub fn waiting_messages(&self) -> usize {
        self.shared().inbox.len()
    }

    /// How many QoS 0 messages were dropped because the program, while it waited for the server, did not take those that
    /// stood before the answer. See [`ConnectOptions::inbox_limits`].
    #[must_use]
    pub fn dropped_messages(&self) -> u64 {
        self.shared().inbox.dropped()
    }

    /// How many QoS 1 and 2 publications are on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared().lock().session.in_flight()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn connect_now(&self) -> Result<ConnectResult, ClientError> {
        let shared = self.shared();
        shared.check_store()?;
        if !shared.begin_connecting() {
            return self.reconnect(None);
        }
        let connected = driver::connect(shared);
        if let Err(error) = &connected {
            shared.end(error);
        }
        shared.end_connecting();
        connected
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("client_id", &self.client_id())
            .field("broker", &self.shared().lock().route.current)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.shared.disconnect(DisconnectOptions::new());
        self.shared.close_store();
    }
}

/// `hbmqtt/` and 16 letters and digits: 23 bytes, which every server takes.
///
/// Source: MQTT 3.1.1 §3.1.3.1 [MQTT311-3.1.3-5].
fn random_client_id() -> Result<ByteString, ClientError> {
    Ok(format!("hbmqtt/{}", random_text(ID_CHARACTERS)?).into())
}

/// Letters and digits by chance.
fn random_text(characters: usize) -> Result<String, ClientError> {
    let mut text = String::with_capacity(characters);
    let random = SystemRandom::new();
    while text.len() < characters {
        let mut byte = [0];
        random
            .fill(&mut byte)
            .map_err(|_| ClientError::invalid("client_id", "no randomness for a generated one"))?;
        // Values that would favour some characters are left out: 248 is the largest multiple of 62.
        if let [byte @ 0..=247] = byte
            && let Some(letter) = ALPHABET.get(usize::from(byte) % ALPHABET.len())
        {
            text.push(char::from(*letter));
        }
    }
    Ok(text)
}

const ID_CHARACTERS: usize = 16;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests;
