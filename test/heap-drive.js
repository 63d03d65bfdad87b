'use strict';

// Drives a program of test/apps and takes heap snapshots of it between portions of load, for the tests and the
// bench of the analyzer; and what a right answer of the analyzer names, for each leaking program.

const { fork } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const apps = require('./apps/index.js');
const { runLoad } = require('./apps/load.js');

const START_DEADLINE_MS = 30_000;
const SNAPSHOT_DEADLINE_MS = 120_000;

/**
 * What holds the leak: the name that a right answer's `holder` begins with, or the pattern where no
 * variable holds it.
 * `waits` is a line as right as the marked ones: that of the function which waits for ever, or which opens what is
 * never closed.
 * @type {Record<string, { holder?: RegExp, pattern?: string, item?: RegExp, waits?: string }>}
 */
const HELD_BY = {
  'abort-signal': { holder: /^shutdown\b/, pattern: 'abort_signal_listeners' },
  'array-buffers': { holder: /^thumbnails$/ },
  'closure-chain': { holder: /^latest\b/ },
  'event-target': { holder: /^bus\b/, pattern: 'event_target_listeners' },
  'header-cache': { holder: /^seen$/ },
  'ignored-backpressure': { holder: /^shipper\b/, pattern: 'stream_buffer' },
  'interval-array': { holder: /^history$/ },
  'late-onset': { holder: /^replay$/ },
  'listener-no-limit': { holder: /^orders\._events\.paid$/, pattern: 'listeners' },
  'listener-per-request': { holder: /^config\._events\.reload$/, pattern: 'listeners' },
  'map-cache': { holder: /^cache$/, pattern: 'map' },
  'metrics-array': { holder: /^observations$/ },
  'one-route': { holder: /^issued$/ },
  'outbound-sockets': { pattern: 'handles', item: /^TCP$/, waits: "app.get('/quote'" },
  'pending-promise': { holder: /^replies$/, waits: 'async function convert(' },
  'sliced-strings': { holder: /^tokens$/ },
  'slow-under-sawtooth': { holder: /^ledger$/ },
  'sse-clients': { holder: /^clients$/, pattern: 'set' },
  'stop-and-start': { holder: /^audit$/ },
  'thin-listeners': { holder: /^rooms$/ },
  timers: { pattern: 'timers' },
  'two-hundred-bytes': { holder: /^visits$/ },
  'upload-never-read': { holder: /^scanQueue$/ },
  'vm-contexts': { holder: /^sandboxes$/ },
  'zlib-handles': { holder: /^encoders$/ },
};

/**
 * @typedef {object} Site
 * @property {string} file
 * @property {number} line
 *
 * @typedef {object} Suspect the fields of the analyzer's JSON that are looked at here
 * @property {number} rank
 * @property {string} sentence
 * @property {string} pattern
 * @property {string | null} holder
 * @property {Site | null} site
 * @property {{ site: Site }[]} item_sites
 * @property {string} item_class
 */

/**
 * The rank at which the leak of a program is told, and whether one of its marked lines is named with it.
 * @param {import('./apps/index.js').App} app
 * @param {Suspect[]} suspects
 * @returns {{ rank: number, line: boolean } | null}
 */
function answer(app, suspects) {
  const { holder, pattern, item, waits } = HELD_BY[app.name] ?? {};
  const lines = apps.leakLines(app);
  if (waits !== undefined) {
    const source = fs.readFileSync(app.file, 'utf8').split('\n');
    lines.push(source.findIndex((line) => line.includes(waits)) + 1);
  }
  const found = suspects.find(
    (suspect) =>
      (!holder || holder.test(suspect.holder ?? '')) &&
      (!pattern || pattern === suspect.pattern) &&
      (!item || item.test(suspect.item_class)),
  );
  if (!found) return null;
  const sites = [found.site, ...found.item_sites.map(({ site }) => site)];
  const line = sites.some(
    (site) => site?.file.endsWith(`/leaking/${app.name}.js`) && lines.includes(site.line),
  );
  return { rank: found.rank, line };
}

/**
 * Waits for a message of a child process.
 * @param {import('node:child_process').ChildProcess} child
 * @param {(message: any) => boolean} wanted
 * @param {number} deadlineMs
 * @returns {Promise<any>}
 */
function message(child, wanted, deadlineMs) {
  return new Promise((resolve, reject) => {
    /** @param {any} message */
    const onMessage = (message) => wanted(message) && end(() => resolve(message));
    /** @param {number | null} code */
    const onExit = (code) => end(() => reject(new Error(`the program ended with ${code}`)));
    const timer = setTimeout(
      () => end(() => reject(new Error(`no answer within ${deadlineMs} ms`))),
      deadlineMs,
    );
    /** @param {() => void} settle */
    const end = (settle) => {
      clearTimeout(timer);
      child.off('message', onMessage);
      child.off('exit', onExit);
      settle();
    };
    child.on('message', onMessage);
    child.on('exit', onExit);
  });
}

/**
 * Starts a program, drives it, and writes one snapshot after each portion of load.
 * @param {import('./apps/index.js').App} app
 * @param {{ node?: string, directory: string, portions: { requests?: number, ms: number }[], speed?: number }} options
 *   `speed` multiplies the load of the table; a portion ends with its requests or its time
 * @returns {Promise<string[]>} the snapshots, oldest first
 */
async function snapshots(app, { node = process.execPath, directory, portions, speed = 1 }) {
  const child = fork(app.file, [], {
    execPath: node,
    execArgv: [...app.execArgv, '-r', path.join(__dirname, 'heap-preload.js')],
    env: { ...process.env, LEAKGUARD: 'off', ...apps.environment(app) },
    stdio: 'ignore',
  });
  try {
    const { port } = await message(child, ({ port }) => port > 0, START_DEADLINE_MS);
    const files = [];
    for (const [index, { requests, ms }] of portions.entries()) {
      // Running numbers begin anew with each portion, and must not repeat.
      const routes = app.load.routes.map((route) => ({
        ...route,
        path: route.path.replace('{n}', `${index}-{n}`),
      }));
      const phases = app.load.phases?.map(({ seconds, rps }) => ({
        seconds: seconds / speed,
        rps: rps * speed,
      }));
      const load = { ...app.load, routes, phases, rps: app.load.rps * speed };
      await runLoad(port, load, { seed: index + 1, durationMs: ms, maxRequests: requests });
      const file = path.join(directory, `${app.name}.${index}.heapsnapshot`);
      const written = message(child, ({ written }) => written === file, SNAPSHOT_DEADLINE_MS);
      child.send({ snapshot: file });
      await written;
      files.push(file);
    }
    return files;
  } finally {
    child.kill('SIGKILL');
  }
}

module.exports = { HELD_BY, answer, snapshots };
