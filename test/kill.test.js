'use strict';

// kill -9 at any moment: what stands under a final name is whole, and the next start clears the rest away.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { readRun } = require('../lib/run.js');
const { ask, files, parseSnapshot, run, temporary } = require('./program.js');

const KILLS = 24;

/** Snapshots on demand in a loop; one dot on stdout before each, so that the parent knows where it is. */
const LOOP = `
  const leakguard = require(process.env.GUARD);
  globalThis.held = Array.from({ length: 30000 }, (_, i) => ({ i, text: 'item ' + i }));
  setInterval(() => {}, 1000);
  const bus = new (require('node:events').EventEmitter)().setMaxListeners(0);
  setInterval(() => bus.on('reload', () => {}), 20);
  (async () => {
    for (;;) { require('node:fs').writeSync(1, '.'); await leakguard.snapshot(); }
  })();`;

const ENV = {
  LEAKGUARD_MAX_SNAPSHOTS: '1000',
  LEAKGUARD_MAX_DISK: '64MB',
  LEAKGUARD_LOG: 'silent',
};

/** A seeded generator, so that a failure can be had again. @param {number} seed */
function random(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** @param {string} dir */
function assertWhole(dir) {
  for (const file of files(dir, /\.(json|meta)$|^leakguard\.state$/)) {
    const text = fs.readFileSync(file, 'utf8');
    assert.doesNotThrow(() => JSON.parse(text), `${file}: ${text.slice(0, 200)}`);
  }
  for (const file of files(dir, /\.heapsnapshot$/)) parseSnapshot(file);
  for (const file of files(dir, /\.rec$/)) assert.doesNotThrow(() => readRun(file, 1), file);
  for (const meta of files(dir, /^Snapshot\..*\.meta$/)) {
    const { file, bytes } = JSON.parse(fs.readFileSync(meta, 'utf8'));
    const snapshot = path.join(dir, file);
    if (fs.existsSync(snapshot)) assert.equal(fs.statSync(snapshot).size, bytes, snapshot);
  }
}

test(`${KILLS} kills at random moments leave whole files only, and the next start clears the rest away`, async (t) => {
  const dir = path.join(temporary(t), 'evidence');
  const next = random(20_240_601);
  let left = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const outcome = await run(t, LOOP, {
      dir,
      env: ENV,
      onSpawn(child) {
        // At the first to the third snapshot, and then anywhere within the time that one takes.
        let dots = 1 + Math.floor(next() * 3);
        const delay = next() * 350;
        child.stdout?.on('data', (/** @type {string} */ text) => {
          dots -= text.length;
          if (dots <= 0 && dots + text.length > 0) setTimeout(() => child.kill('SIGKILL'), delay);
        });
      },
    });
    assert.equal(outcome.signal, 'SIGKILL', outcome.stderr);
    left += files(dir, /\.part$/).length;
    assertWhole(dir);
    // Seldom more than one of a few, for the disk's sake.
    for (const file of files(dir, /\.heapsnapshot$/).slice(0, -2)) fs.rmSync(file);
  }
  assert.ok(left > 0, 'no kill fell into a snapshot: the test has not tried what it says');

  const source = `
    const leakguard = require(process.env.GUARD);
    const alive = setInterval(() => {}, 1000);
    leakguard.snapshot().then((answer) => { clearInterval(alive); process.stdout.write(JSON.stringify(answer)); });`;
  const { report, stderr } = await ask(t, source, { dir, env: ENV });
  assert.equal(typeof report.path, 'string', JSON.stringify(report));
  assert.equal(stderr, '');
  assert.deepEqual(files(dir, /\.part$/), []);
  assertWhole(dir);
});
