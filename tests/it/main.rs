//! Integration tests: the broker, the client and the tools from outside, byte for byte where bytes are the contract.
//!
//! Everything runs on the loopback interface, on ports that the system chooses, each test with its own broker. Tests
//! against programs of others (`interop`) need those programs and run only with `HBMQTT_INTEROP=1`, as `tests/run` sets it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and drive the broker from threads and clocks of their own"
)]

mod broker;
mod cli;
mod client;
mod conformance;
mod embed;
mod examples;
mod interop;
mod layers;
mod support;
