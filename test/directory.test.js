'use strict';

// Whatever the evidence directory and the settings are, the app starts, runs and ends as it would, and the
// problem is told once and clearly.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { ROOT, ask, files, parseSnapshot, run, temporary, tmpfs } = require('./program.js');

const UID = process.getuid?.() ?? 0;

/** Takes a snapshot and says what came of it. */
const SNAPSHOT = `
  const leakguard = require(process.env.GUARD);
  const alive = setInterval(() => {}, 1000);
  (async () => {
    const answer = await leakguard.snapshot();
    const status = await until(() => leakguard.status().state !== 'starting' && leakguard.status());
    clearInterval(alive);
    process.stdout.write(JSON.stringify({ answer, directory: status.directory, problem: status.directoryProblem }));
  })();`;

/**
 * Nothing but whole files, readable by their owner only.
 *
 * @param {string} dir
 */
function assertPrivateAndWhole(dir) {
  assert.equal(fs.statSync(dir).mode & 0o777, 0o700);
  for (const file of files(dir, /^(Heap|Finding|Snapshot)/)) {
    assert.equal(fs.statSync(file).mode & 0o777, 0o600, file);
    assert.doesNotMatch(file, /\.part$/);
    assert.notEqual(fs.statSync(file).size, 0, file);
    if (file.endsWith('.heapsnapshot')) parseSnapshot(file);
  }
}

/** @type {[string, (home: string) => string][]} */
const UNUSABLE = [
  ['cannot be created', () => '/proc/leakguard'],
  ['cannot be written', () => '/proc/self'],
  [
    'is a file',
    (home) => {
      const file = path.join(home, 'file');
      fs.writeFileSync(file, 'precious');
      return file;
    },
  ],
  [
    'is a link to nowhere',
    (home) => {
      fs.symlinkSync('/proc/nowhere', path.join(home, 'link'));
      return path.join(home, 'link');
    },
  ],
];

for (const [what, make] of UNUSABLE) {
  test(`where the directory ${what}, evidence goes to the temp directory, with one warning`, async (t) => {
    const home = temporary(t);
    const dir = make(home);
    const { report, warnings, stderr } = await ask(t, SNAPSHOT, { dir, env: { TMPDIR: home } });
    assert.equal(report.directory, path.join(home, `leakguard-${UID}`));
    assert.equal(path.dirname(report.answer.path), report.directory);
    assertPrivateAndWhole(report.directory);
    assert.equal(warnings.length, 1, stderr);
    assert.match(warnings[0], /\[LEAKGUARD_DIR\]/);
    assert.ok(warnings[0].includes(dir) && warnings[0].includes(report.directory), warnings[0]);
    if (fs.statSync(dir, { throwIfNoEntry: false })?.isFile()) {
      assert.equal(fs.readFileSync(dir, 'utf8'), 'precious');
    }
  });
}

test('where no directory can be used, the guard says so once and goes on without files', async (t) => {
  const { report, warnings, stderr } = await ask(t, SNAPSHOT, {
    dir: '/proc/leakguard',
    env: { TMPDIR: '/proc/nowhere', LEAKGUARD_LOG: 'silent' },
  });
  assert.equal(report.answer.refused.reason, 'state');
  assert.equal(report.directory, null);
  assert.match(report.problem, /\/proc\/leakguard/);
  assert.equal(warnings.length, 1, stderr);
  assert.match(warnings[0], /\[LEAKGUARD_DIR\]/);
});

test('a finding comes also where no file can be written', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    const bus = new (require('node:events').EventEmitter)().setMaxListeners(0);
    const leak = setInterval(() => bus.on('reload', () => {}), 20);
    leakguard.once('finding', (finding) => { clearInterval(leak); process.stdout.write(JSON.stringify(finding)); });`;
  const { report, stderr } = await ask(t, source, {
    dir: '/proc/leakguard',
    env: { TMPDIR: '/proc/nowhere' },
  });
  assert.equal(report.series[0].id, 'listeners');
  assert.equal(report.path, undefined);
  assert.match(stderr, /^leakguard: finding: listeners of 'reload'/m);
});

test('a directory that everybody may write to gets a private child', async (t) => {
  const dir = path.join(temporary(t), 'shared');
  fs.mkdirSync(dir);
  fs.chmodSync(dir, 0o777);
  const { report } = await ask(t, SNAPSHOT, { dir });
  assert.equal(report.directory, path.join(dir, `leakguard-${UID}`));
  assertPrivateAndWhole(report.directory);
  assert.equal(files(dir, /./).length, 1);
});

test('a private child that is a link is not followed', async (t) => {
  const home = temporary(t);
  const [dir, victim] = [path.join(home, 'shared'), path.join(home, 'victim')];
  fs.mkdirSync(dir);
  fs.chmodSync(dir, 0o777);
  fs.mkdirSync(victim);
  fs.symlinkSync(victim, path.join(dir, `leakguard-${UID}`));
  const { report, warnings } = await ask(t, SNAPSHOT, { dir, env: { TMPDIR: home } });
  assert.deepEqual(fs.readdirSync(victim), []);
  assert.equal(report.directory, path.join(home, `leakguard-${UID}`));
  assert.equal(warnings.length, 1);
});

test('the directory may be a link, but links inside it are not followed', async (t) => {
  const home = temporary(t);
  const real = path.join(home, 'real');
  fs.mkdirSync(real, { mode: 0o700 });
  fs.symlinkSync(real, path.join(home, 'link'));
  const victims = ['.gitignore', 'leakguard.state', 'leakguard.lock'].map((name) => {
    const victim = path.join(home, `victim${name}`);
    fs.writeFileSync(victim, 'precious');
    fs.symlinkSync(victim, path.join(real, name));
    return victim;
  });
  const { code, stderr, report } = await ask(t, SNAPSHOT, {
    dir: path.join(home, 'link'),
    env: { TMPDIR: home },
  });
  assert.equal(code, 0, stderr);
  for (const victim of victims) assert.equal(fs.readFileSync(victim, 'utf8'), 'precious');
  if (report.answer.path) parseSnapshot(report.answer.path);
  else assert.equal(typeof report.answer.refused.sentence, 'string');
});

test('a directory of the operator behind a link is used', async (t) => {
  const home = temporary(t);
  fs.mkdirSync(path.join(home, 'real'), { mode: 0o700 });
  fs.symlinkSync(path.join(home, 'real'), path.join(home, 'link'));
  const { report, stderr } = await ask(t, SNAPSHOT, { dir: path.join(home, 'link') });
  assert.equal(files(path.join(home, 'real'), /\.heapsnapshot$/).length, 1);
  assert.equal(typeof report.answer.path, 'string');
  assert.equal(stderr, '');
});

test('the directory is ./leakguard by default, and stays there when the app goes elsewhere', async (t) => {
  const home = temporary(t);
  const source = SNAPSHOT.replace('const alive', "process.chdir('/'); const alive");
  const { report } = await ask(t, source, { cwd: home, home, env: { LEAKGUARD_DIR: undefined } });
  assert.equal(report.directory, path.join(home, 'leakguard'));
  assert.equal(path.dirname(report.answer.path), report.directory);
});

test('on a disk too small for it a snapshot is refused with its numbers', async (t) => {
  const dir = tmpfs(t, 'size=3m,mode=0700');
  if (dir === null) return;
  const { report, stderr } = await ask(t, SNAPSHOT, { dir });
  const { reason, sentence, needed, available } = report.answer.refused;
  assert.equal(reason, 'disk_free', sentence);
  assert.ok(needed > available, `${needed} ${available}`);
  assert.match(stderr, /^leakguard: snapshot refused \(disk_free\)/m);
  assert.deepEqual(files(dir, /\.(part|heapsnapshot)$/), []);
});

test('a disk that fills in the middle of a snapshot costs the snapshot and nothing else', async (t) => {
  const dir = tmpfs(t, 'size=64m,mode=0700');
  if (dir === null) return;
  const source = `
    const fs = require('node:fs');
    const v8 = require('node:v8');
    const write = v8.writeHeapSnapshot;
    v8.writeHeapSnapshot = (...args) => {
      // The budget has been asked: now another takes the room.
      const fd = fs.openSync(process.env.LEAKGUARD_DIR + '/filler', 'w');
      try { for (;;) fs.writeSync(fd, Buffer.alloc(65536)); } catch (error) { if (error.code !== 'ENOSPC') throw error; }
      return write(...args);
    };
    ${SNAPSHOT}`;
  // Forked, it is in fork.test.js.
  const { report, warnings } = await ask(t, source, { dir, env: { LEAKGUARD_SNAPSHOT: 'inline' } });
  assert.equal(report.answer.refused.reason, 'failed');
  assert.equal(warnings.length, 1);
  assert.deepEqual(files(dir, /\.(part|heapsnapshot|meta)$/), []);
});

test('a disk that is full from the beginning leaves the app unharmed', async (t) => {
  const dir = tmpfs(t, 'size=64k,mode=0700');
  if (dir === null) return;
  fs.appendFileSync(path.join(dir, 'filler'), '');
  try {
    for (;;) fs.appendFileSync(path.join(dir, 'filler'), Buffer.alloc(4096));
  } catch (error) {
    assert.equal(/** @type {NodeJS.ErrnoException} */ (error).code, 'ENOSPC');
  }
  const home = temporary(t);
  const { report } = await ask(t, SNAPSHOT, { dir, env: { TMPDIR: home } });
  assert.equal(typeof (report.answer.refused?.sentence ?? report.answer.path), 'string');
  for (const file of files(dir, /\.(json|meta|heapsnapshot)$/))
    assert.notEqual(fs.statSync(file).size, 0);
});

test('nothing is ever written under a final name: a file gets it when it is whole', async (t) => {
  const dir = path.join(temporary(t), 'evidence');
  fs.mkdirSync(dir, { mode: 0o700 });
  /** @type {Map<string, Set<string>>} */
  const events = new Map();
  const watcher = fs.watch(dir, (event, name) => {
    if (name !== null) events.set(name, (events.get(name) ?? new Set()).add(event));
  });
  t.after(() => watcher.close());
  const source = `
    const leakguard = require(process.env.GUARD);
    const bus = new (require('node:events').EventEmitter)().setMaxListeners(0);
    const leak = setInterval(() => bus.on('reload', () => {}), 20);
    leakguard.once('snapshot', () => { clearInterval(leak); process.stdout.write('{}', () => process.exit()); });`;
  await ask(t, source, { dir, env: { LEAKGUARD_SNAPSHOT: 'inline' } });
  // The watcher is told in order: of all that the app did, once it is told of this.
  await new Promise((resolve) => {
    watcher.on('change', (_, name) => name === 'end' && resolve(undefined));
    fs.writeFileSync(path.join(dir, 'end'), '');
  });
  const names = [...events.keys()];
  const isFinal =
    /^(Finding\..*\.json|Heap\..*\.heapsnapshot|Snapshot\..*\.meta|leakguard\.state)$/;
  for (const kind of [/^Finding/, /^Heap/, /^Snapshot/, /^leakguard\.state$/, /\.part$/])
    assert.ok(
      names.some((name) => kind.test(name)),
      `${kind} among ${names}`,
    );
  // A write is a change; a new name is none.
  for (const name of names.filter((one) => isFinal.test(one)))
    assert.deepEqual([...(events.get(name) ?? [])], ['rename'], name);
});

test('a read-only file system is told once', async (t) => {
  const dir = tmpfs(t, 'size=1m,ro');
  if (dir === null) return;
  const home = temporary(t);
  const { report, warnings } = await ask(t, SNAPSHOT, { dir, env: { TMPDIR: home } });
  assert.equal(report.directory, path.join(home, `leakguard-${UID}`));
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /[Rr]ead-only/);
});

/** @type {{ key: string, variable: string, default: string, accepted: string }[]} */
const OPTIONS = require(path.join(ROOT, 'lib', 'load.js'))
  .load()
  .binding.options();

const RUNS = `
  const leakguard = require(process.env.GUARD);
  until(() => leakguard.status().state !== 'starting').then(() => process.stdout.write(JSON.stringify(leakguard.status().settings)));`;

/**
 * What no option takes; a text is anything that is not empty, a command anything whose quotes are closed.
 *
 * @param {string} accepted
 */
function nonsense(accepted) {
  if (accepted.startsWith('a text')) return '';
  return accepted.startsWith('a program') ? '"bananas; rm -rf' : 'ba\u0007nanas; rm -rf';
}

test('nonsense in every variable at once: the app starts, with one warning for each', async (t) => {
  const env = Object.fromEntries(OPTIONS.map((one) => [one.variable, nonsense(one.accepted)]));
  const { report, warnings, stderr } = await ask(t, RUNS, { env });
  assert.equal(warnings.length, OPTIONS.length, stderr);
  for (const one of OPTIONS) {
    const said = warnings.filter((line) => line.includes(`${one.variable}:`));
    assert.equal(said.length, 1, one.variable);
    assert.ok(said[0].includes(one.accepted), said[0]);
    // A secret is not repeated, be it nonsense.
    const secret = one.variable === 'LEAKGUARD_TOKEN';
    assert.equal(
      said[0].includes('nanas; rm -rf'),
      !secret && nonsense(one.accepted) !== '',
      said[0],
    );
    if (nonsense(one.accepted) === '') assert.ok(said[0].includes('""'), said[0]);
    assert.deepEqual(report[one.key], { value: one.default, origin: 'default' }, one.key);
  }
});

for (const value of [
  '-1',
  '1e999',
  '99999999999999999999',
  'NaN',
  '0x10',
  ' ',
  '1MB/',
  '5',
  '%',
  '\u{1f4a9}',
]) {
  test(`${JSON.stringify(value)} in every variable: the app starts, and what is not taken is told`, async (t) => {
    const env = Object.fromEntries(
      OPTIONS.filter((one) => !one.accepted.startsWith('a text')).map((one) => [
        one.variable,
        value,
      ]),
    );
    const { report, warnings, stderr } = await ask(t, RUNS, { env });
    const tried = OPTIONS.filter((one) => one.variable in env);
    const kept = tried.filter((one) => report[one.key].origin === 'environment').length;
    const told = warnings.filter((line) => line.includes('expected')).length;
    assert.ok(told > tried.length / 2, stderr);
    assert.equal(kept + told, tried.length);
  });
}

test('nonsense in an option of start() is told by the name of the option', async (t) => {
  const source = `
    const leakguard = require(process.env.GUARD);
    leakguard.start({ window: 'soon', growthRat: '1MB/h' }).start({ window: 'soon' });
    leakguard.start({ window: null, interval: {}, baseline: Symbol('x') }).start(7).start(null);
    ${RUNS.replace(/const leakguard.*\n/, '')}`;
  const { report, warnings } = await ask(t, source, { env: { LEAKGUARD_WINDOW: '30m' } });
  assert.equal(
    warnings.filter((line) => /window: expected a duration .*"soon"/.test(line)).length,
    1,
  );
  assert.equal(warnings.filter((line) => /growthRat\b.*growthRate/.test(line)).length, 1);
  assert.equal(report.window.value, '30m');
});

test('a variable that does not exist is told with the nearest name', async (t) => {
  const { warnings } = await ask(t, RUNS, {
    env: { LEAKGUARD_GROWTHRATE: '1MB/h', LEAKGUARD_WINDWO: '1h', LEAKGUARD_QQQQQQQQQQ: '1' },
  });
  assert.equal(warnings.length, 3);
  assert.ok(warnings.some((line) => /LEAKGUARD_GROWTHRATE.*LEAKGUARD_GROWTH_RATE/.test(line)));
  assert.ok(warnings.some((line) => /LEAKGUARD_WINDWO.*LEAKGUARD_WINDOW/.test(line)));
  assert.ok(warnings.some((line) => line.includes('LEAKGUARD_QQQQQQQQQQ')));
});

test('settings that cannot work together are told with the value that does', async (t) => {
  const { warnings } = await ask(t, RUNS, {
    env: { LEAKGUARD_GROWTH_RATE: '1KB/h', LEAKGUARD_WINDOW: '1h' },
  });
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /\d/);
});

test('settings are told by the first environment only, not by every worker', async (t) => {
  const source = `
    const { Worker, isMainThread } = require('node:worker_threads');
    require(process.env.GUARD);
    if (isMainThread) for (let i = 0; i < 3; i++) new Worker(__filename);`;
  const { warnings } = await run(t, source, { env: { LEAKGUARD_CONFIRM: 'often' } });
  assert.equal(warnings.length, 1);
});
