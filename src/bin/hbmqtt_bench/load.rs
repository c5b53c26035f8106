//! The load: publishers and subscribers, each on a thread of its own, and what became of every message.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hbmqtt::client::{Client, ClientError, PublishOptions, Token};
use hbmqtt::proto::QoS;
use hbmqtt::thread;

use crate::histogram::Histogram;
use crate::now;
use crate::stamp::{self, Stamp};

/// What is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Publisher `n` sends to `<topic>/<n>`.
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) payload_bytes: usize,
    /// Messages of each publisher at most.
    pub(crate) count: u64,
    /// For how long messages are sent at most.
    pub(crate) time: Duration,
    /// Messages of one publisher on their way at most: sent, and not yet with every subscriber.
    pub(crate) window: u64,
    /// Messages a second of each publisher at most.
    pub(crate) rate: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    /// Of all subscribers.
    pub(crate) received: u64,
    /// Sent, and not with a subscriber.
    pub(crate) lost: u64,
    /// Came again, or after a later one.
    pub(crate) repeated: u64,
    /// Other messages under the topics of this run.
    pub(crate) foreign: u64,
    /// From the first message to the last delivery or acknowledgement.
    pub(crate) time: Duration,
    pub(crate) latency: Histogram,
    /// What ended it before its time.
    pub(crate) faults: Vec<ClientError>,
}

/// What publishers and subscribers tell each other.
#[derive(Debug)]
struct Shared {
    load: Load,
    tail: Vec<u8>,
    start: Instant,
    streams: Vec<Stream>,
    /// Nothing more will be sent, and what did not come until now will not come.
    over: AtomicBool,
}

/// The messages of one publisher.
#[derive(Debug)]
struct Stream {
    sent: AtomicU64,
    /// Per subscriber: the numbers below this one have come or are lost.
    done: Vec<AtomicU64>,
    /// When the messages on their way were sent, in nanoseconds after the start, by number modulo the window.
    sent_at: Vec<AtomicU64>,
}

/// What one subscriber saw.
#[derive(Debug, Default)]
struct Seen {
    received: u64,
    lost: u64,
    repeated: u64,
    foreign: u64,
    last_at: Duration,
    latency: Option<Histogram>,
    fault: Option<ClientError>,
}

/// Silence after which a message that is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a thread looks for news before it looks whether all is over.
const TICK: Duration = Duration::from_millis(100);
/// How long a publisher whose window is full leaves the processor to others.
const PAUSE: Duration = Duration::from_micros(50);
const STACK_BYTES: usize = 256 * 1024;

impl Load {
    /// Sends it through `publishers` to `subscribers`, which have subscribed to all of their topics.
    ///
    /// # Errors
    /// The system refuses a thread.
    ///
    /// # Blocking
    /// Until everything has arrived, or has not for some seconds.
    pub(crate) fn run(
        self,
        publishers: Vec<Client>,
        subscribers: Vec<Client>,
    ) -> io::Result<Outcome> {
        let places = usize::try_from(self.window).unwrap_or(usize::MAX);
        let stream = |_: &Client| Stream {
            sent: AtomicU64::new(0),
            done: subscribers.iter().map(|_| AtomicU64::new(0)).collect(),
            sent_at: (0..places).map(|_| AtomicU64::new(0)).collect(),
        };
        let shared = Arc::new(Shared {
            tail: stamp::tail(self.payload_bytes),
            streams: publishers.iter().map(stream).collect(),
            load: self,
            start: now(),
            over: AtomicBool::new(false),
        });
        let mut receiving = Vec::new();
        for (number, client) in subscribers.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let receive = move || shared.receive(&client, number);
            receiving.push(thread::spawn(
                format!("sub-{number}"),
                STACK_BYTES,
                receive,
            )?);
        }
        let mut sending = Vec::new();
        for (number, client) in publishers.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let send = move || shared.send(&client, number);
            sending.push(thread::spawn(format!("pub-{number}"), STACK_BYTES, send)?);
        }
        let mut faults = Vec::new();
        for publisher in sending {
            match publisher.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => faults.push(error),
                Err(_) => return Err(io::Error::other("a publisher panicked")),
            }
        }
        let acknowledged_at = shared.start.elapsed();
        shared.wait_for_deliveries();
        shared.over.store(true, Ordering::Release);
        let mut outcome = Outcome {
            sent: shared.streams.iter().map(Stream::sent).sum(),
            received: 0,
            lost: 0,
            repeated: 0,
            foreign: 0,
            time: acknowledged_at,
            latency: Histogram::new(),
            faults,
        };
        for subscriber in receiving {
            let seen = subscriber
                .join()
                .map_err(|_| io::Error::other("a subscriber panicked"))?;
            outcome.received += seen.received;
            outcome.lost += seen.lost;
            outcome.repeated += seen.repeated;
            outcome.foreign += seen.foreign;
            outcome.time = outcome.time.max(seen.last_at);
            outcome
                .latency
                .merge(&seen.latency.unwrap_or_else(Histogram::new));
            outcome.faults.extend(seen.fault);
        }
        Ok(outcome)
    }
}

impl Stream {
    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Messages that are with every subscriber, or lost.
    fn done(&self) -> u64 {
        let done = self.done.iter().map(|done| done.load(Ordering::Acquire));
        done.min().unwrap_or_else(|| self.sent())
    }

    fn place(&self, number: u64) -> &AtomicU64 {
        let place = number % self.sent_at.len() as u64;
        &self.sent_at[usize::try_from(place).unwrap_or(0)]
    }
}

impl Shared {
    /// The life of a publisher.
    fn send(&self, client: &Client, number: usize) -> Result<(), ClientError> {
        let load = &self.load;
        let stream = &self.streams[number];
        let topic = format!("{}/{number}", load.topic);
        let stream_number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut payload = vec![0; stamp::STAMP_BYTES];
        payload.extend_from_slice(&self.tail);
        let mut tokens: VecDeque<Token> = VecDeque::new();
        let end = self.start + load.time;
        for message in 0..load.count {
            if !self.wait_for_turn(stream, message, end) {
                break;
            }
            let stamp = Stamp {
                number: message,
                stream: stream_number,
            };
            payload[..stamp::STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
            let sent_at = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            stream.place(message).store(sent_at, Ordering::Relaxed);
            stream.sent.store(message + 1, Ordering::Release);
            let options = PublishOptions::from(load.qos);
            let token = match client.publish_nowait(&topic, payload.as_slice(), options) {
                Ok(token) => token,
                Err(error) => {
                    stream.sent.store(message, Ordering::Release);
                    return Err(error);
                }
            };
            if load.qos != QoS::AtMostOnce {
                tokens.push_back(token);
                while tokens.front().is_some_and(Token::is_done) {
                    take(tokens.pop_front())?;
                }
            }
        }
        tokens.into_iter().try_for_each(|token| take(Some(token)))?;
        // QoS 0 has no acknowledgement: the answer to a ping says that the broker has read what was before it.
        client.ping(PATIENCE).map(drop)
    }

    /// Waits until the rate and the window allow message `number`. `false`: the time is over, or nothing moves any more.
    fn wait_for_turn(&self, stream: &Stream, number: u64, end: Instant) -> bool {
        if let Some(rate) = self.load.rate {
            let due = self.start + Duration::from_secs_f64(number as f64 / rate as f64);
            thread::rest(due.saturating_duration_since(now()));
        }
        let (mut done, mut moved_at) = (stream.done(), now());
        while number - done.min(number) >= self.load.window {
            thread::rest(PAUSE);
            let before = std::mem::replace(&mut done, stream.done());
            let now = now();
            if done != before {
                moved_at = now;
            } else if now - moved_at > PATIENCE {
                return false;
            }
        }
        now() < end
    }

    /// Waits until all has arrived, or nothing has for a while.
    fn wait_for_deliveries(&self) {
        let done = || self.streams.iter().flat_map(|stream| &stream.done);
        let sum = || done().map(|done| done.load(Ordering::Acquire)).sum::<u64>();
        let is_complete = || {
            self.streams
                .iter()
                .all(|stream| stream.done() >= stream.sent())
        };
        let (mut last, mut moved_at) = (sum(), now());
        while !is_complete() && now() - moved_at < PATIENCE {
            thread::rest(TICK / 20);
            let before = std::mem::replace(&mut last, sum());
            if last != before {
                moved_at = now();
            }
        }
        if self.streams.iter().all(|stream| !stream.done.is_empty()) {
            // A doubled last message would come now.
            thread::rest(TICK);
        }
    }

    /// The life of a subscriber.
    fn receive(&self, client: &Client, number: usize) -> Seen {
        let mut seen = Seen::default();
        let mut latency = Histogram::new();
        let mut due = vec![0; self.streams.len()];
        loop {
            match client.recv_timeout(TICK) {
                Ok(message) => {
                    let arrived = self.start.elapsed();
                    let stamp = Stamp::read(message.payload(), &self.tail)
                        .filter(|stamp| self.is_topic(message.topic(), stamp.stream));
                    let Some(stamp) = stamp else {
                        seen.foreign += 1;
                        continue;
                    };
                    self.note(stamp, number, &mut due, &mut seen, arrived, &mut latency);
                }
                Err(ClientError::Timeout(_)) => {
                    if self.over.load(Ordering::Acquire) {
                        break;
                    }
                }
                Err(error) => {
                    seen.fault = Some(error);
                    break;
                }
            }
        }
        // At the end of its time, or of its connection.
        for (stream, due) in self.streams.iter().zip(due) {
            seen.lost += stream.sent() - due.min(stream.sent());
        }
        seen.latency = Some(latency);
        seen
    }

    fn is_topic(&self, topic: &str, stream: u32) -> bool {
        let rest = topic.strip_prefix(self.load.topic.as_str());
        let number = rest.and_then(|rest| rest.strip_prefix('/'));
        number.and_then(|number| number.parse().ok()) == Some(stream)
            && (stream as usize) < self.streams.len()
    }

    fn note(
        &self,
        stamp: Stamp,
        subscriber: usize,
        due: &mut [u64],
        seen: &mut Seen,
        arrived: Duration,
        latency: &mut Histogram,
    ) {
        let stream = &self.streams[stamp.stream as usize];
        let due = &mut due[stamp.stream as usize];
        seen.last_at = arrived;
        if stamp.number < *due {
            seen.repeated += 1;
            return;
        }
        seen.lost += stamp.number - *due;
        seen.received += 1;
        *due = stamp.number + 1;
        let sent_at = Duration::from_nanos(stream.place(stamp.number).load(Ordering::Relaxed));
        latency.add(arrived.saturating_sub(sent_at));
        stream.done[subscriber].store(*due, Ordering::Release);
    }
}

fn take(token: Option<Token>) -> Result<(), ClientError> {
    token.map_or(Ok(()), |token| token.wait().map(drop))
}
