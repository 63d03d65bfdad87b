'use strict';

// The app of the soak: Express with a heap of small objects of one class and routes that keep V8's and libuv's
// threads busy. It takes orders over IPC and answers them; whoever orders also judges. Variants, by SOAK_WITH:
// `workers` (threads that allocate all the time), `children` (a child process every quarter of a second, whose
// exit code and output are checked), `plain`.

const { execFile } = require('node:child_process');
const crypto = require('node:crypto');
const { once } = require('node:events');
const fs = require('node:fs');
const inspector = require('node:inspector');
const path = require('node:path');
const { Worker } = require('node:worker_threads');
const express = require('express');
const leakguard = require('..');

const MB = 1024 * 1024;
const heapMb = Number(process.env.SOAK_HEAP_MB ?? 30);
const variant = process.env.SOAK_WITH ?? 'plain';

class HeldSession {
  /** @param {number} number */
  constructor(number) {
    this.id = `session-${number}`;
    this.user = { name: `user${number}`, roles: ['a', 'b', number] };
    this.read = () => this.id;
  }
}

/** @type {Map<number, HeldSession>} */
const held = new Map();
while (process.memoryUsage().heapUsed < heapMb * MB) {
  for (let i = 0; i < 2000; i++) held.set(held.size, new HeldSession(held.size));
}

// Churn: objects that live just long enough to be promoted.
const ring = new Array(20_000).fill(null);
let at = 0;
const template = Array.from({ length: 40 }, (_, id) => ({
  id,
  tags: ['x', 'y', 'z'],
  nested: { id },
}));

const app = express();
app.get('/json', (_request, response) => {
  const copy = JSON.parse(JSON.stringify(template));
  for (const item of copy) {
    at = (at + 1) % ring.length;
    ring[at] = item;
  }
  response.json({ session: held.get(Math.floor(Math.random() * held.size))?.id, copy });
});
app.get('/hash', (_request, response, next) => {
  crypto.pbkdf2('password', 'salt', 1000, 32, 'sha256', (error, key) =>
    error ? next(error) : response.json({ key: key.toString('hex') }),
  );
});
app.get('/file', (_request, response, next) => {
  fs.readFile(__filename, (error, bytes) =>
    error ? next(error) : response.json({ length: bytes.length }),
  );
});

if (variant === 'workers') {
  const source = `const kept = []; let at = 0; setInterval(() => {
    for (let i = 0; i < 1500; i++) kept[at = (at + 1) % 40000] = { at: i, text: 's' + i, list: [i] };
  }, 10)`;
  for (let i = 0; i < 2; i++) new Worker(source, { eval: true });
}

const children = { started: 0, failed: 0, longestMs: 0 };
if (variant === 'children') {
  setInterval(() => {
    children.started += 1;
    const began = performance.now();
    execFile('/bin/echo', ['hello'], (error, stdout) => {
      children.longestMs = Math.max(children.longestMs, performance.now() - began);
      if (error || stdout !== 'hello\n') children.failed += 1;
    });
  }, 250);
}

async function snapshot() {
  const gone = new AbortController();
  /** @type {Promise<any>} */
  const written = once(leakguard, 'snapshot', { signal: gone.signal }).then(
    ([event]) => event,
    () => null,
  );
  const answer = await leakguard.snapshot({ reason: 'soak' });
  if (answer.refused) gone.abort();
  const event = await written;
  return { ...answer, fork: event?.fork, pauseMs: event?.pauseMs };
}

// Another package's snapshots, for the comparison of pauses (fork-pause.js), where the guard is off.
const DUMPERS = path.join(__dirname, 'peers', 'dumpers', 'node_modules');
const dumper = process.env.SOAK_DUMPER && require(path.join(DUMPERS, process.env.SOAK_DUMPER));
if (process.env.SOAK_DUMPER === 'xprofiler') dumper();

/** @param {string} by @param {string} dir */
async function dump(by, dir) {
  const file = path.join(dir, 'dump.heapsnapshot');
  if (by === 'heapdump') dumper.writeSnapshot(file);
  else {
    const port = Number(new URL(String(inspector.url())).port);
    await dumper({ heapdumpOnOOM: false, port, path: dir }).createHeapSnapshot(file);
  }
}

/** CPU time of this thread so far, milliseconds; 0 where the system does not say. */
function threadCpuMs() {
  try {
    return Number(fs.readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;
  } catch {
    return 0;
  }
}

/** The longest time between two turns of the loop, and CPU, since it was last told to watch. */
const watch = {
  last: 0,
  gapMs: 0,
  cpuMs: 0,
  /** @type {NodeJS.Timeout | undefined} */ turns: undefined,
};

function startWatch() {
  watch.last = performance.now();
  watch.gapMs = 0;
  watch.cpuMs = threadCpuMs();
  watch.turns = setInterval(turn, 1);
}

function turn() {
  const now = performance.now();
  watch.gapMs = Math.max(watch.gapMs, now - watch.last);
  watch.last = now;
}

async function watched() {
  // The turn that a stop delayed comes first.
  await new Promise((resolve) => setTimeout(resolve, 5));
  turn();
  clearInterval(watch.turns);
  return { gapMs: watch.gapMs, cpuMs: threadCpuMs() - watch.cpuMs };
}

/** @param {{ order?: string, id?: number, by?: string, dir?: string }} message */
async function obey(message) {
  if (message.order === 'gc') return leakguard[Symbol.for('leakguard.gcStage')]();
  if (message.order === 'snapshot') return snapshot();
  if (message.order === 'dump') return dump(String(message.by), String(message.dir));
  if (message.order === 'watch') return startWatch();
  if (message.order === 'watched') return watched();
  if (message.order === 'state') {
    return {
      fork: leakguard.status().fork,
      held: held.size,
      children,
      memory: process.memoryUsage(),
    };
  }
  if (message.order === 'exit') process.exit(7);
  return null;
}
process.on('message', (message) => {
  const { id } = /** @type {{ id?: number }} */ (message);
  obey(/** @type {any} */ (message)).then(
    (answer) => process.send?.({ id, answer }),
    (error) => process.send?.({ id, error: String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));

const server = app.listen(0, '127.0.0.1', () => {
  process.send?.({ port: /** @type {any} */ (server.address()).port });
});
