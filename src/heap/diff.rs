//! What grew from one snapshot of an app to the next.
//!
//! With stable ids every new node is given to the nearest node above it that was there before: the place
//! where it was added. A place is suspect when more came than went, and with three snapshots when what
//! came before the second one still lives and more came after it: a cache that turns over, a burst or
//! a warm-up fails one of these. Without stable ids the groups of `shape` are compared by signature. Snapshots
//! are held one at a time; of an earlier one only a [`Base`] is kept.

use rustc_hash::{FxHashMap, FxHashSet};

use super::classes::Classes;
use super::graph::Graph;
use super::identity::Fingerprint;
use super::label::Labels;
use super::shape::{GroupIndex, Shapes};
use super::snapshot::{NodeKind, NodeOrdinal, Snapshot};
use super::suspects::{
    Candidate, MIN_ITEMS, ancestors, common_dominator, common_holder, is_chain, is_user_item,
    items_of, speaks_for_itself, suspect,
};
use super::tree::Dominated;
use crate::report::{ClassDelta, Growth, IdentityMode, Suspect};

/// The smallest growth that is worth a sentence, as a share of the heap: with three snapshots, which show whether it
/// goes on, and with two, which do not, by node ids and by signature, which sees turnover as growth.
const MIN_GROWTH_SHARE: f64 = 0.003;
const MIN_GROWTH_SHARE_OF_TWO: f64 = 0.02;
const MIN_GROWTH_SHARE_OF_TWO_BY_SIGNATURE: f64 = 0.05;
/// And in bytes: code that is compiled lazily and caches of V8 stay below.
const MIN_GROWTH_BYTES: u64 = 16 << 10;
/// New items needed for each that went.
const MIN_TURNOVER: f64 = 1.5;
/// With three snapshots, items that must have come in each of the two intervals.
const MIN_ITEMS_EACH: u64 = 5;
/// By signature, growth of the count that is needed, as a factor.
const MIN_FACTOR: f64 = 1.2;
/// Growth of loose items in the second interval, for each in the first.
const MIN_PACE: f64 = 0.75;
/// Loose items that must have come.
const MIN_LOOSE_ITEMS: u64 = 100;
/// How many times more must have come to where nothing was, to be told before what was there and grew.
const FROM_NOTHING: i64 = 4;
/// Nodes that are kept to name a place's items.
const VOTERS: usize = 400;

/// A place in the heap: the id of the node under which things come and go, and the class of what hangs on it.
type Place = (u32, u64);

/// What is kept of an earlier snapshot.
#[derive(Debug)]
pub struct Base {
    /// To tell whether ids are comparable, and which nodes were there.
    pub fingerprint: Fingerprint,
    /// Retained size of the root.
    pub retained_bytes: u64,
    /// Sums by class.
    pub classes: FxHashMap<String, ClassSum>,
    /// Groups by signature.
    groups: FxHashMap<u64, GroupSum>,
    /// For each node, what it would take to find the place it goes missing from.
    nodes: Vec<BaseNode>,
}

/// Sums of one class.
#[derive(Debug, Default, Clone)]
pub struct ClassSum {
    /// Nodes.
    pub count: u64,
    /// Shallow sizes.
    pub shallow_bytes: u64,
    /// Retained sizes.
    pub retained_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct GroupSum {
    count: u64,
    retained_bytes: u64,
}

/// A node of an earlier snapshot, dominators before what they dominate.
#[derive(Debug, Clone, Copy)]
struct BaseNode {
    id: u32,
    /// Index of the dominator in the list.
    dominator: u32,
    shallow: u32,
    class: u32,
}

impl Base {
    /// Takes from a snapshot what a comparison needs.
    pub fn new(labels: &Labels<'_>, graph: &Graph, shapes: &Shapes, classes: &Classes) -> Self {
        let snapshot = labels.snapshot;
        let groups = shapes
            .groups
            .iter()
            .map(|group| {
                (
                    group.signature,
                    GroupSum { count: group.count, retained_bytes: group.retained_bytes },
                )
            })
            .collect();
        let mut place = vec![0_u32; snapshot.node_count()];
        let nodes = graph.order.iter().enumerate().map(|(at, &node)| {
            place[node as usize] = at as u32;
            let ordinal = NodeOrdinal(node);
            BaseNode {
                id: snapshot.id(ordinal),
                dominator: place[graph.dominator[node as usize] as usize],
                shallow: u32::try_from(graph.shallow(ordinal)).unwrap_or(u32::MAX),
                class: shapes.group(shapes.of(ordinal)).class,
            }
        });
        let mut nodes: Vec<BaseNode> = nodes.collect();
        // Classes by their hash, so that they mean something in the later snapshot: the low 32 bits do.
        for node in &mut nodes {
            node.class = shapes.class_hash.get(node.class as usize).map_or(0, |&hash| hash as u32);
        }
        Self {
            fingerprint: Fingerprint::of(snapshot),
            retained_bytes: graph.order.first().map_or(0, |&root| graph.retained[root as usize]),
            classes: class_sums(classes),
            groups,
            nodes,
        }
    }

    /// What is not `still_there`, by place.
    fn gone(&self, still_there: impl Fn(u32) -> bool) -> FxHashMap<Place, Sum> {
        let mut sums: FxHashMap<Place, Sum> = FxHashMap::default();
        // For each node that is gone: index of the nearest node above that is still there, and the class of the
        // gone node right below that.
        let mut below: Vec<(u32, u32)> = Vec::with_capacity(self.nodes.len());
        for (at, node) in self.nodes.iter().enumerate() {
            if at == 0 || still_there(node.id) {
                below.push((at as u32, 0));
                continue;
            }
            let (anchor, class) = below[node.dominator as usize];
            let class = if anchor == node.dominator { node.class } else { class };
            below.push((anchor, class));
            let anchor_id = self.nodes[anchor as usize].id;
            let sum = sums.entry((anchor_id, u64::from(class))).or_default();
            sum.nodes += 1;
            sum.bytes += u64::from(node.shallow);
            sum.tops += u64::from(anchor == node.dominator);
        }
        sums
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    nodes: u64,
    bytes: u64,
    /// Nodes right below the anchor.
    tops: u64,
}

/// Sums by class name.
pub fn class_sums(classes: &Classes) -> FxHashMap<String, ClassSum> {
    let rows = classes.rows.iter().filter(|row| row.count > 0);
    rows.map(|row| {
        let sum = ClassSum {
            count: row.count,
            shallow_bytes: row.shallow_bytes,
            retained_bytes: row.retained_bytes,
        };
        (row.class_name.clone(), sum)
    })
    .collect()
}

/// The last snapshot of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Latest<'a> {
    /// Its names.
    pub labels: &'a Labels<'a>,
    /// Its graph.
    pub graph: &'a Graph,
    /// Its groups.
    pub shapes: &'a Shapes,
    /// Its classes.
    pub classes: &'a Classes,
    /// Its dominator tree, downwards.
    pub dominated: &'a Dominated,
}

impl Latest<'_> {
    fn total(&self) -> u64 {
        self.graph.order.first().map_or(0, |&root| self.graph.retained[root as usize])
    }

    fn snapshot(&self) -> &Snapshot {
        self.labels.snapshot
    }
}

/// Ranks what grew from `first` over `middle` to `last`, at most `most` places.
pub fn growth(
    by: IdentityMode,
    first: &Base,
    middle: Option<&Base>,
    last: Latest<'_>,
    most: usize,
) -> Vec<Suspect> {
    let mut grown = match by {
        IdentityMode::NodeIds => by_ids(first, middle, last),
        IdentityMode::Signatures => by_signature(first, middle, last),
    };
    grown.sort_by_key(|grown| std::cmp::Reverse(weight(&grown.growth)));
    grown.truncate(most);
    let items = items_of(last.shapes, grown.iter().map(|grown| grown.candidate.group));
    grown
        .into_iter()
        .enumerate()
        .map(|(at, grown)| {
            let items = match grown.items {
                Some(items) => items,
                None => items.get(&grown.candidate.group).cloned().unwrap_or_default(),
            };
            let total = last.total();
            suspect(
                last.labels,
                last.graph,
                &grown.candidate,
                items,
                at + 1,
                total,
                Some(grown.growth),
            )
        })
        .collect()
}

/// What a place is ranked by: its growth, and less of it where nothing was before. A batch or a queue that happens
/// to be full comes out of nothing; a leak was there, unless it has just begun, and then it outweighs this soon.
fn weight(growth: &Growth) -> i64 {
    match growth.counts.first() {
        Some(0) => growth.net_bytes / FROM_NOTHING,
        _ => growth.net_bytes,
    }
}

struct Grown {
    candidate: Candidate,
    growth: Growth,
    /// Items, when the whole group is not meant.
    items: Option<Vec<NodeOrdinal>>,
}

fn smallest_growth(last: Latest<'_>, by: IdentityMode, middle: Option<&Base>) -> u64 {
    let share = match (middle, by) {
        (Some(_), _) => MIN_GROWTH_SHARE,
        (None, IdentityMode::NodeIds) => MIN_GROWTH_SHARE_OF_TWO,
        (None, IdentityMode::Signatures) => MIN_GROWTH_SHARE_OF_TWO_BY_SIGNATURE,
    };
    ((last.total() as f64 * share) as u64).max(MIN_GROWTH_BYTES)
}

/// New nodes under one place of the last snapshot.
#[derive(Debug, Default)]
struct Arrival {
    anchor: NodeOrdinal,
    sum: Sum,
    survivors: u64,
    survivor_bytes: u64,
    /// New nodes by group.
    groups: FxHashMap<GroupIndex, (u64, u64)>,
}

fn by_ids(first: &Base, middle: Option<&Base>, last: Latest<'_>) -> Vec<Grown> {
    let (graph, shapes, snapshot) = (last.graph, last.shapes, last.snapshot());
    let now = super::identity::IdSet::of(snapshot);
    let gone = first.gone(|id| now.contains(id));
    let old = |node: u32| first.fingerprint.ids.contains(snapshot.columns.node_id[node as usize]);
    let class = |node: u32| {
        let class = shapes.group(shapes.of(NodeOrdinal(node))).class;
        u64::from(shapes.class_hash[class as usize] as u32)
    };
    let mut arrivals: FxHashMap<Place, Arrival> = FxHashMap::default();
    // For each new node: its anchor, and the new node right below that.
    let mut anchor = vec![0_u32; snapshot.node_count()];
    let mut top = vec![0_u32; snapshot.node_count()];
    for (at, &node) in graph.order.iter().enumerate() {
        let index = node as usize;
        if at == 0 || old(node) {
            anchor[index] = node;
            continue;
        }
        let above = graph.dominator[index] as usize;
        anchor[index] = anchor[above];
        let is_top = anchor[above] as usize == above;
        top[index] = if is_top { node } else { top[above] };
        let ordinal = NodeOrdinal(node);
        let place = (snapshot.columns.node_id[anchor[index] as usize], class(top[index]));
        let arrival = arrivals.entry(place).or_default();
        arrival.anchor = NodeOrdinal(anchor[index]);
        let shallow = graph.shallow(ordinal);
        arrival.sum.nodes += 1;
        arrival.sum.bytes += shallow;
        arrival.sum.tops += u64::from(is_top);
        let survived =
            middle.is_some_and(|middle| middle.fingerprint.ids.contains(snapshot.id(ordinal)));
        arrival.survivors += u64::from(survived);
        arrival.survivor_bytes += if survived { shallow } else { 0 };
        let of_group = arrival.groups.entry(shapes.of(ordinal)).or_insert((0, 0));
        of_group.0 += 1;
        of_group.1 += u64::from(survived);
    }
    let smallest = smallest_growth(last, IdentityMode::NodeIds, middle);
    let mut found: Vec<(Grown, NodeOrdinal)> = Vec::new();
    let arrivals: Vec<_> = arrivals
        .into_iter()
        .map(|(place, arrival)| (gone.get(&place).copied().unwrap_or_default(), arrival))
        .filter(|(went, arrival)| {
            let enough = arrival.sum.bytes.saturating_sub(went.bytes) >= smallest;
            enough && arrival.sum.bytes as f64 >= MIN_TURNOVER * went.bytes as f64
        })
        .collect();
    // The items of a place: of its groups with many new nodes the uppermost, and of those what weighs most.
    let chosen: Vec<Option<GroupIndex>> =
        arrivals.iter().map(|(_, arrival)| uppermost(last, arrival)).collect();
    let new_items = new_items(last, &chosen, &arrivals, &anchor, &old);
    for (((went, arrival), group), items) in arrivals.into_iter().zip(chosen).zip(new_items) {
        let Some(group) = group else { continue };
        let (came, survived) = arrival.groups.get(&group).copied().unwrap_or((0, 0));
        let newborn = came - survived;
        if middle.is_some() && (survived < MIN_ITEMS_EACH || newborn < MIN_ITEMS_EACH) {
            continue;
        }
        let chain = is_chain(shapes.group(group));
        let Some(container) = container(last, group, arrival.anchor, &items, chain) else {
            continue;
        };
        let net = arrival.sum.bytes as i64 - went.bytes as i64;
        let after = under(last, group, container, came);
        let before = after.saturating_sub(came);
        let counts = match middle {
            Some(_) => vec![before, before + survived, after],
            None => vec![before, after],
        };
        if !goes_on(last, container, &counts) {
            continue;
        }
        let growth = Growth {
            counts,
            net_bytes: net,
            survivors: middle.map(|_| arrival.survivors),
            newborn: middle.map(|_| arrival.sum.nodes - arrival.survivors),
            died: Some(went.nodes),
        };
        let retained_bytes =
            last.graph.retained(container).min(arrival.sum.bytes.max(group_bytes(last, group)));
        let candidate = Candidate { group, container, count: after, retained_bytes, chain };
        match found.iter_mut().find(|(_, known)| *known == container) {
            Some((known, _)) => {
                if known.growth.net_bytes < net {
                    let both = known.growth.net_bytes + net;
                    *known = Grown { candidate, growth, items: Some(items) };
                    known.growth.net_bytes = both;
                } else {
                    known.growth.net_bytes += net;
                }
            }
            None => found.push((Grown { candidate, growth, items: Some(items) }, container)),
        }
    }
    found.into_iter().map(|(grown, _)| grown).collect()
}

fn group_bytes(last: Latest<'_>, group: GroupIndex) -> u64 {
    last.shapes.group(group).retained_bytes
}

/// All items of the group in one container, at least `least`.
fn under(last: Latest<'_>, group: GroupIndex, container: NodeOrdinal, least: u64) -> u64 {
    let group_count = last.shapes.group(group).count;
    if is_chain(last.shapes.group(group)) {
        return group_count.max(least);
    }
    let children = last.dominated.by(container).iter();
    let here =
        children.filter(|&&child| last.shapes.of(NodeOrdinal(child)) == group).count() as u64;
    here.max(least)
}

fn uppermost(last: Latest<'_>, arrival: &Arrival) -> Option<GroupIndex> {
    let many: FxHashSet<GroupIndex> = arrival
        .groups
        .iter()
        .filter(|&(&group, &(count, _))| {
            count >= MIN_ITEMS && is_user_item(last.labels, last.shapes.group(group).example)
        })
        .map(|(&group, _)| group)
        .collect();
    let topmost = many
        .iter()
        .filter(|&&group| !ancestors(last.shapes, group).any(|above| many.contains(&above)));
    topmost.copied().max_by_key(|&group| (group_bytes(last, group), std::cmp::Reverse(group)))
}

/// Some of the new nodes of each chosen group under its anchor.
fn new_items(
    last: Latest<'_>,
    chosen: &[Option<GroupIndex>],
    arrivals: &[(Sum, Arrival)],
    anchor: &[u32],
    old: &impl Fn(u32) -> bool,
) -> Vec<Vec<NodeOrdinal>> {
    let mut wanted: FxHashMap<(GroupIndex, u32), usize> = FxHashMap::default();
    for (at, (group, (_, arrival))) in chosen.iter().zip(arrivals).enumerate() {
        if let Some(group) = group {
            wanted.insert((*group, arrival.anchor.0), at);
        }
    }
    let mut lists = vec![Vec::new(); arrivals.len()];
    for (node, &group) in last.shapes.group_of.iter().enumerate() {
        let node = node as u32;
        if let Some(&at) = wanted.get(&(GroupIndex(group), anchor[node as usize]))
            && lists[at].len() < 4 * VOTERS
            && !old(node)
        {
            lists[at].push(NodeOrdinal(node));
        }
    }
    lists
}

/// What a person would call the place where items pile up; `None` when nothing tells.
fn container(
    last: Latest<'_>,
    group: GroupIndex,
    anchor: NodeOrdinal,
    items: &[NodeOrdinal],
    chain: bool,
) -> Option<NodeOrdinal> {
    let voters = &items[..items.len().min(VOTERS)];
    let nearest = if chain {
        // A chain may grow at either end; it is told from its beginning.
        Some(last.shapes.group(last.shapes.group(group).parent).example)
    } else {
        common_dominator(last.graph, voters)
    };
    let nearest = nearest.unwrap_or(anchor);
    if last.snapshot().kind(nearest) != NodeKind::Synthetic {
        return Some(nearest);
    }
    let holder = common_holder(last.labels, last.graph, voters);
    holder.or_else(|| {
        speaks_for_itself(last.labels, last.shapes.group(group).example).then_some(nearest)
    })
}

/// What no collection holds follows the traffic as connections do: it must go on growing at the pace it began with.
fn goes_on(last: Latest<'_>, container: NodeOrdinal, counts: &[u64]) -> bool {
    if last.snapshot().kind(container) != NodeKind::Synthetic {
        return true;
    }
    let pace = |pair: &[u64]| pair[1].saturating_sub(pair[0]);
    let grown: Vec<u64> = counts.windows(2).map(pace).collect();
    let total: u64 = grown.iter().sum();
    let steady = match grown[..] {
        [early, late] => late as f64 >= MIN_PACE * early as f64,
        _ => true,
    };
    total >= MIN_LOOSE_ITEMS && steady
}

fn by_signature(first: &Base, middle: Option<&Base>, last: Latest<'_>) -> Vec<Grown> {
    let shapes = last.shapes;
    let smallest = smallest_growth(last, IdentityMode::Signatures, middle) as i64;
    let before = |base: &Base, group: GroupIndex| {
        let none = GroupSum { count: 0, retained_bytes: 0 };
        base.groups.get(&shapes.group(group).signature).copied().unwrap_or(none)
    };
    let enough = |from: u64, to: u64, least: u64| {
        to >= from + least
            && to as f64
                >= from as f64
                    * (1.0 + (MIN_FACTOR - 1.0) / if middle.is_some() { 4.0 } else { 1.0 })
    };
    let grew: FxHashSet<GroupIndex> = shapes
        .iter()
        .filter(|&(index, group)| {
            let a = before(first, index).count;
            match middle {
                None => enough(a, group.count, MIN_ITEMS),
                Some(middle) => {
                    let b = before(middle, index).count;
                    enough(a, b, MIN_ITEMS_EACH)
                        && enough(b, group.count, MIN_ITEMS_EACH)
                        && enough(a, group.count, MIN_ITEMS)
                }
            }
        })
        .map(|(index, _)| index)
        .collect();
    let mut candidates: Vec<(GroupIndex, i64)> = grew
        .iter()
        .map(|&index| {
            let net = group_bytes(last, index) as i64 - before(first, index).retained_bytes as i64;
            (index, net)
        })
        .filter(|&(index, net)| {
            net >= smallest
                && is_user_item(last.labels, shapes.group(index).example)
                && !ancestors(shapes, index).any(|above| grew.contains(&above))
        })
        .collect();
    candidates.sort_by_key(|&(index, net)| (std::cmp::Reverse(net), index));
    let items = items_of(shapes, candidates.iter().map(|&(index, _)| index));
    let mut found: Vec<Grown> = Vec::new();
    for (index, net) in candidates {
        let group = shapes.group(index);
        let chain = is_chain(group);
        let items = items.get(&index).map(Vec::as_slice).unwrap_or_default();
        let above = shapes.group(group.parent).example;
        let Some(container) = container(last, index, above, items, chain) else { continue };
        let mut counts = vec![before(first, index).count];
        counts.extend(middle.map(|middle| before(middle, index).count));
        counts.push(group.count);
        if !goes_on(last, container, &counts) {
            continue;
        }
        let growth = Growth { counts, net_bytes: net, survivors: None, newborn: None, died: None };
        if let Some(known) = found.iter_mut().find(|known| known.candidate.container == container) {
            known.growth.net_bytes += net;
            known.candidate.retained_bytes += group.retained_bytes;
            continue;
        }
        let candidate = Candidate {
            group: index,
            container,
            count: group.count,
            retained_bytes: group.retained_bytes,
            chain,
        };
        found.push(Grown { candidate, growth, items: None });
    }
    found
}

/// How classes changed, by growth of their shallow sizes, largest first.
pub fn class_deltas(by: IdentityMode, first: &Base, last: Latest<'_>) -> Vec<ClassDelta> {
    let now = class_sums(last.classes);
    let mut added: FxHashMap<&str, u64> = FxHashMap::default();
    if by == IdentityMode::NodeIds {
        for node in last.snapshot().nodes() {
            if last.graph.shallow(node) != 0
                && !first.fingerprint.ids.contains(last.snapshot().id(node))
            {
                let class = last.classes.rows[last.classes.of(node)].class_name.as_str();
                *added.entry(class).or_insert(0) += 1;
            }
        }
    }
    let mut names: Vec<&String> = now.keys().chain(first.classes.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut rows: Vec<ClassDelta> = names
        .into_iter()
        .filter_map(|name| {
            let before = first.classes.get(name).cloned().unwrap_or_default();
            let after = now.get(name).cloned().unwrap_or_default();
            let came = added.get(name.as_str()).copied().unwrap_or(0);
            let row = ClassDelta {
                class_name: name.clone(),
                count_before: before.count,
                count_after: after.count,
                added: (by == IdentityMode::NodeIds).then_some(came),
                removed: (by == IdentityMode::NodeIds)
                    .then(|| (before.count + came).saturating_sub(after.count)),
                shallow_delta: after.shallow_bytes as i64 - before.shallow_bytes as i64,
                retained_delta: after.retained_bytes as i64 - before.retained_bytes as i64,
            };
            let changed = row.shallow_delta != 0 || row.count_before != row.count_after || came > 0;
            changed.then_some(row)
        })
        .collect();
    rows.sort_by(|a, b| {
        b.shallow_delta.cmp(&a.shallow_delta).then_with(|| a.class_name.cmp(&b.class_name))
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(counts: &[u64], net_bytes: i64) -> Growth {
        let counts = counts.to_vec();
        Growth { counts, net_bytes, survivors: None, newborn: None, died: None }
    }

    #[test]
    fn what_comes_out_of_nothing_is_told_after_what_was_there_and_grew() {
        let batch = weight(&grown(&[0, 500], 1700));
        assert!(weight(&grown(&[300, 1300], 1200)) > batch);
        // A leak that has just begun outweighs it soon.
        assert!(weight(&grown(&[300, 1300], 400)) < batch);
    }
}
