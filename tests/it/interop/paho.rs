//! paho-mqtt for Python.

use crate::support::Broker;
use crate::support::program::Program;

use super::{FEATURES, is_on, python, script};

/// QoS 0 to 2, retained messages, a will, a persistent session, a megabyte: MQTT 3.1, 3.1.1 and 5.0, tcp and WebSocket.
#[test]
fn paho_speaks_with_our_broker() {
    if !is_on("paho_speaks_with_our_broker") {
        return;
    }
    let broker = Broker::configured(
        "listeners:\n  default:\n    bind: 127.0.0.1:0\n  web:\n    type: ws\n    bind: 127.0.0.1:0\n",
    );
    for version in ["3", "4", "5"] {
        for (transport, listener) in [("tcp", "default"), ("websockets", "web")] {
            let port = broker.address_of(listener).port().to_string();
            let output = Program::start(
                &python(),
                &[
                    &script("paho_round.py"),
                    "127.0.0.1",
                    &port,
                    version,
                    transport,
                ],
            );
            assert_eq!(output.succeeds(), "ok", "version {version}, {transport}");
        }
    }
}

/// Each property and feature of MQTT 5.0 that paho-mqtt has, which is all but enhanced authentication.
#[test]
fn paho_uses_every_property_of_5_0() {
    if !is_on("paho_uses_every_property_of_5_0") {
        return;
    }
    let broker = Broker::with(FEATURES);
    let port = broker.port().to_string();
    let arguments = [&script("paho_properties.py"), "127.0.0.1", &port];
    assert_eq!(Program::start(&python(), &arguments).succeeds(), "ok");
}
