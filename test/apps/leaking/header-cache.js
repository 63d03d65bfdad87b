'use strict';

// An object used as a dictionary keeps the headers of every request under its id.

const express = require('express');
const { serve } = require('../frame.js');

const seen = {};
let requests = 0;

const app = express();

// LEAK
app.use(function remember(req, _res, next) {
  seen[`request-${requests++}`] = req.headers; // LEAK
  next();
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
