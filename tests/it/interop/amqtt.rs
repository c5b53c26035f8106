//! amqtt, HBMQTT's maintained successor: its client with our broker, our tools with its broker.

use crate::support::Broker;
use crate::support::broker::free_port;
use crate::support::program::Program;

use super::our_tools::{publish, subscriber};
use super::{is_on, python, script};

#[test]
fn amqtts_client_speaks_with_our_broker() {
    if !is_on("amqtts_client_speaks_with_our_broker") {
        return;
    }
    let broker = Broker::start();
    let url = format!("mqtt://{}", broker.address());
    assert_eq!(
        Program::start(&python(), &[&script("amqtt_client_round.py"), &url]).succeeds(),
        "ok"
    );
}

#[test]
fn our_tools_speak_with_amqtts_broker() {
    if !is_on("our_tools_speak_with_amqtts_broker") {
        return;
    }
    let port = free_port().to_string();
    let amqtt = Program::start(&python(), &[&script("amqtt_broker.py"), &port]);
    amqtt.output.wait_for("ready", |line| line == "ready");
    let url = format!("mqtt://127.0.0.1:{port}");
    for qos in ["0", "1", "2"] {
        let topic = format!("tools/{qos}");
        let subscriber = subscriber(&["--url", &url, "-t", &topic, "-q", qos, "-n", "1", "-d"]);
        publish(&["--url", &url, "-t", &topic, "-q", qos, "-m", "hello amqtt"]);
        assert_eq!(subscriber.succeeds(), "hello amqtt");
    }
}
