//! What the clients of one phase share: where the broker is, and the news that it was killed.

use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::now;

/// One phase of a round.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) address: SocketAddr,
    killed: Mutex<bool>,
    news: Condvar,
}

impl Arena {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            killed: Mutex::new(false),
            news: Condvar::new(),
        }
    }

    /// Says that the broker ends now.
    pub(crate) fn announce_end(&self) {
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.news.notify_all();
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until the broker ends. `true`: it ended.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let deadline = now() + time;
        let mut killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner);
        while !*killed {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return false;
            }
            let waited = self.news.wait_timeout(killed, left);
            killed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// How long after a connection ended the news must come that the broker was killed, or the broker closed it by itself.
pub(crate) const NEWS_PATIENCE: Duration = Duration::from_secs(3);
