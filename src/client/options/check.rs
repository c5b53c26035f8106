//! Whether the settings can work together, and which versions they can be said in.

use super::ConnectOptions;
use crate::client::ClientError;
use crate::proto::ProtocolVersion;

impl ConnectOptions {
    /// The version to try first.
    pub(crate) fn first_version(&self) -> ProtocolVersion {
        self.version
            .unwrap_or_else(|| ProtocolVersion::newest(true))
    }

    /// The version to try next, with a server that does not speak `version`. `None`: there is none, or the client
    /// identifier has no meaning in it.
    pub(crate) fn version_after(&self, version: ProtocolVersion) -> Option<ProtocolVersion> {
        let older = ProtocolVersion::newest(false);
        let id = self.client_id.as_ref();
        let may = self.version.is_none()
            && self.authentication.is_none()
            && version > older
            && id.is_none_or(|id| self.check_client_id(id, older).is_ok());
        may.then_some(older)
    }

    /// Whether the settings can work together.
    pub(crate) fn check(&self) -> Result<(), ClientError> {
        if self.keep_alive > 0 && self.ping_delay >= self.keep_alive {
            return Err(ClientError::invalid(
                "ping_delay",
                format!(
                    "{} s is not less than keep_alive ({} s)",
                    self.ping_delay, self.keep_alive
                ),
            ));
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return Err(ClientError::invalid(
                "certfile",
                "certfile and keyfile must be given together",
            ));
        }
        if self.store.is_some() && self.client_id.as_ref().is_none_or(|id| id.is_empty()) {
            return Err(ClientError::invalid(
                "store",
                "needs a client identifier, to know whose messages are in it",
            ));
        }
        if let Some(will) = &self.will {
            crate::proto::topic::validate_name(&will.topic)?;
        }
        self.check_for(self.first_version())
    }

    /// Whether the settings have a meaning in `version`.
    fn check_for(&self, version: ProtocolVersion) -> Result<(), ClientError> {
        if self.authentication.is_some() && !version.has_auth() {
            return Err(ClientError::invalid(
                "authentication",
                format!("{version} has none"),
            ));
        }
        if let Some(id) = &self.client_id {
            self.check_client_id(id, version)?;
        }
        if self.password.is_some()
            && self.user_name.is_none()
            && !version.allows_password_without_user_name()
        {
            return Err(ClientError::invalid(
                "password",
                format!("{version} has no password without a user name"),
            ));
        }
        Ok(())
    }

    // [MQTT-3.1.3-8]: 3.1.1 refuses an empty identifier unless the session is clean.
    fn check_client_id(&self, id: &str, version: ProtocolVersion) -> Result<(), ClientError> {
        if id.len() > usize::from(u16::MAX) {
            return Err(ClientError::invalid(
                "client_id",
                "longer than 65,535 bytes",
            ));
        }
        if id.is_empty() && !version.allows_empty_client_id() {
            return Err(ClientError::invalid(
                "client_id",
                format!("{version} needs one"),
            ));
        }
        if id.is_empty() && !self.clean_start && !version.has_properties() {
            return Err(ClientError::invalid(
                "client_id",
                "a session that is to be kept needs one",
            ));
        }
        Ok(())
    }
}
