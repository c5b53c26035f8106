//! `auth_scram`: SCRAM-SHA-256 for the users of a file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::{fmt, fs};

use bytes::Bytes;
use ring::digest;

use super::enhanced::{AuthExchange, AuthStep, EnhancedAuthenticate};
use super::{ConnectInfo, password_file};
use crate::broker::config::{ConfigError, Problem};
use crate::proto::ReasonCode;
use crate::scram::{self, ClientFirst, Credentials, KEY_BYTES, ServerExchange};

/// The users of a file, for [`scram`].
pub(super) struct ScramFile {
    users: Arc<Users>,
}

struct Users {
    by_name: HashMap<Box<str>, Credentials>,
    /// What the salts of names that do not exist are made of. The same after a reload: a salt that changes would tell
    /// that there is no such user.
    secret: [u8; KEY_BYTES],
    /// What they look like: iterations and bytes of salt of most users.
    usual: (u32, usize),
}

impl ScramFile {
    /// Reads the file; the second part says which lines are left out, and why. `secret` is made from the first file that
    /// is read and stays.
    ///
    /// # Errors
    /// [`ConfigError::Read`].
    pub(super) fn load(
        path: &Path,
        secret: &OnceLock<[u8; KEY_BYTES]>,
    ) -> Result<(Self, Vec<Problem>), ConfigError> {
        let bytes = fs::read(path).map_err(|error| ConfigError::read(path, error))?;
        let (by_name, mut problems) = parse(&bytes);
        for problem in &mut problems {
            problem.file = Some(path.to_owned());
        }
        let users = Users {
            secret: *secret.get_or_init(|| secret_of(&by_name)),
            usual: usual_form(&by_name),
            by_name,
        };
        let users = Arc::new(users);
        Ok((Self { users }, problems))
    }
}

impl EnhancedAuthenticate for ScramFile {
    fn method(&self) -> &str {
        scram::METHOD
    }

    fn start(&self, _: &ConnectInfo<'_>) -> Box<dyn AuthExchange> {
        Box::new(FileExchange {
            users: Arc::clone(&self.users),
            user: None,
            state: State::Begun,
        })
    }
}

struct FileExchange {
    users: Arc<Users>,
    user: Option<String>,
    state: State,
}

enum State {
    /// The client's first message is to come; one that brings none in CONNECT is asked for it once.
    Begun,
    Asked,
    /// The proof is to come.
    Challenged(ServerExchange),
    Over,
}

impl AuthExchange for FileExchange {
    fn step(&mut self, data: Option<&[u8]>) -> AuthStep {
        let data = data.unwrap_or_default();
        match std::mem::replace(&mut self.state, State::Over) {
            State::Begun if data.is_empty() => {
                self.state = State::Asked;
                AuthStep::Continue(Bytes::new())
            }
            State::Begun | State::Asked => self.challenge(data),
            State::Challenged(exchange) => match exchange.finish(data) {
                Some(answer) => AuthStep::Success {
                    user: self.user.clone(),
                    data: Some(Bytes::from(answer)),
                },
                None => REFUSED,
            },
            State::Over => REFUSED,
        }
    }

    fn claimed_user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl FileExchange {
    fn challenge(&mut self, data: &[u8]) -> AuthStep {
        let (Some(first), Some(nonce)) = (ClientFirst::parse(data), scram::nonce()) else {
            return REFUSED;
        };
        let users = &self.users;
        // A name that does not exist takes the same way to its end.
        let (iterations, salt_bytes) = users.usual;
        let dummy = Credentials::dummy(&first.user, &users.secret, iterations, salt_bytes);
        let known = users.by_name.get(first.user.as_str()).cloned();
        let (exchange, answer) = ServerExchange::new(&first, known.unwrap_or(dummy), &nonce);
        self.user = Some(first.user);
        self.state = State::Challenged(exchange);
        AuthStep::Continue(Bytes::from(answer))
    }
}

impl fmt::Debug for ScramFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramFile")
            .field("users", &self.users.by_name.len())
            .finish_non_exhaustive()
    }
}

/// `user:SCRAM-SHA-256$…` lines, `#` comments, blank lines.
fn parse(bytes: &[u8]) -> (HashMap<Box<str>, Credentials>, Vec<Problem>) {
    let mut users = HashMap::new();
    let problems = password_file::for_each_user(bytes, |name, rest| {
        let shown = name.escape_debug();
        let credentials: Credentials = match rest.trim_end().parse() {
            Ok(credentials) => credentials,
            Err(error) => return Some(format!("user '{shown}' is left out: {error}")),
        };
        let before = users.insert(name.into(), credentials);
        before.map(|_| format!("user '{shown}' is listed again; this line counts"))
    });
    (users, problems)
}

/// Nobody can know it who does not know the file, and it stays while the file does, over a restart too.
fn secret_of(users: &HashMap<Box<str>, Credentials>) -> [u8; KEY_BYTES] {
    let mut sorted: Vec<_> = users.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut digest = digest::Context::new(&digest::SHA256);
    for (_, credentials) in sorted {
        credentials.mix_into(&mut digest);
    }
    let mut secret = [0; KEY_BYTES];
    secret.copy_from_slice(digest.finish().as_ref());
    secret
}

/// Iterations and salt length of most users.
fn usual_form(users: &HashMap<Box<str>, Credentials>) -> (u32, usize) {
    let mut counts: HashMap<(u32, usize), usize> = HashMap::new();
    for user in users.values() {
        *counts
            .entry((user.iterations(), user.salt_bytes()))
            .or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(form, count)| (*count, *form));
    most.map_or((scram::MIN_ITERATIONS, 16), |(form, _)| form)
}

const REFUSED: AuthStep = AuthStep::Failed(ReasonCode::NotAuthorized);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ProtocolVersion;
    use crate::scram::ClientExchange;

    fn scram_file(text: &str) -> ScramFile {
        let (by_name, problems) = parse(text.as_bytes());
        assert_eq!(problems, []);
        let users = Users {
            secret: secret_of(&by_name),
            usual: usual_form(&by_name),
            by_name,
        };
        ScramFile {
            users: Arc::new(users),
        }
    }

    fn line(user: &str, password: &str, iterations: u32) -> String {
        let credentials = Credentials::new(password.as_bytes(), iterations).unwrap();
        format!("{user}:{credentials}\n")
    }

    fn start(file: &ScramFile) -> Box<dyn AuthExchange> {
        file.start(&ConnectInfo::new("id", "default", ProtocolVersion::V5))
    }

    /// The server's first message for this user.
    fn challenge(file: &ScramFile, user: &str) -> String {
        match start(file).step(Some(format!("n,,n={user},r=abc").as_bytes())) {
            AuthStep::Continue(data) => String::from_utf8(data.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn log_in(file: &ScramFile, user: &str, password: &str) -> AuthStep {
        let (mut client, first) = ClientExchange::new(user, password.as_bytes(), "abc");
        let mut exchange = start(file);
        let AuthStep::Continue(data) = exchange.step(Some(first.as_bytes())) else {
            panic!("no challenge");
        };
        let last = client.answer(&data).unwrap();
        let end = exchange.step(Some(last.as_bytes()));
        assert_eq!(exchange.claimed_user(), Some(user));
        if let AuthStep::Success { data, .. } = &end {
            client.verify(data.as_ref().unwrap()).unwrap();
        }
        end
    }

    #[test]
    fn users_of_the_file_are_let_in_and_nobody_else() {
        let file = scram_file(&line("ann", "secret", 4096));
        let AuthStep::Success { user, .. } = log_in(&file, "ann", "secret") else {
            panic!("refused");
        };
        assert_eq!(user.as_deref(), Some("ann"));
        assert_eq!(log_in(&file, "ann", "wrong"), REFUSED);
        assert_eq!(log_in(&file, "bob", "secret"), REFUSED);
    }

    #[test]
    fn a_client_without_data_is_asked_for_its_first_message_once() {
        let file = scram_file(&line("ann", "secret", 4096));
        let mut exchange = start(&file);
        assert_eq!(exchange.step(None), AuthStep::Continue(Bytes::new()));
        assert_eq!(exchange.step(None), REFUSED);
        let mut exchange = start(&file);
        assert_eq!(exchange.step(Some(b"")), AuthStep::Continue(Bytes::new()));
        let next = exchange.step(Some(b"n,,n=ann,r=abc"));
        assert!(matches!(next, AuthStep::Continue(data) if data.starts_with(b"r=abc")));
    }

    #[test]
    fn an_exchange_that_is_over_stays_over() {
        let file = scram_file(&line("ann", "secret", 4096));
        let mut exchange = start(&file);
        assert_eq!(exchange.step(Some(b"nonsense")), REFUSED);
        assert_eq!(exchange.step(Some(b"n,,n=ann,r=abc")), REFUSED);
    }

    #[test]
    fn an_unknown_name_has_a_salt_that_stays_and_looks_like_the_others() {
        let text = line("ann", "a", 5000) + &line("bob", "b", 5000) + &line("eve", "c", 6000);
        let file = scram_file(&text);
        let salt = |file: &ScramFile, user: &str| {
            let message = challenge(file, user);
            message.split_once(",s=").unwrap().1.to_owned()
        };
        let unknown = salt(&file, "nobody");
        assert_eq!(unknown.len(), salt(&file, "ann").len());
        assert!(unknown.ends_with(",i=5000"));
        assert_eq!(unknown, salt(&file, "nobody"));
        assert_ne!(unknown, salt(&file, "somebody"));
        // Over a restart with the same file too.
        assert_eq!(unknown, salt(&scram_file(&text), "nobody"));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_reported_and_the_others_count() {
        let text = format!(
            "# users\n\nplain:secret\n{}no colon\n{}",
            line("ann", "a", 4096),
            line("ann", "b", 4096)
        );
        let (users, problems) = parse(text.as_bytes());
        let problems: Vec<_> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            problems,
            [
                "line 3, column 1: user 'plain' is left out: expected SCRAM-SHA-256$iterations:salt$storedkey:serverkey; `hbmqtt_passwd --scram` makes such a line",
                "line 5, column 1: expected 'user:hash'; the line is left out",
                "line 6, column 1: user 'ann' is listed again; this line counts",
            ]
        );
        assert!(users["ann"].verify(b"b"));
    }
}
