//! What leakguard itself holds: descriptors and threads, counted so that the guard does not report itself.
//!
//! Whoever opens a descriptor that lives longer than a call, or starts a thread, keeps one of these values
//! beside it: `let _own = own::fd();`. The counts belong to the process and never wait for anybody but the
//! few instructions of another registration.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::ThreadId;

static FDS: AtomicU64 = AtomicU64::new(0);
static THREADS: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());
/// Numbers of the descriptors that gave theirs; only the report of a finding asks for them.
static FD_NUMBERS: Mutex<Vec<i32>> = Mutex::new(Vec::new());
/// CPU time of guard threads that have ended, nanoseconds.
static ENDED_CPU_NANOS: AtomicU64 = AtomicU64::new(0);

/// What the guard holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnCounts {
    /// Open descriptors.
    pub fds: u64,
    /// Running threads.
    pub threads: u64,
}

/// What the guard holds now.
pub fn counts() -> OwnCounts {
    OwnCounts { fds: FDS.load(Relaxed), threads: THREADS.lock().len() as u64 }
}

/// One descriptor of the guard; taken off again on drop. Declare it after the file, so that the file closes first.
#[derive(Debug)]
#[must_use = "the descriptor is counted only as long as this value lives"]
pub struct Fd {
    number: Option<i32>,
}

/// Registers one descriptor.
pub fn fd() -> Fd {
    FDS.fetch_add(1, Relaxed);
    Fd { number: None }
}

/// Registers one descriptor by its number, so that [`super::fds_by_kind`] leaves it out as well. For the
/// long-lived ones.
pub fn numbered_fd(number: i32) -> Fd {
    FDS.fetch_add(1, Relaxed);
    FD_NUMBERS.lock().push(number);
    Fd { number: Some(number) }
}

impl Drop for Fd {
    fn drop(&mut self) {
        FDS.fetch_sub(1, Relaxed);
        if let Some(number) = self.number {
            let mut numbers = FD_NUMBERS.lock();
            if let Some(at) = numbers.iter().position(|&n| n == number) {
                numbers.swap_remove(at);
            }
        }
    }
}

/// The calling thread as one of the guard's; taken off again on drop. It stays on its thread.
#[derive(Debug)]
#[must_use = "the thread is counted only as long as this value lives"]
pub struct Thread {
    id: ThreadId,
    /// Not `Send`: the drop reads the CPU time of the thread that ends.
    _stays_here: std::marker::PhantomData<*const ()>,
}

/// Registers the calling thread: first line of each thread the guard starts.
pub fn thread() -> Thread {
    let id = super::current_thread();
    THREADS.lock().push(id);
    Thread { id, _stays_here: std::marker::PhantomData }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let mut threads = THREADS.lock();
        ENDED_CPU_NANOS.fetch_add(super::platform::thread_cpu_nanos(self.id).unwrap_or(0), Relaxed);
        if let Some(at) = threads.iter().position(|&id| id == self.id) {
            threads.swap_remove(at);
        }
    }
}

/// Calls `f` with the guard's running threads and the CPU time, in nanoseconds, of those that have ended.
pub(super) fn with_threads<R>(f: impl FnOnce(&[ThreadId], u64) -> R) -> R {
    let threads = THREADS.lock();
    f(&threads, ENDED_CPU_NANOS.load(Relaxed))
}

/// CPU time of all threads of the guard so far, those that have ended included, nanoseconds; zero where the
/// platform does not tell.
pub fn cpu_nanos() -> u64 {
    with_threads(|threads, ended| {
        let running = threads.iter().filter_map(|id| super::platform::thread_cpu_nanos(*id));
        ended + running.sum::<u64>()
    })
}

/// Kernel ids of the guard's running threads.
pub fn thread_ids() -> Vec<u32> {
    THREADS.lock().iter().map(|thread| thread.0).collect()
}

/// Numbers of the registered descriptors that gave theirs.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) fn fd_numbers() -> Vec<i32> {
    FD_NUMBERS.lock().clone()
}
