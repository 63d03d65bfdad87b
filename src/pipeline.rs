//! From readings to decisions: keeps the series of the process and of every isolate, runs the detectors
//! over them, plans live-heap readings, and says what is to be done. Pure: no clock, file, thread or Node.
//! It decides that a finding opens; what evidence is affordable is `evidence`'s business.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::detect::{
    Course, Evidence, GrowthDetector, Judgement, NativeVerdict, Rule, Statistic, WELL_KNOWN,
    explain, judge, rule, spread_rule, tell,
};
use crate::metric::{METRICS, Scope, SeriesId, Unit};
use crate::near_end::{self, NearLimit};
use crate::profile::{self, Answer, Order, ProfilePlan};
use crate::readings::{self, ReadingPlan, Situation, Wait, Way};
use crate::routes::{self, Explanation, RouteCounts, Routes, TrafficView};
use crate::sample::{
    IsolateId, IsolateReading, ListenerCount, LiveHeapReading, Millis, ProcessSample, Site,
};
use crate::series::{Point, Series, Shift};
use crate::stats;
use crate::trigger::{Confirmed, Decision, Phase, Source, Trigger};

/// Judgements in one step, half of them of emitters where the rest needs its half: what else is due waits for the next
/// step, which begins where this one ended. An isolate has some fifteen due in a second, and all its fifteen hundred
/// only where its history begins. Lower, and a guard that ticks every ten seconds does not get round; higher, and
/// a step may take a millisecond.
const JUDGEMENTS_PER_STEP: u32 = 128;

/// Emitters kept with a history of their own, per isolate: those with most listeners. 60 x 5 KB.
pub const MAX_EMITTERS: usize = 60;

/// Rows of a listener report that has room for no more: `MAX_ROWS` of lib/listeners.js.
const LISTENER_ROWS: usize = 48;

/// Points of a series that go into a finding.
const POINTS: usize = 60;

/// Listener lines that go into a finding.
const LISTENER_LINES: usize = 10;

/// By how much timers must have risen over their window to explain a live heap that grows.
const TIMERS_RISEN: f64 = 1.2;

/// Listener lines that a scrape shows of one isolate, those with most listeners; the rest is one sum.
pub const MAX_LISTENER_TOTALS: usize = 20;

/// Series whose trend is kept, whether they grow or not: all memory that is judged.
const TRENDS: [SeriesId; 4] =
    [SeriesId::LiveHeap, SeriesId::ArrayBuffers, SeriesId::External, SeriesId::Native];

/// A trend is taken anew no oftener than 200 times in the window, and at least this often (milliseconds) if there
/// are new readings. Lower costs CPU of the native thread: 0.1 ms for an isolate.
const TREND_PACE_MS: u64 = 15_000;
/// How many windows back routes are compared with growth, and for how many more they are: more than the verdict needed,
/// since it is the changes of traffic that tell.
const ROUTE_WINDOWS: u64 = 4;

/// For how many windows the slope of a finding is told anew where that knows it better, and by which part of what it may be
/// wrong by it has to be: so that a file is written a few times more and not with each reading.
const REFINED_WINDOWS: u64 = 4;
const REFINED_BY: f64 = 0.8;

/// Slopes that are refined at a time, and the part of their window after which each is looked at again.
const MAX_REFINED: usize = 8;
const REFINED_PACE: u64 = 16;

/// Findings whose routes are asked for at a time.
const MAX_QUESTIONS: usize = 8;

/// What lib/profile.js, `node:inspector`, the first start of V8's sampling profiler and its first reading leave on the heap at
/// most, bytes, the mark of the profile not counted. Measured: 0.17 to 0.23 MB in an empty process of Node 20 to 26; in Express
/// apps, where a GC at that time frees other code, 0 to 0.15 MB. A wider bound lets single readings make slopes noisier.
const MOST_LOADED: f64 = 0.2 * 1_048_576.0;

/// A reading of the heap older than this says nothing about native memory now.
const FRESH_MS: u64 = 10_000;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read this isolate's live heap.
    ReadLiveHeap(IsolateId),
    /// Write a finding, then collect its evidence.
    Open(Box<Draft>),
    /// Add a series to a finding.
    Join {
        /// The finding's number.
        finding: u32,
        /// What joins.
        piece: Box<Piece>,
        /// The cause, if this series knows one.
        cause: Option<Cause>,
    },
    /// A limit is about to be reached: write the finding at once, whatever the cooldown. Once per process.
    NearEnd(Box<Draft>),
    /// Do something about this isolate's allocation profile. Comes before the finding that it belongs to, so that
    /// the reading is under way when the snapshot is asked for.
    Profile(IsolateId, Order),
    /// Add to a finding what is known by now of the routes it goes with.
    Routes {
        /// The finding's number.
        finding: u32,
        /// What is known.
        explanation: Box<Explanation>,
    },
    /// Tell a slope anew: later readings know it better.
    Refine {
        /// The finding's number.
        finding: u32,
        /// The series with its new numbers.
        piece: Box<Piece>,
        /// When a limit is reached at this rate.
        limit: Option<(u64, LimitKind, u64)>,
    },
    /// The warm-up has ended.
    WarmedUp,
}

/// One series of a finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// What grows.
    pub source: Source,
    /// The numbers of the verdict, over the stretch that knows the slope best.
    pub evidence: Evidence,
    /// The window on which growth was seen, milliseconds: never longer than that stretch.
    pub window_ms: u64,
    /// Whether enough evaluations agreed, or it is only suspected and stands beside one that was confirmed.
    pub confirmed: bool,
    /// When the rise began.
    pub since: Millis,
    /// Whether it rose from the first reading on.
    pub from_start: bool,
    /// Its history, at most `POINTS` points.
    pub points: Vec<(Millis, f64)>,
    /// Of native memory, what malloc says to its growth.
    pub native: Option<NativeVerdict>,
}

/// What grows, as far as it is known without a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Listeners of one event on one emitter.
    Listeners(ListenerLine),
    /// Pending timers.
    Timers {
        /// How many now.
        count: u64,
    },
    /// Descriptors, handles, threads: the sampler knows which kinds.
    Count {
        /// The series.
        series: SeriesId,
        /// How many now.
        count: u64,
    },
    /// Memory only: an allocation profile or a snapshot must say.
    Memory {
        /// The series.
        series: SeriesId,
    },
}

/// One emitter's listeners, or those of one line on many emitters, for findings and `status()`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLine {
    /// Class of the emitter.
    pub emitter: String,
    /// The event; of a line that adds for several `*`.
    pub event: String,
    /// Whether they are spread over many emitters; the count is an estimate then.
    pub spread: bool,
    /// Listeners now.
    pub count: u64,
    /// Growth per minute over what is known of it.
    pub per_minute: f64,
    /// The code that adds them.
    pub site: Option<Site>,
}

/// A finding before it is written: what grew, and what stood around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Number within this process, from 1.
    pub finding: u32,
    /// When.
    pub at: Millis,
    /// The isolate concerned; for the process' series the first one alive.
    pub isolate: Option<IsolateId>,
    /// What it is about.
    pub cause: Cause,
    /// Its series, most telling first.
    pub pieces: Vec<Piece>,
    /// Emitters with most growth.
    pub listeners: Vec<ListenerLine>,
    /// Last value of every series, name and value.
    pub context: Vec<(SeriesId, f64)>,
    /// Milliseconds until the nearest limit is reached at this rate, and that limit in bytes.
    pub limit: Option<(u64, LimitKind, u64)>,
    /// Which requests the growth goes with, where requests were counted.
    pub routes: Option<Explanation>,
    /// The limit that was near when it was opened or later.
    pub near: Option<NearLimit>,
}

/// Which limit is nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// The container's memory limit.
    Container,
    /// V8's heap limit.
    Heap,
}

impl LimitKind {
    /// How it is spoken of.
    pub fn words(self) -> &'static str {
        match self {
            LimitKind::Container => "container limit",
            LimitKind::Heap => "V8 heap limit",
        }
    }
}

/// A series and what judges it.
#[derive(Clone, Debug)]
struct Tracked {
    series: Series,
    detector: Option<GrowthDetector>,
    trend: Option<Trend>,
    /// When the trend was taken, and how many values the series had then.
    trend_of: (Millis, u64),
}

impl Tracked {
    fn new(series: Series, id: SeriesId, config: &Config) -> Tracked {
        let detector = rule(id, config).map(GrowthDetector::new);
        Tracked { series, detector, trend: None, trend_of: (Millis(0), 0) }
    }

    fn long(id: SeriesId, config: &Config) -> Tracked {
        Tracked::new(Series::long(), id, config)
    }

    /// Judges what is due.
    fn step(
        &mut self,
        now: Millis,
        since: Millis,
        load: Option<&Series>,
        budget: &mut u32,
    ) -> Option<Evidence> {
        self.detector.as_mut()?.step(now, since, &self.series, load, budget)
    }

    /// Takes the trend anew if that is due.
    fn follow(&mut self, now: Millis, since: Millis, budget: &mut u32) {
        let Some(detector) = &self.detector else { return };
        let (at, count) = self.trend_of;
        let pace = (detector.rule().window_ms / 200).min(TREND_PACE_MS);
        if now.0 < at.0 + pace || self.series.count() == count {
            return;
        }
        let trend = detector.trend(now, since, &self.series, budget);
        // Perhaps it was not looked for long enough: it stays due.
        if *budget == 0 {
            return;
        }
        self.trend_of = (now, self.series.count());
        self.trend = trend.map(|evidence| Trend {
            slope_per_hour: evidence.slope_per_hour,
            later_slope_per_hour: evidence.later_slope_per_hour,
            p_value: evidence.p_value,
            window_ms: evidence.window_ms,
        });
    }
}

/// How a series moves, leak or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Theil-Sen slope, in the unit of the series per hour; below zero if it falls.
    pub slope_per_hour: f64,
    /// The same over the later half.
    pub later_slope_per_hour: f64,
    /// Mann-Kendall probability of such a rise by chance.
    pub p_value: f64,
    /// The window, milliseconds.
    pub window_ms: u64,
}

/// Listeners of one event, added by one line, on all emitters of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTotal {
    /// Class of the emitters, or the name they are watched by.
    pub emitter: String,
    /// The event.
    pub event: String,
    /// `file:line` of the code that adds them, if it is known.
    pub site: Option<String>,
    /// Listeners now.
    pub count: u64,
}

/// Listeners by emitter, event and line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerTotals {
    /// Those with most listeners, most first: [`MAX_LISTENER_TOTALS`] at most.
    pub top: Vec<ListenerTotal>,
    /// All others that are followed.
    pub other: u64,
}

/// What of the process' memory is one isolate's.
#[derive(Clone, Copy, Debug)]
struct Inside {
    at: Millis,
    heap_total: f64,
    external: f64,
}

#[derive(Clone, Debug)]
struct Emitter {
    tracked: Tracked,
    line: ListenerLine,
    seen: Millis,
    /// The last major GC after which it was counted, where that is when it is counted.
    round: Option<u32>,
}

/// One isolate's history.
#[derive(Clone, Debug)]
struct Isolate {
    tracked: HashMap<SeriesId, Tracked>,
    /// In an order, so that they take turns; boxed, since half of a tree's places may be empty.
    emitters: BTreeMap<u32, Box<Emitter>>,
    totals: Arc<ListenerTotals>,
    plan: ReadingPlan,
    profile: ProfilePlan,
    heap_limit: Option<f64>,
    large_objects: Option<f64>,
    /// When the last reading of any kind came from the JS thread.
    heartbeat: Millis,
    /// When the event loop first turned, as far as we were answered.
    turned: Option<Millis>,
    memory: Option<Inside>,
    /// Heap committed, and anonymous memory of the process, when the JS thread last answered.
    then: Option<(f64, f64)>,
    /// Whether every major GC is seen, also of a loop that does not return.
    sees_majors: bool,
    wait: Option<Wait>,
    routes: Routes,
}

impl Isolate {
    /// How busy its event loop was.
    fn load(&self) -> Option<&Series> {
        self.tracked.get(&SeriesId::LoopUtilization).map(|tracked| &tracked.series)
    }
}

/// Memory of an open finding whose routes are not yet known, or not well.
#[derive(Clone, Debug)]
struct Question {
    finding: u32,
    isolate: IsolateId,
    series: SeriesId,
    from: Millis,
    until: Millis,
    /// The last pair that was judged, and what was said.
    asked: Option<Millis>,
    said: Option<Explanation>,
}

/// The slope of an open finding that is not yet well known.
#[derive(Clone, Debug)]
struct Rough {
    finding: u32,
    piece: Piece,
    until: Millis,
    looked: Millis,
    /// Values the series had then.
    count: u64,
}

/// Series of one owner as `status()` shows them.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesView {
    /// Which.
    pub id: SeriesId,
    /// Last value.
    pub last: f64,
    /// When.
    pub at: Millis,
    /// Slope and window of the longest rung that grows, if one does.
    pub growing: Option<(f64, u64)>,
    /// How it moves, of the memory that is judged, once the warm-up is over and there are enough readings.
    pub trend: Option<Trend>,
}

/// One isolate as `status()` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct IsolateView {
    /// Which.
    pub id: IsolateId,
    /// Its series.
    pub series: Vec<SeriesView>,
    /// Emitters with most listeners.
    pub listeners: Vec<ListenerLine>,
    /// Listeners by emitter, event and line.
    pub totals: Arc<ListenerTotals>,
    /// V8's heap limit, bytes.
    pub heap_limit: Option<f64>,
    /// The way its live heap is known.
    pub way: Way,
    /// Readings made and lost, CPU they cost (ms).
    pub readings: (u64, u64, f64),
    /// Why no reading is made now.
    pub wait: Option<Wait>,
    /// When its JS thread was last heard of.
    pub heartbeat: Millis,
    /// Its requests; `None` where none are counted.
    pub traffic: Option<TrafficView>,
}

/// Series of one owner over a window, reduced to points.
pub type Drawn = Vec<(SeriesId, Vec<Point>)>;

/// The recent past of the process and of one isolate, as the status page draws it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// The process' series.
    pub process: Drawn,
    /// The isolate's series.
    pub isolate: Drawn,
    /// Emitters with most growth, in the order of [`IsolateView::listeners`].
    pub listeners: Vec<(ListenerLine, Vec<Point>)>,
}

/// Where the judgements of a step ended: there the next begins.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// Of the series of the process (`None`) and of the isolates, by their place among `METRICS`.
    own: (Option<IsolateId>, usize),
    /// Of emitters.
    emitter: (IsolateId, u32),
}

/// The state of all judging.
#[derive(Clone, Debug)]
pub struct Pipeline {
    config: Config,
    started: Millis,
    process: HashMap<SeriesId, Tracked>,
    anon: Series,
    /// What malloc has handed out, external memory of V8 not counted, and what it holds free.
    malloc: [Series; 2],
    isolates: BTreeMap<IsolateId, Isolate>,
    trigger: Trigger,
    turn: Turn,
    last_process: ProcessSample,
    warmed: bool,
    /// When the guard itself last disturbed the process' memory: what came before is not compared with after.
    disturbed: Millis,
    questions: Vec<Question>,
    rough: Vec<Rough>,
    /// `process.version`, which says what of V8's heap limit is old space.
    node: String,
    /// The end was near once, and was said.
    ended: bool,
}

impl Pipeline {
    /// A pipeline whose warm-up begins now.
    pub fn new(config: Config, now: Millis) -> Pipeline {
        let process = METRICS
            .iter()
            .filter(|metric| metric.scope == Scope::Process)
            .map(|metric| (metric.id, Tracked::long(metric.id, &config)))
            .collect();
        Pipeline {
            trigger: Trigger::new(Millis(now.0 + config.warmup_ms), config.cooldown_ms),
            config,
            started: now,
            process,
            anon: Series::short(),
            malloc: [Series::long(), Series::long()],
            isolates: BTreeMap::new(),
            turn: Turn::default(),
            last_process: ProcessSample::default(),
            warmed: false,
            disturbed: now,
            questions: Vec::new(),
            rough: Vec::new(),
            node: String::new(),
            ended: false,
        }
    }

    /// Says which Node this is: `process.version`.
    #[must_use]
    pub fn of_node(self, version: &str) -> Pipeline {
        Pipeline { node: version.to_owned(), ..self }
    }

    /// An isolate came under guard.
    pub fn attach(&mut self, id: IsolateId, way: Way, now: Millis) {
        let tracked = METRICS
            .iter()
            .filter(|metric| metric.scope == Scope::Isolate && metric.id != SeriesId::Listeners)
            .map(|metric| (metric.id, Tracked::long(metric.id, &self.config)))
            .collect();
        let plan = ReadingPlan::new(way, self.config.gc_share, self.config.max_gc_pause_ms, now);
        self.isolates.insert(
            id,
            Isolate {
                tracked,
                emitters: BTreeMap::new(),
                totals: Arc::default(),
                plan,
                profile: ProfilePlan::new(&self.config),
                heap_limit: None,
                large_objects: None,
                heartbeat: now,
                turned: None,
                memory: None,
                then: None,
                sees_majors: false,
                wait: None,
                routes: Routes::default(),
            },
        );
    }

    /// Whether every major GC of an isolate is seen.
    pub fn set_sees_majors(&mut self, id: IsolateId, sees_majors: bool) {
        if let Some(isolate) = self.isolates.get_mut(&id) {
            isolate.sees_majors = sees_majors;
        }
    }

    /// An isolate has gone, with its history.
    pub fn detach(&mut self, id: IsolateId) {
        self.isolates.remove(&id);
    }

    /// Whether an isolate is under guard.
    pub fn knows(&self, id: IsolateId) -> bool {
        self.isolates.contains_key(&id)
    }

    /// New settings: the series stay, the verdicts start over.
    pub fn configure(&mut self, config: Config) {
        self.trigger.configure(Millis(self.started.0 + config.warmup_ms), config.cooldown_ms);
        for (id, tracked) in &mut self.process {
            tracked.detector = rule(*id, &config).map(GrowthDetector::new);
        }
        for isolate in self.isolates.values_mut() {
            for (id, tracked) in &mut isolate.tracked {
                tracked.detector = rule(*id, &config).map(GrowthDetector::new);
            }
            for emitter in isolate.emitters.values_mut() {
                emitter.tracked.detector =
                    listener_rule(emitter.line.spread, &config).map(GrowthDetector::new);
            }
            let way = isolate.plan.way();
            isolate.plan.configure(way, config.gc_share, config.max_gc_pause_ms);
            isolate.profile.configure(&config);
        }
        self.config = config;
    }

    /// The process was read.
    pub fn on_process(&mut self, at: Millis, sample: &ProcessSample) {
        let bytes = |value: Option<u64>| value.map(|value| value as f64);
        let inside = self.inside(at);
        let native = sample
            .rss_anon_bytes
            .zip(inside)
            .map(|(anon, inside)| (anon as f64 - inside.heap_total - inside.external).max(0.0));
        if let (Some(used), Some(free), Some(inside)) =
            (bytes(sample.malloc_used_bytes), bytes(sample.malloc_free_bytes), inside)
        {
            let [used_series, free_series] = &mut self.malloc;
            used_series.push(at, (used - inside.external).max(0.0));
            free_series.push(at, free);
        }
        for (id, value) in [
            (SeriesId::Rss, bytes(sample.rss_bytes)),
            (SeriesId::Native, native),
            (SeriesId::Fds, bytes(sample.fds)),
            (SeriesId::Threads, bytes(sample.threads)),
            (SeriesId::CgroupUsed, bytes(sample.cgroup_used_bytes)),
        ] {
            if let (Some(value), Some(tracked)) = (value, self.process.get_mut(&id)) {
                tracked.series.push(at, value);
            }
        }
        if let Some(anon) = bytes(sample.rss_anon_bytes.or(sample.rss_bytes)) {
            self.anon.push(at, anon);
        }
        self.last_process = sample.clone();
    }

    /// What is V8's in the process. Only with a fresh reading of every isolate: otherwise a heap that grew is taken
    /// for native.
    fn inside(&self, at: Millis) -> Option<Inside> {
        let mut sum: Option<Inside> = None;
        for isolate in self.isolates.values() {
            let one = isolate.memory.filter(|one| at.0 <= one.at.0 + FRESH_MS)?;
            let before = sum.unwrap_or(Inside { heap_total: 0.0, external: 0.0, ..one });
            sum = Some(Inside {
                heap_total: before.heap_total + one.heap_total,
                external: before.external + one.external,
                ..one
            });
        }
        sum
    }

    /// A JS thread answered.
    pub fn on_isolate(&mut self, id: IsolateId, at: Millis, reading: &IsolateReading) {
        let anon = self.anon.last().map(|(_, bytes)| bytes);
        let Some(isolate) = self.isolates.get_mut(&id) else { return };
        isolate.heartbeat = at;
        isolate.turned.get_or_insert(at);
        if let (Some(total), Some(anon)) = (reading.heap_total_bytes, anon) {
            isolate.then = Some((total, anon));
        }
        isolate.heap_limit = reading.heap_limit_bytes.or(isolate.heap_limit);
        isolate.large_objects = reading.large_object_bytes.or(isolate.large_objects);
        if let (Some(total), Some(external)) = (reading.heap_total_bytes, reading.external_bytes) {
            isolate.memory = Some(Inside { at, heap_total: total, external });
        }
        let on_demand = isolate.plan.way() != Way::Natural || reading.after_gc;
        let buffers = reading.array_buffers_bytes;
        // Between major GCs dead buffers still count: where GCs can be seen, only what follows one is kept.
        let settled = reading.after_gc || !on_demand;
        for (series, value) in [
            (SeriesId::HeapUsed, reading.heap_used_bytes),
            (SeriesId::HeapTotal, reading.heap_total_bytes),
            (SeriesId::LoopUtilization, reading.loop_utilization),
            (SeriesId::Handles, reading.handles),
            (SeriesId::Timers, reading.timers),
            (SeriesId::ArrayBuffers, buffers.filter(|_| settled)),
            (
                SeriesId::External,
                reading
                    .external_bytes
                    .filter(|_| settled)
                    .map(|external| (external - buffers.unwrap_or(0.0)).max(0.0)),
            ),
        ] {
            if let (Some(value), Some(tracked)) = (value, isolate.tracked.get_mut(&series)) {
                tracked.series.push(at, value);
            }
        }
    }

    /// A major GC ended. `cost_ms` is the CPU it took, where it was asked for and could be measured.
    pub fn on_live_heap(
        &mut self,
        id: IsolateId,
        at: Millis,
        reading: LiveHeapReading,
        cost_ms: Option<f64>,
    ) {
        // No sign of life: a loop that never returns collects garbage too.
        let Some(isolate) = self.isolates.get_mut(&id) else { return };
        isolate.plan.ended(at, reading.pause_ms, cost_ms, reading.bytes);
        if let Some(tracked) = isolate.tracked.get_mut(&SeriesId::LiveHeap) {
            tracked.series.push(at, (reading.bytes - isolate.profile.held_bytes()).max(0.0));
        }
    }

    /// Requests of an isolate were counted. Right after a major GC they belong to its readings.
    pub fn on_routes(&mut self, id: IsolateId, at: Millis, counts: &RouteCounts) {
        let Some(Isolate { routes, tracked, .. }) = self.isolates.get_mut(&id) else { return };
        routes.on_counts(at, counts, |series| tracked.get(&series)?.series.last());
    }

    /// A reading that was asked for cannot be made.
    pub fn live_heap_unavailable(&mut self, id: IsolateId) {
        if let Some(isolate) = self.isolates.get_mut(&id) {
            isolate.plan.cancel();
        }
    }

    /// The listener table of an isolate: the emitters with most listeners.
    pub fn on_listeners(&mut self, id: IsolateId, at: Millis, counts: &[ListenerCount]) {
        let config = &self.config;
        let Some(isolate) = self.isolates.get_mut(&id) else { return };
        isolate.heartbeat = at;
        for count in counts {
            if isolate.emitters.len() >= MAX_EMITTERS && !isolate.emitters.contains_key(&count.key)
            {
                let Some(least) = isolate
                    .emitters
                    .iter()
                    .min_by_key(|(_, emitter)| (emitter.seen, emitter.line.count))
                    .filter(|(_, emitter)| emitter.seen < at || emitter.line.count < count.count)
                    .map(|(key, _)| *key)
                else {
                    continue;
                };
                isolate.emitters.remove(&least);
            }
            let emitter = isolate.emitters.entry(count.key).or_insert_with(|| {
                Box::new(Emitter {
                    tracked: Tracked {
                        detector: listener_rule(count.round.is_some(), config)
                            .map(GrowthDetector::new),
                        ..Tracked::new(Series::short(), SeriesId::Listeners, config)
                    },
                    line: ListenerLine {
                        emitter: count.emitter.clone(),
                        event: count.event.clone(),
                        spread: count.round.is_some(),
                        count: 0,
                        per_minute: 0.0,
                        site: None,
                    },
                    seen: at,
                    round: None,
                })
            });
            emitter.seen = at;
            // Samples that were counted once are one reading, however often it is reported.
            if count.round.is_some() && emitter.round == count.round {
                continue;
            }
            emitter.round = count.round;
            emitter.tracked.series.push(at, count.count as f64);
            emitter.line.count = count.count;
            emitter.line.event.clone_from(&count.event);
            if count.site.is_some() {
                emitter.line.site.clone_from(&count.site);
            }
            emitter.line.per_minute = per_minute(&emitter.tracked.series);
        }
        // An emitter that a whole report no longer names was collected or is no longer watched; from a full one
        // it may be missing because others have more listeners just now.
        let patience_ms = if counts.len() < LISTENER_ROWS { 0 } else { 60_000 };
        isolate.emitters.retain(|_, emitter| at.0 <= emitter.seen.0 + patience_ms);
        // Lists only: what is spread over many emitters is an estimate, and stands in some of them as well.
        let lists = isolate.emitters.values().map(|one| &one.line).filter(|line| !line.spread);
        isolate.totals = Arc::new(listener_totals(lists));
    }

    /// A snapshot in this process has ended: it leaves resident memory behind that is not the app's.
    pub fn disturbed(&mut self, now: Millis) {
        self.disturbed = now;
    }

    /// Looks whether a limit is about to be reached. After every process sample and every major GC: a loop that never
    /// returns leaves no time for more. The first time it is, there is a finding to be written at once.
    pub fn near_end(&mut self, now: Millis) -> Option<Action> {
        if self.ended {
            return None;
        }
        let (isolate, near) = self.nearest_end(now)?;
        self.ended = true;
        let source = Source {
            series: near.evidence.series,
            isolate: isolate.filter(|_| near.evidence.series == SeriesId::LiveHeap),
            emitter: None,
        };
        let finding = self.trigger.open_at_once(now, &source);
        let isolate = isolate.or_else(|| self.first_isolate());
        let mut draft = self.draft(finding, now, Vec::new());
        draft.isolate = isolate;
        draft.pieces.retain(|piece| piece.source != source);
        let named = draft.pieces.iter().find(|piece| !is_memory(piece));
        draft.cause = named
            .and_then(|piece| self.cause(&piece.source))
            .unwrap_or(Cause::Memory { series: near.evidence.series });
        draft.pieces.insert(0, self.piece(now, source, near.evidence.clone(), false));
        draft.limit = near.left_ms.map(|ms| (ms, near.kind, near.limit_bytes)).or(draft.limit);
        draft.near = Some(near);
        if let Some(isolate) = isolate.and_then(|id| self.isolates.get_mut(&id)) {
            isolate.profile.hurry();
        }
        Some(Action::NearEnd(Box::new(draft)))
    }

    /// The first limit that is near, and the isolate whose heap it is.
    fn nearest_end(&self, now: Millis) -> Option<(Option<IsolateId>, NearLimit)> {
        for (id, isolate) in &self.isolates {
            let Some(limit) = self.old_space_bytes(isolate) else { continue };
            let silent_ms = now.0.saturating_sub(isolate.heartbeat.0);
            let live = isolate.tracked.get(&SeriesId::LiveHeap).map(|tracked| &tracked.series);
            let seen = live.and_then(|live| near_end::heap(live, limit, isolate.turned?, now));
            let near = seen.or_else(|| {
                // Where major GCs are seen, they know better: V8 makes one before it gives up.
                let (total, anon) = isolate.then.filter(|_| !isolate.sees_majors)?;
                (silent_ms >= 2 * self.config.interval_ms)
                    .then(|| near_end::blocked_heap(total, anon, &self.anon, limit, now))?
            });
            if let Some(near) = near {
                return Some((Some(*id), NearLimit { silent_ms, ..near }));
            }
        }
        let near = near_end::container(&self.last_process, &self.anon, now)?;
        let silent_ms = self
            .isolates
            .values()
            .next()
            .map_or(0, |isolate| now.0.saturating_sub(isolate.heartbeat.0));
        Some((None, NearLimit { silent_ms, ..near }))
    }

    /// From which live heap on the next major GC of an isolate may be its last, bytes; `None` where its limit is not known.
    pub fn last_words_from(&self, id: IsolateId) -> Option<f64> {
        Some(near_end::HALF_GONE * self.old_space_bytes(self.isolates.get(&id)?)?)
    }

    fn old_space_bytes(&self, isolate: &Isolate) -> Option<f64> {
        let process = &self.last_process;
        let memory =
            [process.cgroup_limit_bytes, process.mem_total_bytes].into_iter().flatten().min();
        Some(near_end::old_space_bytes(isolate.heap_limit?, &self.node, memory))
    }

    /// Judges everything that is due and says what is to be done.
    pub fn step(&mut self, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        let warm = Millis(self.started.0 + self.config.warmup_ms);
        if !self.warmed && now >= warm {
            self.warmed = true;
            actions.push(Action::WarmedUp);
        }
        let mut confirmed = Vec::new();
        if self.warmed {
            let left = self.judge_own(now, warm, JUDGEMENTS_PER_STEP / 2, &mut confirmed);
            self.judge_emitters(now, warm, JUDGEMENTS_PER_STEP / 2 + left, &mut confirmed);
        }
        // Most telling first: what names a cause before what only weighs.
        confirmed.sort_by_key(|one| tells(one.source.series));
        for decision in self.trigger.step(now, confirmed) {
            match decision {
                Decision::Open { finding, confirmed } => {
                    let mut draft = self.draft(finding, now, confirmed);
                    draft.pieces.iter().for_each(|piece| self.refine_later(finding, now, piece));
                    draft.routes = self.ask_for_routes(finding, now, warm, &draft.pieces);
                    actions.push(Action::Open(Box::new(draft)));
                }
                Decision::Join { finding, confirmed } => {
                    let cause = self.cause(&confirmed.source);
                    let piece =
                        Box::new(self.piece(now, confirmed.source, confirmed.evidence, true));
                    self.refine_later(finding, now, &piece);
                    let pieces = std::slice::from_ref(&*piece);
                    let routes = self.ask_for_routes(finding, now, warm, pieces).map(Box::new);
                    actions.push(Action::Join { finding, piece, cause });
                    if let Some(explanation) = routes {
                        actions.push(Action::Routes { finding, explanation });
                    }
                }
            }
        }
        self.answer_for_routes(now, &mut actions);
        self.refine(now, &mut actions);
        actions.extend(self.near_end(now));
        self.plan_profiles(now, &mut actions);
        self.plan_readings(now, &mut actions);
        actions
    }

    /// What is known of the routes that a finding's growth goes with. It is asked for again with each reading of
    /// the next four windows: a finding comes early, and it is the changes of traffic that tell.
    fn ask_for_routes(
        &mut self,
        finding: u32,
        now: Millis,
        warm: Millis,
        pieces: &[Piece],
    ) -> Option<Explanation> {
        if self.questions.iter().any(|question| question.finding == finding) {
            return None;
        }
        let known = pieces.iter().filter(|piece| Routes::knows(piece.source.series));
        let piece = known.max_by(|a, b| {
            let weight = |piece: &Piece| (piece.confirmed, piece.evidence.slope_per_hour);
            weight(a).partial_cmp(&weight(b)).unwrap_or(std::cmp::Ordering::Equal)
        })?;
        let window_ms = piece.window_ms;
        // What began to rise late had not risen with any request before.
        let began = if piece.from_start { warm } else { piece.since.max(warm) };
        let mut question = Question {
            finding,
            isolate: piece.source.isolate?,
            series: piece.source.series,
            from: began.max(Millis(now.0.saturating_sub(ROUTE_WINDOWS * window_ms))),
            until: Millis(now.0 + ROUTE_WINDOWS * window_ms),
            asked: None,
            said: None,
        };
        let answer = self.answer(&mut question);
        if self.questions.len() >= MAX_QUESTIONS {
            self.questions.remove(0);
        }
        self.questions.push(question);
        answer
    }

    /// Remembers a slope that is worth telling anew.
    fn refine_later(&mut self, finding: u32, now: Millis, piece: &Piece) {
        if !piece.confirmed || !is_told(&piece.source) || piece.evidence.uncertainty() <= WELL_KNOWN
        {
            return;
        }
        if self.rough.len() >= MAX_REFINED {
            self.rough.remove(0);
        }
        let until = Millis(now.0 + REFINED_WINDOWS * piece.window_ms);
        let piece = Piece { points: Vec::new(), ..piece.clone() };
        self.rough.push(Rough { finding, piece, until, looked: now, count: 0 });
    }

    /// Tells the slopes of open findings anew where later readings know them better.
    fn refine(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut rough = std::mem::take(&mut self.rough);
        rough.retain_mut(|one| {
            if let Some(piece) = self.refined(now, one) {
                one.piece = Piece { points: Vec::new(), ..piece.clone() };
                let limit = self.limit(piece.source.isolate, std::slice::from_ref(&piece));
                actions.push(Action::Refine {
                    finding: one.finding,
                    piece: Box::new(piece),
                    limit,
                });
            }
            now < one.until && one.piece.evidence.uncertainty() > WELL_KNOWN
        });
        self.rough = rough;
    }

    /// A piece whose slope is known better now than when it was told last.
    fn refined(&self, now: Millis, rough: &mut Rough) -> Option<Piece> {
        let Piece { source, evidence: told, window_ms, .. } = &rough.piece;
        let tracked = self.tracked(source)?;
        let fresh = tracked.series.count() != rough.count;
        if !fresh || now.0 < rough.looked.0 + window_ms / REFINED_PACE {
            return None;
        }
        (rough.looked, rough.count) = (now, tracked.series.count());
        let rule = tracked.detector.as_ref()?.rule();
        let load = self.load(source);
        // What grows no more is told as it grew.
        let Judgement::Growing(seen) = judge(rule, &tracked.series, load, *window_ms, now) else {
            return None;
        };
        let seen = Evidence { agreed: told.agreed, ..seen };
        let piece = self.piece(now, source.clone(), seen, true);
        let better = piece.evidence.uncertainty() < REFINED_BY * told.uncertainty();
        better.then_some(piece)
    }

    /// How busy the event loop is that a series belongs to: of the process that of its first isolate.
    fn load(&self, source: &Source) -> Option<&Series> {
        match source.isolate {
            Some(id) => self.isolates.get(&id),
            None => self.isolates.values().next(),
        }
        .and_then(Isolate::load)
    }

    /// Adds what new readings tell about the routes of open findings.
    fn answer_for_routes(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut questions = std::mem::take(&mut self.questions);
        questions.retain_mut(|question| {
            if let Some(answer) = self.answer(question) {
                actions.push(Action::Routes {
                    finding: question.finding,
                    explanation: Box::new(answer),
                });
            }
            now < question.until
        });
        self.questions = questions;
    }

    /// The answer by the readings there are, if it says more than the one before.
    fn answer(&self, question: &mut Question) -> Option<Explanation> {
        let isolate = self.isolates.get(&question.isolate)?;
        let counted = &isolate.routes;
        let pair = counted.last_pair()?;
        if question.asked.replace(pair) == Some(pair) {
            return None;
        }
        let raised = isolate.tracked.get(&question.series).and_then(|one| one.series.shift());
        let answer = counted.explain(question.series, question.from, raised)?;
        let better = question.said.as_ref().is_none_or(|said| routes::says_more(&answer, said));
        better.then(|| {
            question.said = Some(answer.clone());
            answer
        })
    }

    /// Whether a series of the finding's source still grows: the question before a follow-up snapshot.
    pub fn still_grows(&self, source: &Source) -> bool {
        self.tracked(source)
            .and_then(|tracked| tracked.detector.as_ref())
            .is_some_and(|detector| detector.suspicion().is_some())
    }

    /// An isolate's allocation profile has begun, was read, or has ended.
    pub fn on_profile(&mut self, id: IsolateId, at: Millis, answer: &Answer) {
        let Some(isolate) = self.isolates.get_mut(&id) else { return };
        match answer {
            Answer::Began { .. } => isolate.profile.began(at),
            Answer::Read { last: false, .. } => isolate.profile.read(at),
            Answer::Read { last: true, .. } | Answer::Stopped | Answer::Failed { .. } => {
                isolate.profile.ended(at);
            }
        }
        // The first one loads what it needs, whatever comes of it then.
        let loaded = !matches!(answer, Answer::Failed { code, .. } if code == "unavailable");
        if let Some(live) = isolate.tracked.get_mut(&SeriesId::LiveHeap)
            && loaded
            && live.series.shift().is_none()
        {
            live.series.raised(Shift { at, most: MOST_LOADED });
        }
    }

    /// The plan of an isolate's allocation profile.
    pub fn profile(&mut self, id: IsolateId) -> Option<&mut ProfilePlan> {
        self.isolates.get_mut(&id).map(|isolate| &mut isolate.profile)
    }

    /// Where the trigger stands.
    pub fn phase(&self) -> Phase {
        self.trigger.phase()
    }

    /// Confirmed growth that a cooldown kept silent.
    pub fn silenced(&self) -> u64 {
        self.trigger.silenced()
    }

    /// The last process sample.
    pub fn last_process(&self) -> &ProcessSample {
        &self.last_process
    }

    /// The isolate that speaks for the process: the oldest.
    pub fn first_isolate(&self) -> Option<IsolateId> {
        self.isolates.keys().next().copied()
    }

    /// Last value of a series of an isolate.
    pub fn last(&self, id: IsolateId, series: SeriesId) -> Option<(Millis, f64)> {
        self.isolates.get(&id)?.tracked.get(&series)?.series.last()
    }

    /// Series of an isolate (`None`: of the process) that were read at `since` or later, with their last value;
    /// for listeners that of the emitter that has most.
    pub fn read_since(
        &self,
        id: Option<IsolateId>,
        since: Option<Millis>,
    ) -> impl Iterator<Item = (SeriesId, f64)> {
        let isolate = id.and_then(|id| self.isolates.get(&id));
        let tracked = match id {
            None => Some(&self.process),
            Some(_) => isolate.map(|isolate| &isolate.tracked),
        };
        let fresh = move |at: Millis| since.is_none_or(|since| at >= since);
        let listeners = isolate.and_then(|isolate| {
            let seen = isolate
                .emitters
                .values()
                .filter(|emitter| fresh(emitter.seen) && !emitter.line.spread);
            seen.map(|emitter| emitter.line.count).max()
        });
        tracked
            .into_iter()
            .flatten()
            .filter_map(move |(series, tracked)| {
                let (at, value) = tracked.series.last()?;
                fresh(at).then_some((*series, value))
            })
            .chain(listeners.map(|count| (SeriesId::Listeners, count as f64)))
    }

    /// Bytes in V8's large-object spaces after the last major GC.
    pub fn large_objects(&self, id: IsolateId) -> Option<f64> {
        self.isolates.get(&id)?.large_objects
    }

    /// The way in use for an isolate's live heap turned out not to work, or a better one was found.
    pub fn set_way(&mut self, id: IsolateId, way: Way) {
        let (share, pause) = (self.config.gc_share, self.config.max_gc_pause_ms);
        if let Some(isolate) = self.isolates.get_mut(&id) {
            isolate.plan.configure(way, share, pause);
        }
    }

    /// V8's heap limit of an isolate, bytes.
    pub fn heap_limit(&self, id: IsolateId) -> Option<f64> {
        self.isolates.get(&id)?.heap_limit
    }

    /// Live-heap readings made of an isolate, and the CPU they cost, milliseconds.
    pub fn readings_of(&self, id: IsolateId) -> (u64, f64) {
        let Some(isolate) = self.isolates.get(&id) else { return (0, 0.0) };
        let (made, _, spent_ms) = isolate.plan.totals();
        (made, spent_ms)
    }

    /// When an isolate's JS thread was last heard of.
    pub fn heartbeat(&self, id: IsolateId) -> Option<Millis> {
        self.isolates.get(&id).map(|isolate| isolate.heartbeat)
    }

    /// The process' series, for `status()`.
    pub fn process_view(&self) -> Vec<SeriesView> {
        views(&self.process)
    }

    /// The isolates, for `status()`.
    pub fn isolate_views(&self) -> Vec<IsolateView> {
        self.isolates
            .iter()
            .map(|(id, isolate)| IsolateView {
                id: *id,
                series: views(&isolate.tracked),
                listeners: listener_lines(isolate, LISTENER_LINES),
                totals: Arc::clone(&isolate.totals),
                heap_limit: isolate.heap_limit,
                way: isolate.plan.way(),
                readings: isolate.plan.totals(),
                wait: isolate.wait,
                heartbeat: isolate.heartbeat,
                traffic: isolate.routes.view(),
            })
            .collect()
    }

    /// What there is of `from..=to`, at most `cells` points a series. Of an isolate that is not known, nothing.
    pub fn past(&self, from: Millis, to: Millis, cells: usize, isolate: Option<IsolateId>) -> Past {
        let draw = |tracked: &HashMap<SeriesId, Tracked>| -> Drawn {
            METRICS
                .iter()
                .filter_map(|metric| Some((metric.id, tracked.get(&metric.id)?)))
                .map(|(id, tracked)| (id, tracked.series.window(from, to, cells)))
                .collect()
        };
        let of = isolate.and_then(|id| self.isolates.get(&id));
        Past {
            process: draw(&self.process),
            isolate: of.map(|isolate| draw(&isolate.tracked)).unwrap_or_default(),
            listeners: of.map_or_else(Vec::new, |isolate| {
                top_emitters(isolate, LISTENER_LINES)
                    .into_iter()
                    .map(|emitter| {
                        let points = emitter.tracked.series.window(from, to, cells);
                        (emitter.line.clone(), points)
                    })
                    .collect()
            }),
        }
    }

    /// Bytes that the series of one isolate and what judges them may occupy at most at default settings, the process'
    /// series and the names of emitters not counted.
    pub fn isolate_capacity_bytes() -> usize {
        let config = Config::default();
        let bytes = |series: Series, id: SeriesId| {
            let tracked = Tracked::new(series, id, &config);
            let rungs = tracked.detector.as_ref().map_or(0, GrowthDetector::held_bytes);
            size_of::<Tracked>() - size_of::<Series>() + tracked.series.capacity_bytes() + rungs
        };
        let own = METRICS.iter().filter(|metric| metric.scope == Scope::Isolate);
        let own = own.map(|metric| metric.id).filter(|id| *id != SeriesId::Listeners);
        let emitter = size_of::<Emitter>() - size_of::<Tracked>()
            + bytes(Series::short(), SeriesId::Listeners);
        own.map(|id| bytes(Series::long(), id)).sum::<usize>() + MAX_EMITTERS * emitter
    }

    /// Judges what is due of the series of the process and of the isolates, emitters excepted, and their trends.
    /// Returns what is left of the budget.
    fn judge_own(
        &mut self,
        now: Millis,
        warm: Millis,
        mut budget: u32,
        confirmed: &mut Vec<Confirmed>,
    ) -> u32 {
        let disturbed = self.disturbed.max(warm);
        let begin = std::mem::take(&mut self.turn.own);
        let mut run = |source: Source,
                       tracked: &mut Tracked,
                       since: Millis,
                       load: Option<&Series>,
                       budget: &mut u32| {
            if let Some(evidence) = tracked.step(now, since, load, budget) {
                confirmed.push(Confirmed { source: source.clone(), evidence });
            }
            if TRENDS.contains(&source.series) {
                tracked.follow(now, since, budget);
            }
        };
        for wrapped in [false, true] {
            let mine = |owner: Option<IsolateId>| {
                let here = METRICS.iter().enumerate().map(move |(at, one)| ((owner, at), one.id));
                here.filter(move |(here, _)| (*here < begin) == wrapped)
            };
            // The process' traffic is that of its first isolate: a server's main thread.
            let by = self.isolates.values().next().and_then(Isolate::load);
            for (here, series) in mine(None) {
                let Some(tracked) = self.process.get_mut(&series) else { continue };
                let since = if series == SeriesId::Native { disturbed } else { warm };
                let source = Source { series, isolate: None, emitter: None };
                run(source, tracked, since, by, &mut budget);
                if budget == 0 {
                    self.turn.own = here;
                    return 0;
                }
            }
            for (id, isolate) in &mut self.isolates {
                let load = isolate.tracked.remove(&SeriesId::LoopUtilization);
                let by = load.as_ref().map(|tracked| &tracked.series);
                let mut ended = None;
                for (here, series) in mine(Some(*id)) {
                    let Some(tracked) = isolate.tracked.get_mut(&series) else { continue };
                    let source = Source { series, isolate: Some(*id), emitter: None };
                    run(source, tracked, warm, by, &mut budget);
                    if budget == 0 {
                        ended = Some(here);
                        break;
                    }
                }
                if let Some(load) = load {
                    isolate.tracked.insert(SeriesId::LoopUtilization, load);
                }
                if let Some(here) = ended {
                    self.turn.own = here;
                    return 0;
                }
            }
        }
        budget
    }

    /// Judges what is due of the emitters of all isolates.
    fn judge_emitters(
        &mut self,
        now: Millis,
        warm: Millis,
        mut budget: u32,
        confirmed: &mut Vec<Confirmed>,
    ) {
        let begin = std::mem::take(&mut self.turn.emitter);
        for wrapped in [false, true] {
            for (id, isolate) in &mut self.isolates {
                let by = isolate.tracked.get(&SeriesId::LoopUtilization).map(|load| &load.series);
                for (key, emitter) in &mut isolate.emitters {
                    let here = (*id, *key);
                    if (here < begin) != wrapped {
                        continue;
                    }
                    if let Some(evidence) = emitter.tracked.step(now, warm, by, &mut budget) {
                        let source = Source {
                            series: SeriesId::Listeners,
                            isolate: Some(*id),
                            emitter: Some(emitter.line.key()),
                        };
                        confirmed.push(Confirmed { source, evidence });
                    }
                    if budget == 0 {
                        self.turn.emitter = here;
                        return;
                    }
                }
            }
        }
    }

    fn plan_readings(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let amount = self.config.amount_bytes();
        for (id, isolate) in &mut self.isolates {
            let Some(tracked) = isolate.tracked.get(&SeriesId::LiveHeap) else { continue };
            let Some(detector) = tracked.detector.as_ref() else { continue };
            let Some((_, heap_used)) = isolate.tracked[&SeriesId::HeapUsed].series.last() else {
                continue;
            };
            let shortest = detector.shortest_ms();
            let situation = Situation {
                heap_used_bytes: heap_used,
                live_bytes: tracked.series.last().map(|(_, bytes)| bytes),
                shortest_window_ms: shortest,
                window_ms: self.config.window_ms,
                amount_bytes: amount,
                suspected_window_ms: detector.suspected_window_ms().filter(|_| self.warmed),
                doubted_window_ms: detector.doubted_window_ms().filter(|_| self.warmed),
                // The end of the warm-up is worth one look at the short windows.
                hint: self.warmed
                    && (now.0 < self.started.0 + self.config.warmup_ms + shortest
                        || fast_growth(&self.anon, now, shortest, amount)),
                responsive: now.0 < isolate.heartbeat.0 + self.config.interval_ms * 3 + 1_000,
            };
            match isolate.plan.step(now, &situation) {
                Ok(()) => {
                    isolate.wait = None;
                    actions.push(Action::ReadLiveHeap(*id));
                }
                Err(wait) => isolate.wait = Some(wait),
            }
        }
    }

    fn plan_profiles(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut orders = Vec::new();
        for (id, isolate) in &mut self.isolates {
            let growing = |series: SeriesId| {
                isolate.tracked.get(&series)?.detector.as_ref().and_then(GrowthDetector::suspicion)
            };
            let last = |series: SeriesId| Some(isolate.tracked.get(&series)?.series.last()?.1);
            let opened = actions.iter().find_map(|action| match action {
                Action::Open(draft) => {
                    draft.pieces.iter().find_map(|piece| memory_window(piece, *id))
                }
                Action::Join { piece, .. } => memory_window(piece, *id),
                _ => None,
            });
            let situation = profile::Situation {
                suspicion: PROFILED.into_iter().find_map(growing).filter(|_| self.warmed),
                opened,
                live_bytes: last(SeriesId::LiveHeap)
                    .or_else(|| last(SeriesId::HeapUsed))
                    .unwrap_or(0.0),
                responsive: now.0 < isolate.heartbeat.0 + self.config.interval_ms * 3 + 1_000,
            };
            if let Some(order) = isolate.profile.step(now, &situation) {
                orders.push(Action::Profile(*id, order));
            }
        }
        actions.splice(0..0, orders);
    }

    /// Whether V8's markers get a head start when the live heap of this isolate is read.
    pub fn wants_head_start(&self, id: IsolateId) -> bool {
        let heap_used =
            |isolate: &Isolate| Some(isolate.tracked.get(&SeriesId::HeapUsed)?.series.last()?.1);
        self.isolates.get(&id).and_then(heap_used).is_some_and(readings::wants_head_start)
    }

    fn tracked(&self, source: &Source) -> Option<&Tracked> {
        match (source.isolate, &source.emitter) {
            (None, _) => self.process.get(&source.series),
            (Some(id), None) => self.isolates.get(&id)?.tracked.get(&source.series),
            (Some(id), Some(key)) => self
                .isolates
                .get(&id)?
                .emitters
                .values()
                .find(|emitter| emitter.line.has_key(key))
                .map(|emitter| &emitter.tracked),
        }
    }

    fn draft(&self, finding: u32, now: Millis, confirmed: Vec<Confirmed>) -> Draft {
        let isolate =
            confirmed.iter().find_map(|one| one.source.isolate).or_else(|| self.first_isolate());
        let cause = self.explanation(isolate, &confirmed);
        let sources: Vec<Source> = confirmed.iter().map(|one| one.source.clone()).collect();
        let mut pieces: Vec<Piece> = confirmed
            .into_iter()
            .map(|one| self.piece(now, one.source, one.evidence, true))
            .collect();
        for (source, evidence) in self.suspected(isolate) {
            if !sources.contains(&source) {
                pieces.push(self.piece(now, source, evidence, false));
            }
        }
        let state = isolate.and_then(|id| self.isolates.get(&id));
        Draft {
            finding,
            at: now,
            isolate,
            cause,
            limit: self.limit(isolate, &pieces),
            near: None,
            pieces,
            listeners: state.map(|state| listener_lines(state, LISTENER_LINES)).unwrap_or_default(),
            context: views(&self.process)
                .into_iter()
                .chain(state.map(|state| views(&state.tracked)).unwrap_or_default())
                .map(|view| (view.id, view.last))
                .collect(),
            routes: None,
        }
    }

    /// What names the finding: the first series that was confirmed, or, if that is memory and timers or listeners pile
    /// up beside it, those: they hold what they close over.
    fn explanation(&self, isolate: Option<IsolateId>, confirmed: &[Confirmed]) -> Cause {
        let cause = confirmed.first().and_then(|one| self.cause(&one.source));
        if let Some(Cause::Memory { .. }) | None = cause {
            let timers = Source { series: SeriesId::Timers, isolate, emitter: None };
            let rising = self
                .tracked(&timers)
                .and_then(|tracked| tracked.detector.as_ref()?.rising())
                .is_some_and(|evidence| evidence.last >= TIMERS_RISEN * evidence.first.max(1.0));
            if rising && let Some(cause) = self.cause(&timers) {
                return cause;
            }
            if let Some(line) = isolate.and_then(|id| self.growing_listeners(id)) {
                return Cause::Listeners(line.clone());
            }
        }
        cause.unwrap_or(Cause::Memory { series: SeriesId::LiveHeap })
    }

    /// The listeners of an isolate that were last seen to grow, those that grow fastest.
    fn growing_listeners(&self, id: IsolateId) -> Option<&ListenerLine> {
        let growing = |emitter: &&Emitter| {
            emitter.tracked.detector.as_ref().is_some_and(|one| one.suspicion().is_some())
        };
        let emitters = self.isolates.get(&id)?.emitters.values().map(Box::as_ref);
        let lines = emitters.filter(growing).map(|emitter| &emitter.line);
        lines.max_by(|a, b| {
            a.per_minute.total_cmp(&b.per_minute).then_with(|| b.key().cmp(&a.key()))
        })
    }

    /// Series of the process and of this isolate that grow as well, confirmed or not.
    fn suspected(&self, isolate: Option<IsolateId>) -> Vec<(Source, Evidence)> {
        let mut suspected = Vec::new();
        let mut look = |source: Source, tracked: &Tracked| {
            if let Some(evidence) = tracked.detector.as_ref().and_then(GrowthDetector::rising) {
                suspected.push((source, evidence.clone()));
            }
        };
        for (series, tracked) in &self.process {
            look(Source { series: *series, isolate: None, emitter: None }, tracked);
        }
        if let Some((id, state)) = isolate.and_then(|id| Some((id, self.isolates.get(&id)?))) {
            for (series, tracked) in &state.tracked {
                look(Source { series: *series, isolate: Some(id), emitter: None }, tracked);
            }
            for emitter in state.emitters.values() {
                let source = Source {
                    series: SeriesId::Listeners,
                    isolate: Some(id),
                    emitter: Some(emitter.line.key()),
                };
                look(source, &emitter.tracked);
            }
        }
        suspected.sort_by_key(|(source, _)| tells(source.series));
        suspected
    }

    fn piece(&self, now: Millis, source: Source, evidence: Evidence, confirmed: bool) -> Piece {
        let floor =
            rule(source.series, &self.config).is_some_and(|rule| rule.statistic == Statistic::Min);
        let (mut points, mut since, mut from_start) = (Vec::new(), Millis(0), false);
        if let Some(tracked) = self.tracked(&source) {
            let first = tracked.series.first().map_or(Millis(0), |(at, _)| at);
            points = tracked
                .series
                .window(first, now, POINTS)
                .into_iter()
                .map(|point| (point.at, if floor { point.min } else { point.mean }))
                .collect();
            let line: Vec<(f64, f64)> =
                points.iter().map(|(at, value)| (at.0 as f64, *value)).collect();
            let begins = stats::rise_begins(&line);
            since = points.get(begins).map_or(first, |(at, _)| *at);
            from_start = begins == 0;
        }
        let window_ms = evidence.window_ms;
        let evidence = match self.tracked(&source) {
            Some(Tracked { series, detector: Some(detector), .. })
                if confirmed && is_told(&source) =>
            {
                let warm = Millis(self.started.0 + self.config.warmup_ms);
                let begun = if from_start { warm } else { since.max(warm) };
                tell(detector.rule(), series, self.load(&source), begun, now, &evidence)
            }
            _ => evidence,
        };
        let native = (source.series == SeriesId::Native).then(|| self.native(&evidence)).flatten();
        Piece { source, evidence, window_ms, confirmed, since, from_start, points, native }
    }

    /// What malloc says to growth of native memory. `None` where there is no glibc to ask.
    fn native(&self, evidence: &Evidence) -> Option<NativeVerdict> {
        let from = Millis(evidence.at.0.saturating_sub(evidence.window_ms));
        let [used, free] = &self.malloc;
        Some(explain(
            evidence.last - evidence.first,
            Course::of(used, from, evidence.at)?,
            Course::of(free, from, evidence.at)?,
        ))
    }

    fn cause(&self, source: &Source) -> Option<Cause> {
        let count = self.tracked(source)?.series.last()?.1.max(0.0) as u64;
        Some(match source.series {
            SeriesId::Listeners => {
                let key = source.emitter.as_ref()?;
                let isolate = self.isolates.get(&source.isolate?)?;
                let emitter = isolate.emitters.values().find(|one| one.line.has_key(key))?;
                Cause::Listeners(emitter.line.clone())
            }
            SeriesId::Timers => Cause::Timers { count },
            series if series.metric().unit == Unit::Count => Cause::Count { series, count },
            series => Cause::Memory { series },
        })
    }

    /// The limit reached first at the fastest rate of the finding's memory series.
    fn limit(&self, isolate: Option<IsolateId>, pieces: &[Piece]) -> Option<(u64, LimitKind, u64)> {
        let of = |wanted: &dyn Fn(SeriesId) -> bool| {
            pieces
                .iter()
                .filter(|piece| wanted(piece.source.series))
                .map(|piece| piece.evidence.slope_per_hour)
                .fold(0.0, f64::max)
        };
        let time = |room: f64, per_hour: f64| {
            (per_hour > 0.0).then(|| (room.max(0.0) / per_hour * crate::config::HOUR_MS) as u64)
        };
        let any = of(&|series| series.metric().unit == Unit::Bytes);
        let process = &self.last_process;
        let container = match (process.cgroup_limit_bytes, process.cgroup_used_bytes) {
            (Some(limit), Some(used)) => {
                time(limit as f64 - used as f64, any).map(|ms| (ms, LimitKind::Container, limit))
            }
            _ => None,
        };
        let heap = isolate.and_then(|id| {
            let limit = self.heap_limit(id)?;
            let (_, live) = self.last(id, SeriesId::LiveHeap)?;
            let ms = time(limit - live, of(&|series| series == SeriesId::LiveHeap))?;
            Some((ms, LimitKind::Heap, limit as u64))
        });
        [container, heap].into_iter().flatten().min_by_key(|(ms, ..)| *ms)
    }
}

impl ListenerLine {
    /// What tells this emitter and event from others, also across restarts.
    pub fn key(&self) -> String {
        let mut key = String::new();
        // Writing to a string does not fail.
        let _ = self.write_key(&mut key);
        key
    }

    /// Whether that is its key: a finding of sixty emitters asks it of each of them sixty times.
    fn has_key(&self, key: &str) -> bool {
        let mut rest = Rest(key);
        self.write_key(&mut rest).is_ok() && rest.0.is_empty()
    }

    fn write_key(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match &self.site {
            Some(site) if self.spread => write!(out, "{} spread {site}", self.emitter),
            Some(site) => write!(out, "{} '{}' {site}", self.emitter, self.event),
            None => write!(out, "{} '{}'", self.emitter, self.event),
        }
    }
}

/// What is left of a text that is compared with what is written.
struct Rest<'a>(&'a str);

impl fmt::Write for Rest<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// Order in which series name a finding: the first knows most about the cause.
fn tells(series: SeriesId) -> u8 {
    match series {
        SeriesId::Listeners => 0,
        SeriesId::Timers => 1,
        SeriesId::Threads => 2,
        SeriesId::Fds => 3,
        SeriesId::Handles => 4,
        SeriesId::ArrayBuffers => 5,
        SeriesId::External => 6,
        SeriesId::LiveHeap => 7,
        _ => 8,
    }
}

/// Series of which an allocation profile may name the line, the one it sees best first.
const PROFILED: [SeriesId; 3] = [SeriesId::LiveHeap, SeriesId::ArrayBuffers, SeriesId::External];

/// The window of a finding's series if it is memory of this isolate.
fn memory_window(piece: &Piece, id: IsolateId) -> Option<u64> {
    let source = &piece.source;
    (source.isolate == Some(id) && PROFILED.contains(&source.series)).then_some(piece.window_ms)
}

/// Whether a slope may be told over another stretch than it was judged on. Native memory is judged over the whole window as
/// it is, and what malloc says belongs to that.
fn is_told(source: &Source) -> bool {
    source.series != SeriesId::Native
}

/// Whether a finding's series is memory of any kind.
pub fn is_memory(piece: &Piece) -> bool {
    piece.source.series.metric().unit == Unit::Bytes
}

/// Whether a finding's series is memory of this isolate, whose allocations a profile sees.
pub fn is_profiled(piece: &Piece, id: IsolateId) -> bool {
    memory_window(piece, id).is_some()
}

/// Whether resident memory grew, over the shortest window, by half of what a leak must.
fn fast_growth(anon: &Series, now: Millis, window_ms: u64, amount: f64) -> bool {
    let points = anon.window(Millis(now.0.saturating_sub(window_ms)), now, 8);
    match (points.first(), points.last()) {
        (Some(first), Some(last)) if points.len() >= 4 => last.min - first.min > amount / 2.0,
        _ => false,
    }
}

fn listener_rule(spread: bool, config: &Config) -> Option<Rule> {
    if spread { spread_rule(config) } else { rule(SeriesId::Listeners, config) }
}

fn per_minute(series: &Series) -> f64 {
    let Some((now, _)) = series.last() else { return 0.0 };
    let points = series.window(Millis(now.0.saturating_sub(600_000)), now, 20);
    let line: Vec<(f64, f64)> =
        points.iter().map(|point| (point.at.0 as f64 / 60_000.0, point.mean)).collect();
    stats::theil_sen(&line).map_or(0.0, |line| line.slope)
}

fn listener_lines(isolate: &Isolate, most: usize) -> Vec<ListenerLine> {
    top_emitters(isolate, most).into_iter().map(|emitter| emitter.line.clone()).collect()
}

fn top_emitters(isolate: &Isolate, most: usize) -> Vec<&Emitter> {
    let mut emitters: Vec<&Emitter> = isolate.emitters.values().map(Box::as_ref).collect();
    emitters.sort_by(|a, b| {
        let (a, b) = (&a.line, &b.line);
        b.per_minute
            .total_cmp(&a.per_minute)
            .then(b.count.cmp(&a.count))
            .then(a.event.cmp(&b.event))
    });
    emitters.truncate(most);
    emitters
}

fn listener_totals<'a>(lines: impl Iterator<Item = &'a ListenerLine>) -> ListenerTotals {
    let mut by_line: BTreeMap<(&str, &str, Option<String>), u64> = BTreeMap::new();
    for line in lines {
        let site = line.site.as_ref().map(ToString::to_string);
        *by_line.entry((&line.emitter, &line.event, site)).or_default() += line.count;
    }
    let mut all: Vec<_> = by_line.into_iter().collect();
    // Stable: of equal counts the order of names decides, so that the choice does not change by itself.
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest = all.split_off(all.len().min(MAX_LISTENER_TOTALS));
    ListenerTotals {
        top: all
            .into_iter()
            .map(|((emitter, event, site), count)| ListenerTotal {
                emitter: emitter.to_owned(),
                event: event.to_owned(),
                site,
                count,
            })
            .collect(),
        other: rest.into_iter().map(|(_, count)| count).sum(),
    }
}

fn views(tracked: &HashMap<SeriesId, Tracked>) -> Vec<SeriesView> {
    METRICS
        .iter()
        .filter_map(|metric| {
            let one = tracked.get(&metric.id)?;
            let (at, last) = one.series.last()?;
            let growing = one
                .detector
                .as_ref()
                .and_then(GrowthDetector::suspicion)
                .map(|evidence| (evidence.slope_per_hour, evidence.window_ms));
            Some(SeriesView { id: metric.id, last, at, growing, trend: one.trend })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1_048_576.0;
    const MAIN: IsolateId = IsolateId(0);

    fn fast() -> Config {
        Config {
            growth_rate: 60.0 * MB,
            native_rate: 600.0 * MB,
            window_ms: 32_000,
            warmup_ms: 10_000,
            gc_share: 0.05,
            ..Config::default()
        }
    }

    /// Drives a pipeline second by second, answering every request for a live-heap reading at once.
    fn drive(
        pipeline: &mut Pipeline,
        seconds: std::ops::Range<u64>,
        live: impl Fn(f64) -> f64,
        listeners: impl Fn(f64) -> u64,
    ) -> Vec<(u64, Action)> {
        let mut seen = Vec::new();
        for second in seconds {
            let now = Millis(second * 1000);
            let s = second as f64;
            pipeline.on_process(
                now,
                &ProcessSample {
                    rss_bytes: Some((live(s) + 60.0 * MB) as u64),
                    rss_anon_bytes: Some((live(s) + 40.0 * MB) as u64),
                    fds: Some(20),
                    threads: Some(11),
                    cgroup_limit_bytes: Some(512 << 20),
                    cgroup_used_bytes: Some((live(s) + 60.0 * MB) as u64),
                    ..ProcessSample::default()
                },
            );
            pipeline.on_isolate(
                MAIN,
                now,
                &IsolateReading {
                    heap_used_bytes: Some(live(s) + 8.0 * MB),
                    heap_total_bytes: Some(live(s) + 12.0 * MB),
                    heap_limit_bytes: Some(2048.0 * MB),
                    external_bytes: Some(2.0 * MB),
                    array_buffers_bytes: Some(MB),
                    loop_utilization: Some(0.3),
                    ..IsolateReading::default()
                },
            );
            pipeline.on_listeners(
                MAIN,
                now,
                &[ListenerCount {
                    key: 1,
                    emitter: "EventEmitter".into(),
                    event: "update".into(),
                    count: listeners(s),
                    site: Some(Site {
                        function: "handler".into(),
                        file: "/app/app.js".into(),
                        line: 12,
                        column: 7,
                    }),
                    round: None,
                }],
            );
            for action in pipeline.step(now) {
                if let Action::ReadLiveHeap(id) = action {
                    pipeline.on_live_heap(
                        id,
                        now,
                        LiveHeapReading { bytes: live(s), pause_ms: 9.0 },
                        Some(30.0),
                    );
                } else {
                    seen.push((second, action));
                }
            }
        }
        seen
    }

    #[test]
    fn the_trend_of_memory_is_shown_after_the_warm_up_whether_it_grows_or_not() {
        for (per_second, expected) in [(0.01 * MB, 36.0 * MB), (0.0, 0.0)] {
            let mut pipeline = Pipeline::new(fast(), Millis(0));
            pipeline.attach(MAIN, Way::Pressure, Millis(0));
            let live = |s: f64| 20.0 * MB + s * per_second;
            let trend = |pipeline: &Pipeline| {
                let views = pipeline.isolate_views();
                let series = &views[0].series;
                series.iter().find(|view| view.id == SeriesId::LiveHeap).and_then(|view| view.trend)
            };
            drive(&mut pipeline, 0..40, live, |_| 10);
            assert_eq!(trend(&pipeline), None);
            drive(&mut pipeline, 40..120, live, |_| 10);
            let shown = trend(&pipeline).unwrap();
            assert!((shown.slope_per_hour - expected).abs() < MB, "{shown:?}");
            assert_eq!(shown.window_ms, 32_000);
            assert_eq!(shown.p_value < 0.05, per_second > 0.0);
        }
    }

    #[test]
    fn listeners_are_summed_by_line_and_all_but_the_longest_lists_are_one_number() {
        let line = |emitter: &str, number: u32, count: u64| ListenerLine {
            emitter: emitter.into(),
            event: "data".into(),
            spread: false,
            count,
            per_minute: 0.0,
            site: Some(Site {
                function: String::new(),
                file: "/app/app.js".into(),
                line: number,
                column: 1,
            }),
        };
        let mut lines: Vec<_> = (0..30).map(|i| line("Socket", i, 10 + u64::from(i))).collect();
        lines.extend((0..7).map(|_| line("Pool", 1, 20)));
        let totals = listener_totals(lines.iter());
        assert_eq!(totals.top.len(), MAX_LISTENER_TOTALS);
        let first = &totals.top[0];
        assert_eq!((first.emitter.as_str(), first.count), ("Pool", 140));
        assert_eq!(first.site.as_deref(), Some("/app/app.js:1"));
        assert_eq!(totals.top[19].count, 39 - 18);
        assert_eq!(totals.other, (10..=20).sum::<u64>());
    }

    #[test]
    fn a_leak_in_two_series_is_one_finding_that_names_the_line() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let seen =
            drive(&mut pipeline, 0..120, |s| 20.0 * MB + s * MB / 10.0, |s| 10 + s as u64 * 4);
        assert_eq!(seen[0], (10, Action::WarmedUp));
        let opened: Vec<&Draft> = seen
            .iter()
            .filter_map(|(_, action)| match action {
                Action::Open(draft) => Some(&**draft),
                _ => None,
            })
            .collect();
        assert_eq!(opened.len(), 1);
        let draft = opened[0];
        let Cause::Listeners(line) = &draft.cause else { panic!("{:?}", draft.cause) };
        assert_eq!(
            (line.event.as_str(), line.site.as_ref().unwrap().to_string()),
            ("update", "/app/app.js:12".to_owned())
        );
        assert!((line.per_minute - 240.0).abs() < 10.0, "{}", line.per_minute);
        let mut series: Vec<SeriesId> =
            draft.pieces.iter().map(|piece| piece.source.series).collect();
        for (_, action) in &seen {
            if let Action::Join { finding, piece, .. } = action {
                assert_eq!(*finding, draft.finding);
                series.push(piece.source.series);
            }
        }
        assert!(
            series.contains(&SeriesId::LiveHeap) && series.contains(&SeriesId::Listeners),
            "{series:?}"
        );
    }

    #[test]
    fn the_time_to_the_limit_is_that_of_the_nearer_limit() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let seen = drive(&mut pipeline, 0..120, |s| 20.0 * MB + s * MB, |_| 3);
        let draft = seen
            .iter()
            .find_map(|(_, action)| match action {
                Action::Open(draft) => Some(draft.clone()),
                _ => None,
            })
            .unwrap();
        let (ms, kind, limit) = draft.limit.unwrap();
        assert_eq!((kind, limit), (LimitKind::Container, 512 << 20));
        // 512 MB, less 80 and a megabyte for every second gone, at 1 MB/s.
        let left = 432.0 - draft.at.0 as f64 / 1000.0;
        assert!((ms as f64 / 1000.0 - left).abs() < 20.0, "{ms} ms, {left} s left");
    }

    #[test]
    fn a_steady_app_is_left_in_peace() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let wave = |s: f64| 30.0 * MB + MB * (s / 5.0).sin();
        let seen = drive(&mut pipeline, 0..3600, wave, |s| 12 + (s as u64 / 7) % 3);
        // One evaluation may see growth in the wave: allocations are sampled then, and nothing is said.
        let told = seen.iter().filter(|(_, action)| !matches!(action, Action::Profile(..)));
        assert_eq!(told.count(), 1, "{seen:?}");
    }

    #[test]
    fn a_slope_under_a_batch_is_told_anew_until_it_is_well_known() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::External, Millis(0));
        // 2 MB/min below a batch of 1.3 MB that fills over 4.1 s and is flushed.
        let live = |s: f64| 8.0 * MB + s * 2.0 * MB / 60.0 + 1.3 * MB * (s / 4.1).fract();
        let seen = drive(&mut pipeline, 0..400, live, |_| 3);
        let opened = seen.iter().find_map(|(_, action)| match action {
            Action::Open(draft) => Some(&draft.pieces[0].evidence),
            _ => None,
        });
        let anew = seen.iter().filter_map(|(_, action)| match action {
            Action::Refine { finding: 1, piece, limit } => {
                assert!(limit.is_some() && piece.confirmed && !piece.points.is_empty());
                Some(&piece.evidence)
            }
            _ => None,
        });
        let told: Vec<&Evidence> = opened.into_iter().chain(anew).collect();
        for pair in told.windows(2) {
            assert!(pair[1].uncertainty() < REFINED_BY * pair[0].uncertainty(), "{pair:?}");
            assert!(pair[1].at > pair[0].at, "{pair:?}");
        }
        let last = told.last().unwrap();
        assert!(told.len() >= 2 && last.uncertainty() <= WELL_KNOWN, "{told:?}");
        assert!((last.slope_per_hour / (120.0 * MB) - 1.0).abs() < 0.1, "{last:?}");
    }

    #[test]
    fn allocations_are_sampled_from_the_suspicion_on_and_read_before_the_finding_opens() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let mut seen = Vec::new();
        for second in 0..120 {
            let live = |s: f64| 20.0 * MB + s * MB / 8.0;
            for (at, action) in drive(&mut pipeline, second..second + 1, live, |_| 3) {
                if let (Action::Profile(id, order), Some(plan)) = (&action, pipeline.profile(MAIN))
                {
                    assert_eq!(*id, MAIN);
                    match order {
                        Order::Begin { .. } => plan.began(Millis(at * 1000)),
                        Order::Read => plan.read(Millis(at * 1000)),
                        _ => plan.ended(Millis(at * 1000)),
                    }
                }
                seen.push((at, action));
            }
        }
        let at = |wanted: &dyn Fn(&Action) -> bool| seen.iter().position(|(_, one)| wanted(one));
        let order = |word: &'static str| {
            at(&|one| matches!(one, Action::Profile(_, order) if order.as_str() == word)).unwrap()
        };
        let opened = at(&|one| matches!(one, Action::Open(_))).unwrap();
        assert!(order("begin") < order("read") && order("read") < order("finish"), "{seen:?}");
        assert_eq!(order("finish") + 1, opened, "{seen:?}");
        assert_eq!(seen[opened].0, seen[order("finish")].0);
    }

    #[test]
    fn what_a_profile_loads_and_holds_is_not_taken_for_the_apps_growth() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let leak = |s: f64| 20.0 * MB + s * MB / 15.0;
        let (mut loaded, mut held, mut opened) = (0.0, 0.0, None);
        for second in 0..120 {
            let now = Millis(second * 1000);
            let live = |s: f64| leak(s) + loaded + held;
            for (_, action) in drive(&mut pipeline, second..second + 1, live, |_| 3) {
                let answer = match action {
                    Action::Open(draft) => {
                        opened.get_or_insert(draft);
                        continue;
                    }
                    Action::Profile(_, Order::Begin { interval_bytes, .. }) => {
                        loaded = 0.2 * MB;
                        held = 16.0 * f64::from(interval_bytes);
                        Answer::Began { at_limit: None }
                    }
                    Action::Profile(_, Order::Read) => {
                        Answer::Read { text: String::new(), pause_ms: 9.0, last: false }
                    }
                    Action::Profile(..) => {
                        held = 0.0;
                        Answer::Stopped
                    }
                    _ => continue,
                };
                pipeline.on_profile(MAIN, now, &answer);
            }
            // The mark is in no reading.
            if let Some((at, bytes)) = pipeline.last(MAIN, SeriesId::LiveHeap) {
                let over = bytes - leak(at.0 as f64 / 1000.0);
                assert!(over.abs() < 8.0 || (over - 0.2 * MB).abs() < 8.0, "{at:?}: {over}");
            }
        }
        let draft = opened.unwrap();
        let piece = draft.pieces.iter().find(|one| one.source.series == SeriesId::LiveHeap);
        let evidence = &piece.unwrap().evidence;
        assert!((evidence.own / MB - 0.2).abs() < 0.01, "{evidence:?}");
        assert!((evidence.slope_per_hour / (240.0 * MB) - 1.0).abs() < 0.01, "{evidence:?}");
    }

    /// An isolate with 64 MB of old space (Node 22) that has answered once, and major GCs of a loop that never returns.
    fn runaway(config: Config) -> (Pipeline, Vec<(u64, Action)>) {
        let mut pipeline = Pipeline::new(config, Millis(0)).of_node("v22.23.3");
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let answer = IsolateReading {
            heap_used_bytes: Some(6.0 * MB),
            heap_total_bytes: Some(9.0 * MB),
            heap_limit_bytes: Some(112.0 * MB),
            ..IsolateReading::default()
        };
        pipeline.on_isolate(MAIN, Millis(1_000), &answer);
        let mut seen = Vec::new();
        for (at, live) in
            [(1_100, 12.0), (1_200, 24.0), (1_300, 37.0), (1_400, 50.0), (1_500, 62.0)]
        {
            let reading = LiveHeapReading { bytes: live * MB, pause_ms: 40.0 };
            pipeline.on_live_heap(MAIN, Millis(at), reading, None);
            seen.extend(pipeline.near_end(Millis(at)).map(|action| (at, action)));
        }
        (pipeline, seen)
    }

    #[test]
    fn a_loop_that_never_returns_is_told_once_in_the_warm_up_too() {
        let (mut pipeline, seen) = runaway(fast());
        let [(1_400, Action::NearEnd(draft))] = &seen[..] else { panic!("{seen:?}") };
        let near = draft.near.as_ref().unwrap();
        assert_eq!(
            (near.kind, near.used_bytes, near.limit_bytes),
            (LimitKind::Heap, 50 << 20, 64 << 20)
        );
        assert_eq!((near.silent_ms, draft.isolate), (400, Some(MAIN)));
        assert_eq!(draft.pieces[0].source.series, SeriesId::LiveHeap);
        assert_eq!(draft.pieces[0].points.len(), 4);
        assert!(draft.limit.is_some_and(|(ms, kind, _)| ms < 200 && kind == LimitKind::Heap));
        assert_eq!(pipeline.phase(), Phase::WarmUp);
        // Settings that change do not make it a second end.
        pipeline.configure(Config { cooldown_ms: 0, ..fast() });
        assert_eq!(pipeline.near_end(Millis(1_600)), None);
    }

    #[test]
    fn a_major_gc_is_no_sign_of_life_of_the_event_loop() {
        let (pipeline, _) = runaway(fast());
        assert_eq!(pipeline.heartbeat(MAIN), Some(Millis(1_000)));
    }

    #[test]
    fn a_container_that_fills_is_told_while_the_heap_has_room() {
        let mut pipeline = Pipeline::new(fast(), Millis(0)).of_node("v22.23.3");
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let seen = drive(&mut pipeline, 0..9, |s| 20.0 * MB + s * 50.0 * MB, |_| 3);
        let told = |action: &Action| match action {
            Action::NearEnd(draft) => draft.near.clone(),
            _ => None,
        };
        let near: Vec<NearLimit> = seen.iter().filter_map(|(_, action)| told(action)).collect();
        let [near] = &near[..] else { panic!("{seen:?}") };
        assert_eq!((near.kind, near.limit_bytes), (LimitKind::Container, 512 << 20));
        assert!(near.used_bytes < 500 << 20 && near.left_ms.unwrap() <= 3_000, "{near:?}");
    }

    #[test]
    fn onset_is_told_when_it_comes_late() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let live = |s: f64| 20.0 * MB + (s - 300.0).max(0.0) * MB / 4.0;
        let seen = drive(&mut pipeline, 0..500, live, |_| 3);
        let draft = seen
            .iter()
            .find_map(|(_, action)| match action {
                Action::Open(draft) => Some(draft.clone()),
                _ => None,
            })
            .unwrap();
        let piece = &draft.pieces[0];
        assert!(!piece.from_start);
        assert!((piece.since.0 as f64 - 300_000.0).abs() < 15_000.0, "{:?}", piece.since);
    }

    #[test]
    fn native_growth_that_malloc_holds_free_is_called_fragmentation() {
        let mut pipeline = Pipeline::new(Config { native_rate: 60.0 * MB, ..fast() }, Millis(0));
        pipeline.attach(MAIN, Way::Natural, Millis(0));
        let mut found = None;
        for second in 0..200u64 {
            let now = Millis(second * 1000);
            let holes = second as f64 * MB / 4.0;
            pipeline.on_isolate(
                MAIN,
                now,
                &IsolateReading {
                    heap_used_bytes: Some(20.0 * MB),
                    heap_total_bytes: Some(32.0 * MB),
                    external_bytes: Some(2.0 * MB),
                    array_buffers_bytes: Some(MB),
                    ..IsolateReading::default()
                },
            );
            pipeline.on_process(
                now,
                &ProcessSample {
                    rss_anon_bytes: Some((60.0 * MB + holes) as u64),
                    malloc_used_bytes: Some((12.0 * MB) as u64 + second % 5),
                    malloc_free_bytes: Some((3.0 * MB + holes) as u64),
                    ..ProcessSample::default()
                },
            );
            let opened = pipeline.step(now).into_iter().find_map(|action| match action {
                Action::Open(draft) => Some(draft),
                _ => None,
            });
            found = found.or(opened);
        }
        let draft = found.unwrap();
        assert_eq!(draft.cause, Cause::Memory { series: SeriesId::Native });
        let verdict = draft.pieces[0].native.unwrap();
        assert_eq!(verdict.kind, crate::detect::NativeKind::Fragmentation);
        assert!((verdict.free.growth() - verdict.grown).abs() < MB, "{verdict:?}");
    }

    /// Reports, every two seconds, the listeners of one line that are spread over many emitters, counted anew
    /// after each GC, one in four seconds, beside a live heap; the seconds of findings and their causes.
    fn spread(count: impl Fn(f64) -> u64, live: impl Fn(f64) -> f64) -> Vec<(u64, Cause)> {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let mut seen = Vec::new();
        for second in (0..600u64).step_by(2) {
            let now = Millis(second * 1000);
            let counted = second / 4 * 4;
            let line = ListenerCount {
                key: 7,
                emitter: "Room".into(),
                event: "message".into(),
                count: count(counted as f64),
                site: Some(Site {
                    function: "open".into(),
                    file: "/app/rooms.js".into(),
                    line: 31,
                    column: 8,
                }),
                round: Some((second / 4) as u32),
            };
            pipeline.on_listeners(MAIN, now, &[line]);
            let bytes = live(second as f64);
            let heap = IsolateReading { heap_used_bytes: Some(bytes), ..IsolateReading::default() };
            pipeline.on_isolate(MAIN, now, &heap);
            for action in pipeline.step(now) {
                match action {
                    Action::ReadLiveHeap(id) => {
                        let reading = LiveHeapReading { bytes, pause_ms: 9.0 };
                        pipeline.on_live_heap(id, now, reading, Some(30.0));
                    }
                    Action::Open(draft) => seen.push((second, draft.cause)),
                    _ => {}
                }
            }
        }
        seen
    }

    #[test]
    fn listeners_spread_over_emitters_that_are_never_dropped_name_their_line() {
        let seen = spread(|s| 50 * s as u64, |_| 20.0 * MB);
        let (second, cause) = &seen[0];
        assert!(*second <= 80, "{second}");
        let Cause::Listeners(line) = cause else { panic!("{cause:?}") };
        assert!(line.spread && (line.per_minute - 3000.0).abs() < 150.0, "{line:?}");
        assert_eq!(line.key(), "Room spread /app/rooms.js:31");
    }

    #[test]
    fn memory_that_grows_beside_listeners_that_grow_is_named_after_them() {
        let seen = spread(|s| 50 * (s as u64).saturating_sub(8), |s| (20.0 + s / 10.0) * MB);
        assert!(matches!(&seen[0].1, Cause::Listeners(line) if line.spread), "{seen:?}");
    }

    #[test]
    fn spread_listeners_that_come_and_go_or_fill_a_cache_are_no_leak() {
        // Ten thousand a minute, all gone by the second GC but those in flight.
        let flat = |_| 20.0 * MB;
        assert_eq!(spread(|s| 180 + (s as u64 * 37) % 90, flat), []);
        // A cache of two thousand that is full after a minute.
        assert_eq!(spread(|s| (2000.0 * (1.0 - (-s / 15.0).exp())) as u64, flat), []);
        // A hundred thousand that sampling moves by three per cent.
        assert_eq!(spread(|s| 100_000 + (s as u64 * 7919) % 3000, flat), []);
    }

    #[test]
    fn native_memory_is_absent_while_the_loop_is_blocked() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        drive(&mut pipeline, 0..5, |_| 20.0 * MB, |_| 3);
        let (at, _) = pipeline.process[&SeriesId::Native].series.last().unwrap();
        for second in 5..40u64 {
            pipeline.on_process(
                Millis(second * 1000),
                &ProcessSample {
                    rss_anon_bytes: Some((second << 20) * 100),
                    ..ProcessSample::default()
                },
            );
            pipeline.step(Millis(second * 1000));
        }
        let (last, _) = pipeline.process[&SeriesId::Native].series.last().unwrap();
        assert!(last.0 <= at.0 + FRESH_MS + 1000, "{last:?}");
    }

    #[test]
    fn isolates_and_emitters_take_turns_where_a_step_cannot_judge_them_all() {
        let config = Config { interval_ms: 10_000, ..fast() };
        let mut pipeline = Pipeline::new(config, Millis(0));
        let isolates: Vec<IsolateId> = (0..2).map(IsolateId).collect();
        for id in &isolates {
            pipeline.attach(*id, Way::Pressure, Millis(0));
        }
        // All that is judged rises, and is due in each step: two thousand judgements.
        let mut last_emitter = Vec::new();
        for step in 0..100u64 {
            let now = Millis(step * 600_000);
            for id in &isolates {
                let listeners = (0..MAX_EMITTERS as u32).map(|key| ListenerCount {
                    key,
                    emitter: format!("Emitter{key}"),
                    event: "change".into(),
                    count: 20 + 200 * step,
                    site: None,
                    round: None,
                });
                pipeline.on_listeners(*id, now, &listeners.collect::<Vec<_>>());
                let bytes = (50.0 + 50.0 * step as f64) * MB;
                let reading = IsolateReading {
                    heap_used_bytes: Some(bytes),
                    array_buffers_bytes: Some(8.0 * bytes),
                    external_bytes: Some(16.0 * bytes),
                    after_gc: true,
                    ..IsolateReading::default()
                };
                pipeline.on_isolate(*id, now, &reading);
                let live = LiveHeapReading { bytes, pause_ms: 5.0 };
                pipeline.on_live_heap(*id, now, live, None);
            }
            pipeline.step(now);
            last_emitter.push(pipeline.turn.emitter);
        }
        last_emitter.dedup();
        assert!(last_emitter.len() > 20, "a step judges them all: {last_emitter:?}");
        for (id, isolate) in &pipeline.isolates {
            let grows = |tracked: &Tracked| {
                tracked.detector.as_ref().is_some_and(|detector| detector.suspicion().is_some())
            };
            for series in [SeriesId::LiveHeap, SeriesId::ArrayBuffers, SeriesId::External] {
                assert!(grows(&isolate.tracked[&series]), "{id:?} {series:?}");
            }
            let unseen = isolate.emitters.values().filter(|emitter| !grows(&emitter.tracked));
            assert_eq!(unseen.count(), 0, "{id:?}");
        }
    }

    #[test]
    fn a_line_is_found_by_its_key_and_by_no_other() {
        let site =
            Site { function: "handler".into(), file: "/app/app.js".into(), line: 12, column: 7 };
        let line = |spread: bool, site: Option<Site>| ListenerLine {
            emitter: "Room".into(),
            event: "close".into(),
            spread,
            count: 1,
            per_minute: 0.0,
            site,
        };
        let lines = [line(false, None), line(false, Some(site.clone())), line(true, Some(site))];
        for (i, one) in lines.iter().enumerate() {
            for (j, other) in lines.iter().enumerate() {
                assert_eq!(one.has_key(&other.key()), i == j, "{i} {j}");
            }
        }
        assert!(!lines[0].has_key("") && !lines[0].has_key("Room"));
    }

    #[test]
    fn the_series_of_an_isolate_fit_half_a_megabyte() {
        assert!(
            Pipeline::isolate_capacity_bytes() < 512 * 1024,
            "{}",
            Pipeline::isolate_capacity_bytes()
        );
    }

    /// Requests of three routes by second `s`: the first two take turns, the third is steady.
    fn turns(s: f64) -> [f64; 3] {
        let first: f64 =
            (0..s as u64).map(|second| if second / 14 % 2 == 0 { 12.0 } else { 2.0 }).sum();
        [first, 14.0 * s.floor() - first, 9.0 * s.floor()]
    }

    #[test]
    fn a_finding_learns_the_route_it_goes_with_and_says_so_once() {
        let mut pipeline = Pipeline::new(fast(), Millis(0));
        pipeline.attach(MAIN, Way::Pressure, Millis(0));
        let names = ["(unfinished)", "(other)", "GET /a", "GET /b", "GET /c"];
        let names = Arc::new(names.map(String::from).to_vec());
        let (mut opened, mut said) = (None, Vec::new());
        for second in 0..200 {
            let live = |s: f64| 20.0 * MB + 10_000.0 * turns(s)[0];
            for (_, action) in drive(&mut pipeline, second..second + 1, live, |_| 0) {
                match action {
                    Action::Open(draft) => {
                        said.extend(draft.routes.clone());
                        opened = Some(second);
                    }
                    Action::Routes { explanation, .. } => said.push(*explanation),
                    _ => {}
                }
            }
            let now = Millis(second * 1000);
            if pipeline.last(MAIN, SeriesId::LiveHeap).is_some_and(|(at, _)| at == now) {
                let [a, b, c] = turns(second as f64);
                let counts = RouteCounts {
                    names: Arc::clone(&names),
                    counts: vec![0.0, 0.0, a, b, c],
                    after_gc: true,
                };
                pipeline.on_routes(MAIN, now, &counts);
            }
        }
        assert!(opened.is_some());
        let named: Vec<&Explanation> = said.iter().filter(|of| !of.with.is_empty()).collect();
        assert_eq!(named.len(), 1, "{said:?}");
        assert_eq!(named[0].with[0].traffic.route, "GET /a");
        assert!((named[0].with[0].bytes_per_request - 10_000.0).abs() < 500.0, "{named:?}");
        assert!(pipeline.isolate_views()[0].traffic.as_ref().is_some_and(|of| of.routes == 3));
    }
}
