//! What a scrape shows: one table of metric families, and the points of a moment, written as Prometheus text
//! (exposition format 0.0.4) or handed on as numbers for prom-client and OpenTelemetry. Pure: it is given what was
//! published and reads nothing itself. It computes no verdicts, keeps no state, and shows a bounded number of
//! points however many emitters, workers or findings there are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::config::{Config, HOUR_MS};
use crate::detect::rule;
use crate::metric::{METRICS, Metric, Scope, SeriesId, Unit};
use crate::pipeline::{ListenerTotals, MAX_LISTENER_TOTALS, SeriesView};
use crate::tally::Tally;

/// Before all names of ours.
const PREFIX: &str = "leakguard_";

/// Probability of a rise by chance above which it counts for nothing in the time to a limit.
const SIGNIFICANCE: f64 = 0.05;

/// Longest value of a label, bytes: longer ones lose their beginning, since paths tell most at their end.
const MAX_LABEL: usize = 160;

/// The main thread, and all workers together: worker threads come and go, and series of each would pile up
/// in the database.
const MAIN: &str = "main";
const WORKERS: &str = "workers";

/// Label values of what is summed up because there is too much of it.
const OTHER: &str = "other";

/// How a value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Up only, from zero at the start of the process.
    Counter,
}

impl Kind {
    /// The word of the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        }
    }
}

/// How values of several workers, or of several processes of one cluster, are made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Added.
    Sum,
    /// The highest.
    Max,
    /// The lowest.
    Min,
}

impl Merge {
    /// The word prom-client's aggregation uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Merge::Sum => "sum",
            Merge::Max => "max",
            Merge::Min => "min",
        }
    }

    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Merge::Sum => a + b,
            Merge::Max => a.max(b),
            Merge::Min => a.min(b),
        }
    }
}

/// One metric family.
#[derive(Clone, Debug)]
pub struct Family {
    /// Prometheus name, unit included.
    pub name: String,
    /// One line of help.
    pub help: String,
    /// How it moves.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// How values are made one.
    pub merge: Merge,
    /// Its unit as UCUM has it.
    pub unit: &'static str,
    /// OpenTelemetry name: that of the semantic conventions where they have one. `None` where they want it by heap
    /// space, which JavaScript reads.
    pub otel: Option<String>,
}

/// Families beside the series of `metric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Up,
    Info,
    Uptime,
    SampleAge,
    LiveHeapAge,
    Growth,
    Confidence,
    Window,
    TimeToLimit,
    HeapLimit,
    CgroupLimit,
    Findings,
    Refusals,
    Snapshots,
    SnapshotInProgress,
    DirectoryUsable,
    PreviousRuns,
    Silenced,
    Losses,
    LoopStalls,
    Cpu,
    Ticks,
    Readings,
    ReadingCpu,
    ShareLimit,
}

struct Row {
    id: Own,
    name: &'static str,
    otel: &'static str,
    unit: &'static str,
    kind: Kind,
    merge: Merge,
    labels: &'static [&'static str],
    help: &'static str,
}

const fn gauge(
    id: Own,
    name: &'static str,
    otel: &'static str,
    unit: &'static str,
    merge: Merge,
    labels: &'static [&'static str],
    help: &'static str,
) -> Row {
    Row { id, name, otel, unit, kind: Kind::Gauge, merge, labels, help }
}

const fn counter(
    id: Own,
    name: &'static str,
    otel: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Row {
    Row { id, name, otel, unit, kind: Kind::Counter, merge: Merge::Sum, labels, help }
}

/// Every family of `Own`, in the order of the docs.
const OWN: &[Row] = &[
    gauge(
        Own::Up,
        "up",
        "up",
        "1",
        Merge::Min,
        &[],
        "whether the guard's native thread samples (1) or not (0)",
    ),
    gauge(
        Own::Info,
        "info",
        "info",
        "1",
        Merge::Max,
        &["app", "app_version", "version", "node"],
        "always 1; app and app_version as in package.json or LEAKGUARD_APP, version of leakguard, version of Node.js",
    ),
    gauge(
        Own::Uptime,
        "uptime_seconds",
        "uptime",
        "s",
        Merge::Max,
        &[],
        "time since the guard started",
    ),
    gauge(
        Own::SampleAge,
        "sample_age_seconds",
        "sample.age",
        "s",
        Merge::Max,
        &[],
        "age of the newest sample of the process; the native thread takes one every LEAKGUARD_INTERVAL",
    ),
    gauge(
        Own::LiveHeapAge,
        "live_heap_age_seconds",
        "live_heap.age",
        "s",
        Merge::Max,
        &["thread"],
        "age of the last reading of the live heap; of the workers the oldest",
    ),
    gauge(
        Own::Growth,
        "growth_bytes_per_second",
        "growth",
        "By/s",
        Merge::Max,
        &["series", "thread"],
        "Theil-Sen slope of a memory series over growth_window_seconds, negative if it falls; of the workers the steepest; absent during the warm-up and without enough readings",
    ),
    gauge(
        Own::Confidence,
        "growth_confidence_ratio",
        "growth.confidence",
        "1",
        Merge::Max,
        &["series", "thread"],
        "1 less the Mann-Kendall probability of such a rise by chance; findings need more than 0.95",
    ),
    gauge(
        Own::Window,
        "growth_window_seconds",
        "growth.window",
        "s",
        Merge::Max,
        &["series", "thread"],
        "window of growth_bytes_per_second: LEAKGUARD_WINDOW, or less while there is less to look at",
    ),
    gauge(
        Own::TimeToLimit,
        "time_to_limit_seconds",
        "time_to_limit",
        "s",
        Merge::Min,
        &["limit"],
        "time until the container's or V8's limit is reached at the present rate; absent without significant growth",
    ),
    gauge(
        Own::HeapLimit,
        "heap_limit_bytes",
        "heap_limit",
        "By",
        Merge::Sum,
        &["thread"],
        "V8's heap limit, as --max-old-space-size and the young generation make it",
    ),
    gauge(
        Own::CgroupLimit,
        "cgroup_limit_bytes",
        "cgroup_limit",
        "By",
        Merge::Max,
        &[],
        "memory limit of the container; absent without one",
    ),
    counter(
        Own::Findings,
        "findings_total",
        "findings",
        "{finding}",
        &["series"],
        "findings by the series that named them",
    ),
    counter(
        Own::Refusals,
        "refusals_total",
        "refusals",
        "{refusal}",
        &["reason"],
        "steps of evidence that were refused, by reason",
    ),
    counter(
        Own::Snapshots,
        "snapshots_total",
        "snapshots",
        "{snapshot}",
        &["kind", "outcome"],
        "heap snapshots by what they were for and what became of them",
    ),
    gauge(
        Own::SnapshotInProgress,
        "snapshot_in_progress",
        "snapshot.in_progress",
        "1",
        Merge::Max,
        &[],
        "whether a heap snapshot is being written",
    ),
    gauge(
        Own::DirectoryUsable,
        "directory_usable",
        "directory.usable",
        "1",
        Merge::Min,
        &[],
        "whether evidence can be written to LEAKGUARD_DIR (1) or not (0)",
    ),
    gauge(
        Own::PreviousRuns,
        "previous_runs",
        "previous_runs",
        "{run}",
        Merge::Sum,
        &["verdict"],
        "runs of this app in the same directory that this start found over, by how they ended; near_limit: without exit, near the container's or V8's limit",
    ),
    counter(
        Own::Silenced,
        "silenced_total",
        "silenced",
        "{finding}",
        &[],
        "confirmed growth of which a cooldown made no finding",
    ),
    counter(
        Own::Losses,
        "losses_total",
        "losses",
        "{item}",
        &["kind"],
        "what did not fit: readings from the JS threads, events to them, records of the flight recorder",
    ),
    counter(
        Own::LoopStalls,
        "loop_stalls_total",
        "loop_stalls",
        "{stall}",
        &[],
        "times an event loop did not answer for three intervals and at least 3 s",
    ),
    counter(
        Own::Cpu,
        "cpu_seconds_total",
        "cpu.time",
        "s",
        &[],
        "CPU time of the guard's own threads",
    ),
    counter(Own::Ticks, "ticks_total", "ticks", "{tick}", &[], "samples of the process"),
    counter(
        Own::Readings,
        "live_heap_readings_total",
        "live_heap.readings",
        "{reading}",
        &[],
        "readings of the live heap, those after V8's own major GCs included",
    ),
    counter(
        Own::ReadingCpu,
        "live_heap_reading_cpu_seconds_total",
        "live_heap.readings.cpu.time",
        "s",
        &[],
        "CPU time of the major GCs that the guard asked for, helper threads included, measured or by model",
    ),
    gauge(
        Own::ShareLimit,
        "gc_share_limit_ratio",
        "gc_share.limit",
        "1",
        Merge::Max,
        &[],
        "share of one core that readings of the live heap may take: LEAKGUARD_GC_SHARE",
    ),
];

static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    let series = METRICS.iter().map(family_of_series);
    let own = OWN.iter().map(|row| Family {
        name: format!("{PREFIX}{}", row.name),
        help: row.help.to_owned(),
        kind: row.kind,
        labels: row.labels,
        merge: row.merge,
        unit: row.unit,
        otel: Some(format!("leakguard.{}", row.otel)),
    });
    series.chain(own).collect()
});

/// Every family: those of the series first, in the order of their table.
pub fn families() -> &'static [Family] {
    &FAMILIES
}

fn family_of_series(metric: &Metric) -> Family {
    let suffix = match metric.unit {
        Unit::Bytes => "_bytes",
        Unit::Count => "",
        Unit::Ratio => "_ratio",
    };
    let (unit, otel) = match metric.id {
        SeriesId::Rss => ("By", Some("process.memory.usage")),
        SeriesId::Fds => ("{file_descriptor}", Some("process.unix.file_descriptor.count")),
        SeriesId::Threads => ("{thread}", Some("process.thread.count")),
        SeriesId::LoopUtilization => ("1", Some("nodejs.eventloop.utilization")),
        // `v8js.memory.heap.used` and `v8js.memory.heap.space.size`, by heap space.
        SeriesId::HeapUsed | SeriesId::HeapTotal => ("By", None),
        SeriesId::LiveHeap => ("By", Some("leakguard.live_heap")),
        SeriesId::ArrayBuffers => ("By", Some("leakguard.array_buffers")),
        SeriesId::External => ("By", Some("leakguard.external")),
        SeriesId::Native => ("By", Some("leakguard.native")),
        SeriesId::CgroupUsed => ("By", Some("leakguard.cgroup_used")),
        SeriesId::Handles => ("{handle}", Some("leakguard.handles")),
        SeriesId::Timers => ("{timer}", Some("leakguard.timers")),
        SeriesId::Listeners => ("{listener}", Some("leakguard.listeners")),
    };
    Family {
        name: format!("{PREFIX}{}{suffix}", metric.name),
        help: match metric.id {
            SeriesId::Listeners => format!(
                "{}, by the line that adds them: the {MAX_LISTENER_TOTALS} longest lists of those the guard follows, the rest as other",
                metric.help
            ),
            SeriesId::Handles => format!("{}, by type", metric.help),
            _ => metric.help.to_owned(),
        },
        kind: Kind::Gauge,
        labels: match (metric.id, metric.scope) {
            (SeriesId::Listeners, _) => &["thread", "emitter", "event", "site"],
            (SeriesId::Handles, _) => &["thread", "type"],
            (_, Scope::Isolate) => &["thread"],
            (_, Scope::Process) => &[],
        },
        merge: if metric.unit == Unit::Ratio { Merge::Max } else { Merge::Sum },
        unit,
        otel: otel.map(str::to_owned),
    }
}

/// One thread with an event loop.
#[derive(Clone, Copy, Debug)]
pub struct Thread<'a> {
    /// Whether it is the main thread.
    pub main: bool,
    /// Its series.
    pub series: &'a [SeriesView],
    /// Its libuv handles by type.
    pub handles: &'a [(&'static str, u64)],
    /// Its listeners.
    pub listeners: &'a ListenerTotals,
    /// V8's heap limit, bytes.
    pub heap_limit: Option<f64>,
}

/// What a scrape is made of. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Scrape<'a> {
    /// Whether the native thread samples.
    pub up: bool,
    /// Name of the app.
    pub app: &'a str,
    /// Its version.
    pub app_version: &'a str,
    /// Version of leakguard.
    pub version: &'a str,
    /// Version of Node.
    pub node: &'a str,
    /// Now, on the clock of the samples.
    pub now_ms: u64,
    /// When the newest sample was taken.
    pub sampled_ms: u64,
    /// Series of the process.
    pub process: &'a [SeriesView],
    /// Threads with an event loop.
    pub threads: Vec<Thread<'a>>,
    /// Memory limit of the container, bytes.
    pub cgroup_limit: Option<u64>,
    /// What is left of it, bytes.
    pub cgroup_headroom: Option<u64>,
    /// What came of the evidence.
    pub tally: Tally,
    /// Whether a snapshot is being written.
    pub snapshot_in_progress: bool,
    /// Whether evidence can be written.
    pub directory_usable: bool,
    /// Runs that were found over, by verdict.
    pub previous_runs: &'a [(&'static str, u64)],
    /// Growth that a cooldown kept silent.
    pub silenced: u64,
    /// Losses by kind.
    pub losses: [(&'static str, u64); 3],
    /// Times a loop did not answer.
    pub stalls: u64,
    /// CPU time of the guard's threads, nanoseconds.
    pub cpu_nanos: u64,
    /// Samples taken.
    pub ticks: u64,
    /// Live-heap readings and their CPU time, milliseconds.
    pub readings: (u64, f64),
    /// `LEAKGUARD_GC_SHARE`.
    pub gc_share: f64,
}

/// A value and its labels' values, in the order of the family's labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The value; finite.
    pub value: f64,
    /// Values of the labels.
    pub labels: Vec<String>,
}

/// Points by family, in the order of `families()`.
struct Sheet(Vec<Vec<Point>>);

impl Sheet {
    fn put(&mut self, family: usize, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), FAMILIES[family].labels.len(), "{}", FAMILIES[family].name);
        if value.is_finite() {
            let labels = labels.iter().map(|label| clean(label)).collect();
            self.0[family].push(Point { value, labels });
        }
    }

    fn own(&mut self, id: Own, labels: &[&str], value: f64) {
        if let Some(at) = OWN.iter().position(|row| row.id == id) {
            self.put(METRICS.len() + at, labels, value);
        }
    }

    fn series(&mut self, id: SeriesId, labels: &[&str], value: f64) {
        self.put(id as usize, labels, value);
    }
}

impl Scrape<'_> {
    /// The points of every family, in the order of [`families`]. No two of a family have the same labels.
    pub fn points(&self) -> Vec<Vec<Point>> {
        let mut sheet = Sheet(vec![Vec::new(); FAMILIES.len()]);
        let whether = f64::from;
        let seconds = |ms: u64| ms as f64 / 1000.0;
        sheet.own(Own::Up, &[], whether(self.up));
        sheet.own(Own::Info, &[self.app, self.app_version, self.version, self.node], 1.0);
        sheet.own(Own::Uptime, &[], seconds(self.now_ms));
        sheet.own(Own::SampleAge, &[], seconds(self.now_ms.saturating_sub(self.sampled_ms)));
        for view in self.process {
            sheet.series(view.id, &[], view.last);
            growth(&mut sheet, view.id, "", std::iter::once(view));
        }
        for main in [true, false] {
            let threads: Vec<&Thread<'_>> =
                self.threads.iter().filter(|thread| thread.main == main).collect();
            if !threads.is_empty() {
                self.put_threads(&mut sheet, if main { MAIN } else { WORKERS }, &threads);
            }
        }
        if let Some(limit) = self.cgroup_limit {
            sheet.own(Own::CgroupLimit, &[], limit as f64);
        }
        for (limit, seconds) in self.times_to_limit() {
            sheet.own(Own::TimeToLimit, &[limit], seconds);
        }
        for metric in JUDGED.iter() {
            let found = self.tally.findings_of(metric.id);
            sheet.own(Own::Findings, &[metric.name], found as f64);
        }
        for (reason, count) in self.tally.refusals() {
            sheet.own(Own::Refusals, &[reason.code()], count as f64);
        }
        for (reason, outcome, count) in self.tally.snapshots() {
            sheet.own(Own::Snapshots, &[reason.code(), outcome.code()], count as f64);
        }
        sheet.own(Own::SnapshotInProgress, &[], whether(self.snapshot_in_progress));
        sheet.own(Own::DirectoryUsable, &[], whether(self.directory_usable));
        for (verdict, count) in self.previous_runs {
            sheet.own(Own::PreviousRuns, &[verdict], *count as f64);
        }
        sheet.own(Own::Silenced, &[], self.silenced as f64);
        for (kind, count) in self.losses {
            sheet.own(Own::Losses, &[kind], count as f64);
        }
        sheet.own(Own::LoopStalls, &[], self.stalls as f64);
        sheet.own(Own::Cpu, &[], self.cpu_nanos as f64 / 1e9);
        sheet.own(Own::Ticks, &[], self.ticks as f64);
        let (readings, spent_ms) = self.readings;
        sheet.own(Own::Readings, &[], readings as f64);
        sheet.own(Own::ReadingCpu, &[], spent_ms / 1000.0);
        sheet.own(Own::ShareLimit, &[], self.gc_share);
        sheet.0
    }

    fn put_threads(&self, sheet: &mut Sheet, name: &str, threads: &[&Thread<'_>]) {
        let views = |id: SeriesId| {
            threads.iter().filter_map(move |thread| thread.series.iter().find(|view| view.id == id))
        };
        for metric in METRICS.iter().filter(|metric| metric.scope == Scope::Isolate) {
            if metric.id != SeriesId::Handles {
                let merge = FAMILIES[metric.id as usize].merge;
                let merged = views(metric.id).map(|view| view.last).reduce(|a, b| merge.of(a, b));
                if let Some(value) = merged {
                    sheet.series(metric.id, &[name], value);
                }
            }
            growth(sheet, metric.id, name, views(metric.id));
        }
        let oldest = views(SeriesId::LiveHeap).map(|view| view.at.0).min();
        if let Some(read) = oldest {
            let age = self.now_ms.saturating_sub(read) as f64 / 1000.0;
            sheet.own(Own::LiveHeapAge, &[name], age);
        }
        if let Some(limit) =
            threads.iter().filter_map(|thread| thread.heap_limit).reduce(|a, b| a + b)
        {
            sheet.own(Own::HeapLimit, &[name], limit);
        }
        let mut handles: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, count) in threads.iter().flat_map(|thread| thread.handles) {
            *handles.entry(kind).or_default() += count;
        }
        for (kind, count) in handles {
            sheet.series(SeriesId::Handles, &[name, kind], count as f64);
        }
        put_listeners(sheet, name, threads);
    }

    /// Seconds until each limit is reached, where growth that is no chance leads there: at the rate of the steepest
    /// series, or of its later half if that is slower, since what levels off does not arrive.
    fn times_to_limit(&self) -> Vec<(&'static str, f64)> {
        let rate = |view: &SeriesView| {
            let trend = view.trend.filter(|trend| trend.p_value < SIGNIFICANCE)?;
            let per_hour = trend.slope_per_hour.min(trend.later_slope_per_hour);
            (per_hour > 0.0).then_some(per_hour / (HOUR_MS / 1000.0))
        };
        let of_threads = self.threads.iter().flat_map(|thread| thread.series);
        let steepest = self.process.iter().chain(of_threads).filter_map(rate).reduce(f64::max);
        let container = match (self.cgroup_headroom, steepest) {
            (Some(room), Some(rate)) => Some(room as f64 / rate),
            _ => None,
        };
        let heap = self
            .threads
            .iter()
            .filter_map(|thread| {
                let live = thread.series.iter().find(|view| view.id == SeriesId::LiveHeap)?;
                Some((thread.heap_limit? - live.last).max(0.0) / rate(live)?)
            })
            .reduce(f64::min);
        [("container", container), ("heap", heap)]
            .into_iter()
            .filter_map(|(limit, seconds)| Some((limit, seconds?)))
            .collect()
    }

    /// The Prometheus text. It ends with a line feed.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        for (family, points) in FAMILIES.iter().zip(self.points()) {
            if points.is_empty() {
                continue;
            }
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {} {}", family.name, escape_help(&family.help));
            let _ = writeln!(text, "# TYPE {} {}", family.name, family.kind.as_str());
            for Point { value, labels } in &points {
                text.push_str(&family.name);
                for (i, (label, value)) in family.labels.iter().zip(labels).enumerate() {
                    let open = if i == 0 { '{' } else { ',' };
                    let _ = write!(text, "{open}{label}=\"{}\"", escape_label(value));
                }
                if !labels.is_empty() {
                    text.push('}');
                }
                let _ = writeln!(text, " {value}");
            }
        }
        text
    }

    /// The points as JSON: for each family of [`families`] an array of `[value, label, ...]`.
    pub fn json(&self) -> Value {
        let point = |Point { value, labels }: Point| {
            let mut row = vec![json!(value)];
            row.extend(labels.into_iter().map(Value::String));
            Value::Array(row)
        };
        self.points()
            .into_iter()
            .map(|points| points.into_iter().map(point).collect::<Value>())
            .collect()
    }
}

/// Series that can name a finding.
static JUDGED: LazyLock<Vec<&'static Metric>> = LazyLock::new(|| {
    let config = Config::default();
    METRICS.iter().filter(|metric| rule(metric.id, &config).is_some()).collect()
});

/// Slope, confidence and window of a series: of several threads those of the steepest.
fn growth<'a>(
    sheet: &mut Sheet,
    id: SeriesId,
    thread: &str,
    views: impl Iterator<Item = &'a SeriesView>,
) {
    let steepest = views
        .filter_map(|view| view.trend)
        .max_by(|a, b| a.slope_per_hour.total_cmp(&b.slope_per_hour));
    let Some(trend) = steepest else { return };
    let labels = [id.as_str(), thread];
    sheet.own(Own::Growth, &labels, trend.slope_per_hour / (HOUR_MS / 1000.0));
    sheet.own(Own::Confidence, &labels, 1.0 - trend.p_value);
    sheet.own(Own::Window, &labels, trend.window_ms as f64 / 1000.0);
}

/// The longest lists of these threads, and one sum of the others.
fn put_listeners(sheet: &mut Sheet, name: &str, threads: &[&Thread<'_>]) {
    // Cleaned first: what is cut to the same text is one series.
    let mut lines: BTreeMap<[String; 3], u64> = BTreeMap::new();
    let mut other = 0;
    for thread in threads {
        other += thread.listeners.other;
        for line in &thread.listeners.top {
            let site = line.site.as_deref().unwrap_or_default();
            let key = [&line.emitter, &line.event, site].map(clean);
            *lines.entry(key).or_default() += line.count;
        }
    }
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest = lines.split_off(lines.len().min(MAX_LISTENER_TOTALS));
    other += rest.iter().map(|(_, count)| count).sum::<u64>();
    let sum = [OTHER, OTHER, ""].map(str::to_owned);
    if let Some(same) = lines.iter_mut().find(|(key, _)| *key == sum) {
        same.1 += other;
    } else if other > 0 {
        lines.push((sum, other));
    }
    for ([emitter, event, site], count) in lines {
        sheet.series(SeriesId::Listeners, &[name, &emitter, &event, &site], count as f64);
    }
}

/// A label's value: without control characters, and not too long.
fn clean(label: &str) -> String {
    let cut = label.len().saturating_sub(MAX_LABEL);
    let from = (cut..).find(|&at| label.is_char_boundary(at)).unwrap_or(0);
    let cleaned = label.get(from..).unwrap_or_default();
    cleaned.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A label's value as the format wants it. Line feeds are gone already; the rule is kept whole all the same.
fn escape_label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn escape_help(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::pipeline::{ListenerTotal, Trend};
    use crate::sample::Millis;

    const MB: f64 = 1_048_576.0;

    fn view(id: SeriesId, last: f64, per_hour: Option<f64>) -> SeriesView {
        let trend = per_hour.map(|slope_per_hour| Trend {
            slope_per_hour,
            later_slope_per_hour: slope_per_hour / 2.0,
            p_value: 0.01,
            window_ms: 3_600_000,
        });
        SeriesView { id, last, at: Millis(4_000), growing: None, trend }
    }

    fn totals(lists: usize, name: &str) -> ListenerTotals {
        ListenerTotals {
            top: (0..lists)
                .map(|i| ListenerTotal {
                    emitter: format!("{name}{i}"),
                    event: "data".into(),
                    site: Some(format!("/app/{i}.js:7")),
                    count: 100 - i as u64,
                })
                .collect(),
            other: 5,
        }
    }

    fn thread<'a>(
        main: bool,
        series: &'a [SeriesView],
        listeners: &'a ListenerTotals,
    ) -> Thread<'a> {
        let handles = &[("tcp", 3), ("pipe", 1)];
        Thread { main, series, handles, listeners, heap_limit: Some(100.0 * MB) }
    }

    fn scrape<'a>(process: &'a [SeriesView], threads: Vec<Thread<'a>>) -> Scrape<'a> {
        Scrape {
            up: true,
            app: "shop",
            app_version: "1.2.3",
            version: "0.1.0",
            node: "v22.0.0",
            now_ms: 10_000,
            sampled_ms: 9_500,
            process,
            threads,
            cgroup_limit: Some(512 << 20),
            cgroup_headroom: Some(72 << 20),
            tally: Tally::default(),
            snapshot_in_progress: false,
            directory_usable: true,
            previous_runs: &[("near_limit", 2)],
            silenced: 0,
            losses: [("readings", 0), ("events", 0), ("records", 0)],
            stalls: 0,
            cpu_nanos: 1_500_000_000,
            ticks: 10,
            readings: (3, 250.0),
            gc_share: 0.005,
        }
    }

    fn lines<'a>(text: &'a str, family: &str) -> Vec<&'a str> {
        text.lines().filter(|line| line.split(['{', ' ']).next() == Some(family)).collect()
    }

    #[test]
    fn own_rows_stand_in_the_order_of_their_ids_and_every_name_is_there_once() {
        for (i, row) in OWN.iter().enumerate() {
            assert_eq!(row.id as usize, i, "{}", row.name);
        }
        assert_eq!(Own::ShareLimit as usize + 1, OWN.len());
        let names: HashSet<&str> = families().iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names.len(), families().len());
        let otel: Vec<&str> =
            families().iter().filter_map(|family| family.otel.as_deref()).collect();
        assert_eq!(otel.iter().collect::<HashSet<_>>().len(), otel.len());
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for Family { name, kind, help, labels, .. } in families() {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.') && !help.contains('\n'), "{name}");
            assert!(
                labels
                    .iter()
                    .all(|label| label.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            );
        }
    }

    #[test]
    fn a_scrape_shows_each_series_with_help_type_and_unit() {
        let series = [view(SeriesId::LiveHeap, 50.0 * MB, Some(36.0 * MB))];
        let listeners = totals(1, "Bus");
        let process = [view(SeriesId::Fds, 21.0, None)];
        let text = scrape(&process, vec![thread(true, &series, &listeners)]).text();
        for line in [
            "# HELP leakguard_live_heap_bytes heap in use just after a major GC",
            "# TYPE leakguard_live_heap_bytes gauge",
            "leakguard_live_heap_bytes{thread=\"main\"} 52428800",
            "leakguard_fds 21",
            "leakguard_handles{thread=\"main\",type=\"tcp\"} 3",
            "leakguard_listeners{thread=\"main\",emitter=\"Bus0\",event=\"data\",site=\"/app/0.js:7\"} 100",
            "leakguard_listeners{thread=\"main\",emitter=\"other\",event=\"other\",site=\"\"} 5",
            "leakguard_growth_bytes_per_second{series=\"live_heap\",thread=\"main\"} 10485.76",
            "leakguard_growth_confidence_ratio{series=\"live_heap\",thread=\"main\"} 0.99",
            "leakguard_growth_window_seconds{series=\"live_heap\",thread=\"main\"} 3600",
            // 50 MB of V8's limit and 72 MB of the container's are left, at 18 MB/h.
            "leakguard_time_to_limit_seconds{limit=\"container\"} 14400",
            "leakguard_time_to_limit_seconds{limit=\"heap\"} 10000",
            "leakguard_findings_total{series=\"live_heap\"} 0",
            "leakguard_refusals_total{reason=\"memory\"} 0",
            "leakguard_snapshots_total{kind=\"follow_up\",outcome=\"refused\"} 0",
            "leakguard_previous_runs{verdict=\"near_limit\"} 2",
            "leakguard_live_heap_age_seconds{thread=\"main\"} 6",
            "leakguard_sample_age_seconds 0.5",
            "leakguard_cpu_seconds_total 1.5",
            "leakguard_live_heap_reading_cpu_seconds_total 0.25",
            "leakguard_info{app=\"shop\",app_version=\"1.2.3\",version=\"0.1.0\",node=\"v22.0.0\"} 1",
            "leakguard_up 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn growth_that_is_chance_or_has_ended_leads_to_no_limit() {
        let mut chance = view(SeriesId::LiveHeap, 50.0 * MB, Some(36.0 * MB));
        let mut ended = chance.clone();
        chance.trend.as_mut().unwrap().p_value = 0.2;
        ended.trend.as_mut().unwrap().later_slope_per_hour = 0.0;
        let none = ListenerTotals::default();
        for one in [chance, ended] {
            let series = [one];
            let text = scrape(&[], vec![thread(true, &series, &none)]).text();
            assert!(lines(&text, "leakguard_time_to_limit_seconds").is_empty());
            assert_eq!(lines(&text, "leakguard_growth_bytes_per_second").len(), 1);
        }
    }

    #[test]
    fn workers_are_one_however_many_there_are() {
        let (slow, fast) = (
            [view(SeriesId::LiveHeap, MB, Some(MB)), view(SeriesId::LoopUtilization, 0.25, None)],
            [
                view(SeriesId::LiveHeap, 2.0 * MB, Some(3600.0)),
                view(SeriesId::LoopUtilization, 0.5, None),
            ],
        );
        let listeners: Vec<_> = (0..64).map(|i| totals(20, &format!("W{i}_"))).collect();
        let threads = (0..64)
            .map(|i| thread(false, if i == 0 { &slow } else { &fast }, &listeners[i]))
            .collect();
        let text = scrape(&[], threads).text();
        assert_eq!(
            lines(&text, "leakguard_live_heap_bytes"),
            [format!("leakguard_live_heap_bytes{{thread=\"workers\"}} {}", 127 << 20)]
        );
        assert_eq!(
            lines(&text, "leakguard_loop_utilization_ratio"),
            ["leakguard_loop_utilization_ratio{thread=\"workers\"} 0.5"]
        );
        let steepest = format!(
            "leakguard_growth_bytes_per_second{{series=\"live_heap\",thread=\"workers\"}} {}",
            MB / 3600.0
        );
        assert_eq!(lines(&text, "leakguard_growth_bytes_per_second"), [steepest]);
        let shown = lines(&text, "leakguard_listeners");
        assert_eq!(shown.len(), MAX_LISTENER_TOTALS + 1);
        let counted: u64 =
            shown.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        let there: u64 = listeners
            .iter()
            .map(|one| one.other + one.top.iter().map(|l| l.count).sum::<u64>())
            .sum();
        assert_eq!(counted, there);
    }

    #[test]
    fn hostile_names_are_escaped_cut_and_never_twice_the_same() {
        let long = "x".repeat(400);
        let line = |emitter: &str, event: &str, count: u64| ListenerTotal {
            emitter: emitter.into(),
            event: event.into(),
            site: None,
            count,
        };
        let listeners = ListenerTotals {
            top: vec![
                line("a\"b\\c", "new\nline\r\u{1b}[31m", 3),
                line(&format!("1{long}"), "é", 2),
                line(&format!("2{long}"), "é", 2),
                line("ééé", &"é".repeat(200), 1),
                line("other", "other", 1),
            ],
            other: 5,
        };
        let text = scrape(&[], vec![thread(true, &[], &listeners)]).text();
        let shown = lines(&text, "leakguard_listeners");
        assert_eq!(shown.len(), 4, "{shown:#?}");
        assert!(shown.contains(
            &"leakguard_listeners{thread=\"main\",emitter=\"a\\\"b\\\\c\",event=\"new line  [31m\",site=\"\"} 3"
        ), "{shown:#?}");
        assert!(shown.iter().any(|line| line.contains("other") && line.ends_with(" 6")));
        let same = format!("emitter=\"{}\",event=\"é\",site=\"\"}} 4", "x".repeat(MAX_LABEL));
        assert!(shown.iter().any(|line| line.ends_with(&same)));
        let names: HashSet<&str> =
            text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
        assert_eq!(names.len(), text.lines().count());
    }

    #[test]
    fn what_is_not_a_number_is_left_out_and_json_holds_what_the_text_shows() {
        let process = [view(SeriesId::Native, f64::NAN, None), view(SeriesId::Rss, 7.0, None)];
        let of = scrape(&process, Vec::new());
        let text = of.text();
        assert!(lines(&text, "leakguard_native_bytes").is_empty());
        let json = of.json();
        assert_eq!(json[SeriesId::Rss as usize], json!([[7.0]]));
        let points: usize =
            json.as_array().unwrap().iter().map(|of| of.as_array().unwrap().len()).sum();
        assert_eq!(points, text.lines().filter(|line| !line.starts_with('#')).count());
    }
}
