//! A packet as one line of text, the form that `tests/vectors` uses.

use std::fmt::{Display, Write as _};

use bytes::Bytes;
use bytestring::ByteString;

use crate::proto::packet::ack::AckProperties;
use crate::proto::packet::auth::AuthProperties;
use crate::proto::packet::connack::ConnackProperties;
use crate::proto::packet::connect::ConnectProperties;
use crate::proto::packet::disconnect::DisconnectProperties;
use crate::proto::packet::publish::PublishProperties;
use crate::proto::packet::{
    Ack, Connect, Packet, QoS, Subscribe, SubscriptionOptions, UserProperty, Will,
};
use crate::proto::{ProtocolVersion, ReasonCode};

/// `packet` as `tests/vectors/README.md` says.
pub(super) fn describe(packet: &Packet) -> String {
    let mut line = Line::new(packet.packet_type().name());
    match packet {
        Packet::Connect(connect) => describe_connect(&mut line, connect),
        Packet::Connack(connack) => {
            line.word("session_present", connack.session_present);
            line.reason(connack.reason);
            describe_connack_properties(&mut line, &connack.properties);
        }
        Packet::Publish(publish) => {
            line.word("dup", publish.dup);
            line.qos("qos", publish.qos);
            line.word("retain", publish.retain);
            line.text("topic", Some(&publish.topic));
            line.value("id", publish.packet_id);
            if let Some(properties) = &publish.properties {
                describe_publish_properties(&mut line, properties, "");
            }
            line.data("payload", Some(&publish.payload));
        }
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            describe_ack(&mut line, ack);
        }
        Packet::Subscribe(subscribe) => describe_subscribe(&mut line, subscribe),
        Packet::Suback(suback) => {
            line.value("id", Some(suback.packet_id));
            describe_ack_properties(&mut line, suback.properties.as_deref());
            suback.reasons.iter().for_each(|&r| line.reason(r));
        }
        Packet::Unsubscribe(unsubscribe) => {
            line.value("id", Some(unsubscribe.packet_id));
            line.user_properties("", &unsubscribe.user_properties);
            for filter in &unsubscribe.filters {
                line.text("filter", Some(filter));
            }
        }
        Packet::Unsuback(unsuback) => {
            line.value("id", Some(unsuback.packet_id));
            describe_ack_properties(&mut line, unsuback.properties.as_deref());
            unsuback.reasons.iter().for_each(|&r| line.reason(r));
        }
        Packet::Pingreq | Packet::Pingresp => {}
        Packet::Disconnect(disconnect) => {
            line.reason(disconnect.reason);
            describe_disconnect_properties(&mut line, &disconnect.properties);
        }
        Packet::Auth(auth) => {
            line.reason(auth.reason);
            describe_auth_properties(&mut line, &auth.properties);
        }
    }
    line.0
}

fn describe_connect(line: &mut Line, connect: &Connect) {
    let version = match connect.version {
        ProtocolVersion::V31 => "3.1",
        ProtocolVersion::V311 => "3.1.1",
        ProtocolVersion::V5 => "5",
    };
    line.value("version", Some(version));
    line.word("clean_start", connect.clean_start);
    line.value("keep_alive", Some(connect.keep_alive));
    describe_connect_properties(line, &connect.properties);
    line.text("client_id", Some(&connect.client_id));
    if let Some(will) = &connect.will {
        describe_will(line, will);
    }
    line.text("user_name", connect.user_name.as_ref());
    line.data("password", connect.password.as_ref());
}

fn describe_connect_properties(line: &mut Line, p: &ConnectProperties) {
    line.value("session_expiry_interval", p.session_expiry_interval);
    line.value("receive_maximum", p.receive_maximum);
    line.value("maximum_packet_size", p.maximum_packet_size);
    line.value("topic_alias_maximum", p.topic_alias_maximum);
    line.value(
        "request_response_information",
        p.request_response_information,
    );
    line.value("request_problem_information", p.request_problem_information);
    line.user_properties("", &p.user_properties);
    line.text("authentication_method", p.authentication_method.as_ref());
    line.data("authentication_data", p.authentication_data.as_ref());
}

fn describe_will(line: &mut Line, will: &Will) {
    line.value("will_qos", Some(will.qos.as_u8()));
    line.word("will_retain", will.retain);
    line.value(
        "will_delay_interval",
        (will.delay_interval != 0).then_some(will.delay_interval),
    );
    if let Some(properties) = &will.properties {
        describe_publish_properties(line, properties, "will_");
    }
    line.text("will_topic", Some(&will.topic));
    line.data("will_payload", Some(&will.payload));
}

fn describe_connack_properties(line: &mut Line, p: &ConnackProperties) {
    line.value("session_expiry_interval", p.session_expiry_interval);
    line.value("receive_maximum", p.receive_maximum);
    line.value("maximum_qos", p.maximum_qos.map(QoS::as_u8));
    line.value("retain_available", p.retain_available);
    line.value("maximum_packet_size", p.maximum_packet_size);
    line.text(
        "assigned_client_identifier",
        p.assigned_client_identifier.as_ref(),
    );
    line.value("topic_alias_maximum", p.topic_alias_maximum);
    line.text("reason_string", p.reason_string.as_ref());
    line.user_properties("", &p.user_properties);
    line.value(
        "wildcard_subscription_available",
        p.wildcard_subscription_available,
    );
    line.value(
        "subscription_identifiers_available",
        p.subscription_identifiers_available,
    );
    line.value(
        "shared_subscription_available",
        p.shared_subscription_available,
    );
    line.value("server_keep_alive", p.server_keep_alive);
    line.text("response_information", p.response_information.as_ref());
    line.text("server_reference", p.server_reference.as_ref());
    line.text("authentication_method", p.authentication_method.as_ref());
    line.data("authentication_data", p.authentication_data.as_ref());
}

fn describe_publish_properties(line: &mut Line, p: &PublishProperties, prefix: &str) {
    let name = |name: &str| format!("{prefix}{name}");
    line.value(&name("message_expiry_interval"), p.message_expiry_interval);
    line.value(&name("topic_alias"), p.topic_alias);
    line.value(&name("payload_format_utf8"), p.payload_format_utf8);
    line.text(&name("response_topic"), p.response_topic.as_ref());
    line.data(&name("correlation_data"), p.correlation_data.as_ref());
    line.user_properties(prefix, &p.user_properties);
    line.text(&name("content_type"), p.content_type.as_ref());
    for id in &p.subscription_identifiers {
        line.value(&name("subscription_identifier"), Some(id));
    }
}

fn describe_ack(line: &mut Line, ack: &Ack) {
    line.value("id", Some(ack.packet_id));
    line.reason(ack.reason);
    describe_ack_properties(line, ack.properties.as_deref());
}

fn describe_ack_properties(line: &mut Line, properties: Option<&AckProperties>) {
    if let Some(properties) = properties {
        line.text("reason_string", properties.reason_string.as_ref());
        line.user_properties("", &properties.user_properties);
    }
}

fn describe_subscribe(line: &mut Line, subscribe: &Subscribe) {
    line.value("id", Some(subscribe.packet_id));
    line.value("subscription_identifier", subscribe.subscription_identifier);
    line.user_properties("", &subscribe.user_properties);
    for (filter, options) in &subscribe.filters {
        line.text("filter", Some(filter));
        describe_options(line, *options);
    }
}

fn describe_options(line: &mut Line, options: SubscriptionOptions) {
    line.value("qos", Some(options.qos.as_u8()));
    line.word("no_local", options.no_local);
    line.word("retain_as_published", options.retain_as_published);
    let handling = options.retain_handling as u8;
    line.value("retain_handling", (handling != 0).then_some(handling));
}

fn describe_disconnect_properties(line: &mut Line, p: &DisconnectProperties) {
    line.value("session_expiry_interval", p.session_expiry_interval);
    line.text("reason_string", p.reason_string.as_ref());
    line.user_properties("", &p.user_properties);
    line.text("server_reference", p.server_reference.as_ref());
}

fn describe_auth_properties(line: &mut Line, p: &AuthProperties) {
    line.text("authentication_method", p.authentication_method.as_ref());
    line.data("authentication_data", p.authentication_data.as_ref());
    line.text("reason_string", p.reason_string.as_ref());
    line.user_properties("", &p.user_properties);
}

struct Line(String);

impl Line {
    fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    fn word(&mut self, name: &str, set: bool) {
        if set {
            write!(self.0, " {name}").unwrap();
        }
    }

    fn value(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            write!(self.0, " {name}={value}").unwrap();
        }
    }

    fn qos(&mut self, name: &str, qos: QoS) {
        self.value(name, (qos != QoS::AtMostOnce).then_some(qos.as_u8()));
    }

    fn reason(&mut self, reason: ReasonCode) {
        write!(self.0, " reason=0x{:02x}", reason.as_u8()).unwrap();
    }

    fn text(&mut self, name: &str, value: Option<&ByteString>) {
        if let Some(value) = value {
            write!(self.0, " {name}={:?}", &**value).unwrap();
        }
    }

    fn data(&mut self, name: &str, value: Option<&Bytes>) {
        if let Some(value) = value {
            write!(self.0, " {name}=\"{}\"", value.escape_ascii()).unwrap();
        }
    }

    fn user_properties(&mut self, prefix: &str, pairs: &[UserProperty]) {
        for (name, value) in pairs {
            write!(
                self.0,
                " {prefix}user_property={:?}:{:?}",
                &**name, &**value
            )
            .unwrap();
        }
    }
}
