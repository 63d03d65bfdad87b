//! Turns what the pipeline decides into evidence: writes findings, asks the budget for a snapshot, has the JS
//! thread write it into the sink's pipe, and completes the finding. Lives on the native thread; it judges no
//! growth and makes no call into Node.

mod analyses;
mod profiles;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Map, Value, json};

use crate::analyst::{Analyst, Outcome};
use crate::clock::Clock;
use crate::config::{Bytes, Config, LogLevel, SnapshotMode};
use crate::evidence::budget::{Allowance, Mode, SnapshotReason};
use crate::evidence::fork::{self, ForkAbility};
use crate::evidence::ledger::Grant;
use crate::evidence::minder::{Errand, ForkReport, Minder, News, Terms};
use crate::evidence::sink::{self, Filter, SinkHandle, SnapshotFacts, SnapshotFile};
use crate::evidence::state::{CooldownKey, Cost};
use crate::evidence::{
    Compression, EvidenceName, Figures, Kind, Limits, Redacting, Refusal, RefusalReason, SinkJob,
    SinkReport, SnapshotRequest, Store, StoreOptions, WallMillis,
};
use crate::finding::{Finding, Identity, SCHEMA, Step, routes_words};
use crate::heap::redact::Redaction;
use crate::mailbox::{EventKind, JobWay, ProfileOrder, SnapshotJob};
use crate::metric::SeriesId;
use crate::pipeline::{Cause, Draft, LimitKind, Piece, is_memory};
use crate::postmortem::{AcrossRuns, RunSummary};
use crate::probe;
use crate::recorder::{Field, What};
use crate::routes::{Explanation, is_news};
use crate::sample::{IsolateId, Millis, ProcessSample};
use crate::tally::{self, Tally};
use crate::trigger::Source;

use profiles::{AtLimit, Held, Profiling};

/// Findings, refusals and snapshots that `status()` remembers.
const REMEMBERED: usize = 16;

/// How long the JS thread may take to begin a snapshot that was granted.
const BEGIN_WITHIN_MS: u64 = 30_000;

/// What the child of a GC-stage trial may add to its address space, and how long it may take.
const TRIAL_BUDGET_BYTES: u64 = 4 << 30;
const TRIAL_LIFETIME: Duration = Duration::from_secs(60);

/// Where events, lines and jobs go. The sampler implements it.
pub trait Outbox {
    /// Posts an event to an isolate, or to the first one.
    fn event(&self, isolate: Option<IsolateId>, kind: EventKind, payload: &Value);
    /// Writes a line to stderr if the level asks for it.
    fn say(&self, level: LogLevel, line: &str);
    /// Leaves a snapshot job; false if the isolate is gone.
    fn job(&self, isolate: IsolateId, job: SnapshotJob) -> bool;
    /// Leaves an order for the allocation profile; false if the isolate is gone.
    fn order(&self, isolate: IsolateId, order: ProfileOrder) -> bool;
    /// Takes the job back; true if the JS thread had not begun.
    fn withdraw(&self, isolate: IsolateId) -> bool;
    /// Keeps it in the flight recorder.
    fn record(&self, tid: u32, what: What);
    /// A new evidence file of the directory, with its kind and the finding's file that it belongs to.
    fn new_file(&self, file: &str, kind: &str, finding: Option<&str>);
}

/// What stands around a finding or a snapshot at this moment.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The process.
    pub process: ProcessSample,
    /// Live heap of the isolate concerned, bytes; the used heap where no reading was made.
    pub live_heap_bytes: Option<f64>,
    /// Its large objects, bytes.
    pub large_object_bytes: Option<f64>,
    /// Its V8 heap limit, bytes.
    pub heap_limit_bytes: Option<f64>,
    /// Its thread id.
    pub tid: u32,
    /// Its libuv handles.
    pub handles: Vec<(String, u64)>,
}

/// Why a snapshot is taken.
#[derive(Clone, Debug, PartialEq)]
enum Purpose {
    Finding(u32),
    FollowUp(u32),
    Baseline,
    OnDemand { number: Option<u32>, reason: String },
}

impl Purpose {
    fn finding(&self) -> Option<u32> {
        match self {
            Purpose::Finding(number) | Purpose::FollowUp(number) => Some(*number),
            _ => None,
        }
    }

    fn step_kind(&self) -> &'static str {
        if matches!(self, Purpose::FollowUp(_)) { "followup" } else { "snapshot" }
    }

    fn reason(&self) -> SnapshotReason {
        match self {
            Purpose::Finding(_) => SnapshotReason::Finding,
            Purpose::FollowUp(_) => SnapshotReason::FollowUp,
            Purpose::Baseline => SnapshotReason::Baseline,
            Purpose::OnDemand { .. } => SnapshotReason::OnDemand,
        }
    }
}

/// A snapshot that is wanted.
#[derive(Clone, Debug)]
struct Wish {
    purpose: Purpose,
    isolate: Option<IsolateId>,
    key: Option<CooldownKey>,
    /// Why it could not be forked, if that was tried: now the next way of the ladder.
    not_forked: Option<String>,
}

/// A finding of this run.
struct Open {
    finding: Finding,
    name: EvidenceName,
    lead: Source,
    follow_up_at: Option<Millis>,
    /// A finding across runs is made while the heap is still small: its snapshot waits for this live heap, bytes.
    snapshot_from: Option<f64>,
}

/// A snapshot that was written.
struct Done {
    file: SnapshotFile,
    cost: Cost,
    /// How the fork went, if it was forked.
    fork: Option<Value>,
}

/// The snapshot under way; one at a time.
struct Active {
    id: u32,
    purpose: Purpose,
    isolate: IsolateId,
    key: Option<CooldownKey>,
    grant: Grant,
    began: Millis,
    /// Drives it, if it is forked.
    minder: Option<Minder>,
    /// The pipe's write end. Closing it tells the sink that the snapshot has ended.
    write_end: Option<(File, probe::own::Fd)>,
    /// Where V8 writes when a process cannot name its own pipe.
    part: Option<(crate::evidence::store::Part, SinkJob)>,
    sink: Option<SinkHandle>,
    rss_before: u64,
    /// High-water mark of resident memory before: only if it rises was it this snapshot that raised it.
    high_water_before: u64,
    rss_peak: u64,
    pause_ms: f64,
    written: bool,
}

impl Wish {
    fn new(purpose: Purpose, isolate: Option<IsolateId>) -> Wish {
        Wish { purpose, isolate, key: None, not_forked: None }
    }
}

impl Active {
    /// Notes how much memory it takes: as sampled, and by the kernel's high-water mark if that rose.
    fn watch(&mut self, process: &ProcessSample) {
        let high_water = process.rss_peak_bytes.filter(|peak| *peak > self.high_water_before);
        self.rss_peak =
            self.rss_peak.max(process.rss_bytes.unwrap_or(0)).max(high_water.unwrap_or(0));
    }
}

/// Names a state of the evidence; see [`Collector::version`].
pub type Version = (usize, u64, u64, u64, bool, bool);

/// Collects evidence.
pub struct Collector {
    clock: Clock,
    identity: Identity,
    config: Config,
    store: Option<Arc<Store>>,
    store_problem: Option<String>,
    findings: Vec<Open>,
    active: Option<Active>,
    /// A snapshot that came to nothing, which the directory's state does not know yet.
    unnoted: Option<(Grant, Option<Cost>)>,
    profiles: BTreeMap<IsolateId, Profiling>,
    runs: u32,
    held: Option<Held>,
    /// Node was asked for an allocation profile at V8's heap limit.
    at_limit: Option<AtLimit>,
    jobs: u32,
    reports: (Sender<SinkReport>, Receiver<SinkReport>),
    /// From the minder of a forked snapshot.
    news: (Sender<News>, Receiver<News>),
    /// Found at the end of the warm-up, or when first needed.
    fork_ability: Option<ForkAbility>,
    /// The GC-stage trial under way: its number, its isolate, and what drives it.
    trial: Option<(u32, IsolateId, Minder)>,
    refusals: VecDeque<Value>,
    snapshots: VecDeque<Value>,
    analyst: Analyst,
    analyses: VecDeque<Value>,
    /// Raised whenever an analysis begins or ends.
    analyses_version: u64,
    refused: u64,
    taken: u64,
    tally: Tally,
}

impl Collector {
    /// Opens the directory. What is wrong with it is said and leaves a guard without files.
    pub fn open(
        clock: Clock,
        identity: Identity,
        config: Config,
        mut analyst: Analyst,
        out: &dyn Outbox,
    ) -> Collector {
        analyst.enable(config.analyze);
        let mut collector = Collector {
            clock,
            identity,
            config,
            store: None,
            store_problem: None,
            findings: Vec::new(),
            active: None,
            unnoted: None,
            profiles: BTreeMap::new(),
            runs: 0,
            held: None,
            at_limit: None,
            jobs: 0,
            reports: bounded(4),
            news: bounded(4),
            fork_ability: None,
            trial: None,
            refusals: VecDeque::new(),
            snapshots: VecDeque::new(),
            analyst,
            analyses: VecDeque::new(),
            analyses_version: 0,
            refused: 0,
            taken: 0,
            tally: Tally::default(),
        };
        collector.open_store(out);
        collector
    }

    /// New settings. Another directory is opened; findings so far stay where they are.
    pub fn configure(&mut self, config: Config, out: &dyn Outbox) {
        let moved = config.dir != self.config.dir;
        self.config = config;
        self.analyst.enable(self.config.analyze);
        match &self.store {
            Some(store) if !moved => store.set_max_disk_bytes(self.config.max_disk_bytes),
            _ => self.open_store(out),
        }
    }

    fn open_store(&mut self, out: &dyn Outbox) {
        let options = StoreOptions {
            dir: std::path::Path::new(&self.identity.cwd).join(&self.config.dir),
            max_disk_bytes: self.config.max_disk_bytes,
            temp_dir: std::env::temp_dir(),
        };
        match Store::open(&options) {
            Ok(store) => {
                self.store = Some(Arc::new(store));
                self.store_problem = None;
            }
            Err(error) => {
                self.store = None;
                self.store_problem = Some(error.to_string());
                warn(out, "LEAKGUARD_DIR", &error.to_string());
            }
        }
        self.pass_warnings(out);
    }

    fn pass_warnings(&self, out: &dyn Outbox) {
        for warning in self.store.iter().flat_map(|store| store.take_warnings()) {
            if warning.is_problem() {
                warn(out, "LEAKGUARD_DIR", &warning.to_string());
            } else {
                out.say(LogLevel::Info, &warning.to_string());
            }
        }
    }

    /// Reports of sinks, for the sampler's select loop.
    pub fn reports(&self) -> &Receiver<SinkReport> {
        &self.reports.1
    }

    /// How analyses ended, for the sampler's select loop.
    pub fn outcomes(&self) -> &Receiver<Outcome> {
        self.analyst.outcomes()
    }

    /// Writes a finding, at once and before anything heavy, and then sees to its snapshot.
    pub fn open_finding(
        &mut self,
        now: Millis,
        draft: Draft,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        self.open_with(now, draft, Vec::new(), around, out);
    }

    /// Writes a finding of growth across runs. Its snapshot is taken when this run has come half as far as the
    /// last one did: now there is nothing to see in it, and later may be too late.
    pub fn open_across(
        &mut self,
        now: Millis,
        across: AcrossRuns,
        isolate: Option<IsolateId>,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        let draft = across.draft(now, isolate, &self.config);
        self.open_with(now, draft, across.runs, around, out);
    }

    /// A limit is about to be reached: the finding is written at once, whatever the cooldown. Where one about memory
    /// is open in this run it is the same leak: that one learns of it.
    pub fn near_end(&mut self, now: Millis, draft: Draft, around: &Surroundings, out: &dyn Outbox) {
        let known = self
            .findings
            .iter_mut()
            .rev()
            .find(|open| open.finding.draft.pieces.iter().any(is_memory));
        let Some(open) = known else {
            self.open_with(now, draft, Vec::new(), around, out);
            return;
        };
        let number = open.finding.draft.finding;
        open.finding.limits = limits_json(around);
        open.finding.draft.limit = draft.limit;
        open.finding.draft.context = draft.context;
        open.finding.draft.near = draft.near;
        self.expect_at_limit(number);
        if let Some(payload) = self.save(number, out) {
            let sentence = payload["sentence"].as_str().unwrap_or_default();
            let id = payload["id"].as_str().unwrap_or_default();
            out.say(LogLevel::Warn, &format!("{id}: {sentence}"));
        }
        self.attach_late(draft.isolate, out);
    }

    /// The finding across runs whose snapshot is due at this live heap.
    pub fn across_due(&mut self, live_heap_bytes: f64) -> Option<(u32, Option<IsolateId>)> {
        if self.active.is_some() {
            return None;
        }
        let open = self
            .findings
            .iter_mut()
            .find(|open| open.snapshot_from.is_some_and(|from| live_heap_bytes >= from))?;
        open.snapshot_from = None;
        Some((open.finding.draft.finding, open.finding.draft.isolate))
    }

    /// Takes the snapshot of a finding whose moment has come.
    pub fn snapshot_of(
        &mut self,
        now: Millis,
        finding: u32,
        isolate: Option<IsolateId>,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        let lead = self.find(finding).map(|open| open.lead.clone());
        let key = lead.map(|lead| self.cooldown_key(&lead));
        let purpose = Purpose::Finding(finding);
        self.begin_snapshot(now, Wish { purpose, isolate, key, not_forked: None }, around, out);
        self.save(finding, out);
    }

    /// The directory, if there is one.
    pub fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    fn open_with(
        &mut self,
        now: Millis,
        draft: Draft,
        runs: Vec<RunSummary>,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        let Some(lead) = draft.pieces.first().map(|piece| piece.source.clone()) else { return };
        let evidence = draft.pieces.first().map(|piece| piece.evidence.clone());
        let wall = WallMillis(self.clock.wall_ms(now));
        // Near the end no cooldown keeps it back; nor does it begin one, which would silence what the next run finds.
        let urgent = draft.near.is_some();
        let silent_ms = draft.near.as_ref().map_or(0, |near| near.silent_ms);
        if !urgent && !self.claim(wall, &lead, out) {
            return;
        }
        let name = EvidenceName::next(Kind::Finding, wall, u64::from(around.tid));
        let isolate = draft.isolate;
        let number = draft.finding;
        let snapshot_from = runs
            .last()
            .and_then(|run| run.growth.iter().find(|growth| growth.series == "live_heap"))
            .map(|growth| (growth.first + growth.last) / 2.0);
        let finding = Finding {
            id: format!("Finding.{}", name.stem()),
            wall_ms: wall.0,
            process_age_ms: self.identity.uptime_ms + now.0,
            tid: around.tid,
            handles: around.handles.clone(),
            fds: if wants(&draft, SeriesId::Fds) || wants(&draft, SeriesId::Handles) {
                probe::fds_by_kind()
            } else {
                Vec::new()
            },
            threads: if wants(&draft, SeriesId::Threads) {
                probe::threads_by_name()
            } else {
                Vec::new()
            },
            limits: limits_json(around),
            steps: vec![Step {
                kind: "snapshot",
                state: "pending",
                file: None,
                reason: None,
                sentence: match snapshot_from {
                    None => "the budget for a snapshot is being looked at".into(),
                    Some(bytes) => format!(
                        "it is taken when the live heap of this run has come to {}, half as far as the last run did",
                        Bytes(bytes as u64)
                    ),
                },
                numbers: Value::Null,
            }],
            pair: None,
            allocation: None,
            analysis: Value::Null,
            draft,
            runs,
        };
        let file = name.to_string();
        self.tally.finding(lead.series);
        self.findings.push(Open { finding, name, lead, follow_up_at: None, snapshot_from });
        if self.findings.len() > REMEMBERED {
            self.findings.remove(0);
        }
        self.attach_profile(number);
        if urgent {
            self.expect_at_limit(number);
        }
        let payload = self.save(number, out);
        if let Some(payload) = payload {
            let sentence = payload["sentence"].as_str().unwrap_or_default().to_owned();
            let path = payload["path"].as_str().map_or(String::new(), |path| format!(" ({path})"));
            out.say(LogLevel::Warn, &format!("finding: {sentence}{path}"));
            out.record(
                around.tid,
                What::Finding {
                    field: evidence.as_ref().map(|evidence| Field::from(evidence.series)),
                    value: evidence.as_ref().map(|evidence| evidence.last),
                    per_hour: evidence.as_ref().map(|evidence| evidence.slope_per_hour),
                    threshold_per_hour: evidence.map(|evidence| evidence.threshold_per_hour),
                    file: file.clone(),
                },
            );
            if !path.is_empty() {
                out.new_file(&file, "finding", Some(&file));
            }
            self.tell_finding(now, number, isolate, &payload, out);
        }
        self.tell_profile_refusal(number, out);
        if snapshot_from.is_some() {
            return;
        }
        let key = self.findings.last().map(|open| self.cooldown_key(&open.lead));
        let purpose = Purpose::Finding(number);
        if silent_ms >= 2 * self.config.interval_ms {
            let sentence = "the event loop does not answer, and only it can write or fork one";
            let refusal = Refusal::plain(RefusalReason::Busy, sentence);
            self.refuse_snapshot(&purpose, isolate, &refusal, out);
            return;
        }
        self.begin_snapshot(now, Wish { purpose, isolate, key, not_forked: None }, around, out);
    }

    /// Starts the cooldown of a finding, or says that an earlier one has not ended.
    fn claim(&mut self, wall: WallMillis, lead: &Source, out: &dyn Outbox) -> bool {
        let Some(store) = &self.store else { return true };
        match store.claim_finding(wall, &self.cooldown_key(lead), self.config.cooldown_ms) {
            Err(refusal) if refusal.reason == RefusalReason::Cooldown => {
                self.refuse("finding", None, None, &refusal, out);
                false
            }
            // Without its state the directory may still take the finding, and the log always does.
            Err(refusal) => {
                warn(out, "LEAKGUARD_DIR", &refusal.sentence);
                true
            }
            Ok(()) => true,
        }
    }

    /// Adds a series to a finding that is open.
    pub fn join(&mut self, finding: u32, piece: Piece, cause: Option<Cause>, out: &dyn Outbox) {
        let Some(open) = self.find(finding) else { return };
        let draft = &mut open.finding.draft;
        // A suspicion that is confirmed now takes the place of what was written of it.
        draft.pieces.retain(|known| known.source != piece.source);
        draft.pieces.push(piece);
        if let (Cause::Memory { .. }, Some(cause)) = (&draft.cause, cause) {
            draft.cause = cause;
        }
        let known = open.finding.steps.iter().any(|step| step.kind == "profile");
        if !known {
            self.attach_profile(finding);
        }
        self.save(finding, out);
        if !known {
            self.tell_profile_refusal(finding, out);
        }
    }

    /// Later readings know a slope of a finding better: its file ends with what is known best.
    pub fn refine(
        &mut self,
        finding: u32,
        piece: Piece,
        limit: Option<(u64, LimitKind, u64)>,
        out: &dyn Outbox,
    ) {
        let Some(open) = self.find(finding) else { return };
        let (id, draft) = (open.finding.id.clone(), &mut open.finding.draft);
        let Some(known) = draft.pieces.iter_mut().find(|known| known.source == piece.source) else {
            return;
        };
        let (uncertainty, slope) = (piece.evidence.uncertainty(), piece.evidence.slope_per_hour);
        *known = piece;
        // The limit is reckoned from the fastest.
        let fastest = draft
            .pieces
            .iter()
            .filter(|of| is_memory(of))
            .all(|of| of.evidence.slope_per_hour <= slope);
        if fastest && limit.is_some() {
            draft.limit = limit;
        }
        let Some(payload) = self.save(finding, out) else { return };
        let sentence = payload["sentence"].as_str().unwrap_or_default();
        let line =
            format!("{id}: its slope is known to {:.0} % now: {sentence}", 100.0 * uncertainty);
        out.say(LogLevel::Debug, &line);
    }

    /// New readings tell more about the routes that a finding goes with. The finding came without waiting for that, so
    /// what is new in it is told to everybody who was told of the finding.
    pub fn routes(&mut self, finding: u32, explanation: Explanation, out: &dyn Outbox) {
        let Some(open) = self.find(finding) else { return };
        let (id, isolate) = (open.finding.id.clone(), open.finding.draft.isolate);
        let words = routes_words(&explanation)
            .filter(|_| is_news(&explanation, open.finding.draft.routes.as_ref()));
        open.finding.draft.routes = Some(explanation);
        let Some(payload) = self.save(finding, out) else { return };
        let Some(words) = words else { return };
        out.say(LogLevel::Warn, &format!("{id}: {words}"));
        let news = json!({
            "schema": SCHEMA,
            "path": payload["path"],
            "finding": id,
            "sentence": payload["sentence"],
            "routes": payload["routes"],
        });
        self.tell(Some(&id), isolate, EventKind::Routes, news, out);
    }

    /// A snapshot on demand: budgets apply, the cooldown does not.
    pub fn on_demand(
        &mut self,
        now: Millis,
        number: Option<u32>,
        reason: String,
        isolate: Option<IsolateId>,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        let purpose = Purpose::OnDemand { number, reason };
        self.begin_snapshot(now, Wish::new(purpose, isolate), around, out);
    }

    /// The snapshot of the end of the warm-up.
    pub fn baseline(
        &mut self,
        now: Millis,
        isolate: Option<IsolateId>,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        if self.config.baseline {
            self.begin_snapshot(now, Wish::new(Purpose::Baseline, isolate), around, out);
        }
    }

    /// The finding whose follow-up snapshot is due, with what it is about.
    pub fn follow_up_due(&mut self, now: Millis) -> Option<(u32, Source, Option<IsolateId>)> {
        if self.active.is_some() {
            return None;
        }
        let open =
            self.findings.iter_mut().find(|open| open.follow_up_at.is_some_and(|at| now >= at))?;
        open.follow_up_at = None;
        Some((open.finding.draft.finding, open.lead.clone(), open.finding.draft.isolate))
    }

    /// Takes the follow-up snapshot, or says why there is none.
    pub fn follow_up(
        &mut self,
        now: Millis,
        finding: u32,
        still_grows: bool,
        isolate: Option<IsolateId>,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        if still_grows {
            let purpose = Purpose::FollowUp(finding);
            self.begin_snapshot(now, Wish::new(purpose, isolate), around, out);
            return;
        }
        self.put_step(
            finding,
            Step {
                kind: "followup",
                state: "refused",
                file: None,
                reason: Some("no_growth"),
                sentence: "the growth did not go on: no second snapshot".into(),
                numbers: Value::Null,
            },
        );
        self.save(finding, out);
    }

    /// Once a tick: how much memory the snapshot under way takes, and whether it was begun at all.
    pub fn tick(&mut self, now: Millis, process: &ProcessSample, out: &dyn Outbox) {
        self.release_overdue(now, out);
        self.analyst.watch(&Figures::from_sample(0, process));
        self.look_at_limit(now, out);
        let Some(active) = self.active.as_mut() else { return };
        active.watch(process);
        if active.minder.is_none()
            && !active.written
            && now.0 > active.began.0 + BEGIN_WITHIN_MS
            && out.withdraw(active.isolate)
        {
            let refusal = Refusal::plain(
                RefusalReason::Busy,
                format!(
                    "the event loop did not come round within {BEGIN_WITHIN_MS} ms to write it"
                ),
            );
            self.abandon(refusal, out);
        }
    }

    /// The JS thread has written the snapshot, or could not.
    pub fn written(&mut self, id: u32, pause_ms: f64, error: Option<String>, out: &dyn Outbox) {
        let Some(active) = self.active.as_mut().filter(|active| active.id == id) else { return };
        active.pause_ms = pause_ms;
        active.written = true;
        if let Some(error) = error {
            out.event(
                Some(active.isolate),
                EventKind::Error,
                &json!({
                    "code": "LEAKGUARD_SNAPSHOT",
                    "message": format!("V8 could not write the snapshot: {error}"),
                }),
            );
        }
        self.end_writing(out);
    }

    /// An isolate has gone: a snapshot that it was writing ends here.
    pub fn isolate_gone(&mut self, isolate: IsolateId, out: &dyn Outbox) {
        self.profile_gone(isolate, out);
        if self.trial.as_ref().is_some_and(|(_, of, _)| *of == isolate) {
            self.trial = None;
        }
        let Some(active) = self.active.as_mut().filter(|active| active.isolate == isolate) else {
            return;
        };
        if let Some(minder) = &active.minder {
            // The child goes with the thread that forked it; the minder reports.
            minder.stop();
        } else if !active.written {
            active.written = true;
            self.end_writing(out);
        }
    }

    fn end_writing(&mut self, out: &dyn Outbox) {
        let Some(active) = self.active.as_mut() else { return };
        // The last write end closes: the sink reads to the end and reports.
        active.write_end = None;
        if let (Some((part, job)), Some(store)) = (active.part.take(), self.store.clone()) {
            match sink::adopt(store, part, job, self.reports.0.clone()) {
                Ok(sink) => active.sink = Some(sink),
                Err(error) => {
                    let sentence = format!("the sink thread could not be started: {error}");
                    self.abandon(Refusal::plain(RefusalReason::State, sentence), out);
                }
            }
        }
    }

    /// A sink has ended.
    pub fn on_report(
        &mut self,
        now: Millis,
        report: SinkReport,
        process: &ProcessSample,
        out: &dyn Outbox,
    ) {
        let Some(mut active) = self.active.take() else { return };
        active.watch(process);
        let wall = WallMillis(self.clock.wall_ms(now));
        let cost = Cost {
            extra_bytes: Some(active.rss_peak.saturating_sub(active.rss_before)),
            pause_millis: Some(active.pause_ms.max(0.0) as u64),
            snapshot_bytes: Some(report.bytes_read),
            file_bytes: None,
        };
        match report.result {
            Ok(file) => {
                let done = Done { file, cost, fork: None };
                self.snapshot_done(now, active, done, process, out);
            }
            Err(error) => {
                self.give_back(wall, active.grant, Some(cost));
                out.record(0, ended(false, None, Some(active.pause_ms), &error.to_string()));
                self.tally.snapshot(active.purpose.reason(), tally::Outcome::Failed);
                let step = Step {
                    kind: active.purpose.step_kind(),
                    state: "failed",
                    file: None,
                    reason: None,
                    sentence: error.to_string(),
                    numbers: Value::Null,
                };
                out.event(
                    Some(active.isolate),
                    EventKind::Error,
                    &json!({
                        "code": "LEAKGUARD_SNAPSHOT",
                        "message": step.sentence,
                    }),
                );
                if let Purpose::OnDemand { number: Some(number), .. } = &active.purpose {
                    let refused = json!({ "reason": "failed", "sentence": step.sentence });
                    out.event(
                        Some(active.isolate),
                        EventKind::Answer,
                        &json!({ "number": number, "refused": refused }),
                    );
                }
                if let Some(finding) = active.purpose.finding() {
                    self.put_step(finding, step);
                    self.save(finding, out);
                }
            }
        }
    }

    fn snapshot_done(
        &mut self,
        now: Millis,
        active: Active,
        done: Done,
        process: &ProcessSample,
        out: &dyn Outbox,
    ) {
        let Done { file, cost, fork } = done;
        self.taken += 1;
        self.tally.snapshot(active.purpose.reason(), tally::Outcome::Written);
        let name = file.name.to_string();
        if let Some(store) = &self.store {
            let wall = WallMillis(self.clock.wall_ms(now));
            let cost = Cost { file_bytes: Some(file.meta.file_bytes), ..cost };
            let _ = store.finish_snapshot(wall, &active.grant, cost, &name);
        }
        let meta = serde_json::to_value(&file.meta).unwrap_or(Value::Null);
        let finding = active.purpose.finding();
        let id = finding.and_then(|number| self.find(number)).map(|open| open.finding.id.clone());
        let payload = json!({
            "schema": SCHEMA,
            "path": file.path,
            "file": name,
            "finding": id,
            "reason": active.purpose.reason(),
            "pauseMs": (active.pause_ms * 10.0).round() / 10.0,
            "extraMemoryBytes": cost.extra_bytes,
            "fork": fork,
            "meta": meta,
        });
        remember(&mut self.snapshots, payload.clone());
        let bytes = Some(file.meta.file_bytes as f64);
        out.record(0, ended(true, bytes, Some(active.pause_ms), &name));
        let finding_file =
            finding.and_then(|number| self.find(number)).map(|open| open.name.to_string());
        out.new_file(&name, "snapshot", finding_file.as_deref());
        if let Some(number) = finding {
            let follow = self.config.followup_ms.map(|after| Millis(now.0 + after));
            if let Some(open) = self.find(number) {
                open.finding.pair.clone_from(&file.meta.pair_id);
                if matches!(active.purpose, Purpose::Finding(_)) {
                    open.follow_up_at = follow;
                }
            }
            self.put_step(
                number,
                Step {
                    kind: active.purpose.step_kind(),
                    state: "written",
                    file: Some(name.clone()),
                    reason: None,
                    sentence: if fork.is_some() {
                        format!(
                            "snapshot of {}, written by a forked child; the loop stopped for {:.0} ms; its node \
                             ids cannot be compared with another snapshot's",
                            Bytes(file.meta.bytes),
                            active.pause_ms
                        )
                    } else {
                        format!(
                            "snapshot of {}, written in {:.1} s of pause",
                            Bytes(file.meta.bytes),
                            active.pause_ms / 1000.0
                        )
                    },
                    numbers: json!({
                        "bytes": file.meta.bytes,
                        "fileBytes": file.meta.file_bytes,
                        "pauseMs": active.pause_ms.round(),
                        "extraMemoryBytes": cost.extra_bytes,
                        "sha256": file.meta.sha256,
                        "nodeIdsComparable": file.meta.node_ids_comparable,
                    }),
                },
            );
            self.save(number, out);
        }
        out.say(LogLevel::Info, &format!("snapshot: {}", file.path.display()));
        let answer = match &active.purpose {
            Purpose::OnDemand { number: Some(number), .. } => {
                Some(json!({ "number": number, "path": file.path, "meta": payload["meta"] }))
            }
            _ => None,
        };
        // The event first: an app that stops the guard when its `snapshot()` is settled has heard it.
        self.tell(id.as_deref(), Some(active.isolate), EventKind::Snapshot, payload, out);
        if let Some(answer) = answer {
            out.event(Some(active.isolate), EventKind::Answer, &answer);
        }
        self.analyse(&file, &active.purpose, active.isolate, process, out);
    }

    fn begin_snapshot(&mut self, now: Millis, wish: Wish, around: &Surroundings, out: &dyn Outbox) {
        let Wish { purpose, isolate, .. } = wish.clone();
        match self.try_snapshot(now, wish, around, out) {
            Ok(()) => {
                if let Some(finding) = purpose.finding() {
                    self.put_step(
                        finding,
                        Step {
                            kind: purpose.step_kind(),
                            state: "pending",
                            file: None,
                            reason: None,
                            sentence: "the snapshot is being written".into(),
                            numbers: Value::Null,
                        },
                    );
                }
            }
            Err(refusal) => self.refuse_snapshot(&purpose, isolate, &refusal, out),
        }
        self.pass_warnings(out);
    }

    fn refuse_snapshot(
        &mut self,
        purpose: &Purpose,
        isolate: Option<IsolateId>,
        refusal: &Refusal,
        out: &dyn Outbox,
    ) {
        let outcome = match refusal.reason {
            RefusalReason::Failed => tally::Outcome::Failed,
            _ => tally::Outcome::Refused,
        };
        self.tally.snapshot(purpose.reason(), outcome);
        let id = purpose
            .finding()
            .and_then(|number| self.find(number))
            .map(|open| open.finding.id.clone());
        self.refuse(purpose.step_kind(), id, isolate, refusal, out);
        if let Purpose::OnDemand { number: Some(number), .. } = purpose {
            out.event(
                isolate,
                EventKind::Answer,
                &json!({ "number": number, "refused": refusal_json(refusal) }),
            );
        }
        if let Some(finding) = purpose.finding() {
            self.put_step(
                finding,
                Step {
                    kind: purpose.step_kind(),
                    state: "refused",
                    file: None,
                    reason: Some(refusal.reason.code()),
                    sentence: refusal.sentence.clone(),
                    numbers: numbers_json(refusal),
                },
            );
            self.save(finding, out);
        }
    }

    fn try_snapshot(
        &mut self,
        now: Millis,
        wish: Wish,
        around: &Surroundings,
        out: &dyn Outbox,
    ) -> Result<(), Refusal> {
        let Wish { purpose, isolate, key, not_forked } = wish;
        let redact = self.config.redact;
        if let Some(refusal) = refused_by_settings(&self.config) {
            return Err(refusal);
        }
        let store = self.store.clone().ok_or_else(|| {
            Refusal::plain(
                RefusalReason::State,
                self.store_problem.clone().unwrap_or_else(|| "there is no directory".into()),
            )
        })?;
        let isolate = isolate.ok_or_else(|| {
            Refusal::plain(RefusalReason::ShuttingDown, "no isolate is under guard any more")
        })?;
        let bytes = |value: Option<f64>| value.map(|value| value.max(0.0) as u64);
        let compression = Compression::from(self.config.compress);
        let not_forked = match not_forked {
            Some(why) => Some(why),
            None => self.why_not_fork(),
        };
        let request = SnapshotRequest {
            reason: purpose.reason(),
            key: key.clone(),
            modes: self.config.snapshot,
            fork_possible: not_forked.is_none(),
            node_major: self.identity.node_major(),
            compression,
            shutting_down: false,
            in_progress: self.active.is_some(),
        };
        let process = &around.process;
        let figures = Figures {
            large_object_bytes: bytes(around.large_object_bytes),
            v8_heap_limit_bytes: bytes(around.heap_limit_bytes),
            ..Figures::from_sample(bytes(around.live_heap_bytes).unwrap_or(0), process)
        };
        let limits = Limits::from(&self.config);
        let wall = WallMillis(self.clock.wall_ms(now));
        if let Some((grant, cost)) = self.unnoted.take() {
            self.give_back(wall, grant, cost);
        }
        let grant = store
            .reserve_snapshot(wall, &request, &figures, &limits)
            .map_err(|refusal| both_ways(refusal, self.config.snapshot, not_forked))?;
        let mode = grant.allowance.mode;
        let facts = SnapshotFacts {
            mode,
            reason: purpose.reason(),
            note: match &purpose {
                Purpose::OnDemand { reason, .. } => Some(reason.clone()),
                _ => None,
            },
            pair_id: Some(self.pair_id(around.tid)),
            tid: u64::from(around.tid),
            node_version: self.identity.node.clone(),
            heap_bytes: figures.live_heap_bytes,
            redaction: redact.map_or("none", Redaction::as_str).into(),
        };
        self.jobs += 1;
        let mut active = Active {
            id: self.jobs,
            purpose,
            isolate,
            key,
            grant,
            began: now,
            minder: None,
            write_end: None,
            part: None,
            sink: None,
            rss_before: process.rss_bytes.unwrap_or(0),
            high_water_before: process.rss_peak_bytes.unwrap_or(u64::MAX),
            rss_peak: process.rss_bytes.unwrap_or(0),
            pause_ms: 0.0,
            written: false,
        };
        let allowance = active.grant.allowance.clone();
        let job = move || SinkJob {
            filter: redact.map(|mode| Box::new(Redacting::new(mode)) as Box<dyn Filter>),
            ..SinkJob::new(facts.clone(), compression, &allowance)
        };
        if mode == Mode::Fork {
            return match self.fork(&store, job, &active.grant) {
                Ok(minder) => {
                    active.minder = Some(minder);
                    out.record(around.tid, started(&active.grant.allowance));
                    self.active = Some(active);
                    Ok(())
                }
                Err(refusal) => {
                    let _ = store.cancel_snapshot(wall, &active.grant);
                    Err(refusal)
                }
            };
        }
        let began = self.open_way(&store, job(), &mut active);
        let path = match began {
            Ok(path) => path,
            Err(sentence) => {
                let _ = store.cancel_snapshot(wall, &active.grant);
                return Err(Refusal::plain(RefusalReason::State, sentence));
            }
        };
        let way =
            JobWay::Inline { predicted_pause_ms: active.grant.allowance.predicted_pause_millis };
        let posted = out.job(isolate, SnapshotJob { id: active.id, path, way });
        if !posted {
            let _ = store.cancel_snapshot(wall, &active.grant);
            if let Some(sink) = &active.sink {
                sink.discard();
            }
            return Err(Refusal::plain(RefusalReason::ShuttingDown, "the isolate has gone"));
        }
        out.record(around.tid, started(&active.grant.allowance));
        self.active = Some(active);
        Ok(())
    }

    /// Whether forked snapshots work here. Some milliseconds the first time.
    fn ability(&mut self) -> &ForkAbility {
        self.fork_ability.get_or_insert_with(fork::self_test)
    }

    /// Why a snapshot is not to be forked; `None` if it may be.
    fn why_not_fork(&mut self) -> Option<String> {
        if let Some(why) = settings_against_fork(&self.config) {
            return Some(why.into());
        }
        match self.ability() {
            ForkAbility::Possible(_) => None,
            ForkAbility::Not(why) => Some(why.clone()),
        }
    }

    /// The warm-up is over: time for the self-test, if its answer will matter.
    pub fn warmed_up(&mut self) {
        let _ = self.why_not_fork();
    }

    fn fork(
        &mut self,
        store: &Arc<Store>,
        job: impl Fn() -> SinkJob + Send + 'static,
        grant: &Grant,
    ) -> Result<Minder, Refusal> {
        let layout = match self.ability() {
            ForkAbility::Possible(layout) => *layout,
            ForkAbility::Not(why) => {
                return Err(Refusal::plain(RefusalReason::Disabled, why.clone()));
            }
        };
        let terms = Terms {
            layout,
            budget_bytes: grant.allowance.child_budget_bytes,
            lifetime: Duration::from_millis(grant.allowance.timeout_millis),
        };
        let errand = Errand::Snapshot { store: Arc::clone(store), job: Box::new(job) };
        Minder::start(terms, errand, self.news.0.clone()).map_err(|error| {
            let sentence = format!("the thread that minds the fork could not be started: {error}");
            Refusal::plain(RefusalReason::State, sentence)
        })
    }

    /// Forks a child that only collects garbage, as a snapshot does first, and answers how it went. What the soak
    /// test runs by the thousand; no budget, no file.
    pub fn gc_stage(&mut self, number: u32, isolate: IsolateId, out: &dyn Outbox) {
        let answer = |problem: String| {
            let answer = json!({ "number": number, "ok": false, "problem": problem });
            out.event(Some(isolate), EventKind::Answer, &answer);
        };
        if self.active.is_some() || self.trial.is_some() {
            return answer("another child is under way".into());
        }
        let layout = match self.ability() {
            ForkAbility::Possible(layout) => *layout,
            ForkAbility::Not(why) => return answer(why.clone()),
        };
        let terms = Terms { layout, budget_bytes: TRIAL_BUDGET_BYTES, lifetime: TRIAL_LIFETIME };
        match Minder::start(terms, Errand::GcStage, self.news.0.clone()) {
            Ok(minder) => self.trial = Some((number, isolate, minder)),
            Err(error) => answer(error.to_string()),
        }
    }

    /// What minders send, for the sampler's select loop.
    pub fn news(&self) -> &Receiver<News> {
        &self.news.1
    }

    /// The isolate whose snapshot is under way.
    pub fn active_isolate(&self) -> Option<IsolateId> {
        self.active.as_ref().map(|active| active.isolate)
    }

    /// A minder wants the JS thread, or has come to its end.
    pub fn on_news(&mut self, now: Millis, news: News, around: &Surroundings, out: &dyn Outbox) {
        match news {
            News::Ask(ticket, path) => {
                // An isolate that has gone drops the ticket, and the minder sees that.
                if let Some((_, isolate, _)) = &self.trial {
                    let way = JobWay::GcStage(ticket);
                    out.job(*isolate, SnapshotJob { id: 0, path, way });
                } else if let Some(active) = &self.active {
                    let way = JobWay::Fork(ticket);
                    out.job(active.isolate, SnapshotJob { id: active.id, path, way });
                }
            }
            News::Done(report) => {
                if let Some((number, isolate, _minder)) = self.trial.take() {
                    let mut answer = fork_json(&report);
                    answer["number"] = json!(number);
                    answer["ok"] = json!(report.result.is_ok());
                    answer["problem"] =
                        json!(report.result.as_ref().err().map(|failure| &failure.sentence));
                    out.event(Some(isolate), EventKind::Answer, &answer);
                } else {
                    self.fork_done(now, *report, around, out);
                }
            }
        }
    }

    /// A forked snapshot has come to its end: done, or on to the next way.
    fn fork_done(
        &mut self,
        now: Millis,
        report: ForkReport,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        let Some(mut active) = self.active.take() else { return };
        active.minder = None;
        let wall = WallMillis(self.clock.wall_ms(now));
        let fork = fork_json(&report);
        active.pause_ms = report.pause.as_secs_f64() * 1000.0;
        let cost = Cost {
            extra_bytes: report.extra_bytes,
            pause_millis: Some(report.pause.as_millis().try_into().unwrap_or(u64::MAX)),
            snapshot_bytes: Some(report.bytes_read),
            file_bytes: None,
        };
        let failure = match report.result {
            Ok(Some(file)) => {
                let done = Done { file, cost, fork: Some(fork) };
                return self.snapshot_done(now, active, done, &around.process, out);
            }
            Ok(None) => return,
            Err(failure) => failure,
        };
        out.record(0, ended(false, None, Some(active.pause_ms), &failure.sentence));
        let inline_next = self.config.snapshot == SnapshotMode::Auto
            && !failure.final_for_all
            && failure.reason != RefusalReason::ShuttingDown;
        // What is tried another way, or was never begun, does not count.
        let counts = !inline_next && report.tries > 0;
        self.give_back(wall, active.grant, counts.then_some(cost));
        let isolate = Some(active.isolate);
        if inline_next {
            let not_forked = Some(failure.sentence);
            let wish = Wish { purpose: active.purpose, isolate, key: active.key, not_forked };
            self.begin_snapshot(now, wish, around, out);
            return;
        }
        let sentence = format!("forked: {}", failure.sentence);
        let refusal = Refusal::plain(failure.reason, sentence);
        self.refuse_snapshot(&active.purpose, isolate, &refusal, out);
    }

    /// Opens the way of the bytes and returns the path that V8 is to write to.
    fn open_way(
        &self,
        store: &Arc<Store>,
        job: SinkJob,
        active: &mut Active,
    ) -> Result<String, String> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let (read, write) = sink::pipe().map_err(|error| format!("no pipe for it: {error}"))?;
            let sink = sink::spawn(Arc::clone(store), read, job, self.reports.0.clone())
                .map_err(|error| format!("the sink thread could not be started: {error}"))?;
            active.sink = Some(sink);
            let number = write.as_raw_fd();
            active.write_end = Some((write, probe::own::numbered_fd(number)));
            Ok(format!("/proc/self/fd/{number}"))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let part = sink::begin_file(store).map_err(|error| error.to_string())?;
            let path = part.path().to_string_lossy().into_owned();
            active.part = Some((part, job));
            Ok(path)
        }
    }

    /// Gives up the snapshot that was granted and never begun.
    fn abandon(&mut self, refusal: Refusal, out: &dyn Outbox) {
        let Some(active) = self.active.take() else { return };
        if let Some(store) = &self.store {
            let wall = WallMillis(self.clock.wall_ms(self.clock.now()));
            let _ = store.cancel_snapshot(wall, &active.grant);
        }
        if let Some(sink) = &active.sink {
            sink.discard();
        }
        out.record(0, ended(false, None, None, &refusal.sentence));
        self.refuse_snapshot(&active.purpose, Some(active.isolate), &refusal, out);
    }

    /// A snapshot that was granted came to nothing: it cost this much, or was never begun. What a full disk keeps
    /// from being noted is noted before the next one: else this process would wait for itself.
    fn give_back(&mut self, wall: WallMillis, grant: Grant, cost: Option<Cost>) {
        let Some(store) = &self.store else { return };
        let noted = match cost {
            Some(cost) => store.fail_snapshot(wall, &grant, cost),
            None => store.cancel_snapshot(wall, &grant),
        };
        if noted.is_err() {
            self.unnoted = Some((grant, cost));
        }
    }

    fn refuse(
        &mut self,
        kind: &str,
        finding: Option<String>,
        isolate: Option<IsolateId>,
        refusal: &Refusal,
        out: &dyn Outbox,
    ) {
        self.refused += 1;
        self.tally.refusal(refusal.reason);
        let mut payload = refusal_json(refusal);
        payload["kind"] = json!(kind);
        payload["finding"] = json!(finding);
        payload["schema"] = json!(SCHEMA);
        remember(&mut self.refusals, payload.clone());
        out.record(
            0,
            What::Refused {
                needed: refusal.needed.map(|needed| needed as f64),
                available: refusal.available.map(|available| available as f64),
                reason: format!("{kind}: {}", refusal.reason.code()),
            },
        );
        out.say(
            LogLevel::Warn,
            &format!("{kind} refused ({}): {}", refusal.reason.code(), refusal.sentence),
        );
        self.tell(finding.as_deref(), isolate, EventKind::Refused, payload, out);
    }

    /// Writes a finding's file anew and returns its content, with `path`.
    fn save(&mut self, number: u32, out: &dyn Outbox) -> Option<Value> {
        let open = self.findings.iter().find(|open| open.finding.draft.finding == number)?;
        let clock = self.clock;
        let time = |at: Millis| WallMillis(clock.wall_ms(at)).rfc3339();
        let mut payload = open.finding.to_json(&self.identity, &self.config, &time);
        if let Some(store) = &self.store {
            let bytes = serde_json::to_vec_pretty(&payload).unwrap_or_default();
            match store.replace(&open.name, &bytes) {
                Ok(()) => payload["path"] = json!(store.path_of(&open.name)),
                Err(error) => warn(
                    out,
                    "LEAKGUARD_DIR",
                    &format!("the finding could not be written: {error}"),
                ),
            }
        }
        Some(payload)
    }

    fn put_step(&mut self, finding: u32, step: Step) {
        if let Some(open) = self.find(finding) {
            let steps = &mut open.finding.steps;
            match steps.iter_mut().find(|known| known.kind == step.kind) {
                Some(known) => *known = step,
                None => steps.push(step),
            }
        }
    }

    fn find(&mut self, finding: u32) -> Option<&mut Open> {
        self.findings.iter_mut().find(|open| open.finding.draft.finding == finding)
    }

    fn cooldown_key(&self, source: &Source) -> CooldownKey {
        CooldownKey {
            app: self.identity.app(&self.config),
            series: source.series.as_str().to_owned(),
            cause: source.emitter.clone().unwrap_or_default(),
        }
    }

    /// Snapshots of one isolate of one process belong together.
    fn pair_id(&self, tid: u32) -> String {
        format!("{}.{:x}.{tid}", self.identity.pid, self.clock.wall_ms(Millis(0)) / 1000)
    }

    /// Whether snapshots are forked here, and why not, for `status()`.
    fn fork_status(&self) -> Value {
        let (possible, why) = match (&self.fork_ability, self.config.snapshot) {
            (_, SnapshotMode::Off | SnapshotMode::Inline) => {
                (None, "LEAKGUARD_SNAPSHOT does not ask for it".to_owned())
            }
            (None, _) => (None, "tried at the end of the warm-up, or when first needed".to_owned()),
            (Some(ForkAbility::Possible(_)), _) => (Some(true), "the self-test passed".to_owned()),
            (Some(ForkAbility::Not(why)), _) => (Some(false), why.clone()),
        };
        json!({ "possible": possible, "why": why })
    }

    /// For `status()`.
    pub fn to_json(&self) -> Value {
        let clock = self.clock;
        let time = |at: Millis| WallMillis(clock.wall_ms(at)).rfc3339();
        json!({
            "directory": self.store.as_ref().map(|store| store.path().to_path_buf()),
            "directoryProblem": self.store_problem,
            "findings": self.findings.iter().map(|open| {
                let mut value = open.finding.to_json(&self.identity, &self.config, &time);
                if let Some(store) = &self.store {
                    value["path"] = json!(store.path_of(&open.name));
                }
                value
            }).collect::<Vec<_>>(),
            "refusals": self.refusals,
            "snapshots": self.snapshots,
            "snapshotInProgress": self.active.is_some(),
            "analyses": self.analyses,
            "analyzer": self.analyst.to_json(),
            "fork": self.fork_status(),
            "totals": { "refused": self.refused, "snapshots": self.taken },
        })
    }

    /// What came of the evidence so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether a snapshot is under way.
    pub fn is_writing(&self) -> bool {
        self.active.is_some()
    }

    /// Changes whenever `to_json` would.
    pub fn version(&self) -> Version {
        let ability = self.fork_ability.is_some();
        let analyses = self.analyses_version;
        (self.findings.len(), self.refused, self.taken, analyses, self.active.is_some(), ability)
    }
}

/// Why the settings allow no forked snapshot; `None` if they do.
pub fn settings_against_fork(config: &Config) -> Option<&'static str> {
    match config.snapshot {
        SnapshotMode::Fork | SnapshotMode::Auto => None,
        SnapshotMode::Inline | SnapshotMode::Off => Some("LEAKGUARD_SNAPSHOT does not allow it"),
    }
}

/// The refusal of every snapshot that follows from the settings alone.
pub fn refused_by_settings(config: &Config) -> Option<Refusal> {
    (config.redact.is_some() && !cfg!(target_os = "linux")).then(|| {
        Refusal::plain(
            RefusalReason::Disabled,
            "LEAKGUARD_REDACT is set, and on this platform V8 writes to a file itself, texts included: no snapshot is \
             written; without it, `leakguard redact IN OUT` redacts a file afterwards",
        )
    })
}

/// Why neither way was taken, where there were two.
pub fn both_ways(mut refusal: Refusal, modes: SnapshotMode, not_forked: Option<String>) -> Refusal {
    let Some(why) = not_forked else { return refusal };
    match (modes, refusal.reason) {
        (
            SnapshotMode::Auto,
            RefusalReason::Memory | RefusalReason::Pause | RefusalReason::HeapLimit,
        ) => {
            refusal.sentence = format!("forked: {why}; inline: {}", refusal.sentence);
        }
        (SnapshotMode::Fork, RefusalReason::Disabled) => {
            refusal.sentence = format!("{}: {why}", refusal.sentence);
        }
        _ => {}
    }
    refusal
}

/// How a fork went, in numbers.
fn fork_json(report: &ForkReport) -> Value {
    let millis = |duration: Duration| (duration.as_secs_f64() * 10_000.0).round() / 10.0;
    json!({
        "tries": report.tries,
        "attempts": report.attempts,
        "pauseMs": millis(report.pause),
        "pauseCpuMs": millis(report.pause_cpu),
        "mishaps": report.mishaps,
        "disturbance": report.disturbance,
    })
}

fn started(allowance: &Allowance) -> What {
    What::SnapshotStarted {
        predicted_bytes: Some(allowance.predicted_peak_bytes as f64),
        predicted_pause_ms: Some(allowance.predicted_pause_millis as f64),
        mode: if allowance.mode == Mode::Fork { "fork" } else { "inline" }.into(),
    }
}

fn ended(ok: bool, file_bytes: Option<f64>, pause_ms: Option<f64>, file: &str) -> What {
    What::SnapshotEnded { ok, file_bytes, pause_ms, file: file.to_owned() }
}

fn wants(draft: &Draft, series: SeriesId) -> bool {
    draft.pieces.iter().any(|piece| piece.source.series == series)
}

fn warn(out: &dyn Outbox, code: &str, message: &str) {
    out.event(None, EventKind::Warning, &json!({ "code": code, "message": message }));
}

fn refusal_json(refusal: &Refusal) -> Value {
    let mut value = numbers_json(refusal);
    value["reason"] = json!(refusal.reason.code());
    value["sentence"] = json!(refusal.sentence);
    value
}

fn numbers_json(refusal: &Refusal) -> Value {
    json!({
        "unit": refusal.unit,
        "needed": refusal.needed,
        "available": refusal.available,
        "sufficient": refusal.sufficient,
    })
}

fn limits_json(around: &Surroundings) -> Map<String, Value> {
    let process = &around.process;
    let mut limits = Map::new();
    let mut put = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            limits.insert(name.to_owned(), json!(value));
        }
    };
    put("containerLimitBytes", process.cgroup_limit_bytes);
    put("containerUsedBytes", process.cgroup_used_bytes);
    put("memoryAvailableBytes", process.mem_available_bytes);
    put("memoryTotalBytes", process.mem_total_bytes);
    put("heapLimitBytes", around.heap_limit_bytes.map(|bytes| bytes as u64));
    put("addressSpaceLimitBytes", process.address_space_limit_bytes);
    put("rssBytes", process.rss_bytes);
    put("rssPeakBytes", process.rss_peak_bytes);
    put("mallocUsedBytes", process.malloc_used_bytes);
    put("mallocFreeBytes", process.malloc_free_bytes);
    limits
}

fn remember(ring: &mut VecDeque<Value>, value: Value) {
    if ring.len() == REMEMBERED {
        ring.pop_front();
    }
    ring.push_back(value);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::detect::Evidence;
    use crate::routes::{Share, Traffic, Verdict};

    /// Notes what is said and told.
    #[derive(Default)]
    struct Notes {
        lines: RefCell<Vec<String>>,
        events: RefCell<Vec<(EventKind, Value)>>,
    }

    impl Outbox for Notes {
        fn event(&self, _: Option<IsolateId>, kind: EventKind, payload: &Value) {
            self.events.borrow_mut().push((kind, payload.clone()));
        }
        fn say(&self, level: LogLevel, line: &str) {
            if level <= LogLevel::Warn {
                self.lines.borrow_mut().push(line.to_owned());
            }
        }
        fn job(&self, _: IsolateId, _: SnapshotJob) -> bool {
            false
        }
        fn order(&self, _: IsolateId, _: ProfileOrder) -> bool {
            false
        }
        fn withdraw(&self, _: IsolateId) -> bool {
            false
        }
        fn record(&self, _: u32, _: What) {}
        fn new_file(&self, _: &str, _: &str, _: Option<&str>) {}
    }

    fn draft() -> Draft {
        let series = SeriesId::LiveHeap;
        let piece = Piece {
            source: Source { series, isolate: None, emitter: None },
            evidence: Evidence {
                series,
                window_ms: 32_000,
                slope_per_hour: 6e7,
                slope_between: (6e7, 6e7),
                later_slope_per_hour: 6e7,
                threshold_per_hour: 6e7,
                amount: 5e5,
                p_value: 0.001,
                readings: 9,
                first: 1e7,
                last: 2e7,
                load_factor: 1.0,
                own: 0.0,
                agreed: 2,
                at: Millis(60_000),
            },
            window_ms: 32_000,
            confirmed: true,
            since: Millis(30_000),
            from_start: false,
            points: vec![],
            native: None,
        };
        Draft {
            finding: 1,
            at: Millis(60_000),
            isolate: None,
            cause: Cause::Memory { series },
            pieces: vec![piece],
            listeners: vec![],
            context: vec![],
            limit: None,
            routes: None,
            near: None,
        }
    }

    fn explanation(verdict: Verdict, routes: &[&str]) -> Explanation {
        let share = |route: &&str| Share {
            traffic: Traffic { route: (*route).to_owned(), requests: 300.0, per_second: 5.0 },
            bytes_per_request: 14_336.0,
            share: 0.5,
            r: 0.97,
            certainty: 0.99,
        };
        Explanation {
            series: SeriesId::LiveHeap,
            readings: 14,
            over_ms: 60_000,
            requests: 3600.0,
            per_second: 60.0,
            bytes_per_request: Some(400.0),
            verdict,
            with: routes.iter().map(share).collect(),
            traffic: vec![],
        }
    }

    #[test]
    fn a_route_that_becomes_certain_after_the_finding_is_written_said_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            dir: directory.path().join("evidence"),
            snapshot: SnapshotMode::Off,
            profile: false,
            ..Config::default()
        };
        let notes = Notes::default();
        let analyst = Analyst::new(Err("not here".into()), &[]);
        let mut collector =
            Collector::open(Clock::start(), Identity::default(), config, analyst, &notes);
        collector.open_finding(Millis(60_000), draft(), &Surroundings::default(), &notes);
        let said = |verdict, routes: &[&str], collector: &mut Collector| {
            notes.lines.borrow_mut().clear();
            notes.events.borrow_mut().clear();
            collector.routes(1, explanation(verdict, routes), &notes);
            let told: Vec<Value> = notes.events.borrow().iter().map(|(_, of)| of.clone()).collect();
            assert!(notes.events.borrow().iter().all(|(kind, _)| *kind == EventKind::Routes));
            assert_eq!(notes.lines.borrow().len(), told.len());
            let file = told.first().and_then(|of| of["path"].as_str().map(str::to_owned));
            if let Some(file) = file {
                let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
                assert_eq!(written["id"], told[0]["finding"]);
                assert_eq!(written["sentence"], told[0]["sentence"]);
                assert_eq!(written["routes"], told[0]["routes"]);
            }
            (notes.lines.borrow().join("\n"), told)
        };
        let (_, told) = said(Verdict::Undecided, &[], &mut collector);
        assert!(told.is_empty(), "{told:?}");
        let (line, told) = said(Verdict::Routes, &["GET /a"], &mut collector);
        assert!(line.contains("it goes with GET /a"), "{line}");
        assert_eq!(told[0]["routes"]["with"][0]["route"], "GET /a");
        assert!(told[0]["path"].is_string() && told[0]["finding"].is_string());
        // A second route beside it is in the file; the first stays what it was.
        let (_, told) = said(Verdict::Routes, &["GET /a", "GET /b"], &mut collector);
        assert!(told.is_empty(), "{told:?}");
        let (line, told) = said(Verdict::Routes, &["GET /b"], &mut collector);
        assert!(line.contains("it goes with GET /b"), "{line}");
        assert_eq!(told.len(), 1);
        let (line, _) = said(Verdict::Traffic, &[], &mut collector);
        assert!(line.contains("all requests alike"), "{line}");
    }
}
