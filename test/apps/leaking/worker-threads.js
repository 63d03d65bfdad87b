'use strict';

// Each report starts a worker thread that answers and is then neither ended nor used again.

const { Worker } = require('node:worker_threads');
const express = require('express');
const { serve } = require('../frame.js');

const REPORT = `
  const { parentPort } = require('node:worker_threads');
  parentPort.on('message', (id) => parentPort.postMessage('report ' + id));
`;

const app = express();

app.get('/report', (_req, res) => {
  const worker = new Worker(REPORT, {
    eval: true,
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 16 },
  }); // LEAK
  worker.once('message', (report) => res.send(report));
  worker.postMessage(1);
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
