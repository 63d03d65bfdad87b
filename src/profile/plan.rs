//! When to sample allocations. A profile begins once a suspicion stands, is read twice, and ends with the second
//! reading, when the suspicion falls, or after two windows. Where it told nothing, a second one, twice as dense and a
//! whole window long, follows a finding. Each reading and each end is a major GC with its whole
//! stop, so that nothing begins whose predicted stop exceeds `maxGcPause`. Pure: it says when; others do.
//!
//! ```text
//!  Idle --step: suspicion, or finding--> Starting --began--> Settling --step: due--> Reading
//!   ^                                                                                   | read
//!   |                                                                                   v
//!  Resting <--ended-- Ending <--step: finding and long enough; or given up-------- Sampling
//! ```
//!
//! The first reading is an early one and not the start: what requests under way hold stands in both readings then,
//! and leaves the difference. The second comes with the finding; where the finding came first, after a quarter of its window.

use crate::config::Config;
use crate::detect::Evidence;
use crate::metric::SeriesId;
use crate::sample::Millis;

/// Stop of a reading, per MB of live heap: a forced GC of small objects.
const PAUSE_PER_MB_MS: f64 = 1.45;

/// How long one reading of a profile is expected to stop the loop, ms.
pub fn predicted_pause_ms(live_bytes: f64) -> f64 {
    PAUSE_PER_MB_MS * live_bytes.max(0.0) / 1_048_576.0
}

/// Samples wanted of the growth until the second reading: of a profile that lasts hours, and of one that lasts minutes
/// and may cost more. Where Node's parser allocates what the app keeps, the app's own share may be a twentieth: a dozen of 256.
const SAMPLES_WANTED: f64 = 128.0;
const SAMPLES_WANTED_BRIEFLY: f64 = 256.0;

/// Longest window for which a profile is brief, milliseconds.
const BRIEF_MS: u64 = 600_000;

/// Bounds of the mean distance of samples, bytes, the least for brief ones half of it. V8's default is 32 KB. A shorter
/// distance costs CPU in proportion to what the app allocates (measured on an Express route of 226 us, Node 22: 4 KB
/// 24 %, 8 KB 16 %, 24 KB 5 %, 64 KB 3 % of the CPU per request while it runs), a longer one leaves a slow leak without
/// samples. At the default settings it is 24 KB for the longest windows and 12 KB for brief ones, or more.
const MIN_INTERVAL: f64 = 8.0 * 1024.0;
const MAX_INTERVAL: f64 = 64.0 * 1024.0;

/// How long it is sampled before the early reading: an eighth of the window within these bounds.
const SETTLE_MS: (u64, u64) = (2_000, 60_000);

/// Shortest time between the readings: an eighth of the window within these bounds.
const SPAN_MS: (u64, u64) = (3_000, 600_000);

/// The same where the finding came first and nothing presses: a quarter of the window within these bounds.
const LATE_SPAN_MS: (u64, u64) = (6_000, 1_800_000);

/// How many mean distances of samples long the object is by which lib/profile.js knows its own profile. It lives on V8's
/// heap as long as that runs: up to a megabyte, which is not the app's.
const MARK_INTERVALS: f64 = 16.0;

/// What the JS thread is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Begin to sample, unless somebody else does.
    Begin {
        /// Mean distance of samples, bytes.
        interval_bytes: u32,
        /// Whether it is the second for its finding.
        again: bool,
    },
    /// Read, and go on.
    Read,
    /// Read, and end.
    Finish,
    /// End without a reading: the suspicion fell, or the heap has become too large to read.
    Stop {
        /// Live heap then, bytes.
        live_bytes: f64,
        /// Predicted stop of a reading then, milliseconds.
        predicted_ms: f64,
    },
    /// Nothing: a reading would stop the loop for too long.
    Refuse {
        /// Live heap it was reckoned from, bytes.
        live_bytes: f64,
        /// Predicted stop, milliseconds.
        predicted_ms: f64,
    },
}

impl Order {
    /// The word lib/profile.js knows it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Begin { .. } => "begin",
            Order::Read => "read",
            Order::Finish => "finish",
            Order::Stop { .. } => "stop",
            Order::Refuse { .. } => "refuse",
        }
    }
}

/// What is known when a profile is considered.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// A memory series of the isolate that grows, confirmed or not.
    pub suspicion: Option<&'a Evidence>,
    /// Window of a finding about this isolate's memory that opened in this step, or that such a series joined.
    pub opened: Option<u64>,
    /// Live heap, bytes.
    pub live_bytes: f64,
    /// Whether the event loop answers.
    pub responsive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Idle,
    Starting,
    Settling {
        until: Millis,
    },
    Reading,
    Sampling {
        since: Millis,
    },
    Ending,
    /// Nothing new for a suspicion until then; a finding may begin one again.
    Resting {
        until: Millis,
    },
}

/// The plan for one isolate.
#[derive(Clone, Debug)]
pub struct ProfilePlan {
    enabled: bool,
    max_pause_ms: f64,
    phase: Phase,
    /// Of the suspicion or finding it began for.
    window_ms: u64,
    began: Millis,
    /// A finding waits for it, and whether it came before the first reading.
    finding: Option<bool>,
    /// The process is near its end: what can be read is read at once.
    urgent: bool,
    /// It is the second for its finding, or is to be: the first told nothing.
    again: bool,
    /// Mean distance of samples of the one that was begun last, bytes.
    interval_bytes: u32,
}

impl ProfilePlan {
    /// A plan with nothing under way.
    pub fn new(config: &Config) -> ProfilePlan {
        ProfilePlan {
            enabled: config.profile,
            max_pause_ms: config.max_gc_pause_ms as f64,
            phase: Phase::Idle,
            window_ms: config.window_ms,
            began: Millis(0),
            finding: None,
            urgent: false,
            again: false,
            interval_bytes: 0,
        }
    }

    /// New limits. What is under way ends with the next step if profiles are off now.
    pub fn configure(&mut self, config: &Config) {
        self.enabled = config.profile;
        self.max_pause_ms = config.max_gc_pause_ms as f64;
    }

    /// The process is near its end: one that runs ends as soon as it says anything, and where none runs one begins,
    /// under the same limit of its stops.
    pub fn hurry(&mut self) {
        self.urgent = true;
    }

    /// What is to be done now.
    pub fn step(&mut self, now: Millis, situation: &Situation<'_>) -> Option<Order> {
        let predicted_ms = predicted_pause_ms(situation.live_bytes);
        let fits = predicted_ms <= self.max_pause_ms;
        let opened = situation.opened.or(self.urgent.then_some(self.window_ms));
        if opened.is_some() && self.finding.is_none() {
            self.finding = Some(!matches!(self.phase, Phase::Sampling { .. }));
        }
        let given_up = !self.enabled
            || self.finding.is_none() && situation.suspicion.is_none()
            || now.0 > self.began.0 + 2 * self.window_ms.max(LATE_SPAN_MS.0);
        match self.phase {
            Phase::Idle | Phase::Resting { .. } => {
                let resting = matches!(self.phase, Phase::Resting { until } if now < until);
                let window_ms = self
                    .again
                    .then_some(self.window_ms)
                    .or(opened)
                    .or(situation.suspicion.filter(|_| !resting).map(|growth| growth.window_ms))?;
                if self.again && self.enabled && !situation.responsive {
                    // A finding waits for it.
                    return None;
                }
                if !self.enabled || !situation.responsive {
                    self.finding = None;
                    self.again = false;
                    return None;
                }
                self.window_ms = window_ms;
                if !fits {
                    self.rest(now);
                    return Some(Order::Refuse { live_bytes: situation.live_bytes, predicted_ms });
                }
                self.began = now;
                self.phase = Phase::Starting;
                let interval_bytes = interval(situation.suspicion);
                self.interval_bytes = if self.again { interval_bytes / 2 } else { interval_bytes };
                Some(Order::Begin { interval_bytes: self.interval_bytes, again: self.again })
            }
            Phase::Starting | Phase::Reading | Phase::Ending => None,
            Phase::Settling { .. } | Phase::Sampling { .. } if given_up || !fits => {
                self.phase = Phase::Ending;
                Some(Order::Stop { live_bytes: situation.live_bytes, predicted_ms })
            }
            Phase::Settling { until } if now >= until || self.urgent => {
                self.phase = Phase::Reading;
                Some(Order::Read)
            }
            Phase::Settling { .. } => None,
            Phase::Sampling { since } => {
                let wanted = match self.finding? {
                    _ if self.urgent => SPAN_MS.0,
                    _ if self.again => self.window_ms.clamp(LATE_SPAN_MS.0, LATE_SPAN_MS.1),
                    true => (self.window_ms / 4).clamp(LATE_SPAN_MS.0, LATE_SPAN_MS.1),
                    false => (self.window_ms / 8).clamp(SPAN_MS.0, SPAN_MS.1),
                };
                (now.0 >= since.0 + wanted).then(|| {
                    self.phase = Phase::Ending;
                    Order::Finish
                })
            }
        }
    }

    /// Sampling has begun.
    pub fn began(&mut self, now: Millis) {
        if self.phase == Phase::Starting {
            let settle = (self.window_ms / 8).clamp(SETTLE_MS.0, SETTLE_MS.1);
            self.began = now;
            self.phase = Phase::Settling { until: Millis(now.0 + settle) };
        }
    }

    /// The first reading was made.
    pub fn read(&mut self, now: Millis) {
        if self.phase == Phase::Reading {
            self.phase = Phase::Sampling { since: now };
        }
    }

    /// It has ended, or could not be made.
    pub fn ended(&mut self, now: Millis) {
        self.rest(now);
    }

    /// The profile that has just ended told its finding nothing: another one follows, if it was not the second.
    pub fn once_more(&mut self) {
        if matches!(self.phase, Phase::Resting { .. }) {
            self.finding = Some(true);
            self.again = true;
        }
    }

    /// Whether V8 samples, or was asked to.
    pub fn running(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Resting { .. })
    }

    /// Bytes of V8's heap that a profile holds while it runs.
    pub fn held_bytes(&self) -> f64 {
        match self.phase {
            Phase::Idle | Phase::Starting | Phase::Resting { .. } => 0.0,
            _ => MARK_INTERVALS * f64::from(self.interval_bytes),
        }
    }

    /// Two windows without another one: it would mostly see the same.
    fn rest(&mut self, now: Millis) {
        self.finding = None;
        self.urgent = false;
        self.again = false;
        self.phase = Phase::Resting { until: Millis(now.0 + 2 * self.window_ms) };
    }
}

/// Mean distance of samples: so short that the growth until the finding, half a window on, is worth the samples wanted.
/// Of growth outside V8's heap only small owners are seen: the shortest distance.
fn interval(suspicion: Option<&Evidence>) -> u32 {
    let inside = suspicion.filter(|growth| growth.series == SeriesId::LiveHeap);
    let expected = inside.map_or(0.0, |growth| {
        growth.slope_per_hour * growth.window_ms as f64 / crate::config::HOUR_MS / 2.0
    });
    let brief = suspicion.is_some_and(|growth| growth.window_ms <= BRIEF_MS);
    let (wanted, least) = if brief {
        (SAMPLES_WANTED_BRIEFLY, MIN_INTERVAL / 2.0)
    } else {
        (SAMPLES_WANTED, MIN_INTERVAL)
    };
    (expected / wanted).clamp(least, MAX_INTERVAL) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1_048_576.0;

    fn growth(series: SeriesId, mb_per_hour: f64, window_ms: u64) -> Evidence {
        Evidence {
            series,
            window_ms,
            slope_per_hour: mb_per_hour * MB,
            slope_between: (mb_per_hour * MB, mb_per_hour * MB),
            later_slope_per_hour: mb_per_hour * MB,
            threshold_per_hour: MB,
            amount: 6.0 * MB,
            p_value: 0.001,
            readings: 12,
            first: 20.0 * MB,
            last: 22.0 * MB,
            load_factor: 1.0,
            own: 0.0,
            agreed: 1,
            at: Millis(0),
        }
    }

    #[test]
    fn near_the_end_what_runs_is_read_at_once_and_what_does_not_begins() {
        // A second that has been sampled before: read, and the last reading some seconds later.
        let mut plan = ProfilePlan::new(&Config::default());
        assert_eq!(run(&mut plan, 0..2, |_| true, None, 20.0), [(0, "begin")]);
        plan.hurry();
        let seen = run(&mut plan, 2..12, |_| true, None, 20.0);
        assert_eq!(seen, [(2, "read"), (5, "finish")]);
        // None runs, and nothing is suspected.
        let mut plan = ProfilePlan::new(&Config::default());
        assert_eq!(run(&mut plan, 0..2, |_| false, None, 20.0), []);
        plan.hurry();
        let seen = run(&mut plan, 2..12, |_| false, None, 20.0);
        assert_eq!(seen, [(2, "begin"), (3, "read"), (6, "finish")]);
        // A reading would stop the loop for too long.
        plan.hurry();
        assert_eq!(run(&mut plan, 12..20, |_| false, None, 200.0), [(12, "refuse")]);
    }

    /// Steps once a second; a JS thread answers each order within the second. `opened` is the second of a finding.
    fn run(
        plan: &mut ProfilePlan,
        seconds: std::ops::Range<u64>,
        suspicious: impl Fn(u64) -> bool,
        opened: Option<u64>,
        live_mb: f64,
    ) -> Vec<(u64, &'static str)> {
        let evidence = growth(SeriesId::LiveHeap, 240.0, 32_000);
        let mut seen = Vec::new();
        for second in seconds {
            let now = Millis(second * 1000);
            let situation = Situation {
                suspicion: suspicious(second).then_some(&evidence),
                opened: (opened == Some(second)).then_some(32_000),
                live_bytes: live_mb * MB,
                responsive: true,
            };
            let Some(order) = plan.step(now, &situation) else { continue };
            seen.push((second, order.as_str()));
            match order {
                Order::Begin { .. } => plan.began(now),
                Order::Read => plan.read(now),
                Order::Finish | Order::Stop { .. } => plan.ended(now),
                Order::Refuse { .. } => {}
            }
        }
        seen
    }

    #[test]
    fn a_suspicion_begins_it_and_the_finding_ends_it() {
        let mut plan = ProfilePlan::new(&Config::default());
        assert_eq!(
            run(&mut plan, 0..90, |s| s >= 42, Some(58), 20.0),
            [(42, "begin"), (46, "read"), (58, "finish")]
        );
        assert!(!plan.running());
    }

    #[test]
    fn what_a_profile_holds_while_it_runs_is_known_to_the_byte() {
        assert!(
            include_str!("../../lib/profile.js")
                .contains(&format!("\nconst MARK_INTERVALS = {MARK_INTERVALS};\n"))
        );
        let mut plan = ProfilePlan::new(&Config::default());
        run(&mut plan, 0..41, |_| true, None, 20.0);
        assert!(plan.running() && plan.held_bytes() >= 16.0 * MIN_INTERVAL / 2.0, "{plan:?}");
        run(&mut plan, 41..90, |_| true, Some(45), 20.0);
        assert!(!plan.running() && plan.held_bytes() == 0.0, "{plan:?}");
    }

    #[test]
    fn a_finding_that_comes_first_waits_for_a_quarter_of_its_window() {
        let mut plan = ProfilePlan::new(&Config::default());
        assert_eq!(
            run(&mut plan, 0..50, |_| false, Some(5), 20.0),
            [(5, "begin"), (9, "read"), (17, "finish")]
        );
    }

    #[test]
    fn a_profile_that_told_nothing_is_followed_by_one_that_lasts_a_window() {
        let mut plan = ProfilePlan::new(&Config::default());
        run(&mut plan, 0..59, |s| s >= 42, Some(58), 20.0);
        plan.once_more();
        let again = run(&mut plan, 60..160, |_| false, None, 20.0);
        assert_eq!(again, [(60, "begin"), (64, "read"), (96, "finish")]);
        // It is over then: nothing follows by itself.
        assert!(!plan.running());
        assert_eq!(run(&mut plan, 160..300, |_| false, None, 20.0), []);
    }

    #[test]
    fn a_suspicion_that_falls_ends_it_without_a_reading() {
        let mut plan = ProfilePlan::new(&Config::default());
        assert_eq!(
            run(&mut plan, 0..60, |s| (10..25).contains(&s), None, 20.0),
            [(10, "begin"), (14, "read"), (25, "stop")]
        );
    }

    #[test]
    fn a_suspicion_that_never_becomes_a_finding_is_sampled_for_two_windows_and_then_rests_as_long()
    {
        let mut plan = ProfilePlan::new(&Config::default());
        let seen = run(&mut plan, 0..200, |_| true, None, 20.0);
        assert_eq!(&seen[..3], [(0, "begin"), (4, "read"), (65, "stop")]);
        assert_eq!(seen[3], (129, "begin"));
        // A finding does not wait for the rest to be over.
        let mut plan = ProfilePlan::new(&Config::default());
        assert_eq!(run(&mut plan, 0..120, |_| true, Some(80), 20.0)[3], (80, "begin"));
    }

    #[test]
    fn a_stop_that_would_be_too_long_is_refused_with_its_prediction_and_again_at_the_finding() {
        let mut plan = ProfilePlan::new(&Config::default());
        let evidence = growth(SeriesId::LiveHeap, 240.0, 32_000);
        let situation = Situation {
            suspicion: Some(&evidence),
            opened: None,
            live_bytes: 150.0 * MB,
            responsive: true,
        };
        assert_eq!(
            plan.step(Millis(0), &situation),
            Some(Order::Refuse { live_bytes: 150.0 * MB, predicted_ms: 217.5 })
        );
        assert_eq!(plan.step(Millis(1000), &situation), None);
        let opened = Situation { opened: Some(32_000), ..situation };
        assert!(matches!(plan.step(Millis(2000), &opened), Some(Order::Refuse { .. })));
    }

    #[test]
    fn a_heap_that_has_become_too_large_to_read_ends_it() {
        let mut plan = ProfilePlan::new(&Config::default());
        run(&mut plan, 0..10, |_| true, None, 20.0);
        assert_eq!(
            run(&mut plan, 10..20, |_| true, Some(15), 100.0),
            [(10, "stop"), (15, "refuse")]
        );
    }

    #[test]
    fn off_is_off_also_while_it_runs() {
        let off = Config { profile: false, ..Config::default() };
        assert_eq!(run(&mut ProfilePlan::new(&off), 0..99, |_| true, Some(50), 20.0), []);
        let mut plan = ProfilePlan::new(&Config::default());
        run(&mut plan, 0..10, |_| true, None, 20.0);
        plan.configure(&off);
        assert_eq!(run(&mut plan, 10..99, |_| true, Some(50), 20.0), [(10, "stop")]);
    }

    #[test]
    fn slow_leaks_are_sampled_at_short_distances_and_fast_ones_at_long() {
        for (series, mb_per_hour, window_ms, expected) in [
            (SeriesId::LiveHeap, 400.0, 32_000, 7_281),
            (SeriesId::LiveHeap, 1.0, 600_000, 4_096),
            (SeriesId::LiveHeap, 1.0, 6 * 3_600_000, 24_576),
            (SeriesId::LiveHeap, 90_000.0, 32_000, 65_536),
            (SeriesId::ArrayBuffers, 9_000.0, 32_000, 4_096),
        ] {
            assert_eq!(interval(Some(&growth(series, mb_per_hour, window_ms))), expected);
        }
        assert_eq!(interval(None), 8_192);
    }
}
