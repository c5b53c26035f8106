//! Waiting for an answer of the server: a place for one result, and the token that a program holds on it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::shared::{Shared, now};
use super::{ClientError, Phase, Published};
use crate::client::session::Publication;

/// A place for one result that threads wait for.
pub(crate) struct Slot<T> {
    result: Mutex<Option<Result<T, ClientError>>>,
    filled: Condvar,
}

impl<T: Clone> Slot<T> {
    pub(crate) const fn new() -> Self {
        Self {
            result: Mutex::new(None),
            filled: Condvar::new(),
        }
    }

    /// Puts the result in, the first time only.
    pub(crate) fn fill(&self, result: Result<T, ClientError>) {
        let mut place = self.result.lock();
        if place.is_none() {
            *place = Some(result);
            drop(place);
            self.filled.notify_all();
        }
    }

    pub(crate) fn is_filled(&self) -> bool {
        self.result.lock().is_some()
    }

    /// The result, or `None` at `deadline`.
    // BLOCKS: until the slot is filled or `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<Result<T, ClientError>> {
        let mut place = self.result.lock();
        loop {
            if let Some(result) = &*place {
                return Some(result.clone());
            }
            match deadline {
                None => self.filled.wait(&mut place),
                Some(deadline) => {
                    if self.filled.wait_until(&mut place, deadline).timed_out() && place.is_none() {
                        return None;
                    }
                }
            }
        }
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

/// A publication on its way.
///
/// Dropping it does not take the publication back.
#[must_use = "nothing else says whether the publication arrived"]
#[derive(Clone)]
pub struct Token(State);

#[derive(Clone)]
enum State {
    Done(Published),
    Waits {
        publication: Arc<Publication>,
        shared: Arc<Shared>,
    },
}

impl Token {
    pub(crate) fn done(published: Published) -> Self {
        Self(State::Done(published))
    }

    pub(crate) fn waits(publication: Arc<Publication>, shared: Arc<Shared>) -> Self {
        Self(State::Waits {
            publication,
            shared,
        })
    }

    /// Waits for the acknowledgement; a QoS 0 publication is done from the start.
    ///
    /// # Errors
    /// [`ClientError::Rejected`]: the server refused the message. [`ClientError::WillNotReconnect`],
    /// [`ClientError::NotConnected`], [`ClientError::ConnectionLost`]: it will not be known whether it arrived.
    ///
    /// # Blocking
    /// Until the acknowledgement comes or the client gives up the connection.
    pub fn wait(&self) -> Result<Published, ClientError> {
        self.wait_until(None)
    }

    /// As [`wait`](Self::wait), no longer than `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`ClientError::Timeout`]: the publication is still on its way, and may be waited
    /// for again.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Published, ClientError> {
        self.wait_until(now().checked_add(timeout))
    }

    /// Whether [`wait`](Self::wait) would return at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.0 {
            State::Done(_) => true,
            State::Waits { publication, .. } => publication.slot.is_filled(),
        }
    }

    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> Result<Published, ClientError> {
        match &self.0 {
            State::Done(published) => Ok(published.clone()),
            State::Waits {
                publication,
                shared,
            } => shared.wait_for(&publication.slot, deadline, Phase::Acknowledgement),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("is_done", &self.is_done())
            .finish_non_exhaustive()
    }
}
