//! The end of a connection that the program wants.

use std::sync::Arc;
use std::time::Duration;

use super::{Core, Link, Shared, in_callback, now};
use crate::client::options::DisconnectOptions;
use crate::client::session::Effects;
use crate::client::{ClientError, ClientState, ConnectResult};
use crate::outbox::Outbox;
use crate::packet_log;
use crate::proto::packet::{Disconnect, Packet};
use crate::proto::{ReasonCode, codec};

impl Shared {
    /// See [`Client::disconnect_with`](super::Client::disconnect_with). False: there was nothing to disconnect.
    // BLOCKS: until the server closes the connection, for a short while.
    pub(crate) fn disconnect(&self, options: DisconnectOptions) -> Result<bool, ClientError> {
        let mut effects = Effects::default();
        let mut core = self.lock();
        self.wait_for_store(&mut core, now() + LINGER);
        if core.state == ClientState::Disconnected {
            return Ok(false);
        }
        let ends_now = options.properties.session_expiry_interval == Some(0);
        let goodbye = self.goodbye(options, &core)?;
        core.state = ClientState::Disconnected;
        core.ended = Some(ClientError::NotConnected);
        core.driver += 1;
        // Who has the write turn holds bytes that come before DISCONNECT. Writing does not block, and nothing is added.
        while core.link.as_ref().is_some_and(|link| link.turn_taken) {
            self.wait_for_change(&mut core, None);
        }
        let link = core.link.take();
        let connection = core.connection;
        let result = core.result.clone();
        core.session
            .give_up(&ClientError::NotConnected, &mut effects);
        core.fail_reauthentication(&ClientError::NotConnected, &mut effects);
        drop(core);
        effects.tell();
        if self.session_is_kept() && !ends_now {
            // The server has them still, and sends them when the session goes on.
            self.inbox.retract();
        }
        let outbox = link.map(|link| self.say_goodbye(link, &result, &goodbye));
        self.inbox.close(ClientError::NotConnected);
        self.notify();
        if let Some(outbox) = outbox {
            self.linger(connection, &outbox);
        }
        Ok(true)
    }

    /// The DISCONNECT, encoded.
    fn goodbye(&self, options: DisconnectOptions, core: &Core) -> Result<Vec<u8>, ClientError> {
        let version = core.result.version;
        if options.publish_will && !version.has_reason_codes() {
            return Err(ClientError::invalid(
                "publish_will",
                format!("{version} has no way to ask for it"),
            ));
        }
        let longer = options.properties.session_expiry_interval > Some(0);
        if longer && version.has_properties() && !self.was_to_be_kept(core) {
            return Err(ClientError::invalid(
                "session_expiry",
                "the session was to end with the connection",
            ));
        }
        let reason = if options.publish_will {
            ReasonCode::DisconnectWithWill
        } else {
            ReasonCode::Success
        };
        let disconnect = Packet::Disconnect(Box::new(Disconnect {
            reason,
            properties: options.properties,
        }));
        let mut encoded = Vec::new();
        codec::encode(&disconnect, version, &mut encoded)?;
        // [MQTT-3.2.2-15]
        let most = core.result.properties.maximum_packet_size;
        if most.is_some_and(|most| encoded.len() as u64 > u64::from(most)) {
            return Err(ClientError::NotAvailable(ReasonCode::PacketTooLarge));
        }
        Ok(encoded)
    }

    /// CONNECT asked the server to keep the session: only then may DISCONNECT. MQTT 5.0 §3.14.2.2.2
    fn was_to_be_kept(&self, core: &Core) -> bool {
        let expiry = self.options.session_expiry;
        expiry.map_or(!core.clean_start, |seconds| seconds > 0)
    }

    fn say_goodbye(&self, mut link: Link, result: &ConnectResult, goodbye: &[u8]) -> Arc<Outbox> {
        link.pending.bytes_mut().extend_from_slice(goodbye);
        if packet_log::is_on() {
            packet_log::sent(&result.client_id, result.version, &link.pending);
        }
        link.outbox.close_with(&mut link.pending);
        link.outbox
    }

    /// Lets the server close the connection, and the background thread read until it does: when the program ended before
    /// that, the kernel would take back what the server has not read yet.
    fn linger(&self, connection: u64, outbox: &Outbox) {
        if in_callback() {
            return;
        }
        let patience = if outbox.backlog() == 0 {
            LINGER
        } else {
            self.options.write_timeout
        };
        let deadline = now() + patience;
        let mut core = self.lock();
        while core.last_gone < connection {
            if self.wait_for_change(&mut core, Some(deadline)) {
                break;
            }
        }
    }

    /// The background thread has read the last of a connection.
    pub(crate) fn on_gone(&self, connection: u64) {
        let mut core = self.lock();
        core.last_gone = core.last_gone.max(connection);
        drop(core);
        self.notify();
    }

    /// Whether the server keeps the session when the connection ends.
    pub(crate) fn session_is_kept(&self) -> bool {
        let core = self.lock();
        if core.result.version.has_properties() {
            let granted = core.result.properties.session_expiry_interval;
            let expiry = granted.or(self.options.session_expiry);
            expiry.map_or(!core.clean_start, |seconds| seconds > 0)
        } else {
            !core.clean_start
        }
    }
}

/// How long a server may take to close the connection after DISCONNECT.
const LINGER: Duration = Duration::from_secs(1);
