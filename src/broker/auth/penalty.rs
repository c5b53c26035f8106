//! Who gave wrong passwords before waits longer for each answer.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Wrong passwords by user name and address. Forgets a pair after [`MEMORY`] without one, and old pairs when there are
/// very many.
#[derive(Debug, Default)]
pub(super) struct Penalties(Mutex<Records>);

type Key = (Box<str>, Option<IpAddr>);

/// When `recent` is full it becomes `older`, and what `older` held is forgotten: bounded without a search for the oldest.
#[derive(Debug, Default)]
struct Records {
    recent: HashMap<Key, Record>,
    older: HashMap<Key, Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    failures: u32,
    last_at: Instant,
}

impl Penalties {
    /// How long the answer to this pair has to wait: nothing for the first `free` wrong passwords, then 1 s, 2 s, 4 s and
    /// so on up to `longest`.
    pub(super) fn delay(
        &self,
        user: &str,
        address: Option<IpAddr>,
        free: u32,
        longest: Duration,
        now: Instant,
    ) -> Duration {
        let key = (user.into(), address);
        let Some(record) = self.0.lock().find(&key, now) else {
            return Duration::ZERO;
        };
        match record.failures.checked_sub(free) {
            Some(beyond) => {
                Duration::from_secs(1u64.checked_shl(beyond).unwrap_or(u64::MAX)).min(longest)
            }
            None => Duration::ZERO,
        }
    }

    /// Notes a wrong password.
    pub(super) fn failed(&self, user: &str, address: Option<IpAddr>, now: Instant) {
        let key = (user.into(), address);
        let mut records = self.0.lock();
        let failures = records.find(&key, now).map_or(0, |record| record.failures);
        if records.recent.len() >= GENERATION && !records.recent.contains_key(&key) {
            records.older = mem::take(&mut records.recent);
        }
        let record = Record {
            failures: failures.saturating_add(1),
            last_at: now,
        };
        records.recent.insert(key, record);
    }

    /// Forgets the pair: it gave the right password.
    pub(super) fn succeeded(&self, user: &str, address: Option<IpAddr>) {
        let mut records = self.0.lock();
        if records.recent.is_empty() && records.older.is_empty() {
            return;
        }
        let key = (user.into(), address);
        records.recent.remove(&key);
        records.older.remove(&key);
    }
}

impl Records {
    fn find(&self, key: &Key, now: Instant) -> Option<Record> {
        let record = self.recent.get(key).or_else(|| self.older.get(key))?;
        (now.saturating_duration_since(record.last_at) < MEMORY).then_some(*record)
    }
}

const MEMORY: Duration = Duration::from_secs(600);
const GENERATION: usize = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn seconds(penalties: &Penalties, user: &str, last: u8, now: Instant) -> u64 {
        penalties
            .delay(user, address(last), 5, LONGEST, now)
            .as_secs()
    }

    #[expect(clippy::disallowed_methods, reason = "a test starts somewhere")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn five_wrong_passwords_are_free_and_then_the_delay_doubles_up_to_the_longest() {
        let (penalties, now) = (Penalties::default(), now());
        let mut delays = Vec::new();
        for _ in 0..13 {
            delays.push(seconds(&penalties, "a", 1, now));
            penalties.failed("a", address(1), now);
        }
        assert_eq!(delays, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn other_users_and_other_addresses_do_not_wait() {
        let (penalties, now) = (Penalties::default(), now());
        for _ in 0..6 {
            penalties.failed("a", address(1), now);
        }
        assert_eq!(seconds(&penalties, "a", 1, now), 2);
        assert_eq!(seconds(&penalties, "b", 1, now), 0);
        assert_eq!(seconds(&penalties, "a", 2, now), 0);
        assert_eq!(penalties.delay("a", None, 5, LONGEST, now), Duration::ZERO);
    }

    #[test]
    fn the_right_password_and_time_end_the_penalty() {
        let (penalties, now) = (Penalties::default(), now());
        for user in ["a", "b"] {
            for _ in 0..70 {
                penalties.failed(user, address(1), now);
            }
        }
        assert_eq!(seconds(&penalties, "a", 1, now), 30);
        penalties.succeeded("a", address(1));
        assert_eq!(seconds(&penalties, "a", 1, now), 0);
        assert_eq!(seconds(&penalties, "b", 1, now + MEMORY / 2), 30);
        assert_eq!(seconds(&penalties, "b", 1, now + MEMORY), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_recent_are_kept() {
        let (penalties, now) = (Penalties::default(), now());
        for number in 0..3 * GENERATION {
            penalties.failed(&number.to_string(), None, now);
        }
        let newest = (3 * GENERATION - 1).to_string();
        assert_eq!(penalties.delay(&newest, None, 1, LONGEST, now).as_secs(), 1);
        let records = penalties.0.lock();
        assert!(records.recent.len() + records.older.len() <= 2 * GENERATION);
    }

    #[test]
    fn a_longest_delay_of_zero_switches_delays_off() {
        let (penalties, now) = (Penalties::default(), now());
        penalties.failed("a", None, now);
        assert_eq!(
            penalties.delay("a", None, 0, Duration::ZERO, now),
            Duration::ZERO
        );
    }
}
