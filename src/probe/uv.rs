//! Counts the active handles of a libuv loop by type. JS timers are not libuv handles one by one; they are
//! counted elsewhere. The functions are looked up at run time: one missing name would fail the whole load.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// `uv_handle_type` has 17 values up to libuv 1.51; later ones are counted as unknown.
const TYPES: usize = 32;

/// Types that are held by what an app opens, and so can leak. Not among them: `async` (one is ours), `timer`
/// (Node has one for all JS timers), `signal` (bounded), `check`, `idle`, `prepare` (Node's own).
const LEAKABLE: [&str; 8] = ["tcp", "pipe", "udp", "tty", "process", "fs_event", "fs_poll", "poll"];

type Walk =
    unsafe extern "C" fn(*mut c_void, unsafe extern "C" fn(*mut c_void, *mut c_void), *mut c_void);

#[derive(Clone, Copy)]
struct Symbols {
    walk: Walk,
    is_active: unsafe extern "C" fn(*const c_void) -> c_int,
    get_type: unsafe extern "C" fn(*const c_void) -> c_int,
    type_name: unsafe extern "C" fn(c_int) -> *const c_char,
    clocks: Option<Clocks>,
}

/// Both in nanoseconds.
#[derive(Clone, Copy)]
struct Clocks {
    idle_time: unsafe extern "C" fn(*mut c_void) -> u64,
    hrtime: unsafe extern "C" fn() -> u64,
}

fn symbols() -> Option<Symbols> {
    static SYMBOLS: OnceLock<Option<Symbols>> = OnceLock::new();
    *SYMBOLS.get_or_init(|| {
        // SAFETY: the types are those of uv.h, stable since libuv 1.19 (Node 10).
        unsafe {
            Some(Symbols {
                walk: find(c"uv_walk")?,
                is_active: find(c"uv_is_active")?,
                get_type: find(c"uv_handle_get_type")?,
                type_name: find(c"uv_handle_type_name")?,
                clocks: clocks(),
            })
        }
    })
}

/// # Safety
/// None beyond that of [`find`].
unsafe fn clocks() -> Option<Clocks> {
    // SAFETY: the types are those of uv.h, stable since libuv 1.39 (Node 14).
    unsafe {
        Some(Clocks { idle_time: find(c"uv_metrics_idle_time")?, hrtime: find(c"uv_hrtime")? })
    }
}

/// # Safety
/// `F` must be the function pointer type of the C function of that name.
#[cfg(unix)]
unsafe fn find<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: dlsym takes any terminated string; RTLD_DEFAULT searches what is loaded and loads nothing.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: F is a function pointer of the size of a data pointer (asserted), and by contract its type.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
}

#[cfg(not(unix))]
unsafe fn find<F: Copy>(_name: &CStr) -> Option<F> {
    None
}

/// The loop of one environment. Lives on its JS thread.
pub struct Loop {
    uv: NonNull<c_void>,
    symbols: Symbols,
    /// Idle time and time of the last call of [`Loop::utilization`], nanoseconds.
    last: Cell<Option<(u64, u64)>>,
}

impl Loop {
    /// Wraps a `uv_loop_t`. `None` if libuv's functions are not to be found.
    ///
    /// # Safety
    /// `uv` must be the loop of the environment of this thread, and outlive the value.
    pub unsafe fn new(uv: *mut c_void) -> Option<Loop> {
        Some(Loop { uv: NonNull::new(uv)?, symbols: symbols()?, last: Cell::default() })
    }

    /// Whether [`Loop::utilization`] can be had.
    pub fn tells_utilization(&self) -> bool {
        self.symbols.clocks.is_some()
    }

    /// Share of the time since the last call in which the loop was busy, 0 to 1, as
    /// `performance.eventLoopUtilization()` has it. `None` the first time. Node has libuv measure idle time in all
    /// its loops (`UV_METRICS_IDLE_TIME`); in one that does not, the share is 1, in Node's function too.
    pub fn utilization(&self) -> Option<f64> {
        let clocks = self.symbols.clocks?;
        // SAFETY: the loop lives and this is its thread (contract of `new`); `uv_hrtime` takes nothing.
        let (idle, now) = unsafe { ((clocks.idle_time)(self.uv.as_ptr()), (clocks.hrtime)()) };
        let (idle_before, before) = self.last.replace(Some((idle, now)))?;
        let elapsed = now.saturating_sub(before);
        let idle = idle.saturating_sub(idle_before);
        (elapsed > 0).then(|| (1.0 - idle as f64 / elapsed as f64).clamp(0.0, 1.0))
    }

    /// Active handles that can leak, by type, most first. About 0.1 us, and 6 ns a handle.
    pub fn handles(&self) -> Vec<(&'static str, u64)> {
        let mut state = Counting { counts: [0; TYPES], symbols: self.symbols };
        // SAFETY: the loop lives and this is its thread (contract of `new`); `count` touches nothing but
        // the struct it is given, and closes no handle, as uv_walk asks.
        unsafe {
            (self.symbols.walk)(self.uv.as_ptr(), count, (&raw mut state).cast());
        }
        let mut by_type: Vec<(&'static str, u64)> = Vec::new();
        for (kind, &count) in state.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            // SAFETY: returns null for an unknown type, else a static string.
            let name = unsafe { (self.symbols.type_name)(kind as c_int) };
            if name.is_null() {
                continue;
            }
            // SAFETY: not null, terminated, static.
            let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default();
            if let Some(name) = LEAKABLE.into_iter().find(|leakable| *leakable == name) {
                by_type.push((name, count));
            }
        }
        by_type.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        by_type
    }
}

struct Counting {
    counts: [u64; TYPES],
    symbols: Symbols,
}

unsafe extern "C" fn count(handle: *mut c_void, state: *mut c_void) {
    // SAFETY: `state` is the Counting that `handles` passed, used by nobody else during the walk.
    let state = unsafe { &mut *state.cast::<Counting>() };
    // SAFETY: uv_walk passes handles that are alive.
    let (active, kind) =
        unsafe { ((state.symbols.is_active)(handle), (state.symbols.get_type)(handle)) };
    if active != 0
        && let Some(count) = usize::try_from(kind).ok().and_then(|kind| state.counts.get_mut(kind))
    {
        *count += 1;
    }
}
