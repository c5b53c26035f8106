//! What our broker says about itself and others, and what our client makes of it: Response Information and Server
//! Reference.

use hbmqtt::client::{ConnectOptions, PublishOptions};
use hbmqtt::{Client, QoS, ReasonCode};

use crate::client::requests::{ask, responder};
use crate::support::broker::LISTENERS;
use crate::support::{Broker, PATIENCE, TempDir};

fn url(broker: &Broker) -> String {
    format!("mqtt://{}", broker.address())
}

fn following() -> ConnectOptions {
    ConnectOptions::new()
        .ack_timeout(PATIENCE)
        .reconnect_max_interval(std::time::Duration::from_millis(50))
        .follow_redirects(3)
}

/// The responses go to the area that the broker keeps for the client.
#[test]
fn requests_use_the_response_information_of_our_broker() {
    let broker = Broker::with("response-information: areas\n");
    let url = url(&broker);
    let _responder = responder(&url);
    ask(&url);
    let asking = ConnectOptions::new().ack_timeout(PATIENCE);
    let asking = asking.connect(&url).unwrap();
    let information = asking.connect_result().properties.response_information;
    assert!(information.unwrap().starts_with("areas/"));
    let watching = Client::connect(&url, ConnectOptions::new()).unwrap();
    watching
        .subscribe([("question", QoS::AtLeastOnce)])
        .unwrap();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let options = PublishOptions::from(QoS::AtLeastOnce);
            asking.request_with("question", "?", PATIENCE, options)
        });
        let request = watching.recv_timeout(PATIENCE).unwrap();
        let topic = request.properties().unwrap().response_topic.clone();
        assert!(topic.unwrap().starts_with("areas/"));
        watching.respond(&request, "!").unwrap();
        assert_eq!(answer.join().unwrap().unwrap().payload().as_ref(), b"!");
    });
}

/// MQTT 5.0 §4.11: refused with 0x9C or 0x9D, and sent away while connected; subscriptions and messages go along.
#[test]
fn clients_go_where_our_broker_sends_them() {
    let other = Broker::start();
    for redirect in ["temporary", "permanent"] {
        let directory = TempDir::new();
        let settings = |redirect: &str| {
            let reference = other.address();
            format!("{LISTENERS}server-reference: {reference}\nredirect: {redirect}\n")
        };
        let path = directory.file("broker.yaml", settings("off"));
        let mut broker = Broker::spawn(&["-c", &path], directory);
        broker.wait_for_listeners(1);
        let here = url(&broker);

        let client = following().connect(&here).unwrap();
        client.subscribe([("moves", QoS::AtLeastOnce)]).unwrap();
        std::fs::write(&path, settings(redirect)).unwrap();
        broker.signal("HUP");
        let watching = ConnectOptions::new().connect(&url(&other)).unwrap();
        // Once it is there, what is published there reaches it.
        let mut message = None;
        while message.is_none() {
            watching.publish("moves", "x", QoS::AtLeastOnce).unwrap();
            message = client
                .recv_timeout(std::time::Duration::from_millis(50))
                .ok();
        }
        client.publish("answer", "y", QoS::AtLeastOnce).unwrap();

        let newcomer = following().connect(&here).unwrap();
        newcomer.ping(PATIENCE).unwrap();
        let stubborn = ConnectOptions::new().connect(&here);
        let expected = match redirect {
            "temporary" => ReasonCode::UseAnotherServer,
            _ => ReasonCode::ServerMoved,
        };
        assert_eq!(stubborn.map(drop).unwrap_err().reason(), Some(expected));
    }
}
