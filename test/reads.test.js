'use strict';

// What the guard reads of V8 and libuv by itself is what public API says; where that cannot be relied upon, public API
// is asked. Either way the app pays for no module of Node's that it did not load.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { ask } = require('./program.js');

/** Runs in every program: how often each of the guard's readings was made, and the guard that makes them. */
const WATCHED = `
  const { load } = require(require('node:path').join(process.env.GUARD, 'lib', 'load.js'));
  const { Guard } = load().binding;
  const { record } = Guard.prototype;
  const seen = { native: null, plain: 0, afterGc: 0, figures: [] };
  Guard.prototype.record = function (figures) {
    seen.native = this;
    seen[figures.afterGc ? 'afterGc' : 'plain']++;
    seen.figures.push(figures);
    return record.call(this, figures);
  };
`;

const SETTINGS = { LEAKGUARD_GC_SHARE: '20%' };

/** Modules that are large, and that few apps load. */
const LARGE = ['v8', 'perf_hooks', 'worker_threads', 'internal/heap_utils', 'inspector', 'module'];

test('a guard that samples and reads the live heap loads no large module of Node', async (t) => {
  const { report } = await ask(
    t,
    `${WATCHED}
    const http = require('node:http');
    const before = new Set(process.moduleLoadList);
    require(process.env.GUARD);
    const alive = setInterval(() => { globalThis.garbage = Array.from({ length: 5000 }, (_, i) => ({ i })); }, 5);
    until(() => seen.plain >= 5 && seen.afterGc >= 3).then(() => {
      clearInterval(alive);
      const loaded = process.moduleLoadList.filter((name) => !before.has(name));
      process.stdout.write(JSON.stringify({ loaded }));
    });`,
    { env: SETTINGS },
  );
  const large = LARGE.map((name) => `NativeModule ${name}`);
  assert.deepEqual(
    report.loaded.filter((/** @type {string} */ name) => large.includes(name)),
    [],
  );
});

/** A large object of ten megabytes, which the guard must find in its space. */
const COMPARED = `${WATCHED}
  globalThis.large = new Array(10 * 131072).fill(0.5);
  const leakguard = require(process.env.GUARD);
  const alive = setInterval(() => { globalThis.garbage = Array.from({ length: 5000 }, (_, i) => ({ i })); }, 5);
  until(() => {
    const status = leakguard.status();
    return seen.plain >= 2 && seen.afterGc >= 2 && status.liveHeap?.lastBytes && status;
  }).then((status) => {
    clearInterval(alive);
    const v8 = require('node:v8');
    const { limit, largeObjects, utilization } = seen.native.reads();
    const large = v8.getHeapSpaceStatistics().filter((space) => /large_object/.test(space.space_name));
    const { plain, afterGc } = Object.groupBy?.(seen.figures, (one) => one.afterGc ? 'afterGc' : 'plain') ?? {
      plain: seen.figures.filter((one) => !one.afterGc), afterGc: seen.figures.filter((one) => one.afterGc) };
    process.stdout.write(JSON.stringify({
      reads: { limit, largeObjects, utilization },
      limit: v8.getHeapStatistics().heap_size_limit,
      largeObjects: large.reduce((sum, space) => sum + space.space_used_size, 0),
      why: status.liveHeap.why,
      metrics: leakguard.metrics(),
      plain: plain.at(-1),
      afterGc: afterGc.at(-1),
    }));
  });`;

/** @param {string} metrics @param {string} name @returns {number} */
function metric(metrics, name) {
  return Number(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)`, 'm').exec(metrics)?.[1]);
}

test('what the guard reads natively is what public API says', async (t) => {
  const { report } = await ask(t, COMPARED, { env: SETTINGS });
  assert.deepEqual(report.reads, {
    limit: report.limit,
    largeObjects: report.largeObjects,
    utilization: true,
  });
  assert.ok(report.largeObjects >= 10 * 2 ** 20);
  assert.match(report.why, /seen by V8's GC callback$/);
  assert.equal(metric(report.metrics, 'leakguard_heap_limit_bytes'), report.limit);
  const utilization = metric(report.metrics, 'leakguard_loop_utilization_ratio');
  assert.ok(utilization >= 0 && utilization <= 1);
  // Nothing was asked of public API.
  for (const { limit, largeObjects, utilization } of [report.plain, report.afterGc])
    assert.deepEqual([limit, largeObjects, utilization], [undefined, undefined, undefined]);
});

for (const [name, lie] of [
  // As if the fields of V8's statistics stood elsewhere.
  ['says another thing than V8', '({ ...memoryUsage(), heapTotal: 12345 })'],
  ['throws', '{ throw new Error("patched"); }'],
])
  test(`where public API ${name}, nothing is read natively, and status says so`, async (t) => {
    const source = `
    const { memoryUsage } = process;
    process.memoryUsage = () => ${lie};
    ${COMPARED.replace('globalThis.large', 'require(process.env.GUARD); process.memoryUsage = memoryUsage; globalThis.large')}`;
    const { report } = await ask(t, source, { env: SETTINGS });
    assert.deepEqual(report.reads, { utilization: true });
    assert.match(
      report.why,
      /PerformanceObserver .*V8's heap statistics have another layout than expected/,
    );
    assert.equal(metric(report.metrics, 'leakguard_heap_limit_bytes'), report.limit);
    assert.equal(report.plain.limit, report.limit);
    assert.ok(report.afterGc.largeObjects >= 10 * 2 ** 20);
  });
