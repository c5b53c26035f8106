//! Reading a mapping key by key: what is wrong is collected, what nobody asked for is an unknown key.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::node::{Document, Entry, Node, NodeId, Value, same_key};
use super::{ConfigError, Problem};
use crate::proto::packet::QoS;

/// What was found while a document is read.
pub(crate) struct Findings<'d> {
    document: &'d Document,
    /// Keys and the section where each belongs, to say so when one stands elsewhere.
    homes: &'static [(&'static str, &'static str)],
    problems: RefCell<Vec<(NodeId, Problem)>>,
    warnings: RefCell<Vec<(NodeId, Problem)>>,
}

impl<'d> Findings<'d> {
    pub(crate) fn new(
        document: &'d Document,
        homes: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self {
            document,
            homes,
            problems: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// The document as a section; an empty document is an empty one.
    pub(crate) fn root(&self) -> Section<'_> {
        let root = self.document.root();
        if !matches!(root.value, Value::Map(_) | Value::Null) {
            let message = format!("expected 'key: value' lines, found {}", root.describe());
            self.problem(root.id, "", message);
        }
        Section::new(self, String::new(), root)
    }

    pub(crate) fn problem(&self, id: NodeId, key: &str, message: impl Into<String>) {
        note(&self.problems, id, Problem::new(key, message));
    }

    pub(crate) fn warning(&self, id: NodeId, key: &str, message: impl Into<String>) {
        note(&self.warnings, id, Problem::new(key, message));
    }

    /// The warnings, or all problems, in the order of the text.
    pub(crate) fn finish(self) -> Result<Vec<Problem>, ConfigError> {
        let place = |mut found: Vec<(NodeId, Problem)>| -> Vec<Problem> {
            found.sort_by_key(|(id, _)| *id);
            let place = |(id, problem): (NodeId, Problem)| problem.at(self.document.place(id));
            found.into_iter().map(place).collect()
        };
        let problems = place(self.problems.into_inner());
        if problems.is_empty() {
            Ok(place(self.warnings.into_inner()))
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }
}

/// A value that several sections inherit is complained about once.
fn note(found: &RefCell<Vec<(NodeId, Problem)>>, id: NodeId, problem: Problem) {
    let mut found = found.borrow_mut();
    if !found
        .iter()
        .any(|(at, other)| *at == id && other.message == problem.message)
    {
        found.push((id, problem));
    }
}

/// A mapping that is being read.
pub(crate) struct Section<'d> {
    found: &'d Findings<'d>,
    path: String,
    id: NodeId,
    entries: &'d [Entry],
    /// Where the keys come from that are not here, and the path there.
    inherited: Option<(&'d [Entry], &'static str)>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'d> Section<'d> {
    fn new(found: &'d Findings<'d>, path: String, node: &'d Node) -> Self {
        Self {
            found,
            path,
            id: node.id,
            entries: node.entries(),
            inherited: None,
            asked: RefCell::default(),
        }
    }

    /// Takes keys that are absent here from `entries`, which stand at `path`.
    pub(crate) fn inheriting(mut self, entries: &'d [Entry], path: &'static str) -> Self {
        self.inherited = Some((entries, path));
        self
    }

    pub(crate) fn found(&self) -> &'d Findings<'d> {
        self.found
    }

    /// Notes a problem with the section as a whole.
    pub(crate) fn problem(&self, message: impl Into<String>) {
        self.found.problem(self.id, &self.path, message);
    }

    pub(crate) fn entries(&self) -> &'d [Entry] {
        self.entries
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The path of a key of this section.
    pub(crate) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The field with this key, own or inherited.
    pub(crate) fn field(&self, key: &'static str) -> Option<Field<'d>> {
        self.own(key).or_else(|| {
            let (entries, path) = self.inherited?;
            let entry = entries.iter().rfind(|entry| same_key(&entry.key, key))?;
            Some(Field {
                found: self.found,
                path: join(path, &entry.key),
                node: &entry.value,
            })
        })
    }

    /// The field with this key, if it stands in this section itself. Warns if it does so more than once; the last counts.
    pub(crate) fn own(&self, key: &'static str) -> Option<Field<'d>> {
        let mut same = self.all(key);
        let last = same.pop()?;
        if !same.is_empty() {
            self.found.warning(
                last.key_id,
                &self.path_of(&last.key),
                "the key is given more than once; this last one counts",
            );
        }
        Some(self.field_of(last))
    }

    /// All entries with this key, in the order of the text.
    pub(crate) fn all(&self, key: &'static str) -> Vec<&'d Entry> {
        self.asked.borrow_mut().push(key);
        let same = |entry: &&Entry| same_key(&entry.key, key);
        self.entries.iter().filter(same).collect()
    }

    pub(crate) fn field_of(&self, entry: &'d Entry) -> Field<'d> {
        Field {
            found: self.found,
            path: self.path_of(&entry.key),
            node: &entry.value,
        }
    }

    /// Refuses the keys that nobody asked for, naming the nearest one that exists.
    pub(crate) fn finish(self) {
        self.finish_with(|_| None);
    }

    /// The same, with a hint for entries that tell what was meant.
    pub(crate) fn finish_with(self, hint: impl Fn(&Entry) -> Option<String>) {
        let asked = self.asked.borrow();
        for entry in self.entries {
            if asked.iter().any(|key| same_key(&entry.key, key)) {
                continue;
            }
            let hint = hint(entry)
                .or_else(|| nearest(&entry.key, &asked).map(|key| format!("did you mean '{key}'?")))
                .or_else(|| self.home_of(&entry.key));
            let message = match hint {
                Some(hint) => format!("unknown key; {hint}"),
                None => "unknown key".to_owned(),
            };
            self.found
                .problem(entry.key_id, &self.path_of(&entry.key), message);
        }
    }

    fn home_of(&self, key: &str) -> Option<String> {
        let (key, home) = self
            .found
            .homes
            .iter()
            .find(|(known, _)| same_key(known, key))?;
        Some(if home.is_empty() {
            format!("'{key}' belongs at the top level")
        } else {
            format!("'{key}' belongs into the section '{home}'")
        })
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A value that is being read. Each reader returns `None` after it has noted what is wrong.
pub(crate) struct Field<'d> {
    found: &'d Findings<'d>,
    path: String,
    node: &'d Node,
}

impl<'d> Field<'d> {
    pub(crate) fn node(&self) -> &'d Node {
        self.node
    }

    /// Notes a problem here.
    pub(crate) fn problem(&self, message: impl Into<String>) {
        self.found.problem(self.node.id, &self.path, message);
    }

    pub(crate) fn warning(&self, message: impl Into<String>) {
        self.found.warning(self.node.id, &self.path, message);
    }

    /// Notes a problem with a part of the value.
    pub(crate) fn problem_at(&self, id: NodeId, message: impl Into<String>) {
        self.found.problem(id, &self.path, message);
    }

    pub(crate) fn place(&self, id: NodeId) -> Option<(usize, usize)> {
        self.found.document.place(id)
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        if self.node.value == Value::Null {
            self.problem(format!("the key has no value; expected {what}"));
        } else {
            self.problem(format!("expected {what}, found {}", self.node.describe()));
        }
        None
    }

    pub(crate) fn text(&self) -> Option<String> {
        match self.node.text() {
            Some(text) => Some(text.into_owned()),
            None if matches!(self.node.value, Value::Float(_)) => {
                self.expected("a text; put it in quotes")
            }
            None => self.expected("a text"),
        }
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self.text()? {
            text if text.is_empty() => self.expected("a path"),
            text => Some(text.into()),
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        let choice = |text: &str| {
            text.contains('/')
                && text
                    .split('/')
                    .all(|word| super::on_or_off(word.trim()).is_some())
        };
        match (self.node.bool(), &self.node.value) {
            (Some(value), _) => Some(value),
            (None, Value::Text(text)) if choice(text) => {
                self.problem(format!("'{text}' is a choice: write one of the two"));
                None
            }
            _ => self.expected("on or off"),
        }
    }

    /// A whole number in a range.
    pub(crate) fn integer<T: TryFrom<i128>>(&self, range: RangeInclusive<i128>) -> Option<T> {
        let number = match &self.node.value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) => text.replace('_', "").parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return self.expected("a whole number");
        };
        if range.contains(&number) {
            return T::try_from(number).ok();
        }
        self.problem(match (*range.start(), *range.end()) {
            (least, most) if most > i128::from(u32::MAX) => {
                format!("{number} is less than {least}")
            }
            (least, most) => format!("{number} is not in the range {least} to {most}"),
        });
        None
    }

    pub(crate) fn qos(&self) -> Option<QoS> {
        self.integer::<u8>(0..=2).and_then(QoS::from_u8)
    }

    /// A count where 0 stands for "no limit", as the largest number.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.integer(0..=usize::MAX as i128).map(unlimited)
    }

    /// A number of bytes, with or without a unit: `65536`, `64KiB`, `64k`.
    pub(crate) fn bytes(&self) -> Option<usize> {
        let bytes = match &self.node.value {
            Value::Integer(number) => usize::try_from(*number).ok(),
            Value::Text(text) => parse_bytes(text),
            _ => None,
        };
        bytes.or_else(|| self.expected("a number of bytes such as 65536, 64KiB or 4MiB"))
    }

    /// A number of bytes where 0 stands for "no limit", as the largest number.
    pub(crate) fn bytes_limit(&self) -> Option<usize> {
        self.bytes().map(unlimited)
    }

    /// A time: seconds, or a number with a unit: `90`, `1.5`, `500ms`, `14d`. A range without an end goes to 100 years:
    /// more cannot be added to the time of day.
    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = match &self.node.value {
            Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
            Value::Text(text) => parse_duration(text),
            _ => None,
        };
        let Some(duration) = duration else {
            return self
                .expected("a time in seconds, or with a unit: 500ms, 90s, 15m, 12h, 14d, 2w");
        };
        let (least, most) = (*range.start(), (*range.end()).min(CENTURY));
        if (least..=most).contains(&duration) {
            return Some(duration);
        }
        let most = match most {
            CENTURY => "100 years".to_owned(),
            most => format!("{most:?}"),
        };
        self.problem(format!(
            "{duration:?} is not in the range {least:?} to {most}"
        ));
        None
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        if let Some(text) = self.node.text() {
            let same = |(word, _): &&(&str, T)| same_key(word, &text.to_ascii_lowercase());
            if let Some((_, value)) = choices.iter().find(same) {
                return Some(*value);
            }
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let hint = match &self.node.value {
            Value::Text(text) => nearest(text, &words),
            _ => None,
        };
        let mut what = format!("one of {}", words.join(", "));
        if let Some(word) = hint {
            what.push_str(&format!(" (did you mean {word}?)"));
        }
        self.expected(&what)
    }

    /// The items of a list; a single value counts as a list of one.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        match &self.node.value {
            Value::List(items) => Some(items.iter().map(|node| self.item(node)).collect()),
            Value::Null | Value::Map(_) => self.expected("a list"),
            _ => Some(vec![self.item(self.node)]),
        }
    }

    fn item(&self, node: &'d Node) -> Self {
        Self {
            found: self.found,
            path: self.path.clone(),
            node,
        }
    }

    /// The texts of a list; a single text counts as a list of one.
    pub(crate) fn texts(&self) -> Option<Vec<String>> {
        self.items()?.iter().map(Self::text).collect()
    }

    /// The mapping; nothing counts as an empty one.
    pub(crate) fn section(&self) -> Option<Section<'d>> {
        match &self.node.value {
            Value::Map(_) | Value::Null => {
                Some(Section::new(self.found, self.path.clone(), self.node))
            }
            _ => self.expected("a section of 'key: value' lines"),
        }
    }
}

fn unlimited(number: usize) -> usize {
    if number == 0 { usize::MAX } else { number }
}

fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text);
    let factor: usize = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number
        .replace('_', "")
        .parse::<usize>()
        .ok()?
        .checked_mul(factor)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return None,
    };
    let number: f64 = number.replace('_', "").parse().ok()?;
    // Rounded to milliseconds: 0.1 is not exact in binary.
    Duration::try_from_secs_f64((number * seconds * 1_000.0).round() / 1_000.0).ok()
}

const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    (text[..at].trim(), text[at..].trim())
}

/// The word that differs least from `text`, by two edits at most, and by fewer than half of its letters.
pub(crate) fn nearest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let text = plain(text);
    let candidates = words.iter().filter_map(|word| {
        let distance = edit_distance(&text, &plain(word));
        (distance <= 2 && distance * 2 < word.chars().count()).then_some((distance, *word))
    });
    candidates
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Letters to insert, remove, replace or swap with their neighbour. Texts beyond 64 letters count as far apart.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(65).collect();
    let b: Vec<char> = b.chars().take(65).collect();
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    // Row by row of the table of distances between prefixes; a swap looks two rows back.
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}
