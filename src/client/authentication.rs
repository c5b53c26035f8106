//! Enhanced authentication, the client's side: a method as a trait, and SCRAM-SHA-256.
//!
//! ```text
//!   CONNECT, method, first data ──►            AUTH 0x19, method, first data ──►
//!                 ◄── AUTH 0x18, data                        ◄── AUTH 0x18, data
//!       AUTH 0x18, data ──►                          AUTH 0x18, data ──►
//!                 ◄── CONNACK, data                          ◄── AUTH 0x00, data
//! ```
//!
//! Source: MQTT 5.0 §4.12.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::session::Pong;
use super::shared::{Shared, Urgency};
use super::token::Slot;
use super::{Client, ClientError, Phase};
use crate::outbox::OutBuf;
use crate::proto::packet::Packet;
use crate::proto::packet::auth::{Auth, AuthProperties};
use crate::proto::{ProtocolError, ProtocolVersion, ReasonCode, codec};
use crate::scram::{self, ClientExchange, ScramError};

/// A method of enhanced authentication, and who the client is under it.
///
/// One that the program brings is given to
/// [`ConnectOptions::authentication`](super::ConnectOptions::authentication). Its exchanges run on the thread that
/// connects or, when the client authenticates again, on the client's background thread; nothing is read meanwhile.
///
/// Source: MQTT 5.0 §4.12.
pub trait EnhancedAuthentication: Send + Sync {
    /// The Authentication Method.
    fn method(&self) -> &str;

    /// Begins an exchange: what goes on with it, and the Authentication Data of its first packet.
    ///
    /// # Errors
    /// There can be none; nothing is sent.
    fn begin(
        &self,
    ) -> Result<(Box<dyn AuthenticationExchange>, Option<Bytes>), AuthenticationError>;
}

/// One exchange of a method of enhanced authentication.
pub trait AuthenticationExchange: Send {
    /// Answers the Authentication Data of an AUTH of the server that wants to go on.
    ///
    /// # Errors
    /// The client does not go on; the connection is closed.
    fn answer(&mut self, data: Option<&[u8]>) -> Result<Option<Bytes>, AuthenticationError>;

    /// The server is content: checks the Authentication Data that it says so with.
    ///
    /// # Errors
    /// The client is not: the connection is closed.
    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError>;
}

/// Why the client does not go on with an exchange.
#[derive(Debug)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// What the server sent is not SCRAM, or shows that it does not know the password.
    Scram(ScramError),
    /// The server answered with another method. [MQTT-4.12.0-5]
    OtherMethod,
    /// The system has no random numbers.
    NoRandomness,
    /// A method of the program's own failed.
    Method(Box<dyn std::error::Error + Send + Sync>),
}

/// SCRAM-SHA-256: the password never leaves the client, and the server must show that it knows it too.
///
/// Source: RFC 5802, RFC 7677.
#[derive(Clone)]
pub struct ScramSha256 {
    user: String,
    password: Vec<u8>,
}

impl ScramSha256 {
    /// For this user.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }
}

impl EnhancedAuthentication for ScramSha256 {
    fn method(&self) -> &str {
        scram::METHOD
    }

    fn begin(
        &self,
    ) -> Result<(Box<dyn AuthenticationExchange>, Option<Bytes>), AuthenticationError> {
        let nonce = scram::nonce().ok_or(AuthenticationError::NoRandomness)?;
        let (exchange, first) = ClientExchange::new(&self.user, &self.password, &nonce);
        Ok((Box::new(exchange), Some(first.into())))
    }
}

impl AuthenticationExchange for ClientExchange {
    fn answer(&mut self, data: Option<&[u8]>) -> Result<Option<Bytes>, AuthenticationError> {
        let answer = Self::answer(self, data.unwrap_or_default())?;
        Ok(Some(answer.into()))
    }

    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError> {
        Ok(self.verify(data.unwrap_or_default())?)
    }
}

/// An exchange under way, at CONNECT or afterwards.
pub(crate) struct Running {
    method: ByteString,
    exchange: Box<dyn AuthenticationExchange>,
}

/// What an AUTH or CONNACK of the server asks for.
pub(crate) enum Step {
    /// Send this.
    Send(Packet),
    /// It is over, and well.
    Done,
}

impl Running {
    /// Begins one: what goes on, and the first data.
    pub(crate) fn begin(
        authentication: &dyn EnhancedAuthentication,
    ) -> Result<(Self, Option<Bytes>), ClientError> {
        let (exchange, data) = authentication.begin()?;
        let method = ByteString::from(authentication.method());
        Ok((Self { method, exchange }, data))
    }

    pub(crate) fn method(&self) -> &ByteString {
        &self.method
    }

    /// AUTH came.
    pub(crate) fn on_auth(&mut self, auth: &Auth) -> Result<Step, ClientError> {
        let properties = &auth.properties;
        let data = properties.authentication_data.as_deref();
        match auth.reason {
            ReasonCode::ContinueAuthentication => {
                self.check_method(properties.authentication_method.as_ref())?;
                let data = self.exchange.answer(data)?;
                let reason = ReasonCode::ContinueAuthentication;
                Ok(Step::Send(auth_packet(reason, &self.method, data)))
            }
            ReasonCode::Success => {
                self.finish(properties.authentication_method.as_ref(), data)?;
                Ok(Step::Done)
            }
            _ => Err(ProtocolError::UnexpectedAuth.into()),
        }
    }

    /// The server is content.
    pub(crate) fn finish(
        &mut self,
        method: Option<&ByteString>,
        data: Option<&[u8]>,
    ) -> Result<(), ClientError> {
        self.check_method(method)?;
        Ok(self.exchange.finish(data)?)
    }

    // [MQTT-4.12.0-5]
    fn check_method(&self, method: Option<&ByteString>) -> Result<(), AuthenticationError> {
        if method == Some(&self.method) {
            Ok(())
        } else {
            Err(AuthenticationError::OtherMethod)
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// Re-authentication, until the server is content or the connection ends.
#[derive(Debug)]
pub(crate) struct Reauthentication {
    /// `None` while it runs.
    running: Option<Running>,
    pub(crate) answer: Pong,
}

impl Client {
    /// Authenticates again on the connection that there is, with the method of
    /// [`ConnectOptions::authentication`](super::ConnectOptions::authentication). Messages come and go meanwhile.
    ///
    /// Threads that call this at the same time share one exchange.
    ///
    /// # Errors
    /// [`ClientError::InvalidOption`]: the client has no such method. [`ClientError::Authentication`]: the server is not
    /// the one that it claims to be; the connection is closed. [`ClientError::Rejected`]: the server did not believe the
    /// client and ended the connection. [`ClientError::Timeout`], [`ClientError::NotConnected`],
    /// [`ClientError::ConnectionLost`].
    ///
    /// # Blocking
    /// Until the server's last AUTH; see [`ConnectOptions::ack_timeout`](super::ConnectOptions::ack_timeout).
    ///
    /// Source: MQTT 5.0 §4.12.1.
    pub fn reauthenticate(&self) -> Result<(), ClientError> {
        let shared = self.shared();
        let deadline = shared.deadline(None);
        let answer = shared.begin_reauthentication()?;
        shared.wait_for(&answer, deadline, Phase::Authentication)
    }
}

impl Shared {
    fn begin_reauthentication(self: &Arc<Self>) -> Result<Pong, ClientError> {
        let Some(authentication) = &self.options.authentication else {
            let problem = "the client has no method to authenticate with";
            return Err(ClientError::invalid("authentication", problem));
        };
        let (running, data) = Running::begin(&**authentication)?;
        let mut core = self.lock();
        core.check_not_ended()?;
        if let Some(under_way) = &core.reauthentication {
            return Ok(Arc::clone(&under_way.answer));
        }
        let version = core.result.version;
        let most = core.result.properties.maximum_packet_size;
        let (_, link) = core.live().ok_or(ClientError::ConnectionLost)?;
        let packet = auth_packet(ReasonCode::ReAuthenticate, running.method(), data);
        put(&packet, version, most, &mut link.pending)?;
        let answer: Pong = Arc::new(Slot::new());
        core.reauthentication = Some(Reauthentication {
            running: Some(running),
            answer: Arc::clone(&answer),
        });
        self.send(core, Urgency::Now);
        Ok(answer)
    }

    /// AUTH came on the connection that is in use.
    ///
    /// # Errors
    /// The connection must end.
    pub(crate) fn on_auth(self: &Arc<Self>, auth: &Auth) -> Result<(), ClientError> {
        let mut running = {
            let mut core = self.lock();
            let under_way = core.reauthentication.as_mut();
            let running = under_way.and_then(|under_way| under_way.running.take());
            running.ok_or(ProtocolError::UnexpectedAuth)?
        };
        // Foreign code, and up to half a second of CPU: without the lock.
        let step = running.on_auth(auth)?;
        let mut core = self.lock();
        match step {
            Step::Send(packet) => {
                let version = core.result.version;
                let most = core.result.properties.maximum_packet_size;
                if let Some(under_way) = &mut core.reauthentication {
                    under_way.running = Some(running);
                }
                let (_, link) = core.live().ok_or(ClientError::ConnectionLost)?;
                put(&packet, version, most, &mut link.pending)?;
                self.send(core, Urgency::Now);
            }
            Step::Done => {
                let ended = core.reauthentication.take();
                drop(core);
                if let Some(ended) = ended {
                    ended.answer.fill(Ok(()));
                }
            }
        }
        Ok(())
    }
}

fn auth_packet(reason: ReasonCode, method: &ByteString, data: Option<Bytes>) -> Packet {
    Packet::Auth(Box::new(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(method.clone()),
            authentication_data: data,
            ..AuthProperties::default()
        },
    }))
}

/// Appends AUTH, unless it is larger than the server takes. [MQTT-3.2.2-15]
fn put(
    packet: &Packet,
    version: ProtocolVersion,
    most: Option<u32>,
    out: &mut OutBuf,
) -> Result<(), ClientError> {
    let mut encoded = Vec::new();
    codec::encode(packet, version, &mut encoded)?;
    if most.is_some_and(|most| encoded.len() as u64 > u64::from(most)) {
        return Err(ClientError::NotAvailable(ReasonCode::PacketTooLarge));
    }
    out.bytes_mut().extend_from_slice(&encoded);
    Ok(())
}

/// Shows no password.
impl fmt::Debug for ScramSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramSha256")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for AuthenticationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scram(error) => error.fmt(f),
            Self::OtherMethod => f.write_str("the server answered with another method"),
            Self::NoRandomness => f.write_str("the system has no random numbers"),
            Self::Method(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AuthenticationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Scram(error) => Some(error),
            Self::Method(error) => Some(&**error),
            Self::OtherMethod | Self::NoRandomness => None,
        }
    }
}

impl From<ScramError> for AuthenticationError {
    fn from(error: ScramError) -> Self {
        Self::Scram(error)
    }
}

impl From<AuthenticationError> for ClientError {
    fn from(error: AuthenticationError) -> Self {
        Self::Authentication(Arc::new(error))
    }
}
