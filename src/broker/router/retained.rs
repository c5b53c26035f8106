//! retained.
