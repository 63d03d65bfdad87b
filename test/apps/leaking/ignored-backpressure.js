'use strict';

// Log records are written to a stream that is slower than the traffic, and write()'s `false` is ignored.

const { Writable } = require('node:stream');
const express = require('express');
const { leakBytes, serve } = require('../frame.js');

class LogRecord {
  // LEAK
  constructor(path) {
    this.path = path;
    this.detail = JSON.stringify('x'.repeat(leakBytes() - 250)); // LEAK
  }
}

const shipper = new Writable({
  objectMode: true,
  write(_record, _encoding, done) {
    setTimeout(done, 1000);
  },
});

const app = express();

// LEAK
app.use(function log(req, _res, next) {
  shipper.write(new LogRecord(req.path)); // LEAK
  next();
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
