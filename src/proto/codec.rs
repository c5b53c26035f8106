//! Bytes in, whole Control Packets out.

use bytes::Bytes;

use super::packet::{
    Ack, Auth, Connack, Connect, Disconnect, Packet, PacketType, Publish, Suback, Subscribe,
    Unsuback, Unsubscribe,
};
use super::wire::{self, Reader, Source, VarInt};
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
    /// Most Topic Filters in one SUBSCRIBE or UNSUBSCRIBE. A filter of one byte takes some fifteen times its bytes when it
    /// is decoded.
    pub max_filters: u32,
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
            max_filters: u32::MAX,
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
    #[inline]
    pub fn frame(&self, buffer: &[u8]) -> Result<Option<Frame>, DecodeError> {
        let Some((&first, rest)) = buffer.split_first() else {
            return Ok(None);
        };
        let packet_type = self.packet_type(first)?;
        let Some(length) = VarInt::read(rest)? else {
            return Ok(None);
        };
        // [MQTT-1.5.5-1] is 5.0's; CONNECT checks it when it knows its version.
        if !length.is_shortest()
            && packet_type != PacketType::Connect
            && self.version.wants_shortest_lengths()
        {
            return Err(DecodeError::InvalidLength);
        }
        // At most 4 and 268,435,455: neither sum can overflow.
        let header_bytes = length.length.saturating_add(1);
        let total_bytes = length.value.saturating_add(header_bytes);
        if total_bytes > self.max_packet_bytes {
            return Err(DecodeError::PacketTooLarge {
                size: total_bytes,
                limit: self.max_packet_bytes,
            });
        }
        if buffer.len() < total_bytes as usize {
            return Ok(None);
        }
        Ok(Some(Frame {
            packet_type,
            flags: first & 0x0f,
            header_bytes,
            total_bytes,
        }))
    }

    /// Decodes one whole packet. `packet` begins with the bytes of a [`Frame`]; strings and payloads share it.
    ///
    /// A CONNECT may be of any version; the caller then continues with the version found in it.
    ///
    /// # Errors
    /// [`DecodeError`]: the packet is malformed.
    pub fn decode(&self, frame: Frame, packet: &Bytes) -> Result<Packet, DecodeError> {
        let body = frame.body(packet)?;
        let mut reader = Reader::new(body, Source::Shared(packet));
        let r = &mut reader;
        let decoded = match frame.packet_type {
            PacketType::Connect => Packet::Connect(apart(|| Connect::decode(self, frame, r))?),
            PacketType::Connack => Packet::Connack(apart(|| Connack::decode(self, r))?),
            PacketType::Publish => {
                Packet::Publish(apart(|| Publish::decode(self, frame, r, packet))?)
            }
            PacketType::Puback => Packet::Puback(Ack::decode(self, PacketType::Puback, r)?),
            PacketType::Pubrec => Packet::Pubrec(Ack::decode(self, PacketType::Pubrec, r)?),
            PacketType::Pubrel => Packet::Pubrel(Ack::decode(self, PacketType::Pubrel, r)?),
            PacketType::Pubcomp => Packet::Pubcomp(Ack::decode(self, PacketType::Pubcomp, r)?),
            PacketType::Subscribe => Packet::Subscribe(apart(|| Subscribe::decode(self, r))?),
            PacketType::Suback => Packet::Suback(apart(|| Suback::decode(self, r))?),
            PacketType::Unsubscribe => Packet::Unsubscribe(apart(|| Unsubscribe::decode(self, r))?),
            PacketType::Unsuback => Packet::Unsuback(apart(|| Unsuback::decode(self, r))?),
            PacketType::Pingreq => Packet::Pingreq,
            PacketType::Pingresp => Packet::Pingresp,
            PacketType::Disconnect => Packet::Disconnect(apart(|| Disconnect::decode(self, r))?),
            PacketType::Auth => Packet::Auth(apart(|| Auth::decode(self, r))?),
        };
        reader.finish()?;
        Ok(decoded)
    }

    /// The type in the first byte of a packet, whose flags it checks. PUBLISH checks its own.
    #[inline]
    fn packet_type(&self, first: u8) -> Result<PacketType, DecodeError> {
        let packet_type = PacketType::from_u8(first >> 4).ok_or(DecodeError::ReservedPacketType)?;
        if packet_type == PacketType::Publish {
            return Ok(packet_type);
        }
        if packet_type == PacketType::Auth && !self.version.has_auth() {
            return Err(DecodeError::ReservedPacketType);
        }
        let flags = first & 0x0f;
        let dup_allowed = packet_type.flags() != 0 && self.version.has_dup_in_requests();
        let significant = if dup_allowed { flags & !0b1000 } else { flags };
        // [MQTT-2.1.3-1]
        if significant == packet_type.flags() {
            Ok(packet_type)
        } else {
            Err(DecodeError::InvalidFlags)
        }
    }
}

/// Decodes in a stack frame of its own: the thread of a connection pays for the packets that come, not for the largest one
/// that could.
#[inline(never)]
fn apart<T>(decode: impl FnOnce() -> Result<T, DecodeError>) -> Result<Box<T>, DecodeError> {
    decode().map(Box::new)
}

impl Frame {
    /// The Remaining Length takes no more bytes than its value needs.
    pub(crate) fn has_shortest_length(self) -> bool {
        let length = self.total_bytes.saturating_sub(self.header_bytes);
        wire::varint_size(length).saturating_add(1) == self.header_bytes as usize
    }

    /// The bytes after the fixed header, of `packet` that begins with this frame.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if `packet` is shorter than the frame.
    pub(crate) fn body(self, packet: &[u8]) -> Result<&[u8], DecodeError> {
        packet
            .get(self.header_bytes as usize..self.total_bytes as usize)
            .ok_or(DecodeError::Truncated)
    }
}

/// Appends `packet` as bytes to `out`, which is left as it was on an error.
///
/// A CONNECT is written in the version that it holds; `version` is for all others.
///
/// # Errors
/// [`EncodeError`]: the packet cannot be expressed in `version`, or the receiver would have to refuse it.
pub fn encode(
    packet: &Packet,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match packet {
        Packet::Connect(connect) => connect.encode(out),
        Packet::Connack(connack) => connack.encode(version, out),
        Packet::Publish(publish) => publish.encode(version, out),
        Packet::Puback(ack) => ack.encode(PacketType::Puback, version, out),
        Packet::Pubrec(ack) => ack.encode(PacketType::Pubrec, version, out),
        Packet::Pubrel(ack) => ack.encode(PacketType::Pubrel, version, out),
        Packet::Pubcomp(ack) => ack.encode(PacketType::Pubcomp, version, out),
        Packet::Subscribe(subscribe) => subscribe.encode(version, out),
        Packet::Suback(suback) => suback.encode(version, out),
        Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
        Packet::Unsuback(unsuback) => unsuback.encode(version, out),
        Packet::Pingreq | Packet::Pingresp => {
            out.extend_from_slice(&[packet.packet_type().first_byte(), 0]);
            Ok(())
        }
        Packet::Disconnect(disconnect) => disconnect.encode(version, out),
        Packet::Auth(auth) => auth.encode(version, out),
    }
}

#[cfg(test)]
mod tests;
