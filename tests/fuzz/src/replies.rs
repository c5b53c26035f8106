//! What the broker answers must be MQTT, and within what the client said it takes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use bytes::Bytes;
use hbmqtt::proto::{Decoder, Packet, PacketType, ProtocolVersion, ReasonCode};

use crate::packets::{Terms, Version};

/// Which packets with which reason codes came: how far the fuzzer gets.
#[derive(Debug, Default)]
pub(crate) struct Kinds(BTreeMap<u8, (PacketType, BTreeSet<u8>)>);

impl Kinds {
    fn note(&mut self, packets: &[(Packet, usize)]) {
        for (packet, _) in packets {
            let reasons = match packet {
                Packet::Connack(packet) => vec![packet.reason],
                Packet::Puback(ack)
                | Packet::Pubrec(ack)
                | Packet::Pubrel(ack)
                | Packet::Pubcomp(ack) => vec![ack.reason],
                Packet::Suback(packet) => packet.reasons.clone(),
                Packet::Unsuback(packet) => packet.reasons.clone(),
                Packet::Disconnect(packet) => vec![packet.reason],
                Packet::Auth(packet) => vec![packet.reason],
                _ => vec![ReasonCode::Success],
            };
            let kind = packet.packet_type();
            let (_, known) = self.0.entry(kind as u8).or_insert((kind, BTreeSet::new()));
            known.extend(reasons.iter().map(|reason| reason.as_u8()));
        }
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, reasons) in self.0.values() {
            write!(f, " {kind:?}")?;
            for reason in reasons {
                write!(f, " {reason:02x}")?;
            }
        }
        Ok(())
    }
}

/// Checks all that the broker sent to one client. `whole`: the broker had the time to finish.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn check(
    bytes: &[u8],
    terms: Option<&Terms>,
    whole: bool,
    kinds: &mut Kinds,
) -> Result<(), String> {
    let Some(terms) = terms else {
        // Which version the broker took it for is not known here.
        let mut errors = Vec::new();
        for version in ProtocolVersion::ALL {
            match decode(bytes, version, whole) {
                Ok(packets) => {
                    kinds.note(&packets);
                    return check_order(&packets, true);
                }
                Err(error) => errors.push(format!("under {version}: {error}")),
            }
        }
        return Err(errors.join("; "));
    };
    let version = match terms.version {
        Version::V31 => ProtocolVersion::V31,
        Version::V311 => ProtocolVersion::V311,
        Version::V5 => ProtocolVersion::V5,
    };
    let packets = decode(bytes, version, whole)?;
    kinds.note(&packets);
    check_order(&packets, terms.authenticates)?;
    let mut aliases = HashSet::new();
    for (packet, size) in &packets {
        check_terms(packet, *size, terms, &mut aliases)?;
    }
    Ok(())
}

fn decode(
    bytes: &[u8],
    version: ProtocolVersion,
    whole: bool,
) -> Result<Vec<(Packet, usize)>, String> {
    let decoder = Decoder::new(version);
    let mut packets = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let frame = decoder.frame(rest).map_err(|error| format!("{error:?}"))?;
        let Some(frame) = frame else {
            return if whole {
                Err(format!("half a packet at the end: {rest:02x?}"))
            } else {
                Ok(packets)
            };
        };
        let size = frame.total_bytes as usize;
        let (one, after) = rest.split_at(size);
        let packet = decoder
            .decode(frame, &Bytes::copy_from_slice(one))
            .map_err(|error| format!("{error:?} in {one:02x?}"))?;
        packets.push((packet, size));
        rest = after;
    }
    Ok(packets)
}

/// CONNACK first, once; nothing behind DISCONNECT; nothing that only clients send.
fn check_order(packets: &[(Packet, usize)], may_authenticate: bool) -> Result<(), String> {
    let mut connected = false;
    let mut ended = false;
    for (packet, _) in packets {
        if ended {
            return Err(format!("{packet:?} behind the last packet"));
        }
        match packet {
            Packet::Connack(connack) => {
                if connected {
                    return Err("a second CONNACK".to_owned());
                }
                connected = true;
                ended = connack.reason.is_error();
            }
            Packet::Auth(_) if may_authenticate => {}
            _ if !connected => return Err(format!("{packet:?} before CONNACK")),
            Packet::Disconnect(_) => ended = true,
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq
            | Packet::Auth(_) => return Err(format!("{packet:?} from a broker")),
            _ => {}
        }
    }
    Ok(())
}

fn check_terms(
    packet: &Packet,
    size: usize,
    terms: &Terms,
    aliases: &mut HashSet<u16>,
) -> Result<(), String> {
    if size > terms.largest {
        return Err(format!(
            "{size} bytes, the client takes {}: {packet:?}",
            terms.largest
        ));
    }
    match packet {
        Packet::Publish(publish) => {
            let alias = publish.properties.as_ref().and_then(|all| all.topic_alias);
            if alias.is_some_and(|alias| alias > terms.aliases) {
                return Err(format!("an alias above {}: {packet:?}", terms.aliases));
            }
            let known = alias.is_some_and(|alias| aliases.contains(&alias));
            if publish.topic.is_empty() && !known {
                return Err(format!("neither topic nor known alias: {packet:?}"));
            }
            aliases.extend(alias);
        }
        // Request Problem Information 0 leaves them to PUBLISH, CONNACK and DISCONNECT.
        Packet::Connack(_) | Packet::Disconnect(_) => {}
        _ if !terms.problems => {
            let text = format!("{packet:?}");
            if text.contains("reason_string: Some") {
                return Err(format!("a Reason String that was not asked for: {text}"));
            }
        }
        _ => {}
    }
    Ok(())
}
