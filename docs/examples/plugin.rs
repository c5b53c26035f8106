//! A broker with a plugin that greets each client: `cargo run --example plugin`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use hbmqtt::broker::plugin::{Interests, Plugin, PluginContext};
use hbmqtt::broker::{Broker, Config};
use hbmqtt::client::ConnectOptions;
use hbmqtt::proto::QoS;

struct Greeter;

impl Plugin for Greeter {
    fn name(&self) -> &str {
        "greeter"
    }

    fn interests(&self) -> Interests {
        Interests::LIFE_CYCLE
    }

    fn on_broker_client_subscribed(
        &mut self,
        broker: &dyn PluginContext,
        client_id: &str,
        filter: &str,
        _qos: QoS,
    ) {
        let text = format!(
            "hello {client_id}, {} of you are here",
            broker.sessions().len()
        );
        if let Err(error) = broker.broadcast_message(filter, text.into(), QoS::AtLeastOnce) {
            eprintln!("no greeting: {error}");
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::parse("listeners: {inside: {type: mem, bind: plugin-example}}")?;
    let mut broker = Broker::new(config).plugin(Box::new(Greeter));
    broker.start()?;
    let client = ConnectOptions::new()
        .client_id("alice")
        .connect("mem://plugin-example")?;
    client.subscribe([("greetings", QoS::AtLeastOnce)])?;
    println!("{}", String::from_utf8_lossy(client.recv()?.payload()));
    Ok(())
}
