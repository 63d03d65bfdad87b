'use strict';

// Twelve routes over nested routers, some below a mount with a parameter; the one of number LEAK_ROUTE keeps what it
// computed. It is in no table: the tests and the scoreboard of routes start it. EXPRESS=express4 runs it on Express 4.

const { leakBytes, records, serve } = require('./frame.js');

/** @type {any} no types of Express are installed */
const express = require(process.env.EXPRESS ?? 'express');

/** Path templates of the load, and the names that the guard is to give them. */
const ROUTES = [
  { path: '/users/{id}', name: 'GET /users/:id' },
  { path: '/users/{id}/orders', name: 'GET /users/:id/orders' },
  { path: '/search', name: 'GET /search' },
  { path: '/health', name: 'GET /health' },
  { path: '/api/news', name: 'GET /api/news' },
  { path: '/api/tags/{id}', name: 'GET /api/tags/:tag' },
  { path: '/api/carts/{id}', name: 'POST /api/carts/:cart', method: /** @type {const} */ ('POST') },
  { path: '/api/offers', name: 'GET /api/offers' },
  { path: '/shops/{id}/items', name: 'GET /shops/:shop/items' },
  { path: '/shops/{id}/stock/7', name: 'GET /shops/:shop/stock/:item' },
  { path: '/admin/reports/{id}', name: 'GET /admin/reports/:report' },
  { path: '/admin/help', name: 'GET /admin/help' },
];

/**
 * The load: equal shares in the long run, each of them coming and going.
 * @param {number} leaking number of the route that leaks
 * @param {number} rps
 * @returns {import('./index.js').Load}
 */
function load(leaking, rps) {
  const routes = ROUTES.map(({ path, method }, index) => ({
    path,
    method,
    leak: index === leaking,
  }));
  return { rps, wander: 6, routes };
}

function start() {
  const leaking = Number(process.env.LEAK_ROUTE ?? 0);
  /** @type {unknown[]} */
  const kept = [];
  /** @param {number} number */
  const handler = (number) => (/** @type {any} */ _req, /** @type {any} */ res) => {
    const made = records(number === leaking ? leakBytes() : 3000);
    if (number === leaking) kept.push(made);
    res.json({ made: made.length });
  };
  const app = express();
  app.get('/users/:id', handler(0));
  app.get('/users/:id/orders', handler(1));
  app.get('/search', handler(2));
  app.get('/health', handler(3));
  const api = express.Router();
  api.get('/news', handler(4));
  api.get('/tags/:tag', handler(5));
  api.post('/carts/:cart', handler(6));
  api.get('/offers', handler(7));
  app.use('/api', api);
  const shop = express.Router({ mergeParams: true });
  shop.get('/items', handler(8));
  shop.get('/stock/:item', handler(9));
  app.use('/shops/:shop', shop);
  const admin = express();
  admin.get('/reports/:report', handler(10));
  admin.get('/help', handler(11));
  app.use('/admin', admin);
  serve(app);
}

if (require.main === module) start();

module.exports = { ROUTES, load };
