//! The broker and its embedding API.

pub mod auth;
pub mod config;
mod connection;
mod error;
mod metrics;
pub mod plugin;
mod router;
mod sys;
