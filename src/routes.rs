//! Which route's traffic goes with the growth: live-heap readings with the requests that each route had
//! finished by then, and the judgement on them. Pure; counting and naming is lib/routes.js.
//!
//! All counts rise, and so does the heap: that alone says nothing. What tells routes apart is that their shares of
//! the traffic change, so growth that comes from one route bends where its count bends. One straight line per
//! candidate (a route, all requests, time itself) is laid through heap over count, and the candidates are weighed
//! by what their lines leave over. Routes whose traffic is proportional leave over the same, and so does time where
//! traffic is steady: then no route is named.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::metric::SeriesId;
use crate::sample::Millis;
use crate::series::Shift;
use crate::stats;

/// Rows at most, those of lib/routes.js that are no route included.
pub const MAX_ROUTES: usize = 64;

/// Readings kept with their counts: 66 KB where there are 64 routes. When they are full every second of the older
/// half goes, so that they reach ever further back and are densest now.
const MAX_PAIRS: usize = 128;

/// Series that are read after a major GC, in the order of a pair's values.
const SERIES: [SeriesId; 3] = [SeriesId::LiveHeap, SeriesId::ArrayBuffers, SeriesId::External];

/// Counts that come later than this after the reading they belong to are not those of its moment.
const TOGETHER_MS: u64 = 2_000;

/// Readings from which on routes are weighed.
const MIN_READINGS: usize = 10;

/// Requests that a route must have had: fewer bend at one or two readings only.
const MIN_REQUESTS: f64 = 3.0;

/// Routes that explain growth together, at most.
const MOST_CAUSES: usize = 3;

/// Weight from which on a candidate is believed.
const CERTAIN: f64 = 0.9;

/// Least correlation of a route that is named, both sides freed of their straight line over time.
const LEAST_R: f64 = 0.5;

/// Standard deviations by which the correlation of steps must differ from none: one chance in 200.
const STEPS_Z: f64 = 2.58;

/// Share of the explained growth from which on a second route is worth naming.
const LEAST_SHARE: f64 = 0.1;

/// A route with this share of all requests cannot be told from the traffic as a whole.
const NEARLY_ALL: f64 = 0.95;

/// What readings scatter by even in an idle app, bytes: no line is believed to fit better than this.
const GRAIN_BYTES: f64 = 4096.0;

/// Mean life of the rate shown in `status()`, milliseconds.
const RATE_LIFE_MS: f64 = 30_000.0;

/// Routes that a finding or `status()` lists by traffic.
const MOST_LISTED: usize = 8;

/// Requests by row as one isolate reported them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteCounts {
    /// Names by row, such as `GET /users/:id`.
    pub names: Arc<Vec<String>>,
    /// Requests finished so far, by row; of the first row those begun and not finished.
    pub counts: Vec<f64>,
    /// Whether memory was read after a major GC just now.
    pub after_gc: bool,
}

#[derive(Clone, Debug)]
struct Pair {
    at: Millis,
    values: [Option<f64>; SERIES.len()],
    counts: Box<[f64]>,
}

impl Pair {
    /// A route that was not known yet had no requests.
    fn count(&self, row: usize) -> f64 {
        self.counts.get(row).copied().unwrap_or(0.0)
    }
}

/// Requests of one isolate, and the readings they are compared with.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    names: Arc<Vec<String>>,
    last: Option<(Millis, Vec<f64>)>,
    rates: Vec<f64>,
    pairs: VecDeque<Pair>,
}

/// One route's traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// The route.
    pub route: String,
    /// Requests.
    pub requests: f64,
    /// The same per second.
    pub per_second: f64,
}

/// What a route has to do with the growth.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// Its traffic.
    pub traffic: Traffic,
    /// Growth for each of its requests, bytes.
    pub bytes_per_request: f64,
    /// Its share of the growth that is explained.
    pub share: f64,
    /// How its requests and the growth go together, both freed of their straight line over time: -1 to 1.
    pub r: f64,
    /// Its weight among everything that could stand in its place, 0 to 1.
    pub certainty: f64,
}

/// What the growth goes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With the routes that are named, the first one most.
    Routes,
    /// With one of the routes that are named, which cannot be told apart.
    OneOf,
    /// With all requests alike.
    Traffic,
    /// With time, whatever the traffic.
    Time,
    /// It cannot be told.
    Undecided,
}

impl Verdict {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Routes => "routes",
            Verdict::OneOf => "one_of",
            Verdict::Traffic => "traffic",
            Verdict::Time => "time",
            Verdict::Undecided => "undecided",
        }
    }
}

/// What requests have to do with the growth of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The series that grows.
    pub series: SeriesId,
    /// Readings compared, and the time between the first and the last of them.
    pub readings: usize,
    /// See `readings`; milliseconds.
    pub over_ms: u64,
    /// Requests within that time.
    pub requests: f64,
    /// The same per second.
    pub per_second: f64,
    /// Growth per request, bytes; `None` if it goes with time.
    pub bytes_per_request: Option<f64>,
    /// What it goes with.
    pub verdict: Verdict,
    /// The routes it goes with; empty unless the verdict names some.
    pub with: Vec<Share>,
    /// The routes with most traffic.
    pub traffic: Vec<Traffic>,
}

/// Whether an answer is worth writing beside the one before: it names routes, or others than before. One that is
/// undecided never takes the place of one that is not.
pub fn says_more(answer: &Explanation, before: &Explanation) -> bool {
    let named =
        |of: &Explanation| of.with.iter().map(|of| of.traffic.route.clone()).collect::<Vec<_>>();
    match answer.verdict {
        Verdict::Undecided => false,
        verdict => verdict != before.verdict || named(answer) != named(before),
    }
}

/// Whether whoever was told the answer before must be told this one: it is decided, and so otherwise or for another
/// route. That a lesser route has joined or left the first one is worth writing, but no news.
pub fn is_news(answer: &Explanation, before: Option<&Explanation>) -> bool {
    let first = |of: &Explanation| of.with.first().map(|of| of.traffic.route.clone());
    answer.verdict != Verdict::Undecided
        && before
            .is_none_or(|before| before.verdict != answer.verdict || first(before) != first(answer))
}

/// The traffic of an isolate as `status()` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficView {
    /// Routes that are told apart.
    pub routes: usize,
    /// Requests so far.
    pub requests: f64,
    /// The same per second, over the last half minute or so.
    pub per_second: f64,
    /// The routes with most requests.
    pub top: Vec<Traffic>,
}

impl Routes {
    /// Requests were counted. `last` is the latest reading of a series.
    pub fn on_counts(
        &mut self,
        at: Millis,
        reported: &RouteCounts,
        last: impl Fn(SeriesId) -> Option<(Millis, f64)>,
    ) {
        self.names = Arc::clone(&reported.names);
        let counts = &reported.counts[..reported.counts.len().min(MAX_ROUTES)];
        self.rates.resize(counts.len(), 0.0);
        if let Some((before, old)) = self.last.as_ref().filter(|(before, _)| at > *before) {
            let ms = (at.0 - before.0) as f64;
            let fresh = 1.0 - (-ms / RATE_LIFE_MS).exp();
            for (row, (rate, count)) in self.rates.iter_mut().zip(counts).enumerate() {
                let new = count - old.get(row).copied().unwrap_or(0.0);
                *rate += (new.max(0.0) * 1000.0 / ms - *rate) * fresh;
            }
        }
        self.last = Some((at, counts.to_vec()));
        let values = SERIES.map(|series| {
            last(series).filter(|(read, _)| at.0 <= read.0 + TOGETHER_MS).map(|(_, value)| value)
        });
        if reported.after_gc && values.iter().any(Option::is_some) {
            if self.pairs.len() >= MAX_PAIRS {
                self.thin();
            }
            self.pairs.push_back(Pair { at, values, counts: counts.into() });
        }
    }

    /// Drops every second pair of the older half.
    fn thin(&mut self) {
        let mut index = 0;
        self.pairs.retain(|_| {
            index += 1;
            index > MAX_PAIRS / 2 || index % 2 == 0
        });
    }

    /// Readings that were paired with counts so far and are kept.
    pub fn last_pair(&self) -> Option<Millis> {
        self.pairs.back().map(|pair| pair.at)
    }

    /// Whether the judgement knows this series.
    pub fn knows(series: SeriesId) -> bool {
        SERIES.contains(&series)
    }

    /// The traffic now.
    pub fn view(&self) -> Option<TrafficView> {
        let (_, counts) = self.last.as_ref()?;
        Some(TrafficView {
            routes: counts.iter().skip(FIRST_ROUTE).filter(|count| **count > 0.0).count(),
            requests: counts.iter().sum(),
            per_second: self.rates.iter().sum(),
            top: self.busiest(counts.iter().copied().zip(self.rates.iter().copied())),
        })
    }

    /// What the requests since `from` have to do with the growth of a series, what the guard itself raised it by not
    /// counted. `None` if there were none, or it was not read.
    pub fn explain(
        &self,
        series: SeriesId,
        from: Millis,
        raised: Option<Shift>,
    ) -> Option<Explanation> {
        let index = SERIES.iter().position(|known| *known == series)?;
        let (pairs, mut y): (Vec<&Pair>, Vec<f64>) = self
            .pairs
            .iter()
            .filter(|pair| pair.at >= from)
            .filter_map(|pair| Some((pair, pair.values[index]?)))
            .unzip();
        let (first, last) = (pairs.first()?, pairs.last()?);
        let over_ms = last.at.0 - first.at.0;
        let rows = last.counts.len();
        let had = |row: usize| (last.count(row) - first.count(row)).max(0.0);
        let requests: f64 = (0..rows).map(had).sum();
        if over_ms == 0 || requests <= 0.0 {
            return None;
        }
        if let Some(shift) = raised {
            let line: Vec<(f64, f64)> =
                pairs.iter().zip(&y).map(|(pair, y)| (pair.at.0 as f64, *y)).collect();
            let at = pairs.partition_point(|pair| pair.at < shift.at);
            let own = stats::level_change(&line, at).map_or(0.0, |step| shift.amount(step));
            y[at..].iter_mut().for_each(|y| *y -= own);
        }
        let seconds = over_ms as f64 / 1000.0;
        let columns = |pairs: &[&Pair]| columns(pairs, rows, requests);
        let (whole, heap) = (columns(&pairs), centred(y.clone()));
        let scales = Scales { y: &heap, columns: &whole };
        let per_ms = scales.fit(&[0]).map_or(0.0, |line| line.slopes[0]);
        let (mut verdict, mut guilty) = scales.weigh();
        if let Some(lead) = guilty.first().map(|of| of.row) {
            // Whom one reading alone accuses is not accused.
            let fewer = pairs.len() - 1;
            let (columns, heap) = (columns(&pairs[..fewer]), centred(y[..fewer].to_vec()));
            let (_, before) = Scales { y: &heap, columns: &columns }.weigh();
            if before.iter().all(|of| of.row != lead) {
                (verdict, guilty) = (Verdict::Undecided, Vec::new());
            }
        }
        let with = guilty
            .into_iter()
            .map(|of| Share {
                traffic: Traffic {
                    route: self.name(of.row),
                    requests: had(of.row),
                    per_second: had(of.row) / seconds,
                },
                bytes_per_request: of.slope,
                share: of.share,
                r: of.r,
                certainty: of.certainty,
            })
            .collect();
        Some(Explanation {
            series,
            readings: pairs.len(),
            over_ms,
            requests,
            per_second: requests / seconds,
            bytes_per_request: (verdict != Verdict::Time && per_ms > 0.0)
                .then_some(per_ms * over_ms as f64 / requests),
            verdict,
            with,
            traffic: self.busiest((0..rows).map(|row| (had(row), had(row) / seconds))),
        })
    }

    /// Requests and rate by row, those with most of them first.
    fn busiest(&self, by_row: impl Iterator<Item = (f64, f64)>) -> Vec<Traffic> {
        let mut rows: Vec<(usize, (f64, f64))> =
            by_row.enumerate().filter(|(_, (requests, _))| *requests > 0.0).collect();
        rows.sort_by(|(_, a), (_, b)| b.0.total_cmp(&a.0));
        rows.truncate(MOST_LISTED);
        rows.into_iter()
            .map(|(row, (requests, per_second))| Traffic {
                route: self.name(row),
                requests,
                per_second,
            })
            .collect()
    }

    fn name(&self, row: usize) -> String {
        self.names.get(row).cloned().unwrap_or_else(|| "(unnamed)".into())
    }
}

/// The rows before it are requests that have not ended and routes beyond the most.
const FIRST_ROUTE: usize = 2;

/// What growth may go with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
    Time,
    Traffic,
    Route(usize),
}

/// A route that was found guilty, before it has its name.
#[derive(Clone, Debug)]
struct Guilty {
    row: usize,
    slope: f64,
    share: f64,
    r: f64,
    certainty: f64,
}

/// What each candidate would have the growth look like, freed of its mean; time first.
fn columns(pairs: &[&Pair], rows: usize, requests: f64) -> Vec<(Candidate, Vec<f64>)> {
    let Some(first) = pairs.first() else { return Vec::new() };
    let mut all = vec![0.0; pairs.len()];
    let mut columns =
        vec![(Candidate::Time, pairs.iter().map(|pair| (pair.at.0 - first.at.0) as f64).collect())];
    let mut nearly_all = false;
    for row in 0..rows {
        let column: Vec<f64> =
            pairs.iter().map(|pair| pair.count(row) - first.count(row)).collect();
        for (sum, count) in all.iter_mut().zip(&column) {
            *sum += count;
        }
        let had = column.last().copied().unwrap_or(0.0);
        nearly_all |= had >= NEARLY_ALL * requests;
        if had >= MIN_REQUESTS {
            columns.push((Candidate::Route(row), column));
        }
    }
    if !nearly_all {
        columns.push((Candidate::Traffic, all));
    }
    columns.into_iter().map(|(candidate, column)| (candidate, centred(column))).collect()
}

fn centred(mut values: Vec<f64>) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    for value in &mut values {
        *value -= mean;
    }
    values
}

/// The growth and everything it may go with, all freed of their means.
struct Scales<'a> {
    y: &'a [f64],
    columns: &'a [(Candidate, Vec<f64>)],
}

/// Candidates that explain the growth together, by their index, and the lines they do it with.
struct Choice {
    chosen: Vec<usize>,
    fit: Fit,
}

impl Choice {
    /// How much of the growth each of them explains.
    fn explained(&self, columns: &[(Candidate, Vec<f64>)]) -> Vec<f64> {
        let rise = |at: usize| columns[at].1.last().copied().unwrap_or(0.0) - columns[at].1[0];
        self.chosen.iter().zip(&self.fit.slopes).map(|(at, slope)| slope * rise(*at)).collect()
    }
}

/// A candidate in the place of another: its index, its weight among all that could stand there, its slope.
struct Substitute {
    at: usize,
    weight: f64,
    slope: f64,
}

impl Scales<'_> {
    /// Finds what the growth goes with.
    fn weigh(&self) -> (Verdict, Vec<Guilty>) {
        let undecided = (Verdict::Undecided, Vec::new());
        if self.y.len() < MIN_READINGS {
            return undecided;
        }
        let Some(choice) = self.choose() else { return undecided };
        let explained = choice.explained(self.columns);
        // What explains most decides what is said.
        let places = 0..choice.chosen.len();
        let Some(lead) = places.clone().max_by(|a, b| explained[*a].total_cmp(&explained[*b]))
        else {
            return undecided;
        };
        let substitutes = self.substitutes(&choice, lead);
        let leader = choice.chosen[lead];
        let own = substitutes.iter().find(|one| one.at == leader);
        let certain = own.is_some_and(|one| one.weight >= CERTAIN);
        match self.columns[leader].0 {
            Candidate::Time if certain => return (Verdict::Time, Vec::new()),
            Candidate::Traffic if certain => return (Verdict::Traffic, Vec::new()),
            Candidate::Route(row) if certain => {
                let mut with: Vec<Guilty> = places
                    .filter_map(|place| {
                        let substitutes = self.substitutes(&choice, place);
                        let own = substitutes.iter().find(|one| one.at == choice.chosen[place])?;
                        self.guilty(&choice, place, own)
                    })
                    .filter(|of| {
                        of.certainty >= CERTAIN && of.r >= LEAST_R && of.share >= LEAST_SHARE
                    })
                    .collect();
                with.sort_by(|a, b| b.share.total_cmp(&a.share));
                // Without the one that matters most the others are not worth a word.
                if with.first().is_some_and(|of| of.row == row) {
                    return (Verdict::Routes, with);
                }
            }
            _ => {}
        }
        // None of them stands alone: perhaps a few routes do together.
        let (mut with, mut sum) = (Vec::new(), 0.0);
        for one in substitutes.iter().take(MOST_CAUSES) {
            let Some(of) = self.guilty(&choice, lead, one).filter(|of| of.r >= LEAST_R) else {
                break;
            };
            sum += of.certainty;
            with.push(of);
            if sum >= CERTAIN && with.len() > 1 {
                return (Verdict::OneOf, with);
            }
        }
        undecided
    }

    /// The candidate whose line leaves over least, and those beside it that are worth their own line.
    fn choose(&self) -> Option<Choice> {
        let mut choice: Option<Choice> = None;
        loop {
            let chosen = choice.as_ref().map_or(&[][..], |choice| &choice.chosen);
            let next = (0..self.columns.len())
                .filter(|at| !chosen.contains(at))
                .filter_map(|at| {
                    let chosen = [chosen, &[at]].concat();
                    let fit = self.fit(&chosen)?;
                    Some(Choice { chosen, fit })
                })
                .min_by(|a, b| a.fit.left.total_cmp(&b.fit.left));
            let Some(next) = next else { return choice };
            if let Some(before) = &choice {
                // A further line always leaves over less; it must be worth having looked at all of them.
                let gain = self.strength(&next) * (before.fit.left / next.fit.left).ln();
                if gain < (self.columns.len() as f64).ln() + 2.0 {
                    return choice;
                }
            }
            let full = next.chosen.len() >= MOST_CAUSES;
            choice = Some(next);
            if full {
                return choice;
            }
        }
    }

    /// Half the readings that count: those that the lines are laid through are spent, and where what is left
    /// over goes on in one direction from reading to reading, the next tells less than a whole one.
    ///
    /// Source of the effective number: G. V. Bayley and J. M. Hammersley, "The 'effective' number of independent
    /// observations in an autocorrelated time series", JRSS Suppl. 8 (1946), for first-order correlation.
    fn strength(&self, choice: &Choice) -> f64 {
        let left = self.left_over(&choice.chosen, &choice.fit.slopes);
        let products: f64 = left.windows(2).map(|pair| pair[0] * pair[1]).sum();
        // With the grain in it: where nothing is left over, rounding is no correlation.
        let rho = (products / choice.fit.left).clamp(0.0, 0.95);
        let effective = self.y.len() as f64 * (1.0 - rho) / (1.0 + rho);
        ((effective - choice.chosen.len() as f64 - 1.0) / 2.0).max(0.5)
    }

    /// What could stand in the place of one of the chosen, the likeliest first. Weights are likelihoods of
    /// normal errors of unknown size, and sum up to 1.
    fn substitutes(&self, choice: &Choice, place: usize) -> Vec<Substitute> {
        let strength = self.strength(choice);
        let mut found: Vec<Substitute> = (0..self.columns.len())
            .filter(|at| *at == choice.chosen[place] || !choice.chosen.contains(at))
            .filter_map(|at| {
                let mut chosen = choice.chosen.clone();
                chosen[place] = at;
                let fit = self.fit(&chosen)?;
                let weight = self.prior(at) * (strength * (choice.fit.left / fit.left).ln()).exp();
                Some(Substitute { at, weight, slope: fit.slopes[place] })
            })
            .collect();
        let sum: f64 = found.iter().map(|one| one.weight).sum();
        for one in &mut found {
            one.weight /= sum;
        }
        found.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        found
    }

    /// How likely a candidate is before anything was read: one route, all requests and time are equally likely,
    /// and so is each of the routes. Otherwise one of many routes would look right by chance.
    fn prior(&self, at: usize) -> f64 {
        match self.columns[at].0 {
            Candidate::Time | Candidate::Traffic => self.columns.len() as f64,
            Candidate::Route(_) => 1.0,
        }
    }

    /// A route in one of the places; `None` if it is no route.
    fn guilty(&self, choice: &Choice, place: usize, one: &Substitute) -> Option<Guilty> {
        let (Candidate::Route(row), column) = &self.columns[one.at] else { return None };
        // What the others explain is not its business. Time is taken out of both sides below.
        let (mut others, mut slopes) = (Vec::new(), Vec::new());
        for (other, at) in choice.chosen.iter().enumerate() {
            if other != place && self.columns[*at].0 != Candidate::Time {
                others.push(*at);
                slopes.push(choice.fit.slopes[other]);
            }
        }
        let growth = off_line(&self.left_over(&others, &slopes), &self.columns[0].1);
        let requests = off_line(column, &self.columns[0].1);
        if !rises_with(&growth, &requests) {
            return None;
        }
        let explained = choice.explained(self.columns);
        Some(Guilty {
            row: *row,
            slope: one.slope,
            share: explained[place] / explained.iter().sum::<f64>(),
            r: correlation(&growth, &requests),
            certainty: one.weight,
        })
    }

    /// Lines through all of the chosen at once, by least squares; `None` if one of them does not rise, or two
    /// are the same.
    fn fit(&self, chosen: &[usize]) -> Option<Fit> {
        let columns: Vec<&[f64]> = chosen.iter().map(|at| self.columns[*at].1.as_slice()).collect();
        let slopes = least_squares(self.y, &columns)?;
        if slopes.iter().any(|slope| *slope <= 0.0) {
            return None;
        }
        let squares: f64 = self.left_over(chosen, &slopes).iter().map(|e| e * e).sum();
        Some(Fit { slopes, left: squares + self.y.len() as f64 * GRAIN_BYTES * GRAIN_BYTES })
    }

    /// What the lines leave over.
    fn left_over(&self, chosen: &[usize], slopes: &[f64]) -> Vec<f64> {
        let mut left = self.y.to_vec();
        for (at, slope) in chosen.iter().zip(slopes) {
            for (left, x) in left.iter_mut().zip(&self.columns[*at].1) {
                *left -= slope * x;
            }
        }
        left
    }
}

/// Lines, and the sum of squares they leave over.
struct Fit {
    slopes: Vec<f64>,
    left: f64,
}

/// Solves the normal equations of at most a few columns; `None` where they are not independent.
fn least_squares(y: &[f64], columns: &[&[f64]]) -> Option<Vec<f64>> {
    let size = columns.len();
    let mut rows: Vec<Vec<f64>> = columns
        .iter()
        .map(|a| columns.iter().map(|b| dot(a, b)).chain([dot(a, y)]).collect())
        .collect();
    let scale: Vec<f64> = columns.iter().map(|column| dot(column, column)).collect();
    for pivot in 0..size {
        // The matrix is positive definite, so that no rows need to be exchanged.
        if rows[pivot][pivot] <= 1e-9 * scale[pivot] {
            return None;
        }
        let lead = rows[pivot].clone();
        for (at, row) in rows.iter_mut().enumerate() {
            if at != pivot {
                let factor = row[pivot] / lead[pivot];
                for (value, lead) in row.iter_mut().zip(&lead) {
                    *value -= factor * lead;
                }
            }
        }
    }
    Some((0..size).map(|at| rows[at][size] / rows[at][at]).collect())
}

/// `values` without their straight line over `time`, both freed of their means.
fn off_line(values: &[f64], time: &[f64]) -> Vec<f64> {
    let slope = match dot(time, time) {
        square if square > 0.0 => dot(values, time) / square,
        _ => 0.0,
    };
    values.iter().zip(time).map(|(value, time)| value - slope * time).collect()
}

/// Whether growth from reading to reading goes with the requests between them. A heap that wanders by itself and a
/// count that wanders by itself often bend alike over a while; their steps do not. Fisher's z of the correlation
/// of steps, one-sided.
fn rises_with(growth: &[f64], requests: &[f64]) -> bool {
    let steps =
        |values: &[f64]| values.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
    let (growth, requests) = (steps(growth), steps(requests));
    let r = correlation(&growth, &requests).clamp(-0.999_999, 0.999_999);
    r.atanh() * (growth.len() as f64 - 3.0).max(0.0).sqrt() >= STEPS_Z
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let product = (dot(a, a) * dot(b, b)).sqrt();
    if product > 0.0 { dot(a, b) / product } else { 0.0 }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64*, Vigna (2016): enough for made-up traffic.
    struct Random(u64);

    impl Random {
        fn new(seed: u64) -> Random {
            Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
        }

        fn unit(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
        }

        /// About normal, of deviation 1.
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
        }
    }

    const ROUTES: usize = 12;
    /// What a reading scatters by: what is under way, and what was allocated while V8 marked.
    const NOISE: f64 = 40_000.0;

    /// How requests come in.
    #[derive(Clone, Copy, PartialEq)]
    enum Pattern {
        /// Every route's share wanders by itself.
        Wandering,
        /// All routes rise and fall together.
        Together,
        /// The same number in every interval.
        Steady,
    }

    /// `readings` readings 4 s apart with some 60 requests a second over all routes; `growth` says what they leave.
    fn played(
        seed: u64,
        readings: usize,
        pattern: Pattern,
        growth: impl Fn(f64, &[f64]) -> f64,
    ) -> Routes {
        let mut random = Random::new(seed);
        let names: Vec<String> = ["(unfinished)", "(other)"]
            .into_iter()
            .map(String::from)
            .chain((0..ROUTES).map(|route| format!("GET /r{route}")))
            .collect();
        let names = Arc::new(names);
        let mut routes = Routes::default();
        let mut counts = vec![0.0; names.len()];
        let mut moods = [0.0f64; ROUTES];
        for reading in 0..readings as u64 {
            let at = Millis(10_000 + reading * 4_000);
            let heap = 20e6 + growth((reading * 4) as f64, &counts) + NOISE * random.normal();
            let reported =
                RouteCounts { names: Arc::clone(&names), counts: counts.clone(), after_gc: true };
            routes.on_counts(at, &reported, |id| (id == SeriesId::LiveHeap).then_some((at, heap)));
            let common = random.normal();
            for (route, mood) in moods.iter_mut().enumerate() {
                *mood = match pattern {
                    Pattern::Wandering => 0.7 * *mood + 0.7 * random.normal(),
                    Pattern::Together => common,
                    Pattern::Steady => 0.0,
                };
                let mean = 20.0 * (0.8 * *mood).exp();
                let scatter =
                    if pattern == Pattern::Wandering { mean.sqrt() * random.normal() } else { 0.0 };
                counts[FIRST_ROUTE + route] += (mean + scatter).round().max(0.0);
            }
        }
        routes
    }

    fn explained(routes: &Routes) -> Explanation {
        routes.explain(SeriesId::LiveHeap, Millis(0), None).expect("there were requests")
    }

    #[test]
    fn a_leak_on_one_route_of_twelve_is_named_in_ten_of_ten_runs() {
        for seed in 1..=10 {
            let leaking = seed as usize % ROUTES;
            let of = explained(&played(seed, 20, Pattern::Wandering, |_, counts| {
                14_000.0 * counts[FIRST_ROUTE + leaking]
            }));
            assert_eq!(of.verdict, Verdict::Routes, "seed {seed}: {of:?}");
            let first = &of.with[0];
            assert_eq!(first.traffic.route, format!("GET /r{leaking}"), "seed {seed}");
            assert!((11_000.0..17_000.0).contains(&first.bytes_per_request), "{first:?}");
            assert!(first.r > 0.8 && first.certainty > 0.9, "{first:?}");
        }
    }

    #[test]
    fn two_leaking_routes_are_named_with_their_shares() {
        let mut both = 0;
        for seed in 1..=10 {
            let of = explained(&played(seed, 40, Pattern::Wandering, |_, counts| {
                14_000.0 * counts[FIRST_ROUTE] + 7_000.0 * counts[FIRST_ROUTE + 5]
            }));
            for share in &of.with {
                let route = &share.traffic.route;
                assert!(["GET /r0", "GET /r5"].contains(&route.as_str()), "seed {seed}: {of:?}");
            }
            both += u32::from(of.with.len() == 2);
        }
        assert!(both >= 8, "{both}");
    }

    #[test]
    fn routes_in_proportion_are_never_told_apart() {
        for seed in 1..=20 {
            let of = explained(&played(seed, 30, Pattern::Together, |_, counts| {
                14_000.0 * counts[FIRST_ROUTE + 3]
            }));
            assert!(of.verdict != Verdict::Routes, "seed {seed}: {of:?}");
            assert!(of.bytes_per_request.is_some());
        }
    }

    #[test]
    fn two_routes_in_proportion_are_named_as_one_of_two() {
        let mut routes = Routes::default();
        let mut random = Random::new(3);
        let names = ["(unfinished)", "(other)", "GET /a", "GET /b", "GET /c"];
        let names = Arc::new(names.map(String::from).to_vec());
        let (mut a, mut c) = (0.0, 0.0);
        for reading in 0..24u64 {
            let at = Millis(reading * 60_000);
            let heap = 30e6 + 5_000.0 * a + 10_000.0 * random.normal();
            let counts = vec![0.0, 0.0, a, 2.0 * a, c];
            let reported = RouteCounts { names: Arc::clone(&names), counts, after_gc: true };
            routes.on_counts(at, &reported, |id| (id == SeriesId::LiveHeap).then_some((at, heap)));
            a += (100.0 * random.unit()).round();
            c += (900.0 * random.unit()).round();
        }
        let of = explained(&routes);
        assert_eq!(of.verdict, Verdict::OneOf, "{of:?}");
        let mut named: Vec<&str> = of.with.iter().map(|of| of.traffic.route.as_str()).collect();
        named.sort_unstable();
        assert_eq!(named, ["GET /a", "GET /b"]);
    }

    #[test]
    fn growth_with_time_names_no_route() {
        for pattern in [Pattern::Wandering, Pattern::Together, Pattern::Steady] {
            for seed in 1..=30 {
                for readings in [10, 14, 30] {
                    let of = explained(&played(seed, readings, pattern, |s, _| 70_000.0 * s));
                    assert!(of.with.is_empty(), "seed {seed}: {of:?}");
                    assert_ne!(of.verdict, Verdict::Traffic, "seed {seed}: {of:?}");
                }
            }
        }
        let of = explained(&played(1, 30, Pattern::Wandering, |s, _| 70_000.0 * s));
        assert_eq!((of.verdict, of.bytes_per_request), (Verdict::Time, None));
    }

    #[test]
    fn growth_with_every_request_names_no_route_and_gives_bytes_per_request() {
        for seed in 1..=20 {
            let of = explained(&played(seed, 24, Pattern::Wandering, |_, counts| {
                1_200.0 * counts.iter().sum::<f64>()
            }));
            assert!(of.with.is_empty(), "seed {seed}: {of:?}");
            let per_request = of.bytes_per_request.expect("it goes with requests");
            assert!((900.0..1_500.0).contains(&per_request), "{of:?}");
        }
    }

    #[test]
    fn a_heap_that_wanders_by_itself_names_no_route_more_than_rarely() {
        let mut named = 0;
        for seed in 1..=100 {
            let mut steps = Random::new(seed + 1000);
            let walk: Vec<f64> = (0..30)
                .scan(0.0, |level, _| {
                    *level += 280_000.0 + 300_000.0 * steps.normal();
                    Some(*level)
                })
                .collect();
            let routes = played(seed, 30, Pattern::Wandering, |s, _| walk[(s / 4.0) as usize]);
            named += u32::from(!explained(&routes).with.is_empty());
        }
        assert!(named <= 5, "{named} of 100");
    }

    #[test]
    fn growth_without_any_noise_is_named_too() {
        let names = ["(unfinished)", "(other)", "GET /a", "GET /b", "GET /c"];
        let names = Arc::new(names.map(String::from).to_vec());
        let mut routes = Routes::default();
        let (mut a, mut b) = (0.0, 0.0);
        for second in 0..90u64 {
            let at = Millis(second * 1000);
            if second % 4 == 0 {
                let counts = vec![0.0, 0.0, a, b, 9.0 * second as f64];
                let reported = RouteCounts { names: Arc::clone(&names), counts, after_gc: true };
                let heap = 20e6 + 10_000.0 * a;
                routes.on_counts(at, &reported, |id| {
                    (id == SeriesId::LiveHeap).then_some((at, heap))
                });
            }
            let first = if second / 14 % 2 == 0 { 12.0 } else { 2.0 };
            a += first;
            b += 14.0 - first;
        }
        let of = explained(&routes);
        assert_eq!(of.verdict, Verdict::Routes, "{of:?}");
        assert_eq!(of.with[0].traffic.route, "GET /a");
        assert!((of.with[0].bytes_per_request - 10_000.0).abs() < 1.0, "{of:?}");
    }

    #[test]
    fn too_few_readings_give_bytes_per_request_only() {
        let routes = played(1, 6, Pattern::Wandering, |_, counts| 14_000.0 * counts[FIRST_ROUTE]);
        let of = explained(&routes);
        assert_eq!((of.verdict, of.readings), (Verdict::Undecided, 6));
        assert!(of.bytes_per_request.is_some());
        assert_eq!(routes.explain(SeriesId::External, Millis(0), None), None);
    }

    #[test]
    fn pairs_stay_bounded_and_reach_back_to_the_start() {
        let routes = played(1, 5_000, Pattern::Wandering, |s, _| s);
        assert!(routes.pairs.len() <= MAX_PAIRS);
        let gaps: Vec<u64> = routes
            .pairs
            .iter()
            .zip(routes.pairs.iter().skip(1))
            .map(|(a, b)| b.at.0 - a.at.0)
            .collect();
        assert!(gaps.iter().rev().take(MAX_PAIRS / 4).all(|gap| *gap == 4_000), "{gaps:?}");
        assert!(gaps.first() > gaps.last());
    }

    #[test]
    fn the_view_has_the_busiest_routes_and_their_rates() {
        let routes = played(1, 40, Pattern::Steady, |_, _| 0.0);
        let view = routes.view().expect("counted");
        assert_eq!((view.routes, view.top.len()), (ROUTES, MOST_LISTED));
        assert!((50.0..70.0).contains(&view.per_second), "{view:?}");
    }
}
