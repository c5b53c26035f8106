//! auth/mod.
