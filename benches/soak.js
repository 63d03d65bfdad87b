'use strict';

// The soak of forked snapshots: Express apps under load fork thousands of children that run the garbage collector as
// a snapshot does, and hundreds that write a whole snapshot, which is then read and its objects counted. It counts
// what an app may notice (crashes, hangs, failed requests, failed children of its own) and how many tries each took.
// `npm run soak`; the totals go to docs/SOAK.md, added to what is there with --merge.

const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: delay } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const { runLoad } = require('../test/apps/load.js');
const { startApp } = require('../test/harness.js');
const { nodeBinary, versionOf } = require('../test/matrix/nodes.js');
const { countElsewhere } = require('./held.js');

const ROOT = path.join(__dirname, '..');

const USAGE = `npm run soak -- [options]
  --forks 3000        children of the GC stage, over all Node versions
  --snapshots 300     whole snapshots, over all Node versions
  --node 20,22,24,26  Node versions, or paths of binaries
  --heaps 20,40,80,150,300    MB of live heap, each about as often; name one twice to have it more often
  --with plain,workers,children,inspector
  --rps 60            requests a second
  --control 1         an A/A run beside each app: the same app and load without any fork, for this part of its time
  --minutes 60        ends after so long, whatever was reached
  --out docs/SOAK.md  the report; its rows go beside it as soak.json
  --merge             add to the rows that are there`;

/** GC stages between two snapshots of an app, and how many snapshots one app takes before the next is started. */
const SNAPSHOTS_PER_APP = 3;
const ANSWER_DEADLINE_MS = 180_000;
/** An app that has answered no request for so long hangs. */
const HANG_MS = 10_000;

/** @type {import('../test/apps/index.js').Load} */
const LOAD = {
  rps: 60,
  routes: [
    { path: '/json', weight: 6 },
    { path: '/hash', weight: 2 },
    { path: '/file', weight: 2 },
  ],
  keepAlive: true,
  maxSockets: 16,
};

/**
 * @typedef {object} Row one app's totals
 * @property {string} node
 * @property {string} variant
 * @property {number} heapMb
 * @property {number} gcStages asked for
 * @property {number[]} gcTries good at the first, second, third try
 * @property {number} snapshots asked for
 * @property {number[]} snapshotTries good at the first, second, third try
 * @property {number} attempts times the event loop was stopped
 * @property {number[]} pauses milliseconds, the longest stop of each child
 * @property {Record<string, number>} failures of children, by sentence
 * @property {Record<string, number>} mishaps of tries that a later try made good
 * @property {string[]} harm what the app noticed
 * @property {number} requests
 * @property {number} failedRequests
 * @property {number} ownChildren that the app started
 * @property {number} [controlRequests] of the same app under the same load without any fork
 * @property {number} [controlFailedRequests]
 * @property {string[]} [controlHarm]
 * @property {string} [remark] what was found out about the row afterwards
 */

/**
 * @param {Record<string, number>} counts
 * @param {string} what
 */
function count(counts, what) {
  // Sizes and numbers differ each time; the kind is what counts.
  const kind = what
    .replace(/[\d.]+ (MiB|GiB|KiB|B)\b/g, 'N')
    .replace(/in \d+ attempts/, 'in N attempts');
  counts[kind] = (counts[kind] ?? 0) + 1;
}

/**
 * A debugger as an IDE attaches one: it enables the domains and reads what comes. Needs a WebSocket, which Node has
 * since 22; the upgrade by hand is a few lines and works on all.
 *
 * @param {string} stderr of an app started with --inspect=0
 * @returns {Promise<import('node:net').Socket>}
 */
function attachInspector(stderr) {
  const address = /ws:\/\/([\d.]+):(\d+)(\/\S+)/.exec(stderr);
  if (!address) return Promise.reject(new Error('the inspector did not say where it listens'));
  const [, host, port, url] = address;
  return new Promise((resolve, reject) => {
    const socket = require('node:net').connect(Number(port), host);
    socket.on('error', reject);
    socket.write(
      `GET ${url} HTTP/1.1\r\nHost: ${host}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    );
    socket.once('data', () => {
      for (const [id, method] of [
        'Runtime.enable',
        'Debugger.enable',
        'HeapProfiler.enable',
      ].entries()) {
        socket.write(frame(JSON.stringify({ id: id + 1, method })));
      }
      socket.resume();
      resolve(socket);
    });
  });
}

/**
 * A masked text frame of a short message (RFC 6455, 5.2); the mask may be zero.
 * @param {string} text
 */
function frame(text) {
  const payload = Buffer.from(text);
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
}

/** Orders to an app. */
class Orders {
  /** @param {import('../test/harness.js').RunningApp} app */
  constructor(app) {
    this.app = app;
    this.id = 0;
  }

  /**
   * @param {string} order
   * @returns {Promise<any>}
   */
  give(order) {
    this.id += 1;
    const { id } = this;
    const answer = this.app.message(
      (message) => (message?.id === id ? { answer: message.answer } : undefined),
      ANSWER_DEADLINE_MS,
      `an answer to ${order}`,
    );
    this.app.child.send({ order, id });
    return answer.then((message) => message.answer);
  }
}

/**
 * An app with its A/A run: the same app, the same load, and nothing is asked of the guard. They change places from app
 * to app, so that neither always has the warmer machine.
 *
 * @param {Plan} plan
 * @param {number} share of the app's time that its A/A run takes
 * @param {number} expectedMs of the app, for an A/A run that comes first
 * @returns {Promise<{ row: Row, tookMs: number }>}
 */
async function runBoth(plan, share, expectedMs) {
  const controlled = share > 0;
  const first = controlled && expectedMs > 0;
  const control = (/** @type {number} */ ms) =>
    runApp({ ...plan, gcStages: 0, snapshots: 0, idleMs: ms * share });
  let other = first ? await control(expectedMs) : null;
  const began = Date.now();
  const row = await runApp(plan);
  const tookMs = Date.now() - began;
  if (controlled && other === null) other = await control(tookMs);
  if (other !== null) {
    row.controlRequests = other.requests;
    row.controlFailedRequests = other.failedRequests;
    row.controlHarm = other.harm;
  }
  return { row, tookMs };
}

/**
 * @typedef {{ node: string, version: string, variant: string, heapMb: number, gcStages: number, snapshots: number,
 *   rps: number, idleMs?: number }} Plan `idleMs`: an A/A run, which is under load for so long
 *
 * @param {Plan} plan
 * @returns {Promise<Row>}
 */
async function runApp({ node, version, variant, heapMb, gcStages, snapshots, rps, idleMs }) {
  /** @type {Row} */
  const row = {
    node: version,
    variant,
    heapMb,
    gcStages: 0,
    gcTries: [0, 0, 0],
    snapshots: 0,
    snapshotTries: [0, 0, 0],
    attempts: 0,
    pauses: [],
    failures: {},
    mishaps: {},
    harm: [],
    requests: 0,
    failedRequests: 0,
    ownChildren: 0,
  };
  const app = await startApp(path.join(__dirname, 'soak-app.js'), {
    node,
    guarded: false,
    execArgv: variant === 'inspector' ? ['--inspect=0'] : [],
    env: {
      LEAKGUARD_DIR: fs.mkdtempSync(path.join(require('node:os').tmpdir(), 'leakguard-soak-')),
      LEAKGUARD_SNAPSHOT: 'fork',
      LEAKGUARD_ANALYZE: 'off',
      LEAKGUARD_MAX_SNAPSHOTS: '100000',
      LEAKGUARD_MAX_DISK: '4GB',
      LEAKGUARD_LOG: 'silent',
      SOAK_HEAP_MB: String(heapMb),
      SOAK_WITH: variant,
    },
  });
  const orders = new Orders(app);
  const stop = new AbortController();
  let lastAnswer = Date.now();
  const load = runLoad(app.port, { ...LOAD, rps }, { durationMs: 3_600_000, signal: stop.signal });
  const heartbeat = setInterval(() => {
    require('node:http')
      .get({ port: app.port, host: '127.0.0.1', path: '/file', timeout: HANG_MS }, (response) => {
        response.resume();
        lastAnswer = Date.now();
      })
      .on('error', () => {});
    if (Date.now() - lastAnswer > HANG_MS && row.harm.length < 10) {
      row.harm.push(`no answer for ${HANG_MS} ms`);
      lastAnswer = Date.now();
    }
  }, 500);
  let inspector;
  try {
    if (variant === 'inspector') inspector = await attachInspector(app.stderr);
    const { held } = await orders.give('state');
    if (idleMs !== undefined) await delay(idleMs);
    const between = Math.max(1, Math.ceil(gcStages / Math.max(1, snapshots)));
    while (row.gcStages < gcStages || row.snapshots < snapshots) {
      for (let i = 0; i < between && row.gcStages < gcStages; i++) await gcStage(orders, row);
      if (row.snapshots < snapshots) await snapshot(orders, row, held);
    }
    const { children, memory } = await orders.give('state');
    row.ownChildren = children.started;
    if (children.failed > 0) row.harm.push(`${children.failed} children of the app failed`);
    if (memory.heapUsed === 0) row.harm.push('no memory figures');
  } catch (error) {
    row.harm.push(String(error instanceof Error ? error.message : error).slice(0, 2000));
  } finally {
    clearInterval(heartbeat);
    stop.abort();
    inspector?.destroy();
  }
  const result = await load;
  row.requests = result.requests;
  row.failedRequests = result.errors + result.skipped;
  if (app.exited) row.harm.push(`the app ended by itself: ${JSON.stringify(app.exited)}`);
  else {
    const exit = await app.stop();
    if (exit.code !== 0) row.harm.push(`the app ended with ${JSON.stringify(exit)}`);
  }
  return row;
}

/** @param {Orders} orders @param {Row} row */
async function gcStage(orders, row) {
  row.gcStages += 1;
  const answer = await orders.give('gc');
  note(row, answer);
  if (answer.ok) row.gcTries[answer.tries - 1] += 1;
  else count(row.failures, `GC stage: ${answer.problem}`);
}

/** @param {Orders} orders @param {Row} row @param {number} held */
async function snapshot(orders, row, held) {
  row.snapshots += 1;
  const answer = await orders.give('snapshot');
  if (answer.refused) {
    count(row.failures, `snapshot: ${answer.refused.sentence}`);
    return;
  }
  const { fork } = answer;
  note(row, fork);
  const found = await countElsewhere(answer.path, 'HeldSession');
  if (found === held) row.snapshotTries[fork.tries - 1] += 1;
  else count(row.failures, `snapshot: ${found} of ${held} objects were in it`);
  for (const name of fs.readdirSync(path.dirname(answer.path))) {
    if (/\.(heapsnapshot|meta)$/.test(name)) fs.rmSync(path.join(path.dirname(answer.path), name));
  }
}

/** @param {Row} row @param {any} fork */
function note(row, fork) {
  row.attempts += fork.attempts ?? 0;
  if (fork.pauseMs !== undefined) row.pauses.push(fork.pauseMs);
  for (const mishap of fork.mishaps ?? []) count(row.mishaps, mishap);
}

/** @param {number[]} values @param {number} share */
function quantile(values, share) {
  if (values.length === 0) return '';
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))].toFixed(1);
}

/** @param {number[][]} lists */
const sumEach = (lists) => [0, 1, 2].map((at) => lists.reduce((sum, list) => sum + list[at], 0));

/** @param {Row[]} rows @param {(row: Row) => number} of */
const sum = (rows, of) => rows.reduce((total, row) => total + of(row), 0);

/** @param {Row[]} rows @param {(row: Row) => Record<string, number>} of */
function total(rows, of) {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const row of rows)
    for (const [kind, n] of Object.entries(of(row))) counts[kind] = (counts[kind] ?? 0) + n;
  return Object.entries(counts).sort((a, b) => b[1] - a[1]);
}

/** @param {Row[]} rows @param {(row: Row) => string} name */
function table(rows, name) {
  const lines = [
    '| | apps | GC stages good at try 1 / 2 / 3, of | snapshots good at try 1 / 2 / 3, of | loop stop ms, median / p99 / max | requests failed, of | without forks |',
    '|---|---|---|---|---|---|---|',
  ];
  /** @type {Map<string, Row[]>} */
  const groups = new Map();
  for (const row of rows) groups.set(name(row), [...(groups.get(name(row)) ?? []), row]);
  for (const [key, group] of [...groups, ['**all**', rows]].map(
    (entry) => /** @type {[string, Row[]]} */ (entry),
  )) {
    const pauses = group.flatMap((row) => row.pauses);
    lines.push(
      `| ${key} | ${group.length} ` +
        `| ${sumEach(group.map((row) => row.gcTries)).join(' / ')}, ${sum(group, (row) => row.gcStages)} ` +
        `| ${sumEach(group.map((row) => row.snapshotTries)).join(' / ')}, ${sum(group, (row) => row.snapshots)} ` +
        `| ${quantile(pauses, 0.5)} / ${quantile(pauses, 0.99)} / ${quantile(pauses, 1)} ` +
        `| ${sum(group, (row) => row.failedRequests)}, ${sum(group, (row) => row.requests)} ` +
        `| ${sum(group, (row) => row.controlFailedRequests ?? 0)}, ${sum(group, (row) => row.controlRequests ?? 0)} |`,
    );
  }
  return lines.join('\n');
}

/** @param {Row[]} rows */
function render(rows) {
  const list = (/** @type {[string, number][]} */ entries) =>
    entries.length === 0 ? 'None.' : entries.map(([kind, n]) => `- ${n} x ${kind}`).join('\n');
  const remarks = rows
    .filter((row) => row.remark)
    .map((row) => `- Node ${row.node}, ${row.variant}, ${row.heapMb} MB: ${row.remark}`);
  const harm = rows.flatMap((row) =>
    [
      ...row.harm,
      ...(row.failedRequests > 0 ? [`${row.failedRequests} requests failed`] : []),
      ...(row.controlHarm ?? []).map((what) => `without forks: ${what}`),
    ].map((what) => `- Node ${row.node}, ${row.variant}, ${row.heapMb} MB: ${what}`),
  );
  return `# Soak of forked snapshots

Made by \`npm run soak\`; rows in soak.json. Express apps under load fork children that run the garbage collector as a
snapshot does (GC stage), and children that write a whole snapshot, in which the objects that the app holds are then
counted. "Without forks" is the A/A run: the same app under the same load, of which nothing is asked. Loop stops are wall time, other work on the machine included. A try is a child that was begun; looking for a quiet moment may stop the loop more often (${sum(rows, (row) => row.attempts)}
times in all). The apps started ${sum(rows, (row) => row.ownChildren)} children of their own.

## By Node version

${table(rows, (row) => row.node)}

## By what the app does besides

${table(rows, (row) => row.variant)}

## By live heap

${table(rows, (row) => `${row.heapMb} MB`)}

## What the apps noticed

${harm.length === 0 ? 'Nothing: no crash, no hang, no wrong exit code, no failed child process.' : harm.join('\n')}

## What was found out about it

${remarks.length === 0 ? 'Nothing had to be.' : remarks.join('\n')}

## What failed for good

${list(total(rows, (row) => row.failures))}

## What failed and was made good by another try

${list(total(rows, (row) => row.mishaps))}
`;
}

async function main() {
  const { values } = parseArgs({
    options: {
      forks: { type: 'string', default: '3000' },
      snapshots: { type: 'string', default: '300' },
      node: { type: 'string', default: '20,22,24,26' },
      heaps: { type: 'string', default: '20,40,80,150,300' },
      control: { type: 'string', default: '1' },
      with: { type: 'string', default: 'plain,workers,children,inspector' },
      rps: { type: 'string', default: '60' },
      minutes: { type: 'string', default: '60' },
      out: { type: 'string', default: path.join(ROOT, 'docs', 'SOAK.md') },
      merge: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const nodes = values.node.split(',').map((node) => {
    const binary = /^\d+$/.test(node) ? nodeBinary(Number(node)) : path.resolve(node);
    return { node: binary, version: versionOf(binary) };
  });
  const rowsFile = path.join(path.dirname(values.out), 'soak.json');
  /** @type {Row[]} */
  const rows =
    values.merge && fs.existsSync(rowsFile) ? JSON.parse(fs.readFileSync(rowsFile, 'utf8')) : [];
  const heaps = values.heaps.split(',').map(Number);
  const variants = values.with.split(',');
  const wanted = { forks: Number(values.forks), snapshots: Number(values.snapshots) };
  const ends = Date.now() + Number(values.minutes) * 60_000;
  const begun = rows.length;
  const forksPerApp = Math.ceil((SNAPSHOTS_PER_APP * wanted.forks) / Math.max(1, wanted.snapshots));
  /** @type {Map<number, number>} milliseconds of the last app with such a heap */
  const lastTook = new Map();
  let reached = { forks: 0, snapshots: 0 };
  for (let round = 0; Date.now() < ends; round++) {
    if (reached.forks >= wanted.forks && reached.snapshots >= wanted.snapshots) break;
    // Versions change fastest, then variants; most apps are small.
    const { node, version } = nodes[round % nodes.length];
    const variant = variants[Math.floor(round / nodes.length) % variants.length];
    // By the golden ratio: every stretch of rounds has each size about as often, whatever version and variant.
    const heapMb = heaps[Math.floor(((round * 0.618034) % 1) * heaps.length)] ?? 20;
    const plan = {
      node,
      version,
      variant,
      heapMb,
      gcStages: Math.min(forksPerApp, wanted.forks - reached.forks),
      snapshots: Math.min(SNAPSHOTS_PER_APP, wanted.snapshots - reached.snapshots),
      rps: Number(values.rps),
    };
    const expected = round % 2 === 1 ? (lastTook.get(heapMb) ?? 0) : 0;
    const { row, tookMs } = await runBoth(plan, Number(values.control), expected);
    lastTook.set(heapMb, tookMs);
    rows.push(row);
    reached = {
      forks: sum(rows.slice(begun), (one) => one.gcStages),
      snapshots: sum(rows.slice(begun), (one) => one.snapshots),
    };
    console.log(
      `${version} ${variant} ${heapMb} MB: GC stages ${row.gcTries.join('/')} of ${row.gcStages}, snapshots ` +
        `${row.snapshotTries.join('/')} of ${row.snapshots}, stop p50 ${quantile(row.pauses, 0.5)} max ${quantile(row.pauses, 1)} ms, ` +
        `requests failed ${row.failedRequests} of ${row.requests}, without forks ${row.controlFailedRequests ?? 0} of ${row.controlRequests ?? 0}` +
        [...row.harm, ...Object.keys(row.failures), ...Object.keys(row.mishaps)]
          .map((text) => `\n  ${text}`)
          .join(''),
    );
    fs.mkdirSync(path.dirname(values.out), { recursive: true });
    fs.writeFileSync(rowsFile, `${JSON.stringify(rows, null, 2)}\n`);
    fs.writeFileSync(values.out, render(rows));
  }
  if (rows.some((row) => row.harm.length > 0)) process.exitCode = 1;
}

if (require.main === module) main();

module.exports = { render };
