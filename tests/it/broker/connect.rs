//! CONNECT, CONNACK, PINGREQ, DISCONNECT and the life of a connection.

use std::time::{Duration, Instant};

use crate::support::packet::{self, string};
use crate::support::*;

/// [MQTT311-3.1.0-1], [MQTT311-3.2.0-1]: without CONNECT nothing is answered.
#[test]
fn first_packet_must_be_connect() {
    let broker = Broker::start();
    let packets = [
        Publish::new("a", 0, "x").encode(V311),
        ack(Kind::Puback, 1),
        ack(Kind::Pubrel, 1),
        subscribe(V311, 1, &[("#", 0)]),
        unsubscribe(V311, 1, &["#"]),
        PINGREQ.to_vec(),
        DISCONNECT.to_vec(),
        unhex("20 02 00 00"),
        unhex("f0 00"),
        unhex("00 00"),
    ];
    for bytes in packets {
        let mut client = Client::open(&broker);
        client.send(&bytes);
        client.expect_end();
    }
}

/// [MQTT311-3.1.0-2]
#[test]
fn a_second_connect_closes_the_connection() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, "twice");
        let mut client = Client::connect_with(&broker, &connect);
        client.send(connect.encode());
        client.expect_close();
    });
}

/// [MQTT311-3.1.4-4], byte for byte.
#[test]
fn a_minimal_connect_is_accepted() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    client.send_hex("10 0d 0004 4d515454 04 02 003c 0001 61");
    client.expect_hex("20 02 00 00");
    client.expect_alive();
}

/// PRO-14.
#[test]
fn mqtt_3_1_is_served() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    client.send_hex("10 0f 0006 4d5149736470 03 02 003c 0001 61");
    client.expect_hex("20 02 00 00");
    let mut subscriber = broker.subscriber(V31, "old/+", 1);
    client.send_hex("32 0b 0005 6f6c642f61 0001 6869");
    client.expect_hex("40 02 0001");
    assert_eq!(subscriber.receive_publish().text(), "hi");
}

/// [MQTT311-3.1.2-1]
#[test]
fn a_wrong_protocol_name_is_not_served() {
    let broker = Broker::start();
    for body in [
        "0004 4d515455 04 02 003c 0001 61",
        "0004 6d717474 04 02 003c 0001 61",
        "0000 04 02 003c 0001 61",
    ] {
        let mut client = Client::open(&broker);
        client.send(packet::packet(0x10, &unhex(body)));
        client.expect_end();
    }
}

/// [MQTT311-3.1.2-2], PRO-12: return code 1, then the end.
#[test]
fn an_unknown_protocol_level_is_refused_with_code_1() {
    let broker = Broker::start();
    for level in ["00", "06", "7f"] {
        let mut client = Client::open(&broker);
        client.send_hex(&format!("10 0d 0004 4d515454 {level} 02 003c 0001 61"));
        let answer = client.receive_bytes();
        // A broker of MQTT 5.0 may answer in 5.0 a client that is newer than it.
        assert!(
            [unhex("20020001"), unhex("2003008400")].contains(&answer),
            "level {level}: {}",
            hex(&answer)
        );
        client.expect_end();
    }
}

/// [MQTT311-3.1.2-3]
#[test]
fn the_reserved_connect_flag_must_be_zero() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, "reserved");
        refused_without_success(
            &broker,
            version,
            &connect.encode_with_flags(connect.flags() | 1),
        );
    });
}

/// [MQTT311-3.1.2-11], [MQTT311-3.1.2-13], [MQTT311-3.1.2-15]
#[test]
fn will_qos_and_retain_without_a_will_are_malformed() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, "nowill");
        for flags in [0x08, 0x10, 0x20] {
            refused_without_success(
                &broker,
                version,
                &connect.encode_with_flags(connect.flags() | flags),
            );
        }
    });
}

/// [MQTT311-3.1.2-14]
#[test]
fn will_qos_3_is_malformed() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, "will3").will(Publish::new("w", 3, "x"));
        refused_without_success(&broker, version, &connect.encode());
    });
}

/// [MQTT311-3.1.2-9]
#[test]
fn a_will_flag_without_will_fields_is_malformed() {
    let broker = Broker::start();
    both_versions(|version| {
        let connect = Connect::new(version, "missing");
        refused_without_success(
            &broker,
            version,
            &connect.encode_with_flags(connect.flags() | 0x04),
        );
    });
}

/// [MQTT311-3.1.2-18] to [MQTT311-3.1.2-21]
#[test]
fn user_name_and_password_are_there_exactly_when_their_flags_say_so() {
    let broker = Broker::start();
    both_versions(|version| {
        let plain = Connect::new(version, "flags");
        let full = plain.clone().user("user").password("secret");
        for bytes in [
            plain.encode_with_flags(plain.flags() | 0x80),
            plain.encode_with_flags(plain.flags() | 0xc0),
            full.encode_with_flags(plain.flags()),
            full.encode_with_flags(full.flags() & !0x40),
        ] {
            refused_without_success(&broker, version, &bytes);
        }
    });
}

/// [MQTT311-3.1.2-22], URL-6: 5.0 allows what 3.1.1 forbids.
#[test]
fn a_password_without_a_user_name_is_malformed_in_3_1_1() {
    let broker = Broker::start();
    refused_without_success(
        &broker,
        V311,
        &Connect::new(V311, "pw").password("x").encode(),
    );
}

/// [MQTT311-3.1.3-3], [MQTT311-3.1.4-1]: a CONNECT that is cut, or has bytes left over, gets no CONNACK.
#[test]
fn a_connect_of_the_wrong_length_is_malformed() {
    let broker = Broker::start();
    let connect = Connect::new(V311, "length")
        .will(Publish::new("w", 0, "x"))
        .user("u")
        .password("p");
    let body = connect.body(connect.flags());
    for length in 0..body.len() {
        let mut client = Client::open(&broker);
        client.send(packet::packet(0x10, &body[..length]));
        client.expect_end();
    }
    let mut long = body;
    long.push(0);
    let mut client = Client::open(&broker);
    client.send(packet::packet(0x10, &long));
    client.expect_end();
}

/// [MQTT311-2.2.2-1], [MQTT311-2.2.2-2]: CONNECT's flags in the fixed header.
#[test]
fn reserved_flags_of_the_connect_header_close() {
    let broker = Broker::start();
    for flags in 1..16 {
        let mut bytes = Connect::new(V311, "header").encode();
        bytes[0] |= flags;
        let mut client = Client::open(&broker);
        client.send(bytes);
        client.expect_end();
    }
}

/// [MQTT311-3.1.3-4], [MQTT311-3.1.3-10], [MQTT311-3.1.3-11], [MQTT311-1.5.3-1], [MQTT311-1.5.3-2]
#[test]
fn strings_of_connect_must_be_utf8_without_nul() {
    let broker = Broker::start();
    for bad in [
        &b"a\xff"[..],
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xf8\x88\x80\x80\x80",
        b"a\0b",
    ] {
        for field in ["client id", "will topic", "user name"] {
            let flags = match field {
                "client id" => 0x02,
                "will topic" => 0x06,
                _ => 0x82,
            };
            let mut body = unhex("0004 4d515454 04");
            body.push(flags);
            body.extend([0, 60]);
            string(if field == "client id" { bad } else { b"utf8" }, &mut body);
            if field == "will topic" {
                string(bad, &mut body);
                string(b"", &mut body);
            } else if field == "user name" {
                string(bad, &mut body);
            }
            let mut client = Client::open(&broker);
            client.send(packet::packet(0x10, &body));
            client.expect_end();
        }
    }
}

/// [MQTT311-3.1.3-5]
#[test]
fn client_ids_of_1_to_23_letters_and_digits_are_allowed() {
    let broker = Broker::start();
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in Version::ALL {
        for id in [&all[..1], &all[..23], &all[23..46], &all[39..]] {
            Client::connect_with(&broker, &Connect::new(version, id)).disconnect();
        }
    }
}

/// What the specification lets a server allow beyond that, and users need.
#[test]
fn longer_and_stranger_client_ids_are_allowed() {
    let broker = Broker::start();
    both_versions(|version| {
        for id in [
            "hbmqtt_sub/1234-host.example.org",
            "ключ/ключ/ключ/ключ",
            "a b*?",
            &"x".repeat(1024),
        ] {
            Client::connect_with(&broker, &Connect::new(version, id)).disconnect();
        }
    });
}

/// [MQTT311-3.1.3-6]: two clients without an identifier are two clients.
#[test]
fn an_empty_client_id_is_replaced_by_a_unique_one() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut first = Client::connect_with(&broker, &Connect::new(version, ""));
        let mut second = Client::connect_with(&broker, &Connect::new(version, ""));
        first.subscribe("empty/id", 1);
        second.publish("empty/id", 1, "hello");
        assert_eq!(first.receive_publish().text(), "hello");
        first.expect_nothing(&mut second);
    });
}

/// [MQTT311-3.1.3-7], [MQTT311-3.1.3-8]: return code 2.
#[test]
fn an_empty_client_id_without_clean_session_is_refused() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    client.send_hex("10 0c 0004 4d515454 04 00 003c 0000");
    client.expect_hex("20 02 00 02");
    client.expect_end();
}

/// [MQTT311-3.1.4-2], PRO-6, BUG-8
#[test]
fn a_second_connection_with_the_same_id_takes_over() {
    let broker = Broker::start();
    for (first, second) in [(V311, V311), (V5, V5), (V311, V5), (V5, V311), (V31, V311)] {
        let mut old = Client::connect_with(&broker, &Connect::new(first, "taken"));
        let mut new = Client::connect_with(&broker, &Connect::new(second, "taken"));
        let reason = old.expect_close();
        assert_eq!(reason.is_some(), first == V5);
        assert!(reason.is_none_or(|reason| reason == 0x8e), "{reason:?}");
        new.expect_alive();
    }
}

/// [MQTT311-3.1.3-2]: the identifier is compared whole.
#[test]
fn client_ids_that_differ_in_case_are_different_clients() {
    let broker = Broker::start();
    let mut lower = Client::connect_with(&broker, &Connect::new(V311, "case"));
    let mut upper = Client::connect_with(&broker, &Connect::new(V311, "CASE"));
    lower.expect_alive();
    upper.expect_alive();
}

/// MQTT 3.1.1 §3.1.4: a client need not wait for CONNACK.
#[test]
fn packets_sent_with_connect_are_processed() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut bytes = Connect::new(version, "eager").encode();
        bytes.extend(subscribe(version, 1, &[("eager/+", 1)]));
        bytes.extend(Publish::new("eager/a", 1, "early").id(2).encode(version));
        bytes.extend(PINGREQ);
        let mut client = Client::open(&broker);
        client.version = version;
        client.send(bytes);
        assert!(matches!(client.receive(), Packet::Connack { code: 0, .. }));
        let mut rest = Vec::new();
        for _ in 0..4 {
            rest.push(client.receive());
        }
        assert!(rest.contains(&Packet::Pingresp), "{rest:?}");
        assert!(
            rest.iter()
                .any(|packet| matches!(packet, Packet::Suback { id: 1, .. })),
            "{rest:?}"
        );
        assert!(
            rest.iter().any(|packet| matches!(
                packet,
                Packet::Ack {
                    kind: Kind::Puback,
                    id: 2,
                    ..
                }
            )),
            "{rest:?}"
        );
        assert!(
            rest.iter().any(
                |packet| matches!(packet, Packet::Publish(message) if message.text() == "early")
            ),
            "{rest:?}"
        );
    });
}

/// A packet may arrive in pieces of any size.
#[test]
fn a_connect_in_single_bytes_is_accepted() {
    let broker = Broker::start();
    let mut client = Client::open(&broker);
    let mut bytes = Connect::new(V311, "pieces").encode();
    bytes.extend(subscribe(V311, 1, &[("pieces", 0)]));
    for byte in bytes {
        client.send([byte]);
    }
    client.expect_hex("20 02 00 00");
    client.expect_hex("90 03 0001 00");
}

/// [MQTT311-3.12.4-1]
#[test]
fn pingreq_is_answered() {
    let broker = Broker::start();
    both_versions(|version| {
        let mut client = Client::connect(&broker, version);
        client.send([PINGREQ, PINGREQ, PINGREQ].concat());
        for _ in 0..3 {
            assert_eq!(client.receive_bytes(), PINGRESP);
        }
    });
}

/// [MQTT311-3.1.2-24], PRO-11, DEC-23: not before the Keep Alive, and within 1.5 times of it.
#[test]
fn a_silent_client_is_disconnected_at_one_and_a_half_keep_alives() {
    let broker = Broker::start();
    let mut silent = Client::connect_with(&broker, &Connect::new(V311, "silent").keep_alive(1));
    let start = Instant::now();
    silent.expect_end();
    let after = start.elapsed();
    assert!(
        after > Duration::from_millis(1_000) && after < Duration::from_millis(2_600),
        "{after:?}"
    );
}

/// [MQTT311-3.1.2-24]: any packet counts, but half a packet does not.
#[test]
fn keep_alive_counts_whole_packets() {
    let broker = Broker::with("limits:\n  packet-timeout: 1\n");
    let mut client = Client::connect_with(&broker, &Connect::new(V311, "dribble").keep_alive(1));
    let start = Instant::now();
    // A PUBLISH of 20 bytes that never ends: a byte now and then is no sign of life.
    let bytes = Publish::new("never/ends", 0, "12345678").encode(V311);
    for byte in &bytes[..bytes.len() - 1] {
        client.send([*byte]);
        if client.ends_within(Duration::from_millis(180)) {
            break;
        }
    }
    assert!(client.ends_within(PATIENCE));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

/// [MQTT311-3.1.2-23] from the server's side: pings keep the connection.
#[test]
fn pings_keep_a_connection_alive() {
    let broker = Broker::start();
    let mut client = Client::connect_with(&broker, &Connect::new(V311, "pings").keep_alive(1));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_500) {
        client.expect_alive();
        assert_eq!(client.receive_within(Duration::from_millis(400)), None);
    }
}

/// MQTT 3.1.1 §3.1.2.10: zero switches the mechanism off.
#[test]
fn keep_alive_0_never_disconnects() {
    let broker = Broker::start();
    let mut client = Client::connect_with(&broker, &Connect::new(V311, "forever").keep_alive(0));
    assert_eq!(client.receive_within(Duration::from_millis(1_800)), None);
    client.expect_alive();
}

/// [MQTT311-3.14.4-3] has its test in `will`; here: the server closes.
#[test]
fn disconnect_ends_the_connection() {
    let broker = Broker::start();
    both_versions(|version| Client::connect(&broker, version).disconnect());
}

/// [MQTT311-3.14.1-1], [MQTT311-2.2.2-2]
#[test]
fn reserved_flags_of_every_header_close() {
    let broker = Broker::start();
    both_versions(|version| {
        let packets = [
            ack(Kind::Puback, 1),
            ack(Kind::Pubrec, 1),
            ack(Kind::Pubrel, 1),
            ack(Kind::Pubcomp, 1),
            subscribe(version, 1, &[("a", 0)]),
            unsubscribe(version, 1, &["a"]),
            PINGREQ.to_vec(),
            DISCONNECT.to_vec(),
        ];
        for good in packets {
            for flip in [0x01, 0x02, 0x04, 0x08] {
                let mut bad = good.clone();
                bad[0] ^= flip;
                let mut client = Client::connect(&broker, version);
                client.send(&bad);
                client.expect_close();
            }
        }
    });
}

/// MSG-7: reserved types, and packets that only a server sends.
#[test]
fn packets_that_a_client_may_not_send_close() {
    let broker = Broker::start();
    both_versions(|version| {
        for bytes in [
            "00 00",
            "20 02 00 00",
            "90 03 0001 00",
            "b0 02 0001",
            "d0 00",
        ] {
            let mut client = Client::connect(&broker, version);
            client.send_hex(bytes);
            client.expect_close();
        }
    });
    let mut client = Client::connect(&broker, V311);
    client.send_hex("f0 00");
    client.expect_end();
}

/// Nothing but CONNACK with an error, or the end, comes for these bytes.
fn refused_without_success(broker: &Broker, version: Version, bytes: &[u8]) {
    let mut client = Client::open(broker);
    client.version = version;
    client.send(bytes);
    if version == V5 {
        // 5.0 §3.1.4: a CONNACK with an error may come before the end.
        loop {
            match client.receive_or_end() {
                None => return,
                Some(Packet::Connack {
                    code,
                    session_present: false,
                    ..
                }) if code >= 0x80 => {}
                Some(other) => panic!("{other:?} for {}", hex(bytes)),
            }
        }
    }
    client.expect_end();
}
