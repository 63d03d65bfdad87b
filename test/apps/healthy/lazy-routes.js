'use strict';

// Sixteen routes, each used for the first time some seconds after the one before; V8 compiles and optimises each.

const express = require('express');
const { serve } = require('../frame.js');

const app = express();

function makeHandler(number) {
  const source = Array.from(
    { length: 40 },
    (_, i) =>
      `function step${i}(row) { row.sum += row.list.length * ${i + number}; row.tag${i} = row.sum % 7; }`,
  );
  const calls = Array.from({ length: 40 }, (_, i) => `step${i}(row);`);
  return new Function(`${source.join('\n')} return (row) => { ${calls.join(' ')} return row; };`)();
}

app.get('/route/:number', (req, res) => {
  const path = `/late/${req.params.number}`;
  handlers.get(path)(req, res);
});

const handlers = new Map();
for (let number = 0; number < 16; number++) {
  let work = null;
  handlers.set(`/late/${number}`, (_req, res) => {
    work ??= makeHandler(number);
    let sum = 0;
    for (let i = 0; i < 20; i++) sum += work({ sum: 0, list: [1, 2, 3] }).sum;
    res.json({ sum });
  });
}

serve(app);
