'use strict';

// A template is evaluated in a new vm context for each customer, and the contexts are kept.

const vm = require('node:vm');
const express = require('express');
const { serve } = require('../frame.js');

class Customer {
  constructor(id) {
    this.id = id;
  }
}

const sandboxes = [];
const app = express();

// LEAK
app.get('/render/:id', (req, res) => {
  const sandbox = vm.createContext(new Customer(req.params.id)); // LEAK
  sandboxes.push(sandbox); // LEAK
  res.send(vm.runInContext('"Dear customer " + id', sandbox));
});

app.get('/', (_req, res) => res.send('ok'));

serve(app);
