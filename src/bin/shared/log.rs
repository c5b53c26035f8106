//! Log lines: `[2015-11-06 22:45:16,470] :: INFO - message`, or one JSON object a line.
//!
//! simplelog writes the lines (one `write(2)` each); its own columns are switched off and the layout made here, because the
//! level names are Python's (`WARNING`, and `CRITICAL` for records of the target [`CRITICAL`]).

use std::fmt::{self, Write as _};
use std::io::{LineWriter, Write};
use std::str::FromStr;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
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

/// Starts logging to `to`, one `write(2)` a line if that is a file.
pub(crate) fn start(level: LevelFilter, format: Format, to: impl Write + Send + 'static) {
    let sink = WriteLogger::new(LevelFilter::Trace, columns_off(), LineWriter::new(to));
    // A second call in one process (only tests do that) keeps the first logger.
    if log::set_boxed_logger(Box::new(Layout { sink, format })).is_ok() {
        log::set_max_level(level);
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
        let line = line(self.format, SystemTime::now(), record);
        self.sink.log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .args(format_args!("{line}"))
                .build(),
        );
    }

    fn flush(&self) {
        self.sink.flush();
    }
}

/// One record as it stands in the log, without the line end.
fn line(format: Format, at: SystemTime, record: &Record<'_>) -> String {
    let at = clock::local(at);
    let millisecond = at.millisecond();
    let level = level_name(record);
    match format {
        Format::Plain => {
            let mut line = format!(
                "[{},{millisecond:03}] :: {level} - ",
                clock::date_time(at, " ")
            );
            // Writing into a String cannot fail.
            let _ = write!(Escaped(&mut line), "{}", record.args());
            line
        }
        Format::Json => serde_json::json!({
            "time": format!(
                "{}.{millisecond:03}{}",
                clock::date_time(at, "T"),
                clock::offset(at, ":")
            ),
            "level": level,
            "message": record.args().to_string(),
        })
        .to_string(),
    }
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
        let args = format_args!("{text}").to_string();
        line(
            format,
            SystemTime::now(),
            &Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("{args}"))
                .build(),
        )
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
