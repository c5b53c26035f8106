//! Encoded packets before the socket takes them, and places in them. No socket, no lock.

use std::io::{self, IoSlice};

use bytes::Bytes;

/// Encoded packets on their way to an [`Outbox`](super::Outbox): small parts copied together, large ones shared.
///
/// It is meant to be kept and filled again: [`Outbox::send`](super::Outbox::send) leaves it empty with its capacity.
#[derive(Debug, Default)]
pub struct OutBuf {
    bytes: Vec<u8>,
    /// Each at its position in `bytes`, in ascending order.
    pub(super) shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
}

impl OutBuf {
    /// An empty buffer without memory on the heap.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            shared: Vec::new(),
            shared_bytes: 0,
        }
    }

    /// Where to encode to. Only append: what stands in it already has its place among the shared parts.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends `part`: shared without a copy from [`SHARE_FROM_BYTES`] on, copied when it is smaller.
    pub fn push_shared(&mut self, part: Bytes) {
        if part.len() < SHARE_FROM_BYTES {
            self.bytes.extend_from_slice(&part);
        } else {
            self.shared_bytes += part.len();
            self.shared.push((self.bytes.len(), part));
        }
    }

    /// The number of bytes to send.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// Whether some of it is shared and not copied.
    pub(super) fn is_shared(&self) -> bool {
        !self.shared.is_empty()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_empty()
    }

    /// The bytes that fit without another allocation.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// A copy of all bytes in their order, for logs and tests.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(self.len());
        let mut cursor = Cursor::default();
        while let Some(part) = self.part(cursor) {
            copy.extend_from_slice(part);
            let length = part.len();
            self.advance_in_part(&mut cursor, length);
        }
        copy
    }

    /// All bytes in order, as one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut all = Vec::with_capacity(self.len());
        let mut cursor = Cursor::default();
        while let Some(part) = self.part(cursor) {
            all.extend_from_slice(part);
            self.advance_in_part(&mut cursor, part.len());
        }
        Bytes::from(all)
    }

    /// Forgets everything but the capacity.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.shared.clear();
        self.shared_bytes = 0;
    }

    /// Appends all of `other`, and empties it.
    pub fn append(&mut self, other: &mut Self) {
        self.append_rest(other, Cursor::default());
    }

    /// Appends what `cursor` has not passed of `other`, and empties `other`.
    pub(super) fn append_rest(&mut self, other: &mut Self, cursor: Cursor) {
        let base = self.bytes.len();
        let offset = base.wrapping_sub(cursor.bytes_at);
        for (index, (position, mut part)) in
            other.shared.drain(..).enumerate().skip(cursor.shared_index)
        {
            if index == cursor.shared_index {
                part = part.slice(cursor.shared_at..);
            }
            self.shared_bytes += part.len();
            self.shared.push((position.wrapping_add(offset), part));
        }
        self.bytes
            .extend_from_slice(other.bytes.get(cursor.bytes_at..).unwrap_or_default());
        other.clear();
    }

    /// The number of bytes in front of `cursor`.
    pub(super) fn passed(&self, cursor: Cursor) -> usize {
        let whole = self.shared.iter().take(cursor.shared_index);
        cursor.bytes_at + whole.map(|(_, part)| part.len()).sum::<usize>() + cursor.shared_at
    }

    /// The next contiguous part behind `cursor`; `None` at the end.
    pub(super) fn part(&self, cursor: Cursor) -> Option<&[u8]> {
        let Some((position, part)) = self.shared.get(cursor.shared_index) else {
            return self
                .bytes
                .get(cursor.bytes_at..)
                .filter(|rest| !rest.is_empty());
        };
        if cursor.bytes_at < *position {
            self.bytes.get(cursor.bytes_at..*position)
        } else {
            part.get(cursor.shared_at..)
        }
    }

    /// Moves `cursor` on by at most `count` bytes, not beyond the part that it is in. Returns by how many.
    pub(super) fn advance_in_part(&self, cursor: &mut Cursor, count: usize) -> usize {
        let Some((position, part)) = self.shared.get(cursor.shared_index) else {
            let step = count.min(self.bytes.len() - cursor.bytes_at);
            cursor.bytes_at += step;
            return step;
        };
        if cursor.bytes_at < *position {
            let step = count.min(position - cursor.bytes_at);
            cursor.bytes_at += step;
            return step;
        }
        let step = count.min(part.len() - cursor.shared_at);
        cursor.shared_at += step;
        if cursor.shared_at == part.len() {
            cursor.shared_index += 1;
            cursor.shared_at = 0;
        }
        step
    }

    pub(super) fn advance(&self, cursor: &mut Cursor, mut count: usize) {
        while count > 0 {
            let step = self.advance_in_part(cursor, count);
            if step == 0 {
                break;
            }
            count -= step;
        }
    }

    /// Calls `write` once with what is behind `cursor`, `limit` bytes at most, and moves the cursor by what it took.
    pub(super) fn write_some<F>(
        &self,
        cursor: &mut Cursor,
        limit: usize,
        write: F,
    ) -> io::Result<usize>
    where
        F: FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        let mut left = limit;
        let mut ahead = *cursor;
        for slice in &mut slices {
            let Some(part) = self.part(ahead) else { break };
            let part = part.get(..left).unwrap_or(part);
            if part.is_empty() {
                break;
            }
            *slice = IoSlice::new(part);
            used += 1;
            left -= part.len();
            self.advance_in_part(&mut ahead, part.len());
        }
        let written = write(slices.get(..used).unwrap_or_default())?;
        self.advance(cursor, written);
        Ok(written)
    }
}

/// A place in an [`OutBuf`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    bytes_at: usize,
    shared_index: usize,
    shared_at: usize,
}

/// From this size on a shared part is not copied.
pub const SHARE_FROM_BYTES: usize = 2048;

const MAX_SLICES: usize = 32;

#[cfg(test)]
mod tests {
    use super::super::tests::{Records, buf, expected, length};
    use super::*;

    #[test]
    fn the_rest_of_a_buffer_is_what_the_cursor_has_not_passed() {
        let mut records = Records(0);
        let mut whole = OutBuf::new();
        for number in 0..8 {
            records.next(&mut whole, length(number));
        }
        let expected = expected(8, length);
        assert_eq!(whole.len(), expected.len());
        for passed in (0..=expected.len()).step_by(97) {
            let mut source = OutBuf {
                bytes: whole.bytes.clone(),
                shared: whole.shared.clone(),
                shared_bytes: whole.shared_bytes,
            };
            let mut cursor = Cursor::default();
            source.advance(&mut cursor, passed);
            assert_eq!(source.passed(cursor), passed);
            let mut rest = buf(b"before");
            rest.push_shared(Bytes::from(vec![9; SHARE_FROM_BYTES]));
            rest.append_rest(&mut source, cursor);
            assert!(source.is_empty());
            let mut collected = Vec::new();
            let mut cursor = Cursor::default();
            while let Some(part) = rest.part(cursor) {
                collected.extend_from_slice(part);
                rest.advance_in_part(&mut cursor, part.len());
            }
            assert_eq!(collected.len(), rest.len());
            assert!(
                collected.ends_with(&expected[passed..])
                    && collected.len() == 6 + SHARE_FROM_BYTES + expected.len() - passed
            );
        }
    }
}
