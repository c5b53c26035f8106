//! Whether the program's state callback runs on this thread.

use std::cell::Cell;

/// The state callback of the program runs on this thread.
pub(super) struct InCallback(bool);

impl InCallback {
    pub(super) fn enter() -> Self {
        Self(IN_CALLBACK.replace(true))
    }
}

impl Drop for InCallback {
    fn drop(&mut self) {
        IN_CALLBACK.set(self.0);
    }
}

pub(crate) fn in_callback() -> bool {
    IN_CALLBACK.get()
}

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}
