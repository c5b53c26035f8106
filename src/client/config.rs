//! The client's settings file, as HBMQTT's and amqtt's clients read it. Every key is known here, and an unknown one is an
//! error. What the keys mean: `docs/config.md`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::proto::{ProtocolVersion, QoS, TopicName};
use crate::yaml::{ConfigError, Document, Field, Findings, Problem, Section, Value};

/// What a settings file says. The defaults are the library's; the command-line tools start from
/// [`ClientConfig::for_tools`] when they are given no file.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientConfig {
    /// Key `uri`, also in the sections `broker` and `connection`: where to connect to.
    pub uri: Option<String>,
    /// Key `cafile`, there too: a PEM file with certificates of authorities to trust.
    pub cafile: Option<PathBuf>,
    /// Key `capath`, there too: a directory of such files.
    pub capath: Option<PathBuf>,
    /// Key `cadata`, there too: such certificates as PEM text.
    pub cadata: Option<String>,
    /// Key `certfile`, there too: the client's certificate, PEM. Comes with `keyfile`.
    pub certfile: Option<PathBuf>,
    /// Key `keyfile`, there too: its private key, PEM. Comes with `certfile`.
    pub keyfile: Option<PathBuf>,
    /// Key `check_hostname`, there too: the server's certificate must be for the host that was dialled; on.
    pub check_hostname: bool,
    /// Key `verify_cert`, there too: the server's certificate must be signed by a trusted authority; on. Can be off only
    /// if `check_hostname` is.
    pub verify_cert: bool,
    /// Key `cleansession`, there too: begin with an empty session; `None` = the caller's choice, else yes.
    pub cleansession: Option<bool>,
    /// Key `store`: a file that keeps what is on its way; `None` = nothing outlives the program.
    pub store: Option<PathBuf>,
    /// Key `connection_timeout`: how long connecting may take; `None` = the client's default.
    pub connection_timeout: Option<Duration>,
    /// Key `protocol`: the version to speak; `None` = the client's default.
    pub protocol: Option<ProtocolVersion>,
    /// Key `keep_alive`: seconds, 10; 0 = off.
    pub keep_alive: u16,
    /// Key `ping_delay`: seconds before the end of the Keep Alive at which to ping, 1; 0 = no pings.
    pub ping_delay: u16,
    /// Key `default_qos`: the QoS of publications that name none; QoS 0.
    pub default_qos: QoS,
    /// Key `default_retain`: the RETAIN flag of publications that name none; off.
    pub default_retain: bool,
    /// Key `topics`: the same for single topics.
    pub topics: Vec<(TopicName, TopicConfig)>,
    /// Key `auto_reconnect`: connect again when the connection is lost; on.
    pub auto_reconnect: bool,
    /// Key `reconnect_retries`: attempts after the first one failed, 2; `None` = without end (any negative number).
    pub reconnect_retries: Option<u32>,
    /// Key `reconnect_max_interval`: the longest wait between two attempts, 10 s.
    pub reconnect_max_interval: Duration,
    /// Section `will`.
    pub will: Option<WillConfig>,
    /// Key `plugins`: log each packet at debug level; on unless a list of plugins leaves it out.
    pub packet_logger: bool,
    /// What is odd about the file but does not stop the client; to be logged once.
    pub warnings: Vec<Problem>,
}

/// What `topics` says about one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicConfig {
    /// Key `qos`; `None` = as elsewhere.
    pub qos: Option<QoS>,
    /// Key `retain`; `None` = as elsewhere.
    pub retain: Option<bool>,
}

/// Section `will`: what the server publishes when the connection ends without DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillConfig {
    /// Key `topic`; the only one that is needed.
    pub topic: TopicName,
    /// Key `message`; empty.
    pub message: String,
    /// Key `qos`; QoS 0.
    pub qos: QoS,
    /// Key `retain`; off.
    pub retain: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            uri: None,
            cafile: None,
            capath: None,
            cadata: None,
            certfile: None,
            keyfile: None,
            check_hostname: true,
            verify_cert: true,
            cleansession: None,
            store: None,
            connection_timeout: None,
            protocol: None,
            keep_alive: 10,
            ping_delay: 1,
            default_qos: QoS::AtMostOnce,
            default_retain: false,
            topics: Vec::new(),
            auto_reconnect: true,
            reconnect_retries: Some(2),
            reconnect_max_interval: Duration::from_secs(10),
            will: None,
            packet_logger: true,
            warnings: Vec::new(),
        }
    }
}

impl ClientConfig {
    /// What the command-line tools use without a file: the default, but without reconnecting.
    #[must_use]
    pub fn for_tools() -> Self {
        Self {
            auto_reconnect: false,
            ..Self::default()
        }
    }

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

fn read(found: &Findings<'_>) -> ClientConfig {
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
const HOMES: &[(&str, &str)] = &[
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ClientConfig {
        match ClientConfig::parse(text) {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        }
    }

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    /// The example of HBMQTT's client reference, as YAML.
    #[test]
    fn hbmqtts_example_is_read() {
        let config = parse(
            "keep_alive: 10\nping_delay: 1\ndefault_qos: 0\ndefault_retain: false\nauto_reconnect: true\n\
             reconnect_max_interval: 5\nreconnect_retries: 10\ntopics:\n  /test: {qos: 1}\n  \
             /some_topic: {qos: 2, retain: True}\n",
        );
        let expected = ClientConfig {
            reconnect_max_interval: Duration::from_secs(5),
            reconnect_retries: Some(10),
            topics: vec![
                (
                    topic("/test"),
                    TopicConfig {
                        qos: Some(QoS::AtLeastOnce),
                        retain: None,
                    },
                ),
                (
                    topic("/some_topic"),
                    TopicConfig {
                        qos: Some(QoS::ExactlyOnce),
                        retain: Some(true),
                    },
                ),
            ],
            ..ClientConfig::default()
        };
        assert_eq!(config, expected);
    }

    /// DEC-1.
    #[test]
    fn a_key_that_is_absent_has_the_librarys_default_and_the_tools_differ_in_reconnecting_only() {
        assert_eq!(parse(""), ClientConfig::default());
        assert!(parse("").auto_reconnect);
        let tools = ClientConfig::for_tools();
        assert!(!tools.auto_reconnect);
        assert_eq!(
            ClientConfig {
                auto_reconnect: true,
                ..tools
            },
            ClientConfig::default()
        );
    }

    #[test]
    fn each_key_arrives() {
        macro_rules! check {
            ($($text:literal => $field:ident = $value:expr;)*) => {
                $(assert_eq!(parse($text).$field, $value, "{}", $text);
                assert_eq!(
                    ClientConfig { $field: ClientConfig::default().$field, ..parse($text) },
                    ClientConfig::default(),
                    "{}", $text
                );)*
            };
        }
        let seconds = Duration::from_secs;
        check! {
            "keep_alive: 30" => keep_alive = 30;
            "keep_alive: 0" => keep_alive = 0;
            "ping-delay: 3" => ping_delay = 3;
            "ping_delay: 0" => ping_delay = 0;
            "default_qos: 2" => default_qos = QoS::ExactlyOnce;
            "default_retain: on" => default_retain = true;
            "auto_reconnect: no" => auto_reconnect = false;
            "reconnect_retries: 0" => reconnect_retries = Some(0);
            "reconnect_retries: -1" => reconnect_retries = None;
            "reconnect_max_interval: 1m" => reconnect_max_interval = seconds(60);
            "connection_timeout: 5" => connection_timeout = Some(seconds(5));
            "cleansession: off" => cleansession = Some(false);
            "broker: {cleansession: on}" => cleansession = Some(true);
            "store: /var/a.store" => store = Some("/var/a.store".into());
            "uri: mqtt://a" => uri = Some("mqtt://a".to_owned());
            "broker: {uri: mqtt://a}" => uri = Some("mqtt://a".to_owned());
            "connection: {uri: mqtt://a}" => uri = Some("mqtt://a".to_owned());
            "broker: {cafile: a}" => cafile = Some("a".into());
            "broker: {capath: a}" => capath = Some("a".into());
            "connection: {cadata: a}" => cadata = Some("a".to_owned());
            "check_hostname: false" => check_hostname = false;
            "protocol: 3.1" => protocol = Some(ProtocolVersion::V31);
            "protocol: 3.1.1" => protocol = Some(ProtocolVersion::V311);
            "protocol: 4" => protocol = Some(ProtocolVersion::V311);
            "protocol: 5" => protocol = Some(ProtocolVersion::V5);
            "protocol: 5.0" => protocol = Some(ProtocolVersion::V5);
            "protocol: mqttv311" => protocol = Some(ProtocolVersion::V311);
            "plugins: []" => packet_logger = false;
            "plugins: [packet_logger_plugin]" => packet_logger = true;
            "plugins: {amqtt.plugins.logging_amqtt.PacketLoggerPlugin: }" => packet_logger = true;
        }
        let pair = parse("connection: {certfile: c, keyfile: k}");
        assert_eq!(
            (pair.certfile, pair.keyfile),
            (Some("c".into()), Some("k".into()))
        );
        let unverified = parse("check_hostname: off\nverify_cert: off");
        assert!(!unverified.verify_cert && !unverified.check_hostname);
    }

    /// DEC-12.
    #[test]
    fn broker_goes_before_connection_and_that_before_the_top() {
        let uri = |text| parse(text).uri.unwrap();
        assert_eq!(uri("{uri: a, connection: {uri: b}, broker: {uri: c}}"), "c");
        assert_eq!(uri("{uri: a, connection: {uri: b}}"), "b");
    }

    /// DEC-16, CC-11.
    #[test]
    fn a_will_needs_nothing_but_its_topic() {
        let will = |text| parse(text).will.unwrap();
        let minimal = WillConfig {
            topic: topic("a"),
            message: String::new(),
            qos: QoS::AtMostOnce,
            retain: false,
        };
        assert_eq!(will("will: {topic: a}"), minimal);
        assert_eq!(
            will("will: {topic: a, message: gone, qos: 1, retain: on}"),
            WillConfig {
                message: "gone".to_owned(),
                qos: QoS::AtLeastOnce,
                retain: true,
                ..minimal
            }
        );
    }

    #[test]
    fn each_message_names_key_line_and_column() {
        for (text, message) in [
            (
                "keepalive: 1",
                "line 1, column 1: keepalive: unknown key; did you mean 'keep_alive'?",
            ),
            (
                "broker: {keep_alive: 1}",
                "line 1, column 10: broker.keep_alive: unknown key; 'keep_alive' belongs at the top level",
            ),
            (
                "broker: {ur: x}",
                "line 1, column 10: broker.ur: unknown key; did you mean 'uri'?",
            ),
            (
                "keep_alive: 65536",
                "line 1, column 13: keep_alive: 65536 is not in the range 0 to 65535",
            ),
            (
                "default_qos: 3",
                "line 1, column 14: default_qos: 3 is not in the range 0 to 2",
            ),
            (
                "keep_alive: 5\nping_delay: 5",
                "line 2, column 13: ping_delay: 5 is not less than keep_alive (5): there would be no time left to ping in",
            ),
            (
                "certfile: a",
                "line 1, column 11: certfile: 'certfile' and 'keyfile' come together, and one of them is missing",
            ),
            (
                "broker: {keyfile: a}",
                "line 1, column 19: broker.keyfile: 'certfile' and 'keyfile' come together, and one of them is missing",
            ),
            (
                "verify_cert: off",
                "line 1, column 14: verify_cert: can be off only if 'check_hostname' is off too",
            ),
            (
                "topics: {a/#: {qos: 1}}",
                "line 1, column 15: topics.a/#: topic name holds a wildcard ('+' or '#')",
            ),
            (
                "topics: {a: {qos: 1, x: 2}}",
                "line 1, column 22: topics.a.x: unknown key",
            ),
            (
                "topics: {a: 1}",
                "line 1, column 13: topics.a: expected a section of 'key: value' lines, found 1",
            ),
            (
                "will: {message: x}",
                "line 1, column 7: will: the will has no 'topic'",
            ),
            (
                "will: {topic: +}",
                "line 1, column 15: will.topic: topic name holds a wildcard ('+' or '#')",
            ),
            (
                "protocol: 6",
                "line 1, column 11: protocol: expected 3.1, 3.1.1 or 5.0, found 6",
            ),
            (
                "plugins: [x]",
                "line 1, column 11: plugins: unknown plugin 'x'; the client has 'packet_logger_plugin'",
            ),
            (
                "plugins: on",
                "line 1, column 10: plugins: expected a list of plugin names; write [] for none",
            ),
        ] {
            match ClientConfig::parse(text) {
                Ok(config) => panic!("{text}: accepted: {config:?}"),
                Err(error) => assert_eq!(error.to_string(), message, "{text}"),
            }
        }
        assert_eq!(
            parse("topics: {a: {qos: 1}, a: {qos: 2}}").warnings[0].to_string(),
            "line 1, column 26: topics.a: the topic is listed more than once; the first counts"
        );
    }

    #[test]
    fn load_names_the_file() {
        let path = std::env::temp_dir().join(format!("hbmqtt-client-{}.yaml", std::process::id()));
        std::fs::write(&path, "default_qos: 9\n").unwrap();
        let error = ClientConfig::load(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let shown = path.display();
        assert_eq!(
            error.to_string(),
            format!("{shown}:1:14: default_qos: 9 is not in the range 0 to 2")
        );
        assert!(matches!(
            ClientConfig::load(&path),
            Err(ConfigError::Read { .. })
        ));
    }
}
