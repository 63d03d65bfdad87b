//! Cost of one flight-recorder record, microseconds, printed twice (A/A): the second group is the same
//! measurement again, so a difference between the groups is the noise of the machine. Then the time to read a
//! full file back. `cargo bench --bench recorder`.

use std::hint::black_box;
use std::time::Instant;

use leakguard::recorder::{
    DEFAULT_FILE_BYTES, Event, Field, Recorder, RecorderOptions, RunHeader, Sample, What, read_back,
};
use leakguard::sample::Millis;

const CALLS: usize = 100_000;

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
    assert_eq!(recorder.lost_records(), 0);

    for _ in 0..2 {
        let start = Instant::now();
        let history = read_back(recorder.path())?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        println!("read_back: {ms:.1} ms, {} samples", history.samples.len());
    }
    Ok(())
}
