'use strict';

// The app under guard behaves as without: exit code, output, its end, what it sees of the process.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { test } = require('node:test');
const {
  REGISTER,
  ROOT,
  ask,
  copyPackage,
  files,
  parseSnapshot,
  run,
  temporary,
} = require('./program.js');

/** What may stand on stderr beside what the app writes itself. */
const OURS = /^(leakguard: |\(node:\d+\) |\(Use `node --trace)/;

/** @type {[string, string][]} */
const ENDINGS = [
  ['ends when its work ends', "console.log('done');"],
  ['ends with a code of its own', "process.exitCode = 3; console.log('three');"],
  ['exits', "console.log('out'); process.exit(0);"],
  ['exits with a code', 'process.exit(7);'],
  ['throws', "console.log('before'); throw new Error('uncaught');"],
  [
    'throws and handles it',
    "process.on('uncaughtException', (e) => { console.log('handled', e.message); process.exit(5); }); throw new Error('x');",
  ],
  ['rejects', "console.log('before'); Promise.reject(new Error('unhandled'));"],
  [
    'rejects and handles it',
    "process.on('unhandledRejection', (e) => { console.log('handled', e.message); }); Promise.reject(new Error('x'));",
  ],
  [
    'runs its exit handlers once and in order',
    "for (const e of ['beforeExit', 'exit']) process.on(e, (code) => console.log(e, code)); setTimeout(() => console.log('timer'), 50);",
  ],
  ['is ended by SIGTERM', "process.kill(process.pid, 'SIGTERM'); setInterval(() => {}, 1000);"],
  [
    'handles SIGTERM',
    "process.on('SIGTERM', () => { console.log('term'); process.exit(9); }); process.kill(process.pid, 'SIGTERM'); setInterval(() => {}, 1000);",
  ],
  [
    'writes much and exits',
    "const text = 'x'.repeat(99) + '\\n'; for (let i = 0; i < 2000; i++) process.stdout.write(text); ",
  ],
];

for (const [what, source] of ENDINGS) {
  test(`an app that ${what} does so under guard`, async (t) => {
    const [alone, guarded] = await Promise.all([run(t, source), run(t, source, { preload: true })]);
    assert.equal(guarded.code, alone.code);
    assert.equal(guarded.signal, alone.signal);
    assert.equal(guarded.stdout, alone.stdout);
    // The paths of the two programs differ, and nothing else does.
    /** @param {string} text */
    const lines = (text) =>
      text
        .split('\n')
        .filter((line) => line !== '' && !OURS.test(line) && !line.includes(path.sep));
    assert.deepEqual(lines(guarded.stderr), lines(alone.stderr));
    assert.deepEqual(guarded.warnings, []);
    // Later too, when the native thread is at work and a run is recorded whose end is noted at exit.
    const late = await run(
      t,
      `const leakguard = require(process.env.GUARD);
       until(() => leakguard.status().recorder?.samples > 1).then(() => setImmediate(() => {\n${source}\n}));`,
    );
    assert.equal(late.code, alone.code, late.stderr);
    assert.equal(late.signal, alone.signal);
    assert.equal(late.stdout, alone.stdout);
    assert.deepEqual(late.warnings, []);
  });
}

test('the process sees nothing of the guard', async (t) => {
  const source = `
    process.stdout.write(JSON.stringify({
      resources: process.getActiveResourcesInfo(),
      events: process.eventNames().map(String),
      listeners: process.eventNames().map((name) => process.listenerCount(name)),
      globals: Object.keys(globalThis),
      gc: typeof gc,
      argv: process.argv.length,
      handles: process._getActiveHandles().length,
    }));`;
  const alone = await ask(t, source);
  const guarded = await ask(t, source, { preload: true });
  assert.deepEqual(guarded.report, alone.report);
  // Later too, when readings have been made.
  const later = `
    const leakguard = require(process.env.GUARD);
    until(() => leakguard.status().liveHeap?.readings > 1).then(() => setImmediate(() => {${source}}));`;
  assert.deepEqual((await ask(t, later)).report, alone.report);
});

test('a pending snapshot keeps nothing alive', async (t) => {
  const { code, stdout } = await run(
    t,
    "require(process.env.GUARD).snapshot().then(() => console.log('answered')); console.log('end');",
  );
  assert.equal(code, 0);
  assert.match(stdout, /^end\n/);
});

test('a process that exits in the middle of a snapshot keeps its code and leaves no half file', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    const v8 = require('node:v8');
    const write = v8.writeHeapSnapshot;
    // As near to the middle as JavaScript comes: V8 is done and the native thread still reads the pipe.
    v8.writeHeapSnapshot = (...args) => { write(...args); process.exit(11); };
    leakguard.snapshot();
    setInterval(() => {}, 1000);`;
  const { code, dir } = await run(t, source);
  assert.equal(code, 11);
  for (const file of files(dir, /\.heapsnapshot$/)) parseSnapshot(file);
  for (const file of files(dir, /./))
    assert.notEqual(/\.(json|meta|heapsnapshot)$/.test(file) && fs.statSync(file).size, 0);
});

test('a process that exits in the middle of a reading keeps its code', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    const { Guard } = require(process.env.GUARD + '/lib/load.js').load().binding;
    const { takeWork } = Guard.prototype;
    globalThis.keep = Array.from({ length: 3e5 }, (_, i) => ({ i }));
    Guard.prototype.takeWork = function () {
      const bits = Reflect.apply(takeWork, this, []);
      // V8 was told to begin a major GC, and its end is what this bit asks to watch for.
      if (bits & 32) process.exit(12);
      return bits;
    };
    setInterval(() => {}, 1000);`;
  const { code, stderr } = await run(t, source, { env: { LEAKGUARD_WITHOUT: 'epilogue' } });
  assert.equal(code, 12);
  assert.equal(stderr, '');
});

for (const word of ['off', '0', 'false', 'no', 'OFF']) {
  test(`LEAKGUARD=${word} leaves everything untouched behind the same API`, async (t) => {
    const source = `
      const { EventEmitter } = require('node:events');
      const methods = ['on', 'addListener', 'prependListener', 'once', 'emit'];
      const before = methods.map((name) => EventEmitter.prototype[name]);
      const add = EventTarget.prototype.addEventListener;
      const leakguard = require(process.env.GUARD);
      const untouched = methods.every((name, i) => EventEmitter.prototype[name] === before[i]) &&
        EventTarget.prototype.addEventListener === add;
      leakguard.watch(new EventEmitter())();
      leakguard.stop();
      leakguard.snapshot().then((answer) => process.stdout.write(JSON.stringify({
        untouched,
        answer,
        state: leakguard.start().status().state,
        threads: require('node:fs').readdirSync('/proc/self/task').map((id) =>
          require('node:fs').readFileSync('/proc/self/task/' + id + '/comm', 'utf8').trim()),
        api: ['start', 'stop', 'status', 'watch', 'snapshot', 'analyze', 'diff', 'on'].every((name) => typeof leakguard[name] === 'function'),
      })));`;
    const { report, stderr, dir } = await ask(t, source, { env: { LEAKGUARD: word } });
    assert.equal(report.untouched, true);
    assert.equal(report.answer.refused.reason, 'disabled');
    assert.equal(report.state, 'off');
    assert.equal(report.api, true);
    assert.ok(!report.threads.includes('leakguard'));
    assert.equal(stderr, '');
    assert.equal(fs.existsSync(dir), false);
  });
}

/** The self-test of forked snapshots starts threads for a moment, which begin with the name of the one that starts them. */
const NO_SELF_TEST = { LEAKGUARD_SNAPSHOT: 'inline' };

/** The native thread names itself as it starts, which may be a moment later. */
const THREADS = `
  const count = () => require('node:fs').readdirSync('/proc/self/task').filter((id) => {
    try { return require('node:fs').readFileSync('/proc/self/task/' + id + '/comm', 'utf8').trim() === 'leakguard'; }
    catch { return false; }
  }).length;`;

test('two copies of the package are one guard', async (t) => {
  const home = temporary(t);
  const source = `
    const { EventEmitter } = require('node:events');
    const a = require(process.env.GUARD);
    const on = EventEmitter.prototype.on;
    const b = require(process.env.SECOND);
    ${THREADS}
    until(count).then((threads) => process.stdout.write(JSON.stringify({
      same: a === b, wrappedOnce: on === EventEmitter.prototype.on, threads,
      files: Object.keys(require.cache).filter((name) => name.endsWith('index.js')).length })));`;
  const env = { ...NO_SELF_TEST, SECOND: copyPackage(home) };
  const { report } = await ask(t, source, { env });
  assert.deepEqual(report, { same: true, wrappedOnce: true, threads: 1, files: 2 });
});

const RUNNING = `${THREADS} until(count).then((threads) => process.stdout.write(JSON.stringify({ threads })));`;

/** @type {[string, import('./program.js').Program][]} */
const LOADS = [
  ['-r', { execArgv: ['-r', REGISTER] }],
  ['--import', { execArgv: ['--import', pathToFileURL(REGISTER).href] }],
  ['NODE_OPTIONS', { env: { NODE_OPTIONS: `-r ${REGISTER}` } }],
];
for (const [way, program] of LOADS) {
  test(`${way} starts the guard`, async (t) => {
    const env = { ...NO_SELF_TEST, ...program.env };
    const { report, stderr } = await ask(t, RUNNING, { ...program, env });
    assert.deepEqual(report, { threads: 1 });
    assert.equal(stderr, '');
  });
}

test('an ES module imports the guard, and its listeners are counted with their line', async (t) => {
  const source = `
    import fs from 'node:fs';
    import { EventEmitter } from 'node:events';
    import leakguard from ${JSON.stringify(pathToFileURL(path.join(ROOT, 'index.js')).href)};
    const bus = new EventEmitter();
    bus.setMaxListeners(0);
    for (let i = 0; i < 20; i++) bus.on('tick', () => {});
    const find = () => leakguard.status().isolates[0]?.series.listeners.top.find((line) => line.event === 'tick');
    const line = await until(find);
    fs.writeSync(1, JSON.stringify(line));`;
  const { report } = await ask(t, source, { name: 'app.mjs' });
  assert.equal(report.count, 20);
  assert.equal(path.basename(report.site.file), 'app.mjs');
  assert.equal(report.site.line, 7);
});

test('handlers that throw or reject become warnings, and the app lives', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    const v8 = require('node:v8');
    const seen = [];
    process.on('uncaughtException', (error) => seen.push('uncaught ' + error.message));
    process.on('unhandledRejection', (error) => seen.push('unhandled ' + error.message));
    process.on('warning', (warning) => { if (warning.code === 'LEAKGUARD_HANDLER') seen.push(warning.message); });
    for (const kind of ['finding', 'snapshot', 'refused', 'error']) {
      leakguard.on(kind, () => { throw new Error('sync'); });
      leakguard.on(kind, async () => { throw new Error('async'); });
      leakguard.on(kind, () => { throw undefined; });
    }
    const bus = new (require('node:events').EventEmitter)().setMaxListeners(0);
    const leak = setInterval(() => bus.on('x', function leak() {}), 20);
    (async () => {
      const write = v8.writeHeapSnapshot;
      v8.writeHeapSnapshot = () => { throw new Error('out of order'); };
      const failed = await leakguard.snapshot();
      v8.writeHeapSnapshot = write;
      const taken = await leakguard.snapshot();
      leakguard.start({ maxSnapshots: 0 });
      const refused = await leakguard.snapshot();
      await until(() => ['finding', 'snapshot', 'refused', 'error'].every((kind) =>
        seen.some((m) => m.includes("'" + kind + "'") && m.includes(': sync')) && seen.some((m) => m.includes("'" + kind + "'") && m.includes(': async'))));
      clearInterval(leak);
      process.stdout.write(JSON.stringify({ failed, refused, taken: typeof taken.path, seen, state: leakguard.status().state }));
    })();`;
  const { report } = await ask(t, source);
  assert.equal(report.failed.refused.reason, 'failed');
  assert.equal(report.refused.refused.reason, 'count');
  assert.equal(report.taken, 'string');
  assert.deepEqual(
    report.seen.filter((/** @type {string} */ one) => /^un/.test(one)),
    [],
  );
  assert.notEqual(report.state, 'failed');
});

test("what the app has broken under the guard's feet costs that step and one warning", async (t) => {
  const source = `
    const { EventEmitter } = require('node:events');
    const leakguard = require(process.env.GUARD);
    const uncaught = [];
    process.on('uncaughtException', (error) => uncaught.push(error.message));
    const warned = new Set();
    process.on('warning', (warning) => warned.add(warning.message));
    const broken = (what) => () => { throw new Error('broken ' + what); };
    process.memoryUsage = broken('memory');
    process.getActiveResourcesInfo = broken('resources');
    class Odd extends EventEmitter { eventNames() { return broken('names')(); } }
    // Node 26 collects what no closure names.
    const odd = (globalThis.odd = new Odd());
    leakguard.watch(odd);
    const alive = setInterval(() => {}, 1000);
    (async () => {
      await until(() => warned.size === 3);
      // What is asked for with what fails is done all the same.
      const taken = [];
      for (let i = 0; i < 3; i++) taken.push(typeof (await leakguard.snapshot()).path);
      clearInterval(alive);
      process.stdout.write(JSON.stringify({ uncaught, taken, failure: leakguard.status().failure, warned: [...warned] }));
    })();`;
  const { report, warnings, stderr } = await ask(t, source);
  assert.deepEqual(report.uncaught, []);
  assert.deepEqual(report.taken, ['string', 'string', 'string']);
  assert.equal(report.failure, null);
  assert.equal(warnings.length, 3, stderr);
  for (const what of ['memory', 'resources', 'names'])
    assert.ok(report.warned.some((/** @type {string} */ one) => one.endsWith(`broken ${what}`)));
});

test('what throws when the guard looks at it throws for nobody', async (t) => {
  const source = `
    const diagnostics = require('node:diagnostics_channel');
    const { EventEmitter } = require('node:events');
    const http = require('node:http');
    const leakguard = require(process.env.GUARD);
    const thrown = [];
    process.on('uncaughtException', (error) => thrown.push(error.message));
    // Once it has its first listener, nobody may read this emitter's table.
    let armed = false;
    const emitter = new Proxy(new EventEmitter(), {
      get(target, key) { if (armed && key === '_events') throw new Error('emitter'); return target[key]; },
      set(target, key, value) { target[key] = value; armed = key === '_eventsCount'; return true; },
    });
    emitter.on('x', () => {});
    // Node takes it and adds nothing.
    new EventTarget().addEventListener('x', null);
    const trap = (name) => ({ get() { throw new Error(name); } });
    diagnostics.channel('tracing:fastify.request.handler:start').publish(Object.defineProperty({}, 'request', trap('fastify')));
    const server = http.createServer((request, response) => {
      Object.defineProperty(request, 'route', trap('route'));
      response.end('served');
    }).listen(0, '127.0.0.1', async () => {
      const answer = await fetch('http://127.0.0.1:' + server.address().port);
      const text = await answer.text();
      // What a subscriber throws is thrown at the next tick.
      await until(() => leakguard.status().cost.ticks > 3);
      process.stdout.write(JSON.stringify({ text, thrown }), () => process.exit());
    });`;
  const { report, warnings } = await ask(t, source);
  assert.deepEqual(report, { text: 'served', thrown: [] });
  assert.deepEqual(warnings, []);
});

test('the guard takes the JS thread of an idle app a few milliseconds at each tick at most', async (t) => {
  // CPU time of that thread, whatever else the machine does.
  const source = `
    const leakguard = require(process.env.GUARD);
    const cpuMs = () => Number(require('node:fs').readFileSync('/proc/self/task/' + process.pid + '/schedstat', 'utf8').split(' ')[0]) / 1e6;
    const now = () => ({ cpu: cpuMs(), ticks: leakguard.status().cost.ticks });
    until(() => leakguard.status().isolates[0]?.series.timers).then(() => {
      const begin = now();
      // Looked at seldom: looking costs as well.
      const timer = setInterval(() => {
        const end = now();
        if (end.ticks < begin.ticks + 60) return;
        clearInterval(timer);
        process.stdout.write(JSON.stringify({ perTick: (end.cpu - begin.cpu) / (end.ticks - begin.ticks) }));
      }, 200);
    });`;
  const { report } = await ask(t, source);
  assert.ok(report.perTick < 6, `${report.perTick} ms`);
});

test('an error that nobody listens to is one warning', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    require('node:v8').writeHeapSnapshot = () => { throw new Error('out of order'); };
    const alive = setInterval(() => {}, 1000);
    let warned = 0;
    process.on('warning', () => { warned++; });
    (async () => {
      for (let i = 0; i < 3; i++) await leakguard.snapshot();
      await until(() => warned > 0);
      clearInterval(alive);
    })();`;
  const { code, warnings } = await run(t, source);
  assert.equal(code, 0);
  assert.equal(warnings.filter((line) => line.includes('out of order')).length, 1);
  assert.match(warnings[0], /LEAKGUARD_SNAPSHOT/);
});

test('diagnostics_channel gets the payloads of the events', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    const channel = require('node:diagnostics_channel');
    const events = {}, published = {};
    for (const kind of ['snapshot', 'refused']) {
      leakguard.on(kind, (payload) => { events[kind] = payload; });
      channel.subscribe('leakguard:' + kind, (payload) => { published[kind] = payload; });
    }
    const alive = setInterval(() => {}, 1000);
    (async () => {
      await leakguard.snapshot({ reason: 'a test' });
      leakguard.start({ maxSnapshots: 0 });
      await leakguard.snapshot();
      await until(() => published.refused && published.snapshot);
      clearInterval(alive);
      process.stdout.write(JSON.stringify({ events, published }));
    })();`;
  const { report } = await ask(t, source);
  assert.deepEqual(report.published, report.events);
  assert.equal(report.events.snapshot.meta.note, 'a test');
  assert.equal(report.events.refused.reason, 'count');
  assert.equal(report.events.refused.schema, 1);
});

test('a loop that is blocked for ten seconds does not stop the native thread', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    (async () => {
      await until(() => leakguard.status().isolates[0]?.liveHeap.readings > 0);
      const before = leakguard.status();
      // The app under test: nothing of it may be waited for.
      for (const end = Date.now() + 10000; Date.now() < end; );
      const after = leakguard.status();
      const recovered = await until(() => leakguard.status().isolates[0].heartbeatAgeMs < 2000 && leakguard.status());
      process.stdout.write(JSON.stringify({ before, after, recovered }));
    })();`;
  const { report, stderr } = await ask(t, source);
  const { before, after, recovered } = report;
  assert.ok(
    after.cost.ticks >= before.cost.ticks + 20,
    `${after.cost.ticks - before.cost.ticks} ticks`,
  );
  assert.ok(after.isolates[0].heartbeatAgeMs >= 8000);
  assert.equal(after.isolates[0].stalls, before.isolates[0].stalls + 1);
  assert.equal(recovered.isolates[0].stalls, after.isolates[0].stalls);
  assert.equal(stderr, '');
});

test('a missing binary is one warning with the command that mends it, and the app runs', async (t) => {
  const copy = copyPackage(temporary(t), { binary: false });
  const source = `
    const { EventEmitter } = require('node:events');
    const on = EventEmitter.prototype.on;
    const leakguard = require(process.env.GUARD);
    leakguard.start(); leakguard.start({ window: '1h' }); leakguard.stop();
    leakguard.watch(new EventEmitter())();
    leakguard.snapshot().then((answer) => process.stdout.write(JSON.stringify({
      answer, status: leakguard.status(), untouched: on === EventEmitter.prototype.on })));`;
  const { report, warnings, stderr } = await ask(t, source, { env: { GUARD: copy } });
  assert.equal(report.untouched, true);
  assert.equal(report.status.state, 'failed');
  assert.equal(report.answer.refused.reason, 'disabled');
  assert.equal(warnings.length, 1, stderr);
  assert.match(warnings[0], /npm install/);
  assert.match(warnings[0], /\[LEAKGUARD_BINARY\]/);
  const off = await run(t, source, { env: { GUARD: copy, LEAKGUARD: 'off' } });
  assert.equal(off.stderr, '');
});
