//! One attempt to connect: which version to speak, and which server to go to when one sends the client away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ClientError;
use super::handshake::{self, Established, GreetingError};
use super::redirect::{RedirectProblem, Redirection};
use super::shared::{Shared, now};
use crate::net::url::Endpoint;
use crate::proto::ReasonCode;

/// Where the client belongs, where it is, and where it was sent.
#[derive(Debug)]
pub(crate) struct Route {
    /// Where attempts begin.
    pub(crate) home: Endpoint,
    /// The server of the last connection.
    pub(crate) current: Endpoint,
    /// A server has ended the connection and named others: for the next attempt.
    pub(crate) next: Option<Redirection>,
    /// How often that happened in a row to connections that had only just been made.
    pub(crate) ended_at_once: u8,
}

impl Route {
    pub(crate) fn new(home: Endpoint) -> Self {
        Self {
            current: home.clone(),
            home,
            next: None,
            ended_at_once: 0,
        }
    }
}

/// One attempt to connect. A server that names another one is left for that, as often as the options allow.
///
/// # Errors
/// [`ClientError::Network`], [`ClientError::Timeout`], [`ClientError::Refused`], [`ClientError::Redirect`],
/// [`ClientError::Authentication`]; [`ClientError::Malformed`] and [`ClientError::Protocol`] when it is no MQTT server.
// BLOCKS: until CONNACK, at most for `connect_timeout`.
pub(crate) fn establish(
    shared: &Arc<Shared>,
    clean_start: bool,
) -> Result<Established, ClientError> {
    let deadline = now() + shared.options.connect_timeout;
    let mut path = Path::begin(shared)?;
    loop {
        let endpoint = path.next.pop_front().unwrap_or_else(|| path.home.clone());
        let error = match connect_to(shared, &endpoint, clean_start, deadline) {
            Ok(established) => {
                let mut core = shared.lock();
                core.route.home = path.home;
                core.route.current = endpoint.clone();
                core.agreed = Some((endpoint.address, established.version));
                return Ok(established);
            }
            Err(error) => error,
        };
        match Redirection::of(&error) {
            Some(redirection) if shared.options.redirects > 0 => {
                log::info!("{endpoint}: {error}");
                path.follow(redirection, &endpoint, shared.options.redirects)?;
            }
            // Another one of the list may be there.
            _ if matches!(error, ClientError::Network(_)) && !path.next.is_empty() => {
                log::info!("{endpoint}: {error}");
            }
            _ => return Err(error),
        }
    }
}

/// The way of one attempt from server to server.
struct Path {
    /// Where later attempts begin.
    home: Endpoint,
    /// Where to go now.
    next: VecDeque<Endpoint>,
    /// Servers that have sent the client away.
    left: Vec<Endpoint>,
    /// Every redirection so far was for good.
    is_permanent: bool,
    hops: u8,
}

impl Path {
    fn begin(shared: &Arc<Shared>) -> Result<Self, ClientError> {
        let mut core = shared.lock();
        let mut path = Self {
            home: core.route.home.clone(),
            next: VecDeque::new(),
            left: Vec::new(),
            is_permanent: true,
            hops: 0,
        };
        let current = core.route.current.clone();
        if let Some(redirection) = core.route.next.take() {
            path.follow(redirection, &current, shared.options.redirects)?;
        }
        Ok(path)
    }

    /// The server at `from` sends the client away.
    fn follow(
        &mut self,
        redirection: Redirection,
        from: &Endpoint,
        most: u8,
    ) -> Result<(), ClientError> {
        self.hops = self.hops.saturating_add(1);
        if self.hops > most {
            return Err(redirection.fails(RedirectProblem::TooMany));
        }
        self.left.push(from.clone());
        let mut named: VecDeque<_> = redirection.endpoints(from).into();
        if named.is_empty() {
            return Err(redirection.fails(RedirectProblem::Unusable));
        }
        named.retain(|to| self.left.iter().all(|left| left.address != to.address));
        let Some(first) = named.front() else {
            return Err(redirection.fails(RedirectProblem::Loop));
        };
        self.is_permanent &= redirection.is_permanent();
        if self.is_permanent {
            self.home = first.clone();
        }
        self.next = named;
        Ok(())
    }
}

/// Connects to one server: in the version that was chosen or agreed on, else in the newest one and, if the server does
/// not speak it, in an older one on another connection.
fn connect_to(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    clean_start: bool,
    deadline: Instant,
) -> Result<Established, ClientError> {
    let options = &shared.options;
    let agreed = {
        let core = shared.lock();
        let agreed = core.agreed.as_ref();
        agreed.and_then(|(address, version)| (*address == endpoint.address).then_some(*version))
    };
    let version = agreed.unwrap_or_else(|| options.first_version());
    let older = options.version_after(version);
    let answer_by = match older {
        Some(_) if agreed.is_none() => now() + SILENCE.min(options.connect_timeout / 2),
        _ => deadline,
    };
    let greet = |version, answer_by| {
        handshake::greet(shared, endpoint, version, clean_start, deadline, answer_by)
    };
    let first = greet(version, answer_by);
    let Err(GreetingError::NoConnack(error)) = first else {
        return first.map_err(GreetingError::into_inner);
    };
    // A server that took the version before speaks it still, unless it says itself that it does not.
    let is_clear = error.reason() == Some(ReasonCode::UnsupportedProtocolVersion);
    match older {
        Some(older) if agreed.is_none() || is_clear => {
            log::info!("no {version} ({error}), trying {older}");
            greet(older, deadline).map_err(GreetingError::into_inner)
        }
        _ => Err(error),
    }
}

/// How long a server may leave CONNECT unanswered before it is taken for one that waits for more: amqtt and HBMQTT take
/// the properties of 5.0 for the length of a long Client Identifier.
const SILENCE: Duration = Duration::from_secs(3);
