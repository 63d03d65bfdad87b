//! Leak suspects of one snapshot: places where one node holds many alike, ranked by what they retain.
//!
//! A suspect is a group of `shape` that fans out: its nodes are many for each of the nodes above them, or
//! form one long chain. What V8 and Node hold by nature (compiled code, hidden classes, loaded modules) is
//! no suspect. A snapshot alone cannot tell a leak from a cache that is meant to be large: that is what
//! `diff` is for, and the sentence says only what is there.

use rustc_hash::{FxHashMap, FxHashSet};

use super::graph::Graph;
use super::label::Labels;
use super::paths::describe;
use super::recognise::{Accumulation, Recognised, noun, recognise};
use super::shape::{Group, GroupIndex, Shapes};
use super::snapshot::{NodeKind, NodeOrdinal};
use crate::report::{Growth, Pattern, Site, Suspect};

/// Items that make an accumulation. Fewer are told by the biggest dominators.
pub const MIN_ITEMS: u64 = 16;
/// Items for each node above them that make a fan.
const MIN_FAN: u64 = 8;
/// The smallest share of the heap that is worth a sentence.
const MIN_SHARE: f64 = 0.01;
/// Items kept of each suspect for a closer look.
const MAX_KEPT_ITEMS: usize = 20_000;
/// Items that vote on what holds them, when their dominator is too high up to say.
const VOTERS: usize = 400;

/// A group that fans out, before it is described.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The items.
    pub group: GroupIndex,
    /// The node that holds them.
    pub container: NodeOrdinal,
    /// How many items there are.
    pub count: u64,
    /// Bytes they retain.
    pub retained_bytes: u64,
    /// True when each holds the next.
    pub chain: bool,
}

/// Ranks the suspects of one snapshot, at most `most` of them.
pub fn suspects(labels: &Labels<'_>, graph: &Graph, shapes: &Shapes, most: usize) -> Vec<Suspect> {
    let total = graph.order.first().map_or(0, |&root| graph.retained[root as usize]);
    let smallest = (total as f64 * MIN_SHARE) as u64;
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut fanning: FxHashSet<GroupIndex> = FxHashSet::default();
    let mut groups: Vec<_> = shapes
        .iter()
        .filter(|(_, group)| {
            group.retained_bytes >= smallest
                && fans_out(shapes, graph, group)
                && is_user_item(labels, group.example)
        })
        .map(|(index, _)| index)
        .collect();
    groups.sort_by_key(|&index| std::cmp::Reverse(shapes.group(index).retained_bytes));
    for &index in &groups {
        fanning.insert(index);
    }
    let voters = voters(shapes, &groups);
    for index in groups {
        // Of a fan within a fan the outer one is told.
        if ancestors(shapes, index).any(|above| fanning.contains(&above)) {
            continue;
        }
        let group = shapes.group(index);
        let above = shapes.group(group.parent);
        let items = voters.get(&index).map(Vec::as_slice).unwrap_or_default();
        let mut container = if is_chain(group) {
            above.example
        } else {
            common_dominator(graph, items).unwrap_or(above.example)
        };
        if labels.snapshot.kind(container) == NodeKind::Synthetic {
            match common_holder(labels, graph, items) {
                Some(holder) => container = holder,
                None if speaks_for_itself(labels, group.example) => {}
                None => {
                    fanning.remove(&index);
                    continue;
                }
            }
        }
        let chain = is_chain(group);
        let (count, retained_bytes) = (group.count, group.retained_bytes);
        match candidates.iter_mut().find(|known| known.container == container) {
            // Keys and values of one Map are one suspect, told by what retains more.
            Some(known) => known.retained_bytes += retained_bytes,
            None => {
                candidates.push(Candidate { group: index, container, count, retained_bytes, chain })
            }
        }
    }
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.retained_bytes));
    candidates.truncate(most);
    let items = items_of(shapes, candidates.iter().map(|candidate| candidate.group));
    candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| {
            let items = items.get(&candidate.group).cloned().unwrap_or_default();
            suspect(labels, graph, candidate, items, at + 1, total, None)
        })
        .collect()
}

/// Describes one candidate.
pub fn suspect(
    labels: &Labels<'_>,
    graph: &Graph,
    candidate: &Candidate,
    items: Vec<NodeOrdinal>,
    rank: usize,
    total: u64,
    growth: Option<Growth>,
) -> Suspect {
    let mut items = items;
    if !candidate.chain {
        // The one that stands for all should be in the container that is named.
        items.sort_by_key(|&item| graph.dominator(item) != candidate.container);
    }
    let accumulation =
        Accumulation { container: candidate.container, items, chain: candidate.chain };
    let found = recognise(labels, graph, &accumulation);
    let item = accumulation.items.first().copied().unwrap_or(candidate.container);
    let share = candidate.retained_bytes as f64 / total.max(1) as f64;
    let item_class = match labels.snapshot.kind(item) {
        NodeKind::Closure => labels.label(item),
        _ => labels.class_name(item),
    };
    let mut suspect = Suspect {
        rank,
        sentence: String::new(),
        pattern: found.pattern,
        holder: found.holder.clone(),
        site: found.site.clone(),
        item_sites: found.item_sites.clone(),
        container: labels.row(graph, found.container),
        item_class,
        count: candidate.count,
        retained_bytes: candidate.retained_bytes,
        share,
        growth,
        path: describe(labels, graph, &found.path),
    };
    let owner = found.owner.map(|owner| labels.class_name(owner));
    suspect.sentence = sentence(&suspect, &found, owner.as_deref());
    suspect
}

/// One sentence: what, held by what, where, how many, how much.
fn sentence(suspect: &Suspect, found: &Recognised, owner: Option<&str>) -> String {
    let mut text = capitalise(noun(suspect.pattern));
    if let Some(holder) = &suspect.holder {
        text.push_str(&format!(" held by `{holder}`"));
    }
    if let Some(site) = &suspect.site {
        text.push_str(&format!(" in {}", describe_site(site)));
    }
    let items = match suspect.pattern {
        Pattern::Map | Pattern::Set | Pattern::Dictionary => "entries",
        Pattern::Array => "elements",
        Pattern::Listeners | Pattern::EventTargetListeners | Pattern::AbortSignalListeners => {
            "listeners"
        }
        Pattern::ClosureChain | Pattern::LinkedList => "links",
        Pattern::StreamBuffer => "chunks",
        _ => "of them",
    };
    let of = match owner {
        Some(owner) => format!("{}, owned by {owner}", suspect.item_class),
        None => suspect.item_class.clone(),
    };
    text.push_str(&format!(
        ": {} {items} of {of}, {}, {:.0} % of the heap",
        grouped(suspect.count),
        bytes(suspect.retained_bytes),
        suspect.share * 100.0
    ));
    if let Some(growth) = &suspect.growth {
        let counts: Vec<String> = growth.counts.iter().map(|&count| grouped(count)).collect();
        text.push_str(&format!(
            "; grew {} ({}{} in all)",
            counts.join(" -> "),
            if growth.net_bytes < 0 { "-" } else { "+" },
            bytes(growth.net_bytes.unsigned_abs())
        ));
    }
    if let Some(site) = found.item_sites.first() {
        // Several that make such items are told one by one, below.
        let by = if site.count == 0 { "such are made by" } else { "made by" };
        text.push_str(&format!("; {by} {}", describe_site(&site.site)));
    }
    text
}

/// `function f, app.js:12`.
pub fn describe_site(site: &Site) -> String {
    let place = match site.line {
        0 => site.file.clone(),
        line => format!("{}:{line}", site.file),
    };
    if site.function.is_empty() { place } else { format!("{}, {place}", site.function) }
}

fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `41,210`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `83.1 MB`, powers of 1024.
pub fn bytes(value: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 || scaled >= 100.0 {
        format!("{scaled:.0} {}", units[unit])
    } else {
        format!("{scaled:.1} {}", units[unit])
    }
}

/// True when the nodes of a group are many for each node above them, or form a chain.
///
/// A group of which one node retains the greater part is no pile but one large object among small ones.
pub fn fans_out(shapes: &Shapes, graph: &Graph, group: &Group) -> bool {
    let above = shapes.group(group.parent);
    let fan = group.count >= MIN_FAN * above.heads.max(1)
        && graph.retained(group.example) <= group.retained_bytes / 2;
    group.count >= MIN_ITEMS && (fan || is_chain(group))
}

/// True when most of a group's nodes are links of long runs.
pub fn is_chain(group: &Group) -> bool {
    u64::from(group.longest_run) >= MIN_ITEMS && group.count >= MIN_FAN * group.heads
}

/// All groups above one.
pub fn ancestors(shapes: &Shapes, index: GroupIndex) -> impl Iterator<Item = GroupIndex> + '_ {
    std::iter::successors(Some(index), |&index| {
        let parent = shapes.group(index).parent;
        (parent != index).then_some(parent)
    })
    .skip(1)
}

/// True for what an app makes, false for what V8 and Node hold by nature.
pub fn is_user_item(labels: &Labels<'_>, node: NodeOrdinal) -> bool {
    let by_kind = match labels.snapshot.kind(node) {
        NodeKind::Code
        | NodeKind::ObjectShape
        | NodeKind::Hidden
        | NodeKind::Synthetic
        | NodeKind::Other => false,
        NodeKind::Native => !labels.snapshot.name_of(node).starts_with("Node / "),
        _ => true,
    };
    by_kind && !is_module(labels, node)
}

/// Modules, loaded once and kept for ever.
fn is_module(labels: &Labels<'_>, node: NodeOrdinal) -> bool {
    labels.site(node).is_some_and(|site| {
        site.file.starts_with("node:internal/modules")
            || site.file.starts_with("node:internal/bootstrap")
    })
}

/// True for an item whose class alone tells something when nothing common holds the items.
pub fn speaks_for_itself(labels: &Labels<'_>, node: NodeOrdinal) -> bool {
    match labels.snapshot.kind(node) {
        NodeKind::Object => {
            let name = labels.snapshot.name_of(node);
            let anything = ["Object", "Array", "Map", "Set", "system / Context"];
            labels.site(node).is_some() || !anything.contains(&name.as_ref())
        }
        NodeKind::Closure => labels.site(node).is_some_and(|site| !site.file.starts_with("node:")),
        _ => false,
    }
}

/// Some nodes of each of the groups.
fn voters(shapes: &Shapes, groups: &[GroupIndex]) -> FxHashMap<GroupIndex, Vec<NodeOrdinal>> {
    collect(shapes, groups.iter().copied(), VOTERS)
}

/// Nodes of each of the groups, by retained size of nothing: in file order.
pub fn items_of(
    shapes: &Shapes,
    groups: impl Iterator<Item = GroupIndex>,
) -> FxHashMap<GroupIndex, Vec<NodeOrdinal>> {
    collect(shapes, groups, MAX_KEPT_ITEMS)
}

fn collect(
    shapes: &Shapes,
    groups: impl Iterator<Item = GroupIndex>,
    most: usize,
) -> FxHashMap<GroupIndex, Vec<NodeOrdinal>> {
    // Every step-th node of a group, so that the sample spans all of it.
    let mut place = vec![u32::MAX; shapes.groups.len()];
    let mut lists: Vec<(GroupIndex, u64, u64, Vec<NodeOrdinal>)> = Vec::new();
    for group in groups {
        place[group.0 as usize] = lists.len() as u32;
        let step = shapes.group(group).count.div_ceil(most as u64).max(1);
        lists.push((group, step, 0, Vec::new()));
    }
    for (node, &group) in shapes.group_of.iter().enumerate() {
        if let Some((_, step, seen, list)) = lists.get_mut(place[group as usize] as usize) {
            if seen.is_multiple_of(*step) {
                list.push(NodeOrdinal(node as u32));
            }
            *seen += 1;
        }
    }
    lists.into_iter().map(|(group, _, _, list)| (group, list)).collect()
}

/// The node that immediately dominates most of the items.
pub fn common_dominator(graph: &Graph, items: &[NodeOrdinal]) -> Option<NodeOrdinal> {
    let mut votes: FxHashMap<NodeOrdinal, usize> = FxHashMap::default();
    for &item in items {
        *votes.entry(graph.dominator(item)).or_insert(0) += 1;
    }
    votes
        .into_iter()
        .max_by_key(|&(node, count)| (count, std::cmp::Reverse(node)))
        .map(|(node, _)| node)
}

/// The node that most of the items hang on directly, when at least half of them do.
pub fn common_holder(
    labels: &Labels<'_>,
    graph: &Graph,
    items: &[NodeOrdinal],
) -> Option<NodeOrdinal> {
    let mut votes: FxHashMap<u32, usize> = FxHashMap::default();
    for &item in items {
        let retainers = graph.retainers.of(item.0);
        let mut seen = FxHashSet::default();
        for &retainer in retainers.iter().take(64) {
            if seen.insert(retainer)
                && labels.snapshot.kind(NodeOrdinal(retainer)) != NodeKind::Synthetic
            {
                *votes.entry(retainer).or_insert(0) += 1;
            }
        }
    }
    let most = votes
        .into_iter()
        .filter(|&(node, _)| holds_many(labels, node))
        .max_by_key(|&(node, count)| (count, std::cmp::Reverse(node)));
    most.filter(|&(_, count)| count * 2 >= items.len().max(2)).map(|(node, _)| NodeOrdinal(node))
}

/// Collections have many edges; hidden classes and contexts that all items share have few, and are no holders.
fn holds_many(labels: &Labels<'_>, node: u32) -> bool {
    let node = NodeOrdinal(node);
    let kind = labels.snapshot.kind(node);
    labels.snapshot.edges(node).len() as u64 >= MIN_ITEMS
        && matches!(kind, NodeKind::Array | NodeKind::Object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KB");
        assert_eq!(bytes(83 << 20), "83.0 MB");
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(41_210), "41,210");
        assert_eq!(grouped(1_000_000), "1,000,000");
    }
}
