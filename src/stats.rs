//! Robust trend statistics. Pure functions over slices; no time, no units: the caller says what x and y
//! are. Sorting is by `total_cmp`, so a NaN that slips in is last and never a panic. Up to [`FEW`] points are
//! judged without allocating: the guard does it hundreds of times in a second.

/// Points up to which nothing is allocated.
const FEW: usize = 24;

/// Pairs of so many points.
const FEW_PAIRS: usize = FEW * (FEW - 1) / 2;

/// Bound of [`inflation`]. A rise without noise that is bent is all residual, and each like the one before: six readings of
/// it, each higher than the last, are still told from noise.
const MOST_INFLATED: f64 = 2.5;

/// Standard deviation of normal noise whose median absolute deviation is one.
const MAD_TO_DEVIATION: f64 = 1.4826;

/// Median; for an even count the mean of the two middle values. `None` for an empty slice.
pub fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    let (below, &mut high, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if below.len() == middle && values.len() % 2 == 1 {
        return Some(high);
    }
    let low = values[..middle].iter().copied().max_by(f64::total_cmp)?;
    Some((low + high) / 2.0)
}

/// Value below which the fraction `q` of the values lies, by the nearest-rank rule.
pub fn quantile(values: &mut [f64], q: f64) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let rank = (q.clamp(0.0, 1.0) * values.len() as f64).ceil() as usize;
    let (_, &mut value, _) =
        values.select_nth_unstable_by(rank.clamp(1, values.len()) - 1, f64::total_cmp);
    Some(value)
}

/// Median absolute deviation from the median, not scaled.
pub fn mad(values: &[f64]) -> Option<f64> {
    let centre = median(&mut values.to_vec())?;
    median(&mut values.iter().map(|value| (value - centre).abs()).collect::<Vec<_>>())
}

/// A straight line y = intercept + slope * x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Change of y for one unit of x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
}

impl Line {
    /// y at `x`.
    pub fn at(self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// The Theil-Sen line: median of the slopes of all pairs; the intercept is the median of y - slope * x.
/// Up to 29 % of the points may be anything. `None` with fewer than two distinct x. Quadratic in the
/// number of points: callers pass at most a few dozen.
///
/// Source: P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968).
pub fn theil_sen(points: &[(f64, f64)]) -> Option<Line> {
    let pairs = points.len() * points.len().saturating_sub(1) / 2;
    let slope = with_buffer::<FEW_PAIRS, _>(pairs, |slopes| {
        let mut filled = 0;
        for (i, &(x1, y1)) in points.iter().enumerate() {
            for &(x2, y2) in &points[i + 1..] {
                if x2 != x1 {
                    slopes[filled] = (y2 - y1) / (x2 - x1);
                    filled += 1;
                }
            }
        }
        median(&mut slopes[..filled])
    })?;
    let intercept = with_buffer::<FEW, _>(points.len(), |intercepts| {
        for (intercept, (x, y)) in intercepts.iter_mut().zip(points) {
            *intercept = y - slope * x;
        }
        median(intercepts)
    })?;
    Some(Line { slope, intercept })
}

/// Slopes between which the true one lies with so many standard deviations of Kendall's statistic to each side: of all
/// pairs' slopes in order those that many ranks from the middle. It holds for noise that is independent from point to
/// point, of any distribution. `None` with fewer than two distinct x. Quadratic as [`theil_sen`].
///
/// Source: P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968), section 3.
pub fn slope_interval(points: &[(f64, f64)], deviations: f64) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    let pairs = points.len() * points.len().saturating_sub(1) / 2;
    with_buffer::<FEW_PAIRS, _>(pairs, |slopes| {
        let mut filled = 0;
        for (i, &(x1, y1)) in points.iter().enumerate() {
            for &(x2, y2) in &points[i + 1..] {
                if x2 != x1 {
                    slopes[filled] = (y2 - y1) / (x2 - x1);
                    filled += 1;
                }
            }
        }
        let slopes = slopes.get_mut(..filled).filter(|slopes| !slopes.is_empty())?;
        let spread = deviations * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
        let low = ((filled as f64 - spread) / 2.0).floor().max(0.0) as usize;
        let (low, high) = (low.min(filled - 1), (filled - 1).saturating_sub(low));
        let (_, &mut first, _) = slopes.select_nth_unstable_by(low.min(high), f64::total_cmp);
        let (_, &mut last, _) = slopes.select_nth_unstable_by(high.max(low), f64::total_cmp);
        Some((first, last))
    })
}

/// A change of level, and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// By how much the level changes.
    pub by: f64,
    /// Standard error of that, were the noise independent from point to point.
    pub error: f64,
}

/// By how much the level changes at the point of index `at` if the slope on both sides is the same: that slope is the
/// median of the slopes of all pairs that lie on one side, and each side's level the median of y - slope * x. `None` if
/// a side is empty or there is no such pair. Quadratic as [`theil_sen`], which it is with an indicator beside x.
///
/// The error is that of least squares for a step in the middle of a trend, twice that of two means, with the median
/// absolute deviation of the residuals for the noise.
///
/// Source: the aligned-rank idea of J. L. Hodges and E. L. Lehmann, "Rank methods for combination of independent
/// experiments in analysis of variance", Ann. Math. Statist. 33 (1962), applied to Sen's slope.
pub fn level_change(points: &[(f64, f64)], at: usize) -> Option<Step> {
    let (before, after) = points.split_at_checked(at)?;
    let of = |side: &[(f64, f64)]| side.len() * side.len().saturating_sub(1) / 2;
    let slope = with_buffer::<FEW_PAIRS, _>(of(before) + of(after), |slopes| {
        let mut filled = 0;
        for side in [before, after] {
            for (i, &(x1, y1)) in side.iter().enumerate() {
                for &(x2, y2) in &side[i + 1..] {
                    if x2 != x1 {
                        slopes[filled] = (y2 - y1) / (x2 - x1);
                        filled += 1;
                    }
                }
            }
        }
        median(&mut slopes[..filled])
    })?;
    let level = |side: &[(f64, f64)]| {
        with_buffer::<FEW, _>(side.len(), |levels| {
            for (level, (x, y)) in levels.iter_mut().zip(side) {
                *level = y - slope * x;
            }
            median(levels)
        })
    };
    let (low, high) = (level(before)?, level(after)?);
    let deviation = with_buffer::<FEW, _>(points.len(), |deviations| {
        for (i, (deviation, (x, y))) in deviations.iter_mut().zip(points).enumerate() {
            let level = if i < at { low } else { high };
            *deviation = (y - slope * x - level).abs();
        }
        median(deviations)
    })?;
    let means = (1.0 / before.len() as f64 + 1.0 / after.len() as f64).sqrt();
    Some(Step { by: high - low, error: 2.0 * MAD_TO_DEVIATION * deviation * means })
}

/// Whether the slope of [`theil_sen`] is certainly below `least`: more than half of all pairs rise by less. The points
/// are in order of x. Counting costs a tenth of the median, and most of what is judged does not rise. At a
/// slope of just `least` it may go either way by a rounding error.
pub fn is_slower(points: &[(f64, f64)], least: f64) -> bool {
    let (mut slower, mut pairs) = (0u32, 0u32);
    for (i, &(x1, y1)) in points.iter().enumerate() {
        for &(x2, y2) in &points[i + 1..] {
            pairs += u32::from(x2 != x1);
            slower += u32::from((x2 != x1) & (y2 - y1 < least * (x2 - x1)));
        }
    }
    slower * 2 > pairs
}

/// Hands `work` a slice of `len` zeros, on the stack if `N` are enough.
fn with_buffer<const N: usize, T>(len: usize, work: impl FnOnce(&mut [f64]) -> T) -> T {
    let mut few = [0.0; N];
    match few.get_mut(..len) {
        Some(buffer) => work(buffer),
        None => work(&mut vec![0.0; len]),
    }
}

/// Probability of an upward trend at least this strong if there were none (one-sided Mann-Kendall test,
/// normal approximation with continuity correction and correction for ties). 1.0 where nothing can be
/// said (fewer than four values, or all equal).
///
/// Source: M. G. Kendall, "Rank Correlation Methods" (1975), ch. 4; the approximation is within 0.01 of
/// the exact distribution from n = 8, and conservative below.
///
/// `inflated` is by how much the variance is larger than that of independent noise, see [`inflation`].
pub fn mann_kendall_rising(values: &[f64], inflated: f64) -> f64 {
    let n = values.len();
    if n < 4 {
        return 1.0;
    }
    let mut s = 0i64;
    for (i, a) in values.iter().enumerate() {
        for b in &values[i + 1..] {
            s += i64::from(b > a) - i64::from(b < a);
        }
    }
    let variance_term = |t: f64| t * (t - 1.0) * (2.0 * t + 5.0);
    let ties: f64 = with_buffer::<FEW, _>(n, |sorted| {
        sorted.copy_from_slice(values);
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.chunk_by(|a, b| a == b).map(|group| variance_term(group.len() as f64)).sum()
    });
    let variance = inflated * (variance_term(n as f64) - ties) / 18.0;
    if variance <= 0.0 {
        return 1.0;
    }
    let z = (s - s.signum()) as f64 / variance.sqrt();
    1.0 - normal_cdf(z)
}

/// Standard normal distribution function, absolute error below 7.5e-8.
///
/// Source: Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.2.17.
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if z >= 0.0 { 1.0 - tail } else { tail }
}

/// By how much the noise around a line makes the variance of its trend larger than independent noise would: (1 + r) / (1 - r)
/// for residuals of which each is r times the one before, between 1 and [`MOST_INFLATED`]. A wave that is read many times
/// says no more than one that is read a few times. Two points or fewer say nothing: 1.
///
/// Source: H. von Storch, "Misuses of statistical analysis in climate research" (1995), section 2.3; K. H. Hamed and A. R.
/// Rao, "A modified Mann-Kendall trend test for autocorrelated data", J. Hydrology 204 (1998).
pub fn inflation(points: &[(f64, f64)], line: Line) -> f64 {
    let n = points.len() as f64;
    let residual = |&(x, y): &(f64, f64)| y - line.at(x);
    let mean = points.iter().map(residual).sum::<f64>() / n;
    let variance: f64 = points.iter().map(|point| (residual(point) - mean).powi(2)).sum();
    let shared: f64 = points
        .windows(2)
        .map(|pair| (residual(&pair[0]) - mean) * (residual(&pair[1]) - mean))
        .sum();
    let r = shared / variance;
    if points.len() <= 2 || !r.is_finite() {
        return 1.0;
    }
    ((1.0 + r) / (1.0 - r).max(f64::MIN_POSITIVE)).clamp(1.0, MOST_INFLATED)
}

/// Index of the point at which a level series starts to rise: the breakpoint of the continuous two-piece
/// line (flat, then straight) with the least sum of squares. 0 if it rises from the start or there are
/// fewer than four points. Linear in their number; they are in order of x.
pub fn rise_begins(points: &[(f64, f64)]) -> usize {
    if points.len() < 4 {
        return 0;
    }
    // From the first x, in units of the range, and around the mean: so that sums of squares keep their digits.
    let n = points.len() as f64;
    let (begin, end) = (points[0].0, points[points.len() - 1].0);
    let range = if end > begin { end - begin } else { 1.0 };
    let mean = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let scaled = |&(x, y): &(f64, f64)| ((x - begin) / range, y - mean);
    let (mut count, mut sx, mut sxx, mut sy, mut sxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let syy: f64 = points.iter().map(|point| scaled(point).1.powi(2)).sum();
    let sum: f64 = points.iter().map(|point| scaled(point).1).sum();
    let mut best = (f64::INFINITY, 0);
    // From the last, so that the sums over what lies behind a breakpoint grow by one point each.
    for (at, point) in points.iter().enumerate().rev() {
        let (x0, y0) = scaled(point);
        if at < points.len() - 2 {
            // Least squares of y = a + b * max(0, x - x0).
            let su = sx - count * x0;
            let suu = sxx - 2.0 * x0 * sx + count * x0 * x0;
            let suy = sxy - x0 * sy;
            let determinant = n * suu - su * su;
            if determinant > 0.0 {
                let b = (n * suy - su * sum) / determinant;
                let a = (sum - b * su) / n;
                let cost = (syy - a * sum - b * suy).max(0.0);
                // Of two that are told apart by rounding only the earlier.
                if cost <= best.0 + 1e-12 * syy {
                    best = (cost.min(best.0), at);
                }
            }
        }
        count += 1.0;
        sx += x0;
        sxx += x0 * x0;
        sy += y0;
        sxy += x0 * y0;
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn median_of_even_and_odd_counts() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn theil_sen_is_not_moved_by_two_wild_points_in_nine() {
        let mut points: Vec<(f64, f64)> =
            (0..9).map(|i| (f64::from(i), 5.0 + 2.0 * f64::from(i))).collect();
        points[3].1 = 1e9;
        points[7].1 = -1e9;
        let line = theil_sen(&points).unwrap();
        assert!((line.slope - 2.0).abs() < 1e-9, "{line:?}");
        assert!((line.at(4.0) - 13.0).abs() < 1e-9);
    }

    #[test]
    fn a_wave_that_is_read_often_inflates_and_independent_noise_does_not() {
        let of = |y: &dyn Fn(f64) -> f64| {
            let points: Vec<(f64, f64)> =
                (0..24).map(|i| (f64::from(i), 2.0 * f64::from(i) + y(f64::from(i)))).collect();
            inflation(&points, theil_sen(&points).unwrap())
        };
        assert_eq!(of(&|x| 9.0 * (x / 4.0).sin()), MOST_INFLATED);
        assert_eq!(of(&|x| if (x as u32).is_multiple_of(2) { 3.0 } else { -3.0 }), 1.0);
        assert_eq!(of(&|_| 0.0), 1.0);
        assert_eq!(inflation(&[(0.0, 1.0), (1.0, 9.0)], Line { slope: 0.0, intercept: 0.0 }), 1.0);
        // Six readings of a rise without noise that is bent are still told from noise.
        let bent = [1.0, 4.0, 9.0, 16.0, 25.0, 36.0];
        assert!(mann_kendall_rising(&bent, MOST_INFLATED) < 0.05);
    }

    #[test]
    fn nine_of_ten_slopes_lie_within_their_interval() {
        let (mut state, mut within) = (1u64, 0);
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64 - 0.5
        };
        for _ in 0..400 {
            let points: Vec<(f64, f64)> =
                (0..20).map(|i| (f64::from(i), 3.0 * f64::from(i) + 20.0 * noise())).collect();
            let (low, high) = slope_interval(&points, 1.645).unwrap();
            let slope = theil_sen(&points).unwrap().slope;
            assert!(low <= slope && slope <= high);
            within += usize::from(low <= 3.0 && 3.0 <= high);
        }
        assert!((340..=385).contains(&within), "{within} of 400");
        assert_eq!(slope_interval(&[(0.0, 1.0)], 1.645), None);
        assert_eq!(slope_interval(&[(0.0, 1.0), (2.0, 5.0)], 1.645), Some((2.0, 2.0)));
        assert_eq!(slope_interval(&[(1.0, 1.0); 30], 1.645), None);
    }

    #[test]
    fn a_change_of_level_is_told_from_the_slope_on_both_sides() {
        let with_step = |at: usize, step: f64| -> Vec<(f64, f64)> {
            (0..12)
                .map(|i| {
                    let noise = f64::from((i * 7) % 5) - 2.0;
                    (f64::from(i), 3.0 * f64::from(i) + noise + step * f64::from(i >= at as i32))
                })
                .collect()
        };
        for at in 2..=10 {
            let flat = level_change(&with_step(at, 0.0), at).unwrap();
            let raised = level_change(&with_step(at, 40.0), at).unwrap();
            assert!(flat.by.abs() < 8.0 && flat.by.abs() < 2.5 * flat.error, "{at}: {flat:?}");
            assert!((raised.by - flat.by - 40.0).abs() < 1e-9, "{at}: {raised:?}");
            assert!((raised.error - flat.error).abs() < 1e-9, "{at}: {raised:?}");
        }
        assert_eq!(level_change(&with_step(4, 1.0), 0), None);
        assert_eq!(level_change(&with_step(4, 1.0), 12), None);
        assert_eq!(level_change(&with_step(4, 1.0), 13), None);
        assert_eq!(level_change(&[(0.0, 1.0), (1.0, 2.0)], 1), None);
    }

    #[test]
    fn more_points_than_fit_the_stack_are_judged_alike() {
        let points: Vec<(f64, f64)> =
            (0..100).map(|i| (f64::from(i), 3.0 * f64::from(i))).collect();
        assert_eq!(theil_sen(&points), Some(Line { slope: 3.0, intercept: 0.0 }));
        assert!(is_slower(&points, 3.1) && !is_slower(&points, 2.9));
    }

    #[test]
    fn mann_kendall_agrees_with_published_values() {
        // n = 10 without ties, S = 45: z = 44 / sqrt(125) = 3.9354, p = 4.2e-5.
        let rising: Vec<f64> = (0..10).map(f64::from).collect();
        assert!((mann_kendall_rising(&rising, 1.0) - 4.15e-5).abs() < 1e-6);
        let falling: Vec<f64> = (0..10).rev().map(f64::from).collect();
        assert!(mann_kendall_rising(&falling, 1.0) > 0.9999);
        assert_eq!(mann_kendall_rising(&[7.0; 12], 1.0), 1.0);
        assert_eq!(mann_kendall_rising(&[1.0, 2.0, 3.0], 1.0), 1.0);
    }

    #[test]
    fn the_rise_is_found_where_it_begins() {
        let points: Vec<(f64, f64)> =
            (0..40).map(|i| (f64::from(i), 10.0 + 3.0 * f64::from((i - 25).max(0)))).collect();
        assert_eq!(rise_begins(&points), 25);
        let from_start: Vec<(f64, f64)> = (0..40).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(rise_begins(&from_start), 0);
    }

    /// As the definition has it.
    fn rise_begins_naively(points: &[(f64, f64)]) -> Vec<f64> {
        let cost = |x0: f64| {
            let u = |x: f64| (x - x0).max(0.0);
            let n = points.len() as f64;
            let sum =
                |f: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(x, y)| f(x, y)).sum::<f64>();
            let (su, suu) = (sum(&|x, _| u(x)), sum(&|x, _| u(x) * u(x)));
            let (sy, suy) = (sum(&|_, y| y), sum(&|x, y| u(x) * y));
            let b = (n * suy - su * sy) / (n * suu - su * su);
            let a = (sy - b * su) / n;
            sum(&|x, y| (y - a - b * u(x)).powi(2))
        };
        points[..points.len() - 2].iter().map(|&(x0, _)| cost(x0)).collect()
    }

    proptest! {
        #[test]
        fn the_rise_begins_where_the_naive_definition_has_it(values in prop::collection::vec(-1000i32..1000, 4..60)) {
            // As late as a process of months, in milliseconds.
            let points: Vec<(f64, f64)> = values
                .iter()
                .enumerate()
                .map(|(i, y)| (1e10 + 6e4 * i as f64, 1e8 + f64::from(*y) * 1e4))
                .collect();
            let near: Vec<(f64, f64)> = points.iter().map(|(x, y)| ((x - 1e10) / 6e4, (y - 1e8) / 1e4)).collect();
            let costs = rise_begins_naively(&near);
            let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
            prop_assert!(costs[rise_begins(&points)] <= least * (1.0 + 1e-6) + 1e-6);
        }

        #[test]
        fn median_equals_the_sorted_middle(mut values in prop::collection::vec(-1e6f64..1e6, 1..60)) {
            let got = median(&mut values.clone()).unwrap();
            values.sort_by(f64::total_cmp);
            let n = values.len();
            let naive = if n % 2 == 1 { values[n / 2] } else { (values[n / 2 - 1] + values[n / 2]) / 2.0 };
            prop_assert_eq!(got, naive);
        }

        #[test]
        fn slower_is_said_of_what_the_median_slope_is_below(
            steps in prop::collection::vec((0u32..3, -50i32..50), 2..30), least in -20i32..20
        ) {
            let mut x = 0;
            let points: Vec<(f64, f64)> = steps
                .iter()
                .map(|(step, y)| {
                    x += step;
                    (f64::from(x), f64::from(*y))
                })
                .collect();
            // A median between two pairs of which one is below and one is not remains for the median to say.
            let least = f64::from(least) + 0.013;
            match theil_sen(&points) {
                Some(line) if is_slower(&points, least) => prop_assert!(line.slope < least),
                Some(line) => {
                    let pairs = points.iter().enumerate().flat_map(|(i, a)| points[i + 1..].iter().map(move |b| (a, b)));
                    let slopes = pairs.filter(|(a, b)| a.0 != b.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0));
                    let (below, others): (Vec<f64>, Vec<f64>) = slopes.partition(|slope| *slope < least);
                    prop_assert!(line.slope >= least || below.len() == others.len());
                }
                None => prop_assert!(!is_slower(&points, least)),
            }
        }

        #[test]
        fn a_mirrored_series_has_the_mirrored_trend(values in prop::collection::vec(-1e3f64..1e3, 4..30)) {
            let up = mann_kendall_rising(&values, 1.0);
            let down = mann_kendall_rising(&values.iter().map(|v| -v).collect::<Vec<_>>(), 1.0);
            // With the continuity correction both tails together are at least one.
            prop_assert!(up + down >= 1.0 - 1e-6);
        }

        #[test]
        fn nothing_panics_on_any_number(values in prop::collection::vec(any::<f64>(), 0..30)) {
            let points: Vec<(f64, f64)> = values.iter().map(|v| (*v, *v)).collect();
            let _ = (theil_sen(&points), is_slower(&points, 1.0), mann_kendall_rising(&values, 1.0), rise_begins(&points), mad(&values));
        }
    }
}
