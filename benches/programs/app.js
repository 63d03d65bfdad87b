'use strict';

/**
 * An ordinary small app, on Express or as `shop` says, with the guard or without. The guard is loaded first, as a
 * user does. With a mean distance of samples in bytes (`profile`), V8's allocation profiler runs as the guard has it
 * during a suspicion.
 */

const { answer, settings } = require('./answer.js');

const { guard: guardPath, profile, shop = 'shop.js' } = settings();
const guard = guardPath ? require(guardPath) : null;
const { listen } = require(`./${shop}`);

if (profile) {
  const session = new (require('node:inspector').Session)();
  session.connect();
  session.post('HeapProfiler.startSampling', { samplingInterval: profile });
}

/** @type {import('node:inspector').Session | undefined} */
let profiler;

/** V8's CPU profiler on this thread, with a sample each 0.2 ms. */
function beginProfile() {
  profiler = new (require('node:inspector').Session)();
  profiler.connect();
  profiler.post('Profiler.enable');
  profiler.post('Profiler.setSamplingInterval', { interval: 200 });
  profiler.post('Profiler.start');
}

function endProfile() {
  return new Promise((resolve, reject) => {
    profiler?.post('Profiler.stop', (error, result) => (error ? reject(error) : resolve(result)));
  });
}

const listening = listen();

answer({
  port: async () => (await listening).port,
  cpu: () => process.cpuUsage(),
  status: () => guard?.status(),
  beginProfile,
  endProfile,
});
