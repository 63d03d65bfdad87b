//! Process figures: one contract, one implementation per platform.
//!
//! [`Probe::read`] is the tick's reading and costs microseconds; the other functions here are for findings
//! and budgets and are called rarely. Nothing here judges a figure, keeps a history or knows about V8.
//! On Linux everything is read through kept file descriptors (`linux`, `cgroup`); elsewhere through a
//! crate (`other`), with fewer figures. A figure that cannot be had is `None`, never an error.

pub mod code;
pub mod exit;
pub mod own;
pub mod uv;

#[cfg(any(target_os = "linux", test))]
mod procfs;

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod inventory;
#[cfg(target_os = "linux")]
mod kept;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as platform;

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
use other as platform;

use std::path::{Path, PathBuf};

use crate::sample::ProcessSample;
pub use own::OwnCounts;

/// Reads the figures of this process.
///
/// One value lives in the native thread and is read at every tick. A reading blocks for nothing but the
/// kernel's own work and never panics; what failed is `None` and is tried again the next time.
pub trait Probe: Send {
    /// Reads everything once. `own` is what the guard itself holds ([`own::counts`]); it is taken off the
    /// counts of descriptors and threads.
    fn read(&mut self, own: OwnCounts) -> ProcessSample;
}

/// The probe of this platform. It opens nothing that it cannot do without: with no descriptor left it
/// still comes back, reads `None`, and opens again later.
pub fn open() -> Box<dyn Probe> {
    platform::open()
}

/// Descriptors of one kind, for the report of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdKind {
    /// `file`, `tcp`, `socket` (any other), `pipe`, `anon_inode:[eventpoll]`, ... as the kernel names it.
    pub kind: String,
    /// How many there are, those of the guard not counted.
    pub count: u64,
    /// The most frequent objects behind them, with their counts, most frequent first: paths of files,
    /// `to 10.0.0.5:5432 ESTABLISHED` and `client of :3000 CLOSE_WAIT` for sockets. At most five.
    pub examples: Vec<(String, u64)>,
}

/// What the open descriptors are, most frequent kind first. Looks at the first 100,000 at most; empty
/// where the platform does not tell. Milliseconds for thousands of descriptors: not for the tick.
pub fn fds_by_kind() -> Vec<FdKind> {
    platform::fds_by_kind()
}

/// Names of the threads with how many bear each, most frequent first, those of the guard not counted.
/// Looks at the first 10,000 threads at most; empty where the platform does not tell.
pub fn threads_by_name() -> Vec<(String, u64)> {
    platform::threads_by_name()
}

/// CPU time that all threads but these, and but the guard's, have used since the process started,
/// microseconds. Of use is the difference of two calls with the same `excluded`: with the main threads of
/// the isolates excluded, it is what V8's helper threads (and libuv's pool) worked in between.
///
/// It is the time of the process less that of the excluded threads, so a helper that ended in between is
/// counted, and the cost does not grow with the number of threads. `None` if one of `excluded` is no thread
/// of this process, or where the platform does not tell.
pub fn other_threads_cpu_micros(excluded: &[ThreadId]) -> Option<u64> {
    platform::other_threads_cpu_micros(excluded)
}

/// The kernel's number of a thread (`gettid` on Linux). Zero where the platform has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub u32);

/// The calling thread.
pub fn current_thread() -> ThreadId {
    platform::current_thread()
}

/// Room on the file system of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFree {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Whether the files lie in memory (tmpfs, ramfs): what is written there counts against the container.
    pub is_memory: bool,
}

/// Room on the file system that holds `path`. `None` if the path is not there or the platform does not tell.
pub fn disk_free(path: &Path) -> Option<DiskFree> {
    platform::disk_free(path)
}

/// The memory cgroup of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryCgroup {
    /// Version of the hierarchy, 1 or 2.
    pub version: u8,
    /// Its directory as this process sees it.
    pub directory: PathBuf,
}

/// Where this process' memory is limited. `None` if no memory controller is mounted or the platform has none.
pub fn memory_cgroup() -> Option<MemoryCgroup> {
    platform::memory_cgroup()
}

/// What tells one container or boot from the next, so that a later run can say whether a figure of an
/// earlier one belongs to the same limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostIdentity {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
    /// Inode of the memory cgroup's directory: unique within one boot.
    pub cgroup_inode: Option<u64>,
}

/// Identity of boot and memory cgroup. Cheap, but of use once per run only.
pub fn host_identity() -> HostIdentity {
    platform::host_identity()
}
