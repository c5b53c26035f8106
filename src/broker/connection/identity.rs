//! Who a client is: its identifier and its user name, after all substitutions.

use std::sync::Arc;

use bytestring::ByteString;

use super::exchange::Proof;
use super::handshake::{Newcomer, Refused, refused};
use crate::broker::router::command::Owner;
use crate::proto::ReasonCode;
use crate::proto::packet::connect::Connect;

/// Who the client is, after all substitutions.
pub(super) struct Identity {
    pub(super) client_id: ByteString,
    pub(super) assigned: bool,
    pub(super) user_name: Option<ByteString>,
    /// The user name was taken from the verified certificate.
    pub(super) is_certified: bool,
    pub(super) owner: Owner,
}

impl Newcomer<'_> {
    /// The Client Identifier and the user name that count.
    ///
    /// Source: MQTT 5.0 §3.1.3.1 [MQTT-3.1.3-6] to [MQTT-3.1.3-8]; [MQTT311-3.1.3-7], [MQTT311-3.1.3-8].
    pub(super) fn identify(
        &self,
        connect: &Connect,
        proof: Option<&Proof>,
    ) -> Result<Identity, Refused> {
        let config = &self.listener.config;
        let auth = config.auth.as_ref().unwrap_or(&self.settings.config.auth);
        let certified = self.certificate.as_ref().and_then(|certificate| {
            if config.use_identity_as_username {
                certificate.common_name.clone()
            } else if config.use_subject_as_username {
                Some(certificate.subject.clone())
            } else {
                None
            }
        });
        if certified.is_none()
            && (config.use_identity_as_username || config.use_subject_as_username)
        {
            return Err(refused(
                ReasonCode::NotAuthorized,
                "the client's certificate names nobody",
            ));
        }
        let is_certified = certified.is_some();
        // Copies: a session must not keep the packet alive, and with it the password.
        let mut user_name = certified
            .map(ByteString::from)
            .or_else(|| connect.user_name.as_deref().map(ByteString::from));
        if let Some(proof) = proof {
            if user_name.is_some() && user_name != proof.user {
                return Err(refused(
                    ReasonCode::NotAuthorized,
                    "the user name is another one than was authenticated",
                ));
            }
            user_name.clone_from(&proof.user);
        }
        let mut client_id = ByteString::from(&*connect.client_id);
        if config.use_username_as_clientid {
            match &user_name {
                Some(name) => client_id = name.clone(),
                None => {
                    return Err(refused(
                        ReasonCode::NotAuthorized,
                        "the client identifier is to be a user name",
                    ));
                }
            }
        }
        let assigned = client_id.is_empty();
        if assigned {
            if !connect.version.allows_empty_client_id() {
                return Err(refused(
                    ReasonCode::ClientIdentifierNotValid,
                    "empty client identifier",
                ));
            }
            let keeps_session = connect
                .properties
                .session_expiry_interval
                .is_some_and(|seconds| seconds > 0);
            if !connect.version.has_properties() && keeps_session {
                return Err(refused(
                    ReasonCode::ClientIdentifierNotValid,
                    "empty client identifier without a clean session",
                ));
            }
            if !auth.allow_zero_length_clientid {
                return Err(refused(
                    ReasonCode::ClientIdentifierNotValid,
                    "empty client identifier",
                ));
            }
            client_id = assign_client_id(&auth.auto_id_prefix)?;
        }
        if client_id.len() > self.settings.config.limits.max_client_id_length {
            return Err(refused(
                ReasonCode::ClientIdentifierNotValid,
                "client identifier too long",
            ));
        }
        let owner = match &user_name {
            Some(name) => Owner::User(name.clone()),
            None => Owner::Listener(Arc::clone(&self.listener.name)),
        };
        Ok(Identity {
            client_id,
            assigned,
            user_name,
            is_certified,
            owner,
        })
    }
}

fn assign_client_id(prefix: &str) -> Result<ByteString, Refused> {
    use std::fmt::Write as _;
    let mut random = [0_u8; 12];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).map_err(
        |_| {
            refused(
                ReasonCode::ServerUnavailable,
                "the system has no random numbers",
            )
        },
    )?;
    let mut id = String::with_capacity(prefix.len() + 24);
    id.push_str(prefix);
    for byte in random {
        let _ = write!(id, "{byte:02x}");
    }
    Ok(ByteString::from(id))
}
