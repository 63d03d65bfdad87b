'use strict';

/**
 * The app of shop.js, on Fastify: a hook with a listener per response, one that sets a header, a route with a parameter,
 * the same answer.
 */

const fastify = require('fastify');

/** @returns {Promise<{ port: number, served: () => number }>} */
async function listen() {
  const app = fastify({ keepAliveTimeout: 600_000 });
  let served = 0;
  let open = 0;
  app.addHook('onRequest', (_request, reply, done) => {
    open++;
    reply.raw.once('close', () => {
      open--;
    });
    done();
  });
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request', request.headers['x-request'] ?? '-');
    done();
  });
  app.get('/item/:id', async (request) => {
    served++;
    const lines = Array.from({ length: 20 }, (_, line) => ({
      line,
      price: line * 1.5,
      sku: 'abc',
    }));
    return { id: /** @type {{ id: string }} */ (request.params).id, open, lines };
  });
  await app.listen({ port: 0, host: '127.0.0.1' });
  const address = /** @type {import('node:net').AddressInfo} */ (app.server.address());
  return { port: address.port, served: () => served };
}

module.exports = { listen };
