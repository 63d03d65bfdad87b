'use strict';

// Downloads of two megabytes each, produced piece by piece as fast as the client reads.

const { Readable, pipeline } = require('node:stream');
const express = require('express');
const { serve } = require('../frame.js');

function* pieces() {
  for (let i = 0; i < 64; i++) yield Buffer.alloc(32 * 1024, i);
}

const app = express();

app.get('/download', (_req, res) => {
  pipeline(Readable.from(pieces()), res, () => {});
});

serve(app);
