//! What a client may not send: access rules, limits and formats, for each PUBLISH and each topic filter.

use bytestring::ByteString;

use super::Reader;
use crate::broker::auth::{Access, Action};
use crate::broker::connection::End;
use crate::broker::connection::handshake::is_reserved;
use crate::broker::response_area::ResponseAreas;
use crate::broker::router::command::{
    Refusal, RequestedFilter, SubscribeRequest, UnsubscribeRequest,
};
use crate::proto::packet::{PublishView, Subscribe, Unsubscribe};
use crate::proto::{ProtocolError, ReasonCode, ShareName, TopicFilter, topic};

impl Reader {
    /// Why a PUBLISH is not routed, if so.
    ///
    /// `full_topic` is `topic` behind the listener's mount point: the access rules speak of it.
    pub(super) fn refusal(
        &mut self,
        view: &PublishView<'_>,
        topic: &str,
        full_topic: &str,
    ) -> Result<Option<Refusal>, End> {
        let limits = &self.config.limits;
        let refuse = |reason, text| {
            Ok(Some(Refusal {
                qos: view.qos,
                packet_id: view.packet_id,
                reason,
                text,
            }))
        };
        if topic.len() > limits.max_topic_levels
            && topic::levels(topic).count() > limits.max_topic_levels
            || topic.len() > limits.max_topic_length
        {
            if view.packet_id.is_some() && self.version().has_reason_codes() {
                return refuse(
                    ReasonCode::TopicNameInvalid,
                    "the topic has too many levels or is too long",
                );
            }
            return Err(ProtocolError::NotAvailable(ReasonCode::TopicNameInvalid).into());
        }
        if view.payload.len() > limits.max_payload_size {
            self.services.metrics.packets_too_large.increment();
            return refuse(ReasonCode::PacketTooLarge, "the payload is too large");
        }
        let denied = is_reserved(topic)
            || (self.checks_publish
                && !self
                    .chain
                    .authorize(&self.access(Action::Publish, full_topic)));
        if denied {
            self.report_denial("publish to", topic);
            return refuse(
                ReasonCode::NotAuthorized,
                "the client may not publish to this topic",
            );
        }
        if self.config.check_payload_format
            && let Some(properties) = &view.properties
            && !properties.describes(view.payload)
        {
            self.services.metrics.payload_format_invalid.increment();
            let level = if std::mem::replace(&mut self.payload_format_reported, true) {
                log::Level::Debug
            } else {
                log::Level::Warn
            };
            log::log!(
                level,
                "{} published to '{}' what is not the UTF-8 that its Payload Format Indicator says",
                self.client_id.escape_debug(),
                topic.escape_debug()
            );
            return refuse(ReasonCode::PayloadFormatInvalid, NOT_UTF8);
        }
        Ok(None)
    }

    /// One line for the first access that is denied; the others are summed when the connection ends.
    fn report_denial(&mut self, action: &str, topic: &str) {
        self.services.metrics.access_denied.increment();
        self.denials += 1;
        if self.denials == 1 {
            log::warn!(
                "{} may not {action} '{}'",
                self.client_id.escape_debug(),
                topic.escape_debug()
            );
        }
    }

    /// Parses and authorises the filters of a SUBSCRIBE.
    pub(super) fn check_subscribe(
        &mut self,
        subscribe: &Subscribe,
    ) -> Result<SubscribeRequest, End> {
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        let mut reason_string = None;
        let areas = ResponseAreas::of(&self.config);
        for (text, options) in &subscribe.filters {
            let Some((share, filter)) = self.parse_filter(text)? else {
                reason_string = Some("the topic filter has too many levels or is too long");
                filters.push(Err(ReasonCode::TopicFilterInvalid));
                continue;
            };
            // [MQTT-3.8.3-4]
            if share.is_some() && options.no_local {
                return Err(ProtocolError::NotAvailable(ReasonCode::ProtocolError).into());
            }
            if !self
                .chain
                .authorize(&self.access(Action::Subscribe, filter.as_str()))
            {
                self.report_denial("subscribe to", text);
                reason_string = Some("the client may not subscribe to this filter");
                filters.push(Err(ReasonCode::NotAuthorized));
                continue;
            }
            if !areas.allow(&filter, share.as_ref(), &self.client_id) {
                self.report_denial("subscribe to", text);
                reason_string =
                    Some("only its client may subscribe below its Response Information");
                filters.push(Err(ReasonCode::NotAuthorized));
                continue;
            }
            filters.push(Ok(RequestedFilter {
                // A copy: a subscription must not keep the read buffer alive.
                text: ByteString::from(&**text),
                share,
                filter,
                options: *options,
            }));
        }
        Ok(SubscribeRequest {
            packet_id: subscribe.packet_id,
            id: subscribe.subscription_identifier,
            filters,
            reason_string,
        })
    }

    pub(super) fn check_unsubscribe(
        &self,
        unsubscribe: &Unsubscribe,
    ) -> Result<UnsubscribeRequest, End> {
        let mut filters = Vec::with_capacity(unsubscribe.filters.len());
        for text in &unsubscribe.filters {
            filters.push(match self.parse_filter(text)? {
                Some((share, filter)) => Ok(RequestedFilter {
                    text: text.clone(),
                    share,
                    filter,
                    options: Default::default(),
                }),
                None => Err(ReasonCode::TopicFilterInvalid),
            });
        }
        Ok(UnsubscribeRequest {
            packet_id: unsubscribe.packet_id,
            filters,
        })
    }

    /// `None`: the filter is beyond a limit. An invalid one ends the connection. [MQTT-4.7.1-1], [MQTT-4.7.3-1]
    fn parse_filter(
        &self,
        text: &ByteString,
    ) -> Result<Option<(Option<ShareName>, TopicFilter)>, End> {
        let limits = &self.config.limits;
        let (share, filter) = topic::parse_subscription(text).map_err(|error| {
            log::warn!(
                "[MQTT-4.7.3-1] - {} invalid filter '{}' in SUBSCRIBE or UNSUBSCRIBE: {error}",
                self.client_id.escape_debug(),
                text.escape_debug()
            );
            End::Protocol(ProtocolError::NotAvailable(ReasonCode::TopicFilterInvalid))
        })?;
        if filter.as_str().len() > limits.max_topic_length
            || filter.levels().count() > limits.max_topic_levels
        {
            return Ok(None);
        }
        let filter = match &self.mount_point {
            None => filter,
            Some(prefix) => match TopicFilter::parse(format!("{prefix}{filter}")) {
                Ok(filter) => filter,
                Err(_) => return Ok(None),
            },
        };
        Ok(Some((share, filter)))
    }

    fn access<'a>(&'a self, action: Action, topic: &'a str) -> Access<'a> {
        Access {
            client_id: &self.client_id,
            user: self.user_name.as_deref(),
            action,
            topic,
        }
    }
}

/// What a client is told whose payload is not what its Payload Format Indicator says.
pub(in crate::broker::connection) const NOT_UTF8: &str =
    "the payload is not UTF-8: leave the Payload Format Indicator out, or send 0";
