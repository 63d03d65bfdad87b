//! Immediate dominators of a flow graph by the semi-NCA algorithm.
//!
//! Semi-NCA (Georgiadis, Linear-Time Algorithms for Dominators and Related Problems, 2005; the choice of
//! LLVM and GCC) computes semidominators with path compression and then finds each dominator as the
//! nearest common ancestor of parent and semidominator: no buckets, half the arrays of Lengauer-Tarjan,
//! the same answer. It knows nothing of heaps; which edges count is the caller's choice.

use super::bits::Bits;

const NONE: u32 = u32::MAX;

/// Edges in both directions; the forward ones hold more than count.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// Where each node's edges begin, with one more entry for the end.
    pub first: &'a [u32],
    /// Targets of the edges.
    pub target: &'a [u32],
    /// Which edges count.
    pub essential: &'a Bits,
}

/// Essential edges backwards: for each node the nodes they come from.
#[derive(Debug, Default)]
pub struct Retainers {
    /// Where each node's retainers begin, with one more entry for the end.
    pub first: Vec<u32>,
    /// The retainers.
    pub source: Vec<u32>,
}

impl Flow<'_> {
    fn node_count(&self) -> usize {
        self.first.len().saturating_sub(1)
    }

    /// Turns the essential edges around. Retainers of a node stand in the order of their ordinals.
    pub fn retainers(&self) -> Retainers {
        let nodes = self.node_count();
        // Counts, shifted by one so that the running sum leaves each node's beginning in place while
        // filling moves it to its end, which is the next node's beginning.
        let mut first = vec![0_u32; nodes + 2];
        for (edge, &target) in self.target.iter().enumerate() {
            if self.essential.contains(edge) {
                first[target as usize + 2] += 1;
            }
        }
        let mut sum = 0;
        for count in &mut first {
            sum += *count;
            *count = sum;
        }
        let mut source = vec![0_u32; sum as usize];
        for node in 0..nodes {
            let edges = self.first[node] as usize..self.first[node + 1] as usize;
            for (edge, &target) in edges.clone().zip(&self.target[edges]) {
                if self.essential.contains(edge) {
                    let slot = &mut first[target as usize + 1];
                    source[*slot as usize] = node as u32;
                    *slot += 1;
                }
            }
        }
        first.truncate(nodes + 1);
        Retainers { first, source }
    }
}

impl Retainers {
    /// The retainers of `node`, in the order of their ordinals.
    #[inline(always)]
    pub fn of(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.source[self.first[node] as usize..self.first[node + 1] as usize]
    }
}

/// A depth-first numbering of all nodes.
#[derive(Debug)]
pub struct Preorder {
    /// Number of each node.
    number: Vec<u32>,
    /// Node of each number.
    order: Vec<u32>,
    /// Number of the parent of each number.
    parent: Vec<u32>,
    /// How many nodes the root reaches.
    reached: usize,
    /// From this number on, nodes belong to cliques that only retain one another.
    stranded: usize,
}

/// The dominator tree.
#[derive(Debug, Default)]
pub struct Dominators {
    /// The immediate dominator of each node; the root's is itself.
    pub dominator: Vec<u32>,
    /// All nodes, dominators before what they dominate.
    pub order: Vec<u32>,
    /// How many nodes the root reaches; those after it in `order` hang on the root by rule.
    pub reached: usize,
}

impl Preorder {
    /// Numbers all nodes from `root`; then, as DevTools does, from each node without retainers; and
    /// last each node that is left by itself.
    pub fn new(flow: Flow<'_>, retainers_first: &[u32], root: u32) -> Self {
        let nodes = flow.node_count();
        let mut walk = Walk {
            flow,
            stack: Vec::new(),
            preorder: Self {
                number: vec![NONE; nodes],
                order: Vec::with_capacity(nodes),
                parent: Vec::with_capacity(nodes),
                reached: 0,
                stranded: 0,
            },
        };
        walk.from(root);
        walk.preorder.reached = walk.preorder.order.len();
        if walk.preorder.reached < nodes {
            for node in 0..nodes {
                let retained = retainers_first[node] != retainers_first[node + 1];
                if !retained && walk.preorder.number[node] == NONE {
                    walk.from(node as u32);
                }
            }
        }
        walk.preorder.stranded = walk.preorder.order.len();
        if walk.preorder.stranded < nodes {
            for node in 0..nodes as u32 {
                if walk.preorder.number[node as usize] == NONE {
                    walk.preorder.enter(node, 0);
                }
            }
        }
        walk.preorder
    }

    #[inline(always)]
    fn enter(&mut self, node: u32, parent: u32) {
        self.number[node as usize] = self.order.len() as u32;
        self.order.push(node);
        self.parent.push(parent);
    }
}

struct Walk<'a> {
    flow: Flow<'a>,
    /// Number of a node and the next of its edges to look at.
    stack: Vec<(u32, u32)>,
    preorder: Preorder,
}

impl Walk<'_> {
    fn from(&mut self, start: u32) {
        let Flow { first, target, essential } = self.flow;
        self.preorder.enter(start, 0);
        self.stack.push((start, first[start as usize]));
        while let Some((node, next)) = self.stack.last_mut() {
            let end = first[*node as usize + 1];
            let mut edge = *next;
            let mut child = NONE;
            while edge < end {
                let candidate = target[edge as usize];
                edge += 1;
                if self.preorder.number[candidate as usize] == NONE
                    && essential.contains(edge as usize - 1)
                {
                    child = candidate;
                    break;
                }
            }
            *next = edge;
            if child == NONE {
                self.stack.pop();
            } else {
                let parent = self.preorder.number[*node as usize];
                self.preorder.enter(child, parent);
                self.stack.push((child, first[child as usize]));
            }
        }
    }
}

/// Computes the dominator tree of all nodes.
///
/// Nodes that the root does not reach follow DevTools' rules: a node without retainers counts as a child of
/// the root; so does each member of a clique that only retains itself, and as a retainer such a member
/// counts for nobody else.
pub fn dominators(retainers: &Retainers, preorder: Preorder) -> Dominators {
    let Preorder { number, order, parent, reached, stranded } = preorder;
    let nodes = order.len();
    let mut ancestor = parent.clone();
    let mut label: Vec<u32> = (0..nodes as u32).collect();
    let mut semi = vec![0_u32; nodes];
    let mut path: Vec<u32> = Vec::new();
    for vertex in (1..stranded as u32).rev() {
        let mut semidominator = parent[vertex as usize];
        for &source in retainers.of(order[vertex as usize]) {
            let source = number[source as usize];
            let candidate = if source <= vertex {
                source
            } else if source as usize >= stranded {
                continue;
            } else {
                evaluate(source, vertex, &mut ancestor, &mut label, &mut path)
            };
            semidominator = semidominator.min(candidate);
        }
        semi[vertex as usize] = semidominator;
        label[vertex as usize] = semidominator;
    }
    drop(ancestor);
    drop(label);
    let mut dominator = parent;
    for vertex in 1..stranded {
        let semidominator = semi[vertex];
        let mut candidate = dominator[vertex];
        while candidate > semidominator {
            candidate = dominator[candidate as usize];
        }
        dominator[vertex] = candidate;
    }
    drop(semi);
    // From numbers to nodes; the numbering's own memory is reused.
    let mut by_node = number;
    for (vertex, &node) in order.iter().enumerate() {
        by_node[node as usize] = order[dominator[vertex] as usize];
    }
    Dominators { dominator: by_node, order, reached }
}

/// The smallest semidominator on the path from `vertex` up to, and without, the first vertex not above
/// `linked`; shortens that path.
#[inline]
fn evaluate(
    vertex: u32,
    linked: u32,
    ancestor: &mut [u32],
    label: &mut [u32],
    path: &mut Vec<u32>,
) -> u32 {
    let mut top = vertex;
    let mut above = ancestor[top as usize];
    if above <= linked {
        return label[top as usize];
    }
    while above > linked {
        path.push(top);
        top = above;
        above = ancestor[top as usize];
    }
    let mut best = label[top as usize];
    while let Some(below) = path.pop() {
        let own = &mut label[below as usize];
        best = best.min(*own);
        *own = best;
        ancestor[below as usize] = above;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Drawn {
        first: Vec<u32>,
        target: Vec<u32>,
        essential: Bits,
    }

    impl Drawn {
        fn new(nodes: usize, edges: &[(usize, usize)]) -> Self {
            let mut first = vec![0];
            let mut target = Vec::new();
            for node in 0..nodes {
                target.extend(edges.iter().filter(|edge| edge.0 == node).map(|edge| edge.1 as u32));
                first.push(target.len() as u32);
            }
            let mut essential = Bits::new(target.len());
            (0..target.len()).for_each(|edge| essential.insert(edge));
            Self { first, target, essential }
        }

        fn dominators(&self) -> Dominators {
            let flow =
                Flow { first: &self.first, target: &self.target, essential: &self.essential };
            let retainers = flow.retainers();
            dominators(&retainers, Preorder::new(flow, &retainers.first, 0))
        }
    }

    fn reached(
        nodes: usize,
        edges: &[(usize, usize)],
        roots: &[usize],
        without: usize,
    ) -> Vec<bool> {
        let mut seen = vec![false; nodes];
        let mut stack: Vec<usize> = roots.iter().copied().filter(|&node| node != without).collect();
        while let Some(node) = stack.pop() {
            if !std::mem::replace(&mut seen[node], true) {
                let next = edges.iter().filter(|edge| edge.0 == node && edge.1 != without);
                stack.extend(next.map(|edge| edge.1));
            }
        }
        seen
    }

    /// The definition: d dominates n when no path reaches n without d; the immediate dominator is the
    /// dominator that all the others dominate.
    fn naive(nodes: usize, edges: &[(usize, usize)]) -> Vec<u32> {
        let from_root = reached(nodes, edges, &[0], nodes);
        let orphans = (0..nodes).filter(|&node| !edges.iter().any(|edge| edge.1 == node));
        let roots: Vec<usize> =
            std::iter::once(0).chain(orphans.filter(|&node| !from_root[node])).collect();
        let all = reached(nodes, edges, &roots, nodes);
        let dominated: Vec<Vec<bool>> = (0..nodes)
            .map(|node| {
                let without = reached(nodes, edges, &roots, node);
                (0..nodes).map(|other| all[other] && !without[other] && other != node).collect()
            })
            .collect();
        (0..nodes)
            .map(|node| {
                let dominators = (1..nodes).filter(|&other| dominated[other][node]);
                // Cliques that nothing reaches hang on the root.
                let nearest = dominators.max_by_key(|&other| {
                    (1..nodes).filter(|&above| dominated[above][other]).count()
                });
                if all[node] { nearest.unwrap_or(0) as u32 } else { 0 }
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
        #[test]
        fn dominators_equal_the_naive_definition(
            nodes in 1_usize..14,
            raw in proptest::collection::vec((0_usize..14, 0_usize..14), 0..40),
        ) {
            let edges: Vec<_> = raw
                .iter()
                .map(|&(from, to)| (from % nodes, to % nodes))
                .filter(|(from, to)| from != to)
                .collect();
            let found = Drawn::new(nodes, &edges).dominators();
            prop_assert_eq!(&found.dominator, &naive(nodes, &edges));
            // Dominators stand before what they dominate.
            let place = |node: u32| found.order.iter().position(|&each| each == node);
            for node in 1..nodes as u32 {
                prop_assert!(place(found.dominator[node as usize]) < place(node));
            }
        }
    }

    //        0
    //       / \
    //      1   2      5 <-> 6 -> 3
    //       \ / \
    //        3   4
    #[test]
    fn a_clique_hangs_on_the_root_and_retains_nobody_else() {
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (5, 6), (6, 5), (6, 4)];
        let found = Drawn::new(7, &edges).dominators();
        assert_eq!(found.dominator, [0, 0, 0, 0, 2, 0, 0]);
        assert_eq!(found.reached, 5);
    }
}
