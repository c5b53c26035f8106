//! SCRAM-SHA-256: both sides of the exchange, and what a server keeps of a password. Messages in, messages out; no
//! socket, no file.
//!
//! ```text
//!   client                                   server
//!     n,,n=user,r=… ────────────────────────►           ClientFirst, then the user's Credentials
//!           ◄───────── r=…,s=salt,i=iterations          ServerExchange::new
//!     c=biws,r=…,p=proof ───────────────────►           ServerExchange::finish: proof against the stored key
//!           ◄─────────────────────── v=signature        the client sees that the server has the key too
//! ```
//!
//! Without channel binding. Names and passwords are compared as the bytes they are: no SASLprep, which changes nothing
//! about ASCII.
//!
//! Source: RFC 5802, RFC 7677.

mod client;
mod credentials;
mod server;

pub use client::{ClientExchange, ScramError};
pub use credentials::{Credentials, InvalidCredentials};
pub use server::{ClientFirst, ServerExchange};

use base64ct::{Base64, Encoding};
use ring::rand::{SecureRandom, SystemRandom};

/// The name of the mechanism, and of the Authentication Method of MQTT 5.0.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Bytes of every key and signature.
pub const KEY_BYTES: usize = 32;

/// The fewest iterations that RFC 7677 allows.
pub const MIN_ITERATIONS: u32 = 4_096;

/// The most iterations that either side goes along with: about half a second of CPU.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// A fresh nonce: 24 characters. `None`: the system has no random numbers.
#[must_use]
pub fn nonce() -> Option<String> {
    let mut bytes = [0; 18];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(Base64::encode_string(&bytes))
}

/// The attributes of a message, `name=value`, separated by commas.
struct Attributes<'a>(std::str::Split<'a, char>);

impl<'a> Attributes<'a> {
    fn of(message: &'a str) -> Self {
        Self(message.split(','))
    }

    /// The value of the next attribute, if that has this name.
    fn take(&mut self, name: char) -> Option<&'a str> {
        self.0.next()?.strip_prefix(name)?.strip_prefix('=')
    }
}

/// What a nonce may consist of.
fn is_nonce(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn xor(one: &[u8; KEY_BYTES], other: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
    std::array::from_fn(|at| one[at] ^ other[at])
}

#[cfg(test)]
mod tests;
