'use strict';

// A deflate stream is opened for each client and never closed: its 256 KB window is malloc'd by zlib.

const zlib = require('node:zlib');
const express = require('express');
const { serve } = require('../frame.js');

const encoders = [];
const app = express();

// LEAK
app.get('/subscribe', (_req, res) => {
  const encoder = zlib.createDeflate(); // LEAK
  encoders.push(encoder); // LEAK
  encoder.write('hello'.repeat(20_000));
  encoder.flush(() => res.send('ok'));
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
