//! What a server keeps of a password, and how it is written.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

use super::{KEY_BYTES, MAX_ITERATIONS, METHOD, MIN_ITERATIONS};

/// Enough to check a proof, and not enough to make one: what is stolen with a file of these cannot be logged in with.
///
/// Written as `SCRAM-SHA-256$iterations:salt$stored key:server key`, the latter three in Base64, as PostgreSQL does.
/// `Debug` shows no key.
///
/// Source: RFC 5802 §3.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(super) iterations: u32,
    pub(super) salt: Box<[u8]>,
    pub(super) stored_key: [u8; KEY_BYTES],
    pub(super) server_key: [u8; KEY_BYTES],
}

/// The text is no [`Credentials`]: says what is wrong, without repeating any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCredentials(&'static str);

/// The keys that a password gives.
pub(super) struct Keys {
    pub(super) client: [u8; KEY_BYTES],
    pub(super) stored: [u8; KEY_BYTES],
    pub(super) server: [u8; KEY_BYTES],
}

impl Keys {
    /// Derives the keys: takes about half a microsecond per iteration.
    pub(super) fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut salted = [0; KEY_BYTES];
        let count = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            count,
            salt,
            password,
            &mut salted,
        );
        let client = sign(&salted, b"Client Key");
        Self {
            stored: hash(&client),
            server: sign(&salted, b"Server Key"),
            client,
        }
    }
}

impl Credentials {
    /// For a new password, under a random salt. `None`: the system has no random numbers.
    ///
    /// `iterations` is brought into the range 4,096 to 1,000,000: more make it dearer to guess passwords from a stolen
    /// file, and dearer for each client to connect; the server's own part does not depend on them.
    #[must_use]
    pub fn new(password: &[u8], iterations: u32) -> Option<Self> {
        let mut salt = [0; 16];
        SystemRandom::new().fill(&mut salt).ok()?;
        Some(Self::derive(password, &salt, iterations))
    }

    pub(super) fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let iterations = iterations.clamp(MIN_ITERATIONS, MAX_ITERATIONS);
        let keys = Keys::derive(password, salt, iterations);
        Self {
            iterations,
            salt: salt.into(),
            stored_key: keys.stored,
            server_key: keys.server,
        }
    }

    /// Looks like the credentials of a user, always the same for a name and a `secret`, and belongs to no password: for
    /// names that do not exist.
    #[must_use]
    pub fn dummy(name: &str, secret: &[u8; KEY_BYTES], iterations: u32, salt_bytes: usize) -> Self {
        let part = |label: &str| sign(secret, format!("{label}:{name}").as_bytes());
        let salt = part("salt");
        Self {
            iterations,
            salt: salt.iter().copied().cycle().take(salt_bytes).collect(),
            stored_key: part("stored"),
            server_key: part("server"),
        }
    }

    /// Verifies a password as such. Takes as long as the iterations do.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        let keys = Keys::derive(password, &self.salt, self.iterations);
        same(&keys.stored, &self.stored_key)
    }

    /// The iterations that a client has to make.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// The length of the salt in bytes.
    #[must_use]
    pub fn salt_bytes(&self) -> usize {
        self.salt.len()
    }

    /// Mixes the keys into a digest, for a secret that depends on them.
    pub fn mix_into(&self, digest: &mut digest::Context) {
        digest.update(&self.stored_key);
        digest.update(&self.server_key);
    }
}

impl FromStr for Credentials {
    type Err = InvalidCredentials;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MALFORMED: InvalidCredentials = InvalidCredentials(
            "expected SCRAM-SHA-256$iterations:salt$storedkey:serverkey; `hbmqtt_passwd --scram` makes such a line",
        );
        let mut fields = text.split('$');
        let (Some(METHOD), Some(how), Some(keys), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(MALFORMED);
        };
        let (iterations, salt) = how.split_once(':').ok_or(MALFORMED)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(MALFORMED)?;
        let iterations: u32 = iterations.parse().map_err(|_| MALFORMED)?;
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(InvalidCredentials(
                "the iterations are not in the range 4,096 to 1,000,000",
            ));
        }
        let salt = decode(salt).ok_or(InvalidCredentials("the salt is not Base64"))?;
        if salt.is_empty() {
            return Err(InvalidCredentials("the salt is missing"));
        }
        let key = |text| {
            decode(text)
                .and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok())
                .ok_or(InvalidCredentials("a key is not 32 bytes in Base64"))
        };
        Ok(Self {
            iterations,
            salt: salt.into(),
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{METHOD}${}:{}${}:{}",
            self.iterations,
            Base64::encode_string(&self.salt),
            Base64::encode_string(&self.stored_key),
            Base64::encode_string(&self.server_key)
        )
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for InvalidCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidCredentials {}

/// HMAC-SHA-256.
pub(super) fn sign(key: &[u8], message: &[u8]) -> [u8; KEY_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    copy(tag.as_ref())
}

/// SHA-256.
pub(super) fn hash(message: &[u8]) -> [u8; KEY_BYTES] {
    copy(digest::digest(&digest::SHA256, message).as_ref())
}

/// Compares by way of MACs, so that the time says nothing about how much is the same.
pub(super) fn same(one: &[u8; KEY_BYTES], other: &[u8; KEY_BYTES]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, other);
    hmac::verify(&key, one, hmac::sign(&key, other).as_ref()).is_ok()
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).ok()
}

fn copy(bytes: &[u8]) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    for (to, from) in key.iter_mut().zip(bytes) {
        *to = *from;
    }
    key
}
