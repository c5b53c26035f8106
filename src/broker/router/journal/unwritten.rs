//! How much waits to be written.

use std::collections::VecDeque;

use crate::store::StoreHandle;

/// The commits that the store has and has not written.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Of each, how many changes.
    commits: VecDeque<(u64, usize)>,
    changes: usize,
}

impl Unwritten {
    /// Commit `sequence` goes to the store.
    pub(super) fn note(&mut self, sequence: u64, changes: usize) {
        if changes > 0 {
            self.commits.push_back((sequence, changes));
            self.changes += changes;
        }
    }

    /// The changes of all commits that are not durable.
    pub(super) fn changes<R>(&mut self, store: &StoreHandle<R>) -> usize {
        if self.changes > 0 {
            let durable = store.durable();
            let is_written = |commit: &mut (u64, usize)| commit.0 <= durable;
            while let Some((_, changes)) = self.commits.pop_front_if(is_written) {
                self.changes -= changes;
            }
        }
        self.changes
    }
}
