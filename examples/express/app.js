// A small shop with the two leaks that most apps have had. The first line guards it; healthy.js is the same
// shop with both leaks mended.

require('leakguard');

const { EventEmitter } = require('node:events');
const express = require('express');
const catalogue = require('./catalogue.js');

/** Tells of every change of a price: `change` with the id of the product and its new price. */
const prices = new EventEmitter();
// "MaxListenersExceededWarning" was in the logs, so somebody did this:
prices.setMaxListeners(0);

/** Pages that are rendered already, by URL. */
const pages = new Map();

const app = express();

app.get('/products/:id', (request, response) => {
  // Leak 1: the query string is part of the key, every visit has another one, and nothing is ever dropped.
  let page = pages.get(request.originalUrl);
  if (!page) {
    page = catalogue.render(request.params.id);
    pages.set(request.originalUrl, page);
  }

  // Leak 2: a listener for each request, so that the page shows the newest price. Nobody removes it.
  prices.on('change', function updatePrice(id, price) {
    if (id === request.params.id) page.price = price;
  });

  response.json(page);
});

setInterval(() => prices.emit('change', ...catalogue.changePrice()), 1000).unref();

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  const { port } = server.address();
  console.log(`the shop is open: http://127.0.0.1:${port}/products/1`);
});
