'use strict';

// Worker threads: each has its own series under the one native thread, and comes and goes as it likes.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { ask, run } = require('./program.js');

/** Counts the native threads of this process, by name. */
const THREADS = `
  const threads = () => require('node:fs').readdirSync('/proc/self/task').filter((id) => {
    try { return require('node:fs').readFileSync('/proc/self/task/' + id + '/comm', 'utf8').trim() === 'leakguard'; }
    catch { return false; }
  }).length;`;

test('a hundred workers are terminated at any moment, and the app lives', async (t) => {
  const source = `
    const { Worker, isMainThread, workerData, parentPort } = require('node:worker_threads');
    const leakguard = require(process.env.GUARD);
    ${THREADS}
    if (!isMainThread) {
      globalThis.keep = Array.from({ length: 20000 }, (_, i) => ({ i }));
      if (workerData % 3 === 0) leakguard.snapshot();
      if (workerData % 3 === 1) until(() => leakguard.status().isolates.length).then(() => parentPort.postMessage('up'));
      else parentPort.postMessage('up');
      setInterval(() => {}, 1000);
    } else (async () => {
      for (let i = 0; i < 100; i++) {
        const worker = new Worker(__filename, { workerData: i });
        await new Promise((resolve) => worker.once('message', resolve));
        // Now, at the next turn, or a few turns of the loop later.
        for (let turn = i % 5; turn > 0; turn--) await new Promise(setImmediate);
        await worker.terminate();
      }
      const status = await until(() => { const s = leakguard.status(); return s.isolates.length === 1 && s; });
      const alive = setInterval(() => {}, 1000);
      const taken = (await leakguard.snapshot()).path !== undefined;
      clearInterval(alive);
      process.stdout.write(JSON.stringify({ threads: threads(), failure: status.failure, refusals: status.refusals, taken }));
    })();`;
  const { report } = await ask(t, source, {
    env: {
      LEAKGUARD_LOG: 'silent',
      LEAKGUARD_MAX_SNAPSHOTS: '1000',
      LEAKGUARD_SNAPSHOT: 'inline',
      LEAKGUARD_ANALYZE: 'off',
    },
  });
  assert.equal(report.threads, 1);
  assert.equal(report.failure, null);
  assert.equal(report.taken, true, JSON.stringify(report.refusals.at(-1)));
});

test('64 workers at once have their own series, and the process is judged once', async (t) => {
  const source = `
    const { Worker, isMainThread, threadId } = require('node:worker_threads');
    const leakguard = require(process.env.GUARD);
    ${THREADS}
    if (!isMainThread) { setInterval(() => {}, 1000); return; }
    const workers = Array.from({ length: 64 }, () => new Worker(__filename));
    (async () => {
      const status = await until(() => {
        const s = leakguard.status();
        return s.isolates.length === 65 && s.isolates.every((one) => one.series.heap_used) && s;
      });
      await Promise.all(workers.map((worker) => worker.terminate()));
      const later = await until(() => { const s = leakguard.status(); return s.isolates.length === 1 && s; });
      process.stdout.write(JSON.stringify({
        threads: threads(),
        tids: status.isolates.map((one) => one.tid).sort((a, b) => a - b),
        ids: new Set(status.isolates.map((one) => one.id)).size,
        process: Object.keys(status.process.series),
        isolate: Object.keys(status.isolates[5].series),
        left: later.isolates[0].tid,
      }));
    })();`;
  const { report } = await ask(t, source);
  assert.equal(report.threads, 1);
  assert.deepEqual(
    report.tids,
    Array.from({ length: 65 }, (_, tid) => tid),
  );
  assert.equal(report.ids, 65);
  assert.equal(report.left, 0);
  for (const series of ['rss', 'fds', 'threads', 'native']) {
    assert.ok(report.process.includes(series), series);
    assert.ok(!report.isolate.includes(series), series);
  }
  for (const series of ['heap_used', 'handles', 'listeners']) {
    assert.ok(report.isolate.includes(series), series);
    assert.ok(!report.process.includes(series), series);
  }
});

test('the app survives when only a worker loads the guard and ends, again and again', async (t) => {
  const source = `
    const { Worker, isMainThread, parentPort } = require('node:worker_threads');
    ${THREADS}
    if (!isMainThread) {
      const leakguard = require(process.env.GUARD);
      until(() => leakguard.status().isolates.length === 1).then(() => { parentPort.postMessage('up'); setInterval(() => {}, 1000); });
      return;
    }
    (async () => {
      for (let i = 0; i < 12; i++) {
        const worker = new Worker(__filename);
        await new Promise((resolve) => worker.once('message', resolve));
        await worker.terminate();
        // The native thread goes with the last isolate: its code must still be mapped while it does.
        await until(() => threads() === 0);
      }
      process.stdout.write(JSON.stringify({ threads: threads() }));
    })();`;
  const { report, stderr } = await ask(t, source);
  assert.equal(report.threads, 0);
  assert.equal(stderr, '');
});

test('a worker that goes as another comes leaves that one guarded', async (t) => {
  const source = `
    const { Worker, isMainThread, parentPort } = require('node:worker_threads');
    if (!isMainThread) {
      const leakguard = require(process.env.GUARD);
      until(() => leakguard.status().isolates.some((one) => one.tid === require('node:worker_threads').threadId))
        .then(() => { parentPort.postMessage('guarded'); setInterval(() => {}, 1000); });
      return;
    }
    const start = () => {
      const worker = new Worker(__filename);
      return { worker, guarded: new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); }) };
    };
    (async () => {
      let old = start();
      await old.guarded;
      for (let i = 0; i < 25; i++) {
        const next = start();
        old.worker.terminate();
        await next.guarded;
        old = next;
      }
      await old.worker.terminate();
      process.stdout.write('{}');
    })();`;
  await ask(t, source);
});

test('a worker that floods the guard with questions is let go all the same', async (t) => {
  const source = `
    const { Worker, isMainThread } = require('node:worker_threads');
    const leakguard = require(process.env.GUARD);
    if (!isMainThread) {
      for (let i = 0; i < 5000; i++) leakguard.snapshot();
      process.exit(0);
    }
    (async () => {
      for (let i = 0; i < 5; i++) {
        const worker = new Worker(__filename);
        await new Promise((resolve) => worker.once('exit', resolve));
      }
      await until(() => leakguard.status().isolates.length === 1);
      process.stdout.write('{}');
    })();`;
  await ask(t, source, { env: { LEAKGUARD_LOG: 'silent' } });
});

test('a worker ends by itself with its own exit code', async (t) => {
  const source = `
    const { Worker, isMainThread } = require('node:worker_threads');
    require(process.env.GUARD);
    if (!isMainThread) { process.exitCode = 4; return; }
    new Worker(__filename).once('exit', (code) => console.log('worker', code));`;
  const { code, stdout, stderr } = await run(t, source);
  assert.deepEqual([code, stdout, stderr], [0, 'worker 4\n', '']);
});
