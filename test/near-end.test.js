'use strict';

// Apps that come to their end at a limit: what they leave behind was written before they died, also by a loop that
// never gave JavaScript another turn.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { execFileSync, spawn } = require('node:child_process');
const { describe, test } = require('node:test');
const { act, directory, heard, readRun, runFiles, start } = require('./ending.js');
const { container, files } = require('./program.js');

const MB = 1024 * 1024;
const SMALL_HEAP = ['--max-old-space-size=64'];
const [MAJOR] = process.versions.node.split('.').map(Number);

/** @param {string} dir @returns {any[]} */
const findings = (dir) =>
  files(dir, /^Finding\..*\.json$/).map((file) => JSON.parse(fs.readFileSync(file, 'utf8')));

/** Nothing with a final name is empty; what was being written goes with the next start. @param {string} dir */
function assertWhole(dir) {
  for (const name of fs.readdirSync(dir)) {
    if (!name.endsWith('.part') && name !== 'leakguard.lock')
      assert.notEqual(fs.statSync(path.join(dir, name)).size, 0, name);
  }
}

/**
 * A finding near V8's limit, with its series.
 *
 * @param {any} finding
 */
function assertNearHeapLimit(finding) {
  const { nearLimit, series, sentence } = finding;
  assert.equal(nearLimit.limit, 'V8 heap limit');
  assert.ok(nearLimit.usedBytes > 0.7 * nearLimit.bytes, sentence);
  assert.ok(nearLimit.bytes >= 60 * MB && nearLimit.bytes <= 70 * MB, sentence);
  assert.match(sentence, /^the V8 heap limit is near: .* of .* used/);
  assert.equal(series[0].id, 'live_heap');
  assert.ok(series[0].points.length > 0);
  assert.ok(Math.abs(series[0].lastValue - nearLimit.usedBytes) < 1024, sentence);
}

// By itself: a thread that hardly gets a core may hold what others wait for.
test('V8 does not give up before a native thread that hardly gets a core has said so', async (t) => {
  if (!fs.existsSync('/usr/bin/taskset')) {
    t.skip('taskset is not installed (Debian: util-linux)');
    return;
  }
  const dir = directory(t);
  const { app, ready } = await start(dir, {
    node: '/usr/bin/taskset',
    execArgv: ['--cpu-list', '0', process.execPath, ...SMALL_HEAP],
    // Waited for as long as a reading may stop the loop.
    env: { LEAKGUARD_MAX_GC_PAUSE: '20s' },
  });
  const tasks = `/proc/${app.child.pid}/task`;
  const native = fs
    .readdirSync(tasks)
    .find((tid) => fs.readFileSync(`${tasks}/${tid}/comm`, 'utf8') === 'leakguard\n');
  execFileSync('chrt', ['--idle', '--pid', '0', String(native)]);
  const other = spawn('taskset', ['--cpu-list', '0', process.execPath, '-e', 'for (;;);']);
  t.after(() => other.kill('SIGKILL'));
  act(app, 'runaway');
  await app.exit;
  const [finding] = findings(dir);
  assertNearHeapLimit(finding);
  const { readings } = readRun(ready.recorder.path);
  assert.ok(
    readings.some((/** @type {any} */ one) => one.what.live_bytes === finding.nearLimit.usedBytes),
  );
});

describe('near the end', { concurrency: 2 }, () => {
  for (const contained of [false, true]) {
    const where = contained ? 'in a container of 256 MB' : 'without a container';
    test(`a loop that never returns leaves finding and series, ${where}`, async (t) => {
      const group = contained ? container(t, 256 * MB) : { node: process.execPath, kills: () => 0 };
      if (group === null) return;
      const dir = directory(t);
      // Whatever the cooldown: the second run's finding is of the same series.
      for (const deaths of [1, 2]) {
        const { app, ready } = await start(dir, {
          node: group.node,
          execArgv: SMALL_HEAP,
          // A window that has the first reading within seconds; nothing is judged by growth before the end.
          env: {
            LEAKGUARD_SNAPSHOT: 'auto',
            LEAKGUARD_WINDOW: '32s',
            LEAKGUARD_GROWTH_RATE: '1MB/min',
          },
        });
        act(app, 'runawayOnceRead');
        const { code } = await app.exit;
        const diedAt = Date.now();
        assert.notEqual(code, 0);
        assert.equal(group.kills(), 0, 'V8 gave up, and the container was not full');

        assertWhole(dir);
        const found = findings(dir);
        assert.equal(found.length, deaths);
        assertNearHeapLimit(found.at(-1));
        const run = readRun(ready.recorder.path);
        const last = run.samples.at(-1);
        assert.ok(diedAt - (run.header.started_unix_ms + last.atMs) <= 2000);
        const kinds = run.events.map((/** @type {any} */ event) => event.what.kind);
        assert.ok(kinds.includes('finding'), kinds.join());
        assert.ok(run.readings.length > 2, `${run.readings.length} readings`);
      }
      // The next start completes it.
      const next = await start(dir);
      act(next.app, 'exit', 0);
      await next.app.exit;
      for (const finding of findings(dir)) {
        assert.equal(finding.postmortem.verdict, 'near_limit', finding.postmortem.sentence);
        const pending = finding.evidence.filter(
          (/** @type {any} */ one) => one.state === 'pending',
        );
        assert.deepEqual(pending, []);
      }
    });
  }

  test('an app that leaks to the limit says so while it still answers', async (t) => {
    const dir = directory(t);
    const run = await start(dir, { execArgv: SMALL_HEAP });
    act(run.app, 'leak', 2000);
    const finding = await heard(run, 'finding');
    assertNearHeapLimit(finding);
    assert.ok(finding.nearLimit.loopSilentMs < 3000);
    await run.app.exit;
    const [written, ...others] = findings(dir);
    assert.deepEqual(others, []);
    assert.equal(written.id, finding.id);
    assert.ok(runFiles(dir).length > 0);
  });

  test('an app that fills its caches and stays there says nothing', async (t) => {
    const dir = directory(t);
    const { app, messages } = await start(dir, { execArgv: SMALL_HEAP });
    act(app, 'fill', 35 * MB);
    const filled = await app.message((message) => message.filled, 60_000, 'it was full');
    assert.ok(filled.heapUsed > 30 * MB);
    const { samples } = filled.recorder;
    act(app, 'answerAfterSamples', samples + 3);
    await app.message((message) => message.sampled, 60_000, 'three more samples');
    assert.deepEqual(
      messages.filter((message) => message.finding),
      [],
    );
    act(app, 'exit', 0);
    await app.exit;
  });

  test('Node writes the allocations of a loop that never returns, and its file comes home', async (t) => {
    if (MAJOR < 26) {
      t.skip('v8.setHeapProfileNearHeapLimit came with Node 26');
      return;
    }
    const dir = directory(t);
    const cwd = fs.mkdtempSync(path.join(dir, 'cwd-'));
    const { app } = await start(dir, {
      execArgv: [...SMALL_HEAP, `--diagnostic-dir=${cwd}`],
      env: {
        LEAKGUARD_WINDOW: '10s',
        LEAKGUARD_WARMUP: '0s',
        LEAKGUARD_CONFIRM: '10',
        LEAKGUARD_GROWTH_RATE: '4MB/min',
        LEAKGUARD_GC_SHARE: '20%',
        LEAKGUARD_MAX_GC_PAUSE: '20s',
        LEAKGUARD_INTERVAL: '100ms',
      },
    });
    act(app, 'leak', 60);
    act(app, 'runawayOnceSampled');
    await app.exit;
    const next = await start(dir);
    act(next.app, 'exit', 0);
    await next.app.exit;
    assert.deepEqual(fs.readdirSync(cwd), []);
    const [finding] = findings(dir);
    const step = finding.evidence.find((/** @type {any} */ one) => one.kind === 'profile_at_limit');
    assert.equal(step?.state, 'written', JSON.stringify(finding.evidence));
    const profile = fs.readFileSync(path.join(dir, step.file), 'utf8');
    assert.match(profile, /"functionName":"leak"/);
    JSON.parse(profile);
  });
});
