//! The server's side.

use base64ct::{Base64, Encoding};

use super::credentials::{decode, hash, same, sign};
use super::{Attributes, Credentials, KEY_BYTES, is_nonce, xor};

/// The client's first message, read.
///
/// Source: RFC 5802 §5.1, §7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// Whom the client claims to be.
    pub user: String,
    /// `n,,` or `y,,`, with the authorization identity if there is one.
    gs2_header: String,
    /// The message without that header.
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads the message. `None`: it is malformed, or asks for what there is not: channel binding, an extension, to act
    /// as another user.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let message = std::str::from_utf8(message).ok()?;
        let bare_at = message.match_indices(',').nth(1)?.0 + 1;
        let (gs2_header, bare) = message.split_at_checked(bare_at)?;
        let (binding, authzid) = gs2_header.strip_suffix(',')?.split_once(',')?;
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let mut attributes = Attributes::of(bare);
        let user = unescape(attributes.take('n')?)?;
        let nonce = attributes.take('r').filter(|nonce| is_nonce(nonce))?;
        let itself = authzid.is_empty()
            || authzid.strip_prefix("a=").and_then(unescape).as_ref() == Some(&user);
        (itself && !user.is_empty()).then(|| Self {
            user,
            gs2_header: gs2_header.to_owned(),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }
}

/// A server that waits for the client's proof.
#[derive(Debug)]
pub struct ServerExchange {
    credentials: Credentials,
    /// What the last message must begin with, up to its proof: `c=…,r=…`.
    expected: String,
    /// The first two messages: what both sides sign, but for the last message.
    transcript: String,
}

impl ServerExchange {
    /// Answers a client's first message: the exchange, and the message for the client.
    ///
    /// `nonce` is a fresh [`nonce`](super::nonce).
    #[must_use]
    pub fn new(first: &ClientFirst, credentials: Credentials, nonce: &str) -> (Self, String) {
        let nonce = format!("{}{nonce}", first.nonce);
        let salt = Base64::encode_string(&credentials.salt);
        let answer = format!("r={nonce},s={salt},i={}", credentials.iterations);
        let binding = Base64::encode_string(first.gs2_header.as_bytes());
        let exchange = Self {
            credentials,
            expected: format!("c={binding},r={nonce}"),
            transcript: format!("{},{answer}", first.bare),
        };
        (exchange, answer)
    }

    /// Checks the client's last message: the message that proves the server to the client. `None`: the password is wrong,
    /// or the message is not one of this exchange. Costs the same either way.
    #[must_use]
    pub fn finish(self, message: &[u8]) -> Option<String> {
        let message = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        // Extensions may follow the nonce; none is mandatory.
        let known = without_proof
            .strip_prefix(&self.expected)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(','));
        let proof = <[u8; KEY_BYTES]>::try_from(decode(proof)?).ok()?;
        let signed = format!("{},{without_proof}", self.transcript);
        let signature = sign(&self.credentials.stored_key, signed.as_bytes());
        let client_key = xor(&proof, &signature);
        let right = same(&hash(&client_key), &self.credentials.stored_key);
        let answer = sign(&self.credentials.server_key, signed.as_bytes());
        (known && right).then(|| format!("v={}", Base64::encode_string(&answer)))
    }
}

/// A user name as it was before `,` and `=` were escaped.
fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('=');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = piece.split_at_checked(2)?;
        name.push(match escaped {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    Some(name)
}
