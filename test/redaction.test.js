'use strict';

// LEAKGUARD_REDACT on a real app: what it hides never comes to the disk, whichever way the snapshot was taken and
// packed, and what is left is a whole snapshot that tells as much of the heap as before. That DevTools finds the same
// sizes for every node of a redacted file is tested with the command line (heap.test.js), which redacts as the guard does.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { analyze } = require('../lib/analyze.js');
const { startApp } = require('./harness.js');
const { unpack } = require('./program.js');

const DEADLINE_MS = 120_000;
const APP = path.join(__dirname, 'apps', 'secrets.js');
const forks =
  process.platform === 'linux' &&
  !fs.readdirSync('/lib').some((name) => name.startsWith('ld-musl'));

const CASES = [
  { redact: 'none', way: 'inline', compress: 'none' },
  { redact: 'strings', way: 'inline', compress: 'gzip' },
  { redact: 'keys', way: 'inline', compress: 'zstd' },
  { redact: 'strings', way: 'fork', compress: 'zstd' },
  { redact: 'keys', way: 'fork', compress: 'none' },
];

describe('redaction while a snapshot is written', { concurrency: 2 }, () => {
  for (const { redact, way, compress } of CASES) {
    test(`${redact}, ${way}, ${compress}`, async (t) => {
      if (way === 'fork' && !forks) {
        t.skip('forks on Linux with glibc only');
        return;
      }
      const app = await startApp(APP, {
        guarded: true,
        env: {
          LEAKGUARD_REDACT: redact,
          LEAKGUARD_SNAPSHOT: way,
          LEAKGUARD_COMPRESS: compress,
          LEAKGUARD_MAX_PAUSE: '1h',
        },
      });
      try {
        const answered = app.message(
          (message) => (message?.answer ? message : undefined),
          DEADLINE_MS,
          'an answer',
        );
        app.child.send('snapshot');
        const { answer, secrets } = await answered;
        assert.equal(answer.refused, undefined, answer.refused?.sentence);
        assert.equal(answer.meta.redaction, redact);
        assert.equal(answer.meta.mode, way);

        assert.equal(answer.meta.compression, compress);
        const text = unpack(answer.path);
        const left = secrets.filter((/** @type {string} */ secret) => text.includes(secret));
        const names = left.filter((/** @type {string} */ secret) => secret.startsWith('key-'));
        // Property names explain a heap: they stay unless asked for.
        if (redact === 'none') assert.ok(left.length > 15 && names.length > 0, left.join());
        else assert.deepEqual(left, redact === 'keys' ? [] : names);
        for (const name of fs.readdirSync(app.dir)) {
          const bytes = fs.readFileSync(path.join(app.dir, name));
          if (!name.includes('.heapsnapshot')) {
            for (const secret of secrets)
              assert.ok(!bytes.includes(secret), `${secret} in ${name}`);
          }
        }
        const { snapshot, nodes, strings } = JSON.parse(text.toString());
        assert.equal(nodes.length, snapshot.node_count * snapshot.meta.node_fields.length);
        if (redact !== 'none')
          assert.ok(strings.some((/** @type {string} */ s) => /^~8#[0-9a-f]{12}$/.test(s)));
        // Names of classes and functions are what one goes by.
        for (const name of ['IncomingMessage', 'Server', 'Layer'])
          assert.ok(strings.includes(name), name);
        const report = /** @type {any} */ (await analyze(answer.path));
        assert.equal(report.snapshot.nodes, snapshot.node_count);
      } finally {
        await app.stop();
      }
    });
  }
});
