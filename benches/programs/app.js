'use strict';

/**
 * An ordinary small Express app, with the guard or without. The guard is loaded first, as a user does.
 */

const { answer, settings } = require('./answer.js');

const { guard: guardPath } = settings();
const guard = guardPath ? require(guardPath) : null;
const { listen } = require('./shop.js');

const listening = listen();

answer({
  port: async () => (await listening).port,
  cpu: () => process.cpuUsage(),
  status: () => guard?.status(),
});
