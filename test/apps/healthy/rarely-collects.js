'use strict';

// So little is allocated that V8 has no reason to collect for minutes.

const { serve } = require('../frame.js');

/** @type {import('node:http').RequestListener} */
function handle(_req, res) {
  res.end('ok');
}

serve(handle);
