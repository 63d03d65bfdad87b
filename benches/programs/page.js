'use strict';

/**
 * An app with the status page, which times each request of it on the event loop's own thread: from Node handing the
 * request over until the answer is written.
 */

const http = require('node:http');
const { once } = require('node:events');
const { answer, settings } = require('./answer.js');

const leakguard = require(settings().guard);
const page = leakguard.middleware();

/** Microseconds of each request since they were taken last. @type {number[]} */
let spent = [];

const server = http.createServer((request, response) => {
  const began = performance.now();
  page(request, response);
  spent.push((performance.now() - began) * 1000);
});
server.keepAliveTimeout = 0;
server.listen(0, '127.0.0.1');
const listening = once(server, 'listening');

answer({
  port: async () => {
    await listening;
    const address = server.address();
    return address !== null && typeof address === 'object' ? address.port : 0;
  },
  spent: () => {
    const taken = spent;
    spent = [];
    return taken;
  },
});
