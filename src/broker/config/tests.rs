//! Every key arrives, and every message reads as it should.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::*;
use crate::store::Durability;
use crate::yaml::Node;

fn parse(text: &str) -> Config {
    match Config::parse(text) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

/// The only listener, from its lines below `bind`.
fn listener(lines: &str) -> ListenerConfig {
    let text = format!("listeners:\n  one:\n    bind: 1884\n{}", indented(lines, 4));
    parse(&text).listeners.remove(0)
}

fn limits(line: &str) -> Limits {
    parse(&format!("limits:\n  {line}\n")).limits
}

fn indented(lines: &str, by: usize) -> String {
    let indent = " ".repeat(by);
    lines
        .lines()
        .map(|line| format!("{indent}{line}\n"))
        .collect()
}

fn problems(text: &str) -> String {
    match Config::parse(text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn warnings(text: &str) -> String {
    let warnings = parse(text).warnings;
    let lines: Vec<String> = warnings.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

fn names(plugins: Option<&Vec<PluginConfig>>) -> Vec<&str> {
    plugins
        .unwrap()
        .iter()
        .map(|plugin| plugin.name.as_str())
        .collect()
}

fn tcp(host: &str, port: u16) -> BindAddress {
    BindAddress::Tcp {
        host: host.to_owned(),
        port,
    }
}

const SECOND: Duration = Duration::from_secs(1);

// What the seed document shows.

/// BRK-4: the text that HBMQTT's documentation gives for its default configuration.
#[test]
fn hbmqtts_default_configuration_is_the_default_but_for_its_list_of_plugins() {
    let mut config = parse(
        "listeners:\n  default:\n    type: tcp\n    bind: 0.0.0.0:1883\nsys_interval: 20\n\
         auth:\n  allow-anonymous: true\nplugins:\n  - auth_file\n  - auth_anonymous\n",
    );
    assert_eq!(
        names(config.plugins.as_ref()),
        ["auth_file", "auth_anonymous"]
    );
    config.plugins = None;
    assert_eq!(config, Config::default());
}

/// The example of the broker's API reference, with one of `true / false` chosen.
const SECOND_EXAMPLE: &str = "\
listeners:
  default:
    max-connections: 50000
    type: tcp
  my-tcp-1:
    bind: 127.0.0.1:1883
  my-tcp-2:
    bind: 1.2.3.4:1884
    max-connections: 1000
  my-tcp-ssl-1:
    bind: 127.0.0.1:8885
    ssl: on
    cafile: /some/cafile
    capath: /some/folder
    capath: certificate data
    certfile: /some/certfile
    keyfile: /some/key
  my-ws-1:
    bind: 0.0.0.0:8080
    type: ws
timeout-disconnect-delay: 2
auth:
  plugins: ['auth.anonymous'] #List of plugins to activate for authentication among all registered plugins
  allow-anonymous: true
  password-file: /some/passwd_file
";

#[test]
fn hbmqtts_example_is_read() {
    let config = parse(SECOND_EXAMPLE);
    let listeners: Vec<_> = config
        .listeners
        .iter()
        .map(|one| {
            (
                one.name.as_str(),
                one.bind.to_string(),
                one.kind,
                one.max_connections,
            )
        })
        .collect();
    assert_eq!(
        listeners,
        [
            (
                "my-tcp-1",
                "127.0.0.1:1883".to_owned(),
                ListenerKind::Tcp,
                Some(50_000)
            ),
            (
                "my-tcp-2",
                "1.2.3.4:1884".to_owned(),
                ListenerKind::Tcp,
                Some(1_000)
            ),
            (
                "my-tcp-ssl-1",
                "127.0.0.1:8885".to_owned(),
                ListenerKind::Tcp,
                Some(50_000)
            ),
            (
                "my-ws-1",
                "0.0.0.0:8080".to_owned(),
                ListenerKind::Ws,
                Some(50_000)
            ),
        ]
    );
    assert_eq!(
        config.listeners[2].tls,
        Some(TlsConfig {
            certfile: "/some/certfile".into(),
            keyfile: "/some/key".into(),
            cafile: Some("/some/cafile".into()),
            capath: Some("/some/folder".into()),
            cadata: Some("certificate data".to_owned()),
            client_cert: ClientCert::Optional,
            crlfile: None,
        })
    );
    assert_eq!(config.timeout_disconnect_delay, Some(2 * SECOND));
    assert_eq!(
        config.auth.password_file.as_deref(),
        Some(Path::new("/some/passwd_file"))
    );
    assert_eq!(names(config.auth.plugins.as_ref()), ["auth_anonymous"]);
}

/// DEC-4 and DEC-3.
#[test]
fn hbmqtts_example_has_two_warnings() {
    assert_eq!(
        warnings(SECOND_EXAMPLE),
        "line 15, column 5: listeners.my-tcp-ssl-1.capath: the key is given twice; did you mean cadata? It is read as that, \
         since it does not look like a path\n\
         line 25, column 18: auth.password-file: not used, because auth.plugins does not list auth_file"
    );
}

/// DEC-5: the first example nests one listener in another.
#[test]
fn a_listener_inside_a_listener_gets_the_hint_to_dedent_it() {
    assert_eq!(
        problems(
            "listeners:\n  my-tcp-1:\n    bind: 127.0.0.1:1883\n    my-tcp-2:\n      bind: 1.2.3.4:1883\n"
        ),
        "line 4, column 5: listeners.my-tcp-1.my-tcp-2: unknown key; it holds a section of its own: is the indentation wrong? \
         A listener 'my-tcp-2' stands directly under 'listeners'"
    );
}

#[test]
fn a_choice_copied_from_the_documentation_is_explained() {
    assert_eq!(
        problems("auth:\n  allow-anonymous: true / false\n"),
        "line 2, column 20: auth.allow-anonymous: 'true / false' is a choice: write one of the two"
    );
}

// The file as a whole.

#[test]
fn an_empty_file_is_the_default_configuration() {
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "\u{feff}",
        "{}",
        "auth:\nlimits:\n",
    ] {
        assert_eq!(parse(text), Config::default(), "{text:?}");
    }
}

#[test]
fn json_is_yaml() {
    let config =
        parse(r#"{"listeners": {"a": {"bind": "127.0.0.1:0", "type": "ws"}}, "sys_interval": 0}"#);
    assert_eq!(config.listeners[0].kind, ListenerKind::Ws);
    assert_eq!(config.sys_interval, Duration::ZERO);
}

#[test]
fn crlf_line_ends_are_read() {
    let config = parse("listeners:\r\n  a:\r\n    bind: :1\r\nauth:\r\n  allow-anonymous: off\r\n");
    assert_eq!(config.listeners[0].bind, tcp("0.0.0.0", 1));
    assert!(!config.auth.allow_anonymous);
}

/// DEC-6, BC-21.
#[test]
fn hyphen_and_underscore_are_alike_in_every_key() {
    let hyphens = "listeners:\n  a:\n    bind: :1\n    max-connections: 7\ntopic-check:\n  publish-acl: {a: [b]}\nsys-interval: 3\n";
    let config = parse(hyphens);
    assert_eq!(
        config,
        parse(
            &hyphens
                .replace("    max-", "    max_")
                .replace("-check", "_check")
                .replace("-acl", "_acl")
                .replace("sys-", "sys_")
        )
    );
    assert_eq!(config.listeners[0].max_connections, Some(7));
    assert_eq!(config.sys_interval, 3 * SECOND);
    assert!(config.topic_check.publish_acl.is_some());
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let config = parse(
        "listeners:\n  a: &base\n    bind: :1\n    max-connections: 5\n  b:\n    <<: *base\n    bind: :2\n",
    );
    assert_eq!(config.listeners[1].bind, tcp("0.0.0.0", 2));
    assert_eq!(config.listeners[1].max_connections, Some(5));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    assert_eq!(
        problems("max-qos: 3\nauth:\n  allow-anonymos: on\nlisteners:\n  a:\n    bind: ':x'\n"),
        "line 1, column 10: max-qos: 3 is not in the range 0 to 2\n\
         line 3, column 3: auth.allow-anonymos: unknown key; did you mean 'allow-anonymous'?\n\
         line 6, column 11: listeners.a.bind: 'x' is no port: expected 0 to 65535"
    );
}

#[test]
fn each_message_names_key_line_and_column() {
    let mut wrong = Vec::new();
    for (text, message) in [
        (
            "listners: {}",
            "line 1, column 1: listners: unknown key; did you mean 'listeners'?",
        ),
        ("xyz: 1", "line 1, column 1: xyz: unknown key"),
        ("bridges: {}", "line 1, column 1: bridges: unknown key"),
        (
            "allow-anonymous: on",
            "line 1, column 1: allow-anonymous: unknown key; 'allow-anonymous' belongs into the section 'auth'",
        ),
        (
            "auth:\n  sys_interval: 3",
            "line 2, column 3: auth.sys_interval: unknown key; 'sys_interval' belongs at the top level",
        ),
        (
            "- a",
            "line 1, column 1: expected 'key: value' lines, found a list",
        ),
        (
            "hello",
            "line 1, column 1: expected 'key: value' lines, found 'hello'",
        ),
        (
            "a: b: c",
            "line 1, column 5: mapping values are not allowed in this context",
        ),
        (
            "a: 1\n---\nb: 2",
            "deserializing from YAML containing more than one document is not supported",
        ),
        (
            "auth:\n\tallow-anonymous: on",
            "line 2, column 1: found character that cannot start any token; indent with spaces, YAML takes no tabs",
        ),
        (
            "a: !tag x",
            "line 1, column 4: a: invalid type: enum, expected a text, number, switch, list or section without a tag",
        ),
        (
            "auth: on",
            "line 1, column 7: auth: expected a section of 'key: value' lines, found 'on'",
        ),
        (
            "max-qos:",
            "line 1, column 9: max-qos: the key has no value; expected a whole number",
        ),
        (
            "max-qos: high",
            "line 1, column 10: max-qos: expected a whole number, found 'high'",
        ),
        (
            "queue-full: reject-all",
            "line 1, column 13: queue-full: expected one of reject, drop-oldest, drop-new, found 'reject-all'",
        ),
        (
            "queue-full: drop_odlest",
            "line 1, column 13: queue-full: expected one of reject, drop-oldest, drop-new (did you mean drop-oldest?), found 'drop_odlest'",
        ),
        (
            "queue-full-filters: {'a/#/b': reject}",
            "line 1, column 22: queue-full-filters.a/#/b: a wildcard must fill its level, and '#' must be the last level",
        ),
        (
            "retain-available: 1",
            "line 1, column 19: retain-available: expected on or off, found 1",
        ),
        (
            "sys_interval: soon",
            "line 1, column 15: sys_interval: expected a time in seconds, or with a unit: 500ms, 90s, 15m, 12h, 14d, 2w, found 'soon'",
        ),
        (
            "sys_interval: -1",
            "line 1, column 15: sys_interval: expected a time in seconds, or with a unit: 500ms, 90s, 15m, 12h, 14d, 2w, found -1",
        ),
        (
            "limits: {connect-timeout: 0}",
            "line 1, column 27: limits.connect-timeout: 0ns is not in the range 1ms to 100 years",
        ),
        (
            "sys_interval: 9999w",
            "line 1, column 15: sys_interval: 6047395200s is not in the range 0ns to 100 years",
        ),
        (
            "limits: {max-keepalive: 65536}",
            "line 1, column 25: limits.max-keepalive: 65536s is not in the range 0ns to 65535s",
        ),
        (
            "limits: {max-packet-size: 2m1}",
            "line 1, column 27: limits.max-packet-size: expected a number of bytes such as 65536, 64KiB or 4MiB, found '2m1'",
        ),
        (
            "limits: {max-packet-size: 1GiB}",
            "line 1, column 27: limits.max-packet-size: 1073741824 is not in the range 64 to 268435460",
        ),
        (
            "limits: {tcp-keepalive-interval: 0}",
            "line 1, column 34: limits.tcp-keepalive-interval: 0ns is not in the range 1s to 32767s",
        ),
        (
            "limits: {max-sessions: -1}",
            "line 1, column 24: limits.max-sessions: -1 is less than 0",
        ),
        (
            "limits: {receive-maximum: 65536}",
            "line 1, column 27: limits.receive-maximum: 65536 is not in the range 0 to 65535",
        ),
        (
            "limits: {max-password-checks: 0}",
            "line 1, column 31: limits.max-password-checks: 0 is not in the range 1 to 4294967295",
        ),
        (
            "auth: {password-file: ''}",
            "line 1, column 23: auth.password-file: expected a path, found ''",
        ),
        (
            "auth: {password-file: [a]}",
            "line 1, column 23: auth.password-file: expected a text, found a list",
        ),
        (
            "auth: {auto-id-prefix: 1.0}",
            "line 1, column 24: auth.auto-id-prefix: expected a text; put it in quotes, found 1",
        ),
        (
            "auth: {plugins: }",
            "line 1, column 17: auth.plugins: expected a list of plugin names; write [] for none",
        ),
        (
            "auth: {plugins: auth_file}",
            "line 1, column 17: auth.plugins: expected a list of plugin names; write [] for none",
        ),
        (
            "topic-check: {acl: }",
            "line 1, column 20: topic-check.acl: expected 'user: [filter, …]' lines; write {} to allow nothing",
        ),
        (
            "topic-check: {acl: {a: [b#]}}",
            "line 1, column 24: topic-check.acl.a: 'b#' is no topic filter: a wildcard must fill its level, and '#' must be the last level",
        ),
        (
            "persistence: {enabled: on}",
            "line 1, column 24: persistence.enabled: where? Name a directory for the store: 'path: DIRECTORY'",
        ),
        (
            "persistence: {path: /x, file: /y}",
            "line 1, column 31: persistence.file: 'path' says already where the store is; leave one of them out",
        ),
        (
            "persistence: {durability: often}",
            "line 1, column 27: persistence.durability: expected one of group, none, found 'often'",
        ),
        (
            "persistence: {durability: {}}",
            "line 1, column 27: persistence.durability: expected 'group', 'none' or {interval: MILLISECONDS}",
        ),
        (
            "persistence: {durability: {interval: 0}}",
            "line 1, column 38: persistence.durability.interval: 0 is not in the range 1 to 3600000",
        ),
        (
            "listeners:",
            "line 1, column 11: listeners: no listener has a 'bind': nobody could connect",
        ),
        (
            "listeners: {default: {type: tcp}}",
            "line 1, column 12: listeners: no listener has a 'bind': nobody could connect",
        ),
        (
            "listeners: {default: {bind: 1}, a: {}}",
            "line 1, column 33: listeners.a: 'bind' is missing",
        ),
        (
            "listeners: {a: 1883}",
            "line 1, column 16: listeners.a: expected a section of 'key: value' lines, found 1883",
        ),
    ] {
        if problems(text) != message {
            wrong.push(format!(
                "{text:?}\n  is  {}\n  not {message}",
                problems(text)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_message_about_a_listener_names_key_line_and_column() {
    let place = |text: &str, line: usize, column| {
        format!(
            "line {}, column {}: listeners.a.{text}",
            line + 3,
            column + 4
        )
    };
    for (lines, message) in [
        (
            "type: udp",
            place(
                "type: expected one of tcp, ws, unix, mem, found 'udp'",
                1,
                7,
            ),
        ),
        (
            "type: wss",
            place("type: 'wss' is written as 'type: ws' with 'ssl: on'", 1, 7),
        ),
        (
            "type: tls",
            place("type: 'tls' is written as 'type: tcp' with 'ssl: on'", 1, 7),
        ),
        (
            "max-connections: many",
            place(
                "max-connections: expected a whole number, found 'many'",
                1,
                18,
            ),
        ),
        (
            "max-conections: 1",
            place(
                "max-conections: unknown key; did you mean 'max-connections'?",
                1,
                1,
            ),
        ),
        (
            "ssl: maybe",
            place("ssl: expected on or off, found 'maybe'", 1, 6),
        ),
        (
            "ssl: on",
            place(
                "ssl: 'certfile' or 'keyfile' configuration parameter missing",
                1,
                6,
            ),
        ),
        (
            "ssl: on\ncertfile: x",
            place(
                "ssl: 'certfile' or 'keyfile' configuration parameter missing",
                1,
                6,
            ),
        ),
        (
            "type: unix\nssl: on",
            place("ssl: a listener of type unix has no TLS", 2, 6),
        ),
        (
            "client-cert: required",
            place(
                "client-cert: needs 'cafile', 'capath' or 'cadata': who signs the clients' certificates?",
                1,
                14,
            ),
        ),
        (
            "require-certificate: on",
            place(
                "require-certificate: needs 'cafile', 'capath' or 'cadata': who signs the clients' certificates?",
                1,
                22,
            ),
        ),
        (
            "use-identity-as-username: on",
            place(
                "use-identity-as-username: needs 'ssl: on' and client certificates ('cafile', 'capath' or 'cadata')",
                1,
                27,
            ),
        ),
        (
            "mount-point: a/#",
            place(
                "mount-point: a mount point has no wildcards and does not begin with '$'",
                1,
                14,
            ),
        ),
        (
            "proxy: [10.0.0.0/40]",
            place(
                "proxy: the number after the slash exceeds the bits of the address",
                1,
                9,
            ),
        ),
        (
            "proxy: somewhere",
            place(
                "proxy: expected an address or a range such as 10.0.0.0/8",
                1,
                8,
            ),
        ),
        (
            "max-topic-alias: 65536",
            place(
                "max-topic-alias: 65536 is not in the range 0 to 65535",
                1,
                18,
            ),
        ),
        (
            "auth: {allow-anonymus: on}",
            place(
                "auth.allow-anonymus: unknown key; did you mean 'allow-anonymous'?",
                1,
                8,
            ),
        ),
    ] {
        let text = format!("listeners:\n  a:\n    bind: ':1'\n{}", indented(lines, 4));
        assert_eq!(problems(&text), message, "{text}");
    }
}

#[test]
fn each_wrong_address_is_explained() {
    for (bind, message) in [
        ("':99999'", "'99999' is no port: expected 0 to 65535"),
        (
            "'1:2:3'",
            "'1:2:3' has too many colons; write an IPv6 address in brackets: '[::1]:1883'",
        ),
        ("'[::1'", "the closing bracket is missing"),
        ("'[::x]:1'", "'::x' is no IPv6 address"),
        (
            "'[::1]1'",
            "expected ':' and a port after the bracket, found '1'",
        ),
        ("'a b:1'", "'a b' is no host: unexpected ' b'"),
        ("''", "expected an address"),
    ] {
        let text = format!("listeners: {{a: {{bind: {bind}}}}}");
        assert_eq!(
            problems(&text),
            format!("line 1, column 23: listeners.a.bind: {message}")
        );
    }
    assert_eq!(
        problems("listeners:\n  a:\n    bind: [::1]:1883\n"),
        "line 3, column 12: did not find expected node content; put an address with brackets in quotes"
    );
}

#[test]
fn each_warning_names_key_line_and_column() {
    for (text, message) in [
        (
            "sys_interval: 1\nsys-interval: 2",
            "line 2, column 1: sys-interval: the key is given more than once; this last one counts",
        ),
        (
            "plugins: [auth_file, auth.file]",
            "line 1, column 10: plugins: 'auth_file' is listed more than once; the first counts",
        ),
        (
            "listeners:\n  a: {bind: 1, certfile: x}",
            "line 2, column 26: listeners.a.certfile: not used, because 'ssl' is off",
        ),
        (
            "listeners:\n  a: {bind: 1}\n  a: {bind: 2}",
            "line 3, column 6: listeners.a: the listener is given more than once; this last one counts",
        ),
        (
            "listeners:\n  a: {bind: 1, capath: /x, capath: /y}",
            "line 2, column 28: listeners.a.capath: the key is given more than once; this last one counts. Did you mean cadata?",
        ),
        (
            "topic-check: {acl: {a: [x], a: [y]}}",
            "line 1, column 32: topic-check.acl.a: the user is listed more than once; all its filters count",
        ),
    ] {
        assert_eq!(warnings(text), message, "{text}");
    }
    assert_eq!(
        parse("sys_interval: 1\nsys-interval: 2").sys_interval,
        2 * SECOND
    );
}

#[test]
fn a_value_that_listeners_inherit_is_complained_about_once_and_where_it_stands() {
    assert_eq!(
        problems("listeners: {default: {bind: 1, ssl: perhaps}, a: {bind: 2}, b: {bind: 3}}"),
        "line 1, column 37: listeners.default.ssl: expected on or off, found 'perhaps'"
    );
}

#[test]
fn load_names_the_file() {
    let directory = std::env::temp_dir().join(format!("hbmqtt-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("broker.yaml");
    assert!(matches!(Config::load(&path), Err(ConfigError::Read { .. })));
    let shown = path.display();
    std::fs::write(&path, "max-qos: 7\n").unwrap();
    assert_eq!(
        Config::load(&path).unwrap_err().to_string(),
        format!("{shown}:1:10: max-qos: 7 is not in the range 0 to 2")
    );
    std::fs::write(&path, "plugins: [a, a]\n").unwrap();
    assert_eq!(
        Config::load(&path).unwrap().warnings[0].to_string(),
        format!("{shown}:1:10: plugins: 'a' is listed more than once; the first counts")
    );
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(
        Config::load(&path).unwrap_err().to_string(),
        format!("cannot read {shown}: No such file or directory (os error 2)")
    );
}

// Each key.

#[test]
fn each_key_of_the_top_level_arrives() {
    assert_eq!(
        parse("timeout-disconnect-delay: 2").timeout_disconnect_delay,
        Some(2 * SECOND)
    );
    assert_eq!(parse("").timeout_disconnect_delay, None);
    assert_eq!(parse("sys_interval: 0").sys_interval, Duration::ZERO);
    assert_eq!(parse("sys_interval: 1m").sys_interval, 60 * SECOND);
    assert_eq!(parse("max-qos: 1").max_qos, QoS::AtLeastOnce);
    assert!(parse("queue-qos0-messages: on").queue_qos0_messages);
    for (text, strategy) in [
        ("", SharedStrategy::RoundRobin),
        ("round-robin", SharedStrategy::RoundRobin),
        ("random", SharedStrategy::Random),
        ("least_inflight", SharedStrategy::LeastInflight),
        ("sticky", SharedStrategy::Sticky),
        ("hash", SharedStrategy::Hash),
    ] {
        let text = match text {
            "" => String::new(),
            text => format!("shared-subscription-strategy: {text}"),
        };
        assert_eq!(parse(&text).shared_subscription_strategy, strategy);
    }
    assert_eq!(parse("queue-full: reject").queue_full, QueueFull::Reject);
    assert_eq!(parse("queue-full: drop-new").queue_full, QueueFull::DropNew);
    assert_eq!(
        parse("queue-full: Drop_Oldest").queue_full,
        QueueFull::DropOldest
    );
    let rules = parse("queue-full-filters: {'a/#': reject, '+': drop-new}").queue_full_filters;
    let rules: Vec<_> = rules
        .iter()
        .map(|(filter, one)| (filter.as_str(), *one))
        .collect();
    assert_eq!(
        rules,
        [("a/#", QueueFull::Reject), ("+", QueueFull::DropNew)]
    );
    assert!(!parse("retain-available: off").retain_available);
    assert!(!parse("check-retain-source: off").check_retain_source);
    assert!(parse("upgrade-outgoing-qos: on").upgrade_outgoing_qos);
    assert!(parse("check-payload-format: on").check_payload_format);
    assert_eq!(parse("user: mqtt").user.as_deref(), Some("mqtt"));
    let fortnight = parse("").persistence.session_expiry;
    assert_eq!(fortnight, 14 * 24 * 3600 * SECOND);
    assert_eq!(
        parse("persistence: {enabled: off, session-expiry: 1d}")
            .persistence
            .session_expiry,
        86_400 * SECOND
    );
    assert_eq!(parse("").persistence, PersistenceConfig::default());
    assert_eq!(
        parse("persistence: {session-expiry: 9d}").persistence.file,
        None
    );
    for (text, file) in [
        ("path: /var/lib/hbmqtt", Some("/var/lib/hbmqtt/store.redb")),
        ("{path: data, enabled: on}", Some("data/store.redb")),
        ("{file: /tmp/hbmqtt.db}", Some("/tmp/hbmqtt.db")),
        ("{file: /tmp/hbmqtt.db, enabled: off}", None),
    ] {
        let text = text.trim_matches(['{', '}']);
        let persistence = parse(&format!("persistence: {{{text}}}")).persistence;
        assert_eq!(persistence.file.as_deref(), file.map(Path::new));
    }
    for (text, durability) in [
        ("group", Durability::Group),
        ("none", Durability::NONE),
        (
            "{interval: 250}",
            Durability::Interval(Duration::from_millis(250)),
        ),
    ] {
        let persistence = parse(&format!("persistence: {{durability: {text}}}")).persistence;
        assert_eq!(persistence.durability, durability);
    }
    let memory = parse("persistence: {queue-memory: 1MiB}").persistence;
    assert_eq!(memory.queue_memory_bytes, 1024 * 1024);
    assert_eq!(
        parse("session_expiry_interval: 60")
            .persistence
            .session_expiry,
        60 * SECOND
    );
}

#[test]
fn each_key_of_auth_arrives() {
    let auth = parse(
        "auth:\n  allow-anonymous: OFF\n  password-file: p\n  acl-file: a\n  scram-file: s\n  plugins: [auth.file, auth.scram]\n  \
         allow-zero-length-clientid: no\n  auto-id-prefix: x-\n",
    )
    .auth;
    assert!(!auth.allow_anonymous);
    assert_eq!(auth.password_file, Some(PathBuf::from("p")));
    assert_eq!(auth.acl_file, Some(PathBuf::from("a")));
    assert_eq!(auth.scram_file, Some(PathBuf::from("s")));
    assert_eq!(names(auth.plugins.as_ref()), ["auth_file", "auth_scram"]);
    assert!(!auth.allow_zero_length_clientid);
    assert_eq!(auth.auto_id_prefix, "x-");
    assert_eq!(parse("auth: {plugins: []}").auth.plugins, Some(Vec::new()));
}

#[test]
fn each_key_of_topic_check_arrives() {
    let check = parse(
        "topic-check:\n  enabled: on\n  plugins: [topic.acl]\n  acl:\n    anonymous: ['a/#', 1]\n    bob:\n  \
         publish-acl: {a: b}\n  subscribe-acl: {c: [d]}\n  receive-acl: {}\n  taboo-topics: [secret]\n",
    )
    .topic_check;
    let acl = |user: &str, filters: &[&str]| {
        (
            user.to_owned(),
            filters.iter().map(|&f| f.to_owned()).collect(),
        )
    };
    assert!(check.enabled);
    assert_eq!(names(check.plugins.as_ref()), ["topic_acl"]);
    assert_eq!(
        check.acl,
        Some(vec![acl("anonymous", &["a/#", "1"]), acl("bob", &[])])
    );
    assert_eq!(check.publish_acl, Some(vec![acl("a", &["b"])]));
    assert_eq!(check.subscribe_acl, Some(vec![acl("c", &["d"])]));
    assert_eq!(check.receive_acl, Some(vec![]));
    assert_eq!(check.taboo_topics, ["secret"]);
    assert!(!parse("topic-check: {}").topic_check.enabled);
}

#[test]
fn each_key_of_a_listener_arrives() {
    assert_eq!(listener("type: ws").kind, ListenerKind::Ws);
    assert_eq!(listener("type: TCP").kind, ListenerKind::Tcp);
    assert_eq!(listener("max-connections: 5").max_connections, Some(5));
    for unlimited in ["0", "-1"] {
        assert_eq!(
            listener(&format!("max_connections: {unlimited}")).max_connections,
            None
        );
    }
    assert!(listener("use-username-as-clientid: on").use_username_as_clientid);
    assert_eq!(
        listener("mount-point: a/").mount_point.as_deref(),
        Some("a/")
    );
    assert_eq!(listener("max-qos: 0").max_qos, QoS::AtMostOnce);
    assert_eq!(listener("max-topic-alias: 3").max_topic_alias, 3);
    assert_eq!(
        listener("allowed-origins: ['https://a', 'https://b']").allowed_origins,
        ["https://a", "https://b"]
    );
    assert_eq!(listener("proxy: [10.0.0.0/8, '::1']").proxy.len(), 2);
    assert!(
        !listener("auth: {allow-anonymous: off}")
            .auth
            .unwrap()
            .allow_anonymous
    );
    let tls = "ssl: on\ncertfile: c\nkeyfile: k\ncafile: a\n";
    assert!(listener(&format!("{tls}use-identity-as-username: on")).use_identity_as_username);
    assert!(listener(&format!("{tls}use-subject-as-username: on")).use_subject_as_username);
}

#[test]
fn a_listener_has_what_the_broker_has_where_it_says_nothing() {
    let config = parse("max-qos: 1\nlimits: {max-topic-alias: 4}\nlisteners: {a: {bind: 1}}");
    assert_eq!(
        (
            config.listeners[0].max_qos,
            config.listeners[0].max_topic_alias
        ),
        (QoS::AtLeastOnce, 4)
    );
    let config = parse("max-qos: 1\nlimits: {max-topic-alias: 4}");
    assert_eq!(
        (
            config.listeners[0].max_qos,
            config.listeners[0].max_topic_alias
        ),
        (QoS::AtLeastOnce, 4)
    );
}

/// BC-2.
#[test]
fn default_is_a_listener_exactly_when_it_has_an_address() {
    let names = |text: &str| -> Vec<String> {
        parse(text)
            .listeners
            .into_iter()
            .map(|one| one.name)
            .collect()
    };
    assert_eq!(
        names("listeners: {default: {type: ws}, a: {bind: 1}}"),
        ["a"]
    );
    assert_eq!(
        names("listeners: {default: {bind: 2}, a: {bind: 1}}"),
        ["default", "a"]
    );
}

#[test]
fn a_listener_overrides_what_it_inherits() {
    let config = parse(
        "listeners:\n  default: {ssl: on, certfile: c, keyfile: k, type: ws}\n  a: {bind: 1}\n  b: {bind: 2, ssl: off, type: tcp}\n  d: {bind: 3, keyfile: own}\n",
    );
    assert_eq!(config.listeners[0].kind, ListenerKind::Ws);
    assert_eq!(
        config.listeners[0].tls.as_ref().unwrap().keyfile,
        Path::new("k")
    );
    assert_eq!(config.listeners[1].kind, ListenerKind::Tcp);
    assert_eq!(config.listeners[1].tls, None);
    assert_eq!(
        config.listeners[2].tls.as_ref().unwrap().keyfile,
        Path::new("own")
    );
}

/// BC-3.
#[test]
fn each_form_of_address_is_read() {
    for (bind, rest, expected) in [
        ("127.0.0.1:1884", "", tcp("127.0.0.1", 1884)),
        ("'[::1]:1884'", "", tcp("::1", 1884)),
        ("'[::]'", "", tcp("::", 1883)),
        ("'::1'", "", tcp("::1", 1883)),
        ("':1884'", "", tcp("0.0.0.0", 1884)),
        ("'*:1884'", "", tcp("0.0.0.0", 1884)),
        ("1884", "", tcp("0.0.0.0", 1884)),
        ("'0'", "", tcp("0.0.0.0", 0)),
        ("localhost", "", tcp("localhost", 1883)),
        (
            "localhost",
            "ssl: on, certfile: c, keyfile: k",
            tcp("localhost", 8883),
        ),
        ("localhost", "type: ws", tcp("localhost", 80)),
        (
            "localhost",
            "type: ws, ssl: on, certfile: c, keyfile: k",
            tcp("localhost", 443),
        ),
        (
            "/run/mqtt",
            "type: unix",
            BindAddress::Unix("/run/mqtt".into()),
        ),
        (
            "unix:///run/mqtt",
            "type: unix",
            BindAddress::Unix("/run/mqtt".into()),
        ),
        ("test", "type: mem", BindAddress::Mem("test".to_owned())),
        (
            "mem://test",
            "type: mem",
            BindAddress::Mem("test".to_owned()),
        ),
    ] {
        let config = parse(&format!("listeners: {{a: {{bind: {bind}, {rest}}}}}"));
        assert_eq!(config.listeners[0].bind, expected, "{bind} {rest}");
    }
}

#[test]
fn an_address_is_shown_as_in_the_log() {
    assert_eq!(tcp("0.0.0.0", 1883).to_string(), "0.0.0.0:1883");
    assert_eq!(tcp("::1", 1883).to_string(), "[::1]:1883");
    assert_eq!(BindAddress::Unix("/a".into()).to_string(), "unix:///a");
    assert_eq!(BindAddress::Mem("a".into()).to_string(), "mem://a");
}

/// BC-6 to BC-8, DEC-17.
#[test]
fn each_certificate_key_arrives() {
    let tls = |lines: &str| {
        listener(&format!("ssl: yes\ncertfile: c\nkeyfile: k\n{lines}"))
            .tls
            .unwrap()
    };
    assert_eq!(
        (tls("").certfile, tls("").keyfile),
        ("c".into(), "k".into())
    );
    assert_eq!(tls("").client_cert, ClientCert::None);
    assert_eq!(tls("cafile: a").cafile, Some("a".into()));
    assert_eq!(tls("capath: a").capath, Some("a".into()));
    assert_eq!(tls("cadata: a b").cadata.as_deref(), Some("a b"));
    assert_eq!(tls("crlfile: a").crlfile, Some("a".into()));
    for authority in ["cafile: a", "capath: a", "cadata: a"] {
        assert_eq!(tls(authority).client_cert, ClientCert::Optional);
    }
    assert_eq!(
        tls("cafile: a\nclient-cert: none").client_cert,
        ClientCert::None
    );
    assert_eq!(
        tls("cafile: a\nclient-cert: required").client_cert,
        ClientCert::Required
    );
    assert_eq!(
        tls("cafile: a\nrequire-certificate: true").client_cert,
        ClientCert::Required
    );
    assert_eq!(
        tls("cafile: a\nrequire-certificate: false").client_cert,
        ClientCert::Optional
    );
}

#[test]
fn a_second_capath_with_a_certificate_in_it_is_cadata() {
    let tls = listener(
        "ssl: on\ncertfile: c\nkeyfile: k\ncapath: /x\ncapath: |\n  -----BEGIN CERTIFICATE-----\n  -----END CERTIFICATE-----",
    )
    .tls
    .unwrap();
    assert_eq!(tls.capath, Some("/x".into()));
    assert_eq!(
        tls.cadata.as_deref(),
        Some("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    );
}

#[test]
fn a_switch_is_read_in_every_spelling() {
    for on in ["on", "On", "yes", "true", "TRUE", "'on'"] {
        assert!(
            parse(&format!("queue-qos0-messages: {on}")).queue_qos0_messages,
            "{on}"
        );
    }
    for off in ["off", "OFF", "no", "false", "False", "'no'"] {
        assert!(
            !parse(&format!("retain-available: {off}")).retain_available,
            "{off}"
        );
    }
}

#[test]
fn each_key_of_limits_arrives() {
    macro_rules! check {
        ($($line:literal => $field:ident = $value:expr;)*) => {
            $(assert_eq!(limits($line).$field, $value, "{}", $line);
            // Nothing else moved.
            assert_eq!(Limits { $field: Limits::default().$field, ..limits($line) }, Limits::default(), "{}", $line);)*
        };
    }
    check! {
        "connect-timeout: 3" => connect_timeout = 3 * SECOND;
        "max-half-open-connections: 3" => max_half_open_connections = 3;
        "packet-timeout: 500ms" => packet_timeout = SECOND / 2;
        "max-keepalive: 3" => max_keepalive = Some(3);
        "max-keepalive: 0" => max_keepalive = None;
        "max-keepalive: 1h" => max_keepalive = Some(3_600);
        "tcp-keepalive-idle: 0" => tcp_keepalive_idle = Duration::ZERO;
        "tcp-keepalive-interval: 3" => tcp_keepalive_interval = 3 * SECOND;
        "tcp-keepalive-probes: 3" => tcp_keepalive_probes = 3;
        "write-timeout: 1.5" => write_timeout = 3 * SECOND / 2;
        "max-connections: 3" => max_connections = Some(3);
        "max-connections: 0" => max_connections = Some(usize::MAX);
        "max-connect-packet-size: 1KiB" => max_connect_packet_size = 1_024;
        "max-packet-size: 1M" => max_packet_size = 1_048_576;
        "max-packet-size: 0" => max_packet_size = 268_435_460;
        "max-payload-size: 3" => max_payload_size = 3;
        "max-client-id-length: 3" => max_client_id_length = 3;
        "max-username-length: 3" => max_username_length = 3;
        "max-password-length: 3" => max_password_length = 3;
        "max-topic-length: 3" => max_topic_length = 3;
        "max-topic-levels: 0" => max_topic_levels = usize::MAX;
        "max-properties-size: 3kB" => max_properties_size = 3_000;
        "max-properties: 3" => max_properties = 3;
        "max-filters: 3" => max_filters = 3;
        "max-topic-alias: 0" => max_topic_alias = 0;
        "receive-maximum: 0" => receive_maximum = 65_535;
        "max-inflight-messages: 3" => max_inflight_messages = 3;
        "max-inflight-bytes: 3" => max_inflight_bytes = 3;
        "max-queued-messages: 1_000" => max_queued_messages = 1_000;
        "max-queued-bytes: 0" => max_queued_bytes = usize::MAX;
        "max-outbox-bytes: 3" => max_outbox_bytes = 3;
        "max-subscriptions-per-session: 3" => max_subscriptions_per_session = 3;
        "max-subscriptions: 3" => max_subscriptions = 3;
        "max-retained-messages: 3" => max_retained_messages = 3;
        "max-retained-bytes: 3" => max_retained_bytes = 3;
        "max-sessions: 3" => max_sessions = 3;
        "max-unwritten-bytes: 0" => max_unwritten_bytes = usize::MAX;
        "max-unwritten-bytes: 1M" => max_unwritten_bytes = 1_048_576;
        "max-memory: 1GiB" => max_memory = MemoryLimit::Bytes(1 << 30);
        "max-memory: 0" => max_memory = MemoryLimit::Unlimited;
        "max-password-checks: 3" => max_password_checks = 3;
        "max-waiting-password-checks: 3" => max_waiting_password_checks = 3;
        "auth-timeout: 3" => auth_timeout = 3 * SECOND;
        "password-cache: 0" => password_cache = Duration::ZERO;
        "max-failed-logins: 3" => max_failed_logins = 3;
        "max-login-delay: 3" => max_login_delay = 3 * SECOND;
        "max-plugin-events: 3" => max_plugin_events = 3;
    }
}

// Plugins.

/// DEC-3.
#[test]
fn each_spelling_of_a_plugins_name_is_its_registered_name() {
    for (written, name) in [
        ("auth_anonymous", "auth_anonymous"),
        ("auth.anonymous", "auth_anonymous"),
        ("auth-file", "auth_file"),
        (
            "hbmqtt.plugins.authentication.AnonymousAuthPlugin",
            "auth_anonymous",
        ),
        ("amqtt.plugins.authentication.FileAuthPlugin", "auth_file"),
        (
            "amqtt.plugins.topic_checking.TopicTabooPlugin",
            "topic_taboo",
        ),
        (
            "amqtt.plugins.topic_checking:TopicAccessControlListPlugin",
            "topic_acl",
        ),
        ("amqtt.plugins.sys.broker.BrokerSysPlugin", "broker_sys"),
        (
            "amqtt.plugins.logging_amqtt.PacketLoggerPlugin",
            "packet_logger_plugin",
        ),
        (
            "amqtt.plugins.logging_amqtt.EventLoggerPlugin",
            "event_logger_plugin",
        ),
        ("my.own", "my_own"),
    ] {
        let config = parse(&format!("plugins: ['{written}']"));
        assert_eq!(names(config.plugins.as_ref()), [name]);
    }
}

#[test]
fn a_plugin_has_its_options_and_its_place() {
    let config = parse("plugins:\n  - one\n  - two: {x: 1}\n");
    let plugins = config.plugins.unwrap();
    assert_eq!(
        (plugins[0].place, &plugins[0].options),
        (Some((2, 5)), &Node::NULL)
    );
    assert_eq!(plugins[1].place, Some((3, 5)));
    assert_eq!(plugins[1].options.get("x").and_then(Node::integer), Some(1));
}

/// SEED 1.16: amqtt's form of the section.
#[test]
fn options_of_built_in_plugins_are_the_brokers_settings() {
    let config = parse(
        "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: false\n  \
         amqtt.plugins.authentication.FileAuthPlugin:\n    password_file: /p\n  \
         amqtt.plugins.sys.broker.BrokerSysPlugin:\n    sys_interval: 7\n  \
         amqtt.plugins.topic_checking.TopicAccessControlListPlugin:\n    acl: {a: [b]}\n    publish-acl: {c: [d]}\n  \
         amqtt.plugins.topic_checking.TopicTabooPlugin:\n",
    );
    assert!(!config.auth.allow_anonymous);
    assert_eq!(config.auth.password_file, Some("/p".into()));
    assert_eq!(config.sys_interval, 7 * SECOND);
    assert!(config.topic_check.enabled);
    assert_eq!(
        names(config.topic_check.plugins.as_ref()),
        ["topic_acl", "topic_taboo"]
    );
    assert!(config.topic_check.acl.is_some() && config.topic_check.publish_acl.is_some());
    assert_eq!(
        problems("plugins: {auth_file: {pasword-file: x}}"),
        "line 1, column 23: plugins.auth_file.pasword-file: unknown key; did you mean 'password-file'?"
    );
}

#[test]
fn an_address_range_contains_its_addresses_only() {
    let contains = |range: &str, address: &str| {
        let range: AddressRange = range.parse().unwrap();
        range.contains(address.parse::<IpAddr>().unwrap())
    };
    assert!(contains("10.0.0.0/8", "10.255.0.1"));
    assert!(!contains("10.0.0.0/8", "11.0.0.1"));
    assert!(contains("0.0.0.0/0", "1.2.3.4"));
    assert!(contains("::/0", "::1"));
    assert!(contains("10.0.0.1", "::ffff:10.0.0.1"));
    assert!(!contains("10.0.0.1", "10.0.0.2"));
    assert!(contains("fd00::/8", "fd12::1"));
    assert!(!contains("fd00::/8", "10.0.0.1"));
    assert_eq!(
        "10.0.0.0/8".parse::<AddressRange>().unwrap().to_string(),
        "10.0.0.0/8"
    );
}

// The documentation.

const REFERENCE: &str = include_str!("../../../docs/config.md");

#[test]
fn each_key_is_in_the_reference() {
    let sources = [
        include_str!("file.rs"),
        include_str!("limits_file.rs"),
        include_str!("listener_file.rs"),
        include_str!("../../client/config.rs"),
    ];
    let mut keys = 0;
    for part in sources
        .iter()
        .flat_map(|source| source.split("field(\"").skip(1))
    {
        let key = part.split('"').next().unwrap();
        assert!(
            REFERENCE.contains(&format!("`{key}")),
            "'{key}' is not in docs/config.md"
        );
        keys += 1;
    }
    assert!(keys > 80, "only {keys} keys were found");
}

#[test]
fn each_default_in_the_reference_is_the_one_of_the_program() {
    let rows = REFERENCE
        .split("## `limits`")
        .nth(1)
        .unwrap()
        .split("## `plugins`")
        .next()
        .unwrap();
    let rows = rows.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.trim_end_matches('`');
        Some((key, cells.nth(1)?))
    });
    let mut checked = 0;
    for (key, default) in rows {
        let plain = default
            .replace(',', "")
            .replace(" KiB", "KiB")
            .replace(" MiB", "MiB");
        let plain = plain.split(' ').next().unwrap().to_owned();
        if !plain.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        assert_eq!(
            limits(&format!("{key}: {plain}")),
            Limits::default(),
            "{key}: {default}"
        );
        checked += 1;
    }
    assert!(checked >= 35, "only {checked} defaults were checked");
}

#[test]
fn each_example_of_the_reference_is_accepted() {
    let (broker, client) = REFERENCE.split_once("## The client's file").unwrap();
    let examples = |text: &'static str| {
        text.split("```yaml\n")
            .skip(1)
            .map(|part| part.split("```").next().unwrap())
    };
    assert_eq!(
        examples(broker)
            .map(|example| parse(example).warnings)
            .filter(Vec::is_empty)
            .count(),
        4
    );
    #[cfg(feature = "client")]
    for example in examples(client) {
        assert!(
            crate::client::ClientConfig::parse(example).is_ok(),
            "{example}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_settings_make_the_reader_panic(
        keys in proptest::collection::vec((
            proptest::sample::select(vec![
                "listeners", "auth", "limits", "plugins", "topic-check", "persistence", "bind", "ssl", "type", "acl",
                "max-packet-size", "sys_interval", "capath", "default", "proxy", "enabled",
            ]),
            proptest::sample::select(vec![
                "", "on", "[]", "{}", "-1", "1e400", "99999999999999999999", "[[]]", "{a: {b: c}}", "'x y'", "a: b", "~", "1w",
                "-5s", "9999999999999w", ".inf", ".nan", "'[::1]:x'", "18446744073709551615",
            ]),
            0usize..4,
        ), 0..12)
    ) {
        let lines: Vec<String> = keys.iter().map(|(key, value, depth)| format!("{}{key}: {value}", "  ".repeat(*depth))).collect();
        let _ = Config::parse(&lines.join("\n"));
    }
}

#[test]
fn response_information_is_a_topic_to_publish_below() {
    let prefix = |text: &str| parse(&format!("response-information: {text}")).response_information;
    assert_eq!(prefix("responses").as_deref(), Some("responses"));
    assert_eq!(prefix("a/b/").as_deref(), Some("a/b"));
    assert_eq!(prefix("off"), None);
    assert_eq!(parse("").response_information, None);
    for wrong in ["$responses", "a/+", "'a/#'", "''", "/"] {
        let problem = problems(&format!("response-information: {wrong}"));
        assert!(problem.contains("response-information"), "{problem}");
    }
}

#[test]
fn server_references_are_hosts_with_or_without_a_port() {
    let read = |text: &str| parse(&format!("server-reference: {text}")).server_reference;
    for (written, expected) in [
        ("other.example", "other.example"),
        ("other.example:8883", "other.example:8883"),
        ("'[2001:db8::1]:1883'", "[2001:db8::1]:1883"),
        ("'[2001:db8::1]'", "[2001:db8::1]"),
        ("a b:1  c", "a b:1 c"),
        ("[a, 'b:1']", "a b:1"),
    ] {
        assert_eq!(read(written).as_deref(), Some(expected));
    }
    for wrong in [
        "''",
        "mqtt://other.example",
        "'a:0'",
        "'a:65536'",
        "'2001:db8::1'",
        "'[a]'",
        "':1883'",
    ] {
        let problem = problems(&format!("server-reference: {wrong}"));
        assert!(problem.contains("server-reference"), "{problem}");
    }
}

#[test]
fn clients_are_redirected_only_to_somewhere() {
    let redirect = |text: &str| parse(&format!("server-reference: a\n{text}")).redirect;
    assert_eq!(redirect(""), Redirect::Off);
    assert_eq!(redirect("redirect: off"), Redirect::Off);
    assert_eq!(redirect("redirect: temporary"), Redirect::Temporary);
    assert_eq!(redirect("redirect: permanent"), Redirect::Permanent);
    assert!(problems("redirect: temporary").contains("server-reference"));
    assert!(problems("server-reference: a\nredirect: on").contains("temporary"));
}
