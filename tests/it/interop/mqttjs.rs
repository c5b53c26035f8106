//! The package mqtt for Node.js.

use std::process::Command;

use crate::support::Broker;
use crate::support::program::Program;

use super::{below, is_on, script};

/// QoS 0 to 2, retained messages, a will, a persistent session, a megabyte: MQTT 3.1, 3.1.1 and 5.0, tcp and WebSocket.
#[test]
fn mqttjs_speaks_with_our_broker() {
    if !is_on("mqttjs_speaks_with_our_broker") {
        return;
    }
    let broker = Broker::configured(
        "listeners:\n  default:\n    bind: 127.0.0.1:0\n  web:\n    type: ws\n    bind: 127.0.0.1:0\n",
    );
    for version in ["3", "4", "5"] {
        for (scheme, listener) in [("mqtt", "default"), ("ws", "web")] {
            let url = format!("{scheme}://{}", broker.address_of(listener));
            let mut command = Command::new("node");
            command
                .args([&script("mqttjs_round.js"), &url, version])
                .env("MQTT_PACKAGE", below("tests/.deps/node/node_modules/mqtt"));
            assert_eq!(
                Program::spawn(command).succeeds(),
                "ok",
                "version {version}, {scheme}"
            );
        }
    }
}
