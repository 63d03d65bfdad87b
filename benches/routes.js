'use strict';

/**
 * CPU time per request with requests counted by route and without, on Express and on Fastify: as express-cpu.js
 * measures it, with its load, with nothing different but `LEAKGUARD_ROUTES`.
 */

const express = require('./express-cpu.js');

const OFF = { LEAKGUARD_LOG: 'silent', LEAKGUARD_ROUTES: 'off' };

/** @type {import('./express-cpu.js').Variants} */
const VARIANTS = {
  bareA: { words: 'guard, LEAKGUARD_ROUTES=off', guarded: true, env: OFF },
  bareB: { words: 'the same again (A/A control)', guarded: true, env: OFF },
  guard: { words: 'guard, default settings', guarded: true, env: { LEAKGUARD_LOG: 'silent' } },
};

/** Frameworks and their apps. On Fastify a request costs less than half, so that a part of it is more. */
const SHOPS = { Express: 'shop.js', Fastify: 'fastify-shop.js' };

/** @param {{ node: string, quick: boolean, rounds?: number }} options */
async function measure(options) {
  /** @type {Awaited<ReturnType<typeof express.measure>>[]} */
  const results = [];
  for (const [framework, shop] of Object.entries(SHOPS)) {
    const words = {
      base: 'routes off',
      what: `CPU per ${framework} request of counting requests by route`,
    };
    const result = await express.measure(options, VARIANTS, words, shop);
    for (const row of result.rows) row.unshift(framework);
    for (const one of result.processes) Object.assign(one, { framework });
    results.push(result);
  }
  return {
    columns: ['framework', ...results[0].columns],
    rows: results.flatMap((one) => one.rows),
    figures: Object.fromEntries(
      Object.keys(SHOPS).map((framework, at) => [framework, results[at].figures]),
    ),
    processes: results.flatMap((one) => one.processes),
    requirements: results.flatMap((one) => one.requirements),
    notes: results.flatMap((one, at) =>
      one.notes.map((note) => `${Object.keys(SHOPS)[at]}: ${note}`),
    ),
  };
}

module.exports = {
  name: 'routes',
  title: 'CPU per request of counting requests by route',
  method: [
    'As the CPU per Express request, three guarded apps side by side: two with LEAKGUARD_ROUTES=off, one of which is the A/A control, and one with default settings. First on Express, then the same app on Fastify.',
  ],
  perNode: true,
  seconds: { full: 1000, quick: 50 },
  measure,
};
