'use strict';

// Each request adds a listener to one EventTarget that lives as long as the process.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const bus = new EventTarget();
const app = express();

// LEAK
app.get('/watch', (_req, res) => {
  const watcher = { seen: 0, filter: JSON.stringify('x'.repeat(leakBytes() - 400)) }; // LEAK
  // LEAK
  bus.addEventListener('change', function onChange() {
    watcher.seen += 1;
  });
  res.send('ok');
});

serve(app);
