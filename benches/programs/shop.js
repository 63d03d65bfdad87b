'use strict';

/**
 * The Express app of the benches: a few middlewares, a route with a parameter, a listener per response, a JSON
 * answer of about 1 KB. What an app does of its own is nothing; that makes the guard's part as large as it gets.
 */

const { once } = require('node:events');
const http = require('node:http');
const express = require('express');

/**
 * @param {import('express').RequestHandler} [work] what else a request does, before it is answered
 * @returns {Promise<{ port: number, served: () => number }>}
 */
async function listen(work) {
  const app = express();
  let served = 0;
  let open = 0;
  app.disable('x-powered-by');
  app.use((_request, response, next) => {
    open++;
    response.once('close', () => {
      open--;
    });
    next();
  });
  app.use((request, response, next) => {
    response.setHeader('x-request', request.headers['x-request'] ?? '-');
    next();
  });
  if (work) app.use(work);
  app.get('/item/:id', (request, response) => {
    served++;
    const lines = Array.from({ length: 20 }, (_, line) => ({
      line,
      price: line * 1.5,
      sku: 'abc',
    }));
    response.json({ id: request.params.id, open, lines });
  });
  const server = http.createServer(app);
  server.keepAliveTimeout = 600_000;
  // A connection that the load has not used yet is none that is too slow.
  server.headersTimeout = 0;
  server.requestTimeout = 0;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  return { port: address.port, served: () => served };
}

module.exports = { listen };
