//! Linux: `/proc` and cgroup files kept open, and a few figures by system call.
//!
//! It reads no `smaps` (tens of milliseconds at gigabytes of RSS) and takes no lock of the app but
//! malloc's own, inside `mallinfo2`; that one is rationed by what it costs.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use rustix::process::Resource;
use rustix::time::ClockId;

use super::cgroup::{self, Cgroup};
use super::kept::{BUFFER_BYTES, KeptFile};
use super::{DiskFree, HostIdentity, MemoryCgroup, OwnCounts, Probe, ThreadId, own, procfs};
use crate::sample::ProcessSample;

pub use super::inventory::{fds_by_kind, threads_by_name};

/// Opens the probe of this process.
pub fn open() -> Box<dyn Probe> {
    Box::new(LinuxProbe {
        status: KeptFile::new("/proc/self/status"),
        meminfo: KeptFile::new("/proc/meminfo"),
        pressure: KeptFile::new("/proc/pressure/memory"),
        cgroup: Cgroup::open(std::path::Path::new("/proc/self")),
        malloc: Malloc::find(),
        buffer: vec![0; BUFFER_BYTES],
    })
}

struct LinuxProbe {
    status: KeptFile,
    meminfo: KeptFile,
    pressure: KeptFile,
    cgroup: Cgroup,
    malloc: Option<Malloc>,
    buffer: Vec<u8>,
}

impl Probe for LinuxProbe {
    fn read(&mut self, own: OwnCounts) -> ProcessSample {
        let buffer = self.buffer.as_mut_slice();
        let status = self.status.read(buffer).map(procfs::status).unwrap_or_default();
        let (mem_total_bytes, mem_available_bytes) =
            self.meminfo.read(buffer).map(procfs::meminfo).unwrap_or_default();
        let cgroup = self.cgroup.read(buffer);
        let memory_pressure_percent = cgroup
            .pressure_percent
            .or_else(|| self.pressure.read(buffer).and_then(procfs::pressure_some_avg10));
        let malloc = self.malloc.as_mut().and_then(Malloc::read);
        ProcessSample {
            rss_bytes: status.rss_bytes,
            rss_anon_bytes: status.rss_anon_bytes,
            rss_peak_bytes: status.rss_peak_bytes,
            fds: count_fds().map(|fds| fds.saturating_sub(own.fds)),
            threads: status.threads.map(|threads| threads.saturating_sub(own.threads)),
            malloc_used_bytes: malloc.map(|malloc| malloc.used_bytes),
            malloc_free_bytes: malloc.map(|malloc| malloc.free_bytes),
            cgroup_used_bytes: cgroup.used_bytes,
            cgroup_limit_bytes: cgroup.limit_bytes,
            cgroup_headroom_bytes: cgroup.headroom_bytes,
            cgroup_oom_group: cgroup.oom_group,
            mem_available_bytes,
            mem_total_bytes,
            memory_pressure_percent,
            cpu_micros: Some(clock_nanos(ClockId::ProcessCPUTime) / 1000),
            address_space_limit_bytes: rustix::process::getrlimit(Resource::As).current,
            address_space_bytes: status.address_space_bytes,
        }
    }
}

/// Open descriptors of the process. Since Linux 6.2 the size of `/proc/self/fd` is their number; before, it
/// is zero and the entries are counted (less the one that the counting opens).
fn count_fds() -> Option<u64> {
    let size = rustix::fs::stat("/proc/self/fd").ok()?.st_size;
    if size > 0 {
        return u64::try_from(size).ok();
    }
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

fn clock_nanos(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    nanos(time.tv_sec, time.tv_nsec)
}

fn nanos(seconds: i64, nanos: i64) -> u64 {
    let (seconds, nanos) = (u64::try_from(seconds), u64::try_from(nanos));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or(0))
}

/// The calling thread.
pub fn current_thread() -> ThreadId {
    ThreadId(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs())
}

/// CPU time of one thread of this process, nanoseconds. `None` if it is none.
pub fn thread_cpu_nanos(thread: ThreadId) -> Option<u64> {
    // Zero would be the calling thread.
    let id = i32::try_from(thread.0).ok().filter(|&id| id > 0)?;
    // The kernel's number of the clock of a thread, MAKE_THREAD_CPUCLOCK(tid, CPUCLOCK_SCHED) of
    // include/linux/posix-timers.h; glibc's pthread_getcpuclockid makes the same.
    let clock = (!id << 3) | 0b110;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec to the pointer, which is a live local; for a number that
    // is no clock it fails with EINVAL and writes nothing.
    let failed = unsafe { libc::clock_gettime(clock, &mut time) } != 0;
    #[allow(clippy::useless_conversion)] // 32-bit targets have narrower fields
    (!failed).then(|| nanos(i64::from(time.tv_sec), i64::from(time.tv_nsec)))
}

/// See [`super::other_threads_cpu_micros`].
pub fn other_threads_cpu_micros(excluded: &[ThreadId]) -> Option<u64> {
    own::with_threads(|guard_threads, ended_nanos| {
        let mut others = ended_nanos;
        for thread in guard_threads {
            others += thread_cpu_nanos(*thread).unwrap_or(0);
        }
        for thread in excluded.iter().filter(|thread| !guard_threads.contains(thread)) {
            others += thread_cpu_nanos(*thread)?;
        }
        // Read last: time that passes in between is then too much, not too little, and by microseconds.
        Some(clock_nanos(ClockId::ProcessCPUTime).saturating_sub(others) / 1000)
    })
}

/// See [`super::disk_free`].
pub fn disk_free(path: &std::path::Path) -> Option<DiskFree> {
    /// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h.
    const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];
    let room = rustix::fs::statvfs(path).ok()?;
    let kind = rustix::fs::statfs(path).ok()?.f_type;
    Some(DiskFree {
        free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
        // The magic is 32 bits wide in a field that is signed or wider on some targets.
        is_memory: IN_MEMORY.contains(&(kind as u32)),
    })
}

/// See [`super::memory_cgroup`].
pub fn memory_cgroup() -> Option<MemoryCgroup> {
    let cgroup = Cgroup::open(std::path::Path::new("/proc/self"));
    let version = match cgroup.version()? {
        cgroup::Version::V1 => 1,
        cgroup::Version::V2 => 2,
    };
    Some(MemoryCgroup { version, directory: cgroup.directory()? })
}

/// See [`super::host_identity`].
pub fn host_identity() -> HostIdentity {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    HostIdentity {
        boot_id: boot_id.map(|id| id.trim_end().to_owned()).filter(|id| !id.is_empty()),
        cgroup_inode: Cgroup::open(std::path::Path::new("/proc/self"))
            .directory()
            .and_then(|directory| cgroup::inode(&directory)),
    }
}

/// glibc's own account of its heap, by `mallinfo2` (glibc >= 2.33), which a static or older libc lacks.
struct Malloc {
    mallinfo2: unsafe extern "C" fn() -> Mallinfo2,
    /// When the next call may be made. The call walks the free lists of all arenas under their locks, so on
    /// a fragmented heap it could make the app wait.
    next: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MallocReading {
    used_bytes: u64,
    free_bytes: u64,
}

/// `struct mallinfo2` of malloc.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Mallinfo2 {
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    uordblks: usize,
    fordblks: usize,
    keepcost: usize,
}

impl Malloc {
    /// A call may take one part in this many of the time: 0.01 %. A call of 3.5 us is made at every tick; one
    /// of 2.5 ms (half a million holes in the heap), once in 25 s. Raising it leaves longer gaps in the series,
    /// lowering it makes threads of the app wait for malloc more often.
    const RATION: u32 = 10_000;

    /// Looks the function up, and makes sure that it speaks of the malloc in use: with another allocator
    /// preloaded it is still there and its figures stand still.
    fn find() -> Option<Self> {
        // SAFETY: dlsym is given a NUL-terminated name and searches the objects already loaded.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
        if symbol.is_null() {
            return None;
        }
        // SAFETY: the only mallinfo2 there is has this signature: glibc's, stable since its version 2.33.
        let mallinfo2 = unsafe {
            std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn() -> Mallinfo2>(symbol)
        };
        let mut malloc = Malloc { mallinfo2, next: None };
        // Other threads free memory meanwhile, so a try may fail by chance.
        let follows = (0..4).any(|_| {
            const BLOCK: usize = 1 << 20;
            let before = malloc.call();
            let block = std::hint::black_box(Vec::<u8>::with_capacity(BLOCK));
            let with_block = malloc.call();
            drop(std::hint::black_box(block));
            with_block.used_bytes.saturating_sub(before.used_bytes) >= (BLOCK / 2) as u64
        });
        follows.then_some(malloc)
    }

    fn read(&mut self) -> Option<MallocReading> {
        let start = Instant::now();
        if self.next.is_some_and(|next| start < next) {
            return None;
        }
        let reading = self.call();
        let end = Instant::now();
        let rest = end.duration_since(start).saturating_mul(Self::RATION);
        // A few microseconds are no reason to skip a tick, however short its interval.
        self.next = (rest > Duration::from_millis(100)).then(|| end.checked_add(rest)).flatten();
        Some(reading)
    }

    fn call(&mut self) -> MallocReading {
        // SAFETY: mallinfo2 takes nothing, may be called from any thread (it takes the locks of the
        // arenas), and the object it lies in, libc, is never unloaded.
        let all = unsafe { (self.mallinfo2)() };
        MallocReading {
            used_bytes: (all.uordblks as u64).saturating_add(all.hblkhd as u64),
            free_bytes: all.fordblks as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::sync::{Barrier, Mutex, MutexGuard};

    /// Tests run as threads of one process: those that look at its figures go one by one, and even so other
    /// tests open files beside them. So each repeats until it sees an undisturbed moment.
    static ALONE: Mutex<()> = Mutex::new(());

    fn alone() -> MutexGuard<'static, ()> {
        ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "never seen: {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_figure_of_this_machine_is_plausible() {
        let _alone = alone();
        let sample = open().read(own::counts());
        let rss = sample.rss_bytes.unwrap();
        assert!(rss > 100 << 10);
        assert!(sample.rss_anon_bytes.unwrap() <= rss);
        assert!(sample.rss_peak_bytes.unwrap() >= rss);
        assert!(sample.address_space_bytes.unwrap() >= rss);
        assert!(sample.mem_total_bytes.unwrap() >= sample.mem_available_bytes.unwrap());
        assert!(sample.fds.unwrap() >= 1);
        assert!(sample.threads.unwrap() >= 1);
        assert!(sample.cpu_micros.unwrap() > 0);
    }

    #[test]
    fn five_open_files_are_five_more_fds() {
        let _alone = alone();
        let mut probe = open();
        eventually("five more", || {
            let before = probe.read(own::counts()).fds.unwrap();
            let files: Vec<_> = (0..5).map(|_| File::open("/dev/null").unwrap()).collect();
            let with_files = probe.read(own::counts()).fds.unwrap();
            drop(files);
            with_files == before + 5
        });
    }

    #[test]
    fn registered_files_are_not_counted() {
        let _alone = alone();
        let mut probe = open();
        eventually("no more", || {
            let before = probe.read(own::counts()).fds.unwrap();
            let files: Vec<_> =
                (0..5).map(|_| (File::open("/dev/null").unwrap(), own::fd())).collect();
            let with_files = probe.read(own::counts()).fds.unwrap();
            drop(files);
            with_files == before
        });
    }

    #[test]
    fn opening_the_probe_changes_no_count() {
        let _alone = alone();
        let mut probe = open();
        eventually("no change", || {
            let before = probe.read(own::counts());
            let second = open();
            let with_second = probe.read(own::counts());
            drop(second);
            with_second.fds == before.fds
        });
    }

    #[test]
    fn counting_entries_agrees_with_the_size() {
        let _alone = alone();
        eventually("the same number", || {
            let entries = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
            count_fds() == Some(entries)
        });
    }

    /// Threads that wait at a barrier; `body` runs while they do.
    fn with_threads<R>(count: usize, registered: bool, body: impl FnOnce() -> R) -> R {
        let running = Barrier::new(count + 1);
        let done = Barrier::new(count + 1);
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    let _own = registered.then(own::thread);
                    running.wait();
                    done.wait();
                });
            }
            running.wait();
            let result = body();
            done.wait();
            result
        })
    }

    #[test]
    fn three_threads_are_three_more_and_registered_ones_none() {
        let _alone = alone();
        let mut probe = open();
        for (registered, more) in [(false, 3), (true, 0)] {
            eventually("that many more", || {
                let before = probe.read(own::counts()).threads.unwrap();
                let with_threads =
                    with_threads(3, registered, || probe.read(own::counts()).threads.unwrap());
                with_threads == before + more
            });
        }
    }

    #[test]
    fn touched_memory_is_anonymous_resident_memory() {
        let _alone = alone();
        let mut probe = open();
        const SIZE: u64 = 64 << 20;
        eventually("64 MB more", || {
            let before = probe.read(own::counts());
            let block = std::hint::black_box(vec![1u8; SIZE as usize]);
            let with_block = probe.read(own::counts());
            drop(block);
            let grown = |figure: fn(&ProcessSample) -> Option<u64>| {
                figure(&with_block).unwrap().abs_diff(figure(&before).unwrap() + SIZE) < SIZE / 10
            };
            grown(|s| s.rss_anon_bytes) && grown(|s| s.rss_bytes)
        });
    }

    #[test]
    fn malloc_figures_follow_malloc_where_they_exist() {
        let _alone = alone();
        let Some(mut malloc) = Malloc::find() else {
            // SAFETY: as in `Malloc::find`.
            let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
            assert!(symbol.is_null(), "mallinfo2 is there but not in use");
            return;
        };
        const SIZE: usize = 8 << 20;
        eventually("8 MB more", || {
            let before = malloc.call().used_bytes;
            let block = std::hint::black_box(Vec::<u8>::with_capacity(SIZE));
            let with_block = malloc.call().used_bytes;
            drop(std::hint::black_box(block));
            with_block.abs_diff(before + SIZE as u64) < SIZE as u64 / 10
        });
    }

    fn burn(micros: u64) {
        let start = clock_nanos(ClockId::ThreadCPUTime);
        while clock_nanos(ClockId::ThreadCPUTime) - start < micros * 1000 {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn cpu_of_other_threads_is_theirs_alone() {
        let _alone = alone();
        const WORK: u64 = 20_000;
        let me = [current_thread()];
        let others = || other_threads_cpu_micros(&me).unwrap();

        // Tests of other modules run beside this one and are "others" as well: look for a quiet moment.
        eventually("own work not counted", || {
            let before = others();
            burn(WORK);
            // A guard thread of another test that registers takes its CPU so far off the sum.
            others().saturating_sub(before) < WORK / 4
        });
        eventually("work of a thread that has ended is counted", || {
            let before = others();
            std::thread::spawn(|| burn(WORK)).join().unwrap();
            others().saturating_sub(before) >= WORK
        });
        eventually("the guard's work not counted", || {
            let before = others();
            let guard = std::thread::spawn(|| {
                let _own = own::thread();
                burn(WORK);
            });
            guard.join().unwrap();
            others().saturating_sub(before) < WORK / 4
        });
    }

    #[test]
    fn a_thread_of_no_process_has_no_cpu_time() {
        for id in [0, 1 << 22, u32::MAX] {
            assert_eq!(other_threads_cpu_micros(&[ThreadId(id)]), None);
        }
    }

    #[test]
    fn disks_have_room_and_tmpfs_is_memory() {
        let here = disk_free(&std::env::temp_dir()).unwrap();
        assert!(here.free_bytes > 0);
        assert_eq!(disk_free(std::path::Path::new("/no/such/place")), None);
        if let Some(shm) = disk_free(std::path::Path::new("/dev/shm")) {
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
            assert_eq!(shm.is_memory, mounts.lines().any(|l| l.contains(" /dev/shm tmpfs ")));
        }
    }

    #[test]
    fn the_host_is_the_same_twice() {
        let host = host_identity();
        assert_eq!(host.boot_id.as_deref().map(str::len), Some(36));
        assert_eq!(host, host_identity());
    }
}
