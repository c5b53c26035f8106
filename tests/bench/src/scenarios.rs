//! What is measured: the table of the runs, and the runs that are not plain traffic.

mod clients;
mod growth;
mod measure;
mod offline;
mod retained;
mod shapes;

use std::time::Duration;

use self::clients::{connect, idle};
use self::growth::growth;
pub(crate) use self::measure::Measured;
use self::measure::traffic;
use self::offline::offline;
use self::retained::retained;
use self::shapes::{fan_in, fan_out, filters, pair, ping};
use crate::brokers::Running;
use crate::connection::Target;
use crate::fault::Fault;
use crate::traffic::{Pace, Shape};

/// One run and the rows of the table that it fills.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) rows: &'static [Row],
    /// Whether the relay can do it too.
    pub(crate) on_relay: bool,
    run: fn(&Bench<'_>) -> Result<Vec<Measured>, Fault>,
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) work: &'static str,
    pub(crate) goal: Goal,
}

/// What hbmqtt is to reach in a row.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// CPU of the broker per message or delivery, in µs.
    CpuUs(f64),
    /// Resident bytes of the broker per connection.
    BytesEach(f64),
    /// The median latency of mosquitto's QoS 0.
    Mosquitto,
    /// So many times the relay's CPU, where the relay does the same encryption or framing.
    OfRelay(f64),
    None,
}

/// Where and for how long a scenario runs.
pub(crate) struct Bench<'a> {
    pub(crate) plain: &'a Target,
    pub(crate) tls: Option<&'a Target>,
    pub(crate) websocket: Option<&'a Target>,
    pub(crate) pid: Option<u32>,
    pub(crate) time: Duration,
    /// Counts so small that all scenarios take seconds.
    pub(crate) is_smoke: bool,
}

impl<'a> Bench<'a> {
    pub(crate) fn of(running: &'a Running, time: Duration, is_smoke: bool) -> Self {
        Self {
            plain: &running.plain,
            tls: Some(&running.tls),
            websocket: Some(&running.websocket),
            pid: Some(running.pid()),
            time,
            is_smoke,
        }
    }

    /// How much of something: `full`, or for the smoke test `smoke`.
    fn count(&self, full: u64, smoke: u64) -> u64 {
        if self.is_smoke { smoke } else { full }
    }
}

impl Scenario {
    /// Runs it; one result per row.
    pub(crate) fn run(&self, bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
        (self.run)(bench)
    }
}

const fn row(work: &'static str, goal: Goal) -> Row {
    Row { work, goal }
}

/// All scenarios, in the table's order.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "qos0-16",
        rows: &[row("1→1, QoS 0, 16 B", Goal::CpuUs(0.15))],
        on_relay: true,
        run: |bench| traffic(bench, bench.plain, pair(0, 16)),
    },
    Scenario {
        name: "qos0-1k",
        rows: &[row("1→1, QoS 0, 1 KiB", Goal::CpuUs(0.5))],
        on_relay: true,
        run: |bench| traffic(bench, bench.plain, pair(0, 1024)),
    },
    Scenario {
        name: "qos1-16",
        rows: &[row("1→1, QoS 1, 16 B", Goal::CpuUs(0.8))],
        on_relay: false,
        run: |bench| traffic(bench, bench.plain, pair(1, 16)),
    },
    Scenario {
        name: "qos1-1k",
        rows: &[row("1→1, QoS 1, 1 KiB", Goal::None)],
        on_relay: false,
        run: |bench| traffic(bench, bench.plain, pair(1, 1024)),
    },
    Scenario {
        name: "qos2-16",
        rows: &[row("1→1, QoS 2, 16 B", Goal::CpuUs(1.6))],
        on_relay: false,
        run: |bench| traffic(bench, bench.plain, pair(2, 16)),
    },
    Scenario {
        name: "qos2-1k",
        rows: &[row("1→1, QoS 2, 1 KiB", Goal::None)],
        on_relay: false,
        run: |bench| traffic(bench, bench.plain, pair(2, 1024)),
    },
    Scenario {
        name: "pairs",
        rows: &[row("20 pairs, QoS 0, 64 B", Goal::CpuUs(0.8))],
        on_relay: true,
        run: |bench| {
            traffic(
                bench,
                bench.plain,
                Shape {
                    publishers: 20,
                    receivers: 20,
                    streams: 20,
                    ..pair(0, 64)
                },
            )
        },
    },
    Scenario {
        name: "fan-out",
        rows: &[row("1→500, QoS 0, 64 B, per delivery", Goal::CpuUs(0.35))],
        on_relay: true,
        run: |bench| traffic(bench, bench.plain, fan_out(bench.count(500, 50) as usize)),
    },
    Scenario {
        name: "fan-in",
        rows: &[row(
            "500→1, QoS 0, 64 B, two in flight each",
            Goal::CpuUs(4.0),
        )],
        on_relay: true,
        run: |bench| traffic(bench, bench.plain, fan_in(bench.count(500, 50) as usize)),
    },
    Scenario {
        name: "ping-0",
        rows: &[row("one at a time, QoS 0, 16 B", Goal::Mosquitto)],
        on_relay: true,
        run: |bench| traffic(bench, bench.plain, ping(0)),
    },
    Scenario {
        name: "ping-1",
        rows: &[row("one at a time, QoS 1, 16 B", Goal::Mosquitto)],
        on_relay: false,
        run: |bench| traffic(bench, bench.plain, ping(1)),
    },
    Scenario {
        name: "ping-2",
        rows: &[row("one at a time, QoS 2, 16 B", Goal::Mosquitto)],
        on_relay: false,
        run: |bench| traffic(bench, bench.plain, ping(2)),
    },
    Scenario {
        name: "open",
        rows: &[row(
            "open loop, 5,000 a second, QoS 0, 64 B",
            Goal::CpuUs(22.0),
        )],
        on_relay: true,
        run: |bench| {
            let pace = Pace::PerSecond(5000);
            traffic(
                bench,
                bench.plain,
                Shape {
                    pace,
                    keeps_latency: true,
                    ..pair(0, 64)
                },
            )
        },
    },
    Scenario {
        name: "filters",
        rows: &[row(
            "50,000 filters (exact, +, #) of 100 clients, QoS 0, 64 B, per delivery",
            Goal::CpuUs(2.0),
        )],
        on_relay: false,
        run: |bench| {
            let streams = bench.count(50_000, 2_000) as usize;
            traffic(
                bench,
                bench.plain,
                filters(bench.count(100, 20) as usize, streams),
            )
        },
    },
    Scenario {
        name: "connect",
        rows: &[row("connect + subscribe", Goal::CpuUs(38.0))],
        on_relay: false,
        run: connect,
    },
    Scenario {
        name: "retained",
        rows: &[
            row("retained, 64 B: set", Goal::CpuUs(1.2)),
            row("retained, 64 B: deliver", Goal::CpuUs(0.5)),
        ],
        on_relay: false,
        run: retained,
    },
    Scenario {
        name: "offline",
        rows: &[
            row(
                "20,000 QoS 1 for an offline session, 64 B: enqueue",
                Goal::CpuUs(1.5),
            ),
            row(
                "20,000 QoS 1 for an offline session, 64 B: deliver",
                Goal::CpuUs(0.8),
            ),
        ],
        on_relay: false,
        run: offline,
    },
    Scenario {
        name: "idle",
        rows: &[row("idle connection", Goal::BytesEach(10_000.0))],
        on_relay: false,
        run: idle,
    },
    Scenario {
        name: "tls",
        rows: &[row("TLS, 1→1, QoS 0, 1 KiB", Goal::OfRelay(1.5))],
        on_relay: true,
        run: |bench| traffic(bench, bench.tls.ok_or(NOT_OFFERED)?, pair(0, 1024)),
    },
    Scenario {
        name: "websocket",
        rows: &[row("WebSocket, 1→1, QoS 0, 1 KiB", Goal::OfRelay(1.5))],
        on_relay: true,
        run: |bench| traffic(bench, bench.websocket.ok_or(NOT_OFFERED)?, pair(0, 1024)),
    },
    Scenario {
        name: "growth",
        rows: &[
            row("1→1, QoS 0, 64 B, alone", Goal::None),
            row(
                "… beside 10 connections, each with a subscription",
                Goal::None,
            ),
            row("… beside 100 connections", Goal::None),
            row("… beside 1,000 connections", Goal::None),
            row("… beside 10 sessions whose clients are away", Goal::None),
            row("… beside 100 such sessions", Goal::None),
            row("… beside 1,000 such sessions", Goal::None),
            row("… beside 500 filters with wildcards", Goal::None),
            row("… beside 5,000 such filters", Goal::None),
            row("… beside 50,000 such filters", Goal::None),
            row("… beside 500 retained messages", Goal::None),
            row("… beside 5,000 retained messages", Goal::None),
            row("… beside 50,000 retained messages", Goal::None),
        ],
        on_relay: false,
        run: growth,
    },
];

const NOT_OFFERED: Fault = Fault::Wrong("no such listener");
