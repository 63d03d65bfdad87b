'use strict';

/**
 * What one tick costs: on the native thread by its own account and by the kernel's, and on the JS thread beside
 * an app without the guard.
 */

const { median } = require('./support/statistics.js');
const { Child, ROOT, delay } = require('./support/children.js');
const { threads } = require('./support/proc.js');
const { micros } = require('./support/words.js');

const SETTLE_MS = 5000;

/** @param {number} pid @param {(name: string, tid: number) => boolean} which */
function microsOf(pid, which) {
  let sum = 0;
  for (const [tid, { name, nanoseconds }] of threads(pid)) if (which(name, tid)) sum += nanoseconds;
  return sum / 1000;
}

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  const spanMs = quick ? 15_000 : 60_000;
  const rounds = [
    { words: 'idle, 1 s', interval: '1s' },
    { words: 'idle, 1 s, again (A/A control)', interval: '1s' },
    { words: 'idle, 100 ms', interval: '100ms' },
  ];
  const apps = rounds.map(
    ({ interval }) =>
      new Child(node, 'app.js', {
        settings: { guard: ROOT },
        // Without a warm-up, so that every tick also judges what is due.
        env: { LEAKGUARD_LOG: 'silent', LEAKGUARD_INTERVAL: interval, LEAKGUARD_WARMUP: '0s' },
      }),
  );
  const bare = new Child(node, 'app.js');
  await Promise.all([...apps, bare].map((app) => app.ask('port')));
  await delay(SETTLE_MS);
  const look = () =>
    Promise.all(
      apps.map(async (app) => {
        const { cost } = await app.ask('status');
        return {
          cost,
          total: cost.ticks * cost.meanTickMicros,
          native: microsOf(app.pid, (name) => name === 'leakguard'),
          script: microsOf(app.pid, (_, tid) => tid === app.pid),
        };
      }),
    );
  const mainOf = () => microsOf(bare.pid, (_, tid) => tid === bare.pid);
  const [before, bareBefore] = [await look(), mainOf()];
  await delay(spanMs);
  const [after, bareAfter] = [await look(), mainOf()];
  await Promise.all([...apps, bare].map((app) => app.stop()));
  const results = rounds.map(({ words }, at) => {
    const ticks = after[at].cost.ticks - before[at].cost.ticks;
    return {
      words,
      ticks,
      tick: (after[at].total - before[at].total) / ticks,
      longest: after[at].cost.longestTickMicros,
      native: (after[at].native - before[at].native) / ticks,
      script: (after[at].script - before[at].script - (bareAfter - bareBefore)) / ticks,
    };
  });
  return {
    columns: [
      'app, interval',
      'ticks',
      'tick by its own clock, mean',
      'longest',
      'CPU of the native thread per tick',
      'CPU of the JS thread per tick, beyond the bare app',
    ],
    rows: results.map((one) => [
      one.words,
      String(one.ticks),
      micros(one.tick),
      micros(one.longest),
      micros(one.native),
      micros(one.script),
    ]),
    figures: { results, medianTickMicros: median(results.map((one) => one.tick)) },
    requirements: [],
    notes: ['The share of a core is the sum of both threads, once an interval.'],
  };
}

module.exports = {
  name: 'native',
  title: 'One tick',
  method: [
    'Idle guarded apps: time of a tick as status().cost has it, and CPU by thread from schedstat, divided by the ticks of the span.',
    'The JS thread is compared with that of a bare app at the same time; the first app a second time is the A/A control.',
  ],
  perNode: true,
  seconds: { full: 75, quick: 30 },
  measure,
};
