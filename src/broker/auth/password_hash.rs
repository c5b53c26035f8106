//! The hashes of a password file: reading one, and checking a password against it.

use std::fmt;
use std::num::NonZeroU32;

use base64ct::{Base64, Encoding};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, pbkdf2};
use sha_crypt::{PasswordVerifier, ShaCrypt};

/// The hash of a password, checked to be one that can be verified.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PasswordHash {
    kind: Kind,
    rounds: u32,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// `$5$[rounds=N$]salt$hash` and `$6$…` of crypt(3), as written.
    Crypt(Box<str>),
    /// `$7$iterations$salt$hash` of mosquitto: PBKDF2 with HMAC-SHA-512, Base64.
    Pbkdf2 { salt: Box<[u8]>, hash: Box<[u8]> },
    /// `$6$salt$hash` of mosquitto before 2.0, not to be confused with crypt(3)'s: one SHA-512 of password and salt,
    /// Base64.
    Sha512 { salt: Box<[u8]>, hash: Box<[u8]> },
}

impl PasswordHash {
    /// Reads a hash; the error says what is wrong with it, without repeating it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix('$') else {
            return Err("the password is not hashed; `mkpasswd -m sha-512` makes a hash");
        };
        let mut fields = rest.split('$');
        let id = fields.next().unwrap_or("");
        let fields: Vec<&str> = fields.collect();
        match (id, &fields[..]) {
            ("6", [salt, hash]) if hash.len() == 88 => Self::sha512(salt, hash),
            ("5" | "6", [salt, hash]) => Self::crypt(text, id, DEFAULT_ROUNDS, salt, hash),
            ("5" | "6", [rounds, salt, hash]) => {
                let rounds = rounds
                    .strip_prefix("rounds=")
                    .ok_or("the hash is malformed")?;
                let rounds = rounds
                    .parse()
                    .map_err(|_| "the number of rounds is malformed")?;
                Self::crypt(text, id, rounds, salt, hash)
            }
            ("7", [rounds, salt, hash]) => Self::pbkdf2(rounds, salt, hash),
            ("5" | "6" | "7", _) => Err("the hash is malformed"),
            _ => Err("the kind of hash is not supported; use $6$, $5$ or mosquitto's $7$"),
        }
    }

    fn crypt(
        text: &str,
        id: &str,
        rounds: u32,
        salt: &str,
        hash: &str,
    ) -> Result<Self, &'static str> {
        if !(1_000..=MAX_ROUNDS).contains(&rounds) {
            return Err("the rounds are not in the range 1,000 to 1,000,000");
        }
        if salt.is_empty() {
            return Err("the salt is missing");
        }
        let digits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
        let length = if id == "5" { 43 } else { 86 };
        if hash.len() != length || !hash.bytes().all(digits) {
            return Err("the hash is truncated or malformed");
        }
        Ok(Self {
            kind: Kind::Crypt(text.into()),
            rounds,
        })
    }

    fn pbkdf2(rounds: &str, salt: &str, hash: &str) -> Result<Self, &'static str> {
        let rounds = rounds
            .parse()
            .map_err(|_| "the number of iterations is malformed")?;
        if !(1..=MAX_ROUNDS).contains(&rounds) {
            return Err("the iterations are not in the range 1 to 1,000,000");
        }
        let (salt, hash) = salt_and_hash(salt, hash)?;
        Ok(Self {
            kind: Kind::Pbkdf2 { salt, hash },
            rounds,
        })
    }

    fn sha512(salt: &str, hash: &str) -> Result<Self, &'static str> {
        let (salt, hash) = salt_and_hash(salt, hash)?;
        Ok(Self {
            kind: Kind::Sha512 { salt, hash },
            rounds: 1,
        })
    }

    /// The password belongs to the hash. Takes the same time whether it does or not.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match &self.kind {
            Kind::Crypt(text) => ShaCrypt::default()
                .verify_password(password, &**text)
                .is_ok(),
            Kind::Pbkdf2 { salt, hash } => NonZeroU32::new(self.rounds).is_some_and(|rounds| {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, rounds, salt, password, hash).is_ok()
            }),
            Kind::Sha512 { salt, hash } => {
                let mut digest = digest::Context::new(&digest::SHA512);
                digest.update(password);
                digest.update(salt);
                same_bytes(digest.finish().as_ref(), hash)
            }
        }
    }

    /// What it costs to verify: the kind and its rounds.
    pub(super) fn cost(&self) -> Cost {
        let kind = match &self.kind {
            Kind::Crypt(text) if text.starts_with("$5") => CostKind::Sha256Crypt,
            Kind::Crypt(_) => CostKind::Sha512Crypt,
            Kind::Pbkdf2 { .. } => CostKind::Pbkdf2,
            Kind::Sha512 { .. } => CostKind::Sha512,
        };
        Cost {
            kind,
            rounds: self.rounds,
        }
    }
}

impl fmt::Debug for PasswordHash {
    /// Without salt and hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cost().fmt(f)
    }
}

/// How dear a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Cost {
    kind: CostKind,
    rounds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum CostKind {
    Sha512,
    Sha256Crypt,
    Sha512Crypt,
    Pbkdf2,
}

impl Cost {
    /// `mkpasswd -m sha-512`.
    pub(super) const USUAL: Self = Self {
        kind: CostKind::Sha512Crypt,
        rounds: DEFAULT_ROUNDS,
    };

    /// A hash of this cost that no password belongs to: for user names that do not exist.
    pub(super) fn dummy(self) -> PasswordHash {
        let mut salt = [0; 12];
        // Without randomness the salt is known, and the hash is still no password's.
        let _ = SystemRandom::new().fill(&mut salt);
        let crypt = |id: &str, length: usize| {
            let salt = Base64::encode_string(&salt).replace('+', ".");
            let text = format!("${id}$rounds={}${salt}${}", self.rounds, ".".repeat(length));
            Kind::Crypt(text.into())
        };
        let (salt, hash) = (Box::from(salt), Box::from([0; 64]));
        let kind = match self.kind {
            CostKind::Sha512 => Kind::Sha512 { salt, hash },
            CostKind::Sha256Crypt => crypt("5", 43),
            CostKind::Sha512Crypt => crypt("6", 86),
            CostKind::Pbkdf2 => Kind::Pbkdf2 { salt, hash },
        };
        PasswordHash {
            kind,
            rounds: self.rounds,
        }
    }
}

/// Compares in a time that depends on the lengths only.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let different = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(different) == 0
}

type SaltAndHash = (Box<[u8]>, Box<[u8]>);

fn salt_and_hash(salt: &str, hash: &str) -> Result<SaltAndHash, &'static str> {
    let decode = |text| Base64::decode_vec(text).map_err(|_| "salt or hash is not Base64");
    let (salt, hash) = (decode(salt)?, decode(hash)?);
    if hash.len() != 64 {
        return Err("the hash is truncated or malformed");
    }
    Ok((salt.into(), hash.into()))
}

/// What `$5$` and `$6$` do without `rounds=`.
const DEFAULT_ROUNDS: u32 = 5_000;
/// A million rounds take a second or so.
const MAX_ROUNDS: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// HBMQTT's documentation: `test` hashed by `mkpasswd -m sha-512`.
    const SEED: &str = "$6$l4zQEHEcowc1Pnv4$HHrh8xnsZoLItQ8BmpFHM4r6q5UqK3DnXp2GaTm5zp5buQ7NheY3Xt9f6godVKbEtA.hOC7IEDwnok3pbAOip.";

    fn verify(hash: &str, password: &[u8]) -> bool {
        PasswordHash::parse(hash).unwrap().verify(password)
    }

    #[test]
    fn the_hash_of_hbmqtts_documentation_is_that_of_test() {
        assert!(verify(SEED, b"test"));
        assert!(!verify(SEED, b"Test"));
        assert!(!verify(SEED, b""));
        assert!(!verify(SEED, b"test\0"));
    }

    /// Made by `openssl passwd -5` and `-6`; those with the salts `saltstring…` stand in the specification of SHA-crypt too.
    #[test]
    fn hashes_of_crypt_are_verified() {
        for hash in [
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
            "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
        ] {
            assert!(verify(hash, b"Hello world!"), "{hash}");
            assert!(!verify(hash, b"Hello world?"), "{hash}");
        }
        let utf8 = "$6$rounds=1000$ab$CFmCIZ3VGgiRis6f8u1niLHdqePXX8.mci70DYXDPuY0eYS.7O42/x9Nx.Dg8lrJDQgyEM3mHPAyNahBRBO960";
        assert!(verify(utf8, "pässword".as_bytes()));
    }

    /// Made by `mosquitto_passwd -b` and `mosquitto_passwd -H sha512 -b`.
    #[test]
    fn hashes_of_mosquitto_are_verified() {
        for hash in [
            "$7$101$pwUTsmbENHgmkhRU$L0bZico0X7zpx+NhSv8ecxxuNeMFXzlwoQgGV+R4dlMC0dpb/lPVixHv9h+1PsH6BpwxrPwHseERbcVK04tFcA==",
            "$6$Y5cCAwOlm9HHu4Ez$YEXBizeqFtsMEIoI1helftZ3eNiKv2BiN00wP1V8dmvoz3kIuhukTOTrp8vB9LYFejQ9jThzrz0jfe6B3kjR8w==",
        ] {
            assert!(verify(hash, b"secret"), "{hash}");
            assert!(!verify(hash, b"secres"), "{hash}");
            assert!(!verify(hash, b""), "{hash}");
        }
    }

    #[test]
    fn what_cannot_be_verified_is_refused_with_a_reason() {
        let malformed = "the hash is malformed";
        let truncated = "the hash is truncated or malformed";
        for (hash, reason) in [
            (
                "secret",
                "the password is not hashed; `mkpasswd -m sha-512` makes a hash",
            ),
            (
                "",
                "the password is not hashed; `mkpasswd -m sha-512` makes a hash",
            ),
            (
                "$1$salt$hash",
                "the kind of hash is not supported; use $6$, $5$ or mosquitto's $7$",
            ),
            (
                "$2b$10$abc",
                "the kind of hash is not supported; use $6$, $5$ or mosquitto's $7$",
            ),
            (
                "$y$j9T$abc$def",
                "the kind of hash is not supported; use $6$, $5$ or mosquitto's $7$",
            ),
            ("$6$", malformed),
            ("$6$a$b$c$d", malformed),
            ("$6$cost=5000$a$b", malformed),
            ("$7$101$a", malformed),
            ("$6$salt$short", truncated),
            ("$6$rounds=many$salt$x", "the number of rounds is malformed"),
            (
                "$6$rounds=999$salt$x",
                "the rounds are not in the range 1,000 to 1,000,000",
            ),
            (
                "$6$rounds=1000001$salt$x",
                "the rounds are not in the range 1,000 to 1,000,000",
            ),
            (
                "$7$0$YWI=$YWI=",
                "the iterations are not in the range 1 to 1,000,000",
            ),
            (
                "$7$1000001$YWI=$YWI=",
                "the iterations are not in the range 1 to 1,000,000",
            ),
            ("$7$101$YWI=$YWI=", truncated),
            ("$7$101$!$YWI=", "salt or hash is not Base64"),
        ] {
            assert_eq!(PasswordHash::parse(hash), Err(reason), "{hash}");
        }
        let no_salt = SEED.replace("l4zQEHEcowc1Pnv4", "");
        assert_eq!(PasswordHash::parse(&no_salt), Err("the salt is missing"));
        assert_eq!(PasswordHash::parse(&SEED[..SEED.len() - 1]), Err(truncated));
    }

    #[test]
    fn a_dummy_costs_the_same_and_has_no_password() {
        for hash in [
            SEED,
            "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
            "$7$101$pwUTsmbENHgmkhRU$L0bZico0X7zpx+NhSv8ecxxuNeMFXzlwoQgGV+R4dlMC0dpb/lPVixHv9h+1PsH6BpwxrPwHseERbcVK04tFcA==",
            "$6$Y5cCAwOlm9HHu4Ez$YEXBizeqFtsMEIoI1helftZ3eNiKv2BiN00wP1V8dmvoz3kIuhukTOTrp8vB9LYFejQ9jThzrz0jfe6B3kjR8w==",
        ] {
            let cost = PasswordHash::parse(hash).unwrap().cost();
            let dummy = cost.dummy();
            assert_eq!(dummy.cost(), cost);
            assert!(!dummy.verify(b"test"));
            if let Kind::Crypt(text) = &dummy.kind {
                // The crate computes it, instead of giving up at the sight of it.
                assert_eq!(PasswordHash::parse(text), Ok(dummy.clone()));
                let error = ShaCrypt::default()
                    .verify_password(b"test", &**text)
                    .unwrap_err();
                assert_eq!(error, sha_crypt::password_hash::Error::PasswordInvalid);
            }
        }
    }

    #[test]
    fn debug_shows_neither_salt_nor_hash() {
        let shown = format!("{:?}", PasswordHash::parse(SEED).unwrap());
        assert_eq!(shown, "Cost { kind: Sha512Crypt, rounds: 5000 }");
    }
}
