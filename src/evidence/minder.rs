//! Drives one forked snapshot from its own native thread: prepares the fork, has the JS thread carry it out,
//! comes back later if the moment was not quiet, watches the child and the memory while it writes, kills it
//! when it hangs or memory runs short, waits for it, and tries again if it died of something that may not
//! happen twice. It decides nothing about whether there should be a snapshot (see `budget`), and holds no
//! unsafe code (see `fork`).
//!
//! ```text
//!           +------- restless, disturbed: back off ------+
//!           v                                            |
//!   prepare (smaps) -> Ask -> JS thread: look, fork, look -> child at its gate
//!           ^                                                     | begins
//!           |                                                     v
//!           +--- died, hung: next try ------------------- watch: memory, time, stop
//!                                                                 | ended, and the sink has it whole
//!                                                                 v
//!                                                               Done
//! ```

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::budget::{self, Figures, RefusalReason};
use super::fork::{self, Attempt, Child, ChildLimits, CondvarLayout, End, Ended, Outcome, Ticket};
use super::sink::{self, SinkError, SinkHandle, SinkJob, SinkReport, SnapshotFile};
use super::store::Store;
use crate::probe::{self, own};

/// Children that may be begun for one snapshot. A child that dies of what it inherited usually does not twice.
const MAX_TRIES: u32 = 3;
/// How long a quiet moment is looked for, all tries together. Worker threads that never rest need more, and are
/// refused instead.
const QUIET_WITHIN: Duration = Duration::from_secs(15);
/// Attempts in which every other thread must sleep; after them, only V8's pool (see `fork`).
const STRICT_ATTEMPTS: u32 = 5;
/// Pauses between looks for a quiet moment: doubled from the first to the longest.
const FIRST_BACK_OFF: Duration = Duration::from_millis(2);
const LONGEST_BACK_OFF: Duration = Duration::from_millis(100);
/// How long the JS thread may take to come round for one attempt.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often memory and child are looked at. A child takes some 100 MB a second.
const WATCH_EVERY: Duration = Duration::from_millis(25);
/// A child that sleeps on a lock for so long without using CPU hangs: it has no other thread to wait for.
const HUNG_AFTER: Duration = Duration::from_secs(3);
/// How long the sink may take to finish what is left in the pipe when the child has gone.
const SINK_WITHIN: Duration = Duration::from_secs(120);

/// What the child is to do.
pub enum Errand {
    /// Write a snapshot; a new job for each try.
    Snapshot {
        /// Where it goes.
        store: Arc<Store>,
        /// Makes the sink's job.
        job: Box<dyn Fn() -> SinkJob + Send>,
    },
    /// Collect garbage as a snapshot does, and say so: what the soak test runs thousands of times.
    GcStage,
}

/// Under which conditions.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Found by the self-test.
    pub layout: CondvarLayout,
    /// What the child may add to its address space, bytes.
    pub budget_bytes: u64,
    /// How long one child may take.
    pub lifetime: Duration,
}

/// What a minder sends.
#[derive(Debug)]
pub enum News {
    /// Please have the JS thread carry this out, and write to this path in the child.
    Ask(Box<Ticket>, String),
    /// The end; nothing follows.
    Done(Box<ForkReport>),
}

/// How it went.
#[derive(Debug)]
pub struct ForkReport {
    /// The snapshot; none for the GC stage.
    pub result: Result<Option<SnapshotFile>, ForkFailure>,
    /// Children that were begun.
    pub tries: u32,
    /// Times the JS thread was asked.
    pub attempts: u32,
    /// Why it took more than one child, in words.
    pub mishaps: Vec<String>,
    /// What last disturbed an attempt.
    pub disturbance: Option<String>,
    /// Longest time that the JS thread was kept by one attempt.
    pub pause: Duration,
    /// CPU of the JS thread for that attempt.
    pub pause_cpu: Duration,
    /// Bytes that came through the pipe in the last try.
    pub bytes_read: u64,
    /// What the child took beyond what it was born with, bytes; of the last try.
    pub extra_bytes: Option<u64>,
}

/// Why there is no snapshot.
#[derive(Clone, Debug)]
pub struct ForkFailure {
    /// The code of the refusal it amounts to.
    pub reason: RefusalReason,
    /// One sentence, no final dot.
    pub sentence: String,
    /// Whether the disk was the reason: then an inline snapshot would fail alike.
    pub final_for_all: bool,
}

/// A running minder. Dropped, it gives up: the child is killed and waited for, no file appears.
#[derive(Debug)]
pub struct Minder {
    stop: Arc<AtomicBool>,
}

impl Minder {
    /// Starts.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(terms: Terms, errand: Errand, news: Sender<News>) -> std::io::Result<Minder> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        std::thread::Builder::new().name("leakguard-fork".to_owned()).spawn(move || {
            let _own = own::thread();
            let run = std::panic::AssertUnwindSafe(|| Run::new(terms, errand, &news, &flag).run());
            let report = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                ForkReport::failed(failure(RefusalReason::State, "the minder of the fork failed"))
            });
            // The guard was stopped meanwhile: nobody asks any more.
            let _ = news.send(News::Done(Box::new(report)));
        })?;
        Ok(Minder { stop })
    }

    /// Gives up: the child is killed and waited for, no file appears, and the report says so.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Minder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl ForkReport {
    fn failed(failure: ForkFailure) -> ForkReport {
        ForkReport {
            result: Err(failure),
            tries: 0,
            attempts: 0,
            mishaps: Vec::new(),
            disturbance: None,
            pause: Duration::ZERO,
            pause_cpu: Duration::ZERO,
            bytes_read: 0,
            extra_bytes: None,
        }
    }
}

fn failure(reason: RefusalReason, sentence: impl Into<String>) -> ForkFailure {
    ForkFailure { reason, sentence: sentence.into(), final_for_all: false }
}

/// Why a try came to nothing.
enum Mishap {
    /// Another child may do better.
    Again(String),
    /// None would.
    Final(ForkFailure),
}

struct Run<'a> {
    terms: Terms,
    errand: Errand,
    news: &'a Sender<News>,
    stop: &'a AtomicBool,
    report: ForkReport,
    quiet_until: Instant,
    /// Threads that may run during the fork, once it had to be allowed.
    bystanders: Vec<u32>,
}

/// The bytes of one try.
enum Way {
    Sink { sink: SinkHandle, reports: Receiver<SinkReport> },
    Pipe(File, own::Fd),
}

impl<'a> Run<'a> {
    fn new(terms: Terms, errand: Errand, news: &'a Sender<News>, stop: &'a AtomicBool) -> Self {
        let report = ForkReport::failed(failure(RefusalReason::State, "nothing was tried"));
        Run {
            terms,
            errand,
            news,
            stop,
            report,
            quiet_until: Instant::now() + QUIET_WITHIN,
            bystanders: Vec::new(),
        }
    }

    fn run(mut self) -> ForkReport {
        let result = loop {
            match self.attempt_child() {
                Ok(file) => break Ok(file),
                Err(Mishap::Final(failure)) => break Err(failure),
                Err(Mishap::Again(why)) => {
                    self.report.mishaps.push(why);
                    if self.report.tries >= MAX_TRIES {
                        let all = self.report.mishaps.join("; ");
                        let sentence =
                            format!("{} forked children failed: {all}", self.report.tries);
                        break Err(failure(RefusalReason::Failed, sentence));
                    }
                }
            }
        };
        self.report.result = result;
        self.report
    }

    /// One child, from the pipe to the file.
    fn attempt_child(&mut self) -> Result<Option<SnapshotFile>, Mishap> {
        let (read, write) = sink::pipe().map_err(|error| {
            Mishap::Final(failure(RefusalReason::State, format!("no pipe for it: {error}")))
        })?;
        let write = Arc::new(write);
        let own_write = own::fd();
        let way = match &self.errand {
            // The sink counts its end itself.
            Errand::GcStage => Way::Pipe(read, own::fd()),
            Errand::Snapshot { store, job } => {
                let (sender, reports) = bounded(1);
                let sink =
                    sink::spawn(Arc::clone(store), read, job(), sender).map_err(|error| {
                        let sentence = format!("the sink thread could not be started: {error}");
                        Mishap::Final(failure(RefusalReason::State, sentence))
                    })?;
                Way::Sink { sink, reports }
            }
        };
        let result = self.fork_quietly(&write).and_then(|child| {
            self.report.tries += 1;
            // From here on the child's end is the only one: its death ends the pipe.
            drop(write);
            drop(own_write);
            self.watch(child)
        });
        match (result, way) {
            (Ok(()), Way::Pipe(mut read, _own)) => {
                let mut text = String::new();
                let _ = read.read_to_string(&mut text);
                if text == "ok" {
                    return Ok(None);
                }
                Err(Mishap::Again("the child succeeded and said nothing".into()))
            }
            (Ok(()), Way::Sink { reports, .. }) => self.file(&reports),
            (Err(mishap), Way::Pipe(..)) => Err(mishap),
            (Err(mishap), Way::Sink { sink, reports }) => {
                sink.discard();
                if let Ok(report) = reports.recv_timeout(SINK_WITHIN) {
                    self.report.bytes_read = report.bytes_read;
                }
                Err(mishap)
            }
        }
    }

    fn file(&mut self, reports: &Receiver<SinkReport>) -> Result<Option<SnapshotFile>, Mishap> {
        let report = reports.recv_timeout(SINK_WITHIN).map_err(|_| {
            Mishap::Final(failure(RefusalReason::State, "the sink did not come to an end"))
        })?;
        self.report.bytes_read = report.bytes_read;
        report.result.map(Some).map_err(|error| match error {
            SinkError::Incomplete { .. } => Mishap::Again(error.to_string()),
            _ => Mishap::Final(ForkFailure {
                reason: RefusalReason::Failed,
                sentence: error.to_string(),
                final_for_all: true,
            }),
        })
    }

    /// Asks the JS thread until a child waits behind an opened gate.
    fn fork_quietly(&mut self, write: &Arc<File>) -> Result<Child, Mishap> {
        let mut back_off = FIRST_BACK_OFF;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(stopped());
            }
            let attempt = self.ask(write)?;
            self.report.attempts += 1;
            if attempt.pause > self.report.pause {
                self.report.pause = attempt.pause;
                self.report.pause_cpu = attempt.cpu;
            }
            match attempt.outcome {
                Outcome::Forked(child) => return Ok(child),
                Outcome::Failed(why) => {
                    return Err(Mishap::Final(failure(RefusalReason::Failed, why)));
                }
                Outcome::Restless(who) => self.report.disturbance = Some(who),
                Outcome::Disturbed(child) => {
                    self.report.disturbance = Some("a thread ran during the fork".into());
                    drop(child);
                }
            }
            if Instant::now() >= self.quiet_until {
                return Err(Mishap::Final(failure(
                    RefusalReason::Busy,
                    format!(
                        "no moment was found within {} s at which all other threads slept, in {} attempts (last: {})",
                        QUIET_WITHIN.as_secs(),
                        self.report.attempts,
                        self.report.disturbance.as_deref().unwrap_or("not known"),
                    ),
                )));
            }
            std::thread::sleep(back_off);
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// One attempt of the JS thread.
    fn ask(&mut self, write: &Arc<File>) -> Result<Attempt, Mishap> {
        let (answer, answers) = bounded(1);
        let limits =
            ChildLimits { budget_bytes: self.terms.budget_bytes, lifetime: self.terms.lifetime };
        if self.report.attempts >= STRICT_ATTEMPTS {
            fork::note_bystanders(&mut self.bystanders);
        }
        let bystanders = self.bystanders.clone();
        let (ticket, recall) =
            Ticket::prepare(self.terms.layout, limits, bystanders, Arc::clone(write), answer)
                .map_err(|why| Mishap::Final(failure(RefusalReason::State, why)))?;
        let path = fork::path_of(write);
        if self.news.send(News::Ask(Box::new(ticket), path)).is_err() {
            return Err(stopped());
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            match answers.recv_timeout(Duration::from_millis(250)) {
                Ok(attempt) => return Ok(attempt),
                Err(RecvTimeoutError::Disconnected) => return Err(stopped()),
                Err(RecvTimeoutError::Timeout) => {
                    let late = Instant::now() >= deadline;
                    if (late || self.stop.load(Ordering::Relaxed)) && recall.withdraw() {
                        return Err(if late { asleep() } else { stopped() });
                    }
                }
            }
        }
    }

    /// Waits for the child, or ends it.
    fn watch(&mut self, mut child: Child) -> Result<(), Mishap> {
        let began = Instant::now();
        let mut probe = probe::open();
        let born_bytes = probe.read(own::counts()).rss_bytes.unwrap_or(0);
        let mut asleep: Option<(u64, Instant)> = None;
        let mishap = loop {
            if let Some(ended) = child.try_wait() {
                return self.ended(&ended, born_bytes);
            }
            if self.stop.load(Ordering::Relaxed) {
                break stopped();
            }
            let sample = probe.read(own::counts());
            if let Some(sentence) = budget::below_floor(&Figures::from_sample(0, &sample)) {
                let sentence = format!("the child was killed, for the app's sake: {sentence}");
                break Mishap::Final(failure(RefusalReason::Memory, sentence));
            }
            if began.elapsed() > self.terms.lifetime {
                let sentence =
                    format!("the child did not end within {} s", self.terms.lifetime.as_secs());
                break Mishap::Again(sentence);
            }
            asleep = match (asleep, child.asleep_at()) {
                (Some((then, since)), Some(now)) if then == now => Some((then, since)),
                (_, Some(now)) => Some((now, Instant::now())),
                (_, None) => None,
            };
            if asleep.is_some_and(|(_, since)| since.elapsed() > HUNG_AFTER) {
                break Mishap::Again("the child hung and was killed".into());
            }
            child.doze(WATCH_EVERY);
        };
        child.kill();
        // Waits for it: SIGKILL is not to be escaped.
        drop(child);
        Err(mishap)
    }

    fn ended(&mut self, ended: &Ended, born_bytes: u64) -> Result<(), Mishap> {
        self.report.extra_bytes =
            (ended.peak_bytes > 0).then(|| ended.peak_bytes.saturating_sub(born_bytes));
        match ended.how {
            // Unknown: the sink tells whether what came is whole.
            End::Done | End::Unknown => Ok(()),
            End::Signal(fork::SIGABRT) => Err(Mishap::Final(failure(
                RefusalReason::Memory,
                format!("{}, {} beyond its birth", ended.how, self.extra_words()),
            ))),
            how => Err(Mishap::Again(how.to_string())),
        }
    }

    fn extra_words(&self) -> String {
        self.report.extra_bytes.map_or_else(|| "an unknown size".into(), budget::size_words)
    }
}

fn stopped() -> Mishap {
    Mishap::Final(failure(RefusalReason::ShuttingDown, "the guard or its isolate stopped"))
}

fn asleep() -> Mishap {
    let sentence =
        format!("the event loop did not come round within {} s to fork", ANSWER_WITHIN.as_secs());
    Mishap::Final(failure(RefusalReason::Busy, sentence))
}
