'use strict';

// Traffic grows for half a minute and then stays: what is held follows it, since requests wait for a backend.

const express = require('express');
const { records, serve } = require('../frame.js');

const app = express();

app.get('/', (_req, res) => {
  const rows = records(40_000);
  setTimeout(() => res.json({ rows: rows.length }), 600);
});

serve(app);
