//! Properties of decoder and encoder over random packets and random bytes.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::strategies;
use super::vectors::{decode, vectors};
use crate::proto::packet::publish::{PublishHead, encode_head, publish_size};
use crate::proto::packet::{Packet, PacketId, QoS};
use crate::proto::{Decoder, ProtocolVersion, codec};

fn version() -> impl Strategy<Value = ProtocolVersion> {
    select(&ProtocolVersion::ALL[..])
}

fn versioned_packet() -> impl Strategy<Value = (ProtocolVersion, Packet)> {
    version().prop_flat_map(|version| (Just(version), strategies::packet(version)))
}

/// Whatever decodes can be encoded, and means the same again.
fn check_that_decoded_packets_encode(version: ProtocolVersion, bytes: &[u8]) {
    if let Some(Ok((packet, size))) = decode(version, bytes) {
        assert!(size <= bytes.len());
        let mut out = Vec::new();
        codec::encode(&packet, version, &mut out).unwrap();
        assert_eq!(decode(version, &out).unwrap().unwrap(), (packet, out.len()));
    }
}

/// One change to some bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Double(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = prop_oneof![
        any::<u8>(),
        select(&[0, 1, 0x7f, 0x80, 0xff, b'+', b'#'][..])
    ];
    prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Remove),
        any::<Index>().prop_map(Mutation::Cut),
        any::<Index>().prop_map(Mutation::Double),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Set(at, byte) => bytes[at.index(length)] = *byte,
            Self::Flip(at, mask) => bytes[at.index(length)] ^= mask,
            Self::Insert(at, byte) => bytes.insert(at.index(length + 1), *byte),
            Self::Remove(at) => {
                bytes.remove(at.index(length));
            }
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Double(at) => bytes.extend_from_within(at.index(length)..),
        }
    }
}

/// Sets the Remaining Length of a short packet to what is there, so that a mutated body is looked at.
fn repair_length(bytes: &mut [u8]) {
    let length = bytes.len();
    if let [_, byte, ..] = bytes
        && *byte < 0x80
        && length <= 129
    {
        *byte = u8::try_from(length - 2).unwrap();
    }
}

proptest! {
    #[test]
    fn decode_of_encode_is_the_packet((version, packet) in versioned_packet(), before in any::<Vec<u8>>()) {
        let mut out = before.clone();
        codec::encode(&packet, version, &mut out).unwrap();
        prop_assert!(out.starts_with(&before));
        let encoded = &out[before.len()..];
        let (decoded, size) = decode(version, encoded).unwrap().unwrap();
        prop_assert_eq!(size, encoded.len());
        prop_assert_eq!(decoded, packet);
    }

    #[test]
    fn size_of_a_publish_is_known_before_it_is_encoded(
        (version, publish) in version().prop_flat_map(|version| (Just(version), strategies::publish(version))),
    ) {
        let mut out = Vec::new();
        publish.encode(version, &mut out).unwrap();
        prop_assert_eq!(publish_size(&publish.head(), version, publish.payload.len()), out.len());
    }

    #[test]
    fn random_bytes_never_panic(version in version(), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_that_decoded_packets_encode(version, &bytes);
    }

    #[test]
    fn random_bodies_never_panic(
        version in version(),
        first in any::<u8>(),
        body in proptest::collection::vec(prop_oneof![any::<u8>(), 0_u8..4, 0x1f_u8..0x28], 0..120),
    ) {
        let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
        bytes.extend(body);
        check_that_decoded_packets_encode(version, &bytes);
    }

    #[test]
    fn mutated_packets_never_panic(
        (version, packet) in versioned_packet(),
        mutations in proptest::collection::vec(mutation(), 1..4),
        repair in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        codec::encode(&packet, version, &mut bytes).unwrap();
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        if repair {
            repair_length(&mut bytes);
        }
        for version in ProtocolVersion::ALL {
            check_that_decoded_packets_encode(version, &bytes);
        }
    }

    #[test]
    fn limits_of_properties_are_obeyed(
        packet in strategies::packet(ProtocolVersion::V5),
        max_properties in 0_u32..6,
        max_property_bytes in 0_u32..200,
    ) {
        let mut bytes = Vec::new();
        codec::encode(&packet, ProtocolVersion::V5, &mut bytes).unwrap();
        let bytes = bytes::Bytes::from(bytes);
        let limited = Decoder { max_properties, max_property_bytes, ..Decoder::new(ProtocolVersion::V5) };
        let frame = limited.frame(&bytes).unwrap().unwrap();
        // Within the limits or not: the packet, or that one error.
        match limited.decode(frame, &bytes) {
            Ok(decoded) => prop_assert_eq!(decoded, packet),
            Err(error) => prop_assert_eq!(error, crate::proto::DecodeError::TooManyProperties),
        }
    }

    #[test]
    fn heads_that_encode_also_decode(
        flags in any::<(bool, bool)>(),
        qos in select(&QoS::ALL[..]),
        topic in "[a-z/]{0,20}",
        id in any::<u16>(),
        (alias, expiry) in any::<(Option<u16>, Option<u32>)>(),
        ids in proptest::collection::vec(prop_oneof![any::<u32>(), 0_u32..3], 0..3),
        version in version(),
    ) {
        let head = PublishHead {
            dup: flags.0,
            qos,
            retain: flags.1,
            topic: &topic,
            packet_id: PacketId::new(id),
            properties: None,
            message_expiry_interval: expiry,
            topic_alias: alias,
            subscription_identifiers: &ids,
        };
        let mut out = vec![1, 2, 3];
        if encode_head(&head, version, 4, &mut out).is_ok() {
            prop_assert_eq!(publish_size(&head, version, 4), out.len() - 3 + 4);
            out.extend_from_slice(b"load");
            let (packet, _) = decode(version, &out[3..]).unwrap().unwrap();
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            let read = publish.head();
            prop_assert_eq!((read.dup, read.qos, read.retain), (head.dup, head.qos, head.retain));
            prop_assert_eq!((read.topic, read.packet_id), (head.topic, head.packet_id));
            if version.has_properties() {
                prop_assert_eq!(read.topic_alias, alias);
                prop_assert_eq!(read.message_expiry_interval, expiry);
                prop_assert_eq!(read.subscription_identifiers, &ids[..]);
            }
        } else {
            prop_assert_eq!(&out[..], &[1, 2, 3][..], "left as it was");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mutated_vectors_never_panic(mutations in proptest::collection::vec(mutation(), 1..4), repair in any::<bool>()) {
        for vector in vectors() {
            let mut bytes = vector.bytes;
            mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
            if repair {
                repair_length(&mut bytes);
            }
            check_that_decoded_packets_encode(vector.version, &bytes);
        }
    }
}
