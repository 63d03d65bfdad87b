'use strict';

// Each request adds a listener to a global emitter and takes it away when it is answered; dozens are there at a time.

const { EventEmitter } = require('node:events');
const express = require('express');
const { serve, text } = require('../frame.js');

const config = new EventEmitter();
config.setMaxListeners(200);

const app = express();

app.get('/', (_req, res) => {
  const view = { theme: 'light', markup: text(2000) };
  const onReload = () => {
    view.theme = 'dark';
  };
  config.on('reload', onReload);
  setTimeout(() => {
    config.off('reload', onReload);
    res.send('ok');
  }, 400);
});

serve(app);
