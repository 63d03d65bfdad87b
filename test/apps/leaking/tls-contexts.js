'use strict';

// A TLS context with the whole bundle of authorities is made for each call and kept: OpenSSL's memory, not V8's.

const tls = require('node:tls');
const express = require('express');
const { serve } = require('../frame.js');

const AUTHORITIES = tls.rootCertificates.slice(0, 20);

const contexts = [];
const app = express();

// LEAK
app.get('/call', (_req, res) => {
  contexts.push(tls.createSecureContext({ ca: AUTHORITIES })); // LEAK
  res.send('ok');
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
