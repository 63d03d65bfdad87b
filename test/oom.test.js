'use strict';

// A container that kills its app again and again before any window is full, and one whose app is only restarted:
// the first has a finding by its fourth run, the second has none. `leakguard report` then shows all runs of the
// first, read from what the real guard recorded.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { container } = require('./program.js');
const { DEADLINE_MS, act, directory, heard, start } = require('./ending.js');

const COMMAND = path.join(__dirname, '..', 'bin', 'leakguard.js');
const LIMIT_MB = 128;
const RUNS = 4;

/** V8 may grow beyond the container, as it does where nobody set a limit: the kernel comes first. */
const NO_LIMIT_OF_V8 = ['--max-old-space-size=1024'];

/** @param {string[]} args */
function report(...args) {
  const outcome = spawnSync(process.execPath, [COMMAND, 'report', ...args], { encoding: 'utf8' });
  assert.equal(outcome.stderr, '');
  assert.equal(outcome.status, 0);
  return outcome.stdout;
}

describe('a container that is restarted', { concurrency: 2 }, () => {
  test('by the OOM killer, before a window is full: one finding within four runs, and the report has them all', async (t) => {
    const group = container(t, LIMIT_MB * 1024 * 1024);
    if (group === null) return;
    const dir = directory(t);
    const options = { node: group.node, execArgv: NO_LIMIT_OF_V8 };
    /** @type {any} */
    let finding = null;
    /** @type {number[]} */
    const pids = [];
    for (let run = 1; run <= RUNS && finding === null; run++) {
      const { app, messages } = await start(dir, options);
      pids.push(app.pid);
      if (run === RUNS) {
        finding = await heard({ app, messages }, 'finding');
      } else {
        act(app, 'leak', 2500);
      }
      if (run === RUNS) app.child.kill('SIGKILL');
      assert.deepEqual(await app.exit, { code: null, signal: 'SIGKILL' }, app.stderr);
      // What each says near its end is no verdict of growth across runs.
      finding ??= messages.find((message) => message.finding?.nearLimit === null)?.finding ?? null;
      if (run > 1)
        assert.match(app.stderr, new RegExp(`previous run, .* of ${LIMIT_MB} MB`), `run ${run}`);
    }
    assert.equal(group.kills() >= RUNS - 1, true);
    assert.match(finding.sentence, /^the live heap grows in each of the last 3 runs until it ends/);
    assert.equal(finding.runs.length, 3);
    assert.ok(finding.series[0].slopePerHour > 0);

    const history = JSON.parse(report(dir, '--json'));
    assert.equal(history.run_count, pids.length);
    assert.deepEqual(history.problems, []);
    assert.deepEqual(
      history.runs.map((/** @type {any} */ run) => run.header.pid).sort(),
      [...pids].sort(),
    );
    const killed = history.runs.filter((/** @type {any} */ run) => run.header.pid !== pids.at(-1));
    for (const run of killed) {
      assert.equal(run.torn_records, 0);
      assert.ok(run.live_heap_per_hour > 0, run.ending);
      assert.match(
        run.ending,
        new RegExp(`at \\d+ MB of the container's ${LIMIT_MB} MB$`),
        run.ending,
      );
      const used = run.series.find((/** @type {any} */ series) => series.id === 'cgroup_used');
      const most = Math.max(
        ...used.points.map((/** @type {[number, number]} */ [, value]) => value),
      );
      assert.ok(most > 0.7 * LIMIT_MB * 1024 * 1024, String(most));
    }
    const across = history.findings.filter((/** @type {any} */ { content }) => !content.nearLimit);
    assert.equal(across.length, 1);
    assert.equal(across[0].content.id, finding.id);
    assert.equal(across[0].content.runs.length, 3);

    const page = path.join(dir, '..', `${path.basename(dir)}.html`);
    t.after(() => fs.rmSync(page, { force: true }));
    report(dir, '--out', page);
    const html = fs.readFileSync(page, 'utf8');
    for (const pid of pids) assert.ok(html.includes(String(pid)), `pid ${pid}`);
    assert.ok(html.includes('grows in each of the last 3 runs'));
  });

  test('by SIGTERM, as often: nothing is said', async (t) => {
    const group = container(t, LIMIT_MB * 1024 * 1024);
    if (group === null) return;
    const dir = directory(t);
    for (let run = 1; run <= RUNS; run++) {
      const { app, messages } = await start(dir, {
        node: group.node,
        // Below the container's limit, as it should be: nothing to warn of.
        execArgv: ['--max-old-space-size=64'],
      });
      act(app, 'status');
      await app.message((message) => message.status, DEADLINE_MS, 'its status');
      app.child.kill('SIGTERM');
      assert.deepEqual(await app.exit, { code: null, signal: 'SIGTERM' });
      assert.deepEqual(
        messages.filter((message) => message.finding),
        [],
      );
      assert.equal(app.stderr, '', `run ${run}`);
    }
    assert.equal(group.kills(), 0);
    assert.deepEqual(
      fs.readdirSync(dir).filter((name) => name.endsWith('.json')),
      [],
    );
  });
});
