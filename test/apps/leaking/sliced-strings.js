'use strict';

// A token of 20 characters is cut out of a large string; the slice keeps the whole string alive.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const tokens = [];
const app = express();

// LEAK
app.get('/token', (_req, res) => {
  const document = JSON.stringify('x'.repeat(leakBytes() - 40)); // LEAK
  tokens.push(document.slice(10, 30)); // LEAK
  res.send('ok');
});

serve(app);
