//! The phase machine between verdicts and findings: what opens a finding, what joins one that is open,
//! and what stays silent because it was said already. Pure; it writes and snapshots nothing.

use std::collections::HashMap;

use crate::detect::Evidence;
use crate::metric::SeriesId;
use crate::sample::{IsolateId, Millis};

/// Least time for which a finding stays open to further series of the same leak.
const COLLECT_MS: u64 = 60_000;

/// Which gauge grows: the series, whose it is, and for listeners which emitter and event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The series.
    pub series: SeriesId,
    /// The isolate, `None` for the process.
    pub isolate: Option<IsolateId>,
    /// For listeners: what tells this emitter from others across restarts, `EventEmitter 'data' app.js:12`.
    pub emitter: Option<String>,
}

/// Growth on which enough evaluations agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Confirmed {
    /// What grows.
    pub source: Source,
    /// The numbers.
    pub evidence: Evidence,
}

/// Where the trigger stands.
///
/// ```text
///  WarmUp --step: warm-up over--> Armed --step: growth confirmed--> Collecting
///                                   ^                                   |
///                                   +------ step: window collected -----+
///
///  After Collecting every series of the finding is in cooldown: confirmed growth of it is silent until
///  the cooldown ends. Other series stay armed.
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Nothing is judged yet.
    WarmUp,
    /// Growth opens a finding.
    Armed,
    /// A finding is open: growth of another series joins it.
    Collecting {
        /// The finding's number.
        finding: u32,
        /// When it closes.
        until: Millis,
    },
}

impl Phase {
    /// The word shown in `status()`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::WarmUp => "warm-up",
            Phase::Armed => "armed",
            Phase::Collecting { .. } => "collecting",
        }
    }
}

/// What is to be done about confirmed growth.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// A new finding; the first confirmed is what it is named after.
    Open {
        /// Its number, from 1.
        finding: u32,
        /// What was confirmed in this step, most telling first.
        confirmed: Vec<Confirmed>,
    },
    /// One more series of the finding that is open.
    Join {
        /// The finding's number.
        finding: u32,
        /// What joins.
        confirmed: Confirmed,
    },
}

/// Decides what becomes of confirmed growth.
#[derive(Clone, Debug)]
pub struct Trigger {
    phase: Phase,
    warm_at: Millis,
    cooldown_ms: u64,
    silent_until: HashMap<Source, Millis>,
    opened: u32,
    silenced: u64,
}

impl Trigger {
    /// Warms up until `warm_at`.
    pub fn new(warm_at: Millis, cooldown_ms: u64) -> Trigger {
        Trigger {
            phase: Phase::WarmUp,
            warm_at,
            cooldown_ms,
            silent_until: HashMap::new(),
            opened: 0,
            silenced: 0,
        }
    }

    /// New settings; the phase stays.
    pub fn configure(&mut self, warm_at: Millis, cooldown_ms: u64) {
        self.warm_at = warm_at;
        self.cooldown_ms = cooldown_ms;
    }

    /// Numbers a finding that cannot wait for a verdict: in the warm-up too, and whatever the cooldown. Confirmed
    /// growth of the same source is silent from then on, as after any finding; the phase stays.
    pub fn open_at_once(&mut self, now: Millis, source: &Source) -> u32 {
        self.silent_until.insert(source.clone(), Millis(now.0 + self.cooldown_ms));
        self.opened += 1;
        self.opened
    }

    /// Moves on to `now` with what was confirmed since the last step.
    pub fn step(&mut self, now: Millis, confirmed: Vec<Confirmed>) -> Vec<Decision> {
        match self.phase {
            Phase::WarmUp if now >= self.warm_at => self.phase = Phase::Armed,
            Phase::WarmUp => return Vec::new(),
            Phase::Collecting { until, .. } if now >= until => self.phase = Phase::Armed,
            _ => {}
        }
        self.silent_until.retain(|_, until| now < *until);
        let (fresh, silent): (Vec<_>, Vec<_>) = confirmed
            .into_iter()
            .partition(|confirmed| !self.silent_until.contains_key(&confirmed.source));
        self.silenced += silent.len() as u64;
        if fresh.is_empty() {
            return Vec::new();
        }
        for one in &fresh {
            self.silent_until.insert(one.source.clone(), Millis(now.0 + self.cooldown_ms));
        }
        if let Phase::Collecting { finding, .. } = self.phase {
            return fresh
                .into_iter()
                .map(|confirmed| Decision::Join { finding, confirmed })
                .collect();
        }
        self.opened += 1;
        let window = fresh.iter().map(|one| one.evidence.window_ms).max().unwrap_or(0);
        self.phase = Phase::Collecting {
            finding: self.opened,
            until: Millis(now.0 + window.max(COLLECT_MS)),
        };
        vec![Decision::Open { finding: self.opened, confirmed: fresh }]
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Confirmed growth that a cooldown kept silent.
    pub fn silenced(&self) -> u64 {
        self.silenced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_wait_opens_in_the_warm_up_and_is_said_once() {
        let mut trigger = Trigger::new(Millis(10_000), 60_000);
        let source = Source { series: SeriesId::LiveHeap, isolate: None, emitter: None };
        assert_eq!(trigger.open_at_once(Millis(1_000), &source), 1);
        assert_eq!(trigger.phase(), Phase::WarmUp);
        assert_eq!(trigger.open_at_once(Millis(2_000), &source), 2);
    }

    fn grown(series: SeriesId) -> Confirmed {
        let source = Source { series, isolate: None, emitter: None };
        let evidence = Evidence {
            series,
            window_ms: 30_000,
            slope_per_hour: 1.0,
            slope_between: (1.0, 1.0),
            later_slope_per_hour: 1.0,
            threshold_per_hour: 0.5,
            amount: 0.1,
            p_value: 0.001,
            readings: 9,
            first: 0.0,
            last: 1.0,
            load_factor: 1.0,
            own: 0.0,
            agreed: 2,
            at: Millis(0),
        };
        Confirmed { source, evidence }
    }

    fn kinds(decisions: &[Decision]) -> Vec<&'static str> {
        decisions
            .iter()
            .map(|decision| match decision {
                Decision::Open { .. } => "open",
                Decision::Join { .. } => "join",
            })
            .collect()
    }

    #[test]
    fn the_arrows_of_the_diagram() {
        let heap = || vec![grown(SeriesId::LiveHeap)];
        let mut trigger = Trigger::new(Millis(10_000), 3_600_000);
        // (now in s, confirmed, decisions, phase after)
        let table: [(u64, Vec<Confirmed>, &[&str], &str); 9] = [
            (5, heap(), &[], "warm-up"),
            (10, vec![], &[], "armed"),
            (20, heap(), &["open"], "collecting"),
            (25, heap(), &[], "collecting"),
            (30, vec![grown(SeriesId::Listeners)], &["join"], "collecting"),
            (80, vec![], &[], "armed"),
            (90, heap(), &[], "armed"),
            (95, vec![grown(SeriesId::Fds)], &["open"], "collecting"),
            (3700, heap(), &["open"], "collecting"),
        ];
        for (second, confirmed, expected, phase) in table {
            let decisions = trigger.step(Millis(second * 1000), confirmed);
            assert_eq!(kinds(&decisions), expected, "at {second} s");
            assert_eq!(trigger.phase().as_str(), phase, "at {second} s");
        }
        assert_eq!(trigger.silenced(), 2);
    }

    #[test]
    fn series_confirmed_together_are_one_finding() {
        let mut trigger = Trigger::new(Millis(0), 1000);
        let both = vec![grown(SeriesId::Listeners), grown(SeriesId::LiveHeap)];
        let decisions = trigger.step(Millis(1), both.clone());
        assert_eq!(decisions, [Decision::Open { finding: 1, confirmed: both }]);
    }

    #[test]
    fn another_emitter_is_another_cause() {
        let mut trigger = Trigger::new(Millis(0), 3_600_000);
        let on = |emitter: &str| {
            let mut confirmed = grown(SeriesId::Listeners);
            confirmed.source.emitter = Some(emitter.into());
            vec![confirmed]
        };
        assert_eq!(trigger.step(Millis(1), on("A 'x'")).len(), 1);
        assert_eq!(trigger.step(Millis(120_000), on("A 'x'")).len(), 0);
        assert_eq!(trigger.step(Millis(120_001), on("B 'x'")).len(), 1);
    }
}
