//! Changes to packets: most keep the frame whole, so that the body is reached.

use crate::random::Random;

/// The longest input, in bytes.
const LONGEST: usize = 4096;

/// Bytes that mean something somewhere in a packet.
const TELLING: [u8; 16] = [
    0, 1, 2, 3, 4, 5, 0x10, 0x1f, 0x26, 0x7f, 0x80, 0xff, b'+', b'#', b'/', b'$',
];

/// Property sections that are often of interest, without their length.
const PROPERTIES: [&[u8]; 12] = [
    b"\x01\x01",
    b"\x02\x00\x00\x00\x05",
    b"\x03\x00\x01t",
    b"\x08\x00\x01r",
    b"\x09\x00\x02\x00\xff",
    b"\x0b\x81\x01",
    b"\x11\xff\xff\xff\xff",
    b"\x15\x00\x01M",
    b"\x16\x00\x01d",
    b"\x1f\x00\x03why",
    b"\x23\x00\x01",
    b"\x26\x00\x01a\x00\x01b",
];

/// A changed copy of one of the packets.
pub(crate) fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let packet = random.choose(corpus).clone();
    change_one(random, corpus, &packet)
}

/// A changed copy of this packet.
pub(crate) fn change_one(random: &mut Random, corpus: &[Vec<u8>], packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    for _ in 0..=random.below(4) {
        change(random, corpus, &mut bytes);
    }
    bytes.truncate(LONGEST);
    if !random.once_in(8) {
        repair_length(&mut bytes);
    }
    bytes
}

fn change(random: &mut Random, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    match random.below(10) {
        0 => set(bytes, at, random.byte()),
        1 => set(bytes, at, *random.choose(&TELLING)),
        2 => {
            let bit = 1 << random.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bit;
            }
        }
        3 => bytes.insert(at, *random.choose(&TELLING)),
        4 if !bytes.is_empty() => {
            let end = (at + 1 + random.below(4)).min(bytes.len());
            bytes.drain(at..end);
        }
        5 => bytes.truncate(at),
        6 => {
            let end = (at + random.below(16)).min(bytes.len());
            bytes.extend_from_within(at..end);
        }
        7 => {
            let property = *random.choose(&PROPERTIES);
            bytes.splice(at..at, property.iter().copied());
        }
        8 => {
            // The end of another packet.
            let other = random.choose(corpus);
            let from = random.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            // A length field that is a little wrong, or very.
            if let Some(byte) = bytes.get_mut(at) {
                *byte = match random.below(3) {
                    0 => byte.wrapping_add(1),
                    1 => byte.wrapping_sub(1),
                    _ => 0xff,
                };
            }
        }
    }
}

fn set(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

/// Writes the Remaining Length that fits the bytes.
fn repair_length(bytes: &mut Vec<u8>) {
    if bytes.len() < 2 {
        return;
    }
    let old = bytes[1..]
        .iter()
        .take(3)
        .take_while(|&byte| byte & 0x80 != 0)
        .count()
        + 1;
    let body = (1 + old).min(bytes.len());
    let mut length = bytes.len() - body;
    let mut field = Vec::new();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            field.push(low);
            break;
        }
        field.push(low | 0x80);
    }
    bytes.splice(1..body, field);
}
