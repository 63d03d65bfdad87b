'use strict';

/**
 * `npm run scoreboard -- --routes`: ten runs of an Express app of twelve routes, one of which leaks, under seeded
 * traffic whose shares come and go; another route and another seed each time. Writes docs/ROUTES.md and its rows as
 * routes.json beside it. It judges nothing: a run that names the wrong route is a row like the others.
 */

const fs = require('node:fs');
const path = require('node:path');
const many = require('../test/apps/many-routes.js');
const { runLoad } = require('../test/apps/load.js');
const { FAST_SETTINGS, startApp } = require('../test/harness.js');

const ROOT = path.join(__dirname, '..');
const REPORT = path.join(ROOT, 'docs', 'ROUTES.md');
const ROWS = path.join(ROOT, 'docs', 'routes.json');

const RUNS = 10;
const RPS = 60;
/** A finding that is not there by then is missing. */
const FINDING_MS = 150_000;
/** How long a finding may go on learning from new readings: four windows, and the way to the disk. */
const LEARNING_MS = 4 * 32_000 + 5_000;

/**
 * @typedef {object} Named what a finding says of routes
 * @property {number} seconds since the app listened
 * @property {string} verdict
 * @property {string | null} first
 * @property {number | null} r
 * @property {number | null} certainty
 * @property {number | null} bytesPerRequest of that route
 * @property {number} readings
 *
 * @typedef {object} Row
 * @property {number} seed
 * @property {string} express
 * @property {string} route the one that leaks
 * @property {number} leaked bytes per request that it was told to leak
 * @property {number} requests of that route
 * @property {Named | null} opened what the finding said when it came
 * @property {Named | null} learnt what it said in the end
 * @property {string} sentence
 */

/**
 * @param {{ jobs: number, render: boolean }} options
 */
async function run({ jobs, render }) {
  /** @type {{ node: string, date: string, rows: Row[] }} */
  let board;
  if (render) board = JSON.parse(fs.readFileSync(ROWS, 'utf8'));
  else {
    board = { node: process.version, date: new Date().toISOString(), rows: [] };
    let next = 1;
    const worker = async () => {
      while (next <= RUNS) {
        const row = await once(next++);
        board.rows.push(row);
        process.stdout.write(
          `seed ${row.seed}: ${row.route} leaks; ${say(row.opened)}, in the end ${say(row.learnt)}\n`,
        );
      }
    };
    await Promise.all(Array.from({ length: jobs }, worker));
    board.rows.sort((a, b) => a.seed - b.seed);
    fs.writeFileSync(ROWS, `${JSON.stringify(board, null, 2)}\n`);
  }
  fs.writeFileSync(REPORT, written(board));
  process.stdout.write(`written: ${path.relative(process.cwd(), REPORT)}\n`);
}

/**
 * @param {number} seed
 * @returns {Promise<Row>}
 */
async function once(seed) {
  const leaking = (seed * 5) % many.ROUTES.length;
  const express = seed % 2 === 0 ? 'express4' : 'express';
  const load = many.load(leaking, RPS);
  const app = await startApp(require.resolve('../test/apps/many-routes.js'), {
    env: {
      EXPRESS: express,
      LEAK_ROUTE: String(leaking),
      LEAK_RPS: String(RPS / many.ROUTES.length),
      LEAKGUARD_SNAPSHOT: 'off',
    },
  });
  const began = performance.now();
  const over = new AbortController();
  const durationMs = FINDING_MS + LEARNING_MS + 10_000;
  const loading = runLoad(app.port, load, { seed, durationMs, signal: over.signal });
  /** @type {Named | null} */
  let opened = null;
  /** @type {Named | null} */
  let learnt = null;
  let sentence = '';
  const look = () => {
    const [finding] = /** @type {any[]} */ (app.findings());
    if (finding === undefined) return undefined;
    sentence = finding.sentence;
    learnt = named(finding.routes, (performance.now() - began) / 1000);
    opened ??= learnt;
    return finding;
  };
  try {
    await app.waitForFile(FINDING_MS, 'a finding', look);
    // Until it has learnt all it will: each change of its file is looked at.
    await app.waitForFile(LEARNING_MS, 'more', () => void look());
  } catch {
    // Neither is there for ever.
  } finally {
    over.abort();
  }
  const { routes } = await loading;
  await app.stop();
  const { path: asked, name } = many.ROUTES[leaking];
  return {
    seed,
    express,
    route: name,
    leaked: Math.round((4 * 2 ** 20) / 60 / (RPS / many.ROUTES.length)),
    requests: routes[asked],
    opened,
    learnt,
    sentence,
  };
}

/**
 * @param {any} routes
 * @param {number} seconds
 * @returns {Named | null}
 */
function named(routes, seconds) {
  if (routes == null) return null;
  const [first] = routes.with;
  return {
    seconds: Math.round(seconds),
    verdict: routes.verdict,
    first: first?.route ?? null,
    r: first?.r ?? null,
    certainty: first?.certainty ?? null,
    bytesPerRequest: first?.bytesPerRequest ?? null,
    readings: routes.readings,
  };
}

/** @param {Named | null} of */
function say(of) {
  if (of === null) return 'nothing';
  return of.first === null ? of.verdict : `${of.first} (${of.verdict}, r ${of.r})`;
}

/** @param {{ node: string, date: string, rows: Row[] }} board */
function written({ node, date, rows }) {
  const right = (/** @type {'opened' | 'learnt'} */ when) =>
    rows.filter((row) => row[when]?.first === row.route).length;
  const wrong = rows.filter((row) => row.learnt?.first && row.learnt.first !== row.route).length;
  const cells = rows.map((row) => [
    row.seed,
    row.express === 'express' ? '5' : '4',
    `\`${row.route}\``,
    row.opened === null ? '' : `${row.opened.seconds} s`,
    row.opened?.first ? `\`${row.opened.first}\`` : (row.opened?.verdict ?? 'no finding'),
    row.learnt?.first ? `\`${row.learnt.first}\`` : (row.learnt?.verdict ?? ''),
    row.learnt?.r ?? '',
    row.learnt?.certainty ?? '',
    row.leaked,
    row.learnt?.bytesPerRequest ?? '',
  ]);
  const head = [
    'seed',
    'Express',
    'leaks',
    'finding after',
    'it names',
    'in the end',
    'r',
    'certainty',
    'bytes leaked a request',
    'bytes reported',
  ];
  const line = (/** @type {unknown[]} */ some) => `| ${some.join(' | ')} |`;
  return `# Which route leaks

Made by \`npm run scoreboard -- --routes\`; the rows are in [routes.json](routes.json).

An Express app of twelve routes over nested routers, a mounted app and mounts with parameters (test/apps/many-routes.js).
One route keeps what it computed, 4 MB/min in all; ${RPS} requests a second, every route's share of which comes and goes
by itself (an autoregression of the logarithm, deviation 1, a step every 6 s). Another seed, another leaking route and
the other Express each run. Settings: ${Object.entries(FAST_SETTINGS)
    .filter(([name]) => name !== 'LEAKGUARD_SNAPSHOT')
    .map(([name, value]) => `\`${name}=${value}\``)
    .join(' ')}.
A finding comes as soon as growth is certain; for four windows it then learns from new readings. Bytes reported are of the
live heap and hold the slots and promises that come with what the route was told to keep.

**The leaking route is named first in ${right('opened')} of ${rows.length} findings when they come, in ${right('learnt')} of ${rows.length} in the
end; another one in ${wrong}.** Node ${node.slice(1)}, ${date.slice(0, 10)}.

${[line(head), line(head.map(() => '---')), ...cells.map(line)].join('\n')}
`;
}

module.exports = { run };
