'use strict';

/**
 * What a scrape costs the JS thread of an app with 10,000 watched emitters: `leakguard.metrics()`, the same through
 * a registry of prom-client, and `status()` beside them.
 */

const { median, quantile } = require('./support/statistics.js');
const { Child, ROOT, delay } = require('./support/children.js');
const { micros, requirement } = require('./support/words.js');

const EMITTERS = 10_000;
const LIMIT_MICROS = 1000;

/** Until the guard has reported listeners; it does so every 2 s. */
const LISTED_WITHIN_MS = 30_000;

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  const times = quick ? 200 : 2000;
  const apps = [EMITTERS, 0].map(
    (emitters) =>
      new Child(node, 'emitters.js', {
        settings: { guard: ROOT, emitters },
        env: { LEAKGUARD_LOG: 'silent' },
      }),
  );
  const deadline = performance.now() + LISTED_WITHIN_MS;
  while (!(await apps[0].ask('listed'))) {
    if (performance.now() > deadline) throw new Error('no listeners are shown');
    await delay(100);
  }
  /** @type {{ words: string, emitters: number, micros: number[], bytes: number }[]} */
  const taken = [];
  for (const [question, words] of /** @type {const} */ ([
    ['text', 'leakguard.metrics()'],
    ['registry', "prom-client's registry.metrics()"],
    ['status', 'JSON.stringify(leakguard.status())'],
  ])) {
    for (const [at, app] of apps.entries()) {
      // The first are compiled, the others count.
      await app.ask(question, 100);
      const { micros, bytes } = await app.ask(question, times);
      taken.push({ words, emitters: at === 0 ? EMITTERS : 0, micros, bytes });
    }
  }
  await Promise.all(apps.map((app) => app.stop()));
  const p90 = quantile(taken[0].micros, 0.9);
  return {
    columns: ['what', 'watched emitters', 'scrapes', 'time, median', 'p90', 'p99', 'bytes'],
    rows: taken.map((one) => [
      one.words,
      one.emitters.toLocaleString('en'),
      String(one.micros.length),
      micros(median(one.micros)),
      micros(quantile(one.micros, 0.9)),
      micros(quantile(one.micros, 0.99)),
      one.bytes.toLocaleString('en'),
    ]),
    figures: { medianMicros: median(taken[0].micros), p90Micros: p90 },
    requirements: [
      requirement('metrics(), 10,000 emitters, p90', micros(p90), '< 1 ms', p90 < LIMIT_MICROS),
    ],
    notes: ['A scrape formats what was published with the last sample: it walks no emitters.'],
  };
}

module.exports = {
  name: 'metrics',
  title: 'A scrape',
  method: [
    'Wall time around one call on the JS thread, each in a turn of the loop of its own, after a hundred that do not count.',
    'An app without watched emitters beside it is the control.',
  ],
  perNode: true,
  seconds: { full: 30, quick: 12 },
  measure,
};
