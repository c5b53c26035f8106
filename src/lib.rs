//! An MQTT broker, a blocking client and command-line tools for MQTT 3.1, 3.1.1 and 5.0, without an async runtime.
//!
//! Blocking sockets on OS threads, messages over bounded channels, one routing thread that owns all state. The broker is
//! [`broker`], the client is [`client`]; what both need for one program stands at the top of the crate:
//!
//! ```
//! use std::time::Duration;
//! use hbmqtt::{Broker, Client, Config, ConnectOptions, QoS};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut broker = Broker::new(Config::parse("listeners: {default: {type: mem, bind: doc}}")?);
//! broker.start()?;
//!
//! let client = Client::connect("mem://doc", ConnectOptions::new())?;
//! client.subscribe([("greetings/#", QoS::AtLeastOnce)])?;
//! client.publish("greetings/world", "hello", QoS::AtLeastOnce)?;
//! let message = client.recv_timeout(Duration::from_secs(5))?;
//! assert_eq!((message.topic(), &message.payload()[..]), ("greetings/world", &b"hello"[..]));
//! client.disconnect()?;
//! broker.shutdown(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! ```text
//!     bin ──► broker, client ──► outbox ──► proto
//!                                  └──────► net
//! ```
//!
//! | module | what lives there |
//! |---|---|
//! | [`proto`] | packets, codec, topics, delivery flows: bytes and packets in, packets and verdicts out. No IO, no thread, no clock |
//! | [`net`] | addresses, sockets, listeners; TLS and WebSocket as byte filters. No MQTT |
//! | [`outbox`] | what waits for one socket, and how it gets there without blocking anybody |
//! | [`thread`] | the only caller of [`std::thread`]: names, stack sizes, threads that are used again |
//! | [`store`] | what outlives the process: sessions, queues, retained messages; written in groups, one sync for all that waits |
//! | [`yaml`] | settings files, with the place of each key for error messages |
//! | [`broker`] | connections, the router, access rules, plugins; the embedding API |
//! | [`client`] | connect, publish, subscribe, reconnect; one background thread per client |
//!
//! `proto` and `net` know nothing of each other, `broker` and `client` nothing of each other. A test reads the sources
//! and holds this.
//!
//! # Features
//!
//! `broker`, `client` and `tools` (the programs) are on by default. `--no-default-features --features client` builds the
//! client alone, with fewer dependencies; add `yaml` for its settings files.
//!
//! # More
//!
//! The repository's `docs/` has guides to embedding, the
//! client, the settings, the tools, plugins, limits and the architecture.

pub mod net;
pub mod outbox;
#[cfg(any(feature = "broker", feature = "client"))]
mod packet_log;
pub mod proto;
pub mod thread;

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;

#[cfg(any(feature = "broker", feature = "client"))]
pub mod scram;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "yaml")]
pub mod yaml;

#[cfg(feature = "broker")]
pub use broker::{Broker, Config};
#[cfg(feature = "client")]
pub use client::{Client, ConnectOptions};
pub use proto::{Message, ProtocolVersion, QoS, ReasonCode, TopicFilter, TopicName};

/// Compiles and runs the code of the guides.
#[cfg(all(doctest, feature = "broker", feature = "client"))]
mod guides {
    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
    #[doc = include_str!("../README.md")]
    struct Readme;
}
