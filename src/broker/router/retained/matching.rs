//! The retained topics that match a filter with wildcards, in order.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;

use crate::proto::TopicFilter;

/// Walks the ordered topics and jumps over those that cannot match.
///
/// ```text
///   a/+/c    a  ─jump─► below a:  a/b  ─jump─► a/b/c  found  a/b/d  ─jump─► after all below a/b:  a/x …  b  end
/// ```
#[derive(Debug)]
pub(super) struct Matching<'a> {
    ordered: &'a BTreeMap<Box<[u8]>, usize>,
    range: Range<'a, Box<[u8]>, usize>,
    filter: &'a TopicFilter,
    /// The key to jump to.
    target: Vec<u8>,
    ended: bool,
}

/// What a topic means for the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Match,
    /// Nothing before `target` matches.
    Jump,
    /// Nothing from here on matches.
    End,
}

impl<'a> Matching<'a> {
    pub(super) fn new(
        ordered: &'a BTreeMap<Box<[u8]>, usize>,
        filter: &'a TopicFilter,
        after: Option<&[u8]>,
    ) -> Self {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Self {
            ordered,
            range: ordered.range::<[u8], _>((from, Bound::Unbounded)),
            filter,
            target: Vec::new(),
            ended: false,
        }
    }
}

impl Iterator for Matching<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while !self.ended {
            let (key, place) = self.range.next()?;
            match step(self.filter, key, &mut self.target) {
                Step::Match => return Some(*place),
                Step::Jump => {
                    debug_assert!(&**key < self.target.as_slice(), "a jump leads forward");
                    let from = Bound::Included(self.target.as_slice());
                    self.range = self.ordered.range::<[u8], _>((from, Bound::Unbounded));
                }
                Step::End => self.ended = true,
            }
        }
        None
    }
}

/// Compares the topic `key` with `filter`, and sets `target` for a jump.
fn step(filter: &TopicFilter, key: &[u8], target: &mut Vec<u8>) -> Step {
    let mut levels = filter.levels();
    // Where the level of the key starts that is looked at; `None` after its last one.
    let mut start = Some(0);
    // Where the last level ends that a `+` stood for: its text may be a greater one.
    let mut free_end = None;
    while let Some(level) = levels.next() {
        let Some(from) = start else {
            if level == "#" {
                return Step::Match; // `a/#` matches `a`
            }
            return jump_below(key, level, levels, target);
        };
        let rest = key.get(from..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == 0);
        let (text, end) = match length {
            Some(length) => (rest.get(..length).unwrap_or_default(), from + length),
            None => (rest, key.len()),
        };
        if from == 0 && matches!(level, "#" | "+") && text.first() == Some(&b'$') {
            target.clear();
            target.push(b'$' + 1);
            return Step::Jump; // [MQTT-4.7.2-1]
        }
        match level {
            "#" => return Step::Match,
            "+" => free_end = Some(end),
            literal => match text.cmp(literal.as_bytes()) {
                Ordering::Equal => {}
                Ordering::Less => {
                    target.clear();
                    target.extend_from_slice(key.get(..from).unwrap_or_default());
                    append(target, literal, levels);
                    return Step::Jump;
                }
                Ordering::Greater => return jump_past(key, free_end, target),
            },
        }
        start = length.map(|_| end + 1);
    }
    match start {
        None => Step::Match,
        Some(_) => jump_past(key, free_end, target), // the topic has more levels
    }
}

/// To the first topic below `key` that has the levels `level` and `more`.
fn jump_below<'a>(
    key: &[u8],
    level: &str,
    more: impl Iterator<Item = &'a str>,
    target: &mut Vec<u8>,
) -> Step {
    target.clear();
    target.extend_from_slice(key);
    target.push(0);
    if level != "+" {
        append(target, level, more);
    }
    Step::Jump
}

/// Past all topics that agree with `key` up to `free_end`, where a `+` allows another text.
fn jump_past(key: &[u8], free_end: Option<usize>, target: &mut Vec<u8>) -> Step {
    let Some(end) = free_end else {
        return Step::End;
    };
    target.clear();
    target.extend_from_slice(key.get(..end).unwrap_or_default());
    target.push(1); // above the separator, and not above any other byte
    Step::Jump
}

/// Appends the literal levels up to the first wildcard.
fn append<'a>(target: &mut Vec<u8>, literal: &str, more: impl Iterator<Item = &'a str>) {
    target.extend_from_slice(literal.as_bytes());
    for level in more.take_while(|level| !matches!(*level, "+" | "#")) {
        target.push(0);
        target.extend_from_slice(level.as_bytes());
    }
}
