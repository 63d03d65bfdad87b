'use strict';

// Traffic comes in bursts, and each request holds half a megabyte until it is answered a moment later.

const express = require('express');
const { records, serve } = require('../frame.js');

const app = express();

app.get('/', (_req, res) => {
  const rows = records(100_000);
  setTimeout(() => res.json({ rows: rows.length }), 150);
});

serve(app);
