'use strict';

// As after a deploy: thirty megabytes of catalogue are loaded during the first ten seconds and then only read.

const express = require('express');
const { MB, records, serve } = require('../frame.js');

const catalogue = [];
const loader = setInterval(() => {
  catalogue.push(records(MB));
  if (catalogue.length === 30) clearInterval(loader);
}, 333);

const app = express();
app.get('/part/:id', (req, res) => {
  const part = catalogue[Number(req.params.id) % Math.max(1, catalogue.length)];
  res.json({ records: part?.length ?? 0 });
});
serve(app);
