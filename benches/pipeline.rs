//! Cost of judging on the native thread, microseconds per call, and the memory of the series, KB; each
//! printed twice (A/A): the second group is the same measurement again, so a difference between the groups
//! is the noise of the machine. `cargo bench --bench pipeline`.
//!
//! The series are as full as they get: 27 h at one sample a second, 60 emitters, a live heap with a reading
//! every 30 s. An evaluation is what one tick judges: all that is due of 12 series and 60 emitters on up to 22 windows
//! each, but at most as many judgements as a step may make, so that its first row is as much as one ever does while
//! nothing grows. In the last rows everything grows at once, so that every test of every judgement runs to its end,
//! and a finding with all of it opens.

use std::hint::black_box;
use std::time::{Duration, Instant};

use leakguard::config::{Given, Origin, resolve};
use leakguard::pipeline::{Action, MAX_EMITTERS, Pipeline};
use leakguard::probe::{self, own};
use leakguard::readings::Way;
use leakguard::sample::{
    IsolateId, IsolateReading, ListenerCount, LiveHeapReading, Millis, ProcessSample,
};

/// Longer than the coarsest level of a series reaches back.
const FILLED_SECONDS: u64 = 28 * 3600;

const CALLS: usize = 2000;

const ISOLATE: IsolateId = IsolateId(0);

/// Median, 99th percentile and longest, microseconds.
fn measure(calls: usize, mut call: impl FnMut() -> Duration) -> (f64, f64, f64) {
    let mut walls: Vec<f64> = (0..calls).map(|_| call().as_nanos() as f64 / 1e3).collect();
    walls.sort_by(f64::total_cmp);
    (walls[calls / 2], walls[calls * 99 / 100], walls[calls - 1])
}

/// The call says how long its measured part took: what it prepares and drops is not counted.
fn row(name: &str, calls: usize, mut call: impl FnMut() -> Duration) {
    let (a, b) = (measure(calls, &mut call), measure(calls, &mut call));
    println!(
        "{name:<44} {:>9.2} {:>9.2} {:>9.2} | {:>9.2} {:>9.2} {:>9.2}",
        a.0, a.1, a.2, b.0, b.1, b.2
    );
}

/// Where everything begins to grow, if it does.
const NEVER: u64 = u64::MAX;

/// A value around `base` that wanders by a tenth and returns: no trend over any window. After `rises` it grows by its
/// base every ten seconds.
fn wander(base: f64, second: u64, rises: u64) -> f64 {
    let noise = ((second * 2_654_435_761) % 1000) as f64 / 1000.0;
    base * (1.0 + 0.1 * noise + second.saturating_sub(rises) as f64 / 10.0)
}

fn listener_counts(second: u64, rises: u64) -> Vec<ListenerCount> {
    (0..MAX_EMITTERS as u32)
        .map(|key| ListenerCount {
            key,
            emitter: format!("Emitter{key}"),
            event: "change".into(),
            count: wander(100.0, second + u64::from(key), rises.saturating_add(u64::from(key)))
                as u64,
            site: None,
            round: None,
        })
        .collect()
}

/// One second of readings, as the sampler passes them on.
fn feed(pipeline: &mut Pipeline, second: u64, rises: u64) {
    let wander = |base: f64| wander(base, second, rises);
    let at = Millis(second * 1000);
    let bytes = |base: f64| Some(wander(base) as u64);
    pipeline.on_process(
        at,
        &ProcessSample {
            rss_bytes: bytes(3e8),
            rss_anon_bytes: bytes(2.5e8),
            fds: bytes(50.0),
            threads: bytes(12.0),
            cgroup_used_bytes: bytes(3e8),
            ..ProcessSample::default()
        },
    );
    let after_gc = second.is_multiple_of(30);
    pipeline.on_isolate(
        ISOLATE,
        at,
        &IsolateReading {
            heap_used_bytes: Some(wander(1.5e8)),
            heap_total_bytes: Some(wander(2e8)),
            external_bytes: Some(wander(1e7)),
            array_buffers_bytes: Some(wander(5e6)),
            loop_utilization: Some(wander(0.3)),
            handles: Some(wander(40.0)),
            timers: Some(wander(40.0)),
            after_gc,
            ..IsolateReading::default()
        },
    );
    if after_gc {
        let reading = LiveHeapReading { bytes: wander(1e8), pause_ms: 5.0 };
        pipeline.on_live_heap(ISOLATE, at, reading, Some(50.0));
    }
    if second.is_multiple_of(2) {
        pipeline.on_listeners(ISOLATE, at, &listener_counts(second, rises));
    }
}

fn full(settings: &[(&str, &str)], rises: u64) -> Pipeline {
    let given: Vec<Given> = settings
        .iter()
        .map(|(name, value)| Given {
            name: (*name).into(),
            value: (*value).into(),
            origin: Origin::Option,
        })
        .collect();
    let mut pipeline = Pipeline::new(resolve(&given).0, Millis(0));
    pipeline.attach(ISOLATE, Way::Pressure, Millis(0));
    for second in 0..FILLED_SECONDS {
        feed(&mut pipeline, second, rises);
    }
    pipeline
}

fn malloc_kb() -> Option<f64> {
    Some(probe::open().read(own::counts()).malloc_used_bytes? as f64 / 1024.0)
}

fn main() {
    println!("{:<44} {:>29} | {:>29}", "us per call", "median       p99      max", "again");
    let now = Millis(FILLED_SECONDS * 1000);

    // The detectors of a copy have judged nothing yet: on its first step every rung of every series is due, and as
    // many are judged as a step may.
    let defaults = full(&[], NEVER);
    let brisk = [("window", "32s"), ("growthRate", "1MB/min")];
    let short = full(&brisk, NEVER);
    for (name, full) in [
        ("evaluation of full series", &defaults),
        ("evaluation of full series, window 32s", &short),
    ] {
        row(name, 1000, || {
            let mut pipeline = black_box(full.clone());
            let start = Instant::now();
            black_box(pipeline.step(now));
            start.elapsed()
        });
    }

    // What a tick of the running guard costs, whatever happens to be due.
    for (name, mut pipeline) in [
        ("step() a second later, defaults", defaults.clone()),
        ("step() a second later, window 32s", short.clone()),
    ] {
        let mut second = FILLED_SECONDS;
        row(name, CALLS, || {
            feed(&mut pipeline, second, NEVER);
            second += 1;
            let start = Instant::now();
            black_box(pipeline.step(Millis(second * 1000)));
            start.elapsed()
        });
    }

    // Everything grows, all rungs are due, and the finding opens that holds them all: each step of two minutes.
    for (name, settings) in [
        ("step() while everything grows, defaults", &[][..]),
        ("step() while everything grows, window 32s", &brisk[..]),
    ] {
        let grown = full(settings, FILLED_SECONDS - 300);
        let mut pipeline = grown.clone();
        let mut second = FILLED_SECONDS;
        let mut pieces = 0;
        let mut opening = Vec::new();
        row(name, CALLS, || {
            if second == FILLED_SECONDS + 120 {
                (pipeline, second) = (grown.clone(), FILLED_SECONDS);
            }
            let start = Instant::now();
            let actions = black_box(pipeline.step(Millis(second * 1000)));
            let took = start.elapsed();
            for action in &actions {
                if let Action::Open(draft) = action {
                    pieces = pieces.max(draft.pieces.len());
                    opening.push(took.as_nanos() as f64 / 1e3);
                }
            }
            feed(&mut pipeline, second, FILLED_SECONDS - 300);
            second += 1;
            took
        });
        opening.sort_by(f64::total_cmp);
        if let Some(median) = opening.get(opening.len() / 2) {
            println!(
                "    of it the step that opens a finding of up to {pieces} series: median {median:.2}"
            );
        }
    }

    let mut pipeline = defaults.clone();
    let mut second = FILLED_SECONDS;
    row("one second of readings, 60 emitters", CALLS, || {
        second += 1;
        let start = Instant::now();
        feed(&mut pipeline, second, NEVER);
        start.elapsed()
    });
    row("isolate_views() and process_view()", CALLS, || {
        let start = Instant::now();
        black_box((defaults.isolate_views(), defaults.process_view()));
        start.elapsed()
    });

    println!("\n{:<44} {:>29} | {:>29}", "KB", "", "again");
    let computed = Pipeline::isolate_capacity_bytes() as f64 / 1024.0;
    println!("{:<44} {computed:>9.0} | {computed:>9.0}", "series of one isolate, computed");
    let measured: Vec<f64> = (0..2).filter_map(|_| isolate_kb(&defaults)).collect();
    if let [a, b] = measured[..] {
        println!("{:<44} {a:>9.0} | {b:>9.0}", "series of one isolate, measured");
    }
}

/// What malloc gets back when the isolate of a full pipeline goes; `None` where malloc does not tell.
fn isolate_kb(full: &Pipeline) -> Option<f64> {
    let mut pipeline = full.clone();
    let before = malloc_kb()?;
    pipeline.detach(ISOLATE);
    let after = malloc_kb()?;
    black_box(pipeline);
    Some(before - after)
}
