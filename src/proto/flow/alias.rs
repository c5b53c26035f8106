//! alias.
