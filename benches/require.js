'use strict';

/**
 * How long `require('leakguard')` takes in a fresh process, beside an empty module and beside a guard that is
 * switched off.
 */

const path = require('node:path');
const { median, quantile, random, shuffled } = require('./support/statistics.js');
const { ROOT, run } = require('./support/children.js');
const { ms, requirement } = require('./support/words.js');

const EMPTY = path.join(__dirname, 'programs', 'empty.js');
const PROGRAM = path.join(__dirname, 'programs', 'required.js');
const LIMIT_MS = 15;

/** @type {Record<string, { words: string, module: string, env?: Record<string, string> }>} */
const VARIANTS = {
  guard: { words: "require('leakguard')", module: ROOT },
  guardAgain: { words: 'the same again (A/A control)', module: ROOT },
  off: { words: 'the same with LEAKGUARD=off', module: ROOT, env: { LEAKGUARD: 'off' } },
  empty: { words: 'an empty module', module: EMPTY },
};

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  const rounds = quick ? 5 : 50;
  const draw = random(2);
  /** @type {Record<string, { wallMs: number, cpuMs: number }[]>} */
  const taken = Object.fromEntries(Object.keys(VARIANTS).map((variant) => [variant, []]));
  // The first start of all reads the binary from disk.
  for (let round = -1; round < rounds; round++) {
    for (const variant of shuffled(Object.keys(VARIANTS), draw)) {
      const { module, env = {} } = VARIANTS[variant];
      const took = await run(node, [PROGRAM, module], env);
      if (round >= 0) taken[variant].push(took);
    }
  }
  const rows = Object.entries(VARIANTS).map(([variant, { words }]) => {
    const wall = taken[variant].map((one) => one.wallMs);
    const cpu = taken[variant].map((one) => one.cpuMs);
    return [
      words,
      String(wall.length),
      ms(median(wall)),
      ms(quantile(wall, 0.1)),
      ms(quantile(wall, 0.9)),
      ms(median(cpu)),
    ];
  });
  const wall = median([...taken.guard, ...taken.guardAgain].map((one) => one.wallMs));
  const cpu = median([...taken.guard, ...taken.guardAgain].map((one) => one.cpuMs));
  return {
    columns: ['what', 'processes', 'time, median', 'p10', 'p90', 'CPU of the process, median'],
    rows,
    figures: { wallMs: wall, cpuMs: cpu },
    requirements: [
      requirement("require('leakguard'), median", ms(wall), `< ${LIMIT_MS} ms`, wall < LIMIT_MS),
    ],
    notes: [],
  };
}

module.exports = {
  name: 'require',
  title: "require('leakguard')",
  method: [
    'Wall time and CPU time (user and system, all threads) around one require in a fresh process, variants in random order each round.',
    'An empty module shows what require itself costs; the guard a second time is the A/A control.',
  ],
  perNode: true,
  seconds: { full: 60, quick: 10 },
  measure,
};
