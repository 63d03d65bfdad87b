'use strict';

// Clients open connections during the first seconds and keep them for as long as the app runs.

const express = require('express');
const { serve } = require('../frame.js');

const app = express();
app.get('/', (_req, res) => {
  setTimeout(() => res.send('ok'), 300);
});
serve(app).keepAliveTimeout = 300_000;
