'use strict';

// How long the event loop stands still for a snapshot, forked and inline, alternating on apps of the same heap:
// longest gap between two turns of the loop, and CPU of the main thread for the fork. Every figure is of one
// snapshot; medians over the rounds. `node benches/fork-pause.js [--heaps 30,100,300] [--rounds 3] [--inline-up-to 100]`

const { parseArgs } = require('node:util');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { runLoad } = require('../test/apps/load.js');
const { startApp } = require('../test/harness.js');

const DEADLINE_MS = 600_000;

/** @typedef {{ gapMs: number, pauseMs: number, cpuMs: number | null, p99: number, rssBefore: number, rssAfter: number }} Figures */

/**
 * One snapshot of a fresh app under light load.
 *
 * @param {{ heapMb: number, mode: string, node: string }} plan
 * @returns {Promise<Figures | string>} or why there was none
 */
async function measure({ heapMb, mode, node }) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-pause-'));
  const app = await startApp(path.join(__dirname, 'soak-app.js'), {
    node,
    guarded: false,
    env: {
      LEAKGUARD_DIR: dir,
      LEAKGUARD_SNAPSHOT: mode,
      LEAKGUARD_ANALYZE: 'off',
      LEAKGUARD_MAX_PAUSE: '10min',
      LEAKGUARD_MAX_DISK: '4GB',
      LEAKGUARD_LOG: 'silent',
      SOAK_HEAP_MB: String(heapMb),
    },
  });
  const stop = new AbortController();
  const routes = [{ path: '/json' }, { path: '/file' }];
  try {
    const load = runLoad(
      app.port,
      { rps: 40, routes, keepAlive: true },
      { durationMs: DEADLINE_MS, signal: stop.signal },
    );
    const order = async (/** @type {string} */ name, /** @type {number} */ id) => {
      const answer = app.message(
        (message) => (message?.id === id ? message : undefined),
        DEADLINE_MS,
        name,
      );
      app.child.send({ order: name, id });
      return (await answer).answer;
    };
    const before = await order('state', 1);
    const answer = await order('timed-snapshot', 2);
    const after = await order('state', 3);
    stop.abort();
    const { p99 } = await load;
    if (answer.refused) return answer.refused.sentence;
    return {
      gapMs: answer.gapMs,
      pauseMs: answer.pauseMs,
      cpuMs: answer.fork?.pauseCpuMs ?? null,
      p99,
      rssBefore: before.memory.rss,
      rssAfter: after.memory.rss,
    };
  } finally {
    stop.abort();
    await app.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

async function main() {
  const { values } = parseArgs({
    options: {
      heaps: { type: 'string', default: '30,100,300' },
      rounds: { type: 'string', default: '3' },
      'inline-up-to': { type: 'string', default: '300' },
      node: { type: 'string', default: process.execPath },
    },
  });
  console.log(
    '| heap MB | way | longest loop gap ms | stop ms | CPU of the main thread ms | HTTP p99 ms | RSS after / before |',
  );
  console.log('|---|---|---|---|---|---|---|');
  for (const heapMb of values.heaps.split(',').map(Number)) {
    /** @type {Record<string, Figures[]>} */
    const taken = { fork: [], inline: [] };
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const mode of ['fork', 'inline']) {
        if (mode === 'inline' && heapMb > Number(values['inline-up-to'])) continue;
        const figures = await measure({ heapMb, mode, node: values.node });
        if (typeof figures === 'string') console.error(`${heapMb} MB ${mode}: ${figures}`);
        else taken[mode].push(figures);
      }
    }
    for (const [mode, all] of Object.entries(taken)) {
      if (all.length === 0) continue;
      const of = (/** @type {(figures: Figures) => number | null} */ pick) => {
        const found = all.map(pick).filter((value) => value !== null);
        return found.length === 0 ? '' : median(/** @type {number[]} */ (found)).toFixed(1);
      };
      console.log(
        `| ${heapMb} | ${mode} | ${of((one) => one.gapMs)} | ${of((one) => one.pauseMs)} | ${of((one) => one.cpuMs)} ` +
          `| ${of((one) => one.p99)} | ${median(all.map((one) => one.rssAfter / one.rssBefore)).toFixed(2)} |`,
      );
    }
  }
}

main();
