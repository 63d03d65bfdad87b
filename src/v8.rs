//! The few V8 functions that Node-API does not offer, looked up by name in the running binary. Each is
//! optional: absent, or failing its self-check, the guard falls back to public API. It calls; it does not
//! decide when.
//!
//! Rules that every call here keeps:
//! - it is made on the JS thread of the isolate it concerns, and the isolate is the current one;
//! - no isolate pointer leaves [`Gc`], which is neither `Send` nor `Sync` and removes its callbacks when it
//!   is dropped, at the latest in the environment's cleanup hook, when the isolate still lives.
//!
//! The names are those of the Itanium C++ ABI and were found unchanged in Node 18 to 26.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crate::sample::LiveHeapReading;

/// `v8::MemoryPressureLevel::kModerate`.
const MODERATE: c_int = 1;

/// `v8::GCType::kGCTypeMarkSweepCompact` (v8-callbacks.h, unchanged since V8 9).
const MARK_SWEEP_COMPACT: c_int = 4;

/// `v8::GCType::kGCTypeIncrementalMarking`: its epilogue is called when incremental marking has begun and V8's
/// concurrent markers have their job (`IncrementalMarking::StartMarkingMajor`, src/heap/incremental-marking.cc).
const INCREMENTAL_MARKING: c_int = 8;

/// Words of `v8::HeapStatistics` are 14 to 15 in Node 18 to 26; room for what later versions may add.
const STATISTICS_WORDS: usize = 64;

/// Fields of `v8::HeapStatistics`, in words (v8-statistics.h).
const TOTAL_HEAP_SIZE: usize = 0;
const USED_HEAP_SIZE: usize = 4;
const HEAP_SIZE_LIMIT: usize = 5;
const EXTERNAL_MEMORY: usize = 7;

/// Words of `v8::HeapSpaceStatistics` are 5; room as above.
const SPACE_WORDS: usize = 16;

/// Fields of `v8::HeapSpaceStatistics`, in words: a terminated string, and bytes.
const SPACE_NAME: usize = 0;
const SPACE_USED_SIZE: usize = 2;

/// What the names of the spaces of large objects have in common (`BaseSpace::GetSpaceName`, src/heap/base-space.cc).
const LARGE_OBJECTS: &str = "large_object";

/// Readings made to compare with public API: a GC may fall between the two.
const CHECKS: usize = 3;

type Isolate = c_void;
type GetCurrent = unsafe extern "C" fn() -> *mut Isolate;
type MemoryPressureNotification = unsafe extern "C" fn(*mut Isolate, c_int);
type GetHeapStatistics = unsafe extern "C" fn(*mut Isolate, *mut usize);
type NumberOfHeapSpaces = unsafe extern "C" fn(*mut Isolate) -> usize;
type GetHeapSpaceStatistics = unsafe extern "C" fn(*mut Isolate, *mut usize, usize) -> bool;
type GcCallback = unsafe extern "C" fn(*mut Isolate, c_int, c_int, *mut c_void);
type AddGcCallback = unsafe extern "C" fn(*mut Isolate, GcCallback, *mut c_void, c_int);
type RemoveGcCallback = unsafe extern "C" fn(*mut Isolate, GcCallback, *mut c_void);

/// What was found in this binary.
struct Symbols {
    get_current: GetCurrent,
    memory_pressure: Option<MemoryPressureNotification>,
    get_heap_statistics: Option<GetHeapStatistics>,
    spaces: Option<Spaces>,
    callbacks: Option<Callbacks>,
}

struct Spaces {
    number: NumberOfHeapSpaces,
    statistics: GetHeapSpaceStatistics,
}

#[derive(Clone, Copy)]
struct Callbacks {
    add_prologue: AddGcCallback,
    remove_prologue: RemoveGcCallback,
    add_epilogue: AddGcCallback,
    remove_epilogue: RemoveGcCallback,
}

/// Looks a function up in the process.
///
/// # Safety
/// `F` must be the function pointer type of the C++ function of that name.
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
    // Windows mangles differently and exports other names: public API only.
    None
}

fn symbols() -> Option<&'static Symbols> {
    static SYMBOLS: OnceLock<Option<Symbols>> = OnceLock::new();
    SYMBOLS
        .get_or_init(|| {
            // SAFETY: every type is that of v8-isolate.h for the method of that mangled name; `this` comes
            // first, enums are passed as int, references and pointers as pointers.
            unsafe {
                Some(Symbols {
                    get_current: find(c"_ZN2v87Isolate10GetCurrentEv")?,
                    memory_pressure: find(
                        c"_ZN2v87Isolate26MemoryPressureNotificationENS_19MemoryPressureLevelE",
                    ),
                    get_heap_statistics: find(
                        c"_ZN2v87Isolate17GetHeapStatisticsEPNS_14HeapStatisticsE",
                    ),
                    spaces: spaces(),
                    callbacks: callbacks(),
                })
            }
        })
        .as_ref()
}

/// # Safety
/// None beyond that of [`find`]: the types are those of v8-isolate.h.
unsafe fn spaces() -> Option<Spaces> {
    // SAFETY: as in `symbols`.
    unsafe {
        Some(Spaces {
            number: find(c"_ZN2v87Isolate18NumberOfHeapSpacesEv")?,
            statistics: find(
                c"_ZN2v87Isolate22GetHeapSpaceStatisticsEPNS_19HeapSpaceStatisticsEm",
            )?,
        })
    }
}

/// # Safety
/// None beyond that of [`find`]: the types are those of v8-isolate.h.
unsafe fn callbacks() -> Option<Callbacks> {
    // SAFETY: as in `symbols`.
    unsafe {
        Some(Callbacks {
            add_prologue: find(
                c"_ZN2v87Isolate21AddGCPrologueCallbackEPFvPS0_NS_6GCTypeENS_15GCCallbackFlagsEPvES4_S2_",
            )?,
            remove_prologue: find(
                c"_ZN2v87Isolate24RemoveGCPrologueCallbackEPFvPS0_NS_6GCTypeENS_15GCCallbackFlagsEPvES4_",
            )?,
            add_epilogue: find(
                c"_ZN2v87Isolate21AddGCEpilogueCallbackEPFvPS0_NS_6GCTypeENS_15GCCallbackFlagsEPvES4_S2_",
            )?,
            remove_epilogue: find(
                c"_ZN2v87Isolate24RemoveGCEpilogueCallbackEPFvPS0_NS_6GCTypeENS_15GCCallbackFlagsEPvES4_",
            )?,
        })
    }
}

/// What the GC callbacks need. Boxed so that its address, which V8 keeps, does not move.
struct Observer {
    began: Cell<Option<Instant>>,
    get_heap_statistics: GetHeapStatistics,
    on_major: Box<dyn Fn(LiveHeapReading)>,
    on_marking: Box<dyn Fn()>,
}

/// This isolate's GC, as far as the running binary lets one reach it. Lives on the JS thread.
pub struct Gc {
    isolate: NonNull<Isolate>,
    observer: Option<(Box<Observer>, Callbacks)>,
    not_send: PhantomData<*mut ()>,
}

/// Whether the GC epilogue could be used, and if not why, for `status()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Every major GC is seen.
    On,
    /// Not: the reason.
    Off(&'static str),
}

impl Gc {
    /// Reaches the GC of the isolate that is current on this thread; `None` if V8's symbols are absent or
    /// no isolate is current.
    pub fn current() -> Option<Gc> {
        // SAFETY: a static method without arguments; returns null where no isolate is entered.
        let isolate = NonNull::new(unsafe { (symbols()?.get_current)() })?;
        Some(Gc { isolate, observer: None, not_send: PhantomData })
    }

    /// Finds out whether V8's own statistics can be read here: the functions are there, and what they write says the
    /// same as public API. `usage` asks that; it runs code of the app where the app has patched what it asks, so
    /// nothing is locked meanwhile. The layout belongs to the binary: the first answer is for all isolates.
    pub fn check_statistics(&self, mut usage: impl FnMut() -> Option<MemoryUsage>) {
        let get = symbols().and_then(|symbols| symbols.get_heap_statistics);
        let Some(get) = get.filter(|_| LAYOUT.load(Ordering::Acquire) == UNKNOWN) else { return };
        let same = (0..CHECKS).any(|_| {
            let before = statistics(get, self.isolate.as_ptr());
            let said = usage();
            let after = statistics(get, self.isolate.as_ptr());
            said.is_some_and(|said| said.is_between(&before, &after))
        });
        LAYOUT.store(if same { EXPECTED } else { OTHER }, Ordering::Release);
    }

    /// `heap_size_limit` of `v8.getHeapStatistics()`, bytes; `None` unless [`Gc::check_statistics`] found what it
    /// expects.
    pub fn heap_size_limit(&self) -> Option<f64> {
        let words = statistics(checked_statistics()?, self.isolate.as_ptr());
        Some(words[HEAP_SIZE_LIMIT] as f64)
    }

    /// Bytes used in the spaces of large objects, as `v8.getHeapSpaceStatistics()` has them; `None` unless
    /// [`Gc::check_statistics`] found what it expects, and the spaces together hold what the heap as a whole does.
    pub fn large_object_bytes(&self) -> Option<f64> {
        let spaces = symbols()?.spaces.as_ref()?;
        let isolate = self.isolate.as_ptr();
        let whole = statistics(checked_statistics()?, isolate)[USED_HEAP_SIZE];
        // SAFETY: the isolate is current on this thread; the method takes nothing.
        let number = unsafe { (spaces.number)(isolate) };
        let spaces: Vec<_> = (0..number)
            .map(|at| {
                let mut words = [0usize; SPACE_WORDS];
                // SAFETY: as in `statistics`: V8 writes its 5 words into the 16 here. False for a space that is
                // not there, and then it writes nothing.
                unsafe { (spaces.statistics)(isolate, words.as_mut_ptr(), at) };
                words
            })
            .collect();
        // Before the first word is taken for a string.
        if spaces.iter().map(|words| words[SPACE_USED_SIZE]).sum::<usize>() != whole {
            return None;
        }
        let large = spaces.iter().filter(|words| {
            let name = words[SPACE_NAME] as *const c_char;
            // SAFETY: V8 names its spaces by terminated strings that live as long as it does; the layout is the
            // expected one, as the sum above shows.
            !name.is_null()
                && unsafe { CStr::from_ptr(name) }
                    .to_str()
                    .is_ok_and(|name| name.contains(LARGE_OBJECTS))
        });
        Some(large.map(|words| words[SPACE_USED_SIZE]).sum::<usize>() as f64)
    }

    /// Calls `on_major` at the end of every major GC and `on_marking` when the marking of one has begun, on this
    /// thread, inside V8: neither may touch JavaScript, and both must be quick. Not unless
    /// [`Gc::check_statistics`] found what it expects.
    pub fn observe(
        &mut self,
        on_major: Box<dyn Fn(LiveHeapReading)>,
        on_marking: Box<dyn Fn()>,
    ) -> Epilogue {
        let Some(callbacks) = symbols().and_then(|symbols| symbols.callbacks) else {
            return Epilogue::Off("V8's GC callbacks were not found in this binary");
        };
        if self.observer.is_some() {
            return Epilogue::On;
        }
        let Some(get_heap_statistics) = checked_statistics() else {
            return Epilogue::Off("V8's heap statistics have another layout than expected");
        };
        let observer = Box::new(Observer {
            began: Cell::new(None),
            get_heap_statistics,
            on_major,
            on_marking,
        });
        let address = std::ptr::from_ref::<Observer>(&observer).cast_mut().cast();
        // SAFETY: the isolate is current on this thread. The address stays valid until `drop` has removed
        // both callbacks: the box is owned by self, and V8 calls back on this thread only.
        unsafe {
            (callbacks.add_prologue)(self.isolate.as_ptr(), prologue, address, MARK_SWEEP_COMPACT);
            let ends = MARK_SWEEP_COMPACT | INCREMENTAL_MARKING;
            (callbacks.add_epilogue)(self.isolate.as_ptr(), epilogue, address, ends);
        }
        self.observer = Some((observer, callbacks));
        Epilogue::On
    }

    /// Whether [`Gc::start_major`] can do anything here.
    pub fn can_start_major() -> bool {
        symbols().is_some_and(|symbols| symbols.memory_pressure.is_some())
    }

    /// Starts an incremental, concurrent mark-compact and returns at once; the GC ends later, while the
    /// app runs. Does nothing if marking is under way.
    ///
    /// V8: at `kModerate` `Heap::CheckMemoryPressure` starts incremental marking with the reduce-memory
    /// flag and resets the level (src/heap/heap.cc).
    pub fn start_major(&self) {
        if let Some(notify) = symbols().and_then(|symbols| symbols.memory_pressure) {
            // SAFETY: the isolate lives and is current on this thread (contract of the module); the method
            // may be called from any thread and at any time.
            unsafe { notify(self.isolate.as_ptr(), MODERATE) };
        }
    }
}

impl Drop for Gc {
    fn drop(&mut self) {
        if let Some((observer, callbacks)) = self.observer.take() {
            let address = std::ptr::from_ref::<Observer>(&observer).cast_mut().cast();
            // SAFETY: dropped on the JS thread while the isolate lives (contract of the module); the pair of
            // function and address is the one that was added.
            unsafe {
                (callbacks.remove_prologue)(self.isolate.as_ptr(), prologue, address);
                (callbacks.remove_epilogue)(self.isolate.as_ptr(), epilogue, address);
            }
        }
    }
}

/// What `process.memoryUsage()` says, bytes: public API for fields of `v8::HeapStatistics`.
#[derive(Clone, Copy, Debug)]
pub struct MemoryUsage {
    /// `heapTotal`
    pub total: f64,
    /// `heapUsed`
    pub used: f64,
    /// `external`
    pub external: f64,
}

impl MemoryUsage {
    /// Whether each figure lies between those of two readings, one before it and one after, and the limit is one.
    fn is_between(&self, before: &[usize], after: &[usize]) -> bool {
        let said = [
            (TOTAL_HEAP_SIZE, self.total),
            (USED_HEAP_SIZE, self.used),
            (EXTERNAL_MEMORY, self.external),
        ];
        said.iter().all(|&(word, bytes)| {
            let (one, other) = (before[word] as f64, after[word] as f64);
            one.min(other) <= bytes && bytes <= one.max(other)
        }) && after[HEAP_SIZE_LIMIT] >= after[TOTAL_HEAP_SIZE]
    }
}

/// How V8 lays out what it writes as statistics, as far as that was checked.
static LAYOUT: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const EXPECTED: u8 = 1;
const OTHER: u8 = 2;

fn checked_statistics() -> Option<GetHeapStatistics> {
    let get = symbols()?.get_heap_statistics?;
    (LAYOUT.load(Ordering::Acquire) == EXPECTED).then_some(get)
}

fn statistics(get: GetHeapStatistics, isolate: *mut Isolate) -> [usize; STATISTICS_WORDS] {
    let mut words = [0usize; STATISTICS_WORDS];
    // SAFETY: V8 writes its fields into the object it is given, at most 15 words of the 64 here; on a later
    // layout that is larger than 64 words the symbol's argument type would have another name.
    unsafe { get(isolate, words.as_mut_ptr()) };
    words
}

/// Runs when a major GC's last, stopping step begins.
unsafe extern "C" fn prologue(_: *mut Isolate, _: c_int, _: c_int, address: *mut c_void) {
    // SAFETY: the address is that of the boxed Observer, which outlives the registration; V8 calls on the
    // thread that owns it, so that the shared reference is the only use.
    let observer = unsafe { &*address.cast::<Observer>() };
    observer.began.set(Some(Instant::now()));
}

/// Runs when marking has begun, and when a major GC has ended: dead objects are no longer counted as used.
unsafe extern "C" fn epilogue(isolate: *mut Isolate, of: c_int, _: c_int, address: *mut c_void) {
    // SAFETY: as in `prologue`.
    let observer = unsafe { &*address.cast::<Observer>() };
    if of == INCREMENTAL_MARKING {
        return (observer.on_marking)();
    }
    let pause_ms =
        observer.began.take().map_or(0.0, |began| began.elapsed().as_secs_f64() * 1000.0);
    let words = statistics(observer.get_heap_statistics, isolate);
    (observer.on_major)(LiveHeapReading { bytes: words[USED_HEAP_SIZE] as f64, pause_ms });
}

/// Keeps this library loaded for the life of the process: the native thread outlives the environment that
/// started it, and Node unloads an add-on when the last worker that loaded it ends.
#[cfg(unix)]
pub fn pin_library() {
    static PINNED: OnceLock<()> = OnceLock::new();
    PINNED.get_or_init(|| {
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        let here: fn() = pin_library;
        // SAFETY: dladdr fills the struct when it returns non-zero, for any address; dlopen of a library
        // that is loaded already only raises its count, and RTLD_NODELETE keeps it for good.
        unsafe {
            if libc::dladdr(here as *const c_void, found.as_mut_ptr()) != 0 {
                let found = found.assume_init();
                if !found.dli_fname.is_null() {
                    libc::dlopen(
                        found.dli_fname,
                        libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE,
                    );
                }
            }
        }
    });
}

/// Windows keeps a module loaded while a thread of it runs only if asked; Node does not unload add-ons there.
#[cfg(not(unix))]
pub fn pin_library() {}
