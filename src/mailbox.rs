//! What the native thread leaves for one JS thread: requests as bits, events as a bounded queue. The native
//! thread puts first and wakes second; the JS thread takes when it comes round. Nobody waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::evidence::fork::Ticket;

/// Events kept for a JS thread that does not come; the oldest go first.
const MAX_EVENTS: usize = 64;

/// Answers for the status page that are kept: as many as JavaScript waits for (lib/page.js).
const MAX_PAGES: usize = 8;

/// Requests, one bit each. JavaScript has the same numbers (lib/work.js).
pub mod work {
    /// Read heap statistics and event-loop utilization.
    pub const HEAP: u32 = 1;
    /// The same, directly after a major GC.
    pub const HEAP_AFTER_GC: u32 = 1 << 1;
    /// Count timers.
    pub const TIMERS: u32 = 1 << 2;
    /// Report listeners.
    pub const LISTENERS: u32 = 1 << 3;
    /// Make a major GC begin without a pause, by a memory-pressure notification. Done natively inside `takeWork`;
    /// JavaScript never sees it.
    pub const START_BY_PRESSURE: u32 = 1 << 4;
    /// Watch for the major GC's end with a PerformanceObserver: the GC callbacks are not in use.
    pub const OBSERVE_MAJOR: u32 = 1 << 5;
    /// Force a GC and report the heap.
    pub const FORCE_GC: u32 = 1 << 6;
    /// Take the snapshot job and write it.
    pub const SNAPSHOT: u32 = 1 << 7;
    /// Take events.
    pub const EVENTS: u32 = 1 << 8;
    /// Take the orders of the allocation profile.
    pub const PROFILE: u32 = 1 << 9;
    /// Take the answers for the status page.
    pub const PAGE: u32 = 1 << 10;
    /// Report requests by route.
    pub const ROUTES: u32 = 1 << 11;
    /// The same as [`START_BY_PRESSURE`], by external memory.
    pub const START_BY_EXTERNAL: u32 = 1 << 12;
    /// With one of the two: the JS thread rests for moments, so that V8's concurrent markers come first.
    pub const HEAD_START: u32 = 1 << 13;
    /// The native thread is no more.
    pub const FAILED: u32 = 1 << 14;
}

/// What an event is; JavaScript decides by it whom to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A finding was opened.
    Finding,
    /// A snapshot was written.
    Snapshot,
    /// A step of evidence was not taken.
    Refused,
    /// A previous run of this app is over, and this is how.
    Postmortem,
    /// Something of ours failed.
    Error,
    /// A process warning.
    Warning,
    /// The answer to a snapshot on demand.
    Answer,
    /// An allocation profile was written, and a finding may know its line now.
    Profile,
    /// New readings tell which route's requests a finding's growth goes with.
    Routes,
    /// A snapshot was analysed.
    Analysis,
}

impl EventKind {
    /// The event's name in JavaScript.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Finding => "finding",
            EventKind::Snapshot => "snapshot",
            EventKind::Refused => "refused",
            EventKind::Postmortem => "postmortem",
            EventKind::Error => "error",
            EventKind::Warning => "warning",
            EventKind::Answer => "answer",
            EventKind::Profile => "profile",
            EventKind::Routes => "routes",
            EventKind::Analysis => "analysis",
        }
    }
}

/// One event: its payload is JSON text, parsed where it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What it is.
    pub kind: EventKind,
    /// JSON.
    pub payload: String,
}

/// How the JS thread is to do a job.
#[derive(Debug)]
pub enum JobWay {
    /// Write it itself.
    Inline {
        /// How long its loop is expected to stop.
        predicted_pause_ms: u64,
    },
    /// Fork a child that writes it.
    Fork(Box<Ticket>),
    /// Fork a child that collects garbage and writes `ok`.
    GcStage(Box<Ticket>),
}

impl JobWay {
    /// The name in JavaScript.
    pub fn as_str(&self) -> &'static str {
        match self {
            JobWay::Inline { .. } => "inline",
            JobWay::Fork(_) => "fork",
            JobWay::GcStage(_) => "gc-stage",
        }
    }
}

/// A snapshot that the JS thread is to write.
#[derive(Debug)]
pub struct SnapshotJob {
    /// Number of the job.
    pub id: u32,
    /// Path to write to: the pipe's end under /proc/self/fd, or a `.part` file.
    pub path: String,
    /// How.
    pub way: JobWay,
}

/// What the JS thread is to do about the allocation profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileOrder {
    /// Number of the profile, which the answer repeats.
    pub run: u32,
    /// `begin`, `read`, `finish`, `stop`.
    pub what: &'static str,
    /// Mean distance of samples for `begin`, bytes.
    pub interval_bytes: u32,
    /// With `begin`: whether Node is to write the profile as well when V8 reaches its heap limit, where it can.
    pub at_limit: bool,
}

/// The mailbox of one isolate.
#[derive(Debug, Default)]
pub struct Mailbox {
    requests: AtomicU32,
    events: Mutex<VecDeque<Event>>,
    lost: AtomicU64,
    job: Mutex<Option<SnapshotJob>>,
    orders: Mutex<VecDeque<ProfileOrder>>,
    pages: Mutex<VecDeque<(u32, String)>>,
}

impl Mailbox {
    /// Adds requests.
    pub fn request(&self, bits: u32) {
        self.requests.fetch_or(bits, Ordering::AcqRel);
    }

    /// Takes all requests.
    pub fn take(&self) -> u32 {
        self.requests.swap(0, Ordering::AcqRel)
    }

    /// Leaves an event; the oldest is lost, and counted, when there are too many.
    pub fn post(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() == MAX_EVENTS {
            events.pop_front();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        events.push_back(event);
        drop(events);
        self.request(work::EVENTS);
    }

    /// Takes the oldest event.
    pub fn next_event(&self) -> Option<Event> {
        self.events.lock().pop_front()
    }

    /// Events that nobody fetched in time.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Leaves a snapshot job.
    pub fn put_job(&self, job: SnapshotJob) {
        *self.job.lock() = Some(job);
        self.request(work::SNAPSHOT);
    }

    /// Leaves an order. Each waits for the answer to the one before, so that there are never many.
    pub fn put_order(&self, order: ProfileOrder) {
        self.orders.lock().push_back(order);
        self.request(work::PROFILE);
    }

    /// Takes the oldest order.
    pub fn take_order(&self) -> Option<ProfileOrder> {
        self.orders.lock().pop_front()
    }

    /// Leaves an answer for the status page, with the number of its question.
    pub fn put_page(&self, number: u32, json: String) {
        let mut pages = self.pages.lock();
        if pages.len() == MAX_PAGES {
            pages.pop_front();
        }
        pages.push_back((number, json));
        drop(pages);
        self.request(work::PAGE);
    }

    /// Takes the oldest answer.
    pub fn take_page(&self) -> Option<(u32, String)> {
        self.pages.lock().pop_front()
    }

    /// How long the loop is expected to stop for the job that waits here, ms; `None` if none does, or not for an
    /// inline snapshot.
    pub fn stop_ahead(&self) -> Option<u64> {
        match self.job.lock().as_ref()?.way {
            JobWay::Inline { predicted_pause_ms } => Some(predicted_pause_ms),
            JobWay::Fork(_) | JobWay::GcStage(_) => None,
        }
    }

    /// Takes the snapshot job.
    pub fn take_job(&self) -> Option<SnapshotJob> {
        self.job.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_gather_until_taken() {
        let mailbox = Mailbox::default();
        mailbox.request(work::HEAP);
        mailbox.request(work::TIMERS | work::HEAP);
        assert_eq!(mailbox.take(), work::HEAP | work::TIMERS);
        assert_eq!(mailbox.take(), 0);
    }

    #[test]
    fn a_stop_is_ahead_only_of_an_inline_snapshot_that_was_not_begun() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.stop_ahead(), None);
        let way = JobWay::Inline { predicted_pause_ms: 1200 };
        mailbox.put_job(SnapshotJob { id: 1, path: String::new(), way });
        assert_eq!(mailbox.stop_ahead(), Some(1200));
        assert!(mailbox.take_job().is_some());
        assert_eq!(mailbox.stop_ahead(), None);
    }

    #[test]
    fn answers_that_nobody_fetches_are_bounded() {
        let mailbox = Mailbox::default();
        for number in 0..100 {
            mailbox.put_page(number, String::new());
        }
        let kept: Vec<u32> = std::iter::from_fn(|| mailbox.take_page()).map(|(n, _)| n).collect();
        assert_eq!(kept, (100 - MAX_PAGES as u32..100).collect::<Vec<_>>());
        assert_eq!(mailbox.take(), work::PAGE);
    }

    #[test]
    fn the_oldest_events_go_and_are_counted() {
        let mailbox = Mailbox::default();
        for number in 0..170 {
            mailbox.post(Event { kind: EventKind::Refused, payload: number.to_string() });
        }
        assert_eq!(mailbox.lost(), 170 - MAX_EVENTS as u64);
        assert_eq!(mailbox.next_event().unwrap().payload, (170 - MAX_EVENTS).to_string());
        assert_eq!(mailbox.take(), work::EVENTS);
    }
}
