'use strict';

/**
 * The few statistics of the benches: medians, spread, and confidence intervals by bootstrap. Pure; the random
 * numbers are seeded, so that the same figures give the same report.
 */

/**
 * @param {readonly number[]} values
 * @param {number} q from 0 to 1
 * @returns {number} linear between the neighbours; NaN of nothing
 */
function quantile(values, q) {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (at - below);
}

/** @param {readonly number[]} values */
function median(values) {
  return quantile(values, 0.5);
}

/** @param {readonly number[]} values */
function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * A small generator of uniform numbers (mulberry32): good enough to draw samples and orders with.
 *
 * @param {number} seed
 * @returns {() => number} from 0 up to, not including, 1
 */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * @template T
 * @param {readonly T[]} items
 * @param {() => number} draw
 * @returns {T[]} in a random order (Fisher-Yates)
 */
function shuffled(items, draw) {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

/** Samples drawn for an interval; more of them only smooth its ends. */
const RESAMPLES = 4000;

/**
 * 95 % percentile bootstrap interval of a statistic of independent samples, each resampled by itself.
 *
 * @param {readonly (readonly number[])[]} samples
 * @param {(...samples: number[][]) => number} statistic
 * @returns {[number, number]} NaN if a sample is empty
 */
function bootstrap(samples, statistic) {
  if (samples.some((sample) => sample.length === 0)) return [Number.NaN, Number.NaN];
  const draw = random(20260101);
  const results = [];
  for (let i = 0; i < RESAMPLES; i++) {
    const drawn = samples.map((sample) =>
      sample.map(() => sample[Math.floor(draw() * sample.length)]),
    );
    results.push(statistic(...drawn));
  }
  return [quantile(results, 0.025), quantile(results, 0.975)];
}

module.exports = { bootstrap, mean, median, quantile, random, shuffled };
