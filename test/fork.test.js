'use strict';

// Forked snapshots, from outside: what an app notices of them (nothing), what comes of them (whole files with all
// objects), and what is left when the child, the app or the system gives up in the middle. A slice of the soak
// (benches/soak.js), with its app.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, describe, test } = require('node:test');
const { setTimeout: delay } = require('node:timers/promises');
const { countInstances } = require('../benches/held.js');
const { startApp } = require('./harness.js');
const { asRoot, container, skipWithoutRoot, tmpfs } = require('./program.js');

/** @typedef {Awaited<ReturnType<typeof startApp>>} RunningApp */

const SOAK_APP = path.join(__dirname, '..', 'benches', 'soak-app.js');
const MB = 1024 * 1024;
const DEADLINE_MS = 120_000;
/** An orphan may live so long. */
const ORPHAN_MS = 5_000;

const forks =
  process.platform === 'linux' &&
  !fs.readdirSync('/lib').some((name) => name.startsWith('ld-musl'));

/** @type {string[]} */
const directories = [];
after(() => {
  for (const directory of directories) fs.rmSync(directory, { recursive: true, force: true });
});

let orders = 0;

/**
 * @param {RunningApp} app
 * @param {string} order
 * @returns {Promise<any>}
 */
function give(app, order) {
  orders += 1;
  const id = orders;
  const answer = app.message(
    (message) => (message?.id === id ? { answer: message.answer } : undefined),
    DEADLINE_MS,
    `an answer to ${order}`,
  );
  app.child.send({ order, id });
  return answer.then((message) => message.answer);
}

/**
 * @param {Record<string, string>} [env]
 * @param {string[]} [execArgv]
 * @param {string} [node]
 */
async function start(env = {}, execArgv = [], node = process.execPath) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-fork-'));
  directories.push(dir);
  return startApp(SOAK_APP, {
    node,
    guarded: false,
    execArgv,
    env: {
      LEAKGUARD_DIR: dir,
      LEAKGUARD_SNAPSHOT: 'fork',
      LEAKGUARD_ANALYZE: 'off',
      LEAKGUARD_LOG: 'silent',
      ...env,
    },
  });
}

/**
 * Looks until there is something, each few milliseconds.
 * @template T
 * @param {string} what
 * @param {() => T | undefined | false} look
 * @param {number} [deadlineMs]
 * @returns {Promise<T>}
 */
async function until(what, look, deadlineMs = DEADLINE_MS) {
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await delay(5);
  }
}

/** @param {string} file */
function read(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** @param {string} file */
function link(file) {
  try {
    return fs.readlinkSync(file);
  } catch {
    return 'gone';
  }
}

/** @param {number} pid @returns {number[]} its children, zombies included */
function childrenOf(pid) {
  const tasks = fs.existsSync(`/proc/${pid}/task`) ? fs.readdirSync(`/proc/${pid}/task`) : [];
  return tasks.flatMap((task) =>
    read(`/proc/${pid}/task/${task}/children`).split(' ').filter(Boolean).map(Number),
  );
}

/** A child that has its verdict has given itself its name and a priority of its own. @param {number} pid */
const isWriting = (pid) => read(`/proc/${pid}/oom_score_adj`).trim() === '1000';

/** @param {RunningApp} app @returns {Promise<number>} */
const writer = (app) => until('a writing child', () => childrenOf(app.pid).find(isWriting));

/**
 * Kills every child that writes, until the snapshot has its answer. They are three but for those whose fork did not
 * come through by itself: another thread ran just then.
 *
 * @template T
 * @param {RunningApp} app
 * @param {Promise<T>} answer
 * @returns {Promise<T>}
 */
async function killEach(app, answer) {
  /** @type {Set<number>} */
  const killed = new Set();
  let answered = false;
  const end = () => {
    answered = true;
  };
  answer.then(end, end);
  await until('the answer', () => {
    const child = childrenOf(app.pid).find((pid) => !killed.has(pid) && isWriting(pid));
    if (child !== undefined) {
      process.kill(child, 'SIGKILL');
      killed.add(child);
    }
    return answered;
  });
  assert.ok(killed.size > 0 && killed.size <= 3, `${killed.size} children killed`);
  return answer;
}

/** @param {number} pid */
const gone = (pid) =>
  !fs.existsSync(`/proc/${pid}`) || /^State:\s+Z/m.test(read(`/proc/${pid}/status`));

/** @param {RunningApp} app */
const snapshotsIn = (app) =>
  fs.readdirSync(app.dir).filter((name) => name.endsWith('.heapsnapshot'));

/** Bytes that are kept out of forks. @param {number} pid */
function keptOut(pid) {
  let size = 0;
  let bytes = 0;
  for (const line of read(`/proc/${pid}/smaps`).split('\n')) {
    const figure = /^Size:\s+(\d+) kB/.exec(line);
    if (figure) size = Number(figure[1]) * 1024;
    if (/^VmFlags:.* dc( |$)/.test(line)) bytes += size;
  }
  return bytes;
}

/** @param {number} port */
async function answers(port) {
  const response = await fetch(`http://127.0.0.1:${port}/json`);
  assert.equal(response.status, 200);
  await response.arrayBuffer();
}

describe('forked snapshots', { skip: forks ? false : 'Linux with glibc only' }, () => {
  for (const variant of ['plain', 'children', 'workers', 'inspector']) {
    test(`whole, with all objects, and unnoticed by the app (${variant})`, async () => {
      const app = await start(
        { SOAK_WITH: variant, SOAK_HEAP_MB: '25' },
        variant === 'inspector' ? ['--inspect=0'] : [],
      );
      try {
        const before = await give(app, 'state');
        const keptOutBefore = keptOut(app.pid);
        for (let i = 0; i < 4; i++) {
          const stage = await give(app, 'gc');
          assert.equal(stage.ok, true, stage.problem);
          await answers(app.port);
        }
        const warm = await give(app, 'state');
        const answer = await give(app, 'snapshot');
        assert.equal(answer.refused, undefined, answer.refused?.sentence);
        await answers(app.port);
        assert.equal(answer.meta.mode, 'fork');
        assert.equal(answer.meta.node_ids_comparable, false);
        assert.equal(countInstances(answer.path, 'HeldSession'), before.held);

        // Later children of the app must not copy V8's page tables again, nor find leftovers of ours.
        assert.ok(keptOut(app.pid) > 0.8 * keptOutBefore, 'V8 memory stays out of forks');
        if (variant !== 'children') assert.deepEqual(childrenOf(app.pid), []);
        const state = await give(app, 'state');
        assert.deepEqual(state.fork, { possible: true, why: 'the self-test passed' });
        assert.equal(state.children.failed, 0);
        if (variant === 'plain') {
          assert.ok(state.memory.rss < 1.1 * warm.memory.rss, `${state.memory.rss} of RSS after`);
        }
        assert.deepEqual(await app.stop(), { code: 0, signal: null });
      } finally {
        await app.stop();
      }
    });
  }

  test('a child that is killed costs a try, not the snapshot', async () => {
    const app = await start();
    try {
      const answer = give(app, 'snapshot');
      process.kill(await writer(app), 'SIGKILL');
      const { fork, path: file } = await answer;
      assert.equal(fork.tries, 2);
      assert.match(fork.mishaps.join(), /signal 9/);
      assert.ok(countInstances(file, 'HeldSession') > 0);
      assert.equal(snapshotsIn(app).length, 1);
      await answers(app.port);
    } finally {
      await app.stop();
    }
  });

  test('three killed children are a refusal in words, and nothing stays', async () => {
    const app = await start();
    try {
      const { refused } = await killEach(app, give(app, 'snapshot'));
      assert.equal(refused.reason, 'failed');
      assert.match(refused.sentence, /3 forked children failed/);
      assert.deepEqual(childrenOf(app.pid), []);
      assert.deepEqual(
        fs.readdirSync(app.dir).filter((name) => /heapsnapshot|part/.test(name)),
        [],
      );
    } finally {
      await app.stop();
    }
  });

  test('auto goes on inline when no child comes through', async () => {
    const app = await start({ LEAKGUARD_SNAPSHOT: 'auto', SOAK_HEAP_MB: '15' });
    try {
      const { meta, refused } = await killEach(app, give(app, 'snapshot'));
      assert.equal(refused, undefined, refused?.sentence);
      assert.equal(meta.mode, 'inline');
    } finally {
      await app.stop();
    }
  });

  for (const signal of /** @type {NodeJS.Signals[]} */ (['SIGKILL', 'SIGTERM'])) {
    test(`${signal} of the app in the middle leaves no orphan and no file`, async () => {
      const app = await start({ SOAK_HEAP_MB: '60' });
      try {
        give(app, 'snapshot').catch(() => {});
        const child = await writer(app);
        process.kill(app.pid, signal);
        assert.deepEqual(await app.exit, { code: null, signal });
        await until('the end of the orphan', () => gone(child), ORPHAN_MS);
        assert.deepEqual(snapshotsIn(app), []);
      } finally {
        await app.stop();
      }
    });
  }

  test('process.exit in the middle keeps its code and leaves no orphan', async () => {
    const app = await start({ SOAK_HEAP_MB: '60' });
    try {
      give(app, 'snapshot').catch(() => {});
      const child = await writer(app);
      app.child.send({ order: 'exit' });
      assert.deepEqual(await app.exit, { code: 7, signal: null });
      await until('the end of the orphan', () => gone(child), ORPHAN_MS);
      assert.deepEqual(snapshotsIn(app), []);
    } finally {
      await app.stop();
    }
  });

  test('a reader that stands still makes the child wait, not fail', async () => {
    const app = await start();
    try {
      const answer = give(app, 'snapshot');
      const child = await writer(app);
      process.kill(app.pid, 'SIGSTOP');
      // The first number is the system call: 1 is write on x86-64, 64 on arm64.
      const write = process.arch === 'arm64' ? '64 ' : '1 ';
      await until('a full pipe', () => read(`/proc/${child}/syscall`).startsWith(write));
      // Nothing of the app is in its hands: no socket, no file, no handler of a signal.
      const held = fs.readdirSync(`/proc/${child}/fd`).map((fd) => link(`/proc/${child}/fd/${fd}`));
      assert.deepEqual([...new Set(held.map((to) => to.replace(/\d+/, 'N')))].sort(), [
        '/dev/null',
        'pipe:[N]',
      ]);
      const status = read(`/proc/${child}/status`);
      const signals = (/** @type {string} */ name) =>
        BigInt(`0x${new RegExp(`^${name}:\\s+(\\w+)$`, 'm').exec(status)?.[1]}`);
      // Two are the C library's own: 32 and 33.
      assert.equal(signals('SigCgt') & ~(3n << 31n), 0n, status);
      assert.equal(signals('SigBlk'), 0n, status);
      process.kill(app.pid, 'SIGCONT');
      const { fork, path: file } = await answer;
      assert.equal(fork.tries, 1, fork.mishaps.join());
      assert.ok(countInstances(file, 'HeldSession') > 0);
    } finally {
      await app.stop();
    }
  });

  test('a disk that fills in the middle is a refusal, and nothing half-written stays', async (t) => {
    const mount = tmpfs(t, 'size=128m,mode=0700');
    if (mount === null) return;
    const app = await start({ LEAKGUARD_DIR: path.join(mount, 'evidence'), SOAK_HEAP_MB: '20' });
    try {
      const answer = give(app, 'snapshot');
      await writer(app);
      const filler = path.join(mount, 'filler');
      fillUp(filler);
      const { refused } = await answer;
      assert.match(refused.sentence, /forked: .*(space|disk|quota|full)/i);
      assert.deepEqual(childrenOf(app.pid), []);
      assert.deepEqual(
        fs.readdirSync(app.dir).filter((name) => /heapsnapshot|part|meta/.test(name)),
        [],
      );
      await answers(app.port);
      fs.rmSync(filler);
      const second = await give(app, 'snapshot');
      assert.equal(second.refused, undefined, second.refused?.sentence);
    } finally {
      await app.stop();
    }
  });

  test('a child that needs more memory than it may have is a refusal with its size, and the app goes on', async () => {
    const app = await start();
    try {
      const answer = give(app, 'snapshot');
      // Its own limit, made smaller: what it has it keeps, and nothing comes to it.
      execFileSync('prlimit', ['--pid', String(await writer(app)), '--as=1048576:']);
      const { refused } = await answer;
      assert.equal(refused.reason, 'memory', refused.sentence);
      assert.match(refused.sentence, /beyond its birth/);
      assert.deepEqual(childrenOf(app.pid), []);
      assert.deepEqual(snapshotsIn(app), []);
      await answers(app.port);
      assert.equal((await give(app, 'snapshot')).refused, undefined);
    } finally {
      await app.stop();
    }
  });

  test('the child is killed when the container becomes too small, and the app lives', async (t) => {
    const group = container(t, 2048 * MB);
    if (group === null) return;
    const app = await start({ SOAK_HEAP_MB: '60' }, [], group.node);
    try {
      const answer = give(app, 'snapshot');
      await writer(app);
      group.limit(group.used() + 24 * MB);
      const { refused } = await answer;
      assert.equal(refused.reason, 'memory', refused.sentence);
      assert.match(refused.sentence, /killed, for the app's sake: /);
      assert.equal(group.kills(), 0);
      assert.deepEqual(childrenOf(app.pid), []);
      assert.deepEqual(snapshotsIn(app), []);
      await answers(app.port);
      group.limit(2048 * MB);
      // The sample that knows of the room may be a moment away.
      let second = await give(app, 'snapshot');
      const ends = performance.now() + DEADLINE_MS;
      while (second.refused?.reason === 'memory' && performance.now() < ends) {
        second = await give(app, 'snapshot');
      }
      assert.equal(second.refused, undefined, second.refused?.sentence);
      assert.equal(group.kills(), 0);
    } finally {
      await app.stop();
    }
  });

  test('at its limit of descriptors the app gets a refusal, and a snapshot when there is room again', async () => {
    const app = await start();
    try {
      const limit = (/** @type {number} */ soft) =>
        execFileSync('prlimit', ['--pid', String(app.pid), `--nofile=${soft}:`]);
      const before = Number(/Max open files\s+(\d+)/.exec(read(`/proc/${app.pid}/limits`))?.[1]);
      assert.equal((await give(app, 'gc')).ok, true);
      // Numbers below the limit that happen to be free are used up by the app's own connections.
      limit(fs.readdirSync(`/proc/${app.pid}/fd`).length);
      const { refused } = await give(app, 'snapshot');
      assert.ok(refused, 'no snapshot without descriptors');
      limit(before);
      const answer = await give(app, 'snapshot');
      assert.equal(answer.refused, undefined, answer.refused?.sentence);
      await answers(app.port);
    } finally {
      await app.stop();
    }
  });

  test('at the limit of processes the app gets a refusal, and goes on', async (t) => {
    const limit = limitOfProcesses(t);
    if (limit === null) return;
    const app = await start();
    try {
      assert.equal((await give(app, 'gc')).ok, true);
      limit.put(app.pid);
      const tasks = fs.readdirSync(`/proc/${app.pid}/task`).length;
      // Room for the threads that mind a fork, and none for the fork.
      limit.set(tasks + 2);
      const { refused } = await give(app, 'snapshot');
      assert.match(refused.sentence, /fork failed/);
      limit.set(tasks);
      const second = await give(app, 'snapshot');
      assert.match(second.refused.sentence, /thread .*could not be started/);
      await answers(app.port);
      limit.set('max');
      assert.equal((await give(app, 'snapshot')).refused, undefined);
    } finally {
      await app.stop();
    }
  });
});

/** Writes to a file until its file system is full. @param {string} file */
function fillUp(file) {
  const fd = fs.openSync(file, 'w');
  for (let size = 1 << 20; size >= 4096; ) {
    try {
      fs.writeSync(fd, Buffer.alloc(size));
    } catch {
      size /= 2;
    }
  }
  fs.closeSync(fd);
}

/**
 * A cgroup that limits processes, of either version; only root can make one.
 *
 * @param {import('node:test').TestContext} t
 */
function limitOfProcesses(t) {
  const v1 = fs.existsSync('/sys/fs/cgroup/pids');
  const parent = v1 ? '/sys/fs/cgroup/pids' : '/sys/fs/cgroup';
  const group = path.join(parent, `leakguard-test-${process.pid}`);
  try {
    const enable = v1 ? '' : `echo +pids > ${parent}/cgroup.subtree_control;`;
    asRoot(`${enable} mkdir ${group}; cat ${group}/pids.max`);
  } catch (error) {
    skipWithoutRoot(t, 'no cgroup with a limit of processes can be made here', error);
    return null;
  }
  t.after(() => asRoot(`rmdir ${group}`));
  return {
    put: (/** @type {number} */ pid) => asRoot(`echo ${pid} > ${group}/cgroup.procs`),
    set: (/** @type {number | 'max'} */ most) => asRoot(`echo ${most} > ${group}/pids.max`),
  };
}
