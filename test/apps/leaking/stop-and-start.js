'use strict';

// A leak that goes only while there is traffic, and the traffic comes and goes.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

class AuditEntry {
  // LEAK
  constructor(path) {
    this.path = path;
    this.detail = JSON.stringify('x'.repeat(leakBytes() - 120)); // LEAK
  }
}

const audit = [];
const app = express();

// LEAK
app.use(function record(req, _res, next) {
  audit.push(new AuditEntry(req.path)); // LEAK
  next();
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
