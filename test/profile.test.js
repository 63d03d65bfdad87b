'use strict';

// The sampling allocation profile: it names the function that allocates what grows, and stands back where it would
// stop the loop for too long or where somebody else samples.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const apps = require('./apps/index.js');
const { runLoad } = require('./apps/load.js');
const { startApp } = require('./harness.js');
const { ask, files } = require('./program.js');
const { toText } = require('../lib/profile.js');

const DEADLINE_MS = 170_000;

/** Quick verdicts on programs that leak four times what the scoreboard's do, for a machine that is busy. */
const SETTINGS = {
  LEAKGUARD_INTERVAL: '200ms',
  LEAKGUARD_WINDOW: '16s',
  LEAKGUARD_WARMUP: '4s',
  LEAKGUARD_GROWTH_RATE: '2MB/min',
  LEAKGUARD_GC_SHARE: '5%',
  LEAKGUARD_MAX_GC_PAUSE: '1s',
  LEAKGUARD_SNAPSHOT: 'off',
  LEAK_MB_PER_MIN: '16',
};

/**
 * The step `profile` of a finding, once it is decided.
 *
 * @param {any} finding
 */
function decided(finding) {
  return finding.evidence.find(
    (/** @type {any} */ step) => step.kind === 'profile' && step.state !== 'pending',
  );
}

/**
 * A program that leaks from its line 4 on, and looks at the guard with `profiled()`.
 *
 * @param {string} rest run after the leak has begun; prints JSON
 */
function leaky(rest) {
  return `const leakguard = require(process.env.GUARD);
    const { Session } = require('node:inspector');
    const kept = [];
    function grow(n) {
      for (let i = 0; i < n; i++) kept.push({ at: i, text: 'x' + i });
    }
    const timer = setInterval(grow, 10, 40);
    const session = new Session();
    session.connect();
    const post = (method, parameters) => {
      let answer;
      session.post(method, parameters, (error, result) => { answer = error ? error.message : result; });
      return answer;
    };
    const profiled = () => until(() => {
      const finding = leakguard.status().findings?.[0];
      const step = finding?.evidence.find((one) => one.kind === 'profile' && one.state !== 'pending');
      return step && { finding, step };
    });
    const print = (report) => { clearInterval(timer); process.stdout.write(JSON.stringify(report)); };
    (async () => { ${rest} })();`;
}

describe('the allocation profile', { concurrency: 4 }, () => {
  // Of the headers that header-cache keeps, Node's parser allocates nineteen twentieths, with no app on its stack: the
  // first profile of it may tell nothing, and the second lasts longer.
  for (const name of [
    'map-cache',
    'header-cache',
    'closure-chain',
    'interval-array',
    'one-route',
  ]) {
    test(`names_the_line_of_${name}`, async () => {
      const app = apps.find(name);
      const running = await startApp(name, { env: SETTINGS });
      try {
        const load = runLoad(running.port, app.load, { seed: 1, durationMs: DEADLINE_MS });
        load.catch(() => {});
        // Where the first profile tells nothing, a second one follows.
        const finding = await running.waitForFinding(
          DEADLINE_MS,
          (/** @type {any} */ one) => decided(one) && one.cause?.kind === 'allocation',
        );
        const step = decided(finding);
        assert.equal(step.state, 'written', JSON.stringify(finding.evidence));
        const cause = /** @type {any} */ (finding.cause);
        assert.equal(cause.site.file, app.file);
        assert.ok(apps.leakLines(app).includes(cause.site.line), JSON.stringify(cause));
        assert.ok(finding.sentence.includes(`${name}.js:${cause.site.line}`), finding.sentence);
        const file = path.join(running.dir, step.file);
        const profile = JSON.parse(fs.readFileSync(file, 'utf8'));
        assert.equal(profile.head.callFrame.functionName, '(root)');
        assert.ok(profile.samples.length > 0);
      } finally {
        await running.stop();
      }
    });
  }

  test('the_event_and_the_line_tell_it_and_nothing_samples_afterwards', async (t) => {
    const { report, stderr, dir } = await ask(
      t,
      leaky(`
        const told = [];
        for (const kind of ['finding', 'profile']) leakguard.on(kind, (event) => told.push([kind, event]));
        const { finding, step } = await profiled();
        await until(() => told.length === 2);
        const after = await until(() => {
          const answer = post('HeapProfiler.getSamplingProfile');
          return typeof answer === 'string' && answer;
        });
        print({ finding, step, told, after });`),
      { env: { LEAKGUARD_MAX_GC_PAUSE: '5s', LEAKGUARD_SNAPSHOT: 'off' } },
    );
    const { finding, step, told, after } = report;
    assert.equal(step.state, 'written', JSON.stringify(step));
    assert.equal(finding.cause.kind, 'allocation');
    assert.equal(finding.cause.site.function, 'grow');
    assert.equal(finding.cause.site.line, 4);
    assert.match(finding.sentence, /most of what stays is allocated at \S+:4 \(grow\)/);
    assert.deepEqual(
      told.map((/** @type {any} */ [kind]) => kind),
      ['finding', 'profile'],
    );
    const [, [, event]] = told;
    assert.equal(event.finding, finding.id);
    assert.equal(event.sentence, finding.sentence);
    assert.deepEqual(files(dir, /\.heapprofile$/), [event.path]);
    assert.match(after, /not started/);
    assert.match(stderr, /Finding\.\S+: most of what stays is allocated at \S+:4 \(grow\)/);
    assert.doesNotMatch(stderr, /debugger/i);
  });

  test('a_profile_that_the_app_runs_is_left_alone', async (t) => {
    const { report, dir } = await ask(
      t,
      leaky(`
        post('HeapProfiler.startSampling', { samplingInterval: 4096 });
        const { finding, step } = await profiled();
        const { profile } = post('HeapProfiler.stopSampling');
        const names = new Set();
        (function walk(node) { names.add(node.callFrame.functionName); node.children.forEach(walk); })(profile.head);
        print({ step, kind: finding.cause.kind, names: [...names] });`),
    );
    assert.equal(report.step.state, 'refused');
    assert.equal(report.step.reason, 'busy');
    assert.equal(report.kind, 'memory');
    assert.ok(report.names.includes('grow'), 'the app reads what it sampled itself');
    assert.deepEqual(files(dir, /\.heapprofile$/), []);
  });

  test('a_profile_that_took_the_place_of_ours_is_not_ended', async (t) => {
    const { report } = await ask(
      t,
      leaky(`
        await until(() => typeof post('HeapProfiler.getSamplingProfile') !== 'string');
        post('HeapProfiler.stopSampling');
        post('HeapProfiler.startSampling', { samplingInterval: 4096 });
        const { step } = await profiled();
        print({ step, running: typeof post('HeapProfiler.stopSampling') !== 'string' });`),
      { env: { LEAKGUARD_MAX_GC_PAUSE: '5s' } },
    );
    assert.equal(report.step.reason, 'busy', JSON.stringify(report.step));
    assert.equal(report.running, true);
  });

  test('off_means_that_nothing_is_sampled', async (t) => {
    const { report, warnings } = await ask(
      t,
      leaky(`
        const { finding, step } = await profiled();
        print({ step, kind: finding.cause.kind, answer: post('HeapProfiler.getSamplingProfile') });`),
      { env: { LEAKGUARD_PROFILE: 'off' } },
    );
    assert.equal(report.step.reason, 'disabled');
    assert.equal(report.kind, 'memory');
    assert.match(report.answer, /not started/);
    assert.deepEqual(warnings, []);
  });

  test('a_large_heap_is_refused_with_the_pause_it_would_cost', async (t) => {
    const { report } = await ask(
      t,
      leaky(`
        globalThis.ballast = [];
        while (process.memoryUsage().heapUsed < 150 * 2 ** 20) {
          for (let i = 0; i < 10000; i++) ballast.push({ i, text: 'ballast ' + i });
        }
        const collecting = setInterval(gc, 500);
        const { step } = await profiled();
        clearInterval(collecting);
        print({ step, answer: post('HeapProfiler.getSamplingProfile') });`),
      // The program collects itself: on a busy machine the guard's own readings may rest after a long stop.
      { execArgv: ['--expose-gc'], env: { LEAKGUARD_WITHOUT: 'external,pressure,gc' } },
    );
    const { step, answer } = report;
    assert.equal(step.reason, 'pause', JSON.stringify(step));
    assert.equal(step.numbers.unit, 'millis');
    assert.equal(step.numbers.available, 100);
    assert.ok(step.numbers.needed > 150 && step.numbers.needed < 500, JSON.stringify(step));
    assert.equal(step.numbers.sufficient, step.numbers.needed);
    assert.match(answer, /not started/);
  });

  test('a_worker_is_sampled_in_its_own_isolate', async (t) => {
    const { report } = await ask(
      t,
      `const { Worker, isMainThread, parentPort } = require('node:worker_threads');
      if (isMainThread) {
        const leakguard = require(process.env.GUARD);
        const { Session } = require('node:inspector');
        const session = new Session();
        session.connect();
        new Worker(__filename).once('message', ({ finding, step }) => {
          let main;
          session.post('HeapProfiler.getSamplingProfile', (error) => { main = error?.message; });
          process.stdout.write(JSON.stringify({ finding, step, main }), () => process.exit());
        });
        return;
      }
      ${leaky(`
        const { finding, step } = await profiled();
        clearInterval(timer);
        parentPort.postMessage({ finding, step });`)}`,
      { env: { LEAKGUARD_MAX_GC_PAUSE: '5s', LEAKGUARD_SNAPSHOT: 'off' } },
    );
    assert.equal(report.step.state, 'written', JSON.stringify(report.step));
    assert.equal(report.finding.tid, 1);
    assert.equal(report.finding.cause.site.function, 'grow');
    assert.match(report.step.file, /^Heap\.\d+\.\d+\.\d+\.1\.\d+\.heapprofile$/);
    assert.match(report.main, /not started/);
  });

  test('a_node_without_inspector_is_a_refusal', async (t) => {
    const { report } = await ask(
      t,
      leaky(`
        const { step } = await profiled();
        print({ step });`).replace(
        'const kept',
        `const Module = require('node:module');
        const load = Module._load;
        Module._load = function (request) {
          if (request === 'node:inspector') throw new Error('Inspector is not available');
          return Reflect.apply(load, this, arguments);
        };
        const kept`,
      ),
    );
    assert.equal(report.step.reason, 'unavailable', JSON.stringify(report.step));
    assert.match(report.step.sentence, /Inspector is not available/);
  });
});

/**
 * @param {number} id
 * @param {number} selfSize
 * @param {any[]} [children]
 */
function node(id, selfSize, children = []) {
  const callFrame = {
    functionName: `f${id}`,
    scriptId: '1',
    url: '/app/a.js',
    lineNumber: id,
    columnNumber: 0,
  };
  return { callFrame, selfSize, id, children };
}

test('a_reading_is_handed_over_flat_with_callers_first', () => {
  const head = node(1, 0, [node(2, 10, [node(3, 5)]), node(4, 7)]);
  const samples = [2, 3, 4, 4].map((nodeId, ordinal) => ({ size: 1, nodeId, ordinal }));
  const { nodes, leftOutBytes, ...rest } = JSON.parse(toText({ head, samples }, true));
  assert.deepEqual(
    nodes.map((/** @type {any} */ row) => [row[0], row[1], row[7], row[8]]),
    [
      [-1, 'f1', 0, 0],
      [0, 'f2', 10, 1],
      [0, 'f4', 7, 2],
      [1, 'f3', 5, 1],
    ],
  );
  assert.equal(leftOutBytes, 0);
  assert.equal(rest.samples.length, 4);
});

test('a_reading_that_is_too_long_loses_its_smallest_stacks_and_says_how_much', () => {
  const many = Array.from({ length: 2000 }, (_, i) => node(10 + i, i % 100 === 0 ? 5000 : 3));
  const text = toText({ head: node(1, 0, many), samples: [] }, true, 20_000);
  assert.ok(text.length <= 20_000);
  const { nodes, leftOutBytes } = JSON.parse(text);
  assert.equal(nodes.filter((/** @type {any} */ row) => row[7] === 5000).length, 20);
  assert.equal(leftOutBytes, 1980 * 3);
});
