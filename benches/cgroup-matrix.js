'use strict';

// Which evidence one gets in which container: an Express app with a given live heap leaks under load in a memory cgroup
// until the guard speaks, with snapshots forked, inline and as `auto` decides. It must be alive afterwards, the finding
// must name the function that leaks, and no file may be empty. Needs root. `node benches/cgroup-matrix.js`; the table
// goes to docs/CONTAINERS.md and, shortened, to README.md.

const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { runLoad } = require('../test/apps/load.js');
const { startApp } = require('../test/harness.js');
const { container, parseSnapshot } = require('../test/program.js');

const ROOT = path.join(__dirname, '..');
const APP = path.join(__dirname, 'programs', 'contained.js');
const MB = 1024 * 1024;
const WAYS = ['fork', 'inline', 'auto'];
const FINDING_DEADLINE_MS = 240_000;
const RPS = 40;
/** Some 12 MB a minute. */
const LEAK_BYTES = 5300;

const USAGE = `node benches/cgroup-matrix.js [options]
  --limits 256,384,512      MB of the containers
  --live 30,60,90,120,150   MB of live heap before the leak
  --ways fork,inline,auto
  --jobs 2                  at a time
  --merge                   keep the rows of other containers, heaps and ways that are there already
  --out docs/CONTAINERS.md  the table; its rows go beside it as containers.json
  --readme                  also into README.md`;

/**
 * @typedef {object} Row
 * @property {number} limitMb
 * @property {number} liveMb
 * @property {string} way
 * @property {string} node
 * @property {string} snapshot `written`, or why not
 * @property {string} mode of a snapshot that was written
 * @property {string} profile `written`, or why not
 * @property {boolean} named the finding names the function that leaks
 * @property {string} sentence of the finding
 * @property {string} refusal of the snapshot, in words
 * @property {number} extraMb that the snapshot took
 * @property {string[]} harm what must not be
 */

/**
 * Steps of a finding that have come to their end.
 *
 * @param {any} finding
 */
const isComplete = ({ evidence }) =>
  evidence.some((/** @type {any} */ { kind }) => kind === 'profile') &&
  evidence.every((/** @type {any} */ { state }) => state !== 'pending');

/** @param {number} port @returns {Promise<string>} */
function get(port) {
  return new Promise((resolve, reject) => {
    http
      .get({ port, host: '127.0.0.1', timeout: 30_000, agent: false }, (response) => {
        response.setEncoding('utf8').once('data', resolve);
      })
      .once('error', reject);
  });
}

/**
 * Whether a finding's line is of the function that leaks or, where V8 has inlined that, of the only one that calls it.
 *
 * @param {any} cause
 */
function namesTheLeak({ site }) {
  const lines = fs.readFileSync(APP, 'utf8').split('\n');
  const lineOf = (/** @type {string} */ begin) =>
    lines.findIndex((line) => line.startsWith(begin)) + 1;
  const { file = '', line = 0 } = site ?? {};
  return (
    path.basename(file) === path.basename(APP) &&
    line >= lineOf('function remember()') &&
    line < lineOf('serve(app)')
  );
}

/** What must not lie in a directory of evidence. @param {string} dir */
function spoilt(dir) {
  return fs.readdirSync(dir).flatMap((name) => {
    if (/\.part$/.test(name)) return [`${name} is left`];
    const empty = fs.statSync(path.join(dir, name)).size === 0;
    return empty && name !== 'leakguard.lock' ? [`${name} is empty`] : [];
  });
}

/** @param {number} limitMb @param {number} liveMb @param {string} way @returns {Promise<Row>} */
async function runOne(limitMb, liveMb, way) {
  /** @type {(() => void)[]} */
  const after = [];
  const context = /** @type {any} */ ({
    after: (/** @type {() => void} */ undo) => after.unshift(undo),
    skip: (/** @type {string} */ why) => {
      throw new Error(why);
    },
  });
  /** @type {Row} */
  const row = {
    limitMb,
    liveMb,
    way,
    node: process.version,
    snapshot: 'none',
    mode: '',
    profile: 'none',
    named: false,
    sentence: '',
    refusal: '',
    extraMb: 0,
    harm: [],
  };
  const group = container(context, limitMb * MB);
  if (group === null) throw new Error('no memory cgroup can be made here');
  const stop = new AbortController();
  try {
    const app = await startApp(APP, {
      node: group.node,
      env: {
        LIVE_MB: String(liveMb),
        LEAK_BYTES: String(LEAK_BYTES),
        LEAKGUARD_SNAPSHOT: way,
        LEAKGUARD_GC_SHARE: '10%',
        // Memory is to decide here, however busy the machine is.
        LEAKGUARD_MAX_GC_PAUSE: '5s',
        LEAKGUARD_MAX_PAUSE: '1h',
        LEAKGUARD_FOLLOWUP: 'off',
        // Near the end is a finding too, but not the one that is looked at here.
        LEAKGUARD_GROWTH_RATE: '2MB/min',
      },
    });
    const load = runLoad(
      app.port,
      { rps: RPS, routes: [{ path: '/ask', weight: 1 }], keepAlive: true, maxSockets: 8 },
      { durationMs: FINDING_DEADLINE_MS, signal: stop.signal },
    );
    try {
      const finding = /** @type {any} */ (
        await app.waitForFinding(FINDING_DEADLINE_MS, isComplete)
      );
      const step = (/** @type {string} */ kind) =>
        finding.evidence.find((/** @type {any} */ one) => one.kind === kind);
      const snapshot = step('snapshot');
      row.sentence = finding.sentence;
      row.snapshot = snapshot.state === 'written' ? 'written' : (snapshot.reason ?? snapshot.state);
      if (snapshot.state === 'written') {
        const file = path.join(app.dir, snapshot.file);
        const meta = JSON.parse(
          fs.readFileSync(file.replace(/Heap\.(.*)\.heapsnapshot$/, 'Snapshot.$1.meta'), 'utf8'),
        );
        row.mode = meta.mode;
        row.extraMb = Math.round((snapshot.numbers.extraMemoryBytes ?? 0) / MB);
        parseSnapshot(file);
      } else row.refusal = snapshot.sentence;
      const profile = step('profile');
      row.profile = profile.state === 'written' ? 'written' : (profile.reason ?? profile.state);
      row.named = namesTheLeak(finding.cause);
      if (!row.named) row.harm.push('the finding does not name the function that leaks');
      if ((await get(app.port)) !== 'here') row.harm.push('the app does not answer');
      row.harm.push(...spoilt(app.dir));
    } catch (error) {
      row.harm.push(String(error instanceof Error ? error.message : error).slice(0, 500));
    } finally {
      stop.abort();
      await load;
      if (app.exited) row.harm.push(`the app ended: ${JSON.stringify(app.exited)}`);
      await app.stop();
    }
    if (group.kills() > 0) row.harm.push(`${group.kills()} killed by the container`);
  } finally {
    for (const undo of after) undo();
  }
  return row;
}

/** What a cell of the table says. @param {Row} row */
function cell({ snapshot, mode, profile, named, harm }) {
  if (harm.length > 0) return `FAILED: ${harm.join('; ')}`;
  const of = snapshot === 'written' ? `snapshot (${mode})` : `no snapshot (${snapshot})`;
  return `${of}, ${profile === 'written' ? 'profile' : `no profile (${profile})`}${named ? '' : ', line not named'}`;
}

/** @param {Row[]} rows */
function table(rows) {
  const ways = [...new Set(rows.map((row) => row.way))];
  const keys = [...new Set(rows.map((row) => `${row.limitMb} ${row.liveMb}`))];
  const lines = [
    `| container | live heap | ${ways.map((way) => `\`LEAKGUARD_SNAPSHOT=${way}\``).join(' | ')} |`,
    `|---|---|${ways.map(() => '---|').join('')}`,
  ];
  for (const key of keys) {
    const [limitMb, liveMb] = key.split(' ').map(Number);
    const cells = ways.map((way) => {
      const row = rows.find(
        (one) => one.limitMb === limitMb && one.liveMb === liveMb && one.way === way,
      );
      return row ? cell(row) : '';
    });
    lines.push(`| ${limitMb} MB | ${liveMb} MB | ${cells.join(' | ')} |`);
  }
  return lines.join('\n');
}

/** @param {Row[]} rows */
function render(rows) {
  const refusals = rows
    .filter((row) => row.refusal !== '')
    .map((row) => `- ${row.limitMb} MB, ${row.liveMb} MB live, ${row.way}: ${row.refusal}`);
  const [{ node = process.version } = {}] = rows;
  return `# Which evidence one gets in which container

Made by \`node benches/cgroup-matrix.js\`; do not edit. An Express app with that live heap of small objects leaks some
${Math.round((RPS * LEAK_BYTES * 60) / MB)} MB a minute under load in a memory cgroup until the guard speaks. In every cell but one marked FAILED it answered
afterwards, nothing was killed, no file was empty or half-written, and the finding named the function that leaks or, where
V8 has inlined it, the only one that calls it.
${os.cpus()[0]?.model}, ${os.cpus().length} cores, Node ${node}.

${table(rows)}

## What the refusals say

${refusals.length === 0 ? 'None.' : refusals.join('\n')}
`;
}

/** @param {string} text @param {Row[]} rows */
function withTable(text, rows) {
  const [begin, end] = ['<!-- containers:begin -->', '<!-- containers:end -->'];
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`README.md has no ${begin} ... ${end}`);
  const numbers = (/** @type {number[]} */ of) => [...new Set(of)].sort((a, b) => a - b);
  const limits = numbers(rows.map(({ limitMb }) => limitMb));
  const live = numbers(rows.map(({ liveMb }) => liveMb));
  const [same, ...others] = new Set(rows.map(cell));
  const words =
    others.length === 0
      ? `In containers of ${limits.join(', ')} MB with live heaps of ${live[0]} to ${live.at(-1)} MB, leaking under load, all ${rows.length} apps lived on, and each finding named the leaking function: ${same}, whether forked, inline or auto ([docs/CONTAINERS.md](docs/CONTAINERS.md)).`
      : `Live heap and container decide which evidence one gets ([docs/CONTAINERS.md](docs/CONTAINERS.md)):\n\n${table(rows)}`;
  return `${text.slice(0, from + begin.length)}\n\n${words}\n\n${text.slice(to)}`;
}

async function main() {
  const { values } = parseArgs({
    options: {
      limits: { type: 'string', default: '256,384,512' },
      live: { type: 'string', default: '30,60,90,120,150' },
      ways: { type: 'string', default: WAYS.join() },
      jobs: { type: 'string', default: '2' },
      merge: { type: 'boolean', default: false },
      out: { type: 'string', default: path.join(ROOT, 'docs', 'CONTAINERS.md') },
      readme: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const numbers = (/** @type {string} */ list) => list.split(',').map(Number);
  const plan = numbers(values.limits).flatMap((limitMb) =>
    numbers(values.live).flatMap((liveMb) =>
      values.ways.split(',').map((way) => ({ limitMb, liveMb, way })),
    ),
  );
  const rowsFile = path.join(path.dirname(values.out), 'containers.json');
  /** @type {Row[]} */
  const before =
    values.merge && fs.existsSync(rowsFile) ? JSON.parse(fs.readFileSync(rowsFile, 'utf8')) : [];
  const same = (/** @type {Row} */ a) => (/** @type {Row} */ b) =>
    a.limitMb === b.limitMb && a.liveMb === b.liveMb && a.way === b.way;
  const order = (/** @type {Row} */ a, /** @type {Row} */ b) =>
    a.limitMb - b.limitMb || a.liveMb - b.liveMb || WAYS.indexOf(a.way) - WAYS.indexOf(b.way);
  /** @type {Row[]} */
  const made = [];
  let rows = before;
  fs.mkdirSync(path.dirname(values.out), { recursive: true });
  const waiting = plan.values();
  const work = async () => {
    for (const { limitMb, liveMb, way } of waiting) {
      const began = Date.now();
      const row = await runOne(limitMb, liveMb, way);
      made.push(row);
      const seconds = Math.round((Date.now() - began) / 1000);
      console.log(`${limitMb} MB, ${liveMb} MB live, ${way}: ${cell(row)} (${seconds} s)`);
      // After each, so that what is interrupted goes on with --merge.
      rows = [...before.filter((one) => !made.some(same(one))), ...made].sort(order);
      fs.writeFileSync(rowsFile, `${JSON.stringify(rows, null, 2)}\n`);
      fs.writeFileSync(values.out, render(rows));
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, work));
  if (values.readme) {
    const readme = path.join(ROOT, 'README.md');
    fs.writeFileSync(readme, withTable(fs.readFileSync(readme, 'utf8'), rows));
  }
  if (made.some((row) => row.harm.length > 0)) process.exitCode = 1;
}

main();
