//! The growth test: does a series rise steadily, fast enough, and does it still rise? Theil-Sen slope over
//! a window, Mann-Kendall significance, plateau veto, and agreement of evaluations that each bring new
//! readings; on a ladder of windows at once, so that a fast leak does not wait for the long one.

use super::{Rule, Statistic};
use crate::config::HOUR_MS;
use crate::metric::SeriesId;
use crate::sample::Millis;
use crate::series::{Series, Shift};
use crate::stats::{self, Step};

/// Windows judged beside the configured one, milliseconds. Each is half as long again as the one before, so
/// that a leak waits at most that much longer than the best window for its slope would make it: with two
/// evaluations a leak that reaches the amount in t is found after 1.5 t to 2.3 t.
const LADDER_MS: [u64; 22] = [
    30_000, 45_000, 60_000, 90_000, 120_000, 180_000, 270_000, 420_000, 600_000, 900_000,
    1_320_000, 2_100_000, 3_000_000, 4_500_000, 6_600_000, 10_800_000, 17_100_000, 21_600_000,
    32_400_000, 43_200_000, 64_800_000, 86_400_000,
];

/// Readings a window must hold to be judged. Nine are hardly better than five (28 of 32 leaks found); six
/// keep the significance test able to reach 0.05 with one reading out of line.
pub const MIN_READINGS: u64 = 6;

/// Cells a window is reduced to. Bounds the quadratic slope estimate at 276 pairs.
const CELLS: usize = 24;

/// A window that holds too few readings is looked at again after this part of it. Below a cell's length, so that
/// it delays no finding by as much.
const AGAIN: u64 = 32;

/// Probability of a trend by chance above which a rise is not believed.
const SIGNIFICANCE: f64 = 0.05;

/// Standard deviations to each side of what a slope is said to lie between: nine in ten of a normal distribution.
const NINE_IN_TEN: f64 = 1.645;

/// A slope that is known this well is told as it is; a worse one is asked of a longer stretch.
pub const WELL_KNOWN: f64 = 0.1;

/// Of so few readings it is not known how much each is like the one before. They are also too few to wait for more: where no more
/// were made for a suspicion they are dear.
const FEW_READINGS: usize = 16;

/// A slope that may be wrong by more than this part of itself wants one evaluation more: half a window of readings
/// more tell a rate that a person can rely on. Raising it tells noisy leaks sooner and less exactly.
const TOO_ROUGH: f64 = 0.3;

/// Standard deviations by which a longer stretch's slope may differ from that of the window, or its halves' from each
/// other, before it is taken for one that was not straight. With less, the very windows whose slope is far off
/// would keep it.
const STRAIGHT: f64 = 3.0;

/// Each stretch that is tried is so many times as long as the one before, up to so many windows: with independent noise a slope
/// is known twenty times as well then.
const LONGER: f64 = 1.25;
const LONGEST: u64 = 8;

/// Part of the window that readings must span.
const COVERAGE: f64 = 0.75;

/// Load below this counts as this: from nothing to little is no rise of any factor.
const LEAST_LOAD: f64 = 0.01;

/// Plateau veto: the later half must still rise at this part of the threshold ...
const PLATEAU_OF_THRESHOLD: f64 = 0.5;
/// ... and at this part of the whole slope.
const PLATEAU_OF_SLOPE: f64 = 0.4;

/// The windows to judge for a rule: the ladder's, and the rule's own.
pub fn ladder(rule: &Rule) -> Vec<u64> {
    let own = rule.window_ms;
    let mut rungs: Vec<u64> = LADDER_MS
        .into_iter()
        // A rung almost as long as the window would only ask the same question twice.
        .filter(|&rung| rung * 5 <= own * 4 || rung * 4 >= own * 5)
        .chain([own])
        .filter(|&rung| rung >= rule.shortest_ms)
        .collect();
    rungs.sort_unstable();
    rungs
}

/// The numbers behind a verdict. Rates are per hour, values in the unit of the series.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// What grows.
    pub series: SeriesId,
    /// The window it was judged over, milliseconds.
    pub window_ms: u64,
    /// Theil-Sen slope.
    pub slope_per_hour: f64,
    /// The slopes between which the true one lies with nine in ten.
    pub slope_between: (f64, f64),
    /// The same over the later half.
    pub later_slope_per_hour: f64,
    /// Slope that had to be reached.
    pub threshold_per_hour: f64,
    /// Growth that had to be reached over this window.
    pub amount: f64,
    /// Mann-Kendall probability of such a rise by chance, made allowance for noise that comes in waves.
    pub p_value: f64,
    /// Readings in the window.
    pub readings: u64,
    /// The fitted line's value at the window's start.
    pub first: f64,
    /// The fitted line's value at its end.
    pub last: f64,
    /// By which factor the load rose over the window, where it rose significantly; else 1.
    pub load_factor: f64,
    /// What the guard itself added within the window. It is in none of these numbers.
    pub own: f64,
    /// Evaluations that agreed so far, this one included.
    pub agreed: u32,
    /// When the window ends.
    pub at: Millis,
}

impl Evidence {
    /// By which part of itself the slope may be wrong: half of what it lies between. Infinite where it is not above zero.
    pub fn uncertainty(&self) -> f64 {
        let (low, high) = self.slope_between;
        if self.slope_per_hour <= 0.0 {
            return f64::INFINITY;
        }
        (high - low).max(0.0) / 2.0 / self.slope_per_hour
    }
}

/// A condition of the growth test, by what is so when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Slower than the threshold.
    Slow,
    /// Not told from noise.
    Noise,
    /// The later half rises no more.
    LevellingOff,
    /// Rising, but not doubled over the window.
    NotDoubled,
    /// Rising no more than traffic that rises explains.
    WithTraffic,
}

/// What one evaluation of a window says.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Too few readings, or they span too little of the window.
    TooFew {
        /// Readings there are.
        readings: u64,
    },
    /// Not a leak: the first condition that failed.
    Quiet(Condition, Evidence),
    /// Every condition holds.
    Growing(Evidence),
}

/// Judges the window that ends at `now`. Pure and stateless: agreement is the detector's business. `load` is
/// a series of how busy the app was, such as event-loop utilization.
pub fn judge(
    rule: &Rule,
    series: &Series,
    load: Option<&Series>,
    window_ms: u64,
    now: Millis,
) -> Judgement {
    match Window::of(rule, series, window_ms, now, Shift::at_most) {
        Ok(window) => window.judge(rule, load),
        Err(readings) => Judgement::TooFew { readings },
    }
}

/// A window reduced to what is judged of it. On the stack: nothing of a judgement is allocated.
struct Window {
    from: Millis,
    now: Millis,
    width_ms: u64,
    readings: u64,
    points: usize,
    /// Hours since the window's start, and values.
    line: [(f64, f64); CELLS],
    values: [f64; CELLS],
    /// What the guard itself added, and the values are without.
    own: f64,
}

impl Window {
    /// The window, or how many readings there are if they are too few or span too little of it. `own` says how much of a
    /// step at a shift is the guard's.
    fn of(
        rule: &Rule,
        series: &Series,
        width_ms: u64,
        now: Millis,
        own: fn(&Shift, Step) -> f64,
    ) -> Result<Window, u64> {
        let from = Millis(now.0.saturating_sub(width_ms));
        let mut window = Window {
            from,
            now,
            width_ms,
            readings: 0,
            points: 0,
            line: [(0.0, 0.0); CELLS],
            values: [0.0; CELLS],
            own: 0.0,
        };
        let mut begins = None;
        let mut ends = from;
        series.each_point(from, now, CELLS, |point| {
            let value = match rule.statistic {
                Statistic::Mean => point.mean,
                Statistic::Min => point.min,
            };
            let i = window.points;
            if let (Some(place), Some(y)) = (window.line.get_mut(i), window.values.get_mut(i)) {
                *place = (hours(from, point.at), value);
                *y = value;
                window.points += 1;
                window.readings += point.count;
                begins.get_or_insert(point.at);
                ends = point.at;
            }
        });
        let span = ends.0.saturating_sub(begins.unwrap_or(ends).0);
        if (window.points as u64) < MIN_READINGS || (span as f64) < COVERAGE * width_ms as f64 {
            return Err(window.readings);
        }
        if let Some(shift) = series.shift().filter(|shift| shift.at > from) {
            window.without(shift, own);
        }
        Ok(window)
    }

    /// Whether both halves rise alike, as far as can be told.
    fn is_straight(&self) -> bool {
        let (earlier, later) = self.line().split_at(self.points / 2);
        match (slope_and_error(earlier), slope_and_error(later)) {
            (Some((earlier, one)), Some((later, other))) => {
                (earlier - later).abs() <= STRAIGHT * one.hypot(other)
            }
            _ => false,
        }
    }

    /// Takes out what the guard itself added at a moment within the window: an allocation profile that a suspicion
    /// began must not confirm it.
    fn without(&mut self, shift: Shift, own: fn(&Shift, Step) -> f64) {
        let moment = hours(self.from, shift.at);
        let at = self.line().partition_point(|(x, _)| *x < moment);
        let Some(step) = stats::level_change(self.line(), at) else { return };
        self.own = own(&shift, step);
        for (place, value) in self.line[at..self.points].iter_mut().zip(&mut self.values[at..]) {
            place.1 -= self.own;
            *value -= self.own;
        }
    }

    fn line(&self) -> &[(f64, f64)] {
        &self.line[..self.points]
    }

    fn width_hours(&self) -> f64 {
        self.width_ms as f64 / HOUR_MS
    }

    /// Slope per hour below which nothing else is asked.
    fn least_slope(&self, rule: &Rule) -> f64 {
        rule.threshold(self.width_ms).max(rule.least / self.width_hours())
    }

    /// Whether [`Window::judge`] would say [`Condition::Slow`]; a tenth of its work, and no numbers.
    fn is_slow(&self, rule: &Rule) -> bool {
        stats::is_slower(self.line(), self.least_slope(rule))
    }

    fn judge(&self, rule: &Rule, load: Option<&Series>) -> Judgement {
        let (line, values) = (self.line(), &self.values[..self.points]);
        let (Some(whole), Some(later)) =
            (stats::theil_sen(line), stats::theil_sen(&line[line.len() / 2..]))
        else {
            return Judgement::TooFew { readings: self.readings };
        };
        let width = self.width_hours();
        let threshold = rule.threshold(self.width_ms);
        let inflated = inflation(line, whole);
        let between = stats::slope_interval(line, NINE_IN_TEN * inflated.sqrt())
            .unwrap_or((whole.slope, whole.slope));
        let evidence = Evidence {
            series: rule.series,
            window_ms: self.width_ms,
            slope_per_hour: whole.slope,
            slope_between: between,
            later_slope_per_hour: later.slope,
            threshold_per_hour: threshold,
            amount: threshold * width,
            p_value: stats::mann_kendall_rising(values, inflated),
            readings: self.readings,
            first: whole.at(0.0),
            last: whole.at(width),
            load_factor: load.map_or(1.0, |load| load_factor(load, self.from, self.now)),
            own: self.own,
            agreed: 0,
            at: self.now,
        };
        // In the order in which they are cheap to explain.
        let quiet = if evidence.slope_per_hour < self.least_slope(rule) {
            Some(Condition::Slow)
        } else if evidence.p_value >= SIGNIFICANCE {
            Some(Condition::Noise)
        } else if later.slope
            < (PLATEAU_OF_THRESHOLD * threshold).max(PLATEAU_OF_SLOPE * whole.slope)
        {
            Some(Condition::LevellingOff)
        } else if evidence.slope_per_hour * width
            < rule.traffic * (evidence.load_factor - 1.0) * evidence.first.max(0.0)
        {
            Some(Condition::WithTraffic)
        } else if rule.doubling && !doubled(values) {
            Some(Condition::NotDoubled)
        } else {
            None
        };
        match quiet {
            Some(why) => Judgement::Quiet(why, evidence),
            None => Judgement::Growing(evidence),
        }
    }
}

/// By how much noise that comes in waves makes a trend less certain, where there are enough points to see it.
fn inflation(line: &[(f64, f64)], fitted: stats::Line) -> f64 {
    if line.len() <= FEW_READINGS { 1.0 } else { stats::inflation(line, fitted) }
}

/// The slope and its standard error.
fn slope_and_error(line: &[(f64, f64)]) -> Option<(f64, f64)> {
    let fitted = stats::theil_sen(line)?;
    let inflated = inflation(line, fitted).sqrt();
    let (low, high) = stats::slope_interval(line, NINE_IN_TEN * inflated)?;
    Some((fitted.slope, (high - low) / 2.0 / NINE_IN_TEN))
}

/// The slope of growth that was confirmed, over the shortest stretch until `now` that knows it well: the window on which it was seen
/// is as short as the amount allows, and readings may be noisier than that is good for. Where none knows it well, over the
/// one that knows it best. A stretch counts if the growth holds on it by every condition, rises alike in both halves and
/// no other than the window does, and begins at `since` or later. What the guard itself added is the likeliest amount here,
/// and the largest in the verdict. Returns nothing of the verdict but its slope anew: what is told is judged over its own window.
pub fn tell(
    rule: &Rule,
    series: &Series,
    load: Option<&Series>,
    since: Millis,
    now: Millis,
    seen: &Evidence,
) -> Evidence {
    let over = |width: u64| -> Option<(Window, Evidence)> {
        let window = Window::of(rule, series, width, now, Shift::amount).ok()?;
        match window.judge(rule, load) {
            Judgement::Growing(told) => Some((window, Evidence { agreed: seen.agreed, ..told })),
            _ => None,
        }
    };
    let mut best = over(seen.window_ms).map_or_else(|| seen.clone(), |(_, told)| told);
    let (slope, error) =
        (best.slope_per_hour, best.uncertainty() * best.slope_per_hour / NINE_IN_TEN);
    let whole = now.0.saturating_sub(since.0).min(LONGEST * seen.window_ms);
    let mut width = seen.window_ms;
    while best.uncertainty() > WELL_KNOWN && width < whole {
        width = ((width as f64 * LONGER) as u64).min(whole);
        let Some((window, longer)) = over(width) else { continue };
        if (longer.slope_per_hour - slope).abs() > STRAIGHT * error || !window.is_straight() {
            break;
        }
        if longer.uncertainty() < best.uncertainty() {
            best = longer;
        }
    }
    best
}

/// Whether growth that has not doubled within its window has since `since`, in one straight rise that began no more than
/// [`LONGEST`] windows ago. What leaks from the first minute on is the larger the later a window begins, and doubles in
/// none that is as short as it might be. Not asked of growth that began later: what a day's traffic opens takes hours.
fn doubled_since(
    rule: &Rule,
    series: &Series,
    load: Option<&Series>,
    since: Millis,
    now: Millis,
    window_ms: u64,
) -> bool {
    let whole = now.0.saturating_sub(since.0);
    (window_ms + 1..=LONGEST * window_ms).contains(&whole)
        && Window::of(rule, series, whole, now, Shift::at_most).is_ok_and(|window| {
            let is_growth = |judgement| match judgement {
                // By its line too: a step that was early in it is no rise.
                Judgement::Growing(seen) => seen.last >= 2.0 * seen.first.max(1.0),
                _ => false,
            };
            window.is_straight() && is_growth(window.judge(rule, load))
        })
}

/// By which factor the load rose from the window's start to its end, along its own line; 1 if it did not
/// rise significantly, or is not known well enough.
fn load_factor(load: &Series, from: Millis, now: Millis) -> f64 {
    let (mut line, mut values, mut filled) = ([(0.0, 0.0); CELLS], [0.0; CELLS], 0);
    load.each_point(from, now, CELLS, |point| {
        if let (Some(place), Some(value)) = (line.get_mut(filled), values.get_mut(filled)) {
            *place = (hours(from, point.at), point.mean);
            *value = point.mean;
            filled += 1;
        }
    });
    let (line, values) = (&line[..filled], &values[..filled]);
    if (filled as u64) < MIN_READINGS || stats::mann_kendall_rising(values, 1.0) >= SIGNIFICANCE {
        return 1.0;
    }
    let Some(line) = stats::theil_sen(line) else { return 1.0 };
    let first = line.at(0.0).max(LEAST_LOAD);
    (line.at(hours(from, now)) / first).max(1.0)
}

/// Whether the last fifth of the values is at least twice the first fifth (medians, so that one reading
/// taken in a burst does not decide).
fn doubled(values: &[f64]) -> bool {
    let fifth = (values.len() / 5).max(1);
    let first = stats::median(&mut values[..fifth].to_vec());
    let last = stats::median(&mut values[values.len() - fifth..].to_vec());
    matches!((first, last), (Some(first), Some(last)) if last >= 2.0 * first.max(1.0))
}

fn hours(from: Millis, at: Millis) -> f64 {
    at.0.saturating_sub(from.0) as f64 / HOUR_MS
}

/// No time, no rung was ever looked at.
const NEVER: Millis = Millis(u64::MAX);

/// One rung's memory between evaluations. 40 bytes: an isolate has fifteen hundred.
#[derive(Clone, Debug)]
struct Rung {
    window_ms: u64,
    /// When it was last evaluated with enough readings, or [`NEVER`].
    evaluated: Millis,
    /// When it was last looked at, with enough readings or without, or [`NEVER`].
    looked: Millis,
    /// The lower half of how many values the series had when it was last evaluated.
    count: u32,
    agreed: u16,
    /// Whether the last evaluation saw growth.
    growing: bool,
    /// Whether it saw a slope that would be growth if it were told from noise, or rose on.
    doubted: bool,
    /// Its evidence if the series rises, be it by less than double: too little to accuse, enough to explain.
    /// Boxed: hundreds of rungs hold none.
    rising: Option<Box<Evidence>>,
}

impl Rung {
    /// Whether it is to be judged: its whole window lies after `since`, and there is half a window of new readings.
    fn is_due(&self, now: Millis, since: Millis, count: u64) -> bool {
        let passed = |at: Millis, ms: u64| at == NEVER || now.0 >= at.0.saturating_add(ms);
        let fresh = u64::from((count as u32).wrapping_sub(self.count));
        now.0 >= since.0.saturating_add(self.window_ms)
            && passed(self.evaluated, self.window_ms / 2)
            && (self.evaluated == NEVER || fresh >= MIN_READINGS / 2)
            && passed(self.looked, self.window_ms / AGAIN)
    }
}

/// Judges one series on every rung of its ladder.
#[derive(Clone, Debug)]
pub struct GrowthDetector {
    rule: Rule,
    rungs: Box<[Rung]>,
}

impl GrowthDetector {
    /// A detector with no history.
    pub fn new(rule: Rule) -> GrowthDetector {
        let rungs = ladder(&rule)
            .into_iter()
            .map(|window_ms| Rung {
                window_ms,
                evaluated: NEVER,
                looked: NEVER,
                count: 0,
                agreed: 0,
                growing: false,
                doubted: false,
                rising: None,
            })
            .collect();
        GrowthDetector { rule, rungs }
    }

    /// The rule it judges by.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Bytes it occupies beside itself while nothing rises.
    pub fn held_bytes(&self) -> usize {
        size_of_val(&*self.rungs)
    }

    /// Evaluates the rungs that are due: whole window after `since` (the end of the warm-up, or of what
    /// must not be judged), and half a window of new readings since the last evaluation. Returns the
    /// evidence of the shortest rung on which enough evaluations agree. Takes each rung it judges from `budget`; what is
    /// due when there is none left stays due.
    pub fn step(
        &mut self,
        now: Millis,
        since: Millis,
        series: &Series,
        load: Option<&Series>,
        budget: &mut u32,
    ) -> Option<Evidence> {
        let mut confirmed: Option<Evidence> = None;
        for rung in &mut self.rungs {
            if !rung.is_due(now, since, series.count()) {
                continue;
            }
            if *budget == 0 {
                break;
            }
            *budget -= 1;
            rung.looked = now;
            let own = Shift::at_most;
            let Ok(window) = Window::of(&self.rule, series, rung.window_ms, now, own) else {
                continue;
            };
            // Most of what is judged does not rise, and nobody asks for its numbers here.
            let judgement = (!window.is_slow(&self.rule)).then(|| window.judge(&self.rule, load));
            let judgement = match judgement {
                Some(Judgement::Quiet(Condition::NotDoubled, evidence))
                    if doubled_since(&self.rule, series, load, since, now, rung.window_ms) =>
                {
                    Some(Judgement::Growing(evidence))
                }
                other => other,
            };
            match judgement {
                Some(Judgement::TooFew { .. }) => continue,
                Some(Judgement::Growing(mut evidence)) => {
                    rung.agreed = rung.agreed.saturating_add(1);
                    evidence.agreed = u32::from(rung.agreed);
                    let many = evidence.readings > FEW_READINGS as u64;
                    let rough = u32::from(many && evidence.uncertainty() > TOO_ROUGH);
                    if evidence.agreed >= self.rule.confirm + rough && confirmed.is_none() {
                        confirmed = Some(evidence.clone());
                    }
                    rung.growing = true;
                    rung.doubted = false;
                    rung.rising = Some(Box::new(evidence));
                }
                quiet => {
                    rung.agreed = 0;
                    rung.growing = false;
                    rung.doubted = matches!(
                        quiet,
                        Some(Judgement::Quiet(Condition::Noise | Condition::LevellingOff, _))
                    );
                    rung.rising = match quiet {
                        Some(Judgement::Quiet(Condition::NotDoubled, evidence)) => {
                            Some(Box::new(evidence))
                        }
                        _ => None,
                    };
                }
            }
            rung.evaluated = now;
            rung.count = series.count() as u32;
        }
        confirmed
    }

    /// Evidence of the longest rung whose last evaluation saw growth, confirmed or not.
    pub fn suspicion(&self) -> Option<&Evidence> {
        self.rungs.iter().rev().filter(|rung| rung.growing).find_map(|rung| rung.rising.as_deref())
    }

    /// The shortest window on which growth as fast as was seen would be fast enough, milliseconds; `None` if none was seen.
    pub fn suspected_window_ms(&self) -> Option<u64> {
        let growing = self.rungs.iter().filter(|rung| rung.growing);
        let slopes = growing.filter_map(|rung| Some(rung.rising.as_deref()?.slope_per_hour));
        let slope = slopes.max_by(f64::total_cmp)?;
        let windows = self.rungs.iter().map(|rung| rung.window_ms);
        windows.into_iter().find(|&window| self.rule.threshold(window) <= slope)
    }

    /// The shortest window on which the last evaluation saw a slope that is fast enough and could not tell it from noise, or
    /// from one that levels off, milliseconds.
    pub fn doubted_window_ms(&self) -> Option<u64> {
        self.rungs.iter().find(|rung| rung.doubted).map(|rung| rung.window_ms)
    }

    /// Evidence of the longest rung that rises, doubled or not: what may explain growth of another series.
    pub fn rising(&self) -> Option<&Evidence> {
        self.rungs.iter().rev().find_map(|rung| rung.rising.as_deref())
    }

    /// How the series moves, leak or not: over its own window, or the longest rung below that which lies after
    /// `since` and holds enough readings. Takes each rung it looks at from `budget`, and ends when there is none left.
    pub fn trend(
        &self,
        now: Millis,
        since: Millis,
        series: &Series,
        budget: &mut u32,
    ) -> Option<Evidence> {
        let (begun, _) = series.first()?;
        let age = now.0.saturating_sub(begun.0) as f64;
        self.rungs
            .iter()
            .rev()
            .map(|rung| rung.window_ms)
            .filter(|&rung| rung <= self.rule.window_ms && now.0 >= since.0 + rung)
            .filter(|&rung| COVERAGE * rung as f64 <= age)
            .take_while(|_| {
                let any = *budget > 0;
                *budget = budget.saturating_sub(1);
                any
            })
            .find_map(|rung| match judge(&self.rule, series, None, rung, now) {
                Judgement::TooFew { .. } => None,
                Judgement::Quiet(_, evidence) | Judgement::Growing(evidence) => Some(evidence),
            })
    }

    /// The shortest window it judges, milliseconds.
    pub fn shortest_ms(&self) -> u64 {
        self.rungs.first().map_or(self.rule.window_ms, |rung| rung.window_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::detect::rule;

    const MB: f64 = 1_048_576.0;

    /// Feeds one reading every `every_s` and returns the seconds of the first confirmed evidence.
    fn first_alarm(
        config: &Config,
        id: SeriesId,
        every_s: u64,
        for_s: u64,
        value: impl Fn(f64) -> f64,
    ) -> Option<u64> {
        let mut detector = GrowthDetector::new(rule(id, config).unwrap());
        let mut series = Series::long();
        for second in (0..for_s).step_by(every_s as usize) {
            let now = Millis(second * 1000);
            series.push(now, value(second as f64));
            if detector.step(now, Millis(config.warmup_ms), &series, None, &mut 99).is_some() {
                return Some(second);
            }
        }
        None
    }

    /// Noise in -1..1 that is the same on every run.
    fn noise(x: f64) -> f64 {
        ((x * 12.9898).sin() * 43_758.547).fract()
    }

    #[test]
    fn a_trend_is_told_of_flat_series_too_over_the_longest_window_there_is() {
        let config = Config::default();
        let detector = GrowthDetector::new(rule(SeriesId::LiveHeap, &config).unwrap());
        let mut series = Series::long();
        let trend = |series: &Series, minutes: u64| {
            detector.trend(Millis(minutes * 60_000), Millis(0), series, &mut 99)
        };
        for minute in 0..=12 * 60 {
            series.push(Millis(minute * 60_000), 50.0 * MB + minute as f64 / 60.0 * MB);
            if minute == 5 {
                assert!(trend(&series, minute).is_none());
            }
            if minute == 60 {
                let early = trend(&series, minute).unwrap();
                assert!(early.window_ms <= 3_600_000 && early.window_ms >= 1_800_000);
                assert!((early.slope_per_hour - MB).abs() < MB / 10.0);
            }
        }
        let late = trend(&series, 12 * 60).unwrap();
        assert_eq!(late.window_ms, config.window_ms);
        assert!(late.p_value < 0.001);
        let since = Millis(11 * 3_600_000);
        let fresh = detector.trend(Millis(12 * 3_600_000), since, &series, &mut 99).unwrap();
        assert!(fresh.window_ms <= 3_600_000);
        let mut flat = Series::long();
        for minute in 0..=60 {
            flat.push(Millis(minute * 60_000), 50.0 * MB);
        }
        let level = trend(&flat, 60).unwrap();
        assert_eq!((level.slope_per_hour, level.p_value), (0.0, 1.0));
    }

    #[test]
    fn the_ladder_holds_the_window_and_its_neighbours_once() {
        let config = Config::default();
        let memory = ladder(&rule(SeriesId::LiveHeap, &config).unwrap());
        assert_eq!(memory, LADDER_MS);
        let short = Config { window_ms: 32_000, ..config.clone() };
        let rungs = ladder(&rule(SeriesId::LiveHeap, &short).unwrap());
        assert_eq!(&rungs[..3], [32_000, 45_000, 60_000]);
        assert_eq!(ladder(&rule(SeriesId::Native, &config).unwrap())[0], config.window_ms);
    }

    #[test]
    fn a_leak_is_found_the_sooner_the_faster_it_is() {
        let config = Config::default();
        let at = |mb_per_hour: f64| {
            first_alarm(&config, SeriesId::LiveHeap, 5, 40 * 3600, |s| {
                64.0 * MB + mb_per_hour * MB * s / 3600.0 + 0.05 * MB * noise(s)
            })
        };
        let (slow, medium, fast) = (at(1.5).unwrap(), at(12.0).unwrap(), at(1000.0).unwrap());
        assert!(fast < 720 && medium < 5400 && slow < 11 * 3600, "{fast} {medium} {slow}");
        assert!(fast < medium && medium < slow);
        assert_eq!(at(0.5), None);
    }

    #[test]
    fn a_cache_that_fills_and_stays_full_is_no_leak() {
        let config = Config {
            growth_rate: 60.0 * MB,
            window_ms: 32_000,
            warmup_ms: 10_000,
            ..Config::default()
        };
        // 20 MB with a time constant of 10 s: levelling off within every window that is judged twice.
        let filling =
            |s: f64| 30.0 * MB + 20.0 * MB * (1.0 - (-s / 10.0).exp()) + 0.1 * MB * noise(s);
        assert_eq!(first_alarm(&config, SeriesId::LiveHeap, 4, 600, filling), None);
    }

    #[test]
    fn flat_noise_is_never_a_leak() {
        let config = Config {
            growth_rate: 60.0 * MB,
            window_ms: 32_000,
            warmup_ms: 10_000,
            ..Config::default()
        };
        for seed in 0..20 {
            let flat = |s: f64| 30.0 * MB + 0.3 * MB * noise(s + 1000.0 * f64::from(seed));
            assert_eq!(
                first_alarm(&config, SeriesId::LiveHeap, 4, 3600, flat),
                None,
                "seed {seed}"
            );
        }
    }

    #[test]
    fn descriptors_must_double_listeners_need_not() {
        let config = Config { window_ms: 60_000, warmup_ms: 0, ..Config::default() };
        let growing = |s: f64| 1000.0 + s;
        assert_eq!(first_alarm(&config, SeriesId::Fds, 1, 600, growing), None);
        assert!(first_alarm(&config, SeriesId::Listeners, 1, 600, growing).is_some());
        assert!(first_alarm(&config, SeriesId::Fds, 1, 600, |s| 10.0 + s).is_some());
    }

    #[test]
    fn growth_that_traffic_explains_is_quiet_and_a_leak_beside_it_is_not() {
        let config =
            Config { growth_rate: 60.0 * MB, window_ms: 60_000, warmup_ms: 0, ..Config::default() };
        let rule = rule(SeriesId::LiveHeap, &config).unwrap();
        let (mut sessions, mut leak, mut load) = (Series::long(), Series::long(), Series::long());
        for second in 0..=60u64 {
            let (now, rise) = (Millis(second * 1000), second as f64 / 60.0);
            // Traffic rises from 0.2 to 0.6, and with it the live heap by a third; the leak doubles it.
            load.push(now, 0.2 + 0.4 * rise);
            sessions.push(now, 60.0 * MB * (1.0 + rise / 3.0));
            leak.push(now, 60.0 * MB * (1.0 + 2.0 * rise));
        }
        let judged = |series| judge(&rule, series, Some(&load), 60_000, Millis(60_000));
        assert!(matches!(judged(&sessions), Judgement::Quiet(Condition::WithTraffic, _)));
        assert!(matches!(judged(&leak), Judgement::Growing(_)));
        let flat = judge(&rule, &sessions, None, 60_000, Millis(60_000));
        assert!(matches!(flat, Judgement::Growing(_)));
    }

    #[test]
    fn what_the_guard_itself_added_is_in_neither_slope_nor_verdict() {
        let config =
            Config { growth_rate: 60.0 * MB, window_ms: 32_000, warmup_ms: 0, ..Config::default() };
        let rule = rule(SeriesId::LiveHeap, &config).unwrap();
        // Readings every 2 s; the guard adds 0.3 MB at a moment within the window.
        let judged = |per_minute: f64, at_ms: u64, known: bool| {
            let mut series = Series::long();
            if known {
                let at = Millis(at_ms);
                series.raised(Shift { at, most: 0.3 * MB });
            }
            for second in (0..=32u64).step_by(2) {
                let own = if second * 1000 >= at_ms { 0.25 * MB } else { 0.0 };
                let leak = per_minute * second as f64 / 60.0 + 0.02 * MB * noise(second as f64);
                series.push(Millis(second * 1000), 20.0 * MB + leak + own);
            }
            judge(&rule, &series, None, 32_000, Millis(32_000))
        };
        for at_ms in [5_000, 9_000, 15_500, 16_000, 22_000, 27_000] {
            let Judgement::Growing(of) = judged(4.0 * MB, at_ms, true) else { panic!("{at_ms}") };
            let error = of.slope_per_hour / (240.0 * MB) - 1.0;
            assert!(error.abs() < 0.1 && (of.own / MB - 0.25).abs() < 0.1, "{at_ms}: {of:?}");
            // Flat but for that: a suspicion must not confirm itself.
            assert!(matches!(judged(0.0, at_ms, true), Judgement::Quiet(..)), "{at_ms}");
        }
        let Judgement::Growing(of) = judged(4.0 * MB, 16_000, false) else { panic!() };
        assert!(of.slope_per_hour > 1.1 * 240.0 * MB && of.own == 0.0, "{of:?}");
        assert!(matches!(judged(0.7 * MB, 16_000, false), Judgement::Growing(_)));
        assert!(matches!(judged(0.7 * MB, 16_000, true), Judgement::Quiet(..)));
    }

    /// Readings every 1.3 s of a live heap with a batch of 1.2 MB that fills over 4 s and is flushed, whose leak begins at a
    /// second of its life.
    fn under_a_batch(per_minute: f64, begins: f64, seconds: f64) -> Series {
        let mut series = Series::long();
        for reading in 0..(seconds / 1.3) as u64 {
            let second = reading as f64 * 1.3;
            let batch = 1.2 * MB * ((second + 0.4 * noise(second)) / 4.0).fract();
            let leak = per_minute * (second - begins).max(0.0) / 60.0;
            series.push(Millis((second * 1000.0) as u64), 8.0 * MB + batch + leak);
        }
        series
    }

    #[test]
    fn a_slope_that_its_window_knows_badly_is_told_over_a_longer_stretch() {
        let config =
            Config { growth_rate: 60.0 * MB, window_ms: 32_000, warmup_ms: 0, ..Config::default() };
        let rule = rule(SeriesId::LiveHeap, &config).unwrap();
        for end in 60..100 {
            let series = under_a_batch(2.0 * MB, 0.0, end as f64);
            let now = Millis(end * 1000);
            let Judgement::Growing(seen) = judge(&rule, &series, None, 32_000, now) else {
                continue;
            };
            let told = tell(&rule, &series, None, Millis(0), now, &seen);
            let error = told.slope_per_hour / (120.0 * MB) - 1.0;
            assert!(error.abs() < 0.2, "{end}: {error} of {told:?}");
            assert!(told.uncertainty() <= seen.uncertainty(), "{end}: {told:?}");
            let (low, high) = told.slope_between;
            assert!(low <= told.slope_per_hour && told.slope_per_hour <= high);
        }
    }

    #[test]
    fn descriptors_that_leak_from_the_start_are_found_although_no_short_window_doubles() {
        let config = Config { window_ms: 32_000, warmup_ms: 10_000, ..Config::default() };
        let found = |value: &dyn Fn(f64) -> f64| first_alarm(&config, SeriesId::Fds, 1, 400, value);
        // 30 at the start and 218 a minute, as sockets leak that a request opens: within 32 s from the 26th second on no doubling.
        let leaks = found(&|second| (30.0 + 218.0 / 60.0 * second).floor());
        assert!(leaks.is_some_and(|at| at <= 60), "{leaks:?}");
        // What had its connections before, and what opened them at once, has not doubled by a rise.
        assert_eq!(found(&|second| (1_500.0 + 218.0 / 60.0 * second).floor()), None);
        let opened = |second: f64| if second < 25.0 { 100.0 } else { 1_200.0 };
        assert_eq!(found(&|second| (opened(second) + 60.0 / 60.0 * second).floor()), None);
        // A ramp of connections that ends.
        assert_eq!(found(&|second| (60.0 + 8.0 * second.min(40.0)).floor()), None);
    }

    #[test]
    fn a_slope_is_not_told_over_a_stretch_that_was_flat_before() {
        let config =
            Config { growth_rate: 60.0 * MB, window_ms: 32_000, warmup_ms: 0, ..Config::default() };
        let rule = rule(SeriesId::LiveHeap, &config).unwrap();
        let (mut told_of, now) = (0, Millis(120_000));
        for begins in [60.0, 70.0, 80.0, 88.0] {
            let series = under_a_batch(4.0 * MB, begins, 120.0);
            if let Judgement::Growing(seen) = judge(&rule, &series, None, 32_000, now) {
                let told = tell(&rule, &series, None, Millis(0), now, &seen);
                let error = told.slope_per_hour / (240.0 * MB) - 1.0;
                assert!(error.abs() < 0.2, "{begins}: {error} of {told:?}");
                told_of += 1;
            }
        }
        assert!(told_of >= 3);
    }

    #[test]
    fn a_window_with_too_few_readings_is_not_judged() {
        let config = Config { window_ms: 60_000, warmup_ms: 0, ..Config::default() };
        let rule = rule(SeriesId::LiveHeap, &config).unwrap();
        let mut series = Series::long();
        for second in [0u64, 10, 20, 30, 40] {
            series.push(Millis(second * 1000), second as f64 * 1e9);
        }
        assert_eq!(
            judge(&rule, &series, None, 60_000, Millis(60_000)),
            Judgement::TooFew { readings: 5 }
        );
    }

    #[test]
    fn nothing_is_judged_in_the_warm_up() {
        let config =
            Config { growth_rate: MB, window_ms: 30_000, warmup_ms: 60_000, ..Config::default() };
        let at = first_alarm(&config, SeriesId::LiveHeap, 1, 600, |s| s * MB).unwrap();
        assert!(at >= 60 + 30 + 15, "{at}");
    }

    #[test]
    fn what_the_budget_leaves_out_is_judged_in_the_next_steps() {
        let config =
            Config { growth_rate: MB, window_ms: 30_000, warmup_ms: 0, ..Config::default() };
        let mut detector = GrowthDetector::new(rule(SeriesId::LiveHeap, &config).unwrap());
        let mut series = Series::long();
        for second in 0..3600u64 {
            series.push(Millis(second * 1000), second as f64);
        }
        let judged = |detector: &GrowthDetector| {
            detector.rungs.iter().filter(|rung| rung.evaluated != NEVER).count()
        };
        let now = Millis(3_600_000);
        let due = detector.rungs.iter().filter(|rung| rung.window_ms <= now.0).count();
        assert!(due > 10, "{due}");
        for step in 1..=due {
            let mut budget = 1;
            detector.step(Millis(now.0 + step as u64), Millis(0), &series, None, &mut budget);
            assert_eq!((budget, judged(&detector)), (0, step));
        }
        let mut budget = 1;
        detector.step(Millis(now.0 + 100), Millis(0), &series, None, &mut budget);
        assert_eq!((budget, judged(&detector)), (1, due));
    }

    #[test]
    fn the_window_worth_filling_is_the_shortest_that_the_slope_seen_would_do_for() {
        let mut detector =
            GrowthDetector::new(rule(SeriesId::LiveHeap, &Config::default()).unwrap());
        assert_eq!(detector.suspected_window_ms(), None);
        let mut series = Series::long();
        // 100 MB/h, read once a minute: first seen on a window that six such readings fill, though the 6 MB that
        // are wanted grow in 3.6 minutes.
        let mut seen = None;
        for minute in 0..30u64 {
            let now = Millis(minute * 60_000);
            series.push(now, 50.0 * MB + minute as f64 * 100.0 / 60.0 * MB);
            detector.step(now, Millis(0), &series, None, &mut 99);
            seen = seen.or(detector
                .suspicion()
                .map(|one| (one.window_ms, detector.suspected_window_ms())));
        }
        assert_eq!(seen, Some((420_000, Some(270_000))));
    }

    #[test]
    fn one_agreeing_evaluation_is_not_enough_and_disagreement_starts_over() {
        let config = Config {
            growth_rate: 60.0 * MB,
            window_ms: 32_000,
            warmup_ms: 0,
            confirm: 3,
            ..Config::default()
        };
        let rule = rule(SeriesId::LiveHeap, &config).unwrap();
        let mut detector = GrowthDetector::new(rule);
        let mut series = Series::long();
        let mut agreed = Vec::new();
        for second in 0..200u64 {
            // Two evaluations agree, then the level drops at 50 s and rises again.
            let value = if second < 50 { second as f64 } else { (second - 50) as f64 } * 4.0 * MB;
            series.push(Millis(second * 1000), value);
            if let Some(evidence) =
                detector.step(Millis(second * 1000), Millis(0), &series, None, &mut 99)
            {
                agreed.push((second, evidence.agreed));
            }
        }
        assert_eq!(agreed.first().map(|(_, agreed)| *agreed), Some(3));
        assert!(agreed[0].0 > 100, "{agreed:?}");
    }
}
