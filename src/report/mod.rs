//! One report model, several outputs: text, JSON, HTML.
//!
//! The model holds what a reader is told, in the order of importance, with every name already resolved
//! to text; it borrows nothing from the snapshot, so a gigabyte of columns can be dropped before an
//! output runs. Strings come from the heap of an app: they are untrusted, and each output escapes
//! them itself. The model decides nothing: ranking, recognition and comparison are done in `heap`.
//!
//! The JSON output is this model as serde writes it, and its schema is `docs/SNAPSHOT-JSON.md`.

pub mod history;
pub mod html;
pub mod json;
pub mod text;

use serde::{Deserialize, Serialize};

/// The version of the model as JSON. It rises when a field changes its meaning or goes away; fields may
/// be added without that.
pub const SCHEMA: u32 = 1;

/// Everything the command line can report on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Report {
    /// One snapshot, from `analyze`.
    Analysis(Analysis),
    /// Two or three snapshots, from `diff`.
    Comparison(Comparison),
}

/// What one snapshot says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The snapshot itself.
    pub snapshot: SnapshotSummary,
    /// Accumulations, most suspicious first.
    pub suspects: Vec<Suspect>,
    /// Guard findings that belong to this snapshot, each with what the snapshot says about it.
    pub findings: Vec<Finding>,
    /// Classes by retained size, largest first; cut to the number asked for.
    pub classes: Vec<ClassRow>,
    /// How many classes there are in all.
    pub class_count: usize,
    /// The nodes with the largest retained size that are no mere roots, largest first.
    pub dominators: Vec<NodeRow>,
    /// The largest strings, largest first.
    pub strings: Vec<StringRow>,
    /// Strings that exist more than once, largest waste first.
    pub duplicate_strings: Vec<DuplicateRow>,
    /// The dominator tree, cut to what a picture can show.
    pub tree: DominatorTree,
    /// What `--path` and `--class` asked for.
    pub details: Vec<Detail>,
    /// What the reader must know to read the rest right: a truncated file, ids that do not match.
    pub notes: Vec<String>,
}

/// What two or three snapshots of one app say together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The snapshots, oldest first.
    pub snapshots: Vec<SnapshotSummary>,
    /// How nodes of one were recognised in the other.
    pub identity: Identity,
    /// Reachable bytes of the last snapshot minus those of the first.
    pub growth_bytes: i64,
    /// Accumulations that grew, most suspicious first.
    pub suspects: Vec<Suspect>,
    /// Guard findings that belong to one of the snapshots.
    pub findings: Vec<Finding>,
    /// Classes whose count or size changed, by growth of self size, largest first; cut to the number asked for.
    pub classes: Vec<ClassDelta>,
    /// How many classes changed in all.
    pub class_count: usize,
    /// The dominator tree of the last snapshot, cut to what a picture can show.
    pub tree: DominatorTree,
    /// What the reader must know to read the rest right.
    pub notes: Vec<String>,
}

/// A snapshot file and its totals.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SnapshotSummary {
    /// The file as it was named on the command line.
    pub file: String,
    /// Bytes of the JSON text, decompressed.
    pub text_bytes: u64,
    /// Nodes in the file.
    pub nodes: u64,
    /// Edges in the file.
    pub edges: u64,
    /// Sum of all self sizes.
    pub self_bytes: u64,
    /// Bytes retained by the root: what DevTools shows as the total.
    pub retained_bytes: u64,
    /// Native memory the snapshot's header adds to that (Node 24 and later), in bytes.
    pub extra_native_bytes: u64,
    /// Nodes that no strong path from the root reaches.
    pub unreachable_nodes: u64,
    /// Where the file ends too early, if it does.
    pub truncated: Option<Truncation>,
    /// Bytes by kind of memory, largest first.
    pub kinds: Vec<KindRow>,
}

/// Where a file that was cut off ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Truncation {
    /// The section in which it ends: `nodes`, `edges`, `locations` or `strings`.
    pub section: String,
    /// The byte (of the decompressed text) at which it ends.
    pub offset: u64,
}

/// Self sizes of all nodes of one V8 node type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindRow {
    /// The node type as V8 names it: `object`, `string`, `code`.
    pub node_type: String,
    /// Nodes of it.
    pub count: u64,
    /// Their shallow sizes, by DevTools' rules.
    pub shallow_bytes: u64,
}

/// An accumulation that may be a leak, or in a comparison one that grew.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suspect {
    /// 1 for the most suspicious.
    pub rank: usize,
    /// The whole suspicion in one sentence, without a final dot.
    pub sentence: String,
    /// What kind of accumulation it is.
    pub pattern: Pattern,
    /// The variable, property or collection field that holds it: `cache`, `_events.data`.
    pub holder: Option<String>,
    /// The code that the holder belongs to.
    pub site: Option<Site>,
    /// Other lines of code that belong to the accumulated objects, most frequent first: where the
    /// closures were made, where the constructors are.
    pub item_sites: Vec<CountedSite>,
    /// The object that holds the items.
    pub container: NodeRow,
    /// Class name of the items.
    pub item_class: String,
    /// How many items there are.
    pub count: u64,
    /// Bytes retained by the items together.
    pub retained_bytes: u64,
    /// Share of the heap's retained bytes, 0 to 1.
    pub share: f64,
    /// In a comparison, how it grew.
    pub growth: Option<Growth>,
    /// The shortest retaining path, from a root to one of the items, repeated runs folded.
    pub path: Vec<PathStep>,
}

/// How a suspect grew from the first snapshot to the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// Items in each snapshot that was compared, oldest first.
    pub counts: Vec<u64>,
    /// Bytes that came minus bytes that went, over all the snapshots.
    pub net_bytes: i64,
    /// With stable ids: nodes that came before the second of three snapshots and still live.
    pub survivors: Option<u64>,
    /// With stable ids: nodes that came since the last snapshot but one.
    pub newborn: Option<u64>,
    /// With stable ids: nodes of the first snapshot that held this place and are gone.
    pub died: Option<u64>,
}

/// The kinds of accumulation the analyzer tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Listeners on one EventEmitter's event.
    Listeners,
    /// Listeners on an EventTarget.
    EventTargetListeners,
    /// Listeners on an AbortSignal.
    AbortSignalListeners,
    /// Entries of a Map.
    Map,
    /// Members of a Set.
    Set,
    /// Properties of an object used as a dictionary.
    Dictionary,
    /// Elements of an array.
    Array,
    /// Promises that never settled, or what waits for one.
    Promises,
    /// Timers that were never cleared.
    Timers,
    /// Closures, each holding the one before it.
    ClosureChain,
    /// Objects linked one to the next.
    LinkedList,
    /// Chunks in the buffer of a stream.
    StreamBuffer,
    /// V8 contexts of `vm`.
    Contexts,
    /// Native handles that are open: sockets, pipes, processes, watchers.
    Handles,
    /// Memory of array buffers.
    ArrayBuffers,
    /// Strings.
    Strings,
    /// None of the others.
    Objects,
}

/// A place in source code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Site {
    /// The script as V8 names it: a path, a `file:` URL or `node:…`.
    pub file: String,
    /// 1-based; 0 when it is not known.
    #[serde(default)]
    pub line: u32,
    /// 1-based; 0 when it is not known.
    #[serde(default)]
    pub column: u32,
    /// The function's name; empty when it has none.
    #[serde(default)]
    pub function: String,
}

/// A place in source code and how many of the items belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CountedSite {
    /// The place.
    pub site: Site,
    /// How many items; 0 where it is known only that such items are made there.
    pub count: u64,
}

/// One node of the heap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeRow {
    /// The id DevTools shows after `@`.
    pub id: u64,
    /// The class name, as DevTools groups nodes.
    pub class_name: String,
    /// A short description: function name, constructor, beginning of a string.
    pub label: String,
    /// Shallow size in bytes.
    pub shallow_bytes: u64,
    /// Retained size in bytes.
    pub retained_bytes: u64,
    /// Distance from the root; `None` for a node that only the system or nothing reaches.
    pub distance: Option<u32>,
    /// Where its code is.
    pub site: Option<Site>,
}

/// One step of a retaining path: an edge and the node it leads to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PathStep {
    /// The kind of edge as V8 names it; empty for the first step.
    pub edge_type: String,
    /// The edge as a person writes it: `.cache`, `[12]`, `context variable cache`; empty for the first step.
    pub edge: String,
    /// The node it leads to.
    pub node: NodeRow,
    /// How many such steps in a row were folded into this one, at least 1.
    pub repeats: u64,
}

/// All nodes of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassRow {
    /// The class name.
    pub class_name: String,
    /// Nodes of it.
    pub count: u64,
    /// Sum of their shallow sizes.
    pub shallow_bytes: u64,
    /// What they retain together, counted once (DevTools' rule).
    pub retained_bytes: u64,
    /// The smallest distance of any of them; `None` when none is reached.
    pub distance: Option<u32>,
}

/// How one class changed between the first and the last snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassDelta {
    /// The class name.
    pub class_name: String,
    /// Nodes in the first.
    pub count_before: u64,
    /// Nodes in the last.
    pub count_after: u64,
    /// Nodes that are new; `None` when ids are not comparable.
    pub added: Option<u64>,
    /// Nodes that are gone; `None` when ids are not comparable.
    pub removed: Option<u64>,
    /// Growth of the shallow sizes.
    pub shallow_delta: i64,
    /// Growth of the retained sizes.
    pub retained_delta: i64,
}

/// One large string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StringRow {
    /// The node's id.
    pub id: u64,
    /// Its beginning.
    pub text: String,
    /// Shallow size in bytes.
    pub shallow_bytes: u64,
    /// Retained size in bytes.
    pub retained_bytes: u64,
}

/// One text that exists as several strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DuplicateRow {
    /// Its beginning.
    pub text: String,
    /// How many strings have it.
    pub count: u64,
    /// Bytes of all of them.
    pub shallow_bytes: u64,
    /// Bytes of all but one of them.
    pub wasted_bytes: u64,
}

/// The dominator tree as an arena: parents stand before their children, children by size.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct DominatorTree {
    /// Nodes; the first is the root.
    pub nodes: Vec<TreeNode>,
}

/// One box of the dominator tree: a node, or several of one class under the same parent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TreeNode {
    /// Index of the parent in [`DominatorTree::nodes`]; `None` for the root.
    pub parent: Option<u32>,
    /// What it is.
    pub label: String,
    /// The node's id; `None` for several nodes together.
    pub id: Option<u64>,
    /// How many nodes it stands for.
    pub count: u64,
    /// Shallow size in bytes.
    pub shallow_bytes: u64,
    /// Retained size in bytes.
    pub retained_bytes: u64,
}

/// An answer to `--path @id` or `--class NAME`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Detail {
    /// The shortest retaining path of one node.
    Path {
        /// The node.
        node: NodeRow,
        /// From a root to the node.
        path: Vec<PathStep>,
    },
    /// The largest nodes of one class.
    Class {
        /// The class, and all its nodes together.
        class: ClassRow,
        /// The largest by retained size.
        largest: Vec<NodeRow>,
        /// Shortest retaining path of the largest.
        path: Vec<PathStep>,
    },
}

/// How nodes of one snapshot were recognised in another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Which way was taken.
    pub by: IdentityMode,
    /// Why, in a sentence without a final dot.
    pub reason: String,
}

/// The ways to recognise a node of one snapshot in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityMode {
    /// The same id is the same object: snapshots of one process, taken in that process.
    NodeIds,
    /// The same path of classes and lines of code through the dominator tree is the same place.
    Signatures,
}

/// A guard finding beside the snapshot, and what the snapshot says about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The finding's file.
    pub file: String,
    /// Its id.
    pub id: String,
    /// When it was made, as the guard wrote it (milliseconds since 1970 or an ISO date).
    pub time: serde_json::Value,
    /// The guard's sentence.
    pub sentence: String,
    /// The cause the guard named.
    pub cause: Option<FindingCause>,
    /// The series that grew, for the timeline.
    pub series: Vec<FindingSeries>,
    /// The emitters whose listeners grew.
    pub listeners: Vec<FindingListener>,
    /// Which requests the growth goes with, as the guard wrote it; null in findings of other kinds.
    pub routes: serde_json::Value,
    /// Whether the snapshot bears it out.
    pub verdict: Verdict,
    /// The verdict in a sentence without a final dot.
    pub verdict_sentence: String,
}

/// What a snapshot says about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The snapshot holds what the finding named.
    Confirmed,
    /// It does not.
    Refuted,
    /// The finding named nothing that a snapshot could show.
    Undecided,
}

/// The cause as the guard named it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingCause {
    /// `listener`, `allocation`, `handle` and so on.
    #[serde(default)]
    pub kind: String,
    /// The line of code.
    #[serde(default)]
    pub site: Option<Site>,
    /// The emitter's class or name.
    #[serde(default)]
    pub emitter: Option<String>,
    /// The event's name.
    #[serde(default)]
    pub event: Option<String>,
    /// How many there were.
    #[serde(default)]
    pub count: Option<u64>,
}

/// One series of a finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingSeries {
    /// The series id: `live_heap`, `listeners`.
    pub id: String,
    /// Its unit.
    #[serde(default)]
    pub unit: String,
    /// Growth per hour in that unit.
    #[serde(default, rename = "slopePerHour")]
    pub slope_per_hour: Option<f64>,
    /// The window that was judged, in milliseconds.
    #[serde(default, rename = "windowMs")]
    pub window_ms: Option<f64>,
    /// First value of the window.
    #[serde(default, rename = "firstValue")]
    pub first_value: Option<f64>,
    /// Last value of the window.
    #[serde(default, rename = "lastValue")]
    pub last_value: Option<f64>,
    /// `[milliseconds since 1970, value]`.
    #[serde(default)]
    pub points: Vec<(f64, f64)>,
}

/// One emitter of a finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingListener {
    /// The emitter's class or name.
    #[serde(default)]
    pub emitter: Option<String>,
    /// The event's name.
    #[serde(default)]
    pub event: Option<String>,
    /// How many listeners.
    #[serde(default)]
    pub count: Option<u64>,
    /// Growth per minute.
    #[serde(default, rename = "growthPerMin")]
    pub growth_per_min: Option<f64>,
    /// The line that adds them.
    #[serde(default)]
    pub site: Option<Site>,
}

/// One way to write a report.
pub trait Output {
    /// Writes all of it.
    ///
    /// # Errors
    /// Whatever the writer answers.
    fn write(&self, report: &Report, out: &mut dyn std::io::Write) -> std::io::Result<()>;
}
