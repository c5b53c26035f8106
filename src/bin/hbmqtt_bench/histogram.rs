//! Durations counted in steps of about three per cent, in a fixed amount of memory.

use std::time::Duration;

/// Steps between one power of two and the next.
const STEPS: u32 = 32;
/// Five bits choose the step.
const STEP_BITS: u32 = 5;

/// How often each duration was seen, up to some hours.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: Duration,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; 44 * STEPS as usize],
            total: 0,
            most: Duration::ZERO,
        }
    }

    pub(crate) fn add(&mut self, duration: Duration) {
        let last = self.counts.len() - 1;
        let place = place(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)).min(last);
        self.counts[place] += 1;
        self.total += 1;
        self.most = self.most.max(duration);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.most = self.most.max(other.most);
    }

    /// The duration that `per_mille` of all were not above; `None` if there was none.
    pub(crate) fn quantile(&self, per_mille: u64) -> Option<Duration> {
        let wanted = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_nanos(value(place)).min(self.most))
    }

    /// The longest, exactly.
    pub(crate) fn most(&self) -> Duration {
        self.most
    }
}

fn place(nanoseconds: u64) -> usize {
    if nanoseconds < u64::from(STEPS) {
        return usize::try_from(nanoseconds).unwrap_or(0);
    }
    let exponent = nanoseconds.ilog2() - STEP_BITS;
    let step = (nanoseconds >> exponent) - u64::from(STEPS);
    usize::try_from(u64::from((exponent + 1) * STEPS) + step).unwrap_or(usize::MAX)
}

/// The largest value at a place.
fn value(place: usize) -> u64 {
    let place = place as u64;
    let (row, step) = (place / u64::from(STEPS), place % u64::from(STEPS));
    match row.checked_sub(1) {
        None => step,
        Some(exponent) => ((u64::from(STEPS) + step + 1) << exponent) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_place_that_is_near_to_it() {
        for nanoseconds in (0..40).chain((0..40).map(|bit| (1 << bit) + 12_345)) {
            let near = value(place(nanoseconds));
            assert!(near >= nanoseconds, "{nanoseconds} {near}");
            assert!(
                near - nanoseconds <= nanoseconds / 16,
                "{nanoseconds} {near}"
            );
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(500), None);
        let mut other = Histogram::new();
        for micros in 1..=1000 {
            let to = if micros % 2 == 0 {
                &mut histogram
            } else {
                &mut other
            };
            to.add(Duration::from_micros(micros));
        }
        histogram.merge(&other);
        for (per_mille, micros) in [(500, 500), (990, 990), (999, 999)] {
            let found = histogram.quantile(per_mille).unwrap().as_micros();
            assert!((micros..=micros * 104 / 100).contains(&found), "{found}");
        }
        assert_eq!(histogram.most(), Duration::from_micros(1000));
        assert_eq!(histogram.quantile(1000), Some(histogram.most()));
        histogram.add(Duration::from_secs(1_000_000));
        assert!(histogram.quantile(1000).is_some());
    }
}
