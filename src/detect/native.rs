//! What native memory that grows is: a leak, fragmentation, or what malloc keeps for the next peak. It compares the
//! growth of resident memory outside V8 with malloc's own account of what it has handed out and what it holds free.
//! It does not judge whether there is growth: that is `growth`'s business.

use crate::sample::Millis;
use crate::series::Series;
use crate::stats;

/// Cells to which a figure of malloc's is reduced.
const CELLS: usize = 24;

/// Part of the growth that malloc's figure must explain. Lower, and a small leak beside much fragmentation is called
/// the whole of it; higher, and two causes of the same size are called neither.
const HALF: f64 = 0.5;

/// How a figure of malloc's went over the window, bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// Along its trend, at the window's start.
    pub first: f64,
    /// Along its trend, at the window's end.
    pub last: f64,
    /// The highest value in the window.
    pub highest: f64,
}

impl Course {
    /// The course of a figure over a window; `None` if it was not read twice.
    pub fn of(series: &Series, from: Millis, to: Millis) -> Option<Course> {
        let points = series.window(from, to, CELLS);
        let line: Vec<(f64, f64)> =
            points.iter().map(|point| (point.at.0 as f64, point.mean)).collect();
        let trend = stats::theil_sen(&line)?;
        Some(Course {
            first: trend.at(from.0 as f64),
            last: trend.at(to.0 as f64),
            highest: points.iter().map(|point| point.max).fold(0.0, f64::max),
        })
    }

    /// Growth along the trend; negative where it fell.
    pub fn growth(self) -> f64 {
        self.last - self.first
    }
}

/// What native memory that grows is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeKind {
    /// What malloc has handed out grows: somebody does not free it.
    Leak,
    /// What malloc has handed out stays, at its peaks too; what it holds free grows, in pieces that do not fit.
    Fragmentation,
    /// Peaks of use made the process so large, and malloc keeps what was freed after them.
    Cache,
    /// malloc has no part in it: mappings of a library, stacks of threads, code.
    Mapped,
}

impl NativeKind {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            NativeKind::Leak => "leak",
            NativeKind::Fragmentation => "fragmentation",
            NativeKind::Cache => "cache",
            NativeKind::Mapped => "mapped",
        }
    }
}

/// What native memory that grows is, with the numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NativeVerdict {
    /// What it is.
    pub kind: NativeKind,
    /// Growth of resident memory outside V8, bytes.
    pub grown: f64,
    /// What malloc has handed out, external memory of V8 (buffers) not counted.
    pub used: Course,
    /// What malloc holds free.
    pub free: Course,
}

/// Explains growth of resident memory outside V8 by `grown` bytes.
///
/// Resident memory that malloc cannot give back is what it has handed out and what it holds free. Where the first
/// grows it is a leak. Where only the second does, either the app needed that much at a peak, and the next peak finds
/// it there; or it never needed so much, and new requests do not fit into what others left: with an arena for
/// every few threads, what one has freed is of no use to the others (mallopt(3), `M_ARENA_MAX`). A peak that is over
/// within one interval of the readings is not seen, and then a cache looks like fragmentation.
pub fn explain(grown: f64, used: Course, free: Course) -> NativeVerdict {
    let enough = HALF * grown;
    let kind = if used.growth() >= enough {
        NativeKind::Leak
    } else if used.growth() + free.growth() < enough {
        NativeKind::Mapped
    } else if used.highest - used.first >= enough {
        NativeKind::Cache
    } else {
        NativeKind::Fragmentation
    };
    NativeVerdict { kind, grown, used, free }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anonymous resident memory, malloc's in use and malloc's free, MB: recorded from processes under glibc 2.36.
    type Recorded = &'static [(f64, f64, f64)];

    /// Blocks of 7 KB that nobody frees.
    const LEAKING: Recorded = &[
        (2.8, 2.7, 0.1),
        (5.5, 5.4, 0.1),
        (8.2, 8.0, 0.1),
        (10.8, 10.7, 0.1),
        (13.5, 13.4, 0.1),
        (16.2, 16.0, 0.1),
        (18.9, 18.7, 0.1),
        (21.5, 21.4, 0.1),
        (24.2, 24.1, 0.1),
        (26.9, 26.7, 0.1),
        (29.6, 29.4, 0.1),
        (32.2, 32.1, 0.1),
    ];

    /// Twelve threads, one after the other at work with 2.6 MB, read in the middle of the work and after it. The same
    /// with MALLOC_ARENA_MAX=2 stays at 5.4 MB.
    const TAKING_TURNS: Recorded = &[
        (2.8, 2.6, 1.5),
        (2.8, 0.0, 4.1),
        (5.4, 2.6, 4.0),
        (5.4, 0.0, 6.5),
        (8.0, 2.6, 6.4),
        (8.0, 0.0, 9.0),
        (10.6, 2.6, 8.9),
        (10.6, 0.0, 11.4),
        (13.2, 2.6, 11.3),
        (13.2, 0.0, 13.9),
        (15.7, 2.6, 13.8),
        (15.7, 0.1, 16.3),
        (18.3, 2.6, 16.2),
        (18.3, 0.1, 18.8),
        (20.9, 2.6, 18.7),
        (20.9, 0.1, 21.3),
        (23.5, 2.6, 21.1),
        (23.5, 0.1, 23.7),
        (26.1, 2.6, 23.6),
        (26.1, 0.1, 26.2),
        (28.6, 2.6, 26.0),
        (28.6, 0.1, 28.6),
        (31.2, 2.6, 28.5),
        (31.2, 0.1, 31.1),
    ];

    /// Batches, each larger than the one before, freed each time but for a small block at the end.
    const EVER_HIGHER_PEAKS: Recorded = &[
        (2.7, 2.6, 0.0),
        (2.7, 0.0, 2.6),
        (5.3, 5.2, 0.0),
        (5.3, 0.0, 5.2),
        (7.8, 7.7, 0.0),
        (7.8, 0.0, 7.7),
        (10.4, 10.3, 0.0),
        (10.4, 0.0, 10.3),
        (13.0, 12.9, 0.0),
        (13.0, 0.0, 12.9),
        (15.6, 15.5, 0.0),
        (15.6, 0.0, 15.5),
        (18.2, 18.0, 0.0),
        (18.2, 0.0, 18.1),
        (20.7, 20.6, 0.1),
        (20.7, 0.0, 20.7),
        (23.3, 23.2, 0.1),
        (23.3, 0.0, 23.3),
        (25.9, 25.8, 0.1),
        (25.9, 0.0, 25.8),
        (28.5, 28.4, 0.1),
        (28.5, 0.0, 28.4),
        (31.1, 30.9, 0.1),
        (31.1, 0.0, 31.0),
    ];

    fn verdict(recorded: Recorded) -> NativeVerdict {
        let [mut resident, mut used, mut free] = [const { Series::short }; 3].map(|new| new());
        let end = Millis(1000 * (recorded.len() as u64 - 1));
        for (second, (anon, in_use, unused)) in recorded.iter().enumerate() {
            let at = Millis(1000 * second as u64);
            resident.push(at, *anon);
            used.push(at, *in_use);
            free.push(at, *unused);
        }
        let course = |series| Course::of(series, Millis(0), end).unwrap();
        explain(course(&resident).growth(), course(&used), course(&free))
    }

    #[test]
    fn kinds_of_native_growth_are_told_apart_in_recorded_figures() {
        for (recorded, kind) in [
            (LEAKING, NativeKind::Leak),
            (TAKING_TURNS, NativeKind::Fragmentation),
            (EVER_HIGHER_PEAKS, NativeKind::Cache),
        ] {
            let verdict = verdict(recorded);
            assert_eq!(verdict.kind, kind, "{verdict:?}");
            assert!((verdict.grown - 29.0).abs() < 2.0, "{verdict:?}");
        }
    }

    #[test]
    fn what_malloc_has_no_part_in_is_not_called_a_leak() {
        let flat = Course { first: 9.0, last: 9.1, highest: 9.3 };
        assert_eq!(explain(30.0, flat, flat).kind, NativeKind::Mapped);
    }
}
