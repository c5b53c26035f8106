//! keep_alive.
