//! The guard of one environment (main thread or worker) as a JavaScript class. Every method is called on
//! that environment's JS thread; none throws but the constructor.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use napi::bindgen_prelude::{Env, Float64Array, Function, Result, Status};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

use crate::analyst;
use crate::config::{Given, OPTIONS, Origin};
use crate::evidence::fork::{self, Ticket};
use crate::exposition;
use crate::mailbox::{JobWay, Mailbox, SnapshotJob, work};
use crate::page::Question;
use crate::probe::uv::Loop;
use crate::probe::{self, ThreadId};
use crate::profile::Answer;
use crate::readings::{
    EXTERNAL_PUSH_BYTES, HEAD_START_FOLLOWS, HEAD_START_REST, HEAD_START_TURNS, external_room_bytes,
};
use crate::report::html;
use crate::routes::RouteCounts;
use crate::sample::{IsolateId, IsolateReading, ListenerCount, LiveHeapReading, Site};
use crate::sampler::{self, Attach, Handle, Identity, Ways};
use crate::v8::{self, Epilogue, Gc};

/// Wakes the JS thread: weak (it keeps nothing alive), without payload, queue of one.
type WakeFunction = ThreadsafeFunction<(), (), (), Status, false, true, 1>;

struct Wake(WakeFunction);

impl sampler::Wake for Wake {
    fn wake(&self) {
        // A full queue means that a wake is under way; a closing environment needs none.
        self.0.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

/// A setting as JavaScript found it.
#[napi(object)]
pub struct GivenSetting {
    /// Variable or option name.
    pub name: String,
    /// Text as given.
    pub value: String,
    /// Whether it stands in the environment.
    pub environment: bool,
}

/// A process warning to be emitted.
#[napi(object)]
pub struct Warning {
    /// Code.
    pub code: String,
    /// One sentence.
    pub message: String,
}

/// What only the JS thread can read, bytes. What may be absent is given where [`Guard::reads`] says that it cannot be
/// read natively.
#[napi(object)]
pub struct HeapFigures {
    /// `heapUsed` of `process.memoryUsage()`
    pub used: f64,
    /// `heapTotal`
    pub total: f64,
    /// `external`
    pub external: f64,
    /// `arrayBuffers`
    pub array_buffers: f64,
    /// `heap_size_limit` of `v8.getHeapStatistics()`
    pub limit: Option<f64>,
    /// Utilization of the event loop since it was last read, 0 to 1; not the first time, nor after a GC.
    pub utilization: Option<f64>,
    /// In the spaces of large objects; after a GC only.
    pub large_objects: Option<f64>,
    /// Whether a major GC has just ended.
    pub after_gc: bool,
}

/// What the native guard reads of an environment by itself, as it is now, bytes; absent: it cannot.
#[napi(object)]
pub struct Reads {
    /// The heap's limit.
    pub limit: Option<f64>,
    /// What the spaces of large objects hold.
    pub large_objects: Option<f64>,
    /// Whether it reads the utilization of the event loop.
    pub utilization: bool,
}

/// Bytes; fields of `process.memoryUsage()`.
#[napi(object)]
pub struct MemoryUsage {
    /// `heapTotal`
    pub heap_total: f64,
    /// `heapUsed`
    pub heap_used: f64,
    /// `external`
    pub external: f64,
}

/// `heap_size_limit` of `v8.getHeapStatistics()` for this isolate, bytes, or null where V8's own statistics are not as
/// expected. `memory_usage` is `process.memoryUsage`, with which they are compared.
#[napi]
pub fn heap_size_limit(memory_usage: Function<(), MemoryUsage>) -> Option<f64> {
    let gc = Gc::current()?;
    gc.check_statistics(|| {
        let MemoryUsage { heap_total, heap_used, external } = memory_usage.call(()).ok()?;
        Some(v8::MemoryUsage { total: heap_total, used: heap_used, external })
    });
    gc.heap_size_limit()
}

/// Whether this is the thread that the process began with: no worker runs on that one. False if it is not known.
#[napi]
pub fn on_main_thread() -> bool {
    let ThreadId(thread) = probe::current_thread();
    thread == std::process::id()
}

/// What JavaScript knows of its environment.
#[napi(object)]
pub struct Environment {
    /// `process.pid`
    pub pid: u32,
    /// `worker_threads.threadId`
    pub thread_id: u32,
    /// `process.version`
    pub node: String,
    /// `process.versions.v8`
    pub v8: String,
    /// `linux-x64`
    pub platform: String,
    /// Name of the nearest package.json.
    pub app_name: String,
    /// Its version.
    pub app_version: String,
    /// `process.cwd()`
    pub cwd: String,
    /// Version of leakguard.
    pub leakguard: String,
    /// Local time minus UTC, seconds.
    pub utc_offset_seconds: i32,
    /// `process.uptime()`, seconds.
    pub uptime_seconds: f64,
    /// `heap_size_limit` of `v8.getHeapStatistics()`.
    pub heap_size_limit: f64,
    /// `process.execPath`
    pub exec_path: String,
    /// Path of bin/leakguard.js; absent where this process may not or cannot start node.
    pub cli: Option<String>,
    /// `process.env`
    pub variables: HashMap<String, String>,
    /// Whether `gc()` could be obtained.
    pub can_force_gc: bool,
    /// Whether a `major` GC can be observed with a PerformanceObserver.
    pub can_observe_gc: bool,
}

/// Settings resolved without starting anything.
#[napi(object)]
pub struct Resolved {
    /// Whether the guard is on.
    pub enabled: bool,
    /// Whether EventEmitter is to be wrapped.
    pub listeners: bool,
    /// Whether requests are to be counted by route.
    pub routes: bool,
    /// The signal to listen to.
    pub signal: Option<String>,
    /// SHA-256 of the status page's token, hexadecimal.
    pub token_sha256: Option<String>,
    /// What is to be said.
    pub warnings: Vec<Warning>,
}

/// A snapshot that the JS thread is to write, or to have written.
#[napi(object)]
pub struct Job {
    /// Its number.
    pub id: u32,
    /// Where V8 writes.
    pub path: String,
    /// `inline`, `fork`, `gc-stage`.
    pub way: String,
}

/// One listener line of the JS thread's table.
#[napi(object)]
pub struct ListenerRow {
    /// Names emitter and event.
    pub key: u32,
    /// Class of the emitter.
    pub emitter: String,
    /// The event.
    pub event: String,
    /// Listeners now.
    pub count: u32,
    /// Function that adds them.
    pub function: Option<String>,
    /// Its file.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<u32>,
    /// Its column, from 1.
    pub column: Option<u32>,
    /// For a line of code that adds to many emitters: the major GC after which they were counted.
    pub round: Option<u32>,
}

/// Settings as the option table takes them.
pub(super) fn given(settings: Vec<GivenSetting>) -> Vec<Given> {
    settings
        .into_iter()
        .map(|one| Given {
            name: one.name,
            value: one.value,
            origin: if one.environment { Origin::Environment } else { Origin::Option },
        })
        .collect()
}

/// Resolves settings and says what is wrong with them.
#[napi]
pub fn resolve(settings: Vec<GivenSetting>) -> Resolved {
    let (config, problems) = crate::config::resolve(&given(settings));
    Resolved {
        enabled: config.enabled,
        listeners: config.listeners,
        routes: config.routes,
        signal: config.signal,
        token_sha256: config
            .token_sha256
            .map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect()),
        warnings: problems
            .into_iter()
            .map(|problem| Warning { code: problem.code.into(), message: problem.message })
            .collect(),
    }
}

/// A row of the option table.
#[napi(object)]
pub struct OptionRow {
    /// Name in `start(options)`.
    pub key: String,
    /// Environment variable.
    pub variable: String,
    /// Default, in the user's notation.
    pub default: String,
    /// What is accepted.
    pub accepted: String,
    /// One line of help.
    pub help: String,
}

/// The option table, for docs, types and tests.
#[napi]
pub fn options() -> Vec<OptionRow> {
    OPTIONS
        .iter()
        .map(|spec| OptionRow {
            key: spec.key.into(),
            variable: spec.variable(),
            default: spec.default.into(),
            accepted: spec.kind.accepted(),
            help: spec.help.into(),
        })
        .collect()
}

/// A page that is served: its text, and the content-security policy that lets it run.
#[napi(object)]
pub struct ServedPage {
    /// The document.
    pub html: String,
    /// Value of the header.
    pub policy: String,
}

impl From<html::Served> for ServedPage {
    fn from(page: html::Served) -> ServedPage {
        ServedPage { html: page.html, policy: page.policy }
    }
}

/// The status page without what it shows, which it fetches.
#[napi]
pub fn status_page() -> ServedPage {
    html::status_page().into()
}

/// The page that asks for the token.
#[napi]
pub fn token_page() -> ServedPage {
    html::token_page().into()
}

/// A row of the table of metric families.
#[napi(object)]
pub struct FamilyRow {
    /// Prometheus name.
    pub name: String,
    /// One line of help.
    pub help: String,
    /// `gauge`, `counter`.
    pub kind: String,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// How values of several processes are made one: `sum`, `max`, `min`.
    pub merge: String,
    /// Unit as UCUM has it.
    pub unit: String,
    /// OpenTelemetry name, if the family goes there.
    pub otel: Option<String>,
}

/// The table of metric families, for prom-client, OpenTelemetry, docs and tests.
#[napi]
pub fn metric_families() -> Vec<FamilyRow> {
    exposition::families()
        .iter()
        .map(|family| FamilyRow {
            name: family.name.clone(),
            help: family.help.clone(),
            kind: family.kind.as_str().into(),
            labels: family.labels.iter().map(|label| (*label).to_owned()).collect(),
            merge: family.merge.as_str().into(),
            unit: family.unit.into(),
            otel: family.otel.clone(),
        })
        .collect()
}

/// The JS thread's side of what lives as long as the environment.
struct Local {
    gc: Option<Gc>,
    uv: Option<Loop>,
    handle: Option<Handle>,
    /// Of the job taken last, until it is carried out.
    ticket: Option<Box<Ticket>>,
    /// Turns of the loop in which this thread still rests for a major GC that began.
    rests_left: u32,
    /// Names of routes by row, as far as JavaScript told them.
    routes: Arc<Vec<String>>,
}

impl Local {
    /// Ends everything; safe twice.
    fn end(&mut self) {
        self.gc = None;
        self.uv = None;
        self.ticket = None;
        if let Some(handle) = self.handle.take() {
            handle.detach();
        }
    }
}

/// V8's own major GCs that follow a reading, which get the head start of a reading too. Of the JS thread.
#[derive(Default)]
struct Followers {
    pid: u32,
    /// While a reading starts its own.
    starting: Cell<bool>,
    until: Cell<Option<Instant>>,
}

impl Followers {
    /// Starts a major GC of ours.
    fn start<T>(&self, head_start: bool, start: impl FnOnce() -> T) -> T {
        self.starting.set(true);
        let started = start();
        self.starting.set(false);
        self.until.set(head_start.then(|| Instant::now() + HEAD_START_FOLLOWS));
        started
    }

    /// Whether the marking that has just begun is that of a follower. In a forked child nobody listens.
    fn has_begun(&self) -> bool {
        !self.starting.get()
            && self.until.get().is_some_and(|until| Instant::now() < until)
            && std::process::id() == self.pid
    }
}

/// The guard of one environment.
#[napi]
pub struct Guard {
    mailbox: Arc<Mailbox>,
    handle: Handle,
    local: Rc<RefCell<Local>>,
    followers: Rc<Followers>,
    /// External memory that leaves room for ours, bytes.
    external_room: Option<i64>,
    /// Whether memory-pressure notifications may be used.
    pressure: bool,
}

#[napi]
impl Guard {
    /// Starts guarding this environment; the native thread starts with the first one of the process.
    /// Throws if Node-API refuses the wake function.
    #[napi(constructor)]
    pub fn new(
        env: Env,
        settings: Vec<GivenSetting>,
        environment: Environment,
        wake: Function<(), ()>,
    ) -> Result<Guard> {
        v8::pin_library();
        let (config, _) = crate::config::resolve(&given(settings));
        let wake: WakeFunction = wake
            .build_threadsafe_function::<()>()
            .weak::<true>()
            .callee_handled::<false>()
            .max_queue_size::<1>()
            .build()?;
        let mailbox = Arc::new(Mailbox::default());
        let mut gc = Gc::current();
        let external_room = external_room_bytes(environment.heap_size_limit, &environment.v8);
        let ways = Ways {
            external: !config.without.external && external_room.is_some(),
            pressure: !config.without.pressure && gc.is_some() && Gc::can_start_major(),
            force: !config.without.gc && environment.can_force_gc,
            observe: environment.can_observe_gc,
        };
        let without_epilogue = config.without.epilogue;
        let wake: Arc<dyn sampler::Wake> = Arc::new(Wake(wake));
        let followers = Rc::new(Followers { pid: environment.pid, ..Followers::default() });
        let handle = sampler::attach(Attach {
            config,
            identity: Identity {
                pid: environment.pid,
                tid: environment.thread_id,
                node: environment.node,
                v8: environment.v8,
                platform: environment.platform,
                app_name: environment.app_name,
                app_version: environment.app_version,
                cwd: environment.cwd,
                leakguard: environment.leakguard,
                uptime_ms: (environment.uptime_seconds.max(0.0) * 1000.0) as u64,
            },
            utc_offset_seconds: environment.utc_offset_seconds,
            mailbox: Arc::clone(&mailbox),
            wake: Arc::clone(&wake),
            ways,
            variables: environment
                .variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            analyzer: analyst::program(&environment.exec_path, environment.cli.as_deref()),
        });
        let epilogue = match (&mut gc, without_epilogue) {
            (_, true) => Epilogue::Off("LEAKGUARD_WITHOUT names it"),
            (None, _) => Epilogue::Off("V8's symbols were not found in this binary"),
            (Some(gc), false) => {
                let handle = handle.clone();
                gc.observe(
                    Box::new(move |reading| handle.live_heap(reading)),
                    Box::new({
                        let (followers, mailbox) = (Rc::clone(&followers), Arc::clone(&mailbox));
                        move || {
                            if followers.has_begun() {
                                mailbox.request(work::HEAD_START);
                                wake.wake();
                                thread::sleep(HEAD_START_REST);
                            }
                        }
                    }),
                )
            }
        };
        handle.epilogue(epilogue);
        let uv = env.get_uv_event_loop().ok().and_then(|uv| uv_loop(uv.cast()));
        let local = Rc::new(RefCell::new(Local {
            gc,
            uv,
            handle: Some(handle.clone()),
            ticket: None,
            rests_left: 0,
            routes: Arc::default(),
        }));
        // The isolate still lives in the hook, and no longer after it.
        let main_thread = environment.thread_id == 0;
        env.add_env_cleanup_hook(Rc::clone(&local), move |local| {
            if main_thread {
                crate::flight::environment_ended();
            }
            local.borrow_mut().end();
        })?;
        Ok(Guard { mailbox, handle, local, followers, external_room, pressure: ways.pressure })
    }

    /// Takes the requests of the native thread: bits of lib/work.js. What is native is done here.
    #[napi]
    pub fn take_work(&self, env: Env) -> u32 {
        let bits = self.mailbox.take();
        let head_start = bits & work::HEAD_START != 0;
        if bits & work::START_BY_EXTERNAL != 0 {
            self.followers.start(head_start, || self.start_by_external(&env));
        }
        if bits & work::START_BY_PRESSURE != 0
            && !self.followers.start(head_start, || self.start_by_pressure())
        {
            self.handle.live_heap_failed();
        }
        if head_start {
            self.local.borrow_mut().rests_left = HEAD_START_TURNS;
        }
        bits & !(work::START_BY_EXTERNAL | work::START_BY_PRESSURE)
    }

    /// Has V8 start a major GC by external memory, or by a memory-pressure notification where the app's own external
    /// memory leaves no room for that.
    fn start_by_external(&self, env: &Env) {
        // By nothing: the answer is what there is.
        let fits = env
            .adjust_external_memory(0)
            .is_ok_and(|external| self.external_room.is_some_and(|room| external <= room));
        if fits && env.adjust_external_memory(EXTERNAL_PUSH_BYTES).is_ok() {
            // What V8 took it takes back: the call fails for no other reason than a null pointer.
            let _ = env.adjust_external_memory(-EXTERNAL_PUSH_BYTES);
        } else if !self.start_by_pressure() {
            self.handle.live_heap_failed();
        }
    }

    /// False if that cannot be had, or is not to be used.
    fn start_by_pressure(&self) -> bool {
        let local = self.local.borrow();
        let gc = local.gc.as_ref().filter(|_| self.pressure);
        gc.inspect(|gc| gc.start_major()).is_some()
    }

    /// Rests this thread for a moment while V8's concurrent markers have their head start. To be called once in a turn
    /// of the loop until it returns false.
    #[napi]
    pub fn rest(&self) -> bool {
        let mut local = self.local.borrow_mut();
        local.rests_left = local.rests_left.saturating_sub(1);
        thread::sleep(HEAD_START_REST);
        local.rests_left > 0
    }

    /// The next event as `[kind, JSON]`, or null.
    #[napi]
    pub fn next_event(&self) -> Option<Vec<String>> {
        let event = self.mailbox.next_event()?;
        Some(vec![event.kind.as_str().into(), event.payload])
    }

    /// What [`Guard::record`] reads by itself.
    #[napi]
    pub fn reads(&self) -> Reads {
        let local = self.local.borrow();
        let gc = local.gc.as_ref();
        Reads {
            limit: gc.and_then(Gc::heap_size_limit),
            large_objects: gc.and_then(Gc::large_object_bytes),
            utilization: local.uv.as_ref().is_some_and(Loop::tells_utilization),
        }
    }

    /// Reports the figures of the heap and the event loop. Handles are counted here.
    #[napi]
    pub fn record(&self, figures: HeapFigures) {
        let local = self.local.borrow();
        let (gc, uv) = (local.gc.as_ref(), local.uv.as_ref());
        let by_type = uv.map(Loop::handles);
        let limit = figures.limit.or_else(|| gc?.heap_size_limit());
        let (utilization, large_objects) = if figures.after_gc {
            (None, figures.large_objects.or_else(|| gc?.large_object_bytes()))
        } else {
            (figures.utilization.or_else(|| uv?.utilization()), None)
        };
        drop(local);
        let handles = by_type
            .as_ref()
            .map(|by_type| by_type.iter().map(|(_, count)| *count as f64).sum::<f64>());
        self.handle.reading(
            IsolateReading {
                heap_used_bytes: Some(figures.used),
                heap_total_bytes: Some(figures.total),
                heap_limit_bytes: limit,
                external_bytes: Some(figures.external),
                array_buffers_bytes: Some(figures.array_buffers),
                loop_utilization: utilization,
                large_object_bytes: large_objects,
                handles,
                timers: None,
                after_gc: figures.after_gc,
            },
            by_type.unwrap_or_default(),
        );
    }

    /// Reports pending timers and how long counting them took, microseconds.
    #[napi]
    pub fn record_timers(&self, timers: f64, took_micros: f64) {
        self.handle.timers(timers, took_micros);
    }

    /// Reports the listener table.
    #[napi]
    pub fn record_listeners(&self, rows: Vec<ListenerRow>) {
        let counts = rows
            .into_iter()
            .map(|row| ListenerCount {
                key: row.key,
                emitter: row.emitter,
                event: row.event,
                count: u64::from(row.count),
                site: row.file.map(|file| Site {
                    function: row.function.unwrap_or_default(),
                    file,
                    line: row.line.unwrap_or(0),
                    column: row.column.unwrap_or(0),
                }),
                round: row.round,
            })
            .collect();
        self.handle.listeners(counts);
    }

    /// Reports requests by route: names of rows that are new, and the count of every row so far.
    #[napi]
    pub fn record_routes(&self, new_names: Vec<String>, counts: Float64Array, after_gc: bool) {
        let mut local = self.local.borrow_mut();
        if !new_names.is_empty() {
            // Reports under way keep the names that they were made with.
            Arc::make_mut(&mut local.routes).extend(new_names);
        }
        let names = Arc::clone(&local.routes);
        drop(local);
        self.handle.routes(RouteCounts { names, counts: counts.to_vec(), after_gc });
    }

    /// Reports the heap just after a major GC that JavaScript observed or forced.
    #[napi]
    pub fn record_live_heap(&self, bytes: f64, pause_ms: f64) {
        self.handle.script_live_heap(LiveHeapReading { bytes, pause_ms });
    }

    /// Says that a reading that was asked for could not be made.
    #[napi]
    pub fn live_heap_failed(&self) {
        self.handle.live_heap_failed();
    }

    /// Milliseconds that the loop is expected to stop for the snapshot job that waits, or null: it does not stop it.
    #[napi]
    pub fn stop_ahead(&self) -> Option<f64> {
        self.mailbox.stop_ahead().map(|ms| ms as f64)
    }

    /// Whether no loop of this process is stopped, or about to be, for an inline snapshot.
    #[napi]
    pub fn ready(&self) -> bool {
        self.handle.ready()
    }

    /// Asks for the status page's model over the last `span_ms`, with the series of that isolate or of this one.
    /// False if it cannot be asked.
    #[napi]
    pub fn request_page(&self, number: u32, span_ms: f64, isolate: Option<u32>) -> bool {
        self.handle.request_page(number, Question { span_ms: span_ms.max(0.0) as u64, isolate })
    }

    /// Takes the answer to such a question as its number and JSON, or null.
    #[napi]
    pub fn take_page(&self) -> Option<(u32, String)> {
        self.mailbox.take_page()
    }

    /// Takes the snapshot job, or null.
    #[napi]
    pub fn take_snapshot_job(&self) -> Option<Job> {
        let SnapshotJob { id, path, way } = self.mailbox.take_job()?;
        let name = way.as_str().to_owned();
        self.local.borrow_mut().ticket = match way {
            JobWay::Inline { .. } => None,
            JobWay::Fork(ticket) | JobWay::GcStage(ticket) => Some(ticket),
        };
        Some(Job { id, path, way: name })
    }

    /// Carries the fork of the job out. `work` is called in the child only, which ends with it.
    #[napi]
    pub fn fork_snapshot(&self, work: Function<(), ()>) {
        let ticket = self.local.borrow_mut().ticket.take();
        if let Some(ticket) = ticket {
            fork::attempt(*ticket, || work.call(()).is_ok());
        }
    }

    /// Asks for a forked child that only collects garbage; the answer is an event with this number.
    #[napi]
    pub fn request_gc_stage(&self, number: u32) -> bool {
        self.handle.request_gc_stage(number)
    }

    /// Reports how the snapshot job went: how long the loop stopped, and what was thrown, if anything.
    #[napi]
    pub fn snapshot_written(&self, id: u32, pause_ms: f64, error: Option<String>) {
        self.handle.snapshot_written(id, pause_ms, error);
    }

    /// Takes an order of the allocation profile as `[run, what, interval, atLimit]`, or null.
    #[napi]
    pub fn take_profile_order(&self) -> Option<(u32, String, u32, bool)> {
        let order = self.mailbox.take_order()?;
        Some((order.run, order.what.into(), order.interval_bytes, order.at_limit))
    }

    /// Reports that an order was obeyed, with the reading if it was one (of `begin` where Node writes a profile at
    /// V8's heap limit), and how long the loop stopped.
    #[napi]
    pub fn profile_answer(&self, run: u32, what: String, text: Option<String>, pause_ms: f64) {
        self.handle.profile(run, Answer::of(&what, text, pause_ms));
    }

    /// Reports that an order could not be obeyed: the profile has ended.
    #[napi]
    pub fn profile_failed(&self, run: u32, code: String, message: String) {
        self.handle.profile(run, Answer::Failed { code, message });
    }

    /// Asks for a snapshot on demand; the answer is an event with this number. False if it cannot be asked.
    #[napi]
    pub fn request_snapshot(&self, number: u32, reason: String) -> bool {
        self.handle.request_snapshot(number, reason)
    }

    /// Everything, as JSON.
    #[napi]
    pub fn status(&self) -> String {
        self.handle.status()
    }

    /// The Prometheus text of what was published last.
    #[napi]
    pub fn metrics(&self) -> String {
        self.handle.metrics()
    }

    /// The points of the same, JSON: for each of `metricFamilies()` an array of `[value, label, ...]`.
    #[napi]
    pub fn metric_points(&self) -> String {
        self.handle.metric_points()
    }

    /// Applies settings to the running guard and returns what is wrong with them.
    #[napi]
    pub fn configure(&self, settings: Vec<GivenSetting>) -> Vec<Warning> {
        let (config, problems) = crate::config::resolve(&given(settings));
        self.handle.configure(config);
        problems
            .into_iter()
            .map(|problem| Warning { code: problem.code.into(), message: problem.message })
            .collect()
    }

    /// Why the native thread is no more; `null` while it runs.
    #[napi]
    pub fn failure(&self) -> Option<String> {
        self.handle.failure()
    }

    /// Stops guarding this environment. Safe twice.
    #[napi]
    pub fn stop(&self) {
        self.local.borrow_mut().end();
    }

    /// The number of this environment within the process, as in `status()`.
    #[napi(getter)]
    pub fn isolate(&self) -> u32 {
        let IsolateId(number) = self.handle.isolate();
        number
    }
}

#[allow(unsafe_code)]
fn uv_loop(uv: *mut std::ffi::c_void) -> Option<Loop> {
    // SAFETY: Node-API gives the loop of the environment of this thread; `Local` drops it in the cleanup
    // hook at the latest, before the loop is closed.
    unsafe { Loop::new(uv) }
}
