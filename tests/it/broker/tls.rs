//! TLS listeners: certificates of the server and of clients.

use crate::support::certificates::Certificates;
use crate::support::*;

/// SEED-6, BC-6, BC-8: MQTT over TLS, in both versions of TLS's peer.
#[test]
fn mqtt_over_tls() {
    let certificates = Certificates::new();
    let broker = broker(&certificates, "on", "");
    both_versions(|version| {
        let mut client = Client::over(Box::new(
            certificates.connect(broker.address(), None).unwrap(),
        ));
        client.handshake(&Connect::new(version, "tls"));
        client.subscribe("tls/#", 2);
        let pattern: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let id = client.next_id();
        client.send(Publish::new("tls/big", 1, &pattern).id(id).encode(version));
        let message = client.await_packet("the message", |packet| match packet {
            Packet::Publish(message) => Some(message.clone()),
            _ => None,
        });
        assert!(message.payload == pattern);
        client.acknowledge(&message);
        client.await_packet("PUBACK", |packet| {
            matches!(packet, Packet::Ack { .. }).then_some(())
        });
        client.disconnect();
    });
}

/// BC-6: every spelling of YAML's booleans, any case.
#[test]
fn ssl_is_switched_on_in_every_spelling() {
    let certificates = Certificates::new();
    for spelling in ["on", "yes", "True", "'ON'"] {
        let broker = broker(&certificates, spelling, "");
        certificates.connect(broker.address(), None).unwrap();
    }
    let plain = broker(&certificates, "off", "");
    Client::connect(&plain, V311).disconnect();
}

/// A plain client at a TLS listener gets no answer in MQTT, and is closed.
#[test]
fn a_plain_client_is_closed_by_a_tls_listener() {
    let certificates = Certificates::new();
    let broker = broker(&certificates, "on", "");
    let mut client = Client::open(&broker);
    client.send(Connect::new(V311, "plain").encode());
    assert!(client.ends_within(PATIENCE));
    // And the listener goes on.
    certificates.connect(broker.address(), None).unwrap();
}

/// DEC-17, BC-7: with an authority, certificates are asked for, and `client-cert` says how strictly.
#[test]
fn client_certificates_are_optional_or_required() {
    let certificates = Certificates::new();
    let known = certificates.client("sensor", 7);
    let others = Certificates::new();
    let stranger = others.client("stranger", 7);
    for (policy, without) in [
        ("", true),
        ("client-cert: optional", true),
        ("client-cert: required", false),
        ("require-certificate: true", false),
    ] {
        let broker = broker(
            &certificates,
            "on",
            &format!("cafile: '{}'\n    {policy}", certificates.ca),
        );
        let accepted = |client: Option<&(String, String)>| {
            let Ok(stream) = certificates.connect(broker.address(), client) else {
                return false;
            };
            let mut client = Client::over(Box::new(stream));
            client.send(Connect::new(V311, "c").encode());
            client.ends_or_connack()
        };
        assert!(accepted(Some(&known)), "{policy}");
        assert!(!accepted(Some(&stranger)), "{policy}");
        assert_eq!(accepted(None), without, "{policy}");
    }
}

/// BC-7: the authority from a directory and from the configuration itself.
#[test]
fn the_authority_may_come_from_a_directory_or_inline() {
    let certificates = Certificates::new();
    let known = certificates.client("sensor", 7);
    let directory = TempDir::new();
    let pem = std::fs::read_to_string(&certificates.ca).unwrap();
    directory.file("authority.pem", &pem);
    let inline = pem
        .lines()
        .fold(String::new(), |text, line| format!("{text}      {line}\n"));
    for setting in [
        format!("capath: '{}'", directory.path().display()),
        format!("cadata: |\n{inline}"),
    ] {
        let broker = broker(
            &certificates,
            "on",
            &format!("{setting}\n    client-cert: required"),
        );
        let mut client = Client::over(Box::new(
            certificates
                .connect(broker.address(), Some(&known))
                .unwrap(),
        ));
        client.handshake(&Connect::new(V311, "c"));
    }
}

/// CONFIG.md: the certificate's common name as the user name.
#[test]
fn the_common_name_may_be_the_user_name() {
    let certificates = Certificates::new();
    let known = certificates.client("sensor", 7);
    let broker = Broker::configured(&format!(
        "{}auth:\n  allow-anonymous: off\n  plugins: [auth_file, auth_anonymous]\n  acl-file: '{}'\n",
        listener(
            &certificates,
            "on",
            &format!(
                "cafile: '{}'\n    client-cert: required\n    use-identity-as-username: on",
                certificates.ca
            )
        ),
        certificates
            .directory
            .file("acl", "user sensor\ntopic readwrite own/#\n"),
    ));
    let mut client = Client::over(Box::new(
        certificates
            .connect(broker.address(), Some(&known))
            .unwrap(),
    ));
    client.handshake(&Connect::new(V311, "c"));
    assert_eq!(
        client.subscribe_all(&[("own/x", 0), ("other/x", 0)]),
        [0, 0x80]
    );
}

/// CONFIG.md: `crlfile`.
#[test]
fn a_revoked_certificate_is_refused() {
    let certificates = Certificates::new();
    let good = certificates.client("good", 20);
    let revoked = certificates.client("revoked", 21);
    let list = certificates.revoke(21);
    let broker = broker(
        &certificates,
        "on",
        &format!(
            "cafile: '{}'\n    client-cert: required\n    crlfile: '{list}'",
            certificates.ca
        ),
    );
    let accepted = |client| {
        certificates
            .connect(broker.address(), Some(client))
            .is_ok_and(|stream| {
                let mut client = Client::over(Box::new(stream));
                client.send(Connect::new(V311, "c").encode());
                client.ends_or_connack()
            })
    };
    assert!(accepted(&good));
    assert!(!accepted(&revoked));
}

/// LIMITS.md: HUP loads the certificates anew; a broken file changes nothing.
#[test]
fn hup_loads_a_new_certificate() {
    let certificates = Certificates::new();
    let broker = broker(&certificates, "on", "");
    let shown = || {
        certificates
            .connect(broker.address(), None)
            .unwrap()
            .server_certificate()
    };
    let before = shown();
    let renewed = Certificates::new();
    std::fs::write(&certificates.server.0, "not a certificate").unwrap();
    broker.signal("HUP");
    eventually("the log speaks of the failed reload", || {
        if broker
            .log_lines()
            .iter()
            .any(|line| line.contains("server.pem"))
        {
            Ok(())
        } else {
            Err(broker.log_text())
        }
    });
    assert_eq!(shown(), before);
    // A new certificate of another authority: it is only looked at.
    std::fs::copy(&renewed.server.0, &certificates.server.0).unwrap();
    std::fs::copy(&renewed.server.1, &certificates.server.1).unwrap();
    broker.signal("HUP");
    eventually("the new certificate is shown", || {
        let stream = renewed
            .connect(broker.address(), None)
            .map_err(|error| error.to_string())?;
        if stream.server_certificate() == before {
            Err("the old one".to_owned())
        } else {
            Ok(())
        }
    });
}

/// LIMITS.md: certificate files that are replaced are loaded without a signal.
#[test]
fn a_replaced_certificate_is_loaded_by_itself() {
    let certificates = Certificates::new();
    let broker = broker(&certificates, "on", "");
    let shown = |by: &Certificates| {
        by.connect(broker.address(), None)
            .map(|stream| stream.server_certificate())
    };
    let before = shown(&certificates).unwrap();
    let renewed = Certificates::new();
    std::fs::copy(&renewed.server.0, &certificates.server.0).unwrap();
    std::fs::copy(&renewed.server.1, &certificates.server.1).unwrap();
    eventually("the new certificate is shown", || match shown(&renewed) {
        Ok(now) if now != before => Ok(()),
        Ok(_) => Err("the old one".to_owned()),
        Err(error) => Err(error.to_string()),
    });
}

/// BC-8: TLS without certificate or key does not start.
#[test]
fn ssl_without_a_certificate_does_not_start() {
    let directory = TempDir::new();
    for lines in [
        "",
        "\n    certfile: /nowhere/cert.pem",
        "\n    certfile: /nowhere/cert.pem\n    keyfile: /nowhere/key.pem",
    ] {
        let config = directory.file(
            "b.yaml",
            format!("listeners:\n  default:\n    bind: 127.0.0.1:0\n    ssl: on{lines}\n"),
        );
        let mut broker = Broker::spawn(&["-c", &config], TempDir::new());
        assert!(!broker.wait().success());
        let log = broker.log_text();
        let missing = !lines.contains("keyfile");
        assert_eq!(
            log.contains("'certfile' or 'keyfile' configuration parameter missing"),
            missing,
            "{log}"
        );
        assert!(missing || log.contains("/nowhere/cert.pem"), "{log}");
    }
}

fn listener(certificates: &Certificates, ssl: &str, lines: &str) -> String {
    let (certificate, key) = &certificates.server;
    format!(
        "listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:0\n    ssl: {ssl}\n    certfile: '{certificate}'\n    \
         keyfile: '{key}'\n    {lines}\n"
    )
}

fn broker(certificates: &Certificates, ssl: &str, lines: &str) -> Broker {
    Broker::configured(&listener(certificates, ssl, lines))
}
