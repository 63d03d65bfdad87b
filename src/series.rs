//! History of one gauge in bounded memory: fixed rings at falling resolution, so that a window may be 30 s
//! or a day. It keeps and hands out; it does not judge.
//!
//! Each level is a ring of buckets (minimum, mean, maximum of the values that fell into it). The first has
//! one bucket per value. A bucket is 20 bytes: a long series is 25 KB, a short one (per listener
//! site) 3.5 KB.

use crate::sample::Millis;

/// Width of the buckets of the levels after the first, milliseconds.
const WIDTHS_MS: [u32; 3] = [10_000, 60_000, 600_000];

/// Buckets per level of a long series: 6 minutes at 1 s, then 1 h, 6 h and 27 h.
const LONG: [usize; 4] = [360, 370, 370, 162];

/// Buckets per level of a short series: 1 minute at 1 s, then 7 min, 42 min, 7 h.
const SHORT: [usize; 4] = [60, 42, 42, 42];

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

/// A fixed ring: the oldest goes when it is full.
#[derive(Clone, Debug)]
struct Ring {
    buckets: Vec<Bucket>,
    capacity: usize,
    /// Index of the oldest bucket once the ring is full.
    oldest: usize,
}

impl Ring {
    fn new(capacity: usize) -> Ring {
        Ring { buckets: Vec::new(), capacity, oldest: 0 }
    }

    fn push(&mut self, bucket: Bucket) {
        if self.buckets.len() < self.capacity {
            // Grown by hand so that the memory stays within the stated bound.
            if self.buckets.len() == self.buckets.capacity() {
                let more = (self.buckets.len().max(15)).min(self.capacity - self.buckets.len());
                self.buckets.reserve_exact(more);
            }
            self.buckets.push(bucket);
        } else {
            self.buckets[self.oldest] = bucket;
            self.oldest = (self.oldest + 1) % self.capacity;
        }
    }

    fn last_mut(&mut self) -> Option<&mut Bucket> {
        let len = self.buckets.len();
        if len == 0 {
            return None;
        }
        self.buckets.get_mut((self.oldest + len - 1) % len)
    }

    /// Oldest first.
    fn iter(&self) -> impl Iterator<Item = &Bucket> {
        let (wrapped, first) = self.buckets.split_at(self.oldest.min(self.buckets.len()));
        first.iter().chain(wrapped)
    }

    fn is_full(&self) -> bool {
        self.buckets.len() == self.capacity
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

/// History of one gauge.
#[derive(Clone, Debug)]
pub struct Series {
    levels: [Ring; 4],
    first: Option<(Millis, f64)>,
    last: Option<(Millis, f64)>,
    count: u64,
}

impl Series {
    /// 27 hours, 25 KB.
    pub fn long() -> Series {
        Series::with(LONG)
    }

    /// 7 hours, 3.7 KB.
    pub fn short() -> Series {
        Series::with(SHORT)
    }

    fn with(capacities: [usize; 4]) -> Series {
        Series { levels: capacities.map(Ring::new), first: None, last: None, count: 0 }
    }

    /// Records a value. Values are taken in order of time; one that is older than the last is dropped
    /// (the monotonic clock does not go back, a late answer may).
    pub fn push(&mut self, at: Millis, value: f64) {
        if !value.is_finite() || self.last.is_some_and(|(last, _)| at < last) {
            return;
        }
        let (centis, small) = ((at.0 / 10).min(u64::from(u32::MAX)) as Centis, value as f32);
        for (i, ring) in self.levels.iter_mut().enumerate() {
            let start = match i {
                0 => centis,
                _ => {
                    let width = WIDTHS_MS[i - 1] / 10;
                    centis / width * width
                }
            };
            match ring.last_mut() {
                Some(bucket) if i > 0 && bucket.start == start => bucket.add(small),
                _ => ring.push(Bucket::of(start, small)),
            }
        }
        self.first.get_or_insert((at, value));
        self.last = Some((at, value));
        self.count += 1;
    }

    /// The last value and when it was taken.
    pub fn last(&self) -> Option<(Millis, f64)> {
        self.last
    }

    /// The last `count` values, oldest first.
    pub fn latest(&self, count: usize) -> Vec<(Millis, f64)> {
        let [finest, ..] = &self.levels;
        let skipped = finest.buckets.len().saturating_sub(count);
        let values = finest.iter().skip(skipped);
        values.map(|one| (Millis(u64::from(one.start) * 10), f64::from(one.mean))).collect()
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
        self.buckets(from, to).map(|(_, bucket)| u64::from(bucket.count)).sum()
    }

    /// The window `from..=to` reduced to at most `cells` points, oldest first, empty cells left out.
    pub fn window(&self, from: Millis, to: Millis, cells: usize) -> Vec<Point> {
        let span = to.0.saturating_sub(from.0).max(1);
        let mut points: Vec<(usize, Point)> = Vec::with_capacity(cells);
        for (middle, bucket) in self.buckets(from, to) {
            let offset = middle.saturating_sub(from.0);
            let cell = ((offset as u128 * cells as u128 / span as u128) as usize).min(cells - 1);
            let count = u64::from(bucket.count);
            let (min, mean, max) =
                (f64::from(bucket.min), f64::from(bucket.mean), f64::from(bucket.max));
            match points.last_mut() {
                Some((last, point)) if *last == cell => {
                    let total = point.count + count;
                    let share = count as f64 / total as f64;
                    point.at = Millis(
                        (point.at.0 as f64 + (middle as f64 - point.at.0 as f64) * share) as u64,
                    );
                    point.mean += (mean - point.mean) * share;
                    point.min = point.min.min(min);
                    point.max = point.max.max(max);
                    point.count = total;
                }
                _ => points.push((cell, Point { at: Millis(middle), min, mean, max, count })),
            }
        }
        points.into_iter().map(|(_, point)| point).collect()
    }

    /// Buckets whose middle (ms) lies within the window, from the finest level that reaches back to `from`
    /// (or, where none does, the coarsest: it reaches back furthest).
    fn buckets(&self, from: Millis, to: Millis) -> impl Iterator<Item = (u64, &Bucket)> {
        let reaches = |ring: &&Ring| {
            !ring.is_full()
                || ring.iter().next().is_some_and(|bucket| u64::from(bucket.start) * 10 <= from.0)
        };
        let level = self.levels.iter().position(|ring| reaches(&ring)).unwrap_or(3);
        let last = self.last.map_or(0, |(at, _)| at.0);
        let half = if level == 0 { 0 } else { u64::from(WIDTHS_MS[level - 1]) / 2 };
        self.levels[level].iter().filter_map(move |bucket| {
            // The bucket that is still filling has its middle where its values are, not in the future.
            let middle = (u64::from(bucket.start) * 10 + half).min(last);
            (middle >= from.0.saturating_sub(9) && middle <= to.0).then_some((middle, bucket))
        })
    }

    /// Bytes this series occupies at most.
    pub fn capacity_bytes(&self) -> usize {
        size_of::<Series>()
            + self.levels.iter().map(|ring| ring.capacity * size_of::<Bucket>()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn the_stated_bytes_hold() {
        assert_eq!(size_of::<Bucket>(), 20);
        assert!(Series::long().capacity_bytes() <= 26_000, "{}", Series::long().capacity_bytes());
        assert!(Series::short().capacity_bytes() <= 4_200, "{}", Series::short().capacity_bytes());
        let mut series = Series::long();
        for second in 0..200_000u64 {
            series.push(Millis(second * 1000), second as f64);
        }
        let held: usize = series.levels.iter().map(|ring| ring.buckets.capacity() * 20).sum();
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
        fn the_ring_equals_a_queue(values in prop::collection::vec(0u32..1000, 0..400), capacity in 1usize..70) {
            let mut ring = Ring::new(capacity);
            let mut queue = VecDeque::new();
            for (i, value) in values.iter().enumerate() {
                let bucket = Bucket::of(i as u32, *value as f32);
                ring.push(bucket);
                if queue.len() == capacity { queue.pop_front(); }
                queue.push_back(bucket);
                prop_assert_eq!(ring.last_mut().copied(), queue.back().copied());
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
