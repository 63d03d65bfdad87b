//! Platforms other than Linux, through crate sysinfo: resident set, CPU time, descriptors, memory of the
//! machine. What the crate does not know (cgroup, pressure, malloc, threads by name) stays `None`.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::{DiskFree, FdKind, HostIdentity, MemoryCgroup, OwnCounts, Probe, ThreadId};
use crate::sample::ProcessSample;

/// Opens the probe of this process.
pub fn open() -> Box<dyn Probe> {
    Box::new(OtherProbe { system: System::new().ok(), pid: sysinfo::get_current_pid().ok() })
}

struct OtherProbe {
    system: Option<System>,
    pid: Option<Pid>,
}

impl Probe for OtherProbe {
    fn read(&mut self, own: OwnCounts) -> ProcessSample {
        let (Some(system), Some(pid)) = (&mut self.system, self.pid) else {
            return ProcessSample::default();
        };
        system.refresh_memory();
        let kind = ProcessRefreshKind::nothing().with_memory().with_cpu();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
        let process = system.process(pid);
        // The crate says zero for what it could not read.
        let known = |figure: u64| Some(figure).filter(|&figure| figure > 0);
        ProcessSample {
            rss_bytes: process.and_then(|process| known(process.memory())),
            fds: process
                .and_then(|process| process.open_files())
                .map(|fds| (fds as u64).saturating_sub(own.fds)),
            mem_available_bytes: known(system.available_memory()),
            mem_total_bytes: known(system.total_memory()),
            cpu_micros: process.map(|process| process.accumulated_cpu_time().saturating_mul(1000)),
            address_space_bytes: process.and_then(|process| known(process.virtual_memory())),
            ..ProcessSample::default()
        }
    }
}

/// Not known here.
pub fn fds_by_kind() -> Vec<FdKind> {
    Vec::new()
}

/// Not known here.
pub fn threads_by_name() -> Vec<(String, u64)> {
    Vec::new()
}

/// Not known here.
pub fn other_threads_cpu_micros(_excluded: &[ThreadId]) -> Option<u64> {
    None
}

/// Not known here.
pub fn thread_cpu_nanos(_thread: ThreadId) -> Option<u64> {
    None
}

/// Not known here.
pub fn current_thread() -> ThreadId {
    ThreadId(0)
}

/// Not known on Windows. File systems in memory are not told apart.
pub fn disk_free(path: &std::path::Path) -> Option<DiskFree> {
    #[cfg(unix)]
    {
        let room = rustix::fs::statvfs(path).ok()?;
        let free_bytes = room.f_bavail.saturating_mul(room.f_frsize);
        Some(DiskFree { free_bytes, is_memory: false })
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Not known here.
pub fn memory_cgroup() -> Option<MemoryCgroup> {
    None
}

/// Not known here.
pub fn host_identity() -> HostIdentity {
    HostIdentity::default()
}
