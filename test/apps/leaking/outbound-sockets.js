'use strict';

// Each request opens a connection of its own to a service and leaves it open.

const net = require('node:net');
const express = require('express');
const { serve } = require('../frame.js');
const { startUpstream } = require('../upstream.js');

const app = express();

startUpstream().then((port) => {
  app.get('/quote', (_req, res) => {
    const socket = net.connect(port, '127.0.0.1'); // LEAK
    socket.once('data', (quote) => res.send(quote.toString()));
    socket.write('42');
  });

  app.get('/', (_req, res) => res.send('ok'));

  serve(app);
});
