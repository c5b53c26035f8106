//! The settings file: its keys, read into [`Config`]. Every key is known here, and an unknown one is an error.

use std::path::Path;
use std::time::Duration;

use super::limits_file::limits;
use super::listener_file::listeners;
use super::persistence::persistence;
use super::servers_file::{redirection, response_information};
use super::{
    AuthConfig, Config, PluginConfig, QueueFull, SharedStrategy, TopicAcl, TopicCheckConfig,
};
use crate::proto::topic::TopicFilter;
use crate::yaml::{ConfigError, Document, Entry, Field, Findings, Node, NodeId, Section, Value};

impl Config {
    /// Reads the settings from a YAML (or JSON) text. The files that it names are not opened.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let document = Document::parse(text)?;
        let found = Findings::new(&document, HOMES);
        let mut config = read(&found);
        config.warnings = found.finish()?;
        Ok(config)
    }

    /// Reads the settings from a file. The files that it names are not opened.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or something in it is wrong.
    ///
    /// # Blocking
    /// Reads the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::read(path, error))?;
        let mut config = Self::parse(&text).map_err(|error| error.in_file(path))?;
        for warning in &mut config.warnings {
            warning.file = Some(path.to_owned());
        }
        Ok(config)
    }
}

/// Sets `$place` to what `$field` reads, if the key is there and right.
macro_rules! set {
    ($place:expr, $field:expr, $read:expr) => {
        if let Some(value) = $field.and_then(|field| $read(&field)) {
            $place = value;
        }
    };
}
pub(super) use set;

fn read(found: &Findings<'_>) -> Config {
    let root = found.root();
    let mut config = Config::default();
    set!(config.max_qos, root.field("max-qos"), Field::qos);
    let sections = root.field("limits").and_then(|field| field.section());
    if let Some(section) = sections {
        config.limits = limits(section);
    }
    if let Some(field) = root.field("auth")
        && let Some(section) = field.section()
    {
        config.auth = auth(section);
    }
    let mut topic_check_is_set = false;
    if let Some(field) = root.field("topic-check")
        && let Some(section) = field.section()
    {
        topic_check_is_set = field.node().get("enabled").is_some();
        config.topic_check = topic_check(section);
    }
    if let Some(section) = root.field("persistence").and_then(|field| field.section()) {
        config.persistence = persistence(section);
    }
    let expiry = |field: &Field<'_>| field.duration(SECOND..=Duration::MAX);
    set!(
        config.persistence.session_expiry,
        root.field("session_expiry_interval"),
        expiry
    );
    let any = |field: &Field<'_>| field.duration(Duration::ZERO..=Duration::MAX);
    set!(
        config.timeout_disconnect_delay,
        root.field("timeout-disconnect-delay"),
        |field| any(field).map(Some)
    );
    set!(config.sys_interval, root.field("sys_interval"), any);
    set!(
        config.queue_qos0_messages,
        root.field("queue-qos0-messages"),
        Field::bool
    );
    set!(
        config.queue_full,
        root.field("queue-full"),
        |field: &Field<'_>| field.choice(&QUEUE_FULL)
    );
    if let Some(section) = root
        .field("queue-full-filters")
        .and_then(|field| field.section())
    {
        config.queue_full_filters = queue_full_filters(&section);
    }
    set!(
        config.shared_subscription_strategy,
        root.field("shared-subscription-strategy"),
        |field: &Field<'_>| field.choice(&[
            ("round-robin", SharedStrategy::RoundRobin),
            ("random", SharedStrategy::Random),
            ("least-inflight", SharedStrategy::LeastInflight),
            ("sticky", SharedStrategy::Sticky),
            ("hash", SharedStrategy::Hash),
        ])
    );
    set!(
        config.retain_available,
        root.field("retain-available"),
        Field::bool
    );
    set!(
        config.check_retain_source,
        root.field("check-retain-source"),
        Field::bool
    );
    set!(
        config.upgrade_outgoing_qos,
        root.field("upgrade-outgoing-qos"),
        Field::bool
    );
    set!(
        config.check_payload_format,
        root.field("check-payload-format"),
        Field::bool
    );
    config.response_information = root
        .field("response-information")
        .and_then(|field| response_information(&field));
    redirection(&root, &mut config);
    config.user = root.field("user").and_then(|field| field.text());
    if let Some(field) = root.field("plugins") {
        config.plugins = plugins(&field);
        if matches!(field.node().value, Value::Map(_)) {
            plugin_options(&field, &mut config, topic_check_is_set);
        }
    }
    // Last: listeners start from what the broker's own settings say.
    if let Some(listeners) = listeners(&root, &config) {
        config.listeners = listeners;
    } else {
        for listener in &mut config.listeners {
            listener.max_qos = config.max_qos;
            listener.max_topic_alias = config.limits.max_topic_alias;
        }
    }
    root.finish();
    config
}

/// Reads a section `auth`, the broker's or a listener's.
pub(super) fn auth(section: Section<'_>) -> AuthConfig {
    let mut auth = AuthConfig::default();
    set!(
        auth.allow_anonymous,
        section.field("allow-anonymous"),
        Field::bool
    );
    auth.password_file = section
        .field("password-file")
        .and_then(|field| field.path());
    auth.acl_file = section.field("acl-file").and_then(|field| field.path());
    auth.scram_file = section.field("scram-file").and_then(|field| field.path());
    auth.plugins = section.field("plugins").and_then(|field| plugins(&field));
    set!(
        auth.allow_zero_length_clientid,
        section.field("allow-zero-length-clientid"),
        Field::bool
    );
    set!(
        auth.auto_id_prefix,
        section.field("auto-id-prefix"),
        Field::text
    );
    for (key, name) in [("password-file", "auth_file"), ("scram-file", "auth_scram")] {
        if let (Some(field), Some(plugins)) = (section.field(key), &auth.plugins)
            && !plugins.iter().any(|plugin| plugin.name == name)
        {
            field.warning(format!(
                "not used, because auth.plugins does not list {name}"
            ));
        }
    }
    section.finish();
    auth
}

fn topic_check(section: Section<'_>) -> TopicCheckConfig {
    let mut check = TopicCheckConfig::default();
    set!(check.enabled, section.field("enabled"), Field::bool);
    check.plugins = section.field("plugins").and_then(|field| plugins(&field));
    topic_rules(&section, &mut check);
    set!(check.taboo_topics, section.field("taboo-topics"), filters);
    section.finish();
    check
}

fn topic_rules(section: &Section<'_>, check: &mut TopicCheckConfig) {
    let rule = |key, place: &mut Option<TopicAcl>| {
        if let Some(acl) = section.field(key).and_then(|field| topic_acl(&field)) {
            *place = Some(acl);
        }
    };
    rule("acl", &mut check.acl);
    rule("publish-acl", &mut check.publish_acl);
    rule("subscribe-acl", &mut check.subscribe_acl);
    rule("receive-acl", &mut check.receive_acl);
}

/// `user: [filter, …]`. A user without a list may do nothing.
fn topic_acl(field: &Field<'_>) -> Option<TopicAcl> {
    let Value::Map(entries) = &field.node().value else {
        field.problem("expected 'user: [filter, …]' lines; write {} to allow nothing");
        return None;
    };
    let section = field.section()?;
    let mut acl = TopicAcl::new();
    for entry in entries {
        let rule = section.field_of(entry);
        let filters = match entry.value.value {
            Value::Null => Vec::new(),
            _ => filters(&rule)?,
        };
        match acl.iter_mut().find(|(user, _)| *user == entry.key) {
            Some((_, known)) => {
                rule.warning("the user is listed more than once; all its filters count");
                known.extend(filters);
            }
            None => acl.push((entry.key.clone(), filters)),
        }
    }
    Some(acl)
}

fn filters(field: &Field<'_>) -> Option<Vec<String>> {
    let filters = field.texts()?;
    for filter in &filters {
        if let Err(error) = TopicFilter::parse(filter.as_str()) {
            let shown = filter.escape_debug();
            field.problem(format!("'{shown}' is no topic filter: {error}"));
        }
    }
    Some(filters)
}

const QUEUE_FULL: [(&str, QueueFull); 3] = [
    ("reject", QueueFull::Reject),
    ("drop-oldest", QueueFull::DropOldest),
    ("drop-new", QueueFull::DropNew),
];

fn queue_full_filters(section: &Section<'_>) -> Vec<(TopicFilter, QueueFull)> {
    let rule = |entry| {
        let field = section.field_of(entry);
        let policy = field.choice(&QUEUE_FULL)?;
        match TopicFilter::parse(entry.key.clone()) {
            Ok(filter) => Some((filter, policy)),
            Err(error) => {
                field.problem_at(entry.key_id, error.to_string());
                None
            }
        }
    };
    section.entries().iter().filter_map(rule).collect()
}

/// The names of plugins: a list of names or of `name: options`, or a mapping from names to options.
fn plugins(field: &Field<'_>) -> Option<Vec<PluginConfig>> {
    let named = |entry: &Entry| (entry.key.clone(), entry.key_id, entry.value.clone());
    let mut written: Vec<(String, NodeId, Node)> = Vec::new();
    match &field.node().value {
        Value::Map(entries) => written.extend(entries.iter().map(named)),
        Value::List(_) => {
            for item in field.items()? {
                match &item.node().value {
                    Value::Map(entries) => written.extend(entries.iter().map(named)),
                    _ => written.push((item.text()?, item.node().id, Node::NULL)),
                }
            }
        }
        _ => {
            field.problem("expected a list of plugin names; write [] for none");
            return None;
        }
    }
    let mut plugins: Vec<PluginConfig> = Vec::new();
    for (name, id, options) in written {
        let name = plugin_name(&name);
        if plugins.iter().any(|known| known.name == name) {
            field.warning(format!(
                "'{name}' is listed more than once; the first counts"
            ));
        } else {
            let place = field.place(id);
            plugins.push(PluginConfig {
                name,
                options,
                place,
            });
        }
    }
    Some(plugins)
}

/// The registered name: `.` and `-` are `_`, and the class paths of HBMQTT and amqtt stand for our plugins.
fn plugin_name(written: &str) -> String {
    let class = written.rsplit(['.', ':']).next().unwrap_or(written);
    match class {
        "AnonymousAuthPlugin" => "auth_anonymous".to_owned(),
        "FileAuthPlugin" => "auth_file".to_owned(),
        "TopicTabooPlugin" => "topic_taboo".to_owned(),
        "TopicAccessControlListPlugin" => "topic_acl".to_owned(),
        "BrokerSysPlugin" => "broker_sys".to_owned(),
        "PacketLoggerPlugin" => "packet_logger_plugin".to_owned(),
        "EventLoggerPlugin" => "event_logger_plugin".to_owned(),
        _ => written.trim().replace(['.', '-'], "_"),
    }
}

/// amqtt's form, where the options of the built-in plugins stand under their names.
fn plugin_options(field: &Field<'_>, config: &mut Config, topic_check_is_set: bool) {
    let Some(section) = field.section() else {
        return;
    };
    for entry in section.entries() {
        let name = plugin_name(&entry.key);
        let checks_topics = matches!(name.as_str(), "topic_acl" | "topic_taboo");
        if checks_topics && !topic_check_is_set {
            config.topic_check.enabled = true;
            let plugin = PluginConfig {
                name: name.clone(),
                options: Node::NULL,
                place: None,
            };
            config
                .topic_check
                .plugins
                .get_or_insert_default()
                .push(plugin);
        }
        let built_in = ["auth_anonymous", "auth_file", "broker_sys"].contains(&name.as_str());
        if !(built_in || checks_topics) {
            continue;
        }
        let Some(options) = section.field_of(entry).section() else {
            continue;
        };
        match name.as_str() {
            "auth_anonymous" => {
                set!(
                    config.auth.allow_anonymous,
                    options.field("allow-anonymous"),
                    Field::bool
                );
            }
            "auth_file" => {
                let path = |field: &Field<'_>| field.path().map(Some);
                set!(
                    config.auth.password_file,
                    options.field("password-file"),
                    path
                );
            }
            "broker_sys" => {
                let any = |field: &Field<'_>| field.duration(Duration::ZERO..=Duration::MAX);
                set!(config.sys_interval, options.field("sys-interval"), any);
            }
            "topic_acl" => topic_rules(&options, &mut config.topic_check),
            _ => {
                set!(
                    config.topic_check.taboo_topics,
                    options.field("taboo-topics"),
                    filters
                );
            }
        }
        options.finish();
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Where keys belong that are easily put into the wrong section.
const HOMES: &[(&str, &str)] = &[
    ("listeners", ""),
    ("timeout-disconnect-delay", ""),
    ("sys_interval", ""),
    ("auth", ""),
    ("topic-check", ""),
    ("plugins", ""),
    ("max-qos", ""),
    ("queue-qos0-messages", ""),
    ("queue-full", ""),
    ("queue-full-filters", ""),
    ("shared-subscription-strategy", ""),
    ("retain-available", ""),
    ("check-retain-source", ""),
    ("upgrade-outgoing-qos", ""),
    ("check-payload-format", ""),
    ("response-information", ""),
    ("server-reference", ""),
    ("redirect", ""),
    ("user", ""),
    ("persistence", ""),
    ("limits", ""),
    ("allow-anonymous", "auth"),
    ("password-file", "auth"),
    ("acl-file", "auth"),
    ("scram-file", "auth"),
    ("allow-zero-length-clientid", "auth"),
    ("auto-id-prefix", "auth"),
    ("acl", "topic-check"),
    ("publish-acl", "topic-check"),
    ("subscribe-acl", "topic-check"),
    ("receive-acl", "topic-check"),
    ("taboo-topics", "topic-check"),
    ("durability", "persistence"),
    ("queue-memory", "persistence"),
    ("session-expiry", "persistence"),
    ("max-keepalive", "limits"),
    ("max-packet-size", "limits"),
    ("max-payload-size", "limits"),
    ("max-inflight-messages", "limits"),
    ("max-inflight-bytes", "limits"),
    ("max-queued-messages", "limits"),
    ("max-queued-bytes", "limits"),
    ("receive-maximum", "limits"),
    ("max-retained-messages", "limits"),
    ("max-subscriptions", "limits"),
    ("max-sessions", "limits"),
    ("max-unwritten-bytes", "limits"),
    ("max-memory", "limits"),
    ("bind", "listeners.NAME"),
    ("ssl", "listeners.NAME"),
    ("cafile", "listeners.NAME"),
    ("capath", "listeners.NAME"),
    ("cadata", "listeners.NAME"),
    ("certfile", "listeners.NAME"),
    ("keyfile", "listeners.NAME"),
    ("max-connections", "listeners.NAME' or 'limits"),
];
