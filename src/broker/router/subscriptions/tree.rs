//! The filters with wildcards, as a tree of their levels.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use slab::Slab;

use super::{FilterId, index, key};
use crate::proto::TopicFilter;
use crate::proto::topic::{is_reserved, levels};

type NodeId = u32;
type Symbol = u32;

/// Wildcard filters by their levels. A level's text is kept once, as a symbol; a step down by a literal level is one
/// lookup of (node, symbol).
///
/// Source: MQTT 5.0 §4.7.
#[derive(Debug)]
pub(super) struct FilterTree {
    nodes: Slab<Node>,
    root: NodeId,
    children: HashMap<(NodeId, Symbol), NodeId, RandomState>,
    symbols: Symbols,
    /// What is still to be visited: a node and how many levels of the topic lead to it.
    pending: Vec<(NodeId, usize)>,
    /// The symbols of the topic's levels, as far as they were needed.
    topic: Vec<Option<Symbol>>,
    path: Vec<Step>,
}

/// A position between two levels.
#[derive(Debug, Default)]
struct Node {
    /// The filter that ends here.
    here: Option<FilterId>,
    /// The filter that goes on with `#` only.
    below: Option<FilterId>,
    /// Where `+` leads.
    plus: Option<NodeId>,
    /// How many literal levels lead on.
    children: u32,
}

/// How a filter leads from one node to the next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Plus(NodeId),
    Literal(NodeId, Symbol),
}

impl FilterTree {
    pub(super) fn new() -> Self {
        let mut nodes = Slab::new();
        let root = index(nodes.insert(Node::default()));
        Self {
            nodes,
            root,
            children: HashMap::default(),
            symbols: Symbols::default(),
            pending: Vec::new(),
            topic: Vec::new(),
            path: Vec::new(),
        }
    }

    /// Adds a filter that is not there.
    pub(super) fn insert(&mut self, filter: &TopicFilter, id: FilterId) {
        let mut node = self.root;
        for level in filter.levels() {
            node = match level {
                "#" => {
                    self.nodes[key(node)].below = Some(id);
                    return;
                }
                "+" => self.make_plus(node),
                literal => self.make_child(node, literal),
            };
        }
        self.nodes[key(node)].here = Some(id);
    }

    /// Removes a filter that is there, and the nodes that only it needed.
    pub(super) fn remove(&mut self, filter: &TopicFilter) {
        let mut node = self.root;
        self.path.clear();
        for level in filter.levels() {
            let step = match level {
                "#" => break,
                "+" => self.nodes[key(node)].plus.map(|_| Step::Plus(node)),
                literal => self
                    .symbols
                    .find(literal)
                    .map(|symbol| Step::Literal(node, symbol)),
            };
            let Some((step, next)) = step.and_then(|step| Some((step, self.follow(step)?))) else {
                debug_assert!(false, "a filter is removed once");
                return;
            };
            self.path.push(step);
            node = next;
        }
        let end = &mut self.nodes[key(node)];
        if filter.as_str().ends_with('#') {
            end.below = None;
        } else {
            end.here = None;
        }
        self.prune(node, filter);
    }

    /// Appends all filters that match `topic`.
    pub(super) fn collect(&mut self, topic: &str, matched: &mut Vec<FilterId>) {
        if self.nodes.len() == 1 && self.nodes[key(self.root)].is_unused() {
            return;
        }
        let mut levels = levels(topic);
        self.topic.clear();
        self.pending.clear();
        self.pending.push((self.root, 0));
        while let Some((id, depth)) = self.pending.pop() {
            let node = &self.nodes[key(id)];
            if depth == self.topic.len() {
                match levels.next() {
                    Some(level) => self.topic.push(self.symbols.find(level)),
                    None => {
                        // `a/#` matches `a` too.
                        matched.extend(node.here.into_iter().chain(node.below));
                        continue;
                    }
                }
            }
            let wildcards = depth > 0 || !is_reserved(topic); // [MQTT-4.7.2-1]
            if wildcards {
                matched.extend(node.below);
                self.pending.extend(node.plus.map(|plus| (plus, depth + 1)));
            }
            if node.children > 0
                && let Some(Some(symbol)) = self.topic.get(depth)
                && let Some(child) = self.children.get(&(id, *symbol))
            {
                self.pending.push((*child, depth + 1));
            }
        }
    }

    fn make_plus(&mut self, node: NodeId) -> NodeId {
        if let Some(plus) = self.nodes[key(node)].plus {
            return plus;
        }
        let plus = index(self.nodes.insert(Node::default()));
        self.nodes[key(node)].plus = Some(plus);
        plus
    }

    fn make_child(&mut self, node: NodeId, literal: &str) -> NodeId {
        if let Some(symbol) = self.symbols.find(literal)
            && let Some(child) = self.children.get(&(node, symbol))
        {
            return *child;
        }
        let symbol = self.symbols.take(literal);
        let child = index(self.nodes.insert(Node::default()));
        self.children.insert((node, symbol), child);
        self.nodes[key(node)].children += 1;
        child
    }

    fn follow(&self, step: Step) -> Option<NodeId> {
        match step {
            Step::Plus(node) => self.nodes[key(node)].plus,
            Step::Literal(node, symbol) => self.children.get(&(node, symbol)).copied(),
        }
    }

    /// Removes `node` and its parents, up to the first that is needed. `path` leads to it by the levels of `filter`.
    fn prune(&mut self, mut node: NodeId, filter: &TopicFilter) {
        // The levels back to front: the last one that the path took is dropped first.
        let mut literals = filter.as_str().rsplit('/').filter(|level| *level != "#");
        while let (true, Some(step), Some(level)) = (
            self.nodes[key(node)].is_unused(),
            self.path.pop(),
            literals.next(),
        ) {
            self.nodes.remove(key(node));
            node = match step {
                Step::Plus(parent) => {
                    self.nodes[key(parent)].plus = None;
                    parent
                }
                Step::Literal(parent, symbol) => {
                    self.children.remove(&(parent, symbol));
                    self.symbols.release(level);
                    self.nodes[key(parent)].children -= 1;
                    parent
                }
            };
        }
    }

    /// How many nodes and symbols there are, for tests: removing all filters leaves the root.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize, usize) {
        (
            self.nodes.len(),
            self.children.len(),
            self.symbols.by_text.len(),
        )
    }
}

impl Node {
    fn is_unused(&self) -> bool {
        self.here.is_none() && self.below.is_none() && self.plus.is_none() && self.children == 0
    }
}

/// The texts of literal levels, each kept once and counted.
#[derive(Debug, Default)]
struct Symbols {
    by_text: HashMap<Box<str>, Counted, RandomState>,
    free: Vec<Symbol>,
}

#[derive(Debug)]
struct Counted {
    symbol: Symbol,
    uses: u32,
}

impl Symbols {
    fn find(&self, text: &str) -> Option<Symbol> {
        self.by_text.get(text).map(|counted| counted.symbol)
    }

    /// The symbol of `text`, used once more.
    fn take(&mut self, text: &str) -> Symbol {
        if let Some(counted) = self.by_text.get_mut(text) {
            counted.uses += 1;
            return counted.symbol;
        }
        // Without free ones, the symbols in use are 0 to their number.
        let unused = index(self.by_text.len());
        let symbol = self.free.pop().unwrap_or(unused);
        self.by_text
            .insert(text.into(), Counted { symbol, uses: 1 });
        symbol
    }

    fn release(&mut self, text: &str) {
        if let Some(counted) = self.by_text.get_mut(text) {
            counted.uses -= 1;
            if counted.uses == 0 {
                self.free.push(counted.symbol);
                self.by_text.remove(text);
            }
        }
    }
}
