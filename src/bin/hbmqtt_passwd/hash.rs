//! New hashes of passwords.

use std::num::NonZeroU32;

use base64ct::{Base64, Encoding};
use hbmqtt::scram::{Credentials, MIN_ITERATIONS};
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};
use sha_crypt::{Params, PasswordHasher, ShaCrypt};

use crate::shared::exit::Failure;

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Scheme {
    /// crypt(3)'s `$6$`: what HBMQTT's documentation and `mkpasswd -m sha-512` use.
    #[default]
    Sha512Crypt,
    /// mosquitto's `$7$`.
    Sha512Pbkdf2,
}

/// The scheme with this name.
///
/// # Errors
/// The names there are.
pub(crate) fn scheme(name: &str) -> Result<Scheme, String> {
    match name {
        "sha512-crypt" => Ok(Scheme::Sha512Crypt),
        "sha512-pbkdf2" => Ok(Scheme::Sha512Pbkdf2),
        _ => Err("use sha512-crypt or sha512-pbkdf2".to_owned()),
    }
}

/// Rounds, 1,000 to 1,000,000.
///
/// # Errors
/// Says the range.
pub(crate) fn iterations(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1_000..=1_000_000) => Ok(count),
        _ => Err("use 1000 to 1000000".to_owned()),
    }
}

/// The hash of a password under a new random salt.
///
/// # Errors
/// The system has no random numbers.
pub(crate) fn make(
    scheme: Scheme,
    password: &[u8],
    iterations: Option<u32>,
) -> Result<String, Failure> {
    match scheme {
        Scheme::Sha512Crypt => {
            sha512_crypt(password, iterations.unwrap_or(Params::RECOMMENDED_ROUNDS))
        }
        Scheme::Sha512Pbkdf2 => sha512_pbkdf2(password, iterations.unwrap_or(100_000)),
    }
}

/// What the broker's `scram-file` holds for a user with this password.
///
/// # Errors
/// Too few rounds, or the system has no random numbers.
pub(crate) fn scram(password: &[u8], iterations: Option<u32>) -> Result<String, Failure> {
    let iterations = iterations.unwrap_or(10_000);
    if iterations < MIN_ITERATIONS {
        return Err(Failure::usage(format!(
            "--scram needs at least {MIN_ITERATIONS} iterations"
        )));
    }
    Credentials::new(password, iterations)
        .map(|credentials| credentials.to_string())
        .ok_or_else(|| Failure::failed("the system has no random numbers"))
}

fn sha512_crypt(password: &[u8], rounds: u32) -> Result<String, Failure> {
    // Twelve bytes are sixteen characters: crypt(3) cuts a longer salt, and would make another hash of it.
    let salt: [u8; 12] = random()?;
    let params = Params::new(rounds).map_err(|error| Failure::failed(error.to_string()))?;
    let hash = ShaCrypt::new(sha_crypt::Algorithm::Sha512Crypt, params)
        .hash_password_with_salt(password, &salt)
        .map_err(|error| Failure::failed(error.to_string()))?
        .to_string();
    // The usual number of rounds is left out, as mkpasswd does.
    let usual = format!("$6$rounds={}$", Params::RECOMMENDED_ROUNDS);
    Ok(match hash.strip_prefix(&usual) {
        Some(rest) => format!("$6${rest}"),
        None => hash,
    })
}

fn sha512_pbkdf2(password: &[u8], rounds: u32) -> Result<String, Failure> {
    let salt: [u8; 12] = random()?;
    let mut hash = [0; 64];
    let count = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA512,
        count,
        &salt,
        password,
        &mut hash,
    );
    Ok(format!(
        "$7${rounds}${}${}",
        Base64::encode_string(&salt),
        Base64::encode_string(&hash)
    ))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::failed("the system has no random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha_crypt::PasswordVerifier;

    #[test]
    fn a_crypt_hash_has_a_salt_of_sixteen_characters() {
        let hash = make(Scheme::Sha512Crypt, b"secret", None).unwrap();
        let fields: Vec<&str> = hash.split('$').collect();
        assert_eq!((fields[1], fields[2].len(), fields[3].len()), ("6", 16, 86));
        assert!(
            ShaCrypt::default()
                .verify_password(b"secret", &*hash)
                .is_ok()
        );
        assert!(
            ShaCrypt::default()
                .verify_password(b"other", &*hash)
                .is_err()
        );
        assert_ne!(hash, make(Scheme::Sha512Crypt, b"secret", None).unwrap());
    }

    #[test]
    fn unusual_rounds_stand_in_the_hash() {
        let hash = make(Scheme::Sha512Crypt, b"secret", Some(1_000)).unwrap();
        assert!(hash.starts_with("$6$rounds=1000$"), "{hash}");
        assert!(
            ShaCrypt::default()
                .verify_password(b"secret", &*hash)
                .is_ok()
        );
    }

    #[test]
    fn scram_keys_belong_to_their_password() {
        let keys: Credentials = scram(b"secret", None).unwrap().parse().unwrap();
        assert_eq!(keys.iterations(), 10_000);
        assert!(keys.verify(b"secret") && !keys.verify(b"other"));
        assert!(scram(b"secret", Some(4_095)).is_err());
    }

    #[test]
    fn mosquittos_hash_has_its_fields() {
        let hash = make(Scheme::Sha512Pbkdf2, b"secret", Some(1_000)).unwrap();
        let fields: Vec<&str> = hash.split('$').collect();
        assert_eq!(
            (fields[1], fields[2], fields[3].len(), fields[4].len()),
            ("7", "1000", 16, 88)
        );
    }
}
