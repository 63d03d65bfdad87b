//! Counts of what came of the evidence since the guard started, for scrapes: findings by series, refusals by
//! reason, snapshots by kind and outcome. They only rise. It keeps no history and no words; those are the
//! collector's.

use crate::evidence::{RefusalReason, SnapshotReason};
use crate::metric::{METRICS, SeriesId};

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It lies on disk, whole.
    Written,
    /// It was not begun, or given up by the ladder's last way.
    Refused,
    /// It was begun and did not come to its end.
    Failed,
}

impl Outcome {
    /// Every outcome, in the order of the variants.
    pub const ALL: [Outcome; 3] = [Outcome::Written, Outcome::Refused, Outcome::Failed];

    /// The label's value.
    pub fn code(self) -> &'static str {
        match self {
            Outcome::Written => "written",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// The counts. Every combination is there from the start, with zero, so that the first of its kind is an increase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    findings: [u64; METRICS.len()],
    refusals: [u64; RefusalReason::ALL.len()],
    snapshots: [[u64; Outcome::ALL.len()]; SnapshotReason::ALL.len()],
}

impl Tally {
    /// A finding was opened; this series names it.
    pub fn finding(&mut self, series: SeriesId) {
        self.findings[series as usize] += 1;
    }

    /// A step was refused.
    pub fn refusal(&mut self, reason: RefusalReason) {
        self.refusals[reason as usize] += 1;
    }

    /// A snapshot has come to its end, or will not be taken.
    pub fn snapshot(&mut self, reason: SnapshotReason, outcome: Outcome) {
        self.snapshots[reason as usize][outcome as usize] += 1;
    }

    /// Findings that a series named.
    pub fn findings_of(&self, series: SeriesId) -> u64 {
        self.findings[series as usize]
    }

    /// Refusals by reason.
    pub fn refusals(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        RefusalReason::ALL.into_iter().zip(self.refusals)
    }

    /// Snapshots by what they were for and what became of them.
    pub fn snapshots(&self) -> impl Iterator<Item = (SnapshotReason, Outcome, u64)> {
        SnapshotReason::ALL.into_iter().zip(self.snapshots).flat_map(|(reason, outcomes)| {
            Outcome::ALL.into_iter().zip(outcomes).map(move |(outcome, n)| (reason, outcome, n))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_and_outcome_is_counted_in_its_own_place() {
        for (i, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
        for (i, reason) in SnapshotReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            let code = serde_json::to_value(reason).unwrap();
            assert_eq!(code, reason.code());
        }
        let mut tally = Tally::default();
        tally.finding(SeriesId::LoopUtilization);
        tally.refusal(RefusalReason::Failed);
        tally.snapshot(SnapshotReason::NearLimit, Outcome::Failed);
        assert_eq!(tally.findings_of(SeriesId::LoopUtilization), 1);
        assert_eq!(tally.refusals().map(|(_, n)| n).sum::<u64>(), 1);
        let counted: Vec<_> = tally.snapshots().filter(|(.., n)| *n > 0).collect();
        assert_eq!(counted, [(SnapshotReason::NearLimit, Outcome::Failed, 1)]);
    }
}
