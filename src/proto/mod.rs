//! MQTT 3.1, 3.1.1 and 5.0 without IO: packets, codec, topics and delivery flows.
//!
//! Everything here takes slices, packets and the time as arguments and returns packets, bytes and verdicts. No socket,
//! thread, lock, channel, clock or log line lives below this module; `tests/it/layers.rs` checks that.
//!
//! Version 5 is the model. The older versions are narrower encodings of the same packets: what they cannot carry is
//! left out by the encoder and filled with the specification's default by the decoder.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod codec;
pub mod error;
pub mod flow;
pub mod message;
pub mod packet;
pub mod property;
pub mod reason;
pub mod topic;
pub mod version;
pub(crate) mod wire;

pub use codec::{Decoder, Frame};
pub use error::{DecodeError, EncodeError, ProtocolError};
pub use message::Message;
pub use packet::{Packet, PacketId, PacketType, QoS};
pub use reason::ReasonCode;
pub use topic::{ShareName, TopicFilter, TopicName};
pub use version::ProtocolVersion;
