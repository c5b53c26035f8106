//! Keep Alive: when the server gives a client up, and when a client sends PINGREQ.

use std::time::{Duration, Instant};

/// How long the server waits after the last whole packet of a client before it gives it up: 1.5 × `keep_alive_seconds`.
/// `delay` shortens that to Keep Alive plus delay; it never lengthens it. `None`: Keep Alive is 0, the server waits for
/// ever.
///
/// Source: MQTT 5.0 §3.1.2.10 [MQTT-3.1.2-22].
#[must_use]
pub fn server_deadline(keep_alive_seconds: u16, delay: Option<Duration>) -> Option<Duration> {
    if keep_alive_seconds == 0 {
        return None;
    }
    let keep_alive = Duration::from_secs(u64::from(keep_alive_seconds));
    let latest = Duration::from_millis(u64::from(keep_alive_seconds).saturating_mul(1500));
    Some(match delay {
        Some(delay) => latest.min(keep_alive.saturating_add(delay)),
        None => latest,
    })
}

/// When a client sends PINGREQ, and how long it waits for PINGRESP.
///
/// Source: MQTT 5.0 §3.1.2.10, §3.12.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingSchedule {
    /// After this long without sending, PINGREQ is due. `None`: no automatic PINGREQ.
    pub idle: Option<Duration>,
    /// After this long without PINGRESP the connection is dead.
    pub answer_within: Duration,
}

/// What a [`PingSchedule`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PingAction {
    /// Send PINGREQ now.
    SendPingreq,
    /// PINGRESP is overdue: close the connection.
    GiveUp,
    /// Nothing before this time. `None`: nothing at all.
    Wait(Option<Instant>),
}

impl PingSchedule {
    /// The schedule for a Keep Alive of `keep_alive_seconds` (0: none), pinging `ping_delay` earlier. A `ping_delay` of
    /// 0 disables the automatic PINGREQ; one that is not below Keep Alive pings as often as possible, once a second.
    #[must_use]
    pub fn new(keep_alive_seconds: u16, ping_delay: Duration, answer_within: Duration) -> Self {
        let keep_alive = Duration::from_secs(u64::from(keep_alive_seconds));
        let disabled = keep_alive.is_zero() || ping_delay.is_zero();
        Self {
            idle: (!disabled).then(|| keep_alive.saturating_sub(ping_delay).max(SHORTEST_IDLE)),
            answer_within,
        }
    }

    /// What to do at `now`, if the last packet was sent at `last_sent_at` and a PINGREQ sent at `pinged_at` has not been
    /// answered.
    pub fn next(
        &self,
        last_sent_at: Instant,
        pinged_at: Option<Instant>,
        now: Instant,
    ) -> PingAction {
        if let Some(pinged_at) = pinged_at {
            return match pinged_at.checked_add(self.answer_within) {
                Some(overdue_at) if overdue_at <= now => PingAction::GiveUp,
                overdue_at => PingAction::Wait(overdue_at),
            };
        }
        let due_at = self.idle.and_then(|idle| last_sent_at.checked_add(idle));
        match due_at {
            Some(due_at) if due_at <= now => PingAction::SendPingreq,
            due_at => PingAction::Wait(due_at),
        }
    }
}

/// The shortest time between two automatic PINGREQ.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// [MQTT-3.1.2-22]
    #[test]
    fn the_server_waits_one_and_a_half_times_keep_alive_and_never_longer() {
        for (keep_alive, delay, expected) in [
            (0, None, None),
            (0, Some(seconds(2)), None),
            (10, None, Some(seconds(15))),
            (1, None, Some(Duration::from_millis(1500))),
            (10, Some(seconds(2)), Some(seconds(12))),
            (10, Some(seconds(0)), Some(seconds(10))),
            (10, Some(seconds(60)), Some(seconds(15))),
            (u16::MAX, None, Some(Duration::from_millis(98_302_500))),
        ] {
            assert_eq!(
                server_deadline(keep_alive, delay),
                expected,
                "{keep_alive} {delay:?}"
            );
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "only a point of reference")]
    fn the_client_pings_before_keep_alive_ends_and_gives_up_without_an_answer() {
        let schedule = PingSchedule::new(10, seconds(1), seconds(5));
        let start = Instant::now();
        let at = |passed| start + seconds(passed);
        let wait = |passed| PingAction::Wait(Some(at(passed)));
        assert_eq!(schedule.next(start, None, at(0)), wait(9));
        assert_eq!(schedule.next(start, None, at(9)), PingAction::SendPingreq);
        assert_eq!(schedule.next(at(9), Some(at(9)), at(10)), wait(14));
        assert_eq!(
            schedule.next(at(13), Some(at(9)), at(14)),
            PingAction::GiveUp
        );
        assert_eq!(schedule.next(at(9), None, at(14)), wait(18));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "only a point of reference")]
    fn without_keep_alive_or_ping_delay_nothing_is_due() {
        let start = Instant::now();
        for schedule in [
            PingSchedule::new(0, seconds(1), seconds(5)),
            PingSchedule::new(10, seconds(0), seconds(5)),
        ] {
            let later = start + seconds(1000);
            assert_eq!(schedule.next(start, None, later), PingAction::Wait(None));
        }
        assert_eq!(
            PingSchedule::new(1, seconds(9), seconds(5)).idle,
            Some(seconds(1))
        );
    }
}
