'use strict';

// A pool of connections to a service grows under load until it reaches its cap of 24, and stays there.

const net = require('node:net');
const express = require('express');
const { serve } = require('../frame.js');
const { startUpstream } = require('../upstream.js');

const CAP = 24;

startUpstream().then((port) => {
  const idle = [];
  const waiting = [];
  let opened = 0;

  function acquire(use) {
    const socket = idle.pop();
    if (socket) use(socket);
    else if (opened < Math.min(CAP, Math.ceil(process.uptime()))) {
      opened += 1;
      use(net.connect(port, '127.0.0.1'));
    } else waiting.push(use);
  }

  function release(socket) {
    const use = waiting.shift();
    if (use) use(socket);
    else idle.push(socket);
  }

  const app = express();
  app.get('/', (_req, res) => {
    acquire((socket) => {
      socket.once('data', (reply) => {
        res.send(reply.toString());
        setTimeout(release, 600, socket);
      });
      socket.write('ping');
    });
  });
  serve(app);
});
