'use strict';

// The app of the container matrix: Express with LIVE_MB of small objects, and a route that remembers what it is asked,
// LEAK_BYTES a request. It answers `/` at any time, which is how one sees that it lives.

const express = require('express');
const { MB, records, serve } = require('../../test/apps/frame.js');

const liveMb = Number(process.env.LIVE_MB);
const leakBytes = Number(process.env.LEAK_BYTES);

/** @type {unknown[]} */
const catalogue = [];
// In parts, so that V8 sees a heap that grows and not one that is there at once.
for (let part = 0; part < liveMb; part++) catalogue.push(records(MB));

/** @type {unknown[]} */
const remembered = [];

// It and the handler that calls it stand last: the matrix knows the leak by their lines.
function remember() {
  for (let bytes = 0; bytes < leakBytes; bytes += 72) {
    remembered.push({ id: remembered.length, at: Date.now() + 0.5, tag: 'asked' });
  }
}

const app = express();
app.get('/', (_request, response) => response.end('here'));
app.get('/ask', (_request, response) => {
  remember();
  response.json({ catalogue: catalogue.length, remembered: remembered.length });
});
serve(app);
