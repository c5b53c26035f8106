//! Every line of `tests/vectors`.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::describe::describe;
use crate::proto::packet::publish::PublishView;
use crate::proto::{DecodeError, Decoder, Packet, PacketType, ProtocolVersion, codec};

/// One line, for one of its versions.
pub(super) struct Vector {
    place: String,
    pub(super) version: ProtocolVersion,
    pub(super) bytes: Vec<u8>,
    sign: char,
    expected: String,
}

/// All lines of all files, once per version.
pub(super) fn vectors() -> Vec<Vector> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut vectors = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            for (number, line) in (1..).zip(text.lines()) {
                if !line.is_empty() && !line.starts_with('#') {
                    vectors.extend(parse(&format!("{name}:{number}"), line));
                }
            }
        }
    }
    vectors
}

fn parse(place: &str, line: &str) -> Vec<Vector> {
    let columns: Vec<&str> = line.split(" | ").collect();
    let [versions, bytes, expectation, statement] = columns[..] else {
        panic!("{place}: not four columns: {line}");
    };
    assert!(!statement.trim().is_empty(), "{place}: no statement");
    let bytes: Vec<u8> = bytes
        .split(' ')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|e| panic!("{place}: {byte}: {e}")))
        .collect();
    let (sign, expected) = expectation
        .split_once(' ')
        .unwrap_or_else(|| panic!("{place}: no expectation"));
    versions
        .split(',')
        .map(|version| Vector {
            place: format!("{place} under {version}"),
            version: match version {
                "3.1" => ProtocolVersion::V31,
                "3.1.1" => ProtocolVersion::V311,
                "5" => ProtocolVersion::V5,
                _ => panic!("{place}: version {version}"),
            },
            bytes: bytes.clone(),
            sign: sign.chars().next().unwrap(),
            expected: expected.to_owned(),
        })
        .collect()
}

/// Decodes what the bytes begin with. `None`: no whole packet.
pub(super) fn decode(
    version: ProtocolVersion,
    bytes: &[u8],
) -> Option<Result<(Packet, usize), DecodeError>> {
    let decoder = Decoder::new(version);
    let bytes = Bytes::copy_from_slice(bytes);
    let frame = match decoder.frame(&bytes) {
        Ok(frame) => frame?,
        Err(error) => return Some(Err(error)),
    };
    let decoded = decoder.decode(frame, &bytes);
    if frame.packet_type == PacketType::Publish {
        // The view that borrows must say the same.
        let view = PublishView::decode(&decoder, frame, &bytes)
            .map(|view| Packet::Publish(Box::new(view.to_publish(&bytes))));
        assert_eq!(view, decoded);
    }
    Some(decoded.map(|packet| (packet, frame.total_bytes as usize)))
}

/// The bytes after the fixed header.
fn body(bytes: &[u8]) -> &[u8] {
    let length = bytes[1..]
        .iter()
        .take_while(|&byte| byte & 0x80 != 0)
        .count();
    bytes.get(length + 2..).unwrap_or_default()
}

/// A packet of this first byte and body.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::proto::wire::put_packet(&mut out, first, |out| {
        out.extend_from_slice(body);
        Ok(())
    })
    .unwrap();
    out
}

#[test]
fn every_vector_decodes_as_it_says() {
    let vectors = vectors();
    assert!(vectors.len() > 2000, "only {} vectors", vectors.len());
    let mut wrong = Vec::new();
    for vector in &vectors {
        let decoded = decode(vector.version, &vector.bytes)
            .unwrap_or_else(|| panic!("{}: not a whole packet", vector.place));
        let found = match &decoded {
            Ok((packet, size)) => {
                assert_eq!(*size, vector.bytes.len(), "{}", vector.place);
                describe(packet)
            }
            Err(error) => format!("{error:?} 0x{:02x}", error.reason().as_u8()),
        };
        if decoded.is_err() != (vector.sign == '!') || found != vector.expected {
            wrong.push(format!(
                "{}: {} instead of {}",
                vector.place, found, vector.expected
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} vectors:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_vector_encodes_as_it_says() {
    for vector in vectors() {
        let Some(Ok((packet, _))) = decode(vector.version, &vector.bytes) else {
            continue;
        };
        let mut out = vec![0xAA];
        codec::encode(&packet, vector.version, &mut out).unwrap();
        let encoded = &out[1..];
        assert_eq!(
            vector.sign == '=',
            encoded == vector.bytes,
            "{}: {encoded:x?}",
            vector.place
        );
        let (again, _) = decode(vector.version, encoded).unwrap().unwrap();
        assert_eq!(again, packet, "{}", vector.place);
    }
}

#[test]
fn every_packet_type_has_good_and_malformed_vectors_in_each_version() {
    let vectors = vectors();
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for packet_type in PacketType::ALL {
            if packet_type == PacketType::Auth && !version.has_auth() {
                continue;
            }
            let count = |malformed: bool| {
                vectors
                    .iter()
                    .filter(|v| v.version == version && v.bytes[0] >> 4 == packet_type.as_u8())
                    .filter(|v| (v.sign == '!') == malformed)
                    .count()
            };
            assert!(
                count(false) > 0 && count(true) > 0,
                "{packet_type} in {version}"
            );
        }
    }
}

#[test]
fn bytes_after_the_frame_are_never_read() {
    for vector in vectors() {
        let alone = decode(vector.version, &vector.bytes).unwrap();
        for byte in [0x00, 0x30, 0xff] {
            let mut longer = vector.bytes.clone();
            longer.extend([byte; 300]);
            assert_eq!(
                decode(vector.version, &longer),
                Some(alone.clone()),
                "{}",
                vector.place
            );
        }
    }
}

#[test]
fn a_packet_that_has_not_wholly_arrived_is_waited_for_or_refused_at_its_header() {
    for vector in vectors() {
        for length in 0..vector.bytes.len() {
            match decode(vector.version, &vector.bytes[..length]) {
                None => {}
                Some(Err(error)) => {
                    let header = &vector.bytes[..length.min(5)];
                    let place = format!("{} at {length}", vector.place);
                    assert_eq!(decode(vector.version, header), Some(Err(error)), "{place}");
                    assert_eq!(vector.sign, '!', "{place}");
                }
                Some(Ok(_)) => panic!("{} at {length}: half a packet", vector.place),
            }
        }
    }
}

#[test]
fn a_cut_or_lengthened_body_is_refused_or_another_packet_that_encodes() {
    for vector in vectors() {
        let first = vector.bytes[0];
        let whole = body(&vector.bytes);
        let mut longer = whole.to_vec();
        longer.push(0);
        let cuts = (0..whole.len()).map(|length| &whole[..length]);
        for body in cuts.chain([longer.as_slice()]) {
            for version in ProtocolVersion::ALL {
                if let Some(Ok((decoded, _))) = decode(version, &packet(first, body)) {
                    let mut out = Vec::new();
                    codec::encode(&decoded, version, &mut out).unwrap();
                    assert_eq!(decode(version, &out).unwrap().unwrap().0, decoded);
                }
            }
        }
    }
}
