//! Long options that stand for `-D` with a certain property, as data.

use crate::shared::args::{Shorthand, ShorthandValue};

/// Long options that stand for a property of CONNECT or of the Will.
pub(crate) const COMMON: &[Shorthand] = &[
    value("receive-maximum", "connect receive-maximum"),
    value("rcv-max", "connect receive-maximum"),
    value("maximum-packet-size", "connect maximum-packet-size"),
    value("topic-alias-maximum", "connect topic-alias-maximum"),
    fixed(
        "request-response-info",
        "connect request-response-information",
        "1",
    ),
    fixed(
        "req-response-info",
        "connect request-response-information",
        "1",
    ),
    fixed(
        "no-request-problem-info",
        "connect request-problem-information",
        "0",
    ),
    fixed(
        "no-req-problem-info",
        "connect request-problem-information",
        "0",
    ),
    value("auth-method", "connect authentication-method"),
    value("auth-data", "connect authentication-data"),
    pair("connect-user-property", "connect user-property"),
    value("will-delay", "will will-delay-interval"),
    value("will-delay-interval", "will will-delay-interval"),
    value("will-expiry", "will message-expiry-interval"),
    value("will-content-type", "will content-type"),
    value("will-response-topic", "will response-topic"),
    value("will-correlation-data", "will correlation-data"),
    value("will-payload-format", "will payload-format-indicator"),
    pair("will-user-property", "will user-property"),
];

/// Long options that stand for a property of PUBLISH.
#[allow(dead_code, reason = "not every program publishes")]
pub(crate) const PUBLISH: &[Shorthand] = &[
    value("message-expiry", "publish message-expiry-interval"),
    value("content-type", "publish content-type"),
    value("correlation-data", "publish correlation-data"),
    value("payload-format", "publish payload-format-indicator"),
    value("topic-alias", "publish topic-alias"),
    pair("user-property", "publish user-property"),
];

/// Long options that stand for a property of SUBSCRIBE.
#[allow(dead_code, reason = "not every program subscribes")]
pub(crate) const SUBSCRIBE: &[Shorthand] = &[
    value("subscription-id", "subscribe subscription-identifier"),
    pair("subscribe-user-property", "subscribe user-property"),
];

pub(crate) const fn value(name: &'static str, words: &'static str) -> Shorthand {
    Shorthand {
        name,
        words,
        value: ShorthandValue::One,
    }
}

const fn pair(name: &'static str, words: &'static str) -> Shorthand {
    Shorthand {
        name,
        words,
        value: ShorthandValue::Pair,
    }
}

const fn fixed(name: &'static str, words: &'static str, value: &'static str) -> Shorthand {
    Shorthand {
        name,
        words,
        value: ShorthandValue::Fixed(value),
    }
}
