'use strict';

// A slice of the scoreboard (`npm run scoreboard`): four leaking programs get a finding of the right series that
// names the right thing and a snapshot that holds what leaked; four healthy ones under load get none.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const apps = require('./apps/index.js');
const { runLoad } = require('./apps/load.js');
const { startApp } = require('./harness.js');
const { HELD_BY, answer } = require('./heap-drive.js');
const { countHeld } = require('./heap-contents.js');

/** Beyond its expected time: these tests share their machine with others. */
const GRACE_MS = 60_000;

/** How long a healthy program is watched: warm-up, a window, and two confirmations. */
const HEALTHY_MS = 60_000;

/** @typedef {Awaited<ReturnType<typeof startApp>>} RunningApp */

/**
 * Runs a program under its load for the time that `use` takes.
 *
 * @template T
 * @param {apps.App} app
 * @param {number} durationMs
 * @param {(running: RunningApp, load: ReturnType<typeof runLoad>) => Promise<T>} use
 */
async function underLoad(app, durationMs, use) {
  const env = { LEAKGUARD_ANALYZE: 'auto', LEAKGUARD_FOLLOWUP: '10s' };
  const running = await startApp(app.name, { env });
  const stop = new AbortController();
  const load = runLoad(running.port, app.load, { seed: 1, durationMs, signal: stop.signal });
  try {
    return await use(running, load);
  } finally {
    stop.abort();
    await load;
    await running.stop();
  }
}

/**
 * The suspects of a finding's analysis, as the analyzer's own JSON has them.
 *
 * @param {import('./harness.js').Finding} finding
 */
function suspects({ analysis }) {
  return (analysis?.suspects ?? []).map((suspect, at) => ({
    ...suspect,
    rank: at + 1,
    item_sites: suspect.itemSites,
    item_class: suspect.itemClass,
  }));
}

describe('under load', { concurrency: 2 }, () => {
  for (const name of ['listener-per-request', 'map-cache', 'array-buffers', 'file-descriptors']) {
    const app = apps.find(name);
    const deadline = app.seconds * 1000 + GRACE_MS;
    test(`the leaking program ${name} gets a finding of the right series and a snapshot that holds the leak`, async () => {
      await underLoad(app, deadline, async (running) => {
        const finding = await running.waitForFinding(
          deadline,
          ({ series, evidence }) =>
            series.some(({ id }) => app.series.some((one) => one === id)) &&
            evidence.some(({ kind, state }) => kind === 'snapshot' && state !== 'pending') &&
            evidence.some(({ kind, state }) => kind === 'analysis' && state !== 'pending'),
        );
        assert.ok(
          app.series.some((id) => id === finding.series[0].id),
          finding.sentence,
        );
        const site = finding.cause?.site;
        if (app.series[0] === 'listeners') {
          assert.equal(path.basename(site?.file ?? ''), path.basename(app.file));
          assert.ok(apps.leakLines(app).includes(site?.line ?? 0), finding.sentence);
        } else if (app.cause?.text) {
          assert.match(finding.sentence, app.cause.text);
        }
        const snapshot = finding.evidence.find(({ kind }) => kind === 'snapshot');
        assert.equal(snapshot?.state, 'written', snapshot?.sentence);
        const held = app.holds ?? { type: 'object', name: /./, min: 1 };
        const count = countHeld(path.join(running.dir, snapshot?.file ?? ''), held);
        assert.ok(count >= held.min, `${count} of ${held.name}`);
        const analysis = finding.evidence.find(({ kind }) => kind === 'analysis');
        assert.equal(analysis?.state, 'written', analysis?.sentence);
        assert.equal(finding.analysis?.file, snapshot?.file);
        if (HELD_BY[name]) {
          const found = answer(app, suspects(finding));
          assert.ok(found?.line, JSON.stringify(finding.analysis));
          assert.ok(finding.analysis?.suspects.every(({ path }) => path.length > 1));
        }
        if (name === 'map-cache') {
          // The second snapshot is compared with the first.
          const later = await running.waitForFinding(deadline, (one) => !!one.analysis?.against);
          assert.equal(later.analysis?.against, snapshot?.file);
          assert.deepEqual(answer(app, suspects(later)), { rank: 1, line: true });
          assert.match(later.analysis?.suspects[0].sentence ?? '', /; grew /);
        }
        await running.waitForStderr(GRACE_MS, /^leakguard: analysis of Finding\./m);
        assert.match(running.stderr, /^leakguard: finding: /m);
        assert.equal(running.exited, null);
        assert.equal(running.stdout, '');
      });
    });
  }

  for (const name of ['lru-cache', 'sawtooth-garbage', 'ramp-then-plateau', 'listeners-removed']) {
    const app = apps.find(name);
    test(`the healthy program ${name} gets none`, async () => {
      await underLoad(app, HEALTHY_MS, async (running, load) => {
        // The load ends by itself; what the app wrote until then is judged.
        const { answered, errors } = await load;
        assert.ok(answered > 100, `${answered} answered, ${errors} errors`);
        assert.deepEqual(
          running.findings().map(({ sentence }) => sentence),
          [],
        );
        assert.equal(running.stderr, '');
        assert.equal(running.exited, null);
        assert.ok(fs.existsSync(path.join(running.dir, '.gitignore')), 'the guard was not there');
      });
    });
  }
});
