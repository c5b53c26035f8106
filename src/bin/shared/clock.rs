//! Wall-clock time in the machine's time zone, for log lines and output formats.

use std::time::SystemTime;

use time::{OffsetDateTime, UtcOffset};

/// `at` in local time; UTC where the time zone cannot be found out.
///
/// The offset is looked up for `at` itself, so that daylight saving changes are followed.
pub(crate) fn local(at: SystemTime) -> OffsetDateTime {
    let utc = OffsetDateTime::from(at);
    UtcOffset::local_offset_at(utc).map_or(utc, |offset| utc.to_offset(offset))
}

/// The offset from UTC as `+hhmm`, or `+hh:mm` with `separator` `":"`.
pub(crate) fn offset(at: OffsetDateTime, separator: &str) -> String {
    let (hours, minutes, _) = at.offset().as_hms();
    let sign = if at.offset().is_negative() { '-' } else { '+' };
    format!(
        "{sign}{:02}{separator}{:02}",
        hours.unsigned_abs(),
        minutes.unsigned_abs()
    )
}

/// `2015-11-06` and `22:45:16` with `between` in the middle.
pub(crate) fn date_time(at: OffsetDateTime, between: &str) -> String {
    format!(
        "{:04}-{:02}-{:02}{between}{:02}:{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_with_its_offset() {
        let at = OffsetDateTime::from_unix_timestamp(1_446_846_316).unwrap();
        let paris = at.to_offset(UtcOffset::from_hms(1, 0, 0).unwrap());
        assert_eq!(date_time(paris, " "), "2015-11-06 22:45:16");
        assert_eq!(offset(paris, ""), "+0100");
        let nepal = at.to_offset(UtcOffset::from_hms(-5, -45, 0).unwrap());
        assert_eq!(offset(nepal, ":"), "-05:45");
    }
}
