'use strict';

// Six hundred rooms, emitters with one single listener each, are opened on demand and kept; soon nearly all are open.

const { EventEmitter } = require('node:events');
const express = require('express');
const { serve, text } = require('../frame.js');

const rooms = new Map();

const app = express();

app.post('/rooms/:id', (req, res) => {
  let room = rooms.get(req.params.id);
  if (room === undefined) {
    room = new EventEmitter();
    room.topic = text(200);
    room.on('message', (line) => {
      room.topic = line;
    });
    rooms.set(req.params.id, room);
  }
  room.emit('message', text(200));
  res.send('ok');
});

serve(app);
