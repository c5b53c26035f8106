//! Packets that a peer may send, for property tests.

use bytes::Bytes;
use bytestring::ByteString;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::proto::packet::ack::AckProperties;
use crate::proto::packet::auth::AuthProperties;
use crate::proto::packet::connack::ConnackProperties;
use crate::proto::packet::connect::ConnectProperties;
use crate::proto::packet::disconnect::DisconnectProperties;
use crate::proto::packet::publish::PublishProperties;
use crate::proto::packet::{
    Ack, Auth, Connack, Connect, Disconnect, Packet, PacketId, Publish, QoS, RetainHandling,
    Suback, Subscribe, SubscriptionOptions, Unsuback, Unsubscribe, UserProperty, Will,
};
use crate::proto::{PacketType, ProtocolVersion, ReasonCode};

/// Any packet that `version` can express, in the form that the decoder gives.
pub(super) fn packet(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let mut all = vec![
        connect(version)
            .prop_map(|p| Packet::Connect(Box::new(p)))
            .boxed(),
        connack(version)
            .prop_map(|p| Packet::Connack(Box::new(p)))
            .boxed(),
        publish(version)
            .prop_map(|p| Packet::Publish(Box::new(p)))
            .boxed(),
        ack(version, PacketType::Puback)
            .prop_map(Packet::Puback)
            .boxed(),
        ack(version, PacketType::Pubrec)
            .prop_map(Packet::Pubrec)
            .boxed(),
        ack(version, PacketType::Pubrel)
            .prop_map(Packet::Pubrel)
            .boxed(),
        ack(version, PacketType::Pubcomp)
            .prop_map(Packet::Pubcomp)
            .boxed(),
        subscribe(version)
            .prop_map(|p| Packet::Subscribe(Box::new(p)))
            .boxed(),
        suback(version)
            .prop_map(|p| Packet::Suback(Box::new(p)))
            .boxed(),
        unsubscribe(version)
            .prop_map(|p| Packet::Unsubscribe(Box::new(p)))
            .boxed(),
        unsuback(version)
            .prop_map(|p| Packet::Unsuback(Box::new(p)))
            .boxed(),
        Just(Packet::Pingreq).boxed(),
        Just(Packet::Pingresp).boxed(),
        disconnect(version)
            .prop_map(|p| Packet::Disconnect(Box::new(p)))
            .boxed(),
    ];
    if version.has_auth() {
        all.push(auth().prop_map(|p| Packet::Auth(Box::new(p))).boxed());
    }
    proptest::strategy::Union::new(all).boxed()
}

fn text() -> impl Strategy<Value = ByteString> {
    prop_oneof![
        4 => "[a-z/]{0,8}",
        2 => "[^\0]{0,40}",
        1 => "[^\0]{0,300}",
    ]
    .prop_map(ByteString::from)
}

fn topic_name() -> impl Strategy<Value = ByteString> {
    "[^\0+#]{1,40}".prop_map(ByteString::from)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn user_properties() -> impl Strategy<Value = Vec<UserProperty>> {
    vec((text(), text()), 0..4)
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&QoS::ALL[..])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn subscription_identifier() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..200, 1_u32..=268_435_455]
}

/// `strategy` if the version has properties, the default otherwise.
fn in_v5<T: Default + Clone + std::fmt::Debug + 'static>(
    version: ProtocolVersion,
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    if version.has_properties() {
        strategy.boxed()
    } else {
        Just(T::default()).boxed()
    }
}

/// A section of properties, `None` when it would be empty.
fn boxed<T: Default + PartialEq + Clone + std::fmt::Debug>(
    strategy: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<Box<T>>> {
    prop_oneof![
        Just(None),
        strategy
            .prop_map(|properties| { (properties != T::default()).then(|| Box::new(properties)) })
    ]
}

fn reason(packet_type: PacketType) -> impl Strategy<Value = ReasonCode> {
    let allowed: Vec<_> = ReasonCode::ALL
        .iter()
        .copied()
        .filter(|reason| reason.is_allowed_in(packet_type))
        .collect();
    select(allowed)
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = Connect> {
    (
        any::<(bool, u16)>(),
        text(),
        option::of(will(version)),
        option::of(text()),
        option::of(data()),
        in_v5(version, connect_properties()),
    )
        .prop_map(
            move |(
                (clean_start, keep_alive),
                client_id,
                will,
                user_name,
                password,
                mut properties,
            )| {
                if !version.has_properties() {
                    properties.session_expiry_interval = (!clean_start).then_some(u32::MAX);
                }
                let lonely = user_name.is_none() && !version.allows_password_without_user_name();
                Connect {
                    version,
                    clean_start,
                    keep_alive,
                    client_id,
                    will,
                    user_name,
                    password: password.filter(|_| !lonely),
                    properties,
                }
            },
        )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    (
        option::of(any::<u32>()),
        option::of(1..=u16::MAX),
        option::of(1..=u32::MAX),
        option::of(any::<u16>()),
        any::<(Option<bool>, Option<bool>)>(),
        user_properties(),
        option::of((text(), option::of(data()))),
    )
        .prop_map(
            |(expiry, receive, size, alias, (response, problem), user_properties, method)| {
                let (authentication_method, authentication_data) = method.unzip();
                ConnectProperties {
                    session_expiry_interval: expiry,
                    receive_maximum: receive,
                    maximum_packet_size: size,
                    topic_alias_maximum: alias,
                    request_response_information: response,
                    request_problem_information: problem,
                    user_properties,
                    authentication_method,
                    authentication_data: authentication_data.flatten(),
                }
            },
        )
}

fn will(version: ProtocolVersion) -> impl Strategy<Value = Will> {
    let properties = boxed(publish_properties().prop_map(|mut properties| {
        properties.topic_alias = None;
        properties.subscription_identifiers = Vec::new();
        properties
    }));
    (
        qos(),
        any::<bool>(),
        topic_name(),
        data(),
        in_v5(version, any::<u32>()),
        in_v5(version, properties),
    )
        .prop_map(
            |(qos, retain, topic, payload, delay_interval, properties)| Will {
                qos,
                retain,
                topic,
                payload,
                delay_interval,
                properties,
            },
        )
}

fn connack(version: ProtocolVersion) -> impl Strategy<Value = Connack> {
    let reason = reason(PacketType::Connack).prop_map(move |reason| {
        if version.has_reason_codes() {
            reason
        } else {
            let code = reason.connect_return_code().unwrap_or(0);
            ReasonCode::from_connect_return_code(code).unwrap()
        }
    });
    (any::<bool>(), reason, in_v5(version, connack_properties())).prop_map(
        move |(session_present, reason, properties)| Connack {
            session_present: session_present
                && reason == ReasonCode::Success
                && version.has_session_present(),
            reason,
            properties,
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnackProperties> {
    let numbers = (
        option::of(any::<u32>()),
        option::of(1..=u16::MAX),
        option::of(select(&[QoS::AtMostOnce, QoS::AtLeastOnce][..])),
        option::of(1..=u32::MAX),
        any::<(Option<u16>, Option<u16>)>(),
    );
    let flags = any::<(Option<bool>, Option<bool>, Option<bool>, Option<bool>)>();
    let texts = (
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of(text()),
    );
    (numbers, flags, texts, user_properties(), option::of(data())).prop_map(
        |(numbers, flags, texts, user_properties, authentication_data)| {
            let (session_expiry_interval, receive_maximum, maximum_qos, size, (alias, alive)) =
                numbers;
            let (retain, wildcard, identifiers, shared) = flags;
            let (client_id, reason_string, response, reference, method) = texts;
            ConnackProperties {
                session_expiry_interval,
                receive_maximum,
                maximum_qos,
                retain_available: retain,
                maximum_packet_size: size,
                assigned_client_identifier: client_id,
                topic_alias_maximum: alias,
                reason_string,
                user_properties,
                wildcard_subscription_available: wildcard,
                subscription_identifiers_available: identifiers,
                shared_subscription_available: shared,
                server_keep_alive: alive,
                response_information: response,
                server_reference: reference,
                authentication_method: method,
                authentication_data,
            }
        },
    )
}

pub(super) fn publish(version: ProtocolVersion) -> impl Strategy<Value = Publish> {
    (
        any::<(bool, bool, bool)>(),
        qos(),
        topic_name(),
        packet_id(),
        in_v5(version, boxed(publish_properties())),
        data(),
    )
        .prop_map(
            |((dup, retain, anonymous), qos, topic, packet_id, properties, payload)| {
                let confirmed = qos != QoS::AtMostOnce;
                let has_alias = properties
                    .as_ref()
                    .is_some_and(|properties| properties.topic_alias.is_some());
                Publish {
                    dup: dup && confirmed,
                    qos,
                    retain,
                    topic: if anonymous && has_alias {
                        ByteString::new()
                    } else {
                        topic
                    },
                    packet_id: confirmed.then_some(packet_id),
                    properties,
                    payload,
                }
            },
        )
}

fn publish_properties() -> impl Strategy<Value = PublishProperties> {
    (
        any::<(Option<bool>, Option<u32>)>(),
        option::of(1..=u16::MAX),
        option::of(topic_name()),
        option::of(data()),
        user_properties(),
        vec(subscription_identifier(), 0..3),
        option::of(text()),
    )
        .prop_map(
            |((format, expiry), topic_alias, response_topic, data, user, ids, content_type)| {
                PublishProperties {
                    payload_format_utf8: format,
                    message_expiry_interval: expiry,
                    topic_alias,
                    response_topic,
                    correlation_data: data,
                    user_properties: user,
                    subscription_identifiers: ids,
                    content_type,
                }
            },
        )
}

fn ack_properties(version: ProtocolVersion) -> BoxedStrategy<Option<Box<AckProperties>>> {
    let properties =
        (option::of(text()), user_properties()).prop_map(|(reason_string, user_properties)| {
            AckProperties {
                reason_string,
                user_properties,
            }
        });
    in_v5(version, boxed(properties))
}

fn ack(version: ProtocolVersion, packet_type: PacketType) -> impl Strategy<Value = Ack> {
    (packet_id(), reason(packet_type), ack_properties(version)).prop_map(
        move |(packet_id, reason, properties)| Ack {
            packet_id,
            reason: if version.has_reason_codes() {
                reason
            } else {
                ReasonCode::Success
            },
            properties,
        },
    )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Subscribe> {
    (
        packet_id(),
        vec((text(), subscription_options(version)), 1..5),
        in_v5(version, option::of(subscription_identifier())),
        in_v5(version, user_properties()),
    )
        .prop_map(
            |(packet_id, filters, subscription_identifier, user_properties)| Subscribe {
                packet_id,
                filters,
                subscription_identifier,
                user_properties,
            },
        )
}

fn subscription_options(version: ProtocolVersion) -> impl Strategy<Value = SubscriptionOptions> {
    let handling = select(
        &[
            RetainHandling::Always,
            RetainHandling::IfNew,
            RetainHandling::Never,
        ][..],
    );
    (qos(), any::<(bool, bool)>(), handling).prop_map(
        move |(qos, (no_local, retain_as_published), retain_handling)| {
            if version.has_subscription_options() {
                SubscriptionOptions {
                    qos,
                    no_local,
                    retain_as_published,
                    retain_handling,
                }
            } else {
                SubscriptionOptions {
                    qos,
                    ..SubscriptionOptions::default()
                }
            }
        },
    )
}

fn suback(version: ProtocolVersion) -> impl Strategy<Value = Suback> {
    let reason = reason(PacketType::Suback).prop_map(move |reason| {
        if reason.is_error() && !version.has_reason_codes() {
            ReasonCode::UnspecifiedError
        } else {
            reason
        }
    });
    (packet_id(), vec(reason, 0..5), ack_properties(version)).prop_map(
        |(packet_id, reasons, properties)| Suback {
            packet_id,
            reasons,
            properties,
        },
    )
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Unsubscribe> {
    (
        packet_id(),
        vec(text(), 1..5),
        in_v5(version, user_properties()),
    )
        .prop_map(|(packet_id, filters, user_properties)| Unsubscribe {
            packet_id,
            filters,
            user_properties,
        })
}

fn unsuback(version: ProtocolVersion) -> impl Strategy<Value = Unsuback> {
    (
        packet_id(),
        in_v5(version, vec(reason(PacketType::Unsuback), 0..5)),
        ack_properties(version),
    )
        .prop_map(|(packet_id, reasons, properties)| Unsuback {
            packet_id,
            reasons,
            properties,
        })
}

fn disconnect(version: ProtocolVersion) -> impl Strategy<Value = Disconnect> {
    let properties = (
        option::of(any::<u32>()),
        option::of(text()),
        user_properties(),
        option::of(text()),
    )
        .prop_map(
            |(session_expiry_interval, reason_string, user_properties, server_reference)| {
                DisconnectProperties {
                    session_expiry_interval,
                    reason_string,
                    user_properties,
                    server_reference,
                }
            },
        );
    (reason(PacketType::Disconnect), in_v5(version, properties)).prop_map(
        move |(reason, properties)| Disconnect {
            reason: if version.has_reason_codes() {
                reason
            } else {
                ReasonCode::Success
            },
            properties,
        },
    )
}

fn auth() -> impl Strategy<Value = Auth> {
    let properties = (
        text(),
        option::of(data()),
        option::of(text()),
        user_properties(),
    )
        .prop_map(
            |(method, authentication_data, reason_string, user_properties)| AuthProperties {
                authentication_method: Some(method),
                authentication_data,
                reason_string,
                user_properties,
            },
        );
    (reason(PacketType::Auth), properties)
        .prop_map(|(reason, properties)| Auth { reason, properties })
}
