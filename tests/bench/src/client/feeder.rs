//! A thread that has a broker send messages to the client that is measured, no more than the broker keeps for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::time::ClockId;

use super::part::cpu_us;
use super::peer::TOPIC;
use crate::clock::now;
use crate::connection::{Connection, Received, Scratch, Target};
use crate::fault::Fault;
use crate::frames::{self, STAMP_BYTES, publish_prefix, push_publish};

pub(super) struct Feeder {
    state: Arc<State>,
    thread: JoinHandle<Result<f64, Fault>>,
}

#[derive(Default)]
struct State {
    /// Messages that the client has taken.
    taken: AtomicU64,
    /// One more than the messages sent, once that is known.
    sent: AtomicU64,
}

impl Feeder {
    pub(super) fn start(address: SocketAddr, qos: u8, time: Duration) -> Result<Self, Fault> {
        let connection = Connection::connect(&Target::Plain(address), "feeder", true)?;
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        #[expect(clippy::disallowed_methods, reason = "a benchmark has a few threads")]
        let thread = thread::spawn(move || {
            feed(connection, qos, time, &shared)?;
            Ok(cpu_us(ClockId::ThreadCPUTime))
        });
        Ok(Self { state, thread })
    }

    /// The client has so many.
    pub(super) fn taken(&self, messages: u64) {
        self.state.taken.store(messages, Ordering::Release);
        if messages.is_multiple_of(WAKE_EVERY) {
            self.thread.thread().unpark();
        }
    }

    /// Whether no more will come than `messages`.
    pub(super) fn is_done(&self, messages: u64) -> bool {
        self.state.sent.load(Ordering::Acquire) == messages + 1
    }

    /// The CPU time that the feeding took, in µs.
    pub(super) fn end(self) -> Result<f64, Fault> {
        let failed = |_| Fault::Wrong("the feeding thread failed");
        self.thread.join().map_err(failed)?
    }
}

fn feed(mut connection: Connection, qos: u8, time: Duration, state: &State) -> Result<(), Fault> {
    let prefix = publish_prefix(TOPIC, qos, false, STAMP_BYTES);
    let (mut scratch, mut batch) = (Scratch::new(), Vec::new());
    let (mut sent, mut acknowledged) = (0, 0);
    let start = now();
    let mut is_last = false;
    // Always a whole number of batches, so that the last one wakes this thread.
    while !is_last {
        let taken = state.taken.load(Ordering::Acquire);
        if sent + AT_ONCE > taken + WINDOW {
            thread::park_timeout(Duration::from_millis(100));
            continue;
        }
        // It is said before the last batch leaves: who takes messages never waits for one that does not come.
        is_last = now() - start >= time;
        if is_last {
            state.sent.store(sent + AT_ONCE + 1, Ordering::Release);
        }
        batch.clear();
        for number in sent..sent + AT_ONCE {
            let id = (qos > 0).then(|| 1 + (number % AT_ONCE) as u16);
            push_publish(&mut batch, &prefix, id, number, 0, &[]);
        }
        sent += AT_ONCE;
        connection.send(&batch)?;
        connection.flush()?;
        while qos > 0 && acknowledged < sent {
            let received = connection.receive(&mut scratch, |frame| {
                acknowledged += u64::from(frame.first == frames::PUBACK);
                Ok(())
            })?;
            if received != Received::Something {
                let missing = sent - acknowledged;
                return Err(Fault::Stalled { missing });
            }
        }
    }
    Ok(())
}

/// Messages in one system call, and unacknowledged: no more than a server of MQTT 3.1.1 is sure to take.
const AT_ONCE: u64 = 256;

/// Messages that the client has not taken: what the broker, which drops QoS 0 for a slow receiver, holds for it easily.
const WINDOW: u64 = 8 * 1024;

const WAKE_EVERY: u64 = 256;
