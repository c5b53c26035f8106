//! The output format language of mosquitto's tools: `%` for the message, `@` for the time, `\` for characters.

mod json;
mod strftime;

use std::io::{self, Write};
use std::time::SystemTime;

use hbmqtt::client::ReceivedMessage;
use hbmqtt::proto::packet::publish::PublishProperties;
use time::OffsetDateTime;

use crate::shared::clock;

pub(crate) use json::{JsonPayload, json};
use strftime::strftime;

/// A message as the output formats see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// 0 at QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) properties: Option<&'a PublishProperties>,
    /// When the message arrived.
    pub(crate) at: SystemTime,
}

impl<'a> View<'a> {
    /// A message that arrives now.
    pub(crate) fn now(message: &'a ReceivedMessage) -> Self {
        Self {
            topic: message.topic(),
            payload: message.payload(),
            qos: message.qos().as_u8(),
            retain: message.retain(),
            packet_id: message.packet_id().map_or(0, |id| id.value()),
            properties: message.properties(),
            at: SystemTime::now(),
        }
    }
}

/// A format that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    /// `%` and a letter.
    Field(Field),
    /// `@` and a letter of `strftime`.
    Time(char),
}

/// `%`, flags, width, precision, separator, letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    letter: char,
    left: bool,
    zeros: bool,
    width: usize,
    /// Texts: the longest length. `%x`: hexadecimal digits between two separators. `%f`, `%d`: decimal places.
    precision: Option<usize>,
    separator: char,
}

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// A message that names the place where it cannot be read.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let part = match c {
                '%' => Part::Field(parse_field(&mut chars)?),
                '@' => Part::Time(chars.next().ok_or("'@' at the end of the format")?),
                '\\' => {
                    plain.push(parse_escape(&mut chars)?);
                    continue;
                }
                c => {
                    plain.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            match part {
                Part::Field(Field { letter: '%', .. }) => plain.push(b'%'),
                Part::Time('@') => plain.push(b'@'),
                part => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(part);
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// Writes a message in this format.
    ///
    /// # Errors
    /// Those of `out`.
    pub(crate) fn write(
        &self,
        message: &View<'_>,
        pretty: bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let mut at = None;
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_all(text)?,
                Part::Field(field) => write_field(*field, message, pretty, out)?,
                Part::Time(letter) => {
                    let at = *at.get_or_insert_with(|| clock::local(message.at));
                    out.write_all(strftime(*letter, at).as_bytes())?;
                }
            }
        }
        Ok(())
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn parse_field(chars: &mut Chars<'_>) -> Result<Field, String> {
    let mut field = Field {
        letter: '%',
        left: chars.next_if_eq(&'-').is_some(),
        zeros: chars.next_if_eq(&'0').is_some(),
        width: parse_number(chars)?.unwrap_or(0),
        precision: None,
        separator: ' ',
    };
    if chars.next_if_eq(&'.').is_some() {
        field.precision = Some(parse_number(chars)?.unwrap_or(0));
    }
    if let Some(separator) = chars.next_if(|c| ":-., _/".contains(*c)) {
        field.separator = separator;
    }
    field.letter = chars.next().ok_or("'%' at the end of the format")?;
    if "%ACDEFIJPRSUXdfjlmpqrtx".contains(field.letter) {
        Ok(field)
    } else {
        Err(format!("'%{}' is unknown", field.letter))
    }
}

fn parse_number(chars: &mut Chars<'_>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let value = number.unwrap_or(0) * 10 + digit as usize;
        if value > 100_000 {
            return Err("a width above 100000".to_owned());
        }
        number = Some(value);
    }
    Ok(number)
}

fn parse_escape(chars: &mut Chars<'_>) -> Result<u8, String> {
    Ok(match chars.next().ok_or("'\\' at the end of the format")? {
        '\\' => b'\\',
        '0' => 0,
        'a' => 0x07,
        'e' => 0x1b,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        c => return Err(format!("'\\{c}' is unknown")),
    })
}

fn write_field(
    field: Field,
    message: &View<'_>,
    pretty: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let properties = message.properties;
    match field.letter {
        'p' => write_bytes(field, message.payload, out),
        'x' | 'X' => write_hex(field, message.payload, out),
        'd' | 'f' => write_float(field, message.payload, out),
        't' => write_text(field, message.topic, out),
        'q' => write!(out, "{}", message.qos),
        'r' => write!(out, "{}", u8::from(message.retain)),
        'l' => write_number(field, Some(message.payload.len() as u64), out),
        'm' => write_number(field, Some(u64::from(message.packet_id)), out),
        'j' => json(message, JsonPayload::Text, pretty)
            .map_or(Ok(()), |text| out.write_all(text.as_bytes())),
        'J' => match json(message, JsonPayload::Value, pretty) {
            Some(text) => out.write_all(text.as_bytes()),
            None => {
                log::error!("the payload on topic '{}' is not valid JSON", message.topic);
                Ok(())
            }
        },
        'I' => {
            let at = clock::local(message.at);
            let text = clock::date_time(at, "T") + &clock::offset(at, "");
            write_text(field, &text, out)
        }
        'U' => {
            let at = OffsetDateTime::from(message.at);
            write!(out, "{}.{:09}", at.unix_timestamp(), at.nanosecond())
        }
        'A' => write_number(
            field,
            properties.and_then(|p| p.topic_alias).map(u64::from),
            out,
        ),
        'C' => {
            let value = properties.and_then(|p| p.content_type.as_deref());
            write_text(field, value.unwrap_or(""), out)
        }
        'D' => out.write_all(
            properties
                .and_then(|p| p.correlation_data.as_deref())
                .unwrap_or(&[]),
        ),
        'E' => {
            let value = properties.and_then(|p| p.message_expiry_interval);
            write_number(field, value.map(u64::from), out)
        }
        'F' => {
            let value = properties.and_then(|p| p.payload_format_utf8);
            write_number(field, value.map(u64::from), out)
        }
        'P' => write_user_properties(properties, out),
        'R' => match properties.and_then(|p| p.response_topic.as_deref()) {
            Some(topic) => write_text(field, topic, out),
            None => Ok(()),
        },
        'S' => {
            let value = properties.and_then(|p| p.subscription_identifiers.first());
            write_number(field, value.map(|id| u64::from(*id)), out)
        }
        _ => Ok(()),
    }
}

fn write_user_properties(
    properties: Option<&PublishProperties>,
    out: &mut impl Write,
) -> io::Result<()> {
    let properties = properties.map_or(&[][..], |p| &p.user_properties);
    for (index, (name, value)) in properties.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        write!(out, "{space}{name}:{value}")?;
    }
    Ok(())
}

fn write_text(field: Field, text: &str, out: &mut impl Write) -> io::Result<()> {
    let text: String = match field.precision {
        Some(longest) => text.chars().take(longest).collect(),
        None => text.to_owned(),
    };
    let padding = field.width.saturating_sub(text.chars().count());
    pad(field, ' ', padding, text.as_bytes(), out)
}

fn write_number(field: Field, number: Option<u64>, out: &mut impl Write) -> io::Result<()> {
    let text = number.map_or_else(String::new, |number| number.to_string());
    let fill = if field.zeros && !field.left { '0' } else { ' ' };
    pad(
        field,
        fill,
        field.width.saturating_sub(text.len()),
        text.as_bytes(),
        out,
    )
}

/// The payload as it is; a width cuts it as well.
fn write_bytes(field: Field, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    let shown = match field.width {
        0 => bytes,
        width => &bytes[..bytes.len().min(width)],
    };
    let fill = if field.zeros && !field.left { '0' } else { ' ' };
    pad(
        field,
        fill,
        field.width.saturating_sub(shown.len()),
        shown,
        out,
    )
}

/// The payload in hexadecimal digits; a width cuts it to that many whole bytes.
fn write_hex(field: Field, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    let shown = match field.width {
        0 => bytes,
        width => &bytes[..bytes.len().min(width / 2)],
    };
    let digits = if field.letter == 'X' {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    let group = field.precision.unwrap_or(0);
    let mut text = Vec::with_capacity(shown.len() * 2);
    let nibbles = shown.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    for (index, nibble) in nibbles.enumerate() {
        if group > 0 && index > 0 && index % group == 0 {
            text.extend_from_slice(field.separator.encode_utf8(&mut [0; 4]).as_bytes());
        }
        text.push(digits[usize::from(nibble)]);
    }
    let fill = if field.zeros && !field.left { '0' } else { ' ' };
    pad(
        field,
        fill,
        field.width.saturating_sub(text.len()),
        &text,
        out,
    )
}

/// A payload of 4 (`%f`) or 8 (`%d`) bytes as a number of the machine's byte order.
fn write_float(field: Field, payload: &[u8], out: &mut impl Write) -> io::Result<()> {
    let value = if field.letter == 'f' {
        payload
            .try_into()
            .ok()
            .map(|bytes| f64::from(f32::from_ne_bytes(bytes)))
    } else {
        payload.try_into().ok().map(f64::from_ne_bytes)
    };
    let Some(value) = value else {
        log::error!(
            "the payload of {} bytes is no number for '%{}'",
            payload.len(),
            field.letter
        );
        return Ok(());
    };
    let text = format!("{value:.*}", field.precision.unwrap_or(6));
    let fill = if field.zeros && !field.left { '0' } else { ' ' };
    pad(
        field,
        fill,
        field.width.saturating_sub(text.len()),
        text.as_bytes(),
        out,
    )
}

fn pad(
    field: Field,
    fill: char,
    padding: usize,
    text: &[u8],
    out: &mut impl Write,
) -> io::Result<()> {
    if !field.left {
        write!(out, "{}", fill.to_string().repeat(padding))?;
    }
    out.write_all(text)?;
    if field.left {
        write!(out, "{}", " ".repeat(padding))?;
    }
    Ok(())
}

/// Base64 with padding (RFC 4648 §4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            if place > chunk.len() {
                text.push('=');
            } else {
                let index = (bits >> (18 - 6 * place)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
