'use strict';

// What the field does today, as pure functions over a recorded trace (test/apps/trace.js): each looks at the trace
// after the warm-up and says whether it would have raised an alarm, and when. For comparison in the scoreboard
// only; nothing of leakguard judges by them. Each gets its kindest reading: the whole run as its window.

/**
 * @typedef {{ t: number, heapUsed: number, heapTotal: number, rss: number }} Sample milliseconds and bytes
 * @typedef {{ t: number, gc: 'major' | 'minor', heapUsed: number }} Collection
 * @typedef {{ samples: Sample[], collections: Collection[] }} Trace
 * @typedef {{ bytesPerMs: number }} Threshold
 * @typedef {{ fired: boolean, atMs: number | null }} Verdict
 */

/** Consecutive growing major collections that node-memwatch called a leak. */
const MEMWATCH_GROWING = 5;
/** holmes: one reading each five seconds, the mean of the last ten, alarm a quarter above it. */
const HOLMES_INTERVAL_MS = 5000;
const HOLMES_READINGS = 10;
const HOLMES_RATIO = 1.25;
const HEAP_TOTAL_SHARE = 0.85;

/** @type {Verdict} */
const SILENT = { fired: false, atMs: null };

/**
 * `heapUsed / heapTotal` above 85 %, the alarm of many dashboards.
 * @param {Trace} trace
 * @returns {Verdict}
 */
function heapTotalShare({ samples }) {
  return firstAt(samples.find((sample) => sample.heapUsed > HEAP_TOTAL_SHARE * sample.heapTotal));
}

/**
 * The last heapUsed less the first, over the time between.
 * @param {Trace} trace
 * @param {Threshold} threshold
 * @returns {Verdict}
 */
function endpointDifference({ samples }, { bytesPerMs }) {
  if (samples.length < 2) return SILENT;
  const first = samples[0];
  const last = samples[samples.length - 1];
  return (last.heapUsed - first.heapUsed) / (last.t - first.t) > bytesPerMs
    ? firstAt(last)
    : SILENT;
}

/**
 * The slope of the least-squares line through heapUsed.
 * @param {Trace} trace
 * @param {Threshold} threshold
 * @returns {Verdict}
 */
function leastSquares({ samples }, { bytesPerMs }) {
  if (samples.length < 3) return SILENT;
  return slope(samples) > bytesPerMs ? firstAt(samples[samples.length - 1]) : SILENT;
}

/**
 * node-memwatch's rule: the heap after a major collection grew five times in a row.
 * @param {Trace} trace
 * @returns {Verdict}
 */
function fiveGrowingCollections({ collections }) {
  let growing = 0;
  let before = Number.POSITIVE_INFINITY;
  for (const collection of collections) {
    if (collection.gc !== 'major') continue;
    growing = collection.heapUsed > before ? growing + 1 : 0;
    before = collection.heapUsed;
    if (growing === MEMWATCH_GROWING) return firstAt(collection);
  }
  return SILENT;
}

/**
 * holmes' difference rule on RSS: a quarter above the mean of the last ten five-second readings. Its minimum and
 * its absolute limit are shares of a container's memory, which these runs do not have, and are left out.
 * @param {Trace} trace
 * @returns {Verdict}
 */
function tenReadingAverage({ samples }) {
  /** @type {number[]} */
  const history = [];
  let next = samples[0]?.t ?? 0;
  for (const sample of samples) {
    if (sample.t < next) continue;
    next += HOLMES_INTERVAL_MS;
    if (history.length === HOLMES_READINGS) {
      const mean = history.reduce((sum, rss) => sum + rss, 0) / HOLMES_READINGS;
      if (sample.rss > HOLMES_RATIO * mean) return firstAt(sample);
      history.shift();
    }
    history.push(sample.rss);
  }
  return SILENT;
}

/** In the order in which the scoreboard shows them. */
const BASELINES = Object.freeze([
  { id: 'heap_total', label: '85 % of heapTotal', judge: heapTotalShare },
  { id: 'endpoints', label: 'endpoint difference', judge: endpointDifference },
  { id: 'least_squares', label: 'least squares on heapUsed', judge: leastSquares },
  { id: 'memwatch', label: 'five growing GCs (memwatch)', judge: fiveGrowingCollections },
  { id: 'holmes', label: '10 x 5 s average (holmes)', judge: tenReadingAverage },
]);

/**
 * Reads the lines that test/apps/trace.js wrote, between two moments of its clock. A last line cut off by the
 * process's end is dropped.
 * @param {string} text
 * @param {{ fromMs: number, toMs: number }} span
 * @returns {Trace}
 */
function parseTrace(text, { fromMs, toMs }) {
  /** @type {Trace} */
  const trace = { samples: [], collections: [] };
  for (const line of text.slice(0, text.lastIndexOf('\n')).split('\n')) {
    if (line === '') continue;
    const record = JSON.parse(line);
    if (record.t < fromMs || record.t > toMs) continue;
    if (record.gc === undefined) trace.samples.push(record);
    else trace.collections.push(record);
  }
  return trace;
}

/** @param {Sample[]} samples */
function slope(samples) {
  const meanT = samples.reduce((sum, sample) => sum + sample.t, 0) / samples.length;
  const meanHeap = samples.reduce((sum, sample) => sum + sample.heapUsed, 0) / samples.length;
  let covariance = 0;
  let variance = 0;
  for (const { t, heapUsed } of samples) {
    covariance += (t - meanT) * (heapUsed - meanHeap);
    variance += (t - meanT) ** 2;
  }
  return covariance / variance;
}

/**
 * @param {{ t: number } | undefined} event
 * @returns {Verdict}
 */
function firstAt(event) {
  return event ? { fired: true, atMs: event.t } : SILENT;
}

module.exports = {
  BASELINES,
  endpointDifference,
  fiveGrowingCollections,
  heapTotalShare,
  leastSquares,
  parseTrace,
  tenReadingAverage,
};
