//! Response Information: an area of topics for each client.

use crate::support::*;

const RESPONSES: &str = "response-information: responses\n";

/// A client that asked for it, and its Response Information.
fn requester(broker: &Broker, client_id: &str, wanted: Option<u8>) -> (Client, Option<String>) {
    let mut connect = Connect::new(V5, client_id);
    connect
        .properties
        .extend(wanted.map(|wanted| Property::Byte(0x19, wanted)));
    let mut client = Client::open(broker);
    client.version = V5;
    client.send(connect.encode());
    let Packet::Connack {
        code: 0,
        properties,
        ..
    } = client.receive()
    else {
        panic!("expected an accepting CONNACK")
    };
    let told = properties.into_iter().find_map(|property| match property {
        Property::Text(0x1a, text) => Some(text),
        _ => None,
    });
    (client, told)
}

/// [MQTT-3.1.2-28]
#[test]
fn response_information_is_told_to_those_who_ask_where_there_is_one() {
    let broker = Broker::with(RESPONSES);
    for (client_id, wanted, told) in [
        ("me", Some(1), Some("responses/me/")),
        ("a/b+c#d%", Some(1), Some("responses/a%2Fb%2Bc%23d%25/")),
        ("me", Some(0), None),
        ("me", None, None),
    ] {
        assert_eq!(requester(&broker, client_id, wanted).1.as_deref(), told);
    }
    let (_client, told) = requester(&broker, "", Some(1));
    assert!(told.is_some_and(|told| told.starts_with("responses/auto-")));
    assert_eq!(requester(&Broker::start(), "me", Some(1)).1, None);
}

/// A request and its response, and nobody else who gets the response, by whatever filter.
#[test]
fn only_the_client_gets_what_is_published_into_its_area() {
    let broker = Broker::with(RESPONSES);
    let (mut requester, area) = requester(&broker, "one/two", Some(1));
    let area = area.unwrap();
    requester.subscribe(&format!("{area}#"), 1);
    let mut responder = broker.publisher(V5);
    let answer = format!("{area}answer");
    for (version, filter) in [
        (V5, "#"),
        (V5, "+/+/+"),
        (V5, "+/#"),
        (V5, "$share/group/#"),
        (V5, "responses"),
        (V311, "#"),
    ] {
        let mut other = broker.subscriber(version, filter, 1);
        responder.publish(&answer, 1, "response");
        other.expect_nothing(&mut responder);
        requester.expect_only(&mut responder, &["response"]);
        other.cut();
    }
    responder.publish_packet(Publish::new(&answer, 1, "kept").retain());
    requester.expect_only(&mut responder, &["kept"]);
    // Nor later, from what is retained.
    let mut late = Client::connect(&broker, V5);
    late.subscribe("#", 1);
    late.expect_nothing(&mut responder);
    requester.subscribe(&answer, 1);
    requester.expect_only(&mut responder, &["kept"]);
}

/// 0x87 for a filter that names the area of another, or of all; also for a shared one, and in 3.1.1.
#[test]
fn nobody_else_subscribes_below_the_prefix() {
    let broker = Broker::with(RESPONSES);
    let foreign = [
        "responses/other/#",
        "responses/+/x",
        "responses/#",
        "$share/group/responses/me/#",
    ];
    for version in [V311, V5] {
        let mut client = Client::connect_with(&broker, &Connect::new(version, "me"));
        let filters: Vec<_> = foreign.iter().map(|filter| (*filter, 1)).collect();
        client.send(subscribe(version, 9, &filters));
        let Packet::Suback { codes, .. } = client.receive() else {
            panic!("expected SUBACK")
        };
        assert_eq!(codes, [if version == V5 { 0x87 } else { 0x80 }; 4]);
        client.subscribe("responses/me/#", 1);
    }
}

/// Messages into an area that its client is not subscribed to have no subscribers, however many could see them.
#[test]
fn a_response_that_nobody_waits_for_matches_nobody() {
    let broker = Broker::with(RESPONSES);
    let _watcher = broker.subscriber(V5, "#", 0);
    let mut responder = broker.publisher(V5);
    for (topic, expected) in [("responses/gone/x", 0x10), ("other", 0)] {
        responder.send(Publish::new(topic, 1, "x").id(3).encode(V5));
        assert!(
            matches!(responder.receive(), Packet::Ack { kind: Kind::Puback, reason, .. } if reason == expected)
        );
    }
}

/// Behind a mount point the areas stand behind it too, and who is on another listener does not see into them.
#[test]
fn areas_stand_behind_the_mount_point() {
    let broker = Broker::configured(&format!(
        "{RESPONSES}listeners:\n  default:\n    bind: 127.0.0.1:0\n  inner:\n    bind: 127.0.0.1:0\n    mount-point: 'm/'\n"
    ));
    let inner = |client_id: &str| {
        let mut client = Client::open_at(broker.address_of("inner"));
        client.handshake(&Connect::new(V5, client_id));
        client
    };
    let mut requester = inner("me");
    requester.subscribe("responses/me/#", 1);
    let mut outside = Client::connect(&broker, V5);
    outside.subscribe("#", 0);
    outside.send(subscribe(V5, 9, &[("m/responses/me/#", 0)]));
    assert!(matches!(outside.receive(), Packet::Suback { codes, .. } if codes == [0x87]));
    let mut responder = inner("responder");
    responder.publish("responses/me/x", 1, "response");
    let message = requester.receive_publish();
    assert_eq!(
        (message.topic.as_str(), message.text().as_str()),
        ("responses/me/x", "response")
    );
    outside.expect_nothing(&mut broker.publisher(V5));
}
