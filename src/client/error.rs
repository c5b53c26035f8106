//! What can go wrong in a client, by what the caller can do about it.

use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;

use super::authentication::AuthenticationError;
use super::redirect::RedirectError;
use crate::net::NetError;
use crate::proto::packet::UserProperty;
use crate::proto::topic::TopicError;
use crate::proto::{DecodeError, EncodeError, ProtocolError, ReasonCode};
use crate::store::StoreError;

/// Why a call of the client failed.
///
/// Cheap to clone: one connection that ends fails every call that waited for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientError {
    /// No broker was named, neither in the call nor in the options. Pass a URL.
    MissingUrl,
    /// An option, or two of them together, cannot work. Nothing was sent.
    InvalidOption(Arc<InvalidOption>),
    /// A Topic Name or Topic Filter is not valid. Nothing was sent.
    InvalidTopic(TopicError),
    /// A packet cannot be encoded: a field or the packet is too long. Nothing was sent.
    Unsendable(EncodeError),
    /// The server said in CONNACK that it has not what the call needs (QoS, retained messages, a kind of subscription,
    /// a packet of this size). Nothing was sent.
    NotAvailable(ReasonCode),
    /// The URL is invalid, or the network, TLS or the WebSocket handshake failed. Trying again later may help.
    Network(Arc<NetError>),
    /// The server answered CONNECT with a refusal. Credentials and identifiers are never tried again by themselves.
    Refused(Arc<Refusal>),
    /// A server has sent the client to another one, and the way ends nowhere.
    Redirect(Arc<RedirectError>),
    /// The client does not go on with the exchange of enhanced authentication: what the server sent is not right, or
    /// shows that it is not the server that it claims to be.
    Authentication(Arc<AuthenticationError>),
    /// The server answered a PUBLISH, SUBSCRIBE or UNSUBSCRIBE with an error, or ended the connection with one.
    Rejected(Arc<Rejection>),
    /// The server did not answer in time. A publication may still arrive.
    Timeout(Phase),
    /// There is no connection and none is being made: never connected, or disconnected by the program.
    NotConnected,
    /// The connection ended while the call waited, and its answer will not come.
    ConnectionLost,
    /// The connection was lost and reconnecting was given up; the cause of the last attempt is inside.
    WillNotReconnect(Arc<Self>),
    /// The server sent bytes that are not MQTT.
    Malformed(DecodeError),
    /// The server sent a packet that is not allowed in this state.
    Protocol(ProtocolError),
    /// A call that waits for the server was made from a state callback, on the thread that would have to read the
    /// answer. Use `publish_nowait`, or another thread.
    WouldDeadlock,
    /// The message is no request: it has no Response Topic, and nobody waits for a response. Nothing was sent.
    NotARequest,
    /// The client's store cannot be opened, read or synced. After a failed sync the client is of no further use: begin again
    /// with a new one.
    Store(Arc<StoreError>),
    /// The operating system refused a thread.
    Thread(Arc<std::io::Error>),
}

/// What a call waited for when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The network connection and its handshakes.
    Dial,
    /// CONNACK.
    Connack,
    /// Being connected again.
    Reconnect,
    /// Room in the window of messages in flight, or in the buffer before the socket.
    Room,
    /// PUBACK or PUBCOMP.
    Acknowledgement,
    /// SUBACK.
    Suback,
    /// UNSUBACK.
    Unsuback,
    /// PINGRESP.
    Pingresp,
    /// The server's AUTH.
    Authentication,
    /// A message to deliver.
    Delivery,
    /// The response to a request.
    Response,
}

/// An option that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidOption {
    /// The option's name in [`ConnectOptions`](super::ConnectOptions) or in the configuration file.
    pub option: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// A CONNACK that refuses the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The Reason Code; a return code of MQTT 3.1.1 is mapped to the reason that it stands for.
    pub reason: ReasonCode,
    /// The number in the CONNACK as the server sent it: 1 to 5 in 3.1 and 3.1.1, 128 and above in 5.0.
    pub return_code: u8,
    /// Reason String, 5.0 only.
    pub reason_string: Option<ByteString>,
    /// Server Reference, 5.0 only: where to connect instead.
    pub server_reference: Option<ByteString>,
    /// User Properties, 5.0 only.
    pub user_properties: Vec<UserProperty>,
}

/// An acknowledgement, or a DISCONNECT of the server, that carries an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The Reason Code.
    pub reason: ReasonCode,
    /// Reason String, 5.0 only.
    pub reason_string: Option<ByteString>,
    /// Server Reference in a DISCONNECT, 5.0 only.
    pub server_reference: Option<ByteString>,
    /// User Properties, 5.0 only.
    pub user_properties: Vec<UserProperty>,
}

impl ClientError {
    /// The Reason Code that the server gave, if it is the server's answer.
    #[must_use]
    pub fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            Self::Rejected(rejection) => Some(rejection.reason),
            Self::NotAvailable(reason) => Some(*reason),
            Self::Redirect(redirect) => Some(redirect.reason),
            Self::WillNotReconnect(cause) => cause.reason(),
            _ => None,
        }
    }

    /// The server's own words about it, 5.0 only. Not escaped.
    #[must_use]
    pub fn reason_string(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.reason_string.as_deref(),
            Self::Rejected(rejection) => rejection.reason_string.as_deref(),
            Self::WillNotReconnect(cause) => cause.reason_string(),
            _ => None,
        }
    }

    /// The number in the CONNACK that refused the connection: 1 to 5 in 3.1.1, 128 and above in 5.0.
    #[must_use]
    pub fn return_code(&self) -> Option<u8> {
        match self {
            Self::Refused(refusal) => Some(refusal.return_code),
            Self::WillNotReconnect(cause) => cause.return_code(),
            _ => None,
        }
    }

    /// The time of the call, or of one of its phases, ran out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout(_) => true,
            Self::Network(error) => matches!(**error, NetError::Timeout(_)),
            Self::WillNotReconnect(cause) => cause.is_timeout(),
            _ => false,
        }
    }

    /// Connecting again by itself makes sense: the network or a busy server was the reason, not what the client asked
    /// for.
    #[must_use]
    pub(crate) fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Network(error) => !matches!(**error, NetError::Url(_)),
            Self::Timeout(_) | Self::ConnectionLost | Self::Malformed(_) | Self::Protocol(_) => {
                true
            }
            Self::Refused(refusal) => is_passing(refusal.reason),
            // A server that ends the connection may well take the next one, except where both would take turns.
            Self::Rejected(rejection) => rejection.reason != ReasonCode::SessionTakenOver,
            _ => false,
        }
    }

    /// A refusal without words.
    pub(crate) fn rejected(reason: ReasonCode) -> Self {
        Self::Rejected(Arc::new(Rejection {
            reason,
            reason_string: None,
            server_reference: None,
            user_properties: Vec::new(),
        }))
    }

    pub(crate) fn invalid(option: &'static str, problem: impl Into<String>) -> Self {
        Self::InvalidOption(Arc::new(InvalidOption {
            option,
            problem: problem.into(),
        }))
    }
}

/// A refusal that says nothing about this client: the server may take the same CONNECT later.
fn is_passing(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::ServerShuttingDown
            | ReasonCode::QuotaExceeded
            | ReasonCode::ConnectionRateExceeded
            | ReasonCode::UnspecifiedError
            | ReasonCode::ImplementationSpecificError
    )
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingUrl => f.write_str("Missing connection parameter 'uri'"),
            Self::InvalidOption(invalid) => invalid.fmt(f),
            Self::InvalidTopic(error) => error.fmt(f),
            Self::Unsendable(error) => error.fmt(f),
            Self::NotAvailable(reason) => write!(f, "the server does not offer this: {reason}"),
            Self::Network(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Redirect(redirect) => redirect.fmt(f),
            Self::Authentication(error) => write!(f, "authentication failed: {error}"),
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Timeout(phase) => write!(f, "timed out waiting for {phase}"),
            Self::NotConnected => f.write_str("not connected"),
            Self::ConnectionLost => f.write_str("connection lost"),
            Self::WillNotReconnect(cause) => write!(f, "will not reconnect: {cause}"),
            Self::Malformed(error) => write!(f, "malformed packet from the server: {error}"),
            Self::Protocol(error) => write!(f, "protocol error of the server: {error}"),
            Self::WouldDeadlock => {
                f.write_str("a state callback cannot wait for an answer of the server")
            }
            Self::NotARequest => f.write_str("the message has no response topic"),
            Self::Store(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InvalidTopic(error) => Some(error),
            Self::Unsendable(error) => Some(error),
            Self::Network(error) => Some(error.as_ref()),
            Self::WillNotReconnect(cause) => Some(cause.as_ref()),
            Self::Malformed(error) => Some(error),
            Self::Authentication(error) => Some(error.as_ref()),
            Self::Protocol(error) => Some(error),
            Self::Store(error) => Some(error.as_ref()),
            Self::Thread(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "the connection",
            Self::Connack => "CONNACK",
            Self::Reconnect => "the connection to come back",
            Self::Room => "room to send",
            Self::Acknowledgement => "the acknowledgement",
            Self::Suback => "SUBACK",
            Self::Unsuback => "UNSUBACK",
            Self::Pingresp => "PINGRESP",
            Self::Authentication => "AUTH",
            Self::Delivery => "a message",
            Self::Response => "the response",
        })
    }
}

impl fmt::Display for InvalidOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection refused by the server: {}", self.reason)?;
        if self.return_code < 0x80 {
            write!(f, ", return code {}", self.return_code)?;
        }
        fmt_text(f, self.reason_string.as_deref())?;
        fmt_reference(f, self.server_reference.as_deref())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected by the server: {}", self.reason)?;
        fmt_text(f, self.reason_string.as_deref())?;
        fmt_reference(f, self.server_reference.as_deref())
    }
}

/// The server's own words, escaped: they go to terminals and logs.
fn fmt_text(f: &mut fmt::Formatter<'_>, text: Option<&str>) -> fmt::Result {
    match text {
        Some(text) => write!(f, ": {}", text.escape_debug()),
        None => Ok(()),
    }
}

fn fmt_reference(f: &mut fmt::Formatter<'_>, reference: Option<&str>) -> fmt::Result {
    match reference {
        Some(reference) => write!(f, " (use {})", reference.escape_debug()),
        None => Ok(()),
    }
}

impl From<NetError> for ClientError {
    fn from(error: NetError) -> Self {
        Self::Network(Arc::new(error))
    }
}

impl From<TopicError> for ClientError {
    fn from(error: TopicError) -> Self {
        Self::InvalidTopic(error)
    }
}

impl From<EncodeError> for ClientError {
    fn from(error: EncodeError) -> Self {
        Self::Unsendable(error)
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<ProtocolError> for ClientError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: ReasonCode, return_code: u8) -> ClientError {
        ClientError::Refused(Arc::new(Refusal {
            reason,
            return_code,
            reason_string: None,
            server_reference: None,
            user_properties: Vec::new(),
        }))
    }

    #[test]
    fn an_error_is_small() {
        assert!(
            size_of::<ClientError>() <= 32,
            "{}",
            size_of::<ClientError>()
        );
    }

    #[test]
    fn refused_credentials_are_not_tried_again() {
        assert!(!refusal(ReasonCode::BadUserNameOrPassword, 4).is_worth_a_retry());
        assert!(!refusal(ReasonCode::NotAuthorized, 5).is_worth_a_retry());
        assert!(!refusal(ReasonCode::ClientIdentifierNotValid, 2).is_worth_a_retry());
        assert!(refusal(ReasonCode::ServerUnavailable, 3).is_worth_a_retry());
    }

    #[test]
    fn return_code_is_the_number_on_the_wire() {
        let error = ClientError::WillNotReconnect(Arc::new(refusal(ReasonCode::NotAuthorized, 5)));
        assert_eq!(error.return_code(), Some(5));
        assert_eq!(error.reason(), Some(ReasonCode::NotAuthorized));
    }

    #[test]
    fn words_of_the_server_are_escaped() {
        let error = ClientError::Rejected(Arc::new(Rejection {
            reason: ReasonCode::NotAuthorized,
            reason_string: Some(ByteString::from("no\x1b[31m\nreally")),
            server_reference: None,
            user_properties: Vec::new(),
        }));
        assert_eq!(
            error.to_string(),
            "rejected by the server: Not authorized (0x87): no\\u{1b}[31m\\nreally"
        );
    }
}
