//! History of one gauge in bounded memory: fixed rings at falling resolution, so that a window may be 30 s
//! or a day. It keeps and hands out; it does not judge.
//!
//! The first level keeps the values themselves, 8 bytes each; every other is a ring of buckets (minimum, mean and
//! maximum of the values that fell into it) of 20 bytes. A long series is 21 KB, a short one (per listener site) 3.2 KB.

use crate::sample::Millis;
use crate::stats::Step;

/// Width of the buckets of the levels after the first, milliseconds.
const WIDTHS_MS: [u32; 3] = [10_000, 60_000, 600_000];

/// Buckets per level of a long series: 6 minutes at 1 s, then 1 h, 6 h and 27 h.
const LONG: [u32; 4] = [360, 370, 370, 162];

/// Buckets per level of a short series: 1 minute at 1 s, then 7 min, 42 min, 7 h.
const SHORT: [u32; 4] = [60, 42, 42, 42];

/// Centiseconds: 32 bits reach 497 days.
type Centis = u32;

/// What one bucket of time held. Values are 32-bit floats: at 1 GB they resolve 64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bucket {
    start: Centis,
    count: u32,
    min: f32,
    mean: f32,
    max: f32,
}

impl Bucket {
    fn of(at: Centis, value: f32) -> Bucket {
        Bucket { start: at, count: 1, min: value, mean: value, max: value }
    }

    fn add(&mut self, value: f32) {
        self.count = self.count.saturating_add(1);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.mean += (value - self.mean) / self.count as f32;
    }
}

/// A value as the first level keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Value {
    at: Centis,
    value: f32,
}

/// What a ring keeps in order of time.
trait Timed: Copy {
    fn start(&self) -> Centis;
    fn bucket(&self) -> Bucket;
}

impl Timed for Value {
    fn start(&self) -> Centis {
        self.at
    }

    fn bucket(&self) -> Bucket {
        Bucket::of(self.at, self.value)
    }
}

impl Timed for Bucket {
    fn start(&self) -> Centis {
        self.start
    }

    fn bucket(&self) -> Bucket {
        *self
    }
}

/// A fixed ring: the oldest goes when it is full.
#[derive(Clone, Debug)]
struct Ring<T> {
    kept: Vec<T>,
    capacity: u32,
    /// Index of the oldest once the ring is full.
    oldest: u32,
}

impl<T: Timed> Ring<T> {
    fn new(capacity: u32) -> Ring<T> {
        Ring { kept: Vec::new(), capacity, oldest: 0 }
    }

    fn push(&mut self, one: T) {
        let len = self.kept.len();
        if self.is_full() {
            if let Some(oldest) = self.kept.get_mut(self.oldest as usize) {
                *oldest = one;
            }
            self.oldest = (self.oldest + 1) % self.capacity;
            return;
        }
        // Grown by hand so that the memory stays within the stated bound.
        if len == self.kept.capacity() {
            self.kept.reserve_exact(len.max(15).min(self.capacity as usize - len));
        }
        self.kept.push(one);
    }

    fn last_mut(&mut self) -> Option<&mut T> {
        let len = self.kept.len();
        if len == 0 {
            return None;
        }
        self.kept.get_mut((self.oldest as usize + len - 1) % len)
    }

    /// Both parts of the ring, oldest first.
    fn parts(&self) -> [&[T]; 2] {
        let (wrapped, first) = self.kept.split_at((self.oldest as usize).min(self.kept.len()));
        [first, wrapped]
    }

    /// Oldest first.
    fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts().into_iter().flatten()
    }

    /// What begins at `from` or later, oldest first.
    fn since(&self, from: u64) -> impl Iterator<Item = &T> {
        let later = |part: &'_ [T]| part.partition_point(|one| u64::from(one.start()) < from);
        let [first, wrapped] = self.parts();
        let (skip, wrapped_skip) = (later(first), later(wrapped));
        first.get(skip..).into_iter().chain(wrapped.get(wrapped_skip..)).flatten()
    }

    fn is_full(&self) -> bool {
        self.kept.len() == self.capacity as usize
    }

    /// Whether nothing that began after `from` has been dropped.
    fn reaches(&self, from: Millis) -> bool {
        let oldest = self.kept.get(self.oldest as usize);
        !self.is_full() || oldest.is_some_and(|one| u64::from(one.start()) * 10 <= from.0)
    }

    fn capacity_bytes(&self) -> usize {
        self.capacity as usize * size_of::<T>()
    }
}

/// A value of a window, reduced to one cell of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When; the middle of the cell's values.
    pub at: Millis,
    /// Lowest value.
    pub min: f64,
    /// Mean value.
    pub mean: f64,
    /// Highest value.
    pub max: f64,
    /// How many values went in.
    pub count: u64,
}

/// Points of one cell, gathered.
struct Cell {
    /// Sums weighted by count; of times relative to the window's start.
    at: f64,
    mean: f64,
    min: f32,
    max: f32,
    count: u64,
}

impl Cell {
    fn point(&self, from: u64) -> Point {
        let count = self.count as f64;
        Point {
            at: Millis(from + (self.at / count).max(0.0) as u64),
            min: f64::from(self.min),
            mean: self.mean / count,
            max: f64::from(self.max),
            count: self.count,
        }
    }
}

/// A moment at which the guard itself raised a series for good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// When.
    pub at: Millis,
    /// By how much at most, in the unit of the series.
    pub most: f64,
}

/// What a shift is of the most it can be where the readings do not tell. The profiler: 0 to 0.15 MB in Express apps, 0.2 at most.
const UNSEEN: f64 = 0.4;

/// Standard errors of a step that was seen which a shift may be larger: one in twenty is, of a normal distribution.
const ONE_IN_TWENTY: f64 = 1.645;

impl Shift {
    /// By how much it was, judged by a step seen in the readings. A step that is known much better than what it can be
    /// at most is what was seen; one that drowns in noise says nothing, and [`UNSEEN`] errs least.
    pub fn amount(&self, seen: Step) -> f64 {
        let seen_by = seen.by.max(0.0).min(self.most);
        // Variance of what is anything from nothing to the most with the same probability.
        let variance = self.most * self.most / 12.0;
        let weight = variance / (variance + seen.error * seen.error).max(f64::MIN_POSITIVE);
        weight * seen_by + (1.0 - weight) * UNSEEN * self.most
    }

    /// What it was at most, by the same step: for a verdict, to which what the guard added must not lend anything.
    pub fn at_most(&self, seen: Step) -> f64 {
        (seen.by.max(0.0) + ONE_IN_TWENTY * seen.error).min(self.most).max(self.amount(seen))
    }
}

/// History of one gauge.
#[derive(Clone, Debug)]
pub struct Series {
    values: Ring<Value>,
    levels: [Ring<Bucket>; 3],
    first: Option<(Millis, f64)>,
    last: Option<(Millis, f64)>,
    count: u64,
    shift: Option<Shift>,
}

impl Series {
    /// 27 hours, 21 KB.
    pub fn long() -> Series {
        Series::with(LONG)
    }

    /// 7 hours, 3.2 KB.
    pub fn short() -> Series {
        Series::with(SHORT)
    }

    fn with([values, levels @ ..]: [u32; 4]) -> Series {
        Series {
            values: Ring::new(values),
            levels: levels.map(Ring::new),
            first: None,
            last: None,
            count: 0,
            shift: None,
        }
    }

    /// Records a value. Values are taken in order of time; one that is older than the last is dropped
    /// (the monotonic clock does not go back, a late answer may).
    pub fn push(&mut self, at: Millis, value: f64) {
        if !value.is_finite() || self.last.is_some_and(|(last, _)| at < last) {
            return;
        }
        let (centis, small) = ((at.0 / 10).min(u64::from(u32::MAX)) as Centis, value as f32);
        self.values.push(Value { at: centis, value: small });
        for (ring, width) in self.levels.iter_mut().zip(WIDTHS_MS) {
            let start = centis / (width / 10) * (width / 10);
            match ring.last_mut() {
                Some(bucket) if bucket.start == start => bucket.add(small),
                _ => ring.push(Bucket::of(start, small)),
            }
        }
        self.first.get_or_insert((at, value));
        self.last = Some((at, value));
        self.count += 1;
    }

    /// Says that the guard itself raised what is read from now on. The values stay as they are read: who judges them
    /// makes allowance for it.
    pub fn raised(&mut self, shift: Shift) {
        self.shift = Some(shift);
    }

    /// When the guard itself raised it last.
    pub fn shift(&self) -> Option<Shift> {
        self.shift
    }

    /// The last value and when it was taken.
    pub fn last(&self) -> Option<(Millis, f64)> {
        self.last
    }

    /// The last `count` values, oldest first.
    pub fn latest(&self, count: usize) -> Vec<(Millis, f64)> {
        let skipped = self.values.kept.len().saturating_sub(count);
        let values = self.values.iter().skip(skipped);
        values.map(|one| (Millis(u64::from(one.at) * 10), f64::from(one.value))).collect()
    }

    /// The first value ever recorded.
    pub fn first(&self) -> Option<(Millis, f64)> {
        self.first
    }

    /// Values recorded so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of values within `from..=to`, as far as the finest level that reaches back so far knows.
    pub fn values_in(&self, from: Millis, to: Millis) -> u64 {
        let mut count = 0;
        self.each_bucket(from, to, |_, bucket| count += u64::from(bucket.count));
        count
    }

    /// The window `from..=to` reduced to at most `cells` points, oldest first, empty cells left out.
    pub fn window(&self, from: Millis, to: Millis, cells: usize) -> Vec<Point> {
        let mut points = Vec::with_capacity(cells);
        self.each_point(from, to, cells, |point| points.push(point));
        points
    }

    /// Calls `each` with the points of [`Series::window`]: nothing is allocated.
    pub fn each_point(&self, from: Millis, to: Millis, cells: usize, mut each: impl FnMut(Point)) {
        let span = to.0.saturating_sub(from.0).max(1);
        let cells = (cells as u64).max(1);
        let mut filling: Option<Cell> = None;
        // Where the cell that is filling ends, so that a bucket costs a comparison and not a division.
        let mut ends = 0;
        self.each_bucket(from, to, |middle, bucket| {
            let offset = middle.saturating_sub(from.0);
            let count = f64::from(bucket.count);
            let (at, mean) = (offset as f64 * count, f64::from(bucket.mean) * count);
            match &mut filling {
                Some(cell) if offset < ends => {
                    cell.at += at;
                    cell.mean += mean;
                    cell.min = cell.min.min(bucket.min);
                    cell.max = cell.max.max(bucket.max);
                    cell.count += u64::from(bucket.count);
                }
                _ => {
                    let index = (offset.saturating_mul(cells) / span).min(cells - 1);
                    // The last cell takes what lies on the window's edge too.
                    let last = index + 1 == cells;
                    ends = if last { u64::MAX } else { ((index + 1) * span).div_ceil(cells) };
                    let (min, max, count) = (bucket.min, bucket.max, u64::from(bucket.count));
                    let next = Cell { at, mean, min, max, count };
                    if let Some(done) = filling.replace(next) {
                        each(done.point(from.0));
                    }
                }
            }
        });
        if let Some(done) = filling {
            each(done.point(from.0));
        }
    }

    /// Calls `each` with the buckets whose middle (ms) lies within the window, oldest first, from the finest level
    /// that reaches back to `from` (or, where none does, the coarsest: it reaches back furthest).
    fn each_bucket(&self, from: Millis, to: Millis, mut each: impl FnMut(u64, Bucket)) {
        // Up to 9 ms are lost when a time becomes centiseconds.
        let least = from.0.saturating_sub(9);
        let last = self.last.map_or(0, |(at, _)| at.0);
        if self.values.reaches(from) {
            for one in self.values.since(least.div_ceil(10)) {
                let at = (u64::from(one.at) * 10).min(last);
                if at > to.0 {
                    return;
                }
                if at >= least {
                    each(at, one.bucket());
                }
            }
            return;
        }
        let level = self.levels.iter().position(|ring| ring.reaches(from)).unwrap_or(2);
        let (Some(ring), Some(width)) = (self.levels.get(level), WIDTHS_MS.get(level)) else {
            return;
        };
        let half = u64::from(width / 2);
        // From one bucket earlier: the one that is still filling has its middle where its values are, not in the future.
        for bucket in ring.since(least.saturating_sub(2 * half).div_ceil(10)) {
            let middle = (u64::from(bucket.start) * 10 + half).min(last);
            if middle > to.0 {
                return;
            }
            if middle >= least {
                each(middle, bucket.bucket());
            }
        }
    }

    /// Bytes this series occupies at most.
    pub fn capacity_bytes(&self) -> usize {
        let levels: usize = self.levels.iter().map(Ring::capacity_bytes).sum();
        size_of::<Series>() + self.values.capacity_bytes() + levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn what_the_guard_raised_is_what_was_seen_unless_noise_hides_it() {
        let shift = Shift { at: Millis(0), most: 12.0 };
        let amount = |by: f64, error: f64| shift.amount(Step { by, error });
        assert!((amount(9.0, 0.01) - 9.0).abs() < 0.01);
        assert_eq!((amount(20.0, 0.0), amount(-20.0, 0.0)), (12.0, 0.0));
        // A step that may as well be none errs by little, whichever way the noise went.
        assert!(
            (amount(20.0, 100.0) - 4.8).abs() < 0.1 && (amount(-20.0, 100.0) - 4.8).abs() < 0.1
        );
        assert_eq!(Shift { most: 0.0, ..shift }.amount(Step { by: 5.0, error: 0.0 }), 0.0);
    }

    #[test]
    fn a_verdict_takes_off_the_most_that_the_guard_may_have_raised() {
        let shift = Shift { at: Millis(0), most: 12.0 };
        let at_most = |by: f64, error: f64| shift.at_most(Step { by, error });
        assert_eq!((at_most(9.0, 0.0), at_most(20.0, 0.0), at_most(-20.0, 0.0)), (9.0, 12.0, 0.0));
        assert!((at_most(3.0, 1.0) - 4.6).abs() < 0.1);
        assert_eq!((at_most(0.0, 100.0), at_most(20.0, 100.0)), (12.0, 12.0));
    }

    #[test]
    fn the_stated_bytes_hold() {
        assert_eq!(size_of::<Bucket>(), 20);
        assert_eq!(size_of::<Value>(), 8);
        assert!(Series::long().capacity_bytes() <= 21_500, "{}", Series::long().capacity_bytes());
        assert!(Series::short().capacity_bytes() <= 3_300, "{}", Series::short().capacity_bytes());
        let mut series = Series::long();
        for second in 0..200_000u64 {
            series.push(Millis(second * 1000), second as f64);
        }
        let levels: usize = series.levels.iter().map(|ring| ring.kept.capacity() * 20).sum();
        let held = levels + series.values.kept.capacity() * 8;
        assert!(held + size_of::<Series>() <= series.capacity_bytes(), "{held}");
    }

    #[test]
    fn a_short_window_is_seen_at_full_resolution() {
        let mut series = Series::long();
        for second in 0..7200u64 {
            series.push(Millis(second * 1000), second as f64);
        }
        let points = series.window(Millis(7_190_000), Millis(7_199_000), 10);
        assert_eq!(points.len(), 10);
        assert!(points.iter().all(|point| point.count == 1));
        assert_eq!((points[0].mean, points[9].mean), (7190.0, 7199.0));
    }

    #[test]
    fn a_day_is_seen_in_coarse_cells_with_minimum_and_maximum() {
        let mut series = Series::long();
        for minute in 0..27 * 60u64 {
            series.push(Millis(minute * 60_000), (minute % 10) as f64);
        }
        let points = series.window(Millis(2 * 3_600_000), Millis(26 * 3_600_000), 24);
        assert_eq!(points.len(), 24);
        assert!(points.iter().all(|point| point.min == 0.0 && point.max == 9.0));
    }

    #[test]
    fn values_out_of_order_and_not_finite_are_dropped() {
        let mut series = Series::long();
        series.push(Millis(5_000), 1.0);
        series.push(Millis(4_000), 9.0);
        series.push(Millis(6_000), f64::NAN);
        assert_eq!(series.last(), Some((Millis(5_000), 1.0)));
        assert_eq!(series.count(), 1);
    }

    proptest! {
        #[test]
        fn the_ring_equals_a_queue(values in prop::collection::vec(0u32..1000, 0..400), capacity in 1u32..70) {
            let mut ring = Ring::new(capacity);
            let mut queue = VecDeque::new();
            for (i, value) in values.iter().enumerate() {
                let bucket = Bucket::of(i as u32, *value as f32);
                ring.push(bucket);
                if queue.len() == capacity as usize { queue.pop_front(); }
                queue.push_back(bucket);
                prop_assert_eq!(ring.last_mut().copied(), queue.back().copied());
                let since = u64::from(queue[queue.len() / 2].start);
                prop_assert_eq!(ring.since(since).count(), queue.len() - queue.len() / 2);
            }
            prop_assert_eq!(ring.iter().copied().collect::<Vec<_>>(), queue.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn cells_hold_every_value_of_the_window_once(gaps in prop::collection::vec(10u64..4000, 1..300), cells in 1usize..40) {
            let mut series = Series::long();
            let mut at = 0;
            for gap in &gaps {
                at += gap;
                series.push(Millis(at), at as f64);
            }
            let points = series.window(Millis(0), Millis(at), cells);
            prop_assert_eq!(points.iter().map(|point| point.count).sum::<u64>(), gaps.len() as u64);
            prop_assert!(points.windows(2).all(|pair| pair[0].at <= pair[1].at));
            prop_assert!(points.len() <= cells);
        }
    }
}
