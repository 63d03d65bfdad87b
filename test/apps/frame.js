'use strict';

// What every program under test/apps shares: how it listens and reports its port, how much it leaks, and
// material of a known size to leak. Deliberately knows nothing of leakguard: the same program runs with and
// without the guard.
//
// How much a program leaks: LEAK_MB_PER_MIN (default 4, MB = 2^20 bytes) is the growth wanted, LEAK_RPS how
// often per second its leaking code runs under the load of index.js (the harness sets it; default 50). Bytes
// per run of that code = LEAK_MB_PER_MIN x 2^20 / 60 / LEAK_RPS. Fixed overheads (Map slots, closures) come on
// top where they cannot be foreseen, so a control run measures the true slope. Programs allocate what they leak
// themselves, so that it is their lines that a profile names: mostly as `JSON.stringify('x'.repeat(n))`, a flat
// string of n bytes (`'x'.repeat(n)` alone is a rope that shares its halves and weighs a few hundred bytes).

const http = require('node:http');

const MB = 1024 * 1024;

/**
 * Bytes to leak each time the leaking code runs.
 * @param {number} [runsPerSecond] how often that is; default LEAK_RPS
 */
function leakBytes(runsPerSecond = Number(process.env.LEAK_RPS) || 50) {
  const mbPerMinute = Number(process.env.LEAK_MB_PER_MIN) || 4;
  return Math.max(64, Math.round((mbPerMinute * MB) / 60 / runsPerSecond));
}

/**
 * A flat one-byte string of about `bytes` bytes on V8's heap, shared with no other string.
 * @param {number} bytes
 */
function text(bytes) {
  return JSON.stringify('x'.repeat(Math.max(1, bytes - 18)));
}

/**
 * Small objects of about `bytes` bytes in all: 72 bytes each, of which 16 are the boxed timestamp.
 * @param {number} bytes
 */
function records(bytes) {
  const list = new Array(Math.max(1, Math.round(bytes / 72)));
  for (let i = 0; i < list.length; i++) list[i] = { id: i, at: Date.now() + 0.5, tag: 'record' };
  return list;
}

/**
 * Listens on a free loopback port, tells it to the parent (`{ port }`) or to stderr, and ends with the parent.
 * @param {http.RequestListener} handler an Express app or a plain request listener
 * @param {http.ServerOptions} [options]
 */
function serve(handler, options = {}) {
  const server = http.createServer(options, handler);
  server.listen(0, '127.0.0.1', () => {
    const address = server.address();
    const port = address !== null && typeof address === 'object' ? address.port : 0;
    if (process.send) process.send({ port });
    else process.stderr.write(`listening on http://127.0.0.1:${port}\n`);
  });
  process.once('disconnect', () => process.exit(0));
  return server;
}

module.exports = { MB, leakBytes, records, serve, text };
