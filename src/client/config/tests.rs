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
