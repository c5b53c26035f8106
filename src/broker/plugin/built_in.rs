//! The plugins that come with the broker, by the names that HBMQTT registers.

use log::info;

use super::{Interests, Plugin, PluginContext, SessionInfo};
use crate::broker::config::{Config, PluginConfig};
use crate::packet_log::{self, Arrow};
use crate::proto::packet::QoS;
use crate::proto::{Message, Packet};

/// A name that the settings may list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuiltIn {
    /// Clients without a user name; runs in [`crate::broker::auth`].
    AuthAnonymous,
    /// The password file; runs there too.
    AuthFile,
    /// SCRAM-SHA-256; runs there too.
    AuthScram,
    /// Topics that are for `admin` only; runs there too.
    TopicTaboo,
    /// Lists of filters by user; runs there too.
    TopicAcl,
    /// The `$SYS` topics; runs on the router, as `sys_interval` says.
    BrokerSys,
    /// Each packet as a log line at debug level.
    PacketLogger,
    /// Each event as a log line at info level.
    EventLogger,
}

impl BuiltIn {
    pub(super) const ALL: [Self; 8] = [
        Self::AuthAnonymous,
        Self::AuthFile,
        Self::AuthScram,
        Self::TopicTaboo,
        Self::TopicAcl,
        Self::BrokerSys,
        Self::PacketLogger,
        Self::EventLogger,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AuthAnonymous => "auth_anonymous",
            Self::AuthFile => "auth_file",
            Self::AuthScram => "auth_scram",
            Self::TopicTaboo => "topic_taboo",
            Self::TopicAcl => "topic_acl",
            Self::BrokerSys => "broker_sys",
            Self::PacketLogger => "packet_logger_plugin",
            Self::EventLogger => "event_logger_plugin",
        }
    }

    fn is_in(self, list: Option<&Vec<PluginConfig>>) -> bool {
        list.is_some_and(|list| list.iter().any(|plugin| plugin.name == self.name()))
    }
}

/// The built-in plugins that the thread `plugins` runs.
pub(super) fn plugins(config: &Config) -> Vec<Box<dyn Plugin>> {
    let mut plugins: Vec<Box<dyn Plugin>> = Vec::new();
    if packet_log::is_on() {
        plugins.push(Box::new(PacketLogger));
    }
    if BuiltIn::EventLogger.is_in(config.plugins.as_ref()) {
        plugins.push(Box::new(EventLogger));
    }
    plugins
}

/// The names of the others that the settings make active.
pub(super) fn active_checks(config: &Config) -> Vec<String> {
    let (top, auth) = (config.plugins.as_ref(), config.auth.plugins.as_ref());
    let check = &config.topic_check;
    let authenticates =
        |one: BuiltIn| (top.is_none() && auth.is_none()) || one.is_in(top) || one.is_in(auth);
    let checks = |one: BuiltIn| {
        let listed = check.plugins.as_ref();
        check.enabled && (listed.is_none() || one.is_in(listed))
    };
    let is_active = |one: &BuiltIn| match one {
        BuiltIn::AuthAnonymous | BuiltIn::AuthFile => authenticates(*one),
        BuiltIn::AuthScram => config.auth.scram_file.is_some() && authenticates(*one),
        BuiltIn::TopicTaboo | BuiltIn::TopicAcl => checks(*one),
        BuiltIn::BrokerSys => !config.sys_interval.is_zero(),
        BuiltIn::PacketLogger | BuiltIn::EventLogger => false,
    };
    let active = BuiltIn::ALL.into_iter().filter(is_active);
    active.map(|one| one.name().to_owned()).collect()
}

/// `packet_logger_plugin`: a line for each packet at debug level, in HBMQTT's form. It runs whenever that level is logged
/// when the broker starts, be it listed or not.
#[derive(Debug)]
struct PacketLogger;

impl Plugin for PacketLogger {
    fn name(&self) -> &str {
        BuiltIn::PacketLogger.name()
    }

    fn interests(&self) -> Interests {
        Interests {
            messages: false,
            packets: true,
        }
    }

    fn on_mqtt_packet_sent(&mut self, _: &dyn PluginContext, packet: &Packet, to: &SessionInfo) {
        packet_log::meaning(&to.client_id, Arrow::Out, to.version, packet);
    }

    fn on_mqtt_packet_received(
        &mut self,
        _: &dyn PluginContext,
        packet: &Packet,
        from: &SessionInfo,
    ) {
        packet_log::meaning(&from.client_id, Arrow::In, from.version, packet);
    }
}

/// `event_logger_plugin`: a line for each event, in HBMQTT's words.
#[derive(Debug)]
struct EventLogger;

impl EventLogger {
    fn log(event: &str) {
        info!("### '{event}' EVENT FIRED ###");
    }
}

impl Plugin for EventLogger {
    fn name(&self) -> &str {
        BuiltIn::EventLogger.name()
    }

    fn interests(&self) -> Interests {
        Interests::ALL
    }

    fn on_broker_pre_start(&mut self, _: &dyn PluginContext) {
        Self::log("broker_pre_start");
    }

    fn on_broker_post_start(&mut self, _: &dyn PluginContext) {
        Self::log("broker_post_start");
    }

    fn on_broker_pre_shutdown(&mut self, _: &dyn PluginContext) {
        Self::log("broker_pre_shutdown");
    }

    fn on_broker_post_shutdown(&mut self, _: &dyn PluginContext) {
        Self::log("broker_post_shutdown");
    }

    fn on_broker_client_connected(&mut self, _: &dyn PluginContext, _: &SessionInfo) {
        Self::log("broker_client_connected");
    }

    fn on_broker_client_disconnected(&mut self, _: &dyn PluginContext, _: &SessionInfo) {
        Self::log("broker_client_disconnected");
    }

    fn on_broker_client_subscribed(&mut self, _: &dyn PluginContext, _: &str, _: &str, _: QoS) {
        Self::log("broker_client_subscribed");
    }

    fn on_broker_client_unsubscribed(&mut self, _: &dyn PluginContext, _: &str, _: &str) {
        Self::log("broker_client_unsubscribed");
    }

    fn on_broker_message_received(&mut self, _: &dyn PluginContext, _: &str, _: &Message) {
        Self::log("broker_message_received");
    }

    fn on_broker_retained_message(&mut self, _: &dyn PluginContext, _: Option<&str>, _: &Message) {
        Self::log("broker_retained_message");
    }

    fn on_broker_message_broadcast(&mut self, _: &dyn PluginContext, _: Option<&str>, _: &Message) {
        Self::log("broker_message_broadcast");
    }

    fn on_mqtt_packet_sent(&mut self, _: &dyn PluginContext, _: &Packet, _: &SessionInfo) {
        Self::log("mqtt_packet_sent");
    }

    fn on_mqtt_packet_received(&mut self, _: &dyn PluginContext, _: &Packet, _: &SessionInfo) {
        Self::log("mqtt_packet_received");
    }
}
