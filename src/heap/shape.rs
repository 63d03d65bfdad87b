//! What many nodes have in common: the path of classes from the root to them, down the dominator tree.
//!
//! Two nodes are in one group when they are of one class (type, name and place in the code) and their
//! dominators are in one group; a run of up to four classes that repeats on the way down is folded where each link
//! retains the rest of the chain, so that a list of a million links is one group and not a million. A group has a signature that does not
//! depend on node ids nor on string indices, so groups of two snapshots can be compared, whatever
//! processes they come from. Ranking groups is the work of `suspects` and `diff`.

use rustc_hash::FxHashMap;

use super::graph::Graph;
use super::label::Labels;
use super::snapshot::{EdgeKind, Location, NodeKind, NodeOrdinal, StringIndex};

/// The longest run of classes that is recognised as a repetition.
const MAX_PERIOD: usize = 4;

/// An index into [`Shapes::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(pub u32);

/// Nodes that have the same path of classes above them.
#[derive(Debug, Clone)]
pub struct Group {
    /// The group of their dominators; the root's group is its own parent.
    pub parent: GroupIndex,
    /// Their class, as an index into [`Shapes::class_hash`].
    pub class: u32,
    /// How many nodes.
    pub count: u64,
    /// How many of them stand at the beginning of a run: all, but for lists and chains.
    pub heads: u64,
    /// Nodes in its longest run, up to 255: above 1 for lists and chains only.
    pub longest_run: u8,
    /// Bytes retained by the heads.
    pub retained_bytes: u64,
    /// The head that retains most.
    pub example: NodeOrdinal,
    /// The same in another snapshot for the same path of classes.
    pub signature: u64,
}

/// All groups of a snapshot.
#[derive(Debug)]
pub struct Shapes {
    /// Group of each node.
    pub group_of: Vec<u32>,
    /// The groups, parents before children.
    pub groups: Vec<Group>,
    /// Hash of each class, equal in other snapshots.
    pub class_hash: Vec<u64>,
}

/// What makes two nodes of one snapshot of one class: type, name, place in the code, and scope.
type ClassKey = (NodeKind, u32, Option<(u32, u32, u32)>, u64);

impl Shapes {
    /// Groups all nodes.
    pub fn new(labels: &Labels<'_>, graph: &Graph) -> Self {
        let (class_of, class_hash) = classes(labels, graph);
        let mut shapes = Self { group_of: vec![0; class_of.len()], groups: Vec::new(), class_hash };
        let mut index: FxHashMap<(u32, u32), u32> = FxHashMap::default();
        let Some((&root, rest)) = graph.order.split_first() else { return shapes };
        let root_class = class_of[root as usize];
        shapes.groups.push(Group {
            parent: GroupIndex(0),
            class: root_class,
            count: 1,
            heads: 1,
            longest_run: 1,
            retained_bytes: graph.retained[root as usize],
            example: NodeOrdinal(root),
            signature: shapes.class_hash[root_class as usize],
        });
        let mut run = vec![1_u8; class_of.len()];
        for &node in rest {
            let at = node as usize;
            if let Some(earlier) = repeated(&class_of, graph, root, node) {
                let group = shapes.group_of[earlier as usize];
                shapes.group_of[at] = group;
                run[at] = run[earlier as usize].saturating_add(1);
                let group = &mut shapes.groups[group as usize];
                group.count += 1;
                group.longest_run = group.longest_run.max(run[at]);
                continue;
            }
            let parent = shapes.group_of[graph.dominator[at] as usize];
            let class = class_of[at];
            let group = *index.entry((parent, class)).or_insert_with(|| {
                let above = shapes.groups[parent as usize].signature;
                shapes.groups.push(Group {
                    parent: GroupIndex(parent),
                    class,
                    count: 0,
                    heads: 0,
                    longest_run: 1,
                    retained_bytes: 0,
                    example: NodeOrdinal(node),
                    signature: mix(above, shapes.class_hash[class as usize]),
                });
                shapes.groups.len() as u32 - 1
            });
            shapes.group_of[at] = group;
            let group = &mut shapes.groups[group as usize];
            group.count += 1;
            group.heads += 1;
            group.retained_bytes += graph.retained[at];
            if graph.retained[at] > graph.retained(group.example) {
                group.example = NodeOrdinal(node);
            }
        }
        shapes
    }

    /// A group.
    pub fn group(&self, index: GroupIndex) -> &Group {
        &self.groups[index.0 as usize]
    }

    /// The group of a node.
    pub fn of(&self, node: NodeOrdinal) -> GroupIndex {
        GroupIndex(self.group_of[node.at()])
    }

    /// All groups but the root's, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (GroupIndex, &Group)> {
        (0..).map(GroupIndex).zip(&self.groups).skip(1)
    }
}

/// The node above `node` that it repeats: the classes of the last `period` nodes down to it are those of the `period`
/// nodes before them, and it retains at least half of what the earlier one does, as each link of a list does
/// down to the last. (An entry of a dictionary of objects is an object in an object too, but retains little of it.)
/// Neither run may contain the root.
fn repeated(class_of: &[u32], graph: &Graph, root: u32, node: u32) -> Option<u32> {
    let class = |node: u32| class_of[node as usize];
    let up = |node: u32| graph.dominator[node as usize];
    let mut earlier = node;
    for period in 1..=MAX_PERIOD {
        earlier = up(earlier);
        if earlier == root {
            return None;
        }
        let link = 2 * graph.retained[node as usize] >= graph.retained[earlier as usize];
        if class(earlier) != class(node) || !link {
            continue;
        }
        let (mut low, mut high) = (node, earlier);
        let alike = (1..period).all(|_| {
            (low, high) = (up(low), up(high));
            high != root && class(low) == class(high)
        });
        if alike {
            return Some(earlier);
        }
    }
    None
}

/// What contexts add to classes: a context is told by the names of its variables, and what a context alone holds
/// by the name of the variable. All contexts would be one class otherwise, and all arrays of an app's modules one group.
fn scopes(labels: &Labels<'_>, graph: &Graph) -> FxHashMap<u32, u64> {
    let snapshot = labels.snapshot;
    let mut scopes = FxHashMap::default();
    let Some(context) = labels.known("system / Context") else { return scopes };
    for node in snapshot.nodes().filter(|&node| snapshot.name(node) == context) {
        let mut names = mix(1, 0);
        for edge in
            snapshot.edges(node).filter(|&edge| snapshot.edge_kind(edge) == EdgeKind::Context)
        {
            let name = snapshot.edge_name(edge).map_or(0, |name| hash_bytes(snapshot.raw(name)));
            names = mix(names, name);
            let target = snapshot.target(edge);
            if graph.dominator(target) == node && snapshot.name(target) != context {
                scopes.insert(target.0, name);
            }
        }
        scopes.insert(node.0, names);
    }
    scopes
}

/// Class of each node, and the hash of each class.
fn classes(labels: &Labels<'_>, graph: &Graph) -> (Vec<u32>, Vec<u64>) {
    let snapshot = labels.snapshot;
    let scopes = scopes(labels, graph);
    let mut index: FxHashMap<ClassKey, u32> = FxHashMap::default();
    let mut hashes = Vec::new();
    let mut class_of = Vec::with_capacity(snapshot.node_count());
    let mut locations = snapshot.columns.locations.iter().peekable();
    for node in snapshot.nodes() {
        while locations.next_if(|location| location.node < node).is_some() {}
        let location = locations.next_if(|location| location.node == node);
        let kind = snapshot.kind(node);
        let name = if named(kind) { snapshot.name(node).0 } else { 0 };
        let place = location.map(|location| (location.script_id, location.line, location.column));
        let scope = scopes.get(&node.0).copied().unwrap_or(0);
        let class = *index.entry((kind, name, place, scope)).or_insert_with(|| {
            hashes.push(mix(scope, class_hash(labels, kind, StringIndex(name), location)));
            hashes.len() as u32 - 1
        });
        class_of.push(class);
    }
    (class_of, hashes)
}

/// True when the name tells a class: a string's is its text, a number's its value.
fn named(kind: NodeKind) -> bool {
    !(kind.is_string()
        || matches!(
            kind,
            NodeKind::Number | NodeKind::BigInt | NodeKind::Symbol | NodeKind::RegExp
        ))
}

fn class_hash(
    labels: &Labels<'_>,
    kind: NodeKind,
    name: StringIndex,
    location: Option<&Location>,
) -> u64 {
    let mut hash = mix(0, kind as u64);
    if named(kind) {
        hash = mix(hash, hash_bytes(labels.snapshot.raw(name)));
    }
    if let Some(location) = location {
        let script = labels.script_name(location.script_id).unwrap_or_default();
        hash = mix(hash, hash_bytes(script.as_bytes()));
        hash = mix(hash, (u64::from(location.line) << 32) | u64::from(location.column));
    }
    hash
}

/// Two words into one: a 128-bit product folded, as in wyhash. Not against malice, only against chance.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    (product as u64 ^ (product >> 64) as u64).wrapping_add(a.rotate_left(23))
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(mix(0, bytes.len() as u64), |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash, u64::from_le_bytes(word))
    })
}
