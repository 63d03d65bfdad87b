//! Shortest retaining paths, and folding of what repeats in them.
//!
//! A path goes from a node to its retainer with the smallest distance, as DevTools sorts retainers, over
//! essential edges only. It explains one node; what many nodes have in common is `shape`'s work.

use rustc_hash::FxHashSet;

use super::graph::Graph;
use super::label::Labels;
use super::snapshot::NodeOrdinal;
use crate::report::PathStep;

/// Steps beyond which a path is given up: a list of millions folds to one line, but has to be walked.
const MAX_STEPS: usize = 4_000_000;
/// The longest pattern of steps that is recognised as a repetition.
const MAX_PERIOD: usize = 4;

/// Steps of a described path, after folding; of a longer one the middle is left out.
const MAX_DESCRIBED: usize = 400;

/// One step on the way from a root: the edge that was taken (none for the first) and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Index of the edge.
    pub edge: Option<usize>,
    /// The node.
    pub node: NodeOrdinal,
}

/// The retainer of `node` that is nearest to the roots, and its edge; `None` for a root.
pub fn nearest_retainer(
    labels: &Labels<'_>,
    graph: &Graph,
    node: NodeOrdinal,
) -> Option<(NodeOrdinal, usize)> {
    if graph.distance[node.at()] <= 1 || node == labels.snapshot.columns.root {
        return None;
    }
    let retainers = graph.retainers.of(node.0);
    let &retainer = retainers.iter().min_by_key(|&&source| distance_rank(graph, source))?;
    let retainer = NodeOrdinal(retainer);
    Some((retainer, edge_between(labels, graph, retainer, node)?))
}

/// Reached nodes by distance, then those that nothing reaches.
fn distance_rank(graph: &Graph, node: u32) -> u32 {
    u32::try_from(graph.distance[node as usize]).unwrap_or(u32::MAX)
}

/// The first essential edge from one node to another.
pub fn edge_between(
    labels: &Labels<'_>,
    graph: &Graph,
    from: NodeOrdinal,
    to: NodeOrdinal,
) -> Option<usize> {
    let snapshot = labels.snapshot;
    snapshot.edges(from).find(|&edge| snapshot.target(edge) == to && graph.essential.contains(edge))
}

/// The shortest path to `node`, from its root.
pub fn path_to(labels: &Labels<'_>, graph: &Graph, node: NodeOrdinal) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut seen = FxHashSet::default();
    let mut node = node;
    while steps.len() < MAX_STEPS && seen.insert(node) {
        match nearest_retainer(labels, graph, node) {
            Some((retainer, edge)) => {
                steps.push(Step { edge: Some(edge), node });
                node = retainer;
            }
            None => break,
        }
    }
    steps.push(Step { edge: None, node });
    steps.reverse();
    steps
}

/// The path for a report: runs of up to [`MAX_PERIOD`] steps that repeat are folded, and of a long path the
/// middle is left out.
pub fn describe(labels: &Labels<'_>, graph: &Graph, steps: &[Step]) -> Vec<PathStep> {
    let keys: Vec<_> = steps.iter().map(|step| step_key(labels, step)).collect();
    let mut kept = fold(&keys);
    if kept.len() > MAX_DESCRIBED {
        kept.drain(MAX_DESCRIBED / 4..kept.len() - MAX_DESCRIBED * 3 / 4);
    }
    kept.into_iter()
        .map(|(at, repeats)| {
            let step = steps[at];
            PathStep {
                edge_type: step
                    .edge
                    .map(|edge| labels.snapshot.edge_kind(edge).name().to_owned())
                    .unwrap_or_default(),
                edge: step.edge.map(|edge| labels.edge(edge)).unwrap_or_default(),
                node: labels.row(graph, step.node),
                repeats,
            }
        })
        .collect()
}

/// What makes two steps alike: the edge's kind and name (but not its index), and the node's class and code.
fn step_key(labels: &Labels<'_>, step: &Step) -> (u8, u32, u8, u32, u32, u32) {
    let snapshot = labels.snapshot;
    let (edge_kind, edge_name) = step.edge.map_or((u8::MAX, 0), |edge| {
        let name = snapshot.edge_name(edge).map_or(0, |name| name.0);
        (snapshot.edge_kind(edge) as u8, name)
    });
    let kind = snapshot.kind(step.node);
    let name = if kind.is_string() { 0 } else { snapshot.name(step.node).0 };
    let (line, column) =
        snapshot.location(step.node).map_or((0, 0), |place| (place.line, place.column));
    (edge_kind, edge_name, kind as u8, name, line, column)
}

/// Positions that stay, each with how often the steps from it to the next one repeat.
fn fold<K: PartialEq>(keys: &[K]) -> Vec<(usize, u64)> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < keys.len() {
        let run = (1..=MAX_PERIOD)
            .map(|period| {
                let alike =
                    (at + period..keys.len()).take_while(|&next| keys[next] == keys[next - period]);
                (period, alike.count() / period + 1)
            })
            .filter(|&(_, times)| times > 1)
            .max_by_key(|&(period, times)| (period * (times - 1), std::cmp::Reverse(period)));
        let (period, times) = run.unwrap_or((1, 1));
        kept.extend((at..at + period).map(|step| (step, times as u64)));
        at += period * times;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        let keys: Vec<char> = text.chars().collect();
        fold(&keys)
            .iter()
            .map(
                |&(at, times)| {
                    if times > 1 { format!("{}{times}", keys[at]) } else { keys[at].to_string() }
                },
            )
            .collect()
    }

    #[test]
    fn repeated_runs_of_steps_are_folded() {
        assert_eq!(folded(""), "");
        assert_eq!(folded("abc"), "abc");
        assert_eq!(folded("abbbbc"), "ab4c");
        assert_eq!(folded("xabababy"), "xa3b3y");
        assert_eq!(folded("abcdabcd"), "a2b2c2d2");
    }
}
