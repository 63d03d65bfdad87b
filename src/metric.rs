//! The table of series: what each is called, what it counts, whom it belongs to. Adding a metric is a row
//! here and its reading; what is judged, and how, stands in `detect`.

/// A series. The names of `as_str` are the contract with users: the same in findings, `status()`, files
/// and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SeriesId {
    /// Heap in use just after a major GC.
    LiveHeap,
    /// Bytes of ArrayBuffers, read after a major GC.
    ArrayBuffers,
    /// External memory V8 accounts for, ArrayBuffers not counted, read after a major GC.
    External,
    /// Anonymous resident memory outside V8's heap and its external memory.
    Native,
    /// Resident set size.
    Rss,
    /// Open file descriptors.
    Fds,
    /// Active libuv handles: sockets, pipes, processes, watchers.
    Handles,
    /// JavaScript timers.
    Timers,
    /// Threads.
    Threads,
    /// Listeners of one event on one emitter, for the emitters that have most.
    Listeners,
    /// Heap in use as sampled, garbage included.
    HeapUsed,
    /// Heap committed by V8.
    HeapTotal,
    /// Memory charged to the container.
    CgroupUsed,
    /// Share of the time the event loop was busy.
    LoopUtilization,
}

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// A fraction, 0 to 1.
    Ratio,
}

impl Unit {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Count => "count",
            Unit::Ratio => "ratio",
        }
    }
}

/// Whom a series belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process: judged once.
    Process,
    /// One isolate: the main thread or a worker.
    Isolate,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Which series.
    pub id: SeriesId,
    /// Its name for users.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// Whom it belongs to.
    pub scope: Scope,
    /// How it is spoken of in a sentence: "live heap grows".
    pub words: &'static str,
    /// One line of help.
    pub help: &'static str,
}

const fn row(
    id: SeriesId,
    name: &'static str,
    unit: Unit,
    scope: Scope,
    words: &'static str,
    help: &'static str,
) -> Metric {
    Metric { id, name, unit, scope, words, help }
}

/// Every series, in the order of the docs. All are gauges.
pub const METRICS: &[Metric] = &[
    row(
        SeriesId::LiveHeap,
        "live_heap",
        Unit::Bytes,
        Scope::Isolate,
        "the live heap",
        "heap in use just after a major GC",
    ),
    row(
        SeriesId::ArrayBuffers,
        "array_buffers",
        Unit::Bytes,
        Scope::Isolate,
        "ArrayBuffer memory",
        "memory of ArrayBuffers and Buffers, read after a major GC",
    ),
    row(
        SeriesId::External,
        "external",
        Unit::Bytes,
        Scope::Isolate,
        "external memory",
        "memory outside the heap that V8 accounts for, ArrayBuffers not counted",
    ),
    row(
        SeriesId::Native,
        "native",
        Unit::Bytes,
        Scope::Process,
        "native memory",
        "anonymous resident memory outside V8's heap and external memory",
    ),
    row(
        SeriesId::Rss,
        "rss",
        Unit::Bytes,
        Scope::Process,
        "resident memory",
        "resident set size; reported, never judged",
    ),
    row(
        SeriesId::Fds,
        "fds",
        Unit::Count,
        Scope::Process,
        "open file descriptors",
        "open file descriptors",
    ),
    row(
        SeriesId::Handles,
        "handles",
        Unit::Count,
        Scope::Isolate,
        "libuv handles",
        "active sockets, pipes, processes and watchers of libuv",
    ),
    row(
        SeriesId::Timers,
        "timers",
        Unit::Count,
        Scope::Isolate,
        "timers",
        "JavaScript timers that are pending",
    ),
    row(
        SeriesId::Threads,
        "threads",
        Unit::Count,
        Scope::Process,
        "threads",
        "threads of the process",
    ),
    row(
        SeriesId::Listeners,
        "listeners",
        Unit::Count,
        Scope::Isolate,
        "listeners",
        "listeners of one event on one emitter",
    ),
    row(
        SeriesId::HeapUsed,
        "heap_used",
        Unit::Bytes,
        Scope::Isolate,
        "the used heap",
        "heap in use as sampled, garbage included; reported, never judged",
    ),
    row(
        SeriesId::HeapTotal,
        "heap_total",
        Unit::Bytes,
        Scope::Isolate,
        "the committed heap",
        "heap committed by V8; reported, never judged",
    ),
    row(
        SeriesId::CgroupUsed,
        "cgroup_used",
        Unit::Bytes,
        Scope::Process,
        "container memory",
        "memory charged to the container, inactive file cache not counted",
    ),
    row(
        SeriesId::LoopUtilization,
        "loop_utilization",
        Unit::Ratio,
        Scope::Isolate,
        "event-loop utilization",
        "share of the time the event loop was busy",
    ),
];

impl SeriesId {
    /// This series' row of the table.
    pub fn metric(self) -> &'static Metric {
        // Every variant has a row; the test below would fail otherwise.
        METRICS.iter().find(|metric| metric.id == self).unwrap_or(&METRICS[0])
    }

    /// The name for users.
    pub fn as_str(self) -> &'static str {
        self.metric().name
    }

    /// The series of a name.
    pub fn from_name(name: &str) -> Option<SeriesId> {
        METRICS.iter().find(|metric| metric.name == name).map(|metric| metric.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_its_own_row_and_name() {
        for (i, metric) in METRICS.iter().enumerate() {
            assert_eq!(metric.id as usize, i, "{}", metric.name);
            assert_eq!(METRICS.iter().filter(|other| other.name == metric.name).count(), 1);
        }
        assert_eq!(SeriesId::LoopUtilization as usize + 1, METRICS.len());
    }
}
