//! The dominator tree read downwards: children of a node, and a tree small enough for a picture.

use rustc_hash::FxHashMap;

use super::graph::Graph;
use super::label::Labels;
use super::snapshot::NodeOrdinal;
use crate::report::{DominatorTree, TreeNode};

/// Boxes of a picture: more cannot be told apart on a screen.
const MAX_BOXES: usize = 2_000;
/// Children shown one by one before the rest is grouped by class.
const SINGLE_CHILDREN: usize = 12;
/// The smallest box, as a share of the heap.
const SMALLEST_SHARE: f64 = 0.0005;

/// For each node, the nodes it immediately dominates.
#[derive(Debug)]
pub struct Dominated {
    first: Vec<u32>,
    node: Vec<u32>,
}

impl Dominated {
    /// Turns the dominators around.
    pub fn new(graph: &Graph) -> Self {
        let nodes = graph.dominator.len();
        let mut first = vec![0_u32; nodes + 2];
        let root = graph.order.first().copied();
        let children = || (0..nodes as u32).filter(|&node| Some(node) != root);
        for node in children() {
            first[graph.dominator[node as usize] as usize + 2] += 1;
        }
        let mut sum = 0;
        for count in &mut first {
            sum += *count;
            *count = sum;
        }
        let mut list = vec![0_u32; sum as usize];
        for node in children() {
            let slot = &mut first[graph.dominator[node as usize] as usize + 1];
            list[*slot as usize] = node;
            *slot += 1;
        }
        first.truncate(nodes + 1);
        Self { first, node: list }
    }

    /// What `node` immediately dominates, by ordinal.
    #[inline]
    pub fn by(&self, node: NodeOrdinal) -> &[u32] {
        &self.node[self.first[node.at()] as usize..self.first[node.at() + 1] as usize]
    }
}

/// Cuts the dominator tree to the largest boxes.
pub fn picture(labels: &Labels<'_>, graph: &Graph, dominated: &Dominated) -> DominatorTree {
    let Some(&root) = graph.order.first() else { return DominatorTree::default() };
    let root = NodeOrdinal(root);
    let smallest = (graph.retained(root) as f64 * SMALLEST_SHARE) as u64 + 1;
    let mut tree = DominatorTree { nodes: vec![single(labels, graph, None, root)] };
    let mut next = 0;
    // Breadth first, so that when boxes run out it is the deep ones that are missing.
    let mut nodes = vec![Some(root)];
    while next < nodes.len() && tree.nodes.len() < MAX_BOXES {
        let parent = next as u32;
        if let Some(node) = nodes[next] {
            for (child, row) in children(labels, graph, dominated, node, parent, smallest) {
                nodes.push(child);
                tree.nodes.push(row);
            }
        }
        next += 1;
    }
    tree
}

fn single(labels: &Labels<'_>, graph: &Graph, parent: Option<u32>, node: NodeOrdinal) -> TreeNode {
    TreeNode {
        parent,
        label: labels.label(node),
        id: Some(u64::from(labels.snapshot.id(node))),
        count: 1,
        shallow_bytes: graph.shallow(node),
        retained_bytes: graph.retained(node),
    }
}

/// The boxes under `node`: its largest children, and the others by class.
fn children(
    labels: &Labels<'_>,
    graph: &Graph,
    dominated: &Dominated,
    node: NodeOrdinal,
    parent: u32,
    smallest: u64,
) -> Vec<(Option<NodeOrdinal>, TreeNode)> {
    let mut all: Vec<NodeOrdinal> =
        dominated.by(node).iter().map(|&child| NodeOrdinal(child)).collect();
    let single_count = SINGLE_CHILDREN.min(all.len());
    if single_count < all.len() {
        all.select_nth_unstable_by_key(single_count, |&child| {
            std::cmp::Reverse(graph.retained(child))
        });
    }
    let (largest, rest) = all.split_at(single_count);
    let mut boxes: Vec<_> = largest
        .iter()
        .filter(|&&child| graph.retained(child) >= smallest)
        .map(|&child| (Some(child), single(labels, graph, Some(parent), child)))
        .collect();
    let mut groups: FxHashMap<(u8, u32), (NodeOrdinal, u64, u64, u64)> = FxHashMap::default();
    for &child in rest {
        let kind = labels.snapshot.kind(child);
        let name = if kind.is_string() { 0 } else { labels.snapshot.name(child).0 };
        let group = groups.entry((kind as u8, name)).or_insert((child, 0, 0, 0));
        group.1 += 1;
        group.2 += graph.shallow(child);
        group.3 += graph.retained(child);
    }
    for (child, count, shallow_bytes, retained_bytes) in groups.into_values() {
        if retained_bytes >= smallest {
            let class = labels.class_name(child);
            let label = format!("{count} × {class}");
            let parent = Some(parent);
            boxes.push((
                None,
                TreeNode { parent, label, id: None, count, shallow_bytes, retained_bytes },
            ));
        }
    }
    boxes.sort_by(|(_, a), (_, b)| {
        b.retained_bytes.cmp(&a.retained_bytes).then_with(|| a.label.cmp(&b.label))
    });
    boxes
}
