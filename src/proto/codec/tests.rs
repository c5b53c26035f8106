mod describe;
mod round_trip;
mod strategies;
mod vectors;

use bytes::Bytes;

use super::*;
use crate::proto::ReasonCode;
use crate::proto::packet::publish::{PublishProperties, PublishView};
use crate::proto::packet::{PacketId, QoS, SubscriptionOptions};

fn decode(version: ProtocolVersion, bytes: &[u8]) -> Result<Packet, DecodeError> {
    let decoder = Decoder::new(version);
    let bytes = Bytes::copy_from_slice(bytes);
    let frame = decoder.frame(&bytes)?.expect("a whole packet");
    assert_eq!(frame.total_bytes as usize, bytes.len());
    decoder.decode(frame, &bytes)
}

fn round_trip(packet: &Packet, version: ProtocolVersion) {
    let mut out = vec![0xAA];
    encode(packet, version, &mut out).unwrap();
    assert_eq!(decode(version, &out[1..]).as_ref(), Ok(packet));
}

#[test]
fn each_packet_without_properties_survives_encoding() {
    let id = PacketId::new(7).unwrap();
    for version in ProtocolVersion::ALL {
        round_trip(
            &Packet::Publish(Box::new(Publish {
                dup: true,
                qos: QoS::AtLeastOnce,
                retain: true,
                topic: "a/b".into(),
                packet_id: Some(id),
                properties: None,
                payload: Bytes::from_static(b"hello"),
            })),
            version,
        );
        round_trip(&Packet::Puback(Ack::new(id, ReasonCode::Success)), version);
        round_trip(&Packet::Pubrel(Ack::new(id, ReasonCode::Success)), version);
        round_trip(
            &Packet::Subscribe(Box::new(Subscribe {
                packet_id: id,
                filters: vec![("a/#".into(), SubscriptionOptions::default())],
                subscription_identifier: None,
                user_properties: Vec::new(),
            })),
            version,
        );
        round_trip(
            &Packet::Connack(Box::new(Connack::new(false, ReasonCode::Success))),
            version,
        );
        round_trip(&Packet::Pingreq, version);
        round_trip(&Packet::Pingresp, version);
        round_trip(
            &Packet::Disconnect(Box::new(Disconnect::new(ReasonCode::Success))),
            version,
        );
    }
}

#[test]
fn packet_over_the_limit_is_refused_when_only_its_header_is_there() {
    let decoder = Decoder {
        max_packet_bytes: 100,
        ..Decoder::new(ProtocolVersion::V5)
    };
    assert_eq!(
        decoder.frame(&[0x30, 0xff, 0xff, 0xff, 0x7f]),
        Err(DecodeError::PacketTooLarge {
            size: MAX_PACKET_BYTES,
            limit: 100
        })
    );
    assert_eq!(decoder.frame(&[0x30, 0xff, 0xff, 0xff]), Ok(None));
    assert_eq!(
        decoder.frame(&[0x30, 0xff, 0xff, 0xff, 0xff]),
        Err(DecodeError::InvalidLength)
    );
    assert_eq!(decoder.frame(&[0x30, 98]), Ok(None));
    assert!(decoder.frame(&[0x30, 99]).is_err());
}

#[test]
fn view_of_a_publish_copies_only_the_section_that_holds_strings() {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t".into(),
        packet_id: None,
        properties: Some(Box::new(PublishProperties {
            content_type: Some("text/plain".into()),
            topic_alias: Some(3),
            user_properties: vec![("a".into(), "b".into()), ("a".into(), "".into())],
            ..PublishProperties::default()
        })),
        payload: Bytes::from_static(b"payload"),
    };
    let mut out = Vec::new();
    publish.encode(ProtocolVersion::V5, &mut out).unwrap();
    let decoder = Decoder::new(ProtocolVersion::V5);
    let frame = decoder.frame(&out).unwrap().unwrap();
    let view = PublishView::decode(&decoder, frame, &out).unwrap();
    assert_eq!(view.to_publish(&Bytes::copy_from_slice(&out)), publish);
    let shared = Bytes::from(out);
    let view = PublishView::decode(&decoder, frame, &shared).unwrap();
    let again = view.to_publish(&shared);
    assert_eq!(again, publish);
    assert_eq!(
        again.payload.as_ptr(),
        shared[shared.len() - 7..].as_ptr(),
        "the payload shares the buffer"
    );
}
