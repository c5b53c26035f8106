//! The broker's settings, checked and typed. How they are written in a file: `docs/config.md`.

mod file;
mod limits;
mod limits_file;
mod listener;
mod listener_file;
mod persistence;
mod servers_file;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use crate::yaml::{ConfigError, Problem};
pub use limits::{Limits, MemoryLimit};
pub use listener::{
    AddressRange, BindAddress, ClientCert, ListenerConfig, ListenerKind, TlsConfig,
};
pub use persistence::PersistenceConfig;

use crate::proto::TopicFilter;
use crate::proto::packet::QoS;

/// Everything that can be set about a broker.
///
/// The default is HBMQTT's: a TCP listener `default` on `0.0.0.0:1883`, anonymous clients welcome, `$SYS` every 20 s.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The listeners, in the order of the file, each with what it inherits from `listeners.default` filled in.
    pub listeners: Vec<ListenerConfig>,
    /// Key `timeout-disconnect-delay`: how long after its Keep Alive a silent client is disconnected, never later than
    /// 1.5 × Keep Alive; `None` = 1.5 × Keep Alive.
    pub timeout_disconnect_delay: Option<Duration>,
    /// Key `sys_interval`: time between two updates of `$SYS`, 20 s; zero = no `$SYS` topics.
    pub sys_interval: Duration,
    /// Section `auth`: who may connect, unless the listener has a section of its own.
    pub auth: AuthConfig,
    /// Section `topic-check`: who may publish and subscribe where.
    pub topic_check: TopicCheckConfig,
    /// Key `max-qos`: the highest QoS granted to a subscription and taken from a publisher, QoS 2.
    pub max_qos: QoS,
    /// Section `limits`.
    pub limits: Limits,
    /// Key `queue-qos0-messages`: keep QoS 0 messages for offline sessions too; off.
    pub queue_qos0_messages: bool,
    /// Key `queue-full`: what happens to a message that a session's queue cannot take.
    pub queue_full: QueueFull,
    /// Key `queue-full-filters`: the same for the topics of a filter; the first filter that matches decides.
    pub queue_full_filters: Vec<(TopicFilter, QueueFull)>,
    /// Key `shared-subscription-strategy`: which member of a shared subscription gets the next message.
    pub shared_subscription_strategy: SharedStrategy,
    /// Key `retain-available`: retained messages are kept; on.
    pub retain_available: bool,
    /// Key `check-retain-source`: a retained message is delivered only while its publisher may publish there; on.
    pub check_retain_source: bool,
    /// Key `upgrade-outgoing-qos`: deliver at the QoS of the subscription even where the message was published lower;
    /// off.
    pub upgrade_outgoing_qos: bool,
    /// Key `check-payload-format`: a payload that calls itself UTF-8 and is not is refused; off. MQTT 5.0 alone has such
    /// payloads.
    pub check_payload_format: bool,
    /// Key `response-information`: below which topic each client has an area of its own for responses, without a `/` at
    /// the end; `None` = there is none.
    pub response_information: Option<String>,
    /// Key `server-reference`: the other broker, `host` or `host:port`; several stand with spaces between them.
    pub server_reference: Option<String>,
    /// Key `redirect`: clients are sent to the other broker; off.
    pub redirect: Redirect,
    /// Key `user`: the user that the process becomes once its listeners are bound; `None` = it stays who it is.
    pub user: Option<String>,
    /// Key `plugins`: the plugins named at the top of the file; `None` if the key is absent.
    pub plugins: Option<Vec<PluginConfig>>,
    /// Section `persistence`.
    pub persistence: PersistenceConfig,
    /// What is odd about the file but does not stop the start; to be logged once.
    pub warnings: Vec<Problem>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: vec![ListenerConfig::default()],
            timeout_disconnect_delay: None,
            sys_interval: Duration::from_secs(20),
            auth: AuthConfig::default(),
            topic_check: TopicCheckConfig::default(),
            max_qos: QoS::ExactlyOnce,
            limits: Limits::default(),
            queue_qos0_messages: false,
            queue_full: QueueFull::DropOldest,
            queue_full_filters: Vec::new(),
            shared_subscription_strategy: SharedStrategy::RoundRobin,
            retain_available: true,
            check_retain_source: true,
            upgrade_outgoing_qos: false,
            check_payload_format: false,
            response_information: None,
            server_reference: None,
            redirect: Redirect::Off,
            user: None,
            plugins: None,
            persistence: PersistenceConfig::default(),
            warnings: Vec::new(),
        }
    }
}

/// Section `auth`: who may connect. Files named here are read by [`AuthChains::load`](super::auth::AuthChains::load).
#[derive(Debug, Clone, PartialEq)]
pub struct AuthConfig {
    /// Key `allow-anonymous`: clients without a user name may connect; on.
    pub allow_anonymous: bool,
    /// Key `password-file`: user names and password hashes.
    pub password_file: Option<PathBuf>,
    /// Key `acl-file`: who may publish and subscribe where, in mosquitto's syntax.
    pub acl_file: Option<PathBuf>,
    /// Key `scram-file`: the users of the authentication method SCRAM-SHA-256.
    pub scram_file: Option<PathBuf>,
    /// Key `plugins`: the authenticators that are asked; `None` = all. An empty list means that nobody may connect.
    pub plugins: Option<Vec<PluginConfig>>,
    /// Key `allow-zero-length-clientid`: the broker assigns an identifier to clients that come without one; on.
    pub allow_zero_length_clientid: bool,
    /// Key `auto-id-prefix`: what an assigned client identifier begins with, `auto-`.
    pub auto_id_prefix: String,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            allow_anonymous: true,
            password_file: None,
            acl_file: None,
            scram_file: None,
            plugins: None,
            allow_zero_length_clientid: true,
            auto_id_prefix: "auto-".to_owned(),
        }
    }
}

/// Section `topic-check`: HBMQTT's checks of topics.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicCheckConfig {
    /// Key `enabled`: off by default, and then nothing in this section has any effect.
    pub enabled: bool,
    /// Key `plugins`: the checks to run (`topic_acl`, `topic_taboo`); `None` = all.
    pub plugins: Option<Vec<PluginConfig>>,
    /// Key `acl`: user → filters that it may subscribe to, and publish to where `publish_acl` is absent.
    pub acl: Option<TopicAcl>,
    /// Key `publish-acl`: user → filters of the topics that it may publish to.
    pub publish_acl: Option<TopicAcl>,
    /// Key `subscribe-acl`: user → filters that it may subscribe to; goes before `acl`.
    pub subscribe_acl: Option<TopicAcl>,
    /// Key `receive-acl`: user → filters of the topics whose messages it may be sent.
    pub receive_acl: Option<TopicAcl>,
    /// Key `taboo-topics`: what `topic_taboo` denies to everybody but the user `admin`.
    pub taboo_topics: Vec<String>,
}

impl Default for TopicCheckConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            plugins: None,
            acl: None,
            publish_acl: None,
            subscribe_acl: None,
            receive_acl: None,
            taboo_topics: ["prohibited", "top-secret", "data/classified"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

/// For each user the topic filters of its rule, in the order of the file. Clients without a user name are `anonymous`.
pub type TopicAcl = Vec<(String, Vec<String>)>;

/// A plugin as it is named in the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// Its registered name: `auth_file` also where `auth.file` or HBMQTT's class path was written.
    pub name: String,
    /// Its options, where the settings give any.
    pub options: crate::yaml::Node,
    /// Line and column of the name.
    pub place: Option<(usize, usize)>,
}

/// What happens to a message that a session's queue cannot take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueFull {
    /// `reject`: the message is not queued, and its publisher is told (MQTT 5.0: 0x97).
    Reject,
    /// `drop-oldest`: the oldest message of the queue makes room. The default.
    DropOldest,
    /// `drop-new`: the message is not queued.
    DropNew,
}

/// Which member of a shared subscription gets the next message. Always one that can take it, and one that is online before
/// one that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedStrategy {
    /// `round-robin`: the next one in turn. The default.
    RoundRobin,
    /// `random`: any.
    Random,
    /// `least-inflight`: the one with the fewest messages waiting and unacknowledged.
    LeastInflight,
    /// `sticky`: always the same one while it is online.
    Sticky,
    /// `hash`: for each publishing client always the same one while it is online, so that its messages stay in order.
    Hash,
}

/// Key `redirect`: whether clients are sent to the broker that `server-reference` names.
///
/// Source: MQTT 5.0 §4.11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// `off`: they are not. The default.
    Off,
    /// `temporary`: for now (0x9C, Use another server).
    Temporary,
    /// `permanent`: for good (0x9D, Server moved).
    Permanent,
}
