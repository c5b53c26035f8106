//! The authenticators and topic checks of a listener, and how their answers are combined.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Access, Action, Authenticate, Authorize, ConnectInfo, Verdict};
use crate::broker::config::{AuthConfig, Config, ConfigError, Limits};
use crate::proto::ReasonCode;

/// What a program that embeds the broker, or a plugin, adds to the checks of the settings. They are always active.
#[derive(Clone, Default)]
pub struct Extensions {
    /// Asked beside the authenticators of the settings.
    pub authenticators: Vec<Arc<dyn Authenticate>>,
    /// Asked beside the topic checks of the settings.
    pub authorizers: Vec<Arc<dyn Authorize>>,
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions")
            .field("authenticators", &self.authenticators.len())
            .field("authorizers", &self.authorizers.len())
            .finish()
    }
}

/// The chains of all listeners: built as a whole, swapped as a whole.
#[derive(Debug)]
pub struct AuthChains {
    broker: Arc<AuthChain>,
    listeners: HashMap<String, Arc<AuthChain>>,
    extensions: Extensions,
}

impl AuthChains {
    /// Reads the files that the settings name and builds the chains.
    ///
    /// # Errors
    /// [`ConfigError`]: a file cannot be read or is wrong, or nobody could ever connect.
    ///
    /// # Blocking
    /// Reads files.
    pub fn load(config: &Config, extensions: Extensions) -> Result<Self, ConfigError> {
        let build = |auth| AuthChain::build(auth, &config.limits, &extensions).map(Arc::new);
        let broker = build(&config.auth)?;
        let mut listeners = HashMap::new();
        for listener in &config.listeners {
            if let Some(auth) = &listener.auth {
                listeners.insert(listener.name.clone(), build(auth)?);
            }
        }
        Ok(Self {
            broker,
            listeners,
            extensions,
        })
    }

    /// Builds the chains anew, for a reload: files are read again, remembered passwords forgotten. `self` is untouched.
    ///
    /// # Errors
    /// As [`AuthChains::load`]; then `self` stays in use.
    ///
    /// # Blocking
    /// Reads files.
    pub fn reload(&self, config: &Config) -> Result<Self, ConfigError> {
        Self::load(config, self.extensions.clone())
    }

    /// The chain of a listener.
    #[must_use]
    pub fn listener(&self, name: &str) -> &Arc<AuthChain> {
        self.listeners.get(name).unwrap_or(&self.broker)
    }
}

/// The active authenticators and topic checks of a listener.
pub struct AuthChain {
    authenticators: Vec<Arc<dyn Authenticate>>,
    authorizers: [Vec<Arc<dyn Authorize>>; 3],
    limits: Limits,
}

impl AuthChain {
    fn build(
        _config: &AuthConfig,
        limits: &Limits,
        extensions: &Extensions,
    ) -> Result<Self, ConfigError> {
        let for_action = |action| {
            let restricts = |check: &&Arc<dyn Authorize>| check.restricts(action);
            extensions
                .authorizers
                .iter()
                .filter(restricts)
                .cloned()
                .collect()
        };
        Ok(Self {
            authenticators: extensions.authenticators.clone(),
            authorizers: [Action::Publish, Action::Subscribe, Action::Receive].map(for_action),
            limits: limits.clone(),
        })
    }

    /// May this client connect?
    ///
    /// # Blocking
    /// Verifying a password takes milliseconds to a second of CPU, and before that up to `limits.auth-timeout` of
    /// waiting; an authenticator of the user's own may block as it likes. Call it on the connection's thread. The delay in
    /// the judgement is not waited for here.
    pub fn authenticate(&self, client: &ConnectInfo<'_>, _now: Instant) -> Judgement {
        let limits = &self.limits;
        let longer = |text: Option<&[u8]>, limit| text.is_some_and(|text| text.len() > limit);
        let result = if client.client_id.len() > limits.max_client_id_length {
            Err(ReasonCode::ClientIdentifierNotValid)
        } else if longer(
            client.user_name.map(str::as_bytes),
            limits.max_username_length,
        ) || longer(client.password, limits.max_password_length)
        {
            Err(ReasonCode::BadUserNameOrPassword)
        } else {
            let ask = |one: &Arc<dyn Authenticate>| one.authenticate(client);
            match combine(self.authenticators.iter().map(ask)) {
                Verdict::Allow => Ok(()),
                Verdict::Busy => Err(ReasonCode::QuotaExceeded),
                _ if client.user_name.is_none() => Err(ReasonCode::NotAuthorized),
                _ => Err(ReasonCode::BadUserNameOrPassword),
            }
        };
        Judgement {
            result,
            delay: Duration::ZERO,
        }
    }

    /// May this client do this?
    #[must_use]
    pub fn authorize(&self, access: &Access<'_>) -> bool {
        let checks = self.checks(access.action);
        let ask = |check: &Arc<dyn Authorize>| check.authorize(access);
        checks.is_empty() || combine(checks.iter().map(ask)) == Verdict::Allow
    }

    /// Something restricts this action; otherwise [`AuthChain::authorize`] says yes to everything.
    #[must_use]
    pub fn restricts(&self, action: Action) -> bool {
        !self.checks(action).is_empty()
    }

    fn checks(&self, action: Action) -> &[Arc<dyn Authorize>] {
        &self.authorizers[action as usize]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Judgement {
    /// `Ok`, or the reason for CONNACK.
    pub result: Result<(), ReasonCode>,
    /// How long the connection's thread has to wait before it answers, in either case: the punishment for wrong passwords
    /// before this one. Usually zero.
    pub delay: Duration,
}

/// One denial decides, then one "busy"; without any answer there is none.
fn combine(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut answer = Verdict::Abstain;
    for verdict in verdicts {
        answer = match (answer, verdict) {
            (_, Verdict::Deny) => return Verdict::Deny,
            (_, Verdict::Busy) | (Verdict::Busy, _) => Verdict::Busy,
            (_, Verdict::Allow) | (Verdict::Allow, _) => Verdict::Allow,
            _ => Verdict::Abstain,
        };
    }
    answer
}
