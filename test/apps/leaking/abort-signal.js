'use strict';

// Each request adds an abort listener to the process-wide shutdown signal and never takes it away.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const shutdown = new AbortController();
const app = express();

// LEAK
app.get('/search', (_req, res) => {
  const query = { cancelled: false, plan: JSON.stringify('x'.repeat(leakBytes() - 400)) }; // LEAK
  // LEAK
  shutdown.signal.addEventListener('abort', function cancel() {
    query.cancelled = true;
  });
  res.send('ok');
});

serve(app);
