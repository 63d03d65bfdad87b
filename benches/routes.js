'use strict';

/**
 * CPU time per Express request with requests counted by route and without: as express-cpu.js measures it, on its app
 * and load, with nothing different but `LEAKGUARD_ROUTES`.
 */

const express = require('./express-cpu.js');

const OFF = { LEAKGUARD_LOG: 'silent', LEAKGUARD_ROUTES: 'off' };

/** @type {import('./express-cpu.js').Variants} */
const VARIANTS = {
  bareA: { words: 'guard, LEAKGUARD_ROUTES=off', guarded: true, env: OFF },
  bareB: { words: 'the same again (A/A control)', guarded: true, env: OFF },
  guard: { words: 'guard, default settings', guarded: true, env: { LEAKGUARD_LOG: 'silent' } },
};

module.exports = {
  name: 'routes',
  title: 'CPU per Express request of counting requests by route',
  method: [
    'As the CPU per Express request, three guarded apps side by side: two with LEAKGUARD_ROUTES=off, one of which is the A/A control, and one with default settings.',
  ],
  perNode: true,
  seconds: { full: 520, quick: 30 },
  /** @param {{ node: string, quick: boolean }} options */
  measure: (options) =>
    express.measure(options, VARIANTS, {
      base: 'routes off',
      what: 'CPU per Express request of counting requests by route',
    }),
};
