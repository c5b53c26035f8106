//! What a seed makes of a scenario: the broker's settings, and the habits of its clients.

use super::random::Random;
use crate::broker::config::{QueueFull, SharedStrategy};
use crate::broker::router::command::SessionExpiry;
use crate::proto::QoS;

/// The topics that are published to. Each has one client that may retain there.
pub(super) const TOPICS: [&str; 4] = ["a", "b/x", "b/y", "c"];
const FILTERS: [&str; 7] = ["a", "b/x", "b/y", "b/+", "b/#", "#", "+"];
const SHARED: &str = "$share/g/b/+";

/// All that is random before the first step.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) steps: usize,
    pub(super) clients: Vec<Profile>,
    pub(super) queue_full: QueueFull,
    pub(super) max_queued_messages: usize,
    pub(super) queue_qos0_messages: bool,
    pub(super) queue_memory: usize,
    /// Changes that may wait for the store before queues stop.
    pub(super) most_unwritten: usize,
    pub(super) outbox_soft_limit: usize,
    pub(super) max_inflight_bytes: usize,
    pub(super) receive_maximum: u16,
    pub(super) shared_strategy: SharedStrategy,
}

/// What a client is and does.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) has_properties: bool,
    /// Of the sessions that it keeps; `AtDisconnect`: it keeps none.
    pub(super) expiry: SessionExpiry,
    /// Its Receive Maximum.
    pub(super) window: u16,
    pub(super) alias_maximum: u16,
    /// Its subscriptions: a filter always has the same QoS.
    pub(super) filters: Vec<(&'static str, QoS)>,
    pub(super) publishes: bool,
    /// Has wills.
    pub(super) wills: bool,
}

impl Scenario {
    pub(super) fn new(seed: u64, steps: usize) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        let count = 4 + random.below(3);
        let clients = (0..count).map(|_| Profile::new(random)).collect();
        let is_limited = random.once_in(4);
        Self {
            seed,
            steps,
            clients,
            queue_full: *random.choose(&[
                QueueFull::Reject,
                QueueFull::DropOldest,
                QueueFull::DropNew,
            ]),
            max_queued_messages: if is_limited {
                1 + random.below(4)
            } else {
                usize::MAX
            },
            queue_qos0_messages: random.once_in(3),
            queue_memory: *random.choose(&[0, 0, 100, usize::MAX]),
            outbox_soft_limit: *random.choose(&[60, 1 << 20, 1 << 20]),
            max_inflight_bytes: *random.choose(&[30, usize::MAX, usize::MAX]),
            receive_maximum: *random.choose(&[2, 5, 20]),
            shared_strategy: *random.choose(&[
                SharedStrategy::RoundRobin,
                SharedStrategy::LeastInflight,
                SharedStrategy::Sticky,
                SharedStrategy::Hash,
            ]),
            most_unwritten: *random.choose(&[2, 8, usize::MAX]),
        }
    }

    /// Messages may be dropped because a queue is full.
    pub(super) fn is_limited(&self) -> bool {
        self.max_queued_messages != usize::MAX
    }
}

impl Profile {
    fn new(random: &mut Random) -> Self {
        let has_properties = random.once_in(2);
        let seconds = u32::try_from(20 + random.below(60)).unwrap();
        let expiry = match random.below(6) {
            0 => SessionExpiry::AtDisconnect,
            1 | 2 if has_properties => SessionExpiry::After(seconds),
            _ => SessionExpiry::Never,
        };
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let filters = if random.once_in(4) {
            vec![(SHARED, qos[1 + random.below(2)])]
        } else {
            let mut filters = vec![("c", qos[1 + random.below(2)])];
            for filter in FILTERS {
                if random.once_in(3) {
                    filters.push((filter, *random.choose(&qos[..])));
                }
            }
            filters
        };
        Self {
            has_properties,
            expiry,
            window: *random.choose(&[1, 2, 3, 20]),
            alias_maximum: if has_properties && random.once_in(3) {
                2
            } else {
                0
            },
            filters,
            publishes: !random.once_in(4),
            wills: random.once_in(3),
        }
    }

    /// The one of the probe, which looks at what the broker came to in the end.
    pub(super) fn probe() -> Self {
        Self {
            has_properties: true,
            expiry: SessionExpiry::AtDisconnect,
            window: 100,
            alias_maximum: 0,
            filters: vec![("#", QoS::ExactlyOnce)],
            publishes: false,
            wills: false,
        }
    }

    pub(super) fn is_persistent(&self) -> bool {
        self.expiry != SessionExpiry::AtDisconnect
    }

    /// A member of the shared subscription, and nothing else.
    pub(super) fn is_worker(&self) -> bool {
        self.filters.iter().any(|(filter, _)| *filter == SHARED)
    }
}
