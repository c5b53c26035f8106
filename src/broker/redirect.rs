//! Server Reference: the broker sends its clients to another one.
//!
//! Source: MQTT 5.0 §4.11.

use bytestring::ByteString;

use super::config::{Config, Redirect};
use super::router::command::Goodbye;
use crate::proto::ReasonCode;

/// What a client is told that is sent to the other broker; `None`: it is welcome.
pub(super) fn redirection(config: &Config) -> Option<Goodbye> {
    let (reason, text) = match config.redirect {
        Redirect::Off => return None,
        Redirect::Temporary => (
            ReasonCode::UseAnotherServer,
            "use the server of the Server Reference for now",
        ),
        Redirect::Permanent => (
            ReasonCode::ServerMoved,
            "use the server of the Server Reference from now on",
        ),
    };
    Some(Goodbye {
        server_reference: config.server_reference.as_deref().map(ByteString::from),
        ..Goodbye::new(reason, text)
    })
}

/// Says in the log that nobody is let in, and where to everybody is sent.
pub(super) fn announce(config: &Config) {
    if let Some(goodbye) = redirection(config) {
        log::warn!(
            "no client is let in, because of 'redirect': they are told {} and '{}'",
            goodbye.reason,
            goodbye.server_reference.as_deref().unwrap_or_default()
        );
    }
}

/// What the clients are told when the broker stops: to use the other one, if there is one.
pub(super) fn at_shutdown(config: &Config) -> Goodbye {
    if let Some(goodbye) = redirection(config) {
        return goodbye;
    }
    match &config.server_reference {
        Some(reference) => Goodbye {
            server_reference: Some(ByteString::from(reference.as_str())),
            ..Goodbye::new(
                ReasonCode::UseAnotherServer,
                "the broker stops: use the server of the Server Reference, or connect again later",
            )
        },
        None => Goodbye::new(
            ReasonCode::ServerShuttingDown,
            "the broker stops: connect again later",
        ),
    }
}
