//! connection/mod.
