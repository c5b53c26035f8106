//! What the clients of one phase share: where the broker is, and the news that it was killed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::now;
use crate::fault::Fault;

/// One phase of a round.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) address: SocketAddr,
    published: AtomicUsize,
    killed: Mutex<bool>,
    news: Condvar,
}

impl Arena {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            published: AtomicUsize::new(0),
            killed: Mutex::new(false),
            news: Condvar::new(),
        }
    }

    /// So many messages more were published.
    pub(crate) fn add_published(&self, count: usize) {
        self.published.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::Relaxed)
    }

    /// Says that the broker is ended next.
    pub(crate) fn announce_end(&self) {
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.news.notify_all();
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker was about to be ended when this happened: only then may it close a connection by itself.
    pub(crate) fn explains(&self, fault: &Fault) -> bool {
        fault.is_lost() && self.has_ended()
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
