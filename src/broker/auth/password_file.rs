//! `auth_file`: user names and the hashes of their passwords, from a file.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ring::hmac;

use super::gate::Gate;
use super::password_hash::{Cost, PasswordHash};
use super::{Authenticate, ConnectInfo, Verdict};
use crate::broker::config::{ConfigError, Limits, Problem};

/// Checks passwords against the hashes of a password file.
pub(super) struct PasswordFile {
    users: HashMap<Box<str>, User>,
    /// What is verified for a user name that does not exist, so that it takes as long.
    dummy: PasswordHash,
    gate: Arc<Gate>,
    cache_key: hmac::Key,
    limits: Limits,
}

struct User {
    hash: PasswordHash,
    /// The MAC of the password that was right the last time, and until when it counts.
    verified: Mutex<Option<(hmac::Tag, Instant)>>,
}

impl PasswordFile {
    /// Reads the file; the second part says which lines are left out, and why.
    ///
    /// # Errors
    /// [`ConfigError::Read`].
    pub(super) fn load(
        path: &Path,
        limits: &Limits,
        gate: Arc<Gate>,
        cache_key: hmac::Key,
    ) -> Result<(Self, Vec<Problem>), ConfigError> {
        let bytes = fs::read(path).map_err(|error| ConfigError::read(path, error))?;
        let (users, mut problems) = parse(&bytes);
        for problem in &mut problems {
            problem.file = Some(path.to_owned());
        }
        let file = Self {
            dummy: usual_cost(&users).dummy(),
            users,
            gate,
            cache_key,
            limits: limits.clone(),
        };
        Ok((file, problems))
    }

    /// The password is the one that was right a short while ago.
    fn is_remembered(&self, user: &User, password: &[u8], now: Instant) -> bool {
        let verified = *user.verified.lock();
        verified.is_some_and(|(tag, until)| {
            now < until && hmac::verify(&self.cache_key, password, tag.as_ref()).is_ok()
        })
    }

    fn remember(&self, user: &User, password: &[u8], now: Instant) {
        if self.limits.password_cache > Duration::ZERO
            && let Some(until) = now.checked_add(self.limits.password_cache)
        {
            let tag = hmac::sign(&self.cache_key, password);
            *user.verified.lock() = Some((tag, until));
        }
    }

    fn check(&self, client: &ConnectInfo<'_>, now: Instant) -> Verdict {
        let (Some(name), false) = (client.user_name, client.user_is_proven) else {
            return Verdict::Abstain;
        };
        let password = client.password.unwrap_or_default();
        let user = self.users.get(name);
        if user.is_some_and(|user| self.is_remembered(user, password, now)) {
            return Verdict::Allow;
        }
        let limits = &self.limits;
        // BLOCKS: while others' passwords are verified, for the time that an authenticator has.
        let permit = self.gate.enter(
            limits.max_password_checks,
            limits.max_waiting_password_checks,
            limits.auth_timeout,
        );
        let Some(_permit) = permit else {
            return Verdict::Busy;
        };
        match user {
            // The time that the check takes does not tell whether the name exists; nor may the answer, see AuthChain.
            None => {
                self.dummy.verify(password);
                Verdict::Abstain
            }
            Some(user) if user.hash.verify(password) => {
                self.remember(user, password, now);
                Verdict::Allow
            }
            Some(_) => Verdict::Deny,
        }
    }
}

impl Authenticate for PasswordFile {
    fn name(&self) -> &str {
        "auth_file"
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "remembered passwords are forgotten by the clock"
    )]
    fn authenticate(&self, client: &ConnectInfo<'_>) -> Verdict {
        self.check(client, Instant::now())
    }
}

/// `user:hash` lines, `#` comments, blank lines. What follows a second colon is ignored, as in passwd(5).
fn parse(bytes: &[u8]) -> (HashMap<Box<str>, User>, Vec<Problem>) {
    let mut users = HashMap::new();
    let problems = for_each_user(bytes, |name, rest| {
        let hash = rest.split(':').next().unwrap_or("");
        let shown = name.escape_debug();
        let hash = match PasswordHash::parse(hash) {
            Ok(hash) => hash,
            Err(reason) => return Some(format!("user '{shown}' is left out: {reason}")),
        };
        let user = User {
            hash,
            verified: Mutex::new(None),
        };
        let before = users.insert(name.into(), user);
        before.map(|_| format!("user '{shown}' is listed again; this line counts"))
    });
    (users, problems)
}

/// Calls `take` with the name and the rest of each line; what it finds wrong, and lines that have no such parts, are
/// reported by their number.
pub(super) fn for_each_user(
    bytes: &[u8],
    mut take: impl FnMut(&str, &str) -> Option<String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
        let wrong = match str::from_utf8(line.trim_ascii()) {
            Err(_) => Some("the line is not UTF-8; it is left out".to_owned()),
            Ok(line) if line.is_empty() || line.starts_with('#') => None,
            Ok(line) => match line.split_once(':') {
                Some((name, rest)) => take(name, rest),
                None => Some("expected 'user:hash'; the line is left out".to_owned()),
            },
        };
        if let Some(message) = wrong {
            problems.push(Problem::new("", message).at(Some((number, 1))));
        }
    }
    problems
}

/// The cost that most users' hashes have.
fn usual_cost(users: &HashMap<Box<str>, User>) -> Cost {
    let mut counts: HashMap<Cost, usize> = HashMap::new();
    for user in users.values() {
        *counts.entry(user.hash.cost()).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(cost, count)| (*count, *cost));
    most.map_or(Cost::USUAL, |(cost, _)| cost)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::proto::ProtocolVersion;

    /// User `test`, password `test`: the example of HBMQTT's documentation.
    const SEED: &str = "# Test user with 'test' password encrypted with sha-512\n\
        test:$6$l4zQEHEcowc1Pnv4$HHrh8xnsZoLItQ8BmpFHM4r6q5UqK3DnXp2GaTm5zp5buQ7NheY3Xt9f6godVKbEtA.hOC7IEDwnok3pbAOip.\n";
    /// Password `secret`, 101 iterations.
    const MOSQUITTO: &str = "new:$7$101$pwUTsmbENHgmkhRU$L0bZico0X7zpx+NhSv8ecxxuNeMFXzlwoQgGV+R4dlMC0dpb/lPVixHv9h+1PsH6BpwxrPwHseERbcVK04tFcA==";

    fn file(text: &str, limits: &Limits) -> PasswordFile {
        let (users, problems) = parse(text.as_bytes());
        assert_eq!(problems, []);
        PasswordFile {
            dummy: usual_cost(&users).dummy(),
            users,
            gate: Arc::default(),
            cache_key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).unwrap(),
            limits: limits.clone(),
        }
    }

    fn client<'a>(user: Option<&'a str>, password: Option<&'a [u8]>) -> ConnectInfo<'a> {
        ConnectInfo {
            user_name: user,
            password,
            ..ConnectInfo::new("id", "default", ProtocolVersion::V311)
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test starts somewhere")]
    fn now() -> Instant {
        Instant::now()
    }

    fn reports(text: &[u8]) -> Vec<String> {
        parse(text).1.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn the_right_password_is_allowed_a_wrong_one_denied_and_the_rest_not_judged() {
        let file = file(SEED, &Limits::default());
        let judge = |user, password| file.authenticate(&client(user, password));
        assert_eq!(judge(Some("test"), Some(b"test")), Verdict::Allow);
        assert_eq!(judge(Some("test"), Some(b"nope")), Verdict::Deny);
        assert_eq!(judge(Some("test"), None), Verdict::Deny);
        assert_eq!(judge(Some("tes"), Some(b"test")), Verdict::Abstain);
        assert_eq!(judge(None, Some(b"test")), Verdict::Abstain);
        let mut certified = client(Some("test"), None);
        certified.user_is_proven = true;
        assert_eq!(file.authenticate(&certified), Verdict::Abstain);
    }

    #[test]
    fn comments_blank_lines_crlf_spaces_and_further_fields_are_fine() {
        let text = format!(
            "\u{feff}\r\n  # x\r\n\n{MOSQUITTO}\r\n  a{}:0:0 \n",
            &MOSQUITTO[3..]
        );
        let file = file(&text, &Limits::default());
        for user in ["new", "a"] {
            let verdict = file.authenticate(&client(Some(user), Some(b"secret")));
            assert_eq!(verdict, Verdict::Allow, "{user}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_is_reported_by_number_and_the_others_count() {
        let text = b"no colon\nplain:secret\n\xff:x\nold:$1$a$b\n".as_slice();
        assert_eq!(
            reports(text),
            [
                "line 1, column 1: expected 'user:hash'; the line is left out",
                "line 2, column 1: user 'plain' is left out: the password is not hashed; `mkpasswd -m sha-512` makes a hash",
                "line 3, column 1: the line is not UTF-8; it is left out",
                "line 4, column 1: user 'old' is left out: the kind of hash is not supported; use $6$, $5$ or mosquitto's $7$",
            ]
        );
        let twice = format!("{MOSQUITTO}\n{MOSQUITTO}");
        assert_eq!(
            reports(twice.as_bytes()),
            ["line 2, column 1: user 'new' is listed again; this line counts"]
        );
        let (users, _) = parse(&[text, MOSQUITTO.as_bytes()].concat());
        assert_eq!(users.len(), 1);
    }

    #[test]
    fn the_dummy_costs_what_most_users_cost() {
        let cost = |text: &str| format!("{:?}", file(text, &Limits::default()).dummy);
        assert_eq!(cost(""), "Cost { kind: Sha512Crypt, rounds: 5000 }");
        assert_eq!(cost(MOSQUITTO), "Cost { kind: Pbkdf2, rounds: 101 }");
        let second = MOSQUITTO.replace("new:", "other:");
        assert_eq!(
            cost(&format!("{SEED}{MOSQUITTO}\n{second}")),
            "Cost { kind: Pbkdf2, rounds: 101 }"
        );
    }

    #[test]
    fn a_right_password_is_remembered_for_ten_minutes_and_a_wrong_one_never() {
        let file = file(MOSQUITTO, &Limits::default());
        let (user, now) = (&file.users["new"], now());
        assert_eq!(
            file.check(&client(Some("new"), Some(b"wrong")), now),
            Verdict::Deny
        );
        assert!(user.verified.lock().is_none());
        assert_eq!(
            file.check(&client(Some("new"), Some(b"secret")), now),
            Verdict::Allow
        );
        let ten_minutes = Duration::from_secs(600);
        assert!(file.is_remembered(user, b"secret", now + ten_minutes - Duration::from_nanos(1)));
        assert!(!file.is_remembered(user, b"secret", now + ten_minutes));
        assert!(!file.is_remembered(user, b"wrong", now));
        // The memory does not stand in the way of an honest answer.
        assert_eq!(
            file.check(&client(Some("new"), Some(b"wrong")), now),
            Verdict::Deny
        );
    }

    #[test]
    fn a_remembered_password_needs_no_place_among_the_checks() {
        let limits = Limits {
            max_password_checks: 1,
            max_waiting_password_checks: 0,
            ..Limits::default()
        };
        let file = file(MOSQUITTO, &limits);
        let right = client(Some("new"), Some(b"secret"));
        let _other_check = file.gate.enter(1, 0, Duration::ZERO);
        assert_eq!(file.authenticate(&right), Verdict::Busy);
        assert_eq!(
            file.authenticate(&client(Some("nobody"), None)),
            Verdict::Busy
        );
        drop(_other_check);
        assert_eq!(file.authenticate(&right), Verdict::Allow);
        let _other_check = file.gate.enter(1, 0, Duration::ZERO);
        assert_eq!(file.authenticate(&right), Verdict::Allow);
    }

    #[test]
    fn a_cache_time_of_zero_remembers_nothing() {
        let limits = Limits {
            password_cache: Duration::ZERO,
            ..Limits::default()
        };
        let file = file(MOSQUITTO, &limits);
        assert_eq!(
            file.authenticate(&client(Some("new"), Some(b"secret"))),
            Verdict::Allow
        );
        assert!(file.users["new"].verified.lock().is_none());
    }
}
