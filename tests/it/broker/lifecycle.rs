//! The program `hbmqtt`: start, refusal to start, reload, end.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::broker::free_port;
use crate::support::*;

/// BRK-6, LOG-5, BAPI-3: TERM and INT end it cleanly, with its clients told.
#[test]
fn term_and_int_shut_down_cleanly() {
    for signal in ["TERM", "INT"] {
        let mut broker = Broker::start();
        let mut old = Client::connect(&broker, V311);
        let mut new = Client::connect(&broker, V5);
        let start = Instant::now();
        broker.signal(signal);
        assert_eq!(new.expect_close(), Some(0x8b));
        old.expect_end();
        let status = broker.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        broker.wait_for_log("Broker closed");
    }
}

/// CONFIG.md: the port is closed at once, and can be bound again at once.
#[test]
fn the_port_is_free_after_the_end() {
    let port = free_port();
    let yaml = format!("listeners:\n  default:\n    bind: 127.0.0.1:{port}\n");
    for _ in 0..3 {
        let broker = Broker::configured(&yaml);
        let _client = Client::connect(&broker, V311);
        assert!(broker.terminate().success());
    }
}

/// BRK-7: a port in use is one clear line.
#[test]
fn a_port_in_use_is_a_clear_error() {
    let first = Broker::start();
    let directory = TempDir::new();
    let config = directory.file(
        "b.yaml",
        format!("listeners:\n  default:\n    bind: {}\n", first.address()),
    );
    let mut second = Broker::spawn(&["-c", &config], directory);
    assert_eq!(second.wait().code(), Some(1));
    let log = second.log_text();
    assert!(
        log.contains(&first.address().to_string()) && log.to_lowercase().contains("in use"),
        "{log}"
    );
    assert!(
        !log.contains("panicked") && !log.contains("RUST_BACKTRACE"),
        "{log}"
    );
}

/// BAPI-2: when the second listener cannot be bound the first is not left open.
#[test]
fn a_failed_start_leaves_nothing_bound() {
    let taken = Broker::start();
    let port = free_port();
    let directory = TempDir::new();
    let config = directory.file(
        "b.yaml",
        format!(
            "listeners:\n  default:\n    bind: 127.0.0.1:{port}\n  other:\n    bind: {}\n",
            taken.address()
        ),
    );
    let mut broker = Broker::spawn(&["-c", &config], directory);
    assert_eq!(broker.wait().code(), Some(1));
    drop(std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
}

/// BC-15, BC-21, DEC-3, DEC-4, DEC-5, DEC-6, DEC-21, BC-4: what is wrong in a file is named, with its line and a hint.
#[test]
fn configuration_errors_name_the_key_the_line_and_a_hint() {
    let cases = [
        (
            "listeners:\n  default:\n    bindd: 127.0.0.1:0\n",
            &["bindd", "3", "bind"][..],
        ),
        ("sys-intervall: 10\n", &["sys-intervall", "sys"]),
        (
            "listeners:\n  default:\n    bind: 127.0.0.1:0\n    type: udp\n",
            &["type", "udp"],
        ),
        (
            "auth:\n  plugins: ['auth.anonymus']\n",
            &["anonymus", "did you mean"],
        ),
        (
            "auth:\n  allow-anonymous: false\n  plugins: [auth_anonymous]\n",
            &["allow-anonymous"],
        ),
        (
            "auth:\n  password-file: /nowhere/passwords\n",
            &["/nowhere/passwords"],
        ),
        (
            "listeners:\n  default:\n    bind: 127.0.0.1:0\n    my-tcp-2:\n      bind: 127.0.0.1:0\n",
            &["my-tcp-2"],
        ),
        ("listeners: [\n", &[]),
        ("sys_interval: soon\n", &["sys_interval", "soon"]),
        ("bridges: {}\n", &["bridges"]),
    ];
    for (yaml, words) in cases {
        let directory = TempDir::new();
        let config = directory.file("bad.yaml", yaml);
        let mut broker = Broker::spawn(&["-c", &config], directory);
        let status = broker.wait();
        assert!(!status.success(), "{yaml}");
        let log = broker.log_text();
        assert!(
            log.contains("bad.yaml") || log.contains("/nowhere/"),
            "{yaml}: {log}"
        );
        for word in words {
            assert!(log.contains(word), "{yaml}: no {word} in {log}");
        }
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// DEC-4: the seed's example has `capath` twice; it is told, with what was meant.
#[test]
fn a_second_capath_gets_the_hint_cadata() {
    let certificates = certificates::Certificates::new();
    let (cert, key) = &certificates.server;
    let directory = TempDir::new();
    let path = directory.path().display();
    let config = directory.file(
        "twice.yaml",
        format!(
            "listeners:\n  default:\n    bind: 127.0.0.1:0\n    ssl: on\n    certfile: {cert}\n    keyfile: {key}\n    \
             capath: {path}\n    capath: certificate data\n"
        ),
    );
    let broker = Broker::spawn(&["-c", &config], TempDir::new());
    let line = broker.wait_for_log("capath");
    assert!(
        line.contains("cadata") && line.contains("twice.yaml:8"),
        "{line}"
    );
}

/// BRK-2: a file that is not there.
#[test]
fn a_missing_configuration_file_is_an_error() {
    let mut broker = Broker::spawn(&["-c", "/nowhere/broker.yaml"], TempDir::new());
    assert!(!broker.wait().success());
    assert!(broker.log_text().contains("/nowhere/broker.yaml"));
}

/// The example configurations of the seed, with their two slips put right (DEC-4, DEC-5), parse: SEED-10, BC-1, BC-2.
#[test]
fn the_seeds_configuration_runs() {
    let certificates = certificates::Certificates::new();
    let (cert, key) = &certificates.server;
    let passwords = certificates.directory.file("passwd", "# none\n");
    let broker = Broker::configured(&format!(
        "listeners:\n    default:\n        max-connections: 50000\n        type: tcp\n    my-tcp-1:\n        bind: 127.0.0.1:0\n    \
         my-tcp-2:\n        bind: 127.0.0.1:0\n        max-connections: 1000\n    my-tcp-ssl-1:\n        bind: 127.0.0.1:0\n        \
         ssl: on\n        cafile: {}\n        certfile: {cert}\n        keyfile: {key}\n    my-ws-1:\n        bind: 127.0.0.1:0\n        \
         type: ws\ntimeout-disconnect-delay: 2\nauth:\n    plugins: ['auth.anonymous']\n    allow-anonymous: true\n    \
         password-file: {passwords}\n",
        certificates.ca
    ));
    broker.wait_for_log("Listener 'my-tcp-1' bind to 127.0.0.1:");
    assert!(
        broker
            .wait_for_log("Listener 'my-tcp-1'")
            .contains("(max_connections=50000)")
    );
    assert!(
        broker
            .wait_for_log("Listener 'my-tcp-2'")
            .contains("(max_connections=1000)")
    );
    for name in ["my-tcp-1", "my-tcp-2"] {
        Client::open_at(broker.address_of(name)).handshake(&Connect::new(V311, name));
    }
    assert!(
        !broker.log_text().contains("Listener 'default'"),
        "no bind, no listener"
    );
}

/// SEED-7, DEC-3: the default configuration as the seed prints it.
#[test]
fn the_seeds_default_configuration_runs() {
    let broker = Broker::configured(
        "listeners:\n    default:\n        type: tcp\n        bind: 127.0.0.1:0\nsys_interval: 20\nauth:\n    allow-anonymous: true\n\
         plugins:\n    - auth_file\n    - auth_anonymous\n",
    );
    Client::connect(&broker, V311).disconnect();
}

/// BC-21: both spellings of every key; CRLF; JSON.
#[test]
fn files_may_be_json_or_have_crlf_line_ends() {
    for yaml in [
        "listeners:\r\n  default:\r\n    type: tcp\r\n    bind: 127.0.0.1:0\r\nsys-interval: 1\r\n",
        "{\"listeners\": {\"default\": {\"type\": \"tcp\", \"bind\": \"127.0.0.1:0\"}}, \"sys_interval\": 1}",
    ] {
        Client::connect(&Broker::configured(yaml), V311).disconnect();
    }
}

/// BC-3: IPv6 in brackets.
#[test]
fn ipv6_addresses_are_bound() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return left_out(
            "ipv6_addresses_are_bound",
            "this machine has no IPv6 loopback address",
        );
    }
    let broker = Broker::configured("listeners:\n  default:\n    bind: '[::1]:0'\n");
    assert!(broker.address().is_ipv6());
    Client::connect(&broker, V311).disconnect();
}

/// CONFIG.md, URL-7: a Unix socket.
#[test]
fn a_unix_socket_is_served() {
    let directory = TempDir::new();
    let path = directory.path().join("mqtt.sock");
    let config = directory.file(
        "b.yaml",
        format!(
            "listeners:\n  local:\n    type: unix\n    bind: '{}'\n",
            path.display()
        ),
    );
    let mut broker = Broker::spawn(&["-c", &config], TempDir::new());
    broker.wait_for_listeners(1);
    let mut client = Client::over(Box::new(
        std::os::unix::net::UnixStream::connect(&path).unwrap(),
    ));
    client.handshake(&Connect::new(V311, "unix"));
    client.subscribe("u", 1);
    client.publish("u", 1, "x");
    assert_eq!(client.receive_publish().text(), "x");
    client.acknowledge(&Publish::default());
    assert!(broker.terminate().success());
    assert!(!path.exists(), "the socket's file is removed");
}

/// CONFIG.md: the mount point is put before and taken off.
#[test]
fn a_mount_point_prefixes_every_topic_of_its_listener() {
    let broker = Broker::configured(
        "listeners:\n  default:\n    bind: 127.0.0.1:0\n  tenant:\n    bind: 127.0.0.1:0\n    mount-point: 'tenant/'\n",
    );
    let mut inside = Client::open_at(broker.address_of("tenant"));
    inside.handshake(&Connect::new(V311, "inside").will(Publish::new("will", 0, "bye")));
    inside.subscribe("#", 1);
    let mut outside = broker.subscriber(V311, "tenant/#", 1);
    inside.publish("a/b", 1, "from inside");
    let message = outside.receive_publish();
    assert_eq!(
        (message.topic.as_str(), message.text().as_str()),
        ("tenant/a/b", "from inside")
    );
    outside.acknowledge(&message);
    let message = inside.receive_publish();
    assert_eq!(message.topic, "a/b");
    inside.acknowledge(&message);
    let mut publisher = broker.publisher(V311);
    publisher.publish("tenant/c", 1, "from outside");
    publisher.publish("c", 1, "elsewhere");
    let message = inside.receive_publish();
    assert_eq!(message.topic, "c");
    inside.acknowledge(&message);
    inside.expect_alive();
    inside.cut();
    let mut topics = vec![
        outside.receive_publish().topic,
        outside.receive_publish().topic,
    ];
    topics.sort();
    assert_eq!(topics, ["tenant/c", "tenant/will"]);
}

/// CONFIG.md: the PROXY protocol from listed addresses, and then required.
#[test]
fn the_proxy_protocol_gives_the_real_address() {
    let broker = Broker::configured(
        "listeners:\n  default:\n    bind: 127.0.0.1:0\n    proxy: ['127.0.0.0/8']\n",
    );
    let mut client = Client::open(&broker);
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\r\n");
    client.handshake(&Connect::new(V311, "proxied"));
    client.disconnect();
    broker.wait_for_log("192.0.2.7:56324");
    let mut bare = Client::open(&broker);
    bare.send(Connect::new(V311, "bare").encode());
    bare.expect_end();
}

/// BRK-1
#[test]
fn version_and_help_are_printed() {
    for (arguments, text) in [
        (&["--version"][..], env!("CARGO_PKG_VERSION")),
        (&["-h"], "Usage"),
        (&["--help"], "-c"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_hbmqtt"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains(text));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_hbmqtt"))
        .arg("--no-such-option")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// HUP with a broken file changes nothing and says so; with a good one it takes effect.
#[test]
fn hup_reloads_the_configuration_as_a_whole_or_not_at_all() {
    let directory = TempDir::new();
    let yaml = |allow: &str| {
        format!(
            "{}auth:\n  allow-anonymous: {allow}\n  password-file: '{}'\n",
            broker::LISTENERS,
            directory.file("pw", "# none\n")
        )
    };
    let config = directory.file("b.yaml", yaml("on"));
    let mut broker = Broker::spawn(&["-c", &config], TempDir::new());
    broker.wait_for_listeners(1);
    Client::connect(&broker, V311).disconnect();
    directory.file("b.yaml", "auth: [\n");
    broker.signal("HUP");
    broker.wait_for_log("ERROR");
    let mut stays = Client::connect(&broker, V311);
    directory.file("b.yaml", yaml("off"));
    broker.signal("HUP");
    eventually("anonymous clients are refused", || {
        let mut client = Client::open(&broker);
        client.send(Connect::new(V311, "x").encode());
        match client.receive() {
            Packet::Connack { code: 1.., .. } => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    stays.expect_alive();
}
