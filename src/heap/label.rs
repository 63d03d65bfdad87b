//! Names for nodes and edges: class names as DevTools groups them, short labels, places in source code.
//!
//! It describes single nodes and knows neither sizes nor paths.

use std::cell::RefCell;

use rustc_hash::FxHashMap;

use super::graph::Graph;
use super::snapshot::{EdgeKind, NodeKind, NodeOrdinal, Snapshot, StringIndex};
use crate::report::{NodeRow, Site};

/// Characters of a heap string that a label shows.
const LABEL_CHARS: usize = 80;

/// A snapshot with the names that describing needs, looked up once.
#[derive(Debug)]
pub struct Labels<'s> {
    /// The snapshot.
    pub snapshot: &'s Snapshot,
    /// Edge names that are followed, by text.
    known: FxHashMap<&'static str, StringIndex>,
    /// File name of each script seen so far; `None` when the snapshot does not tell it.
    scripts: RefCell<FxHashMap<u32, Option<String>>>,
    /// For each script, a closure of it.
    script_closures: FxHashMap<u32, NodeOrdinal>,
}

/// Names of edges and nodes that the analyzer looks for.
const KNOWN: &[&str] = &[
    "shared",
    "script",
    "script_or_debug_info",
    "name",
    "context",
    "previous",
    "table",
    "elements",
    "properties",
    "extension",
    "reactions_or_result",
    "backing_store",
    "buffer",
    "constructor",
    "map",
    "_events",
    "_eventsCount",
    "_onTimeout",
    "_idleNext",
    "_idlePrev",
    "next",
    "system / Context",
    "system / FeedbackVector",
    "system / FeedbackCell",
    "<symbol owner_symbol>",
    "server",
];

impl<'s> Labels<'s> {
    /// Looks the names up.
    pub fn new(snapshot: &'s Snapshot) -> Self {
        let mut known = FxHashMap::default();
        let wanted: FxHashMap<&[u8], &'static str> =
            KNOWN.iter().map(|&name| (name.as_bytes(), name)).collect();
        for index in (0..snapshot.columns.strings.len() as u32).map(StringIndex) {
            if let Some(&name) = wanted.get(snapshot.raw(index)) {
                known.entry(name).or_insert(index);
            }
        }
        let mut script_closures = FxHashMap::default();
        for location in &snapshot.columns.locations {
            if snapshot.kind(location.node) == NodeKind::Closure {
                script_closures.entry(location.script_id).or_insert(location.node);
            }
        }
        Self { snapshot, known, scripts: RefCell::default(), script_closures }
    }

    /// The string index of one of the known names.
    pub fn known(&self, name: &str) -> Option<StringIndex> {
        self.known.get(name).copied()
    }

    /// The target of `node`'s first strong edge called `name`, which must be a known name.
    pub fn follow(&self, node: NodeOrdinal, name: &str) -> Option<NodeOrdinal> {
        let name = self.known(name)?;
        let snapshot = self.snapshot;
        let mut edges = snapshot.edges(node);
        let edge = edges.find(|&edge| {
            snapshot.edge_kind(edge) != EdgeKind::Weak && snapshot.edge_name(edge) == Some(name)
        })?;
        Some(snapshot.target(edge))
    }

    /// The class name by which DevTools groups the node.
    pub fn class_name(&self, node: NodeOrdinal) -> String {
        match self.snapshot.kind(node) {
            NodeKind::Object => self.snapshot.name_of(node).into_owned(),
            NodeKind::Native => {
                // DOM nodes are grouped by tag, without their attributes.
                let name = self.snapshot.name_of(node);
                let from = name.strip_prefix("Detached <").map_or(1, |_| 10);
                match name.find(' ').filter(|_| name.starts_with(['<', 'D'])) {
                    Some(_) if name.starts_with('<') || from == 10 => {
                        let space = name.get(from..).and_then(|rest| rest.find(' '));
                        space.map_or_else(
                            || name.to_string(),
                            |at| format!("{}>", &name[..from + at]),
                        )
                    }
                    _ => name.into_owned(),
                }
            }
            NodeKind::Hidden => "(system)".to_owned(),
            NodeKind::Code => "(compiled code)".to_owned(),
            NodeKind::Closure => "Function".to_owned(),
            NodeKind::RegExp => "RegExp".to_owned(),
            kind => format!("({})", kind.name()),
        }
    }

    /// A short description of the node.
    pub fn label(&self, node: NodeOrdinal) -> String {
        let name = self.snapshot.name_of(node);
        match self.snapshot.kind(node) {
            NodeKind::Closure if name.is_empty() => "function (anonymous)".to_owned(),
            NodeKind::Closure => format!("function {}", shorten(&name)),
            kind if kind.is_string() => format!("{:?}", shorten(&name)),
            NodeKind::Symbol => format!("Symbol({})", shorten(&name)),
            kind if name.is_empty() => format!("({})", kind.name()),
            _ => shorten(&name),
        }
    }

    /// Where the node's code is: of a closure its function, of an object its constructor.
    pub fn site(&self, node: NodeOrdinal) -> Option<Site> {
        let location = self.snapshot.location(node)?;
        let file = self.script_name(location.script_id)?;
        let function = match self.snapshot.kind(node) {
            NodeKind::Closure | NodeKind::Object => self.snapshot.name_of(node).into_owned(),
            _ => String::new(),
        };
        Some(Site {
            file,
            line: location.line.saturating_add(1),
            column: location.column.saturating_add(1),
            function,
        })
    }

    /// The file name of a script, by way of one of its closures.
    pub fn script_name(&self, script_id: u32) -> Option<String> {
        if let Some(name) = self.scripts.borrow().get(&script_id) {
            return name.clone();
        }
        let name = self.script_closures.get(&script_id).and_then(|&closure| {
            let shared = self.follow(closure, "shared")?;
            // Node 18 and 20 have the second name.
            let script = self
                .follow(shared, "script")
                .or_else(|| self.follow(shared, "script_or_debug_info"))?;
            let name = match self.follow(script, "name") {
                Some(name) if self.snapshot.kind(name).is_string() => self.snapshot.name_of(name),
                _ => self.snapshot.name_of(script),
            };
            let name = name.strip_prefix("system / Script / ").unwrap_or(&name);
            (!name.is_empty() && name != "system / Script").then(|| name.to_owned())
        });
        self.scripts.borrow_mut().insert(script_id, name.clone());
        name
    }

    /// The edge as a person writes it.
    pub fn edge(&self, edge: usize) -> String {
        let snapshot = self.snapshot;
        let Some(name) = snapshot.edge_name(edge) else {
            return format!("[{}]", snapshot.columns.edge_name[edge]);
        };
        let name = snapshot.text_of(name);
        match snapshot.edge_kind(edge) {
            EdgeKind::Context => format!("variable {}", shorten(&name)),
            EdgeKind::Internal => format!("<{}>", shorten(&name)),
            EdgeKind::Property if is_identifier(&name) => format!(".{}", shorten(&name)),
            EdgeKind::Property if name.starts_with("<symbol ") => format!("[{}]", shorten(&name)),
            EdgeKind::Property => format!("[{:?}]", shorten(&name)),
            _ => shorten(&name),
        }
    }

    /// Everything a report says about one node.
    pub fn row(&self, graph: &Graph, node: NodeOrdinal) -> NodeRow {
        NodeRow {
            id: u64::from(self.snapshot.id(node)),
            class_name: self.class_name(node),
            label: self.label(node),
            shallow_bytes: graph.shallow(node),
            retained_bytes: graph.retained(node),
            distance: graph.distance(node),
            site: self.site(node),
        }
    }
}

/// True for what can stand after a dot in JavaScript (ASCII only: others are shown in brackets).
pub fn is_identifier(name: &str) -> bool {
    let start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '$' || c == '#';
    name.starts_with(start) && name[1..].chars().all(|c| start(c) && c != '#' || c.is_ascii_digit())
}

/// The text cut to a label's length.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(LABEL_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_told_from_other_keys() {
        for name in ["a", "_events", "$1", "#private"] {
            assert!(is_identifier(name), "{name}");
        }
        for name in ["", "1a", "a-b", "a#", "é"] {
            assert!(!is_identifier(name), "{name}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shorten("é"), "é");
        assert_eq!(shorten(&"é".repeat(90)), format!("{}…", "é".repeat(80)));
    }
}
