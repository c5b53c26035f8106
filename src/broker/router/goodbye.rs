//! The end of a connection that the broker wants: DISCONNECT with its reason, then the close.

use std::time::Instant;

use super::Router;
use super::command::{DetachCause, Goodbye};
use super::session::Session;
use super::subscriptions::SessionSlot;
use crate::proto::packet::disconnect::{Disconnect, DisconnectProperties};

impl Router {
    /// Ends every connection, and the router with this batch. Sessions stay as they are.
    pub(super) fn handle_shutdown(&mut self, goodbye: &Goodbye, now: Instant) {
        let slots: Vec<SessionSlot> = self.sessions.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some((session, journal)) = self.sessions.with_journal(slot)
                && session.link.is_some()
                && session.key.is_some()
            {
                // Its will is sent after the restart, if the client is not back before. [MQTT-3.1.2-12]
                journal.put_session(session, Some(now));
            }
            self.end_link(slot, goodbye);
        }
        self.stopping = true;
    }

    /// Ends every connection if the settings say that the clients are to go to another broker.
    pub(super) fn send_away(&mut self, now: Instant) {
        let Some(goodbye) = self.sessions.settings.redirection.clone() else {
            return;
        };
        let online =
            |(slot, session): (SessionSlot, &Session)| session.link.is_some().then_some(slot);
        let slots: Vec<SessionSlot> = self.sessions.iter().filter_map(online).collect();
        for slot in slots {
            self.expel(slot, &goodbye, now);
        }
    }

    /// Ends the connection of a client against its will, with the reason that tells it so.
    pub(super) fn expel(&mut self, slot: SessionSlot, goodbye: &Goodbye, now: Instant) {
        self.end_link(slot, goodbye);
        self.close_session(
            slot,
            DetachCause::Abnormal {
                session_expiry: None,
            },
            now,
        );
    }

    /// Says goodbye to a client and lets go of its link. The session stays as it is.
    pub(super) fn end_link(&mut self, slot: SessionSlot, goodbye: &Goodbye) {
        let Some(mut link) = self.sessions.unlink(slot) else {
            return;
        };
        // What waits for nothing is not overtaken by what is held. [MQTT-4.6.0-2]
        link.hold_pending();
        if link.version.has_server_disconnect() {
            let text = Some(goodbye.text.clone());
            let mut sent = link.push_explained(text, |reason_string, version, out| {
                let properties = DisconnectProperties {
                    reason_string,
                    server_reference: goodbye.server_reference.clone(),
                    ..DisconnectProperties::default()
                };
                let reason = goodbye.reason;
                Disconnect { reason, properties }.encode(version, out)
            });
            if !sent && goodbye.server_reference.is_some() {
                let bare = Disconnect::new(goodbye.reason);
                sent = link.push_explained(None, |_, version, out| bare.encode(version, out));
            }
            self.sessions.count_packets_sent(u64::from(sent));
        }
        let bytes = link.pending.len() + link.held_bytes();
        self.sessions.count_bytes_sent(bytes);
        self.sessions.journal.close(*link);
    }
}
