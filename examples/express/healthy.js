// The shop of app.js with both leaks mended. The guard watches it in the same way and stays silent.

require('leakguard');

const { EventEmitter } = require('node:events');
const express = require('express');
const catalogue = require('./catalogue.js');

/** Pages kept at most: the catalogue twice over. */
const MAX_PAGES = 200;

/** Tells of every change of a price: `change` with the id of the product and its new price. */
const prices = new EventEmitter();

/** Pages that are rendered already, by path; the one not asked for the longest goes first. */
const pages = new Map();

// One listener for the whole app.
prices.on('change', function updatePrice(id, price) {
  const page = pages.get(`/products/${id}`);
  if (page) page.price = price;
});

const app = express();

app.get('/products/:id', (request, response) => {
  // The path alone decides what the page holds, so it alone is the key.
  const page = pages.get(request.path) ?? catalogue.render(request.params.id);
  pages.delete(request.path);
  pages.set(request.path, page);
  if (pages.size > MAX_PAGES) pages.delete(pages.keys().next().value);

  response.json(page);
});

setInterval(() => prices.emit('change', ...catalogue.changePrice()), 1000).unref();

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  const { port } = server.address();
  console.log(`the shop is open: http://127.0.0.1:${port}/products/1`);
});
