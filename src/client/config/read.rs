//! From the keys of the file to the settings: what may stand where, and what does not go together.

use std::time::Duration;

use super::{ClientConfig, TopicConfig, WillConfig};
use crate::proto::{ProtocolVersion, QoS, TopicName};
use crate::yaml::{Field, Findings, Section, Value};

pub(super) fn read(found: &Findings<'_>) -> ClientConfig {
    let root = found.root();
    let mut config = ClientConfig::default();
    // The more special place goes before the more general one.
    connection(&root, &mut config);
    for key in ["connection", "broker"] {
        if let Some(section) = root.field(key).and_then(|field| field.section()) {
            connection(&section, &mut config);
            section.finish();
        }
    }
    let any = |field: Field<'_>| field.duration(Duration::ZERO..=Duration::MAX);
    let some = |field: Field<'_>| field.duration(Duration::from_millis(1)..=Duration::MAX);
    if let Some(timeout) = root.field("connection_timeout").and_then(some) {
        config.connection_timeout = Some(timeout);
    }
    config.store = root.field("store").and_then(|field| field.path());
    config.protocol = root.field("protocol").and_then(|field| protocol(&field));
    keep_alive(&root, &mut config);
    set(&mut config.default_qos, &root, "default_qos", Field::qos);
    set(
        &mut config.default_retain,
        &root,
        "default_retain",
        Field::bool,
    );
    if let Some(topics) = root.field("topics").and_then(|field| field.section()) {
        config.topics = self::topics(&topics);
    }
    set(
        &mut config.auto_reconnect,
        &root,
        "auto_reconnect",
        Field::bool,
    );
    if let Some(retries) = root
        .field("reconnect_retries")
        .and_then(|field| field.integer::<i64>(i64::MIN.into()..=u32::MAX.into()))
    {
        config.reconnect_retries = u32::try_from(retries).ok();
    }
    if let Some(interval) = root.field("reconnect_max_interval").and_then(any) {
        config.reconnect_max_interval = interval;
    }
    if let Some(section) = root.field("will").and_then(|field| field.section()) {
        config.will = will(section);
    }
    if let Some(field) = root.field("plugins") {
        config.packet_logger = plugins(&field);
    }
    root.finish();
    config
}

/// Sets `place` to what `read` reads, if the key is there and right.
fn set<'d, T>(
    place: &mut T,
    section: &Section<'d>,
    key: &'static str,
    read: fn(&Field<'d>) -> Option<T>,
) {
    if let Some(value) = section.field(key).and_then(|field| read(&field)) {
        *place = value;
    }
}

/// The keys that HBMQTT reads from `broker`, amqtt from `connection`, and either from the top.
fn connection(section: &Section<'_>, config: &mut ClientConfig) {
    let text = |field: &Field<'_>| field.text().map(Some);
    let path = |field: &Field<'_>| field.path().map(Some);
    set(&mut config.uri, section, "uri", text);
    set(&mut config.cafile, section, "cafile", path);
    set(&mut config.capath, section, "capath", path);
    set(&mut config.cadata, section, "cadata", text);
    set(&mut config.certfile, section, "certfile", path);
    set(&mut config.keyfile, section, "keyfile", path);
    set(
        &mut config.check_hostname,
        section,
        "check_hostname",
        Field::bool,
    );
    set(&mut config.verify_cert, section, "verify_cert", Field::bool);
    set(&mut config.cleansession, section, "cleansession", |field| {
        field.bool().map(Some)
    });
    if config.certfile.is_some() != config.keyfile.is_some()
        && let Some(field) = section
            .field("certfile")
            .or_else(|| section.field("keyfile"))
    {
        field.problem("'certfile' and 'keyfile' come together, and one of them is missing");
    }
    if config.check_hostname
        && !config.verify_cert
        && let Some(field) = section.field("verify_cert")
    {
        field.problem("can be off only if 'check_hostname' is off too");
    }
}

fn keep_alive(root: &Section<'_>, config: &mut ClientConfig) {
    let seconds = |field: &Field<'_>| field.integer(0..=65_535);
    set(&mut config.keep_alive, root, "keep_alive", seconds);
    set(&mut config.ping_delay, root, "ping_delay", seconds);
    if config.keep_alive > 0
        && config.ping_delay >= config.keep_alive
        && let Some(field) = root.field("ping_delay")
    {
        let (delay, keep_alive) = (config.ping_delay, config.keep_alive);
        field.problem(format!(
            "{delay} is not less than keep_alive ({keep_alive}): there would be no time left to ping in"
        ));
    }
}

fn protocol(field: &Field<'_>) -> Option<ProtocolVersion> {
    let text = match &field.node().value {
        Value::Float(number) => format!("{number:?}"),
        _ => field.node().text()?.into_owned(),
    };
    match text.parse() {
        Ok(version) => Some(version),
        Err(error) => {
            field.problem(format!("{error}, found {}", field.node().describe()));
            None
        }
    }
}

fn topics(section: &Section<'_>) -> Vec<(TopicName, TopicConfig)> {
    let mut topics: Vec<(TopicName, TopicConfig)> = Vec::new();
    for entry in section.entries() {
        let field = section.field_of(entry);
        let name = match TopicName::parse(entry.key.as_str()) {
            Ok(name) => name,
            Err(error) => {
                field.problem(error.to_string());
                continue;
            }
        };
        let Some(section) = field.section() else {
            continue;
        };
        let mut topic = TopicConfig::default();
        set(&mut topic.qos, &section, "qos", |field| {
            field.qos().map(Some)
        });
        set(&mut topic.retain, &section, "retain", |field| {
            field.bool().map(Some)
        });
        section.finish();
        if topics.iter().any(|(known, _)| *known == name) {
            field.warning("the topic is listed more than once; the first counts");
        } else {
            topics.push((name, topic));
        }
    }
    topics
}

fn will(section: Section<'_>) -> Option<WillConfig> {
    let topic = section.field("topic");
    let name = topic.as_ref().and_then(Field::text);
    let mut message = String::new();
    let mut qos = QoS::AtMostOnce;
    let mut retain = false;
    set(&mut message, &section, "message", Field::text);
    set(&mut qos, &section, "qos", Field::qos);
    set(&mut retain, &section, "retain", Field::bool);
    let Some(topic) = topic else {
        section.problem("the will has no 'topic'");
        section.finish();
        return None;
    };
    section.finish();
    match TopicName::parse(name?) {
        Ok(name) => Some(WillConfig {
            topic: name,
            message,
            qos,
            retain,
        }),
        Err(error) => {
            topic.problem(error.to_string());
            None
        }
    }
}

/// The only plugin of the client is the packet logger. Says whether it is listed.
fn plugins(field: &Field<'_>) -> bool {
    let names: Vec<_> = match &field.node().value {
        Value::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), entry.key_id))
            .collect(),
        Value::List(items) => {
            let name =
                |node: &crate::yaml::Node| (node.text().unwrap_or_default().into_owned(), node.id);
            items.iter().map(name).collect()
        }
        _ => {
            field.problem("expected a list of plugin names; write [] for none");
            return false;
        }
    };
    let is_logger = |name: &str| {
        name.replace(['.', '-'], "_") == "packet_logger_plugin"
            || name.ends_with("PacketLoggerPlugin")
    };
    for (name, id) in &names {
        if !is_logger(name) {
            let shown = name.escape_debug();
            field.problem_at(
                *id,
                format!("unknown plugin '{shown}'; the client has 'packet_logger_plugin'"),
            );
        }
    }
    names.iter().any(|(name, _)| is_logger(name))
}

/// Where keys belong that are easily put into the wrong section.
pub(super) const HOMES: &[(&str, &str)] = &[
    ("keep_alive", ""),
    ("ping_delay", ""),
    ("default_qos", ""),
    ("default_retain", ""),
    ("auto_reconnect", ""),
    ("reconnect_retries", ""),
    ("reconnect_max_interval", ""),
    ("topics", ""),
    ("will", ""),
    ("plugins", ""),
    ("protocol", ""),
    ("connection_timeout", ""),
    ("store", ""),
];
