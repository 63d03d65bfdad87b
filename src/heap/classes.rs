//! The class summary: count, shallow and retained sizes of all nodes of one class.

use rustc_hash::FxHashMap;

use super::graph::Graph;
use super::label::Labels;
use super::snapshot::{NodeKind, NodeOrdinal};
use super::tree::Dominated;
use crate::report::{ClassRow, KindRow};

/// All classes, and which one each node is of.
#[derive(Debug)]
pub struct Classes {
    /// Class of each node, as an index into `rows`.
    of_node: Vec<u32>,
    /// The classes, in no order.
    pub rows: Vec<ClassRow>,
}

impl Classes {
    /// Sums all classes up. As in DevTools, a node without shallow size counts for nothing.
    pub fn new(labels: &Labels<'_>, graph: &Graph, dominated: &Dominated) -> Self {
        let snapshot = labels.snapshot;
        let mut by_key: FxHashMap<(NodeKind, u32), u32> = FxHashMap::default();
        let mut by_name: FxHashMap<String, u32> = FxHashMap::default();
        let mut rows: Vec<ClassRow> = Vec::new();
        let mut of_node = Vec::with_capacity(snapshot.node_count());
        for node in snapshot.nodes() {
            let kind = snapshot.kind(node);
            let named = matches!(kind, NodeKind::Object | NodeKind::Native);
            let key = (kind, if named { snapshot.name(node).0 } else { 0 });
            let class = *by_key.entry(key).or_insert_with(|| {
                let name = labels.class_name(node);
                *by_name.entry(name).or_insert_with_key(|name| {
                    rows.push(ClassRow {
                        class_name: name.clone(),
                        count: 0,
                        shallow_bytes: 0,
                        retained_bytes: 0,
                        distance: None,
                    });
                    rows.len() as u32 - 1
                })
            });
            of_node.push(class);
            let shallow = graph.shallow(node);
            if shallow != 0 {
                let row = &mut rows[class as usize];
                row.count += 1;
                row.shallow_bytes += shallow;
                row.distance = match (row.distance, graph.distance(node)) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
        let mut classes = Self { of_node, rows };
        classes.add_retained(graph, dominated);
        classes
    }

    /// The class of a node, as an index into `rows`.
    pub fn of(&self, node: NodeOrdinal) -> usize {
        self.of_node[node.at()] as usize
    }

    /// The rows by retained size, largest first, without those that have no nodes.
    pub fn sorted(&self) -> Vec<ClassRow> {
        let mut rows: Vec<_> = self.rows.iter().filter(|row| row.count > 0).cloned().collect();
        rows.sort_by(|a, b| {
            b.retained_bytes.cmp(&a.retained_bytes).then_with(|| a.class_name.cmp(&b.class_name))
        });
        rows
    }

    /// What a class retains is counted at those of its nodes that no other node of the class dominates
    /// (`calculateClassesRetainedSize`).
    fn add_retained(&mut self, graph: &Graph, dominated: &Dominated) {
        let Some(&root) = graph.order.first() else { return };
        // How many nodes of each class lie on the way down to here.
        let mut above = vec![0_u32; self.rows.len()];
        let mut stack: Vec<(u32, u32)> = Vec::new();
        self.enter(graph, root, &mut above);
        stack.push((root, 0));
        while let Some((node, next)) = stack.last_mut() {
            let children = dominated.by(NodeOrdinal(*node));
            if let Some(&child) = children.get(*next as usize) {
                *next += 1;
                self.enter(graph, child, &mut above);
                stack.push((child, 0));
            } else {
                if graph.shallow[*node as usize] != 0 {
                    above[self.of_node[*node as usize] as usize] -= 1;
                }
                stack.pop();
            }
        }
    }

    #[inline]
    fn enter(&mut self, graph: &Graph, node: u32, above: &mut [u32]) {
        let node = node as usize;
        if graph.shallow[node] != 0 {
            let class = self.of_node[node] as usize;
            if above[class] == 0 {
                self.rows[class].retained_bytes += graph.retained[node];
            }
            above[class] += 1;
        }
    }
}

/// Shallow sizes by node type, largest first.
pub fn kinds(labels: &Labels<'_>, graph: &Graph) -> Vec<KindRow> {
    let mut sums = vec![(0_u64, 0_u64); NodeKind::ALL.len()];
    for node in labels.snapshot.nodes() {
        let sum = &mut sums[labels.snapshot.kind(node) as usize];
        sum.0 += 1;
        sum.1 += graph.shallow(node);
    }
    let mut rows: Vec<_> = NodeKind::ALL
        .iter()
        .zip(sums)
        .filter(|(_, (count, _))| *count > 0)
        .map(|(kind, (count, shallow_bytes))| KindRow {
            node_type: kind.name().to_owned(),
            count,
            shallow_bytes,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.shallow_bytes));
    rows
}
