'use strict';

// Two closures share one context, so each new object keeps the one before it alive: a chain without end.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

class Snapshot {
  // LEAK
  constructor(describe) {
    this.body = JSON.stringify('x'.repeat(leakBytes() - 250)); // LEAK
    this.describe = describe;
  }
}

let latest = null;

// LEAK
function replace() {
  const previous = latest;
  // Never called, but it makes `previous` a slot of the context that describe() holds too.
  const compare = () => previous?.body.length;
  // LEAK
  latest = new Snapshot(function describe() {
    return compare === null;
  });
}

const app = express();

app.get('/', (_req, res) => {
  replace();
  res.send('ok');
});

serve(app);
