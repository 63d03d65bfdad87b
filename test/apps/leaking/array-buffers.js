'use strict';

// Thumbnails stay in a list for ever: their bytes lie outside V8's heap, in array buffers.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const thumbnails = [];
const app = express();

// LEAK
app.get('/image/:id', (_req, res) => {
  thumbnails.push(Buffer.alloc(leakBytes(), 1)); // LEAK
  res.send('ok');
});

serve(app);
