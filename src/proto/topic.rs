//! Topic Names, Topic Filters and Share Names: validity, levels, matching one against one.
//!
//! Matching one name against many filters is the broker's business (`broker/router/subscriptions.rs`).

use std::borrow::Borrow;
use std::fmt;
use std::str::Split;

use bytestring::ByteString;

/// The longest Topic Name or Topic Filter that the format can carry, in bytes.
pub const MAX_TOPIC_BYTES: usize = 65_535;

/// What a Topic Filter of a Shared Subscription starts with.
const SHARE_PREFIX: &str = "$share/";

/// A Topic Name: 1 to 65,535 bytes of UTF-8 without U+0000, `+` and `#`.
///
/// Source: MQTT 5.0 §4.7.1, §4.7.3; MQTT 3.1.1 §4.7.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(ByteString);

/// A Topic Filter: 1 to 65,535 bytes of UTF-8 without U+0000, wildcards only where they fill a level. It does not hold
/// the `$share/name/` prefix of a Shared Subscription, see [`parse_subscription`].
///
/// Source: MQTT 5.0 §4.7.1, §4.7.3; MQTT 3.1.1 §4.7.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(ByteString);

/// The Share Name of a Shared Subscription: at least one character, without U+0000, `/`, `+` and `#`.
///
/// Source: MQTT 5.0 §4.8.2 [MQTT-4.8.2-1], [MQTT-4.8.2-2].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(ByteString);

/// Why a text is not a Topic Name, Topic Filter or Share Name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// No character at all. [MQTT-4.7.3-1]
    Empty,
    /// More than [`MAX_TOPIC_BYTES`]. [MQTT-4.7.3-3]
    TooLong,
    /// Holds U+0000. [MQTT-4.7.3-2]
    Nul,
    /// A Topic Name holds a wildcard character. [MQTT-4.7.0-1]
    Wildcard,
    /// A wildcard of a Topic Filter does not fill its level, or `#` is not the last level. [MQTT-4.7.1-1],
    /// [MQTT-4.7.1-2]
    MisplacedWildcard,
    /// The Share Name is empty or holds `+` or `#`, or no Topic Filter follows it. [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    InvalidShare,
}

/// The levels of a Topic Name or Topic Filter, first to last; any of them may be empty.
///
/// Source: MQTT 5.0 §4.7.1.1.
pub type Levels<'a> = Split<'a, char>;

impl TopicName {
    /// Checks `name` and takes it as a Topic Name.
    ///
    /// A `ByteString` that is a slice of a larger buffer goes on sharing it.
    ///
    /// # Errors
    /// Every [`TopicError`] but `MisplacedWildcard` and `InvalidShare`.
    pub fn parse(name: impl Into<ByteString>) -> Result<Self, TopicError> {
        let name = name.into();
        validate_name(&name)?;
        Ok(Self(name))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, first to last.
    #[must_use]
    pub fn levels(&self) -> Levels<'_> {
        levels(&self.0)
    }

    /// Starts with `$`: a topic of the server's own, which no filter that starts with a wildcard matches.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        is_reserved(&self.0)
    }

    /// The text, shared.
    #[must_use]
    pub fn into_byte_string(self) -> ByteString {
        self.0
    }
}

impl TopicFilter {
    /// Checks `filter` and takes it as a Topic Filter. `$share` has no meaning here.
    ///
    /// A `ByteString` that is a slice of a larger buffer goes on sharing it.
    ///
    /// # Errors
    /// `Empty`, `TooLong`, `Nul` or `MisplacedWildcard` of [`TopicError`].
    pub fn parse(filter: impl Into<ByteString>) -> Result<Self, TopicError> {
        let filter = filter.into();
        validate_filter(&filter)?;
        Ok(Self(filter))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, first to last.
    #[must_use]
    pub fn levels(&self) -> Levels<'_> {
        levels(&self.0)
    }

    /// Has a `+` or `#` level; otherwise it matches exactly the Topic Name that reads the same.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.0.bytes().any(|byte| byte == b'+' || byte == b'#')
    }

    /// Whether a message published to `topic` belongs to a subscription with this filter.
    ///
    /// Source: MQTT 5.0 §4.7.1, §4.7.2.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if is_reserved(topic) && self.starts_with_wildcard() {
            return false; // [MQTT-4.7.2-1]
        }
        let mut names = levels(topic);
        for level in self.levels() {
            match (level, names.next()) {
                ("#", _) => return true, // also when the names ended before: `a/#` matches `a`
                ("+", Some(_)) => {}
                (literal, Some(name)) if literal == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether every topic that `other` matches is matched by this filter too: what an access rule for `self` allows
    /// includes a subscription to `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if is_reserved(&other.0) && self.starts_with_wildcard() {
            return false; // [MQTT-4.7.2-1]
        }
        // A `#` includes the level above it, except where no topic can be: a topic has one character at least. So a `+`
        // in front costs it nothing there.
        match (self.as_str(), other.as_str()) {
            ("+/#", "#") | ("/+/#" | "+/+/#", "/#") => return true,
            _ => {}
        }
        let mut others = other.levels();
        for level in self.levels() {
            match (level, others.next()) {
                ("#", _) => return true,
                (_, Some("#")) => return false,
                ("+", Some(_)) => {}
                (literal, Some(other)) if literal == other => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }

    fn starts_with_wildcard(&self) -> bool {
        matches!(self.0.as_bytes().first(), Some(b'+' | b'#'))
    }
}

impl ShareName {
    /// Checks `name` and takes it as a Share Name.
    ///
    /// # Errors
    /// `Empty`, `TooLong`, `Nul` or `InvalidShare` of [`TopicError`].
    pub fn parse(name: impl Into<ByteString>) -> Result<Self, TopicError> {
        let name = name.into();
        validate_text(&name)?;
        if name.bytes().any(|byte| matches!(byte, b'/' | b'+' | b'#')) {
            return Err(TopicError::InvalidShare); // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        }
        Ok(Self(name))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Splits the text of a SUBSCRIBE or UNSUBSCRIBE into the Share Name, if it is a Shared Subscription, and the Topic
/// Filter.
///
/// Both are copies: a subscription lives long, and must not keep the buffer alive that the packet came in.
///
/// # Errors
/// [`TopicError`]; `InvalidShare` if `$share/` is not followed by a Share Name, `/` and a Topic Filter.
///
/// Source: MQTT 5.0 §4.8.2.
pub fn parse_subscription(
    text: &ByteString,
) -> Result<(Option<ShareName>, TopicFilter), TopicError> {
    let text: &str = text;
    if text.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong);
    }
    let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
        return Ok((None, TopicFilter::parse(text)?));
    };
    let (name, filter) = shared.split_once('/').ok_or(TopicError::InvalidShare)?;
    if name.is_empty() || filter.is_empty() {
        return Err(TopicError::InvalidShare);
    }
    Ok((Some(ShareName::parse(name)?), TopicFilter::parse(filter)?))
}

/// Checks that `name` is a Topic Name, without taking it. For the data path: no allocation.
///
/// # Errors
/// As [`TopicName::parse`].
///
/// Source: MQTT 5.0 §3.3.2.1 [MQTT-3.3.2-2], §4.7.
pub fn validate_name(name: &str) -> Result<(), TopicError> {
    // One pass without early exit, which the compiler turns into vector instructions; the cause is sought after.
    let suspect = name
        .bytes()
        .fold(false, |found, byte| found | matches!(byte, 0 | b'+' | b'#'));
    if !suspect && !name.is_empty() && name.len() <= MAX_TOPIC_BYTES {
        return Ok(());
    }
    validate_text(name)?;
    Err(TopicError::Wildcard) // [MQTT-4.7.0-1]
}

/// Checks that `filter` is a Topic Filter, without taking it.
///
/// # Errors
/// As [`TopicFilter::parse`].
pub fn validate_filter(filter: &str) -> Result<(), TopicError> {
    validate_text(filter)?;
    let mut levels = levels(filter);
    while let Some(level) = levels.next() {
        match level {
            "+" => {}
            "#" if levels.clone().next().is_none() => {} // [MQTT-4.7.1-1]
            level if level.contains(['+', '#']) => return Err(TopicError::MisplacedWildcard),
            _ => {}
        }
    }
    Ok(())
}

/// The levels of the Topic Name or Topic Filter `text`, first to last; at least one.
#[must_use]
pub fn levels(text: &str) -> Levels<'_> {
    text.split('/')
}

/// How many levels `text` has: one more than its `/`.
#[must_use]
pub fn level_count(text: &str) -> usize {
    let separators: usize = text.bytes().map(|byte| usize::from(byte == b'/')).sum();
    separators.saturating_add(1)
}

/// `topic` starts with `$`.
///
/// Source: MQTT 5.0 §4.7.2.
#[must_use]
pub fn is_reserved(topic: &str) -> bool {
    topic.as_bytes().first() == Some(&b'$')
}

fn validate_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty); // [MQTT-4.7.3-1]
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong); // [MQTT-4.7.3-3]
    }
    if text.as_bytes().contains(&0) {
        return Err(TopicError::Nul); // [MQTT-4.7.3-2]
    }
    Ok(())
}

macro_rules! text_type {
    ($($name:ident)*) => {
        $(
            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(self.as_str())
                }
            }

            impl AsRef<str> for $name {
                fn as_ref(&self) -> &str {
                    self.as_str()
                }
            }

            impl Borrow<str> for $name {
                fn borrow(&self) -> &str {
                    self.as_str()
                }
            }

            impl PartialEq<str> for $name {
                fn eq(&self, other: &str) -> bool {
                    self.as_str() == other
                }
            }

            impl PartialEq<&str> for $name {
                fn eq(&self, other: &&str) -> bool {
                    self.as_str() == *other
                }
            }

            impl std::str::FromStr for $name {
                type Err = TopicError;

                fn from_str(text: &str) -> Result<Self, TopicError> {
                    Self::parse(text)
                }
            }

            impl From<$name> for ByteString {
                fn from(text: $name) -> Self {
                    text.0
                }
            }
        )*
    };
}

text_type! { TopicName TopicFilter ShareName }

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "topic is empty",
            Self::TooLong => "topic is longer than 65,535 bytes",
            Self::Nul => "topic holds U+0000",
            Self::Wildcard => "topic name holds a wildcard ('+' or '#')",
            Self::MisplacedWildcard => {
                "a wildcard must fill its level, and '#' must be the last level"
            }
            Self::InvalidShare => "a shared subscription reads '$share/name/filter'",
        })
    }
}

impl std::error::Error for TopicError {}

#[cfg(test)]
mod tests;
