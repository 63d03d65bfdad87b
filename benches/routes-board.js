'use strict';

/**
 * `npm run scoreboard -- --routes`: runs of an Express app of twelve routes, one of which leaks, under seeded traffic
 * whose shares come and go; another route and another seed each time. Writes docs/ROUTES.md and its rows as routes.json
 * beside it, and keeps apart the seeds that the rule was chosen on and those it had never seen. It judges nothing: a run
 * that names the wrong route is a row like the others.
 */

const fs = require('node:fs');
const path = require('node:path');
const many = require('../test/apps/many-routes.js');
const { runLoad } = require('../test/apps/load.js');
const { FAST_SETTINGS, startApp } = require('../test/harness.js');
const { nodeBinary, versionOf } = require('../test/matrix/nodes.js');

const ROOT = path.join(__dirname, '..');
const REPORT = path.join(ROOT, 'docs', 'ROUTES.md');
const ROWS = path.join(ROOT, 'docs', 'routes.json');

/** Seeds up to this one were looked at while the rule was chosen: only later ones say what it is worth. */
const LAST_CHOSEN_ON = 10;
const LAST_SEED = 20;
const RPS = 60;
/** A finding that is not there by then is missing. */
const FINDING_MS = 150_000;
/** How long a finding may go on learning from new readings: four windows, and the way to the disk. */
const LEARNING_MS = 4 * 32_000 + 5_000;

/**
 * @typedef {object} Named what a finding says of routes
 * @property {number} seconds since the app listened, when it was first seen to say so
 * @property {string} verdict
 * @property {string | null} first
 * @property {number | null} r
 * @property {number | null} certainty
 * @property {number | null} bytesPerRequest of that route
 * @property {number} readings
 *
 * @typedef {object} Row
 * @property {string} node version
 * @property {string} date
 * @property {number} [jobs] runs at a time
 * @property {number} seed
 * @property {string} express
 * @property {string} route the one that leaks
 * @property {number} leaked bytes per request that it was told to leak
 * @property {number} requests of that route
 * @property {Named | null} opened what the finding said when it came
 * @property {Named | null} learnt what it said in the end
 * @property {number | null} [named] seconds since the app listened until it first named a route
 * @property {string} sentence
 */

/**
 * @typedef {object} Options
 * @property {number} jobs at a time
 * @property {number} node major version
 * @property {string} [seeds] such as `11-20` or `7`; default all
 * @property {boolean} merge keep the rows of other seeds
 * @property {boolean} render run nothing
 *
 * @param {Options} options
 */
async function run({ jobs, node, seeds = `1-${LAST_SEED}`, merge, render }) {
  /** @type {Row[]} */
  let rows = merge || render ? JSON.parse(fs.readFileSync(ROWS, 'utf8')).rows : [];
  if (!render) {
    const binary = nodeBinary(node);
    const waiting = seedsOf(seeds).values();
    const worker = async () => {
      for (const seed of waiting) {
        const row = { ...(await once(seed, binary)), jobs };
        rows = rows.filter((one) => one.seed !== seed).concat(row);
        process.stdout.write(
          `seed ${row.seed}: ${row.route} leaks; ${say(row.opened)}, in the end ${say(row.learnt)}\n`,
        );
      }
    };
    await Promise.all(Array.from({ length: jobs }, worker));
    rows.sort((a, b) => a.seed - b.seed);
    fs.writeFileSync(ROWS, `${JSON.stringify({ rows }, null, 2)}\n`);
  }
  fs.writeFileSync(REPORT, written(rows));
  process.stdout.write(`written: ${path.relative(process.cwd(), REPORT)}\n`);
}

/**
 * @param {string} text such as `11-20` or `7`
 * @returns {number[]}
 */
function seedsOf(text) {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  const count = Number(last) - Number(first) + 1;
  if (!(count > 0)) throw new Error(`--seeds: expected seeds like 11-20, got "${text}"`);
  return Array.from({ length: count }, (_, at) => Number(first) + at);
}

/**
 * @param {number} seed
 * @param {string} node binary
 * @returns {Promise<Row>}
 */
async function once(seed, node) {
  const leaking = (seed * 5) % many.ROUTES.length;
  const express = seed % 2 === 0 ? 'express4' : 'express';
  const load = many.load(leaking, RPS);
  const app = await startApp(require.resolve('../test/apps/many-routes.js'), {
    node,
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
  /** @type {number | null} */
  let first = null;
  let sentence = '';
  const look = () => {
    const [finding] = /** @type {any[]} */ (app.findings());
    if (finding === undefined) return undefined;
    if (finding.sentence === sentence) return finding;
    sentence = finding.sentence;
    learnt = named(finding.routes, (performance.now() - began) / 1000);
    opened ??= learnt;
    first ??= learnt?.first ? learnt.seconds : null;
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
    node: versionOf(node),
    date: new Date().toISOString(),
    seed,
    express,
    route: name,
    leaked: Math.round((4 * 2 ** 20) / 60 / (RPS / many.ROUTES.length)),
    requests: routes[asked],
    opened,
    learnt,
    named: first,
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

/** @param {Row[]} rows */
function written(rows) {
  const fresh = rows.filter((row) => row.seed > LAST_CHOSEN_ON);
  const known = rows.filter((row) => row.seed <= LAST_CHOSEN_ON);
  return `# Which route leaks

Made by \`npm run scoreboard -- --routes\`; the rows are in \`docs/routes.json\` of the repository.

An Express app of twelve routes over nested routers, a mounted app and mounts with parameters (test/apps/many-routes.js).
One route keeps what it computed, 4 MB/min in all; ${RPS} requests a second, every route's share of which comes and goes
by itself (an autoregression of the logarithm, deviation 1, a step every 6 s). Another seed, another leaking route and
the other Express each run. Settings: ${Object.entries(FAST_SETTINGS)
    .filter(([name]) => name !== 'LEAKGUARD_SNAPSHOT')
    .map(([name, value]) => `\`${name}=${value}\``)
    .join(' ')}.
A finding comes as soon as growth is certain and does not wait for its route; for four windows it then learns from new
readings, and when they name a route its file, a line on stderr and a \`routes\` event say so. Bytes reported are of the live
heap and hold the slots and promises that come with what the route was told to keep.

${section('Fresh seeds', 'No run with one of these was looked at before the rule was as it is.', fresh)}

${section('Seeds the rule was chosen on', 'What these say of the rule is too good by what was learnt from them.', known)}
`;
}

/**
 * @param {string} title
 * @param {string} what
 * @param {Row[]} rows
 */
function section(title, what, rows) {
  if (rows.length === 0) return `## ${title}\n\nNone were run.`;
  const right = (/** @type {'opened' | 'learnt'} */ when) =>
    rows.filter((row) => row[when]?.first === row.route).length;
  const others = (/** @type {'opened' | 'learnt'} */ when) =>
    rows.filter((row) => row[when]?.first && row[when]?.first !== row.route).length;
  const of = (/** @type {'opened' | 'learnt'} */ when) =>
    `${right(when)} of ${rows.length}${others(when) > 0 ? ` (another one in ${others(when)})` : ''}`;
  const nodes = [...new Set(rows.map((row) => row.node.slice(1)))].join(', ');
  const jobs = Math.max(...rows.map((row) => row.jobs ?? 1));
  const beside = jobs > 1 ? `, up to ${jobs} runs side by side` : '';
  const dates = [...new Set(rows.map((row) => row.date.slice(0, 10)))].join(', ');
  const cells = rows.map((row) => [
    row.seed,
    row.express === 'express' ? '5' : '4',
    `\`${row.route}\``,
    row.opened === null ? '' : `${row.opened.seconds} s`,
    row.opened?.first ? `\`${row.opened.first}\`` : (row.opened?.verdict ?? 'no finding'),
    row.named == null ? '' : `${row.named} s`,
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
    'a route after',
    'in the end',
    'r',
    'certainty',
    'bytes leaked a request',
    'bytes reported',
  ];
  const line = (/** @type {unknown[]} */ some) => `| ${some.join(' | ')} |`;
  return `## ${title}

${what}

**The leaking route is named first in ${of('opened')} findings when they come, in ${of('learnt')} in the end.** Node
${nodes}, ${dates}${beside}.

${[line(head), line(head.map(() => '---')), ...cells.map(line)].join('\n')}`;
}

module.exports = { run };
