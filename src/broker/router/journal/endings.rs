//! Stored sessions that ended, for as long as the store may still have them.

use std::collections::{HashMap, VecDeque};

use bytestring::ByteString;

/// The sessions that ended in commits which may not be durable yet, by their clients.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// The commit in which a session of this client last ended.
    last: HashMap<ByteString, u64, foldhash::fast::RandomState>,
    /// In the order of the commits.
    order: VecDeque<(u64, ByteString)>,
}

impl Endings {
    /// A stored session of this client ended in commit `sequence`.
    pub(super) fn note(&mut self, client_id: &ByteString, sequence: u64) {
        self.last.insert(client_id.clone(), sequence);
        self.order.push_back((sequence, client_id.clone()));
    }

    /// All commits up to `durable` are on disk.
    pub(super) fn forget(&mut self, durable: u64) {
        while let Some((sequence, client_id)) = self
            .order
            .pop_front_if(|(sequence, _)| *sequence <= durable)
        {
            if self.last.get(&client_id) == Some(&sequence) {
                self.last.remove(&client_id);
            }
        }
        if self.order.is_empty() {
            *self = Self::default();
        }
    }

    /// After a crash a session of this client might be back that has ended.
    pub(super) fn contain(&self, client_id: &str) -> bool {
        self.last.contains_key(client_id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_forgotten_with_the_last_of_its_endings() {
        let mut endings = Endings::default();
        endings.note(&"a".into(), 3);
        endings.note(&"b".into(), 3);
        endings.note(&"a".into(), 5);
        endings.forget(2);
        assert!(endings.contain("a") && endings.contain("b"));
        endings.forget(4);
        assert!(endings.contain("a") && !endings.contain("b"));
        endings.forget(5);
        assert!(endings.is_empty() && !endings.contain("a"));
    }
}
