'use strict';

// Preload that records what the field's rules of thumb look at: process.memoryUsage() once a second and the heap
// after each garbage collection, as JSON lines in the file LEAK_TRACE_FILE names. `{"t":ms,"heapUsed":..,
// "heapTotal":..,"rss":..}` is a sample, `{"t":ms,"gc":"major"|"minor","heapUsed":..}` a collection. It judges nothing.

const fs = require('node:fs');
const { PerformanceObserver, constants } = require('node:perf_hooks');

const file = process.env.LEAK_TRACE_FILE;

if (file) {
  const fd = fs.openSync(file, 'a', 0o600);
  /** @param {object} line */
  const write = (line) => fs.writeSync(fd, `${JSON.stringify(line)}\n`);
  const now = () => Math.round(performance.now());

  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const detail = /** @type {{ kind?: number } | undefined} */ (entry.detail);
      const gc = detail?.kind === constants.NODE_PERFORMANCE_GC_MAJOR ? 'major' : 'minor';
      write({ t: now(), gc, heapUsed: process.memoryUsage().heapUsed });
    }
  });
  observer.observe({ entryTypes: ['gc'] });

  setInterval(() => {
    const { heapUsed, heapTotal, rss } = process.memoryUsage();
    write({ t: now(), heapUsed, heapTotal, rss });
  }, 1000).unref();
}
