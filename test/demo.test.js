'use strict';

// The demo as a person runs it, without a terminal: the leaking app gets its finding and its snapshot, the
// mended one gets none. And the chart that a terminal would show.

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { stripVTControlCharacters } = require('node:util');
const { MIN_SCREEN, frame, plainLine } = require('../scripts/demo-chart.js');
const { ROOT } = require('../scripts/steps.js');

/** The demo ends by itself within 90 s; this is for a machine that is busy with other tests. */
const DEADLINE_MS = 150_000;

/**
 * Runs the demo to its end.
 *
 * @param {string[]} args
 * @returns {Promise<{ code: number | null, stdout: string, stderr: string }>}
 */
function demo(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(ROOT, 'scripts', 'demo.js'), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: DEADLINE_MS,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** @type {import('../scripts/demo-chart.js').Picture} */
const PICTURE = {
  title: 'a shop with two leaks',
  nowMs: 20_000,
  lengthMs: 40_000,
  warmupMs: 10_000,
  state: 'armed',
  requests: 3200,
  heap: [10, 15, 20, 25].map((megabytes, index) => ({
    ms: index * 5000,
    value: megabytes * 1024 * 1024,
  })),
  listeners: [0, 5, 50, 3200].map((value, index) => ({ ms: index * 5000, value })),
  listenersWhere: "'change' added at app.js:32",
  news: 'nothing yet',
};

// One after the other: both keep their evidence in the same directory.
describe('the demo', { concurrency: 1 }, () => {
  test('the leaking app gets a finding that names the line, and a snapshot', async () => {
    const { code, stdout, stderr } = await demo([]);
    assert.equal(code, 0, stdout + stderr);
    const named = stdout.match(/^The line that adds the listeners: (\S+):(\d+)$/m);
    assert.ok(named, stdout);
    assert.equal(named[1], path.join('examples', 'express', 'app.js'));
    const source = fs.readFileSync(path.join(ROOT, named[1]), 'utf8').split('\n');
    assert.match(source[Number(named[2]) - 1], /prices\.on\('change'/);

    const taken = stdout.match(/^Snapshot: (\S+\.heapsnapshot) /m);
    assert.ok(taken, stdout);
    assert.equal(path.dirname(taken[1]), path.join('examples', 'express', 'leakguard'));
    const snapshot = JSON.parse(fs.readFileSync(path.join(ROOT, taken[1]), 'utf8'));
    assert.ok(snapshot.strings.includes('updatePrice'));
    assert.equal(stdout, stripVTControlCharacters(stdout), 'it is no terminal');
  });

  test('the guard stays silent about the mended app', async () => {
    const { code, stdout, stderr } = await demo(['healthy']);
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^The guard stayed silent: /m);
  });

  test('a variant that does not exist is told how to call it', async () => {
    const { code, stdout, stderr } = await demo(['sick']);
    assert.deepEqual({ code, stdout }, { code: 2, stdout: '' });
    assert.match(stderr, /^usage: /);
  });
});

describe('the chart', () => {
  test('it is drawn to scale, from the first reading to now', () => {
    const screen = { columns: 52, rows: 19, colour: false };
    assert.deepEqual(
      frame(PICTURE, screen).map((line) => line.trimEnd()),
      [
        'a shop with two leaks',
        '20 s · 3,200 requests · guard: armed',
        '',
        'live heap 25.0 MB, +15.0 MB since the first reading',
        '    50 MB │',
        '          │',
        '          │    ▂▂▂▂▂▅▅▅▅▅███████',
        '        0 │▆▆▆▆█████████████████',
        "listeners on one emitter 3,200, 'change' added at a…",
        '    5,000 │',
        '          │              ▄▄▄▄▄▄▄',
        '          │              ███████',
        '        0 │▁▁▁▁▁▁▁▁▁▁▁▁▁▁███████',
        '          └──────────┴─────────────────────────────',
        '                     warm-up ends              40 s',
        'nothing yet',
      ],
    );
  });

  test('no line is wider than the screen and no frame higher, from the smallest screen on', () => {
    for (let columns = MIN_SCREEN.columns; columns < 220; columns += 7) {
      for (let rows = MIN_SCREEN.rows; rows < 80; rows += 5) {
        const lines = frame(PICTURE, { columns, rows, colour: false });
        assert.ok(lines.length < rows, `${lines.length} lines on ${rows} rows`);
        for (const line of lines) assert.ok(line.length <= columns, `${columns} columns: ${line}`);
      }
    }
  });

  test('colour adds nothing but colour', () => {
    const screen = { columns: 80, rows: 24 };
    const coloured = frame(PICTURE, { ...screen, colour: true });
    assert.ok(coloured.join('\n').includes('\x1b[31m█'));
    assert.deepEqual(
      coloured.map(stripVTControlCharacters),
      frame(PICTURE, { ...screen, colour: false }),
    );
  });

  test('before the first reading it is empty and says so', () => {
    const empty = { ...PICTURE, heap: [], listeners: [], listenersWhere: '' };
    const text = frame(empty, { columns: 80, rows: 24, colour: false }).join('\n');
    assert.match(text, /live heap not read yet/);
    assert.doesNotMatch(text, /[▁-█]/);
    assert.match(plainLine(empty), /live heap not read yet/);
  });
});
