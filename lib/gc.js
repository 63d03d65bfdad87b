'use strict';

/**
 * The ways to a live-heap reading that need JavaScript: forcing a GC, and watching for the end of one with a
 * PerformanceObserver. Neither is used where V8's own functions were found. The observer is on only during a
 * reading: it costs tens of microseconds at every scavenge.
 */

const clock = require('./clock');

/** `perf_hooks.constants.NODE_PERFORMANCE_GC_MAJOR` */
const MAJOR = 4;

/** An observer that saw no major GC for this long is switched off; the native thread asks again. */
const GIVE_UP_MS = 20_000;

/** @type {(() => void) | null | undefined} */
let force;

/** @returns {(() => void) | null} `gc`, or null where it cannot be had */
function obtainGc() {
  if (force !== undefined) return force;
  /** @type {(() => void) | null} */
  let gc = null;
  try {
    const script = 'typeof gc === "function" ? gc : null';
    const { runInNewContext } = require('node:vm');
    // An app started with --expose-gc has it in every context, and keeps it.
    let found = runInNewContext(script);
    if (found === null) {
      const v8 = require('node:v8');
      v8.setFlagsFromString('--expose-gc');
      found = runInNewContext(script);
      // Otherwise every context that the app makes from now on would have a global `gc`.
      v8.setFlagsFromString('--no-expose-gc');
    }
    if (typeof found === 'function') gc = found;
  } catch {
    // Node's permission model or a frozen flag list: the native thread goes on without.
  }
  force = gc;
  return gc;
}

/** @param {any} native the native guard */
function forceGc(native) {
  const gc = obtainGc();
  if (gc === null) {
    native.liveHeapFailed();
    return;
  }
  const began = clock.now();
  gc();
  const pause = clock.now() - began;
  native.recordLiveHeap(process.memoryUsage().heapUsed, pause);
}

/** @type {{ observer: import('node:perf_hooks').PerformanceObserver, since: number } | null} */
let watching = null;

/** @param {any} native the native guard */
function observeMajor(native) {
  stopObserving();
  const { PerformanceObserver } = require('node:perf_hooks');
  const observer = new PerformanceObserver((list) => {
    try {
      for (const entry of list.getEntries()) {
        const { detail } = /** @type {{ detail?: unknown }} */ (/** @type {unknown} */ (entry));
        if (/** @type {{ kind: number }} */ (detail).kind !== MAJOR) continue;
        stopObserving();
        native.recordLiveHeap(process.memoryUsage().heapUsed, entry.duration);
        return;
      }
    } catch {
      stopObserving();
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  watching = { observer, since: clock.now() };
}

/** Switches an observer off that has waited too long. */
function expireObserver() {
  if (watching !== null && clock.now() - watching.since > GIVE_UP_MS) stopObserving();
}

function stopObserving() {
  watching?.observer.disconnect();
  watching = null;
}

module.exports = { obtainGc, forceGc, observeMajor, expireObserver, stopObserving };
