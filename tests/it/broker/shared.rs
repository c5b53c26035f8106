//! Shared subscriptions: `$share/name/filter`.

use std::collections::BTreeMap;

use crate::support::packet::{ack_with, disconnect};
use crate::support::*;

const EXPIRY: u8 = 0x11;

fn strategy(name: &str) -> Broker {
    Broker::with(&format!("shared-subscription-strategy: {name}\n"))
}

/// A client whose session outlives its connection, as member of `$share/g/work`.
fn member(broker: &Broker, id: &str, qos: u8) -> Client {
    let mut client = Client::connect_with(broker, &Connect::new(V5, id).persistent());
    client.subscribe("$share/g/work", qos);
    client
}

/// The payloads that come to a client before a marker of its own, acknowledged.
fn taken(client: &mut Client, by: &mut Client) -> Vec<String> {
    let marker = format!("it/marker/{}", unique());
    client.subscribe(&marker, 0);
    by.publish(&marker, 0, "");
    let mut found = Vec::new();
    loop {
        let message = client.receive_publish();
        if message.topic == marker {
            return found;
        }
        client.acknowledge(&message);
        found.push(message.text());
    }
}

/// [MQTT-4.8.2-3]: one member gets each message, at its own QoS, and in turn.
#[test]
fn each_message_goes_to_one_member_in_turn() {
    let broker = Broker::start();
    let mut members: Vec<_> = (0..3)
        .map(|at| member(&broker, &format!("m{at}"), at))
        .collect();
    let mut publisher = broker.publisher(V5);
    for number in 0..9 {
        publisher.publish("work", 2, number.to_string());
    }
    for (at, member) in members.iter_mut().enumerate() {
        for round in 0..3 {
            let message = member.receive_publish();
            assert_eq!(message.text(), (at + 3 * round).to_string());
            assert_eq!(usize::from(message.qos), at);
            member.acknowledge(&message);
        }
        member.expect_nothing(&mut publisher);
    }
}

/// [MQTT-4.8.2-1], [MQTT-4.8.2-2]: what a Share Name must be.
#[test]
fn share_names_have_a_character_and_no_wildcard() {
    let broker = Broker::start();
    for filter in [
        "$share//a",
        "$share/+/a",
        "$share/#/a",
        "$share/x+/a",
        "$share/x",
        "$share/x/",
    ] {
        let mut client = Client::connect(&broker, V5);
        client.send(subscribe(V5, 1, &[(filter, 0)]));
        match client.receive_or_end() {
            Some(Packet::Suback { codes, .. }) => assert_eq!(codes, [0x8f], "{filter}"),
            Some(Packet::Disconnect { reason, .. }) => assert_eq!(reason, 0x8f, "{filter}"),
            other => panic!("{filter}: {other:?}"),
        }
    }
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, V5);
    client.send(subscribe(V5, 1, &[("$share/g/a", 0x04)]));
    assert_eq!(client.expect_close(), Some(0x82));
}

/// §4.8.2: groups differ by name and filter, an ordinary subscription gets its own copy, and nothing retained is sent
/// when a shared subscription is made.
#[test]
fn groups_are_separate_and_get_no_retained_messages() {
    let broker = Broker::start();
    let mut publisher = broker.publisher(V5);
    publisher.publish_packet(Publish::new("work", 1, "old").retain());
    let mut first = member(&broker, "first", 1);
    let mut second = Client::connect(&broker, V5);
    second.subscribe_all(&[("$share/h/work", 1), ("$share/g/+", 1)]);
    publisher.publish("work", 1, "new");
    assert_eq!(taken(&mut first, &mut publisher), ["new"]);
    assert_eq!(taken(&mut second, &mut publisher), ["new", "new"]);
    let mut plain = broker.subscriber(V311, "work", 0);
    assert_eq!(plain.receive_publish().text(), "old");
    publisher.publish("work", 0, "all");
    assert_eq!(plain.receive_publish().text(), "all");
}

/// 3.1.1 clients may be members too.
#[test]
fn members_of_all_versions_share() {
    let broker = Broker::start();
    let mut members: Vec<_> = Version::ALL
        .iter()
        .map(|version| broker.subscriber(*version, "$share/g/work", 1))
        .collect();
    let mut publisher = broker.publisher(V311);
    for number in 0..6 {
        publisher.publish("work", 1, number.to_string());
    }
    for member in &mut members {
        assert_eq!(taken(member, &mut publisher).len(), 2);
    }
}

#[test]
fn a_member_that_is_away_is_not_chosen_while_another_is_online() {
    for name in ["round-robin", "random", "least-inflight", "sticky", "hash"] {
        let broker = strategy(name);
        member(&broker, "away", 1).cut();
        let mut here = member(&broker, "here", 1);
        broker.wait_for_log("away (127.0.0.1:");
        eventually("the first member is away", || {
            broker
                .log_lines()
                .iter()
                .any(|line| line.contains("away (") && line.contains("connection closed"))
                .then_some(())
                .ok_or_else(String::new)
        });
        let mut publisher = broker.publisher(V5);
        for number in 0..4 {
            publisher.publish("work", 1, number.to_string());
        }
        assert_eq!(
            taken(&mut here, &mut publisher),
            ["0", "1", "2", "3"],
            "{name}"
        );
    }
}

#[test]
fn random_reaches_every_member() {
    let broker = strategy("random");
    let mut members: Vec<_> = (0..3)
        .map(|at| member(&broker, &format!("m{at}"), 0))
        .collect();
    let mut publisher = broker.publisher(V5);
    for number in 0..60 {
        publisher.publish("work", 1, number.to_string());
    }
    let counts: Vec<_> = members
        .iter_mut()
        .map(|member| taken(member, &mut publisher).len())
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), 60);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn least_inflight_spares_a_member_that_does_not_acknowledge() {
    let broker = strategy("least-inflight");
    let mut lazy = member(&broker, "lazy", 1);
    let mut busy = member(&broker, "busy", 1);
    let mut publisher = broker.publisher(V5);
    let mut mine = 0;
    for number in 0..10 {
        publisher.publish("work", 1, number.to_string());
        let mut seen = taken(&mut busy, &mut publisher);
        mine += seen.drain(..).count();
        // Its acknowledgement is with the router before the next message is.
        busy.expect_alive();
    }
    assert!(mine >= 9, "{mine}");
    assert!(matches!(lazy.receive(), Packet::Publish(_)) || mine == 10);
}

#[test]
fn sticky_stays_with_a_member_until_it_goes() {
    let broker = strategy("sticky");
    let mut first = member(&broker, "first", 1);
    let mut second = member(&broker, "second", 1);
    let mut publisher = broker.publisher(V5);
    for number in 0..3 {
        publisher.publish("work", 1, number.to_string());
    }
    assert_eq!(taken(&mut first, &mut publisher), ["0", "1", "2"]);
    first.unsubscribe(&["$share/g/work"]);
    publisher.publish("work", 1, "3");
    assert_eq!(taken(&mut second, &mut publisher), ["3"]);
    first.subscribe("$share/g/work", 1);
    publisher.publish("work", 1, "4");
    assert_eq!(taken(&mut second, &mut publisher), ["4"]);
}

#[test]
fn hash_keeps_the_messages_of_a_publisher_together() {
    let broker = strategy("hash");
    let mut members: Vec<_> = (0..3)
        .map(|at| member(&broker, &format!("m{at}"), 1))
        .collect();
    let mut publishers: Vec<_> = (0..20)
        .map(|at| Client::connect_with(&broker, &Connect::new(V5, &format!("p{at}"))))
        .collect();
    for _ in 0..3 {
        for (at, publisher) in publishers.iter_mut().enumerate() {
            publisher.publish("work", 1, at.to_string());
        }
    }
    let mut seen = BTreeMap::new();
    for (at, member) in members.iter_mut().enumerate() {
        let payloads = taken(member, &mut publishers[0]);
        assert!(!payloads.is_empty());
        for payload in payloads {
            seen.entry(payload).or_insert_with(Vec::new).push(at);
        }
    }
    assert_eq!(seen.len(), 20);
    for (publisher, at) in seen {
        assert!(
            at.len() == 3 && at.iter().all(|one| *one == at[0]),
            "{publisher}: {at:?}"
        );
    }
}

/// §4.8.2: an unacknowledged QoS 1 message goes to another member when the session ends, in its order and without DUP.
#[test]
fn unacknowledged_qos_1_goes_to_another_member_when_the_session_ends() {
    let broker = strategy("sticky");
    let mut leaving = member(&broker, "leaving", 1);
    let mut staying = member(&broker, "staying", 1);
    let mut publisher = broker.publisher(V5);
    for number in 0..5 {
        publisher.publish("work", 1, number.to_string());
    }
    let first = leaving.receive_publish();
    leaving.acknowledge(&first);
    for number in 1..5 {
        assert_eq!(leaving.receive_publish().text(), number.to_string());
    }
    leaving.send(disconnect(0, &[Property::Four(EXPIRY, 0)]));
    leaving.expect_end();
    for number in 1..5 {
        let message = staying.receive_publish();
        assert_eq!((message.text(), message.dup), (number.to_string(), false));
        staying.acknowledge(&message);
    }
    staying.expect_nothing(&mut publisher);
}

/// [MQTT-4.8.2-4], [MQTT-4.8.2-5]: a QoS 2 message that was sent goes to nobody else, neither while the member is away
/// nor when its session ends.
#[test]
fn a_qos_2_message_that_was_sent_stays_with_its_member() {
    let broker = strategy("sticky");
    let mut leaving = member(&broker, "leaving", 2);
    let mut staying = member(&broker, "staying", 2);
    let mut publisher = broker.publisher(V5);
    publisher.publish("work", 2, "sent");
    assert_eq!(leaving.receive_publish().text(), "sent");
    leaving.cut();
    staying.expect_nothing(&mut publisher);
    let connect = Connect::new(V5, "leaving").persistent();
    let (mut leaving, present) = Client::connect_resuming(&broker, &connect);
    assert!(present);
    let again = leaving.receive_publish();
    assert_eq!((again.text().as_str(), again.dup), ("sent", true));
    leaving.send(disconnect(0, &[Property::Four(EXPIRY, 0)]));
    leaving.expect_end();
    staying.expect_nothing(&mut publisher);
}

/// [MQTT-4.8.2-6]: who refuses a message refuses it for the group.
#[test]
fn a_refused_message_goes_to_nobody_else() {
    let broker = strategy("sticky");
    let mut refusing = member(&broker, "refusing", 2);
    let mut other = member(&broker, "other", 2);
    let mut publisher = broker.publisher(V5);
    for (qos, kind) in [(1, Kind::Puback), (2, Kind::Pubrec)] {
        publisher.publish("work", qos, "no");
        let message = refusing.receive_publish();
        refusing.send(ack_with(kind, message.id.unwrap(), 0x83));
        refusing.settle();
    }
    refusing.send(disconnect(0, &[Property::Four(EXPIRY, 0)]));
    refusing.expect_end();
    other.expect_nothing(&mut publisher);
}

/// What waits for a member whose session ends, sent to nobody yet, goes to another one: QoS 2 too.
#[test]
fn queued_messages_go_to_another_member_when_the_session_ends() {
    let broker = strategy("sticky");
    // A Receive Maximum of 1: all but the first wait.
    let connect = Connect::new(V5, "slow")
        .persistent()
        .property(Property::Two(0x21, 1));
    let mut slow = Client::connect_with(&broker, &connect);
    slow.subscribe("$share/g/work", 2);
    let mut other = member(&broker, "other", 2);
    let mut publisher = broker.publisher(V5);
    for number in 0..4 {
        publisher.publish("work", 2, number.to_string());
    }
    assert_eq!(slow.receive_publish().text(), "0");
    slow.send(disconnect(0, &[Property::Four(EXPIRY, 0)]));
    slow.expect_end();
    assert_eq!(taken(&mut other, &mut publisher), ["1", "2", "3"]);
}

/// The same when a session expires while its client is away.
#[test]
fn an_expired_session_leaves_its_messages_to_the_others() {
    let broker = Broker::start();
    let connect = Connect::new(V5, "brief").property(Property::Four(EXPIRY, 1));
    let mut brief = Client::connect_with(&broker, &connect);
    brief.subscribe("$share/g/work", 1);
    let mut publisher = broker.publisher(V5);
    publisher.publish("work", 1, "kept");
    assert_eq!(brief.receive_publish().text(), "kept");
    let mut other = member(&broker, "other", 1);
    brief.cut();
    assert_eq!(other.receive_publish().text(), "kept");
}

/// A member that unsubscribes takes nothing with it that was not sent to it; what was sent it completes.
/// [MQTT-3.10.4-3]
#[test]
fn a_member_that_unsubscribes_leaves_what_waits_to_the_others() {
    let broker = strategy("sticky");
    let connect = Connect::new(V5, "slow").property(Property::Two(0x21, 1));
    let mut slow = Client::connect_with(&broker, &connect);
    slow.subscribe("$share/g/work", 1);
    let mut other = member(&broker, "other", 1);
    let mut publisher = broker.publisher(V5);
    for number in 0..3 {
        publisher.publish("work", 1, number.to_string());
    }
    let sent = slow.receive_publish();
    slow.unsubscribe(&["$share/g/work"]);
    assert_eq!(taken(&mut other, &mut publisher), ["1", "2"]);
    slow.acknowledge(&sent);
    slow.expect_nothing(&mut publisher);
}

/// The last member keeps what waits for it: there is nobody else.
#[test]
fn the_last_member_keeps_what_waits() {
    let broker = Broker::start();
    let connect = Connect::new(V5, "slow").property(Property::Two(0x21, 1));
    let mut slow = Client::connect_with(&broker, &connect);
    slow.subscribe("$share/g/work", 1);
    let mut publisher = broker.publisher(V5);
    for number in 0..3 {
        publisher.publish("work", 1, number.to_string());
    }
    let first = slow.receive_publish();
    slow.unsubscribe(&["$share/g/work"]);
    slow.acknowledge(&first);
    slow.expect_only(&mut publisher, &["1", "2"]);
}
