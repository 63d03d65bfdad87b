//! Puts a report together: from a snapshot to [`Analysis`], from two or three to [`Comparison`].
//!
//! Here is only the order of the steps and what is cut to which length; each step is a module of its own.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::bits::Bits;
use super::classes::{Classes, kinds};
use super::diff::{Base, Latest, class_deltas, growth};
use super::finding;
use super::graph::{Graph, Parallelism};
use super::label::{Labels, shorten};
use super::paths::{describe, path_to};
use super::shape::Shapes;
use super::snapshot::{Completeness, NodeKind, NodeOrdinal, Section, Snapshot};
use super::suspects::suspects;
use super::tree::{Dominated, picture};
use crate::report::{
    Analysis, Comparison, Detail, DominatorTree, DuplicateRow, Finding, Identity, IdentityMode,
    NodeRow, SCHEMA, SnapshotSummary, StringRow, Suspect, Truncation,
};

/// What to put into a report.
#[derive(Debug, Clone)]
pub struct Request {
    /// Rows of each table.
    pub top: usize,
    /// Suspects at most.
    pub suspects: usize,
    /// Nodes whose retaining path is asked for.
    pub paths: Vec<u32>,
    /// Classes that are asked for.
    pub classes: Vec<String>,
    /// How many threads.
    pub parallelism: Parallelism,
}

/// Steps of the work, for whoever shows progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Dominators, sizes, distances.
    Graph,
    /// Classes and groups.
    Classes,
    /// Suspects.
    Suspects,
}

impl Stage {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Graph => "computing dominators, sizes and distances",
            Self::Classes => "summing up classes",
            Self::Suspects => "looking for suspects",
        }
    }
}

/// A finding's file and its content.
pub type FindingFile = (String, Value);

/// Analyses one snapshot.
pub fn analyse(
    file: &str,
    snapshot: &Snapshot,
    graph: &Graph,
    request: &Request,
    findings: &[FindingFile],
    progress: &mut dyn FnMut(Stage),
) -> Analysis {
    let mut notes = Vec::new();
    let labels = Labels::new(snapshot);
    let summary = summary(file, &labels, graph);
    let mut analysis = Analysis {
        schema: SCHEMA,
        snapshot: summary,
        suspects: Vec::new(),
        findings: Vec::new(),
        classes: Vec::new(),
        class_count: 0,
        dominators: Vec::new(),
        strings: Vec::new(),
        duplicate_strings: Vec::new(),
        tree: DominatorTree::default(),
        details: Vec::new(),
        notes: Vec::new(),
    };
    if !has_graph(snapshot) {
        notes.push(
            "the file ends before its edges do, so only the sizes by kind of memory are known: no names, no retained sizes, no suspects"
                .to_owned(),
        );
        analysis.notes = notes;
        return analysis;
    }
    if let Completeness::Truncated { .. } = snapshot.columns.completeness {
        notes.push(
            "names that the file lacks are shown by their type; sizes and dominators are complete"
                .to_owned(),
        );
    }
    progress(Stage::Classes);
    let dominated = Dominated::new(graph);
    let classes = Classes::new(&labels, graph, &dominated);
    progress(Stage::Suspects);
    let shapes = Shapes::new(&labels, graph);
    analysis.suspects = suspects(&labels, graph, &shapes, request.suspects);
    drop(shapes);
    analysis.findings = judged(findings, &labels, &analysis.suspects);
    let rows = classes.sorted();
    analysis.class_count = rows.len();
    for name in &request.classes {
        match class_detail(&labels, graph, &classes, name, request.top) {
            Some(detail) => analysis.details.push(detail),
            None => notes.push(format!("no class is called {name:?}")),
        }
    }
    for &id in &request.paths {
        match snapshot.node_of_id(id) {
            Some(node) => analysis.details.push(Detail::Path {
                node: labels.row(graph, node),
                path: describe(&labels, graph, &path_to(&labels, graph, node)),
            }),
            None => notes.push(format!("no node has the id @{id}")),
        }
    }
    analysis.classes = rows.into_iter().take(request.top).collect();
    analysis.dominators = biggest_dominators(&labels, graph, request.top);
    (analysis.strings, analysis.duplicate_strings) = strings(&labels, graph, request.top);
    analysis.tree = picture(&labels, graph, &dominated);
    analysis.notes = notes;
    analysis
}

/// True when the edges are all there; without them no graph can be computed.
pub fn has_graph(snapshot: &Snapshot) -> bool {
    match snapshot.columns.completeness {
        Completeness::Complete => true,
        Completeness::Truncated { section, .. } => section > Section::Edges,
    }
}

/// An earlier snapshot of a comparison, reduced to what is needed of it.
#[derive(Debug)]
pub struct Earlier {
    /// Its totals.
    pub summary: SnapshotSummary,
    /// What it is compared by.
    pub base: Base,
}

/// Reduces an earlier snapshot.
pub fn earlier(file: &str, snapshot: &Snapshot, graph: &Graph) -> Earlier {
    let labels = Labels::new(snapshot);
    let dominated = Dominated::new(graph);
    let classes = Classes::new(&labels, graph, &dominated);
    drop(dominated);
    let shapes = Shapes::new(&labels, graph);
    Earlier {
        summary: summary(file, &labels, graph),
        base: Base::new(&labels, graph, &shapes, &classes),
    }
}

/// Compares the last of two or three snapshots with the earlier ones, oldest first. `stated` is what the guard's own
/// files say about node ids; without it the snapshots tell.
pub fn compare(
    file: &str,
    snapshot: &Snapshot,
    graph: &Graph,
    earlier: Vec<Earlier>,
    stated: Option<Identity>,
    request: &Request,
    findings: &[FindingFile],
) -> Option<Comparison> {
    let first = earlier.first()?;
    let labels = Labels::new(snapshot);
    let dominated = Dominated::new(graph);
    let classes = Classes::new(&labels, graph, &dominated);
    let shapes = Shapes::new(&labels, graph);
    let identity = stated.unwrap_or_else(|| {
        let found = earlier.iter().map(|each| each.base.fingerprint.identity_with(snapshot));
        // All must be comparable; the reason of the first that is not counts.
        let mut found: Vec<Identity> = found.collect();
        let worst =
            found.iter().position(|identity| identity.by == IdentityMode::Signatures).unwrap_or(0);
        found.swap_remove(worst)
    });
    let last = Latest {
        labels: &labels,
        graph,
        shapes: &shapes,
        classes: &classes,
        dominated: &dominated,
    };
    let middle = earlier.get(1).map(|each| &each.base);
    let suspects = growth(identity.by, &first.base, middle, last, request.suspects);
    let mut deltas = class_deltas(identity.by, &first.base, last);
    let class_count = deltas.len();
    deltas.truncate(request.top);
    let summary = summary(file, &labels, graph);
    let growth_bytes = summary.retained_bytes as i64 - first.base.retained_bytes as i64;
    let judged = judged(findings, &labels, &suspects);
    let mut notes = Vec::new();
    if earlier.len() == 1 {
        notes.push(
            "two snapshots cannot tell a leak from a cache that is still filling; a third one can"
                .to_owned(),
        );
    }
    let tree = picture(&labels, graph, &dominated);
    let mut snapshots: Vec<SnapshotSummary> =
        earlier.into_iter().map(|each| each.summary).collect();
    snapshots.push(summary);
    Some(Comparison {
        schema: SCHEMA,
        snapshots,
        identity,
        growth_bytes,
        suspects,
        findings: judged,
        classes: deltas,
        class_count,
        tree,
        notes,
    })
}

fn judged(findings: &[FindingFile], labels: &Labels<'_>, suspects: &[Suspect]) -> Vec<Finding> {
    findings
        .iter()
        .filter_map(|(file, value)| finding::judge(file, value, labels, suspects))
        .collect()
}

fn summary(file: &str, labels: &Labels<'_>, graph: &Graph) -> SnapshotSummary {
    let snapshot = labels.snapshot;
    let truncated = match snapshot.columns.completeness {
        Completeness::Complete => None,
        Completeness::Truncated { section, offset } => {
            Some(Truncation { section: section.name().to_owned(), offset })
        }
    };
    let self_bytes =
        snapshot.nodes().map(|node| snapshot.self_size(node)).fold(0, u64::saturating_add);
    SnapshotSummary {
        file: file.to_owned(),
        text_bytes: snapshot.text_bytes,
        nodes: snapshot.node_count() as u64,
        edges: snapshot.edge_count() as u64,
        self_bytes,
        retained_bytes: graph.order.first().map_or(0, |&root| graph.retained[root as usize]),
        extra_native_bytes: snapshot.columns.extra_native_bytes,
        unreachable_nodes: graph.unreachable as u64,
        truncated,
        kinds: kinds(labels, graph),
    }
}

fn class_detail(
    labels: &Labels<'_>,
    graph: &Graph,
    classes: &Classes,
    name: &str,
    top: usize,
) -> Option<Detail> {
    let class = classes.rows.iter().position(|row| row.class_name == name)?;
    let mut nodes: Vec<NodeOrdinal> =
        labels.snapshot.nodes().filter(|&node| classes.of(node) == class).collect();
    keep_largest(&mut nodes, top, |&node| graph.retained(node));
    let path = nodes.first().map(|&node| describe(labels, graph, &path_to(labels, graph, node)));
    Some(Detail::Class {
        class: classes.rows[class].clone(),
        largest: nodes.iter().map(|&node| labels.row(graph, node)).collect(),
        path: path.unwrap_or_default(),
    })
}

/// The nodes that retain most, without groups of the heap itself and without mere links, of which one child retains
/// nine tenths.
fn biggest_dominators(labels: &Labels<'_>, graph: &Graph, top: usize) -> Vec<NodeRow> {
    let snapshot = labels.snapshot;
    let mut links = Bits::new(snapshot.node_count());
    for &node in graph.order.iter().skip(1) {
        let above = graph.dominator[node as usize] as usize;
        if graph.retained[node as usize] / 9 >= graph.retained[above] / 10 {
            links.insert(above);
        }
    }
    let mut nodes: Vec<NodeOrdinal> = snapshot
        .nodes()
        .filter(|&node| !links.contains(node.at()) && snapshot.kind(node) != NodeKind::Synthetic)
        .collect();
    keep_largest(&mut nodes, top, |&node| graph.retained(node));
    nodes.into_iter().map(|node| labels.row(graph, node)).collect()
}

/// The largest strings, and those that exist more than once. A snapshot cuts strings at 1,024 characters: longer ones
/// count as equal only when their sizes are equal too.
fn strings(labels: &Labels<'_>, graph: &Graph, top: usize) -> (Vec<StringRow>, Vec<DuplicateRow>) {
    let snapshot = labels.snapshot;
    let mut all: Vec<NodeOrdinal> =
        snapshot.nodes().filter(|&node| snapshot.kind(node) == NodeKind::String).collect();
    let mut copies: FxHashMap<(u32, u32), u32> = FxHashMap::default();
    for &node in &all {
        let size = snapshot.columns.self_size[node.at()];
        *copies.entry((snapshot.name(node).0, size)).or_insert(0) += 1;
    }
    let mut duplicates: Vec<((u32, u32), u32)> =
        copies.into_iter().filter(|&(_, count)| count > 1).collect();
    let wasted = |&((_, size), count): &((u32, u32), u32)| u64::from(size) * u64::from(count - 1);
    keep_largest(&mut duplicates, top, wasted);
    let duplicates = duplicates.iter().map(|row| {
        let &((name, size), count) = row;
        DuplicateRow {
            text: shorten(&snapshot.text_of(super::snapshot::StringIndex(name))),
            count: u64::from(count),
            shallow_bytes: u64::from(size) * u64::from(count),
            wasted_bytes: wasted(row),
        }
    });
    keep_largest(&mut all, top, |&node| graph.retained(node));
    let rows = all.iter().map(|&node| StringRow {
        id: u64::from(snapshot.id(node)),
        text: shorten(&snapshot.name_of(node)),
        shallow_bytes: graph.shallow(node),
        retained_bytes: graph.retained(node),
    });
    (rows.collect(), duplicates.collect())
}

/// Keeps the `top` largest, largest first; the order of equals is that of the items.
fn keep_largest<T: Ord>(items: &mut Vec<T>, top: usize, size: impl Fn(&T) -> u64) {
    let order = |a: &T, b: &T| size(b).cmp(&size(a)).then_with(|| a.cmp(b));
    if items.len() > top && top > 0 {
        items.select_nth_unstable_by(top - 1, order);
    }
    items.truncate(top);
    items.sort_unstable_by(order);
}

/// Does everything that can be done with a text, whatever it is: for tests and the fuzzer, which look for panics.
#[doc(hidden)]
pub fn exercise(text: &[u8]) {
    /// Enough for any text a fuzzer makes; a reservation beyond it is refused.
    const ALLOWED_BYTES: u64 = 256 << 20;
    let redacted =
        super::redact::redact(text, super::redact::Redaction::Keys, &[7; 32], &mut std::io::sink());
    let bytes = super::file::Bytes::Owned(text.to_vec());
    let Ok(mut snapshot) = Snapshot::parse(bytes, ALLOWED_BYTES) else { return };
    let _ = redacted;
    snapshot.drop_parsed_text();
    let graph = Graph::new(&snapshot, Parallelism::Single);
    let id = snapshot.columns.node_id.first().copied().unwrap_or(0);
    let request = Request {
        top: 5,
        suspects: 5,
        paths: vec![id, 3],
        classes: vec!["Object".to_owned()],
        parallelism: Parallelism::Single,
    };
    let analysis = analyse("a", &snapshot, &graph, &request, &[], &mut |_| {});
    let report = crate::report::Report::Analysis(analysis);
    let _ = crate::report::Output::write(&crate::report::text::Text, &report, &mut std::io::sink());
    let _ = crate::report::Output::write(&crate::report::json::Json, &report, &mut std::io::sink());
    if has_graph(&snapshot) {
        for by in [IdentityMode::NodeIds, IdentityMode::Signatures] {
            let before = vec![earlier("a", &snapshot, &graph)];
            let stated = Some(Identity { by, reason: String::new() });
            let _ = compare("b", &snapshot, &graph, before, stated, &request, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::heap::drawing::Drawing;
    use crate::heap::snapshot::EdgeKind;
    use crate::report::Pattern;

    fn request() -> Request {
        Request {
            top: 50,
            suspects: 10,
            paths: Vec::new(),
            classes: Vec::new(),
            parallelism: Parallelism::Single,
        }
    }

    //  root -> global -.serve-> serve (app.js:12) -<context>-> Context -cache-> Map -<table>-> (array) -> Page x count
    //                             |
    //                          <shared> -> (shared) -<script>-> app.js
    fn app(count: usize) -> Drawing {
        let mut heap = Drawing::new();
        let global = heap.node(NodeKind::Object, "global", 100);
        let serve = heap.node(NodeKind::Closure, "serve", 64);
        let shared = heap.node(NodeKind::Code, "serve", 40);
        let script = heap.node(NodeKind::Code, "app.js", 40);
        let context = heap.node(NodeKind::Object, "system / Context", 40);
        let map = heap.node(NodeKind::Object, "Map", 40);
        heap.edge(0, EdgeKind::Shortcut, "global", global);
        heap.edge(global, EdgeKind::Property, "serve", serve);
        heap.edge(serve, EdgeKind::Internal, "shared", shared);
        heap.edge(shared, EdgeKind::Internal, "script", script);
        heap.edge(serve, EdgeKind::Internal, "context", context);
        heap.edge(context, EdgeKind::Context, "cache", map);
        heap.location(serve, 7, 11, 4);
        // A table that grows is a new one.
        heap.ids_from(1001 + 2 * count as u32);
        let table = heap.node(NodeKind::Array, "", 64);
        heap.edge(map, EdgeKind::Internal, "table", table);
        heap.ids_from(100_001);
        for index in 0..count {
            let page = heap.node(NodeKind::Object, "Page", 4000);
            heap.edge(table, EdgeKind::Internal, &index.to_string(), page);
            heap.location(page, 7, 20, 1);
        }
        heap
    }

    fn analysed(count: usize) -> Analysis {
        let (snapshot, graph) = app(count).open();
        analyse("app", &snapshot, &graph, &request(), &[], &mut |_| {})
    }

    fn compared(counts: &[usize], by: IdentityMode) -> Comparison {
        let (last, rest) = counts.split_last().unwrap();
        let before = rest.iter().map(|&count| {
            let (snapshot, graph) = app(count).open();
            earlier("before", &snapshot, &graph)
        });
        let before = before.collect();
        let (snapshot, graph) = app(*last).open();
        let stated = Some(Identity { by, reason: String::new() });
        compare("after", &snapshot, &graph, before, stated, &request(), &[]).unwrap()
    }

    #[test]
    fn a_map_is_named_by_its_variable_and_the_function_that_sees_it() {
        let analysis = analysed(200);
        let suspect = &analysis.suspects[0];
        assert_eq!(suspect.pattern, Pattern::Map);
        assert_eq!(suspect.holder.as_deref(), Some("cache"));
        assert_eq!(suspect.count, 200);
        assert_eq!(
            suspect.sentence,
            "Map held by `cache` in serve, app.js:12: 200 entries of Page, 781 KB, 100 % of the heap; made by Page, app.js:21"
        );
        assert_eq!(suspect.path.last().unwrap().node.class_name, "Page");
    }

    #[test]
    fn a_small_map_is_no_suspect() {
        assert_eq!(analysed(10).suspects, []);
    }

    #[test]
    fn growth_is_found_by_ids_and_by_signature_alike() {
        for by in [IdentityMode::NodeIds, IdentityMode::Signatures] {
            for counts in [&[100, 200][..], &[100, 200, 300]] {
                let comparison = compared(counts, by);
                let suspect = &comparison.suspects[0];
                assert_eq!(suspect.holder.as_deref(), Some("cache"), "{by:?}");
                let expected: Vec<u64> = counts.iter().map(|&count| count as u64).collect();
                assert_eq!(suspect.growth.as_ref().unwrap().counts, expected, "{by:?}");
                assert_eq!(comparison.suspects.len(), 1);
            }
        }
    }

    #[test]
    fn what_stays_the_same_or_shrinks_is_no_suspect() {
        for by in [IdentityMode::NodeIds, IdentityMode::Signatures] {
            for counts in [&[200, 200][..], &[300, 200], &[100, 300, 300], &[200, 300, 200]] {
                assert_eq!(compared(counts, by).suspects, [], "{by:?} {counts:?}");
            }
        }
    }

    #[test]
    fn a_finding_is_confirmed_or_refuted_by_the_closures_of_its_line() {
        let (snapshot, graph) = app(100).open();
        let verdict = |line: u32, count: u64| {
            let finding = serde_json::json!({
                "schema": 1, "kind": "finding", "id": "f1", "sentence": "s",
                "cause": {"kind": "listeners", "site": {"file": "file://app.js", "line": line}, "count": count},
                "series": [{"id": "listeners", "points": [[1.0, 2.0]]}],
                "routes": {"verdict": "time"},
            });
            let files = [("Finding.json".to_owned(), finding)];
            let analysis = analyse("app", &snapshot, &graph, &request(), &files, &mut |_| {});
            assert_eq!(analysis.findings[0].routes["verdict"], "time");
            (analysis.findings[0].verdict, analysis.findings[0].series[0].points.len())
        };
        assert_eq!(verdict(12, 1), (crate::report::Verdict::Confirmed, 1));
        assert_eq!(verdict(12, 1000), (crate::report::Verdict::Refuted, 1));
    }

    proptest! {
        #[test]
        fn a_comparison_reversed_is_its_mirror(a in 0_usize..60, b in 0_usize..60) {
            for by in [IdentityMode::NodeIds, IdentityMode::Signatures] {
                let there = compared(&[a, b], by);
                let back = compared(&[b, a], by);
                prop_assert_eq!(there.growth_bytes, -back.growth_bytes);
                let mut mirrored: Vec<_> = back
                    .classes
                    .into_iter()
                    .map(|row| crate::report::ClassDelta {
                        count_before: row.count_after,
                        count_after: row.count_before,
                        added: row.removed,
                        removed: row.added,
                        shallow_delta: -row.shallow_delta,
                        retained_delta: -row.retained_delta,
                        ..row
                    })
                    .collect();
                mirrored.sort_by(|x, y| y.shallow_delta.cmp(&x.shallow_delta).then_with(|| x.class_name.cmp(&y.class_name)));
                prop_assert_eq!(there.classes, mirrored);
            }
        }
    }
}
