//! A broker inside a program. It runs until standard input ends.
//!
//! Usage: `cargo run --example broker -- [HOST:PORT]`

#![expect(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::io::{self, Read};
use std::time::Duration;

use hbmqtt::{Broker, Config, QoS};

fn main() -> Result<(), Box<dyn Error>> {
    let bind = std::env::args().nth(1);
    let bind = bind.as_deref().unwrap_or("127.0.0.1:1883");
    let settings = format!("listeners: {{default: {{bind: '{bind}'}}}}\nsys_interval: 5");
    let mut broker = Broker::new(Config::parse(&settings)?);
    broker.start()?;
    // With port 0 the system chooses one; this is the one it chose.
    let address = broker.local_address("default").unwrap_or_default();
    println!("listening on {address}, end with Ctrl-D");

    // The program itself can publish, and ask what the broker holds.
    let context = broker.context()?;
    context.publish("greetings/broker", "hello", QoS::AtMostOnce, true)?;

    io::stdin().read_to_end(&mut Vec::new())?;
    let stats = context.stats()?;
    println!("{} clients at most", stats.clients_maximum);
    broker.shutdown(Duration::from_secs(5))?;
    Ok(())
}
