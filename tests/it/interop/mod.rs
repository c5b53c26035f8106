//! With the programs of others: their clients against our broker, our client and tools against their brokers.
//!
//! These tests need what `tests/run` installs, and run only when it sets `HBMQTT_INTEROP=1`; else each says that it is
//! left out.

mod amqtt;
mod mosquitto_clients;
mod mqttjs;
mod our_client;
mod our_client_properties;
mod our_tools;
mod paho;
mod properties;

use std::path::{Path, PathBuf};

use crate::support::left_out;

/// Settings under which a client of MQTT 5.0 comes across every property and many reason codes; to be completed with the
/// section `auth`.
const FEATURES: &str = "queue-full: reject
check-payload-format: on
response-information: responses
topic-check: {enabled: on, plugins: [topic_taboo], taboo-topics: ['forbidden/#']}
limits: {max-keepalive: 20, receive-maximum: 10, max-topic-alias: 5, max-packet-size: 100000, max-topic-levels: 20,
  max-client-id-length: 36, max-queued-messages: 5}
";

/// Whether the tests against other programs run; says that `test` is left out otherwise.
pub(crate) fn is_on(test: &str) -> bool {
    let on = std::env::var("HBMQTT_INTEROP").is_ok_and(|value| value == "1");
    if !on {
        left_out(
            test,
            "needs the programs of others; tests/run installs them and switches it on",
        );
    }
    on
}

/// A script of tests/interop.
fn script(name: &str) -> String {
    below("tests/interop")
        .join(name)
        .to_str()
        .unwrap()
        .to_owned()
}

/// The Python with paho-mqtt and amqtt.
fn python() -> String {
    below("tests/.deps/python/bin/python")
        .to_str()
        .unwrap()
        .to_owned()
}

fn below(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
