//! The authenticators and topic checks of a listener, and how their answers are combined.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use log::warn;
use ring::hmac;
use ring::rand::SystemRandom;

use super::acl_file::AclFile;
use super::anonymous::{Anonymous, Certified};
use super::enhanced::{EnhancedAuthenticate, Exchange};
use super::gate::Gate;
use super::password_file::PasswordFile;
use super::penalty::Penalties;
use super::scram_file::ScramFile;
use super::topic_check::{TopicAclCheck, TopicTaboo};
use super::{Access, Action, Authenticate, Authorize, ConnectInfo, Verdict};
use crate::broker::config::{
    AuthConfig, Config, ConfigError, Limits, ListenerConfig, PluginConfig, Problem,
};
use crate::proto::ReasonCode;
use crate::scram::KEY_BYTES;

/// What a program that embeds the broker, or a plugin, adds to the checks of the settings. They are always active.
#[derive(Clone, Default)]
pub struct Extensions {
    /// Asked beside the authenticators of the settings.
    pub authenticators: Vec<Arc<dyn Authenticate>>,
    /// Asked beside the topic checks of the settings.
    pub authorizers: Vec<Arc<dyn Authorize>>,
    /// Authentication methods beside those of the settings, and before them where the name is the same.
    pub methods: Vec<Arc<dyn EnhancedAuthenticate>>,
}

impl Extensions {
    /// The names of all of them, as the settings write them.
    pub(crate) fn names(&self) -> Vec<String> {
        let authenticators = self.authenticators.iter().map(|one| one.name());
        let authorizers = self.authorizers.iter().map(|one| one.name());
        let methods = self.methods.iter().map(|one| one.method());
        let all = authenticators.chain(authorizers).chain(methods);
        all.map(|name| name.replace(['.', '-'], "_")).collect()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions")
            .field("authenticators", &self.authenticators.len())
            .field("authorizers", &self.authorizers.len())
            .field("methods", &self.methods.len())
            .finish()
    }
}

/// The chains of all listeners: built as a whole, swapped as a whole.
#[derive(Debug)]
pub struct AuthChains {
    broker: Arc<AuthChain>,
    listeners: HashMap<String, Arc<AuthChain>>,
    extensions: Extensions,
    shared: Arc<Shared>,
}

/// What outlives a reload.
#[derive(Debug, Default)]
pub(super) struct Shared {
    gate: Arc<Gate>,
    pub(super) penalties: Penalties,
    scram_secret: OnceLock<[u8; KEY_BYTES]>,
}

impl AuthChains {
    /// Reads the files that the settings name and builds the chains. Logs what is odd about them.
    ///
    /// # Errors
    /// [`ConfigError`]: a file cannot be read or is wrong, or `allow-anonymous` is off and there is nobody to check a
    /// password.
    ///
    /// # Blocking
    /// Reads files.
    pub fn load(config: &Config, extensions: Extensions) -> Result<Self, ConfigError> {
        Self::build(config, extensions, Arc::default())
    }

    /// Builds the chains anew, for a reload: files are read again, remembered passwords forgotten. `self` is untouched.
    ///
    /// # Errors
    /// As [`AuthChains::load`]; then `self` stays in use.
    ///
    /// # Blocking
    /// Reads files.
    pub fn reload(&self, config: &Config) -> Result<Self, ConfigError> {
        Self::build(config, self.extensions.clone(), Arc::clone(&self.shared))
    }

    fn build(
        config: &Config,
        extensions: Extensions,
        shared: Arc<Shared>,
    ) -> Result<Self, ConfigError> {
        let cache_key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| Problem::new("auth", "the system has no random numbers"))?;
        let builder = Builder {
            config,
            extensions: &extensions,
            shared: &shared,
            cache_key,
        };
        let (own, common): (Vec<_>, Vec<_>) = config
            .listeners
            .iter()
            .partition(|listener| listener.auth.is_some());
        let broker = builder.chain("auth", &config.auth, config.plugins.as_ref(), &common)?;
        let mut listeners = HashMap::new();
        for listener in own {
            if let Some(auth) = &listener.auth {
                let key = format!("listeners.{}.auth", listener.name);
                // A list of its own stands alone.
                let broker_list = config.plugins.as_ref().filter(|_| auth.plugins.is_none());
                let chain = builder.chain(&key, auth, broker_list, &[listener])?;
                listeners.insert(listener.name.clone(), Arc::new(chain));
            }
        }
        Ok(Self {
            broker: Arc::new(broker),
            listeners,
            extensions,
            shared,
        })
    }

    /// The chain of a listener.
    #[must_use]
    pub fn listener(&self, name: &str) -> &Arc<AuthChain> {
        self.listeners.get(name).unwrap_or(&self.broker)
    }
}

struct Builder<'a> {
    config: &'a Config,
    extensions: &'a Extensions,
    shared: &'a Arc<Shared>,
    cache_key: hmac::Key,
}

impl Builder<'_> {
    /// The chain for the section `auth` at `key`, which `listeners` use.
    fn chain(
        &self,
        key: &str,
        auth: &AuthConfig,
        broker_list: Option<&Vec<PluginConfig>>,
        listeners: &[&ListenerConfig],
    ) -> Result<AuthChain, ConfigError> {
        let is_active = |name: &str| is_listed(name, [broker_list, auth.plugins.as_ref()]);
        let mut authenticators = self.extensions.authenticators.clone();
        if is_active("auth_anonymous") {
            let allow = auth.allow_anonymous;
            authenticators.push(Arc::new(Anonymous { allow }));
        }
        if let Some(path) = auth
            .password_file
            .as_deref()
            .filter(|_| is_active("auth_file"))
        {
            let gate = Arc::clone(&self.shared.gate);
            let key = self.cache_key.clone();
            let (file, problems) = PasswordFile::load(path, &self.config.limits, gate, key)?;
            for problem in problems {
                warn!("{problem}");
            }
            authenticators.push(Arc::new(file));
        }
        let is_certified =
            |one: &&ListenerConfig| one.use_identity_as_username || one.use_subject_as_username;
        if listeners.iter().any(is_certified) {
            authenticators.push(Arc::new(Certified));
        }
        let anonymous = auth.allow_anonymous && is_active("auth_anonymous");
        let refuses_only = usize::from(is_active("auth_anonymous") && !auth.allow_anonymous);
        let methods = self.methods(auth, is_active("auth_scram"))?;
        if authenticators.len() == refuses_only && methods.is_empty() && !listeners.is_empty() {
            let message = "nobody could connect: there is no authenticator; set password-file, or allow-anonymous: on";
            let problem = Problem::new(key, message);
            if !auth.allow_anonymous {
                return Err(problem.into());
            }
            // An empty list of plugins is what somebody may want.
            warn!("{problem}");
        }
        let authorizers = self.authorizers(auth)?;
        let for_action = |action| {
            let restricts = |check: &&Arc<dyn Authorize>| check.restricts(action);
            authorizers.iter().filter(restricts).cloned().collect()
        };
        Ok(AuthChain {
            authenticators,
            authorizers: [Action::Publish, Action::Subscribe, Action::Receive].map(for_action),
            methods,
            anonymous,
            limits: self.config.limits.clone(),
            shared: Arc::clone(self.shared),
        })
    }

    fn methods(
        &self,
        auth: &AuthConfig,
        scram_is_active: bool,
    ) -> Result<Vec<Arc<dyn EnhancedAuthenticate>>, ConfigError> {
        let mut methods = self.extensions.methods.clone();
        if let Some(path) = auth.scram_file.as_deref().filter(|_| scram_is_active) {
            let (file, problems) = ScramFile::load(path, &self.shared.scram_secret)?;
            for problem in problems {
                warn!("{problem}");
            }
            methods.push(Arc::new(file));
        }
        Ok(methods)
    }

    fn authorizers(&self, auth: &AuthConfig) -> Result<Vec<Arc<dyn Authorize>>, ConfigError> {
        let mut authorizers = self.extensions.authorizers.clone();
        if let Some(path) = &auth.acl_file {
            authorizers.push(Arc::new(AclFile::load(path)?));
        }
        let check = &self.config.topic_check;
        let is_active = |name: &str| check.enabled && is_listed(name, [check.plugins.as_ref()]);
        if is_active("topic_acl") {
            authorizers.push(Arc::new(TopicAclCheck::new(check)));
        }
        if is_active("topic_taboo") {
            authorizers.push(Arc::new(TopicTaboo::new(check)));
        }
        Ok(authorizers)
    }
}

/// One of the lists names it, or there is no list at all.
fn is_listed<const N: usize>(name: &str, lists: [Option<&Vec<PluginConfig>>; N]) -> bool {
    let mut listed = lists.into_iter().flatten().peekable();
    listed.peek().is_none() || listed.flatten().any(|plugin| plugin.name == name)
}

/// The active authenticators and topic checks of a listener.
pub struct AuthChain {
    authenticators: Vec<Arc<dyn Authenticate>>,
    /// By [`Action`]: those that have something to say about it.
    authorizers: [Vec<Arc<dyn Authorize>>; 3],
    methods: Vec<Arc<dyn EnhancedAuthenticate>>,
    anonymous: bool,
    limits: Limits,
    shared: Arc<Shared>,
}

impl AuthChain {
    /// May this client connect?
    ///
    /// # Blocking
    /// Verifying a password takes milliseconds to a second of CPU, and before that up to `limits.auth-timeout` of
    /// waiting; an authenticator of the user's own may block as it likes. Call it on the connection's thread. The delay in
    /// the judgement is not waited for here.
    pub fn authenticate(&self, client: &ConnectInfo<'_>, now: Instant) -> Judgement {
        if let Some(refusal) = self.too_long(client) {
            return refusal;
        }
        let (limits, penalties) = (&self.limits, &self.shared.penalties);
        // Certificates and clients without a name have no password to guess.
        let guessed_name = client.user_name.filter(|_| !client.user_is_proven);
        let delay = guessed_name.map_or(Duration::ZERO, |user| {
            let (free, longest) = (limits.max_failed_logins, limits.max_login_delay);
            penalties.delay(user, client.address, free, longest, now)
        });
        let judgement = Judgement {
            delay,
            ..self.ask(client, false)
        };
        if let Some(user) = guessed_name {
            match judgement.result {
                Ok(()) => penalties.succeeded(user, client.address),
                Err(ReasonCode::BadUserNameOrPassword) => {
                    penalties.failed(user, client.address, now);
                }
                Err(_) => {}
            }
        }
        judgement
    }

    /// Begins an exchange of the Authentication Method that the client names. `None`: there is no such method.
    pub fn exchange(&self, method: &str, client: &ConnectInfo<'_>) -> Option<Exchange> {
        let found = self.methods.iter().find(|known| known.method() == method)?;
        Some(Exchange::new(&**found, client, &self.limits, &self.shared))
    }

    /// May this client connect, whom an exchange has proved to be who it says? Then nobody has to vouch for it, and
    /// those who deny are still heard.
    ///
    /// # Blocking
    /// As [`authenticate`](Self::authenticate).
    pub fn accept_proven(&self, client: &ConnectInfo<'_>) -> Judgement {
        let refusal = self.too_long(client);
        refusal.unwrap_or_else(|| self.ask(client, true))
    }

    /// Refused before anything is computed from it.
    fn too_long(&self, client: &ConnectInfo<'_>) -> Option<Judgement> {
        let limits = &self.limits;
        let password = client.password.unwrap_or_default();
        if client.client_id.len() > limits.max_client_id_length {
            let reason = ReasonCode::ClientIdentifierNotValid;
            return Some(Judgement::refusal(reason, "max-client-id-length"));
        }
        let wrong = ReasonCode::BadUserNameOrPassword;
        if client
            .user_name
            .is_some_and(|name| name.len() > limits.max_username_length)
        {
            return Some(Judgement::refusal(wrong, "max-username-length"));
        }
        if password.len() > limits.max_password_length {
            return Some(Judgement::refusal(wrong, "max-password-length"));
        }
        None
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the time that authenticators take is measured"
    )]
    fn ask(&self, client: &ConnectInfo<'_>, is_proven: bool) -> Judgement {
        let mut allowed = is_proven;
        let mut busy = None;
        for one in &self.authenticators {
            let asked_at = Instant::now();
            let verdict = one.authenticate(client);
            let is_late = asked_at.elapsed() > self.limits.auth_timeout;
            match verdict {
                Verdict::Deny if client.user_name.is_none() => {
                    return Judgement::refusal(ReasonCode::NotAuthorized, one.name());
                }
                Verdict::Deny => {
                    return Judgement::refusal(ReasonCode::BadUserNameOrPassword, one.name());
                }
                Verdict::Busy => busy = Some(one.name()),
                _ if is_late => busy = Some(one.name()),
                Verdict::Allow => allowed = true,
                Verdict::Abstain => {}
            }
        }
        match (busy, allowed) {
            (Some(name), _) => Judgement::refusal(ReasonCode::QuotaExceeded, name),
            (None, true) => Judgement {
                result: Ok(()),
                delay: Duration::ZERO,
                refused_by: String::new(),
            },
            (None, false) if client.user_name.is_none() => Judgement::refusal(
                ReasonCode::NotAuthorized,
                "no authenticator for anonymous clients",
            ),
            (None, false) => Judgement::refusal(
                ReasonCode::BadUserNameOrPassword,
                "no authenticator knows the user",
            ),
        }
    }

    /// Clients without a user name may connect: everybody who reaches the listener.
    #[must_use]
    pub fn allows_anonymous(&self) -> bool {
        self.anonymous
    }

    /// May this client do this?
    #[must_use]
    pub fn authorize(&self, access: &Access<'_>) -> bool {
        let checks = self.checks(access.action);
        let mut allowed = checks.is_empty();
        for check in checks {
            match check.authorize(access) {
                Verdict::Deny | Verdict::Busy => return false,
                Verdict::Allow => allowed = true,
                Verdict::Abstain => {}
            }
        }
        allowed
    }

    /// Something restricts this action; otherwise [`AuthChain::authorize`] says yes to everything.
    #[must_use]
    pub fn restricts(&self, action: Action) -> bool {
        !self.checks(action).is_empty()
    }

    fn checks(&self, action: Action) -> &[Arc<dyn Authorize>] {
        let [publish, subscribe, receive] = &self.authorizers;
        match action {
            Action::Publish => publish,
            Action::Subscribe => subscribe,
            Action::Receive => receive,
        }
    }
}

impl fmt::Debug for AuthChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.authenticators.iter().map(|one| one.name()).collect();
        f.debug_struct("AuthChain")
            .field("authenticators", &names)
            .finish_non_exhaustive()
    }
}

/// The answer to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Judgement {
    /// `Ok`, or the reason for CONNACK.
    pub result: Result<(), ReasonCode>,
    /// How long the connection's thread has to wait before it answers, in either case: the punishment for wrong passwords
    /// before this one. Usually zero.
    pub delay: Duration,
    /// For the log: who or what refused; empty if nobody did.
    pub refused_by: String,
}

impl Judgement {
    fn refusal(reason: ReasonCode, by: &str) -> Self {
        Self {
            result: Err(reason),
            delay: Duration::ZERO,
            refused_by: by.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
