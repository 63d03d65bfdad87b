'use strict';

// `leakguard doctor` in set-ups that are healthy, and in each that is not; beside a running app; in a container.
// What it forecasts is compared with what the guard then does.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { act, directory, start } = require('./ending.js');
const { asRoot, container, skipWithoutRoot, temporary } = require('./program.js');
const { engines } = require('../package.json');

const COMMAND = path.join(__dirname, '..', 'bin', 'leakguard.js');
const MB = 1024 * 1024;

/** Below any container's, so that the machine has no part in what is found. */
const HEAP_LIMIT = '--max-old-space-size=128';

/**
 * @param {string} dir
 * @param {{ args?: string[], flags?: string[], env?: NodeJS.ProcessEnv, node?: string }} [options]
 */
function doctor(dir, { args = [], flags = [HEAP_LIMIT], env = {}, node = process.execPath } = {}) {
  const clean = Object.entries(process.env).filter(([name]) => !name.startsWith('LEAKGUARD'));
  return spawnSync(node, [...flags, COMMAND, 'doctor', ...args], {
    env: { ...Object.fromEntries(clean), LEAKGUARD_DIR: dir, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
}

/**
 * @param {string} dir
 * @param {{ args?: string[], flags?: string[], env?: NodeJS.ProcessEnv, node?: string }} [options]
 */
function diagnosis(dir, { args = [], ...options } = {}) {
  const { status, stdout, stderr } = doctor(dir, { args: ['--json', ...args], ...options });
  assert.equal(stderr, '');
  assert.equal(status, 0);
  return JSON.parse(stdout);
}

/**
 * The checks of this name.
 *
 * @param {any} found
 * @param {string} id
 * @returns {{ level: string, sentence: string, remedy: string | null }[]}
 */
const checks = (found, id) =>
  found.checks.filter((/** @type {{ id: string }} */ check) => check.id === id);

/** @param {any} found @param {string} id @param {RegExp} sentence */
function problem(found, id, sentence) {
  const check = checks(found, id).find(({ level }) => level === 'problem');
  assert.ok(check, JSON.stringify(found.checks, null, 1));
  assert.match(check.sentence, sentence);
  assert.ok(check.remedy);
}

describe('a healthy directory', () => {
  test('is no problem, in words and as JSON, and stays as it was', (t) => {
    const dir = temporary(t);
    const { status, stdout, stderr } = doctor(dir, { args: ['--fail-on-problems'] });
    assert.equal(stderr, '');
    assert.equal(status, 0, stdout);
    assert.match(stdout, /^leakguard \d+\.\d+\.\d+ on Node v/);
    assert.match(stdout, /At a finding now, with a live heap of 64 MiB \(assumed/);
    assert.match(stdout, /\nNo problem found\.\n$/);

    const found = diagnosis(dir);
    assert.equal(found.schema, 1);
    assert.equal(found.problems, 0);
    assert.equal(found.node, process.version);
    assert.equal(found.directory, dir);
    assert.equal(found.settings.dir.value, dir);
    assert.equal(found.settings.dir.origin, 'environment');
    assert.deepEqual(fs.readdirSync(dir), []);
  });

  test('that is not there yet would be made, and is not made', (t) => {
    const dir = path.join(temporary(t), 'a', 'b');
    const found = diagnosis(dir);
    assert.equal(found.problems, 0);
    assert.match(checks(found, 'directory')[0].sentence, /not there yet/);
    assert.equal(fs.existsSync(path.dirname(dir)), false);
  });

  test('with a running app: the forecast is for its heap and its limit', async (t) => {
    const dir = directory(t);
    const { app } = await start(dir, { env: { LEAKGUARD_SNAPSHOT: 'auto' } });
    const found = diagnosis(dir);
    const at = found.atFinding;
    assert.equal(at.liveHeapFrom, 'app');
    assert.equal(at.app.pid, app.pid);
    assert.ok(at.liveHeapBytes > MB && at.liveHeapBytes < 100 * MB, String(at.liveHeapBytes));
    const assumed = diagnosis(dir, { args: ['--heap', '64MB'] }).atFinding;
    assert.equal(assumed.liveHeapFrom, 'argument');
    assert.equal(assumed.liveHeapBytes, 64 * MB);

    // What it forecasts is what happens.
    act(app, 'snapshot');
    const { path: file, refused } = await app.message((message) => message.answer, 60_000, 'it');
    const [, , forecast] = at.steps;
    assert.equal(forecast.kind, 'snapshot');
    assert.equal(forecast.done, refused === undefined, forecast.sentence);
    if (file !== undefined) {
      assert.equal(path.dirname(file), found.directory);
      const { ways } = diagnosis(dir).atFinding;
      const taken = ways.find((/** @type {any} */ one) => one.way === forecast.way);
      assert.equal(taken.learnedFrom, 1, taken.sentence);
    }
    act(app, 'exit', 0);
    await app.exit;
  });
});

describe('a directory', () => {
  test('that cannot be one: a problem, with where evidence would go instead', (t) => {
    const dir = path.join(temporary(t), 'file');
    fs.writeFileSync(dir, '');
    const found = diagnosis(dir, { env: { TMPDIR: path.dirname(dir) } });
    problem(found, 'directory', /cannot be used .*; evidence would go to .*leakguard-\d+/);
    assert.equal(doctor(dir, { args: ['--fail-on-problems'] }).status, 1);
    assert.equal(doctor(dir).status, 0);
  });

  test('on a file system that is read-only: a problem', (t) => {
    const dir = temporary(t);
    try {
      asRoot(`mount -t tmpfs -o ro,size=1m tmpfs ${dir}`);
    } catch (error) {
      skipWithoutRoot(t, 'nothing can be mounted here', error);
      return;
    }
    try {
      problem(diagnosis(dir), 'directory', /Read-only file system/);
    } finally {
      asRoot(`umount ${dir}`);
    }
  });

  test('that is a link, and links in it: allowed, not followed, and told', (t) => {
    const root = temporary(t);
    fs.mkdirSync(path.join(root, 'real'), { mode: 0o700 });
    fs.symlinkSync('real', path.join(root, 'link'));
    fs.symlinkSync('/etc/passwd', path.join(root, 'real', 'notes'));
    const found = diagnosis(path.join(root, 'link'));
    assert.equal(found.problems, 0);
    assert.match(checks(found, 'directory')[0].sentence, /is a link to real/);
    assert.match(checks(found, 'links')[0].sentence, /notes/);
    fs.symlinkSync('/etc/passwd', path.join(root, 'real', 'leakguard.state'));
    problem(diagnosis(path.join(root, 'link')), 'state', /leakguard\.state/);
  });

  test('that everybody may write to: the private child', (t) => {
    const dir = temporary(t);
    fs.chmodSync(dir, 0o777);
    const found = diagnosis(dir);
    assert.match(found.directory, /leakguard-\d+$/);
    assert.equal(found.problems, 0);
    assert.deepEqual(fs.readdirSync(dir), []);
  });

  test('with too small a quota: no recorder, and no snapshot', (t) => {
    const found = diagnosis(temporary(t), {
      args: ['--heap', '10MB'],
      env: { LEAKGUARD_MAX_DISK: '4MB' },
    });
    problem(found, 'recorder', /LEAKGUARD_MAX_DISK/);
    const inline = found.atFinding.ways[0];
    assert.equal(inline.done, false);
    assert.equal(inline.refusal.reason, 'disk_quota', inline.sentence);
  });
});

describe('settings', () => {
  test('nonsense, a typing error and a switched-off guard are problems with a remedy', (t) => {
    const found = diagnosis(temporary(t), {
      env: { LEAKGUARD: 'off', LEAKGUARD_WINDOW: 'soon', LEAKGUARD_GROWTHRATE: '1MB/h' },
    });
    assert.equal(found.problems, 3);
    problem(found, 'guard', /off/);
    const settings = checks(found, 'setting')
      .map(({ sentence }) => sentence)
      .join('\n');
    assert.match(settings, /LEAKGUARD_WINDOW: expected a duration .* got "soon"; using 6h/);
    assert.match(settings, /LEAKGUARD_GROWTHRATE: .* did you mean LEAKGUARD_GROWTH_RATE\?/);
  });

  test('a hook that is not there, and a signal that would keep the app alive', (t) => {
    const env = { LEAKGUARD_HOOK: 'no-such-program --all', LEAKGUARD_SIGNAL: 'SIGTERM' };
    const found = diagnosis(temporary(t), { env });
    problem(found, 'hook', /no-such-program was not found in PATH/);
    problem(found, 'signal', /SIGTERM ends a process/);
  });
});

test('wrong usage is told by exit code 2', (t) => {
  const { status, stdout, stderr } = doctor(temporary(t), { args: ['--heap', 'much'] });
  assert.equal(status, 2);
  assert.equal(stdout, '');
  assert.match(stderr, /64MB/);
});

test('the oldest Node that it accepts is that of package.json', () => {
  const source = fs.readFileSync(path.join(__dirname, '..', 'src', 'doctor.rs'), 'utf8');
  const [, major, minor] = /OLDEST_NODE: \(u32, u32\) = \((\d+), (\d+)\)/.exec(source) ?? [];
  assert.equal(engines.node, `>=${major}.${minor}`);
});

test('in a container of 256 MB: its limit, the heap limit that fits, and no snapshot of 64 MB', (t) => {
  const group = container(t, 256 * MB);
  if (group === null) return;
  const dir = temporary(t);
  const found = diagnosis(dir, { node: group.node });
  assert.equal(found.containerLimitBytes, 256 * MB);
  assert.equal(found.fittingOldSpaceMb, 192);
  assert.match(
    checks(found, 'container')[0].sentence,
    /of 256 MiB of memory in use \(cgroup v[12], /,
  );
  const [, , snapshot] = found.atFinding.steps;
  assert.equal(snapshot.done, false);
  assert.match(snapshot.sentence, /a limit of .* would have sufficed/);

  const large = diagnosis(dir, { node: group.node, flags: ['--max-old-space-size=512'] });
  problem(large, 'heap-limit', /start node with --max-old-space-size=192/);
});
