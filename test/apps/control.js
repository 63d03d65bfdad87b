'use strict';

// Preload of a control run (`node -r control.js app.js`), which takes the place of the guard and measures the truth:
// on the message `{ control: 'read', id }` it forces garbage collections and answers `{ control: 'reading', id,
// reading }`. Deliberately heavy-handed; never loaded together with the guard.

const fs = require('node:fs');
const v8 = require('node:v8');
const vm = require('node:vm');

v8.setFlagsFromString('--expose-gc');
/** @type {() => void} */
const gc = vm.runInNewContext('gc');
v8.setFlagsFromString('--no-expose-gc');

/**
 * @typedef {object} Reading
 * @property {number} at milliseconds of the monotonic clock of this process
 * @property {number} live_heap bytes
 * @property {number} array_buffers bytes
 * @property {number} external bytes
 * @property {number} native bytes: anonymous RSS - heapTotal - external
 * @property {number} fds
 * @property {number} threads
 * @property {number} handles active libuv resources other than timers and requests
 * @property {number} timers
 */

/** The fields of /proc/self/status that end in ` kB`, in bytes, and Threads. */
function processStatus() {
  const status = fs.readFileSync('/proc/self/status', 'utf8');
  /** @param {string} name */
  const field = (name) =>
    Number(status.match(new RegExp(`^${name}:\\s+(\\d+)`, 'm'))?.[1] ?? Number.NaN);
  return { anonymous: field('RssAnon') * 1024, threads: field('Threads') };
}

/** @returns {Reading} */
function read() {
  const { heapUsed, heapTotal, external, arrayBuffers } = process.memoryUsage();
  const { anonymous, threads } = processStatus();
  const resources = process.getActiveResourcesInfo();
  const timers = resources.filter((type) => type === 'Timeout' || type === 'Immediate').length;
  return {
    at: performance.now(),
    live_heap: heapUsed,
    array_buffers: arrayBuffers,
    external,
    native: anonymous - heapTotal - external,
    fds: fs.readdirSync('/proc/self/fd').length - 1,
    threads,
    handles: resources.length - timers,
    timers,
  };
}

/**
 * Collects more than once, with turns of the loop between, so that finalizers and WeakRefs have had their say.
 * @param {number} rounds
 * @param {() => void} done
 */
function collect(rounds, done) {
  gc();
  if (rounds > 1) setTimeout(collect, 20, rounds - 1, done);
  else done();
}

process.on('message', (message) => {
  const { control, id } = /** @type {{ control?: string, id?: number }} */ (message ?? {});
  if (control !== 'read') return;
  collect(3, () => process.send?.({ control: 'reading', id, reading: read() }));
});
// The channel would otherwise keep an app alive that ends by itself.
process.channel?.unref();
