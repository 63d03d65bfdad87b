'use strict';

// Every ten seconds a job loads ten megabytes, works on them for three seconds, and drops them.

const express = require('express');
const { MB, records, serve } = require('../frame.js');

let rows = null;

setInterval(() => {
  rows = records(10 * MB);
  setTimeout(() => {
    rows = null;
  }, 3000);
}, 10_000);

const app = express();
app.get('/', (_req, res) => res.json({ rows: rows?.length ?? 0 }));
serve(app);
