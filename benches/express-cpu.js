'use strict';

/**
 * CPU time per Express request with the guard and without: fixed work, short slices in random order over processes
 * that live side by side, fresh processes each round. Two bare processes are the A/A control. The slices are short
 * because what disturbs a machine comes and goes within seconds: it then meets all apps of a round alike.
 */

const { bootstrap, mean, quantile, random, shuffled } = require('./support/statistics.js');
const { Child, ROOT, delay } = require('./support/children.js');
const { change, interval, micros, requirement } = require('./support/words.js');

const CONNECTIONS = 16;
const WARM_REQUESTS = 12_000;
/** Finer than this nothing is claimed. */
const RESOLUTION = 0.02;

const QUIET = { LEAKGUARD_LOG: 'silent', LEAKGUARD_SNAPSHOT: 'off' };

/** Rounds of the comparison that is judged, and those after them in which apps join that only explain it. */
const ROUNDS = 30;
const EXPLAINING_ROUNDS = 6;

/** The apps take turns on one core, and the load has another: the scheduler's choices are half of the scatter. */
const APP_CORE = 0;
const LOAD_CORE = 1;

/** @typedef {Record<string, { words: string, guarded: boolean, explains?: boolean, profile?: number, env: Record<string, string> }>} Variants */

/** `bareA` and `bareB` are what `guard` is compared with. @type {Variants} */
const VARIANTS = {
  bareA: { words: 'bare', guarded: false, env: {} },
  bareB: { words: 'bare again (A/A control)', guarded: false, env: {} },
  guard: { words: 'guard, default settings', guarded: true, env: { LEAKGUARD_LOG: 'silent' } },
  noListeners: {
    words: 'guard, LEAKGUARD_LISTENERS=off',
    guarded: true,
    explains: true,
    env: { LEAKGUARD_LOG: 'silent', LEAKGUARD_LISTENERS: 'off' },
  },
  noReadings: {
    words: 'guard, no live-heap readings on demand',
    guarded: true,
    explains: true,
    env: { LEAKGUARD_LOG: 'silent', LEAKGUARD_WITHOUT: 'external,pressure,gc' },
  },
  readings: {
    words: 'guard, window 32s, GC share 5 %: readings go on',
    guarded: true,
    explains: true,
    env: {
      ...QUIET,
      LEAKGUARD_WINDOW: '32s',
      LEAKGUARD_GROWTH_RATE: '1MB/min',
      LEAKGUARD_WARMUP: '1s',
      LEAKGUARD_GC_SHARE: '5%',
    },
  },
  suspicion: {
    words: 'guard, default settings, the allocation profile of a suspicion running (24 KB)',
    guarded: true,
    explains: true,
    profile: 24 * 1024,
    env: { LEAKGUARD_LOG: 'silent' },
  },
};

/** User and system time of all threads so far. @param {Child} app */
async function cpuMicros(app) {
  const { user, system } = await app.ask('cpu');
  return user + system;
}

/**
 * @param {{ node: string, quick: boolean, rounds?: number }} options
 * @param {Variants} [variants]
 * @param {{ base: string, what: string }} [words]
 * @param {string} [shop] the app, a file below programs/
 */
async function measure(
  { node, quick, rounds: wanted = ROUNDS },
  variants = VARIANTS,
  words = { base: 'bare', what: 'CPU per Express request at default settings' },
  shop = 'shop.js',
) {
  const explaining = Object.values(variants).some(({ explains }) => explains);
  const judged = quick ? 1 : wanted;
  const rounds = judged + (explaining && !quick ? EXPLAINING_ROUNDS : 0);
  const slices = quick ? 12 : 20;
  const requests = 1000;
  const draw = random(1);
  /** @type {{ round: number, variant: string, micros: number, readings: number | null }[]} */
  const processes = [];
  let pinned = true;
  for (let round = 0; round < rounds; round++) {
    /** @type {{ variant: string, app: Child, port: number, before: number }[]} */
    const started = [];
    const joining = Object.keys(variants).filter(
      (variant) => quick || round >= judged || !variants[variant].explains,
    );
    for (const variant of shuffled(joining, draw)) {
      const { guarded, profile, env } = variants[variant];
      const settings = guarded ? { shop, guard: ROOT, profile } : { shop };
      const app = new Child(node, 'app.js', { settings, env });
      started.push({ variant, app, port: await app.ask('port'), before: 0 });
    }
    const load = new Child(node, 'load.js');
    pinned &&= load.pin(LOAD_CORE) && started.every(({ app }) => app.pin(APP_CORE));
    for (const { port } of started) {
      await load.ask('serve', { port, count: CONNECTIONS, requests: WARM_REQUESTS });
    }
    for (const one of started) one.before = await cpuMicros(one.app);
    for (let slice = 0; slice < slices; slice++) {
      for (const { port } of shuffled(started, draw)) {
        await load.ask('serve', { port, count: CONNECTIONS, requests });
      }
    }
    // What the guard and V8's helpers do on account of the last slice ends within this.
    await delay(100);
    for (const { variant, app, before } of started) {
      // Of the whole round, so that nothing is left out that is done while another app is served.
      const spent = (await cpuMicros(app)) - before;
      const status = await app.ask('status');
      processes.push({
        round,
        variant,
        micros: spent / (slices * requests),
        readings: status?.liveHeap?.readings ?? null,
      });
    }
    await Promise.all([load.stop(), ...started.map(({ app }) => app.stop())]);
  }
  const of = (/** @type {string} */ variant) =>
    processes.filter((one) => one.variant === variant).sort((a, b) => a.round - b.round);
  // What is judged is not judged beside the apps that explain it: with each of them the guard's work by the clock
  // counts once more.
  const those = (/** @type {string} */ variant) =>
    of(variant).filter(({ round }) => quick || round < judged === !variants[variant].explains);
  // Logarithms of the ratio within a round: the machine of that moment cancels out.
  const logs = (/** @type {string} */ variant) =>
    those(variant).map(({ micros: spent, round }) => {
      const [bareA, bareB] = ['bareA', 'bareB'].map(
        (bare) => of(bare).find((one) => one.round === round)?.micros ?? Number.NaN,
      );
      const base = variant === 'bareB' ? bareA : Math.sqrt(bareA * bareB);
      return Math.log(spent / base);
    });
  const effect = (/** @type {string} */ variant) => {
    const samples = logs(variant);
    const ends = bootstrap([samples], (drawn) => mean(drawn));
    return {
      ratio: Math.exp(mean(samples)),
      ends: /** @type {[number, number]} */ (ends.map(Math.exp)),
    };
  };
  /** @type {Record<string, { ratio: number, ends: [number, number] }>} */
  const effects = {};
  const rows = Object.entries(variants).map(([variant, { words: name }]) => {
    const some = those(variant);
    const spent = some.map((one) => one.micros);
    const cells = [
      name,
      String(some.length),
      micros(quantile(spent, 0.5)),
      `${micros(quantile(spent, 0.1))} to ${micros(quantile(spent, 0.9))}`,
    ];
    const readings = some.map((one) => one.readings ?? 0);
    if (variant === 'bareA') return [...cells, '', '', ''];
    effects[variant] = effect(variant);
    return [
      ...cells,
      change(effects[variant].ratio),
      interval(effects[variant].ends, change),
      variants[variant].guarded ? String(quantile(readings, 0.5)) : '',
    ];
  });
  const { guard, bareB: control } = effects;
  const halfWidth = (guard.ends[1] - guard.ends[0]) / 2;
  const within = guard.ends[0] <= Math.max(1, control.ends[1]) && guard.ratio - 1 <= RESOLUTION;
  return {
    columns: [
      'app',
      'processes',
      'CPU per request, median',
      '10 % to 90 %',
      `against ${words.base}`,
      '95 %',
      'live-heap readings',
    ],
    rows,
    figures: { effects, halfWidth, requestsPerProcess: slices * requests },
    processes,
    requirements: [
      requirement(
        words.what,
        `${change(guard.ratio)} (95 % ${interval(guard.ends, change)}; control ${change(control.ratio)}, ${interval(control.ends, change)})`,
        'not distinguishable from the control at 1 to 2 %',
        within && halfWidth <= RESOLUTION,
      ),
    ],
    notes: [
      `${slices} slices of ${requests} requests in each process after ${WARM_REQUESTS} of warm-up; the interval's half width, ${(halfWidth * 100).toFixed(2)} %, is the resolution reached.`,
      pinned
        ? `The apps share core ${APP_CORE}, the load has core ${LOAD_CORE}.`
        : 'Apps and load run on whatever core the system gives them: no `taskset`, or one core.',
    ],
  };
}

module.exports = {
  name: 'express-cpu',
  title: 'CPU per Express request',
  method: [
    'User and system time of all threads of the app alone (process.cpuUsage) for a fixed number of requests from a separate load process over 16 kept connections; the apps of a round live side by side on one core and the load on another, their slices in random order, fresh processes each round. Counted from the end of the warm-up to the end of the round, also while another app is served: what the guard does by the clock counts several times over.',
    'Ratio to the geometric mean of the two bare apps of the same round; interval by bootstrap over rounds; the second bare app against the first is the A/A control.',
  ],
  perNode: true,
  seconds: { full: 560, quick: 45 },
  measure,
};
