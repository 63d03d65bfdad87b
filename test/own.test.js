'use strict';

// The guard does not count itself: the series of an idle app are those that the same app shows without the guard,
// as its parent reads them from /proc.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { ask, run, temporary } = require('./program.js');

const forks =
  process.platform === 'linux' &&
  !fs.readdirSync('/lib').some((name) => name.startsWith('ld-musl'));

/** An app with some of everything; it says when it is up and ends when it is told to. */
const APP = `
  const fs = require('node:fs');
  const net = require('node:net');
  const held = [fs.openSync(__filename), fs.openSync('/dev/null')];
  const timers = [setTimeout(() => {}, 1e6), setInterval(() => {}, 1e6), setTimeout(() => {}, 2e6)];
  globalThis.buffers = [Buffer.alloc(3e6)];
  const server = net.createServer().listen(0, '127.0.0.1');`;

/** @param {number} pid */
function fromOutside(pid) {
  const threads = fs.readdirSync(`/proc/${pid}/task`).length;
  const fds = fs.readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return fs.readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/\d+/g, 'N');
    } catch {
      return 'gone';
    }
  });
  return { threads, fds: fds.sort() };
}

test('an idle app has the same threads, descriptors, handles, timers, buffers and listeners as without', async (t) => {
  /** @type {any} */
  let alone;
  await run(
    t,
    `${APP} server.on('listening', () => fs.writeSync(1, JSON.stringify({
       arrayBuffers: process.memoryUsage().arrayBuffers,
       resources: process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length })));`,
    {
      onSpawn(child) {
        child.stdout?.once('data', (/** @type {string} */ text) => {
          alone = { ...JSON.parse(text), ...fromOutside(/** @type {number} */ (child.pid)) };
          child.kill('SIGKILL');
        });
      },
    },
  );

  const guarded = await ask(
    t,
    `const leakguard = require(process.env.GUARD); ${APP}
     for (let i = 0; i < 20; i++) leakguard.on('finding', () => {});
     (async () => {
       await until(() => leakguard.status().liveHeap?.readings > 1 && leakguard.status().isolates[0].series.array_buffers);
       // until() has a timer of its own.
       const one = await until(() => leakguard.status().isolates[0].series.timers?.last > 0 && leakguard.status());
       process.stdout.write(JSON.stringify(one), () => process.exit());
     })();`,
    { env: { LEAKGUARD_GC_SHARE: '5%' } },
  );
  const { isolates, process: whole } = guarded.report;
  assert.equal(whole.series.threads.last, alone.threads);
  assert.equal(whole.series.fds.last, alone.fds.length, alone.fds.join(' '));
  // The server; libuv's own handles are not the app's.
  assert.deepEqual(isolates[0].handles, { tcp: 1 });
  assert.equal(isolates[0].series.timers.last, alone.resources + 1);
  assert.deepEqual(isolates[0].series.listeners.top, []);
  const { last } = isolates[0].series.array_buffers;
  assert.ok(Math.abs(last - alone.arrayBuffers) < 64 * 1024, `${last} and ${alone.arrayBuffers}`);
});

test('nothing of the guard is counted while a snapshot is written inline', async (t) => {
  const { report } = await ask(
    t,
    `const leakguard = require(process.env.GUARD); ${APP}
     globalThis.keep = Array.from({ length: 60000 }, (_, i) => ({ i }));
     (async () => {
       const figures = () => { const { series } = leakguard.status().process; return series.fds && { threads: series.threads.last, fds: series.fds.last }; };
       await until(() => leakguard.status().liveHeap?.readings > 0);
       const before = await until(figures);
       const v8 = require('node:v8');
       const write = v8.writeHeapSnapshot;
       const during = [];
       let stood;
       v8.writeHeapSnapshot = (file) => {
         // The pipe and its thread are there, and the sampler goes on while this thread stands still.
         const { ticks } = leakguard.status().cost;
         while (leakguard.status().cost.ticks < ticks + 3);
         during.push(figures());
         stood = fs.readdirSync('/proc/self/task').length;
         write(file);
         const later = leakguard.status().cost.ticks;
         while (leakguard.status().cost.ticks < later + 3);
         during.push(figures());
       };
       const answer = await leakguard.snapshot();
       const after = leakguard.status().cost.ticks + 2;
       await until(() => leakguard.status().cost.ticks > after);
       process.stdout.write(JSON.stringify({ before, during, after: figures(), stood, taken: answer.path !== undefined }), () => process.exit());
     })();`,
    { env: { LEAKGUARD_SNAPSHOT: 'inline' } },
  );
  assert.equal(report.taken, true);
  for (const figures of [...report.during, report.after]) assert.deepEqual(figures, report.before);
  assert.ok(
    report.stood >= report.before.threads + 2,
    'the sampler and the sink are threads, and are not counted',
  );
});

test('nor while a snapshot is forked, analysed and handed to a hook', {
  skip: !forks,
}, async (t) => {
  const home = temporary(t);
  // In place of the analysis: it takes until the app ends.
  const analysis = path.join(home, 'analysis');
  fs.writeFileSync(analysis, '#!/bin/sh\nwhile kill -0 $PPID; do sleep 0.1; done 2> /dev/null\n', {
    mode: 0o755,
  });
  const untilGone =
    "setInterval(() => require('node:fs').existsSync(process.env.LEAKGUARD_FILE) || process.exit(), 50)";
  const { report } = await ask(
    t,
    `process.execPath = ${JSON.stringify(analysis)};
     const leakguard = require(process.env.GUARD); ${APP}
     globalThis.keep = Array.from({ length: 60000 }, (_, i) => ({ i }));
     const figures = () => { const { series } = leakguard.status().process; return series.fds && { threads: series.threads.last, fds: series.fds.last }; };
     const stand = () => ({ threads: fs.readdirSync('/proc/self/task').length, fds: fs.readdirSync('/proc/self/fd').length - 1 });
     // What the program itself opens to look is not to be open when the guard looks.
     const later = async () => { const then = leakguard.status().cost.ticks + 3; await until(() => leakguard.status().cost.ticks >= then); return figures(); };
     const read = (file) => { try { return fs.readFileSync(file, 'utf8').trim(); } catch { return ''; } };
     const writer = () => read('/proc/self/task/' + process.pid + '/children').split(' ').find((pid) => pid !== '' && read('/proc/' + pid + '/oom_score_adj') === '1000');
     (async () => {
       await until(() => leakguard.status().liveHeap?.readings > 0);
       const before = await later();
       const answer = leakguard.snapshot();
       const child = Number(await until(writer));
       process.kill(child, 'SIGSTOP');
       const forked = { counted: await later(), stood: stand() };
       process.kill(child, 'SIGCONT');
       const { path, refused } = await answer;
       await until(() => { const { hook, analyzer } = leakguard.status(); return hook.running && analyzer.running; });
       const after = { counted: await later(), stood: stand() };
       process.stdout.write(JSON.stringify({ before, forked, after, path, refused }), () => process.exit());
     })();`,
    {
      home,
      env: {
        LEAKGUARD_SNAPSHOT: 'fork',
        LEAKGUARD_ANALYZE: 'auto',
        LEAKGUARD_HOOK: `"${process.execPath}" -e "${untilGone}"`,
      },
    },
  );
  const { before, forked, after } = report;
  assert.equal(report.refused, undefined, report.refused?.sentence);
  assert.deepEqual(forked.counted, before);
  assert.deepEqual(after.counted, before);
  // The sampler, the minder of the fork and the sink; then the hook and the analysis in place of the two.
  for (const { stood } of [forked, after]) {
    assert.ok(stood.threads >= before.threads + 3, JSON.stringify(report));
    assert.ok(stood.fds > before.fds, JSON.stringify(report));
  }
});
