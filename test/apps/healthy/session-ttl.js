'use strict';

// A session store: each login adds a session, and a sweep every two seconds drops those older than ten.

const express = require('express');
const { records, serve } = require('../frame.js');

const TTL_MS = 10_000;

const sessions = new Map();
let logins = 0;

setInterval(() => {
  const oldest = Date.now() - TTL_MS;
  for (const [id, session] of sessions) if (session.since < oldest) sessions.delete(id);
}, 2000);

const app = express();

app.get('/login', (_req, res) => {
  sessions.set(logins++, { since: Date.now(), basket: records(4_000) });
  res.json({ sessions: sessions.size });
});

serve(app);
