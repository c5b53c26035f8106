//! The values of the `$SYS` topics.
//!
//! HBMQTT's names with HBMQTT's formats; beside them mosquitto's names for the values that both have, so that existing
//! dashboards work. Where the two use one name for different formats (`uptime`), HBMQTT's format stands.

use std::time::{Duration, Instant};

use super::metrics::MetricsSnapshot;
use super::persistence::mode;
use super::router::inspect::RouterStats;
use crate::store::{StoreState, StoreStatus};

/// All that one round of `$SYS` topics is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SysReport {
    pub(crate) stats: RouterStats,
    pub(crate) metrics: MetricsSnapshot,
    /// `None`: nothing outlives the process.
    pub(crate) store: Option<StoreStatus>,
    pub(crate) at: Instant,
}

/// Keeps what the next round is compared with: the start, and the moving averages.
#[derive(Debug)]
pub(crate) struct Clock {
    started_at: Instant,
    averaged_at: Instant,
    last: MetricsSnapshot,
    loads: Vec<Load>,
}

/// A moving average of events per minute, over 1, 5 and 15 minutes.
#[derive(Debug)]
struct Load {
    name: &'static str,
    value: fn(&MetricsSnapshot) -> u64,
    per_minute: [f64; 3],
}

const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

impl Clock {
    pub(crate) fn new(now: Instant) -> Self {
        let load = |name, value| Load {
            name,
            value,
            per_minute: [0.0; 3],
        };
        Self {
            started_at: now,
            averaged_at: now,
            last: MetricsSnapshot::default(),
            loads: vec![
                load("messages/received", |metrics| metrics.messages_received),
                load("messages/sent", |metrics| metrics.messages_sent),
                load("publish/received", |metrics| metrics.publish_received),
                load("publish/sent", |metrics| metrics.publish_sent),
                load("publish/dropped", MetricsSnapshot::messages_dropped),
                load("bytes/received", |metrics| metrics.bytes_received),
                load("bytes/sent", |metrics| metrics.bytes_sent),
                load("sockets", |metrics| metrics.sockets_opened),
                load("connections", |metrics| metrics.connections_accepted),
            ],
        }
    }

    /// Every topic with its text.
    pub(crate) fn topics(&mut self, report: &SysReport) -> Vec<(String, String)> {
        self.average(report);
        let uptime = report.at.saturating_duration_since(self.started_at);
        let mut topics = vec![
            (
                "version".to_owned(),
                format!("HBMQTT version {}", env!("CARGO_PKG_VERSION")),
            ),
            ("time".to_owned(), local_time()),
            ("uptime".to_owned(), uptime.as_secs().to_string()),
            ("uptime/formated".to_owned(), format_uptime(uptime)),
            ("uptime/formatted".to_owned(), format_uptime(uptime)),
        ];
        for (name, value) in values(report) {
            topics.push((name.to_owned(), value.to_string()));
        }
        for (name, value) in report.metrics.limits() {
            topics.push((
                format!("limits/{}", name.replace('_', "-")),
                value.to_string(),
            ));
        }
        for load in &self.loads {
            for ((span, _), value) in SPANS.iter().zip(load.per_minute) {
                topics.push((format!("load/{}/{span}", load.name), format!("{value:.2}")));
            }
        }
        for (name, value) in report.store.iter().flat_map(store_values) {
            topics.push((format!("persistence/{name}"), value));
        }
        for (name, _) in &mut topics {
            name.insert_str(0, "$SYS/broker/");
        }
        topics
    }

    fn average(&mut self, report: &SysReport) {
        let elapsed = report
            .at
            .saturating_duration_since(self.averaged_at)
            .as_secs_f64();
        if elapsed <= 0.0 {
            return;
        }
        for load in &mut self.loads {
            let events = (load.value)(&report.metrics).saturating_sub((load.value)(&self.last));
            #[expect(clippy::cast_precision_loss, reason = "an average for people")]
            let rate = events as f64 * 60.0 / elapsed;
            for ((_, span), average) in SPANS.iter().zip(&mut load.per_minute) {
                let keep = (-elapsed / span).exp();
                *average = *average * keep + rate * (1.0 - keep);
            }
        }
        self.averaged_at = report.at;
        self.last = report.metrics;
    }
}

fn values(report: &SysReport) -> Vec<(&'static str, u64)> {
    let SysReport { stats, metrics, .. } = report;
    let offline = stats.sessions.saturating_sub(stats.clients_connected);
    let inflight = stats.inflight_in + stats.inflight_out;
    let memory = resident_bytes();
    let count = |value: usize| value as u64;
    vec![
        // HBMQTT's names.
        ("load/bytes/received", metrics.bytes_received),
        ("load/bytes/sent", metrics.bytes_sent),
        ("messages/received", metrics.messages_received),
        ("messages/sent", metrics.messages_sent),
        ("messages/publish/received", metrics.publish_received),
        ("messages/publish/sent", metrics.publish_sent),
        ("clients/connected", count(stats.clients_connected)),
        ("clients/disconnected", count(offline)),
        ("clients/maximum", count(stats.clients_maximum)),
        ("clients/total", count(stats.sessions)),
        ("messages/inflight", count(inflight)),
        ("messages/inflight/in", count(stats.inflight_in)),
        ("messages/inflight/out", count(stats.inflight_out)),
        (
            "messages/inflight/stored",
            count(stats.queued_messages + stats.retained_messages),
        ),
        ("messages/retained/count", count(stats.retained_messages)),
        ("messages/subscriptions/count", count(stats.subscriptions)),
        // mosquitto's names.
        ("bytes/received", metrics.bytes_received),
        ("bytes/sent", metrics.bytes_sent),
        ("clients/active", count(stats.clients_connected)),
        ("clients/inactive", count(offline)),
        ("clients/expired", metrics.sessions_expired),
        ("heap/current", memory),
        ("heap/size", memory),
        (
            "messages/stored",
            count(stats.queued_messages + stats.retained_messages),
        ),
        (
            "store/messages/count",
            count(stats.queued_messages + stats.retained_messages),
        ),
        (
            "store/messages/bytes",
            count(stats.queued_bytes + stats.retained_bytes),
        ),
        ("subscriptions/count", count(stats.subscriptions)),
        (
            "shared_subscriptions/count",
            count(stats.shared_subscriptions),
        ),
        ("retained messages/count", count(stats.retained_messages)),
        ("publish/messages/received", metrics.publish_received),
        ("publish/messages/sent", metrics.publish_sent),
        ("publish/messages/dropped", metrics.messages_dropped()),
        ("publish/bytes/received", metrics.publish_bytes_received),
        ("publish/bytes/sent", metrics.publish_bytes_sent),
        // Why messages were dropped.
        ("messages/dropped/queue-full", metrics.dropped_queue_full),
        (
            "messages/dropped/slow-receiver",
            metrics.dropped_slow_receiver,
        ),
        ("messages/dropped/too-large", metrics.dropped_too_large),
        ("messages/dropped/expired", metrics.dropped_expired),
        ("messages/dropped/denied", metrics.dropped_denied),
        ("messages/dropped/lost", metrics.dropped_lost),
    ]
}

/// How the store is doing.
fn store_values(status: &StoreStatus) -> [(&'static str, String); 7] {
    let state = match status.state {
        StoreState::Ok => "ok",
        StoreState::Full => "full",
        StoreState::Failing => "failing",
    };
    [
        (
            "durability",
            status.durability.map_or_else(String::new, mode),
        ),
        ("state", state.to_owned()),
        ("commits", status.commits.to_string()),
        ("syncs", status.syncs.to_string()),
        ("messages", status.messages.to_string()),
        ("bytes", status.size_bytes.to_string()),
        ("unwritten", status.unwritten_bytes.to_string()),
    ]
}

impl MetricsSnapshot {
    /// Messages that were not delivered to somebody they were for, whatever the reason.
    #[must_use]
    pub fn messages_dropped(&self) -> u64 {
        self.dropped_queue_full
            + self.dropped_slow_receiver
            + self.dropped_too_large
            + self.dropped_expired
            + self.dropped_denied
            + self.dropped_lost
    }

    /// The counters of limits that were hit.
    #[must_use]
    pub fn limits(&self) -> Vec<(&'static str, u64)> {
        self.entries()
            .into_iter()
            .skip_while(|(name, _)| *name != "connections_refused")
            .filter(|(name, _)| !name.starts_with("dropped_"))
            .collect()
    }
}

/// `H:MM:SS.ffffff`, with `N day(s), ` before it beyond a day: as Python prints a `timedelta`.
fn format_uptime(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!(
        "{}:{:02}:{:02}.{:06}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        uptime.subsec_micros()
    );
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        days => format!("{days} days, {clock}"),
    }
}

/// `YYYY-MM-DD HH:MM:SS.ffffff` in the machine's time zone, in UTC if that is unknown.
fn local_time() -> String {
    let now = time::OffsetDateTime::now_local().unwrap_or_else(|_| time::OffsetDateTime::now_utc());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
        now.microsecond()
    )
}

/// Resident memory of the process, 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| {
            text.split_whitespace()
                .nth(1)
                .and_then(|pages| pages.parse::<u64>().ok())
        })
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(clock: &Clock, after: Duration, received: u64) -> SysReport {
        SysReport {
            stats: RouterStats {
                clients_connected: 2,
                sessions: 5,
                ..RouterStats::default()
            },
            metrics: MetricsSnapshot {
                messages_received: received,
                ..MetricsSnapshot::default()
            },
            store: None,
            at: clock.started_at + after,
        }
    }

    fn value<'a>(topics: &'a [(String, String)], name: &str) -> &'a str {
        let topic = format!("$SYS/broker/{name}");
        &topics.iter().find(|(found, _)| *found == topic).unwrap().1
    }

    #[test]
    fn uptime_is_written_as_python_writes_a_timedelta() {
        assert_eq!(
            format_uptime(Duration::from_micros(8_019_245)),
            "0:00:08.019245"
        );
        assert_eq!(
            format_uptime(Duration::from_secs(86_400 + 3_661)),
            "1 day, 1:01:01.000000"
        );
        assert_eq!(
            format_uptime(Duration::from_secs(3 * 86_400)),
            "3 days, 0:00:00.000000"
        );
    }

    #[test]
    fn clients_are_counted_as_connected_offline_and_total() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let mut clock = Clock::new(Instant::now());
        let report = report(&clock, Duration::from_secs(20), 0);
        let topics = clock.topics(&report);
        assert_eq!(value(&topics, "clients/connected"), "2");
        assert_eq!(value(&topics, "clients/disconnected"), "3");
        assert_eq!(value(&topics, "clients/total"), "5");
        assert_eq!(value(&topics, "uptime"), "20");
        assert!(value(&topics, "version").starts_with("HBMQTT version "));
    }

    #[test]
    fn no_topic_stands_twice() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let mut clock = Clock::new(Instant::now());
        let report = report(&clock, Duration::from_secs(1), 0);
        let mut names: Vec<_> = clock
            .topics(&report)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn load_approaches_the_rate_of_messages() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let mut clock = Clock::new(Instant::now());
        let mut topics = Vec::new();
        for minute in 1..=60 {
            let report = report(&clock, Duration::from_secs(60 * minute), 600 * minute);
            topics = clock.topics(&report);
        }
        assert_eq!(value(&topics, "load/messages/received/1min"), "600.00");
        assert!(
            value(&topics, "load/messages/received/15min")
                .parse::<f64>()
                .unwrap()
                > 500.0
        );
    }
}
