'use strict';

/**
 * The Rust benches (`benches/*.rs`), run by cargo: each prints a table, which is kept as it is. Those that exist
 * are found in Cargo.toml.
 */

const fs = require('node:fs');
const path = require('node:path');
const { run } = require('../scripts/steps.js');
const { ROOT } = require('./support/children.js');
const { requirement } = require('./support/words.js');

/** A build from nothing on a small machine. */
const BUILD_DEADLINE_MS = 15 * 60_000;
const RUN_DEADLINE_MS = 3 * 60_000;

const EVALUATION_LIMIT_MICROS = 1000;
const MEMORY_LIMIT_KB = 512;

/** @returns {string[]} names of the benches in Cargo.toml */
function names() {
  const manifest = fs.readFileSync(path.join(ROOT, 'Cargo.toml'), 'utf8');
  return [...manifest.matchAll(/^\[\[bench\]\]\s*\nname = "([\w-]+)"/gm)].map((match) => match[1]);
}

/**
 * The figures of lines such as `evaluation of full series   12.0  14.2  12.1 | 12.1  14.0  12.2`.
 *
 * @param {string} output
 * @returns {Record<string, number[]>}
 */
function figuresOf(output) {
  /** @type {Record<string, number[]>} */
  const figures = {};
  for (const line of output.split('\n')) {
    const match = /^(\S.*?)\s{2,}([\d.]+(?:[\s|]+[\d.]+)*)\s*$/.exec(line);
    if (match) figures[match[1]] = match[2].split(/[\s|]+/).map(Number);
  }
  return figures;
}

/** @param {{ quick: boolean }} options */
async function measure({ quick }) {
  // A quick run looks at the harness; the recorder's and the probe's benches take their own time.
  const wanted = quick ? names().filter((name) => name === 'pipeline') : names();
  await run(
    'cargo',
    ['bench', '--locked', '--no-run', ...wanted.flatMap((name) => ['--bench', name])],
    {
      deadlineMs: BUILD_DEADLINE_MS,
    },
  );
  /** @type {{ name: string, output: string }[]} */
  const outputs = [];
  for (const name of wanted) {
    const output = await run('cargo', ['bench', '--locked', '--bench', name], {
      deadlineMs: RUN_DEADLINE_MS,
      capture: true,
    });
    outputs.push({ name, output: output.trimEnd() });
  }
  const figures = Object.fromEntries(outputs.map(({ name, output }) => [name, figuresOf(output)]));
  const requirements = [];
  const evaluation = figures.pipeline?.['evaluation of full series'];
  if (evaluation) {
    requirements.push(
      requirement(
        'evaluation of all series, full, median and p99',
        `${evaluation[0]} µs, ${evaluation[1]} µs`,
        '< 1 ms',
        Math.max(evaluation[0], evaluation[1]) < EVALUATION_LIMIT_MICROS,
      ),
    );
  }
  const steps = Object.entries(figures.pipeline ?? {})
    .filter(([name]) => name.startsWith('step()'))
    .map(([, [, p99]]) => p99);
  if (steps.length > 0) {
    requirements.push(
      requirement(
        'a tick of the native thread, full series, p99, also while everything grows',
        `${Math.max(...steps)} µs`,
        '< 1 ms',
        Math.max(...steps) < EVALUATION_LIMIT_MICROS,
      ),
    );
  }
  const computed = figures.pipeline?.['series of one isolate, computed'];
  const measured = figures.pipeline?.['series of one isolate, measured'];
  if (computed && measured) {
    requirements.push(
      requirement(
        'memory of all series of one isolate',
        `${computed[0]} KB computed, ${measured[0]} KB measured`,
        `< ${MEMORY_LIMIT_KB} KB`,
        Math.max(computed[0], measured[0]) < MEMORY_LIMIT_KB,
      ),
    );
  }
  return { columns: [], rows: [], outputs, figures, requirements, notes: [] };
}

module.exports = {
  name: 'rust',
  title: 'On the native thread, piece by piece',
  method: [
    'The benches of the crate, each call timed by itself after a warm-up; CPU time where it says so.',
    'Every measurement is printed twice: the second group is the A/A control.',
  ],
  perNode: false,
  seconds: { full: 240, quick: 90 },
  measure,
};
