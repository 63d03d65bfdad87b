'use strict';

// Every request opens a room, an emitter with one single listener, and no room is ever dropped.

const { EventEmitter } = require('node:events');
const express = require('express');
const { leakBytes, serve } = require('../frame.js');

class Room extends EventEmitter {
  // LEAK
  constructor(name) {
    super();
    this.name = name;
    this.topic = JSON.stringify('x'.repeat(leakBytes() - 450)); // LEAK
  }
}

const rooms = new Map();
let opened = 0;

const app = express();

// LEAK
app.post('/rooms', (_req, res) => {
  const room = new Room(`room-${opened++}`); // LEAK
  // LEAK
  room.on('message', function deliver(line) {
    room.topic = line;
  });
  rooms.set(room.name, room); // LEAK
  res.status(201).json({ name: room.name });
});

serve(app);
