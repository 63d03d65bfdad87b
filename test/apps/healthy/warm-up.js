'use strict';

// Templates are compiled when they are first asked for: all of them within the first twenty seconds.

const express = require('express');
const { records, serve } = require('../frame.js');

const compiled = new Map();

function compile(name) {
  const template = {
    strings: records(40_000),
    render: new Function('user', `return 'Dear ' + user + ', ${name}'`),
  };
  compiled.set(name, template);
  return template;
}

const app = express();

app.get('/mail/:template', (req, res) => {
  const template = compiled.get(req.params.template) ?? compile(req.params.template);
  res.send(template.render('customer'));
});

serve(app);
