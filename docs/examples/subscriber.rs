//! Prints the first messages about a broker's load and up time.
//!
//! Usage: `cargo run --example subscriber -- [URL [COUNT]]`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::process::ExitCode;

use hbmqtt::client::{ClientError, ConnectOptions};
use hbmqtt::proto::QoS;

fn run(url: &str, count: usize) -> Result<(), ClientError> {
    let client = ConnectOptions::new().connect(url)?;
    // Subscribe to '$SYS/broker/uptime' with QoS 1, and to all below '$SYS/broker/load' with QoS 2.
    let filters = [
        ("$SYS/broker/uptime", QoS::AtLeastOnce),
        ("$SYS/broker/load/#", QoS::ExactlyOnce),
    ];
    client.subscribe(filters)?;
    for number in 1..=count {
        let message = client.deliver_message(None)?;
        let payload = String::from_utf8_lossy(message.payload());
        println!("{number}: {} => {payload}", message.topic());
    }
    client.unsubscribe(filters.map(|(filter, _)| filter))?;
    client.disconnect()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next();
    let url = url.as_deref().unwrap_or("mqtt://localhost");
    let count = arguments.next().and_then(|count| count.parse().ok());
    if let Err(error) = run(url, count.unwrap_or(100)) {
        eprintln!("Client exception: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
