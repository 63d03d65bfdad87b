'use strict';

/**
 * What leakguard's own code takes of an Express app's CPU under full load: V8's CPU profiler on the app's thread, and
 * the clock of the native thread. Two processes of one program differ by percents, which a comparison of apps with the
 * guard and without has to average out (express-cpu.js); a share within one process does not. What it does not
 * see is what our code makes dearer elsewhere, in caches or by code that V8 inlines no more.
 */

const path = require('node:path');
const { mean } = require('./support/statistics.js');
const { Child, ROOT } = require('./support/children.js');
const { threads } = require('./support/proc.js');
const { micros, percent, requirement } = require('./support/words.js');

const CONNECTIONS = 16;
const WARM_REQUESTS = 12_000;
const REQUESTS = 40_000;
const PROCESSES = 6;

/** The finest that a comparison of apps is asked to resolve. */
const WANTED = 0.02;

/** Where our functions are, the first that fits; all else is the app's, Node's and V8's. @type {[what: string, url: RegExp][]} */
const PARTS = [
  ['counting listeners', /\/lib\/(listeners|spread|site)\.js$/],
  ['counting requests by route', /\/lib\/routes\.js$/],
  ["Node's publishing to it", /^node:diagnostics_channel$/],
  ["the rest on the app's thread", /\/(lib\/[^/]+|index)\.js$/],
];

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  /** @type {{ micros: number, shares: Map<string, number> }[]} */
  const processes = [];
  for (let i = 0; i < (quick ? 1 : PROCESSES); i++) processes.push(await profiled(node));
  const rows = [...processes[0].shares.keys()].map((what) => {
    const values = processes.map(({ shares }) => shares.get(what) ?? 0);
    return { what, mean: mean(values), range: [Math.min(...values), Math.max(...values)] };
  });
  const total = rows[rows.length - 1];
  const words = (/** @type {number[]} */ [low, high]) => `${percent(low)} to ${percent(high)}`;
  const each = mean(processes.map((one) => one.micros));
  return {
    columns: ['what', 'share of the CPU of all threads, mean', 'range over processes'],
    rows: rows.map(({ what, mean, range }) => [what, percent(mean), words(range)]),
    figures: { rows, microsPerRequest: each },
    requirements: [
      requirement(
        "leakguard's own code, share of the CPU of an Express app under full load",
        `${percent(total.mean)} (${words(total.range)} in ${processes.length} processes)`,
        '<= 2 %',
        total.mean <= WANTED,
      ),
    ],
    notes: [
      `${REQUESTS} requests in each process after ${WARM_REQUESTS} of warm-up, ${micros(each)} of CPU each.`,
    ],
  };
}

/**
 * One guarded app under load.
 *
 * @param {string} node
 */
async function profiled(node) {
  const settings = { shop: 'shop.js', guard: ROOT };
  const app = new Child(node, 'app.js', { settings, env: { LEAKGUARD_LOG: 'silent' } });
  const load = new Child(node, 'load.js');
  const port = await app.ask('port');
  await load.ask('serve', { port, count: CONNECTIONS, requests: WARM_REQUESTS });
  await app.ask('beginProfile');
  const before = threads(app.pid);
  await load.ask('serve', { port, count: CONNECTIONS, requests: REQUESTS });
  const spent = [...threads(app.pid)].map(([tid, { name, nanoseconds }]) => ({
    name: tid === app.pid ? 'app' : name,
    nanoseconds: nanoseconds - (before.get(tid)?.nanoseconds ?? 0),
  }));
  const { profile } = await app.ask('endProfile');
  await Promise.all([load.stop(), app.stop()]);

  const of = (/** @type {string} */ thread) =>
    spent.reduce((sum, { name, nanoseconds }) => sum + (name === thread ? nanoseconds : 0), 0);
  const all = spent.reduce((sum, { nanoseconds }) => sum + nanoseconds, 0);
  const busy = shareByPart(profile);
  /** @type {Map<string, number>} */
  const shares = new Map();
  for (const [what] of PARTS) shares.set(what, ((busy.get(what) ?? 0) * of('app')) / all);
  shares.set('the native thread', of('leakguard') / all);
  shares.set(
    'together',
    [...shares.values()].reduce((sum, share) => sum + share),
  );
  return { micros: all / 1000 / REQUESTS, shares };
}

/**
 * Share of our parts in the samples in which the thread was not idle. What is built into V8 counts for who called it.
 *
 * @param {{ nodes: any[], samples: number[], timeDeltas: number[] }} profile
 */
function shareByPart({ nodes, samples, timeDeltas }) {
  const within = `file://${path.join(ROOT, path.sep)}`;
  const own = (/** @type {string} */ url) =>
    url.startsWith('node:') ||
    (`file://${url.replace('file://', '')}`.startsWith(within) && !url.includes('node_modules'));
  /** @type {Map<number, string | undefined>} */
  const parts = new Map();
  const byId = new Map(nodes.map((node) => [node.id, node]));
  /** @param {any} node @param {string | undefined} callers */
  const assign = (node, callers) => {
    const { url } = node.callFrame;
    const part = url === '' ? callers : PARTS.find(([, file]) => own(url) && file.test(url))?.[0];
    parts.set(node.id, part);
    for (const child of node.children ?? []) assign(byId.get(child), part);
  };
  assign(nodes[0], undefined);
  let busy = 0;
  /** @type {Map<string, number>} */
  const sums = new Map();
  for (const [at, id] of samples.entries()) {
    if (byId.get(id).callFrame.functionName === '(idle)') continue;
    busy += timeDeltas[at];
    const part = parts.get(id);
    if (part !== undefined) sums.set(part, (sums.get(part) ?? 0) + timeDeltas[at]);
  }
  return new Map([...sums].map(([what, sum]) => [what, sum / busy]));
}

module.exports = {
  name: 'express-profile',
  title: "leakguard's share of the CPU of an Express app",
  method: [
    "One guarded app at default settings under full load over 16 kept connections, fresh processes; V8's CPU profiler samples the app's thread each 0.2 ms, schedstat has the CPU of every thread.",
    'Two processes of one program differ by some percent for as long as they live, which a comparison of apps has to average out; a share within one process does not. Not seen: what our code makes dearer elsewhere, in caches, in garbage, or as code that V8 inlines no more.',
  ],
  perNode: true,
  seconds: { full: 100, quick: 30 },
  measure,
};
