'use strict';

// Large modules are required only when their route is first used, 20 to 35 seconds after the start.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const express = require('express');
const { serve } = require('../frame.js');

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'late-require-'));
process.once('exit', () => fs.rmSync(directory, { recursive: true, force: true }));

function writeModule(number) {
  const functions = Array.from(
    { length: 1500 },
    (_, i) =>
      `exports.rule${i} = function rule${i}(order) { return order.total > ${i} ? 'rule ${i} of ${number}' : null; };`,
  );
  const file = path.join(directory, `rules-${number}.js`);
  fs.writeFileSync(file, functions.join('\n'));
  return file;
}

const files = [0, 1, 2, 3].map(writeModule);
const app = express();

app.get('/rules/:number', (req, res) => {
  const available = Math.floor((process.uptime() - 20) / 5);
  const number = Number(req.params.number) % files.length;
  if (number > available) return res.send('not yet');
  const rules = require(files[number]);
  res.send(rules.rule7({ total: 100 }));
});

serve(app);
