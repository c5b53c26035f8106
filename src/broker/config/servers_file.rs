//! What a server tells its clients in MQTT 5.0: where responses go, and which other server there is.

use super::{Config, Redirect};
use crate::proto::topic::{TopicName, is_reserved};
use crate::yaml::{Field, Section};

/// A topic below which clients can publish, without the `/` at its end; `off` for none.
pub(super) fn response_information(field: &Field<'_>) -> Option<String> {
    if field.node().bool() == Some(false) {
        return None;
    }
    let text = field.text()?;
    let prefix = text.strip_suffix('/').unwrap_or(&text);
    if let Err(error) = TopicName::parse(prefix) {
        field.problem(format!(
            "'{}' is no topic to put others below: {error}",
            text.escape_debug()
        ));
    } else if is_reserved(prefix) {
        field.problem("clients cannot publish to topics that begin with '$'");
    }
    Some(prefix.to_owned())
}

pub(super) fn redirection(root: &Section<'_>, config: &mut Config) {
    if let Some(field) = root.field("server-reference") {
        let references = field.texts().unwrap_or_default();
        let references: Vec<_> = references
            .iter()
            .flat_map(|text| text.split_ascii_whitespace())
            .collect();
        for reference in &references {
            if let Err(what) = check_reference(reference) {
                field.problem(format!("'{}' {what}", reference.escape_debug()));
            }
        }
        if references.is_empty() {
            field.problem("expected the name or address of another broker");
        }
        config.server_reference = Some(references.join(" "));
    }
    let Some(field) = root.field("redirect") else {
        return;
    };
    if field.node().bool() == Some(false) {
        return;
    }
    let words = [
        ("off", Redirect::Off),
        ("temporary", Redirect::Temporary),
        ("permanent", Redirect::Permanent),
    ];
    config.redirect = field.choice(&words).unwrap_or(Redirect::Off);
    if config.redirect != Redirect::Off && config.server_reference.is_none() {
        field.problem("needs server-reference: where clients are to go");
    }
}

/// `host`, `host:port`, `[address]` or `[address]:port`. Source: MQTT 5.0 §4.11.
fn check_reference(reference: &str) -> Result<(), &'static str> {
    let (host, port) = match reference.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or("lacks a ']'")?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("holds no IPv6 address between its brackets");
            }
            match rest {
                "" => (address, None),
                rest => (
                    address,
                    Some(rest.strip_prefix(':').ok_or("is not host:port")?),
                ),
            }
        }
        None => match reference.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (reference, None),
        },
    };
    if host.is_empty() || host.contains('/') {
        return Err("names no host: write host or host:port, without a scheme");
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        Some(_) => Err("has no port between 1 and 65535 (an IPv6 address stands in brackets)"),
    }
}
