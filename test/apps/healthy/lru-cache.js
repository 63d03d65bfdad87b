'use strict';

// A cache with a bound fills during the first seconds, and from then on drops its oldest entry for each new one.

const express = require('express');
const { records, serve } = require('../frame.js');

const LIMIT = 1200;

const cache = new Map();
const app = express();

app.get('/page/:id', (req, res) => {
  let page = cache.get(req.params.id);
  if (page) cache.delete(req.params.id);
  else page = records(5_000);
  cache.set(req.params.id, page);
  if (cache.size > LIMIT) cache.delete(cache.keys().next().value);
  res.json({ records: page.length });
});

serve(app);
