'use strict';

// LEAKGUARD_ANALYZE with real processes: what the analysis of a new snapshot adds, what it is started with, and
// that it neither outlives the app nor shows in it. test/leaks.test.js looks at whether it names the leak.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { DEADLINE_MS, act, directory, heard, start } = require('./ending.js');
const { container, parseSnapshot } = require('./program.js');

const linux = process.platform === 'linux' ? false : 'needs /proc';
const SETTINGS = {
  LEAKGUARD_SNAPSHOT: 'inline',
  LEAKGUARD_INTERVAL: '200ms',
  LEAKGUARD_MAX_SNAPSHOTS: '100',
  LEAKGUARD_ANALYZE: 'auto',
};

/**
 * Looks again and again until there is an answer: at /proc, and at `status()`, which nobody announces. What is
 * announced is `heard()`.
 *
 * @template T
 * @param {string} what
 * @param {() => T | undefined | Promise<T | undefined>} look
 * @returns {Promise<T>}
 */
async function until(what, look) {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** @param {string} file @returns {string} empty if the process has gone */
function read(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Pids of the children of a process, zombies too. @param {number} pid */
function children(pid) {
  const pids = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter(
    (child) => read(`/proc/${child}/stat`).split(') ')[1]?.split(' ')[1] === `${pid}`,
  );
}

/** @param {{ app: import('./ending.js').App, messages: any[] }} run @returns {Promise<any>} */
async function status({ app, messages }) {
  messages.splice(0, messages.length, ...messages.filter((message) => !message.status));
  act(app, 'status');
  return heard({ app, messages }, 'status');
}

/**
 * An analysis that has begun to read its snapshot, stopped there.
 *
 * @param {{ app: import('./ending.js').App, messages: any[] }} run
 */
async function stoppedAnalysis(run) {
  act(run.app, 'snapshot');
  return until('an analysis that can be stopped', () => {
    if (run.messages.some((message) => message.analysis)) {
      // It was too quick for us: another one.
      run.messages.length = 0;
      act(run.app, 'snapshot');
    }
    for (const pid of children(run.app.pid)) {
      // It reads for some milliseconds only: no turn of the loop may come between. A zombie has no maps.
      let maps = read(`/proc/${pid}/maps`);
      while (maps !== '' && !maps.includes('.heapsnapshot')) maps = read(`/proc/${pid}/maps`);
      if (maps === '') continue;
      process.kill(Number(pid), 'SIGSTOP');
      // Stopped before its end, unless it has become a zombie meanwhile.
      if (read(`/proc/${pid}/stat`).split(') ')[1]?.[0] !== 'Z') return Number(pid);
    }
    return undefined;
  });
}

describe('the analysis of a snapshot', { concurrency: 2 }, () => {
  test('is an event and in status(), and leaves nothing behind', { skip: linux }, async (t) => {
    const dir = directory(t);
    // Whoever loads this says so: the app does, and the analysis must not.
    const witness = path.join(dir, 'witness.js');
    fs.writeFileSync(
      witness,
      `require('node:fs').appendFileSync(${JSON.stringify(path.join(dir, 'loaded'))}, process.pid + '\\n')`,
    );
    const evidence = path.join(dir, 'evidence');
    const env = { ...SETTINGS, NODE_OPTIONS: `--require ${witness}`, NODE_V8_COVERAGE: '' };
    const run = await start(evidence, { env });
    const before = (await status(run)).process.series;
    act(run.app, 'snapshot');
    const answer = await heard(run, 'answer');
    const analysis = await heard(run, 'analysis');
    assert.equal(analysis.path, answer.path);
    assert.equal(analysis.finding, null);
    assert.equal(analysis.against, null);
    assert.equal(typeof analysis.sentence, 'string');
    assert.ok(analysis.peakMemoryBytes > 0);
    const after = await status(run);
    assert.deepEqual(after.analyses, [analysis]);
    assert.deepEqual(after.analyzer, { running: null, waiting: 0, problem: null });
    // The last sample may be from the moment in which it ended.
    await until('as many descriptors and threads as before', async () => {
      const { fds, threads } = (await status(run)).process.series;
      return fds.last === before.fds.last && threads.last === before.threads.last
        ? true
        : undefined;
    });
    assert.deepEqual(children(run.app.pid), []);
    assert.deepEqual(
      fs.readdirSync(evidence).filter((name) => /\.(json|part)$/.test(name)),
      [],
    );
    assert.equal(read(path.join(dir, 'loaded')), `${run.app.pid}\n`);
    act(run.app, 'exit', 7);
    assert.deepEqual(await run.app.exit, { code: 7, signal: null });
    assert.equal(run.app.stdout, '');
  });

  test('is of the lowest priority and the first to be killed', { skip: linux }, async (t) => {
    const run = await start(path.join(directory(t), 'evidence'), { env: SETTINGS });
    const pid = await stoppedAnalysis(run);
    // The fields after the name, from the state on: nice is the 17th.
    assert.equal(read(`/proc/${pid}/stat`).split(') ')[1].split(' ')[16], '19');
    assert.equal(read(`/proc/${pid}/oom_score_adj`), '1000\n');
    const variables = read(`/proc/${pid}/environ`).split('\0');
    assert.deepEqual(
      variables.filter((variable) => /^(LEAKGUARD|NODE_)/.test(variable)),
      ['LEAKGUARD=off'],
    );
    // Killed from outside, it is a refusal with its reason, and the snapshot stays.
    process.kill(pid, 'SIGKILL');
    await heard(run, 'refused');
    const { analyses, refusals } = await status(run);
    assert.ok(analyses.every((/** @type {any} */ one) => one.sentence));
    const [{ kind, reason, sentence }] = refusals;
    assert.deepEqual(
      { kind, reason, sentence },
      {
        kind: 'analysis',
        reason: 'failed',
        sentence: 'it was killed',
      },
    );
    act(run.app, 'exit', 0);
    assert.deepEqual(await run.app.exit, { code: 0, signal: null });
  });

  for (const [how, end] of /** @type {const} */ ([
    ['exits', (/** @type {any} */ app) => act(app, 'exit', 0)],
    ['is killed', (/** @type {any} */ app) => app.child.kill('SIGKILL')],
  ])) {
    test(`ends with an app that ${how}`, { skip: linux }, async (t) => {
      const dir = path.join(directory(t), 'evidence');
      const run = await start(dir, { env: SETTINGS });
      const pid = await stoppedAnalysis(run);
      end(run.app);
      await run.app.exit;
      await until('the end of the analysis', () => {
        const stat = read(`/proc/${pid}/stat`);
        // A zombie until the machine's init takes it.
        return stat === '' || stat.includes(') Z ') ? true : undefined;
      });
      assert.deepEqual(
        fs.readdirSync(dir).filter((name) => name.endsWith('.part')),
        [],
      );
    });
  }

  test('is ended by stopping the guard', { skip: linux }, async (t) => {
    const run = await start(path.join(directory(t), 'evidence'), { env: SETTINGS });
    const pid = await stoppedAnalysis(run);
    act(run.app, 'stop');
    await until('the end of the analysis', () =>
      read(`/proc/${pid}/stat`) === '' ? true : undefined,
    );
    act(run.app, 'exit', 0);
    assert.deepEqual(await run.app.exit, { code: 0, signal: null });
  });

  test('is ended when memory runs short for the app', async (t) => {
    const group = container(t, 200 << 20);
    if (group === null) return;
    const run = await start(path.join(directory(t), 'evidence'), {
      node: group.node,
      env: { ...SETTINGS, LEAKGUARD_MAX_PAUSE: '1h' },
    });
    const pid = await stoppedAnalysis(run);
    // 12 MB/s: slow enough for the guard, which looks five times a second, to see it before the kernel does.
    act(run.app, 'buffers', 256 << 10);
    // Near the limit a snapshot is refused as well.
    const refusal = await heard(run, 'refused', ({ kind }) => kind === 'analysis');
    act(run.app, 'exit', 0);
    assert.deepEqual(await run.app.exit, { code: 0, signal: null });
    assert.equal(refusal.reason, 'memory');
    assert.match(
      refusal.sentence,
      /^memory ran short for the app: \d+ MiB were left below the cgroup /,
    );
    assert.equal(read(`/proc/${pid}/stat`), '');
    assert.equal(group.kills(), 0);
  });

  test('is not begun where there is no memory for it, and the next one is when there is', async (t) => {
    const MB = 1 << 20;
    const roomy = 512 * MB;
    const group = container(t, roomy);
    if (group === null) return;
    const run = await start(path.join(directory(t), 'evidence'), {
      node: group.node,
      env: { ...SETTINGS, LEAKGUARD_MAX_PAUSE: '1h' },
    });
    const pid = await stoppedAnalysis(run);
    // The next waits for it, and is begun when it has ended.
    act(run.app, 'snapshot');
    const waiting = await until('a snapshot that waits', async () => {
      const now = await status(run);
      return now.analyzer.waiting === 1 ? now : undefined;
    });
    const file = waiting.snapshots.at(-1).path;
    // An analysis of the smallest heap states 100 MB. What the stopped one gives back does not make up for it, and what
    // is left to the app is enough not to end it before we do.
    const page = 4096;
    const limit = Math.ceil((waiting.process.containerUsedBytes + 40 * MB) / page) * page;
    group.limit(limit);
    await until('a sample of the new limit', async () =>
      (await status(run)).process.containerLimitBytes === limit ? true : undefined,
    );
    process.kill(pid, 'SIGKILL');
    const refused = await heard(run, 'refused', ({ reason }) => reason === 'memory');
    assert.equal(refused.kind, 'analysis');
    assert.equal(refused.unit, 'bytes');
    assert.match(
      refused.sentence,
      /^the analysis takes \d+ MiB, which exceeds the \d+(\.\d+)? MiB left below the cgroup limit of \d+ MiB, \d+ MiB of margin kept; a limit of \d+ MiB would have sufficed$/,
    );
    assert.ok(refused.needed > refused.available, refused.sentence);
    assert.ok(refused.sufficient > limit, refused.sentence);
    const after = await status(run);
    assert.deepEqual(after.refusals.at(-1), refused);
    assert.deepEqual(after.analyzer, { running: null, waiting: 0, problem: null });
    assert.deepEqual(children(run.app.pid), []);
    assert.ok(after.analyses.every((/** @type {any} */ one) => one.path !== file));
    // The snapshot is there, whole.
    assert.ok(parseSnapshot(file).nodeCount > 0);
    assert.equal(after.snapshots.at(-1).path, file);

    // With room again the next one is analysed as ever.
    group.limit(roomy);
    await until('a sample of the old limit', async () =>
      (await status(run)).process.containerLimitBytes === roomy ? true : undefined,
    );
    run.messages.length = 0;
    act(run.app, 'snapshot');
    const next = await heard(run, 'answer');
    const analysis = await heard(run, 'analysis');
    assert.equal(analysis.path, next.path);
    act(run.app, 'exit', 0);
    assert.deepEqual(await run.app.exit, { code: 0, signal: null });
    assert.equal(group.kills(), 0);
  });

  test('is not made when it is switched off', async (t) => {
    const env = { ...SETTINGS, LEAKGUARD_ANALYZE: 'off' };
    const run = await start(path.join(directory(t), 'evidence'), { env });
    act(run.app, 'snapshot');
    await heard(run, 'answer');
    const { analyses, analyzer, snapshots } = await status(run);
    assert.equal(snapshots.length, 1);
    assert.deepEqual(analyses, []);
    assert.deepEqual(analyzer, { running: null, waiting: 0, problem: null });
    act(run.app, 'exit', 0);
    assert.deepEqual(await run.app.exit, { code: 0, signal: null });
  });
});
