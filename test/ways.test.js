'use strict';

// The ways of knowing the live heap, each switched off in turn: status says which is in use and why, readings
// still arrive where they can, and V8's flags are as the app had them.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { ask } = require('./program.js');

const READS = `
  const leakguard = require(process.env.GUARD);
  const vm = require('node:vm');
  const alive = setInterval(() => { globalThis.garbage = Array.from({ length: 5000 }, (_, i) => ({ i })); }, 5);
  (async () => {
    const enough = Number(process.env.READINGS);
    const status = await until(() => {
      const status = leakguard.status();
      return status.liveHeap?.readings >= enough && !/not yet known/.test(status.liveHeap.why) && (enough === 0 ? status.process.series.rss : status.liveHeap.lastBytes) && status;
    });
    clearInterval(alive);
    process.stdout.write(JSON.stringify({
      liveHeap: status.liveHeap,
      gc: typeof globalThis.gc,
      contextGc: vm.runInNewContext('typeof gc'),
      used: require('node:v8').getHeapStatistics().used_heap_size,
      state: status.state,
    }));
  })();`;

/** @type {[string, string, RegExp, number][]} */
const WAYS = [
  ['none', 'external', /^external memory .* without a pause; seen by V8's GC callback$/, 3],
  [
    'epilogue',
    'external',
    /seen by a PerformanceObserver during the reading \(LEAKGUARD_WITHOUT names it\)$/,
    3,
  ],
  ['external', 'pressure', /^a memory-pressure .* a pause; seen by V8's GC callback$/, 3],
  [
    'external,epilogue',
    'pressure',
    /seen by a PerformanceObserver during the reading \(LEAKGUARD_WITHOUT names it\)$/,
    3,
  ],
  [
    'external,pressure',
    'forced',
    /^gc\(\) is forced within LEAKGUARD_MAX_GC_PAUSE.*seen by V8's GC callback$/,
    3,
  ],
  ['external,pressure,epilogue', 'forced', /^gc\(\) is forced/, 3],
  // Natural major GCs of this much garbage come within seconds, and V8's callback sees them.
  [
    'gc,pressure,external',
    'natural',
    /only those that V8 makes by itself; seen by V8's GC callback$/,
    0,
  ],
  [
    'external,pressure,epilogue,gc',
    'natural',
    /only those that V8 makes by itself; natural ones are not seen/,
    0,
  ],
];
for (const [without, way, why, readings] of WAYS) {
  test(`without ${without} the live heap is known by the way "${way}", and status says why`, async (t) => {
    const { report, stderr } = await ask(t, READS, {
      env: { LEAKGUARD_WITHOUT: without, READINGS: String(readings), LEAKGUARD_GC_SHARE: '20%' },
    });
    assert.equal(report.liveHeap.way, way);
    assert.match(report.liveHeap.why, why);
    if (readings > 0) {
      assert.ok(report.liveHeap.lastBytes > 1e6 && report.liveHeap.lastBytes < report.used * 3);
      assert.ok(report.liveHeap.lastAgeMs >= 0);
    }
    assert.equal(report.gc, 'undefined');
    assert.equal(report.contextGc, 'undefined');
    assert.equal(stderr, '');
  });
}

test('natural major GCs count as readings where they can be seen', async (t) => {
  const source = READS.replace('Number(process.env.READINGS)', '1').replace(
    'const alive',
    'globalThis.kept = []; const grow = setInterval(() => { if (kept.push(new Array(20000).fill(0.5)) > 400) kept.length = 0; }, 2); grow.unref(); const alive',
  );
  const { report } = await ask(t, source, {
    env: { LEAKGUARD_WITHOUT: 'gc,external,pressure' },
    execArgv: ['--max-old-space-size=64'],
  });
  assert.equal(report.liveHeap.way, 'natural');
  assert.ok(report.liveHeap.readings >= 1);
});

test('an app that asked for gc keeps it, in new contexts too', async (t) => {
  const { report } = await ask(t, READS, {
    env: { LEAKGUARD_WITHOUT: 'external,pressure', READINGS: '2', LEAKGUARD_GC_SHARE: '20%' },
    execArgv: ['--expose-gc'],
  });
  assert.equal(report.gc, 'function');
  assert.equal(report.contextGc, 'function');
});

test('a reading that would stop the loop for too long is not forced, and status says so', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    globalThis.kept = Array.from({ length: 2e6 }, (_, i) => ({ i }));
    until(() => /LEAKGUARD_MAX_GC_PAUSE$/.test(leakguard.status().liveHeap?.waiting))
      .then(() => process.stdout.write(JSON.stringify(leakguard.status().liveHeap)));`;
  const { report } = await ask(t, source, {
    env: { LEAKGUARD_WITHOUT: 'external,pressure', LEAKGUARD_MAX_GC_PAUSE: '1ms' },
  });
  assert.match(report.waiting, /would stop the loop for \d+ ms/);
});

const SMALL = { execArgv: ['--max-old-space-size=256'] };
const SOON = { READINGS: '3', LEAKGUARD_GC_SHARE: '20%' };

/** Counts the turns of the loop in which the guard rests the JS thread. @param {number} megabytes */
const counting = (megabytes) =>
  `
  globalThis.held = Array.from({ length: ${megabytes}e6 / 72 }, (_, i) => ({ i, inner: { i } }));
  let turns = 0;
  const timers = require('node:timers');
  const plain = timers.setImmediate;
  timers.setImmediate = (callback) => {
    if (new Error().stack.includes('#restNextTurn')) turns++;
    return plain(callback);
  };
  ${READS.replace('state:', 'turns, state:')}`;
for (const [megabytes, name] of /** @type {[number, string][]} */ ([
  [60, 'get a head start when the heap is large'],
  [1, 'get none when it is small'],
])) {
  test(`V8's concurrent markers ${name}`, async (t) => {
    const { report } = await ask(t, counting(megabytes), { env: SOON });
    assert.equal(report.liveHeap.way, 'external');
    // Fourteen turns for each reading whose end was seen; the last may have been asked for anew.
    if (megabytes === 1) assert.equal(report.turns, 0);
    else assert.ok(report.turns >= 14 * 2, `${report.turns} turns`);
  });
}

/**
 * An app whose buffers come and go, so that V8 begins major GCs by itself; from then on no more readings are asked for.
 *
 * @param {string} first what is waited for before, of `liveHeap`
 * @param {string} last what is waited for after it
 */
const following = (first, last) =>
  counting(60).replace(
    /\(async[\s\S]*$/,
    `(async () => {
      const liveHeap = () => leakguard.status().liveHeap;
      const seen = await until(() => (${first}) && liveHeap());
      leakguard.start({ gcShare: '0.01%' });
      const before = turns;
      const buffers = [];
      const swinging = setInterval(() => {
        if (buffers.push(Buffer.alloc(20e6, 1)) === 8) buffers.length = 0;
      }, 50);
      await until(() => ${last});
      clearInterval(alive);
      clearInterval(swinging);
      process.stdout.write(JSON.stringify({ way: seen.way, before, turns: turns - before }));
    })();`,
  );

test("V8's own major GCs after a reading get a head start too", async (t) => {
  // One reading may still have begun when they were asked for no more.
  const source = following('liveHeap()?.readings >= 2', 'turns >= before + 14 * 4');
  const { report } = await ask(t, source, { env: SOON });
  assert.equal(report.way, 'external');
  assert.ok(report.turns >= 14 * 4);
});

test('and none where no reading came before', async (t) => {
  const source = following(
    "liveHeap()?.way === 'natural'",
    'liveHeap().readings >= seen.readings + 3',
  );
  const { report } = await ask(t, source, {
    env: { ...SOON, LEAKGUARD_WITHOUT: 'gc,external,pressure' },
  });
  assert.deepEqual(report, { way: 'natural', before: 0, turns: 0 });
});

/** An app that holds external memory of its own, and a small heap. @param {number} megabytes */
const holding = (megabytes) =>
  READS.replace(
    'const alive',
    `globalThis.held = Buffer.alloc(${megabytes}e6, 1); const before = process.memoryUsage().external; const alive`,
  ).replace('state:', 'external: process.memoryUsage().external - before, state:');

test('what was reported of external memory is taken back', async (t) => {
  const { report } = await ask(t, holding(1), { ...SMALL, env: SOON });
  assert.equal(report.liveHeap.way, 'external');
  assert.ok(Math.abs(report.external) < 16e6, `${report.external} bytes more`);
});

test('an app whose buffers leave no room for it is read by a notification', async (t) => {
  const { report } = await ask(t, holding(200), { ...SMALL, env: SOON });
  assert.equal(report.liveHeap.way, 'external');
  assert.ok(report.liveHeap.readings >= 3);
});

test('and where there is none, by a forced GC', async (t) => {
  const { report } = await ask(t, holding(200), {
    ...SMALL,
    env: { ...SOON, LEAKGUARD_WITHOUT: 'pressure' },
  });
  assert.equal(report.liveHeap.way, 'forced');
});

test('a heap that is too small for it from the start is read by a notification', async (t) => {
  const { report } = await ask(t, READS, { execArgv: ['--max-old-space-size=64'], env: SOON });
  assert.equal(report.liveHeap.way, 'pressure');
});
