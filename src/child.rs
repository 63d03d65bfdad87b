//! Starting a command from inside a Node process and waiting for its end: what the hook and the analysis of
//! snapshots share. It knows neither what is started nor what becomes of the answer.
//!
//! Spawning here is safe in a Node process: std uses posix_spawn (no fork of the heap, no allocation in the
//! child) because the program is an absolute path and no pre-exec step is asked for; libuv's SIGCHLD
//! handler waits for its own pids only, so the child is left for us to reap; all descriptors are
//! close-on-exec. The environment is the caller's copy, made on the JS thread: reading it here could race
//! with a `setenv`.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Pace at which a waiting thread looks whether the command has ended.
const LOOK: Duration = Duration::from_millis(50);

/// How a command ended that was waited for.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// By itself, and how is not known: somebody set SIGCHLD to be ignored, and the kernel reaped it.
    Unknown,
    /// It took longer than it was given.
    TimedOut,
    /// It was killed because whoever watched it said so, and why.
    Stopped(String),
}

/// A command with exactly this environment, without stdio, in a process group of its own: the terminal's
/// Ctrl-C is for the app, and what ends the command ends its children too.
pub fn command<'a>(
    program: &Path,
    environment: impl IntoIterator<Item = &'a (OsString, OsString)>,
) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(
            environment
                .into_iter()
                .filter(|(name, value)| valid(name, value))
                .map(|(name, value)| (name, value)),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// Waits for the end of a command; kills its process group when the time is over, or when `watch`, which is asked
/// at each look, says why it must go. The command is reaped in every case.
///
/// # Errors
/// In words, if it cannot be waited for.
pub fn wait(
    child: &mut Child,
    timeout: Duration,
    mut watch: impl FnMut(&mut Child) -> Option<String>,
) -> Result<Ended, String> {
    let deadline = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Ended::Exited(status)),
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(NO_CHILD) => return Ok(Ended::Unknown),
            Err(error) => {
                kill(child);
                return Err(error.to_string());
            }
        }
        if let Some(why) = watch(child) {
            kill(child);
            return Ok(Ended::Stopped(why));
        }
        if Instant::now() >= deadline {
            kill(child);
            return Ok(Ended::TimedOut);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(unix)]
const NO_CHILD: i32 = libc::ECHILD;
#[cfg(not(unix))]
const NO_CHILD: i32 = i32::MIN;

/// Kills the command with all it started, and reaps it. The pid is ours until then.
fn kill(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// `exit code 1`, or the signal.
pub fn status_words(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Whether std would take the variable; one that it refuses costs the whole command.
fn valid(name: &OsStr, value: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    !name.is_empty()
        && !name.contains(&0)
        && !name.get(1..).is_some_and(|rest| rest.contains(&b'='))
        && !value.as_encoded_bytes().contains(&0)
}
