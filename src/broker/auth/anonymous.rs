//! Clients without a user name, and clients whose certificate is their proof.

use super::{Authenticate, ConnectInfo, Verdict};

/// `auth_anonymous`: has an opinion on clients without a user name only. A name with nobody to check its password is
/// refused, even where anonymous clients are welcome.
#[derive(Debug)]
pub(super) struct Anonymous {
    pub(super) allow: bool,
}

impl Authenticate for Anonymous {
    fn name(&self) -> &str {
        "auth_anonymous"
    }

    fn authenticate(&self, client: &ConnectInfo<'_>) -> Verdict {
        match (client.user_name, self.allow) {
            (Some(_), _) => Verdict::Abstain,
            (None, true) => Verdict::Allow,
            (None, false) => Verdict::Deny,
        }
    }
}

/// The user name is the one of a certificate that the TLS handshake has verified.
#[derive(Debug)]
pub(super) struct Certified;

impl Authenticate for Certified {
    fn name(&self) -> &str {
        "certificate"
    }

    fn authenticate(&self, client: &ConnectInfo<'_>) -> Verdict {
        if client.user_is_proven {
            Verdict::Allow
        } else {
            Verdict::Abstain
        }
    }
}
