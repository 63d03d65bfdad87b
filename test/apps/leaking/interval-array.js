'use strict';

// An interval pushes a reading into an array that nothing ever empties; requests have no part in it.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const TICKS_PER_SECOND = 20;

class Reading {
  // LEAK
  constructor() {
    this.at = Date.now();
    this.dump = JSON.stringify('x'.repeat(leakBytes(TICKS_PER_SECOND) - 100)); // LEAK
  }
}

const history = [];

// LEAK
function collect() {
  history.push(new Reading()); // LEAK
}

setInterval(collect, 1000 / TICKS_PER_SECOND);

const app = express();
app.get('/', (_req, res) => res.json({ readings: history.length }));
serve(app);
