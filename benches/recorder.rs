//! Cost of one flight-recorder record, microseconds, printed twice (A/A): the second group is the same
//! measurement again, so a difference between the groups is the noise of the machine. Then the same by a thread
//! that slept before each record, as the guard's does: caches are cold and the core's clock is low, so that a write
//! to /dev/null, which does nothing, stands beside it as the floor. Last the time to read a full file back.
//! `cargo bench --bench recorder`; docs/RECORDER.md has figures.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use leakguard::recorder::{
    DEFAULT_FILE_BYTES, Event, Field, Recorder, RecorderOptions, RunHeader, Sample, What, read_back,
};
use leakguard::sample::Millis;

const CALLS: usize = 100_000;

/// Records written by a thread that sleeps in between, and for how long.
const SLEPT_CALLS: u64 = 300;
const SLEEP: Duration = Duration::from_millis(20);

/// Median and 99th percentile, microseconds.
fn measure(mut call: impl FnMut(u64)) -> (f64, f64) {
    let mut walls = Vec::with_capacity(CALLS);
    for at in 0..CALLS as u64 {
        let start = Instant::now();
        call(at);
        walls.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    walls.sort_by(f64::total_cmp);
    (walls[CALLS / 2], walls[CALLS * 99 / 100])
}

fn row(name: &str, mut call: impl FnMut(u64)) {
    let (a, b) = (measure(&mut call), measure(&mut call));
    println!("{name:<24} {:>8.2} {:>8.2} | {:>8.2} {:>8.2}", a.0, a.1, b.0, b.1);
}

/// Median wall time and CPU time of the thread, microseconds, of calls that each follow a sleep. The two are measured
/// apart: reading the thread's CPU clock is a system call, and its cost is part of the second figure.
fn slept(name: &str, mut call: impl FnMut(u64)) {
    let mut median = |clock: fn() -> Duration| {
        let mut spans: Vec<f64> = (0..SLEPT_CALLS)
            .map(|at| {
                std::thread::sleep(SLEEP);
                let before = clock();
                call(at);
                (clock() - before).as_nanos() as f64 / 1e3
            })
            .collect();
        spans.sort_by(f64::total_cmp);
        spans[spans.len() / 2]
    };
    let (wall, cpu) = (median(wall_clock), median(cpu_clock));
    let (wall_again, cpu_again) = (median(wall_clock), median(cpu_clock));
    println!("{name:<24} {wall:>8.2} {cpu:>8.2} | {wall_again:>8.2} {cpu_again:>8.2}");
}

fn wall_clock() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

fn cpu_clock() -> Duration {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }
    #[cfg(not(unix))]
    wall_clock()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let options = RecorderOptions {
        directory: directory.path().to_owned(),
        file_bytes: DEFAULT_FILE_BYTES,
        header: RunHeader { app: "bench".into(), ..RunHeader::default() },
    };
    let start = Instant::now();
    let mut recorder = Recorder::create(&options)?;
    println!("create: {:.0} us", start.elapsed().as_secs_f64() * 1e6);

    println!("{:<24} {:>17} | {:>17}", "us per record", "median      p99", "again");
    let mut second = 0;
    row("append_sample()", |_| {
        second += 1;
        let mut sample = Sample { at: Millis(second * 1000), ..Sample::default() };
        for field in Field::ALL {
            sample.values.set(field, Some(second as f64));
        }
        let _ = black_box(recorder.append_sample(&sample));
    });
    row("append_event()", |at| {
        let what =
            What::Refused { needed: Some(5e8), available: Some(4e8), reason: "memory".into() };
        let _ = black_box(recorder.append_event(&Event { at: Millis(at), isolate: 0, what }));
    });
    println!("{:<24} {:>17} | {:>17}", "after 20 ms of sleep", "wall     cpu", "again");
    slept("nothing", |_| {});
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileExt;
        let null = std::fs::File::options().write(true).open("/dev/null")?;
        slept("128 bytes to /dev/null", |_| {
            let _ = black_box(null.write_at(&[1; 128], 0));
        });
    }
    slept("append_sample()", |_| {
        second += 1;
        let mut sample = Sample { at: Millis(second * 1000), ..Sample::default() };
        for field in Field::ALL {
            sample.values.set(field, Some(second as f64));
        }
        let _ = black_box(recorder.append_sample(&sample));
    });
    assert_eq!(recorder.lost_records(), 0);

    for _ in 0..2 {
        let start = Instant::now();
        let history = read_back(recorder.path())?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        println!("read_back: {ms:.1} ms, {} samples", history.samples.len());
    }
    Ok(())
}
