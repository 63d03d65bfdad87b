'use strict';

// Sessions live for an hour and the run is over in minutes: every login adds, and none has expired yet.

const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const HOUR_MS = 3_600_000;

class Session {
  // LEAK
  constructor(id) {
    this.id = id;
    this.basket = JSON.stringify('x'.repeat(leakBytes() - 500)); // LEAK
    this.timer = setTimeout(() => sessions.delete(id), HOUR_MS); // LEAK
  }
}

const sessions = new Map();
let logins = 0;

const app = express();

// LEAK
app.get('/login', (_req, res) => {
  const id = logins++;
  sessions.set(id, new Session(id)); // LEAK
  res.json({ id });
});

serve(app);
