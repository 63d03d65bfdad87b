//! What an accumulation is, in the words of the person who wrote the code: which kind of collection, which
//! variable or property holds it, which lines of code belong to it.
//!
//! It looks at one container, one of its items and the way down to both; it does not judge whether they are a leak.

use rustc_hash::FxHashMap;

use super::callers::makers_of;
use super::graph::Graph;
use super::label::{Labels, is_identifier};
use super::paths::{Step, edge_between, path_to};
use super::snapshot::{EdgeKind, NodeKind, NodeOrdinal};
use crate::report::{CountedSite, Pattern, Site};

/// Names in a holder's path, counted from the container upwards.
const MAX_HOLDER_PARTS: usize = 4;
/// Items that are looked at for their lines of code.
const SITE_SAMPLE: usize = 2_000;
/// Retainers of one node that are looked at for a variable's name.
const MAX_RETAINERS: usize = 256;
/// Levels below an item that are searched for its code: two reach the closure in a listener record, a bound function
/// or a timer.
const LEVELS_BELOW: usize = 2;
/// Below the owner of a handle: `_events`, the array of an event, its elements, a wrapper of `once`, the listener.
const LEVELS_BELOW_OWNER: usize = 5;
/// Nodes of a level that are looked at.
const MAX_BREADTH: usize = 512;
/// Lines of code that are kept.
const MAX_SITES: usize = 5;

/// Items that pile up, and where.
#[derive(Debug, Clone)]
pub struct Accumulation {
    /// The node whose edges lead to the items, or the first of a chain.
    pub container: NodeOrdinal,
    /// Some of the items; the first stands for all of them.
    pub items: Vec<NodeOrdinal>,
    /// True when each item holds the next.
    pub chain: bool,
}

/// What [`recognise`] found.
#[derive(Debug, Clone)]
pub struct Recognised {
    /// The kind of collection.
    pub pattern: Pattern,
    /// The object a person would name: the Map, not its hash table.
    pub container: NodeOrdinal,
    /// Variable and properties that lead to the container.
    pub holder: Option<String>,
    /// The function that the variable belongs to.
    pub site: Option<Site>,
    /// Lines of code of the items, most frequent first.
    pub item_sites: Vec<CountedSite>,
    /// What each item is the native handle of, if it is one.
    pub owner: Option<NodeOrdinal>,
    /// The shortest path to the first item.
    pub path: Vec<Step>,
}

/// Recognises an accumulation.
pub fn recognise(labels: &Labels<'_>, graph: &Graph, accumulation: &Accumulation) -> Recognised {
    let item = accumulation.items.first().copied().unwrap_or(accumulation.container);
    let mut path = path_to(labels, graph, item);
    let place = |path: &[Step]| path.iter().rposition(|step| step.node == accumulation.container);
    if place(&path).is_none()
        && labels.snapshot.kind(accumulation.container) != NodeKind::Synthetic
        && let Some(edge) = edge_between(labels, graph, accumulation.container, item)
    {
        // The item is nearer to the roots by another way than over what holds all of them.
        path = path_to(labels, graph, accumulation.container);
        path.push(Step { edge: Some(edge), node: item });
    }
    let at = place(&path).unwrap_or(path.len().saturating_sub(1));
    let way = Way { labels, graph, path: &path, item, at };
    let owner_at = way.owner();
    let container = path.get(owner_at).map_or(accumulation.container, |step| step.node);
    let owners = handle_owners(labels, accumulation);
    let pattern = match owners.first() {
        Some(_) => Pattern::Handles,
        None => way.pattern(owner_at, accumulation.chain),
    };
    let holder = match pattern {
        // Node's own lists hold timers, and libuv handles; nobody's variable does.
        Pattern::Timers | Pattern::Handles => Holder { parts: Vec::new(), site: None },
        _ => way.holder(owner_at),
    };
    Recognised {
        pattern,
        container,
        holder: (!holder.parts.is_empty()).then(|| holder.text()),
        site: holder.site,
        item_sites: match owners.first() {
            Some(_) => owners_sites(labels, graph, &owners),
            None => item_sites(labels, graph, &accumulation.items, LEVELS_BELOW),
        },
        owner: owners.first().copied(),
        path,
    }
}

/// The path to an item, with the container's place in it.
struct Way<'a> {
    labels: &'a Labels<'a>,
    graph: &'a Graph,
    path: &'a [Step],
    item: NodeOrdinal,
    /// Index of the container.
    at: usize,
}

struct Holder {
    /// From the container upwards.
    parts: Vec<String>,
    site: Option<Site>,
}

impl Holder {
    fn text(&self) -> String {
        let text: String = self.parts.iter().rev().map(String::as_str).collect();
        text.strip_prefix('.').map(str::to_owned).unwrap_or(text)
    }
}

impl Way<'_> {
    fn kind(&self, at: usize) -> Option<NodeKind> {
        self.path.get(at).map(|step| self.labels.snapshot.kind(step.node))
    }

    fn name(&self, at: usize) -> String {
        self.path
            .get(at)
            .map(|step| self.labels.snapshot.name_of(step.node).into_owned())
            .unwrap_or_default()
    }

    /// Kind and name of the edge that leads to step `at`; the name of an indexed edge is empty.
    fn edge(&self, at: usize) -> Option<(EdgeKind, String)> {
        let edge = self.path.get(at)?.edge?;
        let snapshot = self.labels.snapshot;
        let name = snapshot.edge_name(edge).map(|name| snapshot.text_of(name).into_owned());
        Some((snapshot.edge_kind(edge), name.unwrap_or_default()))
    }

    /// Index of the JavaScript object that the container belongs to: backing stores lie one or two steps below theirs.
    fn owner(&self) -> usize {
        let mut at = self.at;
        while at > 0
            && matches!(self.kind(at), Some(NodeKind::Array | NodeKind::Hidden))
            && matches!(
                self.edge(at),
                Some((EdgeKind::Internal | EdgeKind::Hidden | EdgeKind::Element, _))
            )
        {
            at -= 1;
        }
        at
    }

    /// The names on the way to step `at`, upwards to the first variable.
    fn holder(&self, at: usize) -> Holder {
        let mut holder = Holder { parts: Vec::new(), site: None };
        let mut at = at;
        while at > 0 {
            if let Some((name, site)) = self.user_variable(self.path[at].node) {
                holder.parts.push(name);
                holder.site = Some(site);
                return holder;
            }
            let Some((kind, name)) = self.edge(at) else { break };
            match kind {
                EdgeKind::Context => {
                    holder.parts.push(name);
                    holder.site = self.closure_above(at - 1);
                    return holder;
                }
                EdgeKind::Property if is_identifier(&name) => holder.parts.push(format!(".{name}")),
                EdgeKind::Property if name.starts_with("<symbol ") => {
                    holder.parts.push(format!("[{}]", name.trim_matches(['<', '>'])));
                }
                EdgeKind::Property => holder.parts.push(format!("[{name:?}]")),
                EdgeKind::Element => {
                    let index = self.path[at]
                        .edge
                        .map_or(0, |edge| self.labels.snapshot.columns.edge_name[edge]);
                    holder.parts.push(format!("[{index}]"));
                }
                _ => {}
            }
            at -= 1;
            if holder.parts.len() >= MAX_HOLDER_PARTS {
                break;
            }
        }
        // No variable near: the class of the object where the names begin says more than one name more.
        let class = self.name(at);
        if at > 0 && is_identifier(&class) {
            holder.parts.push(class);
        }
        holder.site = self.path.get(at).and_then(|step| self.labels.site(step.node));
        holder
    }

    /// A variable of the app's own code that holds `node` directly, and a function that sees it. The shortest path need
    /// not lead over it: a timer or a socket of Node may be nearer to the roots.
    fn user_variable(&self, node: NodeOrdinal) -> Option<(String, Site)> {
        let snapshot = self.labels.snapshot;
        if snapshot.name_of(node).starts_with("system / Context") {
            return None;
        }
        let retainers = self
            .graph
            .retainers
            .of(node.0)
            .iter()
            .take(MAX_RETAINERS)
            .map(|&source| NodeOrdinal(source));
        retainers
            .filter(|&retainer| snapshot.name_of(retainer).starts_with("system / Context"))
            .find_map(|context| {
                let edge = snapshot.edges(context).find(|&edge| {
                    snapshot.edge_kind(edge) == EdgeKind::Context && snapshot.target(edge) == node
                })?;
                let name = snapshot.text_of(snapshot.edge_name(edge)?).into_owned();
                let site = self.user_function(context)?;
                (name != "this").then_some((name, site))
            })
    }

    /// The function nearest to the roots that has `context` as its own and is no code of Node.
    fn user_function(&self, context: NodeOrdinal) -> Option<Site> {
        let snapshot = self.labels.snapshot;
        let retainers = self
            .graph
            .retainers
            .of(context.0)
            .iter()
            .take(MAX_RETAINERS)
            .map(|&source| NodeOrdinal(source));
        let closures = retainers.filter(|&retainer| snapshot.kind(retainer) == NodeKind::Closure);
        let mut closures: Vec<_> = closures.collect();
        closures.sort_by_key(|closure| self.graph.distance[closure.at()]);
        let sites = closures.into_iter().filter_map(|closure| self.labels.site(closure));
        sites.into_iter().find(|site| !site.file.starts_with("node:"))
    }

    /// The function whose context step `at` is, or the nearest one that can see it.
    fn closure_above(&self, at: usize) -> Option<Site> {
        let mut at = at;
        loop {
            if self.kind(at) == Some(NodeKind::Closure) {
                return self.labels.site(self.path[at].node);
            }
            if !self.name(at).starts_with("system / Context") {
                return None;
            }
            at = at.checked_sub(1)?;
        }
    }

    /// Node 20 makes signals whose class is EventTarget: there the controller above tells, or a field of signals.
    fn is_abort_signal(&self, at: usize) -> bool {
        let snapshot = self.labels.snapshot;
        let above = at.checked_sub(1).map(|at| self.name(at)).unwrap_or_default();
        let mut fields =
            snapshot.edges(self.path[at].node).filter_map(|edge| snapshot.edge_name(edge));
        self.name(at) == "AbortSignal"
            || above == "AbortController"
            || fields.any(|name| snapshot.raw(name) == b"<symbol kAborted>")
    }

    fn pattern(&self, owner: usize, chain: bool) -> Pattern {
        let snapshot = self.labels.snapshot;
        let item_kind = snapshot.kind(self.item);
        let item = snapshot.name_of(self.item);
        let from_owner = |wanted: &str, up: usize| {
            (owner.saturating_sub(up)..=self.at.max(owner)).any(|at| {
                self.edge(at)
                    .is_some_and(|(kind, name)| kind == EdgeKind::Property && name == wanted)
            })
        };
        let symbol_events = (owner.saturating_sub(3)..self.path.len())
            .find(|&at| self.edge(at).is_some_and(|(_, name)| name == "<symbol kEvents>"));
        if let Some(at) = symbol_events {
            return if at.checked_sub(1).is_some_and(|at| self.is_abort_signal(at)) {
                Pattern::AbortSignalListeners
            } else {
                Pattern::EventTargetListeners
            };
        }
        if from_owner("_events", 1) && matches!(item_kind, NodeKind::Closure | NodeKind::Object) {
            return Pattern::Listeners;
        }
        if ["Timeout", "TimersList", "Immediate"].contains(&item.as_ref())
            || self.name(owner) == "TimersList"
        {
            return Pattern::Timers;
        }
        if from_owner("buffered", 1)
            || from_owner("<symbol kBufferedValue>", 1)
            || (from_owner("buffer", 1) && from_owner("_readableState", 3))
            || (self.name(owner) == "BufferList")
        {
            return Pattern::StreamBuffer;
        }
        if chain {
            let below = self.at + 1..self.path.len().min(self.at + 6);
            let through_closure =
                below.into_iter().any(|at| self.kind(at) == Some(NodeKind::Closure));
            return if through_closure { Pattern::ClosureChain } else { Pattern::LinkedList };
        }
        if item == "system / NativeContext" || item.starts_with("global") {
            return Pattern::Contexts;
        }
        let by_owner = match self.name(owner).as_str() {
            "Map" => Some(Pattern::Map),
            "Set" => Some(Pattern::Set),
            "Array" => Some(Pattern::Array),
            _ => None,
        };
        if let Some(pattern) = by_owner {
            return pattern;
        }
        match item.as_ref() {
            "Promise" | "system / PromiseReaction" => return Pattern::Promises,
            "ArrayBuffer" | "Buffer" | "Uint8Array" | "system / JSArrayBufferData" => {
                return Pattern::ArrayBuffers;
            }
            _ => {}
        }
        let step_below = self.edge(self.at + 1);
        match (self.kind(owner), step_below) {
            (Some(NodeKind::Object | NodeKind::Closure), _) if owner < self.at => {
                Pattern::Dictionary
            }
            (Some(NodeKind::Object), Some((EdgeKind::Property, _))) => Pattern::Dictionary,
            _ if item_kind.is_string() => Pattern::Strings,
            _ => Pattern::Objects,
        }
    }
}

/// The owners of items that are native handles in a container that is nobody's: libuv holds these, as long as they are
/// open. `Socket`s of `TCP`s, of the class that most of them have: a server listens among them.
fn handle_owners(labels: &Labels<'_>, accumulation: &Accumulation) -> Vec<NodeOrdinal> {
    let Accumulation { container, items, .. } = accumulation;
    let snapshot = labels.snapshot;
    let by_nobody = snapshot.kind(*container) == NodeKind::Synthetic
        || snapshot.name_of(*container).starts_with("Node / ");
    if !by_nobody {
        return Vec::new();
    }
    let mut by_class: FxHashMap<_, Vec<NodeOrdinal>> = FxHashMap::default();
    for owner in items.iter().filter_map(|&item| labels.follow(item, "<symbol owner_symbol>")) {
        if snapshot.kind(owner) == NodeKind::Object {
            let place = snapshot.location(owner);
            let place = place.map(|place| (place.script_id, place.line, place.column));
            by_class.entry((snapshot.name(owner), place)).or_default().push(owner);
        }
    }
    let most = by_class.into_iter().max_by_key(|(class, owners)| (owners.len(), *class));
    most.map(|(_, owners)| owners)
        .filter(|owners| 2 * owners.len() > items.len())
        .unwrap_or_default()
}

/// Lines of code that native handles come from: the listeners and callbacks that most of their owners alone hold, else
/// the code that makes such owners. Who connected to a server is not in the heap of the server.
fn owners_sites(labels: &Labels<'_>, graph: &Graph, owners: &[NodeOrdinal]) -> Vec<CountedSite> {
    let count = owners.len() as u64;
    let mut sites = item_sites(labels, graph, owners, LEVELS_BELOW_OWNER);
    // What few of them hold does not tell where the others come from.
    sites.retain(|each| each.site.file.starts_with("node:") || 2 * each.count >= count);
    let Some(&owner) = owners.first() else { return sites };
    let accepted = labels
        .follow(owner, "server")
        .is_some_and(|server| labels.snapshot.kind(server) == NodeKind::Object);
    if accepted || sites.iter().any(|each| !each.site.file.starts_with("node:")) {
        return sites;
    }
    let makers = makers_of(labels, graph, owner, MAX_SITES);
    // Of several it is not known who made how many.
    let count = if makers.len() == 1 { count } else { 0 };
    sites.splice(0..0, makers.into_iter().map(|site| CountedSite { site, count }));
    sites.truncate(MAX_SITES);
    sites
}

/// Lines of code that the items come from: their own, or those of what they alone hold, down to `levels` below.
fn item_sites(
    labels: &Labels<'_>,
    graph: &Graph,
    items: &[NodeOrdinal],
    levels: usize,
) -> Vec<CountedSite> {
    let step = items.len().div_ceil(SITE_SAMPLE).max(1);
    let mut counts: FxHashMap<Site, u64> = FxHashMap::default();
    for &item in items.iter().step_by(step) {
        for site in sites_of(labels, graph, item, levels) {
            *counts.entry(site).or_insert(0) += step as u64;
        }
    }
    let mut sites: Vec<_> =
        counts.into_iter().map(|(site, count)| CountedSite { site, count }).collect();
    // Node's own code is where the item was made but seldom why.
    let internal = |site: &Site| site.file.starts_with("node:");
    sites.sort_by(|a, b| {
        let a_key = (internal(&a.site), std::cmp::Reverse(a.count));
        a_key
            .cmp(&(internal(&b.site), std::cmp::Reverse(b.count)))
            .then_with(|| (&a.site.file, a.site.line).cmp(&(&b.site.file, b.site.line)))
    });
    sites.truncate(MAX_SITES);
    sites
}

fn sites_of(labels: &Labels<'_>, graph: &Graph, item: NodeOrdinal, levels: usize) -> Vec<Site> {
    if let Some(site) = labels.site(item).filter(|site| !site.file.starts_with("node:")) {
        return vec![site];
    }
    let snapshot = labels.snapshot;
    let mut sites: Vec<Site> = labels.site(item).into_iter().collect();
    let mut level = vec![item];
    for _ in 0..levels {
        let mut below = Vec::new();
        for &node in &level {
            for edge in snapshot.edges(node).take(64) {
                let target = snapshot.target(edge);
                if graph.dominator(target) == node && graph.essential.contains(edge) {
                    below.push(target);
                }
            }
        }
        below.truncate(MAX_BREADTH);
        let found = below.iter().filter_map(|&node| labels.site(node));
        let found: Vec<Site> = found.filter(|site| !site.file.starts_with("node:")).collect();
        if !found.is_empty() {
            sites.extend(found);
            break;
        }
        level = below;
    }
    sites.dedup();
    sites
}

/// What a pattern is called in a sentence.
pub fn noun(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::Listeners => "event listeners",
        Pattern::EventTargetListeners => "EventTarget listeners",
        Pattern::AbortSignalListeners => "AbortSignal listeners",
        Pattern::Map => "Map",
        Pattern::Set => "Set",
        Pattern::Dictionary => "object used as a dictionary",
        Pattern::Array => "array",
        Pattern::Promises => "promises",
        Pattern::Timers => "timers",
        Pattern::ClosureChain => "chain of closures",
        Pattern::LinkedList => "linked list",
        Pattern::StreamBuffer => "stream buffer",
        Pattern::Contexts => "vm contexts",
        Pattern::Handles => "open handles",
        Pattern::ArrayBuffers => "array buffers",
        Pattern::Strings => "strings",
        Pattern::Objects => "objects",
    }
}
