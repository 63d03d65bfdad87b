'use strict';

/**
 * The analyzer beside its peers on the same files: CPU, wall time and memory from opening a snapshot to its
 * dominators and retained sizes (and for ours to the whole report); and whether every node's figures equal
 * DevTools'. Files are made by generate.js, once, below target/bench-heap.
 */

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { installPackages } = require('../../scripts/setup.js');
const { ROOT, cleanEnvironment } = require('../support/children.js');
const { median } = require('../support/statistics.js');
const { figure, ratio, requirement } = require('../support/words.js');

const FILES = path.join(ROOT, 'target', 'bench-heap');
const ORACLE = path.join(ROOT, 'test', 'oracle');
const PEERS = path.join(ROOT, 'benches', 'peers');
const OURS = path.join(__dirname, 'ours.js');
const CLI = path.join(ROOT, 'bin', 'leakguard.js');

/** How often the memory of a running program is read. */
const SAMPLE_MS = 20;
/** Old space that programs in JavaScript need for the largest file. */
const HEAP = '--max-old-space-size=14000';
/** A program that takes more, resident, is ended. */
const MEMORY_CAP_MB = 16_000;

/**
 * @typedef {object} Size
 * @property {string} words
 * @property {number} rounds
 * @property {number} deadlineMs of one program
 * @property {Partial<Record<'cpu' | 'wallOne' | 'wallTwo' | 'anonymousMb', number>>} limits
 *
 * @typedef {object} Run
 * @property {number} cpu seconds, user and system, all threads
 * @property {number} wall seconds
 * @property {number} anonymous MB at the peak
 * @property {number} peak MB resident at the peak
 */

/** @type {Record<string, Size>} */
const SIZES = {
  small: { words: '21 MB', rounds: 5, deadlineMs: 60_000, limits: { cpu: 0.25 } },
  medium: { words: '225 MB', rounds: 3, deadlineMs: 180_000, limits: { cpu: 1.4 } },
  large: {
    words: '1.1 GB',
    rounds: 2,
    deadlineMs: 420_000,
    limits: { cpu: 9, wallOne: 8.5, wallTwo: 6.5, anonymousMb: 1400 },
  },
};

/** @type {Record<string, { words: string, args: (file: string) => string[] }>} */
const PROGRAMS = {
  one: { words: 'leakguard, 1 thread', args: (file) => [OURS, file, '1'] },
  two: { words: 'leakguard, 2 threads', args: (file) => [OURS, file, '2'] },
  devtools: {
    words: "DevTools' worker",
    args: (file) => [HEAP, path.join(ORACLE, 'oracle.mjs'), file],
  },
  memlab: { words: 'memlab', args: (file) => [HEAP, path.join(PEERS, 'memlab.cjs'), file] },
  vscode: {
    words: '@vscode/v8-heap-parser',
    args: (file) => [HEAP, path.join(PEERS, 'vscode.cjs'), file],
  },
};

/** How many times less CPU than a peer ours is to take. */
const FACTORS = { devtools: 7, memlab: 10 };

/** @param {number} pid @returns {{ anonymous: number, resident: number }} MB; zeros when it has ended */
function memory(pid) {
  try {
    const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
    /** @param {string} name */
    const of = (name) => Number(status.match(new RegExp(`^${name}:\\s+(\\d+)`, 'm'))?.[1] ?? 0);
    return { anonymous: of('RssAnon') / 1024, resident: of('VmRSS') / 1024 };
  } catch {
    return { anonymous: 0, resident: 0 };
  }
}

/**
 * Runs a program once; its last line is JSON with its own CPU time and peak.
 *
 * @param {string} node
 * @param {string[]} args
 * @param {number} deadlineMs
 * @returns {Promise<Run | string>} a string says why there are no figures
 */
function runOnce(node, args, deadlineMs) {
  return new Promise((resolve) => {
    const start = performance.now();
    const child = spawn(node, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: cleanEnvironment({ LEAKGUARD: 'off' }),
    });
    let tail = '';
    let complaint = '';
    let anonymous = 0;
    /** @type {string | null} */
    let ended = null;
    /** @param {string} why */
    const end = (why) => {
      ended ??= why;
      child.kill('SIGKILL');
    };
    child.stdout.setEncoding('utf8').on('data', (text) => {
      tail = (tail + text).slice(-4096);
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      complaint = (complaint + text).slice(0, 4096);
    });
    const sampling = setInterval(() => {
      const now = memory(child.pid ?? 0);
      anonymous = Math.max(anonymous, now.anonymous);
      if (now.resident > MEMORY_CAP_MB) end(`ended at ${MEMORY_CAP_MB / 1000} GB`);
    }, SAMPLE_MS);
    const deadline = setTimeout(() => end(`not done after ${deadlineMs / 1000} s`), deadlineMs);
    child.on('close', (code, signal) => {
      clearInterval(sampling);
      clearTimeout(deadline);
      const wall = (performance.now() - start) / 1e3;
      try {
        const { cpuSeconds, peakMb } = JSON.parse(tail.trim().split('\n').at(-1) ?? '');
        if (code === 0) return resolve({ cpu: cpuSeconds, wall, anonymous, peak: peakMb });
      } catch {
        // It did not come as far as its last line.
      }
      const said = complaint.split('\n').find((line) => /error|invalid|too /i.test(line));
      resolve(ended ?? `failed: ${said?.trim().slice(0, 80) ?? signal ?? `exit code ${code}`}`);
    });
  });
}

/**
 * Runs a program to its end.
 *
 * @param {string} node
 * @param {string[]} args
 * @returns {Promise<void>}
 */
function finished(node, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(node, args, {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: cleanEnvironment(),
    });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${args.join(' ')} ended with ${code}`)),
    );
  });
}

/**
 * How many nodes have another distance, dominator, retained or shallow size than DevTools gives them.
 *
 * @param {string} node
 * @param {string} file
 * @returns {Promise<{ nodes: number, different: number }>}
 */
async function compare(node, file) {
  const ours = `${file}.ours`;
  const theirs = `${file}.theirs`;
  try {
    await finished(node, [CLI, 'analyze', file, '--json', '--columns', ours]);
    await finished(node, [HEAP, path.join(ORACLE, 'oracle.mjs'), file, '--dump', theirs]);
    return differences(ours, theirs);
  } finally {
    fs.rmSync(ours, { force: true });
    fs.rmSync(theirs, { force: true });
  }
}

/** Columns after the count: distance, dominator, retained size, shallow size. */
const COLUMN_BYTES = [4, 4, 8, 8];

/**
 * @param {string} ours
 * @param {string} theirs
 */
function differences(ours, theirs) {
  const files = [fs.openSync(ours, 'r'), fs.openSync(theirs, 'r')];
  const counts = files.map((fd) => readAt(fd, 0, 4).readUInt32LE(0));
  if (counts[0] !== counts[1]) {
    throw new Error(`${counts[0]} nodes here, ${counts[1]} in DevTools`);
  }
  const [nodes] = counts;
  const different = new Uint8Array(nodes);
  let at = 4;
  for (const bytes of COLUMN_BYTES) {
    const step = 1 << 20;
    for (let first = 0; first < nodes; first += step) {
      const length = Math.min(step, nodes - first) * bytes;
      const [a, b] = files.map((fd) => readAt(fd, at + first * bytes, length));
      if (a.equals(b)) continue;
      for (let index = 0; index * bytes < length; index++) {
        const from = index * bytes;
        if (a.compare(b, from, from + bytes, from, from + bytes) !== 0)
          different[first + index] = 1;
      }
    }
    at += nodes * bytes;
  }
  for (const fd of files) fs.closeSync(fd);
  return { nodes, different: different.reduce((sum, one) => sum + one, 0) };
}

/** @param {number} fd @param {number} at @param {number} length */
function readAt(fd, at, length) {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const read = fs.readSync(fd, buffer, done, length - done, at + done);
    if (read === 0) throw new Error('a dump is shorter than its count');
    done += read;
  }
  return buffer;
}

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  await installPackages(ORACLE);
  // Of memlab only what reads files: its browser is not fetched.
  await installPackages(PEERS, ['--ignore-scripts']);
  await finished(node, [path.join(ORACLE, 'build.mjs')]);
  fs.mkdirSync(FILES, { recursive: true });
  const rows = [];
  const requirements = [];
  /** @type {Record<string, Record<string, Run | string>>} */
  const figures = {};
  for (const [size, { words, rounds, deadlineMs, limits }] of Object.entries(SIZES)) {
    if (quick && size !== 'small') continue;
    const file = path.join(FILES, `${size}.heapsnapshot`);
    if (!fs.existsSync(file)) {
      await finished(node, [path.join(__dirname, 'generate.js'), size, `${file}.part`]);
      fs.renameSync(`${file}.part`, file);
    }
    /** @type {Record<string, (Run | string)[]>} */
    const runs = Object.fromEntries(Object.keys(PROGRAMS).map((name) => [name, []]));
    // The first reading of all brings the file into the page cache.
    await runOnce(node, PROGRAMS.one.args(file), deadlineMs);
    for (let round = 0; round < (quick ? 1 : rounds); round++) {
      for (const [name, { args }] of Object.entries(PROGRAMS)) {
        // Who failed once does so each time, and takes its time to it.
        if (typeof runs[name][0] === 'string') continue;
        runs[name].push(await runOnce(node, args(file), deadlineMs));
      }
    }
    const middle = Object.fromEntries(
      Object.entries(runs).map(([name, of]) => [name, summary(of)]),
    );
    figures[size] = middle;
    const own = middle.one;
    if (typeof own === 'string') throw new Error(`leakguard on the ${words} file: ${own}`);
    for (const [name, program] of Object.entries(PROGRAMS)) {
      const of = middle[name];
      rows.push(
        typeof of === 'string'
          ? [words, program.words, of, '', '', '', '']
          : [
              words,
              program.words,
              figure(of.cpu),
              figure(of.wall),
              of.anonymous.toFixed(0),
              of.peak.toFixed(0),
              ratio(of.cpu / own.cpu),
            ],
      );
    }
    requirements.push(...judge(words, limits, middle, own));
    const { nodes, different } = await compare(node, file);
    requirements.push(
      requirement(
        `nodes of the ${words} file with other figures than DevTools'`,
        `${different} of ${nodes}`,
        '0',
        different === 0,
      ),
    );
  }
  return {
    columns: ['file', 'program', 'CPU s', 'wall s', 'anonymous MB', 'resident MB', 'CPU, ratio'],
    rows,
    figures,
    requirements,
    notes: [],
  };
}

/** @param {(Run | string)[]} runs @returns {Run | string} */
function summary(runs) {
  const failed = runs.find((run) => typeof run === 'string');
  if (failed !== undefined) return failed;
  const good = /** @type {Run[]} */ (runs);
  /** @param {keyof Run} column */
  const of = (column) => median(good.map((run) => run[column]));
  return { cpu: of('cpu'), wall: of('wall'), anonymous: of('anonymous'), peak: of('peak') };
}

/**
 * @param {string} words
 * @param {Size['limits']} limits
 * @param {Record<string, Run | string>} middle
 * @param {Run} own on one thread
 */
function judge(words, limits, middle, own) {
  const { two } = middle;
  /** @type {[string, number | undefined, number | undefined, string][]} */
  const wanted = [
    ['CPU', own.cpu, limits.cpu, 's'],
    ['wall time, 1 thread', own.wall, limits.wallOne, 's'],
    ['wall time, 2 threads', typeof two === 'string' ? undefined : two.wall, limits.wallTwo, 's'],
    ['anonymous memory', own.anonymous, limits.anonymousMb, 'MB'],
  ];
  const rows = wanted.flatMap(([what, value, limit, unit]) =>
    value === undefined || limit === undefined
      ? []
      : [
          requirement(
            `analyze, ${words} file, ${what}`,
            `${figure(value)} ${unit}`,
            `<= ${limit} ${unit}`,
            value <= limit,
          ),
        ],
  );
  for (const [name, factor] of Object.entries(FACTORS)) {
    const peer = middle[name];
    if (typeof peer === 'string') continue;
    const times = peer.cpu / own.cpu;
    rows.push(
      requirement(
        `analyze, ${words} file, CPU of ${PROGRAMS[name].words}`,
        `${ratio(times)} ours`,
        `>= ${factor} x`,
        times >= factor,
      ),
    );
  }
  return rows;
}

module.exports = {
  name: 'heap',
  title: 'Reading heap snapshots',
  method: [
    'Each program reads the same file to dominators and retained sizes, alternating; ours goes on to the whole report. Medians over 5, 3 and 2 rounds (21 MB, 225 MB, 1.1 GB).',
    'CPU is user and system time of all threads; anonymous memory is sampled every 20 ms, since a mapped file is no memory that has to be there. A program that fails, takes too long or more than 16 GB gets a row that says so.',
    'Files: real snapshots of a process whose heap holds the shapes of a busy app (benches/heap/generate.js).',
  ],
  perNode: false,
  seconds: { full: 1500, quick: 60 },
  measure,
};
