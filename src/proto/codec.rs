//! Bytes in, whole Control Packets out.

use bytes::Bytes;

use super::packet::{Packet, PacketType};
use super::{DecodeError, EncodeError, ProtocolVersion};

/// The largest Control Packet that MQTT can express: fixed header and 268,435,455 bytes.
pub const MAX_PACKET_BYTES: u32 = 268_435_455 + 5;

/// Where a whole Control Packet stands at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The type.
    pub packet_type: PacketType,
    /// The lower four bits of the first byte.
    pub flags: u8,
    /// Bytes of the fixed header, 2 to 5.
    pub header_bytes: u32,
    /// Bytes of the whole packet, fixed header included.
    pub total_bytes: u32,
}

/// Finds and decodes Control Packets of one connection, under the receiver's limits.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The version of the connection; before CONNECT any.
    pub version: ProtocolVersion,
    /// Largest whole packet accepted, in bytes.
    pub max_packet_bytes: u32,
    /// Largest property section accepted, in bytes.
    pub max_property_bytes: u32,
    /// Most properties in one packet.
    pub max_properties: u32,
}

impl Decoder {
    /// A decoder for `version` with the limits of the format itself.
    #[must_use]
    pub fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            max_packet_bytes: MAX_PACKET_BYTES,
            max_property_bytes: u32::MAX,
            max_properties: u32::MAX,
        }
    }

    /// Looks for a whole packet at the start of `buffer`. `Ok(None)`: more bytes are needed.
    ///
    /// The limit is checked as soon as the fixed header is there.
    ///
    /// # Errors
    /// [`DecodeError`] if the fixed header is invalid or announces more than `max_packet_bytes`.
    ///
    /// Source: MQTT 5.0 §2.1.
    pub fn frame(&self, buffer: &[u8]) -> Result<Option<Frame>, DecodeError> {
        todo!("{buffer:?}")
    }

    /// Decodes one whole packet. `packet` is exactly the bytes of a [`Frame`]; strings and payloads share it.
    ///
    /// A CONNECT may be of any version; the caller then continues with the version found in it.
    ///
    /// # Errors
    /// [`DecodeError`]: the packet is malformed.
    pub fn decode(&self, frame: Frame, packet: &Bytes) -> Result<Packet, DecodeError> {
        todo!("{frame:?} {packet:?}")
    }
}

/// Appends `packet` as bytes to `out`, which is left as it was on an error.
///
/// # Errors
/// [`EncodeError`]: the packet cannot be expressed in `version`.
pub fn encode(
    packet: &Packet,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    todo!("{packet:?} {version} {out:?}")
}
