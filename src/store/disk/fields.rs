//! Numbers, texts and bytes one after the other: what values on disk are made of.
//!
//! ```text
//!   value = format (1) │ fields … │ CRC-32 (4, big-endian) of table name, key, format and fields
//! ```
//!
//! Numbers take seven bits a byte, low ones first. Texts and bytes have their length before them.

use bytes::Bytes;
use bytestring::ByteString;

/// The format of the values that are written.
const FORMAT: u8 = 1;
const CRC_BYTES: usize = 4;

/// Puts a value together.
#[derive(Debug)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    #[cfg(test)]
    pub(super) fn new() -> Self {
        Self::in_place_of(Vec::new())
    }

    /// The same in memory that was used before.
    pub(super) fn in_place_of(mut used: Vec<u8>) -> Self {
        used.clear();
        used.push(FORMAT);
        Self(used)
    }

    /// The value for `key` of `table`.
    pub(super) fn seal(mut self, table: &str, key: &[u8]) -> Vec<u8> {
        let crc = crc32(&[table.as_bytes(), key, &self.0]);
        self.0.extend(crc.to_be_bytes());
        self.0
    }

    pub(super) fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    pub(super) fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        let mut rest = number.into();
        while rest >= 0x80 {
            self.0.push((rest & 0x7F) as u8 | 0x80);
            rest >>= 7;
        }
        self.byte((rest & 0x7F) as u8)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }
}

/// Takes a value apart. Each step gives `None` when the value ends before.
#[derive(Debug)]
pub(super) struct Opened {
    fields: Bytes,
    at: usize,
}

impl Opened {
    /// Checks the value of `key` in `table`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check<'a>(
        table: &str,
        key: &[u8],
        value: &'a [u8],
    ) -> Result<&'a [u8], &'static str> {
        let Some((sealed, crc)) = value.split_last_chunk::<CRC_BYTES>() else {
            return Err("too short");
        };
        if crc32(&[table.as_bytes(), key, sealed]) != u32::from_be_bytes(*crc) {
            return Err("the checksum does not match");
        }
        match sealed.split_first() {
            Some((&FORMAT, fields)) => Ok(fields),
            _ => Err("a format that is not known"),
        }
    }

    /// The fields of a value that was checked. Texts and bytes share one copy of it.
    pub(super) fn new(fields: &[u8]) -> Self {
        Self {
            fields: Bytes::copy_from_slice(fields),
            at: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.fields.len()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.fields.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return (bits << shift >> shift == bits).then_some(number);
            }
        }
        None
    }

    pub(super) fn number_as<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        let length = self.number_as::<usize>()?;
        let end = self.at.checked_add(length)?;
        let fits = end <= self.fields.len();
        let start = std::mem::replace(&mut self.at, end);
        fits.then(|| self.fields.slice(start..end))
    }

    pub(super) fn text(&mut self) -> Option<ByteString> {
        ByteString::try_from(self.bytes()?).ok()
    }
}

/// The CRC-32 of Ethernet, gzip and PNG over all parts, one after the other.
pub(super) fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for part in parts {
        let (eights, rest) = part.as_chunks::<8>();
        for eight in eights {
            let low = crc ^ u32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]]);
            let [a, b, c, d] = low.to_le_bytes();
            let [e, f, g, h] = [eight[4], eight[5], eight[6], eight[7]];
            let bytes = [h, g, f, e, d, c, b, a];
            let terms = bytes.iter().zip(&CRC_TABLES);
            crc = terms.fold(0, |crc, (byte, table)| crc ^ table[usize::from(*byte)]);
        }
        for byte in rest {
            let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
            crc = crc >> 8 ^ CRC_TABLES[0][usize::from(low)];
        }
    }
    !crc
}

/// What a byte adds to the sum, by the number of bytes after it in a group of eight.
static CRC_TABLES: [[u32; 256]; 8] = crc_tables();

const fn crc_tables() -> [[u32; 256]; 8] {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut after = 1;
    while after < 8 {
        byte = 0;
        while byte < 256 {
            let before: u32 = tables[after - 1][byte];
            tables[after][byte] = before >> 8 ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        after += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_gzip() {
        assert_eq!(crc32(&[b"123456789"]), 0xCBF4_3926);
        assert_eq!(crc32(&[b"1", b"2345678", b"9"]), 0xCBF4_3926);
        assert_eq!(crc32(&[]), 0);
        let long: Vec<u8> = (0..=255).collect();
        assert_eq!(crc32(&[&long]), 0x2905_8C73);
        assert_eq!(crc32(&[&long[..13], &long[13..]]), 0x2905_8C73);
    }

    #[test]
    fn numbers_of_all_sizes_come_back() {
        for number in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut fields = Fields::new();
            fields.number(number);
            let mut opened = Opened::new(&fields.0[1..]);
            assert_eq!(opened.number(), Some(number));
            assert!(opened.is_empty());
        }
        assert_eq!(Opened::new(&[0xFF; 11]).number(), None);
        let mut above = [0xFF; 10];
        above[9] = 2;
        assert_eq!(Opened::new(&above).number(), None);
    }

    #[test]
    fn a_value_is_bound_to_its_table_and_key() {
        let mut fields = Fields::new();
        fields.bytes(b"abc");
        let value = fields.seal("t", b"k");
        assert!(Opened::check("t", b"k", &value).is_ok());
        assert!(Opened::check("u", b"k", &value).is_err());
        assert!(Opened::check("t", b"l", &value).is_err());
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 0x10;
            assert!(Opened::check("t", b"k", &damaged).is_err(), "{at}");
            assert!(Opened::check("t", b"k", &value[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn a_length_beyond_the_value_takes_nothing() {
        assert_eq!(Opened::new(&[0x80, 0x80, 0x40, 1, 2]).bytes(), None);
        assert_eq!(Opened::new(&[2, 0xC3, 0x28]).text(), None);
    }
}
