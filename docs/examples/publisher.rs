//! Publishes three messages at once, then three one after the other.
//!
//! Usage: `cargo run --example publisher -- [URL]`

use hbmqtt::client::{ClientError, ConnectOptions};
use hbmqtt::proto::QoS;

const MESSAGES: [(&str, QoS); 3] = [
    ("TEST MESSAGE WITH QOS_0", QoS::AtMostOnce),
    ("TEST MESSAGE WITH QOS_1", QoS::AtLeastOnce),
    ("TEST MESSAGE WITH QOS_2", QoS::ExactlyOnce),
];

/// All three leave before the first acknowledgement is waited for.
fn at_once(url: &str) -> Result<(), ClientError> {
    let client = ConnectOptions::new().connect(url)?;
    let tokens = MESSAGES.map(|(text, qos)| client.publish_nowait("a/b", text, qos));
    for token in tokens {
        token?.wait()?;
    }
    client.disconnect()
}

/// Each is acknowledged before the next one leaves.
fn one_by_one(url: &str) -> Result<(), ClientError> {
    let client = ConnectOptions::new().connect(url)?;
    for (text, qos) in MESSAGES {
        client.publish("a/b", text, qos)?;
    }
    client.disconnect()
}

fn main() -> Result<(), ClientError> {
    let url = std::env::args().nth(1);
    let url = url.as_deref().unwrap_or("mqtt://localhost:1883/");
    at_once(url)?;
    one_by_one(url)
}
