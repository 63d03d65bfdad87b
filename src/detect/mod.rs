//! Judging growth. `RULES` says which series are judged and how; `growth` holds the one test they share,
//! `native` tells kinds of native growth apart.
//! Pure: time is an argument, and a verdict carries its numbers.

mod growth;
mod native;

pub use growth::{
    Condition, Evidence, GrowthDetector, Judgement, MIN_READINGS, WELL_KNOWN, judge, ladder, tell,
};
pub use native::{Course, NativeKind, NativeVerdict, explain};

use crate::config::{Config, HOUR_MS};
use crate::metric::SeriesId;

/// Longest time over which a count must grow by its rate to be worth a finding on a shorter rung. Counts
/// are small and clean, so that they need not wait for the memory window; at the default of 10/min this
/// asks for 50 more. Raising it delays fast leaks, lowering it lets bursts of connections through.
pub const COUNT_WINDOW_MS: u64 = 5 * 60_000;

/// A live heap of which half follows the traffic stays quiet when traffic rises. Raising it delays leaks that
/// begin with a rush, lowering it accuses the morning.
const HALF: f64 = 0.5;

/// Connections and pending timers follow the traffic whole, and more than whole: a busier app answers later.
const ALL: f64 = 1.5;

/// Which value of a cell of time is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The mean: for readings that are clean already (after a major GC).
    Mean,
    /// The minimum: for gauges that follow traffic, of which only the floor can leak.
    Min,
}

/// Growth of the listeners that one line adds to many emitters, below which it is nothing: they are counted by
/// samples, and belong to connections and requests as often as to what is never dropped.
const LEAST_SPREAD: f64 = 100.0;

/// How one series is judged. Rates are per hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The series.
    pub series: SeriesId,
    /// Growth per hour that counts as a leak from `window_ms` on.
    pub rate: f64,
    /// From this rung on the rate alone decides; on a shorter rung the growth over it must reach `amount`.
    pub window_ms: u64,
    /// Growth that a rung shorter than the window must hold.
    pub amount: f64,
    /// Which value of a cell is judged.
    pub statistic: Statistic,
    /// Whether the series must also have doubled over the rung: for counts that follow traffic.
    pub doubling: bool,
    /// How much of the series may follow the traffic: if the load has risen to r times what it was, growth
    /// up to this times (r - 1) times the level is explained by it.
    pub traffic: f64,
    /// Growth below this many is nothing, however steep.
    pub least: f64,
    /// Evaluations that must agree.
    pub confirm: u32,
    /// Only rungs of at least this length are judged.
    pub shortest_ms: u64,
}

impl Rule {
    /// Slope per hour that a rung of `window_ms` must reach.
    pub fn threshold(&self, window_ms: u64) -> f64 {
        if window_ms < self.window_ms {
            self.amount / (window_ms as f64 / HOUR_MS)
        } else {
            self.rate
        }
    }
}

/// The rule for listeners that one line of code adds to many emitters: they follow the traffic, as descriptors do.
pub fn spread_rule(config: &Config) -> Option<Rule> {
    let rule = rule(SeriesId::Listeners, config)?;
    Some(Rule { doubling: true, traffic: ALL, least: LEAST_SPREAD, ..rule })
}

/// The rule for a series under these settings; `None` for those that are reported and never judged.
pub fn rule(series: SeriesId, config: &Config) -> Option<Rule> {
    let memory = |rate: f64| Rule {
        series,
        rate,
        window_ms: config.window_ms,
        amount: rate * config.window_ms as f64 / HOUR_MS,
        statistic: Statistic::Mean,
        doubling: false,
        traffic: HALF,
        least: 0.0,
        confirm: config.confirm,
        shortest_ms: 0,
    };
    let count = |rate: f64, doubling: bool, least: f64| {
        let window_ms = config.window_ms.min(COUNT_WINDOW_MS);
        Rule {
            series,
            rate,
            window_ms,
            amount: rate * window_ms as f64 / HOUR_MS,
            statistic: Statistic::Min,
            doubling,
            traffic: if doubling { ALL } else { HALF },
            least,
            confirm: config.confirm,
            shortest_ms: 0,
        }
    };
    Some(match series {
        SeriesId::LiveHeap => memory(config.growth_rate),
        SeriesId::ArrayBuffers | SeriesId::External => memory(config.native_rate),
        // Resident memory is noisy: only over the whole window, and once more agreed than the rest.
        SeriesId::Native => Rule {
            statistic: Statistic::Min,
            confirm: config.confirm + 1,
            shortest_ms: config.window_ms,
            ..memory(config.native_rate)
        },
        SeriesId::Listeners => count(config.listener_rate, false, 0.0),
        SeriesId::Threads => count(config.handle_rate, false, 0.0),
        SeriesId::Fds | SeriesId::Handles => count(config.handle_rate, true, 32.0),
        SeriesId::Timers => count(config.handle_rate, true, 100.0),
        SeriesId::Rss
        | SeriesId::HeapUsed
        | SeriesId::HeapTotal
        | SeriesId::CgroupUsed
        | SeriesId::LoopUtilization => return None,
    })
}
