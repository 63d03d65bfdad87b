'use strict';

/**
 * A monotonic clock of our own: the first use of the global `performance` loads Node's whole perf_hooks, whose objects
 * V8 would mark in every major GC of the app.
 */

const { hrtime } = process;

/** @returns {number} milliseconds since some moment */
function now() {
  const [seconds, nanoseconds] = hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

module.exports = { now };
