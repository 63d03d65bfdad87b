'use strict';

// A container with little memory: an app with 64 MB of live heap leaks in a memory cgroup until the guard speaks.
// It is alive afterwards, the finding is complete, and its snapshot is whole or was refused with its numbers.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { describe, test } = require('node:test');
const { startApp } = require('./harness.js');
const { container, parseSnapshot, temporary } = require('./program.js');

const MB = 1024 * 1024;
const LIVE_MB = 64;
const FINDING_DEADLINE_MS = 150_000;

/** Holds 64 MB of small objects, and leaks some 15 MB a minute from then on. */
const APP = `
  const { MB, records, serve } = require(${JSON.stringify(path.join(__dirname, 'apps', 'frame.js'))});
  globalThis.catalogue = records(${LIVE_MB} * MB);
  const seen = [];
  setInterval(() => seen.push(records(MB / 8)), 500);
  serve((request, response) => response.end('here'));`;

/** @param {number} port @returns {Promise<string>} */
function get(port) {
  return new Promise((resolve, reject) => {
    http
      .get({ port, host: '127.0.0.1', timeout: 30_000, agent: false }, (response) => {
        response.setEncoding('utf8').once('data', resolve);
      })
      .once('error', reject);
  });
}

describe('in a container', { concurrency: 2 }, () => {
  for (const [megabytes, way] of /** @type {[number, string][]} */ ([
    [256, 'auto'],
    [384, 'fork'],
  ])) {
    test(`${LIVE_MB} MB of live heap in ${megabytes} MB (${way}), leaking until the guard speaks: the app lives on`, async (t) => {
      const group = container(t, megabytes * MB);
      if (group === null) return;
      const script = path.join(temporary(t), 'app.js');
      fs.writeFileSync(script, APP);
      const app = await startApp(script, {
        node: group.node,
        // Memory is to decide here, however busy the machine is.
        env: {
          LEAKGUARD_SNAPSHOT: way,
          LEAKGUARD_GC_SHARE: '10%',
          LEAKGUARD_MAX_GC_PAUSE: '5s',
          LEAKGUARD_MAX_PAUSE: '1h',
        },
      });
      try {
        const finding = await app.waitForFinding(FINDING_DEADLINE_MS, ({ evidence }) =>
          evidence.some(({ kind, state }) => kind === 'snapshot' && state !== 'pending'),
        );
        assert.equal(await get(app.port), 'here');
        assert.equal(app.exited, null);
        assert.equal(group.kills(), 0);

        const whole = /** @type {any} */ (finding);
        assert.equal(whole.series[0].id, 'live_heap');
        assert.equal(whole.limits.containerLimitBytes, megabytes * MB);
        assert.equal(whole.timeToLimit.bytes <= megabytes * MB, true);
        assert.ok(whole.context.live_heap > LIVE_MB * MB * 0.8);
        assert.match(whole.sentence, /live heap/);
        const snapshot = whole.evidence.find((/** @type {any} */ step) => step.kind === 'snapshot');
        if (snapshot.state === 'written') {
          parseSnapshot(path.join(app.dir, snapshot.file));
        } else {
          assert.equal(snapshot.state, 'refused', snapshot.sentence);
          assert.equal(snapshot.reason, 'memory', snapshot.sentence);
          const { needed, available, sufficient } = snapshot.numbers;
          assert.ok(needed > available && sufficient > megabytes * MB, JSON.stringify(snapshot));
          assert.match(snapshot.sentence, /\d/);
        }
        // The allocation profile may still be on its way.
        const names = await app.waitForFile(FINDING_DEADLINE_MS, 'all is under its name', () => {
          const all = fs.readdirSync(app.dir);
          return all.some((name) => name.endsWith('.part')) ? undefined : all;
        });
        for (const name of names) {
          if (!/^(leakguard\.lock|\.gitignore)$/.test(name))
            assert.notEqual(fs.statSync(path.join(app.dir, name)).size, 0, name);
        }
      } finally {
        await app.stop();
      }
    });
  }
});
