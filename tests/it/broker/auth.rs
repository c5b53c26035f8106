//! Who may connect, publish and subscribe.

use crate::support::client::by_version;
use crate::support::*;

/// `openssl passwd -6 -salt saltsalt secret`: hashes made by another implementation.
const SECRET_SHA512: &str = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";
/// `openssl passwd -6 -salt saltsalt hunter2`
const HUNTER2_SHA512: &str = "$6$saltsalt$8iYtNHxjWRl.NF6oNZ5tF.iKFlQREaXBLlSmZKP6dy9l5z3vsooWNW0/GZ6Nej73/TFug6pIPSqbJoCT6dfnj.";
/// `openssl passwd -5 -salt saltsalt secret`
const SECRET_SHA256: &str = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA";

/// PRO-12, BUG-3: return code 4 with the bytes of a CONNACK, then the end.
#[test]
fn a_wrong_password_is_told() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    let mut client = Client::open(&broker);
    client.send(
        Connect::new(V311, "wrong")
            .user("alice")
            .password("guess")
            .encode(),
    );
    client.expect_hex("20 02 00 04");
    client.expect_end();
    assert_eq!(
        Client::refused(
            &broker,
            &Connect::new(V5, "wrong").user("alice").password("guess")
        ),
        0x86
    );
}

/// [MQTT311-3.1.3-1]: all five fields, in their order, each taken for what it is.
#[test]
fn a_connect_with_every_field_is_accepted() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    both_versions(|version| {
        let bob = Connect::new(version, "bob").user("bob").password("hunter2");
        let mut subscriber = Client::connect_with(&broker, &bob);
        subscriber.subscribe("every/will", 1);
        let alice = Connect::new(version, "every").will(Publish::new("every/will", 1, "bye"));
        Client::connect_with(&broker, &alice.user("alice").password("secret")).cut();
        assert_eq!(subscriber.receive_publish().text(), "bye");
    });
}

/// DEC-21, BUG-2: a user name with nobody to check its password is refused.
#[test]
fn a_user_name_that_nobody_checks_is_refused() {
    let broker = Broker::start();
    let someone = Connect::new(V311, "x").user("someone");
    assert!([4, 5].contains(&Client::refused(&broker, &someone)));
    assert!([4, 5].contains(&Client::refused(&broker, &someone.password("anything"))));
    Client::connect(&broker, V311).disconnect();
}

/// BC-12, PLG-5, SEED-4: `$6$`, `$5$`, comments and blank lines.
#[test]
fn the_password_file_lets_its_users_in() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    both_versions(|version| {
        for (user, password) in [("alice", "secret"), ("bob", "hunter2"), ("carol", "secret")] {
            let connect = Connect::new(version, user).user(user);
            Client::connect_with(&broker, &connect.clone().password(password)).disconnect();
            let code = by_version(version, 4, 0x86);
            assert_eq!(
                Client::refused(&broker, &connect.clone().password("other")),
                code
            );
            assert_eq!(
                Client::refused(&broker, &connect.clone().password("")),
                code
            );
            assert_eq!(Client::refused(&broker, &connect), code);
        }
        let nobody = Connect::new(version, "nobody")
            .user("mallory")
            .password("secret");
        assert_eq!(
            Client::refused(&broker, &nobody),
            by_version(version, 4, 0x86)
        );
    });
}

/// PRO-13: passwords are bytes; what follows a NUL counts.
#[test]
fn passwords_are_bytes() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    for password in [&b"secret\0"[..], b"secret\0x", b"\xff\xfe"] {
        let connect = Connect::new(V311, "bytes").user("alice").password(password);
        assert_eq!(Client::refused(&broker, &connect), 4);
    }
}

/// BC-11, PLG-4
#[test]
fn anonymous_clients_are_let_in_or_not() {
    let files = Files::new();
    for (setting, accepted) in [
        ("allow-anonymous: on", true),
        ("allow_anonymous: false", false),
    ] {
        let broker = files.broker(setting);
        both_versions(|version| {
            let connect = Connect::new(version, "anonymous");
            if accepted {
                Client::connect_with(&broker, &connect).disconnect();
            } else {
                let code = Client::refused(&broker, &connect);
                assert!(
                    [by_version(version, 5, 0x87), by_version(version, 4, 0x86)].contains(&code),
                    "{code:#x}"
                );
            }
        });
    }
}

/// DEC-21: with anonymous clients allowed and a password file, a wrong password is still wrong.
#[test]
fn allowing_anonymous_clients_does_not_void_passwords() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: on");
    Client::connect(&broker, V311).disconnect();
    Client::connect_with(
        &broker,
        &Connect::new(V311, "a").user("alice").password("secret"),
    )
    .disconnect();
    assert_eq!(
        Client::refused(
            &broker,
            &Connect::new(V311, "a").user("alice").password("wrong")
        ),
        4
    );
    assert_eq!(
        Client::refused(
            &broker,
            &Connect::new(V311, "a").user("mallory").password("x")
        ),
        4
    );
}

/// DEC-3, BUG-2: names with `.` and `_`, in both places; an empty list lets nobody in.
#[test]
fn the_list_of_authenticators_is_obeyed() {
    let files = Files::new();
    for plugins in [
        "plugins: ['auth.file']",
        "plugins: [auth_file, auth.anonymous]",
    ] {
        let broker = files.broker(&format!("allow-anonymous: off\n  {plugins}"));
        Client::connect_with(
            &broker,
            &Connect::new(V311, "a").user("alice").password("secret"),
        )
        .disconnect();
        assert_eq!(
            Client::refused(
                &broker,
                &Connect::new(V311, "a").user("alice").password("wrong")
            ),
            4
        );
    }
    let broker = files.broker("plugins: []");
    assert!([4, 5].contains(&Client::refused(&broker, &Connect::new(V311, "nobody"))));
    let accepted = Connect::new(V311, "a").user("alice").password("secret");
    assert!([4, 5].contains(&Client::refused(&broker, &accepted)));
}

/// [MQTT311-3.1.4-5]: what comes after a CONNECT that is refused is not looked at.
#[test]
fn nothing_is_done_for_a_refused_client() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    let alice = Connect::new(V311, "alice").user("alice").password("secret");
    let mut subscriber = Client::connect_with(&broker, &alice);
    subscriber.subscribe("#", 0);
    let mut bytes = Connect::new(V311, "eve")
        .user("alice")
        .password("no")
        .encode();
    bytes.extend(Publish::new("stolen", 0, "x").encode(V311));
    let mut client = Client::open(&broker);
    client.send(bytes);
    client.expect_hex("20 02 00 04");
    client.expect_end();
    let mut bob = Client::connect_with(
        &broker,
        &Connect::new(V311, "bob").user("bob").password("hunter2"),
    );
    subscriber.expect_nothing(&mut bob);
}

/// [MQTT311-3.2.2-4], [MQTT311-3.2.2-5]: no Session Present with an error, although there is a session.
#[test]
fn a_refusal_has_no_session_present() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    let connect = Connect::new(V311, "present").persistent().user("alice");
    Client::connect_with(&broker, &connect.clone().password("secret")).disconnect();
    let mut client = Client::open(&broker);
    client.send(connect.password("wrong").encode());
    client.expect_hex("20 02 00 04");
    client.expect_end();
}

/// LIMITS.md: a session belongs to its user.
#[test]
fn another_user_cannot_take_a_session_over() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    both_versions(|version| {
        let id = format!("mine{version:?}");
        let alice = Connect::new(version, &id)
            .persistent()
            .user("alice")
            .password("secret");
        let mut owner = Client::connect_with(&broker, &alice);
        let bob = Connect::new(version, &id).user("bob").password("hunter2");
        assert_eq!(Client::refused(&broker, &bob), by_version(version, 5, 0x87));
        owner.expect_alive();
        owner.disconnect();
        assert_eq!(Client::refused(&broker, &bob), by_version(version, 5, 0x87));
        assert!(Client::connect_resuming(&broker, &alice).1);
    });
}

/// BC-15, BC-17, PLG-7, BUG-10: the list holds for subscribing and for publishing; coverage, not likeness.
#[test]
fn the_acl_covers_subscribe_and_publish() {
    let files = Files::new();
    let broker = files.broker_with(
        "allow-anonymous: on",
        "topic-check:\n  enabled: on\n  plugins: [topic_acl]\n  acl:\n    alice: ['a/+', 'b/#']\n    anonymous: ['pub/#', 'it/#']\n",
    );
    let alice = Connect::new(V311, "alice").user("alice").password("secret");
    let mut alice = Client::connect_with(&broker, &alice);
    let codes = alice.subscribe_all(&[
        ("a/x", 1),
        ("a/+", 1),
        ("b/c/d", 1),
        ("b", 1),
        ("#", 1),
        ("a/#", 1),
        ("+/x", 1),
        ("pub/x", 1),
        ("a/b/c", 1),
    ]);
    assert_eq!(codes, [1, 1, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x80]);
    let mut guest = Client::connect(&broker, V311);
    assert_eq!(guest.subscribe_all(&[("pub/+", 0), ("a/x", 0)]), [0, 0x80]);
    publish_and_move_on(&mut alice, "pub/forged");
    let mut other = Client::connect(&broker, V311);
    guest.expect_nothing(&mut other);
    let mut other = Client::connect(&broker, V311);
    publish_and_move_on(&mut other, "pub/fine");
    assert_eq!(guest.receive_publish().topic, "pub/fine");
}

/// [MQTT311-3.3.5-2]: in 3.1.1 a PUBLISH that is not allowed is acknowledged or the connection closed; 5.0 says 0x87.
#[test]
fn a_publish_that_is_not_allowed_is_answered() {
    let files = Files::new();
    let broker = files.broker_with(
        "allow-anonymous: on",
        "topic-check:\n  enabled: on\n  acl:\n    anonymous: ['ok/#']\n",
    );
    for qos in [1, 2] {
        let mut client = Client::connect(&broker, V311);
        client.send(Publish::new("not/ok", qos, "x").id(5).encode(V311));
        match client.receive_or_end() {
            None => {}
            Some(Packet::Ack { kind, id: 5, .. }) => {
                assert_eq!(kind, if qos == 1 { Kind::Puback } else { Kind::Pubrec });
            }
            other => panic!("{other:?}"),
        }
        let mut client = Client::connect(&broker, V5);
        client.send(Publish::new("not/ok", qos, "x").id(5).encode(V5));
        match client.receive() {
            Packet::Ack {
                id: 5,
                reason: 0x87,
                ..
            } => client.expect_alive(),
            other => panic!("{other:?}"),
        }
    }
}

/// PRO-10, LIMITS.md: the rules hold for wills too.
#[test]
fn a_will_needs_permission() {
    let files = Files::new();
    let broker = files.broker_with(
        "allow-anonymous: on",
        "topic-check:\n  enabled: on\n  publish-acl:\n    anonymous: ['ok/#', 'it/#']\n",
    );
    let mut subscriber = broker.subscriber(V311, "#", 0);
    let mut client = Client::open(&broker);
    client.send(
        Connect::new(V311, "w")
            .will(Publish::new("not/ok", 0, "x"))
            .encode(),
    );
    if let Some(Packet::Connack { code: 0, .. }) = client.receive_or_end() {
        client.cut();
    }
    Client::connect_with(
        &broker,
        &Connect::new(V311, "w2").will(Publish::new("ok/w", 0, "fine")),
    )
    .cut();
    assert_eq!(subscriber.receive_publish().topic, "ok/w");
}

/// BC-18: separate lists for the two directions; an absent user in a present list may nothing.
#[test]
fn publish_subscribe_and_receive_have_lists_of_their_own() {
    let files = Files::new();
    let broker = files.broker_with(
        "allow-anonymous: on",
        "topic-check:\n  enabled: on\n  publish-acl:\n    alice: ['out/#', 'in/#', 'it/#']\n    anonymous: []\n  \
         subscribe-acl:\n    anonymous: ['#']\n    alice: ['#']\n  receive-acl:\n    anonymous: ['in/#', 'it/#']\n    alice: ['#']\n",
    );
    let mut guest = Client::connect(&broker, V311);
    guest.subscribe("#", 0);
    let mut alice = Client::connect_with(
        &broker,
        &Connect::new(V311, "al").user("alice").password("secret"),
    );
    alice.subscribe("#", 0);
    publish_and_move_on(&mut alice, "out/a");
    publish_and_move_on(&mut alice, "in/a");
    assert_eq!(alice.receive_publish().topic, "out/a");
    assert_eq!(alice.receive_publish().topic, "in/a");
    assert_eq!(guest.receive_publish().topic, "in/a");
    publish_and_move_on(&mut Client::connect(&broker, V311), "in/forged");
    alice.expect_nothing(&mut Client::connect_with(
        &broker,
        &Connect::new(V311, "al2").user("alice").password("secret"),
    ));
}

/// PLG-6
#[test]
fn taboo_topics_are_for_the_admin_alone() {
    let files = Files::new();
    let broker = files.broker_with(
        "allow-anonymous: on",
        "topic-check:\n  enabled: on\n  plugins: ['topic_taboo']\n",
    );
    let mut guest = Client::connect(&broker, V311);
    let filters = [
        ("prohibited", 0),
        ("top-secret", 0),
        ("data/classified", 0),
        ("data/open", 0),
    ];
    assert_eq!(guest.subscribe_all(&filters), [0x80, 0x80, 0x80, 0]);
    let mut admin = Client::connect_with(
        &broker,
        &Connect::new(V311, "root").user("admin").password("secret"),
    );
    assert_eq!(admin.subscribe_all(&filters), [0, 0, 0, 0]);
    let mut other = Client::connect(&broker, V311);
    publish_and_move_on(&mut other, "prohibited");
    admin.expect_nothing(&mut Client::connect(&broker, V311));
}

/// CONFIG.md: mosquitto's ACL file, with `%c` and `%u`.
#[test]
fn a_mosquitto_acl_file_is_obeyed() {
    let files = Files::new();
    let acl = files.directory.file(
        "acl",
        "# everybody\ntopic read public/#\ntopic readwrite it/#\n\nuser alice\ntopic write public/#\ntopic deny public/private\n\n\
         pattern readwrite home/%u/%c/#\n",
    );
    let broker = files.broker(&format!("allow-anonymous: on\n  acl-file: '{acl}'"));
    let mut guest = broker.subscriber(V311, "public/#", 0);
    let mut alice = Client::connect_with(
        &broker,
        &Connect::new(V311, "phone").user("alice").password("secret"),
    );
    alice.subscribe("home/alice/phone/+", 0);
    publish_and_move_on(&mut alice, "public/news");
    publish_and_move_on(&mut alice, "public/private");
    publish_and_move_on(&mut alice, "home/alice/phone/x");
    publish_and_move_on(&mut alice, "home/bob/phone/x");
    assert_eq!(alice.receive_publish().topic, "home/alice/phone/x");
    assert_eq!(guest.receive_publish().topic, "public/news");
    let mut other = Client::connect(&broker, V311);
    publish_and_move_on(&mut other, "public/forged");
    let mut third = Client::connect(&broker, V311);
    guest.expect_nothing(&mut third);
    let codes = alice.subscribe_all(&[("home/bob/phone/x", 0), ("#", 0)]);
    assert_eq!(codes[0], 0x80);
}

/// CONFIG.md: HUP reads the password file anew; a file that cannot be read changes nothing.
#[test]
fn hup_reads_the_password_file_anew() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    let dave = Connect::new(V311, "dave").user("dave").password("secret");
    assert_eq!(Client::refused(&broker, &dave), 4);
    files.write(&format!("dave:{SECRET_SHA512}\n"));
    broker.signal("HUP");
    eventually("dave is let in", || {
        let mut client = Client::open(&broker);
        client.send(dave.encode());
        match client.receive() {
            Packet::Connack { code: 0, .. } => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(
        Client::refused(
            &broker,
            &Connect::new(V311, "a").user("alice").password("secret")
        ),
        4
    );
    std::fs::remove_file(files.directory.path().join("passwords")).unwrap();
    broker.signal("HUP");
    eventually("the log speaks of the failed reload", || {
        let failed = broker
            .log_lines()
            .into_iter()
            .filter(|line| line.contains("passwords") && !line.contains("INFO"))
            .count();
        if failed > 0 {
            Ok(())
        } else {
            Err(broker.log_text())
        }
    });
    Client::connect_with(&broker, &dave).disconnect();
}

/// BUG-20, BUG-21: neither passwords nor hashes are in the log, not even at DEBUG.
#[test]
fn the_log_has_no_passwords() {
    let files = Files::new();
    let config = files
        .directory
        .file("debug.yaml", files.yaml("allow-anonymous: off", ""));
    let mut broker = Broker::spawn(&["-d", "-c", &config], TempDir::new());
    broker.wait_for_listeners(1);
    let alice = Connect::new(V311, "quiet").user("alice");
    Client::connect_with(&broker, &alice.clone().password("secret")).disconnect();
    Client::refused(&broker, &alice.password("sEcReT-guess"));
    broker.wait_for_log("quiet");
    let log = broker.log_text();
    assert!(
        !log.contains("secret") && !log.contains("sEcReT") && !log.contains(&SECRET_SHA512[12..]),
        "{log}"
    );
}

/// LIMITS.md: CONNECT's fields have lengths of their own.
#[test]
fn a_long_password_or_user_name_is_refused() {
    let files = Files::new();
    let broker = files.broker("allow-anonymous: off");
    both_versions(|version| {
        let long_password = Connect::new(version, "l")
            .user("alice")
            .password("x".repeat(257));
        assert_eq!(
            Client::refused(&broker, &long_password),
            by_version(version, 4, 0x86)
        );
        let long_user = Connect::new(version, "l")
            .user(&"u".repeat(1025))
            .password("x");
        assert_eq!(
            Client::refused(&broker, &long_user),
            by_version(version, 4, 0x86)
        );
    });
}

/// LIMITS.md: after five wrong passwords the answers come later, on that connection's own thread.
#[test]
fn repeated_wrong_passwords_are_slowed_down() {
    let files = Files::new();
    let broker = files.broker_with(
        "allow-anonymous: off",
        "limits:\n  max-failed-logins: 2\n  max-login-delay: 1\n",
    );
    let wrong = Connect::new(V311, "slow").user("alice").password("wrong");
    for _ in 0..2 {
        assert_eq!(Client::refused(&broker, &wrong), 4);
    }
    let start = std::time::Instant::now();
    assert_eq!(Client::refused(&broker, &wrong), 4);
    assert!(
        start.elapsed() >= std::time::Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    // Nobody else waits.
    let start = std::time::Instant::now();
    Client::connect_with(
        &broker,
        &Connect::new(V311, "bob").user("bob").password("hunter2"),
    )
    .disconnect();
    assert!(
        start.elapsed() < std::time::Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
}

/// PLG-5: an unknown user costs as much time as a wrong password.
#[test]
fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let files = Files::new();
    let broker = files.broker_with("allow-anonymous: off", "limits:\n  max-login-delay: 0\n");
    let time = |user: &str| {
        let mut spans: Vec<_> = (0..9)
            .map(|_| {
                let start = std::time::Instant::now();
                Client::refused(
                    &broker,
                    &Connect::new(V311, "t").user(user).password("wrong"),
                );
                start.elapsed()
            })
            .collect();
        spans.sort();
        spans[4]
    };
    let (known, unknown) = (time("alice"), time("mallory"));
    assert!(
        unknown * 3 > known && known * 3 > unknown,
        "known {known:?}, unknown {unknown:?}"
    );
}

/// Each listener may have its own rules.
#[test]
fn a_listener_may_have_an_auth_section_of_its_own() {
    let files = Files::new();
    let broker = Broker::configured(&format!(
        "listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:0\n  open:\n    bind: 127.0.0.1:0\n    auth:\n      \
         allow-anonymous: on\nauth:\n  allow-anonymous: off\n  password-file: '{}'\n",
        files.path()
    ));
    assert!([4, 5].contains(&Client::refused(&broker, &Connect::new(V311, "x"))));
    Client::open_at(broker.address_of("open")).handshake(&Connect::new(V311, "x"));
}

/// Publishes with QoS 1 and does not mind how the broker answers a message that is not allowed.
fn publish_and_move_on(client: &mut Client, topic: &str) {
    let id = client.next_id();
    client.send(Publish::new(topic, 1, topic).id(id).encode(client.version));
    client.await_packet("PUBACK", |packet| {
        matches!(packet, Packet::Ack { id: of, .. } if *of == id).then_some(())
    });
}

/// A password file.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            directory: TempDir::new(),
        };
        files.write(&format!(
            "# users of the tests\n\nalice:{SECRET_SHA512}\nbob:{HUNTER2_SHA512}\r\n\ncarol:{SECRET_SHA256}\n\
             admin:{SECRET_SHA512}\n"
        ));
        files
    }

    fn path(&self) -> String {
        self.directory
            .path()
            .join("passwords")
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn write(&self, contents: &str) {
        self.directory.file("passwords", contents);
    }

    fn yaml(&self, auth: &str, settings: &str) -> String {
        format!(
            "{}auth:\n  password-file: '{}'\n  {auth}\n{settings}",
            broker::LISTENERS,
            self.path()
        )
    }

    fn broker(&self, auth: &str) -> Broker {
        self.broker_with(auth, "")
    }

    fn broker_with(&self, auth: &str, settings: &str) -> Broker {
        Broker::configured(&self.yaml(auth, settings))
    }
}
