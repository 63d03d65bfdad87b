'use strict';

// The last thousand requests are kept in a ring, each new one in the place of the oldest.

const express = require('express');
const { records, serve } = require('../frame.js');

const ring = new Array(1000).fill(null);
let next = 0;

const app = express();

app.get('/log/:number', (req, res) => {
  ring[next++ % ring.length] = { url: req.url, at: Date.now(), trace: records(4_000) };
  res.send('ok');
});

serve(app);
