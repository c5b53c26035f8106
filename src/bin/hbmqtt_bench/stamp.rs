//! What a benchmark's payload begins with: its number, its stream, and a check of both. The load generator in tests/bench
//! uses this file too.

/// The first bytes of every payload: number (8), stream (4), check (4).
pub(crate) const STAMP_BYTES: usize = 16;

/// What a payload's stamp says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) number: u64,
    pub(crate) stream: u32,
}

impl Stamp {
    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let check = u128::from(check(self.number, self.stream));
        let stamp = u128::from(self.number) | u128::from(self.stream) << 64 | check << 96;
        stamp.to_le_bytes()
    }

    /// Reads the stamp of a payload whose rest is to be `tail`; `None` if nobody sent this payload.
    #[inline]
    pub(crate) fn read(payload: &[u8], tail: &[u8]) -> Option<Self> {
        let (stamp, rest) = payload.split_first_chunk::<STAMP_BYTES>()?;
        let value = u128::from_le_bytes(*stamp);
        let (number, stream) = (low_half(value), low_quarter(value >> 64));
        (low_quarter(value >> 96) == check(number, stream) && rest == tail)
            .then_some(Self { number, stream })
    }
}

/// The part of a payload behind the stamp, the same in all messages of a run.
pub(crate) fn tail(payload_bytes: usize) -> Vec<u8> {
    (STAMP_BYTES..payload_bytes)
        .map(|at| at.wrapping_mul(31).wrapping_add(7).to_le_bytes()[0])
        .collect()
}

#[inline]
fn check(number: u64, stream: u32) -> u32 {
    let mixed = (number ^ u64::from(stream).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    low_quarter(u128::from(mixed >> 32))
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the rest is looked at elsewhere; not every crate has this lint"
)]
fn low_half(value: u128) -> u64 {
    value as u64
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the rest is looked at elsewhere; not every crate has this lint"
)]
fn low_quarter(value: u128) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_no_other_bytes_are_one() {
        let tail = tail(40);
        let stamp = Stamp {
            number: u64::MAX - 5,
            stream: 70_000,
        };
        let mut payload = stamp.to_bytes().to_vec();
        payload.extend_from_slice(&tail);
        assert_eq!(payload.len(), 40);
        assert_eq!(Stamp::read(&payload, &tail), Some(stamp));
        for at in 0..payload.len() {
            let mut other = payload.clone();
            other[at] ^= 1;
            assert_eq!(Stamp::read(&other, &tail), None, "{at}");
        }
        assert_eq!(Stamp::read(&payload[..15], &[]), None);
    }
}
