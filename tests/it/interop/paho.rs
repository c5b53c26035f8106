//! paho-mqtt for Python.

use crate::support::Broker;
use crate::support::program::Program;

use super::{is_on, python, script};

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
