//! Whether a snapshot may be taken now, and how: predicted memory, pause and file against what is left,
//! count and cooldown against what was spent. Pure: every figure is an argument, every refusal carries
//! its numbers and what would have sufficed.
//!
//! It does not read a figure, keep a count or free disk space: `store` and the ledger do, under the lock
//! of the directory.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{Compression, WallMillis};
use super::state::CooldownKey;
use crate::config::{Config, SnapshotMode};
use crate::sample::ProcessSample;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Memory left alone below a limit, as a share of that limit. Raising it refuses more snapshots,
/// lowering it leaves less room for what the app itself allocates meanwhile. The app stands still
/// during an inline snapshot, so little is needed.
const MARGIN_INLINE: f64 = 0.05;
/// The app goes on allocating while a forked child writes.
const MARGIN_FORK: f64 = 0.10;
/// With `memory.oom.group` the kernel kills the app along with the child: see FACTS, snapshots.
const MARGIN_FORK_OOM_GROUP: f64 = 0.15;
/// The least margin, whatever the limit: kernel memory and sockets are charged to a cgroup too.
const MIN_MARGIN_BYTES: u64 = 16 * MIB;
/// Left alone on the file system, so that the app's own logs still find room.
const DISK_MARGIN_BYTES: u64 = 16 * MIB;
/// Above this share of V8's limit the collection that begins every snapshot may end in V8's fatal
/// out-of-memory instead.
const HEAP_LIMIT_SHARE: f64 = 0.97;
/// An empty Node has about 4 MiB of live heap; a smaller figure is a reading gone wrong.
const MIN_HEAP_BYTES: u64 = 4 * MIB;
/// Extra bytes per byte in large-object space: an array slot of 8 bytes becomes an edge of about 32,
/// a long string almost nothing (V8 cuts strings at 1024 characters). Far below small objects.
const LARGE_OBJECT_FACTOR: f64 = 5.0;
/// Compressed size assumed for the quota: measured 11 x smaller with zstd -1, promised 4 x.
const COMPRESSION_FACTOR: u64 = 4;
/// A file may become this many times larger than predicted before it is thrown away unfinished: the
/// pause has been paid by then.
const FILE_SLACK: u64 = 3;
/// How long a snapshot may take before others no longer wait for it, beyond four times its prediction.
const MIN_TIMEOUT_MILLIS: u64 = 60_000;
/// The same for a forked child: it runs at nice 19, and on a busy machine takes what the others leave.
const MIN_TIMEOUT_FORK_MILLIS: u64 = 300_000;
/// The window of `LEAKGUARD_MAX_SNAPSHOTS`.
pub const COUNT_WINDOW_MILLIS: u64 = 24 * 3600 * 1000;

/// How a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In the app's process; its loop stands still.
    Inline,
    /// In a forked child; the app stops for the fork alone.
    Fork,
}

/// Why a snapshot is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotReason {
    /// First snapshot of a finding.
    Finding,
    /// The second of a pair, `LEAKGUARD_FOLLOWUP` after the first.
    FollowUp,
    /// End of the warm-up, `LEAKGUARD_BASELINE`.
    Baseline,
    /// `leakguard.snapshot()` or the signal.
    OnDemand,
    /// A limit is near.
    NearLimit,
}

impl SnapshotReason {
    /// Every reason, in the order of the variants.
    pub const ALL: [SnapshotReason; 5] =
        [Self::Finding, Self::FollowUp, Self::Baseline, Self::OnDemand, Self::NearLimit];

    /// The stable code, as in the files: `follow_up`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Finding => "finding",
            Self::FollowUp => "follow_up",
            Self::Baseline => "baseline",
            Self::OnDemand => "on_demand",
            Self::NearLimit => "near_limit",
        }
    }
}

/// A snapshot that is asked for.
#[derive(Clone, Debug)]
pub struct SnapshotRequest {
    /// Why.
    pub reason: SnapshotReason,
    /// What the cooldown goes by. Only [`SnapshotReason::Finding`] and [`SnapshotReason::NearLimit`] look
    /// at it: a follow-up belongs to its finding, a baseline to the start, and on demand skips it.
    pub key: Option<CooldownKey>,
    /// Ways the operator allows.
    pub modes: SnapshotMode,
    /// Whether the self-test of forked snapshots passed in this process.
    pub fork_possible: bool,
    /// Major version of Node; predictions are learnt for each.
    pub node_major: u32,
    /// How the file will be packed.
    pub compression: Compression,
    /// The guard has been stopped or the process is exiting.
    pub shutting_down: bool,
    /// This process is already taking one.
    pub in_progress: bool,
}

/// What is so at the moment of the request. Absent means unknown or unlimited: it limits nothing.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Live heap of the isolate after its last major GC, or `used_heap_size`; bytes.
    pub live_heap_bytes: u64,
    /// Part of it in V8's large-object spaces, bytes.
    pub large_object_bytes: Option<u64>,
    /// V8's `heap_size_limit`, bytes.
    pub v8_heap_limit_bytes: Option<u64>,
    /// Resident set of the process, bytes.
    pub rss_bytes: Option<u64>,
    /// Memory charged to the cgroup, inactive file cache not counted; bytes.
    pub cgroup_used_bytes: Option<u64>,
    /// Lowest limit on the way up the cgroup tree, bytes.
    pub cgroup_limit_bytes: Option<u64>,
    /// What is left until the OOM killer comes, ancestors that are shared with others looked at; bytes.
    pub cgroup_headroom_bytes: Option<u64>,
    /// `memory.oom.group`.
    pub cgroup_oom_group: Option<bool>,
    /// `MemAvailable` of the machine, bytes.
    pub mem_available_bytes: Option<u64>,
    /// `RLIMIT_AS`, bytes.
    pub address_space_limit_bytes: Option<u64>,
    /// Address space in use, bytes.
    pub address_space_bytes: Option<u64>,
    /// Free bytes on the file system of the directory. The ledger fills this and the next two.
    pub disk_free_bytes: Option<u64>,
    /// Whether that file system is memory (tmpfs): then the file counts as memory as well.
    pub disk_is_memory: bool,
    /// Bytes of our files that retention would not remove for this snapshot.
    pub quota_used_bytes: u64,
}

impl Figures {
    /// The memory members from a sample; those of the heap are the caller's, those of the disk the ledger's.
    #[must_use]
    pub fn from_sample(live_heap_bytes: u64, process: &ProcessSample) -> Self {
        Self {
            live_heap_bytes,
            rss_bytes: process.rss_bytes,
            cgroup_used_bytes: process.cgroup_used_bytes,
            cgroup_limit_bytes: process.cgroup_limit_bytes,
            cgroup_headroom_bytes: process.cgroup_headroom_bytes,
            cgroup_oom_group: process.cgroup_oom_group,
            mem_available_bytes: process.mem_available_bytes,
            address_space_limit_bytes: process.address_space_limit_bytes,
            address_space_bytes: process.address_space_bytes,
            ..Self::default()
        }
    }
}

/// What may be spent.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `LEAKGUARD_MAX_PAUSE`, ms.
    pub max_pause_millis: u64,
    /// `LEAKGUARD_MAX_SNAPSHOTS` in any 24 h.
    pub max_snapshots: u64,
    /// `LEAKGUARD_MAX_DISK`, bytes.
    pub max_disk_bytes: u64,
    /// `LEAKGUARD_COOLDOWN`, ms.
    pub cooldown_millis: u64,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            max_pause_millis: config.max_pause_ms,
            max_snapshots: u64::from(config.max_snapshots),
            max_disk_bytes: config.max_disk_bytes,
            cooldown_millis: config.cooldown_ms,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pause_millis: 10_000,
            max_snapshots: 4,
            max_disk_bytes: 512 * MIB,
            cooldown_millis: 6 * 3600 * 1000,
        }
    }
}

/// What the directory remembers that bears on this request.
#[derive(Clone, Debug, Default)]
pub struct StateView {
    /// Snapshots begun in the last 24 h, by all processes.
    pub taken: u64,
    /// When the oldest of those was begun.
    pub oldest: Option<WallMillis>,
    /// When the last snapshot for the same key was begun.
    pub same_key: Option<WallMillis>,
    /// A snapshot that another process is taking now: its pid, and when we stop waiting for it.
    pub busy: Option<(u32, WallMillis)>,
}

/// What one mode is expected to cost, per byte of live heap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModePrediction {
    /// Extra memory at the peak over live heap, small objects.
    pub extra_per_heap: f64,
    /// Pause of the loop, ms per MiB of live heap.
    pub pause_millis_per_mib: f64,
    /// Uncompressed file over live heap.
    pub file_per_heap: f64,
    /// Snapshots it was learnt from; 0: the prior.
    pub learned_from: usize,
}

impl ModePrediction {
    /// Before the first snapshot. FACTS, snapshots: 9-16 x the heap, 82-114 ms per MB, a file of
    /// 2 x the heap; forked 0.17-0.24 ms per MB.
    #[must_use]
    pub fn prior(mode: Mode) -> Self {
        Self {
            extra_per_heap: 16.0,
            pause_millis_per_mib: match mode {
                Mode::Inline => 115.0,
                Mode::Fork => 0.3,
            },
            file_per_heap: 2.2,
            learned_from: 0,
        }
    }
}

/// What a snapshot is expected to cost in each mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predictions {
    /// In the app's process.
    pub inline: ModePrediction,
    /// In a forked child.
    pub fork: ModePrediction,
}

impl Default for Predictions {
    fn default() -> Self {
        Self {
            inline: ModePrediction::prior(Mode::Inline),
            fork: ModePrediction::prior(Mode::Fork),
        }
    }
}

/// Why a step was not taken. Closed; the code is part of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// It would not fit in memory.
    Memory,
    /// It would stop the loop for longer than allowed.
    Pause,
    /// V8's heap is too close to its own limit to begin.
    HeapLimit,
    /// `LEAKGUARD_MAX_DISK`.
    DiskQuota,
    /// The file system is full, or would be.
    DiskFree,
    /// `LEAKGUARD_MAX_SNAPSHOTS`.
    Count,
    /// `LEAKGUARD_COOLDOWN`.
    Cooldown,
    /// `LEAKGUARD_SNAPSHOT=off`, or the only way allowed does not work here.
    Disabled,
    /// Another snapshot is being taken, or somebody else uses V8's one sampling profiler.
    Busy,
    /// This runtime does not offer it: no `node:inspector`, or the permission model forbids it.
    Unavailable,
    /// The directory's lock could not be had in time.
    LockBusy,
    /// The directory's state can be neither read nor written.
    State,
    /// The guard is stopping.
    ShuttingDown,
    /// It was tried and did not work.
    Failed,
}

impl RefusalReason {
    /// Every reason, in the order of the variants.
    pub const ALL: [RefusalReason; 14] = [
        Self::Memory,
        Self::Pause,
        Self::HeapLimit,
        Self::DiskQuota,
        Self::DiskFree,
        Self::Count,
        Self::Cooldown,
        Self::Disabled,
        Self::Busy,
        Self::Unavailable,
        Self::LockBusy,
        Self::State,
        Self::ShuttingDown,
        Self::Failed,
    ];

    /// The stable code: `disk_quota`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pause => "pause",
            Self::HeapLimit => "heap_limit",
            Self::DiskQuota => "disk_quota",
            Self::DiskFree => "disk_free",
            Self::Count => "count",
            Self::Cooldown => "cooldown",
            Self::Disabled => "disabled",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::LockBusy => "lock_busy",
            Self::State => "state",
            Self::ShuttingDown => "shutting_down",
            Self::Failed => "failed",
        }
    }
}

/// What the numbers of a refusal count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Millis,
    /// Snapshots.
    Count,
}

/// A step that was not taken, in words and in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code.
    pub reason: RefusalReason,
    /// One line in words, with the numbers, no final dot.
    pub sentence: String,
    /// Unit of the three numbers, where there are any.
    pub unit: Option<Unit>,
    /// What it would have taken.
    pub needed: Option<u64>,
    /// What there was.
    pub available: Option<u64>,
    /// The limit (of the container, the setting, the file system) that would have sufficed.
    pub sufficient: Option<u64>,
}

impl Refusal {
    /// A refusal without numbers.
    #[must_use]
    pub fn plain(reason: RefusalReason, sentence: impl Into<String>) -> Self {
        Self {
            reason,
            sentence: sentence.into(),
            unit: None,
            needed: None,
            available: None,
            sufficient: None,
        }
    }

    /// A refusal with its numbers.
    #[must_use]
    pub fn with_numbers(
        reason: RefusalReason,
        unit: Unit,
        (needed, available, sufficient): (u64, u64, u64),
        sentence: String,
    ) -> Self {
        Self {
            reason,
            sentence,
            unit: Some(unit),
            needed: Some(needed),
            available: Some(available),
            sufficient: Some(sufficient),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// A snapshot that may be taken, and what it may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    /// How.
    pub mode: Mode,
    /// Live heap it was reckoned from, bytes.
    pub heap_bytes: u64,
    /// Memory it is expected to need beyond what is in use now, bytes.
    pub predicted_peak_bytes: u64,
    /// How long the loop is expected to stop, ms.
    pub predicted_pause_millis: u64,
    /// Expected size on disk, bytes.
    pub predicted_file_bytes: u64,
    /// The sink throws the file away beyond this size, bytes.
    pub max_file_bytes: u64,
    /// What a forked child may add to the address space it was born with, bytes: memory that is left
    /// when the parent's own share of copy-on-write is set aside.
    pub child_budget_bytes: u64,
    /// After this long it is given up, and others no longer wait for it, ms.
    pub timeout_millis: u64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Take it like this.
    Take(Allowance),
    /// Not now.
    Refuse(Refusal),
}

/// Decides. In `auto`, forked comes first; if neither way fits, the refusal is that of the forked one and
/// its sentence names both.
#[must_use]
pub fn decide(
    now: WallMillis,
    request: &SnapshotRequest,
    figures: &Figures,
    predictions: &Predictions,
    limits: &Limits,
    state: &StateView,
) -> Decision {
    if let Err(refusal) = spent(now, request, limits, state) {
        return Decision::Refuse(refusal);
    }
    let attempt = |mode| fits(mode, request, figures, predictions, limits);
    let modes: &[Mode] = match (request.modes, request.fork_possible) {
        (SnapshotMode::Off, _) | (SnapshotMode::Fork, false) => &[],
        (SnapshotMode::Fork, true) => &[Mode::Fork],
        (SnapshotMode::Auto, true) => &[Mode::Fork, Mode::Inline],
        (SnapshotMode::Inline, _) | (SnapshotMode::Auto, false) => &[Mode::Inline],
    };
    let mut refused: Option<Refusal> = None;
    for &mode in modes {
        match attempt(mode) {
            Ok(allowance) => return Decision::Take(allowance),
            Err(refusal) => match &mut refused {
                None => refused = Some(refusal),
                Some(first) => {
                    first.sentence =
                        format!("forked: {}; inline: {}", first.sentence, refusal.sentence);
                }
            },
        }
    }
    Decision::Refuse(refused.unwrap_or_else(|| disabled(request.modes)))
}

fn disabled(modes: SnapshotMode) -> Refusal {
    let sentence = if modes == SnapshotMode::Off {
        "snapshots are switched off (LEAKGUARD_SNAPSHOT=off)"
    } else {
        "LEAKGUARD_SNAPSHOT=fork, and forked snapshots do not work in this process"
    };
    Refusal::plain(RefusalReason::Disabled, sentence)
}

/// Whether so little memory is left that a forked child must go at once, and why: half the margin that it was
/// begun with is used up.
#[must_use]
pub fn below_floor(figures: &Figures) -> Option<String> {
    let margin_share = margin_beside(figures) / 2.0;
    if let (Some(limit), Some(used)) = (figures.cgroup_limit_bytes, figures.cgroup_used_bytes) {
        let headroom = figures.cgroup_headroom_bytes.unwrap_or(u64::MAX);
        let left = limit.saturating_sub(used).min(headroom);
        let floor = share(limit, margin_share).max(MIN_MARGIN_BYTES);
        if left < floor {
            return Some(format!(
                "{} were left below the cgroup limit of {}, and {} are kept",
                size(left),
                size(limit),
                size(floor)
            ));
        }
    }
    let available = figures.mem_available_bytes?;
    (available < 2 * MIN_MARGIN_BYTES).then(|| {
        format!(
            "{} were left on the machine, and {} are kept",
            size(available),
            size(2 * MIN_MARGIN_BYTES)
        )
    })
}

/// A size in words.
#[must_use]
pub fn size_words(bytes: u64) -> String {
    size(bytes)
}

/// The limits that do not depend on the size of the heap.
fn spent(
    now: WallMillis,
    request: &SnapshotRequest,
    limits: &Limits,
    state: &StateView,
) -> Result<(), Refusal> {
    if request.modes == SnapshotMode::Off {
        return Err(disabled(SnapshotMode::Off));
    }
    if request.shutting_down {
        return Err(Refusal::plain(RefusalReason::ShuttingDown, "the guard is stopping"));
    }
    if request.in_progress {
        return Err(Refusal::plain(
            RefusalReason::Busy,
            "this process is already taking a snapshot",
        ));
    }
    if let Some((pid, until)) = state.busy {
        return Err(Refusal::plain(
            RefusalReason::Busy,
            format!(
                "pid {pid} is taking a snapshot into the same directory; it is waited for until {}",
                until.rfc3339()
            ),
        ));
    }
    if state.taken >= limits.max_snapshots {
        let wait = state
            .oldest
            .map_or(0, |oldest| oldest.0.saturating_add(COUNT_WINDOW_MILLIS).saturating_sub(now.0));
        let next = if limits.max_snapshots == 0 {
            String::new()
        } else {
            format!("; the next may be taken in {}", duration(wait))
        };
        return Err(Refusal::with_numbers(
            RefusalReason::Count,
            Unit::Count,
            (state.taken + 1, limits.max_snapshots, state.taken + 1),
            format!(
                "{} of {} snapshots of the last 24 h are spent{next}",
                state.taken, limits.max_snapshots
            ),
        ));
    }
    let cools = matches!(request.reason, SnapshotReason::Finding | SnapshotReason::NearLimit);
    if let Some(last) = state.same_key.filter(|_| cools) {
        let since = now.0.saturating_sub(last.0);
        if since < limits.cooldown_millis {
            return Err(Refusal::with_numbers(
                RefusalReason::Cooldown,
                Unit::Millis,
                (limits.cooldown_millis, since, since),
                format!(
                    "the last snapshot for this cause was {} ago, the cooldown is {}",
                    duration(since),
                    duration(limits.cooldown_millis)
                ),
            ));
        }
    }
    Ok(())
}

/// Memory, pause and disk for one mode.
fn fits(
    mode: Mode,
    request: &SnapshotRequest,
    figures: &Figures,
    predictions: &Predictions,
    limits: &Limits,
) -> Result<Allowance, Refusal> {
    let prediction = match mode {
        Mode::Inline => predictions.inline,
        Mode::Fork => predictions.fork,
    };
    let heap = figures.live_heap_bytes.max(MIN_HEAP_BYTES);
    if let Some(limit) = figures.v8_heap_limit_bytes {
        let most = share(limit, HEAP_LIMIT_SHARE);
        if heap > most {
            let sufficient = share(heap, 1.0 / HEAP_LIMIT_SHARE);
            return Err(Refusal::with_numbers(
                RefusalReason::HeapLimit,
                Unit::Bytes,
                (heap, most, sufficient),
                format!(
                    "live heap {} is within 3 % of V8's limit of {}: the collection that begins a \
                     snapshot could end the process",
                    size(heap),
                    size(limit)
                ),
            ));
        }
    }

    let pause = share(heap, prediction.pause_millis_per_mib / as_f64(MIB)).max(1);
    if pause > limits.max_pause_millis {
        return Err(Refusal::with_numbers(
            RefusalReason::Pause,
            Unit::Millis,
            (pause, limits.max_pause_millis, pause),
            format!(
                "predicted pause {} (live heap {} x {:.0} ms/MiB) exceeds LEAKGUARD_MAX_PAUSE {}; {} \
                 would have sufficed",
                duration(pause),
                size(heap),
                prediction.pause_millis_per_mib,
                duration(limits.max_pause_millis),
                duration(pause)
            ),
        ));
    }

    let raw_file = share(heap, prediction.file_per_heap);
    let file = match request.compression {
        Compression::None => raw_file,
        Compression::Gzip | Compression::Zstd => raw_file / COMPRESSION_FACTOR,
    };
    let file_in_memory = if figures.disk_is_memory { file } else { 0 };
    let large = figures.large_object_bytes.unwrap_or(0).min(heap);
    let growth = share(heap - large, prediction.extra_per_heap)
        .saturating_add(share(large, LARGE_OBJECT_FACTOR.min(prediction.extra_per_heap)));
    // While the child lives, every page the app writes to is there twice: at most its resident set.
    let copies = match mode {
        Mode::Inline => 0,
        Mode::Fork => figures.rss_bytes.unwrap_or(heap.saturating_mul(2)),
    };
    let need = Need { heap, growth, copies, file_in_memory, ratio: as_f64(growth) / as_f64(heap) };
    let margin_share = match mode {
        Mode::Inline => MARGIN_INLINE,
        Mode::Fork => margin_beside(figures),
    };
    // Each process has its own address space: copies of the parent's pages do not count there.
    let left = memory_left(margin_share, figures, &need, need.total(), need.growth)?;

    let (max_file, quota_left) = disk_left(figures, limits, file)?;
    Ok(Allowance {
        mode,
        heap_bytes: heap,
        predicted_peak_bytes: need.total(),
        predicted_pause_millis: pause,
        predicted_file_bytes: file,
        max_file_bytes: max_file.min(quota_left),
        child_budget_bytes: left.saturating_sub(copies).saturating_sub(file_in_memory),
        timeout_millis: share(heap, 4.0 * predictions.inline.pause_millis_per_mib / as_f64(MIB))
            .max(match mode {
                Mode::Inline => MIN_TIMEOUT_MILLIS,
                Mode::Fork => MIN_TIMEOUT_FORK_MILLIS,
            }),
    })
}

/// Memory a snapshot is expected to need.
struct Need {
    heap: u64,
    growth: u64,
    copies: u64,
    file_in_memory: u64,
    ratio: f64,
}

impl Need {
    fn total(&self) -> u64 {
        self.growth.saturating_add(self.copies).saturating_add(self.file_in_memory)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "predicted peak {} (live heap {} x {:.1}",
            size(self.total()),
            size(self.heap),
            self.ratio
        )?;
        if self.copies > 0 {
            write!(f, ", and {} of copy-on-write", size(self.copies))?;
        }
        if self.file_in_memory > 0 {
            write!(f, ", and {} of file on a tmpfs", size(self.file_in_memory))?;
        }
        f.write_str(")")
    }
}

/// Memory that an analysis in a process of its own may take beside the app: all that is left, if `needed` bytes,
/// what it states, fit into it.
///
/// # Errors
/// The refusal of the tightest limit.
pub fn analysis_memory(figures: &Figures, needed: u64) -> Result<u64, Refusal> {
    let words = format!("the analysis takes {}, which", size(needed));
    // The address space is that of another process.
    memory_left(margin_beside(figures), figures, &words, needed, 0)
}

/// The margin for a process beside the app, as a share of the limit.
fn margin_beside(figures: &Figures) -> f64 {
    match figures.cgroup_oom_group {
        Some(true) => MARGIN_FORK_OOM_GROUP,
        _ => MARGIN_FORK,
    }
}

/// Bytes of memory left, the least of all limits known, or the refusal of the tightest. `own` of the `total` that is
/// needed lies in the address space of this process.
fn memory_left(
    margin_share: f64,
    figures: &Figures,
    need: &dyn fmt::Display,
    total: u64,
    own: u64,
) -> Result<u64, Refusal> {
    let mut left = u64::MAX;
    let mut tightest: Option<Refusal> = None;
    let mut consider = |available: u64, what: String, sufficient: u64, advice: String| {
        if available >= left {
            return;
        }
        left = available;
        tightest = (total > available).then(|| {
            Refusal::with_numbers(
                RefusalReason::Memory,
                Unit::Bytes,
                (total, available, sufficient),
                format!("{need} exceeds the {} left {what}; {advice}", size(available)),
            )
        });
    };
    if let (Some(limit), Some(used)) = (figures.cgroup_limit_bytes, figures.cgroup_used_bytes) {
        // What others use of a shared ancestor is as good as used here.
        let headroom = figures.cgroup_headroom_bytes.unwrap_or(u64::MAX);
        let used = used.max(limit.saturating_sub(headroom));
        let margin = share(limit, margin_share).max(MIN_MARGIN_BYTES);
        let whole = used.saturating_add(total);
        // The limit L with L - margin(L) = used + total, for either branch of the margin.
        let sufficient =
            share(whole, 1.0 / (1.0 - margin_share)).max(whole.saturating_add(MIN_MARGIN_BYTES));
        consider(
            limit.saturating_sub(used).saturating_sub(margin),
            format!("below the cgroup limit of {}, {} of margin kept", size(limit), size(margin)),
            sufficient,
            format!("a limit of {} would have sufficed", size(sufficient)),
        );
    }
    if let Some(available) = figures.mem_available_bytes {
        let margin = share(available, margin_share).max(MIN_MARGIN_BYTES);
        let sufficient =
            share(total, 1.0 / (1.0 - margin_share)).max(total.saturating_add(MIN_MARGIN_BYTES));
        consider(
            available.saturating_sub(margin),
            format!("on the machine, {} of margin kept", size(margin)),
            sufficient,
            format!("{} available would have sufficed", size(sufficient)),
        );
    }
    if let (Some(limit), Some(used)) =
        (figures.address_space_limit_bytes, figures.address_space_bytes)
    {
        let available = limit.saturating_sub(used).saturating_sub(MIN_MARGIN_BYTES);
        let sufficient = used.saturating_add(own).saturating_add(MIN_MARGIN_BYTES);
        if own > available {
            return Err(Refusal::with_numbers(
                RefusalReason::Memory,
                Unit::Bytes,
                (own, available, sufficient),
                format!(
                    "{need} exceeds the {} of address space left below the limit of {} (RLIMIT_AS); a \
                     limit of {} would have sufficed",
                    size(available),
                    size(limit),
                    size(sufficient)
                ),
            ));
        }
        left = left.min(available.saturating_add(total.saturating_sub(own)));
    }
    tightest.map_or(Ok(left), Err)
}

/// The largest file that may be written, by slack and file system, and what the quota leaves.
fn disk_left(figures: &Figures, limits: &Limits, file: u64) -> Result<(u64, u64), Refusal> {
    let quota_left = limits.max_disk_bytes.saturating_sub(figures.quota_used_bytes);
    if file > quota_left {
        let sufficient = figures.quota_used_bytes.saturating_add(file);
        return Err(Refusal::with_numbers(
            RefusalReason::DiskQuota,
            Unit::Bytes,
            (file, quota_left, sufficient),
            format!(
                "predicted file {} exceeds the {} left of LEAKGUARD_MAX_DISK {} after retention; {} \
                 would have sufficed",
                size(file),
                size(quota_left),
                size(limits.max_disk_bytes),
                size(sufficient)
            ),
        ));
    }
    let mut max_file = file.saturating_mul(FILE_SLACK);
    if let Some(free) = figures.disk_free_bytes {
        let available = free.saturating_sub(DISK_MARGIN_BYTES);
        if file > available {
            let sufficient = file.saturating_add(DISK_MARGIN_BYTES);
            return Err(Refusal::with_numbers(
                RefusalReason::DiskFree,
                Unit::Bytes,
                (file, available, sufficient),
                format!(
                    "predicted file {} exceeds the {} free on the file system, {} of margin kept; {} \
                     free would have sufficed",
                    size(file),
                    size(available),
                    size(DISK_MARGIN_BYTES),
                    size(sufficient)
                ),
            ));
        }
        max_file = max_file.min(available);
    }
    Ok((max_file, quota_left))
}

fn as_f64(n: u64) -> f64 {
    n as f64
}

/// `n * factor`, rounded up; the cast saturates.
fn share(n: u64, factor: f64) -> u64 {
    (as_f64(n) * factor).ceil() as u64
}

/// `1.1 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            let n = as_f64(bytes) / as_f64(unit);
            return if n < 10.0 { format!("{n:.1} {name}") } else { format!("{n:.0} {name}") };
        }
    }
    format!("{bytes} B")
}

/// `850 ms`, `12 s`, `3 min`, `5 h 40 min`.
#[must_use]
pub fn duration(millis: u64) -> String {
    let seconds = millis.div_ceil(1000);
    match (millis, seconds) {
        (0..1000, _) => format!("{millis} ms"),
        (_, 0..120) => format!("{seconds} s"),
        (_, 120..7200) => format!("{} min", seconds.div_ceil(60)),
        _ => {
            let minutes = seconds.div_ceil(60);
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * MIB;

    fn request() -> SnapshotRequest {
        SnapshotRequest {
            reason: SnapshotReason::Finding,
            key: None,
            modes: SnapshotMode::Inline,
            fork_possible: false,
            node_major: 22,
            compression: Compression::None,
            shutting_down: false,
            in_progress: false,
        }
    }

    /// An app of `heap` MiB of live heap, 60 MiB of everything else, in a cgroup of `limit` MiB.
    fn container(heap: u64, limit: u64) -> Figures {
        Figures {
            live_heap_bytes: heap * MIB,
            v8_heap_limit_bytes: Some(4 * GIB),
            rss_bytes: Some((heap + 60) * MIB),
            cgroup_used_bytes: Some((heap + 60) * MIB),
            cgroup_limit_bytes: Some(limit * MIB),
            mem_available_bytes: Some(16 * GIB),
            disk_free_bytes: Some(10 * GIB),
            ..Figures::default()
        }
    }

    fn run(request: &SnapshotRequest, figures: &Figures, state: &StateView) -> Decision {
        decide(
            WallMillis(1_000_000_000_000),
            request,
            figures,
            &Predictions::default(),
            &Limits::default(),
            state,
        )
    }

    fn refusal(decision: Decision) -> Refusal {
        match decision {
            Decision::Refuse(refusal) => refusal,
            Decision::Take(taken) => panic!("taken: {taken:?}"),
        }
    }

    fn taken(decision: Decision) -> Allowance {
        match decision {
            Decision::Take(taken) => taken,
            Decision::Refuse(refusal) => panic!("{refusal}"),
        }
    }

    #[test]
    fn live_heap_against_container_limit_decides_inline_and_forked() {
        // (live heap MiB, limit MiB) -> (inline, forked, auto)
        let table = [
            (10, 256, "take", "memory", "inline"),
            (20, 512, "take", "memory", "inline"),
            (20, 640, "take", "take", "fork"),
            (30, 256, "memory", "memory", "memory"),
            (30, 512, "memory", "memory", "memory"),
            (30, 1024, "take", "take", "fork"),
            (64, 256, "memory", "memory", "memory"),
            (64, 384, "memory", "memory", "memory"),
            (64, 512, "memory", "memory", "memory"),
            (64, 1024, "memory", "memory", "memory"),
            (64, 1280, "take", "memory", "inline"),
            (64, 2048, "take", "take", "fork"),
            (150, 512, "pause", "memory", "memory"),
            (150, 4096, "pause", "take", "fork"),
        ];
        for (heap, limit, inline, fork, auto) in table {
            let label = |decision: Decision| match decision {
                Decision::Take(taken) => ("take", taken.mode),
                Decision::Refuse(refusal) => (refusal.reason.code(), Mode::Inline),
            };
            let mut request = SnapshotRequest { fork_possible: true, ..request() };
            let figures = container(heap, limit);
            let state = StateView::default();
            assert_eq!(
                label(run(&request, &figures, &state)).0,
                inline,
                "inline {heap} in {limit}"
            );
            request.modes = SnapshotMode::Fork;
            assert_eq!(label(run(&request, &figures, &state)).0, fork, "fork {heap} in {limit}");
            request.modes = SnapshotMode::Auto;
            let got = match label(run(&request, &figures, &state)) {
                ("take", Mode::Inline) => "inline",
                ("take", Mode::Fork) => "fork",
                (code, _) => code,
            };
            assert_eq!(got, auto, "auto {heap} in {limit}");
        }
    }

    #[test]
    fn a_refusal_for_memory_names_the_limit_that_would_have_sufficed_and_it_does() {
        for modes in [SnapshotMode::Inline, SnapshotMode::Fork] {
            for heap in [20, 40, 64, 85] {
                let request = SnapshotRequest { modes, fork_possible: true, ..request() };
                let mut figures = container(heap, 256);
                let refusal = refusal(run(&request, &figures, &StateView::default()));
                assert_eq!(refusal.reason, RefusalReason::Memory, "{refusal}");
                let sufficient = refusal.sufficient.unwrap();
                figures.cgroup_limit_bytes = Some(sufficient + 1);
                taken(run(&request, &figures, &StateView::default()));
                figures.cgroup_limit_bytes = Some(sufficient - 2 * MIB);
                assert!(matches!(
                    run(&request, &figures, &StateView::default()),
                    Decision::Refuse(_)
                ));
            }
        }
    }

    #[test]
    fn the_sentence_of_a_refusal_has_its_numbers() {
        let refusal = refusal(run(&request(), &container(64, 384), &StateView::default()));
        assert_eq!(
            refusal.sentence,
            "predicted peak 1.0 GiB (live heap 64 MiB x 16.0) exceeds the 241 MiB left below the cgroup \
             limit of 384 MiB, 19 MiB of margin kept; a limit of 1.2 GiB would have sufficed"
        );
        assert_eq!(refusal.needed, Some(GIB));
    }

    #[test]
    fn the_tightest_limit_is_the_one_named() {
        let mut figures = container(30, 400);
        figures.mem_available_bytes = Some(100 * MIB);
        let refusal = refusal(run(&request(), &figures, &StateView::default()));
        assert!(refusal.sentence.contains("on the machine"), "{refusal}");
        assert!(refusal.available.unwrap() < 100 * MIB);
    }

    #[test]
    fn what_others_use_of_a_shared_ancestor_is_not_there() {
        let mut figures = container(20, 1024);
        taken(run(&request(), &figures, &StateView::default()));
        figures.cgroup_headroom_bytes = Some(200 * MIB);
        let refused = refusal(run(&request(), &figures, &StateView::default()));
        assert!(refused.available.unwrap() < 200 * MIB, "{refused}");
        // More headroom than limit minus use is a reading of another moment: the smaller one counts.
        figures.cgroup_headroom_bytes = Some(4 * GIB);
        taken(run(&request(), &figures, &StateView::default()));
    }

    #[test]
    fn an_address_space_limit_refuses_too() {
        let mut figures = container(30, 4096);
        figures.address_space_limit_bytes = Some(2 * GIB);
        figures.address_space_bytes = Some(2 * GIB - 100 * MIB);
        let refused = refusal(run(&request(), &figures, &StateView::default()));
        assert!(refused.sentence.contains("RLIMIT_AS"), "{refused}");
        figures.address_space_limit_bytes = Some(refused.sufficient.unwrap());
        taken(run(&request(), &figures, &StateView::default()));
    }

    #[test]
    fn a_file_on_a_tmpfs_counts_as_memory() {
        let mut figures = container(23, 512);
        let on_disk = taken(run(&request(), &figures, &StateView::default()));
        figures.disk_is_memory = true;
        let refusal = refusal(run(&request(), &figures, &StateView::default()));
        assert_eq!(
            refusal.needed,
            Some(on_disk.predicted_peak_bytes + on_disk.predicted_file_bytes)
        );
        assert!(refusal.sentence.contains("tmpfs"), "{refusal}");
    }

    #[test]
    fn large_objects_are_reckoned_at_less_than_small_ones() {
        let mut figures = container(60, 512);
        refusal(run(&request(), &figures, &StateView::default()));
        figures.large_object_bytes = Some(50 * MIB);
        refusal(run(&request(), &figures, &StateView::default()));
        figures.cgroup_limit_bytes = Some(640 * MIB);
        let allowance = taken(run(&request(), &figures, &StateView::default()));
        assert_eq!(allowance.predicted_peak_bytes, (10 * 16 + 50 * 5) * MIB);
    }

    #[test]
    fn quota_and_free_space_are_refusals_with_numbers() {
        let mut figures = container(20, 1024);
        figures.quota_used_bytes = 500 * MIB;
        let refused = refusal(run(&request(), &figures, &StateView::default()));
        assert_eq!(refused.reason, RefusalReason::DiskQuota);
        assert_eq!(refused.available, Some(12 * MIB));
        assert_eq!(refused.sufficient, Some(544 * MIB));
        figures.quota_used_bytes = 0;
        figures.disk_free_bytes = Some(30 * MIB);
        let refused = refusal(run(&request(), &figures, &StateView::default()));
        assert_eq!(refused.reason, RefusalReason::DiskFree);
        assert_eq!(refused.sufficient, Some(60 * MIB));
        figures.disk_free_bytes = Some(60 * MIB);
        let allowance = taken(run(&request(), &figures, &StateView::default()));
        assert_eq!(allowance.max_file_bytes, 44 * MIB);
        let zstd = SnapshotRequest { compression: Compression::Zstd, ..request() };
        let allowance = taken(run(&zstd, &figures, &StateView::default()));
        assert_eq!(allowance.predicted_file_bytes, 11 * MIB);
        assert_eq!(allowance.max_file_bytes, 33 * MIB);
    }

    #[test]
    fn count_holds_for_every_reason_and_says_when_the_next_is_free() {
        for reason in [
            SnapshotReason::Finding,
            SnapshotReason::FollowUp,
            SnapshotReason::Baseline,
            SnapshotReason::OnDemand,
            SnapshotReason::NearLimit,
        ] {
            let state = StateView {
                taken: 4,
                oldest: Some(WallMillis(1_000_000_000_000 - 20 * 3_600_000)),
                ..StateView::default()
            };
            let request = SnapshotRequest { reason, ..request() };
            let refusal = refusal(run(&request, &container(20, 1024), &state));
            assert_eq!(refusal.reason, RefusalReason::Count);
            assert_eq!(
                refusal.sentence,
                "4 of 4 snapshots of the last 24 h are spent; the next may be taken in 4 h 0 min"
            );
        }
    }

    #[test]
    fn the_cooldown_binds_findings_and_not_what_was_asked_for() {
        let state = StateView {
            taken: 1,
            same_key: Some(WallMillis(1_000_000_000_000 - 3_600_000)),
            ..StateView::default()
        };
        let figures = container(20, 1024);
        let refusal = refusal(run(&request(), &figures, &state));
        assert_eq!(refusal.reason, RefusalReason::Cooldown);
        for reason in [SnapshotReason::OnDemand, SnapshotReason::FollowUp, SnapshotReason::Baseline]
        {
            taken(run(&SnapshotRequest { reason, ..request() }, &figures, &state));
        }
        let long_ago =
            StateView { same_key: Some(WallMillis(1_000_000_000_000 - 6 * 3_600_000)), ..state };
        taken(run(&request(), &figures, &long_ago));
    }

    #[test]
    fn off_busy_and_stopping_are_refusals() {
        let figures = container(20, 1024);
        let idle = StateView::default();
        let busy = StateView { busy: Some((7, WallMillis(0))), ..StateView::default() };
        let cases = [
            (SnapshotRequest { modes: SnapshotMode::Off, ..request() }, &idle, "disabled"),
            (SnapshotRequest { modes: SnapshotMode::Fork, ..request() }, &idle, "disabled"),
            (SnapshotRequest { shutting_down: true, ..request() }, &idle, "shutting_down"),
            (SnapshotRequest { in_progress: true, ..request() }, &idle, "busy"),
            (request(), &busy, "busy"),
        ];
        for (request, state, code) in cases {
            assert_eq!(refusal(run(&request, &figures, state)).reason.code(), code);
        }
    }

    #[test]
    fn a_heap_at_the_limit_of_v8_is_not_touched() {
        let mut figures = container(64, 4096);
        figures.v8_heap_limit_bytes = Some(65 * MIB);
        let refused = refusal(run(&request(), &figures, &StateView::default()));
        assert_eq!(refused.reason, RefusalReason::HeapLimit);
        figures.v8_heap_limit_bytes = refused.sufficient;
        taken(run(&request(), &figures, &StateView::default()));
    }

    #[test]
    fn the_childs_budget_leaves_room_for_the_parents_copies() {
        let request =
            SnapshotRequest { modes: SnapshotMode::Fork, fork_possible: true, ..request() };
        let allowance = taken(run(&request, &container(30, 1024), &StateView::default()));
        let left = 1024 * MIB - 90 * MIB - share(1024 * MIB, MARGIN_FORK);
        assert_eq!(allowance.child_budget_bytes, left - 90 * MIB);
        assert!(allowance.child_budget_bytes >= 30 * 16 * MIB);
    }

    #[test]
    fn absurd_figures_do_not_overflow() {
        let figures = Figures {
            live_heap_bytes: u64::MAX,
            large_object_bytes: Some(u64::MAX),
            rss_bytes: Some(u64::MAX),
            cgroup_used_bytes: Some(u64::MAX),
            cgroup_limit_bytes: Some(u64::MAX),
            mem_available_bytes: Some(u64::MAX),
            address_space_bytes: Some(u64::MAX),
            address_space_limit_bytes: Some(u64::MAX),
            disk_free_bytes: Some(u64::MAX),
            quota_used_bytes: u64::MAX,
            ..Figures::default()
        };
        for modes in [SnapshotMode::Auto, SnapshotMode::Inline, SnapshotMode::Fork] {
            let request = SnapshotRequest { modes, fork_possible: true, ..request() };
            refusal(run(&request, &figures, &StateView::default()));
            refusal(decide(
                WallMillis(0),
                &request,
                &figures,
                &Predictions::default(),
                &Limits { max_pause_millis: u64::MAX, ..Limits::default() },
                &StateView::default(),
            ));
        }
    }

    #[test]
    fn sizes_and_durations_read_well() {
        for (bytes, text) in
            [(0, "0 B"), (1536, "1.5 KiB"), (310 * MIB, "310 MiB"), (GIB + GIB / 10, "1.1 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
        for (millis, text) in
            [(850, "850 ms"), (11_400, "12 s"), (179_000, "3 min"), (20_400_000, "5 h 40 min")]
        {
            assert_eq!(duration(millis), text);
        }
    }
}
