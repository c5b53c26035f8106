//! The memory of the process against its limit.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::config::MemoryLimit;
use super::sys::resident_bytes;

/// At this part of the limit new sessions and retained messages are refused.
const TIGHT_PERCENT: u64 = 80;
/// At this part of the limit connections stop reading.
const CRITICAL_PERCENT: u64 = 95;

/// How near the process is to its memory limit, as of the last look.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    limit: AtomicU64,
    level: AtomicU8,
}

const FREE: u8 = 0;
const TIGHT: u8 = 1;
const CRITICAL: u8 = 2;

impl MemoryWatch {
    pub(crate) fn new(limit: MemoryLimit) -> Self {
        Self {
            limit: AtomicU64::new(limit_bytes(limit)),
            level: AtomicU8::new(FREE),
        }
    }

    pub(crate) fn set_limit(&self, limit: MemoryLimit) {
        self.limit.store(limit_bytes(limit), Ordering::Relaxed);
    }

    /// No new sessions and retained messages.
    pub(crate) fn is_tight(&self) -> bool {
        self.level.load(Ordering::Relaxed) >= TIGHT
    }

    /// No reading.
    pub(crate) fn is_critical(&self) -> bool {
        self.level.load(Ordering::Relaxed) >= CRITICAL
    }

    /// Looks at the memory in use.
    pub(crate) fn look(&self) {
        self.judge(resident_bytes());
    }

    /// Compares `used` bytes with the limit.
    pub(super) fn judge(&self, used: u64) {
        let limit = self.limit.load(Ordering::Relaxed);
        let level = if used >= limit / 100 * CRITICAL_PERCENT {
            CRITICAL
        } else if used >= limit / 100 * TIGHT_PERCENT {
            TIGHT
        } else {
            FREE
        };
        let before = self.level.swap(level, Ordering::Relaxed);
        if level > before {
            let what = if level == CRITICAL {
                "reading pauses"
            } else {
                "new sessions and retained messages are refused"
            };
            log::warn!(
                "{} MiB of {} MiB memory in use: {what}",
                used >> 20,
                limit >> 20
            );
        } else if level < before {
            log::info!("{} MiB of {} MiB memory in use", used >> 20, limit >> 20);
        }
    }
}

fn limit_bytes(limit: MemoryLimit) -> u64 {
    match limit {
        MemoryLimit::Bytes(bytes) => bytes as u64,
        MemoryLimit::Unlimited => u64::MAX,
        MemoryLimit::HalfOfAvailable => available_bytes().map_or(u64::MAX, |bytes| bytes / 2),
    }
}

/// The memory of the machine, or of the process's control group if that is less.
fn available_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)
        });
    let group = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    });
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_refused_at_80_percent_and_reading_pauses_at_95() {
        let watch = MemoryWatch::new(MemoryLimit::Bytes(1000));
        watch.judge(799);
        assert!(!watch.is_tight());
        watch.judge(800);
        assert!(watch.is_tight() && !watch.is_critical());
        watch.judge(950);
        assert!(watch.is_critical());
        watch.judge(10);
        assert!(!watch.is_tight());
    }

    #[test]
    fn without_a_limit_nothing_is_tight() {
        let watch = MemoryWatch::new(MemoryLimit::Unlimited);
        watch.judge(1 << 50);
        assert!(!watch.is_tight());
    }
}
