//! Where received messages go and what they look like there.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use crate::shared::exit::{self, Failure};
use crate::shared::format::{self, Format, JsonPayload, View};

/// What a message looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Style {
    /// The payload.
    Payload(Encoding),
    /// The topic, a space, the payload; `(null)` for an empty one.
    TopicAndPayload(Encoding),
    /// The user's own format.
    Formatted(Format),
    /// One JSON object.
    Json,
}

/// What a payload looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// The bytes as they are.
    #[default]
    Text,
    /// Hexadecimal digits.
    Hex,
    /// Base64.
    Base64,
    /// A JSON value, written again without spaces; as it is if it is none.
    Json,
}

/// How messages are written.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) style: Style,
    /// After each message.
    pub(crate) newline: bool,
    /// JSON over several lines.
    pub(crate) pretty: bool,
    /// Nothing for an empty payload.
    pub(crate) skip_empty: bool,
    /// Each topic has its own line on the screen.
    pub(crate) watch: bool,
}

/// What a message looks like after these options, of which each excludes the others but the last.
///
/// # Errors
/// A usage error if several were given.
pub(crate) fn style(
    format: Option<&Format>,
    json: bool,
    encoding: Option<Encoding>,
    with_topic: bool,
) -> Result<Style, Failure> {
    match (format, json, encoding) {
        (Some(format), false, None) => Ok(Style::Formatted(format.clone())),
        (None, true, None) => Ok(Style::Json),
        (None, false, encoding) if with_topic => {
            Ok(Style::TopicAndPayload(encoding.unwrap_or_default()))
        }
        (None, false, encoding) => Ok(Style::Payload(encoding.unwrap_or_default())),
        _ => Err(Failure::usage(
            "use one of --output-format, --json and --format",
        )),
    }
}

/// Messages cannot be written. That nobody reads them any longer ends the program and is no failure: an empty message
/// and the status of success.
pub(crate) fn unwritable(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure {
            status: exit::OK,
            message: String::new(),
        },
        _ => Failure::failed(format!("cannot write the messages: {error}")),
    }
}

/// The place that messages go to.
pub(crate) struct Output {
    sink: Sink,
    layout: Layout,
    /// Nobody wants to wait for the next message: somebody looks at a terminal.
    flush_each: bool,
    lines: HashMap<String, usize>,
}

#[allow(dead_code, reason = "hbmqtt_rr writes to standard output only")]
enum Sink {
    Stream(BufWriter<Box<dyn Write>>),
    Directory { path: PathBuf, next: u64 },
}

#[allow(dead_code, reason = "hbmqtt_rr writes to standard output only")]
impl Output {
    /// Standard output.
    pub(crate) fn stdout(layout: Layout) -> Self {
        let stdout = io::stdout();
        let flush_each = stdout.is_terminal();
        // The lock of `Stdout` holds a buffer of its own, which must not be a line's: whole batches are written at once.
        let stream: Box<dyn Write> = match rustix::io::dup(&stdout) {
            Ok(descriptor) => Box::new(File::from(descriptor)),
            Err(_) => Box::new(stdout),
        };
        Self::new(Sink::Stream(buffered(stream)), layout, flush_each)
    }

    /// The end of a file, which is made if it is missing.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn file(path: &str, layout: Layout) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self::new(
            Sink::Stream(buffered(Box::new(file))),
            layout,
            false,
        ))
    }

    /// A directory, in which each message becomes a file; it is made if it is missing.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn directory(path: &str, layout: Layout) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let sink = Sink::Directory {
            path: path.into(),
            next: 1,
        };
        Ok(Self::new(sink, layout, false))
    }

    fn new(sink: Sink, layout: Layout, flush_each: bool) -> Self {
        Self {
            sink,
            layout,
            flush_each,
            lines: HashMap::new(),
        }
    }

    /// Writes one message; it may stay in the buffer until [`flush`](Self::flush).
    ///
    /// # Errors
    /// Those of the place; [`io::ErrorKind::BrokenPipe`] when nobody reads any longer.
    pub(crate) fn write(&mut self, message: &View<'_>) -> io::Result<()> {
        let layout = &self.layout;
        match &mut self.sink {
            Sink::Stream(stream) if layout.watch => {
                write_in_place(&mut self.lines, layout, message, stream)?;
            }
            Sink::Stream(stream) => layout.write(message, stream)?,
            Sink::Directory { path, next } => {
                let file = path.join(file_name(*next, message.topic));
                *next += 1;
                let mut file = BufWriter::new(File::create(file)?);
                let layout = Layout {
                    newline: false,
                    ..layout.clone()
                };
                layout.write(message, &mut file)?;
                file.flush()?;
            }
        }
        if self.flush_each {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes a line of text.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        match &mut self.sink {
            Sink::Stream(stream) => {
                writeln!(stream, "{text}")?;
                stream.flush()
            }
            Sink::Directory { .. } => Ok(()),
        }
    }

    /// Hands over what is in the buffer.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Stream(stream) => stream.flush(),
            Sink::Directory { .. } => Ok(()),
        }
    }
}

fn buffered(stream: Box<dyn Write>) -> BufWriter<Box<dyn Write>> {
    BufWriter::with_capacity(64 * 1024, stream)
}

/// A terminal's screen keeps one line for each topic, in the order in which they were first seen.
fn write_in_place(
    lines: &mut HashMap<String, usize>,
    layout: &Layout,
    message: &View<'_>,
    stream: &mut impl Write,
) -> io::Result<()> {
    if lines.is_empty() {
        write!(stream, "\x1b[2J")?;
    }
    let next = lines.len() + 1;
    let line = *lines.entry(message.topic.to_owned()).or_insert(next);
    write!(stream, "\x1b[{line};1H\x1b[K")?;
    layout.write(message, stream)?;
    write!(stream, "\x1b[{};1H", lines.len() + 1)
}

/// A number that sorts, and the topic with everything replaced that a file's name cannot hold.
fn file_name(number: u64, topic: &str) -> String {
    let safe: String = topic
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "-_.+=,@".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(60)
        .collect();
    format!("{number:06}-{safe}")
}

impl Layout {
    fn write(&self, message: &View<'_>, out: &mut impl Write) -> io::Result<()> {
        let empty = message.payload.is_empty();
        match &self.style {
            Style::Payload(_) if empty && self.skip_empty => return Ok(()),
            Style::Payload(encoding) => self.payload(*encoding, message.payload, out)?,
            Style::TopicAndPayload(_) if empty => write!(out, "{} (null)", message.topic)?,
            Style::TopicAndPayload(encoding) => {
                write!(out, "{} ", message.topic)?;
                self.payload(*encoding, message.payload, out)?;
            }
            Style::Formatted(format) => format.write(message, self.pretty, out)?,
            Style::Json => {
                let object = format::json(message, JsonPayload::TextOrBase64, self.pretty);
                out.write_all(object.unwrap_or_default().as_bytes())?;
            }
        }
        if self.newline {
            out.write_all(b"\n")
        } else {
            Ok(())
        }
    }

    fn payload(&self, encoding: Encoding, payload: &[u8], out: &mut impl Write) -> io::Result<()> {
        match encoding {
            Encoding::Text => out.write_all(payload),
            Encoding::Hex => payload
                .iter()
                .try_for_each(|byte| write!(out, "{byte:02x}")),
            Encoding::Base64 => out.write_all(format::base64(payload).as_bytes()),
            Encoding::Json => match serde_json::from_slice::<serde_json::Value>(payload) {
                Ok(value) if self.pretty => write!(out, "{value:#}"),
                Ok(value) => write!(out, "{value}"),
                Err(_) => out.write_all(payload),
            },
        }
    }
}

/// The encoding with this name.
///
/// # Errors
/// The names there are.
pub(crate) fn encoding(text: &str) -> Result<Encoding, String> {
    match text {
        "text" | "binary" => Ok(Encoding::Text),
        "hex" => Ok(Encoding::Hex),
        "base64" => Ok(Encoding::Base64),
        "json" => Ok(Encoding::Json),
        _ => Err("use text, hex, base64 or json".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn written(style: Style, newline: bool, skip_empty: bool, payload: &[u8]) -> Vec<u8> {
        let layout = Layout {
            style,
            newline,
            pretty: false,
            skip_empty,
            watch: false,
        };
        let message = View {
            topic: "a/b",
            payload,
            qos: 0,
            retain: false,
            packet_id: 0,
            properties: None,
            at: SystemTime::UNIX_EPOCH,
        };
        let mut out = Vec::new();
        layout.write(&message, &mut out).unwrap();
        out
    }

    #[test]
    fn a_payload_is_written_byte_for_byte() {
        let plain = || Style::Payload(Encoding::Text);
        assert_eq!(written(plain(), true, false, b"\xff\0\n"), b"\xff\0\n\n");
        assert_eq!(written(plain(), false, false, b"x"), b"x");
        assert_eq!(written(plain(), true, false, b""), b"\n");
        assert_eq!(written(plain(), true, true, b""), b"");
    }

    #[test]
    fn the_topic_comes_first_when_it_is_asked_for() {
        let verbose = || Style::TopicAndPayload(Encoding::Text);
        assert_eq!(written(verbose(), true, false, b"x y"), b"a/b x y\n");
        assert_eq!(written(verbose(), true, true, b""), b"a/b (null)\n");
    }

    #[test]
    fn a_payload_may_be_encoded() {
        assert_eq!(
            written(Style::Payload(Encoding::Hex), true, false, b"\xff\x01"),
            b"ff01\n"
        );
        assert_eq!(
            written(Style::Payload(Encoding::Base64), true, false, b"foo"),
            b"Zm9v\n"
        );
        assert_eq!(
            written(Style::Payload(Encoding::Json), true, false, b"[ 1 ]"),
            b"[1]\n"
        );
        assert_eq!(
            written(Style::Payload(Encoding::Json), true, false, b"[ 1"),
            b"[ 1\n"
        );
    }

    #[test]
    fn a_file_is_named_after_number_and_topic() {
        assert_eq!(file_name(7, "a/b c/../é"), "000007-a_b_c_.._é");
        assert!(file_name(1, &"x".repeat(500)).len() < 100);
    }
}
