//! The package mqtt for Node.js.

use std::process::Command;

use hbmqtt::scram::Credentials;

use crate::support::program::Program;
use crate::support::{Broker, TempDir};

use super::{FEATURES, below, is_on, script};

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

/// Each property and feature of MQTT 5.0, SCRAM-SHA-256 through the package's enhanced authentication included.
#[test]
fn mqttjs_uses_every_property_of_5_0() {
    if !is_on("mqttjs_uses_every_property_of_5_0") {
        return;
    }
    let directory = TempDir::new();
    let credentials = Credentials::new(b"secret", 4096).unwrap();
    let users = directory.file("scram", format!("alice:{credentials}\n"));
    let broker = Broker::with(&format!("{FEATURES}auth: {{scram-file: '{users}'}}\n"));
    let mut command = Command::new("node");
    command
        .args([
            &script("mqttjs_properties.js"),
            &format!("mqtt://{}", broker.address()),
        ])
        .env("MQTT_PACKAGE", below("tests/.deps/node/node_modules/mqtt"));
    assert_eq!(Program::spawn(command).succeeds(), "ok");
}
