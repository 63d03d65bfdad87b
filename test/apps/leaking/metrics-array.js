'use strict';

// The duration of each request goes, with its labels, into an array that is never aggregated.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

class Observation {
  // LEAK
  constructor(route, milliseconds) {
    this.labels = { route, status: 200, trace: JSON.stringify('x'.repeat(leakBytes() - 200)) }; // LEAK
    this.milliseconds = milliseconds;
  }
}

const observations = [];
const app = express();

// LEAK
app.use(function measure(req, res, next) {
  const start = performance.now();
  // LEAK
  res.on('finish', function observe() {
    observations.push(new Observation(req.path, performance.now() - start)); // LEAK
  });
  next();
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
