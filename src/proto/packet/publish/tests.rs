use super::*;

const V5: ProtocolVersion = ProtocolVersion::V5;

fn head(topic: &str) -> PublishHead<'_> {
    PublishHead {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: None,
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: &[],
    }
}

fn view<'a>(version: ProtocolVersion, packet: &'a [u8]) -> PublishView<'a> {
    let decoder = Decoder::new(version);
    let frame = decoder.frame(packet).unwrap().unwrap();
    PublishView::decode(&decoder, frame, packet).unwrap()
}

fn refused(head: &PublishHead<'_>, version: ProtocolVersion) -> EncodeError {
    let mut out = vec![7];
    let error = encode_head(head, version, 0, &mut out).unwrap_err();
    assert_eq!(out, [7], "left as it was");
    error
}

#[test]
fn contradicting_heads_are_refused() {
    let id = PacketId::new(1);
    for version in ProtocolVersion::ALL {
        for wrong in [
            PublishHead {
                qos: QoS::AtLeastOnce,
                ..head("a")
            },
            PublishHead {
                packet_id: id,
                ..head("a")
            },
            PublishHead {
                dup: true,
                ..head("a")
            },
            head(""),
        ] {
            assert_eq!(refused(&wrong, version), EncodeError::Invalid);
        }
    }
    let alias = PublishHead {
        topic_alias: Some(1),
        ..head("")
    };
    assert_eq!(refused(&alias, ProtocolVersion::V311), EncodeError::Invalid);
    assert_eq!(encode_head(&alias, V5, 0, &mut Vec::new()), Ok(()));
}

#[test]
fn properties_out_of_range_are_refused_without_a_trace() {
    let alias = PublishHead {
        topic_alias: Some(0),
        ..head("a")
    };
    assert_eq!(refused(&alias, V5), EncodeError::Invalid);
    for id in [0, wire::MAX_VARINT + 1] {
        let ids = [1, id];
        let wrong = PublishHead {
            subscription_identifiers: &ids,
            ..head("a")
        };
        assert_eq!(refused(&wrong, V5), EncodeError::Invalid);
    }
    let properties = PublishProperties {
        response_topic: Some("a/#".into()),
        ..PublishProperties::default()
    };
    let wrong = PublishHead {
        properties: Some(&properties),
        ..head("a")
    };
    assert_eq!(refused(&wrong, V5), EncodeError::Invalid);
    let properties = PublishProperties {
        correlation_data: Some(vec![0; 65_536].into()),
        ..PublishProperties::default()
    };
    let wrong = PublishHead {
        properties: Some(&properties),
        ..head("a")
    };
    assert_eq!(refused(&wrong, V5), EncodeError::FieldTooLong);
}

#[test]
fn head_overrides_what_the_properties_hold() {
    let properties = PublishProperties {
        message_expiry_interval: Some(100),
        topic_alias: Some(9),
        subscription_identifiers: vec![9],
        content_type: Some("t".into()),
        ..PublishProperties::default()
    };
    let head = PublishHead {
        properties: Some(&properties),
        message_expiry_interval: Some(40),
        subscription_identifiers: &[3, 4],
        ..head("a")
    };
    let mut out = Vec::new();
    encode_head(&head, V5, 0, &mut out).unwrap();
    let read = *view(V5, &out).properties.unwrap();
    let expected = PublishProperties {
        message_expiry_interval: Some(40),
        topic_alias: None,
        subscription_identifiers: vec![3, 4],
        ..properties
    };
    assert_eq!(read, expected);
}

#[test]
fn largest_packet_is_the_largest_length_and_not_a_byte_more() {
    let most = wire::MAX_VARINT as usize - 3;
    let mut out = Vec::new();
    encode_head(&head("a"), ProtocolVersion::V311, most, &mut out).unwrap();
    assert_eq!(out, [0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, b'a']);
    assert_eq!(
        publish_size(&head("a"), ProtocolVersion::V311, most),
        crate::proto::codec::MAX_PACKET_BYTES as usize
    );
    for payload_len in [most + 1, usize::MAX] {
        let result = encode_head(&head("a"), ProtocolVersion::V311, payload_len, &mut out);
        assert_eq!(result, Err(EncodeError::PacketTooLarge));
    }
    let long = "x".repeat(65_536);
    let result = encode_head(&head(&long), V5, 0, &mut out);
    assert_eq!(result, Err(EncodeError::FieldTooLong));
    assert_eq!(out.len(), 8);
}

#[test]
fn view_borrows_from_the_packet() {
    let packet = [0x32, 8, 0, 3, b'a', b'/', b'b', 0, 1, b'x'];
    let view = view(ProtocolVersion::V311, &packet);
    assert_eq!(view.topic.as_ptr(), packet[4..].as_ptr());
    assert_eq!(view.payload.as_ptr(), packet[9..].as_ptr());
    let shared = Bytes::copy_from_slice(&packet);
    let copied = view.to_publish(&shared);
    assert_eq!((&*copied.topic, &*copied.payload), ("a/b", &b"x"[..]));
}

#[test]
fn topics_that_are_no_topic_names_are_not_sent() {
    for topic in ["a/#", "+", "a\0b"] {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: topic.into(),
            packet_id: None,
            properties: None,
            payload: Bytes::new(),
        };
        assert_eq!(
            publish.encode(V5, &mut Vec::new()),
            Err(EncodeError::Invalid)
        );
    }
}
