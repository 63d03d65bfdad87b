//! Hours and days replayed through the pure pipeline in milliseconds: leaks of several rates over recorded
//! noise, and healthy days with traffic. The same simulated app for all: a live heap with a base, a
//! warm-up, sessions that follow the traffic, a leak, and noise taken from recordings of healthy apps under
//! load. What is simulated is the app; the judging is the guard's own, at default settings but for the
//! interval (10 s in place of 1 s, but for the fastest leak).
//!
//! `cargo test` plays a slice; with `LEAKGUARD_REPLAY=full` it plays all of it and writes docs/REPLAY.md.

use std::fmt::Write as _;
use std::sync::OnceLock;

use leakguard::config::Config;
use leakguard::pipeline::{Action, Pipeline};
use leakguard::readings::Way;
use leakguard::sample::{IsolateId, IsolateReading, LiveHeapReading, Millis, ProcessSample};

const MB: f64 = 1_048_576.0;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const MAIN: IsolateId = IsolateId(0);

/// Residuals of live-heap readings of healthy apps around their level, bytes, in the order recorded.
const RECORDED: &str = include_str!("data/live-heap-noise.txt");

/// A small seeded generator (SplitMix64): the replay is the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In 0..1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Recorded noise, played in blocks so that its correlation from reading to reading stays.
struct Noise {
    recorded: Vec<f64>,
    at: usize,
    left: usize,
}

impl Noise {
    fn new() -> Noise {
        let recorded = RECORDED
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.trim().parse().ok())
            .collect();
        Noise { recorded, at: 0, left: 0 }
    }

    fn next(&mut self, random: &mut Random) -> f64 {
        if self.left == 0 {
            self.at = (random.unit() * self.recorded.len() as f64) as usize;
            self.left = 8;
        }
        self.left -= 1;
        let value = self.recorded[self.at % self.recorded.len()];
        self.at += 1;
        value
    }
}

/// The simulated app. Times in hours since its start.
#[derive(Clone)]
struct App {
    base_mb: f64,
    leak_mb_per_hour: f64,
    /// Extra live heap that the first minutes bring, MB: code, caches, pools.
    warm_up_mb: f64,
    /// Live heap of the sessions at full traffic, as a part of the base.
    sessions: f64,
    /// Caches filling to their bound: (begins, takes, MB).
    plateaus: Vec<(f64, f64, f64)>,
    /// Hour of the day at which it was started.
    started_at: f64,
}

impl App {
    /// Traffic as a part of its highest: a day's wave between 0.15 and 1, flat where there are no sessions.
    fn traffic(&self, hours: f64) -> f64 {
        if self.sessions == 0.0 {
            return 0.6;
        }
        let day = (self.started_at + hours) % 24.0;
        0.575 - 0.425 * (std::f64::consts::TAU * (day - 4.0) / 24.0).cos()
    }

    fn live(&self, hours: f64) -> f64 {
        let warm = self.warm_up_mb * (1.0 - (-hours * 12.0).exp());
        // Sessions lag behind traffic by their lifetime, a quarter of an hour.
        let sessions = self.base_mb * self.sessions * self.traffic(hours - 0.25);
        let plateaus: f64 = self
            .plateaus
            .iter()
            .map(|(begins, takes, mb)| {
                mb * (1.0 - (-((hours - begins).max(0.0) / takes * 3.0)).exp())
            })
            .sum();
        (self.base_mb + warm + sessions + plateaus + self.leak_mb_per_hour * hours) * MB
    }
}

/// Plays an app until a finding opens or the time is over. Returns its time after the warm-up and slope.
fn play(app: &App, seed: u64, for_ms: u64) -> Option<(u64, f64)> {
    let tick_ms = if app.leak_mb_per_hour > 500.0 { 1_000 } else { 10_000 };
    let config = Config { interval_ms: tick_ms, ..Config::default() };
    let warmup = config.warmup_ms;
    let mut random = Random(seed);
    let mut noise = Noise::new();
    let mut pipeline = Pipeline::new(config, Millis(0));
    pipeline.attach(MAIN, Way::Pressure, Millis(0));
    for at in (0..for_ms).step_by(tick_ms as usize) {
        let now = Millis(at);
        let hours = at as f64 / HOUR as f64;
        let (live, traffic) = (app.live(hours), app.traffic(hours));
        // Promoted garbage between two major GCs: up to a third of the live heap.
        let garbage = live * 0.33 * random.unit();
        let used = live + garbage;
        pipeline.on_process(
            now,
            &ProcessSample {
                rss_anon_bytes: Some((used * 1.2 + 50.0 * MB) as u64),
                rss_bytes: Some((used * 1.2 + 90.0 * MB) as u64),
                fds: Some(30 + (traffic * 200.0) as u64 + random.next() % 9),
                threads: Some(11),
                ..ProcessSample::default()
            },
        );
        pipeline.on_isolate(
            MAIN,
            now,
            &IsolateReading {
                heap_used_bytes: Some(used),
                heap_total_bytes: Some(used * 1.2),
                heap_limit_bytes: Some(4096.0 * MB),
                external_bytes: Some(4.0 * MB),
                array_buffers_bytes: Some(MB + traffic * MB),
                loop_utilization: Some((traffic * 0.5 + 0.05 * random.unit()).min(1.0)),
                handles: Some((10.0 + traffic * 200.0 + 9.0 * random.unit()).floor()),
                ..IsolateReading::default()
            },
        );
        for action in pipeline.step(now) {
            match action {
                Action::ReadLiveHeap(id) => {
                    let bytes = live + noise.next(&mut random);
                    let cost_ms = 3.0 + 1.5 * live / MB;
                    pipeline.on_live_heap(
                        id,
                        now,
                        LiveHeapReading { bytes, pause_ms: 12.0 },
                        Some(cost_ms),
                    );
                    let settled = IsolateReading {
                        external_bytes: Some(4.0 * MB),
                        array_buffers_bytes: Some(MB + traffic * MB),
                        after_gc: true,
                        ..IsolateReading::default()
                    };
                    pipeline.on_isolate(id, now, &settled);
                }
                Action::Open(draft) => {
                    let slope = draft.pieces[0].evidence.slope_per_hour;
                    return Some((at.saturating_sub(warmup), slope));
                }
                _ => {}
            }
        }
    }
    None
}

fn leaking(base_mb: f64, leak_mb_per_hour: f64) -> App {
    App {
        base_mb,
        leak_mb_per_hour,
        warm_up_mb: 0.05 * base_mb,
        sessions: 0.0,
        plateaus: vec![],
        started_at: 10.0,
    }
}

/// A healthy app of one day, made from a seed: its traffic swings the live heap by up to a third, caches
/// fill at deploy time and later, and the deploy comes at any hour.
fn healthy_day(seed: u64) -> App {
    let mut random = Random(seed ^ 0xDA1);
    let base_mb = 64.0;
    App {
        base_mb,
        leak_mb_per_hour: 0.0,
        warm_up_mb: base_mb * 0.1 * random.unit(),
        sessions: 0.33 * random.unit(),
        plateaus: vec![
            (0.0, 0.1 + random.unit(), base_mb * 0.2 * random.unit()),
            (4.0 + 12.0 * random.unit(), 0.3 + random.unit(), base_mb * 0.1 * random.unit()),
        ],
        started_at: 24.0 * random.unit(),
    }
}

fn minutes(ms: u64) -> String {
    let minutes = ms as f64 / MINUTE as f64;
    if minutes < 100.0 { format!("{minutes:.1} min") } else { format!("{:.1} h", minutes / 60.0) }
}

/// One row of the table: how many of the seeds are found within the deadline, how fast, how exact. Returns also the
/// number found and their median time.
fn row(base_mb: f64, rate: f64, seeds: u64, deadline_ms: u64) -> (String, usize, Option<u64>) {
    let app = leaking(base_mb, rate);
    let found: Vec<(u64, f64)> = (0..seeds)
        .filter_map(|seed| play(&app, seed * 7919 + 1, deadline_ms + 10 * MINUTE))
        .collect();
    let mut times: Vec<u64> = found.iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    let mut slopes: Vec<f64> = found.iter().map(|(_, slope)| slope / MB).collect();
    slopes.sort_unstable_by(f64::total_cmp);
    let middle = |len: usize| len / 2;
    let mut line = format!("| {base_mb:.0} MB | {rate} MB/h | {} of {seeds} |", found.len());
    let median = times.get(middle(times.len())).copied();
    match (median, times.last(), slopes.get(middle(slopes.len()))) {
        (Some(median), Some(slowest), Some(slope)) => {
            let _ =
                write!(line, " {} | {} | {slope:.2} MB/h |", minutes(median), minutes(*slowest));
        }
        _ => line.push_str(" - | - | - |"),
    }
    (line, found.len(), median)
}

fn full() -> bool {
    std::env::var("LEAKGUARD_REPLAY").is_ok_and(|value| value == "full")
}

#[test]
fn leaks_of_every_speed_are_found_in_time_over_recorded_noise() {
    let mut table = String::from(
        "| live heap | leak | found | median after the warm-up | slowest | slope found (median) |\n|---|---|---|---|---|---|\n",
    );
    let seeds = if full() { 30 } else { 5 };
    let mut before = (0.0, 0);
    for (base_mb, rate, deadline) in [
        (64.0, 1.5, 8 * HOUR),
        (64.0, 12.0, HOUR),
        (64.0, 100.0, HOUR),
        (64.0, 1000.0, 5 * MINUTE),
        (500.0, 1.5, 24 * HOUR),
        (500.0, 12.0, 4 * HOUR),
        (500.0, 100.0, HOUR),
        (500.0, 1000.0, 5 * MINUTE),
    ] {
        if base_mb > 64.0 && rate < 100.0 && !full() {
            continue;
        }
        let (line, found, median) = row(base_mb, rate, seeds, deadline);
        println!("{line}");
        let _ = writeln!(table, "{line}");
        assert!(found as u64 >= seeds - 1, "{line}");
        // A leak ten times as fast is found sooner, also where a reading is dear.
        let median = median.unwrap_or(deadline);
        assert!(base_mb != before.0 || median < before.1, "{line}");
        before = (base_mb, median);
    }
    if full() {
        write_report(&format!(
            "# Replay\n\nThe pure pipeline at default settings over simulated apps with recorded noise (tests/replay.rs), \
             `LEAKGUARD_REPLAY=full cargo test --release --test replay`. 30 seeds each; deadlines for the 64 MB rows: 8 h, 1 h, 1 h, 5 min; for those of 500 MB: 24 h, 4 h, 1 h, 5 min.\n\n{table}\n\
             {} alarms in {} healthy days: a live heap of 64 MB that swings by up to a third with the sessions of the day, a deploy at \
             any hour, and caches that fill after it and later.\n",
            alarms().len(),
            days()
        ));
    }
}

#[test]
fn healthy_days_raise_at_most_one_alarm_in_two_hundred() {
    let (alarms, days) = (alarms(), days());
    println!("{} alarms in {days} healthy days: seeds {alarms:?}", alarms.len());
    assert!(alarms.len() <= 1, "{} alarms, seeds {alarms:?}", alarms.len());
}

fn days() -> u64 {
    if full() { 200 } else { 12 }
}

/// Seeds of the healthy days on which a finding opened; played once.
fn alarms() -> &'static [u64] {
    static ALARMS: OnceLock<Vec<u64>> = OnceLock::new();
    ALARMS.get_or_init(|| {
        (0..days()).filter(|&seed| play(&healthy_day(seed), seed, 24 * HOUR).is_some()).collect()
    })
}

fn write_report(text: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/REPLAY.md");
    assert!(std::fs::write(path, text).is_ok(), "cannot write {path}");
}
