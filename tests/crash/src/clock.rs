//! The clock, an order of events among all threads, and what `/proc` knows of a process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "deadlines and measurements: this is the program's only clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits a moment for something that cannot be waited for otherwise: another program's start, its death at a moment that
/// it does not choose, a figure in `/proc`.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when another program listens"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A number that is larger than all that any thread was given before.
pub(crate) fn tick() -> u64 {
    TICKS.fetch_add(1, Ordering::SeqCst)
}

static TICKS: AtomicU64 = AtomicU64::new(1);

/// The CPU time of a process so far, user and system, in µs. The kernel counts it in ticks of 10 ms as a rule.
pub(crate) fn cpu_us(pid: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; the fields after it are numbered from 3.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    match (ticks(), ticks()) {
        (Some(user), Some(system)) => {
            let per_second = rustix::param::clock_ticks_per_second() as f64;
            Ok((user + system) as f64 * 1e6 / per_second)
        }
        _ => Err(io::Error::other(format!("/proc/{pid}/stat cannot be read"))),
    }
}

/// A line of `/proc/PID/status`, in KiB: `VmHWM` is the resident memory at its highest.
pub(crate) fn memory_kib(pid: u32, line: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    value.ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no {line}")))
}
