'use strict';

// 200 bytes for each of many requests: a small object in a Set of visitors.

const { serve } = require('../frame.js');

class Visit {
  // LEAK
  constructor(url, number) {
    this.url = url;
    this.at = Date.now() + 0.5;
    this.number = number;
    this.agent = null;
    this.referrer = null;
    this.country = null;
    this.path = url.slice(0, 12);
  }
}

const visits = new Set();
let count = 0;

/** @type {import('node:http').RequestListener} */
// LEAK
function handle(req, res) {
  visits.add(new Visit(req.url ?? '', count++)); // LEAK
  res.end('ok');
}

serve(handle);
