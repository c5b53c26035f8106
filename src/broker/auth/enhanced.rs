//! Enhanced authentication: methods of several steps, which the client names in CONNECT.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ConnectInfo;
use super::chain::Shared;
use crate::broker::config::Limits;
use crate::proto::ReasonCode;

/// An authentication method of MQTT 5.0 that takes more than a user name and a password.
///
/// Source: MQTT 5.0 §4.12.
pub trait EnhancedAuthenticate: Send + Sync {
    /// The Authentication Method that clients name, such as `SCRAM-SHA-256`.
    fn method(&self) -> &str;

    /// Begins an exchange, at CONNECT or when a connected client authenticates again. The client's identifier may still
    /// be empty, and its user name is no more than a claim.
    fn start(&self, client: &ConnectInfo<'_>) -> Box<dyn AuthExchange>;
}

/// One exchange with one client.
pub trait AuthExchange: Send {
    /// Takes the Authentication Data of the client's packet: CONNECT first, then each AUTH. `None`: it had none.
    ///
    /// # Blocking
    /// Runs on the thread of the client's connection and may block it, and nothing else.
    fn step(&mut self, data: Option<&[u8]>) -> AuthStep;

    /// Whom the client claims to be, once that is known: wrong proofs are counted by user and address.
    fn claimed_user(&self) -> Option<&str> {
        None
    }
}

/// What a step of an exchange came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthStep {
    /// The client is sent this Authentication Data, and answers.
    Continue(Bytes),
    /// The client is who it says it is.
    Success {
        /// The user name that it has from now on; `None` = anonymous.
        user: Option<String>,
        /// Authentication Data for CONNACK, or for the last AUTH.
        data: Option<Bytes>,
    },
    /// It is not. The reason is for CONNACK or DISCONNECT: usually Not authorized (0x87).
    Failed(ReasonCode),
}

/// A running exchange, with the penalties for those that failed before.
pub struct Exchange {
    inner: Box<dyn AuthExchange>,
    address: Option<IpAddr>,
    limits: Limits,
    shared: Arc<Shared>,
}

impl Exchange {
    pub(super) fn new(
        method: &dyn EnhancedAuthenticate,
        client: &ConnectInfo<'_>,
        limits: &Limits,
        shared: &Arc<Shared>,
    ) -> Self {
        Self {
            inner: method.start(client),
            address: client.address,
            limits: limits.clone(),
            shared: Arc::clone(shared),
        }
    }

    /// One step. The second part is how long the connection's thread has to wait before it answers, in either case: the
    /// punishment for wrong proofs before this one. Usually zero.
    ///
    /// # Blocking
    /// As long as the method does.
    pub fn step(&mut self, data: Option<&[u8]>, now: Instant) -> (AuthStep, Duration) {
        let step = self.inner.step(data);
        let Some(user) = self.inner.claimed_user() else {
            return (step, Duration::ZERO);
        };
        let (penalties, address) = (&self.shared.penalties, self.address);
        let delay = || {
            let (free, longest) = (self.limits.max_failed_logins, self.limits.max_login_delay);
            penalties.delay(user, address, free, longest, now)
        };
        match step {
            AuthStep::Continue(_) => (step, Duration::ZERO),
            AuthStep::Success { .. } => {
                let delay = delay();
                penalties.succeeded(user, address);
                (step, delay)
            }
            AuthStep::Failed(_) => {
                let delay = delay();
                penalties.failed(user, address, now);
                (step, delay)
            }
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}
