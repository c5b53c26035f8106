//! When to try again: back-off as a pure function of the attempts made.

use std::time::Duration;

/// How often and how fast a client tries to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackOff {
    /// Attempts after the first failed one; `None` = no end.
    pub(crate) retries: Option<u32>,
    /// The longest pause.
    pub(crate) max_interval: Duration,
}

impl BackOff {
    /// The pause before the next attempt when `failed` attempts in a row have failed; `None`: give up.
    ///
    /// The pauses double from one second up to the longest one, and each is shortened by up to half of itself, by
    /// `random`, so that clients that lost their server together do not come back together.
    pub(crate) fn pause(&self, failed: u32, random: u64) -> Option<Duration> {
        if self.retries.is_some_and(|retries| failed > retries) {
            return None;
        }
        let doublings = failed.saturating_sub(1).min(LARGEST_SHIFT);
        let whole = FIRST.saturating_mul(1 << doublings).min(self.max_interval);
        let share = random % (SHARES + 1);
        let cut = whole / 2 * u32::try_from(share).unwrap_or(0) / SHARES_U32;
        Some(whole.saturating_sub(cut))
    }

    /// The pause before the first attempt after a connection was lost that had lasted for `lasted`.
    ///
    /// A connection that ends as soon as it is made counts like an attempt that failed.
    pub(crate) fn pause_after_loss(&self, lasted: Duration, random: u64) -> Duration {
        if lasted >= STABLE {
            let cut = random % (SHARES + 1);
            let spread = FIRST * u32::try_from(cut).unwrap_or(0) / SHARES_U32;
            return spread.min(self.max_interval) / 4;
        }
        FIRST.min(self.max_interval)
    }
}

/// The first pause, and the unit of the later ones.
const FIRST: Duration = Duration::from_secs(1);

/// A connection that lasted this long was a good one.
pub(crate) const STABLE: Duration = Duration::from_secs(1);

/// Into how many steps the random part is divided.
const SHARES: u64 = 1024;
const SHARES_U32: u32 = 1024;

/// 2^16 s are 18 hours: more doubling helps nobody.
const LARGEST_SHIFT: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const NO_CUT: u64 = 0;
    const FULL_CUT: u64 = SHARES;

    fn back_off(retries: Option<u32>, max_seconds: u64) -> BackOff {
        BackOff {
            retries,
            max_interval: Duration::from_secs(max_seconds),
        }
    }

    /// DEC-22: n attempts after the first failed one.
    #[test]
    fn two_retries_are_three_attempts() {
        let back_off = back_off(Some(2), 10);
        assert!(back_off.pause(1, NO_CUT).is_some());
        assert!(back_off.pause(2, NO_CUT).is_some());
        assert_eq!(back_off.pause(3, NO_CUT), None);
    }

    #[test]
    fn no_retries_give_up_at_once() {
        assert_eq!(back_off(Some(0), 10).pause(1, NO_CUT), None);
    }

    #[test]
    fn pauses_double_up_to_the_longest_one() {
        let back_off = back_off(None, 10);
        let pauses: Vec<u64> = (1..=6)
            .map(|failed| back_off.pause(failed, NO_CUT).unwrap().as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert_eq!(
            back_off.pause(u32::MAX, NO_CUT),
            Some(Duration::from_secs(10))
        );
    }

    #[test]
    fn chance_takes_up_to_half_of_a_pause() {
        let back_off = back_off(None, 100);
        for random in 0..5000 {
            let pause = back_off.pause(3, random).unwrap();
            assert!((2000..=4000).contains(&pause.as_millis()), "{pause:?}");
        }
        assert_eq!(back_off.pause(3, FULL_CUT), Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_first_pause_is_never_above_a_second() {
        for random in [NO_CUT, 7, FULL_CUT, u64::MAX] {
            for lasted in [Duration::ZERO, Duration::from_secs(3600)] {
                let pause = back_off(None, 10).pause_after_loss(lasted, random);
                assert!(pause <= Duration::from_secs(1));
            }
            assert!(back_off(None, 10).pause(1, random).unwrap() <= Duration::from_secs(1));
        }
    }

    #[test]
    fn a_connection_that_ends_at_once_is_not_made_again_at_once() {
        let pause = back_off(None, 10).pause_after_loss(Duration::from_millis(5), NO_CUT);
        assert_eq!(pause, Duration::from_secs(1));
    }

    #[test]
    fn the_longest_pause_bounds_the_first_one_too() {
        let back_off = BackOff {
            retries: None,
            max_interval: Duration::from_millis(10),
        };
        assert_eq!(back_off.pause(1, NO_CUT), Some(Duration::from_millis(10)));
        let pause = back_off.pause_after_loss(Duration::ZERO, NO_CUT);
        assert_eq!(pause, Duration::from_millis(10));
    }
}
