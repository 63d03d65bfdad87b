'use strict';

/**
 * How long a heap snapshot stops an Express app under light load, at heaps of 30 to 1000 MB of small objects: forked
 * and inline, and by the other packages that write one, where they build. Fresh processes, the ways in random order.
 */

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: delay } = require('node:timers/promises');
const { promisify } = require('node:util');
const { installPackages } = require('../scripts/setup.js');
const { runLoad } = require('../test/apps/load.js');
const { startApp } = require('../test/harness.js');
const { versionOf } = require('../test/matrix/nodes.js');
const { median, random, shuffled } = require('./support/statistics.js');
const { megabytes, ms, requirement } = require('./support/words.js');

const APP = path.join(__dirname, 'soak-app.js');
const DUMPERS = path.join(__dirname, 'peers', 'dumpers');
const DEADLINE_MS = 600_000;
/** A span without any snapshot: what the app and its load do by themselves. */
const NOTHING_MS = 5000;
/** V8 may grow that far: the largest heap takes 16 times itself while it is written. */
const OLD_SPACE = '--max-old-space-size=4096';
const REQUESTS_PER_SECOND = 40;
/** Memory is given back within this, or counts as kept. */
const SETTLE_MS = 15_000;

/** MB of live heap, and snapshots of each way. */
const SIZES = [
  { heapMb: 30, rounds: 3 },
  { heapMb: 100, rounds: 3 },
  { heapMb: 300, rounds: 2 },
  { heapMb: 1000, rounds: 1 },
];
/** The heap at which the pause is judged. */
const JUDGED_MB = 300;

/**
 * @typedef {object} Figures of one snapshot
 * @property {number} gapMs longest time between two turns of the event loop
 * @property {number} cpuMs of the main thread: of the fork alone, or of the whole span
 * @property {number} p99 of the requests in the span, milliseconds
 * @property {number} spanMs from the order until the file was whole
 * @property {number} rssBefore bytes
 * @property {number} rssAfter bytes
 * @property {number} fileBytes 0 where it was compressed on the way or there was none
 *
 * @typedef {object} Way
 * @property {string} words
 * @property {boolean} [peer] a package of DUMPERS
 * @property {string[]} [execArgv]
 * @property {Record<string, string>} [env]
 * @property {(app: any, order: (name: string, more?: object) => Promise<any>, dir: string) => Promise<any>} take
 */

/** The guard's own settings: nothing but the snapshot. @param {string} mode */
const ours = (mode) => ({
  LEAKGUARD_SNAPSHOT: mode,
  LEAKGUARD_ANALYZE: 'off',
  LEAKGUARD_MAX_PAUSE: '10min',
  LEAKGUARD_MAX_DISK: '8GB',
  LEAKGUARD_COMPRESS: 'none',
  LEAKGUARD_LOG: 'silent',
});

/** @type {Record<string, Way>} */
const WAYS = {
  none: {
    words: 'no snapshot, for 5 s (control)',
    env: ours('off'),
    take: () => delay(NOTHING_MS),
  },
  fork: {
    words: 'leakguard, forked',
    env: ours('fork'),
    take: (_app, order) => order('snapshot'),
  },
  inline: {
    words: 'leakguard, inline',
    env: ours('inline'),
    take: (_app, order) => order('snapshot'),
  },
  heapdump: {
    words: 'heapdump',
    peer: true,
    take: (_app, order, dir) => order('dump', { by: 'heapdump', dir }),
  },
  xprofiler: {
    words: 'xprofiler, told by xprofctl',
    peer: true,
    take: async (app, _order, dir) => {
      const command = path.join(DUMPERS, 'node_modules', 'xprofiler', 'bin', 'xprofctl');
      await promisify(execFile)(
        process.execPath,
        [command, 'heapdump', '-p', String(app.child.pid)],
        { env: { ...process.env, HOME: dir } },
      );
      await wholeFile(dir);
    },
  },
  'node-oom-heapdump': {
    words: 'node-oom-heapdump',
    peer: true,
    execArgv: ['--inspect=127.0.0.1:0'],
    take: (_app, order, dir) => order('dump', { by: 'node-oom-heapdump', dir }),
  },
};

/** @param {string} dir @returns {string | undefined} a snapshot in it, whole or not */
function snapshotIn(dir) {
  const name = fs.readdirSync(dir).find((one) => one.endsWith('.heapsnapshot'));
  return name && path.join(dir, name);
}

/** Waits until a snapshot in the directory has its last byte. @param {string} dir */
async function wholeFile(dir) {
  const last = Buffer.alloc(4);
  for (let waited = 0; waited < DEADLINE_MS; waited += 20) {
    const file = snapshotIn(dir);
    if (file) {
      const descriptor = fs.openSync(file, 'r');
      const { size } = fs.fstatSync(descriptor);
      const read = size < 4 ? 0 : fs.readSync(descriptor, last, 0, 4, size - 4);
      fs.closeSync(descriptor);
      if (read === 4 && /\]\s*\}\s*$/.test(last.toString('latin1'))) return;
    }
    await delay(20);
  }
  throw new Error('no whole snapshot came');
}

/**
 * One snapshot of a fresh app under light load.
 *
 * @param {{ heapMb: number, name: string, node: string }} plan
 * @returns {Promise<Figures | string>} or why there was none
 */
async function measureOne({ heapMb, name, node }) {
  const way = WAYS[name];
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-pause-'));
  const app = await startApp(APP, {
    node,
    guarded: false,
    execArgv: [OLD_SPACE, ...(way.execArgv ?? [])],
    env: {
      LEAKGUARD_DIR: dir,
      SOAK_HEAP_MB: String(heapMb),
      ...(way.env ?? { LEAKGUARD: 'off', HOME: dir, XPROFILER_LOG_DIR: dir, SOAK_DUMPER: name }),
    },
  });
  const stop = new AbortController();
  try {
    let asked = 0;
    const order = async (/** @type {string} */ what, more = {}) => {
      const id = ++asked;
      const answer = app.message(
        (message) => (message?.id === id ? message : undefined),
        DEADLINE_MS,
        what,
      );
      app.child.send({ ...more, order: what, id });
      const { answer: value, error } = await answer;
      if (error) throw new Error(`${way.words}: ${error}`);
      return value;
    };
    const rss = async () => (await order('state')).memory.rss;
    const load = runLoad(
      app.port,
      {
        rps: REQUESTS_PER_SECOND,
        routes: [{ path: '/json' }, { path: '/file' }],
        keepAlive: true,
      },
      { durationMs: DEADLINE_MS, signal: stop.signal },
    );
    const rssBefore = await rss();
    await order('watch');
    const began = performance.now();
    const answer = await way.take(app, order, dir);
    const spanMs = performance.now() - began;
    const { gapMs, cpuMs } = await order('watched');
    stop.abort();
    const { p99 } = await load;
    if (answer?.refused) return answer.refused.sentence;
    const file = snapshotIn(dir);
    if (name !== 'none') {
      if (!file) return 'wrote no file';
      await wholeFile(dir);
    }
    let rssAfter = await rss();
    for (let waited = 0; waited < SETTLE_MS && rssAfter > 1.1 * rssBefore; waited += 500) {
      await delay(500);
      rssAfter = await rss();
    }
    return {
      gapMs,
      cpuMs: answer?.fork?.pauseCpuMs ?? cpuMs,
      p99,
      spanMs,
      rssBefore,
      rssAfter,
      fileBytes: file ? fs.statSync(file).size : 0,
    };
  } finally {
    stop.abort();
    await app.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

/**
 * The other packages that are installed and can be loaded by this Node.
 *
 * @param {string} node
 * @returns {Promise<{ names: string[], notes: string[] }>}
 */
async function dumpers(node) {
  const peers = Object.keys(WAYS).filter((name) => WAYS[name].peer);
  if (versionOf(node) !== process.version) {
    return { names: [], notes: ['The other packages are built for the running Node alone.'] };
  }
  await installPackages(DUMPERS);
  const names = [];
  const notes = [];
  for (const name of peers) {
    try {
      const script = `require(${JSON.stringify(path.join(DUMPERS, 'node_modules', name))})`;
      await promisify(execFile)(node, ['-e', `${script}; process.exit(0)`], { cwd: os.tmpdir() });
      names.push(name);
    } catch {
      notes.push(`${name} does not build or load here.`);
    }
  }
  return { names, notes };
}

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  const { names, notes } = await dumpers(node);
  const draw = random(1);
  /** @type {string[][]} */
  const rows = [];
  /** @type {Record<string, Record<string, Figures[]>>} */
  const taken = {};
  for (const { heapMb, rounds } of quick ? [{ heapMb: 30, rounds: 1 }] : SIZES) {
    /** @type {Record<string, Figures[]>} */
    const of = {};
    for (const name of Object.keys(WAYS)) {
      if (!WAYS[name].peer || names.includes(name)) of[name] = [];
    }
    for (let round = 0; round < rounds; round++) {
      for (const name of shuffled(Object.keys(of), draw)) {
        const figures = await measureOne({ heapMb, name, node }).catch((error) => error.message);
        if (typeof figures === 'string')
          notes.push(`${heapMb} MB, ${WAYS[name].words}: ${figures}`);
        else of[name].push(figures);
      }
    }
    taken[heapMb] = of;
    for (const [name, all] of Object.entries(of)) {
      const figure = (/** @type {(one: Figures) => number} */ pick) =>
        all.length === 0 ? NaN : median(all.map(pick));
      const kept = all.map((one) => `${(one.rssAfter / one.rssBefore).toFixed(2)} x`);
      rows.push([
        `${heapMb} MB`,
        WAYS[name].words,
        String(all.length),
        ms(figure((one) => one.gapMs)),
        ms(figure((one) => one.cpuMs)),
        ms(figure((one) => one.p99)),
        `${(figure((one) => one.spanMs) / 1000).toFixed(1)} s`,
        megabytes(figure((one) => one.fileBytes)),
        kept.join(', '),
      ]);
    }
  }
  return {
    columns: [
      'live heap',
      'snapshot',
      'taken',
      'longest loop gap',
      'CPU of the main thread',
      'HTTP p99 meanwhile',
      'until the file is whole',
      'file',
      'RSS of the app afterwards, against before',
    ],
    rows,
    figures: taken,
    requirements: quick ? [] : requirements(taken),
    notes,
  };
}

/** @param {Record<string, Record<string, Figures[]>>} taken */
function requirements(taken) {
  const { fork, inline } = taken[JUDGED_MB];
  const forked = median(fork.map((one) => one.cpuMs));
  const inProcess = median(inline.map((one) => one.cpuMs));
  const kept = Object.values(taken).flatMap(({ fork: all }) =>
    all.map((one) => one.rssAfter / one.rssBefore),
  );
  return [
    requirement(
      `CPU of the main thread for a forked snapshot at ${JUDGED_MB} MB`,
      ms(forked),
      '<= 60 ms',
      forked <= 60,
    ),
    requirement(
      'the same inline, against forked',
      `${(inProcess / forked).toFixed(0)} x`,
      '>= 100 x',
      inProcess / forked >= 100,
    ),
    requirement(
      'RSS of the app after a forked snapshot, largest, against before',
      `${Math.max(...kept).toFixed(2)} x`,
      '<= 1.10 x',
      Math.max(...kept) <= 1.1,
    ),
  ];
}

module.exports = {
  name: 'fork-pause',
  title: 'Taking a heap snapshot: how long the app stops',
  method: [
    `An Express app with a heap of small objects answers ${REQUESTS_PER_SECOND} requests/s while it is told to take one snapshot; each in a fresh process, the ways in random order, medians of those taken.`,
    'The gap is between two turns of the event loop (a timer of 1 ms); CPU of the main thread is that of the fork alone where the snapshot is forked, else of the whole span; RSS is looked at until it is back within 10 %, at most 15 s.',
  ],
  perNode: true,
  seconds: { full: 1300, quick: 60 },
  measure,
};
