'use strict';

// Uploads are read to their end, hashed and forgotten.

const crypto = require('node:crypto');
const express = require('express');
const { serve } = require('../frame.js');

const app = express();

app.post('/upload', (req, res) => {
  const hash = crypto.createHash('sha256');
  req.on('data', (chunk) => hash.update(chunk));
  req.on('end', () => res.json({ sha256: hash.digest('hex') }));
});

serve(app);
