'use strict';

// A peak of traffic at the start, with what it held let go afterwards, and then next to nothing.

const express = require('express');
const { records, serve } = require('../frame.js');

const app = express();

app.get('/', (_req, res) => {
  const rows = records(30_000);
  setTimeout(() => res.json({ rows: rows.length }), 300);
});

serve(app);
