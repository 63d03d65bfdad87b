'use strict';

// An Express app that Prometheus scrapes. Told to over its channel, it leaks, or keeps so much that it is near its
// limit. test/metrics.test.js starts it.

const leakguard = require('../..');
const express = require('express');

/** @type {unknown[]} */
const kept = [];

/** Keeps about so many bytes of small objects. @param {number} bytes */
function keep(bytes) {
  for (let held = 0; held < bytes; held += 1024) kept.push(new Array(126).fill(held));
}

const app = express();
app.get('/', (_request, response) => void response.send('served'));
app.get('/metrics', (_request, response) => {
  response.type('text/plain; version=0.0.4').send(leakguard.metrics());
});

const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  process.send?.({ port: address.port });
});

process.on('message', (/** @type {any} */ message) => {
  if (message.leakBytesPerSecond) {
    setInterval(() => keep(message.leakBytesPerSecond / 20), 50);
  }
  if (message.keepBytes) {
    keep(message.keepBytes);
    const look = setInterval(() => {
      // Recorded is what a major GC has left; the next start looks for it.
      if ((leakguard.status().liveHeap?.lastBytes ?? 0) < message.untilBytes) return;
      clearInterval(look);
      process.send?.({ kept: true });
    }, 20);
  }
});
process.on('disconnect', () => process.exit());
