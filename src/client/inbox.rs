//! Messages that arrived and are not yet taken: bounded, and the place where a slow program stops the reading.
//!
//! ```text
//!   background thread ──deliver──► queue ──take──► recv, deliver_message, iter
//!          ▲                        │
//!          └──── may_read? ◄────────┘ full: no reading, unless that would lock up the program
//! ```
//!
//! While the queue is full nothing is read from the socket, so that the server feels it; pings go on. One case is
//! different: the program waits for an answer of the server (an acknowledgement, say) that stands behind the messages
//! in the socket. When the waiting thread is the one that takes the messages, or nobody has taken one for a while,
//! reading goes on beyond the limit. The server's window bounds QoS 1 and 2 messages then, since they are acknowledged
//! when they are taken; QoS 0 messages beyond twice the limit are dropped and counted.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{ClientError, ReceivedMessage};
use crate::proto::{PacketId, QoS};

/// See the module.
#[derive(Debug)]
pub(crate) struct Inbox {
    max_messages: usize,
    max_bytes: usize,
    queue: Mutex<Queue>,
    /// A message came, or none will.
    arrived: Condvar,
    /// The reading may go on.
    room: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<ReceivedMessage>,
    bytes: usize,
    /// Threads parked in `take`.
    takers: usize,
    /// No further message will come.
    closed: Option<ClientError>,
    /// The thread that took the last message.
    last_taker: Option<ThreadKey>,
    /// How many messages were taken in all.
    taken: u64,
    /// Threads that wait for an answer of the server.
    waiting: Vec<ThreadKey>,
    /// The reader is parked.
    paused: bool,
    /// The reader has something else to do.
    poked: bool,
    dropped: u64,
}

/// Marks a thread that waits for an answer of the server, as long as it lives.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Inbox);

impl Inbox {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            max_messages,
            max_bytes,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Puts messages in, in order, and leaves `messages` empty. Returns how many QoS 0 messages were dropped.
    pub(crate) fn deliver(&self, messages: &mut Vec<ReceivedMessage>) -> u64 {
        let mut queue = self.queue.lock();
        let dropped_before = queue.dropped;
        for message in messages.drain(..) {
            if message.qos() == QoS::AtMostOnce && self.is_beyond(&queue, 2) {
                queue.dropped += 1;
                continue;
            }
            queue.bytes += message.size();
            queue.messages.push_back(message);
        }
        let takers = queue.takers;
        let dropped = queue.dropped - dropped_before;
        drop(queue);
        match takers {
            0 => {}
            1 => {
                self.arrived.notify_one();
            }
            _ => {
                self.arrived.notify_all();
            }
        }
        dropped
    }

    /// Takes the oldest message. `Ok(None)`: there is none before `deadline`.
    ///
    /// # Errors
    /// Why no further message will come, once all are taken.
    // BLOCKS: until a message comes, the inbox is closed, or `deadline`.
    pub(crate) fn take(&self, wait: Wait) -> Result<Option<ReceivedMessage>, ClientError> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(message) = queue.messages.pop_front() {
                self.on_taken(&mut queue, &message);
                return Ok(Some(message));
            }
            if let Some(error) = &queue.closed {
                return Err(error.clone());
            }
            queue.takers += 1;
            let timed_out = match wait {
                Wait::No => true,
                Wait::Until(deadline) => self.arrived.wait_until(&mut queue, deadline).timed_out(),
                Wait::Forever => {
                    self.arrived.wait(&mut queue);
                    false
                }
            };
            queue.takers -= 1;
            if timed_out && queue.messages.is_empty() && queue.closed.is_none() {
                return Ok(None);
            }
        }
    }

    /// Takes back the messages of QoS 1 and 2 that nobody took: the server still has them and sends them again.
    pub(crate) fn retract(&self) -> Vec<(PacketId, QoS)> {
        let mut queue = self.queue.lock();
        let mut retracted = Vec::new();
        let mut bytes = 0;
        queue.messages.retain(|message| match message.packet_id() {
            None => true,
            Some(id) => {
                retracted.push((id, message.qos()));
                bytes += message.size();
                false
            }
        });
        queue.bytes -= bytes;
        retracted
    }

    /// No further message will come, because of `error`.
    pub(crate) fn close(&self, error: ClientError) {
        let mut queue = self.queue.lock();
        queue.closed = Some(error);
        queue.poked = true;
        drop(queue);
        self.arrived.notify_all();
        self.room.notify_all();
    }

    /// Messages will come again.
    pub(crate) fn open(&self) {
        let mut queue = self.queue.lock();
        queue.closed = None;
        queue.poked = false;
    }

    /// The reader is to look at something else, even if there is no room.
    pub(crate) fn poke(&self) {
        let mut queue = self.queue.lock();
        queue.poked = true;
        drop(queue);
        self.room.notify_all();
    }

    /// Says that this thread waits for an answer of the server until the result is dropped.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        let mut queue = self.queue.lock();
        queue.waiting.push(ThreadKey::current());
        let paused = queue.paused;
        drop(queue);
        if paused {
            self.room.notify_all();
        }
        Waiting(self)
    }

    /// Whether to read on: `true` at once when there is room, else when there is some again, the program would lock up
    /// otherwise, or the reader is poked. `false` at `deadline`.
    // BLOCKS: until one of these.
    pub(crate) fn may_read(&self, deadline: Option<Instant>, now: impl Fn() -> Instant) -> bool {
        let mut queue = self.queue.lock();
        if !self.is_beyond(&queue, 1) {
            return true;
        }
        let mut stalled_at = now() + STALL;
        let mut taken = queue.taken;
        loop {
            if std::mem::take(&mut queue.poked) || self.has_room_again(&queue) || queue.locks_up() {
                return true;
            }
            let until = if queue.waiting.is_empty() {
                deadline
            } else {
                Some(deadline.map_or(stalled_at, |deadline| deadline.min(stalled_at)))
            };
            queue.paused = true;
            match until {
                Some(until) => {
                    self.room.wait_until(&mut queue, until);
                }
                None => self.room.wait(&mut queue),
            }
            queue.paused = false;
            let now = now();
            if queue.taken != taken {
                taken = queue.taken;
                stalled_at = now + STALL;
            } else if now >= stalled_at && !queue.waiting.is_empty() {
                return true;
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return std::mem::take(&mut queue.poked) || self.has_room_again(&queue);
            }
        }
    }

    /// How many messages wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.queue.lock().messages.len()
    }

    /// How many QoS 0 messages were dropped in all.
    pub(crate) fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    fn on_taken(&self, queue: &mut Queue, message: &ReceivedMessage) {
        queue.bytes -= message.size();
        queue.taken = queue.taken.wrapping_add(1);
        queue.last_taker = Some(ThreadKey::current());
        if queue.paused && self.has_room_again(queue) {
            self.room.notify_all();
        }
    }

    fn is_beyond(&self, queue: &Queue, times: usize) -> bool {
        queue.messages.len() >= self.max_messages.saturating_mul(times)
            || queue.bytes >= self.max_bytes.saturating_mul(times)
    }

    /// Less than half of the limit: reading goes on in batches and not message by message.
    fn has_room_again(&self, queue: &Queue) -> bool {
        queue.messages.len() <= self.max_messages / 2 && queue.bytes <= self.max_bytes / 2
    }
}

impl Queue {
    /// The thread that takes the messages waits for something that stands behind them.
    fn locks_up(&self) -> bool {
        self.last_taker
            .is_some_and(|taker| self.waiting.contains(&taker))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let key = ThreadKey::current();
        let mut queue = self.0.queue.lock();
        if let Some(at) = queue.waiting.iter().position(|waiting| *waiting == key) {
            queue.waiting.swap_remove(at);
        }
    }
}

/// How long to wait for a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    No,
    Until(Instant),
    Forever,
}

/// Tells threads apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ThreadKey(u64);

impl ThreadKey {
    fn current() -> Self {
        KEY.with(|key| {
            if key.get() == 0 {
                key.set(NEXT_KEY.fetch_add(1, Ordering::Relaxed));
            }
            Self(key.get())
        })
    }
}

thread_local! {
    static KEY: Cell<u64> = const { Cell::new(0) };
}

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// When somebody waits for the server and nobody takes messages for this long, reading goes on.
const STALL: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::super::shared::now;
    use super::*;
    use crate::proto::packet::Publish;

    fn message(qos: QoS, number: u16) -> ReceivedMessage {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: "t".into(),
            packet_id: PacketId::new(number).filter(|_| qos != QoS::AtMostOnce),
            properties: None,
            payload: number.to_be_bytes().to_vec().into(),
        };
        ReceivedMessage::new(publish, 1)
    }

    fn filled(limit: usize, messages: u16, qos: QoS) -> Inbox {
        let inbox = Inbox::new(limit, usize::MAX);
        let mut batch = (1..=messages).map(|number| message(qos, number)).collect();
        inbox.deliver(&mut batch);
        inbox
    }

    /// Whether reading goes on at once.
    fn may_read_now(inbox: &Inbox) -> bool {
        inbox.may_read(Some(now()), now)
    }

    #[test]
    fn reading_stops_at_the_limit_and_goes_on_at_half_of_it() {
        let inbox = filled(4, 3, QoS::AtMostOnce);
        assert!(may_read_now(&inbox));
        inbox.deliver(&mut vec![message(QoS::AtMostOnce, 4)]);
        assert!(!may_read_now(&inbox));
        assert_eq!(
            inbox.take(Wait::No).unwrap(),
            Some(message(QoS::AtMostOnce, 1))
        );
        inbox.take(Wait::No).unwrap();
        assert!(may_read_now(&inbox));
    }

    #[test]
    fn bytes_count_as_well() {
        let inbox = Inbox::new(100, 7);
        inbox.deliver(&mut vec![message(QoS::AtMostOnce, 1); 2]);
        assert!(may_read_now(&inbox), "6 bytes");
        inbox.deliver(&mut vec![message(QoS::AtMostOnce, 1)]);
        assert!(!may_read_now(&inbox), "9 bytes");
    }

    #[test]
    fn a_taker_that_waits_for_the_server_does_not_stop_the_reading() {
        let inbox = filled(2, 3, QoS::AtLeastOnce);
        inbox.take(Wait::No).unwrap();
        assert!(!may_read_now(&inbox));
        let waiting = inbox.waiting();
        assert!(may_read_now(&inbox));
        drop(waiting);
        assert!(!may_read_now(&inbox));
    }

    /// Somebody else will take the messages, so there is no hurry; but not for ever.
    #[test]
    fn another_thread_that_waits_stops_it_for_a_while() {
        let inbox = filled(1, 1, QoS::AtLeastOnce);
        let _waiting = inbox.waiting();
        assert!(!may_read_now(&inbox));
        let before = now();
        assert!(inbox.may_read(None, now));
        assert!(now().duration_since(before) >= STALL);
    }

    #[test]
    fn beyond_twice_the_limit_qos0_is_dropped_and_the_rest_kept() {
        let inbox = filled(2, 4, QoS::AtMostOnce);
        let mut more = vec![message(QoS::AtMostOnce, 5), message(QoS::AtLeastOnce, 6)];
        assert_eq!(inbox.deliver(&mut more), 1);
        assert_eq!((inbox.len(), inbox.dropped()), (5, 1));
    }

    #[test]
    fn what_was_not_taken_is_given_back_but_qos0() {
        let inbox = filled(10, 2, QoS::ExactlyOnce);
        inbox.deliver(&mut vec![message(QoS::AtMostOnce, 0)]);
        let ids: Vec<u16> = inbox.retract().iter().map(|(id, _)| id.value()).collect();
        assert_eq!(ids, [1, 2]);
        assert_eq!(inbox.len(), 1);
    }

    #[test]
    fn a_closed_inbox_gives_its_messages_first() {
        let inbox = filled(10, 1, QoS::AtMostOnce);
        inbox.close(ClientError::NotConnected);
        assert!(inbox.take(Wait::Forever).unwrap().is_some());
        assert!(matches!(
            inbox.take(Wait::Forever),
            Err(ClientError::NotConnected)
        ));
        inbox.open();
        assert_eq!(inbox.take(Wait::No).unwrap(), None);
    }

    #[test]
    fn a_poke_ends_the_pause() {
        let inbox = filled(1, 1, QoS::AtMostOnce);
        inbox.poke();
        assert!(inbox.may_read(None, now));
        assert!(!may_read_now(&inbox));
    }
}
