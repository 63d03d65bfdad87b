'use strict';

// A slow leak below a large sawtooth: megabytes of garbage a second and a batch that fills and is flushed.

const express = require('express');
const { leakBytes, records, serve } = require('../frame.js');

class LedgerLine {
  // LEAK
  constructor() {
    this.text = JSON.stringify('x'.repeat(leakBytes() - 100)); // LEAK
  }
}

const ledger = [];
let batch = [];
setInterval(() => {
  batch = [];
}, 4000);

const app = express();

// LEAK
app.post('/book', (_req, res) => {
  batch.push(records(8_000));
  const reply = JSON.stringify(records(60_000));
  ledger.push(new LedgerLine()); // LEAK
  res.json({ bytes: reply.length });
});

serve(app);
