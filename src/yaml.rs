//! YAML as a tree that keeps duplicate keys and the order of the file, and knows where each value stands.
//!
//! `serde_yaml` reads YAML 1.2: `on` is a text there, duplicate keys are an error, and a value's line is told only in an
//! error. So the text is read into [`Node`]s, and what they mean is decided here: [`on_or_off`] reads switches,
//! `-` and `_` are alike in keys, and [`Document::place`] finds a node's line by reading the text once more.

mod error;
mod node;
#[cfg_attr(
    not(feature = "broker"),
    allow(
        dead_code,
        reason = "some kinds of values stand in the broker's settings only"
    )
)]
mod section;

pub use error::{ConfigError, Problem};
pub use node::{Document, Entry, Node, NodeId, Value, on_or_off};
pub(crate) use section::{Field, Findings, Section, nearest};

#[cfg(test)]
mod tests;
