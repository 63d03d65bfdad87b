'use strict';

// Load goes up and down like that of a day, and sessions that live for six seconds go with it.

const express = require('express');
const { records, serve } = require('../frame.js');

const SESSION_MS = 6000;

const sessions = new Map();
let logins = 0;

const app = express();

app.get('/login', (_req, res) => {
  const id = logins++;
  const timer = setTimeout(() => sessions.delete(id), SESSION_MS);
  sessions.set(id, { timer, basket: records(6_000) });
  res.json({ id });
});

serve(app);
