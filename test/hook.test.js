'use strict';

// LEAKGUARD_HOOK with real processes: what the command is told, that no shell is in between, and what becomes of
// a delivery whose command fails or whose process dies.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { DEADLINE_MS, act, directory, heard, start } = require('./ending.js');

/** Writes what it was started with into a new file of the folder that is its first argument. */
const RECEIVER = `
console.log('noise of the hook');
console.error('noise of the hook');
const fs = require('node:fs');
const [folder, ...rest] = process.argv.slice(2);
const told = Object.fromEntries(Object.entries(process.env).filter(([name]) => /^LEAKGUARD/.test(name)));
const size = fs.statSync(process.env.LEAKGUARD_FILE).size;
const part = folder + '/' + process.pid;
fs.writeFileSync(part, JSON.stringify({ told, rest, size, secret: process.env.APP_SECRET }));
fs.renameSync(part, part + '.json');
`;

/**
 * A folder with the receiver, a place for what it receives, and an evidence directory of the given name.
 *
 * @param {import('node:test').TestContext} t
 * @param {string} [evidence]
 */
function place(t, evidence = 'evidence') {
  const root = directory(t);
  const script = path.join(root, 'receiver.js');
  const inbox = path.join(root, 'in box');
  fs.writeFileSync(script, RECEIVER);
  fs.mkdirSync(inbox);
  return {
    root,
    inbox,
    dir: path.join(root, evidence),
    hook: `"${process.execPath}" "${script}" "${inbox}"`,
  };
}

/**
 * What the hook received, once there is as much as wanted.
 *
 * @param {{ inbox: string }} at
 * @param {number} count
 * @returns {Promise<any[]>}
 */
function received({ inbox }, count) {
  return new Promise((resolve, reject) => {
    const look = () => {
      const files = fs.readdirSync(inbox).filter((name) => name.endsWith('.json'));
      if (files.length < count) return;
      finish();
      resolve(files.map((name) => JSON.parse(fs.readFileSync(path.join(inbox, name), 'utf8'))));
    };
    const watcher = fs.watch(inbox, look);
    const deadline = setTimeout(() => {
      finish();
      reject(new Error(`the hook was not started ${count} times within ${DEADLINE_MS} ms`));
    }, DEADLINE_MS);
    const finish = () => {
      watcher.close();
      clearTimeout(deadline);
    };
    look();
  });
}

/** @param {string} hook @param {Record<string, string>} [more] */
function settings(hook, more = {}) {
  return {
    env: {
      LEAKGUARD_SNAPSHOT: 'inline',
      LEAKGUARD_INTERVAL: '200ms',
      LEAKGUARD_HOOK: hook,
      ...more,
    },
  };
}

describe('the hook', { concurrency: 3 }, () => {
  test('is started for a new snapshot, with its path, and leaves no zombie', async (t) => {
    const at = place(t);
    const { app, messages } = await start(
      at.dir,
      settings(`${at.hook} a "b c"`, { APP_SECRET: 's3' }),
    );
    act(app, 'snapshot');
    const { path: file } = await heard({ app, messages }, 'answer');
    const [{ told, rest, size, secret }] = await received(at, 1);
    assert.deepEqual(told, {
      ...told,
      LEAKGUARD: 'off',
      LEAKGUARD_FILE: file,
      LEAKGUARD_KIND: 'snapshot',
      LEAKGUARD_FINDING: '',
      LEAKGUARD_PID: String(app.pid),
    });
    assert.deepEqual(rest, ['a', 'b c']);
    assert.equal(size, fs.statSync(file).size);
    assert.equal(secret, 's3');
    const status = await delivered(app);
    assert.equal(status.hook.delivered, 1);
    if (process.platform === 'linux') assert.deepEqual(zombies(app.pid), []);
    // Its arguments may hold a secret.
    assert.equal(status.settings.hook.value, process.execPath);
    act(app, 'exit', 0);
    assert.deepEqual(await app.exit, { code: 0, signal: null });
    assert.equal(app.stdout, '');
    assert.doesNotMatch(app.stderr, /noise/);
  });

  test('meets no shell, whatever the directory and the environment are called', async (t) => {
    const evil = 'e $(touch owned); `touch owned` | touch owned & "\'';
    const at = place(t, evil);
    const env = { BASH_ENV: '$(touch owned)', ENV: '`touch owned`', SHELL: '/bin/false', IFS: '/' };
    const { app, messages } = await start(
      at.dir,
      settings(`${at.hook} $(touch owned) ; touch owned *`, env),
    );
    act(app, 'snapshot');
    const { path: file } = await heard({ app, messages }, 'answer');
    const [{ told, rest }] = await received(at, 1);
    assert.equal(told.LEAKGUARD_FILE, file);
    assert.ok(file.includes(evil));
    assert.deepEqual(rest, ['$(touch', 'owned)', ';', 'touch', 'owned', '*']);
    for (const folder of [at.root, at.dir, at.inbox, process.cwd()]) {
      assert.ok(!fs.existsSync(path.join(folder, 'owned')), folder);
    }
    act(app, 'exit', 0);
    await app.exit;
  });

  test('that fails is an error event, and the file stays', async (t) => {
    const at = place(t);
    const { app, messages } = await start(
      at.dir,
      settings(`"${process.execPath}" -e process.exit(7)`),
    );
    act(app, 'snapshot');
    const { path: file } = await heard({ app, messages }, 'answer');
    const error = await heard({ app, messages }, 'error');
    assert.match(
      error.message,
      /^LEAKGUARD_HOOK: .* ended with exit code 7 for Heap\..*; the file stays$/,
    );
    assert.ok(fs.statSync(file).size > 0);
    act(app, 'exit', 0);
    await app.exit;
  });

  test('that cannot be found is an error event', async (t) => {
    const at = place(t);
    const { app, messages } = await start(at.dir, settings('leakguard-no-such-program'));
    act(app, 'snapshot');
    const error = await heard({ app, messages }, 'error');
    assert.match(error.message, /leakguard-no-such-program was not found in PATH/);
    act(app, 'exit', 0);
    await app.exit;
  });

  test('is started again by the next start if the process died over it', async (t) => {
    const at = place(t);
    const began = path.join(at.root, 'began');
    fs.mkdirSync(began);
    const script = path.join(at.root, 'slow.js');
    fs.writeFileSync(
      script,
      // Renamed when whole: the reader looks as soon as there is a name.
      `const fs = require('fs'); const part = ${JSON.stringify(`${began}/began`)};
      fs.writeFileSync(part, String(process.pid)); fs.renameSync(part, part + '.json'); setInterval(() => {}, 1000)`,
    );
    const first = await start(at.dir, settings(`"${process.execPath}" "${script}"`));
    act(first.app, 'snapshot');
    const { path: file } = await heard(first, 'answer');
    const [slow] = await received({ inbox: began }, 1);
    first.app.child.kill('SIGKILL');
    await first.app.exit;
    // Detached: it outlives the app.
    process.kill(slow, 'SIGKILL');

    const next = await start(at.dir, settings(at.hook));
    const [{ told }] = await received(at, 1);
    assert.equal(told.LEAKGUARD_FILE, file);
    assert.equal(told.LEAKGUARD_PID, String(first.app.pid));
    await delivered(next.app);
    act(next.app, 'exit', 0);
    await next.app.exit;

    const last = await start(at.dir, settings(at.hook));
    assert.equal(last.ready.hook.waiting + last.ready.hook.delivered, 0);
    assert.equal(last.ready.hook.running, null);
    act(last.app, 'exit', 0);
    await last.app.exit;
  });
});

/**
 * The status once the hook has delivered something; asked for anew after each answer.
 *
 * @param {import('./ending.js').App} app
 * @returns {Promise<any>}
 */
function delivered(app) {
  act(app, 'status');
  return app.message(
    (/** @type {any} */ { status }) => {
      if (status === undefined) return undefined;
      if (status.hook.delivered > 0) return status;
      setTimeout(act, 50, app, 'status');
      return undefined;
    },
    DEADLINE_MS,
    'a delivery',
  );
}

/** @param {number} parent @returns {string[]} names of its children that nobody reaped */
function zombies(parent) {
  return fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
        const [, name, state, ppid] = stat.match(/\((.*)\) (\S) (\d+)/s) ?? [];
        return state === 'Z' && Number(ppid) === parent ? [name] : [];
      } catch {
        return [];
      }
    });
}
