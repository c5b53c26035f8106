//! The table: medians of the rounds, ratios, targets.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::brokers::Kind;
use crate::scenarios::{Goal, Measured, Row, Scenario};

/// All results so far.
#[derive(Default)]
pub(crate) struct Results {
    /// By row and broker, in the order of the rounds.
    measured: BTreeMap<(&'static str, &'static str), Vec<Measured>>,
    /// By scenario and broker: the first thing that went wrong.
    faults: BTreeMap<(&'static str, &'static str), String>,
}

/// A value over the rounds.
#[derive(Clone, Copy)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Results {
    pub(crate) fn add(&mut self, row: &Row, kind: Kind, measured: Measured) {
        self.measured
            .entry((row.work, kind.name()))
            .or_default()
            .push(measured);
    }

    pub(crate) fn add_fault(&mut self, scenario: &Scenario, kind: Kind, fault: String) {
        self.faults
            .entry((scenario.name, kind.name()))
            .or_insert(fault);
    }

    /// The table in Markdown.
    pub(crate) fn table(&self, scenarios: &[&Scenario], kinds: &[Kind]) -> String {
        let mut table = String::from(
            "| work | broker | per second | CPU µs each | ÷ mosquitto | ÷ relay | target | p50 / p99 / p99.9 µs | RSS MiB | generator |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for scenario in scenarios {
            for row in scenario.rows {
                for kind in kinds {
                    self.line(&mut table, scenario, row, *kind);
                }
            }
        }
        table
    }

    fn line(&self, table: &mut String, scenario: &Scenario, row: &Row, kind: Kind) {
        let measured = self.measured.get(&(row.work, kind.name()));
        let fault = self.faults.get(&(scenario.name, kind.name()));
        let Some(measured) = measured else {
            if let Some(fault) = fault {
                let fault = fault.replace(['|', '\n'], " ");
                let _ = writeln!(
                    table,
                    "| {} | {} | {fault} | | | | | | | |",
                    row.work,
                    kind.name()
                );
            }
            return;
        };
        let cpu = spread(measured, cpu_each);
        let each = spread(measured, |one| one.bytes_each);
        let value = match (each, cpu) {
            (Some(bytes), _) => format!("{:.0} B each", bytes.median),
            (None, Some(cpu)) => format!(
                "{} ({}–{})",
                figure(cpu.median),
                figure(cpu.least),
                figure(cpu.most)
            ),
            (None, None) => String::new(),
        };
        let value = if fault.is_some() {
            format!("{value}; once: {}", fault.map_or("", |fault| fault))
        } else {
            value
        };
        let latency = measured[0].latency_us.map_or_else(String::new, |_| {
            let part = |at: usize| {
                spread(measured, |one| one.latency_us.map(|all| all[at]))
                    .map_or(0.0, |part| part.median)
            };
            format!("{:.0} / {:.0} / {:.0}", part(0), part(1), part(2))
        });
        let rate = spread(measured, |one| Some(one.units as f64 / one.seconds))
            .map_or(0.0, |rate| rate.median);
        let rss = spread(measured, |one| {
            one.rss_bytes.map(|bytes| bytes as f64 / 1_048_576.0)
        });
        let busy = spread(measured, |one| Some(one.generator_us / one.seconds / 1e4))
            .map_or(0.0, |busy| busy.median);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {value} | {} | {} | {} | {latency} | {} | {busy:.0} % |",
            row.work,
            kind.name(),
            thousands(rate),
            self.ratio(row, kind, Kind::Mosquitto),
            self.ratio(row, kind, Kind::Relay),
            if kind == Kind::Hbmqtt {
                self.target(row)
            } else {
                String::new()
            },
            rss.map_or_else(String::new, |rss| format!("{:.1}", rss.median)),
        );
    }

    fn median(
        &self,
        work: &'static str,
        kind: Kind,
        value: impl Fn(&Measured) -> Option<f64>,
    ) -> Option<f64> {
        spread(self.measured.get(&(work, kind.name()))?, value).map(|spread| spread.median)
    }

    /// Of the CPU per unit, or of the bytes per connection.
    fn ratio(&self, row: &Row, kind: Kind, other: Kind) -> String {
        let value = |kind| {
            self.median(row.work, kind, |one| {
                one.bytes_each.or_else(|| cpu_each(one))
            })
        };
        match (value(kind), value(other)) {
            (Some(own), Some(other)) if other > 0.0 => figure(own / other),
            _ => String::new(),
        }
    }

    fn target(&self, row: &Row) -> String {
        let own = |value: fn(&Measured) -> Option<f64>| self.median(row.work, Kind::Hbmqtt, value);
        let latency = |one: &Measured| one.latency_us.map(|all| all[0]);
        let (own, limit) = match row.goal {
            Goal::None => return String::new(),
            Goal::CpuUs(limit) => (own(cpu_each), Some(limit)),
            Goal::BytesEach(limit) => (own(|one| one.bytes_each), Some(limit)),
            Goal::Mosquitto => (
                own(latency),
                self.median("one at a time, QoS 0, 16 B", Kind::Mosquitto, latency),
            ),
            Goal::OfRelay(factor) => (
                own(cpu_each),
                self.median(row.work, Kind::Relay, cpu_each)
                    .map(|cpu| cpu * factor),
            ),
        };
        let (Some(own), Some(limit)) = (own, limit) else {
            return String::new();
        };
        let verdict = if own <= limit { "met" } else { "missed" };
        let what = if matches!(row.goal, Goal::Mosquitto) {
            "p50 "
        } else {
            ""
        };
        format!("{what}{} {verdict}", figure(limit))
    }
}

fn cpu_each(measured: &Measured) -> Option<f64> {
    measured
        .cpu_us
        .map(|cpu| cpu / measured.units.max(1) as f64)
}

fn spread(measured: &[Measured], value: impl Fn(&Measured) -> Option<f64>) -> Option<Spread> {
    let mut values: Vec<f64> = measured.iter().filter_map(value).collect();
    values.sort_by(f64::total_cmp);
    let (&least, &most) = (values.first()?, values.last()?);
    let half = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[half]
    } else {
        f64::midpoint(values[half - 1], values[half])
    };
    Some(Spread {
        least,
        median,
        most,
    })
}

/// Three digits that count.
pub(crate) fn figure(value: f64) -> String {
    match value {
        value if value >= 1000.0 => thousands(value),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One result in words.
pub(crate) fn sentence(measured: &Measured) -> String {
    let mut text = format!(
        "{} in {:.2} s, {} a second, generator {} µs each",
        thousands(measured.units as f64),
        measured.seconds,
        thousands(measured.units as f64 / measured.seconds),
        figure(measured.generator_us / measured.units.max(1) as f64),
    );
    if let Some(cpu) = cpu_each(measured) {
        let _ = write!(text, ", broker {} µs each", figure(cpu));
    }
    if let Some([half, high, highest]) = measured.latency_us {
        let _ = write!(
            text,
            ", p50 {half:.1} µs, p99 {high:.1} µs, p99.9 {highest:.1} µs"
        );
    }
    if let Some(bytes) = measured.bytes_each {
        let _ = write!(text, ", {bytes:.0} bytes each");
    }
    text
}
