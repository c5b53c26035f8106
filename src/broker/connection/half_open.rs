//! Connections that are not through their handshake: bounded in number, the oldest goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::metrics::Metrics;
use crate::broker::router::command::ConnectionId;
use crate::net::socket::{Closer, Socket};

/// The connections between accept and CONNACK.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    entries: Mutex<BTreeMap<ConnectionId, Closer>>,
    metrics: Arc<Metrics>,
}

/// One entry; taken out when it is dropped.
#[derive(Debug)]
pub(crate) struct HalfOpenEntry<'a> {
    owner: &'a HalfOpen,
    id: ConnectionId,
}

impl HalfOpen {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            entries: Mutex::new(BTreeMap::new()),
            metrics,
        }
    }

    /// Notes a connection. If there are more than `limit`, the oldest is shut down.
    pub(crate) fn enter(
        &self,
        id: ConnectionId,
        socket: &Socket,
        limit: usize,
    ) -> HalfOpenEntry<'_> {
        let oldest = {
            let mut entries = self.entries.lock();
            entries.insert(id, socket.closer());
            if entries.len() > limit {
                entries.pop_first()
            } else {
                None
            }
        };
        if let Some((oldest, closer)) = oldest {
            if self.metrics.handshakes_expired.value() == 0 {
                log::warn!("more than {limit} connections without CONNECT: the oldest are dropped");
            }
            self.metrics.handshakes_expired.increment();
            log::debug!("connection {oldest} dropped before its CONNECT");
            closer.shutdown();
        }
        HalfOpenEntry { owner: self, id }
    }

    /// Takes a connection out: it is about to be attached, and the router will say goodbye to it.
    pub(crate) fn leave(&self, id: ConnectionId) {
        self.entries.lock().remove(&id);
    }

    /// Shuts all of them down.
    pub(crate) fn close_all(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        for closer in entries.into_values() {
            closer.shutdown();
        }
    }
}

impl Drop for HalfOpenEntry<'_> {
    fn drop(&mut self) {
        self.owner.leave(self.id);
    }
}
