'use strict';

/**
 * An app with a large heap of small objects, which watches its own event loop: a timer every 2 ms, and how much later
 * than that it ran. By its kind its requests do next to nothing (`light`), or what those of a usual app do (`working`): a
 * document is parsed, searched, written as JSON and kept for a session; or the timer itself allocates, and keeps that for
 * two seconds (`allocating`). A span is told beforehand whether the guard may read the live heap in it.
 */

const fs = require('node:fs');
const v8 = require('node:v8');
const { answer, settings } = require('./answer.js');

const { guard: guardPath, heapMb, restMs, kind: app } = settings();
const guard = require(guardPath);
const { listen } = require('./shop.js');

/** One element, its inner object and its slot. */
const BYTES_EACH = 96;
const TICK_MS = 2;
/** Rows of a document: 60 KB of text. */
const DOCUMENT_ROWS = 900;
const SESSIONS = 300;
/** What an allocating app makes every 2 ms, and how many of these it keeps. */
const SLICE = 400;
const SLICES = 1000;
/** Gaps from this on are looked at twice; below it nothing is long. */
const LOOKED_AT_MS = 1;

/** @type {any[]} */
const hold = [];
for (let i = 0; i < (heapMb * 1024 * 1024) / BYTES_EACH; i++) {
  hold.push({ i, a: i + 0.5, b: { x: i } });
}

v8.setFlagsFromString('--expose-gc');
const gc = require('node:vm').runInNewContext('gc');
v8.setFlagsFromString('--no-expose-gc');
gc();

const waiting = waitingForCore();

/**
 * How long this thread has been ready to run and waited for a core: what a busy machine adds to a gap.
 *
 * @returns {() => number} milliseconds so far; always 0 where the system does not say
 */
function waitingForCore() {
  const buffer = Buffer.alloc(128);
  try {
    const fd = fs.openSync('/proc/self/schedstat', 'r');
    return () =>
      Number(buffer.latin1Slice(0, fs.readSync(fd, buffer, 0, 128, 0)).split(' ')[1]) / 1e6;
  } catch {
    return () => 0;
  }
}

let last = performance.now();
let waited = waiting();
let longest = 0;
let longestRunning = 0;
setInterval(() => {
  const now = performance.now();
  const wait = waiting();
  const gap = now - last - TICK_MS;
  if (gap > LOOKED_AT_MS) {
    longest = Math.max(longest, gap);
    longestRunning = Math.max(longestRunning, gap - (wait - waited));
  }
  last = now;
  waited = wait;
  if (app === 'allocating') allocate();
  else for (let i = 0; i < 200; i++) hold[i % 1000].tmp = { i };
}, TICK_MS);

const listening = listen(app === 'working' ? session() : undefined);

let slice = 0;
/** Small objects with a string each, 13 MB a second: old by the time they die, so that V8 collects by itself. */
function allocate() {
  const kept = [];
  for (let i = 0; i < SLICE; i++) kept.push({ i, u: `r${i}` });
  hold[slice++ % SLICES].tmp = kept;
}

/**
 * A request of a usual app: it parses a document of 60 KB, takes from it what is asked for, in order, writes that as JSON, and keeps
 * the document in the session, of which there are so many at a time. So what dies is old, and V8 collects by itself.
 *
 * @returns {import('express').RequestHandler}
 */
function session() {
  const text = JSON.stringify(
    Array.from({ length: DOCUMENT_ROWS }, (_, row) => ({
      row,
      name: `item ${(row * 7919) % 1000}`,
      price: row * 1.25,
      tags: ['a', 'b', `t${row % 17}`],
    })),
  );
  /** @type {{ document: any[], page: string }[]} */
  const sessions = [];
  let next = 0;
  return (_request, _response, go) => {
    const document = JSON.parse(text);
    const found = document.filter(
      (/** @type {any} */ one) => one.tags.includes('t3') || one.price > 200,
    );
    found.sort((/** @type {any} */ a, /** @type {any} */ b) => a.name.localeCompare(b.name));
    sessions[next++ % SESSIONS] = { document, page: JSON.stringify(found) };
    go();
  };
}

/** @param {number} ms @returns {Promise<void>} */
const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @returns {{ readings: number, lost: number, way: string, cpuMs: number }} */
function liveHeap() {
  return guard.status().liveHeap;
}

/**
 * Both kinds of span make the same calls; only the share differs. The guard may ask in the first half alone, so
 * that a reading ends within its span, and the rest after the span lets its figures arrive.
 *
 * @param {{ ms: number, kind: 'reading' | 'none' | 'forced' }} span
 */
async function span({ ms, kind }) {
  const { served } = await listening;
  const before = liveHeap();
  longest = 0;
  longestRunning = 0;
  const cpu = process.cpuUsage();
  const requests = served();
  guard.start({ gcShare: kind === 'reading' ? '50%' : '0.01%' });
  await delay(ms / 2);
  guard.start({ gcShare: '0.01%' });
  if (kind === 'forced') gc();
  await delay(ms / 2);
  const used = process.cpuUsage(cpu);
  const result = {
    kind,
    longestMs: longest,
    longestRunningMs: longestRunning,
    cpuMs: (used.user + used.system) / 1000,
    requests: served() - requests,
  };
  await delay(restMs);
  const after = liveHeap();
  return {
    ...result,
    readings: after.readings - before.readings,
    lost: after.lost - before.lost,
    guardCpuMs: after.cpuMs - before.cpuMs,
  };
}

answer({
  port: async () => (await listening).port,
  liveHeap: () => ({ ...liveHeap(), heapMb: v8.getHeapStatistics().used_heap_size / 1024 / 1024 }),
  span,
});
