'use strict';

// Processes that die in every way, and what the recorder and the next start say of it.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const {
  DEADLINE_MS,
  INTERVAL_MS,
  act,
  directory,
  heard,
  readRun,
  runFiles,
  start,
} = require('./ending.js');

const SMALL_HEAP = ['--max-old-space-size=64'];

/**
 * The death of the app, and its recorder's file read back.
 *
 * @param {Awaited<ReturnType<typeof start>>} run
 */
async function death({ app, ready }) {
  const exit = await app.exit;
  const diedAt = Date.now();
  const run = readRun(ready.recorder.path);
  const last = run.samples.at(-1);
  const mark = run.events.find((/** @type {any} */ event) => event.what.kind === 'exit') ?? null;
  return {
    exit,
    run,
    mark: mark?.what ?? null,
    agedMs: diedAt - (run.header.started_unix_ms + last.atMs),
  };
}

/** What the next start in the directory knows of the one run before. @param {string} dir */
async function nextStart(dir) {
  const next = await start(dir);
  const [known] = next.ready.previousRuns;
  act(next.app, 'exit', 0);
  await next.app.exit;
  return {
    known,
    told: next.messages.filter((message) => message.postmortem),
    stderr: next.app.stderr,
  };
}

/**
 * @typedef {object} Ending
 * @property {string} name
 * @property {(run: Awaited<ReturnType<typeof start>>) => void} end
 * @property {string[]} [execArgv]
 * @property {{ code: number | null, signal: string | null } | null} exit null: by whichever signal or code V8 ends
 * @property {{ code: number, reason: string } | null} mark
 * @property {string} verdict
 */

/** @type {Ending[]} */
const ENDINGS = [
  {
    name: 'kill -9',
    end: ({ app }) => void app.child.kill('SIGKILL'),
    exit: { code: null, signal: 'SIGKILL' },
    mark: null,
    verdict: 'cut_off',
  },
  {
    name: 'SIGTERM without a handler',
    end: ({ app }) => void app.child.kill('SIGTERM'),
    exit: { code: null, signal: 'SIGTERM' },
    mark: null,
    verdict: 'cut_off',
  },
  {
    name: 'process.abort()',
    end: ({ app }) => act(app, 'abort'),
    exit: { code: null, signal: 'SIGABRT' },
    mark: null,
    verdict: 'cut_off',
  },
  {
    name: 'the natural end',
    end: ({ app }) => act(app, 'end'),
    exit: { code: 0, signal: null },
    mark: { code: 0, reason: 'end' },
    verdict: 'orderly',
  },
  {
    name: 'process.exit(0)',
    end: ({ app }) => act(app, 'exit', 0),
    exit: { code: 0, signal: null },
    mark: { code: 0, reason: 'exit' },
    verdict: 'orderly',
  },
  {
    name: 'process.exit(3)',
    end: ({ app }) => act(app, 'exit', 3),
    exit: { code: 3, signal: null },
    mark: { code: 3, reason: 'exit' },
    verdict: 'failed',
  },
  {
    name: 'an uncaught exception',
    end: ({ app }) => act(app, 'throw'),
    exit: { code: 1, signal: null },
    mark: { code: 1, reason: 'exit' },
    verdict: 'failed',
  },
  {
    name: "V8's fatal out-of-memory",
    execArgv: SMALL_HEAP,
    end: ({ app }) => act(app, 'leak', 5000),
    exit: null,
    mark: null,
    verdict: 'near_limit',
  },
  {
    name: 'a runaway synchronous loop',
    execArgv: SMALL_HEAP,
    end: ({ app }) => act(app, 'runaway'),
    exit: null,
    mark: null,
    verdict: 'near_limit',
  },
];

describe('an ending', { concurrency: 3 }, () => {
  for (const { name, end, execArgv, exit, mark, verdict } of ENDINGS) {
    test(`by ${name} is recorded up to it, and the next start says what is known`, async (t) => {
      const dir = directory(t);
      const run = await start(dir, { execArgv });
      end(run);
      const died = await death(run);
      if (exit !== null) assert.deepEqual(died.exit, exit);
      else assert.notEqual(died.exit.code, 0);
      assert.deepEqual(died.mark && { code: died.mark.code, reason: died.mark.reason }, mark);
      assert.ok(
        died.agedMs <= 2 * INTERVAL_MS,
        `the last sample was ${died.agedMs} ms before the death`,
      );
      assert.equal(died.run.tornRecords, 0);

      const { known, told, stderr } = await nextStart(dir);
      assert.equal(known.verdict, verdict, known.sentence);
      assert.equal(known.pid, run.app.pid);
      assert.equal(told.length, verdict === 'orderly' ? 0 : 1);
      // Only a death that memory may explain is worth a line.
      assert.equal(/previous run/.test(stderr), verdict === 'near_limit', stderr);
      if (verdict === 'near_limit')
        assert.match(known.sentence, /ended without exit at .* of V8's old space/);

      const again = await nextStart(dir);
      assert.equal(again.told.length, 0, 'a run is told once');
    });
  }
});

test('an app without listeners of its own on process has none of ours', async (t) => {
  const script = `require(${JSON.stringify(path.join(__dirname, '..'))});
    console.log(JSON.stringify(process.eventNames().map(String)));`;
  const env = { ...process.env, LEAKGUARD_DIR: directory(t) };
  const { stdout } = spawnSync(process.execPath, ['-e', script], { env, encoding: 'utf8' });
  const names = JSON.parse(stdout);
  for (const name of ['exit', 'beforeExit', 'uncaughtException', 'SIGTERM']) {
    assert.ok(!names.includes(name), name);
  }
});

describe('across runs', { concurrency: 2 }, () => {
  test('the same growth to the limit in three runs is one finding, completed when its run dies', async (t) => {
    const dir = directory(t);
    for (let death = 1; death <= 3; death++) {
      const { app, messages } = await start(dir, { execArgv: SMALL_HEAP });
      act(app, 'leak', 2000);
      await app.exit;
      // What each says near its end is no verdict of growth.
      const judged = messages.filter(({ finding }) => finding && finding.nearLimit === null);
      assert.deepEqual(judged, [], `run ${death}`);
    }
    const { app, messages } = await start(dir, { execArgv: SMALL_HEAP });
    const finding = await heard({ app, messages }, 'finding');
    assert.match(finding.sentence, /^the live heap grows in each of the last 3 runs until it ends/);
    assert.equal(finding.runs.length, 3);
    assert.equal(finding.series[0].id, 'live_heap');
    assert.ok(finding.series[0].slopePerHour > 0);
    assert.equal(finding.evidence[0].state, 'pending');
    app.child.kill('SIGKILL');
    await app.exit;

    const { known } = await nextStart(dir);
    assert.equal(known.findingFiles.length, 1);
    const completed = JSON.parse(fs.readFileSync(finding.path, 'utf8'));
    assert.equal(completed.id, finding.id);
    assert.equal(completed.postmortem.verdict, 'cut_off');
    assert.equal(completed.evidence[0].state, 'failed');
  });

  test('restarts by SIGTERM far from the limit are nothing', async (t) => {
    const dir = directory(t);
    for (let restart = 1; restart <= 5; restart++) {
      const { app, messages } = await start(dir);
      act(app, 'leak', 500);
      act(app, 'status');
      await app.message((message) => message.status, DEADLINE_MS, 'its status');
      app.child.kill('SIGTERM');
      await app.exit;
      assert.deepEqual(
        messages.filter((message) => message.finding),
        [],
      );
      assert.equal(app.stderr, '');
    }
  });
});

test('eight processes in one directory: each run is looked at by one of the next', async (t) => {
  const dir = directory(t);
  const env = { LEAKGUARD_INTERVAL: '200ms' };
  const first = await Promise.all(Array.from({ length: 8 }, () => start(dir, { env })));
  assert.equal(new Set(first.map(({ ready }) => ready.recorder.path)).size, 8);
  assert.ok(
    first.every(({ ready }) => ready.previousRuns.length === 0),
    'running ones are left alone',
  );
  for (const { app } of first) app.child.kill('SIGKILL');
  await Promise.all(first.map(({ app }) => app.exit));
  for (const file of runFiles(dir))
    assert.equal(readRun(file, 1).header.app_version !== undefined, true);

  const second = await Promise.all(Array.from({ length: 4 }, () => start(dir, { env })));
  const told = second.flatMap(({ ready }) =>
    ready.previousRuns.map((/** @type {any} */ run) => run.pid),
  );
  assert.deepEqual(told.sort(), first.map(({ app }) => app.pid).sort());
  for (const { app } of second) act(app, 'exit', 0);
  await Promise.all(second.map(({ app }) => app.exit));
});

describe('the app is unharmed', { concurrency: 3 }, () => {
  test('when its recorder is truncated, and the file is whole again within a minute', async (t) => {
    const dir = directory(t);
    const { app, ready } = await start(dir, { env: { LEAKGUARD_INTERVAL: '200ms' } });
    fs.truncateSync(ready.recorder.path, 5000);
    act(app, 'status');
    await app.message((message) => message.status, DEADLINE_MS, 'its status');
    act(app, 'exit', 0);
    assert.deepEqual(await app.exit, { code: 0, signal: null });
    const run = readRun(ready.recorder.path);
    assert.ok(run.tornRecords + run.missingRecords + run.samples.length > 0);
    const { known } = await nextStart(dir);
    assert.ok(known !== undefined);
  });

  test('when the directory cannot be one', async (t) => {
    const dir = path.join(directory(t), 'file');
    fs.writeFileSync(dir, '');
    const { app, ready } = await start(dir);
    // The guard says where it went instead; the recorder goes with it.
    assert.notEqual(path.dirname(ready.recorder.path ?? ''), dir);
    act(app, 'exit', 0);
    assert.deepEqual(await app.exit, { code: 0, signal: null });
    if (ready.recorder.path !== null) fs.rmSync(ready.recorder.path, { force: true });
  });

  test('when the quota has no room for a recorder, and status() says so', async (t) => {
    const { app, ready } = await start(directory(t), { env: { LEAKGUARD_MAX_DISK: '4MB' } });
    assert.equal(ready.recorder.path, null);
    assert.match(ready.recorder.problem, /LEAKGUARD_MAX_DISK/);
    act(app, 'exit', 0);
    assert.deepEqual(await app.exit, { code: 0, signal: null });
  });

  test('when the disk is full', { skip: notRoot() }, async (t) => {
    const dir = path.join(directory(t), 'full');
    fs.mkdirSync(dir);
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', dir]).status, 0);
    try {
      await fullDisk(dir);
    } finally {
      spawnSync('umount', [dir]);
    }
  });
});

/** @param {string} dir */
async function fullDisk(dir) {
  const { app, ready } = await start(dir);
  assert.equal(ready.recorder.path, null);
  assert.match(ready.recorder.problem, /the disk space left is/);
  act(app, 'exit', 0);
  assert.deepEqual(await app.exit, { code: 0, signal: null });
}

/** @returns {string | false} why a test that needs root is left out */
function notRoot() {
  return process.platform === 'linux' && process.getuid?.() === 0 ? false : 'needs root on Linux';
}

/** A memory cgroup of 256 MB, or why there is none. */
function memoryCgroup() {
  const root = ['/sys/fs/cgroup/memory', '/sys/fs/cgroup'].find((folder) =>
    fs.existsSync(path.join(folder, 'cgroup.procs')),
  );
  const why = notRoot() || (root === undefined && 'there is no memory cgroup');
  if (why || root === undefined) return { why, folder: '' };
  const folder = path.join(root, `leakguard-test-${process.pid}`);
  const bytes = String(256 * 1024 * 1024);
  try {
    fs.mkdirSync(folder);
    for (const file of ['memory.limit_in_bytes', 'memory.max']) {
      if (fs.existsSync(path.join(folder, file))) {
        fs.writeFileSync(path.join(folder, file), bytes);
        return { why: false, folder };
      }
    }
  } catch (error) {
    return { why: `a memory cgroup cannot be made: ${error}`, folder: '' };
  }
  fs.rmdirSync(folder);
  return { why: 'the memory controller is not on', folder: '' };
}

test('the OOM killer of a container is told by the figures, not by name', {
  skip: notRoot(),
}, async (t) => {
  const { why, folder } = memoryCgroup();
  if (why) return t.skip(String(why));
  t.after(() => fs.rmdirSync(folder));
  const dir = directory(t);
  const join = path.join(dir, 'join.js');
  fs.writeFileSync(
    join,
    `require('fs').writeFileSync(${JSON.stringify(path.join(folder, 'cgroup.procs'))}, String(process.pid))`,
  );
  const run = await start(dir, { execArgv: ['-r', join] });
  act(run.app, 'buffers', 512 * 1024);
  const died = await death(run);
  assert.deepEqual(died.exit, { code: null, signal: 'SIGKILL' });
  assert.ok(
    died.agedMs <= 2 * INTERVAL_MS,
    `the last sample was ${died.agedMs} ms before the death`,
  );
  const { known, stderr } = await nextStart(dir);
  assert.equal(known.verdict, 'near_limit', known.sentence);
  assert.equal(known.uses[0].limit, 'container');
  assert.equal(known.sameContainer, false);
  assert.match(stderr, /ended without exit at \d+ MB of 256 MB/);
  assert.doesNotMatch(stderr, /OOM/);
});

test('kills at random moments leave no unreadable file', async (t) => {
  const dir = directory(t);
  const kills = Number(process.env.LEAKGUARD_TEST_KILLS) || 12;
  const script = path.join(__dirname, 'apps', 'ending.js');
  const { spawn } = require('node:child_process');
  let torn = 0;
  for (let done = 0; done < kills; done++) {
    const env = {
      ...process.env,
      LEAKGUARD_DIR: dir,
      LEAKGUARD_INTERVAL: '100ms',
      LEAKGUARD_LOG: 'silent',
    };
    const child = spawn(process.execPath, [script], { env, stdio: 'ignore' });
    const killer = setTimeout(() => child.kill('SIGKILL'), 50 + Math.random() * 700);
    await once(child, 'exit');
    clearTimeout(killer);
    for (const file of runFiles(dir)) torn += readRun(file, 1).tornRecords;
  }
  t.diagnostic(`${kills} kills, ${torn} torn records`);
  assert.deepEqual(
    fs.readdirSync(dir).filter((name) => name.endsWith('.json')),
    [],
  );
});
