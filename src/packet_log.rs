//! Packets as log lines at debug level, in HBMQTT's form:
//!
//! ```text
//! hbmqtt/q3Lx -out-> PublishPacket(ts=2015-11-11 21:54:48.843901, fixed=MQTTFixedHeader(length=28, flags=0x0), variable=PublishVariableHeader(topic=a/b, packet_id=None), payload=PublishPayload(data="b'TEST'"))
//! ```
//!
//! Times are UTC. Passwords are never shown, long payloads are cut, and what came over the network is escaped.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::outbox::OutBuf;
#[cfg(feature = "broker")]
use crate::proto::codec;
use crate::proto::packet::connect::Connect;
use crate::proto::packet::{self, Ack, Packet, PacketId};
use crate::proto::{DecodeError, Decoder, Frame, ProtocolVersion};

/// Whether anybody wants the lines.
pub(crate) fn is_on() -> bool {
    log::log_enabled!(log::Level::Debug)
}

/// Logs every packet in `out`.
#[cfg(feature = "client")]
pub(crate) fn sent(client_id: &str, version: ProtocolVersion, out: &OutBuf) {
    for (frame, packet) in packets(version, out) {
        match packet {
            Ok(packet) => log::debug!(
                "{} -out-> {}",
                client_id.escape_debug(),
                line(frame, &packet, SystemTime::now())
            ),
            Err(error) => log::debug!("{} -out-> {error}", client_id.escape_debug()),
        }
    }
}

/// Every packet in `out`, decoded again.
pub(crate) fn packets(
    version: ProtocolVersion,
    out: &OutBuf,
) -> impl Iterator<Item = (Frame, Result<Packet, DecodeError>)> {
    let decoder = Decoder::new(version);
    let mut rest = Bytes::from(out.to_vec());
    std::iter::from_fn(move || {
        let frame = decoder.frame(&rest).ok()??;
        let packet = rest.split_to(frame.total_bytes as usize);
        Some((frame, decoder.decode(frame, &packet)))
    })
}

/// Logs a packet of which only the meaning is known, with the flags and the length that it has on the wire.
#[cfg(feature = "broker")]
pub(crate) fn meaning(client_id: &str, arrow: Arrow, version: ProtocolVersion, packet: &Packet) {
    let mut bytes = Vec::new();
    let client_id = client_id.escape_debug();
    if codec::encode(packet, version, &mut bytes).is_ok()
        && let Ok(Some(frame)) = Decoder::new(version).frame(&bytes)
    {
        let line = line(frame, packet, SystemTime::now());
        match arrow {
            Arrow::Out => log::debug!("{client_id} -out-> {line}"),
            Arrow::In => log::debug!("{client_id} <-in-- {line}"),
        }
    }
}

/// Which way a packet went.
#[cfg(feature = "broker")]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrow {
    /// From here.
    Out,
    /// To here.
    In,
}

/// Logs a packet that came.
#[cfg(feature = "client")]
pub(crate) fn received(client_id: &str, frame: Frame, packet: &Packet) {
    if is_on() {
        log::debug!(
            "{} <-in-- {}",
            client_id.escape_debug(),
            line(frame, packet, SystemTime::now())
        );
    }
}

/// Logs a PUBLISH that came.
#[cfg(feature = "client")]
pub(crate) fn received_publish(client_id: &str, frame: Frame, publish: &packet::Publish) {
    received(
        client_id,
        frame,
        &Packet::Publish(Box::new(publish.clone())),
    );
}

fn line(frame: Frame, packet: &Packet, at: SystemTime) -> String {
    let mut line = String::new();
    let _ = write!(
        line,
        "{}(ts={}, fixed=MQTTFixedHeader(length={}, flags={:#x}), ",
        name(packet),
        Timestamp(at),
        frame.total_bytes.saturating_sub(frame.header_bytes),
        frame.flags,
    );
    let _ = write_body(&mut line, packet);
    line.push(')');
    line
}

fn name(packet: &Packet) -> &'static str {
    match packet {
        Packet::Connect(_) => "ConnectPacket",
        Packet::Connack(_) => "ConnackPacket",
        Packet::Publish(_) => "PublishPacket",
        Packet::Puback(_) => "PubackPacket",
        Packet::Pubrec(_) => "PubrecPacket",
        Packet::Pubrel(_) => "PubrelPacket",
        Packet::Pubcomp(_) => "PubcompPacket",
        Packet::Subscribe(_) => "SubscribePacket",
        Packet::Suback(_) => "SubackPacket",
        Packet::Unsubscribe(_) => "UnsubscribePacket",
        Packet::Unsuback(_) => "UnsubackPacket",
        Packet::Pingreq => "PingReqPacket",
        Packet::Pingresp => "PingRespPacket",
        Packet::Disconnect(_) => "DisconnectPacket",
        Packet::Auth(_) => "AuthPacket",
    }
}

fn write_body(line: &mut String, packet: &Packet) -> fmt::Result {
    match packet {
        Packet::Connect(connect) => write_connect(line, connect),
        Packet::Connack(connack) => write!(
            line,
            "variable=ConnackVariableHeader(session_parent={:#x}, return_code={:#x}), payload=None",
            u8::from(connack.session_present),
            connack
                .reason
                .connect_return_code()
                .unwrap_or_else(|| connack.reason.as_u8()),
        ),
        Packet::Publish(publish) => write!(
            line,
            "variable=PublishVariableHeader(topic={}, packet_id={}), payload=PublishPayload(data=\"{}\")",
            publish.topic.escape_debug(),
            OptionalId(publish.packet_id),
            PythonBytes(&publish.payload),
        ),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            write_ack(line, ack)
        }
        Packet::Subscribe(subscribe) => {
            write_id(line, subscribe.packet_id)?;
            line.push_str(", payload=SubscribePayload(");
            for (index, (filter, options)) in subscribe.filters.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let filter = filter.escape_debug();
                write!(line, "{comma}({filter}, {})", options.qos.as_u8())?;
            }
            line.write_char(')')
        }
        Packet::Suback(suback) => {
            write_id(line, suback.packet_id)?;
            let codes: Vec<u8> = suback.reasons.iter().map(|reason| reason.as_u8()).collect();
            write!(line, ", payload=SubackPayload(return_codes={codes:?})")
        }
        Packet::Unsubscribe(unsubscribe) => {
            write_id(line, unsubscribe.packet_id)?;
            write!(
                line,
                ", payload=UnsubscribePayload({:?})",
                unsubscribe.filters
            )
        }
        Packet::Unsuback(unsuback) => {
            write_id(line, unsuback.packet_id)?;
            line.write_str(", payload=None")
        }
        Packet::Disconnect(disconnect) if disconnect.reason.is_error() => write!(
            line,
            "variable=DisconnectVariableHeader(reason_code={:#x}), payload=None",
            disconnect.reason.as_u8(),
        ),
        Packet::Auth(auth) => write!(
            line,
            "variable=AuthVariableHeader(reason_code={:#x}), payload=None",
            auth.reason.as_u8(),
        ),
        Packet::Pingreq | Packet::Pingresp | Packet::Disconnect(_) => {
            line.write_str("variable=None, payload=None")
        }
    }
}

fn write_connect(line: &mut String, connect: &Connect) -> fmt::Result {
    let hidden = if connect.password.is_some() {
        "***"
    } else {
        "None"
    };
    let will = connect.will.as_ref();
    write!(
        line,
        "variable=ConnectVariableHeader(proto_name={}, proto_level={}, clean_session={}, keepalive={}), \
         payload=ConnectPayload(client_id={}, will_topic={}, will_message={}, username={}, password={hidden})",
        connect.version.protocol_name(),
        connect.version.level(),
        connect.clean_start,
        connect.keep_alive,
        connect.client_id.escape_debug(),
        Optional(will.map(|will| will.topic.escape_debug())),
        Optional(will.map(|will| PythonBytes(&will.payload))),
        Optional(connect.user_name.as_ref().map(|name| name.escape_debug())),
    )
}

fn write_id(line: &mut String, id: PacketId) -> fmt::Result {
    write!(line, "variable=PacketIdVariableHeader(packet_id={id})")
}

fn write_ack(line: &mut String, ack: &Ack) -> fmt::Result {
    write_id(line, ack.packet_id)?;
    if ack.reason.is_error() {
        write!(line, ", reason_code={:#x}", ack.reason.as_u8())?;
    }
    line.write_str(", payload=None")
}

struct Optional<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Optional<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("None"),
        }
    }
}

struct OptionalId(Option<PacketId>);

impl fmt::Display for OptionalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Optional(self.0).fmt(f)
    }
}

/// Bytes as Python writes them: `b'text \x00'`.
struct PythonBytes<'a>(&'a [u8]);

impl fmt::Display for PythonBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..MAX_SHOWN).unwrap_or(self.0);
        write!(f, "b'{}'", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, " and {} bytes more", self.0.len() - shown.len())?;
        }
        Ok(())
    }
}

/// `YYYY-MM-DD HH:MM:SS.ffffff`, UTC.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = self.0.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = since_epoch.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let of_day = seconds % 86_400;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06}",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60,
            since_epoch.subsec_micros(),
        )
    }
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March put the leap day last; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Bytes of a payload that are shown.
const MAX_SHOWN: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::QoS;
    use crate::proto::codec;
    use crate::proto::packet::Publish;
    use crate::proto::packet::connect::ConnectProperties;

    fn line_of(packet: &Packet) -> String {
        let mut bytes = Vec::new();
        codec::encode(packet, ProtocolVersion::V311, &mut bytes).unwrap();
        let frame = Decoder::new(ProtocolVersion::V311)
            .frame(&bytes)
            .unwrap()
            .unwrap();
        let at = UNIX_EPOCH + Duration::from_micros(1_447_278_888_843_901);
        line(frame, packet, at)
    }

    fn publish(payload: &[u8]) -> Packet {
        Packet::Publish(Box::new(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "a/b".into(),
            packet_id: PacketId::new(1),
            properties: None,
            payload: Bytes::copy_from_slice(payload),
        }))
    }

    /// LOG-8
    #[test]
    fn publish_looks_as_in_hbmqtt() {
        assert_eq!(
            line_of(&publish(b"TEST MESSAGE WITH QOS_1")),
            "PublishPacket(ts=2015-11-11 21:54:48.843901, fixed=MQTTFixedHeader(length=30, flags=0x2), \
             variable=PublishVariableHeader(topic=a/b, packet_id=1), \
             payload=PublishPayload(data=\"b'TEST MESSAGE WITH QOS_1'\"))"
        );
    }

    #[test]
    fn payloads_are_escaped_and_cut() {
        assert!(line_of(&publish(b"\x1b[31m\n'")).contains(r"b'\x1b[31m\n\''"));
        let long = line_of(&publish(&[b'x'; 5000]));
        assert!(long.ends_with("x' and 4000 bytes more\"))"), "{long}");
    }

    /// BUG-21
    #[test]
    fn the_password_is_not_shown() {
        let line = line_of(&Packet::Connect(Box::new(Connect {
            version: ProtocolVersion::V311,
            clean_start: true,
            keep_alive: 10,
            client_id: "me".into(),
            will: None,
            user_name: Some("user".into()),
            password: Some(Bytes::from_static(b"secret")),
            properties: ConnectProperties::default(),
        })));
        assert!(line.contains("username=user, password=***"), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (20_779, (2026, 11, 22)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
