//! What one tick of the sampler sees. It only names the figures; who reads them is in `probe` (process)
//! and in the JS thread (isolate).
//!
//! An absent reading is `None`: the platform has no such figure, or reading it failed this time. It is
//! never zero and never the last value.

/// Milliseconds on the monotonic clock, counted from the moment the guard started in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// One isolate under guard: the main thread, or a worker that loaded leakguard. Numbered in the order in
/// which they came; a number is not used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IsolateId(pub u32);

/// Figures of one isolate, read by its JS thread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IsolateReading {
    /// Heap in use, garbage included, bytes.
    pub heap_used_bytes: Option<f64>,
    /// Heap committed, bytes.
    pub heap_total_bytes: Option<f64>,
    /// V8's limit for the heap, bytes.
    pub heap_limit_bytes: Option<f64>,
    /// External memory V8 accounts for, ArrayBuffers included, bytes.
    pub external_bytes: Option<f64>,
    /// ArrayBuffers, bytes.
    pub array_buffers_bytes: Option<f64>,
    /// Heap in V8's large-object spaces, bytes; read after a major GC only.
    pub large_object_bytes: Option<f64>,
    /// Share of the time since the last reading in which the event loop was busy, 0 to 1.
    pub loop_utilization: Option<f64>,
    /// Active libuv handles that can leak: sockets, pipes, processes, watchers.
    pub handles: Option<f64>,
    /// Pending JavaScript timers.
    pub timers: Option<f64>,
    /// Whether this was read directly after a major GC.
    pub after_gc: bool,
}

/// The heap just after a major GC.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveHeapReading {
    /// Heap in use, bytes.
    pub bytes: f64,
    /// How long the GC's last step stopped the loop, milliseconds.
    pub pause_ms: f64,
}

/// Listeners of one event on one emitter, or of one line of code on many emitters.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerCount {
    /// Names this emitter and event within the isolate, for as long as the emitter lives; or this line.
    pub key: u32,
    /// Class of the emitter.
    pub emitter: String,
    /// The event.
    pub event: String,
    /// Listeners now; of a line what its samples stand for.
    pub count: u64,
    /// The code that adds them, where a stack was taken.
    pub site: Option<Site>,
    /// For a line of code whose listeners are spread over many emitters: the number of the major GC after which
    /// they were counted. `None` for one emitter.
    pub round: Option<u32>,
}

/// A place in the app's code.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Site {
    /// Function, empty if it has no name.
    pub function: String,
    /// Path or URL of the file.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Figures of the whole process, read by the native thread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessSample {
    /// Resident set size, bytes.
    pub rss_bytes: Option<u64>,
    /// Anonymous part of the resident set, bytes: heaps, stacks, malloc; no file pages.
    pub rss_anon_bytes: Option<u64>,
    /// Highest resident set so far, bytes.
    pub rss_peak_bytes: Option<u64>,
    /// Open file descriptors, those of the guard not counted.
    pub fds: Option<u64>,
    /// Threads, those of the guard not counted.
    pub threads: Option<u64>,
    /// Bytes handed out by malloc and not freed (glibc `mallinfo2`: uordblks + hblkhd).
    pub malloc_used_bytes: Option<u64>,
    /// Bytes malloc holds but has not handed out (glibc `mallinfo2`: fordblks). Fragmentation shows here.
    pub malloc_free_bytes: Option<u64>,
    /// Memory charged to the cgroup, bytes, inactive file cache not counted (what the OOM killer looks at).
    pub cgroup_used_bytes: Option<u64>,
    /// Lowest memory limit of the cgroup and its ancestors, bytes; `None` if there is none.
    pub cgroup_limit_bytes: Option<u64>,
    /// Smallest distance between limit and use over the cgroup and its ancestors that can be seen, bytes: what is
    /// left until the OOM killer comes. It can be less than limit minus use where an ancestor (a pod) is
    /// shared. `None` if there is no limit.
    pub cgroup_headroom_bytes: Option<u64>,
    /// Whether an OOM kill takes the whole cgroup (`memory.oom.group`, cgroup v2).
    pub cgroup_oom_group: Option<bool>,
    /// Memory the machine can still give without swapping, bytes (`MemAvailable`).
    pub mem_available_bytes: Option<u64>,
    /// Total memory of the machine, bytes.
    pub mem_total_bytes: Option<u64>,
    /// Share of the last 10 s in which some task waited for memory, percent (PSI `some avg10`); that of
    /// the cgroup where it has one, else that of the machine.
    pub memory_pressure_percent: Option<f64>,
    /// CPU time of the whole process so far, microseconds, user and system.
    pub cpu_micros: Option<u64>,
    /// Address-space limit (`RLIMIT_AS`), bytes; `None` if unlimited.
    pub address_space_limit_bytes: Option<u64>,
    /// Address space in use, bytes.
    pub address_space_bytes: Option<u64>,
}
