'use strict';

// Clients of a server-sent-event stream are added to a Set and stay in it after they have gone.

const express = require('express');
const { serve } = require('../frame.js');

const clients = new Set();
const app = express();

// LEAK
app.get('/events', (_req, res) => {
  res.writeHead(200, { 'content-type': 'text/event-stream' });
  res.write('data: hello\n\n');
  clients.add(res); // LEAK
});

app.get('/', (_req, res) => res.json({ clients: clients.size }));

serve(app);
