//! SUBSCRIBE.

use bytestring::ByteString;

use super::{PacketId, PacketType, QoS, UserProperty};
use crate::proto::property::{self, Carrier, Properties, PropertyId};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion};

/// SUBSCRIBE: asks for one or more subscriptions.
///
/// Source: MQTT 5.0 §3.8; MQTT 3.1.1 §3.8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Topic Filters as they came (UTF-8, not yet checked as filters) with their options; at least one.
    pub filters: Vec<(ByteString, SubscriptionOptions)>,
    /// Subscription Identifier, 1 to 268,435,455.
    pub subscription_identifier: Option<u32>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
}

/// The Subscription Options of one Topic Filter.
///
/// Source: MQTT 5.0 §3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local: own messages are not sent back.
    pub no_local: bool,
    /// Retain As Published: the RETAIN flag of forwarded messages is kept.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription.
///
/// Source: MQTT 5.0 §3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    Always = 0,
    /// 1: only if the subscription did not exist.
    IfNew = 1,
    /// 2: never.
    Never = 2,
}

impl Subscribe {
    /// Reads the body.
    pub(crate) fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut subscribe = Self {
            packet_id: reader.packet_id()?,
            filters: Vec::new(),
            subscription_identifier: None,
            user_properties: Vec::new(),
        };
        if decoder.version.has_properties() {
            subscribe.read_properties(decoder, reader)?;
        }
        // [MQTT-3.8.3-2]
        if reader.is_empty() {
            return Err(DecodeError::NoTopicFilter);
        }
        while !reader.is_empty() {
            let filter = reader.string()?;
            let options = SubscriptionOptions::decode(decoder.version, reader.u8()?)?;
            // [MQTT-3.8.3-4]
            if options.no_local && is_shared(&filter) {
                return Err(DecodeError::InvalidSubscriptionOptions);
            }
            if subscribe.filters.len() >= decoder.max_filters as usize {
                return Err(DecodeError::TooManyFilters);
            }
            subscribe.filters.push((filter, options));
        }
        Ok(subscribe)
    }

    fn read_properties(
        &mut self,
        decoder: &Decoder,
        reader: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        let mut section = Properties::read(reader, decoder, Carrier::Subscribe)?;
        while let Some(id) = section.next()? {
            match id {
                PropertyId::SubscriptionIdentifier => {
                    self.subscription_identifier = Some(section.positive_varint()?);
                }
                PropertyId::UserProperty => self.user_properties.push(section.pair()?),
                _ => return Err(section.unexpected()),
            }
        }
        Ok(())
    }

    /// Appends the packet to `out`, which is left as it was on an error. Before 5.0 only the QoS of the options is
    /// written.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`]: no Topic Filter, No Local on a shared subscription, or a Subscription Identifier out
    /// of range.
    /// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::Invalid);
        }
        wire::put_packet(out, PacketType::Subscribe.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.value());
            if version.has_properties() {
                property::put_section(out, |section| {
                    section.positive_varint(
                        PropertyId::SubscriptionIdentifier,
                        self.subscription_identifier,
                    )?;
                    section.user_properties(&self.user_properties)
                })?;
            }
            for (filter, options) in &self.filters {
                if options.no_local && version.has_subscription_options() && is_shared(filter) {
                    return Err(EncodeError::Invalid);
                }
                wire::put_string(out, filter)?;
                out.push(options.encode(version));
            }
            Ok(())
        })
    }
}

impl SubscriptionOptions {
    fn decode(version: ProtocolVersion, byte: u8) -> Result<Self, DecodeError> {
        let mut options = Self {
            qos: QoS::from_u8(byte & QOS).ok_or(DecodeError::InvalidSubscriptionOptions)?,
            ..Self::default()
        };
        let reserved = if version.has_subscription_options() {
            options.no_local = byte & NO_LOCAL != 0;
            options.retain_as_published = byte & RETAIN_AS_PUBLISHED != 0;
            options.retain_handling = match (byte & RETAIN_HANDLING) >> RETAIN_HANDLING_SHIFT {
                0 => RetainHandling::Always,
                1 => RetainHandling::IfNew,
                2 => RetainHandling::Never,
                _ => return Err(DecodeError::InvalidSubscriptionOptions),
            };
            !(QOS | NO_LOCAL | RETAIN_AS_PUBLISHED | RETAIN_HANDLING)
        } else {
            !QOS
        };
        // [MQTT-3.8.3-5], [MQTT311-3.8.3-4]
        if byte & reserved != 0 && version.checks_reserved_bits() {
            return Err(DecodeError::ReservedBit);
        }
        Ok(options)
    }

    fn encode(self, version: ProtocolVersion) -> u8 {
        let mut byte = self.qos.as_u8();
        if version.has_subscription_options() {
            if self.no_local {
                byte |= NO_LOCAL;
            }
            if self.retain_as_published {
                byte |= RETAIN_AS_PUBLISHED;
            }
            byte |= (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT;
        }
        byte
    }
}

/// The filter is that of a shared subscription.
fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

const QOS: u8 = 0b0000_0011;
const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RETAIN_HANDLING: u8 = 0b0011_0000;
const RETAIN_HANDLING_SHIFT: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(filters: Vec<(ByteString, SubscriptionOptions)>) -> Subscribe {
        Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            filters,
            subscription_identifier: None,
            user_properties: Vec::new(),
        }
    }

    #[test]
    fn older_versions_get_the_qos_alone() {
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::Never,
        };
        let subscribe = Subscribe {
            subscription_identifier: Some(7),
            ..subscribe(vec![("a".into(), options)])
        };
        let mut out = Vec::new();
        subscribe.encode(ProtocolVersion::V311, &mut out).unwrap();
        assert_eq!(out, [0x82, 6, 0, 1, 0, 1, b'a', 2]);
    }

    #[test]
    fn what_a_server_would_refuse_is_not_sent() {
        let no_local = SubscriptionOptions {
            no_local: true,
            ..SubscriptionOptions::default()
        };
        let plain = || subscribe(vec![("a".into(), SubscriptionOptions::default())]);
        for wrong in [
            subscribe(Vec::new()),
            subscribe(vec![("$share/g/a".into(), no_local)]),
            Subscribe {
                subscription_identifier: Some(0),
                ..plain()
            },
            Subscribe {
                subscription_identifier: Some(wire::MAX_VARINT + 1),
                ..plain()
            },
        ] {
            let mut out = vec![7];
            assert_eq!(
                wrong.encode(ProtocolVersion::V5, &mut out),
                Err(EncodeError::Invalid)
            );
            assert_eq!(out, [7], "left as it was");
        }
    }
}
