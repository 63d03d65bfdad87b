'use strict';

/**
 * What only the JS thread can read, in the fewest calls: heap statistics, buffers, event-loop utilization,
 * timers. Called a few times a second at most; it judges nothing and keeps no history.
 */

const v8 = require('node:v8');

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
  for (const space of v8.getHeapSpaceStatistics()) {
    if (space.space_name.includes('large_object')) bytes += space.space_used_size;
  }
  return bytes;
}

/**
 * @param {any} native the native guard
 * @param {boolean} afterGc whether a major GC has just ended
 */
function readHeap(native, afterGc) {
  const heap = v8.getHeapStatistics();
  native.record({
    used: heap.used_heap_size,
    total: heap.total_heap_size,
    limit: heap.heap_size_limit,
    external: heap.external_memory,
    arrayBuffers: process.memoryUsage().arrayBuffers,
    utilization: afterGc ? undefined : utilization(),
    largeObjects: afterGc ? largeObjects() : undefined,
    afterGc,
  });
}

/** @param {any} native the native guard */
function countTimers(native) {
  const began = performance.now();
  let timers = 0;
  for (const resource of process.getActiveResourcesInfo()) {
    if (resource === 'Timeout') timers++;
  }
  native.recordTimers(timers, (performance.now() - began) * 1000);
}

module.exports = { readHeap, countTimers };
