'use strict';

// A listener is added for each request to an emitter whose warning was silenced with setMaxListeners(0).

const { EventEmitter } = require('node:events');
const express = require('express');
const { leakBytes, serve } = require('../frame.js');

const orders = new EventEmitter();
orders.setMaxListeners(0);

const app = express();

app.get('/orders/:id', (req, res) => {
  const order = {
    id: req.params.id,
    body: JSON.stringify('x'.repeat(leakBytes() - 250)),
    paid: false,
  };
  // LEAK
  orders.on('paid', function onPaid(id) {
    if (id === order.id) order.paid = true;
  });
  res.json({ id: order.id });
});

serve(app);
