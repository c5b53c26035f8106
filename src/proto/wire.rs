//! The data types of the format: integers, the Variable Byte Integer, UTF-8 strings and binary data. No packet here.
//!
//! Reading goes over one whole packet, which the [`Decoder`](super::Decoder) has found, front to back and once:
//!
//! ```text
//!   packet: [ fixed header │ ........ body ........ ]
//!                            ▲ Reader::rest shrinks from the left; every field is a slice of `packet`
//! ```
//!
//! Source: MQTT 5.0 §1.5; MQTT 3.1.1 §1.5.

use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

use super::packet::PacketId;
use super::{DecodeError, EncodeError};

/// The largest value of a Variable Byte Integer.
pub(crate) const MAX_VARINT: u32 = 268_435_455;

/// Reads the fields of one packet, or of its property section, from front to back.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    source: Source<'a>,
}

/// Where owned strings and binary data come from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// They are slices of this buffer, which they keep alive.
    Shared(&'a Bytes),
    /// They are slices of a copy of `section`, made when the first one is asked for.
    Copied {
        /// The bytes that are copied.
        section: &'a [u8],
        /// The copy.
        copy: Option<Bytes>,
    },
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, whose owned fields come from `source`.
    pub(crate) fn new(bytes: &'a [u8], source: Source<'a>) -> Self {
        Self {
            rest: bytes,
            source,
        }
    }

    /// A reader of `bytes` alone: owned fields are slices of one copy of them.
    #[inline]
    pub(crate) fn copying(bytes: &'a [u8]) -> Self {
        Self::new(
            bytes,
            Source::Copied {
                section: bytes,
                copy: None,
            },
        )
    }

    /// Everything has been read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that has not been read yet.
    #[inline]
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that everything has been read.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    /// The next `length` bytes.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A reader of the next `length` bytes, which this reader skips.
    pub(crate) fn section(&mut self, length: usize) -> Result<Self, DecodeError> {
        let bytes = self.take(length)?;
        Ok(match self.source {
            Source::Shared(buffer) => Self::new(bytes, Source::Shared(buffer)),
            Source::Copied { .. } => Self::copying(bytes),
        })
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&value, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    /// A Two Byte Integer.
    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (&value, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(value))
    }

    /// A Four Byte Integer.
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (&value, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(value))
    }

    /// A Variable Byte Integer in its shortest form.
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let varint = VarInt::read(self.rest)?.ok_or(DecodeError::Truncated)?;
        // [MQTT-1.5.5-1]
        if !varint.is_shortest() {
            return Err(DecodeError::InvalidLength);
        }
        self.take(varint.length as usize)?;
        Ok(varint.value)
    }

    /// A Packet Identifier.
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        // [MQTT-2.2.1-3]
        PacketId::new(self.u16()?).ok_or(DecodeError::ZeroPacketId)
    }

    /// Binary data, borrowed: a two byte length and that many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 string, borrowed.
    #[inline]
    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        // [MQTT-1.5.4-1]; surrogates are not UTF-8 for std either.
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8)?;
        check_nul(bytes)?;
        Ok(text)
    }

    /// Binary data that shares the source's buffer.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let bytes = self.binary()?;
        Ok(self.source.share(bytes))
    }

    /// A UTF-8 string that shares the source's buffer.
    pub(crate) fn string(&mut self) -> Result<ByteString, DecodeError> {
        let bytes = self.binary()?;
        check_nul(bytes)?;
        // [MQTT-1.5.4-1]
        ByteString::try_from(self.source.share(bytes)).map_err(|_| DecodeError::InvalidUtf8)
    }

    /// A Topic Name that shares the source's buffer: not empty, without wildcards.
    pub(crate) fn topic_name(&mut self) -> Result<ByteString, DecodeError> {
        let topic = self.string()?;
        if is_topic_name(&topic) {
            Ok(topic)
        } else {
            Err(DecodeError::InvalidTopicName)
        }
    }
}

impl<'a> Source<'a> {
    /// `part`, which must be a part of the source, as a slice of its buffer.
    fn share(&mut self, part: &'a [u8]) -> Bytes {
        match self {
            Self::Shared(buffer) => share(buffer, part),
            Self::Copied { section, copy } => match range_in(section, part) {
                Some(range) => copy
                    .get_or_insert_with(|| Bytes::copy_from_slice(section))
                    .slice(range),
                None => Bytes::copy_from_slice(part),
            },
        }
    }
}

/// `part` as a slice of `buffer`, or a copy of it when it lies elsewhere. An empty part keeps no buffer alive.
pub(crate) fn share(buffer: &Bytes, part: &[u8]) -> Bytes {
    match range_in(buffer, part) {
        Some(range) => buffer.slice(range),
        None => Bytes::copy_from_slice(part),
    }
}

/// Where `part` lies in `whole`. `None`: elsewhere, or nowhere because it is empty.
fn range_in(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    if part.is_empty() {
        return None;
    }
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

/// Refuses U+0000. [MQTT-1.5.4-2]
fn check_nul(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.contains(&0) {
        Err(DecodeError::NulInString)
    } else {
        Ok(())
    }
}

/// `topic` is not empty and has no wildcard. NUL and length are the concern of the string itself.
///
/// Source: MQTT 5.0 §4.7 [MQTT-4.7.3-1], §3.3.2.1 [MQTT-3.3.2-2].
pub(crate) fn is_topic_name(topic: &str) -> bool {
    !topic.is_empty() && !has_wildcard(topic)
}

/// `topic` holds `+` or `#`.
#[inline]
pub(crate) fn has_wildcard(topic: &str) -> bool {
    // Without an early exit, so that the compiler can compare many bytes at once.
    topic
        .bytes()
        .fold(false, |found, byte| found | (byte == b'+') | (byte == b'#'))
}

/// A Variable Byte Integer as it stands in a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VarInt {
    /// Its value.
    pub(crate) value: u32,
    /// The bytes that it takes, 1 to 4.
    pub(crate) length: u32,
}

impl VarInt {
    /// Reads the integer at the start of `bytes`. `None`: it goes on after their end.
    ///
    /// Source: MQTT 5.0 §1.5.5; MQTT 3.1.1 §2.2.3.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut value = 0;
        for (&byte, (length, shift)) in bytes.iter().zip([(1, 0), (2, 7), (3, 14), (4, 21)]) {
            value |= u32::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(Some(Self { value, length }));
            }
        }
        if bytes.len() < 4 {
            Ok(None)
        } else {
            Err(DecodeError::InvalidLength)
        }
    }

    /// No shorter form has this value.
    #[inline]
    pub(crate) fn is_shortest(self) -> bool {
        self.length as usize == varint_size(self.value)
    }
}

/// The bytes that `value` takes as a Variable Byte Integer; `value` is at most [`MAX_VARINT`].
#[inline]
pub(crate) fn varint_size(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// The bytes that `length` would take as a Variable Byte Integer, 4 also when it is too large for one.
pub(crate) fn size_of_varint(length: usize) -> usize {
    varint_size(u32::try_from(length).unwrap_or(u32::MAX))
}

/// `length` if a Variable Byte Integer can hold it.
pub(crate) fn length(length: usize) -> Result<u32, EncodeError> {
    u32::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_VARINT)
        .ok_or(EncodeError::PacketTooLarge)
}

/// `value` as a Variable Byte Integer and how many of the bytes it takes; `value` is at most [`MAX_VARINT`].
pub(crate) fn varint_bytes(value: u32) -> ([u8; 4], usize) {
    let group = |shift: u32, more: bool| {
        let [.., low] = value.wrapping_shr(shift).to_be_bytes();
        (low & 0x7f) | if more { 0x80 } else { 0 }
    };
    let length = varint_size(value);
    let bytes = [
        group(0, length > 1),
        group(7, length > 2),
        group(14, length > 3),
        group(21, false),
    ];
    (bytes, length)
}

/// Appends a Two Byte Integer.
pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a Four Byte Integer.
pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a Variable Byte Integer; `value` is at most [`MAX_VARINT`].
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u32) {
    let (bytes, length) = varint_bytes(value);
    out.extend(bytes.into_iter().take(length));
}

/// Appends binary data with its two byte length.
pub(crate) fn put_binary(out: &mut Vec<u8>, data: &[u8]) -> Result<(), EncodeError> {
    let length = u16::try_from(data.len()).map_err(|_| EncodeError::FieldTooLong)?;
    put_u16(out, length);
    out.extend_from_slice(data);
    Ok(())
}

/// Appends a UTF-8 string with its two byte length.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    // [MQTT-1.5.4-2]
    if text.as_bytes().contains(&0) {
        return Err(EncodeError::Invalid);
    }
    put_binary(out, text.as_bytes())
}

/// Appends a Topic Name with its two byte length.
pub(crate) fn put_topic_name(out: &mut Vec<u8>, topic: &str) -> Result<(), EncodeError> {
    if !is_topic_name(topic) {
        return Err(EncodeError::Invalid);
    }
    put_string(out, topic)
}

/// Appends one packet: its first byte, its Remaining Length, and what `body` appends. `out` is left as it was on an
/// error.
pub(crate) fn put_packet(
    out: &mut Vec<u8>,
    first_byte: u8,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(first_byte);
    let result = put_with_length(out, body);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends what `body` appends, preceded by its length as a Variable Byte Integer.
pub(crate) fn put_with_length(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let at = out.len();
    // Room for the length, which is one byte for most; a longer one moves the body.
    out.push(0);
    let body_start = out.len();
    body(out)?;
    let length = out.len().saturating_sub(body_start);
    let (bytes, count) = varint_bytes(self::length(length)?);
    out.splice(at..body_start, bytes.into_iter().take(count));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_keep_their_value_at_every_size() {
        for value in [
            0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, MAX_VARINT,
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_size(value));
            let read = VarInt::read(&out).unwrap().unwrap();
            assert_eq!((read.value, read.length as usize), (value, out.len()));
            assert!(read.is_shortest());
            assert!(VarInt::read(&out[..out.len() - 1]).unwrap().is_none());
        }
    }

    #[test]
    fn longer_form_of_a_variable_byte_integer_is_seen() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0x81, 0x80, 0x80, 0x00],
        ] {
            assert!(!VarInt::read(bytes).unwrap().unwrap().is_shortest());
            assert_eq!(
                Reader::copying(bytes).varint(),
                Err(DecodeError::InvalidLength)
            );
        }
    }

    #[test]
    fn body_is_moved_when_its_length_takes_more_than_a_byte() {
        for length in [0, 1, 127, 128, 16_383, 16_384] {
            let body = vec![b'x'; length];
            let mut out = vec![1, 2];
            put_packet(&mut out, 0x30, |out| {
                out.extend_from_slice(&body);
                Ok(())
            })
            .unwrap();
            assert_eq!(out[..3], [1, 2, 0x30]);
            let varint = VarInt::read(&out[3..]).unwrap().unwrap();
            assert_eq!(varint.value as usize, length);
            assert_eq!(out[3 + varint.length as usize..], body);
        }
    }

    #[test]
    fn failed_packet_leaves_the_buffer_as_it_was() {
        let mut out = vec![1, 2];
        let long = "x".repeat(65_536);
        let result = put_packet(&mut out, 0x10, |out| put_string(out, &long));
        assert_eq!(result, Err(EncodeError::FieldTooLong));
        let result = put_packet(&mut out, 0x10, |out| put_string(out, "a\0b"));
        assert_eq!(result, Err(EncodeError::Invalid));
        assert_eq!(out, [1, 2]);
        assert_eq!(
            length(MAX_VARINT as usize + 1),
            Err(EncodeError::PacketTooLarge)
        );
    }

    #[test]
    fn parts_of_a_buffer_are_shared_and_others_copied() {
        let buffer = Bytes::from(vec![1, 2, 3, 4]);
        assert_eq!(share(&buffer, &buffer[1..3]).as_ptr(), buffer[1..].as_ptr());
        let elsewhere = [9, 9];
        assert_eq!(share(&buffer, &elsewhere), elsewhere[..]);
        assert!(share(&buffer, &buffer[4..]).is_empty());
    }

    #[test]
    fn strings_of_one_section_share_one_copy() {
        let section = [0, 1, b'a', 0, 1, b'b', 0, 0];
        let mut reader = Reader::copying(&section);
        let (a, b, empty) = (reader.string(), reader.string(), reader.string());
        let (a, b) = (a.unwrap().into_bytes(), b.unwrap().into_bytes());
        assert_eq!(a.as_ptr().addr() + 3, b.as_ptr().addr());
        assert_eq!(empty, Ok(ByteString::new()));
        assert_eq!(reader.string(), Err(DecodeError::Truncated));
    }
}
