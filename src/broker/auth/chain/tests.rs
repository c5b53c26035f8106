use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::broker::auth::AuthStep;
use crate::proto::ProtocolVersion;
use crate::scram::{ClientExchange, Credentials};

/// Users `alice` and `bob` with the password `secret`, cheap to verify.
const USERS: &str = "alice:$7$101$pwUTsmbENHgmkhRU$L0bZico0X7zpx+NhSv8ecxxuNeMFXzlwoQgGV+R4dlMC0dpb/lPVixHv9h+1PsH6BpwxrPwHseERbcVK04tFcA==\n\
    bob:$7$101$pwUTsmbENHgmkhRU$L0bZico0X7zpx+NhSv8ecxxuNeMFXzlwoQgGV+R4dlMC0dpb/lPVixHv9h+1PsH6BpwxrPwHseERbcVK04tFcA==\n";

const WRONG: Result<(), ReasonCode> = Err(ReasonCode::BadUserNameOrPassword);
const NOT_AUTHORIZED: Result<(), ReasonCode> = Err(ReasonCode::NotAuthorized);
const BUSY: Result<(), ReasonCode> = Err(ReasonCode::QuotaExceeded);

/// A file that is removed again.
struct TestFile(PathBuf);

impl TestFile {
    fn new(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hbmqtt-auth-{}-{number}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl fmt::Display for TestFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn chains(text: &str) -> AuthChains {
    AuthChains::load(&Config::parse(text).unwrap(), Extensions::default()).unwrap()
}

fn client<'a>(user: Option<&'a str>, password: &'a str) -> ConnectInfo<'a> {
    ConnectInfo {
        user_name: user,
        password: user.map(|_| password.as_bytes()),
        ..ConnectInfo::new("id", "default", ProtocolVersion::V311)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test starts somewhere")]
fn now() -> Instant {
    Instant::now()
}

fn judge(chains: &AuthChains, client: &ConnectInfo<'_>) -> Result<(), ReasonCode> {
    chains
        .listener(client.listener)
        .authenticate(client, now())
        .result
}

/// Answers always the same.
struct Fixed(Verdict);

impl Authenticate for Fixed {
    fn name(&self) -> &str {
        "fixed"
    }

    fn authenticate(&self, _: &ConnectInfo<'_>) -> Verdict {
        self.0
    }
}

impl Authorize for Fixed {
    fn name(&self) -> &str {
        "fixed"
    }

    fn authorize(&self, _: &Access<'_>) -> Verdict {
        self.0
    }
}

fn extensions(authenticators: &[Verdict], authorizers: &[Verdict]) -> Extensions {
    let authenticator = |&verdict| Arc::new(Fixed(verdict)) as Arc<dyn Authenticate>;
    let authorizer = |&verdict| Arc::new(Fixed(verdict)) as Arc<dyn Authorize>;
    Extensions {
        authenticators: authenticators.iter().map(authenticator).collect(),
        authorizers: authorizers.iter().map(authorizer).collect(),
        ..Extensions::default()
    }
}

// Who may connect.

/// BRK-4, DEC-21.
#[test]
fn the_default_accepts_clients_without_a_name_and_refuses_a_name_that_nobody_can_check() {
    let chains = chains("");
    assert_eq!(judge(&chains, &client(None, "")), Ok(()));
    assert_eq!(judge(&chains, &client(Some("alice"), "secret")), WRONG);
    assert!(chains.listener("default").allows_anonymous());
}

/// BC-11, BC-12.
#[test]
fn a_password_file_accepts_its_users_beside_anonymous_clients() {
    let file = TestFile::new(USERS);
    for (anonymous, expected) in [("on", Ok(())), ("off", NOT_AUTHORIZED)] {
        let chains = chains(&format!(
            "auth: {{allow-anonymous: {anonymous}, password-file: {file}}}"
        ));
        assert_eq!(judge(&chains, &client(Some("alice"), "secret")), Ok(()));
        assert_eq!(judge(&chains, &client(Some("alice"), "other")), WRONG);
        assert_eq!(judge(&chains, &client(Some("carol"), "secret")), WRONG);
        assert_eq!(judge(&chains, &client(None, "")), expected);
        assert_eq!(
            chains.listener("default").allows_anonymous(),
            anonymous == "on"
        );
    }
}

/// DEC-3: the union of both lists; an empty one means that nobody may connect.
#[test]
fn the_lists_of_plugins_say_which_authenticators_are_active() {
    let file = TestFile::new(USERS);
    let alice = client(Some("alice"), "secret");
    for (lists, anonymous, user) in [
        ("{0}", Ok(()), Ok(())),
        ("plugins: [auth_anonymous], {0}", Ok(()), WRONG),
        ("plugins: [auth.file], {0}", NOT_AUTHORIZED, Ok(())),
        ("plugins: [auth_file, auth_anonymous], {0}", Ok(()), Ok(())),
        ("plugins: [], {0}", NOT_AUTHORIZED, WRONG),
        (
            "plugins: [packet_logger_plugin], {0}",
            NOT_AUTHORIZED,
            WRONG,
        ),
    ] {
        let inner = lists.replace("{0}", &format!("password-file: {file}"));
        let in_auth = chains(&format!("{{auth: {{{inner}}}}}"));
        assert_eq!(judge(&in_auth, &client(None, "")), anonymous, "{lists}");
        assert_eq!(judge(&in_auth, &alice), user, "{lists}");
        let outer = lists.replace("{0}", &format!("auth: {{password-file: {file}}}"));
        let on_top = chains(&format!("{{{outer}}}"));
        assert_eq!(judge(&on_top, &client(None, "")), anonymous, "{lists}");
        assert_eq!(judge(&on_top, &alice), user, "{lists}");
    }
    let union = chains(&format!(
        "{{plugins: [auth_file], auth: {{plugins: [auth_anonymous], password-file: {file}}}}}"
    ));
    assert_eq!(judge(&union, &client(None, "")), Ok(()));
    assert_eq!(judge(&union, &alice), Ok(()));
}

/// DEC-21.
#[test]
fn a_broker_to_which_nobody_could_connect_does_not_start() {
    let load = |text: &str, extensions| AuthChains::load(&Config::parse(text).unwrap(), extensions);
    for text in [
        "auth: {allow-anonymous: off}",
        "auth: {allow-anonymous: off, plugins: [auth_anonymous]}",
        "auth: {allow-anonymous: off, plugins: []}",
        "auth: {allow-anonymous: off, plugins: [auth_anonymous], password-file: /nowhere}",
    ] {
        assert_eq!(
            load(text, Extensions::default()).unwrap_err().to_string(),
            "auth: nobody could connect: there is no authenticator; set password-file, or allow-anonymous: on",
            "{text}"
        );
        assert!(load(text, extensions(&[Verdict::Allow], &[])).is_ok());
    }
    let certified = "auth: {allow-anonymous: off}\nlisteners: {a: {bind: 1, ssl: on, certfile: c, keyfile: k, cafile: a, use-identity-as-username: on}}";
    assert!(load(certified, Extensions::default()).is_ok());
    let own = "listeners: {a: {bind: 1, auth: {allow-anonymous: off}}}";
    assert!(
        load(own, Extensions::default())
            .unwrap_err()
            .to_string()
            .starts_with("listeners.a.auth: nobody")
    );
    let own = "auth: {allow-anonymous: off}\nlisteners: {a: {bind: 1, auth: {}}}";
    assert!(
        load(own, Extensions::default()).is_ok(),
        "no listener uses the broker's section"
    );
}

#[test]
fn a_missing_file_stops_the_start() {
    for (key, file) in [("password-file", "/nowhere/p"), ("acl-file", "/nowhere/a")] {
        let config = Config::parse(&format!("auth: {{{key}: {file}}}")).unwrap();
        let error = AuthChains::load(&config, Extensions::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot read {file}: No such file or directory (os error 2)")
        );
    }
}

#[test]
fn a_wrong_acl_file_stops_the_start_and_is_named() {
    let file = TestFile::new("user a\ntopik b\n");
    let config = Config::parse(&format!("auth: {{acl-file: {file}}}")).unwrap();
    let error = AuthChains::load(&config, Extensions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{file}:2:1: expected 'user', 'topic' or 'pattern', found 'topik'")
    );
}

/// PLG-2: any denial refuses, and at least one must allow.
#[test]
fn answers_are_combined_so_that_one_denial_decides_and_one_yes_is_needed() {
    use Verdict::{Abstain, Allow, Busy, Deny};
    for (verdicts, expected) in [
        (&[Abstain, Allow][..], Ok(())),
        (&[Allow, Abstain], Ok(())),
        (&[Abstain], WRONG),
        (&[Allow, Deny], WRONG),
        (&[Deny, Allow], WRONG),
        (&[Busy, Deny], WRONG),
        (&[Allow, Busy], BUSY),
        (&[Busy, Allow], BUSY),
    ] {
        let config = Config::default();
        let chains = AuthChains::load(&config, extensions(verdicts, &[])).unwrap();
        assert_eq!(
            judge(&chains, &client(Some("x"), "y")),
            expected,
            "{verdicts:?}"
        );
    }
}

#[test]
fn a_refusal_says_who_refused() {
    let file = TestFile::new(USERS);
    let chains = chains(&format!(
        "auth: {{allow-anonymous: off, password-file: {file}}}"
    ));
    let chain = chains.listener("default");
    let by = |user, password| {
        chain
            .authenticate(&client(user, password), now())
            .refused_by
    };
    assert_eq!(by(Some("alice"), "x"), "auth_file");
    assert_eq!(by(Some("carol"), "x"), "no authenticator knows the user");
    assert_eq!(by(None, ""), "auth_anonymous");
    assert_eq!(by(Some("alice"), "secret"), "");
}

#[test]
fn a_certified_user_needs_no_password_and_can_still_be_denied() {
    let text = "{auth: {allow-anonymous: off}, listeners: {a: {bind: 1, ssl: on, certfile: c, keyfile: k, cafile: a, use-subject-as-username: on}}}";
    let mut certified = client(Some("CN=device"), "");
    certified.user_is_proven = true;
    assert_eq!(judge(&chains(text), &certified), Ok(()));
    assert_eq!(judge(&chains(text), &client(Some("CN=device"), "")), WRONG);
    let config = Config::parse(text).unwrap();
    let denying = AuthChains::load(&config, extensions(&[Verdict::Deny], &[])).unwrap();
    assert_eq!(judge(&denying, &certified), WRONG);
}

#[test]
fn a_listener_with_a_section_of_its_own_uses_that() {
    let file = TestFile::new(USERS);
    let chains = chains(&format!(
        "listeners:\n  open: {{bind: 1}}\n  closed: {{bind: 2, auth: {{allow-anonymous: off, password-file: {file}}}}}\n"
    ));
    for (listener, anonymous, user) in [("open", Ok(()), WRONG), ("closed", NOT_AUTHORIZED, Ok(()))]
    {
        let at = |client: ConnectInfo<'static>| judge(&chains, &ConnectInfo { listener, ..client });
        assert_eq!(at(client(None, "")), anonymous);
        assert_eq!(at(client(Some("bob"), "secret")), user);
    }
}

// Limits.

#[test]
fn what_is_too_long_is_refused_before_anybody_is_asked() {
    let everybody =
        AuthChains::load(&Config::default(), extensions(&[Verdict::Allow], &[])).unwrap();
    let long = |length| "x".repeat(length);
    for (id, user, password, expected) in [
        (1_024, 1_024, 256, Ok(())),
        (1_025, 1, 1, Err(ReasonCode::ClientIdentifierNotValid)),
        (1, 1_025, 1, WRONG),
        (1, 1, 257, WRONG),
    ] {
        let (id, user, password) = (long(id), long(user), long(password));
        let mut info = client(Some(&user), &password);
        info.client_id = &id;
        assert_eq!(judge(&everybody, &info), expected);
    }
}

#[test]
fn after_five_wrong_passwords_every_answer_to_that_user_and_address_is_delayed() {
    let file = TestFile::new(USERS);
    let chains = chains(&format!("auth: {{password-file: {file}}}"));
    let chain = chains.listener("default");
    let now = now();
    let at = |user, password, last: u8| {
        let mut info = client(Some(user), password);
        info.address = Some([127, 0, 0, last].into());
        let judgement = chain.authenticate(&info, now);
        (judgement.result, judgement.delay.as_secs())
    };
    for _ in 0..5 {
        assert_eq!(at("alice", "wrong", 1), (WRONG, 0));
    }
    assert_eq!(at("alice", "wrong", 1), (WRONG, 1));
    assert_eq!(at("alice", "wrong", 1), (WRONG, 2));
    assert_eq!(at("alice", "secret", 2), (Ok(()), 0));
    assert_eq!(at("bob", "secret", 1), (Ok(()), 0));
    // Were the right password answered at once, the delay would tell it apart from a wrong one.
    assert_eq!(at("alice", "secret", 1), (Ok(()), 4));
    assert_eq!(at("alice", "secret", 1), (Ok(()), 0));
}

#[test]
fn a_busy_answer_is_no_wrong_password() {
    let busy = AuthChains::load(&Config::default(), extensions(&[Verdict::Busy], &[])).unwrap();
    for _ in 0..10 {
        let judgement = busy
            .listener("default")
            .authenticate(&client(Some("a"), "b"), now());
        assert_eq!((judgement.result, judgement.delay), (BUSY, Duration::ZERO));
    }
}

#[test]
fn an_answer_that_comes_too_late_does_not_count() {
    let config = Config::parse("limits: {auth-timeout: 1ms}").unwrap();
    struct Slow;
    impl Authenticate for Slow {
        fn name(&self) -> &str {
            "slow"
        }
        fn authenticate(&self, _: &ConnectInfo<'_>) -> Verdict {
            let began = now();
            while began.elapsed() < Duration::from_millis(3) {}
            Verdict::Allow
        }
    }
    let slow = Extensions {
        authenticators: vec![Arc::new(Slow)],
        ..Extensions::default()
    };
    let chains = AuthChains::load(&config, slow).unwrap();
    assert_eq!(judge(&chains, &client(Some("a"), "b")), BUSY);
}

// Authentication methods.

/// Runs SCRAM-SHA-256 as this user: the last step, and how long the answer has to wait.
fn scram(chains: &AuthChains, user: &str, password: &str) -> (AuthStep, u64) {
    let (mut client, first) = ClientExchange::new(user, password.as_bytes(), "nonce");
    let info = ConnectInfo::new("id", "default", ProtocolVersion::V5);
    let chain = chains.listener("default");
    let mut exchange = chain.exchange("SCRAM-SHA-256", &info).unwrap();
    let (AuthStep::Continue(data), Duration::ZERO) = exchange.step(Some(first.as_bytes()), now())
    else {
        panic!("no challenge");
    };
    let last = client.answer(&data).unwrap();
    let (step, delay) = exchange.step(Some(last.as_bytes()), now());
    (step, delay.as_secs())
}

#[test]
fn scram_users_come_from_their_file_and_wrong_proofs_are_slowed_down() {
    let credentials = Credentials::new(b"secret", 4096).unwrap();
    let file = TestFile::new(&format!("alice:{credentials}\nplain:secret\n"));
    let chains = chains(&format!(
        "auth: {{scram-file: {file}, allow-anonymous: off}}\nlimits: {{max-failed-logins: 1}}"
    ));
    let info = ConnectInfo::new("id", "default", ProtocolVersion::V5);
    let chain = chains.listener("default");
    assert!(chain.exchange("SCRAM-SHA-1", &info).is_none());
    let refused = AuthStep::Failed(ReasonCode::NotAuthorized);
    assert!(matches!(
        scram(&chains, "alice", "secret"),
        (AuthStep::Success { .. }, 0)
    ));
    assert_eq!(scram(&chains, "alice", "wrong"), (refused.clone(), 0));
    assert_eq!(scram(&chains, "alice", "wrong"), (refused.clone(), 1));
    assert_eq!(scram(&chains, "alice", "wrong"), (refused.clone(), 2));
    assert_eq!(scram(&chains, "nobody", "wrong"), (refused, 0));
    assert!(matches!(
        scram(&chains, "alice", "secret"),
        (AuthStep::Success { .. }, 4)
    ));
    // The file says nothing about passwords in CONNECT.
    assert_eq!(judge(&chains, &client(Some("alice"), "secret")), WRONG);
}

#[test]
fn who_denies_is_heard_also_after_an_exchange() {
    let config = Config::default();
    let mut proven = client(Some("alice"), "");
    proven.password = None;
    proven.user_is_proven = true;
    for (verdicts, result) in [
        (&[][..], Ok(())),
        (&[Verdict::Abstain], Ok(())),
        (&[Verdict::Allow, Verdict::Deny], WRONG),
    ] {
        let chains = AuthChains::load(&config, extensions(verdicts, &[])).unwrap();
        let judgement = chains.listener("default").accept_proven(&proven);
        assert_eq!(judgement.result, result, "{verdicts:?}");
    }
}

// Reload.

#[test]
fn a_reload_reads_the_files_again_and_a_failed_one_changes_nothing() {
    let file = TestFile::new(USERS);
    let config = Config::parse(&format!("auth: {{password-file: {file}}}")).unwrap();
    let old = AuthChains::load(&config, Extensions::default()).unwrap();
    let alice = client(Some("alice"), "secret");
    assert_eq!(judge(&old, &alice), Ok(()));
    // The password is remembered now, but only by the old chain.
    file.write(USERS.lines().last().unwrap());
    let new = old.reload(&config).unwrap();
    assert_eq!(judge(&new, &alice), WRONG);
    assert_eq!(judge(&new, &client(Some("bob"), "secret")), Ok(()));
    assert_eq!(judge(&old, &alice), Ok(()));
    std::fs::remove_file(&file.0).unwrap();
    assert!(new.reload(&config).is_err());
}

#[test]
fn a_reload_does_not_end_a_penalty() {
    let config = Config::default();
    let mut chains = AuthChains::load(&config, extensions(&[Verdict::Deny], &[])).unwrap();
    for _ in 0..6 {
        let _ = judge(&chains, &client(Some("a"), "b"));
    }
    chains = chains.reload(&config).unwrap();
    let judgement = chains
        .listener("default")
        .authenticate(&client(Some("a"), "b"), now());
    assert_eq!((judgement.result, judgement.delay.as_secs()), (WRONG, 2));
}

// Who may do what.

fn access<'a>(user: Option<&'a str>, action: Action, topic: &'a str) -> Access<'a> {
    Access {
        client_id: "id",
        user,
        action,
        topic,
    }
}

/// DEC-19.
#[test]
fn without_topic_check_everything_is_allowed() {
    for text in [
        "",
        "topic-check: {}",
        "topic-check: {enabled: off, plugins: [topic_acl], acl: {}}",
        "topic-check: {enabled: on, plugins: []}",
    ] {
        let chains = chains(text);
        let chain = chains.listener("default");
        for action in [Action::Publish, Action::Subscribe, Action::Receive] {
            assert!(!chain.restricts(action), "{text}");
            assert!(
                chain.authorize(&access(None, action, "prohibited")),
                "{text}"
            );
        }
    }
}

/// BC-15 to BC-18.
#[test]
fn topic_checks_are_active_when_enabled_and_listed() {
    let publish = |text: &str, topic| {
        chains(text)
            .listener("default")
            .authorize(&access(None, Action::Publish, topic))
    };
    let acl = "acl: {anonymous: [a, prohibited]}";
    for (plugins, a, b, taboo) in [
        ("", true, false, false),
        ("plugins: [topic_acl],", true, false, true),
        ("plugins: [topic.taboo],", true, true, false),
    ] {
        let text = format!("topic-check: {{enabled: on, {plugins} {acl}}}");
        assert_eq!(publish(&text, "a"), a, "{text}");
        assert_eq!(publish(&text, "b"), b, "{text}");
        assert_eq!(publish(&text, "prohibited"), taboo, "{text}");
    }
}

#[test]
fn an_acl_file_restricts_all_actions_and_combines_with_the_rest() {
    let file = TestFile::new("topic a\ntopic prohibited\n");
    let text =
        format!("auth: {{acl-file: {file}}}\ntopic-check: {{enabled: on, plugins: [topic_taboo]}}");
    let chains = chains(&text);
    let chain = chains.listener("default");
    for action in [Action::Publish, Action::Subscribe, Action::Receive] {
        assert!(chain.restricts(action));
        assert!(chain.authorize(&access(None, action, "a")));
        assert!(!chain.authorize(&access(None, action, "b")));
        assert!(!chain.authorize(&access(None, action, "prohibited")));
    }
}

/// PLG-3.
#[test]
fn answers_of_topic_checks_are_combined_like_those_of_authenticators() {
    use Verdict::{Abstain, Allow, Busy, Deny};
    for (verdicts, expected) in [
        (&[][..], true),
        (&[Allow], true),
        (&[Abstain, Allow], true),
        (&[Abstain], false),
        (&[Allow, Deny], false),
        (&[Allow, Busy], false),
    ] {
        let chains = AuthChains::load(&Config::default(), extensions(&[], verdicts)).unwrap();
        let chain = chains.listener("default");
        assert_eq!(
            chain.authorize(&access(None, Action::Publish, "x")),
            expected,
            "{verdicts:?}"
        );
    }
}
