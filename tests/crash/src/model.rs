//! What was sent, what was acknowledged, and who had asked for it: the knowledge that the checks are made from.

use std::collections::{BTreeMap, BTreeSet};

use crate::random::Random;

/// The messages of one publisher to one topic, in order.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Something is published to it seldom, so that nothing newer hides what a subscription brings.
    pub(crate) is_quiet: bool,
    pub(crate) sent: Vec<Sent>,
    /// All before this one were checked in an earlier round.
    pub(crate) checked: usize,
}

/// A message, whose number is its place in its stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// When it was first sent.
    pub(crate) at: u64,
    /// When its acknowledgement came; [`NEVER`] until then.
    pub(crate) acknowledged: u64,
    /// It has no payload: it clears the retained message of its topic, and nobody can tell it from others like it.
    pub(crate) clears: bool,
    /// It was sent again, with DUP.
    pub(crate) is_resent: bool,
}

pub(crate) const NEVER: u64 = u64::MAX;

impl Stream {
    pub(crate) fn new(topic: String, qos: u8, retain: bool) -> Self {
        Self {
            topic,
            qos,
            retain,
            is_quiet: false,
            sent: Vec::new(),
            checked: 0,
        }
    }

    /// The last message that was acknowledged before `time`.
    pub(crate) fn last_acknowledged(&self, time: u64) -> Option<usize> {
        self.sent.iter().rposition(|sent| sent.acknowledged < time)
    }

    /// The retained message of the topic is one of these: the last that was acknowledged, or one that was sent later.
    /// `None` among them: there is none.
    pub(crate) fn retained_candidates(&self) -> BTreeSet<Option<u32>> {
        let last = self.last_acknowledged(NEVER);
        let value = |number: usize| (!self.sent[number].clears).then_some(number as u32);
        let later = last.map_or(0, |last| last + 1)..self.sent.len();
        let mut candidates: BTreeSet<_> = later.map(value).collect();
        candidates.insert(last.and_then(value));
        candidates
    }
}

/// Magic, stream, number, check, then bytes that follow from them.
pub(crate) fn payload(stream: usize, number: usize) -> Vec<u8> {
    let seed = (stream as u64) << 32 | number as u64;
    let mut random = Random::new(seed);
    let tail = match random.below(100) {
        0 => random.between(4_000, 9_000),
        1..10 => random.between(200, 1_500),
        _ => random.below(48),
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&seed.to_be_bytes());
    bytes.extend_from_slice(&(random.next() as u32).to_be_bytes());
    let fill = random.next().to_le_bytes();
    bytes.extend((0..tail).map(|at| fill[at % fill.len()]));
    bytes
}

/// Which stream and number a payload is of; `None`: nobody sent it.
pub(crate) fn read_payload(bytes: &[u8]) -> Option<(usize, usize)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let seed = u64::from_be_bytes(*rest.first_chunk()?);
    let (stream, number) = ((seed >> 32) as usize, (seed & 0xffff_ffff) as usize);
    (payload(stream, number) == bytes).then_some((stream, number))
}

const MAGIC: &[u8] = b"hbm1";

/// A session from its beginning to its end.
#[derive(Debug, Default)]
pub(crate) struct Epoch {
    /// The broker lost it: everything is still due.
    pub(crate) is_gone: bool,
    pub(crate) filters: BTreeMap<String, Vec<Interval>>,
    /// What came in this round, in order.
    pub(crate) log: Vec<Delivery>,
    /// By stream and number: how often it came as a message that was just published.
    pub(crate) counts: BTreeMap<usize, Vec<u8>>,
    /// By stream: the highest number that came so far.
    pub(crate) highest: BTreeMap<usize, u32>,
    /// By stream: when that number came last.
    pub(crate) came: BTreeMap<usize, u64>,
}

/// From a SUBSCRIBE to the UNSUBSCRIBE after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interval {
    pub(crate) subscribe_sent: u64,
    /// [`NEVER`]: it did not come yet.
    pub(crate) suback: u64,
    /// [`NEVER`]: it still holds. The end of the session counts too.
    pub(crate) unsubscribe_sent: u64,
    pub(crate) unsuback: u64,
}

/// A PUBLISH that a client took for a new one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) stream: u32,
    pub(crate) number: u32,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// A later message of its stream came before it: the latest.
    pub(crate) behind: Option<u32>,
    /// Which connection of its client it came by.
    pub(crate) connection: u32,
    /// It came before, not as a retained message.
    pub(crate) is_repeated: bool,
}

impl Interval {
    pub(crate) fn begun(now: u64) -> Self {
        Self {
            subscribe_sent: now,
            suback: NEVER,
            unsubscribe_sent: NEVER,
            unsuback: NEVER,
        }
    }

    /// The session was certain to have the subscription from before the message was sent until after its acknowledgement.
    pub(crate) fn covers(&self, sent: &Sent) -> bool {
        self.suback < sent.at
            && sent.acknowledged != NEVER
            && sent.acknowledged < self.unsubscribe_sent
    }

    /// The session may have had the subscription at some moment when the message may have been routed.
    pub(crate) fn touches(&self, sent: &Sent) -> bool {
        self.subscribe_sent < sent.acknowledged && sent.at < self.unsuback
    }
}

impl Epoch {
    pub(crate) fn matching<'a>(
        &'a self,
        topic: &'a str,
    ) -> impl Iterator<Item = &'a Interval> + use<'a> {
        let filters = self.filters.iter();
        let matching = filters.filter(move |(filter, _)| matches(unshared(filter), topic));
        matching.flat_map(|(_, intervals)| intervals)
    }

    /// Notes the session's end: nothing is certain to come any more.
    pub(crate) fn end(&mut self, at: u64) {
        for intervals in self.filters.values_mut() {
            for interval in intervals {
                interval.unsubscribe_sent = interval.unsubscribe_sent.min(at);
            }
        }
    }
}

/// A filter without `$share/name/`.
pub(crate) fn unshared(filter: &str) -> &str {
    let shared = filter.strip_prefix("$share/");
    shared
        .and_then(|rest| rest.split_once('/'))
        .map_or(filter, |(_, filter)| filter)
}

/// Whether a Topic Filter matches a Topic Name.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match topic.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}
