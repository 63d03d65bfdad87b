'use strict';

// A model that fills V8's old space to 90 % of its limit is loaded at the start; from then on nothing grows.

const express = require('express');
const { MB, records, serve } = require('../frame.js');

// The limit of the old space as given on the command line: heap_size_limit counts the young generation too.
const given = process.execArgv.find((flag) => flag.startsWith('--max-old-space-size='));
const limit = Number(given?.split('=')[1] ?? 64) * MB;

const model = [];
while (process.memoryUsage().heapUsed < 0.9 * limit) model.push(records(MB / 4));

const app = express();
app.get('/', (_req, res) => res.json({ parts: model.length, rows: records(2000).length }));
serve(app);
