'use strict';

// The app of the soak: Express with a heap of small objects of one class and routes that keep V8's and libuv's
// threads busy. It takes orders over IPC and answers them; whoever orders also judges. Variants, by SOAK_WITH:
// `workers` (threads that allocate all the time), `children` (a child process every quarter of a second, whose
// exit code and output are checked), `plain`.

const { execFile } = require('node:child_process');
const crypto = require('node:crypto');
const { once } = require('node:events');
const fs = require('node:fs');
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

/** A snapshot, and the longest time between two turns of the loop meanwhile. */
async function timedSnapshot() {
  let last = performance.now();
  let gapMs = 0;
  const turns = setInterval(() => {
    const now = performance.now();
    gapMs = Math.max(gapMs, now - last);
    last = now;
  }, 1);
  const answer = await snapshot();
  await new Promise((resolve) => setTimeout(resolve, 5));
  clearInterval(turns);
  return { ...answer, gapMs };
}

/** @param {{ order?: string, id?: number }} message */
async function obey(message) {
  if (message.order === 'gc') return leakguard[Symbol.for('leakguard.gcStage')]();
  if (message.order === 'snapshot') return snapshot();
  if (message.order === 'timed-snapshot') return timedSnapshot();
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
  obey(/** @type {any} */ (message)).then((answer) => process.send?.({ id, answer }));
});
process.on('disconnect', () => process.exit(0));

const server = app.listen(0, '127.0.0.1', () => {
  process.send?.({ port: /** @type {any} */ (server.address()).port });
});
