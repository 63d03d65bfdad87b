//! Microseconds per call of the process probe, printed twice (A/A): the second column is the same
//! measurement again, so a difference between the columns is the noise of the machine.
//! `cargo bench --bench probe`.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use leakguard::probe::{self, own};

/// CPU time of this thread by the kernel, for machines whose wall clock is shared.
fn cpu_micros() -> f64 {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    }
    #[cfg(not(unix))]
    {
        0.0
    }
}

/// Median and 99th percentile of wall time, and mean CPU time, microseconds.
fn measure(calls: usize, mut call: impl FnMut()) -> (f64, f64, f64) {
    for _ in 0..calls / 10 {
        call();
    }
    let mut walls = Vec::with_capacity(calls);
    let cpu = cpu_micros();
    for _ in 0..calls {
        let start = Instant::now();
        call();
        walls.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    let cpu = (cpu_micros() - cpu) / calls as f64;
    walls.sort_by(f64::total_cmp);
    (walls[calls / 2], walls[calls * 99 / 100], cpu)
}

fn row(name: &str, calls: usize, mut call: impl FnMut()) {
    let a = measure(calls, &mut call);
    let b = measure(calls, &mut call);
    println!(
        "{name:<44} {:>9.2} {:>9.2} {:>9.2} | {:>9.2} {:>9.2} {:>9.2}",
        a.0, a.1, a.2, b.0, b.1, b.2
    );
}

fn main() {
    println!("{:<44} {:>29} | {:>29}", "us per call", "median     p99 cpu mean", "again");
    let mut probe = probe::open();
    row("read()", 20_000, || {
        black_box(probe.read(own::counts()));
    });

    let threads: Vec<_> = (0..11)
        .map(|_| {
            let (hold, held) = std::sync::mpsc::channel::<()>();
            (hold, std::thread::spawn(move || held.recv()))
        })
        .collect();
    let main_thread = [probe::current_thread()];
    row("other_threads_cpu_micros(), 12 threads", 20_000, || {
        black_box(probe::other_threads_cpu_micros(&main_thread));
    });
    row("threads_by_name(), 12 threads", 500, || {
        black_box(probe::threads_by_name());
    });
    drop(threads);

    let directory = std::env::temp_dir();
    row("disk_free()", 5_000, || {
        black_box(probe::disk_free(&directory));
    });
    row("fds_by_kind()", 500, || {
        black_box(probe::fds_by_kind());
    });

    // mallinfo2 walks the free lists: read() again over a heap with a hole beside every small block.
    let mut blocks: HashMap<usize, Box<[u8; 200]>> =
        (0..1_000_000).map(|at| (at, Box::new([1; 200]))).collect();
    blocks.retain(|at, _| at % 2 == 0);
    let mut probe = probe::open();
    row("read(), 500,000 holes in the malloc heap", 2_000, || {
        black_box(probe.read(own::counts()));
    });
    black_box(blocks);
}
