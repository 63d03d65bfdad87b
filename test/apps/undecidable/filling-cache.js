'use strict';

// A cache with a bound that is not reached before the run ends: a leak until it is full, and then none.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const LIMIT = 100_000;

class CachedPage {
  // LEAK
  constructor(id) {
    this.id = id;
    this.html = JSON.stringify('x'.repeat(leakBytes() - 250)); // LEAK
  }
}

const cache = new Map();
const app = express();

// LEAK
app.get('/page/:id', (req, res) => {
  if (!cache.has(req.params.id)) cache.set(req.params.id, new CachedPage(req.params.id)); // LEAK
  if (cache.size > LIMIT) cache.delete(cache.keys().next().value);
  res.send('ok');
});

serve(app);
