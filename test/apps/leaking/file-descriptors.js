'use strict';

// A template is opened for each request and never closed.

const fs = require('node:fs');
const express = require('express');
const { serve } = require('../frame.js');

const app = express();

app.get('/template', (_req, res, next) => {
  // LEAK
  fs.open(__filename, 'r', (error, fd) => {
    if (error) return next(error);
    res.json({ fd });
  });
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
