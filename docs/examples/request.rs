//! Asks a question and prints the answer. A thread of the same program answers.
//!
//! Usage: `cargo run --example request -- [URL [TEXT]]`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::time::Duration;

use hbmqtt::client::{ClientError, ConnectOptions};
use hbmqtt::proto::QoS;

const TOPIC: &str = "example/shout";

fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next();
    let url = url.as_deref().unwrap_or("mqtt://localhost");
    let text = arguments.next().unwrap_or_else(|| "hello".to_owned());

    let answering = ConnectOptions::new().connect(url)?;
    answering.subscribe([(TOPIC, QoS::AtLeastOnce)])?;
    answering.on_message(|client, request| {
        let text = String::from_utf8_lossy(request.payload()).to_uppercase();
        if let Err(error) = client.respond(&request, text) {
            eprintln!("not answered: {error}");
        }
    })?;

    let asking = ConnectOptions::new().connect(url)?;
    let options = QoS::AtLeastOnce;
    let answer = asking.request_with(TOPIC, text, Duration::from_secs(5), options)?;
    println!("{}", String::from_utf8_lossy(answer.payload()));
    Ok(())
}
