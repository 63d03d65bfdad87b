'use strict';

// The public API: start, stop, status, snapshot and its budgets, signal, baseline, pair, cooldown, compression,
// what events carry and what the types say.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { ROOT, ask, files, parseSnapshot, temporary, unpack } = require('./program.js');

/** Wraps the body of an async program that ends when it is done. @param {string} body */
const program = (body) => `
  const { EventEmitter } = require('node:events');
  const leakguard = require(process.env.GUARD);
  const alive = setInterval(() => {}, 1000);
  const next = (kind) => new Promise((resolve) => leakguard.once(kind, resolve));
  let leaking;
  const leak = () => {
    const bus = new EventEmitter().setMaxListeners(0);
    leaking = setInterval(() => bus.on('reload', function onReload() {}), 20);
  };
  (async () => {
    const report = await (async () => {${body}})();
    clearInterval(alive);
    clearInterval(leaking);
    process.stdout.write(JSON.stringify(report));
  })();`;

test('start and stop are safe twice and in any order, and the series go on', async (t) => {
  const source = program(`
    const first = await until(() => leakguard.status().isolates[0]?.liveHeap.readings > 0 && leakguard.status());
    const same = leakguard.start() === leakguard && leakguard.start({ growthRate: '7MB/min' }) === leakguard;
    leakguard.start({ warmup: '1h' });
    const second = await until(() => leakguard.status().settings.warmup.value === '1h' && leakguard.status());
    const on = EventEmitter.prototype.on;
    leakguard.stop().stop();
    const stopped = { status: leakguard.status(), unwrapped: EventEmitter.prototype.on !== on, answer: await leakguard.snapshot() };
    leakguard.start();
    const third = await until(() => leakguard.status().isolates.length && leakguard.status());
    return { same, first, second, stopped, third };`);
  const { report, stderr } = await ask(t, source);
  const { first, second, stopped, third } = report;
  assert.equal(report.same, true);
  assert.ok(second.isolates[0].liveHeap.readings >= first.isolates[0].liveHeap.readings);
  assert.ok(second.uptimeMs >= first.uptimeMs);
  assert.equal(second.isolates[0].id, first.isolates[0].id);
  assert.deepEqual(second.settings.growthRate, { value: '7MB/min', origin: 'option' });
  assert.equal(stopped.status.state, 'stopped');
  assert.equal(stopped.unwrapped, true);
  assert.equal(stopped.answer.refused.reason, 'disabled');
  assert.notEqual(third.isolates[0].id, first.isolates[0].id);
  // Options given before the stop are still given.
  assert.deepEqual(third.settings.growthRate, { value: '7MB/min', origin: 'option' });
  assert.equal(stderr, '');
});

test('stop answers a snapshot that is asked for, and nothing of the guard stays', async (t) => {
  const source = program(`
    await until(() => leakguard.status().isolates[0]?.liveHeap.readings > 0);
    const asked = leakguard.snapshot();
    leakguard.stop();
    const fs = require('node:fs');
    const names = () => fs.readdirSync('/proc/self/task').map((id) => {
      try { return fs.readFileSync('/proc/self/task/' + id + '/comm', 'utf8').trim(); } catch { return ''; } });
    // The thread that ends a child of ours, if one was forked, is among them.
    await until(() => !names().some((name) => name.startsWith('leakguard')));
    const fds = fs.readdirSync('/proc/self/fd').map((fd) => { try { return fs.readlinkSync('/proc/self/fd/' + fd); } catch { return ''; } });
    return { answer: await asked, left: fds.filter((name) => name.includes('evidence') || /statm|cgroup|pressure/.test(name)) };`);
  const { report, dir } = await ask(t, source);
  assert.equal(report.answer.refused.reason, 'shutting_down');
  assert.deepEqual(report.left, []);
  assert.deepEqual(files(dir, /\.part$/), []);
});

test('start(options) goes over the environment, which goes over the default', async (t) => {
  const source = program(`
    leakguard.start({ window: '2h', confirm: 3, baseline: undefined });
    await until(() => leakguard.status().settings.confirm.value === '3');
    return leakguard.status().settings;`);
  const { report } = await ask(t, source, {
    env: { LEAKGUARD_WINDOW: '20s', LEAKGUARD_COOLDOWN: '2h' },
  });
  assert.deepEqual(report.window, { value: '2h', origin: 'option' });
  assert.deepEqual(report.confirm, { value: '3', origin: 'option' });
  assert.deepEqual(report.cooldown, { value: '2h', origin: 'environment' });
  assert.deepEqual(report.maxDisk, { value: '512MB', origin: 'default' });
  assert.equal(report.baseline.origin, 'default');
});

test('watch refuses what is no target, with a code', async (t) => {
  const source = program(`
    const codes = [];
    for (const target of [null, undefined, {}, 'x', () => {}]) {
      try { leakguard.watch(target); } catch (error) { codes.push(error.name + ' ' + error.code); }
    }
    return codes;`);
  const { report } = await ask(t, source);
  assert.deepEqual(
    report,
    Array.from({ length: 5 }, () => 'TypeError ERR_LEAKGUARD_TARGET'),
  );
});

test('a snapshot is whole, and its meta tells what is in the file', async (t) => {
  const source = program(`
    class LeakedThing {}
    globalThis.held = Array.from({ length: 500 }, () => new LeakedThing());
    const [answer, event] = await Promise.all([leakguard.snapshot({ reason: 'look' }), next('snapshot')]);
    return { answer, event, status: leakguard.status() };`);
  const { report, stderr } = await ask(t, source);
  const { answer, event, status } = report;
  const { strings } = parseSnapshot(answer.path);
  assert.ok(strings.includes('LeakedThing'));
  assert.equal(event.path, answer.path);
  assert.deepEqual(event.meta, answer.meta);
  assert.equal(event.reason, 'on_demand');
  assert.equal(answer.meta.note, 'look');
  const hash = require('node:crypto').createHash('sha256').update(fs.readFileSync(answer.path));
  assert.equal(answer.meta.sha256, hash.digest('hex'));
  assert.equal(answer.meta.bytes, fs.statSync(answer.path).size);
  assert.match(
    path.basename(answer.path),
    new RegExp(`^Heap\\.\\d{8}\\.\\d{6}\\.${status.pid}\\.0\\.\\d{3}\\.heapsnapshot$`),
  );
  const meta = answer.path.replace('Heap.', 'Snapshot.').replace('.heapsnapshot', '.meta');
  assert.deepEqual(JSON.parse(fs.readFileSync(meta, 'utf8')), answer.meta);
  assert.equal(stderr, '');
});

test('one snapshot is taken at a time', async (t) => {
  const source = program('return Promise.all([1, 2, 3].map(() => leakguard.snapshot()));');
  const { report } = await ask(t, source);
  assert.equal(report.filter((/** @type {any} */ one) => one.path).length, 1);
  assert.equal(report.filter((/** @type {any} */ one) => one.refused?.reason === 'busy').length, 2);
});

/** @type {[string, string, Record<string, string>][]} */
const REFUSALS = [
  ['count', 'max snapshots', { LEAKGUARD_MAX_SNAPSHOTS: '0' }],
  ['pause', 'max pause', { LEAKGUARD_MAX_PAUSE: '1ms' }],
  ['disk_quota', 'max disk', { LEAKGUARD_MAX_DISK: '1MB' }],
  ['disabled', 'off', { LEAKGUARD_SNAPSHOT: 'off' }],
];
for (const [reason, what, env] of REFUSALS) {
  test(`a snapshot beyond its budget is refused with its numbers: ${what}`, async (t) => {
    const source = program(`
      const [answer, event] = await Promise.all([leakguard.snapshot(), next('refused')]);
      return { answer, event };`);
    const { report, dir, stderr } = await ask(t, source, { env });
    const { refused } = report.answer;
    assert.equal(refused.reason, reason);
    assert.match(stderr, new RegExp(`^leakguard: snapshot refused \\(${reason}\\): `, 'm'));
    assert.equal(report.event.sentence, refused.sentence);
    assert.equal(report.event.kind, 'snapshot');
    if (reason !== 'disabled') {
      assert.match(refused.sentence, /\d/);
      assert.ok(refused.needed > refused.available, JSON.stringify(refused));
      assert.ok(
        refused.sufficient >= refused.needed || reason === 'count',
        JSON.stringify(refused),
      );
    }
    assert.deepEqual(files(dir, /\.(heapsnapshot|part)$/), []);
  });
}

test('the count of snapshots holds across restarts', async (t) => {
  const dir = path.join(temporary(t), 'evidence');
  const source = program(`
    const answers = [];
    for (let i = 0; i < 2; i++) answers.push(await leakguard.snapshot());
    return answers.map((one) => one.refused?.reason ?? 'taken');`);
  const env = { LEAKGUARD_MAX_SNAPSHOTS: '3', LEAKGUARD_LOG: 'silent' };
  assert.deepEqual((await ask(t, source, { dir, env })).report, ['taken', 'taken']);
  assert.deepEqual((await ask(t, source, { dir, env })).report, ['taken', 'count']);
  assert.deepEqual((await ask(t, source, { dir, env })).report, ['count', 'count']);
});

test('two processes in one directory share the count', async (t) => {
  const dir = path.join(temporary(t), 'evidence');
  const source = program(`
    const taken = [];
    // Another process may hold the lock of the directory for a moment: that is an answer too.
    for (let i = 0; i < 6; i++) {
      const answer = await leakguard.snapshot();
      if (answer.path) taken.push(answer.path);
    }
    return taken;`);
  const env = { LEAKGUARD_MAX_SNAPSHOTS: '4', LEAKGUARD_LOG: 'silent' };
  const [a, b] = await Promise.all([ask(t, source, { dir, env }), ask(t, source, { dir, env })]);
  assert.equal(a.report.length + b.report.length, 4);
  const written = files(dir, /\.heapsnapshot$/);
  assert.deepEqual([...a.report, ...b.report].sort(), written);
  for (const file of written) parseSnapshot(file);
});

test('a signal asks for a snapshot, and keeps its default meaning for nobody else', async (t) => {
  const source = program(`
    await until(() => leakguard.status().isolates.length);
    process.kill(process.pid, 'SIGUSR2');
    const event = await next('snapshot');
    leakguard.start({ signal: 'off' });
    return { event, left: process.listenerCount('SIGUSR2') };`);
  const { report } = await ask(t, source, { env: { LEAKGUARD_SIGNAL: 'SIGUSR2' } });
  assert.equal(report.event.meta.note, 'signal SIGUSR2');
  assert.equal(report.left, 0);
});

test('an app whose process takes no listener off again can stop the guard', async (t) => {
  const source = program(`
    process.removeListener = process.off = () => { throw new Error('not that one'); };
    leakguard.stop();
    return leakguard.status().state;`);
  const { report } = await ask(t, source, { env: { LEAKGUARD_SIGNAL: 'SIGUSR2' } });
  assert.equal(report, 'stopped');
});

test('a baseline is taken when the warm-up ends', async (t) => {
  const source = program("return next('snapshot');");
  const { report } = await ask(t, source, {
    env: { LEAKGUARD_BASELINE: 'on', LEAKGUARD_WARMUP: '1s' },
  });
  assert.equal(report.reason, 'baseline');
  parseSnapshot(report.path);
});

test('a finding gets a pair of snapshots, and then silence across a restart', async (t) => {
  const home = temporary(t);
  const dir = path.join(home, 'evidence');
  const source = program(`
    const held = [];
    const hears = (kind, all, key) =>
      leakguard.on(kind, (event) => held.push([kind, leakguard.status()[all].some((one) => one[key] === event[key])]));
    hears('finding', 'findings', 'id');
    hears('snapshot', 'snapshots', 'path');
    leak();
    const finding = await next('finding');
    await until(() => held.length === 3);
    await until(() => leakguard.status().findings[0].evidence.some((step) => step.kind === 'followup' && step.state === 'written'));
    return { finding, held, status: leakguard.status() };`);
  const env = { LEAKGUARD_FOLLOWUP: '1s', LEAKGUARD_APP: 'pairs' };
  const { report, stderr } = await ask(t, source, { home, dir, env });
  const [file] = files(dir, /^Finding/);
  const finding = JSON.parse(fs.readFileSync(file, 'utf8'));
  assert.equal(report.finding.id, finding.id);
  assert.equal(report.finding.path, file);
  // Whoever is told of one finds it in status().
  assert.deepEqual(report.held, [
    ['finding', true],
    ['snapshot', true],
    ['snapshot', true],
  ]);
  assert.deepEqual(
    finding.evidence.map((/** @type {any} */ step) => [step.kind, step.state]),
    [
      ['snapshot', 'written'],
      ['followup', 'written'],
    ],
  );
  for (const step of finding.evidence) {
    parseSnapshot(path.join(dir, step.file));
    const meta = step.file.replace('Heap.', 'Snapshot.').replace('.heapsnapshot', '.meta');
    assert.equal(JSON.parse(fs.readFileSync(path.join(dir, meta), 'utf8')).pair_id, finding.pair);
  }
  assert.equal(stderr.match(/^leakguard: finding: /gm)?.length, 1);
  assert.equal(finding.sentence, report.status.findings[0].sentence);
  assert.equal(path.basename(finding.cause.site.file), 'app.js');

  // The same leak in the same directory: the cooldown is remembered.
  const again = program(
    "leak(); const refused = await next('refused'); return { refused, found: leakguard.status().findings.length };",
  );
  const next = await ask(t, again, { home, dir, env });
  assert.equal(next.report.refused.reason, 'cooldown');
  assert.equal(next.report.refused.kind, 'finding');
  assert.equal(next.report.found, 0);
  assert.equal(files(dir, /^Finding/).length, 1);
});

for (const compress of ['gzip', 'zstd']) {
  test(`a snapshot compressed with ${compress} is whole`, async (t) => {
    const source = program('return leakguard.snapshot();');
    const { report } = await ask(t, source, { env: { LEAKGUARD_COMPRESS: compress } });
    const packed = fs.readFileSync(report.path);
    assert.equal(report.meta.compression, compress);
    assert.equal(report.meta.file_bytes, packed.length);
    assert.ok(packed.length * 2 < report.meta.bytes);
    assert.match(report.path, compress === 'gzip' ? /\.heapsnapshot\.gz$/ : /\.heapsnapshot\.zst$/);
    const text = unpack(report.path);
    assert.equal(text.length, report.meta.bytes);
    const { snapshot, nodes } = JSON.parse(text.toString());
    assert.equal(nodes.length, snapshot.node_count * snapshot.meta.node_fields.length);
  });
}

test('status, findings and events are what the types say', async (t) => {
  const source = program(`
    leak();
    const finding = await next('finding');
    const snapshot = await next('snapshot');
    leakguard.start({ maxSnapshots: 0 });
    const [answer, refused] = await Promise.all([leakguard.snapshot(), next('refused')]);
    const status = leakguard.status();
    leakguard.stop();
    return { Finding: finding, SnapshotEvent: snapshot, RefusedEvent: refused, Refusal: answer.refused, Status: status, stopped: leakguard.status() };`);
  const { report } = await ask(t, source);
  assert.deepEqual(
    Object.keys(report.stopped).filter((key) => !(key in report.Status)),
    [],
  );
  const dir = fs.mkdtempSync(path.join(ROOT, 'test', 'types-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const lines = ["import leakguard = require('../../index.js');"];
  for (const [type, value] of Object.entries(report)) {
    const name = type === 'stopped' ? 'Status' : type;
    // A literal, so that a field which the types do not have is an error too.
    lines.push(`export const ${type}Value: leakguard.${name} = ${JSON.stringify(value)};`);
  }
  fs.writeFileSync(path.join(dir, 'values.ts'), lines.join('\n'));
  const tsc = path.join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const flags = [
    '--noEmit',
    '--strict',
    '--target',
    'es2022',
    '--module',
    'nodenext',
    '--skipLibCheck',
    '--types',
    'node',
  ];
  try {
    execFileSync(process.execPath, [tsc, '--ignoreConfig', ...flags, path.join(dir, 'values.ts')], {
      encoding: 'utf8',
      stdio: 'pipe',
    });
  } catch (error) {
    assert.fail(/** @type {any} */ (error).stdout.slice(0, 4000));
  }
});

test('a guard whose native thread is no more says so, and leaves nothing behind in the app', {
  skip: process.platform !== 'linux' && 'only Linux limits the threads of a running process',
}, async (t) => {
  // No thread can be created any more. The limit does not hold for root, which gives its rights up.
  const source = program(`
      const heard = next('error');
      const { code, message } = await heard;
      const { state, failure } = leakguard.status();
      const { refused } = await leakguard.snapshot();
      const left = {
        unwrapped: EventEmitter.prototype.on === on,
        ready: leakguard.ready(),
        up: /^leakguard_up.* (\\d)$/m.exec(leakguard.metrics())[1],
        refused: refused.sentence,
        heard: process.listenerCount('SIGUSR2'),
      };
      return { code, message, state, failure, left };`);
  const before = `
      const { on } = require('node:events').EventEmitter.prototype;
      process.env.LEAKGUARD = 'off';
      const guard = require(process.env.GUARD);
      require('node:child_process').execFileSync('prlimit', ['--pid', String(process.pid), '--nproc=1']);
      if (process.getuid() === 0) process.setuid(65534);
      delete process.env.LEAKGUARD;
      guard.start();`;
  const env = { LEAKGUARD_SIGNAL: 'SIGUSR2' };
  const { report } = await ask(t, before + source, { env });
  assert.equal(report.code, 'LEAKGUARD_FAILED');
  assert.match(
    report.message,
    /^the native thread failed: it could not be started: .*; nothing is watched any more$/,
  );
  assert.equal(report.state, 'failed');
  assert.equal(report.failure, report.message);
  // The signal would end the app if nobody heard it.
  const left = { unwrapped: true, ready: true, up: '0', refused: report.message, heard: 1 };
  assert.deepEqual(report.left, left);
});

test('every setting is taken at both of its bounds, and the guard runs', async (t) => {
  const page = fs.readFileSync(path.join(__dirname, '..', 'docs', 'SETTINGS.md'), 'utf8');
  const bound = /^## `(LEAKGUARD_\w+)`.*?^- Accepted: .*?(\d[\w.%]*) to (\d[\w.%]*)/gms;
  const sections = page.split(/(?=^## `)/m).flatMap((section) => [...section.matchAll(bound)]);
  assert.ok(sections.length >= 9, `${sections.length} settings with bounds`);
  const ends = [1, 2].map((end) =>
    Object.fromEntries(sections.map((one) => [one[1], one[end + 1]])),
  );
  const each = ends.flatMap((end) =>
    Object.entries(end).map(([name, value]) => ({ [name]: value })),
  );
  // Nothing but those: what belongs together by default may not with one of them.
  const unset = { LEAKGUARD_WINDOW: undefined, LEAKGUARD_WARMUP: undefined };
  const source = `
    const leakguard = require(process.env.GUARD);
    until(() => leakguard.status().state === 'failed' || leakguard.status().cost.ticks > 0).then(() => {
      const { state, failure } = leakguard.status();
      process.stdout.write(JSON.stringify({ state, failure }));
      process.exit(0);
    });`;
  for (const settings of [...each, ...ends]) {
    const env = {
      LEAKGUARD_INTERVAL: undefined,
      LEAKGUARD_CONFIRM: undefined,
      ...unset,
      ...settings,
    };
    const { report, stderr } = await ask(t, source, { env });
    const words = `${JSON.stringify(settings)}: ${JSON.stringify(report)} ${stderr}`;
    assert.ok(['warm-up', 'armed'].includes(report.state), words);
    assert.equal(report.failure, null, words);
    assert.doesNotMatch(stderr, /LEAKGUARD_OPTION|panicked/, words);
  }
});
