'use strict';

// The programs of test/apps are what the table says they are: all listed, all marked, and with the leak, or the
// absence of one, that a control run without the guard measures.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const apps = require('./apps/index.js');
const { runLoad } = require('./apps/load.js');
const { startApp } = require('./harness.js');

const REQUESTS = 1500;

/**
 * Bytes by which the live heap grew over REQUESTS requests, after as many to warm up.
 * @param {string} name
 */
async function growthOf(name) {
  const app = apps.find(name);
  const running = await startApp(name, { guarded: false, control: true });
  try {
    const load = { ...app.load, rps: 500, phases: undefined };
    const options = { seed: 1, durationMs: 60_000, maxRequests: REQUESTS };
    await runLoad(running.port, load, options);
    const before = await running.read();
    const result = await runLoad(running.port, load, options);
    const after = await running.read();
    assert.equal(result.errors, 0);
    return after.live_heap - before.live_heap;
  } finally {
    await running.stop();
  }
}

describe('test/apps', () => {
  test('every_program_is_in_the_table_and_every_row_has_its_program', () => {
    const files = ['leaking', 'healthy', 'undecidable'].flatMap((folder) =>
      fs
        .readdirSync(path.join(apps.APPS_DIR, folder))
        .map((file) => path.join(apps.APPS_DIR, folder, file)),
    );
    assert.deepEqual(apps.ALL.map((app) => app.file).sort(), files.sort());
  });

  test('every_program_says_its_pattern_in_a_comment_and_nothing_of_the_guard', () => {
    for (const { file } of apps.ALL) {
      const source = fs.readFileSync(file, 'utf8');
      assert.match(source, /^'use strict';\n\n\/\/ [A-Z0-9][^\n]+\.\n\n/, file);
      assert.doesNotMatch(source, /leakguard/i, file);
    }
  });

  test('leaking_programs_mark_the_guilty_lines_and_healthy_ones_none', () => {
    for (const app of apps.ALL) {
      const lines = fs.readFileSync(app.file, 'utf8').split('\n');
      const marked = apps.leakLines(app);
      assert.equal(marked.length > 0, app.leaks !== false, app.name);
      for (const line of marked)
        assert.match(lines[line - 1], /[;{]( \/\/ LEAK)?$/, `${app.name}:${line}`);
    }
  });

  test('a_leaking_program_grows_by_what_was_asked', async () => {
    const asked = (REQUESTS * 4 * 1024 * 1024) / 60 / apps.find('metrics-array').leakRps;
    const growth = await growthOf('metrics-array');
    assert.ok(
      growth > 0.7 * asked && growth < 1.5 * asked,
      `grew by ${growth} bytes, asked were ${asked}`,
    );
  });

  test('a_healthy_program_does_not_grow', async () => {
    const growth = await growthOf('listeners-removed');
    assert.ok(growth < 700_000, `grew by ${growth} bytes`);
  });
});
