'use strict';

// The speed and memory of the analyzer beside its peers, on the same files, alternating:
//
//   node benches/heap/run.js [--files small,medium,large] [--rounds 3] [--skip memlab,vscode] [--keep DIRECTORY]
//
// Files are made by generate.js where DIRECTORY has them not. For each file and program it prints the median of CPU
// seconds (all threads), wall seconds, and of the peaks of anonymous memory and of all memory, as Markdown.

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { installPackages } = require('../../scripts/setup.js');

const ROOT = path.join(__dirname, '..', '..');
const ORACLE = path.join(ROOT, 'test', 'oracle');
const PEERS = path.join(ROOT, 'benches', 'peers');
/** How often the anonymous memory of a running program is read. */
const SAMPLE_MS = 20;
/** Old space that programs in JavaScript need for the largest file. */
const HEAP = '--max-old-space-size=14000';

/** @type {Record<string, (file: string) => string[]>} */
const PROGRAMS = {
  leakguard: (file) => [path.join(__dirname, 'ours.js'), file],
  devtools: (file) => [HEAP, path.join(ORACLE, 'oracle.mjs'), file],
  memlab: (file) => [HEAP, path.join(PEERS, 'memlab.cjs'), file],
  vscode: (file) => [HEAP, path.join(PEERS, 'vscode.cjs'), file],
};

/**
 * @typedef {object} Run
 * @property {number} cpu seconds
 * @property {number} wall seconds
 * @property {number} anonymous MB
 * @property {number} peak MB
 */

/**
 * Runs a program once; its last line is JSON with its own CPU time and peak.
 * @param {string[]} args
 * @returns {Promise<Run | null>} null if it failed
 */
function measure(args) {
  return new Promise((resolve) => {
    const start = performance.now();
    const child = spawn(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, LEAKGUARD: 'off' },
    });
    let tail = '';
    let anonymous = 0;
    child.stdout.setEncoding('utf8').on('data', (text) => {
      tail = (tail + text).slice(-4096);
    });
    const timer = setInterval(() => {
      try {
        const status = fs.readFileSync(`/proc/${child.pid}/status`, 'utf8');
        anonymous = Math.max(
          anonymous,
          Number(status.match(/^RssAnon:\s+(\d+)/m)?.[1] ?? 0) / 1024,
        );
      } catch {
        // It has just ended.
      }
    }, SAMPLE_MS);
    child.on('close', (code) => {
      clearInterval(timer);
      const wall = (performance.now() - start) / 1e3;
      try {
        const { cpuSeconds, peakMb } = JSON.parse(tail.trim().split('\n').at(-1) ?? '');
        resolve(code === 0 ? { cpu: cpuSeconds, wall, anonymous, peak: peakMb } : null);
      } catch {
        resolve(null);
      }
    });
  });
}

/**
 * @param {number[]} values
 * @returns {number}
 */
function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

async function main() {
  const { values } = parseArgs({
    options: {
      files: { type: 'string', default: 'small,medium' },
      rounds: { type: 'string', default: '3' },
      skip: { type: 'string', default: '' },
      keep: { type: 'string' },
    },
  });
  await installPackages(ORACLE);
  await installPackages(PEERS);
  await finished([path.join(ORACLE, 'build.mjs')]);
  const directory = values.keep ?? fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-bench-'));
  fs.mkdirSync(directory, { recursive: true });
  const programs = Object.keys(PROGRAMS).filter((name) => !values.skip.split(',').includes(name));
  console.log('| file | program | CPU s | wall s | anonymous MB | peak MB |');
  console.log('|---|---|---|---|---|---|');
  for (const size of values.files.split(',')) {
    const file = path.join(directory, `${size}.heapsnapshot`);
    if (!fs.existsSync(file)) await finished([path.join(__dirname, 'generate.js'), size, file]);
    /** @type {Record<string, (Run | null)[]>} */
    const runs = Object.fromEntries(programs.map((name) => [name, []]));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const name of programs) runs[name].push(await measure(PROGRAMS[name](file)));
    }
    const megabytes = Math.round(fs.statSync(file).size / 1e6);
    for (const name of programs) {
      const good = runs[name].filter((run) => run !== null);
      const cells = ['cpu', 'wall', 'anonymous', 'peak'].map((column) => {
        if (good.length === 0) return 'failed';
        const value = median(good.map((run) => run[/** @type {keyof Run} */ (column)]));
        return value.toFixed(column === 'cpu' || column === 'wall' ? 2 : 0);
      });
      console.log(`| ${size}, ${megabytes} MB | ${name} | ${cells.join(' | ')} |`);
    }
  }
  if (!values.keep) fs.rmSync(directory, { recursive: true, force: true });
}

/** @param {string[]} args */
function finished(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { stdio: 'inherit' });
    child.on('close', (code) => (code === 0 ? resolve(null) : reject(new Error(args.join(' ')))));
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
