use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn text() -> impl Strategy<Value = ByteString> {
    "[a-zäß€𝄞]{0,12}".prop_map(ByteString::from)
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn properties() -> impl Strategy<Value = PublishProperties> {
    let texts = (
        option::of(text()),
        option::of(payload()),
        option::of(text()),
    );
    let user = vec((text(), text()), 0..4);
    (any::<Option<bool>>(), any::<Option<u32>>(), texts, user).prop_map(
        |(payload_format_utf8, message_expiry_interval, texts, user_properties)| {
            PublishProperties {
                payload_format_utf8,
                message_expiry_interval,
                response_topic: texts.0,
                correlation_data: texts.1,
                content_type: texts.2,
                user_properties,
                ..PublishProperties::default()
            }
        },
    )
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&QoS::ALL[..])
}

fn topic() -> impl Strategy<Value = TopicName> {
    "[a-z/€]{1,20}".prop_map(|topic| TopicName::parse(topic).unwrap())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn message() -> impl Strategy<Value = MessageRecord> {
    let properties = option::of(properties().prop_map(Box::new));
    let message = (topic(), payload(), qos(), any::<bool>(), properties);
    (message, any::<Option<u64>>()).prop_map(
        |((topic, payload, qos, retain, properties), expires_at)| MessageRecord {
            message: Arc::new(Message {
                qos,
                retain,
                properties,
                ..Message::new(topic, payload)
            }),
            expires_at: expires_at.map(WallTime),
        },
    )
}

fn will() -> impl Strategy<Value = WillRecord> {
    let properties = option::of(properties().prop_map(Box::new));
    (qos(), any::<(bool, u32)>(), text(), payload(), properties).prop_map(
        |(qos, (retain, delay_interval), topic, payload, properties)| WillRecord {
            will: Will {
                qos,
                retain,
                topic,
                payload,
                delay_interval,
                properties,
            },
        },
    )
}

fn session() -> impl Strategy<Value = SessionRecord> {
    let names = (text(), option::of(text()), text());
    let version = select(&ProtocolVersion::ALL[..]);
    let will = option::of(will().prop_map(Box::new));
    (names, version, any::<(u32, Option<u64>)>(), will).prop_map(
        |(names, version, (expiry_seconds, disconnected_at), will)| SessionRecord {
            client_id: names.0,
            user: names.1,
            listener: names.2,
            version,
            expiry_seconds,
            disconnected_at: disconnected_at.map(WallTime),
            will,
        },
    )
}

fn subscription() -> impl Strategy<Value = SubscriptionRecord> {
    let handling = select(vec![
        RetainHandling::Always,
        RetainHandling::IfNew,
        RetainHandling::Never,
    ]);
    let after = option::of(topic());
    let replay = option::of(after.prop_map(|after| ReplayRecord { after }));
    let names = (text(), option::of(text()), replay);
    (qos(), any::<(bool, bool, Option<u32>)>(), handling, names).prop_map(
        |(qos, (no_local, retain_as_published, id), retain_handling, names)| SubscriptionRecord {
            options: SubscriptionOptions {
                qos,
                no_local,
                retain_as_published,
                retain_handling,
            },
            id,
            filter: names.0,
            share: names.1,
            replay: names.2,
        },
    )
}

fn entry() -> impl Strategy<Value = EntryRecord> {
    let state = prop_oneof![
        Just(EntryState::Waiting),
        packet_id().prop_map(EntryState::Sent),
        packet_id().prop_map(EntryState::Released),
    ];
    let message = option::of(1..=u64::MAX);
    let ids = option::of(vec(any::<u32>(), 0..4).prop_map(Arc::from));
    let delivery = (qos(), any::<(bool, u32)>());
    (message, delivery, ids, option::of(text()), state).prop_map(
        |(message, (qos, (retain, size_bytes)), ids, group, state)| EntryRecord {
            message: message.and_then(NonZeroU64::new).map(MessageId),
            size_bytes,
            qos,
            retain,
            ids,
            group,
            state,
        },
    )
}

fn retained() -> impl Strategy<Value = RetainedRecord> {
    let publisher = (text(), option::of(text()), text()).prop_map(|names| PublisherRecord {
        client_id: names.0,
        user: names.1,
        listener: names.2,
    });
    (message(), option::of(publisher))
        .prop_map(|(message, publisher)| RetainedRecord { message, publisher })
}

fn comes_back<V: Value + PartialEq + std::fmt::Debug>(value: &V) -> Result<(), TestCaseError> {
    let written = encode("table", b"key", value, Vec::new());
    prop_assert_eq!(&decode::<V>("table", b"key", &written).unwrap(), value);
    // What was cut is noticed without the checksum too.
    for end in 1..written.len() - 4 {
        let mut opened = Opened::new(&written[1..end]);
        let read = V::read(&mut opened);
        prop_assert!(read.is_none() || opened.is_empty());
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_record_comes_back(
        session in session(),
        subscription in subscription(),
        message in message(),
        entry in entry(),
        retained in retained(),
    ) {
        comes_back(&session)?;
        comes_back(&subscription)?;
        comes_back(&message)?;
        comes_back(&entry)?;
        comes_back(&retained)?;
    }

    #[test]
    fn what_is_no_record_is_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = SessionRecord::read(&mut Opened::new(&bytes));
        let _ = SubscriptionRecord::read(&mut Opened::new(&bytes));
        let _ = MessageRecord::read(&mut Opened::new(&bytes));
        let _ = EntryRecord::read(&mut Opened::new(&bytes));
        let _ = RetainedRecord::read(&mut Opened::new(&bytes));
    }

    #[test]
    fn keys_sort_as_what_they_name(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
        let key = |(session, position)| entry_key(SessionKey(session), Position(position));
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        prop_assert_eq!(read_entry_key(&key(a)), Some((SessionKey(a.0), Position(a.1))));
    }
}

#[test]
fn keys_come_back() {
    let session = SessionKey(7);
    let id = MessageId(NonZeroU64::new(300).unwrap());
    assert_eq!(read_message_key(&message_key(id)), Some(id));
    let incoming = incoming_key(session, PacketId::MAX);
    assert_eq!(read_incoming_key(&incoming), Some((session, PacketId::MAX)));
    let subscription = subscription_key(session, "a/#");
    assert_eq!(
        read_subscription_key(&subscription),
        Some((session, "a/#".into()))
    );
    assert_eq!(read_message_key(&[0; 8]), None);
    assert_eq!(read_entry_key(&[0; 7]), None);
}
