'use strict';

/**
 * What adding a listener costs with the guard loaded: one on each of very many emitters, so that every add is
 * one that may be sampled.
 */

const path = require('node:path');
const { median, quantile, random, shuffled } = require('./support/statistics.js');
const { ROOT, run } = require('./support/children.js');
const { figure } = require('./support/words.js');

const EMPTY = path.join(__dirname, 'programs', 'empty.js');
const PROGRAM = path.join(__dirname, 'programs', 'adds.js');

/** Batches in which V8 still compiles. */
const WARM_UP = 10;

/** @type {Record<string, { words: string, module: string, env?: Record<string, string> }>} */
const VARIANTS = {
  guard: { words: 'guard', module: ROOT },
  guardAgain: { words: 'the same again (A/A control)', module: ROOT },
  off: { words: 'LEAKGUARD_LISTENERS=off', module: ROOT, env: { LEAKGUARD_LISTENERS: 'off' } },
  empty: { words: 'no guard', module: EMPTY },
};

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  const [rounds, batches] = quick ? [2, 60] : [8, 400];
  const draw = random(3);
  /** @type {Record<string, number[]>} */
  const taken = Object.fromEntries(Object.keys(VARIANTS).map((variant) => [variant, []]));
  for (let round = 0; round < rounds; round++) {
    for (const variant of shuffled(Object.keys(VARIANTS), draw)) {
      const { module, env = {} } = VARIANTS[variant];
      const quiet = { LEAKGUARD_LOG: 'silent', ...env };
      const { nanos } = await run(node, [PROGRAM, module, String(batches)], quiet);
      taken[variant].push(...nanos.slice(WARM_UP));
    }
  }
  const nanos = (/** @type {number} */ value) => `${figure(value)} ns`;
  const base = median(taken.empty);
  const rows = Object.entries(VARIANTS).map(([variant, { words }]) => [
    words,
    String(taken[variant].length),
    nanos(median(taken[variant])),
    nanos(quantile(taken[variant], 0.9)),
    variant === 'empty' ? '' : nanos(Math.max(0, median(taken[variant]) - base)),
  ]);
  const guard = median([...taken.guard, ...taken.guardAgain]);
  return {
    columns: ['what', 'batches', 'emitter and add, median', 'p90', 'more than without'],
    rows,
    figures: { addNanos: guard - base, emptyNanos: base },
    requirements: [],
    notes: [],
  };
}

module.exports = {
  name: 'listeners',
  title: 'Adding a listener',
  method: [
    'An emitter is made, given one listener and dropped, 50,000 times a batch, in fresh processes in random order; the median over all batches.',
    'At such a rate some eight adds a second are sampled, with their stacks and weak references: that is in it.',
  ],
  perNode: true,
  seconds: { full: 60, quick: 8 },
  measure,
};
