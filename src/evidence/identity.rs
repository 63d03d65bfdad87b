//! Who wrote a file: a process told apart from a later one with the same pid, which in a container
//! is the normal case (the app is pid 1 or 7 after every restart).
//!
//! It does not claim more than it can know: a pid of another pid namespace or machine is never called dead.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A process, unique over restarts, containers and machines as far as the platform tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id within its pid namespace.
    pub pid: u32,
    /// When it started. Linux: clock ticks since boot (`/proc/<pid>/stat`, field 22). Elsewhere: the
    /// wall time in milliseconds at which this module was first used.
    pub start: u64,
    /// Where its pid means something: a hash of boot id and pid namespace; 0 where there is neither.
    pub home: u32,
}

/// Whether a process still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Alive,
    Dead,
    /// Another pid namespace or machine, or the platform cannot tell.
    Unknown,
}

impl ProcessIdentity {
    /// This process. The first call decides; later ones are free.
    #[must_use]
    pub fn current() -> &'static Self {
        static CURRENT: OnceLock<ProcessIdentity> = OnceLock::new();
        // A forked snapshot child never comes here: it only runs V8's writer.
        CURRENT.get_or_init(|| {
            let pid = std::process::id();
            Self {
                pid,
                start: start_of(pid).unwrap_or_else(|| super::name::WallMillis::now().0),
                home: home(),
            }
        })
    }

    pub(crate) fn liveness(&self) -> Liveness {
        let current = Self::current();
        if self == current {
            return Liveness::Alive;
        }
        if self.home != current.home {
            return Liveness::Unknown;
        }
        if self.pid == current.pid {
            return Liveness::Dead; // our pid, another start: an earlier life
        }
        if cfg!(target_os = "linux") {
            match start_of(self.pid) {
                Some(start) if start == self.start => Liveness::Alive,
                // Unreadable is not dead: /proc may be mounted with hidepid.
                Some(_) => Liveness::Dead,
                None => pid_liveness(self.pid),
            }
        } else {
            pid_liveness(self.pid)
        }
    }
}

/// `ESRCH` proves that no such process is there; success or `EPERM` that one is (perhaps another).
#[cfg(unix)]
fn pid_liveness(pid: u32) -> Liveness {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return Liveness::Dead; // no process has such a number
    };
    match rustix::process::test_kill_process(pid) {
        Err(rustix::io::Errno::SRCH) => Liveness::Dead,
        _ => Liveness::Alive,
    }
}

#[cfg(not(unix))]
fn pid_liveness(_pid: u32) -> Liveness {
    Liveness::Unknown
}

/// Start of a process in clock ticks since boot. The command name (field 2) is in parentheses and may
/// hold anything, so fields are counted after the last `)`: field 22 is the 20th there.
fn start_of(pid: u32) -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// FNV-1a over boot id and pid namespace: a label, not a secret.
fn home() -> u32 {
    if !cfg!(target_os = "linux") {
        return 0;
    }
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let mut hash = 0x811c_9dc5_u32;
    for byte in boot.iter().chain(namespace.as_os_str().as_encoded_bytes()) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_an_earlier_one_with_its_pid_is_dead() {
        let me = ProcessIdentity::current();
        assert_eq!(me.liveness(), Liveness::Alive);
        let before = ProcessIdentity { start: me.start.wrapping_sub(1), ..me.clone() };
        assert_eq!(before.liveness(), Liveness::Dead);
    }

    #[test]
    fn a_process_of_another_container_is_never_called_dead() {
        let me = ProcessIdentity::current();
        let other = ProcessIdentity { pid: 4_194_000, start: 1, home: me.home ^ 1 };
        assert_eq!(other.liveness(), Liveness::Unknown);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_is_alive_until_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let identity = ProcessIdentity {
            pid: child.id(),
            start: start_of(child.id()).unwrap(),
            ..ProcessIdentity::current().clone()
        };
        assert_eq!(identity.liveness(), Liveness::Alive);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(identity.liveness(), Liveness::Dead);
    }
}
