'use strict';

// Megabytes of short-lived objects a second: heapUsed climbs and falls, the live heap stays.

const express = require('express');
const { records, serve } = require('../frame.js');

let recent = [];
const app = express();

app.get('/', (_req, res) => {
  recent.push(records(30_000));
  if (recent.length >= 100) recent = [];
  res.json(records(40_000).length);
});

serve(app);
