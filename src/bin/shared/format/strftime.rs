//! The letters behind `@`.

use time::OffsetDateTime;

use crate::shared::clock;

/// One letter of `strftime` in the C locale; `N` is the nanoseconds. Unknown letters give nothing.
pub(super) fn strftime(letter: char, at: OffsetDateTime) -> String {
    let hour12 = (at.hour() + 11) % 12 + 1;
    let weekday = at.weekday().to_string();
    let month = at.month().to_string();
    let date = |separator: &str| {
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        format!("{year:04}{separator}{month:02}{separator}{day:02}")
    };
    let time = format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
    let half = if at.hour() < 12 { "AM" } else { "PM" };
    match letter {
        'a' => weekday[..3].to_owned(),
        'A' => weekday,
        'b' | 'h' => month[..3].to_owned(),
        'B' => month,
        'c' => format!(
            "{} {} {:2} {time} {}",
            &weekday[..3],
            &month[..3],
            at.day(),
            at.year()
        ),
        'C' => format!("{:02}", at.year() / 100),
        'd' => format!("{:02}", at.day()),
        'D' | 'x' => format!(
            "{:02}/{:02}/{:02}",
            u8::from(at.month()),
            at.day(),
            at.year() % 100
        ),
        'e' => format!("{:2}", at.day()),
        'F' => date("-"),
        'g' => format!("{:02}", at.to_iso_week_date().0 % 100),
        'G' => at.to_iso_week_date().0.to_string(),
        'H' => format!("{:02}", at.hour()),
        'I' => format!("{hour12:02}"),
        'j' => format!("{:03}", at.ordinal()),
        'k' => format!("{:2}", at.hour()),
        'l' => format!("{hour12:2}"),
        'm' => format!("{:02}", u8::from(at.month())),
        'M' => format!("{:02}", at.minute()),
        'n' => "\n".to_owned(),
        'N' => format!("{:09}", at.nanosecond()),
        'p' => half.to_owned(),
        'P' => half.to_lowercase(),
        'r' => format!("{hour12:02}:{:02}:{:02} {half}", at.minute(), at.second()),
        'R' => time[..5].to_owned(),
        's' => at.unix_timestamp().to_string(),
        'S' => format!("{:02}", at.second()),
        't' => "\t".to_owned(),
        'T' | 'X' => time,
        'u' => at.weekday().number_from_monday().to_string(),
        'U' => format!("{:02}", at.sunday_based_week()),
        'V' => format!("{:02}", at.iso_week()),
        'w' => at.weekday().number_days_from_sunday().to_string(),
        'W' => format!("{:02}", at.monday_based_week()),
        'y' => format!("{:02}", at.year() % 100),
        'Y' => at.year().to_string(),
        'z' => clock::offset(at, ""),
        'Z' => zone(at),
        '%' => "%".to_owned(),
        _ => String::new(),
    }
}

/// The zone's abbreviation is not known; its offset stands for it.
fn zone(at: OffsetDateTime) -> String {
    if at.offset().is_utc() {
        "UTC".to_owned()
    } else {
        clock::offset(at, "")
    }
}
