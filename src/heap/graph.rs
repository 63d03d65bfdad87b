//! What follows from a snapshot's columns: which edges retain, retainers, dominators, shallow and
//! retained sizes, distances.
//!
//! Every rule here is that of Chrome DevTools' heap-snapshot worker (front_end/entrypoints/
//! heap_snapshot_worker/HeapSnapshot.ts, the functions named below), so that the figures equal its own
//! for every node. Sizes of 4 GB and more are the exception: DevTools cuts them to 32 bits.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use super::bits::Bits;
use super::dominators::{Flow, Preorder, Retainers, dominators};
use super::snapshot::{EdgeKind, NodeKind, NodeOrdinal, Snapshot, StringIndex, decode};

/// The distance of a node that nothing reaches (DevTools' `noDistance`).
pub const NO_DISTANCE: i32 = -5;
/// The distance of the root itself, when there are user roots: what only the system reaches lies beyond.
pub const BASE_SYSTEM_DISTANCE: i32 = 100_000_000;

/// The graph of one snapshot.
#[derive(Debug)]
pub struct Graph {
    /// Essential edges: those that retain.
    pub essential: Bits,
    /// Essential edges backwards.
    pub retainers: Retainers,
    /// Immediate dominator of each node; the root's is itself.
    pub dominator: Vec<u32>,
    /// All nodes, dominators before what they dominate.
    pub order: Vec<u32>,
    /// Nodes that the root does not reach.
    pub unreachable: usize,
    /// Shallow sizes: self sizes, with what an object owns alone added to it.
    pub shallow: Vec<u64>,
    /// Retained sizes.
    pub retained: Vec<u64>,
    /// Distances; see [`NO_DISTANCE`] and [`BASE_SYSTEM_DISTANCE`].
    pub distance: Vec<i32>,
}

/// How much work [`Graph::new`] may do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallelism {
    /// One thread.
    Single,
    /// Two threads where steps do not depend on each other; takes some more memory.
    Two,
}

/// Names that the rules look for, as string indices of one file.
struct Names {
    document_dom_trees: Option<StringIndex>,
    external_string: Option<StringIndex>,
    native_context: Option<StringIndex>,
    sloppy_function_map: Option<StringIndex>,
    map_descriptors: Option<StringIndex>,
    /// Edges that stand for one half of a WeakMap entry, by name.
    ephemerons: FxHashMap<u32, Ephemeron>,
}

/// The name of an edge to a WeakMap's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ephemeron {
    /// Id of the WeakMap's table.
    table: u32,
    /// Equal for the edge from the table and the edge from the key.
    pair: u32,
}

impl Graph {
    /// Computes everything.
    pub fn new(snapshot: &Snapshot, parallelism: Parallelism) -> Self {
        if snapshot.node_count() == 0 {
            return Self::empty();
        }
        let names = Names::of(snapshot);
        let essential = essential_edges(snapshot, &names);
        let columns = &snapshot.columns;
        let root = columns.root.0;
        let flow =
            Flow { first: &columns.first_edge, target: &columns.edge_to, essential: &essential };
        let retainers = flow.retainers();
        let preorder = Preorder::new(flow, &retainers.first, root);
        let sizes_and_distances = || (shallow_sizes(snapshot, &names), distances(snapshot, &names));
        let (tree, (shallow, distance)) = match parallelism {
            Parallelism::Single => (dominators(&retainers, preorder), sizes_and_distances()),
            Parallelism::Two => std::thread::scope(|scope| {
                let other = scope.spawn(sizes_and_distances);
                let tree = dominators(&retainers, preorder);
                // A panic over there is this thread's panic.
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                (tree, other)
            }),
        };
        let mut retained = shallow.clone();
        for &node in tree.order.iter().skip(1).rev() {
            retained[tree.dominator[node as usize] as usize] += retained[node as usize];
        }
        let unreachable = snapshot.node_count() - tree.reached;
        let (dominator, order) = (tree.dominator, tree.order);
        Self { essential, retainers, dominator, order, unreachable, shallow, retained, distance }
    }

    fn empty() -> Self {
        Self {
            essential: Bits::default(),
            retainers: Retainers { first: vec![0], source: Vec::new() },
            dominator: Vec::new(),
            order: Vec::new(),
            unreachable: 0,
            shallow: Vec::new(),
            retained: Vec::new(),
            distance: Vec::new(),
        }
    }

    /// The node's immediate dominator.
    #[inline(always)]
    pub fn dominator(&self, node: NodeOrdinal) -> NodeOrdinal {
        NodeOrdinal(self.dominator[node.at()])
    }

    /// The node's retained size.
    #[inline(always)]
    pub fn retained(&self, node: NodeOrdinal) -> u64 {
        self.retained[node.at()]
    }

    /// The node's shallow size.
    #[inline(always)]
    pub fn shallow(&self, node: NodeOrdinal) -> u64 {
        self.shallow[node.at()]
    }

    /// The distance as DevTools shows it; `None` for what only the system or nothing reaches.
    pub fn distance(&self, node: NodeOrdinal) -> Option<u32> {
        let distance = self.distance[node.at()];
        (distance < BASE_SYSTEM_DISTANCE).then(|| u32::try_from(distance).ok()).flatten()
    }
}

impl Names {
    fn of(snapshot: &Snapshot) -> Self {
        let wanted = [
            "(Document DOM trees)",
            "system / ExternalStringData",
            "system / NativeContext",
            "sloppy_function_map",
            "(map descriptors)",
        ];
        let mut found = [None; 5];
        for index in (0..snapshot.columns.strings.len() as u32).map(StringIndex) {
            let raw = snapshot.raw(index);
            if let Some(place) = wanted.iter().position(|name| name.as_bytes() == raw) {
                found[place] = found[place].or(Some(index));
            }
        }
        let [
            document_dom_trees,
            external_string,
            native_context,
            sloppy_function_map,
            map_descriptors,
        ] = found;
        Self {
            document_dom_trees,
            external_string,
            native_context,
            sloppy_function_map,
            map_descriptors,
            ephemerons: ephemerons(snapshot),
        }
    }
}

/// Finds the edge names of WeakMap entries (`tryParseWeakMapEdgeName`).
fn ephemerons(snapshot: &Snapshot) -> FxHashMap<u32, Ephemeron> {
    let mut found = FxHashMap::default();
    let mut pairs: FxHashMap<&[u8], u32> = FxHashMap::default();
    let text = snapshot.text();
    let range = snapshot.columns.strings_range.clone();
    let Some(strings) = text.get(range.clone()) else { return found };
    for hit in memchr::memmem::find_iter(strings, TABLE) {
        let Some(index) = snapshot.columns.strings.containing(range.start + hit) else { continue };
        if let Some(name) = parse_ephemeron(snapshot.raw(index)) {
            let next = pairs.len() as u32;
            let pair = *pairs.entry(name.pair).or_insert(next);
            found.insert(index.0, Ephemeron { table: name.table, pair });
        }
    }
    found
}

const TABLE: &[u8] = b" pair in WeakMap (table @";

/// An edge name `12 / part of key (K @1) -> value (V @2) pair in WeakMap (table @3)`, taken apart.
struct EphemeronName<'r> {
    /// All but the first number.
    pair: &'r [u8],
    table: u32,
    /// Where the key's name `K` and the value's name `V` stand.
    names: [Range<usize>; 2],
}

/// Reads the name of an ephemeron edge. The same as DevTools' regular expression
/// `^\d+( / part of key \(.*? @\d+\) -> value \(.*? @\d+\) pair in WeakMap \(table @(\d+)\))$`.
fn parse_ephemeron(raw: &[u8]) -> Option<EphemeronName<'_>> {
    const KEY: &[u8] = b" / part of key (";
    const VALUE: &[u8] = b") -> value (";
    let digits = raw.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let pair = &raw[digits..];
    let body = pair.strip_prefix(KEY)?.strip_suffix(b")")?;
    let table_at = memchr::memmem::rfind(body, TABLE)?;
    let table = number_of(&body[table_at + TABLE.len()..])?;
    let key_and_value = &body[..table_at];
    let (value_at, key_length) = memchr::memmem::find_iter(key_and_value, VALUE)
        .find_map(|at| Some((at, name_length(&key_and_value[..at])?)))?;
    let value = &key_and_value[value_at + VALUE.len()..];
    let value_length = name_length(value.strip_suffix(b")")?)?;
    // A dot of the expression matches no line terminator.
    if decode(body).contains(['\n', '\r', '\u{2028}', '\u{2029}']) {
        return None;
    }
    let key_start = digits + KEY.len();
    let value_start = key_start + value_at + VALUE.len();
    let names = [key_start..key_start + key_length, value_start..value_start + value_length];
    Some(EphemeronName { pair, table, names })
}

/// Where the names of key and value stand in the name of an edge to a WeakMap's value; `None` for other names.
pub fn ephemeron_names(raw: &[u8]) -> Option<[Range<usize>; 2]> {
    parse_ephemeron(raw).map(|name| name.names)
}

/// The length of `K` in `K @12`.
fn name_length(raw: &[u8]) -> Option<usize> {
    let digits = raw.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let name = raw[..raw.len() - digits].strip_suffix(b" @")?;
    (digits > 0).then_some(name.len())
}

fn number_of(raw: &[u8]) -> Option<u32> {
    let digits = raw.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(raw).ok()?.parse().ok()).flatten()
}

/// Which nodes the page owns (`markPageOwnedNodes`): what global objects and DOM trees reach.
fn page_owned(snapshot: &Snapshot, names: &Names) -> Bits {
    let mut owned = Bits::new(snapshot.node_count());
    let mut stack = Vec::new();
    let root = snapshot.columns.root;
    for edge in snapshot.edges(root) {
        let target = snapshot.target(edge);
        let entry = match snapshot.edge_kind(edge) {
            EdgeKind::Element => is_document_dom_trees(snapshot, names, target),
            kind => kind == EdgeKind::Shortcut,
        };
        if entry && owned.add(target.at()) {
            stack.push(target);
        }
    }
    while let Some(node) = stack.pop() {
        for edge in snapshot.edges(node) {
            let target = snapshot.target(edge);
            if snapshot.edge_kind(edge) != EdgeKind::Weak && owned.add(target.at()) {
                stack.push(target);
            }
        }
    }
    owned
}

fn is_document_dom_trees(snapshot: &Snapshot, names: &Names, node: NodeOrdinal) -> bool {
    snapshot.kind(node) == NodeKind::Synthetic
        && Some(snapshot.name(node)) == names.document_dom_trees
}

/// Which edges retain (`computeIsEssentialEdge`): no weak ones, no loops, no shortcuts but the root's, none from
/// outside into what the page owns, and of a WeakMap entry's two edges only the key's.
fn essential_edges(snapshot: &Snapshot, names: &Names) -> Bits {
    let owned = page_owned(snapshot, names);
    let mut essential = Bits::new(snapshot.edge_count());
    let columns = &snapshot.columns;
    let root = columns.root;
    for node in snapshot.nodes() {
        let node_owned = owned.contains(node.at());
        for edge in snapshot.edges(node) {
            let target = columns.edge_to[edge];
            let kind = columns.edge_kind[edge];
            let mut retains = kind != EdgeKind::Weak && target != node.0;
            if node != root {
                retains &= kind != EdgeKind::Shortcut;
                retains &= node_owned || !owned.contains(target as usize);
            }
            if kind == EdgeKind::Internal
                && let Some(ephemeron) = names.ephemerons.get(&columns.edge_name[edge])
            {
                retains &= ephemeron.table != snapshot.id(node);
            }
            if retains {
                essential.insert(edge);
            }
        }
    }
    essential
}

/// True when the root holds anything that is no mere group; else the snapshot shows internals as they are.
fn is_user_root(snapshot: &Snapshot, names: &Names, node: NodeOrdinal) -> bool {
    snapshot.kind(node) != NodeKind::Synthetic || is_document_dom_trees(snapshot, names, node)
}

/// Shallow sizes (`calculateShallowSizes`): an internal that one object alone leads to counts for that object.
fn shallow_sizes(snapshot: &Snapshot, names: &Names) -> Vec<u64> {
    const UNVISITED: u32 = u32::MAX;
    const SEVERAL: u32 = u32::MAX - 1;
    let columns = &snapshot.columns;
    let mut sizes: Vec<u64> = columns.self_size.iter().map(|&size| u64::from(size)).collect();
    for (&node, &size) in &columns.large_sizes {
        sizes[node as usize] = size;
    }
    let root = columns.root;
    let mut root_edges = snapshot.edges(root);
    if !root_edges.any(|edge| is_user_root(snapshot, names, snapshot.target(edge))) {
        return sizes;
    }
    let ownable = |node: NodeOrdinal| match snapshot.kind(node) {
        NodeKind::Hidden | NodeKind::Array => true,
        NodeKind::Native => Some(snapshot.name(node)) == names.external_string,
        _ => false,
    };
    let mut owner: Vec<u32> =
        snapshot.nodes().map(|node| if ownable(node) { UNVISITED } else { node.0 }).collect();
    let mut stack = Vec::new();
    for start in snapshot.nodes() {
        // The order of visits does not matter to the result, so each owner is one small flood.
        if owner[start.at()] != start.0 {
            continue;
        }
        stack.push(start);
        while let Some(node) = stack.pop() {
            let own = owner[node.at()];
            for edge in snapshot.edges(node) {
                let target = columns.edge_to[edge];
                let of_target = &mut owner[target as usize];
                if *of_target == target || columns.edge_kind[edge] == EdgeKind::Weak {
                    continue;
                }
                if *of_target == UNVISITED {
                    *of_target = own;
                } else if *of_target == own || *of_target == SEVERAL {
                    continue;
                } else {
                    *of_target = SEVERAL;
                }
                stack.push(NodeOrdinal(target));
            }
        }
    }
    for node in 0..snapshot.node_count() {
        let own = owner[node];
        if own == UNVISITED || own == SEVERAL || own as usize == node {
            continue;
        }
        if columns.node_kind[own as usize] != NodeKind::Synthetic && own != root.0 {
            let moved = std::mem::take(&mut sizes[node]);
            sizes[own as usize] += moved;
        }
    }
    sizes
}

/// Distances (`calculateDistances`): breadth first from the user roots, then from the root.
fn distances(snapshot: &Snapshot, names: &Names) -> Vec<i32> {
    let mut search = Distances {
        snapshot,
        names,
        distance: vec![NO_DISTANCE; snapshot.node_count()],
        queue: Vec::with_capacity(snapshot.node_count()),
        pending: FxHashSet::default(),
    };
    let root = snapshot.columns.root;
    for edge in snapshot.edges(root) {
        let target = snapshot.target(edge);
        if is_user_root(snapshot, names, target) {
            search.distance[target.at()] = 1;
            search.queue.push(target);
        }
    }
    let found_user_roots = !search.queue.is_empty();
    search.run();
    search.distance[root.at()] = if found_user_roots { BASE_SYSTEM_DISTANCE } else { 0 };
    search.queue.clear();
    search.queue.push(root);
    search.run();
    search.distance
}

struct Distances<'s> {
    snapshot: &'s Snapshot,
    names: &'s Names,
    distance: Vec<i32>,
    queue: Vec<NodeOrdinal>,
    /// WeakMap entries of which one edge was seen: the second one counts.
    pending: FxHashSet<u32>,
}

impl Distances<'_> {
    fn run(&mut self) {
        let snapshot = self.snapshot;
        let columns = &snapshot.columns;
        let mut next = 0;
        while let Some(&node) = self.queue.get(next) {
            next += 1;
            let distance = self.distance[node.at()] + 1;
            let name = Some(snapshot.name(node));
            let kind = snapshot.kind(node);
            let native_context = kind == NodeKind::Hidden && name == self.names.native_context;
            let descriptors = kind == NodeKind::Array && name == self.names.map_descriptors;
            for edge in snapshot.edges(node) {
                let edge_kind = columns.edge_kind[edge];
                let target = columns.edge_to[edge] as usize;
                if edge_kind == EdgeKind::Weak || self.distance[target] != NO_DISTANCE {
                    continue;
                }
                if native_context
                    && self.names.sloppy_function_map.is_some()
                    && snapshot.edge_name(edge) == self.names.sloppy_function_map
                {
                    continue;
                }
                if descriptors {
                    // Descriptor arrays are shared between maps: only their two header fields and the
                    // keys' types tell something (crbug.com/413608).
                    if index_of(snapshot, edge).is_some_and(|index| index >= 2 && index % 3 == 1) {
                        continue;
                    }
                } else if edge_kind == EdgeKind::Internal
                    && let Some(ephemeron) = self.names.ephemerons.get(&columns.edge_name[edge])
                    && !self.pending.remove(&ephemeron.pair)
                {
                    self.pending.insert(ephemeron.pair);
                    continue;
                }
                self.distance[target] = distance;
                self.queue.push(NodeOrdinal(target as u32));
            }
        }
    }
}

/// JavaScript's `parseInt(edge.name())`, where that is a number.
fn index_of(snapshot: &Snapshot, edge: usize) -> Option<u64> {
    let Some(name) = snapshot.edge_name(edge) else {
        return Some(u64::from(snapshot.columns.edge_name[edge]));
    };
    let raw = snapshot.raw(name);
    let digits = raw.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&raw[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ephemeron_edge_is_read_as_devtools_reads_it() {
        let name = b"12 / part of key (K @1) -> value (V (x) @2) pair in WeakMap (table @3)";
        let found = parse_ephemeron(name).unwrap();
        assert_eq!(found.table, 3);
        assert_eq!(found.pair, &name[2..]);
        let [key, value] = found.names;
        assert_eq!((&name[key], &name[value]), (&b"K"[..], &b"V (x)"[..]));
        for other in [
            &b"part of key (K @1) -> value (V @2) pair in WeakMap (table @3)"[..],
            b"1 / part of key (K) -> value (V @2) pair in WeakMap (table @3)",
            b"1 / part of key (K @1) -> value (V @2) pair in WeakMap (table @)",
            b"1 / part of key (K @1) -> value (V\\n @2) pair in WeakMap (table @3)",
            b"1 / part of key (K @1) -> value (V @2) pair in WeakMap (table @3) ",
        ] {
            assert!(parse_ephemeron(other).is_none(), "{}", String::from_utf8_lossy(other));
        }
    }
}
