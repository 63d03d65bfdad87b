//! A heap snapshot that the app survives: a copy of the process made by `fork` writes it, while the app goes on.
//! This file is everything of it that is unsafe: the self-test, the preparation, the fork, the child's first
//! steps, and waiting for it. It does not decide when (see `budget`), drive the tries (see `minder`), or touch
//! the bytes (see `sink`).
//!
//! # Why a bare fork does not work, and what is done about it
//!
//! A forked child has one thread, the one that forked, and memory as it was at that moment. Four things
//! stand between that and a V8 that can collect garbage and walk its heap:
//!
//! 1. **V8 keeps its heap out of forks** (`MADV_DONTFORK`). The ranges are found in `smaps` beforehand, on a
//!    native thread, since that file is slow; the JS thread gives them back to forks just before and takes
//!    them away again just after, or every later `spawn` of the app would copy their page tables.
//! 2. **Closed descriptors abort libuv** (`uv_async_send` on `EBADF`), shared ones would disturb the app.
//!    In the child every descriptor but the output becomes `/dev/null`: valid, and connected to nothing.
//! 3. **V8's worker threads are gone but its condition variables still count them** as waiters, and glibc
//!    may wait for those for ever. They are found by what the sleeping threads sleep on and zeroed in the
//!    child, which makes them as `PTHREAD_COND_INITIALIZER` does. Where glibc keeps what is measured by the
//!    self-test, not assumed.
//! 4. **A thread that runs at that moment** may hold a lock or have half of a change in its registers. So
//!    the fork happens only when every thread of the app but the JS thread sleeps in the kernel, in a wait
//!    that implies no lock; and afterwards the scheduler's own counts must say that none ran meanwhile. If
//!    one did, the child is thrown away: it has not begun, because it waits for the verdict at a gate.
//!
//!    Where no such moment comes, because worker threads of the app never rest, the demand is made of V8's pool
//!    alone: only that works on the heap that the child reads. Event loops of workers and libuv's pool
//!    (bystanders, told by what they were seen to wait on) may then run; a lock that one of them held makes
//!    the child hang, which is noticed and tried again.
//!
//! glibc's `fork` itself takes malloc's and stdio's locks first and gives them to the child in order, so that
//! malloc works there; hence glibc, and glibc's own malloc, are required. The guard's own threads may run: they
//! touch nothing that V8 has, and the child touches nothing that they lock.
//!
//! The child sets no V8 flags (with `--single-threaded-gc` 0 of 24 snapshots came through).
//!
//! What can still go wrong goes wrong in the child alone: it has no signals, descriptors, or memory of the app
//! to hurt, dies with the thread that forked it, by the clock, and at its own address-space limit, leaves by `_exit`,
//! and what it wrote counts only if it ended with 0 and the sink finds it whole.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub use super::fork_terms::{Attempt, ChildLimits, End, Ended, ForkAbility, Outcome};
use crate::probe::own;

/// Size of `pthread_cond_t` in every glibc since 2.3.2 (bits/pthreadtypes-arch.h).
const CONDVAR_BYTES: usize = 48;
/// The oldest glibc with today's condition variables that is tried: 2.28 (they came with 2.25).
const OLDEST_GLIBC: (u32, u32) = (2, 28);
/// Threads looked at; an app with more is not forked.
const MAX_THREADS: usize = 512;
/// How often the JS thread looks for a quiet moment in one go, and how long it waits in between: together at
/// most about 2 ms of its time. Longer would stop the loop, shorter would come back more often.
const LOOKS: usize = 4;
const BETWEEN_LOOKS: Duration = Duration::from_micros(200);
/// Looks by which bystanders are told from V8's pool.
const LOOKS_FOR_BYSTANDERS: usize = 8;
/// How long the self-test waits for its threads to sleep, and for its child to end.
const SELF_TEST_PATIENCE: Duration = Duration::from_secs(2);
/// `FUTEX_CMD_MASK` of linux/futex.h: the operation without its flags.
const FUTEX_COMMAND: u64 = 0x7f;
/// What a contended glibc lock waits for (`lll_lock`, sysdeps/nptl/lowlevellock.h): somebody holds it.
const CONTENDED_LOCK: u64 = 2;

/// What V8 and malloc end a child with that has no memory left.
pub const SIGABRT: i32 = libc::SIGABRT;

/// Exit codes of the child.
const EXIT_DONE: i32 = 0;
const EXIT_FAILED: i32 = 3;
const EXIT_SET_UP: i32 = 4;
const EXIT_ORPHANED: i32 = 5;

/// Where glibc's condition variables keep the words that waiters sleep on: measured, since glibc 2.41 moved them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CondvarLayout {
    /// Offset of `__g_signals`: 40, or 32 since glibc 2.41.
    signals: usize,
}

impl CondvarLayout {
    /// Offset of `__wrefs`, the word before in both layouts: eight times the number of waiters, and flags.
    fn waiters(self) -> usize {
        self.signals - size_of::<u32>()
    }
}

// --- threads -----------------------------------------------------------------------------------------------

/// One sleeping or running thread of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    tid: u32,
    /// CPU time and time slices so far (`/proc/<pid>/schedstat`): a thread that ran has others.
    ran: (u64, u64),
    wait: Wait,
}

/// What a thread is doing, by `/proc/<pid>/syscall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Running, or ready to.
    Running,
    /// Sleeping in `futex`.
    Futex { address: u64, operation: u64, value: u64 },
    /// Sleeping in another call, or (`-1`) in none: in a page fault.
    Call(i64),
}

impl Wait {
    /// Reads `202 0x7f5ec8000b64 0x189 0x0 ...`, or `running`.
    fn parse(text: &str) -> Option<Wait> {
        let mut words = text.split_ascii_whitespace();
        let first = words.next()?;
        if first == "running" {
            return Some(Wait::Running);
        }
        let call: i64 = first.parse().ok()?;
        if call != libc::SYS_futex {
            return Some(Wait::Call(call));
        }
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        Some(Wait::Futex { address: argument()?, operation: argument()?, value: argument()? })
    }

    /// Whether it is a sleep in which a thread of the app holds no lock that the child could want: waiting for a
    /// condition or an event, or for a device. Memory calls are not among them: V8 makes them under its locks.
    fn is_quiet(self) -> bool {
        match self {
            Wait::Running => false,
            Wait::Futex { operation, value, .. } => {
                match (operation & FUTEX_COMMAND) as libc::c_int {
                    libc::FUTEX_WAIT_BITSET => true,
                    // glibc before 2.34 waits for conditions with this one as well, but with another value.
                    libc::FUTEX_WAIT => value != CONTENDED_LOCK,
                    _ => false,
                }
            }
            Wait::Call(call) => QUIET_CALLS.contains(&call),
        }
    }

    /// The futex, if it may be the word of a condition variable.
    fn condvar_word(self) -> Option<usize> {
        match self {
            Wait::Futex { address, operation, .. } => {
                let command = (operation & FUTEX_COMMAND) as libc::c_int;
                (command == libc::FUTEX_WAIT_BITSET || command == libc::FUTEX_WAIT)
                    .then_some(address as usize)
            }
            _ => None,
        }
    }
}

/// `io_uring_enter` of asm-generic/unistd.h; the same on every architecture.
const SYS_IO_URING_ENTER: i64 = 426;

/// Calls in which a thread waits for an event or a device.
#[rustfmt::skip]
const QUIET_CALLS: &[i64] = &[
    #[cfg(target_arch = "x86_64")] libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")] libc::SYS_poll,
    #[cfg(target_arch = "x86_64")] libc::SYS_select,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_ppoll, libc::SYS_pselect6,
    libc::SYS_read, libc::SYS_readv, libc::SYS_pread64, libc::SYS_preadv,
    libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_recvmmsg,
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_restart_syscall,
    libc::SYS_wait4, libc::SYS_waitid, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigsuspend,
    libc::SYS_io_getevents, SYS_IO_URING_ENTER,
];

/// Calls in which an event loop waits.
#[rustfmt::skip]
const EVENT_LOOP_CALLS: &[i64] = &[
    #[cfg(target_arch = "x86_64")] libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2,
];

/// Reads a small file of `/proc` in one call; the text is valid until the next.
fn read_small<'b>(dir: &OwnedFd, path: &str, buffer: &'b mut [u8]) -> Option<&'b str> {
    use rustix::fs::{Mode, OFlags, openat};
    let file = openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let n = rustix::io::read(&file, &mut *buffer).ok()?;
    std::str::from_utf8(buffer.get(..n)?).ok()
}

/// Looks at the threads of the process, those named in `except` left out. Each thread's account is read before
/// what it is doing: a thread that runs in between shows in the next look's account.
///
/// # Errors
/// One sentence: `/proc` is not readable, or there are too many.
fn look(except: &[u32], threads: &mut Vec<Thread>) -> Result<(), String> {
    use rustix::fs::{Mode, OFlags, open};
    threads.clear();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open("/proc/self/task", flags, Mode::empty())
        .map_err(|error| format!("/proc/self/task cannot be opened: {error}"))?;
    let entries = rustix::fs::Dir::read_from(&dir)
        .map_err(|error| format!("/proc/self/task cannot be listed: {error}"))?;
    let mut buffer = [0; 256];
    for entry in entries {
        let entry = entry.map_err(|error| format!("/proc/self/task cannot be read: {error}"))?;
        let Some(tid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if except.contains(&tid) {
            continue;
        }
        if threads.len() == MAX_THREADS {
            return Err(format!("there are more than {MAX_THREADS} threads"));
        }
        let ran = read_small(&dir, &format!("{tid}/schedstat"), &mut buffer).and_then(parse_ran);
        let wait = read_small(&dir, &format!("{tid}/syscall"), &mut buffer).and_then(Wait::parse);
        match (ran, wait) {
            (Some(ran), Some(wait)) => threads.push(Thread { tid, ran, wait }),
            // Ended meanwhile, or not for us to read; the self-test tells which.
            _ => threads.push(Thread { tid, ran: (0, 0), wait: Wait::Running }),
        }
    }
    threads.sort_unstable_by_key(|thread| thread.tid);
    Ok(())
}

/// CPU time and number of time slices of `<cpu ns> <waiting ns> <time slices>`.
fn parse_ran(text: &str) -> Option<(u64, u64)> {
    let mut words = text.split_ascii_whitespace();
    let cpu = words.next()?.parse().ok()?;
    Some((cpu, words.nth(1)?.parse().ok()?))
}

/// Notes the threads that are bystanders: they have been seen to wait in an event loop, or on a condition variable
/// of the executable itself (libuv's pool). V8's own pool waits on one in the heap and is never among them. Looks a
/// few times, some milliseconds apart; for a native thread.
pub fn note_bystanders(known: &mut Vec<u32>) {
    let executable = executable();
    let mut threads = Vec::new();
    for _ in 0..LOOKS_FOR_BYSTANDERS {
        if look(&[], &mut threads).is_err() {
            return;
        }
        for thread in &threads {
            let waits_elsewhere = match thread.wait {
                Wait::Call(call) => EVENT_LOOP_CALLS.contains(&call),
                Wait::Futex { address, .. } => {
                    executable.is_some() && object_of(address as *const libc::c_void) == executable
                }
                Wait::Running => false,
            };
            if waits_elsewhere && !known.contains(&thread.tid) {
                known.push(thread.tid);
            }
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The first thread that does not sleep quietly, in words.
fn restless(threads: &[Thread], bystanders: &[u32]) -> Option<String> {
    let thread = threads
        .iter()
        .find(|thread| !thread.wait.is_quiet() && !bystanders.contains(&thread.tid))?;
    let mut name =
        std::fs::read_to_string(format!("/proc/self/task/{}/comm", thread.tid)).unwrap_or_default();
    name.truncate(name.trim_end().len());
    Some(match thread.wait {
        Wait::Running => format!("thread {name} was running"),
        Wait::Futex { .. } => format!("thread {name} was waiting for a lock"),
        Wait::Call(call) => format!("thread {name} was in system call {call}"),
    })
}

/// Condition variables that threads sleep on, by the address at which they would begin, each with the number of
/// its sleepers. Whether it is one is seen in the child, by its own count of waiters.
fn condvars(threads: &[Thread], layout: CondvarLayout) -> Vec<(usize, u32)> {
    let mut found: Vec<(usize, u32)> = Vec::new();
    for word in threads.iter().filter_map(|thread| thread.wait.condvar_word()) {
        // Two words of four bytes, one for each group of waiters.
        let Some(start) = (word & !7).checked_sub(layout.signals) else { continue };
        match found.iter_mut().find(|(known, _)| *known == start) {
            Some((_, sleepers)) => *sleepers += 1,
            None => found.push((start, 1)),
        }
    }
    found
}

// --- memory ------------------------------------------------------------------------------------------------

/// A mapping of private anonymous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    /// `VM_DONTCOPY`, `dc` in smaps: kept out of forks.
    kept_out: bool,
}

/// The private anonymous mapping that a line of maps or smaps begins, if it is one.
fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let (_offset, _device, inode) = (words.next()?, words.next()?, words.next()?);
    let name = words.next().unwrap_or_default();
    // [heap], [stack] and the kernel's own are copied as they are; V8 names its memory [anon:...].
    let plain = name.is_empty() || name.starts_with("[anon:");
    if !plain || inode != "0" || permissions.as_bytes().get(3) != Some(&b'p') {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(Mapping { start: address(start)?, end: address(end)?, kept_out: false })
}

/// Reads the mappings of maps, or of smaps with their flags, in order of address.
fn parse_mappings(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut current = false;
    for line in text.lines() {
        match line.as_bytes().first() {
            // A line that begins a mapping begins with an address; a capital is a figure of smaps.
            Some(b'0'..=b'9' | b'a'..=b'f') => {
                let mapping = parse_mapping(line);
                current = mapping.is_some();
                mappings.extend(mapping);
            }
            Some(b'V') if current => {
                if let Some(flags) = line.strip_prefix("VmFlags:")
                    && let Some(mapping) = mappings.last_mut()
                {
                    mapping.kept_out = flags.split_ascii_whitespace().any(|flag| flag == "dc");
                }
            }
            _ => {}
        }
    }
    mappings
}

/// A range of addresses.
type Span = (usize, usize);

/// What is to be given to the fork now, and what is to be taken away again after it: `before` was read with flags a
/// little earlier, `now` without. A mapping is V8's if it was kept out, or begins or ends where one did that it
/// overlaps (V8 has grown or trimmed it). One that is entirely new may be V8's: it goes into the fork, but is not
/// taken away afterwards, since it may also be memory that the app wants its own children to see.
fn plan(before: &[Mapping], now: &[Mapping]) -> (Vec<Span>, Vec<Span>) {
    let (mut give, mut take) = (Vec::new(), Vec::new());
    let mut from = 0;
    for mapping in now {
        while before.get(from).is_some_and(|old| old.end <= mapping.start) {
            from += 1;
        }
        let overlapping = before.iter().skip(from).take_while(|old| old.start < mapping.end).fold(
            (false, false, false),
            |(_, kept_out, edge), old| {
                let same_edge = old.start == mapping.start || old.end == mapping.end;
                (true, kept_out || old.kept_out, edge || (old.kept_out && same_edge))
            },
        );
        match overlapping {
            (true, false, _) => {}
            (true, true, true) => {
                join(&mut give, (mapping.start, mapping.end));
                join(&mut take, (mapping.start, mapping.end));
            }
            (false, ..) | (true, true, false) => join(&mut give, (mapping.start, mapping.end)),
        }
    }
    (give, take)
}

/// Appends a span, joined to the last if they touch.
fn join(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.1 == span.0 => last.1 = span.1,
        _ => spans.push(span),
    }
}

/// Advises each span; holes are skipped by the kernel, which advises the rest all the same (madvise(2), ENOMEM).
fn advise(spans: &[Span], advice: libc::c_int) {
    for &(start, end) in spans {
        // SAFETY: advice is MADV_DOFORK or MADV_DONTFORK, which change no content and no protection of the
        // range, only whether a later fork copies it; the range is the process' own private memory.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, advice) };
    }
}

fn read_to_string(path: &str) -> Result<String, String> {
    let mut text = String::with_capacity(256 << 10);
    File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|error| format!("{path} cannot be read: {error}"))?;
    Ok(text)
}

// --- the ticket --------------------------------------------------------------------------------------------

/// One fork, prepared on a native thread and carried out on a JS thread; see [`Ticket::prepare`] and [`attempt`].
pub struct Ticket {
    layout: CondvarLayout,
    limits: ChildLimits,
    mappings: Vec<Mapping>,
    bystanders: Vec<u32>,
    output: Arc<File>,
    gate: (File, File),
    _own: (own::Fd, own::Fd),
    claim: Arc<AtomicU8>,
    answer: Sender<Attempt>,
}

const OPEN: u8 = 0;
const CLAIMED: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Takes a [`Ticket`] back.
#[derive(Clone, Debug)]
pub struct Recall(Arc<AtomicU8>);

impl Recall {
    /// True if the ticket had not been begun, and will not be.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.0.compare_exchange(OPEN, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Ticket {
    /// Reads what is slow to read (milliseconds) and opens the gate at which the child waits for the verdict. The
    /// threads in `bystanders` may run during the fork. The answer comes through `answer`; a ticket dropped
    /// unanswered closes that channel.
    ///
    /// # Errors
    /// One sentence: `/proc` is not readable, or there are no descriptors left.
    pub fn prepare(
        layout: CondvarLayout,
        limits: ChildLimits,
        bystanders: Vec<u32>,
        output: Arc<File>,
        answer: Sender<Attempt>,
    ) -> Result<(Ticket, Recall), String> {
        let mappings = parse_mappings(&read_to_string("/proc/self/smaps")?);
        let gate = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| format!("no pipe for it: {error}"))?;
        let claim = Arc::new(AtomicU8::new(OPEN));
        let recall = Recall(Arc::clone(&claim));
        let gate = (File::from(gate.0), File::from(gate.1));
        let _own = (own::fd(), own::fd());
        Ok((
            Ticket { layout, limits, mappings, bystanders, output, gate, _own, claim, answer },
            recall,
        ))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Carries a ticket out, on the JS thread, and sends the answer. `work` runs in the child only and says whether it
/// succeeded; the child ends with it. Returns false if the ticket had been taken back.
///
/// The caller must be a JS thread that holds no lock of V8 or Node: one that was called from JavaScript.
pub fn attempt(ticket: Ticket, work: impl FnOnce() -> bool) -> bool {
    if ticket.claim.compare_exchange(OPEN, CLAIMED, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return false;
    }
    let (began, cpu) = (Instant::now(), thread_cpu());
    let outcome = fork_now(&ticket, work);
    let answer = Attempt { outcome, pause: began.elapsed(), cpu: thread_cpu().saturating_sub(cpu) };
    // If the minder has gone, the child goes with the answer.
    let _ = ticket.answer.send(answer);
    true
}

fn fork_now(ticket: &Ticket, work: impl FnOnce() -> bool) -> Outcome {
    let mut except = own::thread_ids();
    except.push(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    let (mut before, mut after) = (Vec::with_capacity(64), Vec::with_capacity(64));
    // A first look, before anything is changed; the one that counts is made directly before the fork.
    if let Some(outcome) = look_for_quiet(ticket, &except, &mut before) {
        return outcome;
    }
    let now = match read_to_string("/proc/self/maps") {
        Ok(text) => parse_mappings(&text),
        Err(problem) => return Outcome::Failed(problem),
    };
    let (give, take) = plan(&ticket.mappings, &now);
    let parent = std::process::id();

    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are live locals; sigfillset initialises the one, pthread_sigmask the other. No signal is
    // to be handled between the fork and the child's own dispositions: libuv's handler would write into the
    // pipe that the child still shares with the app.
    unsafe {
        libc::sigfillset(blocked.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, blocked.as_ptr(), old.as_mut_ptr());
    }
    advise(&give, libc::MADV_DOFORK);
    let again = look_for_quiet(ticket, &except, &mut before);
    let undo = || {
        advise(&take, libc::MADV_DONTFORK);
        // SAFETY: `old` was initialised by pthread_sigmask above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut()) };
    };
    if let Some(outcome) = again {
        undo();
        return outcome;
    }
    let condvars = condvars(&before, ticket.layout);
    // SAFETY: glibc (self-test), so that its own locks and malloc's are in order in the child. Every other
    // thread that could hold a lock of V8 or Node sleeps without one; if that turns out to be wrong, the child
    // has done nothing yet and is killed at the gate. The child runs `enter_child` and never returns.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        enter_child(ticket, parent, &condvars, work);
    }
    let error = io::Error::last_os_error();
    undo();
    if pid < 0 {
        return Outcome::Failed(format!("fork failed: {error}"));
    }
    let child = Child::new(pid);
    let still = look(&except, &mut after).is_ok() && {
        before.retain(|thread| !ticket.bystanders.contains(&thread.tid));
        after.retain(|thread| !ticket.bystanders.contains(&thread.tid));
        before == after
    };
    if !still {
        return Outcome::Disturbed(child);
    }
    match (&ticket.gate.1).write_all(b"!") {
        Ok(()) => Outcome::Forked(child),
        Err(error) => Outcome::Failed(format!("the child cannot be told to begin: {error}")),
    }
}

/// Looks a few times for a moment at which nobody runs but bystanders; what to answer if there is none.
fn look_for_quiet(ticket: &Ticket, except: &[u32], threads: &mut Vec<Thread>) -> Option<Outcome> {
    for round in 0.. {
        if let Err(problem) = look(except, threads) {
            return Some(Outcome::Failed(problem));
        }
        let who = restless(threads, &ticket.bystanders)?;
        if round + 1 == LOOKS {
            return Some(Outcome::Restless(who));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    None
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

// --- the child ---------------------------------------------------------------------------------------------

/// Leaves at once: no exit handlers, nothing flushed, no thread joined.
fn leave(code: i32) -> ! {
    // SAFETY: _exit may be called at any time and does not return.
    unsafe { libc::_exit(code) }
}

/// The child from its first instruction to its last.
fn enter_child(
    ticket: &Ticket,
    parent: u32,
    condvars: &[(usize, u32)],
    work: impl FnOnce() -> bool,
) -> ! {
    // SAFETY: two options of prctl with plain arguments; the name is a terminated string.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"leakguard-heap".as_ptr());
    }
    // The parent may have died before the line above took effect.
    if rustix::process::getppid()
        .is_none_or(|pid| pid.as_raw_nonzero().get().unsigned_abs() != parent)
    {
        leave(EXIT_ORPHANED);
    }
    // A second safety net from here on, also for the wait at the gate. Whole seconds, at least one.
    let seconds = ticket.limits.lifetime.as_secs().clamp(1, 86_400);
    // SAFETY: alarm takes any number; its signal has the default disposition below and ends the child.
    unsafe { libc::alarm(seconds as libc::c_uint) };
    signals_to_default();
    let mut verdict = [0];
    if (&ticket.gate.0).read_exact(&mut verdict).is_err() {
        leave(EXIT_ORPHANED);
    }
    if mute(ticket).is_err() {
        leave(EXIT_SET_UP);
    }
    bound(&ticket.limits);
    for &(start, sleepers) in condvars {
        reset_condvar(ticket.layout, start, sleepers);
    }
    // A panic must not unwind into the frames of the parent's JavaScript.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
    leave(if done { EXIT_DONE } else { EXIT_FAILED })
}

/// Every signal ends the child or does nothing, and none is blocked.
fn signals_to_default() {
    // SAFETY: a zeroed sigaction is SIG_DFL with an empty mask; numbers that have none are refused with EINVAL.
    // No handler of the app or of libuv, which would write into what it shares with the app, remains.
    unsafe {
        let default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        for signal in 1..=libc::SIGRTMAX() {
            libc::sigaction(signal, &default, std::ptr::null_mut());
        }
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Puts /dev/null in place of every descriptor but the output. Their numbers stay valid, so that libuv's
/// wake-ups of loops that no longer run do not abort on EBADF; and no socket of the app is kept open.
fn mute(ticket: &Ticket) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, RawDir, open};
    let output = ticket.output.as_raw_fd();
    // The gate has served: its two numbers make room when the app is at its limit of descriptors.
    for end in [ticket.gate.0.as_raw_fd(), ticket.gate.1.as_raw_fd()] {
        // SAFETY: the child's own copies, not used again: `Ticket` is never dropped here, the child leaves by _exit.
        unsafe { libc::close(end) };
    }
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open("/proc/self/fd", flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let Some(number) =
            entry?.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        if number != output && number != null.as_raw_fd() && number != dir.as_raw_fd() {
            // SAFETY: both are numbers of open descriptors of this process, which has one thread. What the number
            // stood for is closed in the child alone; nothing here uses it through an owner again.
            unsafe { libc::dup2(null.as_raw_fd(), number) };
        }
    }
    Ok(())
}

/// Bounds what the child may take, and makes it the first to go. A limit that cannot be set is not set: the
/// parent watches the headroom besides.
fn bound(limits: &ChildLimits) {
    if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj") {
        let _ = file.write_all(b"1000");
    }
    let _ = rustix::process::setpriority_process(None, 19);
    let limit = |resource, bytes: u64| {
        let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
        let _ = rustix::process::setrlimit(resource, limit);
    };
    limit(rustix::process::Resource::Core, 0);
    let mut buffer = [0; 128];
    let pages = File::open("/proc/self/statm")
        .and_then(|mut file| file.read(&mut buffer))
        .ok()
        .and_then(|n| std::str::from_utf8(buffer.get(..n)?).ok())
        .and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
    if let Some(pages) = pages {
        let now = pages.saturating_mul(rustix::param::page_size() as u64);
        limit(rustix::process::Resource::As, now.saturating_add(limits.budget_bytes));
    }
}

/// Makes a condition variable as new, if there is one at `start` and it counts as many waiters as threads were
/// seen asleep on it. They do not exist here; glibc would wait for them to confirm that they have woken.
fn reset_condvar(layout: CondvarLayout, start: usize, sleepers: u32) {
    let page = rustix::param::page_size();
    let (first, last) = (start & !(page - 1), (start + CONDVAR_BYTES - 1) & !(page - 1));
    let mut resident = [0_u8; 2];
    // SAFETY: mincore writes one byte for each page asked about, at most two; it fails with ENOMEM where nothing is
    // mapped, and touches nothing of the range itself.
    let mapped = unsafe {
        libc::mincore(first as *mut libc::c_void, last - first + page, resident.as_mut_ptr()) == 0
    };
    if !mapped {
        return;
    }
    // SAFETY: the 48 bytes are mapped (above), aligned to eight, and readable and writable as the memory around the
    // word that a thread slept on; if a page of them is not, or if they are no condition variable after all, it
    // is the child that suffers, and the try is repeated. There is no other thread.
    unsafe {
        let condvar = start as *mut u8;
        let waiters = condvar.add(layout.waiters()).cast::<u32>().read() >> 3;
        if waiters == sleepers {
            condvar.write_bytes(0, CONDVAR_BYTES);
        }
    }
}

// --- waiting for it ----------------------------------------------------------------------------------------

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Done => f.write_str("the child succeeded"),
            End::Code(EXIT_FAILED) => f.write_str("V8 could not write the snapshot in the child"),
            End::Code(code) => write!(f, "the child ended with code {code}"),
            End::Signal(libc::SIGALRM) => f.write_str("the child ran into its alarm"),
            End::Signal(libc::SIGABRT) => {
                f.write_str("the child gave up, most likely at its memory limit (signal 6)")
            }
            End::Signal(signal) => write!(f, "signal {signal} ended the child"),
            End::Unknown => f.write_str("the child ended unseen"),
        }
    }
}

/// A forked child. Dropped, it is killed and waited for: no zombie stays. It waits for this one process id and
/// never for the app's own children.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    /// Names the child even if somebody else has waited for it and its number was given away.
    handle: Option<OwnedFd>,
    _own: Option<own::Fd>,
    ended: bool,
}

impl Child {
    fn new(pid: libc::pid_t) -> Child {
        let handle = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let own = handle.is_some().then(own::fd);
        Child { pid, handle, _own: own, ended: false }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended; `None` while it runs.
    pub fn try_wait(&mut self) -> Option<Ended> {
        self.wait(libc::WNOHANG)
    }

    fn wait(&mut self, options: libc::c_int) -> Option<Ended> {
        let unknown = Ended { how: End::Unknown, peak_bytes: 0, cpu: Duration::ZERO };
        if self.ended {
            return Some(unknown);
        }
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        let waited = loop {
            // SAFETY: status and usage are live locals that the call fills; a positive pid waits for that child alone.
            let waited = unsafe { libc::wait4(self.pid, &mut status, options, usage.as_mut_ptr()) };
            if waited >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                break waited;
            }
        };
        if waited == 0 {
            return None;
        }
        self.ended = true;
        if waited < 0 {
            return Some(unknown);
        }
        // SAFETY: zeroed above, all its members are integers.
        let usage = unsafe { usage.assume_init() };
        let how = if libc::WIFSIGNALED(status) {
            End::Signal(libc::WTERMSIG(status))
        } else if libc::WEXITSTATUS(status) == EXIT_DONE {
            End::Done
        } else {
            End::Code(libc::WEXITSTATUS(status))
        };
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.unsigned_abs())
                + Duration::from_micros(time.tv_usec.unsigned_abs())
        };
        Some(Ended {
            how,
            // ru_maxrss is in kilobytes (getrusage(2)).
            peak_bytes: usage.ru_maxrss.unsigned_abs().saturating_mul(1024),
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
        })
    }

    /// Kills it. It is still to be waited for.
    pub fn kill(&mut self) {
        if self.ended {
            return;
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let _ = match &self.handle {
            Some(handle) => pidfd_send_signal(handle, Signal::KILL),
            // Not waited for yet, so the number is still the child's.
            None => rustix::process::kill_process(pid, Signal::KILL),
        };
    }

    /// Sleeps until it ends, or for so long.
    pub fn doze(&self, at_most: Duration) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(handle) = &self.handle else {
            std::thread::sleep(at_most.min(Duration::from_millis(20)));
            return;
        };
        let time =
            Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&time));
    }

    /// CPU it has used, nanoseconds, if it sleeps for a lock or a condition at this moment: one that does so for long,
    /// without using any, hangs. `None` while it runs, writes, or cannot be looked at.
    #[must_use]
    pub fn asleep_at(&self) -> Option<u64> {
        let mut buffer = [0; 256];
        let dir = rustix::fs::open(
            format!("/proc/{}", self.pid),
            rustix::fs::OFlags::RDONLY
                | rustix::fs::OFlags::DIRECTORY
                | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .ok()?;
        let wait = read_small(&dir, "syscall", &mut buffer).and_then(Wait::parse)?;
        if !matches!(wait, Wait::Futex { .. }) {
            return None;
        }
        read_small(&dir, "schedstat", &mut buffer).and_then(parse_ran).map(|(cpu, _)| cpu)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
            self.wait(0);
        }
    }
}

// --- the self-test -----------------------------------------------------------------------------------------

/// Finds out whether all of this works in this process: some milliseconds, two threads and one fork that ends at
/// once. On a native thread; the JS thread need not stop.
#[must_use]
pub fn self_test() -> ForkAbility {
    match try_everything() {
        Ok(layout) => ForkAbility::Possible(layout),
        Err(why) => ForkAbility::Not(why),
    }
}

fn try_everything() -> Result<CondvarLayout, String> {
    // SAFETY: a function of glibc without arguments that returns a static string.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy();
    if parse_version(&version).is_none_or(|version| version < OLDEST_GLIBC) {
        let (major, minor) = OLDEST_GLIBC;
        return Err(format!("glibc {version} is not known; {major}.{minor} or later is"));
    }
    if !malloc_is_glibc() {
        return Err("malloc is not glibc's: another allocator is preloaded".into());
    }
    let page = TestPage::map()?;
    let bench = Bench::seat()?;
    let result = bench.layout().and_then(|layout| {
        trial_fork(&bench, layout, &page)?;
        Ok(layout)
    });
    bench.dismiss();
    result
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Start of the loaded object that an address lies in.
fn object_of(address: *const libc::c_void) -> Option<usize> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr takes any address and fills the struct when it returns non-zero.
    unsafe {
        (!address.is_null() && libc::dladdr(address, found.as_mut_ptr()) != 0)
            .then(|| found.assume_init().dli_fbase as usize)
    }
}

/// Start of the executable.
fn executable() -> Option<usize> {
    // SAFETY: getauxval takes any number.
    object_of(unsafe { libc::getauxval(libc::AT_ENTRY) } as *const libc::c_void)
}

/// Whether the malloc that the process uses is glibc's. An executable that takes the address of `malloc` has an
/// entry of its own for it, which says nothing; whoever replaces malloc also replaces `valloc` and its like, of
/// which no executable takes the address.
fn malloc_is_glibc() -> bool {
    // SAFETY: dlsym takes a terminated string and searches what is loaded.
    let object = |name: &CStr| object_of(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) });
    let executable = executable();
    let libc = object(c"gnu_get_libc_version");
    let malloc = object(c"malloc");
    libc.is_some()
        && (malloc == libc || malloc == executable)
        && [c"valloc", c"memalign", c"malloc_usable_size"].iter().all(|name| object(name) == libc)
}

/// A page that is kept out of forks and given back: the child must find what was written to it.
struct TestPage(*mut u8);

const MARK: u8 = 0x5a;

impl TestPage {
    fn map() -> Result<TestPage, String> {
        let page = rustix::param::page_size();
        // SAFETY: a new private anonymous mapping, nowhere in particular; the two advices concern it alone, and the
        // write goes to its first byte.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if at == libc::MAP_FAILED {
                return Err(format!("no page to try with: {}", io::Error::last_os_error()));
            }
            let test = TestPage(at.cast());
            test.0.write(MARK);
            if libc::madvise(at, page, libc::MADV_DONTFORK) != 0
                || libc::madvise(at, page, libc::MADV_DOFORK) != 0
            {
                let error = io::Error::last_os_error();
                return Err(format!("the kernel does not take MADV_DOFORK: {error}"));
            }
            Ok(test)
        }
    }
}

impl Drop for TestPage {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, one page, not used again.
        unsafe { libc::munmap(self.0.cast(), rustix::param::page_size()) };
    }
}

/// A condition variable of our own with two threads asleep on it: the model of V8's pool.
struct Bench {
    shared: Arc<BenchShared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

struct BenchShared {
    mutex: std::cell::UnsafeCell<libc::pthread_mutex_t>,
    condvar: std::cell::UnsafeCell<libc::pthread_cond_t>,
    over: AtomicBool,
    tids: [AtomicI32; 2],
    seated: AtomicU32,
}

// SAFETY: mutex and condition variable are made to be used by several threads, by address; all else is atomic.
unsafe impl Sync for BenchShared {}
// SAFETY: as above; neither belongs to a thread. They do not move: the struct lives in an Arc.
unsafe impl Send for BenchShared {}

impl Bench {
    fn seat() -> Result<Bench, String> {
        let shared = Arc::new(BenchShared {
            mutex: std::cell::UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            condvar: std::cell::UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER),
            over: AtomicBool::new(false),
            tids: [AtomicI32::new(0), AtomicI32::new(0)],
            seated: AtomicU32::new(0),
        });
        let mut bench = Bench { shared, threads: Vec::new() };
        for seat in 0..2 {
            let shared = Arc::clone(&bench.shared);
            let thread = std::thread::Builder::new()
                .name("leakguard-test".into())
                .stack_size(64 << 10)
                .spawn(move || sit(&shared, seat));
            match thread {
                Ok(thread) => bench.threads.push(thread),
                Err(error) => {
                    bench.dismiss();
                    return Err(format!("no threads to try with: {error}"));
                }
            }
        }
        Ok(bench)
    }

    fn condvar(&self) -> usize {
        self.shared.condvar.get() as usize
    }

    /// Waits until both sleep, and takes the layout from what they sleep on.
    fn layout(&self) -> Result<CondvarLayout, String> {
        let deadline = Instant::now() + SELF_TEST_PATIENCE;
        let mut last = String::from("nothing");
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            if self.shared.seated.load(Ordering::Acquire) < 2 {
                continue;
            }
            let mut words = Vec::new();
            for tid in &self.shared.tids {
                let path = format!("/proc/self/task/{}/syscall", tid.load(Ordering::Acquire));
                last = std::fs::read_to_string(&path)
                    .map_err(|error| format!("{path} cannot be read: {error}"))?;
                let wait = Wait::parse(&last).filter(|wait| wait.is_quiet());
                let path = format!("/proc/self/task/{}/schedstat", tid.load(Ordering::Acquire));
                let ran = std::fs::read_to_string(&path).ok().and_then(|text| parse_ran(&text));
                // A thread that sleeps has run before.
                if wait.is_some() && ran.is_none_or(|(cpu, slices)| cpu == 0 || slices == 0) {
                    return Err(format!("the kernel does not say when a thread ran ({path})"));
                }
                words.extend(wait.and_then(Wait::condvar_word));
            }
            if words.len() < 2 {
                continue;
            }
            let offsets: Vec<usize> =
                words.iter().map(|word| (word & !7).wrapping_sub(self.condvar())).collect();
            let layout = match offsets[..] {
                [a, b] if a == b && (a == 40 || a == 32) => CondvarLayout { signals: a },
                _ => {
                    return Err(format!(
                        "this glibc's condition variables are not known ({offsets:?})"
                    ));
                }
            };
            // SAFETY: the word lies within our own condition variable, which lives as long as self; glibc
            // changes it atomically, and so it is read.
            let waiters = unsafe {
                (*((self.condvar() + layout.waiters()) as *const AtomicU32)).load(Ordering::Acquire)
            };
            if waiters >> 3 != 2 {
                return Err(format!(
                    "this glibc's condition variables count otherwise ({waiters})"
                ));
            }
            return Ok(layout);
        }
        Err(format!("two threads that wait cannot be seen to sleep ({})", last.trim_end()))
    }

    fn dismiss(self) {
        self.shared.over.store(true, Ordering::Release);
        // SAFETY: both live in the Arc; broadcast under the lock, so that no thread misses it.
        unsafe {
            libc::pthread_mutex_lock(self.shared.mutex.get());
            libc::pthread_cond_broadcast(self.shared.condvar.get());
            libc::pthread_mutex_unlock(self.shared.mutex.get());
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn sit(shared: &BenchShared, seat: usize) {
    let _own = own::thread();
    if let Some(tid) = shared.tids.get(seat) {
        tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    }
    // SAFETY: mutex and condition variable live in the Arc that the caller holds, and are used as pthreads wants:
    // wait under the lock, in a loop.
    unsafe {
        libc::pthread_mutex_lock(shared.mutex.get());
        shared.seated.fetch_add(1, Ordering::AcqRel);
        while !shared.over.load(Ordering::Acquire) {
            libc::pthread_cond_wait(shared.condvar.get(), shared.mutex.get());
        }
        libc::pthread_mutex_unlock(shared.mutex.get());
    }
}

/// Forks, without touching V8, a child that resets the condition variable, signals it as V8 would, and looks at the
/// test page.
fn trial_fork(bench: &Bench, layout: CondvarLayout, page: &TestPage) -> Result<(), String> {
    let condvar = bench.condvar();
    // SAFETY: the child makes only calls that are safe after a fork of a process with threads: prctl, alarm,
    // sigaction, mincore, memory of its own, condition-variable calls on one that was made anew, _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: plain arguments.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(1);
        }
        signals_to_default();
        reset_condvar(layout, condvar, 2);
        let condvar = condvar as *mut libc::pthread_cond_t;
        for _ in 0..4 {
            // SAFETY: the bench's condition variable, reset above; nobody waits, so that neither call blocks.
            unsafe {
                libc::pthread_cond_signal(condvar);
                libc::pthread_cond_broadcast(condvar);
            }
        }
        // SAFETY: the page is mapped in the parent and, if the advice works, here; if not, the child dies of it.
        let mark = unsafe { page.0.read() };
        leave(if mark == MARK { EXIT_DONE } else { EXIT_FAILED });
    }
    if pid < 0 {
        return Err(format!("fork failed: {}", io::Error::last_os_error()));
    }
    let mut child = Child::new(pid);
    let deadline = Instant::now() + SELF_TEST_PATIENCE;
    loop {
        if let Some(ended) = child.try_wait() {
            return match ended.how {
                End::Done => Ok(()),
                End::Unknown => Err(
                    "children cannot be waited for: SIGCHLD is ignored, or the app waits for all"
                        .into(),
                ),
                how => Err(format!("a trial fork failed: {how}")),
            };
        }
        if Instant::now() >= deadline {
            return Err("a trial fork did not end".into());
        }
        child.doze(Duration::from_millis(20));
    }
}

/// The path by which V8 in the child opens the output.
#[must_use]
pub fn path_of(output: &File) -> String {
    format!("/proc/self/fd/{}", output.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    #[test]
    fn what_a_thread_does_is_read_from_proc() {
        let sleeping =
            Wait::parse("202 0x42ae6964 0x189 0x0 0x0 0x0 0xffffffff 0x7f 0x7f\n").unwrap();
        assert_eq!(sleeping, Wait::Futex { address: 0x42ae_6964, operation: 0x189, value: 0 });
        assert_eq!(Wait::parse("running\n"), Some(Wait::Running));
        assert_eq!(Wait::parse("-1 0x7ffc 0x7f5e\n"), Some(Wait::Call(-1)));
        for broken in ["", "\n", "202", "202 0x1 0x2", "202 1 2 3", "x 0x1"] {
            assert_eq!(Wait::parse(broken), None, "{broken}");
        }
        assert_eq!(parse_ran("73300217 4280285 39\n"), Some((73_300_217, 39)));
        assert_eq!(parse_ran("1 2"), None);
    }

    #[test]
    fn a_thread_that_waits_for_a_lock_is_not_quiet_one_that_waits_for_a_condition_is() {
        let futex = |operation, value| Wait::Futex { address: 8, operation, value };
        assert!(futex(0x189, 0).is_quiet());
        assert!(futex(0x89, 1).is_quiet());
        assert!(futex(0x80, 0).is_quiet()); // a condition of glibc 2.28
        assert!(!futex(0x80, 2).is_quiet());
        assert!(!futex(0x86, 0).is_quiet()); // FUTEX_LOCK_PI
        assert!(!Wait::Running.is_quiet());
        assert!(Wait::Call(libc::SYS_epoll_pwait).is_quiet());
        assert!(!Wait::Call(libc::SYS_munmap).is_quiet());
        assert!(!Wait::Call(-1).is_quiet());
    }

    #[test]
    fn sleepers_are_counted_by_the_condition_variable_they_sleep_on() {
        let thread = |tid, address| Thread {
            tid,
            ran: (1, 1),
            wait: Wait::Futex { address, operation: 0x189, value: 0 },
        };
        let threads = [thread(1, 1040), thread(2, 1044), thread(3, 2040), thread(4, 4)];
        assert_eq!(condvars(&threads, CondvarLayout { signals: 40 }), [(1000, 2), (2000, 1)]);
        assert_eq!(condvars(&threads, CondvarLayout { signals: 32 }), [(1008, 2), (2008, 1)]);
    }

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 fe:00 1 /usr/bin/node
Rss: 4 kB
VmFlags: rd ex dc
01000000-01100000 rw-p 00000000 00:00 0 [heap]
VmFlags: rd wr dc
10000-20000 rw-p 00000000 00:00 0
Rss: 64 kB
VmFlags: rd wr mr dc sd
20000-28000 rw-p 00000000 00:00 0 [anon:v8]
VmFlags: rd wr dc
30000-40000 rw-p 00000000 00:00 0
VmFlags: rd wr sd
50000-60000 rw-s 00000000 00:00 0
VmFlags: rd wr dc
";

    fn mapping(start: usize, end: usize, kept_out: bool) -> Mapping {
        Mapping { start, end, kept_out }
    }

    #[test]
    fn private_anonymous_mappings_and_their_flag_are_read_from_smaps() {
        assert_eq!(
            parse_mappings(SMAPS),
            [
                mapping(0x10000, 0x20000, true),
                mapping(0x20000, 0x28000, true),
                mapping(0x30000, 0x40000, false),
            ]
        );
        assert_eq!(parse_mappings("VmFlags: dc\nzz\n\n1-\n"), []);
    }

    #[test]
    fn what_is_given_to_the_fork_is_taken_away_again_unless_it_is_new() {
        let before = parse_mappings(SMAPS);
        // Unchanged: both are given, joined, and taken; the plain one is left alone.
        let both = vec![(0x10000, 0x28000)];
        assert_eq!(plan(&before, &before), (both.clone(), both));
        // Trimmed at its end and grown at its end: still V8's.
        let now = [mapping(0x10000, 0x1c000, false), mapping(0x20000, 0x2c000, false)];
        let spans = vec![(0x10000, 0x1c000), (0x20000, 0x2c000)];
        assert_eq!(plan(&before, &now), (spans.clone(), spans));
        // New, or something else in a hole of V8's: given and not taken.
        let now = [mapping(0x12000, 0x13000, false), mapping(0x70000, 0x71000, false)];
        assert_eq!(plan(&before, &now), (vec![(0x12000, 0x13000), (0x70000, 0x71000)], vec![]));
    }

    #[test]
    fn the_self_test_passes_on_a_known_glibc() {
        assert!(matches!(self_test(), ForkAbility::Possible(_)), "{:?}", self_test());
        assert_eq!(parse_version("2.36"), Some((2, 36)));
        assert_eq!(parse_version("2.36.9000"), Some((2, 36)));
        assert_eq!(parse_version("musl"), None);
    }

    /// Threads of the test harness run as they please: tries until the moment is quiet.
    fn fork_until_quiet(output: &Arc<File>, work: impl Fn() -> bool) -> Child {
        let ForkAbility::Possible(layout) = self_test() else { panic!("no fork here") };
        let limits = ChildLimits { budget_bytes: 1 << 30, lifetime: Duration::from_secs(30) };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (answer, answers) = bounded(1);
            let (ticket, _recall) =
                Ticket::prepare(layout, limits, Vec::new(), Arc::clone(output), answer).unwrap();
            assert!(attempt(ticket, &work));
            match answers.recv().unwrap().outcome {
                Outcome::Forked(child) => return child,
                Outcome::Failed(why) => panic!("{why}"),
                Outcome::Restless(_) | Outcome::Disturbed(_) => {
                    assert!(Instant::now() < deadline, "never quiet");
                    std::thread::yield_now();
                }
            }
        }
    }

    fn end_of(mut child: Child) -> Ended {
        loop {
            if let Some(ended) = child.try_wait() {
                return ended;
            }
            child.doze(Duration::from_secs(1));
        }
    }

    #[test]
    fn a_child_has_its_output_and_nothing_else_of_the_app() {
        let (mut read, write) = crate::evidence::sink::pipe().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let write = Arc::new(write);
        let path = path_of(&write);
        let child = fork_until_quiet(&write, || {
            let null = std::fs::metadata("/dev/null").unwrap();
            let same = |fd: RawFd| {
                use std::os::unix::fs::MetadataExt;
                std::fs::metadata(format!("/proc/self/fd/{fd}"))
                    .is_ok_and(|at| at.rdev() == null.rdev() && at.ino() == null.ino())
            };
            let muted = same(0) && same(1) && same(2) && same(listener.as_raw_fd());
            let core = rustix::process::getrlimit(rustix::process::Resource::Core).current;
            let space = rustix::process::getrlimit(rustix::process::Resource::As).current;
            let nice = rustix::process::getpriority_process(None);
            let oom = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
            let bounded = core == Some(0) && space.is_some() && nice == Ok(19);
            std::fs::write(&path, "written by the child").unwrap();
            muted && bounded && oom.trim() == "1000"
        });
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "written by the child");
        assert_eq!(end_of(child).how, End::Done);
    }

    #[test]
    fn a_child_that_fails_panics_or_hangs_is_known_and_none_stays() {
        let (_read, write) = crate::evidence::sink::pipe().unwrap();
        let write = Arc::new(write);
        assert_eq!(end_of(fork_until_quiet(&write, || false)).how, End::Code(EXIT_FAILED));
        let mut hanging = fork_until_quiet(&write, || {
            loop {
                std::thread::park();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while hanging.asleep_at().is_none() {
            assert!(Instant::now() < deadline && hanging.try_wait().is_none());
            std::thread::yield_now();
        }
        let pid = hanging.pid();
        drop(hanging);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_ticket_that_was_taken_back_forks_nothing() {
        let ForkAbility::Possible(layout) = self_test() else { panic!("no fork here") };
        let limits = ChildLimits { budget_bytes: 1 << 30, lifetime: Duration::from_secs(5) };
        let (_read, write) = crate::evidence::sink::pipe().unwrap();
        let (answer, answers) = bounded(1);
        let (ticket, recall) =
            Ticket::prepare(layout, limits, Vec::new(), Arc::new(write), answer).unwrap();
        assert!(recall.withdraw() && !recall.withdraw());
        assert!(!attempt(ticket, || true));
        assert!(answers.recv().is_err());
    }
}
