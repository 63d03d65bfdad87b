'use strict';

// Each request starts an interval for its session and nobody clears it.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const app = express();

// LEAK
app.get('/login', (_req, res) => {
  const session = { touched: 0, profile: JSON.stringify('x'.repeat(leakBytes() - 500)) }; // LEAK
  // LEAK
  setInterval(function refresh() {
    session.touched += 1;
  }, 60_000);
  res.send('ok');
});

serve(app);
