//! Whether the same id means the same object in two snapshots.
//!
//! Within one process V8 gives ids in rising order and never twice, so snapshots taken in that process
//! can be compared object by object. Snapshots of other processes, and those of forked children, reuse the
//! numbers: there the same id is another object, and comparing by it is worse than useless.

use rustc_hash::{FxHashMap, FxHashSet};

use super::bits::Bits;
use super::snapshot::{NodeKind, Snapshot};
use crate::report::{Identity, IdentityMode};

/// Nodes whose class is remembered of the first snapshot.
const SAMPLE: usize = 50_000;
/// Shared ids that must be of the same class. Within one process some strings are flattened or moved meanwhile.
const SAME_CLASS_SHARE: f64 = 0.99;
/// Shared ids below which nothing can be said.
const MIN_SHARED: u64 = 100;
/// New ids that must lie above all old ones.
const RISING_SHARE: f64 = 0.95;
/// A bit set may take as many bits for each id that it holds.
const MAX_BITS_PER_ID: u64 = 64;

/// A set of node ids: bits when they are dense, as V8's are, a hash set in a hostile file.
#[derive(Debug)]
pub enum IdSet {
    /// Dense ids.
    Dense(Bits),
    /// Any ids.
    Sparse(FxHashSet<u32>),
}

impl IdSet {
    /// All ids of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let ids = &snapshot.columns.node_id;
        let largest = ids.iter().max().map_or(0, |&id| u64::from(id));
        if largest <= MAX_BITS_PER_ID * (ids.len() as u64 + 1024) {
            Self::Dense(Bits::of(ids))
        } else {
            Self::Sparse(ids.iter().copied().collect())
        }
    }

    /// True when `id` is in the set.
    #[inline]
    pub fn contains(&self, id: u32) -> bool {
        match self {
            Self::Dense(bits) => bits.contains(id as usize),
            Self::Sparse(set) => set.contains(&id),
        }
    }
}

/// What is remembered of a snapshot to tell whether another one has the same ids.
#[derive(Debug)]
pub struct Fingerprint {
    /// Type and name of some nodes, by id.
    classes: FxHashMap<u32, (NodeKind, String)>,
    largest_id: u32,
    /// All ids.
    pub ids: IdSet,
}

impl Fingerprint {
    /// Takes it.
    pub fn of(snapshot: &Snapshot) -> Self {
        let telling = || {
            snapshot.nodes().filter(|&node| tells(snapshot.kind(node)) && is_own(snapshot.id(node)))
        };
        let step = telling().count().div_ceil(SAMPLE).max(1);
        let classes = telling()
            .step_by(step)
            .map(|node| {
                (snapshot.id(node), (snapshot.kind(node), snapshot.name_of(node).into_owned()))
            })
            .collect();
        let ids = snapshot.columns.node_id.iter().copied();
        let largest_id = ids.filter(|&id| is_own(id)).max().unwrap_or(0);
        Self { classes, largest_id, ids: IdSet::of(snapshot) }
    }

    /// Compares with a later snapshot.
    pub fn identity_with(&self, later: &Snapshot) -> Identity {
        let (mut shared, mut same, mut new, mut rising) = (0_u64, 0_u64, 0_u64, 0_u64);
        for node in later.nodes() {
            let kind = later.kind(node);
            let id = later.id(node);
            if let Some((class, name)) = self.classes.get(&id) {
                shared += 1;
                same += u64::from(*class == kind && later.name_of(node) == name.as_str());
            } else if is_own(id) && !self.ids.contains(id) {
                new += 1;
                rising += u64::from(id > self.largest_id);
            }
        }
        let share = |part: u64, all: u64| if all == 0 { 1.0 } else { part as f64 / all as f64 };
        let comparable = shared >= MIN_SHARED
            && share(same, shared) >= SAME_CLASS_SHARE
            && share(rising, new) >= RISING_SHARE;
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let reason = format!(
            "{} of the ids that were looked up belong to an object of the same class in both, and {} of the new ids are above all old ones",
            percent(share(same, shared.max(1))),
            percent(share(rising, new)),
        );
        let by = if comparable { IdentityMode::NodeIds } else { IdentityMode::Signatures };
        Identity { by, reason }
    }
}

/// V8 gives its own objects odd ids; even ones belong to the embedder's nodes, some of which are made anew for each
/// snapshot (`HeapObjectsMap::kObjectIdStep` in V8's heap-snapshot-generator.h).
fn is_own(id: u32) -> bool {
    id % 2 == 1
}

/// Kinds whose name does not change while the object lives.
fn tells(kind: NodeKind) -> bool {
    matches!(kind, NodeKind::Object | NodeKind::Closure | NodeKind::String)
}
