'use strict';

// Uploads are piped into streams that wait in a queue for a scanner that never reads them.

const { PassThrough } = require('node:stream');
const express = require('express');
const { serve } = require('../frame.js');

const scanQueue = [];
const app = express();

// LEAK
app.post('/upload', (req, res) => {
  const upload = new PassThrough({ highWaterMark: 1024 * 1024 });
  scanQueue.push(req.pipe(upload)); // LEAK
  req.on('end', () => res.status(202).send('queued'));
});

serve(app);
