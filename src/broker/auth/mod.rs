//! Who may connect, and who may publish and subscribe where.

mod acl_file;
mod anonymous;
mod chain;
mod enhanced;
mod gate;
mod password_file;
mod password_hash;
mod penalty;
mod scram_file;
mod topic_check;

use std::net::IpAddr;

use crate::proto::ProtocolVersion;

pub use chain::{AuthChain, AuthChains, Extensions, Judgement};
pub use enhanced::{AuthExchange, AuthStep, EnhancedAuthenticate, Exchange};

/// What is known about a client that wants to connect.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ConnectInfo<'a> {
    /// The Client Identifier, assigned already if the client came without one.
    pub client_id: &'a str,
    /// The User Name of CONNECT, or the one taken from the certificate.
    pub user_name: Option<&'a str>,
    /// The Password: bytes, not text.
    pub password: Option<&'a [u8]>,
    /// The user name needs no password to prove it: it was taken from the client's verified certificate
    /// (`use-identity-as-username` or `use-subject-as-username`), or an [`EnhancedAuthenticate`] has proved it.
    pub user_is_proven: bool,
    /// The address the client connects from; `None` for Unix domain sockets and `mem://`.
    pub address: Option<IpAddr>,
    /// The name of the listener.
    pub listener: &'a str,
    /// The protocol version of CONNECT.
    pub version: ProtocolVersion,
}

impl<'a> ConnectInfo<'a> {
    /// A client without user name and password.
    #[must_use]
    pub fn new(client_id: &'a str, listener: &'a str, version: ProtocolVersion) -> Self {
        Self {
            client_id,
            user_name: None,
            password: None,
            user_is_proven: false,
            address: None,
            listener,
            version,
        }
    }
}

impl std::fmt::Debug for ConnectInfo<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("password", &self.password.map(|_| "***"))
            .field("user_is_proven", &self.user_is_proven)
            .field("address", &self.address)
            .field("listener", &self.listener)
            .field("version", &self.version)
            .finish()
    }
}

/// What a client wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish a message, or have a will published.
    Publish,
    /// Subscribe to a filter.
    Subscribe,
    /// Be sent a message.
    Receive,
}

/// A question to [`Authorize`].
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The Client Identifier.
    pub client_id: &'a str,
    /// The User Name; `None` = anonymous.
    pub user: Option<&'a str>,
    /// What it wants to do.
    pub action: Action,
    /// The Topic Name; for [`Action::Subscribe`] the Topic Filter without `$share/name/`.
    pub topic: &'a str,
}

/// One answer among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, if nobody denies.
    Allow,
    /// No, whatever the others say.
    Deny,
    /// Not my business.
    Abstain,
    /// No answer can be had now: the client is refused and told to come again.
    Busy,
}

/// Says whether a client is who it says it is.
///
/// All that are active are asked: one [`Verdict::Deny`] refuses, and at least one [`Verdict::Allow`] is needed.
pub trait Authenticate: Send + Sync {
    /// A name for log lines.
    fn name(&self) -> &str;

    /// Judges a client.
    ///
    /// # Blocking
    /// Runs on the thread of the client's connection and may block it, and nothing else. An answer that takes longer than
    /// `limits.auth-timeout` counts as [`Verdict::Deny`].
    fn authenticate(&self, client: &ConnectInfo<'_>) -> Verdict;
}

/// Says whether a client may publish, subscribe, or be sent a message.
///
/// All that are active for the action are asked: one [`Verdict::Deny`] refuses, and at least one [`Verdict::Allow`] is
/// needed. Where none is active everything is allowed.
pub trait Authorize: Send + Sync {
    /// A name for log lines.
    fn name(&self) -> &str;

    /// It has something to say about this action. Answered once, when the chain is built.
    fn restricts(&self, action: Action) -> bool {
        let _ = action;
        true
    }

    /// Judges one access.
    ///
    /// # Blocking
    /// Must not block: deliveries are judged on the router's thread.
    fn authorize(&self, access: &Access<'_>) -> Verdict;
}
