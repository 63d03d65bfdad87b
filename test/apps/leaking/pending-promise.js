'use strict';

// An async function waits for a reply that never comes: its promise, its frame and what it holds stay for ever.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

class Job {
  // LEAK
  constructor(id) {
    this.id = id;
    this.document = JSON.stringify('x'.repeat(leakBytes() - 500)); // LEAK
  }
}

const replies = new Map();
let jobs = 0;

function reply(id) {
  return new Promise((resolve) => replies.set(id, resolve)); // LEAK
}

async function convert(job) {
  const answer = await reply(job.id);
  return `${job.document}: ${answer}`;
}

const app = express();

// LEAK
app.post('/jobs', (_req, res) => {
  const job = new Job(jobs++); // LEAK
  convert(job);
  res.status(202).json({ id: job.id });
});

serve(app);
