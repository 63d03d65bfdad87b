//! The native thread, one per process: it owns clock, probe, pipeline and collector by value, and runs one
//! select loop over ticks, readings, commands and sink reports. Others send to it or read what it publishes.
//! A JS thread that does not answer never stops it. It names no Node type: waking is a trait.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select, tick};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::analyst::{Analyst, Outcome, Program};
use crate::clock::Clock;
use crate::collector::{Collector, Outbox, Surroundings, Version};
use crate::config::{Bytes, Config, LogLevel};
use crate::evidence::minder::News;
use crate::evidence::{SinkReport, WallMillis};
use crate::exposition::{Scrape, Thread};
pub use crate::finding::Identity;
use crate::finding::{listener_json, settings_json, traffic_json};
use crate::flight::{self, Flight, IsolateTick};
use crate::hook::Hook;
use crate::last_words::LastWords;
use crate::mailbox::{Event, EventKind, JobWay, Mailbox, ProfileOrder, SnapshotJob, work};
use crate::metric::SeriesId;
use crate::page;
use crate::pipeline::{Action, IsolateView, Pipeline, SeriesView};
use crate::postmortem::Verdict;
use crate::previous;
use crate::probe::{self, HostIdentity, Probe};
use crate::profile::Answer;
use crate::readings::{Wait, Way};
use crate::recorder::What;
use crate::routes::RouteCounts;
use crate::sample::{
    IsolateId, IsolateReading, ListenerCount, LiveHeapReading, Millis, ProcessSample,
};
use crate::tally::Tally;
use crate::v8::Epilogue;

/// Readings under way from the JS threads. A tick makes three or four an isolate; what does not fit is
/// dropped and counted.
const MAX_READINGS: usize = 1024;

/// Commands under way.
const MAX_COMMANDS: usize = 256;

/// Commands under way from which on no snapshot is asked for: the rest of the queue is for isolates that
/// come and go, and an isolate whose going is lost would be counted for ever.
const MAX_QUESTIONS: usize = MAX_COMMANDS / 4;

/// Events kept for the first isolate while there is none.
const MAX_EARLY_EVENTS: usize = 16;

/// Paces of the slower readings, milliseconds. Both are stretched to an eighth of the shortest window only
/// from below, and by their cost from above.
const SLOWEST_PACE_MS: u64 = 60_000;
const LISTENER_PACE_MS: u64 = 2_000;

/// Counting timers may cost this share of the JS thread.
const TIMER_SHARE: f64 = 0.0005;

/// Readings lost in a row after which the way in use is given up for the next.
const LOST_BEFORE_FALLBACK: u64 = 3;

/// Share of the container's limit that V8's heap may have: the rest is for buffers, stacks, code and malloc.
const HEAP_SHARE_OF_CONTAINER: f64 = 0.75;

/// How long after start-up, or after a step that is seldom made, the pages of the code that only it needs are given back:
/// by then what follows it has run, and ticks have touched what they need.
const RELEASE_AFTER_MS: u64 = 5_000;

/// Version of the JSON of `status()`.
pub const STATUS_SCHEMA: u32 = 1;

/// Wakes a JS thread so that it takes its work: weakly, without payload, without waiting.
pub trait Wake: Send + Sync {
    /// Wakes.
    fn wake(&self);
}

/// Which ways of knowing the live heap an environment offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// External memory can be reported to V8: part of Node-API.
    pub external: bool,
    /// `MemoryPressureNotification` was found.
    pub pressure: bool,
    /// `gc()` could be obtained.
    pub force: bool,
    /// A PerformanceObserver can see major GCs.
    pub observe: bool,
}

/// What an environment brings when it comes under guard.
pub struct Attach {
    /// Settings.
    pub config: Config,
    /// Who it is.
    pub identity: Identity,
    /// Local time minus UTC, for file names.
    pub utc_offset_seconds: i32,
    /// Where work is left for it.
    pub mailbox: Arc<Mailbox>,
    /// How it is woken.
    pub wake: Arc<dyn Wake>,
    /// Ways to its live heap.
    pub ways: Ways,
    /// Its environment variables, for the hook and for analyses.
    pub variables: Vec<(OsString, OsString)>,
    /// What analyses snapshots, or why there is nothing that can.
    pub analyzer: Result<Program, String>,
}

enum Reading {
    Heap(IsolateReading, Vec<(&'static str, u64)>),
    Timers {
        count: f64,
        took_micros: f64,
    },
    Listeners(Vec<ListenerCount>),
    Routes(RouteCounts),
    /// With the end of a channel that its isolate waits at until this reading has been looked at.
    LiveHeap(LiveHeapReading, Option<Sender<Infallible>>),
    /// The same as JavaScript saw it; of use only where V8's own callback is not.
    ScriptLiveHeap(LiveHeapReading),
    LiveHeapFailed,
}

enum Command {
    Attach(IsolateId, Box<Attach>, Arc<LastWords>),
    Epilogue(IsolateId, Epilogue),
    Configure(Box<Config>),
    Snapshot { isolate: IsolateId, number: Option<u32>, reason: String },
    GcStage { isolate: IsolateId, number: u32 },
    Written { job: u32, pause_ms: f64, error: Option<String> },
    Profile { isolate: IsolateId, run: u32, answer: Answer },
    Page { isolate: IsolateId, number: u32, question: page::Question },
    Detach(IsolateId),
}

/// Isolates whose loop an inline snapshot stops, or is about to stop.
type Stopped = Arc<Mutex<BTreeSet<IsolateId>>>;

/// What is published for `status()`.
#[derive(Clone, Default)]
struct Published {
    at: Millis,
    state: &'static str,
    process: Vec<SeriesView>,
    sample: ProcessSample,
    isolates: Vec<(IsolateView, IsolateStatus)>,
    silenced: u64,
    settings: Value,
    evidence: Value,
    recorder: Value,
    hook: Value,
    previous: Vec<Value>,
    cost: Cost,
    totals: Totals,
}

/// What only a scrape shows. Counts are those of the process since the guard started, isolates that have gone
/// included.
#[derive(Clone, Debug, Default)]
struct Totals {
    /// What runs are filed under.
    app: String,
    tally: Tally,
    writing: bool,
    has_directory: bool,
    /// Runs found over, by verdict, in the order of `VERDICTS`.
    previous: [u64; VERDICTS.len()],
    stalls: u64,
    lost_events: u64,
    lost_records: u64,
    readings: (u64, f64),
    cpu_nanos: u64,
    gc_share: f64,
}

/// Ends of earlier runs that a scrape counts.
const VERDICTS: [&str; 4] = ["orderly", "failed", "near_limit", "cut_off"];

/// What isolates had counted that have gone: counters do not go back.
#[derive(Clone, Copy, Debug, Default)]
struct Gone {
    stalls: u64,
    lost_events: u64,
    readings: (u64, f64),
}

/// What the guard itself cost so far.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    ticks: u64,
    tick_micros: u64,
    longest_tick_micros: u64,
}

#[derive(Clone, Debug)]
struct IsolateStatus {
    tid: u32,
    why: String,
    stalls: u64,
    lost_events: u64,
    handles: Vec<(&'static str, u64)>,
}

struct Shared {
    clock: Clock,
    identity: Identity,
    readings: Sender<(IsolateId, Millis, Reading)>,
    commands: Sender<Command>,
    lost_readings: AtomicU64,
    published: Mutex<Arc<Published>>,
    failure: Mutex<Option<String>>,
    /// Where each isolate is told of it: here and not with the native thread, which is no more then.
    doors: Mutex<BTreeMap<IsolateId, Door>>,
    stopped: Stopped,
}

struct Door {
    mailbox: Arc<Mailbox>,
    wake: Arc<dyn Wake>,
}

impl Door {
    fn tell_failure(&self) {
        self.mailbox.request(work::FAILED);
        self.wake.wake();
    }
}

impl Shared {
    fn new(
        identity: Identity,
        config: &Config,
        readings: Sender<(IsolateId, Millis, Reading)>,
        commands: Sender<Command>,
    ) -> Shared {
        Shared {
            clock: Clock::start(),
            identity,
            readings,
            commands,
            lost_readings: AtomicU64::new(0),
            published: Mutex::new(Arc::new(Published {
                state: "starting",
                settings: settings_json(config),
                ..Published::default()
            })),
            failure: Mutex::new(None),
            doors: Mutex::default(),
            stopped: Stopped::default(),
        }
    }

    /// Runs the native thread, or what it has to do last. A panic of ours ends it, and not the app.
    fn run(&self, work: impl FnOnce() + UnwindSafe) {
        if let Err(panic) = std::panic::catch_unwind(work) {
            self.fail(panic_words(&*panic));
        }
    }

    /// The native thread is no more: whoever is under guard is told, and [`attach`] tells whoever comes.
    fn fail(&self, why: String) {
        *self.failure.lock() = Some(why);
        // No snapshot stops a loop any more, and readiness must not wait for the end of one.
        self.stopped.lock().clear();
        for door in self.doors.lock().values() {
            door.tell_failure();
        }
    }
}

/// One isolate's hold on the running guard. Every call returns at once, but [`Handle::live_heap`] near the end.
#[derive(Clone)]
pub struct Handle {
    isolate: IsolateId,
    shared: Arc<Shared>,
    last_words: Arc<LastWords>,
}

/// The guard of this process, and how many isolates are under it.
static RUNNING: Mutex<Option<(Arc<Shared>, usize)>> = Mutex::new(None);
static NEXT_ISOLATE: AtomicU32 = AtomicU32::new(0);

/// Puts an isolate under guard, and starts the native thread with the first one.
pub fn attach(attach: Attach) -> Handle {
    let isolate = IsolateId(NEXT_ISOLATE.fetch_add(1, Ordering::Relaxed));
    let mut running = RUNNING.lock();
    let (shared, count) = running.get_or_insert_with(|| {
        let hook = Hook::new(attach.variables.clone(), attach.identity.cwd.clone().into());
        let analyst = Analyst::new(attach.analyzer.clone(), &attach.variables);
        let offset = attach.utc_offset_seconds;
        (start(attach.config.clone(), attach.identity.clone(), offset, hook, analyst), 0)
    });
    *count += 1;
    let last_words = Arc::new(LastWords::default());
    let handle =
        Handle { isolate, shared: Arc::clone(shared), last_words: Arc::clone(&last_words) };
    let door = Door { mailbox: Arc::clone(&attach.mailbox), wake: Arc::clone(&attach.wake) };
    let mut doors = shared.doors.lock();
    // With the doors held: a thread that fails just now finds this one, or is seen to have failed.
    if shared.failure.lock().is_some() {
        door.tell_failure();
    }
    doors.insert(isolate, door);
    drop(doors);
    // Under the lock, as in `detach`: the thread ends when it has no isolate left, and must not read that
    // the last one has gone before it reads that this one has come.
    handle.command(Command::Attach(isolate, Box::new(attach), last_words));
    drop(running);
    handle
}

fn start(
    config: Config,
    identity: Identity,
    utc_offset_seconds: i32,
    hook: Hook,
    analyst: Analyst,
) -> Arc<Shared> {
    crate::evidence::name::set_local_offset_seconds(utc_offset_seconds);
    let (readings, readings_in) = bounded(MAX_READINGS);
    let (commands, commands_in) = bounded(MAX_COMMANDS);
    let shared = Arc::new(Shared::new(identity, &config, readings, commands));
    let thread_shared = Arc::clone(&shared);
    let started = std::thread::Builder::new().name("leakguard".into()).spawn(move || {
        let _own = probe::own::thread();
        let shared = Arc::clone(&thread_shared);
        let mut sampler = None;
        shared.run(AssertUnwindSafe(|| {
            let sampler = sampler.insert(Sampler::new(thread_shared, config, hook, analyst));
            sampler.run(&readings_in, &commands_in);
        }));
        // The app goes on without us: the next start must not take this for its end.
        shared.run(AssertUnwindSafe(|| {
            if let Some(sampler) = &sampler {
                sampler.isolates.flight.lock().stop(shared.clock.now());
            }
        }));
    });
    if let Err(error) = started {
        shared.fail(format!("it could not be started: {error}"));
    }
    shared
}

fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic")
        .to_owned()
}

impl Handle {
    /// Which isolate.
    pub fn isolate(&self) -> IsolateId {
        self.isolate
    }

    /// The heap was read.
    pub fn reading(&self, reading: IsolateReading, handles: Vec<(&'static str, u64)>) {
        self.send(Reading::Heap(reading, handles));
    }

    /// Timers were counted.
    pub fn timers(&self, count: f64, took_micros: f64) {
        self.send(Reading::Timers { count, took_micros });
    }

    /// The listener table.
    pub fn listeners(&self, counts: Vec<ListenerCount>) {
        self.send(Reading::Listeners(counts));
    }

    /// Requests by route.
    pub fn routes(&self, counts: RouteCounts) {
        self.send(Reading::Routes(counts));
    }

    /// A major GC has ended. Called inside the GC: it only queues, unless V8 may give up right after this one.
    pub fn live_heap(&self, reading: LiveHeapReading) {
        // V8 collects before it writes a snapshot in a forked child, where nobody listens.
        if std::process::id() != self.shared.identity.pid {
            return;
        }
        let Some(patience) = self.last_words.patience(reading.bytes) else {
            return self.send(Reading::LiveHeap(reading, None));
        };
        let (looked_at, look) = bounded(0);
        self.send(Reading::LiveHeap(reading, Some(looked_at)));
        // Nothing comes: the other end is dropped, with the native thread too if that is no more.
        let _ = look.recv_timeout(patience);
    }

    /// A major GC has ended, as JavaScript forced or observed it.
    pub fn script_live_heap(&self, reading: LiveHeapReading) {
        self.send(Reading::ScriptLiveHeap(reading));
    }

    /// A reading that was asked for cannot be made.
    pub fn live_heap_failed(&self) {
        self.send(Reading::LiveHeapFailed);
    }

    /// Whether the GC callbacks are in use.
    pub fn epilogue(&self, epilogue: Epilogue) {
        self.command(Command::Epilogue(self.isolate, epilogue));
    }

    /// Applies settings.
    pub fn configure(&self, config: Config) {
        self.command(Command::Configure(Box::new(config)));
    }

    /// Asks for a snapshot on demand; false if the guard cannot take the question.
    pub fn request_snapshot(&self, number: u32, reason: String) -> bool {
        // The signal's snapshots have the number 0 and no one who waits.
        let number = (number != 0).then_some(number);
        if self.shared.commands.len() >= MAX_QUESTIONS {
            return false;
        }
        self.command(Command::Snapshot { isolate: self.isolate, number, reason })
    }

    /// Asks for a forked child that only collects garbage; false if the guard cannot take the question.
    pub fn request_gc_stage(&self, number: u32) -> bool {
        self.command(Command::GcStage { isolate: self.isolate, number })
    }

    /// The JS thread has done a snapshot job.
    pub fn snapshot_written(&self, job: u32, pause_ms: f64, error: Option<String>) {
        self.shared.stopped.lock().remove(&self.isolate);
        self.command(Command::Written { job, pause_ms, error });
    }

    /// The JS thread has obeyed an order of the allocation profile, or could not.
    pub fn profile(&self, run: u32, answer: Answer) {
        self.command(Command::Profile { isolate: self.isolate, run, answer });
    }

    /// Whether no loop of this process is stopped, or about to be, for an inline snapshot.
    pub fn ready(&self) -> bool {
        self.shared.stopped.lock().is_empty()
    }

    /// Asks for the model of the status page; the answer is left in the mailbox with this number. False if the guard
    /// cannot take the question.
    pub fn request_page(&self, number: u32, question: page::Question) -> bool {
        self.shared.commands.len() < MAX_QUESTIONS
            && self.command(Command::Page { isolate: self.isolate, number, question })
    }

    /// Takes the isolate from under guard. The native thread ends with the last one.
    pub fn detach(&self) {
        let mut running = RUNNING.lock();
        self.shared.stopped.lock().remove(&self.isolate);
        self.shared.doors.lock().remove(&self.isolate);
        self.command(Command::Detach(self.isolate));
        if let Some((shared, count)) = running.as_mut()
            && Arc::ptr_eq(shared, &self.shared)
        {
            *count -= 1;
            if *count == 0 {
                *running = None;
            }
        }
    }

    fn send(&self, reading: Reading) {
        let now = self.shared.clock.now();
        if self.shared.readings.try_send((self.isolate, now, reading)).is_err() {
            self.shared.lost_readings.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn command(&self, command: Command) -> bool {
        match self.shared.commands.try_send(command) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.lost_readings.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Why the native thread is no more; `None` while it runs.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().clone()
    }

    /// Everything, as JSON.
    pub fn status(&self) -> String {
        let published = Arc::clone(&self.shared.published.lock());
        let failure = self.failure();
        let lost = self.shared.lost_readings.load(Ordering::Relaxed);
        status_json(&self.shared, &published, failure, self.isolate, lost).to_string()
    }

    /// The Prometheus text of what is published: less than 0.1 ms, however many emitters there are.
    pub fn metrics(&self) -> String {
        self.scrape(|scrape| scrape.text())
    }

    /// The same as numbers, for each family of [`crate::exposition::families`].
    pub fn metric_points(&self) -> String {
        self.scrape(|scrape| scrape.json().to_string())
    }

    fn scrape<R>(&self, show: impl FnOnce(&Scrape<'_>) -> R) -> R {
        let shared = &self.shared;
        let published = Arc::clone(&shared.published.lock());
        let totals = &published.totals;
        let sample = &published.sample;
        let headroom = match (sample.cgroup_limit_bytes, sample.cgroup_used_bytes) {
            (Some(limit), Some(used)) => Some(limit.saturating_sub(used)),
            _ => None,
        };
        let previous: [_; VERDICTS.len()] =
            std::array::from_fn(|i| (VERDICTS[i], totals.previous[i]));
        let lost_readings = shared.lost_readings.load(Ordering::Relaxed);
        show(&Scrape {
            up: shared.failure.lock().is_none() && published.state != "stopped",
            app: if totals.app.is_empty() { &shared.identity.app_name } else { &totals.app },
            app_version: &shared.identity.app_version,
            version: &shared.identity.leakguard,
            node: &shared.identity.node,
            now_ms: shared.clock.now().0,
            sampled_ms: published.at.0,
            process: &published.process,
            threads: published
                .isolates
                .iter()
                .map(|(view, status)| Thread {
                    main: status.tid == 0,
                    series: &view.series,
                    handles: &status.handles,
                    listeners: &view.totals,
                    heap_limit: view.heap_limit,
                })
                .collect(),
            cgroup_limit: sample.cgroup_limit_bytes,
            cgroup_headroom: sample.cgroup_headroom_bytes.or(headroom),
            tally: totals.tally,
            snapshot_in_progress: totals.writing,
            directory_usable: totals.has_directory,
            previous_runs: &previous,
            silenced: published.silenced,
            losses: [
                ("readings", lost_readings),
                ("events", totals.lost_events),
                ("records", totals.lost_records),
            ],
            stalls: totals.stalls,
            cpu_nanos: totals.cpu_nanos,
            ticks: published.cost.ticks,
            readings: totals.readings,
            gc_share: totals.gc_share,
        })
    }
}

/// One isolate as the sampler knows it.
struct Guarded {
    mailbox: Arc<Mailbox>,
    wake: Arc<dyn Wake>,
    ways: Ways,
    epilogue: Epilogue,
    tid: u32,
    handles: Vec<(&'static str, u64)>,
    next_timers: Millis,
    next_listeners: Millis,
    next_routes: Millis,
    timer_pace_ms: u64,
    stalled: bool,
    stalls: u64,
    lost_in_a_row: u64,
    lost: u64,
    /// A reading under way: when it was asked for, and the CPU the process had used then.
    asked: Option<(Millis, Option<u64>)>,
    checked_limits: bool,
    last_words: Arc<LastWords>,
}

impl Guarded {
    /// The way its live heap is read.
    fn way(&self) -> Way {
        best_way(self.ways, &self.epilogue)
    }

    /// The best way that is left without one that does not work here.
    fn without(&mut self, way: Way) -> Way {
        match way {
            Way::External => self.ways.external = false,
            Way::Pressure => self.ways.pressure = false,
            Way::Forced => self.ways.force = false,
            Way::Natural => {}
        }
        self.way()
    }
}

/// What is on its way to a JS thread.
enum Post {
    /// To this isolate, or to the first one.
    Event(Option<IsolateId>, Event),
    Job(IsolateId, SnapshotJob),
}

/// The isolates, as the place where events and jobs go.
struct Isolates {
    guarded: BTreeMap<IsolateId, Guarded>,
    log: LogLevel,
    unsaid: AtomicU64,
    /// Events from before the first isolate: the directory is opened when none has come yet.
    early: Mutex<Vec<Event>>,
    /// What waits until `status()` holds what it tells: whoever is told of a finding looks there.
    waiting: Mutex<Vec<Post>>,
    clock: Clock,
    flight: Mutex<Flight>,
    hook: Mutex<Hook>,
    stopped: Stopped,
}

impl Isolates {
    fn wall(&self) -> WallMillis {
        WallMillis(self.clock.wall_ms(self.clock.now()))
    }

    /// Whether something waits to go out.
    fn has_waiting(&self) -> bool {
        !self.waiting.lock().is_empty()
    }

    /// What waited goes out, in its order: no snapshot is begun before the finding that it belongs to is told.
    fn send(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for post in waiting {
            match post {
                Post::Event(isolate, event) => self.post(isolate, event),
                Post::Job(isolate, job) => {
                    if let Some(guarded) = self.guarded.get(&isolate) {
                        guarded.mailbox.put_job(job);
                        guarded.wake.wake();
                    }
                }
            }
        }
    }

    fn post(&self, isolate: Option<IsolateId>, event: Event) {
        let of = isolate.and_then(|id| self.guarded.get(&id));
        // An answer is numbered by the isolate that asked: to another it would answer something else.
        if of.is_none() && event.kind == EventKind::Answer {
            return;
        }
        if let Some(guarded) = of.or_else(|| self.guarded.values().next()) {
            guarded.mailbox.post(event);
            guarded.wake.wake();
        } else {
            let mut early = self.early.lock();
            if early.len() < MAX_EARLY_EVENTS {
                early.push(event);
            }
        }
    }
}

impl Outbox for Isolates {
    fn event(&self, isolate: Option<IsolateId>, kind: EventKind, payload: &Value) {
        let event = Event { kind, payload: payload.to_string() };
        self.waiting.lock().push(Post::Event(isolate, event));
    }

    fn say(&self, level: LogLevel, line: &str) {
        if level <= self.log && !write_stderr(line) {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn job(&self, isolate: IsolateId, job: SnapshotJob) -> bool {
        let is_here = self.guarded.contains_key(&isolate);
        if is_here {
            // Before the JS thread can know of it: what asks for readiness elsewhere is told first.
            if matches!(job.way, JobWay::Inline { .. }) {
                self.stopped.lock().insert(isolate);
            }
            self.waiting.lock().push(Post::Job(isolate, job));
        }
        is_here
    }

    fn order(&self, isolate: IsolateId, order: ProfileOrder) -> bool {
        // Not woken for it: the tick wakes at its end, when the finding's file is written.
        self.guarded.get(&isolate).map(|guarded| guarded.mailbox.put_order(order)).is_some()
    }

    fn record(&self, tid: u32, what: What) {
        self.flight.lock().event(self.clock.now(), tid, what);
    }

    fn new_file(&self, file: &str, kind: &str, finding: Option<&str>) {
        self.hook.lock().offer(self.wall(), file, kind, finding);
    }

    fn withdraw(&self, isolate: IsolateId) -> bool {
        let of_isolate = |post: &Post| matches!(post, Post::Job(id, _) if *id == isolate);
        let withdrawn = self.waiting.lock().extract_if(.., |post| of_isolate(post)).count() > 0
            || self
                .guarded
                .get(&isolate)
                .is_none_or(|guarded| guarded.mailbox.take_job().is_some());
        if withdrawn {
            self.stopped.lock().remove(&isolate);
        }
        withdrawn
    }
}

/// One line on stderr, whole or not at all: a reader that does not read must not stop this thread.
fn write_stderr(line: &str) -> bool {
    use std::io::Write;
    let mut text = String::with_capacity(line.len() + 12);
    text.push_str("leakguard: ");
    // Names of events and classes come from the app: no control character reaches the terminal.
    text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
    text.push('\n');
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, poll};
        let stderr = std::io::stderr();
        let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut polled, Some(&now)) {
            Ok(1) if polled[0].revents().contains(PollFlags::OUT) => {}
            _ => return false,
        }
    }
    std::io::stderr().write_all(text.as_bytes()).is_ok()
}

struct Sampler {
    shared: Arc<Shared>,
    config: Config,
    probe: Box<dyn Probe>,
    host: HostIdentity,
    /// What is known of runs that are over, for `status()`.
    previous: Vec<Value>,
    /// The flight recorder is open and the past was looked at; both wait for the first sample.
    started: bool,
    pipeline: Pipeline,
    collector: Collector,
    isolates: Isolates,
    settings: Value,
    evidence: (Option<Version>, Value),
    /// CPU of the process per millisecond while no reading is under way, and the last mark.
    cpu_rate: Option<f64>,
    cpu_mark: Option<(Millis, u64)>,
    cost: Cost,
    /// When pages of code that ran once are given back.
    release_at: Option<Millis>,
    verdicts: [u64; VERDICTS.len()],
    gone: Gone,
}

impl Sampler {
    fn new(shared: Arc<Shared>, config: Config, hook: Hook, analyst: Analyst) -> Sampler {
        let clock = shared.clock;
        let isolates = Isolates {
            guarded: BTreeMap::new(),
            log: config.log,
            unsaid: AtomicU64::new(0),
            early: Mutex::new(Vec::new()),
            waiting: Mutex::new(Vec::new()),
            clock,
            flight: Mutex::new(Flight::off("there is no directory")),
            hook: Mutex::new(hook),
            stopped: Arc::clone(&shared.stopped),
        };
        let identity = shared.identity.clone();
        let collector = Collector::open(clock, identity, config.clone(), analyst, &isolates);
        isolates.hook.lock().configure(config.hook.as_deref(), collector.store().cloned());
        Sampler {
            pipeline: Pipeline::new(config.clone(), clock.now()).of_node(&shared.identity.node),
            settings: settings_json(&config),
            probe: probe::open(),
            host: HostIdentity::default(),
            previous: Vec::new(),
            started: false,
            collector,
            isolates,
            config,
            shared,
            evidence: (None, Value::Null),
            cpu_rate: None,
            cpu_mark: None,
            cost: Cost::default(),
            release_at: None,
            verdicts: [0; VERDICTS.len()],
            gone: Gone::default(),
        }
    }

    fn run(
        &mut self,
        readings: &Receiver<(IsolateId, Millis, Reading)>,
        commands: &Receiver<Command>,
    ) {
        let mut ticker = tick(Duration::from_millis(self.config.interval_ms));
        loop {
            let reports = self.collector.reports().clone();
            let news = self.collector.news().clone();
            let outcomes = self.collector.outcomes().clone();
            select! {
                // Attach, detach, settings, snapshots. The last isolate to go ends the thread.
                recv(commands) -> command => match command {
                    Ok(command) => {
                        if matches!(command, Command::Configure(_)) {
                            self.handle(|sampler| sampler.command(command));
                            ticker = tick(Duration::from_millis(self.config.interval_ms));
                        } else if self.handle(|sampler| sampler.command(command))
                            && self.isolates.guarded.is_empty()
                        {
                            self.finish();
                            return;
                        }
                    }
                    Err(_) => return,
                },
                // What the JS threads read.
                recv(readings) -> reading => {
                    if let Ok((id, at, reading)) = reading {
                        self.handle(|sampler| sampler.reading(id, at, reading));
                    }
                },
                // A snapshot has come to its end on disk.
                recv(reports) -> report => {
                    if let Ok(report) = report {
                        self.handle(|sampler| sampler.report(report));
                    }
                },
                // A forked snapshot needs the JS thread, or has come to its end.
                recv(news) -> news => {
                    if let Ok(news) = news {
                        self.handle(|sampler| sampler.news(news));
                    }
                },
                // The analysis of a snapshot has ended.
                recv(outcomes) -> outcome => {
                    if let Ok(outcome) = outcome {
                        self.handle(|sampler| sampler.analysed(outcome));
                    }
                },
                // The clock.
                recv(ticker) -> _ => self.handle(Self::tick),
            }
        }
    }

    /// Does one thing; what that posts to the JS threads goes out when `status()` holds it.
    fn handle<T>(&mut self, one: impl FnOnce(&mut Sampler) -> T) -> T {
        let result = one(self);
        if self.isolates.has_waiting() {
            self.publish();
        }
        self.isolates.send();
        result
    }

    /// Returns true if an isolate has gone.
    fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Attach(id, attach, last_words) => self.attach(id, *attach, last_words),
            Command::Epilogue(id, epilogue) => {
                if let Some(guarded) = self.isolates.guarded.get_mut(&id) {
                    self.pipeline.set_sees_majors(id, epilogue == Epilogue::On);
                    guarded.epilogue = epilogue;
                    let way = guarded.way();
                    self.pipeline.set_way(id, way);
                    self.publish();
                }
            }
            Command::Configure(config) => {
                self.config = *config;
                self.settings = settings_json(&self.config);
                self.isolates.log = self.config.log;
                self.pipeline.configure(self.config.clone());
                self.collector.configure(self.config.clone(), &self.isolates);
                let store = self.collector.store().cloned();
                self.isolates.hook.lock().configure(self.config.hook.as_deref(), store);
                self.evidence.0 = None;
                self.publish();
            }
            Command::Snapshot { isolate, number, reason } => {
                let around = self.surroundings(Some(isolate));
                let now = self.now();
                self.collector.on_demand(
                    now,
                    number,
                    reason,
                    Some(isolate),
                    &around,
                    &self.isolates,
                );
            }
            Command::GcStage { isolate, number } => {
                self.collector.gc_stage(number, isolate, &self.isolates);
            }
            Command::Written { job, pause_ms, error } => {
                self.collector.written(job, pause_ms, error, &self.isolates);
            }
            Command::Profile { isolate, run, answer } => self.profiled(isolate, run, answer),
            Command::Page { isolate, number, question } => {
                let json = self.page(isolate, question).to_string();
                if let Some(guarded) = self.isolates.guarded.get(&isolate) {
                    guarded.mailbox.put_page(number, json);
                    guarded.wake.wake();
                }
            }
            Command::Detach(id) => {
                self.count_gone(id);
                self.isolates.guarded.remove(&id);
                // It may have gone between the job and its beginning.
                self.isolates.stopped.lock().remove(&id);
                self.pipeline.detach(id);
                self.collector.isolate_gone(id, &self.isolates);
                return true;
            }
        }
        false
    }

    /// Keeps what an isolate has counted before it goes.
    fn count_gone(&mut self, id: IsolateId) {
        let Some(guarded) = self.isolates.guarded.get(&id) else { return };
        let (made, spent_ms) = self.pipeline.readings_of(id);
        let gone = &mut self.gone;
        gone.stalls += guarded.stalls;
        gone.lost_events += guarded.mailbox.lost();
        gone.readings = (gone.readings.0 + made, gone.readings.1 + spent_ms);
    }

    /// What only a scrape shows.
    fn totals(&self) -> Totals {
        let mut totals = Totals {
            app: flight::app_name(&self.shared.identity, &self.config).to_owned(),
            tally: self.collector.tally(),
            writing: self.collector.is_writing(),
            has_directory: self.collector.store().is_some(),
            previous: self.verdicts,
            stalls: self.gone.stalls,
            lost_events: self.gone.lost_events,
            lost_records: self.isolates.flight.lock().lost(),
            readings: self.gone.readings,
            cpu_nanos: probe::own::cpu_nanos(),
            gc_share: self.config.gc_share,
        };
        for (id, guarded) in &self.isolates.guarded {
            let (made, spent_ms) = self.pipeline.readings_of(*id);
            totals.stalls += guarded.stalls;
            totals.lost_events += guarded.mailbox.lost();
            totals.readings = (totals.readings.0 + made, totals.readings.1 + spent_ms);
        }
        totals
    }

    fn attach(&mut self, id: IsolateId, attach: Attach, last_words: Arc<LastWords>) {
        let now = self.now();
        let way = best_way(attach.ways, &Epilogue::Off("not yet known"));
        self.pipeline.attach(id, way, now);
        for event in self.isolates.early.get_mut().drain(..) {
            attach.mailbox.post(event);
        }
        attach.wake.wake();
        self.isolates.guarded.insert(
            id,
            Guarded {
                mailbox: attach.mailbox,
                wake: attach.wake,
                ways: attach.ways,
                epilogue: Epilogue::Off("not yet known"),
                tid: attach.identity.tid,
                handles: Vec::new(),
                next_timers: now,
                next_listeners: now,
                next_routes: now,
                timer_pace_ms: 0,
                stalled: false,
                stalls: 0,
                lost_in_a_row: 0,
                lost: 0,
                asked: None,
                checked_limits: false,
                last_words,
            },
        );
        if self.isolates.guarded.len() == 1 && self.cost.ticks == 0 {
            self.tick();
            self.open_flight();
            self.look_back();
            self.started = true;
            self.release_later();
            self.publish();
        }
    }

    /// Opens the flight recorder. After the first tick, so that `status()` does not wait for the disk.
    fn open_flight(&mut self) {
        self.host = probe::host_identity();
        let Some(store) = self.collector.store() else { return };
        let process = self.pipeline.last_process();
        let (clock, identity) = (self.shared.clock, &self.shared.identity);
        let flight = Flight::open(store, clock, identity, &self.config, self.host.clone(), process);
        *self.isolates.flight.lock() = flight;
    }

    /// Says what is known of the runs that are over. After the first sample: reading them takes a moment.
    fn look_back(&mut self) {
        let Some(store) = self.collector.store().cloned() else { return };
        let wall = self.isolates.wall();
        self.isolates.hook.lock().adopt(wall);
        let identity = &self.shared.identity;
        let app = flight::app_name(identity, &self.config);
        let past =
            previous::look_back(&store, wall, app, &identity.app_version, &self.host, &self.config);
        let past = match past {
            Ok(past) => past,
            Err(why) => {
                let line = format!("the runs before this one could not be looked at: {why}");
                self.isolates.say(LogLevel::Info, &line);
                return;
            }
        };
        for seen in &past.seen {
            let level = match seen.summary.verdict() {
                Verdict::NearLimit => LogLevel::Warn,
                Verdict::CutOff | Verdict::Failed(_) => LogLevel::Info,
                Verdict::Orderly => LogLevel::Debug,
            };
            let payload = seen.to_json();
            self.isolates.say(level, &seen.summary.sentence());
            if seen.summary.verdict() != Verdict::Orderly {
                self.isolates.event(None, EventKind::Postmortem, &payload);
            }
            let verdict = seen.summary.verdict().as_str();
            if let Some(i) = VERDICTS.iter().position(|known| *known == verdict) {
                self.verdicts[i] += 1;
            }
            self.previous.push(payload);
        }
        if let Some(across) = past.across {
            let isolate = self.pipeline.first_isolate();
            let around = self.surroundings(isolate);
            let now = self.now();
            self.collector.open_across(now, across, isolate, &around, &self.isolates);
        }
    }

    /// Tells the flight recorder what this tick saw, and the hook that time has passed.
    fn record(&mut self, now: Millis, sample: &ProcessSample) {
        let answers_within = (3 * self.config.interval_ms).max(3_000);
        let pipeline = &self.pipeline;
        let ticks = self.isolates.guarded.iter().map(|(id, guarded)| {
            let silent = pipeline.heartbeat(*id).map(|heartbeat| now.0.saturating_sub(heartbeat.0));
            IsolateTick {
                id: *id,
                tid: guarded.tid,
                stalled_ms: silent.filter(|silent| *silent > answers_within),
            }
        });
        self.isolates.flight.lock().tick(now, sample, pipeline, ticks);
        let hook = self.isolates.hook.lock().poll(self.isolates.wall());
        if let Err(message) = hook {
            let error = json!({ "code": "LEAKGUARD_HOOK", "message": message });
            self.isolates.event(None, EventKind::Error, &error);
        }
    }

    fn reading(&mut self, id: IsolateId, at: Millis, reading: Reading) {
        match reading {
            Reading::Heap(reading, handles) => {
                self.pipeline.on_isolate(id, at, &reading);
                if let Some(guarded) = self.isolates.guarded.get_mut(&id) {
                    guarded.handles = handles;
                    guarded.stalled = false;
                }
                self.check_limits(id, &reading);
            }
            Reading::Timers { count, took_micros } => {
                let reading = IsolateReading { timers: Some(count), ..IsolateReading::default() };
                self.pipeline.on_isolate(id, at, &reading);
                if let Some(guarded) = self.isolates.guarded.get_mut(&id) {
                    guarded.timer_pace_ms = (took_micros / 1000.0 / TIMER_SHARE) as u64;
                }
            }
            Reading::Listeners(counts) => self.pipeline.on_listeners(id, at, &counts),
            Reading::Routes(counts) => self.pipeline.on_routes(id, at, &counts),
            Reading::ScriptLiveHeap(reading) => {
                let seen = self
                    .isolates
                    .guarded
                    .get(&id)
                    .is_some_and(|guarded| guarded.epilogue == Epilogue::On);
                if !seen {
                    self.reading(id, at, Reading::LiveHeap(reading, None));
                }
            }
            Reading::LiveHeap(reading, looked_at) => {
                let cost_ms = self.reading_cost(id, at);
                self.pipeline.on_live_heap(id, at, reading, cost_ms);
                let tid = self.isolates.guarded.get(&id).map_or(0, |guarded| guarded.tid);
                let what = What::LiveHeap {
                    live_bytes: reading.bytes,
                    array_buffers_bytes: None,
                    external_bytes: None,
                };
                self.isolates.flight.lock().event(at, tid, what);
                self.isolates.say(
                    LogLevel::Debug,
                    &format!(
                        "isolate {}: live heap {}, last stop {:.0} ms",
                        id.0,
                        Bytes(reading.bytes as u64),
                        reading.pause_ms
                    ),
                );
                self.look_for_the_end();
                self.expect_last_words();
                drop(looked_at);
                if let Some(guarded) = self.isolates.guarded.get_mut(&id) {
                    guarded.lost_in_a_row = 0;
                    // Buffers are judged by what is left after a GC too.
                    guarded.mailbox.request(work::HEAP_AFTER_GC);
                    guarded.wake.wake();
                }
            }
            Reading::LiveHeapFailed => {
                self.pipeline.live_heap_unavailable(id);
                if let Some(guarded) = self.isolates.guarded.get_mut(&id) {
                    guarded.asked = None;
                    let way = guarded.without(guarded.way());
                    self.pipeline.set_way(id, way);
                }
            }
        }
    }

    /// Says from which live heap on isolates wait inside their major GCs.
    fn expect_last_words(&self) {
        for (id, guarded) in &self.isolates.guarded {
            let from_bytes = self.pipeline.last_words_from(*id);
            guarded.last_words.expect(from_bytes, self.config.max_gc_pause_ms);
        }
    }

    /// Looks, after a major GC, whether it is the last but few. It does not wait for the tick, which may come too late.
    fn look_for_the_end(&mut self) {
        let now = self.now();
        if let Some(action) = self.pipeline.near_end(now) {
            let sample = self.probe.read(probe::own::counts());
            self.pipeline.on_process(now, &sample);
            self.act(now, action);
        }
        self.collector.look_at_limit(now, &self.isolates);
    }

    /// CPU that the reading under way took beyond what the process uses anyway, milliseconds.
    fn reading_cost(&mut self, id: IsolateId, at: Millis) -> Option<f64> {
        let (asked, before) = self.isolates.guarded.get_mut(&id)?.asked.take()?;
        let used = probe::other_threads_cpu_micros(&[])?.saturating_sub(before?) as f64 / 1000.0;
        self.cpu_mark = None;
        Some(used - self.cpu_rate? * at.0.saturating_sub(asked.0) as f64)
    }

    fn profiled(&mut self, id: IsolateId, run: u32, answer: Answer) {
        let now = self.now();
        self.pipeline.on_profile(id, now, &answer);
        let inconclusive = self.collector.profile_answer(now, id, run, answer, &self.isolates);
        if let Some(plan) = self.pipeline.profile(id).filter(|_| inconclusive) {
            plan.once_more();
        }
        self.evidence.0 = None;
        self.publish();
    }

    fn report(&mut self, report: SinkReport) {
        let sample = self.probe.read(probe::own::counts());
        let now = self.now();
        self.collector.on_report(now, report, &sample, &self.isolates);
        self.pipeline.disturbed(now);
        self.release_later();
        self.publish();
    }

    fn analysed(&mut self, outcome: Outcome) {
        let sample = self.probe.read(probe::own::counts());
        self.collector.on_analysis(outcome, &sample, &self.isolates);
        self.release_later();
        self.publish();
    }

    fn news(&mut self, news: News) {
        let around = self.surroundings(self.collector.active_isolate());
        let now = self.now();
        self.collector.on_news(now, news, &around, &self.isolates);
        self.publish();
    }

    fn tick(&mut self) {
        let began = Instant::now();
        let now = self.now();
        let sample = self.probe.read(probe::own::counts());
        self.pipeline.on_process(now, &sample);
        self.mark_cpu(now);
        self.watch_readings();
        for action in self.pipeline.step(now) {
            self.act(now, action);
        }
        self.collector.tick(now, &sample, &self.isolates);
        if let Some((finding, source, isolate)) = self.collector.follow_up_due(now) {
            let grows = self.pipeline.still_grows(&source);
            let around = self.surroundings(isolate);
            self.collector.follow_up(now, finding, grows, isolate, &around, &self.isolates);
        }
        let live = self
            .pipeline
            .first_isolate()
            .and_then(|id| self.pipeline.last(id, SeriesId::LiveHeap))
            .map_or(0.0, |(_, bytes)| bytes);
        if let Some((finding, isolate)) = self.collector.across_due(live) {
            let around = self.surroundings(isolate);
            self.collector.snapshot_of(now, finding, isolate, &around, &self.isolates);
        }
        self.expect_last_words();
        self.record(now, &sample);
        self.ask(now);
        self.publish();
        if self.release_at.is_some_and(|at| now >= at) {
            self.release_at = None;
            probe::code::release();
        }
        let micros = began.elapsed().as_micros() as u64;
        self.cost.ticks += 1;
        self.cost.tick_micros += micros;
        self.cost.longest_tick_micros = self.cost.longest_tick_micros.max(micros);
    }

    /// Has the pages of code that was run just now given back in a while.
    fn release_later(&mut self) {
        self.release_at = Some(Millis(self.now().0 + RELEASE_AFTER_MS));
    }

    /// Measures the CPU rate of the process over the ticks without a reading.
    fn mark_cpu(&mut self, now: Millis) {
        let reading = self.isolates.guarded.values().any(|guarded| guarded.asked.is_some());
        let Some(used) = probe::other_threads_cpu_micros(&[]).filter(|_| !reading) else {
            self.cpu_mark = None;
            return;
        };
        if let Some((at, before)) = self.cpu_mark.filter(|(at, _)| now > *at) {
            let rate = used.saturating_sub(before) as f64 / 1000.0 / (now.0 - at.0) as f64;
            // A tenth of the new: about the last ten ticks.
            self.cpu_rate = Some(self.cpu_rate.map_or(rate, |old| old * 0.9 + rate * 0.1));
        }
        self.cpu_mark = Some((now, used));
    }

    /// Gives up a way by which readings do not come back.
    fn watch_readings(&mut self) {
        for view in self.pipeline.isolate_views() {
            let Some(guarded) = self.isolates.guarded.get_mut(&view.id) else { continue };
            let (_, lost, _) = view.readings;
            if lost > guarded.lost {
                guarded.lost_in_a_row += lost - guarded.lost;
                guarded.lost = lost;
                guarded.asked = None;
            }
            if guarded.lost_in_a_row >= LOST_BEFORE_FALLBACK && view.way != Way::Natural {
                guarded.lost_in_a_row = 0;
                let way = guarded.without(view.way);
                self.pipeline.set_way(view.id, way);
            }
        }
    }

    fn act(&mut self, now: Millis, action: Action) {
        match action {
            Action::ReadLiveHeap(id) => {
                let Some(guarded) = self.isolates.guarded.get_mut(&id) else { return };
                let way = guarded.way();
                let seen = guarded.epilogue == Epilogue::On;
                let observe = if seen { 0 } else { work::OBSERVE_MAJOR };
                let head_start =
                    if self.pipeline.wants_head_start(id) { work::HEAD_START } else { 0 };
                let bits = match way {
                    Way::External => work::START_BY_EXTERNAL | head_start | observe,
                    Way::Pressure => work::START_BY_PRESSURE | head_start | observe,
                    Way::Forced => work::FORCE_GC,
                    Way::Natural => 0,
                };
                guarded.asked = Some((now, probe::other_threads_cpu_micros(&[])));
                guarded.mailbox.request(bits);
                guarded.wake.wake();
            }
            Action::Profile(id, order) => {
                let around = self.surroundings(Some(id));
                self.collector.profile_order(now, id, order, &around, &self.isolates);
            }
            Action::Open(draft) => {
                let around = self.surroundings(draft.isolate);
                self.collector.open_finding(now, *draft, &around, &self.isolates);
                self.release_later();
            }
            Action::NearEnd(draft) => {
                // Before the finding: the recorder's write is the quickest there is.
                let sample = self.pipeline.last_process().clone();
                self.record(now, &sample);
                let around = self.surroundings(draft.isolate);
                self.collector.near_end(now, *draft, &around, &self.isolates);
            }
            Action::Join { finding, piece, cause } => {
                self.collector.join(finding, *piece, cause, &self.isolates);
                self.evidence.0 = None;
            }
            Action::Refine { finding, piece, limit } => {
                self.collector.refine(finding, *piece, limit, &self.isolates);
                self.evidence.0 = None;
            }
            Action::Routes { finding, explanation } => {
                self.collector.routes(finding, *explanation, &self.isolates);
                self.evidence.0 = None;
            }
            Action::WarmedUp => {
                self.collector.warmed_up();
                let isolate = self.pipeline.first_isolate();
                let around = self.surroundings(isolate);
                self.collector.baseline(now, isolate, &around, &self.isolates);
            }
        }
    }

    /// Leaves the tick's requests in the mailboxes and wakes the JS threads.
    fn ask(&mut self, now: Millis) {
        let shortest = self.config.window_ms.min(crate::detect::COUNT_WINDOW_MS) / 8;
        let listener_pace = LISTENER_PACE_MS.min(shortest).max(self.config.interval_ms);
        for (id, guarded) in &mut self.isolates.guarded {
            let mut bits = work::HEAP;
            if now >= guarded.next_timers {
                let pace = timer_pace_ms(guarded.timer_pace_ms, shortest, self.config.interval_ms);
                guarded.next_timers = Millis(now.0 + pace);
                bits |= work::TIMERS;
            }
            if self.config.listeners && now >= guarded.next_listeners {
                guarded.next_listeners = Millis(now.0 + listener_pace);
                bits |= work::LISTENERS;
            }
            if self.config.routes && now >= guarded.next_routes {
                // Those that are compared with growth come with the reading of the heap.
                guarded.next_routes = Millis(now.0 + listener_pace);
                bits |= work::ROUTES;
            }
            let silent = self
                .pipeline
                .heartbeat(*id)
                .map_or(0, |heartbeat| now.0.saturating_sub(heartbeat.0));
            if silent > (3 * self.config.interval_ms).max(3_000) && !guarded.stalled {
                guarded.stalled = true;
                guarded.stalls += 1;
                let what = What::LoopStalled { for_ms: silent as f64 };
                self.isolates.flight.lock().event(now, guarded.tid, what);
            }
            guarded.mailbox.request(bits);
            guarded.wake.wake();
        }
    }

    /// Says once if V8 may fill more than the container has.
    fn check_limits(&mut self, id: IsolateId, reading: &IsolateReading) {
        let Some(guarded) = self.isolates.guarded.get_mut(&id) else { return };
        let container = self.pipeline.last_process().cgroup_limit_bytes;
        let (Some(heap), Some(container)) = (reading.heap_limit_bytes, container) else { return };
        if guarded.checked_limits {
            return;
        }
        guarded.checked_limits = true;
        if guarded.tid == 0
            && let Some(message) = limits_warning(heap, container)
        {
            let warning = json!({ "code": "LEAKGUARD_LIMITS", "message": message });
            self.isolates.event(Some(id), EventKind::Warning, &warning);
        }
    }

    fn surroundings(&self, isolate: Option<IsolateId>) -> Surroundings {
        let guarded = isolate.and_then(|id| self.isolates.guarded.get(&id));
        let last =
            |series| isolate.and_then(|id| self.pipeline.last(id, series)).map(|(_, value)| value);
        Surroundings {
            process: self.pipeline.last_process().clone(),
            live_heap_bytes: expected_live(last(SeriesId::LiveHeap), last(SeriesId::HeapUsed)),
            large_object_bytes: isolate.and_then(|id| self.pipeline.large_objects(id)),
            heap_limit_bytes: isolate.and_then(|id| self.pipeline.heap_limit(id)),
            tid: guarded.map_or(0, |guarded| guarded.tid),
            handles: guarded
                .map(|guarded| {
                    guarded
                        .handles
                        .iter()
                        .map(|(kind, count)| ((*kind).to_owned(), *count))
                        .collect()
                })
                .unwrap_or_default(),
        }
    }

    fn publish(&mut self) {
        let version = self.collector.version();
        if self.evidence.0 != Some(version) {
            self.evidence = (Some(version), self.collector.to_json());
        }
        let isolates = self
            .pipeline
            .isolate_views()
            .into_iter()
            .filter_map(|view| {
                let guarded = self.isolates.guarded.get(&view.id)?;
                let status = IsolateStatus {
                    tid: guarded.tid,
                    why: why(guarded.ways, &guarded.epilogue, view.way),
                    stalls: guarded.stalls,
                    lost_events: guarded.mailbox.lost(),
                    handles: guarded.handles.clone(),
                };
                Some((view, status))
            })
            .collect();
        let published = Published {
            at: self.now(),
            state: self.pipeline.phase().as_str(),
            process: self.pipeline.process_view(),
            sample: self.pipeline.last_process().clone(),
            isolates,
            silenced: self.pipeline.silenced(),
            settings: self.settings.clone(),
            evidence: self.evidence.1.clone(),
            recorder: if self.started {
                self.isolates.flight.lock().to_json()
            } else {
                Value::Null
            },
            hook: self.isolates.hook.lock().to_json(),
            previous: self.previous.clone(),
            cost: self.cost,
            totals: self.totals(),
        };
        *self.shared.published.lock() = Arc::new(published);
    }

    /// What the status page shows to one isolate.
    fn page(&self, isolate: IsolateId, question: page::Question) -> Value {
        let shared = &self.shared;
        let published = Arc::clone(&shared.published.lock());
        let lost = shared.lost_readings.load(Ordering::Relaxed);
        let status = status_json(shared, &published, None, isolate, lost);
        let asked = question.isolate.map(IsolateId).filter(|id| self.pipeline.knows(*id));
        let shown = asked.unwrap_or(isolate);
        let now = self.now();
        let from = Millis(now.0.saturating_sub(question.span_ms));
        page::model(
            &status,
            &page::Around {
                past: &self.pipeline.past(from, now, page::MAX_POINTS, Some(shown)),
                isolate: shown,
                from,
                now,
                wall_ms_at_start: shared.clock.wall_ms(Millis(0)),
                app: (&shared.identity.app_name, &shared.identity.app_version),
                heap_limit_bytes: self.pipeline.heap_limit(shown),
                ready: shared.stopped.lock().is_empty(),
            },
        )
    }

    /// The last isolate has gone.
    fn finish(&mut self) {
        self.isolates.flight.lock().stop(self.shared.clock.now());
        let mut last = (**self.shared.published.lock()).clone();
        last.state = "stopped";
        last.isolates.clear();
        *self.shared.published.lock() = Arc::new(last);
    }

    fn now(&self) -> Millis {
        self.shared.clock.now()
    }
}

/// What is said of a V8 that may grow its heap to `heap` bytes in a container of `container` bytes, if that is too
/// much.
pub fn limits_warning(heap: f64, container: u64) -> Option<String> {
    (heap >= container as f64).then(|| {
        format!(
            "V8 may grow its heap to {}, but the container is killed at {}: V8 will not collect in time; \
             start node with --max-old-space-size={}",
            Bytes(heap as u64),
            Bytes(container),
            fitting_old_space_mb(container)
        )
    })
}

/// The `--max-old-space-size` that fits a container of so many bytes, MB.
pub fn fitting_old_space_mb(container: u64) -> u64 {
    (container as f64 * HEAP_SHARE_OF_CONTAINER / 1_048_576.0) as u64
}

/// Milliseconds until timers are counted again: by what it costs, several times in each window, and never more often than
/// there are ticks, which may be rarer than [`SLOWEST_PACE_MS`].
fn timer_pace_ms(by_cost: u64, eighth_of_window: u64, interval: u64) -> u64 {
    let most_often = (eighth_of_window / 2).min(10_000);
    by_cost.clamp(most_often, SLOWEST_PACE_MS).max(interval)
}

/// How the live heap will be known, with the reason in words.
pub fn live_heap_way(ways: Ways, epilogue: &Epilogue) -> (Way, String) {
    let way = best_way(ways, epilogue);
    (way, why(ways, epilogue, way))
}

/// The best way that is offered: without pause if its end can be seen, else forced, else natural.
fn best_way(ways: Ways, epilogue: &Epilogue) -> Way {
    let seen = *epilogue == Epilogue::On || ways.observe;
    match ways {
        Ways { external: true, .. } if seen => Way::External,
        Ways { pressure: true, .. } if seen => Way::Pressure,
        Ways { force: true, .. } => Way::Forced,
        _ => Way::Natural,
    }
}

/// Live heap that a snapshot is to be budgeted for. The last reading may be minutes old and the heap have grown
/// several times since; of what is used now, garbage is seldom more than some 40 % for long.
pub fn expected_live(live: Option<f64>, used: Option<f64>) -> Option<f64> {
    match (live, used) {
        (Some(live), Some(used)) => Some(live.max(0.6 * used)),
        (live, used) => live.or(used),
    }
}

fn why(ways: Ways, epilogue: &Epilogue, way: Way) -> String {
    let seen = match epilogue {
        Epilogue::On => "seen by V8's GC callback".to_owned(),
        Epilogue::Off(why) if ways.observe && matches!(way, Way::External | Way::Pressure) => {
            format!("seen by a PerformanceObserver during the reading ({why})")
        }
        Epilogue::Off(why) => format!("natural ones are not seen ({why})"),
    };
    let made = match way {
        Way::External => {
            "external memory that is there for a moment starts a major GC without a pause"
        }
        Way::Pressure => "a memory-pressure notification starts a major GC without a pause",
        Way::Forced => {
            "gc() is forced within LEAKGUARD_MAX_GC_PAUSE: no other way to start a major GC is to be had"
        }
        Way::Natural => "no way to start a major GC: only those that V8 makes by itself",
    };
    format!("{made}; {seen}")
}

fn wait_words(wait: Wait, way: Way) -> String {
    match wait {
        Wait::Pending => "one is under way".into(),
        Wait::NotDue => "the next is not yet due".into(),
        Wait::Idle => "too little was allocated since the last".into(),
        Wait::Share => "LEAKGUARD_GC_SHARE is spent until later".into(),
        Wait::Pause { predicted_ms } => format!(
            "the next would stop the loop for {predicted_ms:.0} ms, longer than LEAKGUARD_MAX_GC_PAUSE"
        ),
        Wait::Unable if way == Way::Natural => "none on demand".into(),
        Wait::Unable => "the event loop does not answer".into(),
    }
}

fn views_json(views: &[SeriesView], now: Millis) -> Map<String, Value> {
    views
        .iter()
        .map(|view| {
            let value = json!({
                "unit": view.id.metric().unit.as_str(),
                "last": view.last,
                "ageMs": now.0.saturating_sub(view.at.0),
                "growing": view.growing.map(|(slope, window)| json!({ "slopePerHour": slope, "windowMs": window })),
            });
            (view.id.as_str().to_owned(), value)
        })
        .collect()
}

fn status_json(
    shared: &Shared,
    published: &Published,
    failure: Option<String>,
    isolate: IsolateId,
    lost_readings: u64,
) -> Value {
    let now = shared.clock.now();
    let isolates: Vec<Value> = published
        .isolates
        .iter()
        .map(|(view, status)| {
            let (made, lost, spent_ms) = view.readings;
            let live = view.series.iter().find(|series| series.id == SeriesId::LiveHeap);
            let mut series = views_json(&view.series, now);
            // On one emitter, as in the recorder: what is spread over many is an estimate.
            let lists = view.listeners.iter().filter(|line| !line.spread);
            series.insert("listeners".into(), json!({
                "unit": "count",
                "last": lists.map(|line| line.count).max().unwrap_or(0),
                "top": view.listeners.iter().map(listener_json).collect::<Vec<_>>(),
            }));
            json!({
                "id": view.id.0,
                "tid": status.tid,
                "heartbeatAgeMs": now.0.saturating_sub(view.heartbeat.0),
                "stalls": status.stalls,
                "liveHeap": {
                    "way": view.way.as_str(),
                    "why": status.why,
                    "lastBytes": live.map(|live| live.last),
                    "lastAgeMs": live.map(|live| now.0.saturating_sub(live.at.0)),
                    "readings": made,
                    "lost": lost,
                    "cpuMs": (spent_ms * 10.0).round() / 10.0,
                    "waiting": view.wait.map(|wait| wait_words(wait, view.way)),
                },
                "handles": status.handles.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count))).collect::<Map<_, _>>(),
                "series": series,
                "routes": view.traffic.as_ref().map(traffic_json),
                "lostEvents": status.lost_events,
            })
        })
        .collect();
    let sample = &published.sample;
    let cost = published.cost;
    let evidence = &published.evidence;
    let live_heap = isolates
        .iter()
        .find(|one| one["id"] == isolate.0)
        .or(isolates.first())
        .map_or(Value::Null, |one| one["liveHeap"].clone());
    json!({
        "schema": STATUS_SCHEMA,
        "version": shared.identity.leakguard,
        "state": if failure.is_some() { "failed" } else { published.state },
        "failure": failure,
        "uptimeMs": now.0,
        "sampleAgeMs": now.0.saturating_sub(published.at.0),
        "pid": shared.identity.pid,
        "node": shared.identity.node,
        "settings": published.settings,
        "liveHeap": live_heap,
        "isolates": isolates,
        "process": {
            "series": views_json(&published.process, now),
            "containerLimitBytes": sample.cgroup_limit_bytes,
            "containerUsedBytes": sample.cgroup_used_bytes,
            "memoryAvailableBytes": sample.mem_available_bytes,
            "memoryPressurePercent": sample.memory_pressure_percent,
            "rssPeakBytes": sample.rss_peak_bytes,
            "mallocUsedBytes": sample.malloc_used_bytes,
            "mallocFreeBytes": sample.malloc_free_bytes,
        },
        "directory": evidence["directory"],
        "directoryProblem": evidence["directoryProblem"],
        "findings": evidence["findings"],
        "refusals": evidence["refusals"],
        "snapshots": evidence["snapshots"],
        "snapshotInProgress": evidence["snapshotInProgress"],
        "analyses": evidence["analyses"],
        "analyzer": evidence["analyzer"],
        "fork": evidence["fork"],
        "recorder": published.recorder,
        "hook": published.hook,
        "previousRuns": published.previous,
        "losses": { "readings": lost_readings, "silenced": published.silenced },
        "cost": {
            "ticks": cost.ticks,
            "meanTickMicros": cost.tick_micros.checked_div(cost.ticks),
            "longestTickMicros": cost.longest_tick_micros,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Bell(AtomicU64);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_panic_of_the_native_thread_is_told_to_all_and_makes_nobody_wait() {
        let ((readings, _), (commands, _)) = (bounded(1), bounded(1));
        let shared = Shared::new(Identity::default(), &Config::default(), readings, commands);
        let doors = [(); 2].map(|()| (Arc::new(Mailbox::default()), Arc::new(Bell::default())));
        for (number, (mailbox, bell)) in (0..).zip(&doors) {
            let door = Door { mailbox: Arc::clone(mailbox), wake: bell.clone() };
            shared.doors.lock().insert(IsolateId(number), door);
        }
        shared.stopped.lock().insert(IsolateId(1));

        shared.run(|| {});
        assert!(doors.iter().all(|(mailbox, _)| mailbox.take() == 0));
        assert_eq!(*shared.failure.lock(), None);

        shared.run(|| assert_eq!(1 + 1, 3, "sums are wrong"));
        let failure = shared.failure.lock().clone().unwrap();
        assert!(failure.contains("sums are wrong"), "{failure}");
        for (mailbox, bell) in &doors {
            assert_eq!(mailbox.take(), work::FAILED);
            assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        }
        assert!(shared.stopped.lock().is_empty());
    }

    #[test]
    fn timers_are_counted_at_any_accepted_interval() {
        for (by_cost, eighth, interval, expected) in [
            (0, 75_000, 1_000, 10_000),
            (30_000, 75_000, 1_000, 30_000),
            (u64::MAX, 75_000, 1_000, 60_000),
            (0, 4_000, 1_000, 2_000),
            (0, 4_000, 100, 2_000),
            (0, 75_000, 60_000, 60_000),
            (u64::MAX, 75_000, 3_600_000, 3_600_000),
            (0, 0, 3_600_000, 3_600_000),
        ] {
            assert_eq!(timer_pace_ms(by_cost, eighth, interval), expected);
        }
    }

    #[test]
    fn a_major_gc_that_may_be_the_last_waits_until_it_was_looked_at() {
        let (readings, readings_in) = bounded(4);
        let identity = Identity { pid: std::process::id(), ..Identity::default() };
        let mut child = identity.clone();
        child.pid += 1;
        let handle = |identity| Handle {
            isolate: IsolateId(0),
            shared: Arc::new(Shared::new(
                identity,
                &Config::default(),
                readings.clone(),
                bounded(1).0,
            )),
            last_words: Arc::new(LastWords::default()),
        };
        let reading = LiveHeapReading { bytes: 60e6, pause_ms: 1.0 };
        let forked = handle(child);
        forked.live_heap(reading);
        assert!(readings_in.is_empty(), "nobody listens in a forked child");

        let app = handle(identity);
        app.live_heap(reading);
        assert_eq!(readings_in.len(), 1, "no limit is known yet: it is only queued");
        app.last_words.expect(Some(50e6), 60_000);
        let looked_at = Arc::new(AtomicU64::new(0));
        let native = std::thread::spawn({
            let (looked_at, readings_in) = (Arc::clone(&looked_at), readings_in.clone());
            move || {
                for (_, _, reading) in readings_in.iter().take(2) {
                    looked_at.fetch_add(1, Ordering::Relaxed);
                    drop(reading);
                }
            }
        });
        app.live_heap(reading);
        assert_eq!(looked_at.load(Ordering::Relaxed), 2);
        native.join().unwrap();

        drop(readings_in);
        app.live_heap(LiveHeapReading { bytes: 70e6, ..reading });
        assert_eq!(app.shared.lost_readings.load(Ordering::Relaxed), 1);
    }
}
