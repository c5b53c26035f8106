//! What is measured: the table of the runs, and the runs that are not plain traffic.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use crate::brokers::Running;
use crate::clock::{cpu_us, now, rss_bytes};
use crate::connection::{Connection, Received, Scratch, Target};
use crate::fault::Fault;
use crate::frames;
use crate::poller::Poller;
use crate::traffic::{Bounds, Pace, Shape, Traffic};

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
];

const NOT_OFFERED: Fault = Fault::Wrong("no such listener");

fn pair(qos: u8, payload_bytes: usize) -> Shape {
    let window = if qos == 0 { 500 } else { 100 };
    Shape {
        publishers: 1,
        receivers: 1,
        streams: 1,
        to_all: false,
        qos,
        payload_bytes,
        pace: Pace::Window {
            window,
            refill: window / 2,
        },
        topic: |stream| format!("b/{stream}"),
        filters: |receiver, _, _| vec![format!("b/{receiver}")],
        keeps_latency: false,
    }
}

/// 64 messages at a time, two such batches on their way.
fn fan_out(receivers: usize) -> Shape {
    Shape {
        receivers,
        to_all: true,
        pace: Pace::Window {
            window: 128,
            refill: 64,
        },
        filters: |_, _, _| vec!["b/0".to_owned()],
        ..pair(0, 64)
    }
}

fn fan_in(publishers: usize) -> Shape {
    Shape {
        publishers,
        streams: publishers,
        pace: Pace::Window {
            window: 2,
            refill: 1,
        },
        filters: |_, _, _| vec!["b/+".to_owned()],
        ..pair(0, 64)
    }
}

fn ping(qos: u8) -> Shape {
    Shape {
        pace: Pace::Window {
            window: 1,
            refill: 1,
        },
        keeps_latency: true,
        ..pair(qos, 16)
    }
}

/// Every topic matches one filter; a third of the filters each is exact, has a `+` at the front, ends in `#`.
fn filters(receivers: usize, streams: usize) -> Shape {
    Shape {
        receivers,
        streams,
        topic: |stream| format!("f/{stream}/value"),
        filters: |receiver, receivers, streams| {
            let filter = |stream: usize| match stream / receivers % 3 {
                0 => format!("f/{stream}/value"),
                1 => format!("+/{stream}/value"),
                _ => format!("f/{stream}/#"),
            };
            (receiver..streams).step_by(receivers).map(filter).collect()
        },
        ..pair(0, 64)
    }
}

/// Warms up, then measures.
fn traffic(bench: &Bench<'_>, target: &Target, shape: Shape) -> Result<Vec<Measured>, Fault> {
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
struct Meter {
    pid: Option<u32>,
    start: Instant,
    broker_us: Option<f64>,
    generator_us: f64,
}

impl Meter {
    fn start(bench: &Bench<'_>) -> io::Result<Self> {
        Ok(Self {
            pid: bench.pid,
            broker_us: bench.pid.map(cpu_us).transpose()?,
            generator_us: cpu_us(std::process::id())?,
            start: now(),
        })
    }

    fn stop(self, units: u64) -> io::Result<Measured> {
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

/// Clients that connect, subscribe and leave, 32 at once.
fn connect(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    const AT_ONCE: usize = 32;
    let most = bench.count(20_000, 200);
    let mut poller = Poller::new()?;
    let (mut scratch, mut ready) = (Scratch::new(), Vec::new());
    let mut open: HashMap<usize, Connection> = HashMap::new();
    let meter = Meter::start(bench)?;
    let end = now() + bench.time;
    let (mut started, mut done) = (0, 0);
    while !open.is_empty() || (started < most && now() < end) {
        while open.len() < AT_ONCE && started < most && now() < end {
            let token = started as usize;
            let mut connection = Connection::dial(bench.plain)?;
            connection.socket.set_nonblocking(true)?;
            poller.add(&connection.socket, token)?;
            connection.send(&frames::connect(&format!("c{token}"), true))?;
            connection.flush()?;
            open.insert(token, connection);
            started += 1;
        }
        poller.wait(&mut ready, Duration::from_secs(10))?;
        if ready.is_empty() {
            return Err(Fault::Stalled {
                missing: open.len() as u64,
            });
        }
        for event in &ready {
            let Some(mut connection) = open.remove(&event.token) else {
                continue;
            };
            if has_subscribed(&mut connection, &mut scratch, event.token)? {
                done += 1;
            } else {
                open.insert(event.token, connection);
            }
        }
    }
    Ok(vec![meter.stop(done)?])
}

/// The next step of a client that connects and subscribes; whether it was the last.
fn has_subscribed(
    connection: &mut Connection,
    scratch: &mut Scratch,
    token: usize,
) -> Result<bool, Fault> {
    let (mut reply, mut is_done) = (Vec::new(), false);
    let received = connection.receive(scratch, |frame| {
        match (frame.first, frame.body) {
            (frames::CONNACK, [_, 0]) => reply = frames::subscribe(1, &[format!("c/{token}")], 0),
            (frames::SUBACK, [0, 1, 0]) => {
                reply = frames::DISCONNECT.to_vec();
                is_done = true;
            }
            _ => return Err(Fault::Wrong("a connection or subscription is refused")),
        }
        Ok(())
    })?;
    if received == Received::End {
        return Err(Fault::Wrong("the broker closed a connection"));
    }
    connection.send(&reply)?;
    connection.flush()?;
    Ok(is_done)
}

/// Sets retained messages on as many topics, then lets new clients have all of them, one after the other.
fn retained(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let count = bench.count(50_000, 1_000);
    let tail = frames::tail(64);
    let topic = |number: u64| format!("r/{}/{number}", number % 100);
    let mut publisher = Connection::connect(bench.plain, "retainer", true)?;
    let meter = Meter::start(bench)?;
    let mut rounds = 0;
    let end = now() + bench.time / 2;
    while rounds == 0 || (now() < end && !bench.is_smoke) {
        let mut batch = Vec::new();
        for number in 0..count {
            let prefix = frames::publish_prefix(&topic(number), 0, true, 64);
            frames::push_publish(&mut batch, &prefix, None, number, rounds, &tail);
            if batch.len() > 32 * 1024 || number + 1 == count {
                publisher.send(&batch)?;
                publisher.flush()?;
                batch.clear();
            }
        }
        // What was sent before an acknowledged message is dealt with.
        let prefix = frames::publish_prefix("fence", 1, false, 64);
        frames::push_publish(&mut batch, &prefix, Some(1), 0, 0, &tail);
        publisher.exchange(&batch, frames::PUBACK, |_| Ok(()))?;
        rounds += 1;
    }
    let set = meter.stop(u64::from(rounds) * count)?;
    let meter = Meter::start(bench)?;
    let end = now() + bench.time / 2;
    let mut receivers = 0;
    while receivers == 0 || (now() < end && !bench.is_smoke) {
        receive_retained(bench.plain, count, rounds - 1, &topic, &tail)?;
        receivers += 1;
    }
    Ok(vec![set, meter.stop(receivers * count)?])
}

fn receive_retained(
    target: &Target,
    count: u64,
    round: u32,
    topic: &impl Fn(u64) -> String,
    tail: &[u8],
) -> Result<(), Fault> {
    let mut receiver = Connection::connect(target, "collector", true)?;
    receiver.send(&frames::subscribe(1, &["r/#".to_owned()], 0))?;
    receiver.flush()?;
    let mut seen = vec![false; count as usize];
    let mut missing = count;
    let mut scratch = Scratch::new();
    while missing > 0 {
        let received = receiver.receive(&mut scratch, |frame| {
            if frame.first == frames::SUBACK {
                return Ok(());
            }
            let publish = frame.publish(0)?;
            let stamp = frames::read_stamp(publish.payload, tail)?;
            if !frame.is_retained()
                || stamp.stream != round
                || publish.topic != topic(stamp.number).as_bytes()
            {
                return Err(Fault::Wrong("not the retained message that was set last"));
            }
            match seen.get_mut(stamp.number as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return Err(Fault::OutOfTurn {
                        due: count,
                        came: stamp.number,
                    });
                }
            }
            missing -= 1;
            Ok(())
        });
        match received {
            Ok(Received::Something) => {}
            Err(error) => return Err(error),
            // A blocking read ends without bytes at its time limit.
            Ok(_) => return Err(Fault::Stalled { missing }),
        }
    }
    Ok(receiver
        .send(&frames::DISCONNECT)
        .and_then(|()| receiver.flush().map(drop))?)
}

/// Fills the queue of a session whose client is away, lets the client have it, and begins again.
fn offline(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let count = bench.count(20_000, 1_000);
    let tail = frames::tail(64);
    let filter = ["o/queue".to_owned()];
    let mut away = Connection::connect(bench.plain, "away", false)?;
    away.subscribe(&filter, 1)?;
    leave(away)?;
    let mut publisher = Connection::connect(bench.plain, "sender", true)?;
    let mut sum: Option<[Measured; 2]> = None;
    let end = now() + bench.time;
    while sum.is_none() || (now() < end && !bench.is_smoke) {
        let meter = Meter::start(bench)?;
        enqueue(&mut publisher, count, &tail)?;
        let enqueued = meter.stop(count)?;
        let meter = Meter::start(bench)?;
        let client = Connection::connect(bench.plain, "away", false)?;
        leave(receive_queue(client, count, &tail)?)?;
        let delivered = meter.stop(count)?;
        sum = Some(match sum {
            None => [enqueued, delivered],
            Some([first, second]) => [first.plus(&enqueued), second.plus(&delivered)],
        });
    }
    leave(Connection::connect(bench.plain, "away", true)?)?;
    Ok(sum.into_iter().flatten().collect())
}

impl Measured {
    fn plus(self, other: &Self) -> Self {
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

/// Says goodbye and waits until the broker has closed the connection: then the session is offline.
fn leave(mut connection: Connection) -> Result<(), Fault> {
    connection.send(&frames::DISCONNECT)?;
    connection.flush()?;
    let mut scratch = Scratch::new();
    loop {
        match connection.receive(&mut scratch, |_| Ok(()))? {
            Received::Something => {}
            Received::End => return Ok(()),
            Received::Nothing => {
                return Err(Fault::Wrong("the broker does not close after DISCONNECT"));
            }
        }
    }
}

/// QoS 1 with a window of 100, half of it at a time.
fn enqueue(publisher: &mut Connection, count: u64, tail: &[u8]) -> Result<(), Fault> {
    let prefix = frames::publish_prefix("o/queue", 1, false, 64);
    let mut scratch = Scratch::new();
    let mut batch = Vec::new();
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        if sent - acknowledged <= 50 && sent < count {
            batch.clear();
            for number in sent..count.min(sent + 50) {
                frames::push_publish(
                    &mut batch,
                    &prefix,
                    Some((number % 60_000 + 1) as u16),
                    number,
                    0,
                    tail,
                );
            }
            sent = count.min(sent + 50);
            publisher.send(&batch)?;
            publisher.flush()?;
            continue;
        }
        let received = publisher.receive(&mut scratch, |frame| {
            if frame.first != frames::PUBACK || u64::from(frame.id()?) != acknowledged % 60_000 + 1
            {
                return Err(Fault::Wrong("an acknowledgement that is not due"));
            }
            acknowledged += 1;
            Ok(())
        })?;
        if received != Received::Something {
            return Err(Fault::Stalled {
                missing: count - acknowledged,
            });
        }
    }
    Ok(())
}

fn receive_queue(mut client: Connection, count: u64, tail: &[u8]) -> Result<Connection, Fault> {
    let mut scratch = Scratch::new();
    let mut replies = Vec::new();
    let mut due = 0;
    while due < count {
        replies.clear();
        let received = client.receive(&mut scratch, |frame| {
            // A broker that closed the last connection before it noted the end may have tried before.
            let publish = frame.without_dup().publish(1)?;
            let stamp = frames::read_stamp(publish.payload, tail)?;
            if stamp.number != due {
                return Err(Fault::OutOfTurn {
                    due,
                    came: stamp.number,
                });
            }
            due += 1;
            frames::push_ack(&mut replies, frames::PUBACK, publish.id);
            Ok(())
        })?;
        if received != Received::Something {
            return Err(Fault::Stalled {
                missing: count - due,
            });
        }
        client.send(&replies)?;
        client.flush()?;
    }
    Ok(client)
}

/// Clients that connect and stay silent.
fn idle(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let count = bench.count(1_000, 50);
    // What the first connections bring along is not theirs.
    let first: Result<Vec<_>, Fault> = (0..10)
        .map(|n| Connection::connect(bench.plain, &format!("w{n}"), true))
        .collect();
    let first = first?;
    let before = bench.pid.map(rss_bytes).transpose()?;
    let meter = Meter::start(bench)?;
    let clients: Result<Vec<_>, Fault> = (0..count)
        .map(|n| Connection::connect(bench.plain, &format!("i{n}"), true))
        .collect();
    let clients = clients?;
    let mut measured = meter.stop(count)?;
    measured.bytes_each = measured
        .rss_bytes
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before) as f64 / count as f64);
    drop((first, clients));
    Ok(vec![measured])
}
