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

const listening = listen();

answer({
  port: async () => (await listening).port,
  cpu: () => process.cpuUsage(),
  status: () => guard?.status(),
});
