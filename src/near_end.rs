//! Whether a process is about to end at a limit: V8's heap limit or the container's. It says so from few readings
//! and at once, because what comes next may be the last thing this process does: a loop that never returns takes
//! half a second to fill a small heap. Pure; it judges no leak (see `detect`) and writes nothing.
//!
//! A process that is full and stays so is not at its end. What counts is how full it is *and* how soon it would be
//! full at the rate of its last readings; only a heap that is full right after a major GC needs no rate. What an app
//! loads before its event loop turns for the first time rises as steeply as a runaway loop, and ends: it is no rate.

use crate::config::HOUR_MS;
use crate::detect::Evidence;
use crate::metric::SeriesId;
use crate::pipeline::LimitKind;
use crate::postmortem;
use crate::sample::{Millis, ProcessSample};
use crate::series::Series;
use crate::stats;

/// Live heap from this share of V8's old space on is the end, whatever the rate.
const HEAP_FULL: f64 = 0.95;

/// V8 gives up when four major GCs in a row leave its old space as full as this and JavaScript ran for less than 40 %
/// of the time (`Heap::IsIneffectiveMarkCompact`, src/heap/heap.cc): on a slow machine, or with a CPU limit, long before
/// it is full. The GCs come within milliseconds then, so that little rises from one to the next.
const V8_GIVES_UP: f64 = 0.8;

/// A heap that holds more than this share of its old space has another limit than was reckoned: semi-spaces that were
/// set by hand.
const OVERFULL: f64 = 1.25;

/// From these shares on a limit is near if it is reached soon. They are those of a post-mortem, so that a run which
/// is said to have ended near its limit was warned of.
const HEAP_NEAR: f64 = 0.85;
const CONTAINER_NEAR: f64 = 0.9;

/// From this share on a limit is near if it is reached within the next readings. Lower, an app that fills its caches
/// at start-up would be accused; higher, a runaway loop is gone before.
pub const HALF_GONE: f64 = 0.75;

/// Soon: a major GC may be a minute away, and what it frees is not known before.
const SOON_MS: u64 = 120_000;

/// Within the next readings.
const AT_ONCE_MS: u64 = 3_000;

/// Last readings that a rate is taken from.
const LAST_READINGS: usize = 8;

/// Readings that must have risen one after the other for a rate to be believed.
const RISING_READINGS: usize = 3;

/// What the readings rose by must be this share of what is left: a few seconds say nothing of the next two minutes. A
/// flat app gains half a megabyte while it warms up, an eighth of what 64 MB have left at 90 %.
const RISE_OF_ROOM: f64 = 0.25;

/// A reading of the live heap that is older says nothing of now.
const FRESH_MS: u64 = 30_000;

/// V8 asks for as much as three young semi-spaces beyond the limit when Node profiles the heap at it, and more is
/// allocated while it is written. Measured on Node 26.10 with `--max-old-space-size=64`: the limit rose by 96 MB, the
/// resident set at the end by 100 to 165 MB.
const PROFILE_AT_LIMIT_BYTES: u64 = 192 << 20;

const MIB: f64 = 1_048_576.0;

/// The limit that a process is about to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct NearLimit {
    /// Which.
    pub kind: LimitKind,
    /// Used of it: the live heap after a major GC, or what the container is charged; bytes.
    pub used_bytes: u64,
    /// The limit; of V8's heap its old space; bytes.
    pub limit_bytes: u64,
    /// Time left at the rate of the last readings, milliseconds, where they rise.
    pub left_ms: Option<u64>,
    /// For how long the event loop has not answered, milliseconds.
    pub silent_ms: u64,
    /// The series it was judged by, with what its last readings say.
    pub evidence: Evidence,
}

/// What of V8's heap limit is old space, bytes. The rest is three semi-spaces, which are the smaller the less memory
/// machine or container has: V8 makes the default old space half of that, and a semi-space a 128th of the old space
/// up to its largest (`Heap::YoungGenerationSizeFromOldGenerationSize`, src/heap/heap.cc; Node passes the container's
/// limit). With `--max-old-space-size=64` on Node 22 the limit is 112 MB on a large machine, 67 MB in 256 MB.
pub fn old_space_bytes(heap_limit: f64, node_version: &str, memory_bytes: Option<u64>) -> f64 {
    let largest = heap_limit - postmortem::old_space_bytes(heap_limit, node_version);
    let reaches_largest_at = largest.clamp(48.0 * MIB, 96.0 * MIB) / 3.0 * 128.0;
    let share = memory_bytes.map_or(1.0, |bytes| bytes as f64 / 2.0 / reaches_largest_at);
    heap_limit - largest * share.clamp(0.0, 1.0)
}

/// Whether the live heap is about to fill V8's old space of `limit_bytes`, at the rate of its readings from `since` on:
/// the first turn of the event loop.
pub fn heap(live: &Series, limit_bytes: f64, since: Millis, now: Millis) -> Option<NearLimit> {
    let (at, used) = live.last()?;
    if limit_bytes <= 0.0 || now.0 > at.0 + FRESH_MS {
        return None;
    }
    let rise = Rise::of(live, since, now);
    let share = used / limit_bytes;
    if share > OVERFULL {
        return None;
    }
    let room = limit_bytes - used;
    let at_once = rise.left_ms_at_rate(room).filter(|left| *left <= AT_ONCE_MS);
    let left_ms = rise.left_ms(room).or(at_once.filter(|_| share >= V8_GIVES_UP));
    let near = share >= HEAP_FULL || is_near(share, HEAP_NEAR, left_ms);
    near.then(|| NearLimit {
        kind: LimitKind::Heap,
        used_bytes: used as u64,
        limit_bytes: limit_bytes as u64,
        left_ms,
        silent_ms: 0,
        evidence: rise.evidence(SeriesId::LiveHeap),
    })
}

/// The same where no major GC can be seen and the event loop does not answer: what was in the heap when it last did,
/// and all anonymous memory that came since, for a loop that does not return allocates little else.
pub fn blocked_heap(
    heap_total_then: f64,
    anon_then: f64,
    anon: &Series,
    limit_bytes: f64,
    now: Millis,
) -> Option<NearLimit> {
    let (_, anon_now) = anon.last()?;
    let used = heap_total_then + (anon_now - anon_then).max(0.0);
    if limit_bytes <= 0.0 || anon_now <= anon_then {
        return None;
    }
    let rise = Rise::of(anon, Millis(0), now);
    let left_ms = rise.left_ms(limit_bytes - used);
    is_near(used / limit_bytes, HEAP_NEAR, left_ms).then(|| NearLimit {
        kind: LimitKind::Heap,
        used_bytes: used as u64,
        limit_bytes: limit_bytes as u64,
        left_ms,
        silent_ms: 0,
        evidence: rise.evidence(SeriesId::Rss),
    })
}

/// Whether this process is about to fill its container. Its own anonymous memory must rise: it is not told what
/// others in the container do, nor of file cache.
pub fn container(process: &ProcessSample, anon: &Series, now: Millis) -> Option<NearLimit> {
    let limit = process.cgroup_limit_bytes.filter(|limit| *limit > 0)?;
    // An ancestor that is shared may leave less than limit minus use.
    let headroom = match (process.cgroup_headroom_bytes, process.cgroup_used_bytes) {
        (Some(headroom), _) => headroom,
        (None, Some(used)) => limit.saturating_sub(used),
        (None, None) => return None,
    };
    let used = limit.saturating_sub(headroom);
    let rise = Rise::of(anon, Millis(0), now);
    let left_ms = rise.left_ms(headroom as f64);
    is_near(used as f64 / limit as f64, CONTAINER_NEAR, left_ms).then(|| NearLimit {
        kind: LimitKind::Container,
        used_bytes: used,
        limit_bytes: limit,
        left_ms,
        silent_ms: 0,
        evidence: rise.evidence(SeriesId::Rss),
    })
}

/// Whether Node may be asked to write an allocation profile when V8 reaches its heap limit: V8's limit is lifted for
/// that, once and for good, and what the process may then take must fit its container and the machine.
pub fn profile_fits(process: &ProcessSample, heap_used: f64, heap_limit: f64) -> bool {
    let growth = (heap_limit - heap_used).max(0.0) as u64;
    let headroom = [process.cgroup_headroom_bytes, process.mem_available_bytes];
    let Some(headroom) = headroom.into_iter().flatten().min() else { return false };
    headroom > growth.saturating_add(PROFILE_AT_LIMIT_BYTES)
}

fn is_near(share: f64, near: f64, left_ms: Option<u64>) -> bool {
    let within = |ms: u64| left_ms.is_some_and(|left| left <= ms);
    share >= near && within(SOON_MS) || share >= HALF_GONE && within(AT_ONCE_MS)
}

/// What the last readings of a series say.
struct Rise {
    points: Vec<(f64, f64)>,
    /// Bytes per millisecond; `None` if they do not rise throughout.
    per_ms: Option<f64>,
    now: Millis,
}

impl Rise {
    fn of(series: &Series, since: Millis, now: Millis) -> Rise {
        let from = since.max(Millis(now.0.saturating_sub(SOON_MS)));
        let mut points: Vec<(f64, f64)> = series
            .latest(LAST_READINGS)
            .into_iter()
            .filter(|(at, _)| *at >= from)
            .map(|(at, value)| (at.0 as f64, value))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = points.len().saturating_sub(RISING_READINGS);
        let rising = points.len() >= RISING_READINGS
            && points.get(last..).unwrap_or_default().windows(2).all(|pair| pair[0].1 < pair[1].1);
        // Readings of one millisecond have no rate between them.
        let per_ms = stats::theil_sen(&points).map(|line| line.slope).filter(|_| rising);
        Rise { points, per_ms: per_ms.filter(|slope| *slope > 0.0), now }
    }

    /// Until `room` bytes are full; `None` where the readings do not rise, or too little for so much.
    fn left_ms(&self, room: f64) -> Option<u64> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        let rise = self.per_ms? * (last.0 - first.0);
        self.left_ms_at_rate(room).filter(|_| rise >= room * RISE_OF_ROOM)
    }

    /// The same however little they rose yet.
    fn left_ms_at_rate(&self, room: f64) -> Option<u64> {
        self.per_ms.map(|per_ms| (room.max(0.0) / per_ms) as u64)
    }

    fn evidence(&self, series: SeriesId) -> Evidence {
        let first = self.points.first().copied().unwrap_or_default();
        let last = self.points.last().copied().unwrap_or_default();
        let values: Vec<f64> = self.points.iter().map(|(_, value)| *value).collect();
        let slope_per_hour = self.per_ms.unwrap_or(0.0) * HOUR_MS;
        Evidence {
            series,
            window_ms: (last.0 - first.0) as u64,
            slope_per_hour,
            slope_between: (slope_per_hour, slope_per_hour),
            later_slope_per_hour: slope_per_hour,
            threshold_per_hour: 0.0,
            amount: 0.0,
            p_value: stats::mann_kendall_rising(&values, 1.0),
            readings: self.points.len() as u64,
            first: first.1,
            last: last.1,
            load_factor: 1.0,
            own: 0.0,
            agreed: 1,
            at: self.now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1_048_576.0;

    fn series(step_ms: u64, values_mb: &[f64]) -> (Series, Millis) {
        let mut series = Series::long();
        let mut now = Millis(0);
        for (index, value) in values_mb.iter().enumerate() {
            now = Millis(1_000 + index as u64 * step_ms);
            series.push(now, value * MB);
        }
        (series, now)
    }

    fn heap_of(step_ms: u64, values_mb: &[f64]) -> Option<NearLimit> {
        let (series, now) = series(step_ms, values_mb);
        heap(&series, 64.0 * MB, Millis(0), now)
    }

    #[test]
    fn a_runaway_loop_is_near_its_end_before_the_heap_is_full() {
        // Major GCs of a loop that fills 64 MB in half a second.
        let near = heap_of(90, &[12.0, 24.0, 37.0, 50.0]).unwrap();
        assert_eq!((near.kind, near.used_bytes), (LimitKind::Heap, 50 << 20));
        assert!(near.left_ms.unwrap() < 200, "{near:?}");
        assert!(near.evidence.slope_per_hour > 0.0 && near.evidence.readings == 4);
    }

    #[test]
    fn a_heap_that_v8_gives_up_early_is_near_its_end_before_that() {
        // As Node 24 died on a slow machine: major GCs 40 ms apart, and 0.3 MB more after each.
        let rising: Vec<f64> = (0..8).map(|i| 49.3 + 0.3 * f64::from(i)).collect();
        let near = heap_of(40, &rising).unwrap();
        assert!((1_670..1_690).contains(&near.left_ms.unwrap()), "{near:?}");
        assert_eq!(heap_of(40, &rising[..7]), None, "51.2 MB are not yet reached");
        // The same steps, a second apart.
        assert_eq!(heap_of(1_000, &rising), None);
        // Level, or not always higher.
        assert_eq!(heap_of(40, &[52.0, 52.1, 52.0, 52.1, 52.0, 52.1, 52.0, 52.1]), None);
    }

    #[test]
    fn a_live_heap_that_is_full_needs_no_rate_and_one_that_is_large_and_level_is_no_end() {
        assert!(heap_of(1000, &[62.0]).is_some());
        assert_eq!(heap_of(1000, &[57.0, 57.2, 57.1, 57.2, 57.1, 57.2]), None);
        assert_eq!(heap_of(1000, &[57.0]), None);
        // 2 MB/min at 57 MB: three minutes left is not yet the end, one minute is.
        let rising: Vec<f64> = (0..8).map(|i| 57.0 + 0.2 * f64::from(i)).collect();
        assert_eq!(heap_of(6_000, &rising), None);
        let rising: Vec<f64> = (0..8).map(|i| 61.0 + 0.15 * f64::from(i)).collect();
        assert!(heap(&series(1_000, &rising).0, 66.0 * MB, Millis(0), Millis(8_000)).is_some());
        // At the same rate, seen for a second.
        let rising: Vec<f64> = (0..8).map(|i| 61.0 + 0.0225 * f64::from(i)).collect();
        assert_eq!(heap(&series(150, &rising).0, 66.0 * MB, Millis(0), Millis(2_050)), None);
        // An app that warms up at 90 % of its heap.
        let warming = [57.7, 57.8, 57.85, 57.9, 58.0, 58.05, 58.1, 58.2];
        assert_eq!(heap_of(1_000, &warming), None);
    }

    #[test]
    fn an_app_that_fills_its_caches_at_start_up_is_not_at_its_end() {
        // As steep as a runaway loop, and then level at two thirds of the heap.
        for upto in 1..8 {
            let values = [6.0, 17.0, 30.0, 43.0, 43.5, 43.4, 43.6, 43.5];
            assert_eq!(heap_of(90, &values[..upto]), None, "{upto}");
        }
    }

    #[test]
    fn what_is_loaded_before_the_loop_first_turns_is_no_rate() {
        let (loaded, now) = series(90, &[21.0, 35.0, 48.0, 57.4]);
        let turned = Millis(now.0 - 20);
        assert!(heap(&loaded, 64.0 * MB, Millis(0), now).is_some());
        assert_eq!(heap(&loaded, 64.0 * MB, turned, now), None);
        // It is full all the same, or goes on to rise.
        let (full, now) = series(90, &[21.0, 35.0, 48.0, 61.5]);
        assert!(heap(&full, 64.0 * MB, Millis(now.0 - 20), now).is_some());
        let (rises, now) = series(90, &[21.0, 48.0, 57.4, 58.4, 59.4]);
        assert!(heap(&rises, 64.0 * MB, Millis(now.0 - 200), now).is_some());
    }

    #[test]
    fn old_space_is_what_semi_spaces_leave_which_are_small_in_a_container() {
        let old = |limit_mb: f64, node, memory_mb: Option<u64>| {
            let memory = memory_mb.map(|mb| mb << 20);
            (old_space_bytes(limit_mb * MB, node, memory) / MB).round()
        };
        // Limits as measured with --max-old-space-size=64.
        for (limit, node, memory) in [
            (112.0, "v22.23.3", Some(24_576)),
            (112.0, "v20.20.2", None),
            (67.0, "v22.23.3", Some(256)),
            (160.0, "v26.10.0", Some(24_576)),
            (256.0, "v24.21.0", Some(24_576)),
        ] {
            assert_eq!(old(limit, node, memory), 64.0, "{node}, {memory:?} MB");
        }
        let (full, now) = series(1000, &[90.0]);
        assert_eq!(heap(&full, 64.0 * MB, Millis(0), now), None);
    }

    #[test]
    fn an_old_reading_says_nothing() {
        let (series, now) = series(1000, &[63.0]);
        assert!(heap(&series, 64.0 * MB, Millis(0), now).is_some());
        assert_eq!(heap(&series, 64.0 * MB, Millis(0), Millis(now.0 + FRESH_MS + 1)), None);
    }

    fn sample(used_mb: u64) -> ProcessSample {
        ProcessSample {
            cgroup_limit_bytes: Some(256 << 20),
            cgroup_used_bytes: Some(used_mb << 20),
            cgroup_headroom_bytes: Some((256 - used_mb) << 20),
            ..ProcessSample::default()
        }
    }

    #[test]
    fn a_container_that_fills_is_told_in_time_and_one_that_is_full_and_level_never() {
        let (rising, now) = series(1000, &[120.0, 150.0, 180.0]);
        let near = container(&sample(210), &rising, now).unwrap();
        assert_eq!((near.kind, near.limit_bytes), (LimitKind::Container, 256 << 20));
        assert!((1_000..2_000).contains(&near.left_ms.unwrap()), "{near:?}");
        // The same rise with half of the container free: a burst may end.
        assert_eq!(container(&sample(130), &rising, now), None);
        let (level, now) = series(1000, &[200.0, 201.0, 200.0, 201.0, 200.5, 201.0]);
        assert_eq!(container(&sample(240), &level, now), None);
        // A quarter of a minute left at 92 %.
        let slow: Vec<f64> = (0..8).map(|i| 200.0 + 1.2 * f64::from(i)).collect();
        let (slow, now) = series(1000, &slow);
        assert!(container(&sample(236), &slow, now).is_some());
        assert_eq!(container(&ProcessSample::default(), &slow, now), None);
    }

    #[test]
    fn a_blocked_loop_is_judged_by_the_memory_that_came_since_it_answered() {
        let (anon, now) = series(1000, &[60.0, 70.0, 85.0, 100.0]);
        let near = blocked_heap(15.0 * MB, 60.0 * MB, &anon, 64.0 * MB, now).unwrap();
        assert_eq!(near.used_bytes, 55 << 20);
        assert_eq!(blocked_heap(15.0 * MB, 60.0 * MB, &anon, 256.0 * MB, now), None);
        // A loop that blocks and computes.
        let (level, now) = series(1000, &[60.0, 60.0, 60.0, 60.0]);
        assert_eq!(blocked_heap(60.0 * MB, 60.0 * MB, &level, 64.0 * MB, now), None);
    }

    #[test]
    fn node_profiles_at_the_limit_only_where_what_it_may_take_then_fits() {
        let (used, limit) = (30.0 * MB, 160.0 * MB);
        assert!(!profile_fits(&sample(100), used, limit));
        assert!(!profile_fits(&ProcessSample::default(), used, limit));
        let roomy =
            ProcessSample { mem_available_bytes: Some(1 << 30), ..ProcessSample::default() };
        assert!(profile_fits(&roomy, used, limit));
    }
}
