'use strict';

// Runs short programs, given as text, to their end: with the guard or without, on the running Node. Programs find
// the guard as `GUARD` in their environment and wait with `until()`, which is put before their text: for a
// condition, with a deadline. Apps that listen and are put under load are the harness' business.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const zlib = require('node:zlib');
const { execFileSync, spawn } = require('node:child_process');

const ROOT = path.join(__dirname, '..');
const REGISTER = path.join(ROOT, 'register.js');

/** A program that has not ended by then is killed, and its test fails. */
const DEADLINE_MS = 90_000;

/** The quickest honest judgement: a reading every 100 ms, the shortest window, no warm-up. */
const QUICK_SETTINGS = {
  LEAKGUARD_INTERVAL: '100ms',
  LEAKGUARD_WINDOW: '10s',
  LEAKGUARD_WARMUP: '0s',
  LEAKGUARD_CONFIRM: '1',
  LEAKGUARD_GROWTH_RATE: '4MB/min',
  // Tests share two cores; those of the analysis switch it on.
  LEAKGUARD_ANALYZE: 'off',
};

/** Resolves when `look` returns something, and rejects after a minute. The program stays alive meanwhile. */
const UNTIL = `
  const until = (look) => new Promise((resolve, reject) => {
    const end = Date.now() + 60000;
    const check = () => {
      const found = look();
      if (found) { clearInterval(timer); resolve(found); }
      else if (Date.now() > end) { clearInterval(timer); reject(new Error('not within a minute: ' + look)); }
    };
    const timer = setInterval(check, 10);
  });
`;

/**
 * @typedef {object} Program
 * @property {string} [node]
 * @property {string} [name] of its file, default app.js
 * @property {string} [home] where its file is written, default a fresh directory
 * @property {string} [dir] evidence directory; default a fresh one, removed with the test
 * @property {string} [cwd] default a fresh one
 * @property {Record<string, string | undefined>} [env] over QUICK_SETTINGS; undefined removes a variable
 * @property {string[]} [execArgv]
 * @property {boolean} [preload] whether the guard is preloaded (default false: the program requires it)
 * @property {(child: import('node:child_process').ChildProcess) => void} [onSpawn]
 * @property {number} [deadlineMs]
 *
 * @typedef {object} Outcome
 * @property {number | null} code
 * @property {NodeJS.Signals | null} signal
 * @property {string} stdout
 * @property {string} stderr
 * @property {string} dir of the evidence
 * @property {string[]} warnings of leakguard, one line each
 */

/**
 * A directory that goes with the test.
 *
 * @param {import('node:test').TestContext} t
 */
function temporary(t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-promise-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/**
 * Starts a program and waits for its end.
 *
 * @param {import('node:test').TestContext} t
 * @param {string} source
 * @param {Program} [program]
 * @returns {Promise<Outcome>}
 */
async function run(t, source, program = {}) {
  const home = program.home ?? temporary(t);
  const dir = program.dir ?? path.join(home, 'evidence');
  const file = path.join(home, program.name ?? 'app.js');
  fs.writeFileSync(file, UNTIL.replaceAll('\n', ' ') + source);
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(LEAKGUARD(_|$)|NODE_)/.test(name),
  );
  const env = {
    ...Object.fromEntries(inherited),
    ...QUICK_SETTINGS,
    GUARD: ROOT,
    LEAKGUARD_DIR: dir,
    ...program.env,
  };
  const preload = program.preload ? ['-r', REGISTER] : [];
  const child = spawn(
    program.node ?? process.execPath,
    [...(program.execArgv ?? []), ...preload, file],
    { env, cwd: program.cwd ?? home, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  t.after(() => child.kill('SIGKILL'));
  const outcome = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text) => (outcome.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (outcome.stderr += text));
  program.onSpawn?.(child);
  const deadline = program.deadlineMs ?? DEADLINE_MS;
  const { code, signal } = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`not at its end within ${deadline} ms; it said: ${outcome.stderr}`));
    }, deadline);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal });
    });
  });
  const warnings = outcome.stderr.split('\n').filter((line) => line.includes('LeakguardWarning:'));
  return { ...outcome, code, signal, dir, warnings };
}

/**
 * Runs a program that reports by printing JSON, and fails with what it said if it did not end well.
 *
 * @param {import('node:test').TestContext} t
 * @param {string} source
 * @param {Program} [program]
 * @returns {Promise<{ report: any } & Outcome>}
 */
async function ask(t, source, program) {
  const outcome = await run(t, source, program);
  if (outcome.code !== 0) {
    throw new Error(`exit code ${outcome.code} ${outcome.signal ?? ''}: ${outcome.stderr}`);
  }
  return { ...outcome, report: JSON.parse(outcome.stdout) };
}

/**
 * Runs a line of shell as root: directly, or by sudo where that asks for no password.
 *
 * @param {string} line
 * @throws if neither is possible, or the line fails
 */
function asRoot(line) {
  const shell = ['sh', '-ec', line];
  const [command, ...args] = process.getuid?.() === 0 ? shell : ['sudo', '-n', ...shell];
  return execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
}

/**
 * Why a test that needs root cannot run here. In CI that is a failure and no reason.
 *
 * @param {import('node:test').TestContext} t
 * @param {string} what
 * @param {unknown} error
 */
function skipWithoutRoot(t, what, error) {
  if (process.env.CI !== undefined) throw error;
  t.skip(`${what}: ${error instanceof Error ? error.message.trim().split('\n').at(-1) : error}`);
}

/**
 * A file system of its own; only root can make one.
 *
 * @param {import('node:test').TestContext} t
 * @param {string} options
 * @returns {string | null}
 */
function tmpfs(t, options) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-mount-'));
  try {
    asRoot(`mount -t tmpfs -o uid=${process.getuid?.() ?? 0},${options} leakguard-test ${dir}`);
  } catch (error) {
    fs.rmdirSync(dir);
    skipWithoutRoot(t, 'no tmpfs can be mounted here', error);
    return null;
  }
  t.after(() => {
    asRoot(`umount ${dir}`);
    fs.rmdirSync(dir);
  });
  return dir;
}

let containers = 0;

/**
 * A memory cgroup of either version, and a stand-in for node that runs inside it.
 *
 * @param {import('node:test').TestContext} t
 * @param {number} bytes
 * @returns {{ node: string, kills: () => number, used: () => number, limit: (bytes: number) => void } | null}
 */
function container(t, bytes) {
  containers += 1;
  const v1 = fs.existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes');
  const group = path.join(
    v1 ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup',
    `leakguard-test-${process.pid}-${containers}`,
  );
  try {
    const file = v1 ? 'memory.limit_in_bytes' : 'memory.max';
    const enable = v1 ? '' : 'echo +memory > /sys/fs/cgroup/cgroup.subtree_control;';
    asRoot(`${enable} mkdir ${group}; echo ${bytes} > ${group}/${file}`);
  } catch (error) {
    skipWithoutRoot(t, 'no memory cgroup can be made here', error);
    return null;
  }
  t.after(() => asRoot(`rmdir ${group}`));
  const node = path.join(temporary(t), 'node');
  const sudo = process.getuid?.() === 0 ? '' : 'sudo -n ';
  const join = `${sudo}sh -c "echo $$ > ${group}/cgroup.procs"`;
  fs.writeFileSync(node, `#!/bin/sh -e\n${join}\nexec ${process.execPath} "$@"\n`, { mode: 0o755 });
  const kills = () => {
    const events = fs.readFileSync(
      path.join(group, v1 ? 'memory.oom_control' : 'memory.events'),
      'utf8',
    );
    return Number(events.match(/^oom_kill (\d+)$/m)?.[1] ?? 0);
  };
  const used = () =>
    Number(
      fs.readFileSync(path.join(group, v1 ? 'memory.usage_in_bytes' : 'memory.current'), 'utf8'),
    );
  const limit = (/** @type {number} */ to) => {
    asRoot(`echo ${Math.round(to)} > ${group}/${v1 ? 'memory.limit_in_bytes' : 'memory.max'}`);
  };
  return { node, kills, used, limit };
}

/**
 * Files of the evidence directory, by the beginning and the end of their names, oldest first.
 *
 * @param {string} dir
 * @param {RegExp} name
 */
function files(dir, name) {
  const names = fs.existsSync(dir) ? fs.readdirSync(dir) : [];
  return names
    .filter((one) => name.test(one))
    .sort()
    .map((one) => path.join(dir, one));
}

/**
 * The text of a snapshot file, plain or compressed. Node learnt zstd in 22.15; before that it is the zstd command's, since
 * our own reader would be judge in its own case.
 *
 * @param {string} file
 * @returns {Buffer}
 */
function unpack(file) {
  if (file.endsWith('.gz')) return zlib.gunzipSync(fs.readFileSync(file));
  if (!file.endsWith('.zst')) return fs.readFileSync(file);
  const { zstdDecompressSync } = /** @type {any} */ (zlib);
  if (zstdDecompressSync !== undefined) return zstdDecompressSync(fs.readFileSync(file));
  const [major, minor] = process.versions.node.split('.').map(Number);
  assert.ok(major < 22 || (major === 22 && minor < 15), `zlib of ${process.version} has no zstd`);
  return execFileSync('zstd', ['-dc', file], { maxBuffer: 1 << 30 });
}

/**
 * A copy of the package as it is installed.
 *
 * @param {string} to
 * @param {{ binary?: boolean }} [options]
 * @returns {string} its path
 */
function copyPackage(to, { binary = true } = {}) {
  for (const name of fs.readdirSync(ROOT)) {
    const wanted = /^((index|register|prometheus|opentelemetry)\.js|package\.json|lib|bin)$/.test(
      name,
    );
    if (wanted || (binary && /^leakguard\..*\.node$/.test(name))) {
      fs.cpSync(path.join(ROOT, name), path.join(to, name), { recursive: true });
    }
  }
  return to;
}

/** Everything that can be read back from a snapshot's text; throws where it is cut off. @param {string} file */
function parseSnapshot(file) {
  const { snapshot, nodes, strings } = JSON.parse(fs.readFileSync(file, 'utf8'));
  if (nodes.length !== snapshot.node_count * snapshot.meta.node_fields.length) {
    throw new SyntaxError(`${file}: ${nodes.length} numbers for ${snapshot.node_count} nodes`);
  }
  return { nodeCount: snapshot.node_count, strings };
}

module.exports = {
  QUICK_SETTINGS,
  REGISTER,
  ROOT,
  ask,
  asRoot,
  container,
  copyPackage,
  files,
  parseSnapshot,
  run,
  skipWithoutRoot,
  temporary,
  tmpfs,
  unpack,
};
