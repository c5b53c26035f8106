//! UNSUBSCRIBE.

use bytestring::ByteString;

use super::{PacketId, PacketType, UserProperty};
use crate::proto::property::{self, Carrier, Properties, PropertyId};
use crate::proto::wire::{self, Reader};
use crate::proto::{DecodeError, Decoder, EncodeError, ProtocolVersion};

/// UNSUBSCRIBE: ends one or more subscriptions.
///
/// Source: MQTT 5.0 §3.10; MQTT 3.1.1 §3.10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Topic Filters as they came; at least one.
    pub filters: Vec<ByteString>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
}

impl Unsubscribe {
    /// Reads the body.
    pub(crate) fn decode(decoder: &Decoder, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut unsubscribe = Self {
            packet_id: reader.packet_id()?,
            filters: Vec::new(),
            user_properties: Vec::new(),
        };
        if decoder.version.has_properties() {
            let mut section = Properties::read(reader, decoder, Carrier::Unsubscribe)?;
            while let Some(id) = section.next()? {
                match id {
                    PropertyId::UserProperty => unsubscribe.user_properties.push(section.pair()?),
                    _ => return Err(section.unexpected()),
                }
            }
        }
        // [MQTT-3.10.3-2]
        if reader.is_empty() {
            return Err(DecodeError::NoTopicFilter);
        }
        while !reader.is_empty() {
            let filter = reader.string()?;
            if unsubscribe.filters.len() >= decoder.max_filters as usize {
                return Err(DecodeError::TooManyFilters);
            }
            unsubscribe.filters.push(filter);
        }
        Ok(unsubscribe)
    }

    /// Appends the packet to `out`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`]: no Topic Filter.
    /// [`EncodeError::FieldTooLong`], [`EncodeError::PacketTooLarge`]: beyond the format's limits.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::Invalid);
        }
        wire::put_packet(out, PacketType::Unsubscribe.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.value());
            if version.has_properties() {
                property::put_section(out, |section| {
                    section.user_properties(&self.user_properties)
                })?;
            }
            self.filters
                .iter()
                .try_for_each(|filter| wire::put_string(out, filter))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_without_filters_is_refused() {
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::new(1).unwrap(),
            filters: Vec::new(),
            user_properties: Vec::new(),
        };
        for version in ProtocolVersion::ALL {
            let result = unsubscribe.encode(version, &mut Vec::new());
            assert_eq!(result, Err(EncodeError::Invalid));
        }
    }
}
