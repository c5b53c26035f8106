//! Log lines: `[2015-11-06 22:45:16,470] :: INFO - message`, or one JSON object a line.
//!
//! simplelog writes the lines (one `write(2)` each); its own columns are switched off and the layout made here, because the
//! level names are Python's (`WARNING`, and `CRITICAL` for records of the target [`CRITICAL`]).

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use simplelog::{Config, ConfigBuilder, SharedLogger, WriteLogger};

use super::clock;

/// The target of records whose level is printed as `CRITICAL`.
pub(crate) const CRITICAL: &str = "hbmqtt::critical";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// HBMQTT's: `[YYYY-MM-DD HH:MM:SS,mmm] :: LEVEL - message`.
    #[default]
    Plain,
    /// `{"time": …, "level": …, "message": …}`.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            _ => Err("use plain or json".to_owned()),
        }
    }
}

/// The level that `--debug` given so many times and `--quiet` ask for, beginning from `usual`.
pub(crate) fn verbosity(debug: u8, quiet: bool, usual: LevelFilter) -> LevelFilter {
    match (debug, quiet) {
        (2.., _) => LevelFilter::Trace,
        (1, _) => LevelFilter::Debug,
        (0, true) => LevelFilter::Error,
        (0, false) => usual,
    }
}

/// Starts logging to `to`, one `write(2)` a line if that is a file, unless lines are [held](hold).
pub(crate) fn start(level: LevelFilter, format: Format, to: impl Write + Send + 'static) {
    let lines = Lines {
        to,
        waiting: Vec::new(),
    };
    let layout = Layout {
        sink: WriteLogger::new(LevelFilter::Trace, columns_off(), lines),
        format,
        second: Mutex::default(),
    };
    // A second call in one process (only tests do that) keeps the first logger.
    if log::set_boxed_logger(Box::new(layout)).is_ok() {
        log::set_max_level(level);
    }
}

/// Lines below WARNING are written together from now on, until [`release`]: for whoever logs a line for each of many
/// messages, and does not wait for anything in between.
#[allow(dead_code, reason = "for hbmqtt_pub")]
pub(crate) fn hold() {
    HELD.store(true, Ordering::Relaxed);
}

/// Writes the lines that were held. They are written one by one again.
#[allow(dead_code, reason = "for hbmqtt_pub")]
pub(crate) fn release() {
    if HELD.swap(false, Ordering::Relaxed) {
        log::logger().flush();
    }
}

static HELD: AtomicBool = AtomicBool::new(false);

/// Hands lines on: each one at once, or many together.
struct Lines<W> {
    to: W,
    waiting: Vec<u8>,
}

/// No more than this is held.
const HOLD_BYTES: usize = 64 * 1024;

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        let is_held = HELD.load(Ordering::Relaxed) && self.waiting.len() < HOLD_BYTES;
        if self.waiting.ends_with(b"\n") && !is_held {
            self.hand_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()?;
        self.to.flush()
    }
}

impl<W: Write> Lines<W> {
    fn hand_on(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.waiting);
        // Lines that cannot be written are lost: the next ones may fare better.
        self.waiting.clear();
        written
    }
}

/// simplelog's configuration without any of its own columns.
fn columns_off() -> Config {
    ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build()
}

/// Gives every record its layout and hands it on.
struct Layout {
    sink: Box<dyn SharedLogger>,
    format: Format,
    /// What the time of the last line was written as, without its milliseconds.
    second: Mutex<Second>,
}

/// A second since 1970, and how a line of [`Format::Plain`] writes it.
#[derive(Default)]
struct Second {
    since_epoch: u64,
    text: String,
}

impl Log for Layout {
    /// Our own records at every level; those of other packages when they warn, or with everything else at trace.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
            && (metadata.target().starts_with("hbmqtt")
                || metadata.level() <= Level::Warn
                || log::max_level() == LevelFilter::Trace)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let at = SystemTime::now();
        let line = match self.format {
            Format::Plain => self.plain(at, record),
            Format::Json => json(at, record),
        };
        self.sink.log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .args(format_args!("{line}"))
                .build(),
        );
        if record.level() <= Level::Warn && HELD.load(Ordering::Relaxed) {
            self.flush();
        }
    }

    fn flush(&self) {
        self.sink.flush();
    }
}

impl Layout {
    /// HBMQTT's line, without its end. The local time is looked up once a second.
    fn plain(&self, at: SystemTime, record: &Record<'_>) -> String {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut second = self.second.lock();
        if second.text.is_empty() || second.since_epoch != since_epoch.as_secs() {
            second.since_epoch = since_epoch.as_secs();
            second.text = clock::date_time(clock::local(at), " ");
        }
        let mut line = format!(
            "[{},{:03}] :: {} - ",
            second.text,
            since_epoch.subsec_millis(),
            level_name(record)
        );
        drop(second);
        // Writing into a String cannot fail.
        let _ = write!(Escaped(&mut line), "{}", record.args());
        line
    }
}

/// A JSON object, without the line end.
fn json(at: SystemTime, record: &Record<'_>) -> String {
    let at = clock::local(at);
    serde_json::json!({
        "time": format!(
            "{}.{:03}{}",
            clock::date_time(at, "T"),
            at.millisecond(),
            clock::offset(at, ":")
        ),
        "level": level_name(record),
        "message": record.args().to_string(),
    })
    .to_string()
}

fn level_name(record: &Record<'_>) -> &'static str {
    match record.level() {
        Level::Error if record.target() == CRITICAL => "CRITICAL",
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    }
}

/// Keeps a message on its line: what a peer sent cannot start a line of its own or steer the terminal.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            self.0.push_str(text);
            return Ok(());
        }
        for c in text.chars() {
            if c.is_control() || is_bidirectional_control(c) {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// Characters that reverse the order in which a terminal shows the rest of the line.
fn is_bidirectional_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(format: Format, level: Level, target: &str, text: &str) -> String {
        let written = Written::default();
        let lines = Lines {
            to: written.clone(),
            waiting: Vec::new(),
        };
        let layout = Layout {
            sink: WriteLogger::new(LevelFilter::Trace, columns_off(), lines),
            format,
            second: Mutex::default(),
        };
        log::set_max_level(LevelFilter::Trace);
        layout.log(
            &Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("{text}"))
                .build(),
        );
        let line = String::from_utf8(written.0.lock().clone()).unwrap();
        line.strip_suffix('\n').unwrap().to_owned()
    }

    #[derive(Clone, Default)]
    struct Written(std::sync::Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_hbmqtts_layout() {
        let line = laid_out(Format::Plain, Level::Info, "hbmqtt", "Broker closed");
        let shape: String = line
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "[0000-00-00 00:00:00,000] :: INFO - Broker closed");
    }

    #[test]
    fn levels_have_their_python_names() {
        for (level, target, name) in [
            (Level::Error, CRITICAL, "CRITICAL"),
            (Level::Error, "hbmqtt", "ERROR"),
            (Level::Warn, "hbmqtt", "WARNING"),
            (Level::Debug, "hbmqtt", "DEBUG"),
        ] {
            let line = laid_out(Format::Plain, level, target, "x");
            assert!(line.ends_with(&format!(" :: {name} - x")), "{line}");
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let line = laid_out(
            Format::Plain,
            Level::Info,
            "hbmqtt",
            "a\nb\u{1b}[1m\u{202e}",
        );
        assert!(line.ends_with("a\\nb\\u{1b}[1m\\u{202e}"), "{line}");
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = laid_out(Format::Json, Level::Warn, "hbmqtt", "say \"hi\"\n");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "WARNING");
        assert_eq!(value["message"], "say \"hi\"\n");
        assert!(!line.contains('\n'));
    }

    #[test]
    fn debug_and_quiet_choose_the_level() {
        assert_eq!(verbosity(0, false, LevelFilter::Info), LevelFilter::Info);
        assert_eq!(verbosity(0, true, LevelFilter::Info), LevelFilter::Error);
        assert_eq!(verbosity(1, true, LevelFilter::Info), LevelFilter::Debug);
        assert_eq!(verbosity(3, false, LevelFilter::Info), LevelFilter::Trace);
    }
}
