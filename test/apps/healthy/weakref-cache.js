'use strict';

// A cache that holds its entries by WeakRef: it grows between collections, and a collection empties it.

const express = require('express');
const { records, serve } = require('../frame.js');

const cache = new Map();
const registry = new FinalizationRegistry((id) => {
  if (cache.get(id)?.deref() === undefined) cache.delete(id);
});

const app = express();

app.get('/item/:id', (req, res) => {
  let item = cache.get(req.params.id)?.deref();
  if (!item) {
    item = { id: req.params.id, rows: records(4_000) };
    cache.set(req.params.id, new WeakRef(item));
    registry.register(item, req.params.id);
  }
  res.json({ rows: item.rows.length });
});

serve(app);
