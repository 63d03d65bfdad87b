'use strict';

// Twelve routes, of which one, with a tenth of the traffic, keeps what it computed.

const express = require('express');
const { leakBytes, records, serve } = require('../frame.js');

class Invoice {
  // LEAK
  constructor(id) {
    this.id = id;
    const length = Math.round((leakBytes() - 100) / 48);
    // LEAK
    this.lines = Array.from({ length }, (_, line) => ({ line, price: 1 }));
  }
}

const issued = [];
const app = express();

for (const name of [
  'users',
  'carts',
  'items',
  'offers',
  'stock',
  'news',
  'search',
  'help',
  'tags',
  'shops',
  'maps',
]) {
  app.get(`/${name}`, (_req, res) => res.json(records(2000)));
}

// LEAK
app.get('/invoices/:id', (req, res) => {
  const invoice = new Invoice(req.params.id); // LEAK
  issued.push(invoice); // LEAK
  res.json({ id: invoice.id });
});

serve(app);
