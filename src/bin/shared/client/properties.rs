//! `-D COMMAND PROPERTY VALUE`: the properties of MQTT 5.0 that the user puts into packets.
//!
//! Which property a packet may carry, and of what type it is, is the protocol's own table ([`PropertyId`]); here is what
//! goes where in the library's options, and in [`words`] what a client may say, and in which words.

mod words;

use std::time::Duration;

use bytestring::ByteString;
use hbmqtt::client::{ConnectOptions, DisconnectOptions, SubscribeOptions, WillOptions};
use hbmqtt::proto::packet::publish::PublishProperties;
use hbmqtt::proto::property::{Carrier, PropertyId};

use crate::shared::args::WORD_SEPARATOR;
use crate::shared::exit::Failure;

use words::{command_name, parse, property_name};

/// The commands that a program may be given properties for.
pub(crate) type Commands = &'static [Carrier];

/// What `-D` said, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    given: Vec<Property>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Property {
    carrier: Carrier,
    id: PropertyId,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u32),
    Text(String),
    Pair(String, String),
}

#[allow(dead_code, reason = "no program sends every packet")]
impl Properties {
    /// Reads the values of `-D` as the normaliser joined them.
    ///
    /// # Errors
    /// A usage error that names command and property, and what is wrong.
    pub(crate) fn parse(given: &[String], commands: Commands) -> Result<Self, Failure> {
        let mut properties = Self::default();
        for words in given {
            let words: Vec<&str> = words.split(WORD_SEPARATOR).collect();
            let property = parse(&words, commands).map_err(|problem| {
                let named = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
                Failure::usage(format!("option '-D {}': {problem}", named.escape_debug()))
            })?;
            properties.add(property)?;
        }
        Ok(properties)
    }

    /// Whether there is one for the Will.
    pub(crate) fn has_will(&self) -> bool {
        self.of(Carrier::Will).next().is_some()
    }

    /// Adds `-x`, which is a property of CONNECT.
    ///
    /// # Errors
    /// A usage error if `-D` has named it too.
    pub(crate) fn add_session_expiry(&mut self, seconds: u32) -> Result<(), Failure> {
        self.add(Property {
            carrier: Carrier::Connect,
            id: PropertyId::SessionExpiryInterval,
            value: Value::Number(seconds),
        })
    }

    /// How long the session is to be kept, in seconds, if that was said; `u32::MAX` = for ever.
    pub(crate) fn session_expiry(&self) -> Option<u32> {
        self.of(Carrier::Connect)
            .filter(|(id, _)| *id == PropertyId::SessionExpiryInterval)
            .find_map(|(_, value)| value.number())
    }

    /// Whether DISCONNECT is to keep the session for a time.
    pub(crate) fn keeps_session_at_the_end(&self) -> bool {
        self.of(Carrier::Disconnect)
            .any(|(id, value)| id == PropertyId::SessionExpiryInterval && value.number() > Some(0))
    }

    /// Authentication Method and Data of CONNECT.
    pub(crate) fn authentication(&self) -> (Option<&str>, Option<&str>) {
        let find = |wanted| {
            let mut all = self.of(Carrier::Connect);
            all.find_map(|(id, value)| match value {
                Value::Text(text) if id == wanted => Some(text.as_str()),
                _ => None,
            })
        };
        (
            find(PropertyId::AuthenticationMethod),
            find(PropertyId::AuthenticationData),
        )
    }

    /// Puts those of CONNECT in, but for the authentication.
    pub(crate) fn connect(&self, mut options: ConnectOptions) -> ConnectOptions {
        for (id, value) in self.of(Carrier::Connect) {
            let number = value.number().unwrap_or_default();
            options = match id {
                PropertyId::SessionExpiryInterval => options.session_expiry(span(number)),
                PropertyId::ReceiveMaximum => options.receive_maximum(short(number)),
                PropertyId::MaximumPacketSize => options.max_packet_bytes(number),
                PropertyId::TopicAliasMaximum => options.topic_alias_maximum(short(number)),
                PropertyId::RequestResponseInformation => {
                    options.request_response_information(number == 1)
                }
                PropertyId::RequestProblemInformation => {
                    options.request_problem_information(number == 1)
                }
                PropertyId::UserProperty => {
                    let (name, text) = value.pair();
                    options.user_property(name, text)
                }
                _ => options,
            };
        }
        options
    }

    /// Puts those of the Will in.
    pub(crate) fn will(&self, mut will: WillOptions) -> WillOptions {
        let delay = self
            .of(Carrier::Will)
            .find(|(id, _)| *id == PropertyId::WillDelayInterval);
        if let Some((_, value)) = delay {
            will = will.delay(span(value.number().unwrap_or_default()));
        }
        match self.message(Carrier::Will) {
            Some(properties) => will.properties(properties),
            None => will,
        }
    }

    /// Those of PUBLISH; `None` if there are none.
    pub(crate) fn publish(&self) -> Option<PublishProperties> {
        self.message(Carrier::Publish)
    }

    /// Those of SUBSCRIBE.
    pub(crate) fn subscribe(&self) -> SubscribeOptions {
        self.request(Carrier::Subscribe)
    }

    /// Those of UNSUBSCRIBE.
    pub(crate) fn unsubscribe(&self) -> SubscribeOptions {
        self.request(Carrier::Unsubscribe)
    }

    /// Those of DISCONNECT.
    pub(crate) fn disconnect(&self) -> DisconnectOptions {
        let mut options = DisconnectOptions::new();
        for (id, value) in self.of(Carrier::Disconnect) {
            options = match id {
                PropertyId::SessionExpiryInterval => {
                    options.session_expiry(span(value.number().unwrap_or_default()))
                }
                PropertyId::ReasonString => options.reason_string(value.text()),
                _ => {
                    let (name, text) = value.pair();
                    options.user_property(name, text)
                }
            };
        }
        options
    }

    fn request(&self, carrier: Carrier) -> SubscribeOptions {
        let mut options = SubscribeOptions::new();
        for (id, value) in self.of(carrier) {
            options = if id == PropertyId::SubscriptionIdentifier {
                options.identifier(value.number().unwrap_or_default())
            } else {
                let (name, text) = value.pair();
                options.user_property(name, text)
            };
        }
        options
    }

    /// The properties that belong to a message, published or left as a Will.
    fn message(&self, carrier: Carrier) -> Option<PublishProperties> {
        let mut properties = PublishProperties::default();
        for (id, value) in self.of(carrier) {
            match id {
                PropertyId::PayloadFormatIndicator => {
                    properties.payload_format_utf8 = value.number().map(|number| number == 1);
                }
                PropertyId::MessageExpiryInterval => {
                    properties.message_expiry_interval = value.number();
                }
                PropertyId::TopicAlias => {
                    properties.topic_alias = value.number().map(short);
                }
                PropertyId::ContentType => properties.content_type = Some(value.text()),
                PropertyId::ResponseTopic => properties.response_topic = Some(value.text()),
                PropertyId::CorrelationData => {
                    properties.correlation_data = Some(value.text().into_bytes());
                }
                PropertyId::UserProperty => properties.user_properties.push(value.pair()),
                _ => {}
            }
        }
        (properties != PublishProperties::default()).then_some(properties)
    }

    fn of(&self, carrier: Carrier) -> impl Iterator<Item = (PropertyId, &Value)> {
        let given = self.given.iter();
        let given = given.filter(move |property| property.carrier == carrier);
        given.map(|property| (property.id, &property.value))
    }

    fn add(&mut self, property: Property) -> Result<(), Failure> {
        let may_repeat = property.id == PropertyId::UserProperty;
        if !may_repeat && self.of(property.carrier).any(|(id, _)| id == property.id) {
            let (command, name) = (command_name(property.carrier), property_name(property.id));
            return Err(Failure::usage(format!(
                "option '-D {command} {name}': it is given twice"
            )));
        }
        self.given.push(property);
        Ok(())
    }
}

impl Value {
    fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn text(&self) -> ByteString {
        match self {
            Self::Text(text) => text.as_str().into(),
            _ => ByteString::new(),
        }
    }

    fn pair(&self) -> (ByteString, ByteString) {
        match self {
            Self::Pair(name, value) => (name.as_str().into(), value.as_str().into()),
            _ => Default::default(),
        }
    }
}

/// Two bytes were checked to be enough.
fn short(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Seconds as the library takes them, which has no number for "for ever".
fn span(seconds: u32) -> Duration {
    match seconds {
        u32::MAX => Duration::MAX,
        seconds => Duration::from_secs(seconds.into()),
    }
}

#[cfg(test)]
mod tests {
    use hbmqtt::proto::property::DataType;

    use super::words::{CLIENTS, is_for_servers};
    use super::*;

    fn parsed(given: &[&str]) -> Result<Properties, String> {
        let given: Vec<String> = given
            .iter()
            .map(|words| words.replace(' ', &WORD_SEPARATOR.to_string()))
            .collect();
        Properties::parse(&given, &CLIENTS).map_err(|failure| failure.message)
    }

    fn problem(words: &str) -> String {
        let message = parsed(&[words]).expect_err("should be refused");
        let named: Vec<&str> = words.split(' ').take(2).collect();
        let start = format!("option '-D {}': ", named.join(" "));
        let problem = message.strip_prefix(&start);
        problem.unwrap_or_else(|| panic!("{message}")).to_owned()
    }

    #[test]
    fn every_property_of_a_client_is_taken() {
        for carrier in CLIENTS {
            for id in PropertyId::ALL {
                if !id.is_allowed_in(carrier) || is_for_servers(*id, carrier) {
                    continue;
                }
                let value = match id.data_type() {
                    DataType::StringPair => "k v",
                    DataType::String | DataType::Binary => "text",
                    DataType::Byte => "1",
                    _ => "7",
                };
                let (command, name) = (command_name(carrier), property_name(*id));
                let given = parsed(&[&format!("{command} {name} {value}")]).unwrap();
                assert_eq!(given.given[0].id, *id);
                let upper = format!("{command} {name}").to_uppercase() + " " + value;
                assert_eq!(parsed(&[&upper]).unwrap(), given);
            }
        }
    }

    #[test]
    fn a_property_at_the_wrong_place_is_told_where_it_belongs() {
        assert_eq!(
            problem("publish will-delay-interval 1"),
            "this property belongs to will"
        );
        assert_eq!(
            problem("subscribe content-type x"),
            "this property belongs to publish and will"
        );
        assert_eq!(
            problem("connect server-keep-alive 1"),
            "only servers send this property"
        );
        assert_eq!(
            problem("publish subscription-identifier 1"),
            "this property belongs to subscribe"
        );
        assert_eq!(
            problem("unsubscribe colour red"),
            "there is no such property; unsubscribe has user-property"
        );
        assert!(problem("puback user-property a b").starts_with("acknowledgements"));
        assert!(problem("auth user-property a b").starts_with("AUTH carries"));
        assert!(problem("connack user-property a b").starts_with("there is no such command"));
        let none = Properties::parse(
            &["publish\u{1f}content-type\u{1f}x".to_owned()],
            &[Carrier::Connect, Carrier::Will],
        );
        assert_eq!(
            none.unwrap_err().message,
            "option '-D publish content-type': this program sends none; use connect or will"
        );
    }

    #[test]
    fn a_bad_value_is_told_what_would_do() {
        assert_eq!(
            problem("publish message-expiry-interval soon"),
            "'soon': use a number from 0 to 4294967295"
        );
        assert_eq!(
            problem("connect receive-maximum 0"),
            "'0': use a number from 1 to 65535"
        );
        assert_eq!(
            problem("publish payload-format-indicator 2"),
            "'2': use 0 or 1"
        );
        assert_eq!(
            problem("subscribe subscription-identifier 268435456"),
            "'268435456': use a number from 1 to 268435455"
        );
        assert!(problem("publish response-topic a/#").contains('#'));
        let long = "x".repeat(65_536);
        assert_eq!(
            problem(&format!("publish content-type {long}")),
            "a text of 65536 bytes; 65535 is the most"
        );
    }

    #[test]
    fn only_user_properties_repeat() {
        assert_eq!(
            parsed(&["publish content-type a", "PUBLISH content-type b"]),
            Err("option '-D publish content-type': it is given twice".to_owned())
        );
        let both = parsed(&["publish content-type a", "will content-type b"]).unwrap();
        assert_eq!(both.publish().unwrap().content_type.as_deref(), Some("a"));
        let pairs = parsed(&["publish user-property a 1", "publish user-property a 2"]).unwrap();
        let pairs = pairs.publish().unwrap().user_properties;
        assert_eq!(pairs, [("a".into(), "1".into()), ("a".into(), "2".into())]);
        let mut expiry = parsed(&["connect session-expiry-interval 7"]).unwrap();
        assert_eq!(expiry.session_expiry(), Some(7));
        assert!(expiry.add_session_expiry(8).is_err());
    }
}
