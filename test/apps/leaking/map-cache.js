'use strict';

// A Map caches a rendered page for each address, and every request has an address of its own.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

class RenderedPage {
  // LEAK
  constructor(url) {
    this.url = url;
    this.html = JSON.stringify('x'.repeat(leakBytes() - 250)); // LEAK
  }
}

const cache = new Map();
const app = express();

// LEAK
app.get('/page/:id', (req, res) => {
  let page = cache.get(req.originalUrl);
  if (!page) {
    page = new RenderedPage(req.originalUrl); // LEAK
    cache.set(req.originalUrl, page); // LEAK
  }
  res.send('ok');
});

serve(app);
