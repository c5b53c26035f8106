//! The clock, and what `/proc` knows of a process.

use std::time::Instant;
use std::{fs, io};

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures time; this is its only clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits a moment for something that cannot be waited for otherwise: another program's start, silence.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when another program listens"
)]
pub(crate) fn pause(milliseconds: u64) {
    std::thread::sleep(std::time::Duration::from_millis(milliseconds));
}

/// The CPU time of a process so far, user and system, in µs. The kernel counts it in ticks of 10 ms as a rule.
pub(crate) fn cpu_us(pid: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; the fields after it are numbered from 3.
    let mut fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    match (ticks(), ticks()) {
        (Some(user), Some(system)) => {
            let per_second = rustix::param::clock_ticks_per_second() as f64;
            Ok((user + system) as f64 * 1e6 / per_second)
        }
        _ => Err(io::Error::other(format!("/proc/{pid}/stat cannot be read"))),
    }
}

/// The resident bytes of a process.
pub(crate) fn rss_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = status
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|field| field.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("statm cannot be read"))?;
    Ok(pages * rustix::param::page_size() as u64)
}
