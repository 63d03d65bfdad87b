//! What the sampler sees, as the flight recorder keeps it: a sample of each isolate at every tick, live-heap
//! readings and events, and the mark of an orderly end. It opens the run's file and keeps account of what
//! that costs; it reads no run back (`previous`) and judges nothing.
//!
//! The exit mark is written by the thread that ends the process (`probe::exit`), not by the native thread,
//! which may be asleep then. Both take the recorder's lock for one `pwrite`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config::{Bytes, Config};
use crate::evidence::Store;
use crate::finding::Identity;
use crate::pipeline::Pipeline;
use crate::probe::{self, HostIdentity};
use crate::recorder::{
    DEFAULT_FILE_BYTES, Event, Field, MIN_FILE_BYTES, Recorder, RecorderOptions, RunHeader, Sample,
    Values, What,
};
use crate::sample::{IsolateId, Millis, ProcessSample};
use crate::stats;

/// The recorder takes at most this part of `LEAKGUARD_MAX_DISK`, of the disk space left, and of the memory
/// left where the directory lies in memory.
const SHARE_OF_ROOM: u64 = 16;

/// How long an exiting process waits for the native thread to finish one record.
const EXIT_PATIENCE: Duration = Duration::from_millis(100);

/// Samples whose cost is remembered, for the median.
const TIMED: usize = 64;

/// The run of this process, for the exit handler.
static OPEN: Mutex<Option<OpenRun>> = Mutex::new(None);

/// Whether the main thread's environment was torn down: the natural end, and no `process.exit()`.
static ENVIRONMENT_ENDED: AtomicBool = AtomicBool::new(false);

struct OpenRun {
    recorder: Arc<Mutex<Recorder>>,
    clock: Clock,
    /// A child forked by other native code that exits must not mark its parent's run.
    pid: u32,
}

/// One isolate at a tick.
#[derive(Clone, Copy, Debug)]
pub struct IsolateTick {
    /// Which.
    pub id: IsolateId,
    /// Its thread id, 0 for the main thread.
    pub tid: u32,
    /// How long it has not answered, if longer than it should, ms.
    pub stalled_ms: Option<u64>,
}

/// The flight recorder of this run, or the reason why there is none.
pub struct Flight {
    recorder: Option<Arc<Mutex<Recorder>>>,
    path: Option<String>,
    file_bytes: u64,
    problem: Option<String>,
    lost: u64,
    last_tick: Option<Millis>,
    nanos: [u32; TIMED],
    samples: u64,
}

impl Flight {
    /// No recorder, and why.
    pub fn off(problem: &str) -> Flight {
        Flight {
            recorder: None,
            path: None,
            file_bytes: 0,
            problem: Some(problem.to_owned()),
            lost: 0,
            last_tick: None,
            nanos: [0; TIMED],
            samples: 0,
        }
    }

    /// Creates the file of this run in the evidence directory. `process` says how much memory is left,
    /// where the directory lies in memory.
    pub fn open(
        store: &Store,
        clock: Clock,
        identity: &Identity,
        config: &Config,
        host: HostIdentity,
        process: &ProcessSample,
    ) -> Flight {
        let free = store.free_bytes();
        let file_bytes = match file_bytes(store.max_disk_bytes(), free, store.is_memory(), process)
        {
            Ok(bytes) => bytes,
            Err(problem) => return Flight::off(&problem),
        };
        if let Err(error) = store.make_room(file_bytes) {
            return Flight::off(&format!("no room for the flight recorder: {error}"));
        }
        let header = RunHeader {
            app: app_name(identity, config).to_owned(),
            app_version: identity.app_version.clone(),
            node_version: identity.node.clone(),
            guard_version: identity.leakguard.clone(),
            pid: identity.pid,
            tid: identity.tid,
            started_unix_ms: clock.wall_ms(Millis(0)),
            boot_id: host.boot_id,
            cgroup_inode: host.cgroup_inode,
            interval_ms: config.interval_ms,
            cgroup_limit_bytes: process.cgroup_limit_bytes,
            heap_limit_bytes: None,
            file_bytes,
        };
        let options = RecorderOptions { directory: store.path().to_owned(), file_bytes, header };
        match Recorder::create(&options) {
            Ok(recorder) => {
                let path = recorder.path().to_string_lossy().into_owned();
                let recorder = Arc::new(Mutex::new(recorder));
                ENVIRONMENT_ENDED.store(false, Ordering::Release);
                *OPEN.lock() = Some(OpenRun {
                    recorder: Arc::clone(&recorder),
                    clock,
                    pid: std::process::id(),
                });
                let problem = (!probe::exit::at_exit(mark_exit))
                    .then(|| "an exit in order cannot be seen on this platform".to_owned());
                Flight {
                    recorder: Some(recorder),
                    path: Some(path),
                    file_bytes,
                    problem,
                    ..Flight::off("")
                }
            }
            Err(error) => Flight::off(&error.to_string()),
        }
    }

    /// Records one tick: a sample of every isolate, the process' figures with that of the main thread.
    pub fn tick(
        &mut self,
        at: Millis,
        process: &ProcessSample,
        pipeline: &Pipeline,
        isolates: impl IntoIterator<Item = IsolateTick>,
    ) {
        let Some(recorder) = self.recorder.clone() else { return };
        let since = self.last_tick.replace(at);
        let mut values = Values::default();
        values.set_process(process);
        for (series, value) in pipeline.read_since(None, since) {
            values.set(Field::from(series), Some(value));
        }
        let mut main = Sample { at, isolate: 0, values };
        for isolate in isolates {
            let mut sample = if isolate.tid == 0 {
                main
            } else {
                Sample { at, isolate: isolate.tid, values: Values::default() }
            };
            for (series, value) in pipeline.read_since(Some(isolate.id), since) {
                sample.values.set(Field::from(series), Some(value));
            }
            let stalled = isolate.stalled_ms.map(|ms| ms as f64);
            sample
                .values
                .set(Field::HeapLimit, pipeline.heap_limit(isolate.id))
                .set(Field::LoopStalledMs, stalled);
            if isolate.tid == 0 {
                main = sample;
            } else {
                self.append(&recorder, &sample);
            }
        }
        self.append(&recorder, &main);
        self.lost = recorder.lock().lost_records();
    }

    fn append(&mut self, recorder: &Mutex<Recorder>, sample: &Sample) {
        let began = Instant::now();
        // The first failure is also the last that says anything new; all are counted.
        if let Err(error) = recorder.lock().append_sample(sample) {
            self.problem = Some(format!("writing fails: {error}"));
        }
        let nanos = u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX);
        if let Some(slot) = self.nanos.get_mut(self.samples as usize % TIMED) {
            *slot = nanos;
        }
        self.samples += 1;
    }

    /// Records something that happened.
    pub fn event(&mut self, at: Millis, tid: u32, what: What) {
        if let Some(recorder) = &self.recorder
            && let Err(error) = recorder.lock().append_event(&Event { at, isolate: tid, what })
        {
            self.problem = Some(format!("writing fails: {error}"));
        }
    }

    /// The guard stops and the process goes on, unless its main thread's environment is gone: then the exit
    /// handler, which knows the code, is about to mark the end.
    pub fn stop(&mut self, at: Millis) {
        let Some(recorder) = self.recorder.take() else { return };
        if ENVIRONMENT_ENDED.load(Ordering::Acquire) && probe::exit::at_exit(mark_exit) {
            return;
        }
        let reason = if ENVIRONMENT_ENDED.load(Ordering::Acquire) { "end" } else { "stop" };
        let _ = recorder.lock().close(at, None, reason);
        let mut open = OPEN.lock();
        if open.as_ref().is_some_and(|run| Arc::ptr_eq(&run.recorder, &recorder)) {
            *open = None;
        }
    }

    /// Name of the run's file, if there is one.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Records that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// For `status()`.
    pub fn to_json(&self) -> Value {
        let timed = self.nanos.get(..(self.samples as usize).min(TIMED)).unwrap_or_default();
        let median = stats::median(&mut timed.iter().map(|n| f64::from(*n)).collect::<Vec<_>>());
        json!({
            "path": self.path,
            "fileBytes": self.path.as_ref().map(|_| self.file_bytes),
            "problem": self.problem.as_ref().filter(|problem| !problem.is_empty()),
            "samples": self.samples,
            "lost": self.lost,
            "medianSampleMicros": median.map(|nanos| (nanos / 10.0).round() / 100.0),
        })
    }
}

/// Notes that the environment of the main thread is being torn down. Called in its cleanup hook.
pub fn environment_ended() {
    ENVIRONMENT_ENDED.store(true, Ordering::Release);
}

/// What runs of this app are filed under: `LEAKGUARD_APP`, or the name in its package.json.
pub fn app_name<'a>(identity: &'a Identity, config: &'a Config) -> &'a str {
    config.app.as_deref().unwrap_or(&identity.app_name)
}

/// The exit handler: marks the run as ended in order.
fn mark_exit(code: Option<i32>) {
    let Some(open) = OPEN.try_lock_for(EXIT_PATIENCE).and_then(|mut open| open.take()) else {
        return;
    };
    if open.pid != std::process::id() {
        return;
    }
    let reason = if ENVIRONMENT_ENDED.load(Ordering::Acquire) { "end" } else { "exit" };
    // Without the lock there is no mark: the run then looks like one that was cut off, which is the error
    // to make.
    if let Some(mut recorder) = open.recorder.try_lock_for(EXIT_PATIENCE) {
        let _ = recorder.close(open.clock.now(), code, reason);
    }
}

/// How large the recorder's file may be, bytes, or why there is none. `in_memory`: the directory lies in memory,
/// of which `process` says how much is left.
///
/// # Errors
/// One sentence, if it would be smaller than a recorder can be.
pub fn file_bytes(
    quota: u64,
    free: Option<u64>,
    in_memory: bool,
    process: &ProcessSample,
) -> Result<u64, String> {
    let mut room = quota;
    let mut of = "LEAKGUARD_MAX_DISK";
    if let Some(free) = free.filter(|free| *free < room) {
        room = free;
        of = "the disk space left";
    }
    if in_memory {
        let left = [process.cgroup_headroom_bytes, process.mem_available_bytes];
        let left = left.into_iter().flatten().min().unwrap_or(0);
        if left < room {
            room = left;
            of = "the memory left, in which the directory lies,";
        }
    }
    let bytes = (room / SHARE_OF_ROOM).min(DEFAULT_FILE_BYTES);
    if bytes < MIN_FILE_BYTES {
        return Err(format!(
            "no flight recorder: a {SHARE_OF_ROOM}th of {of} is {}, and it needs {}",
            Bytes(bytes),
            Bytes(MIN_FILE_BYTES)
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_fits_the_quota_and_the_memory_it_lies_in() {
        const MB: u64 = 1 << 20;
        let left = |headroom: Option<u64>| ProcessSample {
            cgroup_headroom_bytes: headroom,
            mem_available_bytes: Some(4096 * MB),
            ..ProcessSample::default()
        };
        // (quota, free, in memory, headroom, size), MB
        let table = [
            (512, 9999, false, Some(1), Ok(4 * MB)),
            (32, 9999, false, None, Ok(2 * MB)),
            (8, 9999, false, None, Err("LEAKGUARD_MAX_DISK is 512 KB")),
            (512, 8, false, None, Err("the disk space left is 512 KB")),
            (512, 9999, true, None, Ok(4 * MB)),
            (512, 9999, true, Some(24), Ok(3 * MB / 2)),
            (512, 9999, true, Some(8), Err("in which the directory lies, is 512 KB")),
        ];
        for (quota, free, in_memory, headroom, expected) in table {
            let headroom = headroom.map(|mb: u64| mb * MB);
            let got = file_bytes(quota * MB, Some(free * MB), in_memory, &left(headroom));
            match (expected, got) {
                (Ok(bytes), Ok(got)) => assert_eq!(bytes, got),
                (Err(part), Err(got)) => assert!(got.contains(part), "{got}"),
                (expected, got) => panic!("{expected:?} against {got:?}"),
            }
        }
        assert!(file_bytes(512 * MB, None, true, &ProcessSample::default()).is_err());
    }
}
