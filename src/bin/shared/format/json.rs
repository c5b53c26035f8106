//! A message as one JSON object.

use hbmqtt::proto::packet::publish::PublishProperties;

use super::{View, base64};
use crate::shared::clock;

/// What a message looks like as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonPayload {
    /// As a text (mosquitto's `%j`); bytes that are not UTF-8 are replaced.
    Text,
    /// As the JSON value that it is (`%J`).
    Value,
    /// As a text, or as Base64 with `"encoding": "base64"` when it is not UTF-8 (`--json`).
    TextOrBase64,
}

/// A message as one JSON object; `None` if its payload should be a JSON value and is none.
pub(crate) fn json(message: &View<'_>, payload: JsonPayload, pretty: bool) -> Option<String> {
    use serde_json::Value;

    let at = clock::local(message.at);
    // Written by hand in the order in which people read it: serde_json's own objects are sorted by name.
    let mut fields: Vec<(&str, Value)> = vec![
        (
            "tst",
            format!(
                "{}.{:06}{}",
                clock::date_time(at, "T"),
                at.microsecond(),
                clock::offset(at, "")
            )
            .into(),
        ),
        ("topic", message.topic.into()),
        ("qos", message.qos.into()),
        ("retain", u8::from(message.retain).into()),
        ("payloadlen", message.payload.len().into()),
    ];
    if message.qos > 0 {
        fields.push(("mid", message.packet_id.into()));
    }
    if let Some(properties) = message.properties {
        fields.push(("properties", json_properties(properties)));
    }
    match payload {
        JsonPayload::Text => {
            let text = match message.payload {
                [] => Value::Null,
                bytes => String::from_utf8_lossy(bytes).into(),
            };
            fields.push(("payload", text));
        }
        JsonPayload::Value => {
            let value = match message.payload {
                [] => Value::Null,
                bytes => serde_json::from_slice(bytes).ok()?,
            };
            fields.push(("payload", value));
        }
        JsonPayload::TextOrBase64 => match std::str::from_utf8(message.payload) {
            Ok(text) => fields.push(("payload", text.into())),
            Err(_) => {
                fields.push(("payload", base64(message.payload).into()));
                fields.push(("encoding", "base64".into()));
            }
        },
    }
    Some(object(&fields, pretty))
}

/// An object with its members in the order given.
fn object(fields: &[(&str, serde_json::Value)], pretty: bool) -> String {
    let members: Vec<String> = fields
        .iter()
        .map(|(name, value)| {
            if pretty {
                // A member's own lines are one level deeper.
                let value = format!("{value:#}").replace('\n', "\n  ");
                format!("  \"{name}\": {value}")
            } else {
                format!("\"{name}\":{value}")
            }
        })
        .collect();
    if pretty {
        format!("{{\n{}\n}}", members.join(",\n"))
    } else {
        format!("{{{}}}", members.join(","))
    }
}

/// The properties under the names that the specification gives them, in kebab case.
fn json_properties(properties: &PublishProperties) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    let mut set = |name: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    set(
        "payload-format-indicator",
        properties
            .payload_format_utf8
            .map(|utf8| u8::from(utf8).into()),
    );
    set(
        "message-expiry-interval",
        properties.message_expiry_interval.map(Into::into),
    );
    set("topic-alias", properties.topic_alias.map(Into::into));
    set(
        "content-type",
        properties.content_type.as_deref().map(Into::into),
    );
    set(
        "response-topic",
        properties.response_topic.as_deref().map(Into::into),
    );
    set(
        "correlation-data",
        properties
            .correlation_data
            .as_deref()
            .map(|data| String::from_utf8_lossy(data).into()),
    );
    let ids = &properties.subscription_identifiers;
    set(
        "subscription-identifier",
        match ids[..] {
            [] => None,
            [id] => Some(id.into()),
            _ => Some(ids.clone().into()),
        },
    );
    if !properties.user_properties.is_empty() {
        let list: Vec<serde_json::Value> = properties
            .user_properties
            .iter()
            .map(|(name, value)| serde_json::json!({ &**name: &**value }))
            .collect();
        set("user-properties", Some(list.into()));
    }
    object.into()
}
