//! What all processes of one directory must remember, restarts included: snapshots taken, cooldowns,
//! what snapshots turned out to cost, slopes. The content of `leakguard.state` and the pure rules on it.
//!
//! It neither reads nor writes: `ledger` does, under the lock of the directory.
//!
//! A state that cannot be trusted is replaced by [`State::from_files`], which reckons from the evidence
//! files themselves and errs on the side of silence, so that damage to the state grants nothing.

use serde::{Deserialize, Serialize};

use super::budget::{COUNT_WINDOW_MILLIS, Mode, ModePrediction, Predictions, SnapshotReason};
use super::budget::{SnapshotRequest, StateView};
use super::identity::{Liveness, ProcessIdentity};
use super::name::WallMillis;
use crate::postmortem::RunSummary;

/// Version of the file's schema. A file of a later version is read by the names known here, its other
/// members are kept, and its version number is not lowered: two versions may share a directory.
pub const SCHEMA: u32 = 1;

/// Larger than any state this module writes.
pub(crate) const MAX_STATE_BYTES: u64 = 4 << 20;

const MAX_SNAPSHOTS: usize = 256;
const MAX_COOLDOWNS: usize = 512;
const MAX_SLOPES: usize = 512;
const MAX_RUNS: usize = 64;
const MAX_DELIVERIES: usize = 64;
/// Deliveries that end with the process that makes them are given up after so many.
const MAX_TRIES: u32 = 3;
/// A claim by a process of which nothing can be known (another container) holds for so long.
const CLAIM_MILLIS: u64 = 600_000;
/// Snapshots of one mode and Node version that a prediction looks back on.
const LEARN_FROM: usize = 5;
/// Longest text kept from a caller: names of apps, series and causes.
const MAX_TEXT_CHARS: usize = 128;

/// A clock that is behind a record by no more than this is only a little off, and nothing is rewritten.
const CLOCK_SLACK_MILLIS: u64 = 5_000;

/// What silence after a finding goes by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CooldownKey {
    /// Name and version of the app (`LEAKGUARD_APP`).
    pub app: String,
    /// Series id: `live_heap`.
    pub series: String,
    /// What is held responsible, such as file:line of a listener; empty if unknown.
    pub cause: String,
}

impl CooldownKey {
    fn bounded(&self) -> Self {
        Self { app: cut(&self.app), series: cut(&self.series), cause: cut(&self.cause) }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

/// When a finding of a key was last written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// Of what; `None` covers every key: some finding was written then, but it is not known which.
    pub key: Option<CooldownKey>,
    /// When.
    pub at: WallMillis,
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Begun, end not yet known.
    Started,
    /// Whole under its final name.
    Taken,
    /// Paid for, but no file came of it.
    Failed,
    /// Not known from the state: its file was found.
    Found,
}

/// What a snapshot turned out to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Memory at the peak beyond what was in use before, copy-on-write not counted; bytes.
    pub extra_bytes: Option<u64>,
    /// Longest stop of the loop, ms.
    pub pause_millis: Option<u64>,
    /// Uncompressed snapshot, bytes.
    pub snapshot_bytes: Option<u64>,
    /// File on disk, bytes.
    pub file_bytes: Option<u64>,
}

/// One snapshot. It counts from the moment it is begun: an app that dies of its snapshots, and is
/// restarted, must not take another at every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Number within the directory; how the end finds its beginning.
    pub id: u64,
    /// When it was begun.
    pub at: WallMillis,
    /// By whom; `None` if only its file is known.
    pub by: Option<ProcessIdentity>,
    /// Why.
    pub reason: Option<SnapshotReason>,
    /// For which finding.
    pub key: Option<CooldownKey>,
    /// How.
    pub mode: Option<Mode>,
    /// Major version of Node.
    pub node_major: u32,
    /// Live heap before, bytes.
    pub heap_bytes: u64,
    /// Until when others wait for it.
    pub expires: WallMillis,
    /// How it ended.
    pub outcome: Outcome,
    /// What it cost.
    #[serde(default)]
    pub cost: Cost,
    /// Its file, if there is one.
    #[serde(default)]
    pub file: Option<String>,
}

/// Growth of one series in one run, kept for comparison across runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlopeRecord {
    /// Name and version of the app.
    pub app: String,
    /// Series id.
    pub series: String,
    /// Which run.
    pub by: ProcessIdentity,
    /// When it was last updated.
    pub at: WallMillis,
    /// Growth, in the unit of the series, per hour.
    pub per_hour: f64,
    /// Over how long it was measured, ms.
    pub over_millis: u64,
    /// Last reading, in the unit of the series.
    pub last: f64,
}

/// A run that is over and was, or is being, looked at by one process for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Name of the run's file. A later run may take it again: the start tells them apart.
    pub file: String,
    /// When the run started, Unix milliseconds.
    pub started_ms: u64,
    /// Who looks.
    pub by: ProcessIdentity,
    /// Since when.
    pub at: WallMillis,
    /// What was found; `None` while it is looked at, and if the file could not be read.
    pub summary: Option<RunSummary>,
}

/// A new evidence file that the hook was not yet seen to have delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Name of the file.
    pub file: String,
    /// `finding`, `snapshot`, `profile`.
    pub kind: String,
    /// Name of the finding's file that it belongs to.
    pub finding: Option<String>,
    /// Process that wrote it, in its own pid namespace.
    pub pid: u32,
    /// Who delivers it.
    pub by: ProcessIdentity,
    /// Since when.
    pub at: WallMillis,
    /// How often it was begun by a process that did not come to its end.
    pub tries: u32,
}

/// The content of `leakguard.state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    schema: u32,
    #[serde(default)]
    next_id: u64,
    /// Oldest first. Kept by number, not by age, so that a clock that jumps ahead and back frees nothing.
    #[serde(default)]
    pub(crate) snapshots: Vec<SnapshotRecord>,
    #[serde(default)]
    pub(crate) cooldowns: Vec<Cooldown>,
    #[serde(default)]
    slopes: Vec<SlopeRecord>,
    #[serde(default)]
    runs: Vec<RunRecord>,
    #[serde(default)]
    deliveries: Vec<Delivery>,
    /// Members that a later version added.
    #[serde(flatten)]
    other: serde_json::Map<String, serde_json::Value>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            next_id: 1,
            snapshots: Vec::new(),
            cooldowns: Vec::new(),
            slopes: Vec::new(),
            runs: Vec::new(),
            deliveries: Vec::new(),
            other: serde_json::Map::new(),
        }
    }
}

impl State {
    /// Reads what [`State::to_bytes`] wrote, whatever somebody did to it since.
    ///
    /// # Errors
    /// One sentence, if it is not a state.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut state: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if state.schema == 0 {
            return Err("schema 0 never existed".to_owned());
        }
        state.schema = state.schema.max(SCHEMA);
        state.bound();
        Ok(state)
    }

    /// The file's content: JSON, one line.
    ///
    /// # Errors
    /// Only if serde_json fails, which it does for nothing that a state can hold.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// What the evidence files prove when the state is missing or damaged: each snapshot file is a
    /// snapshot taken when it was last written, and the newest finding begins a cooldown for every key.
    #[must_use]
    pub fn from_files(
        snapshots: impl IntoIterator<Item = (String, WallMillis)>,
        newest_finding: Option<WallMillis>,
    ) -> Self {
        let mut state = Self::default();
        let mut files: Vec<_> = snapshots.into_iter().collect();
        files.sort_by_key(|(_, at)| *at);
        for (file, at) in files {
            let id = state.take_id();
            state.snapshots.push(SnapshotRecord {
                id,
                at,
                by: None,
                reason: None,
                key: None,
                mode: None,
                node_major: 0,
                heap_bytes: 0,
                expires: at,
                outcome: Outcome::Found,
                cost: Cost::default(),
                file: Some(file),
            });
        }
        state.cooldowns.extend(newest_finding.map(|at| Cooldown { key: None, at }));
        state.bound();
        state
    }

    /// Moves what lies in the future to the present: a clock that went backwards must neither free a
    /// limit (the record still counts, for a full window from now) nor hold it for ever.
    pub fn settle(&mut self, now: WallMillis) {
        let settle = |at: &mut WallMillis| {
            if at.0 > now.0.saturating_add(CLOCK_SLACK_MILLIS) {
                *at = now;
            }
        };
        for record in &mut self.snapshots {
            let timeout = record.expires.0.saturating_sub(record.at.0).min(COUNT_WINDOW_MILLIS);
            settle(&mut record.at);
            record.expires = WallMillis(record.at.0.saturating_add(timeout));
        }
        self.cooldowns.iter_mut().for_each(|cooldown| settle(&mut cooldown.at));
        self.slopes.iter_mut().for_each(|slope| settle(&mut slope.at));
        self.runs.iter_mut().for_each(|run| settle(&mut run.at));
        self.deliveries.iter_mut().for_each(|delivery| settle(&mut delivery.at));
    }

    /// What bears on one request.
    #[must_use]
    pub fn view(&self, now: WallMillis, request: &SnapshotRequest) -> StateView {
        let from = now.0.saturating_sub(COUNT_WINDOW_MILLIS);
        let counted = || self.snapshots.iter().filter(|record| record.at.0 > from);
        let key = request.key.as_ref().map(CooldownKey::bounded);
        StateView {
            taken: counted().count() as u64,
            oldest: counted().map(|record| record.at).min(),
            same_key: self
                .snapshots
                .iter()
                .filter(|record| key.is_some() && record.key == key)
                .map(|record| record.at)
                .max(),
            busy: self
                .snapshots
                .iter()
                .filter(|record| record.outcome == Outcome::Started && record.expires > now)
                .filter_map(|record| record.by.as_ref().map(|by| (by, record.expires)))
                .find(|(by, _)| by.liveness() != Liveness::Dead)
                .map(|(by, expires)| (by.pid, expires)),
        }
    }

    /// Notes that a snapshot begins; the number is for [`State::finish`].
    pub(crate) fn begin(&mut self, mut record: SnapshotRecord) -> u64 {
        record.id = self.take_id();
        record.key = record.key.as_ref().map(CooldownKey::bounded);
        let id = record.id;
        self.snapshots.push(record);
        self.bound();
        id
    }

    /// Notes how a snapshot ended. A number that is not there (the state was rebuilt meanwhile) is no matter.
    pub(crate) fn finish(
        &mut self,
        id: u64,
        by: &ProcessIdentity,
        outcome: Outcome,
        cost: Cost,
        file: Option<String>,
    ) {
        if let Some(record) = self.started(id, by) {
            record.outcome = outcome;
            record.cost = cost;
            record.file = file;
        }
    }

    /// Takes back a snapshot that was not begun after all: it cost nothing and does not count.
    pub(crate) fn cancel(&mut self, id: u64, by: &ProcessIdentity) {
        if self.started(id, by).is_some() {
            self.snapshots.retain(|record| record.id != id);
        }
    }

    fn started(&mut self, id: u64, by: &ProcessIdentity) -> Option<&mut SnapshotRecord> {
        self.snapshots
            .iter_mut()
            .find(|r| r.id == id && r.by.as_ref() == Some(by) && r.outcome == Outcome::Started)
    }

    /// When a finding of this key was last written, if less than `cooldown_millis` ago.
    #[must_use]
    pub fn cooling(
        &self,
        now: WallMillis,
        key: &CooldownKey,
        cooldown_millis: u64,
    ) -> Option<WallMillis> {
        let key = key.bounded();
        self.cooldowns
            .iter()
            .filter(|cooldown| cooldown.key.as_ref().is_none_or(|k| *k == key))
            .map(|cooldown| cooldown.at)
            .max()
            .filter(|at| now.0.saturating_sub(at.0) < cooldown_millis)
    }

    /// The cooldowns of an app that still hold, with the moment each ends; `None` in place of a key
    /// covers all. What a new run starts with.
    #[must_use]
    pub fn cooldowns(
        &self,
        now: WallMillis,
        app: &str,
        cooldown_millis: u64,
    ) -> Vec<(Option<CooldownKey>, WallMillis)> {
        let app = cut(app);
        self.cooldowns
            .iter()
            .filter(|cooldown| cooldown.key.as_ref().is_none_or(|key| key.app == app))
            .map(|c| (c.key.clone(), WallMillis(c.at.0.saturating_add(cooldown_millis))))
            .filter(|(_, until)| *until > now)
            .collect()
    }

    /// Begins the cooldown of a key.
    pub fn start_cooldown(&mut self, now: WallMillis, key: &CooldownKey) {
        let key = Some(key.bounded());
        self.cooldowns.retain(|cooldown| cooldown.key != key);
        self.cooldowns.push(Cooldown { key, at: now });
        self.bound();
    }

    /// What a snapshot is expected to cost on this major version of Node: the worst of the last five
    /// of the mode, and a fifth more, within bounds that neither a measurement gone wrong nor a
    /// forged state can leave; the prior before the first.
    #[must_use]
    pub fn predictions(&self, node_major: u32) -> Predictions {
        let learn = |mode: Mode| {
            let prior = ModePrediction::prior(mode);
            let recent = || {
                self.snapshots.iter().rev().filter(move |r| {
                    r.mode == Some(mode)
                        && r.node_major == node_major
                        && r.outcome == Outcome::Taken
                        && r.heap_bytes > 0
                })
            };
            // FACTS, snapshots: nothing below 9 x was ever seen for small objects; a quiet fast
            // machine may be several times quicker than the one the prior was measured on.
            let worst = |cost: fn(&Cost) -> Option<u64>, per: f64, floor: f64, prior: f64| {
                recent()
                    .filter_map(|r| Some(ratio(cost(&r.cost)?, r.heap_bytes) * per))
                    .take(LEARN_FROM)
                    .reduce(f64::max)
                    .map_or(prior, |worst| (worst * 1.2).clamp(floor, prior * 3.0))
            };
            ModePrediction {
                extra_per_heap: worst(|c| c.extra_bytes, 1.0, 9.0, prior.extra_per_heap),
                pause_millis_per_mib: worst(
                    |c| c.pause_millis,
                    1_048_576.0,
                    prior.pause_millis_per_mib / 5.0,
                    prior.pause_millis_per_mib,
                ),
                file_per_heap: worst(|c| c.snapshot_bytes, 1.0, 1.0, prior.file_per_heap),
                learned_from: recent().take(LEARN_FROM).count(),
            }
        };
        Predictions { inline: learn(Mode::Inline), fork: learn(Mode::Fork) }
    }

    /// Keeps the slope of a run, in place of what that run said of the series before.
    pub fn record_slope(&mut self, mut slope: SlopeRecord) {
        slope.app = cut(&slope.app);
        slope.series = cut(&slope.series);
        self.slopes
            .retain(|s| !(s.app == slope.app && s.series == slope.series && s.by == slope.by));
        self.slopes.push(slope);
        self.bound();
    }

    /// Slopes of all runs, oldest first.
    #[must_use]
    pub fn slopes(&self) -> &[SlopeRecord] {
        &self.slopes
    }

    /// Claims a run for looking at; false if another process has done it or is at it.
    pub fn claim_run(
        &mut self,
        now: WallMillis,
        by: &ProcessIdentity,
        file: &str,
        started_ms: u64,
    ) -> bool {
        let known = self.runs.iter().position(|r| r.file == file && r.started_ms == started_ms);
        if let Some(at) = known {
            let run = &self.runs[at];
            if run.summary.is_some() || !abandoned(&run.by, run.at, now) {
                return false;
            }
            self.runs.remove(at);
        }
        self.runs.push(RunRecord {
            file: file.to_owned(),
            started_ms,
            by: by.clone(),
            at: now,
            summary: None,
        });
        self.bound();
        true
    }

    /// Keeps what was found of a claimed run.
    pub fn record_run(&mut self, summary: &RunSummary) {
        let of = self
            .runs
            .iter_mut()
            .find(|run| run.file == summary.file && run.started_ms == summary.started_ms);
        if let Some(run) = of {
            run.summary = Some(summary.clone());
        }
    }

    /// Runs that were looked at, oldest claim first.
    pub fn runs(&self) -> impl Iterator<Item = &RunSummary> {
        self.runs.iter().filter_map(|run| run.summary.as_ref())
    }

    /// Notes that a file is to be delivered. The oldest is forgotten when there are too many.
    pub fn begin_delivery(&mut self, delivery: Delivery) {
        self.deliveries.retain(|known| known.file != delivery.file);
        self.deliveries.push(delivery);
        self.bound();
    }

    /// Notes that a file was delivered, or never will be.
    pub fn end_delivery(&mut self, file: &str) {
        self.deliveries.retain(|delivery| delivery.file != file);
    }

    /// Takes over the deliveries of processes that died over them. Given up after the third time: a command
    /// that brings the app down must not do so at every start.
    pub fn adopt_deliveries(&mut self, now: WallMillis, by: &ProcessIdentity) -> Vec<Delivery> {
        let orphaned = |delivery: &Delivery| abandoned(&delivery.by, delivery.at, now);
        self.deliveries.retain(|delivery| delivery.tries < MAX_TRIES || !orphaned(delivery));
        let mut adopted = Vec::new();
        for delivery in self.deliveries.iter_mut().filter(|delivery| orphaned(delivery)) {
            delivery.by = by.clone();
            delivery.at = now;
            delivery.tries += 1;
            adopted.push(delivery.clone());
        }
        adopted
    }

    /// Snapshots on record, oldest first.
    #[must_use]
    pub fn snapshots(&self) -> &[SnapshotRecord] {
        &self.snapshots
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        id
    }

    /// Drops the oldest of each list beyond its bound.
    fn bound(&mut self) {
        fn keep_last<T>(list: &mut Vec<T>, most: usize) {
            list.drain(..list.len().saturating_sub(most));
        }
        keep_last(&mut self.snapshots, MAX_SNAPSHOTS);
        keep_last(&mut self.cooldowns, MAX_COOLDOWNS);
        keep_last(&mut self.slopes, MAX_SLOPES);
        keep_last(&mut self.runs, MAX_RUNS);
        keep_last(&mut self.deliveries, MAX_DELIVERIES);
    }
}

/// Whether whoever claimed something will not come back to it.
fn abandoned(by: &ProcessIdentity, at: WallMillis, now: WallMillis) -> bool {
    match by.liveness() {
        Liveness::Alive => false,
        Liveness::Dead => true,
        Liveness::Unknown => now.0.saturating_sub(at.0) > CLAIM_MILLIS,
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const MIB: u64 = 1 << 20;
    const NOW: WallMillis = WallMillis(1_795_238_576_000);

    fn record(at: WallMillis) -> SnapshotRecord {
        SnapshotRecord {
            id: 0,
            at,
            by: Some(ProcessIdentity::current().clone()),
            reason: Some(SnapshotReason::Finding),
            key: Some(key("live_heap")),
            mode: Some(Mode::Inline),
            node_major: 22,
            heap_bytes: 50 * MIB,
            expires: WallMillis(at.0 + 60_000),
            outcome: Outcome::Started,
            cost: Cost::default(),
            file: None,
        }
    }

    fn key(series: &str) -> CooldownKey {
        CooldownKey { app: "shop@1".into(), series: series.into(), cause: "app.js:12".into() }
    }

    fn request() -> SnapshotRequest {
        SnapshotRequest {
            reason: SnapshotReason::Finding,
            key: Some(key("live_heap")),
            modes: crate::config::SnapshotMode::Inline,
            fork_possible: false,
            node_major: 22,
            compression: crate::evidence::Compression::None,
            shutting_down: false,
            in_progress: false,
        }
    }

    #[test]
    fn a_state_survives_its_file() {
        let mut state = State::default();
        let id = state.begin(record(NOW));
        state.finish(
            id,
            ProcessIdentity::current(),
            Outcome::Taken,
            Cost { extra_bytes: Some(1), ..Cost::default() },
            Some("Heap".into()),
        );
        state.start_cooldown(NOW, &key("fds"));
        state.record_slope(SlopeRecord {
            app: "shop@1".into(),
            series: "live_heap".into(),
            by: ProcessIdentity::current().clone(),
            at: NOW,
            per_hour: 1.5,
            over_millis: HOUR,
            last: 3.0,
        });
        assert_eq!(State::parse(&state.to_bytes().unwrap()), Ok(state));
    }

    #[test]
    fn members_of_a_later_version_are_kept() {
        let text = br#"{"schema":7,"snapshots":[],"weather":{"rain":true}}"#;
        let state = State::parse(text).unwrap();
        let written = String::from_utf8(state.to_bytes().unwrap()).unwrap();
        assert!(written.contains(r#""weather":{"rain":true}"#), "{written}");
        assert!(written.contains(r#""schema":7"#), "{written}");
    }

    #[test]
    fn what_is_not_a_state_is_refused() {
        let deep = format!(r#"{{"schema":1,"x":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
        for text in [
            "",
            "{",
            "null",
            "[]",
            "{}",
            r#"{"schema":0}"#,
            r#"{"schema":-1}"#,
            r#"{"schema":1,"snapshots":5}"#,
            r#"{"schema":1,"snapshots":[{"at":"yesterday"}]}"#,
            r#"{"schema":1}{"schema":1}"#,
            &deep,
        ] {
            State::parse(text.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn snapshots_count_for_a_day_and_from_their_beginning() {
        let mut state = State::default();
        for hours in [30, 25, 23, 1] {
            state.begin(record(WallMillis(NOW.0 - hours * HOUR)));
        }
        let view = state.view(NOW, &request());
        assert_eq!(view.taken, 2);
        assert_eq!(view.oldest, Some(WallMillis(NOW.0 - 23 * HOUR)));
        assert_eq!(view.same_key, Some(WallMillis(NOW.0 - HOUR)));
        assert_eq!(view.busy, None);
    }

    #[test]
    fn a_cancelled_snapshot_does_not_count_and_a_failed_one_does() {
        let me = ProcessIdentity::current();
        let mut state = State::default();
        let cancelled = state.begin(record(NOW));
        let failed = state.begin(record(NOW));
        state.cancel(cancelled, me);
        state.finish(failed, me, Outcome::Failed, Cost::default(), None);
        state.cancel(failed, me);
        assert_eq!(state.view(NOW, &request()).taken, 1);
    }

    #[test]
    fn a_snapshot_begun_by_a_live_process_makes_others_wait_until_it_expires() {
        let mut state = State::default();
        state.begin(record(NOW));
        assert!(state.view(WallMillis(NOW.0 + 59_000), &request()).busy.is_some());
        assert!(state.view(WallMillis(NOW.0 + 61_000), &request()).busy.is_none());
        state.snapshots[0].by.as_mut().unwrap().start ^= 1;
        assert!(state.view(NOW, &request()).busy.is_none(), "its process is dead");
        state.snapshots[0].by.as_mut().unwrap().home ^= 1;
        assert!(state.view(NOW, &request()).busy.is_some(), "of another container one cannot know");
    }

    #[test]
    fn a_clock_that_went_backwards_neither_frees_nor_blocks_for_ever() {
        let mut state = State::default();
        state.begin(record(WallMillis(NOW.0 + 1000 * HOUR)));
        state.start_cooldown(WallMillis(NOW.0 + 1000 * HOUR), &key("fds"));
        state.settle(NOW);
        assert_eq!(state.view(NOW, &request()).taken, 1);
        assert!(state.cooling(NOW, &key("fds"), 6 * HOUR).is_some());
        let next_day = WallMillis(NOW.0 + 25 * HOUR);
        state.settle(next_day);
        assert_eq!(state.view(next_day, &request()).taken, 0);
        assert!(state.view(next_day, &request()).busy.is_none());
        assert!(state.cooling(next_day, &key("fds"), 6 * HOUR).is_none());
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_frees_nothing() {
        let mut state = State::default();
        state.begin(record(NOW));
        let ahead = WallMillis(NOW.0 + 1000 * HOUR);
        state.settle(ahead);
        assert_eq!(state.view(ahead, &request()).taken, 0);
        state.begin(record(ahead));
        state.settle(NOW);
        assert_eq!(state.view(NOW, &request()).taken, 2);
    }

    #[test]
    fn a_rebuilt_state_counts_the_files_and_is_silent_for_every_key() {
        let state = State::from_files(
            [
                ("b".to_owned(), WallMillis(NOW.0 - HOUR)),
                ("a".to_owned(), WallMillis(NOW.0 - 2 * HOUR)),
                ("old".to_owned(), WallMillis(NOW.0 - 30 * HOUR)),
            ],
            Some(WallMillis(NOW.0 - HOUR)),
        );
        assert_eq!(state.view(NOW, &request()).taken, 2);
        assert!(state.cooling(NOW, &key("anything"), 6 * HOUR).is_some());
        assert!(state.cooling(WallMillis(NOW.0 + 6 * HOUR), &key("anything"), 6 * HOUR).is_none());
    }

    #[test]
    fn cooldowns_are_per_key() {
        let mut state = State::default();
        state.start_cooldown(NOW, &key("fds"));
        assert!(state.cooling(NOW, &key("fds"), HOUR).is_some());
        assert!(state.cooling(NOW, &key("live_heap"), HOUR).is_none());
        let until = WallMillis(NOW.0 + HOUR);
        assert_eq!(state.cooldowns(NOW, "shop@1", HOUR), [(Some(key("fds")), until)]);
        assert_eq!(state.cooldowns(NOW, "shop@2", HOUR), []);
        assert_eq!(state.cooldowns(until, "shop@1", HOUR), []);
        let other_cause = CooldownKey { cause: "app.js:99".into(), ..key("fds") };
        assert!(state.cooling(NOW, &other_cause, HOUR).is_none());
    }

    #[test]
    fn predictions_follow_the_worst_of_the_last_five_of_mode_and_version() {
        let mut state = State::default();
        assert_eq!(state.predictions(22), Predictions::default());
        let mut take = |extra: u64, pause: u64, version: u32| {
            let id = state.begin(SnapshotRecord { node_major: version, ..record(NOW) });
            state.finish(
                id,
                ProcessIdentity::current(),
                Outcome::Taken,
                Cost {
                    extra_bytes: Some(extra * 50 * MIB),
                    pause_millis: Some(pause * 50),
                    snapshot_bytes: Some(100 * MIB),
                    file_bytes: None,
                },
                None,
            );
            state.predictions(22).inline
        };
        take(40, 1000, 24);
        let first = take(20, 150, 22);
        assert!((first.extra_per_heap - 24.0).abs() < 1e-9, "{first:?}");
        assert!((first.pause_millis_per_mib - 180.0).abs() < 1e-9, "{first:?}");
        assert!((first.file_per_heap - 2.4).abs() < 1e-9, "{first:?}");
        for _ in 0..4 {
            assert_eq!(take(10, 50, 22).extra_per_heap.to_bits(), first.extra_per_heap.to_bits());
        }
        let later = take(10, 50, 22);
        assert!((later.extra_per_heap - 12.0).abs() < 1e-9, "{later:?}");
        assert_eq!(later.learned_from, 5);
        // A measurement of nothing does not make snapshots free, nor one of everything impossible.
        for _ in 0..5 {
            take(0, 0, 22);
        }
        assert!((state.predictions(22).inline.extra_per_heap - 9.0).abs() < 1e-9);
        assert_eq!(state.predictions(22).fork, Predictions::default().fork);
    }

    #[test]
    fn a_state_never_outgrows_its_file() {
        let long = "\u{1}".repeat(10_000); // six bytes each in JSON
        let mut state = State::default();
        for i in 0..3000_u64 {
            let key = CooldownKey { app: long.clone(), series: i.to_string(), cause: long.clone() };
            state.start_cooldown(NOW, &key);
            let mut record = record(NOW);
            record.key = Some(key);
            state.begin(record);
            state.record_slope(SlopeRecord {
                app: long.clone(),
                series: long.clone(),
                by: ProcessIdentity { start: i, ..ProcessIdentity::current().clone() },
                at: NOW,
                per_hour: f64::MAX,
                over_millis: u64::MAX,
                last: f64::MIN,
            });
        }
        assert!((state.to_bytes().unwrap().len() as u64) < MAX_STATE_BYTES);
    }

    #[test]
    fn a_run_is_looked_at_once_and_again_only_if_the_looker_died() {
        let me = ProcessIdentity::current();
        let dead = ProcessIdentity { start: me.start.wrapping_sub(1), ..me.clone() };
        let mut state = State::default();
        assert!(state.claim_run(NOW, me, "run.shop.1.rec", 5));
        assert!(!state.claim_run(NOW, &dead, "run.shop.1.rec", 5));
        assert!(state.claim_run(NOW, &dead, "run.shop.1.rec", 6), "the name was used again");
        assert!(state.claim_run(NOW, me, "run.shop.1.rec", 6));
        assert_eq!(state.runs().count(), 0);
        for started_ms in 0..200 {
            state.claim_run(NOW, me, "run.shop.2.rec", started_ms);
        }
        assert_eq!(state.runs.len(), MAX_RUNS);
    }

    #[test]
    fn a_delivery_is_adopted_from_the_dead_and_given_up_in_the_end() {
        let me = ProcessIdentity::current();
        let dead = ProcessIdentity { start: me.start.wrapping_sub(1), ..me.clone() };
        let delivery = |by: &ProcessIdentity| Delivery {
            file: "Finding.1.json".into(),
            kind: "finding".into(),
            finding: None,
            pid: 1,
            by: by.clone(),
            at: NOW,
            tries: 0,
        };
        let mut state = State::default();
        state.begin_delivery(delivery(me));
        assert_eq!(state.adopt_deliveries(NOW, me), []);
        state.begin_delivery(delivery(&dead));
        for tries in 1..=MAX_TRIES {
            let adopted = state.adopt_deliveries(NOW, &dead);
            assert_eq!(adopted.iter().map(|one| one.tries).collect::<Vec<_>>(), [tries]);
        }
        assert_eq!(state.adopt_deliveries(NOW, me), []);
        assert_eq!(state.deliveries, []);
        state.begin_delivery(delivery(me));
        state.end_delivery("Finding.1.json");
        assert_eq!(state.deliveries, []);
    }
}
