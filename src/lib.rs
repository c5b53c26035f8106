//! MQTT 3.1, 3.1.1 and 5.0 broker and blocking client without an async runtime.

pub mod net;
pub mod outbox;
pub mod proto;
pub mod thread;

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "yaml")]
pub mod yaml;
