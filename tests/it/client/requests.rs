//! Requests and responses between clients of the library.

use hbmqtt::client::{ClientError, ConnectOptions, Phase};
use hbmqtt::{Client, QoS, ReasonCode};

use crate::support::{Broker, PATIENCE};

fn connect(url: &str) -> Client {
    ConnectOptions::new()
        .ack_timeout(PATIENCE)
        .connect(url)
        .unwrap()
}

/// A responder that turns texts round.
pub(crate) fn responder(url: &str) -> Client {
    let client = connect(url);
    client.subscribe([("reverse", QoS::ExactlyOnce)]).unwrap();
    client
        .on_message(|client, request| {
            let text = String::from_utf8_lossy(request.payload());
            let reversed: String = text.chars().rev().collect();
            client.respond(&request, reversed).unwrap();
        })
        .unwrap();
    client
}

/// Each of many threads gets the response to its own request, at each QoS.
pub(crate) fn ask(url: &str) {
    let client = connect(url);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = &client;
            scope.spawn(move || {
                for (number, qos) in (0..30).zip(QoS::ALL.into_iter().cycle()) {
                    let request = format!("{thread}-{number:02}");
                    let response = client
                        .request_with("reverse", &request, PATIENCE, qos)
                        .unwrap();
                    let expected: String = request.chars().rev().collect();
                    assert_eq!(response.payload().as_ref(), expected.as_bytes());
                    assert_eq!(response.qos(), qos);
                }
            });
        }
    });
    assert_eq!(client.waiting_messages(), 0);
}

#[test]
fn requests_are_answered_through_our_broker() {
    let broker = Broker::start();
    let url = format!("mqtt://{}", broker.address());
    let _responder = responder(&url);
    ask(&url);
}

#[test]
fn a_request_without_a_responder_fails() {
    let broker = Broker::start();
    let client = connect(&format!("mqtt://{}", broker.address()));
    let short = std::time::Duration::from_millis(50);
    let error = client.request("nobody/there", "?", short).unwrap_err();
    assert!(matches!(error, ClientError::Timeout(Phase::Response)));
    let error = client
        .request_with("nobody/there", "?", PATIENCE, QoS::AtLeastOnce)
        .unwrap_err();
    assert_eq!(error.reason(), Some(ReasonCode::NoMatchingSubscribers));
}
