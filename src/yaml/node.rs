//! The tree.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::{ConfigError, Problem};

/// A value in a YAML document.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Which one it is in its document.
    pub id: NodeId,
    /// What it is.
    pub value: Value,
}

/// The number of a value or key in its document, counted in the order of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// What a [`Node`] holds, by the rules of YAML 1.2: `on`, `yes` and `017` are texts.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the text, duplicates included.
    Map(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// Where the key stands.
    pub key_id: NodeId,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Nothing, as a value that stands nowhere.
    pub const NULL: Self = Self {
        id: NodeId(usize::MAX),
        value: Value::Null,
    };

    /// The text, or the number or switch as a text.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match &self.value {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Integer(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(value) => Some(Cow::Owned(value.to_string())),
            _ => None,
        }
    }

    /// `on`, `yes`, `true` or `off`, `no`, `false`, in any case.
    #[must_use]
    pub fn bool(&self) -> Option<bool> {
        match &self.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) => on_or_off(text),
            _ => None,
        }
    }

    /// The whole number.
    #[must_use]
    pub fn integer(&self) -> Option<i128> {
        match self.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// The items of the list; empty if it is none.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of the mapping; empty if it is none.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key of the mapping, the last one if there are several; `-` and `_` are alike.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries()
            .iter()
            .rfind(|entry| same_key(&entry.key, key))
            .map(|entry| &entry.value)
    }

    /// What the value is, for messages: "a list", "the text 'x'".
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Text(text) if text.chars().count() > 40 => {
                format!(
                    "'{}…'",
                    text.chars().take(40).collect::<String>().escape_debug()
                )
            }
            Value::Text(text) => format!("'{}'", text.escape_debug()),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a section".to_owned(),
        }
    }
}

/// `on`, `yes`, `true` → true; `off`, `no`, `false` → false; in any case.
#[must_use]
pub fn on_or_off(text: &str) -> Option<bool> {
    let is = |word: &&str| text.eq_ignore_ascii_case(word);
    if ["on", "yes", "true"].iter().any(is) {
        Some(true)
    } else if ["off", "no", "false"].iter().any(is) {
        Some(false)
    } else {
        None
    }
}

/// Two spellings of one key: `-` and `_` are alike.
pub(crate) fn same_key(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(plain).eq(b.bytes().map(plain))
}

/// A YAML text and its tree.
#[derive(Debug)]
pub struct Document {
    text: String,
    root: Node,
}

impl Document {
    /// Reads one YAML document; JSON is YAML too. An empty text is [`Value::Null`].
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the line where the text stops being YAML.
    pub fn parse(text: impl Into<String>) -> Result<Self, ConfigError> {
        let text = text.into();
        let root = read(&text, None).map_err(|error| syntax_error(&text, &error))?;
        Ok(Self { text, root })
    }

    /// The top of the tree.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Line and column of a node, both from 1. Reads the text again up to there: for messages only.
    #[must_use]
    pub fn place(&self, id: NodeId) -> Option<(usize, usize)> {
        let error = read(&self.text, Some(id)).err()?;
        error.location().map(|at| (at.line(), at.column()))
    }
}

fn read(text: &str, stop_at: Option<NodeId>) -> Result<Node, serde_yaml::Error> {
    let mut counter = Counter { next: 0, stop_at };
    NodeSeed(&mut counter).deserialize(serde_yaml::Deserializer::from_str(text))
}

fn syntax_error(text: &str, error: &serde_yaml::Error) -> ConfigError {
    let place = error.location().map(|at| (at.line(), at.column()));
    let line = place
        .and_then(|(line, _)| text.lines().nth(line - 1))
        .unwrap_or("");
    // The place is in the message's front already.
    let mut message = error.to_string();
    if let Some(at) = message.find(" at line ") {
        message.truncate(at);
    }
    if line.contains('\t') {
        message.push_str("; indent with spaces, YAML takes no tabs");
    } else if line.contains(": [") && line.contains("::") {
        message.push_str("; put an address with brackets in quotes");
    }
    Problem::new("", message).at(place).into()
}

/// Numbers the values, and fails at the one whose place is wanted: `serde_yaml` adds line and column to an error.
struct Counter {
    next: usize,
    stop_at: Option<NodeId>,
}

impl Counter {
    fn take<E: Error>(&mut self) -> Result<NodeId, E> {
        let id = NodeId(self.next);
        self.next += 1;
        if self.stop_at == Some(id) {
            return Err(E::custom("here"));
        }
        Ok(id)
    }
}

struct NodeSeed<'a>(&'a mut Counter);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl NodeSeed<'_> {
    fn scalar<E: Error>(self, value: Value) -> Result<Node, E> {
        Ok(Node {
            id: self.0.take()?,
            value,
        })
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, number, switch, list or section without a tag")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.scalar(Value::Null)
    }

    /// A text without any value.
    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(Value::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(Value::Integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.scalar(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.scalar(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let id = self.0.take()?;
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(NodeSeed(self.0))? {
            items.push(item);
        }
        Ok(Node {
            id,
            value: Value::List(items),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let id = self.0.take()?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        while let Some(key) = map.next_key_seed(NodeSeed(self.0))? {
            let value = map.next_value_seed(NodeSeed(self.0))?;
            let Some(name) = key.text() else {
                return Err(A::Error::custom("a key must be a text"));
            };
            if name == "<<" {
                merge(&mut merged, value);
            } else {
                entries.push(Entry {
                    key: name.into_owned(),
                    key_id: key.id,
                    value,
                });
            }
        }
        // What is written here goes before what is merged in.
        merged.retain(|entry| !entries.iter().any(|own| same_key(&own.key, &entry.key)));
        entries.append(&mut merged);
        Ok(Node {
            id,
            value: Value::Map(entries),
        })
    }
}

/// `<<: *anchor` or `<<: [*one, *two]`: earlier ones go first.
fn merge(into: &mut Vec<Entry>, from: Node) {
    match from.value {
        Value::Map(entries) => {
            for entry in entries {
                if !into.iter().any(|own| same_key(&own.key, &entry.key)) {
                    into.push(entry);
                }
            }
        }
        Value::List(items) => {
            for item in items {
                if matches!(item.value, Value::Map(_)) {
                    merge(into, item);
                }
            }
        }
        _ => {}
    }
}
