//! What can be said of a run that is over: how it ended, how near to which limit, what grew in it, and whether
//! several runs of one app show the same growth. Pure: it is given what the recorder kept. What the record
//! does not hold is not claimed: a run without an exit mark was killed or crashed, and only its last figures
//! say whether memory was the reason; that the kernel's OOM killer did it is never known from here.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{Bytes, Config, HOUR_MS};
use crate::detect::{self, Evidence};
use crate::finding::duration_words;
use crate::metric::{SeriesId, Unit};
use crate::pipeline::{Cause, Draft, Piece};
use crate::recorder::{Field, RunHistory, Sample, What};
use crate::sample::{IsolateId, Millis};
use crate::stats;
use crate::trigger::Source;

/// Version of the JSON of a post-mortem.
pub const SCHEMA: u32 = 1;

/// From this share of a limit on, a run that ended without exit is said to have ended near it. Raising it
/// misses leaks whose last stretch lay between two samples, lowering it blames memory for other deaths.
const NEAR_CONTAINER: f64 = 0.9;

/// The same for V8's old space, measured by the live heap: V8 gives up when a major GC frees next to nothing.
const NEAR_HEAP: f64 = 0.85;

/// From this share of V8's old space on a live heap cannot grow much more.
const CEILING: f64 = 0.95;

/// A run that rises so fast that it may have crossed the rest between two samples must have come this far.
const HALF_WAY: f64 = 0.5;

/// Samples from whose rise the last, unseen one is reckoned.
const LAST_SAMPLES: usize = 5;

/// Runs that must show the same growth.
pub const RUNS_FOR_A_FINDING: usize = 3;

/// Of those, so many must have ended near a limit; the others may have been cut off while growing.
const NEAR_FOR_A_FINDING: usize = 2;

/// Growth of a run that is worth comparing: part of the limit near which it ended, and bytes.
const GROWTH_OF_LIMIT: f64 = 0.05;
const GROWTH_BYTES: f64 = 1_048_576.0;

/// Growth of a count that is worth comparing.
const GROWTH_COUNT: f64 = 20.0;

/// Points to which a series is thinned before its slope is taken.
const POINTS: usize = 60;

/// Series that are compared across runs, most telling first.
pub const COMPARED: [SeriesId; 5] = [
    SeriesId::LiveHeap,
    SeriesId::ArrayBuffers,
    SeriesId::Native,
    SeriesId::Fds,
    SeriesId::Listeners,
];

/// Growth of one series over one run, in its unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Growth {
    /// Series id.
    pub series: String,
    /// Theil-Sen slope per hour.
    pub per_hour: f64,
    /// The same over the later half.
    pub later_per_hour: f64,
    /// From the first to the last reading, ms.
    pub over_ms: u64,
    /// Readings, thinned to 60 at most.
    pub readings: u32,
    /// First value.
    pub first: f64,
    /// Last value.
    pub last: f64,
    /// Mann-Kendall probability of such a rise by chance.
    pub p_value: f64,
}

/// Which limit a run came near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The memory limit of the container.
    Container,
    /// The old space of V8's heap.
    Heap,
}

/// How much of a limit was in use at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// Which limit.
    pub limit: Limit,
    /// In use, bytes.
    pub used_bytes: f64,
    /// The limit, bytes.
    pub limit_bytes: f64,
    /// Whether the run ended near it.
    pub near: bool,
    /// Rise between two samples at the end, bytes, where that alone makes the end near.
    pub rising_bytes: Option<f64>,
}

impl Use {
    fn share(&self) -> f64 {
        self.used_bytes / self.limit_bytes
    }
}

/// A mark of an end in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, where the C library gave it.
    pub code: Option<i32>,
    /// `end`, `exit`, `stop`.
    pub reason: String,
}

/// A run that is over, as it is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// Name of its file.
    pub file: String,
    /// Name of the app.
    pub app: String,
    /// Its version.
    pub app_version: String,
    /// Process id.
    pub pid: u32,
    /// Unix milliseconds.
    pub started_ms: u64,
    /// Time of the last record, Unix milliseconds.
    pub ended_ms: u64,
    /// The mark of an end in order, if there is one.
    pub exit: Option<Exit>,
    /// Limits and their use at the end, nearest first.
    pub uses: Vec<Use>,
    /// Series that grew, in the order of [`COMPARED`].
    pub growth: Vec<Growth>,
    /// Its findings' files.
    pub findings: Vec<String>,
}

/// How a run ended, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In order, with code 0 or one that is not known; or the guard was stopped.
    Orderly,
    /// In order with another code: `process.exit(code)`, or an uncaught exception.
    Failed(i32),
    /// Without exit, near a limit.
    NearLimit,
    /// Without exit, not near a limit that is known: killed or crashed.
    CutOff,
}

impl Verdict {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Orderly => "orderly",
            Verdict::Failed(_) => "failed",
            Verdict::NearLimit => "near_limit",
            Verdict::CutOff => "cut_off",
        }
    }
}

impl RunSummary {
    /// How it ended.
    pub fn verdict(&self) -> Verdict {
        match &self.exit {
            Some(Exit { code: None | Some(0), .. }) => Verdict::Orderly,
            Some(Exit { code: Some(code), .. }) => Verdict::Failed(*code),
            None if self.near().is_some() => Verdict::NearLimit,
            None => Verdict::CutOff,
        }
    }

    /// The limit near which it ended.
    pub fn near(&self) -> Option<&Use> {
        self.uses.iter().find(|of| of.near)
    }

    /// In one line.
    pub fn sentence(&self) -> String {
        let mut words = format!("previous run, pid {}, ", self.pid);
        match self.verdict() {
            Verdict::Orderly => words.push_str("ended in order"),
            Verdict::Failed(code) => words.push_str(&format!("ended with exit code {code}")),
            Verdict::NearLimit => {
                words.push_str("ended without exit");
                if let Some(near) = self.near() {
                    words.push_str(&use_words(near));
                }
            }
            Verdict::CutOff => {
                words.push_str("ended without exit, killed or crashed");
                match self.uses.first() {
                    Some(of) => words.push_str(&format!(",{} and not near it", use_words(of))),
                    None => words.push_str("; it had no limit that is known"),
                }
            }
        }
        if let Some(growth) = self.growth.first() {
            words.push_str(&format!(", {}", growth_words(growth)));
        }
        words
    }

    /// The event's payload. `same_container` is whether this run has the same memory cgroup; `None` if that is
    /// not known.
    pub fn to_json(&self, same_container: Option<bool>) -> Value {
        let mut json = serde_json::to_value(self).unwrap_or(Value::Null);
        json["schema"] = json!(SCHEMA);
        json["verdict"] = json!(self.verdict().as_str());
        json["sentence"] = json!(self.sentence());
        json["sameContainer"] = json!(same_container);
        json
    }
}

fn use_words(of: &Use) -> String {
    let (used, limit) = (Bytes(of.used_bytes as u64), Bytes(of.limit_bytes as u64));
    let name = match of.limit {
        Limit::Container => "",
        Limit::Heap => " of V8's old space",
    };
    let rising = of
        .rising_bytes
        .map(|bytes| format!(", rising {} a sample", Bytes(bytes as u64)))
        .unwrap_or_default();
    format!(" at {used} of {limit}{name}{rising}")
}

fn growth_words(growth: &Growth) -> String {
    let Some(series) = SeriesId::from_name(&growth.series) else { return growth.series.clone() };
    let metric = series.metric();
    let over = duration_words(growth.over_ms);
    match metric.unit {
        Unit::Bytes => {
            let name = metric.words.strip_prefix("the ").unwrap_or(metric.words);
            format!("{name} +{}/h over {over}", Bytes(growth.per_hour as u64))
        }
        _ => format!("{} +{:.1}/min over {over}", metric.words, growth.per_hour / 60.0),
    }
}

/// Sums a run up. `file` is the name of its file.
pub fn summarize(history: &RunHistory, file: &str) -> RunSummary {
    let header = &history.header;
    let wall = |at: Millis| header.started_unix_ms.saturating_add(at.0);
    let exit = history.exit().and_then(|event| match &event.what {
        What::Exit { code, reason } => Some(Exit { code: *code, reason: reason.clone() }),
        _ => None,
    });
    let mut uses: Vec<Use> =
        [container_use(history), heap_use(history)].into_iter().flatten().collect();
    uses.sort_by(|a, b| {
        (b.near, b.share()).partial_cmp(&(a.near, a.share())).unwrap_or(std::cmp::Ordering::Equal)
    });
    RunSummary {
        file: file.to_owned(),
        app: header.app.clone(),
        app_version: header.app_version.clone(),
        pid: header.pid,
        started_ms: header.started_unix_ms,
        ended_ms: wall(history.last_at().unwrap_or_default()),
        exit,
        uses,
        growth: COMPARED.into_iter().filter_map(|series| growth(history, series)).collect(),
        findings: history
            .events
            .iter()
            .filter_map(|event| match &event.what {
                What::Finding { file, .. } => Some(file.clone()),
                _ => None,
            })
            .take(16)
            .collect(),
    }
}

/// The main thread's samples: they carry the figures of the process.
fn of_process(history: &RunHistory) -> impl DoubleEndedIterator<Item = &Sample> {
    history.samples.iter().filter(|sample| sample.isolate == 0)
}

fn container_use(history: &RunHistory) -> Option<Use> {
    let mut last: Vec<(f64, f64)> = of_process(history)
        .rev()
        .filter_map(|sample| {
            let values = &sample.values;
            let limit = values.get(Field::CgroupLimit)?;
            // An ancestor that is shared may leave less than limit minus use.
            let used = match values.get(Field::CgroupHeadroom) {
                Some(headroom) => limit - headroom,
                None => values.get(Field::CgroupUsed)?,
            };
            (limit > 0.0).then_some((used, limit))
        })
        .take(LAST_SAMPLES)
        .collect();
    last.reverse();
    let &(used, limit) = last.last()?;
    let rise = last.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(0.0, f64::max);
    let share = used / limit;
    let near = share >= NEAR_CONTAINER;
    // The rise of one more sample, and of what was left of the one after it.
    let crossed = !near && share >= HALF_WAY && used + 2.0 * rise >= limit;
    Some(Use {
        limit: Limit::Container,
        used_bytes: used,
        limit_bytes: limit,
        near: near || crossed,
        rising_bytes: crossed.then_some(rise),
    })
}

fn heap_use(history: &RunHistory) -> Option<Use> {
    let heap_limit = of_process(history).rev().find_map(|s| s.values.get(Field::HeapLimit))?;
    let limit = old_space_bytes(heap_limit, &history.header.node_version);
    let mut readings = history.readings.iter().rev().filter_map(|event| match event.what {
        What::LiveHeap { live_bytes, .. } if event.isolate == 0 => Some((event.at, live_bytes)),
        _ => None,
    });
    let last = readings.next();
    let live = last.map(|(_, bytes)| bytes);
    let used = of_process(history).rev().find_map(|sample| sample.values.get(Field::HeapUsed));
    // Between two major GCs the used heap holds garbage: it only counts when it fills all there is.
    let (used, near) = match (live, used) {
        (Some(live), _) if live >= NEAR_HEAP * limit => (live, true),
        (live, Some(used)) if used >= NEAR_CONTAINER * heap_limit => (live.unwrap_or(used), true),
        (live, used) => (live.or(used)?, false),
    };
    // What the live heap rose by from one sample to the next, at the rate of its last readings; of two that
    // are nearer to each other than samples nothing is reckoned.
    let interval_ms = history.header.interval_ms.max(1);
    let rise = last
        .and_then(|(at, bytes)| {
            let before = readings.find(|(then, _)| at.0.saturating_sub(then.0) >= interval_ms)?;
            let span_ms = (at.0 - before.0.0) as f64;
            Some((bytes - before.1) / span_ms * interval_ms as f64)
        })
        .unwrap_or(0.0);
    let crossed =
        !near && live.is_some_and(|live| live >= HALF_WAY * limit && live + 2.0 * rise >= limit);
    (limit > 0.0).then_some(Use {
        limit: Limit::Heap,
        used_bytes: used.min(limit),
        limit_bytes: limit,
        near: near || crossed,
        rising_bytes: crossed.then_some(rise),
    })
}

/// What of `heap_size_limit` is old space, bytes: the rest is three semi-spaces, whose default differs by version.
/// Measured with `--max-old-space-size=64` on 20.20 and 22.23 (limit 112 MB), 24.21 (256 MB) and 26.10
/// (160 MB), and the same difference at the default of 4,096 MB. With another `--max-semi-space-size` it is
/// off by as much: never by more than three quarters of the limit.
pub fn old_space_bytes(heap_limit: f64, node_version: &str) -> f64 {
    const MB: f64 = 1_048_576.0;
    let major = node_version.trim_start_matches('v').split('.').next();
    let semi_spaces = match major.and_then(|major| major.parse::<u32>().ok()) {
        Some(24 | 25) => 192.0 * MB,
        Some(26..) => 96.0 * MB,
        _ => 48.0 * MB,
    };
    (heap_limit - semi_spaces).max(heap_limit / 4.0)
}

/// Growth of a series in a run, if it rose throughout and to the end, by an amount worth the name.
fn growth(history: &RunHistory, series: SeriesId) -> Option<Growth> {
    let points: Vec<(Millis, f64)> = match series {
        SeriesId::LiveHeap => history
            .readings
            .iter()
            .filter(|event| event.isolate == 0)
            .filter_map(|event| match event.what {
                What::LiveHeap { live_bytes, .. } => Some((event.at, live_bytes)),
                _ => None,
            })
            .collect::<Vec<_>>(),
        _ => of_process(history)
            .filter_map(|sample| Some((sample.at, sample.values.get(Field::from(series))?)))
            .collect(),
    };
    let points = if series == SeriesId::LiveHeap { below_ceiling(history, points) } else { points };
    let count = series.metric().unit == Unit::Count;
    let points = thin(&points, count);
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    let p_value = stats::mann_kendall_rising(&values, 1.0);
    let slope = stats::theil_sen(&points)?.slope * HOUR_MS;
    let later =
        stats::theil_sen(points.get(points.len() / 2..)?).map_or(0.0, |line| line.slope) * HOUR_MS;
    let (&(began, first), &(ended, last)) = (points.first()?, points.last()?);
    let over_ms = (ended - began).max(0.0) as u64;
    let risen = slope * over_ms as f64 / HOUR_MS;
    // The plateau veto of FACTS and the doubling of counts that follow traffic, as within a run.
    let enough =
        if count { risen >= GROWTH_COUNT && last >= 2.0 * first } else { risen >= GROWTH_BYTES };
    (p_value < 0.05 && enough && later >= 0.4 * slope).then(|| Growth {
        series: series.as_str().to_owned(),
        per_hour: slope.round(),
        later_per_hour: later.round(),
        over_ms,
        readings: u32::try_from(points.len()).unwrap_or(u32::MAX),
        first,
        last,
        p_value,
    })
}

/// Without the readings that follow the first one at V8's limit: there it collects again and again, and what
/// looks like a plateau is the ceiling.
fn below_ceiling(history: &RunHistory, points: Vec<(Millis, f64)>) -> Vec<(Millis, f64)> {
    let heap_limit = of_process(history).rev().find_map(|s| s.values.get(Field::HeapLimit));
    let ceiling = heap_limit.map_or(f64::INFINITY, |limit| {
        CEILING * old_space_bytes(limit, &history.header.node_version)
    });
    let below = points.iter().rposition(|(_, live)| *live < ceiling).map_or(0, |last| last + 2);
    points.into_iter().take(below).collect()
}

/// At most [`POINTS`] points of equal numbers of readings: their mean, or for counts their minimum.
fn thin(points: &[(Millis, f64)], floor: bool) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS).max(1);
    points
        .chunks(size)
        .map(|chunk| {
            let n = chunk.len() as f64;
            let at = chunk.iter().map(|(at, _)| at.0 as f64).sum::<f64>() / n;
            let value = if floor {
                chunk.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min)
            } else {
                chunk.iter().map(|(_, value)| *value).sum::<f64>() / n
            };
            (at, value)
        })
        .collect()
}

/// The same growth in several runs.
#[derive(Clone, Debug, PartialEq)]
pub struct AcrossRuns {
    /// What grew in all of them, most telling first; not empty.
    pub series: Vec<SeriesId>,
    /// The runs, oldest first.
    pub runs: Vec<RunSummary>,
}

impl AcrossRuns {
    /// The finding to be written: its numbers are those of the last run. It has number 0, the trigger counts
    /// from 1.
    pub fn draft(&self, now: Millis, isolate: Option<IsolateId>, config: &Config) -> Draft {
        let of = |series: SeriesId| {
            let last = self.runs.last()?;
            last.growth.iter().find(|growth| growth.series == series.as_str())
        };
        let piece = |series: SeriesId| {
            let growth = of(series)?;
            let rule = detect::rule(series, config);
            Some(Piece {
                source: Source { series, isolate, emitter: None },
                evidence: Evidence {
                    series,
                    window_ms: growth.over_ms,
                    slope_per_hour: growth.per_hour,
                    slope_between: (growth.per_hour, growth.per_hour),
                    later_slope_per_hour: growth.later_per_hour,
                    threshold_per_hour: rule.map_or(0.0, |rule| rule.rate),
                    amount: rule.map_or(0.0, |rule| rule.amount),
                    p_value: growth.p_value,
                    readings: u64::from(growth.readings),
                    first: growth.first,
                    last: growth.last,
                    agreed: u32::try_from(self.runs.len()).unwrap_or(u32::MAX),
                    at: now,
                    load_factor: 1.0,
                    own: 0.0,
                },
                window_ms: growth.over_ms,
                confirmed: true,
                native: None,
                since: Millis(0),
                from_start: true,
                points: Vec::new(),
            })
        };
        let lead = self.series.first().copied().unwrap_or(SeriesId::LiveHeap);
        Draft {
            finding: 0,
            at: now,
            isolate,
            cause: match lead.metric().unit {
                Unit::Bytes => Cause::Memory { series: lead },
                _ => Cause::Count {
                    series: lead,
                    count: of(lead).map_or(0, |growth| growth.last as u64),
                },
            },
            pieces: self.series.iter().filter_map(|series| piece(*series)).collect(),
            listeners: Vec::new(),
            context: Vec::new(),
            limit: None,
            routes: None,
            near: None,
        }
    }
}

/// Looks for growth of one series in the last three runs of one app and version that tell anything. The runs
/// must follow one another: workers of one cluster that die together are one death. Runs that ended far from
/// every limit say nothing, neither for nor against: a deploy ends them at any moment.
pub fn across(runs: &[RunSummary], config: &Config) -> Option<AcrossRuns> {
    let mut newest_first: Vec<&RunSummary> = runs.iter().filter(|run| telling(run)).collect();
    newest_first.sort_by_key(|run| std::cmp::Reverse(run.ended_ms));
    let mut chain: Vec<&RunSummary> = Vec::new();
    for run in newest_first {
        if chain.last().is_none_or(|later| run.ended_ms <= later.started_ms) {
            chain.push(run);
        }
        if chain.len() == RUNS_FOR_A_FINDING {
            break;
        }
    }
    let near = chain.iter().filter(|run| run.near().is_some()).count();
    if chain.len() < RUNS_FOR_A_FINDING || near < NEAR_FOR_A_FINDING {
        return None;
    }
    let series: Vec<SeriesId> = COMPARED
        .into_iter()
        .filter(|series| chain.iter().all(|run| grew(run, *series, config)))
        .collect();
    chain.reverse();
    (!series.is_empty()).then(|| AcrossRuns { series, runs: chain.into_iter().cloned().collect() })
}

/// Whether a run says anything of leaks: it ended near a limit, or was cut off on its way there.
fn telling(run: &RunSummary) -> bool {
    match run.verdict() {
        // Growing to the end and near the limit, it was perhaps ended by a probe that failed; with code 0
        // it may as well have been a deploy.
        Verdict::Orderly => false,
        Verdict::Failed(_) | Verdict::NearLimit => run.near().is_some(),
        Verdict::CutOff => {
            !run.growth.is_empty() && run.uses.iter().any(|of| of.share() >= HALF_WAY)
        }
    }
}

fn grew(run: &RunSummary, series: SeriesId, config: &Config) -> bool {
    let limit = run.near().or(run.uses.first()).map_or(0.0, |of| of.limit_bytes);
    let rate = detect::rule(series, config).map_or(0.0, |rule| rule.rate);
    run.growth.iter().filter(|growth| growth.series == series.as_str()).any(|growth| {
        let worth = match series.metric().unit {
            Unit::Bytes => growth.last - growth.first >= GROWTH_OF_LIMIT * limit,
            _ => true,
        };
        worth && growth.per_hour >= rate
    })
}

/// A finding across runs in one line.
pub fn across_words(runs: &[RunSummary], series: SeriesId) -> String {
    let of = |run: &RunSummary| {
        run.growth.iter().find(|growth| growth.series == series.as_str()).cloned()
    };
    let ends: Vec<String> = runs
        .iter()
        .map(|run| {
            let near = run.near().or(run.uses.first()).map_or(String::new(), use_words);
            format!("pid {}{near}", run.pid)
        })
        .collect();
    let growth = runs.last().and_then(of).map_or(String::new(), |growth| growth_words(&growth));
    format!(
        "{} grows in each of the last {} runs until it ends ({}); in the last {growth}",
        series.metric().words,
        runs.len(),
        ends.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Event, RunHeader, Values};

    const MB: f64 = 1_048_576.0;

    /// A run of `seconds` with a sample and a reading each second: container use and live heap in MB as
    /// functions of the second, limits in MB.
    struct Run {
        seconds: u64,
        limit: Option<f64>,
        heap_limit: f64,
        used: fn(f64) -> f64,
        live: fn(f64) -> f64,
        exit: Option<(Option<i32>, &'static str)>,
        started_ms: u64,
    }

    impl Default for Run {
        fn default() -> Run {
            Run {
                seconds: 60,
                limit: Some(512.0),
                heap_limit: 4144.0,
                used: |_| 120.0,
                live: |_| 40.0,
                exit: None,
                started_ms: 1_000_000,
            }
        }
    }

    impl Run {
        fn history(&self) -> RunHistory {
            let mut samples = Vec::new();
            let mut readings = Vec::new();
            for second in 0..self.seconds {
                let at = Millis(second * 1000);
                let mut values = Values::default();
                let t = second as f64;
                values
                    .set(Field::CgroupUsed, self.limit.map(|_| (self.used)(t) * MB))
                    .set(Field::CgroupLimit, self.limit.map(|limit| limit * MB))
                    .set(Field::HeapUsed, Some((self.live)(t) * MB * 1.2))
                    .set(Field::HeapLimit, Some(self.heap_limit * MB));
                samples.push(Sample { at, isolate: 0, values });
                readings.push(Event {
                    at,
                    isolate: 0,
                    what: What::LiveHeap {
                        live_bytes: (self.live)(t) * MB,
                        array_buffers_bytes: None,
                        external_bytes: None,
                    },
                });
            }
            let at = Millis(self.seconds * 1000);
            let events = self
                .exit
                .map(|(code, reason)| Event {
                    at,
                    isolate: 0,
                    what: What::Exit { code, reason: reason.into() },
                })
                .into_iter()
                .collect();
            RunHistory {
                header: RunHeader {
                    interval_ms: 1_000,
                    app: "shop".into(),
                    node_version: "v22.1.0".into(),
                    pid: 4711,
                    started_unix_ms: self.started_ms,
                    ..RunHeader::default()
                },
                samples,
                readings,
                events,
                torn_records: 0,
                unknown_records: 0,
                missing_records: 0,
            }
        }

        fn summary(&self) -> RunSummary {
            summarize(&self.history(), "run.shop.4711.rec")
        }
    }

    fn leaking() -> Run {
        Run { used: |t| 60.0 + 7.4 * t, live: |t| 20.0 + 7.0 * t, ..Run::default() }
    }

    #[test]
    fn a_run_ends_as_its_last_figures_say() {
        let table: Vec<(&str, Run, Verdict)> = vec![
            ("killed at rest", Run::default(), Verdict::CutOff),
            ("exit", Run { exit: Some((Some(0), "exit")), ..leaking() }, Verdict::Orderly),
            (
                "exit, code unknown",
                Run { exit: Some((None, "exit")), ..leaking() },
                Verdict::Orderly,
            ),
            ("uncaught", Run { exit: Some((Some(7), "exit")), ..leaking() }, Verdict::Failed(7)),
            ("leak to the container's limit", leaking(), Verdict::NearLimit),
            ("no limit known", Run { limit: None, ..leaking() }, Verdict::CutOff),
            ("far", Run { seconds: 20, ..leaking() }, Verdict::CutOff),
            (
                "V8's heap between two samples",
                Run { seconds: 4, heap_limit: 112.0, live: |t| 5.0 + 12.0 * t, ..Run::default() },
                Verdict::NearLimit,
            ),
            (
                "V8's heap at the same height, rising slowly",
                Run { seconds: 4, heap_limit: 112.0, live: |t| 49.0 + t, ..Run::default() },
                Verdict::CutOff,
            ),
            (
                "runaway between two samples",
                Run {
                    seconds: 10,
                    used: |t| if t < 8.0 { 100.0 } else { 100.0 + 130.0 * (t - 7.0) },
                    ..Run::default()
                },
                Verdict::NearLimit,
            ),
            (
                "a burst far below the limit",
                Run { seconds: 10, used: |t| if t < 8.0 { 60.0 } else { 120.0 }, ..Run::default() },
                Verdict::CutOff,
            ),
            (
                // 64 MB of old space and three semi-spaces of 16 MB.
                "V8's limit",
                Run { heap_limit: 112.0, live: |t| 5.0 + t, ..Run::default() },
                Verdict::NearLimit,
            ),
            (
                "young garbage is not the old space",
                Run { heap_limit: 112.0, live: |_| 45.0, ..Run::default() },
                Verdict::CutOff,
            ),
            ("nothing recorded", Run { seconds: 0, ..Run::default() }, Verdict::CutOff),
        ];
        for (name, run, expected) in table {
            let summary = run.summary();
            assert_eq!(summary.verdict(), expected, "{name}: {}", summary.sentence());
        }
    }

    #[test]
    fn the_line_of_a_death_has_its_numbers() {
        assert_eq!(
            leaking().summary().sentence(),
            "previous run, pid 4711, ended without exit at 497 MB of 512 MB, live heap +24.6 GB/h over 59 s"
        );
        assert_eq!(
            Run::default().summary().sentence(),
            "previous run, pid 4711, ended without exit, killed or crashed, at 120 MB of 512 MB and not near it"
        );
        let silent = Run { seconds: 0, ..Run::default() }.summary();
        assert_eq!(
            silent.sentence(),
            "previous run, pid 4711, ended without exit, killed or crashed; it had no limit that is known"
        );
    }

    #[test]
    fn the_ceiling_of_the_heap_is_no_plateau() {
        let run = Run { heap_limit: 112.0, live: |t| (5.0 + 2.0 * t).min(63.0), ..Run::default() };
        let summary = run.summary();
        assert_eq!(summary.verdict(), Verdict::NearLimit);
        assert_eq!(summary.growth.len(), 1, "{}", summary.sentence());
    }

    #[test]
    fn the_old_space_is_told_from_the_semi_spaces() {
        for (limit, version, old) in [
            (112.0, "v20.20.2", 64.0),
            (112.0, "v22.23.3", 64.0),
            (256.0, "v24.21.0", 64.0),
            (160.0, "v26.10.0", 64.0),
            (4288.0, "v24.21.0", 4096.0),
            (40.0, "v22.0.0", 10.0),
            (4144.0, "", 4096.0),
        ] {
            assert_eq!(old_space_bytes(limit * MB, version), old * MB, "{version} {limit}");
        }
    }

    /// Runs one after another, each beginning two seconds after the one before has ended.
    fn in_a_row(runs: Vec<Run>) -> Vec<RunSummary> {
        let mut start = 1_000_000;
        runs.into_iter()
            .map(|run| {
                let run = Run { started_ms: start, ..run };
                start += run.seconds * 1000 + 2000;
                run.summary()
            })
            .collect()
    }

    fn found(runs: Vec<Run>) -> Option<Vec<SeriesId>> {
        across(&in_a_row(runs), &Config::default()).map(|across| across.series)
    }

    #[test]
    fn the_third_death_of_the_same_growth_is_a_finding() {
        let live = Some(vec![SeriesId::LiveHeap]);
        assert_eq!(found(vec![leaking(), leaking()]), None);
        assert_eq!(found(vec![leaking(), leaking(), leaking()]), live);
        // A deploy in between, or a run cut off half-way, changes nothing.
        let deploy = || Run { exit: Some((Some(0), "exit")), ..Run::default() };
        assert_eq!(found(vec![leaking(), deploy(), leaking(), deploy(), leaking()]), live);
        let half = || Run { seconds: 36, ..leaking() };
        assert_eq!(found(vec![leaking(), half(), leaking()]), live);
        assert_eq!(found(vec![half(), half(), half()]), None);
        // The last three decide: a fix is not blamed for what was before it.
        let full = || Run { used: |_| 490.0, ..Run::default() };
        assert_eq!(found(vec![leaking(), leaking(), full()]), None);
    }

    #[test]
    fn workers_that_die_together_are_one_death() {
        let together: Vec<RunSummary> = (0..8).map(|_| leaking().summary()).collect();
        assert_eq!(across(&together, &Config::default()), None);
    }

    #[test]
    fn healthy_restarts_never_alarm() {
        let runs: Vec<Run> = vec![
            // SIGTERM by default, warm-up only.
            Run { live: |t| 30.0 + 10.0 * (1.0 - (-t / 10.0).exp()), ..Run::default() },
            // A cache that fills and levels off close below the limit.
            Run {
                used: |t| 60.0 + 430.0 * (t / 30.0).min(1.0),
                live: |t| 20.0 + 400.0 * (t / 30.0).min(1.0),
                ..Run::default()
            },
            // A cache that still fills when the deploy comes, far from the limit.
            Run { used: |t| 60.0 + 2.0 * t, live: |t| 20.0 + 2.0 * t, ..Run::default() },
            // The same with a handler for the signal, near the limit.
            Run { exit: Some((Some(0), "exit")), ..leaking() },
            Run { limit: None, ..leaking() },
        ];
        for (i, run) in runs.into_iter().enumerate() {
            let twenty: Vec<RunSummary> = in_a_row(
                (0..20)
                    .map(|_| Run {
                        live: run.live,
                        used: run.used,
                        ..Run { started_ms: 0, ..copy(&run) }
                    })
                    .collect(),
            );
            assert_eq!(across(&twenty, &Config::default()), None, "{i}");
        }
    }

    fn copy(run: &Run) -> Run {
        Run { ..*run }
    }

    #[test]
    fn nothing_in_a_record_makes_it_panic() {
        let mut history = leaking().history();
        for (i, sample) in history.samples.iter_mut().enumerate() {
            let odd = [0.0, -1.0, 1e38, -1e38][i % 4];
            for field in Field::ALL {
                sample.values.set(field, Some(odd));
            }
            sample.at = Millis(u64::MAX - (i as u64 % 3));
        }
        history.header.started_unix_ms = u64::MAX;
        for event in &mut history.readings {
            event.at = Millis(7);
        }
        let summary = summarize(&history, "x");
        let _ = (
            summary.sentence(),
            summary.to_json(None),
            across(&vec![summary; 4], &Config::default()),
        );
    }
}
