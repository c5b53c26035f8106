//! What a new connection is told: CONNACK, or nothing.

use std::sync::Arc;

use bytestring::ByteString;

use super::exchange::Proof;
use super::handshake::{Newcomer, Refused, clamp, refused};
use super::identity::Identity;
use super::read_buffer::{ReadError, linger};
use super::violation;
use crate::broker::plugin::Event;
use crate::broker::response_area::response_information;
use crate::outbox::OutBuf;
use crate::proto::packet::connack::{Connack, ConnackProperties};
use crate::proto::packet::connect::Connect;
use crate::proto::packet::{Packet, QoS};
use crate::proto::{DecodeError, PacketType, ProtocolVersion, ReasonCode, codec};

impl Newcomer<'_> {
    fn topic_alias_maximum(&self, version: ProtocolVersion) -> u16 {
        if version.has_properties() {
            self.listener.config.max_topic_alias
        } else {
            0
        }
    }

    /// What CONNACK tells beside success. A property that has its default value is left out, so that the packet stays
    /// small: a client may accept no more than 20 bytes.
    ///
    /// Source: MQTT 5.0 §3.2.2.3.
    ///
    /// # Errors
    /// Even without what can be left out it is larger than the client takes.
    pub(super) fn connack(
        &self,
        connect: &Connect,
        identity: &Identity,
        proof: Option<Proof>,
    ) -> Result<ConnackProperties, Refused> {
        if !connect.version.has_properties() {
            return Ok(ConnackProperties::default());
        }
        let config = &self.settings.config;
        let limits = &config.limits;
        let cap = u32::try_from(config.persistence.session_expiry.as_secs()).unwrap_or(u32::MAX);
        let wanted = connect.properties.session_expiry_interval.unwrap_or(0);
        let max_qos = self.max_qos();
        let aliases = self.topic_alias_maximum(connect.version);
        let keep_alive = limits
            .max_keepalive
            .filter(|limit| connect.keep_alive == 0 || connect.keep_alive > *limit);
        let packet = clamp(limits.max_packet_size);
        let properties = ConnackProperties {
            session_expiry_interval: (wanted > cap).then_some(cap),
            receive_maximum: (limits.receive_maximum < u16::MAX).then_some(limits.receive_maximum),
            maximum_qos: (max_qos < QoS::ExactlyOnce).then_some(max_qos),
            retain_available: (!config.retain_available).then_some(false),
            maximum_packet_size: (packet < codec::MAX_PACKET_BYTES).then_some(packet),
            assigned_client_identifier: identity.assigned.then(|| identity.client_id.clone()),
            topic_alias_maximum: (aliases > 0).then_some(aliases),
            server_keep_alive: keep_alive,
            response_information: self.response_information(connect, identity),
            // [MQTT-4.12.0-5]
            authentication_method: connect.properties.authentication_method.clone(),
            authentication_data: proof.and_then(|proof| proof.data),
            ..ConnackProperties::default()
        };
        let connack = Connack {
            session_present: false,
            reason: ReasonCode::Success,
            properties,
        };
        let fitting = fit(connack, connect).map(|connack| connack.properties);
        fitting.ok_or_else(|| {
            refused(
                ReasonCode::PacketTooLarge,
                "the CONNACK is larger than the client takes",
            )
        })
    }

    /// Source: MQTT 5.0 §3.1.2.11.6 [MQTT-3.1.2-28], §3.2.2.3.15.
    fn response_information(&self, connect: &Connect, identity: &Identity) -> Option<ByteString> {
        let config = &self.settings.config;
        let prefix = config.response_information.as_deref()?;
        let wanted = connect.properties.request_response_information == Some(true);
        let area = wanted.then(|| response_information(prefix, &identity.client_id))?;
        // A client with a very long identifier has none.
        let possible = area.len() < config.limits.max_topic_length.min(usize::from(u16::MAX));
        possible.then(|| ByteString::from(area))
    }

    /// Answers a CONNECT that is not accepted, and closes.
    ///
    /// Source: MQTT 5.0 §3.2.2.2 [MQTT-3.2.2-7]; [MQTT311-3.2.2-4], [MQTT311-3.2.2-5].
    pub(super) fn refuse(&self, connect: &Connect, refused: &Refused) {
        let version = connect.version;
        self.services.metrics.connections_refused.increment();
        log::warn!(
            "{} ({}) refused on listener '{}': {}: {}{}",
            connect.client_id.escape_debug(),
            self.peer,
            self.listener.name,
            refused.reason,
            refused.text,
            match refused.by.as_str() {
                "" => String::new(),
                by => format!(" ({by})"),
            }
        );
        let mut out = OutBuf::default();
        let answer = if version.has_reason_codes() {
            Some(refused.reason)
        } else {
            refused
                .reason
                .connect_return_code()
                .and(Some(refused.reason))
        };
        if let Some(reason) = answer {
            let properties = ConnackProperties {
                reason_string: version.has_properties().then(|| refused.text.clone()),
                server_reference: refused.server_reference.clone(),
                ..ConnackProperties::default()
            };
            let connack = Connack {
                session_present: false,
                reason,
                properties,
            };
            let plugins = &self.services.plugins;
            let fitting = fit(connack, connect);
            let encoded = fitting.map(|connack| Packet::Connack(Box::new(connack)));
            if let Some(connack) = &encoded
                && let Err(error) = codec::encode(connack, version, out.bytes_mut())
            {
                log::debug!("cannot encode CONNACK: {error}");
            }
            if let Some(connack) = encoded.filter(|_| plugins.wants_packets()) {
                let client = Arc::new(self.early_info(connect));
                let packet = Box::new(connack);
                plugins.fire(Event::PacketSent { packet, client });
            }
        }
        self.services.metrics.bytes_sent.add(out.len() as u64);
        self.outbox.close_with(&mut out);
        linger(&self.socket);
    }

    /// The client went away, or said nothing more, before it was answered.
    pub(super) fn let_go(&self, connect: &Connect, error: &ReadError) {
        let id = connect.client_id.escape_debug();
        let peer = &self.peer;
        match error {
            ReadError::TimedOut => {
                self.services.metrics.handshakes_expired.increment();
                log::info!("{id} ({peer}) did not authenticate in time, closing connection");
            }
            ReadError::Io(error) => log::info!("{id} ({peer}) lost before CONNACK: {error}"),
            ReadError::Net(error) => log::info!("{id} ({peer}) lost before CONNACK: {error}"),
            _ => log::info!("{id} ({peer}) closed before CONNACK"),
        }
        self.outbox.close_with(&mut OutBuf::default());
        linger(&self.socket);
    }

    /// The first packet is not a CONNECT that can be understood.
    ///
    /// Source: MQTT 5.0 §3.1.4 [MQTT-3.1.4-1], §4.13.1.
    pub(super) fn give_up(&self, error: ReadError, version: Option<ProtocolVersion>) {
        let metrics = &self.services.metrics;
        let peer = &self.peer;
        let mut out = OutBuf::default();
        match error {
            ReadError::TimedOut => {
                metrics.handshakes_expired.increment();
                log::info!("{peer} sent no CONNECT in time, closing connection");
            }
            ReadError::Closed => log::info!("{peer} closed before CONNECT"),
            ReadError::Io(error) => log::info!("{peer} lost before CONNECT: {error}"),
            ReadError::Net(error) => log::info!("{peer} lost before CONNECT: {error}"),
            ReadError::Malformed(DecodeError::UnsupportedProtocol) => {
                metrics.connections_refused.increment();
                log::warn!("{peer} unsupported protocol name in CONNECT, closing connection");
            }
            ReadError::Malformed(DecodeError::UnsupportedVersion { level }) => {
                metrics.connections_refused.increment();
                log::warn!(
                    "{peer} unsupported protocol level {level} in CONNECT, closing connection"
                );
                answer_unknown_version(level, &mut out);
            }
            ReadError::Malformed(error) => {
                metrics.protocol_errors.increment();
                let end = super::End::Malformed(error);
                if let Some(version) = version.filter(|version| version.has_reason_codes()) {
                    // Nothing more: it is not known how large a packet the client takes.
                    let reason = Some(error.reason());
                    let reason = reason.filter(|reason| reason.is_allowed_in(PacketType::Connack));
                    let reason = reason.unwrap_or(ReasonCode::MalformedPacket);
                    put_connack(reason, version, &mut out);
                }
                log::warn!(
                    "{}",
                    violation(&end, &format!("{peer} CONNECT refused:"), &error)
                );
            }
            ReadError::Protocol(error) => {
                metrics.protocol_errors.increment();
                let end = super::End::Protocol(error);
                log::warn!("{}", violation(&end, &peer.to_string(), &error));
            }
        }
        self.services.metrics.bytes_sent.add(out.len() as u64);
        self.outbox.close_with(&mut out);
        linger(&self.socket);
    }
}

/// The CONNACK as the client can take it: where its Maximum Packet Size is too small, without what it can do without,
/// one after the other. `None`: it is still too large.
///
/// Source: MQTT 5.0 §3.1.2.11.4 [MQTT-3.1.2-24], §3.2.2.3.9 [MQTT-3.2.2-19], §3.2.2.3.10 [MQTT-3.2.2-20].
fn fit(mut connack: Connack, connect: &Connect) -> Option<Connack> {
    let version = connect.version;
    let Some(limit) = connect.properties.maximum_packet_size else {
        return Some(connack);
    };
    let fits = |connack: &Connack| {
        let mut bytes = Vec::new();
        let encoded = connack.encode(version, &mut bytes);
        encoded.is_err() || u32::try_from(bytes.len()).is_ok_and(|size| size <= limit)
    };
    for leave_out in OPTIONAL {
        if fits(&connack) {
            return Some(connack);
        }
        leave_out(&mut connack.properties);
    }
    fits(&connack).then_some(connack)
}

/// What a client can do without, the most dispensable first: it then knows less than it could, and nothing wrong.
const OPTIONAL: [fn(&mut ConnackProperties); 5] = [
    |properties| properties.reason_string = None,
    |properties| properties.response_information = None,
    |properties| properties.topic_alias_maximum = None,
    |properties| properties.maximum_packet_size = None,
    |properties| properties.server_reference = None,
];

/// Answers a CONNECT of an unknown level: 3.1.1's return code 1 to older ones, 5.0's 0x84 to newer ones. Another protocol
/// name is not answered at all.
///
/// Bridges set the uppermost bit of the level that they speak, and try again without it.
///
/// Source: MQTT 5.0 §3.1.2.2 [MQTT-3.1.2-2]; [MQTT311-3.1.2-2].
fn answer_unknown_version(level: u8, out: &mut OutBuf) {
    let newest = ProtocolVersion::newest(true).level();
    let version = ProtocolVersion::newest(level & 0x7f >= newest);
    put_connack(ReasonCode::UnsupportedProtocolVersion, version, out);
}

fn put_connack(reason: ReasonCode, version: ProtocolVersion, out: &mut OutBuf) {
    let connack = Connack::new(false, reason);
    if let Err(error) = codec::encode(
        &Packet::Connack(Box::new(connack)),
        version,
        out.bytes_mut(),
    ) {
        log::debug!("cannot encode CONNACK: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::packet::connect::ConnectProperties;

    fn connect(maximum_packet_size: Option<u32>) -> Connect {
        Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive: 0,
            client_id: "id".into(),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                maximum_packet_size,
                ..ConnectProperties::default()
            },
        }
    }

    fn full() -> Connack {
        Connack {
            session_present: false,
            reason: ReasonCode::Success,
            properties: ConnackProperties {
                session_expiry_interval: Some(10),
                receive_maximum: Some(256),
                maximum_packet_size: Some(4 << 20),
                topic_alias_maximum: Some(16),
                reason_string: Some("0123456789".into()),
                response_information: Some("r/id/".into()),
                server_keep_alive: Some(60),
                ..ConnackProperties::default()
            },
        }
    }

    /// [MQTT-3.2.2-19], [MQTT-3.1.2-24]
    #[test]
    fn connack_gives_up_what_it_can_do_without_until_it_fits() {
        let left = |limit| {
            let connack = fit(full(), &connect(limit))?;
            let mut bytes = Vec::new();
            connack.encode(ProtocolVersion::V5, &mut bytes).unwrap();
            assert!(limit.is_none_or(|limit| bytes.len() <= limit as usize));
            let properties = connack.properties;
            assert_eq!(properties.session_expiry_interval, Some(10));
            assert_eq!(properties.receive_maximum, Some(256));
            Some([
                properties.reason_string.is_some(),
                properties.response_information.is_some(),
                properties.topic_alias_maximum.is_some(),
                properties.maximum_packet_size.is_some(),
            ])
        };
        assert_eq!(left(None), Some([true; 4]));
        assert_eq!(left(Some(45)), Some([true; 4]));
        assert_eq!(left(Some(44)), Some([false, true, true, true]));
        assert_eq!(left(Some(31)), Some([false, false, true, true]));
        assert_eq!(left(Some(23)), Some([false, false, false, true]));
        assert_eq!(left(Some(20)), Some([false; 4]));
        assert_eq!(left(Some(16)), Some([false; 4]));
        assert_eq!(left(Some(15)), None);
    }

    /// [MQTT-3.1.2-2], [MQTT311-3.1.2-2]
    #[test]
    fn unknown_level_is_answered_in_the_nearest_version() {
        for (level, expected) in [
            (3, &[0x20, 2, 0, 1][..]),
            (0x84, &[0x20, 2, 0, 1]),
            (6, &[0x20, 3, 0, 0x84, 0]),
            (0x85, &[0x20, 3, 0, 0x84, 0]),
        ] {
            let mut out = OutBuf::default();
            answer_unknown_version(level, &mut out);
            assert_eq!(out.bytes_mut(), expected, "level {level}");
        }
    }
}
