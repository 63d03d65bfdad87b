'use strict';

// Healthy for LEAK_ONSET_S seconds (default 40); then a feature is switched on that keeps every response.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const onset = Date.now() + (Number(process.env.LEAK_ONSET_S) || 40) * 1000;

class StoredResponse {
  // LEAK
  constructor() {
    this.body = JSON.stringify('x'.repeat(leakBytes() - 100)); // LEAK
  }
}

const replay = [];
const app = express();

// LEAK
app.get('/', (_req, res) => {
  const response = new StoredResponse(); // LEAK
  if (Date.now() >= onset) replay.push(response); // LEAK
  res.send('ok');
});

serve(app);
