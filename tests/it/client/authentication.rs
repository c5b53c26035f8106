//! SCRAM-SHA-256 between the library and our broker.

use hbmqtt::client::{ClientError, ConnectOptions};
use hbmqtt::scram::Credentials;
use hbmqtt::{QoS, ReasonCode};

use crate::support::{Broker, PATIENCE, TempDir};

#[test]
fn scram_is_spoken_with_our_broker_at_connect_and_again() {
    let directory = TempDir::new();
    let credentials = Credentials::new(b"secret", 4096).unwrap();
    let file = directory.file("scram", format!("alice:{credentials}\n"));
    let broker = Broker::with(&format!(
        "auth:\n  allow-anonymous: off\n  scram-file: {file}\n"
    ));
    let url = format!("mqtt://{}", broker.address());
    let options = ConnectOptions::new()
        .auto_reconnect(false)
        .ack_timeout(PATIENCE);

    let client = options
        .clone()
        .scram("alice", "secret")
        .connect(&url)
        .unwrap();
    client.subscribe([("a", QoS::AtLeastOnce)]).unwrap();
    for _ in 0..3 {
        client.reauthenticate().unwrap();
        client.publish("a", "still here", QoS::AtLeastOnce).unwrap();
        client.recv_timeout(PATIENCE).unwrap();
    }
    // Several threads share an exchange.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client.reauthenticate().unwrap());
        }
    });

    for (user, password) in [("alice", "wrong"), ("nobody", "secret")] {
        let refused = options.clone().scram(user, password).connect(&url);
        let error = refused.map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Refused(_)), "{error:?}");
        assert_eq!(error.reason(), Some(ReasonCode::NotAuthorized), "{error}");
    }
}
