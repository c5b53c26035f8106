//! The packet codec: any bytes, in every version.
//!
//! What must hold: no panic; no byte after the frame changes the answer; the borrowed PUBLISH says what the owned one
//! says; limits only add their own errors; what decodes encodes, and decodes to the same again; the size of a PUBLISH is
//! known beforehand.

use std::collections::HashSet;
use std::panic;
use std::time::Instant;

use bytes::Bytes;
use hbmqtt::proto::codec::{self, Decoder};
use hbmqtt::proto::packet::publish::{PublishView, publish_size};
use hbmqtt::proto::{DecodeError, Packet, ProtocolVersion};

use crate::random::Random;
use crate::{Settings, mutate, seeds};

/// Inputs kept because they led to something new, beside the vectors.
const MOST_KEPT: usize = 50_000;

/// Runs until the time is over or something is found, which it tells.
#[expect(clippy::disallowed_methods, reason = "the loop ends by the clock")]
pub(crate) fn run(settings: Settings) -> bool {
    let mut corpus = seeds::load();
    let mut outcomes = HashSet::new();
    let mut random = Random::new(settings.seed);
    let start = Instant::now();
    let mut executions: u64 = 0;
    println!("decoder: {} packets, seed {}", corpus.len(), settings.seed);
    while !executions.is_multiple_of(1024) || start.elapsed() < settings.time {
        let input = mutate::mutate(&mut random, &corpus);
        for version in ProtocolVersion::ALL {
            executions += 1;
            match panic::catch_unwind(|| check(version, &input)) {
                Ok(outcome) => {
                    if outcomes.insert(outcome) && corpus.len() < MOST_KEPT {
                        corpus.push(input.clone());
                    }
                }
                Err(_) => {
                    println!("FOUND under {version} after {executions} executions:");
                    println!("{}", hex(&input));
                    return true;
                }
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "decoder: {executions} executions in {seconds:.0} s ({:.0}/s), {} kinds of outcome, {} inputs kept, nothing found",
        executions as f64 / seconds,
        outcomes.len(),
        corpus.len(),
    );
    false
}

/// What happened, coarsely: an input that leads to a new one is worth keeping.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Incomplete(ProtocolVersion),
    /// The first byte and the error.
    Refused(ProtocolVersion, u8, String),
    /// The first byte, the size class, and which parts of the packet are there.
    Decoded(ProtocolVersion, u8, u32, String),
}

/// Decodes `input` and checks everything that must hold. Panics if it does not.
fn check(version: ProtocolVersion, input: &[u8]) -> Outcome {
    let decoder = Decoder::new(version);
    let refused = |error: DecodeError| {
        // The variant alone, or each identifier and size would be something new.
        let text = format!("{error:?}");
        let variant = text.split(' ').next().unwrap_or_default();
        Outcome::Refused(version, input[0], variant.to_owned())
    };
    let frame = match decoder.frame(input) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Outcome::Incomplete(version),
        Err(error) => return refused(error),
    };
    let size = frame.total_bytes as usize;
    assert!(size <= input.len() && frame.header_bytes <= frame.total_bytes);
    assert_eq!(decoder.frame(&input[..size]), Ok(Some(frame)));
    assert!(!matches!(decoder.frame(&input[..size - 1]), Ok(Some(_))));

    let whole = Bytes::copy_from_slice(&input[..size]);
    let decoded = decoder.decode(frame, &whole);
    check_what_follows(&decoder, input, &decoded);
    check_view(&decoder, &whole, &decoded);
    check_limits(&decoder, &whole, &decoded);
    match decoded {
        Ok(packet) => {
            check_encoding(&decoder, &packet);
            Outcome::Decoded(version, input[0], size.ilog2(), shape(&packet))
        }
        Err(error) => refused(error),
    }
}

/// The bytes after the frame must not matter.
fn check_what_follows(decoder: &Decoder, input: &[u8], decoded: &Result<Packet, DecodeError>) {
    let mut longer = input.to_vec();
    longer.extend_from_slice(&[0xff; 64]);
    let frame = decoder
        .frame(&longer)
        .expect("the same frame")
        .expect("the same frame");
    assert_eq!(decoder.decode(frame, &Bytes::from(longer)), *decoded);
}

/// The borrowed PUBLISH must agree with the owned one.
fn check_view(decoder: &Decoder, whole: &Bytes, decoded: &Result<Packet, DecodeError>) {
    let frame = decoder.frame(whole).expect("a frame").expect("a frame");
    if frame.packet_type == hbmqtt::proto::PacketType::Publish {
        let view = PublishView::decode(decoder, frame, whole)
            .map(|view| Packet::Publish(Box::new(view.to_publish(whole))));
        assert_eq!(view, *decoded);
    }
}

/// Limits on properties must change nothing but add their error.
fn check_limits(decoder: &Decoder, whole: &Bytes, decoded: &Result<Packet, DecodeError>) {
    let limited = Decoder {
        max_property_bytes: 20,
        max_properties: 2,
        max_filters: 2,
        ..decoder.clone()
    };
    let frame = limited.frame(whole).expect("a frame").expect("a frame");
    match limited.decode(frame, whole) {
        Err(DecodeError::TooManyProperties | DecodeError::TooManyFilters) => {}
        other => assert_eq!(other, *decoded),
    }
}

/// What was decoded must encode, and mean the same again.
fn check_encoding(decoder: &Decoder, packet: &Packet) {
    let mut out = Vec::new();
    codec::encode(packet, decoder.version, &mut out).expect("what decodes can be encoded");
    if let Packet::Publish(publish) = packet {
        let size = publish_size(&publish.head(), decoder.version, publish.payload.len());
        assert_eq!(size, out.len());
    }
    let out = Bytes::from(out);
    let frame = decoder
        .frame(&out)
        .expect("our own frame")
        .expect("our own frame");
    assert_eq!(frame.total_bytes as usize, out.len());
    assert_eq!(decoder.decode(frame, &out).as_ref(), Ok(packet));
}

/// Which fields are there, without their values: the names in the packet's Debug form that are not `None` or empty.
fn shape(packet: &Packet) -> String {
    let text = format!("{packet:?}");
    let mut shape = String::new();
    for field in text.split(", ") {
        if field.ends_with(": None") || field.ends_with(": []") {
            continue;
        }
        if let Some((name, _)) = field.split_once(": ")
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            shape.push_str(name);
            shape.push(' ');
        }
    }
    shape
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}
