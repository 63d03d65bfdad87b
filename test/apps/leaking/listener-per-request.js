'use strict';

// A listener is added to one global emitter for each request and never removed.

const { EventEmitter } = require('node:events');
const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const config = new EventEmitter();
const app = express();

app.get('/', (_req, res) => {
  const view = { theme: 'light', markup: JSON.stringify('x'.repeat(leakBytes() - 200)) };
  // LEAK
  config.on('reload', function onReload() {
    view.theme = 'dark';
  });
  res.send('ok');
});

serve(app);
