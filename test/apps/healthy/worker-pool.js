'use strict';

// Three worker threads are started at the first reports and answer all others.

const { Worker } = require('node:worker_threads');
const express = require('express');
const { serve } = require('../frame.js');

const REPORT = `
  const { parentPort } = require('node:worker_threads');
  parentPort.on('message', (id) => {
    const rows = Array.from({ length: 2000 }, (_, row) => ({ id, row }));
    parentPort.postMessage({ id, rows: rows.length });
  });
`;

const pool = [];
const answers = new Map();
let reports = 0;

function addWorker() {
  const worker = new Worker(REPORT, { eval: true, execArgv: [] });
  worker.on('message', ({ id, rows }) => {
    answers.get(id)(rows);
    answers.delete(id);
  });
  pool.push(worker);
}

const app = express();

app.get('/report', (_req, res) => {
  const id = reports++;
  if (pool.length < 3) addWorker();
  answers.set(id, (rows) => res.json({ id, rows }));
  pool[id % pool.length].postMessage(id);
});

serve(app);
