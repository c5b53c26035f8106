//! The client's side.

use std::fmt;

use base64ct::{Base64, Encoding};
use ring::hmac;

use super::credentials::{Keys, decode, sign};
use super::{Attributes, KEY_BYTES, MAX_ITERATIONS, MIN_ITERATIONS, is_nonce, xor};

/// Why a client does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScramError {
    /// The server's message cannot be understood.
    Malformed,
    /// The server's nonce does not continue the client's: the answer to somebody else.
    Nonce,
    /// The server asks for fewer than 4,096 iterations, which would help it to guess the password, or for more than
    /// 1,000,000.
    Iterations,
    /// The server refused.
    Refused,
    /// The server does not know the password either: it is not the one that it claims to be.
    ServerSignature,
}

/// A client in the middle of an exchange: `new`, then `answer` to the server's first message, then `verify` its last.
///
/// `Debug` shows no password.
pub struct ClientExchange {
    password: Vec<u8>,
    nonce: String,
    bare: String,
    /// What the server must present.
    server: Option<(hmac::Key, String)>,
}

impl ClientExchange {
    /// Begins: the exchange, and the first message for the server.
    ///
    /// `nonce` is a fresh [`nonce`](super::nonce).
    #[must_use]
    pub fn new(user: &str, password: &[u8], nonce: &str) -> (Self, String) {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={nonce}");
        let first = format!("{GS2_HEADER}{bare}");
        let exchange = Self {
            password: password.to_vec(),
            nonce: nonce.to_owned(),
            bare,
            server: None,
        };
        (exchange, first)
    }

    /// Answers the server's first message: the last message for the server. Takes as long as the iterations that the
    /// server asks for, up to about half a second.
    ///
    /// # Errors
    /// [`ScramError`]: give up.
    pub fn answer(&mut self, message: &[u8]) -> Result<String, ScramError> {
        let message = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let mut attributes = Attributes::of(message);
        let nonce = attributes.take('r').ok_or(ScramError::Malformed)?;
        let salt = attributes.take('s').and_then(decode);
        let iterations = attributes.take('i').and_then(|count| count.parse().ok());
        let (Some(salt), Some(iterations)) = (salt, iterations) else {
            return Err(ScramError::Malformed);
        };
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) || !is_nonce(nonce) {
            return Err(ScramError::Nonce);
        }
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError::Iterations);
        }
        let keys = Keys::derive(&self.password, &salt, iterations);
        let binding = Base64::encode_string(GS2_HEADER.as_bytes());
        let without_proof = format!("c={binding},r={nonce}");
        let signed = format!("{},{message},{without_proof}", self.bare);
        let proof: [u8; KEY_BYTES] = xor(&keys.client, &sign(&keys.stored, signed.as_bytes()));
        let server_key = hmac::Key::new(hmac::HMAC_SHA256, &keys.server);
        self.server = Some((server_key, signed));
        Ok(format!(
            "{without_proof},p={}",
            Base64::encode_string(&proof)
        ))
    }

    /// Checks the server's last message: only now is it the server that knows the password.
    ///
    /// # Errors
    /// [`ScramError`]: do not use the connection.
    pub fn verify(&self, message: &[u8]) -> Result<(), ScramError> {
        let message = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        if message.starts_with("e=") {
            return Err(ScramError::Refused);
        }
        let signature = Attributes::of(message).take('v').and_then(decode);
        let (Some(signature), Some((key, signed))) = (signature, &self.server) else {
            return Err(ScramError::Malformed);
        };
        hmac::verify(key, signed.as_bytes(), &signature).map_err(|_| ScramError::ServerSignature)
    }
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientExchange")
            .field("answered", &self.server.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ScramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the server's SCRAM message cannot be understood",
            Self::Nonce => "the server's SCRAM message belongs to another exchange",
            Self::Iterations => "the server asks for too few or too many SCRAM iterations",
            Self::Refused => "the server refused the SCRAM exchange",
            Self::ServerSignature => "the server does not know the password",
        })
    }
}

impl std::error::Error for ScramError {}

/// No channel binding, and nobody else to act as.
const GS2_HEADER: &str = "n,,";
