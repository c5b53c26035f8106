//! Where a Server Reference leads.
//!
//! Source: MQTT 5.0 §4.11.

use std::fmt;
use std::mem::discriminant;

use bytestring::ByteString;

use super::ClientError;
use crate::net::url::{Address, Endpoint};
use crate::proto::ReasonCode;

/// A redirection that was not followed to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectError {
    /// Why not.
    pub problem: RedirectProblem,
    /// What the last server said: `UseAnotherServer` or `ServerMoved`.
    pub reason: ReasonCode,
    /// Where it sent the client.
    pub server_reference: ByteString,
}

/// Why a redirection is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectProblem {
    /// The reference leads to servers that have sent the client away already.
    Loop,
    /// More redirections than [`ConnectOptions::follow_redirects`](super::ConnectOptions::follow_redirects) allows.
    TooMany,
    /// The reference names no server that may be connected to: it is none, leads from TLS to a plain connection, or from
    /// the network to this machine.
    Unusable,
}

/// What a server said that sent the client away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirection {
    pub(crate) reason: ReasonCode,
    pub(crate) reference: ByteString,
}

impl Redirection {
    /// What an error says about another server; `None`: nothing.
    pub(crate) fn of(error: &ClientError) -> Option<Self> {
        let (reason, reference) = match error {
            ClientError::Refused(refusal) => (refusal.reason, &refusal.server_reference),
            ClientError::Rejected(rejection) => (rejection.reason, &rejection.server_reference),
            _ => return None,
        };
        let leads = matches!(
            reason,
            ReasonCode::UseAnotherServer | ReasonCode::ServerMoved
        );
        let reference = reference.clone().filter(|_| leads)?;
        Some(Self { reason, reference })
    }

    pub(crate) fn is_permanent(&self) -> bool {
        self.reason == ReasonCode::ServerMoved
    }

    /// The servers that the reference names and a client that was connected to `from` may connect to, in order.
    ///
    /// The reference is a list, separated by spaces, of hosts with or without a port, or of URLs. What it does not name is
    /// as it was: layers, path, user name and password.
    pub(crate) fn endpoints(&self, from: &Endpoint) -> Vec<Endpoint> {
        let items = self.reference.split_ascii_whitespace();
        items.filter_map(|item| endpoint(item, from)).collect()
    }

    pub(crate) fn fails(self, problem: RedirectProblem) -> ClientError {
        ClientError::Redirect(std::sync::Arc::new(RedirectError {
            problem,
            reason: self.reason,
            server_reference: self.reference,
        }))
    }
}

fn endpoint(item: &str, from: &Endpoint) -> Option<Endpoint> {
    let is_url = item.contains("://");
    let mut to = if is_url {
        Endpoint::parse(item).ok()?
    } else {
        Endpoint::parse(&format!("{}://{item}", scheme(from)?)).ok()?
    };
    // Nothing that a server says takes TLS away, or leads to something that only this machine can reach.
    let same_kind = discriminant(&to.address) == discriminant(&from.address);
    if (from.tls && !to.tls) || !same_kind {
        return None;
    }
    if to.user.is_none() && to.password.is_none() {
        to.user.clone_from(&from.user);
        to.password.clone_from(&from.password);
    }
    if !is_url {
        to.path.clone_from(&from.path);
    }
    Some(to)
}

fn scheme(from: &Endpoint) -> Option<&'static str> {
    let Address::Tcp { .. } = &from.address else {
        return None;
    };
    Some(match (from.websocket, from.tls) {
        (false, false) => "mqtt",
        (false, true) => "mqtts",
        (true, false) => "ws",
        (true, true) => "wss",
    })
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = self.server_reference.escape_debug();
        write!(f, "{}, to '{reference}': {}", self.reason, self.problem)
    }
}

impl fmt::Display for RedirectProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loop => "that server has sent the client away already",
            Self::TooMany => "too many redirections",
            Self::Unusable => "no server that may be connected to",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(reference: &str, from: &str) -> Vec<String> {
        let redirection = Redirection {
            reason: ReasonCode::UseAnotherServer,
            reference: reference.into(),
        };
        let from = Endpoint::parse(from).unwrap();
        let found = redirection.endpoints(&from);
        found.iter().map(ToString::to_string).collect()
    }

    fn canonical(url: &str) -> String {
        Endpoint::parse(url).unwrap().to_string()
    }

    /// The examples of MQTT 5.0 §4.11 are among them.
    #[test]
    fn a_reference_is_a_list_of_hosts_or_urls() {
        let from = "mqtt://me:secret@here:1999";
        assert_eq!(
            endpoints("myserver.xyz.org", from),
            [canonical("mqtt://me:secret@myserver.xyz.org")]
        );
        assert_eq!(
            endpoints("10.10.151.22:8883 [fe80::9610:3eff:fe1c]:1883", from),
            [
                canonical("mqtt://me:secret@10.10.151.22:8883"),
                canonical("mqtt://me:secret@[fe80::9610:3eff:fe1c]:1883")
            ]
        );
        assert_eq!(
            endpoints("mqtts://you:other@there", from),
            [canonical("mqtts://you:other@there")]
        );
    }

    #[test]
    fn what_a_reference_does_not_name_stays() {
        assert_eq!(
            endpoints("there", "wss://here/mqtt"),
            [canonical("wss://there/mqtt")]
        );
        assert_eq!(
            endpoints("there", "mqtts://here"),
            [canonical("mqtts://there")]
        );
    }

    #[test]
    fn a_reference_cannot_take_tls_away_or_lead_into_this_machine() {
        for reference in [
            "mqtt://there",
            "ws://there",
            "unix:///run/x",
            "mem://x",
            "a:b:c",
            "",
        ] {
            assert!(
                endpoints(reference, "mqtts://here").is_empty(),
                "{reference}"
            );
        }
        assert!(endpoints("there", "mem://here").is_empty());
        assert_eq!(endpoints("mem://there", "mem://here"), ["mem://there"]);
    }
}
