'use strict';

/**
 * How long a live-heap reading stops the event loop, on a heap of 200 MB of small objects: the longest loop gap of
 * spans of 5 s with one reading, alternating with spans without. A forced `gc()` stands beside it. Of three apps: one
 * whose requests do next to nothing, where a reading stands out most, and two that V8 collects by itself, since they
 * allocate (loop-gap-allocating.js) or work (loop-gap-working.js).
 */

const { bootstrap, mean, median, quantile } = require('./support/statistics.js');
const { Child, ROOT, delay } = require('./support/children.js');
const { interval, ms, ratio, requirement } = require('./support/words.js');

const HEAP_MB = 200;
const SPAN_MS = 5000;
/** After each span: a tick of the guard, so that its figures are in. */
const REST_MS = 1200;
/**
 * Spans after the last reading of a block that count as neither: some 12 s after a major GC, V8's memory reducer
 * makes another by itself if the app allocates.
 */
const AFTER = 2;
/** A stop is long from this many medians of the spans without a reading on. */
const LONG = 3;

/** Readings may come every 5 s, and as soon as the share allows; nothing else of the guard goes on. */
const SETTINGS = {
  LEAKGUARD_WINDOW: '40s',
  LEAKGUARD_GROWTH_RATE: '10MB/min',
  LEAKGUARD_WARMUP: '1h',
  LEAKGUARD_MAX_GC_PAUSE: '10s',
  LEAKGUARD_GC_SHARE: '0.01%',
  LEAKGUARD_SNAPSHOT: 'off',
  LEAKGUARD_LOG: 'silent',
};

/**
 * The apps. `words` go into the name of the requirement; `collected`: V8 collects them by itself, and they
 * have no other spans than those in which it does so now and then.
 *
 * @typedef {{ kind: string, words: string, perSecond: number, collected: boolean }} App
 */

/** @type {App} */
const LIGHT = { kind: 'light', words: '', perSecond: 200, collected: false };

/**
 * @param {{ node: string, quick: boolean }} options
 * @param {App} [of]
 */
async function measure({ node, quick }, of = LIGHT) {
  const { kind, words, perSecond, collected } = of;
  const blocks = quick ? 1 : 5;
  const perBlock = quick ? 3 : 4;
  const wanted = blocks * perBlock;
  const forced = quick ? 1 : 5;
  const settings = { guard: ROOT, heapMb: HEAP_MB, restMs: REST_MS, kind };
  const app = new Child(node, 'heap.js', { settings, env: SETTINGS });
  const load = new Child(node, 'load.js');
  /** @type {any[]} */
  const spans = [];
  const span = async (/** @type {string} */ kind) =>
    app.ask('span', { ms: SPAN_MS, kind }, SPAN_MS + REST_MS + 60_000);
  const port = await app.ask('port');
  await load.ask('steady', { port, count: 8, perSecond });
  // The first reading teaches the guard its cost, and the code gets hot.
  await span('reading');
  for (let block = 0; block < blocks; block++) {
    for (let i = 0; i < perBlock; i++) spans.push(await span('reading'));
    for (let i = 0; i < AFTER; i++) spans.push({ ...(await span('none')), kind: 'after' });
    for (let i = 0; i < perBlock; i++) spans.push(await span('none'));
  }
  for (let i = 0; i < forced; i++) spans.push(await span('forced'));
  const state = await app.ask('liveHeap');
  await load.ask('stop');
  await delay(50);
  await Promise.all([app.stop(), load.stop()]);

  const read = spans.filter((one) => one.kind === 'reading' && one.readings > 0);
  const calm = spans.filter((one) => one.kind === 'none' && (collected || one.readings === 0));
  const natural = spans.filter((one) => one.kind === 'none' && one.readings > 0);
  const after = spans.filter((one) => one.kind === 'after' && one.readings > 0);
  const stopped = spans.filter((one) => one.kind === 'forced');
  if (read.length < wanted / 2) {
    throw new Error(
      `only ${read.length} of ${wanted} spans held a reading: ${JSON.stringify(state)}`,
    );
  }
  if (calm.length < wanted / 2) {
    throw new Error(`only ${calm.length} of ${wanted} spans were without a major GC`);
  }
  const gaps = (/** @type {any[]} */ of) => of.map((one) => one.longestMs);
  const own = (/** @type {any[]} */ of) => of.map((one) => one.longestRunningMs);
  const cpu = (/** @type {any[]} */ of) => of.map((one) => one.cpuMs);
  const each = (/** @type {any[]} */ of) => of.map((one) => (one.cpuMs * 1000) / one.requests);
  const limit = LONG * median(gaps(calm));
  const long = (/** @type {any[]} */ of) => gaps(of).filter((gap) => gap > limit).length;
  const row = (/** @type {string} */ name, /** @type {any[]} */ of) => [
    name,
    String(of.length),
    ms(median(gaps(of))),
    ms(quantile(gaps(of), 0.9)),
    ms(Math.max(...gaps(of))),
    ms(median(own(of))),
    ms(quantile(own(of), 0.9)),
    `${long(of)} of ${of.length}`,
    ms(mean(cpu(of))),
    `${mean(each(of)).toFixed(0)} µs`,
  ];
  const rows = [
    row('one reading by the guard', read),
    row('none', calm),
    row(
      'none, every other of them (A)',
      calm.filter((_, at) => at % 2 === 0),
    ),
    row(
      'none, the others (A)',
      calm.filter((_, at) => at % 2 === 1),
    ),
    row('forced gc()', stopped),
  ];
  if (after.length > 0) rows.push(row("V8's own major GC some 12 s after the last reading", after));
  if (natural.length > 0) rows.push(row('none, those with a major GC of V8 itself', natural));
  const atMedian = median(gaps(read)) / median(gaps(calm));
  const atP90 = quantile(gaps(read), 0.9) / quantile(gaps(calm), 0.9);
  const p90 = (/** @type {number[]} */ values) => quantile(values, 0.9);
  const medianInterval = bootstrap([gaps(read), gaps(calm)], (a, b) => median(a) / median(b));
  const p90Interval = bootstrap([gaps(read), gaps(calm)], (a, b) => p90(a) / p90(b));
  return {
    columns: [
      'span of 5 s',
      'spans',
      'longest gap, median',
      'p90',
      'max',
      'less waiting for a core, median',
      'p90',
      `longer than ${LONG} x the median without`,
      'CPU',
      'CPU per request',
    ],
    rows,
    figures: {
      way: state.way,
      ratioMedian: atMedian,
      ratioMedianInterval: medianInterval,
      ratioP90: atP90,
      ratioP90Interval: p90Interval,
      longStops: long(read),
      followedByAnother: `${after.length} of ${blocks}`,
      readings: read.length,
      cpuPerReadingMs: mean(cpu(read)) - mean(cpu(calm)),
      cpuPerReadingByGuardMs: mean(read.map((one) => one.guardCpuMs)),
      cpuPerRequestMicros: { reading: mean(each(read)), none: mean(each(calm)) },
      forcedMedianMs: median(gaps(stopped)),
    },
    spans,
    requirements: [
      requirement(
        `longest loop gap with a reading${words}, median, against without`,
        ratio(atMedian),
        '≤ 1.5 x',
        atMedian <= 1.5,
      ),
      requirement('the same at the 90th percentile', ratio(atP90), '≤ 1.5 x', atP90 <= 1.5),
    ],
    notes: [
      `Way in use: ${state.way}. Heap ${state.heapMb.toFixed(0)} MB, ${perSecond} requests/s.`,
      collected
        ? `In ${natural.length} of ${calm.length} spans without a reading V8 made a major GC by itself.`
        : `After ${after.length} of ${blocks} blocks V8 made one more major GC by itself; the guard takes it as a reading.`,
      `Ratio at the median ${ratio(atMedian)} (95 % ${interval(medianInterval, ratio)}), at the 90th percentile ${ratio(atP90)} (${interval(p90Interval, ratio)}); a reading costs ${ms(mean(cpu(read)) - mean(cpu(calm)))} of CPU, helper threads counted (the guard reckons ${ms(mean(read.map((one) => one.guardCpuMs)))}).`,
    ],
  };
}

module.exports = {
  measureApp: measure,
  name: 'loop-gap',
  title: 'Reading the live heap: how long the event loop stops',
  method: [
    `A process with ${HEAP_MB} MB of small objects, light allocation and ${LIGHT.perSecond} requests/s watches its loop with a 2 ms timer; spans of 5 s with one reading of the guard alternate with spans without, in blocks of four.`,
    'Longest gap of each span, as seen and less the time in which the thread was ready and no core was free; the spans without a reading, split in two, are the A/A control.',
  ],
  perNode: true,
  seconds: { full: 370, quick: 75 },
  measure,
};
