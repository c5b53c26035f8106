//! What a run found, and the clocks around it.

use std::io;
use std::time::Instant;

use super::Bench;
use crate::clock::{cpu_us, now, rss_bytes};
use crate::connection::Target;
use crate::fault::Fault;
use crate::traffic::{Bounds, Shape, Traffic};

/// What a run found.
#[derive(Clone)]
pub(crate) struct Measured {
    /// Messages, deliveries or connections.
    pub(crate) units: u64,
    pub(crate) seconds: f64,
    /// The broker's CPU time, if its process is known.
    pub(crate) cpu_us: Option<f64>,
    /// The generator's own CPU time.
    pub(crate) generator_us: f64,
    pub(crate) rss_bytes: Option<u64>,
    /// p50, p99 and p99.9 in µs.
    pub(crate) latency_us: Option<[f64; 3]>,
    pub(crate) bytes_each: Option<f64>,
}

/// Warms up, then measures.
pub(super) fn traffic(
    bench: &Bench<'_>,
    target: &Target,
    shape: Shape,
) -> Result<Vec<Measured>, Fault> {
    let keeps_latency = shape.keeps_latency;
    let mut traffic = Traffic::new(target, shape)?;
    let messages = bench.count(30_000_000, 20_000);
    traffic.run(Bounds {
        messages: messages / 10,
        time: bench.time / 8,
    })?;
    let meter = Meter::start(bench)?;
    let mut leg = traffic.run(Bounds {
        messages,
        time: bench.time,
    })?;
    let mut measured = meter.stop(leg.deliveries)?;
    measured.seconds = leg.seconds;
    measured.latency_us = keeps_latency.then(|| percentiles(&mut leg.latencies));
    traffic.settle()?;
    Ok(vec![measured])
}

fn percentiles(latencies: &mut [u64]) -> [f64; 3] {
    latencies.sort_unstable();
    [0.5, 0.99, 0.999].map(|part| {
        let at = (latencies.len() as f64 * part) as usize;
        latencies
            .get(at)
            .map_or(f64::NAN, |nanoseconds| *nanoseconds as f64 / 1e3)
    })
}

/// Reads clocks at both ends of what is measured.
pub(super) struct Meter {
    pid: Option<u32>,
    start: Instant,
    broker_us: Option<f64>,
    generator_us: f64,
}

impl Meter {
    pub(super) fn start(bench: &Bench<'_>) -> io::Result<Self> {
        Ok(Self {
            pid: bench.pid,
            broker_us: bench.pid.map(cpu_us).transpose()?,
            generator_us: cpu_us(std::process::id())?,
            start: now(),
        })
    }

    pub(super) fn stop(self, units: u64) -> io::Result<Measured> {
        let seconds = self.start.elapsed().as_secs_f64();
        let broker_us = self.pid.map(cpu_us).transpose()?;
        Ok(Measured {
            units,
            seconds,
            cpu_us: broker_us
                .zip(self.broker_us)
                .map(|(end, start)| end - start),
            generator_us: cpu_us(std::process::id())? - self.generator_us,
            rss_bytes: self.pid.map(rss_bytes).transpose()?,
            latency_us: None,
            bytes_each: None,
        })
    }
}

impl Measured {
    pub(super) fn plus(self, other: &Self) -> Self {
        Self {
            units: self.units + other.units,
            seconds: self.seconds + other.seconds,
            cpu_us: self
                .cpu_us
                .zip(other.cpu_us)
                .map(|(one, other)| one + other),
            generator_us: self.generator_us + other.generator_us,
            rss_bytes: self.rss_bytes.max(other.rss_bytes),
            ..self
        }
    }
}
