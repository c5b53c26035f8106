//! The broker's settings as YAML: every key, whether the file had it or not.
//!
//! The structs are taken apart without `..`, so that a new setting cannot be forgotten here.

use std::fmt::Write as _;
use std::time::Duration;

use hbmqtt::broker::config::{
    AuthConfig, BindAddress, ClientCert, Config, Limits, ListenerConfig, MemoryLimit,
    PersistenceConfig, PluginConfig, QueueFull, Redirect, SharedStrategy, TlsConfig, TopicAcl,
    TopicCheckConfig,
};
use hbmqtt::proto::QoS;
use hbmqtt::store::Durability;
use hbmqtt::yaml::{Node, Value};
use serde_json::Value as Json;

/// All settings as a YAML text that reads back as the same settings.
pub(crate) fn yaml(config: &Config) -> String {
    let Config {
        listeners,
        timeout_disconnect_delay,
        sys_interval,
        auth,
        topic_check,
        max_qos,
        limits,
        queue_qos0_messages,
        queue_full,
        queue_full_filters,
        shared_subscription_strategy,
        retain_available,
        check_retain_source,
        upgrade_outgoing_qos,
        check_payload_format,
        response_information,
        server_reference,
        redirect,
        user,
        plugins,
        persistence,
        warnings: _,
    } = config;
    let mut out = Printer::default();
    out.section("listeners", |out| {
        for one in listeners {
            out.section(&key_text(&one.name), |out| listener(out, one));
        }
    });
    match timeout_disconnect_delay {
        Some(delay) => out.key("timeout-disconnect-delay", seconds(*delay)),
        None => out.comment("timeout-disconnect-delay is not set: 1.5 times the keep alive"),
    }
    out.key("sys_interval", seconds(*sys_interval));
    out.section("auth", |out| print_auth(out, auth));
    out.section("topic-check", |out| print_topic_check(out, topic_check));
    out.key("max-qos", qos(*max_qos));
    out.section("limits", |out| print_limits(out, limits));
    out.key("queue-qos0-messages", *queue_qos0_messages);
    let policy = |policy: &QueueFull| match policy {
        QueueFull::Reject => "reject",
        QueueFull::DropOldest => "drop-oldest",
        QueueFull::DropNew => "drop-new",
    };
    out.key("queue-full", policy(queue_full));
    if !queue_full_filters.is_empty() {
        out.section("queue-full-filters", |out| {
            for (filter, one) in queue_full_filters {
                out.key(&key_text(filter.as_str()), policy(one));
            }
        });
    }
    out.key(
        "shared-subscription-strategy",
        match shared_subscription_strategy {
            SharedStrategy::RoundRobin => "round-robin",
            SharedStrategy::Random => "random",
            SharedStrategy::LeastInflight => "least-inflight",
            SharedStrategy::Sticky => "sticky",
            SharedStrategy::Hash => "hash",
        },
    );
    out.key("retain-available", *retain_available);
    out.key("check-retain-source", *check_retain_source);
    out.key("upgrade-outgoing-qos", *upgrade_outgoing_qos);
    out.key("check-payload-format", *check_payload_format);
    match response_information {
        Some(prefix) => out.key("response-information", prefix.as_str()),
        None => out.key("response-information", "off"),
    }
    if let Some(reference) = server_reference {
        out.key("server-reference", reference.as_str());
    }
    out.key(
        "redirect",
        match redirect {
            Redirect::Off => "off",
            Redirect::Temporary => "temporary",
            Redirect::Permanent => "permanent",
        },
    );
    if let Some(user) = user {
        out.key("user", user.as_str());
    }
    print_plugins(&mut out, plugins.as_deref());
    out.section("persistence", |out| print_persistence(out, persistence));
    out.text
}

fn print_persistence(out: &mut Printer, persistence: &PersistenceConfig) {
    let PersistenceConfig {
        file,
        durability,
        queue_memory_bytes,
        session_expiry,
    } = persistence;
    match file {
        Some(file) => out.key("file", file.display().to_string()),
        None => out.key("enabled", "off"),
    }
    match *durability {
        Durability::Group => out.key("durability", "group"),
        Durability::NONE => out.key("durability", "none"),
        Durability::Interval(interval) => out.section("durability", |out| {
            let milliseconds = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            out.key("interval", milliseconds);
        }),
    }
    out.key("queue-memory", *queue_memory_bytes);
    out.key("session-expiry", seconds(*session_expiry));
}

fn listener(out: &mut Printer, listener: &ListenerConfig) {
    let ListenerConfig {
        name: _,
        bind,
        kind,
        max_connections,
        tls,
        use_identity_as_username,
        use_subject_as_username,
        use_username_as_clientid,
        mount_point,
        max_qos,
        max_topic_alias,
        allowed_origins,
        proxy,
        auth,
    } = listener;
    out.key("type", kind.to_string());
    let address = match bind {
        BindAddress::Tcp { .. } => bind.to_string(),
        BindAddress::Unix(path) => path.display().to_string(),
        BindAddress::Mem(name) => name.clone(),
    };
    out.key("bind", address);
    out.key("max-connections", max_connections.unwrap_or(0));
    print_tls(out, tls.as_ref());
    out.key("use-identity-as-username", *use_identity_as_username);
    out.key("use-subject-as-username", *use_subject_as_username);
    out.key("use-username-as-clientid", *use_username_as_clientid);
    if let Some(prefix) = mount_point {
        out.key("mount-point", prefix.as_str());
    }
    out.key("max-qos", qos(*max_qos));
    out.key("max-topic-alias", *max_topic_alias);
    out.key("allowed-origins", allowed_origins.clone());
    out.key(
        "proxy",
        proxy.iter().map(ToString::to_string).collect::<Vec<_>>(),
    );
    if let Some(auth) = auth {
        out.section("auth", |out| print_auth(out, auth));
    }
}

fn print_tls(out: &mut Printer, tls: Option<&TlsConfig>) {
    out.key("ssl", if tls.is_some() { "on" } else { "off" });
    let Some(tls) = tls else { return };
    let TlsConfig {
        certfile,
        keyfile,
        cafile,
        capath,
        cadata,
        client_cert,
        crlfile,
    } = tls;
    let paths = [
        ("certfile", Some(certfile)),
        ("keyfile", Some(keyfile)),
        ("cafile", cafile.as_ref()),
        ("capath", capath.as_ref()),
        ("crlfile", crlfile.as_ref()),
    ];
    for (key, path) in paths {
        if let Some(path) = path {
            out.key(key, path.display().to_string());
        }
    }
    if let Some(pem) = cadata {
        out.key("cadata", pem.as_str());
    }
    out.key(
        "client-cert",
        match client_cert {
            ClientCert::None => "none",
            ClientCert::Optional => "optional",
            ClientCert::Required => "required",
        },
    );
}

fn print_auth(out: &mut Printer, auth: &AuthConfig) {
    let AuthConfig {
        allow_anonymous,
        password_file,
        acl_file,
        scram_file,
        plugins,
        allow_zero_length_clientid,
        auto_id_prefix,
    } = auth;
    print_plugins(out, plugins.as_deref());
    out.key("allow-anonymous", *allow_anonymous);
    for (key, path) in [
        ("password-file", password_file),
        ("acl-file", acl_file),
        ("scram-file", scram_file),
    ] {
        if let Some(path) = path {
            out.key(key, path.display().to_string());
        }
    }
    out.key("allow-zero-length-clientid", *allow_zero_length_clientid);
    out.key("auto-id-prefix", auto_id_prefix.as_str());
}

fn print_topic_check(out: &mut Printer, check: &TopicCheckConfig) {
    let TopicCheckConfig {
        enabled,
        plugins,
        acl,
        publish_acl,
        subscribe_acl,
        receive_acl,
        taboo_topics,
    } = check;
    out.key("enabled", *enabled);
    print_plugins(out, plugins.as_deref());
    let rules = [
        ("acl", acl),
        ("publish-acl", publish_acl),
        ("subscribe-acl", subscribe_acl),
        ("receive-acl", receive_acl),
    ];
    for (key, rule) in rules {
        if let Some(rule) = rule {
            out.key(key, acl_map(rule));
        }
    }
    out.key("taboo-topics", taboo_topics.clone());
}

fn acl_map(acl: &TopicAcl) -> Json {
    acl.iter()
        .map(|(user, filters)| (user.clone(), Json::from(filters.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn print_limits(out: &mut Printer, limits: &Limits) {
    let Limits {
        connect_timeout,
        max_half_open_connections,
        packet_timeout,
        max_keepalive,
        tcp_keepalive_idle,
        tcp_keepalive_interval,
        tcp_keepalive_probes,
        write_timeout,
        max_connections,
        max_connect_packet_size,
        max_packet_size,
        max_payload_size,
        max_client_id_length,
        max_username_length,
        max_password_length,
        max_topic_length,
        max_topic_levels,
        max_properties_size,
        max_properties,
        max_filters,
        max_topic_alias,
        receive_maximum,
        max_inflight_messages,
        max_inflight_bytes,
        max_queued_messages,
        max_queued_bytes,
        max_outbox_bytes,
        max_subscriptions_per_session,
        max_subscriptions,
        max_retained_messages,
        max_retained_bytes,
        max_sessions,
        max_unwritten_bytes,
        max_memory,
        max_password_checks,
        max_waiting_password_checks,
        auth_timeout,
        password_cache,
        max_failed_logins,
        max_login_delay,
        max_plugin_events,
    } = limits;
    out.key("connect-timeout", seconds(*connect_timeout));
    out.key(
        "max-half-open-connections",
        limit(*max_half_open_connections),
    );
    out.key("packet-timeout", seconds(*packet_timeout));
    out.key("max-keepalive", max_keepalive.unwrap_or(0));
    out.key("tcp-keepalive-idle", seconds(*tcp_keepalive_idle));
    out.key("tcp-keepalive-interval", seconds(*tcp_keepalive_interval));
    out.key("tcp-keepalive-probes", *tcp_keepalive_probes);
    out.key("write-timeout", seconds(*write_timeout));
    match max_connections {
        Some(count) => out.key("max-connections", limit(*count)),
        None => out.comment(
            "max-connections is not set: the open files that the process may have, less 200",
        ),
    }
    out.key("max-connect-packet-size", limit(*max_connect_packet_size));
    out.key("max-packet-size", limit(*max_packet_size));
    out.key("max-payload-size", limit(*max_payload_size));
    out.key("max-client-id-length", limit(*max_client_id_length));
    out.key("max-username-length", limit(*max_username_length));
    out.key("max-password-length", limit(*max_password_length));
    out.key("max-topic-length", limit(*max_topic_length));
    out.key("max-topic-levels", limit(*max_topic_levels));
    out.key("max-properties-size", limit(*max_properties_size));
    out.key("max-properties", limit(*max_properties));
    out.key("max-filters", limit(*max_filters));
    out.key("max-topic-alias", *max_topic_alias);
    out.key("receive-maximum", *receive_maximum);
    out.key("max-inflight-messages", *max_inflight_messages);
    out.key("max-inflight-bytes", limit(*max_inflight_bytes));
    out.key("max-queued-messages", limit(*max_queued_messages));
    out.key("max-queued-bytes", limit(*max_queued_bytes));
    out.key("max-outbox-bytes", limit(*max_outbox_bytes));
    out.key(
        "max-subscriptions-per-session",
        limit(*max_subscriptions_per_session),
    );
    out.key("max-subscriptions", limit(*max_subscriptions));
    out.key("max-retained-messages", limit(*max_retained_messages));
    out.key("max-retained-bytes", limit(*max_retained_bytes));
    out.key("max-sessions", limit(*max_sessions));
    out.key("max-unwritten-bytes", limit(*max_unwritten_bytes));
    match max_memory {
        MemoryLimit::HalfOfAvailable => {
            out.comment("max-memory is not set: half of what the machine or the control group has");
        }
        MemoryLimit::Bytes(bytes) => out.key("max-memory", *bytes),
        MemoryLimit::Unlimited => out.key("max-memory", 0),
    }
    out.key("max-password-checks", *max_password_checks);
    out.key(
        "max-waiting-password-checks",
        limit(*max_waiting_password_checks),
    );
    out.key("auth-timeout", seconds(*auth_timeout));
    out.key("password-cache", seconds(*password_cache));
    out.key("max-failed-logins", *max_failed_logins);
    out.key("max-login-delay", seconds(*max_login_delay));
    out.key("max-plugin-events", *max_plugin_events);
}

fn print_plugins(out: &mut Printer, plugins: Option<&[PluginConfig]>) {
    let Some(plugins) = plugins else { return };
    let list: Vec<Json> = plugins
        .iter()
        .map(|plugin| match plugin.options.value {
            Value::Null => plugin.name.as_str().into(),
            _ => serde_json::json!({ plugin.name.as_str(): json(&plugin.options) }),
        })
        .collect();
    out.key("plugins", list);
}

/// A part of the settings file as it was read.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(number) => {
            i64::try_from(*number).map_or_else(|_| number.to_string().into(), Json::from)
        }
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), json(&entry.value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// "No limit" is 0 in the file and the largest number in the settings.
fn limit(value: usize) -> Json {
    if value == usize::MAX {
        0.into()
    } else {
        value.into()
    }
}

fn seconds(duration: Duration) -> Json {
    if duration.subsec_nanos() == 0 {
        duration.as_secs().into()
    } else {
        duration.as_secs_f64().into()
    }
}

fn qos(qos: QoS) -> Json {
    qos.as_u8().into()
}

/// A text that YAML reads as the same text without quotes, or as the switch that it names.
fn is_plain(text: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    let special = ["null", "true", "false", "yes", "no"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(safe)
        && !special.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn key_text(name: &str) -> String {
    if is_plain(name) {
        name.to_owned()
    } else {
        Json::from(name).to_string()
    }
}

/// YAML in block style; values in JSON, which is YAML too.
#[derive(Default)]
struct Printer {
    text: String,
    depth: usize,
}

impl Printer {
    fn key(&mut self, name: &str, value: impl Into<Json>) {
        let value: Json = value.into();
        match &value {
            Json::String(text) if is_plain(text) => self.line(&format!("{name}: {text}")),
            _ => self.line(&format!("{name}: {value}")),
        }
    }

    fn comment(&mut self, text: &str) {
        self.line(&format!("# {text}"));
    }

    fn section(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.line(&format!("{name}:"));
        self.depth += 1;
        inside(self);
        self.depth -= 1;
    }

    fn line(&mut self, text: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.text, "{:indent$}{text}", "", indent = self.depth * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything but where the text stood in its file.
    fn shape(config: &Config) -> String {
        format!("{:?}", Config::parse(&yaml(config)).map(|read| yaml(&read)))
    }

    #[test]
    fn the_default_settings_read_back_as_they_are() {
        let config = Config::default();
        let read = Config::parse(&yaml(&config)).unwrap();
        assert_eq!(format!("{read:?}"), format!("{config:?}"));
    }

    #[test]
    fn settings_of_every_kind_read_back() {
        let config = Config::parse(
            "listeners:\n  default: {max-connections: 5, type: tcp}\n  a: {bind: 127.0.0.1:0, mount-point: x/, allowed-origins: ['https://e.org']}\n  \
             b: {type: ws, bind: '[::1]:0', ssl: on, certfile: c, keyfile: k, cafile: a, client-cert: required}\n  \
             c: {type: unix, bind: run/socket, auth: {allow-anonymous: off}}\n\
             timeout-disconnect-delay: 2.5\nauth: {password-file: p, plugins: [auth_file]}\n\
             topic-check: {enabled: on, acl: {ann: [a/#, b]}}\nlimits: {max-memory: 1MiB, max-sessions: 0}\nplugins: [event_logger_plugin]\n\
             check-payload-format: on\nresponse-information: r/\nserver-reference: a b:1\nredirect: permanent\nuser: mqtt\n",
        )
        .unwrap();
        let text = yaml(&config);
        assert_eq!(
            shape(&config),
            format!("{:?}", Ok::<_, ()>(text.clone())),
            "{text}"
        );
        assert!(text.contains("    bind: \"[::1]:0\"\n"), "{text}");
        assert!(text.contains("timeout-disconnect-delay: 2.5\n"), "{text}");
        assert!(text.contains("  max-sessions: 0\n"), "{text}");
    }
}
