//! The words behind `-D`: which commands, properties and values there are, and what is said about others.

use hbmqtt::proto::property::{Carrier, DataType, PropertyId};
use hbmqtt::proto::topic;

use super::{Commands, Property, Value};
use crate::shared::client::values;

pub(super) fn parse(words: &[&str], commands: Commands) -> Result<Property, String> {
    let [command, name, values @ ..] = words else {
        return Err("use COMMAND PROPERTY VALUE".to_owned());
    };
    let carrier = carrier(command, commands)?;
    let id = property(name, carrier)?;
    let value = match (id.data_type(), values) {
        (DataType::StringPair, [name, value]) => {
            Value::Pair(checked_text(name)?, checked_text(value)?)
        }
        (DataType::StringPair, _) => return Err("use NAME VALUE".to_owned()),
        (DataType::String | DataType::Binary, [text]) => Value::Text(checked_text(text)?),
        (_, [number]) => Value::Number(number_of(id, number)?),
        _ => return Err("use one value".to_owned()),
    };
    if id == PropertyId::ResponseTopic
        && let Value::Text(text) = &value
    {
        topic::validate_name(text).map_err(|error| error.to_string())?;
    }
    Ok(Property { carrier, id, value })
}

/// The packet that a command stands for, if this program may be given properties for it.
fn carrier(command: &str, commands: Commands) -> Result<Carrier, String> {
    let lower = command.to_ascii_lowercase();
    let known = commands
        .iter()
        .copied()
        .find(|carrier| command_name(*carrier) == lower);
    let use_these = || {
        let names: Vec<&str> = commands.iter().map(|c| command_name(*c)).collect();
        format!("use {}", listed(&names, "or"))
    };
    known.ok_or_else(|| match lower.as_str() {
        "puback" | "pubrec" | "pubrel" | "pubcomp" => {
            format!(
                "acknowledgements are sent without properties; {}",
                use_these()
            )
        }
        "auth" => format!(
            "AUTH carries what the authentication method makes, and nothing else; {}",
            use_these()
        ),
        "connect" | "publish" | "subscribe" | "unsubscribe" | "disconnect" | "will" => {
            format!("this program sends none; {}", use_these())
        }
        _ => format!("there is no such command; {}", use_these()),
    })
}

/// The property of this name, if a client may put it into the packet.
fn property(name: &str, carrier: Carrier) -> Result<PropertyId, String> {
    let lower = name.to_ascii_lowercase();
    let may = |id: PropertyId, carrier| id.is_allowed_in(carrier) && !is_for_servers(id, carrier);
    let Some(id) = PropertyId::ALL
        .iter()
        .copied()
        .find(|id| property_name(*id) == lower)
    else {
        let there: Vec<String> = PropertyId::ALL
            .iter()
            .filter(|id| may(**id, carrier))
            .map(|id| property_name(*id))
            .collect();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        return Err(format!(
            "there is no such property; {} has {}",
            command_name(carrier),
            listed(&there, "and")
        ));
    };
    if may(id, carrier) {
        return Ok(id);
    }
    let carriers: Vec<&str> = CLIENTS
        .iter()
        .filter(|other| may(id, **other))
        .map(|other| command_name(*other))
        .collect();
    Err(if carriers.is_empty() {
        "only servers send this property".to_owned()
    } else {
        format!("this property belongs to {}", listed(&carriers, "and"))
    })
}

/// The specification gives it to the packet, but in the direction from server to client.
pub(super) fn is_for_servers(id: PropertyId, carrier: Carrier) -> bool {
    matches!(
        (id, carrier),
        (PropertyId::SubscriptionIdentifier, Carrier::Publish)
            | (PropertyId::ServerReference, Carrier::Disconnect)
    )
}

fn number_of(id: PropertyId, text: &str) -> Result<u32, String> {
    if id == PropertyId::SessionExpiryInterval {
        return values::session_expiry(text);
    }
    let (least, most) = match (id, id.data_type()) {
        (_, DataType::Byte) => (0, 1),
        (PropertyId::TopicAliasMaximum, _) => (0, 65_535),
        (_, DataType::TwoByteInteger) => (1, 65_535),
        (_, DataType::VariableByteInteger) => (1, 268_435_455),
        (PropertyId::MaximumPacketSize, _) => (SMALLEST_PACKET, u32::MAX),
        _ => (0, u32::MAX),
    };
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ if most == 1 => Err(format!("'{}': use 0 or 1", text.escape_debug())),
        _ => Err(format!(
            "'{}': use a number from {least} to {most}",
            text.escape_debug()
        )),
    }
}

fn checked_text(text: &str) -> Result<String, String> {
    if text.len() > usize::from(u16::MAX) {
        return Err(format!("a text of {} bytes; 65535 is the most", text.len()));
    }
    Ok(text.to_owned())
}

pub(super) fn command_name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Will => "will",
        Carrier::Connect => "connect",
        Carrier::Publish => "publish",
        Carrier::Subscribe => "subscribe",
        Carrier::Unsubscribe => "unsubscribe",
        Carrier::Disconnect => "disconnect",
        _ => "",
    }
}

/// The name in the specification, in lower case with dashes.
pub(super) fn property_name(id: PropertyId) -> String {
    id.name().to_ascii_lowercase().replace(' ', "-")
}

fn listed(names: &[&str], word: &str) -> String {
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {word} {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The packets of a client that properties can be given for.
pub(super) const CLIENTS: [Carrier; 6] = [
    Carrier::Connect,
    Carrier::Publish,
    Carrier::Subscribe,
    Carrier::Unsubscribe,
    Carrier::Disconnect,
    Carrier::Will,
];

/// CONNACK takes five bytes at least.
const SMALLEST_PACKET: u32 = 5;
