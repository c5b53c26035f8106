//! The router.

mod retained;
mod subscriptions;
mod timers;
