'use strict';

/**
 * `npm run bench`: runs the measurements one after the other, unattended and each within a deadline, and writes
 * docs/BENCH.md, docs/bench.json and the README's block. It judges nothing: a figure that misses its mark is
 * shown, and only a measurement that could not be made is a failure.
 */

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { version } = require('../package.json');
const { nodeBinary, versionOf } = require('../test/matrix/nodes.js');
const { ROOT, stopAll } = require('./support/children.js');
const { renderBench, renderReadme, replaceBlock } = require('./support/report.js');

/** In the order of the report. Another measurement is its own file and a row here. */
const MEASUREMENTS = [
  require('./loop-gap.js'),
  require('./loop-gap-allocating.js'),
  require('./loop-gap-working.js'),
  require('./idle.js'),
  require('./express-cpu.js'),
  require('./express-profile.js'),
  require('./routes.js'),
  require('./fork-pause.js'),
  require('./require.js'),
  require('./native.js'),
  require('./metrics.js'),
  require('./page.js'),
  require('./listeners.js'),
  require('./rust.js'),
  require('./heap/run.js'),
];

const USAGE = `npm run bench -- [options]
  --only NAME,...     of ${MEASUREMENTS.map(({ name }) => name).join(', ')}
  --node 20,22        Node versions, default the running one
  --quick             short runs: for a look, not for figures
  --rounds N          of the measurements that compare CPU per request, default 30
  --out DIR           where BENCH.md and bench.json go, default docs; README.md is written with the default only
  --render            run nothing: write the reports from the json that is there
Results of other measurements and versions that are there already are kept.`;

/** A measurement may take this many times what it is said to take, and this much more for slow machines. */
const PATIENCE = 2;
const PATIENCE_MS = 120_000;

/** @typedef {import('./support/report.js').Result} Result */
/** @typedef {import('./support/report.js').Board} Board */

async function main() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      node: { type: 'string', default: String(process.versions.node.split('.')[0]) },
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      out: { type: 'string', default: 'docs' },
      render: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  const directory = path.resolve(ROOT, values.out);
  const wanted = values.only?.split(',');
  const unknown = wanted?.filter((name) => !MEASUREMENTS.some((one) => one.name === name)) ?? [];
  if (unknown.length > 0) throw new Error(`no measurement named ${unknown.join(', ')}\n${USAGE}`);
  const rounds = values.rounds === undefined ? undefined : Number(values.rounds);
  if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0))
    throw new Error(`--rounds: expected a whole number from 1, got ${values.rounds}\n${USAGE}`);
  const measurements = MEASUREMENTS.filter(({ name }) => wanted?.includes(name) ?? true);
  const nodes = values.node.split(',').map((major) => {
    const binary = nodeBinary(Number(major));
    return { binary, version: versionOf(binary) };
  });

  const board = readBoard(directory);
  if (!values.render) {
    const plan = measurements.flatMap((one) =>
      (one.perNode ? nodes : nodes.slice(0, 1)).map((node) => ({ one, node })),
    );
    const length = values.quick ? 'quick' : 'full';
    const total = plan.reduce((sum, { one }) => sum + one.seconds[length], 0);
    say(`${plan.length} measurements, about ${Math.ceil(total / 60)} minutes`);
    for (const { one, node } of plan) {
      const result = await measure(one, node, values.quick, rounds);
      keep(board, result);
      write(board, directory, values.out === 'docs');
      if (result.failure) process.exitCode = 1;
    }
  }
  write(board, directory, values.out === 'docs');
  say(`written: ${path.relative(process.cwd(), path.join(directory, 'BENCH.md'))}`);
}

/**
 * @param {typeof MEASUREMENTS[number]} one
 * @param {{ binary: string, version: string }} node
 * @param {boolean} quick
 * @param {number} [rounds]
 * @returns {Promise<Result>}
 */
async function measure(one, node, quick, rounds) {
  const of = one.perNode ? node.version : null;
  const expected = one.seconds[quick ? 'quick' : 'full'];
  say(`${one.name}${of ? `, Node ${of}` : ''}: about ${expected} s`);
  const began = performance.now();
  const loadAverage = os.loadavg()[0];
  let outcome;
  let failure = null;
  let timer;
  try {
    const late = new Promise((_, reject) => {
      const deadline = expected * 1000 * PATIENCE + PATIENCE_MS;
      timer = setTimeout(() => reject(new Error(`not done after ${deadline / 1000} s`)), deadline);
    });
    outcome = await Promise.race([one.measure({ node: node.binary, quick, rounds }), late]);
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  }
  clearTimeout(timer);
  await stopAll();
  const result = {
    name: one.name,
    title: one.title,
    method: one.method,
    node: of,
    date: new Date().toISOString(),
    quick,
    seconds: Math.round((performance.now() - began) / 1000),
    loadAverage,
    machine: machine(),
    leakguard: version,
    commit: commit(),
    failure,
    columns: [],
    rows: [],
    requirements: [],
    notes: [],
    ...outcome,
  };
  if (failure) say(`  failed: ${failure}`);
  for (const row of result.rows) say(`  ${row.join(' · ')}`);
  for (const { output } of result.outputs ?? []) say(output.replace(/^/gm, '  '));
  for (const { what, measured, limit, met } of result.requirements) {
    say(`  ${met ? 'met    ' : 'NOT MET'} ${what}: ${measured} (wanted ${limit})`);
  }
  return result;
}

/** @returns {import('./support/report.js').Machine} */
function machine() {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? 'unknown CPU',
    cores: cpus.length,
    memoryBytes: os.totalmem(),
    // Of the release the numbers: what follows names a build.
    system: `${os.type()} ${os.release().match(/^[\d.]+/)?.[0]} ${os.arch()}`,
  };
}

/** @returns {string | null} what was measured, as git names it */
function commit() {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty'], {
      cwd: ROOT,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return null;
  }
}

/** @param {string} directory @returns {Board} */
function readBoard(directory) {
  const file = path.join(directory, 'bench.json');
  if (!fs.existsSync(file)) return { schema: 1, results: [] };
  return JSON.parse(fs.readFileSync(file, 'utf8'));
}

/**
 * Puts a result in the place of the one it repeats. A Node version is known by its major.
 *
 * @param {Board} board
 * @param {Result} result
 */
function keep(board, result) {
  const major = (/** @type {Result} */ one) => one.node?.split('.')[0] ?? '';
  const others = board.results.filter(
    (one) => one.name !== result.name || major(one) !== major(result),
  );
  const order = (/** @type {Result} */ one) =>
    MEASUREMENTS.findIndex(({ name }) => name === one.name);
  board.results = [...others, result].sort(
    (a, b) => order(a) - order(b) || major(a).localeCompare(major(b)),
  );
}

/**
 * @param {Board} board
 * @param {string} directory
 * @param {boolean} readme
 */
function write(board, directory, readme) {
  fs.mkdirSync(directory, { recursive: true });
  fs.writeFileSync(path.join(directory, 'bench.json'), `${JSON.stringify(board, null, 1)}\n`);
  fs.writeFileSync(path.join(directory, 'BENCH.md'), renderBench(board));
  const file = path.join(ROOT, 'README.md');
  if (!readme || !fs.existsSync(file)) return;
  const text = replaceBlock(fs.readFileSync(file, 'utf8'), renderReadme(board));
  if (text !== null) fs.writeFileSync(file, text);
}

/** @param {string} text */
function say(text) {
  process.stdout.write(`${text}\n`);
}

main().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
