'use strict';

/**
 * What only the JS thread can read, in the fewest calls: the heap, buffers, timers. Called a few times a second at
 * most; it judges nothing and keeps no history. What the native guard reads by itself is left to it: the modules of
 * public API for that are large, and loaded only where they are needed.
 */

const clock = require('./clock');

/** @type {unknown} the native guard that was asked what it reads by itself */
let asked = null;
let readsLimit = false;
let readsLargeObjects = false;
let readsUtilization = false;

/** @param {any} native the native guard */
function ask(native) {
  if (asked === native) return;
  asked = native;
  const { limit, largeObjects, utilization } = native.reads();
  readsLimit = typeof limit === 'number';
  readsLargeObjects = typeof largeObjects === 'number';
  readsUtilization = utilization;
}

/** @type {ReturnType<typeof performance.eventLoopUtilization> | undefined} */
let lastUtilization;

/** @returns {number | undefined} share of the time since the last call in which the loop was busy */
function utilization() {
  const now = performance.eventLoopUtilization();
  const before = lastUtilization;
  lastUtilization = now;
  if (before === undefined) return undefined;
  const since = performance.eventLoopUtilization(now, before).utilization;
  return Number.isFinite(since) ? since : undefined;
}

/** @returns {number} bytes in the spaces of objects that are too large for a page */
function largeObjects() {
  let bytes = 0;
  for (const space of require('node:v8').getHeapSpaceStatistics()) {
    if (space.space_name.includes('large_object')) bytes += space.space_used_size;
  }
  return bytes;
}

/**
 * `heap_size_limit` of this isolate, bytes.
 *
 * @param {any} binding the native library
 * @returns {number}
 */
function heapSizeLimit(binding) {
  return binding.heapSizeLimit(process.memoryUsage) ?? publicLimit();
}

function publicLimit() {
  return require('node:v8').getHeapStatistics().heap_size_limit;
}

/**
 * @param {any} native the native guard
 * @param {boolean} afterGc whether a major GC has just ended
 */
function readHeap(native, afterGc) {
  ask(native);
  const memory = process.memoryUsage();
  native.record({
    used: memory.heapUsed,
    total: memory.heapTotal,
    external: memory.external,
    arrayBuffers: memory.arrayBuffers,
    limit: readsLimit ? undefined : publicLimit(),
    utilization: afterGc || readsUtilization ? undefined : utilization(),
    largeObjects: afterGc && !readsLargeObjects ? largeObjects() : undefined,
    afterGc,
  });
}

/** @param {any} native the native guard */
function countTimers(native) {
  const began = clock.now();
  let timers = 0;
  for (const resource of process.getActiveResourcesInfo()) {
    if (resource === 'Timeout') timers++;
  }
  native.recordTimers(timers, (clock.now() - began) * 1000);
}

module.exports = { heapSizeLimit, readHeap, countTimers };
